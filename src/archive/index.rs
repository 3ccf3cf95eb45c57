//! The index of an archive at one moment: the commits in the catalog and outside of it, the run that sealed it, and the
//! runs that are at work. `cache` keeps it up to date.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::archive::bag::Hashes;
use crate::archive::commit::{Commit, retracted_key};
use crate::archive::keys::TAG_MANIFEST;
use crate::archive::reads::Segment;
use crate::archive::run_json::RunEntry;
use crate::archive::runs::{Heartbeat, living};
use crate::coverage::Coverage;
use crate::error::Error;
use crate::model::TableId;
use crate::window::Slice;

/// How often the archive is read again if another run seals it meanwhile.
pub(super) const LOOKS: usize = 3;

/// The index of an archive at one moment.
#[derive(Debug, Clone, Default)]
pub struct ArchiveIndex {
    /// All commits that count, in the catalog and of unfinished runs. No two of them overlap.
    pub commits: Vec<Arc<Commit>>,
    /// Commits that do not count, because another one was earlier for the same window or replaces them. They are sorted by
    /// their names, as the commits that count are.
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
    /// All commits outside of the catalog, including those that are in the catalog as well, sorted by their names.
    pub outside: Arc<[Arc<Commit>]>,
    /// Those that lie in files of their own, by the keys of these.
    pub(super) loose: Arc<BTreeMap<String, Arc<Commit>>>,
    /// Those that were folded, by the keys of the segments.
    pub(super) segments: Arc<BTreeMap<String, Segment>>,
    /// Keys of the records of commits that were retracted after they had been folded.
    pub(super) retracted: Arc<BTreeSet<String>>,
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

    /// Whether a commit lies outside of the catalog, so that it is not sealed.
    pub fn is_outside(&self, commit: &Commit) -> bool {
        self.outside.binary_search_by(|other| other.names().cmp(&commit.names())).is_ok()
    }

    /// Whether it has a commit, which may count or not.
    pub(super) fn has(&self, commit: &Commit) -> bool {
        let is_in = |sorted: &[Arc<Commit>]| {
            sorted.binary_search_by(|other| other.names().cmp(&commit.names())).is_ok()
        };
        is_in(&self.commits) || is_in(&self.superseded)
    }

    /// The segments all of whose commits `settled` has, or were retracted.
    pub(super) fn spent_segments<'a>(
        &'a self,
        settled: &'a Self,
    ) -> impl Iterator<Item = &'a String> {
        let is_spent = move |commit: &Arc<Commit>| {
            settled.has(commit) || self.retracted.contains(&retracted_key(commit))
        };
        let spent = move |(_, commits): &(&String, &Segment)| commits.iter().all(is_spent);
        self.segments.iter().filter(spent).map(|(key, _)| key)
    }

    /// Other runs that are at work now.
    pub fn living<'a>(&'a self, me: &'a str) -> impl Iterator<Item = &'a Heartbeat> {
        living(&self.runs, me)
    }
}

/// The error for a file of a sealed archive that has changed since.
pub(super) fn damaged(key: &str) -> Error {
    Error::different(format!("{key} is not what {TAG_MANIFEST} records")).hint(
        "the archive is damaged, and nothing in it was changed: restore this file; `moveout verify` names what \
         else is wrong",
    )
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
