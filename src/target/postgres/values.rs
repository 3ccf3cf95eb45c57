//! PURE: writes the values of a batch for `COPY … FROM STDIN`: in binary if the target's type has the form of the
//! archive's values, otherwise as text.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt32Type,
};

use crate::source::postgres::types::{Cast, Kind, Types};

/// PostgreSQL counts from 2000. These are the days and the microseconds from 1970 until then.
const EPOCH_DAYS: i32 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;

/// The binary form of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The form follows from its type in the archive.
    Plain,
    /// Text behind the number of the format's version.
    Jsonb,
    /// An array whose elements have the type with this number.
    List(u32, Box<Form>),
}

/// The binary form in which a column of this type in the archive is written into a column of the target; `None` if it
/// is written as text. `is_enum` says that the target's type is an enum, whose binary form is its label.
pub(super) fn form(
    types: &Types,
    oid: u32,
    modifier: i32,
    is_enum: bool,
    archived: &DataType,
) -> Option<Form> {
    if is_enum && archived == &DataType::Utf8 {
        return Some(Form::Plain);
    }
    let (kind, cast) = types.usual(oid, modifier);
    if cast != Cast::None {
        return None;
    }
    match (&kind, archived) {
        (Kind::List(element), DataType::List(child)) => {
            let form = plain(element, child.data_type())?;
            Some(Form::List(types.element(oid)?, Box::new(form)))
        }
        _ => plain(&kind, archived),
    }
}

fn plain(kind: &Kind, archived: &DataType) -> Option<Form> {
    match kind {
        Kind::List(_) => None,
        Kind::Decimal(..) => matches!(archived, DataType::Decimal128(..)).then_some(Form::Plain),
        Kind::Jsonb if archived == &DataType::Utf8 => Some(Form::Jsonb),
        _ => (&kind.data_type() == archived).then_some(Form::Plain),
    }
}

/// The values of a column, and which of them are null.
pub(super) struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    typed: Typed<'a>,
}

/// The values of a column by their type.
enum Typed<'a> {
    Bool(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Oid(&'a UInt32Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Interval(&'a Int32Array, &'a Int32Array, &'a Int64Array),
    Uuid(&'a FixedSizeBinaryArray),
    Bytes(&'a BinaryArray),
    Text(&'a StringArray),
    List(&'a ListArray, Box<Values<'a>>),
}

impl<'a> Values<'a> {
    /// The values of an array; `None` if no export of PostgreSQL writes its type.
    pub(super) fn of(array: &'a dyn Array) -> Option<Self> {
        let typed = match array.data_type() {
            DataType::Boolean => Typed::Bool(array.as_boolean()),
            DataType::Int16 => Typed::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Typed::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Typed::Int64(array.as_primitive::<Int64Type>()),
            DataType::UInt32 => Typed::Oid(array.as_primitive::<UInt32Type>()),
            DataType::Float32 => Typed::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Typed::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => {
                Typed::Decimal(array.as_primitive::<Decimal128Type>(), *scale)
            }
            DataType::Date32 => Typed::Date(array.as_primitive::<Date32Type>()),
            DataType::Time64(TimeUnit::Microsecond) => {
                Typed::Time(array.as_primitive::<Time64MicrosecondType>())
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Typed::Timestamp(array.as_primitive::<TimestampMicrosecondType>(), zone.is_some())
            }
            DataType::Struct(_) => {
                let all = array.as_struct();
                let part = |name: &str| all.column_by_name(name);
                Typed::Interval(
                    part("months")?.as_primitive_opt::<Int32Type>()?,
                    part("days")?.as_primitive_opt::<Int32Type>()?,
                    part("microseconds")?.as_primitive_opt::<Int64Type>()?,
                )
            }
            DataType::FixedSizeBinary(16) => Typed::Uuid(array.as_fixed_size_binary()),
            DataType::Binary => Typed::Bytes(array.as_binary::<i32>()),
            DataType::Utf8 => Typed::Text(array.as_string::<i32>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Typed::List(list, Box::new(Self::of(list.values().as_ref())?))
            }
            _ => return None,
        };
        Some(Self { nulls: array.nulls(), typed })
    }

    fn is_null(&self, at: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(at))
    }

    /// Appends a field in binary: its length and its value.
    pub(super) fn binary(&self, at: usize, form: &Form, out: &mut Vec<u8>) {
        if self.is_null(at) {
            return out.extend_from_slice(&(-1i32).to_be_bytes());
        }
        match &self.typed {
            Typed::Bool(array) => field(&[u8::from(array.value(at))], out),
            Typed::Int16(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Int32(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Int64(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Oid(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Float32(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Float64(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Date(array) => field(&(array.value(at) - EPOCH_DAYS).to_be_bytes(), out),
            Typed::Time(array) => field(&array.value(at).to_be_bytes(), out),
            Typed::Timestamp(array, _) => {
                field(&(array.value(at) - EPOCH_MICROS).to_be_bytes(), out);
            }
            Typed::Uuid(array) => field(array.value(at), out),
            Typed::Bytes(array) => field(array.value(at), out),
            Typed::Text(array) if *form != Form::Jsonb => field(array.value(at).as_bytes(), out),
            _ => {
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                self.long(at, form, out);
                let length = (out.len() - start - 4) as i32;
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    /// Appends a value in binary whose length is only known afterwards.
    fn long(&self, at: usize, form: &Form, out: &mut Vec<u8>) {
        match &self.typed {
            Typed::Decimal(array, scale) => numeric(array.value(at), *scale, out),
            Typed::Interval(months, days, micros) => {
                out.extend(micros.value(at).to_be_bytes());
                out.extend(days.value(at).to_be_bytes());
                out.extend(months.value(at).to_be_bytes());
            }
            Typed::Text(array) => {
                out.push(1);
                out.extend_from_slice(array.value(at).as_bytes());
            }
            Typed::List(array, elements) => {
                let Form::List(oid, form) = form else { return };
                let offsets = array.value_offsets();
                let range = offsets[at] as usize..offsets[at + 1] as usize;
                let has_null = range.clone().any(|at| elements.is_null(at));
                let dimensions = i32::from(!range.is_empty());
                out.extend(dimensions.to_be_bytes());
                out.extend(i32::from(has_null).to_be_bytes());
                out.extend(oid.to_be_bytes());
                if dimensions > 0 {
                    out.extend((range.len() as i32).to_be_bytes());
                    out.extend(1i32.to_be_bytes());
                }
                range.for_each(|at| elements.binary(at, form, out));
            }
            _ => {}
        }
    }

    /// Appends a field as text without the escapes of COPY. Returns `None` for null.
    pub(super) fn text(&self, at: usize, sign: char, out: &mut Vec<u8>) -> Option<()> {
        if self.is_null(at) {
            return None;
        }
        use std::io::Write;
        // Writing into memory cannot fail.
        let _ = match &self.typed {
            Typed::Bool(array) => write!(out, "{}", if array.value(at) { 't' } else { 'f' }),
            Typed::Int16(array) => write!(out, "{}", array.value(at)),
            Typed::Int32(array) => write!(out, "{}", array.value(at)),
            Typed::Int64(array) => write!(out, "{}", array.value(at)),
            Typed::Oid(array) => write!(out, "{}", array.value(at)),
            Typed::Float32(array) => float(f64::from(array.value(at)), &array.value(at), out),
            Typed::Float64(array) => float(array.value(at), &array.value(at), out),
            Typed::Decimal(array, scale) => decimal(array.value(at), *scale, out),
            Typed::Date(array) => {
                let (date, era) = date(i64::from(array.value(at)));
                write!(out, "{date}{era}")
            }
            Typed::Time(array) => write!(out, "{}", clock(array.value(at).unsigned_abs())),
            Typed::Timestamp(array, utc) => {
                let micros = array.value(at);
                let (date, era) = date(micros.div_euclid(DAY_MICROS));
                let time = clock(micros.rem_euclid(DAY_MICROS).unsigned_abs());
                write!(out, "{date} {time}{}{era}", if *utc { "+00" } else { "" })
            }
            Typed::Interval(months, days, micros) => {
                let micros = micros.value(at);
                let sign = if micros < 0 { "-" } else { "" };
                let time = clock(micros.unsigned_abs());
                write!(out, "{} mons {} days {sign}{time}", months.value(at), days.value(at))
            }
            Typed::Uuid(array) => out.write_all(hex(array.value(at)).as_bytes()),
            Typed::Bytes(array) => write!(out, "\\x{}", hex(array.value(at))),
            Typed::Text(array) => out.write_all(array.value(at).as_bytes()),
            Typed::List(array, elements) => {
                let offsets = array.value_offsets();
                out.push(b'{');
                let mut element = Vec::new();
                for (number, at) in (offsets[at] as usize..offsets[at + 1] as usize).enumerate() {
                    if number > 0 {
                        let _ = write!(out, "{sign}");
                    }
                    element.clear();
                    if elements.text(at, sign, &mut element).is_none() {
                        out.extend(b"NULL");
                        continue;
                    }
                    out.push(b'"');
                    for byte in &element {
                        if matches!(byte, b'"' | b'\\') {
                            out.push(b'\\');
                        }
                        out.push(*byte);
                    }
                    out.push(b'"');
                }
                out.write_all(b"}")
            }
        };
        Some(())
    }

    /// The bytes of a value as they are stored in a text of another encoding.
    pub(super) fn stored(&self, at: usize) -> Option<&[u8]> {
        match &self.typed {
            Typed::Bytes(array) => Some(array.value(at)),
            _ => None,
        }
    }
}

/// Appends a value behind its length.
#[inline]
fn field(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

fn float(value: f64, shortest: &dyn std::fmt::Debug, out: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    match value {
        f64::INFINITY => out.write_all(b"Infinity"),
        f64::NEG_INFINITY => out.write_all(b"-Infinity"),
        value if value.is_nan() => out.write_all(b"NaN"),
        _ => write!(out, "{shortest:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |digit: u8| char::from(DIGITS[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn decimal(value: i128, scale: i8, out: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    let scale = usize::try_from(scale).unwrap_or_default();
    let digits = format!("{:0>1$}", value.unsigned_abs(), scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    write!(out, "{sign}{whole}{point}{fraction}")
}

/// Appends the value of a `numeric`, whose digits before and after the point are in base 10,000.
fn numeric(value: i128, scale: i8, out: &mut Vec<u8>) {
    let scale = u32::from(scale.unsigned_abs());
    // The decimal digits behind the point are also grouped by four.
    let groups_behind = scale.div_ceil(4);
    let missing = groups_behind * 4 - scale;
    let (mut whole, mut behind) = (
        value.unsigned_abs() / 10u128.pow(scale.min(38)),
        value.unsigned_abs() % 10u128.pow(scale.min(38)),
    );
    let mut digits: Vec<i16> = Vec::new(); // the last first
    // Only the last group is filled with zeros, so that nothing overflows.
    for group in 0..groups_behind {
        let (base, fill) = match group {
            0 => (10u128.pow(4 - missing), 10u128.pow(missing)),
            _ => (10_000, 1),
        };
        digits.push((behind % base * fill) as i16);
        behind /= base;
    }
    let mut weight = -1;
    while whole > 0 {
        digits.push((whole % 10_000) as i16);
        whole /= 10_000;
        weight += 1;
    }
    while digits.last() == Some(&0) {
        digits.pop();
        weight -= 1;
    }
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[zeros..];
    let weight = if digits.is_empty() { 0i16 } else { weight };
    let sign: u16 = if value < 0 { 0x4000 } else { 0 };
    out.extend((digits.len() as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend((scale as i16).to_be_bytes());
    digits.iter().rev().for_each(|digit| out.extend(digit.to_be_bytes()));
}

/// A day, and ` BC` for a day before the year 1. The range of libraries is smaller than that of PostgreSQL.
fn date(days: i64) -> (String, &'static str) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // from March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let shown = if year > 0 { year } else { 1 - year };
    (format!("{shown:04}-{month:02}-{day:02}"), if year > 0 { "" } else { " BC" })
}

fn clock(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use crate::source::postgres::copy_binary::{Copy, Malformed};
    use crate::source::postgres::decode::Rows;

    /// Writes a column in binary and reads it back by the code that an export reads with.
    fn there_and_back(array: &ArrayRef, kind: &Kind, form: &Form) -> ArrayRef {
        let values = Values::of(array.as_ref()).unwrap();
        let mut bytes = super::super::layout::HEAD.to_vec();
        for row in 0..array.len() {
            bytes.extend(1i16.to_be_bytes());
            values.binary(row, form, &mut bytes);
        }
        bytes.extend((-1i16).to_be_bytes());
        let schema = Arc::new(Schema::new(vec![Field::new("c", kind.data_type(), true)]));
        let mut rows = Rows::new(schema, std::slice::from_ref(kind));
        let mut copy = Copy::new(1);
        let fed = copy.feed(&bytes, |row| {
            rows.push(row).map_err(|_| Malformed)?;
            Ok::<_, Malformed>(())
        });
        fed.unwrap();
        assert!(copy.is_complete());
        let batch: RecordBatch = rows.finish().unwrap_or_else(|_| panic!("not UTF-8"));
        Arc::clone(batch.column(0))
    }

    fn text(array: &dyn Array, at: usize) -> String {
        let mut out = Vec::new();
        Values::of(array).unwrap().text(at, ',', &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_in_binary_is_read_as_the_same(
            numbers in prop::collection::vec(prop::option::of(any::<i64>()), 0..20),
            texts in prop::collection::vec(prop::option::of(".{0,8}"), 0..20),
            wide in prop::collection::vec(prop::option::of(-(10i128.pow(38) - 1)..10i128.pow(38)), 0..20),
            shift in 0u32..38, scale in 0u8..=38,
        ) {
            let same = |array: ArrayRef, kind: Kind, form: Form| {
                let back = there_and_back(&array, &kind, &form);
                prop_assert_eq!(&array, &back);
                Ok(())
            };
            same(Arc::new(Int64Array::from(numbers.clone())), Kind::Int64, Form::Plain)?;
            let narrow = |bits: u32| numbers.iter().map(move |n| n.map(|n| n >> bits));
            let small: Int32Array = narrow(32).map(|n| n.map(|n| n as i32)).collect();
            same(Arc::new(small), Kind::Int32, Form::Plain)?;
            let tiny: Int16Array = narrow(48).map(|n| n.map(|n| n as i16)).collect();
            same(Arc::new(tiny), Kind::Int16, Form::Plain)?;
            let bools: BooleanArray = numbers.iter().map(|n| n.map(|n| n > 0)).collect();
            same(Arc::new(bools), Kind::Bool, Form::Plain)?;
            // Bits of any kind, but for the one NaN that equals itself.
            let floats = narrow(0).map(|n| n.map(|n| f64::from_bits(n as u64)).filter(|n| !n.is_nan()));
            let floats: Float64Array = floats.collect();
            same(Arc::new(floats), Kind::Float64, Form::Plain)?;
            let times = narrow(1).map(|n| n.filter(|n| n.checked_sub(EPOCH_MICROS).is_some()));
            let times: TimestampMicrosecondArray = times.collect();
            same(Arc::new(times.with_timezone("UTC")), Kind::Timestamp { utc: true }, Form::Plain)?;
            let days: Date32Array = narrow(34).map(|n| n.map(|n| n as i32)).collect();
            same(Arc::new(days), Kind::Date, Form::Plain)?;
            let strings: StringArray = texts.iter().map(Option::as_deref).collect();
            same(Arc::new(strings.clone()), Kind::Text, Form::Plain)?;
            same(Arc::new(strings), Kind::Jsonb, Form::Jsonb)?;
            let scaled = wide.iter().map(|n| n.map(|n| n / 10i128.pow(shift)));
            let scaled: Decimal128Array = scaled.collect();
            let scaled = scaled.with_precision_and_scale(38, scale as i8).unwrap();
            same(Arc::new(scaled), Kind::Decimal(38, scale as i8), Form::Plain)?;
            let mut lists = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new())
                .with_field(crate::source::postgres::types::element_field(&Kind::Text));
            for part in texts.chunks(3) {
                part.iter().for_each(|one| lists.values().append_option(one.as_deref()));
                lists.append(part.len() > 1);
            }
            lists.append(true);
            let form = Form::List(25, Box::new(Form::Plain));
            same(Arc::new(lists.finish()), Kind::List(Box::new(Kind::Text)), form)?;
        }

        #[test]
        fn times_are_written_as_everybody_writes_them(micros in -60_000_000_000_000_000i64..200_000_000_000_000_000) {
            let array = TimestampMicrosecondArray::from(vec![micros]);
            let expected = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(text(&array, 0), expected.format("%Y-%m-%d %H:%M:%S%.6f").to_string());
        }
    }

    #[test]
    fn texts_are_what_the_server_reads() {
        let day = |days| text(&Date32Array::from(vec![days]), 0);
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(-719_528), "0001-01-01 BC");
        assert_eq!(day(-719_163), "0000-12-31".replace("0000", "0001") + " BC");
        assert_eq!(
            text(&Float64Array::from(vec![f64::NEG_INFINITY, -0.0, 5e-324]), 0),
            "-Infinity"
        );
        let decimals = Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 3).unwrap();
        assert_eq!(text(&decimals, 0), "-0.005");
        assert_eq!(text(&BinaryArray::from(vec![&b"\x00\xff"[..]]), 0), "\\x00ff");
        let mut lists = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        lists.append_value([Some("a\"\\"), None, Some("")]);
        assert_eq!(text(&lists.finish(), 0), r#"{"a\"\\",NULL,""}"#);
    }
}
