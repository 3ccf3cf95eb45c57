//! A bucket of an S3-compatible service as an object store: the differences between the services, unfinished uploads, and
//! the meaning of the services' errors.

pub(crate) mod errors;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, S3ConditionalPut,
};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::Deserialize;
use url::Url;

use self::errors::explain;
use crate::config::{Preset, S3Options};
use crate::error::{Class, Error, Result};

/// The bytes of a part: the least that S3 accepts. All parts have this size, since R2 requires equal parts. With the limit
/// of 10,000 parts a file could have 48 GiB, and files are closed long before.
pub(super) const PART_BYTES: usize = 5 << 20;

/// A request fails after this time without a byte. A part must be sent within it.
const IDLE: Duration = Duration::from_secs(120);
/// How often a request is repeated. Even if half of all attempts fail, only one request in eight thousand is given up.
const RETRIES: usize = 12;

/// How a service differs from S3 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Habits {
    /// Whether the bucket is a part of the host name, and not of the path.
    virtual_hosted: bool,
    /// Whether to try `If-None-Match: *`. Correctness does not depend on it: Garage accepts it and overwrites all the same.
    conditional_put: bool,
    /// The region if none is given.
    region: Option<&'static str>,
}

fn habits(preset: Preset) -> Habits {
    let usual = Habits { virtual_hosted: false, conditional_put: true, region: None };
    match preset {
        Preset::Aws | Preset::Minio => usual,
        Preset::R2 => Habits { region: Some("auto"), ..usual },
        Preset::Garage => Habits { conditional_put: false, region: Some("garage"), ..usual },
        Preset::Gcs => Habits { conditional_put: false, region: Some("auto"), ..usual },
        // OSS refuses a bucket in the path, and answers 501 to conditions.
        Preset::Oss => Habits { virtual_hosted: true, conditional_put: false, ..usual },
    }
}

/// The service of an endpoint, if its name shows it.
fn preset_of(endpoint: &Url) -> Option<Preset> {
    let host = endpoint.host_str()?;
    let known = [
        ("amazonaws.com", Preset::Aws),
        ("amazonaws.com.cn", Preset::Aws),
        ("r2.cloudflarestorage.com", Preset::R2),
        ("googleapis.com", Preset::Gcs),
        ("aliyuncs.com", Preset::Oss),
    ];
    let is = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    known.into_iter().find(|(domain, _)| is(domain)).map(|(_, preset)| preset)
}

/// The region of an endpoint of Alibaba Cloud, such as `s3.oss-cn-hangzhou-internal.aliyuncs.com`.
fn oss_region(endpoint: &Url) -> Option<&str> {
    let host = endpoint.host_str()?.strip_suffix(".aliyuncs.com")?;
    let region = host.rsplit('.').next()?.strip_prefix("oss-")?;
    let region = region.strip_suffix("-internal").unwrap_or(region);
    (region != "accelerate").then_some(region)
}

/// The URL of the bucket in requests.
fn bucket_url(endpoint: &Url, bucket: &str, virtual_hosted: bool) -> Url {
    let mut url = endpoint.clone();
    let path = endpoint.path().trim_end_matches('/').to_owned();
    let host = endpoint.host_str().unwrap_or_default();
    if !virtual_hosted {
        url.set_path(&format!("{path}/{bucket}"));
    } else if host.ends_with(".aliyuncs.com") && !host.starts_with(&format!("{bucket}.")) {
        // Any other host is a domain that somebody bound to the bucket. Alibaba's plain host speaks its own protocol; the
        // host for S3 begins with `s3.`.
        let s3 = if host.starts_with("oss-") { "s3." } else { "" };
        let _ = url.set_host(Some(&format!("{bucket}.{s3}{host}"))); // the host stays unchanged if it cannot be set
    }
    url
}

/// An open bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    client: AmazonS3,
    /// The prefix of every key, without a slash at the end.
    prefix: Path,
    url: Url,
    region: String,
    http: reqwest::Client,
    pub(super) conditional_put: bool,
    /// The service that this was taken for.
    pub(super) preset: Preset,
}

/// An upload that was neither completed nor aborted.
#[derive(Debug, Clone)]
pub(super) struct Unfinished {
    /// The key, below the prefix.
    pub(super) key: String,
    id: String,
}

impl Bucket {
    /// Opens `s3://BUCKET/PREFIX` without sending anything yet. What the options leave out comes from the usual `AWS_*`
    /// variables, and credentials also from web identities, containers and instances.
    pub(super) fn open(text: &str, options: &S3Options) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("`{text}` is not a location for an archive: {why}"))
                .hint("write s3://BUCKET/PREFIX, and set AWS_ENDPOINT_URL unless it is AWS itself")
        };
        // The parser of URLs would silently resolve such parts, so that another prefix would be used.
        let dots =
            |part: &str| [".", ".."].contains(&part.to_lowercase().replace("%2e", ".").as_str());
        if text.split(['/', '\\']).any(dots) {
            return Err(wrong("a prefix must not have a part `.` or `..`"));
        }
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
            return Err(Error::usage("an s3:// URL contains only a bucket and a prefix")
                .hint("keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket = bucket.ok_or_else(|| wrong("it names no bucket"))?.to_owned();
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("a prefix must not have `?` or `#`"));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|error| wrong(&error.to_string()))?;

        let mut builder = AmazonS3Builder::from_env();
        let of_env = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
        let endpoint = options
            .endpoint
            .clone()
            .or_else(|| of_env(AmazonS3ConfigKey::S3Endpoint))
            .or_else(|| of_env(AmazonS3ConfigKey::Endpoint));
        let mut region = options.region.clone().or_else(|| of_env(AmazonS3ConfigKey::Region));
        let endpoint = match (endpoint, options.preset) {
            (Some(endpoint), _) => Some(endpoint),
            (None, Some(Preset::Oss)) => {
                let region = region.as_deref().ok_or_else(|| {
                    Error::usage("a bucket at Alibaba Cloud needs `region` or `endpoint`")
                        .hint("set AWS_REGION, for example cn-hangzhou")
                })?;
                Some(format!("https://s3.oss-{region}.aliyuncs.com"))
            }
            (None, None | Some(Preset::Aws)) => None,
            (None, Some(_)) => {
                return Err(Error::usage("this kind of store needs an `endpoint`")
                    .hint("set AWS_ENDPOINT_URL, or `endpoint` in the configuration"));
            }
        };
        let endpoint = endpoint.map(|endpoint| {
            let full = if endpoint.contains("://") {
                endpoint.clone()
            } else {
                format!("https://{endpoint}")
            };
            Url::parse(&full)
                .ok()
                .filter(|url| url.host_str().is_some() && url.scheme().starts_with("http"))
                .ok_or_else(|| {
                    Error::usage(format!("the endpoint `{endpoint}` is not a URL"))
                        .hint("write https://HOST[:PORT]")
                })
        });
        let endpoint = endpoint.transpose()?;
        let preset = options.preset.or_else(|| match &endpoint {
            Some(endpoint) => preset_of(endpoint),
            None => Some(Preset::Aws),
        });
        // An unknown endpoint is most likely a MinIO or something like it.
        let preset = preset.unwrap_or(Preset::Minio);
        let habits = habits(preset);
        region = region
            .or_else(|| endpoint.as_ref().and_then(oss_region).map(str::to_owned))
            .or_else(|| habits.region.map(str::to_owned));
        if region.is_none() && preset == Preset::Aws {
            return Err(Error::usage("the region of the bucket is unknown")
                .hint("set AWS_REGION, or `region` in the configuration"));
        }
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());

        let base = match &endpoint {
            Some(endpoint) => bucket_url(endpoint, &bucket, habits.virtual_hosted),
            None => Url::parse(&format!("https://s3.{region}.amazonaws.com/{bucket}"))
                .map_err(|error| wrong(&error.to_string()))?,
        };
        builder = builder
            .with_bucket_name(&bucket)
            .with_region(&region)
            .with_virtual_hosted_style_request(true) // the endpoint contains the bucket in either style
            .with_endpoint(base.as_str().trim_end_matches('/'))
            .with_config(AmazonS3ConfigKey::S3Endpoint, base.as_str().trim_end_matches('/'))
            .with_allow_http(base.scheme() == "http")
            .with_conditional_put(if habits.conditional_put {
                S3ConditionalPut::ETagMatch
            } else {
                S3ConditionalPut::Disabled
            })
            .with_disable_tagging(true)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    max_backoff: Duration::from_secs(5),
                    ..BackoffConfig::default()
                },
                max_retries: RETRIES,
                retry_timeout: Duration::from_secs(180),
            })
            .with_client_options(client_options(base.scheme() == "http"));
        if let Some(id) = &options.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &options.secret_access_key {
            builder = builder.with_secret_access_key(secret.expose());
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token.expose());
        }
        let client =
            builder.build().map_err(|error| Error::usage(format!("opening {text}: {error}")))?;
        let http =
            reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(IDLE);
        let http = http
            .build()
            .map_err(|error| Error::stop(format!("starting the HTTP client: {error}")))?;
        Ok(Self {
            client,
            prefix,
            url: base,
            region,
            http,
            conditional_put: habits.conditional_put,
            preset,
        })
    }

    /// The objects of the bucket, by their keys below the prefix.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        match self.prefix.as_ref() {
            "" => Arc::new(self.client.clone()),
            _ => Arc::new(PrefixStore::new(self.client.clone(), self.prefix.clone())),
        }
    }

    /// The unfinished uploads below the prefix; `None` if the service cannot list them.
    pub(super) async fn unfinished(&self) -> Result<Option<Vec<Unfinished>>> {
        let mut found = Vec::new();
        let mut marker = None;
        loop {
            let Some(page) = self.unfinished_page(marker.as_ref()).await? else { return Ok(None) };
            let prefix = match self.prefix.as_ref() {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            };
            // Some services list more than the requested prefix.
            found.extend(page.uploads.into_iter().filter_map(|upload| {
                let key = upload.key.strip_prefix(&prefix)?.to_owned();
                Some(Unfinished { key, id: upload.id })
            }));
            marker = match (page.is_truncated, page.next_key, page.next_id) {
                (true, Some(key), id) if !key.is_empty() => Some((key, id.unwrap_or_default())),
                _ => return Ok(Some(found)),
            };
        }
    }

    async fn unfinished_page(&self, marker: Option<&(String, String)>) -> Result<Option<Page>> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("uploads", "");
        if !self.prefix.as_ref().is_empty() {
            url.query_pairs_mut().append_pair("prefix", &format!("{}/", self.prefix));
        }
        if let Some((key, id)) = marker {
            url.query_pairs_mut()
                .append_pair("key-marker", key)
                .append_pair("upload-id-marker", id);
        }
        let mut wait = Duration::from_millis(100);
        for attempt in 0.. {
            let failure = match self.signed_get(&url).await {
                Ok((status, _, body)) if status.is_success() => {
                    return page(&body).map(Some);
                }
                Ok((status, _, body))
                    if status == http::StatusCode::NOT_IMPLEMENTED
                        || (status.is_client_error()
                            && status != http::StatusCode::TOO_MANY_REQUESTS) =>
                {
                    tracing::info!("the store does not list unfinished uploads: {status} {body}");
                    return Ok(None);
                }
                Ok((status, _, body)) => explain(&format!("status code: {status}: {body}")),
                Err(error) => error,
            };
            if attempt >= RETRIES {
                return Err(failure.context("listing unfinished uploads"));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
        Ok(None)
    }

    /// The service's time, by the `Date` of a response, whatever its status.
    pub(super) async fn now(&self) -> Option<DateTime<Utc>> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("list-type", "2").append_pair("max-keys", "1");
        if !self.prefix.as_ref().is_empty() {
            url.query_pairs_mut().append_pair("prefix", &format!("{}/", self.prefix));
        }
        let (_, headers, _) = self.signed_get(&url).await.ok()?;
        let date = headers.get(http::header::DATE)?.to_str().ok()?;
        DateTime::parse_from_rfc2822(date).ok().map(|date| date.to_utc())
    }

    async fn signed_get(&self, url: &Url) -> Result<(http::StatusCode, http::HeaderMap, String)> {
        let broken = |error: &dyn std::fmt::Display| Error::of(Class::Retry, error);
        let credential = self.client.credentials().get_credential().await;
        let credential = credential.map_err(|error| explain(&error.to_string()))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            url.as_str().parse().map_err(|error: http::uri::InvalidUri| broken(&error))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| broken(&error))?;
        let request = self.http.get(url.clone()).headers(request.headers().clone());
        let answer = request.send().await.map_err(|error| broken(&error.without_url()))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.text().await.map_err(|error| broken(&error.without_url()))?;
        Ok((status, headers, body))
    }

    /// Aborts an unfinished upload, so that its parts are no longer billed.
    pub(super) async fn abort(&self, upload: &Unfinished) -> object_store::Result<()> {
        let key = match self.prefix.as_ref() {
            "" => Path::from(upload.key.as_str()),
            prefix => Path::from(format!("{prefix}/{}", upload.key)),
        };
        match self.client.abort_multipart(&key, &upload.id).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()), // somebody else has aborted it
            done => done,
        }
    }
}

fn client_options(allow_http: bool) -> ClientOptions {
    // A time limit for whole requests would end those that are merely long.
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_timeout_disabled()
        .with_read_timeout(IDLE)
        .with_connect_timeout(Duration::from_secs(10))
}

/// Reads a page of `ListMultipartUploads`.
pub(crate) fn page(body: &str) -> Result<Page> {
    quick_xml::de::from_str(body)
        .map_err(|error| Error::of(Class::Retry, format!("listing unfinished uploads: {error}")))
}

/// A page of `ListMultipartUploads`.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    next_key: Option<String>,
    #[serde(rename = "NextUploadIdMarker")]
    next_id: Option<String>,
    #[serde(rename = "Upload", default)]
    uploads: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn services_are_recognized_by_their_endpoints() {
        for (endpoint, preset) in [
            ("https://s3.eu-west-1.amazonaws.com", Some(Preset::Aws)),
            ("https://abc.r2.cloudflarestorage.com", Some(Preset::R2)),
            ("https://storage.googleapis.com", Some(Preset::Gcs)),
            ("https://s3.oss-cn-hangzhou.aliyuncs.com", Some(Preset::Oss)),
            ("https://notaliyuncs.com", None),
            ("http://127.0.0.1:9000", None),
        ] {
            assert_eq!(preset_of(&url(endpoint)), preset, "{endpoint}");
        }
    }

    #[test]
    fn alibabas_buckets_are_hosts_with_a_region() {
        for (endpoint, host, region) in [
            (
                "https://s3.oss-cn-hangzhou.aliyuncs.com",
                "b.s3.oss-cn-hangzhou.aliyuncs.com",
                Some("cn-hangzhou"),
            ),
            (
                "https://oss-eu-central-1.aliyuncs.com/",
                "b.s3.oss-eu-central-1.aliyuncs.com",
                Some("eu-central-1"),
            ),
            (
                "https://s3.oss-cn-shanghai-internal.aliyuncs.com",
                "b.s3.oss-cn-shanghai-internal.aliyuncs.com",
                Some("cn-shanghai"),
            ),
            (
                "https://b.s3.oss-cn-beijing.aliyuncs.com",
                "b.s3.oss-cn-beijing.aliyuncs.com",
                Some("cn-beijing"),
            ),
            ("https://s3.oss-accelerate.aliyuncs.com", "b.s3.oss-accelerate.aliyuncs.com", None),
        ] {
            assert_eq!(bucket_url(&url(endpoint), "b", true).host_str(), Some(host), "{endpoint}");
            assert_eq!(oss_region(&url(endpoint)), region, "{endpoint}");
        }
        assert_eq!(
            bucket_url(&url("https://backup.example.com"), "b", true).host_str(),
            Some("backup.example.com")
        );
        assert_eq!(bucket_url(&url("http://h:9000/"), "b", false).as_str(), "http://h:9000/b");
    }

    #[test]
    fn a_page_of_unfinished_uploads_is_understood() {
        let page = super::page(
            r#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><KeyMarker/><NextKeyMarker>p/y</NextKeyMarker><IsTruncated>true</IsTruncated>
            <Upload><Key>p/x</Key><UploadId>1</UploadId><Owner><ID>o</ID></Owner></Upload>
            <Upload><Key>p/y</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>"#,
        )
        .unwrap();
        assert!(
            page.is_truncated && page.uploads.len() == 2 && page.next_key.as_deref() == Some("p/y")
        );
        let none = super::page("<ListMultipartUploadsResult/>").unwrap();
        assert!(!none.is_truncated && none.uploads.is_empty());
    }
}
