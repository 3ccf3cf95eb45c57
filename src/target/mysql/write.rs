//! Writes the rows of a chunk and its record in one transaction: by `LOAD DATA LOCAL INFILE` with a file that is made
//! in memory, or by `INSERT` if the server does not allow that. Blocks.

use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::record::{self, Of};
use super::server::{Inner, is_elsewhere, is_loose};
use super::values::{Style, Values, row};
use crate::error::{Class, Error, Result};
use crate::model::{Column, TableId};
use crate::source::mysql::client::{Client, Taken};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted, table_name};
use crate::source::relational::cancel::CancelToken;
use crate::target::relational::{AllRead, written};
use crate::target::{ChunkOut, Written};
use crate::text::printable;

/// The bytes of rows that are sent to the server at once.
const PIECE_BYTES: usize = 1 << 18;

/// The most bytes of a statement, unless a single row needs more.
const STATEMENT_BYTES: usize = 1 << 20;

/// The errors of a server that does not allow `LOAD DATA LOCAL` (MySQL, MariaDB, older versions of both).
const NO_FILES: [u16; 3] = [3948, 4166, 1148];

/// How the rows of a chunk are written into a table.
struct Layout<'a> {
    table: &'a TableId,
    /// Each column that is sent: its position in the batches, and whether the server warns of an empty text in it.
    columns: Vec<(usize, &'a Column, bool)>,
    /// Settings of the session that its values need.
    settings: String,
    is_loose: bool,
    /// The size of the largest packet that the server takes.
    packet_bytes: usize,
}

impl<'a> Layout<'a> {
    /// Compares the columns of a chunk with those of the table in the target.
    fn ask(
        client: &mut Client,
        table: &'a TableId,
        columns: &'a [Column],
    ) -> Result<Self, CommandError> {
        let (database, name) = (literal(&table.database), literal(&table.table));
        let sql = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {name}"
        );
        let mut there = std::collections::HashMap::new();
        for row in client.query(&sql)? {
            // The server may have compared the names without regard to case.
            if let Ok([Some(schema), Some(of), Some(name), expression]) = <[_; 4]>::try_from(row)
                && (&schema, &of) == (&table.database, &table.table)
            {
                there.insert(name, expression.unwrap_or_default());
            }
        }
        let sql = format!(
            "SELECT ENGINE, TABLE_TYPE FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = BINARY {database} AND TABLE_NAME = BINARY {name}"
        );
        let of_table = client.query(&sql)?.into_iter().next().unwrap_or_default();
        let of_table: Vec<String> = of_table.into_iter().map(Option::unwrap_or_default).collect();
        let is_versioned = of_table.get(1).is_some_and(|kind| kind == "SYSTEM VERSIONED");
        let (mut sent, mut has_history, mut has_odd_dates) = (Vec::new(), false, false);
        for (at, column) in columns.iter().enumerate() {
            match there.get(&column.key).map(|expression| expression.to_uppercase()) {
                // These are the two columns that tell when a row was current.
                Some(expression) if matches!(expression.as_str(), "ROW START" | "ROW END") => {
                    has_history = true;
                }
                None if is_versioned && matches!(column.key.as_str(), "ROW_START" | "ROW_END") => {
                    has_history = true;
                }
                Some(expression) if expression.is_empty() => {}
                // The server computes this column.
                Some(_) => continue,
                None => {
                    return Err(CommandError::Stopped(
                        Error::stop(format!(
                            "the table {table} of the target has no column {}",
                            column.key.escape_debug()
                        ))
                        .hint("make the tables as the archive's definitions say, or leave them to moveout"),
                    ));
                }
            }
            let is_date =
                ["date", "timestamp"].iter().any(|kind| column.source_type.starts_with(kind));
            has_odd_dates |= is_date && column.data_type == arrow::datatypes::DataType::Utf8;
            sent.push((at, column, is_enum_without_blank(&column.source_type)));
        }
        let odd = if has_odd_dates { ",ALLOW_INVALID_DATES" } else { "" };
        let history = if has_history { ", system_versioning_insert_history = 1" } else { "" };
        let settings = format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO{odd}'{history}"
        );
        let packet = client.value("SELECT @@max_allowed_packet")?;
        let packet_bytes = packet.and_then(|bytes| bytes.parse().ok()).unwrap_or(PIECE_BYTES);
        let engine = of_table.first().map(String::as_str).unwrap_or_default();
        if is_elsewhere(engine) {
            return Err(CommandError::Stopped(Error::stop(format!(
                "{table} is a table of {engine}, whose rows are those of others"
            ))));
        }
        Ok(Self { table, columns: sent, settings, is_loose: is_loose(engine), packet_bytes })
    }

    fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(_, column, _)| quoted(&column.key)).collect()
    }

    /// The statement that asks for a file. Bytes are sent in hexadecimal, because everything else is text in UTF-8.
    fn load(&self, are_bytes: &[bool]) -> String {
        let (mut columns, mut sets) = (Vec::new(), Vec::new());
        for ((number, name), is_bytes) in self.names().into_iter().enumerate().zip(are_bytes) {
            if *is_bytes {
                columns.push(format!("@v{number}"));
                sets.push(format!("{name} = UNHEX(@v{number})"));
            } else {
                columns.push(name);
            }
        }
        let sets =
            if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
        format!(
            "LOAD DATA LOCAL INFILE 'moveout' INTO TABLE {} CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' \
             ENCLOSED BY '' ESCAPED BY '\\\\' LINES STARTING BY '' TERMINATED BY '\\n' ({}){sets}",
            table_name(self.table),
            columns.join(", ")
        )
    }

    /// The statement before the lists of values. With `IGNORE`, errors become warnings, as they do for a file.
    fn insert(&self) -> Vec<u8> {
        let names = self.names().join(", ");
        format!("INSERT IGNORE INTO {} ({names}) VALUES ", table_name(self.table)).into_bytes()
    }

    fn values<'b>(&self, batch: &'b RecordBatch) -> Result<Vec<Values<'b>>> {
        let values = self.columns.iter().map(|(at, column, _)| {
            let array = batch.column(*at);
            Values::of(array, &column.source_type).ok_or_else(|| {
                Error::fail(format!(
                    "the column {} is of the type {}, which cannot be written",
                    column.key.escape_debug(),
                    array.data_type()
                ))
            })
        });
        values.collect()
    }
}

/// Whether a type is an ENUM without an empty member. A source that was not strict may still have empty values in it.
fn is_enum_without_blank(source_type: &str) -> bool {
    let Some(members) = source_type.strip_prefix("enum(") else { return false };
    let members = members.replace("''", "\0"); // a quotation mark, or a member of no length
    !members.split(',').any(|member| member.trim_end_matches(')') == "\0")
}

/// The rows of a chunk, piece by piece.
struct Feed<'a> {
    layout: &'a Layout<'a>,
    rows: mpsc::Receiver<RecordBatch>,
    /// The present batch, and its next row.
    batch: Option<(RecordBatch, usize)>,
    sent: u64,
    /// The number of warnings that these rows cause although their values are not changed.
    warnings: u64,
}

impl Feed<'_> {
    /// Gets the next batch if the present one is finished. Returns whether there are more rows.
    fn is_there(&mut self) -> bool {
        while self.batch.as_ref().is_none_or(|(batch, at)| *at >= batch.num_rows()) {
            match self.rows.blocking_recv() {
                Some(batch) => self.batch = Some((batch, 0)),
                None => return false,
            }
        }
        true
    }

    /// Passes each row to `push` until it returns `false` or the batch ends.
    fn each(&mut self, mut push: impl FnMut(&[Values<'_>], usize) -> bool) -> Result<()> {
        if let Some((batch, at)) = &mut self.batch {
            let values = self.layout.values(batch)?;
            while *at < batch.num_rows() {
                let blank = values.iter().zip(&self.layout.columns);
                let blank = blank.filter(|(values, (_, _, warns))| *warns && values.is_blank(*at));
                self.warnings += blank.count() as u64;
                let goes_on = push(&values, *at);
                *at += 1;
                self.sent += 1;
                if !goes_on {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Appends lines until there are enough of them. Returns `false` if there are no more.
    fn lines(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        while out.len() < PIECE_BYTES {
            if !self.is_there() {
                return Ok(false);
            }
            self.each(|values, at| {
                row(values, at, Style::Load, out);
                out.len() < PIECE_BYTES
            })?;
        }
        Ok(true)
    }

    /// Waits for the end of the rows without sending them.
    fn drain(mut self) {
        while self.rows.blocking_recv().is_some() {}
    }
}

/// Writes a chunk and its record, and commits them if all rows of the chunk could be read.
pub(super) fn write(
    inner: &Inner,
    chunk: &ChunkOut,
    rows: mpsc::Receiver<RecordBatch>,
    all_read: AllRead,
    cancel: &CancelToken,
) -> Result<Written> {
    let mut loose = false;
    let written = inner.with(cancel, |client| {
        let layout = Layout::ask(client, &chunk.table.to, &chunk.columns)?;
        loose = layout.is_loose;
        client.query(&layout.settings)?;
        let feed = Feed { layout: &layout, rows, batch: None, sent: 0, warnings: 0 };
        let written = match layout.is_loose {
            true => write_loose(inner, client, chunk, feed, all_read),
            false => write_at_once(inner, client, chunk, feed, all_read),
        };
        if matches!(written, Err(CommandError::Server(_) | CommandError::Stopped(_))) {
            client.query("ROLLBACK")?;
        }
        written
    });
    written.map_err(|error| match error.class() {
        // The table must begin anew, which only the next run does.
        _ if loose => {
            let again = Error::incomplete(error.to_string()).hint(format!(
                "the engine of {} undoes nothing: run the same command again, and the table begins anew",
                chunk.table.to
            ));
            if error.class() == Class::Fail { error } else { again }
        }
        Class::Fail => error.hint(
            "nothing of this chunk was written: change what the target refuses, and run the same command again to go on",
        ),
        _ => error,
    })
}

/// ER_DUP_ENTRY: the table already has this key.
const DUPLICATE: u16 = 1062;

/// Writes a chunk and its record in one transaction. The record is written first, so that it waits for an earlier
/// attempt whose end is not known yet.
fn write_at_once(
    inner: &Inner,
    client: &mut Client,
    chunk: &ChunkOut,
    mut feed: Feed<'_>,
    all_read: AllRead,
) -> Result<Written, CommandError> {
    let TableId { database, table, .. } = &chunk.table.to;
    let place = (table.as_str(), chunk.name.as_str());
    client.query("START TRANSACTION")?;
    match client.query(&record::add(database, Of::Chunk, place.0, place.1, 0)) {
        Err(CommandError::Server(error)) if error.code == DUPLICATE => {
            client.query("ROLLBACK")?;
            feed.drain();
            let there = record::chunk(client, database, place)?;
            return there.ok_or_else(|| CommandError::nonsense("the record of a chunk"));
        }
        recorded => recorded?,
    };
    let sent = send(inner, client, &mut feed)?;
    all_read.wait().map_err(CommandError::Stopped)?;
    client.query(&record::count(database, place, sent))?;
    client.query("COMMIT")?;
    Ok(written(sent))
}

/// Writes a chunk into a table without transactions. Before, the record says that the chunk is being written.
fn write_loose(
    inner: &Inner,
    client: &mut Client,
    chunk: &ChunkOut,
    mut feed: Feed<'_>,
    all_read: AllRead,
) -> Result<Written, CommandError> {
    let TableId { database, table, .. } = &chunk.table.to;
    client.query(&record::add(database, Of::Loose, table, &chunk.name, 0))?;
    let sent = send(inner, client, &mut feed)?;
    all_read.wait().map_err(CommandError::Stopped)?;
    client.query("START TRANSACTION")?;
    client.query(&record::add(database, Of::Chunk, table, &chunk.name, sent))?;
    client.query(&record::remove(database, Of::Loose, table, &chunk.name))?;
    client.query("COMMIT")?;
    Ok(written(sent))
}

/// Sends all rows in the way that the server allows. Returns their number.
fn send(inner: &Inner, client: &mut Client, feed: &mut Feed<'_>) -> Result<u64, CommandError> {
    let layout = feed.layout;
    if !feed.is_there() {
        return Ok(0);
    }
    if !inner.takes_no_files.load(Ordering::Relaxed) {
        let are_bytes = match &feed.batch {
            Some((batch, _)) => layout.values(batch).map_err(CommandError::Stopped)?,
            None => Vec::new(),
        };
        let are_bytes: Vec<bool> = are_bytes.iter().map(Values::are_bytes).collect();
        let packet_bytes = layout.packet_bytes.min(PIECE_BYTES);
        match client.load(&layout.load(&are_bytes), packet_bytes, |out| feed.lines(out)) {
            Ok(taken) => {
                check(client, taken, feed.sent, feed.warnings)?;
                return Ok(feed.sent);
            }
            Err(CommandError::Server(error))
                if NO_FILES.contains(&error.code) && feed.sent == 0 =>
            {
                inner.takes_no_files.store(true, Ordering::Relaxed);
                tracing::info!("the server takes no LOAD DATA LOCAL ({error}): rows go by INSERT");
            }
            Err(fault) => return Err(refused(fault)),
        }
    }
    let most = STATEMENT_BYTES.min(layout.packet_bytes.saturating_sub(1024));
    let mut statement = layout.insert();
    let head = statement.len();
    let (mut in_it, mut warnings, mut scratch) = (0, 0, Vec::new());
    while feed.is_there() {
        scratch.clear();
        feed.each(|values, at| {
            row(values, at, Style::Insert, &mut scratch);
            false
        })
        .map_err(CommandError::Stopped)?;
        if in_it > 0 && statement.len() + scratch.len() + 1 > most {
            insert(client, &statement, in_it, warnings)?;
            statement.truncate(head);
            (in_it, warnings) = (0, 0);
        }
        if in_it > 0 {
            statement.push(b',');
        }
        statement.extend_from_slice(&scratch);
        in_it += 1;
        warnings += std::mem::take(&mut feed.warnings);
    }
    if in_it > 0 {
        insert(client, &statement, in_it, warnings)?;
    }
    Ok(feed.sent)
}

fn insert(
    client: &mut Client,
    statement: &[u8],
    rows: u64,
    warnings: u64,
) -> Result<(), CommandError> {
    let taken = client.change(statement).map_err(refused)?;
    check(client, taken, rows, warnings)
}

/// An error of the values themselves is not tried again.
fn refused(fault: CommandError) -> CommandError {
    match fault {
        CommandError::Server(error)
            if error.state.starts_with("23") || matches!(error.code, 1265 | 1364 | 1366) =>
        {
            CommandError::Stopped(Error::fail(&error))
        }
        other => other,
    }
}

/// Checks that the server has stored the rows unchanged. It turns errors in a file into warnings.
fn check(client: &mut Client, taken: Taken, sent: u64, expected: u64) -> Result<(), CommandError> {
    let Taken { rows, read, lost, warnings } = taken;
    // The server counts up to 65535 warnings.
    let is_expected = u64::from(warnings) == expected && warnings < u16::MAX;
    if rows == sent && lost == 0 && is_expected && read.is_none_or(|read| read == sent) {
        return Ok(());
    }
    let warned = client.query("SHOW WARNINGS LIMIT 3")?;
    let warned = warned.into_iter().filter_map(|row| row.into_iter().nth(2).flatten());
    let warned: Vec<String> = warned.map(|text| printable(&text)).collect();
    Err(CommandError::Stopped(Error::fail(format!(
        "{sent} rows were sent; the server has taken {rows}, and would change or leave out some: {}",
        warned.join("; ")
    ))))
}
