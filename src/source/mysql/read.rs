//! Reads the rows of a slice into the batches of its chunk. A read is complete when the server has ended it without an
//! error and counts as many rows as were decoded.

use crate::error::{Class, Error, Result};
use crate::model::Table;
use crate::source::channel::BatchSender;
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::client::{Client, Statement, WireColumn};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::rows::{NOT_TEXT, Rows, TooNarrow};
use crate::source::mysql::select::{Part, quoted};
use crate::source::mysql::session::Session;
use crate::source::mysql::types::{Decode, decode};
use crate::source::relational::type_overrides::TypeOverrides;

/// What a read needs from another connection.
#[derive(Clone, Copy)]
pub(super) struct Aside<'a> {
    /// Stops the statement whose rows the server is sending on a connection, by `KILL QUERY`.
    pub(super) stop: &'a (dyn Fn(u32) -> Result<()> + Sync),
    /// Fails if the table is no longer the one that was listed. It is asked while the read still holds the table's lock,
    /// so that the answer stays true.
    pub(super) is_still: &'a (dyn Fn() -> Result<()> + Sync),
}

/// Where the batches of a read go.
pub(super) struct Sink<'a> {
    pub(super) batches: &'a BatchSender,
    /// Where columns whose types are too narrow are recorded.
    pub(super) type_overrides: &'a TypeOverrides,
    /// Whether another part of the chunk has failed, so that the rows are no longer wanted.
    pub(super) is_over: &'a (dyn Fn() -> bool + Sync),
}

impl Sink<'_> {
    fn learn(&self, table: &Table, too_narrow: TooNarrow) -> CommandError {
        CommandError::Stopped(self.type_overrides.learn(table, too_narrow))
    }
}

/// Reads all rows of a part.
pub(super) fn read(
    session: &mut Session,
    part: &Part<'_>,
    sink: &Sink<'_>,
    aside: Aside<'_>,
) -> Result<(), CommandError> {
    let Session { client, charsets, .. } = session;
    let read = stream(client, charsets, part, sink, aside);
    if let Err(CommandError::Server(_) | CommandError::Stopped(_)) = read {
        free(client)?;
    }
    read
}

/// Releases the lock on the table, so that others may alter it, and keeps the snapshot. If a deadlock has rolled the
/// transaction back, the savepoint is gone, and the snapshot with it.
fn free(client: &mut Client) -> Result<(), CommandError> {
    match client.query(FREE) {
        Ok(_) => Ok(()),
        Err(CommandError::Server(error)) => Err(CommandError::Broken(Error::of(
            Class::Retry,
            format!("the snapshot is lost: {}", Error::from(error)),
        ))),
        Err(broken) => Err(broken),
    }
}

/// Releases the locks on the tables that were read.
pub(super) const FREE: &str = "ROLLBACK TO SAVEPOINT moveout";

fn stream(
    client: &mut Client,
    charsets: &Charsets,
    part: &Part<'_>,
    sink: &Sink<'_>,
    aside: Aside<'_>,
) -> Result<(), CommandError> {
    let (statement, decodes) = prepare(client, charsets, part, sink)?;
    if client.execute(&statement)? != statement.columns {
        drain(client, aside)?;
        return Err(CommandError::Stopped(changed(
            "the columns of the table changed before it was read",
        )));
    }
    let mut rows = Rows::new(part.table.arrow_schema(), &decodes);
    let mut count: u64 = 0;
    while let Some(row) = client.row()? {
        rows.push(row).ok_or_else(|| CommandError::nonsense("a row"))?;
        count += 1;
        if rows.is_full() {
            // While the writer works on a huge row, the memory of its packet is not kept.
            client.release();
            if let Err(fault) = send(&mut rows, part, sink) {
                drain(client, aside)?;
                return Err(fault);
            }
        }
    }
    if !rows.is_empty() {
        send(&mut rows, part, sink)?;
    }
    client.close(&statement)?;
    (aside.is_still)().map_err(CommandError::Stopped)?;
    let counted = client.value(&format!("SELECT FOUND_ROWS(); {FREE}"));
    match counted {
        Ok(counted) if counted.as_deref() == Some(&count.to_string()) => Ok(()),
        Ok(counted) => {
            let counted = counted.unwrap_or_default();
            Err(CommandError::nonsense(&format!(
                "{count} rows arrived, but the server counts {counted}"
            )))
        }
        // MySQL will drop this function. Without it, the regular end of the rows has to do.
        Err(CommandError::Server(_)) => free(client),
        Err(broken) => Err(broken),
    }
}

/// Stops the statement whose rows the server is sending. The connection is kept, since it holds the snapshot.
fn drain(client: &mut Client, aside: Aside<'_>) -> Result<(), CommandError> {
    (aside.stop)(client.id)?;
    loop {
        match client.row() {
            Ok(Some(_)) => {}
            Err(CommandError::Server(_)) => return Ok(()),
            Err(broken) => return Err(broken),
            // The rows ended before the KILL arrived, which may now hit the next statement instead.
            Ok(None) => {
                return match client.query("DO 0") {
                    Err(CommandError::Broken(error)) => Err(CommandError::Broken(error)),
                    _ => Ok(()),
                };
            }
        }
    }
}

fn send(rows: &mut Rows, part: &Part<'_>, sink: &Sink<'_>) -> Result<(), CommandError> {
    let batch = rows.finish().map_err(CommandError::Stopped)?;
    let batch = batch.map_err(|too_narrow| sink.learn(part.table, too_narrow))?;
    if (sink.is_over)() {
        return Err(CommandError::Stopped(Error::of(
            Class::Retry,
            "another part of the table has failed",
        )));
    }
    sink.batches.blocking_send(batch).map_err(CommandError::Stopped)
}

fn changed(what: &str) -> Error {
    Error::of(Class::SchemaChanged, what)
}

/// Prepares the statement and finds out how to decode its rows.
fn prepare(
    client: &mut Client,
    charsets: &Charsets,
    part: &Part<'_>,
    sink: &Sink<'_>,
) -> Result<(Statement, Vec<Decode>), CommandError> {
    let table = part.table;
    let plain = client.prepare(&part.columns(|_, name| name))?;
    let foreign = foreign(&plain.columns, charsets, table, sink)?;
    if foreign.iter().all(Option::is_none) {
        let decodes = decodes(&plain.columns, charsets, table)?;
        return Ok((plain, decodes));
    }
    client.close(&plain)?;
    // The server converts these columns, after it has shown that converting them back gives the same bytes.
    let mut too_narrow = Vec::new();
    for (at, charset) in foreign.iter().enumerate().filter_map(|(at, name)| Some((at, (*name)?))) {
        let name = quoted(&table.columns[at].key);
        let there_and_back = format!("CONVERT(CONVERT({name} USING utf8mb4) USING {charset})");
        let lost = format!("NOT (CAST({name} AS BINARY) <=> CAST({there_and_back} AS BINARY))");
        let ask = format!("{} LIMIT 1", part.and(&lost).select("1"));
        if client.value_of_scan(&ask)?.is_some() {
            too_narrow.push((at, NOT_TEXT));
        }
    }
    if !too_narrow.is_empty() {
        return Err(sink.learn(table, too_narrow));
    }
    let converted = client.prepare(&part.columns(|at, name| match foreign[at] {
        None => name,
        Some(_) => format!("CONVERT({name} USING utf8mb4)"),
    }))?;
    let decodes = decodes(&converted.columns, charsets, table)?;
    Ok((converted, decodes))
}

/// For each column that only the server can decode, its charset.
fn foreign<'a>(
    wires: &[WireColumn],
    charsets: &'a Charsets,
    table: &Table,
    sink: &Sink<'_>,
) -> Result<Vec<Option<&'a str>>, CommandError> {
    if wires.len() != table.columns.len() {
        return Err(CommandError::Stopped(changed("the table has other columns than were listed")));
    }
    let columns = wires.iter().zip(&table.columns).map(|(wire, column)| {
        match decode(*wire, &column.data_type, charsets.of(wire.charset)) {
            Some(Err(_)) => Some(charsets.name(wire.charset)),
            _ => None,
        }
    });
    let columns: Vec<Option<Option<&str>>> = columns.collect();
    // Text in a charset that the server has no name for is kept as bytes.
    let nameless = columns.iter().enumerate().filter(|(_, found)| **found == Some(None));
    let too_narrow: TooNarrow = nameless.map(|(at, _)| (at, NOT_TEXT)).collect();
    if too_narrow.is_empty() {
        Ok(columns.into_iter().map(Option::flatten).collect())
    } else {
        Err(sink.learn(table, too_narrow))
    }
}

fn decodes(
    wires: &[WireColumn],
    charsets: &Charsets,
    table: &Table,
) -> Result<Vec<Decode>, CommandError> {
    let decodes = wires.iter().zip(&table.columns).map(|(wire, column)| {
        let decode = decode(*wire, &column.data_type, charsets.of(wire.charset));
        let decode = decode.and_then(std::result::Result::ok);
        decode.ok_or_else(|| {
            let WireColumn { kind, charset, .. } = wire;
            CommandError::Stopped(changed(&format!(
                "the column `{}` was listed as {}, but arrives as type {kind} in charset {charset}",
                column.key, column.source_type
            )))
        })
    });
    decodes.collect()
}
