//! Reads a chunk into batches, in one stream or in several, each of which reads ranges of the table's blocks. Blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::OwnedSemaphorePermit;

use crate::column_stats::Recorded;
use crate::error::{Class, Error, Result};
use crate::model::{Chunk, Proof, RowCount, Table};
use crate::source::channel::BatchSender;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::copy_binary::{Copy, Malformed};
use crate::source::postgres::decode::Rows;
use crate::source::postgres::errors::{UNTRANSLATABLE, malformed};
use crate::source::postgres::field::{Rejected, field};
use crate::source::postgres::server::{Inner, Readable};
use crate::source::postgres::snapshot::{Pool, RELEASE, Session};
use crate::source::postgres::types::Kind;
use crate::source::postgres::{catalog, encoding, sql};
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::fan_out::Parts;
use crate::source::relational::slice::condition;
use crate::source::relational::times::Times;
use crate::source::relational::{BATCH_BYTES, BATCH_ROWS};
use crate::source::statistics::Statistics;
use crate::window::{Slice, Window};

/// The bytes of a range of blocks: small enough that the streams end at about the same time, large enough that the cost
/// of a statement does not matter.
pub(super) const RANGE_BYTES: u64 = 16 << 20;

/// What the streams of one chunk share.
struct ChunkRead<'a> {
    inner: &'a Inner,
    readable: &'a Readable,
    chunk: &'a Chunk,
    batches: &'a BatchSender,
    cancel: &'a CancelToken,
    pool: &'a Pool,
    parts: Parts<Option<String>, Error>,
    /// Whether the table is no longer the one that the snapshot shows.
    outdated: AtomicBool,
}

/// Reads a chunk and returns the name of the snapshot that all its rows were read from.
pub(super) fn read_chunk(
    inner: &Inner,
    readable: &Readable,
    chunk: &Chunk,
    batches: &BatchSender,
    cancel: &CancelToken,
) -> Result<String> {
    let pool = inner.pool(&chunk.table.id.database);
    let session = pool.take()?;
    let ranges = ranges(readable, chunk);
    let extra = extra_streams(inner, ranges.len());
    let reading = ChunkRead {
        inner,
        readable,
        chunk,
        batches,
        cancel,
        pool: &pool,
        parts: Parts::new(ranges),
        outdated: AtomicBool::new(false),
    };
    let snapshot_id = Arc::clone(&session.snapshot_id);
    thread::scope(|scope| {
        for _permit in &extra {
            scope.spawn(|| reading.stream_in(&snapshot_id));
        }
        reading.stream(session);
    });
    let Some(error) = reading.parts.failure() else { return Ok(snapshot_id.to_string()) };
    match error.class() {
        // The old snapshot would show the old catalog once more.
        Class::SchemaChanged if reading.outdated.load(Ordering::Acquire) => {
            pool.renew(&snapshot_id)
        }
        // The other connections may be dead as well, and each would cost an attempt.
        Class::Retry | Class::RetryThenSplit => pool.close_idle(),
        _ => {}
    }
    Err(error)
}

/// Ranks the errors of a chunk's streams: the most specific one decides what happens next.
fn rank(error: &Error) -> u8 {
    match error.class() {
        Class::Retry | Class::RetryThenSplit => 1,
        Class::Split | Class::Wait(_) => 2,
        Class::SchemaChanged => 3,
        Class::Fail | Class::Stop => 4,
    }
}

/// The conditions that divide a table into ranges of blocks if it is large enough.
fn ranges(readable: &Readable, chunk: &Chunk) -> Vec<Option<String>> {
    let Some((blocks, step)) = readable.blocks else { return vec![None] };
    // A window is small enough as it is.
    if chunk.slice != Slice::All || blocks < 2 * step {
        return vec![None];
    }
    let starts = (0..blocks - step).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    let starts: Vec<u64> = starts.collect();
    let last = starts.len().saturating_sub(1);
    // The last range has no end, since the table may have grown after it was listed.
    let range = |(at, from): (usize, &u64)| sql::blocks(*from, (at < last).then_some(from + step));
    starts.iter().enumerate().map(range).map(Some).collect()
}

fn extra_streams(inner: &Inner, ranges: usize) -> Vec<OwnedSemaphorePermit> {
    let most = ranges.saturating_sub(1);
    let permit = || Arc::clone(&inner.streams).try_acquire_owned().ok();
    std::iter::repeat_with(permit).take(most).map_while(|permit| permit).collect()
}

/// Why the rows of a stream are not read any further.
enum Ended {
    Malformed,
    Rejected(usize, Rejected),
    Error(Error),
}

impl From<Malformed> for Ended {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl ChunkRead<'_> {
    /// Starts another stream, if the server grants a connection.
    fn stream_in(&self, snapshot_id: &Arc<str>) {
        match self.pool.take() {
            Ok(session) if session.snapshot_id == *snapshot_id => self.stream(session),
            Ok(_) => {} // the snapshot was lost meanwhile, and this session has another one
            // The other streams read the parts that this one would have read.
            Err(error) => tracing::info!("{}: reading with one stream less: {error}", self.chunk),
        }
    }

    /// Reads one part after the other until none is left. A failure ends the other streams, too.
    fn stream(&self, session: Session) {
        let read = |session: &mut Session| {
            let schema = self.chunk.table.arrow_schema();
            let mut rows = Rows::new(schema, &self.readable.kinds);
            while let Some(range) = self.parts.take() {
                self.copy(session, range.as_ref(), &mut rows)?;
                if self.parts.is_left() {
                    session.connection.query(RELEASE)?; // lets others alter the table
                }
            }
            self.send(&mut rows)
        };
        if let Err(error) = self.pool.work(session, self.cancel, read) {
            self.parts.fail(rank(&error), error);
            self.cancel.cancel();
        }
    }

    fn copy(&self, session: &mut Session, range: Option<&String>, rows: &mut Rows) -> Result<()> {
        let Readable { columns, from, oid, time, kinds, .. } = self.readable;
        if time.is_none() && self.chunk.slice != Slice::All {
            return Err(Error::fail("this table cannot be read in windows"));
        }
        let of_time = time.as_ref().map(|time| condition(time, self.chunk.slice));
        let conditions: Vec<String> = of_time.into_iter().chain(range.cloned()).collect();
        let statement = sql::copy(columns, from, &conditions);
        let is_looking = self.chunk.slice == Slice::NullTime;
        let mut copy = Copy::new(kinds.len());
        let mut ended = None;
        let answer = session.connection.copy_out(&statement, is_looking, |data| {
            let fed = copy.feed(data, |row| {
                rows.push(row).map_err(|(column, why)| Ended::Rejected(column, why))?;
                if rows.rows() >= BATCH_ROWS || rows.size_bytes() >= BATCH_BYTES {
                    self.send(rows).map_err(Ended::Error)?;
                }
                Ok(())
            });
            fed.map_err(|why| {
                ended = Some(why);
                Error::of(Class::Retry, "the rows were not accepted")
            })
        });
        let address = session.connection.address();
        if let Some(why) = ended {
            return Err(match why {
                Ended::Error(error) => error,
                Ended::Rejected(column, Rejected::TooNarrow(instead)) => {
                    self.inner.type_overrides.learn(&self.chunk.table, [(column, instead)])
                }
                Ended::Malformed | Ended::Rejected(..) => malformed(address),
            });
        }
        let sent = match answer {
            Ok(sent) => sent,
            Err(error) if session.connection.was_refused_by(UNTRANSLATABLE) => {
                let ask = |session: &mut Session| {
                    encoding::untranslatable(session, &self.chunk.table, self.readable)
                };
                let found = self.pool.work(self.pool.take()?, self.cancel, ask)?;
                return Err(if found.is_empty() {
                    error
                } else {
                    self.inner.type_overrides.learn(&self.chunk.table, found)
                });
            }
            Err(error) => {
                let outdated = error.class() == Class::SchemaChanged;
                self.outdated.fetch_or(outdated, Ordering::AcqRel);
                return Err(error);
            }
        };
        // The server states how many rows it sent; the trailer states that there are no more.
        if !copy.is_complete() || sent != copy.rows() {
            return Err(Error::of(
                Class::RetryThenSplit,
                format!("{address}: the server sent {sent} rows, but {} arrived", copy.rows()),
            ));
        }
        // The stream still holds its lock, so the table that has the name now is the one that was read.
        let now = self.pool.now(*oid, self.cancel)?;
        self.readable.object.is_still(now.as_ref()).inspect_err(|_| {
            self.outdated.store(true, Ordering::Release);
        })
    }

    fn send(&self, rows: &mut Rows) -> Result<()> {
        if rows.rows() == 0 {
            return Ok(());
        }
        match rows.finish() {
            Ok(batch) => self.batches.blocking_send(batch),
            Err(too_narrow) => {
                Err(self.inner.type_overrides.learn(&self.chunk.table, [too_narrow]))
            }
        }
    }
}

/// Counts the rows of a window. For a table without windows, only an estimate is known.
pub(super) fn count(
    inner: &Inner,
    table: &Table,
    window: Window,
    cancel: &CancelToken,
) -> Result<RowCount> {
    let readable = inner.tables.get(&table.id)?;
    let Some(time) = &readable.time else {
        let rows = readable.size.rows.unwrap_or_default();
        return Ok(RowCount { rows, exact: false });
    };
    let condition = condition(time, Slice::from(window));
    let pool = inner.pool(&table.id.database);
    let count = sql::count(&readable.from, &condition);
    let rows = pool.work(pool.take()?, cancel, |session| session.connection.query(&count))?;
    let rows = rows.first().and_then(|row| catalog::text(row, 0).parse().ok());
    let rows = rows.ok_or_else(|| Error::stop("the server answered count(*) without a number"))?;
    Ok(RowCount { rows, exact: true })
}

/// Compares the statistics that an archive records for a slice with those that the server computes; `None` if a single
/// statement cannot compute them.
pub(super) fn prove(
    inner: &Inner,
    table: &Table,
    slice: Slice,
    recorded: Recorded<'_>,
    cancel: &CancelToken,
) -> Result<Option<Proof>> {
    let readable = inner.tables.get(&table.id)?;
    let condition = match &readable.time {
        Some(time) => condition(time, slice),
        None if slice == Slice::All => "true".to_owned(),
        None => return Err(Error::fail("this table can no longer be read in windows")),
    };
    let statistics = Statistics::new(&sql::Statistics, table, recorded);
    let statement = statistics
        .statement(|select| format!("SELECT {select} FROM {} WHERE {condition}", readable.from));
    let Some(statement) = statement else { return Ok(None) };
    let pool = inner.pool(&table.id.database);
    let rows = pool.work(pool.take()?, cancel, |session| session.connection.query(&statement))?;
    let proof = rows.first().and_then(|row| statistics.compare(row));
    proof
        .map(Some)
        .ok_or_else(|| Error::of(Class::Retry, "the server answered without the statistics"))
}

/// Asks for the bounds of a column, which an index serves. The answer is binary, since text is hard to parse for years
/// before Christ.
pub(super) fn bounds_of(
    connection: &mut Connection,
    from: &str,
    time: &sql::Time,
) -> Result<Times> {
    let asked = sql::bounds(from, &time.name);
    let statement = format!("COPY ({asked}) TO STDOUT (FORMAT binary)");
    let mut copy = Copy::new(4);
    let mut fields: Vec<Option<Vec<u8>>> = Vec::new();
    let answer = connection.copy_out(&statement, true, |data| {
        let fed = copy.feed(data, |mut row| {
            while let Some((value, rest)) = field(row) {
                fields.push(value.map(<[u8]>::to_vec));
                row = rest;
            }
            Ok::<(), Malformed>(())
        });
        fed.map_err(|_| Error::of(Class::Retry, "the answer violates PostgreSQL's protocol"))
    });
    answer?;
    let nanos = |at: usize| -> Option<i128> {
        let value = fields.get(at)?.as_deref()?;
        let micros = match time.kind {
            Kind::Date => i128::from(i32::from_be_bytes(value.try_into().ok()?)) * 86_400_000_000,
            _ => i128::from(i64::from_be_bytes(value.try_into().ok()?)),
        };
        Some((micros + 946_684_800_000_000) * 1000)
    };
    let truth = |at: usize| fields.get(at).and_then(Option::as_deref) == Some(&[1]);
    Ok(Times { ends: nanos(0).zip(nanos(1)), before: truth(2), after: truth(3) })
}
