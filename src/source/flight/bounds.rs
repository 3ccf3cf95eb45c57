//! The first and the last row of a table. One query where the server can answer it; where a query over
//! all time is too much for it (limits of files, minutes of merging), by looking at plans, which cost no
//! reading, until a narrow window is left.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};

use super::sql;
use super::{Flight, Product};
use crate::error::{Class, Error, Result};
use crate::plan::MIN_WIDTH;
use crate::source::TableId;
use crate::window::{DAY, Window};

/// What a server that can answer at all needs for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same of Core, whose cost grows much faster than the rows, and which goes on merging for a while
/// when nobody waits any more; plans cost nothing there.
const CORE_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

impl Flight {
    /// The bounds of a table; `None` for an empty one.
    pub(super) async fn bounds_of(&self, id: &TableId) -> Result<Option<Window>> {
        let bounds = self.search(&id.database, &id.table).await;
        bounds.map_err(|error| error.context(format!("looking for the bounds of {id}")))
    }

    async fn search(&self, database: &str, table: &str) -> Result<Option<Window>> {
        let patience = match self.product {
            Product::Core => CORE_PATIENCE,
            _ => PATIENCE,
        };
        match tokio::time::timeout(patience, self.min_max(database, table, Window::ALL)).await {
            Ok(Ok(bounds)) => return Ok(bounds),
            Ok(Err(error)) if !is_too_much(&error) => return Err(error),
            Ok(Err(error)) => tracing::info!("{database}.{table}: {error}; looking for its bounds"),
            Err(_) => tracing::info!("{database}.{table}: looking for its bounds in plans"),
        }
        let Some(first) = self.end_of(database, table, Window::ALL, End::First).await? else {
            return Ok(None);
        };
        let rest = Window { from: first, to: Window::ALL.to };
        // There is at least the first: a server that finds nothing now must not shorten the table.
        let last = self.end_of(database, table, rest, End::Last).await?.ok_or_else(|| {
            Error::of(
                Class::Retry,
                format!("{database}.{table}: its first row is there, its last is not"),
            )
        })?;
        Ok(Window::new(first, last.saturating_add(1)))
    }

    /// The first or last time in a window.
    async fn end_of(
        &self,
        database: &str,
        table: &str,
        within: Window,
        end: End,
    ) -> Result<Option<i64>> {
        let Some(mut part) = self.outermost_day(database, table, within, end).await? else {
            return Ok(None);
        };
        let mut left = within;
        loop {
            if let Some(time) = self.end_in(database, table, part, end).await? {
                return Ok(Some(time));
            }
            // A plan that reads the day without a row in it: from here plans are not believed, and what
            // is looked through doubles.
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

    /// The first or last day of a window in which there may be rows.
    async fn outermost_day(
        &self,
        database: &str,
        table: &str,
        within: Window,
        end: End,
    ) -> Result<Option<Window>> {
        let mut window = within;
        if !self.may_have_rows(database, table, window).await? {
            return Ok(None);
        }
        while let Some((left, right)) = halves_by_day(window) {
            let (near, far) = match end {
                End::First => (left, right),
                End::Last => (right, left),
            };
            window = match self.may_have_rows(database, table, near).await? {
                true => near,
                false => far,
            };
        }
        Ok(Some(window))
    }

    /// A plan that is too large to be made is one that reads something.
    async fn may_have_rows(&self, database: &str, table: &str, window: Window) -> Result<bool> {
        let plan = match self.plan(database, table, window).await {
            Ok(plan) => plan,
            Err(error) if is_too_much(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        Ok(!sql::is_empty_plan(&plan))
    }

    async fn plan(&self, database: &str, table: &str, window: Window) -> Result<String> {
        let (batches, bytes) = self.client.all(database, &sql::explain(table, window)).await?;
        self.budget.spend(bytes);
        Ok(physical_plan(&batches))
    }

    /// The first or last time of a narrow window, which may be too much, too.
    async fn end_in(
        &self,
        database: &str,
        table: &str,
        part: Window,
        end: End,
    ) -> Result<Option<i64>> {
        let mut todo = vec![part];
        while let Some(window) = todo.pop() {
            match self.min_max(database, table, window).await {
                Ok(None) => {}
                Ok(Some(found)) if end == End::First => return Ok(Some(found.from)),
                Ok(Some(found)) => return Ok(Some(found.to - 1)),
                Err(error) if is_too_much(&error) => match window.halves(MIN_WIDTH) {
                    // The last of the list is next.
                    Some((left, right)) if end == End::First => todo.extend([right, left]),
                    Some((left, right)) => todo.extend([left, right]),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn min_max(&self, database: &str, table: &str, window: Window) -> Result<Option<Window>> {
        let (batches, _) = self.client.all(database, &sql::bounds(table, window)).await?;
        let first = batches.iter().find_map(|batch| time(batch, 0));
        let last = batches.iter().find_map(|batch| time(batch, 1));
        Ok(first.zip(last).and_then(|(first, last)| Window::new(first, last.saturating_add(1))))
    }
}

/// Whether a narrower window could help.
pub(super) fn is_too_much(error: &Error) -> bool {
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

fn time(batch: &RecordBatch, column: usize) -> Option<i64> {
    let array = batch.columns().get(column)?;
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            (!times.is_empty() && times.is_valid(0)).then(|| times.value(0))
        }
        _ => None,
    }
}

fn physical_plan(batches: &[RecordBatch]) -> String {
    let mut physical = String::new();
    for batch in batches {
        let texts = |at: usize| batch.columns().get(at)?.as_string_opt::<i32>();
        let (Some(kinds), Some(plans)) = (texts(0), texts(1)) else { continue };
        for (kind, plan) in kinds.iter().zip(plans) {
            if kind.is_some_and(|kind| kind.starts_with("physical")) {
                physical.push_str(plan.unwrap_or_default());
            }
        }
    }
    physical
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
