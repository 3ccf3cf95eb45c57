//! PURE: what a report is made of.

use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::archive::run_json::RunEntry;
use crate::archive::runs::RunPlan;
use crate::archive::verdict::VerdictRecord;
use crate::model::TableId;
use crate::window::Window;

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whether the archive is sealed, and nothing lies outside of the seal.
    pub sealed: bool,
    /// The last verdict.
    pub record: Option<&'a VerdictRecord>,
    /// Why the record says nothing about the archive as it is now.
    pub invalid: Option<&'a str>,
    /// The run that sealed the archive last.
    pub run: Option<&'a RunEntry>,
    /// What unfinished runs set out to do.
    pub plans: &'a [RunPlan],
    /// All that the archive has.
    pub commits: &'a [Arc<Commit>],
}

impl<'a> Facts<'a> {
    /// The record, where it is one of the archive as it is now.
    pub(super) fn valid(&self) -> Option<&'a VerdictRecord> {
        self.record.filter(|_| self.sealed && self.invalid.is_none())
    }

    /// The time that was requested of each table.
    pub(super) fn requested(&self) -> impl Iterator<Item = (&'a TableId, Window)> + use<'a> {
        let Self { run, plans, .. } = *self;
        let sealed = run.into_iter().flat_map(|run| &run.requested);
        let sealed = sealed.flat_map(|of| of.windows.iter().map(|window| (&of.table, *window)));
        let planned = plans.iter().flat_map(|plan| &plan.tables);
        sealed.chain(planned.filter_map(|planned| Some((&planned.id, planned.requested?))))
    }

    /// The commits by table.
    pub(super) fn sorted(&self) -> Vec<&'a Commit> {
        let mut commits: Vec<&Commit> = self.commits.iter().map(Arc::as_ref).collect();
        commits.sort_by_key(|commit| {
            (&commit.source, &commit.database, &commit.schema, &commit.table, commit.slice)
        });
        commits
    }
}
