//! What a target is: a server that an archive is written back into. It knows nothing of Parquet or stores; rows come as
//! record batches, with the names that they are to have there.

pub mod influxdb;
pub mod journal;
mod mysql;
mod postgres;
pub mod registry;
mod relational;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::model::{Column, TableId};
use crate::window::Slice;

/// A table of the archive and its place in the target.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its name in the archive.
    pub from: TableId,
    /// Its name in the target.
    pub to: TableId,
    /// Every column that some chunk of it has.
    pub columns: Vec<Column>,
    /// The first instant that some chunk of it may have rows of, in nanoseconds.
    pub oldest: Option<i64>,
    /// The key of a field that has one type and a value in every row, so that counting its values counts the rows.
    pub full_field: Option<String>,
}

/// What is to be written.
#[derive(Debug, Default, Clone)]
pub struct Plan {
    /// The tables, each with its place.
    pub tables: Vec<Arc<Placed>>,
    /// What the archive has besides rows: the source and the name of the file, and its content.
    pub artifacts: BTreeMap<(String, String), Bytes>,
    /// What the user calls otherwise in the target.
    pub renames: Renames,
}

/// What the user calls otherwise in the target than it is called in the archive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Renames {
    /// The database that everything goes into.
    pub into: Option<String>,
    /// Each `OLD=NEW`, a database alone or with a policy or schema.
    pub maps: Vec<(Name, Name)>,
}

/// A database, or one of its policies or schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The database.
    pub database: String,
    /// The policy or the schema.
    pub schema: Option<String>,
}

impl Renames {
    /// Reads `OLD=NEW` of databases that the archive has: a database, `DATABASE/POLICY` or `DATABASE.SCHEMA`.
    pub fn parse(into: Option<String>, maps: &[String], databases: &[&str]) -> Result<Self> {
        let name = |text: &str| match text.split_once(['/', '.']) {
            _ if databases.contains(&text) => Name { database: text.to_owned(), schema: None },
            Some((database, schema)) if !database.is_empty() && !schema.is_empty() => {
                Name { database: database.to_owned(), schema: Some(schema.to_owned()) }
            }
            _ => Name { database: text.to_owned(), schema: None },
        };
        let mut parsed = Vec::new();
        for map in maps {
            let (old, new) = match map.split_once('=') {
                Some((old, new)) if !old.is_empty() && !new.is_empty() => (name(old), new),
                _ => return Err(Error::usage(format!("`--map {map}` is not OLD=NEW"))),
            };
            if !databases.contains(&old.database.as_str()) {
                return Err(Error::usage(format!(
                    "the archive has no database `{}`",
                    old.database
                ))
                .hint(format!("it has {}", databases.join(", "))));
            }
            let new = match old.schema {
                Some(_) => name(new),
                None => Name { database: new.to_owned(), schema: None },
            };
            parsed.push((old, new));
        }
        Ok(Self { into, maps: parsed })
    }

    /// What a database and a schema of the archive are called in the target. The map of a schema comes before that of its
    /// database.
    pub fn of(&self, database: &str, schema: &str) -> (String, String) {
        let fits = |wanted: Option<&str>| {
            let is_it = |name: &Name| name.database == database && name.schema.as_deref() == wanted;
            self.maps.iter().find(|(old, _)| is_it(old)).map(|(_, new)| new)
        };
        let new = fits(Some(schema)).or_else(|| fits(None));
        let named = new.map(|new| new.database.as_str()).unwrap_or(database);
        let schema = new.and_then(|new| new.schema.as_deref()).unwrap_or(schema);
        (self.into.as_deref().unwrap_or(named).to_owned(), schema.to_owned())
    }
}

/// What a target needs before rows can be written.
#[derive(Debug, Default, Clone)]
pub struct Needs {
    /// What would be made, a line each.
    pub create: Vec<String>,
    /// What the user should know before.
    pub notes: Vec<String>,
    /// Tables, by their names in the target, whose rows it makes by itself out of others.
    pub derived: BTreeSet<TableId>,
}

/// What a target itself has recorded of a restore.
#[derive(Debug, Default)]
pub struct Known {
    /// Tables of the plan that have rows.
    pub occupied: BTreeSet<TableId>,
    /// Tables whose rows are those of the restore that is recorded.
    pub begun: BTreeSet<TableId>,
    /// Each chunk that is there, by its name, and what became of it.
    pub chunks: HashMap<String, Written>,
    /// Whether all was done and compared, so that only the record has to go.
    pub is_done: bool,
}

/// What was made after the rows.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the user should know or do.
    pub notes: Vec<String>,
    /// What could not be made, a line each.
    pub differences: Vec<String>,
}

/// A chunk on its way.
#[derive(Debug, Clone)]
pub struct ChunkOut {
    /// What tells it from all others, also from another part of the same chunk: a hash, in hexadecimal.
    pub name: String,
    /// The table.
    pub table: Arc<Placed>,
    /// The part of it.
    pub slice: Slice,
    /// The columns of its batches.
    pub columns: Vec<Column>,
}

/// Rows that the target cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reject {
    /// The row: as a line where it was sent as one, otherwise its values by the names of their columns.
    pub row: String,
    /// Why the target does not hold it, in the server's words where it was the server that refused it.
    pub why: String,
}

/// What became of a chunk.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// Rows that the target has taken.
    pub rows: u64,
    /// Rows that it has not.
    pub rejected: u64,
}

/// A server that takes rows.
#[async_trait]
pub trait Target: Send + Sync {
    /// What it says of itself. The first request, so it fails with a clear error where the address or the credentials are
    /// wrong.
    async fn describe(&self) -> Result<String>;

    /// The name of a table in this target, where the archive or the user calls it `renamed`; `None` for a table of another
    /// kind of source.
    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId>;

    /// Finds out what rows need that is not there. Changes nothing. An error where the target cannot take the tables.
    async fn needs(&self, plan: &Plan) -> Result<Needs>;

    /// Makes what rows need.
    async fn create(&self, plan: &Plan) -> Result<()>;

    /// Writes the rows of a chunk, which are all of them once `reading` has ended well. To write them once more changes
    /// nothing. `rejects` takes the rows that the target cannot hold.
    async fn write(
        &self,
        chunk: &ChunkOut,
        rows: mpsc::Receiver<RecordBatch>,
        reading: JoinHandle<Result<()>>,
        rejects: mpsc::UnboundedSender<Reject>,
    ) -> Result<Written>;

    /// What the target itself records of the restore, in the transaction that writes the rows of a chunk, so that a chunk
    /// is there whole or not at all and may be tried again; `None` where it has no place for that.
    async fn known(&self, _plan: &Plan) -> Result<Option<Known>> {
        Ok(None)
    }

    /// Makes what waits for the rows, but is there before they are compared. What is there already is left as it is.
    async fn settle(&self, _plan: &Plan) -> Result<Settled> {
        Ok(Settled::default())
    }

    /// Lets the target learn what it needs for good plans, while its rows are counted. Returns what the user should know.
    async fn analyze(&self, _plan: &Plan) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The rows of a table; `None` where to count them would be too expensive.
    async fn count(&self, _table: &Placed) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Does what must come after all else. Returns what the user should know or do.
    async fn finish(&self, plan: &Plan) -> Result<Vec<String>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_schema_comes_before_that_of_its_database() {
        let maps = ["plant=works", "plant/week=short/days", "a.b=c"].map(str::to_owned);
        let renames = Renames::parse(None, &maps, &["plant", "a.b", "a"]).unwrap();
        let of = |database, schema| {
            let (database, schema) = renames.of(database, schema);
            format!("{database}/{schema}")
        };
        assert_eq!(of("plant", "autogen"), "works/autogen");
        assert_eq!(of("plant", "week"), "short/days");
        assert_eq!(of("a.b", "autogen"), "c/autogen");
        assert_eq!(of("other", "x"), "other/x");
        let all = Renames { into: Some("one".to_owned()), ..renames };
        assert_eq!(all.of("plant", "week"), ("one".to_owned(), "days".to_owned()));
        for wrong in ["plant", "plant=", "=x", "nobody=x"] {
            assert!(Renames::parse(None, &[wrong.to_owned()], &["plant"]).is_err(), "{wrong}");
        }
    }
}
