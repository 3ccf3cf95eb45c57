//! The text of a file, which arrives in blocks, and the number of the line that is read next. A text that does not end
//! with a newline gets one, and this is noted.

use std::sync::mpsc::Receiver;

/// The text that has arrived and is not consumed yet.
pub(super) struct Text {
    blocks: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    at: usize,
    /// The number of the line with which `rest` begins.
    pub(super) line: u64,
    /// Whether the text did not end with a newline.
    pub(super) unterminated: bool,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Begun,
    Flowing,
    Ended,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Text {
    pub(super) fn new(blocks: Receiver<Vec<u8>>) -> Self {
        let bytes = Vec::new();
        Self { blocks, bytes, at: 0, line: 1, unterminated: false, state: State::Begun }
    }

    /// The text that has arrived and is not consumed yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Consumes this many bytes.
    pub(super) fn pass(&mut self, length: usize) {
        let passed = &self.bytes[self.at..self.at + length];
        self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
        self.at += length;
    }

    /// Adds the next block to the rest; `false` at the end of the text.
    pub(super) fn more(&mut self) -> bool {
        match self.blocks.recv() {
            Ok(block) => {
                self.bytes.drain(..self.at);
                self.at = 0;
                let block = match self.state {
                    State::Begun => block.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&block),
                    _ => &block,
                };
                self.bytes.extend_from_slice(block);
                self.state = State::Flowing;
                true
            }
            Err(_) if self.state == State::Ended => false,
            Err(_) => {
                self.state = State::Ended;
                self.unterminated = self.rest().last().is_some_and(|byte| *byte != b'\n');
                if self.unterminated {
                    self.bytes.push(b'\n');
                }
                self.unterminated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn lines_are_counted_and_a_missing_newline_is_added() {
        let (sender, receiver) = sync_channel(9);
        for block in ["\u{feff}a\nb", "c\n", "d"] {
            sender.send(block.as_bytes().to_vec()).unwrap();
        }
        drop(sender);
        let mut text = Text::new(receiver);
        assert!(text.rest().is_empty() && text.more());
        assert_eq!(text.rest(), b"a\nb");
        text.pass(2);
        assert!(text.more());
        assert_eq!((text.rest(), text.line), (b"bc\n".as_slice(), 2));
        text.pass(3);
        assert!(text.more());
        assert!(!text.unterminated);
        assert!(text.more());
        assert_eq!((text.rest(), text.line, text.unterminated), (b"d\n".as_slice(), 3, true));
        assert!(!text.more());
    }
}
