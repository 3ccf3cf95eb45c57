//! PostgreSQL: tables read by `COPY … (FORMAT binary)`, all connections to a database in one snapshot, by
//! windows where an index serves them and by blocks where a table is large.

mod artifacts;
mod catalog;
mod connection;
mod copy_binary;
mod decode;
mod encoding;
mod errors;
mod identity;
mod input;
mod names;
mod read;
mod snapshot;
mod sql;
mod types;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::catalog::{Attribute, Indexed, Relation};
use self::connection::Connection;
use self::errors::LOCKED;
use self::read::{RANGE_BYTES, bounds_of, read_chunk};
use self::snapshot::{Pool, RELEASE, Session};
use self::types::{Cast, Kind, Types};
use crate::config::{Database, Limits, Select, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, Column, Division, Excluded, Identity, LEFT_OUT, Listing, Object, ReadMode,
    ReadSummary, Role, RowCount, ServerIdentity, SourceInfo, SplitPoints, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::names::Names;
use crate::source::relational::cancel::{Cancel, blocking};
use crate::source::relational::databases;
use crate::source::relational::databases::Found;
use crate::source::relational::slice::condition;
use crate::source::relational::time_column;
use crate::source::relational::time_column::{Candidate, choose};
use crate::source::relational::type_overrides::TypeOverrides;
use crate::window::{Slice, Window};

/// An index serves windows cheaply where its order is about that of the table.
const CORRELATED: f64 = 0.5;

/// From this version on the server reads a range of blocks without looking at the others.
const BLOCK_RANGES: u32 = 140_000;
/// What services keep beside their customers' databases, and show to nobody.
const PROVIDERS: [&str; 4] = ["rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys"];
/// With more databases than these, only the one that is read keeps connections that are idle.
const MANY_POOLS: usize = 8;

/// A PostgreSQL server.
pub(super) struct Postgres {
    inner: Arc<Inner>,
}

/// What threads that read share.
struct Inner {
    name: String,
    server: Database,
    select: Select,
    limits: Limits,
    /// One for each stream that may be read at once.
    streams: Arc<Semaphore>,
    known: Mutex<Known>,
    type_overrides: TypeOverrides,
}

#[derive(Default)]
struct Known {
    pools: HashMap<String, Arc<Pool>>,
    tables: HashMap<TableId, Arc<Readable>>,
}

/// A table, and how its rows are asked for.
struct Readable {
    listed: Vec<Column>,
    oid: u32,
    /// With `ONLY`, quoted.
    from: String,
    columns: Vec<String>,
    kinds: Vec<Kind>,
    /// The column of windows.
    time: Option<sql::Time>,
    bounds: Option<Window>,
    rows_estimate: i64,
    /// Which table it was when it was listed.
    object: Object,
    /// How many blocks it has, and how many of them make a range, where ranges can be read.
    blocks: Option<(u64, u64)>,
}

/// Opens a server. Nothing is connected yet.
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
            known: Mutex::default(),
            type_overrides: TypeOverrides::default(),
        }),
    }))
}

impl Inner {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, database: &str) -> Arc<Pool> {
        let pool = || {
            let name = database.to_owned();
            Arc::new(Pool::new(self.server.clone(), name, self.limits.idle_timeout))
        };
        let mut known = self.known();
        if known.pools.len() > MANY_POOLS {
            let others = known.pools.iter().filter(|(name, _)| *name != database);
            others.for_each(|(_, pool)| pool.close_idle());
        }
        Arc::clone(known.pools.entry(database.to_owned()).or_insert_with(pool))
    }

    fn readable(&self, table: &TableId) -> Result<Arc<Readable>> {
        let known = self.known();
        let found = known.tables.get(table).map(Arc::clone);
        found.ok_or_else(|| Error::stop(format!("{table} was not listed")))
    }

    /// Databases to try when only the server matters.
    fn first_connection(&self) -> Result<Connection> {
        let mut names: Vec<&str> = self.select.databases.iter().map(String::as_str).collect();
        if names.is_empty() {
            names = vec!["postgres", &self.server.user, "template1"];
        }
        let mut failed = None;
        for name in names {
            match Connection::open(&self.server, name, self.limits.idle_timeout) {
                Ok(connection) => return Ok(connection),
                // There is no such database, or this user may not use it.
                Err(error) if error.class() == Class::Stop => {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::stop("there is no database to connect to")))
    }

    fn describe(&self) -> Result<SourceInfo> {
        let mut connection = self.first_connection()?;
        let rows = connection.query("SELECT current_setting('server_version')")?;
        let version = rows.first().map(|row| catalog::text(row, 0)).unwrap_or_default();
        let tls = if connection.is_tls() { "" } else { ", without TLS" };
        Ok(SourceInfo {
            name: self.name.clone(),
            address: format!("{}:{}", self.server.host, self.server.port),
            version: format!("PostgreSQL {version}{tls}"),
            identity: None,
        })
    }

    /// The cluster's own identifier, and the numbers of its databases; nothing where the right to ask is
    /// missing.
    fn identity(&self) -> Result<Option<ServerIdentity>> {
        let mut connection = self.first_connection()?;
        let rows = match connection.query(snapshot::SYSTEM) {
            Ok(rows) => rows,
            Err(error) if error.class() == Class::Fail => return Ok(None),
            Err(error) => return Err(error.context("asking which server it is")),
        };
        let Some(system) = rows.first().map(|row| catalog::text(row, 0)) else { return Ok(None) };
        let numbers = "SELECT datname, oid FROM pg_database WHERE NOT datistemplate";
        let numbers = connection.query(numbers)?;
        Ok(Some(ServerIdentity {
            server: format!("postgresql {system}"),
            databases: numbers
                .iter()
                .map(|row| (catalog::text(row, 0), catalog::text(row, 1)))
                .collect(),
        }))
    }

    /// The databases to export. What is not asked for, and what cannot be read, goes into the listing.
    fn databases(&self, listing: &mut Listing) -> Result<Vec<String>> {
        let there = catalog::databases(&mut self.first_connection()?)?;
        let provider =
            |name: &str| PROVIDERS.contains(&name).then_some("the provider's own database");
        let found = there
            .iter()
            .map(|found| Found { name: found.name.clone(), foreign: provider(&found.name) });
        let chosen = databases::choose(found.collect(), &self.select)?;
        let excluded = chosen.excluded.into_iter();
        listing
            .excluded
            .extend(excluded.map(|(name, why)| self.excluded(format!("database {name}"), why)));
        let closed: HashMap<_, _> =
            there.into_iter().filter_map(|found| Some((found.name, found.closed?))).collect();
        let (closed_ones, databases) =
            chosen.taken.into_iter().partition(|name| closed.contains_key(name));
        let closed_ones: Vec<String> = closed_ones;
        let unreadable =
            closed_ones.iter().map(|name| (self.id(name, "*", "*"), closed[name].clone()));
        listing.unreadable.extend(unreadable);
        Ok(databases)
    }

    fn id(&self, database: &str, schema: &str, table: &str) -> TableId {
        TableId {
            source: self.name.clone(),
            database: database.to_owned(),
            schema: schema.to_owned(),
            table: table.to_owned(),
        }
    }

    fn excluded(&self, what: String, why: &str) -> Excluded {
        Excluded { source: self.name.clone(), what, why: why.to_owned() }
    }

    fn list(&self, cancel: &Cancel) -> Result<Listing> {
        let mut listing = Listing::default();
        for database in self.databases(&mut listing)? {
            let pool = self.pool(&database);
            let session = match pool.take() {
                Ok(session) => session,
                // The server keeps this one to itself, or to others.
                Err(error)
                    if error.class() == Class::Fail
                        || error.class() == Class::Stop && self.select.databases.is_empty() =>
                {
                    listing.unreadable.push((self.id(&database, "*", "*"), error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let list = |session: &mut Session| self.list_database(&database, session, &mut listing);
            pool.work(session, cancel, list)
                .map_err(|error| error.context(format!("listing the tables of {database}")))?;
        }
        let listed = listing.tables.iter().map(|table| &table.id);
        let tables = listed.chain(listing.unreadable.iter().map(|(id, _)| id));
        let unused = time_column::unused(&self.server.time_columns, tables);
        listing.warnings.extend(unused);
        Ok(listing)
    }

    fn list_database(
        &self,
        database: &str,
        session: &mut Session,
        listing: &mut Listing,
    ) -> Result<()> {
        let connection = &mut session.connection;
        let types = catalog::types(connection)?;
        let (version, block_bytes) = catalog::version(connection)?;
        let ranges = (version >= BLOCK_RANGES).then(|| (RANGE_BYTES / block_bytes.max(1)).max(1));
        let mut relations = catalog::relations(connection)?;
        relations.extend(catalog::large_objects(connection)?);
        for relation in relations {
            let id = self.id(database, &relation.schema, &relation.name);
            if !self.select.takes_schema(&id.schema) || !self.select.takes_table(&id.table) {
                listing.excluded.push(self.excluded(format!("table {id}"), "not asked for"));
                continue;
            }
            if self.select.excludes(&id.database, &id.schema, &id.table) {
                // Here, so that nothing of it is looked at.
                listing.excluded.push(self.excluded(format!("table {id}"), LEFT_OUT));
                continue;
            }
            let unreadable = match &relation {
                Relation { kind: 'f', .. } => {
                    Some("it is a foreign table: its rows are on another server")
                }
                Relation { may_read: false, .. } => Some("this user has not the right to read it"),
                _ => None,
            };
            if let Some(why) = unreadable {
                listing.unreadable.push((id, why.to_owned()));
                continue;
            }
            if !relation.is_populated {
                let why = "a materialized view that has never been filled";
                listing.excluded.push(self.excluded(format!("table {id}"), why));
                continue;
            }
            if relation.columns.is_empty() {
                listing.excluded.push(self.excluded(format!("table {id}"), "it has no columns"));
                continue;
            }
            let warnings = &mut listing.warnings;
            match self.table(id.clone(), &relation, &types, ranges, connection, warnings) {
                Ok(table) => listing.tables.push(table),
                // One table must not keep all others from being listed.
                Err(error) if error.class() == Class::Fail || connection.was_refused_by(LOCKED) => {
                    connection.query(RELEASE)?;
                    let hint =
                        error.hint_text().map(|hint| format!(": {hint}")).unwrap_or_default();
                    listing.unreadable.push((id, format!("{error}{hint}")));
                }
                Err(error) => return Err(error.context(id)),
            }
        }
        Ok(())
    }

    fn table(
        &self,
        id: TableId,
        relation: &Relation,
        types: &Types,
        ranges: Option<u64>,
        connection: &mut Connection,
        warnings: &mut Vec<String>,
    ) -> Result<Table> {
        let (mut names, mut columns) = (Names::default(), Vec::new());
        let (mut asked, mut kinds) = (Vec::new(), Vec::new());
        for attribute in &relation.columns {
            let type_override = self.type_overrides.of(&id, &attribute.name);
            let (kind, cast) = types.resolve(attribute.type_oid, attribute.modifier, type_override);
            asked.push(sql::column(&attribute.name, cast));
            columns.push(Column {
                name: names.take(&attribute.name),
                key: attribute.name.clone(),
                role: Role::Column,
                source_type: attribute.type_name.clone(),
                data_type: kind.data_type(),
            });
            kinds.push(kind);
        }
        let from = sql::only(&relation.schema, &relation.name);
        let time = self.time_column(&id, relation, types, warnings)?;
        let (read_mode, bounds, data_ranges) = match &time {
            None => (ReadMode::Whole, Some(Window::ALL), vec![Window::ALL]),
            Some((time, may_be_null)) => {
                let times = bounds_of(connection, &from, time);
                let times = times.map_err(|error| error.context("asking for its bounds"))?;
                (times.read_mode(*may_be_null), times.bounds(), times.data_ranges())
            }
        };
        let time = time.map(|(time, _)| time);
        let object = identity::listed(relation);
        let readable = Readable {
            listed: columns.clone(),
            oid: relation.oid,
            from,
            columns: asked,
            kinds,
            bounds,
            rows_estimate: relation.rows_estimate,
            object: object.clone(),
            blocks: ranges.filter(|_| time.is_none()).map(|step| (relation.blocks, step)),
            time,
        };
        let time_column = readable.time.as_ref().map(|time| time.name.clone());
        let division = Some(Division::by(time_column.as_deref()));
        self.known().tables.insert(id.clone(), Arc::new(readable));
        Ok(Table {
            id,
            columns,
            data_ranges,
            time_column,
            split_points: SplitPoints::None,
            read_mode,
            identity: Identity { division, object: Some(object) },
        })
    }

    /// The column to make windows of, and whether it may be null.
    fn time_column(
        &self,
        id: &TableId,
        relation: &Relation,
        types: &Types,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(sql::Time, bool)>> {
        let kind_of = |attribute: &Attribute| {
            let (kind, cast) = types.resolve(attribute.type_oid, attribute.modifier, None);
            Some(kind).filter(|kind| cast == Cast::None && kind.is_time())
        };
        let times = relation.columns.iter().filter_map(|found| Some((found, kind_of(found)?)));
        let times: Vec<_> = times.collect();
        let candidates = times.iter().map(|(attribute, _)| {
            let mut indexed =
                relation.indexed.iter().filter(|indexed| indexed.column == attribute.number);
            let correlates = |indexed: &Indexed| {
                indexed.correlation.is_none_or(|correlation| correlation.abs() >= CORRELATED)
            };
            Candidate {
                name: attribute.name.clone(),
                is_indexed: indexed.clone().next().is_some(),
                by_default: indexed.any(correlates),
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let chosen = choose(&self.server.time_columns, id, &candidates, warnings)?;
        let found = chosen.and_then(|name| times.into_iter().find(|(time, _)| time.name == name));
        Ok(found.map(|(attribute, kind)| {
            (sql::Time { name: attribute.name.clone(), kind }, !attribute.not_null)
        }))
    }

    fn count(&self, table: &Table, window: Window, cancel: &Cancel) -> Result<RowCount> {
        let readable = self.readable(&table.id)?;
        let Some(time) = &readable.time else {
            let rows = u64::try_from(readable.rows_estimate).unwrap_or_default();
            return Ok(RowCount { rows, exact: false });
        };
        let condition = condition(time, Slice::from(window));
        let pool = self.pool(&table.id.database);
        let count = sql::count(&readable.from, &condition);
        let rows = pool.work(pool.take()?, cancel, |session| session.connection.query(&count))?;
        let rows = rows.first().and_then(|row| catalog::text(row, 0).parse().ok());
        let rows = rows.ok_or_else(|| Error::stop("a count that is no number"))?;
        Ok(RowCount { rows, exact: true })
    }
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

    async fn list(&self) -> Result<Listing> {
        let inner = Arc::clone(&self.inner);
        blocking(move |cancel| inner.list(cancel)).await
    }

    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        tables.iter().map(|table| Ok(self.inner.readable(&table.id)?.bounds)).collect()
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let (inner, table) = (Arc::clone(&self.inner), table.clone());
        blocking(move |cancel| inner.count(&table, window, cancel)).await
    }

    fn rows_estimate(&self, table: &TableId) -> Option<u64> {
        u64::try_from(self.inner.readable(table).ok()?.rows_estimate).ok()
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let readable = self.inner.readable(&chunk.table.id)?;
        let object = chunk.table.identity.object.as_ref();
        if readable.listed != chunk.table.columns || object != Some(&readable.object) {
            return Err(Error::of(Class::SchemaChanged, "the table was listed again"));
        }
        let gone = |_| Error::stop("the source was closed");
        let permit = Arc::clone(&self.inner.streams).acquire_owned().await.map_err(gone)?;
        let (inner, chunk) = (Arc::clone(&self.inner), chunk.clone());
        let work = move |cancel: &Cancel| {
            let _permit = permit;
            read_chunk(&inner, &readable, &chunk, &batches, cancel)
        };
        let state = blocking(work).await;
        state.map(|state| ReadSummary { snapshot: Some(state), ..ReadSummary::default() })
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        // They need connections of their own, and some servers grant few.
        self.inner.known().pools.values().for_each(|pool| pool.close_idle());
        let inner = Arc::clone(&self.inner);
        blocking(move |_| artifacts::collect(&inner)).await
    }
}
