//! A connection that is in no snapshot: it sees what is there now. While a stream still holds its lock on the table
//! that it has read, nobody can alter or replace it, so that what this connection sees of the table is what the
//! stream's names meant. Within the snapshot the catalogs may show what was there before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::source::relational::broken::may_be_repeated;
use crate::source::relational::cancel::CancelToken;
use crate::source::tcp::Closer;

/// A connection of some protocol.
pub(in crate::source) trait Connected {
    /// What closes it from another thread.
    fn closer(&self) -> Result<Closer>;
}

/// The connection, opened when it is first needed, for all who ask.
pub(in crate::source) struct Outside<C>(Mutex<Option<C>>);

impl<C> Default for Outside<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Connected> Outside<C> {
    fn lock(&self) -> MutexGuard<'_, Option<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks by it; once more by a new one where the server closed it while nobody asked. After an error that is the
    /// server's answer it is closed as well, since nobody knows what state it is in.
    pub(in crate::source) fn ask<T>(
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

    /// Ends it, unless somebody asks by it.
    pub(in crate::source) fn close(&self) {
        if let Ok(mut held) = self.0.try_lock() {
            *held = None;
        }
    }
}
