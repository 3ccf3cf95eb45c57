//! The description of a native dump: which program made it, in which format, and what is known about its output.

use serde::{Deserialize, Serialize};

/// The format of a dump, which says how it begins, how it ends, and how it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpFormat {
    /// SQL by pg_dump.
    PgDump,
    /// SQL by mysqldump or mariadb-dump.
    MysqlDump,
    /// The file of a Redis database.
    Rdb,
    /// The archive of mongodump.
    MongodumpArchive,
    /// The output of any program, which ends with this text apart from white space.
    #[serde(rename = "ends_with")]
    EndsWith(String),
}

/// How a source makes a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpPlan {
    /// The program and its version.
    pub program: String,
    /// What it writes.
    pub format: DumpFormat,
}

/// What a source reports about a dump whose program has ended with exit status 0.
#[derive(Debug, Clone, Default)]
pub struct Dumped {
    /// The names of the tables that the dump must hold, in the form of its format, if the source knows them.
    pub expected: Vec<String>,
}

/// The record of a durable dump, which is part of its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpRecord {
    /// The program and its version.
    pub program: String,
    /// What it wrote.
    pub format: DumpFormat,
    /// Bytes of its output.
    pub raw_bytes: u64,
    /// SHA-256 of its output.
    pub raw_sha256: String,
    /// The tables or collections in it, as far as its format names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<String>,
}
