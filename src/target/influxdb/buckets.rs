//! The buckets of 2.x, and the mappings by which InfluxQL knows them as databases with retention policies. What the real
//! server takes was tried with 2.7.11.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::policies::{Policy, Shards, nanoseconds, wanted};
use crate::error::{Class, Error, Result};
use crate::retry::Retry;
use crate::source::influxdb::cloud::{self, Bucket};
use crate::source::influxdb::http::Server;
use crate::target::Plan;
use crate::text::several;
use crate::window::{now, rfc3339};

/// The buckets of an organization.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    /// The organization's id.
    pub(super) org: String,
}

/// A bucket or a mapping that is not there.
pub(super) struct Missing {
    /// What it is called in the summary.
    pub(super) what: String,
    policy: Policy,
    /// The bucket, if only its mapping is missing.
    bucket: Option<String>,
}

/// The bucket of a retention policy, as an upgrade from 1.x names it. The policy that nobody has named does not appear in
/// the name, so that a bucket that was exported gets its own name back.
pub(super) fn name(database: &str, policy: &str) -> String {
    match policy {
        "" | "autogen" => database.to_owned(),
        policy => format!("{database}/{policy}"),
    }
}

/// Why the server takes no bucket, or no mapping, for a policy.
fn why_not(policy: &Policy) -> Option<&'static str> {
    let bucket = name(&policy.database, &policy.name);
    // What cannot be printed is the same for Go, except that Rust also escapes a mark without a letter before it.
    let is_printable = |name: &str| !format!("x{name}").escape_debug().to_string().contains("\\u{");
    let is_no_name = |name: &str| {
        matches!(name, "" | "." | "..")
            || name.contains(|c: char| c.is_control() || "/\\".contains(c))
            || !is_printable(name)
    };
    if bucket.starts_with('_') {
        Some("the name of a bucket cannot begin with `_`")
    } else if bucket.contains('"') {
        Some("the name of a bucket cannot have a quotation mark")
    } else if is_no_name(&policy.database) || is_no_name(&policy.name) {
        Some("the names in a mapping cannot have a slash, a backslash or what cannot be printed")
    } else {
        None
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

    /// What is not there of what the tables need. `notes` takes what the user should know of what is there. A name that the
    /// server does not take is an error if a table needs it.
    pub(super) async fn missing(
        &self,
        server: &Server,
        retry: &Retry,
        plan: &Plan,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Missing>> {
        let buckets = self.all(server, retry).await?;
        let mut missing = Vec::new();
        for policy in wanted(plan).into_values() {
            let name = name(&policy.database, &policy.name);
            let shown = name.escape_debug();
            if let Some(why) = why_not(&policy) {
                if policy.tables(plan).next().is_some() {
                    return Err(Error::stop(format!(
                        "the target cannot have the bucket {shown}: {why}; nothing was changed"
                    ))
                    .hint("give it another name by `--map`, as in `--map 'DATABASE/POLICY=DATABASE/OTHER'`"));
                }
                notes.push(format!("the bucket {shown} is not made: {why}, and no table needs it"));
                continue;
            }
            let bucket = buckets.get(&name);
            let place = (policy.database.clone(), policy.name.clone());
            if let Some(bucket) = bucket.filter(|bucket| bucket.keeps_seconds > 0) {
                notes.push(format!(
                    "the bucket {shown} of the target keeps points for {} only: it drops older ones",
                    several(bucket.keeps_seconds, "second")
                ));
            }
            let what = match bucket {
                None => format!("the bucket {shown}"),
                Some(bucket) if bucket.places.contains(&place) => continue,
                Some(_) => format!(
                    "the mapping of {} / {} to the bucket {shown}",
                    place.0.escape_debug(),
                    place.1.escape_debug(),
                ),
            };
            missing.push(Missing { what, bucket: bucket.map(|bucket| bucket.id.clone()), policy });
        }
        Ok(missing)
    }

    /// How many nanoseconds a shard of each bucket covers, by the database and the policy that it stands for.
    pub(super) async fn shards(
        &self,
        server: &Server,
        retry: &Retry,
        plan: &Plan,
    ) -> Result<Shards> {
        let buckets = self.all(server, retry).await?;
        let shards = wanted(plan).into_keys().filter_map(|place| {
            let shard = buckets.get(&name(&place.0, &place.1))?.shard_seconds?;
            Some((place, nanoseconds(Duration::from_secs(shard))))
        });
        Ok(shards.collect())
    }

    /// Makes the buckets and mappings that are not there.
    pub(super) async fn create(&self, server: &Server, retry: &Retry, plan: &Plan) -> Result<()> {
        for missing in self.missing(server, retry, plan, &mut Vec::new()).await? {
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

    /// Gives each bucket the retention that its policy had, unless that would delete rows. A bucket that somebody else has
    /// made otherwise stays as it is.
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
            let at_first = policy.shard_at_first.as_secs();
            if bucket.keeps_seconds > 0 || bucket.shard_seconds != Some(at_first) {
                continue;
            }
            let oldest = policy.tables(plan).filter_map(|table| table.oldest).min();
            let oldest = oldest.unwrap_or(i64::MAX);
            let keeps = policy.keeps.filter(|keeps| {
                let keeps = i64::try_from(keeps.as_nanos()).unwrap_or(i64::MAX);
                oldest >= now().saturating_sub(keeps)
            });
            if keeps != policy.keeps {
                notes.push(format!(
                    "the bucket {} keeps all points: the retention that it had would delete those from {} on",
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

/// The rule of a bucket. An `everySeconds` of 0 stands for ever.
fn retention(keeps: Option<u64>, shard: u64) -> Value {
    json!({ "type": "expire", "everySeconds": keeps.unwrap_or(0), "shardGroupDurationSeconds": shard })
}

async fn post(server: &Server, retry: &Retry, path: &str, body: &Value) -> Result<Value> {
    let ask = || server.post_json(path, body);
    let text = retry.with_retry(&server.address(), ask).await?.into_success(server)?;
    serde_json::from_str(&text).map_err(|error| {
        let text = format!("{}: the answer is not JSON: {error}", server.address());
        Error::of(Class::Retry, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_server_does_not_take_is_known_before() {
        let policy = |database: &str, name: &str| Policy {
            database: database.to_owned(),
            name: name.to_owned(),
            keeps: None,
            shard: None,
            shard_at_first: Duration::from_secs(86_400),
            copies: 1,
            is_default: false,
        };
        for (database, name) in
            [("plant", "autogen"), ("a.b c", "ü,=' "), ("d", "_week"), ("\u{301}m", "x")]
        {
            assert_eq!(why_not(&policy(database, name)), None, "{database} {name}");
        }
        for (database, name) in [
            ("_d", "week"),
            ("d", "two \"w\""),
            ("d/e", "autogen"),
            ("d", "a\\b"),
            ("d", "a\tb"),
            (".", "x"),
            ("d", "a\u{a0}b"),
        ] {
            assert!(why_not(&policy(database, name)).is_some(), "{database} {name}");
        }
    }
}
