//! SYNC: decodes a Parquet file row group by row group. Its memory is limited to a share: a file that would take more is
//! reported before the memory is taken.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, TimeUnit};
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use parquet::file::reader::{ChunkReader, Length};

use crate::archive::commit::{Commit, FileRecord};
use crate::archive::pages::{self, Unfit};
use crate::column_stats::{Gathered, Stats};
use crate::encode::{Cores, TimeOrder, type_name};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::model::{Column, Role};
use crate::store::reading::Reading;

/// The compressed size of a row group from which on several threads decode it, column by column.
const WORTH_THREADS: u64 = 256 << 10;

/// Why a file could not be decoded to its end.
pub(crate) enum Broken {
    /// It is not the file that the commit describes.
    Fault(String),
    /// It would take more memory than is allowed.
    TooLarge(String),
    /// The store cannot be read.
    Unread(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Unread(error)
    }
}

impl From<ParquetError> for Broken {
    fn from(error: ParquetError) -> Self {
        Self::Fault(format!("it cannot be decoded: {error}"))
    }
}

impl From<Unfit> for Broken {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Broken(why) => Self::Fault(format!("it cannot be decoded: {why}")),
            Unfit::TooLarge(why) => Self::TooLarge(why),
        }
    }
}

type Result<T> = std::result::Result<T, Broken>;

/// The bytes of a file. A small file is in memory, and a large one is read as needed.
pub(crate) enum Content {
    Whole(Bytes),
    Parts(Reading),
}

impl Content {
    fn range(&self, range: Range<u64>) -> Result<Bytes> {
        match self {
            Self::Parts(reading) => Ok(reading.range(range)?),
            Self::Whole(bytes) => {
                let within = range.start <= range.end && range.end <= bytes.len() as u64;
                let what = || Broken::Fault("it ends before what its footer names".to_owned());
                // Positions in memory fit into a `usize`.
                let slice = within.then(|| bytes.slice(range.start as usize..range.end as usize));
                slice.ok_or_else(what)
            }
        }
    }
}

/// A file whose footer was read and matches its commit.
pub(crate) struct Decoder<'a> {
    content: Content,
    file: &'a FileRecord,
    metadata: ArrowReaderMetadata,
    /// Its columns.
    pub(super) columns: Vec<Column>,
    sorted_by: Option<usize>,
    order: TimeOrder,
    batch_rows: usize,
    share: usize,
}

impl<'a> Decoder<'a> {
    /// Reads the footer, and compares it with the commit.
    pub(crate) fn open(
        content: Content,
        commit: &Commit,
        file: &'a FileRecord,
        share: usize,
    ) -> Result<Self> {
        let metadata = metadata(&content, file)?;
        if let Some(foreign) = foreign(&metadata, commit) {
            return Err(Broken::Fault(foreign));
        }
        pages::fits(&metadata, share).map_err(Broken::TooLarge)?;
        let batch_rows = pages::batch_rows(&metadata);
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
        let columns = columns_of(metadata.schema());
        let other =
            other_columns(&columns, commit).or_else(|| other_types(metadata.metadata(), commit));
        if let Some(other) = other {
            return Err(Broken::Fault(other));
        }
        let sorted_by = sorted_by(metadata.metadata()).map_err(Broken::Fault)?;
        let sorted_by = sorted_by.filter(|column| *column < columns.len());
        let order = TimeOrder::default();
        Ok(Self { content, file, metadata, columns, sorted_by, order, batch_rows, share })
    }

    /// Decodes the file to its end for statistics, in the order of its rows. `held` is the number of cores of this thread.
    pub(super) fn gather(mut self, stats: &mut Stats, cores: &Cores, held: usize) -> Result<u64> {
        let mut rows = 0;
        for at in 0..self.metadata.metadata().num_row_groups() {
            let (window, largest_page) = self.row_group(at)?;
            let group = self.metadata.metadata().row_group(at);
            let is_worth = group.compressed_size().unsigned_abs() >= WORTH_THREADS;
            let idle = cores.idle();
            // Each thread holds one page, both as it is stored and as values.
            let fit = largest_page.saturating_mul(2 * (idle as u64 + 1)) <= self.share as u64;
            rows += if is_worth && fit && idle > 0 && self.columns.len() > 1 {
                let group_rows = group.num_rows();
                self.by_column(at, &window, group_rows, stats, cores, held)?
            } else {
                let (mut rows, mut order) = (0, self.order);
                self.each_batch(at, &window, ProjectionMask::all(), |batch| {
                    rows += batch.num_rows() as u64;
                    stats.add(batch);
                    if let Some(column) = self.sorted_by {
                        order.see(batch.column(column));
                    }
                    Ok(())
                })?;
                self.order = order;
                rows
            };
        }
        self.end(rows)
    }

    /// Decodes the columns of a row group, several at once but each in the order of its rows.
    fn by_column(
        &mut self,
        at: usize,
        window: &Window,
        rows: i64,
        stats: &mut Stats,
        cores: &Cores,
        held: usize,
    ) -> Result<u64> {
        let mut order = self.order;
        let mut times = Some(&mut order);
        let orders: Vec<Option<&mut TimeOrder>> = (0..self.columns.len())
            .map(|column| if self.sorted_by == Some(column) { times.take() } else { None })
            .collect();
        let this = &*self;
        let decode =
            |(column, (gathered, mut order)): (usize, (&mut Gathered, Option<&mut TimeOrder>))| {
                let schema = this.metadata.parquet_schema();
                let (mut found, mask) = (0, ProjectionMask::roots(schema, [column]));
                this.each_batch(at, window, mask, |batch| {
                    found += batch.num_rows() as i64;
                    gathered.add(batch.column(0));
                    if let Some(order) = &mut order {
                        order.see(batch.column(0));
                    }
                    Ok(())
                })?;
                if found == rows {
                    Ok(())
                } else {
                    let name = this.columns[column].name.escape_debug();
                    let what = format!("column `{name}` has {found} rows in a row group of {rows}");
                    Err(Broken::Fault(format!("it cannot be decoded: {what}")))
                }
            };
        let jobs = stats.columns().zip(orders).enumerate();
        cores.work(held, jobs, panicked, decode)?;
        self.order = order;
        Ok(rows.unsigned_abs())
    }

    /// Decodes the file to its end for a fingerprint.
    pub(super) fn fingerprint(self) -> Result<Fingerprint> {
        let mut fingerprint = Fingerprint::default();
        self.read(&mut |columns, batch| {
            fingerprint.add(columns, batch).map_err(|e| Broken::Fault(e.to_string()))
        })?;
        Ok(fingerprint)
    }

    /// Decodes the file to its end and passes on each batch with its columns. Returns the number of rows.
    pub(crate) fn read(
        mut self,
        give: &mut dyn FnMut(&[Column], &RecordBatch) -> Result<()>,
    ) -> Result<u64> {
        let mut rows = 0;
        for at in 0..self.metadata.metadata().num_row_groups() {
            let ((window, _), mut order) = (self.row_group(at)?, self.order);
            self.each_batch(at, &window, ProjectionMask::all(), |batch| {
                rows += batch.num_rows() as u64;
                if let Some(column) = self.sorted_by {
                    order.see(batch.column(column));
                }
                give(&self.columns, batch)
            })?;
            self.order = order;
        }
        self.end(rows)
    }

    /// Checks the number of rows at the end of the file.
    fn end(&self, rows: u64) -> Result<u64> {
        if !self.order.holds() {
            return Err(Broken::Fault("its rows are not in the order that it claims".to_owned()));
        }
        if rows == self.file.rows {
            Ok(rows)
        } else {
            Err(Broken::Fault(format!("{rows} rows, the catalog says {}", self.file.rows)))
        }
    }

    /// The bytes of a row group, if its pages fit into the memory, and the size of the largest.
    fn row_group(&self, at: usize) -> Result<(Window, u64)> {
        let group = self.metadata.metadata().row_group(at);
        let ranges = group.columns().iter().map(|column| column.byte_range());
        let span = ranges.fold(None, |span: Option<Range<u64>>, (start, length)| {
            let end = start.saturating_add(length);
            Some(span.map_or(start..end, |span| span.start.min(start)..span.end.max(end)))
        });
        let span = span.unwrap_or(0..0);
        if span.end > self.file.bytes {
            return Err(Broken::Fault("it ends before what its footer names".to_owned()));
        }
        pages::spans(span.end - span.start, self.share).map_err(Broken::TooLarge)?;
        let window = Window { start: span.start, bytes: self.content.range(span)? };
        let largest = pages::fit(group, |start, length| window.slice(start, length), self.share)?;
        Ok((window, largest))
    }

    fn each_batch(
        &self,
        row_group: usize,
        window: &Window,
        columns: ProjectionMask,
        mut take: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let metadata = self.metadata.clone();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window.clone(), metadata)
            .with_row_groups(vec![row_group])
            .with_projection(columns)
            .with_batch_size(self.batch_rows)
            .build()?;
        for batch in reader {
            take(&batch.map_err(ParquetError::from)?)?;
        }
        Ok(())
    }
}

fn panicked() -> Broken {
    Broken::Fault("it cannot be decoded: the decoder panicked".to_owned())
}

/// The bytes of a row group, and the position in the file at which they begin.
#[derive(Clone)]
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn slice(&self, start: u64, length: u64) -> Option<&[u8]> {
        let from = usize::try_from(start.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(from..to)
    }

    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        match at.filter(|at| *at <= self.bytes.len()) {
            Some(at) => Ok(self.bytes.slice(at..)),
            None => Err(ParquetError::EOF(format!("byte {start} is not in its row group"))),
        }
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("its row group ends before {length} bytes")));
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn metadata(content: &Content, file: &FileRecord) -> Result<ParquetMetaData> {
    let broken = |error: ParquetError| Broken::Fault(format!("its footer is broken: {error}"));
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes).map_err(broken)?;
    loop {
        match decoder.try_decode().map_err(broken)? {
            DecodeResult::NeedsData(ranges) => {
                let data = ranges.iter().map(|range| content.range(range.clone()));
                let data = data.collect::<Result<Vec<_>>>()?;
                let footers = ranges.iter().zip(&data);
                footers
                    .filter(|(range, _)| range.end == pages::footer_end(file.bytes))
                    .try_for_each(|(_, footer)| pages::footer_is_sound(footer))
                    .map_err(Broken::Fault)?;
                decoder.push_ranges(ranges, data).map_err(broken)?;
            }
            DecodeResult::Data(metadata) => return Ok(metadata),
            DecodeResult::Finished => {
                return Err(Broken::Fault("its footer is missing".to_owned()));
            }
        }
    }
}

// The metadata of a file name its table, so they show that it was swapped for another one.
fn foreign(metadata: &ParquetMetaData, commit: &Commit) -> Option<String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let found =
        |key: &str| entries.into_iter().flatten().find(|entry| entry.key == key)?.value.as_deref();
    // The name is that of version 1 of the format or that of the current one.
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

/// The column by which a file claims that its rows are sorted, which must be the same in all of its row groups.
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

/// Compares the types of the columns with those in the catalog, which archives of version 1 do not record.
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
