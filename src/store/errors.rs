//! What the errors of a disk or a bucket mean: their class, and what the user can do.

use std::io::ErrorKind;

use object_store::client::HttpError;

use crate::error::Error;
use crate::store::s3::errors as s3;

// A bucket that is not there is an error, an object that is not there an answer.
pub(super) fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !s3::no_bucket(&error.to_string())
}

pub(super) fn list_error(error: object_store::Error) -> Error {
    match error {
        // It is not a key of ours, so somebody else put it there.
        object_store::Error::InvalidPath { source } => {
            Error::different(format!("listing the archive: {source}"))
                .hint("this file does not belong there")
        }
        error => store_error(error, "listing the archive"),
    }
}

/// What a disk says when it is full, read-only or closed to us, each with its way out.
pub fn io_error(error: &std::io::Error, doing: &str) -> Error {
    let message = format!("{doing}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::incomplete(message)
                .hint("make room, then run the same command again; what was committed stays")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::stop(message).hint("moveout must be able to write there")
        }
        _ => Error::stop(message),
    }
}

pub(super) fn cause<E: std::error::Error + 'static>(error: &object_store::Error) -> Option<&E> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<E>() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

// A broken connection is caused by an error of the operating system, too, but not by one of a disk.
pub(super) fn io_cause(error: &object_store::Error) -> Option<&std::io::Error> {
    match cause::<HttpError>(error) {
        Some(_) => None,
        None => cause(error),
    }
}

pub(super) fn store_error(error: object_store::Error, doing: &str) -> Error {
    let told = match io_cause(&error) {
        Some(io) => io_error(io, doing),
        None => s3::explain(&error.to_string()).context(doing),
    };
    told.caused_by(error)
}
