//! Creates or opens an archive, and commits and retracts chunks. It keeps the order of durability: data files, commit,
//! catalog, manifest, tag manifest, which is undone in reverse when a sealed archive is extended.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::archive::bag;
use crate::archive::cache::IndexCache;
use crate::archive::catalog::to_json;
use crate::archive::commit::{Commit, commit_key, two_versions};
use crate::archive::index::ArchiveIndex;
use crate::archive::keys::{FORMAT, MARKER, RUN, SEGMENTED, TAG_MANIFEST};
use crate::archive::run_json::Format;
use crate::archive::runs::{self, Beating, Heartbeat, RunPlan};
use crate::config::Location;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::store::{Entry, Store};

/// The number of plans that are read at once: each names all tables of its run.
const PLANS: usize = 8;

/// An open archive.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(super) store: Store,
    url: String,
    pub(super) index: Arc<Mutex<IndexCache>>,
    /// Whether this process has created it.
    is_new: bool,
    /// How many loose commits are folded into a segment, as `folding_each` says.
    pub(super) fold_at: usize,
    /// Held while commits are folded or retracted.
    pub(super) folding: Arc<Mutex<()>>,
}

impl Archive {
    /// Opens an archive for writing. Creates it if there is nothing, and refuses anything that is not an archive.
    pub async fn create(place: &Location) -> Result<Self> {
        let mut archive = Self::new(Store::create(place)?, place);
        match archive.begin(place).await {
            Ok(()) => Ok(archive),
            Err(error) => {
                archive.store.remove_made();
                Err(error)
            }
        }
    }

    fn new(store: Store, place: &Location) -> Self {
        let (url, index, folding) = (place.url.clone(), Arc::default(), Arc::default());
        Self { store, url, index, is_new: false, fold_at: usize::MAX, folding }
    }

    async fn begin(&mut self, place: &Location) -> Result<()> {
        if !self.is_ours().await? {
            let strangers = self.store.some_keys().await?;
            // Another run may have created it meanwhile.
            if let Some(stranger) = strangers.iter().find(|key| !key.starts_with("lost+found"))
                && !self.is_ours().await?
            {
                return Err(Error::stop(format!(
                    "{place} is not empty and not an archive of moveout (it holds `{stranger}`)"
                ))
                .hint("give an empty or a new folder"));
            }
            self.is_new = strangers.is_empty();
            self.mark().await?;
        }
        self.store.make_folder("data") // a bag needs its payload folder, even an empty one
    }

    /// Marks an archive that is being written with the version of its format. An archive of an earlier version becomes one
    /// of this version, because earlier ones cannot read what is written from now on. The mark is written again because
    /// another run that came to nothing may have removed its own.
    pub async fn mark(&self) -> Result<()> {
        self.mark_as(FORMAT).await
    }

    /// Removes everything that this run has made of a new archive in which nothing was committed, as if it had never
    /// begun. If there is anything else, only the plan is removed. The heartbeat was removed before.
    pub async fn unmake(&self, run: &str) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        let state = self.state().await?;
        let is_empty = state.commits.is_empty() && state.superseded.is_empty();
        if state.has_seal || !is_empty || state.living(run).next().is_some() {
            return Ok(());
        }
        self.store.delete(&runs::plan_key(run)).await?;
        let only_the_mark = |there: &[Entry]| there.iter().all(|entry| entry.key == MARKER);
        if !only_the_mark(&self.store.objects("").await?) || !self.store.staged().await?.is_empty()
        {
            return Ok(());
        }
        self.store.delete(MARKER).await?;
        // Each run writes a heartbeat before it looks for the mark, so a run that starts now is seen, or sees that the mark is gone.
        if !self.store.objects("").await?.is_empty() {
            return self.mark().await;
        }
        self.tidy();
        self.store.remove_empty_folders("data");
        self.store.remove_made();
        Ok(())
    }

    /// Opens an archive for reading.
    pub async fn open(place: &Location) -> Result<Self> {
        let archive = Self::new(Store::open(place)?, place);
        match archive.is_ours().await? {
            true => Ok(archive),
            false => Err(Error::stop(format!("{place} is not an archive of moveout"))),
        }
    }

    async fn is_ours(&self) -> Result<bool> {
        for key in [MARKER, RUN] {
            let Some(bytes) = self.store.get(key).await? else { continue };
            // `verify` reports a damaged file. Here it only has to be told from one of a newer version.
            let known = if key == MARKER { SEGMENTED } else { FORMAT };
            if let Ok(found) = serde_json::from_slice::<Format>(&bytes)
                && found.format > known
                && !self.is_damaged(key, &bytes).await?
            {
                return Err(Error::stop(format!(
                    "{} has format {}, this version knows {known}",
                    self.url, found.format
                ))
                .hint("use a newer moveout"));
            }
            return Ok(true);
        }
        // The catalog may be what is missing.
        Ok(!self.store.list("catalog").await?.is_empty()
            || self.store.get("bag-info.txt").await?.is_some_and(|info| {
                String::from_utf8_lossy(&info).contains("Bag-Software-Agent: moveout")
            }))
    }

    /// Whether a sealed archive records a different hash for a file.
    async fn is_damaged(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let Some(tags) = self.store.get(TAG_MANIFEST).await? else { return Ok(false) };
        let tags = std::str::from_utf8(&tags).ok().and_then(|text| bag::parse_manifest(text).ok());
        Ok(tags.and_then(|tags| Some(*tags.get(key)? != sha256(bytes))).unwrap_or(false))
    }

    /// The store of the archive.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the archive is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The index as it is now. Only files that are new since the last call are read.
    pub async fn state(&self) -> Result<Arc<ArchiveIndex>> {
        self.index.lock().await.look(&self.store).await
    }

    /// The runs with a heartbeat, dead or alive, oldest first. Nothing else is read, so that waiting for a run costs as
    /// much in a large archive as in a small one.
    pub async fn runs(&self) -> Result<Vec<Heartbeat>> {
        self.index.lock().await.look_at_runs(&self.store).await
    }

    /// Says that the windows of these commits are read again. From now on this process does not count them, and its
    /// commits for their windows replace them. They stay in the archive until the seal, whatever becomes of this run.
    pub async fn read_again<'a>(&self, commits: impl IntoIterator<Item = &'a Commit>) {
        self.index.lock().await.give_up(commits);
    }

    /// Says that these commits count after all, unless another one has replaced them.
    pub async fn keep<'a>(&self, commits: impl IntoIterator<Item = &'a Commit>) {
        self.index.lock().await.keep(commits);
    }

    async fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::different(format!("{key} cannot be read: {error}")))
    }

    /// The plans of unfinished runs, oldest first.
    pub async fn plans(&self) -> Result<Vec<RunPlan>> {
        let listed = self.store.list(".moveout/plans").await?;
        let plans = stream::iter(listed.iter().map(|(key, _)| self.json(key)));
        let plans = plans.buffered(PLANS).collect::<Vec<_>>().await;
        Ok(plans.into_iter().filter_map(|plan| plan.ok().flatten()).collect())
    }

    /// Writes a run's plan.
    pub async fn put_plan(&self, plan: &RunPlan) -> Result<()> {
        self.store.put_checked(&runs::plan_key(&plan.run), to_json(plan)?).await.map(|_| ())
    }

    /// Makes a chunk durable, and records which commits it replaces. `false` if another run was first: its
    /// commit stays, and the files of this one are removed.
    pub async fn commit(&self, commit: &mut Commit) -> Result<bool> {
        commit.replaces = self.index.lock().await.replaced_by(commit);
        let (key, bytes) = (commit_key(commit), Bytes::from(commit.to_json()?));
        let written = self.store.put_if_absent(&key, bytes.clone()).await;
        let there = match (self.store.get_version(&key).await?, written) {
            (Some(there), _) => there,
            (None, Err(error)) => return Err(error),
            // The store has acknowledged the commit but not kept it.
            (None, Ok(_)) => (bytes.clone(), self.store.put_checked(&key, bytes.clone()).await?),
        };
        let counts = self.take_in(commit, key, there, bytes).await?;
        if counts {
            self.fold_if_due().await;
        }
        Ok(counts)
    }

    /// Takes in what lies under the key of a commit after it was written.
    async fn take_in(
        &self,
        commit: &Commit,
        key: String,
        there: (Bytes, String),
        bytes: Bytes,
    ) -> Result<bool> {
        let found = if there.0 == bytes {
            commit.clone()
        } else {
            match Commit::from_json(&key, &there.0) {
                Ok(found) if found.run != commit.run => found,
                // The commit is from an earlier attempt whose answer was lost, or differs from what was written.
                _ => {
                    let version = self.store.put_checked(&key, bytes).await?;
                    let mut index = self.index.lock().await;
                    index.acknowledge(key.clone());
                    index.committed(key, version, Arc::new(commit.clone()));
                    return Ok(true);
                }
            }
        };
        let ours = found.run == commit.run;
        let same_source = found.state.is_none() || found.division() == commit.division();
        let mut index = self.index.lock().await;
        if ours {
            index.acknowledge(key.clone());
        }
        index.committed(key, there.1, Arc::new(found));
        drop(index);
        if !ours {
            self.delete_files(commit).await?;
        }
        if ours || same_source { Ok(ours) } else { Err(two_versions(commit)) }
    }

    /// Retracts a commit of this run with its files, so that the chunk is read again. A commit that another run has sealed
    /// meanwhile stays.
    pub async fn retract(&self, commit: &Commit) -> Result<()> {
        let _folding = self.folding.lock().await;
        let key = commit_key(commit);
        self.state().await?;
        if self.index.lock().await.is_catalogued(commit) {
            return Err(Error::incomplete(format!(
                "{} {} has to be read again, and another run has sealed it meanwhile",
                commit.id(),
                commit.slice
            ))
            .hint(
                "let one run at a time work on an archive whose source changes, and run it again",
            ));
        }
        // After this one was folded, the key may be that of a commit of another run.
        let is_it = |loose: &Arc<Commit>| loose.names() == commit.names();
        if self.index.lock().await.loose(&key).is_none_or(is_it) {
            self.store.delete(&key).await?;
            self.index.lock().await.retracted(&key);
        }
        if self.index.lock().await.may_be_folded(commit) {
            self.retract_folded(commit).await?;
        }
        self.delete_files(commit).await
    }

    pub(super) async fn delete_files(&self, commit: &Commit) -> Result<()> {
        for file in &commit.files {
            self.store.delete(&file.key).await?;
        }
        Ok(())
    }

    /// Starts the heartbeat of this run. This happens before it requests or reads anything, so that no other run takes
    /// it for dead.
    pub async fn beat(&self, heartbeat: Heartbeat) -> Result<Beating> {
        self.index.lock().await.i_am(&heartbeat.run);
        Beating::start(&self.store, heartbeat).await
    }

    /// Removes the heartbeat at the end of this run. If the run is unfinished, its plan stays for `status`.
    pub async fn forget_heartbeat(&self, run: &str) -> Result<()> {
        self.delete_checked(&runs::heartbeat_key(run)).await?;
        self.tidy();
        Ok(())
    }

    /// Removes a small file and checks that it is gone, since a store may acknowledge a removal without doing it.
    pub(super) async fn delete_checked(&self, key: &str) -> Result<()> {
        for _ in 0..3 {
            self.store.delete(key).await?;
            if self.store.look(key).await?.is_none() {
                return Ok(());
            }
        }
        Err(Error::incomplete(format!("{key} cannot be removed: the store keeps it"))
            .hint("look at the disk or the bucket, then run the same command again"))
    }

    /// Removes folders of the archive that have become empty.
    pub fn tidy(&self) {
        self.store.remove_empty_folders(".moveout");
    }
}
