//! PURE: what all kinds of artifacts share.

use crate::error::{Class, Error};

/// SQL for psql, and what is missing in it.
pub(super) struct Script {
    pub(super) sql: Vec<u8>,
    pub(super) missing: Vec<String>,
}

/// Whether nothing else will work either.
pub(super) fn is_final(error: &Error) -> bool {
    error.class() == Class::Stop
}

/// Text of others within a comment or an outcome: a line feed would end the comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
