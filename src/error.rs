//! The only error type: what happened, what a run may do about it (its class), how the program ends because of it (its
//! exit status), and a hint for the user. It knows no protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a run may do about an error. The code that knows the protocol decides it, and `export` acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Only the transport failed (a cut connection, a 503): try again with back-off.
    Retry,
    /// The answer was cut or never came: try again, and halve the window if that happens again.
    RetryThenSplit,
    /// The request was too large (a time-out, a limit): halve the window.
    Split,
    /// A quota is used up: wait for as long as the server says, without counting a failure.
    Wait(Option<Duration>),
    /// The table has columns that the listing did not show: list it again, then retry.
    SchemaChanged,
    /// This chunk can never be exported, but others can. The run goes on and ends as failed.
    Fail,
    /// Nothing will help (credentials, no such database, disk full): end the run.
    Stop,
}

/// How the process ends; the numbers are part of the command line's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Failed for good.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Incomplete: run again to continue. For `verify` also: an archive without a seal.
    Incomplete = 3,
    /// Verification found a difference.
    Different = 4,
    /// Interrupted; what was committed stays.
    Interrupted = 130,
}

/// An error with its class, exit status and hint.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    class: Class,
    exit: Exit,
    hint: Option<String>,
    #[source]
    cause: Option<Cause>,
}

/// An error of a library, which several of our errors may share.
type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The result of everything in this crate that can fail, unless another type of error is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(class: Class, exit: Exit, message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), class, exit, hint: None, cause: None }
    }

    /// Wrong flags or configuration: exit status 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Class::Stop, Exit::Usage, message)
    }

    /// Failed for good: exit status 1.
    pub fn stop(message: impl fmt::Display) -> Self {
        Self::new(Class::Stop, Exit::Failed, message)
    }

    /// The run ends, but a later one can continue: exit status 3.
    pub fn incomplete(message: impl fmt::Display) -> Self {
        Self::new(Class::Stop, Exit::Incomplete, message)
    }

    /// A difference between archive and record: exit status 4.
    pub fn different(message: impl fmt::Display) -> Self {
        Self::new(Class::Stop, Exit::Different, message)
    }

    /// This chunk fails for good, others go on: exit status 1 at the end.
    pub fn fail(message: impl fmt::Display) -> Self {
        Self::new(Class::Fail, Exit::Failed, message)
    }

    /// The user interrupted the run: exit status 130.
    pub fn interrupted() -> Self {
        Self::new(Class::Stop, Exit::Interrupted, "interrupted")
            .hint("run the same command again to continue; what was committed stays")
    }

    /// An error of the given class, which leaves the run incomplete if nothing helps.
    pub fn of(class: Class, message: impl fmt::Display) -> Self {
        Self::new(class, Exit::Incomplete, message)
    }

    /// Puts what was being done before the message: `reading cpu: connection reset`.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Adds what the user can do about it, unless there is a hint already: the first one is the nearest to the cause.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// Keeps the error of a library that led to this one, for debugging.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same error, but it is not tried again: exit status 1.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { class: Class::Stop, exit: Exit::Failed, ..self }
    }

    /// What a run may do about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// How the process ends if nothing else is done about it.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What the reader can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_cause_of_an_error_survives_context_and_hint() {
        let cause = std::io::Error::other("the disk is on fire");
        let error = Error::stop("it burns").caused_by(cause).context("writing x").hint("run");
        assert_eq!(error.to_string(), "writing x: it burns");
        let kept = error.clone().for_good();
        assert_eq!(kept.source().map(ToString::to_string).as_deref(), Some("the disk is on fire"));
    }
}
