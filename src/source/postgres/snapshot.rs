//! The connections to one database, all of which see one exported snapshot. If the connection that holds it is lost, the
//! next snapshot has another name. Blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Database;
use crate::error::{Class, Error, Result};
use crate::model::Object;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::identity;
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::outside::{Connected, Outside};

/// The settings of every session, whatever the server, the database or the role sets. Row-level security would silently
/// hide a part of a table; with `row_security = off` that is an error. A statement that waits for a lock gives up, since
/// one locked table must not hold up all others.
const SETTINGS: [(&str, &str); 14] = [
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "off"),
    ("search_path", "pg_catalog"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("quote_all_identifiers", "off"),
    ("transform_null_equals", "off"),
];
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The first version with a time-out for whole transactions.
const TRANSACTION_TIMEOUT: u32 = 170_000;

/// Applies the settings. `LOCAL` limits them to the transaction, since behind a pooler the next one may belong to another
/// session. No statement here may need a snapshot, since one may be imported afterwards.
pub(crate) fn set_up(connection: &mut Connection, scope: &str) -> Result<()> {
    let set = |(name, value): (&str, &str)| format!("SET {scope} {name} = '{value}'; ");
    let settings: String = SETTINGS.into_iter().map(set).collect();
    let rows =
        connection.query(&format!("{settings}SHOW server_version_num; SHOW server_encoding"))?;
    let shown = |at: usize| rows.get(at).map(|row| text(row, 0)).unwrap_or_default();
    if shown(0).parse().is_ok_and(|version: u32| version >= TRANSACTION_TIMEOUT) {
        connection.query(&set(("transaction_timeout", "0")))?;
    }
    // The texts may be in any encoding, and the server would refuse to send them as UTF-8.
    if shown(1) == "SQL_ASCII" {
        connection.query(&set(("client_encoding", "SQL_ASCII")))?;
        connection.keep_bytes();
    }
    Ok(())
}

/// The name of a snapshot: two snapshots of one server with the same name show the same rows. It consists of the
/// transactions that had ended and of the time at which the server started, since after a crash the server may reuse the
/// numbers of lost transactions. The crash of one backend does not restart the postmaster, but it resets the statistics,
/// so their time is included, too. On a standby, running transactions have no numbers, so no two snapshots can be proven
/// to be the same, and the present time keeps their names apart.
const MOMENT: &str = "SELECT txid_current_snapshot()::text \
    || ' ' || extract(epoch FROM pg_postmaster_start_time()) \
    || coalesce(' ' || extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), '') \
    || CASE WHEN pg_is_in_recovery() THEN ' ' || clock_timestamp()::text ELSE '' END";
pub(super) const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// The connections to one database.
pub(super) struct Pool {
    server: Database,
    name: String,
    idle_timeout: Duration,
    open: Mutex<Open>,
    outside: Outside<Connection>,
}

#[derive(Default)]
struct Open {
    holder: Option<SnapshotHolder>,
    idle: Vec<Session>,
}

/// Holds the snapshot as long as its transaction lasts, and does nothing else.
struct SnapshotHolder {
    _connection: Connection,
    /// The name by which other sessions import it.
    exported: String,
    snapshot_id: Arc<str>,
}

/// A connection whose transaction sees the snapshot.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) snapshot_id: Arc<str>,
}

/// Releases the locks that were taken since the session began. Otherwise an `ALTER TABLE`, and everyone after it, would
/// wait for the end of the run.
pub(super) const RELEASE: &str = "ROLLBACK TO SAVEPOINT moveout";

impl Session {
    fn new(mut connection: Connection, snapshot_id: &Arc<str>) -> Result<Self> {
        connection.query("SAVEPOINT moveout")?;
        Ok(Self { connection, snapshot_id: Arc::clone(snapshot_id) })
    }
}

impl Pool {
    pub(super) fn new(server: Database, name: String, idle_timeout: Duration) -> Self {
        Self { server, name, idle_timeout, open: Mutex::default(), outside: Outside::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<Connection> {
        let mut connection = Connection::open(&self.server, &self.name, self.idle_timeout)?;
        connection.query(BEGIN)?;
        set_up(&mut connection, "LOCAL")?;
        Ok(connection)
    }

    /// A session in the snapshot, or in a new one if that has been lost.
    pub(super) fn take(&self) -> Result<Session> {
        let mut open = self.lock();
        if let Some(session) = open.idle.pop() {
            return Ok(session);
        }
        if let Some(holder) = &open.holder {
            let mut connection = self.connect()?;
            // This works only while the transaction that exported the snapshot is open:
            // <https://www.postgresql.org/docs/current/sql-set-transaction.html>
            match connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", holder.exported)) {
                Ok(_) => return Session::new(connection, &holder.snapshot_id),
                // The connection is gone, but not the snapshot.
                Err(error) if matches!(error.class(), Class::Stop | Class::RetryThenSplit) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!("{}: the snapshot is lost: {error}", connection.address());
                    open.holder = None;
                }
            }
        }
        let holder = open.holder.insert(self.export()?);
        let mut connection = self.connect()?;
        connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", holder.exported))?;
        Session::new(connection, &holder.snapshot_id)
    }

    fn export(&self) -> Result<SnapshotHolder> {
        let mut connection = self.connect()?;
        let mut text = |sql: &str| -> Result<String> {
            let rows = connection.query(sql)?;
            Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
        };
        let exported = text("SELECT pg_export_snapshot()")?;
        let moment = text(MOMENT)?;
        // Some services hide the system's identifier. The address is the next best thing.
        text("SAVEPOINT system")?;
        let system = match text(SYSTEM) {
            Ok(system) => system,
            Err(error) => {
                if error.class() != Class::Fail {
                    return Err(error);
                }
                text("ROLLBACK TO system")?;
                format!("{}:{}", self.server.host, self.server.port)
            }
        };
        let snapshot_id = format!("{system}/{}/{moment}", self.name).into();
        Ok(SnapshotHolder { _connection: connection, exported, snapshot_id })
    }

    /// Works with a session in the snapshot. If the work fails, the session is closed, since the state of its transaction
    /// is unknown.
    pub(super) fn work<T>(
        &self,
        mut session: Session,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let worked = cancel.watching(session.connection.closer()?, || {
            let worked = work(&mut session)?;
            session.connection.query(RELEASE)?;
            Ok::<T, Error>(worked)
        })?;
        self.requeue(session);
        Ok(worked)
    }

    fn requeue(&self, session: Session) {
        let mut open = self.lock();
        let current =
            open.holder.as_ref().is_some_and(|holder| holder.snapshot_id == session.snapshot_id);
        if current {
            open.idle.push(session);
        }
    }

    /// Gives up a snapshot that is outdated, unless that has been done already.
    pub(super) fn renew(&self, snapshot_id: &str) {
        let mut open = self.lock();
        if open.holder.as_ref().is_some_and(|holder| *holder.snapshot_id == *snapshot_id) {
            *open = Open::default();
        }
    }

    /// The table with this number as it is now, whatever the snapshot shows.
    pub(super) fn now(&self, oid: u32, cancel: &CancelToken) -> Result<Option<Object>> {
        let open = || Connection::open(&self.server, &self.name, self.idle_timeout);
        self.outside.ask(cancel, open, |connection| identity::now(connection, oid))
    }

    /// Closes the idle connections.
    pub(super) fn close_idle(&self) {
        self.outside.close();
        // Whoever holds the lock is connecting, which happens only if no session is idle.
        if let Ok(mut open) = self.open.try_lock() {
            open.idle.clear();
        }
    }
}
