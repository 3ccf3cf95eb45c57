//! InfluxDB's data model as Arrow: the names and types of the columns of a measurement, and the builder that turns points
//! into record batches. Every source with points shares it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    StringDictionaryBuilder, TimestampNanosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimeUnit};

use crate::error::{Error, Result};
use crate::model::{Column, Role};
use crate::source::names::Names;

/// The type of a field value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// 64-bit floating point.
    Float,
    /// Signed 64-bit integer.
    Integer,
    /// Unsigned 64-bit integer (2.x, and 1.x builds with `uint64`).
    Unsigned,
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Boolean,
}

impl FieldType {
    /// InfluxDB's word for it, which is also the suffix of the column's name if a field has several types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::String => "string",
            Self::Boolean => "boolean",
        }
    }

    /// The type for InfluxDB's word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Float, Self::Integer, Self::Unsigned, Self::String, Self::Boolean]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Integer => DataType::Int64,
            Self::Unsigned => DataType::UInt64,
            Self::String => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
        }
    }
}

/// The keys of the measurements of a database, as a server lists them.
#[derive(Debug, Default)]
pub(in crate::source) struct Keys(BTreeMap<String, KeysOf>);

#[derive(Debug, Default)]
struct KeysOf {
    tags: BTreeSet<String>,
    fields: BTreeMap<String, BTreeSet<FieldType>>,
    unknown: Option<String>,
}

impl Keys {
    /// Adds a measurement, which may have no key.
    pub(in crate::source) fn table(&mut self, table: &str) {
        self.0.entry(table.to_owned()).or_default();
    }

    /// Adds a tag of a measurement.
    pub(in crate::source) fn tag(&mut self, table: &str, key: String) {
        self.0.entry(table.to_owned()).or_default().tags.insert(key);
    }

    /// Adds a field of a measurement. `kind` is `None` if the server's word for its type is unknown.
    pub(in crate::source) fn field(
        &mut self,
        table: &str,
        key: String,
        kind: Option<FieldType>,
        word: &str,
    ) {
        let keys = self.0.entry(table.to_owned()).or_default();
        match kind {
            Some(kind) => {
                keys.fields.entry(key).or_default().insert(kind);
            }
            None => {
                let (key, word) = (key.escape_debug(), word.escape_debug());
                let why = format!("its field `{key}` has the unknown type `{word}`");
                keys.unknown.get_or_insert(why);
            }
        }
    }

    /// Each measurement with its columns, or with the reason why it cannot be read.
    pub(in crate::source) fn into_tables(
        self,
    ) -> impl Iterator<Item = (String, std::result::Result<Vec<Column>, String>)> {
        self.0.into_iter().map(|(table, keys)| match keys.unknown {
            Some(why) => (table, Err(why)),
            None => (table, Ok(columns(&keys.tags, &keys.fields))),
        })
    }
}

/// The columns of a measurement: the time, then the tags, then the fields, each in the byte order of their names. Names
/// are unique even if case is folded.
pub fn columns(
    tags: &BTreeSet<String>,
    fields: &BTreeMap<String, BTreeSet<FieldType>>,
) -> Vec<Column> {
    let mut names = Names::default();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut columns = vec![Column::new(names.take("time"), "time", Role::Time, "time", time)];
    for tag in tags {
        let wanted = if fields.contains_key(tag) { format!("{tag}_tag") } else { tag.clone() };
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        columns.push(Column::new(names.take(&wanted), tag, Role::Tag, "string", text));
    }
    for (field, kinds) in fields {
        for kind in kinds {
            let wanted = match kinds.len() {
                1 => field.clone(),
                _ => format!("{field}_{}", kind.as_str()),
            };
            let name = names.take(&wanted);
            columns.push(Column::new(name, field, Role::Field, kind.as_str(), kind.data_type()));
        }
    }
    columns
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// 64-bit floating point.
    Float(f64),
    /// Signed integer.
    Integer(i64),
    /// Unsigned integer.
    Unsigned(u64),
    /// Text.
    String(&'a str),
    /// `true` or `false`.
    Boolean(bool),
}

/// Builds record batches from points. Columns are addressed by their positions in the table. A value goes to the current
/// row, and a column that a row does not set is null.
pub struct PointBuilder {
    schema: SchemaRef,
    time: TimestampNanosecondBuilder,
    rest: Vec<ColumnBuilder>,
    rows: usize,
    bytes: usize,
}

enum ColumnBuilder {
    Tag(StringDictionaryBuilder<Int32Type>),
    Float(Float64Builder),
    Integer(Int64Builder),
    Unsigned(UInt64Builder),
    String(StringBuilder),
    Boolean(BooleanBuilder),
}

/// Evaluates the same expression for the builder of any type.
macro_rules! each {
    ($builder:expr, $b:ident => $do:expr) => {
        match $builder {
            ColumnBuilder::Tag($b) => $do,
            ColumnBuilder::Float($b) => $do,
            ColumnBuilder::Integer($b) => $do,
            ColumnBuilder::Unsigned($b) => $do,
            ColumnBuilder::String($b) => $do,
            ColumnBuilder::Boolean($b) => $do,
        }
    };
}

impl ColumnBuilder {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Dictionary(..) => Self::Tag(StringDictionaryBuilder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            DataType::UInt64 => Self::Unsigned(UInt64Builder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            _ => Self::String(StringBuilder::new()),
        }
    }

    // Columns are filled lazily: rows that set nothing cost nothing until the next value.
    #[inline]
    fn pad(&mut self, rows: usize) {
        use arrow::array::ArrayBuilder;
        each!(self, b => {
            let len = b.len();
            if len < rows {
                b.append_nulls(rows - len);
            }
        });
    }
}

impl PointBuilder {
    /// A builder for the columns of a table (the first is the time) and its Arrow schema.
    pub fn new(schema: SchemaRef) -> Self {
        let time = TimestampNanosecondBuilder::new().with_timezone("UTC");
        let rest =
            schema.fields().iter().skip(1).map(|f| ColumnBuilder::new(f.data_type())).collect();
        Self { schema, time, rest, rows: 0, bytes: 0 }
    }

    /// Begins a row, to which the following values belong.
    #[inline]
    pub fn row(&mut self, time: i64) {
        self.time.append_value(time);
        self.rows += 1;
        self.bytes += 8;
    }

    /// Sets a field of the current row. `column` is the position in the table (1 is the first after the time). It is an
    /// error if the column has another type.
    #[inline]
    pub fn field(&mut self, column: usize, value: FieldValue<'_>) -> Result<()> {
        let builder = &mut self.rest[column - 1];
        builder.pad(self.rows - 1);
        match (builder, value) {
            (ColumnBuilder::Float(b), FieldValue::Float(v)) => b.append_value(v),
            (ColumnBuilder::Integer(b), FieldValue::Integer(v)) => b.append_value(v),
            (ColumnBuilder::Unsigned(b), FieldValue::Unsigned(v)) => b.append_value(v),
            (ColumnBuilder::Boolean(b), FieldValue::Boolean(v)) => b.append_value(v),
            (ColumnBuilder::String(b), FieldValue::String(v)) => {
                b.append_value(v);
                self.bytes += v.len();
            }
            _ => {
                return Err(Error::stop(format!(
                    "column {column} has another type than {value:?}"
                )));
            }
        }
        self.bytes += 8;
        Ok(())
    }

    /// Sets a tag for the last `count` rows.
    pub fn tag(&mut self, column: usize, value: &str, count: usize) -> Result<()> {
        let builder = &mut self.rest[column - 1];
        builder.pad(self.rows - count);
        match builder {
            ColumnBuilder::Tag(b) => b.append_values(value, count),
            _ => return Err(Error::stop(format!("column {column} is not a tag"))),
        }
        self.bytes += 4 * count + value.len();
        Ok(())
    }

    /// The number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The approximate memory of the rows so far, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the rows so far as a batch and starts anew.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.time.finish())];
        for builder in &mut self.rest {
            builder.pad(rows);
            arrays.push(each!(builder, b => Arc::new(b.finish())));
        }
        RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|error| Error::stop(format!("a batch of {rows} rows does not fit: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tags: &[&str], fields: &[(&str, &[FieldType])]) -> Vec<String> {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let fields = fields
            .iter()
            .map(|(name, kinds)| ((*name).to_owned(), kinds.iter().copied().collect()))
            .collect();
        columns(&tags, &fields).into_iter().map(|column| column.name).collect()
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        use FieldType::{Float, Integer, String};
        assert_eq!(names(&["host"], &[("load", &[Float])]), ["time", "host", "load"]);
        assert_eq!(names(&["f"], &[("f", &[Float])]), ["time", "f_tag", "f"]);
        assert_eq!(
            names(&[], &[("v", &[Float, Integer, String])]),
            ["time", "v_float", "v_integer", "v_string"]
        );
        assert_eq!(
            names(&["A", "a", "Time", "f_tag", "f"], &[("f", &[Float]), ("F", &[Float])]),
            ["time", "A", "Time_2", "a_2", "f_tag", "f_tag_2", "F", "f_2"]
        );
    }
}
