//! The record of a restore, in the database that it writes into: a table of moveout. Each of its rows is written in the
//! transaction that it describes. The table is dropped when the restore is done. Blocks.

use std::collections::{BTreeSet, HashMap};

use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted};
use crate::target::Written;
use crate::target::relational::written;

/// The name of the table.
pub(super) const TABLE: &str = "moveout_restore";

/// What a row of the record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A table whose rows this restore has written.
    Table,
    /// A chunk that was written.
    Chunk,
    /// A chunk that is being written into a table without transactions. If it is interrupted, the table begins anew.
    Loose,
    /// Definitions whose tables were made.
    Script,
    /// A statement that was begun.
    Begun,
    /// A statement that has run.
    Ran,
}

impl Of {
    fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Chunk => "chunk",
            Self::Loose => "loose",
            Self::Script => "script",
            Self::Begun => "begun",
            Self::Ran => "ran",
        }
    }
}

/// The quoted name of the table.
pub(super) fn table(database: &str) -> String {
    format!("{}.{}", quoted(database), quoted(TABLE))
}

/// Makes the table unless it exists. Its names are compared byte by byte, because two tables may differ only in case.
pub(super) fn create(client: &mut Client, database: &str) -> Result<(), CommandError> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (kind VARCHAR(8) NOT NULL, place VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, \
         row_count BIGINT UNSIGNED NOT NULL, PRIMARY KEY (kind, place, name)) \
         ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        table(database)
    );
    client.query(&sql).map(drop)
}

/// The statement that adds a row. `place` is the name of a table, where there is one.
pub(super) fn add(database: &str, of: Of, place: &str, name: &str, rows: u64) -> String {
    format!(
        "INSERT INTO {} VALUES ('{}', {}, {}, {rows})",
        table(database),
        of.as_str(),
        literal(place),
        literal(name)
    )
}

/// The statement that removes a row.
pub(super) fn remove(database: &str, of: Of, place: &str, name: &str) -> String {
    format!(
        "DELETE FROM {} WHERE kind = '{}' AND place = {} AND name = {}",
        table(database),
        of.as_str(),
        literal(place),
        literal(name)
    )
}

/// What is recorded in a database.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The tables whose rows this restore has written.
    pub(super) tables: BTreeSet<String>,
    /// Each chunk that was written, with its table and the number of its rows.
    pub(super) chunks: HashMap<String, (String, u64)>,
    /// The tables that begin anew.
    pub(super) loose: BTreeSet<String>,
    /// The definitions whose tables were made.
    pub(super) scripts: BTreeSet<String>,
    /// The statements that were begun.
    pub(super) begun: BTreeSet<String>,
    /// The statements that have run.
    pub(super) ran: BTreeSet<String>,
}

/// Reads the whole record.
pub(super) fn read(client: &mut Client, database: &str) -> Result<Record, CommandError> {
    let sql = format!("SELECT kind, place, name, row_count FROM {}", table(database));
    let mut record = Record::default();
    for row in client.query(&sql)? {
        let Ok([Some(kind), Some(place), Some(name), Some(rows)]) = <[_; 4]>::try_from(row) else {
            continue;
        };
        match kind.as_str() {
            "table" => _ = record.tables.insert(place),
            "chunk" => _ = record.chunks.insert(name, (place, rows.parse().unwrap_or_default())),
            "loose" => _ = record.loose.insert(place),
            "script" => _ = record.scripts.insert(name),
            "begun" => _ = record.begun.insert(name),
            "ran" => _ = record.ran.insert(name),
            _ => {}
        }
    }
    Ok(record)
}

/// The result of a chunk, if it was written.
pub(super) fn chunk(
    client: &mut Client,
    database: &str,
    (place, name): (&str, &str),
) -> Result<Option<Written>, CommandError> {
    let sql = format!(
        "SELECT row_count FROM {} WHERE kind = 'chunk' AND place = {} AND name = {}",
        table(database),
        literal(place),
        literal(name)
    );
    let rows = client.value(&sql)?.and_then(|rows| rows.parse().ok());
    Ok(rows.map(written))
}

/// The statement that records the number of rows of a chunk.
pub(super) fn count(database: &str, (place, name): (&str, &str), rows: u64) -> String {
    format!(
        "UPDATE {} SET row_count = {rows} WHERE kind = 'chunk' AND place = {} AND name = {}",
        table(database),
        literal(place),
        literal(name)
    )
}

/// The statement that forgets everything that was written into a table.
pub(super) fn forget(database: &str, place: &str) -> String {
    format!(
        "DELETE FROM {} WHERE kind IN ('chunk', 'loose') AND place = {}",
        table(database),
        literal(place)
    )
}
