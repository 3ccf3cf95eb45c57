//! Reads a file, plain or compressed, to its very end on a thread of its own, and hashes the bytes as they are on disk. A
//! truncated compressed file is an error.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Opens a regular file for reading.
pub(super) fn open(path: &Path) -> Result<File> {
    let failed = |why: String| {
        Error::stop(format!("opening the line-protocol file {}: {why}", path.display()))
            .hint("check the path and the permissions")
    };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if metadata.is_file() { Ok(file) } else { Err(failed("it is not a regular file".to_owned())) }
}

/// Sends the content of a file in blocks and returns the SHA-256 of the file itself. It ends early and without an error
/// when nobody receives the blocks any more.
pub(super) fn read(path: &Path, block: usize, blocks: &SyncSender<Vec<u8>>) -> Result<String> {
    let file = open(path)?;
    let before = stamp(&file, path)?;
    let mut decoder =
        Decoder::new(Hashed { file, hash: Sha256::new() }).map_err(|error| failed(path, &error))?;
    loop {
        let mut bytes = Vec::with_capacity(block);
        decoder
            .by_ref()
            .take(block as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(path, &error))?;
        let ended = bytes.is_empty();
        if ended || blocks.send(bytes).is_err() {
            break;
        }
    }
    let hashed = decoder.into_inner();
    if stamp(&hashed.file, path)? != before {
        return Err(Error::stop(format!("{} changed while it was read", path.display()))
            .hint("wait until it is complete, then run again"));
    }
    let hash = hashed.hash.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            Error::stop(format!("reading {path}: the compressed data end too early: {error}"))
                .hint("the file is truncated: export or copy it again")
        }
        _ => Error::stop(format!("reading {path}: {error}"))
            .hint("the file may be damaged: test it with `gzip -t` or `zstd -t`"),
    }
}

fn stamp(file: &File, path: &Path) -> Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// The file, hashed as it is read.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(out)?;
        self.hash.update(&out[..count]);
        Ok(count)
    }
}

type Raw = BufReader<Hashed>;

enum Decoder {
    Plain(Raw),
    Gzip(Box<MultiGzDecoder<Raw>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Raw>>),
}

impl Decoder {
    fn new(file: Hashed) -> std::io::Result<Self> {
        let mut raw = BufReader::with_capacity(256 << 10, file);
        let magic = raw.fill_buf()?;
        Ok(if magic.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip(Box::new(MultiGzDecoder::new(raw)))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(raw)?))
        } else {
            Self::Plain(raw)
        })
    }

    fn into_inner(self) -> Hashed {
        match self {
            Self::Plain(raw) => raw,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
        .into_inner()
    }
}

impl Read for Decoder {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(out),
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(content, 1).unwrap()
    }

    fn content(bytes: &[u8]) -> Result<(Vec<u8>, String)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let (sender, receiver) = sync_channel(1000);
        let hash = read(file.path(), 7, &sender)?;
        drop(sender);
        Ok((receiver.iter().flatten().collect(), hash))
    }

    #[test]
    fn every_format_is_read_to_its_end() {
        let text = b"cpu f=1 1\ncpu f=2 2\n".as_slice();
        let both = [text, text].concat();
        assert_eq!(content(text).unwrap().0, text);
        assert_eq!(content(&gzip(text)).unwrap().0, text);
        assert_eq!(content(&[gzip(text), gzip(text)].concat()).unwrap().0, both);
        assert_eq!(content(&zstd(text)).unwrap().0, text);
        assert_eq!(content(&[zstd(text), zstd(text)].concat()).unwrap().0, both);
        assert_eq!(content(b"").unwrap().0, b"");
    }

    #[test]
    fn the_hash_is_that_of_the_file_on_disk() {
        let file = [gzip(b"cpu f=1 1\n"), gzip(b"cpu f=2 2\n")].concat();
        let expected: String = Sha256::digest(&file).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(content(&file).unwrap().1, expected);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(content(b"abc").unwrap().1, abc);
    }

    #[test]
    fn a_compressed_file_that_is_truncated_anywhere_is_an_error() {
        let text = b"cpu,host=a f=1 1\ncpu,host=b f=2 2\n".as_slice();
        for (whole, magic) in [(gzip(text), 2), (zstd(text), 4)] {
            for cut in magic..whole.len() {
                assert!(content(&whole[..cut]).is_err(), "{cut} of {}", whole.len());
                let second = [&whole, &whole[..cut]].concat();
                assert!(content(&second).is_err(), "{cut} of {} in the second part", whole.len());
            }
            assert!(content(&[&whole, b"garbage".as_slice()].concat()).is_err());
        }
    }
}
