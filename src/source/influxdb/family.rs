//! What the family of InfluxDB 3 has in common, whichever way its rows come: which product it is, its
//! databases, its quota and its artifacts. Asks over HTTP, by `cloud` and `core`.

use crate::config::Select;
use crate::error::{Class, Error, Result};
use crate::model::Prices;
use crate::model::{
    Artifacts, Excluded, Identity, Listing, Metering, Quota, ReadMode, SourceInfo, SplitPoints,
    Table, TableId,
};
use crate::source::influxdb::budget::{Admitted, Budget};
use crate::source::influxdb::cloud::Cloud;
use crate::source::influxdb::core;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::points::Keys;
use crate::window::Window;

/// Which of the family it is: they list their databases in different ways.
#[derive(Debug)]
pub(in crate::source) enum Product {
    /// InfluxDB Cloud Serverless: buckets, a quota, artifacts.
    Serverless(Cloud),
    /// Core and Enterprise, which list their databases over HTTP.
    Core,
    /// Cloud Dedicated and Clustered, which tell a database token nothing of databases.
    Dedicated,
}

/// One InfluxDB 3.
#[derive(Debug)]
pub(in crate::source) struct Family {
    pub(in crate::source) name: String,
    pub(in crate::source) version: String,
    pub(in crate::source) product: Product,
    pub(in crate::source) server: Server,
    pub(in crate::source) select: Select,
    pub(in crate::source) budget: Budget,
    pub(in crate::source) prices: Prices,
    pub(in crate::source) warnings: Vec<String>,
}

impl Family {
    /// `way` is how its rows come.
    pub(in crate::source) fn info(&self, way: &str) -> SourceInfo {
        SourceInfo {
            name: self.name.clone(),
            address: self.server.address(),
            version: format!("{} over {way}", self.version),
            identity: None,
        }
    }

    /// The databases to be exported; a listing without tables has what is left out.
    pub(in crate::source) async fn databases(&self) -> Result<(Vec<String>, Listing)> {
        let mut listing = Listing { warnings: self.warnings.clone(), ..Listing::default() };
        let chosen = self.chosen(&mut listing.excluded).await?;
        Ok((chosen, listing))
    }

    async fn chosen(&self, excluded: &mut Vec<Excluded>) -> Result<Vec<String>> {
        let there = match &self.product {
            Product::Serverless(cloud) => cloud.buckets().await,
            Product::Core => core::databases(&self.server).await,
            Product::Dedicated if self.select.databases.is_empty() => {
                return Err(Error::stop(format!(
                    "{} does not list its databases to a database token",
                    self.server.address()
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
                self.server.address()
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

    /// The tables of a database, as far as they are asked for.
    pub(in crate::source) fn add_tables(&self, database: &str, keys: Keys, listing: &mut Listing) {
        for (table, columns) in keys.into_tables() {
            if !self.select.takes_table(&table) {
                continue;
            }
            let (source, database) = (self.name.clone(), database.to_owned());
            let id = TableId { source, database, schema: String::new(), table };
            match columns {
                Ok(columns) => listing.tables.push(Table {
                    id,
                    columns,
                    data_ranges: vec![Window::ALL],
                    split_points: SplitPoints::None,
                    time_column: None,
                    read_mode: ReadMode::Windows,
                    identity: Identity::default(),
                }),
                Err(why) => listing.unreadable.push((id, why)),
            }
        }
    }

    /// Lets a chunk be read, or says how long the quota makes it wait.
    pub(in crate::source) fn admit(&self) -> Result<Admitted<'_>> {
        self.budget.admit(self.budget.usual_chunk()).map_err(|wait| {
            let quota = self.budget.quota().map_or_else(String::new, |quota| quota.to_string());
            Error::of(Class::Wait(Some(wait)), format!("the quota of {quota} is used up"))
        })
    }

    /// Learns what the rows of a table cost.
    pub(in crate::source) fn learn(&self, table: &TableId, rows: u64, bytes: u64) {
        self.budget.learn(&key(table), rows, bytes);
    }

    pub(in crate::source) fn chunk_rows(&self, table: &TableId) -> Option<u64> {
        self.budget.chunk_rows(&key(table))
    }

    pub(in crate::source) fn metering(&self) -> Option<Metering> {
        let quota: Option<Quota> = self.budget.quota();
        let billed = matches!(self.product, Product::Serverless(_)) || quota.is_some();
        billed.then_some(Metering { quota, prices: self.prices })
    }

    pub(in crate::source) async fn artifacts(&self) -> Result<Artifacts> {
        match &self.product {
            Product::Serverless(cloud) => cloud.artifacts(&self.name).await,
            Product::Core => core::artifacts(&self.server, &self.name).await,
            Product::Dedicated => Ok(Artifacts::of(&self.name)),
        }
    }
}

fn key(table: &TableId) -> String {
    format!("{}/{}", table.database, table.table)
}
