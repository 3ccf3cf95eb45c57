//! The file that names each row which the target cannot hold. Each line is an object with the table, the slice, the row and
//! the reason.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::archive::runs::new_run_id;
use crate::error::{Error, Result};
use crate::model::TableId;
use crate::target::Reject;
use crate::target::journal::Journal;
use crate::window::Slice;

/// The file. It is made when there is something for it.
#[derive(Debug)]
pub(super) struct Rejects {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Rejects {
    /// The file that the user names, or that an earlier run of this restore has begun, or a new one.
    pub(super) fn new(journal: &mut Journal, named: Option<PathBuf>) -> Result<Self> {
        let path = match (named, journal.rejects()) {
            (Some(named), _) => named,
            (None, Some(known)) => known.to_owned(),
            (None, None) => {
                let here = std::env::current_dir().unwrap_or_default();
                here.join(format!("moveout-rejects-{}.jsonl", new_run_id()))
            }
        };
        if journal.rejects() != Some(&path) {
            journal.set_rejects(&path)?;
        }
        Ok(Self { path, file: Mutex::new(None) })
    }

    /// Adds a row.
    pub(super) fn add(&self, table: &TableId, slice: Slice, reject: &Reject) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: std::io::Error| {
            Error::stop(format!(
                "writing {}, which names the rejected rows: {error}",
                self.path.display()
            ))
            .hint("give another place by `--rejects FILE`, and run the same command again to continue")
        };
        let file = match &mut *file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path);
                none.insert(file.map_err(failed)?)
            }
        };
        let line = json!({
            "table": table,
            "slice": slice,
            "row": reject.row,
            "why": reject.why,
        });
        writeln!(file, "{line}").map_err(failed)
    }

    /// Makes sure that a crash does not lose what was added.
    pub(super) fn sync(&self) -> Result<()> {
        match &*self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file
                .sync_data()
                .map_err(|error| Error::stop(format!("writing {}: {error}", self.path.display()))),
            None => Ok(()),
        }
    }

    /// Its path, if there are rows in it.
    pub(super) fn path_if_any(&self, any: bool) -> Option<PathBuf> {
        any.then(|| self.path.clone())
    }
}
