//! PURE: checks whether the bytes of a dump are complete, by the signs of each format. Neither exit status 0 of a program
//! nor the end of its output alone proves that, so all of it is read, piece by piece and in little memory.

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
pub use self::whole::{Defect, Whole};
use crate::model::DumpFormat;

/// Reads a dump from its first to its last byte.
#[derive(Debug)]
pub enum DumpParser {
    /// SQL by pg_dump.
    PgDump(PgDump),
    /// SQL by mysqldump or mariadb-dump.
    MysqlDump(MysqlDump),
    /// The file of a Redis server.
    Rdb(Box<Rdb>),
    /// An archive of mongodump.
    Archive(Box<Archive>),
    /// Anything that ends with a given text.
    EndsWith(End),
}

impl DumpParser {
    /// A parser for a dump of this format.
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
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Defect> {
        match self {
            Self::PgDump(reading) => reading.take(bytes),
            Self::MysqlDump(reading) => reading.take(bytes),
            Self::Rdb(reading) => reading.take(bytes),
            Self::Archive(reading) => reading.take(bytes)?,
            Self::EndsWith(reading) => reading.take(bytes),
        }
        Ok(())
    }

    /// Ends the dump: no byte follows.
    pub fn end(self) -> Result<Whole, Defect> {
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

/// How much white space may follow the text that a dump ends with.
const TAIL_BYTES: usize = 64 << 10;

/// The end of a dump about which nothing else is known.
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

    fn end(self) -> Result<Whole, Defect> {
        if self.tail.trim_ascii_end().ends_with(&self.text) {
            return Ok(Whole { checked: "its end", ..Whole::default() });
        }
        let text = String::from_utf8_lossy(&self.text).into_owned();
        Err(format!("does not end with `{}`", text.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a dump in pieces of this many bytes.
    pub(super) fn read(format: &DumpFormat, bytes: &[u8], piece: usize) -> Result<Whole, Defect> {
        let mut reading = DumpParser::of(format);
        bytes.chunks(piece.max(1)).try_for_each(|piece| reading.take(piece))?;
        reading.end()
    }

    #[test]
    fn only_white_space_may_follow_the_end() {
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
        assert_eq!(fault, "does not end with `-- done`");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
            for format in [DumpFormat::PgDump, DumpFormat::MysqlDump, DumpFormat::Rdb, DumpFormat::MongodumpArchive] {
                prop_assert!(read(&format, &bytes, piece).is_err());
                let magic = [&[0x6d, 0xe2, 0x99, 0x81], bytes.as_slice()].concat();
                let _ = read(&format, &magic, piece);
            }
        }
    }
}
