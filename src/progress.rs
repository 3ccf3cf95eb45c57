//! What a run shows on standard error while it works: a bar on a terminal, a line now and then elsewhere, JSON lines
//! for programs, or nothing. This is the only file that draws.

mod sources;
mod terminal;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};
use serde_json::json;

use self::sources::Sources;
use self::terminal::{Narrower, Part, fitting};
use crate::error::Error;
use crate::text::several;

/// How the progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// A bar on a terminal, and lines elsewhere.
    #[default]
    Auto,
    /// A bar on a terminal, and nothing elsewhere.
    Bar,
    /// A line now and then.
    Plain,
    /// A JSON object per line.
    Json,
    /// Only warnings.
    None,
}

/// The time between two lines for people, and between two objects for programs.
const LINE_EVERY: Duration = Duration::from_secs(10);
const JSON_EVERY: Duration = Duration::from_secs(1);
/// The rate is the average over this time.
const RECENT: Duration = Duration::from_secs(15);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// No rate is derived from less time than this.
const TELLING: Duration = Duration::from_secs(3);
/// After this time without data, the line says so.
const STALL: Duration = Duration::from_secs(10);
/// How often the spinner moves.
const SPIN: Duration = Duration::from_millis(200);
/// The width of a bar in characters.
const BAR: usize = 12;

/// The counts of a run and their display. Clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    show: Show,
    bar: Option<ProgressBar>,
    began: Instant,
    rows: AtomicU64,
    bytes: AtomicU64,
    done: AtomicU64,
    left: AtomicU64,
    ended: AtomicBool,
    doing: Mutex<Doing>,
}

#[derive(Debug, Default)]
struct Doing {
    what: String,
    /// The tables of the chunks in flight with their sources, in the order in which the chunks were begun.
    tables: Vec<(u64, String, String)>,
    begun: u64,
    rows_left: Option<u64>,
    waiting: Option<(Instant, String)>,
    last_line: Option<Instant>,
    /// Rows and bytes at some instants of the last seconds, the oldest first.
    samples: VecDeque<(Instant, u64, u64)>,
    /// When rows or bytes were last seen to change.
    last_data: Option<(Instant, u64, u64)>,
    stopping: bool,
    /// What each source does, if there are several.
    sources: Sources,
}

impl Doing {
    /// The table whose chunk was begun first, and its source.
    fn table(&self) -> Option<(String, String)> {
        self.tables.first().map(|(_, table, source)| (table.clone(), source.clone()))
    }
}

/// A chunk in flight.
#[derive(Debug)]
pub struct InFlight {
    progress: Progress,
    number: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.progress.with(|doing| doing.tables.retain(|(number, ..)| *number != self.number));
    }
}

/// The counts and rates at an instant.
struct Moment {
    done: u64,
    left: u64,
    rows: u64,
    bytes: u64,
    fraction: f64,
    rows_per_second: Option<u64>,
    bytes_per_second: Option<u64>,
    time_left: Option<Duration>,
    stalled: Option<Duration>,
    waiting: Option<(u64, String)>,
}

impl Progress {
    /// Starts the display.
    pub fn new(show: Show) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = (is_terminal && matches!(show, Show::Auto | Show::Bar)).then(|| {
            let terminal = Box::new(Narrower(Term::stderr()));
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(terminal));
            // A line that is too wide is cut at its end, so the most important part comes first.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let show = match (show, &bar) {
            (Show::Auto, None) => Show::Plain,
            (Show::Bar, None) => Show::None,
            (show, _) => show,
        };
        Self(Arc::new(Inner {
            show,
            bar,
            began: Instant::now(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done: AtomicU64::new(0),
            left: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            doing: Mutex::default(),
        }))
    }

    /// A progress that shows nothing.
    pub fn silent() -> Self {
        Self::new(Show::None)
    }

    /// Says what is being done now, other than work on chunks.
    pub fn doing(&self, what: &str) {
        tracing::info!("{what}");
        self.0.left.store(0, Ordering::Relaxed);
        self.with(|doing| {
            what.clone_into(&mut doing.what);
            doing.last_line = doing.last_line.filter(|_| self.0.show != Show::Json);
        });
        self.tick();
    }

    /// Says that there are several sources, each of which gets a line of its own.
    pub fn sources<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.with(|doing| doing.sources = Sources::new(names));
        if let Some(bar) = &self.0.bar
            && let Ok(style) = ProgressStyle::with_template("{spinner} {msg}")
        {
            bar.set_style(style);
        }
        self.doing("asking the sources what they have");
    }

    /// Says what a source is being asked.
    pub fn asking(&self, source: &str, what: &str) {
        if self.with(|doing| doing.sources.is_empty()) {
            return self.doing(what);
        }
        tracing::info!("{what}");
        self.with(|doing| doing.sources.asking(source, what));
        self.tick();
    }

    /// Says that a source has answered everything that is asked before its rows are read.
    pub fn asked(&self, source: &str) {
        self.with(|doing| doing.sources.asked(source));
    }

    /// Says that a source has failed and that the others continue without it.
    pub fn lost(&self, source: &str, error: &Error) {
        self.with(|doing| doing.sources.lost(source));
        self.note(&format!("failed: {source}: {error}"));
    }

    /// Says about how many chunks are left of each source.
    pub fn left_by_source(&self, left: &BTreeMap<&str, u64>) {
        self.with(|doing| doing.sources.left(left));
    }

    /// Says which table is being read, until the returned value is dropped.
    pub fn reading(&self, table: &str, source: &str) -> InFlight {
        let number = self.with(|doing| {
            doing.begun += 1;
            doing.tables.push((doing.begun, table.to_owned(), source.to_owned()));
            doing.begun
        });
        InFlight { progress: self.clone(), number }
    }

    /// Says what is being waited for, and until when.
    pub fn waiting(&self, until: Instant, what: &str) {
        self.with(|doing| doing.waiting = Some((until, what.to_owned())));
        self.tick();
    }

    /// Says that the user wants to stop.
    pub fn stopping(&self) {
        self.with(|doing| doing.stopping = true);
        self.note("stopping; interrupt once more to stop at once");
        self.tick();
    }

    /// Counts rows that were encoded.
    pub fn add_rows(&self, rows: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts bytes that were written.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The rows so far, including those of chunks in flight.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// Counts a chunk that is done.
    pub fn chunk_done(&self) {
        self.0.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a chunk of a source that is done, with its rows.
    pub fn chunk_done_of(&self, source: &str, rows: u64) {
        self.chunk_done();
        self.with(|doing| doing.sources.chunk_done(source, rows));
    }

    /// Says about how many chunks are left, including those in flight, and about how many rows, if that is known.
    pub fn left(&self, chunks: u64, rows: Option<u64>) {
        let had = self.0.left.swap(chunks, Ordering::Relaxed);
        self.with(|doing| {
            doing.rows_left = rows;
            if had == 0 {
                // No rows were read before, so that time must not lower the rate.
                doing.samples.clear();
                doing.last_data = None;
            }
        });
        self.tick();
    }

    /// Takes back the rows and bytes of a chunk that failed.
    pub fn uncount(&self, rows: u64, bytes: u64) {
        self.0.rows.fetch_sub(rows, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Prints a line for people above the bar: a warning or an event.
    pub fn note(&self, line: &str) {
        self.line_of("note", line);
    }

    /// Prints a line on standard error without damaging the bar, or an object for programs.
    pub fn line_of(&self, event: &str, line: &str) {
        match (&self.0.bar, self.0.show) {
            (Some(bar), _) => bar.suspend(|| print_line(line)),
            (None, Show::Json) => print_line(&json!({"event": event, "message": line}).to_string()),
            (None, _) => print_line(line),
        }
    }

    /// Redraws. It is called often and draws seldom.
    pub fn tick(&self) {
        if self.0.show == Show::None || self.0.ended.load(Ordering::Relaxed) {
            return;
        }
        if let Some(bar) = &self.0.bar {
            bar.set_message(self.lines_of_bar());
            bar.enable_steady_tick(SPIN);
            return;
        }
        let every = if self.0.show == Show::Json { JSON_EVERY } else { LINE_EVERY };
        let due = self.with(|doing| {
            let due = match doing.last_line {
                None if self.0.show == Show::Json => true,
                last => last.unwrap_or(self.0.began).elapsed() >= every,
            };
            if due {
                doing.last_line = Some(Instant::now());
            }
            due
        });
        match (due, self.0.show) {
            (false, _) => _ = self.moment(),
            (true, Show::Json) => print_line(&self.object()),
            (true, _) => {
                print_line(&self.line());
                self.lines_of_sources().iter().for_each(|line| print_line(line));
            }
        }
    }

    /// A line for each source that is at work.
    fn lines_of_sources(&self) -> Vec<String> {
        self.with(|doing| {
            let reading = doing.tables.iter().map(|(_, table, source)| (&**source, &**table));
            doing.sources.lines(reading)
        })
    }

    fn lines_of_bar(&self) -> String {
        let columns = usize::from(Term::stderr().size().1.saturating_sub(terminal::MARGIN));
        let columns = columns.saturating_sub(2); // the first line stands behind the spinner
        let mut lines = vec![fitting(&self.parts(), columns)];
        lines.extend(self.lines_of_sources());
        let cut = |line: &String| console::truncate_str(line, columns, "…").into_owned();
        lines.iter().map(cut).collect::<Vec<_>>().join("\n")
    }

    /// Clears the bar. Nothing is shown afterwards.
    pub fn end(&self) {
        let had_ended = self.0.ended.swap(true, Ordering::Relaxed);
        match &self.0.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.0.show == Show::Json && !had_ended => print_line(&self.object()),
            None => {}
        }
    }

    fn moment(&self) -> Moment {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (done, left) = (of(&self.0.done), of(&self.0.left));
        let (rows, bytes, now) = (self.rows(), of(&self.0.bytes), Instant::now());
        self.with(|doing| {
            if doing.last_data.is_none_or(|(_, r, b)| (r, b) != (rows, bytes)) {
                doing.last_data = Some((now, rows, bytes));
            }
            let newest = doing.samples.back().map(|(then, ..)| now.duration_since(*then));
            if newest.is_none_or(|age| age >= SAMPLE_EVERY) {
                doing.samples.push_back((now, rows, bytes));
            }
            while doing.samples.get(1).is_some_and(|(then, ..)| now.duration_since(*then) > RECENT)
            {
                doing.samples.pop_front();
            }
            doing.waiting = doing.waiting.take().filter(|(until, _)| *until > now);
            let waiting = doing.waiting.as_ref();
            let waiting = waiting
                .map(|(until, what)| (until.duration_since(now).as_secs() + 1, what.clone()));
            let silent = doing.last_data.map(|(then, ..)| now.duration_since(then));
            let stalled = silent.filter(|silent| *silent >= STALL && waiting.is_none() && left > 0);
            let since = doing.samples.front().map(|then| (now.duration_since(then.0), *then));
            let since = since.filter(|(span, _)| *span >= TELLING && stalled.is_none());
            let rate = |count: u64, then: u64, span: Duration| {
                (count.saturating_sub(then) as f64 / span.as_secs_f64()) as u64
            };
            let rows_per_second = since.map(|(span, then)| rate(rows, then.1, span));
            let rows_left = doing.rows_left.filter(|_| left > 0);
            let share = |done: u64, left: u64| done as f64 / (done + left).max(1) as f64;
            Moment {
                done,
                left,
                rows,
                bytes,
                // The bar is never full while there is work left.
                fraction: rows_left.map_or_else(|| share(done, left), |l| share(rows, l)).min(0.99),
                rows_per_second,
                bytes_per_second: since.map(|(span, then)| rate(bytes, then.2, span)),
                time_left: rows_left.zip(rows_per_second.filter(|rate| *rate > 0)).map(
                    |(rows, rate)| Duration::from_secs_f64((rows as f64 / rate as f64).max(1.0)),
                ),
                stalled,
                waiting,
            }
        })
    }

    fn line(&self) -> String {
        fitting(&self.parts(), usize::MAX)
    }

    /// The parts of the line, the most important first.
    fn parts(&self) -> Vec<Part> {
        let now = self.moment();
        let (what, table, stopping) =
            self.with(|doing| (doing.what.clone(), doing.table(), doing.stopping));
        let waiting = now.waiting.map(|(seconds, what)| format!("waiting {seconds} s: {what}"));
        if stopping {
            return vec![Part::Text("stopping".to_owned())];
        }
        if now.left == 0 {
            return vec![Part::Text(waiting.unwrap_or(what))];
        }
        let full = (now.fraction * BAR as f64) as usize;
        let head = if full == 0 { "" } else { ">" };
        let bar = format!("{}{head}", "=".repeat(full.saturating_sub(1)));
        let mut parts =
            vec![Part::Text(format!("[{bar:BAR$}] {:.0}%", (now.fraction * 100.0).floor()))];
        parts.extend(waiting.map(Part::Text));
        let mut whole = |part: Option<String>| parts.extend(part.map(Part::Whole));
        whole(now.stalled.map(|stalled| format!("no data for {} s", stalled.as_secs())));
        whole(now.time_left.map(|left| format!("about {} left", HumanDuration(left))));
        whole(Some(several(now.rows, "row")));
        whole(now.rows_per_second.map(|rate| format!("{} rows/s", HumanCount(rate))));
        whole(Some(HumanBytes(now.bytes).to_string()));
        parts.extend(table.map(|(table, source)| Part::Text(format!("{table} of {source}"))));
        parts.push(Part::Whole(format!(
            "{} of about {}",
            HumanCount(now.done),
            several(now.done + now.left, "window")
        )));
        parts
    }

    fn object(&self) -> String {
        let now = self.moment();
        let reading = now.left > 0;
        let (what, table, stopping) =
            self.with(|doing| (doing.what.clone(), doing.table(), doing.stopping));
        let phase = match (self.0.ended.load(Ordering::Relaxed), stopping, reading) {
            (true, ..) => "ended",
            (_, true, _) => "stopping",
            (.., true) => "reading",
            _ => what.as_str(),
        };
        let (table, source) = table.unzip();
        json!({
            "event": "progress",
            "phase": phase,
            "source": source.filter(|_| reading),
            "table": table.filter(|_| reading),
            "rows": now.rows,
            "bytes": now.bytes,
            "chunks_done": now.done,
            "chunks_left": now.left,
            "rows_per_second": now.rows_per_second,
            "bytes_per_second": now.bytes_per_second,
            "seconds_left": now.time_left.map(|left| left.as_secs()),
            "seconds_without_data": now.stalled.map(|stalled| stalled.as_secs()),
            "waiting": now.waiting.map(|(_, what)| what),
            "elapsed_seconds": self.0.began.elapsed().as_secs_f64(),
            "sources": self.with(|doing| doing.sources.object()),
        })
        .to_string()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Doing) -> T) -> T {
        act(&mut self.0.doing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// Errors are ignored, since a closed standard error must not end an export.
fn print_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests;
