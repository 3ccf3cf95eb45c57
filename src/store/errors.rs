//! The class of each error of a disk or a bucket, and what the user can do about it.

use std::io::ErrorKind;

use object_store::client::HttpError;

use crate::error::Error;
use crate::store::s3::errors as s3;

// A missing bucket is an error, while a missing object is an answer.
pub(super) fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !s3::no_bucket(&error.to_string())
}

pub(super) fn list_error(error: object_store::Error) -> Error {
    match error {
        // moveout writes no such key, so somebody else put the object there.
        object_store::Error::InvalidPath { source } => {
            Error::different(format!("listing the archive: {source}"))
                .hint("this file does not belong there")
        }
        error => store_error(error, "listing the archive"),
    }
}

/// The error for a disk that fails, with what to do if it is full, read-only or not accessible.
pub fn io_error(error: &std::io::Error, doing: &str) -> Error {
    let message = format!("{doing}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::incomplete(message)
                .hint("make room, then run the same command again; what was committed stays")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::stop(message).hint("moveout needs the right to write there")
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

// A broken connection is also caused by an error of the operating system, but not by one of a disk.
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
