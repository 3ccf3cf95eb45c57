//! InfluxDB 3 by `/query`, where gRPC cannot pass: the same tables and columns as over Flight, so that a
//! run begun one way goes on the other. Knows InfluxQL and its answers; the wire is that of `http`.

mod bounds_queries;
mod statements;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::column_stats::Recorded;
use crate::error::{Class, Error, Result};
use crate::model::{Chunk, Proof, Role, Table, TableId};
use crate::source::channel::BatchSender;
use crate::source::influxdb::budget::{Admitted, Budget};
use crate::source::influxdb::counts::compare_counts;
use crate::source::influxdb::errors::server_error;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxdb3::{Product, Received, Transport};
use crate::source::influxdb::influxql::answer::{BodyReader, RowWriter, Seen};
use crate::source::influxdb::influxql::json;
use crate::source::influxdb::metadata::Statement;
use crate::source::influxdb::points::{FieldType, Keys};
use crate::window::Slice;

/// Pieces of a body between the socket and the decoder at most.
const BODY_PARTS: usize = 2;
/// Values of an object of an answer, which is decoded as a whole, at most; and its rows.
const OBJECT_VALUES: usize = 200_000;
const OBJECT_ROWS: usize = 10_000;

/// The transport `/query`, for where only HTTP/1.1 passes.
pub(super) struct HttpQuery {
    server: Server,
    budget: Arc<Budget>,
    /// Core and Enterprise take SQL over HTTP as well.
    is_core: bool,
    /// Database and retention policy of each bucket of Serverless; the others have databases.
    mappings: Option<HashMap<String, (String, String)>>,
}

impl HttpQuery {
    pub(super) async fn open(
        server: Server,
        budget: Arc<Budget>,
        product: &Product,
    ) -> Result<Self> {
        let mappings = match product {
            Product::Serverless(cloud) => Some(cloud.mappings().await?),
            _ => None,
        };
        Ok(Self { server, budget, is_core: matches!(product, Product::Core), mappings })
    }

    /// What makes `/query` read this database.
    fn place<'a>(&'a self, database: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
        match &self.mappings {
            None => Ok(vec![("db", database)]),
            Some(mappings) => match mappings.get(database) {
                Some((db, rp)) => Ok(vec![("db", db), ("rp", rp)]),
                None => Err(self.unmapped(&[database])),
            },
        }
    }

    fn unmapped(&self, buckets: &[&str]) -> Error {
        Error::stop(format!(
            "{}: without gRPC only /query is left, which finds a bucket by its DBRP mapping, and there is none \
             for {}",
            self.server.address(),
            buckets.join(", ")
        ))
        .hint(
            "let HTTP/2 pass, so that Flight can be used; or make the mapping yourself (influx v1 dbrp create \
             --bucket-id ID --db BUCKET --rp autogen); or name the other buckets in `databases`",
        )
    }

    /// Runs a statement that answers little.
    async fn ask(&self, database: &str, statement: &str) -> Result<Statement> {
        let (answer, bytes) = self.server.ask(statement, &self.place(database)?).await?;
        self.budget.spend(bytes);
        Ok(answer)
    }

    /// How many values each field has in a slice, as the server counts; a field that is not there has none.
    async fn counts(&self, table: &TableId, slice: Slice) -> Result<HashMap<String, u64>> {
        let answer = self.ask(&table.database, &statements::count(&table.table, slice)).await?;
        let mut counts = HashMap::new();
        for series in &answer.series {
            for name in &series.columns {
                let Some(field) = name.strip_prefix("count_") else { continue };
                let count = series.column(name).filter_map(Value::as_u64).sum();
                counts.insert(field.to_owned(), count);
            }
        }
        Ok(counts)
    }

    /// Proves that all rows came, of an answer that does not say so: a proxy may end a body between two
    /// objects as if it were all. No row is without a value, so that values which are all there make rows
    /// that are all there.
    async fn prove(&self, chunk: &Chunk, seen: &Seen) -> Result<()> {
        let mut counts = self.counts(&chunk.table.id, chunk.slice).await?;
        for (column, came) in chunk.table.columns.iter().zip(&seen.values) {
            if column.role != Role::Field {
                continue;
            }
            let counted = counts.remove(&column.key).unwrap_or(0);
            if counted != *came {
                return Err(Error::of(
                    Class::RetryThenSplit,
                    format!(
                        "{}: the answer is not whole: {came} values of `{}`, of which the server counts {counted}",
                        self.server.address(),
                        column.key.escape_debug()
                    ),
                ));
            }
        }
        match counts.into_iter().find(|(_, count)| *count > 0) {
            None => Ok(()),
            Some((field, _)) => {
                let what = format!("the field `{}` is new", field.escape_debug());
                Err(Error::of(Class::SchemaChanged, what))
            }
        }
    }
}

#[async_trait]
impl Transport for HttpQuery {
    fn name(&self) -> &'static str {
        "/query"
    }

    fn check(&self, databases: &[String]) -> Result<()> {
        let Some(mappings) = &self.mappings else { return Ok(()) };
        let unmapped = databases.iter().filter(|name| !mappings.contains_key(*name));
        let unmapped: Vec<_> = unmapped.map(String::as_str).collect();
        if unmapped.is_empty() { Ok(()) } else { Err(self.unmapped(&unmapped)) }
    }

    /// The keys of a database. No statement has a `WHERE`: with one they look at the last day only.
    async fn keys(&self, database: &str) -> Result<Keys> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut keys = Keys::default();
        for series in &self.ask(database, "SHOW MEASUREMENTS").await?.series {
            series.column("name").for_each(|name| keys.table(&text(name)));
        }
        for series in &self.ask(database, "SHOW FIELD KEYS").await?.series {
            for (key, word) in series.column("fieldKey").zip(series.column("fieldType")) {
                let word = text(word);
                keys.field(&series.name, text(key), FieldType::parse(&word), &word);
            }
        }
        for series in &self.ask(database, "SHOW TAG KEYS").await?.series {
            series.column("tagKey").for_each(|key| keys.tag(&series.name, text(key)));
        }
        Ok(keys)
    }

    async fn prove(
        &self,
        table: &Table,
        slice: Slice,
        recorded: Recorded<'_>,
    ) -> Result<Option<Proof>> {
        let counts = self.counts(&table.id, slice).await?;
        Ok(compare_counts(table, recorded, counts))
    }

    async fn read(
        &self,
        chunk: &Chunk,
        batches: BatchSender,
        admitted: &mut Admitted<'_>,
    ) -> Result<Received> {
        let id = &chunk.table.id;
        let object_rows =
            (OBJECT_VALUES / chunk.table.columns.len().max(1)).clamp(100, OBJECT_ROWS);
        let statement = statements::read(&id.table, chunk.slice);
        let place = self.place(&id.database)?;
        let response = self.server.rows(&statement, &place, object_rows).await?;
        let (sender, parts) = mpsc::channel(BODY_PARTS);
        let (table, address) = (Arc::clone(&chunk.table), self.server.address());
        let decoded = tokio::task::spawn_blocking(move || {
            let mut rows = RowWriter::new(&table, batches, false);
            json::decode(BodyReader::new(parts), &mut rows, |text| server_error(&address, text))?;
            rows.end()
        });
        let mut bytes = 0;
        let count = |more| {
            bytes += more;
            admitted.spend(more);
        };
        let ((), decoded) = tokio::join!(self.server.pump(response, sender, count), decoded);
        let seen = decoded
            .unwrap_or_else(|error| Err(Error::stop(format!("the decoder ended: {error}"))))?;
        if !seen.flagged {
            self.prove(chunk, &seen).await?;
        }
        Ok(Received { rows: seen.rows, bytes, queued: Duration::ZERO })
    }
}
