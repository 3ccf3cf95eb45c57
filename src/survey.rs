//! Finds out what the sources have and which part of it is requested. This is the first step of `export` and all of
//! `plan`. Of the rows only the first and the last of each table are read.

mod again;
mod compared;
pub mod division;
mod same;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

pub use self::again::Again;
pub use self::same::Known;

use self::compared::Compared;
use crate::archive::run_json::Outside;
use crate::config::{Job, Select, SourceSpec, matches};
use crate::coverage::Coverage;
use crate::error::{Class, Error, Result};
use crate::export::window_sizing::first_width;
use crate::model::{Excluded, LEFT_OUT, Listing, ReadMode, RowCount, SourceInfo, Table, TableId};
use crate::progress::Progress;
use crate::range::{outside, requested};
use crate::retry::Retry;
use crate::source::Source;
use crate::source::contact::contact;
use crate::text::several;
use crate::window::{Bound, DAY, Window, now_micros};

/// What the sources answered.
pub struct Survey {
    /// The sources, open.
    pub sources: Vec<Arc<dyn Source>>,
    /// What each says of itself.
    pub infos: Vec<SourceInfo>,
    /// All tables that have rows, or may have some in the requested range.
    pub tables: Vec<Surveyed>,
    /// The names of all tables that were there, whatever became of them.
    pub listed: HashSet<TableId>,
    /// What is left out, and why.
    pub excluded: Vec<Excluded>,
    /// What cannot be read, and why.
    pub unreadable: Vec<(TableId, String)>,
    /// Rows outside of the requested range.
    pub outside: Vec<Outside>,
    /// What was found out and is harmless.
    pub notes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A table, and what is requested of it.
#[derive(Debug)]
pub struct Surveyed {
    /// The table.
    pub table: Arc<Table>,
    /// Number of its source.
    pub source: usize,
    /// From its first row to the first instant after its last; `None` where it is empty.
    pub bounds: Option<Window>,
    /// The time to be covered; `None` where only rows without a time are.
    pub requested: Option<Window>,
    /// How wide its first window is, where no earlier run has learned how wide they should be.
    pub first_width: i64,
}

impl Surveyed {
    /// What remains to be read: windows, and whether the rows without a time are among it.
    pub fn remaining(&self, coverage: &Coverage) -> (Vec<Window>, bool) {
        let windows =
            self.requested.map(|requested| coverage.missing(requested)).unwrap_or_default();
        let null_time = self.table.read_mode == ReadMode::WindowsAndNullTime;
        (windows, null_time && !coverage.has_null_time())
    }
}

/// What a run requests, of which sources, and what the archive has of it.
#[derive(Clone, Copy)]
struct Asking<'a> {
    job: &'a Job,
    progress: &'a Progress,
    retry: &'a Retry,
    known: &'a Known<'a>,
    now: i64,
}

/// Surveys all sources. What the archive knows of its sources tells which of them is which.
pub async fn survey(
    job: &Job,
    progress: &Progress,
    retry: &Retry,
    known: &Known<'_>,
) -> Result<Survey> {
    let mut survey = Survey {
        sources: Vec::new(),
        infos: Vec::new(),
        tables: Vec::new(),
        listed: HashSet::new(),
        excluded: Vec::new(),
        unreadable: Vec::new(),
        outside: Vec::new(),
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    let asking = Asking { job, progress, retry, known, now: now_micros() };
    for spec in &job.sources {
        survey.ask(asking, spec).await?;
    }
    Ok(survey)
}

impl Survey {
    async fn ask(&mut self, asking: Asking<'_>, spec: &SourceSpec) -> Result<()> {
        let Asking { job, progress, retry, known, .. } = asking;
        let (source, mut info) = self.reach(asking, spec).await?;
        let of = info.name.clone();
        let mut listing = list(spec, source.as_ref(), retry).await?;
        self.listed.extend(listing.ids().cloned());
        self.excluded.append(&mut listing.excluded);
        self.warnings.append(&mut listing.warnings);
        if let Some(identity) = &mut info.identity {
            let exported: BTreeSet<&str> =
                listing.tables.iter().map(|table| table.id.database.as_str()).collect();
            identity.databases.retain(|database, _| exported.contains(database.as_str()));
        }
        progress.doing(&format!(
            "asking {of} for the bounds of {}",
            several(listing.tables.len() as u64, "table")
        ));
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
        self.warnings.extend(compared.warnings(&listing.unreadable).await?);
        self.unreadable.append(&mut listing.unreadable);
        for (table, bounds) in tables {
            self.take(asking, source.as_ref(), table, bounds).await?;
        }
        self.warnings.extend(taken_whole(job, self.sources.len(), &self.tables));
        self.sources.push(source);
        self.infos.push(info);
        Ok(())
    }

    /// Opens a source under the name that it has in the archive.
    async fn reach(
        &mut self,
        asking: Asking<'_>,
        spec: &SourceSpec,
    ) -> Result<(Arc<dyn Source>, SourceInfo)> {
        let Asking { job, progress, retry, known, .. } = asking;
        progress.doing(&format!("asking {} what it has", spec.name));
        let (source, mut info) = contact(spec, &job.limits, retry).await?;
        info.identity = retry.with_retry(source.name(), || source.identity()).await?;
        let named = known.name_of(spec, &info)?;
        if let Some(twin) = self
            .infos
            .iter()
            .find(|twin| twin.name == named.name || !spec.named && twin.is_same_server(&info))
        {
            return Err(Error::usage(format!(
                "{} and {} are the same server",
                twin.address, info.address
            ))
            .hint(
                "give it once, by one address; several databases of it are one `--source` each",
            ));
        }
        for told in named.note.iter().chain(&named.warning) {
            progress.note(told);
        }
        self.notes.extend(named.note);
        self.warnings.extend(named.warning);
        if named.name == spec.name {
            return Ok((source, info));
        }
        let spec = SourceSpec { name: named.name.clone(), ..spec.clone() };
        let (source, _) = contact(&spec, &job.limits, retry).await?;
        Ok((source, SourceInfo { name: named.name, ..info }))
    }

    /// Adds a table with what is requested of it, and counts the rows outside of that and of the archive.
    async fn take(
        &mut self,
        asking: Asking<'_>,
        source: &dyn Source,
        table: Table,
        bounds: Option<Window>,
    ) -> Result<()> {
        let Asking { job, retry, known, now, .. } = asking;
        // Rows that another run has exported are not outside of the archive.
        let coverage = known.coverage(&table.id);
        let range = requested(&table, bounds, job.from, job.to, now)
            .map(|range| coverage.without_empty_end(range, table.resolution_nanos));
        let outside = bounds.map(|bounds| outside(bounds, range)).unwrap_or_default();
        let outside: Vec<Window> =
            outside.into_iter().flat_map(|window| coverage.missing(window)).collect();
        let is_covered = bounds.is_some() && outside.is_empty();
        for window in outside {
            let count = count(retry, source, &table, window, &mut self.warnings).await?;
            // The range is clamped to now; the remainder may hold no rows yet.
            if count.rows > 0 {
                self.outside.push(Outside { table: table.id.clone(), window, count });
            }
        }
        if range.is_some() || table.read_mode == ReadMode::WindowsAndNullTime {
            let (table, number) = (Arc::new(table), self.sources.len());
            let size = first_width(&table, bounds, source.size(&table.id));
            let first_width = job.limits.window.or(size).unwrap_or(DAY);
            self.tables.push(Surveyed {
                table,
                source: number,
                bounds,
                requested: range,
                first_width,
            });
        } else if !is_covered {
            self.excluded.push(Excluded {
                source: table.id.source.clone(),
                what: format!("table {}", table.id),
                why: match bounds {
                    None => "it has no rows".to_owned(),
                    Some(bounds) => {
                        format!("all of its rows are outside of the requested range ({bounds})")
                    }
                },
            });
        }
        Ok(())
    }
}

/// Lists what a source has of what is requested. Tables that `exclude` names are among those left out.
pub async fn list(spec: &SourceSpec, source: &dyn Source, retry: &Retry) -> Result<Listing> {
    let mut listing = retry.with_retry(source.name(), || source.list()).await?;
    let left_out = |id: &TableId| spec.select.excludes(&id.database, &id.schema, &id.table);
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
        return Err(Error::stop(format!("{}: it has nothing named `{lost}`", source.name()))
            .hint("`tables`, `schemas` and `retention_policies` name what is to be exported"));
    }
    listing.tables.retain(|table| !left_out(&table.id));
    Ok(listing)
}

/// Warns that the requested range does not bound tables that have no time.
fn taken_whole(job: &Job, source: usize, tables: &[Surveyed]) -> Option<String> {
    if (job.from, job.to) == (Bound::Min, Bound::Max) {
        return None;
    }
    let whole = tables.iter().filter(|surveyed| {
        surveyed.source == source && surveyed.table.read_mode == ReadMode::Whole
    });
    let names: Vec<String> = whole.map(|surveyed| surveyed.table.id.to_string()).collect();
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 5 { ", …" } else { "" };
    (!names.is_empty()).then(|| {
        format!(
            "read whole, whatever range is requested, because no single column of time stands out whose windows are cheap \
             to read: {} ({shown}{more}); `time_columns` in the configuration can name one",
            match names.len() {
                1 => "1 table".to_owned(),
                number => format!("{number} tables"),
            }
        )
    })
}

/// A name or pattern of the selection that fits no table. It is most likely a typing error, and what it was meant
/// for would be left out silently.
fn unmatched<'a>(select: &'a Select, listing: &Listing) -> Option<&'a String> {
    let table = |pattern: &&String| !listing.ids().any(|id| matches(pattern, &id.table));
    let schema = |pattern: &&String| !listing.ids().any(|id| matches(pattern, &id.schema));
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
