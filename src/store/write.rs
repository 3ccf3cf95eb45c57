//! Writes small objects, reads them back and removes them.

use std::io::ErrorKind;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, Result};
use crate::store::errors::{is_absent, store_error};
use crate::store::s3::errors::not_implemented;
use crate::store::{Backend, PIECE_BYTES, Store, folder, io_error};

/// How often a small object is written before the store is considered not to keep it.
const WRITES: usize = 3;
/// How often a file is written that another run removes meanwhile.
const WRITES_OF_FILE: usize = 4;

impl Store {
    /// Writes a small object, which is durable when this returns. An existing object is replaced atomically.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<()> {
        if let Backend::Folder(root) = &self.backend {
            return self.put_file(root, key, bytes.into(), false).await.map(drop);
        }
        let put = self.put_as(key, bytes.into(), PutMode::Overwrite).await;
        put.map_err(|error| store_error(error, &format!("writing {key}")))
    }

    /// Writes a small object and reads it back, since a store may acknowledge an object and not keep it, or keep other
    /// bytes. Returns its version.
    pub async fn put_checked(&self, key: &str, bytes: impl Into<Bytes>) -> Result<String> {
        let bytes = bytes.into();
        for _ in 0..WRITES {
            let put = self.put(key, bytes.clone()).await;
            match (self.holds(key, &bytes).await, put) {
                // If only the response was lost, the object is there.
                (Ok(Some(version)), _) => return Ok(version),
                (_, Err(error)) | (Err(error), _) => return Err(error),
                (Ok(_), Ok(())) => {}
            }
        }
        Err(Error::incomplete(format!(
            "{key}: the store does not keep the bytes that are written to it"
        ))
        .hint("check the disk or the bucket, then run the same command again"))
    }

    /// The version of an object if it consists of these bytes. A large one is compared piece by piece.
    async fn holds(&self, key: &str, bytes: &[u8]) -> Result<Option<String>> {
        if bytes.len() as u64 <= PIECE_BYTES {
            let there = self.get_version(key).await?;
            return Ok(there.filter(|(there, _)| there == bytes).map(|(_, version)| version));
        }
        let Some((version, mut pieces)) = self.stream_version(key).await? else { return Ok(None) };
        let mut left = bytes;
        while let Some(piece) = pieces.next().await {
            let Some(rest) = left.strip_prefix(piece?.as_ref()) else { return Ok(None) };
            left = rest;
        }
        Ok(left.is_empty().then_some(version))
    }

    /// Writes a small object only if it does not exist; returns `false` if it does. A store that knows no conditions, or
    /// ignores them, may overwrite the object of another run that writes at the same moment, so correctness must never
    /// depend on this alone.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<bool> {
        if let Backend::Folder(root) = &self.backend {
            return self.put_file(root, key, bytes, true).await;
        }
        let doing = || format!("writing {key}");
        if !matches!(&self.backend, Backend::Bucket(bucket) if !bucket.conditional_put) {
            match self.put_as(key, bytes.clone(), PutMode::Create).await {
                Ok(()) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
                Err(error)
                    if matches!(self.backend, Backend::Bucket(_))
                        && not_implemented(&error.to_string()) =>
                {
                    tracing::debug!("the store knows no conditional put: {error}");
                }
                Err(error) => return Err(store_error(error, &doing())),
            }
        }
        match self.objects.head(&Path::from(key)).await {
            Ok(_) => Ok(false),
            Err(error) if is_absent(&error) => self.put(key, bytes).await.map(|()| true),
            Err(error) => Err(store_error(error, &doing())),
        }
    }

    /// Whether there is an object of this size.
    pub(super) async fn has(&self, key: &str, size_bytes: u64) -> bool {
        let object = self.objects.head(&Path::from(key)).await;
        object.is_ok_and(|object| object.size == size_bytes)
    }

    async fn put_as(&self, key: &str, bytes: Bytes, mode: PutMode) -> object_store::Result<()> {
        let (key, payload) = (Path::from(key), PutPayload::from(bytes));
        self.objects.put_opts(&key, payload, PutOptions::from(mode)).await.map(|_| ())
    }

    /// Writes a file. `false` if it shall be new and there is one already.
    async fn put_file(
        &self,
        root: &std::path::Path,
        key: &str,
        bytes: Bytes,
        is_new: bool,
    ) -> Result<bool> {
        let (root, key, doing) = (root.to_owned(), key.to_owned(), format!("writing {key}"));
        self.on_thread(&doing.clone(), move |store| {
            store.check_plain(&key)?;
            // Another run may remove an empty folder, or the file that is half-written here for an instant, because it
            // considers them left over from a dead run. Then the file is written once more.
            let mut attempts = 1..WRITES_OF_FILE;
            loop {
                match folder::put(&root, &key, &bytes, is_new) {
                    Err(error)
                        if error.kind() == ErrorKind::NotFound && attempts.next().is_some() => {}
                    put => return put.map_err(|error| io_error(&error, &doing)),
                }
            }
        })
        .await
    }

    /// Removes an object. It is not an error if it is gone already.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.check_plain(key)?;
        match self.objects.delete(&Path::from(key)).await {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(store_error(error, &format!("removing {key}"))),
        }
    }

    /// Removes objects, several at the same time, until the first error. On a disk, the folders that become empty are
    /// removed with them.
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<()> {
        if let Backend::Folder(root) = &self.backend {
            let (root, doing) = (root.clone(), "removing files of the archive");
            let removed = self.on_thread(doing, move |store| {
                keys.iter().try_for_each(|key| store.check_plain(key))?;
                folder::remove_all(&root, &keys).map_err(|error| io_error(&error, doing))
            });
            return removed.await;
        }
        let deleted = futures::stream::iter(keys).map(|key| async move { self.delete(&key).await });
        deleted.buffer_unordered(self.requests()).try_collect().await
    }
}
