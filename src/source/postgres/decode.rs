//! SYNC, the streaming path: decodes rows in PostgreSQL's binary format into Arrow arrays, without an allocation for each
//! value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, ListArray,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
};
use arrow::array::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};

use crate::source::postgres::field::{Rejected, decimal, exact, field, too_narrow};
use crate::source::postgres::types::{Kind, element_field, interval_fields};
use crate::source::relational::type_overrides::TypeOverride;

/// The days, and the microseconds, from 1970 to 2000, from which PostgreSQL counts.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const NOT_UTF8: TypeOverride = TypeOverride::Bytes("text that is not UTF-8");
/// PostgreSQL's `24:00:00`, which Arrow's time of day cannot hold.
const DAY_MICROS: i64 = 86_400_000_000;

/// The rows of a batch, column by column.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

impl Rows {
    pub(crate) fn new(schema: SchemaRef, kinds: &[Kind]) -> Self {
        Self { schema, columns: kinds.iter().map(Values::new).collect(), rows: 0, bytes: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the values as they were sent.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row, which has a length (-1 for null) and that many bytes for each column. An error names the column.
    #[inline]
    pub(crate) fn push(&mut self, mut row: &[u8]) -> Result<(), (usize, Rejected)> {
        self.bytes += row.len();
        for (at, column) in self.columns.iter_mut().enumerate() {
            let (value, rest) = field(row).ok_or((at, Rejected::Malformed))?;
            row = rest;
            match value {
                Some(value) => column.push(value).map_err(|rejected| (at, rejected))?,
                None => column.push_null(),
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows so far as a batch; an error names a column of text that is not UTF-8.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, (usize, TypeOverride)> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter_mut().enumerate() {
            arrays.push(column.finish().ok_or((at, NOT_UTF8))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        // This cannot fail: the types of the schema and of the arrays both follow from the kinds.
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|_| (0, NOT_UTF8))
    }
}

/// The values of one column.
struct Values {
    nulls: NullBufferBuilder,
    store: Store,
}

enum Store {
    Bool(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Oid(Vec<u32>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp { values: Vec<i64>, utc: bool },
    Interval { months: Vec<i32>, days: Vec<i32>, micros: Vec<i64> },
    Uuid(Vec<u8>),
    Bytes(Spans),
    Text(Spans, Form),
    List { ends: Vec<i32>, elements: Box<Values>, kind: Kind },
}

/// How the server wraps a text.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Padded,
    Jsonb,
}

/// Values of different lengths, one after the other.
struct Spans {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Spans {
    fn new() -> Self {
        Self { ends: vec![0], bytes: Vec::new() }
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Result<(), Rejected> {
        self.bytes.extend_from_slice(value);
        // A batch ends long before this, so only a single value can be this large.
        let end = i32::try_from(self.bytes.len());
        self.ends.push(end.map_err(|_| too_narrow("a value of more than 2 GiB"))?);
        Ok(())
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        // The value after a huge one is usually not as large.
        let room = Vec::with_capacity(self.bytes.len().min(1 << 20));
        let bytes = std::mem::replace(&mut self.bytes, room);
        (OffsetBuffer::new(ends.into()), bytes.into())
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> PrimitiveArray<T> {
    let room = Vec::with_capacity(values.len());
    PrimitiveArray::new(ScalarBuffer::from(std::mem::replace(values, room)), nulls)
}

impl Values {
    fn new(kind: &Kind) -> Self {
        let store = match kind {
            Kind::Bool => Store::Bool(BooleanBufferBuilder::new(0)),
            Kind::Int16 => Store::Int16(Vec::new()),
            Kind::Int32 => Store::Int32(Vec::new()),
            Kind::Int64 => Store::Int64(Vec::new()),
            Kind::Oid => Store::Oid(Vec::new()),
            Kind::Float32 => Store::Float32(Vec::new()),
            Kind::Float64 => Store::Float64(Vec::new()),
            Kind::Decimal(precision, scale) => {
                Store::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            Kind::Date => Store::Date(Vec::new()),
            Kind::Time => Store::Time(Vec::new()),
            Kind::Timestamp { utc } => Store::Timestamp { values: Vec::new(), utc: *utc },
            Kind::Interval => {
                Store::Interval { months: Vec::new(), days: Vec::new(), micros: Vec::new() }
            }
            Kind::Uuid => Store::Uuid(Vec::new()),
            Kind::Bytes => Store::Bytes(Spans::new()),
            Kind::Text | Kind::Json => Store::Text(Spans::new(), Form::Plain),
            Kind::Padded => Store::Text(Spans::new(), Form::Padded),
            Kind::Jsonb => Store::Text(Spans::new(), Form::Jsonb),
            Kind::List(element) => Store::List {
                ends: vec![0],
                elements: Box::new(Self::new(element)),
                kind: Kind::clone(element),
            },
        };
        Self { nulls: NullBufferBuilder::new(0), store }
    }

    fn len(&self) -> usize {
        self.nulls.len()
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Result<(), Rejected> {
        match &mut self.store {
            Store::Bool(values) => values.append(exact::<1>(value)?[0] != 0),
            Store::Int16(values) => values.push(i16::from_be_bytes(exact(value)?)),
            Store::Int32(values) => values.push(i32::from_be_bytes(exact(value)?)),
            Store::Int64(values) => values.push(i64::from_be_bytes(exact(value)?)),
            Store::Oid(values) => values.push(u32::from_be_bytes(exact(value)?)),
            Store::Float32(values) => values.push(f32::from_be_bytes(exact(value)?)),
            Store::Float64(values) => values.push(f64::from_be_bytes(exact(value)?)),
            Store::Decimal { values, precision, scale } => {
                values.push(decimal(value, *precision, *scale)?);
            }
            Store::Date(values) => {
                let days = match i32::from_be_bytes(exact(value)?) {
                    i32::MIN | i32::MAX => return Err(too_narrow("infinity")),
                    days => days.checked_add(EPOCH_DAYS),
                };
                values.push(days.ok_or(too_narrow("a date beyond the range of 32 bits of days"))?);
            }
            Store::Time(values) => match i64::from_be_bytes(exact(value)?) {
                micros @ 0..DAY_MICROS => values.push(micros),
                ..0 => return Err(Rejected::Malformed),
                _ => return Err(too_narrow("24:00:00")),
            },
            Store::Timestamp { values, .. } => {
                let micros = match i64::from_be_bytes(exact(value)?) {
                    i64::MIN | i64::MAX => return Err(too_narrow("infinity")),
                    micros => micros.checked_add(EPOCH_MICROS),
                };
                values.push(micros.ok_or(too_narrow("a time after the year 294247"))?);
            }
            Store::Interval { months, days, micros } => {
                let bytes = exact::<16>(value)?;
                let (of_micros, of_days, of_months) = (
                    i64::from_be_bytes(exact(&bytes[..8])?),
                    i32::from_be_bytes(exact(&bytes[8..12])?),
                    i32::from_be_bytes(exact(&bytes[12..])?),
                );
                // Intervals can be infinite since version 17.
                if (of_days, of_months) == (i32::MAX, i32::MAX)
                    || (of_days, of_months) == (i32::MIN, i32::MIN)
                {
                    return Err(too_narrow("infinity"));
                }
                micros.push(of_micros);
                days.push(of_days);
                months.push(of_months);
            }
            Store::Uuid(values) => values.extend_from_slice(&exact::<16>(value)?),
            Store::Bytes(spans) => spans.push(value)?,
            Store::Text(spans, Form::Plain) => spans.push(value)?,
            Store::Text(spans, Form::Padded) => {
                let end = value.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                spans.push(&value[..end])?;
            }
            Store::Text(spans, Form::Jsonb) => match value.split_first() {
                Some((1, text)) => spans.push(text)?,
                _ => return Err(Rejected::Malformed),
            },
            Store::List { ends, elements, .. } => {
                list(value, elements)?;
                let end = i32::try_from(elements.len());
                ends.push(end.map_err(|_| too_narrow("a list of more than 2³¹ elements"))?);
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    #[inline]
    fn push_null(&mut self) {
        match &mut self.store {
            Store::Bool(values) => values.append(false),
            Store::Int16(values) => values.push(0),
            Store::Int32(values) | Store::Date(values) => values.push(0),
            Store::Int64(values) | Store::Time(values) => values.push(0),
            Store::Timestamp { values, .. } => values.push(0),
            Store::Oid(values) => values.push(0),
            Store::Float32(values) => values.push(0.0),
            Store::Float64(values) => values.push(0.0),
            Store::Decimal { values, .. } => values.push(0),
            Store::Interval { months, days, micros } => {
                months.push(0);
                days.push(0);
                micros.push(0);
            }
            Store::Uuid(values) => values.extend_from_slice(&[0; 16]),
            Store::Bytes(spans) | Store::Text(spans, _) => {
                spans.ends.push(spans.ends.last().copied().unwrap_or_default());
            }
            Store::List { ends, .. } => ends.push(ends.last().copied().unwrap_or_default()),
        }
        self.nulls.append_null();
    }

    /// The array; `None` if a text is not UTF-8.
    fn finish(&mut self) -> Option<ArrayRef> {
        let rows = self.nulls.len();
        let nulls = self.nulls.finish();
        Some(match &mut self.store {
            Store::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Store::Int16(values) => Arc::new(primitive::<Int16Type>(values, nulls)),
            Store::Int32(values) => Arc::new(primitive::<Int32Type>(values, nulls)),
            Store::Int64(values) => Arc::new(primitive::<Int64Type>(values, nulls)),
            Store::Oid(values) => Arc::new(primitive::<UInt32Type>(values, nulls)),
            Store::Float32(values) => Arc::new(primitive::<Float32Type>(values, nulls)),
            Store::Float64(values) => Arc::new(primitive::<Float64Type>(values, nulls)),
            Store::Decimal { values, precision, scale } => {
                let values = ScalarBuffer::from(std::mem::take(values));
                let kind = DataType::Decimal128(*precision, *scale);
                Arc::new(Decimal128Array::new(values, nulls).with_data_type(kind))
            }
            Store::Date(values) => Arc::new(primitive::<Date32Type>(values, nulls)),
            Store::Time(values) => Arc::new(primitive::<Time64MicrosecondType>(values, nulls)),
            Store::Timestamp { values, utc } => {
                let array = primitive::<TimestampMicrosecondType>(values, nulls);
                Arc::new(array.with_timezone_opt(utc.then_some("UTC")))
            }
            Store::Interval { months, days, micros } => Arc::new(StructArray::new(
                interval_fields(),
                vec![
                    Arc::new(primitive::<Int32Type>(months, None)),
                    Arc::new(primitive::<Int32Type>(days, None)),
                    Arc::new(primitive::<Int64Type>(micros, None)),
                ],
                nulls,
            )),
            Store::Uuid(values) => {
                let bytes = Buffer::from(std::mem::take(values));
                Arc::new(FixedSizeBinaryArray::new(16, bytes, nulls))
            }
            Store::Bytes(spans) => {
                let (ends, bytes) = spans.take();
                Arc::new(BinaryArray::new(ends, bytes, nulls))
            }
            Store::Text(spans, _) => {
                let (ends, bytes) = spans.take();
                Arc::new(StringArray::try_new(ends, bytes, nulls).ok()?)
            }
            Store::List { ends, elements, kind } => {
                let mut room = Vec::with_capacity(rows + 1);
                room.push(0);
                let ends = OffsetBuffer::new(std::mem::replace(ends, room).into());
                let elements = elements.finish()?;
                Arc::new(ListArray::new(element_field(kind), ends, elements, nulls))
            }
        })
    }
}

/// Reads an array, which must be empty or have one dimension that is counted from 1.
fn list(value: &[u8], elements: &mut Values) -> Result<(), Rejected> {
    let number = |at: usize| -> Result<i32, Rejected> {
        let bytes = value.get(at..at + 4).ok_or(Rejected::Malformed)?;
        Ok(i32::from_be_bytes(exact(bytes)?))
    };
    match number(0)? {
        0 => return Ok(()),
        1 => {}
        _ => return Err(too_narrow("an array of several dimensions")),
    }
    let (count, first) = (number(12)?, number(16)?);
    if first != 1 {
        return Err(too_narrow("an array that is not counted from 1"));
    }
    let mut rest = value.get(20..).ok_or(Rejected::Malformed)?;
    for _ in 0..count {
        let (element, after) = field(rest).ok_or(Rejected::Malformed)?;
        rest = after;
        match element {
            Some(element) => elements.push(element)?,
            None => elements.push_null(),
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(Rejected::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    fn one(kind: &Kind, values: &[Option<&[u8]>]) -> Result<ArrayRef, (usize, Rejected)> {
        let field = Field::new("c", kind.data_type(), true);
        let mut rows = Rows::new(Arc::new(Schema::new(vec![field])), std::slice::from_ref(kind));
        for value in values {
            let mut row = Vec::new();
            match value {
                None => row.extend((-1i32).to_be_bytes()),
                Some(value) => {
                    row.extend((value.len() as i32).to_be_bytes());
                    row.extend_from_slice(value);
                }
            }
            rows.push(&row)?;
        }
        let batch = rows.finish().map_err(|(column, other)| (column, Rejected::TooNarrow(other)));
        Ok(Arc::clone(batch?.column(0)))
    }

    fn cannot(kind: &Kind, value: &[u8]) -> bool {
        let (_, rejected) = one(kind, &[Some(value)]).unwrap_err();
        matches!(rejected, Rejected::TooNarrow(_))
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let element = Box::new(Kind::Text);
            for kind in [
                Kind::Bool, Kind::Decimal(10, 2), Kind::Interval, Kind::Padded, Kind::Jsonb,
                Kind::List(element), Kind::Time, Kind::Date, Kind::Uuid,
            ] {
                let _ = one(&kind, &[Some(&bytes), None]);
                let field = Field::new("c", kind.data_type(), true);
                let _ = Rows::new(Arc::new(Schema::new(vec![field])), &[kind]).push(&bytes);
            }
        }
    }

    #[test]
    fn values_that_a_type_cannot_hold_are_refused() {
        let timestamp = Kind::Timestamp { utc: true };
        assert!(cannot(&timestamp, &i64::MAX.to_be_bytes()));
        assert!(cannot(&timestamp, &i64::MIN.to_be_bytes()));
        assert!(cannot(&timestamp, &(i64::MAX - 1).to_be_bytes()));
        assert!(cannot(&Kind::Date, &i32::MAX.to_be_bytes()));
        assert!(cannot(&Kind::Time, &DAY_MICROS.to_be_bytes()));
        let before_midnight = one(&Kind::Time, &[Some(&(-1i64).to_be_bytes())]);
        assert_eq!(before_midnight.unwrap_err().1, Rejected::Malformed);
    }

    #[test]
    fn lists_have_one_dimension_or_none() {
        let strings = |dimensions: i32, first: i32| {
            let mut bytes = Vec::new();
            for number in [dimensions, 1, 25, 2, first] {
                bytes.extend(number.to_be_bytes());
            }
            bytes.extend(1i32.to_be_bytes());
            bytes.extend(b"x");
            bytes.extend((-1i32).to_be_bytes());
            bytes
        };
        let kind = Kind::List(Box::new(Kind::Text));
        let empty = [0u8; 12];
        let array = one(&kind, &[Some(&strings(1, 1)), None, Some(&empty)]).unwrap();
        let array = array.as_list::<i32>();
        assert_eq!(array.value(0).as_string::<i32>().value(0), "x");
        assert!(array.value(0).is_null(1) && array.is_null(1));
        assert_eq!(array.value(2).len(), 0);
        assert!(cannot(&kind, &strings(2, 1)) && cannot(&kind, &strings(1, 0)));
    }

    #[test]
    fn a_padded_text_is_what_the_server_shows() {
        let array = one(&Kind::Padded, &[Some(b"ab   "), Some(b"   "), Some(b" a")]).unwrap();
        let found: Vec<_> = array.as_string::<i32>().iter().flatten().collect();
        assert_eq!(found, ["ab", "", " a"]);
    }
}
