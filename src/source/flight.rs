//! InfluxDB 3 over Flight: Cloud Serverless, Dedicated and Clustered, Core and Enterprise. Lists tables by
//! SQL and reads windows as Arrow batches, under the quota of its plan.

mod batches;
mod bounds;
mod budget;
mod client;
mod sql;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};

pub use self::budget::Quota;

use self::batches::Shape;
use self::bounds::is_too_much;
use self::budget::Budget;
use self::client::Client;
use super::influxdb::cloud::Cloud;
use super::influxdb::core;
use super::influxdb::http::Server;
use super::points::{FieldType, columns};
use super::{
    Artifact, ArtifactStatus, BatchSender, Bill, Chunk, Cuts, Excluded, Listing, Reading, RowCount,
    Source, SourceInfo, Table, TableId,
};
use crate::config::{Credentials, Limits, Prices, Select};
use crate::error::{Class, Error, Result};
use crate::plan::MIN_WIDTH;
use crate::window::Window;

/// Tables that are asked about at once.
const TABLES_AT_ONCE: usize = 4;
/// Queries for one count at most: what takes more is not worth its cost.
const COUNT_QUERIES: usize = 1000;

/// Which of the family it is: they list their databases in different ways.
#[derive(Debug)]
pub enum Product {
    /// InfluxDB Cloud Serverless: buckets, a quota, artifacts.
    Serverless(Cloud),
    /// Core and Enterprise, which list their databases over HTTP.
    Core,
    /// Cloud Dedicated and Clustered, which tell a database token nothing of databases.
    Dedicated,
}

/// An InfluxDB 3.
pub struct Flight {
    name: String,
    version: String,
    product: Product,
    server: Server,
    client: Client,
    select: Select,
    budget: Budget,
    prices: Prices,
    warnings: Vec<String>,
}

/// How to reach one, and what is known of it already.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) product: Product,
    pub(super) server: Server,
    pub(super) credentials: Credentials,
    pub(super) select: Select,
    pub(super) quota: Option<Quota>,
    pub(super) prices: Prices,
    pub(super) warnings: Vec<String>,
}

impl Flight {
    pub(super) fn new(found: Found, limits: &Limits) -> Result<Self> {
        let Found { name, version, product, server, credentials, select, quota, prices, warnings } =
            found;
        let client =
            Client::new(server.base(), &credentials, limits.concurrency, limits.idle_timeout)?;
        let budget = Budget::new(quota);
        Ok(Self { name, version, product, server, client, select, budget, prices, warnings })
    }

    async fn databases(&self, excluded: &mut Vec<Excluded>) -> Result<Vec<String>> {
        let there = match &self.product {
            Product::Serverless(cloud) => cloud.buckets().await,
            Product::Core => core::databases(&self.server).await,
            Product::Dedicated if self.select.databases.is_empty() => {
                return Err(Error::stop(format!(
                    "{} does not list its databases to a database token",
                    self.client.address()
                ))
                .hint("name them: put the database into the URL, or `databases` into the configuration"));
            }
            Product::Dedicated => return Ok(self.select.databases.clone()),
        };
        let there = match there {
            Ok(there) => there,
            // A token without the right to list may still read what was named.
            Err(error) if error.class() == Class::Stop && !self.select.databases.is_empty() => {
                return Ok(self.select.databases.clone());
            }
            Err(error) => return Err(error.context("listing the databases")),
        };
        let named = |name: &String| self.select.databases.contains(name);
        if let Some(lost) =
            self.select.databases.iter().find(|name| !there.iter().any(|(n, _)| n == *name))
        {
            let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::stop(format!(
                "{}: there is no database `{lost}`, or this token may not see it",
                self.client.address()
            ))
            .hint(match names.is_empty() {
                true => "the server shows no database at all".to_owned(),
                false => format!("it has {}", names.join(", ")),
            }));
        }
        let mut chosen = Vec::new();
        for (database, system) in there {
            if named(&database) || self.select.databases.is_empty() && !system {
                chosen.push(database);
                continue;
            }
            let why = match system {
                true => "the server's own records; name the database to export it",
                false => "not asked for",
            };
            let what = format!("database {database}");
            excluded.push(Excluded { source: self.name.clone(), what, why: why.to_owned() });
        }
        Ok(chosen)
    }

    async fn tables(&self, database: &str) -> Result<Vec<Table>> {
        let (batches, bytes) = self.client.all(database, sql::COLUMNS).await?;
        self.budget.spend(bytes);
        let mut tags = BTreeMap::<String, BTreeSet<String>>::new();
        let mut fields = BTreeMap::<String, BTreeMap<String, BTreeSet<FieldType>>>::new();
        for batch in &batches {
            for [table, column, data_type] in texts(batch)? {
                let fields = fields.entry(table.clone()).or_default();
                let kind = match data_type.as_str() {
                    "Float64" => FieldType::Float,
                    "Int64" => FieldType::Integer,
                    "UInt64" => FieldType::Unsigned,
                    "Boolean" => FieldType::Boolean,
                    "Utf8" => FieldType::String,
                    tag if tag.starts_with("Dictionary") => {
                        tags.entry(table).or_default().insert(column);
                        continue;
                    }
                    time if time.starts_with("Timestamp") && column == "time" => continue,
                    other => {
                        return Err(Error::stop(format!(
                            "{database}.{table}: `{column}` is of the unknown type {other}"
                        )));
                    }
                };
                fields.entry(column).or_default().insert(kind);
            }
        }
        let none = BTreeSet::new();
        let tables = fields.into_iter().filter(|(table, _)| self.select.takes_table(table));
        Ok(tables
            .map(|(table, fields)| Table {
                columns: columns(tags.get(&table).unwrap_or(&none), &fields),
                id: TableId {
                    source: self.name.clone(),
                    database: database.to_owned(),
                    schema: String::new(),
                    table,
                },
                occupied: vec![Window::ALL],
                cuts: Cuts::None,
                time_column: None,
                reading: Reading::Windows,
                state: None,
            })
            .collect())
    }

    async fn count_once(&self, table: &TableId, window: Window) -> Result<u64> {
        let sql = sql::count(&table.table, window);
        let (batches, bytes) = self.client.all(&table.database, &sql).await?;
        self.budget.spend(bytes);
        let count = batches.first().and_then(|batch| batch.columns().first().cloned());
        let count = count.and_then(|array| Some(array.as_primitive_opt::<Int64Type>()?.value(0)));
        count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| {
            Error::of(
                Class::Retry,
                format!("{}: an answer that is no count", self.client.address()),
            )
        })
    }
}

fn texts(batch: &RecordBatch) -> Result<Vec<[String; 3]>> {
    let strings =
        || Error::stop("the server lists its columns in another form than any that is known");
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
impl Source for Flight {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        Ok(SourceInfo {
            name: self.name.clone(),
            address: self.client.address().to_owned(),
            version: self.version.clone(),
        })
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        self.server.clock_ahead().await
    }

    async fn list(&self) -> Result<Listing> {
        let mut listing = Listing { warnings: self.warnings.clone(), ..Listing::default() };
        for database in self.databases(&mut listing.excluded).await? {
            let tables = self.tables(&database).await;
            let listing_of =
                |error: Error| error.context(format!("listing the tables of {database}"));
            listing.tables.extend(tables.map_err(listing_of)?);
        }
        Ok(listing)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let mut asked = Vec::new();
        for table in tables {
            asked.push(self.bounds_of(&table.id));
        }
        futures::stream::iter(asked).buffered(TABLES_AT_ONCE).try_collect().await
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let mut todo = vec![window];
        let mut rows = 0;
        for _ in 0..COUNT_QUERIES {
            let Some(window) = todo.pop() else { return Ok(RowCount { rows, exact: true }) };
            match self.count_once(&table.id, window).await {
                Ok(count) => rows += count,
                Err(error) if is_too_much(&error) => match window.halves(MIN_WIDTH) {
                    Some((left, right)) => todo.extend([right, left]),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(RowCount { rows: rows.max(1), exact: false })
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<Option<String>> {
        let id = &chunk.table.id;
        let key = format!("{}/{}", id.database, id.table);
        let mut admitted = self.budget.admit(self.budget.usual_chunk()).map_err(|wait| {
            let quota = self.budget.quota().map_or_else(String::new, |quota| quota.to_string());
            Error::of(Class::Wait(Some(wait)), format!("the quota of {quota} is used up"))
        })?;
        let sql = sql::read(&id.table, chunk.slice);
        let mut answer = self.client.query(&id.database, &sql).await?;
        let (mut shape, mut rows, mut came) = (None, 0, 0);
        while let Some(batch) = answer.next().await? {
            admitted.spend(answer.came() - came);
            came = answer.came();
            if batch.num_rows() == 0 {
                continue; // a sign of life, every five seconds
            }
            rows += batch.num_rows() as u64;
            let shape = match &shape {
                Some(shape) => shape,
                None => shape.insert(Shape::new(&chunk.table, &batch.schema())?),
            };
            batches.send(shape.arrange(&batch)?).await?;
        }
        self.budget.learn(&key, rows, came);
        Ok(None)
    }

    fn chunk_rows(&self, table: &TableId) -> Option<u64> {
        self.budget.chunk_rows(&format!("{}/{}", table.database, table.table))
    }

    fn bill(&self) -> Option<Bill> {
        let quota = self.budget.quota();
        let billed = matches!(self.product, Product::Serverless(_)) || quota.is_some();
        billed.then_some(Bill { quota, prices: self.prices })
    }

    async fn artifacts(&self) -> Result<(Vec<Artifact>, Vec<ArtifactStatus>)> {
        match &self.product {
            Product::Serverless(cloud) => cloud.artifacts(&self.name).await,
            Product::Core => core::artifacts(&self.server, &self.name).await,
            Product::Dedicated => Ok((Vec::new(), Vec::new())),
        }
    }
}
