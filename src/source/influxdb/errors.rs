//! PURE: what an error of an InfluxDB means for a run: the one table of the servers' error texts, and the meaning of an
//! HTTP status. The text takes precedence over the status and the gRPC code, which do not show that a query is too much.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Class, Error};
use crate::text::printable;

/// The longest wait that a server is believed to ask for. After it, the server is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The words before the text of an error that comes from the server itself.
const SERVER_SAYS: &str = "the server says";

/// The protocol over which a text arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `/query` and the other resources of HTTP.
    Http,
    /// Flight.
    Grpc,
}

/// The protocols in which words have their meaning. In the texts of the other, the same words may mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Any,
    Only(Protocol),
}

const ANY: In = In::Any;
const HTTP: In = In::Only(Protocol::Http);
const GRPC: In = In::Only(Protocol::Grpc);
const WAIT: Class = Class::Wait(None);

/// The texts, in lower case. An error must contain all words of a line, and the first line that fits decides.
const TEXTS: [(In, &[&str], Class); 34] = [
    // Cloud: `org ID has exceeded limited_query plan limit`, and `limited_query_time` likewise (its documentation, "limits").
    (ANY, &["limited_query"], WAIT),
    (ANY, &["has exceeded", "plan limit"], WAIT),
    // Older Cloud: `total duration of queries in the last 30s exceeds limit of 25m0s`.
    (ANY, &["exceeds limit of 25m"], WAIT),
    // tonic, status.rs: `grpc-status header missing, mapped from HTTP status code 429`.
    (GRPC, &["status code 429"], WAIT),
    // tonic, decode.rs: `… while receiving response with status: 429 Too Many Requests`.
    (GRPC, &["status: 429"], WAIT),
    (GRPC, &["too many requests"], WAIT),
    // Serverless, iox_query limits.rs: `Query would process more than N partitions` or `… parquet files`.
    (ANY, &["would process more than"], Class::Split),
    // Core, `--query-file-limit`: `Query would exceed file limit of 432 parquet files`, later `exceeding the file limit`.
    (ANY, &["file limit"], Class::Split),
    // InfluxDB 3, iox_query memory_pool.rs: `Additional allocation failed …`, `Failed to allocate additional …`.
    (ANY, &["allocation failed"], Class::Split),
    (ANY, &["failed to allocate"], Class::Split),
    // InfluxDB 3, service_grpc_flight lib.rs, with ResourceExhausted.
    (GRPC, &["grpc-timeout elapsed"], Class::Split),
    // Serverless's 90 s for a query, with DeadlineExceeded or Cancelled; and tonic's own `Timeout expired`.
    (GRPC, &["query time limit"], Class::Split),
    (GRPC, &["timeout expired"], Class::Split),
    // 1.x: `query timeout reached`, `query-timeout limit exceeded`. Proxies say `timed out`.
    (HTTP, &["timeout"], Class::Split),
    (HTTP, &["timed out"], Class::Split),
    // 1.x, by its settings `max-select-point`, `-series`, `-buckets`: `max-select-point limit exceed: (1/0)`.
    (HTTP, &["max-select-"], Class::Split),
    // 1.x, for a query with too many time buckets.
    (HTTP, &["too many points"], Class::Split),
    // 2.x, by its setting `query-memory-bytes`.
    (HTTP, &["memory"], Class::Split),
    // h2 and hyper: `Received RST_STREAM with error code 2`, `h2 protocol error: …`; tonic without trailers.
    (GRPC, &["rst_stream"], Class::RetryThenSplit),
    (GRPC, &["h2 protocol error"], Class::RetryThenSplit),
    (GRPC, &["missing grpc-status"], Class::RetryThenSplit),
    (GRPC, &["transport error"], Class::RetryThenSplit),
    (GRPC, &["connection"], Class::RetryThenSplit),
    // 1.x, by its setting: `max-concurrent-queries limit exceeded(1, 1)`.
    (HTTP, &["max-concurrent-queries"], Class::Retry),
    // 1.x and 2.x: `error parsing query: found nul, expected identifier`. Other statements may be understood.
    (HTTP, &["error parsing query"], Class::Fail),
    // All: `database not found: x`; Core over Flight with Internal. `retention policy not found: x` is of 1.x and 2.x.
    (ANY, &["database not found"], Class::Stop),
    (GRPC, &["not found: database"], Class::Stop),
    (HTTP, &["retention policy not found"], Class::Stop),
    // 1.x: `error authorizing query: u not authorized to execute statement`; 2.x: `unauthorized access`.
    (HTTP, &["authoriz"], Class::Stop),
    (HTTP, &["authentic"], Class::Stop),
    // Other words for missing rights, which no known server uses. Asking again would not help.
    (HTTP, &["permission"], Class::Stop),
    (HTTP, &["privilege"], Class::Stop),
    // 2.x and InfluxDB 3, whose InfluxQL does not have every statement: `DDL not supported: CreateMemoryTable`.
    (HTTP, &["not implemented"], Class::Stop),
    (HTTP, &["not supported"], Class::Stop),
];

/// The class of a server's error by its text; `None` if the text is not in the table.
pub(crate) fn class_of_text(protocol: Protocol, text: &str) -> Option<Class> {
    let text = text.to_lowercase();
    let mut lines =
        TEXTS.iter().filter(|(place, ..)| [In::Any, In::Only(protocol)].contains(place));
    let fits = |words: &[&str]| words.iter().all(|word| text.contains(word));
    lines.find(|(_, words, _)| fits(words)).map(|(.., class)| *class)
}

/// An HTTP response that refuses a request.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// The beginning of the body.
    pub(crate) text: String,
}

impl Refusal {
    /// Turns it into an error of the server at this address.
    pub(crate) fn into_error(self, address: &str, is_anonymous: bool) -> Error {
        let Self { status, retry_after, text } = self;
        let text = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|json| {
                let text = json.get("error").or_else(|| json.get("message"))?;
                text.as_str().map(str::to_owned)
            })
            .unwrap_or_else(|| text.trim().to_owned());
        let status_line = http::StatusCode::from_u16(status).map(|status| status.to_string());
        let status_line = status_line.unwrap_or_else(|_| status.to_string());
        let message = if text.is_empty() {
            format!("{address}: {SERVER_SAYS} {status_line}")
        } else {
            format!("{address}: {SERVER_SAYS} {status_line}: {}", printable(&text))
        };
        let class = class_of_text(Protocol::Http, &text);
        match status {
            401 | 403 if is_anonymous => Error::stop(message).hint(
                "set INFLUX_TOKEN, or INFLUX_USERNAME and INFLUX_PASSWORD, or name them in the configuration",
            ),
            401 | 403 => {
                Error::stop(message).hint("check the credentials and what they are allowed to read")
            }
            408 | 504 => Error::of(Class::Split, message),
            429 => Error::of(Class::Wait(retry_after), message),
            503 if retry_after.is_some() => Error::of(Class::Wait(retry_after), message),
            // InfluxDB 3 uses 500 both for a query that is too much and for a wrong one.
            500 => match class {
                Some(Class::Split) => Error::of(Class::Split, message),
                Some(Class::Stop) if text.contains("query error") => Error::stop(message),
                _ => Error::of(Class::Retry, message),
            },
            501..=599 => Error::of(Class::Retry, message),
            _ => with_class(class.unwrap_or(Class::Stop), message),
        }
    }
}

/// The error for an error text within an answer of the server at this address.
pub(crate) fn server_error(address: &str, text: &str) -> Error {
    let message = format!("{address}: {SERVER_SAYS}: {}", printable(text));
    with_class(class_of_text(Protocol::Http, text).unwrap_or(Class::RetryThenSplit), message)
}

/// The error for an answer that is larger than any to such a question.
pub(crate) fn unexpectedly_large(address: &str, most_bytes: u64) -> Error {
    let most = most_bytes >> 20;
    Error::stop(format!(
        "{address}: the server sent more than {most} MiB where the answer must be small"
    ))
    .hint("is this the address of an InfluxDB?")
}

/// Whether an error comes from the server itself, as opposed to something on the way to it.
pub(crate) fn is_of_server(error: &Error) -> bool {
    error.to_string().contains(SERVER_SAYS)
}

fn with_class(class: Class, message: String) -> Error {
    match class {
        Class::Stop => Error::stop(message),
        Class::Fail => Error::fail(message),
        class => Error::of(class, message),
    }
}

/// Reads a `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3).
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let then = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    let wait = then.signed_duration_since(chrono::Utc::now());
    Some(wait.to_std().unwrap_or_default().min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_decides_its_class() {
        let (http, grpc) = (Protocol::Http, Protocol::Grpc);
        for (protocol, text, class) in [
            (http, "query timeout reached", Some(Class::Split)),
            (http, "query-timeout limit exceeded", Some(Class::Split)),
            (http, "max-select-point limit exceed: (1/0)", Some(Class::Split)),
            (http, "max-concurrent-queries limit exceeded(1, 1)", Some(Class::Retry)),
            (http, "database not found: x", Some(Class::Stop)),
            (
                http,
                "error authorizing query: u not authorized to execute statement",
                Some(Class::Stop),
            ),
            (http, "engine is closed", None),
            (http, "error parsing query: found nul, expected identifier", Some(Class::Fail)),
            (http, "query interrupted", None),
            (http, "Query would exceed file limit of 432 parquet files", Some(Class::Split)),
            (http, "Query would process more than 500 partitions", Some(Class::Split)),
            (http, "org 0a has exceeded limited_query plan limit", Some(WAIT)),
            (grpc, "org 0a has exceeded limited_query_time plan limit", Some(WAIT)),
            (grpc, "Query would process more than 500 partitions", Some(Class::Split)),
            (grpc, "connection reset", Some(Class::RetryThenSplit)),
            (http, "connection reset", None),
            (grpc, "upstream timeout", None),
        ] {
            assert_eq!(class_of_text(protocol, text), class, "{protocol:?} {text}");
        }
    }

    #[test]
    fn no_line_of_the_table_is_shadowed_by_an_earlier_one() {
        for (at, (place, words, _)) in TEXTS.iter().enumerate() {
            let text = words.join(" ");
            assert_eq!(text, text.to_lowercase());
            let hides = |(other, words, _): &(In, &[&str], Class)| {
                (*other == In::Any || other == place)
                    && words.iter().all(|word| text.contains(word))
            };
            assert!(!TEXTS[..at].iter().any(hides), "{text}");
        }
    }

    #[test]
    fn the_status_of_a_refusal_decides_where_its_text_does_not() {
        for (status, text, class) in [
            (401, "", Class::Stop),
            (400, "unknown", Class::Stop),
            (404, "database not found: x", Class::Stop),
            (408, "", Class::Split),
            (429, "", WAIT),
            (500, "query error: file limit", Class::Split),
            (500, "query error: database not found: x", Class::Stop),
            (500, "database not found: x", Class::Retry),
            (502, "", Class::Retry),
            (503, "", Class::Retry),
        ] {
            let refusal = Refusal { status, retry_after: None, text: text.to_owned() };
            let error = refusal.into_error("http://h", true);
            assert_eq!(error.class(), class, "{status} {text}");
            assert!(is_of_server(&error));
        }
        let refusal =
            Refusal { status: 400, retry_after: None, text: r#"{"message":"m"}"#.to_owned() };
        let error = refusal.into_error("http://h", false);
        assert_eq!(error.to_string(), "http://h: the server says 400 Bad Request: m");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
