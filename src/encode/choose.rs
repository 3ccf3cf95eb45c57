//! PURE: chooses the encoding of a column by measuring its first values rather than by its type. This costs about a
//! millisecond for each file.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use parquet::basic::Encoding;

/// How many values are measured.
const SAMPLE: usize = 16 * 1024;
/// A dictionary of one page (1 MiB, 131,072 doubles) pays off if values repeat within a row group. They repeat often
/// enough if less than this share of a sample occurs for the first time.
const NEW_FLOATS: f64 = 0.95;
/// The same for integers. Those that seldom repeat are mostly counters, which are best stored as differences.
const NEW_INTEGERS: f64 = 0.5;

/// How to encode a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Whether to try a dictionary first.
    pub(super) dictionary: bool,
    /// The encoding without a dictionary, or when that grows too large.
    pub(super) fallback: Encoding,
}

/// The choice for a column of a file, by the first batch that goes into it; `None` if the writer's default is right.
pub(super) fn choose(batch: &RecordBatch, column: usize, is_time: bool) -> Option<Choice> {
    let array = batch.column(column);
    match array.data_type() {
        DataType::Timestamp(..) if is_time => {
            Some(Choice { dictionary: false, fallback: Encoding::DELTA_BINARY_PACKED })
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = array.as_primitive::<TimestampMicrosecondType>().iter().flatten();
            Some(integers(values.take(SAMPLE).map(i64::cast_unsigned)))
        }
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>().iter().flatten().take(SAMPLE);
            Some(integers(values.map(|value| u64::from(value.cast_unsigned()))))
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().iter().flatten().take(SAMPLE);
            Some(integers(values.map(|value| u64::from(value.cast_unsigned()))))
        }
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>().iter().flatten().take(SAMPLE);
            Some(integers(values.map(i64::cast_unsigned)))
        }
        DataType::UInt64 => {
            Some(integers(array.as_primitive::<UInt64Type>().iter().flatten().take(SAMPLE)))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().iter().flatten().take(SAMPLE);
            Some(floats(&values.collect::<Vec<_>>()))
        }
        _ => None,
    }
}

fn integers(values: impl Iterator<Item = u64>) -> Choice {
    Choice { dictionary: new_part(values) < NEW_INTEGERS, fallback: Encoding::DELTA_BINARY_PACKED }
}

// Rounded values (with two decimals, for example) compress better unchanged, values with all digits byte by byte.
fn floats(values: &[f64]) -> Choice {
    let plain: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let split: Vec<u8> =
        (0..8).flat_map(|byte| plain.iter().skip(byte).step_by(8).copied()).collect();
    let size = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).map_or(usize::MAX, |out| out.len());
    Choice {
        dictionary: new_part(values.iter().map(|value| value.to_bits())) < NEW_FLOATS,
        fallback: if size(&split) < size(&plain) {
            Encoding::BYTE_STREAM_SPLIT
        } else {
            Encoding::PLAIN
        },
    }
}

/// The share of the values that occur for the first time.
fn new_part(values: impl Iterator<Item = u64>) -> f64 {
    let mut count = 0u32;
    let distinct: HashSet<u64> = values.inspect(|_| count += 1).collect();
    distinct.len() as f64 / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_column_gets_a_suitable_encoding() {
        let mut random = fastrand::Rng::with_seed(7);
        let rounded: Vec<f64> = (0..SAMPLE).map(|_| (random.f64() * 1e4).round() / 100.0).collect();
        assert!(floats(&rounded).dictionary);
        assert_eq!(floats(&rounded).fallback, Encoding::PLAIN);
        let entropy: Vec<f64> = (0..SAMPLE).map(|_| random.f64() * 100.0).collect();
        let choice = Choice { dictionary: false, fallback: Encoding::BYTE_STREAM_SPLIT };
        assert_eq!(floats(&entropy), choice);
        assert!(!integers(0..10_000).dictionary, "a counter");
        assert!(integers((0..10_000).map(|n| n % 100)).dictionary, "a gauge");
        assert!(floats(&[]).dictionary);
    }
}
