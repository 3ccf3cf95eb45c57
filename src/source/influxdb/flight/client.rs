//! The wire to Flight: channels, `DoGet` with a ticket of JSON, and a stream that ends well only with the
//! trailers of gRPC. The only file of this source that knows tonic.

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
use futures::{Stream, StreamExt, TryStreamExt};
use http::{Request, Response};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

use crate::config::{Credentials, InfluxDb};
use crate::error::{Class, Error, Result};
use crate::source::influxdb::errors::{Refusal, parse_retry_after};
use crate::source::influxdb::flight::local_end::LocalEnd;
use crate::source::influxdb::flight::status;
use crate::source::tunnel::{Passage, Tunnel};
use crate::text::{escaped, printable};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The server sends messages of about 2 MiB, but never splits a row.
const MESSAGE_BYTES: usize = 256 << 20;
/// The largest small answer in bytes; no list of columns is as large.
const LARGEST_LIST: u64 = 256 << 20;
/// The size in bytes of the header that gRPC puts before each message. A quota counts it, too.
const MESSAGE_HEAD: usize = 5;
/// The flow-control window: how many bytes may be under way and unread. Hyper's default of 2 MiB for a stream would
/// stop a server that is far away.
const STREAM_WINDOW: u32 = 4 << 20;

/// How often a connection that breaks is tried before gRPC is said not to pass, for how long each time,
/// and the pause between. What passes answers at once.
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
    /// Nothing is connected yet. Each of so many connections is used by every such query in turn:
    /// parallel streams would share the flow control of one.
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
            // This finds dead connections. Proxies that watch a stream for silence do not count these pings.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(2 * STREAM_WINDOW);
        if base.scheme() == "https" {
            endpoint =
                endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
        }
        // The token is the password where there is one: the user is ignored.
        let secret = match credentials {
            Credentials::None => None,
            Credentials::Token(token) => Some(token),
            Credentials::Password { password, .. } => Some(password),
        };
        let authorization = secret.map(|secret| {
            let value = MetadataValue::try_from(format!("Bearer {}", secret.expose()));
            value.map_err(|_| Error::usage("the token holds characters that no token has"))
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

    /// Address without credentials.
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
        let seen = Arc::<Seen>::default();
        let data = messages(streaming, Arc::clone(&seen)).map_err(FlightError::from);
        let batches = FlightRecordBatchStream::new_from_flight_data(data.boxed());
        Ok(Answer {
            address: self.address.clone(),
            idle_timeout: self.idle_timeout,
            below,
            batches,
            seen,
        })
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

    /// The way through the tunnel, if there is one, once it is ready.
    async fn passage(&self) -> Result<Option<Passage>> {
        match &self.tunnel {
            None => Ok(None),
            Some(tunnel) => tunnel.ready().await.map(Some),
        }
    }

    /// Why gRPC does not pass where HTTP does; `None` where it passes, and where nothing proves that it does not.
    /// This costs no query: the server refuses a ticket without a database.
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
                Err(_) => "no answer in time".to_owned(),
            });
        }
        Ok(failure)
    }

    /// All batches with rows of a query that answers little.
    pub(super) async fn all(&self, database: &str, sql: &str) -> Result<(Vec<RecordBatch>, u64)> {
        let mut answer = self.query(database, sql).await?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await? {
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
            if answer.bytes() > LARGEST_LIST {
                return Err(Error::stop(format!(
                    "{}: an answer of more than {} MiB to a question whose answer is small",
                    self.address(),
                    LARGEST_LIST >> 20
                ))
                .hint("is this the address of an InfluxDB?"));
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
        let told = format!("{address}: the connection broke: {}", printable(&cause));
        return Error::of(class, told).caused_by(status.clone());
    }
    status::error(address, status, refusal).caused_by(status.clone())
}

fn silent(address: &str) -> Error {
    Error::of(Class::RetryThenSplit, format!("{address}: no answer in time"))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The batches of a query as they come.
pub(super) struct Answer {
    address: String,
    idle_timeout: Duration,
    below: Shared,
    batches: FlightRecordBatchStream,
    seen: Arc<Seen>,
}

/// What was seen of a stream.
#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    queued_nanos: AtomicU64,
    /// The trailers came with the status OK. Any other status is an error of the stream.
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
    /// What the server says of the query at its end, where a proxy lets it through.
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
    /// The next batch; one without rows is a sign of life. `None` only after the server has said that
    /// this was all.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = tokio::time::timeout(self.idle_timeout, self.batches.next());
        match next.await.map_err(|_| silent(&self.address))? {
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(FlightError::Tonic(status))) => {
                Err(failed(&self.address, &status, &self.below))
            }
            Some(Err(error)) => Err(Error::of(
                Class::RetryThenSplit,
                format!("{}: a message that cannot be read: {error}", self.address),
            )),
            // Only the trailers tell a complete body from one that was cut between two messages.
            None if self.seen.ended_well.load(Ordering::Acquire) => Ok(None),
            None => Err(Error::of(
                Class::RetryThenSplit,
                format!("{}: the answer ended without its trailers", self.address),
            )),
        }
    }

    /// How long the query stood in the server's queue, as it says at the end.
    pub(super) fn queued(&self) -> Duration {
        Duration::from_nanos(self.seen.queued_nanos.load(Ordering::Relaxed))
    }

    /// Bytes of messages so far.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }
}

/// What was seen of the HTTP answer below gRPC.
#[derive(Debug, Default)]
struct Below {
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

/// Looks at the HTTP answer below gRPC: what a proxy says instead of the server, and when to come again,
/// would be lost otherwise.
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
            // A page of a proxy is no answer either, even with the status 200.
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
            break; // an HTML page of a proxy, say
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
