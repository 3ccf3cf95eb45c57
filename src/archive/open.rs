//! An archive that is open: it is made or found, chunks are committed into it and taken back. Holds the order of
//! durability: data files, commit, catalog, manifest, tag manifest; undone in reverse when a sealed one is extended.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::archive::bag;
use crate::archive::catalog::to_json;
use crate::archive::commit::{Commit, commit_key, two_versions};
use crate::archive::index::{ArchiveIndex, IndexCache};
use crate::archive::keys::{FORMAT, marker};
use crate::archive::keys::{MARKER, RUN, TAG_MANIFEST};
use crate::archive::run_json::Format;
use crate::archive::runs::{self, Beating, Heartbeat, RunPlan};
use crate::config::Location;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::store::{Entry, Store};

/// An archive, open.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(super) store: Store,
    url: String,
    pub(super) index: Arc<Mutex<IndexCache>>,
    /// There was none before this process made it.
    is_new: bool,
}

impl Archive {
    /// Opens an archive to write: makes it where there is nothing, refuses what is not ours.
    pub async fn create(place: &Location) -> Result<Self> {
        let store = Store::create(place)?;
        let index = Arc::default();
        let mut archive = Self { store, url: place.url.clone(), index, is_new: false };
        match archive.begin(place).await {
            Ok(()) => Ok(archive),
            Err(error) => {
                archive.store.remove_made();
                Err(error)
            }
        }
    }

    async fn begin(&mut self, place: &Location) -> Result<()> {
        if !self.is_ours().await? {
            let strangers = self.store.some_keys().await?;
            // Another run may have made it meanwhile.
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
        self.store.make_folder("data") // a bag needs its payload folder, even if empty
    }

    /// Marks an archive that is being written with the version of its format. One of an earlier version becomes
    /// one of this: what is written from now on only this version can read. Another run that came to nothing may
    /// have removed the mark that it had made.
    pub async fn mark(&self) -> Result<()> {
        match self.store.get(MARKER).await? {
            Some(mark) if mark == marker() => Ok(()),
            _ => self.store.put_checked(MARKER, marker()).await.map(drop),
        }
    }

    /// Removes all that this run made of an archive that has come to nothing, as if it had never begun. Where
    /// anything else is, nothing goes but the plan. The heartbeat is gone already.
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
        // Each run beats before it looks for the mark, so that one that comes now is seen, or sees that it is gone.
        if !self.store.objects("").await?.is_empty() {
            return self.mark().await;
        }
        self.tidy();
        self.store.remove_empty_folders("data");
        self.store.remove_made();
        Ok(())
    }

    /// Opens an archive to read.
    pub async fn open(place: &Location) -> Result<Self> {
        let (store, url) = (Store::open(place)?, place.url.clone());
        let archive = Self { store, url, index: Arc::default(), is_new: false };
        match archive.is_ours().await? {
            true => Ok(archive),
            false => Err(Error::stop(format!("{place} is not an archive of moveout"))),
        }
    }

    async fn is_ours(&self) -> Result<bool> {
        for key in [MARKER, RUN] {
            let Some(bytes) = self.store.get(key).await? else { continue };
            // A damaged file is for `verify` to name; here it only has to be told from a newer one.
            if let Ok(found) = serde_json::from_slice::<Format>(&bytes)
                && found.format > FORMAT
                && !self.is_damaged(key, &bytes).await?
            {
                return Err(Error::stop(format!(
                    "{} has format {}, this version knows {FORMAT}",
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

    /// Whether a sealed archive's own record of a file is another.
    async fn is_damaged(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let Some(tags) = self.store.get(TAG_MANIFEST).await? else { return Ok(false) };
        let tags = std::str::from_utf8(&tags).ok().and_then(|text| bag::parse_manifest(text).ok());
        Ok(tags.and_then(|tags| Some(*tags.get(key)? != sha256(bytes))).unwrap_or(false))
    }

    /// Where the bytes are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the archive is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the archive says of itself now. Only what is new since the last look is read.
    pub async fn state(&self) -> Result<Arc<ArchiveIndex>> {
        self.index.lock().await.look(&self.store).await
    }

    /// The time of these commits is read again: from now on this process does not count them, and what it
    /// commits of their time replaces them. They stay until the seal, whatever becomes of this run.
    pub async fn read_again<'a>(&self, commits: impl IntoIterator<Item = &'a Commit>) {
        self.index.lock().await.give_up(commits);
    }

    /// These count after all, where nothing has replaced them.
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
        let mut plans = Vec::new();
        for (key, _) in self.store.list(".moveout/plans").await? {
            plans.extend(self.json(&key).await.ok().flatten());
        }
        Ok(plans)
    }

    /// Writes a run's plan.
    pub async fn put_plan(&self, plan: &RunPlan) -> Result<()> {
        self.store.put_checked(&runs::plan_key(&plan.run), to_json(plan)?).await.map(|_| ())
    }

    /// Makes a chunk durable, and says which commits it replaces. `false` when another run was first; its
    /// commit stays, and the files of this one are removed.
    pub async fn commit(&self, commit: &mut Commit) -> Result<bool> {
        commit.replaces = self.index.lock().await.replaced_by(commit);
        let (key, bytes) = (commit_key(commit), Bytes::from(commit.to_json()?));
        let written = self.store.put_if_absent(&key, bytes.clone()).await;
        let there = match (self.store.get_version(&key).await?, written) {
            (Some(there), _) => there,
            (None, Err(error)) => return Err(error),
            // It was acknowledged, and was not kept.
            (None, Ok(_)) => (bytes.clone(), self.store.put_checked(&key, bytes.clone()).await?),
        };
        let found = if there.0 == bytes {
            commit.clone()
        } else {
            match Commit::from_json(&key, &there.0) {
                Ok(found) if found.run != commit.run => found,
                // Of an attempt of before, whose answer was lost; or not what was written.
                _ => {
                    let version = self.store.put_checked(&key, bytes).await?;
                    self.index.lock().await.committed(key, version, Arc::new(commit.clone()));
                    return Ok(true);
                }
            }
        };
        let ours = found.run == commit.run;
        let same_source = found.state.is_none() || found.division() == commit.division();
        self.index.lock().await.committed(key, there.1, Arc::new(found));
        if !ours {
            self.delete_files(commit).await?;
        }
        if ours || same_source { Ok(ours) } else { Err(two_versions(commit)) }
    }

    /// Takes a commit back, of this run, with its files: the chunk is to be done again. What another run has
    /// sealed meanwhile stays.
    pub async fn retract(&self, commit: &Commit) -> Result<()> {
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
        self.store.delete(&key).await?;
        self.index.lock().await.retracted(&key);
        self.delete_files(commit).await
    }

    pub(super) async fn delete_files(&self, commit: &Commit) -> Result<()> {
        for file in &commit.files {
            self.store.delete(&file.key).await?;
        }
        Ok(())
    }

    /// Begins to show that this run is at work. It does so before it asks or reads anything, so that no other
    /// run takes it for one that is over.
    pub async fn beat(&self, heartbeat: Heartbeat) -> Result<Beating> {
        self.index.lock().await.i_am(&heartbeat.run);
        Beating::start(&self.store, heartbeat).await
    }

    /// Removes the heartbeat of this run, which ends; where it is unfinished, its plan stays for `status`.
    pub async fn forget_heartbeat(&self, run: &str) -> Result<()> {
        self.delete_checked(&runs::heartbeat_key(run)).await?;
        self.tidy();
        Ok(())
    }

    /// Removes a small file, and looks whether it is gone: a store may acknowledge what it does not do.
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

    /// Removes folders of ours that have become empty.
    pub fn tidy(&self) {
        self.store.remove_empty_folders(".moveout");
    }
}
