//! InfluxDB 3 over Flight: lists tables by SQL and reads windows as Arrow batches.

pub(crate) mod batches;
pub(crate) mod client;
mod local_end;
mod status;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;

pub(super) use crate::source::influxdb::flight::client::Client;

use crate::column_stats::Recorded;
use crate::error::{Class, Error, Result};
use crate::model::{Chunk, Column, Proof, RowCount, Table, TableId};
use crate::source::channel::BatchSender;
use crate::source::influxdb::bounds::BoundsQueries;
use crate::source::influxdb::budget::{Admitted, Budget};
use crate::source::influxdb::flight::batches::Shape;
use crate::source::influxdb::influxdb3::{Received, Transport};
use crate::source::influxdb::points::{FieldType, Keys};
use crate::source::influxdb::sql;
use crate::source::statistics::Statistics;
use crate::window::{Slice, Window};

/// The Flight transport.
pub(super) struct Flight {
    client: Client,
    budget: Arc<Budget>,
    is_core: bool,
}

impl Flight {
    pub(super) fn new(client: Client, budget: Arc<Budget>, is_core: bool) -> Self {
        Self { client, budget, is_core }
    }

    /// All batches of a query with a small answer, whose bytes are counted in the budget.
    async fn all(&self, database: &str, sql: &str) -> Result<Vec<RecordBatch>> {
        let (batches, bytes) = self.client.all(database, sql).await?;
        self.budget.spend(bytes);
        Ok(batches)
    }

    /// The window from the first to the last time, which are the two columns of the answer.
    async fn ends(&self, database: &str, sql: &str) -> Result<Option<Window>> {
        let batches = self.all(database, sql).await?;
        let first = batches.iter().find_map(|batch| time(batch, 0));
        let last = batches.iter().find_map(|batch| time(batch, 1));
        Ok(first.zip(last).and_then(|(first, last)| Window::new(first, last.saturating_add(1))))
    }
}

#[async_trait]
impl BoundsQueries for Flight {
    async fn min_max(&self, table: &TableId, window: Window) -> Result<Option<Window>> {
        self.ends(&table.database, &sql::bounds(&table.table, window)).await
    }

    async fn min_max_of(&self, table: &TableId, column: &Column) -> Result<Option<Window>> {
        self.ends(&table.database, &sql::bounds_of(&table.table, &column.key)).await
    }

    /// Decides by the plan of the query, which reads nothing.
    async fn may_have_rows(&self, table: &TableId, window: Window) -> Result<bool> {
        let batches = self.all(&table.database, &sql::explain(&table.table, window)).await?;
        Ok(!sql::is_empty_plan(&physical_plan(&batches)))
    }

    async fn count_once(&self, table: &TableId, window: Window) -> Result<RowCount> {
        let batches = self.all(&table.database, &sql::count(&table.table, window)).await?;
        let count = batches.first().and_then(|batch| batch.columns().first().cloned());
        let count = count.and_then(|array| Some(array.as_primitive_opt::<Int64Type>()?.value(0)));
        let rows = count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| {
            Error::of(
                Class::Retry,
                format!("{}: the answer to a count is not a number", self.client.address()),
            )
        })?;
        Ok(RowCount { rows, exact: true })
    }

    fn is_core(&self) -> bool {
        self.is_core
    }
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

fn texts(batch: &RecordBatch) -> Result<Vec<[String; 3]>> {
    let strings = || Error::stop("the server lists its columns in an unknown format");
    let columns = batch.columns().iter().take(3).map(|column| {
        arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).map_err(|_| strings())
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let [table, column, data_type] = columns.as_slice() else { return Err(strings()) };
    let text = |array: &arrow::array::ArrayRef, row: usize| -> Result<String> {
        let array = array.as_string_opt::<i32>().ok_or_else(strings)?;
        Ok(if array.is_valid(row) { array.value(row).to_owned() } else { String::new() })
    };
    (0..batch.num_rows())
        .map(|row| Ok([text(table, row)?, text(column, row)?, text(data_type, row)?]))
        .collect()
}

#[async_trait]
impl Transport for Flight {
    fn name(&self) -> &'static str {
        "Flight"
    }

    async fn keys(&self, database: &str) -> Result<Keys> {
        let mut keys = Keys::default();
        for batch in &self.all(database, sql::COLUMNS).await? {
            for [table, column, data_type] in texts(batch)? {
                let kind = match data_type.as_str() {
                    "Float64" => Some(FieldType::Float),
                    "Int64" => Some(FieldType::Integer),
                    "UInt64" => Some(FieldType::Unsigned),
                    "Boolean" => Some(FieldType::Boolean),
                    "Utf8" => Some(FieldType::String),
                    tag if tag.starts_with("Dictionary") => {
                        keys.tag(&table, column);
                        continue;
                    }
                    time if time.starts_with("Timestamp") && column == "time" => {
                        keys.table(&table);
                        continue;
                    }
                    _ => None,
                };
                keys.field(&table, column, kind, &data_type);
            }
        }
        Ok(keys)
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let statistics = Statistics::new(&sql::Statistics, table, recorded);
        let Some(window) = slice.window().filter(|window| sql::is_exact(*window)) else {
            return Ok(None); // no condition means exactly that slice
        };
        let asked = statistics.statement(|select| sql::statistics(&table.id.table, window, select));
        let Some(asked) = asked else { return Ok(None) };
        let batches = self.all(&table.id.database, &asked).await?;
        let row = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| {
            let columns = batch.columns().iter();
            let cells = columns.map(|cell| {
                cell.is_valid(0).then(|| array_value_to_string(cell, 0).ok()).flatten()
            });
            cells.collect::<Vec<_>>()
        });
        let proof = row.and_then(|row| statistics.compare(&row));
        proof.map(Some).ok_or_else(|| {
            let what =
                format!("{}: the server answered without the statistics", self.client.address());
            Error::of(Class::Retry, what)
        })
    }

    async fn read(
        &self,
        chunk: &Chunk,
        batches: BatchSender,
        admitted: &mut Admitted<'_>,
    ) -> Result<Received> {
        let id = &chunk.table.id;
        let sql = sql::read(&id.table, chunk.slice);
        let mut answer = self.client.query(&id.database, &sql).await?;
        let (mut shape, mut rows, mut bytes) = (None, 0, 0);
        let inexact = chunk.slice.window().filter(|window| !sql::is_exact(*window));
        while let Some(batch) = answer.next().await? {
            admitted.spend(answer.bytes() - bytes);
            bytes = answer.bytes();
            if batch.num_rows() == 0 {
                continue; // the server sends such a sign of life every five seconds
            }
            rows += batch.num_rows() as u64;
            let shape = match &shape {
                Some(shape) => shape,
                None => shape.insert(Shape::new(&chunk.table, &batch.schema())?),
            };
            let batch = shape.arrange(&batch)?;
            let batch = match inexact {
                None => batch,
                Some(window) => batches::within(&batch, window)?,
            };
            batches.send(batch).await?;
        }
        Ok(Received { rows, bytes, queued: answer.queued() })
    }
}
