//! Merges the sorted segments of a table: series in the byte order of their tags, points in order of time, and all lines
//! of one point as one. It needs memory for a small buffer for each segment.

use crate::error::Result;
use crate::source::line_protocol::cells::{Union, damaged, take_varint};
use crate::source::line_protocol::spool::{POINT, SERIES, Segment, Sink, Spool, Writer, conflicts};
use crate::window::Window;

/// If there are more segments than this, neighbours are merged first, so that each buffer is large enough.
pub(super) const MOST_SEGMENTS: usize = 64;

/// Passes the points of some segments to `sink`. The segments are in the order of the file, so that later ones win.
/// `memory_bytes` bounds all buffers together.
pub(super) fn merge(
    spool: &Spool,
    segments: &[Segment],
    memory_bytes: usize,
    sink: &mut impl Sink,
) -> Result<()> {
    let block = (memory_bytes / segments.len().max(1)).clamp(4 << 10, 256 << 10);
    let mut cursors: Vec<_> = segments.iter().map(|s| Cursor::new(spool, s, block)).collect();
    advance(&mut cursors, |_| true)?;
    let mut merger = Merger::default();
    while let Some(tags) = cursors.iter().map(|cursor| &cursor.tags).min() {
        merger.tags.clone_from(tags);
        merger.series(&mut cursors, sink)?;
        advance(&mut cursors, |cursor| cursor.tags == merger.tags)?;
    }
    Ok(())
}

/// Moves the cursors that are done with their series to the next one, and removes those that have reached their end.
fn advance(cursors: &mut Vec<Cursor<'_>>, done: impl Fn(&Cursor<'_>) -> bool) -> Result<()> {
    for cursor in cursors.iter_mut().filter(|cursor| done(cursor)) {
        cursor.next_series()?;
    }
    cursors.retain(|cursor| !cursor.ended);
    Ok(())
}

#[derive(Default)]
struct Merger {
    tags: Vec<u8>,
    /// The cursors that have more points of this series.
    members: Vec<usize>,
    union: Union,
    united: Vec<u8>,
}

impl Merger {
    fn series(&mut self, cursors: &mut [Cursor<'_>], sink: &mut impl Sink) -> Result<()> {
        sink.series(&self.tags)?;
        self.members.clear();
        self.members.extend((0..cursors.len()).filter(|&at| cursors[at].tags == self.tags));
        while let Some(time) = self.members.iter().map(|&at| cursors[at].time).min() {
            let mut same = self.members.iter().map(|&at| &cursors[at]).filter(|c| c.time == time);
            match (same.next(), same.next()) {
                (Some(only), None) => sink.point(time, only.cells())?,
                _ => {
                    self.unite(cursors, time)?;
                    sink.point(time, &self.united)?;
                }
            }
            self.pass(cursors, time)?;
        }
        Ok(())
    }

    fn unite(&mut self, cursors: &[Cursor<'_>], time: i64) -> Result<()> {
        self.union.clear();
        for cursor in self.members.iter().map(|&at| &cursors[at]).filter(|c| c.time == time) {
            self.union.add(cursor.cells())?;
        }
        self.united.clear();
        self.union.write(&mut self.united);
        Ok(())
    }

    /// Moves the cursors that were at this time to their next point.
    fn pass(&mut self, cursors: &mut [Cursor<'_>], time: i64) -> Result<()> {
        let mut error = None;
        self.members.retain(|&at| {
            if cursors[at].time == time {
                cursors[at].next_point().unwrap_or_else(|e| {
                    error = Some(e);
                    false
                })
            } else {
                true
            }
        });
        error.map_or(Ok(()), Err)
    }
}

/// Merges neighbouring segments until there are at most `MOST_SEGMENTS`.
pub(super) fn reduce(
    spool: &Spool,
    mut segments: Vec<Segment>,
    memory_bytes: usize,
) -> Result<Vec<Segment>> {
    while segments.len() > MOST_SEGMENTS {
        let mut writer = Writer::new(spool)?;
        let mut fewer = Vec::new();
        for group in segments.chunks(MOST_SEGMENTS) {
            merge(spool, group, memory_bytes, &mut writer)?;
            fewer.push(writer.end_segment());
        }
        writer.finish()?;
        segments = fewer;
    }
    Ok(segments)
}

/// A position in a segment.
struct Cursor<'a> {
    spool: &'a Spool,
    next: u64,
    left: u64,
    block: usize,
    buffer: Vec<u8>,
    at: usize,
    tags: Vec<u8>,
    time: i64,
    cells: std::ops::Range<usize>,
    ended: bool,
}

impl<'a> Cursor<'a> {
    fn new(spool: &'a Spool, segment: &Segment, block: usize) -> Self {
        Self {
            spool,
            next: segment.offset,
            left: segment.length,
            block,
            buffer: Vec::new(),
            at: 0,
            tags: Vec::new(),
            time: 0,
            cells: 0..0,
            ended: false,
        }
    }

    fn cells(&self) -> &[u8] {
        &self.buffer[self.cells.clone()]
    }

    /// Goes to the first point of the next series, or to the end.
    fn next_series(&mut self) -> Result<()> {
        if !self.has(1)? {
            self.ended = true;
            return Ok(());
        }
        self.expect(SERIES)?;
        let length = self.length()?;
        self.need(length)?;
        self.tags.clear();
        self.tags.extend_from_slice(&self.buffer[self.at..self.at + length]);
        self.at += length;
        if self.next_point()? { Ok(()) } else { Err(damaged()) }
    }

    /// Goes to the next point of this series; `false` if there is none.
    fn next_point(&mut self) -> Result<bool> {
        if !self.has(1)? || self.buffer[self.at] != POINT {
            return Ok(false);
        }
        self.at += 1;
        self.need(8)?;
        let time = self.buffer[self.at..].first_chunk().ok_or_else(damaged)?;
        self.time = i64::from_le_bytes(*time);
        self.at += 8;
        let length = self.length()?;
        self.need(length)?;
        self.cells = self.at..self.at + length;
        self.at += length;
        Ok(true)
    }

    fn expect(&mut self, mark: u8) -> Result<()> {
        if self.buffer[self.at] != mark {
            return Err(damaged());
        }
        self.at += 1;
        Ok(())
    }

    fn length(&mut self) -> Result<usize> {
        self.has(10)?;
        let mut rest = &self.buffer[self.at..];
        let length = take_varint(&mut rest).ok_or_else(damaged)?;
        self.at = self.buffer.len() - rest.len();
        usize::try_from(length).map_err(|_| damaged())
    }

    fn need(&mut self, bytes: usize) -> Result<()> {
        if self.has(bytes)? { Ok(()) } else { Err(damaged()) }
    }

    /// Fills the buffer to at least this many bytes; `false` if the segment ends before.
    fn has(&mut self, bytes: usize) -> Result<bool> {
        let present = self.buffer.len() - self.at;
        if present >= bytes {
            return Ok(true);
        }
        let wanted = (bytes - present).max(self.block);
        let more = self.left.min(wanted as u64) as usize;
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.resize(present + more, 0);
        self.spool.read(self.next, &mut self.buffer[present..])?;
        self.next += more as u64;
        self.left -= more as u64;
        Ok(present + more >= bytes)
    }
}

/// Counts the points of a window, and the values in them that overwrote a different one.
pub(super) struct Survey {
    window: Window,
    pub(super) rows: u64,
    pub(super) conflicts: u64,
}

impl Survey {
    pub(super) fn of(
        window: Window,
        spool: &Spool,
        segments: &[Segment],
        memory_bytes: usize,
    ) -> Result<Self> {
        let mut survey = Self { window, rows: 0, conflicts: 0 };
        merge(spool, segments, memory_bytes, &mut survey)?;
        Ok(survey)
    }
}

impl Sink for Survey {
    fn series(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn point(&mut self, time: i64, cells: &[u8]) -> Result<()> {
        if self.window.contains(time) {
            self.rows += 1;
            self.conflicts += conflicts(cells)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::influxdb::points::{FieldType, FieldValue};
    use crate::source::line_protocol::cells;
    use crate::source::line_protocol::cells::Cells;
    use proptest::prelude::*;

    type Row = (Vec<u8>, i64);
    type Rows = BTreeMap<Row, BTreeMap<usize, i64>>;

    fn segment(writer: &mut Writer<'_>, rows: &Rows) -> Segment {
        let mut tags: Option<&[u8]> = None;
        for ((series, time), fields) in rows {
            if tags != Some(series) {
                tags = Some(series);
                writer.series(series).unwrap();
            }
            let mut bytes = Vec::new();
            for (slot, value) in fields {
                cells::put(&mut bytes, *slot, FieldType::Integer, false, &value.to_le_bytes());
            }
            writer.point(*time, &bytes).unwrap();
        }
        writer.end_segment()
    }

    #[derive(Default)]
    struct Collect(Vec<u8>, Vec<(Row, BTreeMap<usize, i64>)>);

    impl Sink for Collect {
        fn series(&mut self, tags: &[u8]) -> Result<()> {
            self.0 = tags.to_vec();
            Ok(())
        }

        fn point(&mut self, time: i64, cells: &[u8]) -> Result<()> {
            let fields = Cells(cells).map(|cell| {
                let cell = cell.unwrap();
                let FieldValue::Integer(value) = cell.value().unwrap() else { panic!() };
                (cell.slot, value)
            });
            self.1.push(((self.0.clone(), time), fields.collect()));
            Ok(())
        }
    }

    fn segments() -> impl Strategy<Value = Vec<Rows>> {
        let tags =
            prop::sample::select(vec!["", "a", "ab", "b"]).prop_map(|t| t.as_bytes().to_vec());
        let fields = prop::collection::btree_map(0..4usize, 0..3i64, 1..3);
        let rows = prop::collection::btree_map((tags, 0..6i64), fields, 0..6);
        prop::collection::vec(rows, 0..150)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn merging_is_the_same_as_writing_into_a_map(all in segments()) {
            let spool = Spool::in_memory();
            let mut writer = Writer::new(&spool).unwrap();
            let segments: Vec<_> = all.iter().map(|rows| segment(&mut writer, rows)).collect();
            writer.finish().unwrap();
            let mut model = Rows::new();
            for (key, fields) in all.iter().flatten() {
                model.entry(key.clone()).or_default().extend(fields.iter().map(|(k, v)| (*k, *v)));
            }
            let mut whole = Collect::default();
            merge(&spool, &segments, 0, &mut whole).unwrap();
            prop_assert_eq!(whole.1, model.into_iter().collect::<Vec<_>>());

            let direct = Survey::of(Window::ALL, &spool, &segments, 0).unwrap();
            let fewer = reduce(&spool, segments, 0).unwrap();
            prop_assert!(fewer.len() <= MOST_SEGMENTS);
            let reduced = Survey::of(Window::ALL, &spool, &fewer, 0).unwrap();
            prop_assert_eq!((direct.rows, direct.conflicts), (reduced.rows, reduced.conflicts));
        }
    }

    #[test]
    fn a_damaged_segment_is_an_error() {
        let spool = Spool::in_memory();
        let mut writer = Writer::new(&spool).unwrap();
        writer.series(b"a").unwrap();
        writer.point(1, b"\x00\0\0\0\0\0\0\0\0").unwrap();
        let whole = writer.end_segment();
        writer.finish().unwrap();
        for cut in 1..whole.length {
            let cut = Segment { length: cut, ..whole.clone() };
            assert!(Survey::of(Window::ALL, &spool, &[cut], 0).is_err());
        }
    }
}
