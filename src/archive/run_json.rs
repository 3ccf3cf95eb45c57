//! The content of `catalog/run.json`: the run that sealed the archive and those before it, what they requested, and what
//! they left out and why.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::archive::commit::Commit;
use crate::archive::keys::FORMAT;
use crate::archive::runs::RunPlan;
use crate::coverage::Coverage;
use crate::model::{ArtifactStatus, Excluded, Marker, RowCount, SourceInfo, TableId};
use crate::range::RangeText;
use crate::window::{Slice, Window};

/// The key that every versioned file has.
#[derive(Debug, Deserialize)]
pub struct Format {
    /// The version.
    pub format: u32,
}

/// `catalog/run.json`: the run that sealed the archive, and those that sealed it before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunEntry {
    /// Version of the archive format.
    pub format: u32,
    /// Version of moveout.
    pub moveout: String,
    /// Short id of the run.
    pub run: String,
    /// The range in the words of the user.
    pub range: RangeText,
    /// The sources, without any secret.
    pub sources: Vec<SourceInfo>,
    /// When the run began, RFC 3339.
    pub started: String,
    /// When it sealed the archive; empty if it did not.
    pub ended: String,
    /// What the archive lacks of the sources, and why.
    pub excluded: Vec<Excluded>,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// The outcome for each kind of artifact.
    pub artifacts: Vec<ArtifactStatus>,
    /// The files of all artifacts in the archive, including those of earlier runs. `None` in an archive of an earlier
    /// version and in the records of earlier runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_files: Option<Vec<ArtifactFile>>,
    /// Slices that earlier runs read whole and this one left as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
    /// Which part of each source was requested, by this run and those before it; of sources that only an earlier version
    /// has asked it is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selected: Vec<Selected>,
    /// Tables that their sources no longer list, and whose rows stay in the archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
    /// Warnings that the user should know before trusting the result.
    pub warnings: Vec<String>,
    /// Where the logs of the sources stood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<Marker>,
    /// The windows that this run or an earlier one requested of each table, all of which must be covered.
    #[serde(default, alias = "asked")] // the key of format 1 before its first release
    pub requested: Vec<Requested>,
    /// The earlier runs, oldest first.
    #[serde(default)]
    pub earlier: Vec<RunEntry>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// Its path in the archive.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// The windows that were requested of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The table.
    pub table: TableId,
    /// The requested windows of all runs, merged.
    pub windows: Vec<Window>,
}

impl RunEntry {
    /// Adds an earlier run to the record of this one, which takes over everything that was requested of it.
    pub fn succeed(&mut self, mut last: Self) {
        let mut requested = BTreeMap::<TableId, Coverage>::new();
        for entry in last.requested.drain(..).chain(self.requested.drain(..)) {
            let coverage = requested.entry(entry.table).or_default();
            entry.windows.into_iter().for_each(|window| coverage.insert(window));
        }
        let requested = requested.into_iter();
        self.requested = requested
            .map(|(table, coverage)| Requested { table, windows: coverage.windows().to_vec() })
            .collect();
        let unsealed = std::mem::take(&mut self.earlier);
        self.earlier = std::mem::take(&mut last.earlier);
        last.artifact_files = None; // the files that stay are listed by this run
        last.gone.clear(); // likewise
        for before in std::mem::take(&mut last.selected) {
            match self.selected.iter_mut().find(|now| now.source == before.source) {
                Some(now) => now.widen(before),
                None => self.selected.push(before),
            }
        }
        // A seal that has to start over finds the record that it has written itself.
        if last.run != self.run {
            self.earlier.push(last);
        }
        let known: BTreeSet<String> = self.earlier.iter().map(|run| run.run.clone()).collect();
        self.earlier.extend(unsealed.into_iter().filter(|run| !known.contains(&run.run)));
    }
}

/// Rows that a table has outside of the requested range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The table.
    pub table: TableId,
    /// The window in which they lie, up to the first or last of them.
    pub window: Window,
    /// How many.
    pub count: RowCount,
}

impl From<RunPlan> for RunEntry {
    /// The record of a run that did not end.
    fn from(plan: RunPlan) -> Self {
        Self {
            format: FORMAT,
            moveout: env!("CARGO_PKG_VERSION").to_owned(),
            run: plan.run,
            range: plan.range.unwrap_or_default(),
            sources: plan.sources,
            started: plan.started,
            ended: String::new(),
            excluded: Vec::new(),
            outside: Vec::new(),
            artifacts: Vec::new(),
            artifact_files: None,
            kept: Vec::new(),
            selected: Vec::new(),
            gone: Vec::new(),
            warnings: Vec::new(),
            markers: Vec::new(),
            requested: Vec::new(),
            earlier: Vec::new(),
        }
    }
}

impl RunEntry {
    /// All runs, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = &Self> {
        self.earlier.iter().chain([self])
    }
}

/// Which part of a source was requested. Empty lists mean everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// The source.
    pub source: String,
    /// Names of databases.
    pub databases: Vec<String>,
    /// Patterns of schemas or retention policies.
    pub schemas: Vec<String>,
    /// Patterns of tables.
    pub tables: Vec<String>,
    /// Patterns of tables that were left out by the last run.
    pub exclude: Vec<String>,
}

impl Selected {
    /// Takes in what an earlier run requested.
    fn widen(&mut self, before: Self) {
        let pairs = [
            (&mut self.databases, before.databases),
            (&mut self.schemas, before.schemas),
            (&mut self.tables, before.tables),
        ];
        for (now, before) in pairs {
            if now.is_empty() || before.is_empty() {
                now.clear();
            } else {
                let more = before.into_iter().filter(|name| !now.contains(name));
                let more: Vec<String> = more.collect();
                now.extend(more);
            }
        }
    }
}

/// A table that its source no longer lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The table.
    pub table: TableId,
    /// When a run found that for the first time, RFC 3339.
    pub since: String,
    /// What an earlier run had requested of it and nobody had exported when it went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Window>,
}

/// The window from the first to the last covered instant, if rows are known outside of what is covered; `None` if the
/// archive has all known rows.
pub fn covers<'a, C: Borrow<Commit>>(
    mut outside: impl Iterator<Item = &'a Outside>,
    commits: &[C],
) -> Option<Window> {
    let mut coverage = HashMap::<TableId, Coverage>::new();
    for commit in commits.iter().map(Borrow::borrow) {
        coverage.entry(commit.id()).or_default().insert_slice(commit.slice);
    }
    let nothing = Coverage::default();
    let is_left = |outside: &Outside| {
        let coverage = coverage.get(&outside.table).unwrap_or(&nothing);
        !coverage.missing(outside.window).is_empty()
    };
    if !outside.any(is_left) {
        return None;
    }
    let windows = commits.iter().filter_map(|commit| match commit.borrow().slice {
        Slice::Window(window) => Some(window),
        Slice::All | Slice::NullTime => None,
    });
    windows
        .reduce(|all, window| Window { from: all.from.min(window.from), to: all.to.max(window.to) })
}

/// A slice that was read whole by an earlier run and was not read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The table.
    pub table: TableId,
    /// `all` or `null-time`.
    pub slice: Slice,
    /// When it was read, RFC 3339.
    pub as_of: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_seals_twice_is_not_among_the_earlier_ones() {
        let record = |run: &str| {
            RunEntry::from(RunPlan {
                run: run.to_owned(),
                started: String::new(),
                range: None,
                sources: Vec::new(),
                tables: Vec::new(),
                lost: Vec::new(),
            })
        };
        let seal = |last: RunEntry| {
            let mut run = record("new");
            run.earlier = vec![record("killed")];
            run.succeed(last);
            run
        };
        let once = seal(record("old"));
        let twice = seal(once.clone());
        let runs = |run: &RunEntry| -> Vec<String> {
            run.earlier.iter().map(|run| run.run.clone()).collect()
        };
        assert_eq!(runs(&once), ["old", "killed"]);
        assert_eq!(runs(&twice), ["old", "killed"]);
    }
}
