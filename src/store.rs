//! A URL as an object store with our durability and error classes; uploads in parts. Knows bytes
//! and keys only. Keys are of safe characters (`archive::name`), so no store rewrites them.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::task::JoinSet;

use crate::error::{Class, Error, Result};

/// Parts of one upload that may be on their way at once.
const PARTS_IN_FLIGHT: usize = 2;

/// Where an archive lives.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: PathBuf,
}

impl Store {
    /// Opens a folder for reading; an error when it is not there.
    pub fn open(url: &str) -> Result<Self> {
        let root = local_path(url)?;
        if !root.is_dir() {
            return Err(Error::stop(format!("there is no archive at {url}: no such folder")));
        }
        let objects = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| store_error(error, &format!("opening {url}")))?
            .with_fsync(true); // off by default; a commit must not outlive its data in a power cut
        Ok(Self { objects: Arc::new(objects), root })
    }

    /// Opens a folder for writing; makes it where it is missing.
    pub fn create(url: &str) -> Result<Self> {
        let root = local_path(url)?;
        std::fs::create_dir_all(&root)
            .map_err(|error| io_error(&error, &format!("creating the folder {url}")))?;
        Self::open(url)
    }

    /// Bytes of a part of an upload.
    pub fn part_bytes(&self) -> usize {
        1024 * 1024
    }

    /// The whole object; `None` where there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let bytes = match self.objects.get(&Path::from(key)).await {
            Ok(object) => object.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(error, &format!("reading {key}"))),
        }
    }

    /// The object's bytes as they come; `None` where there is none.
    pub async fn stream(&self, key: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        match self.objects.get(&Path::from(key)).await {
            Ok(object) => {
                let doing = format!("reading {key}");
                Ok(Some(
                    object
                        .into_stream()
                        .map(move |b| b.map_err(|e| store_error(e, &doing)))
                        .boxed(),
                ))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(error, &format!("reading {key}"))),
        }
    }

    /// Some bytes of an object.
    pub async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let read = self.objects.get_range(&Path::from(key), range).await;
        read.map_err(|error| store_error(error, &format!("reading {key}")))
    }

    /// Writes a small object, durable when this returns; replaces what was there, atomically.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let put = self.put_as(key, bytes.into(), PutMode::Overwrite).await;
        put.map_err(|error| store_error(error, &format!("writing {key}")))
    }

    /// Writes a small object only if there is none; `false` where there was one.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<bool> {
        match self.put_as(key, bytes, PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(store_error(error, &format!("writing {key}"))),
        }
    }

    // Another run that tidies up may take an empty folder, or what is staged here for an instant, for
    // something that a dead run left: then it is written once more.
    async fn put_as(&self, key: &str, bytes: Bytes, mode: PutMode) -> object_store::Result<()> {
        let (key, payload) = (Path::from(key), PutPayload::from(bytes));
        for _ in 0..3 {
            let options = PutOptions::from(mode.clone());
            match self.objects.put_opts(&key, payload.clone(), options).await {
                Err(error) if io_cause(&error).is_some_and(|e| e.kind() == ErrorKind::NotFound) => {
                }
                put => return put.map(|_| ()),
            }
        }
        self.objects.put_opts(&key, payload, PutOptions::from(mode)).await.map(|_| ())
    }

    /// Removes an object; no error when it is gone already.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.objects.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error, &format!("removing {key}"))),
        }
    }

    /// Keys and sizes of all objects below a prefix (of whole path segments), sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
        let mut keys = Vec::new();
        let mut objects = self.objects.list(prefix.as_ref());
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| match error {
                // No key of ours: somebody put it there.
                object_store::Error::InvalidPath { source } => {
                    Error::different(format!("listing the archive: {source}"))
                        .hint("this file does not belong there")
                }
                error => store_error(error, "listing the archive"),
            })?;
            keys.push((object.location.to_string(), object.size));
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Begins an upload; nothing is visible under the key before it is complete.
    pub fn upload(&self, key: &str) -> Upload {
        Upload { store: self.clone(), key: key.to_owned(), first: None, parts: None }
    }

    /// Files that a killed process left half written, by the key they were meant for. The store
    /// does not list them, so they are looked for on the disk.
    pub fn staged(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(key) = staged_key(&self.root, &path) {
                    found.push((key, path));
                }
            }
        }
        found
    }

    /// Removes empty folders below a prefix, and the prefix itself. An object store has none.
    pub fn remove_empty_folders(&self, prefix: &str) {
        fn remove(folder: &FsPath) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = std::fs::remove_dir(folder); // fails, rightly, where something is inside
        }
        remove(&self.root.join(prefix));
    }

    /// Makes an (empty) folder; an object store needs none.
    pub fn make_folder(&self, prefix: &str) -> Result<()> {
        std::fs::create_dir_all(self.root.join(prefix))
            .map_err(|error| io_error(&error, &format!("creating the folder {prefix}")))
    }
}

fn local_path(url: &str) -> Result<PathBuf> {
    match url.split_once("://") {
        None | Some(("file", _)) => Ok(PathBuf::from(url.strip_prefix("file://").unwrap_or(url))),
        Some((scheme, _)) => Err(Error::usage(format!(
            "this version writes archives to a local folder only, not to `{scheme}://`"
        ))
        .hint("give a path, such as --archive ./archive")),
    }
}

fn staged_key(root: &FsPath, path: &FsPath) -> Option<String> {
    let relative = path.strip_prefix(root).ok()?.to_str()?;
    let (key, number) = relative.rsplit_once('#')?;
    let staged = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    staged.then(|| key.replace(std::path::MAIN_SEPARATOR, "/"))
}

/// One object on its way. Must end in `complete` or `abort`.
pub struct Upload {
    store: Store,
    key: String,
    first: Option<Bytes>,
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Adds a part; waits while as many as allowed are on their way. All parts but the last must be
    /// of one size.
    pub async fn write(&mut self, part: Bytes) -> Result<()> {
        if self.parts.is_none() {
            let Some(first) = self.first.replace(part) else { return Ok(()) };
            let key = Path::from(self.key.as_str());
            let upload = self.store.objects.put_multipart(&key).await;
            let upload = upload.map_err(|error| self.error(error))?;
            self.parts = Some(Parts { upload, in_flight: JoinSet::new() });
            self.send(first).await?;
            let Some(second) = self.first.take() else { return Ok(()) };
            return self.send(second).await;
        }
        self.send(part).await
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        parts.in_flight.spawn(parts.upload.put_part(PutPayload::from(part)));
        let mut result = Ok(());
        while parts.in_flight.len() > PARTS_IN_FLIGHT && result.is_ok() {
            result = joined(parts.in_flight.join_next().await);
        }
        result.map_err(|error| self.error(error))
    }

    /// Makes the object visible and durable.
    pub async fn complete(mut self) -> Result<()> {
        let Some(mut parts) = self.parts.take() else {
            return self.store.put(&self.key, self.first.take().unwrap_or_default()).await;
        };
        let mut result = Ok(());
        while result.is_ok() && !parts.in_flight.is_empty() {
            result = joined(parts.in_flight.join_next().await);
        }
        if result.is_ok() {
            result = parts.upload.complete().await.map(|_| ());
        }
        if result.is_err() {
            let _ = parts.upload.abort().await; // the first error is the one to show
        }
        result.map_err(|error| self.error(error))
    }

    /// Gives up: nothing of it stays.
    pub async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take() {
            parts.in_flight.shutdown().await;
            let _ = parts.upload.abort().await; // there is already an error to show
        }
    }

    fn error(&self, error: object_store::Error) -> Error {
        store_error(error, &format!("writing {}", self.key))
    }
}

fn joined(
    part: Option<std::result::Result<object_store::Result<()>, tokio::task::JoinError>>,
) -> object_store::Result<()> {
    match part {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(source)) => {
            Err(object_store::Error::Generic { store: "upload", source: source.into() })
        }
    }
}

/// What a disk says when it is full, read-only or closed to us, each with its way out.
pub fn io_error(error: &std::io::Error, doing: &str) -> Error {
    let message = format!("{doing}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::incomplete(message)
                .hint("make room, then run the same command again; what was committed stays")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::stop(message).hint("moveout must be able to write there")
        }
        _ => Error::stop(message),
    }
}

fn io_cause(error: &object_store::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        cause = inner.source();
    }
    None
}

fn store_error(error: object_store::Error, doing: &str) -> Error {
    match io_cause(&error) {
        Some(io) => io_error(io, doing),
        None => Error::of(Class::Retry, format!("{doing}: {error}")),
    }
}
