//! The charset of a column's bytes. They arrive as they are stored and are decoded here where that is exact, so that no
//! conversion by the server loses a byte. The wire gives collations as numbers whose meaning only the server knows.

use std::collections::HashMap;

use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;

/// How the bytes of a charset are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    /// The bytes are declared as UTF-8, as its subset ASCII, or as binary.
    Utf8,
    /// Code page 1252, in which the five unassigned bytes are the control characters of the same numbers.
    Latin1,
    /// The server must decode them.
    Other,
}

/// The charset of each collation's number.
#[derive(Debug, Clone, Default)]
pub(super) struct Charsets(HashMap<u16, String>);

impl Charsets {
    pub(super) fn ask(client: &mut Client) -> Result<Self, CommandError> {
        // Since 10.10, MariaDB has the numbers of some collations only in this view.
        let all = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY";
        let rows = match client.query(all) {
            Err(CommandError::Server(_)) => {
                client.query("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS")?
            }
            rows => rows?,
        };
        let charset = |row: super::client::TextRow| {
            let [id, name] = <[_; 2]>::try_from(row).ok()?;
            Some((id?.parse().ok()?, name?))
        };
        Ok(Self(rows.into_iter().filter_map(charset).collect()))
    }

    /// The name of a collation's charset.
    pub(super) fn name(&self, collation: u16) -> Option<&str> {
        self.0.get(&collation).map(String::as_str)
    }

    pub(super) fn of(&self, collation: u16) -> Charset {
        match self.name(collation) {
            Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "binary") => Charset::Utf8,
            Some("latin1") => Charset::Latin1,
            _ => Charset::Other,
        }
    }
}

/// Appends text in MySQL's `latin1` as UTF-8.
pub(super) fn push_latin1(to: &mut Vec<u8>, from: &[u8]) {
    /// Characters 0x80 to 0x9f.
    const MIDDLE: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    if from.is_ascii() {
        return to.extend_from_slice(from);
    }
    for byte in from {
        let char = match byte {
            0x80..=0x9f => MIDDLE[usize::from(byte - 0x80)],
            byte => char::from(*byte),
        };
        to.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latin1_is_code_page_1252() {
        let mut text = Vec::new();
        push_latin1(&mut text, b"a\xe9\x80\x81\xff");
        assert_eq!(String::from_utf8(text).unwrap(), "aé€\u{81}ÿ");
    }
}
