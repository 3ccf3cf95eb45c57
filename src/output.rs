//! Summaries on standard output: text for people, or one JSON object. Part of the binary.

use std::io::{self, Write};

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use moveout::archive::run_json::Outside;
use moveout::commands::doctor::Diagnosis;
use moveout::commands::plan::Preview;
use moveout::commands::status::Status;
use moveout::commands::verify::Report;
use moveout::error::{Error, Result};
use moveout::export::summary::{Failed, Summary};
use moveout::model::{ArtifactOutcome, Excluded};
use moveout::window::{Slice, Window, rfc3339};
use serde::Serialize;

/// Lines of a kind that are shown before the rest is only counted.
const SHOWN: usize = 20;

type Out<'a> = &'a mut dyn Write;

/// Prints a summary, as JSON if asked for.
pub(crate) fn show<T: Serialize>(
    json: bool,
    summary: &T,
    text: fn(Out<'_>, &T) -> io::Result<()>,
) -> Result<()> {
    let mut out = io::stdout().lock();
    finish(match json {
        true => serde_json::to_writer(&mut out, summary)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        false => text(&mut out, summary),
    })
}

/// Prints what is ready as it is.
pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    finish(io::stdout().lock().write_all(bytes))
}

fn finish(printed: io::Result<()>) -> Result<()> {
    match printed {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::stop(format!("writing to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// An error as a JSON object.
pub(crate) fn error(error: &Error) -> io::Result<()> {
    let json = serde_json::json!({
        "status": "error",
        "error": error.to_string(),
        "hint": error.hint_text(),
        "exit": error.exit() as u8,
    });
    writeln!(io::stdout().lock(), "{json}")
}

pub(crate) fn doctor(out: Out<'_>, diagnosis: &Diagnosis) -> io::Result<()> {
    let mut last = None;
    for check in &diagnosis.checks {
        if last != Some(&check.of) {
            writeln!(out, "{}", check.of)?;
            last = Some(&check.of);
        }
        let line = format!("  {:<8} {:<24} {}", check.status, check.what, check.found);
        writeln!(out, "{}", line.trim_end())?;
        if let Some(hint) = &check.hint {
            writeln!(out, "           {hint}")?;
        }
    }
    match diagnosis.status {
        "ok" => writeln!(out, "\nnothing fails of what was checked"),
        _ => writeln!(out, "\nan export would fail"),
    }
}

pub(crate) fn export(out: Out<'_>, summary: &Summary) -> io::Result<()> {
    let state = match (summary.status, summary.covers) {
        ("complete", Some(window)) => covers(window),
        ("complete", None) => "complete and sealed".to_owned(),
        (other, _) => other.to_owned(),
    };
    writeln!(out, "{}: {state}", summary.archive)?;
    writeln!(
        out,
        "  this run   {} in {} of {}, {}, {}, {}",
        several(summary.rows, "row"),
        summary.tables_written,
        several(summary.tables as u64, "table"),
        several(summary.chunks, "chunk"),
        HumanBytes(summary.bytes),
        seconds(summary.elapsed_seconds),
    )?;
    writeln!(
        out,
        "  archive    {}, {}",
        several(summary.rows_total, "row"),
        HumanBytes(summary.bytes_total)
    )?;
    if summary.read_again.tables > 0 {
        let (tables, changed) = (summary.read_again.tables, summary.read_again.changed);
        writeln!(
            out,
            "  again      {} read again, {changed} of them changed",
            several(tables, "table")
        )?;
    }
    some(out, &summary.kept, |out, kept| {
        let what = if kept.slice == Slice::All { "" } else { " (rows without a time)" };
        writeln!(out, "  kept       {}{what} as of {}", kept.table, kept.as_of)
    })?;
    if summary.not_compared.windows > 0 {
        writeln!(
            out,
            "  not read   {} of {}, exported before and not compared with the source",
            several(summary.not_compared.windows, "window"),
            several(summary.not_compared.tables, "table")
        )?;
    }
    outside(out, &summary.outside)?;
    excluded(out, &summary.excluded)?;
    for artifact in summary.artifacts.iter().filter(|a| match &a.status {
        ArtifactOutcome::Saved(detail) => !detail.is_empty(),
        ArtifactOutcome::NotAvailable(_) => true,
        ArtifactOutcome::None | ArtifactOutcome::Failed(_) => false,
    }) {
        writeln!(
            out,
            "  artifacts  {} of {}: {}",
            artifact.kind, artifact.source, artifact.status
        )?;
    }
    notes(out, &summary.notes)?;
    warnings(out, &summary.warnings)?;
    failed(out, &summary.failed)?;
    if let Some(error) = &summary.error {
        writeln!(out, "  error      {error}")?;
    }
    if let Some(hint) = &summary.hint {
        writeln!(out, "\nhint: {hint}")?;
    } else if summary.status == "complete" {
        writeln!(out, "\nnext: moveout verify {}", summary.archive)?;
    }
    Ok(())
}

pub(crate) fn plan(out: Out<'_>, plan: &Preview) -> io::Result<()> {
    for source in &plan.sources {
        writeln!(out, "{}: {} at {}", source.name, source.version, source.address)?;
    }
    some(out, &plan.tables, |out, table| {
        let left = match (table.remaining.first(), table.remaining.last()) {
            (Some(first), Some(last)) => {
                format!(
                    "{}, {}",
                    Window { from: first.from, to: last.to },
                    several(table.windows, "window")
                )
            }
            _ if table.windows > 0 => "the rows without a time".to_owned(),
            _ => "nothing left to do".to_owned(),
        };
        let by = table.time_column.as_ref().map(|column| format!(" by {}", column.escape_debug()));
        let by = by.unwrap_or_default();
        let left = match table.again.as_slice() {
            [] => left,
            _ if table.remaining.is_empty() => format!("{left}, again"),
            slices if slices.contains(&Slice::All) => {
                format!("{left}, again, since it is read whole")
            }
            _ => format!("{left}, and the rows without a time again"),
        };
        writeln!(out, "  {}  {left}{by}, {}", table.table, about(table.rows_estimate, "row"))
    })?;
    writeln!(
        out,
        "about {}, {}, {}, {}",
        several(plan.windows, "window"),
        about(plan.rows_estimate, "row"),
        plan.bytes_estimate
            .map_or_else(|| "size not known".to_owned(), |b| format!("{}", HumanBytes(b))),
        plan.seconds_estimate.map_or_else(
            || "time not known".to_owned(),
            |s| format!(
                "{} with one chunk in flight",
                HumanDuration(std::time::Duration::from_secs(s))
            )
        ),
    )?;
    for quota in &plan.quotas {
        write!(out, "{}: about ", quota.source)?;
        match quota.read_bytes_estimate {
            Some(bytes) => write!(out, "{} to be read", HumanBytes(bytes))?,
            None => write!(out, "as many bytes as its rows take")?,
        }
        match (&quota.quota, quota.seconds_at_least) {
            (Some(words), Some(seconds)) => {
                let least = HumanDuration(std::time::Duration::from_secs(seconds));
                write!(out, " under the quota of {words}, so {least} at least")?;
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
    outside(out, &plan.outside)?;
    excluded(out, &plan.excluded)?;
    notes(out, &plan.notes)?;
    warnings(out, &plan.warnings)?;
    failed(out, &plan.failed)?;
    match &plan.hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None => Ok(()),
    }
}

fn failed(out: Out<'_>, failed: &[Failed]) -> io::Result<()> {
    some(out, failed, |out, failed| {
        writeln!(out, "  failed     {}: {}", failed.chunk, failed.error)
    })
}

pub(crate) fn status(out: Out<'_>, status: &Status) -> io::Result<()> {
    let state = match (status.sealed, status.covers) {
        (false, _) => "not sealed: run the export again to go on".to_owned(),
        (true, None) => "sealed".to_owned(),
        (true, Some(window)) => covers(window),
    };
    writeln!(out, "{}: {state}", status.archive)?;
    for run in &status.runs {
        writeln!(out, "  at work    {run}")?;
    }
    let mut last = None;
    for table in &status.tables {
        let source = table.table.source.as_str();
        if last != Some(source) {
            let name = source.escape_debug();
            match status.sources.iter().find(|info| info.name == source) {
                Some(info) => writeln!(out, "{name}: {} at {}", info.version, info.address)?,
                None => writeln!(out, "{name}")?,
            }
            last = Some(source);
        }
        writeln!(
            out,
            "  {}  {}, {}, {}",
            table.table,
            several(table.rows, "row"),
            several(table.files, "file"),
            HumanBytes(table.bytes)
        )?;
        some(out, &table.covered, |out, window| writeln!(out, "    covered  {window}"))?;
        some(out, &table.missing, |out, window| writeln!(out, "    missing  {window}"))?;
    }
    writeln!(
        out,
        "{}, {}, {}, {}",
        several(status.tables.len() as u64, "table"),
        several(status.chunks as u64, "chunk"),
        several(status.rows, "row"),
        HumanBytes(status.bytes)
    )
}

pub(crate) fn verify(out: Out<'_>, report: &Report) -> io::Result<()> {
    for fault in report.faults.iter().chain(&report.unchecked) {
        writeln!(out, "{}: {}", fault.place, fault.fault)?;
    }
    let files = match report.files == report.files_listed {
        true => several(report.files, "file"),
        false => {
            format!("{} of {}", HumanCount(report.files), several(report.files_listed, "file"))
        }
    };
    let how = match (report.quick, report.files == report.files_listed) {
        (true, _) => "sizes and manifests compared, no data file read",
        (false, true) => "every byte hashed, every row decoded",
        (false, false) => "these were hashed and decoded",
    };
    writeln!(
        out,
        "{}: {}, {}, {files}, {}, {}; {how}",
        report.archive,
        several(report.tables as u64, "table"),
        several(report.chunks as u64, "chunk"),
        several(report.rows, "row"),
        HumanBytes(report.bytes)
    )?;
    match (report.faults.len(), report.status) {
        (0, "ok") => writeln!(out, "no fault found")?,
        (0, "unfinished") => writeln!(
            out,
            "no fault found, but {} could not be decoded within --memory",
            several(report.unchecked.len() as u64, "file")
        )?,
        (0, _) => writeln!(out, "no fault found, but the archive is not sealed")?,
        (faults, _) => writeln!(out, "{}", several(faults as u64, "fault"))?,
    }
    match report.hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None => Ok(()),
    }
}

/// Rows are known that are not in the archive.
fn covers(window: Window) -> String {
    format!("sealed; covers {} to {}", rfc3339(window.from), rfc3339(window.to))
}

/// `1 file`, `2 files`.
fn several(count: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

fn about(count: Option<u64>, what: &str) -> String {
    match count {
        Some(count) => format!("about {}", several(count, what)),
        None => format!("{what}s not counted"),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds < 60.0 {
        true => format!("{seconds:.1} s"),
        false => format!("{}", HumanDuration(std::time::Duration::from_secs_f64(seconds))),
    }
}

fn outside(out: Out<'_>, outside: &[Outside]) -> io::Result<()> {
    some(out, outside, |out, outside| {
        let at_least = if outside.count.exact { "" } else { "at least " };
        writeln!(
            out,
            "  outside    {at_least}{} of {} in {}, not asked for",
            several(outside.count.rows, "row"),
            outside.table,
            outside.window
        )
    })
}

fn excluded(out: Out<'_>, excluded: &[Excluded]) -> io::Result<()> {
    some(out, excluded, |out, excluded| {
        writeln!(out, "  left out   {} of {}: {}", excluded.what, excluded.source, excluded.why)
    })
}

fn notes(out: Out<'_>, notes: &[String]) -> io::Result<()> {
    notes.iter().try_for_each(|note| writeln!(out, "  note       {note}"))
}

fn warnings(out: Out<'_>, warnings: &[String]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(out, "  warning    {warning}"))
}

fn some<T>(
    out: Out<'_>,
    all: &[T],
    mut print: impl FnMut(Out<'_>, &T) -> io::Result<()>,
) -> io::Result<()> {
    for one in all.iter().take(SHOWN) {
        print(out, one)?;
    }
    match all.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  … and {more} more (all of them with --json)"),
    }
}
