//! Limits how many threads encode or decode at the same time. Each may use the cores that the others leave idle.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The cores of this machine, which all encoders of a run, or all verifying threads, share.
#[derive(Debug, Clone)]
pub struct Cores(Arc<AtomicUsize>);

impl Default for Cores {
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Cores {
    /// This many cores.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// Takes at most this many idle cores, perhaps none. They are released when the value is dropped.
    pub fn take(&self, wanted: usize) -> Taken<'_> {
        let mut taken = 0;
        // The closure never refuses, so the result is always Ok.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| {
            taken = idle.min(wanted);
            Some(idle - taken)
        });
        Taken { cores: self, count: taken }
    }

    /// The number of cores that nobody has taken.
    pub fn idle(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Does all jobs, each once, on this thread and on idle cores. Ends at the first error. `held` is the number of cores
    /// that this thread has taken for itself: one or none.
    pub fn work<T: Send, E: Send>(
        &self,
        held: usize,
        jobs: impl ExactSizeIterator<Item = T> + Send,
        panicked: impl Fn() -> E,
        work: impl Fn(T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let taken = self.take(jobs.len().saturating_sub(held));
        let jobs = Mutex::new(jobs);
        let run = || {
            loop {
                // The lock must be released before the work, so the job is not taken in the condition of the `match`.
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
                match job {
                    Some(job) => work(job)?,
                    None => return Ok(()),
                }
            }
        };
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..taken.count + held).map(|_| scope.spawn(run)).collect();
            let mine = run();
            let outcomes =
                helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|_| Err(panicked())));
            outcomes.fold(mine, Result::and)
        })
    }
}

/// Cores in use until this is dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    cores: &'a Cores,
    /// The number of cores.
    pub count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.cores.0.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_taken_once_and_released() {
        let cores = Cores::new(3);
        let first = cores.take(2);
        let second = cores.take(2);
        assert_eq!((first.count, second.count, cores.take(1).count), (2, 1, 0));
        drop(first);
        assert_eq!((cores.idle(), cores.take(5).count), (2, 2));
    }

    #[test]
    fn each_job_is_done_once_and_the_first_error_ends_the_work() {
        let cores = Cores::new(3);
        for held in [0, 1] {
            let _own = cores.take(held);
            let sum = AtomicUsize::new(0);
            let add = |job: usize| {
                sum.fetch_add(job, Ordering::Relaxed);
                Ok::<(), &str>(())
            };
            assert_eq!(cores.work(held, (0..100).map(|job| job + 1), || "panicked", add), Ok(()));
            assert_eq!(sum.into_inner(), 5050);
            let fails = |job| if job == 7 { Err("seven") } else { Ok(()) };
            assert_eq!(cores.work(held, 0..100, || "panicked", fails), Err("seven"));
        }
        assert_eq!(cores.idle(), 3);
    }
}
