//! What a run needs to know, in one validated value.

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
use crate::source::Source;
use crate::source::tunnel::Tunnel;
use crate::window::Bound;

/// Chunks in flight at most: each takes two threads and a part of the memory.
pub const MAX_CONCURRENCY: usize = 64;

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to leave.
    pub sources: Vec<SourceSpec>,
    /// Where to; `plan` can do without.
    pub archive: Option<Location>,
    /// Begin of the requested range.
    pub from: Bound,
    /// Its end.
    pub to: Bound,
    /// Both in the user's words.
    pub range: (String, String),
    /// Whether what earlier runs read whole is left as it is.
    pub keep: bool,
    /// How to work.
    pub limits: Limits,
    /// Whole sources that are left out, and why.
    pub excluded: Vec<Excluded>,
    /// What the user should be told before the run.
    pub warnings: Vec<String>,
}

/// How much at once, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Width of the first window of each table, in nanoseconds; `None` where the size of a table tells.
    pub window: Option<i64>,
    /// Chunks in flight.
    pub concurrency: usize,
    /// All buffers together, in bytes.
    pub memory_bytes: usize,
    /// The most bytes of rows that all chunks together take in a second, as they lie in memory.
    pub bandwidth_bytes: Option<u64>,
    /// Size from which on a chunk goes on in another file, in bytes.
    pub file_bytes: u64,
    /// After how long without a byte an answer counts as broken.
    pub idle_timeout: Duration,
    /// Attempts at a chunk that cannot be split, before the run gives up on it.
    pub attempts: u32,
    /// For how long a source or store that has worked may fail at everything before the run gives up.
    pub patience: Duration,
    /// Pause after a failure, doubled after each that follows it.
    pub first_pause: Duration,
}

/// A source does not work with less memory than this.
const LEAST_SHARE: usize = 16 << 20;

impl Limits {
    /// The limits of one of so many sources, which share the memory.
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
            bandwidth_bytes: None,
            file_bytes: 512 << 20,
            idle_timeout: Duration::from_secs(60),
            attempts: 6,
            patience: Duration::from_secs(15 * 60),
            first_pause: Duration::from_millis(500),
        }
    }
}

/// One source as configured.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in the archive.
    pub name: String,
    /// Whether the user gave that name. Otherwise it is the address, which may lead to another server
    /// tomorrow, and the same server may have another one.
    pub named: bool,
    /// What it is.
    pub kind: SourceKind,
    /// Which part of it.
    pub select: Select,
}

/// What a source is.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// An InfluxDB of any version.
    InfluxDb(InfluxDb),
    /// A PostgreSQL.
    Postgres(Database),
    /// A MySQL or MariaDB.
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
    /// Databases on Aptible, each of which becomes a source once its CLI was asked which there are.
    Aptible(AptibleAddress),
    /// A source whose address and credentials are known only once the way to it is open.
    Behind(Arc<dyn Behind>),
    /// A Redis, of which a native dump is taken.
    Redis(DumpServer),
    /// A MongoDB, of which a native dump is taken.
    MongoDb(DumpServer),
    /// The output of a program.
    Program(DumpProgram),
    /// A source that the caller of the library brings.
    Given(Arc<dyn Source>),
}

/// What is known only once the way to it is open.
#[async_trait]
pub trait Behind: fmt::Debug + Send + Sync {
    /// Opens the way, and says what is there.
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

    /// Whether both are one server, asked in one way.
    pub(super) fn is_server_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InfluxDb(one), Self::InfluxDb(other)) => one == other,
            (Self::Postgres(one), Self::Postgres(other))
            | (Self::MySql(one), Self::MySql(other)) => one == other,
            // A database is a part of what a dump is of, and no part of a server that is read.
            (Self::Redis(one), Self::Redis(other)) | (Self::MongoDb(one), Self::MongoDb(other)) => {
                one == other
            }
            _ => false,
        }
    }
}
