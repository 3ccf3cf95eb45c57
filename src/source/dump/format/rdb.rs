//! PURE: the file of a Redis server: its beginning, the opcode at its end, and the server's checksum over all of it. A
//! server that syncs without a disk sends 40 more bytes, which redis-cli cannot remove when it writes to a pipe.

use crc_fast::{CrcAlgorithm, Digest};

use crate::source::dump::format::whole::{Defect, Whole};

/// The opcode at the end, and the checksum.
const END_BYTES: usize = 9;
const END: u8 = 0xff;
/// The mark that a server which syncs without a disk sends after the file.
const MARK_BYTES: usize = 40;
/// `REDIS` and a version of four digits.
const HEAD_BYTES: usize = 9;

/// The parser of a Redis file.
#[derive(Debug)]
pub struct Rdb {
    head: Vec<u8>,
    /// The checksum of everything before the tail.
    checksum: Digest,
    tail: Tail<{ END_BYTES }>,
}

impl Default for Rdb {
    fn default() -> Self {
        let checksum = Digest::new(CrcAlgorithm::Crc64Redis);
        Self { head: Vec::new(), checksum, tail: Tail::default() }
    }
}

impl Rdb {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.take(bytes, |bytes| self.checksum.update(bytes));
    }

    pub(super) fn end(mut self) -> Result<Whole, Defect> {
        let is_version = |digits: &[u8]| digits.len() == 4 && digits.iter().all(u8::is_ascii_digit);
        if !self.head.strip_prefix(b"REDIS").is_some_and(is_version) {
            return Err("does not begin like a Redis file".to_owned());
        }
        match self.tail.0.split_first_chunk::<1>() {
            Some(([END], checksum)) if checksum.len() == END_BYTES - 1 => {
                self.checksum.update(&[END]);
                let found = self.checksum.finalize().to_le_bytes();
                match checksum {
                    [0, 0, 0, 0, 0, 0, 0, 0] => Ok(Whole {
                        checked: "its beginning and its end; the server writes no checksum (rdbchecksum)",
                        ..Whole::default()
                    }),
                    checksum if checksum == found => Ok(Whole {
                        checked: "the server's checksum over all of it, and its end",
                        ..Whole::default()
                    }),
                    _ => Err("has a checksum that does not match its bytes".to_owned()),
                }
            }
            _ => Err("does not end like a Redis file".to_owned()),
        }
    }
}

/// Removes the mark that may follow a Redis file when redis-cli prints it.
#[derive(Debug, Default)]
pub(in crate::source::dump) struct Untrimmed {
    file: Rdb,
    tail: Tail<{ MARK_BYTES }>,
}

impl Untrimmed {
    /// Takes the next bytes and returns those that certainly belong to the file.
    pub(in crate::source::dump) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sure = Vec::with_capacity(bytes.len() + MARK_BYTES);
        self.tail.take(bytes, |bytes| sure.extend_from_slice(bytes));
        self.file.take(&sure);
        sure
    }

    /// The last bytes of the file, without the mark.
    pub(in crate::source::dump) fn end(self) -> Vec<u8> {
        let is_mark = self.tail.0.iter().all(u8::is_ascii_hexdigit);
        // The server's checksum decides where the file ends.
        if is_mark && self.tail.0.len() == MARK_BYTES && self.file.end().is_ok() {
            Vec::new()
        } else {
            self.tail.0
        }
    }
}

/// The last bytes that have arrived.
#[derive(Debug, Default)]
struct Tail<const BYTES: usize>(Vec<u8>);

impl<const BYTES: usize> Tail<BYTES> {
    /// Takes the next bytes and passes on those that are no longer the last ones.
    fn take(&mut self, bytes: &[u8], mut pass: impl FnMut(&[u8])) {
        let over = (self.0.len() + bytes.len()).saturating_sub(BYTES);
        let of_tail = over.min(self.0.len());
        if of_tail > 0 {
            pass(&self.0[..of_tail]);
            self.0.drain(..of_tail);
        }
        let (passed, kept) = bytes.split_at(over - of_tail);
        if !passed.is_empty() {
            pass(passed);
        }
        self.0.extend_from_slice(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DumpFormat;
    use crate::source::dump::format::tests::read;

    fn file(with_checksum: bool) -> Vec<u8> {
        let mut file = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfe\x00\x00\x01k\x01v\xff".to_vec();
        let checksum = crc_fast::checksum(CrcAlgorithm::Crc64Redis, &file);
        file.extend(if with_checksum { checksum } else { 0 }.to_le_bytes());
        file
    }

    #[test]
    fn the_checksum_is_that_of_redis() {
        // The test vector of its source, src/crc64.c.
        assert_eq!(
            crc_fast::checksum(CrcAlgorithm::Crc64Redis, b"123456789"),
            0xe9c6_d914_c4b8_d9ca
        );
    }

    #[test]
    fn any_changed_or_missing_byte_is_found() {
        let file = file(true);
        for piece in 1..=file.len() {
            assert!(read(&DumpFormat::Rdb, &file, piece).is_ok());
        }
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 4;
            assert!(read(&DumpFormat::Rdb, &flipped, 5).is_err(), "{at}");
            assert!(read(&DumpFormat::Rdb, &file[..at], 5).is_err(), "{at}");
        }
        assert!(read(&DumpFormat::Rdb, &[file, vec![0]].concat(), 5).is_err());
        let without = read(&DumpFormat::Rdb, &self::file(false), 5).unwrap();
        assert!(without.checked.contains("no checksum"));
    }

    #[test]
    fn only_the_mark_is_removed() {
        let mark = b"0123456789abcdef0123456789abcdef01234567";
        for file in [file(true), file(false)] {
            for (sent, expected) in [
                ([file.as_slice(), mark].concat(), file.clone()),
                (file.clone(), file.clone()),
                ([file.as_slice(), b"and more"].concat(), [file.as_slice(), b"and more"].concat()),
                (b"short".to_vec(), b"short".to_vec()),
            ] {
                for piece in [1, 39, 40, 41, 1000] {
                    let mut untrimmed = Untrimmed::default();
                    let mut found: Vec<u8> =
                        sent.chunks(piece).flat_map(|piece| untrimmed.take(piece)).collect();
                    found.extend(untrimmed.end());
                    assert_eq!(found, expected, "in pieces of {piece}");
                }
            }
        }
    }
}
