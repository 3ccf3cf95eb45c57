//! An upload in parts of one size, with a bounded number on their way. Knows bytes and keys only.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::errors::store_error;

/// Parts of one upload that may be on their way at once.
const PARTS_IN_FLIGHT: usize = 2;

/// One object on its way. Must end in `complete` or `abort`.
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
    /// Nothing is asked of the store before there is a second part: what fits into one is put whole.
    pub fn new(store: Store, key: &str) -> Self {
        Self { store, key: key.to_owned(), first: None, parts: None, size_bytes: 0 }
    }

    /// Adds a part; waits while as many as allowed are on their way. All parts but the last must be
    /// of one size.
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
            // It may have been completed although the answer was lost; asked again, a store knows the
            // upload no more. What is there is read back anyway.
            if result.is_err() && self.store.has(&self.key, self.size_bytes).await {
                return Ok(());
            }
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
