//! PURE: what all kinds of artifacts share.

use crate::error::{Class, Error};

/// SQL for psql, and what it should have and has not.
pub(super) struct Script {
    pub(super) sql: Vec<u8>,
    pub(super) missing: Vec<String>,
}

/// Nothing else will work either.
pub(super) fn is_final(error: &Error) -> bool {
    error.class() == Class::Stop
}

/// A text that others wrote, for a comment or a status: a line feed in it would end a comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
