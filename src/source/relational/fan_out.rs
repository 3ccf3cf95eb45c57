//! Divides a chunk among several sessions: each takes the next part until none is left or one has failed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The parts of a chunk, and why one of them failed.
pub(in crate::source) struct Parts<P, E> {
    parts: Vec<P>,
    next: AtomicUsize,
    over: AtomicBool,
    failed: Mutex<Option<(u8, E)>>,
}

impl<P, E> Parts<P, E> {
    pub(in crate::source) fn new(parts: Vec<P>) -> Self {
        Self {
            parts,
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            failed: Mutex::default(),
        }
    }

    /// The next part that no session has taken.
    pub(in crate::source) fn take(&self) -> Option<&P> {
        if self.is_over() { None } else { self.parts.get(self.next.fetch_add(1, Ordering::AcqRel)) }
    }

    /// Whether there is a part that no session has taken.
    pub(in crate::source) fn is_left(&self) -> bool {
        !self.is_over() && self.next.load(Ordering::Acquire) < self.parts.len()
    }

    /// Whether a part has failed, which makes the others useless.
    pub(in crate::source) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Records a failure. The first one of the highest rank is kept, since later ones are usually its consequences.
    pub(in crate::source) fn fail(&self, rank: u8, why: E) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|(before, _)| *before < rank) {
            *failed = Some((rank, why));
        }
        self.over.store(true, Ordering::Release);
    }

    /// Why the chunk failed; `None` if every part was read.
    pub(in crate::source) fn failure(self) -> Option<E> {
        let failed = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map(|(_, why)| why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_taken_once_and_none_after_a_failure() {
        let parts = Parts::<_, &str>::new(vec![1, 2, 3]);
        assert_eq!((parts.take(), parts.take()), (Some(&1), Some(&2)));
        assert!(parts.is_left());
        parts.fail(1, "cut off");
        parts.fail(3, "no such column");
        parts.fail(3, "its consequence");
        assert!(parts.is_over() && !parts.is_left() && parts.take().is_none());
        assert_eq!(parts.failure(), Some("no such column"));
        assert_eq!(Parts::<u8, &str>::new(Vec::new()).failure(), None);
    }
}
