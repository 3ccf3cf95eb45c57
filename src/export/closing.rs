//! The end of a run: what it tells of itself, in the numbers of the archive.

use std::collections::HashSet;

use crate::archive::ArchiveIndex;
use crate::archive::run_json::covers;
use crate::coverage::Coverage;
use crate::error::{Exit, Result};
use crate::export::run::Run;
use crate::export::summary::{ExportStatus, Failed, Missing};

impl Run<'_> {
    /// Removes the heartbeat and counts what the archive holds.
    pub(super) async fn leave(&mut self) -> Result<()> {
        if let Some(beating) = self.beating.take() {
            beating.stop().await;
        }
        self.archive.forget_heartbeat(&self.writer.run).await?;
        // A commit that was to be replaced and was not still counts.
        self.archive.keep(self.again.before.values()).await;
        let state = self.archive.state().await?;
        self.summary.rows_total = state.commits.iter().map(|commit| commit.rows).sum();
        self.summary.bytes_total =
            state.commits.iter().flat_map(|commit| &commit.files).map(|file| file.bytes).sum();
        let before = state.run.iter().flat_map(|run| run.runs()).flat_map(|run| &run.outside);
        self.count_what_stays(&state);
        if self.summary.exit != Exit::Done {
            self.summary.missing = self.missing(&state);
        }
        self.summary.covers = covers(self.survey.outside.iter().chain(before), &state.commits);
        if self.summary.exit == Exit::Done {
            Ok(())
        } else {
            self.archive.unmake(&self.writer.run).await
        }
    }

    /// What this run committed, as the archive has it: another run may have been first with the same chunk.
    fn count_what_stays(&mut self, state: &ArchiveIndex) {
        let mine = || state.commits.iter().filter(|commit| commit.run == self.writer.run);
        let summary = &mut self.summary;
        summary.chunks = mine().count() as u64;
        summary.rows = mine().map(|commit| commit.rows).sum();
        summary.bytes = mine().flat_map(|commit| &commit.files).map(|file| file.bytes).sum();
        let written = mine().filter(|commit| commit.rows > 0).map(|commit| commit.id());
        summary.tables_written = written.collect::<HashSet<_>>().len();
    }

    fn missing(&self, state: &ArchiveIndex) -> Vec<Missing> {
        let committed = state.by_table();
        let missing = self.survey.tables.iter().map(|surveyed| {
            let commits = committed.get(&surveyed.table.id).map(Vec::as_slice).unwrap_or_default();
            let coverage: Coverage = commits.iter().map(|commit| commit.slice).collect();
            let (windows, null_time) = surveyed.remaining(&coverage);
            Missing { table: surveyed.table.id.clone(), windows, null_time }
        });
        missing.filter(|missing| missing.null_time || !missing.windows.is_empty()).collect()
    }

    /// The archive is sealed.
    pub(super) fn complete(&mut self) {
        let unsaved = Failed::unsaved(&self.summary.artifacts);
        if unsaved.is_empty() {
            self.summary.status = ExportStatus::Complete;
            self.summary.exit = Exit::Done;
        } else {
            // The archive is sealed with all of its rows; the next run saves the definitions.
            self.summary.status = ExportStatus::CompleteExceptForDefinitions;
            self.summary.failed = unsaved;
            self.summary.hint = Some(
                    "every row is in the archive, which is sealed; remove the cause and run the same command again to save \
                     the definitions"
                        .to_owned(),
                );
        }
    }
}
