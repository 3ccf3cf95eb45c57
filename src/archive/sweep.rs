//! Finds out to which run each payload file belongs, and removes the files that dead runs have left. A file stays unless
//! it provably belongs to a run that is over and known to this archive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::archive::index::ArchiveIndex;
use crate::archive::keys::marker_of;
use crate::archive::keys::{
    self, CHUNKS, DIVISIONS, DUMPS, MANIFEST, MARKER, RECORDS, RUN, SEGMENTED, TAG_FILES,
    TAG_MANIFEST,
};
use crate::archive::open::Archive;
use crate::archive::{bag, index, reads, runs};
use crate::error::{Error, Result};
use crate::store::{Entry, Inventory, Staged};
use crate::window::Slice;

/// The files in the payload that need attention.
#[derive(Debug, Default)]
pub struct Found {
    /// Commits whose files are missing, or have another size.
    pub damaged: Vec<Arc<Commit>>,
    /// Files of runs that are over that no commit names.
    pub left: Vec<String>,
}

/// The owner of a file in the payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A chunk, or a manifest that lists the file as an artifact.
    Archive,
    /// A run that is at work.
    Living,
    /// A run that is over, so that nobody needs the file.
    Over,
    /// Somebody unknown to this archive.
    Stranger,
}

/// The files of all chunks, each with its chunk.
type Committed<'a> = HashMap<&'a str, &'a Arc<Commit>>;

impl ArchiveIndex {
    fn committed(&self) -> Committed<'_> {
        let of = |commit| commit_files(commit).map(move |key| (key, commit));
        self.commits.iter().flat_map(of).collect()
    }

    /// Whether a run is over and known: it has written a heartbeat or a plan and has not sealed. A run that sealed has
    /// left only files that are in its catalog.
    fn is_over(&self, run: &str) -> bool {
        let sealed = |run: &str| {
            let runs = self.run.iter().flat_map(|last| [&**last].into_iter().chain(&last.earlier));
            runs.into_iter().any(|entry| entry.run == run)
        };
        self.unfinished.contains(run) && !sealed(run)
    }
}

/// Whether runs write files of this name, so that one may have left an incomplete file.
pub fn is_written_by_runs(key: &str) -> bool {
    keys::parts_of_file(key).is_some()
        || key.starts_with(".moveout/")
        || key.starts_with("catalog/")
        || key.split('/').nth(2) == Some("_artifacts")
        || TAG_FILES.contains(&key)
        || key == TAG_MANIFEST
        || keys::is_after_seal(key)
}

fn commit_files(commit: &Arc<Commit>) -> impl Iterator<Item = &str> {
    commit.files.iter().map(|file| file.key.as_str())
}

impl Archive {
    /// Checks, before anything is changed, that a sealed archive matches its seal and that the files of all commits are
    /// there. A file of an unknown owner is an error that names it.
    pub async fn inspect(&self) -> Result<Found> {
        if let Some((key, what)) = self.store.irregular().await?.first() {
            return Err(Error::different(format!(
                "`{}` is {what}: an archive holds plain files alone",
                key.escape_debug()
            ))
            .hint("move it away; nothing in the archive was changed"));
        }
        let mut looks = 0;
        let (state, manifest, payload, staged) = loop {
            looks += 1;
            let before = self.state().await?;
            let manifest = self.check_seal(&before).await;
            let Inventory { objects: payload, staged, .. } = self.store.inventory("data").await?;
            // The index is read again, so that the owner of each file in the listing is known.
            let state = self.state().await?;
            // Another run may write or remove its seal meanwhile.
            let is_same = (state.sealed, &state.tags) == (before.sealed, &before.tags);
            if is_same || looks == index::LOOKS {
                break (state, manifest?, payload, staged);
            }
        };
        let damaged = self.damaged(&state, &payload).await?;
        let committed = state.committed();
        let owner = |key: &str| {
            if manifest.contains_key(key) {
                Owner::Archive
            } else {
                self.owner(&state, &committed, key)
            }
        };
        let mut found = Found { damaged, left: Vec::new() };
        for Entry { key, .. } in payload {
            match owner(&key) {
                Owner::Archive | Owner::Living => {}
                Owner::Over => found.left.push(key),
                Owner::Stranger if !state.sealed => {} // the seal names it, or adds an artifact
                Owner::Stranger => return Err(stranger(&key)),
            }
        }
        for staged in staged {
            match self.owner_of_staged(&state, &staged) {
                Owner::Over => found.left.push(staged.name().to_owned()),
                Owner::Stranger if state.sealed => return Err(stranger(staged.name())),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Checks that every tag file of a sealed archive is unchanged. Returns the payload that the manifest lists.
    async fn check_seal(&self, state: &ArchiveIndex) -> Result<bag::Hashes> {
        let mut manifest = bag::Hashes::new();
        if !state.sealed {
            return Ok(manifest);
        }
        for (key, hash) in state.tags.iter() {
            if [CHUNKS, DUMPS, RUN].contains(&key.as_str()) {
                continue; // compared when they were read
            }
            let bytes = self.store.get(key).await?;
            match bytes.filter(|bytes| crate::hash::sha256(bytes) == *hash) {
                Some(bytes) if key == MANIFEST => manifest = bag::read_manifest(key, &bytes)?,
                Some(_) => {}
                None => return Err(index::damaged(key)),
            }
        }
        Ok(manifest)
    }

    /// Commits whose files have changed or are missing. That a listing omits a file does not prove that it is missing.
    async fn damaged(&self, state: &ArchiveIndex, payload: &[Entry]) -> Result<Vec<Arc<Commit>>> {
        let sizes: HashMap<&str, u64> =
            payload.iter().map(|entry| (entry.key.as_str(), entry.size_bytes)).collect();
        let mut damaged = Vec::new();
        for commit in &state.commits {
            for file in &commit.files {
                let size = match sizes.get(file.key.as_str()) {
                    Some(size) if *size == file.bytes => Some(*size),
                    _ => self.store.look(&file.key).await?.map(|entry| entry.size_bytes),
                };
                if size != Some(file.bytes) {
                    damaged.push(Arc::clone(commit));
                    break;
                }
            }
        }
        Ok(damaged)
    }

    pub(super) fn owner(
        &self,
        state: &ArchiveIndex,
        committed: &Committed<'_>,
        key: &str,
    ) -> Owner {
        if committed.contains_key(key) {
            return Owner::Archive;
        }
        let Some((path, slice, run)) = keys::parts_of_file(key) else { return Owner::Stranger };
        if state.runs.iter().any(|beat| beat.run == run && beat.alive) {
            return Owner::Living;
        }
        // A commit that does not count is removed with its files once the catalog of the others is durable.
        if state.superseded.iter().any(|commit| commit_files(commit).any(|file| file == key)) {
            return Owner::Archive;
        }
        let replaced = || state.replacing.iter().any(|by| takes(by, path, slice, run));
        if state.is_over(run) || replaced() { Owner::Over } else { Owner::Stranger }
    }

    fn owner_of_staged(&self, state: &ArchiveIndex, staged: &Staged) -> Owner {
        let key = &staged.key;
        if keys::parts_of_file(key).is_some() {
            return self.owner(state, &HashMap::new(), key);
        }
        let ours = is_written_by_runs(key);
        // Any run may stage commits, heartbeats and catalogs, but only for an instant.
        match (ours, state.runs.iter().any(|beat| beat.alive)) {
            (true, true) => Owner::Living,
            (true, false) => Owner::Over,
            (false, _) => Owner::Stranger,
        }
    }

    /// Removes the files that dead runs have left: incomplete files, and data files that no commit names. Files stay if a
    /// living run may own them, if a manifest lists them, if a commit names them, even one that the listing omits, and if
    /// their owner is unknown. Returns the number of removed files.
    pub async fn sweep(&self, me: &str, at_work: bool) -> Result<usize> {
        // The files are listed before the runs and the commits. A run beats before it writes and commits before it ends,
        // so each listed file is either claimed or abandoned.
        let Inventory { staged, objects: files, .. } = self.store.inventory("data").await?;
        let state = self.state_without(me, at_work).await?;
        let mut removed = 0;
        for staged in staged {
            if self.owner_of_staged(&state, &staged) == Owner::Over {
                removed += usize::from(self.store.discard(&staged).await);
            }
        }
        let listed = match self.store.get(MANIFEST).await? {
            Some(bytes) => bag::read_manifest(MANIFEST, &bytes)?,
            None => bag::Hashes::new(),
        };
        let mut over = BTreeMap::new();
        let committed = state.committed();
        let is_over = |state: &ArchiveIndex, committed: &Committed<'_>, key: &str| {
            !listed.contains_key(key) && self.owner(state, committed, key) == Owner::Over
        };
        let mut files = files;
        files.retain(|entry| is_over(&state, &committed, &entry.key));
        if files.is_empty() {
            return Ok(removed);
        }
        self.find_segments().await?;
        let state = self.state_without(me, at_work).await?;
        let committed = state.committed();
        for Entry { key, .. } in files {
            if !is_over(&state, &committed, &key) {
                continue;
            }
            if self.is_claimed(&key, me, &mut over).await? {
                continue;
            }
            self.store.delete(&key).await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The index for a run that has stopped writing, whose own files are abandoned as well unless they were committed.
    pub(super) async fn state_without(&self, me: &str, at_work: bool) -> Result<Arc<ArchiveIndex>> {
        let state = self.state().await?;
        if at_work {
            return Ok(state);
        }
        let mut mine = ArchiveIndex::clone(&state);
        mine.runs.retain(|beat| beat.run != me);
        mine.unfinished.insert(me.to_owned());
        Ok(Arc::new(mine))
    }

    /// Requests what a listing may have omitted: the commit of a file, and the heartbeat of its run.
    async fn is_claimed(
        &self,
        key: &str,
        me: &str,
        over: &mut BTreeMap<String, bool>,
    ) -> Result<bool> {
        let Some((path, slice, run)) = keys::parts_of_file(key) else { return Ok(true) };
        for commit_key in
            [keys::commit_key(path, slice), keys::replacing_commit_key(path, slice, run)]
        {
            let Some((bytes, version)) = self.store.get_version(&commit_key).await? else {
                continue;
            };
            let commit = Arc::new(Commit::from_json(&commit_key, &bytes)?);
            if commit_files(&commit).any(|file| file == key) {
                self.index.lock().await.committed(commit_key, version, commit);
                return Ok(true);
            }
        }
        if run == me {
            return Ok(false);
        }
        if !over.contains_key(run) {
            let listed = self.state().await?.runs.iter().any(|beat| beat.run == run);
            let hidden = !listed && self.store.look(&runs::heartbeat_key(run)).await?.is_some();
            over.insert(run.to_owned(), !hidden);
        }
        Ok(!over[run])
    }

    /// Removes the plans and heartbeats of runs that are over, the plan of this run, and the records of seals that were
    /// begun.
    pub async fn clear_work(&self, me: &str) -> Result<()> {
        // The files are listed before the living runs, so a run that has just begun is in neither, or in both.
        let there = self.store.list(".moveout").await?;
        let mut state = self.state().await?;
        if state.sealed && !state.uncatalogued && state.superseded.is_empty() {
            // What a run has left that was killed while another one sealed.
            self.remove_segments(&state).await?;
            state = self.state().await?;
        }
        let living: BTreeSet<&str> = state.living(me).map(|beat| beat.run.as_str()).collect();
        let goes = |key: &&String| {
            let of_run = runs::of_key(key).map(|run| {
                let mine = run == me && key.starts_with(runs::HEARTBEATS);
                !living.contains(run) && !mine
            });
            let is_mark = *key == MARKER && state.segments.is_empty();
            of_run.unwrap_or_else(|| is_mark || of_seal(key))
        };
        let gone = there.iter().map(|(key, _)| key).filter(goes).cloned().collect();
        self.store.delete_all(gone).await?;
        self.tidy();
        Ok(())
    }
}

/// Whether a file is a record for a seal, or of the division of the work that the seal ends.
fn of_seal(key: &str) -> bool {
    key.starts_with(RECORDS) || key.starts_with(DIVISIONS)
}

fn takes(by: &Arc<Commit>, path: &str, slice: Slice, run: &str) -> bool {
    by.path == path && by.slice.overlaps(slice) && by.replaces.iter().any(|other| other == run)
}

pub(super) fn stranger(key: &str) -> Error {
    Error::different(format!(
        "`{}` was put into the archive by somebody else, or by a run that it does not know",
        key.escape_debug()
    ))
    .hint("move it away, then run the same command again; nothing was removed")
}

/// Whether a file is the mark of an archive that is being written.
pub fn is_marker(key: &str, bytes: &[u8]) -> bool {
    let is_mark = || (1..=SEGMENTED).any(|format| bytes == marker_of(format).as_bytes());
    (key == MARKER && is_mark()) || key == reads::record_key(bytes)
}
