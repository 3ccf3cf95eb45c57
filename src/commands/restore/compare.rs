//! Asks the target what it has, as if it were the source of an export. Before the restore this tells whether there is
//! something already, and after it, whether the target has what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::choose::{Options, Work};
use super::narrow::prove_by_reading;
use crate::column_stats::{ColumnStats, Recorded};
use crate::config::{Limits, Select, SourceKind, SourceSpec};
use crate::error::{Class, Result};
use crate::model::{Division, Table, TableId};
use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::{Source, registry};
use crate::target::{Placed, Plan, Target, Written};

/// How many tables are asked for their first row at the same time.
const AT_ONCE: usize = 50;

/// The target as a source, and its tables that the restore writes, by their names without the source.
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

/// The target, so that it is asked in windows of the same columns as in the archive, whatever its indexes say.
fn divided_as(spec: &SourceSpec, chunks: &[&Work]) -> SourceSpec {
    let mut spec = spec.clone();
    if let SourceKind::Postgres(server) | SourceKind::MySql(server) = &mut spec.kind {
        for work in chunks {
            let column = match work.commit.state.as_deref().map(str::parse) {
                Some(Ok(Division::Windows(column))) => column,
                Some(Ok(Division::Whole)) => String::new(),
                _ => continue,
            };
            let to = &work.table.to;
            let place = if to.schema.is_empty() { &to.database } else { &to.schema };
            server.time_columns.insert(format!("{place}.{}", to.table), column);
        }
    }
    spec
}

/// The tables that have another number of rows than was written, a line each, if the target can be asked for it. Also
/// returns the tables that were counted.
pub(super) async fn counted(
    target: &dyn Target,
    chunks: &[Work],
    written: &BTreeMap<String, Written>,
) -> Result<(Vec<String>, BTreeSet<TableId>)> {
    let (mut differences, mut counted) = (Vec::new(), BTreeSet::new());
    let rows = |work: &Work| written.get(&work.name).map_or(0, |written| written.rows);
    for (table, expected) in sums(chunks, rows) {
        let Some(count) = target.count(table).await? else { continue };
        counted.insert(table.to.clone());
        if count != expected {
            differences.push(format!("{}: {count} rows there, {expected} were written", table.to));
        }
    }
    Ok((differences, counted))
}

/// What the user should know of tables whose rows the target has made by itself.
pub(super) async fn made_there(target: &dyn Target, chunks: &[Work]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (table, expected) in sums(chunks, |work| work.commit.rows) {
        if let Some(count) = target.count(table).await?
            && count != expected
        {
            notes.push(format!(
                "{}: the target has filled it out of other tables, with {count} rows; the archive has {expected}",
                table.to
            ));
        }
    }
    Ok(notes)
}

/// Each table of some chunks, with the sum of a number of them.
fn sums(chunks: &[Work], number: impl Fn(&Work) -> u64) -> Vec<(&Placed, u64)> {
    let mut sums = BTreeMap::<&TableId, (&Placed, u64)>::new();
    for work in chunks {
        let sum = sums.entry(&work.table.to).or_insert((&work.table, 0));
        sum.1 += number(work);
    }
    sums.into_values().collect()
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

/// What is different in the target from what was written, a line each.
pub(super) async fn compare(
    spec: &SourceSpec,
    options: &Options,
    chunks: &[&Work],
    written: &BTreeMap<String, Written>,
    retry: &Retry,
    progress: &Progress,
) -> Result<Vec<String>> {
    if chunks.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = chunks.iter().map(|work| nameless(&work.table.to)).collect();
    let spec = &divided_as(spec, chunks);
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
        // If a value did not fit a type, the chunk has the column as text, and the target is asked for text, too.
        let mut types = work.commit.columns.iter().map(|column| &*column.column);
        let typed = source.take_types(table, &mut types);
        let table = typed.as_ref().unwrap_or(table);
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
            let ask = || async {
                match source.prove(table, work.commit.slice, recorded).await {
                    Err(error) if error.class() == Class::Split => Ok(Err(error)),
                    answer => answer.map(Ok),
                }
            };
            match (retry.with_retry(source.name(), ask).await?, work.commit.slice.window()) {
                (Ok(proof), _) => proof,
                (Err(_), Some(window)) => {
                    let source = source.as_ref();
                    Some(prove_by_reading(source, table, window, recorded, retry).await?)
                }
                (Err(error), None) => return Err(error),
            }
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
