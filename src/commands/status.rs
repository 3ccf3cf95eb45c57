//! The verb `status`: says what an archive covers and what its unfinished runs still have to do. It reads commits and
//! plans, and never a source.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::archive::catalog::{self, TableEntry};
use crate::archive::dumps::{DumpEntry, dumps};
use crate::archive::run_json::covers;
use crate::archive::runs::RunPlan;
use crate::archive::{Archive, LastVerdict};
use crate::config::Location;
use crate::coverage::Coverage;
use crate::error::Result;
use crate::export::summary::SourceStatus;
use crate::model::{SourceInfo, TableId, Verdict};
use crate::window::Window;

/// What an archive covers, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Always `status`.
    pub command: &'static str,
    /// Where the archive is.
    pub archive: String,
    /// Whether it is sealed.
    pub sealed: bool,
    /// The window from the first to the last covered instant, if rows are known outside of it.
    pub covers: Option<Window>,
    /// The last verdict on it, if one is recorded.
    pub verdict: Option<VerdictStatus>,
    /// The sources of its tables, and those that its unfinished runs were to read.
    pub sources: Vec<SourceState>,
    /// Runs at work now.
    pub runs: Vec<String>,
    /// Rows of all tables.
    pub rows: u64,
    /// Bytes of all data files.
    pub bytes: u64,
    /// Chunks of all tables.
    pub chunks: usize,
    /// The native dumps that the archive has.
    pub dumps: Vec<DumpEntry>,
    /// The native dumps that a run was to take and that are not in the archive, each with its source.
    pub missing_dumps: Vec<TableId>,
    /// Every table that is in the archive or that a run was to read.
    pub tables: Vec<TableStatus>,
}

/// The result of the last comparison with the sources.
#[derive(Debug, Serialize)]
pub struct VerdictStatus {
    /// The verdict; `None` if the record cannot be read.
    pub verdict: Option<Verdict>,
    /// When the last source had answered, RFC 3339.
    pub ended: Option<String>,
    /// The depth that was requested.
    pub depth: Option<String>,
    /// The number of open points.
    pub open: usize,
    /// The number of chunks that the next export reads again.
    pub stale: usize,
    /// Whether it holds for the archive as it is now.
    pub valid: bool,
    /// Why it does not hold.
    pub why: Option<String>,
}

impl VerdictStatus {
    fn of(last: LastVerdict) -> Option<Self> {
        let LastVerdict { record, invalid: why, .. } = last;
        if record.is_none() && why.is_none() {
            return None;
        }
        let (valid, record) = (why.is_none(), record.as_ref());
        Some(Self {
            verdict: record.map(|record| record.verdict),
            ended: record.map(|record| record.ended.clone()),
            depth: record.map(|record| record.depth.clone()),
            open: record.map_or(0, |record| record.open.len()),
            stale: record.map_or(0, |record| record.stale.len()),
            valid,
            why,
        })
    }
}

/// The state of one source in an archive.
#[derive(Debug, Serialize)]
pub struct SourceState {
    /// The description from the last time that it answered, without address and version if it never has.
    #[serde(flatten)]
    pub info: SourceInfo,
    /// Whether the archive has everything that was requested of the source.
    pub state: SourceStatus,
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Why the last run that was to read it went on without it.
    pub error: Option<String>,
}

/// The state of one table in an archive.
#[derive(Debug, Serialize)]
pub struct TableStatus {
    /// The table.
    pub table: TableId,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// The windows that are committed.
    pub covered: Vec<Window>,
    /// The windows that unfinished runs requested and that are not committed.
    pub missing: Vec<Window>,
}

/// Reads the status of an archive.
pub async fn status(place: &Location) -> Result<Status> {
    let archive = Archive::open(place).await?;
    let state = archive.state().await?;
    let mut tables = BTreeMap::<TableId, TableStatus>::new();
    for entry in catalog::tables(&state.commits) {
        let status = table_status(entry);
        tables.insert(status.table.clone(), status);
    }
    let plans = archive.plans().await?;
    let runs = || state.run.iter().flat_map(|run| run.runs());
    let mut sources = sources(runs().flat_map(|run| &run.sources), &plans);
    let dumps = dumps(&state.commits);
    let mut missing_dumps = BTreeSet::new();
    for planned in plans.into_iter().flat_map(|plan| plan.tables) {
        if planned.id.is_dump() {
            let is_it = |dump: &DumpEntry| TableId::dump(&dump.source, &dump.name) == planned.id;
            if !dumps.iter().any(is_it) {
                missing_dumps.insert(planned.id);
            }
            continue;
        }
        let status = tables.entry(planned.id.clone()).or_insert_with(|| TableStatus {
            table: planned.id,
            rows: 0,
            bytes: 0,
            files: 0,
            covered: Vec::new(),
            missing: Vec::new(),
        });
        let covered: Coverage = status.covered.iter().copied().collect();
        let missing =
            planned.requested.into_iter().flat_map(|requested| covered.missing(requested));
        // Several unfinished runs may have requested the same windows.
        let all: Coverage = missing.chain(status.missing.iter().copied()).collect();
        status.missing = all.windows().to_vec();
    }
    for dump in &dumps {
        let source = sources.entry(dump.source.clone());
        source.or_insert_with(|| SourceState::new(&dump.source)).bytes += dump.bytes;
    }
    for missing in &missing_dumps {
        let source = sources.entry(missing.source.clone());
        let source = source.or_insert_with(|| SourceState::new(&missing.source));
        source.state = source.state.min(SourceStatus::Incomplete);
    }
    for table in tables.values() {
        let name = table.table.source.as_str();
        let source = sources.entry(name.to_owned()).or_insert_with(|| SourceState::new(name));
        source.tables += 1;
        source.rows += table.rows;
        source.bytes += table.bytes;
        if !table.missing.is_empty() {
            source.state = source.state.min(SourceStatus::Incomplete);
        }
    }
    Ok(Status {
        command: "status",
        archive: place.url.clone(),
        sealed: state.sealed && !state.uncatalogued,
        verdict: VerdictStatus::of(archive.verdict_of(&state).await?),
        covers: covers(runs().flat_map(|run| &run.outside), &state.commits),
        sources: sources.into_values().collect(),
        runs: state.living("").map(|run| format!("{} since {}", run.run, run.started)).collect(),
        rows: state.commits.iter().map(|commit| commit.rows).sum(),
        bytes: tables.values().map(|table| table.bytes).sum(),
        chunks: state.commits.iter().filter(|commit| commit.dump.is_none()).count(),
        dumps,
        missing_dumps: missing_dumps.into_iter().collect(),
        tables: tables.into_values().collect(),
    })
}

/// The sources of all runs by name, with what the newest unfinished run says about each.
fn sources<'a>(
    sealed: impl Iterator<Item = &'a SourceInfo>,
    plans: &[RunPlan],
) -> BTreeMap<String, SourceState> {
    let mut sources = BTreeMap::<String, SourceState>::new();
    let mut plans: Vec<&RunPlan> = plans.iter().collect();
    plans.sort_by_key(|plan| &plan.run); // by time
    let asked = |info: &SourceInfo| (info.name.clone(), SourceState::of(info.clone()));
    sources.extend(sealed.map(asked));
    for plan in plans {
        sources.extend(plan.sources.iter().map(asked));
        for lost in &plan.lost {
            let name = &lost.source;
            let source = sources.entry(name.clone()).or_insert_with(|| SourceState::new(name));
            source.state = SourceStatus::Failed;
            source.error = Some(lost.why.clone());
        }
    }
    sources
}

impl SourceState {
    fn of(info: SourceInfo) -> Self {
        let state = SourceStatus::Complete;
        Self { info, state, tables: 0, rows: 0, bytes: 0, error: None }
    }

    fn new(name: &str) -> Self {
        let (address, version) = (String::new(), String::new());
        Self::of(SourceInfo { name: name.to_owned(), address, version, identity: None })
    }
}

fn table_status(entry: TableEntry) -> TableStatus {
    TableStatus {
        table: TableId {
            source: entry.source,
            database: entry.database,
            schema: entry.schema,
            table: entry.table,
        },
        rows: entry.rows,
        bytes: entry.bytes,
        files: entry.files,
        covered: entry.covered,
        missing: Vec::new(),
    }
}
