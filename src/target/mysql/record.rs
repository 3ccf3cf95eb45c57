//! What a restore records in the database that it writes: a table of ours, whose rows are written in the transactions that
//! they speak of. It goes when the restore is done. Blocks.

use std::collections::{BTreeSet, HashMap};

use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted};
use crate::target::Written;

/// The name of the table.
pub(super) const TABLE: &str = "moveout_restore";

/// What a row of it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A table whose rows are the restore's.
    Table,
    /// A chunk that is there.
    Chunk,
    /// A chunk on its way into a table that cannot undo what was written: if it does not arrive, the table begins anew.
    Loose,
    /// Definitions whose tables are there.
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

/// The table within a statement.
pub(super) fn table(database: &str) -> String {
    format!("{}.{}", quoted(database), quoted(TABLE))
}

/// Makes the table if it is not there. Names are told apart byte by byte: two tables may differ by case alone.
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
    /// Tables whose rows are the restore's.
    pub(super) tables: BTreeSet<String>,
    /// Each chunk that is there, with its table and its rows.
    pub(super) chunks: HashMap<String, (String, u64)>,
    /// Tables that begin anew.
    pub(super) loose: BTreeSet<String>,
    /// Definitions whose tables are there.
    pub(super) scripts: BTreeSet<String>,
    /// Statements that were begun.
    pub(super) begun: BTreeSet<String>,
    /// Statements that have run.
    pub(super) ran: BTreeSet<String>,
}

/// Reads it all.
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

/// What became of a chunk that is there.
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

/// The statement that says how many rows a chunk has.
pub(super) fn count(database: &str, (place, name): (&str, &str), rows: u64) -> String {
    format!(
        "UPDATE {} SET row_count = {rows} WHERE kind = 'chunk' AND place = {} AND name = {}",
        table(database),
        literal(place),
        literal(name)
    )
}

/// The statement that forgets all that was written into a table.
pub(super) fn forget(database: &str, place: &str) -> String {
    format!(
        "DELETE FROM {} WHERE kind IN ('chunk', 'loose') AND place = {}",
        table(database),
        literal(place)
    )
}

/// No row of a chunk is rejected: it is there whole or not at all.
pub(super) fn written(rows: u64) -> Written {
    Written { rows, rejected: 0 }
}
