//! The archive as a whole: open it, commit a chunk, seal it. Holds the order of durability: data
//! files, commit, catalog, manifest, tag manifest; undone in reverse when a sealed one is extended.

pub mod bag;
pub mod catalog;
pub mod commit;
pub mod name;
pub mod runs;

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::config::Place;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::hash::{hex, sha256};
use crate::source::{Artifact, TableId};
use crate::store::Store;
use bag::Hashes;
use catalog::{FORMAT, RunEntry};
use commit::Commit;
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
}

/// What an archive says of itself at one moment.
#[derive(Debug, Default)]
pub struct State {
    /// All commits: those in the catalog and those of unfinished runs; one a chunk, none overlaps.
    pub commits: Vec<Commit>,
    /// Commits that lost to an earlier one for the same time: their files do not count.
    pub superseded: Vec<Commit>,
    /// The run that sealed it last, if any did.
    pub run: Option<RunEntry>,
    /// Whether the tag manifest is there.
    pub sealed: bool,
    /// Whether commits lie outside of the catalog.
    pub uncatalogued: bool,
    /// Keys of all commits that lie there, also of those that are in the catalog already.
    pub loose: Vec<String>,
    /// Runs with a heartbeat, dead or alive, oldest first.
    pub runs: Vec<Heartbeat>,
}

impl State {
    /// The commits of each table.
    pub fn by_table(&self) -> HashMap<TableId, Vec<&Commit>> {
        let mut by_table = HashMap::<TableId, Vec<&Commit>>::new();
        for commit in &self.commits {
            by_table.entry(commit.id()).or_default().push(commit);
        }
        by_table
    }

    /// Other runs that are at work now.
    pub fn living<'a>(&'a self, me: &'a str) -> impl Iterator<Item = &'a Heartbeat> {
        self.runs.iter().filter(move |run| run.run != me && run.is_alive())
    }
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
        let archive = Self { store, url: place.url.clone() };
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
        let archive = Self { store: Store::open(place)?, url: place.url.clone() };
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

    /// Reads what the archive says of itself.
    pub async fn state(&self) -> Result<State> {
        let mut state = State {
            sealed: self.is_sealed().await?,
            run: self.json(RUN).await?,
            runs: self.heartbeats().await?,
            ..State::default()
        };
        // A seal writes the catalog before it removes the commits, so in this order none is missed.
        let mut loose = Vec::new();
        for (key, _) in self.store.list(COMMITS).await? {
            let Some(bytes) = self.store.get(&key).await? else { continue };
            loose.push(Commit::from_json(&key, &bytes)?);
            state.loose.push(key);
        }
        let mut commits = Vec::new();
        if let Some(bytes) = self.store.get(CHUNKS).await? {
            commits = catalog::read_chunks(bytes).map_err(|error| {
                Error::different(format!("{CHUNKS} cannot be read: {error}"))
                    .hint("the archive is damaged; `moveout verify` names what else is")
            })?;
        } else if state.run.is_some() || state.sealed || self.store.get(MANIFEST).await?.is_some() {
            // Without it nothing would seem committed, and all data files nobody's.
            return Err(Error::different(format!("{CHUNKS} is missing"))
                .hint("restore the file, or export into a new archive"));
        }
        let catalogued: BTreeSet<(TableId, String)> =
            commits.iter().map(|c: &Commit| (c.id(), c.slice.to_string() + &c.run)).collect();
        // A seal that was cut after the catalog leaves commits that are in it already.
        loose.retain(|c| !catalogued.contains(&(c.id(), c.slice.to_string() + &c.run)));
        state.uncatalogued = !loose.is_empty();
        // What is in the catalog stays, whatever a clock says: only loose commits can be superseded.
        loose.sort_by(|a, b| a.order().cmp(&b.order()));
        commits.extend(loose);
        (state.commits, state.superseded) = without_overlaps(commits);
        Ok(state)
    }

    async fn is_sealed(&self) -> Result<bool> {
        let seal = self.store.get(TAG_MANIFEST).await?;
        Ok(seal.is_some() && self.store.get(MANIFEST).await?.is_some())
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

    /// Makes a chunk durable. `false` when another run was first; its commit stays, and the files
    /// of this one are removed.
    pub async fn commit(&self, commit: &Commit) -> Result<bool> {
        let key = name::commit_key(&commit.path, commit.slice);
        if self.store.put_if_absent(&key, commit.to_json()?.into()).await? {
            return Ok(true);
        }
        let there = self.store.get(&key).await?;
        let there = there.map(|bytes| Commit::from_json(&key, &bytes)).transpose()?;
        if there.is_some_and(|there| there.run == commit.run) {
            return Ok(true); // our own, whose answer was lost
        }
        self.delete_files(commit).await?;
        Ok(false)
    }

    /// Takes a commit back, of this run, with its files: the chunk is to be done again.
    pub async fn retract(&self, commit: &Commit) -> Result<()> {
        self.store.delete(&name::commit_key(&commit.path, commit.slice)).await?;
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
        let text = String::from_utf8_lossy(&bytes);
        let hashes = bag::parse_manifest(&text).map_err(|error| {
            Error::different(format!("{MANIFEST}: {error}"))
                .hint("the archive is damaged; `moveout verify` names what else is")
        })?;
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
            self.store.delete(&name::commit_key(&commit.path, commit.slice)).await?;
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
        if let Some(last) = state.run {
            run.succeed(last);
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
    async fn payload(&self, commits: &[Commit], me: &str) -> Result<(Hashes, u64)> {
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

/// The commits that count, and those that do not: of two for the same time the earlier wins. What
/// comes later never changes which of the earlier ones stand, so two runs that look at different
/// moments decide alike. The commits must come in the order in which they count.
pub fn without_overlaps(commits: Vec<Commit>) -> (Vec<Commit>, Vec<Commit>) {
    let mut taken = HashMap::<TableId, Coverage>::new();
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for commit in commits {
        let coverage = taken.entry(commit.id()).or_default();
        if coverage.overlaps_slice(commit.slice) {
            lost.push(commit);
            continue;
        }
        coverage.insert_slice(commit.slice);
        kept.push(commit);
    }
    kept.sort_by_cached_key(|commit| (commit.id(), commit.slice));
    (kept, lost)
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
