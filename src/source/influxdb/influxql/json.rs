//! Decodes chunked answers in JSON, of InfluxDB 3 and of servers that refuse MessagePack. SYNC. JSON has 100 for 100.0, so
//! the column decides the type of a number, and a column with both floats and integers is refused.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::source::influxdb::influxql::answer::{
    BodyReader, RowWriter, Target, malformed, too_large,
};

/// The largest object in bytes. It is several times what the rows of an object usually need, and a narrower window makes
/// objects smaller.
const LARGEST_OBJECT: usize = 256 << 20;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Statement>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    tags: BTreeMap<String, Option<String>>,
    columns: Vec<String>,
    #[serde(default)]
    values: Vec<Vec<Value>>,
}

/// Decodes a whole answer into batches; the caller then finishes `rows`. `server_error` makes an error from an error text
/// in the answer.
pub(crate) fn decode(
    feed: BodyReader,
    rows: &mut RowWriter,
    server_error: impl Fn(&str) -> Error,
) -> Result<()> {
    let of_object = Cell::new(0);
    let mut body = Body { feed, failed: None, of_object: &of_object };
    let mut answers = serde_json::Deserializer::from_reader(&mut body).into_iter::<Answer>();
    let parsed = answers.try_for_each(|answer| {
        of_object.set(0);
        let answer = answer.map_err(malformed)?;
        if let Some(error) = answer.error {
            return Err(server_error(&error));
        }
        for statement in answer.results {
            if let Some(error) = statement.error {
                return Err(server_error(&error));
            }
            for series in statement.series {
                write_series(rows, series)?;
            }
            rows.end_result(statement.partial);
        }
        Ok(())
    });
    drop(answers);
    // serde_json knows only that reading failed, while the body knows why.
    match body.failed {
        Some(error) => Err(error),
        None => parsed,
    }
}

struct Body<'a> {
    feed: BodyReader,
    failed: Option<Error>,
    /// The bytes since the end of the last object, since an object is held as a whole.
    of_object: &'a Cell<usize>,
}

impl Read for &mut Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.feed.bytes().is_empty() {
            match self.feed.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let count = out.len().min(self.feed.bytes().len());
        self.of_object.set(self.of_object.get() + count);
        if self.of_object.get() > LARGEST_OBJECT {
            self.failed = Some(too_large("JSON object", LARGEST_OBJECT));
            return Err(io::ErrorKind::Other.into());
        }
        out[..count].copy_from_slice(&self.feed.bytes()[..count]);
        self.feed.consume(count);
        Ok(count)
    }
}

fn write_series(rows: &mut RowWriter, series: Series) -> Result<()> {
    let targets = rows.targets(&series.columns)?;
    let tags = series.tags.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
    rows.begin_series(tags.collect())?;
    for row in &series.values {
        let (time, values) = match row.split_first() {
            Some((time, values)) if values.len() == targets.len() => (time, values),
            _ => return Err(malformed(format!("a row of {} values", row.len()))),
        };
        rows.row(time.as_i64().ok_or_else(|| malformed(format!("the time {time}")))?)?;
        for (target, value) in targets.iter().zip(values) {
            write_value(rows, target, value)?;
        }
    }
    rows.end_series()
}

fn write_value(rows: &mut RowWriter, target: &Target, value: &Value) -> Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::Bool(value) => rows.boolean(target, *value),
        Value::String(value) => rows.string(target, value),
        Value::Number(_) if target.is_float_or_integer() => Err(Error::fail(
            "a field has both floats and integers, which JSON does not distinguish, and the server sends no MessagePack",
        )
        .hint("is there a proxy that changes the Accept header? connect to the server itself")),
        Value::Number(number) => match (target.is_float(), number.as_i64(), number.as_u64()) {
            // Go writes whole floats below 1e21 as integers, with all digits.
            (true, _, _) | (_, None, None) => {
                rows.float(target, number.as_f64().ok_or_else(|| malformed(number))?)
            }
            (_, Some(value), _) => rows.integer(target, value),
            (_, None, Some(value)) => rows.unsigned(target, value),
        },
        other => Err(malformed(format!("the value {other}"))),
    }
}
