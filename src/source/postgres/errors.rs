//! PURE: PostgreSQL's errors and what a run may do about each of them.

use std::io;

use crate::error::{Class, Error};
use crate::source::relational;
use crate::text::printable;

/// A lock was not granted in time.
pub(super) const LOCKED: &str = "55P03";
/// A text has a character that the target encoding lacks.
pub(super) const UNTRANSLATABLE: &str = "22P05";

/// An error of the server.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    severity: String,
    pub(super) code: String,
    message: String,
    detail: String,
    /// Where in the data of a COPY the error is.
    place: String,
}

impl Refusal {
    /// Reads the body of an `ErrorResponse`.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut refusal = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'V' => refusal.severity = text,
                b'C' => refusal.code = text,
                b'M' => refusal.message = text,
                b'D' => refusal.detail = text,
                b'W' if text.starts_with("COPY ") => refusal.place = text,
                _ => {}
            }
        }
        refusal
    }

    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    fn class(&self) -> Class {
        match self.code.as_str() {
            // A column has changed since the listing, or the table is gone.
            "42703" | "42804" | "42846" | "42P01" | "3F000" => Class::SchemaChanged,
            "57014" => Class::RetryThenSplit, // cancelled, perhaps by a time-out
            // The snapshot is gone, perhaps with its server; the next attempt takes a new one.
            "22023" | "42704" if self.message.contains("snapshot") => Class::Retry,
            "72000" | "40001" | "40P01" | "25P02" => Class::Retry,
            // The transaction was idle or at work for longer than the server allows.
            "25P03" | "25P04" => Class::Retry,
            LOCKED => Class::Retry,
            "3D000" => Class::Stop,
            // PgBouncer uses this code for everything that it refuses.
            "08P01" if self.is_final_for_a_pooler() => Class::Stop,
            code => match code.get(..2) {
                Some("28") => Class::Stop,
                Some("08" | "57") => Class::Retry,
                Some("53") => Class::Retry, // the server lacks connections, memory or disk
                _ => Class::Fail,
            },
        }
    }

    fn is_final_for_a_pooler(&self) -> bool {
        let final_texts = ["no such database", "no such user", "authentication failed"];
        final_texts.iter().any(|text| self.message.contains(text))
    }

    fn hint(&self) -> Option<&'static str> {
        match self.code.as_str() {
            LOCKED => Some(
                "somebody holds a lock on it (ALTER TABLE, VACUUM FULL, LOCK …): pg_locks shows who; run again when it is free",
            ),
            "08P01" if self.message.contains("no such database") => {
                Some("check the name of the database in the URL, and the pooler's own list")
            }
            "42501" if self.message.contains("row-level security") => Some(
                "connect as the table's owner or as a role with BYPASSRLS, or leave the table out by `exclude`",
            ),
            "42501" => Some("grant the role SELECT on it, or leave it out by `exclude`"),
            "28P01" => Some("check user and password (PGUSER, PGPASSWORD)"),
            "28000" if self.message.contains("no encryption") => {
                Some("the server wants TLS: sslmode=require")
            }
            "28000" => Some("the server's pg_hba.conf does not admit this user from this address"),
            "3D000" => Some("check the name of the database in the URL"),
            _ => None,
        }
    }

    /// Turns it into an error of moveout.
    pub(super) fn error(&self, address: &str) -> Error {
        let mut text = format!("{address}: {}", printable(&self.message));
        if !self.detail.is_empty() {
            text = format!("{text} ({})", printable(&self.detail));
        }
        if !self.place.is_empty() {
            text = format!("{text}, at {}", printable(&self.place));
        }
        let text = format!("{text} [{} {}]", printable(&self.severity), printable(&self.code));
        let error = match self.class() {
            Class::Stop => Error::stop(text),
            Class::Fail => Error::fail(text),
            class => Error::of(class, text),
        };
        match self.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The connection broke.
pub(super) fn broken(address: &str, error: io::Error) -> Error {
    relational::broken::broken(error).context(address)
}

/// The answer violates the protocol.
pub(super) fn malformed(address: &str) -> Error {
    Error::of(Class::Retry, format!("{address}: the answer violates PostgreSQL's protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str) -> Error {
        let body = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
        Refusal::parse(body.as_bytes()).error("h:1/d")
    }

    #[test]
    fn an_sqlstate_says_what_may_be_done() {
        for (code, message, class) in [
            ("25P03", "terminating connection due to idle-in-transaction timeout", Class::Retry),
            ("25P04", "terminating connection due to transaction timeout", Class::Retry),
            ("55P03", "canceling statement due to lock timeout", Class::Retry),
            ("42P01", "relation \"t\" does not exist", Class::SchemaChanged),
            ("55000", "cannot connect to invalid database \"d\"", Class::Fail),
            ("3D000", "database \"d\" does not exist", Class::Stop),
            ("08P01", "no such database: d", Class::Stop),
            ("08P01", "server conn crashed?", Class::Retry),
        ] {
            assert_eq!(error(code, message).class(), class, "{code} {message}");
        }
    }

    #[test]
    fn the_text_of_a_server_cannot_move_the_cursor() {
        let shown = error("XX\u{1b}[2J", "a\u{1b}[2Jb\r\nc").to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
