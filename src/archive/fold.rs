//! Segments: commits that are folded into one file while a run goes on, so that whoever opens an unfinished archive reads
//! hundreds of objects, and not one for each chunk.
//!
//! A segment is `.moveout/segments/RUN.NUMBER.jsonl.zst`: JSON lines, each a commit in its stored form with its own hash, and
//! a last line with their number and the hash of all lines before it. It is written once and never changed. A run folds
//! its own commits that were acknowledged, and those of dead runs. Why nothing is lost, and nothing comes back:
//!
//! - **Order.** The mark of the archive gets [`SEGMENTED`], which versions that know no segments refuse; then the segment is
//!   written and read back; then the loose commits are removed. After a kill in between both are there, and a commit that
//!   is in several places counts once. A reader lists the segments after it has read the loose commits, and reads the
//!   catalog last, so it finds each commit in one of the three places.
//! - **Folding and retracting.** A commit does not count if `.moveout/retracted/` names it. Whoever retracts a commit that
//!   another run may be folding, or that may be in a segment, removes the loose one and then writes such a record, before
//!   anything is read in its place. So it does not matter when the segment comes, and what becomes of the run that writes
//!   it. Such a record, too, is written once, and concerns only this very commit, so two runs may retract at the same time.
//!   Whoever folds looks, after the segment is written, whether each loose commit is still there, as it was, and otherwise
//!   removes the segment again, of whose commits it has removed none.
//! - **A loose commit beside a segment of another run** is folded once more, and removed for the new segment alone: the other
//!   run may be about to remove its own, even if it seems to be dead. So whoever removes a loose commit has it elsewhere.
//! - **Two commits of one run for one slice** have their files under the same keys, so only the later one can be right, and
//!   it is the one that counts. (Loose, the later has the key of the earlier and replaces it.)
//! - **The seal** removes a segment only if each of its commits is in the catalog, was replaced by one, or is retracted;
//!   the records of what was retracted after the last segment; the mark after these.
//! - **A listing may leave out a file.** The segments of a run are numbered, so a sweep asks for them by key before it
//!   removes a data file that no commit seems to name.
//! - **A segment that is damaged** stops every run, as a damaged commit does. Whatever it had would otherwise seem to be
//!   missing, and its data files would seem to be nobody's.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::archive::commit::{Commit, retracted_key};
use crate::archive::index::ArchiveIndex;
use crate::archive::keys::{COMMITS, MARKER, SEGMENTED, marker_of, parts_of_segment, segment_key};
use crate::archive::open::Archive;
use crate::archive::segment::{pack, read_segment};
use crate::error::{Error, Result};

/// The most bytes of commits in a segment, before they are compressed. Commits of very wide tables are large.
const SEGMENT_BYTES: usize = 8 << 20;
/// At the end of a run even this part of the usual number is worth a segment.
const REST: usize = 8;
/// So many numbers are asked for after the last segment that is known, since some were removed.
const NUMBERS: u32 = 3;

/// Commits that are folded together, with the keys and the versions of their loose files.
#[derive(Debug, Default)]
struct Group {
    lines: Vec<Vec<u8>>,
    commits: Vec<Arc<Commit>>,
    loose: BTreeMap<String, String>,
    size_bytes: usize,
}

impl Archive {
    /// Says how many loose commits are folded into a segment.
    #[must_use]
    pub fn folding_each(mut self, commits: usize) -> Self {
        self.fold_at = commits.max(1);
        self
    }

    /// Folds commits if there are enough of them. It only saves requests, so that an error is not one of the run.
    pub(super) async fn fold_if_due(&self) {
        if self.index.lock().await.is_fold_due(self.fold_at) {
            self.try_fold(self.fold_at).await;
        }
    }

    /// Folds what a run leaves that does not seal, if it is worth it.
    pub async fn fold_rest(&self) {
        self.try_fold((self.fold_at / REST).max(1)).await;
    }

    async fn try_fold(&self, least: usize) {
        // One at a time; the one that is at work takes them all.
        let Ok(_folding) = self.folding.try_lock() else { return };
        if let Err(error) = self.fold(least).await {
            tracing::warn!("folding commits: {error}");
        }
    }

    async fn fold(&self, least: usize) -> Result<()> {
        let mut new = self.index.lock().await.foldable(&self.store).await?;
        // A store that lists another version than it tells otherwise cannot say whether a commit is still the same.
        let there = self.listed_commits().await?;
        new.retain(|(key, version, _)| there.get(key) == Some(version));
        if new.len() < least {
            return Ok(());
        }
        let mut group = Group::default();
        for (key, version, commit) in new {
            let line = commit.to_json()?;
            group.size_bytes += line.len();
            group.lines.push(line);
            group.loose.insert(key, version);
            group.commits.push(commit);
            if group.commits.len() >= self.fold_at || group.size_bytes >= SEGMENT_BYTES {
                self.put_segment(std::mem::take(&mut group)).await?;
            }
        }
        if group.commits.len() >= least.min(self.fold_at) {
            self.put_segment(group).await?;
        }
        Ok(())
    }

    async fn put_segment(&self, group: Group) -> Result<()> {
        let Group { lines, commits, loose, .. } = group;
        let packed = tokio::task::spawn_blocking(move || pack(&lines)).await;
        let bytes =
            packed.map_err(|error| Error::stop(format!("writing a segment: {error}")))??;
        // Until it is known what became of it, these commits may be in a segment.
        let key = self.index.lock().await.begin_segment(&commits);
        self.mark_as(SEGMENTED).await?;
        match self.write_segment(&key, bytes, &loose).await {
            Ok(Some(version)) => {
                let loose: Vec<String> = loose.into_keys().collect();
                self.index.lock().await.folded(key, version, commits.into(), &loose);
                self.store.delete_all(loose).await
            }
            // Somebody has retracted, replaced, folded or sealed one of them, or nobody knows whether somebody has.
            written => {
                self.delete_checked(&key).await?;
                self.unmark_sealed().await?;
                written.map(drop)
            }
        }
    }

    /// Writes a segment. Returns its version; `None` if one of the loose commits is not what it was any more.
    async fn write_segment(
        &self,
        key: &str,
        bytes: Vec<u8>,
        loose: &BTreeMap<String, String>,
    ) -> Result<Option<String>> {
        let version = self.store.put_checked(key, bytes).await?;
        // A run that has sealed meanwhile may have removed the mark.
        self.mark_as(SEGMENTED).await?;
        let there = self.listed_commits().await?;
        let is_same = loose.iter().all(|(key, version)| there.get(key) == Some(version));
        Ok(is_same.then_some(version))
    }

    /// Removes the mark if another run has sealed the archive while this one folded.
    async fn unmark_sealed(&self) -> Result<()> {
        let state = self.state().await?;
        if state.sealed && !state.uncatalogued && state.segments.is_empty() {
            self.store.delete(MARKER).await?;
        }
        Ok(())
    }

    /// The versions of the loose commits by their keys.
    async fn listed_commits(&self) -> Result<BTreeMap<String, String>> {
        let listed = self.store.objects(COMMITS.trim_end_matches('/')).await?;
        Ok(listed.into_iter().map(|entry| (entry.key, entry.version)).collect())
    }

    /// Removes the segments all of whose commits `done` has, and after the last of them what was retracted.
    pub(super) async fn remove_segments(&self, done: &ArchiveIndex) -> Result<()> {
        let state = self.state().await?;
        if state.segments.is_empty() && state.retracted.is_empty() {
            return Ok(());
        }
        let spent = state.spent_segments(done).cloned().collect();
        self.store.delete_all(spent).await?;
        if !state.retracted.is_empty() && self.state().await?.segments.is_empty() {
            self.store.delete_all(state.retracted.iter().cloned().collect()).await?;
        }
        Ok(())
    }

    /// Raises the mark of the archive to a version, if it is lower.
    pub(super) async fn mark_as(&self, format: u32) -> Result<()> {
        let mark = self.store.get(MARKER).await?.unwrap_or_default();
        if (format..=SEGMENTED).any(|format| mark == marker_of(format)) {
            return Ok(());
        }
        self.store.put_checked(MARKER, marker_of(format)).await.map(drop)
    }

    /// Records that a commit does not count, in whichever segment it is found.
    pub(super) async fn retract_folded(&self, commit: &Commit) -> Result<()> {
        let key = retracted_key(commit);
        self.mark_as(SEGMENTED).await?;
        self.store.put_checked(&key, commit.to_json()?).await?;
        self.index.lock().await.retracted_folded(key);
        Ok(())
    }

    /// Asks for segments by key that a listing may have left out: those of a run are numbered.
    pub(super) async fn find_segments(&self) -> Result<()> {
        let state = self.state().await?;
        let mut known: BTreeMap<&str, Vec<u32>> =
            state.unfinished.iter().map(|run| (run.as_str(), Vec::new())).collect();
        for (run, number) in state.segments.keys().filter_map(|key| parts_of_segment(key)) {
            known.entry(run).or_default().push(number);
        }
        let asked = stream::iter(known).map(|(run, numbers)| async move {
            let mut number = 0;
            let mut last = numbers.iter().max().map_or(NUMBERS - 1, |last| last + NUMBERS);
            while number <= last {
                let key = segment_key(run, number);
                if !numbers.contains(&number)
                    && let Some((bytes, version)) = self.store.get_version(&key).await?
                {
                    let commits = read_segment(&key, &bytes)?.into_iter().map(Arc::new).collect();
                    self.index.lock().await.found_segment(key, version, commits);
                    last = last.max(number + NUMBERS);
                }
                number += 1;
            }
            Ok::<_, Error>(())
        });
        asked.buffer_unordered(self.store.requests()).try_collect().await
    }
}
