//! The record of what a restore has written. It is a file of the user, because an archive may be read-only, and an InfluxDB
//! has no place for it. Losing it only costs time, because writing a chunk again changes nothing. It is removed when the
//! restore is done.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::model::TableId;
use crate::target::{Known, Written};

/// The record of a restore.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// Tables of the target whose rows belong to this restore.
    begun: Vec<TableId>,
    chunks: HashMap<String, Written>,
    /// The file with the rejected rows.
    rejects: Option<PathBuf>,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// Rows of these tables may be there from now on.
    Begun(Vec<TableId>),
    /// Where the rejected rows are.
    Rejects(PathBuf),
    /// A chunk is there.
    Chunk { name: String, rows: u64, rejected: u64 },
}

impl Journal {
    /// The journal of what is written into a target, in the user's folder for such files: `$XDG_STATE_HOME/moveout`, or
    /// `~/.local/state/moveout`. A line that a killed run has not written to its end does not count.
    pub fn open(target: &str) -> Result<Self> {
        let folder = folder();
        let name = format!("restore-{}.jsonl", &sha256(target.as_bytes())[..16]);
        Self::at(folder.join(name))
    }

    /// The journal in a file, which need not exist.
    pub fn at(path: PathBuf) -> Result<Self> {
        let (begun, chunks) = (Vec::new(), HashMap::new());
        let mut journal = Self { path, file: None, begun, chunks, rejects: None };
        let file = match File::open(&journal.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(journal),
            Err(error) => return Err(failed("reading", &journal.path, &error)),
        };
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|error| failed("reading", &journal.path, &error))?;
            match serde_json::from_str(&line) {
                Ok(Line::Begun(tables)) => journal.begun.extend(tables),
                Ok(Line::Chunk { name, rows, rejected }) => {
                    journal.chunks.insert(name, Written { rows, rejected });
                }
                Ok(Line::Rejects(path)) => journal.rejects = Some(path),
                Err(_) => {}
            }
        }
        Ok(journal)
    }

    /// Takes over what the target itself has recorded, instead of what the file says.
    pub fn believe(&mut self, known: &Known) {
        self.begun = known.begun.iter().cloned().collect();
        self.chunks = known.chunks.clone();
    }

    /// Whether the rows of a table of the target belong to this restore.
    pub fn has_begun(&self, table: &TableId) -> bool {
        self.begun.contains(table)
    }

    /// What became of a chunk, if it was written.
    pub fn written(&self, chunk: &str) -> Option<&Written> {
        self.chunks.get(chunk)
    }

    /// Forgets chunks by their names, because the target has lost their rows.
    pub fn forget(&mut self, names: &[String]) {
        names.iter().for_each(|name| _ = self.chunks.remove(name));
    }

    /// The file with the rejected rows.
    pub fn rejects(&self) -> Option<&PathBuf> {
        self.rejects.as_ref()
    }

    /// Records where the rejected rows are.
    pub fn set_rejects(&mut self, path: &Path) -> Result<()> {
        self.add(&Line::Rejects(path.to_owned()))?;
        self.rejects = Some(path.to_owned());
        Ok(())
    }

    /// Records that the target may have rows of these tables from now on.
    pub fn begin(&mut self, tables: Vec<TableId>) -> Result<()> {
        self.add(&Line::Begun(tables.clone()))?;
        self.begun.extend(tables);
        Ok(())
    }

    /// Records that the target has a chunk.
    pub fn add_chunk(&mut self, name: &str, written: &Written) -> Result<()> {
        let Written { rows, rejected } = *written;
        self.add(&Line::Chunk { name: name.to_owned(), rows, rejected })?;
        self.chunks.insert(name.to_owned(), written.clone());
        Ok(())
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        let path = &self.path;
        let failed = |error: std::io::Error| failed("writing", path, &error);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let folder = path.parent().unwrap_or(Path::new("."));
                fs::create_dir_all(folder).map_err(failed)?;
                let mut file =
                    OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
                file.write_all(b"\n").map_err(failed)?; // ends a line that was cut
                none.insert(file)
            }
        };
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)
    }

    /// Removes the file, because the restore is done.
    pub fn end(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("removing", &self.path, &error))
            }
            _ => Ok(()),
        }
    }
}

fn folder() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = of("XDG_STATE_HOME").map(PathBuf::from);
    let home = || of("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_default().join("moveout")
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::stop(format!("{doing} {}, the record of the restore: {error}", path.display()))
        .hint("set XDG_STATE_HOME to a folder that can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_survives_a_run_that_is_killed_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/moveout/restore.jsonl");
        let table = TableId {
            source: "t".to_owned(),
            database: "d".to_owned(),
            schema: String::new(),
            table: "cpu".to_owned(),
        };
        let mut journal = Journal::at(path.clone()).unwrap();
        assert!(!journal.has_begun(&table));
        journal.begin(vec![table.clone()]).unwrap();
        journal.add_chunk("one", &Written { rows: 7, rejected: 1 }).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"chunk":{"name":"tw"#).unwrap();

        let mut journal = Journal::at(path.clone()).unwrap();
        assert!(journal.has_begun(&table));
        assert_eq!(journal.written("one"), Some(&Written { rows: 7, rejected: 1 }));
        journal.add_chunk("three", &Written::default()).unwrap();

        let journal = Journal::at(path.clone()).unwrap();
        assert_eq!(journal.written("three"), Some(&Written::default()), "behind the cut line");
        assert_eq!(journal.written("tw"), None);
        journal.end().unwrap();
        assert!(!path.exists());
    }
}
