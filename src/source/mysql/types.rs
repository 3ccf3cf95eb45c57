//! PURE: the Arrow type of each type of MySQL, exact or text, and how a value on the wire is decoded into it.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};

use crate::source::mysql::charset::Charset;
use crate::source::mysql::client::WireColumn;

/// A column's type as the catalog has it.
pub(super) struct Declared<'a> {
    /// `bigint`.
    pub(super) name: &'a str,
    /// `bigint(20) unsigned`.
    pub(super) full: &'a str,
    pub(super) precision: Option<u8>,
    pub(super) scale: Option<i8>,
    pub(super) has_charset: bool,
}

/// The Arrow type of a column, as long as no value turns out not to fit it.
pub(super) fn data_type(declared: &Declared<'_>) -> DataType {
    let unsigned = declared.full.contains("unsigned");
    let integer = |signed, without| if unsigned { without } else { signed };
    match declared.name {
        "tinyint" => integer(DataType::Int8, DataType::UInt8),
        "smallint" => integer(DataType::Int16, DataType::UInt16),
        "mediumint" | "int" => integer(DataType::Int32, DataType::UInt32),
        "bigint" => integer(DataType::Int64, DataType::UInt64),
        "year" => DataType::Int16,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "decimal" => match (declared.precision, declared.scale) {
            (Some(precision @ 1..=DECIMAL128_MAX_PRECISION), Some(scale)) if scale >= 0 => {
                DataType::Decimal128(precision, scale)
            }
            // Readers turn a wider decimal into a double.
            _ => DataType::Utf8,
        },
        "date" => DataType::Date32,
        "datetime" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        // From -838 to 838 hours: no time of day holds this, and its text is exact.
        "time" => DataType::Utf8,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set"
        | "json" | "uuid" | "inet4" | "inet6" | "xmltype" => DataType::Utf8,
        // BINARY, BLOB, BIT, VECTOR, and GEOMETRY, which is WKB after four bytes of SRID.
        _ if !declared.has_charset => DataType::Binary,
        _ => DataType::Utf8,
    }
}

/// How a value on the wire becomes a value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decode {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    DateTime,
    DateText,
    /// The server's text, with `decimals` digits after the point.
    DateTimeText {
        decimals: u8,
    },
    TimeText {
        decimals: u8,
    },
    /// Bytes as they are.
    Bytes,
    /// Bytes that are text if they are UTF-8, which is checked.
    Utf8,
    /// Text of MySQL's `latin1`.
    Latin1,
}

/// Text in a charset that only the server can decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerDecoded;

/// How to decode a column on the wire into the type that was listed; `None` if the two do not fit, because the column was
/// altered meanwhile. `charset` is that of the column.
pub(crate) fn decode(
    wire: WireColumn,
    target: &DataType,
    charset: Charset,
) -> Option<Result<Decode, ServerDecoded>> {
    // The wire's numbers of types.
    const DECIMAL: u8 = 0xf6;
    const TIME: u8 = 0x0b;
    const DATE: u8 = 0x0a;
    const DATETIME: u8 = 0x0c;
    const TIMESTAMP: u8 = 0x07;
    const YEAR: u8 = 0x0d;
    let signed = !wire.is_unsigned;
    let decode = match (wire.kind, target) {
        (0x01, DataType::Int8) if signed => Decode::I8,
        (0x01, DataType::UInt8) if !signed => Decode::U8,
        (0x02, DataType::Int16) if signed => Decode::I16,
        (0x02, DataType::UInt16) if !signed => Decode::U16,
        (YEAR, DataType::Int16) => Decode::I16,
        // MEDIUMINT arrives in four bytes, like INT.
        (0x03 | 0x09, DataType::Int32) if signed => Decode::I32,
        (0x03 | 0x09, DataType::UInt32) if !signed => Decode::U32,
        (0x08, DataType::Int64) if signed => Decode::I64,
        (0x08, DataType::UInt64) if !signed => Decode::U64,
        (0x04, DataType::Float32) => Decode::F32,
        (0x05, DataType::Float64) => Decode::F64,
        (DECIMAL, DataType::Decimal128(precision, scale)) => {
            Decode::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        (DATE, DataType::Date32) => Decode::Date,
        (DATETIME, DataType::Timestamp(TimeUnit::Microsecond, None)) => Decode::DateTime,
        (TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => Decode::DateTime,
        (DATE, DataType::Utf8) => Decode::DateText,
        (DATETIME | TIMESTAMP, DataType::Utf8) => Decode::DateTimeText { decimals: digits(wire)? },
        (TIME, DataType::Utf8) => Decode::TimeText { decimals: digits(wire)? },
        (DECIMAL, DataType::Utf8) => Decode::Utf8,
        // Texts and blobs of all sizes, BIT, ENUM, SET, JSON, VECTOR, GEOMETRY.
        (0x0f | 0x10 | 0xf2 | 0xf5 | 0xf7..=0xff, DataType::Binary) => Decode::Bytes,
        (0x0f | 0xf5 | 0xf7..=0xfe, DataType::Utf8) => match charset {
            Charset::Utf8 => Decode::Utf8,
            Charset::Latin1 => Decode::Latin1,
            Charset::Other => return Some(Err(ServerDecoded)),
        },
        _ => return None,
    };
    Some(Ok(decode))
}

fn digits(wire: WireColumn) -> Option<u8> {
    // 31 stands for any number of digits, which no column of a table has.
    (wire.decimals <= 6).then_some(wire.decimals)
}
