//! Questions about a window besides its rows: its bounds and the number of its rows. Core and Enterprise answer SQL over
//! HTTP, with plans that cost nothing. The others answer only InfluxQL, which has no plans and counts values.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::{Class, Error, Result};
use crate::model::{Column, RowCount, TableId};
use crate::source::influxdb::bounds::{BoundsQueries, PATIENCE};
use crate::source::influxdb::http_query::{HttpQuery, statements};
use crate::source::influxdb::{core, sql};
use crate::window::{Slice, Window, parse_time};

impl HttpQuery {
    async fn sql(&self, table: &TableId, sql: &str) -> Result<Vec<Value>> {
        let (rows, bytes) = core::query_sql(&self.server, &table.database, sql).await?;
        self.budget.spend(bytes);
        Ok(rows)
    }

    /// The window from `first` to `last`, the columns of the only row of the answer.
    async fn sql_ends(&self, table: &TableId, sql: &str) -> Result<Option<Window>> {
        let rows = self.sql(table, sql).await?;
        let time = |key: &str| -> Result<Option<i64>> {
            let Some(text) = rows.first().and_then(|row| row[key].as_str()) else {
                return Ok(None);
            };
            // The time arrives without a zone.
            let time = parse_time(&format!("{}Z", text.trim_end_matches('Z')));
            time.map(Some).ok_or_else(|| self.not_understood("time"))
        };
        let ends = time("first")?.zip(time("last")?);
        Ok(ends.and_then(|(first, last)| Window::new(first, last.saturating_add(1))))
    }

    /// The time of the row at one end of a window.
    async fn end(&self, table: &TableId, window: Window, order: &str) -> Result<Option<i64>> {
        let statement = statements::end(&table.table, window, order);
        let answer = self.ask(&table.database, &statement).await?;
        Ok(answer.series.iter().flat_map(|series| series.column("time")).find_map(Value::as_i64))
    }

    fn not_understood(&self, what: &str) -> Error {
        let address = self.server.address();
        Error::of(Class::Retry, format!("{address}: the answer is not a {what}"))
    }
}

#[async_trait]
impl BoundsQueries for HttpQuery {
    async fn min_max(&self, table: &TableId, window: Window) -> Result<Option<Window>> {
        if self.is_core {
            return self.sql_ends(table, &sql::bounds(&table.table, window)).await;
        }
        let Some(first) = self.end(table, window, "ASC").await? else { return Ok(None) };
        let last = self.end(table, Window { from: first, ..window }, "DESC").await?;
        Ok(last.and_then(|last| Window::new(first, last.saturating_add(1))))
    }

    async fn min_max_of(&self, table: &TableId, column: &Column) -> Result<Option<Window>> {
        if self.is_core {
            return self.sql_ends(table, &sql::bounds_of(&table.table, &column.key)).await;
        }
        // The other products meter what they read, and the cost of this query is unknown.
        Ok(None)
    }

    async fn may_have_rows(&self, table: &TableId, window: Window) -> Result<bool> {
        if self.is_core {
            let rows = self.sql(table, &sql::explain(&table.table, window)).await?;
            let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let physical = rows.iter().filter(|row| text(row, "plan_type").starts_with("physical"));
            let plan: String = physical.map(|row| text(row, "plan")).collect();
            return Ok(!sql::is_empty_plan(&plan));
        }
        // A query that takes too long has something to read.
        let first = self.end(table, window, "ASC");
        match tokio::time::timeout(PATIENCE, first).await {
            Ok(first) => Ok(first?.is_some()),
            Err(_) => Ok(true),
        }
    }

    async fn count_once(&self, table: &TableId, window: Window) -> Result<RowCount> {
        if self.is_core {
            let rows = self.sql(table, &sql::count(&table.table, window)).await?;
            let rows = rows.first().and_then(|row| row["rows"].as_u64());
            let rows = rows.ok_or_else(|| self.not_understood("count"))?;
            return Ok(RowCount { rows, exact: true });
        }
        // A row has at least one value, and at most one value of each field.
        let counts = self.counts(table, Slice::from(window)).await?;
        let at_least = counts.values().copied().max().unwrap_or(0);
        Ok(RowCount { rows: at_least, exact: at_least == counts.values().sum::<u64>() })
    }

    fn is_core(&self) -> bool {
        self.is_core
    }
}
