//! The wire of HTTP: requests with credentials, and bodies as they arrive. No other file of this source except `through`
//! uses reqwest.

mod through;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use url::Url;

use self::through::Through;
use crate::config::{Credentials, InfluxDb, Secret};
use crate::error::{Class, Error, Result};
use crate::source::influxdb::errors::{Refusal, parse_retry_after, unexpectedly_large};
use crate::source::influxdb::metadata;
use crate::source::influxdb::metadata::Statement;
use crate::text::escaped;

/// The rows of a chunk of an answer. By measurement, 100,000 are slower and cost the server more memory.
const CHUNK_ROWS: &str = "10000";

/// A server that takes longer than this for a piece is slower than the decoder. Then bytes gather in the socket for the
/// time of `GATHER`, so that a thread is not woken for every few kilobytes.
const SLOW: Duration = Duration::from_millis(1);
const GATHER: Duration = Duration::from_millis(3);

/// The largest body without rows, in bytes. No list of resources is as large.
const LARGEST_RESOURCE: usize = 256 << 20;

/// The bytes of a body that are passed to the decoder together.
const PIECE_BYTES: usize = 128 * 1024;

/// An InfluxDB over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    client: Client,
    base: Url,
    through: Option<Through>,
    credentials: Credentials,
    /// Whether a token is sent as a JWT, which a 1.x server expects.
    bearer: Arc<AtomicBool>,
}

/// A response of any status.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Reply {
    /// The text, or the error if the status is not one of success.
    pub(crate) fn into_success(self, server: &Server) -> Result<String> {
        if StatusCode::from_u16(self.status).is_ok_and(|status| !status.is_success()) {
            let Self { status, text } = self;
            return Err(server.error_of(Refusal { status, retry_after: None, text }));
        }
        Ok(self.text)
    }
}

/// What `/ping` states.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    pub(crate) version: String,
    pub(crate) build: String,
    /// The header `Server`, which an InfluxDB does not send.
    pub(crate) server: String,
}

/// The format of the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    MessagePack,
    Json,
}

impl Server {
    pub(crate) fn new(influxdb: &InfluxDb, idle_timeout: Duration) -> Result<Self> {
        let InfluxDb { base, credentials, tunnel, verify, .. } = influxdb;
        // The answer to a long query may take any time, but the server must not be silent for long.
        let mut client = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(idle_timeout)
            .tls_danger_accept_invalid_certs(!verify)
            .user_agent(concat!("moveout/", env!("CARGO_PKG_VERSION")));
        let through = tunnel.as_ref().map(|tunnel| Through::new(base, Arc::clone(tunnel)));
        if let Some(through) = &through {
            client = through.set_up(client);
        }
        let client =
            client.build().map_err(|error| Error::stop(format!("setting up TLS: {error}")))?;
        let (base, credentials) = (base.clone(), credentials.clone());
        Ok(Self { client, base, through, credentials, bearer: Arc::default() })
    }

    /// Sends a request. All requests go through here, so that a tunnel is used for each.
    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let Some(through) = &self.through else {
            return request.send().await.map_err(|error| self.transport(error));
        };
        through.send(request).await?.map_err(|error| self.transport(error))
    }

    /// The address without credentials.
    pub(crate) fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Gets a resource. A failure that may be temporary (429, 5xx, no response) is an error; any other status is a reply.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &'static str,
    ) -> Result<Reply> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        tracing::debug!("GET {url}");
        self.got(self.client.get(url).header(ACCEPT, accept)).await
    }

    /// Posts JSON, and otherwise works like `get`.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send_json(Method::POST, path, body).await
    }

    /// Changes a resource by JSON; otherwise as `get`.
    pub(crate) async fn patch_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send_json(Method::PATCH, path, body).await
    }

    async fn send_json(&self, method: Method, path: &str, body: &Value) -> Result<Reply> {
        tracing::debug!("{method} {}", self.at(path));
        let request = self.client.request(method, self.at(path)).header(ACCEPT, "application/json");
        self.got(request.header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    /// Posts lines; otherwise as `get`.
    pub(crate) async fn write(
        &self,
        path: &str,
        query: &[(&str, &str)],
        lines: Bytes,
    ) -> Result<Reply> {
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(query);
        tracing::debug!("POST {url}: {} bytes", lines.len());
        let request = self.client.post(url).header(CONTENT_TYPE, "text/plain; charset=utf-8");
        self.got(request.body(lines)).await
    }

    async fn got(&self, request: RequestBuilder) -> Result<Reply> {
        let request = self.authorized(request)?;
        let response = self.send(request).await?;
        let status = response.status();
        if status.as_u16() == 429 || status.is_server_error() {
            return Err(self.error_of(refusal(response).await));
        }
        let body = self.whole(response).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(Reply { status: status.as_u16(), text })
    }

    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder> {
        Ok(match &self.credentials {
            Credentials::None => request,
            Credentials::Password { user, password } => {
                request.basic_auth(user, Some(password.expose()))
            }
            Credentials::Token(token) => {
                let scheme = if self.bearer.load(Ordering::Relaxed) { "Bearer" } else { "Token" };
                request.header(AUTHORIZATION, token_header(scheme, token)?)
            }
        })
    }

    /// By how many seconds the server's clock is ahead, according to the date of a response.
    pub(crate) async fn clock_ahead(&self) -> Result<Option<i64>> {
        let response = self.send(self.client.get(self.at("ping"))).await?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        Ok(date.map(|date| date.timestamp() - chrono::Utc::now().timestamp()))
    }

    /// Asks the server what it is, which needs no rights.
    pub(crate) async fn ping(&self) -> Result<Ping> {
        let ask = || self.client.get(self.at("ping"));
        let mut response = self.send(ask()).await?;
        // InfluxDB 3 may require a token even for this, while a 1.x server may refuse one.
        if response.status() == StatusCode::UNAUTHORIZED {
            let request = self.authorized(ask())?;
            response = self.send(request).await?;
        }
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let ping = Ping {
            version: header("x-influxdb-version"),
            build: header("x-influxdb-build"),
            server: header("server"),
        };
        let is_first = ping.version.trim_start_matches('v').starts_with("1.");
        self.bearer.store(is_first, Ordering::Relaxed);
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            Ok(ping)
        } else {
            Err(self.error_of(refusal(response).await))
        }
    }

    /// Runs a statement about metadata.
    pub(crate) async fn query(&self, statement: &str) -> Result<Vec<Statement>> {
        self.query_all(statement, 1).await
    }

    /// Runs a statement about the metadata of one retention policy of a database.
    pub(crate) async fn query_in(
        &self,
        statement: &str,
        database: &str,
        policy: &str,
    ) -> Result<Vec<Statement>> {
        self.query_with(statement, 1, &[("db", database), ("rp", policy)]).await
    }

    /// Runs `count` statements about metadata. The answer is chunked, since a server silently limits any other one to
    /// `max-row-limit` rows. The error of any statement is an error. So is an answer without the end of each statement,
    /// since its missing rows would silently be left out.
    pub(crate) async fn query_all(&self, statements: &str, count: usize) -> Result<Vec<Statement>> {
        self.query_with(statements, count, &[]).await
    }

    async fn query_with(
        &self,
        statements: &str,
        count: usize,
        more: &[(&str, &str)],
    ) -> Result<Vec<Statement>> {
        let form = [&chunked(statements, CHUNK_ROWS)[..], more].concat();
        let body = self.body(self.post("application/json", &form).await?).await?;
        metadata::statements(&self.address(), &body, count)
    }

    /// Runs one statement with a small answer in the database that `place` names, and also returns the bytes of the
    /// answer. The answer is not chunked but one object, so that a truncated one is not valid JSON. This is for servers
    /// that never limit the rows of an answer.
    pub(crate) async fn ask(
        &self,
        statement: &str,
        place: &[(&str, &str)],
    ) -> Result<(Statement, u64)> {
        let form = [&[("q", statement), ("epoch", "ns")], place].concat();
        let body = self.body(self.post("application/json", &form).await?).await?;
        let statement = metadata::statements(&self.address(), &body, 1)?.pop().unwrap_or_default();
        Ok((statement, body.len() as u64))
    }

    /// Sends a query whose rows shall arrive as JSON, with `chunk_rows` in each object.
    pub(crate) async fn rows(
        &self,
        statement: &str,
        place: &[(&str, &str)],
        chunk_rows: usize,
    ) -> Result<Response> {
        let chunk_rows = chunk_rows.to_string();
        let form = [&chunked(statement, &chunk_rows)[..], place].concat();
        match self.opened(self.post("application/json", &form).await?).await? {
            (Format::Json, response) => Ok(response),
            (Format::MessagePack, _) => {
                let text = format!(
                    "{}: the server sent MessagePack although JSON was requested",
                    self.address()
                );
                Err(Error::of(Class::Retry, text))
            }
        }
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>> {
        let response = self.accepted(response).await?;
        self.whole(response).await
    }

    /// The whole body of an answer without rows.
    async fn whole(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.transport(error))? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_RESOURCE {
                return Err(unexpectedly_large(&self.address(), LARGEST_RESOURCE as u64));
            }
        }
        Ok(body)
    }

    /// Sends a query for rows, and returns the format of its answer.
    pub(crate) async fn open(&self, statement: &str) -> Result<(Format, Response)> {
        // Servers compare the whole header, so a list of types would match none.
        let form = chunked(statement, CHUNK_ROWS);
        let mut response = self.post("application/x-msgpack", &form).await?;
        if matches!(
            response.status(),
            StatusCode::NOT_ACCEPTABLE | StatusCode::UNSUPPORTED_MEDIA_TYPE
        ) {
            response = self.post("application/json", &form).await?;
        }
        self.opened(response).await
    }

    async fn opened(&self, response: Response) -> Result<(Format, Response)> {
        let response = self.accepted(response).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match kind.unwrap_or_default() {
            kind if kind.contains("msgpack") => Ok((Format::MessagePack, response)),
            kind if kind.contains("json") => Ok((Format::Json, response)),
            kind => Err(Error::of(
                Class::Retry,
                format!("{}: the answer has the unknown type `{kind}`", self.address()),
            )
            .hint("is there a proxy or a login page before the server?")),
        }
    }

    /// Moves a body from the socket to the thread that decodes it. The server flushes every few kilobytes, so they are
    /// gathered into larger pieces, to wake that thread less often. `came` is called with the number of bytes.
    pub(crate) async fn pump(
        &self,
        mut response: Response,
        body: mpsc::Sender<Result<Bytes>>,
        mut came: impl FnMut(u64),
    ) {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let mut began = Instant::now();
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    came(bytes.len() as u64);
                    self.through.iter().for_each(Through::heard);
                    piece.extend_from_slice(&bytes);
                }
                Ok(None) => {
                    let _ = body.send(Ok(piece.freeze())).await; // the decoder may have failed
                    return;
                }
                Err(error) => {
                    let _ = body.send(Err(self.transport(error))).await;
                    return;
                }
            }
            if piece.len() >= PIECE_BYTES {
                let full = std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE_BYTES));
                if body.send(Ok(full.freeze())).await.is_err() {
                    return;
                }
                if began.elapsed() > SLOW {
                    tokio::time::sleep(GATHER).await;
                }
                began = Instant::now();
            }
        }
    }

    async fn post(&self, accept: &'static str, form: &[(&str, &str)]) -> Result<Response> {
        let statements = form.iter().find(|(key, _)| *key == "q").map_or("", |(_, text)| text);
        tracing::debug!("{}: {}", self.address(), escaped(statements));
        let request = self.client.post(self.at("query")).header(ACCEPT, accept).form(form);
        self.send(self.authorized(request)?).await
    }

    async fn accepted(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.error_of(refusal(response).await))
    }

    fn at(&self, path: &str) -> Url {
        let mut url = match &self.through {
            Some(through) => through.base.clone(),
            None => self.base.clone(),
        };
        url.set_path(path);
        url
    }

    fn transport(&self, error: reqwest::Error) -> Error {
        self.transport_error(&error).caused_by(error)
    }

    fn transport_error(&self, error: &reqwest::Error) -> Error {
        let mut causes = Vec::new();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
        while let Some(inner) = cause {
            causes.push(inner.to_string());
            cause = inner.source();
        }
        let cause = causes.last().cloned().unwrap_or_else(|| error.to_string());
        if cause.contains("certificate") {
            return Error::stop(format!("{}: cannot connect: {cause}", self.address())).hint(
                "if the server's certificate is your own, set SSL_CERT_FILE to the file of its authority",
            );
        }
        let (class, what) = match (error.is_connect(), error.is_timeout()) {
            (true, _) => (Class::Retry, format!("cannot connect: {cause}")),
            (_, true) => (Class::RetryThenSplit, "the server did not answer in time".to_owned()),
            _ => (Class::RetryThenSplit, format!("the connection broke: {cause}")),
        };
        Error::of(class, format!("{}: {what}", self.address()))
    }

    fn error_of(&self, refusal: Refusal) -> Error {
        let is_anonymous = matches!(self.credentials, Credentials::None);
        refusal.into_error(&self.address(), is_anonymous)
    }
}

/// The form of a query whose answer consists of many objects.
fn chunked<'a>(statements: &'a str, chunk_rows: &'a str) -> [(&'a str, &'a str); 4] {
    [("q", statements), ("epoch", "ns"), ("chunked", "true"), ("chunk_size", chunk_rows)]
}

fn token_header(scheme: &str, token: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.expose()))
        .map_err(|_| Error::usage("the token contains characters that are not allowed in one"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn refusal(mut response: Response) -> Refusal {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(parse_retry_after);
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() > 4096 {
            break; // this is the HTML page of a proxy, for example
        }
    }
    body.truncate(4096);
    Refusal { status, retry_after, text: String::from_utf8_lossy(&body).into_owned() }
}
