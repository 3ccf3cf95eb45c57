//! PostgreSQL: reads tables by `COPY … (FORMAT binary)`, with all connections to a database in one snapshot, in windows
//! where an index serves them and in ranges of blocks where a table is large.

mod artifacts;
pub(crate) mod catalog;
pub(crate) mod connection;
pub(crate) mod copy_binary;
pub(crate) mod decode;
mod dump;
mod encoding;
mod errors;
pub(crate) mod field;
mod identity;
mod input;
mod listing;
pub(crate) mod names;
mod pg_dump;
mod read;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod sql;
pub(crate) mod types;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::read::read_chunk;
use self::server::Inner;
use crate::column_stats::{ColumnInfo, Recorded};
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, DumpPlan, Dumped, Listing, LogPosition, Proof, ReadSummary, RowCount,
    ServerIdentity, Size, SourceInfo, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::{BatchSender, DumpSender};
use crate::source::dump::Listed;
use crate::source::relational::cancel::{CancelToken, blocking};
use crate::source::relational::tables::Tables;
use crate::source::relational::type_overrides::TypeOverrides;
use crate::window::{Slice, Window};

/// A PostgreSQL server.
pub(super) struct Postgres {
    inner: Arc<Inner>,
}

/// Prepares a server as a source. It connects when it is first asked for something.
pub(super) fn open(
    spec: &SourceSpec,
    server: &Database,
    limits: &Limits,
) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Postgres {
        inner: Arc::new(Inner {
            name: spec.name.clone(),
            server: server.clone(),
            select: spec.select.clone(),
            streams: Arc::new(Semaphore::new(limits.concurrency)),
            limits: limits.clone(),
            pools: Mutex::default(),
            tables: Tables::default(),
            type_overrides: TypeOverrides::default(),
            dumps: Listed::default(),
        }),
    }))
}

#[async_trait]
impl Source for Postgres {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let inner = Arc::clone(&self.inner);
        blocking(move |_| inner.describe()).await
    }

    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        let inner = Arc::clone(&self.inner);
        blocking(move |_| inner.identity()).await
    }

    async fn log_position(&self) -> Result<Option<LogPosition>> {
        let inner = Arc::clone(&self.inner);
        blocking(move |_| inner.log_position()).await
    }

    async fn list(&self) -> Result<Listing> {
        let inner = Arc::clone(&self.inner);
        blocking(move |cancel| inner.list(cancel)).await
    }

    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let bounds = |table: &Table| {
            if table.is_dump() { Ok(None) } else { Ok(self.inner.tables.get(&table.id)?.bounds) }
        };
        tables.iter().map(bounds).collect()
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let (inner, table) = (Arc::clone(&self.inner), table.clone());
        blocking(move |cancel| read::count(&inner, &table, window, cancel)).await
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let (inner, table) = (Arc::clone(&self.inner), table.clone());
        let Recorded { rows, columns } = recorded;
        let columns = columns.to_vec();
        let prove = move |cancel: &CancelToken| {
            read::prove(&inner, &table, slice, Recorded { rows, columns: &columns }, cancel)
        };
        blocking(prove).await
    }

    fn take_types(
        &self,
        table: &Table,
        archived: &mut dyn Iterator<Item = &ColumnInfo>,
    ) -> Option<Table> {
        self.inner.type_overrides.take(table, archived)
    }

    fn size(&self, table: &TableId) -> Size {
        let of_rows =
            || self.inner.tables.get(table).map_or_else(|_| Size::default(), |found| found.size);
        self.inner.dumps.size(table).unwrap_or_else(of_rows)
    }

    fn dump(&self, table: &TableId) -> Option<DumpPlan> {
        self.inner.dumps.plan(table)
    }

    async fn read_dump(&self, dump: &TableId, output: DumpSender) -> Result<Dumped> {
        dump::run(&self.inner, &dump.table, output).await
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let readable = self.inner.tables.get(&chunk.table.id)?;
        let object = chunk.table.identity.object.as_ref();
        let is_listed = object == Some(&readable.object);
        let readable = is_listed.then(|| readable.typed_as(&chunk.table.columns)).flatten();
        let Some(readable) = readable else {
            return Err(Error::of(Class::SchemaChanged, "the table was listed again"));
        };
        let gone = |_| Error::stop("the source is closed");
        let permit = Arc::clone(&self.inner.streams).acquire_owned().await.map_err(gone)?;
        let (inner, chunk) = (Arc::clone(&self.inner), chunk.clone());
        let work = move |cancel: &CancelToken| {
            let _permit = permit;
            read_chunk(&inner, &readable, &chunk, &batches, cancel)
        };
        let snapshot = Some(blocking(work).await?);
        Ok(ReadSummary { snapshot, ..ReadSummary::default() })
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        // The artifacts need connections of their own, and some servers grant few.
        self.inner.pools().values().for_each(|pool| pool.close_idle());
        let inner = Arc::clone(&self.inner);
        blocking(move |_| artifacts::collect(&inner)).await
    }
}
