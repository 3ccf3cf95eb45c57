//! SYNC: reads an object on a thread that may block. On a disk, no other thread is involved and nothing is copied twice.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::hash::hex;
use crate::store::{Backend, Store, io_error};

/// How many bytes of a file are read and hashed at once, so that they stay in a near cache.
const BUFFER_BYTES: usize = 128 << 10;
/// The most pieces of an object that wait to be hashed.
const PIECES: usize = 4;

/// An object that is being read.
#[derive(Debug)]
pub struct Reading {
    key: String,
    from: From,
}

#[derive(Debug)]
enum From {
    File(File),
    Objects(Store, Handle),
}

impl Store {
    /// Opens an object, on a thread that may block; `None` if there is no such file. A bucket is not asked yet.
    pub fn reading(&self, key: &str) -> Result<Option<Reading>> {
        self.check_plain(key)?;
        let from = match &self.backend {
            Backend::Folder(root) => match File::open(root.join(key)) {
                Ok(file) => From::File(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io_error(&error, &format!("opening {key}"))),
            },
            Backend::Bucket(_) | Backend::Given => From::Objects(self.clone(), Handle::current()),
        };
        Ok(Some(Reading { key: key.to_owned(), from }))
    }
}

impl Reading {
    /// Some bytes of the object. It is an error if it does not have them.
    pub fn range(&self, range: Range<u64>) -> Result<Bytes> {
        match &self.from {
            From::Objects(store, handle) => handle.block_on(store.range(&self.key, range)),
            From::File(file) => {
                let length = usize::try_from(range.end.saturating_sub(range.start));
                let mut bytes = vec![0; length.unwrap_or(usize::MAX)];
                file.read_exact_at(&mut bytes, range.start).map_err(|error| self.failed(&error))?;
                Ok(bytes.into())
            }
        }
    }

    /// The hash and the size in bytes; `None` if there is no such object.
    pub fn hash(&self) -> Result<Option<(String, u64)>> {
        let file = match &self.from {
            From::Objects(store, handle) => return handle.block_on(hash_stream(store, &self.key)),
            From::File(file) => file,
        };
        let (mut hash, mut at, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER_BYTES]);
        loop {
            match file.read_at(&mut buffer, at) {
                Ok(0) => return Ok(Some((hex(&hash.finalize()), at))),
                Ok(length) => {
                    hash.update(&buffer[..length]);
                    at += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        io_error(error, &format!("reading {}", self.key))
    }
}

/// Hashes an object as it is in the store and returns the hash and the size in bytes; `None` if it does not exist. The work
/// is done on threads, so that several objects are hashed on all cores.
pub async fn hash_object(store: &Store, key: &str) -> Result<Option<(String, u64)>> {
    if !matches!(store.backend, Backend::Folder(_)) {
        return hash_stream(store, key).await;
    }
    let (store, name) = (store.clone(), key.to_owned());
    let hashing = tokio::task::spawn_blocking(move || match store.reading(&name)? {
        Some(reading) => reading.hash(),
        None => Ok(None),
    });
    hashing.await.map_err(|error| Error::stop(format!("hashing {key}: {error}")))?
}

/// Hashes an object as its bytes arrive. If they arrive in several pieces, a separate thread hashes them.
async fn hash_stream(store: &Store, key: &str) -> Result<Option<(String, u64)>> {
    let Some(mut stream) = store.stream(key).await? else { return Ok(None) };
    let mut hash = Sha256::new();
    let first = stream.next().await.transpose()?.unwrap_or_default();
    let mut size = first.len() as u64;
    let Some(second) = stream.next().await.transpose()? else {
        hash.update(&first);
        return Ok(Some((hex(&hash.finalize()), size)));
    };
    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let hashing = tokio::task::spawn_blocking(move || {
        hash.update(&first);
        while let Some(piece) = pieces.blocking_recv() {
            hash.update(&piece);
        }
        hash
    });
    let mut next = Some(second);
    while let Some(piece) = next {
        size += piece.len() as u64;
        if sender.send(piece).await.is_err() {
            break; // the thread has failed, and its result says why
        }
        next = stream.next().await.transpose()?;
    }
    drop(sender);
    let hash = hashing.await.map_err(|error| Error::stop(format!("hashing {key}: {error}")))?;
    Ok(Some((hex(&hash.finalize()), size)))
}
