//! What the sources have and what of it is asked for: the first part of `export`, all of `plan`.
//! Reads no rows but the first and the last of each table.

use std::sync::Arc;

use crate::archive::catalog::Outside;
use crate::config::{Job, Select, SourceSpec, matches};
use crate::coverage::Coverage;
use crate::error::{Class, Error, Result};
use crate::plan::{asked, outside};
use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::{
    Excluded, LEFT_OUT, Listing, Reading, RowCount, Source, SourceInfo, Table, TableId, contact,
};
use crate::window::{Bound, Window, now};

/// The sources, asked.
pub struct Survey {
    /// The sources, open.
    pub sources: Vec<Arc<dyn Source>>,
    /// What each says of itself.
    pub infos: Vec<SourceInfo>,
    /// All tables that have rows, or may have some in the asked range.
    pub tables: Vec<Surveyed>,
    /// What is left out, and why.
    pub excluded: Vec<Excluded>,
    /// What cannot be read, and why.
    pub unreadable: Vec<(TableId, String)>,
    /// Rows outside of the asked range.
    pub outside: Vec<Outside>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A table, and what is asked of it.
#[derive(Debug)]
pub struct Surveyed {
    /// The table.
    pub table: Arc<Table>,
    /// Number of its source.
    pub source: usize,
    /// `[first, last + 1 ns)`; `None` where it is empty.
    pub bounds: Option<Window>,
    /// The time to be covered; `None` where only rows without a time are.
    pub asked: Option<Window>,
}

impl Surveyed {
    /// What is not covered yet: windows, and whether the rows without a time are.
    pub fn left(&self, coverage: &Coverage) -> (Vec<Window>, bool) {
        let windows = self.asked.map(|asked| coverage.missing(asked)).unwrap_or_default();
        let null_time = self.table.reading == Reading::WindowsAndNullTime;
        (windows, null_time && !coverage.has_null_time())
    }
}

/// Asks all sources.
pub async fn survey(job: &Job, progress: &Progress, retry: &Retry) -> Result<Survey> {
    let mut survey = Survey {
        sources: Vec::new(),
        infos: Vec::new(),
        tables: Vec::new(),
        excluded: Vec::new(),
        unreadable: Vec::new(),
        outside: Vec::new(),
        warnings: Vec::new(),
    };
    let now = now();
    for (number, spec) in job.sources.iter().enumerate() {
        progress.doing(&format!("asking {} what it has", spec.name));
        let (source, info) = contact(spec, &job.limits, retry).await?;
        survey.infos.push(info);
        let of = source.name();
        let mut listing = list(spec, source.as_ref(), retry).await?;
        survey.excluded.append(&mut listing.excluded);
        survey.unreadable.append(&mut listing.unreadable);
        survey.warnings.append(&mut listing.warnings);
        progress.doing(&format!(
            "asking {} for the bounds of {} tables",
            spec.name,
            listing.tables.len()
        ));
        let bounds = retry.with_retry(of, || source.bounds(&listing.tables)).await?;
        for (table, bounds) in listing.tables.into_iter().zip(bounds) {
            let range = asked(&table, bounds, job.from, job.to, now);
            if let Some(bounds) = bounds {
                for window in outside(bounds, range) {
                    let count =
                        count(retry, source.as_ref(), &table, window, &mut survey.warnings).await?;
                    // Points may stand in the asked range's rest that is not yet: nothing is lost.
                    if count.rows > 0 {
                        survey.outside.push(Outside { table: table.id.clone(), window, count });
                    }
                }
            }
            match range {
                asked if asked.is_some() || table.reading == Reading::WindowsAndNullTime => {
                    survey.tables.push(Surveyed {
                        table: Arc::new(table),
                        source: number,
                        bounds,
                        asked,
                    });
                }
                _ => survey.excluded.push(Excluded {
                    source: spec.name.clone(),
                    what: format!("table {}", table.id),
                    why: match bounds {
                        None => "it has no rows".to_owned(),
                        Some(bounds) => {
                            format!("all of its rows are outside of the asked range ({bounds})")
                        }
                    },
                }),
            }
        }
        survey.warnings.extend(taken_whole(job, number, &survey.tables));
        survey.sources.push(source);
    }
    Ok(survey)
}

/// What a source has of what is asked for; what `exclude` names is among what is left out.
pub async fn list(spec: &SourceSpec, source: &dyn Source, retry: &Retry) -> Result<Listing> {
    let mut listing = retry.with_retry(source.name(), || source.list()).await?;
    let left_out = |id: &TableId| spec.select.excludes(&id.database, &id.schema, &id.table);
    let listed = listing.tables.iter().map(|table| &table.id);
    let there = listed.chain(listing.unreadable.iter().map(|(id, _)| id));
    let excluded: Vec<Excluded> = there
        .filter(|id| left_out(id))
        .map(|id| Excluded {
            source: spec.name.clone(),
            what: format!("table {id}"),
            why: LEFT_OUT.to_owned(),
        })
        .collect();
    listing.excluded.extend(excluded);
    listing.unreadable.retain(|(id, _)| !left_out(id));
    if let Some(lost) = unmatched(&spec.select, &listing) {
        return Err(Error::stop(format!("{}: nothing there is named `{lost}`", spec.name))
            .hint("`tables`, `schemas` and `retention_policies` name what is to be exported"));
    }
    listing.tables.retain(|table| !left_out(&table.id));
    Ok(listing)
}

/// A table that is there and cannot be read, as an error.
pub fn unreadable(table: &TableId, why: &str) -> Error {
    Error::fail(format!("{table} cannot be read: {why}"))
        .hint("give the user the rights, or leave the table out by `exclude`")
}

/// A range bounds only what has a time.
fn taken_whole(job: &Job, source: usize, tables: &[Surveyed]) -> Option<String> {
    if (job.from, job.to) == (Bound::Min, Bound::Max) {
        return None;
    }
    let whole = tables
        .iter()
        .filter(|surveyed| surveyed.source == source && surveyed.table.reading == Reading::Whole);
    let names: Vec<String> = whole.map(|surveyed| surveyed.table.id.to_string()).collect();
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 5 { ", …" } else { "" };
    (!names.is_empty()).then(|| {
        format!(
            "taken whole, since no index serves a time of theirs: {} tables ({shown}{more}); `time_columns` in the \
             configuration names one",
            names.len()
        )
    })
}

/// A name or pattern of the selection that no table has: most likely a slip of the pen, and what it
/// was meant for would be left out without a word.
fn unmatched<'a>(select: &'a Select, listing: &Listing) -> Option<&'a String> {
    let listed = || listing.tables.iter().map(|table| &table.id);
    let ids = || listed().chain(listing.unreadable.iter().map(|(id, _)| id));
    let table = |pattern: &&String| !ids().any(|id| matches(pattern, &id.table));
    let schema = |pattern: &&String| !ids().any(|id| matches(pattern, &id.schema));
    let lost = select.tables.iter().find(table);
    lost.or_else(|| select.schemas.iter().find(schema))
}

// Only counted to be told; what cannot be counted is said to be there.
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
