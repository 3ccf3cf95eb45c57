//! PURE: how many chunks of a server are read at the same time. What is compared is the work that all streams together do
//! in a second. The rows of a chunk are not all of its work, because a query without rows takes time as well.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many streams there are at first.
const FIRST: usize = 2;
/// More streams must do this much more than fewer, and fewer must do this part of what more do, to be preferred.
const FASTER: f64 = 1.1;
const AS_FAST: f64 = 0.96;
/// A trial that does less than this part is ended early.
const HOPELESS: f64 = 0.6;
/// A measurement takes at least this long, and at least this many chunks.
const SHORTEST: f64 = 0.5;
const FEWEST_CHUNKS: u32 = 4;
/// If rows arrive all the time, this long a time is enough without the end of a chunk.
const STEADY: f64 = 3.0;
/// How long nothing is tried after a trial failed in both directions: at first, and at most.
const FIRST_HOLD: Duration = Duration::from_secs(8);
const LONGEST_HOLD: Duration = Duration::from_secs(120);
/// How long a trial lasts at most if the number of streams is not reached.
const LONGEST_TRIAL: Duration = Duration::from_secs(10);
/// How long a measurement is compared with newer ones.
const FRESH: Duration = Duration::from_secs(30);
/// How much of what was known about the cost of a chunk remains after the next one.
const MEMORY: f64 = 0.95;
/// The relative variance of the rows of chunks from which their constant part is derived, and the most rows that this part
/// may count for, as a multiple of the rows of a chunk.
const LEAST_SPREAD: f64 = 0.05;
const MOST_CONSTANT: f64 = 4.0;

/// The number of streams of one server, and what is known about it.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    now: usize,
    /// What was measured of each number.
    rates: BTreeMap<usize, Rate>,
    /// The number that the present one is compared with, and since when.
    trial: Option<(usize, Duration)>,
    is_upwards: bool,
    /// Whether a trial in the other direction failed last.
    has_failed: bool,
    /// Until the first failure the number doubles.
    doubles: bool,
    hold: Duration,
    next_trial: Duration,
    measurement: Measurement,
    cost: Cost,
}

/// The state of a server at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// The time since the run began.
    pub now: Duration,
    /// The rows that all its streams have had so far.
    pub rows: u64,
    /// How many streams there are, counting one that has just ended.
    pub streams: usize,
}

/// What all streams together did in a second.
#[derive(Debug, Clone, Copy)]
struct Rate {
    rows: f64,
    chunks: f64,
    /// When it was measured.
    at: Duration,
}

/// What was done since the number of streams changed.
#[derive(Debug, Default)]
struct Measurement {
    last: Option<Observed>,
    has_begun: bool,
    seconds: f64,
    rows: u64,
    chunks: u32,
    /// The seconds in which rows arrived.
    with_rows: f64,
}

/// The time of a chunk, as a constant and a part for each row: a linear regression in which old chunks count less and less.
#[derive(Debug, Default)]
struct Cost {
    count: f64,
    rows: f64,
    rows_squared: f64,
    seconds: f64,
    product: f64,
}

impl Streams {
    /// Streams of a server of which nothing is known. `most` is the number that the user allows.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            now: FIRST.min(most.max(1)),
            rates: BTreeMap::new(),
            trial: None,
            is_upwards: true,
            has_failed: false,
            doubles: true,
            hold: FIRST_HOLD,
            next_trial: Duration::ZERO,
            measurement: Measurement::default(),
            cost: Cost::default(),
        }
    }

    /// How many streams there should be now.
    pub fn count(&self) -> usize {
        self.now
    }

    /// Whether it is tried whether this number is better than another.
    pub fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Learns from a chunk that has ended.
    pub fn chunk_ended(&mut self, observed: Observed, rows: u64, elapsed: Duration) {
        if !self.is_trial() {
            self.cost.add(rows, elapsed.as_secs_f64() / self.now as f64);
        }
        self.observe(observed);
        if !self.measurement.has_begun {
            self.measurement =
                Measurement { last: Some(observed), has_begun: true, ..Default::default() };
            return;
        }
        self.measurement.chunks += 1;
        self.decide(observed.now, true);
    }

    /// Learns from the passing of time.
    pub fn tick(&mut self, observed: Observed) {
        let since = self.measurement.last.map(|last| observed.now.saturating_sub(last.now));
        self.observe(observed);
        self.measurement.has_begun |= since.is_some_and(|since| !since.is_zero());
        self.decide(observed.now, false);
        // Other sources, or the lack of chunks, may keep the number from being reached.
        if let Some((from, began)) = self.trial
            && observed.now.saturating_sub(began) > LONGEST_TRIAL
            && observed.streams < self.now
        {
            self.trial = None;
            self.set(from);
            self.next_trial = observed.now + self.hold;
            self.hold = (2 * self.hold).min(LONGEST_HOLD);
        }
    }

    fn observe(&mut self, observed: Observed) {
        let measurement = &mut self.measurement;
        if let Some(last) = measurement.last.replace(observed)
            && measurement.has_begun
            && last.streams >= self.now
            && observed.streams >= self.now
        {
            let seconds = observed.now.saturating_sub(last.now).as_secs_f64();
            let rows = observed.rows.saturating_sub(last.rows);
            measurement.seconds += seconds;
            measurement.rows += rows;
            if rows > 0 {
                measurement.with_rows += seconds;
            }
        }
    }

    /// Ends the measurement if it says enough, and acts on it.
    fn decide(&mut self, now: Duration, at_chunk_end: bool) {
        let Measurement { seconds, rows, chunks, with_rows, .. } = self.measurement;
        if self.most == 1 || seconds < SHORTEST {
            return;
        }
        let rate =
            Rate { rows: rows as f64 / seconds, chunks: f64::from(chunks) / seconds, at: now };
        let base = self.trial.and_then(|(from, _)| self.rates.get(&from)).copied();
        let enough = FEWEST_CHUNKS.max(2 * self.now as u32);
        let is_steady = seconds >= STEADY && with_rows >= 0.8 * seconds;
        let is_hopeless = seconds >= 2.0 * SHORTEST
            && chunks >= 2
            && base.is_some_and(|base| self.work(rate) < HOPELESS * self.work(base));
        if !((at_chunk_end && (chunks >= enough || is_hopeless)) || is_steady) {
            return;
        }
        self.measurement.seconds = 0.0;
        (self.measurement.rows, self.measurement.chunks, self.measurement.with_rows) = (0, 0, 0.0);
        self.rates.insert(self.now, rate);
        self.act(now, self.work(rate), base.map(|base| self.work(base)));
    }

    fn act(&mut self, now: Duration, rate: f64, base: Option<f64>) {
        let from = self.trial.take().map(|(from, _)| from);
        if let (Some(from), Some(base)) = (from, base) {
            let least = if self.now > from { FASTER } else { AS_FAST };
            if rate >= least * base {
                (self.hold, self.has_failed) = (FIRST_HOLD, false);
                self.try_next(now);
            } else {
                self.set(from);
                self.doubles = false;
                self.is_upwards = !self.is_upwards;
                // The other direction is tried at once.
                self.next_trial = now;
                if std::mem::replace(&mut self.has_failed, true) {
                    self.has_failed = false;
                    self.next_trial = now + self.hold;
                    self.hold = (2 * self.hold).min(LONGEST_HOLD);
                }
            }
            return;
        }
        // A trial that failed may have failed because the server was slow meanwhile.
        let fresh = |at: Duration| now.saturating_sub(at) <= FRESH;
        let better = self.rates.iter().find(|(count, other)| {
            **count != self.now && fresh(other.at) && self.work(**other) > FASTER * rate
        });
        if let Some(count) = better.map(|(count, _)| *count) {
            let here = self.now;
            self.set(count);
            self.trial = Some((here, now));
            self.is_upwards = count > here;
        } else if now >= self.next_trial {
            self.try_next(now);
        }
    }

    /// The rows per second, and for each chunk as many rows as take the time that its constant part takes.
    fn work(&self, rate: Rate) -> f64 {
        rate.rows + self.cost.rows_of_a_chunk() * rate.chunks
    }

    /// Begins the next trial, if there is one.
    fn try_next(&mut self, now: Duration) {
        let here = self.now;
        let step = (here / 4).max(1);
        for _ in 0..2 {
            let next = match (self.is_upwards, self.doubles) {
                (true, true) => (2 * here).min(self.most),
                (true, false) => (here + step).min(self.most),
                (false, _) => here.saturating_sub(step).max(1),
            };
            if next != here {
                self.set(next);
                self.trial = Some((here, now));
                return;
            }
            self.is_upwards = !self.is_upwards;
            self.doubles = false;
        }
        self.next_trial = now + self.hold;
    }

    fn set(&mut self, count: usize) {
        self.now = count;
        self.measurement = Measurement::default();
    }
}

impl Cost {
    fn add(&mut self, rows: u64, seconds: f64) {
        let rows = rows as f64;
        for sum in [
            &mut self.count,
            &mut self.rows,
            &mut self.rows_squared,
            &mut self.seconds,
            &mut self.product,
        ] {
            *sum *= MEMORY;
        }
        self.count += 1.0;
        self.rows += rows;
        self.rows_squared += rows * rows;
        self.seconds += seconds;
        self.product += rows * seconds;
    }

    /// How many rows take as long as the constant part of a chunk.
    fn rows_of_a_chunk(&self) -> f64 {
        let (rows, seconds) = (self.rows / self.count, self.seconds / self.count);
        let variance = self.rows_squared / self.count - rows * rows;
        // Chunks with about the same number of rows show nothing about the constant part.
        if variance.is_nan() || variance <= LEAST_SPREAD * rows * rows {
            return if rows > 0.0 { 0.0 } else { 1.0 };
        }
        let a_row = (self.product / self.count - rows * seconds) / variance;
        let most = MOST_CONSTANT * rows;
        if a_row > 0.0 { ((seconds - a_row * rows) / a_row).clamp(0.0, most) } else { most }
    }
}
