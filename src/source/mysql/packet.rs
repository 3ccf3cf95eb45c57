//! The packets of MySQL's protocol: framing, sequence numbers, and the integers and texts within. It knows nothing about
//! their meaning.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use crate::config::Tls;
use crate::error::Result;
use crate::source::tcp::{Closer, TcpTransport};

/// How many bytes are read from the socket at once.
const BUFFER: usize = 256 << 10;
/// A packet of this length continues in the next one.
const FULL: usize = 0xff_ff_ff;
/// More than the largest row: the server's largest packet is at most 1 GiB.
const LARGEST: usize = 2 << 30;

/// A connection as packets.
pub(super) struct Packets {
    wire: TcpTransport,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The last packet, where it is larger than the buffer.
    large: Vec<u8>,
    sequence: u8,
}

impl Packets {
    pub(super) fn new(wire: TcpTransport) -> Self {
        let (buffer, large) = (vec![0; BUFFER], Vec::new());
        Self { wire, buffer, start: 0, end: 0, large, sequence: 0 }
    }

    /// Continues in TLS. What arrived before is dropped: it came in the clear, and anybody could have sent it.
    pub(super) fn upgrade(self, tls: &Tls, host: &str) -> Result<Self> {
        let wire = self.wire.upgrade(tls, host)?;
        Ok(Self { wire, start: 0, end: 0, ..self })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    pub(super) fn closer(&self) -> io::Result<Closer> {
        self.wire.closer()
    }

    /// Begins a new command.
    pub(super) fn restart(&mut self) {
        self.sequence = 0;
    }

    /// Sends one packet, which goes in several where it is of 16 MiB or more.
    pub(super) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut rest = payload;
        loop {
            let (part, more) = rest.split_at(rest.len().min(FULL));
            let length = (part.len() as u32).to_le_bytes();
            let mut packet = Vec::with_capacity(part.len() + 4);
            packet.extend_from_slice(&length[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            self.wire.write_all(&packet)?;
            rest = more;
            // A packet of the full length is followed by another, even if that is empty.
            if part.len() < FULL {
                return self.wire.flush();
            }
        }
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> io::Result<&[u8]> {
        let length = self.header()?;
        if length <= BUFFER - 4 {
            self.fill(length)?;
            let from = self.start;
            self.start += length;
            return Ok(&self.buffer[from..from + length]);
        }
        self.large = Vec::new();
        let mut length = length;
        loop {
            self.append(length)?;
            if length < FULL {
                return Ok(&self.large);
            }
            length = self.header()?;
        }
    }

    fn header(&mut self) -> io::Result<usize> {
        self.fill(4)?;
        let header = &self.buffer[self.start..self.start + 4];
        let length =
            usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
        if header[3] != self.sequence {
            return Err(io::Error::new(ErrorKind::InvalidData, "packets are out of order"));
        }
        self.start += 4;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(length)
    }

    /// Reads until the buffer holds `wanted` bytes, which must fit it.
    #[inline]
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.end - self.start >= wanted { Ok(()) } else { self.read_more(wanted) }
    }

    fn read_more(&mut self, wanted: usize) -> io::Result<()> {
        if self.buffer.len() - self.start < wanted || self.start == self.end {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            match self.wire.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds the next bytes of a packet that is larger than the buffer.
    fn append(&mut self, length: usize) -> io::Result<()> {
        let before = self.large.len();
        if before + length > LARGEST {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the server sent a row of more than 2 GiB",
            ));
        }
        let there = length.min(self.end - self.start);
        self.large.extend_from_slice(&self.buffer[self.start..self.start + there]);
        self.start += there;
        // The buffer grows in steps, since a header may claim more than arrives.
        while self.large.len() < before + length {
            let from = self.large.len();
            let step = (before + length - from).min(BUFFER);
            self.large.resize(from + step, 0);
            self.wire.read_exact(&mut self.large[from..])?;
        }
        Ok(())
    }

    /// Frees the memory of the last packet if it was larger than the buffer.
    pub(super) fn release(&mut self) {
        self.large = Vec::new();
    }

    /// From now on, a read that receives no byte for this long fails.
    pub(super) fn wait_for(&self, idle: Duration) -> io::Result<()> {
        self.wire.wait_for(idle)
    }
}

/// The rest of a packet. Each method returns `None` if the packet ends too soon.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// An integer of one to nine bytes.
    #[inline]
    pub(super) fn length(&mut self) -> Option<u64> {
        match self.byte()? {
            short @ ..=0xfa => Some(u64::from(short)),
            0xfc => self.u16().map(u64::from),
            0xfd => self.array().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            0xfe => self.array().map(u64::from_le_bytes),
            _ => None,
        }
    }

    /// Bytes after their length.
    #[inline]
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A value of a row of text: `Some(None)` is null.
    pub(super) fn text(&mut self) -> Option<Option<&'a [u8]>> {
        match self.0.first() {
            Some(0xfb) => {
                self.0 = &self.0[1..];
                Some(None)
            }
            _ => self.bytes().map(Some),
        }
    }

    /// Bytes up to a zero, or to the end.
    pub(super) fn zero_ended(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_all_their_forms() {
        let read = |bytes: &[u8]| Parts(bytes).length();
        assert_eq!(read(&[250]), Some(250));
        assert_eq!(read(&[0xfc, 1, 2]), Some(0x201));
        assert_eq!(read(&[0xfd, 1, 2, 3]), Some(0x3_0201));
        assert_eq!(read(&[0xfe, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        for broken in [&[][..], &[0xfb], &[0xfc, 1], &[0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(read(broken), None);
        }
        assert_eq!(Parts(&[5, 1]).bytes(), None);
        assert_eq!(Parts(&[0xfb]).text(), Some(None));
    }
}
