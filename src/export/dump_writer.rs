//! Brings one native dump from its program to a commit: it is checked to its end, compressed and hashed on threads,
//! uploaded, read back and checked to its end once more. The upload is completed only when the dump is known to be
//! complete; until then it is not visible.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZero;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinError, JoinHandle};

use crate::archive::commit::{Commit, FileRecord};
use crate::archive::keys::dump_key;
use crate::error::{Class, Error, Result};
use crate::export::chunk_writer::{ChunkWriter, Failure};
use crate::export::dump_reader::{PIECES, Passed, pass, read_stored};
use crate::hash::hex;
use crate::model::{Chunk, DumpPlan, DumpRecord, Dumped};
use crate::source::Source;
use crate::source::channel::{Pace, dump_channel};
use crate::source::dump::format::Whole;
use crate::store::upload::Upload;
use crate::window::{now, rfc3339};

/// The level of zstd: its own default, which keeps up with the programs.
const LEVEL: i32 = 3;
/// The bytes of a dump in one frame, which are far more than zstd's window at this level.
const FRAME_BYTES: usize = 4 << 20;
/// The most frames that are made at the same time.
const FRAMES: usize = 4;
/// How many tables a message names.
const NAMED: usize = 5;

/// The compressed bytes that went to the store.
struct Compressed {
    bytes: u64,
    sha256: String,
}

impl ChunkWriter {
    /// Brings a dump into the store and reads it back. The file of the returned commit is durable, but counts only once
    /// the commit is written.
    pub(super) async fn write_dump(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        path: &str,
        permit: impl Send,
    ) -> Result<Commit, Failure> {
        let (began, started) = (Instant::now(), rfc3339(now()));
        let id = &chunk.table.id;
        let not_listed = || Failure::OfSource(Error::fail(format!("{id} was not listed")));
        let plan = source.dump(id).ok_or_else(not_listed)?;
        let _reading = self.progress.reading(&id.to_string(), source.name());
        tracing::info!("taking the {id} by {}", plan.program);
        let key = dump_key(path, &self.run);
        let (compressed, passed, whole) = self.store_dump(source, chunk, &plan, &key).await?;
        drop(permit);
        let Compressed { bytes, sha256 } = compressed;
        let file = FileRecord { key, bytes, sha256, rows: 0 };
        if let Err(error) = self.interrupt.or(self.read_back(&file, &plan, &passed, &whole)).await {
            let _ = self.store.delete(&file.key).await; // a sweep finds the rest
            self.progress.uncount(0, file.bytes);
            return Err(error.into());
        }
        let verified = format!(
            "exit status 0; stored bytes read back, hashed, decompressed and read to the end: {}",
            whole.checked
        );
        Ok(Commit {
            common: self.common(chunk, path, verified),
            slice: chunk.slice,
            rows: 0,
            files: vec![file],
            columns: Vec::new(),
            started,
            elapsed_ms: began.elapsed().as_millis() as u64,
            committed: rfc3339(now()),
            snapshot: None,
            replaces: Vec::new(),
            dump: Some(Box::new(DumpRecord {
                program: plan.program,
                format: plan.format,
                raw_bytes: passed.bytes,
                raw_sha256: passed.sha256,
                contents: whole.contents,
            })),
        })
    }

    /// Brings the bytes into the store, where they become visible only if the dump is complete.
    async fn store_dump(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        plan: &DumpPlan,
        key: &str,
    ) -> Result<(Compressed, Passed, Whole), Failure> {
        let (output, printed) = dump_channel();
        let printed = match &self.pace {
            Some(pace) => paced(printed, pace.clone()),
            None => printed,
        };
        let (next, to_compress) = mpsc::channel(PIECES);
        let (parts, to_upload) = mpsc::channel(1);
        let passing = pass(printed, Some(next), &plan.format, true);
        let compressing = compress(to_compress, parts, self.store.part_bytes());
        let uploading = tokio::spawn(self.clone().upload(key.to_owned(), to_upload));

        let dumped = self.interrupt.or(source.read_dump(&chunk.table.id, output)).await;
        let (passed, compressed) = (passing.await, compressing.await);
        let (upload, sent) = uploading.await.map_err(lost)?;
        let (bytes, known) = match sent {
            Ok(bytes) => (bytes, all_is_well(compressed, passed, dumped)),
            // A failed upload makes the others fail.
            Err(error) => (0, Err(error.into())),
        };
        let known = match known {
            Ok(known) => upload.complete().await.map(|()| known).map_err(Failure::from),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        };
        known.inspect_err(|_| self.progress.uncount(0, bytes))
    }

    async fn upload(self, key: String, mut parts: Receiver<Bytes>) -> (Upload, Result<u64>) {
        let mut upload = Upload::new(self.store.clone(), &key);
        let mut bytes = 0;
        while let Some(part) = parts.recv().await {
            bytes += part.len() as u64;
            self.progress.add_bytes(part.len() as u64);
            if let Err(error) = upload.write(part).await {
                self.progress.uncount(0, bytes);
                return (upload, Err(error));
            }
        }
        (upload, Ok(bytes))
    }

    /// Checks a dump as it is in the store, and not as it was sent.
    async fn read_back(
        &self,
        file: &FileRecord,
        plan: &DumpPlan,
        sent: &Passed,
        whole: &Whole,
    ) -> Result<()> {
        let differs =
            |what: &str| Err(Error::of(Class::Retry, format!("{}: read back, {what}", file.key)));
        let Some(stored) = read_stored(&self.store, &file.key, &plan.format, false).await? else {
            return differs("it does not exist");
        };
        match &stored.raw.whole {
            _ if (stored.bytes, &stored.sha256) != (file.bytes, &file.sha256) => {
                differs("its bytes differ from those written")
            }
            Err(fault) => differs(&format!("the dump {fault}")),
            Ok(found) if found != whole || stored.raw.bytes != sent.bytes => {
                differs("it is not the dump that was written")
            }
            Ok(_) => Ok(()),
        }
    }
}

/// Checks everything that must be known before a dump becomes visible: its program ended with exit status 0, the dump is
/// complete by its format, and it has the tables that it must have.
fn all_is_well(
    compressed: Result<io::Result<Compressed>, JoinError>,
    passed: Result<Passed, JoinError>,
    dumped: Result<Dumped>,
) -> Result<(Compressed, Passed, Whole), Failure> {
    let compressed = compressed.map_err(lost)?;
    let compressed =
        compressed.map_err(|error| Error::stop(format!("compressing the dump: {error}")))?;
    let mut passed = passed.map_err(lost)?;
    let whole = std::mem::replace(&mut passed.whole, Err(String::new()));
    let of_source = |what: String| Failure::OfSource(Error::of(Class::Retry, what));
    let whole = whole.map_err(|fault| of_source(format!("the dump {fault}")));
    // If the output is not taken any more, the program fails only because of that.
    let dumped =
        if passed.gave_up { Dumped::default() } else { dumped.map_err(Failure::OfSource)? };
    let whole = whole?;
    let missing: Vec<&String> = dumped
        .expected
        .iter()
        .filter(|table| whole.contents.binary_search(table).is_err())
        .collect();
    if !missing.is_empty() {
        let names = missing.iter().take(NAMED).map(|name| name.escape_debug().to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(of_source(format!("the dump lacks {names}")));
    }
    Ok((compressed, passed, whole))
}

/// Passes the pieces on no faster than the pace.
fn paced(mut pieces: Receiver<Bytes>, pace: Pace) -> Receiver<Bytes> {
    let (slowed, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            pace.wait(piece.len()).await;
            if slowed.send(piece).await.is_err() {
                return;
            }
        }
    });
    taken
}

fn lost(error: JoinError) -> Error {
    Error::stop(format!("a task of the dump failed: {error}"))
}

/// Compresses the pieces into parts of one size. Several frames are made at the same time, since one thread is slower than
/// some programs. They follow each other in the order of their content, and every zstd reads them as one stream.
fn compress(
    mut pieces: Receiver<Bytes>,
    parts: Sender<Bytes>,
    part_bytes: usize,
) -> JoinHandle<io::Result<Compressed>> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(FRAMES);
    let threads = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut to = Parts { parts, part: Vec::new(), part_bytes, bytes: 0, hash: Sha256::new() };
        let mut frames = VecDeque::new();
        let (mut is_first, mut is_more) = (true, true);
        while is_more {
            let (mut content, mut bytes) = (Vec::new(), 0);
            while bytes < FRAME_BYTES
                && let Some(piece) = pieces.blocking_recv()
            {
                bytes += piece.len();
                content.push(piece);
            }
            is_more = bytes >= FRAME_BYTES;
            // An empty dump is one frame as well.
            if bytes > 0 || is_first {
                is_first = false;
                frames.push_back(threads.spawn_blocking(move || frame(&content, bytes)));
            }
            while frames.len() >= at_once || !is_more {
                let Some(made) = frames.pop_front() else { break };
                to.write_all(&threads.block_on(made)??)?;
            }
        }
        if !to.part.is_empty() {
            to.send()?;
        }
        Ok(Compressed { bytes: to.bytes, sha256: hex(&to.hash.finalize()) })
    })
}

fn frame(content: &[Bytes], bytes: usize) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(bytes / 2), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes as u64))?;
    content.iter().try_for_each(|piece| encoder.write_all(piece))?;
    encoder.finish()
}

/// Gathers bytes into parts.
struct Parts {
    parts: Sender<Bytes>,
    part: Vec<u8>,
    part_bytes: usize,
    bytes: u64,
    hash: Sha256,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.hash.update(&part);
        self.bytes += part.len() as u64;
        let gone = |_| io::Error::other("the upload has ended");
        self.parts.blocking_send(part.into()).map_err(gone)
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            self.part.reserve_exact(self.part_bytes);
        }
        let room = self.part_bytes - self.part.len();
        let taken = bytes.len().min(room);
        self.part.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn frames_follow_each_other_in_parts_of_one_size() {
        for bytes in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 5 * FRAME_BYTES + 17] {
            let content: Vec<u8> = (0..bytes).map(|_| fastrand::u8(0..50)).collect();
            let (next, pieces) = mpsc::channel(1);
            let (parts, mut taken) = mpsc::channel(1);
            let compressing = compress(pieces, parts, 1000);
            let sent = content.clone();
            tokio::spawn(async move {
                for piece in sent.chunks(100_003) {
                    next.send(Bytes::copy_from_slice(piece)).await.unwrap();
                }
            });
            let mut stored = Vec::new();
            while let Some(part) = taken.recv().await {
                assert_eq!(stored.len() % 1000, 0, "only the last part is shorter");
                stored.extend_from_slice(&part);
            }
            let made = compressing.await.unwrap().unwrap();
            assert_eq!(made.bytes, stored.len() as u64);
            assert_eq!(made.sha256, crate::hash::sha256(&stored));
            assert!(zstd::decode_all(stored.as_slice()).unwrap() == content, "{bytes}");
        }
    }
}
