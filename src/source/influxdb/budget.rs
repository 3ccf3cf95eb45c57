//! PURE, except for the clock: how much may be read under a quota of bytes in a window of time. All workers of a source
//! share it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Quota;

/// Chunks are made so small that about this many fit into a window, since up to one chunk's worth of the quota stays
/// unused.
const CHUNKS_A_WINDOW: u64 = 24;

/// Records how much was read when. The server's windows are fixed, but their beginnings are unknown. A reader that keeps
/// to the quota in every span of a window's length keeps to it in the server's windows, too.
#[derive(Debug)]
pub(in crate::source) struct Budget {
    quota: Option<Quota>,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    /// The bytes that arrived, with the time of their arrival.
    log: VecDeque<(Instant, u64)>,
    sum: u64,
    /// The bytes that are still expected from the queries in flight.
    reserved: u64,
    /// The rows and bytes of each table so far.
    rates: HashMap<String, (u64, u64)>,
}

/// A query that may run. When it is dropped, the bytes that are still reserved for it are released.
#[derive(Debug)]
pub(in crate::source) struct Admitted<'a> {
    budget: &'a Budget,
    reserved: u64,
}

impl Budget {
    pub(in crate::source) fn new(quota: Option<Quota>) -> Self {
        Self { quota, spent: Mutex::default() }
    }

    pub(in crate::source) fn quota(&self) -> Option<Quota> {
        self.quota
    }

    fn spent(&self) -> std::sync::MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the bytes that are expected from a query, or returns how long it has to wait.
    pub(in crate::source) fn admit(&self, expected: u64) -> Result<Admitted<'_>, Duration> {
        self.admit_at(expected, Instant::now())
    }

    fn admit_at(&self, expected: u64, now: Instant) -> Result<Admitted<'_>, Duration> {
        let Some(quota) = self.quota else { return Ok(Admitted { budget: self, reserved: 0 }) };
        let mut spent = self.spent();
        spent.forget(now, quota.window);
        // A query larger than the whole quota can be tried only while nothing else counts against it.
        let expected = expected.min(quota.bytes);
        let taken = spent.sum + spent.reserved;
        if taken == 0 || taken + expected <= quota.bytes {
            spent.reserved += expected;
            return Ok(Admitted { budget: self, reserved: expected });
        }
        // The query waits until enough bytes are older than a window. The queries in flight may bring less than expected,
        // so it asks again then.
        let mut missing = (taken + expected).saturating_sub(quota.bytes);
        for (at, bytes) in &spent.log {
            missing = missing.saturating_sub(*bytes);
            if missing == 0 {
                return Err(
                    (*at + quota.window).saturating_duration_since(now) + Duration::from_millis(5)
                );
            }
        }
        Err(quota.window / 20)
    }

    /// Counts bytes that arrived.
    pub(in crate::source) fn spend(&self, bytes: u64) {
        self.spend_at(bytes, Instant::now());
    }

    fn spend_at(&self, bytes: u64, now: Instant) {
        let Some(quota) = self.quota else { return };
        let mut spent = self.spent();
        spent.sum += bytes;
        let grain = quota.window / 1000;
        match spent.log.back_mut() {
            Some((at, sum)) if now.saturating_duration_since(*at) < grain => *sum += bytes,
            _ => spent.log.push_back((now, bytes)),
        }
    }

    /// Learns how many bytes the rows of a table take.
    pub(in crate::source) fn learn(&self, table: &str, rows: u64, bytes: u64) {
        let mut spent = self.spent();
        let rate = spent.rates.entry(table.to_owned()).or_default();
        *rate = (rate.0 + rows, rate.1 + bytes);
    }

    /// The most rows that one chunk of a table should have; `None` without a quota.
    pub(in crate::source) fn chunk_rows(&self, table: &str) -> Option<u64> {
        let quota = self.quota?;
        let (rows, bytes) = self.spent().rates.get(table).copied().unwrap_or((1, 100));
        let wanted = u128::from(quota.bytes / CHUNKS_A_WINDOW) * u128::from(rows.max(1));
        Some(u64::try_from(wanted / u128::from(bytes.max(1))).unwrap_or(u64::MAX).max(1))
    }

    /// The bytes of a usual chunk, which are reserved for a chunk of unknown size.
    pub(in crate::source) fn usual_chunk(&self) -> u64 {
        self.quota.map_or(0, |quota| quota.bytes / CHUNKS_A_WINDOW)
    }
}

impl Spent {
    fn forget(&mut self, now: Instant, window: Duration) {
        while let Some((at, bytes)) = self.log.front().copied() {
            if now.saturating_duration_since(at) <= window {
                return;
            }
            self.sum -= bytes;
            self.log.pop_front();
        }
    }
}

impl Admitted<'_> {
    /// Counts bytes that arrived for this query, which were among those expected.
    pub(in crate::source) fn spend(&mut self, bytes: u64) {
        let of_reserved = self.reserved.min(bytes);
        self.reserved -= of_reserved;
        self.budget.spent().reserved -= of_reserved;
        self.budget.spend(bytes);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.budget.spent().reserved -= self.reserved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_quota_nobody_waits() {
        let budget = Budget::new(None);
        budget.spend(u64::MAX);
        assert!(budget.admit(u64::MAX).is_ok());
    }

    #[test]
    fn spent_bytes_are_available_again_after_a_window() {
        let quota = Quota { bytes: 100, window: Duration::from_secs(300) };
        let (budget, began) = (Budget::new(Some(quota)), Instant::now());
        budget.spend_at(60, began);
        budget.spend_at(30, began + Duration::from_secs(100));
        let later = began + Duration::from_secs(200);
        assert!(budget.admit_at(10, later).is_ok());
        let wait = budget.admit_at(20, later).unwrap_err();
        assert!(wait.abs_diff(Duration::from_secs(100)) < Duration::from_secs(1), "{wait:?}");
        assert!(budget.admit_at(60, later + wait).is_ok());
    }

    #[test]
    fn queries_in_flight_count_with_their_expected_bytes() {
        let quota = Quota { bytes: 100, window: Duration::from_secs(300) };
        let budget = Budget::new(Some(quota));
        let mut first = budget.admit(60).unwrap();
        assert!(budget.admit(60).is_err());
        first.spend(20);
        assert!(budget.admit(40).is_ok());
        drop(first);
        assert!(budget.admit(80).is_ok());
    }

    proptest! {
        #[test]
        fn no_span_of_a_window_has_more_than_the_quota(
            sizes in prop::collection::vec(1u64..200, 1..80), pauses in prop::collection::vec(0u64..40, 80)
        ) {
            let quota = Quota { bytes: 1000, window: Duration::from_secs(100) };
            let budget = Budget::new(Some(quota));
            let mut now = Instant::now();
            let mut came = Vec::new();
            for (bytes, pause) in sizes.into_iter().zip(pauses) {
                now += Duration::from_secs(pause);
                while let Err(wait) = budget.admit_at(bytes, now) {
                    now += wait;
                }
                budget.spend_at(bytes, now);
                came.push((now, bytes));
            }
            for (end, _) in &came {
                let within = came.iter().filter(|(at, _)| at <= end && *at + quota.window >= *end);
                prop_assert!(within.map(|(_, bytes)| bytes).sum::<u64>() <= quota.bytes + 199);
            }
        }
    }
}
