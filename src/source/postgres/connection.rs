//! One connection to PostgreSQL: TLS, authentication, statements with small answers, and the data of `COPY … TO STDOUT`
//! as it arrives, or of `COPY … FROM STDIN` as it is made. It blocks, and knows the protocol's frames but not the format of a row.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use crate::config::{Binding, Database, TlsMode};
use crate::error::{Class, Error, Result};
use crate::source::postgres::errors::{Refusal, broken, malformed};
use crate::source::postgres::input::{FRAME_BYTES, Input, Piece};
use crate::source::postgres::names::{bytes_of, text_of};
use crate::source::relational::outside::Connected;
use crate::source::tcp::{Closer, TcpTransport};
use crate::text::escaped;

/// Messages before the login is complete are short; a larger one is refused.
const GREETING_BYTES: usize = 64 * 1024;
/// A statement that searches a table may take this many times longer until its first byte than a gap between rows.
const LOOKING: u32 = 20;

/// The data of a COPY in one message.
const COPY_BYTES: usize = 1 << 18;

/// A connection that is logged in.
pub(crate) struct Connection {
    wire: TcpTransport,
    input: Input,
    address: String,
    idle: Duration,
    /// Whether texts may be in any encoding. Those that are not UTF-8 must be sent back unchanged.
    keeps_bytes: bool,
    /// The SQLSTATE of the statement that the server refused last.
    refused: String,
}

/// A row of an answer in text form.
pub(crate) type Row = Vec<Option<String>>;

impl Connected for Connection {
    fn closer(&self) -> Result<Closer> {
        self.wire.closer().map_err(|error| broken(&self.address, error))
    }
}

impl Connection {
    /// Connects to one database of the server.
    pub(crate) fn open(server: &Database, name: &str, idle: Duration) -> Result<Self> {
        let address = format!("{}:{}/{name}", server.host, server.port);
        let connect =
            || TcpTransport::connect(&server.host, server.port, server.tunnel.as_ref(), idle);
        let mut wire = connect()?;
        if server.tls.mode != TlsMode::Disable {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            let mut answer = [0];
            let asked = wire.write_all(&request).and_then(|()| wire.read_exact(&mut answer));
            asked.map_err(|error| broken(&address, error))?;
            let prefers = server.tls.mode == TlsMode::Prefer;
            wire = match &answer {
                b"S" => match wire.upgrade(&server.tls, &server.host) {
                    // As in libpq, `prefer` continues without TLS.
                    Err(error) if prefers && error.class() == Class::Stop => connect()?,
                    upgraded => upgraded?,
                },
                _ if prefers => wire,
                _ => {
                    return Err(Error::stop(format!("{address}: the server does not offer TLS"))
                        .hint("if the way to it is safe, sslmode=disable connects without TLS"));
                }
            };
        }
        let (input, keeps_bytes, refused) = (Input::default(), false, String::new());
        let mut connection = Self { wire, input, address, idle, keeps_bytes, refused };
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
        let requires = server.tls.binding == Binding::Require;
        let (mut scram, mut is_bound) = (None, false);
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address, GREETING_BYTES)?;
            match tag {
                b'E' => return Err(Refusal::parse(body).error(&self.address)),
                b'Z' => return Ok(()),
                b'S' if body.starts_with(b"server_encoding\0SQL_ASCII\0") => {
                    self.keeps_bytes = true;
                    continue;
                }
                b'R' => {}
                // Parameters, the key for cancelling, and notices.
                _ => continue,
            }
            let (kind, data) = body.split_at_checked(4).ok_or_else(|| malformed(&self.address))?;
            let kind = i32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]);
            let mut out = BytesMut::new();
            let written = match kind {
                0 if requires && !is_bound => return Err(self.not_bound()),
                0 => continue,
                // Somebody between here and the server must not get the password by asking for it in the clear.
                3 | 5 if requires => return Err(self.not_bound()),
                3 => frontend::password_message(password()?.as_bytes(), &mut out),
                5 => {
                    let salt = data.try_into().map_err(|_| malformed(&self.address))?;
                    let hash = md5_hash(server.user.as_bytes(), password()?.as_bytes(), salt);
                    frontend::password_message(hash.as_bytes(), &mut out)
                }
                10 => {
                    let offered = data.to_vec();
                    let (way, binding) = self.scram_of(&offered, server.tls.binding)?;
                    let new = ScramSha256::new(password()?.as_bytes(), binding);
                    let first = scram.insert((new, way == SCRAM_SHA_256_PLUS)).0.message();
                    frontend::sasl_initial_response(way, first, &mut out)
                }
                11 | 12 => {
                    let Some((scram, binds)) = scram.as_mut() else {
                        return Err(malformed(&self.address));
                    };
                    // The server must also prove that it knows the password.
                    let refused = |error: io::Error| {
                        Error::stop(format!("{}: authentication failed: {error}", self.address))
                    };
                    if kind == 12 {
                        scram.finish(data).map_err(refused)?;
                        is_bound = *binds;
                        continue;
                    }
                    scram.update(data).map_err(refused)?;
                    frontend::sasl_response(scram.message(), &mut out)
                }
                _ => return Err(self.cannot("the authentication method that the server asks for")),
            };
            written.map_err(|error| Error::stop(format!("{}: {error}", self.address)))?;
            self.wire.write_all(&out).map_err(|error| broken(&self.address, error))?;
        }
    }

    /// The SCRAM mechanism to use of those that the server offers, and how it is bound to the connection.
    fn scram_of(&self, offered: &[u8], wanted: Binding) -> Result<(&'static str, ChannelBinding)> {
        let offers =
            |way: &str| offered.split(|byte| *byte == 0).any(|name| name == way.as_bytes());
        let end_point = self.wire.end_point().filter(|_| wanted != Binding::Disable);
        match end_point {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)))
            }
            _ if wanted == Binding::Require => Err(self.not_bound()),
            _ if !offers(SCRAM_SHA_256) => {
                Err(self.cannot("the SASL mechanisms that the server offers"))
            }
            // With this, the server notices if somebody on the way has removed its offer.
            Some(_) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            None => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        }
    }

    fn not_bound(&self) -> Error {
        let why = match (self.wire.is_tls(), self.wire.end_point()) {
            (false, _) => "there is no TLS",
            (true, None) => {
                "the signature of the server's certificate has no hash that it could be bound to"
            }
            (true, Some(_)) => "the server, or a proxy before it, offers no SCRAM-SHA-256-PLUS",
        };
        Error::stop(format!("{}: channel_binding=require is not possible: {why}", self.address))
            .hint("if the way to the server is safe, channel_binding=prefer connects without channel binding")
    }

    fn cannot(&self, what: &str) -> Error {
        Error::stop(format!("{}: moveout does not know {what}", self.address))
            .hint("use a role with a password: moveout knows scram-sha-256, md5 and password")
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| Error::stop(format!("{}: {error}", self.address)))?;
        self.wire.write_all(&out).map_err(|error| broken(&self.address, error))
    }

    /// From now on, texts that are not UTF-8 are kept as described in `names`.
    pub(super) fn keep_bytes(&mut self) {
        self.keeps_bytes = true;
    }

    /// Runs a query in its own transaction, in which texts arrive as they are stored.
    pub(crate) fn query_as_stored(&mut self, sql: &str) -> Result<Vec<Row>> {
        if self.keeps_bytes {
            self.query(&format!("BEGIN; SET LOCAL client_encoding = 'SQL_ASCII'; {sql}; COMMIT"))
        } else {
            self.query(sql)
        }
    }

    /// The stored bytes of a text that this connection has returned.
    pub(super) fn bytes(&self, text: &str) -> Vec<u8> {
        if self.keeps_bytes { bytes_of(text) } else { text.as_bytes().to_vec() }
    }

    /// Whether the server refused the last statement with this SQLSTATE.
    pub(crate) fn was_refused_by(&self, code: &str) -> bool {
        self.refused == code
    }

    /// Whether the server refused the last statement, so that the connection itself is whole.
    pub(crate) fn was_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether the server refused the last statement because its disk is full.
    pub(crate) fn lacks_room(&self) -> bool {
        self.was_refused_by("53100")
    }

    /// Whether texts are sent as they are stored, in whatever encoding.
    pub(crate) fn keeps_bytes(&self) -> bool {
        self.keeps_bytes
    }

    /// The address and the database, without credentials.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    fn wait_for(&self, idle: Duration) -> Result<()> {
        self.wire.wait_for(idle).map_err(|error| broken(&self.address, error))
    }

    fn ask(&mut self, sql: &str, patience: Duration) -> Result<()> {
        self.wait_for(patience)?;
        self.refused.clear();
        tracing::debug!("{}: {}", self.address, escaped(sql));
        let statement = self.bytes(sql);
        let length = i32::try_from(statement.len() + 5);
        let length = length
            .map_err(|_| Error::stop(format!("{}: the statement is too long", self.address)))?;
        let message = [b"Q", &length.to_be_bytes()[..], &statement, &[0]].concat();
        self.wire.write_all(&message).map_err(|error| broken(&self.address, error))
    }

    /// Runs statements and returns the rows of all of them as text. After an error that the server reported, the
    /// connection stays usable, but its transaction does not.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.ask(sql, self.idle * LOOKING)?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address, FRAME_BYTES)?;
            match tag {
                b'D' => {
                    let row = data_row(body, self.keeps_bytes);
                    rows.push(row.ok_or_else(|| malformed(&self.address))?);
                }
                b'E' => refused = Some(Refusal::parse(body)),
                b'Z' => match refused {
                    None => return Ok(rows),
                    Some(refusal) => return Err(self.refusal(refusal)),
                },
                _ => {}
            }
        }
    }

    /// Runs `COPY … FROM STDIN`. `next` adds the next bytes and says whether there are more; if it fails, the server takes
    /// none of what was sent. Returns the number of rows that the server has taken. After an error that the server
    /// reported, or `next`, the connection stays usable, but its transaction does not.
    pub(crate) fn copy_in(
        &mut self,
        sql: &str,
        mut next: impl FnMut(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<u64> {
        self.ask(sql, self.idle * LOOKING)?;
        let mut refused = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address, FRAME_BYTES)?;
            match tag {
                b'G' => break,
                b'E' => refused = Some(Refusal::parse(body)),
                b'Z' => {
                    let refusal = refused.ok_or_else(|| malformed(&self.address))?;
                    return Err(self.refusal(refusal));
                }
                _ => {}
            }
        }
        let (mut data, mut message) = (Vec::new(), Vec::new());
        let failed = loop {
            data.clear();
            let more = match next(&mut data) {
                Ok(more) => more,
                Err(error) => break Some(error),
            };
            // The protocol lets a message end anywhere in a row.
            for piece in data.chunks(COPY_BYTES) {
                message.clear();
                message.push(b'd');
                message.extend((piece.len() as u32 + 4).to_be_bytes());
                message.extend_from_slice(piece);
                self.wire.write_all(&message).map_err(|error| broken(&self.address, error))?;
            }
            if !more {
                break None;
            }
        };
        self.send(|out| match &failed {
            None => {
                frontend::copy_done(out);
                Ok(())
            }
            Some(_) => frontend::copy_fail("moveout could not read all rows", out),
        })?;
        let mut taken = None;
        loop {
            let (tag, body) = self.input.frame(&mut self.wire, &self.address, FRAME_BYTES)?;
            match tag {
                b'C' => taken = count_of(body),
                b'E' => refused = Some(Refusal::parse(body)),
                b'Z' => match (failed, refused, taken) {
                    (Some(error), ..) => return Err(error),
                    (None, Some(refusal), _) => return Err(self.refusal(refusal)),
                    (None, None, Some(taken)) => return Ok(taken),
                    (None, None, None) => return Err(malformed(&self.address)),
                },
                _ => {}
            }
        }
    }

    fn refusal(&mut self, refusal: Refusal) -> Error {
        let error = refusal.error(&self.address);
        self.refused = refusal.code;
        error
    }

    /// Runs `COPY … TO STDOUT` and passes its data on piece by piece, so that a value of a gigabyte is not held here.
    /// `is_looking` says that the server may search for long before the first byte. Returns the number of rows that the
    /// server claims to have sent, which it states only after the last one. After an error that the server reported, the
    /// connection stays usable, but its transaction does not; after any other error, neither does.
    pub(crate) fn copy_out(
        &mut self,
        sql: &str,
        is_looking: bool,
        mut data: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        self.ask(sql, if is_looking { self.idle * LOOKING } else { self.idle })?;
        let (mut sent, mut refused) = (None, None);
        loop {
            let (tag, body) = match self.input.piece(&mut self.wire, &self.address)? {
                Piece::Data(piece) => {
                    data(piece)?;
                    continue;
                }
                Piece::Frame(tag, body) => (tag, body),
            };
            match tag {
                b'C' if sent.is_none() => {
                    sent = Some(count_of(body).ok_or_else(|| malformed(&self.address))?);
                }
                b'E' => refused = Some(Refusal::parse(body)),
                b'Z' => match (refused, sent) {
                    (Some(refusal), _) => return Err(self.refusal(refusal)),
                    (None, Some(sent)) => return Ok(sent),
                    (None, None) => return Err(malformed(&self.address)),
                },
                _ => {}
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Without this message the server logs an unexpected end. It does not matter if it fails.
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self.wire.write_all(&out);
    }
}

/// The number of rows in the tag `COPY N`.
fn count_of(body: &[u8]) -> Option<u64> {
    let count = body.strip_prefix(b"COPY ")?.strip_suffix(&[0])?;
    std::str::from_utf8(count).ok()?.parse().ok()
}

fn data_row(body: &[u8], keeps_bytes: bool) -> Option<Row> {
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
                row.push(Some(if keeps_bytes {
                    text_of(value)
                } else {
                    String::from_utf8_lossy(value).into_owned()
                }));
                rest = after;
            }
        }
    }
    Some(row)
}
