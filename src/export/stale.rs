//! Finds committed chunks that must be read again, because their files are missing or have changed, or because the last
//! proof found that the source has other rows now. Finds tables that the source no longer lists, too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::archive::run_json::Gone;
use crate::archive::{Archive, ArchiveIndex};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::model::{Division, TableId};
use crate::range::union;
use crate::survey::Survey;
use crate::survey::gone::Absent;
use crate::text::several;
use crate::window::{Slice, Window};

/// Marks chunks whose files are missing or have changed to be read again. It is an error if no source of this run has the
/// table.
pub(super) async fn read_damaged(
    archive: &Archive,
    survey: &mut Survey,
    damaged: &[Arc<Commit>],
) -> Result<()> {
    // A source that does not answer may have the table, and this run does not seal without that source.
    let (lost, damaged): (Vec<_>, Vec<_>) =
        damaged.iter().partition(|commit| survey.is_lost(&commit.source));
    if !lost.is_empty() {
        let lost = several(lost.len() as u64, "chunk");
        survey.warnings.push(format!(
            "files of {lost} are missing or have changed, but the sources cannot be read now"
        ));
    }
    let times = damaged.iter().map(|commit| (commit.id(), commit.slice.window()));
    let unknown = request(survey, times.collect());
    if let Some(commit) = damaged.iter().find(|commit| unknown.contains(&commit.id())) {
        let id = commit.id();
        let file = commit.files.first().map(|file| file.key.as_str()).unwrap_or_default();
        return Err(Error::different(format!(
            "files of {id} {} are missing or have another size (such as {file}), and no source of this run \
             has that table",
            commit.slice
        ))
        .hint("restore the files from a copy, or name the source that has the table; nothing was changed"));
    }
    archive.read_again(damaged.iter().map(|commit| &***commit)).await;
    Ok(())
}

/// Marks the chunks that the last proof found different to be read again, if this run has their tables. Returns their
/// number.
pub(super) async fn read_stale(
    archive: &Archive,
    survey: &mut Survey,
    state: &ArchiveIndex,
    keep: bool,
) -> Result<u64> {
    let stale = stale(archive, state, keep).await?;
    let times = stale.iter().map(|commit| (commit.id(), commit.slice.window()));
    let unknown = request(survey, times.collect());
    let stale = stale.iter().filter(|commit| !unknown.contains(&commit.id()));
    let stale: Vec<&Commit> = stale.map(|commit| &**commit).collect();
    archive.read_again(stale.iter().copied()).await;
    Ok(stale.len() as u64)
}

/// The chunks that the last proof found different and that nothing has replaced since. With `keep`, tables that were read
/// completely are left as they are.
pub async fn stale(
    archive: &Archive,
    state: &ArchiveIndex,
    keep: bool,
) -> Result<Vec<Arc<Commit>>> {
    let stale = archive.stale(state).await?;
    if stale.is_empty() {
        return Ok(Vec::new());
    }
    let keys: HashSet<_> =
        stale.into_iter().map(|stale| (stale.table, stale.slice, stale.run)).collect();
    let is_stale = |commit: &&Arc<Commit>| {
        commit.dump.is_none()
            && (!keep || matches!(commit.slice, Slice::Window(_)))
            && !matches!(commit.division(), Some(Division::File(_)))
            && keys.contains(&commit.key())
    };
    Ok(state.commits.iter().filter(is_stale).cloned().collect())
}

/// Requests the windows that a killed run had begun to replace but not replaced completely, for tables of which nothing
/// else is requested.
pub(super) fn request_uncovered(survey: &mut Survey, state: &ArchiveIndex) {
    let times = state.uncovered().into_iter().map(|(id, time)| {
        let all = time.windows().iter().copied().reduce(|one, other| Window {
            from: one.from.min(other.from),
            to: one.to.max(other.to),
        });
        (id, all)
    });
    let beside: HashSet<&TableId> =
        survey.beside.iter().map(|surveyed| &surveyed.table.id).collect();
    let times = times.filter(|(id, _)| beside.contains(id)).collect();
    request(survey, times);
}

/// Requests these windows of these tables in addition. Returns the tables that no source has.
fn request(survey: &mut Survey, times: Vec<(TableId, Option<Window>)>) -> HashSet<TableId> {
    let mut wanted = HashMap::<TableId, Option<Window>>::new();
    for (id, time) in times {
        let all = wanted.entry(id).or_default();
        *all = union(*all, time);
    }
    if wanted.is_empty() {
        return HashSet::new();
    }
    let beside = survey.beside.extract_if(.., |surveyed| wanted.contains_key(&surveyed.table.id));
    survey.tables.extend(beside);
    for surveyed in &mut survey.tables {
        if let Some(time) = wanted.remove(&surveyed.table.id) {
            surveyed.requested = union(surveyed.requested, time);
        }
    }
    wanted.into_keys().collect()
}

/// The tables that their sources no longer list, with the time when that was first found. Records about sources that were
/// not asked, or not asked for these tables, are kept.
pub(super) fn gone(job: &Job, survey: &Survey, state: &ArchiveIndex, now: &str) -> Vec<Gone> {
    let recorded = state.run.iter().flat_map(|run| &run.gone);
    let mut gone: BTreeMap<&TableId, Gone> =
        recorded.map(|gone| (&gone.table, gone.clone())).collect();
    gone.retain(|id, _| !survey.listed.contains(*id));
    let by_table = state.by_table();
    for (id, absent) in survey.absent(job, by_table.keys()) {
        if absent == Absent::Gone {
            let new = || Gone { table: id.clone(), since: now.to_owned(), missing: Vec::new() };
            gone.entry(id).or_insert_with(new);
        }
    }
    gone.into_values().collect()
}

/// Whether the archive records a different set of tables as gone.
pub(super) fn records_others(state: &ArchiveIndex, gone: &[Gone]) -> bool {
    let recorded = state.run.iter().flat_map(|run| &run.gone).map(|gone| &gone.table);
    !recorded.eq(gone.iter().map(|gone| &gone.table))
}
