//! What a source is. It lists tables and reads slices of them as Arrow record batches; it knows nothing of Parquet,
//! stores or archives.

pub mod aptible;
pub mod channel;
pub mod child;
pub mod contact;
pub mod dump;
pub mod influxdb;
pub mod line_protocol;
mod mysql;
mod names;
mod postgres;
mod probe;
pub mod registry;
mod relational;
mod statistics;
mod tcp;
pub mod tunnel;

use std::fmt;

use async_trait::async_trait;

use crate::column_stats::{ColumnStats, Recorded};
use crate::error::{Error, Result};
use crate::model::{
    Artifacts, Chunk, DumpPlan, Dumped, Listing, Metering, Proof, ReadSummary, RowCount,
    ServerIdentity, Size, SourceInfo, Table, TableId,
};
use crate::source::channel::{BatchSender, DumpSender};
use crate::window::{Slice, Window};

/// One system to leave.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the archive.
    fn name(&self) -> &str;

    /// Asks the source what it is. This is the first request, so it fails with a clear error when the address or the
    /// credentials are wrong.
    async fn describe(&self) -> Result<SourceInfo>;

    /// The identity of the server, where it has one; never a secret.
    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        Ok(None)
    }

    /// By how many seconds its clock is ahead of this machine's; `None` where it does not tell the time.
    async fn clock_ahead(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Lists everything that the source has and the configuration does not leave out.
    async fn list(&self) -> Result<Listing>;

    /// The true bounds of each table, from its first row to the first instant after its last; `None` for an empty
    /// one. In the order
    /// of `tables`.
    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>>;

    /// How many rows of a table lie in a window, without reading them all.
    async fn count(&self, table: &Table, window: Window) -> Result<RowCount>;

    /// About how large a table is, as far as that is known without another request.
    fn size(&self, _table: &TableId) -> Size {
        Size::default()
    }

    /// Reads a chunk. `Ok` only after the source has said, in its own protocol's way, that the
    /// stream ended well; whatever was sent before an error is thrown away.
    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary>;

    /// How a dump is made that it lists; `None` for a table.
    fn dump(&self, _table: &TableId) -> Option<DumpPlan> {
        None
    }

    /// Makes a dump: its bytes go to `output` as the program prints them. `Ok` only after the program has ended with
    /// exit status 0, which alone does not prove that the dump is whole.
    async fn read_dump(&self, dump: &TableId, _output: DumpSender) -> Result<Dumped> {
        Err(Error::fail(format!("{dump} cannot be made: this source makes none")))
    }

    /// Lists the source again once everything is read. `None` where all rows are read as of the moment of the listing
    /// and each read finds out by itself whether its table is still the one that was listed.
    async fn list_again(&self) -> Result<Option<Listing>> {
        self.list().await.map(Some)
    }

    /// The windows in which a read may have missed rows: the table was listed as `read` when it was read, and is listed
    /// as `now`. These windows are read again.
    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        Ok(if read.columns == now.columns { Vec::new() } else { vec![Window::ALL] })
    }

    /// Rows that a chunk of a table should have at most, where a quota makes that matter.
    fn chunk_rows(&self, _table: &TableId) -> Option<u64> {
        None
    }

    /// The quota of the source and the prices of reading, where it has them.
    fn metering(&self) -> Option<Metering> {
        None
    }

    /// Computes, without sending rows, what an archive records of a slice, and compares the two. `None` where only reading
    /// the rows again tells.
    async fn prove(
        &self,
        _table: &Table,
        _slice: Slice,
        _recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        Ok(None)
    }

    /// Takes columns as text or bytes, from the next listing on, that an archive holds as such because a value did not fit
    /// their own type. Returns whether there were any that it did not know of.
    fn take_types(&self, _table: &Table, _archived: &[ColumnStats]) -> bool {
        false
    }

    /// Collects what the source has besides rows. A kind that cannot be had is reported, it is not an error.
    async fn artifacts(&self) -> Result<Artifacts>;
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the source {}", self.name())
    }
}
