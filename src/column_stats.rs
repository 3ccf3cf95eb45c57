//! PURE: the statistics of each column in a commit: number of values, minimum, maximum and sum, defined so that a source
//! can compute them too. This module knows arrow, and is used while writing and again while verifying.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, DecimalType, Float64Type, Int64Type, TimeUnit,
    UInt64Type,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::compact::{OneOfEach, Text};
use crate::model::{Column, Role};

/// What a column is, which is the same in all chunks of its table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnInfo {
    /// Name in the Parquet files.
    pub name: String,
    /// Name in the source.
    pub key: String,
    /// What the source calls it.
    pub role: Role,
    /// Type in the source's own words.
    pub source_type: String,
    /// Type in the Parquet files; `None` in archives of version 1.
    pub parquet_type: Option<ParquetType>,
    /// Whether it may be null, where the source says so.
    pub nullable: Option<bool>,
    /// Its place in the table's primary key, counted from 1, where the source says so.
    pub key_part: Option<u16>,
}

static COLUMNS: OneOfEach<ColumnInfo> = OneOfEach::new();

/// Statistics of one column over one chunk. Numbers are text, so that no reader rounds them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Stored")]
pub struct ColumnStats {
    /// The column.
    pub column: Arc<ColumnInfo>,
    /// Values that are not null.
    pub count: u64,
    /// Smallest value of a number; nanoseconds for a time.
    pub min: Option<Text>,
    /// Largest value.
    pub max: Option<Text>,
    /// Exact sum for integers; for floats the sum in the order of the file; true values of booleans.
    pub sum: Option<Text>,
}

impl Deref for ColumnStats {
    type Target = ColumnInfo;

    fn deref(&self) -> &ColumnInfo {
        &self.column
    }
}

/// The form in an archive.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<T = String> {
    name: T,
    key: T,
    role: Role,
    #[serde(rename = "type")]
    source_type: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parquet_type: Option<ParquetType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nullable: Option<bool>,
    #[serde(default, rename = "primary_key", skip_serializing_if = "Option::is_none")]
    key_part: Option<u16>,
    count: u64,
    min: Option<Text>,
    max: Option<Text>,
    sum: Option<Text>,
}

impl From<Stored> for ColumnStats {
    fn from(stored: Stored) -> Self {
        let Stored { name, key, role, source_type, parquet_type, nullable, key_part, .. } = stored;
        let column = ColumnInfo { name, key, role, source_type, parquet_type, nullable, key_part };
        let Stored { count, min, max, sum, .. } = stored;
        Self { column: COLUMNS.one(column), count, min, max, sum }
    }
}

impl Serialize for ColumnStats {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            name: self.name.as_str(),
            key: &self.key,
            role: self.role,
            source_type: &self.source_type,
            parquet_type: self.parquet_type.clone(),
            nullable: self.nullable,
            key_part: self.key_part,
            count: self.count,
            min: self.min.clone(),
            max: self.max.clone(),
            sum: self.sum.clone(),
        };
        stored.serialize(to)
    }
}

/// The record of a slice in an archive.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Its rows.
    pub rows: u64,
    /// The statistics of its columns.
    pub columns: &'a [ColumnStats],
}

impl ColumnStats {
    /// The statistics of the values, without the properties that only the source knows.
    pub fn values_alone(self) -> Self {
        let column = ColumnInfo::clone(&self.column);
        let column = ColumnInfo { parquet_type: None, nullable: None, key_part: None, ..column };
        Self { column: Arc::new(column), ..self }
    }

    /// The same with the type in the Parquet files.
    #[must_use]
    pub fn with_parquet_type(self, found: &str) -> Self {
        let parquet_type = Some(found.to_owned().into());
        let column = ColumnInfo { parquet_type, ..ColumnInfo::clone(&self.column) };
        Self { column: COLUMNS.one(column), ..self }
    }
}

/// The name of a type of Parquet. Since there are few types and many columns, each name is in memory only once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ParquetType(Arc<str>);

static TYPES: Mutex<BTreeSet<Arc<str>>> = Mutex::new(BTreeSet::new());

impl From<String> for ParquetType {
    fn from(name: String) -> Self {
        let mut types = TYPES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(name.as_str()) {
            return Self(Arc::clone(known));
        }
        let new: Arc<str> = name.into();
        types.insert(Arc::clone(&new));
        Self(new)
    }
}

impl From<ParquetType> for String {
    fn from(known: ParquetType) -> Self {
        known.0.as_ref().to_owned()
    }
}

impl ParquetType {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParquetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gathers the statistics of all columns of a table, batch by batch.
#[derive(Debug)]
pub struct Stats {
    columns: Vec<Column>,
    gathered: Vec<Gathered>,
}

/// The statistics of one column so far.
#[derive(Debug)]
pub enum Gathered {
    /// Times, and the nanoseconds in their unit.
    Time(Range<i64>, i128),
    /// With the sum.
    Integer(Range<i64>, i128),
    /// With the sum.
    Unsigned(Range<u64>, u128),
    /// Keys of the values (see `order`), and their sum.
    Float(Range<i64>, f64),
    /// Decimals, with their precision and scale.
    Decimal(Range<i128>, u8, i8),
    /// Booleans.
    Boolean {
        /// Values.
        count: u64,
        /// Values that are true.
        trues: u64,
    },
    /// Values that are only counted.
    Other {
        /// Values.
        count: u64,
    },
}

/// The number of values, the smallest and the largest.
#[derive(Debug)]
pub struct Range<T> {
    count: u64,
    ends: Option<(T, T)>,
}

impl<T: Copy + Ord> Range<T> {
    fn new() -> Self {
        Self { count: 0, ends: None }
    }

    fn add(&mut self, values: impl Iterator<Item = T> + Clone) {
        self.count += values.clone().count() as u64;
        // The values are in the cache, and compilers vectorise each of these two passes but not a combined one.
        let (Some(min), Some(max)) = (values.clone().min(), values.max()) else { return };
        self.ends = Some(match self.ends {
            None => (min, max),
            Some((least, most)) => (least.min(min), most.max(max)),
        });
    }

    fn text(&self, print: impl Fn(&T) -> String) -> (u64, Option<String>, Option<String>) {
        (self.count, self.ends.map(|(min, _)| print(&min)), self.ends.map(|(_, max)| print(&max)))
    }
}

/// An integer whose order is that of `f64::total_cmp`. The function is its own inverse.
#[inline]
fn order(bits: i64) -> i64 {
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

/// The number of values in a run, which stay in the nearest cache between two passes.
const RUN: usize = 1024;

/// Passes on the values that are not null, in runs and in their order.
fn runs<P: ArrowPrimitiveType>(array: &PrimitiveArray<P>, mut add: impl FnMut(&[P::Native])) {
    let values = array.values();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => values.chunks(RUN).for_each(add),
        Some(nulls) => nulls
            .valid_slices()
            .for_each(|(from, to)| values[from..to].chunks(RUN).for_each(&mut add)),
    }
}

/// The values in the widest type of their kind, which can represent each of them.
fn widened(array: &ArrayRef, wide: &DataType) -> ArrayRef {
    if array.data_type() == wide {
        Arc::clone(array)
    } else {
        // Both are primitive, so none of these casts can fail.
        match array.data_type() {
            DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, wide)),
            _ => cast(array, wide),
        }
        .unwrap_or_else(|_| arrow::array::new_null_array(wide, array.len()))
    }
}

impl Gathered {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Timestamp(unit, _) | DataType::Time64(unit) => {
                let nanos = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                Self::Time(Range::new(), nanos)
            }
            DataType::Date32 => Self::Time(Range::new(), 86_400 * 1_000_000_000),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(Range::new(), *precision, *scale)
            }
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Self::Integer(Range::new(), 0)
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Unsigned(Range::new(), 0)
            }
            // The sum starts at -0.0, because adding to it leaves any first value as it is.
            DataType::Float32 | DataType::Float64 => Self::Float(Range::new(), -0.0),
            DataType::Boolean => Self::Boolean { count: 0, trues: 0 },
            _ => Self::Other { count: 0 },
        }
    }

    /// Adds the next values of the column one after the other, so that a sum of floats does not
    /// depend on where batches end.
    pub fn add(&mut self, array: &ArrayRef) {
        match self {
            Self::Time(range, _) => {
                runs(widened(array, &DataType::Int64).as_primitive::<Int64Type>(), |values| {
                    range.add(values.iter().copied());
                });
            }
            Self::Decimal(range, ..) => {
                runs(array.as_primitive::<Decimal128Type>(), |values| {
                    range.add(values.iter().copied());
                });
            }
            Self::Integer(range, sum) => {
                runs(widened(array, &DataType::Int64).as_primitive::<Int64Type>(), |values| {
                    range.add(values.iter().copied());
                    *sum += values.iter().map(|value| i128::from(*value)).sum::<i128>();
                });
            }
            Self::Unsigned(range, sum) => {
                runs(widened(array, &DataType::UInt64).as_primitive::<UInt64Type>(), |values| {
                    range.add(values.iter().copied());
                    *sum += values.iter().map(|value| u128::from(*value)).sum::<u128>();
                });
            }
            Self::Float(range, sum) => {
                runs(widened(array, &DataType::Float64).as_primitive::<Float64Type>(), |values| {
                    range.add(values.iter().map(|value| order(value.to_bits().cast_signed())));
                    values.iter().for_each(|value| *sum += value);
                });
            }
            Self::Boolean { count, trues } => {
                let array = array.as_boolean();
                *count += (array.len() - array.null_count()) as u64;
                *trues += array.true_count() as u64;
            }
            Self::Other { count } => {
                *count += (array.len() - array.logical_null_count()) as u64;
            }
        }
    }
}

impl Stats {
    /// Empty statistics.
    pub fn new(columns: &[Column]) -> Self {
        let gathered = columns.iter().map(|column| Gathered::new(&column.data_type));
        Self { gathered: gathered.collect(), columns: columns.to_vec() }
    }

    /// Adds a batch with the columns of the table, in their order.
    pub fn add(&mut self, batch: &RecordBatch) {
        for (gathered, array) in self.gathered.iter_mut().zip(batch.columns()) {
            gathered.add(array);
        }
    }

    /// Each column by itself, in their order.
    pub fn columns(&mut self) -> std::slice::IterMut<'_, Gathered> {
        self.gathered.iter_mut()
    }

    /// The statistics of all batches together.
    pub fn finish(self) -> Vec<ColumnStats> {
        let pairs = self.columns.into_iter().zip(self.gathered);
        pairs
            .map(|(column, gathered)| {
                let ((count, min, max), sum) = match gathered {
                    Gathered::Time(range, nanos) => {
                        (range.text(|value| (i128::from(*value) * nanos).to_string()), None)
                    }
                    Gathered::Decimal(range, precision, scale) => {
                        let print =
                            |value: &i128| Decimal128Type::format_decimal(*value, precision, scale);
                        (range.text(print), None)
                    }
                    Gathered::Integer(range, sum) => {
                        (range.text(i64::to_string), Some(sum.to_string()))
                    }
                    Gathered::Unsigned(range, sum) => {
                        (range.text(u64::to_string), Some(sum.to_string()))
                    }
                    Gathered::Float(range, sum) => {
                        let print = |key: &i64| {
                            format!("{:?}", f64::from_bits(order(*key).cast_unsigned()))
                        };
                        (range.text(print), Some(format!("{sum:?}")))
                    }
                    Gathered::Boolean { count, trues } => {
                        ((count, None, None), Some(trues.to_string()))
                    }
                    Gathered::Other { count } => ((count, None, None), None),
                };
                let column = ColumnInfo {
                    name: column.name,
                    key: column.key,
                    role: column.role,
                    source_type: column.source_type,
                    parquet_type: None,
                    nullable: column.nullable,
                    key_part: column.key_part,
                };
                ColumnStats {
                    column: Arc::new(column),
                    count,
                    min: min.map(Text::from),
                    max: max.map(Text::from),
                    sum: sum.filter(|_| count > 0).map(Text::from),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn text(
        kind: &DataType,
        array: ArrayRef,
    ) -> (u64, Option<String>, Option<String>, Option<String>) {
        let column = Column::new("c", "c", Role::Field, "", kind.clone());
        let mut stats = Stats::new(&[column]);
        // The values come in two batches, because the result must not depend on the division.
        let half = array.len() / 2;
        for part in [array.slice(0, half), array.slice(half, array.len() - half)] {
            stats.columns().for_each(|gathered| gathered.add(&part));
        }
        let found = stats.finish().remove(0);
        let text = |text: Option<Text>| text.map(|text| text.to_string());
        (found.count, text(found.min), text(found.max), text(found.sum))
    }

    proptest! {
        #[test]
        fn floats_are_ordered_and_summed_one_by_one(
            values in prop::collection::vec(prop::option::weighted(0.8, any::<f64>()), 0..3000)
        ) {
            let there: Vec<f64> = values.iter().flatten().copied().collect();
            let print = |value: &f64| format!("{value:?}");
            let sum = there.iter().fold(-0.0, |sum, value| sum + value);
            let expected = (
                there.len() as u64,
                there.iter().min_by(|a, b| a.total_cmp(b)).map(print),
                there.iter().max_by(|a, b| a.total_cmp(b)).map(print),
                (!there.is_empty()).then(|| print(&sum)),
            );
            prop_assert_eq!(text(&DataType::Float64, Arc::new(Float64Array::from(values))), expected);
        }

        #[test]
        fn integers_are_summed_beyond_their_own_range(
            values in prop::collection::vec(prop::option::weighted(0.8, any::<i64>()), 0..3000)
        ) {
            let there: Vec<i64> = values.iter().flatten().copied().collect();
            let sum: i128 = there.iter().map(|value| i128::from(*value)).sum();
            let expected = (
                there.len() as u64,
                there.iter().min().map(i64::to_string),
                there.iter().max().map(i64::to_string),
                (!there.is_empty()).then(|| sum.to_string()),
            );
            prop_assert_eq!(text(&DataType::Int64, Arc::new(Int64Array::from(values))), expected);
        }
    }
}
