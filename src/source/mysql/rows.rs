//! Decodes binary rows into Arrow, column by column: each value goes straight from its packet into the buffer that
//! becomes the array.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, NullBufferBuilder, PrimitiveArray, RecordBatch,
    RecordBatchOptions, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};

use crate::error::{Error, Result};
use crate::source::mysql::charset::push_latin1;
use crate::source::mysql::packet::Parts;
use crate::source::mysql::time::{Calendar, DateTime, push_time};
use crate::source::mysql::types::Decode;
use crate::source::relational::type_overrides::TypeOverride;
use crate::source::relational::{BATCH_BYTES, BATCH_ROWS};

/// Rows on their way into a batch.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

/// What a column becomes when it holds bytes that are not text of its charset.
pub(super) const NOT_TEXT: TypeOverride =
    TypeOverride::Bytes("bytes that are not text of its charset");
const NO_DATE: TypeOverride = TypeOverride::Text("an invalid date such as 0000-00-00");

/// The columns, by their positions in the table, with values that their types cannot hold.
pub(crate) type TooNarrow = Vec<(usize, TypeOverride)>;

impl Rows {
    pub(crate) fn new(schema: SchemaRef, decodes: &[Decode]) -> Self {
        let columns = schema.fields().iter().zip(decodes);
        let columns = columns
            .map(|(field, decode)| Column::new(field.data_type().clone(), *decode))
            .collect();
        Self { schema, columns, rows: 0, bytes: 0 }
    }

    /// Takes a row, without its first byte; `None` if it is malformed.
    #[inline]
    pub(crate) fn push(&mut self, row: &[u8]) -> Option<()> {
        let mut parts = Parts(row);
        let nulls = parts.take((self.columns.len() + 2).div_ceil(8))?;
        for (at, column) in self.columns.iter_mut().enumerate() {
            let bit = at + 2;
            match nulls[bit / 8] >> (bit % 8) & 1 {
                0 => {
                    column.values.push(&mut parts)?;
                    column.nulls.append_non_null();
                }
                _ => {
                    column.values.push_null();
                    column.nulls.append_null();
                }
            }
        }
        self.rows += 1;
        self.bytes += row.len();
        parts.0.is_empty().then_some(())
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows so far as a batch, or the columns whose types are too narrow.
    pub(crate) fn finish(&mut self) -> Result<Result<RecordBatch, TooNarrow>> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut too_narrow = Vec::new();
        for (at, column) in self.columns.iter_mut().enumerate() {
            match column.finish() {
                Some(array) => arrays.push(array),
                None if column.data_type == DataType::Utf8 => too_narrow.push((at, NOT_TEXT)),
                None => too_narrow.push((at, NO_DATE)),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        if !too_narrow.is_empty() {
            return Ok(Err(too_narrow));
        }
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        batch.map(Ok).map_err(|error| Error::stop(format!("rows as a batch: {error}")))
    }
}

struct Column {
    data_type: DataType,
    values: Values,
    nulls: NullBufferBuilder,
}

/// The values of a column so far, with a placeholder for each null.
enum Values {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: u8 },
    Date { values: Vec<i32>, calendar: Calendar, odd: bool },
    DateTime { values: Vec<i64>, calendar: Calendar, odd: bool },
    Bytes { ends: Vec<i32>, bytes: Vec<u8>, form: Form },
}

/// What the bytes of a column are decoded from.
#[derive(Clone, Copy)]
enum Form {
    AsTheyAre,
    Latin1,
    Date,
    DateTime(u8),
    Time(u8),
}

impl Values {
    fn new(decode: Decode) -> Self {
        let bytes = |form| Self::Bytes { ends: vec![0], bytes: Vec::new(), form };
        match decode {
            Decode::I8 => Self::I8(Vec::new()),
            Decode::I16 => Self::I16(Vec::new()),
            Decode::I32 => Self::I32(Vec::new()),
            Decode::I64 => Self::I64(Vec::new()),
            Decode::U8 => Self::U8(Vec::new()),
            Decode::U16 => Self::U16(Vec::new()),
            Decode::U32 => Self::U32(Vec::new()),
            Decode::U64 => Self::U64(Vec::new()),
            Decode::F32 => Self::F32(Vec::new()),
            Decode::F64 => Self::F64(Vec::new()),
            Decode::Decimal { precision, scale } => {
                Self::Decimal { values: Vec::new(), precision, scale }
            }
            Decode::Date => {
                Self::Date { values: Vec::new(), calendar: Calendar::default(), odd: false }
            }
            Decode::DateTime => {
                Self::DateTime { values: Vec::new(), calendar: Calendar::default(), odd: false }
            }
            Decode::Bytes | Decode::Utf8 => bytes(Form::AsTheyAre),
            Decode::Latin1 => bytes(Form::Latin1),
            Decode::DateText => bytes(Form::Date),
            Decode::DateTimeText { decimals } => bytes(Form::DateTime(decimals)),
            Decode::TimeText { decimals } => bytes(Form::Time(decimals)),
        }
    }

    #[inline]
    fn push(&mut self, parts: &mut Parts<'_>) -> Option<()> {
        match self {
            Self::I8(values) => values.push(i8::from_le_bytes(parts.array()?)),
            Self::I16(values) => values.push(i16::from_le_bytes(parts.array()?)),
            Self::I32(values) => values.push(i32::from_le_bytes(parts.array()?)),
            Self::I64(values) => values.push(i64::from_le_bytes(parts.array()?)),
            Self::U8(values) => values.push(u8::from_le_bytes(parts.array()?)),
            Self::U16(values) => values.push(u16::from_le_bytes(parts.array()?)),
            Self::U32(values) => values.push(u32::from_le_bytes(parts.array()?)),
            Self::U64(values) => values.push(u64::from_le_bytes(parts.array()?)),
            Self::F32(values) => values.push(f32::from_le_bytes(parts.array()?)),
            Self::F64(values) => values.push(f64::from_le_bytes(parts.array()?)),
            Self::Decimal { values, precision, scale } => {
                let value = decimal(parts.bytes()?, *scale)?;
                // Parquet would silently cut what is larger.
                let fits = value.unsigned_abs() < 10u128.checked_pow(u32::from(*precision))?;
                values.push(Some(value).filter(|_| fits)?);
            }
            Self::Date { values, calendar, odd } => {
                let days = calendar.days(DateTime::read(parts)?);
                *odd |= days.is_none();
                values.push(days.unwrap_or_default());
            }
            Self::DateTime { values, calendar, odd } => {
                let micros = calendar.micros(DateTime::read(parts)?);
                *odd |= micros.is_none();
                values.push(micros.unwrap_or_default());
            }
            Self::Bytes { ends, bytes, form } => {
                match *form {
                    Form::AsTheyAre => bytes.extend_from_slice(parts.bytes()?),
                    Form::Latin1 => push_latin1(bytes, parts.bytes()?),
                    Form::Date => DateTime::read(parts)?.push_date(bytes),
                    Form::DateTime(decimals) => DateTime::read(parts)?.push(decimals, bytes),
                    Form::Time(decimals) => push_time(parts, decimals, bytes)?,
                }
                ends.push(i32::try_from(bytes.len()).ok()?);
            }
        }
        Some(())
    }

    fn push_null(&mut self) {
        match self {
            Self::I8(values) => values.push(0),
            Self::I16(values) => values.push(0),
            Self::I32(values) | Self::Date { values, .. } => values.push(0),
            Self::I64(values) | Self::DateTime { values, .. } => values.push(0),
            Self::U8(values) => values.push(0),
            Self::U16(values) => values.push(0),
            Self::U32(values) => values.push(0),
            Self::U64(values) => values.push(0),
            Self::F32(values) => values.push(0.0),
            Self::F64(values) => values.push(0.0),
            Self::Decimal { values, .. } => values.push(0),
            Self::Bytes { ends, .. } => ends.push(ends.last().copied().unwrap_or_default()),
        }
    }
}

impl Column {
    fn new(data_type: DataType, decode: Decode) -> Self {
        Self { data_type, values: Values::new(decode), nulls: NullBufferBuilder::new(BATCH_ROWS) }
    }

    /// The array; `None` if a value does not fit the type.
    fn finish(&mut self) -> Option<ArrayRef> {
        let nulls = self.nulls.finish();
        Some(match &mut self.values {
            Values::I8(values) => primitive::<Int8Type>(values, nulls),
            Values::I16(values) => primitive::<Int16Type>(values, nulls),
            Values::I32(values) => primitive::<Int32Type>(values, nulls),
            Values::I64(values) => primitive::<Int64Type>(values, nulls),
            Values::U8(values) => primitive::<UInt8Type>(values, nulls),
            Values::U16(values) => primitive::<UInt16Type>(values, nulls),
            Values::U32(values) => primitive::<UInt32Type>(values, nulls),
            Values::U64(values) => primitive::<UInt64Type>(values, nulls),
            Values::F32(values) => primitive::<Float32Type>(values, nulls),
            Values::F64(values) => primitive::<Float64Type>(values, nulls),
            Values::Decimal { values, .. } => {
                let array = Decimal128Array::new(taken(values).into(), nulls);
                Arc::new(array.with_data_type(self.data_type.clone()))
            }
            Values::Date { odd: true, .. } | Values::DateTime { odd: true, .. } => return None,
            Values::Date { values, .. } => primitive::<Date32Type>(values, nulls),
            Values::DateTime { values, .. } => {
                let values = ScalarBuffer::from(taken(values));
                let array = PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls);
                Arc::new(array.with_data_type(self.data_type.clone()))
            }
            Values::Bytes { ends, bytes, .. } => {
                let rows = ends.len();
                let offsets = OffsetBuffer::new(taken(ends).into());
                *ends = Vec::with_capacity(rows);
                ends.push(0);
                let bytes = taken(bytes).into();
                match self.data_type {
                    DataType::Utf8 => Arc::new(StringArray::try_new(offsets, bytes, nulls).ok()?),
                    _ => Arc::new(BinaryArray::new(offsets, bytes, nulls)),
                }
            }
        })
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(taken(values).into(), nulls))
}

/// Takes the values and leaves room for as many more, but not for the bytes of a huge value.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len().min(BATCH_BYTES));
    std::mem::replace(values, room)
}

/// A decimal from its text, which must have as many digits after the point as its type.
#[inline]
fn decimal(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value: u128 = 0;
    let mut after = None;
    let mut short: u64 = 0;
    let mut count = 0u32;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                short = short * 10 + u64::from(byte - b'0');
                count += 1;
                // Eighteen digits always fit 64 bits, whose arithmetic is much faster.
                if count == 18 {
                    value = value.checked_mul(10u128.pow(18))?.checked_add(u128::from(short))?;
                    (short, count) = (0, 0);
                }
                if let Some(after) = &mut after {
                    *after = u8::checked_add(*after, 1)?;
                }
            }
            b'.' if after.is_none() => after = Some(0u8),
            _ => return None,
        }
    }
    value = value.checked_mul(10u128.pow(count))?.checked_add(u128::from(short))?;
    let value = i128::try_from(value).ok()?;
    (after.unwrap_or_default() == scale).then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn decimals_are_exact() {
        let largest = "-99999999999999999999999999999999999999";
        assert_eq!(decimal(largest.as_bytes(), 0), Some(-(10i128.pow(38) - 1)));
        assert_eq!(decimal(b"0.00000000000000000001", 20), Some(1));
        assert_eq!(decimal(b"-12.50", 2), Some(-1250));
        assert_eq!(decimal(b"0012", 0), Some(12));
        for odd in [&b"1.5"[..], b"1.234", b"nan", b"1.2.3"] {
            assert_eq!(decimal(odd, 2), None);
        }
        // As many digits more as a byte can count.
        let long = [&b"0."[..], &[b'0'; 258]].concat();
        assert_eq!(decimal(&long, 2), None);
    }

    #[test]
    fn a_value_that_no_server_has_is_malformed() {
        let pushed = |kind: DataType, decode, value: &[u8]| {
            let schema = Arc::new(Schema::new(vec![Field::new("c", kind, true)]));
            Rows::new(schema, &[decode]).push(&[&[0], value].concat())
        };
        let decimal = |text: &str| {
            let value = [&[text.len() as u8], text.as_bytes()].concat();
            pushed(DataType::Decimal128(4, 2), Decode::Decimal { precision: 4, scale: 2 }, &value)
        };
        assert_eq!(decimal("-99.99"), Some(()));
        assert_eq!(decimal("100.00"), None, "Parquet would cut it to other digits");
        let time = |hour, minute, second, micros: u32| {
            let head = [11, 0xe8, 7, 1, 2, hour, minute, second];
            let value = [&head[..], &micros.to_le_bytes()].concat();
            pushed(DataType::Utf8, Decode::DateTimeText { decimals: 6 }, &value)
        };
        assert_eq!(time(23, 59, 59, 999_999), Some(()));
        for (hour, minute, second, micros) in
            [(24, 0, 0, 0), (0, 60, 0, 0), (0, 0, 60, 0), (0, 0, 0, 1_000_000)]
        {
            assert_eq!(time(hour, minute, second, micros), None);
        }
    }

    #[test]
    fn a_row_is_read_to_its_last_byte() {
        let fields = [DataType::Int32, DataType::Utf8, DataType::Date32];
        let fields = fields.iter().map(|kind| Field::new("c", kind.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut rows = Rows::new(schema, &[Decode::I32, Decode::Utf8, Decode::Date]);
        rows.push(&[0, 1, 0, 0, 0, 2, b'a', b'b', 4, 0xb2, 7, 1, 1]).unwrap();
        rows.push(&[0b1_1100]).unwrap();
        assert_eq!(rows.push(&[0, 1, 0, 0, 0, 2, b'a']), None);
        let mut rows =
            Rows::new(Arc::clone(&rows.schema), &[Decode::I32, Decode::Utf8, Decode::Date]);
        rows.push(&[0, 1, 0, 0, 0, 1, 0xff, 0]).unwrap();
        assert_eq!(rows.finish().unwrap().unwrap_err(), [(1, NOT_TEXT), (2, NO_DATE)]);
    }
}
