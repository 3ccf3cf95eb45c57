//! MySQL 5.7 to 9 and MariaDB: a client of our own that reads prepared statements row by row into Arrow,
//! each connection within a snapshot. Touches nothing but the network.

mod artifacts;
mod catalog;
mod charset;
mod client;
mod handshake;
mod identity;
mod listing;
mod packet;
mod proofs;
mod ranges;
mod read;
mod rights;
mod rows;
mod select;
mod session;
mod snapshot;
mod status;
mod time;
mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::client::Client;
use self::read::{Aside, Outcome, Sink};
use self::rows::Unfit;
use self::select::Part;
use self::session::{Pool, Session};
use self::status::Fault;
use crate::config::{Database, Limits, Select, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, Listing, Object, ReadSummary, RowCount, ServerIdentity, SourceInfo, Table,
    TableId,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::relational::cancel::{Cancel, blocking};
use crate::source::relational::type_overrides::{TypeOverride, TypeOverrides};
use crate::window::{Slice, Window};

/// Opens one.
pub(super) fn open(
    spec: &SourceSpec,
    database: &Database,
    limits: &Limits,
) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(MySql(Arc::new(Inner {
        name: spec.name.clone(),
        select: spec.select.clone(),
        time_columns: database.time_columns.clone(),
        pool: Arc::new(Pool::new(database, limits)),
        numbered: AtomicBool::new(false),
        learned: Mutex::default(),
        type_overrides: TypeOverrides::default(),
    }))))
}

struct MySql(Arc<Inner>);

/// What work on threads shares.
struct Inner {
    name: String,
    select: Select,
    time_columns: BTreeMap<String, String>,
    pool: Arc<Pool>,
    /// Whether InnoDB's numbers tell tables apart.
    numbered: AtomicBool,
    learned: Mutex<Learned>,
    type_overrides: TypeOverrides,
}

/// What is known of tables besides what is listed of them.
#[derive(Default)]
struct Learned {
    /// Those that keep their old rows.
    versioned: HashSet<TableId>,
    /// The bounds of those that are read by windows.
    bounds: HashMap<TableId, Option<Window>>,
    /// Integers by whose ranges large tables can be read.
    keys: HashMap<TableId, String>,
    /// Estimates of the number of rows.
    rows: HashMap<TableId, u64>,
    /// Which table each name stood for when it was listed, and since when, in the pool's time: older snapshots may see
    /// this one as it was before it got the name.
    seen: HashMap<TableId, (Object, u64)>,
}

/// ER_TABLE_DEF_CHANGED.
const ALTERED: u16 = 1412;

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

    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let asked = this.pool.outside(cancel, |client| {
                let (product, sql) = match client.is_mariadb {
                    true => ("mariadb", "SELECT @@server_uid"),
                    false => ("mysql", "SELECT @@server_uuid"),
                };
                match client.value(sql) {
                    Ok(id) => Ok((product, id.filter(|id| !id.is_empty()))),
                    Err(Fault::Server(_)) => Ok((product, None)), // some versions and services have none
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
        blocking(move |cancel| listing::list(&this, &mut lease, cancel)).await
    }

    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let learned = self.0.learned();
        let bounds = |table: &Table| learned.bounds.get(&table.id).copied().flatten();
        Ok(tables.iter().map(bounds).collect())
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let part = Part::new(table, window.into(), self.0.is_versioned(&table.id));
        if part.is_whole() {
            let rows = self.0.learned().rows.get(&table.id).copied().unwrap_or(0);
            return Ok(RowCount { rows, exact: false });
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
            let rows = rows.ok_or_else(|| Error::of(Class::Retry, "it does not count"))?;
            Ok(RowCount { rows, exact: true })
        })
        .await
    }

    fn rows_estimate(&self, table: &TableId) -> Option<u64> {
        self.0.learned().rows.get(table).copied()
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let (this, chunk) = (Arc::clone(&self.0), chunk.clone());
        let mut lease = this.pool.lease().await?;
        blocking(move |cancel| {
            let read = lease.work(cancel, |session| {
                let outcome = this.read(session, &chunk, &batches, cancel)?;
                Ok((outcome, session.state.clone()))
            });
            let read = read.and_then(|(outcome, state)| match outcome {
                Outcome::Complete => {
                    Ok(ReadSummary { snapshot: Some(state), ..ReadSummary::default() })
                }
                Outcome::Stopped(error) => Err(error),
                Outcome::Unfit(unfit) => Err(this.retype(&chunk.table, &unfit)),
            });
            read.map_err(|error| error.context(format!("reading {chunk}")))
        })
        .await
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let collect = |client: &mut _| artifacts::collect(client, &this.name, &this.select);
            let saved = this.pool.outside(cancel, collect);
            saved.map_err(|error| error.context("saving what is not rows"))
        })
        .await
    }
}

impl Inner {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_versioned(&self, id: &TableId) -> bool {
        self.learned().versioned.contains(id)
    }

    /// Works within the session's snapshot, or in a new one where the table was altered since.
    fn current<T>(
        &self,
        session: &mut Session,
        mut work: impl FnMut(&mut Session) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        match work(session) {
            Err(fault) if fault.code() == Some(ALTERED) => {
                session.renew(self.pool.tick())?;
                work(session)
            }
            outcome => outcome,
        }
    }

    fn read(
        &self,
        session: &mut Session,
        chunk: &Chunk,
        batches: &BatchSender,
        cancel: &Cancel,
    ) -> std::result::Result<Outcome, Fault> {
        let table = &chunk.table;
        let part = Part::new(table, chunk.slice, self.is_versioned(&table.id));
        let key = self.learned().keys.get(&table.id).filter(|_| part.is_whole()).cloned();
        let stop =
            |id| self.pool.outside(cancel, |client| client.query(&format!("KILL QUERY {id}")));
        let stop = |id| stop(id).map(drop);
        let is_still = || {
            let numbered = self.numbered.load(Ordering::Relaxed);
            let now = |client: &mut Client| Ok(identity::now(client, &table.id, numbered)?);
            let now = self.pool.outside(cancel, now)?;
            table.identity.object.as_ref().map_or(Ok(()), |listed| listed.is_still(now.as_ref()))
        };
        let aside = Aside { stop: &stop, is_still: &is_still };
        if chunk.slice != Slice::All && table.time_column.is_none() {
            return Ok(Outcome::Stopped(Error::fail("this table has no windows")));
        }
        let seen = self.learned().seen.get(&table.id).map_or(0, |(_, since)| *since);
        self.since(session, seen)?;
        let read = match &key {
            Some(key) => ranges::read(&self.pool, session, &part, key, batches, aside, cancel),
            None => {
                let sink = Sink { batches, is_over: &|| false };
                read::read(session, &part, &sink, aside)
            }
        };
        match read {
            // What was sent of it already must not come again: the chunk begins anew.
            Err(fault) if fault.code() == Some(ALTERED) => {
                session.renew(self.pool.tick())?;
                let error = "the table was altered while it was read";
                Ok(Outcome::Stopped(Error::of(Class::Retry, error)))
            }
            outcome => outcome,
        }
    }

    /// Has the session see a moment that is not before an instant.
    fn since(&self, session: &mut Session, instant: u64) -> std::result::Result<(), Fault> {
        match session.taken < instant {
            true => session.renew(self.pool.tick()),
            false => Ok(()),
        }
    }

    /// Remembers which table a name stands for; returns since when. `before` is an instant at which it did already.
    fn seen(&self, id: &TableId, object: &Object, before: Option<u64>) -> u64 {
        let mut learned = self.learned();
        let known = learned.seen.get(id).filter(|(known, _)| known == object);
        let since = known.map(|(_, since)| *since).or(before);
        let since = since.unwrap_or_else(|| self.pool.tick());
        learned.seen.insert(id.clone(), (object.clone(), since));
        since
    }

    /// Remembers which columns must be listed with another type.
    fn retype(&self, table: &Table, unfit: &[Unfit]) -> Error {
        let learned = unfit.iter().map(|unfit| match unfit {
            Unfit::Date(at) => {
                (&table.columns[*at], TypeOverride::Text, "a date that is none, as 0000-00-00")
            }
            Unfit::Text(at) => {
                (&table.columns[*at], TypeOverride::Bytes, "bytes that are not text of its charset")
            }
        });
        self.type_overrides.learn(&table.id, learned)
    }
}
