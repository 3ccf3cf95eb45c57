//! Repeats whatever may fail temporarily, with pauses, until the patience of the run is over or the user wants to stop.
//! This is the only place that waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::Limits;
use crate::error::{Class, Error, Result};
use crate::progress::Progress;

/// How long to wait for a quota when the server does not say how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// The shortest pause before the last attempt that the patience allows.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// How long the work in flight may take to tidy up after the user wants to stop.
pub const GRACE: Duration = Duration::from_millis(1500);

/// The user's wish to stop. Nothing else ends the process as interrupted.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Follows a channel that turns true when the user wants to stop.
    pub fn new(wish: watch::Receiver<bool>) -> Self {
        Self(wish)
    }

    /// Whether the user wants to stop.
    pub fn came(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the user wants to stop. A closed channel does not count as that wish.
    pub async fn wait(&self) {
        if self.0.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    }

    /// Does the work unless the user wants to stop. In that case the work is dropped at once, and threads that do it
    /// find their connections closed.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.wait() => Err(Error::interrupted()),
        }
    }

    /// The same, but the work gets a moment to end by itself when the user wants to stop.
    pub async fn or_soon<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let soon = async {
            self.wait().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            done = work => done,
            () = soon => Err(Error::interrupted()),
        }
    }
}

/// What a run knows about its sources and its archive, and how patient it is with them. Clones share this.
#[derive(Debug, Clone)]
pub struct Retry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    attempts: u32,
    patience: Duration,
    first_pause: Duration,
    progress: Progress,
    interrupt: Interrupt,
    reaches: Mutex<HashMap<String, Reach>>,
}

/// The state of one source or store.
#[derive(Debug, Default)]
struct Reach {
    /// When the last successful piece of work began.
    worked: Option<Instant>,
    /// When the first failure since the last answer was.
    failing: Option<Instant>,
    /// Until when its quota is used up.
    paused: Option<Instant>,
}

impl Retry {
    /// Takes the patience from the limits.
    pub fn new(limits: &Limits, progress: &Progress, interrupt: Interrupt) -> Self {
        Self(Arc::new(Inner {
            attempts: limits.attempts,
            patience: limits.patience,
            first_pause: limits.first_pause,
            progress: progress.clone(),
            interrupt,
            reaches: Mutex::default(),
        }))
    }

    /// The user's wish to stop.
    pub fn interrupt(&self) -> &Interrupt {
        &self.0.interrupt
    }

    /// The number of attempts at something that may itself be the cause of its failures.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Repeats a request to `of` until it succeeds. Quotas are waited for; temporary errors are retried with back-off
    /// until the attempts are used up although `of` answers other requests, or the patience is over.
    pub async fn with_retry<T, F: Future<Output = Result<T>>>(
        &self,
        of: &str,
        ask: impl Fn() -> F,
    ) -> Result<T> {
        let (mut failures, mut waits) = (0, 0);
        loop {
            self.wait_for_quota(of).await?;
            let began = Instant::now();
            let error = match self.0.interrupt.or(ask()).await {
                Ok(answer) => {
                    self.answered(of, began);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match error.class() {
                Class::Stop | Class::Fail => return Err(error),
                Class::Wait(pause) => {
                    waits += 1;
                    self.quota(of, pause, waits, &error);
                }
                // A gateway reports "too much" also when the server behind it is away.
                Class::Retry | Class::RetryThenSplit | Class::Split | Class::SchemaChanged => {
                    failures += 1;
                    let failing = self.failed(of, &error)?;
                    self.back_off(of, failures, failing, &error).await?;
                }
            }
        }
    }

    /// Records that a request to `of` which began at that moment succeeded. Work that began before a failure proves
    /// nothing about it, because rows that were read earlier may be written long after.
    pub fn answered(&self, of: &str, began: Instant) {
        self.reach(of, |reach| {
            reach.failing = reach.failing.filter(|failing| *failing > began);
        });
    }

    /// Records that a whole piece of work which began at that moment was done, up to its commit.
    pub fn worked(&self, of: &str, began: Instant) {
        self.answered(of, began);
        self.reach(of, |reach| reach.worked = reach.worked.max(Some(began)));
    }

    /// Whether a whole piece of work with `of` that began after that moment was done. An answer alone is not enough:
    /// the archive may be away.
    pub fn has_worked_since(&self, of: &str, then: Instant) -> bool {
        self.reach(of, |reach| reach.worked.is_some_and(|worked| worked > then))
    }

    /// Records a failure at `of`. Returns how long everything has failed there, or an error when the patience is over.
    fn failed(&self, of: &str, error: &Error) -> Result<Duration> {
        let (failing, is_first) = self.reach(of, |reach| {
            let is_first = reach.failing.is_none();
            (reach.failing.get_or_insert_with(Instant::now).elapsed(), is_first)
        });
        if is_first || failing < self.0.patience {
            Ok(failing)
        } else {
            Err(Error::incomplete(format!(
                "{of} has not answered for {}: {error}",
                for_people(failing)
            ))
            .hint(
                "run the same command again to continue; `patience` in the configuration says for how long it is \
                 tried",
            ))
        }
    }

    async fn back_off(
        &self,
        of: &str,
        failures: u32,
        failing: Duration,
        error: &Error,
    ) -> Result<()> {
        let left = self.0.patience.saturating_sub(failing);
        let told = if failing < Duration::from_secs(1) {
            error.to_string()
        } else {
            format!(
                "{of} has not answered for {}, trying again for another {}: {error}",
                for_people(failing),
                for_people(left)
            )
        };
        self.pause(self.pause_after(failures).min(left.max(LEAST_PAUSE)), &told).await
    }

    /// Pauses before the next attempt, longer after each failure.
    pub async fn wait_after(&self, failures: u32, told: &str) -> Result<()> {
        self.pause(self.pause_after(failures), told).await
    }

    /// Doubled each time, with jitter, so that workers which failed together do not come back together.
    fn pause_after(&self, failures: u32) -> Duration {
        let ceiling = self.0.first_pause * 2u32.pow(failures.saturating_sub(1).min(6));
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    async fn pause(&self, pause: Duration, told: &str) -> Result<()> {
        self.0.progress.waiting(Instant::now() + pause, told);
        tracing::info!("{told}; the next attempt comes in {pause:?}");
        self.sleep(pause).await
    }

    /// Records that the quota of `of` is used up, which holds for all of its chunks. Where the server does not say for
    /// how long, the pauses become longer and longer.
    pub fn quota(&self, of: &str, pause: Option<Duration>, waits: u32, error: &Error) {
        let until = Instant::now() + pause.unwrap_or(DEFAULT_WAIT * waits.clamp(1, 12));
        self.reach(of, |reach| reach.paused = reach.paused.max(Some(until)));
        self.0.progress.waiting(until, &error.to_string());
    }

    /// Waits until the quota of `of` allows another request.
    pub async fn wait_for_quota(&self, of: &str) -> Result<()> {
        while let Some(pause) = self.pause_of_quota(of) {
            self.sleep(pause).await?;
        }
        Ok(())
    }

    /// Whether the quota of `of` allows no request now.
    pub fn is_paused(&self, of: &str) -> bool {
        self.pause_of_quota(of).is_some()
    }

    fn pause_of_quota(&self, of: &str) -> Option<Duration> {
        let until = self.reach(of, |reach| reach.paused)?;
        Some(until.saturating_duration_since(Instant::now())).filter(|pause| !pause.is_zero())
    }

    async fn sleep(&self, pause: Duration) -> Result<()> {
        let sleep = async {
            tokio::time::sleep(pause).await;
            Ok(())
        };
        self.0.interrupt.or(sleep).await
    }

    fn reach<T>(&self, of: &str, act: impl FnOnce(&mut Reach) -> T) -> T {
        let mut reaches: MutexGuard<'_, HashMap<String, Reach>> =
            self.0.reaches.lock().unwrap_or_else(PoisonError::into_inner);
        act(reaches.entry(of.to_owned()).or_default())
    }
}

/// `40 s`, `14 min`.
fn for_people(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}
