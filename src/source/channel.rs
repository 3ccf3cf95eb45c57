//! The bounded channel between a source and the encoder of a chunk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::error::{Class, Error, Result};

/// The byte budget of the channel between source and encoder, in KiB. A larger batch waits until the channel is empty. A
/// bound on the number of batches would not be enough, because a single value may have a gigabyte.
const ROOM: u32 = 16 * 1024;

/// The size of an array in bytes. The arrays of one message share its buffer, so only the part that an array uses is
/// counted.
pub(crate) fn size_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// How long a paced receiver sleeps at once before it checks whether its chunk has failed.
const NAP: Duration = Duration::from_millis(50);

/// How many pieces of a dump wait for the receiver.
const PIECES: usize = 4;

/// The most bytes that all chunks of a run together take from their sources in a second.
#[derive(Debug, Clone)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the next batch may be taken.
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// A pace of this many bytes a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until this many bytes may be passed on.
    pub async fn wait(&self, bytes: usize) {
        tokio::time::sleep_until(self.take((bytes / 1024) as u32).into()).await;
    }

    /// When a batch of this size may be passed on. The batches after it wait for the time that this one takes.
    fn take(&self, size_kib: u32) -> Instant {
        let bytes = u64::from(size_kib) * 1024;
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = (*next).max(Instant::now());
        *next = due + takes;
        due
    }
}

/// Where the bytes of a native dump go, as its program prints them.
pub type DumpSender = mpsc::Sender<Bytes>;

/// A channel for a dump. Its bound slows the program down if the destination is slow.
pub fn dump_channel() -> (DumpSender, mpsc::Receiver<Bytes>) {
    mpsc::channel(PIECES)
}

/// The sending half, into which a source puts the batches of a chunk. The channel is bounded, so that a slow destination
/// slows the source down.
#[derive(Debug, Clone)]
pub struct BatchSender {
    sender: mpsc::Sender<(RecordBatch, u32)>,
    room: Arc<Semaphore>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Batches {
    receiver: mpsc::Receiver<(RecordBatch, u32)>,
    room: Arc<Semaphore>,
    pace: Option<(Pace, Arc<AtomicBool>)>,
}

impl Batches {
    /// Takes batches no faster than the pace, which slows the source down by its full channel. A channel that closes
    /// although its stream has not `ended` well is emptied at once.
    #[must_use]
    pub fn paced(mut self, pace: Pace, ended: Arc<AtomicBool>) -> Self {
        self.pace = Some((pace, ended));
        self
    }

    /// The next batch; `None` after the last.
    pub async fn recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.recv().await;
        self.taken(taken)
    }

    /// The same, for a thread that may block.
    pub fn blocking_recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.blocking_recv();
        if let (Some((pace, ended)), Some((_, size_kib))) = (&self.pace, &taken) {
            let due = pace.take(*size_kib);
            while (!self.receiver.is_closed() || ended.load(Ordering::Acquire))
                && let Some(left) = due.checked_duration_since(Instant::now())
                && !left.is_zero()
            {
                std::thread::sleep(left.min(NAP));
            }
        }
        self.taken(taken)
    }

    /// Closes the channel.
    pub fn close(&mut self) {
        self.receiver.close();
        self.room.close();
    }

    fn taken(&self, taken: Option<(RecordBatch, u32)>) -> Option<RecordBatch> {
        let (batch, room) = taken?;
        self.room.add_permits(room as usize);
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.room.close(); // otherwise a sender would wait forever for a receiver that is gone
    }
}

impl BatchSender {
    /// A channel for at most `capacity` batches.
    pub fn channel(capacity: usize) -> (Self, Batches) {
        let (sender, receiver) = mpsc::channel(capacity);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        (Self { sender, room: Arc::clone(&room) }, Batches { receiver, room, pace: None })
    }

    /// Sends a batch from a thread that may block.
    pub fn blocking_send(&self, batch: RecordBatch) -> Result<()> {
        futures::executor::block_on(self.send(batch))
    }

    /// Sends a batch.
    pub async fn send(&self, batch: RecordBatch) -> Result<()> {
        let bytes: usize = batch.columns().iter().map(size_bytes).sum();
        let room = u32::try_from(bytes / 1024).unwrap_or(ROOM).min(ROOM);
        self.room.acquire_many(room).await.map_err(|_| Self::gone())?.forget();
        self.sender.send((batch, room)).await.map_err(|_| Self::gone())
    }

    // The encoder or the upload has failed, whose own error is shown instead of this one.
    fn gone() -> Error {
        Error::of(Class::Retry, "the writer of this chunk has ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_waits_for_the_time_that_those_before_it_take() {
        let pace = Pace::new(1024 * 1024);
        let began = Instant::now();
        let first = pace.take(2048); // 2 MiB: two seconds
        let second = pace.clone().take(512); // of another chunk: half a second
        let third = pace.take(1);
        assert!(first >= began && first.elapsed() < Duration::from_secs(1), "at once");
        assert_eq!(second - first, Duration::from_secs(2));
        assert_eq!(third - second, Duration::from_millis(500));
    }
}
