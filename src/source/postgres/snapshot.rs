//! The connections to one database, all in one exported snapshot. When it is lost with the connection that
//! holds it, the next one has another name. Blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::connection::Connection;
use super::identity;
use crate::config::Database;
use crate::error::{Class, Result};
use crate::source::Object;
use crate::source::relational::cancel::Cancel;
use crate::source::relational::outside::Outside;

/// What every session sets. Under row-level security a read would be a silent part of the table; with
/// `row_security = off` it is an error. `LOCAL`: behind a pooler the next transaction may be of another session.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL row_security = off; \
    SET LOCAL search_path = pg_catalog; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
    SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 3; \
    SET LOCAL bytea_output = 'hex'; SET LOCAL xmloption = 'content'";
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The snapshot's name for others: two of the same server with the same name show the same rows. It names
/// the transactions that had ended. On a standby those that are at work have no number here, so that nothing
/// proves two snapshots to be the same.
const STATE: &str = "SELECT txid_current_snapshot()::text \
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
    leader: Option<Leader>,
    idle: Vec<Session>,
}

/// Holds the snapshot as long as its transaction lasts, and does nothing else.
struct Leader {
    _connection: Connection,
    id: String,
    state: Arc<str>,
}

/// A connection whose transaction sees the snapshot.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Name of the snapshot.
    pub(super) state: Arc<str>,
}

/// Gives back the locks that were taken since the session began: an `ALTER TABLE` would wait for the end of
/// the run, and whoever comes after it too.
pub(super) const RELEASE: &str = "ROLLBACK TO SAVEPOINT moveout";

impl Session {
    fn new(mut connection: Connection, state: &Arc<str>) -> Result<Self> {
        connection.query("SAVEPOINT moveout")?;
        Ok(Self { connection, state: Arc::clone(state) })
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
        connection.query(SETTINGS)?;
        // Its texts may be in any encoding, which the server would refuse to call UTF-8.
        let encoding = connection.query("SHOW server_encoding")?;
        if encoding.iter().flatten().flatten().any(|encoding| encoding == "SQL_ASCII") {
            connection.query("SET LOCAL client_encoding = 'SQL_ASCII'")?;
        }
        Ok(connection)
    }

    /// A session in the snapshot; in a new one if that has been lost.
    pub(super) fn take(&self) -> Result<Session> {
        let mut open = self.lock();
        if let Some(session) = open.idle.pop() {
            return Ok(session);
        }
        if let Some(leader) = &open.leader {
            let mut connection = self.connect()?;
            // <https://www.postgresql.org/docs/current/sql-set-transaction.html>: only while the transaction
            // that exported it is open.
            match connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", leader.id)) {
                Ok(_) => return Session::new(connection, &leader.state),
                // Not the snapshot is gone, but this connection.
                Err(error) if matches!(error.class(), Class::Stop | Class::RetryThenSplit) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!("{}: the snapshot is lost: {error}", connection.address());
                    open.leader = None;
                }
            }
        }
        let leader = open.leader.insert(self.lead()?);
        let mut connection = self.connect()?;
        connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", leader.id))?;
        Session::new(connection, &leader.state)
    }

    fn lead(&self) -> Result<Leader> {
        let mut connection = self.connect()?;
        let mut text = |sql: &str| -> Result<String> {
            let rows = connection.query(sql)?;
            Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
        };
        let id = text("SELECT pg_export_snapshot()")?;
        let state = text(STATE)?;
        // Some services keep the system's identifier to themselves; the address is the next best.
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
        let state = format!("{system}/{}/{state}", self.name).into();
        Ok(Leader { _connection: connection, id, state })
    }

    /// Takes a session back whose last statement ended well.
    pub(super) fn give_back(&self, session: Session) {
        let mut open = self.lock();
        let current = open.leader.as_ref().is_some_and(|leader| leader.state == session.state);
        if current {
            open.idle.push(session);
        }
    }

    /// Lets go of a snapshot that shows less than there was, unless that has been done already.
    pub(super) fn renew(&self, state: &str) {
        let mut open = self.lock();
        if open.leader.as_ref().is_some_and(|leader| *leader.state == *state) {
            *open = Open::default();
        }
    }

    /// The table of a number as it is now, whatever the snapshot shows.
    pub(super) fn now(&self, oid: u32, cancel: &Cancel) -> Result<Option<Object>> {
        let open = || Connection::open(&self.server, &self.name, self.idle_timeout);
        self.outside.ask(cancel, open, |connection| identity::now(connection, oid))
    }

    /// Ends the connections that nothing is read by.
    pub(super) fn close_idle(&self) {
        self.outside.close();
        // Whoever holds the lock is connecting, and needs no help.
        if let Ok(mut open) = self.open.try_lock() {
            open.idle.clear();
        }
    }
}
