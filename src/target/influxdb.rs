//! An InfluxDB of any generation as a target: rows become line protocol. 1.x has databases and retention policies, 2.x has
//! buckets with mappings from them, and 3 has databases alone.

mod buckets;
pub mod lines;
mod one;
mod policies;
mod requests;
mod send;
mod three;

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use self::buckets::Buckets;
use self::lines::{Body, Dialect, Layout};
use self::one::One;
use self::policies::Shards;
use self::requests::{Size, encode, width_to_cut};
use self::send::{Place, send};
use crate::config::{InfluxDb, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{Column, Role, TableId};
use crate::retry::Retry;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxql::statements::count_values;
use crate::source::influxdb::{Generation, generation};
use crate::target::{ChunkOut, Needs, Placed, Plan, Reject, Target, Written};

/// Lines and bytes of a request. By measurement with 1.6, more lines are no faster, and a request of 50,000 may take as
/// long as the server's `write-timeout`.
const REQUEST: (usize, usize) = (5_000, 2 << 20);
/// The same for InfluxDB 3, which takes 10 MiB, and answers up to a second later, when its log was written.
const REQUEST_OF_3: (usize, usize) = (100_000, 8 << 20);
/// How many requests of a chunk are on their way at once. A server that waits for its disk answers late, but takes several
/// requests meanwhile.
const REQUESTS: usize = 4;
/// How many requests of all chunks are on their way at once, for each chunk that is written at the same time.
const REQUESTS_OF_ALL: usize = 2;
/// Requests between the thread that writes lines and the one that sends them.
const BODIES: usize = 1;
/// The settings of 1.x and 2.x that matter if rows go into many shards.
const SETTINGS: [[&str; 2]; 2] = [
    ["cache-snapshot-write-cold-duration", "max-concurrent-compactions"],
    ["storage-cache-snapshot-write-cold-duration", "storage-max-concurrent-compactions"],
];

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
        refuse_others(&server, generation).await?;
        let buckets = match generation {
            Generation::Two => Some(Buckets::open(&server).await?),
            Generation::One | Generation::Three => None,
        };
        Ok((generation, version, buckets))
    };
    let (generation, version, buckets) = retry.with_retry(&spec.name, ask).await?;
    let (lines, bytes) = if generation == Generation::Three { REQUEST_OF_3 } else { REQUEST };
    // Half of a chunk's memory is for what is read. The other half is for the requests that are on their way, wait or are
    // being written, and for lines that wait for others of the same shard, which InfluxDB 3 does not have.
    let half = limits.memory_bytes / limits.concurrency.max(1) / 2;
    let of_requests = if generation == Generation::Three { half } else { half / 2 };
    let bytes = bytes.min(of_requests / (BODIES + REQUESTS + 1));
    let size = Size { lines, bytes, waiting: half / 2 };
    let flying = Semaphore::new(REQUESTS_OF_ALL * limits.concurrency.max(2));
    let (retry, shards) = (retry.clone(), OnceLock::new());
    Ok(Arc::new(InfluxTarget { server, generation, version, buckets, retry, size, flying, shards }))
}

/// Refuses a server that takes line protocol, but keeps something else than what a line says. QuestDB calls itself InfluxDB
/// 2.x and keeps microseconds. VictoriaMetrics answers every statement with a list of databases; it keeps milliseconds, and
/// makes text 0.
async fn refuse_others(server: &Server, generation: Generation) -> Result<()> {
    let ping = server.ping().await;
    let is_questdb = ping.is_ok_and(|ping| ping.server.to_lowercase().contains("questdb"));
    // An InfluxDB says that this is no statement.
    let answers_anything = generation == Generation::One
        && server.get("query", &[("q", "MOVEOUT")], "application/json").await?.status == 200;
    let what = match (is_questdb, answers_anything) {
        (true, _) => "QuestDB",
        (false, true) => "no InfluxDB, and perhaps VictoriaMetrics",
        (false, false) => return Ok(()),
    };
    Err(Error::stop(format!(
        "{} is {what}: it takes the lines of an InfluxDB, but it does not keep them exactly; nothing was changed",
        server.address()
    ))
    .hint("restore into InfluxDB 1.x, 2.x or 3, PostgreSQL, MySQL or MariaDB"))
}

/// An InfluxDB that rows go into.
struct InfluxTarget {
    server: Server,
    generation: Generation,
    version: String,
    /// The buckets of 2.x.
    buckets: Option<Buckets>,
    retry: Retry,
    /// How large requests become.
    size: Size,
    /// What each request on its way holds a permit of.
    flying: Semaphore,
    /// The shards of what rows go into, which are known when it was made.
    shards: OnceLock<Shards>,
}

/// The name of a policy that nobody has named.
const AUTOGEN: &str = "autogen";

impl InfluxTarget {
    fn one(&self) -> One<'_> {
        One { server: &self.server, retry: &self.retry }
    }

    /// What a restore never applies by itself, each with the file that has it.
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
                let (server, retry) = (&self.server, &self.retry);
                let missing = buckets.missing(server, retry, plan, &mut needs.notes).await?;
                needs.create = missing.into_iter().map(|missing| missing.what).collect();
                let shards = buckets.shards(server, retry, plan).await?;
                needs.notes.extend(policies::advice(plan, &shards, SETTINGS[1]));
            }
            (None, Generation::Three) => {
                let (server, retry, notes) = (&self.server, &self.retry, &mut needs.notes);
                let is_core = self.version.ends_with(" Core");
                needs.create = three::missing(server, retry, plan, is_core, notes).await?;
            }
            (None, _) => {
                let missing = self.one().missing(plan, &mut needs.notes).await?;
                needs.create = missing.into_iter().map(|(what, _)| what).collect();
                needs.notes.extend(self.one().watchers(plan).await?);
                let shards = self.one().shards(plan).await?;
                needs.notes.extend(policies::advice(plan, &shards, SETTINGS[0]));
            }
        }
        Ok(needs)
    }

    async fn create(&self, plan: &Plan) -> Result<()> {
        let (server, retry) = (&self.server, &self.retry);
        let shards = match (&self.buckets, self.generation) {
            (Some(buckets), _) => {
                buckets.create(server, retry, plan).await?;
                buckets.shards(server, retry, plan).await?
            }
            (None, Generation::Three) => {
                three::create(server, retry, plan).await?;
                Shards::new() // it sorts by itself
            }
            (None, _) => {
                self.one().create(plan).await?;
                self.one().shards(plan).await?
            }
        };
        let _ = self.shards.set(shards);
        Ok(())
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
        let policy = (chunk.table.to.database.clone(), chunk.table.to.schema.clone());
        let shard = self.shards.get().and_then(|shards| shards.get(&policy)).copied();
        let how = (self.size, width_to_cut(chunk.slice, shard));
        let encoding = tokio::task::spawn_blocking({
            let rejects = rejects.clone();
            move || encode(&layout, &columns, rows, how, &sender, &rejects)
        });
        let place = self.place_of(&chunk.table.to);
        let mut written = Written::default();
        // The order does not matter, since no two lines are of the same point.
        let requests = stream::poll_fn(move |context| bodies.poll_recv(context))
            .map(|body: Body| async {
                let lines = body.ends.len();
                let _permit = self.flying.acquire().await;
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
        drop(requests); // so that the thread which encodes ends, too
        let encoded = encoding.await;
        let read = reading.await;
        sent?;
        read.map_err(|error| Error::stop(error.to_string()))??;
        written.rejected += encoded.map_err(|error| Error::stop(error.to_string()))??;
        Ok(written)
    }

    async fn count(&self, table: &Placed) -> Result<Option<u64>> {
        // To count one field costs a tenth of counting all. InfluxDB 3 is asked chunk by chunk, in narrow windows.
        let field = match (&table.full_field, self.generation) {
            (Some(field), Generation::One | Generation::Two) => field,
            (None, _) | (_, Generation::Three) => return Ok(None),
        };
        let rows = self.one().query(&count_values(&table.to, field)).await?;
        let found = rows.first().and_then(|row| row.get(1)?.as_u64());
        Ok(Some(found.unwrap_or(0)))
    }

    async fn finish(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut notes = match (&self.buckets, self.generation) {
            (Some(buckets), _) => {
                buckets.restore_retention(&self.server, &self.retry, plan).await?
            }
            (None, Generation::Three) => Vec::new(),
            (None, _) => self.one().restore_policies(plan).await?,
        };
        notes.extend(self.offered(plan));
        Ok(notes)
    }
}
