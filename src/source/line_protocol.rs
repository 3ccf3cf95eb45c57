//! Line-protocol files as a source: what `influx_inspect export` (1.x) and `influxd inspect export-lp` (2.x) write,
//! plain or compressed. A file is read once; its sorted points wait in memory or in a temporary file.

mod batches;
mod buffer;
mod cells;
mod header;
mod input;
mod line_error;
mod lines;
mod load;
mod merge;
mod options;
mod parse;
mod schema;
mod spool;
mod tags;
mod text;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use self::batches::Batches;
use self::load::{Loaded, Ready};
use self::merge::Survey;
pub use self::options::{Options, Selects};
use crate::error::{Error, Result};
use crate::model::{
    ArtifactOutcome, Artifacts, Chunk, Listing, ReadSummary, RowCount, SourceInfo, Table,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::window::Window;

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("database", &self.database)
            .field("retention_policy", &self.retention_policy)
            .field("precision_nanos", &self.precision_nanos)
            .field("memory_bytes", &self.memory_bytes)
            .finish_non_exhaustive()
    }
}

/// A line-protocol file.
pub struct LineProtocolSource {
    name: String,
    file: PathBuf,
    options: Options,
    loaded: OnceCell<Arc<Loaded>>,
}

impl LineProtocolSource {
    /// A source called `name` that reads `file`.
    pub fn new(name: String, file: PathBuf, options: Options) -> Self {
        Self { name, file, options, loaded: OnceCell::new() }
    }

    /// Reads the file unless that was done already.
    async fn loaded(&self) -> Result<Arc<Loaded>> {
        let load = || async {
            let (name, file, options) =
                (self.name.clone(), self.file.clone(), self.options.clone());
            let work = move || load::load(&name, &file, &options);
            blocking(work).await.map(Arc::new)
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }

    /// The position of a table among those that were read; an error if it was listed from another file.
    async fn find(&self, table: &Table) -> Result<(Arc<Loaded>, usize)> {
        let loaded = self.loaded().await?;
        let at = loaded.tables.binary_search_by(|ready| ready.table.id.cmp(&table.id));
        let at = at.map_err(|_| {
            Error::stop(format!("{} has no table {}", self.file.display(), table.id))
        })?;
        if table.identity != loaded.tables[at].table.identity {
            return Err(Error::stop(format!(
                "reading {}: {} is not the file that was listed",
                table.id,
                self.file.display()
            ))
            .hint("start a new archive for another file"));
        }
        Ok((loaded, at))
    }
}

#[async_trait]
impl Source for LineProtocolSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let file = self.file.clone();
        blocking(move || input::open(&file).map(drop)).await?;
        Ok(SourceInfo {
            name: self.name.clone(),
            address: format!("lp:{}", self.file.display()),
            version: "line protocol".to_owned(),
            identity: None,
        })
    }

    async fn list(&self) -> Result<Listing> {
        let loaded = self.loaded().await?;
        Ok(Listing {
            tables: loaded.tables.iter().map(|ready| ready.table.clone()).collect(),
            excluded: loaded.excluded.clone(),
            warnings: loaded.warnings.clone(),
            ..Listing::default()
        })
    }

    // The first listing has read the whole file.
    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let mut bounds = Vec::with_capacity(tables.len());
        for table in tables {
            let (loaded, at) = self.find(table).await?;
            bounds.push(loaded.tables[at].bounds());
        }
        Ok(bounds)
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let (loaded, at) = self.find(table).await?;
        let memory_bytes = self.options.memory_bytes / 2;
        let rows = blocking(move || rows(&loaded, at, window, memory_bytes)).await?;
        Ok(RowCount { rows, exact: true })
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let (loaded, at) = self.find(&chunk.table).await?;
        let Some(window) = chunk.slice.window() else {
            return Ok(ReadSummary::default()); // every point has a time
        };
        let table = chunk.table.clone();
        let memory_bytes = self.options.memory_bytes / 2;
        let work = move || send(&loaded, at, &table, window, memory_bytes, batches);
        blocking(work).await.map_err(|error| error.context(format!("reading {chunk}")))?;
        Ok(ReadSummary::default())
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        let loaded = self.loaded().await?;
        let mut artifacts = Artifacts::of(&self.name);
        if loaded.ddl.is_empty() {
            artifacts.ended("ddl", ArtifactOutcome::None);
        } else {
            artifacts.file("", "ddl", "influxql", loaded.ddl.join("\n") + "\n");
            artifacts.ended("ddl", ArtifactOutcome::Saved(String::new()));
        }
        Ok(artifacts)
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::stop(format!("reading the file was abandoned: {error}")))
    })
}

fn rows(loaded: &Loaded, at: usize, window: Window, memory_bytes: usize) -> Result<u64> {
    let ready = &loaded.tables[at];
    match ready.bounds().map(|bounds| (bounds, bounds.intersect(&window))) {
        Some((bounds, Some(inside))) if inside == bounds => return Ok(ready.rows),
        Some((_, Some(_))) => {}
        _ => return Ok(0),
    }
    let survey = Survey::of(window, &loaded.spool, &ready.segments, memory_bytes)?;
    Ok(survey.rows)
}

fn send(
    loaded: &Loaded,
    at: usize,
    table: &Table,
    window: Window,
    memory_bytes: usize,
    sender: BatchSender,
) -> Result<()> {
    let Ready { slots, segments, rows, .. } = &loaded.tables[at];
    let mut batches = Batches::new(table, slots, window, sender)?;
    merge::merge(&loaded.spool, segments, memory_bytes, &mut batches)?;
    if batches.seen != *rows {
        return Err(cells::damaged());
    }
    batches.finish()
}

#[cfg(test)]
mod tests;
