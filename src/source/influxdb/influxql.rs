//! InfluxDB over `/query`: OSS and Enterprise 1.x, and 2.x and Cloud TSM by their InfluxQL endpoint. Lists databases,
//! retention policies and measurements, and reads windows as chunked MessagePack.

pub(crate) mod answer;
mod artifacts;
mod bounds;
mod buckets;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod msgpack;
pub(crate) mod statements;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::column_stats::Recorded;
use crate::config::Select;
use crate::error::{Error, Result};
use crate::model::{
    Artifacts, Chunk, Column, Listing, Proof, ReadSummary, RowCount, SourceInfo, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::influxdb::counts::{compare_counts, counts_by_time, field_counts};
use crate::source::influxdb::errors::server_error;
use crate::source::influxdb::http::{Format, Server};
use crate::window::{Slice, Window};
use answer::{BodyReader, RowWriter};

/// The most pieces of a body between the socket and the decoder.
const BODY_PARTS: usize = 2;

/// The most parts of time, and counts, of one answer. A statement for each window takes twice the time of one for all of
/// them, because each opens all series anew.
const PARTS_AT_ONCE: usize = 512;
const COUNTS_AT_ONCE: usize = 20_000;

/// An InfluxDB that speaks InfluxQL.
#[derive(Debug)]
pub struct InfluxQl {
    name: String,
    server: Server,
    select: Select,
    /// Whether its databases are mappings to buckets, as those of 2.x and Cloud TSM are.
    has_buckets: bool,
    /// The tables with a field of several types whose windows may span several shards.
    unsure: Mutex<HashSet<TableId>>,
}

impl InfluxQl {
    /// Prepares a source. Nothing is sent yet.
    pub(super) fn new(name: String, server: Server, select: Select, has_buckets: bool) -> Self {
        Self { name, server, select, has_buckets, unsure: Mutex::default() }
    }

    fn is_unsure(&self, id: &TableId) -> bool {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

#[async_trait]
impl Source for InfluxQl {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let ping = self.server.ping().await?;
        Ok(SourceInfo {
            name: self.name.clone(),
            address: self.server.address(),
            version: format!("InfluxDB {} {}", ping.version, ping.build).trim_end().to_owned(),
            identity: None,
        })
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        self.server.clock_ahead().await
    }

    async fn list(&self) -> Result<Listing> {
        self.list_tables().await
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        self.bounds_of_tables(tables).await
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        self.count_rows(table, window).await
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let Some(window) = slice.window() else { return Ok(None) };
        let answer = self.server.query(&statements::counts(table, window)).await?;
        let counts = field_counts(answer.iter().flat_map(|statement| &statement.series));
        Ok(compare_counts(table, recorded, counts))
    }

    fn parts_at_once(&self, table: &Table) -> usize {
        (COUNTS_AT_ONCE / table.columns.len().max(1)).clamp(1, PARTS_AT_ONCE)
    }

    async fn prove_windows(
        &self,
        table: &Table,
        width: i64,
        windows: &[(Window, Recorded<'_>)],
    ) -> Result<Option<Vec<Option<Proof>>>> {
        let Some(((first, _), (last, _))) = windows.first().zip(windows.last()) else {
            return Ok(None);
        };
        let all = Window { from: first.from, to: last.to };
        let answer = self.server.query(&statements::counts_by_time(table, all, width)).await?;
        let mut counts = vec![HashMap::<String, u64>::new(); windows.len()];
        for (time, of_part) in counts_by_time(answer.iter().flat_map(|statement| &statement.series))
        {
            // A part that was not asked for: the server has divided the time in another way.
            if !all.contains(time) || time.wrapping_sub(all.from) % width != 0 {
                return Ok(None);
            }
            let place = windows.partition_point(|(window, _)| window.to <= time);
            let Some(of_window) = counts.get_mut(place) else { return Ok(None) };
            for (field, count) in of_part {
                *of_window.entry(field).or_default() += count;
            }
        }
        let pairs = windows.iter().zip(counts);
        Ok(Some(pairs.map(|((_, known), counts)| compare_counts(table, *known, counts)).collect()))
    }

    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        self.missed_windows(read, now).await
    }

    fn can_abandon(&self) -> bool {
        true
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let several = self.is_unsure(&chunk.table.id);
        if several && let Some(field) = unsigned_and_other(&chunk.table) {
            return Err(Error::fail(format!(
                "the field `{}` is unsigned in some shards and another kind of number in others, and these shards \
                 cannot be read separately",
                field.escape_debug()
            ))
            .hint("write this measurement to a file by `influx_inspect export` at the server, and read that by lp:FILE"));
        }
        let (format, response) =
            self.server.open(&statements::read(&chunk.table, chunk.slice, several)).await?;
        let (sender, parts) = mpsc::channel(BODY_PARTS);
        let (table, address) = (Arc::clone(&chunk.table), self.server.address());
        let decoded = tokio::task::spawn_blocking(move || {
            let error = |text: &str| server_error(&address, text);
            match format {
                Format::MessagePack => decode_msgpack(parts, &table, batches, several, error),
                Format::Json => {
                    let mut rows = RowWriter::new(&table, batches, several);
                    json::decode(BodyReader::new(parts), &mut rows, error)?;
                    rows.finish()
                }
            }
        });
        let ((), decoded) = tokio::join!(self.server.pump(response, sender, |_| ()), decoded);
        decoded
            .unwrap_or_else(|error| Err(Error::stop(format!("the decoder failed: {error}"))))
            .map(|()| ReadSummary::default())
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        let mut excluded = Vec::new();
        let databases = self.databases(&mut excluded).await?;
        artifacts::collect(&self.name, &self.server, &databases, self.has_buckets).await
    }
}

/// Decodes a chunked MessagePack answer into batches, on a thread that may block. `several` says that the answer belongs
/// to a typed read; `server_error` makes an error from an error text in the answer.
pub fn decode_msgpack(
    body: mpsc::Receiver<Result<Bytes>>,
    table: &Arc<Table>,
    batches: BatchSender,
    several: bool,
    server_error: impl Fn(&str) -> Error,
) -> Result<()> {
    msgpack::decode(BodyReader::new(body), RowWriter::new(table, batches, several), server_error)
}

// In a typed read, the server changes unsigned integers that exceed the signed ones.
fn unsigned_and_other(table: &Table) -> Option<&String> {
    let is = |column: &Column, kinds: &[&str]| kinds.contains(&column.source_type.as_str());
    let mut unsigned = table.columns.iter().filter(|column| is(column, &["unsigned"]));
    let other =
        |key: &String| table.columns.iter().any(|c| c.key == *key && is(c, &["float", "integer"]));
    unsigned.find(|column| other(&column.key)).map(|column| &column.key)
}
