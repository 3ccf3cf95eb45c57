//! SYNC, the streaming path: reads frames, each of which has a tag, a length and a body. Memory grows with the bytes that
//! have arrived, never with the length that a frame claims.

use std::io::{self, Read};

use crate::error::Result;
use crate::source::postgres::errors::{broken, malformed};

/// The length of PostgreSQL's longest message.
pub(super) const FRAME_BYTES: usize = 1 << 30;
/// How many bytes are read from the socket at once.
const READ_BYTES: usize = 256 * 1024;

/// The next part of the input.
pub(super) enum Piece<'a> {
    /// The next bytes of a COPY.
    Data(&'a [u8]),
    /// A frame of another kind: its tag, and its body.
    Frame(u8, &'a [u8]),
}

/// The bytes that have arrived and have not been taken yet.
#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The bytes that are still missing of the large frame whose data are being passed on.
    data_left: usize,
}

impl Input {
    /// The next frame, of at most `most` bytes. It is valid until the next call.
    #[inline]
    pub(super) fn frame(
        &mut self,
        wire: &mut impl Read,
        address: &str,
        most: usize,
    ) -> Result<(u8, &[u8])> {
        loop {
            let mut missing = 5;
            if let Some((tag, length)) = self.head(address, most)? {
                if self.end - self.start >= 5 + length {
                    let from = self.start + 5;
                    self.start = from + length;
                    return Ok((tag, &self.buffer[from..from + length]));
                }
                missing = 5 + length;
            }
            self.fill(wire, address, missing)?;
        }
    }

    /// The next frame, or the next bytes of one if it holds data of a COPY and is large.
    #[inline]
    pub(super) fn piece(&mut self, wire: &mut impl Read, address: &str) -> Result<Piece<'_>> {
        loop {
            if self.data_left > 0 {
                if self.start < self.end {
                    let from = self.start;
                    let length = self.data_left.min(self.end - from);
                    (self.start, self.data_left) = (from + length, self.data_left - length);
                    return Ok(Piece::Data(&self.buffer[from..from + length]));
                }
                self.fill(wire, address, 1)?;
                continue;
            }
            let mut missing = 5;
            if let Some((tag, length)) = self.head(address, FRAME_BYTES)? {
                // A small frame is passed on whole, so that no row has to be joined again.
                if tag == b'd' && length > READ_BYTES - 5 {
                    (self.start, self.data_left) = (self.start + 5, length);
                    continue;
                }
                if self.end - self.start >= 5 + length {
                    let from = self.start + 5;
                    self.start = from + length;
                    let body = &self.buffer[from..from + length];
                    return Ok(if tag == b'd' {
                        Piece::Data(body)
                    } else {
                        Piece::Frame(tag, body)
                    });
                }
                missing = 5 + length;
            }
            self.fill(wire, address, missing)?;
        }
    }

    /// The tag of the next frame and the length of its body, if that much has arrived.
    #[inline]
    fn head(&self, address: &str, most: usize) -> Result<Option<(u8, usize)>> {
        let there = &self.buffer[self.start..self.end];
        let Some(&[tag, a, b, c, d]) = there.first_chunk::<5>() else { return Ok(None) };
        let length = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(4);
        match length.filter(|length| *length <= most) {
            Some(length) => Ok(Some((tag, length))),
            None => Err(malformed(address)),
        }
    }

    #[cold]
    fn fill(&mut self, wire: &mut impl Read, address: &str, frame: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = frame.min(2 * self.end).max(READ_BYTES);
        // A buffer that had to be large once is made small again.
        if self.buffer.len() < wanted || self.buffer.len() > 16 * wanted {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to_fit();
        }
        loop {
            match wire.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(broken(address, error));
                }
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(address, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_length_takes_no_memory_before_its_bytes_arrive() {
        for most in [1 << 16, FRAME_BYTES] {
            let (mut input, claimed) = (Input::default(), message(b'D', most as u32, &[7; 1000]));
            assert!(input.frame(&mut &claimed[..], "x", most).is_err(), "it ends in the middle");
            assert!(input.buffer.capacity() <= 2 * READ_BYTES, "{}", input.buffer.capacity());
            let beyond = message(b'D', most as u32 + 5, &[]);
            let refused = Input::default().frame(&mut &beyond[..], "x", most).unwrap_err();
            assert!(refused.to_string().contains("violates PostgreSQL's protocol"), "{refused}");
        }
    }

    #[test]
    fn large_data_are_passed_on_as_they_arrive() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let mut sent = message(b'd', data.len() as u32 + 4, &data);
        sent.extend(message(b'd', 7, &[1, 2, 3]));
        sent.extend(message(b'c', 4, &[]));
        let (mut input, mut wire, mut came) = (Input::default(), &sent[..], Vec::new());
        loop {
            match input.piece(&mut wire, "x").unwrap() {
                Piece::Data(piece) => came.extend_from_slice(piece),
                Piece::Frame(tag, body) => {
                    assert_eq!((tag, body.len()), (b'c', 0));
                    break;
                }
            }
        }
        assert_eq!(came, [&data[..], &[1, 2, 3]].concat());
        assert!(input.buffer.capacity() <= 2 * READ_BYTES);
    }
}
