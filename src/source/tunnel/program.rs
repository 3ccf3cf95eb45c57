//! PURE: interprets the output of a tunnel's program.

use regex::Regex;

use crate::error::Error;
use crate::source::child::Line;

/// Interprets the output of a tunnel's program, line by line, on its own thread.
pub trait Program: Send + Sync {
    /// Whether it says when it is ready. Otherwise it is ready when it listens on its port.
    fn says_when_ready(&self) -> bool;

    /// Whether this line of its output says that it is ready. An implementation can keep more of the output.
    fn is_ready(&self, line: &Line) -> bool;

    /// The line as it may be shown and logged: without secrets, and escaped. `None` if it must not be shown.
    fn shown(&self, line: &Line) -> Option<String>;

    /// An error that quotes what the program said last, with what to do about it.
    fn explained(&self, error: Error) -> Error;
}

/// Any program.
#[derive(Debug)]
pub struct Plain {
    /// Matches the line which says that it is ready.
    pub ready: Option<Regex>,
}

impl Program for Plain {
    fn says_when_ready(&self) -> bool {
        self.ready.is_some()
    }

    fn is_ready(&self, line: &Line) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.is_match(&line.text))
    }

    fn shown(&self, line: &Line) -> Option<String> {
        Some(without_credentials(&line.to_string()))
    }

    fn explained(&self, error: Error) -> Error {
        error.hint(
            "run the command by hand under `setsid -w`, which leaves it no terminal to ask for a password; `ready` must \
             match a line of its output, and `ready_timeout` limits how long it may take",
        )
    }
}

/// Masks the users and passwords in the URLs of a text.
fn without_credentials(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown += before;
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(host) => {
                shown += "***";
                &after[host..]
            }
            None => after,
        };
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::child::Stream;

    #[test]
    fn no_line_shows_a_password() {
        for (text, shown) in [
            ("plain", "plain"),
            ("at postgres://u:p@ss/w@h:1/db now", "at postgres://***@h:1/db now"),
            ("http://h/ and http://u:p@h http://@", "http://h/ and http://***@h http://***@"),
            ("a@b://", "a@b://"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        let line = Line { from: Stream::Stdout, text: "\x1b[1mready\r".to_owned() };
        let plain = Plain { ready: Regex::new("ready\\s*$").ok() };
        assert!(plain.says_when_ready() && plain.is_ready(&line));
        assert_eq!(plain.shown(&line).as_deref(), Some("\\u{1b}[1mready"));
    }
}
