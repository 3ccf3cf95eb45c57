//! One chunk in flight: its attempts, and what follows from the class of an error.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::archive::Archive;
use crate::archive::commit::Commit;
use crate::error::{Class, Error, Result};
use crate::export::chunk_writer::ChunkWriter;
use crate::model::Chunk;
use crate::retry::Retry;
use crate::source::Source;

/// This many halved windows count like one failed attempt.
const SPLITS_A_FAILURE: u32 = 8;
/// After this many halved windows without any success, the source is probed.
const SPLITS_A_PROBE: u32 = 16;
/// After this many failed chunks without any success, the run ends as incomplete.
const FAILED_CHUNKS: u32 = 5;
/// The name of the archive in messages about waiting.
const ARCHIVE: &str = "the archive";

/// What the chunks in flight share.
#[derive(Debug)]
pub(super) struct Shared {
    /// One for each chunk that may be read at once.
    pub(super) permits: Arc<Semaphore>,
    /// The weighted number of halved windows and failed chunks since the last success.
    pub(super) failures: Mutex<u32>,
}

/// How work on a chunk ended.
pub(super) enum Outcome {
    Committed(Box<Commit>),
    /// Another run was first.
    TakenBy,
    Split(Error),
    Relist(Error),
    Failed(Error),
    Stop(Error),
}

/// One chunk in flight, with its attempts.
pub(super) struct Worker {
    pub(super) archive: Archive,
    pub(super) writer: ChunkWriter,
    pub(super) shared: Arc<Shared>,
    pub(super) retry: Retry,
    pub(super) path: String,
    pub(super) can_split: bool,
}

impl Worker {
    /// Makes attempts until the chunk is committed, or until an error asks for something else.
    pub(super) async fn work(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: OwnedSemaphorePermit,
    ) -> Outcome {
        self.attempts(source, chunk, permit).await.unwrap_or_else(Outcome::Stop)
    }

    /// An error ends the run.
    async fn attempts(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: OwnedSemaphorePermit,
    ) -> Result<Outcome> {
        let (retry, of) = (&self.retry, source.name());
        let mut first = Some(permit);
        let (mut failures, mut waits) = (0, 0);
        let mut is_last = false;
        let mut failing = None;
        loop {
            // The permit is taken before the pause for the quota, so that chunks that waited for it heed the quota.
            let permit = match first.take() {
                Some(permit) => permit,
                None => retry.interrupt().or(self.permit()).await?,
            };
            retry.wait_for_quota(of).await?;
            let began = Instant::now();
            let error = match retry.interrupt().or_soon(self.once(source, chunk, permit)).await {
                Ok(outcome) => {
                    retry.worked(of, began);
                    *self.failures() = 0;
                    return Ok(outcome);
                }
                Err(_) if retry.interrupt().came() => return Err(Error::interrupted()),
                Err(error) => error,
            };
            let split = match error.class() {
                Class::Stop => return Err(error.context(chunk)),
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
                // If the source is away, narrow windows fail like wide ones.
                let splits = self.count_failure(1, chunk, &error)?;
                if splits % SPLITS_A_PROBE == 0 && self.was_away(source, chunk).await? {
                    (failures, failing) = (0, None);
                    continue;
                }
                return Ok(Outcome::Split(error));
            }
            if failures < retry.attempts() {
                retry.wait_after(failures, &format!("{chunk}: {error}")).await?;
                continue;
            }
            // If nothing else has worked in the meantime, the cause may not be this chunk.
            if is_last || retry.has_worked_since(of, failing_since) {
                self.count_failure(retry.attempts() * SPLITS_A_FAILURE, chunk, &error)?;
                return Ok(Outcome::Failed(error));
            }
            if self.was_away(source, chunk).await? {
                (failures, failing) = (0, None)
            } else {
                // It may have come back just before it was asked.
                is_last = true
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await;
        permit.map_err(|_| Error::stop("the workers have ended"))
    }

    async fn once(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: OwnedSemaphorePermit,
    ) -> Result<Outcome> {
        let mut commit = self.writer.write(source, chunk, &self.path, permit).await?;
        if self.archive.commit(&mut commit).await? {
            Ok(Outcome::Committed(Box::new(commit)))
        } else {
            Ok(Outcome::TakenBy)
        }
    }

    /// Probes the source and the store until both answer, or until the patience is over. `true` when one of them did
    /// not answer at once.
    async fn was_away(&self, source: &dyn Source, chunk: &Chunk) -> Result<bool> {
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
            // This is an answer, too; the chunk's own error says what is wrong with the table.
            Err(error) if error.class() == Class::Fail => {}
            Err(error) => return Err(error),
        }
        self.retry.with_retry(ARCHIVE, ask_store).await?;
        Ok(asked.load(Ordering::Relaxed) > 2)
    }

    /// Counts a failure although the source answers. An error when so much has failed without any success that nothing
    /// works any more. Halving a wide window down to a narrow one takes many steps, so these weigh less.
    fn count_failure(&self, weight: u32, chunk: &Chunk, error: &Error) -> Result<u32> {
        let mut failures = self.failures();
        *failures += weight;
        if *failures > FAILED_CHUNKS * self.retry.attempts() * SPLITS_A_FAILURE {
            Err(Error::incomplete(format!("nothing works any more: {chunk}: {error}")))
        } else {
            Ok(*failures)
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, u32> {
        self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
