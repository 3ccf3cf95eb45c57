//! PURE: rows as line protocol, in the dialect of the server that shall take them. What no line can say is returned with the
//! reason and never sent, because a server may silently take such a line for something else.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::{
    Array, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use memchr::memchr3;

use crate::error::{Error, Result};
use crate::model::{Column, Role};

/// The way in which a server reads a backslash in a name or a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// That of 1.x and 2.x (Go, `models/points.go`): a backslash before anything but a delimiter stands for itself, and two
    /// of them stand for two.
    Go,
    /// That of the family of InfluxDB 3 (Rust, `influxdb_line_protocol`): two backslashes stand for one.
    Rust,
}

impl Dialect {
    /// Whether a line may have this time. Go has `models.MinNanoTime` and `MaxNanoTime`; Rust takes all but the smallest.
    fn takes(self, time: i64) -> bool {
        match self {
            Self::Go => (i64::MIN + 2..i64::MAX).contains(&time),
            Self::Rust => time > i64::MIN,
        }
    }
}

/// Lines that are sent together.
#[derive(Debug, Default, Clone)]
pub struct Body {
    /// The lines, each with its newline.
    pub bytes: Vec<u8>,
    /// Where each line ends. A string may hold newlines, so that those do not tell.
    pub ends: Vec<usize>,
}

impl Body {
    /// Adds a line, which has its newline.
    pub fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    /// The bytes of some of the lines.
    pub fn lines(&self, lines: std::ops::Range<usize>) -> &[u8] {
        let begin = lines.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = lines.end.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.bytes.get(begin..end).unwrap_or_default()
    }
}

/// A row that no line can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsayable {
    /// Its place in the batch.
    pub row: usize,
    /// Why.
    pub why: String,
}

/// The columns of a table in the way in which they stand in its lines.
#[derive(Debug)]
pub struct Layout {
    dialect: Dialect,
    /// The measurement, escaped.
    measurement: Vec<u8>,
    time: usize,
    /// Each tag with its column, sorted by key, because servers insert sorted tags faster.
    tags: Vec<(Vec<u8>, usize)>,
    /// Each field with its columns; there is one for each type that it has.
    fields: Vec<(Vec<u8>, Vec<usize>)>,
    /// Columns whose values no line can say, each with the reason.
    unsayable: Vec<(usize, String)>,
    /// Why no row of the table can be said.
    hopeless: Option<String>,
}

impl Layout {
    /// The layout of a table by its name and its columns. It is an error if it is no table of an InfluxDB.
    pub fn new(dialect: Dialect, measurement: &str, columns: &[Column]) -> Result<Self> {
        let mut tags = BTreeMap::<&str, usize>::new();
        let mut fields = BTreeMap::<&str, Vec<usize>>::new();
        let (mut time, mut unsayable) = (None, Vec::new());
        for (at, column) in columns.iter().enumerate() {
            let key = column.key.as_str();
            match (column.role, why_no_key(key)) {
                (Role::Time, _) => time = Some(at),
                (Role::Tag | Role::Field, Some(why)) => {
                    let name = key.escape_debug();
                    unsayable.push((at, format!("the {} `{name}` {why}", column.role.as_str())));
                }
                (Role::Tag, None) => _ = tags.insert(key, at),
                (Role::Field, None) => fields.entry(key).or_default().push(at),
                (Role::Column, _) => {}
            }
        }
        let Some(time) = time else {
            return Err(Error::stop("it has no time, which a measurement of InfluxDB needs"));
        };
        let hopeless = why_no_name(measurement)
            .map(|why| format!("the measurement's name `{}` {why}", measurement.escape_debug()));
        let key = |key: &str| escaped(key, b",= ", dialect);
        Ok(Self {
            dialect,
            measurement: escaped(measurement, b", ", dialect),
            time,
            tags: tags.into_iter().map(|(name, at)| (key(name), at)).collect(),
            fields: fields.into_iter().map(|(name, columns)| (key(name), columns)).collect(),
            unsayable,
            hopeless,
        })
    }

    /// Adds some rows of a batch to a body, until it has so many lines or bytes. Returns the row to go on with.
    pub fn write(
        &self,
        rows: &Rows,
        range: std::ops::Range<usize>,
        (most_lines, most_bytes): (usize, usize),
        body: &mut Body,
        unsayable: &mut Vec<Unsayable>,
    ) -> usize {
        for row in range.clone() {
            if body.ends.len() >= most_lines || body.bytes.len() >= most_bytes {
                return row;
            }
            let began = body.bytes.len();
            match self.line(rows, row, &mut body.bytes) {
                Ok(()) => body.ends.push(body.bytes.len()),
                Err(why) => {
                    body.bytes.truncate(began);
                    unsayable.push(Unsayable { row, why });
                }
            }
        }
        range.end
    }

    /// The time of a row; 0 if it has none, in which case no line can say it.
    pub fn time(&self, rows: &Rows, row: usize) -> i64 {
        match &rows.columns[self.time] {
            Values::Time(times) if times.is_valid(row) => times.value(row),
            _ => 0,
        }
    }

    fn line(&self, rows: &Rows, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if let Some(why) = &self.hopeless {
            return Err(why.clone());
        }
        if let Some((_, why)) =
            self.unsayable.iter().find(|(column, _)| rows.columns[*column].is_valid(row))
        {
            return Err(why.clone());
        }
        out.extend_from_slice(&self.measurement);
        for (key, column) in &self.tags {
            let Values::Text(values) = &rows.columns[*column] else { continue };
            if values.is_null(row) {
                continue;
            }
            let value = values.value(row);
            if let Some(why) = why_no_tag(value) {
                let key = String::from_utf8_lossy(key).escape_debug().to_string();
                return Err(format!("the value of the tag `{key}` {why}"));
            }
            out.push(b',');
            out.extend_from_slice(key);
            out.push(b'=');
            escape(value, b",= ", self.dialect, out);
        }
        let mut separator = b' ';
        for (key, columns) in &self.fields {
            let mut before = false;
            for column in columns {
                let values = &rows.columns[*column];
                if !values.is_valid(row) {
                    continue;
                }
                if before {
                    let key = String::from_utf8_lossy(key).escape_debug().to_string();
                    return Err(format!("the field `{key}` has values of two types in one point"));
                }
                before = true;
                out.push(separator);
                separator = b',';
                out.extend_from_slice(key);
                out.push(b'=');
                values.write(row, out).map_err(|why| {
                    let key = String::from_utf8_lossy(key).escape_debug().to_string();
                    format!("the value of the field `{key}` {why}")
                })?;
            }
        }
        if separator == b' ' {
            return Err("it has no value of any field, and a point needs one".to_owned());
        }
        let Values::Time(times) = &rows.columns[self.time] else {
            return Err("its time is no time".to_owned());
        };
        if times.is_null(row) {
            return Err("it has no time".to_owned());
        }
        let time = times.value(row);
        if !self.dialect.takes(time) {
            return Err(format!("its time, {time}, is one that InfluxDB keeps for itself"));
        }
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(time).as_bytes());
        out.push(b'\n');
        Ok(())
    }
}

/// The values of a batch, ready to be written.
#[derive(Debug)]
pub struct Rows {
    columns: Vec<Values>,
}

impl Rows {
    /// The values of a batch with these columns.
    pub fn new(columns: &[Column], batch: &RecordBatch) -> Result<Self> {
        let values = columns.iter().zip(batch.columns()).map(|(column, array)| {
            Values::new(array).map_err(|error| error.context(format!("column `{}`", column.name)))
        });
        Ok(Self { columns: values.collect::<Result<_>>()? })
    }
}

#[derive(Debug)]
enum Values {
    Time(TimestampNanosecondArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Boolean(BooleanArray),
    Text(StringArray),
}

impl Values {
    fn new(array: &dyn Array) -> Result<Self> {
        let to = |data_type| {
            cast(array, &data_type).map_err(|error| Error::stop(format!("cannot be read: {error}")))
        };
        Ok(match array.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Self::Time(array.as_primitive::<TimestampNanosecondType>().clone())
            }
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>().clone()),
            DataType::UInt64 => Self::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Dictionary(..) => {
                Self::Text(to(DataType::Utf8)?.as_string::<i32>().clone())
            }
            other => {
                return Err(Error::stop(format!("{other} is no type of a tag or a field")));
            }
        })
    }

    fn is_valid(&self, row: usize) -> bool {
        match self {
            Self::Time(values) => values.is_valid(row),
            Self::Integer(values) => values.is_valid(row),
            Self::Unsigned(values) => values.is_valid(row),
            Self::Float(values) => values.is_valid(row),
            Self::Boolean(values) => values.is_valid(row),
            Self::Text(values) => values.is_valid(row),
        }
    }

    /// Writes the value of a field as a line has it.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::Integer(values) => {
                out.extend_from_slice(itoa::Buffer::new().format(values.value(row)).as_bytes());
                out.push(b'i');
            }
            Self::Unsigned(values) => {
                out.extend_from_slice(itoa::Buffer::new().format(values.value(row)).as_bytes());
                out.push(b'u');
            }
            Self::Float(values) => {
                let value = values.value(row);
                if !value.is_finite() {
                    return Err("is not a finite number, which no line can say");
                }
                // This is the shortest form that is read back bit for bit.
                out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
            }
            Self::Boolean(values) => out.push(if values.value(row) { b't' } else { b'f' }),
            Self::Text(values) => {
                out.push(b'"');
                let mut rest = values.value(row).as_bytes();
                while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
                    out.extend_from_slice(&rest[..at]);
                    out.extend_from_slice(&[b'\\', rest[at]]);
                    rest = &rest[at + 1..];
                }
                out.extend_from_slice(rest);
                out.push(b'"');
            }
            Self::Time(_) => return Err("is a time, which no field can be"),
        }
        Ok(())
    }
}

fn escaped(text: &str, delimiters: &[u8], dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    escape(text, delimiters, dialect, &mut out);
    out
}

/// Writes a name or a tag. `delimiters` are the characters that would end it.
fn escape(text: &str, delimiters: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let is_plain =
        memchr3(b',', b' ', b'=', bytes).is_none() && memchr::memchr(b'\\', bytes).is_none();
    if is_plain {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        if delimiters.contains(byte) || (*byte == b'\\' && dialect == Dialect::Rust) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// Why a text can be no measurement.
fn why_no_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        name if name.starts_with('#') => Some("begins with `#`, as a comment does"),
        name => why_no_tag(name),
    }
}

/// Why a text can be no key of a tag or a field.
fn why_no_key(key: &str) -> Option<&'static str> {
    match key {
        "time" => Some("has a name that InfluxDB silently drops"),
        key => why_no_tag(key),
    }
}

/// Why a text can be no value of a tag.
fn why_no_tag(text: &str) -> Option<&'static str> {
    match text.as_bytes() {
        [] => Some("is empty, which is the same as none"),
        [.., b'\\'] => Some("ends in a backslash, which would escape what follows"),
        text if memchr::memchr(b'\n', text).is_some() => {
            Some("has a line break, which would begin another line")
        }
        _ => None,
    }
}

/// A row for people, as a JSON object with its values by the names of its columns.
pub fn shown(columns: &[Column], batch: &RecordBatch, row: usize) -> String {
    let mut text = String::from("{");
    for (column, array) in columns.iter().zip(batch.columns()) {
        if array.is_null(row) {
            continue;
        }
        let value = arrow::util::display::array_value_to_string(array, row).unwrap_or_default();
        let separator = if text.len() > 1 { ", " } else { "" };
        let _ = write!(text, "{separator}{}: {}", quoted(&column.key), quoted(&value));
    }
    text.push('}');
    text
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
