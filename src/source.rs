//! What a source is. It lists tables and reads slices of them as Arrow record batches, and knows nothing about Parquet,
//! stores or archives.

pub mod aptible;
pub mod channel;
pub mod child;
pub mod contact;
pub mod dump;
pub mod influxdb;
pub mod line_protocol;
pub(crate) mod mysql;
mod names;
pub(crate) mod postgres;
mod probe;
pub mod registry;
pub(crate) mod relational;
mod statistics;
pub(crate) mod tcp;
pub mod tunnel;

use std::fmt;

use async_trait::async_trait;

use crate::column_stats::{ColumnInfo, Recorded};
use crate::error::{Error, Result};
use crate::model::{
    Artifacts, Chunk, DumpPlan, Dumped, Listing, LogPosition, Metering, Proof, ReadSummary,
    RowCount, ServerIdentity, Size, SourceInfo, Table, TableId,
};
use crate::source::channel::{BatchSender, DumpSender};
use crate::window::{Slice, Window};

/// One system to leave.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the archive.
    fn name(&self) -> &str;

    /// Asks the source what it is. This is the first request, so it must fail with a clear error if the address or the
    /// credentials are wrong.
    async fn describe(&self) -> Result<SourceInfo>;

    /// The identity of the server, if it has one. It is never a secret.
    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        Ok(None)
    }

    /// Where its log stands, if it has one and the user may ask.
    async fn log_position(&self) -> Result<Option<LogPosition>> {
        Ok(None)
    }

    /// By how many seconds its clock is ahead of this machine's; `None` if it does not show its time.
    async fn clock_ahead(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Lists everything that the source has, except for what the configuration excludes.
    async fn list(&self) -> Result<Listing>;

    /// The true bounds of the tables, in their order: from the first row to the first instant after the last one; `None`
    /// for an empty table.
    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>>;

    /// Counts the rows of a table in a window, without reading them all.
    async fn count(&self, table: &Table, window: Window) -> Result<RowCount>;

    /// The estimated size of a table, as far as it is known without another request.
    fn size(&self, _table: &TableId) -> Size {
        Size::default()
    }

    /// Reads a chunk. Returns `Ok` only after the source has stated, in the way of its protocol, that the stream is
    /// complete. What was sent before an error is discarded.
    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary>;

    /// How a listed dump is made; `None` for a table.
    fn dump(&self, _table: &TableId) -> Option<DumpPlan> {
        None
    }

    /// Makes a dump, whose bytes go to `output` as the program prints them. Returns `Ok` only after the program has ended
    /// with exit status 0, which alone does not prove that the dump is complete.
    async fn read_dump(&self, dump: &TableId, _output: DumpSender) -> Result<Dumped> {
        Err(Error::fail(format!("{dump} cannot be made: this source has no dumps")))
    }

    /// Lists the source again after everything was read. `None` if all rows are read as of the moment of the listing, and
    /// each read checks by itself whether its table is still the one that was listed.
    async fn list_again(&self) -> Result<Option<Listing>> {
        self.list().await.map(Some)
    }

    /// The windows in which a read may have missed rows, which are then read again. The table was listed as `read` when it
    /// was read, and is now listed as `now`.
    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        Ok(if read.columns == now.columns { Vec::new() } else { vec![Window::ALL] })
    }

    /// The most rows that a chunk of a table should have, if there is a quota.
    fn chunk_rows(&self, _table: &TableId) -> Option<u64> {
        None
    }

    /// Whether a read may be given up at any time without losing anything but time. It may not where a connection holds
    /// a snapshot that would be lost with it.
    fn can_abandon(&self) -> bool {
        false
    }

    /// The quota of the source and the prices of reading, if it has them.
    fn metering(&self) -> Option<Metering> {
        None
    }

    /// Has the source compute, without sending rows, the statistics that an archive records for a slice, and compares the
    /// two. `None` if only reading the rows again can prove the slice.
    async fn prove(
        &self,
        _table: &Table,
        _slice: Slice,
        _recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        Ok(None)
    }

    /// About how many parts of time of equal length, of a table, one request is best asked; 1 if a request for each of them
    /// costs no more.
    fn parts_at_once(&self, _table: &Table) -> usize {
        1
    }

    /// Does what `prove` does for several windows by a single request. Each window begins where the one before it ends, and
    /// consists of parts of `width` nanoseconds. The answer is in the order of the windows; `None` if the source cannot
    /// compare them at once.
    async fn prove_windows(
        &self,
        _table: &Table,
        _width: i64,
        _windows: &[(Window, Recorded<'_>)],
    ) -> Result<Option<Vec<Option<Proof>>>> {
        Ok(None)
    }

    /// The table with those columns as text or bytes that an archive holds as such because a value did not fit their own
    /// type; `None` if it has none that are listed otherwise. From now on the source lists them so, too.
    fn take_types(
        &self,
        _table: &Table,
        _archived: &mut dyn Iterator<Item = &ColumnInfo>,
    ) -> Option<Table> {
        None
    }

    /// Collects what the source has besides rows. A kind that the source does not give is reported, and is not an error.
    async fn artifacts(&self) -> Result<Artifacts>;
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the source {}", self.name())
    }
}
