//! PURE: `catalog/chunks.parquet`, which holds the commits as a table that others can read. Version 1 of the format, in
//! which times are text, can be read as well.

use std::borrow::Borrow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchReader, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::archive::commit::Commit;
use crate::archive::pages::{self, Unfit};
use crate::error::{Error, Result};
use crate::window::{Slice, Window, parse_time, rfc3339};

fn list(name: &str, fields: Vec<Field>) -> Field {
    let element = Field::new_struct("element", Fields::from(fields), false);
    Field::new_list(name, element, false)
}

fn chunk_schema() -> Schema {
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let maybe_text = |name: &str| Field::new(name, DataType::Utf8, true);
    let count = |name: &str| Field::new(name, DataType::Int64, false);
    Schema::new(vec![
        text("source"),
        text("database"),
        text("schema"),
        text("table"),
        text("path"),
        text("slice"),
        Field::new("from", time(), true),
        Field::new("to", time(), true),
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
                maybe_text("parquet_type"),
                Field::new("nullable", DataType::Boolean, true),
                Field::new("primary_key", DataType::UInt16, true),
                count("count"),
                maybe_text("min"),
                maybe_text("max"),
                maybe_text("sum"),
            ],
        ),
        text("run"),
        Field::new("started", time(), false),
        count("elapsed_ms"),
        Field::new("committed", time(), false),
        text("verified"),
        maybe_text("state"),
        maybe_text("snapshot"),
        Field::new_list("replaces", Field::new("element", DataType::Utf8, false), true),
    ])
}

/// The same schema with times as numbers, because the rows are converted from and to JSON, which has no times.
fn without_times(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Timestamp(..) => Arc::new(field.as_ref().clone().with_data_type(DataType::Int64)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A batch with its columns in the types of a schema.
fn retyped(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> std::result::Result<RecordBatch, ArrowError> {
    let pairs = batch.columns().iter().zip(schema.fields());
    let columns = pairs.map(|(column, field)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<std::result::Result<_, _>>()?)
}

/// The numbers of a column; `None` for each row if there is no such column of numbers.
fn numbers_of(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    let column = batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    column.map_or_else(|| vec![None; batch.num_rows()], |column| column.iter().collect())
}

/// A batch with the columns that a commit has, in which times are text. In version 1 they are text already.
fn as_commits(batch: RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let (schema, columns, _) = batch.into_parts();
    let pairs = schema.fields().iter().zip(columns).filter(|(field, _)| {
        !["from_nanos", "to_nanos", "from", "to"].contains(&field.name().as_str())
    });
    let pairs = pairs.map(|(field, column)| match field.name().as_str() {
        "started" | "committed" => match column.as_primitive_opt::<Int64Type>() {
            Some(times) => {
                let texts = times.iter().map(|time| time.map(rfc3339));
                let field = field.as_ref().clone().with_data_type(DataType::Utf8);
                (Arc::new(field), Arc::new(texts.collect::<StringArray>()) as ArrayRef)
            }
            None => (Arc::clone(field), column),
        },
        _ => (Arc::clone(field), column),
    });
    let (fields, columns): (Vec<_>, Vec<_>) = pairs.unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// `catalog/chunks.parquet`: one row per commit of rows. The commits of dumps are in a file of their own.
pub fn write_chunks<C: Borrow<Commit>>(commits: &[C]) -> Result<Vec<u8>> {
    let of_rows =
        commits.iter().map(Borrow::borrow).filter(|commit: &&Commit| commit.dump.is_none());
    let commits: Vec<&Commit> = of_rows.collect();
    let failed =
        |error: &dyn std::fmt::Display| Error::stop(format!("writing the catalog: {error}"));
    let schema = Arc::new(chunk_schema());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))
        .map_err(|error| failed(&error))?;
    let numbers = without_times(&schema);
    let mut decoder =
        ReaderBuilder::new(numbers).build_decoder().map_err(|error| failed(&error))?;
    for commits in commits.chunks(1024) {
        let rows = commits.iter().map(|commit| {
            let mut row = serde_json::to_value(commit).map_err(|error| failed(&error))?;
            if let Some(window) = commit.slice.window() {
                row["from_nanos"] = window.from.into();
                row["to_nanos"] = window.to.into();
            }
            if let Slice::Window(window) = commit.slice {
                row["from"] = window.from.into();
                row["to"] = window.to.into();
            }
            for (name, text) in [("started", &commit.started), ("committed", &commit.committed)] {
                let time = parse_time(text).ok_or_else(|| {
                    failed(&format_args!("{} {}: `{name}` is no time", commit.id(), commit.slice))
                })?;
                row[name] = time.into();
            }
            Ok(row)
        });
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        decoder.serialize(&rows).map_err(|error| failed(&error))?;
        if let Some(batch) = decoder.flush().map_err(|error| failed(&error))? {
            let batch = retyped(&batch, &schema).map_err(|error| failed(&error))?;
            writer.write(&batch).map_err(|error| failed(&error))?;
        }
    }
    writer.into_inner().map_err(|error| failed(&error))
}

/// The memory that the chunks of a catalog may take, which suffices for some hundred thousand of them.
const MOST_BYTES: usize = 2 << 30;
/// The memory that one page of it may take, which is decoded as a whole. The largest that are written have a thousand
/// types of columns, each of which may be as long as an `enum` of MySQL.
const MOST_PAGE_BYTES: usize = 256 << 20;

/// Reads `catalog/chunks.parquet`. An error says what is wrong with the file.
pub fn read_chunks(bytes: Bytes) -> std::result::Result<Vec<Commit>, String> {
    read_chunks_as(bytes, |commit| commit)
}

/// The same, but each commit is converted as soon as it is decoded.
pub fn read_chunks_as<C: Borrow<Commit>>(
    bytes: Bytes,
    keep: impl Fn(Commit) -> C,
) -> std::result::Result<Vec<C>, String> {
    // The decoder of pages panics on some damaged bytes.
    std::panic::catch_unwind(AssertUnwindSafe(|| decode_chunks(bytes, keep, MOST_PAGE_BYTES)))
        .unwrap_or_else(|_| Err("it cannot be decoded".to_owned()))
}

fn decode_chunks<C: Borrow<Commit>>(
    bytes: Bytes,
    keep: impl Fn(Commit) -> C,
    most_page_bytes: usize,
) -> std::result::Result<Vec<C>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    pages::footer(&bytes).map_or(Ok(()), pages::footer_is_sound)?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| text(&error))?;
    for group in builder.metadata().row_groups() {
        let slice = |start: u64, length: u64| {
            let end = usize::try_from(start.checked_add(length)?).ok()?;
            bytes.get(usize::try_from(start).ok()?..end)
        };
        pages::fit(group, slice, 2 * most_page_bytes).map_err(|unfit| match unfit {
            Unfit::Broken(why) => why,
            Unfit::TooLarge(_) => "one of its pages takes too much memory".to_owned(),
        })?;
    }
    let reader = builder.build().map_err(|error| text(&error))?;
    let mut commits: Vec<C> = Vec::new();
    let mut held_bytes = 0;
    let numbers = without_times(&reader.schema());
    let is_version_1 = reader.schema().field_with_name("from").is_err();
    for batch in reader {
        let batch = batch.and_then(|batch| retyped(&batch, &numbers));
        let batch = batch.map_err(|error| text(&error))?;
        let [from_nanos, to_nanos, from, to] =
            ["from_nanos", "to_nanos", "from", "to"].map(|name| numbers_of(&batch, name));
        let mut writer = LineDelimitedWriter::new(Vec::new());
        let batch = as_commits(batch).map_err(|error| text(&error))?;
        writer.write(&batch).map_err(|error| text(&error))?;
        writer.finish().map_err(|error| text(&error))?;
        let lines = writer.into_inner();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        for (at, line) in lines.enumerate() {
            let bounds = (from_nanos[at], to_nanos[at]);
            let times = (from[at], to[at]);
            let commit: Commit = serde_json::from_slice(line).map_err(|error| text(&error))?;
            // The commits are sorted, so a duplicate follows directly. Duplicates compress so well that a megabyte of
            // Parquet may hold millions of them.
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
            let ends = |window: Option<Window>| (window.map(|w| w.from), window.map(|w| w.to));
            let window = match commit.slice {
                Slice::Window(window) if !is_version_1 => Some(window),
                _ => None,
            };
            for (names, found, expected) in [
                ("`from_nanos` and `to_nanos`", bounds, ends(commit.slice.window())),
                ("`from` and `to`", times, ends(window)),
            ] {
                if found != expected {
                    return Err(format!(
                        "{names} of {} {} are not the bounds of its slice",
                        commit.id(),
                        commit.slice
                    ));
                }
            }
            commits.push(keep(commit));
        }
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::commit::FileRecord;
    use crate::column_stats::ColumnStats;
    use crate::model::Role;

    #[test]
    fn commits_survive_the_catalog() {
        let commit = |slice: Slice, files: usize| Commit {
            common: crate::archive::commit::Common {
                source: "s".into(),
                database: "d".into(),
                schema: String::new(),
                table: "t \"\n".into(),
                path: "data/s/d/t".into(),
                run: "r".into(),
                verified: "hash".into(),
                state: (files == 0).then(|| "sha256:0".into()),
            }
            .shared(),
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
                column: std::sync::Arc::new(crate::column_stats::ColumnInfo {
                    name: "time".into(),
                    key: "time".into(),
                    role: Role::Time,
                    source_type: "time".into(),
                    parquet_type: (files > 0).then(|| "INT64".to_owned().into()),
                    nullable: (files > 0).then_some(files > 1),
                    key_part: (files > 1).then_some(1),
                }),
                count: 3,
                min: Some(i64::MIN.to_string().into()),
                max: None,
                sum: None,
            }],
            started: "2024-01-01T00:00:00Z".into(),
            elapsed_ms: 5,
            committed: "2024-01-01T00:00:00Z".into(),
            snapshot: (files == 2).then(|| "7:9:".into()),
            replaces: (0..files / 2).map(|n| format!("r{n}")).collect(),
            dump: None,
        };
        let commits = vec![
            commit(Slice::All, 0),
            commit(Slice::Window(Window { from: -5, to: 7 }), 2),
            commit(Slice::NullTime, 1),
        ];
        let bytes = write_chunks(&commits).unwrap();
        assert_eq!(read_chunks(bytes.into()).unwrap(), commits);
        assert_eq!(read_chunks(write_chunks::<Commit>(&[]).unwrap().into()).unwrap(), []);
        // A few kilobytes of catalog may claim pages of gigabytes.
        let bytes = write_chunks(&commits).unwrap();
        let refused = decode_chunks(bytes.into(), |commit| commit, 8).unwrap_err();
        assert_eq!(refused, "one of its pages takes too much memory");
    }
}
