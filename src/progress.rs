//! What a run shows while it works, on standard error: a bar on a terminal, a line now and then
//! elsewhere, or nothing. The only file that knows indicatif.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A bar on a terminal, else lines.
    Progress,
    /// Warnings alone.
    Quiet,
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts of a run and their display. Cheap to clone; clones share everything.
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
    waiting: Option<(Instant, String)>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Begins to show.
    pub fn new(show: Show) -> Self {
        let bar = (show == Show::Progress && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // NO_COLOR is honoured by indicatif's own console; the template is plain anyway.
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
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

    /// Nothing at all.
    pub fn silent() -> Self {
        Self::new(Show::Quiet)
    }

    /// Says what is being done now.
    pub fn doing(&self, what: &str) {
        self.with(|doing| what.clone_into(&mut doing.what));
        self.tick();
    }

    /// Says what is being waited for, until when.
    pub fn waiting(&self, until: Instant, what: &str) {
        self.with(|doing| doing.waiting = Some((until, what.to_owned())));
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

    /// Counts a chunk that is done.
    pub fn chunk_done(&self) {
        self.0.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Says about how many chunks are left.
    pub fn left(&self, left: u64) {
        self.0.left.store(left, Ordering::Relaxed);
        self.tick();
    }

    /// Rows of a chunk that failed do not count.
    pub fn uncount(&self, rows: u64, bytes: u64) {
        self.0.rows.fetch_sub(rows, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A line for people, above the bar: a warning or a turn of events.
    pub fn note(&self, line: &str) {
        match &self.0.bar {
            Some(bar) => bar.suspend(|| print_line(line)),
            None => print_line(line),
        }
    }

    /// Redraws; called often, draws seldom.
    pub fn tick(&self) {
        if self.0.show == Show::Quiet || self.0.ended.load(Ordering::Relaxed) {
            return;
        }
        let line = self.line();
        if let Some(bar) = &self.0.bar {
            let done = self.0.done.load(Ordering::Relaxed);
            bar.set_length(done + self.0.left.load(Ordering::Relaxed));
            bar.set_position(done);
            bar.set_message(line);
            bar.tick();
            return;
        }
        let due = self.with(|doing| {
            let due = doing.last_line.unwrap_or(self.0.began).elapsed() >= LINE_EVERY;
            if due {
                doing.last_line = Some(Instant::now());
            }
            due
        });
        if due {
            print_line(&line);
        }
    }

    /// Clears the bar.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.0.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self) -> String {
        let (done, left) =
            (self.0.done.load(Ordering::Relaxed), self.0.left.load(Ordering::Relaxed));
        let rows = self.0.rows.load(Ordering::Relaxed);
        let elapsed = self.0.began.elapsed();
        let waiting = self.with(|doing| match &doing.waiting {
            Some((until, what)) if *until > Instant::now() => {
                let seconds = until.duration_since(Instant::now()).as_secs() + 1;
                Some(format!("waiting {seconds} s: {what}"))
            }
            _ => {
                doing.waiting = None;
                None
            }
        });
        if done + left == 0 {
            return waiting.unwrap_or_else(|| self.with(|doing| doing.what.clone()));
        }
        let mut line = format!(
            "{done} of about {} windows, {} rows, {}, {} rows/s",
            done + left,
            HumanCount(rows),
            HumanBytes(self.0.bytes.load(Ordering::Relaxed)),
            HumanCount((rows as f64 / elapsed.as_secs_f64().max(0.001)) as u64),
        );
        if done > 0 && left > 0 {
            let rest = elapsed.mul_f64(left as f64 / done as f64);
            line.push_str(&format!(", about {} left", HumanDuration(rest)));
        }
        match waiting {
            Some(waiting) => format!("{line}; {waiting}"),
            None => line,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Doing) -> T) -> T {
        act(&mut self.0.doing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// A closed standard error is no reason to end an export.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
