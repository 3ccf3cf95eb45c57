//! Rows of a slice from a session to the batches of its chunk. Complete is what the server has ended well,
//! and counts as many rows of as were decoded.

use crate::error::{Class, Error, Result};
use crate::model::Table;
use crate::source::channel::BatchSender;
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::client::{Client, Statement, WireColumn};
use crate::source::mysql::rows::{Rows, Unfit};
use crate::source::mysql::select::{Part, quoted};
use crate::source::mysql::session::Session;
use crate::source::mysql::status::Fault;
use crate::source::mysql::types::{Decode, decode};

/// How a read ended of which the session is whole.
pub(super) enum Outcome {
    /// All rows are there.
    Complete,
    /// It cannot go on as it was listed, or nobody wants the rows any more.
    Stopped(Error),
    /// Values that their columns cannot hold.
    Unfit(Vec<Unfit>),
}

/// How a read did not end well; nothing is on its way any more.
enum Failure {
    Fault(Fault),
    Ours(Error),
    Unfit(Vec<Unfit>),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What another connection does for a read.
#[derive(Clone, Copy)]
pub(super) struct Aside<'a> {
    /// Stops what the server is sending to a connection: `KILL QUERY`.
    pub(super) stop: &'a (dyn Fn(u32) -> Result<()> + Sync),
    /// Whether the table is still the one that was listed. Asked while the read has its lock, which keeps others from
    /// changing that.
    pub(super) is_still: &'a (dyn Fn() -> Result<()> + Sync),
}

/// Where batches go, as long as they are wanted.
pub(super) struct Sink<'a> {
    pub(super) batches: &'a BatchSender,
    /// Another part of the chunk has failed.
    pub(super) is_over: &'a (dyn Fn() -> bool + Sync),
}

/// Reads all rows of a part.
pub(super) fn read(
    session: &mut Session,
    part: &Part<'_>,
    sink: &Sink<'_>,
    aside: Aside<'_>,
) -> std::result::Result<Outcome, Fault> {
    let Session { client, charsets, .. } = session;
    let outcome = match stream(client, charsets, part, sink, aside) {
        Ok(()) => return Ok(Outcome::Complete),
        Err(Failure::Fault(Fault::Broken(error))) => return Err(Fault::Broken(error)),
        Err(Failure::Fault(fault)) => Err(fault),
        Err(Failure::Ours(error)) => Ok(Outcome::Stopped(error)),
        Err(Failure::Unfit(unfit)) => Ok(Outcome::Unfit(unfit)),
    };
    free(client)?;
    outcome
}

/// Gives the table free, so that others may alter it; the snapshot stays.
///
/// Where the savepoint is gone (a deadlock rolled the transaction back), so is the snapshot.
fn free(client: &mut Client) -> std::result::Result<(), Fault> {
    match client.query(FREE) {
        Ok(_) => Ok(()),
        Err(Fault::Server(error)) => Err(Fault::Broken(Error::of(
            Class::Retry,
            format!("the snapshot is lost: {}", Error::from(error)),
        ))),
        Err(broken) => Err(broken),
    }
}

/// Frees what was read for who wants to alter it.
pub(super) const FREE: &str = "ROLLBACK TO SAVEPOINT moveout";

fn stream(
    client: &mut Client,
    charsets: &Charsets,
    part: &Part<'_>,
    sink: &Sink<'_>,
    aside: Aside<'_>,
) -> std::result::Result<(), Failure> {
    let (statement, decodes) = prepare(client, charsets, part)?;
    if client.execute(&statement)? != statement.columns {
        drain(client, aside)?;
        return Err(Failure::Ours(changed("the answer has other columns than the question")));
    }
    let mut rows = Rows::new(part.table.arrow_schema(), &decodes);
    let mut count: u64 = 0;
    while let Some(row) = client.row()? {
        rows.push(row).ok_or_else(|| Fault::nonsense("a row"))?;
        count += 1;
        if rows.is_full() {
            // A huge row is not held twice while the writer works on it.
            client.release();
            if let Err(failure) = send(&mut rows, sink) {
                drain(client, aside)?;
                return Err(failure);
            }
        }
    }
    if !rows.is_empty() {
        send(&mut rows, sink)?;
    }
    client.close(&statement)?;
    (aside.is_still)().map_err(Failure::Ours)?;
    let counted = client.value(&format!("SELECT FOUND_ROWS(); {FREE}"));
    match counted {
        Ok(said) if said.as_deref() == Some(&count.to_string()) => Ok(()),
        Ok(said) => {
            let said = said.unwrap_or_default();
            Err(Fault::nonsense(&format!("{count} rows came, it counts {said}")).into())
        }
        // MySQL will drop this function; the end of the rows was said all the same.
        Err(Fault::Server(_)) => Ok(free(client)?),
        Err(broken) => Err(broken.into()),
    }
}

/// Ends what the server is sending without ending the connection, which has the snapshot.
fn drain(client: &mut Client, aside: Aside<'_>) -> std::result::Result<(), Fault> {
    (aside.stop)(client.id)?;
    loop {
        match client.row() {
            Ok(Some(_)) => {}
            Err(Fault::Server(_)) => return Ok(()),
            Err(broken) => return Err(broken),
            // It was faster, so that the next statement may be the one that is stopped.
            Ok(None) => {
                return match client.query("DO 0") {
                    Err(Fault::Broken(error)) => Err(Fault::Broken(error)),
                    _ => Ok(()),
                };
            }
        }
    }
}

fn send(rows: &mut Rows, sink: &Sink<'_>) -> std::result::Result<(), Failure> {
    let batch = rows.finish().map_err(Failure::Ours)?.map_err(Failure::Unfit)?;
    if (sink.is_over)() {
        return Err(Failure::Ours(Error::of(Class::Retry, "another part of the table has failed")));
    }
    sink.batches.blocking_send(batch).map_err(Failure::Ours)
}

fn changed(what: &str) -> Error {
    Error::of(Class::SchemaChanged, what)
}

/// Prepares the statement, and finds out how to decode what it will give.
fn prepare(
    client: &mut Client,
    charsets: &Charsets,
    part: &Part<'_>,
) -> std::result::Result<(Statement, Vec<Decode>), Failure> {
    let table = part.table;
    let plain = client.prepare(&part.columns(|_, name| name))?;
    let foreign: Vec<Option<&str>> = foreign(&plain.columns, charsets, table)?;
    if foreign.iter().all(Option::is_none) {
        let decodes = decodes(&plain.columns, charsets, table)?;
        return Ok((plain, decodes));
    }
    client.close(&plain)?;
    // The server decodes these; first it must show that it loses nothing by that.
    let mut unfit = Vec::new();
    for (at, charset) in foreign.iter().enumerate().filter_map(|(at, name)| Some((at, (*name)?))) {
        let name = quoted(&table.columns[at].key);
        let there_and_back = format!("CONVERT(CONVERT({name} USING utf8mb4) USING {charset})");
        let lost = format!("NOT (CAST({name} AS BINARY) <=> CAST({there_and_back} AS BINARY))");
        let ask = format!("{} LIMIT 1", part.and(&lost).select("1"));
        if client.value_of_scan(&ask)?.is_some() {
            unfit.push(Unfit::Text(at));
        }
    }
    if !unfit.is_empty() {
        return Err(Failure::Unfit(unfit));
    }
    let converted = client.prepare(&part.columns(|at, name| match foreign[at] {
        None => name,
        Some(_) => format!("CONVERT({name} USING utf8mb4)"),
    }))?;
    let decodes = decodes(&converted.columns, charsets, table)?;
    Ok((converted, decodes))
}

/// The charsets of the columns which only the server can decode.
fn foreign<'a>(
    wires: &[WireColumn],
    charsets: &'a Charsets,
    table: &Table,
) -> std::result::Result<Vec<Option<&'a str>>, Failure> {
    if wires.len() != table.columns.len() {
        return Err(Failure::Ours(changed("it has other columns than were listed")));
    }
    let columns = wires.iter().zip(&table.columns).map(|(wire, column)| {
        match decode(*wire, &column.data_type, charsets.of(wire.charset)) {
            Some(Err(_)) => Some(charsets.name(wire.charset)),
            _ => None,
        }
    });
    let columns: Vec<Option<Option<&str>>> = columns.collect();
    // What not even the server has a name for is kept as it is.
    let nameless = columns.iter().enumerate().filter(|(_, found)| **found == Some(None));
    let unfit: Vec<Unfit> = nameless.map(|(at, _)| Unfit::Text(at)).collect();
    match unfit.is_empty() {
        true => Ok(columns.into_iter().map(Option::flatten).collect()),
        false => Err(Failure::Unfit(unfit)),
    }
}

fn decodes(
    wires: &[WireColumn],
    charsets: &Charsets,
    table: &Table,
) -> std::result::Result<Vec<Decode>, Failure> {
    let decodes = wires.iter().zip(&table.columns).map(|(wire, column)| {
        let decode = decode(*wire, &column.data_type, charsets.of(wire.charset));
        let decode = decode.and_then(std::result::Result::ok);
        decode.ok_or_else(|| {
            let WireColumn { kind, charset, .. } = wire;
            Failure::Ours(changed(&format!(
                "its column `{}` was listed as {}, and comes as type {kind} in charset {charset}",
                column.key, column.source_type
            )))
        })
    });
    decodes.collect()
}
