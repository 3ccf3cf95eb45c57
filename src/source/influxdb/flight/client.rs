//! The wire of Flight: channels, `DoGet` with a JSON ticket, and a stream that is complete only with gRPC's trailers. No
//! other file of this source except `status` uses tonic.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use http::{Request, Response};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

use crate::config::{Credentials, InfluxDb};
use crate::error::{Class, Error, Result};
use crate::source::influxdb::errors::{Refusal, parse_retry_after, unexpectedly_large};
use crate::source::influxdb::flight::local_end::LocalEnd;
use crate::source::influxdb::flight::status;
use crate::source::tunnel::{Passage, Tunnel};
use crate::text::{escaped, printable};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The largest message. The server sends about 2 MiB at once, but never splits a row.
pub(crate) const MESSAGE_BYTES: usize = 256 << 20;
/// The largest small answer in bytes. No list of columns is as large.
const LARGEST_LIST: u64 = 256 << 20;
/// The bytes of the header before each gRPC message, which a quota counts as well.
const MESSAGE_HEAD: usize = 5;
/// The flow-control window: how many bytes may be under way and unread. Hyper's default of 2 MiB for a stream would make
/// a distant server pause.
const STREAM_WINDOW: u32 = 4 << 20;

/// How often a broken connection is tried before gRPC is considered not to pass, how long each time, and the pause in
/// between. A server that gRPC reaches answers at once.
const PROBES: u32 = 3;
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
const PROBE_PAUSE: Duration = Duration::from_millis(400);

/// Connections to one server.
pub(in crate::source) struct Client {
    address: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
    tunnel: Option<Arc<Tunnel>>,
    idle_timeout: Duration,
}

impl Client {
    /// Prepares the connections, which open when they are first used. Queries use them in turn, since parallel streams on
    /// one connection would share its flow control.
    pub(in crate::source) fn new(
        influxdb: &InfluxDb,
        connections: usize,
        idle_timeout: Duration,
    ) -> Result<Self> {
        let InfluxDb { base, credentials, tunnel, .. } = influxdb;
        let address = base.as_str().trim_end_matches('/').to_owned();
        let wrong = |error: tonic::transport::Error| {
            Error::usage(format!("{address}: {}", innermost(&error)))
        };
        let mut endpoint = Endpoint::from_shared(address.clone())
            .map_err(wrong)?
            .user_agent(concat!("moveout/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            // The pings find dead connections. They do not keep a proxy from closing a silent stream.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(2 * STREAM_WINDOW);
        if base.scheme() == "https" {
            endpoint =
                endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
        }
        // If there is a password, it is the token, and the user is ignored.
        let secret = match credentials {
            Credentials::None => None,
            Credentials::Token(token) => Some(token),
            Credentials::Password { password, .. } => Some(password),
        };
        let authorization = secret.map(|secret| {
            let value = MetadataValue::try_from(format!("Bearer {}", secret.expose()));
            value.map_err(|_| {
                Error::usage("the token contains characters that are not allowed in one")
            })
        });
        let mut authorization = authorization.transpose()?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let channel = || match tunnel {
            None => endpoint.connect_lazy(),
            Some(tunnel) => endpoint.connect_with_connector_lazy(LocalEnd(Arc::clone(tunnel))),
        };
        let channels = (0..connections.max(1)).map(|_| channel()).collect();
        let (tunnel, next) = (tunnel.clone(), AtomicUsize::new(0));
        Ok(Self { address, channels, next, authorization, tunnel, idle_timeout })
    }

    /// The address without credentials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Runs a query in a database.
    pub(super) async fn query(&self, database: &str, sql: &str) -> Result<Answer> {
        tracing::debug!("{}: {}: {}", self.address, escaped(database), escaped(sql));
        let below = Shared::default();
        let ticket = json!({ "database": database, "sql_query": sql, "query_type": "sql" });
        let passage = self.passage().await?;
        let asked = tokio::time::timeout(self.idle_timeout, self.do_get(&ticket, &below)).await;
        if let (Some(tunnel), Some(passage)) = (&self.tunnel, passage) {
            if below.is_answered.load(Ordering::Relaxed) {
                tunnel.heard();
            } else {
                tunnel.was_silent(passage);
            }
        }
        let streaming = match asked {
            Ok(Ok(streaming)) => streaming,
            Ok(Err(status)) => return Err(failed(&self.address, &status, &below)),
            Err(_) => return Err(silent(&self.address)),
        };
        Ok(Answer::of(&self.address, self.idle_timeout, below, streaming))
    }

    async fn do_get(
        &self,
        ticket: &Value,
        below: &Shared,
    ) -> std::result::Result<Streaming<FlightData>, Status> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let watched = Watched { channel: self.channels[at].clone(), below: Arc::clone(below) };
        let mut client = FlightServiceClient::new(watched).max_decoding_message_size(MESSAGE_BYTES);
        let mut request = tonic::Request::new(Ticket { ticket: ticket.to_string().into() });
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(client.do_get(request).await?.into_inner())
    }

    /// Waits for the tunnel, if there is one, and returns the way through it.
    async fn passage(&self) -> Result<Option<Passage>> {
        match &self.tunnel {
            None => Ok(None),
            Some(tunnel) => tunnel.ready().await.map(Some),
        }
    }

    /// Why gRPC does not pass although HTTP does; `None` if it passes, or if nothing proves that it does not. This costs
    /// no query, since the server refuses a ticket without a database.
    pub(in crate::source) async fn probe_grpc(&self) -> Result<Option<String>> {
        let ticket = json!({ "sql_query": "SELECT 1", "query_type": "sql" });
        let mut failure = None;
        for probe in 0..PROBES {
            tokio::time::sleep(PROBE_PAUSE * probe).await;
            let below = Shared::default();
            self.passage().await?;
            let answer = tokio::time::timeout(PROBE_TIMEOUT, self.do_get(&ticket, &below)).await;
            if below.is_grpc.load(Ordering::Acquire) {
                return Ok(None); // any answer proves that gRPC passes
            }
            if let Some(refusal) = below.take() {
                return Ok(status::proves_no_grpc(&refusal).then(|| status::named(&refusal)));
            }
            failure = Some(match answer {
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(status)) => {
                    let cause = std::error::Error::source(&status).map(innermost);
                    printable(&cause.unwrap_or_else(|| status.message().to_owned()))
                }
                Err(_) => "the server did not answer in time".to_owned(),
            });
        }
        Ok(failure)
    }

    /// All batches with rows of a query with a small answer, and the bytes of the answer.
    pub(super) async fn all(&self, database: &str, sql: &str) -> Result<(Vec<RecordBatch>, u64)> {
        let mut answer = self.query(database, sql).await?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await? {
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
            if answer.bytes() > LARGEST_LIST {
                return Err(unexpectedly_large(&self.address, LARGEST_LIST));
            }
        }
        Ok((batches, answer.bytes()))
    }
}

fn failed(address: &str, status: &Status, below: &Below) -> Error {
    let refusal = below.take();
    if refusal.is_none()
        && let Some(cause) = std::error::Error::source(status)
    {
        let cause = innermost(cause);
        if cause.contains("certificate") || cause.contains("InvalidContentType") {
            return Error::stop(format!("{address}: cannot connect: {}", printable(&cause))).hint(
                "if the server's certificate is your own, set SSL_CERT_FILE to the file of its authority",
            );
        }
        let class = match status.message() {
            text if text.contains("connect") || text.contains("transport") => Class::Retry,
            _ => Class::RetryThenSplit,
        };
        let what = format!("{address}: the connection broke: {}", printable(&cause));
        return Error::of(class, what).caused_by(status.clone());
    }
    status::error(address, status, refusal).caused_by(status.clone())
}

fn silent(address: &str) -> Error {
    Error::of(Class::RetryThenSplit, format!("{address}: the server did not answer in time"))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The batches of a query as they arrive.
pub(crate) struct Answer {
    address: String,
    idle_timeout: Duration,
    below: Shared,
    batches: FlightRecordBatchStream,
    seen: Arc<Seen>,
}

/// What was observed of a stream.
#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    queued_nanos: AtomicU64,
    /// Whether the trailers have arrived with the status OK. Any other status is an error of the stream.
    ended_well: AtomicBool,
}

fn messages(
    streaming: Streaming<FlightData>,
    seen: Arc<Seen>,
) -> impl Stream<Item = std::result::Result<FlightData, Status>> {
    futures::stream::try_unfold((streaming, seen), |(mut streaming, seen)| async move {
        match streaming.message().await? {
            Some(data) => {
                let bytes = data.data_header.len() + data.data_body.len() + MESSAGE_HEAD;
                seen.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(Some((data, (streaming, seen))))
            }
            None => {
                let trailers = streaming.trailers().await?;
                if let Some(trailers) = &trailers {
                    seen.read(trailers);
                }
                seen.ended_well.store(trailers.is_some(), Ordering::Release);
                Ok(None)
            }
        }
    })
}

impl Seen {
    /// Reads what the server reports about the query at its end, unless a proxy removes that.
    fn read(&self, trailers: &MetadataMap) {
        let of = |name: &str| trailers.get(format!("x-influxdata-{name}"))?.to_str().ok();
        let queued = of("queue-duration-seconds").and_then(|text| text.parse().ok());
        let queued = queued.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let nanos = queued.map_or(0, |queued| u64::try_from(queued.as_nanos()).unwrap_or(u64::MAX));
        self.queued_nanos.store(nanos, Ordering::Relaxed);
        tracing::debug!(
            queued = ?queued,
            execution = of("execution-duration-seconds"),
            partitions = of("partitions"),
            files = of("parquet-files"),
            memory = of("max-memory-bytes"),
            "a query ended"
        );
    }
}

impl Answer {
    /// The answer of the server at this address whose messages are these.
    pub(crate) fn of(
        address: &str,
        idle_timeout: Duration,
        below: Arc<Below>,
        streaming: Streaming<FlightData>,
    ) -> Self {
        let seen = Arc::<Seen>::default();
        let data = messages(streaming, Arc::clone(&seen)).map_err(FlightError::from);
        let batches = FlightRecordBatchStream::new_from_flight_data(data.boxed());
        Self { address: address.to_owned(), idle_timeout, below, batches, seen }
    }

    /// The next batch, which is a mere sign of life if it has no rows; `None` only after the server has stated that there
    /// are no more.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let undecodable = |why: &dyn std::fmt::Display| {
            let what = format!("{}: a message cannot be decoded: {why}", self.address);
            Err(Error::of(Class::RetryThenSplit, what))
        };
        // The decoder panics on some messages that are broken.
        let next = AssertUnwindSafe(self.batches.next()).catch_unwind();
        let next = tokio::time::timeout(self.idle_timeout, next);
        let Ok(next) = next.await.map_err(|_| silent(&self.address))? else {
            return undecodable(&"it is broken");
        };
        match next {
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(FlightError::Tonic(status))) => {
                Err(failed(&self.address, &status, &self.below))
            }
            Some(Err(error)) => undecodable(&error),
            // Only the trailers distinguish a complete body from one that was cut between two messages.
            None if self.seen.ended_well.load(Ordering::Acquire) => Ok(None),
            None => Err(Error::of(
                Class::RetryThenSplit,
                format!("{}: the answer ended without its trailers", self.address),
            )),
        }
    }

    /// How long the query waited in the server's queue, which the server reports at the end.
    pub(super) fn queued(&self) -> Duration {
        Duration::from_nanos(self.seen.queued_nanos.load(Ordering::Relaxed))
    }

    /// The bytes of the messages so far.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }
}

/// What was observed of the HTTP response below gRPC.
#[derive(Debug, Default)]
pub(crate) struct Below {
    is_answered: AtomicBool,
    is_grpc: AtomicBool,
    refusal: Mutex<Option<Refusal>>,
}

impl Below {
    fn take(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Shared = Arc<Below>;

/// Observes the HTTP response below gRPC. Otherwise the text of a proxy that answers in place of the server would be
/// lost, and so would its `Retry-After`.
#[derive(Clone)]
struct Watched {
    channel: Channel,
    below: Shared,
}

type Answering = Pin<
    Box<dyn Future<Output = std::result::Result<Response<Body>, tonic::transport::Error>> + Send>,
>;

impl Service<Request<Body>> for Watched {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, below) = (self.channel.call(request), Arc::clone(&self.below));
        Box::pin(async move {
            let answer = answer.await?;
            below.is_answered.store(true, Ordering::Relaxed);
            let kind = answer.headers().get("content-type");
            let kind = kind.map(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            // The page of a proxy is not an answer either, even with status 200.
            if answer.status().is_success() && kind != Some(false) {
                below.is_grpc.store(kind.is_some(), Ordering::Release);
                return Ok(answer);
            }
            let status = answer.status().as_u16();
            let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
            let retry_after = header.and_then(parse_retry_after);
            let (parts, body) = answer.into_parts();
            let text = beginning(body).await;
            *below.refusal.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Refusal { status, retry_after, text });
            Ok(Response::from_parts(parts, Body::empty()))
        })
    }
}

/// The first kilobytes of a body, as text.
async fn beginning(body: Body) -> String {
    let mut frames = std::pin::pin!(frames(body));
    let mut text = Vec::new();
    while let Some(bytes) = frames.next().await {
        text.extend_from_slice(&bytes);
        if text.len() > 4096 {
            break; // this is the HTML page of a proxy, for example
        }
    }
    text.truncate(4096);
    String::from_utf8_lossy(&text).into_owned()
}

fn frames(body: Body) -> impl Stream<Item = bytes::Bytes> {
    use tonic::codegen::Body as _;
    futures::stream::unfold(Box::pin(body), |mut body| async move {
        loop {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some((data, body));
            }
        }
    })
}
