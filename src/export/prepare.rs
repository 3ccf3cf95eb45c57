//! Finds out what a run has to do, by comparing a survey of the sources with what the archive has. Nothing is written
//! before that is known, so that a sealed archive stays as it is.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::archive::keys::Paths;
use crate::archive::runs::{Beating, PlannedLoss, PlannedTable, RunPlan};
use crate::archive::{Archive, ArchiveIndex, Found};
use crate::config::Job;
use crate::coverage::Coverage;
use crate::encode::{Cores, EncodeOptions};
use crate::error::{Exit, Result};
use crate::export::again::{Again, divide};
use crate::export::chunk_writer::ChunkWriter;
use crate::export::controller::widths::width_after;
use crate::export::permits::Permits;
use crate::export::queue::Queue;
use crate::export::run::Run;
use crate::export::shard::{doubles, take_part};
use crate::export::stale::{gone, read_damaged, read_stale, records_others, request_uncovered};
use crate::export::summary::{ExportStatus, Failed, ReadAgain, Summary, unreadable_hint};
use crate::export::worker::Shared;
use crate::model::ArtifactOutcome;
use crate::model::TableId;
use crate::progress::Progress;
use crate::range::RangeText;
use crate::retry::Retry;
use crate::source::channel::Pace;
use crate::survey::division::same_division;
use crate::survey::{Known, Lost, Survey, Surveyed, survey};
use crate::text::several;
use crate::window::{Slice, now, rfc3339};

/// Surveys the sources, compares them with the archive, and returns a run that knows what to do.
pub async fn prepare<'a>(
    job: &'a Job,
    archive: &Archive,
    beating: &Beating,
    progress: &Progress,
    retry: Retry,
) -> Result<Run<'a>> {
    let (began, started) = (Instant::now(), rfc3339(now()));
    let run = beating.run().to_owned();
    let state = archive.state().await?;
    for other in state.living(&run).filter(|run| !run.amends) {
        doubles(job, other).iter().for_each(|note| progress.note(note));
    }
    // This may refuse the archive. Nothing was written before, so a sealed archive stays as it is. Many shards do not list
    // the files of all others.
    let found = match job.shard {
        Some(_) if !state.has_seal => Found::default(),
        _ => archive.inspect().await?,
    };
    let plans = archive.plans().await?;
    let known = Known::of(&state, &plans);
    let mut survey = survey(job, progress, &retry, &known).await?;
    let mut stale = 0;
    if job.shard.is_none() {
        read_damaged(archive, &mut survey, &found.damaged).await?;
        stale = read_stale(archive, &mut survey, &state, job.keep).await?;
    }
    if stale > 0 {
        progress.note(&format!(
            "reading {} again: the last proof found that the source has other rows now",
            several(stale, "chunk")
        ));
    }
    // The archive is read again, because the survey takes time and another run may have ended meanwhile.
    let state = archive.state().await?;
    request_uncovered(&mut survey, &state);
    survey.take_types(&state);
    let gone = gone(job, &survey, &state, &started);
    // This may refuse the archive as well.
    // A shard reads nothing again: one that runs late would take the seal off for that.
    let keep = job.keep || job.shard.is_some();
    let (again, left) = divide(&survey, &Known::of(&state, &[]), keep);
    take_part(job, Some(archive), &mut survey, Some(&state)).await?;
    let Planned { queue, paths, surveyed, mut plan } =
        plan(job, &mut survey, progress, &state, &again, &run)?;
    plan.lost = planned(&survey.lost);
    let sealed = state.sealed && !state.uncatalogued && state.superseded.is_empty();
    let requested = state.run.iter().flat_map(|run| &run.requested);
    let known: HashSet<&TableId> = requested.map(|requested| &requested.table).collect();
    // Definitions that the last run could not save are to be saved now.
    let last = state.run.iter().flat_map(|run| &run.artifacts);
    let unsaved = last
        .filter(|artifact| matches!(artifact.status, ArtifactOutcome::Failed(_)))
        .any(|artifact| job.sources.iter().any(|source| source.name == artifact.source));
    let has_everything = sealed
        && !unsaved
        && !records_others(&state, &gone)
        && queue.is_empty()
        && found.left.is_empty()
        && state.by_table().keys().all(|id| known.contains(id));
    let idle = has_everything || job.shard.is_some() && queue.is_empty();
    if !idle {
        if state.has_seal {
            archive.unseal(beating).await?;
        } else {
            archive.mark().await?;
        }
        archive.put_plan(&plan).await?;
        let swept = if job.shard.is_some() { 0 } else { archive.sweep(&run, true).await? };
        if swept > 0 {
            tracing::info!("removed {swept} files that an interrupted run left");
        }
        // This comes after the sweep, for which the commits that are read again must still count.
        archive.read_again(again.before.values()).await;
    }
    progress.left(queue.chunks_left(), None);
    let expected_rows = expected_rows(&survey, &surveyed);
    let summary = Summary {
        command: "export",
        status: ExportStatus::Incomplete,
        archive: archive.url().to_owned(),
        run: run.clone(),
        shard: job.shard.map(|shard| shard.to_string()),
        sources: Vec::new(),
        tables: survey.tables.iter().filter(|surveyed| surveyed.is_counted()).count(),
        tables_written: 0,
        chunks: 0,
        rows: 0,
        bytes: 0,
        chunks_before: state.commits.iter().filter(|commit| commit.dump.is_none()).count() as u64,
        rows_total: 0,
        bytes_total: 0,
        read_again: ReadAgain { stale, ..ReadAgain::default() },
        kept: if job.shard.is_some() { Vec::new() } else { left.kept },
        gone,
        not_compared: left.not_compared,
        elapsed_seconds: 0.0,
        outside: survey.outside.clone(),
        covers: None,
        excluded: survey.excluded.clone(),
        dumps: Vec::new(),
        artifacts: Vec::new(),
        notes: survey.notes.clone(),
        warnings: job.warnings.iter().chain(&survey.warnings).cloned().collect(),
        missing: Vec::new(),
        failed: Failed::of_survey(&survey.lost, &survey.unreadable),
        error: None,
        exit: Exit::Incomplete,
        hint: unreadable_hint(&survey.unreadable),
    };
    let writer = ChunkWriter {
        pace: job.limits.bandwidth_bytes.map(Pace::new),
        options: encode_options(job, archive.store().part_bytes()),
        store: archive.store().clone(),
        run,
        progress: progress.clone(),
        interrupt: retry.interrupt().clone(),
    };
    Ok(Run {
        job,
        idle,
        lost_as_planned: plan.lost.len(),
        expected_rows,
        archive: archive.clone(),
        damaged: if job.shard.is_some() { Vec::new() } else { found.damaged },
        writer,
        retry,
        survey,
        again,
        paths,
        queue,
        surveyed,
        summary,
        shared: Arc::new(Shared {
            permits: Permits::new(job.limits.concurrency),
            waiting: AtomicUsize::new(0),
            failures: Mutex::default(),
        }),
        streams: HashMap::new(),
        began,
        started,
        written: HashSet::new(),
        committed: HashMap::new(),
        gap_rounds: 0,
        change_rounds: 0,
        relisting: HashMap::new(),
        strikes: HashMap::new(),
        beating: None,
    })
}

/// The estimated number of rows to read, if the sources know it for every table.
fn expected_rows(survey: &Survey, surveyed: &[usize]) -> Option<u64> {
    let with_rows = surveyed.iter().filter(|at| !survey.tables[**at].table.is_dump());
    let of_table = with_rows.map(|at| {
        let surveyed = &survey.tables[*at];
        let source = &survey.sources[surveyed.source].source;
        let rows = source.size(&surveyed.table.id).rows? as f64;
        // The source's estimate is for the whole table.
        let (windows, _) = surveyed.remaining(&Coverage::default());
        Some((rows * surveyed.part_of_rows(windows.into_iter())) as u64)
    });
    of_table.sum::<Option<u64>>().filter(|rows| *rows > 0)
}

// Half of a chunk's memory is for the open row group, which the writer holds encoded. The rest is for batches, parts and
// the answer of the source.
fn encode_options(job: &Job, part_bytes: usize) -> EncodeOptions {
    let of_chunk = job.limits.memory_bytes / job.limits.concurrency;
    EncodeOptions {
        row_group_bytes: (of_chunk / 2).clamp(1 << 20, 32 << 20),
        part_bytes,
        file_bytes: job.limits.file_bytes,
        cores: Cores::default(),
    }
}

struct Planned {
    queue: Queue,
    paths: Vec<String>,
    surveyed: Vec<usize>,
    plan: RunPlan,
}

/// The sources without which a run goes on, as they are recorded in its plan.
pub(super) fn planned(lost: &[Lost]) -> Vec<PlannedLoss> {
    let planned =
        |lost: &Lost| PlannedLoss { source: lost.source.clone(), why: lost.error.to_string() };
    lost.iter().map(planned).collect()
}

fn plan(
    job: &Job,
    survey: &mut Survey,
    progress: &Progress,
    state: &ArchiveIndex,
    again: &Again,
    run: &str,
) -> Result<Planned> {
    let committed = state.by_table();
    let mut given = Paths::default();
    for (id, commits) in &committed {
        if let Some(commit) = commits.first() {
            given.remember(id, &commit.path);
        }
    }
    let mut plan = RunPlan {
        run: run.to_owned(),
        started: rfc3339(now()),
        range: Some(RangeText { from: job.range.0.clone(), to: job.range.1.clone() }),
        sources: survey.infos(),
        tables: Vec::new(),
        lost: Vec::new(),
    };
    let (mut queue, mut surveyed, mut paths) = (Queue::default(), Vec::new(), Vec::new());
    let mut divided_otherwise = Vec::new();
    for (at, surveyed_table) in survey.tables.iter().enumerate() {
        let Surveyed { table, bounds, requested, .. } = surveyed_table;
        let path = given.path(&table.id);
        let commits = committed.get(&table.id).map(Vec::as_slice).unwrap_or_default();
        let is_again = |slice: Slice| again.before.contains_key(&(at, slice));
        let stay = || commits.iter().filter(|commit| !is_again(commit.slice));
        if let Err(error) =
            stay().try_for_each(|commit| same_division(table, commit.state.as_deref()))
        {
            if job.sources.len() == 1 {
                return Err(error);
            }
            divided_otherwise.push(Lost { source: table.id.source.clone(), error });
        }
        let coverage: Coverage = stay().map(|commit| commit.slice).collect();
        let (todo, mut null_time) = surveyed_table.remaining(&coverage);
        // The slice is read again even if every row has a time now.
        null_time |= is_again(Slice::NullTime);
        if !todo.is_empty() || null_time {
            queue.add(
                Arc::clone(table),
                *bounds,
                todo,
                null_time,
                width_after(commits, surveyed_table.first_width),
            );
            surveyed.push(at);
        }
        // Thousands of shards do not each list all tables.
        if surveyed_table.part.is_none() || surveyed_table.is_of_shard() {
            plan.tables.push(PlannedTable {
                id: table.id.clone(),
                path: path.clone(),
                requested: *requested,
            });
        }
        paths.push(path);
    }
    for lost in divided_otherwise {
        if !survey.is_lost(&lost.source) {
            progress.lost(&lost.source, &lost.error);
            queue.drop_source(&lost.source);
            survey.lost.push(lost);
        }
    }
    Ok(Planned { queue, paths, surveyed, plan })
}
