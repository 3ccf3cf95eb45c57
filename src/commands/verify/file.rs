//! One chunk's files, decoded to the last page and compared with what its commit says of them: rows,
//! columns, statistics, names in the metadata.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, TimeUnit};
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};

use crate::archive::commit::{Commit, FileRecord};
use crate::column_stats::Stats;
use crate::commands::verify::pages;
use crate::encode::{TimeOrder, type_name};
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::model::{Column, Role};
use crate::store::{Store, hash_object};

/// What came of the files of a chunk.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) unchecked: Vec<Fault>,
}

/// What is wrong with a file: its key and the fault.
pub(super) type Fault = (String, String);

/// What keeps a file from being decoded to its end.
enum Broken {
    /// It is not what the commit says.
    Fault(String),
    /// It would take more memory than there is.
    TooLarge(String),
}

/// What is wrong with the bytes of a file, whose size the store says.
pub(super) async fn check_bytes(
    store: &Store,
    file: &FileRecord,
    size: Option<u64>,
    quick: bool,
) -> Result<Option<String>> {
    Ok(match size {
        None => Some("it is missing".to_owned()),
        Some(size) if size != file.bytes => {
            Some(format!("it has {size} bytes, the catalog says {}", file.bytes))
        }
        Some(_) if quick => None,
        Some(_) => match hash_object(store, &file.key).await? {
            Some((hash, _)) if hash == file.sha256 => None,
            _ => Some("its bytes are not those that the catalog records".to_owned()),
        },
    })
}

/// Decodes all files of a chunk within a share of the memory, in bytes. `Err` is for a store that cannot be
/// read.
pub(super) async fn check_chunk(
    store: &Store,
    commit: &Commit,
    share: usize,
    checked: &mut Checked,
) -> Result<()> {
    let mut stats: Option<Stats> = None;
    for file in &commit.files {
        let mut gather = |columns: &[Column], batch: &RecordBatch| {
            stats.get_or_insert_with(|| Stats::new(columns)).add(batch);
        };
        match decode(store, commit, file, share, &mut gather).await? {
            Ok(rows) => checked.rows += rows,
            Err(Broken::Fault(fault)) => checked.faults.push((file.key.clone(), fault)),
            Err(Broken::TooLarge(why)) => checked.unchecked.push((file.key.clone(), why)),
        }
    }
    if !checked.faults.is_empty() || !checked.unchecked.is_empty() {
        return Ok(());
    }
    let (rows, faults) = (checked.rows, &mut checked.faults);
    let place = || match commit.files.first() {
        Some(file) => file.key.clone(),
        None => format!("{} {}", commit.path, commit.slice),
    };
    if rows != commit.rows {
        faults
            .push((place(), format!("{rows} rows, its chunk has {} in the catalog", commit.rows)));
    }
    if let Some(stats) = stats {
        for (found, recorded) in stats.finish().into_iter().zip(&commit.columns) {
            // What a column is was compared with each file.
            if found.clone().values_alone() != recorded.clone().values_alone() {
                faults.push((
                    place(),
                    format!(
                        "column `{}` has {} values, min {}, max {}, sum {}; the catalog says {}, {}, {}, {}",
                        found.name,
                        found.count,
                        shown(&found.min),
                        shown(&found.max),
                        shown(&found.sum),
                        recorded.count,
                        shown(&recorded.min),
                        shown(&recorded.max),
                        shown(&recorded.sum),
                    ),
                ));
            }
        }
    }
    if let Some(outside) = time_outside(commit) {
        faults.push((place(), outside));
    }
    Ok(())
}

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("none")
}

fn time_outside(commit: &Commit) -> Option<String> {
    let time = commit.columns.iter().find(|column| column.role == Role::Time)?;
    let window = commit.slice.window()?;
    // InfluxDB 3 takes the very last nanosecond, after which no window can end.
    let last = |time: i64| time == i64::MAX && window.to == i64::MAX;
    let within = |time: i64| window.contains(time) || last(time);
    let inside =
        |text: &Option<String>| text.as_ref().is_none_or(|text| text.parse().is_ok_and(within));
    (!inside(&time.min) || !inside(&time.max))
        .then(|| "it has rows outside of its window".to_owned())
}

/// The fingerprint of the rows of a chunk, as its files have them; or what keeps one of them from being decoded.
pub(super) async fn fingerprint(
    store: &Store,
    commit: &Commit,
    share: usize,
) -> Result<std::result::Result<Fingerprint, Fault>> {
    let (mut fingerprint, mut unknown) = (Fingerprint::default(), None);
    for file in &commit.files {
        let mut gather = |columns: &[Column], batch: &RecordBatch| {
            if let Err(error) = fingerprint.add(columns, batch) {
                unknown.get_or_insert(error.to_string());
            }
        };
        if let Err(Broken::Fault(why) | Broken::TooLarge(why)) =
            decode(store, commit, file, share, &mut gather).await?
        {
            return Ok(Err((file.key.clone(), why)));
        }
        if let Some(why) = unknown {
            return Ok(Err((file.key.clone(), why)));
        }
    }
    Ok(Ok(fingerprint))
}

/// The rows of one file, batch by batch. Returns how many they are.
async fn decode(
    store: &Store,
    commit: &Commit,
    file: &FileRecord,
    share: usize,
    gather: &mut (dyn FnMut(&[Column], &RecordBatch) + Send),
) -> Result<std::result::Result<u64, Broken>> {
    let fault = |fault: String| Ok(Err(Broken::Fault(fault)));
    let metadata = match metadata(store, file).await? {
        Ok(metadata) => metadata,
        Err(broken) => return fault(broken),
    };
    if let Some(foreign) = foreign(&metadata, commit) {
        return fault(foreign);
    }
    if let Err(why) = pages::fits(&metadata, share) {
        return Ok(Err(Broken::TooLarge(why)));
    }
    let metadata = Arc::new(metadata);
    let built = ParquetPushDecoderBuilder::try_new_decoder(Arc::clone(&metadata));
    let built = built.and_then(|builder| {
        let schema = Arc::clone(builder.schema());
        let batch_rows = pages::batch_rows(&metadata);
        builder.with_batch_size(batch_rows).build().map(|decoder| (schema, decoder))
    });
    let undecodable = |error: &dyn std::fmt::Display| format!("it cannot be decoded: {error}");
    let (schema, mut decoder) = match built {
        Ok(built) => built,
        Err(error) => return fault(undecodable(&error)),
    };
    let columns = columns_of(&schema);
    if let Some(other) = other_columns(&columns, commit).or_else(|| other_types(&metadata, commit))
    {
        return fault(other);
    }
    let sorted_by = match sorted_by(&metadata) {
        Ok(sorted_by) => sorted_by.filter(|column| *column < columns.len()),
        Err(other) => return fault(other),
    };
    gather(&columns, &RecordBatch::new_empty(schema));
    let (mut rows, mut order) = (0, TimeOrder::default());
    loop {
        match decoder.try_decode() {
            Ok(DecodeResult::NeedsData(ranges)) => {
                let data = fetch(store, file, &ranges).await?;
                if let Err(why) = pages::fit(&metadata, &ranges, &data, share) {
                    return Ok(Err(Broken::TooLarge(why)));
                }
                if let Err(error) = decoder.push_ranges(ranges, data) {
                    return fault(undecodable(&error));
                }
            }
            Ok(DecodeResult::Data(batch)) => {
                rows += batch.num_rows() as u64;
                gather(&columns, &batch);
                if let Some(column) = sorted_by {
                    order.see(batch.column(column));
                }
            }
            Ok(DecodeResult::Finished) => break,
            Err(error) => return fault(undecodable(&error)),
        }
    }
    if !order.holds() {
        return fault("its rows are not in the order that it claims".to_owned());
    }
    if rows == file.rows {
        Ok(Ok(rows))
    } else {
        fault(format!("{rows} rows, the catalog says {}", file.rows))
    }
}

async fn metadata(
    store: &Store,
    file: &FileRecord,
) -> Result<std::result::Result<ParquetMetaData, String>> {
    let broken =
        |error: parquet::errors::ParquetError| Ok(Err(format!("its footer is broken: {error}")));
    let mut decoder = match ParquetMetaDataPushDecoder::try_new(file.bytes) {
        Ok(decoder) => decoder,
        Err(error) => return broken(error),
    };
    loop {
        match decoder.try_decode() {
            Ok(DecodeResult::NeedsData(ranges)) => {
                let data = fetch(store, file, &ranges).await?;
                if let Err(error) = decoder.push_ranges(ranges, data) {
                    return broken(error);
                }
            }
            Ok(DecodeResult::Data(metadata)) => return Ok(Ok(metadata)),
            Ok(DecodeResult::Finished) => return Ok(Err("its footer is missing".to_owned())),
            Err(error) => return broken(error),
        }
    }
}

async fn fetch(store: &Store, file: &FileRecord, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let mut data = Vec::with_capacity(ranges.len());
    for range in ranges {
        data.push(store.range(&file.key, range.clone()).await?);
    }
    Ok(data)
}

// A file explains itself; one that was swapped for another explains that.
fn foreign(metadata: &ParquetMetaData, commit: &Commit) -> Option<String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let found =
        |key: &str| entries.into_iter().flatten().find(|entry| entry.key == key)?.value.as_deref();
    // As version 1 has it, or as it is now.
    let long_name = commit.slice.long_name();
    let is_long = found("moveout.slice") == Some(long_name.as_str());
    let slice = if is_long { long_name } else { commit.slice.to_string() };
    let expected = [
        ("moveout.source", &commit.source),
        ("moveout.database", &commit.database),
        ("moveout.schema", &commit.schema),
        ("moveout.table", &commit.table),
        ("moveout.slice", &slice),
        ("moveout.run", &commit.run),
    ];
    expected.into_iter().find(|(key, value)| found(key) != Some(value.as_str())).map(
        |(key, value)| {
            format!(
                "its metadata says {key} is `{}`, the catalog says `{value}`",
                found(key).unwrap_or_default()
            )
        },
    )
}

/// The column by which a file claims that its rows are sorted: in one way in all of its row groups.
fn sorted_by(metadata: &ParquetMetaData) -> std::result::Result<Option<usize>, String> {
    let mut claims = metadata.row_groups().iter().map(|group| group.sorting_columns());
    let Some(Some(first)) = claims.next() else {
        return match claims.flatten().next() {
            None => Ok(None),
            Some(_) => Err("some of its row groups claim an order, others do not".to_owned()),
        };
    };
    let [only] = &first[..] else { return Err("it claims an order of several columns".to_owned()) };
    let schema = metadata.file_metadata().schema_descr();
    let leaf = usize::try_from(only.column_idx).ok().filter(|leaf| *leaf < schema.num_columns());
    match leaf.filter(|_| !only.descending && claims.all(|other| other == Some(first))) {
        Some(leaf) => Ok(Some(schema.get_column_root_idx(leaf))),
        None => Err("it claims an order that is not one of time".to_owned()),
    }
}

/// What the catalog says of the types of columns; archives of version 1 say nothing.
fn other_types(metadata: &ParquetMetaData, commit: &Commit) -> Option<String> {
    let fields = metadata.file_metadata().schema_descr().root_schema().get_fields();
    let pairs = fields.iter().zip(&commit.columns);
    let mut others = pairs.filter_map(|(found, column)| {
        let (recorded, found) = (column.parquet_type.as_ref()?.to_string(), type_name(found));
        let name = column.name.escape_debug();
        (recorded != found)
            .then(|| format!("its column `{name}` is {found}, the catalog says {recorded}"))
    });
    others.next()
}

fn columns_of(schema: &Schema) -> Vec<Column> {
    let columns = schema.fields().iter().map(|field| {
        let text = |key: &str| field.metadata().get(key).cloned().unwrap_or_default();
        let role = match text("moveout.role").as_str() {
            "time" => Role::Time,
            "tag" => Role::Tag,
            "field" => Role::Field,
            _ => Role::Column,
        };
        let (key, kind) = (text("moveout.key"), text("moveout.type"));
        Column::new(field.name(), key, role, kind, field.data_type().clone())
    });
    columns.collect()
}

fn other_columns(columns: &[Column], commit: &Commit) -> Option<String> {
    let same = columns.len() == commit.columns.len()
        && columns.iter().zip(&commit.columns).all(|(found, recorded)| {
            (&found.name, &found.key, found.role, &found.source_type)
                == (&recorded.name, &recorded.key, recorded.role, &recorded.source_type)
        });
    let timed = columns.iter().filter(|column| column.role == Role::Time).all(|column| {
        matches!(&column.data_type, arrow::datatypes::DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if &**zone == "UTC")
    });
    (!same || !timed).then(|| "its columns are not those in the catalog".to_owned())
}
