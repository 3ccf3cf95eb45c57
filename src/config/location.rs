//! Where an archive is, and how a bucket is reached.

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use serde::Deserialize;

use crate::config::server::Secret;

/// Where an archive lives.
#[derive(Debug, Clone, Default)]
pub struct Location {
    /// A path, or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// How a bucket is reached.
    pub s3: S3Options,
    /// The store itself, if the caller of the library brings one. The URL is then only its name.
    pub given: Option<Arc<dyn ObjectStore>>,
}

impl From<&str> for Location {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Location {
    /// Whether it is a bucket.
    pub fn is_bucket(&self) -> bool {
        self.given.is_none() && self.url.starts_with("s3://")
    }

    /// A store that the caller of the library brings, with a name for messages.
    pub fn given(name: &str, store: Arc<dyn ObjectStore>) -> Self {
        Self { url: name.to_owned(), given: Some(store), ..Self::default() }
    }
}

/// How a bucket is reached. What is `None` comes from the usual `AWS_*` variables, which the library of the store
/// reads itself.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The kind of service; where it is `None`, the endpoint tells.
    pub preset: Option<Preset>,
    /// `https://HOST[:PORT]`, without the bucket.
    pub endpoint: Option<String>,
    /// The name of the region at the service.
    pub region: Option<String>,
    /// The name of the key, which is not a secret.
    pub access_key_id: Option<String>,
    /// The secret part of the key.
    pub secret_access_key: Option<Secret>,
    /// The token that belongs to temporary keys.
    pub session_token: Option<Secret>,
}

/// Services that speak S3's protocol, each with peculiarities of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Amazon's own.
    Aws,
    /// Cloudflare R2.
    R2,
    /// MinIO, and every other service that behaves like S3.
    Minio,
    /// Garage.
    Garage,
    /// Google Cloud Storage through its S3 interface, with HMAC keys.
    Gcs,
    /// Alibaba Cloud OSS.
    Oss,
}
