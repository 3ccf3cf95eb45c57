//! Compares the list of tables of each source with those in the archive.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::archive::commit::Commit;
use crate::archive::run_json::Gone;
use crate::commands::verify::against::Comparison;
use crate::commands::verify::against::answer::{ASK_AGAIN, EXPORT_AGAIN};
use crate::coverage::named;
use crate::model::{ArtifactOutcome, OpenKind as Kind, TableId};
use crate::survey::gone::Absent;
use crate::text::several;

const BRING_BACK: &str = "bring it back and run the same `moveout export` again, or leave it out by a rule (`exclude`), which says \
                          that what the archive lacks is not needed";
const RECORDS_GONE: &str = "make sure that it was meant to go and that this user would see it, then run the same `moveout export` \
     again, which records it and keeps the rows, then this proof";

impl Comparison<'_> {
    /// Finds tables that are only in a source or only in the archive.
    pub(super) fn inventory(&mut self) {
        let survey = self.survey;
        for lost in &survey.lost {
            let why = lost.error.to_string();
            self.open(Kind::Unfinished, &lost.source, "the source".to_owned(), why, ASK_AGAIN);
        }
        for (id, why) in &survey.unreadable {
            let todo = "give the user the right to read it, or leave it out by `exclude`, and export again";
            self.open(Kind::Failed, &id.source, format!("table {id}"), why.clone(), todo);
        }
        let by_table = self.state.by_table();
        let reached: HashSet<&str> =
            survey.sources.iter().map(|reached| reached.info.name.as_str()).collect();
        self.absent(survey.absent(self.job, by_table.keys()));
        let named: HashSet<&str> = self.job.sources.iter().map(|spec| spec.name.as_str()).collect();
        let unasked: BTreeSet<&str> = by_table
            .keys()
            .map(|id| id.source.as_str())
            .filter(|source| !named.contains(source) && !reached.contains(source))
            .collect();
        let unasked: Vec<String> = unasked
            .into_iter()
            .filter(|source| !survey.is_lost(source))
            .map(str::to_owned)
            .collect();
        for source in unasked {
            let why = "it was not asked".to_owned();
            let todo = "name it by --source or --config, too";
            self.open(Kind::Unfinished, &source, "the source".to_owned(), why, todo);
        }
        let excluded: HashSet<(&str, &str)> = (self.state.run.iter())
            .flat_map(|run| &run.excluded)
            // A table that was left out because it had no rows may have some now.
            .filter(|excluded| excluded.is_by_rule())
            .map(|excluded| (excluded.source.as_str(), excluded.what.as_str()))
            .collect();
        let new: Vec<TableId> = (survey.tables.iter())
            .filter(|surveyed| surveyed.bounds.is_some())
            .map(|surveyed| &surveyed.table.id)
            .filter(|id| !by_table.contains_key(id))
            .filter(|id| !excluded.contains(&(id.source.as_str(), format!("table {id}").as_str())))
            .cloned()
            .collect();
        for id in new {
            let why = "it is not in the archive".to_owned();
            self.open(Kind::Different, &id.source, format!("table {id}"), why, EXPORT_AGAIN);
        }
        let dumps = survey.tables.iter().map(|surveyed| &surveyed.table.id);
        let dumps: Vec<TableId> =
            dumps.filter(|id| id.is_dump() && !by_table.contains_key(id)).cloned().collect();
        for id in dumps {
            let why = "the archive does not have it".to_owned();
            self.open(Kind::Different, &id.source, format!("the {id}"), why, EXPORT_AGAIN);
        }
        let unsaved = self.state.run.iter().flat_map(|run| &run.artifacts);
        let unsaved: Vec<_> = unsaved
            .filter_map(|artifact| match &artifact.status {
                ArtifactOutcome::Failed(why) => {
                    Some((artifact.source.clone(), artifact.kind.clone(), why.clone()))
                }
                _ => None,
            })
            .collect();
        for artifact in self.state.run.iter().flat_map(|run| &run.artifacts) {
            if let ArtifactOutcome::NotAvailable(why) = &artifact.status {
                let (kind, source) = (&artifact.kind, &artifact.source);
                self.notes
                    .push(format!("definitions: {kind} of {source} are not available: {why}"));
            }
        }
        for (source, kind, why) in unsaved {
            self.open(Kind::Failed, &source, format!("definitions: {kind}"), why, EXPORT_AGAIN);
        }
    }

    /// Reports the tables of the archive that were not listed.
    fn absent(&mut self, absent: Vec<(&TableId, Absent)>) {
        let gone = self.state.run.iter().flat_map(|run| &run.gone);
        let since: HashMap<&TableId, &Gone> = gone.map(|gone| (&gone.table, gone)).collect();
        let (mut unasked, mut left_out) =
            (BTreeMap::<&str, Vec<&TableId>>::new(), BTreeMap::<&str, Vec<&TableId>>::new());
        for (id, absent) in absent {
            match (absent, since.get(id)) {
                (Absent::NotAsked, _) => unasked.entry(&id.source).or_default().push(id),
                (Absent::LeftOut, _) => left_out.entry(&id.source).or_default().push(id),
                (Absent::Gone, Some(Gone { since, missing, .. })) if missing.is_empty() => {
                    self.notes.push(format!(
                        "table {id}: the source does not list it any more, as an export recorded at {since}; its rows \
                         stay in the archive"
                    ));
                }
                (Absent::Gone, Some(Gone { missing, .. })) => {
                    let why = format!(
                        "the source does not list it any more, and it went before all of it was exported: the archive \
                         lacks {}",
                        named(missing)
                    );
                    let what = format!("table {id}");
                    self.open(Kind::Unfinished, &id.source, what, why, BRING_BACK);
                }
                (Absent::Gone, None) => {
                    let why = "the source does not list it any more; its rows stay in the archive";
                    let what = format!("table {id}");
                    self.open(Kind::Different, &id.source, what, why.into(), RECORDS_GONE);
                }
            }
        }
        for (source, ids) in unasked {
            let what = some_of(&ids);
            let why = "what was asked for does not include them".to_owned();
            let todo = "ask for all that was exported of the source, by the same addresses and the same configuration";
            self.open(Kind::Unfinished, source, what, why, todo);
        }
        for ids in left_out.into_values() {
            self.notes.push(format!(
                "{}: left out by a rule, and not compared; their rows stay in the archive",
                some_of(&ids)
            ));
        }
    }

    /// Reports the tables that no longer have any rows.
    pub(super) fn emptied(&mut self, by_table: &HashMap<TableId, Vec<&Commit>>) {
        let survey = self.survey;
        for surveyed in survey.beside.iter().filter(|surveyed| surveyed.bounds.is_none()) {
            let id = &surveyed.table.id;
            let commits = by_table.get(id).map(Vec::as_slice).unwrap_or_default();
            let rows: u64 = commits.iter().map(|commit| commit.rows).sum();
            if rows == 0 {
                continue;
            }
            let why = format!(
                "it has no rows any more; the archive has {} in {}",
                several(rows, "row"),
                several(commits.len() as u64, "chunk")
            );
            let mut todo = "";
            for commit in commits.iter().filter(|commit| commit.rows > 0) {
                todo = self.tally.different(commit, "the table has no rows any more");
            }
            self.open(Kind::Different, &id.source, format!("table {id}"), why, todo);
        }
    }

    /// Reports the dumps. Each was read to its end when it was taken and by this run, but it cannot be compared with the source.
    pub(super) fn dumps(&mut self) {
        let state = self.state;
        let has_rows = |source: &str| {
            state.commits.iter().any(|commit| commit.source == source && commit.dump.is_none())
        };
        for commit in state.commits.iter().filter(|commit| commit.dump.is_some()) {
            let why = format!(
                "a dump of {} is not compared with what the source has now",
                commit.committed
            );
            let what = format!("the {}", commit.id());
            if has_rows(&commit.source) {
                self.notes.push(format!("{what}: {why}; the rows beside it are"));
            } else {
                let todo = "stop the writers, and export again just before you cancel; then compare by hand";
                self.open(Kind::Unfinished, &commit.source, what, why, todo);
            }
        }
    }
}

/// The number of tables, and the names of the first of them.
const NAMED: usize = 5;

fn some_of(ids: &[&TableId]) -> String {
    let named: Vec<String> = ids.iter().take(NAMED).map(|id| id.to_string()).collect();
    let more = if ids.len() > NAMED { ", …" } else { "" };
    format!("{} ({}{more})", several(ids.len() as u64, "table"), named.join(", "))
}
