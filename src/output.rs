//! Summaries on standard output: text for people, or one JSON object. Part of the binary.

mod export;
mod plan;
mod proof;
mod report;
mod restore;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use clap::ColorChoice;
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use moveout::archive::dumps::DumpEntry;
use moveout::archive::run_json::Outside;
use moveout::commands::doctor::{CheckStatus, Diagnosis};
use moveout::commands::status::{SourceState, Status};
use moveout::commands::verify::{Report, ReportStatus};
use moveout::error::{Error, Result};
use moveout::export::summary::{Failed, SourceStatus};
use moveout::model::Excluded;
use moveout::text::several;
use moveout::window::{Window, rfc3339};
use serde::Serialize;

pub(crate) use self::export::export;
pub(crate) use self::plan::plan;
pub(crate) use self::report::report;
pub(crate) use self::restore::restore;

/// The number of lines of a kind that are shown; the others are only counted.
const SHOWN: usize = 20;

type Out<'a> = &'a mut dyn Write;

/// Whether verdicts are coloured.
static COLOURS: OnceLock<bool> = OnceLock::new();

/// Sets whether verdicts are coloured.
pub(crate) fn colours(choice: ColorChoice) {
    let auto = || {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !refused && io::stdout().is_terminal()
    };
    let _ = COLOURS.set(match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => auto(),
    });
}

/// A verdict, which is green if it is good and red otherwise.
fn verdict(good: bool, text: impl fmt::Display) -> String {
    let code = if good { 32 } else { 31 };
    match COLOURS.get() {
        Some(true) => format!("\x1b[1;{code}m{text}\x1b[0m"),
        _ => text.to_string(),
    }
}

/// Prints a summary, as JSON if that is requested.
pub(crate) fn show<T: Serialize>(
    json: bool,
    summary: &T,
    text: fn(Out<'_>, &T) -> io::Result<()>,
) -> Result<()> {
    let mut out = io::stdout().lock();
    finish(if json {
        serde_json::to_writer(&mut out, summary)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        text(&mut out, summary)
    })
}

/// Prints bytes as they are.
pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    finish(io::stdout().lock().write_all(bytes))
}

fn finish(printed: io::Result<()>) -> Result<()> {
    match printed {
        // It is not a failure if a reader such as `head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::stop(format!("writing to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints an error as a JSON object.
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
        let status = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Failed => "failed",
        };
        let line = format!("  {status:<8} {:<24} {}", check.what, check.found);
        writeln!(out, "{}", line.trim_end())?;
        if let Some(hint) = &check.hint {
            writeln!(out, "           {hint}")?;
        }
    }
    match diagnosis.status {
        CheckStatus::Failed => writeln!(out, "\n{}", verdict(false, "an export would fail")),
        CheckStatus::Ok | CheckStatus::Warning => {
            writeln!(out, "\n{}", verdict(true, "nothing fails of what was checked"))
        }
    }
}

fn failed(out: Out<'_>, failed: &[Failed]) -> io::Result<()> {
    some(out, failed, |out, failed| {
        writeln!(out, "  failed     {}: {}", failed.chunk, failed.error)?;
        match &failed.todo {
            Some(todo) if failed.is_source => writeln!(out, "             {todo}"),
            _ => Ok(()),
        }
    })
}

pub(crate) fn status(out: Out<'_>, status: &Status) -> io::Result<()> {
    let state = match (status.sealed, status.covers) {
        (false, _) => "not sealed: run the export again to continue".to_owned(),
        (true, None) => "sealed".to_owned(),
        (true, Some(window)) => covers(window),
    };
    writeln!(out, "{}: {state}", status.archive)?;
    for run in &status.runs {
        writeln!(out, "  at work    {run}")?;
    }
    if let Some(verdict) = &status.verdict {
        proof::last(out, verdict)?;
    }
    let mut last = None;
    for table in &status.tables {
        let source = table.table.source.as_str();
        if last != Some(source) {
            if let Some(state) = status.sources.iter().find(|state| state.info.name == source) {
                source_state(out, state, status.sources.len())?;
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
    for state in status.sources.iter().filter(|state| state.tables == 0 && state.error.is_some()) {
        source_state(out, state, status.sources.len())?;
    }
    some(out, &status.dumps, dump)?;
    some(out, &status.missing_dumps, |out, missing| writeln!(out, "  missing    {missing}"))?;
    writeln!(
        out,
        "{}, {}, {}, {}",
        several(status.tables.len() as u64, "table"),
        several(status.chunks as u64, "chunk"),
        several(status.rows, "row"),
        HumanBytes(status.bytes)
    )
}

/// The heading of a source in the status of an archive.
fn source_state(out: Out<'_>, state: &SourceState, sources: usize) -> io::Result<()> {
    write!(out, "{}", state.info.name.escape_debug())?;
    if !state.info.version.is_empty() {
        write!(out, ": {} at {}", state.info.version, state.info.address)?;
    }
    match state.state {
        _ if sources == 1 => writeln!(out)?,
        SourceStatus::Complete => writeln!(out, ", complete")?,
        SourceStatus::Incomplete => writeln!(out, ", incomplete")?,
        SourceStatus::Failed => writeln!(out, ", given up by the last run")?,
    }
    match &state.error {
        Some(error) => writeln!(out, "  failed     {error}"),
        None => Ok(()),
    }
}

pub(crate) fn verify(out: Out<'_>, report: &Report) -> io::Result<()> {
    for fault in report.faults.iter().chain(&report.unchecked) {
        writeln!(out, "{}: {}", fault.place, fault.fault)?;
    }
    let files = if report.files == report.files_listed {
        several(report.files, "file")
    } else {
        format!("{} of {}", HumanCount(report.files), several(report.files_listed, "file"))
    };
    let dumps = match report.dumps {
        0 => String::new(),
        some => format!(", {}", several(some as u64, "dump")),
    };
    let how = match (report.quick, report.hash_only, report.files == report.files_listed) {
        (true, ..) => "sizes and manifests compared, no data file read",
        (_, true, true) => "every byte hashed, no row decoded",
        (_, true, false) => "these were hashed",
        (_, _, true) => "every byte hashed, every row decoded",
        (_, _, false) => "these were hashed and decoded",
    };
    writeln!(
        out,
        "{}: {}, {}, {files}, {}, {}; {how}",
        report.archive,
        several(report.tables as u64, "table"),
        several(report.chunks as u64, "chunk") + &dumps,
        several(report.rows, "row"),
        HumanBytes(report.bytes)
    )?;
    match (report.faults.len(), report.status) {
        (0, ReportStatus::Ok) => writeln!(out, "{}", verdict(true, "no fault found"))?,
        (0, ReportStatus::Unfinished) => writeln!(
            out,
            "no fault found, but {} could not be decoded within --memory",
            several(report.unchecked.len() as u64, "file")
        )?,
        (0, _) => writeln!(out, "no fault found, but the archive is not sealed")?,
        (faults, _) => writeln!(out, "{}", verdict(false, several(faults as u64, "fault")))?,
    }
    if let Some(against) = &report.against {
        proof::against(out, against)?;
    }
    match report.hint {
        Some(hint) => writeln!(out, "\nhint: {hint}"),
        None => Ok(()),
    }
}

/// The state of a sealed archive that lacks rows which are known.
fn covers(window: Window) -> String {
    format!("sealed; covers {} to {}", rfc3339(window.from), rfc3339(window.to))
}

fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{}", HumanDuration(Duration::from_secs_f64(seconds)))
    }
}

/// The line of a native dump.
fn dump(out: Out<'_>, dump: &DumpEntry) -> io::Result<()> {
    writeln!(
        out,
        "  dump       {} of {}: {} ({} as {} wrote it), as of {}",
        dump.name.escape_debug(),
        dump.source.escape_debug(),
        HumanBytes(dump.bytes),
        HumanBytes(dump.raw_bytes),
        dump.program.escape_debug(),
        dump.started
    )
}

fn outside(out: Out<'_>, outside: &[Outside]) -> io::Result<()> {
    some(out, outside, |out, outside| {
        let at_least = if outside.count.exact { "" } else { "at least " };
        writeln!(
            out,
            "  outside    {at_least}{} of {} in {}, not requested",
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
