//! Works on one chunk in flight: makes attempts, and acts on the class of an error.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::archive::Archive;
use crate::archive::commit::Commit;
use crate::error::{Class, Error, Result};
use crate::export::chunk_writer::{ChunkWriter, Failure, Stream, Written};
use crate::export::controller::{Abandoned, Patience};
use crate::export::permits::{Permit, Permits};
use crate::model::Chunk;
use crate::retry::Retry;
use crate::source::Source;

/// This many halved windows count like one failed attempt.
const SPLITS_A_FAILURE: u32 = 8;
/// After this many halved windows without any success, the source is probed.
const SPLITS_A_PROBE: u32 = 16;
/// After this many failed chunks of a source without any success, it is given up.
const FAILED_CHUNKS: u32 = 5;
/// The name of the archive in messages about waiting.
const ARCHIVE: &str = "the archive";

/// What all chunks in flight share.
#[derive(Debug)]
pub(super) struct Shared {
    /// One permit for each chunk that may be read at the same time.
    pub(super) permits: Permits,
    /// How many chunks in flight only wait: for their source, its quota, or a permit.
    pub(super) waiting: AtomicUsize,
    /// For each source, the weighted number of halved windows and failed chunks since its last success.
    pub(super) failures: Mutex<HashMap<String, u32>>,
}

/// Counts a chunk while it only waits.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How work on a chunk ended.
pub(super) enum Outcome {
    /// With the time that its stream took.
    Committed(Box<Commit>, Duration),
    /// Another run has committed the chunk first.
    TakenBy,
    Split(Error),
    /// The chunk was a probe that did not keep up.
    Abandoned(Abandoned),
    Relist(Error),
    Failed(Error),
    /// The source has failed.
    Lost(Error),
    /// The run cannot go on.
    Stop(Error),
}

/// Works on one chunk in flight.
pub(super) struct Worker {
    pub(super) archive: Archive,
    pub(super) writer: ChunkWriter,
    pub(super) shared: Arc<Shared>,
    pub(super) retry: Retry,
    pub(super) path: String,
    pub(super) can_split: bool,
    pub(super) patience: Option<Patience>,
}

impl Worker {
    /// Makes attempts until the chunk is committed, or until an error asks for something else.
    pub(super) async fn work(&self, source: &dyn Source, chunk: &Chunk, permit: Permit) -> Outcome {
        match self.attempts(source, chunk, permit).await {
            Ok(outcome) => outcome,
            Err(Failure::OfSource(error)) if !self.retry.interrupt().came() => Outcome::Lost(error),
            Err(Failure::OfSource(error) | Failure::OfRun(error)) => Outcome::Stop(error),
            Err(Failure::Abandoned(why)) => Outcome::Abandoned(why),
        }
    }

    /// The error of this method ends the run, or the work on the source.
    async fn attempts(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: Permit,
    ) -> Result<Outcome, Failure> {
        let (retry, of) = (&self.retry, source.name());
        let mut first = Some(permit);
        let (mut failures, mut waits) = (0, 0);
        let mut is_last = false;
        let mut failing = None;
        loop {
            let permit = match first.take() {
                Some(permit) => permit,
                None => retry.interrupt().or(self.waiting(self.permit(of))).await?,
            };
            // The quota may have been used up during the wait for the permit, which others need meanwhile.
            if retry.is_paused(of) {
                drop(permit);
                self.waiting(retry.wait_for_quota(of)).await?;
                continue;
            }
            let began = Instant::now();
            let once = async { Ok(self.once(source, chunk, permit).await) };
            let failure = match retry.interrupt().or_soon(once).await? {
                Ok(outcome) => {
                    retry.worked(of, began);
                    self.failures(|failures| failures.remove(of));
                    return Ok(outcome);
                }
                Err(_) if retry.interrupt().came() => return Err(Error::interrupted().into()),
                Err(failure) => failure,
            };
            let error = match failure {
                Failure::OfRun(error) if error.class() == Class::Stop => {
                    return Err(Failure::OfRun(error.context(chunk)));
                }
                Failure::OfRun(error) | Failure::OfSource(error) => error,
                Failure::Abandoned(why) => return Ok(Outcome::Abandoned(why)),
            };
            let split = match error.class() {
                Class::Stop => return Err(Failure::OfSource(error.context(chunk))),
                Class::Fail => return Ok(Outcome::Failed(error)),
                Class::SchemaChanged => return Ok(Outcome::Relist(error)),
                Class::Wait(pause) => {
                    waits += 1;
                    retry.quota(of, pause, waits, &error);
                    continue;
                }
                Class::Split => self.can_split,
                Class::RetryThenSplit => failures >= 1 && self.can_split,
                Class::Retry => false,
            };
            failures += 1;
            let failing_since = *failing.get_or_insert_with(Instant::now);
            if split {
                // If the source is unreachable, narrow windows fail like wide ones.
                let splits = self.count_failure(1, of, chunk, &error)?;
                if splits % SPLITS_A_PROBE == 0
                    && self.waiting(self.was_away(source, chunk)).await?
                {
                    (failures, failing) = (0, None);
                    continue;
                }
                return Ok(Outcome::Split(error));
            }
            if failures < retry.attempts() {
                let told = format!("{chunk}: {error}");
                self.waiting(retry.wait_after(failures, &told)).await?;
                continue;
            }
            // If nothing else has worked meanwhile, the cause may not be this chunk.
            if is_last || retry.has_worked_since(of, failing_since) {
                let weight = retry.attempts() * SPLITS_A_FAILURE;
                self.count_failure(weight, of, chunk, &error)?;
                return Ok(Outcome::Failed(error));
            }
            if self.waiting(self.was_away(source, chunk)).await? {
                (failures, failing) = (0, None)
            } else {
                // The source may have come back just before it was asked.
                is_last = true
            }
        }
    }

    async fn permit(&self, of: &str) -> Result<Permit> {
        self.shared.permits.acquire(vec![of.to_owned()]).await
    }

    /// Waits. Meanwhile the chunk is counted as waiting, so that another one can be in flight.
    async fn waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        let _waiting = Waiting::new(&self.shared);
        wait.await
    }

    async fn once(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: Permit,
    ) -> Result<Outcome, Failure> {
        let stream = Stream { rows_of_source: permit.rows(), patience: self.patience };
        let written = self.writer.write(source, chunk, &self.path, permit, stream).await?;
        let Written { mut commit, streamed } = written;
        if self.archive.commit(&mut commit).await? {
            Ok(Outcome::Committed(Box::new(commit), streamed))
        } else {
            Ok(Outcome::TakenBy)
        }
    }

    /// Probes the source and the store until both answer, or until the patience is exhausted. Returns `true` if one of them
    /// did not answer at once.
    async fn was_away(&self, source: &dyn Source, chunk: &Chunk) -> Result<bool, Failure> {
        let asked = AtomicU32::new(0);
        let ask_source = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            source.describe().await?;
            source.bounds(std::slice::from_ref(chunk.table.as_ref())).await
        };
        let ask_store = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            self.archive.store().get("bagit.txt").await
        };
        match self.retry.with_retry(source.name(), ask_source).await {
            Ok(_) => {}
            // This is an answer as well. The chunk's own error says what is wrong with the table.
            Err(error) if error.class() == Class::Fail => {}
            Err(error) => return Err(Failure::OfSource(error)),
        }
        self.retry.with_retry(ARCHIVE, ask_store).await?;
        Ok(asked.load(Ordering::Relaxed) > 2)
    }

    /// Counts a failure of a source that answers. It is an error if so much has failed without any success that the source
    /// is given up. Halving a wide window down to a narrow one takes many steps, so these weigh less.
    fn count_failure(
        &self,
        weight: u32,
        of: &str,
        chunk: &Chunk,
        error: &Error,
    ) -> Result<u32, Failure> {
        let failures = self.failures(|failures| {
            let failures = failures.entry(of.to_owned()).or_default();
            *failures += weight;
            *failures
        });
        if failures > FAILED_CHUNKS * self.retry.attempts() * SPLITS_A_FAILURE {
            let given_up =
                Error::incomplete(format!("everything fails, most recently {chunk}: {error}"));
            Err(Failure::OfSource(given_up))
        } else {
            Ok(failures)
        }
    }

    fn failures<T>(&self, act: impl FnOnce(&mut HashMap<String, u32>) -> T) -> T {
        act(&mut self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
