//! PURE: what a gRPC status, or the HTTP response of a proxy, means for a run. The text takes precedence over the code,
//! since codes mislead: Core's file limit is Internal, and a quota may have one of three codes.

use std::time::Duration;

use tonic::{Code, Status};

use crate::error::{Class, Error};
use crate::source::influxdb::errors::{Protocol, Refusal, class_of_text, parse_retry_after};
use crate::text::printable;

/// Whether a refusal shows that gRPC cannot pass at all: it concerns neither credentials nor a quota, and is not
/// temporary.
pub(super) fn proves_no_grpc(refusal: &Refusal) -> bool {
    match refusal.status {
        401 | 403 | 407 | 408 | 425 | 429 => false,
        501 | 505 => true,
        status => status < 500,
    }
}

/// A refusal in one line, without its body.
pub(super) fn named(refusal: &Refusal) -> String {
    format!("HTTP status {} instead of a gRPC answer", refusal.status)
}

/// The error for a status, or for the HTTP response that was not gRPC.
pub(super) fn error(address: &str, status: &Status, refusal: Option<Refusal>) -> Error {
    if let Some(refusal) = refusal {
        return refused(address, &refusal);
    }
    let retry_after = status.metadata().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(parse_retry_after);
    let text = status.message();
    let name = format!("{:?}", status.code());
    let message = if text.is_empty() {
        format!("{address}: the server says {name}")
    } else {
        format!("{address}: the server says {name}: {}", printable(text))
    };
    match (class(status.code(), text, retry_after), status.code()) {
        (Class::Stop, Code::Unauthenticated | Code::PermissionDenied) => Error::stop(message)
            .hint("check the token, and that it may read this bucket or database"),
        (Class::Stop, _) => Error::stop(message),
        (class, _) => Error::of(class, message),
    }
}

fn class(code: Code, text: &str, retry_after: Option<Duration>) -> Class {
    let by_text = class_of_text(Protocol::Grpc, text);
    match (by_text, code) {
        (Some(Class::Wait(_)), _) => return Class::Wait(retry_after),
        (Some(Class::Split), _) => return Class::Split,
        // This is an error of the transport, whatever its code.
        (Some(Class::RetryThenSplit), code)
            if !matches!(code, Code::Unauthenticated | Code::PermissionDenied) =>
        {
            return Class::RetryThenSplit;
        }
        _ => {}
    }
    match code {
        Code::Unauthenticated | Code::PermissionDenied | Code::OutOfRange | Code::NotFound => {
            Class::Stop
        }
        Code::DeadlineExceeded | Code::Cancelled => Class::Split,
        Code::ResourceExhausted if retry_after.is_some() => Class::Wait(retry_after),
        Code::ResourceExhausted => Class::Split,
        Code::Unavailable if retry_after.is_some() => Class::Wait(retry_after),
        Code::Unavailable => Class::Retry,
        // The server maps most errors of a running query to InvalidArgument, so that users see the text. Only those of
        // planning are permanent.
        Code::InvalidArgument if !text.to_lowercase().contains("while execution") => Class::Stop,
        Code::Unimplemented => Class::Stop,
        _ => by_text.unwrap_or(Class::RetryThenSplit),
    }
}

fn refused(address: &str, refusal: &Refusal) -> Error {
    let Refusal { status, retry_after, text } = refusal;
    let text = text.trim();
    let message = if text.is_empty() {
        format!("{address}: HTTP status {status} instead of a Flight answer")
    } else {
        format!("{address}: HTTP status {status}: {}", printable(text))
    };
    match status {
        401 | 403 => Error::stop(message).hint("check the token and what it may read"),
        404 | 405 | 411 | 415 | 426 | 464 | 501 | 505 => Error::stop(message).hint(
            "Flight (gRPC over HTTP/2) does not reach an InfluxDB 3 here: is there a proxy, or is it an InfluxDB \
             Cloud (TSM) or 2.x, which `influxdb2+` names?",
        ),
        408 | 504 => Error::of(Class::RetryThenSplit, message),
        429 => Error::of(Class::Wait(*retry_after), message),
        503 if retry_after.is_some() => Error::of(Class::Wait(*retry_after), message),
        _ => Error::of(Class::RetryThenSplit, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_permanent_refusal_proves_that_grpc_does_not_pass() {
        let proves =
            |status| proves_no_grpc(&Refusal { status, retry_after: None, text: String::new() });
        for status in [200, 302, 400, 404, 405, 411, 415, 426, 464, 501, 505] {
            assert!(proves(status), "{status}");
        }
        for status in [401, 403, 429, 500, 502, 503, 504] {
            assert!(!proves(status), "{status}");
        }
    }

    #[test]
    fn no_server_makes_a_run_wait_for_longer_than_an_hour() {
        let mut status = Status::new(Code::Unavailable, "upstream");
        for asked in ["18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            status.metadata_mut().insert("retry-after", asked.parse().unwrap());
            let hour = Duration::from_secs(3600);
            assert_eq!(error("h", &status, None).class(), Class::Wait(Some(hour)), "{asked}");
        }
    }

    #[test]
    fn the_text_takes_precedence_over_the_code() {
        let core = "Error while planning query: External error: Query would exceed file limit of 432 parquet \
                    files. Please specify a smaller time range";
        let quota = "org 0a has exceeded limited_query plan limit";
        let split = Class::Split;
        for (code, text, expected) in [
            (Code::Internal, core, split),
            (Code::ResourceExhausted, "Query would process more than 500 partitions", split),
            (
                Code::ResourceExhausted,
                "Resources exhausted: Additional allocation failed for X",
                split,
            ),
            (Code::ResourceExhausted, "grpc-timeout elapsed", split),
            (Code::ResourceExhausted, quota, Class::Wait(None)),
            (
                Code::Unavailable,
                "grpc-status header missing, mapped from HTTP status code 429",
                Class::Wait(None),
            ),
            (
                Code::Internal,
                "invalid compression flag: 60 while receiving response with status: 429 Too Many \
                              Requests",
                Class::Wait(None),
            ),
            (Code::DeadlineExceeded, "", split),
            (Code::Internal, "Received RST_STREAM with error code 2", Class::RetryThenSplit),
            (Code::Unknown, "h2 protocol error: stream reset", Class::RetryThenSplit),
            (Code::Unknown, "protocol error: missing grpc-status trailer", Class::RetryThenSplit),
            (Code::Unavailable, "upstream", Class::Retry),
            (Code::Unauthenticated, "Unauthenticated", Class::Stop),
            (
                Code::InvalidArgument,
                "Error while planning query: table 'public.iox.x' not found",
                Class::Stop,
            ),
            (
                Code::InvalidArgument,
                "Error while execution Flight SQL stream: boom",
                Class::RetryThenSplit,
            ),
            (
                Code::Internal,
                "Cannot retrieve database: External error: database not found: x",
                Class::Stop,
            ),
            (Code::OutOfRange, "decoded message length too large", Class::Stop),
        ] {
            assert_eq!(class(code, text, None), expected, "{code:?} {text}");
        }
    }
}
