//! A STAND-IN for InfluxDB 3, in the process of the test, on a free loopback port: Cloud Serverless,
//! Cloud Dedicated or Core, as seen by somebody who reads everything out of them. On a thread of its
//! own; stopped on drop.
//!
//! It is no InfluxDB. Its SQL is DataFusion's, the engine of the real ones, in a newer version; its
//! tables are in memory. How it speaks is modelled on measurements of Core 3.6.0, and for Serverless
//! and Dedicated, whose server is not public, on InfluxData's documentation and open source. Where
//! neither says anything, a comment in the code says `Assumed`.
//!
//! It has: gRPC Flight `DoGet` with a ticket of JSON, HTTP on the same port, `information_schema`,
//! `system.parquet_files` (Core), limits that are decided when a query is planned, keep-alives,
//! trailers, a quota in fixed windows, and faults;
//! `/query` with the few statements of InfluxQL that list and read everything, as Core 3.6 and as later
//! servers answer it, and a network through which gRPC does not pass.
//!
//! Core also takes line protocol over the network, with `accept_partial=true` alone, and has its limits of databases, tables
//! and columns.
//!
//! It has not: other InfluxQL, Flight SQL, other ways of writing over the network, real
//! Parquet files, deletion, system tables other than the one above, row order as Core has it, the
//! cost of merging chunks (see [`Options::cost`]), limits on names and sizes.
//!
//! Not a part of `support`, since each test would take seconds longer to build with it. Those that
//! need it say `#[path = "support/influxdb3.rs"] mod influxdb3;` besides `mod support;`.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "influxdb3/api.rs"]
mod api;
#[path = "influxdb3/cloud.rs"]
pub(crate) mod cloud;
#[path = "influxdb3/fault.rs"]
mod fault;
#[path = "influxdb3/flight.rs"]
mod flight;
#[path = "influxdb3/influxql.rs"]
mod influxql;
#[path = "influxdb3/lines.rs"]
mod lines;
#[path = "influxdb3/sql.rs"]
mod sql;
#[path = "influxdb3/tables.rs"]
mod tables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value as Json;
use tokio::net::TcpSocket;
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::support::background::{Background, accept};

pub(crate) use fault::{Break, Fault};
use fault::{quota_text, unauthorized};
use tables::Table;

/// The token that a server with authentication takes.
pub(crate) const TOKEN: &str = "made-up-token==";
/// The only organization of Serverless.
pub(crate) const ORG: &str = "0a11ce0000000001";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    /// InfluxDB Cloud Serverless, of the free plan.
    Serverless,
    /// InfluxDB Cloud Dedicated.
    Dedicated,
    /// InfluxDB 3 Core 3.6.
    Core,
}

/// How the server behaves; can be changed while it runs.
#[derive(Clone)]
pub(crate) struct Options {
    /// Whether a request needs [`TOKEN`]. Core has `--without-auth`.
    pub(crate) auth: bool,
    /// After so much silence in a Flight stream comes a batch without rows.
    pub(crate) keep_alive: Duration,
    /// Whether statistics come in `x-influxdata-` trailers. Whether the edge of Serverless lets them
    /// through is not known.
    pub(crate) trailers: bool,
    /// How long a query stands in a queue before it is run.
    pub(crate) queue: Duration,
    /// A query of more UTC days (of one table) is refused when it is planned.
    pub(crate) partitions: Option<usize>,
    /// A query of more Parquet files is refused when it is planned.
    pub(crate) parquet_files: Option<usize>,
    /// Parquet files in a partition of Serverless and Dedicated. Core has one for each ten minutes.
    pub(crate) files_per_day: usize,
    /// A query that takes longer ends.
    pub(crate) query_time: Option<Duration>,
    pub(crate) quota: Option<Quota>,
    /// How long a query waits before its first rows, with keep-alives; a real server gets slower
    /// than its rows become more, the wider the query.
    pub(crate) cost: Arc<dyn Fn(&Scan) -> Duration + Send + Sync>,
    /// Names of databases that the token does not allow to read.
    pub(crate) forbidden: Vec<String>,
    pub(crate) grpc: Grpc,
    /// `None`: `/query` of Core 3.6, which says errors with a status. Else of later servers, which say
    /// them with 200 and write -0 as 0; and whether each object says that more follows. Assumed: that
    /// the servers in the cloud do not say it.
    pub(crate) partial: Option<bool>,
}

/// What becomes of gRPC on its way to the server.
#[derive(Debug, Clone)]
pub(crate) enum Grpc {
    Passes,
    /// Only HTTP/1.1 does: the preface of HTTP/2 is refused.
    Http1,
    /// Something on the way answers it.
    Answered(Fault),
}

impl Options {
    pub(crate) fn of(product: Product) -> Self {
        let serverless = product == Product::Serverless;
        Self {
            auth: product != Product::Core,
            keep_alive: Duration::from_secs(5),
            trailers: product != Product::Core,
            queue: Duration::ZERO,
            partitions: serverless.then_some(500),
            parquet_files: match product {
                Product::Serverless => Some(1000),
                Product::Dedicated => None,
                Product::Core => Some(432),
            },
            files_per_day: 1,
            query_time: serverless.then_some(Duration::from_secs(90)),
            quota: serverless.then(Quota::default),
            cost: Arc::new(|_| Duration::ZERO),
            forbidden: Vec::new(),
            grpc: Grpc::Passes,
            partial: (product != Product::Core).then_some(false),
        }
    }
}

/// A quota in fixed windows of time, as Serverless has it.
///
/// Known: windows are fixed and do not slide, a query that comes when the window's bytes are spent
/// fails until the window ends, HTTP answers 429 with `Retry-After`, and the text. Assumed: that
/// Flight's bytes count as HTTP's do, what a Flight call gets, and that a query that already runs is
/// let through to its end (see `cut`).
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    /// Of answers in a window.
    pub(crate) bytes: u64,
    /// In a window.
    pub(crate) queries: u64,
    /// The first one begins when the server starts.
    pub(crate) window: Duration,
    /// What a Flight call gets.
    pub(crate) answer: QuotaAnswer,
    /// Whether an answer says when to come again: `retry-after`, in seconds.
    pub(crate) retry_after: bool,
    /// Whether a stream that is under way ends with an error when the bytes are spent.
    pub(crate) cut: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            bytes: 300_000_000,
            queries: u64::MAX,
            window: Duration::from_secs(300),
            answer: QuotaAnswer::Grpc,
            retry_after: true,
            cut: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaAnswer {
    /// `ResourceExhausted`, with the text.
    Grpc,
    /// HTTP 429 of the edge, with the text in JSON, or without a body.
    Http { body: bool },
}

/// What a query reads, known when it is planned. Sums if it reads more than one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scan {
    pub(crate) sql: String,
    /// The bounds of `time` that its filters give, both inclusive; the ends of i64 without.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Of the files that are touched.
    pub(crate) rows: u64,
    pub(crate) partitions: usize,
    pub(crate) files: usize,
}

/// A table to make without line protocol, which is slow. Row `n` is at `from + n * step`, has the
/// tag `NAME{n % values}` for each of the tags, and fields `f0`, `f1`... from 0 to 100.
#[derive(Debug, Clone)]
pub(crate) struct Generate {
    pub(crate) rows: usize,
    pub(crate) from: i64,
    pub(crate) step: i64,
    /// Names, and how many values each has.
    pub(crate) tags: Vec<(&'static str, usize)>,
    pub(crate) floats: usize,
    pub(crate) seed: u64,
}

impl Default for Generate {
    /// A day from 2026-01-01, a row a second.
    fn default() -> Self {
        let (from, step) = (1_767_225_600_000_000_000, 1_000_000_000);
        Self { rows: 86_400, from, step, tags: vec![("host", 10)], floats: 2, seed: 1 }
    }
}

/// A query that came, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) database: String,
    pub(crate) sql: String,
}

type Predicate = Box<dyn Fn(&str) -> bool + Send>;

struct Rule {
    matches: Predicate,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct Database {
    /// Made from the order of creation.
    id: usize,
    retention: Option<Duration>,
    tables: BTreeMap<String, Table>,
}

/// Counts what the quota limits.
struct Meter {
    since: Instant,
    /// Bytes and queries, by number of the window.
    windows: BTreeMap<u64, (u64, u64)>,
    refusals: usize,
}

struct State {
    product: Product,
    options: Mutex<Options>,
    databases: Mutex<BTreeMap<String, Database>>,
    artifacts: Mutex<BTreeMap<String, Json>>,
    rules: Mutex<Vec<Rule>>,
    fired: AtomicUsize,
    queries: Mutex<Vec<Query>>,
    requests: Mutex<Vec<String>>,
    meter: Mutex<Meter>,
}

impl State {
    fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    /// The fault for a request of which the predicates see this text, which counts as fired.
    fn fault(&self, text: &str) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && (rule.matches)(text))?;
        // Not those that stand for all.
        rule.times -= usize::from(rule.times < usize::MAX);
        self.fired.fetch_add(1, Ordering::SeqCst);
        Some(rule.fault.clone())
    }

    fn write(&self, database: &str, lines: &str, persisted: bool) {
        let mut databases = lock(&self.databases);
        let tables = &mut create(&mut databases, database).tables;
        for point in lines::parse(lines) {
            tables.entry(point.measurement.clone()).or_default().write(point, persisted);
        }
    }

    /// Counts a query, or says in how many seconds it may come again.
    fn admit(&self) -> Result<(), u64> {
        let Some(quota) = self.options().quota else { return Ok(()) };
        let mut meter = lock(&self.meter);
        let (now, window) = (meter.since.elapsed(), meter.window(quota.window));
        let used = meter.windows.entry(window).or_default();
        if used.0 < quota.bytes && used.1 < quota.queries {
            used.1 += 1;
            return Ok(());
        }
        meter.refusals += 1;
        let end = quota.window.as_secs_f64() * (window + 1) as f64;
        Err((end - now.as_secs_f64()).ceil().max(1.0) as u64)
    }

    /// Counts bytes of an answer, and says whether there are any left.
    fn count(&self, bytes: usize) -> bool {
        let quota = self.options().quota.unwrap_or_default();
        let mut meter = lock(&self.meter);
        let window = meter.window(quota.window);
        let used = meter.windows.entry(window).or_default();
        used.0 += bytes as u64;
        used.0 < quota.bytes
    }
}

impl Meter {
    fn window(&self, length: Duration) -> u64 {
        (self.since.elapsed().as_secs_f64() / length.as_secs_f64()) as u64
    }
}

fn create<'a>(databases: &'a mut BTreeMap<String, Database>, name: &str) -> &'a mut Database {
    let id = databases.len();
    databases.entry(name.to_owned()).or_insert_with(|| Database { id, ..Database::default() })
}

fn bucket_id(database: &Database) -> String {
    format!("0b0c{:012x}", database.id + 1)
}

/// The running server.
pub(crate) struct InfluxDb3 {
    address: SocketAddr,
    state: Arc<State>,
    _background: Background,
}

impl InfluxDb3 {
    pub(crate) fn start(product: Product) -> Self {
        Self::start_with(product, Options::of(product))
    }

    pub(crate) fn start_with(product: Product, options: Options) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let meter = Meter { since: Instant::now(), windows: BTreeMap::new(), refusals: 0 };
        let state = Arc::new(State {
            product,
            options: Mutex::new(options),
            databases: Mutex::default(),
            artifacts: Mutex::new(cloud::artifacts()),
            rules: Mutex::default(),
            fired: AtomicUsize::default(),
            queries: Mutex::default(),
            requests: Mutex::default(),
            meter: Mutex::new(meter),
        });
        // Planning in an unoptimised build takes more stack than a thread usually has.
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(16 << 20)
            .enable_all()
            .build()
            .unwrap();
        let _background = Background::start(runtime, listen(listener, Arc::clone(&state)));
        Self { _background, address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// For HTTP and for gRPC.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how it behaves from now on.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.state.options));
    }

    /// A database without tables, unless it exists.
    pub(crate) fn create(&self, database: &str) {
        create(&mut lock(&self.state.databases), database);
    }

    /// A database whose rows cannot be read any more when they are older than this.
    pub(crate) fn create_with_retention(&self, database: &str, retention: Duration) {
        create(&mut lock(&self.state.databases), database).retention = Some(retention);
    }

    /// Of a bucket of Serverless; panics if there is none.
    pub(crate) fn bucket_id(&self, database: &str) -> String {
        bucket_id(&lock(&self.state.databases)[database])
    }

    /// Writes line protocol, with timestamps in nanoseconds. Creates what is missing.
    pub(crate) fn write(&self, database: &str, lines: &str) {
        self.state.write(database, lines, true);
    }

    /// Writes what Core keeps in its memory: it can be read, but is in no Parquet file.
    pub(crate) fn write_unpersisted(&self, database: &str, lines: &str) {
        self.state.write(database, lines, false);
    }

    /// Makes Parquet files of all that was only in memory.
    pub(crate) fn persist(&self) {
        for database in lock(&self.state.databases).values_mut() {
            database.tables.values_mut().for_each(Table::persist);
        }
    }

    /// Adds many rows at once. They must differ from all others in time or tags.
    pub(crate) fn generate(&self, database: &str, table: &str, what: &Generate) {
        let mut databases = lock(&self.state.databases);
        let tables = &mut create(&mut databases, database).tables;
        tables.entry(table.to_owned()).or_default().generate(what);
    }

    /// Adds rows as they are: tags as `Dictionary(Int32, Utf8)`, `time` in nanoseconds without zone.
    /// They must differ from all others in time or tags.
    pub(crate) fn load(&self, database: &str, table: &str, rows: &RecordBatch) {
        let mut databases = lock(&self.state.databases);
        let tables = &mut create(&mut databases, database).tables;
        tables.entry(table.to_owned()).or_default().load(rows);
    }

    /// Replaces artifacts of Serverless by the last part of their path: `telegrafs`, `tasks`,
    /// `dbrps`, `secrets`... Without one, there are some of each kind.
    pub(crate) fn set_artifacts(&self, kind: &str, artifacts: Json) {
        lock(&self.state.artifacts).insert(kind.to_owned(), artifacts);
    }

    /// Does this to the next `times` requests that match; `usize::MAX` for all. The predicate sees the
    /// SQL of a query, or `GET /api/v2/buckets` (without the URL's query) where there is none. The
    /// first rule that matches and has some times left is used.
    pub(crate) fn fault(
        &self,
        matches: impl Fn(&str) -> bool + Send + 'static,
        times: usize,
        fault: Fault,
    ) {
        lock(&self.state.rules).push(Rule { matches: Box::new(matches), times, fault });
    }

    /// Forgets all faults that are left.
    pub(crate) fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// How many requests have got a fault. A test that relies on one should assert this.
    pub(crate) fn fired(&self) -> usize {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// All queries so far, in order, also what was refused or got a fault.
    pub(crate) fn queries(&self) -> Vec<Query> {
        lock(&self.state.queries).clone()
    }

    /// All requests so far, in order: `GET /api/v2/buckets?limit=100`, or the method of gRPC. Without
    /// tokens.
    pub(crate) fn requests(&self) -> Vec<String> {
        lock(&self.state.requests).clone()
    }

    /// Bytes of the answers to queries, by window of the quota, from the first on.
    pub(crate) fn served(&self) -> Vec<u64> {
        let meter = lock(&self.state.meter);
        let last = meter.windows.keys().next_back().map_or(0, |last| last + 1);
        let bytes = |window| meter.windows.get(&window).map_or(0, |used| used.0);
        (0..last).map(bytes).collect()
    }

    /// How many queries were refused because of the quota.
    pub(crate) fn refusals(&self) -> usize {
        lock(&self.state.meter).refusals
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Ends a connection.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

/// The means to break a connection.
struct Connection {
    twin: Mutex<Option<TcpSocket>>,
    broken: Notify,
}

impl Connection {
    /// Ends the connection for all that use it.
    fn kill(&self, reset: bool) {
        if let Some(twin) = lock(&self.twin).take()
            && reset
        {
            let _ = twin.set_zero_linger();
        }
        self.broken.notify_one();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    accept(listener, |client, twin| {
        let twin = Mutex::new(Some(twin));
        let connection = Arc::new(Connection { twin, broken: Notify::new() });
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                api::answer(request, Arc::clone(&state), Arc::clone(&connection))
            });
            let http = auto::Builder::new(TokioExecutor::new());
            let http = match state.options().grpc {
                Grpc::Http1 => http.http1_only(),
                _ => http,
            };
            tokio::select! {
                // Whoever hangs up breaks it, which is no fault of the test.
                _ = http.serve_connection(TokioIo::new(client), service) => {}
                () = connection.broken.notified() => {}
            }
            drop(lock(&connection.twin).take());
        });
    })
    .await;
}
