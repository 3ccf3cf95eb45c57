//! What `report` says: the verdict first, then what stands in the way, then what the archive has of each source.

use std::io;

use indicatif::HumanBytes;
use moveout::commands::report::Summary;
use moveout::model::Verdict;
use moveout::report::SourceReport;
use moveout::text::several;

use super::proof::{level, open_points};
use super::{Out, dump, notes, some, verdict, warnings};

pub(crate) fn report(out: Out<'_>, summary: &Summary) -> io::Result<()> {
    let answer = &summary.answer;
    match answer.verdict {
        Verdict::Safe => writeln!(out, "{}", verdict(true, "SAFE TO CANCEL"))?,
        Verdict::NotYet => writeln!(out, "{}", verdict(false, "NOT YET"))?,
    }
    writeln!(out, "{}", answer.why)?;
    if let Some(run) = &summary.run {
        writeln!(out, "  run        {run}")?;
    }
    if let Some(proved) = &answer.proved {
        writeln!(out, "  proved     {proved}")?;
    }
    open_points(out, &answer.open)?;
    some(out, &summary.sources, source)?;
    some(out, &summary.excluded, |out, what| writeln!(out, "  left out   {what}"))?;
    warnings(out, &summary.warnings)?;
    notes(out, &summary.notes)?;
    match &summary.page {
        Some(page) => writeln!(out, "report: {page}")?,
        None => writeln!(
            out,
            "report: none is put into an archive that is not sealed; --output FILE writes one"
        )?,
    }
    if summary.signed {
        writeln!(out, "signed: tagmanifest-sha256.txt.minisig")?;
    }
    if summary.signature_gone {
        writeln!(
            out,
            "The signature of the archive is gone, since the report changed the tag manifest: set MOVEOUT_MINISIGN_KEY, and run this again."
        )?;
    }
    Ok(())
}

fn source(out: Out<'_>, source: &SourceReport) -> io::Result<()> {
    write!(out, "{}", source.info.name.escape_debug())?;
    match source.info.version.as_str() {
        "" => writeln!(out)?,
        version => writeln!(out, ": {version} at {}", source.info.address)?,
    }
    writeln!(
        out,
        "  exported   {}, {}, {}, {}",
        several(source.tables, "table"),
        several(source.chunks, "chunk"),
        several(source.rows, "row"),
        HumanBytes(source.bytes)
    )?;
    for (of, compared) in &source.compared {
        write!(out, "  compared   {} {}", several(compared.chunks, "chunk"), level(*of))?;
        match compared.different {
            0 => writeln!(out)?,
            different => writeln!(out, ", {different} different")?,
        }
    }
    some(out, &source.dumps, dump)?;
    some(out, &source.outside, |out, outside| {
        let at_least = if outside.at_least { "at least " } else { "" };
        let rows = several(outside.rows, "row");
        writeln!(out, "  outside    {at_least}{rows} of {} in {}", outside.table, outside.window)
    })
}
