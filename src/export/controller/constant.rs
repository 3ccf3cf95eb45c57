//! PURE: how much of a window's time is what the server needs for any query, as windows of other widths show. Then wider
//! windows cost little more, and narrower ones save nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a chunk should take: enough that its overhead does not matter, little enough that a stop loses little.
pub(super) const TARGET_ELAPSED: Duration = Duration::from_secs(5);
/// This many rows show how fast a width is.
pub(super) const TELLING_ROWS: u64 = 10_000;
/// If a window takes this long, it is worth trying whether half of it would be faster.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// Windows are compared if so few others were read between them.
pub(super) const COMPARABLE: u32 = 12;
/// How long a chunk may take where a server needs most of that for any query.
const LONGEST_ELAPSED: Duration = Duration::from_secs(60);

/// The last window of each width of a table, also those with few rows.
#[derive(Debug, Default)]
pub(super) struct Constant {
    /// By the binary logarithm of the width.
    times: BTreeMap<u32, Timed>,
    step: u32,
    is_most: bool,
}

/// A window that was read.
#[derive(Debug)]
struct Timed {
    elapsed: Duration,
    /// Its rows; `None` if it was of another table.
    rows: Option<u64>,
    /// The number of windows before it.
    at: u32,
}

impl Constant {
    /// Begins with a window of another table of the same server.
    pub(super) fn after(step: u32, elapsed: Duration, is_most: bool) -> Self {
        let times = BTreeMap::from([(step, Timed { elapsed, rows: None, at: 0 })]);
        Self { times, step, is_most }
    }

    /// The binary logarithm of the width of the last window.
    pub(super) fn step(&self) -> u32 {
        self.step
    }

    /// Whether the last window took most of its time for what any query takes.
    pub(super) fn is_most(&self) -> bool {
        self.is_most
    }

    /// How long a window took without the constant part.
    pub(super) fn varying(&mut self, step: u32, rows: u64, elapsed: Duration, at: u32) -> Duration {
        self.times.insert(step, Timed { elapsed, rows: Some(rows), at });
        // Where rows lie otherwise, widths are not comparable.
        let comparable = |(other, timed): &(&u32, &Timed)| {
            let wider = (f64::from(step) - f64::from(**other)).exp2();
            let (rows, few) = (rows as f64, TELLING_ROWS as f64);
            let ratio = timed.rows.map_or(1.0, |other| (rows + few) / (wider * other as f64 + few));
            at - timed.at <= COMPARABLE && (0.5..=2.0).contains(&ratio)
        };
        let narrower = self.times.range(..step).rfind(comparable);
        let wider = self.times.range(step + 1..).find(comparable);
        let seconds = elapsed.as_secs_f64();
        // A straight line through two widths has a slope, and a constant part.
        let varying = match (narrower, wider) {
            (Some((other, timed)), _) => {
                let parts = f64::from(step - other).exp2();
                (seconds - timed.elapsed.as_secs_f64()) * parts / (parts - 1.0)
            }
            (None, Some((other, timed))) => {
                (timed.elapsed.as_secs_f64() - seconds) / (f64::from(other - step).exp2() - 1.0)
            }
            (None, None) if self.is_most => 0.0,
            // Nothing is known yet, and a window with few rows is worth a wider one.
            (None, None) if rows < TELLING_ROWS && elapsed < 2 * TARGET_ELAPSED => {
                return elapsed.min(TARGET_ELAPSED / 2);
            }
            (None, None) => seconds,
        };
        let is_known = narrower.is_some() || wider.is_some();
        // Where a narrower window took much longer, the server was slow for a while.
        let is_likely = (-0.5 * seconds..=0.5 * seconds).contains(&varying);
        self.step = step;
        self.is_most = (is_known || self.is_most) && is_likely && elapsed >= SLOW;
        if !is_likely {
            return elapsed;
        }
        // Noise may make it seem to be nothing.
        let least = TARGET_ELAPSED.as_secs_f64() * seconds / LONGEST_ELAPSED.as_secs_f64();
        Duration::from_secs_f64(varying.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_widths_show_what_any_query_takes() {
        let mut constant = Constant::default();
        assert_eq!(constant.varying(10, 100, seconds(12), 1), seconds(12), "nothing is known");
        assert_eq!(constant.varying(9, 50, seconds(12), 2), seconds(1), "it is all constant");
        assert!(constant.is_most());
        assert!(constant.varying(11, 200, seconds(13), 3) <= seconds(2));
    }

    #[test]
    fn time_that_grows_with_the_width_is_not_constant() {
        let mut constant = Constant::default();
        constant.varying(10, 100_000, seconds(2), 1);
        assert_eq!(constant.varying(11, 200_000, seconds(4), 2), seconds(4));
        assert!(!constant.is_most());
        // Ten times the rows are another place in the table.
        assert_eq!(constant.varying(10, 1_000_000, seconds(4), 3), seconds(4));
        assert!(!constant.is_most());
    }

    #[test]
    fn other_tables_of_the_server_begin_with_what_is_known() {
        let mut constant = Constant::after(10, seconds(8), true);
        assert!(constant.varying(10, 5, seconds(8), 1) < seconds(1));
        assert!(constant.is_most());
    }
}
