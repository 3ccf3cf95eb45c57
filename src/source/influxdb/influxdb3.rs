//! An InfluxDB 3 of any product and over any transport: its databases and tables, its quota and its artifacts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::column_stats::Recorded;
use crate::config::Select;
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, Listing, Metering, Prices, Proof, ReadSummary, RowCount, SourceInfo, Table,
    TableId,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::influxdb::bounds::BoundsQueries;
use crate::source::influxdb::budget::{Admitted, Budget};
use crate::source::influxdb::cloud::Cloud;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::points::Keys;
use crate::source::influxdb::{bounds, core, databases};
use crate::window::{Slice, Window};

/// The products, which list their databases in different ways.
#[derive(Debug)]
pub(in crate::source) enum Product {
    /// InfluxDB Cloud Serverless: buckets, a quota, artifacts.
    Serverless(Box<Cloud>),
    /// Core and Enterprise, which list their databases over HTTP.
    Core,
    /// Cloud Dedicated and Clustered, which do not list their databases to a database token.
    Dedicated,
}

/// How the tables and rows of an InfluxDB 3 are read: by Flight or by `/query`.
#[async_trait]
pub(in crate::source) trait Transport: BoundsQueries + Send {
    /// Its name in the description of the source.
    fn name(&self) -> &'static str;

    /// Fails if it cannot reach one of these databases.
    fn check(&self, _databases: &[String]) -> Result<()> {
        Ok(())
    }

    /// The tags and fields of all tables of a database.
    async fn keys(&self, database: &str) -> Result<Keys>;

    /// Compares the statistics that an archive records for a slice with those that the server computes.
    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>>;

    /// Reads a chunk. Its bytes are counted in the budget as they arrive.
    async fn read(
        &self,
        chunk: &Chunk,
        batches: BatchSender,
        admitted: &mut Admitted<'_>,
    ) -> Result<Received>;
}

/// What arrived of a chunk.
#[derive(Debug)]
pub(in crate::source) struct Received {
    pub(in crate::source) rows: u64,
    pub(in crate::source) bytes: u64,
    /// How long the query waited in the server's queue.
    pub(in crate::source) queued: Duration,
}

/// One InfluxDB 3.
pub(in crate::source) struct InfluxDb3 {
    pub(in crate::source) name: String,
    pub(in crate::source) version: String,
    pub(in crate::source) product: Product,
    pub(in crate::source) server: Server,
    pub(in crate::source) select: Select,
    pub(in crate::source) budget: Arc<Budget>,
    pub(in crate::source) prices: Prices,
    pub(in crate::source) warnings: Vec<String>,
    pub(in crate::source) transport: Box<dyn Transport>,
}

impl InfluxDb3 {
    /// The databases to export, and a listing that contains only what is excluded.
    async fn databases(&self) -> Result<(Vec<String>, Listing)> {
        let mut listing = Listing { warnings: self.warnings.clone(), ..Listing::default() };
        let address = self.server.address();
        let listed = match &self.product {
            Product::Serverless(cloud) => cloud.buckets().await,
            Product::Core => core::databases(&self.server).await,
            Product::Dedicated if self.select.databases.is_empty() => {
                return Err(Error::stop(format!(
                    "{address} does not list its databases to a database token"
                ))
                .hint("name them: in the URL, or by `databases` in the configuration"));
            }
            Product::Dedicated => return Ok((self.select.databases.clone(), listing)),
        };
        let place = (self.name.as_str(), address.as_str());
        let chosen = databases::choose(place, &self.select, listed, &mut listing.excluded)?;
        Ok((chosen, listing))
    }

    /// Adds the selected tables of a database.
    fn add_tables(&self, database: &str, keys: Keys, listing: &mut Listing) {
        for (table, columns) in keys.into_tables() {
            if !self.select.takes_table(&table) {
                continue;
            }
            let (source, database) = (self.name.clone(), database.to_owned());
            let id = TableId { source, database, schema: String::new(), table };
            match columns {
                Ok(columns) => {
                    let data_ranges = vec![Window::ALL];
                    listing.tables.push(Table { data_ranges, ..Table::new(id, columns) });
                }
                Err(why) => listing.unreadable.push((id, why)),
            }
        }
    }

    /// Admits a chunk, or returns how long the quota makes it wait.
    fn admit(&self) -> Result<Admitted<'_>> {
        self.budget.admit(self.budget.usual_chunk()).map_err(|wait| {
            let quota = self.budget.quota().map_or_else(String::new, |quota| quota.to_string());
            Error::of(Class::Wait(Some(wait)), format!("the quota of {quota} is used up"))
        })
    }
}

#[async_trait]
impl Source for InfluxDb3 {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        Ok(SourceInfo {
            name: self.name.clone(),
            address: self.server.address(),
            version: format!("{} over {}", self.version, self.transport.name()),
            identity: None,
        })
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        self.server.clock_ahead().await
    }

    async fn list(&self) -> Result<Listing> {
        let (databases, mut listing) = self.databases().await?;
        self.transport.check(&databases)?;
        for database in databases {
            let keys = self.transport.keys(&database).await;
            let doing = |error: Error| error.context(format!("listing the tables of {database}"));
            self.add_tables(&database, keys.map_err(doing)?, &mut listing);
        }
        Ok(listing)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        bounds::bounds(&*self.transport, tables).await
    }

    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        bounds::missed(&*self.transport, read, now).await
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        bounds::count(&*self.transport, &table.id, window).await
    }

    fn can_abandon(&self) -> bool {
        true
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let mut admitted = self.admit()?;
        let received = self.transport.read(chunk, batches, &mut admitted).await?;
        self.budget.learn(&budget_key(&chunk.table.id), received.rows, received.bytes);
        Ok(ReadSummary { queued: received.queued, ..ReadSummary::default() })
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let _admitted = self.admit()?;
        self.transport.prove(table, slice, recorded).await
    }

    fn chunk_rows(&self, table: &TableId) -> Option<u64> {
        self.budget.chunk_rows(&budget_key(table))
    }

    fn metering(&self) -> Option<Metering> {
        let quota = self.budget.quota();
        let is_billed = matches!(self.product, Product::Serverless(_)) || quota.is_some();
        is_billed.then_some(Metering { quota, prices: self.prices })
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        match &self.product {
            Product::Serverless(cloud) => cloud.artifacts(&self.name).await,
            Product::Core => core::artifacts(&self.server, &self.name).await,
            Product::Dedicated => Ok(Artifacts::of(&self.name)),
        }
    }
}

fn budget_key(table: &TableId) -> String {
    format!("{}/{}", table.database, table.table)
}
