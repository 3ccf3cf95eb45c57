//! An upload in parts of one size, a bounded number of which are in flight.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::errors::store_error;

/// The most parts of one upload that are in flight.
const PARTS_IN_FLIGHT: usize = 2;

/// An object that is being uploaded. It must be ended by `complete` or `abort`.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    key: String,
    first: Option<Bytes>,
    parts: Option<Parts>,
    size_bytes: u64,
}

#[derive(Debug)]
struct Parts {
    upload: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Begins an upload. Nothing is sent before there is a second part, since a single part is put as a whole.
    pub fn new(store: Store, key: &str) -> Self {
        Self { store, key: key.to_owned(), first: None, parts: None, size_bytes: 0 }
    }

    /// Adds a part, and waits while too many are in flight. All parts except the last must have the same size.
    pub async fn write(&mut self, part: Bytes) -> Result<()> {
        self.size_bytes += part.len() as u64;
        if self.parts.is_none() {
            let Some(first) = self.first.replace(part) else { return Ok(()) };
            self.store.check_plain(&self.key)?;
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
            // The upload may be complete although the response was lost, and a store that is asked again does not know it
            // any more. The object is read back in any case.
            if result.is_err() && self.store.has(&self.key, self.size_bytes).await {
                return Ok(());
            }
        }
        if result.is_err() {
            let _ = parts.upload.abort().await; // the first error is the one that is shown
        }
        result.map_err(|error| self.error(error))
    }

    /// Gives the upload up, so that nothing of it stays.
    pub async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take() {
            parts.in_flight.shutdown().await;
            let _ = parts.upload.abort().await; // the caller has an error already
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
