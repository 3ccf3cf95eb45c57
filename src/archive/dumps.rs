//! PURE: `catalog/dumps.json`, which lists the native dumps of a sealed archive with everything from their commits.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

use crate::archive::catalog::to_json;
use crate::archive::commit::{Commit, Common, FileRecord};
use crate::error::Result;
use crate::model::{DumpFormat, DumpRecord, TableId};
use crate::window::Slice;

/// A dump in `catalog/dumps.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpEntry {
    /// Its source.
    pub source: String,
    /// Its name: the name of the database, or `all`.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Bytes of what the program printed.
    pub raw_bytes: u64,
    /// SHA-256 of what the program printed.
    pub raw_sha256: String,
    /// The program and its version.
    pub program: String,
    /// What it writes.
    pub format: DumpFormat,
    /// Whether it is complete, which is true for every listed dump.
    pub complete: bool,
    /// The tables or collections in it, as far as its format names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<String>,
    /// The run that made it.
    pub run: String,
    /// When it was begun, RFC 3339.
    pub started: String,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// When it was committed, RFC 3339.
    pub committed: String,
    /// What was checked before the commit.
    pub verified: String,
    /// Runs whose dumps it replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
}

impl DumpEntry {
    /// The entry of a commit; `None` if it is a commit of rows.
    pub fn of(commit: &Commit) -> Option<Self> {
        let (dump, file) = (commit.dump.clone()?, commit.files.first()?.clone());
        Some(Self {
            source: commit.source.clone(),
            name: commit.table.clone(),
            path: file.key,
            bytes: file.bytes,
            sha256: file.sha256,
            raw_bytes: dump.raw_bytes,
            raw_sha256: dump.raw_sha256,
            program: dump.program,
            format: dump.format,
            complete: true,
            contents: dump.contents,
            run: commit.run.clone(),
            started: commit.started.clone(),
            elapsed_ms: commit.elapsed_ms,
            committed: commit.committed.clone(),
            verified: commit.verified.clone(),
            replaces: commit.replaces.clone(),
        })
    }

    fn commit(self) -> Commit {
        let id = TableId::dump(&self.source, &self.name);
        let path = self.path.strip_suffix(&format!(".{}.zst", self.run)).unwrap_or(&self.path);
        Commit {
            common: Common {
                path: path.to_owned(),
                source: id.source,
                database: id.database,
                schema: id.schema,
                table: id.table,
                run: self.run,
                verified: self.verified,
                state: None,
            }
            .shared(),
            slice: Slice::All,
            rows: 0,
            files: vec![FileRecord {
                key: self.path,
                bytes: self.bytes,
                sha256: self.sha256,
                rows: 0,
            }],
            columns: Vec::new(),
            started: self.started,
            elapsed_ms: self.elapsed_ms,
            committed: self.committed,
            snapshot: None,
            replaces: self.replaces,
            dump: Some(Box::new(DumpRecord {
                program: self.program,
                format: self.format,
                raw_bytes: self.raw_bytes,
                raw_sha256: self.raw_sha256,
                contents: self.contents,
            })),
        }
    }
}

/// The entries of the dumps among commits.
pub fn dumps<C: Borrow<Commit>>(commits: &[C]) -> Vec<DumpEntry> {
    commits.iter().filter_map(|commit| DumpEntry::of(commit.borrow())).collect()
}

/// `catalog/dumps.json`; `None` if there is no dump.
pub fn write_dumps<C: Borrow<Commit>>(commits: &[C]) -> Result<Option<Vec<u8>>> {
    let dumps = dumps(commits);
    if dumps.is_empty() { Ok(None) } else { to_json(&dumps).map(Some) }
}

/// Reads `catalog/dumps.json`. An error says what is wrong with the file.
pub fn read_dumps(bytes: &[u8]) -> std::result::Result<Vec<Commit>, String> {
    let entries: Vec<DumpEntry> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(entry) = entries.iter().find(|entry| !entry.complete) {
        return Err(format!("{} is listed but not complete", entry.path));
    }
    Ok(entries.into_iter().map(DumpEntry::commit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_survive_the_catalog() {
        let entry = |name: &str, format| DumpEntry {
            source: "s".into(),
            name: name.into(),
            path: format!("data/s/_dumps/{name}.r.zst"),
            bytes: 5,
            sha256: "ab".into(),
            raw_bytes: 1 << 40,
            raw_sha256: "cd".into(),
            program: "pg_dump 15".into(),
            format,
            complete: true,
            contents: vec!["public.t".into()],
            run: "r".into(),
            started: "2024-01-01T00:00:00Z".into(),
            elapsed_ms: 7,
            committed: "2024-01-01T00:00:01Z".into(),
            verified: "all of it".into(),
            replaces: vec!["q".into()],
        };
        let entries =
            [entry("a.b", DumpFormat::PgDump), entry("c", DumpFormat::EndsWith("x".into()))];
        let bytes = to_json(&entries).unwrap();
        let commits = read_dumps(&bytes).unwrap();
        assert_eq!(commits[0].path, "data/s/_dumps/a.b");
        assert!(commits[0].id().is_dump());
        assert_eq!(dumps(&commits), entries);
        assert_eq!(write_dumps(&commits).unwrap().unwrap(), bytes);
        assert_eq!(write_dumps::<Commit>(&[]).unwrap(), None);
        let cut = String::from_utf8(bytes).unwrap().replace("true", "false");
        assert!(read_dumps(cut.as_bytes()).is_err());
    }
}
