//! Handles a table that turns out to differ from the listing: its source is listed again, and what was read under the old
//! listing is read again if necessary.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::export::again::is_alike;
use crate::export::listed::{Listed, Relisting};
use crate::export::run::Run;
use crate::model::{Chunk, Listing, TableId};
use crate::range::{requested, union};
use crate::survey::division::same_division;
use crate::window::{Slice, now_micros};

/// How often a table may be listed again without a change that explains why.
const STRIKES: u32 = 5;

impl Run<'_> {
    /// Notes that a table differs from the listing: it has a new column, a type was too narrow, or another table has its
    /// name. Its source is to be listed again, and nothing new is read of it before that.
    pub(super) fn relist(&mut self, at: usize, chunk: Chunk, error: Error) {
        if self.queue.table(at).columns != chunk.table.columns {
            // Another chunk has already caused a new listing, while this one was still read under the old one.
            self.queue.requeue(at, &[chunk.slice]);
            return;
        }
        let source = chunk.table.id.source.clone();
        self.relisting.entry(source).or_default().push(Relisting { at, chunk, error });
    }

    /// Takes over a new listing of a source, and queues again what must be read again.
    pub(super) async fn relisted(&mut self, source: &str, listed: Result<Listed>) -> Result<()> {
        let waiting = self.relisting.remove(source).unwrap_or_default();
        if self.survey.is_lost(source) {
            return Ok(());
        }
        let (mut listing, bounds) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.lose(source, error),
        };
        let tables: Vec<Arc<_>> =
            std::mem::take(&mut listing.tables).into_iter().map(Arc::new).collect();
        let before: Vec<_> = (0..self.queue.len()).map(|at| self.queue.table(at).clone()).collect();
        self.queue.relisted(&tables);
        let places: HashMap<_, _> =
            tables.iter().enumerate().map(|(at, table)| (&table.id, at)).collect();
        for surveyed in &mut self.survey.tables {
            let Some(&found) = places.get(&surveyed.table.id) else { continue };
            let table = &tables[found];
            surveyed.table = Arc::clone(table);
            // A newer snapshot may have rows beyond the old bounds, for which the seal looks.
            if let Some(bounds) = bounds.as_ref().map(|bounds| bounds[found]) {
                let requested = requested(table, bounds, self.job.from, self.job.to, now_micros());
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
        for Relisting { at, chunk, error } in waiting {
            if !replaced.contains(&chunk.table.id) {
                self.go_on_with(at, &chunk, error, &places, &listing)?;
            }
        }
        Ok(())
    }

    /// Puts a chunk that waited for a new listing back into the queue.
    fn go_on_with(
        &mut self,
        at: usize,
        chunk: &Chunk,
        error: Error,
        places: &HashMap<&TableId, usize>,
        listing: &Listing,
    ) -> Result<()> {
        if !places.contains_key(&chunk.table.id) {
            let unreadable = listing.unreadable.iter().find(|(id, _)| *id == chunk.table.id);
            let why = unreadable.map_or("the table does not exist any more", |(_, why)| why);
            let lost = Error::fail(format!("{error}; {why}"));
            self.fail(
                chunk,
                &lost.hint("the table was dropped or renamed while the run was at work"),
            );
            self.queue.restart(at, Vec::new(), false);
            return Ok(());
        }
        self.queue.requeue(at, &[chunk.slice]);
        if self.queue.table(at).columns == chunk.table.columns {
            // The listing has not changed, so the next attempt may fail in the same way. The number of attempts is limited.
            let strikes = self.strikes.entry(chunk.table.id.clone()).or_default();
            *strikes += 1;
            if *strikes > STRIKES {
                let error = error
                    .context(chunk)
                    .hint("the columns of the table keep changing: stop the writers first");
                return self.lose(&chunk.table.id.source, error);
            }
        }
        Ok(())
    }

    /// Another table has the name of this one. What this run has read of the old one says nothing about the new one, so
    /// all of the new one is read. Chunks in flight are discarded when they end. A table may have several entries in the
    /// queue, the first of which gets all the work.
    async fn restart(&mut self, at: usize, is_first: bool) -> Result<()> {
        let table = Arc::clone(self.queue.table(at));
        self.writer.progress.note(&format!(
            "{}: the table was replaced, altered or rewritten during the run; it is read from the beginning",
            table.id
        ));
        self.retract(at, &table.id).await?;
        let state = self.archive.state().await?;
        let of_table = state.commits.iter().filter(|commit| commit.id() == table.id);
        let earlier: Vec<_> = of_table.filter(|commit| commit.run != self.writer.run).collect();
        let (mut todo, mut null_time) = (Vec::new(), false);
        if is_first {
            let coverage: Coverage = earlier.iter().map(|commit| commit.slice).collect();
            (todo, null_time) = self.survey.tables[self.surveyed[at]].remaining(&coverage);
        }
        // Earlier runs may have divided the table differently, so that windows of both divisions would overlap.
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

    /// Removes what this run has committed of a table and returns the slices. All files that a run writes of a table must
    /// have one schema and come from one table.
    async fn retract(&mut self, at: usize, table: &TableId) -> Result<Vec<Slice>> {
        let state = self.archive.state().await?;
        let surveyed = self.surveyed[at];
        let mut slices = Vec::new();
        for commit in state.commits.iter().filter(|commit| commit.id() == *table) {
            // A commit whose outcome has not been handled yet is removed when it is handled.
            if self.committed.contains_key(&(surveyed, commit.slice)) {
                self.uncount(surveyed, commit).await?;
                slices.push(commit.slice);
            }
        }
        Ok(slices)
    }

    /// Takes a commit out of the archive, and out of the counts of this run if it is its own.
    pub(super) async fn uncount(&mut self, surveyed: usize, commit: &Commit) -> Result<()> {
        self.archive.retract(commit).await?;
        if self.committed.remove(&(surveyed, commit.slice)).is_some() {
            self.summary.chunks = self.summary.chunks.saturating_sub(1);
            self.summary.rows = self.summary.rows.saturating_sub(commit.rows);
            let bytes: u64 = commit.files.iter().map(|file| file.bytes).sum();
            self.summary.bytes = self.summary.bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Lets a commit replace an earlier one of the same slice. Returns `false` if it does not, because the table is empty
    /// now and the archive may have the only copy of its rows.
    pub(super) async fn take_over(&mut self, at: usize, commit: &Commit) -> Result<bool> {
        let at = self.surveyed[at];
        let Some(before) = self.again.before.get(&(at, commit.slice)) else { return Ok(true) };
        // No two dumps are equal: they contain the time at which they were made, or a random token.
        if commit.dump.is_some() {
            return Ok(true);
        }
        self.again.tables.insert(at);
        self.summary.read_again.tables = self.again.tables.len() as u64;
        if commit.slice == Slice::All && commit.rows == 0 && before.rows > 0 {
            self.archive.retract(commit).await?;
            self.archive.keep([before]).await;
            let warning = format!(
                "{} is empty now: the archive keeps its {} rows as of {}; export into a new archive if you do not \
                 want them",
                commit.id(),
                before.rows,
                before.started
            );
            self.summary.warnings.push(warning);
            return Ok(false);
        }
        if !is_alike(before, commit) {
            self.again.changed.insert(at);
            self.summary.read_again.changed = self.again.changed.len() as u64;
        }
        Ok(true)
    }
}
