//! PURE: splits bytes into lines, each of which is passed on without its end. Only the beginning is kept of a line that is
//! longer than any that the parsers look for.

use memchr::memchr;

/// How much of a line is kept. A statement of pg_dump that names 1,600 columns is far shorter.
const LONGEST: usize = 1 << 20;

/// The line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and passes on the lines that end in them.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (rest, next) = (&bytes[..end], &bytes[end + 1..]);
            if self.open.is_empty() {
                line(rest);
            } else {
                self.keep(rest);
                line(&self.open);
                self.open.clear();
            }
            bytes = next;
        }
        self.keep(bytes);
    }

    /// Passes on the last line if it has no end.
    pub(super) fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.open.is_empty() {
            line(&std::mem::take(&mut self.open));
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.open.len());
        self.open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Reads a name in backquotes, in which a backquote is doubled. Also returns the bytes after it.
pub(super) fn backquoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut rest = text.strip_prefix(b"`")?;
    let mut name = Vec::new();
    loop {
        let end = memchr(b'`', rest)?;
        name.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"`") {
            Some(more) => {
                name.push(b'`');
                rest = more;
            }
            None => return Some((String::from_utf8_lossy(&name).into_owned(), rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_complete_however_the_bytes_are_split() {
        let text = b"one\n\ntwo three\nlast";
        for piece in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for bytes in text.chunks(piece) {
                lines.take(bytes, |line| found.push(String::from_utf8_lossy(line).into_owned()));
            }
            lines.end(|line| found.push(String::from_utf8_lossy(line).into_owned()));
            assert_eq!(found, ["one", "", "two three", "last"], "{piece}");
        }
    }

    #[test]
    fn a_name_may_contain_backquotes() {
        assert_eq!(backquoted(b"`a``b` ("), Some(("a`b".to_owned(), &b" ("[..])));
        assert_eq!(backquoted(b"`a"), None);
        assert_eq!(backquoted(b"a`"), None);
    }
}
