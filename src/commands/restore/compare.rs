//! Asks the target, as the source that it is for an export, what it has: before, whether there is something already; after,
//! whether it is what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::choose::{Options, Work};
use crate::column_stats::{ColumnStats, Recorded};
use crate::config::{Limits, Select, SourceSpec};
use crate::error::{Class, Result};
use crate::model::{Table, TableId};
use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::{Source, registry};
use crate::target::{Plan, Written};

/// How many tables are asked at once for their first row.
const AT_ONCE: usize = 50;

/// The target as a source, and those of its tables that the restore writes, by their names without the source.
async fn listed(
    spec: &SourceSpec,
    limits: &Limits,
    wanted: &BTreeSet<TableId>,
    retry: &Retry,
) -> Result<(Arc<dyn Source>, HashMap<TableId, Table>)> {
    let spec = SourceSpec { select: Select::default(), ..spec.clone() };
    let source = registry::open(&spec, limits).await?;
    let listing = match retry.with_retry(source.name(), || source.list()).await {
        Ok(listing) => listing.tables,
        // A server without any database may say so by an error.
        Err(error) if error.class() == Class::Stop && error.to_string().contains("no database") => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let named = listing.into_iter().map(|table| (nameless(&table.id), table));
    let tables = named.filter(|(id, _)| wanted.contains(id)).collect();
    Ok((source, tables))
}

fn nameless(id: &TableId) -> TableId {
    TableId { source: String::new(), ..id.clone() }
}

/// The tables of the plan that have rows in the target.
pub(super) async fn occupied(
    spec: &SourceSpec,
    limits: &Limits,
    plan: &Plan,
    retry: &Retry,
) -> Result<BTreeSet<TableId>> {
    let places: HashMap<TableId, &TableId> =
        plan.tables.iter().map(|table| (nameless(&table.to), &table.to)).collect();
    let wanted = places.keys().cloned().collect();
    let (source, tables) = listed(spec, limits, &wanted, retry).await?;
    let tables: Vec<Table> = tables.into_values().collect();
    let mut occupied = BTreeSet::new();
    for some in tables.chunks(AT_ONCE) {
        let bounds = retry.with_retry(source.name(), || source.bounds(some)).await?;
        for (table, bounds) in some.iter().zip(bounds) {
            if let (Some(_), Some(to)) = (bounds, places.get(&nameless(&table.id))) {
                occupied.insert((*to).clone());
            }
        }
    }
    Ok(occupied)
}

/// What the target has otherwise than it was written, a line each.
pub(super) async fn compare(
    spec: &SourceSpec,
    options: &Options,
    chunks: &[Work],
    written: &BTreeMap<String, Written>,
    retry: &Retry,
    progress: &Progress,
) -> Result<Vec<String>> {
    let wanted = chunks.iter().map(|work| nameless(&work.table.to)).collect();
    let (source, tables) = listed(spec, &options.limits, &wanted, retry).await?;
    let mut differences = Vec::new();
    let mut left = chunks.len() as u64;
    for work in chunks {
        left -= 1;
        progress.left(left, None);
        let expected = &written[&work.name];
        let what = format!("{} {}", work.table.to, work.commit.slice);
        let Some(table) = tables.get(&nameless(&work.table.to)) else {
            if expected.rows > 0 {
                differences.push(format!("{what}: the target does not list the table"));
            }
            continue;
        };
        // Another generation may have other names for what is the same.
        let is_known = |column: &ColumnStats| {
            column.count == 0
                || table.columns.iter().any(|there| {
                    (&there.name, &there.source_type) == (&column.name, &column.source_type)
                })
        };
        let is_whole = work.within.is_none()
            && expected.rejected == 0
            && work.commit.columns.iter().all(is_known);
        let recorded = Recorded { rows: work.commit.rows, columns: &work.commit.columns };
        let proved = if is_whole {
            let ask = || source.prove(table, work.commit.slice, recorded);
            retry.with_retry(source.name(), ask).await?
        } else {
            None
        };
        if let Some(proof) = proved {
            differences.extend(proof.differences.into_iter().map(|why| format!("{what}: {why}")));
            continue;
        }
        let Some(window) = work.within.or(work.commit.slice.window()) else { continue };
        let count = retry.with_retry(source.name(), || source.count(table, window)).await?;
        let is_same = count.rows == expected.rows || (!count.exact && count.rows < expected.rows);
        if !is_same {
            let why = format!("{} rows there, {} were written", count.rows, expected.rows);
            differences.push(format!("{what}: {why}"));
        }
    }
    Ok(differences)
}
