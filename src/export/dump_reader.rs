//! Hashes the bytes of a dump and checks them to their end by the signs of their format: before they are compressed, and
//! again as they are stored. The work is done on threads, with memory for a few pieces.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::hash::hex;
use crate::model::DumpFormat;
use crate::source::dump::format::{Defect, DumpParser, Whole};
use crate::store::Store;

/// How many pieces wait between two threads.
pub(super) const PIECES: usize = 4;
/// How many bytes are decompressed at once.
const PIECE_BYTES: usize = 256 << 10;
/// The beginning of a compressed stream, and the bit of the next byte which says that the content has a checksum.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const HAS_CHECKSUM: u8 = 4;

/// What is known about a dump when all its bytes have passed.
#[derive(Debug)]
pub struct Passed {
    /// The number of bytes.
    pub bytes: u64,
    /// Their SHA-256, if it was requested.
    pub sha256: String,
    /// The result of the check by the format.
    pub whole: Result<Whole, Defect>,
    /// Whether not all bytes were taken, because they are useless after a defect or nobody wants them.
    pub gave_up: bool,
}

/// A dump as it is in the store.
#[derive(Debug)]
pub struct Stored {
    /// The bytes of the object.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// The decompressed content.
    pub raw: Passed,
}

/// Checks passing bytes on a thread and passes them on. Without a receiver, it continues after a defect, so that the hash
/// covers all bytes.
pub(super) fn pass(
    mut pieces: Receiver<Bytes>,
    next: Option<Sender<Bytes>>,
    format: &DumpFormat,
    is_hashed: bool,
) -> JoinHandle<Passed> {
    let mut reading = Some(DumpParser::of(format));
    tokio::task::spawn_blocking(move || {
        let (mut bytes, mut hash) = (0, Sha256::new());
        let (mut fault, mut gave_up) = (None, false);
        while let Some(piece) = pieces.blocking_recv() {
            bytes += piece.len() as u64;
            if is_hashed {
                hash.update(&piece);
            }
            if let Some(Err(found)) = reading.as_mut().map(|reading| reading.take(&piece)) {
                (reading, fault) = (None, Some(found));
            }
            if let Some(next) = &next
                && (fault.is_some() || next.blocking_send(piece).is_err())
            {
                gave_up = true; // this ends the program
                break;
            }
        }
        let whole = match (fault, reading) {
            (None, Some(reading)) => reading.end(),
            (fault, _) => Err(fault.unwrap_or_default()),
        };
        let sha256 = if is_hashed { hex(&hash.finalize()) } else { String::new() };
        Passed { bytes, sha256, whole, gave_up }
    })
}

/// Reads a dump in the store, decompressed, to its end; `None` if it does not exist. The decompressed bytes are hashed only
/// on request, since the hash of the object and zstd's checksum already determine them.
pub async fn read_stored(
    store: &Store,
    key: &str,
    format: &DumpFormat,
    is_hashed: bool,
) -> Result<Option<Stored>> {
    let Some(mut stream) = store.stream(key).await? else { return Ok(None) };
    let (sender, stored) = mpsc::channel(PIECES);
    let (decompressed, raw) = mpsc::channel(PIECES);
    let decompressing = tokio::task::spawn_blocking(move || decompress(stored, &decompressed));
    let passing = pass(raw, None, format, is_hashed);
    while let Some(piece) = stream.next().await {
        if sender.send(piece?).await.is_err() {
            break; // the thread has failed, and its result says why
        }
    }
    drop(sender);
    let ended = |error| Error::stop(format!("reading {key}: {error}"));
    let (bytes, sha256, decompressed) = decompressing.await.map_err(ended)?;
    let mut raw = passing.await.map_err(ended)?;
    if let Err(error) = decompressed {
        raw.whole = Err(format!("cannot be decompressed: {error}"));
    }
    Ok(Some(Stored { bytes, sha256, raw }))
}

/// Decompresses the pieces and hashes all of them as they arrived.
fn decompress(stored: Receiver<Bytes>, to: &Sender<Bytes>) -> (u64, String, io::Result<()>) {
    let mut incoming =
        Incoming { pieces: stored, piece: Bytes::new(), bytes: 0, hash: Sha256::new() };
    let decompressed = decompress_to(&mut incoming, to);
    // The hash covers all bytes, including those that could not be decompressed.
    let rest = io::copy(&mut incoming, &mut io::sink());
    (incoming.bytes, hex(&incoming.hash.finalize()), decompressed.and(rest.map(drop)))
}

fn decompress_to(incoming: &mut Incoming, to: &Sender<Bytes>) -> io::Result<()> {
    let begin = incoming.fill_buf()?;
    if begin.get(..4) != Some(&MAGIC) || begin.get(4).is_none_or(|flags| flags & HAS_CHECKSUM == 0)
    {
        return Err(io::Error::other("it is not zstd with a checksum"));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(incoming)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        decoder.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() || to.blocking_send(piece.into()).is_err() {
            return Ok(());
        }
    }
}

/// The pieces from the store, which are hashed when they are taken.
struct Incoming {
    pieces: Receiver<Bytes>,
    piece: Bytes,
    bytes: u64,
    hash: Sha256,
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            let Some(piece) = self.pieces.blocking_recv() else { break };
            self.hash.update(&piece);
            self.bytes += piece.len() as u64;
            self.piece = piece;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece = self.piece.slice(amount..);
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
