//! Work on a thread that may block, which ends when nobody waits for it any more: its connections are hung
//! up. Knows no protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::source::tcp::Hangup;

/// The connections of a piece of work.
#[derive(Clone, Default)]
pub(in crate::source) struct Cancel(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    over: bool,
    next: u64,
    wires: HashMap<u64, Hangup>,
}

impl Cancel {
    /// Hangs this one up, too, when nobody waits any more.
    pub(in crate::source) fn watch(&self, wire: Hangup) -> u64 {
        let mut watched = self.lock();
        watched.next += 1;
        let number = watched.next;
        match watched.over {
            true => wire.hang_up(),
            false => drop(watched.wires.insert(number, wire)),
        }
        number
    }

    /// Does something with a connection that others use before and after.
    pub(in crate::source) fn watching<T>(&self, wire: Hangup, work: impl FnOnce() -> T) -> T {
        let number = self.watch(wire);
        let outcome = work();
        self.lock().wires.remove(&number);
        outcome
    }

    /// Hangs up all of them, and those that come.
    pub(in crate::source) fn hang_up(&self) {
        let mut watched = self.lock();
        watched.over = true;
        watched.wires.drain().for_each(|(_, wire)| wire.hang_up());
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hangs up unless the work has ended.
struct Waiting {
    cancel: Cancel,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.cancel.hang_up();
        }
    }
}

/// Does it on a thread that may block.
pub(in crate::source) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut waiting = Waiting { cancel: Cancel::default(), done: false };
    let cancel = waiting.cancel.clone();
    let outcome = tokio::task::spawn_blocking(move || work(&cancel)).await;
    waiting.done = true;
    outcome.unwrap_or_else(|error| Err(Error::stop(format!("a worker ended: {error}"))))
}
