//! The settings of a run, as one validated value.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::location::Location;
use crate::config::select::Select;
use crate::config::server::{AptibleAddress, Database, DumpProgram, DumpServer, InfluxDb};
use crate::error::Result;
use crate::model::Excluded;
use crate::shards::Shard;
use crate::source::Source;
use crate::source::tunnel::Tunnel;
use crate::window::Bound;

/// Chunks in flight at most: each takes two threads and a part of the memory.
pub const MAX_CONCURRENCY: usize = 64;

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
pub struct Job {
    /// The sources to export.
    pub sources: Vec<SourceSpec>,
    /// The archive; `plan` works without one.
    pub archive: Option<Location>,
    /// The start of the requested range.
    pub from: Bound,
    /// The end of the requested range.
    pub to: Bound,
    /// Both in the words of the user.
    pub range: (String, String),
    /// Whether the windows that earlier runs read completely are left as they are.
    pub keep: bool,
    /// The part of the work that this run does; `None` for all of it.
    pub shard: Option<Shard>,
    /// The limits.
    pub limits: Limits,
    /// Whole sources that are left out, with the reasons.
    pub excluded: Vec<Excluded>,
    /// Warnings for the user before the run.
    pub warnings: Vec<String>,
}

/// How much is done at once, and for how long it is tried.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Width of the first window of each table, in nanoseconds; if it is `None`, the size of the table decides.
    pub window: Option<i64>,
    /// Chunks in flight.
    pub concurrency: usize,
    /// The size of all buffers together, in bytes.
    pub memory_bytes: usize,
    /// Into how many parts the quotas of the sources are divided, because so many machines share them.
    pub quota_parts: u32,
    /// The bytes of rows, as they lie in memory, that all chunks together read per second at most.
    pub bandwidth_bytes: Option<u64>,
    /// The size of a file from which on the chunk continues in another one, in bytes.
    pub file_bytes: u64,
    /// The time without a byte after which an answer counts as broken.
    pub idle_timeout: Duration,
    /// Attempts at a chunk that cannot be split, before the run gives up on it.
    pub attempts: u32,
    /// For how long every request to a source or store that has worked may fail before the run gives up.
    pub patience: Duration,
    /// The pause after a failure, which is doubled after each further failure.
    pub first_pause: Duration,
    /// How many commits of an unfinished archive are folded into one file.
    pub fold_commits: usize,
}

/// The least memory that a source works with.
const LEAST_SHARE: usize = 16 << 20;

impl Limits {
    /// The limits of one source, where so many share the memory.
    pub fn shared_by(&self, sources: usize) -> Self {
        let share = (self.memory_bytes / sources.max(1)).max(LEAST_SHARE);
        Self { memory_bytes: share.min(self.memory_bytes), ..self.clone() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: None,
            concurrency: 4,
            memory_bytes: 256 << 20,
            quota_parts: 1,
            bandwidth_bytes: None,
            file_bytes: 512 << 20,
            idle_timeout: Duration::from_secs(60),
            attempts: 6,
            patience: Duration::from_secs(15 * 60),
            first_pause: Duration::from_millis(500),
            fold_commits: 1000,
        }
    }
}

/// One source as configured.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in the archive.
    pub name: String,
    /// Whether the user gave that name. Otherwise it is the address, which may lead to another server tomorrow, as the
    /// same server may have other addresses.
    pub named: bool,
    /// The kind of source, with its address and credentials.
    pub kind: SourceKind,
    /// Which part of it is exported.
    pub select: Select,
}

/// The kind of a source, with its address and credentials.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// An InfluxDB of any version.
    InfluxDb(InfluxDb),
    /// A PostgreSQL server.
    Postgres(Database),
    /// A MySQL or MariaDB server.
    MySql(Database),
    /// A line-protocol file.
    LineProtocol {
        /// Its path.
        file: PathBuf,
        /// Database of lines that name none.
        database: Option<String>,
        /// Retention policy of lines that name none.
        retention_policy: Option<String>,
        /// Nanoseconds in one unit of its timestamps.
        precision: i64,
    },
    /// Databases on Aptible. Each becomes a source once the CLI has listed them.
    Aptible(AptibleAddress),
    /// A source whose address and credentials are known only once its tunnel is open.
    Behind(Arc<dyn Behind>),
    /// A Redis server, which is exported as a native dump.
    Redis(DumpServer),
    /// A MongoDB server, which is exported as a native dump.
    MongoDb(DumpServer),
    /// The output of a program.
    Program(DumpProgram),
    /// A source that the caller of the library brings.
    Given(Arc<dyn Source>),
}

/// A source that is known only once its tunnel is open.
#[async_trait]
pub trait Behind: fmt::Debug + Send + Sync {
    /// Opens the tunnel and returns what it leads to.
    async fn found(&self) -> Result<SourceKind>;

    /// Its address for people.
    fn address(&self) -> &str;
}

impl SourceKind {
    /// The tunnel to it, if it has one.
    pub fn tunnel(&self) -> Option<&Arc<Tunnel>> {
        match self {
            Self::InfluxDb(influxdb) => influxdb.tunnel.as_ref(),
            Self::Postgres(database) | Self::MySql(database) => database.tunnel.as_ref(),
            Self::Redis(server) | Self::MongoDb(server) => server.tunnel.as_ref(),
            Self::LineProtocol { .. }
            | Self::Program(_)
            | Self::Aptible(_)
            | Self::Behind(_)
            | Self::Given(_) => None,
        }
    }

    /// Whether both are the same server, reached in the same way.
    pub(super) fn is_server_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InfluxDb(one), Self::InfluxDb(other)) => one == other,
            (Self::Postgres(one), Self::Postgres(other))
            | (Self::MySql(one), Self::MySql(other)) => one == other,
            // Here, the database is part of the server, since it decides what the dump holds.
            (Self::Redis(one), Self::Redis(other)) | (Self::MongoDb(one), Self::MongoDb(other)) => {
                one == other
            }
            _ => false,
        }
    }
}
