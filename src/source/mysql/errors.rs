//! PURE: the server's errors and what a run may do about each of them.

use std::fmt;
use std::io;

use crate::error::{Class, Error};
use crate::source::relational::broken::broken;
use crate::text::escaped;

/// How a command or a read failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The server refused it; the connection stays usable.
    Server(ServerError),
    /// The connection can no longer be used.
    Broken(Error),
    /// moveout gave the read up, or its rows are no longer wanted; the session stays usable.
    Stopped(Error),
}

/// An error of the server.
#[derive(Debug, Clone)]
pub(crate) struct ServerError {
    pub(crate) code: u16,
    pub(crate) state: String,
    pub(crate) message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", escaped(self.message.trim_end()), self.code)
    }
}

impl CommandError {
    /// The number of the server's error.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Server(error) => Some(error.code),
            Self::Broken(_) | Self::Stopped(_) => None,
        }
    }

    /// An answer that violates the protocol.
    pub(crate) fn nonsense(what: &str) -> Self {
        Self::Broken(Error::of(
            Class::Retry,
            format!("the server's answer cannot be understood: {what}"),
        ))
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Broken(broken(error))
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<CommandError> for Error {
    fn from(fault: CommandError) -> Self {
        match fault {
            CommandError::Server(error) => error.into(),
            CommandError::Broken(error) | CommandError::Stopped(error) => error,
        }
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let ServerError { code, ref state, .. } = error;
        let of = |class| Self::of(class, &error);
        match code {
            // No such user or password, no such database, host not allowed, password expired.
            1044 | 1045 | 1049 | 1130 | 1698 | 1820 | 1862 => Self::stop(&error),
            // A locked account (MySQL, MariaDB).
            3118 | 4151 => Self::stop(&error)
                .hint("ALTER USER … ACCOUNT UNLOCK on the server unlocks it, or take another user"),
            3032 => Self::stop(&error).hint(
                "`offline_mode` of the server is on: switch it off, or take a user with CONNECTION_ADMIN",
            ),
            // What the server runs for each new connection has failed.
            1184 => Self::stop(&error).hint(
                "`init_connect` of the server may be broken: mend it, or take a user with CONNECTION_ADMIN \
                 (SUPER), for whom it is not run",
            ),
            // The account's authentication plugin is no longer there.
            1524 => Self::stop(&error).hint("ALTER USER … IDENTIFIED WITH another way, or take another user"),
            // TLS is required; the host is blocked after too many errors.
            3159 => Self::stop(&error).hint("use TLS: sslmode=require"),
            1129 => Self::stop(&error).hint("FLUSH HOSTS on the server unblocks it"),
            // There are too many connections, of all users or of this one.
            1040 | 1203 | 1226 => {
                of(Class::Retry).hint("allow more connections, or lower `concurrency`")
            }
            // The right to a table, a column or a command is missing.
            1142 | 1143 | 1227 => Self::fail(&error).hint("grant the user SELECT on it"),
            1146 => Self::fail(&error).hint("it was dropped or renamed while the run was at work"),
            // No such column; the definition has changed since the snapshot.
            1054 | 1412 => of(Class::SchemaChanged),
            1194 | 1195 => Self::fail(&error).hint("REPAIR TABLE may help"),
            // A packet, or a value, beyond `max_allowed_packet`.
            1153 | 1162 | 1301 => Self::fail(&error).hint("raise the server's max_allowed_packet"),
            // Waiting for a lock, a deadlock, out of memory, statement time-outs (MySQL, MariaDB).
            1037 | 1038 | 1041 | 1205 | 1213 | 1969 | 3024 => of(Class::RetryThenSplit),
            // What is wrong in the statement or in the data will be wrong the next time.
            _ if state.starts_with("28") => Self::stop(&error),
            _ if state.starts_with("42") || state.starts_with("22") => Self::fail(&error),
            _ => of(Class::Retry),
        }
    }
}
