//! Work on a thread that may block. When nobody waits for it any more, its connections are closed, so that it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::source::tcp::Closer;

/// Cancels a piece of work by closing its connections, which wakes a thread that waits for a server.
#[derive(Clone, Default)]
pub(crate) struct CancelToken(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    is_cancelled: bool,
    next: u64,
    closers: HashMap<u64, Closer>,
}

impl CancelToken {
    /// Closes this connection, too, when the work is cancelled.
    pub(crate) fn watch(&self, closer: Closer) -> u64 {
        let mut watched = self.lock();
        watched.next += 1;
        let number = watched.next;
        if watched.is_cancelled {
            closer.close();
        } else {
            watched.closers.insert(number, closer);
        }
        number
    }

    /// Runs work with a connection that outlives it.
    pub(crate) fn watching<T>(&self, closer: Closer, work: impl FnOnce() -> T) -> T {
        let number = self.watch(closer);
        let outcome = work();
        self.lock().closers.remove(&number);
        outcome
    }

    /// Closes all connections of the work, and those that it opens from now on.
    pub(crate) fn cancel(&self) {
        let mut watched = self.lock();
        watched.is_cancelled = true;
        watched.closers.drain().for_each(|(_, closer)| closer.close());
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels the work unless it has ended.
struct Waiting {
    cancel: CancelToken,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.cancel.cancel();
        }
    }
}

/// Runs the work on a thread that may block, and cancels it when the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&CancelToken) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut waiting = Waiting { cancel: CancelToken::default(), done: false };
    let cancel = waiting.cancel.clone();
    let outcome = tokio::task::spawn_blocking(move || work(&cancel)).await;
    waiting.done = true;
    outcome.unwrap_or_else(|error| Err(Error::stop(format!("a worker thread failed: {error}"))))
}
