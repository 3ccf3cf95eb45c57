//! A table that turned out to be another than was listed, while the run is at work: list again, and do again
//! what was written as it seemed before.

use std::sync::Arc;

use super::Run;
use crate::error::{Error, Result};
use crate::plan::{asked, same_state};
use crate::source::{Chunk, TableId};
use crate::window::{Window, now};

/// How often a table may be listed again without a change that explains why.
const STRIKES: u32 = 5;

/// From the begin of the earlier to the end of the later.
fn union(one: Option<Window>, other: Option<Window>) -> Option<Window> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Window { from: one.from.min(other.from), to: one.to.max(other.to) })
        }
        (one, other) => one.or(other),
    }
}

impl Run<'_> {
    /// A column came while the run was at work, or a type was too narrow: list anew and read the chunk with
    /// what is known then.
    pub(super) async fn relist(&mut self, at: usize, chunk: &Chunk, error: Error) -> Result<()> {
        if self.queue.table(at).columns != chunk.table.columns {
            // Another chunk was first, and this one was still read the old way.
            self.queue.give_back(at, &[chunk.slice]);
            return Ok(());
        }
        let source = Arc::clone(self.source(at));
        let (retry, of) = (&self.retry, source.name());
        let listing = retry.with_retry(of, || source.list()).await?;
        // Only a source that reads snapshots may have got a newer one by listing; asking others costs.
        let bounds = match listing.tables.iter().any(|table| table.time_column.is_some()) {
            true => Some(retry.with_retry(of, || source.bounds(&listing.tables)).await?),
            false => None,
        };
        let tables: Vec<Arc<_>> = listing.tables.into_iter().map(Arc::new).collect();
        let before: Vec<_> = (0..self.queue.len()).map(|at| self.queue.table(at).clone()).collect();
        self.queue.relisted(&tables);
        for surveyed in &mut self.survey.tables {
            let Some(found) = tables.iter().position(|table| table.id == surveyed.table.id) else {
                continue;
            };
            let table = &tables[found];
            same_state(table, surveyed.table.state.as_deref())?;
            surveyed.table = Arc::clone(table);
            // Under a newer state there may be rows beyond the old bounds; the seal looks for gaps.
            if let Some(bounds) = bounds.as_ref().map(|bounds| bounds[found]) {
                let asked = asked(table, bounds, self.job.from, self.job.to, now());
                surveyed.asked = union(surveyed.asked, asked);
                surveyed.bounds = union(surveyed.bounds, bounds);
            }
        }
        for (other, before) in before.iter().enumerate() {
            if self.queue.table(other).is_retyped(before) {
                self.redo(other, &before.id).await?;
            }
        }
        self.queue.give_back(at, &[chunk.slice]);
        if self.queue.table(at).columns == chunk.table.columns {
            // Nothing was learned: of that there must be an end.
            let strikes = self.strikes.entry(chunk.table.id.clone()).or_default();
            *strikes += 1;
            if *strikes > STRIKES {
                return Err(error
                    .context(chunk)
                    .hint("stop the writers first: its columns keep changing"));
            }
        }
        Ok(())
    }

    /// All files that a run writes of a table have one schema, so what it wrote with another is done again.
    async fn redo(&mut self, at: usize, table: &TableId) -> Result<()> {
        let state = self.archive.state().await?;
        let surveyed = self.surveyed[at];
        for commit in state.commits.iter().filter(|commit| commit.id() == *table) {
            // What is committed and not settled yet comes back by itself.
            if !self.settled.remove(&(surveyed, commit.slice)) {
                continue;
            }
            self.archive.retract(commit).await?;
            self.summary.chunks = self.summary.chunks.saturating_sub(1);
            self.summary.rows = self.summary.rows.saturating_sub(commit.rows);
            let bytes: u64 = commit.files.iter().map(|file| file.bytes).sum();
            self.summary.bytes = self.summary.bytes.saturating_sub(bytes);
            self.queue.give_back(at, &[commit.slice]);
        }
        Ok(())
    }
}
