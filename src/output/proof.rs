//! Prints the comparison of an archive with its sources: the verdict and the open points.

use std::io;

use moveout::commands::status::VerdictStatus;
use moveout::commands::verify::Against;
use moveout::model::{Level, Open, Verdict};
use moveout::text::several;

use super::{Out, SHOWN, verdict};

/// Prints the last verdict for `status`.
pub(super) fn last(out: Out<'_>, last: &VerdictStatus) -> io::Result<()> {
    let text = match last.verdict {
        Some(Verdict::Safe) => verdict(last.valid, "SAFE TO CANCEL"),
        Some(Verdict::NotYet) => {
            format!("{}, {}", verdict(false, "NOT YET"), several(last.open as u64, "open point"))
        }
        None => "none that can be read".to_owned(),
    };
    write!(out, "  verdict    {text}")?;
    if let (Some(ended), Some(depth)) = (&last.ended, &last.depth) {
        write!(out, ", as of {} ({})", ended.escape_debug(), depth.escape_debug())?;
    }
    match &last.why {
        Some(why) => writeln!(out, "; no longer valid: {why}"),
        None => writeln!(out),
    }
}

pub(super) fn against(out: Out<'_>, against: &Against) -> io::Result<()> {
    let levels = against.compared.iter();
    let levels = levels.map(|(of, chunks)| format!("{} {}", several(*chunks, "chunk"), level(*of)));
    let levels: Vec<String> = levels.collect();
    if !levels.is_empty() {
        writeln!(out, "compared with the source: {}", levels.join(", "))?;
    }
    for what in against.excluded.iter().take(SHOWN) {
        writeln!(out, "  left out   {what}")?;
    }
    if against.excluded.len() > SHOWN {
        writeln!(
            out,
            "  left out   {} more (all of them with --json)",
            against.excluded.len() - SHOWN
        )?;
    }
    for note in &against.notes {
        writeln!(out, "  note       {note}")?;
    }
    open_points(out, &against.open)?;
    match against.verdict {
        Verdict::Safe if against.compared.keys().all(|level| *level == Level::Rows) => {
            writeln!(out, "{}", verdict(true, "SAFE TO CANCEL"))
        }
        Verdict::Safe => writeln!(
            out,
            "{}, as far as that tells; --deep compares every row",
            verdict(true, "SAFE TO CANCEL")
        ),
        Verdict::NotYet => {
            let points = several(against.open.len() as u64, "open point");
            writeln!(out, "{}: {points}", verdict(false, "NOT YET"))
        }
    }
}

/// How chunks were compared.
pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Counts => "by the number of values of each field",
        Level::Statistics => "by count, minimum, maximum and sum of each column",
        Level::Rows => "row by row, read again",
    }
}

/// Prints the open points, each with what to do about it.
pub(super) fn open_points(out: Out<'_>, open: &[Open]) -> io::Result<()> {
    for open in open.iter().take(SHOWN) {
        let of =
            if open.source.is_empty() { String::new() } else { format!(" of {}", open.source) };
        writeln!(out, "  open       {}{of}: {}", open.what, open.why)?;
        writeln!(out, "             {}", open.todo)?;
    }
    match open.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  open       {more} more (all of them with --json)"),
    }
}
