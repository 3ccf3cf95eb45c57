//! A client for one connection: its commands, and the results of textual and of prepared statements. It knows neither
//! tables nor Arrow.

use std::time::Duration;

use crate::config::{Database, TlsMode};
use crate::error::{Error, Result};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::handshake::{handshake, server_error};
use crate::source::mysql::packet::{Packets, Parts};
use crate::source::relational::outside::Connected;
use crate::source::tcp::{Closer, TcpTransport};
use crate::text::escaped;

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// How long a server may work on a query without sending a byte.
const SCAN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Status flag: another result follows.
const MORE_RESULTS: u16 = 0x08;

/// A connection that is logged in.
pub(crate) struct Client {
    packets: Packets,
    /// The number of the connection, by which `KILL` names it.
    pub(crate) id: u32,
    pub(crate) version: String,
    pub(crate) is_mariadb: bool,
    /// A read fails after this long without a byte.
    idle: Duration,
}

/// A column of a result, as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireColumn {
    pub(super) charset: u16,
    pub(super) kind: u8,
    pub(super) is_unsigned: bool,
    pub(super) decimals: u8,
}

/// A statement that the server has prepared.
pub(crate) struct Statement {
    id: u32,
    pub(crate) columns: Vec<WireColumn>,
}

/// What the server says of the rows that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The rows that are there now and were not before.
    pub(crate) rows: u64,
    /// The rows that it has read, where it says so.
    pub(crate) read: Option<u64>,
    /// The rows that it has left out or removed, where it says so.
    pub(crate) lost: u64,
    pub(crate) warnings: u16,
}

impl Taken {
    /// Reads an OK behind its first byte. Its text may be in any language, but has the numbers of records, of deleted and of
    /// skipped ones, and of warnings in this order.
    fn read(packet: &[u8]) -> Option<Self> {
        let mut parts = Parts(packet);
        let rows = parts.length()?;
        parts.length()?;
        parts.u16()?;
        let warnings = parts.u16()?;
        // The text has its length before it, or has not.
        let rest = parts.0;
        let text = parts.bytes().filter(|_| parts.0.is_empty()).unwrap_or(rest);
        let numbers = text.split(|byte| !byte.is_ascii_digit());
        let numbers = numbers.filter_map(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let numbers: Vec<u64> = numbers.collect();
        let (read, lost) = match numbers[..] {
            [read, deleted, skipped, _] => (Some(read), deleted.saturating_add(skipped)),
            _ => (None, 0),
        };
        Some(Self { rows, read, lost, warnings })
    }
}

/// A row of text; `None` is null.
pub(crate) type TextRow = Vec<Option<String>>;

impl Connected for Client {
    fn closer(&self) -> Result<Closer> {
        self.packets.closer().map_err(|error| CommandError::from(error).into())
    }
}

impl Client {
    /// Connects and logs in. A read that receives no byte for `idle` fails.
    pub(crate) fn connect(
        database: &Database,
        idle: Duration,
        on_wire: &dyn Fn(Closer),
    ) -> Result<Self> {
        let Database { host, port, tunnel, .. } = database;
        let wire = TcpTransport::connect(host, *port, tunnel.as_ref(), idle)?;
        on_wire(wire.closer().map_err(CommandError::from)?);
        let encrypted = database.tls.mode != TlsMode::Disable;
        let (packets, greeting) = handshake(Packets::new(wire), database).map_err(|fault| {
            let denied = fault.code() == Some(1045);
            let error = Error::from(fault)
                .context(format!("{}:{}: as `{}`", database.host, database.port, database.user));
            match (denied, encrypted) {
                (false, _) => error,
                // A server that requires TLS of a user refuses the login without it in the same words.
                (true, false) => error.hint(
                    "check user and password; the server may also require TLS of this user: \
                     sslmode=require",
                ),
                (true, true) => error.hint("check user and password (MYSQL_PWD)"),
            }
        })?;
        let is_mariadb = greeting.version.contains("MariaDB");
        // MariaDB prefixes its version with this for the sake of old replicas.
        let version = greeting.version.strip_prefix("5.5.5-").unwrap_or(&greeting.version);
        let version = escaped(version).to_string();
        Ok(Self { packets, id: greeting.id, version, is_mariadb, idle })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.packets.is_tls()
    }

    /// Says goodbye, so that the server does not log an aborted connection.
    pub(crate) fn quit(mut self) {
        let _ = self.command(COM_QUIT, b""); // it may be gone already
    }

    /// Runs statements and passes each row of their results to `each`.
    pub(super) fn query_each(
        &mut self,
        sql: &str,
        each: impl FnMut(&[Option<&[u8]>]),
    ) -> Result<(), CommandError> {
        self.ask(sql)?;
        self.answer(each)
    }

    /// Sends statements. Their results must be taken with `answer` before anything else is sent.
    pub(super) fn ask(&mut self, sql: &str) -> Result<(), CommandError> {
        tracing::debug!("{}", escaped(sql));
        self.command(COM_QUERY, sql.as_bytes())
    }

    /// Passes each row of the results of the statements that were sent to `each`.
    pub(super) fn answer(
        &mut self,
        mut each: impl FnMut(&[Option<&[u8]>]),
    ) -> Result<(), CommandError> {
        loop {
            let status = match self.begin_result()? {
                Begun::Done(status) => status,
                Begun::Rows(count) => {
                    for _ in 0..count {
                        self.packets.next()?;
                    }
                    self.end_of_columns()?;
                    loop {
                        let packet = self.packets.next()?;
                        if let Some(status) = end(packet)? {
                            break status;
                        }
                        let mut parts = Parts(packet);
                        let row = (0..count).map(|_| parts.text()).collect::<Option<Vec<_>>>();
                        each(&row.ok_or_else(|| CommandError::nonsense("a row"))?);
                    }
                }
            };
            if status & MORE_RESULTS == 0 {
                return Ok(());
            }
        }
    }

    /// Runs statements and returns the rows of all their results.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, CommandError> {
        let mut rows = Vec::new();
        self.query_each(sql, |row| {
            let text =
                |value: &Option<&[u8]>| value.map(|v| String::from_utf8_lossy(v).into_owned());
            rows.push(row.iter().map(text).collect());
        })?;
        Ok(rows)
    }

    /// The first value of the first row.
    pub(crate) fn value(&mut self, sql: &str) -> Result<Option<String>, CommandError> {
        let first = self.query(sql)?.into_iter().next();
        Ok(first.and_then(|row| row.into_iter().next().flatten()))
    }

    /// Like `value`, for a query that the server may work on for long without sending a byte. TCP's keep-alive shows
    /// whether the server is still there.
    pub(crate) fn value_of_scan(&mut self, sql: &str) -> Result<Option<String>, CommandError> {
        Ok(self.row_of_scan(sql)?.into_iter().next().flatten())
    }

    /// The first row of such a query, which is empty where there is none.
    pub(crate) fn row_of_scan(&mut self, sql: &str) -> Result<TextRow, CommandError> {
        self.packets.wait_for(SCAN)?;
        let rows = self.query(sql);
        self.packets.wait_for(self.idle)?;
        Ok(rows?.into_iter().next().unwrap_or_default())
    }

    /// Frees the memory of a large row after its use.
    pub(super) fn release(&mut self) {
        self.packets.release();
    }

    /// Prepares a statement without parameters.
    pub(crate) fn prepare(&mut self, sql: &str) -> Result<Statement, CommandError> {
        tracing::debug!("{}", escaped(sql));
        self.command(COM_STMT_PREPARE, sql.as_bytes())?;
        let packet = self.packets.next()?;
        end(packet)?;
        let mut parts = Parts(packet);
        let read = parts.byte().zip(parts.u32()).zip(parts.u16()).zip(parts.u16());
        let Some((((0, id), columns), 0)) = read else {
            return Err(CommandError::nonsense("a prepared statement"));
        };
        let columns = match columns {
            0 => Vec::new(),
            count => self.columns(usize::from(count))?,
        };
        Ok(Statement { id, columns })
    }

    /// Runs a statement. All its rows must be taken with `row` before anything else is sent.
    pub(crate) fn execute(
        &mut self,
        statement: &Statement,
    ) -> Result<Vec<WireColumn>, CommandError> {
        let mut payload = statement.id.to_le_bytes().to_vec();
        payload.push(0); // no cursor: the server sends all rows as it finds them
        payload.extend_from_slice(&1u32.to_le_bytes());
        self.command(COM_STMT_EXECUTE, &payload)?;
        match self.begin_result()? {
            Begun::Rows(count) => self.columns(count),
            Begun::Done(_) => Err(CommandError::nonsense("a result without columns")),
        }
    }

    /// The next row in the binary format, without its first byte; `None` once the server has said that there are no
    /// more.
    #[inline]
    pub(crate) fn row(&mut self) -> Result<Option<&[u8]>, CommandError> {
        let packet = self.packets.next()?;
        match packet.first() {
            Some(0x00) => Ok(Some(&packet[1..])),
            _ => match end(packet)? {
                Some(status) if status & MORE_RESULTS == 0 => Ok(None),
                _ => Err(CommandError::nonsense("what follows a row")),
            },
        }
    }

    /// Closes a statement; the server sends no answer to this.
    pub(super) fn close(&mut self, statement: &Statement) -> Result<(), CommandError> {
        self.command(COM_STMT_CLOSE, &statement.id.to_le_bytes())
    }

    /// Runs `LOAD DATA LOCAL INFILE`, whose file is what `next` appends: it returns whether more follows. No file is ever
    /// opened. An error of `next` ends the statement with what it was given so far, so the caller must undo it.
    pub(crate) fn load(
        &mut self,
        sql: &str,
        packet_bytes: usize,
        mut next: impl FnMut(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<Taken, CommandError> {
        self.ask(sql)?;
        match self.packets.next()? {
            [0xfb, ..] => {}
            packet @ [0xff, ..] => return Err(CommandError::Server(server_error(packet))),
            _ => return Err(CommandError::nonsense("it asks for no rows")),
        }
        let (mut buffer, mut goes_on) = (Vec::new(), Ok(true));
        while let Ok(true) = goes_on {
            buffer.clear();
            goes_on = next(&mut buffer);
            for part in buffer.chunks(packet_bytes) {
                self.packets.send(part)?;
            }
        }
        self.packets.send(&[])?;
        let taken = self.taken();
        goes_on.map_err(CommandError::Stopped)?;
        taken
    }

    /// Runs a statement that changes rows and may be long. It is not logged, since it has values.
    pub(crate) fn change(&mut self, sql: &[u8]) -> Result<Taken, CommandError> {
        self.command(COM_QUERY, sql)?;
        self.taken()
    }

    /// The answer to a statement that has changed rows. The server may work on it for long.
    fn taken(&mut self) -> Result<Taken, CommandError> {
        self.packets.wait_for(SCAN)?;
        let packet = self.packets.next()?;
        let taken = match packet {
            [0xff, ..] => Err(CommandError::Server(server_error(packet))),
            [0x00, rest @ ..] => Taken::read(rest).ok_or_else(|| CommandError::nonsense("an OK")),
            _ => Err(CommandError::nonsense("what follows a change")),
        };
        self.packets.wait_for(self.idle)?;
        taken
    }

    fn command(&mut self, command: u8, payload: &[u8]) -> Result<(), CommandError> {
        self.packets.restart();
        Ok(self.packets.send(&[&[command], payload].concat())?)
    }

    fn begin_result(&mut self) -> Result<Begun, CommandError> {
        let packet = self.packets.next()?;
        let mut parts = Parts(packet);
        match packet.first() {
            Some(0xff) => Err(CommandError::Server(server_error(packet))),
            Some(0x00) => {
                parts.byte();
                let status = parts.length().zip(parts.length()).and_then(|_| parts.u16());
                status.map(Begun::Done).ok_or_else(|| CommandError::nonsense("an OK"))
            }
            // LOAD DATA LOCAL: the server asks for a local file, and no such statement was sent.
            Some(0xfb) => Err(CommandError::nonsense("it asks for a file")),
            _ => {
                let count = parts.length().and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| *count <= usize::from(u16::MAX));
                count.map(Begun::Rows).ok_or_else(|| CommandError::nonsense("a number of columns"))
            }
        }
    }

    fn columns(&mut self, count: usize) -> Result<Vec<WireColumn>, CommandError> {
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let column = column(self.packets.next()?);
            columns.push(column.ok_or_else(|| CommandError::nonsense("a column"))?);
        }
        self.end_of_columns()?;
        Ok(columns)
    }

    fn end_of_columns(&mut self) -> Result<(), CommandError> {
        match end(self.packets.next()?)? {
            Some(_) => Ok(()),
            None => Err(CommandError::nonsense("the end of the columns")),
        }
    }
}

/// How a result begins.
enum Begun {
    /// There are no rows. Holds the status.
    Done(u16),
    /// There are rows. Holds the number of their columns.
    Rows(usize),
}

/// The status if the packet ends a list of columns or rows, and the server's error if the packet is one.
fn end(packet: &[u8]) -> Result<Option<u16>, CommandError> {
    match packet {
        [0xff, ..] => Err(CommandError::Server(server_error(packet))),
        // A longer packet with this first byte is a row that begins with a value of more than 16 MiB.
        [0xfe, _, _, low, high] => Ok(Some(u16::from_le_bytes([*low, *high]))),
        _ => Ok(None),
    }
}

fn column(packet: &[u8]) -> Option<WireColumn> {
    let mut parts = Parts(packet);
    for _ in 0..6 {
        parts.bytes()?; // catalog, database, table twice, name twice
    }
    parts.length()?;
    let charset = parts.u16()?;
    parts.u32()?; // length
    let kind = parts.byte()?;
    let flags = parts.u16()?;
    let decimals = parts.byte()?;
    Some(WireColumn { charset, kind, is_unsigned: flags & 0x20 != 0, decimals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_read_with_and_without_a_length_before_the_text() {
        let text = b"Records: 12  Deleted: 0  Skipped: 3  Warnings: 4";
        let expected = Taken { rows: 9, read: Some(12), lost: 3, warnings: 4 };
        let head = [9, 0, 2, 0, 4, 0];
        let with_length = [&head[..], &[text.len() as u8], text].concat();
        for packet in [[&head[..], text].concat(), with_length] {
            assert_eq!(Taken::read(&packet), Some(expected));
        }
        let nothing = Taken { rows: 9, read: None, lost: 0, warnings: 4 };
        assert_eq!(Taken::read(&head), Some(nothing));
        assert_eq!(Taken::read(&head[..3]), None);
    }
}
