//! What the files of this folder share about a server: its settings, its databases, the connections to each of them, and
//! what listing has learned about the tables. Blocks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::config::{Database, Limits, Select};
use crate::error::{Class, Error, Result};
use crate::model::{
    Column, Excluded, Listing, LogPosition, Object, ServerIdentity, Size, SourceInfo, TableId,
};
use crate::source::dump::Listed;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::snapshot::Pool;
use crate::source::postgres::types::{Cast, Kind};
use crate::source::postgres::{catalog, snapshot, sql, types};
use crate::source::relational::databases;
use crate::source::relational::databases::Found;
use crate::source::relational::tables::Tables;
use crate::source::relational::type_overrides::{TypeOverride, TypeOverrides};
use crate::window::Window;

/// The databases that hosting services keep for themselves and that nobody else can read.
const PROVIDERS: [&str; 4] = ["rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys"];
/// With more databases than this, only the one that is being read keeps idle connections.
const MANY_POOLS: usize = 8;

/// What the threads that work for one source share.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) server: Database,
    pub(super) select: Select,
    pub(super) limits: Limits,
    /// One permit for each stream that may be read at the same time.
    pub(super) streams: Arc<Semaphore>,
    pub(super) pools: Mutex<HashMap<String, Arc<Pool>>>,
    pub(super) tables: Tables<Readable>,
    pub(super) type_overrides: TypeOverrides,
    pub(super) dumps: Listed,
}

/// How the rows of a table are read.
#[derive(Clone)]
pub(super) struct Readable {
    pub(super) listed: Vec<Column>,
    pub(super) oid: u32,
    /// `ONLY` and its quoted name.
    pub(super) from: String,
    pub(super) columns: Vec<String>,
    pub(super) kinds: Vec<Kind>,
    /// How the server's own text of each column is asked for.
    pub(super) texts: Vec<Cast>,
    /// The column that its windows are made of.
    pub(super) time: Option<sql::Time>,
    pub(super) bounds: Option<Window>,
    pub(super) size: Size,
    /// Which table it was when it was listed.
    pub(super) object: Object,
    /// If it can be read by ranges of blocks: how many blocks it has, and how many of them make a range.
    pub(super) blocks: Option<(u64, u64)>,
}

impl Readable {
    /// The same with these columns, of which some may be text or bytes instead of what was listed; `None` if they differ
    /// from the listed ones in another way.
    pub(super) fn typed_as(self: Arc<Self>, columns: &[Column]) -> Option<Arc<Self>> {
        if self.listed == columns {
            return Some(self);
        }
        if self.listed.len() != columns.len() {
            return None;
        }
        let mut typed = Self::clone(&self);
        for (at, column) in columns.iter().enumerate() {
            let listed = &mut typed.listed[at];
            if listed == column {
                continue;
            }
            let other = TypeOverride::of(&column.data_type)?;
            *listed = other.column(listed);
            let (kind, cast) = types::overridden(self.texts[at], other);
            typed.columns[at] = sql::column(&column.key, cast);
            typed.kinds[at] = kind;
        }
        (typed.listed == columns).then(|| Arc::new(typed))
    }
}

impl Inner {
    pub(super) fn pools(&self) -> MutexGuard<'_, HashMap<String, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pool(&self, database: &str) -> Arc<Pool> {
        let pool = || {
            let name = database.to_owned();
            Arc::new(Pool::new(self.server.clone(), name, self.limits.idle_timeout))
        };
        let mut pools = self.pools();
        if pools.len() > MANY_POOLS {
            let others = pools.iter().filter(|(name, _)| *name != database);
            others.for_each(|(_, pool)| pool.close_idle());
        }
        Arc::clone(pools.entry(database.to_owned()).or_insert_with(pool))
    }

    /// A connection to any database, for questions about the server.
    pub(super) fn first_connection(&self) -> Result<Connection> {
        let mut names: Vec<&str> = self.select.databases.iter().map(String::as_str).collect();
        if names.is_empty() {
            names = vec!["postgres", &self.server.user, "template1"];
        }
        let mut failed = None;
        for name in names {
            match Connection::open(&self.server, name, self.limits.idle_timeout) {
                Ok(connection) => return Ok(connection),
                // The database does not exist, or the user may not use it.
                Err(error) if error.class() == Class::Stop => {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::stop("there is no database to connect to")))
    }

    pub(super) fn describe(&self) -> Result<SourceInfo> {
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

    /// The cluster's own identifier and the oids of its databases; `None` if the user may not ask.
    pub(super) fn identity(&self) -> Result<Option<ServerIdentity>> {
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

    /// The end of the write-ahead log; of a standby, of the part that it has replayed.
    pub(super) fn log_position(&self) -> Result<Option<LogPosition>> {
        let position = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                        ELSE pg_current_wal_lsn() END";
        let rows = self.first_connection()?.query(position)?;
        let position = rows.first().map(|row| catalog::text(row, 0));
        let log = || "write-ahead log".to_owned();
        let position = position.filter(|position| !position.is_empty());
        Ok(position.map(|position| LogPosition { log: log(), position }))
    }

    /// The databases to export. Those that are excluded or cannot be read go into the listing.
    pub(super) fn databases(&self, listing: &mut Listing) -> Result<Vec<String>> {
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
        let mut databases = chosen.taken;
        databases.retain(|name| match closed.get(name) {
            Some(why) => {
                listing.unreadable.push((self.id(name, "*", "*"), why.clone()));
                false
            }
            None => true,
        });
        Ok(databases)
    }

    pub(super) fn id(&self, database: &str, schema: &str, table: &str) -> TableId {
        TableId {
            source: self.name.clone(),
            database: database.to_owned(),
            schema: schema.to_owned(),
            table: table.to_owned(),
        }
    }

    pub(super) fn excluded(&self, what: String, why: &str) -> Excluded {
        Excluded { source: self.name.clone(), what, why: why.to_owned() }
    }
}
