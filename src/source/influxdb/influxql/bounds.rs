//! Finds the first and the last row of tables, the number of rows in a window, and the windows that a read has missed.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::coverage::Coverage;
use crate::error::{Class, Result};
use crate::model::{Chunk, Column, Role, RowCount, SplitPoints, Table};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::influxdb::influxql::{InfluxQl, statements};
use crate::window::{Slice, Window};

/// How many tables' bounds one request asks for.
const TABLES_A_REQUEST: usize = 50;
/// How many of these requests are sent at once.
const REQUESTS_AT_ONCE: usize = 2;
/// Up to this many values, rows are read if that is the only way to count them exactly.
const READ_TO_COUNT: u64 = 200_000;

impl InfluxQl {
    /// The bounds of the tables, in the order of `tables`.
    pub(super) async fn bounds_of_tables(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let parts = tables.chunks(TABLES_A_REQUEST).map(|tables| self.bounds_of_part(tables));
        let parts = parts.collect::<Vec<_>>();
        let bounds = stream::iter(parts).buffered(REQUESTS_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(bounds.concat())
    }

    async fn bounds_of_part(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        match self.bounds_of(tables).await {
            Ok(found) => return Ok(found),
            Err(error) if error.class() == Class::Stop => return Err(error),
            // The request may have been too much, so the tables are asked for one by one. For a table that is too large
            // even then, its shards are good enough.
            Err(_) => {}
        }
        let mut bounds = Vec::with_capacity(tables.len());
        for table in tables {
            let found = self.bounds_of(std::slice::from_ref(table)).await;
            let shards = Window::new(
                table.data_ranges.first().map_or(0, |w| w.from),
                table.data_ranges.last().map_or(0, |w| w.to),
            );
            match (found, shards) {
                (Ok(found), _) => bounds.extend(found),
                (Err(error), Some(shards))
                    if error.class() != Class::Stop && shards != Window::ALL =>
                {
                    bounds.push(Some(shards));
                }
                (Err(error), _) => {
                    return Err(error.context(format!("asking {} for its bounds", table.id)));
                }
            }
        }
        Ok(bounds)
    }

    /// The number of rows in a window.
    pub(super) async fn count_rows(&self, table: &Table, window: Window) -> Result<RowCount> {
        let mut total = RowCount { rows: 0, exact: true };
        let mut from = window.from;
        while let Some(rest) = Window::new(from, window.to) {
            from = table.split_points.next(from).unwrap_or(window.to).min(window.to);
            let count = self.count_between_cuts(table, Window { to: from, ..rest }).await?;
            total.rows += count.rows;
            total.exact &= count.exact;
        }
        Ok(total)
    }

    /// The windows with values that an earlier read may have missed. If a field has got another type, its values may have
    /// been shown as another type, or not at all. Other new columns are searched for, since a read that names its fields
    /// has not asked for them.
    pub(super) async fn missed_windows(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        let is_known = |column: &&Column| {
            let same = |known: &Column| {
                (known.role, &known.key, &known.source_type)
                    == (column.role, &column.key, &column.source_type)
            };
            read.columns.iter().any(same)
        };
        let new: Vec<&Column> = now.columns.iter().filter(|column| !is_known(column)).collect();
        let has = |column: &&Column| {
            read.columns.iter().any(|known| known.role == Role::Field && known.key == column.key)
        };
        if new.iter().any(|column| column.role == Role::Field && has(column)) {
            return Ok(vec![Window::ALL]);
        }
        let mut missed = Vec::new();
        if !matches!(now.split_points, SplitPoints::None)
            && (&read.split_points, &read.data_ranges) != (&now.split_points, &now.data_ranges)
        {
            if self.is_unsure(&now.id) {
                return Ok(vec![Window::ALL]);
            }
            // Where there was no shard, a window may have extended into the next one.
            let before: Coverage = read.data_ranges.iter().copied().collect();
            missed.extend(now.data_ranges.iter().flat_map(|window| before.missing(*window)));
        }
        for columns in new.chunks(TABLES_A_REQUEST) {
            let pairs = columns.iter().map(|column| statements::bounds_of(now, column)).collect();
            match self.ends(pairs).await {
                Ok(found) => missed.extend(found.into_iter().flatten()),
                Err(error) if error.class() == Class::Stop => return Err(error),
                Err(error) => {
                    tracing::info!("{}: {error}; the whole table is read again", now.id);
                    return Ok(vec![Window::ALL]);
                }
            }
        }
        Ok(missed)
    }

    async fn count_between_cuts(&self, table: &Table, window: Window) -> Result<RowCount> {
        let answer = self.server.query(&statements::count(table, window)).await?;
        let (mut at_least, mut at_most) = (0, 0);
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let counts = |row: &Vec<Value>| -> Vec<u64> {
                row.iter().skip(1).filter_map(Value::as_u64).collect()
            };
            for counts in series.values.iter().map(counts) {
                at_least += counts.iter().copied().max().unwrap_or(0);
                at_most += counts.iter().sum::<u64>();
            }
        }
        // The fields of a point share a row, so counts of values do not give the number of rows. Few rows can be read.
        if at_least == at_most || at_most > READ_TO_COUNT {
            return Ok(RowCount { rows: at_least, exact: at_least == at_most });
        }
        let (sender, mut batches) = BatchSender::channel(1);
        let chunk = Chunk { table: Arc::new(table.clone()), slice: Slice::from(window) };
        let counted = async {
            let mut rows = 0;
            while let Some(batch) = batches.recv().await {
                rows += batch.num_rows() as u64;
            }
            rows
        };
        let (read, rows) = tokio::join!(self.read(&chunk, sender), counted);
        Ok(match read {
            Ok(_) => RowCount { rows, exact: true },
            Err(_) => RowCount { rows: at_least, exact: false },
        })
    }

    async fn bounds_of(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        self.ends(tables.iter().map(statements::bounds).collect()).await
    }

    /// The windows from the first to the last row, for pairs of statements that select these.
    async fn ends(&self, pairs: Vec<String>) -> Result<Vec<Option<Window>>> {
        let answer = self.server.query_all(&pairs.join(";"), 2 * pairs.len()).await?;
        let time = |at: usize| {
            let series = answer.get(at).map(|s| s.series.as_slice()).unwrap_or_default();
            series.iter().flat_map(|s| s.column("time")).find_map(Value::as_i64)
        };
        let bounds = (0..pairs.len()).map(|at| {
            let (first, last) = (time(2 * at)?, time(2 * at + 1)?);
            Window::new(first, last.saturating_add(1))
        });
        Ok(bounds.collect())
    }
}
