//! PURE: chooses the width of the next window of a table. The time that a window took shows how wide one should be that
//! takes a few seconds. The speeds of the widths that were tried show whether a wider one pays off. A width that was too
//! much for the server sets a ceiling, which rises again once narrower windows have passed.

use std::collections::HashMap;
use std::time::Duration;

use crate::archive::commit::Commit;
use crate::model::{Size, Table};
use crate::window::{DAY, MIN_WIDTH, Window};

/// How long a chunk should take, and how many rows it should have: enough that its overhead does not matter, few enough
/// that a stop loses little.
const TARGET_ELAPSED: Duration = Duration::from_secs(5);
const TARGET_ROWS: u64 = 2_000_000;
/// How many rows, and bytes in the source, the first chunks of a table should have.
const FIRST_ROWS: u64 = TARGET_ROWS / 4;
const FIRST_BYTES: u64 = 128 << 20;
/// This many rows show how fast a width is.
const TELLING_ROWS: u64 = 10_000;
/// A width pays off only if its speed is at least this part of another's.
const SLOWER: f64 = 0.85;
/// How much wider the next window is at most, once the speed is known.
const STRIDE: i64 = 4;
/// If a window takes this long, it is worth trying whether half of it would be faster.
const SLOW: Duration = Duration::from_secs(3);
/// How many windows must pass before one is tried that is wider than the ceiling: at first, and at most, if this keeps
/// failing.
const FIRST_PATIENCE: u32 = 2;
const LAST_PATIENCE: u32 = 64;
/// The largest growth from one window to the next.
const MAX_GROWTH: f64 = 64.0;

/// What is known about the widths for one table.
#[derive(Debug)]
pub struct WindowSizing {
    width: i64,
    /// A window that was too much lowers the ceiling, and windows that pass raise it again, since a server that was slow for
    /// a minute must not make the rest of a run slow.
    ceiling: i64,
    passed: u32,
    patience: u32,
    probing: bool,
    /// The rows per second, by the binary logarithm of the width. A server that merges all files of a query may be 25 times
    /// as fast with windows of a day as with windows of a month.
    speeds: HashMap<u32, f64>,
}

impl WindowSizing {
    /// Begins with this width in nanoseconds.
    pub fn new(width: i64) -> Self {
        Self {
            width,
            ceiling: i64::MAX,
            passed: 0,
            patience: FIRST_PATIENCE,
            probing: false,
            speeds: HashMap::new(),
        }
    }

    /// The width that the next window should have.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Notes that a window of this width was too much for the server.
    pub fn was_too_much(&mut self, width: i64) {
        self.ceiling = self.ceiling.min(width / 2).max(MIN_WIDTH);
        if self.probing {
            self.patience = (2 * self.patience).min(LAST_PATIENCE);
        }
        (self.passed, self.probing) = (0, false);
        self.width = self.width.min(self.ceiling);
    }

    /// Learns from a window that was read. `core_width` is the width of its part that can have rows, or `None` if it has no
    /// such part. `most_rows` is the most rows that a chunk should have under a quota.
    pub fn learn(
        &mut self,
        core_width: Option<i64>,
        window_width: i64,
        rows: u64,
        elapsed: Duration,
        most_rows: Option<u64>,
    ) {
        let used = core_width.unwrap_or(self.width).max(1);
        let wide = used.max(self.width.min(window_width));
        let target = learned_width(wide, rows, elapsed, most_rows);
        let target = self.faster(used, target, rows, elapsed);
        if used > self.ceiling / 2 && target > used {
            self.passed += 1;
            if std::mem::take(&mut self.probing) {
                self.patience = FIRST_PATIENCE;
            }
            if self.passed >= self.patience {
                self.ceiling = self.ceiling.saturating_mul(2);
                (self.passed, self.probing) = (0, true);
            }
        }
        self.width = if target > used { self.width.max(target) } else { self.width.min(target) }
            .clamp(MIN_WIDTH, self.ceiling.max(MIN_WIDTH));
    }

    /// The width to use in place of the target, according to the speeds of the widths that were tried.
    fn faster(&mut self, used: i64, target: i64, rows: u64, elapsed: Duration) -> i64 {
        if rows < TELLING_ROWS {
            return target;
        }
        let step = used.ilog2();
        let speed = rows as f64 / elapsed.as_secs_f64().max(1e-3);
        let known = self.speeds.entry(step).or_insert(speed);
        *known = (*known + speed) / 2.0;
        let speed = *known;
        let best = |known: &dyn Fn(&u32) -> bool| {
            let speeds =
                self.speeds.iter().filter(|(step, _)| known(step)).map(|(_, speed)| *speed);
            speeds.reduce(f64::max)
        };
        let narrower = best(&|other| *other < step);
        if narrower.is_some_and(|narrower| speed < SLOWER * narrower) {
            return target.min(used / 2);
        }
        let half_is_known = step.checked_sub(1).is_some_and(|half| self.speeds.contains_key(&half));
        if !half_is_known && narrower.is_none() && elapsed >= SLOW {
            return target.min(used / 2);
        }
        // The next wider width that was tried.
        let wider =
            self.speeds.iter().filter(|(other, _)| **other > step).min_by_key(|(other, _)| **other);
        let most = match wider.map(|(wider, there)| (*wider - step, *there < SLOWER * speed)) {
            // The width grows step by step, since a window far beyond the best width takes minutes.
            None => used.saturating_mul(STRIDE),
            Some((doublings, false)) => used.saturating_mul(1 << doublings.min(8)),
            // There may be a better width between this one and the one that is too wide.
            Some((2.., true)) => used.saturating_mul(2),
            // The width matters for this table, so half of it may be even better.
            Some((_, true)) if !half_is_known => used / 2,
            Some((_, true)) => used,
        };
        target.min(most)
    }
}

/// The width of the first window of a table of known size. If the rows lie evenly, it has fewer rows than a chunk should
/// have, since the speed is unknown yet and several chunks are read at the same time. The width is a day times a power of
/// two, so that edges stay on days.
pub fn first_width(table: &Table, bounds: Option<Window>, size: Size) -> Option<i64> {
    let known = |count: Option<u64>| count.filter(|count| *count > 0);
    let of_rows = known(size.rows).map(|rows| rows.div_ceil(FIRST_ROWS));
    let of_bytes = known(size.bytes).map(|bytes| bytes.div_ceil(FIRST_BYTES));
    let chunks = of_rows.max(of_bytes)?.min(i64::MAX.unsigned_abs()).cast_signed();
    if chunks == 1 {
        return Some(i64::MAX / 4);
    }
    let here = table.data_ranges.iter().filter_map(|window| window.intersect(&bounds?));
    let span = here.map(|window| window.width()).fold(0, i64::saturating_add);
    let narrowest = DAY >> 4;
    // All of time has about 20 doublings, so no bit is shifted out.
    Some(narrowest << (span / chunks / narrowest).max(1).ilog2())
}

/// The width that would have met the target, given one that took `elapsed` for `rows`. It is the old width times a power
/// of two, so that edges stay on days.
pub fn learned_width(width: i64, rows: u64, elapsed: Duration, most_rows: Option<u64>) -> i64 {
    let by_time = TARGET_ELAPSED.as_secs_f64() / elapsed.as_secs_f64().max(1e-3);
    let target_rows = most_rows.map_or(TARGET_ROWS, |most| most.min(TARGET_ROWS));
    let by_rows = target_rows as f64 / rows.max(1) as f64;
    let factor = by_time.min(by_rows).clamp(0.25, MAX_GROWTH);
    let doublings = factor.log2().floor() as i32;
    match doublings {
        0.. => width.saturating_mul(1 << doublings).min(i64::MAX / 4),
        -1 => width, // anything between half of the target and the target is good enough
        _ => (width / 2).max(MIN_WIDTH),
    }
}

/// The width that earlier runs have learned, from the last commit of a table that has rows; `first` if there is none.
pub fn width_after(commits: &[&Commit], first: i64) -> i64 {
    let with_rows = commits.iter().filter(|commit| commit.rows > 0);
    let last = with_rows.max_by(|a, b| a.committed.cmp(&b.committed));
    let learned = last.and_then(|commit| {
        let elapsed = Duration::from_millis(commit.elapsed_ms);
        Some(learned_width(commit.slice.window()?.width(), commit.rows, elapsed, None))
    });
    learned.map_or(first, |width| width.max(MIN_WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableId;

    #[test]
    fn the_first_window_is_as_wide_as_the_size_of_its_table_allows() {
        let [source, database, schema, table] = ["s", "d", "r", "t"].map(str::to_owned);
        let id = TableId { source, database, schema, table };
        let data_ranges = vec![Window { from: 0, to: 2000 * DAY }];
        let table = Table { data_ranges, ..Table::new(id, vec![]) };
        let all = Window { from: 0, to: 1000 * DAY };
        let of = |rows, bytes| first_width(&table, Some(all), Size { rows, bytes });
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(0), Some(0)), None, "nobody has counted");
        assert!(of(Some(1000), None) > Some(all.width()));
        assert!(of(None, Some(1 << 20)) > Some(all.width()));
        assert_eq!(of(Some(10 * FIRST_ROWS), None), Some(64 * DAY));
        assert_eq!(of(Some(1000), Some(10 * FIRST_BYTES)), Some(64 * DAY), "large rows");
        let many = Size { rows: Some(u64::MAX), bytes: None };
        assert_eq!(first_width(&table, Some(all), many), Some(DAY / 16));
        assert_eq!(first_width(&table, None, many), Some(DAY / 16));
        let everywhere = Table { data_ranges: vec![Window::ALL], ..table };
        let two = Size { rows: Some(2 * FIRST_ROWS), bytes: None };
        assert!(first_width(&everywhere, Some(Window::ALL), two) > Some(i64::MAX / 8));
    }

    #[test]
    fn widths_grow_for_tiny_tables_and_shrink_for_slow_ones() {
        assert_eq!(learned_width(DAY, 0, Duration::from_millis(1), None), 64 * DAY);
        assert_eq!(learned_width(DAY, 1_000_000, Duration::from_secs(3), None), DAY);
        assert_eq!(learned_width(DAY, 100, Duration::from_secs(60), None), DAY / 2);
        assert_eq!(learned_width(DAY, 50_000_000, Duration::from_secs(4), None), DAY / 2);
    }
}
