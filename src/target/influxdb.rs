//! An InfluxDB as a target, of any generation: rows become line protocol. 1.x has databases and retention policies, 2.x has
//! buckets with mappings from them, and 3 has databases alone.

mod buckets;
pub mod lines;
mod policies;
mod send;
mod three;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::buckets::Buckets;
use self::lines::{Body, Dialect, Layout, Rows, Unsayable, shown};
use self::policies::{Policy, wanted};
use self::send::{Place, send};
use crate::config::{InfluxDb, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{Column, Role, TableId};
use crate::retry::Retry;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxql::statements::{count_values, quoted};
use crate::source::influxdb::{Generation, generation};
use crate::target::{ChunkOut, Needs, Placed, Plan, Reject, Target, Written};
use crate::text::several;
use crate::window::{now, rfc3339};

/// Lines and bytes of a request. Measured with 1.6: more lines are no faster, and a request of 50,000 may take as long as
/// the server's `write-timeout`.
const REQUEST: (usize, usize) = (5_000, 1 << 20);
/// The same for InfluxDB 3, which answers up to a second later, when its log was written, and takes 10 MiB.
const REQUEST_OF_3: (usize, usize) = (100_000, 8 << 20);
/// Requests of a chunk that are on their way at once: a server that waits for its disk answers late, but takes several.
const REQUESTS: usize = 2;
/// Requests between the thread that writes lines and the one that is being sent.
const BODIES: usize = 2;

/// Opens the server, and finds out which generation it is.
pub(super) async fn open(
    spec: &SourceSpec,
    influxdb: &InfluxDb,
    limits: &Limits,
    retry: &Retry,
) -> Result<Arc<dyn Target>> {
    let server = Server::new(influxdb, limits.idle_timeout)?;
    let ask = || async {
        let (generation, version) = generation(&server, influxdb.version).await?;
        let buckets = match generation {
            Generation::Two => Some(Buckets::open(&server).await?),
            Generation::One | Generation::Three => None,
        };
        Ok((generation, version, buckets))
    };
    let (generation, version, buckets) = retry.with_retry(&spec.name, ask).await?;
    let (lines, bytes) = if generation == Generation::Three { REQUEST_OF_3 } else { REQUEST };
    // Each chunk has one that is sent, one that is written, and some between.
    let share = limits.memory_bytes / limits.concurrency.max(1) / (2 * (BODIES + REQUESTS + 1));
    let request = (lines, bytes.min(share));
    let retry = retry.clone();
    Ok(Arc::new(InfluxTarget { server, generation, version, buckets, retry, request }))
}

/// An InfluxDB that rows go into.
struct InfluxTarget {
    server: Server,
    generation: Generation,
    version: String,
    /// Of 2.x alone.
    buckets: Option<Buckets>,
    retry: Retry,
    /// Lines and bytes of a request.
    request: (usize, usize),
}

/// The name that a policy has where nobody has named it.
const AUTOGEN: &str = "autogen";

impl InfluxTarget {
    async fn query(&self, statement: &str) -> Result<Vec<Vec<Value>>> {
        let ask = || self.server.query(statement);
        let answer = self.retry.with_retry(&self.server.address(), ask).await?;
        let series = answer.into_iter().flat_map(|statement| statement.series);
        Ok(series.flat_map(|series| series.values).collect())
    }

    /// The names in the first column of an answer.
    async fn names(&self, statement: &str) -> Result<BTreeSet<String>> {
        let rows = self.query(statement).await?;
        let name = |row: Vec<Value>| row.first()?.as_str().map(str::to_owned);
        Ok(rows.into_iter().filter_map(name).collect())
    }

    /// The policies of a database of 1.x, each with the duration for which it keeps points and that of its shards.
    async fn policies(&self, database: &str) -> Result<BTreeMap<String, (String, String)>> {
        let statement = format!("SHOW RETENTION POLICIES ON {}", quoted(database));
        let ask = || self.server.query(&statement);
        let answer = self.retry.with_retry(&self.server.address(), ask).await?;
        let mut policies = BTreeMap::new();
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let texts = |column: &str| -> Vec<String> {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                series.column(column).map(text).collect()
            };
            let durations = texts("duration").into_iter().zip(texts("shardGroupDuration"));
            policies.extend(texts("name").into_iter().zip(durations));
        }
        Ok(policies)
    }

    /// What 1.x lacks: statements, each with what it is for. `notes` takes what the user should know of what is there.
    async fn missing(&self, plan: &Plan, notes: &mut Vec<String>) -> Result<Vec<(String, String)>> {
        let databases = self.names("SHOW DATABASES").await?;
        let mut by_database = BTreeMap::<String, Vec<Policy>>::new();
        for policy in wanted(plan).into_values() {
            by_database.entry(policy.database.clone()).or_default().push(policy);
        }
        let mut missing = Vec::new();
        for (database, policies) in by_database {
            let shown = |name: &str| name.escape_debug().to_string();
            if !databases.contains(&database) {
                let first =
                    policies.iter().find(|policy| policy.is_default).unwrap_or(&policies[0]);
                missing
                    .push((format!("the database {}", shown(&database)), first.create_database()));
                for policy in policies.iter().filter(|policy| policy.name != first.name) {
                    let what = format!(
                        "the retention policy {} of {}",
                        shown(&policy.name),
                        shown(&database)
                    );
                    missing.push((what, policy.create()));
                }
                continue;
            }
            let there = self.policies(&database).await?;
            let statement = format!("SHOW MEASUREMENTS ON {} LIMIT 1", quoted(&database));
            let is_empty = self.query(&statement).await?.is_empty();
            for policy in policies {
                let what =
                    format!("the retention policy {} of {}", shown(&policy.name), shown(&database));
                match there.get(&policy.name) {
                    None => missing.push((what, policy.create())),
                    Some((keeps, shard)) => {
                        let shard = policies::go_duration(shard);
                        let is_ready = keeps == "0s" && shard == Some(policy.shard_at_first);
                        if !is_ready && is_empty {
                            missing.push((what, policy.prepare()));
                        } else if keeps != "0s" {
                            notes.push(format!(
                                "{what} of the target keeps points for {keeps} only: it drops older ones"
                            ));
                        }
                    }
                }
            }
        }
        Ok(missing)
    }

    /// Gives each policy the durations that it had, unless rows would go because of that.
    async fn restore_policies(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for policy in wanted(plan).into_values().filter(Policy::changes) {
            let there = self.policies(&policy.database).await?;
            let (keeps, shard) = there.get(&policy.name).cloned().unwrap_or_default();
            // One that somebody else has set stays as it is.
            let is_ours =
                keeps == "0s" && policies::go_duration(&shard) == Some(policy.shard_at_first);
            if !is_ours {
                continue;
            }
            let tables = plan.tables.iter().filter(|table| {
                (&table.to.database, &table.to.schema) == (&policy.database, &policy.name)
            });
            let oldest = tables.filter_map(|table| table.oldest).min();
            let expires = |keeps: std::time::Duration| {
                let keeps = i64::try_from(keeps.as_nanos()).unwrap_or(i64::MAX);
                oldest.filter(|oldest| *oldest < now().saturating_sub(keeps))
            };
            match policy.keeps.and_then(expires) {
                Some(oldest) => {
                    notes.push(format!(
                        "the retention policy {} of {} keeps all points, since the duration that it had would delete \
                         those from {} on; whoever wants that runs: {}",
                        policy.name.escape_debug(),
                        policy.database.escape_debug(),
                        rfc3339(oldest),
                        policy.restore()
                    ));
                    let forever = Policy { keeps: None, ..policy };
                    self.query(&forever.restore()).await?;
                }
                None => _ = self.query(&policy.restore()).await?,
            }
        }
        Ok(notes)
    }

    /// What a restore never applies by itself, with the file that has it.
    fn offered(&self, plan: &Plan) -> Vec<String> {
        const OFFERED: [&str; 6] = [
            "continuous-queries.json",
            "subscriptions.json",
            "users.json",
            "grants.json",
            "tasks.json",
            "dashboards.json",
        ];
        let there = plan.artifacts.iter().filter(|((_, name), content)| {
            OFFERED.contains(&name.as_str()) && !matches!(content.trim_ascii(), b"[]" | b"")
        });
        let lines = there.map(|((source, name), _)| {
            let what = name.trim_end_matches(".json").replace('-', " ");
            format!("the {what} of {source} were not restored: see {name} among its artifacts in the archive")
        });
        lines.collect()
    }

    fn place_of(&self, table: &TableId) -> Place {
        let database = table.database.clone();
        let precision = ("precision", "ns".to_owned());
        match (&self.buckets, self.generation) {
            (Some(buckets), _) => Place {
                path: "api/v2/write",
                query: vec![
                    ("orgID", buckets.org.clone()),
                    ("bucket", buckets::name(&table.database, &table.schema)),
                    precision,
                ],
            },
            (None, Generation::Three) => three::place(database),
            (None, _) => Place {
                path: "write",
                query: vec![("db", database), ("rp", table.schema.clone()), precision],
            },
        }
    }
}

#[async_trait]
impl Target for InfluxTarget {
    async fn describe(&self) -> Result<String> {
        Ok(format!("{}, {}", self.version, self.server.address()))
    }

    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId> {
        let is_point = |column: &Column| matches!(column.role, Role::Tag | Role::Field);
        if !columns.iter().any(is_point) || columns.iter().any(|column| column.role == Role::Column)
        {
            return None;
        }
        let policy = if renamed.schema.is_empty() { AUTOGEN } else { &renamed.schema };
        Some(match self.generation {
            // InfluxDB 3 has no policies, and its own paths for 1.x find `database/policy` by that name.
            Generation::Three => TableId {
                database: buckets::name(&renamed.database, policy),
                schema: String::new(),
                ..renamed
            },
            Generation::One | Generation::Two => TableId { schema: policy.to_owned(), ..renamed },
        })
    }

    async fn needs(&self, plan: &Plan) -> Result<Needs> {
        let mut needs = Needs::default();
        match (&self.buckets, self.generation) {
            (Some(buckets), _) => {
                let missing = buckets.missing(&self.server, &self.retry, plan).await?;
                needs.create = missing.into_iter().map(|missing| missing.what).collect();
            }
            (None, Generation::Three) => {
                needs.create =
                    three::missing(&self.server, &self.retry, plan, &mut needs.notes).await?;
            }
            (None, _) => {
                let missing = self.missing(plan, &mut needs.notes).await?;
                needs.create = missing.into_iter().map(|(what, _)| what).collect();
                for (what, column) in [
                    ("continuous query", "SHOW CONTINUOUS QUERIES"),
                    ("subscription", "SHOW SUBSCRIPTIONS"),
                ] {
                    let known = self.query(column).await.map_or(0, |rows| rows.len());
                    if known > 0 {
                        needs.notes.push(format!(
                            "the target has {}, which will see every point that is restored",
                            several(known as u64, what)
                        ));
                    }
                }
            }
        }
        Ok(needs)
    }

    async fn create(&self, plan: &Plan) -> Result<()> {
        match (&self.buckets, self.generation) {
            (Some(buckets), _) => buckets.create(&self.server, &self.retry, plan).await,
            (None, Generation::Three) => three::create(&self.server, &self.retry, plan).await,
            (None, _) => {
                for (what, statement) in self.missing(plan, &mut Vec::new()).await? {
                    self.query(&statement)
                        .await
                        .map_err(|error| error.context(format!("making {what}")))?;
                }
                Ok(())
            }
        }
    }

    async fn write(
        &self,
        chunk: &ChunkOut,
        rows: mpsc::Receiver<RecordBatch>,
        reading: JoinHandle<Result<()>>,
        rejects: mpsc::UnboundedSender<Reject>,
    ) -> Result<Written> {
        let dialect = match self.generation {
            Generation::Three => Dialect::Rust,
            Generation::One | Generation::Two => Dialect::Go,
        };
        let layout = Layout::new(dialect, &chunk.table.to.table, &chunk.columns)?;
        let (sender, mut bodies) = mpsc::channel(BODIES);
        let columns = chunk.columns.clone();
        let encoding = tokio::task::spawn_blocking({
            let rejects = rejects.clone();
            let request = self.request;
            move || encode(&layout, &columns, rows, request, &sender, &rejects)
        });
        let place = self.place_of(&chunk.table.to);
        let mut written = Written::default();
        // The order is of no matter, since no two lines are of one point.
        let requests = stream::poll_fn(move |context| bodies.poll_recv(context))
            .map(|body: Body| async {
                let lines = body.ends.len();
                let refused = send(&self.server, &self.retry, &place, body).await?;
                Ok::<_, Error>((lines, refused))
            })
            .buffer_unordered(REQUESTS);
        let mut requests = Box::pin(requests);
        let mut sent = Ok(());
        while let Some(answer) = requests.next().await {
            match answer {
                Ok((lines, refused)) => {
                    written.rows += (lines - refused.len()) as u64;
                    written.rejected += refused.len() as u64;
                    refused.into_iter().for_each(|reject| _ = rejects.send(reject));
                }
                Err(error) => {
                    sent = Err(error);
                    break;
                }
            }
        }
        drop(requests); // what encodes ends, too
        let encoded = encoding.await;
        let read = reading.await;
        sent?;
        read.map_err(|error| Error::stop(error.to_string()))??;
        written.rejected += encoded.map_err(|error| Error::stop(error.to_string()))??;
        Ok(written)
    }

    async fn count(&self, table: &Placed) -> Result<Option<u64>> {
        // Counting one field costs a tenth of counting all. InfluxDB 3 counts rows for next to nothing.
        let field = match (&table.full_field, self.generation) {
            (Some(field), Generation::One | Generation::Two) => field,
            (None, _) | (_, Generation::Three) => return Ok(None),
        };
        let rows = self.query(&count_values(&table.to, field)).await?;
        let found = rows.first().and_then(|row| row.get(1)?.as_u64());
        Ok(Some(found.unwrap_or(0)))
    }

    async fn finish(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut notes = match (&self.buckets, self.generation) {
            (Some(buckets), _) => {
                buckets.restore_retention(&self.server, &self.retry, plan).await?
            }
            (None, Generation::Three) => Vec::new(),
            (None, _) => self.restore_policies(plan).await?,
        };
        notes.extend(self.offered(plan));
        Ok(notes)
    }
}

/// Turns batches into bodies, on a thread that may block. Returns how many rows no line can say.
fn encode(
    layout: &Layout,
    columns: &[Column],
    mut rows: mpsc::Receiver<RecordBatch>,
    request: (usize, usize),
    bodies: &mpsc::Sender<Body>,
    rejects: &mpsc::UnboundedSender<Reject>,
) -> Result<u64> {
    let (mut body, mut rejected) = (Body::default(), 0);
    while let Some(batch) = rows.blocking_recv() {
        let values = Rows::new(columns, &batch)?;
        let (mut from, mut unsayable) = (0, Vec::<Unsayable>::new());
        while from < batch.num_rows() {
            from = layout.write(&values, from, request, &mut body, &mut unsayable);
            let is_full = body.ends.len() >= request.0 || body.bytes.len() >= request.1;
            if is_full && bodies.blocking_send(std::mem::take(&mut body)).is_err() {
                return Ok(rejected); // whoever sends has failed and says why
            }
        }
        rejected += unsayable.len() as u64;
        for Unsayable { row, why } in unsayable {
            let row = shown(columns, &batch, row);
            let _ = rejects.send(Reject { row, why });
        }
    }
    if !body.ends.is_empty() {
        let _ = bodies.blocking_send(body);
    }
    Ok(rejected)
}
