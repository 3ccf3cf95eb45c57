//! What a source is, and the one list of sources. A source lists tables and reads slices of them
//! as Arrow record batches; it knows nothing of Parquet, stores or archives.

mod contact;
pub mod fallback;
pub mod flight;
mod identity;
pub mod influxdb;
pub mod influxql;
mod knock;
pub mod line_protocol;
mod mysql;
mod names;
pub mod points;
mod postgres;
mod relational;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

pub use self::contact::contact;
pub use self::identity::{Division, Identity, Object, ObjectColumn};
use self::influxdb::Quota;
use crate::config::{Limits, Prices, SourceKind, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::text::escaped;
use crate::window::{Slice, Window};

/// The full name of a table. `schema` is the schema or the retention policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId {
    /// Name of the source, from the configuration or its URL.
    pub source: String,
    /// Database (or bucket).
    pub database: String,
    /// Schema or retention policy; empty where the source has none.
    pub schema: String,
    /// Relation or measurement.
    pub table: String,
}

/// For people: `db.autogen.cpu`.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.schema.as_str() {
            "" => format!("{}.{}", self.database, self.table),
            schema => format!("{}.{schema}.{}", self.database, self.table),
        };
        // A name comes from a database.
        write!(f, "{}", escaped(&name))
    }
}

/// What a column is to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// InfluxDB's time.
    Time,
    /// InfluxDB's tag.
    Tag,
    /// InfluxDB's field.
    Field,
    /// A column of a relation.
    Column,
}

impl Role {
    /// As it stands in Arrow field metadata and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Tag => "tag",
            Self::Field => "field",
            Self::Column => "column",
        }
    }
}

/// A column of the archive: its name there, and what it is in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in the Parquet files; unique in its table, also when case is folded.
    pub name: String,
    /// Name in the source; several columns may share one.
    pub key: String,
    /// What the source calls it.
    pub role: Role,
    /// Type in the source's own words.
    pub source_type: String,
    /// Type in the archive.
    pub data_type: DataType,
}

/// A table as a source lists it.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its full name.
    pub id: TableId,
    /// All of its columns, in the order of the archive.
    pub columns: Vec<Column>,
    /// Where its rows may be: sorted windows; outside of them there is nothing.
    pub occupied: Vec<Window>,
    /// The column whose values are the time, where the source has no time of its own.
    pub time_column: Option<String>,
    /// Instants that no window may cross.
    pub cuts: Cuts,
    /// What the source can give of it at a time.
    pub reading: Reading,
    /// What must not change about it, between runs or within one.
    pub identity: Identity,
}

impl Table {
    /// Whether this is not the table that `other` was, or not all of it is divided in the same way: what was read
    /// of the one says nothing of the other.
    pub fn is_another(&self, other: &Self) -> bool {
        self.identity != other.identity
    }

    /// Whether a column has another type in the archive than it has in `other`.
    pub fn is_retyped(&self, other: &Self) -> bool {
        self.columns.iter().any(|column| {
            let same_name = |other: &&Column| other.name == column.name;
            let before = other.columns.iter().find(same_name);
            before.is_some_and(|before| before.data_type != column.data_type)
        })
    }

    /// The Arrow schema of all files of this table, with what the source called each column.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| {
            let nullable = column.role != Role::Time;
            let metadata = HashMap::from([
                ("moveout.role".to_owned(), column.role.as_str().to_owned()),
                ("moveout.key".to_owned(), column.key.clone()),
                ("moveout.type".to_owned(), column.source_type.clone()),
            ]);
            Field::new(&column.name, column.data_type.clone(), nullable).with_metadata(metadata)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// What a source can give of a table at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reading {
    /// Any window, cheaply.
    #[default]
    Windows,
    /// Any window, and the rows whose time is null besides.
    WindowsAndNullTime,
    /// The whole of it is read for any window, so that it is asked only once.
    OnePass,
    /// It has no time: it is taken whole, whatever range is asked for.
    Whole,
}

impl Reading {
    /// Whether the table is asked for all of its rows at once.
    pub fn is_one_pass(self) -> bool {
        matches!(self, Self::OnePass | Self::Whole)
    }
}

/// Instants that no window of a table may cross, because the source answers exactly only between
/// two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cuts {
    /// Any window will do.
    #[default]
    None,
    /// These, sorted.
    At(Vec<i64>),
    /// All multiples of a width in nanoseconds, counted from the year 1 as Go does.
    Every(i64),
}

impl Cuts {
    /// The first cut after an instant.
    pub fn next(&self, after: i64) -> Option<i64> {
        const YEAR_ONE: i128 = -62_135_596_800 * 1_000_000_000;
        match self {
            Self::None => None,
            Self::At(cuts) => cuts.get(cuts.partition_point(|cut| *cut <= after)).copied(),
            Self::Every(width) => {
                let width = i128::from(*width);
                let next =
                    ((i128::from(after) - YEAR_ONE).div_euclid(width) + 1) * width + YEAR_ONE;
                i64::try_from(next).ok()
            }
        }
    }
}

/// One table × one slice: the unit of work, retry and commit.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The table, as it was listed for this run.
    pub table: Arc<Table>,
    /// The part of it to read.
    pub slice: Slice,
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slice {
            Slice::Window(window) => write!(f, "{} {window}", self.table.id),
            slice => write!(f, "{} {slice}", self.table.id),
        }
    }
}

/// What a source has, and what it has that will not be exported.
#[derive(Debug, Default)]
pub struct Listing {
    /// The tables to export.
    pub tables: Vec<Table>,
    /// What was left out, and why.
    pub excluded: Vec<Excluded>,
    /// Tables that are there and cannot be read, and why: each is a failure of the run.
    pub unreadable: Vec<(TableId, String)>,
    /// What the user should know before trusting the result.
    pub warnings: Vec<String>,
}

impl Listing {
    /// The names of all tables that are there, readable or not.
    pub fn ids(&self) -> impl Iterator<Item = &TableId> {
        self.tables.iter().map(|table| &table.id).chain(self.unreadable.iter().map(|(id, _)| id))
    }
}

/// Something that a source has and the archive will not, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Which source.
    pub source: String,
    /// What was left out.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A number of rows, and whether it is exact or a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCount {
    /// Rows.
    pub rows: u64,
    /// `false` where there may be more.
    pub exact: bool,
}

/// Something to keep that is not rows; a file under `data/SOURCE/_artifacts/`.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Path below `_artifacts/`, of safe names.
    pub path: String,
    /// Content, never with a secret in it.
    pub content: Bytes,
}

/// How the attempt to save a kind of artifact went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArtifactStatus {
    /// Which source.
    pub source: String,
    /// Which kind: `users`, `retention-policies`, …
    pub kind: String,
    /// `saved`, `none`, `not available` or `failed`, with a reason where there is one.
    pub status: String,
}

impl ArtifactStatus {
    /// Whether it should be in the archive, and is not.
    pub fn is_failed(&self) -> bool {
        self.status.starts_with("failed")
    }
}

/// What a source says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Name in the archive.
    pub name: String,
    /// Address without any secret.
    pub address: String,
    /// Product and version, as far as it says.
    pub version: String,
    /// What tells it from all others, where it has that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ServerIdentity>,
}

impl SourceInfo {
    /// Whether both are certainly one server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let pair = self.identity.as_ref().zip(other.identity.as_ref());
        pair.is_some_and(|(one, other)| one.server == other.server)
    }
}

/// What tells a server from all others, whatever address leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The server's own word, with its product before it; a copy of its files may share it.
    pub server: String,
    /// What the server calls each database besides its name: one that was dropped and created again under
    /// the same name is another.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<String, String>,
}

/// Under what terms a source is read.
#[derive(Debug, Clone, Copy)]
pub struct Bill {
    /// How much may be read in a time.
    pub quota: Option<Quota>,
    /// What it costs.
    pub prices: Prices,
}

/// What may wait between source and encoder, in KiB. A batch that is larger waits alone: the number of
/// batches bounds nothing where a value may have a gigabyte.
const ROOM: u32 = 16 * 1024;

/// Bytes that an array holds. Arrays of one message share its buffer: what each holds of it counts, not the
/// whole for each.
pub(crate) fn size_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// Where a source puts the batches of a chunk; bounded, so that a slow destination slows it down.
#[derive(Debug, Clone)]
pub struct BatchSender {
    sender: mpsc::Sender<(RecordBatch, u32)>,
    room: Arc<Semaphore>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Batches {
    receiver: mpsc::Receiver<(RecordBatch, u32)>,
    room: Arc<Semaphore>,
}

impl Batches {
    /// The next batch; `None` after the last.
    pub async fn recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.recv().await;
        self.taken(taken)
    }

    /// The same, for a thread that may block.
    pub fn blocking_recv(&mut self) -> Option<RecordBatch> {
        let taken = self.receiver.blocking_recv();
        self.taken(taken)
    }

    /// Takes no more.
    pub fn close(&mut self) {
        self.receiver.close();
        self.room.close();
    }

    fn taken(&self, taken: Option<(RecordBatch, u32)>) -> Option<RecordBatch> {
        let (batch, room) = taken?;
        self.room.add_permits(room as usize);
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.room.close(); // nobody may wait for what nobody takes
    }
}

impl BatchSender {
    /// A channel for at most `capacity` batches.
    pub fn channel(capacity: usize) -> (Self, Batches) {
        let (sender, receiver) = mpsc::channel(capacity);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        (Self { sender, room: Arc::clone(&room) }, Batches { receiver, room })
    }

    /// Hands over a batch from a thread that may block.
    pub fn blocking_send(&self, batch: RecordBatch) -> Result<()> {
        futures::executor::block_on(self.send(batch))
    }

    /// Hands over a batch.
    pub async fn send(&self, batch: RecordBatch) -> Result<()> {
        let bytes: usize = batch.columns().iter().map(size_bytes).sum();
        let room = u32::try_from(bytes / 1024).unwrap_or(ROOM).min(ROOM);
        self.room.acquire_many(room).await.map_err(|_| Self::gone())?.forget();
        self.sender.send((batch, room)).await.map_err(|_| Self::gone())
    }

    // The encoder or the upload failed; their own error is the one to show.
    fn gone() -> Error {
        Error::of(Class::Retry, "the writer of this chunk has ended")
    }
}

/// What a source says of a read that ended well.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Name of the state that was read, where the source has one: chunks with the same are of one moment.
    pub snapshot: Option<String>,
    /// How long the query stood in the server's queue, which says nothing about its width.
    pub queued: Duration,
}

/// Why a table is left out that `exclude` names.
pub(crate) const LEFT_OUT: &str = "left out by `exclude`";

/// One system to leave.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the archive.
    fn name(&self) -> &str;

    /// Asks it what it is. The first thing that is done, so it fails with a clear error when the
    /// address or the credentials are wrong.
    async fn describe(&self) -> Result<SourceInfo>;

    /// What tells it from all others, where it has that; never a secret.
    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        Ok(None)
    }

    /// By how many seconds its clock is ahead of this machine's; `None` where it does not say.
    async fn clock_ahead(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Everything it has that the configuration does not leave out.
    async fn list(&self) -> Result<Listing>;

    /// The true bounds of each table, `[first, last + 1 ns)`; `None` for an empty one. In the order
    /// of `tables`.
    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>>;

    /// How many rows of a table lie in a window, without reading them all.
    async fn count(&self, table: &Table, window: Window) -> Result<RowCount>;

    /// About how many rows a table has, where that is known without asking.
    fn rows_estimate(&self, _table: &TableId) -> Option<u64> {
        None
    }

    /// Reads a chunk. `Ok` only after the source has said, in its own protocol's way, that the
    /// stream ended well; whatever was sent before an error is thrown away.
    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<Done>;

    /// Lists again, once everything is read. `None` where rows are read as of the moment of the listing, and
    /// each read finds out by itself whether its table is still the one that was listed.
    async fn list_again(&self) -> Result<Option<Listing>> {
        self.list().await.map(Some)
    }

    /// Where a read of a table may have missed something that is there `now`: the table was listed as `read`
    /// when it was read. The table is then read again as far as the windows reach.
    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        Ok(if read.columns == now.columns { Vec::new() } else { vec![Window::ALL] })
    }

    /// Rows that a chunk of a table should have at most, where a quota makes that matter.
    fn chunk_rows(&self, _table: &TableId) -> Option<u64> {
        None
    }

    /// What it lets one read in a time, and what reading costs, where somebody counts.
    fn bill(&self) -> Option<Bill> {
        None
    }

    /// What is not rows.
    async fn artifacts(&self) -> Result<(Vec<Artifact>, Vec<ArtifactStatus>)>;
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the source {}", self.name())
    }
}

/// The one list of sources. Asks a server what it is, where an address does not say.
pub async fn open(spec: &SourceSpec, limits: &Limits) -> Result<Arc<dyn Source>> {
    let name = spec.name.clone();
    Ok(match &spec.kind {
        SourceKind::InfluxDb(influxdb) => influxdb::open(spec, influxdb, limits).await?,
        SourceKind::Postgres(database) => postgres::open(spec, database, limits)?,
        SourceKind::MySql(database) => mysql::open(spec, database, limits)?,
        SourceKind::Given(source) => Arc::clone(source),
        SourceKind::LineProtocol { file, database, retention_policy, precision } => {
            let select = spec.select.clone();
            let options = line_protocol::Options {
                database: database.clone(),
                retention_policy: retention_policy.clone(),
                precision_nanos: *precision,
                memory_bytes: limits.memory_bytes / 4,
                selects: Arc::new(move |id| {
                    (select.databases.is_empty() || select.databases.contains(&id.database))
                        && select.takes_schema(&id.schema)
                        && select.takes_table(&id.table)
                }),
            };
            Arc::new(line_protocol::LineProtocolSource::new(name, file.clone(), options))
        }
    })
}
