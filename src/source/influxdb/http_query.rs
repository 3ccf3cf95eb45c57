//! InfluxDB 3 by `/query`, for where gRPC does not pass. Tables and columns are the same as over Flight, so that a run
//! that began one way can continue the other. The wire is that of `http`.

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
use crate::source::influxdb::counts::{compare_counts, field_counts};
use crate::source::influxdb::errors::server_error;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxdb3::{Product, Received, Transport};
use crate::source::influxdb::influxql::answer::{BodyReader, RowWriter, Seen};
use crate::source::influxdb::influxql::json;
use crate::source::influxdb::metadata::Statement;
use crate::source::influxdb::points::{FieldType, Keys};
use crate::window::Slice;

/// The most pieces of a body between the socket and the decoder.
const BODY_PARTS: usize = 2;
/// The most values, and rows, of one object of an answer, which is decoded as a whole.
const OBJECT_VALUES: usize = 200_000;
const OBJECT_ROWS: usize = 10_000;

/// The `/query` transport, for where only HTTP/1.1 passes.
pub(super) struct HttpQuery {
    server: Server,
    budget: Arc<Budget>,
    /// Whether it is Core or Enterprise, which also answer SQL over HTTP.
    is_core: bool,
    /// The database and the retention policy of each bucket of Serverless; the other products have databases.
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

    /// The parameters that make `/query` read this database.
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
            "{}: gRPC does not pass, and /query finds a bucket only by its DBRP mapping, which is missing for {}",
            self.server.address(),
            buckets.join(", ")
        ))
        .hint(
            "let HTTP/2 pass, so that Flight can be used; or create the mapping (influx v1 dbrp create \
             --bucket-id ID --db BUCKET --rp autogen); or name only the other buckets in `databases`",
        )
    }

    /// Runs a statement with a small answer.
    async fn ask(&self, database: &str, statement: &str) -> Result<Statement> {
        let (answer, bytes) = self.server.ask(statement, &self.place(database)?).await?;
        self.budget.spend(bytes);
        Ok(answer)
    }

    /// How many values each field has in a slice, as the server counts them.
    async fn counts(&self, table: &TableId, slice: Slice) -> Result<HashMap<String, u64>> {
        let answer = self.ask(&table.database, &statements::count(&table.table, slice)).await?;
        Ok(field_counts(&answer.series))
    }

    /// Proves that an answer is complete which does not state that itself, since a proxy may end a body between two
    /// objects as if it were complete. Every row has a value, so if no value is missing, no row is.
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
                        "{}: the answer is not complete: it has {came} values of `{}`, but the server counts {counted}",
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

    /// The keys of a database. No statement has a `WHERE`, since with one the server looks at the last day only.
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
            .unwrap_or_else(|error| Err(Error::stop(format!("the decoder failed: {error}"))))?;
        if !seen.flagged {
            self.prove(chunk, &seen).await?;
        }
        Ok(Received { rows: seen.rows, bytes, queued: Duration::ZERO })
    }
}
