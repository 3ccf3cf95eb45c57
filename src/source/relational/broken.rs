//! PURE: what a run may do about a broken connection.

use std::io;

use crate::error::{Class, Error};
use crate::source::tcp::refuses_certificate;

/// The error for a broken connection. If connections break repeatedly, the answer may be too large for something between
/// here and the server, so the next attempts ask for less at once.
pub(in crate::source) fn broken(error: io::Error) -> Error {
    if refuses_certificate(&error) {
        let what = format!("the server does not accept the client's certificate: {error}");
        return Error::stop(what).hint("check sslcert and sslkey").caused_by(error);
    }
    let what = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "the server did not answer in time".to_owned()
        }
        io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        _ => format!("the connection broke: {error}"),
    };
    Error::of(Class::RetryThenSplit, what).caused_by(error)
}

/// Whether an attempt with another connection may succeed.
pub(in crate::source) fn may_be_repeated(error: &Error) -> bool {
    matches!(error.class(), Class::Retry | Class::RetryThenSplit)
}
