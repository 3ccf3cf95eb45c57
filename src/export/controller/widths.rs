//! PURE: how wide the next window of a table is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::archive::commit::Commit;
use crate::export::controller::constant::{
    COMPARABLE, Constant, SLOW, TARGET_ELAPSED, TELLING_ROWS,
};
use crate::export::controller::{Abandoned, Patience};
use crate::model::{Size, Table};
use crate::window::{DAY, MIN_WIDTH, Window};

/// How many rows a chunk should have.
pub const TARGET_ROWS: u64 = 2_000_000;
/// How many rows, and bytes in the source, the first chunks of a table should have.
const FIRST_ROWS: u64 = TARGET_ROWS / 4;
const FIRST_BYTES: u64 = 128 << 20;
/// While windows have few rows, the next one may be wider by more than a factor of two, if that leads to so many rows.
const LEAP_ROWS: f64 = TELLING_ROWS as f64;
/// The largest growth from one window to the next, while windows have too few rows to show how fast they are.
const MOST_DOUBLINGS: u32 = 6;
/// A width is slower only if its speed differs from the other's by more than this, as a logarithm.
const MARGIN: f64 = 0.06;
/// The variance of the logarithms of speeds that is assumed before it was measured. How much of it is replaced each time.
const FIRST_VARIANCE: f64 = 0.03;
const RENEWAL: f64 = 0.125;
/// Speeds are compared if they were measured a few windows, or so little time, apart.
const COMPARABLE_TIME: Duration = Duration::from_secs(20);
/// How many windows must pass before one is tried that is wider than the ceiling: at first, and at most, if this keeps
/// failing.
const FIRST_PATIENCE: u32 = 2;
const LAST_PATIENCE: u32 = 64;
/// How many windows must pass before a width is tried again that was slow, and how much time: at first, and at most, if this
/// keeps failing.
const FEWEST_BETWEEN: u32 = 8;
const FIRST_HOLD: Duration = Duration::from_secs(5);
const LAST_HOLD: Duration = Duration::from_secs(80);
/// How long a probe may take besides what it is expected to take.
const PROBE: Duration = Duration::from_secs(2);
/// Where narrower windows had to be abandoned as well, the server may need its time for any query. So a probe gets twice as
/// much time each time, so many times.
const MOST_PATIENCE_DOUBLINGS: u32 = 5;
/// A probe keeps up if it has this part of the rows per second of a narrower window. It may take this much longer than
/// narrower windows of the same time; a window of a known width may take this much longer than those before it.
const KEEPS_UP: f64 = 0.6;
const PROBE_LONGER: f64 = 1.5;
const KNOWN_LONGER: f64 = 10.0;
/// A window is abandoned if it has this many times the rows that it would have if it were as dense as the densest one of
/// before. It is not abandoned for fewer rows than the first number, and always for more than the second.
const DENSER: f64 = 4.0;
const DENSE_ROWS: (f64, f64) = (TARGET_ROWS as f64 / 4.0, TARGET_ROWS as f64 * 2.0);

/// What is known about the widths for one table.
#[derive(Debug)]
pub struct Widths {
    width: i64,
    /// A window that was too much lowers the ceiling, and windows that pass raise it again, since a server that was slow for
    /// a minute must not make the rest of a run slow.
    ceiling: i64,
    passed: u32,
    patience: u32,
    probing: bool,
    /// How many windows were read, when the last one ended, and how long it took.
    read: u32,
    now: Duration,
    last: Duration,
    /// The widest window that was read.
    widest: i64,
    /// The last width that was good outside of a trial.
    proven: i64,
    /// The most rows per nanosecond of all windows that have enough of them.
    most_dense: f64,
    /// The speeds by the binary logarithm of the width. A server that merges all files of a query may be 25 times as fast
    /// with windows of a day as with windows of a month.
    /// Speeds with different numbers of streams are not comparable.
    speeds: BTreeMap<(usize, u32), Speed>,
    /// With how many streams the last window was read.
    streams: usize,
    /// The same for the last window that was not read during a trial.
    settled_streams: usize,
    variance: f64,
    /// How long the last window took that showed a speed, by the binary logarithm of its width.
    took: (u32, Duration),
    /// What the server needs for any query.
    constant: Constant,
    /// A width that was slow.
    slow: Option<SlowWidth>,
    /// The width of which it was tried last whether half of it is faster.
    half_tried: Option<u32>,
    /// How many widths have been abandoned since the last window that was read, and the narrowest of them.
    abandoned: u32,
    narrowest_abandoned: i64,
}

/// What a window led to, from which other tables of the same server begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Learned {
    /// The width of the next window.
    width: i64,
    /// The binary logarithm of the width of the window …
    step: u32,
    /// … and how long it took.
    elapsed: Duration,
    /// Whether most of that is what the server needs for any query.
    is_constant: bool,
}

/// The logarithm of the rows per second.
#[derive(Debug, Clone, Copy)]
struct Speed {
    mean: f64,
    count: f64,
    /// The number of windows that had been read when it was measured, and the time.
    at: u32,
    time: Duration,
}

#[derive(Debug)]
struct SlowWidth {
    step: u32,
    /// How many windows and how much time must pass before it is tried again.
    left: u32,
    until: Duration,
    hold: Duration,
}

/// A window that was read.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// The width of its part that can have rows, or `None` if it has no such part.
    pub core_width: Option<i64>,
    /// Its width.
    pub width: i64,
    /// Its rows.
    pub rows: u64,
    /// How long its stream took.
    pub elapsed: Duration,
    /// The most rows that a chunk should have under a quota.
    pub most_rows: Option<u64>,
    /// How many streams there were.
    pub streams: usize,
    /// Whether it is tried whether this number of streams is better than another. Meanwhile the width stays as it is.
    pub is_trial: bool,
    /// When it ended, since the run began.
    pub now: Duration,
}

impl Widths {
    /// Begins with this width in nanoseconds.
    pub fn new(width: i64) -> Self {
        Self {
            width,
            ceiling: i64::MAX,
            passed: 0,
            patience: FIRST_PATIENCE,
            probing: false,
            read: 0,
            now: Duration::ZERO,
            last: Duration::ZERO,
            widest: 0,
            proven: i64::MAX,
            most_dense: 0.0,
            speeds: BTreeMap::new(),
            streams: 0,
            settled_streams: 0,
            variance: FIRST_VARIANCE,
            took: (0, Duration::ZERO),
            constant: Constant::default(),
            slow: None,
            half_tried: None,
            abandoned: 0,
            narrowest_abandoned: i64::MAX,
        }
    }

    /// Begins with what a window of another table of the same server led to.
    pub fn after(learned: Learned) -> Self {
        let Learned { width, step, elapsed, is_constant } = learned;
        let constant = Constant::after(step, elapsed, is_constant);
        Self { last: elapsed, constant, ..Self::new(width) }
    }

    /// Makes the width that of other tables of the same server, if these have shown that the server needs most of the time
    /// for any query, but not wider than this.
    pub fn follow(&mut self, learned: Learned, widest: i64) {
        if learned.is_constant && self.read < FEWEST_BETWEEN {
            self.width = self.width.max(learned.width.min(widest)).min(self.ceiling.max(MIN_WIDTH));
        }
    }

    /// What the last window led to.
    pub fn learned(&self) -> Learned {
        let (step, is_constant) = (self.constant.step(), self.constant.is_most());
        Learned { width: self.width, step, elapsed: self.last, is_constant }
    }

    /// The width that the next window should have.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// How long a window of this width may take; `None` if it is too narrow to be divided.
    pub fn patience(&self, core_width: i64) -> Option<Patience> {
        if core_width / 2 < MIN_WIDTH {
            return None;
        }
        let step = core_width.ilog2();
        let (step_before, took) = self.took;
        let wider = f64::from(step.saturating_sub(step_before)).exp2();
        let expected = took.as_secs_f64() * wider;
        let narrower = self.recent().rfind(|(narrower, _)| *narrower < step);
        let (longest, least_rows_per_second) = match narrower {
            Some((_, speed)) if core_width > self.widest => {
                (PROBE_LONGER * expected, KEEPS_UP * speed.mean.exp())
            }
            // Whether it is slow cannot be known, but a query that has had no row at all is suspicious.
            _ => (KNOWN_LONGER * expected, f64::MIN_POSITIVE),
        };
        // A server may need seconds for any query.
        let base = PROBE * 2u32.pow(self.abandoned.min(MOST_PATIENCE_DOUBLINGS)) + 2 * self.last;
        let after = Duration::from_secs_f64((base.as_secs_f64() + longest).min(1e6));
        let expected_rows = self.most_dense * core_width as f64;
        let most_rows = if expected_rows > 0.0 {
            (DENSER * expected_rows).clamp(DENSE_ROWS.0, DENSE_ROWS.1) as u64
        } else {
            DENSE_ROWS.1 as u64
        };
        Some(Patience { after, least_rows_per_second, most_rows })
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

    /// Notes that a probe of this width was abandoned.
    pub fn was_abandoned(&mut self, width: i64, why: Abandoned) {
        // Several windows of one width may be abandoned at the same time.
        if width < self.narrowest_abandoned {
            self.narrowest_abandoned = width;
            self.abandoned += 1;
        }
        let (narrower, step) = match why {
            Abandoned::Slow => (width / 2, width.ilog2()),
            // Where the rows lie is unknown, and each more attempt reads as many rows in vain.
            Abandoned::Dense => (width / 16, width.ilog2() - 3),
        };
        self.refuse(step);
        self.width = self.width.min(narrower).max(MIN_WIDTH);
        if self.read == 0 {
            // It was the guess that was wrong.
            self.width = self.width.min(DAY);
        }
    }

    /// Learns from a window that was read.
    pub fn learn(&mut self, window: Passed) {
        let Passed { rows, elapsed, .. } = window;
        self.read += 1;
        (self.now, self.last) = (window.now, elapsed);
        (self.abandoned, self.narrowest_abandoned) = (0, i64::MAX);
        self.streams = window.streams;
        let used = window.core_width.unwrap_or(self.width).max(1);
        self.widest = self.widest.max(used);
        let wide = used.max(self.width.min(window.width));
        let time = self.constant.varying(used.ilog2(), rows, elapsed, self.read);
        let mut target = learned_width(wide, rows, time, window.most_rows);
        if let Some(slow) = &mut self.slow {
            slow.left = slow.left.saturating_sub(1);
        }
        if window.is_trial && rows >= TELLING_ROWS && target >= used {
            // A probe would make the trial unfair.
            self.width = self.width.min(self.proven);
            self.measure(used.ilog2(), rows, elapsed);
            return;
        }
        if std::mem::replace(&mut self.settled_streams, window.streams) != window.streams {
            self.half_tried = None;
        }
        if rows >= TELLING_ROWS {
            target = target.min(self.most_by_speed(used, wide, rows, elapsed));
        }
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
        self.proven = wide.min(target);
        self.width = if target > used { self.width.max(target) } else { self.width.min(target) }
            .clamp(MIN_WIDTH, self.ceiling.max(MIN_WIDTH));
    }

    /// The widest that the next window should be, according to the speeds of the widths that were tried.
    fn most_by_speed(&mut self, used: i64, wide: i64, rows: u64, elapsed: Duration) -> i64 {
        let step = used.ilog2();
        let here = self.measure(step, rows, elapsed);
        self.took = (step, elapsed);
        self.most_dense = self.most_dense.max(rows as f64 / used as f64);
        let narrower = self.recent().filter(|(other, _)| *other < step);
        let best = narrower.max_by(|(_, a), (_, b)| a.mean.total_cmp(&b.mean));
        let wider = self.recent().find(|(other, _)| *other > step).map(|(_, wider)| wider);
        let wider_is_slower = wider.is_some_and(|wider| self.is_slower(wider, here));
        match best {
            Some((other, best)) if self.is_slower(here, best) => {
                self.refuse(step);
                return (used >> (step - other)).max(MIN_WIDTH);
            }
            Some(_) => {}
            // Whether half of it is faster is unknown, unless it would take as long.
            None if self.constant.is_most() => {}
            None => {
                let is_worth_it = match wider {
                    Some(_) => wider_is_slower,
                    None => elapsed >= SLOW || self.speeds.len() > 1,
                };
                if is_worth_it && self.half_tried.replace(step) != Some(step) {
                    return (used / 2).max(MIN_WIDTH);
                }
            }
        }
        let is_refused = self
            .slow
            .as_ref()
            .is_some_and(|slow| step + 1 >= slow.step && (slow.left > 0 || self.now < slow.until));
        if is_refused || wider_is_slower {
            return used;
        }
        if self.slow.as_ref().is_some_and(|slow| slow.step == step) {
            self.slow = None; // it is as fast as the narrower ones now
        }
        wide.saturating_mul(2)
    }

    /// Adds a speed to what is known of a width, and returns the sum.
    fn measure(&mut self, step: u32, rows: u64, elapsed: Duration) -> Speed {
        let speed = (rows as f64 / elapsed.as_secs_f64().max(1e-3)).ln();
        let known = self.recent().find(|(other, _)| *other == step).map(|(_, speed)| speed);
        let mut new = Speed { mean: speed, count: 1.0, at: self.read, time: self.now };
        if let Some(known) = known {
            let residual = (speed - known.mean).powi(2) * known.count / (known.count + 1.0);
            self.variance += RENEWAL * (residual - self.variance);
            new.count = (known.count + 1.0).min(1.0 / RENEWAL);
            new.mean = known.mean + (speed - known.mean) / new.count;
        }
        self.speeds.insert((self.streams, step), new);
        new
    }

    /// The speeds that may be compared with the one of now, the narrowest width first.
    fn recent(&self) -> impl DoubleEndedIterator<Item = (u32, Speed)> {
        let here = self.speeds.range((self.streams, 0)..=(self.streams, u32::MAX));
        let recent = here.filter(|(_, speed)| {
            self.read - speed.at <= COMPARABLE
                || self.now.saturating_sub(speed.time) <= COMPARABLE_TIME
        });
        recent.map(|((_, step), speed)| (*step, *speed))
    }

    /// Whether one speed is less than another by more than chance explains.
    fn is_slower(&self, one: Speed, other: Speed) -> bool {
        let deviation = (self.variance * (1.0 / one.count + 1.0 / other.count)).sqrt();
        one.mean < other.mean - MARGIN - deviation
    }

    /// Notes that a width was slow, so that it is not tried again soon.
    fn refuse(&mut self, step: u32) {
        let hold = match &self.slow {
            Some(slow) if slow.step == step => (2 * slow.hold).min(LAST_HOLD),
            _ => FIRST_HOLD,
        };
        self.slow = Some(SlowWidth { step, left: FEWEST_BETWEEN, until: self.now + hold, hold });
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
    // Only windows that have almost no rows are left faster than by doubling.
    let telling = (LEAP_ROWS / rows.max(1) as f64).max(2.0);
    let factor = by_time.min(by_rows).min(telling);
    let doublings = factor.log2().floor().clamp(-2.0, f64::from(MOST_DOUBLINGS)) as i32;
    match doublings {
        0.. => width.saturating_mul(1 << doublings).min(i64::MAX / 4),
        -1 => width, // anything between half of the target and the target is good enough
        _ => (width / 2).max(MIN_WIDTH),
    }
}

/// The width that earlier runs have learned, from the last commit of a table that has rows; `first` if there is none.
pub fn width_after(commits: &[&Commit], first: Option<i64>) -> Option<i64> {
    let with_rows = commits.iter().filter(|commit| commit.rows > 0);
    let last = with_rows.max_by(|a, b| a.committed.cmp(&b.committed));
    let learned = last.and_then(|commit| {
        let elapsed = Duration::from_millis(commit.elapsed_ms);
        Some(learned_width(commit.slice.window()?.width(), commit.rows, elapsed, None))
    });
    learned.map(|width| width.max(MIN_WIDTH)).or(first)
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
