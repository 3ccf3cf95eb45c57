//! PURE: the archive of mongodump (`common/archive/spec.md` of the MongoDB tools): a magic number, a prelude that names all
//! collections, and blocks of documents. An archive that was cut between two blocks is well-formed, so each collection of
//! the prelude must have its end, with the checksum of its documents.

use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, Digest};

use crate::source::dump::format::whole::{Defect, Whole};

const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];
/// Ends the prelude and each block, in place of the length of a document.
const TERMINATOR: [u8; 4] = [0xff; 4];
/// The longest document: a server allows 16 MiB, and the tools 16 KiB more.
const LONGEST: usize = (16 << 20) + (16 << 10);
/// The prefix of the collection with the data of a time series.
const BUCKETS: &str = "system.buckets.";

/// An archive of mongodump.
#[derive(Debug)]
pub struct Archive {
    /// What is read next.
    at: At,
    /// The bytes so far of a document or of a length that is not complete yet.
    open: Vec<u8>,
    collections: BTreeMap<Name, Collection>,
    /// The collection whose documents are being read.
    current: Option<Name>,
}

type Name = (String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Magic,
    /// The first document of the prelude.
    Header,
    /// The collections in the prelude.
    Prelude,
    /// The header of a block, or the end of the archive.
    Block,
    /// The documents of a block, with the number of remaining bytes of the current one.
    Documents(usize),
    /// The terminator after the header that ends a collection.
    Ended,
}

#[derive(Debug)]
struct Collection {
    checksum: Digest,
    ended: bool,
    /// Whether the archive must contain its end, which may be missing for a view.
    needed: bool,
}

impl Default for Collection {
    fn default() -> Self {
        let checksum = Digest::new(CrcAlgorithm::Crc64Xz);
        Self { checksum, ended: false, needed: true }
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self { at: At::Magic, open: Vec::new(), collections: BTreeMap::new(), current: None }
    }
}

impl Archive {
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Defect> {
        while !bytes.is_empty() {
            if let At::Documents(left) = self.at
                && left > 0
            {
                let (these, rest) = bytes.split_at(left.min(bytes.len()));
                self.document(these, left)?;
                bytes = rest;
                continue;
            }
            let wanted = self.wanted()?;
            let (these, rest) = bytes.split_at((wanted - self.open.len()).min(bytes.len()));
            self.open.extend_from_slice(these);
            bytes = rest;
            if self.open.len() == self.wanted()? {
                let open = std::mem::take(&mut self.open);
                self.piece(&open)?;
            }
        }
        Ok(())
    }

    /// The length of the piece that is being read, as far as it is known.
    fn wanted(&self) -> Result<usize, Defect> {
        let Some(length) = self.open.first_chunk::<4>() else { return Ok(4) };
        match self.at {
            At::Magic | At::Documents(_) | At::Ended => Ok(4),
            _ if *length == TERMINATOR => Ok(4),
            _ => document_length(length),
        }
    }

    fn piece(&mut self, piece: &[u8]) -> Result<(), Defect> {
        let ends = piece == TERMINATOR;
        match self.at {
            At::Magic if piece == MAGIC => self.at = At::Header,
            At::Magic => return Err("does not begin like an archive of mongodump".to_owned()),
            At::Header if !ends => {
                Fields::of(piece)?;
                self.at = At::Prelude;
            }
            At::Prelude if ends => self.at = At::Block,
            At::Prelude => {
                let fields = Fields::of(piece)?;
                let needed = fields.kind.as_deref() != Some("view");
                let collection = Collection { needed, ..Collection::default() };
                self.collections.insert(fields.name()?, collection);
            }
            At::Block if !ends => return self.header(&Fields::of(piece)?),
            At::Documents(_) if ends => {
                (self.at, self.current) = (At::Block, None);
            }
            At::Documents(_) => {
                let length = document_length(piece.first_chunk().unwrap_or(&TERMINATOR))?;
                self.current()?.checksum.update(piece);
                self.at = At::Documents(length - 4);
            }
            At::Ended if ends => self.at = At::Block,
            At::Header | At::Block | At::Ended => {
                return Err("has a block without its header or its end".to_owned());
            }
        }
        Ok(())
    }

    fn header(&mut self, fields: &Fields) -> Result<(), Defect> {
        let (database, name) = fields.name()?;
        let shown = format!("{}.{}", database.escape_debug(), name.escape_debug());
        let plain = name.strip_prefix(BUCKETS).map(|name| (database.clone(), name.to_owned()));
        let key = (database, name);
        let known = plain.filter(|_| !self.collections.contains_key(&key)).unwrap_or(key);
        let Some(collection) = self.collections.get_mut(&known) else {
            return Err(format!("has documents of {shown}, which its prelude does not name"));
        };
        if collection.ended {
            return Err(format!("continues {shown} after its end"));
        }
        if !fields.ended {
            (self.at, self.current) = (At::Documents(0), Some(known));
            return Ok(());
        }
        if fields.checksum != Some(collection.checksum.finalize() as i64) {
            return Err(format!("has a checksum for {shown} that does not match its documents"));
        }
        collection.ended = true;
        self.at = At::Ended;
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Collection, Defect> {
        let current = self.current.as_ref().and_then(|name| self.collections.get_mut(name));
        current.ok_or_else(|| "has documents that belong to no collection".to_owned())
    }

    /// Takes some of the remaining bytes of a document, the last of which must be zero.
    fn document(&mut self, bytes: &[u8], left: usize) -> Result<(), Defect> {
        if bytes.len() == left && bytes.last() != Some(&0) {
            return Err("has a document without its end".to_owned());
        }
        self.current()?.checksum.update(bytes);
        self.at = At::Documents(left - bytes.len());
        Ok(())
    }

    pub(super) fn end(self) -> Result<Whole, Defect> {
        if self.at != At::Block || !self.open.is_empty() {
            return Err("ends within a block".to_owned());
        }
        let name = |(database, name): &Name| format!("{database}.{name}");
        if let Some((cut, _)) = self.collections.iter().find(|(_, c)| c.needed && !c.ended) {
            return Err(format!("does not have the end of {}", name(cut).escape_debug()));
        }
        Ok(Whole {
            contents: self.collections.keys().map(name).collect(),
            checked: "the end of each collection, with the checksum of its documents",
        })
    }
}

fn document_length(length: &[u8; 4]) -> Result<usize, Defect> {
    let length = u32::from_le_bytes(*length) as usize;
    if (5..=LONGEST).contains(&length) {
        Ok(length)
    } else {
        Err(format!("has a document of {length} bytes, which no server allows"))
    }
}

/// The fields of a header that matter here.
#[derive(Debug, Default)]
struct Fields {
    database: Option<String>,
    collection: Option<String>,
    kind: Option<String>,
    ended: bool,
    checksum: Option<i64>,
}

impl Fields {
    fn name(&self) -> Result<Name, Defect> {
        match (&self.database, &self.collection) {
            (Some(database), Some(collection)) => Ok((database.clone(), collection.clone())),
            _ => Err("has a header that names no collection".to_owned()),
        }
    }

    /// Reads the elements of a BSON document.
    fn of(document: &[u8]) -> Result<Self, Defect> {
        Self::parse(document).ok_or_else(|| "has a header that is not a document".to_owned())
    }

    fn parse(document: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut rest = document.get(4..)?.strip_suffix(&[0])?;
        while let Some((kind, after)) = rest.split_first() {
            let end = memchr::memchr(0, after)?;
            let (name, value) = (&after[..end], &after[end + 1..]);
            let length = |value: &[u8]| {
                let length = i32::from_le_bytes(*value.first_chunk()?);
                usize::try_from(length).ok()
            };
            let size = match kind {
                // A text has its length before it and a zero at its end.
                0x02 => 4usize.checked_add(length(value)?)?,
                0x03 | 0x04 => length(value)?.max(5),
                0x05 => 5usize.checked_add(length(value)?)?,
                0x08 => 1,
                0x0a => 0,
                0x10 => 4,
                0x01 | 0x09 | 0x11 | 0x12 => 8,
                0x07 => 12,
                0x13 => 16,
                _ => return None,
            };
            let (value, next) = value.split_at_checked(size)?;
            let text = || {
                let text = value.get(4..)?.strip_suffix(&[0])?;
                Some(String::from_utf8_lossy(text).into_owned())
            };
            match (name, kind) {
                (b"db", 0x02) => fields.database = Some(text()?),
                (b"collection", 0x02) => fields.collection = Some(text()?),
                (b"type", 0x02) => fields.kind = Some(text()?),
                (b"EOF", 0x08) => fields.ended = value == [1],
                (b"CRC", 0x12) => fields.checksum = Some(i64::from_le_bytes(*value.first_chunk()?)),
                _ => {}
            }
            rest = next;
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DumpFormat;
    use crate::source::dump::format::tests::read;

    fn document(elements: &[Vec<u8>]) -> Vec<u8> {
        let elements = elements.concat();
        let length = (elements.len() + 5) as u32;
        [&length.to_le_bytes()[..], &elements, &[0]].concat()
    }

    fn text(name: &str, value: &str) -> Vec<u8> {
        let length = (value.len() + 1) as u32;
        [&[2], name.as_bytes(), &[0], &length.to_le_bytes(), value.as_bytes(), &[0]].concat()
    }

    fn named(collection: &str, more: &[Vec<u8>]) -> Vec<u8> {
        document(&[&[text("db", "shop"), text("collection", collection)], more].concat())
    }

    fn end(collection: &str, documents: &[u8]) -> Vec<u8> {
        let checksum = crc_fast::checksum(CrcAlgorithm::Crc64Xz, documents);
        let ended = b"\x08EOF\0\x01".to_vec();
        let checksum = [&b"\x12CRC\0"[..], &checksum.to_le_bytes()].concat();
        [named(collection, &[ended, checksum]), TERMINATOR.to_vec()].concat()
    }

    fn block(collection: &str, documents: &[u8]) -> Vec<u8> {
        [named(collection, &[]), documents.to_vec(), TERMINATOR.to_vec()].concat()
    }

    /// Two collections whose blocks alternate, an empty one, a view and a time series.
    fn blocks() -> Vec<Vec<u8>> {
        let one = document(&[text("k", "v")]);
        let two = document(&[text("k", &"long ".repeat(50))]);
        let kind = |kind: &str| [text("type", kind), text("metadata", "{}")];
        vec![
            [
                MAGIC.to_vec(),
                document(&[
                    text("version", "0.1"),
                    b"\x10concurrent_collections\0\x04\0\0\0".to_vec(),
                ]),
                named("a", &kind("collection")),
                named("b", &kind("collection")),
                named("empty", &kind("collection")),
                named("seen", &kind("view")),
                named("times", &kind("timeseries")),
                TERMINATOR.to_vec(),
            ]
            .concat(),
            block("a", &[one.clone(), two.clone()].concat()),
            block("b", &two),
            block("a", &one),
            end("empty", b""),
            end("b", &two),
            block("system.buckets.times", &one),
            end("system.buckets.times", &one),
            end("a", &[one.clone(), two, one].concat()),
        ]
    }

    #[test]
    fn a_complete_archive_names_its_collections() {
        let archive = blocks().concat();
        for piece in [1, 2, 3, 5, 64, 100_000] {
            let whole = read(&DumpFormat::MongodumpArchive, &archive, piece).unwrap();
            assert_eq!(
                whole.contents,
                ["shop.a", "shop.b", "shop.empty", "shop.seen", "shop.times"]
            );
        }
    }

    #[test]
    fn a_cut_anywhere_is_found_even_between_two_blocks() {
        let archive = blocks().concat();
        for at in 0..archive.len() {
            assert!(
                read(&DumpFormat::MongodumpArchive, &archive[..at], 64).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_missing_or_changed_block_is_found() {
        let all = blocks();
        for left_out in 0..all.len() {
            let mut some = all.clone();
            some.remove(left_out);
            assert!(read(&DumpFormat::MongodumpArchive, &some.concat(), 64).is_err(), "{left_out}");
        }
        let archive = all.concat();
        let first = all[0].len();
        for at in first..archive.len() {
            let mut flipped = archive.clone();
            flipped[at] ^= 1;
            assert!(read(&DumpFormat::MongodumpArchive, &flipped, 64).is_err(), "{at}");
        }
    }
}
