//! The bytes of a dump on their way: hashed and read to their end by the format's own signs, before they are compressed
//! and again as they are stored. Work on threads; memory is a few pieces.

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

/// Pieces that wait between two threads.
pub(super) const PIECES: usize = 4;
/// Bytes that are decompressed at once.
const PIECE_BYTES: usize = 256 << 10;
/// What a compressed stream begins with, and the bit of the byte after it that says that its content has a checksum.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const HAS_CHECKSUM: u8 = 4;

/// What is known of a dump when all of its bytes have passed.
#[derive(Debug)]
pub struct Passed {
    /// How many.
    pub bytes: u64,
    /// Their SHA-256, where somebody wants to know it.
    pub sha256: String,
    /// What the format says of them.
    pub whole: Result<Whole, Defect>,
    /// Whether not all of them were taken: after a fault the rest is of no use.
    pub gave_up: bool,
}

/// A dump as it stands in the store.
#[derive(Debug)]
pub struct Stored {
    /// Bytes of the object.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// What it is when it is decompressed.
    pub raw: Passed,
}

/// Reads what passes, on a thread, and hands it on. Where nothing is to be handed on it goes on after a fault, so that
/// the hash is one of all bytes.
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
                gave_up = true; // which ends the program
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

/// Reads a dump as it stands in the store, decompressed, to its end; `None` where it is not there. Of the decompressed
/// bytes the hash is made only on request: the object's own hash and zstd's checksum bind them already.
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
            break; // the thread has ended, which its result says
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

/// Decompresses what comes, and hashes all of it as it came.
fn decompress(stored: Receiver<Bytes>, to: &Sender<Bytes>) -> (u64, String, io::Result<()>) {
    let mut incoming =
        Incoming { pieces: stored, piece: Bytes::new(), bytes: 0, hash: Sha256::new() };
    let decompressed = decompress_to(&mut incoming, to);
    // The hash is of all bytes, also of those that nobody could decompress.
    let rest = io::copy(&mut incoming, &mut io::sink());
    (incoming.bytes, hex(&incoming.hash.finalize()), decompressed.and(rest.map(drop)))
}

fn decompress_to(incoming: &mut Incoming, to: &Sender<Bytes>) -> io::Result<()> {
    let begin = incoming.fill_buf()?;
    if begin.get(..4) != Some(&MAGIC) || begin.get(4).is_none_or(|flags| flags & HAS_CHECKSUM == 0)
    {
        return Err(io::Error::other("it is no zstd with a checksum"));
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

/// Pieces as they come from the store, hashed when they are taken.
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
