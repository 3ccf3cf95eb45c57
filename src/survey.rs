//! Finds out what the sources have and which part of it is requested. This is the first step of `export` and all of
//! `plan`. Only the first and the last row of each table are read.

mod again;
mod compared;
pub mod division;
pub mod gone;
mod same;
mod types;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};

pub use self::again::Again;
pub use self::same::Known;

use self::compared::Compared;
use crate::archive::run_json::Outside;
use crate::config::{Job, Limits, Select, SourceSpec, matches};
use crate::coverage::Coverage;
use crate::error::{Class, Error, Exit, Result};
use crate::export::controller::widths::first_width;
use crate::model::{
    Excluded, LEFT_OUT, Listing, LogPosition, ReadMode, RowCount, SourceInfo, Table, TableId,
};
use crate::progress::Progress;
use crate::range::{outside, requested};
use crate::retry::Retry;
use crate::source::Source;
use crate::source::contact::contact;
use crate::text::several;
use crate::window::{Bound, Window, now_micros};

/// How many sources are asked at the same time. Each may need several sessions, a thread and the memory of a listing.
pub const AT_ONCE: usize = 16;

/// What the sources answered.
#[derive(Debug, Default)]
pub struct Survey {
    /// The sources that answered, in the order of the job.
    pub sources: Vec<Reached>,
    /// The sources that failed, while others go on.
    pub lost: Vec<Lost>,
    /// All tables that have, or may have, rows in the requested range.
    pub tables: Vec<Surveyed>,
    /// Tables of the archive of which nothing is requested: they are empty now, or have rows only elsewhere.
    pub beside: Vec<Surveyed>,
    /// The names of all tables that were listed, including those that are excluded or cannot be read.
    pub listed: HashSet<TableId>,
    /// What is excluded, and why.
    pub excluded: Vec<Excluded>,
    /// What cannot be read, and why.
    pub unreadable: Vec<(TableId, String)>,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// Findings that need no action.
    pub notes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A source that answered.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The source, open.
    pub source: Arc<dyn Source>,
    /// What it says about itself.
    pub info: SourceInfo,
    /// Its position among the sources of the job.
    pub place: usize,
    /// Where its log stood before it was listed, if it tells that.
    pub position: Option<LogPosition>,
}

/// A source that failed, without which the others go on.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Its name.
    pub source: String,
    /// Why.
    pub error: Error,
}

/// A table and the part of it that is requested.
#[derive(Debug)]
pub struct Surveyed {
    /// The table.
    pub table: Arc<Table>,
    /// The number of its source.
    pub source: usize,
    /// From its first row to the first instant after its last one; `None` if it is empty.
    pub bounds: Option<Window>,
    /// The time to be covered; `None` if only the rows without a time are requested.
    pub requested: Option<Window>,
    /// The width of its first window, unless an earlier run has learned a better width.
    pub first_width: Option<i64>,
    /// The part that belongs to the shard of this run; `None` if the run has no shard.
    pub part: Option<Coverage>,
}

impl Surveyed {
    /// What remains to be read: windows, and whether the rows without a time.
    pub fn remaining(&self, coverage: &Coverage) -> (Vec<Window>, bool) {
        let windows =
            self.requested.map(|requested| coverage.missing(requested)).unwrap_or_default();
        let null_time = self.table.read_mode == ReadMode::WindowsAndNullTime;
        self.of_shard(windows, null_time && !coverage.has_null_time())
    }

    /// What of these windows, and of the rows without a time, belongs to the shard of this run.
    pub fn of_shard(&self, windows: Vec<Window>, null_time: bool) -> (Vec<Window>, bool) {
        let Some(part) = &self.part else { return (windows, null_time) };
        let windows = windows.into_iter().flat_map(|window| part.within(window)).collect();
        (windows, null_time && part.has_null_time())
    }

    /// Whether it is a table of which the shard of this run has a part.
    pub fn is_counted(&self) -> bool {
        !self.table.is_dump() && (self.part.is_none() || self.is_of_shard())
    }

    /// How much of the time in which it may have rows these windows are, from 0 to 1. Between its first and its last row it
    /// may have none for centuries.
    pub fn part_of_rows(&self, windows: impl Iterator<Item = Window>) -> f64 {
        let ranges = self.table.data_ranges.iter();
        let with_rows: Coverage =
            ranges.filter_map(|range| range.intersect(self.bounds.as_ref()?)).collect();
        let width = |windows: &mut dyn Iterator<Item = Window>| -> f64 {
            windows.map(|window| window.width() as f64).sum()
        };
        let all = width(&mut with_rows.windows().iter().copied());
        let inside: f64 = windows.map(|window| width(&mut with_rows.within(window))).sum();
        if all > 0.0 { inside / all } else { 1.0 }
    }

    /// Whether something of it belongs to the shard of this run, whether it is in the archive or not.
    pub fn is_of_shard(&self) -> bool {
        let (windows, null_time) = self.remaining(&Coverage::default());
        null_time || !windows.is_empty()
    }
}

/// What a run requests from which sources, and what the archive has of it.
#[derive(Clone, Copy)]
struct Asking<'a> {
    job: &'a Job,
    limits: &'a Limits,
    progress: &'a Progress,
    retry: &'a Retry,
    known: &'a Known<'a>,
    now: i64,
}

/// Surveys all sources at the same time. What the archive knows about its sources decides which of them is which.
///
/// If there is only one source, its error is the error of the survey. If there are several, those that fail are lost and
/// the others go on.
pub async fn survey(
    job: &Job,
    progress: &Progress,
    retry: &Retry,
    known: &Known<'_>,
) -> Result<Survey> {
    let limits = job.limits.shared_by(job.sources.len());
    let asking = Asking { job, limits: &limits, progress, retry, known, now: now_micros() };
    let mut survey = Survey { excluded: job.excluded.clone(), ..Survey::default() };
    if let several @ [_, _, ..] = job.sources.as_slice() {
        progress.sources(several.iter().map(|spec| spec.name.as_str()));
    }
    let reached =
        stream::iter(job.sources.iter().enumerate())
            .map(|(place, spec)| async move {
                (place, spec.name.clone(), asking.reach(place, spec).await)
            })
            .buffer_unordered(AT_ONCE);
    let reached = survey.sorted(asking, reached.collect().await)?;
    // Nothing is listed before it is certain that no server is named twice, in whatever order they answered.
    refuse_twins(job, &reached)?;
    let asked = stream::iter(reached)
        .map(|(reached, told)| async move {
            let (place, name) = (reached.place, reached.info.name.clone());
            (place, name, asking.ask(reached, told).await)
        })
        .buffer_unordered(AT_ONCE);
    for of_source in survey.sorted(asking, asked.collect().await)? {
        survey.add(of_source);
    }
    Ok(survey)
}

/// Refuses a server that is named by two addresses, since its rows would be exported twice.
fn refuse_twins(job: &Job, reached: &[(Reached, Survey)]) -> Result<()> {
    for (at, (later, _)) in reached.iter().enumerate() {
        let is_named = job.sources[later.place].named;
        let twin = reached[..at].iter().map(|(earlier, _)| &earlier.info).find(|earlier| {
            earlier.name == later.info.name || !is_named && earlier.is_same_server(&later.info)
        });
        if let Some(twin) = twin {
            return Err(Error::usage(format!(
                "{} and {} are the same server",
                twin.address, later.info.address
            ))
            .hint(
                "name it only once, by one address; to export several of its databases, give one `--source` for each",
            ));
        }
    }
    Ok(())
}

impl Survey {
    /// What the sources say about themselves.
    pub fn infos(&self) -> Vec<SourceInfo> {
        self.sources.iter().map(|reached| reached.info.clone()).collect()
    }

    /// Whether a source has failed.
    pub fn is_lost(&self, source: &str) -> bool {
        self.lost.iter().any(|lost| lost.source == source)
    }

    /// The outcomes of sources, in the order of the job, without those that failed. It is an error if the only source
    /// failed, or if the failure does not come from a source.
    fn sorted<T>(
        &mut self,
        asking: Asking<'_>,
        mut all: Vec<(usize, String, Result<T>)>,
    ) -> Result<Vec<T>> {
        all.sort_by_key(|(place, ..)| *place);
        let mut good = Vec::with_capacity(all.len());
        for (_, source, outcome) in all {
            match outcome {
                Ok(outcome) => good.push(outcome),
                Err(error)
                    if asking.job.sources.len() == 1
                        || matches!(error.exit(), Exit::Usage | Exit::Interrupted) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    asking.progress.lost(&source, &error);
                    self.lost.push(Lost { source, error });
                }
            }
        }
        Ok(good)
    }

    /// Adds the survey of one source.
    fn add(&mut self, one: Self) {
        let number = self.sources.len();
        self.sources.extend(one.sources);
        let of_this = |surveyed| Surveyed { source: number, ..surveyed };
        self.tables.extend(one.tables.into_iter().map(of_this));
        self.beside.extend(one.beside.into_iter().map(of_this));
        self.listed.extend(one.listed);
        self.excluded.extend(one.excluded);
        self.unreadable.extend(one.unreadable);
        self.outside.extend(one.outside);
        self.notes.extend(one.notes);
        self.warnings.extend(one.warnings);
    }
}

impl Asking<'_> {
    /// Opens a source under its name in the archive. The survey has the notes and warnings about that.
    async fn reach(self, place: usize, spec: &SourceSpec) -> Result<(Reached, Survey)> {
        let Asking { job, limits, progress, retry, known, .. } = self;
        progress.asking(&spec.name, &format!("asking {} what it has", spec.name));
        // If there is only one source, a failed first contact is permanent: most often its address has a mistake.
        let first = |error: Error| match error.class() {
            Class::Stop | Class::Fail => error,
            _ if job.sources.len() > 1 => error,
            _ => error.for_good(),
        };
        let (source, mut info) = contact(spec, limits, retry).await.map_err(first)?;
        info.identity = retry.with_retry(source.name(), || source.identity()).await?;
        // It tells of the time from here on, so what is read must not be older. It is worth no failure.
        let position = source.log_position().await.unwrap_or_default();
        let named = known.name_of(spec, &info)?;
        for told in named.note.iter().chain(&named.warning) {
            progress.note(told);
        }
        let told = Survey {
            notes: named.note.into_iter().collect(),
            warnings: named.warning.into_iter().collect(),
            ..Survey::default()
        };
        if named.name == spec.name {
            return Ok((Reached { source, info, place, position }, told));
        }
        let spec = SourceSpec { name: named.name.clone(), ..spec.clone() };
        let (source, _) = contact(&spec, limits, retry).await.map_err(first)?;
        let info = SourceInfo { name: named.name, ..info };
        Ok((Reached { source, info, place, position }, told))
    }

    /// Lists a source and finds out where its rows lie.
    async fn ask(self, reached: Reached, mut survey: Survey) -> Result<Survey> {
        let Asking { job, progress, retry, known, .. } = self;
        let Reached { source, mut info, place, position } = reached;
        let (spec, of) = (&job.sources[place], info.name.clone());
        progress.asking(&of, &format!("asking {of} for its tables"));
        let mut listing = list(spec, source.as_ref(), retry).await?;
        survey.listed.extend(listing.ids().cloned());
        survey.listed.shrink_to_fit(); // there may be very many tables
        survey.excluded.append(&mut listing.excluded);
        survey.warnings.append(&mut listing.warnings);
        if let Some(identity) = &mut info.identity {
            let exported: BTreeSet<&str> =
                listing.tables.iter().map(|table| table.id.database.as_str()).collect();
            identity.databases.retain(|database, _| exported.contains(database.as_str()));
        }
        let tables = several(listing.tables.len() as u64, "table");
        progress.asking(&of, &format!("asking {of} for the bounds of {tables}"));
        let bounds = retry.with_retry(&of, || source.bounds(&listing.tables)).await?;
        let tables: Vec<_> = listing.tables.into_iter().zip(bounds).collect();
        let compared = Compared {
            job,
            retry,
            known,
            spec,
            source: source.as_ref(),
            has_identity: info.identity.is_some(),
            tables: &tables,
        };
        survey.warnings.extend(compared.warnings(&listing.unreadable).await?);
        survey.unreadable.append(&mut listing.unreadable);
        for (table, bounds) in tables {
            self.take(&mut survey, source.as_ref(), table, bounds).await?;
        }
        survey.warnings.extend(taken_whole(job, &survey.tables));
        survey.sources.push(Reached { source, info, place, position });
        progress.asked(&of);
        Ok(survey)
    }

    /// Adds a table with its requested part, and counts its rows that are neither in that part nor in the archive.
    async fn take(
        self,
        survey: &mut Survey,
        source: &dyn Source,
        table: Table,
        bounds: Option<Window>,
    ) -> Result<()> {
        let Asking { job, retry, known, now, .. } = self;
        // Rows that an earlier run has exported are not outside of the archive.
        let coverage = known.coverage(&table.id);
        let range = requested(&table, bounds, job.from, job.to, now)
            .map(|range| coverage.without_empty_end(range, table.resolution_nanos));
        let outside = bounds.map(|bounds| outside(bounds, range)).unwrap_or_default();
        let outside: Vec<Window> =
            outside.into_iter().flat_map(|window| coverage.missing(window)).collect();
        let is_covered = bounds.is_some() && outside.is_empty();
        for window in outside {
            let count = count(retry, source, &table, window, &mut survey.warnings).await?;
            // The range is clamped to now; the remainder may hold no rows yet.
            if count.rows > 0 {
                survey.outside.push(Outside { table: table.id.clone(), window, count });
            }
        }
        let is_requested = range.is_some() || table.read_mode == ReadMode::WindowsAndNullTime;
        if !is_requested && !is_covered {
            survey.excluded.push(Excluded {
                source: table.id.source.clone(),
                what: format!("table {}", table.id),
                why: match bounds {
                    None => "it has no rows".to_owned(),
                    Some(bounds) => {
                        format!("all its rows are outside of the requested range ({bounds})")
                    }
                },
            });
        }
        let to = match is_requested {
            true => &mut survey.tables,
            false if known.commits(&table.id).is_empty() => return Ok(()),
            false => &mut survey.beside,
        };
        let size = first_width(&table, bounds, source.size(&table.id));
        to.push(Surveyed {
            table: Arc::new(table),
            source: 0, // set when this survey is added to that of all sources
            bounds,
            requested: range,
            first_width: job.limits.window.or(size),
            part: None,
        });
        Ok(())
    }
}

/// Lists the requested tables of a source. Those that `exclude` names are added to the excluded ones.
pub async fn list(spec: &SourceSpec, source: &dyn Source, retry: &Retry) -> Result<Listing> {
    let mut listing = retry.with_retry(source.name(), || source.list()).await?;
    // Patterns that select tables do not apply to dumps.
    let left_out =
        |id: &TableId| !id.is_dump() && spec.select.excludes(&id.database, &id.schema, &id.table);
    let excluded: Vec<Excluded> = (listing.ids())
        .filter(|id| left_out(id))
        .map(|id| Excluded {
            source: source.name().to_owned(),
            what: format!("table {id}"),
            why: LEFT_OUT.to_owned(),
        })
        .collect();
    listing.excluded.extend(excluded);
    listing.unreadable.retain(|(id, _)| !left_out(id));
    if let Some(lost) = unmatched(&spec.select, &listing) {
        return Err(Error::stop(format!("the source {} has nothing that `{lost}` names", source.name()))
            .hint("`tables`, `schemas` and `retention_policies` must name what exists; check the spelling"));
    }
    listing.tables.retain(|table| !left_out(&table.id));
    Ok(listing)
}

/// Warns of tables without a time column, which are read whole although a range is requested.
fn taken_whole(job: &Job, tables: &[Surveyed]) -> Option<String> {
    if (job.from, job.to) == (Bound::Min, Bound::Max) {
        return None;
    }
    let whole = tables.iter().filter(|surveyed| surveyed.table.read_mode == ReadMode::Whole);
    let names: Vec<String> = whole.map(|surveyed| surveyed.table.id.to_string()).collect();
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 5 { ", …" } else { "" };
    (!names.is_empty()).then(|| {
        format!(
            "read whole, whatever range is requested, because they have no single time column whose windows are cheap to \
             read: {} ({shown}{more}); `time_columns` in the configuration can name one",
            match names.len() {
                1 => "1 table".to_owned(),
                number => format!("{number} tables"),
            }
        )
    })
}

/// A name or pattern of the selection that fits no table. It is most likely a typing mistake, because of which something
/// would silently be left out.
fn unmatched<'a>(select: &'a Select, listing: &Listing) -> Option<&'a String> {
    let ids = || listing.ids().filter(|id| !id.is_dump());
    let table = |pattern: &&String| !ids().any(|id| matches(pattern, &id.table));
    let schema = |pattern: &&String| !ids().any(|id| matches(pattern, &id.schema));
    let lost = select.tables.iter().find(table);
    lost.or_else(|| select.schemas.iter().find(schema))
}

// Counted for the report only. Rows that cannot be counted are reported as at least one.
async fn count(
    retry: &Retry,
    source: &dyn Source,
    table: &Table,
    window: Window,
    warnings: &mut Vec<String>,
) -> Result<RowCount> {
    match retry.with_retry(source.name(), || source.count(table, window)).await {
        Ok(count) => Ok(count),
        Err(error) if error.class() == Class::Stop => Err(error),
        Err(error) => {
            warnings
                .push(format!("{}: the rows in {window} could not be counted: {error}", table.id));
            Ok(RowCount { rows: 1, exact: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::DAY;

    #[test]
    fn time_without_rows_is_no_part_of_a_table() {
        let days = |from: i64, to: i64| Window { from: from * DAY, to: to * DAY };
        let data_ranges = vec![days(0, 10), days(99_990, 100_000)];
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: "r".into(),
            table: "t".into(),
        };
        let table = Table { data_ranges, ..Table::new(id, Vec::new()) };
        let (all, early) = (days(0, 100_000), days(5, 50_000));
        let mut surveyed = Surveyed {
            table: Arc::new(table),
            source: 0,
            bounds: Some(all),
            requested: Some(all),
            first_width: None,
            part: None,
        };
        let part = |surveyed: &Surveyed, window| surveyed.part_of_rows([window].into_iter());
        assert_eq!((part(&surveyed, all), part(&surveyed, early)), (1.0, 0.25));
        surveyed.bounds = None;
        assert_eq!(part(&surveyed, early), 1.0, "nothing is known");
    }
}
