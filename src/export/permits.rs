//! Permits to read: they limit the number of chunks that are read at the same time, and are shared fairly between the
//! sources. A source that does not answer holds its permits until a time-out, so the others must not have to wait for all
//! its chunks.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// The permits of a run. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Permits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    free: usize,
    sources: HashMap<String, Share>,
    /// The most permits that each source may hold, where there is such a limit.
    limits: HashMap<String, usize>,
    /// How many rows the chunks of each source have had.
    rows: HashMap<String, Arc<AtomicU64>>,
    /// How many permits have been given so far.
    given: u64,
    /// The waiting requests, with the oldest at the front.
    waiting: VecDeque<Waiting>,
}

/// The share that a source has of the permits. The source with the smallest share comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    held: usize,
    /// When it was last given one, counted in permits given.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    /// The sources that the permit may be for.
    sources: Vec<String>,
    give: oneshot::Sender<Permit>,
}

/// The right to read one chunk of a source. It is returned on drop.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Permits,
    source: String,
    rows: Arc<AtomicU64>,
}

impl Permits {
    /// Permits for this many chunks at the same time.
    pub(super) fn new(most: usize) -> Self {
        let state = State { free: most, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a permit for any of some sources. Of all waiting sources, the one that holds the fewest permits comes
    /// first, then the one that got its last one the longest time ago, then the oldest request.
    pub(super) async fn acquire(&self, sources: Vec<String>) -> Result<Permit> {
        let (give, given) = oneshot::channel();
        self.state().waiting.push_back(Waiting { sources, give });
        self.give();
        given.await.map_err(|_| Error::stop("the workers have ended"))
    }

    /// Limits how many permits a source may hold. Those that it holds already stay. Returns whether the limit is new.
    pub(super) fn limit(&self, source: &str, most: usize) -> bool {
        let before = self.state().limits.insert(source.to_owned(), most);
        self.give();
        before != Some(most)
    }

    /// How many permits a source holds, and how many rows its chunks have had so far.
    pub(super) fn in_use(&self, source: &str) -> (usize, u64) {
        let state = self.state();
        let rows = state.rows.get(source).map_or(0, |rows| rows.load(Ordering::Relaxed));
        (state.sources.get(source).map_or(0, |share| share.held), rows)
    }

    /// Gives the free permits to waiting requests.
    fn give(&self) {
        loop {
            let mut state = self.state();
            let Some((at, source)) = state.next() else { return };
            let Some(waiting) = state.waiting.remove(at) else { return };
            state.free -= 1;
            state.given += 1;
            let given = state.given;
            let share = state.sources.entry(source.clone()).or_default();
            *share = Share { held: share.held + 1, last: given };
            let rows = Arc::clone(state.rows.entry(source.clone()).or_default());
            drop(state);
            // If nobody waits any more, the other end has been dropped, and this drops the permit.
            let _ = waiting.give.send(Permit { permits: self.clone(), source, rows });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next request and its source; `None` if there is no request, or no free permit.
    fn next(&mut self) -> Option<(usize, String)> {
        self.waiting.retain(|waiting| !waiting.give.is_closed());
        if self.free == 0 {
            return None;
        }
        let share = |source: &String| self.sources.get(source).copied().unwrap_or_default();
        let may_have_more = |source: &&String| {
            self.limits.get(*source).is_none_or(|most| share(source).held < *most)
        };
        let best = self.waiting.iter().enumerate().filter_map(|(at, waiting)| {
            let sources = waiting.sources.iter().filter(may_have_more);
            let source = sources.min_by_key(|source| share(source))?;
            Some((share(source), at, source))
        });
        best.min_by_key(|(share, at, _)| (*share, *at)).map(|(_, at, source)| (at, source.clone()))
    }
}

impl Permit {
    /// The source that it is for.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Counts the rows that the chunks of the source have had.
    pub(super) fn rows(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.rows)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        state.free += 1;
        if let Some(share) = state.sources.get_mut(&self.source) {
            share.held = share.held.saturating_sub(1);
        }
        drop(state);
        self.permits.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn now(permits: &Permits, sources: &[&str]) -> Option<Permit> {
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        permits.acquire(sources).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn the_source_that_holds_the_fewest_comes_first() {
        let permits = Permits::new(3);
        let both = ["a", "b"];
        let held: Vec<Permit> = (0..3).map(|_| now(&permits, &both).unwrap()).collect();
        let of: Vec<&str> = held.iter().map(Permit::source).collect();
        assert_eq!(of, ["a", "b", "a"]);
        assert!(now(&permits, &both).is_none(), "all are given");
        drop(held);
        assert!(now(&permits, &["a"]).is_some(), "whoever has gone away leaves nothing behind");
    }

    /// A source that never answers has more waiting chunks than the other.
    #[test]
    fn a_source_that_hangs_does_not_hold_up_the_other() {
        let permits = Permits::new(1);
        let hangs = now(&permits, &["hangs"]).unwrap();
        let acquire = |source: &str| Box::pin(permits.acquire(vec![source.to_owned()]));
        let (mut first, mut second) = (acquire("hangs"), acquire("hangs"));
        let mut other = acquire("other");
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut other).now_or_never().is_none());
        drop(hangs);
        let permit = other.now_or_never().unwrap().unwrap();
        assert_eq!(permit.source(), "other");
        drop(permit);
        assert!(first.now_or_never().is_some());
    }

    #[test]
    fn a_source_holds_no_more_than_its_limit() {
        let permits = Permits::new(4);
        permits.limit("a", 2);
        let both = ["a", "b"];
        let held: Vec<Permit> = (0..4).map(|_| now(&permits, &both).unwrap()).collect();
        assert!(now(&permits, &both).is_none());
        let of = |source| held.iter().filter(|permit| permit.source() == source).count();
        assert_eq!((of("a"), of("b"), permits.in_use("a").0), (2, 2, 2));
        drop(held);
        let held: Vec<Permit> = (0..2).map(|_| now(&permits, &["a"]).unwrap()).collect();
        let mut third = Box::pin(permits.acquire(vec!["a".to_owned()]));
        assert!((&mut third).now_or_never().is_none());
        assert!(permits.limit("a", 3));
        assert!(third.now_or_never().is_some(), "a higher limit counts at once");
        drop(held);
    }

    #[test]
    fn requests_of_one_source_are_served_in_their_order() {
        let permits = Permits::new(1);
        let held = now(&permits, &["a"]).unwrap();
        let mut waiting: Vec<_> =
            (0..3).map(|_| Box::pin(permits.acquire(vec!["a".to_owned()]))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        drop(held);
        for one in waiting {
            assert!(one.now_or_never().is_some());
        }
    }
}
