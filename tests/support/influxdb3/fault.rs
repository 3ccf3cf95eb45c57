//! What can be done to a request, and the texts of real servers.

use std::time::Duration;

use tonic::Code;

use super::{ORG, sql};

/// What to do to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Flight: this status instead of an answer; the query is not even planned.
    Status(Code, String),
    /// Flight: after so many batches with rows, at the latest after all of them, this status.
    StatusAfter { batches: usize, code: Code, text: String },
    /// Answers with this, as something between client and server does, also to a gRPC call.
    Http { status: u16, headers: Vec<(String, String)>, body: String },
    /// Breaks before any answer.
    BreakAtOnce(Break),
    /// Flight: breaks after so many batches with rows, at the latest after all of them.
    Break { batches: usize, how: Break },
    /// Nothing comes for so long after so many batches with rows, not even a keep-alive.
    Stall { batches: usize, pause: Duration },
    /// Flight: only the schema and keep-alives come for so long.
    Slow(Duration),
    /// It takes so long until anything comes.
    SlowPlan(Duration),
    /// Flight: this line protocol is written to the query's database just before it is planned, as
    /// by somebody who still writes.
    Write(String),
}

/// How an answer breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The body ends as if it were all, without `grpc-status`.
    NoTrailers,
    /// `RST_STREAM` with this code of HTTP/2: 0 is NO_ERROR, 2 INTERNAL_ERROR, 8 CANCEL.
    Rst(u32),
    /// The connection is closed (FIN).
    Close,
    /// The connection is reset (RST).
    Reset,
}

/// The texts of real servers.
impl Fault {
    pub(crate) fn partitions(limit: usize) -> Self {
        Self::exhausted(&sql::too_many(limit, "partitions"))
    }

    pub(crate) fn parquet_files(limit: usize) -> Self {
        Self::exhausted(&sql::too_many(limit, "parquet files"))
    }

    /// The memory pool of the server is full.
    pub(crate) fn memory() -> Self {
        Self::exhausted(
            "Error while execution Flight SQL stream: Resources exhausted: Additional allocation \
             failed for ExternalSorter[0] with top memory consumers (across reservations)",
        )
    }

    /// The deadline that the client itself has given has passed.
    pub(crate) fn grpc_timeout() -> Self {
        Self::exhausted("grpc-timeout elapsed")
    }

    /// The quota, whatever was really used.
    pub(crate) fn quota() -> Self {
        Self::exhausted(&quota_text())
    }

    fn exhausted(text: &str) -> Self {
        Self::Status(Code::ResourceExhausted, text.to_owned())
    }

    /// The server's own limit of 90 seconds.
    pub(crate) fn deadline() -> Self {
        Self::Status(Code::DeadlineExceeded, "query time limit exceeded".to_owned())
    }

    pub(crate) fn cancelled() -> Self {
        Self::Status(Code::Cancelled, "operation was canceled".to_owned())
    }

    pub(crate) fn unavailable() -> Self {
        Self::Status(Code::Unavailable, "upstream connect error".to_owned())
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::Status(Code::Unauthenticated, "Unauthenticated".to_owned())
    }

    /// A token that is good, but not for this bucket.
    pub(crate) fn unauthorized_bucket() -> Self {
        Self::Status(Code::Unauthenticated, unauthorized("0b0c0000000000ff"))
    }

    pub(crate) fn permission_denied() -> Self {
        Self::Status(Code::PermissionDenied, "Permission denied".to_owned())
    }

    /// What the server maps errors of a query to that are not the user's fault, too.
    pub(crate) fn execution() -> Self {
        let text = "Error while execution Flight SQL stream: Object Store error: connection reset";
        Self::Status(Code::InvalidArgument, text.to_owned())
    }

    /// An error of the edge with a page of HTML.
    pub(crate) fn edge(status: u16) -> Self {
        let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
        let body = format!("<html><head><title>{status}</title></head></html>");
        Self::Http { status, headers, body }
    }

    /// An error without a body.
    pub(crate) fn bare(status: u16) -> Self {
        Self::Http { status, headers: Vec::new(), body: String::new() }
    }

    /// An error of the HTTP interface.
    pub(crate) fn json(status: u16, code: &str, message: &str) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = serde_json::json!({ "code": code, "message": message }).to_string();
        Self::Http { status, headers, body }
    }

    /// 429, with or without `Retry-After`.
    pub(crate) fn too_many_requests(retry_after: Option<u32>) -> Self {
        let mut fault = Self::json(429, "too many requests", &quota_text());
        if let (Self::Http { headers, .. }, Some(seconds)) = (&mut fault, retry_after) {
            headers.push(("retry-after".to_owned(), seconds.to_string()));
        }
        fault
    }
}

pub(super) fn quota_text() -> String {
    format!("org {ORG} has exceeded limited_query plan limit")
}

pub(super) fn unauthorized(bucket: &str) -> String {
    format!("read:orgs/{ORG}/buckets/{bucket} is unauthorized")
}
