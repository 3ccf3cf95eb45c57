//! One connection to PostgreSQL: TLS, authentication, statements whose answers are small, and the data of
//! `COPY … TO STDOUT` as it comes. Blocks; knows the protocol's frames, not what is in a row.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::errors::{Refusal, broken, malformed};
use crate::config::{Database, TlsMode};
use crate::error::{Class, Error, Result};
use crate::source::wire::{Hangup, Wire};

/// What is asked of the socket at once.
const READ_BYTES: usize = 256 * 1024;
/// A statement that looks for something may look for long before it has an answer: so many times as long as
/// rows may stay away that are on their way.
const LOOKING: u32 = 20;

/// A connection that has been let in.
pub(super) struct Connection {
    wire: Wire,
    input: Input,
    address: String,
    idle: Duration,
}

/// A row of an answer in text form.
pub(super) type Row = Vec<Option<String>>;

impl Connection {
    /// Connects to one database of the server.
    pub(super) fn open(server: &Database, name: &str, idle: Duration) -> Result<Self> {
        let address = format!("{}:{}/{name}", server.host, server.port);
        let connect = || Wire::connect(&server.host, server.port, idle);
        let mut wire = connect()?;
        if server.tls.mode != TlsMode::Disable {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            let mut answer = [0];
            let asked = wire.write_all(&request).and_then(|()| wire.read_exact(&mut answer));
            asked.map_err(|error| broken(&address, &error))?;
            let prefers = server.tls.mode == TlsMode::Prefer;
            wire = match &answer {
                b"S" => match wire.upgrade(&server.tls, &server.host) {
                    // As libpq has it: who only prefers TLS gets on without.
                    Err(error) if prefers && error.class() == Class::Stop => connect()?,
                    upgraded => upgraded?,
                },
                _ if prefers => wire,
                _ => {
                    return Err(Error::stop(format!("{address}: the server has no TLS"))
                        .hint("if the way to it is safe, sslmode=disable does without"));
                }
            };
        }
        let mut connection = Self { wire, input: Input::default(), address, idle };
        connection.start(server, name)?;
        Ok(connection)
    }

    fn start(&mut self, server: &Database, name: &str) -> Result<()> {
        let parameters = [
            ("user", server.user.as_str()),
            ("database", name),
            ("application_name", "moveout"),
            ("client_encoding", "UTF8"),
        ];
        self.send(|out| frontend::startup_message(parameters, out))?;
        let password = || match &server.password {
            Some(password) => Ok(password.expose()),
            None => Err(Error::stop(format!("{}: the server asks for a password", self.address))
                .hint("set PGPASSWORD")),
        };
        let mut scram = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address)?;
            match tag {
                b'E' => return Err(Refusal::parse(body).error(&self.address)),
                b'Z' => return Ok(()),
                b'R' => {}
                // Parameters, the key for cancelling, notices.
                _ => continue,
            }
            let (kind, data) = body.split_at_checked(4).ok_or_else(|| malformed(&self.address))?;
            let kind = i32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]);
            let mut out = BytesMut::new();
            let written = match kind {
                0 => continue,
                3 => frontend::password_message(password()?.as_bytes(), &mut out),
                5 => {
                    let salt = data.try_into().map_err(|_| malformed(&self.address))?;
                    let hash = md5_hash(server.user.as_bytes(), password()?.as_bytes(), salt);
                    frontend::password_message(hash.as_bytes(), &mut out)
                }
                10 => {
                    if !data.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                        return Err(self.cannot("the ways of authentication that it offers"));
                    }
                    let binding = ChannelBinding::unsupported();
                    let new = ScramSha256::new(password()?.as_bytes(), binding);
                    let first = scram.insert(new).message();
                    frontend::sasl_initial_response(SCRAM_SHA_256, first, &mut out)
                }
                11 | 12 => {
                    let Some(scram) = scram.as_mut() else { return Err(malformed(&self.address)) };
                    // The server proves that it knows the password, too.
                    let refused = |error: io::Error| {
                        Error::stop(format!("{}: authentication failed: {error}", self.address))
                    };
                    if kind == 12 {
                        scram.finish(data).map_err(refused)?;
                        continue;
                    }
                    scram.update(data).map_err(refused)?;
                    frontend::sasl_response(scram.message(), &mut out)
                }
                _ => return Err(self.cannot("the way of authentication that it asks for")),
            };
            written.map_err(|error| Error::stop(format!("{}: {error}", self.address)))?;
            self.wire.write_all(&out).map_err(|error| broken(&self.address, &error))?;
        }
    }

    fn cannot(&self, what: &str) -> Error {
        Error::stop(format!("{}: moveout does not know {what}", self.address))
            .hint("passwords work: scram-sha-256, md5 and password")
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| Error::stop(format!("{}: {error}", self.address)))?;
        self.wire.write_all(&out).map_err(|error| broken(&self.address, &error))
    }

    /// Address and database, without credentials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is protected.
    pub(super) fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    /// To end it from another thread.
    pub(super) fn hangup(&self) -> Result<Hangup> {
        self.wire.hangup().map_err(|error| broken(&self.address, &error))
    }

    fn wait_for(&self, idle: Duration) -> Result<()> {
        self.wire.wait_for(idle).map_err(|error| broken(&self.address, &error))
    }

    /// Runs statements and returns the rows of all of them as text. After an error that the server
    /// reported the connection can be used, but not the transaction it was in.
    pub(super) fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        tracing::trace!("{}: {sql}", self.address);
        self.wait_for(self.idle * LOOKING)?;
        self.send(|out| frontend::query(sql, out))?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address)?;
            match tag {
                b'D' => rows.push(data_row(body).ok_or_else(|| malformed(&self.address))?),
                b'E' => refused = Some(Refusal::parse(body).error(&self.address)),
                b'Z' => return refused.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Runs `COPY … TO STDOUT`, of rows or of what is looked for, and hands over its data piece by piece. Returns how
    /// many rows the server says it sent, which it says only when all were. After an error of any kind the connection
    /// is of no use any more.
    pub(super) fn copy_out(
        &mut self,
        sql: &str,
        is_looking: bool,
        mut data: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        tracing::debug!("{}: {sql}", self.address);
        self.wait_for(if is_looking { self.idle * LOOKING } else { self.idle })?;
        self.send(|out| frontend::query(sql, out))?;
        let mut sent = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address)?;
            match tag {
                b'd' => data(body)?,
                b'C' if sent.is_none() => {
                    let tag = body.strip_prefix(b"COPY ").and_then(|tag| tag.strip_suffix(&[0]));
                    let count = tag.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
                    sent = Some(count.ok_or_else(|| malformed(&self.address))?);
                }
                b'E' => return Err(Refusal::parse(body).error(&self.address)),
                b'Z' => return sent.ok_or_else(|| malformed(&self.address)),
                _ => {}
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Without it the server logs an unexpected end; that it comes does not matter.
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self.wire.write_all(&out);
    }
}

fn data_row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => {
                row.push(None);
                rest = after;
            }
            Ok(length) => {
                let (value, after) = after.split_at_checked(length)?;
                // A server whose encoding is SQL_ASCII sends names as they are.
                row.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
        }
    }
    Some(row)
}

/// Frames as they come: a tag, and a body whose length stands before it.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// The next frame; it is valid until the one after it is asked for.
    #[inline]
    fn frame(&mut self, wire: &mut Wire, address: &str) -> Result<(u8, &[u8])> {
        loop {
            let there = &self.buffer[self.start..self.end];
            let mut missing = 5;
            if let Some((&[tag, a, b, c, d], body)) = there.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let Some(length) = length.checked_sub(4) else { return Err(malformed(address)) };
                if body.len() >= length {
                    let from = self.start + 5;
                    self.start = from + length;
                    return Ok((tag, &self.buffer[from..from + length]));
                }
                missing = 5 + length;
            }
            self.fill(wire, address, missing)?;
        }
    }

    #[cold]
    fn fill(&mut self, wire: &mut Wire, address: &str, frame: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = frame.max(READ_BYTES);
        // A value of a gigabyte must not keep its room for ever.
        if self.buffer.len() < wanted || self.buffer.len() > 16 * wanted {
            self.buffer.resize(wanted.max(self.end), 0);
            self.buffer.shrink_to_fit();
        }
        loop {
            match wire.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(broken(address, &error));
                }
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(address, &error)),
            }
        }
    }
}
