//! The connections to a target, and the questions and statements that are neither definitions nor rows. Blocks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::definitions::{artifact, kinds};
use super::large_objects;
use super::layout::{Layout, attributes};
use super::names::{is_large_objects, literal, place, place_of};
use super::record::{self, Of};
use crate::config::Database;
use crate::error::{Class, Error, Result};
use crate::model::TableId;
use crate::source::postgres::catalog::{text, types};
use crate::source::postgres::connection::{Connection, Row};
use crate::source::postgres::snapshot::set_up;
use crate::source::postgres::sql::quoted;
use crate::source::postgres::types::Types;
use crate::source::relational::cancel::CancelToken;
use crate::target::relational::{AllRead, Idle, is_denied, is_full, occupied, once, written};
use crate::target::{ChunkOut, Placed, Plan, Settled, Written};

/// The settings of a session in addition to those of an export. A confirmed commit must survive a crash of the server,
/// because a run that goes on after the crash relies on every chunk that was confirmed before.
const SETTINGS: &str =
    "SET lock_timeout = 0; SET synchronous_commit = local; SET default_transaction_read_only = off";

/// The server, and the connections that are not in use.
pub(super) struct Inner {
    pub(super) server: Database,
    /// The database that everything goes into, if the user names one.
    pub(super) into: Option<String>,
    pub(super) idle_timeout: Duration,
    pub(super) idle: Idle<Connection>,
    pub(super) types: Mutex<HashMap<String, Arc<Types>>>,
}

impl Inner {
    /// Opens a connection to a database, with these settings.
    pub(super) fn open(&self, database: &str) -> Result<Connection> {
        let mut connection = Connection::open(&self.server, database, self.idle_timeout)?;
        set_up(&mut connection, "SESSION")?;
        connection.query(SETTINGS)?;
        Ok(connection)
    }

    /// Opens a connection to any database.
    fn any(&self) -> Result<Connection> {
        let names = match &self.into {
            Some(into) => vec![into.as_str()],
            None => vec!["postgres", &self.server.user, "template1"],
        };
        let mut failed = None;
        for name in names {
            match self.open(name) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.class() == Class::Stop => _ = failed.get_or_insert(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::stop("there is no database to connect to")))
    }

    /// Works with a connection to any database, for questions about the whole server.
    pub(super) fn with_any<T>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        self.idle.with("", cancel, || self.any(), told(work))
    }

    /// Works with a connection to a database, which is kept for the next piece of work.
    pub(super) fn with<T>(
        &self,
        database: &str,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        self.idle.with(database, cancel, || self.open(database), told(work))
    }

    /// Works with a connection of its own, so that the work may change the session's settings.
    pub(super) fn with_new<T>(
        &self,
        database: &str,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        once(&mut self.open(database)?, cancel, told(work))
    }

    pub(super) fn describe(&self, cancel: &CancelToken) -> Result<String> {
        self.with_any(cancel, |connection| {
            let rows = connection.query("SELECT current_setting('server_version')")?;
            let version = rows.first().map(|row| text(row, 0)).unwrap_or_default();
            let tls = if connection.is_tls() { "" } else { ", without TLS" };
            let Database { host, port, .. } = &self.server;
            Ok(format!("PostgreSQL {}{tls}, {host}:{port}", version.escape_debug()))
        })
    }

    fn types(&self, database: &str, connection: &mut Connection) -> Result<Arc<Types>> {
        let mut known = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(database) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(types(connection)?);
        known.insert(database.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    /// Writes a chunk and its record, and commits them if all rows of the chunk could be read.
    pub(super) fn write(
        &self,
        chunk: &ChunkOut,
        mut rows: mpsc::Receiver<RecordBatch>,
        all_read: AllRead,
        cancel: &CancelToken,
    ) -> Result<Written> {
        let table = &chunk.table.to;
        self.with(&table.database, cancel, |connection| {
            connection.query("BEGIN")?;
            // An earlier attempt may have been committed although its answer was lost.
            if let Some(written) = record::chunk(connection, &chunk.name)? {
                connection.query("ROLLBACK")?;
                while rows.blocking_recv().is_some() {}
                return Ok(written);
            }
            let sent = if is_large_objects(table) {
                large_objects::write(connection, &chunk.columns, &mut rows)?
            } else {
                let types = self.types(&table.database, connection)?;
                let attributes = attributes(connection, table)?;
                let keeps_bytes = connection.keeps_bytes();
                let columns = &chunk.columns;
                let layout = Layout::new(table, columns, &attributes, &types, keeps_bytes)?;
                copy(connection, &layout, &mut rows)?
            };
            if let Err(error) = all_read.wait() {
                connection.query("ROLLBACK")?;
                return Err(error);
            }
            let record = record::add(Of::Chunk, &chunk.name, sent);
            connection.query(&format!("{record}; COMMIT"))?;
            Ok(written(sent))
        })
        .map_err(|error| match error.class() {
            Class::Fail => error.hint(
                "nothing of this chunk was written: change what the target refuses, and run the same command again to \
                 go on",
            ),
            _ => error,
        })
    }
}

/// The SQLSTATE of a user who lacks a right.
const DENIED: &str = "42501";

/// The same work, whose errors tell what they mean for a target.
fn told<T>(
    work: impl FnOnce(&mut Connection) -> Result<T>,
) -> impl FnOnce(&mut Connection) -> Result<T> {
    |connection| {
        let worked = work(connection);
        worked.map_err(|error| match error {
            error if connection.lacks_room() => is_full(error),
            error if connection.was_refused_by(DENIED) => is_denied(error),
            error => error,
        })
    }
}

fn copy(
    connection: &mut Connection,
    layout: &Layout,
    rows: &mut mpsc::Receiver<RecordBatch>,
) -> Result<u64> {
    let (mut sent, mut began) = (0, false);
    if let Some((create, _)) = &layout.stage {
        connection.query(create)?;
    }
    let taken = connection.copy_in(&layout.statement, |out| {
        if !began {
            layout.head(out);
            began = true;
        }
        match rows.blocking_recv() {
            Some(batch) => {
                layout.rows(&batch, out)?;
                sent += batch.num_rows() as u64;
                Ok(true)
            }
            None => {
                layout.tail(out);
                Ok(false)
            }
        }
    })?;
    if let Some((_, moves)) = &layout.stage {
        connection.query(moves)?;
    }
    if taken == sent {
        Ok(sent)
    } else {
        Err(Error::fail(format!("{sent} rows were sent, and the server has taken {taken}")).hint(
            "see whether the table has a trigger or a rule that leaves rows out, and remove it until the rows are there",
        ))
    }
}

/// What a database of the target has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each relation, with `pg_class.relkind`.
    relations: HashMap<(String, String), String>,
    /// Tables that have rows.
    pub(super) occupied: BTreeSet<TableId>,
    /// Whether there is the record of a restore.
    pub(super) has_record: bool,
}

impl Found {
    fn kind(&self, table: &TableId) -> Option<&str> {
        let name = (table.schema.clone(), table.table.clone());
        self.relations.get(&name).map(String::as_str)
    }

    /// Whether the target has a table.
    pub(super) fn has(&self, table: &TableId) -> bool {
        self.kind(table).is_some()
    }

    /// Whether the target has a materialized view of this name.
    pub(super) fn is_view(&self, table: &TableId) -> bool {
        self.kind(table) == Some("m")
    }
}

/// Finds out which of these tables exist, and which of them have rows.
pub(super) fn look(connection: &mut Connection, tables: &[&Arc<Placed>]) -> Result<Found> {
    let rows = connection.query(
        "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v')",
    )?;
    let relations = rows.iter().map(|row| ((text(row, 0), text(row, 1)), text(row, 2))).collect();
    let mut found =
        Found { relations, occupied: BTreeSet::new(), has_record: record::exists(connection)? };
    let there = tables.iter().copied();
    let there: Vec<_> =
        there.filter(|table| matches!(found.kind(&table.to), Some("r" | "p" | "f"))).collect();
    let from = |table: &TableId| match is_large_objects(table) {
        true => "pg_largeobject_metadata".to_owned(),
        false => format!("ONLY {}", place(table)),
    };
    let numbers = |rows: Vec<Row>| rows.iter().map(|row| text(row, 0)).collect();
    found.occupied = occupied(&there, from, |sql| connection.query(sql).map(numbers))?;
    Ok(found)
}

fn names(connection: &mut Connection, sql: &str) -> Result<HashSet<String>> {
    Ok(connection.query(sql)?.iter().map(|row| text(row, 0)).collect())
}

pub(super) fn databases(connection: &mut Connection) -> Result<HashSet<String>> {
    names(connection, "SELECT datname FROM pg_database")
}

pub(super) fn roles(connection: &mut Connection) -> Result<HashSet<String>> {
    names(connection, "SELECT rolname FROM pg_roles")
}

pub(super) fn extensions(connection: &mut Connection) -> Result<HashSet<String>> {
    names(connection, "SELECT name FROM pg_available_extensions")
}

/// Gathers the statistics of all tables except the system's own. Autovacuum never gathers those of a partitioned table.
pub(super) fn analyze(connection: &mut Connection) -> Result<()> {
    let tables = connection.query(
        "SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ') FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p') \
         AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    )?;
    match tables.first().map(|row| text(row, 0)).unwrap_or_default() {
        none if none.is_empty() => Ok(()),
        tables => connection.query(&format!("ANALYZE {tables}")).map(drop),
    }
}

pub(super) fn count(connection: &mut Connection, from: &str) -> Result<u64> {
    let rows = connection.query(&format!("SELECT count(*) FROM {from}"))?;
    let count = rows.first().and_then(|row| text(row, 0).parse().ok());
    count.ok_or_else(|| Error::stop("the server answered count(*) without a number"))
}

/// Creates a database with the properties that the archive records of the one whose tables go into it.
pub(super) fn create_database(
    connection: &mut Connection,
    plan: &Plan,
    of: Option<&TableId>,
    name: &str,
) -> Result<()> {
    let settings = of.and_then(|of| artifact(plan, &of.source, "settings.json"));
    let settings: serde_json::Value =
        settings.and_then(|settings| serde_json::from_slice(settings).ok()).unwrap_or_default();
    let known = settings["databases"].as_array().into_iter().flatten();
    let known = known.into_iter().find(|known| of.is_some_and(|of| known["name"] == of.database));
    let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", quoted(name));
    for (word, key) in [("ENCODING", "encoding"), ("LC_COLLATE", "collate"), ("LC_CTYPE", "ctype")]
    {
        if let Some(value) = known.and_then(|known| known[key].as_str()) {
            sql.push_str(&format!(" {word} {}", literal(value)));
        }
    }
    let text = |key: &str| known.and_then(|known| known[key].as_str());
    match (text("locale_provider"), text("locale")) {
        (Some("i"), Some(locale)) => {
            sql.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)));
        }
        (Some("b"), Some(locale)) => {
            sql.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale)));
        }
        _ => {}
    }
    connection.query(&sql).map(|_| ()).map_err(|error| {
        error.context(format!("making the database {}", name.escape_debug())).hint(
            "make it by hand, with an encoding and a locale that this server has, and run the same command again",
        )
    })
}

/// Whether the archive has settings, rights or a comment of a database itself.
pub(super) fn has_settings(plan: &Plan, source: &str, database: &str) -> bool {
    let script = artifact(plan, source, "databases.sql").unwrap_or_default();
    let script = String::from_utf8_lossy(script);
    let verbs = ["ALTER DATABASE ", "GRANT ", "REVOKE ", "COMMENT ON DATABASE "];
    let is_of = |line: &str| {
        verbs.iter().any(|verb| line.starts_with(verb))
            && (line.contains(&format!("DATABASE {database} "))
                || line.contains(&format!("DATABASE {} ", quoted(database))))
    };
    script.lines().any(is_of)
}

/// Makes tables from the columns that the archive has.
pub(super) fn create_tables(connection: &mut Connection, tables: &[&Arc<Placed>]) -> Result<()> {
    for table in tables.iter().filter(|table| !is_large_objects(&table.to)) {
        let mut columns: Vec<String> = Vec::new();
        for column in &table.columns {
            columns.push(format!("{} {}", quoted(&column.key), column.source_type));
        }
        let sql = format!(
            "CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE {} ({})",
            quoted(&table.to.schema),
            place(&table.to),
            columns.join(", ")
        );
        connection.query(&sql).map_err(|error| {
            error
                .for_good()
                .context(format!("making the table {}", table.to))
                .hint("make the tables by hand and run the same command again")
        })?;
    }
    Ok(())
}

/// Fills the materialized views that had rows, in the order in which they were made, because one may need another.
pub(super) fn refresh(
    connection: &mut Connection,
    plan: &Plan,
    (source, database): (&str, &str),
    settled: &mut Settled,
) -> Result<()> {
    let known = kinds(plan, source, database)?;
    let rows = connection.query(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'm' AND NOT c.relispopulated ORDER BY c.oid",
    )?;
    for row in &rows {
        let name = (text(row, 0), text(row, 1));
        if !known.get(&name).is_some_and(|(_, is_populated)| *is_populated) {
            continue;
        }
        let view = place_of(&name.0, &name.1);
        match connection.query(&format!("REFRESH MATERIALIZED VIEW {view}")) {
            Ok(_) => {}
            Err(error) if connection.was_refused() && !connection.lacks_room() => settled
                .differences
                .push(format!("the materialized view {view} could not be filled: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
