//! Decodes chunked answers in MessagePack as they arrive. It is the fastest and cheapest format of InfluxDB 1.x, and the
//! only one that keeps types. SYNC.

use crate::error::{Error, Result};
use crate::source::influxdb::influxql::answer::{
    BodyReader, RowWriter, Target, cut_off, malformed,
};

/// How deeply values that moveout skips (such as `messages`) may be nested.
const DEPTH: usize = 16;
/// The most columns of a series.
const MOST_NAMES: usize = 1 << 20;

/// Decodes a whole answer into batches. `server_error` makes an error from an error text in the answer.
pub(crate) fn decode(
    feed: BodyReader,
    rows: RowWriter,
    server_error: impl Fn(&str) -> Error,
) -> Result<()> {
    let mut decoder = Decoder { feed, rows, server_error };
    while decoder.more()? {
        decoder.answer()?;
    }
    decoder.rows.finish()
}

struct Decoder<S> {
    feed: BodyReader,
    rows: RowWriter,
    server_error: S,
}

impl<S: Fn(&str) -> Error> Decoder<S> {
    fn more(&mut self) -> Result<bool> {
        while self.feed.bytes().is_empty() {
            if !self.feed.fill()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `{"results": [...]}` or `{"error": "..."}`.
    fn answer(&mut self) -> Result<()> {
        for _ in 0..self.map()? {
            match self.text()?.as_str() {
                "results" => {
                    for _ in 0..self.array()? {
                        self.result()?;
                    }
                }
                "error" => {
                    let error = self.text()?;
                    return Err((self.server_error)(&error));
                }
                _ => self.skip(DEPTH)?,
            }
        }
        Ok(())
    }

    // 1.x sends status 200 before it runs the query, so any later object can hold an error.
    fn result(&mut self) -> Result<()> {
        let mut partial = false;
        for _ in 0..self.map()? {
            match self.text()?.as_str() {
                "series" => {
                    for _ in 0..self.array()? {
                        self.series()?;
                    }
                }
                "partial" => partial = self.boolean()?,
                "error" => {
                    let error = self.text()?;
                    return Err((self.server_error)(&error));
                }
                _ => self.skip(DEPTH)?,
            }
        }
        self.rows.end_result(partial);
        Ok(())
    }

    fn series(&mut self) -> Result<()> {
        let mut targets = None;
        let mut tags = Some(Vec::new());
        for _ in 0..self.map()? {
            match self.text()?.as_str() {
                "tags" => {
                    let count = names(self.map()?)?;
                    let mut found = Vec::new();
                    for _ in 0..count {
                        found.push((self.text()?, self.text()?));
                    }
                    tags = Some(found);
                }
                "columns" => {
                    let count = names(self.array()?)?;
                    let mut columns = Vec::new();
                    for _ in 0..count {
                        columns.push(self.text()?);
                    }
                    targets = Some(self.rows.targets(&columns)?);
                }
                "values" => {
                    let targets =
                        targets.take().ok_or_else(|| malformed("values before columns"))?;
                    let tags = tags.take().ok_or_else(|| malformed("values twice"))?;
                    self.rows.begin_series(tags)?;
                    for _ in 0..self.array()? {
                        self.row(&targets)?;
                    }
                    self.rows.end_series()?;
                }
                _ => self.skip(DEPTH)?, // the name, which is that of the table, and the series' own `partial`
            }
        }
        Ok(())
    }

    #[inline]
    fn row(&mut self, targets: &[Target]) -> Result<()> {
        let width = self.array()?;
        if width != targets.len() + 1 {
            return Err(malformed(format!("a row of {width} values, not {}", targets.len() + 1)));
        }
        let time = self.time()?;
        self.rows.row(time)?;
        for target in targets {
            self.value(target)?;
        }
        Ok(())
    }

    #[inline]
    fn time(&mut self) -> Result<i64> {
        match self.byte()? {
            0xd3 => Ok(i64::from_be_bytes(self.take()?)),
            marker => match self.number(marker)? {
                Some(Number::Signed(time)) => Ok(time),
                Some(Number::Unsigned(time)) => i64::try_from(time).map_err(malformed),
                None => Err(malformed(format!("a time of type {marker:#04x}"))),
            },
        }
    }

    #[inline]
    fn value(&mut self, target: &Target) -> Result<()> {
        match self.byte()? {
            0xcb => {
                let value = f64::from_be_bytes(self.take()?);
                self.rows.float(target, value)
            }
            0xc0 => Ok(()),
            0xca => {
                let value = f32::from_be_bytes(self.take()?);
                self.rows.float(target, f64::from(value))
            }
            marker @ (0xc2 | 0xc3) => self.rows.boolean(target, marker == 0xc3),
            marker @ (0xa0..=0xbf | 0xd9..=0xdb) => {
                let length = self.length_of_text(marker)?;
                self.feed.need(length)?;
                let text = std::str::from_utf8(&self.feed.bytes()[..length]).map_err(|_| {
                    Error::fail("a string value is not UTF-8, which Parquet requires of text")
                })?;
                self.rows.string(target, text)?;
                self.feed.consume(length);
                Ok(())
            }
            marker => match self.number(marker)? {
                Some(Number::Signed(value)) => self.rows.integer(target, value),
                Some(Number::Unsigned(value)) => self.rows.unsigned(target, value),
                None => Err(malformed(format!("a value of type {marker:#04x}"))),
            },
        }
    }

    /// An integer in any of its encodings; `None` for other types. The server uses the shortest encoding, so a small number
    /// does not show whether its type is signed.
    #[inline]
    fn number(&mut self, marker: u8) -> Result<Option<Number>> {
        Ok(Some(match marker {
            0x00..=0x7f => Number::Signed(i64::from(marker)),
            0xe0..=0xff => Number::Signed(i64::from(marker as i8)),
            0xd0 => Number::Signed(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => Number::Signed(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => Number::Signed(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => Number::Signed(i64::from_be_bytes(self.take()?)),
            0xcc => Number::Unsigned(u64::from(u8::from_be_bytes(self.take()?))),
            0xcd => Number::Unsigned(u64::from(u16::from_be_bytes(self.take()?))),
            0xce => Number::Unsigned(u64::from(u32::from_be_bytes(self.take()?))),
            0xcf => Number::Unsigned(u64::from_be_bytes(self.take()?)),
            _ => return Ok(None),
        }))
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        Ok(self.take::<1>()?[0])
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.feed.need(N)?;
        let bytes = self.feed.bytes().first_chunk().copied().ok_or_else(cut_off)?;
        self.feed.consume(N);
        Ok(bytes)
    }

    #[inline]
    fn array(&mut self) -> Result<usize> {
        match self.byte()? {
            marker @ (0x90..=0x9f | 0xdc | 0xdd) => self.count(marker),
            marker => Err(malformed(format!("{marker:#04x} instead of a list"))),
        }
    }

    fn map(&mut self) -> Result<usize> {
        match self.byte()? {
            marker @ (0x80..=0x8f | 0xde | 0xdf) => self.count(marker),
            marker => Err(malformed(format!("{marker:#04x} instead of a map"))),
        }
    }

    /// The number of elements of a list, or of pairs of a map.
    #[inline]
    fn count(&mut self, marker: u8) -> Result<usize> {
        match marker {
            0xdc | 0xde => Ok(usize::from(u16::from_be_bytes(self.take()?))),
            0xdd | 0xdf => Ok(u32::from_be_bytes(self.take()?) as usize),
            short => Ok(usize::from(short & 0x0f)),
        }
    }

    fn boolean(&mut self) -> Result<bool> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            marker => Err(malformed(format!("{marker:#04x} instead of a boolean"))),
        }
    }

    fn length_of_text(&mut self, marker: u8) -> Result<usize> {
        match marker {
            0xa0..=0xbf => Ok(usize::from(marker & 0x1f)),
            0xd9 | 0xc4 => Ok(usize::from(u8::from_be_bytes(self.take()?))),
            0xda | 0xc5 => Ok(usize::from(u16::from_be_bytes(self.take()?))),
            0xdb | 0xc6 => Ok(u32::from_be_bytes(self.take()?) as usize),
            marker => Err(malformed(format!("{marker:#04x} instead of text"))),
        }
    }

    fn text(&mut self) -> Result<String> {
        let marker = self.byte()?;
        let length = self.length_of_text(marker)?;
        self.feed.need(length)?;
        let text = String::from_utf8(self.feed.bytes()[..length].to_vec()).map_err(|_| {
            Error::fail("a name or a tag is not UTF-8, which Parquet requires of text")
        })?;
        self.feed.consume(length);
        Ok(text)
    }

    fn skip(&mut self, depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(malformed("a value is nested too deeply"));
        }
        let marker = self.byte()?;
        match marker {
            0xc0 | 0xc2 | 0xc3 => Ok(()),
            0xa0..=0xbf | 0xd9..=0xdb | 0xc4..=0xc6 => {
                let length = self.length_of_text(marker)?;
                self.discard(length)
            }
            0xca => self.discard(4),
            0xcb => self.discard(8),
            0x90..=0x9f | 0xdc | 0xdd => {
                let count = self.count(marker)?;
                (0..count).try_for_each(|_| self.skip(depth - 1))
            }
            0x80..=0x8f | 0xde | 0xdf => {
                let count = self.count(marker)?;
                (0..count * 2).try_for_each(|_| self.skip(depth - 1))
            }
            marker => match self.number(marker)? {
                Some(_) => Ok(()),
                None => Err(malformed(format!("a value of type {marker:#04x}"))),
            },
        }
    }

    fn discard(&mut self, count: usize) -> Result<()> {
        self.feed.need(count)?;
        self.feed.consume(count);
        Ok(())
    }
}

/// The number of tags or columns of a series, unless no series can have as many.
fn names(count: usize) -> Result<usize> {
    match count {
        0..=MOST_NAMES => Ok(count),
        _ => Err(malformed(format!("a series of {count} columns"))),
    }
}

enum Number {
    Signed(i64),
    Unsigned(u64),
}
