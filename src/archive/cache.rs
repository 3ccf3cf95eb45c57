//! Keeps the index of an archive. Each file is read once. An update costs a listing and a request for each of the four
//! files of the seal, and reads only what is new.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::archive::bag;
use crate::archive::bag::Hashes;
use crate::archive::chunks;
use crate::archive::commit::{Commit, CommitKey, commit_key, retracted_key};
use crate::archive::dumps;
use crate::archive::index::{ArchiveIndex, LOOKS, damaged, without_overlaps};
use crate::archive::keys::{
    CHUNKS, COMMITS, DUMPS, MANIFEST, RECORDS, RETRACTED, RUN, SEGMENTS, TAG_MANIFEST, segment_key,
};
use crate::archive::reads::{
    Heartbeats, Seen, Segment, read_commits, read_heartbeats, read_records, read_segments, reread,
    version,
};
use crate::archive::run_json::RunEntry;
use crate::archive::runs::{self, Heartbeat};
use crate::error::{Error, Result};
use crate::model::TableId;
use crate::store::{Entry, Store};
use crate::window::Slice;

/// A loose commit that may be folded: its key, its version, and what it says.
pub(super) type Foldable = (String, String, Arc<Commit>);

/// All commits of an archive, each read once, and kept up to date by what this process commits and takes
/// back itself.
#[derive(Debug, Default)]
pub(super) struct IndexCache {
    chunks: Option<Seen<Vec<Arc<Commit>>>>,
    dumps: Option<Seen<Vec<Arc<Commit>>>>,
    run: Option<Seen<Arc<RunEntry>>>,
    tags: Option<Seen<Arc<Hashes>>>,
    loose: BTreeMap<String, Seen<Arc<Commit>>>,
    segments: BTreeMap<String, Seen<Segment>>,
    /// The keys of the records of commits that were retracted after they had been folded.
    retracted: BTreeSet<String>,
    /// Loose commits of this process that were acknowledged.
    acknowledged: HashSet<String>,
    /// Commits that are in a segment of this process of which it is not known what became.
    begun: HashSet<CommitKey>,
    /// The number of the next segment of this process.
    next_segment: u32,
    /// Whether it was counted what dead runs left.
    is_counted: bool,
    runs: Heartbeats,
    /// What each seal that was begun recorded of the catalog and the artifacts, by the key of the record.
    records: BTreeMap<String, Arc<Hashes>>,
    sealed: bool,
    has_seal: bool,
    unfinished: BTreeSet<String>,
    /// The run of this process.
    me: Option<String>,
    /// Commits whose time this run reads again.
    given_up: HashMap<TableId, HashSet<(Slice, String)>>,
    state: Option<Arc<ArchiveIndex>>,
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

    /// Adds a loose commit.
    pub(super) fn committed(&mut self, key: String, version: String, commit: Arc<Commit>) {
        self.loose.insert(key, Seen { version, sha256: String::new(), value: commit });
        self.state = None;
    }

    /// Says that a commit of this process is durable and that nothing more is written for it, so that it may be folded.
    pub(super) fn acknowledge(&mut self, key: String) {
        self.acknowledged.insert(key);
    }

    /// Whether there are enough commits to be folded. Those of dead runs are counted once, since no new ones come.
    pub(super) fn is_fold_due(&mut self, commits: usize) -> bool {
        let is_first = !std::mem::replace(&mut self.is_counted, true);
        self.acknowledged.len() >= commits || (is_first && self.loose.len() > commits)
    }

    /// Looks for the loose commits that may be folded: those of this process that were acknowledged, and those of dead
    /// runs.
    pub(super) async fn foldable(&mut self, store: &Store) -> Result<Vec<Foldable>> {
        // Nothing is derived from it, since that costs as much as all that was ever committed.
        self.read(store).await?;
        let me = self.me.as_deref().unwrap_or_default();
        let living: HashSet<&str> = (self.runs.values())
            .filter(|(_, run)| run.alive)
            .map(|(_, run)| run.run.as_str())
            .collect();
        let new = self.loose.iter().filter(|(key, seen)| {
            let run = seen.value.run.as_str();
            self.acknowledged.contains(*key) || (run != me && !living.contains(run))
        });
        let new = new.map(|(key, seen)| (key.clone(), seen.version.clone(), seen.value.clone()));
        Ok(new.collect())
    }

    /// The key of the next segment of this process, which may hold these commits from now on.
    pub(super) fn begin_segment(&mut self, commits: &[Arc<Commit>]) -> String {
        self.begun.extend(commits.iter().map(|commit| commit.key()));
        let key = segment_key(self.me.as_deref().unwrap_or_default(), self.next_segment);
        self.next_segment += 1;
        key
    }

    /// Moves commits from loose files to a segment.
    pub(super) fn folded(
        &mut self,
        key: String,
        version: String,
        commits: Segment,
        loose: &[String],
    ) {
        for commit in commits.iter() {
            self.begun.remove(&commit.key());
        }
        self.found_segment(key, version, commits);
        self.removed(loose);
    }

    /// Adds a segment.
    pub(super) fn found_segment(&mut self, key: String, version: String, commits: Segment) {
        self.segments.insert(key, Seen { version, sha256: String::new(), value: commits });
        self.state = None;
    }

    /// Removes loose commits that are in a segment.
    pub(super) fn removed(&mut self, loose: &[String]) {
        for key in loose {
            self.loose.remove(key);
            self.acknowledged.remove(key);
        }
        self.state = None;
    }

    /// The loose commit under a key, if there is one.
    pub(super) fn loose(&self, key: &str) -> Option<&Arc<Commit>> {
        self.loose.get(key).map(|seen| &seen.value)
    }

    /// Whether a commit is in a segment, or may be, now or later: another run may be folding it, because it is its own, or
    /// because it takes this run for dead.
    pub(super) fn may_be_folded(&self, commit: &Commit) -> bool {
        let is_it = |other: &Arc<Commit>| {
            other.names() == commit.names() && other.committed == commit.committed
        };
        let is_mine = |run: &String| Some(run) == self.me.as_ref();
        !is_mine(&commit.run)
            || !self.unfinished.iter().all(is_mine)
            || self.begun.contains(&commit.key())
            || self.segments.values().any(|segment| segment.value.iter().any(is_it))
    }

    /// Says that a record was written that a folded commit does not count any more.
    pub(super) fn retracted_folded(&mut self, key: String) {
        self.retracted.insert(key);
        self.state = None;
    }

    /// Whether a commit is in the catalog, as of the last update.
    pub(super) fn is_catalogued(&self, commit: &Commit) -> bool {
        self.catalog().any(|catalogued| catalogued.names() == commit.names())
    }

    /// The commits in the catalog, of chunks and of dumps.
    fn catalog(&self) -> impl Iterator<Item = &Arc<Commit>> {
        self.chunks.iter().chain(&self.dumps).flat_map(|seen| &seen.value)
    }

    /// Removes a commit that this process has retracted.
    pub(super) fn retracted(&mut self, key: &str) {
        self.loose.remove(key);
        self.acknowledged.remove(key);
        self.state = None;
    }

    /// Makes these commits not count from now on. Commits of this process for their windows replace them.
    pub(super) fn give_up<'a>(&mut self, commits: impl IntoIterator<Item = &'a Commit>) {
        for commit in commits {
            let (id, slice, run) = commit.key();
            self.given_up.entry(id).or_default().insert((slice, run));
        }
        self.state = None;
    }

    /// Makes these commits count again.
    pub(super) fn keep<'a>(&mut self, commits: impl IntoIterator<Item = &'a Commit>) {
        for commit in commits {
            let (id, slice, run) = commit.key();
            if let Some(of_table) = self.given_up.get_mut(&id) {
                of_table.remove(&(slice, run));
            }
        }
        self.state = None;
    }

    /// The runs whose commits a new one replaces.
    pub(super) fn replaced_by(&self, commit: &Commit) -> Vec<String> {
        let of_table = self.given_up.get(&commit.id());
        let replaced = of_table
            .into_iter()
            .flatten()
            .filter(|(slice, run)| slice.overlaps(commit.slice) && *run != commit.run);
        replaced.map(|(_, run)| run.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Reads nothing but the heartbeats, for a run that waits for others.
    pub(super) async fn look_at_runs(&mut self, store: &Store) -> Result<Vec<Heartbeat>> {
        let listed = store.objects(runs::HEARTBEATS.trim_end_matches('/')).await?;
        let beats: Vec<_> = listed.iter().collect();
        let runs = read_heartbeats(store, &self.runs, &beats, self.me.as_deref()).await?;
        if !self.runs.values().map(|run| &run.1).eq(runs.values().map(|run| &run.1)) {
            self.state = None;
        }
        self.runs = runs;
        Ok(self.runs.values().map(|run| run.1.clone()).collect())
    }

    async fn read(&mut self, store: &Store) -> Result<()> {
        // A commit is moved from a loose file to a segment, and from either to the catalog, and is nowhere removed before it
        // is in its new place. So reading in this order misses none.
        let work = store.objects(".moveout").await?;
        let below = |prefix: &'static str| {
            work.iter().filter(move |entry| entry.key.starts_with(prefix)).collect::<Vec<_>>()
        };
        let listed = below(COMMITS);
        let new = listed.iter().filter(|entry| {
            self.loose.get(&entry.key).is_none_or(|known| known.version != entry.version)
        });
        let new = new.map(|entry| entry.key.clone()).collect();
        let new = read_commits(store, new).await?;
        let listed_at_first = below(SEGMENTS);
        let segments = store.objects(SEGMENTS.trim_end_matches('/')).await?;
        let all_segments: BTreeMap<&str, &Entry> = listed_at_first
            .into_iter()
            .chain(&segments)
            .map(|entry| (entry.key.as_str(), entry))
            .collect();
        let listed_segments: Vec<&Entry> = all_segments.into_values().collect();
        let mut segments = read_segments(store, &self.segments, &listed_segments).await?;
        let mut retracted: BTreeSet<String> =
            below(RETRACTED).into_iter().map(|entry| entry.key.clone()).collect();
        let beats = below(runs::HEARTBEATS);
        let runs = read_heartbeats(store, &self.runs, &beats, self.me.as_deref()).await?;
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
        let mut unlisted: Vec<_> =
            self.loose.iter().filter(|(key, _)| !listed.contains(key.as_str())).collect();
        let all_listed =
            unlisted.is_empty() && self.segments.keys().all(|key| segments.contains_key(key));
        let catalogued = chunks.iter().chain(&dumps).filter(|_| !all_listed);
        let catalogued: HashSet<_> =
            catalogued.flat_map(|seen| &seen.value).map(|commit| commit.names()).collect();
        if !unlisted.is_empty() {
            let folded: HashSet<_> =
                segments.values().flat_map(|seen| seen.value.iter()).map(|c| c.names()).collect();
            unlisted.retain(|(_, seen)| {
                let names = seen.value.names();
                !catalogued.contains(&names) && !folded.contains(&names)
            });
        }
        let unlisted: Vec<String> = unlisted.into_iter().map(|(key, _)| key.clone()).collect();
        let unlisted = read_commits(store, unlisted).await?;
        for (key, seen) in &self.segments {
            let is_sealed = || seen.value.iter().all(|commit| catalogued.contains(&commit.names()));
            if !segments.contains_key(key) && !is_sealed() && store.look(key).await?.is_some() {
                segments.insert(key.clone(), seen.clone());
            }
        }
        for key in self.retracted.iter().filter(|_| !segments.is_empty()) {
            if !retracted.contains(key) && store.look(key).await?.is_some() {
                retracted.insert(key.clone());
            }
        }

        let unchanged = new.is_empty()
            && unlisted.is_empty()
            && self.loose.keys().all(|key| listed.contains(key.as_str()))
            && self.segments.keys().eq(segments.keys())
            && self.retracted == retracted
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
        self.acknowledged.retain(|key| self.loose.contains_key(key));
        (self.segments, self.retracted) = (segments, retracted);
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

    /// All commits outside of the catalog that were not retracted, sorted by their names, each once.
    fn outside(&self) -> Vec<Arc<Commit>> {
        let loose = self.loose.values().map(|seen| &seen.value);
        let folded = self.segments.values().flat_map(|seen| seen.value.iter());
        let mut outside: Vec<Arc<Commit>> = loose.chain(folded).cloned().collect();
        if !self.retracted.is_empty() {
            outside.retain(|commit| !self.retracted.contains(&retracted_key(commit)));
        }
        // Of two commits of one run for one slice the later says what its files are.
        outside
            .sort_by(|a, b| a.names().cmp(&b.names()).then_with(|| b.committed.cmp(&a.committed)));
        outside.dedup_by(|one, kept| one.names() == kept.names());
        outside
    }

    fn derive(&self) -> ArchiveIndex {
        let outside = self.outside();
        let mut commits: Vec<Arc<Commit>> = self.catalog().cloned().collect();
        // A seal that was interrupted after the catalog leaves commits that are in the catalog already.
        let mut new = vec![true; outside.len()];
        if !outside.is_empty() {
            for commit in &commits {
                let found = outside.binary_search_by(|other| other.names().cmp(&commit.names()));
                found.into_iter().for_each(|at| new[at] = false);
            }
        }
        let new = outside.iter().zip(new).filter(|(_, is_new)| *is_new);
        let mut new: Vec<Arc<Commit>> = new.map(|(commit, _)| Arc::clone(commit)).collect();
        let uncatalogued = !new.is_empty();
        // Commits in the catalog stay, whatever a clock says. Only those outside of it can be too late.
        new.sort_by(|a, b| a.order().cmp(&b.order()));
        commits.extend(new);
        let (mut commits, mut superseded) = without_overlaps(commits);
        if !self.given_up.is_empty() {
            let given_up = commits.extract_if(.., |commit| {
                let of_table = self.given_up.get(&commit.id());
                of_table.is_some_and(|all| all.contains(&(commit.slice, commit.run.clone())))
            });
            superseded.extend(given_up);
        }
        superseded.sort_by(|one, other| one.names().cmp(&other.names()));
        let replacing =
            commits.iter().filter(|commit| !commit.replaces.is_empty()).cloned().collect();
        let loose = self.loose.iter().map(|(key, seen)| (key.clone(), Arc::clone(&seen.value)));
        let segments = self.segments.iter().map(|(key, seen)| (key.clone(), seen.value.clone()));
        ArchiveIndex {
            commits,
            superseded,
            replacing,
            run: self.run.as_ref().map(|run| Arc::clone(&run.value)),
            sealed: self.sealed,
            has_seal: self.has_seal,
            tags: self.tags.as_ref().map(|tags| Arc::clone(&tags.value)).unwrap_or_default(),
            uncatalogued,
            outside: outside.into(),
            loose: Arc::new(loose.collect()),
            segments: Arc::new(segments.collect()),
            retracted: Arc::new(self.retracted.clone()),
            runs: self.runs.values().map(|run| run.1.clone()).collect(),
            unfinished: self.unfinished.clone(),
            records: self.records.values().cloned().collect(),
        }
    }
}
