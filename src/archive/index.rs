//! What an archive says of itself, read once: the commits of the catalog and those that lie outside of it,
//! the run that sealed it, the runs that are at work. Looking again costs one listing, and a question for
//! each of the four files of the seal; only what is new is read.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::bag::{self, Hashes};
use super::catalog::{self, RunEntry};
use super::commit::{Commit, CommitKey};
use super::runs::{self, Heartbeat};
use super::{CHUNKS, COMMITS, MANIFEST, RUN, TAG_MANIFEST};
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::source::TableId;
use crate::store::{Entry, Store};

/// Small files that are read at once.
const READS: usize = 16;
/// How often to look again where another run seals meanwhile.
const LOOKS: usize = 3;

/// What an archive says of itself at one moment.
#[derive(Debug, Default)]
pub struct State {
    /// All commits that count: those in the catalog and those of unfinished runs. None overlaps another.
    pub commits: Vec<Arc<Commit>>,
    /// Commits that do not count: another was earlier for the same time, or replaces them.
    pub superseded: Vec<Arc<Commit>>,
    /// The run that sealed it last, if any did.
    pub run: Option<Arc<RunEntry>>,
    /// Whether both manifests are there.
    pub sealed: bool,
    /// The hashes of the catalog and of the other tag files, where it is sealed.
    pub tags: Arc<Hashes>,
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
        self.runs.iter().filter(move |run| run.run != me && run.alive)
    }
}

/// All commits of an archive, each read once, and kept up to date by what this process commits and takes
/// back itself.
#[derive(Debug, Default)]
pub(super) struct ArchiveIndex {
    chunks: Option<Seen<Vec<Arc<Commit>>>>,
    run: Option<Seen<Arc<RunEntry>>>,
    tags: Option<Seen<Arc<Hashes>>>,
    loose: BTreeMap<String, Seen<Arc<Commit>>>,
    runs: BTreeMap<String, Heartbeat>,
    sealed: bool,
    /// Commits whose time this run reads again.
    given_up: HashSet<CommitKey>,
    state: Option<Arc<State>>,
}

/// What was read, of which version of the file, and the hash of its bytes.
#[derive(Debug, Clone)]
struct Seen<T> {
    version: String,
    sha256: String,
    value: T,
}

impl ArchiveIndex {
    /// Looks at the store, reads what is new, and says what the archive is now.
    pub(super) async fn look(&mut self, store: &Store) -> Result<Arc<State>> {
        for look in 1.. {
            self.read(store).await?;
            match self.contradiction() {
                None => break,
                Some(error) if look == LOOKS => return Err(error),
                // Another run may be sealing: the file of before, the record of now.
                Some(_) => (self.chunks, self.run, self.tags) = (None, None, None),
            }
        }
        let state = match self.state.take() {
            Some(state) => state,
            None => Arc::new(self.derive()),
        };
        self.state = Some(Arc::clone(&state));
        Ok(state)
    }

    /// Takes in a commit of this process.
    pub(super) fn committed(&mut self, key: String, version: String, commit: Arc<Commit>) {
        self.loose.insert(key, Seen { version, sha256: String::new(), value: commit });
        self.state = None;
    }

    /// Whether a commit is in the catalog already, as far as is known.
    pub(super) fn is_catalogued(&self, commit: &Commit) -> bool {
        self.chunks.iter().flat_map(|chunks| &chunks.value).any(|c| c.key() == commit.key())
    }

    /// Forgets a commit that this process has taken back.
    pub(super) fn retracted(&mut self, key: &str) {
        self.loose.remove(key);
        self.state = None;
    }

    /// From now on these do not count, and what this process commits of their time replaces them.
    pub(super) fn give_up<'a>(&mut self, commits: impl IntoIterator<Item = &'a Commit>) {
        self.given_up.extend(commits.into_iter().map(Commit::key));
        self.state = None;
    }

    /// They count again.
    pub(super) fn keep<'a>(&mut self, commits: impl IntoIterator<Item = &'a Commit>) {
        for commit in commits {
            self.given_up.remove(&commit.key());
        }
        self.state = None;
    }

    /// The runs whose commits a new one replaces.
    pub(super) fn replaced_by(&self, commit: &Commit) -> Vec<String> {
        let id = commit.id();
        let replaced = self.given_up.iter().filter(|(table, slice, run)| {
            *table == id && slice.overlaps(commit.slice) && *run != commit.run
        });
        replaced.map(|(_, _, run)| run.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    async fn read(&mut self, store: &Store) -> Result<()> {
        // A seal writes the catalog before it removes the commits, so in this order none is missed.
        let work = store.objects(".moveout").await?;
        let below = |prefix: &'static str| {
            work.iter().filter(move |entry| entry.key.starts_with(prefix)).collect::<Vec<_>>()
        };
        let listed = below(COMMITS);
        let new = listed.iter().filter(|entry| {
            self.loose.get(&entry.key).is_none_or(|known| known.version != entry.version)
        });
        let new = read_commits(store, new.map(|entry| entry.key.clone())).await?;
        let beats = below(runs::HEARTBEATS);
        let runs = read_heartbeats(store, &self.runs, &beats).await?;
        let chunks = reread(store, CHUNKS, &self.chunks, |bytes| {
            let commits = catalog::read_chunks(bytes).map_err(|error| {
                Error::different(format!("{CHUNKS} cannot be read: {error}"))
                    .hint("the archive is damaged; `moveout verify` names what else is")
            })?;
            Ok(commits.into_iter().map(Arc::new).collect())
        });
        let chunks = chunks.await?;
        let run = reread(store, RUN, &self.run, |bytes| {
            serde_json::from_slice(&bytes)
                .map(Arc::new)
                .map_err(|error| Error::different(format!("{RUN} cannot be read: {error}")))
        });
        let run = run.await?;
        let manifest = store.look(MANIFEST).await?.is_some();
        let tags = reread(store, TAG_MANIFEST, &self.tags, |bytes| {
            bag::read_manifest(TAG_MANIFEST, &bytes).map(Arc::new)
        });
        let tags = tags.await?;
        if chunks.is_none() && (run.is_some() || manifest || tags.is_some()) {
            // Without it nothing would seem committed, and all data files nobody's.
            return Err(Error::different(format!("{CHUNKS} is missing"))
                .hint("restore the file, or export into a new archive"));
        }

        // A listing may leave out what is there.
        let listed: HashSet<&str> = listed.iter().map(|entry| entry.key.as_str()).collect();
        let catalogued: HashSet<CommitKey> =
            chunks.iter().flat_map(|chunks| &chunks.value).map(|commit| commit.key()).collect();
        let unlisted = self.loose.iter().filter(|(key, seen)| {
            !listed.contains(key.as_str()) && !catalogued.contains(&seen.value.key())
        });
        let unlisted: Vec<String> = unlisted.map(|(key, _)| key.clone()).collect();
        let unlisted = read_commits(store, unlisted).await?;

        let unchanged = new.is_empty()
            && unlisted.is_empty()
            && self.loose.keys().all(|key| listed.contains(key.as_str()))
            && version(&chunks) == version(&self.chunks)
            && version(&run) == version(&self.run)
            && version(&tags) == version(&self.tags)
            && self.sealed == (manifest && tags.is_some())
            && self.runs == runs;
        if !unchanged {
            self.state = None;
        }
        self.loose.retain(|key, _| listed.contains(key.as_str()));
        self.loose.extend(new.into_iter().chain(unlisted));
        (self.chunks, self.run, self.sealed) = (chunks, run, manifest && tags.is_some());
        (self.tags, self.runs) = (tags, runs);
        Ok(())
    }

    /// What a sealed archive holds is what its seal says.
    fn contradiction(&self) -> Option<Error> {
        let tags = self.tags.as_ref().filter(|_| self.sealed)?;
        let hashes = [
            (CHUNKS, self.chunks.as_ref().map(|chunks| &chunks.sha256)),
            (RUN, self.run.as_ref().map(|run| &run.sha256)),
        ];
        let (key, _) = hashes.into_iter().find(|(key, hash)| tags.value.get(*key) != *hash)?;
        Some(damaged(key))
    }

    fn derive(&self) -> State {
        let mut commits = self.chunks.as_ref().map(|c| c.value.clone()).unwrap_or_default();
        let catalogued: HashSet<CommitKey> = commits.iter().map(|commit| commit.key()).collect();
        // A seal that was cut after the catalog leaves commits that are in it already.
        let loose = self.loose.values().map(|seen| &seen.value);
        let mut loose: Vec<Arc<Commit>> =
            loose.filter(|commit| !catalogued.contains(&commit.key())).cloned().collect();
        let uncatalogued = !loose.is_empty();
        // What is in the catalog stays, whatever a clock says: only loose commits can come too late.
        loose.sort_by(|a, b| a.order().cmp(&b.order()));
        commits.extend(loose);
        let (mut commits, superseded) = without_overlaps(commits);
        if !self.given_up.is_empty() {
            commits.retain(|commit| !self.given_up.contains(&commit.key()));
        }
        State {
            commits,
            superseded,
            run: self.run.as_ref().map(|run| Arc::clone(&run.value)),
            sealed: self.sealed,
            tags: self.tags.as_ref().map(|tags| Arc::clone(&tags.value)).unwrap_or_default(),
            uncatalogued,
            loose: self.loose.keys().cloned().collect(),
            runs: self.runs.values().cloned().collect(),
        }
    }
}

fn version<T>(seen: &Option<Seen<T>>) -> Option<&str> {
    seen.as_ref().map(|seen| seen.version.as_str())
}

/// What is told where a file of a sealed archive is not the one that was sealed.
pub(super) fn damaged(key: &str) -> Error {
    Error::different(format!("{key} is not what {TAG_MANIFEST} records")).hint(
        "the archive is damaged, and nothing in it was changed: restore this file; `moveout verify` names what \
         else is wrong",
    )
}

/// A file of the seal; not read again where it is the one that was read before.
async fn reread<T: Clone>(
    store: &Store,
    key: &str,
    known: &Option<Seen<T>>,
    parse: impl FnOnce(Bytes) -> Result<T>,
) -> Result<Option<Seen<T>>> {
    let Some(entry) = store.look(key).await? else { return Ok(None) };
    if version(known) == Some(entry.version.as_str()) {
        return Ok(known.clone());
    }
    let Some((bytes, version)) = store.get_version(key).await? else { return Ok(None) };
    let sha256 = sha256(&bytes);
    Ok(Some(Seen { version, sha256, value: parse(bytes)? }))
}

type Loose = Vec<(String, Seen<Arc<Commit>>)>;

async fn read_commits(store: &Store, keys: impl IntoIterator<Item = String>) -> Result<Loose> {
    let read = stream::iter(keys).map(|key| async move {
        let Some((bytes, version)) = store.get_version(&key).await? else {
            return Ok::<_, Error>(None);
        };
        let value = Arc::new(Commit::from_json(&key, &bytes)?);
        Ok(Some((key, Seen { version, sha256: String::new(), value })))
    });
    let read: Vec<Option<_>> = read.buffer_unordered(READS).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

/// The runs that have a heartbeat. What it says of itself is read once, the time of its last beat is the
/// listing's.
async fn read_heartbeats(
    store: &Store,
    known: &BTreeMap<String, Heartbeat>,
    beats: &[&Entry],
) -> Result<BTreeMap<String, Heartbeat>> {
    let mut found = BTreeMap::new();
    for entry in beats {
        let heartbeat = match known.get(&entry.key) {
            Some(heartbeat) => Some(heartbeat.clone()),
            None => store.get(&entry.key).await?.and_then(|b| serde_json::from_slice(&b).ok()),
        };
        // One that cannot be read was being written by a run that died.
        if let Some(mut heartbeat) = heartbeat {
            heartbeat.alive = heartbeat.is_alive();
            found.insert(entry.key.clone(), heartbeat);
        }
    }
    Ok(found)
}

/// The commits that count, and those that do not: one that replaces others wins over them; otherwise, of two
/// for the same time, the earlier does. What comes later never changes which of the earlier ones stand but by
/// naming them, so two runs that look at different moments decide alike. The commits must come in the order
/// in which they count.
pub fn without_overlaps<C: Borrow<Commit>>(commits: Vec<C>) -> (Vec<C>, Vec<C>) {
    let mut replacing = HashMap::<TableId, Vec<Commit>>::new();
    for commit in commits.iter().map(Borrow::borrow).filter(|commit| !commit.replaces.is_empty()) {
        replacing.entry(commit.id()).or_default().push(commit.clone());
    }
    let is_replaced = |commit: &Commit| {
        !replacing.is_empty()
            && replacing
                .get(&commit.id())
                .is_some_and(|by| by.iter().any(|other| other.takes_over(commit)))
    };
    let mut taken = HashMap::<TableId, Coverage>::new();
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for commit in commits {
        let this: &Commit = commit.borrow();
        let coverage = taken.entry(this.id()).or_default();
        if is_replaced(this) || coverage.overlaps_slice(this.slice) {
            lost.push(commit);
            continue;
        }
        coverage.insert_slice(this.slice);
        kept.push(commit);
    }
    kept.sort_by_cached_key(|commit| {
        let commit: &Commit = commit.borrow();
        (commit.id(), commit.slice)
    });
    (kept, lost)
}
