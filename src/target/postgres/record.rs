//! The record of a restore, in the database that it writes into: a schema of moveout with one table. Each of its rows
//! is written in the transaction that it describes. The schema is dropped when the restore is done. Blocks.

use std::collections::HashMap;

use super::names::literal;
use crate::error::Result;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::Connection;
use crate::target::Written;
use crate::target::relational::written;

/// The name of the schema.
pub(super) const SCHEMA: &str = "moveout_restore";

/// What a row of the record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A table whose rows this restore has written.
    Table,
    /// A chunk that was written.
    Chunk,
    /// A script whose statements that come before the rows have run.
    Script,
    /// A statement that could not run before the rows and is tried again after them.
    Waits,
    /// A statement that has run after the rows.
    Ran,
    /// The whole restore of all databases.
    Done,
}

impl Of {
    fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Chunk => "chunk",
            Self::Script => "script",
            Self::Waits => "waits",
            Self::Ran => "ran",
            Self::Done => "done",
        }
    }
}

/// Makes the record unless it exists.
pub(super) fn create(connection: &mut Connection) -> Result<()> {
    let sql = format!(
        "CREATE SCHEMA IF NOT EXISTS {SCHEMA}; CREATE TABLE IF NOT EXISTS {SCHEMA}.record (of text NOT NULL, \
         name text NOT NULL, rows bigint NOT NULL, PRIMARY KEY (of, name))"
    );
    connection.query(&sql).map(|_| ())
}

/// Whether the record exists.
pub(super) fn exists(connection: &mut Connection) -> Result<bool> {
    let rows = connection.query(&format!(
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{SCHEMA}' AND c.relname = 'record'"
    ))?;
    Ok(!rows.is_empty())
}

/// The statement that adds a row.
pub(super) fn add(of: Of, name: &str, rows: u64) -> String {
    format!("INSERT INTO {SCHEMA}.record VALUES ('{}', {}, {rows})", of.as_str(), literal(name))
}

/// All rows of one kind.
pub(super) fn all(connection: &mut Connection, of: Of) -> Result<HashMap<String, u64>> {
    let rows = connection
        .query(&format!("SELECT name, rows FROM {SCHEMA}.record WHERE of = '{}'", of.as_str()))?;
    Ok(rows.iter().map(|row| (text(row, 0), text(row, 1).parse().unwrap_or_default())).collect())
}

/// The result of a chunk, if it was written.
pub(super) fn chunk(connection: &mut Connection, name: &str) -> Result<Option<Written>> {
    let rows = connection.query(&format!(
        "SELECT rows FROM {SCHEMA}.record WHERE of = 'chunk' AND name = {}",
        literal(name)
    ))?;
    Ok(rows.first().map(|row| written(text(row, 0).parse().unwrap_or_default())))
}

/// Records that the whole restore is done, if there is a record. Returns whether there is one.
pub(super) fn end(connection: &mut Connection) -> Result<bool> {
    let is_there = exists(connection)?;
    if is_there {
        connection.query(&format!("{} ON CONFLICT DO NOTHING", add(Of::Done, "", 0)))?;
    }
    Ok(is_there)
}

/// The statement that drops the record.
pub(super) fn remove() -> String {
    format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
}
