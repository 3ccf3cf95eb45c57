//! PURE: what is wrong with a line, and how its bytes are shown.

use std::borrow::Cow;

/// Why a line could not be read.
#[derive(Debug, PartialEq)]
pub(super) enum LineError {
    /// The bytes end before the line does: parse it again when there are more.
    More,
    /// The line is malformed, whatever follows.
    Bad(Cow<'static, str>),
}

/// The result of reading a part of a line.
pub(super) type Parsed<T> = std::result::Result<T, LineError>;

/// The error for a malformed line.
pub(super) fn bad<T>(reason: impl Into<Cow<'static, str>>) -> Parsed<T> {
    Err(LineError::Bad(reason.into()))
}

/// The beginning of a line for an error message, without control characters.
pub(super) fn show(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let cut = &bytes[..bytes.len().min(LONGEST)];
    let text = String::from_utf8_lossy(cut);
    let mut shown: String = text.chars().flat_map(readable).collect();
    if bytes.len() > LONGEST {
        shown.push('…');
    }
    shown
}

fn readable(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
}
