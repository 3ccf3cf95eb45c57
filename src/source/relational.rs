//! What PostgreSQL and MySQL solve alike: which databases are exported, which column the windows are made of,
//! the WHERE of a slice, where the rows of a table lie, columns whose type was too narrow, and work on threads
//! that may block. Each of the two keeps its wire, catalog, snapshots and values. Knows no protocol.

pub(super) mod cancel;
pub(super) mod databases;
pub(super) mod lessons;
pub(super) mod outside;
pub(super) mod slice;
pub(super) mod time_column;
pub(super) mod times;

/// A batch ends at so many rows, or at so many bytes as the server sent them.
pub(super) const BATCH_ROWS: usize = 16 << 10;
/// See [`BATCH_ROWS`].
pub(super) const BATCH_BYTES: usize = 2 << 20;
