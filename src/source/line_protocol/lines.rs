//! Takes lines off a text one by one: points go into the buffer, names into the drafts of tables, comments and statements
//! into the header.

use std::collections::HashMap;

use memchr::memchr;

use crate::error::Result;
use crate::model::TableId;
use crate::source::influxdb::points::FieldType;
use crate::source::line_protocol::buffer::{Buffer, SeriesRef};
use crate::source::line_protocol::cells;
use crate::source::line_protocol::header::{Context, Header};
use crate::source::line_protocol::options::Options;
use crate::source::line_protocol::parse;
use crate::source::line_protocol::parse::{LineError, NAME, Parsed, STRING, Value, bad};
use crate::source::line_protocol::schema::{Draft, FieldRef, Fields, utf8};
use crate::source::line_protocol::spool::{Spool, Writer};
use crate::source::line_protocol::tags;

/// Everything that the lines so far have stated.
pub(super) struct Lines<'a> {
    source: &'a str,
    options: &'a Options,
    pub(super) header: Header,
    pub(super) tables: Vec<Draft>,
    by_name: HashMap<Context, HashMap<String, usize>>,
    pub(super) buffer: Buffer,
    unescaped: Vec<u8>,
    digits: Digits,
    pub(super) commented: Option<Commented>,
}

/// The number of digits of the timestamps: of the last line's, and the most of all.
#[derive(Default)]
struct Digits {
    last: Option<usize>,
    most: usize,
}

/// The comments that would be points without their `#`.
pub(super) struct Commented {
    pub(super) first_line: u64,
    pub(super) count: u64,
}

// InfluxDB reserves the outermost nanoseconds for itself.
const TIMES: std::ops::RangeInclusive<i64> = i64::MIN + 2..=i64::MAX - 1;

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a str, header: Header, options: &'a Options) -> Self {
        Self {
            source,
            options,
            header,
            tables: Vec::new(),
            by_name: HashMap::new(),
            buffer: Buffer::new(),
            unescaped: Vec::new(),
            digits: Digits::default(),
            commented: None,
        }
    }

    /// Takes a line, whose number is given, off the front of `rest` and returns its length.
    #[inline]
    pub(super) fn take(&mut self, rest: &[u8], number: u64) -> Parsed<usize> {
        let start = parse::blank(rest);
        let line = &rest[start..];
        let last = self.digits.last.take();
        let length = match line {
            [] | [b'\r'] => {
                self.digits.last = last;
                return Err(LineError::More);
            }
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [b'#', ..] => self.comment(line, number)?,
            _ => match self.statement(line)? {
                Some(length) => length,
                None => self.point(line)?,
            },
        };
        Ok(start + length)
    }

    /// Whether the last line's timestamp has fewer digits than that of another line.
    pub(super) fn last_time_is_short(&self) -> bool {
        self.digits.last.is_some_and(|last| last < self.digits.most)
    }

    /// Writes the lines in the buffer to the spool.
    pub(super) fn spill(&mut self, spool: &Spool) -> Result<()> {
        let mut writer = Writer::new(spool)?;
        self.buffer.spill(&mut self.tables, &mut writer)?;
        writer.finish()
    }

    fn comment(&mut self, line: &[u8], number: u64) -> Parsed<usize> {
        let end = memchr(b'\n', line).ok_or(LineError::More)?;
        let text = std::str::from_utf8(&line[1..end]);
        let before = self.header.context.clone();
        if text.is_ok_and(|text| self.header.comment(text)) {
            if self.header.context != before {
                self.buffer.forget_written();
            }
        } else if text.is_err() && line[..end].windows(8).any(|part| part == b"CONTEXT-") {
            return bad("a name that is not valid UTF-8");
        } else if parse::is_point(&line[..=end]) {
            let new = Commented { first_line: number, count: 0 };
            self.commented.get_or_insert(new).count += 1;
        }
        Ok(end + 1)
    }

    fn statement(&mut self, line: &[u8]) -> Parsed<Option<usize>> {
        if !self.header.may_be_statement(line) {
            return Ok(None);
        }
        let end = memchr(b'\n', line).ok_or(LineError::More)?;
        let text = std::str::from_utf8(&line[..end]);
        Ok(text.is_ok_and(|text| self.header.statement(text)).then_some(end + 1))
    }

    fn point(&mut self, line: &[u8]) -> Parsed<usize> {
        let end = parse::series_end(line)?;
        let series = match self.buffer.known(&line[..end]) {
            Some(series) => series,
            None => self.series(&line[..end])?,
        };
        let from = self.buffer.cells().len();
        let read = self.values(&line[end..], series);
        let table = &mut self.tables[self.buffer.table(series)];
        match read {
            Ok((time, length)) if table.selected => {
                table.saw(time);
                self.buffer.end_line(series, time, from);
                Ok(end + length)
            }
            other => {
                self.buffer.cells().truncate(from);
                let (time, length) = other?;
                table.saw(time);
                Ok(end + length)
            }
        }
    }

    /// Reads the fields and the timestamp. Returns the time and the length of both.
    fn values(&mut self, line: &[u8], series: SeriesRef) -> Parsed<(i64, usize)> {
        let fields = &mut self.tables[self.buffer.table(series)].fields;
        let cells = self.buffer.cells();
        let mut at = parse::blank(line);
        let mut field = FieldRef::START;
        loop {
            let (found, key) = fields.find(field, &line[at..])?;
            field = found;
            at += key + 1;
            let (value, length) = parse::value(&line[at..])?;
            put(fields, field, value, &mut self.unescaped, cells)?;
            at += length;
            match line.get(at) {
                Some(b',') => at += 1,
                Some(b' ') => break,
                Some(b'\n') => return bad("no timestamp"),
                Some(_) => return bad("neither a comma nor a space after a value"),
                None => return Err(LineError::More),
            }
        }
        let end = parse::timestamp(&line[at..])?;
        let time = end.ticks.checked_mul(self.options.precision_nanos);
        let Some(time) = time.filter(|time| TIMES.contains(time)) else {
            return bad("a time outside of the years 1677 to 2262; is the precision right?");
        };
        self.header.point();
        self.digits.last = Some(end.digits);
        self.digits.most = self.digits.most.max(end.digits);
        Ok((time, at + end.length))
    }

    fn series(&mut self, written: &[u8]) -> Parsed<SeriesRef> {
        let series = parse::series(written)?;
        let tags = tags::of(&series)?;
        let table = self.table(series.measurement)?;
        let known = &mut self.tables[table].tags;
        for (key, _) in &tags {
            if !known.contains(key) {
                known.insert(key.clone());
            }
        }
        let mut encoded = Vec::new();
        tags::encode(&tags, &mut encoded);
        Ok(self.buffer.add_series(written, table, &encoded))
    }

    fn table(&mut self, measurement: &[u8]) -> Parsed<usize> {
        let mut name = Vec::with_capacity(measurement.len());
        parse::unescape(measurement, NAME, &mut name);
        let name = utf8(name, "measurement")?;
        let context = &self.header.context;
        if let Some(table) = self.by_name.get(context).and_then(|tables| tables.get(&name)) {
            return Ok(*table);
        }
        let id = TableId {
            source: self.source.to_owned(),
            database: context.database.clone(),
            schema: context.policy.clone(),
            table: name.clone(),
        };
        let selected = (self.options.selects)(&id);
        let table = self.tables.len();
        self.tables.push(Draft::new(id, selected));
        self.by_name.entry(context.clone()).or_default().insert(name, table);
        Ok(table)
    }
}

/// Appends a value to the cells of a line.
#[inline]
fn put(
    fields: &mut Fields,
    field: FieldRef,
    value: Value<'_>,
    unescaped: &mut Vec<u8>,
    cells: &mut Vec<u8>,
) -> Parsed<()> {
    let mut put = |kind, bytes: &[u8]| {
        let slot = fields.slot(field, kind);
        cells::put(cells, slot, kind, false, bytes);
    };
    match value {
        Value::Float(value) => put(FieldType::Float, &value.to_le_bytes()),
        Value::Integer(value) => put(FieldType::Integer, &value.to_le_bytes()),
        Value::Unsigned(value) => put(FieldType::Unsigned, &value.to_le_bytes()),
        Value::Boolean(value) => put(FieldType::Boolean, &[u8::from(value)]),
        Value::String(raw) => {
            let text = match memchr(b'\\', raw) {
                None => raw,
                Some(_) => {
                    unescaped.clear();
                    parse::unescape(raw, STRING, unescaped);
                    unescaped.as_slice()
                }
            };
            if std::str::from_utf8(text).is_err() {
                return bad(format!("the value \"{}\" is not valid UTF-8", parse::show(raw)));
            }
            put(FieldType::String, text);
        }
    }
    Ok(())
}
