//! The wire to `/query`: requests with credentials, bodies as they come, and what an HTTP status or
//! an error text means. The only file of this source that knows reqwest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use url::Url;

use crate::config::{Credentials, Secret};
use crate::error::{Class, Error, Result};
use crate::text::escaped;

/// Rows of a chunk of an answer. Measured: 100,000 is slower and costs the server more memory.
const CHUNK_ROWS: &str = "10000";

/// Longer than this no server is believed to mean; it is asked again then.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A server that takes longer than this for a piece is slower than we are: then bytes gather in the
/// socket for a while, instead of each few kilobytes waking a thread.
const SLOW: Duration = Duration::from_millis(1);
const GATHER: Duration = Duration::from_millis(3);

/// More than any list of resources has.
const LARGEST_RESOURCE: usize = 256 << 20;

/// Bytes of a body that are handed to the decoder together.
const PIECE_BYTES: usize = 128 * 1024;

/// An InfluxDB over HTTP.
#[derive(Debug, Clone)]
pub(in crate::source) struct Server {
    client: Client,
    base: Url,
    credentials: Credentials,
    /// A 1.x server takes a token as a JWT.
    bearer: Arc<AtomicBool>,
}

/// An answer of any status.
#[derive(Debug)]
pub(in crate::source) struct Got {
    pub(in crate::source) status: u16,
    pub(in crate::source) text: String,
}

impl Got {
    /// The text of an answer that is none of a refusal.
    pub(in crate::source) fn allowed(self, server: &Server) -> Result<String> {
        match StatusCode::from_u16(self.status) {
            Ok(status) if !status.is_success() => Err(server.refused(status, None, &self.text)),
            _ => Ok(self.text),
        }
    }
}

/// What `/ping` says.
#[derive(Debug, Clone)]
pub(in crate::source) struct Product {
    pub(in crate::source) version: String,
    pub(in crate::source) build: String,
}

/// One statement's part of an answer to a query about metadata.
#[derive(Debug, Default, Deserialize)]
pub(in crate::source) struct Statement {
    #[serde(default)]
    pub(in crate::source) series: Vec<Series>,
}

/// One series of such an answer.
#[derive(Debug, Deserialize)]
pub(in crate::source) struct Series {
    #[serde(default)]
    pub(in crate::source) name: String,
    #[serde(default)]
    pub(in crate::source) columns: Vec<String>,
    #[serde(default)]
    pub(in crate::source) values: Vec<Vec<Value>>,
}

impl Series {
    /// The values of a column; nothing where there is no such column.
    pub(in crate::source) fn column(&self, name: &str) -> impl Iterator<Item = &Value> {
        let at = self.columns.iter().position(|column| column == name);
        self.values.iter().filter_map(move |row| row.get(at?))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<StatementPart>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct StatementPart {
    #[serde(default)]
    statement_id: usize,
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
    #[serde(default)]
    partial: bool,
}

/// How the body of an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Format {
    MessagePack,
    Json,
}

impl Server {
    pub(in crate::source) fn new(
        base: Url,
        credentials: Credentials,
        idle_timeout: Duration,
    ) -> Result<Self> {
        // The answer to a long query may take any time as a whole; silence may not.
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(idle_timeout)
            .user_agent(concat!("moveout/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::stop(format!("setting up TLS: {error}")))?;
        Ok(Self { client, base, credentials, bearer: Arc::default() })
    }

    /// Address without credentials.
    pub(in crate::source) fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Gets a resource. What may pass is an error (429, 5xx, no answer); any other status is an answer.
    pub(in crate::source) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &'static str,
    ) -> Result<Got> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        tracing::debug!("GET {url}");
        self.got(self.client.get(url).header(ACCEPT, accept)).await
    }

    /// Posts JSON; otherwise as `get`.
    pub(in crate::source) async fn post_json(&self, path: &str, body: &Value) -> Result<Got> {
        tracing::debug!("POST {}", self.at(path));
        let request = self.client.post(self.at(path)).header(ACCEPT, "application/json");
        self.got(request.header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    async fn got(&self, request: RequestBuilder) -> Result<Got> {
        let request = self.authorized(request)?;
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        let status = response.status();
        if status.as_u16() == 429 || status.is_server_error() {
            let (retry_after, body) = refusal(response).await;
            return Err(self.refused(status, retry_after, &body));
        }
        let body = self.whole(response).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(Got { status: status.as_u16(), text })
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

    /// Seconds by which the server's clock is ahead, by the date of an answer.
    pub(in crate::source) async fn clock_ahead(&self) -> Result<Option<i64>> {
        let response = self.client.get(self.at("ping")).send().await;
        let response = response.map_err(|error| self.transport(&error))?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        Ok(date.map(|date| date.timestamp() - chrono::Utc::now().timestamp()))
    }

    /// Asks the server what it is. Needs no rights.
    pub(in crate::source) async fn ping(&self) -> Result<Product> {
        let ask = || self.client.get(self.at("ping"));
        let mut response = ask().send().await.map_err(|error| self.transport(&error))?;
        // InfluxDB 3 may want a token even for this; a 1.x server may take none here.
        if response.status() == StatusCode::UNAUTHORIZED {
            let request = self.authorized(ask())?;
            response = request.send().await.map_err(|error| self.transport(&error))?;
        }
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let product =
            Product { version: header("x-influxdb-version"), build: header("x-influxdb-build") };
        let first = product.version.trim_start_matches('v').starts_with("1.");
        self.bearer.store(first, Ordering::Relaxed);
        let status = response.status();
        match status.is_success() || status == StatusCode::NOT_FOUND {
            true => Ok(product),
            false => {
                let (retry_after, body) = refusal(response).await;
                Err(self.refused(status, retry_after, &body))
            }
        }
    }

    /// Runs a statement about metadata. The error of the statement is an error.
    pub(in crate::source) async fn query(&self, statement: &str) -> Result<Vec<Statement>> {
        self.query_all(statement, 1).await
    }

    /// The same, about one retention policy of a database.
    pub(in crate::source) async fn query_in(
        &self,
        statement: &str,
        database: &str,
        policy: &str,
    ) -> Result<Vec<Statement>> {
        self.query_with(statement, 1, &[("db", database), ("rp", policy)]).await
    }

    /// Runs `count` statements about metadata. Chunked, since a server may cut any other answer to
    /// `max-row-limit` rows without a word. The error of any statement is an error, and so is an
    /// answer that has not the end of each: what is cut off would be left out without a word.
    pub(in crate::source) async fn query_all(
        &self,
        statements: &str,
        count: usize,
    ) -> Result<Vec<Statement>> {
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
        self.statements(&body, count)
    }

    /// Runs one statement that answers little, in the database that `place` says; also the bytes of its
    /// answer. Not chunked, so that it is one object: cut anywhere, it is no JSON. For servers that
    /// cut no answer to a number of rows.
    pub(in crate::source) async fn ask(
        &self,
        statement: &str,
        place: &[(&str, &str)],
    ) -> Result<(Statement, u64)> {
        let form = [&[("q", statement), ("epoch", "ns")], place].concat();
        let body = self.body(self.post("application/json", &form).await?).await?;
        let statement = self.statements(&body, 1)?.pop().unwrap_or_default();
        Ok((statement, body.len() as u64))
    }

    /// Sends a query for rows that are to come as JSON, so many in an object.
    pub(in crate::source) async fn rows(
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
                let text = format!("{}: MessagePack, though JSON was asked for", self.address());
                Err(Error::of(Class::Retry, text))
            }
        }
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>> {
        let response = self.accepted(response).await?;
        self.whole(response).await
    }

    /// All of a body, which is not one of rows.
    async fn whole(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.transport(&error))? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_RESOURCE {
                return Err(Error::stop(format!(
                    "{}: an answer of more than {} MiB to a question whose answer is small",
                    self.address(),
                    LARGEST_RESOURCE >> 20
                ))
                .hint("is this the address of an InfluxDB?"));
            }
        }
        Ok(body)
    }

    fn statements(&self, body: &[u8], count: usize) -> Result<Vec<Statement>> {
        let mut statements = Vec::<Statement>::new();
        statements.resize_with(count, Statement::default);
        let mut ended = vec![false; count];
        for answer in serde_json::Deserializer::from_slice(body).into_iter::<Answer>() {
            let answer = answer.map_err(|error| {
                Error::of(
                    Class::Retry,
                    format!("{}: an answer that is not JSON: {error}", self.address()),
                )
            })?;
            if let Some(error) = answer.error {
                return Err(said(&self.address(), &error));
            }
            for part in answer.results {
                if let Some(error) = part.error {
                    return Err(said(&self.address(), &error));
                }
                let (Some(statement), Some(ended)) =
                    (statements.get_mut(part.statement_id), ended.get_mut(part.statement_id))
                else {
                    let text = format!("{}: an answer to another question", self.address());
                    return Err(Error::of(Class::Retry, text));
                };
                statement.series.extend(part.series);
                *ended = !part.partial;
            }
        }
        match ended.iter().all(|ended| *ended) {
            true => Ok(statements),
            false => {
                Err(Error::of(Class::Retry, format!("{}: the answer was cut", self.address())))
            }
        }
    }

    /// Sends a query for rows, and says how its answer is written.
    pub(in crate::source) async fn open(&self, statement: &str) -> Result<(Format, Response)> {
        // Servers compare the whole header: a list of types would mean none of them.
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
                format!("{}: an answer of the unknown type `{kind}`", self.address()),
            )
            .hint("is there a proxy or a login page before the server?")),
        }
    }

    /// Moves a body from the socket to a thread that decodes it, in pieces large enough that waking
    /// that thread costs little: the server flushes every few kilobytes. `came` is told the bytes.
    pub(in crate::source) async fn pump(
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
                    piece.extend_from_slice(&bytes);
                }
                Ok(None) => {
                    let _ = body.send(Ok(piece.freeze())).await; // the decoder may have failed
                    return;
                }
                Err(error) => {
                    let _ = body.send(Err(self.transport(&error))).await;
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
        self.authorized(request)?.send().await.map_err(|error| self.transport(&error))
    }

    async fn accepted(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (retry_after, body) = refusal(response).await;
        Err(self.refused(status, retry_after, &body))
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    fn transport(&self, error: &reqwest::Error) -> Error {
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
            (_, true) => (Class::RetryThenSplit, "no answer in time".to_owned()),
            _ => (Class::RetryThenSplit, format!("the connection broke: {cause}")),
        };
        Error::of(class, format!("{}: {what}", self.address()))
    }

    /// What a status other than 200 means.
    fn refused(&self, status: StatusCode, retry_after: Option<Duration>, body: &str) -> Error {
        let said = serde_json::from_str::<Value>(body)
            .ok()
            .and_then(|json| {
                let text = json.get("error").or_else(|| json.get("message"))?;
                text.as_str().map(str::to_owned)
            })
            .unwrap_or_else(|| body.trim().to_owned());
        let message = match said.is_empty() {
            true => format!("{}: the server says {status}", self.address()),
            false => format!("{}: the server says {status}: {}", self.address(), printable(&said)),
        };
        match status.as_u16() {
            401 | 403 => Error::stop(message).hint(match self.credentials {
                Credentials::None => {
                    "set INFLUX_TOKEN, or INFLUX_USERNAME and INFLUX_PASSWORD, or name them in the configuration"
                }
                _ => "check the credentials and what they are allowed to read",
            }),
            408 | 504 => Error::of(Class::Split, message),
            429 => Error::of(Class::Wait(retry_after), message),
            503 if retry_after.is_some() => Error::of(Class::Wait(retry_after), message),
            // InfluxDB 3 says with it what is too much, and what the user did wrong.
            500 => match class_of_text(&said) {
                Class::Split => Error::of(Class::Split, message),
                Class::Stop if said.contains("query error") => Error::stop(message),
                _ => Error::of(Class::Retry, message),
            },
            501..=599 => Error::of(Class::Retry, message),
            _ => match class_of_text(&said) {
                Class::RetryThenSplit => Error::stop(message),
                class => with_class(class, message),
            },
        }
    }
}

/// An error inside of a 200 answer of the server at `address`.
pub(in crate::source) fn said(address: &str, text: &str) -> Error {
    let message = format!("{address}: the server says: {}", printable(text));
    with_class(class_of_text(text), message)
}

fn with_class(class: Class, message: String) -> Error {
    match class {
        Class::Stop => Error::stop(message),
        Class::Fail => Error::fail(message),
        class => Error::of(class, message),
    }
}

/// A query whose answer comes as many objects.
fn chunked<'a>(statements: &'a str, chunk_rows: &'a str) -> [(&'a str, &'a str); 4] {
    [("q", statements), ("epoch", "ns"), ("chunked", "true"), ("chunk_size", chunk_rows)]
}

fn token_header(scheme: &str, token: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.expose()))
        .map_err(|_| Error::usage("the token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn refusal(mut response: Response) -> (Option<Duration>, String) {
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(parse_retry_after);
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() > 4096 {
            break; // an HTML page of a proxy, say
        }
    }
    body.truncate(4096);
    (retry_after, String::from_utf8_lossy(&body).into_owned())
}

// Seconds or an HTTP date (RFC 9110, 10.2.3).
pub(in crate::source) fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let then = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    let wait = then.signed_duration_since(chrono::Utc::now());
    Some(wait.to_std().unwrap_or_default().min(LONGEST_WAIT))
}

fn class_of_text(text: &str) -> Class {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["limited_query", "exceeds limit of 25m"])
        || has(&["has exceeded"]) && has(&["plan limit"])
    {
        Class::Wait(None)
    } else if has(&["timeout", "timed out", "max-select-", "too many points", "memory"])
        || has(&[
            "would process more than",
            "file limit",
            "allocation failed",
            "failed to allocate",
        ])
    {
        Class::Split
    } else if has(&["max-concurrent-queries"]) {
        Class::Retry
    } else if has(&["error parsing query"]) {
        Class::Fail // of this statement; others may be understood
    } else if has(&[
        "database not found",
        "retention policy not found",
        "authoriz",
        "authentic",
        "permission",
        "privilege",
        "not implemented",
        "not supported",
    ]) {
        Class::Stop
    } else {
        Class::RetryThenSplit
    }
}

// Text of a server, made safe for a terminal and for one line.
pub(in crate::source) fn printable(text: &str) -> String {
    let safe: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match safe.char_indices().nth(500) {
        Some((at, _)) => format!("{}…", &safe[..at]),
        None => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_decides_what_to_do() {
        for (text, class) in [
            ("query timeout reached", Class::Split),
            ("query-timeout limit exceeded", Class::Split),
            ("max-select-point limit exceeed: (1/0)", Class::Split),
            ("max-concurrent-queries limit exceeded(1, 1)", Class::Retry),
            ("database not found: x", Class::Stop),
            ("error authorizing query: u not authorized to execute statement", Class::Stop),
            ("engine is closed", Class::RetryThenSplit),
            ("error parsing query: found nul, expected identifier", Class::Fail),
            ("query interrupted", Class::RetryThenSplit),
            ("Query would exceed file limit of 432 parquet files", Class::Split),
            ("Query would process more than 500 partitions", Class::Split),
            ("org 0a has exceeded limited_query plan limit", Class::Wait(None)),
        ] {
            assert_eq!(class_of_text(text), class, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
