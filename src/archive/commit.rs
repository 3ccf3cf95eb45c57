//! The commit: the small record which says that a chunk is durable. PURE: its fields and its JSON.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::archive::keys;
use crate::column_stats::{ColumnInfo, ColumnStats};
use crate::compact::{OneOfEach, is_sole};
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::model::{Division, DumpRecord, TableId};
use crate::window::Slice;

/// What many commits have in common, so that it is in memory once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Common {
    /// The chunk's table: source …
    pub source: String,
    /// … database …
    pub database: String,
    /// … schema or retention policy …
    pub schema: String,
    /// … and name.
    pub table: String,
    /// The table's folder in the archive.
    pub path: String,
    /// The run that wrote it.
    pub run: String,
    /// What was checked before the commit.
    pub verified: String,
    /// The part of the identity that must not change between runs (such as the hash of a file).
    pub state: Option<String>,
}

static COMMON: OneOfEach<Common> = OneOfEach::new();

impl Common {
    /// The one that is equal to this.
    pub fn shared(self) -> Arc<Self> {
        COMMON.one(self)
    }
}

/// The record of a durable chunk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Stored")]
pub struct Commit {
    /// What it has in common with others.
    pub common: Arc<Common>,
    /// The part of the table that was read.
    pub slice: Slice,
    /// Rows of all files together.
    pub rows: u64,
    /// Zero or more files: an empty chunk has a commit and no file.
    pub files: Vec<FileRecord>,
    /// All columns of the table with their statistics in this chunk.
    pub columns: Vec<ColumnStats>,
    /// When the chunk was begun, RFC 3339.
    pub started: String,
    /// How long reading and writing took, in milliseconds, without the time that the query waited in the server's queue.
    pub elapsed_ms: u64,
    /// When it was committed, RFC 3339 with nanoseconds. The earlier of two commits wins.
    pub committed: String,
    /// Name of the snapshot that was read. Chunks with the same name are as of the same instant.
    pub snapshot: Option<String>,
    /// Runs whose commits for this window it replaces, because they were damaged or may be out of date.
    pub replaces: Vec<String>,
    /// The record of the dump, if this is a dump and not rows. It is also in `catalog/dumps.json`.
    pub dump: Option<Box<DumpRecord>>,
}

impl Deref for Commit {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// The form in an archive.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<'a> {
    source: Cow<'a, str>,
    database: Cow<'a, str>,
    schema: Cow<'a, str>,
    table: Cow<'a, str>,
    path: Cow<'a, str>,
    slice: Slice,
    rows: u64,
    files: Cow<'a, [FileRecord]>,
    columns: Cow<'a, [ColumnStats]>,
    run: Cow<'a, str>,
    started: Cow<'a, str>,
    elapsed_ms: u64,
    committed: Cow<'a, str>,
    verified: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty", deserialize_with = "list_or_null")]
    replaces: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dump: Option<Cow<'a, DumpRecord>>,
}

impl From<Stored<'_>> for Commit {
    fn from(stored: Stored<'_>) -> Self {
        let common = Common {
            source: stored.source.into_owned(),
            database: stored.database.into_owned(),
            schema: stored.schema.into_owned(),
            table: stored.table.into_owned(),
            path: stored.path.into_owned(),
            run: stored.run.into_owned(),
            verified: stored.verified.into_owned(),
            state: stored.state.map(Cow::into_owned),
        };
        Self {
            common: common.shared(),
            slice: stored.slice,
            rows: stored.rows,
            files: stored.files.into_owned(),
            columns: stored.columns.into_owned(),
            started: stored.started.into_owned(),
            elapsed_ms: stored.elapsed_ms,
            committed: stored.committed.into_owned(),
            snapshot: stored.snapshot.map(Cow::into_owned),
            replaces: stored.replaces.into_owned(),
            dump: stored.dump.map(|dump| Box::new(dump.into_owned())),
        }
    }
}

impl Serialize for Commit {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let stored = Stored {
            source: self.source.as_str().into(),
            database: self.database.as_str().into(),
            schema: self.schema.as_str().into(),
            table: self.table.as_str().into(),
            path: self.path.as_str().into(),
            slice: self.slice,
            rows: self.rows,
            files: self.files.as_slice().into(),
            columns: self.columns.as_slice().into(),
            run: self.run.as_str().into(),
            started: self.started.as_str().into(),
            elapsed_ms: self.elapsed_ms,
            committed: self.committed.as_str().into(),
            verified: self.verified.as_str().into(),
            state: self.state.as_deref().map(Into::into),
            snapshot: self.snapshot.as_deref().map(Into::into),
            replaces: self.replaces.as_slice().into(),
            dump: self.dump.as_deref().map(Cow::Borrowed),
        };
        stored.serialize(to)
    }
}

/// Splits a stored commit into the bytes that were hashed and the hash that follows them.
fn without_hash(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (rest, hash) = bytes.strip_suffix(b"\"}")?.split_last_chunk::<64>()?;
    let mut json = rest.strip_suffix(b",\"sha256\":\"")?.to_vec();
    json.push(b'}');
    Some((json, hash))
}

// A catalog from the time before commits could replace others has no such column, and Parquet stores an empty list as
// null.
fn list_or_null<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Cow<'static, [String]>, D::Error> {
    Ok(Cow::Owned(Option::deserialize(from)?.unwrap_or_default()))
}

/// The identity of a commit.
pub type CommitKey = (TableId, Slice, String);

/// A data file as it was read back from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Key in the archive.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Rows in it.
    pub rows: u64,
}

impl Commit {
    /// The full name of its table.
    pub fn id(&self) -> TableId {
        TableId {
            source: self.source.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            table: self.table.clone(),
        }
    }

    /// The identity of the commit, borrowed from it. It sorts by table, then by slice.
    pub fn names(&self) -> (&str, &str, &str, &str, Slice, &str) {
        (&self.source, &self.database, &self.schema, &self.table, self.slice, &self.run)
    }

    /// The estimated number of bytes of memory that it takes.
    pub fn size_bytes(&self) -> usize {
        let of = |texts: &[&str]| texts.iter().map(|text| text.len()).sum::<usize>();
        let files =
            self.files.iter().map(|file| size_of_val(file) + of(&[&file.key, &file.sha256]));
        let columns = self.columns.iter().map(|column| {
            let values = [&column.min, &column.max, &column.sum];
            let values: usize = values.into_iter().flatten().map(|text| text.len()).sum();
            // What the column is, is shared, and counted where it is new.
            let of_column = match is_sole(&column.column) {
                true => {
                    size_of::<ColumnInfo>() + of(&[&column.name, &column.key, &column.source_type])
                }
                false => 0,
            };
            size_of_val(column) + values + of_column
        });
        let of_common = match is_sole(&self.common) {
            true => {
                let texts = [&self.source, &self.database, &self.schema, &self.table, &self.path];
                size_of::<Common>() + texts.iter().map(|text| text.len()).sum::<usize>()
            }
            false => 0,
        };
        size_of_val(self)
            + of_common
            + of(&[&self.started, &self.committed])
            + files.sum::<usize>()
            + columns.sum::<usize>()
    }

    /// The identity of the commit.
    pub fn key(&self) -> CommitKey {
        (self.id(), self.slice, self.run.clone())
    }

    /// How its table was divided, if that must not change.
    pub fn division(&self) -> Option<Division> {
        let parsed = self.state.as_deref().map(str::parse);
        parsed.map(|parsed| parsed.unwrap_or_else(|never| match never {}))
    }

    /// The stored form, which includes its own hash, since nothing else protects it before the seal.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::stop(format!("writing a commit: {error}"));
        let mut json = serde_json::to_vec(self).map_err(failed)?;
        let hash = sha256(&json);
        json.pop(); // the brace
        json.extend_from_slice(format!(",\"sha256\":\"{hash}\"}}").as_bytes());
        Ok(json)
    }

    /// Reads the stored form.
    pub fn from_json(key: &str, bytes: &[u8]) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| {
            Error::different(format!("the commit {key} cannot be read: {why}"))
                .hint("remove it: its chunk is then exported again")
        };
        let Some(hashed) = without_hash(bytes) else {
            // Older versions stored no hash, and a hash in another place is an unknown key.
            return serde_json::from_slice(bytes).map_err(|error| wrong(&error));
        };
        match hashed {
            (json, hash) if hash == sha256(&json).as_bytes() => {
                serde_json::from_slice(&json).map_err(|error| wrong(&error))
            }
            _ => Err(wrong(&"its bytes are not those that were written")),
        }
    }

    /// The order in which commits count: of two for the same window, the earlier one counts.
    pub fn order(&self) -> (&str, &str, Slice) {
        (&self.committed, &self.run, self.slice)
    }

    /// Whether it replaces another commit, whichever of the two is earlier.
    pub fn takes_over(&self, other: &Self) -> bool {
        let later = || self.run != other.run || self.order() > other.order();
        self.replaces.contains(&other.run) && self.slice.overlaps(other.slice) && later()
    }
}

/// The key of a commit until it is in the catalog.
pub fn commit_key(commit: &Commit) -> String {
    if commit.replaces.is_empty() {
        keys::commit_key(&commit.path, commit.slice)
    } else {
        keys::replacing_commit_key(&commit.path, commit.slice, &commit.run)
    }
}

/// The key of the record that a folded commit was retracted.
pub(super) fn retracted_key(commit: &Commit) -> String {
    keys::retracted_key(&commit.path, commit.slice, &commit.run, &commit.committed)
}

pub(super) fn two_versions(commit: &Commit) -> Error {
    Error::stop(format!(
        "{} was exported in another version than it has now: an archive holds one of each",
        commit.id()
    ))
    .hint("export it into a new archive")
}
