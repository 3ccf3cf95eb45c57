//! A run from its plan to its seal: keeps chunks in flight, acts on their outcomes, and checks everything again before the
//! archive is sealed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::archive::commit::Commit;
use crate::archive::keys::FORMAT;
use crate::archive::run_json::RunEntry;
use crate::archive::runs::{Beating, living};
use crate::archive::{Archive, ArchiveIndex, Seal};
use crate::config::Job;
use crate::coverage::Coverage;
use crate::error::{Error, Exit, Result};
use crate::export::again::Again;
use crate::export::chunk_writer::ChunkWriter;
use crate::export::controller::streams::Streams;
use crate::export::controller::widths::width_after;
use crate::export::listed::{Listed, Relisting, list_again};
use crate::export::permits::Permit;
use crate::export::queue::Queue;
use crate::export::stale::gone;
use crate::export::summary::{ExportStatus, Failed, Summary};
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
    /// The folder of each table in the archive, in the order of the survey.
    pub(super) paths: Vec<String>,
    pub(super) queue: Queue,
    /// For each table of the queue, its position in the survey.
    pub(super) surveyed: Vec<usize>,
    pub(super) summary: Summary,
    pub(super) shared: Arc<Shared>,
    /// How many chunks of each source are read at the same time.
    pub(super) streams: HashMap<String, Streams>,
    pub(super) began: Instant,
    pub(super) started: String,
    pub(super) written: HashSet<usize>,
    /// What this run committed, by the index of its table in the survey, with the table as it was when it was read.
    pub(super) committed: HashMap<(usize, Slice), Arc<Table>>,
    /// How often gaps were found although everything had been committed.
    pub(super) gap_rounds: u32,
    /// How often a check before the seal found that a table had changed.
    pub(super) change_rounds: u32,
    /// The estimated number of rows to read, if the sources know it.
    pub(super) expected_rows: Option<u64>,
    /// Whether the archive is sealed and has everything that was requested.
    pub(super) idle: bool,
    /// How many sources were lost when the run began.
    pub(super) lost_as_planned: usize,
    /// The chunks that are read again because some of their files were missing or had changed.
    pub(super) damaged: Vec<Arc<Commit>>,
    /// The chunks that wait for a new listing, by the names of their sources.
    pub(super) relisting: HashMap<String, Vec<Relisting>>,
    /// How often each table was listed again without a change that would explain the error.
    pub(super) strikes: HashMap<TableId, u32>,
    pub(crate) beating: Option<Beating>,
}

/// Something in flight that has ended.
enum Done {
    /// Work on a chunk, with the number of its table in the queue.
    Chunk(usize, Chunk, Outcome),
    /// A new listing of a source.
    Listed(String, Result<Listed>),
}

impl Run<'_> {
    /// Does the work and seals the archive.
    pub async fn run(mut self) -> Result<Summary> {
        let mut outcome = self.work().await;
        while outcome.is_ok() && self.summary.failed.is_empty() {
            // The seal may be interrupted at any point: the next run completes it, as after a kill.
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
            self.summary.status =
                if interrupted { ExportStatus::Interrupted } else { ExportStatus::Incomplete };
            self.summary.hint = error.hint_text().map(str::to_owned);
            self.summary.error = (!interrupted).then(|| error.to_string());
        } else if !self.summary.failed.is_empty() {
            self.summary.exit = Failed::exit(&self.summary.failed);
        }
        if self.summary.exit != Exit::Done {
            let lost_for_good = self.summary.exit == Exit::Failed && !self.survey.lost.is_empty();
            let hint = if lost_for_good {
                "fix the sources that failed, then run the same command again: it reads only what is missing"
            } else {
                "run the same command again to continue; what was committed stays"
            };
            self.summary.hint.get_or_insert_with(|| hint.to_owned());
        }
        let left = if interrupted {
            // A store that does not answer must not hold up a user who wants to stop.
            tokio::time::timeout(GRACE, self.leave()).await.unwrap_or(Ok(()))
        } else {
            self.leave().await
        };
        match left {
            Err(error) if self.summary.exit == Exit::Done => return Err(error),
            Err(error) => tracing::warn!("counting what the archive has: {error}"),
            Ok(()) => {}
        }
        self.summary.elapsed_seconds = self.began.elapsed().as_secs_f64();
        self.writer.progress.end();
        Ok(self.summary)
    }

    /// Keeps the allowed number of chunks in flight, the oldest of each source first, until none remains.
    async fn work(&mut self) -> Result<()> {
        self.steer();
        let mut flight = JoinSet::new();
        let mut of_source = HashMap::<String, usize>::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        let mut end = Ok(());
        // In addition to the chunks that are read, as many may be read back.
        let most = 2 * self.job.limits.concurrency;
        loop {
            let more = end.is_ok() && !self.queue.is_empty();
            if flight.is_empty() && !more {
                return end;
            }
            // A chunk is taken from the queue only when it can be read, because the one before it may change the width of
            // the window. Chunks that wait for their source do not count, so that the other sources can go on, but they do
            // count for their own source.
            let waiting = self.shared.waiting.load(Ordering::Relaxed);
            let room = more && flight.len().saturating_sub(waiting) < most;
            let has_room = |source: &&str| {
                !self.relisting.contains_key(*source)
                    && of_source.get(*source).is_none_or(|in_flight| *in_flight < most)
            };
            let sources = self.queue.sources().filter(|source| room && has_room(source));
            let sources: Vec<String> = sources.map(str::to_owned).collect();
            let (permits, room) = (self.shared.permits.clone(), !sources.is_empty());
            let done = tokio::select! {
                biased;
                Some(joined) = flight.join_next() => match joined {
                    Ok(done) => done,
                    Err(error) => return Err(Error::stop(format!("a worker failed: {error}"))),
                },
                Ok(permit) = permits.acquire(sources), if room => {
                    if let Some((at, chunk)) = self.queue.take_of(permit.source()) {
                        *of_source.entry(permit.source().to_owned()).or_default() += 1;
                        flight.spawn(self.worker(at, chunk, permit));
                    }
                    continue;
                }
                _ = ticks.tick() => {
                    self.steer();
                    self.show_what_is_left(flight.len());
                    continue;
                }
            };
            let (source, handled) = match done {
                Done::Chunk(at, chunk, outcome) => {
                    let source = chunk.table.id.source.clone();
                    if let Some(in_flight) = of_source.get_mut(&source) {
                        *in_flight = in_flight.saturating_sub(1);
                    }
                    let listing = self.relisting.contains_key(&source);
                    let handled = self.handle_outcome(at, chunk, outcome).await;
                    // The other sources go on while this one is listed again.
                    if end.is_ok() && !listing && self.relisting.contains_key(&source) {
                        let (source, retry) = (Arc::clone(self.source(at)), self.retry.clone());
                        flight.spawn(async move {
                            let name = source.name().to_owned();
                            Done::Listed(name, list_again(source, retry).await)
                        });
                    }
                    (source, handled)
                }
                Done::Listed(source, listed) => {
                    let interrupt = self.retry.interrupt().clone();
                    let handled = interrupt.or(self.relisted(&source, listed)).await;
                    (source, handled)
                }
            };
            if let Err(error) = handled
                && end.is_ok()
            {
                end = Err(error);
            }
            if self.survey.is_lost(&source) {
                self.queue.drop_source(&source); // forgets the chunks that were put back
            }
        }
    }

    /// Acts on how the work on a chunk ended. An error ends the run once the other chunks in flight have ended.
    async fn handle_outcome(&mut self, at: usize, chunk: Chunk, outcome: Outcome) -> Result<()> {
        let outcome = match outcome {
            Outcome::Stop(error) => return Err(error),
            Outcome::Lost(error) => return self.lose(&chunk.table.id.source, error),
            Outcome::Committed(commit, streamed) => Outcome::Committed(commit, streamed),
            // The reason has been reported already.
            _ if self.survey.is_lost(&chunk.table.id.source) => return Ok(()),
            outcome => outcome,
        };
        if self.queue.table(at).is_another(&chunk.table) {
            // The chunk was read from the table that had this name before; all of the new table is in the queue.
            return match outcome {
                Outcome::Committed(commit, _) => self.archive.retract(&commit).await,
                _ => Ok(()),
            };
        }
        match outcome {
            // Another chunk has found a value that the type of this chunk's column cannot hold.
            Outcome::Committed(commit, _) if self.queue.table(at).is_retyped(&chunk.table) => {
                self.archive.retract(&commit).await?;
                self.queue.requeue(at, &[chunk.slice]);
            }
            Outcome::Committed(commit, _) if !self.take_over(at, &commit).await? => {
                self.writer.progress.chunk_done_of(&commit.source, 0);
            }
            Outcome::Committed(commit, streamed) => {
                self.committed.insert((self.surveyed[at], commit.slice), chunk.table);
                if commit.rows > 0 && self.written.insert(self.surveyed[at]) {
                    self.summary.tables_written += 1;
                }
                self.summary.chunks += 1;
                self.summary.rows += commit.rows;
                self.summary.bytes += commit.files.iter().map(|file| file.bytes).sum::<u64>();
                self.learn(at, commit.slice, commit.rows, streamed);
                self.writer.progress.chunk_done_of(&commit.source, commit.rows);
            }
            Outcome::TakenBy => self.writer.progress.chunk_done_of(&chunk.table.id.source, 0),
            Outcome::Split(error) => {
                tracing::info!("{chunk}: {error}; the window is halved");
                if !self.queue.split(at, &chunk) {
                    self.fail(&chunk, &error);
                }
            }
            Outcome::Abandoned(why) => {
                tracing::info!("{chunk}: abandoned ({why:?}); it is read in narrower windows");
                self.queue.abandoned(at, &chunk, why);
            }
            Outcome::Relist(error) => {
                tracing::info!("{chunk}: {error}; the tables are listed again");
                self.relist(at, chunk, error);
            }
            Outcome::Failed(error) => self.fail(&chunk, &error),
            Outcome::Lost(_) | Outcome::Stop(_) => {} // handled above
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, chunk: &Chunk, error: &Error) {
        self.writer.progress.note(&format!("failed: {chunk}: {error}"));
        let failed = Failed::chunk(chunk, error);
        if self.summary.hint.is_none() {
            self.summary.hint = error.hint_text().map(str::to_owned);
        }
        self.summary.failed.push(failed);
    }

    pub(super) fn source(&self, at: usize) -> &Arc<dyn Source> {
        &self.survey.sources[self.survey.tables[self.surveyed[at]].source].source
    }

    fn worker(
        &self,
        at: usize,
        chunk: Chunk,
        permit: Permit,
    ) -> impl Future<Output = Done> + use<> {
        let source = Arc::clone(self.source(at));
        let worker = Worker {
            archive: self.archive.clone(),
            writer: self.writer.clone(),
            shared: Arc::clone(&self.shared),
            path: self.paths[self.surveyed[at]].clone(),
            retry: self.retry.clone(),
            can_split: self.queue.can_split(at, &chunk),
            patience: self.patience(at, &chunk),
        };
        async move {
            let outcome = worker.work(source.as_ref(), &chunk, permit).await;
            Done::Chunk(at, chunk, outcome)
        }
    }

    /// Checks the store once more when everything is committed, and seals. Returns `false` if the store shows that
    /// something is still to be done.
    async fn finish(&mut self) -> Result<bool> {
        let me = self.writer.run.clone();
        if self.idle {
            // Runs that died during their survey may have left files beside the seal. Only these are removed.
            match self.job.shard {
                Some(_) => self.complete_shard(),
                None => {
                    self.archive.clear_work(&me).await?;
                    self.complete();
                }
            }
            return Ok(true);
        }
        let mut artifacts = None;
        loop {
            if self.job.shard.is_none() {
                self.writer.progress.doing("sealing the archive");
                self.wait_for_older_runs(&me).await?;
            }
            let state = self.archive.state().await?;
            if let Some(gap) = self.queue_gaps(&state) {
                self.gap_rounds += 1;
                return match self.gap_rounds {
                    1..=3 => Ok(false),
                    _ => Err(Error::incomplete(format!(
                        "{gap} was committed but has disappeared: something else changes the archive"
                    ))),
                };
            }
            if let Some((table, time)) = state.uncovered().first_key_value()
                && self.job.shard.is_none()
            {
                let slice = time.windows().first().copied().map_or(Slice::NullTime, Slice::from);
                return Err(Error::incomplete(format!(
                    "{table} {slice} was committed by a run that has ended, but it overlaps an earlier commit of another \
                     run, and no source of this run has that table"
                ))
                .hint("run the command that exports this table again"));
            }
            if self.retract_what_changed(&state).await? || !self.summary.failed.is_empty() {
                return Ok(false);
            }
            if self.job.shard.is_some() {
                self.complete_shard();
                return Ok(true);
            }
            let artifacts = match &artifacts {
                Some(saved) => saved,
                None => artifacts.insert(self.artifacts().await?),
            };
            if !self.summary.failed.is_empty() {
                return Ok(false);
            }
            if self.seal(&state, artifacts).await? {
                self.complete();
                return Ok(true);
            }
        }
    }

    /// Seals the archive. Returns `false` if another run has committed meanwhile, so that the archive must be checked
    /// again.
    async fn seal(
        &mut self,
        state: &ArchiveIndex,
        artifacts: &[(String, Artifact)],
    ) -> Result<bool> {
        let abandoned = self.abandoned(state).await?;
        self.warn_of_abandoned(&abandoned);
        self.warn_of_moments(state);
        self.tell_of_damage(state);
        let mut gone = gone(self.job, &self.survey, state, &self.started);
        for table in &mut gone {
            let known = std::mem::take(&mut table.missing).into_iter();
            let more = abandoned.get(&table.table).into_iter().flat_map(Coverage::windows);
            table.missing = known.chain(more.copied()).collect::<Coverage>().windows().to_vec();
        }
        let run = RunEntry {
            format: FORMAT,
            moveout: env!("CARGO_PKG_VERSION").to_owned(),
            run: self.writer.run.clone(),
            range: RangeText { from: self.job.range.0.clone(), to: self.job.range.1.clone() },
            sources: self.survey.infos(),
            started: self.started.clone(),
            ended: rfc3339(now()),
            excluded: self.survey.excluded.clone(),
            outside: self.survey.outside.clone(),
            artifacts: self.summary.artifacts.clone(),
            artifact_files: None, // the seal knows them
            kept: self.summary.kept.clone(),
            selected: self.selected(),
            gone,
            warnings: self.summary.warnings.clone(),
            markers: self.markers().await,
            requested: self.requested(state),
            earlier: self.unsealed(state).await?,
        };
        match &self.beating {
            Some(beating) => self.archive.seal(beating, Seal { run, artifacts }).await,
            None => Ok(false),
        }
    }

    /// Queues what is missing because a commit of this run overlaps an earlier commit of another run and therefore does not
    /// count, in windows that fit. Returns one of the gaps.
    fn queue_gaps(&mut self, state: &ArchiveIndex) -> Option<String> {
        let (committed, uncovered) = (state.by_table(), state.uncovered());
        let mut found = None;
        for (at, surveyed) in self.survey.tables.iter().enumerate() {
            let Surveyed { table, bounds, .. } = surveyed;
            let commits = committed.get(&table.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().map(|commit| commit.slice).collect();
            let (mut gaps, mut null_time) = surveyed.remaining(&coverage);
            // This includes time in commits of another run that do not count because this run was earlier, also outside of
            // what this run requested. A shard leaves that to the run that seals.
            if let Some(uncovered) = uncovered.get(&table.id)
                && self.job.shard.is_none()
            {
                let all: Coverage = gaps.iter().chain(uncovered.windows()).copied().collect();
                gaps = all.windows().to_vec();
                null_time |= uncovered.has_null_time();
            }
            let gap =
                gaps.first().copied().map(Slice::from).or(null_time.then_some(Slice::NullTime));
            if let Some(gap) = gap {
                found.get_or_insert_with(|| format!("{} {gap}", table.id));
                let width = width_after(commits, surveyed.first_width);
                self.queue.add(Arc::clone(table), *bounds, gaps, null_time, width);
                self.surveyed.push(at);
            }
        }
        found
    }

    /// The records of the runs that died, since commits name them.
    async fn unsealed(&self, state: &ArchiveIndex) -> Result<Vec<RunEntry>> {
        let me = &self.writer.run;
        let plans = self.archive.plans().await?.into_iter();
        let dead =
            plans.filter(|plan| plan.run != *me && !state.living(me).any(|r| r.run == plan.run));
        Ok(dead.map(RunEntry::from).collect())
    }

    /// When several runs finish together, the oldest seals; the others wait and check again.
    async fn wait_for_older_runs(&self, me: &str) -> Result<()> {
        let mut told = false;
        loop {
            let runs = self.archive.runs().await?;
            let Some(older) = living(&runs, me).find(|run| run.run.as_str() < me) else {
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
        for source in self
            .survey
            .sources
            .iter()
            .map(|reached| Arc::clone(&reached.source))
            .collect::<Vec<_>>()
        {
            let artifacts = match self.retry.with_retry(source.name(), || source.artifacts()).await
            {
                Ok(artifacts) => artifacts,
                Err(error) => {
                    self.lose(source.name(), error)?;
                    continue;
                }
            };
            let name = source.name().to_owned();
            all.extend(artifacts.files.into_iter().map(|artifact| (name.clone(), artifact)));
            let statuses = artifacts.statuses;
            statuses
                .iter()
                .for_each(|a| tracing::info!("{} of {}: {}", a.kind, a.source, a.status));
            self.summary.artifacts.extend(statuses);
        }
        Ok(all)
    }
}
