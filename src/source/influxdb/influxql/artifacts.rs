//! What an InfluxDB has besides rows, as JSON: databases, retention policies, continuous queries, subscriptions, users and
//! grants (never a secret).

use serde_json::{Value, json};

use crate::error::{Class, Result};
use crate::model::{ArtifactOutcome, Artifacts};
use crate::source::influxdb::cloud::{self, Durations};
use crate::source::influxdb::http::Server;
use crate::source::influxdb::influxql::statements::quoted;
use crate::source::influxdb::metadata::Series;

/// Asks for each kind. One that the server lacks or does not show is reported, and is not an error.
pub(super) async fn collect(
    source: &str,
    server: &Server,
    databases: &[String],
    has_buckets: bool,
) -> Result<Artifacts> {
    let mut artifacts = Artifacts::of(source);
    let names = databases.iter().map(|name| json!({ "name": name })).collect();
    artifacts.list("databases", Ok(names), String::new());
    let (durations, remark) = match has_buckets {
        false => (Durations::new(), String::new()),
        true => match cloud::durations(server).await? {
            Ok(durations) => (durations, String::new()),
            Err(why) => (Durations::new(), format!("without the durations of the buckets: {why}")),
        },
    };
    let mut policies = Ok(Vec::new());
    for database in databases {
        let statement = format!("SHOW RETENTION POLICIES ON {}", quoted(database));
        let rows = show(server, &statement).await?;
        policies = policies.and_then(|mut all: Vec<Value>| {
            all.extend(rows?.into_iter().map(|mut row| {
                row["database"] = database.clone().into();
                let name = row["name"].as_str().unwrap_or_default().to_owned();
                if let Some((keeps, shard)) = durations.get(&(database.clone(), name)) {
                    row["duration"] = keeps.clone().into();
                    row["shardGroupDuration"] = shard.clone().into();
                }
                row
            }));
            Ok(all)
        });
    }
    artifacts.list("retention-policies", policies, remark);
    let mut add = |kind: &str, rows| artifacts.list(kind, rows, String::new());
    add("continuous-queries", show(server, "SHOW CONTINUOUS QUERIES").await?);
    add("subscriptions", show(server, "SHOW SUBSCRIPTIONS").await?);
    let users = show(server, "SHOW USERS").await?;
    let mut grants = users.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
    for user in users.iter().flatten().filter_map(|row| row["user"].as_str()) {
        let rows = show(server, &format!("SHOW GRANTS FOR {}", quoted(user))).await?;
        grants = grants.and_then(|mut all| {
            all.extend(rows?.into_iter().map(|mut row| {
                row["user"] = user.into();
                row
            }));
            Ok(all)
        });
    }
    add("users", users);
    add("grants", grants);
    Ok(artifacts)
}

/// The rows of a SHOW statement as objects, or the outcome that explains why there are none.
async fn show(
    server: &Server,
    statement: &str,
) -> Result<std::result::Result<Vec<Value>, ArtifactOutcome>> {
    let answer = match server.query(statement).await {
        Ok(answer) => answer,
        // The credentials do not allow it, or the server (2.x) has no such statement. Other errors may be temporary.
        Err(error) if matches!(error.class(), Class::Stop | Class::Fail) => {
            return Ok(Err(ArtifactOutcome::NotAvailable(error.to_string())));
        }
        Err(error) => return Ok(Err(ArtifactOutcome::Failed(error.to_string()))),
    };
    let rows = answer.iter().flat_map(|statement| &statement.series).flat_map(objects);
    Ok(Ok(rows.collect()))
}

// A subscription's destination may hold a user and a password.
fn objects(series: &Series) -> Vec<Value> {
    let rows = series.values.iter().map(|row| {
        let mut object = json!({});
        if !series.name.is_empty() {
            object["of"] = series.name.clone().into();
        }
        for (column, value) in series.columns.iter().zip(row) {
            object[column] = without_userinfo(value);
        }
        object
    });
    rows.collect()
}

fn without_userinfo(value: &Value) -> Value {
    match value {
        Value::String(text) => match url::Url::parse(text) {
            Ok(mut url)
                if url.has_authority()
                    && (url.password().is_some() || !url.username().is_empty()) =>
            {
                // Neither can fail for a URL that has an authority.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.to_string().into()
            }
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(without_userinfo).collect(),
        other => other.clone(),
    }
}
