//! Tells the controller and the progress what happens, and does what the controller decides.

use std::time::Duration;

use crate::export::controller::Patience;
use crate::export::controller::streams::{Observed, Streams};
use crate::export::queue::Read;
use crate::export::run::Run;
use crate::model::Chunk;
use crate::window::Slice;

impl Run<'_> {
    /// Lets the streams of all sources learn from the passing of time.
    pub(super) fn steer(&mut self) {
        let sources: Vec<String> = self.queue.sources().map(str::to_owned).collect();
        for source in sources {
            let observed = self.observed(&source, 0);
            self.streams_of(&source).tick(observed);
            self.apply(&source);
        }
    }

    /// Learns from a chunk that is done.
    pub(super) fn learn(&mut self, at: usize, slice: Slice, rows: u64, elapsed: Duration) {
        let table = &self.queue.table(at).id;
        let (source, most_rows) = (table.source.clone(), self.source(at).chunk_rows(table));
        let now = self.began.elapsed();
        let streams = self.streams_of(&source);
        let (streams, is_trial) = (streams.count(), streams.is_trial());
        if let Some(window) = slice.window() {
            let read = Read { rows, elapsed, most_rows, streams, is_trial, now };
            self.queue.learn(at, window, read);
        }
        let observed = self.observed(&source, 1);
        self.streams_of(&source).chunk_ended(observed, rows, elapsed);
        self.apply(&source);
    }

    /// Tells the progress how much is left.
    pub(super) fn show_what_is_left(&self, in_flight: usize) {
        let progress = &self.writer.progress;
        let by_estimate = self.expected_rows.and_then(|rows| rows.checked_sub(progress.rows()));
        let rows = by_estimate.or_else(|| self.queue.rows_left());
        progress.left(self.queue.chunks_left() + in_flight as u64, rows);
        if self.job.sources.len() > 1 {
            progress.left_by_source(&self.queue.chunks_left_by_source());
        }
    }

    /// How long the stream of a chunk may take.
    pub(super) fn patience(&self, at: usize, chunk: &Chunk) -> Option<Patience> {
        let source = self.source(at);
        // What is billed or has a quota must not be read twice, and a user who limits the bandwidth expects slow streams.
        if self.writer.pace.is_some() || source.metering().is_some() || !source.can_abandon() {
            return None;
        }
        self.queue.patience(at, chunk)
    }

    fn observed(&self, source: &str, just_ended: usize) -> Observed {
        let (held, rows) = self.shared.permits.in_use(source);
        Observed { now: self.began.elapsed(), rows, streams: held + just_ended }
    }

    fn streams_of(&mut self, source: &str) -> &mut Streams {
        let most = self.job.limits.concurrency;
        self.streams.entry(source.to_owned()).or_insert_with(|| Streams::new(most))
    }

    fn apply(&mut self, source: &str) {
        let count = self.streams_of(source).count();
        if self.shared.permits.limit(source, count) {
            tracing::info!("{source}: reading {count} chunks at the same time");
        }
    }
}
