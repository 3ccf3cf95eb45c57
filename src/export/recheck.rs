//! Lists the sources again before the seal. A change of a table may have hidden rows from a read that ended without an
//! error, so every slice that may lack rows is read again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::archive::ArchiveIndex;
use crate::archive::commit::Commit;
use crate::error::{Error, Result};
use crate::export::run::Run;
use crate::model::{Listing, Table, TableId};
use crate::source::Source;
use crate::survey::Surveyed;
use crate::window::MIN_WIDTH;
use crate::window::{Slice, Window};

/// How often a table is read again before the run gives up.
const ROUNDS: u32 = 5;
/// How many tables a warning names.
const NAMED: usize = 5;

impl Run<'_> {
    /// Lists all sources again. Returns `true` if something was taken out of the archive and queued again.
    pub(super) async fn retract_what_changed(&mut self, state: &ArchiveIndex) -> Result<bool> {
        self.writer.progress.doing("listing the sources again");
        let mut doubted = Vec::new();
        for (number, reached) in self.survey.sources.clone().into_iter().enumerate() {
            let source = reached.source;
            match self.doubted_of_source(number, &source, state).await {
                Ok(of_source) => doubted.extend(of_source),
                Err(error) => self.lose(source.name(), error)?,
            }
        }
        let Some((first, _)) = doubted.first() else { return Ok(false) };
        self.change_rounds += 1;
        if self.change_rounds > ROUNDS {
            let id = &self.survey.tables[*first].table.id;
            let (source, rounds) = (id.source.clone(), self.change_rounds);
            let error = Error::incomplete(format!(
                "{id} was read {rounds} times, but its columns keep changing, so rows may be missing each time"
            ));
            let error = error.hint("stop the writers first; then run the same command again");
            return self.lose(&source, error).map(|()| false);
        }
        let mut again = BTreeMap::<usize, Vec<Slice>>::new();
        for (surveyed, commit) in &doubted {
            self.uncount(*surveyed, commit).await?;
            again.entry(*surveyed).or_default().push(commit.slice);
        }
        again.into_iter().for_each(|(surveyed, slices)| self.queue_again(surveyed, &slices));
        Ok(true)
    }

    async fn doubted_of_source(
        &mut self,
        number: usize,
        source: &Arc<dyn Source>,
        state: &ArchiveIndex,
    ) -> Result<Vec<(usize, Commit)>> {
        match self.retry.with_retry(source.name(), || source.list_again()).await? {
            None => Ok(Vec::new()),
            Some(listing) => {
                self.warn_of_tables(number, &listing);
                self.doubted(number, source, listing, state).await
            }
        }
    }

    /// Queues slices with the widths of before, which were neither too wide nor too narrow.
    fn queue_again(&mut self, surveyed: usize, slices: &[Slice]) {
        let Surveyed { table, bounds, first_width, .. } = &self.survey.tables[surveyed];
        let mut windows: Vec<Window> = slices.iter().filter_map(|slice| slice.window()).collect();
        windows.sort_unstable();
        let width = windows.iter().map(Window::width).max().map(|width| width.max(MIN_WIDTH));
        let null_time = slices.contains(&Slice::NullTime);
        self.queue.add(Arc::clone(table), *bounds, windows, null_time, width.or(*first_width));
        self.surveyed.push(surveyed);
    }

    /// The commits of a source that may lack rows of the tables as they are listed now. The survey gets the new listing.
    async fn doubted(
        &mut self,
        number: usize,
        source: &Arc<dyn Source>,
        listing: Listing,
        state: &ArchiveIndex,
    ) -> Result<Vec<(usize, Commit)>> {
        let tables = listing.tables.into_iter();
        let mut now: HashMap<TableId, Table> =
            tables.map(|table| (table.id.clone(), table)).collect();
        let committed = state.by_table();
        let mut doubted = Vec::new();
        for at in 0..self.survey.tables.len() {
            let surveyed = &self.survey.tables[at];
            if surveyed.source != number {
                continue;
            }
            let Some(now) = now.remove(&surveyed.table.id) else { continue };
            // The chunks keep the tables as which they were read. Equal tables must not be in memory twice.
            let now =
                if now == *surveyed.table { Arc::clone(&surveyed.table) } else { Arc::new(now) };
            // The chunks of a table were read under only a few different listings.
            let mut missed = Vec::<(Arc<Table>, Vec<Window>)>::new();
            for commit in committed.get(&now.id).into_iter().flatten() {
                let is_mine = commit.run == self.writer.run;
                let read = match self.committed.get(&(at, commit.slice)).filter(|_| is_mine) {
                    Some(read) => Arc::clone(read),
                    // The commit belongs to a run that ended before its seal. Sealed commits stay as they are.
                    None if self.job.shard.is_none()
                        && commit.replaces.is_empty()
                        && state.is_outside(commit)
                        && !state.living(&self.writer.run).any(|run| run.run == commit.run) =>
                    {
                        Arc::new(as_read(&now, commit))
                    }
                    None => continue,
                };
                let known = missed.iter().position(|(known, _)| same(known, &read));
                let known = match known {
                    Some(known) => known,
                    None => {
                        let find = || source.missed(&read, &now);
                        let windows = self.retry.with_retry(source.name(), find).await?;
                        missed.push((read, windows));
                        missed.len() - 1
                    }
                };
                let windows = &missed[known].1;
                let may_lack = match commit.slice.window() {
                    Some(slice) => windows.iter().any(|window| window.overlaps(&slice)),
                    None => windows.contains(&Window::ALL),
                };
                if may_lack {
                    tracing::info!("{} {}: the table has changed since", now.id, commit.slice);
                    doubted.push((at, Commit::clone(commit)));
                }
            }
            self.survey.tables[at].table = now;
        }
        Ok(doubted)
    }

    /// Warns of tables that were created during the run, which are not in the archive, and of tables that were dropped, of
    /// which the archive may have only a part.
    fn warn_of_tables(&mut self, number: usize, listing: &Listing) {
        let select = &self.job.sources[self.survey.sources[number].place].select;
        let is_new = |id: &&TableId| {
            !self.survey.listed.contains(id)
                && !select.excludes(&id.database, &id.schema, &id.table)
        };
        let came = listing.ids().filter(is_new);
        let came = named(came).map(|names| {
            format!("not in the archive because they were created during the run: {names}; run the same command again")
        });
        let there: HashSet<&TableId> = listing.ids().collect();
        let surveyed = self.survey.tables.iter().filter(|table| table.source == number);
        let went = surveyed.map(|table| &table.table.id).filter(|id| !there.contains(id));
        let went = named(went).map(|names| {
            format!(
                "not in the source any more, so the archive may have only the part that had been read before: {names}"
            )
        });
        for warning in came.into_iter().chain(went) {
            if !self.summary.warnings.contains(&warning) {
                self.summary.warnings.push(warning);
            }
        }
    }
}

/// The table as which a commit was read.
fn as_read(now: &Table, commit: &Commit) -> Table {
    let columns = commit.columns.iter().map(|column| {
        let same = |now: &&crate::model::Column| {
            (&now.name, &now.key, now.role, &now.source_type)
                == (&column.name, &column.key, column.role, &column.source_type)
        };
        now.columns.iter().find(same).cloned().unwrap_or_else(|| {
            let unknown = arrow::datatypes::DataType::Null;
            let (name, key, kind) = (&column.name, &column.key, &column.source_type);
            crate::model::Column::new(name, key, column.role, kind, unknown)
        })
    });
    Table { columns: columns.collect(), ..now.clone() }
}

fn same(one: &Arc<Table>, other: &Arc<Table>) -> bool {
    Arc::ptr_eq(one, other)
        || (&one.columns, &one.data_ranges, &one.split_points)
            == (&other.columns, &other.data_ranges, &other.split_points)
}

fn named<'a>(ids: impl Iterator<Item = &'a TableId>) -> Option<String> {
    let mut ids: Vec<String> = ids.map(TableId::to_string).collect();
    ids.sort_unstable();
    let more = ids.len().saturating_sub(NAMED);
    ids.truncate(NAMED);
    match (ids.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(ids.join(", ")),
        (false, more) => Some(format!("{} and {more} more", ids.join(", "))),
    }
}
