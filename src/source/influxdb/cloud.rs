//! The HTTP interface of InfluxDB Cloud: its organization, limits, buckets and artifacts. A kind of artifact that the plan
//! lacks is reported and is not an error. The values of tokens and secrets are never kept.

use std::collections::{BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Class, Error, Result};
use crate::model::{ArtifactOutcome, Artifacts};
use crate::source::influxdb::http::{Reply, Server};

/// How the data of an organization is stored, which decides how it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Storage {
    /// Cloud Serverless.
    Iox,
    /// Cloud TSM.
    Tsm,
}

/// One organization.
#[derive(Debug, Clone)]
pub(in crate::source) struct Cloud {
    server: Server,
    org: String,
}

/// The first organization that the token sees; `None` if the server has no such interface.
pub(in crate::source) async fn organization(server: &Server) -> Result<Option<(String, Storage)>> {
    let got = server.get("api/v2/orgs", &[], "application/json").await?;
    match got.status {
        200..=299 => {}
        401 | 403 => return got.into_success(server).map(|_| None),
        _ => return Ok(None),
    }
    let Ok(answer) = serde_json::from_str::<Value>(&got.text) else { return Ok(None) };
    let org = &answer["orgs"][0];
    let Some(id) = org["id"].as_str() else { return Ok(None) };
    Ok(match org["defaultStorageType"].as_str() {
        Some("iox") => Some((id.to_owned(), Storage::Iox)),
        Some("tsm") => Some((id.to_owned(), Storage::Tsm)),
        _ => None,
    })
}

/// The kinds that are lists: name, path, key of the array, and largest page (0 if there are no pages).
const LISTS: [(&str, &str, &str, usize); 10] = [
    ("labels", "labels", "labels", 0),
    ("variables", "variables", "variables", 0),
    ("dbrp-mappings", "dbrps", "content", 0),
    ("tasks", "tasks", "tasks", 500),
    ("checks", "checks", "checks", 100),
    ("notification-rules", "notificationRules", "notificationRules", 100),
    ("notification-endpoints", "notificationEndpoints", "notificationEndpoints", 100),
    ("scripts", "scripts", "scripts", 500),
    ("stacks", "stacks", "stacks", 0),
    ("tokens", "authorizations", "authorizations", 100),
];

/// The items of a kind, or the outcome that explains why there are none.
type Had<T = Vec<Value>> = std::result::Result<T, ArtifactOutcome>;

/// A bucket, and each database and retention policy that InfluxQL knows it by.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Whether it belongs to the server itself.
    pub(crate) is_system: bool,
    /// For how many seconds it keeps points; 0 stands for ever.
    pub(crate) keeps_seconds: u64,
    /// How many seconds a shard of it covers, if the server says that.
    pub(crate) shard_seconds: Option<u64>,
    pub(crate) places: Vec<(String, String)>,
}

/// The buckets with their mappings, or which of the two could not be listed, and why.
pub(crate) type Mapped = std::result::Result<Vec<Bucket>, (&'static str, ArtifactOutcome)>;

/// The buckets of 2.x or Cloud TSM, of all organizations that the credentials see.
pub(crate) async fn mapped_buckets(server: &Server) -> Result<Mapped> {
    let all = Cloud::new(server.clone(), String::new());
    let buckets = match all.list("buckets", "buckets", 100).await? {
        Ok(buckets) => buckets,
        Err(why) => return Ok(Err(("buckets", why))),
    };
    let orgs: BTreeSet<&str> = buckets.iter().filter_map(|b| b["orgID"].as_str()).collect();
    let mut mapped = Vec::new();
    for org in orgs {
        match Cloud::new(server.clone(), org.to_owned()).mapped_buckets().await? {
            Ok(buckets) => mapped.extend(buckets),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(mapped))
}

/// The durations of retention policies as 1.x prints them, by the database and the name of the policy: for how long it
/// keeps points, and that of its shards.
pub(in crate::source) type Durations = HashMap<(String, String), (String, String)>;

/// The durations of all buckets that have a mapping. `SHOW RETENTION POLICIES` of 2.x says `0s` and `168h0m0s` for each.
pub(in crate::source) async fn durations(
    server: &Server,
) -> Result<std::result::Result<Durations, ArtifactOutcome>> {
    let buckets = match mapped_buckets(server).await? {
        Ok(buckets) => buckets,
        Err((_, why)) => return Ok(Err(why)),
    };
    let printed = |seconds: u64| match seconds {
        0 => "0s".to_owned(),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    };
    let mut durations = Durations::new();
    for bucket in buckets {
        let Some(shard) = bucket.shard_seconds else { continue };
        for place in bucket.places {
            durations.insert(place, (printed(bucket.keeps_seconds), printed(shard)));
        }
    }
    Ok(Ok(durations))
}

impl Cloud {
    /// An organization. An empty name stands for all that the credentials see.
    pub(super) fn new(server: Server, org: String) -> Self {
        Self { server, org }
    }

    /// The kilobytes that may be read in a second, averaged over five minutes: 0 if there is no limit, and `None` if the
    /// token may not ask.
    pub(super) async fn read_kilobytes(&self) -> Result<Option<u64>> {
        let path = format!("api/v2/orgs/{}/limits", self.org);
        let got = self.server.get(&path, &[], "application/json").await?;
        let limits = serde_json::from_str::<Value>(&got.text).unwrap_or_default();
        Ok(match got.status {
            200..=299 => limits["limits"]["rate"]["readKBs"].as_u64(),
            _ => None,
        })
    }

    /// The names of all buckets, each with whether it belongs to the server itself.
    pub(in crate::source) async fn buckets(&self) -> Result<Vec<(String, bool)>> {
        let all = match self.list("buckets", "buckets", 100).await? {
            Ok(all) => all,
            Err(status) => {
                return Err(Error::stop(format!("{}: buckets: {status}", self.server.address()))
                    .hint("allow the token to read buckets, or name them in the URL or in `databases`"));
            }
        };
        let pairs = all.iter().filter_map(|bucket| {
            Some((bucket["name"].as_str()?.to_owned(), bucket["type"].as_str() == Some("system")))
        });
        Ok(pairs.collect())
    }

    /// For each bucket that has a mapping, a database and a retention policy by which `/query` finds it.
    pub(in crate::source) async fn mappings(&self) -> Result<HashMap<String, (String, String)>> {
        let buckets = self.mapped_buckets().await?.map_err(|(what, why)| {
            Error::stop(format!("{}: {what}: {why}", self.server.address())).hint(
                "/query finds a bucket only by its DBRP mapping: allow the token to read buckets and mappings, or let \
                 HTTP/2 pass, so that Flight can be used",
            )
        })?;
        let first = |bucket: Bucket| Some((bucket.name, bucket.places.into_iter().next()?));
        Ok(buckets.into_iter().filter_map(first).collect())
    }

    async fn mapped_buckets(&self) -> Result<Mapped> {
        let buckets = match self.list("buckets", "buckets", 100).await? {
            Ok(buckets) => buckets,
            Err(why) => return Ok(Err(("buckets", why))),
        };
        let mappings = match self.list("dbrps", "content", 0).await? {
            Ok(mappings) => mappings,
            Err(why) => return Ok(Err(("DBRP mappings", why))),
        };
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
        let place = |mapping: &Value| {
            Some((text(mapping, "database")?, text(mapping, "retention_policy")?))
        };
        let buckets = buckets.iter().filter_map(|bucket| {
            let of_bucket = mappings.iter().filter(|mapping| mapping["bucketID"] == bucket["id"]);
            let rule = &bucket["retentionRules"][0];
            Some(Bucket {
                keeps_seconds: rule["everySeconds"].as_u64().unwrap_or(0),
                shard_seconds: rule["shardGroupDurationSeconds"].as_u64().filter(|n| *n > 0),
                id: text(bucket, "id")?,
                name: text(bucket, "name")?,
                is_system: bucket["type"] == "system",
                places: of_bucket.filter_map(place).collect(),
            })
        });
        Ok(Ok(buckets.collect()))
    }

    /// All artifacts that the page for cancelling the plan, or the specification of the interface, names.
    pub(in crate::source) async fn artifacts(&self, source: &str) -> Result<Artifacts> {
        let mut kept = Artifacts::of(source);
        let telegrafs = self.list("telegrafs", "configurations", 0).await?;
        for telegraf in telegrafs.iter().flatten() {
            let (config, _) =
                without_secrets_in_toml(telegraf["config"].as_str().unwrap_or_default());
            kept.file("telegrafs", &file_name(telegraf), "toml", config);
        }
        add(&mut kept, "telegrafs", telegrafs);

        let buckets = self.list("buckets", "buckets", 100).await?;
        let mut schemas = buckets.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
        for bucket in buckets.iter().flatten().filter(|b| b["schemaType"] == "explicit") {
            let id = bucket["id"].as_str().unwrap_or_default();
            let path = format!("buckets/{id}/schema/measurements");
            let of_bucket = self.list(&path, "measurementSchemas", 0).await?;
            schemas = schemas.and_then(|mut all: Vec<Value>| {
                all.push(json!({ "bucket": bucket["name"], "id": id, "measurements": of_bucket? }));
                Ok(all)
            });
        }
        add(&mut kept, "buckets", buckets);
        add(&mut kept, "bucket-schemas", schemas);

        let dashboards = self.list("dashboards", "dashboards", 100).await?;
        let mut whole = dashboards.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
        for dashboard in dashboards.iter().flatten() {
            // In the list, dashboards lack the queries of their cells.
            let id = dashboard["id"].as_str().unwrap_or_default();
            let one = self.one(&format!("dashboards/{id}"), &[("include", "properties")]).await?;
            whole = whole.and_then(|mut all: Vec<Value>| {
                all.push(one?);
                Ok(all)
            });
        }
        add(&mut kept, "dashboards", whole);

        for (kind, path, key, page) in LISTS {
            let rows = self.list(path, key, page).await?;
            if kind == "tasks" {
                for task in rows.iter().flatten() {
                    let flux = task["flux"].as_str().unwrap_or_default().to_owned();
                    kept.file("tasks", &file_name(task), "flux", flux);
                }
            }
            add(&mut kept, kind, rows);
        }
        for (kind, key) in [("secrets", "secrets"), ("members", "users"), ("owners", "users")] {
            let path = format!("orgs/{}/{kind}", self.org);
            let names = if kind == "secrets" { "secret-names" } else { kind };
            add(&mut kept, names, self.list(&path, key, 0).await?);
        }
        let limits = self.one(&format!("orgs/{}/limits", self.org), &[]).await?;
        add(&mut kept, "limits", limits.map(|limits| vec![limits]));
        add(&mut kept, "template", self.template().await?);
        Ok(kept)
    }

    /// All pages of a list.
    async fn list(&self, path: &str, key: &str, page: usize) -> Result<Had> {
        let mut all: Vec<Value> = Vec::new();
        let limit = page.to_string();
        loop {
            let after =
                all.last().and_then(|last| last["id"].as_str()).unwrap_or_default().to_owned();
            let mut query = Vec::new();
            if !self.org.is_empty() {
                query.push(("orgID", self.org.as_str()));
            }
            if page > 0 {
                query.push(("limit", &limit));
            }
            let offset = all.len().to_string();
            if !all.is_empty() {
                // Some lists know `after`, the others `offset`.
                match path {
                    "buckets" | "tasks" => query.push(("after", &after)),
                    _ => query.push(("offset", &offset)),
                }
            }
            let answer = match self.one(path, &query).await? {
                Ok(answer) => answer,
                Err(status) => return Ok(Err(status)),
            };
            let rows = answer[key].as_array().cloned().unwrap_or_default();
            // A server that ignores the offset would send the same page forever.
            let is_same = |old: &Value, row: &Value| match &row["id"] {
                Value::String(_) => old["id"] == row["id"],
                _ => old == row,
            };
            let known = |row: &Value| all.iter().any(|old| is_same(old, row));
            let fresh: Vec<Value> = rows.into_iter().filter(|row| !known(row)).collect();
            // Only an empty page ends the list, because a server may send fewer items than requested.
            let ends = page == 0 || fresh.is_empty();
            all.extend(fresh);
            if ends {
                return Ok(Ok(all));
            }
        }
    }

    async fn one(&self, path: &str, query: &[(&str, &str)]) -> Result<Had<Value>> {
        from_json(self.server.get(&format!("api/v2/{path}"), query, "application/json").await)
    }

    /// Everything as a template for `influx apply`, which contains no mappings, tokens or secrets.
    async fn template(&self) -> Result<Had> {
        let filters = json!({ "byLabel": [], "byResourceKind": [] });
        let body = json!({ "orgIDs": [{ "orgID": self.org, "resourceFilters": filters }] });
        from_json(self.server.post_json("api/v2/templates/export", &body).await)
    }
}

/// The content of an answer, or the outcome that explains why there is none. A quota is waited for.
fn from_json<T: DeserializeOwned>(reply: Result<Reply>) -> Result<Had<T>> {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) if matches!(error.class(), Class::Wait(_)) => return Err(error),
        Err(error) => return Ok(Err(ArtifactOutcome::Failed(error.to_string()))),
    };
    Ok(outcome(&reply).and_then(|()| {
        serde_json::from_str(&reply.text)
            .map_err(|error| ArtifactOutcome::Failed(format!("not JSON: {error}")))
    }))
}

fn outcome(reply: &Reply) -> Had<()> {
    match reply.status {
        200..=299 => Ok(()),
        status @ (401 | 403 | 404 | 405) => Err(ArtifactOutcome::NotAvailable(format!(
            "not part of this plan, or not allowed to this token (HTTP status {status})"
        ))),
        status => Err(ArtifactOutcome::Failed(format!("HTTP status {status}"))),
    }
}

/// Adds a kind of artifact without the values of secrets.
fn add(kept: &mut Artifacts, kind: &str, rows: Had) {
    let mut removed = 0;
    let rows =
        rows.map(|rows| rows.into_iter().map(|row| without_secrets(row, &mut removed)).collect());
    let saved = match removed {
        0 => String::new(),
        _ => format!("without the values of {removed} secrets"),
    };
    kept.list(kind, rows, saved);
}

/// `NAME-ID`.
fn file_name(resource: &Value) -> String {
    let name: String = resource["name"].as_str().unwrap_or("unnamed").chars().take(60).collect();
    format!("{name}-{}", resource["id"].as_str().unwrap_or("0"))
}

const REMOVED: &str = "removed by moveout";

fn is_secret_key(key: &str) -> bool {
    let key = key.to_lowercase();
    [
        "token",
        "password",
        "passwd",
        "secret",
        "api_key",
        "apikey",
        "routingkey",
        "access_key",
        "private_key",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// A reference to a secret or to the environment is not a secret itself.
fn is_reference(value: &str) -> bool {
    value.is_empty()
        || value.starts_with("secret: ")
        || value.starts_with('$')
        || value.starts_with("@{")
}

fn without_secrets(value: Value, removed: &mut usize) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(text) if is_secret_key(&key) && !is_reference(&text) => {
                    *removed += 1;
                    (key, REMOVED.into())
                }
                Value::String(text) if key == "config" => {
                    let (text, count) = without_secrets_in_toml(&text);
                    *removed += count;
                    (key, text.into())
                }
                other => (key, without_secrets(other, removed)),
            })
            .collect(),
        Value::Array(values) => {
            values.into_iter().map(|value| without_secrets(value, removed)).collect()
        }
        other => other,
    }
}

/// The text of a Telegraf configuration, line by line: `token = "…"` without its value.
fn without_secrets_in_toml(text: &str) -> (String, usize) {
    let mut removed = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
        let bare = key.trim().trim_start_matches('#').trim().trim_matches(['"', '\'']);
        let inner = value.trim().trim_start_matches(['"', '\'']);
        if !is_secret_key(bare) || is_reference(inner.trim_end_matches(['"', '\''])) {
            return line.to_owned();
        }
        removed += 1;
        let end = if line.ends_with('\n') { "\n" } else { "" };
        format!("{key}= \"{REMOVED}\"{end}")
    });
    let text = lines.collect();
    (text, removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_removed_and_references_stay() {
        let mut removed = 0;
        let config = "[[outputs]]\n  token = \"abc\"\n  urls = [\"https://h\"]\n# password = 'x'\n  token = \"$T\"\n";
        let value = json!({
            "name": "n", "token": "abc", "routingKey": "secret: KEY", "of": [{ "password": "p" }], "config": config
        });
        let kept = without_secrets(value, &mut removed);
        assert_eq!(removed, 4);
        assert_eq!(kept["token"], REMOVED);
        assert_eq!(kept["routingKey"], "secret: KEY");
        assert_eq!(kept["of"][0]["password"], REMOVED);
        assert_eq!(
            kept["config"],
            "[[outputs]]\n  token = \"removed by moveout\"\n  urls = [\"https://h\"]\n# password = \"removed by \
             moveout\"\n  token = \"$T\"\n"
        );
    }
}
