//! The databases and retention policies of 1.x, and what else of a server sees the points that are restored.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::policies::{self, Policy, Shards, nanoseconds, wanted};
use crate::error::Result;
use crate::retry::Retry;
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxql::statements::quoted;
use crate::source::influxdb::metadata::Series;
use crate::target::Plan;
use crate::window::{now, rfc3339};

/// A server that is asked by InfluxQL.
pub(super) struct One<'a> {
    pub(super) server: &'a Server,
    pub(super) retry: &'a Retry,
}

impl One<'_> {
    /// The rows of an answer.
    pub(super) async fn query(&self, statement: &str) -> Result<Vec<Vec<Value>>> {
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

    /// The policies of a database, each with the duration for which it keeps points and that of its shards.
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

    /// The statements that make what is not there, each with what it makes. `notes` takes what the user should know of what
    /// is there.
    pub(super) async fn missing(
        &self,
        plan: &Plan,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(String, String)>> {
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

    /// Makes what is not there.
    pub(super) async fn create(&self, plan: &Plan) -> Result<()> {
        for (what, statement) in self.missing(plan, &mut Vec::new()).await? {
            let made = self.query(&statement).await;
            made.map_err(|error| error.context(format!("making {what}")))?;
        }
        Ok(())
    }

    /// Gives each policy the durations that it had, unless that would delete rows.
    pub(super) async fn restore_policies(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for policy in wanted(plan).into_values().filter(Policy::changes) {
            let there = self.policies(&policy.database).await?;
            let (keeps, shard) = there.get(&policy.name).cloned().unwrap_or_default();
            // A policy that somebody else has set stays as it is.
            let is_ours =
                keeps == "0s" && policies::go_duration(&shard) == Some(policy.shard_at_first);
            if !is_ours {
                continue;
            }
            let oldest = policy.tables(plan).filter_map(|table| table.oldest).min();
            let expires = |keeps: std::time::Duration| {
                let keeps = i64::try_from(keeps.as_nanos()).unwrap_or(i64::MAX);
                oldest.filter(|oldest| *oldest < now().saturating_sub(keeps))
            };
            match policy.keeps.and_then(expires) {
                Some(oldest) => {
                    notes.push(format!(
                        "the retention policy {} of {} keeps all points: the duration that it had would delete those \
                         from {} on; if you want that, run: {}",
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

    /// How many nanoseconds a shard of each policy covers in the databases that rows go into, by its database and name.
    pub(super) async fn shards(&self, plan: &Plan) -> Result<Shards> {
        let mut shards = Shards::new();
        let there = self.names("SHOW DATABASES").await?;
        let databases: BTreeSet<&str> =
            plan.tables.iter().map(|table| table.to.database.as_str()).collect();
        for database in databases.into_iter().filter(|name| there.contains(*name)) {
            for (name, (_, shard)) in self.policies(database).await? {
                let width = policies::go_duration(&shard).map(nanoseconds);
                shards.extend(width.map(|width| ((database.to_owned(), name), width)));
            }
        }
        Ok(shards)
    }

    /// What sees every point that is restored, a line each: the continuous queries and the subscriptions of the databases
    /// that rows go into.
    pub(super) async fn watchers(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut watchers = Vec::new();
        for (what, names, does) in [
            ("continuous query", "SHOW CONTINUOUS QUERIES", "computes from them"),
            ("subscription", "SHOW SUBSCRIPTIONS", "sends each of them on"),
        ] {
            let series = match self.server.query(names).await {
                Ok(answer) => answer.into_iter().flat_map(|statement| statement.series),
                Err(error) => {
                    watchers.push(format!(
                        "whether a {what} of the target sees the points that are restored is not known: {error}"
                    ));
                    continue;
                }
            };
            let ours =
                |series: &Series| plan.tables.iter().any(|table| table.to.database == series.name);
            for series in series.filter(ours) {
                for name in series.column("name").filter_map(Value::as_str) {
                    watchers.push(format!(
                        "the {what} {} of {} sees the points that are restored, and {does}",
                        name.escape_debug(),
                        series.name.escape_debug()
                    ));
                }
            }
        }
        Ok(watchers)
    }
}
