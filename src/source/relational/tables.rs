//! What listing has learned about the tables of a source, which is needed to find their bounds, count their rows and read
//! them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::model::TableId;

/// How each table is read, according to the last listing.
pub(in crate::source) struct Tables<R>(Mutex<HashMap<TableId, Arc<R>>>);

impl<R> Default for Tables<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Tables<R> {
    fn lock(&self) -> MutexGuard<'_, HashMap<TableId, Arc<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::source) fn insert(&self, table: TableId, readable: R) {
        self.lock().insert(table, Arc::new(readable));
    }

    pub(in crate::source) fn get(&self, table: &TableId) -> Result<Arc<R>> {
        let found = self.lock().get(table).map(Arc::clone);
        found.ok_or_else(|| Error::stop(format!("{table} was not listed")))
    }

    pub(in crate::source) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
