//! The buckets of 2.x, and the mappings by which InfluxQL knows them as databases with retention policies.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::policies::{Policy, wanted};
use crate::error::{Class, Error, Result};
use crate::retry::Retry;
use crate::source::influxdb::cloud::{self, Bucket};
use crate::source::influxdb::http::Server;
use crate::target::Plan;
use crate::window::{now, rfc3339};

/// The buckets of an organization.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    /// The organization's id.
    pub(super) org: String,
}

/// A bucket or a mapping that is not there.
pub(super) struct Missing {
    pub(super) what: String,
    policy: Policy,
    /// The bucket, where only its mapping is missing.
    bucket: Option<String>,
}

/// The bucket of a retention policy, as an upgrade from 1.x names it; the policy that nobody has named has none in it, so
/// that a bucket that was exported gets its own name back.
pub(super) fn name(database: &str, policy: &str) -> String {
    match policy {
        "" | "autogen" => database.to_owned(),
        policy => format!("{database}/{policy}"),
    }
}

impl Buckets {
    /// The organization that the credentials see.
    pub(super) async fn open(server: &Server) -> Result<Self> {
        let text =
            server.get("api/v2/orgs", &[], "application/json").await?.into_success(server)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match answer["orgs"].as_array().map(Vec::as_slice).unwrap_or_default() {
            [only] => Ok(Self { org: only["id"].as_str().unwrap_or_default().to_owned() }),
            [] => Err(Error::stop(format!("{}: the token sees no organization", server.address()))
                .hint("use a token that may read its organization and write its buckets")),
            several => Err(Error::stop(format!(
                "{}: the token sees {} organizations",
                server.address(),
                several.len()
            ))
            .hint("use a token of the one organization that the buckets are to be made in")),
        }
    }

    /// All buckets by name, each with its mappings.
    async fn all(&self, server: &Server, retry: &Retry) -> Result<HashMap<String, Bucket>> {
        let list = || cloud::mapped_buckets(server);
        let buckets = retry.with_retry(&server.address(), list).await?.map_err(|(what, why)| {
            Error::stop(format!("{}: {what}: {why}", server.address()))
                .hint("use a token that may read and write the buckets and the mappings of its organization")
        })?;
        Ok(buckets.into_iter().map(|bucket| (bucket.name.clone(), bucket)).collect())
    }

    /// What is not there of what the tables need.
    pub(super) async fn missing(
        &self,
        server: &Server,
        retry: &Retry,
        plan: &Plan,
    ) -> Result<Vec<Missing>> {
        let buckets = self.all(server, retry).await?;
        let missing = wanted(plan).into_values().filter_map(|policy| {
            let name = name(&policy.database, &policy.name);
            let bucket = buckets.get(&name);
            let place = (policy.database.clone(), policy.name.clone());
            let what = match bucket {
                None => format!("the bucket {}", name.escape_debug()),
                Some(bucket) if bucket.places.contains(&place) => return None,
                Some(_) => format!(
                    "the mapping of {} / {} to the bucket {}",
                    place.0.escape_debug(),
                    place.1.escape_debug(),
                    name.escape_debug()
                ),
            };
            Some(Missing { what, bucket: bucket.map(|bucket| bucket.id.clone()), policy })
        });
        Ok(missing.collect())
    }

    pub(super) async fn create(&self, server: &Server, retry: &Retry, plan: &Plan) -> Result<()> {
        for missing in self.missing(server, retry, plan).await? {
            let policy = missing.policy;
            let failed = |error: Error| error.context(format!("making {}", missing.what));
            let bucket = match missing.bucket {
                Some(bucket) => bucket,
                None => {
                    let body = json!({
                        "orgID": self.org,
                        "name": name(&policy.database, &policy.name),
                        "retentionRules": [retention(None, policy.shard_at_first.as_secs())],
                    });
                    let made =
                        post(server, retry, "api/v2/buckets", &body).await.map_err(failed)?;
                    made["id"].as_str().unwrap_or_default().to_owned()
                }
            };
            let body = json!({
                "orgID": self.org,
                "bucketID": bucket,
                "database": policy.database,
                "retention_policy": policy.name,
                "default": policy.is_default,
            });
            post(server, retry, "api/v2/dbrps", &body).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Gives each bucket the retention that its policy had, unless rows would go because of that.
    pub(super) async fn restore_retention(
        &self,
        server: &Server,
        retry: &Retry,
        plan: &Plan,
    ) -> Result<Vec<String>> {
        let buckets = self.all(server, retry).await?;
        let mut notes = Vec::new();
        for policy in wanted(plan).into_values().filter(Policy::changes) {
            let name = name(&policy.database, &policy.name);
            let Some(bucket) = buckets.get(&name) else { continue };
            let tables = plan.tables.iter().filter(|table| {
                (&table.to.database, &table.to.schema) == (&policy.database, &policy.name)
            });
            let oldest = tables.filter_map(|table| table.oldest).min().unwrap_or(i64::MAX);
            let keeps = policy.keeps.filter(|keeps| {
                let keeps = i64::try_from(keeps.as_nanos()).unwrap_or(i64::MAX);
                oldest >= now().saturating_sub(keeps)
            });
            if keeps != policy.keeps {
                notes.push(format!(
                    "the bucket {} keeps all points, since the retention that it had would delete those from {} on",
                    name.escape_debug(),
                    rfc3339(oldest)
                ));
            }
            let shard = policy.shard.unwrap_or(policy.shard_at_first).as_secs();
            let body =
                json!({ "retentionRules": [retention(keeps.map(|keeps| keeps.as_secs()), shard)] });
            let path = format!("api/v2/buckets/{}", bucket.id);
            let ask = || server.patch_json(&path, &body);
            retry.with_retry(&server.address(), ask).await?.into_success(server)?;
        }
        Ok(notes)
    }
}

/// `everySeconds` 0 is for ever.
fn retention(keeps: Option<u64>, shard: u64) -> Value {
    json!({ "type": "expire", "everySeconds": keeps.unwrap_or(0), "shardGroupDurationSeconds": shard })
}

async fn post(server: &Server, retry: &Retry, path: &str, body: &Value) -> Result<Value> {
    let ask = || server.post_json(path, body);
    let text = retry.with_retry(&server.address(), ask).await?.into_success(server)?;
    serde_json::from_str(&text).map_err(|error| {
        let text = format!("{}: an answer that is not JSON: {error}", server.address());
        Error::of(Class::Retry, text)
    })
}
