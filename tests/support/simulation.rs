//! Servers that exist only as equations, with a clock of their own. They show what the controller of widths and streams
//! costs beside the best fixed pair of width and streams, exactly and without waiting. Their curves are those of real
//! servers: an InfluxDB 3 whose queries cost more than their rows, a server far away, an InfluxDB 1.6 that two streams
//! saturate, a PostgreSQL with an index, a server with a quota, one that is noisy and slow for a minute, some whose rows
//! come in bursts, and some that take seconds for any query.

use std::sync::Arc;
use std::time::Duration;

use moveout::export::controller::Patience;
use moveout::export::controller::streams::{Observed, Streams};
use moveout::export::queue::{Queue, Read};
use moveout::model::{Chunk, Table, TableId};
use moveout::window::{DAY, Window};

/// How often a run looks at its streams, in seconds.
const TICK: f64 = 0.25;

/// A server, and the rows that it has.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// The days of its rows, in each of its tables.
    pub(crate) days: i64,
    pub(crate) tables: usize,
    /// The rows of a table in a part of its days.
    pub(crate) rows: fn(f64, f64) -> f64,
    /// The seconds before a query begins to work, in which it needs nothing of the server.
    pub(crate) latency: f64,
    /// The seconds of a thread that a query over so many days with so many rows takes.
    pub(crate) work: fn(f64, f64) -> f64,
    /// How many queries can work at the same time.
    pub(crate) threads: f64,
    /// How much each query beyond the threads slows all others down.
    pub(crate) thrash: f64,
    /// Whether rows come while the query works, or all at its end.
    pub(crate) is_streaming: bool,
    /// By how much a query may be faster or slower than it should be.
    pub(crate) noise: f64,
    /// The part of its speed that it has at a time.
    pub(crate) speed: fn(f64) -> f64,
    /// The rows that it gives in each period of so many seconds.
    pub(crate) quota: Option<(u64, f64)>,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) chunks: u64,
    pub(crate) abandoned: u64,
    pub(crate) streams: usize,
    pub(crate) days: f64,
}

/// How a run chooses its widths and streams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    Fixed { days: f64, streams: usize },
    Controller { most: usize },
}

struct Query {
    at: usize,
    chunk: Chunk,
    began: f64,
    latency: f64,
    work: f64,
    total_work: f64,
    rows: f64,
    patience: Option<Patience>,
}

impl Query {
    /// The rows that have come.
    fn passed(&self, is_streaming: bool) -> f64 {
        if !is_streaming || self.total_work <= 0.0 {
            return 0.0;
        }
        self.rows * (1.0 - self.work / self.total_work)
    }
}

/// A sequence of numbers in [-1, 1) that is the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

impl Server {
    fn queue(&self, width: Option<i64>) -> Queue {
        let mut queue = Queue::default();
        for number in 0..self.tables {
            let id = TableId {
                source: "s".into(),
                database: "d".into(),
                schema: "r".into(),
                table: format!("t{number}"),
            };
            let all = Window { from: 0, to: self.days * DAY };
            let table = Arc::new(Table { data_ranges: vec![all], ..Table::new(id, vec![]) });
            queue.add(table, Some(all), vec![all], false, width);
        }
        queue
    }

    /// Exports everything.
    pub(crate) fn run(&self, choice: Choice, seed: u64) -> Outcome {
        let (mut queue, mut streams) = match choice {
            Choice::Fixed { days, .. } => (self.queue(Some((days * DAY as f64) as i64)), None),
            Choice::Controller { most } => (self.queue(None), Some(Streams::new(most))),
        };
        let mut noise = Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (mut now, mut next_tick) = (0.0, TICK);
        let (mut ended_rows, mut left) =
            (0.0, self.quota.map_or(f64::INFINITY, |(rows, _)| rows as f64));
        let mut active: Vec<Query> = Vec::new();
        let mut outcome = Outcome { seconds: 0.0, chunks: 0, abandoned: 0, streams: 0, days: 0.0 };
        loop {
            let limit = match (&streams, choice) {
                (Some(streams), _) => streams.count(),
                (None, Choice::Fixed { streams, .. }) => streams,
                (None, Choice::Controller { .. }) => 1,
            };
            while active.len() < limit
                && left > 0.0
                && let Some((at, chunk)) = queue.take()
            {
                let window = chunk.slice.window().unwrap();
                let day = |time: i64| time as f64 / DAY as f64;
                let all = self.days as f64;
                let (from, to) = (day(window.from).max(0.0), day(window.to).min(all));
                let rows = (self.rows)(from / all, to / all);
                let work = (self.work)(to - from, rows) * (1.0 + self.noise * noise.next());
                let patience = match streams {
                    Some(_) if self.quota.is_none() => queue.patience(at, &chunk),
                    _ => None,
                };
                left -= rows;
                active.push(Query {
                    at,
                    chunk,
                    began: now,
                    latency: self.latency,
                    work,
                    total_work: work,
                    rows,
                    patience,
                });
            }
            if active.is_empty() && queue.is_empty() {
                outcome.seconds = now;
                outcome.streams = limit;
                return outcome;
            }
            let working = active.iter().filter(|query| query.latency <= 0.0).count() as f64;
            let crowd = (working - self.threads).max(0.0);
            let share = (self.threads / working.max(1.0)).min(1.0) / (1.0 + self.thrash * crowd);
            let speed = share * (self.speed)(now);
            let mut step = next_tick - now;
            for query in &active {
                let needs = if query.latency > 0.0 { query.latency } else { query.work / speed };
                step = step.min(needs);
            }
            let before = now;
            now += step.max(0.0);
            for query in &mut active {
                if query.latency > 0.0 {
                    query.latency =
                        if query.latency <= step + 1e-9 { 0.0 } else { query.latency - step };
                } else {
                    query.work = if query.work / speed <= step + 1e-9 {
                        0.0
                    } else {
                        query.work - step * speed
                    };
                }
            }
            if let Some((rows, period)) = self.quota
                && (before / period).floor() < (now / period).floor()
            {
                left = (left + rows as f64).min(rows as f64);
            }
            let observed = |active: &[Query], ended_rows: f64| Observed {
                now: Duration::from_secs_f64(now),
                rows: (ended_rows
                    + active.iter().map(|query| query.passed(self.is_streaming)).sum::<f64>())
                    as u64,
                streams: active.len(),
            };
            while let Some(done) =
                active.iter().position(|query| query.latency <= 0.0 && query.work <= 0.0)
            {
                let streams_before = active.len();
                let query = active.remove(done);
                ended_rows += query.rows;
                outcome.chunks += 1;
                let window = query.chunk.slice.window().unwrap();
                outcome.days = window.width() as f64 / DAY as f64;
                if let Some(streams) = &mut streams {
                    let elapsed = Duration::from_secs_f64(now - query.began);
                    let rows = query.rows as u64;
                    let most_rows = self.quota.map(|(rows, _)| rows / 4);
                    let read = Read {
                        rows,
                        elapsed,
                        most_rows,
                        streams: streams.count(),
                        is_trial: streams.is_trial(),
                        now: Duration::from_secs_f64(now),
                    };
                    queue.learn(query.at, window, read);
                    let observed =
                        Observed { streams: streams_before, ..observed(&active, ended_rows) };
                    streams.chunk_ended(observed, rows, elapsed);
                }
            }
            if now >= next_tick - 1e-9 {
                next_tick += TICK;
                let verdict = |query: &Query| {
                    let elapsed = Duration::from_secs_f64(now - query.began);
                    query.patience?.verdict(elapsed, query.passed(self.is_streaming) as u64)
                };
                while let Some((at, why)) =
                    active.iter().enumerate().find_map(|(at, query)| Some((at, verdict(query)?)))
                {
                    let query = active.remove(at);
                    // The rows were sent, although they are sent again.
                    ended_rows += query.passed(self.is_streaming);
                    outcome.abandoned += 1;
                    queue.abandoned(query.at, &query.chunk, why);
                }
                if let Some(streams) = &mut streams {
                    streams.tick(observed(&active, ended_rows));
                }
            }
            if now > 3_600.0 && streams.is_none() {
                return Outcome { seconds: f64::INFINITY, ..outcome };
            }
            assert!(
                now < 100_000.0 && outcome.chunks < 1_000_000,
                "{}: does not end: {now} {outcome:?}",
                self.name
            );
        }
    }

    /// The best of all fixed pairs, by the mean of several runs, and what it takes.
    pub(crate) fn best(&self, most: usize, seeds: std::ops::RangeInclusive<u64>) -> (Choice, f64) {
        let widths = (-6..=12).map(|power| 2f64.powi(power));
        let widths = widths.filter(|days| {
            let chunks = self.tables as f64 * self.days as f64 / days;
            *days <= 2.0 * self.days as f64 && chunks < 20_000.0
        });
        let streams = [1, 2, 3, 4, 6, 8].into_iter().filter(|streams| *streams <= most);
        let pairs = widths
            .flat_map(|days| streams.clone().map(move |streams| Choice::Fixed { days, streams }));
        // A server with a quota refuses a query that exceeds it.
        let is_possible = |choice: &Choice| match (self.quota, choice) {
            (Some((rows, _)), Choice::Fixed { days, .. }) => {
                (self.rows)(0.0, (days / self.days as f64).min(1.0)) <= rows as f64
            }
            _ => true,
        };
        let means = pairs.filter(is_possible).map(|choice| {
            let seconds = seeds.clone().map(|seed| self.run(choice, seed).seconds);
            (choice, seconds.sum::<f64>() / seeds.clone().count() as f64)
        });
        means.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap()
    }
}

/// The simulated servers.
pub(crate) fn servers() -> Vec<Server> {
    let usual = Server {
        name: "",
        days: 1000,
        tables: 1,
        rows: |_, _| 0.0,
        latency: 0.002,
        work: |_, _| 0.0,
        threads: 2.0,
        thrash: 0.0,
        is_streaming: true,
        noise: 0.03,
        speed: |_| 1.0,
        quota: None,
    };
    vec![
        Server {
            name: "InfluxDB 3, two threads",
            days: 2000,
            rows: |from, to| 133e6 * (to - from),
            work: |days, _| 0.04 + 0.04 * days.powf(2.05),
            is_streaming: false,
            ..usual
        },
        Server {
            name: "InfluxDB 3, thrashing",
            days: 2000,
            rows: |from, to| 133e6 * (to - from),
            work: |days, _| 0.02 + 0.04 * days.powf(2.05),
            threads: 1.0,
            thrash: 0.35,
            is_streaming: false,
            ..usual
        },
        Server {
            name: "InfluxDB 3, merging from a day on",
            days: 1200,
            rows: |from, to| 80e6 * (to - from),
            work: |days, rows| {
                0.03 + rows / 0.6e6 + if days > 1.01 { 0.06 * days * days } else { 0.0 }
            },
            is_streaming: false,
            ..usual
        },
        Server {
            name: "far away: 150 ms a query, 20 ms",
            rows: |from, to| 250e6 * (to - from),
            latency: 0.17,
            work: |_, rows| rows / 0.5e6,
            threads: 8.0,
            ..usual
        },
        Server {
            name: "far away, small rows by day",
            days: 3000,
            tables: 100,
            rows: |from, to| 2e6 * (to - from),
            latency: 0.17,
            work: |_, rows| rows / 0.2e6,
            threads: 8.0,
            ..usual
        },
        Server {
            name: "InfluxDB 1.6",
            rows: |from, to| 60e6 * (to - from),
            work: |_, rows| 0.01 + rows / 0.4e6,
            ..usual
        },
        Server {
            name: "PostgreSQL with an index",
            rows: |from, to| 100e6 * (to - from),
            work: |_, rows| 0.003 + rows / 0.8e6,
            threads: 2.0,
            ..usual
        },
        Server {
            name: "a quota",
            rows: |from, to| 60e6 * (to - from),
            work: |_, rows| 0.05 + rows / 1e6,
            quota: Some((8_000_000, 30.0)),
            ..usual
        },
        Server {
            name: "noise of 40 %, slow for a minute",
            rows: |from, to| 150e6 * (to - from),
            work: |_, rows| 0.05 + rows / 0.5e6,
            noise: 0.4,
            speed: |now| if (60.0..120.0).contains(&now) { 0.2 } else { 1.0 },
            ..usual
        },
        Server {
            name: "noise of 40 %, costly queries",
            days: 2000,
            rows: |from, to| 133e6 * (to - from),
            work: |days, _| 0.04 + 0.04 * days.powf(2.05),
            noise: 0.4,
            is_streaming: false,
            ..usual
        },
        Server {
            name: "bursts",
            days: 1000,
            rows: |from, to| {
                let burst = (to.min(0.51) - from.max(0.50)).max(0.0) / 0.01;
                60e6 * (0.1 * (to - from) + 0.9 * burst)
            },
            work: |_, rows| 0.01 + rows / 0.4e6,
            ..usual
        },
        Server {
            name: "bursts, costly queries",
            days: 2000,
            rows: |from, to| {
                let burst = (to.min(0.51) - from.max(0.50)).max(0.0) / 0.01;
                60e6 * (0.1 * (to - from) + 0.9 * burst)
            },
            work: |_, rows| 0.02 + rows / 0.8e6 + (rows / 0.3e6).powi(2),
            is_streaming: false,
            ..usual
        },
        Server {
            name: "any query takes 3 s, few rows",
            days: 2000,
            tables: 2000,
            rows: |from, to| 200_000.0 * (to - from),
            latency: 3.0,
            work: |_, rows| rows / 0.5e6,
            threads: 8.0,
            noise: 0.1,
            ..usual
        },
        Server {
            name: "any query takes 8 s, few rows",
            days: 2000,
            tables: 1600,
            rows: |from, to| 200_000.0 * (to - from),
            latency: 8.0,
            work: |_, rows| rows / 0.5e6,
            threads: 8.0,
            noise: 0.1,
            ..usual
        },
        Server {
            name: "a thousand small tables",
            days: 365,
            tables: 1000,
            rows: |from, to| 50_000.0 * (to - from),
            latency: 0.02,
            work: |_, rows| 0.03 + rows / 0.5e6,
            ..usual
        },
    ]
}
