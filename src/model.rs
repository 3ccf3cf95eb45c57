//! PURE: the values that sources, the archive and an export share: tables with their columns, chunks, and the
//! description of a source. This module knows no source, no file and no network.

mod artifacts;
mod dumps;
mod identity;
mod log_position;
mod proof;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

pub use self::artifacts::{Artifact, ArtifactOutcome, ArtifactStatus, Artifacts};
pub use self::dumps::{DumpFormat, DumpPlan, DumpRecord, Dumped};
pub use self::identity::{Division, Identity, Object, ObjectColumn};
pub use self::log_position::{LogPosition, Marker};
pub use self::proof::{Level, Open, OpenKind, Proof, Verdict};
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

impl TableId {
    /// The name of a dump. It has no database, which each table has.
    pub fn dump(source: &str, name: &str) -> Self {
        let (source, table) = (source.to_owned(), name.to_owned());
        Self { source, database: String::new(), schema: String::new(), table }
    }

    /// Whether it is the name of a dump.
    pub fn is_dump(&self) -> bool {
        self.database.is_empty() && self.schema.is_empty()
    }
}

/// The form for people: `db.autogen.cpu`; `dump db of source`.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.schema.as_str() {
            _ if self.is_dump() => format!("dump {} of {}", self.table, self.source),
            "" => format!("{}.{}", self.database, self.table),
            schema => format!("{}.{schema}.{}", self.database, self.table),
        };
        // The name comes from a database, so it may contain anything.
        write!(f, "{}", escaped(&name))
    }
}

/// The role of a column in its source.
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
    /// The name of the role in Arrow field metadata and in the catalog.
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
    /// Name in the Parquet files, which is unique in its table even if case is ignored.
    pub name: String,
    /// Name in the source; several columns may share one.
    pub key: String,
    /// The role of the column in its source.
    pub role: Role,
    /// Type in the source's own words.
    pub source_type: String,
    /// Type in the archive.
    pub data_type: DataType,
    /// The logical type of its values or of their elements, if a reader needs it.
    pub logical: Option<Logical>,
    /// Whether it may be null, if the source says so.
    pub nullable: Option<bool>,
    /// Its place in the table's primary key, counted from 1.
    pub key_part: Option<u16>,
}

impl Column {
    /// A column of which only the type is known.
    pub fn new(
        name: impl Into<String>,
        key: impl Into<String>,
        role: Role,
        source_type: impl Into<String>,
        data_type: DataType,
    ) -> Self {
        let (name, key, source_type) = (name.into(), key.into(), source_type.into());
        let (logical, nullable, key_part) = (None, None, None);
        Self { name, key, role, source_type, data_type, logical, nullable, key_part }
    }
}

/// The meaning of bytes or text, which becomes a logical type in Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    /// The 16 bytes of a UUID.
    Uuid,
    /// Text that is a JSON document.
    Json,
}

/// A table as a source lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its full name.
    pub id: TableId,
    /// All of its columns, in the order of the archive.
    pub columns: Vec<Column>,
    /// Sorted windows outside of which there are no rows.
    pub data_ranges: Vec<Window>,
    /// The column whose values are the time, where the source has no time of its own.
    pub time_column: Option<String>,
    /// The least number of nanoseconds between two times, however the table may be altered. The first instant after the
    /// last row is its time plus this.
    pub resolution_nanos: i64,
    /// Instants that no window may cross.
    pub split_points: SplitPoints,
    /// Which parts of it the source can read.
    pub read_mode: ReadMode,
    /// What must not change about it, between runs or within one.
    pub identity: Identity,
}

impl Table {
    /// A table without rows, of which any window can be read at the resolution of a nanosecond.
    pub fn new(id: TableId, columns: Vec<Column>) -> Self {
        Self {
            id,
            columns,
            data_ranges: Vec::new(),
            time_column: None,
            resolution_nanos: 1,
            split_points: SplitPoints::None,
            read_mode: ReadMode::Windows,
            identity: Identity::default(),
        }
    }

    /// The table that stands for a native dump, which is listed and planned like a table that is read whole.
    pub fn of_dump(source: &str, name: &str) -> Self {
        Self { read_mode: ReadMode::Dump, ..Self::new(TableId::dump(source, name), Vec::new()) }
    }

    /// Whether it is a native dump.
    pub fn is_dump(&self) -> bool {
        self.read_mode == ReadMode::Dump
    }

    /// The index of the column whose values are the time, if it has one.
    pub fn time_place(&self) -> Option<usize> {
        self.columns.iter().position(|column| {
            column.role == Role::Time || Some(&column.key) == self.time_column.as_ref()
        })
    }

    /// Whether this is a different table than `other`, or is divided in a different way. In that case the rows that were
    /// read of the one say nothing about the other.
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

    /// The Arrow schema of all files of this table, with the original name and type of each column.
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

/// Which parts of a table a source can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Any window, cheaply.
    #[default]
    Windows,
    /// Any window, and also the rows whose time is null.
    WindowsAndNullTime,
    /// Reading any window costs a scan of the whole table, so the table is read only once.
    OnePass,
    /// The table has no time, so it is read whole, whatever range is requested.
    Whole,
    /// It is not a table but the output of a program, which is taken whole as well.
    Dump,
}

impl ReadMode {
    /// Whether all rows of the table are read at once.
    pub fn is_one_pass(self) -> bool {
        matches!(self, Self::OnePass | Self::Whole | Self::Dump)
    }
}

/// Instants that no window of a table may cross, because the source answers exactly only between two neighbours of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SplitPoints {
    /// Any window will do.
    #[default]
    None,
    /// These, sorted.
    At(Vec<i64>),
    /// All multiples of a width in nanoseconds, counted from the year 1 as Go does.
    Every(i64),
}

impl SplitPoints {
    /// The first of these instants after the given one.
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
            _ if self.table.is_dump() => write!(f, "{}", self.table.id),
            Slice::Window(window) => write!(f, "{} {window}", self.table.id),
            slice => write!(f, "{} {slice}", self.table.id),
        }
    }
}

/// The tables of a source, including those that are not exported.
#[derive(Debug, Default)]
pub struct Listing {
    /// The tables to export.
    pub tables: Vec<Table>,
    /// What was left out, and why.
    pub excluded: Vec<Excluded>,
    /// Tables that exist but cannot be read, with the reasons. Each is a failure of the run.
    pub unreadable: Vec<(TableId, String)>,
    /// Warnings that the user should know before trusting the result.
    pub warnings: Vec<String>,
}

impl Listing {
    /// The names of all tables, readable or not.
    pub fn ids(&self) -> impl Iterator<Item = &TableId> {
        self.tables.iter().map(|table| &table.id).chain(self.unreadable.iter().map(|(id, _)| id))
    }
}

/// Something of a source that is not exported, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Which source.
    pub source: String,
    /// What was left out.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Excluded {
    /// Whether the user left it out, by the configuration or the URL.
    pub fn is_by_rule(&self) -> bool {
        [LEFT_OUT, NOT_REQUESTED].contains(&self.why.as_str())
    }
}

/// A number of rows, and whether it is exact or a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCount {
    /// Rows.
    pub rows: u64,
    /// `false` if there may be more.
    pub exact: bool,
}

/// The estimated size of a table in its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes, as the source keeps them.
    pub bytes: Option<u64>,
}

/// The description of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Name in the archive.
    pub name: String,
    /// Address without any secret.
    pub address: String,
    /// Product and version, as far as the source reports them.
    pub version: String,
    /// The identity of the server, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ServerIdentity>,
}

impl SourceInfo {
    /// Whether both are certainly the same server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let pair = self.identity.as_ref().zip(other.identity.as_ref());
        pair.is_some_and(|(one, other)| one.server == other.server)
    }
}

/// The identity of a server, which does not depend on its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The identifier that the server gave itself, with the product before it. A copy of the server's files shares it.
    pub server: String,
    /// The identifier of each database besides its name: a database that was dropped and created again under the same
    /// name has another one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<String, String>,
}

/// A quota: how many bytes of answers may be read in a fixed window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of answers.
    pub bytes: u64,
    /// Length of the window.
    pub window: Duration,
}

impl Quota {
    /// The part of each of so many that share it.
    pub fn divided(self, parts: u32) -> Self {
        Self { bytes: (self.bytes / u64::from(parts.max(1))).max(1), ..self }
    }
}

/// `300 MB in 5 minutes`.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs_f64();
        let bytes = self.bytes as f64 / 1e6;
        match seconds {
            60.0.. => write!(f, "{bytes} MB in {} minutes", seconds / 60.0),
            _ => write!(f, "{bytes} MB in {seconds} s"),
        }
    }
}

/// The prices of reading, in the currency of the bill. The defaults are the list prices of the usage plan of
/// InfluxDB Cloud in US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// The price of a query execution.
    pub per_query: f64,
    /// The price of a gigabyte (10⁹ bytes) of answers.
    pub per_gigabyte: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { per_query: 0.012 / 100.0, per_gigabyte: 0.09 }
    }
}

/// The terms under which a source is read.
#[derive(Debug, Clone, Copy)]
pub struct Metering {
    /// The quota, if there is one.
    pub quota: Option<Quota>,
    /// The prices.
    pub prices: Prices,
}

/// What a source reports about a read that succeeded.
#[derive(Debug, Clone, Default)]
pub struct ReadSummary {
    /// The name of the snapshot that was read, if the source has snapshots. Chunks with equal names were read as of the
    /// same instant.
    pub snapshot: Option<String>,
    /// How long the query waited in the server's queue, which says nothing about the width of its window.
    pub queued: Duration,
}

/// The reason for leaving out a table that `exclude` names.
pub(crate) const LEFT_OUT: &str = "left out by `exclude`";

/// The reason for leaving out tables that the configuration or the URL does not request.
pub(crate) const NOT_REQUESTED: &str = "not requested";
