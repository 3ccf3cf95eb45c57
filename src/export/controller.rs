//! PURE: decides how wide the windows of each table are ([`widths`]), and how many chunks of a server are read at the same
//! time ([`streams`]). Only what is finished per second *in all* counts, because chunks that are read side by side slow each
//! other down: four streams may make each one several times as slow, and nothing faster. So one thing is tried at a time,
//! and compared with what was measured under otherwise equal conditions:
//!
//! - The number of streams starts at two. It rises while the rows per second of all streams together rise, and falls where
//!   fewer streams achieve the same.
//! - Widths double, and a width that turns out to be slower than a narrower one is left again. The speeds of two widths are
//!   compared only if they were measured with the same number of streams, a few windows apart.
//! - A window that is wider than all that have passed is a probe. A probe that does not keep up is abandoned: its query is
//!   cancelled, and its time is read in narrower windows ([`Patience`]).
//! - A chunk should take five seconds, unless other widths show that the server needs most of a window's time for any query
//!   (`constant`): then narrower windows would save nothing.
//! - What was too much for a server (its memory, its limit of files, its time-out) is a ceiling that heals slowly.
//!
//! Nothing here has a clock: every time is an argument, so that the simulated servers of `tests/controller.rs` decide how
//! the time passes.

mod constant;
pub mod streams;
pub mod widths;

use std::time::Duration;

/// How long a probe may take before it is abandoned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// The time after which it must have shown that it keeps up.
    pub after: Duration,
    /// From then on it is abandoned as soon as it has had fewer rows per second than this.
    pub least_rows_per_second: f64,
    /// It is abandoned at once if it has more rows than this: the time that is read is far denser than that before it.
    pub most_rows: u64,
}

/// Why a probe is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// It is slower than narrower windows were.
    Slow,
    /// It has far more rows than a chunk should have.
    Dense,
}

impl Patience {
    /// Whether to abandon a probe that has had so many rows after so much time.
    pub fn verdict(&self, elapsed: Duration, rows: u64) -> Option<Abandoned> {
        if rows > self.most_rows {
            Some(Abandoned::Dense)
        } else if elapsed >= self.after
            && (rows as f64) < self.least_rows_per_second * elapsed.as_secs_f64()
        {
            Some(Abandoned::Slow)
        } else {
            None
        }
    }
}
