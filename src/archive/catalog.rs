//! PURE: the catalog: what a sealed archive says of its tables, its chunks and the runs that made
//! it, in JSON and Parquet that others can read.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize, Serializer};

use crate::archive::commit::Commit;
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
    /// The time that its chunks cover without a gap.
    pub covered: Vec<Window>,
    /// All columns of all chunks.
    pub columns: Vec<ColumnEntry>,
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
}

/// A column in `catalog/tables.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnEntry {
    /// Name in the Parquet files.
    pub name: String,
    /// Name in the source.
    pub key: String,
    /// What the source calls it.
    pub role: Role,
    /// Type in the source's own words.
    #[serde(rename = "type")]
    pub source_type: String,
}

/// The tables of a set of commits, sorted by name.
pub fn tables<C: Borrow<Commit>>(commits: &[C]) -> Vec<TableEntry> {
    by_table(commits).iter().map(|(id, commits)| table(id, commits)).collect()
}

/// `catalog/tables.json`. The entries are made one by one: all of them take more memory than their text.
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
    for commit in commits.iter().map(Borrow::borrow) {
        by_table.entry(commit.id()).or_default().push(commit);
    }
    by_table
}

fn table(id: &TableId, commits: &[&Commit]) -> TableEntry {
    let id = id.clone();
    let mut columns: Vec<ColumnEntry> = Vec::new();
    for column in commits.iter().flat_map(|commit| &commit.columns) {
        let entry = ColumnEntry {
            name: column.name.clone(),
            key: column.key.clone(),
            role: column.role,
            source_type: column.source_type.clone(),
        };
        if !columns.contains(&entry) {
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
        columns,
    }
}

fn list(name: &str, fields: Vec<Field>) -> Field {
    let item = Field::new_struct("item", Fields::from(fields), false);
    Field::new_list(name, item, false)
}

fn chunk_schema() -> Arc<Schema> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let maybe_text = |name: &str| Field::new(name, DataType::Utf8, true);
    let count = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        text("source"),
        text("database"),
        text("schema"),
        text("table"),
        text("path"),
        text("slice"),
        Field::new("from_nanos", DataType::Int64, true),
        Field::new("to_nanos", DataType::Int64, true),
        count("rows"),
        list("files", vec![text("key"), count("bytes"), text("sha256"), count("rows")]),
        list(
            "columns",
            vec![
                text("name"),
                text("key"),
                text("role"),
                text("type"),
                count("count"),
                maybe_text("min"),
                maybe_text("max"),
                maybe_text("sum"),
            ],
        ),
        text("run"),
        text("started"),
        count("elapsed_ms"),
        text("committed"),
        text("verified"),
        maybe_text("state"),
        maybe_text("snapshot"),
        Field::new_list("replaces", Field::new("item", DataType::Utf8, false), true),
    ]))
}

/// `catalog/chunks.parquet`: one row a commit.
pub fn write_chunks<C: Borrow<Commit>>(commits: &[C]) -> Result<Vec<u8>> {
    let failed =
        |error: &dyn std::fmt::Display| Error::stop(format!("writing the catalog: {error}"));
    let schema = chunk_schema();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))
        .map_err(|error| failed(&error))?;
    let mut decoder = ReaderBuilder::new(schema).build_decoder().map_err(|error| failed(&error))?;
    for commits in commits.chunks(1024) {
        let rows = commits.iter().map(Borrow::borrow).map(|commit: &Commit| {
            let mut row = serde_json::to_value(commit)?;
            if let Some(window) = commit.slice.window() {
                row["from_nanos"] = window.from.into();
                row["to_nanos"] = window.to.into();
            }
            Ok(row)
        });
        let rows: Vec<_> =
            rows.collect::<serde_json::Result<_>>().map_err(|error| failed(&error))?;
        decoder.serialize(&rows).map_err(|error| failed(&error))?;
        if let Some(batch) = decoder.flush().map_err(|error| failed(&error))? {
            writer.write(&batch).map_err(|error| failed(&error))?;
        }
    }
    writer.into_inner().map_err(|error| failed(&error))
}

/// How much memory the chunks of a catalog may take: some hundred thousand of them.
const MOST_BYTES: usize = 2 << 30;

/// Reads `catalog/chunks.parquet`; an error says what is wrong with it.
pub fn read_chunks(bytes: Bytes) -> std::result::Result<Vec<Commit>, String> {
    read_chunks_as(bytes, |commit| commit)
}

/// The same, where each commit is kept in some other way as soon as it is decoded.
pub fn read_chunks_as<C: Borrow<Commit>>(
    bytes: Bytes,
    keep: impl Fn(Commit) -> C,
) -> std::result::Result<Vec<C>, String> {
    // The decoder of pages panics at some bytes that are damaged.
    std::panic::catch_unwind(AssertUnwindSafe(|| decode_chunks(bytes, keep)))
        .unwrap_or_else(|_| Err("it cannot be decoded".to_owned()))
}

fn decode_chunks<C: Borrow<Commit>>(
    bytes: Bytes,
    keep: impl Fn(Commit) -> C,
) -> std::result::Result<Vec<C>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| text(&error))?;
    let mut commits: Vec<C> = Vec::new();
    let mut held_bytes = 0;
    for batch in reader {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
        writer.finish().map_err(|error| text(&error))?;
        for line in writer.into_inner().split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let mut row: serde_json::Value =
                serde_json::from_slice(line).map_err(|error| text(&error))?;
            let mut bound = |name: &str| row.as_object_mut()?.remove(name)?.as_i64();
            let bounds = (bound("from_nanos"), bound("to_nanos"));
            let commit: Commit = serde_json::from_value(row).map_err(|error| text(&error))?;
            // They are sorted, so the same chunk again stands beside the first. A megabyte of Parquet may
            // hold millions of them.
            let last = commits.last().map(Borrow::borrow);
            let again = |last: &Commit| last.slice == commit.slice && last.id() == commit.id();
            if last.is_some_and(again) {
                return Err(format!("it has {} {} twice", commit.id(), commit.slice));
            }
            held_bytes += commit.size_bytes();
            if held_bytes > MOST_BYTES {
                return Err(format!(
                    "its chunks take more than {} GiB of memory",
                    MOST_BYTES >> 30
                ));
            }
            let window = commit.slice.window();
            if bounds != (window.map(|window| window.from), window.map(|window| window.to)) {
                return Err(format!(
                    "`from_nanos` and `to_nanos` of {} {} are not the bounds of its slice",
                    commit.id(),
                    commit.slice
                ));
            }
            commits.push(keep(commit));
        }
    }
    Ok(commits)
}

/// Pretty JSON with a line end, for files that people read.
pub fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::stop(format!("writing JSON: {error}")))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::commit::FileRecord;
    use crate::column_stats::ColumnStats;
    use crate::window::Slice;

    #[test]
    fn commits_survive_the_catalog() {
        let commit = |slice: Slice, files: usize| Commit {
            source: "s".into(),
            database: "d".into(),
            schema: String::new(),
            table: "t \"\n".into(),
            path: "data/s/d/t".into(),
            slice,
            rows: 3,
            files: (0..files)
                .map(|n| FileRecord {
                    key: format!("data/{n}"),
                    bytes: 1 << 40,
                    sha256: "ab".into(),
                    rows: 3,
                })
                .collect(),
            columns: vec![ColumnStats {
                name: "time".into(),
                key: "time".into(),
                role: Role::Time,
                source_type: "time".into(),
                count: 3,
                min: Some(i64::MIN.to_string()),
                max: None,
                sum: None,
            }],
            run: "r".into(),
            started: "2024-01-01T00:00:00Z".into(),
            elapsed_ms: 5,
            committed: "2024-01-01T00:00:00Z".into(),
            verified: "hash".into(),
            state: (files == 0).then(|| "sha256:0".into()),
            snapshot: (files == 2).then(|| "7:9:".into()),
            replaces: (0..files / 2).map(|n| format!("r{n}")).collect(),
        };
        let commits = vec![
            commit(Slice::All, 0),
            commit(Slice::Window(Window { from: -5, to: 7 }), 2),
            commit(Slice::NullTime, 1),
        ];
        let bytes = write_chunks(&commits).unwrap();
        assert_eq!(read_chunks(bytes.into()).unwrap(), commits);
        assert_eq!(read_chunks(write_chunks::<Commit>(&[]).unwrap().into()).unwrap(), []);
    }
}
