//! Where the points of a file wait for the export after the file was read: in memory if they are few, or else in one
//! unnamed temporary file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::source::line_protocol::cells::{Cells, damaged, put_varint};

/// Receives points in order.
pub(super) trait Sink {
    /// The points that follow have these tags.
    fn series(&mut self, tags: &[u8]) -> Result<()>;
    /// A point, with each of its fields once.
    fn point(&mut self, time: i64, cells: &[u8]) -> Result<()>;
}

/// Where the sorted points of one table lie: for each series its tags, followed by its points in order of time, with each
/// time once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) rows: u64,
    /// The number of values that overwrote a different one.
    pub(super) conflicts: u64,
}

/// The byte before the tags of a series.
pub(super) const SERIES: u8 = 1;
/// The byte before a point.
pub(super) const POINT: u8 = 2;

/// The bytes of all segments.
pub(super) struct Spool(Mutex<Backing>);

enum Backing {
    Memory(Vec<u8>),
    File(File, u64),
}

impl Spool {
    /// A spool for few points.
    pub(super) fn in_memory() -> Self {
        Self(Mutex::new(Backing::Memory(Vec::new())))
    }

    /// A spool for many points.
    pub(super) fn on_disk() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| failed("creating", error))?;
        Ok(Self(Mutex::new(Backing::File(file, 0))))
    }

    /// Appends bytes and returns their offset.
    fn append(&self, bytes: &[u8]) -> Result<u64> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Backing::Memory(all) => {
                all.extend_from_slice(bytes);
                Ok((all.len() - bytes.len()) as u64)
            }
            Backing::File(file, end) => {
                let at = *end;
                file.seek(SeekFrom::Start(at))
                    .and_then(|_| file.write_all(bytes))
                    .map_err(|error| failed("writing", error))?;
                *end += bytes.len() as u64;
                Ok(at)
            }
        }
    }

    /// Fills `out` with the bytes at `offset`.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Backing::Memory(all) => {
                let from = usize::try_from(offset).map_err(|_| damaged())?;
                let found = all.get(from..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(found.ok_or_else(damaged)?);
                Ok(())
            }
            Backing::File(file, _) => file
                .seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(out))
                .map_err(|error| failed("reading", error)),
        }
    }
}

fn failed(doing: &str, error: std::io::Error) -> Error {
    let place = std::env::temp_dir();
    Error::stop(format!("{doing} a temporary file in {}: {error}", place.display()))
        .hint("set TMPDIR to a directory with room for about the size of the line-protocol file")
}

/// Writes segments one after the other.
pub(super) struct Writer<'a> {
    spool: &'a Spool,
    pending: Vec<u8>,
    written: u64,
    begun: Segment,
}

const PENDING: usize = 1 << 20;

impl<'a> Writer<'a> {
    /// Begins at the end of the spool, to which nobody else may write meanwhile.
    pub(super) fn new(spool: &'a Spool) -> Result<Self> {
        let offset = spool.append(&[])?;
        let begun = Segment { offset, length: 0, rows: 0, conflicts: 0 };
        Ok(Self { spool, pending: Vec::new(), written: offset, begun })
    }

    fn position(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Ends a segment and begins the next one.
    pub(super) fn end_segment(&mut self) -> Segment {
        let position = self.position();
        let next = Segment { offset: position, length: 0, rows: 0, conflicts: 0 };
        let ended = std::mem::replace(&mut self.begun, next);
        Segment { length: position - ended.offset, ..ended }
    }

    fn flush(&mut self) -> Result<()> {
        self.spool.append(&self.pending)?;
        self.written = self.position();
        self.pending.clear();
        Ok(())
    }

    /// Writes the pending bytes, so that all segments can be read.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

impl Sink for Writer<'_> {
    fn series(&mut self, tags: &[u8]) -> Result<()> {
        self.pending.push(SERIES);
        put_varint(&mut self.pending, tags.len() as u64);
        self.pending.extend_from_slice(tags);
        Ok(())
    }

    fn point(&mut self, time: i64, cells: &[u8]) -> Result<()> {
        self.pending.push(POINT);
        self.pending.extend_from_slice(&time.to_le_bytes());
        put_varint(&mut self.pending, cells.len() as u64);
        self.pending.extend_from_slice(cells);
        self.begun.rows += 1;
        self.begun.conflicts += conflicts(cells)?;
        if self.pending.len() >= PENDING { self.flush() } else { Ok(()) }
    }
}

/// How many values of a point overwrote a different one.
pub(super) fn conflicts(cells: &[u8]) -> Result<u64> {
    Cells(cells).try_fold(0, |sum, cell| Ok(sum + u64::from(cell?.conflict)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_back_from_memory_and_from_disk() {
        for spool in [Spool::in_memory(), Spool::on_disk().unwrap()] {
            assert_eq!(spool.append(b"abc").unwrap(), 0);
            assert_eq!(spool.append(b"defg").unwrap(), 3);
            let mut out = [0; 3];
            spool.read(2, &mut out).unwrap();
            assert_eq!(&out, b"cde");
            assert!(spool.read(5, &mut out).is_err(), "past the end");
        }
    }

    #[test]
    fn segments_follow_each_other() {
        let spool = Spool::in_memory();
        let mut writer = Writer::new(&spool).unwrap();
        writer.series(b"tags").unwrap();
        writer.point(5, b"").unwrap();
        let first = writer.end_segment();
        let second = writer.end_segment();
        writer.finish().unwrap();
        assert_eq!(first, Segment { offset: 0, length: 16, rows: 1, conflicts: 0 });
        assert_eq!(second, Segment { offset: 16, length: 0, rows: 0, conflicts: 0 });
        let mut out = vec![0; 16];
        spool.read(0, &mut out).unwrap();
        assert_eq!(out, b"\x01\x04tags\x02\x05\0\0\0\0\0\0\0\0");
    }
}
