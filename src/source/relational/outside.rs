//! A connection outside of any snapshot, which sees the present state. While a stream still holds its lock on the table
//! that it has read, nobody can alter or replace the table, so this connection shows what the names in the stream's
//! statement meant. Within the snapshot, the catalogs may show an earlier state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::source::relational::broken::may_be_repeated;
use crate::source::relational::cancel::CancelToken;
use crate::source::tcp::Closer;

/// A connection of any protocol.
pub(crate) trait Connected {
    /// A handle that closes the connection from another thread.
    fn closer(&self) -> Result<Closer>;
}

/// The connection, which is opened when it is first needed and shared by everyone who asks.
pub(crate) struct Outside<C>(Mutex<Option<C>>);

impl<C> Default for Outside<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Connected> Outside<C> {
    fn lock(&self) -> MutexGuard<'_, Option<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks on this connection, and once more on a new one if the server had closed it while it was idle. After any
    /// error it is closed, since its state is unknown.
    pub(crate) fn ask<T>(
        &self,
        cancel: &CancelToken,
        open: impl Fn() -> Result<C>,
        mut ask: impl FnMut(&mut C) -> Result<T>,
    ) -> Result<T> {
        let mut held = self.lock();
        loop {
            let kept = held.take();
            let was_kept = kept.is_some();
            let mut connection = kept.map_or_else(&open, Ok)?;
            let asked = cancel.watching(connection.closer()?, || ask(&mut connection));
            match asked {
                Ok(answer) => {
                    *held = Some(connection);
                    return Ok(answer);
                }
                Err(error) if was_kept && may_be_repeated(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the connection unless it is in use.
    pub(crate) fn close(&self) {
        if let Ok(mut held) = self.0.try_lock() {
            *held = None;
        }
    }
}
