//! PURE: the catalog of the tables of a sealed archive, in JSON that others can read.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::archive::commit::Commit;
use crate::column_stats::{ColumnStats, ParquetType};
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::model::{Role, TableId};
use crate::window::Window;

/// A table in `catalog/tables.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its source …
    pub source: String,
    /// … database …
    pub database: String,
    /// … schema or retention policy …
    pub schema: String,
    /// … and name.
    pub table: String,
    /// Its folder.
    pub path: String,
    /// Rows of all chunks.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
    /// The windows that its chunks cover without a gap.
    pub covered: Vec<Window>,
    /// All columns of all chunks.
    pub columns: Vec<ColumnEntry>,
    /// The names of the columns of the primary key, in its order; empty if the source does not name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
}

impl TableEntry {
    /// The full name of the table.
    pub fn id(&self) -> TableId {
        TableId {
            source: self.source.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            table: self.table.clone(),
        }
    }

    /// The same entry in version 1 of the format.
    pub fn of_version_1(mut self) -> Self {
        self.primary_key.clear();
        for column in &mut self.columns {
            (column.parquet_type, column.nullable) = (None, None);
        }
        self
    }
}

/// A column in `catalog/tables.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnEntry {
    /// Name in the Parquet files.
    pub name: String,
    /// Name in the source.
    pub key: String,
    /// The role of the column in its source.
    pub role: Role,
    /// Type in the source's own words.
    #[serde(rename = "type")]
    pub source_type: String,
    /// Type in the Parquet files, if the commits record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet_type: Option<ParquetType>,
    /// Whether it may be null, if the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
}

impl ColumnEntry {
    fn of(column: &ColumnStats) -> Self {
        Self {
            name: column.name.clone(),
            key: column.key.clone(),
            role: column.role,
            source_type: column.source_type.clone(),
            parquet_type: column.parquet_type.clone(),
            nullable: match column.role {
                Role::Time => Some(false),
                Role::Tag | Role::Field => Some(true),
                Role::Column => column.nullable,
            },
        }
    }

    /// Merges the entry of another chunk, if it is the same column there.
    fn takes(&mut self, other: &Self) -> bool {
        let alike = |one: &Self, other: &Self| {
            (&one.name, &one.key, one.role, &one.source_type)
                == (&other.name, &other.key, other.role, &other.source_type)
        };
        // A chunk of version 1 does not record the Parquet type.
        let differ = self.parquet_type.is_some()
            && other.parquet_type.is_some()
            && self.parquet_type != other.parquet_type;
        if !alike(self, other) || differ {
            return false;
        }
        self.parquet_type = self.parquet_type.take().or_else(|| other.parquet_type.clone());
        self.nullable = match (self.nullable, other.nullable) {
            (Some(one), Some(other)) => Some(one || other),
            (one, other) => one.or(other),
        };
        true
    }
}

/// The tables of a set of commits, sorted by name.
pub fn tables<C: Borrow<Commit>>(commits: &[C]) -> Vec<TableEntry> {
    by_table(commits).iter().map(|(id, commits)| table(id, commits)).collect()
}

/// `catalog/tables.json`. The entries are made one by one, since all of them together take more memory than their text.
pub fn write_tables<C: Borrow<Commit>>(commits: &[C]) -> Result<Vec<u8>> {
    struct Tables<'a>(BTreeMap<TableId, Vec<&'a Commit>>);
    impl Serialize for Tables<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
            to.collect_seq(self.0.iter().map(|(id, commits)| table(id, commits)))
        }
    }
    to_json(&Tables(by_table(commits)))
}

fn by_table<C: Borrow<Commit>>(commits: &[C]) -> BTreeMap<TableId, Vec<&Commit>> {
    let mut by_table = BTreeMap::<TableId, Vec<&Commit>>::new();
    for commit in commits.iter().map(Borrow::borrow).filter(|commit| commit.dump.is_none()) {
        by_table.entry(commit.id()).or_default().push(commit);
    }
    by_table
}

fn table(id: &TableId, commits: &[&Commit]) -> TableEntry {
    let id = id.clone();
    let mut columns: Vec<ColumnEntry> = Vec::new();
    for column in commits.iter().flat_map(|commit| &commit.columns) {
        let entry = ColumnEntry::of(column);
        if !columns.iter_mut().any(|known| known.takes(&entry)) {
            columns.push(entry);
        }
    }
    let coverage: Coverage = commits.iter().filter_map(|commit| commit.slice.window()).collect();
    let files = || commits.iter().flat_map(|commit| &commit.files);
    TableEntry {
        source: id.source,
        database: id.database,
        schema: id.schema,
        table: id.table,
        path: commits.first().map(|commit| commit.path.clone()).unwrap_or_default(),
        rows: commits.iter().map(|commit| commit.rows).sum(),
        bytes: files().map(|file| file.bytes).sum(),
        files: files().count() as u64,
        covered: coverage.windows().to_vec(),
        primary_key: primary_key(commits, &columns),
        columns,
    }
}

/// The key of points is their time and all of their tags. The key of other tables is the latest that the source reported.
fn primary_key(commits: &[&Commit], columns: &[ColumnEntry]) -> Vec<String> {
    if columns.iter().any(|column| column.role == Role::Time) {
        let parts = columns.iter().filter(|c| matches!(c.role, Role::Time | Role::Tag));
        return parts.map(|column| column.name.clone()).collect();
    }
    let last = commits.iter().max_by_key(|commit| commit.order());
    let parts = last.into_iter().flat_map(|commit| &commit.columns);
    let mut parts: Vec<_> =
        parts.filter_map(|column| Some((column.key_part?, &column.name))).collect();
    parts.sort_unstable();
    parts.into_iter().map(|(_, name)| name.clone()).collect()
}

/// Indented JSON with a final line break, for files that people read.
pub fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::stop(format!("writing JSON: {error}")))?;
    json.push(b'\n');
    Ok(json)
}
