//! A run from its plan to its seal: chunks in flight, what becomes of each, and what has to be looked at again before
//! the archive is sealed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use crate::archive::commit::Commit;
use crate::archive::keys::FORMAT;
use crate::archive::run_json::{Requested, RunEntry, covers};
use crate::archive::runs::Beating;
use crate::archive::{Archive, ArchiveIndex, Seal};
use crate::config::Job;
use crate::coverage::Coverage;
use crate::error::{Error, Exit, Result};
use crate::export::again::Again;
use crate::export::chunk_writer::ChunkWriter;
use crate::export::prepare::width;
use crate::export::queue::Queue;
use crate::export::summary::{Failed, Summary};
use crate::export::worker::{Outcome, Shared, Worker};
use crate::model::{Artifact, Chunk, Table, TableId};
use crate::range::RangeText;
use crate::retry::{GRACE, Retry};
use crate::source::Source;
use crate::survey::{Survey, Surveyed};
use crate::window::{Slice, now, rfc3339};

/// A run that knows what it has to do.
pub struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) archive: Archive,
    pub(super) writer: ChunkWriter,
    pub(super) retry: Retry,
    pub(super) survey: Survey,
    pub(super) again: Again,
    pub(super) paths: HashMap<TableId, String>,
    pub(super) queue: Queue,
    /// For each table of the queue, its place in the survey.
    pub(super) surveyed: Vec<usize>,
    pub(super) summary: Summary,
    pub(super) shared: Arc<Shared>,
    pub(super) began: Instant,
    pub(super) started: String,
    pub(super) written: HashSet<usize>,
    /// What this run committed, by the place of its table in the survey, with the table as it was read.
    pub(super) settled: HashMap<(usize, Slice), Arc<Table>>,
    /// How often gaps were found where everything seemed to be committed, and how often a table was not any
    /// more what it had been read as.
    pub(super) rounds: (u32, u32),
    /// The archive is sealed and holds all that is asked for.
    pub(super) idle: bool,
    /// Chunks that are read again, since files of theirs were missing or changed.
    pub(super) damaged: Vec<Arc<Commit>>,
    /// How often a table was listed again to no avail.
    pub(super) strikes: HashMap<TableId, u32>,
    pub(crate) beating: Option<Beating>,
}

impl Run<'_> {
    /// Does the work, and seals.
    pub async fn run(mut self) -> Result<Summary> {
        let mut outcome = self.work().await;
        while outcome.is_ok() && self.summary.failed.is_empty() {
            // Wherever it is dropped, the next run makes it good, as it does after a kill.
            let interrupt = self.retry.interrupt().clone();
            match interrupt.or(self.finish()).await {
                Ok(true) => break,
                Ok(false) => outcome = self.work().await,
                Err(error) => outcome = Err(error),
            }
        }
        let interrupted = self.retry.interrupt().came();
        if let Err(error) = outcome {
            self.summary.exit = if interrupted { Exit::Interrupted } else { error.exit() };
            self.summary.status = if interrupted { "interrupted" } else { "incomplete" };
            self.summary.hint = error.hint_text().map(str::to_owned);
            self.summary.error = (!interrupted).then(|| error.to_string());
        } else if !self.summary.failed.is_empty() {
            let for_good = self.summary.failed.iter().any(|failed| failed.exit == Exit::Failed);
            self.summary.exit = if for_good { Exit::Failed } else { Exit::Incomplete };
        }
        if self.summary.exit != Exit::Done {
            self.summary.hint.get_or_insert_with(|| {
                "run the same command again to go on; what was committed stays".to_owned()
            });
        }
        let left = match interrupted {
            // A store that does not answer must not keep somebody who wants to leave.
            true => tokio::time::timeout(GRACE, self.leave()).await.unwrap_or(Ok(())),
            false => self.leave().await,
        };
        match left {
            Err(error) if self.summary.exit == Exit::Done => return Err(error),
            Err(error) => tracing::warn!("counting what the archive holds: {error}"),
            Ok(()) => {}
        }
        self.summary.elapsed_seconds = self.began.elapsed().as_secs_f64();
        self.writer.progress.end();
        Ok(self.summary)
    }

    /// Takes back the sign of life, and counts what the archive holds.
    async fn leave(&mut self) -> Result<()> {
        if let Some(beating) = self.beating.take() {
            beating.stop().await;
        }
        self.archive.forget_heartbeat(&self.writer.run).await?;
        // What was to be read again and was not still counts.
        self.archive.keep(self.again.before.values()).await;
        let state = self.archive.state().await?;
        self.summary.rows_total = state.commits.iter().map(|commit| commit.rows).sum();
        self.summary.bytes_total =
            state.commits.iter().flat_map(|commit| &commit.files).map(|file| file.bytes).sum();
        let before = state.run.iter().flat_map(|run| run.runs()).flat_map(|run| &run.outside);
        self.summary.covers = covers(self.survey.outside.iter().chain(before), &state.commits);
        Ok(())
    }

    /// Keeps the allowed number of chunks in flight, oldest first, until none is left.
    async fn work(&mut self) -> Result<()> {
        let mut flight = JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        let mut end = Ok(());
        loop {
            let more = end.is_ok() && !self.queue.is_empty();
            if flight.is_empty() && !more {
                return end;
            }
            // A chunk is taken when it can be read: the one before may have changed the width. As many
            // as are read may be read back meanwhile.
            let room = more && flight.len() < 2 * self.job.limits.concurrency;
            let permits = Arc::clone(&self.shared.permits);
            let (at, chunk, outcome) = tokio::select! {
                biased;
                Some(joined) = flight.join_next() => match joined {
                    Ok(done) => done,
                    Err(error) => return Err(Error::stop(format!("a worker ended: {error}"))),
                },
                Ok(permit) = permits.acquire_owned(), if room => {
                    if let Some((at, chunk)) = self.queue.take() {
                        flight.spawn(self.worker(at, chunk, permit));
                    }
                    continue;
                }
                _ = ticks.tick() => {
                    self.writer.progress.left(self.queue.chunks_left());
                    continue;
                }
            };
            if let Err(error) = self.settle(at, chunk, outcome).await
                && end.is_ok()
            {
                end = Err(error);
            }
        }
    }

    /// Takes in how work on a chunk ended; an error ends the run, once the others have landed.
    async fn settle(&mut self, at: usize, chunk: Chunk, outcome: Outcome) -> Result<()> {
        if self.queue.table(at).is_another(&chunk.table) {
            // It was read as the table that had its name before; all of the new one is in the queue.
            return match outcome {
                Outcome::Committed(commit) => self.archive.retract(&commit).await,
                Outcome::Stop(error) => Err(error.context(&chunk)),
                _ => Ok(()),
            };
        }
        match outcome {
            // A value was found meanwhile that this column's type cannot hold.
            Outcome::Committed(commit) if self.queue.table(at).is_retyped(&chunk.table) => {
                self.archive.retract(&commit).await?;
                self.queue.requeue(at, &[chunk.slice]);
            }
            Outcome::Committed(commit) if !self.take_over(at, &commit).await? => {
                self.writer.progress.chunk_done();
            }
            Outcome::Committed(commit) => {
                self.settled.insert((self.surveyed[at], commit.slice), chunk.table);
                if commit.rows > 0 && self.written.insert(at) {
                    self.summary.tables_written += 1;
                }
                self.summary.chunks += 1;
                self.summary.rows += commit.rows;
                self.summary.bytes += commit.files.iter().map(|file| file.bytes).sum::<u64>();
                if let Some(window) = commit.slice.window() {
                    let elapsed = Duration::from_millis(commit.elapsed_ms);
                    let most = self.source(at).chunk_rows(&commit.id());
                    self.queue.learn(at, window, commit.rows, elapsed, most);
                }
                self.writer.progress.chunk_done();
            }
            Outcome::TakenBy => self.writer.progress.chunk_done(),
            Outcome::Split(error) => {
                tracing::info!("{chunk}: {error}; the window is halved");
                if !self.queue.split(at, &chunk) {
                    self.fail(&chunk, &error);
                }
            }
            Outcome::Relist(error) => {
                tracing::info!("{chunk}: {error}; the tables are listed again");
                let interrupt = self.retry.interrupt().clone();
                interrupt.or(self.relist(at, &chunk, error)).await?;
            }
            Outcome::Failed(error) => self.fail(&chunk, &error),
            Outcome::Stop(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, chunk: &Chunk, error: &Error) {
        self.writer.progress.note(&format!("failed: {chunk}: {error}"));
        let failed =
            Failed { chunk: chunk.to_string(), error: error.to_string(), exit: error.exit() };
        if self.summary.hint.is_none() {
            self.summary.hint = error.hint_text().map(str::to_owned);
        }
        self.summary.failed.push(failed);
    }

    pub(super) fn source(&self, at: usize) -> &Arc<dyn Source> {
        &self.survey.sources[self.survey.tables[self.surveyed[at]].source]
    }

    fn worker(
        &self,
        at: usize,
        chunk: Chunk,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = (usize, Chunk, Outcome)> + use<> {
        let source = Arc::clone(self.source(at));
        let worker = Worker {
            archive: self.archive.clone(),
            writer: self.writer.clone(),
            shared: Arc::clone(&self.shared),
            path: self.paths.get(&chunk.table.id).cloned().unwrap_or_default(),
            retry: self.retry.clone(),
            can_split: self.queue.can_split(at, &chunk),
        };
        async move {
            let outcome = worker.work(source.as_ref(), &chunk, permit).await;
            (at, chunk, outcome)
        }
    }

    /// Everything is committed: look once more at what the store says, then seal. `false` when it
    /// shows that something is still to be done.
    async fn finish(&mut self) -> Result<bool> {
        let me = self.writer.run.clone();
        if self.idle {
            // What runs that died in their survey left beside the seal; no more than that.
            self.archive.clear_work(&me).await?;
            self.complete();
            return Ok(true);
        }
        self.writer.progress.doing("sealing the archive");
        let mut artifacts = None;
        loop {
            self.wait_for_older_runs(&me).await?;
            let state = self.archive.state().await?;
            if let Some(gap) = self.queue_gaps(&state) {
                self.rounds.0 += 1;
                return match self.rounds.0 {
                    1..=3 => Ok(false),
                    _ => Err(Error::incomplete(format!(
                        "{gap} was committed and is not any more: somebody else changes the archive"
                    ))),
                };
            }
            if let Some((table, time)) = state.uncovered().first_key_value() {
                let slice = time.windows().first().copied().map_or(Slice::NullTime, Slice::from);
                return Err(Error::incomplete(format!(
                    "{table} {slice} was committed by a run that ended, overlaps what another had committed \
                     before, and no source of this run has it"
                ))
                .hint("run the command that exports this table again"));
            }
            if self.take_back_what_changed(&state).await? {
                return Ok(false);
            }
            let artifacts = match &artifacts {
                Some(saved) => saved,
                None => artifacts.insert(self.artifacts().await?),
            };
            if self.seal(&state, artifacts).await? {
                self.complete();
                return Ok(true);
            }
        }
    }

    /// `false` where another run has committed meanwhile, so that there is more to look at.
    async fn seal(
        &mut self,
        state: &ArchiveIndex,
        artifacts: &[(String, Artifact)],
    ) -> Result<bool> {
        self.warn_of_abandoned(state).await?;
        self.warn_of_moments(state);
        self.tell_of_damage(state);
        let run = RunEntry {
            format: FORMAT,
            moveout: env!("CARGO_PKG_VERSION").to_owned(),
            run: self.writer.run.clone(),
            range: RangeText { from: self.job.range.0.clone(), to: self.job.range.1.clone() },
            sources: self.survey.infos.clone(),
            started: self.started.clone(),
            ended: rfc3339(now()),
            excluded: self.survey.excluded.clone(),
            outside: self.survey.outside.clone(),
            artifacts: self.summary.artifacts.clone(),
            artifact_files: None, // the seal knows them
            kept: self.summary.kept.clone(),
            warnings: self.summary.warnings.clone(),
            requested: self.requested(state),
            earlier: self.unsealed(state).await?,
        };
        match &self.beating {
            Some(beating) => self.archive.seal(beating, Seal { run, artifacts }).await,
            None => Ok(false),
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.summary.warnings.contains(&warning) {
            self.summary.warnings.push(warning);
        }
    }

    /// What was read again in place of damaged files, and whether it is as much as there was.
    fn tell_of_damage(&mut self, state: &ArchiveIndex) {
        let by_table = state.by_table();
        let told: Vec<String> = (self.damaged.iter())
            .map(|lost| {
                let commits = by_table.get(&lost.id()).map(Vec::as_slice).unwrap_or_default();
                let again = commits.iter().filter(|c| c.takes_over(lost));
                let rows: u64 = again.map(|commit| commit.rows).sum();
                format!(
                    "{} {} was read again, since files of it were missing or changed: it had {} rows, the source \
                     gave {rows}",
                    lost.id(),
                    lost.slice,
                    lost.rows
                )
            })
            .collect();
        told.into_iter().for_each(|warning| self.warn(warning));
    }

    /// Where a commit of this run overlaps an earlier one of another, it does not count; what then
    /// is missing is to be done again, in windows that fit. Returns one of the gaps.
    fn queue_gaps(&mut self, state: &ArchiveIndex) -> Option<String> {
        let (committed, uncovered) = (state.by_table(), state.uncovered());
        let mut found = None;
        for (at, surveyed) in self.survey.tables.iter().enumerate() {
            let Surveyed { table, bounds, .. } = surveyed;
            let commits = committed.get(&table.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().map(|commit| commit.slice).collect();
            let (mut gaps, mut null_time) = surveyed.left(&coverage);
            // What another run committed beyond that, and what does not count since this one was earlier.
            if let Some(uncovered) = uncovered.get(&table.id) {
                let all: Coverage = gaps.iter().chain(uncovered.windows()).copied().collect();
                gaps = all.windows().to_vec();
                null_time |= uncovered.has_null_time();
            }
            let gap =
                gaps.first().copied().map(Slice::from).or(null_time.then_some(Slice::NullTime));
            if let Some(gap) = gap {
                found.get_or_insert_with(|| format!("{} {gap}", table.id));
                let width = width(self.job, commits);
                self.queue.add(Arc::clone(table), *bounds, gaps, null_time, width);
                self.surveyed.push(at);
            }
        }
        found
    }

    /// What the archive answers for: what this run asked for, and what an unfinished run of before
    /// had committed of other tables.
    fn requested(&self, state: &ArchiveIndex) -> Vec<Requested> {
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

    /// The records of runs that did not end; their commits name them.
    async fn unsealed(&self, state: &ArchiveIndex) -> Result<Vec<RunEntry>> {
        let me = &self.writer.run;
        let plans = self.archive.plans().await?.into_iter();
        let dead =
            plans.filter(|plan| plan.run != *me && !state.living(me).any(|r| r.run == plan.run));
        Ok(dead.map(RunEntry::from).collect())
    }

    /// What dead runs set out to get, beyond this run's range, and did not get.
    async fn warn_of_abandoned(&mut self, state: &ArchiveIndex) -> Result<()> {
        let committed = state.by_table();
        for planned in self.archive.plans().await?.into_iter().flat_map(|plan| plan.tables) {
            let commits = committed.get(&planned.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().filter_map(|c| c.slice.window()).collect();
            for gap in
                planned.requested.into_iter().flat_map(|requested| coverage.missing(requested))
            {
                let warning = format!(
                    "{} {gap} was asked for by an earlier run that did not end, and is not in the archive",
                    planned.id
                );
                self.warn(warning);
            }
        }
        Ok(())
    }

    /// Of a source that reads snapshots, rows of several fit together only if nobody wrote meanwhile.
    fn warn_of_moments(&mut self, state: &ArchiveIndex) {
        let mut moments = BTreeMap::<(&str, &str), BTreeSet<&str>>::new();
        for commit in &state.commits {
            let of_database = moments.entry((&commit.source, &commit.database)).or_default();
            of_database.extend(commit.snapshot.as_deref());
        }
        for ((source, database), moments) in moments.into_iter().filter(|(_, all)| all.len() > 1) {
            self.warn(format!(
                "{database} of {source}: its rows are of {} moments, between which somebody wrote: the chunks of \
                 each are consistent, all together may not be; `snapshot` in catalog/chunks.parquet tells them apart",
                moments.len()
            ));
        }
    }

    fn complete(&mut self) {
        let unsaved = Failed::unsaved(&self.summary.artifacts);
        match unsaved.is_empty() {
            true => {
                self.summary.status = "complete";
                self.summary.exit = Exit::Done;
            }
            // It is sealed with all of its rows; the next run saves definitions anew.
            false => {
                self.summary.status = "complete except for definitions";
                self.summary.failed = unsaved;
                self.summary.hint = Some(
                    "every row is in the archive, which is sealed; mend what is said and run the same command \
                     again to save the definitions"
                        .to_owned(),
                );
            }
        }
    }

    /// Of several runs that are ready to seal, the oldest does; the others then see what is left.
    async fn wait_for_older_runs(&self, me: &str) -> Result<()> {
        let mut told = false;
        loop {
            let state = self.archive.state().await?;
            let Some(older) = state.living(me).find(|run| run.run.as_str() < me) else {
                return Ok(());
            };
            if !told {
                self.writer
                    .progress
                    .note(&format!("waiting for the run {} to end before sealing", older.run));
                told = true;
            }
            let pause = self.archive.store().pause();
            self.writer.progress.waiting(Instant::now() + pause, "an older run is still at work");
            self.archive.store().wait().await;
        }
    }

    async fn artifacts(&mut self) -> Result<Vec<(String, Artifact)>> {
        let mut all = Vec::new();
        self.summary.artifacts.clear();
        for source in &self.survey.sources {
            let artifacts = self.retry.with_retry(source.name(), || source.artifacts()).await?;
            let name = source.name().to_owned();
            all.extend(artifacts.files.into_iter().map(|artifact| (name.clone(), artifact)));
            self.summary.artifacts.extend(artifacts.statuses);
        }
        Ok(all)
    }
}
