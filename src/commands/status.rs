//! The verb `status`: what an archive covers and what its unfinished runs still have to do. Reads
//! commits and plans, never a source.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::archive::Archive;
use crate::archive::catalog::{self, TableEntry};
use crate::archive::run_json::covers;
use crate::config::Location;
use crate::coverage::Coverage;
use crate::error::Result;
use crate::model::{SourceInfo, TableId};
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
    /// From the first to the last instant that it covers, where rows are known outside of that.
    pub covers: Option<Window>,
    /// The sources that it has tables of, as they were when they were last asked.
    pub sources: Vec<SourceInfo>,
    /// Runs at work now.
    pub runs: Vec<String>,
    /// Rows of all tables.
    pub rows: u64,
    /// Bytes of all data files.
    pub bytes: u64,
    /// Chunks of all tables.
    pub chunks: usize,
    /// Every table that the archive has or that a run set out to get.
    pub tables: Vec<TableStatus>,
}

/// What an archive covers of one table.
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
    /// The time that is committed.
    pub covered: Vec<Window>,
    /// The time that unfinished runs asked for and that is not committed.
    pub missing: Vec<Window>,
}

/// Looks at an archive.
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
    let infos = runs().flat_map(|run| &run.sources).chain(plans.iter().flat_map(|p| &p.sources));
    let sources: BTreeMap<&str, &SourceInfo> =
        infos.map(|info| (info.name.as_str(), info)).collect();
    let sources = sources.into_values().cloned().collect();
    for planned in plans.into_iter().flat_map(|plan| plan.tables) {
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
        // Several unfinished runs may have asked for the same.
        let all: Coverage = missing.chain(status.missing.iter().copied()).collect();
        status.missing = all.windows().to_vec();
    }
    Ok(Status {
        command: "status",
        archive: place.url.clone(),
        sealed: state.sealed && !state.uncatalogued,
        covers: covers(runs().flat_map(|run| &run.outside), &state.commits),
        sources,
        runs: state.living("").map(|run| format!("{} since {}", run.run, run.started)).collect(),
        rows: state.commits.iter().map(|commit| commit.rows).sum(),
        bytes: tables.values().map(|table| table.bytes).sum(),
        chunks: state.commits.len(),
        tables: tables.into_values().collect(),
    })
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
