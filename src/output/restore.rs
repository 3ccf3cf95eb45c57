//! The summary of a restore.

use std::io;

use indicatif::HumanCount;
use moveout::commands::restore::{RestoreStatus, Restored};
use moveout::text::several;

use super::{Out, some, verdict};

pub(crate) fn restore(out: Out<'_>, restored: &Restored) -> io::Result<()> {
    let (rows, tables) =
        (several(restored.rows, "row"), several(restored.tables.len() as u64, "table"));
    let title = match restored.status {
        RestoreStatus::Planned => format!("would restore {rows} of {tables}"),
        RestoreStatus::Complete => verdict(true, format!("restored: {rows} of {tables}")),
        RestoreStatus::Different if restored.differences.is_empty() => verdict(
            false,
            format!(
                "restored: {rows} of {tables}, without {}",
                several(restored.rejected, "rejected row")
            ),
        ),
        RestoreStatus::Different => verdict(false, "the target does not have what the archive has"),
    };
    writeln!(out, "{title}")?;
    writeln!(out, "  from       {}", restored.archive)?;
    writeln!(out, "  into       {}", restored.target)?;
    let made = if restored.status == RestoreStatus::Planned { "make" } else { "made" };
    some(out, &restored.created, |out, what| writeln!(out, "  {made:<10} {what}"))?;
    some(out, &restored.tables, |out, table| {
        let name = if (&table.from.database, &table.from.schema, &table.from.table)
            == (&table.to.database, &table.to.schema, &table.to.table)
        {
            table.from.to_string()
        } else {
            format!("{} as {}", table.from, table.to)
        };
        let rejected = match table.rejected {
            0 => String::new(),
            rows => format!(", {} rejected", HumanCount(rows)),
        };
        writeln!(out, "  table      {name}: {}{rejected}", several(table.rows, "row"))
    })?;
    some(out, &restored.skipped, |out, what| writeln!(out, "  left out   {what}"))?;
    some(out, &restored.differences, |out, what| writeln!(out, "  different  {what}"))?;
    some(out, &restored.notes, |out, note| writeln!(out, "  note       {note}"))?;
    if let Some(path) = &restored.rejects {
        writeln!(out, "\neach rejected row is in {} with the reason", path.display())?;
    }
    if !restored.differences.is_empty() {
        writeln!(
            out,
            "\ncheck whether somebody else writes to the target; then remove what was restored and run the same command again"
        )?;
    }
    Ok(())
}
