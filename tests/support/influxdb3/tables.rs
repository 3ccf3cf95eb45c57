//! What the stand-in holds: tables in memory, by UTC day, whose columns are added as they are written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int64Builder,
    RecordBatch, StringBuilder, StringDictionaryBuilder, TimestampNanosecondArray, UInt64Builder,
    new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};

use super::Generate;
use crate::support::model::{Point, Value};

/// A partition of Serverless.
pub(super) const DAY: i64 = 86_400_000_000_000;
/// The time that a Parquet file of Core spans at most.
const CHUNK: i64 = 600_000_000_000;
/// The server's batch size.
pub(super) const BATCH: usize = 8192;

/// What a column is; it cannot become anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tag,
    Time,
    Float,
    Integer,
    Unsigned,
    String,
    Boolean,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Float(_) => Self::Float,
            Value::Integer(_) => Self::Integer,
            Value::Unsigned(_) => Self::Unsigned,
            Value::String(_) => Self::String,
            Value::Boolean(_) => Self::Boolean,
        }
    }

    fn of_type(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Dictionary(..) => Self::Tag,
            DataType::Timestamp(TimeUnit::Nanosecond, None) => Self::Time,
            DataType::Float64 => Self::Float,
            DataType::Int64 => Self::Integer,
            DataType::UInt64 => Self::Unsigned,
            DataType::Utf8 => Self::String,
            DataType::Boolean => Self::Boolean,
            _ => return None,
        })
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Tag => DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()),
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Self::Float => DataType::Float64,
            Self::Integer => DataType::Int64,
            Self::Unsigned => DataType::UInt64,
            Self::String => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
        }
    }

    fn metadata(self) -> &'static str {
        match self {
            Self::Tag => "iox::column_type::tag",
            Self::Time => "iox::column_type::timestamp",
            Self::Float => "iox::column_type::field::float",
            Self::Integer => "iox::column_type::field::integer",
            Self::Unsigned => "iox::column_type::field::uinteger",
            Self::String => "iox::column_type::field::string",
            Self::Boolean => "iox::column_type::field::boolean",
        }
    }

    fn of_metadata(text: &str) -> Option<Self> {
        let all = [Self::Tag, Self::Time, Self::Float, Self::Integer, Self::Unsigned];
        let all = all.into_iter().chain([Self::String, Self::Boolean]);
        all.into_iter().find(|kind| kind.metadata() == text)
    }

    fn field(self, name: &str) -> Field {
        let metadata = [("iox::column::type".to_owned(), self.metadata().to_owned())];
        Field::new(name, self.data_type(), self != Self::Time).with_metadata(metadata.into())
    }
}

/// Takes the kind of a column away from what is cast to another type, since this DataFusion, other
/// than that of real servers, lets it through.
pub(super) fn unmark(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let kind =
            field.metadata().get("iox::column::type").and_then(|text| Kind::of_metadata(text));
        let cast = kind.is_some_and(|kind| kind.data_type() != *field.data_type());
        if cast {
            Arc::new(Field::clone(field).with_metadata(HashMap::new()))
        } else {
            field.clone()
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What identifies a row. Real servers, too, sort by the tags first.
type Key = (BTreeMap<String, String>, i64);

#[derive(Debug, Default)]
struct Day {
    points: BTreeMap<Key, BTreeMap<String, Value>>,
    /// The points, unless some were written since.
    built: Option<RecordBatch>,
    loaded: Vec<RecordBatch>,
}

/// A Parquet file that Core would have, or will have.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) rows: u64,
    pub(super) min: i64,
    pub(super) max: i64,
}

impl File {
    fn add(files: &mut BTreeMap<i64, Self>, time: i64) {
        let chunk = time.div_euclid(CHUNK);
        let file = files.entry(chunk).or_insert(Self { rows: 0, min: time, max: time });
        *file = Self { rows: file.rows + 1, min: file.min.min(time), max: file.max.max(time) };
    }

    fn touches(&self, (from, to): (i64, i64)) -> bool {
        self.min <= to && from <= self.max
    }
}

/// What a range of time holds, before filters of rows.
#[derive(Debug, Default)]
pub(super) struct Extent {
    pub(super) rows: u64,
    pub(super) days: usize,
    pub(super) files: usize,
}

#[derive(Debug)]
pub(super) struct Table {
    columns: BTreeMap<String, Kind>,
    days: BTreeMap<i64, Day>,
    /// Persisted, by chunk.
    pub(super) files: BTreeMap<i64, File>,
    /// Not persisted, by chunk.
    memory: BTreeMap<i64, File>,
}

impl Default for Table {
    fn default() -> Self {
        let columns = BTreeMap::from([("time".to_owned(), Kind::Time)]);
        let (days, files, memory) = Default::default();
        Self { columns, days, files, memory }
    }
}

impl Table {
    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|(name, kind)| kind.field(name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn column(&mut self, name: &str, kind: Kind) {
        let known = *self.columns.entry(name.to_owned()).or_insert(kind);
        assert_eq!(known, kind, "the type of column {name} cannot change");
    }

    /// A tag that has no value yet.
    pub(super) fn tag(&mut self, name: &str) {
        self.column(name, Kind::Tag);
    }

    /// Why the table does not take a point: it would have too many columns, or another type of one.
    pub(super) fn refuses(&self, point: &Point) -> Option<String> {
        let new = point.tags.keys().chain(point.fields.keys());
        if self.columns.len() + new.filter(|name| !self.columns.contains_key(*name)).count() > 500 {
            let limit = "number of columns per table limit of 500 columns";
            return Some(format!("Update to schema would exceed {limit}"));
        }
        let tags = point.tags.keys().map(|tag| (tag, Kind::Tag));
        let fields = point.fields.iter().map(|(field, value)| (field, Kind::of(value)));
        let mut others = tags.chain(fields).filter_map(|(name, kind)| {
            let known = self.columns.get(name).filter(|known| **known != kind)?;
            Some(format!(
                "invalid column type for column '{name}', expected {known:?}, got {kind:?}"
            ))
        });
        others.next()
    }

    /// Merges the point with one of the same tags and time, field by field.
    pub(super) fn write(&mut self, point: Point, persisted: bool) {
        point.tags.keys().for_each(|tag| self.column(tag, Kind::Tag));
        point.fields.iter().for_each(|(field, value)| self.column(field, Kind::of(value)));
        let day = self.days.entry(point.time.div_euclid(DAY)).or_default();
        day.built = None;
        let key = (point.tags, point.time);
        if !day.points.contains_key(&key) {
            let files = if persisted { &mut self.files } else { &mut self.memory };
            File::add(files, point.time);
        }
        day.points.entry(key).or_default().extend(point.fields);
    }

    /// Adds rows as they are, which must all differ in tags or time from those that are there.
    pub(super) fn load(&mut self, batch: &RecordBatch) {
        for field in batch.schema_ref().fields() {
            let kind = Kind::of_type(field.data_type()).expect("a type that InfluxDB has");
            self.column(field.name(), kind);
        }
        let times = times(batch).values();
        times.iter().for_each(|time| File::add(&mut self.files, *time));
        let mut start = 0;
        while start < times.len() {
            let day = times[start].div_euclid(DAY);
            let rows = times[start..].iter().take(BATCH);
            let rows = rows.take_while(|time| time.div_euclid(DAY) == day).count();
            self.days.entry(day).or_default().loaded.push(batch.slice(start, rows));
            start += rows;
        }
    }

    /// Rows of which each is later than the one before, and of another series.
    pub(super) fn generate(&mut self, what: &Generate) {
        let (mut random, mut time) = (fastrand::Rng::with_seed(what.seed), what.from);
        let mut made = 0;
        while made < what.rows {
            let rows = BATCH.min(what.rows - made);
            let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
            for (tag, values) in &what.tags {
                let mut builder = StringDictionaryBuilder::<Int32Type>::new();
                let value = |row| format!("{tag}{}", row % values);
                (made..made + rows).for_each(|row| builder.append_value(value(row)));
                columns.push((tag, Arc::new(builder.finish())));
            }
            let names: Vec<_> = (0..what.floats).map(|field| format!("f{field}")).collect();
            for name in &names {
                let values = (0..rows).map(|_| random.f64() * 100.0);
                columns.push((name, Arc::new(Float64Array::from_iter_values(values))));
            }
            let times = (0..rows as i64).map(|row| time + row * what.step);
            columns.push(("time", Arc::new(TimestampNanosecondArray::from_iter_values(times))));
            let fields = columns.iter().map(|(name, array)| {
                Kind::of_type(array.data_type()).map(|kind| kind.field(name)).unwrap()
            });
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let arrays = columns.iter().map(|column| Arc::clone(&column.1)).collect();
            self.load(&RecordBatch::try_new(schema, arrays).unwrap());
            made += rows;
            time += rows as i64 * what.step;
        }
    }

    /// What was only in the server's memory is in files from now on.
    pub(super) fn persist(&mut self) {
        for (chunk, new) in std::mem::take(&mut self.memory) {
            let file = self.files.entry(chunk).or_insert(File { rows: 0, ..new });
            let (min, max) = (file.min.min(new.min), file.max.max(new.max));
            *file = File { rows: file.rows + new.rows, min, max };
        }
    }

    /// Between these times, both inclusive.
    pub(super) fn extent(&self, range: (i64, i64)) -> Extent {
        let mut extent = Extent::default();
        let mut last = None;
        let mut all: Vec<_> = self.files.values().map(|file| (file, true)).collect();
        all.extend(self.memory.values().map(|file| (file, false)));
        all.sort_by_key(|(file, _)| file.min);
        for (file, persisted) in all.into_iter().filter(|(file, _)| file.touches(range)) {
            extent.rows += file.rows;
            extent.files += usize::from(persisted);
            // A file does not cross a day, since a day has a whole number of chunks.
            let day = file.min.div_euclid(DAY);
            extent.days += usize::from(last.replace(day) != Some(day));
        }
        extent
    }

    /// All rows of the days that have some of this range (both inclusive), by day, none older than
    /// `oldest`, with today's columns.
    pub(super) fn scan(&mut self, (from, to): (i64, i64), oldest: i64) -> Vec<Vec<RecordBatch>> {
        let mut days = Vec::new();
        if from > to {
            return days;
        }
        let schema = self.schema();
        let range = from.div_euclid(DAY).max(oldest.div_euclid(DAY))..=to.div_euclid(DAY);
        if range.is_empty() {
            return days;
        }
        for (number, day) in self.days.range_mut(range) {
            if day.built.is_none() && !day.points.is_empty() {
                day.built = Some(build(&self.columns, &day.points));
            }
            let points = day.built.iter().flat_map(slices);
            let batches = day.loaded.iter().cloned().chain(points);
            let batches = batches.map(|batch| adapt(&batch, &schema));
            let kept = batches.map(|batch| match number.saturating_mul(DAY) < oldest {
                true => {
                    let keep: Vec<_> =
                        times(&batch).values().iter().map(|t| *t >= oldest).collect();
                    filter_record_batch(&batch, &BooleanArray::from(keep)).unwrap()
                }
                false => batch,
            });
            let kept: Vec<_> = kept.filter(|batch| batch.num_rows() > 0).collect();
            if !kept.is_empty() {
                days.push(kept);
            }
        }
        days
    }
}

fn times(batch: &RecordBatch) -> &TimestampNanosecondArray {
    let time = batch.column_by_name("time").expect("a column `time`");
    time.as_any().downcast_ref().expect("time in nanoseconds")
}

fn slices(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let starts = (0..batch.num_rows()).step_by(BATCH);
    starts.map(|start| batch.slice(start, BATCH.min(batch.num_rows() - start)))
}

fn adapt(batch: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

fn build(
    columns: &BTreeMap<String, Kind>,
    points: &BTreeMap<Key, BTreeMap<String, Value>>,
) -> RecordBatch {
    let arrays = columns.iter().map(|(name, kind)| -> ArrayRef {
        macro_rules! fields {
            ($builder:ty, $variant:ident) => {{
                let mut builder = <$builder>::new();
                for fields in points.values() {
                    match fields.get(name) {
                        Some(Value::$variant(value)) => builder.append_value(value.clone()),
                        _ => builder.append_null(),
                    }
                }
                Arc::new(builder.finish())
            }};
        }
        match kind {
            Kind::Tag => {
                let mut builder = StringDictionaryBuilder::<Int32Type>::new();
                points.keys().for_each(|key| builder.append_option(key.0.get(name)));
                Arc::new(builder.finish())
            }
            Kind::Time => {
                let times = points.keys().map(|key| key.1);
                Arc::new(TimestampNanosecondArray::from_iter_values(times))
            }
            Kind::Float => fields!(Float64Builder, Float),
            Kind::Integer => fields!(Int64Builder, Integer),
            Kind::Unsigned => fields!(UInt64Builder, Unsigned),
            Kind::String => fields!(StringBuilder, String),
            Kind::Boolean => fields!(BooleanBuilder, Boolean),
        }
    });
    let fields: Vec<_> = columns.iter().map(|(name, kind)| kind.field(name)).collect();
    let arrays = arrays.collect();
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, HashMap::new())), arrays)
        .unwrap()
}
