//! Prints what an export would do: a list of the tables, largest first, their totals, and how long the export takes.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use moveout::commands::plan::{Preview, TablePreview};
use moveout::source::aptible::{Backups, Inventory};
use moveout::text::several;
use moveout::window::{Slice, Window};

use super::{Out, SHOWN, excluded, failed, notes, outside, some, warnings};

/// The greatest width of the column of names.
const WIDEST: usize = 60;
/// The width of the numbers and of the spaces between them.
const NUMBERS: usize = 2 + 13 + 2 + 10 + 2 + 7 + 2;

pub(crate) fn plan(out: Out<'_>, plan: &Preview) -> io::Result<()> {
    for source in &plan.sources {
        writeln!(out, "{}: {} at {}", source.name, source.version, source.address)?;
    }
    let mut tables: Vec<&TablePreview> = plan.tables.iter().collect();
    // Tables that could not be counted come first, since they may be the largest.
    tables.sort_by_key(|table| {
        let size = |size: Option<u64>| Reverse(size.unwrap_or(u64::MAX));
        (size(table.bytes_estimate), size(table.rows_estimate))
    });
    let names: Vec<String> = tables.iter().map(|table| table.table.to_string()).collect();
    let shown = tables.len().min(SHOWN);
    let widths = names[..shown].iter().map(|name| name.chars().count());
    let width = widths.chain(["total".len()]).max().unwrap_or_default().min(WIDEST);
    let columns = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let range_width = tables.iter().map(|table| range(table).chars().count()).max();
    let needed = 2 + width + NUMBERS + range_width.unwrap_or_default();
    let narrow = columns.is_some_and(|columns| columns < needed);
    let mut line = |name: &str, rows: &str, size: &str, windows: &str, range: &str| {
        if narrow {
            // The parts are printed below each other where they do not fit beside each other.
            return match (name, rows, range) {
                ("", ..) => Ok(()),
                (_, "", _) => writeln!(out, "  {name} {range}"),
                (_, _, "") => writeln!(out, "  {name}\n    {rows} rows, {size}, {windows}"),
                _ => writeln!(out, "  {name}\n    {rows} rows, {size}, {windows}\n    {range}"),
            };
        }
        let line = format!("  {name:<width$}  {rows:>13}  {size:>10}  {windows:>7}  {range}");
        writeln!(out, "{}", line.trim_end())
    };
    let count = |count: u64| HumanCount(count).to_string();
    let windows =
        |count: u64| if narrow { several(count, "window") } else { HumanCount(count).to_string() };
    let rows = |rows: Option<u64>| rows.map_or_else(|| "not counted".to_owned(), count);
    let size = |size: Option<u64>| {
        size.map_or_else(|| "not known".to_owned(), |size| HumanBytes(size).to_string())
    };
    if !tables.is_empty() {
        line("", "about rows", "about size", "windows", "range (UTC)")?;
    }
    for (table, name) in tables.iter().zip(&names).take(shown) {
        let (rows, size) = (rows(table.rows_estimate), size(table.bytes_estimate));
        line(name, &rows, &size, &windows(table.windows), &range(table))?;
    }
    if tables.len() > shown {
        let more = format!("… and {} more", tables.len() - shown);
        line(&more, "", "", "", "(all of them with --json)")?;
    }
    let (all_rows, all_size) = (rows(plan.rows_estimate), size(plan.bytes_estimate));
    line("total", &all_rows, &all_size, &windows(plan.windows), "")?;
    for dump in &plan.dumps {
        let state = match (dump.remaining, dump.again) {
            (true, true) => ", again",
            (true, false) => "",
            (false, _) => ", nothing left to do",
        };
        let size =
            dump.source_bytes.map(|bytes| format!(", about {} in the source", HumanBytes(bytes)));
        let (name, source) = (dump.name.escape_debug(), dump.source.escape_debug());
        let (program, size) = (dump.program.escape_debug(), size.unwrap_or_default());
        writeln!(out, "  dump {name} of {source} by {program}{size}{state}")?;
    }
    let time = |seconds| HumanDuration(Duration::from_secs(seconds));
    match plan.seconds_estimate {
        Some(seconds) => writeln!(
            out,
            "about {} with {} in flight",
            time(seconds),
            several(plan.concurrency as u64, "chunk")
        )?,
        None if plan.windows == 0 && plan.dumps.iter().all(|dump| !dump.remaining) => {
            writeln!(out, "nothing is left to do")?
        }
        None => writeln!(out, "how long it takes is not known")?,
    }
    for quota in &plan.quotas {
        write!(out, "{}: about ", quota.source)?;
        match quota.read_bytes_estimate {
            Some(bytes) => write!(out, "{} to be read", HumanBytes(bytes))?,
            None => write!(out, "as many bytes as its rows take")?,
        }
        match (&quota.quota, quota.seconds_at_least) {
            (Some(words), Some(seconds)) => {
                write!(out, " under the quota of {words}, so {} at least", time(seconds))?;
            }
            (Some(words), None) => write!(out, " under the quota of {words}")?,
            (None, _) => write!(out, " without a quota")?,
        }
        write!(out, "; about {}", several(quota.queries_estimate, "query execution"))?;
        match quota.cost_estimate {
            Some(cost) => writeln!(out, "; about {cost:.2} in the currency of the bill")?,
            None => writeln!(out)?,
        }
    }
    if let Some(inventory) = &plan.aptible {
        aptible(out, inventory)?;
    }
    failed(out, &plan.failed)?;
    warnings(out, &plan.warnings)?;
    outside(out, &plan.outside)?;
    excluded(out, &plan.excluded)?;
    notes(out, &plan.notes)?;
    match &plan.hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None => Ok(()),
    }
}

/// Prints the databases on Aptible, and the backups that no export reads.
fn aptible(out: Out<'_>, inventory: &Inventory) -> io::Result<()> {
    some(out, &inventory.databases, |out, entry| {
        let kind = entry.kind.as_deref().unwrap_or("RDS").escape_debug();
        let version = entry.version.as_deref().unwrap_or_default().escape_debug();
        let disk =
            entry.disk_gigabytes.map_or(String::new(), |size| format!(", disk of {size} GB"));
        let backups = match &entry.backups {
            Some(Backups { count: 0, .. }) => ", no backup".to_owned(),
            Some(Backups { count, oldest: Some(oldest), newest: Some(newest) }) => format!(
                ", {} from {} to {}, which go with it",
                several(*count, "backup"),
                oldest.escape_debug(),
                newest.escape_debug()
            ),
            _ => String::new(),
        };
        writeln!(
            out,
            "  aptible    {}: {kind} {version}{disk}: {}{backups}",
            entry.source.escape_debug(),
            entry.how
        )
    })?;
    some(out, &inventory.orphaned, |out, orphan| {
        writeln!(
            out,
            "  backup     {} of {}, of {}, deprovisioned at {}: only `{}` makes it a database again, a new one that is billed",
            orphan.id.escape_debug(),
            orphan.handle.escape_debug(),
            orphan.created_at.escape_debug(),
            orphan.deleted_at.as_deref().unwrap_or("an unknown time").escape_debug(),
            orphan.restore.escape_debug()
        )
    })
}

/// The range that is left, and the time column.
fn range(table: &TablePreview) -> String {
    let range = match (table.remaining.first(), table.remaining.last()) {
        (Some(first), Some(last)) => {
            let all = Window { from: first.from, to: last.to };
            // The part of the range that has rows is more informative.
            let with_rows = table.bounds.and_then(|bounds| all.intersect(&bounds));
            with_rows.unwrap_or(all).for_people()
        }
        _ if table.windows > 0 => "the rows without a time".to_owned(),
        _ => "nothing left to do".to_owned(),
    };
    let again = match table.again.as_slice() {
        [] => "",
        _ if table.remaining.is_empty() => ", again",
        slices if slices.contains(&Slice::All) => ", again, since it is read whole",
        _ => ", and the rows without a time again",
    };
    let by = table.time_column.as_ref().map(|column| format!(" by {}", column.escape_debug()));
    format!("{range}{again}{}", by.unwrap_or_default())
}
