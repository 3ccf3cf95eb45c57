//! PURE: what the archive has of each source, and how that was compared.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::archive::dumps::DumpEntry;
use crate::model::{ArtifactStatus, Excluded, Level, SourceInfo};
use crate::report::facts::Facts;
use crate::text::escaped;

/// What the archive has of one source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// What it said of itself when it was asked last; without address and version where it is not recorded.
    #[serde(flatten)]
    pub info: SourceInfo,
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// How many chunks were compared with the source, by level; none without a valid proof.
    pub compared: BTreeMap<Level, LevelCount>,
    /// The runs that read it, oldest first.
    pub runs: Vec<RunOf>,
    /// What became of each kind of artifact.
    pub artifacts: Vec<ArtifactStatus>,
    /// The native dumps of it.
    pub dumps: Vec<DumpEntry>,
    /// What it has and the archive has not, and why.
    pub excluded: Vec<Excluded>,
    /// Rows that it has outside of the requested range.
    pub outside: Vec<OutsideOf>,
}

/// Chunks that were compared in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LevelCount {
    /// All of them.
    pub chunks: u64,
    /// Those that are different.
    pub different: u64,
}

/// A run that read a source.
#[derive(Debug, Clone, Serialize)]
pub struct RunOf {
    /// Its short id.
    pub run: String,
    /// The version of moveout.
    pub moveout: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it sealed the archive; empty where it did not.
    pub ended: String,
    /// The begin of the range, as it was asked for.
    pub from: String,
    /// The end.
    pub to: String,
}

/// Rows of a table that were not requested.
#[derive(Debug, Clone, Serialize)]
pub struct OutsideOf {
    /// The table.
    pub table: String,
    /// Where they lie.
    pub window: String,
    /// How many.
    pub rows: u64,
    /// Whether there may be more.
    pub at_least: bool,
}

pub(super) fn sources(facts: &Facts<'_>) -> Vec<SourceReport> {
    let mut sources = BTreeMap::<&str, SourceReport>::new();
    let runs = || facts.run.iter().flat_map(|run| run.runs());
    for info in runs().flat_map(|run| &run.sources) {
        sources.insert(&info.name, SourceReport::of(info.clone()));
    }
    for info in facts.plans.iter().flat_map(|plan| &plan.sources) {
        sources.entry(&info.name).or_insert_with(|| SourceReport::of(info.clone()));
    }
    let mut last = None;
    for commit in facts.sorted() {
        let name = commit.source.as_str();
        let source = sources.entry(name).or_insert_with(|| SourceReport::new(name));
        if let Some(dump) = DumpEntry::of(commit) {
            source.dumps.push(dump);
            continue;
        }
        let table = (name, &commit.database, &commit.schema, &commit.table);
        source.tables += u64::from(last.replace(table) != Some(table));
        source.rows += commit.rows;
        source.bytes += commit.files.iter().map(|file| file.bytes).sum::<u64>();
        source.chunks += 1;
    }
    for compared in facts.valid().iter().flat_map(|record| &record.compared) {
        let Some(source) = sources.get_mut(compared.table.source.as_str()) else { continue };
        let level = source.compared.entry(compared.level).or_default();
        level.chunks += compared.chunks;
        level.different += compared.different;
    }
    for run in runs() {
        for info in &run.sources {
            let Some(source) = sources.get_mut(info.name.as_str()) else { continue };
            source.runs.push(RunOf {
                run: run.run.clone(),
                moveout: run.moveout.clone(),
                started: run.started.clone(),
                ended: run.ended.clone(),
                from: run.range.from.clone(),
                to: run.range.to.clone(),
            });
        }
    }
    let Some(run) = facts.run else { return sources.into_values().collect() };
    for artifact in &run.artifacts {
        if let Some(source) = sources.get_mut(artifact.source.as_str()) {
            source.artifacts.push(artifact.clone());
        }
    }
    for excluded in &run.excluded {
        let source = sources.entry(&excluded.source);
        source
            .or_insert_with(|| SourceReport::new(&excluded.source))
            .excluded
            .push(excluded.clone());
    }
    for outside in &run.outside {
        if let Some(source) = sources.get_mut(outside.table.source.as_str()) {
            source.outside.push(OutsideOf {
                table: outside.table.to_string(),
                window: outside.window.for_people(),
                rows: outside.count.rows,
                at_least: !outside.count.exact,
            });
        }
    }
    sources.into_values().collect()
}

impl SourceReport {
    pub(super) fn new(name: &str) -> Self {
        let (address, version) = (String::new(), String::new());
        Self::of(SourceInfo { name: name.to_owned(), address, version, identity: None })
    }

    fn of(info: SourceInfo) -> Self {
        let shown = |text: &str| escaped(text).to_string();
        let (address, version) = (shown(&info.address), shown(&info.version));
        Self {
            info: SourceInfo { address, version, ..info },
            tables: 0,
            rows: 0,
            bytes: 0,
            chunks: 0,
            compared: BTreeMap::new(),
            runs: Vec::new(),
            artifacts: Vec::new(),
            dumps: Vec::new(),
            excluded: Vec::new(),
            outside: Vec::new(),
        }
    }
}
