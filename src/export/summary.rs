//! The summary of an export, for people and for programs.

use serde::Serialize;

use crate::archive::commit::Commit;
use crate::archive::dumps::DumpEntry;
use crate::archive::run_json::{Gone, Kept, Outside};
use crate::error::{Error, Exit};
use crate::model::{ArtifactOutcome, ArtifactStatus, Chunk, Excluded, TableId};
use crate::survey::Lost;
use crate::window::Window;

/// What a run did, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Always `export`.
    pub command: &'static str,
    /// How it ended.
    pub status: ExportStatus,
    /// The location of the archive.
    pub archive: String,
    /// The short id of the run.
    pub run: String,
    /// The shard that it exported, as `I/N`; `None` for all of the work.
    pub shard: Option<String>,
    /// The outcome of each source. Those that need action come first.
    pub sources: Vec<OfSource>,
    /// The number of requested tables.
    pub tables: usize,
    /// The number of tables of which this run has written rows.
    pub tables_written: usize,
    /// The number of chunks that this run has committed.
    pub chunks: u64,
    /// The rows in these chunks.
    pub rows: u64,
    /// The bytes of their files.
    pub bytes: u64,
    /// The number of chunks that the archive had before.
    pub chunks_before: u64,
    /// The rows of the whole archive.
    pub rows_total: u64,
    /// The bytes of all its data files.
    pub bytes_total: u64,
    /// The tables that earlier runs had read whole and this one has read again.
    pub read_again: ReadAgain,
    /// The slices that earlier runs had read whole and this one has not read again.
    pub kept: Vec<Kept>,
    /// Tables that their sources do not list any more, and whose rows stay in the archive.
    pub gone: Vec<Gone>,
    /// The windows of earlier runs, which were not compared with the source.
    pub not_compared: NotCompared,
    /// How many seconds the run took.
    pub elapsed_seconds: f64,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// What was excluded, and why.
    pub excluded: Vec<Excluded>,
    /// The native dumps in the archive that belong to the sources of this run.
    pub dumps: Vec<DumpEntry>,
    /// The outcome of each kind of artifact.
    pub artifacts: Vec<ArtifactStatus>,
    /// Findings that need no action.
    pub notes: Vec<String>,
    /// From the first to the last instant that the archive covers, if rows outside of it are known.
    pub covers: Option<Window>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What is not in the archive yet, if the run did not complete it.
    pub missing: Vec<Missing>,
    /// What failed, each with the reason.
    pub failed: Vec<Failed>,
    /// The error that ended the run early, if one did.
    pub error: Option<String>,
    /// The exit status of the process.
    #[serde(skip)]
    pub exit: Exit,
    /// What the user can do next.
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
    /// Everything of this shard is in the archive, which is not sealed, or was sealed and has everything.
    #[serde(rename = "shard complete")]
    ShardComplete,
    /// Something is still to be done.
    Incomplete,
    /// The user has stopped it.
    Interrupted,
}

/// A table of which a requested part is not in the archive.
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
    /// How many of them have other rows, columns or statistics now.
    pub changed: u64,
    /// Chunks, whole or not, that were read again since the last proof found them different.
    pub stale: u64,
}

/// The windows that were exported before and were not compared with the source.
#[derive(Debug, Default, Serialize)]
pub struct NotCompared {
    /// How many.
    pub windows: u64,
    /// To how many tables they belong.
    pub tables: u64,
}

/// The outcome of one source.
#[derive(Debug, Serialize)]
pub struct OfSource {
    /// Its name.
    pub source: String,
    /// How it ended.
    pub status: SourceStatus,
    /// The number of requested tables.
    pub tables: u64,
    /// The rows that this run has committed.
    pub rows: u64,
    /// The bytes of their files.
    pub bytes: u64,
    /// Its rows in the archive.
    pub rows_total: u64,
    /// The bytes of their files.
    pub bytes_total: u64,
    /// The first failure.
    pub error: Option<String>,
    /// What to do about it.
    pub todo: Option<String>,
}

/// How a source ended. A status that needs action comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    /// Something of it cannot be exported until somebody acts.
    Failed,
    /// Something of it is not in the archive, but another run may export it.
    Incomplete,
    /// Everything that was requested of it is in the archive.
    Complete,
}

impl OfSource {
    /// A source of which nothing is missing.
    pub(super) fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            status: SourceStatus::Complete,
            tables: 0,
            rows: 0,
            bytes: 0,
            rows_total: 0,
            bytes_total: 0,
            error: None,
            todo: None,
        }
    }

    pub(super) fn count(&mut self, commit: &Commit, is_mine: bool) {
        let bytes: u64 = commit.files.iter().map(|file| file.bytes).sum();
        self.rows_total += commit.rows;
        self.bytes_total += bytes;
        if is_mine {
            self.rows += commit.rows;
            self.bytes += bytes;
        }
    }

    pub(super) fn fail(&mut self, failed: &Failed) {
        let status = match failed.exit {
            Exit::Incomplete => SourceStatus::Incomplete,
            _ => SourceStatus::Failed,
        };
        self.status = self.status.min(status);
        if self.error.is_none() {
            self.error = Some(if failed.is_source {
                failed.error.clone()
            } else {
                format!("{}: {}", failed.chunk, failed.error)
            });
            self.todo.clone_from(&failed.todo);
        }
    }
}

/// A chunk, a table, a kind of definitions or a whole source that could not be exported.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    /// The source to which it belongs.
    pub source: String,
    /// The table and the window, or what else failed.
    pub chunk: String,
    /// Why.
    pub error: String,
    /// What to do about it, if that is known.
    #[serde(skip)]
    pub todo: Option<String>,
    /// Whether it is the whole source.
    #[serde(skip)]
    pub is_source: bool,
    #[serde(skip)]
    pub(super) exit: Exit,
}

/// What to do if tables cannot be read; `None` if all unreadable ones are dumps, whose reasons already say that.
pub fn unreadable_hint(unreadable: &[(TableId, String)]) -> Option<String> {
    unreadable.iter().any(|(id, _)| !id.is_dump()).then(|| UNREADABLE.to_owned())
}

/// What to do if tables cannot be read.
pub const UNREADABLE: &str = "grant the user the rights, or leave these tables out by `exclude`";

impl Failed {
    fn new(source: &str, chunk: String, error: String, exit: Exit, todo: Option<&str>) -> Self {
        let (source, todo) = (source.to_owned(), todo.map(str::to_owned));
        Self { source, chunk, error, todo, is_source: false, exit }
    }

    pub(super) fn chunk(chunk: &Chunk, error: &Error) -> Self {
        let source = &chunk.table.id.source;
        Self::new(source, chunk.to_string(), error.to_string(), error.exit(), error.hint_text())
    }

    /// A source without which the others go on.
    pub fn source(source: &str, error: &Error) -> Self {
        let chunk = format!("source {source}");
        let failed = Self::new(source, chunk, error.to_string(), error.exit(), error.hint_text());
        Self { is_source: true, ..failed }
    }

    /// The sources without which the others go on, and the tables that exist but cannot be read.
    pub fn of_survey(lost: &[Lost], tables: &[(TableId, String)]) -> Vec<Self> {
        let lost = lost.iter().map(|lost| Self::source(&lost.source, &lost.error));
        let unreadable = tables.iter().map(|(table, why)| {
            let (id, why) = (table.to_string(), why.clone());
            Self::new(&table.source, id, why, Exit::Failed, Some(UNREADABLE))
        });
        lost.chain(unreadable).collect()
    }

    /// The exit status for these failures: the run has failed if one of them is permanent.
    pub fn exit(all: &[Self]) -> Exit {
        match all {
            [] => Exit::Done,
            all if all.iter().all(|failed| failed.exit == Exit::Incomplete) => Exit::Incomplete,
            _ => Exit::Failed,
        }
    }

    /// Definitions that could not be saved.
    pub(super) fn unsaved(artifacts: &[ArtifactStatus]) -> Vec<Self> {
        let unsaved = artifacts
            .iter()
            .filter(|artifact| matches!(artifact.status, ArtifactOutcome::Failed(_)));
        let failed = |artifact: &ArtifactStatus| {
            let what = format!("{} of {}", artifact.kind, artifact.source);
            Self::new(&artifact.source, what, artifact.status.to_string(), Exit::Failed, None)
        };
        unsaved.map(failed).collect()
    }
}
