//! Collects lines up to a bound and sorts them into segments. It holds only bytes and numbers; the names of tables and
//! fields are in `schema`.

use std::collections::HashMap;

use crate::error::Result;
use crate::source::line_protocol::cells::Union;
use crate::source::line_protocol::schema::Draft;
use crate::source::line_protocol::spool::Sink;
use crate::source::line_protocol::spool::Writer;

/// The number of a series in this buffer, valid until the buffer is emptied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SeriesRef(u32);

#[derive(Clone, Copy)]
struct Series {
    table: u32,
    /// Where its tags are in `tags`.
    from: u32,
    to: u32,
}

/// A line: its series, its time, and where its values are in `cells`.
struct Line {
    time: i64,
    series: u32,
    from: u32,
    length: u32,
}

// Sorting needs half as much again.
const LINE_BYTES: usize = size_of::<Line>() * 3 / 2;
// The memory of an entry in the hash map, besides its key.
const SERIES_BYTES: usize = 96;

/// Lines up to a bound.
pub(super) struct Buffer {
    cells: Vec<u8>,
    lines: Vec<Line>,
    series: Vec<Series>,
    tags: Vec<u8>,
    /// The series by the bytes of their measurement and tags in the file.
    written: HashMap<Box<[u8]>, SeriesRef>,
    written_bytes: usize,
    last: Option<(Vec<u8>, SeriesRef)>,
    union: Union,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            cells: Vec::new(),
            lines: Vec::new(),
            series: Vec::new(),
            tags: Vec::new(),
            written: HashMap::new(),
            written_bytes: 0,
            last: None,
            union: Union::default(),
        }
    }

    /// Roughly the memory that the lines need, including that for sorting them.
    pub(super) fn size_bytes(&self) -> usize {
        self.cells.len()
            + self.lines.len() * LINE_BYTES
            + self.tags.len()
            + self.written_bytes
            + self.series.len() * SERIES_BYTES
    }

    /// The series that was written with the same bytes before.
    #[inline]
    pub(super) fn known(&mut self, written: &[u8]) -> Option<SeriesRef> {
        if let Some((last, series)) = &self.last
            && last.as_slice() == written
        {
            return Some(*series);
        }
        let series = *self.written.get(written)?;
        self.remember(written, series);
        Some(series)
    }

    fn remember(&mut self, written: &[u8], series: SeriesRef) {
        let (last, number) = self.last.get_or_insert_with(|| (Vec::new(), series));
        last.clear();
        last.extend_from_slice(written);
        *number = series;
    }

    /// Adds a series: its bytes in the file, its table, and its tags as they are sorted (see `tags`).
    pub(super) fn add_series(&mut self, written: &[u8], table: usize, tags: &[u8]) -> SeriesRef {
        let from = self.tags.len() as u32;
        self.tags.extend_from_slice(tags);
        let number = SeriesRef(self.series.len() as u32);
        self.series.push(Series { table: table as u32, from, to: self.tags.len() as u32 });
        self.written.insert(written.into(), number);
        self.written_bytes += written.len();
        self.remember(written, number);
        number
    }

    /// Forgets the bytes of all series, since the same bytes mean other series in another database.
    pub(super) fn forget_written(&mut self) {
        self.written.clear();
        self.written_bytes = 0;
        self.last = None;
    }

    /// The position of the table of a series.
    pub(super) fn table(&self, series: SeriesRef) -> usize {
        self.series[series.0 as usize].table as usize
    }

    /// The buffer to which the values of the next line are appended.
    pub(super) fn cells(&mut self) -> &mut Vec<u8> {
        &mut self.cells
    }

    /// Ends a line whose values begin at `from`.
    pub(super) fn end_line(&mut self, series: SeriesRef, time: i64, from: usize) {
        let length = (self.cells.len() - from) as u32;
        self.lines.push(Line { time, series: series.0, from: from as u32, length });
    }

    /// Sorts all lines, unites those of the same point, writes them, and empties the buffer.
    pub(super) fn spill(&mut self, tables: &mut [Draft], writer: &mut Writer<'_>) -> Result<()> {
        let order = self.rank();
        // The sort is stable: lines of one point stay in the order of the file, so that the later one wins.
        self.lines.sort_by_key(|line| (line.series, line.time));
        let mut table = None;
        let mut united = Vec::new();
        for lines in self.lines.chunk_by(|a, b| a.series == b.series) {
            let series = order[lines[0].series as usize];
            if table.is_some_and(|table| table != series.table) {
                end_table(tables, table, writer);
            }
            table = Some(series.table);
            writer.series(&self.tags[series.from as usize..series.to as usize])?;
            for point in lines.chunk_by(|a, b| a.time == b.time) {
                unite(&mut self.union, &self.cells, point, &mut united)?;
                writer.point(point[0].time, &united)?;
            }
        }
        end_table(tables, table, writer);
        self.clear();
        Ok(())
    }

    /// Replaces the series of each line by its rank among all series, and returns the series in that order. Series that
    /// differ only in how they are written become one.
    fn rank(&mut self) -> Vec<Series> {
        let key =
            |series: &Series| (series.table, &self.tags[series.from as usize..series.to as usize]);
        let mut sorted: Vec<u32> = (0..self.series.len() as u32).collect();
        sorted.sort_unstable_by_key(|&number| key(&self.series[number as usize]));
        let mut order: Vec<Series> = Vec::with_capacity(sorted.len());
        let mut ranks = vec![0; sorted.len()];
        for number in sorted {
            let series = self.series[number as usize];
            if order.last().is_none_or(|last| key(last) != key(&series)) {
                order.push(series);
            }
            ranks[number as usize] = order.len() as u32 - 1;
        }
        for line in &mut self.lines {
            line.series = ranks[line.series as usize];
        }
        order
    }

    fn clear(&mut self) {
        self.cells.clear();
        self.lines.clear();
        self.series.clear();
        self.tags.clear();
        self.forget_written();
    }
}

fn unite(union: &mut Union, cells: &[u8], lines: &[Line], out: &mut Vec<u8>) -> Result<()> {
    union.clear();
    for line in lines {
        let from = line.from as usize;
        union.add(&cells[from..from + line.length as usize])?;
    }
    out.clear();
    union.write(out);
    Ok(())
}

fn end_table(tables: &mut [Draft], table: Option<u32>, writer: &mut Writer<'_>) {
    if let Some(table) = table {
        tables[table as usize].segments.push(writer.end_segment());
    }
}
