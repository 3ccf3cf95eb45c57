//! The index of an archive: the commits in the catalog and outside of it, the run that sealed it, and the runs that are at
//! work. Each file is read once. An update costs one listing and a request for each of the four files of the seal, and
//! reads only what is new.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::archive::bag;
use crate::archive::bag::Hashes;
use crate::archive::chunks;
use crate::archive::commit::commit_key;
use crate::archive::commit::{Commit, CommitKey};
use crate::archive::dumps;
use crate::archive::keys::{CHUNKS, COMMITS, DUMPS, MANIFEST, RECORDS, RUN, TAG_MANIFEST};
use crate::archive::run_json::RunEntry;
use crate::archive::runs;
use crate::archive::runs::Heartbeat;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::model::TableId;
use crate::store::{Entry, Store};
use crate::window::Slice;

/// The number of small files that are read at once.
const READS: usize = 16;
/// How often the archive is read again if another run seals it meanwhile.
pub(super) const LOOKS: usize = 3;

/// The index of an archive at one moment.
#[derive(Debug, Clone, Default)]
pub struct ArchiveIndex {
    /// All commits that count, in the catalog and of unfinished runs. No two of them overlap.
    pub commits: Vec<Arc<Commit>>,
    /// Commits that do not count, because another one was earlier for the same window or replaces them.
    pub superseded: Vec<Arc<Commit>>,
    /// Those of the commits that replace others.
    pub replacing: Vec<Arc<Commit>>,
    /// The run that sealed it last, if any did.
    pub run: Option<Arc<RunEntry>>,
    /// Whether both manifests are there.
    pub sealed: bool,
    /// Whether one of the manifests is there.
    pub has_seal: bool,
    /// The hashes of the catalog and of the other tag files, where it is sealed.
    pub tags: Arc<Hashes>,
    /// Whether commits lie outside of the catalog.
    pub uncatalogued: bool,
    /// Keys of all commits outside of the catalog, including those that are in the catalog as well.
    pub loose: Arc<Vec<String>>,
    /// Runs with a heartbeat, dead or alive, oldest first.
    pub runs: Vec<Heartbeat>,
    /// Runs that did not end: with a heartbeat or a plan.
    pub unfinished: BTreeSet<String>,
    /// The records of seals that were begun. A sealed archive has none.
    pub records: Vec<Arc<Hashes>>,
}

impl ArchiveIndex {
    /// The commits of each table.
    pub fn by_table(&self) -> HashMap<TableId, Vec<&Commit>> {
        let mut by_table = HashMap::<TableId, Vec<&Commit>>::new();
        for commit in &self.commits {
            by_table.entry(commit.id()).or_default().push(commit);
        }
        by_table
    }

    /// The slices, by table, that only commits cover which do not count, because another run was earlier for a part of
    /// them. They must be read again before those commits are removed.
    pub fn uncovered(&self) -> BTreeMap<TableId, Coverage> {
        let mut uncovered = BTreeMap::<TableId, Coverage>::new();
        if self.superseded.is_empty() {
            return uncovered;
        }
        let mut covered = HashMap::<TableId, Coverage>::new();
        for commit in &self.commits {
            covered.entry(commit.id()).or_default().insert_slice(commit.slice);
        }
        for commit in &self.superseded {
            let covered = covered.entry(commit.id()).or_default();
            let left = match commit.slice.window() {
                Some(window) => covered.missing(window).into_iter().map(Slice::from).collect(),
                None if covered.has_null_time() => Vec::new(),
                None => vec![Slice::NullTime],
            };
            for slice in left {
                uncovered.entry(commit.id()).or_default().insert_slice(slice);
            }
        }
        uncovered
    }

    /// Other runs that are at work now.
    pub fn living<'a>(&'a self, me: &'a str) -> impl Iterator<Item = &'a Heartbeat> {
        self.runs.iter().filter(move |run| run.run != me && run.alive)
    }
}

/// All commits of an archive, each read once, and kept up to date by what this process commits and takes
/// back itself.
#[derive(Debug, Default)]
pub(super) struct IndexCache {
    chunks: Option<Seen<Vec<Arc<Commit>>>>,
    dumps: Option<Seen<Vec<Arc<Commit>>>>,
    run: Option<Seen<Arc<RunEntry>>>,
    tags: Option<Seen<Arc<Hashes>>>,
    loose: BTreeMap<String, Seen<Arc<Commit>>>,
    runs: BTreeMap<String, (String, Heartbeat)>,
    /// What each seal that was begun recorded of the catalog and the artifacts, by the key of the record.
    records: BTreeMap<String, Arc<Hashes>>,
    sealed: bool,
    has_seal: bool,
    unfinished: BTreeSet<String>,
    /// The run of this process.
    me: Option<String>,
    /// Commits whose time this run reads again.
    given_up: HashSet<CommitKey>,
    state: Option<Arc<ArchiveIndex>>,
}

/// The content that was read, with the version of the file and the hash of its bytes.
#[derive(Debug, Clone)]
struct Seen<T> {
    version: String,
    sha256: String,
    value: T,
}

impl IndexCache {
    /// Reads what is new in the store and returns the index as it is now.
    pub(super) async fn look(&mut self, store: &Store) -> Result<Arc<ArchiveIndex>> {
        for look in 1.. {
            self.read(store).await?;
            match self.contradiction() {
                None => break,
                Some(error) if look == LOOKS => return Err(error),
                // Another run may be sealing, so that an old file was read beside a new record.
                Some(_) => {
                    (self.chunks, self.dumps, self.run, self.tags) = (None, None, None, None)
                }
            }
        }
        let state = match self.state.take() {
            Some(state) => state,
            None => Arc::new(self.derive()),
        };
        self.state = Some(Arc::clone(&state));
        Ok(state)
    }

    /// Sets the run of this process, whose own heartbeat tells the time of the store.
    pub(super) fn i_am(&mut self, run: &str) {
        self.me = Some(run.to_owned());
    }

    /// Adds a commit of this process.
    pub(super) fn committed(&mut self, key: String, version: String, commit: Arc<Commit>) {
        self.loose.insert(key, Seen { version, sha256: String::new(), value: commit });
        self.state = None;
    }

    /// Whether a commit is in the catalog, as of the last update.
    pub(super) fn is_catalogued(&self, commit: &Commit) -> bool {
        self.catalog().any(|catalogued| catalogued.key() == commit.key())
    }

    /// The commits in the catalog, of chunks and of dumps.
    fn catalog(&self) -> impl Iterator<Item = &Arc<Commit>> {
        self.chunks.iter().chain(&self.dumps).flat_map(|seen| &seen.value)
    }

    /// Removes a commit that this process has retracted.
    pub(super) fn retracted(&mut self, key: &str) {
        self.loose.remove(key);
        self.state = None;
    }

    /// Makes these commits not count from now on. Commits of this process for their windows replace them.
    pub(super) fn give_up<'a>(&mut self, commits: impl IntoIterator<Item = &'a Commit>) {
        self.given_up.extend(commits.into_iter().map(Commit::key));
        self.state = None;
    }

    /// Makes these commits count again.
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
        // A seal writes the catalog before it removes the commits, so reading in this order misses none.
        let work = store.objects(".moveout").await?;
        let below = |prefix: &'static str| {
            work.iter().filter(move |entry| entry.key.starts_with(prefix)).collect::<Vec<_>>()
        };
        let listed = below(COMMITS);
        let new = listed.iter().filter(|entry| {
            self.loose.get(&entry.key).is_none_or(|known| known.version != entry.version)
        });
        let new = read_commits(store, new.map(|entry| entry.key.clone())).await?;
        let runs = self.read_heartbeats(store, &below(runs::HEARTBEATS)).await?;
        let records = read_records(store, &self.records, &below(RECORDS)).await?;
        let plans = below(runs::PLANS);
        let plans = plans.iter().filter_map(|entry| runs::of_key(&entry.key));
        let heartbeats = runs.keys().filter_map(|key| runs::of_key(key));
        let unfinished: BTreeSet<String> = plans.chain(heartbeats).map(str::to_owned).collect();
        let chunks = reread(store, CHUNKS, &self.chunks, |bytes| {
            // Commits that a seal has just moved into the catalog are shared with the loose ones, to be in memory only once.
            let known = |commit: Commit| match self.loose.get(&commit_key(&commit)) {
                Some(seen) if *seen.value == commit => Arc::clone(&seen.value),
                _ => Arc::new(commit),
            };
            chunks::read_chunks_as(bytes, known).map_err(|error| {
                Error::different(format!("{CHUNKS} cannot be read: {error}"))
                    .hint("the archive is damaged; `moveout verify` names what else is")
            })
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
        // The tag manifest of a sealed archive tells, and an archive that was never sealed has no catalog.
        let has_dumps = match &tags {
            Some(tags) if manifest => tags.value.contains_key(DUMPS),
            _ => chunks.is_some(),
        };
        let read_dumps = |bytes: Bytes| {
            let commits = dumps::read_dumps(&bytes).map_err(|error| {
                Error::different(format!("{DUMPS} cannot be read: {error}"))
                    .hint("the archive is damaged; `moveout verify` names what else is")
            })?;
            Ok(commits.into_iter().map(Arc::new).collect())
        };
        let dumps =
            if has_dumps { reread(store, DUMPS, &self.dumps, read_dumps).await? } else { None };

        // A listing may omit files that exist.
        let listed: HashSet<&str> = listed.iter().map(|entry| entry.key.as_str()).collect();
        let catalogued: HashSet<_> =
            chunks.iter().chain(&dumps).flat_map(|seen| &seen.value).map(|c| c.names()).collect();
        let unlisted = self.loose.iter().filter(|(key, seen)| {
            !listed.contains(key.as_str()) && !catalogued.contains(&seen.value.names())
        });
        let unlisted: Vec<String> = unlisted.map(|(key, _)| key.clone()).collect();
        let unlisted = read_commits(store, unlisted).await?;

        let unchanged = new.is_empty()
            && unlisted.is_empty()
            && self.loose.keys().all(|key| listed.contains(key.as_str()))
            && version(&chunks) == version(&self.chunks)
            && version(&dumps) == version(&self.dumps)
            && version(&run) == version(&self.run)
            && version(&tags) == version(&self.tags)
            && self.sealed == (manifest && tags.is_some())
            && self.has_seal == (manifest || tags.is_some())
            && self.unfinished == unfinished
            && self.records.keys().eq(records.keys())
            && self.runs.values().map(|run| &run.1).eq(runs.values().map(|run| &run.1));
        if !unchanged {
            self.state = None;
        }
        self.loose.retain(|key, _| listed.contains(key.as_str()));
        self.loose.extend(new.into_iter().chain(unlisted));
        self.has_seal = manifest || tags.is_some();
        (self.chunks, self.dumps, self.run) = (chunks, dumps, run);
        self.sealed = manifest && tags.is_some();
        (self.tags, self.runs, self.records, self.unfinished) = (tags, runs, records, unfinished);
        Ok(())
    }

    /// An error if the catalog contradicts the seal. After the seal was removed, the catalog must match what the seal
    /// had recorded, or the record of the next one.
    fn contradiction(&self) -> Option<Error> {
        if self.chunks.is_none() && (self.run.is_some() || self.has_seal) {
            // Without it, nothing would seem committed and all data files would seem abandoned.
            return Some(
                Error::different(format!("{CHUNKS} is missing"))
                    .hint("restore the file, or export into a new archive"),
            );
        }
        let chunks = self.chunks.as_ref().map(|chunks| (CHUNKS, &chunks.sha256));
        let dumps = self.dumps.as_ref().map(|dumps| (DUMPS, &dumps.sha256));
        let run = self.run.as_ref().map(|run| (RUN, &run.sha256));
        let tags = self.tags.iter().filter(|_| self.sealed).map(|tags| &tags.value);
        let said: Vec<&Arc<Hashes>> = if self.sealed {
            tags.collect()
        } else {
            self.records.values().filter(|r| r.contains_key(CHUNKS)).collect()
        };
        if said.is_empty() {
            return None; // nothing was recorded yet, or an older version removed the seal
        }
        let says_dumps = said.iter().any(|said| said.contains_key(DUMPS));
        let mut files = [chunks, dumps, run].into_iter().flatten();
        let differs =
            |(key, hash): &(&str, &String)| said.iter().all(|s| s.get(*key) != Some(*hash));
        match files.find(differs) {
            _ if self.sealed && run.is_none() => Some(damaged(RUN)),
            _ if self.sealed && dumps.is_none() && says_dumps => Some(damaged(DUMPS)),
            found => found.map(|(key, _)| damaged(key)),
        }
    }

    /// Reads the heartbeats of all runs. Beats are dated by the store, so "now" is the last beat of this run. A process
    /// without a heartbeat only reads, and asks the store for the time.
    async fn read_heartbeats(
        &self,
        store: &Store,
        beats: &[&Entry],
    ) -> Result<BTreeMap<String, (String, Heartbeat)>> {
        let mine = self.me.as_deref().map(runs::heartbeat_key);
        let mut found = BTreeMap::new();
        for entry in beats {
            let read = match self.runs.get(&entry.key) {
                Some((version, heartbeat)) if *version == entry.version => Some(heartbeat.clone()),
                _ => store.get(&entry.key).await?.and_then(|b| serde_json::from_slice(&b).ok()),
            };
            let run = runs::of_key(&entry.key).unwrap_or_default();
            // A heartbeat that cannot be read may still belong to a living run.
            let heartbeat: Heartbeat = read
                .filter(|read: &Heartbeat| read.run == run)
                .unwrap_or_else(|| Heartbeat::unknown(run));
            found.insert(entry.key.clone(), (entry.version.clone(), heartbeat));
        }
        let now = match &mine {
            Some(mine) => beats.iter().find(|beat| beat.key == *mine).map(|beat| beat.modified),
            None if found.values().all(|(_, heartbeat)| heartbeat.is_here()) => None,
            None => store.now().await,
        };
        for entry in beats {
            if let Some((_, heartbeat)) = found.get_mut(&entry.key) {
                heartbeat.alive = heartbeat.is_alive(now.map(|now| now - entry.modified));
            }
        }
        Ok(found)
    }

    fn derive(&self) -> ArchiveIndex {
        let catalogued: HashSet<_> = self.catalog().map(|commit| commit.names()).collect();
        let mut commits: Vec<Arc<Commit>> = self.catalog().cloned().collect();
        // A seal that was interrupted after the catalog leaves commits that are in the catalog already.
        let loose = self.loose.values().map(|seen| &seen.value);
        let mut loose: Vec<Arc<Commit>> =
            loose.filter(|commit| !catalogued.contains(&commit.names())).cloned().collect();
        let uncatalogued = !loose.is_empty();
        // Commits in the catalog stay, whatever a clock says. Only loose commits can be too late.
        loose.sort_by(|a, b| a.order().cmp(&b.order()));
        commits.extend(loose);
        let (mut commits, mut superseded) = without_overlaps(commits);
        if !self.given_up.is_empty() {
            let given_up = commits.extract_if(.., |commit| self.given_up.contains(&commit.key()));
            superseded.extend(given_up);
        }
        let replacing =
            commits.iter().filter(|commit| !commit.replaces.is_empty()).cloned().collect();
        ArchiveIndex {
            commits,
            superseded,
            replacing,
            run: self.run.as_ref().map(|run| Arc::clone(&run.value)),
            sealed: self.sealed,
            has_seal: self.has_seal,
            tags: self.tags.as_ref().map(|tags| Arc::clone(&tags.value)).unwrap_or_default(),
            uncatalogued,
            loose: Arc::new(self.loose.keys().cloned().collect()),
            runs: self.runs.values().map(|run| run.1.clone()).collect(),
            unfinished: self.unfinished.clone(),
            records: self.records.values().cloned().collect(),
        }
    }
}

fn version<T>(seen: &Option<Seen<T>>) -> Option<&str> {
    seen.as_ref().map(|seen| seen.version.as_str())
}

/// The error for a file of a sealed archive that has changed since.
pub(super) fn damaged(key: &str) -> Error {
    Error::different(format!("{key} is not what {TAG_MANIFEST} records")).hint(
        "the archive is damaged, and nothing in it was changed: restore this file; `moveout verify` names what \
         else is wrong",
    )
}

/// A file of the seal, which is read again only if it has changed.
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

async fn read_records(
    store: &Store,
    known: &BTreeMap<String, Arc<Hashes>>,
    listed: &[&Entry],
) -> Result<BTreeMap<String, Arc<Hashes>>> {
    let mut records = BTreeMap::new();
    for Entry { key, .. } in listed {
        let record = match known.get(key) {
            Some(record) => Some(Arc::clone(record)),
            None => match store.get(key).await? {
                // A record is named by its hash. An incomplete one was being written by a run that died.
                Some(bytes) if record_key(&bytes) == *key => {
                    Some(Arc::new(bag::read_manifest(key, &bytes)?))
                }
                _ => None,
            },
        };
        records.extend(record.map(|record| (key.clone(), record)));
    }
    Ok(records)
}

/// The key of the record of a seal that is begun.
pub(super) fn record_key(bytes: &[u8]) -> String {
    format!("{RECORDS}{}.txt", sha256(bytes))
}

/// Divides commits into those that count and those that do not. A commit that replaces others wins over them. Otherwise,
/// of two for the same window, the earlier one wins. A later commit can invalidate an earlier one only by naming it, so two
/// runs that read the archive at different moments decide alike. The commits must be sorted by `order`.
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
    kept.sort_by(|one, other| {
        let (one, other): (&Commit, &Commit) = (one.borrow(), other.borrow());
        one.names().cmp(&other.names())
    });
    (kept, lost)
}
