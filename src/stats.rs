//! PURE: what a commit says of each column: count of values, minimum, maximum and sum, in the way
//! that a source can compute too. Knows arrow; used while writing and again while verifying.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use serde::{Deserialize, Serialize};

use crate::source::{Column, Role};

/// Statistics of one column over one chunk. Numbers are text, so that no reader rounds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnStats {
    /// Name in the Parquet files.
    pub name: String,
    /// Name in the source.
    pub key: String,
    /// What the source calls it.
    pub role: Role,
    /// Type in the source's own words.
    #[serde(rename = "type")]
    pub source_type: String,
    /// Values that are not null.
    pub count: u64,
    /// Smallest value of a number; nanoseconds for a time.
    pub min: Option<String>,
    /// Largest value.
    pub max: Option<String>,
    /// Exact sum for integers; for floats the sum in the order of the file; true values of booleans.
    pub sum: Option<String>,
}

/// Gathers the statistics of all columns of a table, batch by batch.
#[derive(Debug)]
pub struct Stats {
    columns: Vec<Column>,
    gathered: Vec<Gathered>,
}

#[derive(Debug)]
enum Gathered {
    Time(Range<i64>),
    Integer(Range<i64>, i128),
    Unsigned(Range<u64>, u128),
    Float(Range<f64>, f64),
    Boolean { count: u64, trues: u64 },
    Other { count: u64 },
}

#[derive(Debug)]
struct Range<T> {
    count: u64,
    ends: Option<(T, T)>,
}

impl<T: Copy> Range<T> {
    fn new() -> Self {
        Self { count: 0, ends: None }
    }

    #[inline]
    fn add(&mut self, value: T, less: impl Fn(&T, &T) -> bool) {
        self.count += 1;
        match &mut self.ends {
            None => self.ends = Some((value, value)),
            Some((min, _)) if less(&value, min) => *min = value,
            Some((_, max)) if less(max, &value) => *max = value,
            Some(_) => {}
        }
    }

    fn text(&self, print: impl Fn(&T) -> String) -> (u64, Option<String>, Option<String>) {
        (self.count, self.ends.map(|(min, _)| print(&min)), self.ends.map(|(_, max)| print(&max)))
    }
}

impl Stats {
    /// Nothing gathered yet.
    pub fn new(columns: &[Column]) -> Self {
        let gathered = columns.iter().map(|column| match column.data_type {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Gathered::Time(Range::new()),
            DataType::Int64 => Gathered::Integer(Range::new(), 0),
            DataType::UInt64 => Gathered::Unsigned(Range::new(), 0),
            // The sum of nothing is -0.0: adding it leaves any first value as it is.
            DataType::Float64 => Gathered::Float(Range::new(), -0.0),
            DataType::Boolean => Gathered::Boolean { count: 0, trues: 0 },
            _ => Gathered::Other { count: 0 },
        });
        Self { gathered: gathered.collect(), columns: columns.to_vec() }
    }

    /// Adds a batch with the columns of the table, in their order. Values are added one after the
    /// other, so that a sum of floats does not depend on where batches end.
    pub fn add(&mut self, batch: &RecordBatch) {
        for (gathered, array) in self.gathered.iter_mut().zip(batch.columns()) {
            match gathered {
                Gathered::Time(range) => {
                    for value in array.as_primitive::<TimestampNanosecondType>().iter().flatten() {
                        range.add(value, i64::lt);
                    }
                }
                Gathered::Integer(range, sum) => {
                    for value in array.as_primitive::<Int64Type>().iter().flatten() {
                        range.add(value, i64::lt);
                        *sum += i128::from(value);
                    }
                }
                Gathered::Unsigned(range, sum) => {
                    for value in array.as_primitive::<UInt64Type>().iter().flatten() {
                        range.add(value, u64::lt);
                        *sum += u128::from(value);
                    }
                }
                Gathered::Float(range, sum) => {
                    for value in array.as_primitive::<Float64Type>().iter().flatten() {
                        range.add(value, |a, b| a.total_cmp(b).is_lt());
                        *sum += value;
                    }
                }
                Gathered::Boolean { count, trues } => {
                    let array = array.as_boolean();
                    *count += (array.len() - array.null_count()) as u64;
                    *trues += array.true_count() as u64;
                }
                Gathered::Other { count } => {
                    *count += (array.len() - array.logical_null_count()) as u64;
                }
            }
        }
    }

    /// The statistics of all batches together.
    pub fn finish(self) -> Vec<ColumnStats> {
        let pairs = self.columns.into_iter().zip(self.gathered);
        pairs
            .map(|(column, gathered)| {
                let ((count, min, max), sum) = match gathered {
                    Gathered::Time(range) => (range.text(i64::to_string), None),
                    Gathered::Integer(range, sum) => {
                        (range.text(i64::to_string), Some(sum.to_string()))
                    }
                    Gathered::Unsigned(range, sum) => {
                        (range.text(u64::to_string), Some(sum.to_string()))
                    }
                    Gathered::Float(range, sum) => {
                        (range.text(|value| format!("{value:?}")), Some(format!("{sum:?}")))
                    }
                    Gathered::Boolean { count, trues } => {
                        ((count, None, None), Some(trues.to_string()))
                    }
                    Gathered::Other { count } => ((count, None, None), None),
                };
                ColumnStats {
                    name: column.name,
                    key: column.key,
                    role: column.role,
                    source_type: column.source_type,
                    count,
                    min,
                    max,
                    sum: sum.filter(|_| count > 0),
                }
            })
            .collect()
    }
}
