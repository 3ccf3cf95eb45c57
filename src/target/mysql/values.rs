//! PURE: writes rows for `LOAD DATA` or `INSERT`, so that each value is stored exactly.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, PrimitiveArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Rows are lines of a file, with tabs between the fields.
    Load,
    /// Rows are lists of values in a statement.
    Insert,
}

/// The values of a column of a batch, and which of them are null.
pub(super) struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    typed: Typed<'a>,
}

/// The values of a column by their type.
enum Typed<'a> {
    I8(&'a PrimitiveArray<Int8Type>),
    I16(&'a PrimitiveArray<Int16Type>),
    I32(&'a PrimitiveArray<Int32Type>),
    I64(&'a PrimitiveArray<Int64Type>),
    U8(&'a PrimitiveArray<UInt8Type>),
    U16(&'a PrimitiveArray<UInt16Type>),
    U32(&'a PrimitiveArray<UInt32Type>),
    U64(&'a PrimitiveArray<UInt64Type>),
    /// Years with this number of digits. From fewer digits the server would make another year.
    Year(&'a PrimitiveArray<Int16Type>, usize),
    F32(&'a Float32Array),
    F64(&'a Float64Array),
    Decimal(&'a Decimal128Array, usize),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
}

const DAY_MICROS: i64 = 86_400_000_000;

impl<'a> Values<'a> {
    /// The values of an array; `None` if no export of MySQL writes its type. `source_type` is the type of the column.
    pub(super) fn of(array: &'a ArrayRef, source_type: &str) -> Option<Self> {
        fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> &PrimitiveArray<T> {
            array.as_primitive::<T>()
        }
        let typed = match array.data_type() {
            DataType::Int16 if source_type.starts_with("year(2)") => {
                Typed::Year(primitive(array), 2)
            }
            DataType::Int16 if source_type.starts_with("year") => Typed::Year(primitive(array), 4),
            DataType::Int8 => Typed::I8(primitive(array)),
            DataType::Int16 => Typed::I16(primitive(array)),
            DataType::Int32 => Typed::I32(primitive(array)),
            DataType::Int64 => Typed::I64(primitive(array)),
            DataType::UInt8 => Typed::U8(primitive(array)),
            DataType::UInt16 => Typed::U16(primitive(array)),
            DataType::UInt32 => Typed::U32(primitive(array)),
            DataType::UInt64 => Typed::U64(primitive(array)),
            DataType::Float32 => Typed::F32(primitive::<Float32Type>(array)),
            DataType::Float64 => Typed::F64(primitive::<Float64Type>(array)),
            DataType::Decimal128(_, scale) => {
                Typed::Decimal(primitive::<Decimal128Type>(array), usize::try_from(*scale).ok()?)
            }
            DataType::Date32 => Typed::Date(primitive::<Date32Type>(array)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Typed::Timestamp(primitive::<TimestampMicrosecondType>(array))
            }
            DataType::Utf8 => Typed::Text(array.as_string()),
            DataType::Binary => Typed::Bytes(array.as_binary()),
            _ => return None,
        };
        Some(Self { nulls: array.nulls(), typed })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Whether the values are bytes, and not text.
    pub(super) fn are_bytes(&self) -> bool {
        matches!(self.typed, Typed::Bytes(_))
    }

    /// Whether a value is an empty text.
    pub(super) fn is_blank(&self, row: usize) -> bool {
        let is_empty = matches!(self.typed, Typed::Text(values) if values.value(row).is_empty());
        is_empty && !self.is_null(row)
    }

    fn push(&self, row: usize, style: Style, out: &mut Vec<u8>) {
        if self.is_null(row) {
            let null: &[u8] = if style == Style::Load { b"\\N" } else { b"NULL" };
            return out.extend_from_slice(null);
        }
        match &self.typed {
            Typed::I8(values) => integer(values.value(row), out),
            Typed::I16(values) => integer(values.value(row), out),
            Typed::I32(values) => integer(values.value(row), out),
            Typed::I64(values) => integer(values.value(row), out),
            Typed::U8(values) => integer(values.value(row), out),
            Typed::U16(values) => integer(values.value(row), out),
            Typed::U32(values) => integer(values.value(row), out),
            Typed::U64(values) => integer(values.value(row), out),
            Typed::Decimal(values, scale) => decimal(values.value(row), *scale, out),
            Typed::Text(values) => text(values.value(row).as_bytes(), style, out),
            Typed::Bytes(values) => hex(values.value(row), style, out),
            // Floats are quoted in a statement, because the number `-0.0` would lose its sign.
            Typed::Year(values, width) => quoted(style, out, |out| {
                padded(values.value(row).unsigned_abs().into(), *width, out);
            }),
            // The server rounds the double once, and gets the same float.
            Typed::F32(values) => quoted(style, out, |out| double(values.value(row).into(), out)),
            Typed::F64(values) => quoted(style, out, |out| double(values.value(row), out)),
            Typed::Date(values) => quoted(style, out, |out| date(values.value(row).into(), out)),
            Typed::Timestamp(values) => quoted(style, out, |out| time(values.value(row), out)),
        }
    }
}

/// Appends a row and its end.
pub(super) fn row(values: &[Values<'_>], at: usize, style: Style, out: &mut Vec<u8>) {
    if style == Style::Insert {
        out.push(b'(');
    }
    for (number, values) in values.iter().enumerate() {
        if number > 0 {
            out.push(if style == Style::Load { b'\t' } else { b',' });
        }
        values.push(at, style, out);
    }
    out.push(if style == Style::Load { b'\n' } else { b')' });
}

fn quoted(style: Style, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    let quote: &[u8] = if style == Style::Insert { b"'" } else { b"" };
    out.extend_from_slice(quote);
    value(out);
    out.extend_from_slice(quote);
}

fn integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

fn double(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(ryu::Buffer::new().format(value).as_bytes());
}

fn decimal(value: i128, scale: usize, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let (before, after) = digits.split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if before.is_empty() { b"0" } else { before });
    if scale > 0 {
        out.push(b'.');
        out.resize(out.len() + scale - after.len(), b'0');
        out.extend_from_slice(after);
    }
}

/// A date by its days since 1970. Years are counted from March, so that a leap day is the last of its year.
fn date(days: i64, out: &mut Vec<u8>) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    padded(year.unsigned_abs(), 4, out);
    out.push(b'-');
    padded(month.unsigned_abs(), 2, out);
    out.push(b'-');
    padded(day.unsigned_abs(), 2, out);
}

fn time(micros: i64, out: &mut Vec<u8>) {
    date(micros.div_euclid(DAY_MICROS), out);
    let micros = micros.rem_euclid(DAY_MICROS).unsigned_abs();
    let seconds = micros / 1_000_000;
    for (sign, part) in [(b' ', seconds / 3600), (b':', seconds / 60 % 60), (b':', seconds % 60)] {
        out.push(sign);
        padded(part, 2, out);
    }
    if !micros.is_multiple_of(1_000_000) {
        out.push(b'.');
        padded(micros % 1_000_000, 6, out);
    }
}

fn text(value: &[u8], style: Style, out: &mut Vec<u8>) {
    let escape = |byte: u8| match (byte, style) {
        (b'\\', _) => Some(b'\\'),
        (0, _) => Some(b'0'),
        (b'\t', Style::Load) => Some(b't'),
        (b'\n', Style::Load) => Some(b'n'),
        (b'\r', Style::Load) => Some(b'r'),
        (b'\'', Style::Insert) => Some(b'\''),
        _ => None,
    };
    quoted(style, out, |out| {
        let mut rest = value;
        while let Some(at) = rest.iter().position(|byte| escape(*byte).is_some()) {
            out.extend_from_slice(&rest[..at]);
            out.extend([Some(b'\\'), escape(rest[at])].into_iter().flatten());
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    });
}

fn hex(value: &[u8], style: Style, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if style == Style::Insert {
        out.push(b'x');
    }
    quoted(style, out, |out| {
        out.reserve(2 * value.len());
        for byte in value {
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;

    fn line(columns: &[(ArrayRef, &str)], style: Style) -> String {
        let values: Vec<_> =
            columns.iter().map(|(array, kind)| Values::of(array, kind).unwrap()).collect();
        let mut out = Vec::new();
        row(&values, 0, style, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_value_has_its_form() {
        let time = |micros| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![micros])) };
        let decimal = |value: i128, scale| -> ArrayRef {
            let array = Decimal128Array::from(vec![value]);
            Arc::new(array.with_precision_and_scale(38, scale).unwrap())
        };
        let year =
            |year: i16| -> ArrayRef { Arc::new(PrimitiveArray::<Int16Type>::from(vec![year])) };
        let columns: Vec<(ArrayRef, &str)> = vec![
            (Arc::new(PrimitiveArray::<UInt64Type>::from(vec![u64::MAX])), "bigint(20) unsigned"),
            (year(0), "year(4)"),
            (year(5), "year(2)"),
            (year(5), "smallint(6)"),
            (Arc::new(Float32Array::from(vec![0.1])), "float"),
            (Arc::new(Float64Array::from(vec![-0.0])), "double"),
            (decimal(-1, 2), "decimal(9,2)"),
            (decimal(12345, 0), "decimal(9,0)"),
            (Arc::new(Date32Array::from(vec![-719_162])), "date"),
            (time(-1), "datetime(6)"),
            (time(1_709_210_096_000_000), "timestamp"),
            (Arc::new(StringArray::from(vec!["a\t'\\\n\r\0é"])), "text"),
            (Arc::new(StringArray::from(vec![None::<&str>])), "text"),
            (Arc::new(BinaryArray::from(vec![&b"\0\xff"[..]])), "blob"),
            (Arc::new(BinaryArray::from(vec![&b""[..]])), "blob"),
        ];
        assert_eq!(
            line(&columns, Style::Load),
            "18446744073709551615\t0000\t05\t5\t0.10000000149011612\t-0.0\t-0.01\t12345\t0001-01-01\t1969-12-31 \
             23:59:59.999999\t2024-02-29 12:34:56\ta\\t'\\\\\\n\\r\\0é\t\\N\t00FF\t\n"
        );
        assert_eq!(
            line(&columns, Style::Insert),
            "(18446744073709551615,'0000','05',5,'0.10000000149011612','-0.0',-0.01,12345,'0001-01-01','1969-12-31 \
             23:59:59.999999','2024-02-29 12:34:56','a\t\\'\\\\\n\r\\0é',NULL,x'00FF',x'')"
        );
    }

    /// Reads a field as the server does.
    fn unescaped(field: &str) -> Option<String> {
        if field == "\\N" {
            return None;
        }
        let mut text = String::new();
        let mut rest = field.chars();
        while let Some(char) = rest.next() {
            text.push(match char {
                '\\' => match rest.next().unwrap() {
                    '0' => '\0',
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                },
                char => char,
            });
        }
        Some(text)
    }

    proptest! {
        #[test]
        fn any_text_comes_back(texts in prop::collection::vec(prop::option::of(any::<String>()), 1..5)) {
            let columns: Vec<(ArrayRef, &str)> = texts
                .iter()
                .map(|text| (Arc::new(StringArray::from(vec![text.as_deref()])) as ArrayRef, "text"))
                .collect();
            let line = line(&columns, Style::Load);
            let fields: Vec<_> = line.strip_suffix('\n').unwrap().split('\t').map(unescaped).collect();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(fields, texts);
        }

        #[test]
        fn a_date_is_that_of_the_calendar(days in -719_162i32..2_932_896) {
            let mut out = Vec::new();
            date(days.into(), &mut out);
            let expected = arrow::temporal_conversions::date32_to_datetime(days).unwrap();
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected.format("%Y-%m-%d").to_string());
        }

        #[test]
        fn a_float_is_the_double_that_rounds_to_it(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut out = Vec::new();
            double(value.into(), &mut out);
            let read: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert_eq!((read as f32).to_bits(), bits);
            prop_assert_eq!(read, f64::from(value));
        }
    }
}
