//! A target is a server that an archive is written back into. It knows nothing of Parquet or stores: rows come as record
//! batches, with the names that they shall have there.

pub mod influxdb;
pub mod journal;
pub(crate) mod mysql;
pub(crate) mod postgres;
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
    /// The rows that are restored.
    pub rows: u64,
    /// The first instant of its first chunk, in nanoseconds.
    pub oldest: Option<i64>,
    /// The first instant after its last chunk.
    pub newest: Option<i64>,
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
    /// What has another name in the target.
    pub renames: Renames,
}

/// What has another name in the target than in the archive, as the user wants it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Renames {
    /// The database that everything goes into.
    pub into: Option<String>,
    /// Each `OLD=NEW`, which are databases alone or with a policy or schema.
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

    /// The names of a database and a schema of the archive in the target. The map of a schema takes precedence over that of
    /// its database.
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
    /// Tables whose rows the target makes by itself out of others, by their names there.
    pub derived: BTreeSet<TableId>,
}

/// What a target itself has recorded of a restore.
#[derive(Debug, Default)]
pub struct Known {
    /// Tables of the plan that have rows.
    pub occupied: BTreeSet<TableId>,
    /// Tables whose rows are those of the restore that is recorded.
    pub begun: BTreeSet<TableId>,
    /// What became of each chunk that is there, by its name.
    pub chunks: HashMap<String, Written>,
    /// Whether everything was done and compared, so that only the record has to be removed.
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

/// A chunk that is being written.
#[derive(Debug, Clone)]
pub struct ChunkOut {
    /// What tells it from all others, and from another part of the same chunk: a hash in hexadecimal.
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
    /// The row, as a line if it was sent as one, or else its values by the names of their columns.
    pub row: String,
    /// Why the target does not hold it, in the server's words if the server refused it.
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
    /// What it says of itself. This is the first request, so that it fails with a clear error if the address or the
    /// credentials are wrong.
    async fn describe(&self) -> Result<String>;

    /// The name in this target of a table that the archive or the user calls `renamed`; `None` for a table of another kind
    /// of source.
    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId>;

    /// Finds out what rows need that is not there, and changes nothing. It is an error if the target cannot take the tables.
    async fn needs(&self, plan: &Plan) -> Result<Needs>;

    /// Makes what rows need and what is not there.
    async fn create(&self, plan: &Plan) -> Result<()>;

    /// Writes the rows of a chunk. They are complete if `reading` ends without an error. Writing them once more changes
    /// nothing. `rejects` takes the rows that the target cannot hold.
    async fn write(
        &self,
        chunk: &ChunkOut,
        rows: mpsc::Receiver<RecordBatch>,
        reading: JoinHandle<Result<()>>,
        rejects: mpsc::UnboundedSender<Reject>,
    ) -> Result<Written>;

    /// What the target itself records of the restore. It does so in the transaction that writes the rows of a chunk, so that
    /// a chunk is there whole or not at all, and may be tried again. `None` if the target has no place for that.
    async fn known(&self, _plan: &Plan) -> Result<Option<Known>> {
        Ok(None)
    }

    /// Makes what comes after the rows and before they are compared. What is there already stays as it is.
    async fn settle(&self, _plan: &Plan) -> Result<Settled> {
        Ok(Settled::default())
    }

    /// Lets the target learn what it needs for good plans, while its rows are counted. Returns what the user should know.
    async fn analyze(&self, _plan: &Plan) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The rows of a table; `None` if counting them would be too expensive.
    async fn count(&self, _table: &Placed) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Does what must come last. Returns what the user should know or do.
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
