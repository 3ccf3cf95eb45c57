//! PURE: makes foreign text safe for a terminal, and prints counts with their nouns.

use std::fmt::{self, Write};

use indicatif::HumanCount;

/// `1 file`, `2 files`, `1,000 files`.
pub fn several(count: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// Text with its control characters escaped, since they could move the cursor or hide the text before them.
pub(crate) fn escaped(text: &str) -> impl fmt::Display + '_ {
    Escaped(text)
}

/// The text of a server for a message: in one line, without control characters, and not too long.
pub(crate) fn printable(text: &str) -> String {
    let safe: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match safe.char_indices().nth(500) {
        Some((at, _)) => format!("{}…", &safe[..at]),
        None => safe,
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_harmless(c) { f.write_char(c) } else { write!(f, "{}", c.escape_default()) }
        })
    }
}

/// Characters that change the direction of writing or are invisible do as much harm as control characters.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped() {
        assert_eq!(escaped("a\x1b[2J\n\u{202e}ü").to_string(), "a\\u{1b}[2J\\n\\u{202e}ü");
    }
}
