//! Turns the rows of a chunked answer into record batches, in any format: the shape of a series, the column of each value,
//! and whether the answer is complete. SYNC.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Class, Error, Result};
use crate::model::{Role, Table};
use crate::source::channel::BatchSender;
use crate::source::influxdb::influxql::statements;
use crate::source::influxdb::influxql::statements::{Selected, Selection};
use crate::source::influxdb::points::{FieldValue, PointBuilder};

/// The most rows, and bytes, of a batch.
const BATCH_ROWS: usize = 16 * 1024;
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// The largest value or name in bytes. Servers refuse the requests that would write larger ones.
const LARGEST_VALUE: usize = 128 << 20;

/// The body of an answer as it arrives, for a thread that may block.
pub(crate) struct BodyReader {
    parts: mpsc::Receiver<Result<Bytes>>,
    buffer: Vec<u8>,
    at: usize,
}

impl BodyReader {
    pub(crate) fn new(parts: mpsc::Receiver<Result<Bytes>>) -> Self {
        Self { parts, buffer: Vec::new(), at: 0 }
    }

    /// The bytes that have arrived and are not consumed yet.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Consumes bytes that have arrived.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// Waits for more bytes; `false` at the end of the body.
    pub(super) fn fill(&mut self) -> Result<bool> {
        let Some(part) = self.parts.blocking_recv() else { return Ok(false) };
        let part = part?;
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(&part);
        Ok(true)
    }

    /// Waits until `count` bytes have arrived.
    #[inline]
    pub(super) fn need(&mut self, count: usize) -> Result<()> {
        if count > LARGEST_VALUE {
            return Err(too_large("value", LARGEST_VALUE));
        }
        while self.buffer.len() - self.at < count {
            if !self.fill()? {
                return Err(cut_off());
            }
        }
        Ok(())
    }
}

/// The error for a part of an answer that must be held as a whole and is larger than anything that a server stores.
pub(super) fn too_large(what: &str, most_bytes: usize) -> Error {
    Error::of(
        Class::Split,
        format!("the answer has a {what} of more than {} MiB", most_bytes >> 20),
    )
}

/// The error for an answer that ended before the protocol allows it.
pub(super) fn cut_off() -> Error {
    Error::of(Class::RetryThenSplit, "the answer was cut off")
}

/// The error for bytes that violate the protocol.
pub(super) fn malformed(what: impl std::fmt::Display) -> Error {
    Error::of(Class::RetryThenSplit, format!("the answer cannot be understood: {what}"))
}

/// Where the values of one column of an answer go: to a column of the table for each type.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target {
    float: Option<usize>,
    integer: Option<usize>,
    unsigned: Option<usize>,
    string: Option<usize>,
    boolean: Option<usize>,
    /// For a column of a typed read that holds only a part of a field's values.
    part: Option<Part>,
}

/// The values of a field that a column of a typed read holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Integers, which are read only to be compared with the floats of the next column.
    Whole,
    /// Numbers, since texts and booleans have columns of their own.
    Numbers,
}

impl Target {
    /// Whether numbers can be floats.
    pub(super) fn is_float(&self) -> bool {
        self.float.is_some()
    }

    /// Whether numbers can be floats or integers.
    pub(super) fn is_float_or_integer(&self) -> bool {
        self.part != Some(Part::Whole)
            && self.float.is_some()
            && (self.integer.is_some() || self.unsigned.is_some())
    }
}

/// Builds batches from series and rows and sends them.
pub(crate) struct RowWriter {
    tags: HashMap<String, usize>,
    fields: HashMap<String, Target>,
    builder: PointBuilder,
    batches: BatchSender,
    series_tags: Vec<(usize, String)>,
    series_rows: usize,
    /// Where the columns of a typed read go, by their positions.
    typed: Option<Vec<Target>>,
    whole: Option<i64>,
    batch_rows: usize,
    partial: Option<bool>,
    seen: Seen,
}

/// What arrived in an answer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(in crate::source) rows: u64,
    /// The number of values that are not null, for each column of the table.
    pub(in crate::source) values: Vec<u64>,
    /// Whether some object was marked as partial. A server that marks one marks every object except the last. One that
    /// marks none may be a version that does not know the mark.
    pub(in crate::source) flagged: bool,
}

impl RowWriter {
    /// A writer for the columns of a table; `several` is what `statements::read` was given.
    pub(crate) fn new(table: &Arc<Table>, batches: BatchSender, several: bool) -> Self {
        let mut tags = HashMap::new();
        let mut fields = HashMap::<String, Target>::new();
        for (at, column) in table.columns.iter().enumerate() {
            match (column.role, &column.data_type) {
                (Role::Tag, _) => {
                    tags.insert(column.key.clone(), at);
                }
                (Role::Field, data_type) => {
                    let target = fields.entry(column.key.clone()).or_default();
                    let place = match data_type {
                        DataType::Float64 => &mut target.float,
                        DataType::Int64 => &mut target.integer,
                        DataType::UInt64 => &mut target.unsigned,
                        DataType::Boolean => &mut target.boolean,
                        _ => &mut target.string,
                    };
                    *place = Some(at);
                }
                _ => {}
            }
        }
        Self {
            tags,
            typed: several.then(|| typed_targets(table, &fields)),
            whole: None,
            fields,
            builder: PointBuilder::new(table.arrow_schema()),
            batches,
            series_tags: Vec::new(),
            series_rows: 0,
            // In the batch, a value that is not set needs memory as well.
            batch_rows: (4 * BATCH_BYTES / (8 * table.columns.len().max(1))).clamp(64, BATCH_ROWS),
            partial: None,
            seen: Seen { values: vec![0; table.columns.len()], ..Seen::default() },
        }
    }

    /// Begins a series. A tag that it lacks is given as an empty string.
    pub(super) fn begin_series(&mut self, tags: Vec<(String, String)>) -> Result<()> {
        self.series_tags.clear();
        for (key, value) in tags {
            let Some(column) = self.tags.get(&key) else { return Err(new_column("tag", &key)) };
            if !value.is_empty() {
                self.series_tags.push((*column, value));
            }
        }
        Ok(())
    }

    /// Where the values of each column of the series go. The first column must be the time.
    pub(super) fn targets(&self, columns: &[String]) -> Result<Vec<Target>> {
        if columns.first().map(String::as_str) != Some("time") {
            return Err(malformed("the first column is not the time"));
        }
        if let Some(typed) = &self.typed {
            return if typed.len() == columns.len() - 1 {
                Ok(typed.clone())
            } else {
                Err(malformed(format!("a series has {} columns", columns.len())))
            };
        }
        let distinct: HashSet<&String> = columns.iter().collect();
        if distinct.len() < columns.len() {
            return Err(malformed("a series has a column twice"));
        }
        let targets = columns[1..]
            .iter()
            .map(|name| self.fields.get(name).copied().ok_or_else(|| new_column("field", name)));
        targets.collect()
    }

    /// Begins a row.
    #[inline]
    pub(super) fn row(&mut self, time: i64) -> Result<()> {
        if self.builder.rows() >= self.batch_rows || self.builder.size_bytes() >= BATCH_BYTES {
            self.flush()?;
        }
        self.builder.row(time);
        self.whole = None;
        self.series_rows += 1;
        Ok(())
    }

    #[inline]
    pub(super) fn float(&mut self, target: &Target, value: f64) -> Result<()> {
        let Some(column) = target.float else { return Err(other_type("float")) };
        // If a window spans a shard with integers and a shard with floats, the server converts the integers to floats,
        // which are not exact above 2^53.
        if target.part.is_some()
            && let (Some(column), Some(whole)) = (target.integer, self.whole.take())
            && whole as f64 == value
            && i128::from(whole) != value as i128
        {
            return self.builder.field(column, FieldValue::Integer(whole));
        }
        self.builder.field(column, FieldValue::Float(value))
    }

    #[inline]
    pub(super) fn integer(&mut self, target: &Target, value: i64) -> Result<()> {
        if target.part == Some(Part::Whole) {
            self.whole = Some(value);
            return Ok(());
        }
        match (target.integer, target.unsigned) {
            (Some(column), _) => self.builder.field(column, FieldValue::Integer(value)),
            (None, Some(column)) if value >= 0 => {
                self.builder.field(column, FieldValue::Unsigned(value.unsigned_abs()))
            }
            _ => Err(other_type("integer")),
        }
    }

    pub(super) fn unsigned(&mut self, target: &Target, value: u64) -> Result<()> {
        match (target.unsigned, target.integer, i64::try_from(value)) {
            (Some(column), _, _) => self.builder.field(column, FieldValue::Unsigned(value)),
            (None, Some(column), Ok(value)) => {
                self.builder.field(column, FieldValue::Integer(value))
            }
            _ => Err(other_type("unsigned")),
        }
    }

    pub(super) fn string(&mut self, target: &Target, value: &str) -> Result<()> {
        let Some(column) = target.string else { return Err(other_type("string")) };
        if target.part == Some(Part::Numbers) {
            return Ok(());
        }
        self.builder.field(column, FieldValue::String(value))
    }

    pub(super) fn boolean(&mut self, target: &Target, value: bool) -> Result<()> {
        let Some(column) = target.boolean else { return Err(other_type("boolean")) };
        if target.part == Some(Part::Numbers) {
            return Ok(());
        }
        self.builder.field(column, FieldValue::Boolean(value))
    }

    /// Ends a series, whose tags apply to all its rows.
    pub(super) fn end_series(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.series_rows);
        if rows > 0 {
            for (column, value) in &self.series_tags {
                self.builder.tag(*column, value, rows)?;
            }
        }
        Ok(())
    }

    /// Ends a result, which states by `partial` whether more follows.
    pub(super) fn end_result(&mut self, partial: bool) {
        self.partial = Some(partial);
        self.seen.flagged |= partial;
    }

    /// Ends the answer, which must have stated that it is complete: every object except the last is marked as partial, so
    /// a body that a proxy cut between two objects ends with a marked one.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.partial != Some(false) {
            return Err(cut_off());
        }
        self.flush()
    }

    /// Ends an answer of InfluxDB 3. Without rows there is no object at all, and only some versions mark objects as
    /// partial, so the caller must decide from what was seen whether the answer is complete.
    pub(crate) fn end(mut self) -> Result<Seen> {
        if self.partial == Some(true) {
            return Err(cut_off());
        }
        self.flush()?;
        Ok(self.seen)
    }

    fn flush(&mut self) -> Result<()> {
        self.end_series()?;
        if self.builder.rows() == 0 {
            return Ok(());
        }
        let batch = self.builder.finish()?;
        self.seen.rows += batch.num_rows() as u64;
        for (values, column) in self.seen.values.iter_mut().zip(batch.columns()) {
            *values += (column.len() - column.null_count()) as u64;
        }
        self.batches.blocking_send(batch)
    }
}

// The targets for the columns that `statements::typed` selects.
fn typed_targets(table: &Table, fields: &HashMap<String, Target>) -> Vec<Target> {
    let selected = statements::typed(table);
    let several = |key: &str| selected.iter().filter(|selected| selected.key == key).count() > 1;
    let target = |selected: &Selected| {
        let all = fields.get(selected.key).copied().unwrap_or_default();
        match selected.what {
            Selection::Field if several(selected.key) => {
                Target { part: Some(Part::Numbers), ..all }
            }
            Selection::Field => all,
            Selection::Whole => Target { part: Some(Part::Whole), ..Target::default() },
            Selection::Only(_) => {
                Target { string: all.string, boolean: all.boolean, ..Target::default() }
            }
        }
    };
    selected.iter().map(target).collect()
}

fn new_column(what: &str, name: &str) -> Error {
    Error::of(Class::SchemaChanged, format!("the {what} `{}` is new", name.escape_debug()))
}

fn other_type(kind: &str) -> Error {
    Error::of(Class::SchemaChanged, format!("a field has a {kind} value for the first time"))
}
