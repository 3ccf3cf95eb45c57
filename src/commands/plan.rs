//! The verb `plan`: says what an export with the same options would do, and about how long it would take. It writes
//! nothing, and reads a sample of the rows of each source for at most two seconds to measure speed and size.

mod sample;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::watch;

use crate::archive::run_json::Outside;
use crate::archive::runs::RunPlan;
use crate::archive::{Archive, ArchiveIndex};
use crate::config::Job;
use crate::coverage::Coverage;
use crate::error::{Class, Exit, Result};
use crate::export::queue::Queue;
use crate::export::shard::take_part;
use crate::export::stale::stale;
use crate::export::summary::{Failed, unreadable_hint};
use crate::model::{Excluded, Metering, SourceInfo, Table, TableId};
use crate::progress::Progress;
use crate::retry::{Interrupt, Retry};
use crate::source::Source;
use crate::source::aptible::{Expanded, Inventory, backups, expand};
use crate::survey::{Known, Survey, Surveyed, survey};
use crate::window::{DAY, Slice, Window};

/// For how long samples of all sources are read at most.
const SAMPLING: Duration = Duration::from_secs(10);
/// For how long the rows of all tables are counted at most.
const COUNTING: Duration = Duration::from_secs(30);

/// What an export would do, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// Always `plan`.
    pub command: &'static str,
    /// The sources.
    pub sources: Vec<SourceInfo>,
    /// The tables, each with what is left to export.
    pub tables: Vec<TablePreview>,
    /// The native dumps, and what an export would do about each.
    pub dumps: Vec<DumpPreview>,
    /// The windows that are left, if all have the initial width. Widths adapt, so there may be fewer.
    pub windows: u64,
    /// The estimated number of rows that are left; `null` if they could not be counted in time.
    pub rows_estimate: Option<u64>,
    /// The estimated size as Parquet, in bytes.
    pub bytes_estimate: Option<u64>,
    /// The estimated number of seconds with so many chunks in flight, at the speed of the samples.
    pub seconds_estimate: Option<u64>,
    /// Chunks in flight.
    pub concurrency: usize,
    /// The use of quotas and the cost, for sources whose reading is limited or billed.
    pub quotas: Vec<QuotaPreview>,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// What would be left out, and why.
    pub excluded: Vec<Excluded>,
    /// Observations that are no reason to worry.
    pub notes: Vec<String>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The databases and backups on Aptible, if it was asked.
    pub aptible: Option<Inventory>,
    /// Everything at which an export would fail, with the reason.
    pub failed: Vec<Failed>,
    /// How the process ends, which is how an export would end because of these failures.
    #[serde(skip)]
    pub exit: Exit,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

/// What an export would do with one table.
#[derive(Debug, Serialize)]
pub struct TablePreview {
    /// The table.
    pub table: TableId,
    /// Number of columns.
    pub columns: usize,
    /// The column whose values are the time, for a source that has no time of its own.
    pub time_column: Option<String>,
    /// The window from its first row to just after its last.
    pub bounds: Option<Window>,
    /// The requested window.
    pub requested: Option<Window>,
    /// The parts of it that are not in the archive yet.
    pub remaining: Vec<Window>,
    /// The slices that an earlier run read whole and that would be read again.
    pub again: Vec<Slice>,
    /// The number of windows of the initial width.
    pub windows: u64,
    /// The estimated number of rows that are left.
    pub rows_estimate: Option<u64>,
    /// The estimated size as Parquet, in bytes.
    pub bytes_estimate: Option<u64>,
}

/// What an export would do about one native dump.
#[derive(Debug, Serialize)]
pub struct DumpPreview {
    /// Its source.
    pub source: String,
    /// Its name in the source.
    pub name: String,
    /// The program that would make it.
    pub program: String,
    /// The estimated size of its content in the source, in bytes.
    pub source_bytes: Option<u64>,
    /// Whether it would be taken.
    pub remaining: bool,
    /// Whether it would replace a dump of an earlier run.
    pub again: bool,
}

/// The use of a source's quota, and the cost.
#[derive(Debug, Serialize)]
pub struct QuotaPreview {
    /// Name of the source.
    pub source: String,
    /// The quota in words.
    #[serde(skip)]
    pub quota: Option<String>,
    /// Bytes that may be read within a period; `null` without a limit.
    pub bytes: Option<u64>,
    /// The length of the period.
    pub window_seconds: Option<f64>,
    /// The estimated bytes of answers; `null` if the rows could not be counted in time.
    pub read_bytes_estimate: Option<u64>,
    /// The estimated number of queries.
    pub queries_estimate: u64,
    /// The seconds that it takes at least under the quota.
    pub seconds_at_least: Option<u64>,
    /// The estimated cost at the prices of the configuration.
    pub cost_estimate: Option<f64>,
}

impl QuotaPreview {
    /// What it takes to read about `bytes` of answers by so many queries; `None` for a source without a quota and without
    /// prices.
    pub(crate) fn of(source: &dyn Source, bytes: Option<u64>, queries: u64) -> Option<Self> {
        let Metering { quota, prices } = source.metering()?;
        let seconds = quota.zip(bytes).map(|(quota, bytes)| {
            let full_windows = bytes.saturating_sub(1) / quota.bytes.max(1);
            (full_windows as f64 * quota.window.as_secs_f64()).ceil() as u64
        });
        Some(Self {
            source: source.name().to_owned(),
            quota: quota.map(|quota| quota.to_string()),
            bytes: quota.map(|quota| quota.bytes),
            window_seconds: quota.map(|quota| quota.window.as_secs_f64()),
            read_bytes_estimate: bytes,
            queries_estimate: queries,
            seconds_at_least: seconds,
            cost_estimate: bytes.map(|bytes| {
                queries as f64 * prices.per_query + bytes as f64 / 1e9 * prices.per_gigabyte
            }),
        })
    }
}

/// Asks the sources and makes the estimates.
pub async fn preview(
    job: &Job,
    progress: &Progress,
    interrupted: watch::Receiver<bool>,
) -> Result<Preview> {
    let interrupt = Interrupt::new(interrupted);
    let retry = Retry::new(&job.limits, progress, interrupt.clone());
    let Expanded { job, inventory } = expand(job, progress, &retry).await?;
    interrupt.or(look(&job, inventory, progress, &retry)).await
}

async fn look(
    job: &Job,
    mut inventory: Inventory,
    progress: &Progress,
    retry: &Retry,
) -> Result<Preview> {
    let unknown = backups(&mut inventory, progress, retry).await;
    let (archive, state, plans) = archived(job).await?;
    let known = Known::of(&state, &plans);
    let mut survey = survey(job, progress, retry, &known).await?;
    if job.shard.is_some() {
        take_part(job, archive.as_ref(), &mut survey, None).await?;
        survey.tables.retain(Surveyed::is_of_shard);
    }
    let dumps: Vec<Surveyed> =
        survey.tables.extract_if(.., |surveyed| surveyed.table.is_dump()).collect();
    let dumps: Vec<DumpPreview> =
        dumps.iter().filter_map(|dump| preview_dump(job, &survey, dump, &known)).collect();
    progress.doing("counting rows");
    let until = Instant::now() + COUNTING;
    let mut tables: Vec<TablePreview> = futures::stream::iter(&survey.tables)
        .map(|surveyed| preview_table(job, &survey, surveyed, &known, until))
        .buffered(4)
        .collect()
        .await;
    progress.doing("measuring the speed");
    let (mut wire, mut speed, mut memory) = (HashMap::new(), None, None);
    let until = Instant::now() + SAMPLING;
    for (number, reached) in survey.sources.iter().enumerate() {
        let source = reached.source.as_ref();
        // If the bytes are metered, the sample of each source tells the size of its rows.
        if Instant::now() > until && source.metering().is_none() {
            continue;
        }
        let Some((table, window)) = largest(&survey, &tables, number) else { continue };
        let Some(sample) = sample::read(source, table, window).await else { continue };
        speed = speed.or(Some(sample.rows_per_second));
        let factor = sample.memory_bytes_per_row / wire_bytes_per_row(table).max(1.0);
        memory = memory.or(Some(sample.memory_bytes_per_row));
        wire.insert(number, factor);
        // The sample of the largest table also stands for the other tables of its source.
        if let Some(bytes) = sample.parquet_bytes_per_row {
            let factor = bytes / bytes_per_row(table).max(f64::MIN_POSITIVE);
            let pairs = survey.tables.iter().zip(&mut tables);
            for (_, preview) in pairs.filter(|(table, _)| table.source == number) {
                let estimate = &mut preview.bytes_estimate;
                *estimate = estimate.map(|bytes| (bytes as f64 * factor) as u64);
            }
        }
    }
    let quotas = quotas(&survey, &tables, &wire);
    progress.end();
    let sum = |of: fn(&TablePreview) -> Option<u64>| {
        tables.iter().map(of).try_fold(0u64, |sum, of_table| Some(sum.saturating_add(of_table?)))
    };
    let rows_estimate = sum(|table| table.rows_estimate);
    let windows = tables.iter().fold(0, |sum: u64, table| table.windows.saturating_add(sum));
    // There are never more streams than windows.
    let streams = (job.limits.concurrency as u64).min(windows).max(1);
    let failed = Failed::of_survey(&survey.lost, &survey.unreadable);
    Ok(Preview {
        command: "plan",
        sources: survey.infos(),
        windows,
        concurrency: job.limits.concurrency,
        rows_estimate,
        bytes_estimate: sum(|table| table.bytes_estimate),
        seconds_estimate: rows_estimate.zip(speed).map(|(rows, speed)| {
            let by_quota = quotas.iter().filter_map(|quota| quota.seconds_at_least).max();
            let limit = job.limits.bandwidth_bytes.zip(memory);
            let by_bandwidth = limit.map_or(0.0, |(limit, row)| rows as f64 * row / limit as f64);
            let seconds = (rows as f64 / speed / streams as f64).max(by_bandwidth).ceil();
            (seconds as u64).max(by_quota.unwrap_or(0))
        }),
        quotas,
        tables,
        dumps,
        outside: survey.outside,
        excluded: survey.excluded,
        notes: survey.notes,
        warnings: job.warnings.iter().cloned().chain(unknown).chain(survey.warnings).collect(),
        aptible: Some(inventory).filter(|inventory| !inventory.is_empty()),
        exit: Failed::exit(&failed),
        hint: unreadable_hint(&survey.unreadable),
        failed,
    })
}

fn preview_dump(
    job: &Job,
    survey: &Survey,
    Surveyed { table, source, .. }: &Surveyed,
    known: &Known<'_>,
) -> Option<DumpPreview> {
    let source = &survey.sources[*source].source;
    let again = !known.again(table).stale.is_empty();
    Some(DumpPreview {
        source: table.id.source.clone(),
        name: table.id.table.clone(),
        program: source.dump(&table.id)?.program,
        source_bytes: source.size(&table.id).bytes,
        remaining: (again && !job.keep) || known.commits(&table.id).is_empty(),
        again,
    })
}

/// The index of the archive and its plans, which are empty if there is no archive yet.
async fn archived(job: &Job) -> Result<(Option<Archive>, Arc<ArchiveIndex>, Vec<RunPlan>)> {
    let Some(place) = &job.archive else { return Ok(Default::default()) };
    // It is an error if the archive cannot be reached. If it does not exist yet, or is not an archive, it holds nothing.
    let archive = match Archive::open(place).await {
        Ok(archive) => archive,
        Err(error) if place.is_bucket() && error.class() == Class::Retry => return Err(error),
        Err(_) => return Ok(Default::default()),
    };
    // Chunks that the last proof found different count as missing.
    let stale = stale(&archive, archive.state().await?.as_ref(), job.keep).await?;
    archive.read_again(stale.iter().map(|commit| &**commit)).await;
    let (state, plans) = (archive.state().await?, archive.plans().await?);
    Ok((Some(archive), state, plans))
}

async fn preview_table(
    job: &Job,
    survey: &Survey,
    surveyed: &Surveyed,
    known: &Known<'_>,
    until: Instant,
) -> TablePreview {
    let Surveyed { table, source, bounds, requested, first_width, .. } = surveyed;
    let again = if job.keep || job.shard.is_some() { Vec::new() } else { known.again(table).stale };
    let is_again = |slice: Slice| again.iter().any(|commit| commit.slice == slice);
    let stay = known.commits(&table.id).iter().filter(|commit| !is_again(commit.slice));
    let coverage: Coverage = stay.map(|commit| commit.slice).collect();
    let (left, mut null_time) = surveyed.remaining(&coverage);
    null_time |= is_again(Slice::NullTime);
    let mut queue = Queue::default();
    queue.add(Arc::clone(table), *bounds, left.clone(), null_time, *first_width);
    let source = survey.sources[*source].source.as_ref();
    let rows_estimate = match left.is_empty() {
        true => Some(0),
        false => rows(source, surveyed, &left, until).await,
    };
    TablePreview {
        table: table.id.clone(),
        columns: table.columns.len(),
        time_column: table.time_column.clone(),
        bounds: *bounds,
        requested: *requested,
        windows: queue.chunks_left(),
        remaining: left,
        again: again.iter().map(|commit| commit.slice).collect(),
        rows_estimate,
        bytes_estimate: rows_estimate.map(|rows| (rows as f64 * bytes_per_row(table)) as u64),
    }
}

/// Counts the newest window and takes the others to be like it. A single window is counted exactly.
async fn rows(
    source: &dyn Source,
    Surveyed { table, bounds, first_width, .. }: &Surveyed,
    left: &[Window],
    until: Instant,
) -> Option<u64> {
    let Some(bounds) = *bounds else { return Some(0) };
    let here = table.data_ranges.iter().filter_map(|window| window.intersect(&bounds));
    let spans: Vec<Window> = here
        .flat_map(|window| left.iter().filter_map(move |left| left.intersect(&window)))
        .collect();
    // The server's own estimate is for the whole table.
    if let Some(estimate) = source.size(&table.id).rows
        && left.iter().any(|left| left.intersect(&bounds) == Some(bounds))
    {
        return Some(estimate);
    }
    let Some(newest) = spans.last() else { return Some(0) };
    let width = if table.read_mode.is_one_pass() { i64::MAX } else { first_width.unwrap_or(DAY) };
    let sample = Window { from: newest.from.max(newest.to.saturating_sub(width)), ..*newest };
    let time = until.checked_duration_since(Instant::now())?;
    let count = tokio::time::timeout(time, source.count(table, sample)).await.ok()?.ok()?;
    let span: f64 = spans.iter().map(|window| window.width() as f64).sum();
    Some((count.rows as f64 * (span / sample.width() as f64)).round() as u64)
}

// The compressed size of each type in the time series that were measured. It is only an order of magnitude.
pub(super) fn bytes_per_row(table: &Table) -> f64 {
    let of_type = |data_type: &DataType| match data_type {
        DataType::Float64 => 3.5,
        DataType::Utf8 => 4.0,
        DataType::Boolean | DataType::Dictionary(..) => 0.1,
        DataType::Timestamp(..) => 0.5,
        _ => 2.0,
    };
    table.columns.iter().map(|column| of_type(&column.data_type)).sum()
}

// The size of a row on the wire as Arrow. A sample corrects it.
pub(crate) fn wire_bytes_per_row(table: &Table) -> f64 {
    let of_type = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::Dictionary(..) => 16.0,
        DataType::Boolean => 0.25,
        _ => 8.125,
    };
    table.columns.iter().map(|column| of_type(&column.data_type)).sum()
}

fn quotas(
    survey: &Survey,
    tables: &[TablePreview],
    wire: &HashMap<usize, f64>,
) -> Vec<QuotaPreview> {
    let mut quotas = Vec::new();
    for (number, reached) in survey.sources.iter().enumerate() {
        let source = &reached.source;
        if source.metering().is_none() {
            continue;
        }
        let pairs = survey.tables.iter().zip(tables).filter(|(table, _)| table.source == number);
        let factor = wire.get(&number).copied().unwrap_or(1.0);
        let bytes = pairs.clone().map(|(table, preview)| {
            let a_row = wire_bytes_per_row(&table.table) * factor;
            Some((preview.rows_estimate? as f64 * a_row) as u64)
        });
        let bytes: Option<u64> = bytes.sum();
        // Besides the windows, there are queries for the list of tables, the bounds of each, and a count.
        let queries: u64 = pairs.map(|(_, preview)| preview.windows + 2).sum::<u64>() + 1;
        quotas.extend(QuotaPreview::of(source.as_ref(), bytes, queries));
    }
    quotas
}

fn largest<'a>(
    survey: &'a Survey,
    tables: &[TablePreview],
    source: usize,
) -> Option<(&'a Arc<Table>, Window)> {
    let pairs = survey.tables.iter().zip(tables).filter(|(table, _)| table.source == source);
    let (surveyed, preview) = pairs.max_by_key(|(_, preview)| preview.rows_estimate)?;
    let newest = preview.remaining.last()?.intersect(&surveyed.bounds?)?;
    Some((&surveyed.table, newest))
}
