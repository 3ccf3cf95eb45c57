//! A table that turned out to be another than was listed, while the run is at work: list again, and do again
//! what was written as it seemed before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::export::run::Run;
use crate::model::{Chunk, TableId};
use crate::range::requested;
use crate::survey::division::same_division;
use crate::window::{Slice, Window, now};

/// How often a table may be listed again without a change that explains why.
const STRIKES: u32 = 5;

/// From the begin of the earlier to the end of the later.
pub(super) fn union(one: Option<Window>, other: Option<Window>) -> Option<Window> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Window { from: one.from.min(other.from), to: one.to.max(other.to) })
        }
        (one, other) => one.or(other),
    }
}

impl Run<'_> {
    /// A table is not what was listed: a column came, a type was too narrow, another table has its name. Lists anew,
    /// and reads with what is known then what was read as it seemed before.
    pub(super) async fn relist(&mut self, at: usize, chunk: &Chunk, error: Error) -> Result<()> {
        if self.queue.table(at).columns != chunk.table.columns {
            // Another chunk was first, and this one was still read the old way.
            self.queue.requeue(at, &[chunk.slice]);
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
        let places: HashMap<_, _> =
            tables.iter().enumerate().map(|(at, table)| (&table.id, at)).collect();
        for surveyed in &mut self.survey.tables {
            let Some(&found) = places.get(&surveyed.table.id) else { continue };
            let table = &tables[found];
            surveyed.table = Arc::clone(table);
            // Under a newer state there may be rows beyond the old bounds; the seal looks for gaps.
            if let Some(bounds) = bounds.as_ref().map(|bounds| bounds[found]) {
                let requested = requested(table, bounds, self.job.from, self.job.to, now());
                surveyed.requested = union(surveyed.requested, requested);
                surveyed.bounds = union(surveyed.bounds, bounds);
            }
        }
        let mut replaced = HashSet::new();
        for (other, before) in before.iter().enumerate() {
            if self.queue.table(other).is_another(before) {
                let is_first = replaced.insert(before.id.clone());
                self.restart(other, is_first).await?;
            } else if self.queue.table(other).is_retyped(before) {
                let slices = self.retract(other, &before.id).await?;
                self.queue.requeue(other, &slices);
            }
        }
        if replaced.contains(&chunk.table.id) {
            return Ok(()); // all of it is to be read again
        }
        if !places.contains_key(&chunk.table.id) {
            let unreadable = listing.unreadable.iter().find(|(id, _)| *id == chunk.table.id);
            let why = unreadable.map_or("it is not there any more", |(_, why)| why);
            let lost = Error::fail(format!("{error}; {why}"));
            self.fail(chunk, &lost.hint("it was dropped or renamed while the run was at work"));
            self.queue.restart(at, Vec::new(), false);
            return Ok(());
        }
        self.queue.requeue(at, &[chunk.slice]);
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

    /// Another table has the name of this one: nothing that this run has read of the one says anything of the other,
    /// so that all of it is read anew. What is in flight is thrown away when it lands. A table may stand in the
    /// queue several times; the first entry gets it all.
    async fn restart(&mut self, at: usize, is_first: bool) -> Result<()> {
        let table = Arc::clone(self.queue.table(at));
        self.writer.progress.note(&format!(
            "{}: the table was replaced, altered or rewritten while the run was at work; it is read anew",
            table.id
        ));
        self.retract(at, &table.id).await?;
        let state = self.archive.state().await?;
        let of_table = state.commits.iter().filter(|commit| commit.id() == table.id);
        let earlier: Vec<_> = of_table.filter(|commit| commit.run != self.writer.run).collect();
        let (mut todo, mut null_time) = (Vec::new(), false);
        if is_first {
            let coverage: Coverage = earlier.iter().map(|commit| commit.slice).collect();
            (todo, null_time) = self.survey.tables[self.surveyed[at]].left(&coverage);
        }
        // Earlier runs may have divided it in another way; then windows of both would overlap.
        let divided =
            earlier.iter().try_for_each(|commit| same_division(&table, commit.state.as_deref()));
        if let Err(error) = divided {
            let slice = todo.first().copied().map_or(Slice::NullTime, Slice::from);
            self.fail(&Chunk { table, slice }, &error);
            (todo, null_time) = (Vec::new(), false);
        }
        self.queue.restart(at, todo, null_time);
        Ok(())
    }

    /// Takes back what this run has committed of a table, and says which slices that were. All files that a run
    /// writes of a table have one schema, and are of one table.
    async fn retract(&mut self, at: usize, table: &TableId) -> Result<Vec<Slice>> {
        let state = self.archive.state().await?;
        let surveyed = self.surveyed[at];
        let mut slices = Vec::new();
        for commit in state.commits.iter().filter(|commit| commit.id() == *table) {
            // What is committed and not settled yet comes back by itself.
            if self.settled.contains_key(&(surveyed, commit.slice)) {
                self.uncount(surveyed, commit).await?;
                slices.push(commit.slice);
            }
        }
        Ok(slices)
    }

    /// Takes a commit out of the archive, and out of what this run did if it was its own.
    pub(super) async fn uncount(&mut self, surveyed: usize, commit: &Commit) -> Result<()> {
        self.archive.retract(commit).await?;
        if self.settled.remove(&(surveyed, commit.slice)).is_some() {
            self.summary.chunks = self.summary.chunks.saturating_sub(1);
            self.summary.rows = self.summary.rows.saturating_sub(commit.rows);
            let bytes: u64 = commit.files.iter().map(|file| file.bytes).sum();
            self.summary.bytes = self.summary.bytes.saturating_sub(bytes);
        }
        Ok(())
    }
}
