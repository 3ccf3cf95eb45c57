//! PURE: what all kinds of artifacts share.

use crate::error::{Class, Error};

/// SQL for psql, and what is missing from it.
pub(super) struct Script {
    pub(super) sql: Vec<u8>,
    pub(super) missing: Vec<String>,
}

/// Whether the error means that nothing else will work either.
pub(super) fn is_final(error: &Error) -> bool {
    error.class() == Class::Stop
}

/// Foreign text within a comment or an outcome. A line feed would end the comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
