//! The record of a comparison: what was compared by table and level, and the chunks that are to be read again.

use std::collections::{BTreeMap, HashMap};

use crate::archive::bag::Hashes;
use crate::archive::catalog::to_json;
use crate::archive::commit::{Commit, CommitKey};
use crate::archive::keys::FORMAT;
use crate::archive::verdict::{Compared, Stale, VerdictRecord, archive_hash};
use crate::archive::{Archive, ArchiveIndex, REPORT, Sign, TAG_SIGNATURE, VERDICT};
use crate::commands::verify::against::answer::{Against, Depth};
use crate::coverage::Coverage;
use crate::error::Result;
use crate::model::{Division, Level, SourceInfo, TableId, Verdict};
use crate::signature::{SigningKey, trusted_comment};

/// The counts of the comparison.
#[derive(Debug, Default)]
pub(super) struct Tally {
    tables: BTreeMap<(TableId, Level), OfTable>,
    stale: Vec<Stale>,
    /// Chunks that the last valid verdict found different, and why.
    before: HashMap<CommitKey, String>,
}

#[derive(Debug, Default)]
struct OfTable {
    chunks: u64,
    different: u64,
    equal: Coverage,
}

/// The advice for chunks that the next export reads again.
const REPLACES: &str = "stop the writers and run the same `moveout export` again: it reads this chunk again and replaces it, which \
     drops from the archive what the source has no more (copy the archive first if anybody needs that); then run \
     this proof again";
/// The advice for chunks of a file, which either is the exported one or is another one.
const OTHER_FILE: &str = "export the file as it is now into a new archive, or put the one that was exported back; an archive holds \
     one version of a file";

impl Tally {
    /// An empty record, with the chunks that the last valid verdict found different.
    pub(super) async fn of(archive: &Archive) -> Result<Self> {
        let last = archive.verdict().await?.valid();
        let stale = last.into_iter().flat_map(|record| record.stale);
        let before = stale.map(|stale| ((stale.table, stale.slice, stale.run), stale.why));
        Ok(Self { before: before.collect(), ..Self::default() })
    }

    /// Whether a chunk was different when it was compared last. In that case only its rows can prove that it is equal now.
    pub(super) fn was_stale(&self, commit: &Commit) -> bool {
        !self.before.is_empty() && self.before.contains_key(&commit.key())
    }

    /// Counts a chunk that was compared.
    pub(super) fn compared(&mut self, commit: &Commit, level: Level, is_equal: bool) {
        let table = self.tables.entry((commit.id(), level)).or_default();
        table.chunks += 1;
        if is_equal {
            table.equal.insert_slice(commit.slice);
        } else {
            table.different += 1;
        }
        if !self.before.is_empty() {
            self.before.remove(&commit.key());
        }
    }

    /// Records that the source has other rows than a chunk. Returns what to do about it.
    pub(super) fn different(&mut self, commit: &Commit, why: &str) -> &'static str {
        if matches!(commit.division(), Some(Division::File(_))) {
            return OTHER_FILE;
        }
        let (table, slice, run) = commit.key();
        self.stale.push(Stale { table, slice, run, why: why.to_owned() });
        REPLACES
    }

    /// The record of a comparison, without the part that [`remember`] adds.
    pub(super) fn record(
        self,
        depth: Depth,
        sources: Vec<SourceInfo>,
        started: String,
        ended: String,
    ) -> VerdictRecord {
        let compared = self.tables.into_iter().map(|((table, level), of)| Compared {
            table,
            level,
            chunks: of.chunks,
            different: of.different,
            equal: of.equal.windows().to_vec(),
        });
        // Chunks that were not compared this time keep their state.
        let before = self.before.into_iter().map(|((table, slice, run), why)| Stale {
            table,
            slice,
            run,
            why,
        });
        let mut stale: Vec<Stale> = self.stale.into_iter().chain(before).collect();
        stale.sort_by(|one, other| {
            (&one.table, one.slice, &one.run).cmp(&(&other.table, other.slice, &other.run))
        });
        stale.dedup_by(|one, other| {
            (&one.table, one.slice, &one.run) == (&other.table, other.slice, &other.run)
        });
        VerdictRecord {
            format: FORMAT,
            moveout: env!("CARGO_PKG_VERSION").to_owned(),
            archive: String::new(), // until it is put there
            verdict: Verdict::NotYet,
            started,
            ended,
            depth: depth.to_string(),
            sources,
            open: Vec::new(),
            compared: compared.collect(),
            stale,
            excluded: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Puts the record into the archive, if that is still the one that was compared: `seen` is its tag manifest as it was
/// before anything was read. An archive that was changed meanwhile is an open point. One that cannot be written is none,
/// and a note says so.
pub(in crate::commands::verify) async fn remember(
    against: &mut Against,
    mut record: VerdictRecord,
    archive: &Archive,
    seen: &Hashes,
    key: Option<&SigningKey>,
) -> Result<()> {
    let state = archive.state().await?;
    if is_another(&state, seen) {
        against.changed_meanwhile(archive.url());
        return Ok(());
    }
    let old_report = state.tags.contains_key(REPORT);
    record.archive = archive_hash(seen);
    record.verdict = against.verdict;
    record.open.clone_from(&against.open);
    record.excluded.clone_from(&against.excluded);
    record.notes.clone_from(&against.notes);
    let json = to_json(&record)?;
    let comment = trusted_comment(record.verdict, Some(&record.ended));
    drop(record); // it is large if there are many chunks
    let was_signed = archive.store().look(TAG_SIGNATURE).await?.is_some();
    // An archive is signed only if it is safe to cancel.
    let key = key.filter(|_| against.verdict == Verdict::Safe);
    let sign = key.map(|key| move |manifest: &[u8]| key.sign(manifest, &comment));
    let sign = sign.as_ref().map(|sign| sign as Sign<'_>);
    match archive.amend(seen, vec![(VERDICT, json.into())], sign).await {
        Ok(()) => {
            if old_report {
                against.notes.push(format!(
                    "{REPORT} told of an earlier verdict and was removed; `moveout report` makes a new one"
                ));
            }
            if key.is_some() {
                against.notes.push(format!("the archive is signed: {TAG_SIGNATURE}"));
            } else if was_signed {
                against.notes.push(format!(
                    "{TAG_SIGNATURE} was a signature of the archive before this verdict, and was removed"
                ));
            }
        }
        Err(_) if is_another(archive.state().await?.as_ref(), seen) => {
            against.changed_meanwhile(archive.url());
        }
        Err(error) => {
            against.notes.push(format!("the verdict was not recorded in the archive: {error}"))
        }
    }
    Ok(())
}

/// Whether the archive has changed since it had this tag manifest.
fn is_another(state: &ArchiveIndex, seen: &Hashes) -> bool {
    !state.sealed || archive_hash(&state.tags) != archive_hash(seen)
}
