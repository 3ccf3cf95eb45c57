//! HTTP/1.1 on plain std: as much of it as the proxy needs, and a client with one request a
//! connection that says how an answer ended, which real clients hide.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// First line and headers of a message.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head but for its very last byte, a line feed, which the caller has still to read.
    /// `None` when the connection ends before it begins.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r") {
            match from.read(&mut byte)? {
                0 if bytes.is_empty() => return Ok(None),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                _ => bytes.push(byte[0]),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.trim_end().lines();
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Some(Self { first_line, headers: headers.collect() }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0.eq_ignore_ascii_case(name)).map(|h| h.1.as_str())
    }

    pub(crate) fn remove(&mut self, names: &[&str]) {
        self.headers.retain(|h| !names.iter().any(|name| h.0.eq_ignore_ascii_case(name)));
    }

    pub(crate) fn push(&mut self, name: &str, value: impl ToString) {
        self.headers.push((name.to_owned(), value.to_string()));
    }

    /// Of a response; 0 when there is none.
    pub(crate) fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first_line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        (text + "\r\n").into_bytes()
    }
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// The body of a message, without its framing. Reading 0 bytes means that it ended as the framing
/// demands; a body that is cut is an error.
pub(crate) struct Body<'a, R> {
    from: &'a mut R,
    framing: Framing,
    /// Of the length, or of this chunk.
    left: u64,
}

impl<'a, R: Read> Body<'a, R> {
    pub(crate) fn chunked(from: &'a mut R) -> Self {
        Self { from, framing: Framing::Chunked, left: 0 }
    }

    /// The body of the answer to this request.
    pub(crate) fn of_answer(head: &Head, request_line: &str, from: &'a mut R) -> Self {
        let length = head.get("content-length").map(|length| length.parse().unwrap());
        let (framing, left) = match (has_body(head, request_line), length) {
            (false, _) => (Framing::Length, 0),
            (true, _) if head.get("transfer-encoding").is_some() => (Framing::Chunked, 0),
            (true, Some(length)) => (Framing::Length, length),
            (true, None) => (Framing::UntilClose, 0),
        };
        Self { from, framing, left }
    }

    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::UntilClose {
            return self.from.read(buffer);
        }
        if self.framing == Framing::Chunked && self.left == 0 {
            self.left = chunk_size(self.from)?;
            if self.left == 0 {
                line(self.from)?;
                self.framing = Framing::Length; // with nothing left
            }
        }
        if self.left == 0 {
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.from.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        if self.left == 0 && self.framing == Framing::Chunked {
            line(self.from)?;
        }
        Ok(read)
    }

    /// All that came, and how it ended.
    pub(crate) fn all(mut self) -> (Vec<u8>, io::Result<()>) {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.next(&mut buffer) {
                Ok(0) => return (all, Ok(())),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) => return (all, Err(error)),
            }
        }
    }
}

fn line(from: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n") {
        from.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn chunk_size(from: &mut impl Read) -> io::Result<u64> {
    let line = line(from)?;
    let digits = line.split(';').next().unwrap_or_default();
    u64::from_str_radix(digits.trim(), 16).map_err(|_| io::Error::other(format!("chunk `{line}`")))
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As HTTP demands.
    Properly,
    /// The connection was closed too early.
    Early,
    /// The connection was reset.
    Reset,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) ended: Ended,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks; an error means that there was no head of an answer.
pub(crate) fn request(
    address: SocketAddr,
    method_and_path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = Head { first_line: format!("{method_and_path} HTTP/1.1"), headers: Vec::new() };
    head.push("Host", address);
    head.push("Connection", "close");
    head.push("Content-Length", body.len());
    headers.iter().for_each(|(name, value)| head.push(name, value));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(&[&head.to_bytes(), body].concat())?;
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader)?.ok_or(ErrorKind::UnexpectedEof)?;
    reader.read_exact(&mut [0])?;
    let (body, end) = Body::of_answer(&head, method_and_path, &mut reader).all();
    let ended = match end.map_err(|error| error.kind()) {
        Ok(()) => Ended::Properly,
        Err(ErrorKind::ConnectionReset) => Ended::Reset,
        Err(ErrorKind::UnexpectedEof) => Ended::Early,
        Err(other) => return Err(other.into()),
    };
    Ok(Response { status: head.status(), head, body, ended })
}

/// Whether a response with this head has a body at all.
pub(crate) fn has_body(head: &Head, request_line: &str) -> bool {
    !request_line.starts_with("HEAD ") && !matches!(head.status(), 100..=199 | 204 | 304)
}

/// `name=value` pairs as a form or the query of a URL.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The value of an `Authorization` header.
pub(crate) fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let plain = format!("{user}:{password}");
    let encoded = plain.as_bytes().chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let used = three.len() + 1;
        (0..4).map(move |i| match i < used {
            true => char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        })
    });
    format!("Basic {}", encoded.collect::<String>())
}
