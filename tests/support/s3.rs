//! An S3 server in the process of the test, on a free loopback port: a stand-in for AWS and for the
//! servers that speak its protocol, with faults before it. On a thread of its own; stopped on drop.
//!
//! The crate `s3s` does HTTP's side of S3 and checks signatures, and `s3s-fs` keeps the objects in a
//! temporary folder. This module's are: all faults; that conditional writes are atomic, ignored or
//! refused; the list of multipart uploads; and `NoSuchUpload` for one that is completed or aborted,
//! also when its completion is only asked for again.
//!
//! Other than AWS, `s3s-fs` lists objects without an ETag, ignores conditions of a GET, takes the
//! numbers of parts only as 1, 2, 3..., does not compare their ETags, and cannot have an object
//! `a` beside one `a/b`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Not;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Handle};

use super::archive::files;
use super::background::{Background, accept};

/// The only account of the server.
pub(crate) const ACCESS_KEY: &str = "AKIAMOVEOUT";
/// Its secret, with characters that a URL would have to escape.
pub(crate) const SECRET_KEY: &str = "s3cret/of+the=account";
/// The only bucket.
pub(crate) const BUCKET: &str = "bucket";

/// What to do to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Reads the request, then answers with this status and code; it is not carried out.
    Status(u16, &'static str),
    /// Resets the connection (RST) when half of the request's body has been read; it is not carried
    /// out.
    Reset,
    /// Carries it out, and answers so much later.
    Slow(Duration),
    /// Carries it out, then closes the connection instead of an answer.
    LostAnswer,
    /// Flips a bit in the middle of the body of a GET's answer.
    WrongByte,
    /// Closes the connection after half of the body of a GET's answer, which is shorter than its
    /// `Content-Length`.
    Truncate,
}

/// What the server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// `/bucket/KEY`, decoded.
    pub(crate) path: String,
    /// As it was sent, without the `?`.
    pub(crate) query: String,
    /// Whether it has `If-None-Match` or `If-Match`.
    pub(crate) conditional: bool,
}

impl Request {
    fn of<B>(request: &hyper::Request<B>) -> Self {
        // The decoder is that of queries, where these three mean something.
        let path = request.uri().path();
        let path = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
        let path = url::form_urlencoded::parse(path.as_bytes()).next();
        let condition = |name| request.headers().contains_key(name);
        Self {
            method: request.method().to_string(),
            path: path.map(|(path, _)| path.into_owned()).unwrap_or_default(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            conditional: condition("if-none-match") || condition("if-match"),
        }
    }

    /// The key of an object; `None` for a request to the bucket.
    pub(crate) fn key(&self) -> Option<&str> {
        let path = self.path.strip_prefix('/')?.strip_prefix(BUCKET)?;
        path.strip_prefix('/').filter(|key| !key.is_empty())
    }

    /// A parameter of the query, decoded; empty for one without a value, as in `?uploads`.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|pair| pair.0 == name).map(|pair| pair.1.into_owned())
    }
}

type Predicate = Box<dyn Fn(&Request) -> bool + Send>;

struct Rule {
    matches: Predicate,
    times: usize,
    fault: Fault,
}

struct Half {
    matches: Predicate,
    random: fastrand::Rng,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    half: Mutex<Option<Half>>,
    requests: Mutex<Vec<Request>>,
    fired: AtomicUsize,
    /// Key and ID of the uploads that are open, and since when.
    uploads: Mutex<BTreeMap<(String, String), SystemTime>>,
    ignore_conditions: AtomicBool,
    refuse_conditions: AtomicBool,
    /// Seconds that its clock is ahead.
    ahead: AtomicI64,
}

impl State {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        chrono::Utc::now() + chrono::TimeDelta::seconds(self.ahead.load(Ordering::SeqCst))
    }
}

/// The running server.
pub(crate) struct S3 {
    // First, so that it has ended before its folder goes.
    _background: Background,
    folder: TempDir,
    address: SocketAddr,
    state: Arc<State>,
    store: Store,
    runtime: Handle,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let folder = TempDir::with_prefix("s3-").unwrap();
        fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let state = Arc::new(State::default());
        let store = Store(Arc::new(Inner {
            files: FileSystem::new(folder.path()).unwrap(),
            state: Arc::clone(&state),
            conditional: tokio::sync::Mutex::default(),
        }));
        let mut service = S3ServiceBuilder::new(store.clone());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let serve = listen(listener, service, Arc::clone(&state));
        let _background = Background::start(runtime, serve);
        Self { _background, folder, address, state, store, runtime: handle }
    }

    /// Its address as HTTP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment of a program that shall use it.
    pub(crate) fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Does this to the next `times` requests that match; `usize::MAX` for all. The first rule that
    /// matches and has some times left is used.
    pub(crate) fn fault(
        &self,
        matches: impl Fn(&Request) -> bool + Send + 'static,
        times: usize,
        fault: Fault,
    ) {
        lock(&self.state.rules).push(Rule { matches: Box::new(matches), times, fault });
    }

    /// From now on, each request that matches (and for which there is no rule) fails with a
    /// probability of one half: 500, 503, [`Fault::Reset`] or [`Fault::LostAnswer`].
    pub(crate) fn half(&self, seed: u64, matches: impl Fn(&Request) -> bool + Send + 'static) {
        let random = fastrand::Rng::with_seed(seed);
        *lock(&self.state.half) = Some(Half { matches: Box::new(matches), random });
    }

    /// Forgets all faults that are left. What was said of conditions stays.
    pub(crate) fn heal(&self) {
        lock(&self.state.rules).clear();
        *lock(&self.state.half) = None;
    }

    /// From now on, writes whatever the conditions of a request say, as Garage does.
    pub(crate) fn ignore_conditions(&self) {
        self.state.ignore_conditions.store(true, Ordering::SeqCst);
    }

    /// From now on, answers a write with `If-None-Match` with 501, as Alibaba's OSS does.
    pub(crate) fn refuse_conditions(&self) {
        self.state.refuse_conditions.store(true, Ordering::SeqCst);
    }

    /// From now on, answers are dated by a clock that is so many seconds ahead.
    pub(crate) fn set_clock(&self, ahead: i64) {
        self.state.ahead.store(ahead, Ordering::SeqCst);
    }

    /// Makes an object one that was written so many seconds ago by its clock.
    pub(crate) fn age(&self, key: &str, seconds: i64) {
        let file = fs::File::options().write(true).open(self.folder.path().join(BUCKET).join(key));
        let written = self.state.now() - chrono::TimeDelta::seconds(seconds);
        file.unwrap().set_modified(written.into()).unwrap();
    }

    /// How many requests have got a fault that changed something. A test that relies on a fault
    /// should assert this.
    pub(crate) fn fired(&self) -> usize {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// Everything that was asked so far, in order, also what got a fault or a wrong signature.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    /// Key and ID of every multipart upload that is neither completed nor aborted.
    pub(crate) fn uploads(&self) -> Vec<(String, String)> {
        lock(&self.state.uploads).keys().cloned().collect()
    }

    /// All objects with keys that begin so.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.folder.path().join(BUCKET);
        let keys = files(&root).into_iter().filter(|key| key.starts_with(prefix));
        keys.map(|key| (key.clone(), fs::read(root.join(key)).unwrap())).collect()
    }

    /// Writes an object past HTTP, without faults.
    pub(crate) fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let body = Some(StreamingBlob::from(Body::from(bytes.into())));
        let (bucket, key) = (BUCKET.to_owned(), key.to_owned());
        let input = PutObjectInput { bucket, key, body, ..PutObjectInput::default() };
        let request = S3Request {
            input,
            method: hyper::Method::PUT,
            uri: hyper::Uri::default(),
            headers: hyper::HeaderMap::new(),
            extensions: http::Extensions::new(),
            credentials: None,
            region: None,
            service: None,
            trailing_headers: None,
        };
        self.runtime.block_on(s3s::S3::put_object(&self.store.0.files, request)).unwrap();
    }

    /// Removes an object past HTTP, without faults; panics if it is not there.
    #[track_caller]
    pub(crate) fn remove(&self, key: &str) {
        let path = self.folder.path().join(BUCKET).join(key);
        fs::remove_file(path).unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    /// Copies all objects below `prefix/` (or all, if it is empty) to a folder, where their paths
    /// are those below the prefix.
    pub(crate) fn download(&self, prefix: &str, to: &Path) {
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        for (key, bytes) in self.objects(&prefix) {
            let path = to.join(&key[prefix.len()..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Ends a connection.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn listen(listener: TcpListener, service: S3Service, state: Arc<State>) {
    accept(listener, |client, twin| {
        let (service, state, twin) = (service.clone(), Arc::clone(&state), Arc::new(twin));
        let answer = service_fn(move |request| {
            answer(request, service.clone(), Arc::clone(&state), Arc::clone(&twin))
        });
        let http = hyper::server::conn::http1::Builder::new();
        let connection = http.serve_connection(TokioIo::new(client), answer);
        // Whoever hangs up breaks it, which is no fault of the test.
        tokio::spawn(async { drop(connection.await) });
    })
    .await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    service: S3Service,
    state: Arc<State>,
    socket: Arc<TcpSocket>,
) -> Result<hyper::Response<Body>, Cut> {
    let mut answer = answer_undated(request, service, Arc::clone(&state), socket).await?;
    let date = state.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers_mut().insert("date", date.parse().unwrap());
    Ok(answer)
}

async fn answer_undated(
    request: hyper::Request<Incoming>,
    service: S3Service,
    state: Arc<State>,
    socket: Arc<TcpSocket>,
) -> Result<hyper::Response<Body>, Cut> {
    let described = Request::of(&request);
    let fault = take_fault(&state, &described);
    let is_get = described.method == "GET";
    lock(&state.requests).push(described);
    let count = || state.fired.fetch_add(1, Ordering::SeqCst);
    let carry_out = async |request: hyper::Request<Incoming>| {
        service.call(request.map(Body::from)).await.map_err(|_| Cut)
    };

    let Some(fault) = fault else { return carry_out(request).await };
    match fault {
        Fault::Status(status, code) => {
            count();
            // A client that is still sending might not see an answer.
            let _ = BodyExt::collect(request.into_body()).await;
            let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
            let text =
                format!("{text}<Error><Code>{code}</Code><Message>Injected</Message></Error>");
            let answer = hyper::Response::builder().status(status);
            let answer = answer.header("Content-Type", "application/xml").body(Body::from(text));
            Ok(answer.unwrap())
        }
        Fault::Reset => {
            count();
            let length = request.headers().get("content-length");
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
            let (mut body, mut read) = (request.into_body(), 0);
            while 2 * read < length {
                let Some(Ok(frame)) = body.frame().await else { break };
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            let _ = socket.set_zero_linger();
            Err(Cut)
        }
        Fault::Slow(pause) => {
            count();
            let answer = carry_out(request).await;
            tokio::time::sleep(pause).await;
            answer
        }
        Fault::LostAnswer => {
            count();
            // Some of s3s's work is only done while the body of its answer is read.
            let _ = BodyExt::collect(carry_out(request).await?.into_body()).await;
            Err(Cut)
        }
        Fault::WrongByte | Fault::Truncate => {
            let (head, body) = carry_out(request).await?.into_parts();
            let mut body = BodyExt::collect(body).await.map_err(|_| Cut)?.to_bytes().to_vec();
            let middle = body.len() / 2;
            let body = if !is_get || !head.status.is_success() || body.is_empty() {
                Body::from(body)
            } else if matches!(fault, Fault::WrongByte) {
                count();
                body[middle] ^= 1;
                Body::from(body)
            } else {
                count();
                body.truncate(middle);
                let first = stream::iter([Ok(Frame::data(Bytes::from(body)))]);
                let cut = stream::once(async {
                    // Hyper sends what it has when nothing more comes for a while.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(Cut)
                });
                Body::http_body_unsync(StreamBody::new(first.chain(cut)))
            };
            Ok(hyper::Response::from_parts(head, body))
        }
    }
}

fn take_fault(state: &State, request: &Request) -> Option<Fault> {
    let mut rules = lock(&state.rules);
    let rule = rules.iter_mut().find(|rule| rule.times > 0 && (rule.matches)(request));
    if let Some(rule) = rule {
        // Not those that stand for all.
        rule.times -= usize::from(rule.times < usize::MAX);
        return Some(rule.fault.clone());
    }
    let mut half = lock(&state.half);
    let half = half.as_mut().filter(|half| (half.matches)(request))?;
    half.random.bool().then(|| match half.random.u8(..4) {
        0 => Fault::Status(500, "InternalError"),
        1 => Fault::Status(503, "SlowDown"),
        2 => Fault::Reset,
        _ => Fault::LostAnswer,
    })
}

/// The objects: `s3s-fs`, but for what the module's text says.
#[derive(Clone)]
struct Store(Arc<Inner>);

struct Inner {
    files: FileSystem,
    state: Arc<State>,
    /// Held while a condition is checked and its object written, which `s3s-fs` does in two steps.
    conditional: tokio::sync::Mutex<()>,
}

type Answer<T> = S3Result<S3Response<T>>;

/// A request of the store itself.
fn request<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: hyper::Method::GET,
        uri: hyper::Uri::default(),
        headers: hyper::HeaderMap::new(),
        extensions: hyper::http::Extensions::new(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

impl Store {
    /// Applies the switches to the conditions of a write.
    fn conditions(
        &self,
        none_match: &mut Option<ETagCondition>,
        matches: &mut Option<ETagCondition>,
    ) -> S3Result<()> {
        let state = &self.0.state;
        if state.refuse_conditions.load(Ordering::SeqCst) && none_match.is_some() {
            let text = "A header you provided implies functionality that is not implemented";
            return Err(s3_error!(NotImplemented, "{text}"));
        }
        if state.ignore_conditions.load(Ordering::SeqCst) {
            (*none_match, *matches) = (None, None);
        }
        Ok(())
    }

    /// `s3s-fs` says AccessDenied.
    fn check_upload(&self, key: &str, id: &str) -> S3Result<()> {
        let upload = (key.to_owned(), id.to_owned());
        let open = lock(&self.0.state.uploads).contains_key(&upload);
        open.then_some(()).ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

#[async_trait::async_trait]
impl s3s::S3 for Store {
    async fn put_object(&self, mut r: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.conditions(&mut r.input.if_none_match, &mut r.input.if_match)?;
        if r.input.if_none_match.is_none() && r.input.if_match.is_none() {
            return self.0.files.put_object(r).await;
        }
        let _alone = self.0.conditional.lock().await;
        self.0.files.put_object(r).await
    }

    async fn create_multipart_upload(
        &self,
        r: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let key = r.input.key.clone();
        let answer = self.0.files.create_multipart_upload(r).await?;
        let upload = (key, answer.output.upload_id.clone().unwrap_or_default());
        lock(&self.0.state.uploads).insert(upload, SystemTime::now());
        Ok(answer)
    }

    async fn upload_part(&self, r: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.check_upload(&r.input.key, &r.input.upload_id)?;
        self.0.files.upload_part(r).await
    }

    async fn list_parts(&self, r: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.check_upload(&r.input.key, &r.input.upload_id)?;
        self.0.files.list_parts(r).await
    }

    async fn complete_multipart_upload(
        &self,
        mut r: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.conditions(&mut r.input.if_none_match, &mut r.input.if_match)?;
        let _alone = self.0.conditional.lock().await;
        let upload = (r.input.key.clone(), r.input.upload_id.clone());
        self.check_upload(&upload.0, &upload.1)?;
        let answer = self.0.files.complete_multipart_upload(r).await?;
        lock(&self.0.state.uploads).remove(&upload);
        Ok(answer)
    }

    async fn abort_multipart_upload(
        &self,
        r: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let upload = (r.input.key.clone(), r.input.upload_id.clone());
        self.check_upload(&upload.0, &upload.1)?;
        // It only fails where `s3s-fs` gave the upload up itself, in a completion that failed.
        let _ = self.0.files.abort_multipart_upload(r).await;
        lock(&self.0.state.uploads).remove(&upload);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        r: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let ListMultipartUploadsInput { bucket, prefix, key_marker, upload_id_marker, .. } =
            r.input;
        let start = prefix.clone().unwrap_or_default();
        let after = |(key, id): &(String, String)| match (&key_marker, &upload_id_marker) {
            (Some(marker), Some(id_marker)) => (key, id) > (marker, id_marker),
            (Some(marker), None) => key > marker,
            (None, _) => true,
        };
        let uploads = lock(&self.0.state.uploads).clone().into_iter();
        let mut uploads: Vec<_> =
            uploads.filter(|(upload, _)| upload.0.starts_with(&start) && after(upload)).collect();
        let max_uploads = r.input.max_uploads.unwrap_or(1000);
        let is_truncated = uploads.len() > max_uploads as usize;
        uploads.truncate(max_uploads as usize);
        let last = uploads.last().filter(|_| is_truncated).map(|(upload, _)| upload.clone());
        let uploads = uploads.into_iter().map(|((key, id), since)| MultipartUpload {
            key: Some(key),
            upload_id: Some(id),
            initiated: Some(since.into()),
            ..MultipartUpload::default()
        });
        let uploads: Vec<_> = uploads.collect();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(bucket),
            prefix,
            key_marker,
            upload_id_marker,
            max_uploads: Some(max_uploads),
            is_truncated: Some(is_truncated),
            next_key_marker: last.as_ref().map(|last| last.0.clone()),
            next_upload_id_marker: last.map(|last| last.1),
            uploads: uploads.is_empty().not().then_some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn copy_object(&self, r: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.0.files.copy_object(r).await
    }

    async fn delete_object(&self, r: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.0.files.delete_object(r).await
    }

    async fn delete_objects(
        &self,
        r: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.0.files.delete_objects(r).await
    }

    async fn get_bucket_location(
        &self,
        r: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.0.files.get_bucket_location(r).await
    }

    async fn get_object(&self, r: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.0.files.get_object(r).await
    }

    async fn head_bucket(&self, r: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.0.files.head_bucket(r).await
    }

    async fn head_object(&self, r: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.0.files.head_object(r).await
    }

    async fn list_objects(&self, r: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.0.files.list_objects(r).await
    }

    async fn list_objects_v2(
        &self,
        r: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let bucket = r.input.bucket.clone();
        let mut listed = self.0.files.list_objects_v2(r).await?;
        // `s3s-fs` lists no ETags, which real stores do.
        for object in listed.output.contents.iter_mut().flatten() {
            let Some(key) = object.key.clone() else { continue };
            let asked = HeadObjectInput { bucket: bucket.clone(), key, ..Default::default() };
            let found = self.0.files.head_object(request(asked)).await;
            object.e_tag = found.ok().and_then(|found| found.output.e_tag);
        }
        Ok(listed)
    }
}
