//! `verify --against-source`: asks the sources again whether they have exactly the rows of the archive. Each chunk is
//! compared by itself. A chunk that was not compared is an open point and never a silent success.

mod answer;
mod chunk;
mod cost;
mod group;
mod inventory;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;

use self::answer::{ASK_AGAIN, EXPORT_AGAIN};
pub use self::answer::{Against, Depth};
use self::chunk::{One, in_short};
use self::cost::{costs, in_words};
use self::group::{Asked, compare, groups};
use self::record::Tally;
pub(super) use self::record::remember;
use crate::archive::run_json::{RunEntry, Selected};
use crate::archive::verdict::VerdictRecord;
use crate::archive::{Archive, ArchiveIndex};
use crate::column_stats::Recorded;
use crate::commands::plan::QuotaPreview;
use crate::config::{Job, Select};
use crate::coverage::Coverage;
use crate::error::{Exit, Result};
use crate::model::{Level, Marker, Open, OpenKind as Kind, Proof, SourceInfo, Table, Verdict};
use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::Source;
use crate::survey::{Known, Reached, Survey, Surveyed, survey};
use crate::window::{Bound, Slice, now, parse_time, rfc3339};

/// The sources of an archive, with the URLs at which they were reached, and which part of them was requested.
pub(super) fn recorded_sources(run: &RunEntry) -> Vec<(String, Vec<String>, Select)> {
    let selected: HashMap<&str, &Selected> =
        run.selected.iter().map(|selected| (selected.source.as_str(), selected)).collect();
    let mut databases = BTreeMap::<&str, BTreeSet<&str>>::new();
    for requested in run.runs().flat_map(|run| &run.requested) {
        let of_source = databases.entry(&requested.table.source).or_default();
        of_source.insert(&requested.table.database);
    }
    let mut sources = BTreeMap::<&str, &SourceInfo>::new();
    sources.extend(run.runs().flat_map(|run| &run.sources).map(|info| (info.name.as_str(), info)));
    let urls = sources.into_iter().map(|(name, info)| {
        let databases = databases.remove(name).unwrap_or_default();
        match selected.get(name) {
            None => (name.to_owned(), urls(info, databases), Select::default()),
            Some(selected) => {
                let databases = selected.databases.iter().map(String::as_str).collect();
                let part = Select {
                    databases: Vec::new(),
                    schemas: selected.schemas.clone(),
                    tables: selected.tables.clone(),
                    exclude: selected.exclude.clone(),
                };
                (name.to_owned(), urls(info, databases), part)
            }
        }
    });
    urls.collect()
}

fn urls(info: &SourceInfo, databases: BTreeSet<&str>) -> Vec<String> {
    let address = info.address.as_str();
    let base = match address.split_once("://") {
        Some(("http" | "https", _)) => format!("influxdb+{address}"),
        Some(_) => address.to_owned(),
        None if address.starts_with("lp:") || address.starts_with("aptible:") => {
            return vec![address.to_owned()];
        }
        None if info.version.starts_with("PostgreSQL") => format!("postgres://{address}"),
        None => return Vec::new(),
    };
    let encoded = |database: &str| {
        percent_encoding::utf8_percent_encode(database, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    };
    let base = base.trim_end_matches('/');
    if databases.is_empty() {
        return vec![base.to_owned()]; // all of them
    }
    databases.into_iter().map(|database| format!("{base}/{}", encoded(database))).collect()
}

/// The range of the last run, with `now` as of the start of that run.
pub(super) fn recorded_range(run: &RunEntry) -> Result<(Bound, Bound)> {
    let began = parse_time(&run.started).unwrap_or_else(crate::window::now);
    let (from, to) = (run.range.from.as_str(), run.range.to.as_str());
    let bound = |text: &str, usual: Bound| {
        if text.is_empty() { Ok(usual) } else { Bound::parse(text, began) }
    };
    Ok((bound(from, Bound::Min)?, bound(to, Bound::Max)?))
}

/// Compares an archive without faults with its sources.
pub(super) async fn against_source(
    job: &Job,
    archive: &Archive,
    depth: Depth,
    memory_bytes: usize,
    progress: &Progress,
    retry: &Retry,
) -> Result<(Against, VerdictRecord)> {
    let started = rfc3339(now());
    let state = archive.state().await?;
    let known = Known::of(&state, &[]);
    let survey = survey(job, progress, retry, &known).await?;
    let mut comparison = Comparison {
        job,
        archive,
        state: &state,
        survey: &survey,
        retry,
        share: memory_bytes / job.limits.concurrency.max(1),
        open: BTreeSet::new(),
        notes: Vec::new(),
        quotas: Vec::new(),
        compared: BTreeMap::new(),
        tally: Tally::of(archive).await?,
    };
    comparison.inventory();
    comparison.beyond(&known).await?;
    comparison.chunks(depth, progress).await?;
    comparison.markers();
    progress.end();
    let Comparison { open, notes, quotas, compared, tally, .. } = comparison;
    let excluded = state.run.iter().flat_map(|run| &run.excluded).chain(&survey.excluded);
    let outside = survey.outside.iter().map(|outside| {
        let window = outside.window.for_people();
        format!("{} of {}: the range that was requested ends before", window, outside.table)
    });
    let excluded = excluded
        .map(|excluded| format!("{} of {}: {}", excluded.what, excluded.source, excluded.why))
        .chain(outside);
    let excluded: BTreeSet<String> = excluded.collect();
    let excluded = excluded.into_iter().collect();
    let mut against = Against {
        verdict: Verdict::Safe,
        open: Vec::new(),
        compared,
        excluded,
        notes,
        quotas,
        exit: Exit::Done,
    };
    against.add(open);
    let record = tally.record(depth, survey.infos(), started, rfc3339(now()));
    Ok((against, record))
}

/// A table as it is among these, to which it is added if it is not there.
fn one_of(tables: &mut Vec<Arc<Table>>, table: Table) -> Arc<Table> {
    let known = tables.iter().find(|known| known.columns == table.columns).cloned();
    known.unwrap_or_else(|| {
        tables.push(Arc::new(table));
        Arc::clone(&tables[tables.len() - 1])
    })
}

struct Comparison<'a> {
    job: &'a Job,
    archive: &'a Archive,
    state: &'a ArchiveIndex,
    survey: &'a Survey,
    retry: &'a Retry,
    /// Bytes of memory for one chunk.
    share: usize,
    open: BTreeSet<Open>,
    notes: Vec<String>,
    quotas: Vec<QuotaPreview>,
    compared: BTreeMap<Level, u64>,
    tally: Tally,
}

impl Comparison<'_> {
    fn open(&mut self, kind: Kind, source: &str, what: String, why: String, todo: &str) {
        let (source, todo) = (source.to_owned(), todo.to_owned());
        self.open.insert(Open { source, what, why, todo, kind });
    }

    /// Whether the logs of the sources have moved since the last export of each.
    fn markers(&mut self) {
        let runs = self.state.run.iter().flat_map(|run| run.runs());
        let last: HashMap<&str, &Marker> = runs
            .flat_map(|run| &run.markers)
            .map(|marker| (marker.source.as_str(), marker))
            .collect();
        for Reached { info, position, .. } in &self.survey.sources {
            let Some(marker) = last.get(info.name.as_str()) else { continue };
            let is_equal = !self.open.iter().any(|open| open.source == info.name);
            self.notes.push(marker.note(position.as_ref(), is_equal));
        }
    }

    /// Looks for rows of known tables in windows that the archive does not cover.
    async fn beyond(&mut self, known: &Known<'_>) -> Result<()> {
        let by_table = self.state.by_table();
        for surveyed in &self.survey.tables {
            let Surveyed { table, source, bounds, requested, .. } = surveyed;
            let coverage: Coverage = known.coverage(&table.id);
            // The time column may have become nullable since the table was exported.
            if by_table.contains_key(&table.id) && surveyed.remaining(&coverage).1 {
                self.without_a_time(table, &self.survey.sources[*source].source).await;
            }
            let Some(within) = bounds.zip(*requested).and_then(|(bounds, asked)| {
                by_table.contains_key(&table.id).then(|| bounds.intersect(&asked)).flatten()
            }) else {
                continue;
            };
            let source = &self.survey.sources[*source].source;
            for window in coverage.missing(within) {
                let count = self
                    .retry
                    .with_retry(source.name(), || source.count(table, window))
                    .await
                    .map_or_else(|error| Err(error.to_string()), |count| Ok(count.rows));
                let what = format!("{} {window}", table.id);
                match count {
                    Ok(0) => {}
                    Ok(rows) => {
                        let why = format!("{rows} rows or more that the archive does not have");
                        self.open(Kind::Different, source.name(), what, why, EXPORT_AGAIN);
                    }
                    Err(why) => {
                        self.open(Kind::Unfinished, source.name(), what, why, ASK_AGAIN);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for rows without a time, in a table of which the archive has none.
    async fn without_a_time(&mut self, table: &Table, source: &Arc<dyn Source>) {
        let none = Recorded { rows: 0, columns: &[] };
        let asked =
            self.retry.with_retry(source.name(), || source.prove(table, Slice::NullTime, none));
        let what = format!("{} {}", table.id, Slice::NullTime);
        match asked.await {
            Ok(Some(proof)) if proof.differences.is_empty() => {}
            Ok(Some(proof)) => {
                let why = in_short(&proof.differences);
                self.open(Kind::Different, source.name(), what, why, EXPORT_AGAIN);
            }
            Ok(None) => {
                let why = "the source cannot count them".to_owned();
                self.open(Kind::Unfinished, source.name(), what, why, EXPORT_AGAIN);
            }
            Err(error) => {
                self.open(Kind::Unfinished, source.name(), what, error.to_string(), ASK_AGAIN);
            }
        }
    }

    /// Compares each chunk of the tables that the source still has.
    async fn chunks(&mut self, depth: Depth, progress: &Progress) -> Result<()> {
        let by_table = self.state.by_table();
        let mut todo = Vec::new();
        let beside = self.survey.beside.iter().filter(|surveyed| surveyed.bounds.is_some());
        for Surveyed { table, source, .. } in self.survey.tables.iter().chain(beside) {
            let source = &self.survey.sources[*source].source;
            let commits = by_table.get(&table.id).map(Vec::as_slice).unwrap_or_default();
            // Runs may have read a column by different types, and each chunk is compared by those that it has.
            let mut typed = vec![Arc::clone(table)];
            for commit in commits.iter().filter(|commit| commit.dump.is_none()) {
                let mut types = commit.columns.iter().map(|column| &*column.column);
                let table = match source.take_types(table, &mut types) {
                    None => Arc::clone(table),
                    Some(table) => one_of(&mut typed, table),
                };
                todo.push((table, source, *commit));
            }
        }
        self.dumps();
        self.emptied(&by_table);
        let every = |part: f64, at: usize| {
            let before = (at as f64 * part).floor();
            ((at + 1) as f64 * part).floor() > before || part >= 1.0
        };
        let mut left = todo.len() as u64;
        progress.left(left, None);
        let (store, share, retry, tally) =
            (self.archive.store(), self.share, self.retry, &self.tally);
        let todo = todo.into_iter().enumerate().map(|(at, (table, source, commit))| Asked {
            one: One { table, source, commit, retry },
            reads: every(depth.read_again, at) || at == 0 && depth.read_again > 0.0,
            // The chunk was different before, perhaps in a way that statistics do not show.
            doubts: tally.was_stale(commit),
        });
        let groups = groups(todo.collect());
        self.quotas = costs(&groups);
        self.quotas.iter().for_each(|cost| progress.note(&in_words(cost)));
        let compared = futures::stream::iter(groups)
            .map(|group| async move { compare(&group, store, share).await })
            .buffer_unordered(self.job.limits.concurrency)
            .inspect(|group| {
                for (commit, _) in group {
                    left = left.saturating_sub(1);
                    progress.add_rows(commit.rows);
                    progress.chunk_done();
                }
                progress.left(left, None);
            });
        let compared: Vec<_> = compared.collect().await;
        for (commit, compared) in compared.into_iter().flatten() {
            let what = format!("{} {}", commit.id(), commit.slice);
            match compared {
                Ok(Proof { level, differences }) => {
                    *self.compared.entry(level).or_default() += 1;
                    self.tally.compared(commit, level, differences.is_empty());
                    if !differences.is_empty() {
                        let why = in_short(&differences);
                        let todo = self.tally.different(commit, &why);
                        self.open(Kind::Different, &commit.source, what, why, todo);
                    }
                }
                Err(error) if error.exit() == Exit::Interrupted => return Err(error),
                Err(error) => {
                    let kind = match error.exit() {
                        Exit::Failed => Kind::Failed,
                        _ => Kind::Unfinished,
                    };
                    self.open(kind, &commit.source, what, error.to_string(), ASK_AGAIN);
                }
            }
        }
        Ok(())
    }
}
