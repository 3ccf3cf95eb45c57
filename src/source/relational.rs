//! What PostgreSQL and MySQL solve alike: which databases are exported (`databases`), which column the windows are made
//! of (`time_column`), the WHERE of a slice (`slice`), where the rows of a table lie in time (`times`), columns whose type
//! was too narrow (`type_overrides`), what listing has learned about a table (`tables`), whether a table is still the one
//! that was listed (`outside`), reading a chunk with several sessions (`fan_out`), work on threads that may block
//! (`cancel`), and what a broken connection means for a run (`broken`). Wire, catalog, snapshots and values stay with
//! each of the two.

pub(super) mod broken;
pub(crate) mod cancel;
pub(super) mod databases;
pub(super) mod fan_out;
pub(crate) mod outside;
pub(super) mod slice;
pub(super) mod tables;
pub(super) mod time_column;
pub(super) mod times;
pub(crate) mod type_overrides;

/// A batch ends at this many rows, or at `BATCH_BYTES` as the server sent them.
pub(super) const BATCH_ROWS: usize = 16 << 10;
/// See [`BATCH_ROWS`].
pub(super) const BATCH_BYTES: usize = 2 << 20;
