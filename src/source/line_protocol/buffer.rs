//! Lines that were read and not yet sorted, up to a bound; and sorting them into segments. Holds
//! bytes and numbers only: names of tables and fields are in `schema`.

use std::collections::HashMap;

use crate::error::Result;
use crate::source::line_protocol::cells::Union;
use crate::source::line_protocol::schema::Draft;
use crate::source::line_protocol::spool::Sink;
use crate::source::line_protocol::spool::Writer;

/// A series of this buffer; the number is forgotten when the buffer is emptied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SeriesRef(u32);

#[derive(Clone, Copy)]
struct Series {
    table: u32,
    /// Where its tags are in `tags`.
    from: u32,
    to: u32,
}

/// A line: which series, when, and where its values are in `cells`.
struct Line {
    time: i64,
    series: u32,
    from: u32,
    length: u32,
}

// A line, and half of one for sorting.
const LINE_BYTES: usize = size_of::<Line>() * 3 / 2;
// What a hash map takes for an entry, besides the key.
const SERIES_BYTES: usize = 96;

/// Lines up to a bound.
pub(super) struct Buffer {
    cells: Vec<u8>,
    lines: Vec<Line>,
    series: Vec<Series>,
    tags: Vec<u8>,
    /// By how measurement and tags are written in the file.
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

    /// About how much memory the lines take, sorting them included.
    pub(super) fn size_bytes(&self) -> usize {
        self.cells.len()
            + self.lines.len() * LINE_BYTES
            + self.tags.len()
            + self.written_bytes
            + self.series.len() * SERIES_BYTES
    }

    /// The series that was written like this before, if it was.
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

    /// Adds a series: how it is written, its table, its tags in the form they are sorted in.
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

    /// The same bytes mean another series from here on (another database).
    pub(super) fn forget_written(&mut self) {
        self.written.clear();
        self.written_bytes = 0;
        self.last = None;
    }

    /// The place of the table of a series.
    pub(super) fn table(&self, series: SeriesRef) -> usize {
        self.series[series.0 as usize].table as usize
    }

    /// Where the values of the next line go.
    pub(super) fn cells(&mut self) -> &mut Vec<u8> {
        &mut self.cells
    }

    /// Ends a line whose values are those from `from` on.
    pub(super) fn end_line(&mut self, series: SeriesRef, time: i64, from: usize) {
        let length = (self.cells.len() - from) as u32;
        self.lines.push(Line { time, series: series.0, from: from as u32, length });
    }

    /// Writes all lines, sorted and the lines of one point made one, and starts anew.
    pub(super) fn spill(&mut self, tables: &mut [Draft], writer: &mut Writer<'_>) -> Result<()> {
        let order = self.rank();
        // The sort keeps the order of the file among lines of one point, so that the later wins.
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

    /// Replaces the series of each line by its place in the order of all series, and returns the
    /// series by that place. Series that differ only in how they are written become one.
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
