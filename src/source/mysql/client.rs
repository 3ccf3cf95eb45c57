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
pub(super) struct Client {
    packets: Packets,
    /// The number of the connection, by which `KILL` names it.
    pub(super) id: u32,
    pub(super) version: String,
    pub(super) is_mariadb: bool,
    /// A read fails after this long without a byte.
    idle: Duration,
}

/// A column of a result, as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireColumn {
    pub(super) charset: u16,
    pub(super) kind: u8,
    pub(super) is_unsigned: bool,
    pub(super) decimals: u8,
}

/// A statement that the server has prepared.
pub(super) struct Statement {
    id: u32,
    pub(super) columns: Vec<WireColumn>,
}

/// A row of text; `None` is null.
pub(super) type TextRow = Vec<Option<String>>;

impl Connected for Client {
    fn closer(&self) -> Result<Closer> {
        self.packets.closer().map_err(|error| CommandError::from(error).into())
    }
}

impl Client {
    /// Connects and logs in. A read that receives no byte for `idle` fails.
    pub(super) fn connect(
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

    pub(super) fn is_tls(&self) -> bool {
        self.packets.is_tls()
    }

    /// Says goodbye, so that the server does not log an aborted connection.
    pub(super) fn quit(mut self) {
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
    pub(super) fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, CommandError> {
        let mut rows = Vec::new();
        self.query_each(sql, |row| {
            let text =
                |value: &Option<&[u8]>| value.map(|v| String::from_utf8_lossy(v).into_owned());
            rows.push(row.iter().map(text).collect());
        })?;
        Ok(rows)
    }

    /// The first value of the first row.
    pub(super) fn value(&mut self, sql: &str) -> Result<Option<String>, CommandError> {
        let first = self.query(sql)?.into_iter().next();
        Ok(first.and_then(|row| row.into_iter().next().flatten()))
    }

    /// Like `value`, for a query that the server may work on for long without sending a byte. TCP's keep-alive shows
    /// whether the server is still there.
    pub(super) fn value_of_scan(&mut self, sql: &str) -> Result<Option<String>, CommandError> {
        Ok(self.row_of_scan(sql)?.into_iter().next().flatten())
    }

    /// The first row of such a query, which is empty where there is none.
    pub(super) fn row_of_scan(&mut self, sql: &str) -> Result<TextRow, CommandError> {
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
    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, CommandError> {
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
    pub(super) fn execute(
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
    pub(super) fn row(&mut self) -> Result<Option<&[u8]>, CommandError> {
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
            // LOAD DATA LOCAL: the server asks for a local file, which moveout never offers.
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
