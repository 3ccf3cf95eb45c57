//! Prints the result of an export: the verdict, what is in the archive, what is missing and why, and what to do next.

use std::io;

use indicatif::HumanBytes;
use moveout::export::summary::{ExportStatus, Missing, OfSource, SourceStatus, Summary};
use moveout::model::ArtifactOutcome;
use moveout::text::several;
use moveout::window::Slice;

use super::{
    Out, covers, dump, excluded, failed, notes, outside, seconds, some, verdict, warnings,
};

pub(crate) fn export(out: Out<'_>, summary: &Summary) -> io::Result<()> {
    let open = open(summary);
    let state = match (summary.status, summary.covers) {
        (ExportStatus::Complete, Some(window)) => covers(window),
        (ExportStatus::Complete, None) => "complete and sealed".to_owned(),
        (ExportStatus::CompleteExceptForDefinitions, _) => {
            "complete except for definitions".to_owned()
        }
        (ExportStatus::ShardComplete, _) => match &summary.shard {
            Some(shard) => format!("shard {shard} is complete; the archive is not sealed by it"),
            None => "complete".to_owned(),
        },
        (ExportStatus::Incomplete, _) => format!("incomplete{open}"),
        (ExportStatus::Interrupted, _) => format!("interrupted{open}"),
    };
    let good = matches!(summary.status, ExportStatus::Complete | ExportStatus::ShardComplete);
    writeln!(out, "{}: {}", summary.archive, verdict(good, state))?;
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
    if summary.sources.len() > 1 {
        some(out, &summary.sources, source)?;
    }
    some(out, &summary.dumps, dump)?;
    some(out, &summary.missing, missing)?;
    failed(out, &summary.failed)?;
    if let Some(error) = &summary.error {
        writeln!(out, "  error      {error}")?;
    }
    warnings(out, &summary.warnings)?;
    outside(out, &summary.outside)?;
    excluded(out, &summary.excluded)?;
    for artifact in &summary.artifacts {
        if let ArtifactOutcome::NotAvailable(_) = artifact.status {
            let (kind, source) = (&artifact.kind, &artifact.source);
            writeln!(out, "  left out   {kind} of {source}: {}", artifact.status)?;
        }
    }
    if summary.read_again.tables > 0 {
        let (tables, changed) = (summary.read_again.tables, summary.read_again.changed);
        let tables = several(tables, "table");
        writeln!(out, "  again      {tables} read again, {changed} of them changed")?;
    }
    if summary.read_again.stale > 0 {
        let chunks = several(summary.read_again.stale, "chunk");
        writeln!(out, "  again      {chunks} that the last proof found different, read again")?;
    }
    some(out, &summary.gone, |out, gone| {
        writeln!(
            out,
            "  gone       {}, since {}: the source does not list it any more; its rows stay in the archive",
            gone.table,
            gone.since.escape_debug()
        )
    })?;
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
    notes(out, &summary.notes)?;
    match &summary.hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None if good => writeln!(out, "\nnext: moveout verify {}", summary.archive),
        None => Ok(()),
    }
}

/// How many sources, or how many tables and dumps, are not complete.
fn open(summary: &Summary) -> String {
    let is_open = |source: &&OfSource| source.status != SourceStatus::Complete;
    let sources = summary.sources.iter().filter(is_open).count();
    let (what, count) = match summary.sources.len() {
        all @ 2.. if sources > 0 => (format!("{sources} of {all} sources"), sources),
        _ => {
            let dumps = summary.missing.iter().filter(|missing| missing.table.is_dump()).count();
            let all = summary.missing.len();
            let counts = [(all - dumps, "table"), (dumps, "dump")];
            let counts = counts.into_iter().filter(|(count, _)| *count > 0);
            let words = counts.map(|(count, what)| several(count as u64, what));
            (words.collect::<Vec<_>>().join(" and "), all)
        }
    };
    match count {
        0 => String::new(),
        1 => format!(", {what} is not complete"),
        _ => format!(", {what} are not complete"),
    }
}

fn source(out: Out<'_>, source: &OfSource) -> io::Result<()> {
    let status = match source.status {
        SourceStatus::Failed => "failed",
        SourceStatus::Incomplete => "incomplete",
        SourceStatus::Complete => "complete",
    };
    let name = source.source.escape_debug();
    writeln!(
        out,
        "  source     {name}: {status}, {} of {} in the archive, {}",
        several(source.rows_total, "row"),
        several(source.tables, "table"),
        HumanBytes(source.bytes_total)
    )
}

fn missing(out: Out<'_>, missing: &Missing) -> io::Result<()> {
    if missing.table.is_dump() {
        return writeln!(out, "  missing    {}", missing.table);
    }
    write!(out, "  missing    {} ", missing.table)?;
    match missing.windows.as_slice() {
        [] => return writeln!(out, "(the rows without a time)"),
        [only] => write!(out, "{only}")?,
        [first, more @ ..] => {
            write!(out, "{first} and {} more", several(more.len() as u64, "window"))?;
        }
    }
    let null_time = if missing.null_time { ", and the rows without a time" } else { "" };
    writeln!(out, "{null_time}")
}
