//! PURE: a fingerprint of rows that depends on their values, but neither on their order nor on their encoding. It tells
//! whether a source still has the rows that an archive holds, without any sorting.
//!
//! The fingerprint consists of the number of rows and the sum, modulo 2^128, of a hash of each row. It is a sum and not
//! an exclusive or, in which two equal rows would cancel each other.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampNanosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128, xxh3_128_with_seed};

use crate::model::{Column, Role};

/// The fingerprint of some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The number of rows.
    pub rows: u64,
    sum: u128,
}

impl Fingerprint {
    /// Adds the rows of a batch with these columns. Nulls are ignored, so that a column that was added later does not
    /// change the rows without a value in it.
    pub fn add(&mut self, columns: &[Column], batch: &RecordBatch) -> Result<(), ArrowError> {
        let mut rows = vec![0u128; batch.num_rows()];
        for (column, array) in columns.iter().zip(batch.columns()) {
            let seed = seed(column);
            each(array, &mut |row, kind, value| {
                let hash = xxh3_128_with_seed(value, seed ^ u64::from(kind));
                rows[row] = rows[row].wrapping_add(hash);
            })?;
        }
        self.rows += rows.len() as u64;
        // Each row is hashed once more. Otherwise two rows could exchange values unnoticed.
        let mixed = rows.iter().map(|row| xxh3_128(&row.to_le_bytes()));
        self.sum = mixed.fold(self.sum, u128::wrapping_add);
        Ok(())
    }

    /// Adds the rows of another part.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// A seed from the name of the column in the source, since its name in the archive may depend on the other columns.
fn seed(column: &Column) -> u64 {
    let role = match column.role {
        Role::Time => 1,
        Role::Tag => 2,
        Role::Field => 3,
        Role::Column => 4,
    };
    xxh3_64_with_seed(column.key.as_bytes(), role)
}

/// The kinds of values. Types whose values can be equal share a kind.
mod kind {
    pub(super) const INTEGER: u8 = 1;
    pub(super) const UNSIGNED: u8 = 2;
    pub(super) const FLOAT: u8 = 3;
    pub(super) const DECIMAL: u8 = 4;
    pub(super) const TIME: u8 = 5;
    pub(super) const DATE: u8 = 6;
    pub(super) const TIME_OF_DAY: u8 = 7;
    pub(super) const BOOLEAN: u8 = 8;
    pub(super) const TEXT: u8 = 9;
    pub(super) const BYTES: u8 = 10;
    pub(super) const NESTED: u8 = 11;
}

/// Passes on the index, the kind and the canonical bytes of each value that is not null.
fn each(array: &ArrayRef, give: &mut dyn FnMut(usize, u8, &[u8])) -> Result<(), ArrowError> {
    macro_rules! primitive {
        ($array:expr, $type:ty, $kind:expr) => {{
            let array = $array;
            let array = array.as_primitive::<$type>();
            for (row, value) in array.iter().enumerate() {
                if let Some(value) = value {
                    give(row, $kind, &value.to_le_bytes());
                }
            }
        }};
    }
    match array.data_type() {
        DataType::Null => {}
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            primitive!(cast(array, &DataType::Int64)?, Int64Type, kind::INTEGER);
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            primitive!(cast(array, &DataType::UInt64)?, UInt64Type, kind::UNSIGNED);
        }
        DataType::Float32 | DataType::Float64 => {
            primitive!(cast(array, &DataType::Float64)?, Float64Type, kind::FLOAT);
        }
        DataType::Decimal128(_, scale) => {
            let scale = scale.cast_unsigned();
            let array = array.as_primitive::<Decimal128Type>();
            for (row, value) in array.iter().enumerate() {
                if let Some(value) = value {
                    let mut bytes = [scale; 17];
                    bytes[..16].copy_from_slice(&value.to_le_bytes());
                    give(row, kind::DECIMAL, &bytes);
                }
            }
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            primitive!(array, TimestampNanosecondType, kind::TIME);
        }
        DataType::Timestamp(unit, _) => {
            // The times become nanoseconds, for which a distant time needs more than 64 bits.
            let nanos: i128 = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => 1_000,
            };
            let units = cast(array, &DataType::Int64)?;
            for (row, value) in units.as_primitive::<Int64Type>().iter().enumerate() {
                if let Some(value) = value {
                    let time = i128::from(value) * nanos;
                    match i64::try_from(time) {
                        Ok(time) => give(row, kind::TIME, &time.to_le_bytes()),
                        Err(_) => give(row, kind::TIME, &time.to_le_bytes()),
                    }
                }
            }
        }
        DataType::Date32 => primitive!(array, Date32Type, kind::DATE),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive!(array, Time64MicrosecondType, kind::TIME_OF_DAY);
        }
        DataType::Boolean => {
            for (row, value) in array.as_boolean().iter().enumerate() {
                if let Some(value) = value {
                    give(row, kind::BOOLEAN, &[u8::from(value)]);
                }
            }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let array = cast(array, &DataType::Utf8View)?;
            for (row, value) in array.as_string_view().iter().enumerate() {
                if let Some(value) = value {
                    give(row, kind::TEXT, value.as_bytes());
                }
            }
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            let array = cast(array, &DataType::BinaryView)?;
            for (row, value) in array.as_binary_view().iter().enumerate() {
                if let Some(value) = value {
                    give(row, kind::BYTES, value);
                }
            }
        }
        DataType::Dictionary(..) => dictionary(array, give)?,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets().to_vec();
            let rows = (0..list.len()).map(|row| {
                list.is_valid(row).then(|| offsets[row] as usize..offsets[row + 1] as usize)
            });
            nested(list.values(), rows, give)?;
        }
        DataType::Struct(_) => {
            let parts = array.as_struct();
            let mut hashes = vec![0u128; array.len()];
            for (at, part) in parts.columns().iter().enumerate() {
                each(part, &mut |row, kind, value| {
                    let seed = ((at as u64 + 1) << 8) | u64::from(kind);
                    hashes[row] = hashes[row].wrapping_add(xxh3_128_with_seed(value, seed));
                })?;
            }
            for (row, hash) in hashes.iter().enumerate() {
                if array.is_valid(row) {
                    give(row, kind::NESTED, &hash.to_le_bytes());
                }
            }
        }
        other => {
            return Err(ArrowError::NotYetImplemented(format!("the fingerprint of {other}")));
        }
    }
    Ok(())
}

/// Hashes each value of the dictionary once, and passes it on for every row that has it.
fn dictionary(array: &ArrayRef, give: &mut dyn FnMut(usize, u8, &[u8])) -> Result<(), ArrowError> {
    let dictionary = array.as_any_dictionary();
    let mut values = vec![None; dictionary.values().len()];
    each(dictionary.values(), &mut |at, kind, value| values[at] = Some((kind, value.to_vec())))?;
    let keys = cast(&arrow::array::make_array(dictionary.keys().to_data()), &DataType::UInt64)?;
    for (row, key) in keys.as_primitive::<UInt64Type>().iter().enumerate() {
        let value = key.and_then(|key| values.get(usize::try_from(key).ok()?)?.as_ref());
        if let Some((kind, value)) = value {
            give(row, *kind, value);
        }
    }
    Ok(())
}

/// Passes on the hashes of the elements of each list, in their order and including nulls.
fn nested(
    values: &ArrayRef,
    rows: impl Iterator<Item = Option<std::ops::Range<usize>>>,
    give: &mut dyn FnMut(usize, u8, &[u8]),
) -> Result<(), ArrowError> {
    let mut elements = vec![0u128; values.len()];
    each(values, &mut |at, kind, value| {
        elements[at] = xxh3_128_with_seed(value, u64::from(kind)) | 1; // a null is 0
    })?;
    for (row, range) in rows.enumerate() {
        let Some(range) = range else { continue };
        let bytes: Vec<u8> =
            elements[range].iter().flat_map(|element| element.to_le_bytes()).collect();
        give(row, kind::NESTED, &bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::{Field, Int32Type, Schema};
    use proptest::prelude::*;

    use super::*;

    fn of(columns: &[(&str, Role, ArrayRef)]) -> Fingerprint {
        let described = columns.iter().map(|(name, role, array)| {
            Column::new(*name, *name, *role, "", array.data_type().clone())
        });
        let described: Vec<Column> = described.collect();
        let fields =
            described.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let arrays = columns.iter().map(|(.., array)| Arc::clone(array)).collect();
        let batch = RecordBatch::try_new(schema, arrays).unwrap();
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(&described, &batch).unwrap();
        fingerprint
    }

    fn one(array: impl Array + 'static) -> Fingerprint {
        of(&[("v", Role::Field, Arc::new(array))])
    }

    #[test]
    fn equal_rows_have_the_same_fingerprint_in_every_encoding() {
        let texts = vec![Some("a"), None, Some(""), Some("a")];
        let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
        assert_eq!(one(StringArray::from(texts)), one(dictionary));
        assert_eq!(one(Int32Array::from(vec![-7, 7])), one(Int64Array::from(vec![7, -7])));
        assert_eq!(
            one(TimestampMicrosecondArray::from(vec![1, 2])),
            one(TimestampNanosecondArray::from(vec![2000, 1000]))
        );
    }

    #[test]
    fn a_column_without_values_and_a_null_change_nothing() {
        let v: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let w: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>, None]));
        let alone = of(&[("v", Role::Field, Arc::clone(&v))]);
        assert_eq!(of(&[("v", Role::Field, Arc::clone(&v)), ("w", Role::Field, w)]), alone);
        let zero: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
        assert_ne!(of(&[("v", Role::Field, zero)]), alone);
        assert_ne!(of(&[("v", Role::Tag, v)]), alone, "a tag is not a field");
    }

    #[test]
    fn changes_that_keep_count_sum_and_extremes_are_seen() {
        let v: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let row = |w: Vec<i64>| -> Fingerprint {
            of(&[
                ("v", Role::Field, Arc::clone(&v)),
                ("w", Role::Field, Arc::new(Int64Array::from(w))),
            ])
        };
        let before = row(vec![10, 20, 30, 40]);
        assert_ne!(before, row(vec![10, 30, 20, 40]), "two rows exchanged a value");
        assert_ne!(before, row(vec![10, 21, 29, 40]));
        assert_ne!(one(Float64Array::from(vec![0.0])), one(Float64Array::from(vec![-0.0])));
        // Two equal rows must not cancel each other.
        assert_ne!(one(Int64Array::from(vec![5, 5, 1])), one(Int64Array::from(vec![6, 6, 1])));
    }

    #[test]
    fn lists_differ_by_their_order_their_nulls_and_their_boundaries() {
        let list = |rows: Vec<Option<Vec<Option<i32>>>>| {
            one(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
        };
        let all = [
            list(vec![Some(vec![Some(1), Some(2)])]),
            list(vec![Some(vec![Some(2), Some(1)])]),
            list(vec![Some(vec![Some(1), None, Some(2)])]),
            list(vec![Some(vec![])]),
            list(vec![None]),
            list(vec![Some(vec![Some(1)]), Some(vec![Some(2)])]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| one != other), "{at}");
        }
    }

    proptest! {
        #[test]
        fn neither_order_nor_batches_matter(
            values in proptest::collection::vec((any::<Option<i64>>(), ".{0,3}"), 0..40),
            cut in 0usize..40,
        ) {
            let batch = |rows: &[(Option<i64>, String)]| {
                let numbers: Int64Array = rows.iter().map(|(number, _)| *number).collect();
                let texts: StringArray = rows.iter().map(|(_, text)| Some(text.as_str())).collect();
                of(&[("n", Role::Field, Arc::new(numbers)), ("t", Role::Tag, Arc::new(texts))])
            };
            let whole = batch(&values);
            let mut reversed = values.clone();
            reversed.reverse();
            let (first, second) = reversed.split_at(cut.min(values.len()));
            let mut parts = batch(first);
            parts.merge(batch(second));
            prop_assert_eq!(whole, parts);
            if let Some((number, _)) = reversed.first_mut() {
                *number = number.map_or(Some(0), |number| Some(number ^ 1));
                prop_assert_ne!(whole, batch(&reversed));
            }
        }
    }
}
