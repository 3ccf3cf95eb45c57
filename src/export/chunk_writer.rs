//! Brings one chunk from its source to a commit: it is read, encoded on a thread, uploaded and read back. A failure leaves
//! no file behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::archive::commit::{Commit, Common, FileRecord};
use crate::archive::keys::file_key;
use crate::encode::{EncodeOptions, Encoded, EncodedFile, Encoder, Output, encode};
use crate::error::{Class, Error, Result};
use crate::export::controller::{Abandoned, Patience};
use crate::hash::sha256;
use crate::model::{Chunk, ReadSummary, TableId};
use crate::progress::Progress;
use crate::retry::Interrupt;
use crate::source::Source;
use crate::source::channel::{BatchSender, Batches, Pace};
use crate::store::Store;
use crate::store::reading::hash_object;
use crate::store::upload::Upload;
use crate::window::{now, rfc3339};

/// The most batches between source and encoder. If there is memory, as many are encoded together, so that the next ones
/// arrive while these are encoded. A server's batches have 8,192 rows, about a MiB.
const BATCHES: usize = 8;
const BATCH_BYTES: usize = 2 << 20;
/// How many bytes at the end of a file are read at once. Most footers are in them, and so are all of a small file.
const TAIL_BYTES: u64 = 64 << 10;
/// The most parts of a chunk that are in memory when all of it is encoded: on their way, and between encoder and upload.
const PARTS_LEFT: usize = 4;
/// The most files of a chunk that are read back while the next one is written.
const FILES_READ_BACK: usize = 2;

/// What all chunks of a run share.
#[derive(Debug, Clone)]
pub struct ChunkWriter {
    /// Where files go.
    pub store: Store,
    /// The short id of the run.
    pub run: String,
    /// How fast to take rows, if that is limited.
    pub pace: Option<Pace>,
    /// How to encode.
    pub options: EncodeOptions,
    /// Where rows and bytes are counted.
    pub progress: Progress,
    /// The user's wish to stop.
    pub interrupt: Interrupt,
}

/// How often it is looked whether a probe keeps up.
const LOOK: Duration = Duration::from_millis(100);

/// What concerns the stream of one chunk.
#[derive(Debug, Default)]
pub struct Stream {
    /// Counts the rows of all chunks of the same source.
    pub rows_of_source: Arc<AtomicU64>,
    /// When the chunk is abandoned, if it may be.
    pub patience: Option<Patience>,
}

/// A chunk that was written.
#[derive(Debug)]
pub struct Written {
    /// Its files are durable, but count only once the commit is written.
    pub commit: Commit,
    /// How long its stream took.
    pub streamed: Duration,
}

/// Why a chunk was not written, and where the failure comes from.
#[derive(Debug)]
pub enum Failure {
    /// From the source, or from what it sent.
    OfSource(Error),
    /// From the archive, or from this process.
    OfRun(Error),
    /// The chunk was a probe that did not keep up.
    Abandoned(Abandoned),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::OfRun(error)
    }
}

impl ChunkWriter {
    /// Brings a chunk into the store and reads it back. The permit is released when everything is written, or encoded if
    /// little of it is left in memory then: its source and its memory are free for another chunk.
    pub async fn write(
        &self,
        source: &dyn Source,
        chunk: &Chunk,
        path: &str,
        permit: impl Send,
        stream: Stream,
    ) -> Result<Written, Failure> {
        if chunk.table.is_dump() {
            let began = Instant::now();
            let commit = self.write_dump(source, chunk, path, permit).await?;
            return Ok(Written { commit, streamed: began.elapsed() });
        }
        let (began, started) = (Instant::now(), rfc3339(now()));
        let counted = Arc::new(Counted { of_source: stream.rows_of_source, ..Counted::default() });
        let _reading = self.progress.reading(&chunk.table.id.to_string(), source.name());
        tracing::info!("reading {chunk}");
        let (batch_sender, batches) = BatchSender::channel(
            (self.options.row_group_bytes / 2 / BATCH_BYTES).clamp(2, BATCHES),
        );
        let (output, parts) = mpsc::channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let batches = match &self.pace {
            Some(pace) => batches.paced(pace.clone(), Arc::clone(&ended)),
            None => batches,
        };

        let encoder =
            Encoder::new(&chunk.table, self.metadata(chunk), self.options.clone(), output)?;
        let encoding = self.spawn_encoder(encoder, batches, &ended, &counted);
        let uploading = tokio::spawn(upload_files(
            self.clone(),
            path.to_owned(),
            chunk.clone(),
            parts,
            Arc::clone(&counted),
        ));

        // The channel must not close before it is known whether the stream is complete.
        let open = batch_sender.clone();
        let mut abandoned = None;
        let read = tokio::select! {
            read = self.interrupt.or(source.read(chunk, batch_sender)) => read,
            why = counted.abandoned(stream.patience) => {
                abandoned = Some(why);
                Err(Error::of(Class::Split, "the probe was abandoned"))
            }
        };
        ended.store(read.is_ok(), Ordering::Release);
        drop(open);

        let encoded = joined(encoding.await);
        // If what remains are a few parts that are small beside a row group, the source need not wait for the disk as well.
        let left_bytes = match &encoded {
            Ok(Some(encoded)) => {
                encoded.size_bytes.min((PARTS_LEFT * self.options.part_bytes) as u64)
            }
            _ => u64::MAX,
        };
        let permit = (left_bytes > self.options.row_group_bytes as u64 / 4).then_some(permit);
        let encoded_after = began.elapsed();
        let (Uploaded { files, checks }, uploaded) = match uploading.await {
            Ok(outcome) => outcome,
            Err(error) => {
                (Uploaded::default(), Err(Error::stop(format!("the upload failed: {error}"))))
            }
        };
        let streamed = if permit.is_some() { began.elapsed() } else { encoded_after };
        drop(permit);
        // The error nearest to the disk takes precedence, because it makes the others fail.
        let outcome = match uploaded.map(|()| read_first(encoded, read)) {
            Ok(Ok((encoded, done))) => {
                let checked = read_back_all(checks, &files, encoded.rows).await;
                checked.map(|()| (encoded, done)).map_err(Failure::OfRun)
            }
            Ok(Err(error)) => Err(abandoned.map_or(Failure::OfSource(error), Failure::Abandoned)),
            Err(error) => Err(Failure::OfRun(error)),
        };
        let (encoded, done) = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => {
                for file in &files {
                    let _ = self.store.delete(&file.key).await; // a sweep finds the rest
                }
                counted.uncount(&self.progress);
                return Err(failure);
            }
        };
        let verified = "stored bytes read back and hashed, rows counted by the footer".to_owned();
        let commit = Commit {
            common: self.common(chunk, path, verified),
            slice: chunk.slice,
            rows: encoded.rows,
            files,
            columns: encoded.columns,
            started,
            elapsed_ms: began.elapsed().saturating_sub(done.queued).as_millis() as u64,
            committed: rfc3339(now()),
            snapshot: done.snapshot,
            replaces: Vec::new(),
            dump: None,
        };
        Ok(Written { commit, streamed: streamed.saturating_sub(done.queued) })
    }

    /// What the commit of a chunk has in common with the others of its table.
    pub(super) fn common(&self, chunk: &Chunk, path: &str, verified: String) -> Arc<Common> {
        let TableId { source, database, schema, table } = chunk.table.id.clone();
        let (path, run) = (path.to_owned(), self.run.clone());
        let state = chunk.table.identity.division.as_ref().map(ToString::to_string);
        Common { source, database, schema, table, path, run, verified, state }.shared()
    }

    fn spawn_encoder(
        &self,
        encoder: Encoder,
        batches: Batches,
        ended: &Arc<AtomicBool>,
        counted: &Arc<Counted>,
    ) -> tokio::task::JoinHandle<Result<Option<Encoded>>> {
        let (ended, counted, progress) =
            (Arc::clone(ended), Arc::clone(counted), self.progress.clone());
        tokio::task::spawn_blocking(move || {
            encode(encoder, batches, &ended, |batch| {
                let rows = batch.num_rows() as u64;
                counted.rows.fetch_add(rows, Ordering::Relaxed);
                counted.of_source.fetch_add(rows, Ordering::Relaxed);
                progress.add_rows(rows);
            })
        })
    }

    fn metadata(&self, chunk: &Chunk) -> Vec<(String, String)> {
        let id = &chunk.table.id;
        [
            ("moveout.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("moveout.source", id.source.clone()),
            ("moveout.database", id.database.clone()),
            ("moveout.schema", id.schema.clone()),
            ("moveout.table", id.table.clone()),
            ("moveout.slice", chunk.slice.to_string()),
            ("moveout.run", self.run.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// Checks a file as it is in the store, and not as it was sent: its bytes, its footer and its rows. A small file is read by
/// one request, a larger one piece by piece and then its end again.
async fn read_back(store: Store, file: FileRecord) -> Result<()> {
    let differs =
        |what: String| Err(Error::of(Class::Retry, format!("{}: read back, {what}", file.key)));
    let is_small = file.bytes <= TAIL_BYTES;
    let whole = if is_small { store.get(&file.key).await? } else { None };
    let found = match &whole {
        Some(bytes) => Some((sha256(bytes), bytes.len() as u64)),
        None => hash_object(&store, &file.key).await?,
    };
    match found {
        Some((hash, bytes)) if hash == file.sha256 && bytes == file.bytes => {}
        Some((_, bytes)) => {
            return differs(format!("its {bytes} bytes differ from the {} written", file.bytes));
        }
        None => return differs("it does not exist".to_owned()),
    }
    let tail = match whole {
        Some(bytes) => bytes,
        None => store.range(&file.key, file.bytes.saturating_sub(TAIL_BYTES)..file.bytes).await?,
    };
    match footer_rows(&store, &file, tail).await? {
        stored if stored == file.rows => Ok(()),
        stored => differs(format!("its footer counts {stored} rows of {}", file.rows)),
    }
}

/// Waits for all files of a chunk to be read back.
async fn read_back_all(
    mut checks: JoinSet<Result<()>>,
    files: &[FileRecord],
    rows: u64,
) -> Result<()> {
    while let Some(outcome) = checks.join_next().await {
        joined(outcome)?;
    }
    let sum: u64 = files.iter().map(|file| file.rows).sum();
    if sum == rows {
        Ok(())
    } else {
        Err(Error::stop(format!("the files have {sum} rows, but {rows} were encoded")))
    }
}

#[derive(Debug, Default)]
struct Counted {
    rows: AtomicU64,
    bytes: AtomicU64,
    of_source: Arc<AtomicU64>,
}

impl Counted {
    /// Returns when the chunk is to be abandoned.
    async fn abandoned(&self, patience: Option<Patience>) -> Abandoned {
        let Some(patience) = patience else { return std::future::pending().await };
        let began = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let rows = self.rows.load(Ordering::Relaxed);
            if let Some(why) = patience.verdict(began.elapsed(), rows) {
                return why;
            }
        }
    }

    fn uncount(&self, progress: &Progress) {
        progress.uncount(self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
    }
}

fn joined<T>(outcome: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(Error::stop(format!("a task of the chunk failed: {error}"))))
}

// A failed encoder makes the read fail ("the writer of this chunk has ended"), while a failed read makes the encoder end
// without a result and without an error.
fn read_first(
    encoded: Result<Option<Encoded>>,
    read: Result<ReadSummary>,
) -> Result<(Encoded, ReadSummary)> {
    match (encoded?, read) {
        (_, Err(error)) => Err(error),
        (Some(encoded), Ok(done)) => Ok((encoded, done)),
        (None, Ok(_)) => Err(Error::stop("the encoder did not see the end of the stream")),
    }
}

/// The files of a chunk in the store.
#[derive(Debug, Default)]
struct Uploaded {
    /// The complete files. They are kept here even if a later one fails, so that they can be removed.
    files: Vec<FileRecord>,
    /// The checks of those that are still being read back.
    checks: JoinSet<Result<()>>,
}

/// Writes the parts of each file under its key, and begins to read back complete files.
async fn upload_files(
    writer: ChunkWriter,
    path: String,
    chunk: Chunk,
    outputs: mpsc::Receiver<Output>,
    counted: Arc<Counted>,
) -> (Uploaded, Result<()>) {
    let mut done = Uploaded::default();
    let mut open = None;
    let key = |number| file_key(&path, chunk.slice, &writer.run, number);
    let result = upload_parts(&writer, key, outputs, &counted, &mut done, &mut open).await;
    // The file has no end, or failed.
    if let Some(upload) = open {
        upload.abort().await;
    }
    (done, result)
}

async fn upload_parts(
    writer: &ChunkWriter,
    key: impl Fn(usize) -> String,
    mut outputs: mpsc::Receiver<Output>,
    counted: &Counted,
    done: &mut Uploaded,
    open: &mut Option<Upload>,
) -> Result<()> {
    while let Some(output) = outputs.recv().await {
        let key = key(done.files.len() + 1);
        match output {
            Output::Part(part) => {
                counted.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
                writer.progress.add_bytes(part.len() as u64);
                open.get_or_insert_with(|| Upload::new(writer.store.clone(), &key))
                    .write(part)
                    .await?;
            }
            Output::FileEnd(EncodedFile { rows, size_bytes, sha256 }) => {
                let Some(upload) = open.take() else { continue };
                let completed = upload.complete().await;
                let file = FileRecord { key, bytes: size_bytes, sha256, rows };
                done.files.push(file.clone());
                completed?;
                if done.checks.len() >= FILES_READ_BACK
                    && let Some(outcome) = done.checks.join_next().await
                {
                    joined(outcome)?;
                }
                done.checks.spawn(read_back(writer.store.clone(), file));
            }
        }
    }
    Ok(())
}

/// The number of rows in the footer of a stored file, of which `end` are the last bytes.
async fn footer_rows(store: &Store, file: &FileRecord, end: Bytes) -> Result<u64> {
    let broken = |error: &dyn std::fmt::Display| {
        Error::of(Class::Retry, format!("{}: read back, its footer is broken: {error}", file.key))
    };
    let tail = end.last_chunk::<FOOTER_SIZE>().ok_or_else(|| broken(&"it is cut off"))?;
    let length = FooterTail::try_new(tail).map_err(|error| broken(&error))?.metadata_length();
    let before = end.len() - FOOTER_SIZE;
    let footer = match before.checked_sub(length) {
        Some(from) => end.slice(from..before),
        None => {
            let to = file.bytes.saturating_sub(FOOTER_SIZE as u64);
            store.range(&file.key, to.saturating_sub(length as u64)..to).await?
        }
    };
    let metadata =
        ParquetMetaDataReader::decode_metadata(&footer).map_err(|error| broken(&error))?;
    Ok(metadata.file_metadata().num_rows().unsigned_abs())
}
