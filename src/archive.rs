//! The archive as a whole: open it, commit a chunk, seal it. Holds the order of durability: data
//! files, commit, catalog, manifest, tag manifest; undone in reverse when a sealed one is extended.

pub mod bag;
pub mod catalog;
pub mod commit;
mod index;
pub mod name;
pub mod runs;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::config::Place;
use crate::error::{Error, Result};
use crate::hash::{hex, sha256};
use crate::source::Artifact;
use crate::store::Store;
use bag::Hashes;
use catalog::{FORMAT, RunEntry};
use commit::Commit;
use index::ArchiveIndex;
pub use index::{State, without_overlaps};
use runs::{Heartbeat, RunPlan};

/// Hash of every payload file.
pub const MANIFEST: &str = "manifest-sha256.txt";
/// Hash of every other file; written last: with it the archive is sealed.
pub const TAG_MANIFEST: &str = "tagmanifest-sha256.txt";
/// The tables.
pub const TABLES: &str = "catalog/tables.json";
/// The chunks.
pub const CHUNKS: &str = "catalog/chunks.parquet";
/// The run.
pub const RUN: &str = "catalog/run.json";
const MARKER: &str = ".moveout/archive.json";

/// Whether a file is the mark of an archive that is being written.
pub fn is_marker(key: &str, bytes: &[u8]) -> bool {
    key == MARKER && bytes == marker().as_bytes()
}

fn marker() -> String {
    format!("{{\"format\":{FORMAT}}}\n")
}
const COMMITS: &str = ".moveout/commits";

/// An archive, open.
#[derive(Debug, Clone)]
pub struct Archive {
    store: Store,
    url: String,
    index: Arc<Mutex<ArchiveIndex>>,
}

/// What a seal adds to the commits.
#[derive(Debug)]
pub struct Seal<'a> {
    /// The run that seals.
    pub run: RunEntry,
    /// What is not rows.
    pub artifacts: &'a [(String, Artifact)],
}

impl Archive {
    /// Opens an archive to write: makes it where there is nothing, refuses what is not ours.
    pub async fn create(place: &Place) -> Result<Self> {
        let store = Store::create(place)?;
        let archive = Self { store, url: place.url.clone(), index: Arc::default() };
        if !archive.is_ours().await? {
            let strangers = archive.store.some_keys().await?;
            // Another run may have made it meanwhile.
            if let Some(stranger) = strangers.iter().find(|key| !key.starts_with("lost+found"))
                && !archive.is_ours().await?
            {
                return Err(Error::stop(format!(
                    "{place} is not empty and not an archive of moveout (it holds `{stranger}`)"
                ))
                .hint("give an empty or a new folder"));
            }
            archive.store.put(MARKER, marker()).await?;
        }
        archive.store.make_folder("data")?; // a bag needs its payload folder, even if empty
        Ok(archive)
    }

    /// Opens an archive to read.
    pub async fn open(place: &Place) -> Result<Self> {
        let (store, url) = (Store::open(place)?, place.url.clone());
        let archive = Self { store, url, index: Arc::default() };
        match archive.is_ours().await? {
            true => Ok(archive),
            false => Err(Error::stop(format!("{place} is not an archive of moveout"))),
        }
    }

    async fn is_ours(&self) -> Result<bool> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
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
    pub async fn state(&self) -> Result<Arc<State>> {
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

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>> {
        let mut runs = Vec::new();
        for (key, _) in self.store.list(".moveout/runs").await? {
            // A heartbeat that cannot be read was being written by a run that died.
            if let Ok(Some(run)) = self.json(&key).await {
                runs.push(run);
            }
        }
        Ok(runs)
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
        self.store.put(&runs::plan_key(&plan.run), to_json(plan)?).await
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
        let found = match there.0 == bytes {
            true => commit.clone(),
            false => match Commit::from_json(&key, &there.0) {
                Ok(found) if found.run != commit.run => found,
                // Of an attempt of before, whose answer was lost; or not what was written.
                _ => {
                    let version = self.store.put_checked(&key, bytes).await?;
                    self.index.lock().await.committed(key, version, Arc::new(commit.clone()));
                    return Ok(true);
                }
            },
        };
        let ours = found.run == commit.run;
        let same_source = found.state.is_none() || found.state == commit.state;
        self.index.lock().await.committed(key, there.1, Arc::new(found));
        if !ours {
            self.delete_files(commit).await?;
        }
        match ours || same_source {
            true => Ok(ours),
            false => Err(two_versions(commit)),
        }
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

    async fn delete_files(&self, commit: &Commit) -> Result<()> {
        for file in &commit.files {
            self.store.delete(&file.key).await?;
        }
        Ok(())
    }

    /// Data files are known by their commits; of artifacts only the manifest knows the hash, so before
    /// that goes they are compared with it.
    async fn check_artifacts(&self) -> Result<()> {
        let Some(bytes) = self.store.get(MANIFEST).await? else { return Ok(()) };
        let hashes = bag::read_manifest(MANIFEST, &bytes)?;
        let artifacts =
            hashes.iter().filter(|(key, _)| key.split('/').nth(2) == Some("_artifacts"));
        for (key, hash) in artifacts {
            let found = hash_object(&self.store, key).await?;
            if found.is_none_or(|(found, _)| found != *hash) {
                return Err(Error::different(format!("{key} is not what {MANIFEST} records"))
                    .hint("restore the file, or export into a new archive"));
            }
        }
        Ok(())
    }

    /// Takes the seal off, in reverse order, before anything is added.
    pub async fn unseal(&self) -> Result<()> {
        self.check_artifacts().await?;
        self.store.put(MARKER, marker()).await?;
        self.store.delete(TAG_MANIFEST).await?;
        self.store.delete(MANIFEST).await
    }

    /// Removes what dead runs left: half-written files, data files that no commit names, plans and
    /// heartbeats. Whatever a living run may own stays; `at_work` says that this one is one of them.
    /// Returns how many files it removed.
    pub async fn sweep(&self, me: &str, at_work: bool) -> Result<usize> {
        // First what is there, then who lives and what is committed: a run beats before it writes
        // and commits before it ends, so whatever was seen is either claimed or nobody's.
        let staged = self.store.staged().await?;
        let files = self.store.list("data").await?;
        let state = self.state().await?;
        let living: BTreeSet<&str> =
            state.living(me).map(|run| run.run.as_str()).chain(at_work.then_some(me)).collect();
        let committed: BTreeSet<&str> =
            state.commits.iter().flat_map(|c| &c.files).map(|file| file.key.as_str()).collect();
        let mut removed = 0;
        for staged in staged {
            let owner = name::run_of_file(&staged.key);
            // Commits, heartbeats and catalogs are staged for an instant only, but by anyone.
            let in_use =
                owner.map_or(state.living(me).next().is_some(), |run| living.contains(run));
            if !in_use {
                removed += usize::from(self.store.discard(&staged).await);
            }
        }
        for (key, _) in files {
            let Some(run) = name::run_of_file(&key) else { continue };
            if !committed.contains(key.as_str()) && !living.contains(run) {
                self.store.delete(&key).await?;
                removed += 1;
            }
        }
        for run in
            state.runs.iter().filter(|run| run.run != me && !living.contains(run.run.as_str()))
        {
            self.store.delete(&runs::heartbeat_key(&run.run)).await?;
        }
        Ok(removed)
    }

    /// Removes the heartbeat of a run that ends unfinished; its plan stays for `status`.
    pub async fn forget_heartbeat(&self, run: &str) -> Result<()> {
        self.store.delete(&runs::heartbeat_key(run)).await?;
        self.tidy();
        Ok(())
    }

    /// Removes what a sealed archive does not hold: plans and heartbeats of runs that are over, this
    /// one's among them.
    pub async fn clear_work(&self, me: &str) -> Result<()> {
        let runs = self.heartbeats().await?;
        let alive = |run: &str| runs.iter().any(|r| r.run == run && run != me && r.is_alive());
        for plan in self.plans().await? {
            if !alive(&plan.run) {
                self.store.delete(&runs::plan_key(&plan.run)).await?;
            }
        }
        for run in runs.iter().filter(|run| !alive(&run.run)) {
            self.store.delete(&runs::heartbeat_key(&run.run)).await?;
        }
        self.store.delete(MARKER).await?;
        self.tidy();
        Ok(())
    }

    /// Removes folders of ours that have become empty.
    pub fn tidy(&self) {
        self.store.remove_empty_folders(".moveout");
    }

    /// Closes the bag. The caller has made sure that no older run is at work.
    pub async fn seal(&self, me: &str, seal: Seal<'_>) -> Result<()> {
        self.unseal().await?;
        let state = self.state().await?;
        for commit in &state.superseded {
            self.store.delete(&commit_key(commit)).await?;
            self.delete_files(commit).await?;
        }
        // This run writes no more: of its own files, too, only those that were committed count.
        self.sweep(me, false).await?;
        for (source, artifact) in seal.artifacts {
            let key = format!("data/{}/_artifacts/{}", name::segment(source), artifact.path);
            self.store.put(&key, artifact.content.clone()).await?;
        }

        let (payload, payload_bytes) = self.payload(&state.commits, me).await?;
        let mut run = seal.run;
        if let Some(last) = &state.run {
            run.succeed(RunEntry::clone(last));
        }
        let date = run.ended.get(..10).unwrap_or_default().to_owned();
        let manifest = bag::manifest(&payload);
        let tags: [(&str, Bytes); 7] = [
            (TABLES, to_json(&catalog::tables(&state.commits))?.into()),
            (CHUNKS, catalog::write_chunks(&state.commits)?.into()),
            (RUN, to_json(&run)?.into()),
            ("README.txt", bag::README_TXT.into()),
            ("bagit.txt", bag::BAGIT_TXT.into()),
            ("bag-info.txt", bag::bag_info(&date, payload_bytes, payload.len()).into()),
            (MANIFEST, manifest.into()),
        ];
        let mut hashes = Hashes::new();
        for (key, bytes) in tags {
            hashes.insert(key.to_owned(), sha256(&bytes));
            self.store.put(key, bytes).await?;
        }
        // The commits are in the catalog now. They go before the last file comes, so that a sealed
        // archive holds nothing that its manifests do not name.
        for key in &state.loose {
            self.store.delete(key).await?;
        }
        self.clear_work(me).await?;
        self.store.put(TAG_MANIFEST, bag::manifest(&hashes)).await
    }

    // Data files are known by their commits, read back before those were made; the rest is read.
    async fn payload(&self, commits: &[Arc<Commit>], me: &str) -> Result<(Hashes, u64)> {
        let committed: HashMap<&str, (&str, u64)> = commits
            .iter()
            .flat_map(|commit| &commit.files)
            .map(|file| (file.key.as_str(), (file.sha256.as_str(), file.bytes)))
            .collect();
        let mut hashes = Hashes::new();
        let mut payload_bytes = 0;
        let files = self.store.list("data").await?;
        // After the list, so that each owner of a file in it is known.
        let runs = self.heartbeats().await?;
        let living: BTreeSet<&str> = runs
            .iter()
            .filter(|run| run.run != me && run.is_alive())
            .map(|run| run.run.as_str())
            .collect();
        for (key, size) in files {
            let hash = match (committed.get(key.as_str()), name::run_of_file(&key)) {
                (Some((hash, bytes)), _) if *bytes == size => (*hash).to_owned(),
                (Some((_, bytes)), _) => {
                    return Err(Error::different(format!(
                        "{key} has {size} bytes, its commit says {bytes}; the archive is not sealed"
                    )));
                }
                (None, Some(run)) if living.contains(run) => continue,
                (None, _) if key.split('/').nth(2) == Some("_artifacts") => {
                    let bytes = self.store.get(&key).await?.unwrap_or_default();
                    sha256(&bytes)
                }
                (None, _) => {
                    return Err(Error::stop(format!(
                        "`{key}` was put into the archive by somebody else; the archive is not sealed"
                    ))
                    .hint("move it away, then run the same command again"));
                }
            };
            hashes.insert(key, hash);
            payload_bytes += size;
        }
        match committed.keys().find(|key| !hashes.contains_key(**key)) {
            None => Ok((hashes, payload_bytes)),
            Some(key) => Err(Error::different(format!(
                "{key} is gone although its chunk was committed; the archive is not sealed"
            ))
            .hint("restore the file, or export into a new archive")),
        }
    }
}

/// Where a commit lies until it is sealed.
pub fn commit_key(commit: &Commit) -> String {
    match commit.replaces.is_empty() {
        true => name::commit_key(&commit.path, commit.slice),
        false => name::replacing_commit_key(&commit.path, commit.slice, &commit.run),
    }
}

fn two_versions(commit: &Commit) -> Error {
    Error::stop(format!(
        "{} was exported in another version than it has now: an archive holds one of each",
        commit.id()
    ))
    .hint("export it into a new archive")
}

/// Pretty JSON with a line end, for files that people read.
pub fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::stop(format!("writing JSON: {error}")))?;
    json.push(b'\n');
    Ok(json)
}

/// Hashes an object as it stands in the store; `None` where there is none. Returns hash and size.
pub async fn hash_object(store: &Store, key: &str) -> Result<Option<(String, u64)>> {
    let Some(mut stream) = store.stream(key).await? else { return Ok(None) };
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        hash.update(&bytes);
        size += bytes.len() as u64;
    }
    Ok(Some((hex(&hash.finalize()), size)))
}
