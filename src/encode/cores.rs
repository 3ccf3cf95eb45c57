//! How many threads may encode at once: an encoder that runs alone takes the cores that others leave idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The cores of this machine, shared by all encoders of a run.
#[derive(Debug, Clone)]
pub struct Cores(Arc<AtomicUsize>);

impl Default for Cores {
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Cores {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// Takes idle cores, at most so many; none of them may be idle. They are given back when the
    /// value is dropped.
    pub(super) fn take(&self, wanted: usize) -> Taken<'_> {
        let mut taken = 0;
        // The closure never refuses, so what comes back is always Ok.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| {
            taken = idle.min(wanted);
            Some(idle - taken)
        });
        Taken { cores: self, count: taken }
    }
}

/// Cores in use until this is dropped.
pub(super) struct Taken<'a> {
    cores: &'a Cores,
    /// How many they are.
    pub(super) count: usize,
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
    fn cores_are_taken_once_and_given_back() {
        let cores = Cores::new(3);
        let first = cores.take(2);
        let second = cores.take(2);
        assert_eq!((first.count, second.count, cores.take(1).count), (2, 1, 0));
        drop(first);
        assert_eq!(cores.take(5).count, 2);
    }
}
