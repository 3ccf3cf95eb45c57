//! PURE: whether the bytes of a dump are whole, each format by its own signs. Exit status 0 of a program does not prove
//! that, nor does the end of its output alone: this reads all of it, piece by piece, in little memory.

mod archive;
mod lines;
mod mysqldump;
mod pg_dump;
mod rdb;
mod whole;

use self::archive::Archive;
use self::mysqldump::MysqlDump;
use self::pg_dump::PgDump;
use self::rdb::Rdb;
pub(super) use self::rdb::Untrimmed;
pub use self::whole::{Fault, Whole};
use crate::model::DumpFormat;

/// Reads a dump from its first to its last byte.
#[derive(Debug)]
pub enum Reading {
    /// SQL by pg_dump.
    PgDump(PgDump),
    /// SQL by mysqldump or mariadb-dump.
    MysqlDump(MysqlDump),
    /// The file of a Redis database.
    Rdb(Box<Rdb>),
    /// The archive of mongodump.
    Archive(Box<Archive>),
    /// Anything that ends in a text.
    EndsWith(End),
}

impl Reading {
    /// Begins to read.
    pub fn of(format: &DumpFormat) -> Self {
        match format {
            DumpFormat::PgDump => Self::PgDump(PgDump::default()),
            DumpFormat::MysqlDump => Self::MysqlDump(MysqlDump::default()),
            DumpFormat::Rdb => Self::Rdb(Box::default()),
            DumpFormat::MongodumpArchive => Self::Archive(Box::default()),
            DumpFormat::EndsWith(text) => Self::EndsWith(End::new(text)),
        }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            Self::PgDump(reading) => reading.take(bytes),
            Self::MysqlDump(reading) => reading.take(bytes),
            Self::Rdb(reading) => reading.take(bytes),
            Self::Archive(reading) => reading.take(bytes)?,
            Self::EndsWith(reading) => reading.take(bytes),
        }
        Ok(())
    }

    /// No byte follows.
    pub fn end(self) -> Result<Whole, Fault> {
        let mut whole = match self {
            Self::PgDump(reading) => reading.end(),
            Self::MysqlDump(reading) => reading.end(),
            Self::Rdb(reading) => reading.end(),
            Self::Archive(reading) => reading.end(),
            Self::EndsWith(reading) => reading.end(),
        }?;
        whole.contents.sort_unstable();
        whole.contents.dedup();
        Ok(whole)
    }
}

/// How far from its end a dump is looked at for the text that it ends in.
const TAIL_BYTES: usize = 64 << 10;

/// The end of a dump of which nothing else is known.
#[derive(Debug)]
pub struct End {
    text: Vec<u8>,
    tail: Vec<u8>,
}

impl End {
    fn new(text: &str) -> Self {
        Self { text: text.trim().as_bytes().to_vec(), tail: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        let most = TAIL_BYTES + self.text.len();
        let bytes = &bytes[bytes.len().saturating_sub(most)..];
        let over = (self.tail.len() + bytes.len()).saturating_sub(most);
        self.tail.drain(..over);
        self.tail.extend_from_slice(bytes);
    }

    fn end(self) -> Result<Whole, Fault> {
        if self.tail.trim_ascii_end().ends_with(&self.text) {
            return Ok(Whole { checked: "its end", ..Whole::default() });
        }
        let text = String::from_utf8_lossy(&self.text).into_owned();
        Err(format!("does not end in `{}`", text.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads it in pieces of so many bytes.
    pub(super) fn read(format: &DumpFormat, bytes: &[u8], piece: usize) -> Result<Whole, Fault> {
        let mut reading = Reading::of(format);
        bytes.chunks(piece.max(1)).try_for_each(|piece| reading.take(piece))?;
        reading.end()
    }

    #[test]
    fn the_end_is_the_very_end_but_for_white_space() {
        let format = DumpFormat::EndsWith("-- done".to_owned());
        for (text, whole) in [
            ("a\n-- done", true),
            ("a\n-- done \r\n\n\t", true),
            ("-- done", true),
            ("-- done.", false),
            ("a -- don", false),
            ("", false),
            ("-- done\nERROR", false),
        ] {
            for piece in [1, 3, 1000] {
                assert_eq!(read(&format, text.as_bytes(), piece).is_ok(), whole, "{text:?}");
            }
        }
        let long = [b"x".repeat(200_000), b"-- done".to_vec(), b" ".repeat(60_000)].concat();
        assert!(read(&format, &long, 7000).is_ok());
        let fault = read(&format, &[long, b" ".repeat(60_000)].concat(), 7000).unwrap_err();
        assert_eq!(fault, "does not end in `-- done`");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
            for format in [DumpFormat::PgDump, DumpFormat::MysqlDump, DumpFormat::Rdb, DumpFormat::MongodumpArchive] {
                prop_assert!(read(&format, &bytes, piece).is_err());
                let magic = [&[0x6d, 0xe2, 0x99, 0x81], bytes.as_slice()].concat();
                let _ = read(&format, &magic, piece);
            }
        }
    }
}
