//! The verb `report`: whether it is safe to cancel, what stands in the way, and the same as a page. Reads the catalog and
//! the last verdict, never a source.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;

use crate::archive::{Archive, REPORT, Sign, TAG_SIGNATURE};
use crate::config::Location;
use crate::error::{Error, Exit, Result};
use crate::report::{Answer, Facts, Report, SourceReport};
use crate::signature::{SigningKey, trusted_comment};

/// What a report says, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Always `report`.
    pub command: &'static str,
    /// Where the archive is.
    pub archive: String,
    /// Whether it is sealed.
    pub sealed: bool,
    /// The verdict, what it is founded on, and what stands in the way.
    #[serde(flatten)]
    pub answer: Answer,
    /// The command that is to be run, where there is no valid proof.
    pub run: Option<String>,
    /// What the archive has of each source, and how that was compared.
    pub sources: Vec<SourceReport>,
    /// What the sources have and the archive has not, and why.
    pub excluded: Vec<String>,
    /// What the runs want known.
    pub warnings: Vec<String>,
    /// What was not compared and does not stand in the way.
    pub notes: Vec<String>,
    /// Where the page is; absent where the archive is not sealed and no file was named.
    pub page: Option<String>,
    /// Whether the archive was signed by this report.
    pub signed: bool,
    /// Whether it had a signature that is gone, since nothing could sign it anew.
    pub signature_gone: bool,
}

impl Summary {
    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.answer.exit
    }
}

/// Makes the report of an archive, into the archive or into a file.
pub async fn report(
    place: &Location,
    output: Option<&Path>,
    key: Option<&SigningKey>,
) -> Result<Summary> {
    if let Some(output) = output {
        refuse_inside(place, output)?;
    }
    let archive = Archive::open(place).await?;
    let state = archive.state().await?;
    let verdict = archive.verdict().await?;
    let plans = archive.plans().await?;
    let sealed = state.sealed && !state.uncatalogued;
    let report = Report::of(Facts {
        sealed,
        record: verdict.record.as_ref(),
        invalid: verdict.invalid.as_deref(),
        run: state.run.as_deref(),
        plans: &plans,
        commits: &state.commits,
    });
    let page = Bytes::from(report.page()?);
    let Report { answer, sources, excluded, warnings, notes, .. } = report;
    let mut summary = Summary {
        command: "report",
        archive: place.url.clone(),
        sealed,
        run: answer.todo.map(|todo| todo.command(&place.url)),
        answer,
        sources,
        excluded,
        warnings,
        notes,
        page: None,
        signed: false,
        signature_gone: false,
    };
    match output {
        Some(output) => {
            write(output, &page)?;
            summary.page = Some(output.display().to_string());
        }
        None if sealed => {
            put(&archive, page, key, &mut summary).await?;
            summary.page = Some(format!("{}/{REPORT}", place.url.trim_end_matches('/')));
        }
        None => {}
    }
    Ok(summary)
}

/// Puts the page into the archive, unless it is there already.
async fn put(
    archive: &Archive,
    page: Bytes,
    key: Option<&SigningKey>,
    summary: &mut Summary,
) -> Result<()> {
    let state = archive.state().await?;
    let is_there = state.tags.contains_key(REPORT)
        && archive.store().get(REPORT).await?.is_some_and(|there| there == page);
    if is_there && key.is_none() {
        return Ok(());
    }
    let has_signature = archive.store().look(TAG_SIGNATURE).await?.is_some();
    let comment = trusted_comment(summary.answer.verdict, summary.answer.proved.as_deref());
    let sign = key.map(|key| move |manifest: &[u8]| key.sign(manifest, &comment));
    let sign = sign.as_ref().map(|sign| sign as Sign<'_>);
    archive.amend(&state.tags, vec![(REPORT, page)], sign).await.map_err(|error| {
        let has_hint = error.hint_text().is_some();
        let error = error.context("putting the report into the archive");
        if has_hint {
            return error;
        }
        error.hint("--output FILE writes the page elsewhere, and leaves the archive untouched")
    })?;
    summary.signed = key.is_some();
    summary.signature_gone = has_signature && key.is_none();
    Ok(())
}

/// A file that nobody has listed has no place in an archive.
fn refuse_inside(place: &Location, output: &Path) -> Result<()> {
    let Ok(root) = fs::canonicalize(&place.url) else { return Ok(()) };
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match fs::canonicalize(folder) {
        Ok(folder) if folder.starts_with(&root) => Err(Error::usage(format!(
            "{} lies in the archive, which would have a file that it does not list",
            output.display()
        ))
        .hint("leave out --output: the report is put into the archive, and listed there")),
        _ => Ok(()),
    }
}

/// Writes the file as a whole, or not at all.
fn write(output: &Path, page: &[u8]) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::stop(format!("writing {}: {error}", output.display()));
    // A device or a pipe takes what it is given.
    if fs::metadata(output).is_ok_and(|there| !there.is_file()) {
        return fs::write(output, page).map_err(failed);
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    // As readable as any other file.
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    file.write_all(page).map_err(failed)?;
    file.persist(output).map_err(|error| failed(error.error)).map(drop)
}
