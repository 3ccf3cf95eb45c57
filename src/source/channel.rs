//! The bounded channel between a source and the encoder of a chunk.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use tokio::sync::{Semaphore, mpsc};

use crate::error::{Class, Error, Result};

/// The byte budget of the channel between source and encoder, in KiB. A larger batch waits alone. The number of batches
/// would bound nothing, because one value may have a gigabyte.
const ROOM: u32 = 16 * 1024;

/// The size of an array in bytes. The arrays of one message share its buffer, so only the part that each of them uses
/// is counted.
pub(crate) fn size_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// The sending half: a source puts the batches of a chunk into it. It is bounded, so that a slow destination slows the
/// source down.
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
}

impl Batches {
    /// The next batch; `None` after the last.
    pub async fn recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.recv().await;
        self.taken(taken)
    }

    /// The same, for a thread that may block.
    pub fn blocking_recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.blocking_recv();
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
        self.room.close(); // no sender may wait for a receiver that is gone
    }
}

impl BatchSender {
    /// A channel for at most `capacity` batches.
    pub fn channel(capacity: usize) -> (Self, Batches) {
        let (sender, receiver) = mpsc::channel(capacity);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        (Self { sender, room: Arc::clone(&room) }, Batches { receiver, room })
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

    // The encoder or the upload has failed; its own error is shown instead of this one.
    fn gone() -> Error {
        Error::of(Class::Retry, "the writer of this chunk has ended")
    }
}
