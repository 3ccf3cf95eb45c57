//! PURE: what a supervisor reports to moveout on its standard error: one line for each report, whose first byte is its kind.

use std::fmt;
use std::io::{BufRead, Read};

/// Longer lines arrive in pieces.
const LONGEST: u64 = 16 * 1024;

/// The stream that a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// In an unknown way, since its supervisor was killed. The program was ended after that.
    Lost,
}

impl Exit {
    /// Whether it ended by itself and successfully.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("its supervisor was killed"),
        }
    }
}

/// A report of a supervisor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The program runs, with this process id.
    Started(i32),
    /// The program cannot be started. Holds the number of the system's error.
    Refused(i32),
    /// The program wrote a line.
    Line(Stream, &'a [u8]),
    /// The program and everything that it started have ended.
    Ended(Exit),
}

impl<'a> Frame<'a> {
    /// The report as a line.
    pub(crate) fn line(&self) -> Vec<u8> {
        match self {
            Self::Started(pid) => format!("p{pid}\n").into_bytes(),
            Self::Refused(code) => format!("r{code}\n").into_bytes(),
            Self::Line(Stream::Stdout, text) => [b"o", *text, b"\n"].concat(),
            Self::Line(Stream::Stderr, text) => [b"e", *text, b"\n"].concat(),
            Self::Ended(Exit::Code(code)) => format!("c{code}\n").into_bytes(),
            Self::Ended(Exit::Signal(signal)) => format!("s{signal}\n").into_bytes(),
            Self::Ended(Exit::Lost) => b"l\n".to_vec(),
        }
    }

    /// Reads a line. One that is not a report is an error message of the supervisor itself, which may have panicked.
    pub(crate) fn parse(line: &'a [u8]) -> Self {
        let (kind, text) = line.split_at(line.len().min(1));
        let number = || str::from_utf8(text).ok()?.parse::<i32>().ok();
        match (kind, number()) {
            (b"p", Some(pid)) => Self::Started(pid),
            (b"r", Some(code)) => Self::Refused(code),
            (b"c", Some(code)) => Self::Ended(Exit::Code(code)),
            (b"s", Some(signal)) => Self::Ended(Exit::Signal(signal)),
            (b"l", None) if text.is_empty() => Self::Ended(Exit::Lost),
            (b"o", _) => Self::Line(Stream::Stdout, text),
            (b"e", _) => Self::Line(Stream::Stderr, text),
            _ => Self::Line(Stream::Stderr, line),
        }
    }
}

/// Reads all lines and passes each one on without its end.
pub(crate) fn each_line(mut from: impl BufRead, mut each: impl FnMut(&[u8])) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => each(line.strip_suffix(b"\n").unwrap_or(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_back() {
        for frame in [
            Frame::Started(7),
            Frame::Refused(2),
            Frame::Line(Stream::Stdout, b""),
            Frame::Line(Stream::Stderr, b"c0 \xff"),
            Frame::Ended(Exit::Code(3)),
            Frame::Ended(Exit::Signal(9)),
            Frame::Ended(Exit::Lost),
        ] {
            let line = frame.line();
            assert_eq!(Frame::parse(line.strip_suffix(b"\n").unwrap()), frame);
        }
        assert_eq!(Frame::parse(b"thread"), Frame::Line(Stream::Stderr, b"thread"));
        assert_eq!(Frame::parse(b""), Frame::Line(Stream::Stderr, b""));
    }

    #[test]
    fn a_line_without_an_end_arrives_in_pieces() {
        let text = [&vec![b'x'; 3 * LONGEST as usize][..], b"\r\nlast"].concat();
        let mut lines = Vec::new();
        each_line(&text[..], |line| lines.push(line.to_vec()));
        assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= LONGEST as usize + 1));
        assert_eq!(lines.last().unwrap(), b"last");
    }
}
