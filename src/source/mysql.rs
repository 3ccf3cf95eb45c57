//! MySQL 5.7 to 9 and MariaDB: a client of our own that reads prepared statements row by row into Arrow,
//! each connection within a snapshot. Touches nothing but the network.

mod artifacts;
mod catalog;
pub(crate) mod charset;
pub(crate) mod client;
mod dump;
pub(crate) mod errors;
mod handshake;
mod identity;
mod listing;
mod packet;
mod proofs;
mod ranges;
mod read;
mod rights;
pub(crate) mod rows;
pub(crate) mod select;
mod server;
pub(crate) mod session;
mod snapshot;
mod time;
pub(crate) mod types;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use self::client::Client;
use self::dump::Dump;
use self::errors::CommandError;
use self::read::{Aside, Sink};
use self::select::Part;
use self::server::{ALTERED, Inner, log_position};
use self::session::{Pool, Session};
use crate::column_stats::{ColumnInfo, Recorded};
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, DumpPlan, Dumped, Listing, LogPosition, Proof, ReadSummary, RowCount,
    ServerIdentity, Size, SourceInfo, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::{BatchSender, DumpSender};
use crate::source::relational::cancel::{CancelToken, blocking};
use crate::source::relational::tables::Tables;
use crate::source::relational::type_overrides::TypeOverrides;
use crate::source::statistics::Statistics;
use crate::window::{Slice, Window};

/// Prepares a server as a source. It connects when it is first asked for something.
pub(super) fn open(
    spec: &SourceSpec,
    database: &Database,
    limits: &Limits,
) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(MySql(
        Arc::new(Inner {
            name: spec.name.clone(),
            select: spec.select.clone(),
            time_columns: database.time_columns.clone(),
            pool: Arc::new(Pool::new(database, limits)),
            numbered: AtomicBool::new(false),
            tables: Tables::default(),
            type_overrides: TypeOverrides::default(),
        }),
        Dump::of(database, limits),
    )))
}

/// A server, and the dump of it.
struct MySql(Arc<Inner>, Dump);

#[async_trait]
impl Source for MySql {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let client = this.pool.address.connect(cancel)?;
            let product = if client.is_mariadb { "MariaDB" } else { "MySQL" };
            let version = format!("{product} {}", client.version);
            client.quit();
            let address = format!("mysql://{}", this.pool.address.host());
            Ok(SourceInfo { name: this.name.clone(), address, version, identity: None })
        })
        .await
    }

    async fn log_position(&self) -> Result<Option<LogPosition>> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| this.pool.outside(cancel, log_position)).await
    }

    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let asked = this.pool.outside(cancel, |client| {
                let (product, sql) = if client.is_mariadb {
                    ("mariadb", "SELECT @@server_uid")
                } else {
                    ("mysql", "SELECT @@server_uuid")
                };
                match client.value(sql) {
                    Ok(id) => Ok((product, id.filter(|id| !id.is_empty()))),
                    Err(CommandError::Server(_)) => Ok((product, None)), // some versions and services have no such id
                    Err(broken) => Err(broken),
                }
            });
            let (product, id) =
                asked.map_err(|error| error.context("asking which server it is"))?;
            Ok(id.map(|id| ServerIdentity {
                server: format!("{product} {id}"),
                databases: BTreeMap::new(),
            }))
        })
        .await
    }

    async fn list(&self) -> Result<Listing> {
        let this = Arc::clone(&self.0);
        let mut lease = this.pool.lease().await?;
        let mut listing = blocking(move |cancel| listing::list(&this, &mut lease, cancel)).await?;
        dump::list(&self.1, &self.0, &mut listing).await?;
        Ok(listing)
    }

    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let bounds = |table: &Table| {
            if table.is_dump() { Ok(None) } else { Ok(self.0.tables.get(&table.id)?.bounds) }
        };
        tables.iter().map(bounds).collect()
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let readable = self.0.tables.get(&table.id)?;
        let part = Part::new(table, window.into(), readable.is_versioned);
        if part.is_whole() {
            return Ok(RowCount { rows: readable.size.rows.unwrap_or(0), exact: false });
        }
        let sql = format!("{}; {}", part.select("COUNT(*)"), read::FREE);
        let doing = format!("counting the rows of {} in {window}", table.id);
        let this = Arc::clone(&self.0);
        let mut lease = this.pool.lease().await?;
        blocking(move |cancel| {
            let counted = lease.work(cancel, |session| {
                this.current(session, |session| session.client.value(&sql))
            });
            let rows = counted.map_err(|error| error.context(doing))?;
            let rows = rows.and_then(|rows| rows.parse().ok());
            let rows = rows.ok_or_else(|| {
                Error::of(Class::Retry, "the server answered COUNT(*) without a number")
            })?;
            Ok(RowCount { rows, exact: true })
        })
        .await
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let readable = self.0.tables.get(&table.id)?;
        let statistics = Statistics::new(&select::Statistics, table, recorded);
        let part = Part::new(table, slice, readable.is_versioned);
        let Some(select) = statistics.statement(|select| part.select(select)) else {
            return Ok(None);
        };
        if part.is_whole() && slice != Slice::All {
            return Err(Error::fail("this table can no longer be read in windows"));
        }
        let sql = format!("{select}; {}", read::FREE);
        let doing = format!("comparing {} {slice}", table.id);
        let this = Arc::clone(&self.0);
        let mut lease = this.pool.lease().await?;
        blocking(move |cancel| {
            let row = lease.work(cancel, |session| {
                this.current(session, |session| session.client.row_of_scan(&sql))
            });
            let proof = statistics.compare(&row.map_err(|error| error.context(doing))?);
            proof.map(Some).ok_or_else(|| {
                Error::of(Class::Retry, "the server answered without the statistics")
            })
        })
        .await
    }

    fn take_types(
        &self,
        table: &Table,
        archived: &mut dyn Iterator<Item = &ColumnInfo>,
    ) -> Option<Table> {
        self.0.type_overrides.take(table, archived)
    }

    fn size(&self, table: &TableId) -> Size {
        let of_rows =
            || self.0.tables.get(table).map_or_else(|_| Size::default(), |found| found.size);
        self.1.listed.size(table).unwrap_or_else(of_rows)
    }

    fn dump(&self, table: &TableId) -> Option<DumpPlan> {
        self.1.listed.plan(table)
    }

    async fn read_dump(&self, _dump: &TableId, output: DumpSender) -> Result<Dumped> {
        dump::run(&self.1, &self.0, output).await
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let (this, chunk) = (Arc::clone(&self.0), chunk.clone());
        let mut lease = this.pool.lease().await?;
        blocking(move |cancel| {
            let read = lease.work(cancel, |session| {
                read_chunk(&this, session, &chunk, &batches, cancel)?;
                Ok(session.snapshot_id.clone())
            });
            let snapshot = read.map_err(|error| error.context(format!("reading {chunk}")))?;
            Ok(ReadSummary { snapshot: Some(snapshot), ..ReadSummary::default() })
        })
        .await
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let collect = |client: &mut _| artifacts::collect(client, &this.name, &this.select);
            let saved = this.pool.outside(cancel, collect);
            saved.map_err(|error| error.context("saving the artifacts"))
        })
        .await
    }
}

/// Reads a chunk within the session's snapshot, which is renewed where it is older than the table.
fn read_chunk(
    this: &Inner,
    session: &mut Session,
    chunk: &Chunk,
    batches: &BatchSender,
    cancel: &CancelToken,
) -> Result<(), CommandError> {
    let table = &chunk.table;
    let readable = this.tables.get(&table.id).map_err(CommandError::Stopped)?;
    let part = Part::new(table, chunk.slice, readable.is_versioned);
    let stop = |id| this.pool.outside(cancel, |client| client.query(&format!("KILL QUERY {id}")));
    let stop = |id| stop(id).map(drop);
    let is_still = || {
        let numbered = this.numbered.load(Ordering::Relaxed);
        let now = |client: &mut Client| Ok(identity::now(client, &table.id, numbered)?);
        let now = this.pool.outside(cancel, now)?;
        table.identity.object.as_ref().map_or(Ok(()), |listed| listed.is_still(now.as_ref()))
    };
    let aside = Aside { stop: &stop, is_still: &is_still };
    if chunk.slice != Slice::All && table.time_column.is_none() {
        return Err(CommandError::Stopped(Error::fail("this table cannot be read in windows")));
    }
    this.renew_before(session, readable.since)?;
    let sink = Sink { batches, type_overrides: &this.type_overrides, is_over: &|| false };
    let read = match &readable.key {
        Some(key) if part.is_whole() => {
            ranges::read(&this.pool, session, &part, key, &sink, aside, cancel)
        }
        _ => read::read(session, &part, &sink, aside),
    };
    match read {
        // Some rows were sent already and must not be sent twice, so the chunk starts over.
        Err(fault) if fault.code() == Some(ALTERED) => {
            session.renew(this.pool.tick())?;
            let error = "the table was altered while it was read";
            Err(CommandError::Stopped(Error::of(Class::Retry, error)))
        }
        outcome => outcome,
    }
}
