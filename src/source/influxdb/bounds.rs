//! Finds the first and the last row of a table of an InfluxDB 3, and the number of its rows: by one query if the server
//! can answer it. If a query over all time is too much for the server (limits of files, minutes of merging), windows that
//! may have rows are narrowed down until one is small enough to be queried.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Class, Error, Result};
use crate::model::{Column, RowCount, Table, TableId};
use crate::window::{DAY, MIN_WIDTH, Window};

/// How long to wait for the answer over all time. A server that can give it needs less.
pub(in crate::source) const PATIENCE: Duration = Duration::from_secs(5);
/// The same for Core, where the cost of the query grows much faster than the number of rows, the server continues to merge
/// for a while after nobody waits any more, and the plans that narrow windows down cost nothing.
const CORE_PATIENCE: Duration = Duration::from_millis(500);
/// The most queries for one count. A count that needs more is not worth its cost.
const COUNT_QUERIES: usize = 1000;

/// Questions to a server about a window of a table. Each may be too much for it.
#[async_trait]
pub(in crate::source) trait BoundsQueries: Sync {
    /// The first and the last time in a window.
    async fn min_max(&self, table: &TableId, window: Window) -> Result<Option<Window>>;

    /// The first and the last time of the rows that have a value of a column.
    async fn min_max_of(&self, table: &TableId, column: &Column) -> Result<Option<Window>>;

    /// Whether a window may have rows, by the cheapest question that the server answers.
    async fn may_have_rows(&self, table: &TableId, window: Window) -> Result<bool>;

    /// The number of rows in a window.
    async fn count_once(&self, table: &TableId, window: Window) -> Result<RowCount>;

    /// Whether it is Core or Enterprise.
    fn is_core(&self) -> bool;
}

/// How long to wait for an answer that may never come.
fn patience(server: &dyn BoundsQueries) -> Duration {
    if server.is_core() { CORE_PATIENCE } else { PATIENCE }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// How many tables are asked about at the same time.
const TABLES_AT_ONCE: usize = 4;

/// The bounds of the tables, in the order of `tables`.
pub(in crate::source) async fn bounds(
    server: &dyn BoundsQueries,
    tables: &[Table],
) -> Result<Vec<Option<Window>>> {
    let each = tables.iter().map(|table| bounds_of(server, &table.id)).collect::<Vec<_>>();
    futures::stream::iter(each).buffered(TABLES_AT_ONCE).try_collect().await
}

/// The bounds of a table; `None` for an empty one.
async fn bounds_of(server: &dyn BoundsQueries, table: &TableId) -> Result<Option<Window>> {
    let bounds = search(server, table).await;
    bounds.map_err(|error| error.context(format!("looking for the bounds of {table}")))
}

/// The number of rows in a window, however wide.
pub(in crate::source) async fn count(
    server: &dyn BoundsQueries,
    table: &TableId,
    window: Window,
) -> Result<RowCount> {
    let mut todo = vec![window];
    let mut total = RowCount { rows: 0, exact: true };
    for _ in 0..COUNT_QUERIES {
        let Some(window) = todo.pop() else { return Ok(total) };
        match server.count_once(table, window).await {
            Ok(count) => {
                total.rows += count.rows;
                total.exact &= count.exact;
            }
            Err(error) if is_too_much(&error) => match window.halves(MIN_WIDTH) {
                Some((left, right)) => todo.extend([right, left]),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(RowCount { rows: total.rows.max(1), exact: false })
}

/// The windows with values in columns that the table did not have when it was read, as far as the server answers in time.
/// Every read asks for all columns, so that only values that were written after it can be missing.
pub(in crate::source) async fn missed(
    server: &dyn BoundsQueries,
    read: &Table,
    now: &Table,
) -> Result<Vec<Window>> {
    let before = |column: &Column| read.columns.iter().find(|read| read.key == column.key);
    let mut missed = Vec::new();
    for column in &now.columns {
        match before(column) {
            // The table was dropped and created anew.
            Some(before) if before.source_type != column.source_type => {
                return Ok(vec![Window::ALL]);
            }
            Some(_) => {}
            None => {
                let found = server.min_max_of(&now.id, column);
                match tokio::time::timeout(patience(server), found).await {
                    Ok(Ok(found)) => missed.extend(found),
                    Ok(Err(error)) if !is_too_much(&error) => return Err(error),
                    Ok(Err(_)) | Err(_) => {
                        tracing::info!("{}: the column `{}` is new", now.id, column.key);
                    }
                }
            }
        }
    }
    Ok(missed)
}

async fn search(server: &dyn BoundsQueries, table: &TableId) -> Result<Option<Window>> {
    let patience = patience(server);
    match tokio::time::timeout(patience, server.min_max(table, Window::ALL)).await {
        Ok(Ok(bounds)) => return Ok(bounds),
        Ok(Err(error)) if !is_too_much(&error) => return Err(error),
        Ok(Err(error)) => tracing::info!("{table}: {error}; looking for its bounds"),
        Err(_) => {
            tracing::info!("{table}: the server does not answer in time; looking for its bounds")
        }
    }
    let Some(first) = end_of(server, table, Window::ALL, End::First).await? else {
        return Ok(None);
    };
    let rest = Window { from: first, to: Window::ALL.to };
    // The first row exists, so a server that finds nothing now must not shorten the table.
    let last = end_of(server, table, rest, End::Last).await?.ok_or_else(|| {
        Error::of(Class::Retry, format!("{table}: the server found its first row, but no last one"))
    })?;
    Ok(Window::new(first, last.saturating_add(1)))
}

/// The first or last time in a window.
async fn end_of(
    server: &dyn BoundsQueries,
    table: &TableId,
    within: Window,
    end: End,
) -> Result<Option<i64>> {
    let Some(mut part) = outermost_day(server, table, within, end).await? else {
        return Ok(None);
    };
    let mut left = within;
    loop {
        if let Some(time) = end_in(server, table, part, end).await? {
            return Ok(Some(time));
        }
        // The cheap question said that this day may have rows, but it has none. From here on it is not asked any more,
        // and the width that is searched doubles each time.
        let rest = match end {
            End::First => Window::new(part.to, left.to),
            End::Last => Window::new(left.from, part.from),
        };
        let Some(rest) = rest else { return Ok(None) };
        left = rest;
        let width = part.width().saturating_mul(2).max(DAY);
        part = match end {
            End::First => Window { to: left.to.min(left.from.saturating_add(width)), ..left },
            End::Last => Window { from: left.from.max(left.to.saturating_sub(width)), ..left },
        };
    }
}

/// The first or last day of a window that may have rows.
async fn outermost_day(
    server: &dyn BoundsQueries,
    table: &TableId,
    within: Window,
    end: End,
) -> Result<Option<Window>> {
    let mut window = within;
    if !may_have_rows(server, table, window).await? {
        return Ok(None);
    }
    while let Some((left, right)) = halves_by_day(window) {
        let (near, far) = match end {
            End::First => (left, right),
            End::Last => (right, left),
        };
        window = if may_have_rows(server, table, near).await? { near } else { far };
    }
    Ok(Some(window))
}

/// Like the server's method, but a window that is too much for the server counts as one that has rows.
async fn may_have_rows(
    server: &dyn BoundsQueries,
    table: &TableId,
    window: Window,
) -> Result<bool> {
    match server.may_have_rows(table, window).await {
        Err(error) if is_too_much(&error) => Ok(true),
        other => other,
    }
}

/// The first or last time in a narrow window, which is halved if it is too much for the server.
async fn end_in(
    server: &dyn BoundsQueries,
    table: &TableId,
    part: Window,
    end: End,
) -> Result<Option<i64>> {
    let mut todo = vec![part];
    while let Some(window) = todo.pop() {
        match server.min_max(table, window).await {
            Ok(None) => {}
            Ok(Some(found)) if end == End::First => return Ok(Some(found.from)),
            Ok(Some(found)) => return Ok(Some(found.to - 1)),
            Err(error) if is_too_much(&error) => match window.halves(MIN_WIDTH) {
                // The last window of the list is searched next.
                Some((left, right)) if end == End::First => todo.extend([right, left]),
                Some((left, right)) => todo.extend([left, right]),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a narrower window could help.
fn is_too_much(error: &Error) -> bool {
    matches!(error.class(), Class::Split | Class::RetryThenSplit)
}

fn halves_by_day(window: Window) -> Option<(Window, Window)> {
    let (first, last) = (window.from.div_euclid(DAY), (window.to - 1).div_euclid(DAY));
    if first == last {
        return None;
    }
    let middle = (first + (last - first).div_euclid(2) + 1).saturating_mul(DAY);
    Some((Window { from: window.from, to: middle }, Window { from: middle, to: window.to }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_by_days_ends_at_one() {
        let mut window = Window::ALL;
        let mut steps = 0;
        while let Some((left, right)) = halves_by_day(window) {
            assert_eq!((left.from, left.to, right.to), (window.from, right.from, window.to));
            assert!(left.from < left.to && right.from < right.to);
            window = if steps % 2 == 0 { left } else { right };
            steps += 1;
        }
        assert!(steps < 20 && window.width() <= DAY, "{steps} {window}");
    }
}
