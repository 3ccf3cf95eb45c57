//! One chunk in flight: its attempts, and what the class of an error makes of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::archive::Archive;
use crate::archive::commit::Commit;
use crate::chunk::Writer;
use crate::error::{Class, Error, Result};
use crate::source::{Chunk, Source};
use crate::survey::{DEFAULT_WAIT, backoff};

/// So many halved windows weigh like one failed attempt.
const SPLITS_A_FAILURE: u32 = 8;

/// What the chunks in flight tell each other.
#[derive(Debug)]
pub(super) struct Shared {
    /// One for each chunk that may be read at once.
    pub(super) permits: Arc<Semaphore>,
    /// A quota holds for everybody.
    pub(super) paused: Mutex<Option<Instant>>,
    /// Failures since the last success, over all chunks.
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
    pub(super) writer: Writer,
    pub(super) shared: Arc<Shared>,
    pub(super) path: String,
    pub(super) attempts: u32,
    pub(super) can_split: bool,
}

impl Worker {
    /// Tries until it is committed, or until the error says what else to do.
    pub(super) async fn work(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: OwnedSemaphorePermit,
    ) -> Outcome {
        let mut first = Some(permit);
        let mut failures = 0;
        let mut waits = 0;
        loop {
            // It comes before the pause: what waited for it obeys a quota, too. Nobody closes it.
            let permit = match first.take() {
                Some(permit) => permit,
                None => match Arc::clone(&self.shared.permits).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => return Outcome::Stop(Error::interrupted()),
                },
            };
            if self.pause().await.is_err() {
                return Outcome::Stop(Error::interrupted());
            }
            let error = match self.once(source, chunk, permit).await {
                Ok(outcome) => {
                    *self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner) = 0;
                    return outcome;
                }
                Err(error) => error,
            };
            if *self.writer.interrupted.borrow() {
                return Outcome::Stop(Error::interrupted());
            }
            failures += 1;
            let split = match error.class() {
                Class::Stop => return Outcome::Stop(error),
                Class::Fail => return Outcome::Failed(error),
                Class::SchemaChanged => return Outcome::Relist(error),
                Class::Wait(pause) => {
                    failures -= 1;
                    waits += 1;
                    // The server did not say how long: ask less and less often.
                    let pause = pause.unwrap_or(DEFAULT_WAIT * waits.min(12));
                    self.pause_all(pause, &error);
                    continue;
                }
                Class::Split => self.can_split,
                Class::RetryThenSplit => failures >= 2 && self.can_split,
                Class::Retry => false,
            };
            if self.count_failure(split) {
                let error = error.context(chunk).context("nothing works any more");
                return Outcome::Stop(Error::incomplete(error));
            }
            if split {
                return Outcome::Split(error);
            }
            if failures >= self.attempts {
                return Outcome::Failed(error);
            }
            let pause = backoff(failures);
            self.writer.progress.waiting(Instant::now() + pause, &format!("{chunk}: {error}"));
            tracing::info!("{chunk}: {error}; attempt {} in {pause:?}", failures + 1);
            if self.sleep(pause).await.is_err() {
                return Outcome::Stop(Error::interrupted());
            }
        }
    }

    async fn once(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        permit: OwnedSemaphorePermit,
    ) -> Result<Outcome> {
        let commit = self.writer.write(source, chunk, &self.path, permit).await?;
        match self.archive.commit(&commit).await? {
            true => Ok(Outcome::Committed(Box::new(commit))),
            false => Ok(Outcome::TakenBy),
        }
    }

    /// Counts a failure; `true` when so many came without any success between them that the source
    /// or the store must be gone. Halving a wide window down to a narrow one takes many steps.
    fn count_failure(&self, split: bool) -> bool {
        let mut failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures += if split { 1 } else { SPLITS_A_FAILURE };
        *failures > self.attempts * 5 * SPLITS_A_FAILURE
    }

    fn pause_all(&self, pause: Duration, error: &Error) {
        let until = Instant::now() + pause;
        let mut paused = self.shared.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_none_or(|before| before < until) {
            *paused = Some(until);
        }
        self.writer.progress.waiting(until, &error.to_string());
    }

    async fn pause(&self) -> Result<()> {
        loop {
            let until = *self.shared.paused.lock().unwrap_or_else(PoisonError::into_inner);
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None | Some(Duration::ZERO) => return Ok(()),
                Some(pause) => self.sleep(pause).await?,
            }
        }
    }

    async fn sleep(&self, pause: Duration) -> Result<()> {
        let mut stop = self.writer.interrupted.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(Error::interrupted()),
        }
    }
}
