//! MySQL 5.7 to 9 and MariaDB: a client of our own that reads prepared statements row by row into Arrow,
//! each connection within a snapshot. Touches nothing but the network.

mod artifacts;
mod catalog;
mod charset;
mod client;
mod handshake;
mod listing;
mod packet;
mod ranges;
mod read;
mod rows;
mod select;
mod session;
mod snapshot;
mod status;
mod time;
mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::read::{Outcome, Sink};
use self::rows::Unfit;
use self::select::Part;
use self::session::{Pool, Session};
use self::status::Fault;
use super::relational::cancel::{Cancel, blocking};
use super::relational::lessons::{Lesson, Lessons};
use super::{
    Artifact, ArtifactStatus, BatchSender, Chunk, Done, Listing, RowCount, ServerIdentity, Source,
    SourceInfo, Table, TableId,
};
use crate::config::{Database, Limits, Select, SourceSpec};
use crate::error::{Class, Error, Result};
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
        listed: AtomicU64::new(0),
        learned: Mutex::default(),
        lessons: Lessons::default(),
    }))))
}

struct MySql(Arc<Inner>);

/// What work on threads shares.
struct Inner {
    name: String,
    select: Select,
    time_columns: BTreeMap<String, String>,
    pool: Arc<Pool>,
    /// When the catalog was read, in the pool's time: a younger snapshot may be of other columns.
    listed: AtomicU64,
    learned: Mutex<Learned>,
    lessons: Lessons,
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
    /// When each was created, as the server said when it was listed.
    created: HashMap<TableId, Option<String>>,
    /// When it was found that another table has the name now: older snapshots see that one as it was then.
    replaced: HashMap<TableId, u64>,
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
            let mut client = this.pool.address.connect(cancel)?;
            let (product, sql) = match client.is_mariadb {
                true => ("mariadb", "SELECT @@server_uid"),
                false => ("mysql", "SELECT @@server_uuid"),
            };
            let id = match client.value(sql) {
                Ok(id) => id.filter(|id| !id.is_empty()),
                Err(Fault::Server(_)) => None, // some versions and services have none
                Err(broken) => return Err(Error::from(broken).context("asking which server it is")),
            };
            client.quit();
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

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<Done> {
        let (this, chunk) = (Arc::clone(&self.0), chunk.clone());
        let mut lease = this.pool.lease().await?;
        blocking(move |cancel| {
            let read = lease.work(cancel, |session| {
                let outcome = this.read(session, &chunk, &batches, cancel)?;
                Ok((outcome, session.state.clone()))
            });
            let read = read.and_then(|(outcome, state)| match outcome {
                Outcome::Complete => Ok(Done { snapshot: Some(state), ..Done::default() }),
                Outcome::Stopped(error) => Err(error),
                Outcome::Unfit(unfit) => Err(this.retype(&chunk.table, &unfit)),
            });
            read.map_err(|error| error.context(format!("reading {chunk}")))
        })
        .await
    }

    async fn artifacts(&self) -> Result<(Vec<Artifact>, Vec<ArtifactStatus>)> {
        let this = Arc::clone(&self.0);
        blocking(move |cancel| {
            let mut client = this.pool.address.connect(cancel)?;
            let saved = artifacts::collect(&mut client, &this.name, &this.select);
            client.quit();
            saved.map_err(|fault| Error::from(fault).context("saving what is not rows"))
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
        let stop = |id| {
            let mut other = self.pool.address.connect(cancel)?;
            let killed = other.query(&format!("KILL QUERY {id}"));
            other.quit();
            killed.map(drop).map_err(Error::from)
        };
        if chunk.slice != Slice::All && table.time_column.is_none() {
            return Ok(Outcome::Stopped(Error::fail("this table has no windows")));
        }
        let replaced = self.learned().replaced.get(&table.id).copied();
        if replaced.is_some_and(|replaced| session.taken < replaced) {
            session.renew(self.pool.tick())?;
        }
        let read = (|session: &mut Session| {
            if session.taken > self.listed.load(Ordering::Relaxed)
                && let Some(error) = self.altered(session, table)?
            {
                return Ok(Outcome::Stopped(error));
            }
            match &key {
                Some(key) => ranges::read(&self.pool, session, &part, key, batches, &stop, cancel),
                None => {
                    let sink = Sink { batches, over: &AtomicBool::new(false) };
                    read::read(session, &part, &sink, &stop)
                }
            }
        })(session);
        match read {
            // What was sent of it already must not come again: the chunk begins anew.
            Err(fault) if fault.code() == Some(ALTERED) => {
                session.renew(self.pool.tick())?;
                let error = "the table was altered while it was read";
                Ok(Outcome::Stopped(Error::of(Class::Retry, error)))
            }
            Ok(Outcome::Complete) => self.is_same(session, &table.id).map(|same| match same {
                true => Outcome::Complete,
                false => Outcome::Stopped(Error::of(
                    Class::SchemaChanged,
                    "another table has taken its name while the run was at work",
                )),
            }),
            outcome => outcome,
        }
    }

    /// Whether the table of this name is the one that was listed. InnoDB says nothing of a `RENAME` to who
    /// reads an older snapshot, and shows the newcomer as it was then.
    fn is_same(&self, session: &mut Session, id: &TableId) -> std::result::Result<bool, Fault> {
        let listed = self.learned().created.get(id).cloned().flatten();
        if catalog::created(&mut session.client, id)? == listed {
            return Ok(true);
        }
        let now = self.pool.tick();
        self.learned().replaced.insert(id.clone(), now);
        session.renew(self.pool.tick())?;
        Ok(false)
    }

    /// Whether a table has other columns now than were listed.
    fn altered(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> std::result::Result<Option<Error>, Fault> {
        let columns = catalog::columns(&mut session.client, &table.id, &self.lessons)?;
        let listed = table.columns.iter().filter(|column| !catalog::is_history(column));
        Ok(match columns.iter().eq(listed) {
            true => None,
            false if columns.is_empty() => Some(
                Error::fail("the table is not there any more")
                    .hint("it was dropped or renamed while the run was at work"),
            ),
            false => {
                Some(Error::of(Class::SchemaChanged, "it was altered while the run was at work"))
            }
        })
    }

    /// Remembers which columns must be listed with another type.
    fn retype(&self, table: &Table, unfit: &[Unfit]) -> Error {
        let learned = unfit.iter().map(|unfit| match unfit {
            Unfit::Date(at) => {
                (&table.columns[*at], Lesson::Text, "a date that is none, as 0000-00-00")
            }
            Unfit::Text(at) => {
                (&table.columns[*at], Lesson::Bytes, "bytes that are not text of its charset")
            }
        });
        self.lessons.learn(&table.id, learned)
    }
}
