//! What an export did, as it is told to people and to programs.

use serde::Serialize;

use crate::archive::run_json::{Kept, Outside};
use crate::error::Exit;
use crate::model::{ArtifactOutcome, ArtifactStatus, Excluded, TableId};
use crate::window::Window;

/// What a run did, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Always `export`.
    pub command: &'static str,
    /// How it ended.
    pub status: ExportStatus,
    /// Where the archive is.
    pub archive: String,
    /// Short id of the run.
    pub run: String,
    /// Tables asked for.
    pub tables: usize,
    /// Tables with rows in this run.
    pub tables_written: usize,
    /// Chunks committed by this run.
    pub chunks: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Chunks that were there before.
    pub chunks_before: u64,
    /// Rows of the whole archive.
    pub rows_total: u64,
    /// Bytes of all of its data files.
    pub bytes_total: u64,
    /// What earlier runs had read whole, and this one has read again.
    pub read_again: ReadAgain,
    /// The same, where it was left as it was.
    pub kept: Vec<Kept>,
    /// What earlier runs exported in windows.
    pub not_compared: NotCompared,
    /// Seconds it took.
    pub elapsed_seconds: f64,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// What was left out, and why.
    pub excluded: Vec<Excluded>,
    /// What became of each kind of artifact.
    pub artifacts: Vec<ArtifactStatus>,
    /// What was found out and is no reason to worry.
    pub notes: Vec<String>,
    /// From the first to the last instant that the archive covers, where rows are known outside of that.
    pub covers: Option<Window>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What is not in the archive yet, where the run did not complete it.
    pub missing: Vec<Missing>,
    /// What failed, each with the reason.
    pub failed: Vec<Failed>,
    /// The error that ended the run early, if one did.
    pub error: Option<String>,
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportStatus {
    /// Everything that was requested is in the archive, which is sealed.
    Complete,
    /// Every row is in the archive, which is sealed, but not every definition.
    #[serde(rename = "complete except for definitions")]
    CompleteExceptForDefinitions,
    /// Something is still to be done.
    Incomplete,
    /// The user has stopped it.
    Interrupted,
}

/// A table of which something that was requested is not in the archive.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// The table.
    pub table: TableId,
    /// The time that is missing.
    pub windows: Vec<Window>,
    /// Whether the rows without a time are missing.
    pub null_time: bool,
}

/// Tables that were read again.
#[derive(Debug, Default, Serialize)]
pub struct ReadAgain {
    /// How many.
    pub tables: u64,
    /// Those of which the rows, the columns or their statistics are others now.
    pub changed: u64,
}

/// Windows that were exported before and were not compared with the source.
#[derive(Debug, Default, Serialize)]
pub struct NotCompared {
    /// How many.
    pub windows: u64,
    /// Of how many tables.
    pub tables: u64,
}

/// A chunk, a table or a kind of definitions that could not be had.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    /// Table and window, or what else it is.
    pub chunk: String,
    /// Why.
    pub error: String,
    #[serde(skip)]
    pub(super) exit: Exit,
}

/// What helps where tables cannot be read.
pub const UNREADABLE: &str = "give the user the rights, or leave these tables out by `exclude`";

impl Failed {
    /// Tables that are there and cannot be read.
    pub fn unreadable(tables: &[(TableId, String)]) -> Vec<Self> {
        let failed = |(table, why): &(TableId, String)| Self {
            chunk: table.to_string(),
            error: why.clone(),
            exit: Exit::Failed,
        };
        tables.iter().map(failed).collect()
    }

    /// Definitions that could not be saved.
    pub(super) fn unsaved(artifacts: &[ArtifactStatus]) -> Vec<Self> {
        let unsaved = artifacts
            .iter()
            .filter(|artifact| matches!(artifact.status, ArtifactOutcome::Failed(_)));
        let failed = |artifact: &ArtifactStatus| Self {
            chunk: format!("{} of {}", artifact.kind, artifact.source),
            error: artifact.status.to_string(),
            exit: Exit::Failed,
        };
        unsaved.map(failed).collect()
    }
}
