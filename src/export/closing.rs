//! The end of a run, or of its work on one source: collects its results, in the numbers of the archive.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::archive::ArchiveIndex;
use crate::archive::commit::Commit;
use crate::archive::dumps::dumps;
use crate::archive::run_json::{Requested, Selected, covers};
use crate::config::Select;
use crate::coverage::{Coverage, named};
use crate::error::{Error, Exit, Result};
use crate::export::prepare::planned;
use crate::export::run::Run;
use crate::export::summary::{ExportStatus, Failed, Missing, OfSource, SourceStatus};
use crate::model::{LogPosition, Marker, TableId};
use crate::survey::Lost;

impl Run<'_> {
    /// Goes on without a source. It is an error if there is no other source, or if the user wants to stop.
    pub(super) fn lose(&mut self, source: &str, error: Error) -> Result<()> {
        if self.job.sources.len() == 1 || self.retry.interrupt().came() {
            return Err(error);
        }
        if !self.survey.is_lost(source) {
            self.writer.progress.lost(source, &error);
            self.queue.drop_source(source);
            self.summary.failed.push(Failed::source(source, &error));
            self.survey.lost.push(Lost { source: source.to_owned(), error });
        }
        Ok(())
    }

    /// Removes the heartbeat and counts what the archive has.
    pub(super) async fn leave(&mut self) -> Result<()> {
        // While it folds, the others must know that it lives. A user who wants to stop does not wait for it; the next run
        // folds what is left.
        let is_sealed = self.summary.exit == Exit::Done && self.job.shard.is_none();
        if !is_sealed && !self.retry.interrupt().came() {
            self.archive.fold_rest().await;
        }
        if let Some(beating) = self.beating.take() {
            beating.stop().await;
        }
        self.archive.forget_heartbeat(&self.writer.run).await?;
        // A commit that was to be replaced, but was not, still counts.
        self.archive.keep(self.again.before.values()).await;
        let state = self.archive.state().await?;
        self.summary.rows_total = state.commits.iter().map(|commit| commit.rows).sum();
        self.summary.bytes_total =
            state.commits.iter().flat_map(|commit| &commit.files).map(|file| file.bytes).sum();
        let before = state.run.iter().flat_map(|run| run.runs()).flat_map(|run| &run.outside);
        self.count_what_stays(&state);
        let sources: HashSet<String> =
            self.survey.infos().iter().map(|info| info.name.clone()).collect();
        self.summary.dumps = dumps(&state.commits);
        self.summary.dumps.retain(|dump| sources.contains(&dump.source));
        if self.summary.exit != Exit::Done {
            self.summary.missing = self.missing(&state);
        }
        self.summary.sources = self.sources(&state);
        self.summary.covers = covers(self.survey.outside.iter().chain(before), &state.commits);
        if self.summary.exit == Exit::Done {
            Ok(())
        } else {
            self.plan_what_was_lost().await?;
            self.archive.unmake(&self.writer.run).await
        }
    }

    /// Counts what this run committed by what the archive has, since another run may have committed a chunk first.
    fn count_what_stays(&mut self, state: &ArchiveIndex) {
        let is_mine =
            |commit: &&Arc<Commit>| commit.run == self.writer.run && commit.dump.is_none();
        let mine = || state.commits.iter().filter(is_mine);
        let summary = &mut self.summary;
        summary.chunks = mine().count() as u64;
        summary.rows = mine().map(|commit| commit.rows).sum();
        summary.bytes = mine().flat_map(|commit| &commit.files).map(|file| file.bytes).sum();
        let written = mine().filter(|commit| commit.rows > 0).map(|commit| commit.id());
        summary.tables_written = written.collect::<HashSet<_>>().len();
    }

    /// Which part of each source was requested.
    pub(super) fn selected(&self) -> Vec<Selected> {
        let selected = self.survey.sources.iter().map(|reached| {
            let Select { databases, schemas, tables, exclude } =
                self.job.sources[reached.place].select.clone();
            Selected { source: reached.info.name.clone(), databases, schemas, tables, exclude }
        });
        selected.collect()
    }

    /// What the archive claims to have: what this run requested, and what unfinished earlier runs committed of other
    /// tables.
    pub(super) fn requested(&self, state: &ArchiveIndex) -> Vec<Requested> {
        let mut requested: BTreeMap<TableId, Coverage> = BTreeMap::new();
        for surveyed in &self.survey.tables {
            let windows = requested.entry(surveyed.table.id.clone()).or_default();
            surveyed.requested.into_iter().for_each(|window| windows.insert(window));
        }
        for commit in &state.commits {
            let windows = requested.entry(commit.id()).or_default();
            windows.insert_slice(commit.slice);
        }
        let requested = requested.into_iter();
        requested.map(|(table, all)| Requested { table, windows: all.windows().to_vec() }).collect()
    }

    /// The outcome of each source. Those that need action come first.
    fn sources(&self, state: &ArchiveIndex) -> Vec<OfSource> {
        let reached = self.survey.sources.iter().map(|reached| reached.info.name.as_str());
        let lost = self.survey.lost.iter().map(|lost| lost.source.as_str());
        let names: BTreeSet<&str> = reached.chain(lost).collect();
        let mut sources: BTreeMap<&str, OfSource> =
            names.into_iter().map(|name| (name, OfSource::new(name))).collect();
        for commit in &state.commits {
            if let Some(source) = sources.get_mut(commit.source.as_str()) {
                source.count(commit, commit.run == self.writer.run);
            }
        }
        for surveyed in self.survey.tables.iter().filter(|surveyed| surveyed.is_counted()) {
            if let Some(source) = sources.get_mut(surveyed.table.id.source.as_str()) {
                source.tables += 1;
            }
        }
        for missing in &self.summary.missing {
            if let Some(source) = sources.get_mut(missing.table.source.as_str()) {
                source.status = SourceStatus::Incomplete;
            }
        }
        for failed in &self.summary.failed {
            if let Some(source) = sources.get_mut(failed.source.as_str()) {
                source.fail(failed);
            }
        }
        let mut sources: Vec<OfSource> = sources.into_values().collect();
        sources.sort_by_key(|source| source.status); // the sort is stable: within a status, the order is that of the names
        sources
    }

    /// Records in the plan, for `status`, without which sources the run went on.
    async fn plan_what_was_lost(&mut self) -> Result<()> {
        if self.idle || self.survey.lost.len() == self.lost_as_planned {
            return Ok(());
        }
        // The plan is not kept in memory, since it has the names of all tables.
        let mut plans = self.archive.plans().await?.into_iter();
        let Some(mut plan) = plans.find(|plan| plan.run == self.writer.run) else { return Ok(()) };
        plan.lost = planned(&self.survey.lost);
        self.archive.put_plan(&plan).await
    }

    fn missing(&self, state: &ArchiveIndex) -> Vec<Missing> {
        let committed = state.by_table();
        let missing = self.survey.tables.iter().map(|surveyed| {
            let commits = committed.get(&surveyed.table.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().map(|commit| commit.slice).collect();
            let (windows, null_time) = surveyed.remaining(&coverage);
            Missing { table: surveyed.table.id.clone(), windows, null_time }
        });
        missing.filter(|missing| missing.null_time || !missing.windows.is_empty()).collect()
    }

    /// Where the logs of the sources stood, and stand now that everything is read.
    pub(super) async fn markers(&self) -> Vec<Marker> {
        let mut markers = Vec::new();
        for reached in &self.survey.sources {
            let Some(LogPosition { log, position: start }) = reached.position.clone() else {
                continue;
            };
            let asked = self.retry.interrupt().or(reached.source.log_position()).await;
            let end = asked.ok().flatten().filter(|end| end.log == log).map(|end| end.position);
            markers.push(Marker { source: reached.info.name.clone(), log, start, end });
        }
        markers
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.summary.warnings.contains(&warning) {
            self.summary.warnings.push(warning);
        }
    }

    /// Warns of chunks that were read again because of damaged files, with their number of rows before and after.
    pub(super) fn tell_of_damage(&mut self, state: &ArchiveIndex) {
        let by_table = state.by_table();
        let told: Vec<String> = (self.damaged.iter())
            .map(|lost| {
                if lost.dump.is_some() {
                    return format!(
                        "the {} was made again because its file was missing or had changed",
                        lost.id()
                    );
                }
                let commits = by_table.get(&lost.id()).map(Vec::as_slice).unwrap_or_default();
                let again = commits.iter().filter(|c| c.takes_over(lost));
                let rows: u64 = again.map(|commit| commit.rows).sum();
                format!(
                    "{} {} was read again because some of its files were missing or had changed: it had {} rows, and the \
                     source now gave {rows}",
                    lost.id(),
                    lost.slice,
                    lost.rows
                )
            })
            .collect();
        told.into_iter().for_each(|warning| self.warn(warning));
    }

    /// What earlier runs that did not finish had requested, but neither they nor this run have committed.
    pub(super) async fn abandoned(
        &self,
        state: &ArchiveIndex,
    ) -> Result<BTreeMap<TableId, Coverage>> {
        let committed = state.by_table();
        let mut abandoned = BTreeMap::<TableId, Coverage>::new();
        for planned in self.archive.plans().await?.into_iter().flat_map(|plan| plan.tables) {
            let commits = committed.get(&planned.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().filter_map(|c| c.slice.window()).collect();
            let requested = planned.requested.into_iter();
            for gap in requested.flat_map(|requested| coverage.missing(requested)) {
                abandoned.entry(planned.id.clone()).or_default().insert(gap);
            }
        }
        Ok(abandoned)
    }

    pub(super) fn warn_of_abandoned(&mut self, abandoned: &BTreeMap<TableId, Coverage>) {
        for (id, gaps) in abandoned {
            let gaps = named(gaps.windows());
            self.warn(format!(
                "{id} {gaps}: an earlier run that did not finish had requested this, and it is not in the archive"
            ));
        }
    }

    /// Warns if the rows of a database were read from several snapshots, which are consistent with each other only if
    /// nobody wrote in between.
    pub(super) fn warn_of_moments(&mut self, state: &ArchiveIndex) {
        let mut moments = BTreeMap::<(&str, &str), BTreeSet<&str>>::new();
        for commit in &state.commits {
            let of_database = moments.entry((&commit.source, &commit.database)).or_default();
            of_database.extend(commit.snapshot.as_deref());
        }
        for ((source, database), moments) in moments.into_iter().filter(|(_, all)| all.len() > 1) {
            self.warn(format!(
                "{database} of {source}: its rows were read at {} moments, and somebody wrote between these: the chunks of \
                 each moment are consistent, but all of them together may not be; `snapshot` in \
                 catalog/chunks.parquet names the moment of each",
                moments.len()
            ));
        }
    }

    /// Notes that the archive is sealed.
    pub(super) fn complete(&mut self) {
        let unsaved = Failed::unsaved(&self.summary.artifacts);
        if unsaved.is_empty() {
            self.summary.status = ExportStatus::Complete;
            self.summary.exit = Exit::Done;
        } else {
            // The archive is sealed with all its rows; the next run tries to save the definitions.
            self.summary.status = ExportStatus::CompleteExceptForDefinitions;
            self.summary.failed = unsaved;
            self.summary.hint = Some(
                    "every row is in the sealed archive; remove the cause and run the same command again to save the \
                 definitions"
                        .to_owned(),
                );
        }
    }
}
