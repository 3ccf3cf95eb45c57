//! What the run of a shard does otherwise than one of everything: it takes its part of what was found, and leaves to the
//! run that seals what concerns the whole archive: tables that are read again, other runs' leftovers, damage, definitions
//! and the seal.

use crate::archive::runs::Heartbeat;
use crate::archive::{Archive, ArchiveIndex};
use crate::config::Job;
use crate::coverage::Coverage;
use crate::error::{Exit, Result};
use crate::export::run::Run;
use crate::export::summary::ExportStatus;
use crate::shards::{Divisible, Division, Shard};
use crate::survey::{Survey, Surveyed};
use crate::window::Window;

/// How large a row is taken to be where a source knows the number of rows alone.
const BYTES_OF_ROW: u64 = 64;

/// Gives the tables the parts that belong to the shard of this run. With `state`, which is the archive as it is, the first
/// shard of a job that has something to do records the division. One that has nothing to do changes nothing.
pub async fn take_part(
    job: &Job,
    archive: Option<&Archive>,
    survey: &mut Survey,
    state: Option<&ArchiveIndex>,
) -> Result<()> {
    let Some(shard) = job.shard else { return Ok(()) };
    let names = job.sources.iter().map(|source| source.name.as_str());
    let range = [job.range.0.as_str(), job.range.1.as_str()];
    let name = names.chain(range).collect::<Vec<_>>().join("\0");
    let recorded = match archive {
        Some(archive) => archive.division(&name, shard.of).await?,
        None => None,
    };
    if state.is_some_and(|state| state.has_seal) {
        leave_out_the_future(survey);
    }
    let is_recorded = recorded.is_some();
    let division = recorded.unwrap_or_else(|| divide(survey, shard.of));
    give_parts(survey, &division, shard);
    if let (Some(archive), Some(state)) = (archive, state)
        && !is_recorded
        && is_left(survey, state)
    {
        give_parts(survey, &archive.agree_on(&name, division).await?, shard);
    }
    Ok(())
}

/// Takes out of what was requested the time after the last row of each table. Where the range ends now, or in the future,
/// there is always such time that no run has read. That it has no rows is no reason for a shard to take the seal off.
fn leave_out_the_future(survey: &mut Survey) {
    let in_windows = |surveyed: &&mut Surveyed| !surveyed.table.read_mode.is_one_pass();
    for surveyed in survey.tables.iter_mut().filter(in_windows) {
        let until = surveyed.bounds.map(|bounds| Window { from: i64::MIN, to: bounds.to });
        surveyed.requested = surveyed
            .requested
            .zip(until)
            .and_then(|(requested, until)| requested.intersect(&until));
    }
}

fn give_parts(survey: &mut Survey, division: &Division, shard: Shard) {
    for surveyed in &mut survey.tables {
        surveyed.part = Some(division.part(&surveyed.table.id, shard.index));
    }
}

fn divide(survey: &Survey, shards: u32) -> Division {
    let tables = survey.tables.iter().map(|surveyed| {
        let Surveyed { table, source, bounds, requested, .. } = surveyed;
        let size = survey.sources[*source].source.size(&table.id);
        let all = size.bytes.or_else(|| size.rows.map(|rows| rows.saturating_mul(BYTES_OF_ROW)));
        if table.read_mode.is_one_pass() {
            return Divisible { id: &table.id, size_bytes: all, times: None };
        }
        let with_rows = |asked| {
            let ranges = table.data_ranges.iter().filter_map(move |range| range.intersect(asked));
            ranges.filter_map(|range| range.intersect(bounds.as_ref()?)).collect::<Coverage>()
        };
        let times = requested.as_ref().map(with_rows).unwrap_or_default();
        // The source's estimate is for the whole table.
        let part = surveyed.part_of_rows(times.windows().iter().copied());
        let size_bytes = all.map(|bytes| (bytes as f64 * part) as u64);
        Divisible { id: &table.id, size_bytes, times: Some(times) }
    });
    Division::new(&tables.collect::<Vec<_>>(), shards)
}

/// Whether anything of the shard is missing in the archive.
fn is_left(survey: &Survey, state: &ArchiveIndex) -> bool {
    let committed = state.by_table();
    let is_missing = |surveyed: &Surveyed| {
        let commits = committed.get(&surveyed.table.id).map(Vec::as_slice).unwrap_or_default();
        let coverage: Coverage = commits.iter().map(|commit| commit.slice).collect();
        let (windows, null_time) = surveyed.remaining(&coverage);
        null_time || !windows.is_empty()
    };
    survey.tables.iter().any(is_missing)
}

/// What to say of another run that is at work; `None` if it does other work than this one.
pub(super) fn doubles(job: &Job, other: &Heartbeat) -> Option<String> {
    let mine = job.shard.map(|shard| shard.to_string());
    let what = match (&mine, &other.shard) {
        (Some(mine), Some(shard)) if mine == shard => {
            "another run of this shard is at work on this archive"
        }
        (Some(_), Some(_)) => return None,
        _ => "another run is at work on this archive",
    };
    Some(format!(
        "{what}: {} since {} (process {}); this does no harm, but the work is done twice",
        other.run, other.started, other.pid
    ))
}

impl Run<'_> {
    /// Notes that the part of the shard is in the archive.
    pub(super) fn complete_shard(&mut self) {
        self.summary.status = ExportStatus::ShardComplete;
        self.summary.exit = Exit::Done;
        self.summary.hint = Some(
            "when the other shards have ended, run the same command without `--shard`: it exports what is left and \
             seals the archive"
                .to_owned(),
        );
    }
}
