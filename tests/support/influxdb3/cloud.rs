//! The resources of Serverless besides its data: shapes as the public specification of InfluxDB Cloud
//! has them. What a server does not have any more is a fault, as in
//! `fault(|path| path == "GET /api/v2/tasks", usize::MAX, Fault::json(404, "not found", "..."))`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::api::{Answer, Call};
use super::{ORG, State, bucket_id, lock};

/// What must never be in an export.
pub(crate) const SECRET_TOKEN: &str = "token-that-must-never-be-exported";

/// The configuration of Telegraf that is there from the start.
pub(crate) const TELEGRAF: &str = "# Telegraf, as it was saved\n[agent]\n  interval = \"10s\"\n\n\
    [[outputs.influxdb_v2]]\n  urls = [\"https://eu-central-1-1.aws.cloud2.influxdata.com\"]\n  \
    token = \"$INFLUX_TOKEN\"\n  organization = \"org\"\n  bucket = \"metrics\"\n";

/// Some of each kind, by the last part of the path.
pub(super) fn artifacts() -> BTreeMap<String, Json> {
    let id = |number: u8| format!("0a000000000000{number:02x}");
    let kinds = json!({
        "telegrafs": [{
            "id": id(1), "orgID": ORG, "name": "hosts", "description": "", "config": TELEGRAF,
            "metadata": { "buckets": ["metrics"] },
        }],
        "dbrps": [{
            "id": id(2), "orgID": ORG, "bucketID": "0b0c000000000001", "database": "metrics",
            "retention_policy": "autogen", "default": true,
        }],
        "authorizations": [{
            "id": id(3), "orgID": ORG, "status": "active", "description": "reader",
            "permissions": [{ "action": "read", "resource": { "type": "buckets", "orgID": ORG } }],
            "token": SECRET_TOKEN,
        }],
        "secrets": ["PAGERDUTY_KEY", "SLACK_URL"],
        "members": [{ "id": id(4), "name": "somebody@example.com", "role": "member" }],
        "owners": [{ "id": id(5), "name": "owner@example.com", "role": "owner" }],
        "labels": [{ "id": id(6), "orgID": ORG, "name": "prod", "properties": { "color": "#f00" } }],
        "variables": [{
            "id": id(7), "orgID": ORG, "name": "host", "selected": [],
            "arguments": { "type": "constant", "values": ["a", "b"] },
        }],
        "dashboards": [{
            "id": id(8), "orgID": ORG, "name": "Overview", "description": "", "cells": [{
                "id": id(9), "x": 0, "y": 0, "w": 4, "h": 4,
                "properties": { "type": "xy", "queries": [{ "text": "SELECT * FROM cpu" }] },
            }],
        }],
        "tasks": [{
            "id": id(10), "orgID": ORG, "name": "downsample", "status": "active", "every": "1h",
            "flux": "option task = {name: \"downsample\", every: 1h}\nfrom(bucket: \"metrics\")",
        }],
        "checks": [{ "id": id(11), "orgID": ORG, "name": "dead", "type": "deadman" }],
        "notificationRules": [{ "id": id(12), "orgID": ORG, "name": "page", "type": "pagerduty" }],
        "notificationEndpoints": [{
            "id": id(13), "orgID": ORG, "name": "duty", "type": "pagerduty",
            "routingKey": "secret: PAGERDUTY_KEY",
        }],
        "scripts": [{
            "id": id(14), "orgID": ORG, "name": "last", "language": "flux", "script": "from()",
        }],
        "stacks": [],
        "measurements": [],
    });
    serde_json::from_value(kinds).unwrap()
}

/// The key of a list's array, and its default and greatest page, 0 without pages.
fn list(kind: &str) -> Option<(&'static str, usize, usize)> {
    Some(match kind {
        "telegrafs" => ("configurations", 0, 0),
        "dbrps" => ("content", 0, 0),
        "authorizations" => ("authorizations", 20, 100),
        "labels" => ("labels", 0, 0),
        "variables" => ("variables", 0, 0),
        "dashboards" => ("dashboards", 20, 100),
        "tasks" => ("tasks", 100, 500),
        "checks" => ("checks", 20, 100),
        "notificationRules" => ("notificationRules", 20, 100),
        "notificationEndpoints" => ("notificationEndpoints", 20, 100),
        "scripts" => ("scripts", 100, 500),
        "stacks" => ("stacks", 0, 0),
        _ => return None,
    })
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({ "code": code, "message": message }))
}

pub(super) fn answer(call: &Call, state: &State) -> Answer {
    let missing = || error(404, "not found", "path not found");
    let Some(path) = call.path.strip_prefix("/api/v2/") else { return missing() };
    let parts: Vec<_> = path.split('/').collect();
    if (call.method.as_str(), path) == ("POST", "templates/export") {
        return template(call, state);
    }
    if call.method != "GET" {
        return error(405, "method not allowed", "allow: [GET]");
    }
    match parts[..] {
        ["orgs"] => {
            let org = json!({ "id": ORG, "name": "org", "defaultStorageType": "iox" });
            let links = json!({ "self": "/api/v2/orgs" });
            Answer::json(200, &json!({ "links": links, "orgs": [org] }))
        }
        ["orgs", ORG, "limits"] => limits(state),
        ["orgs", ORG, "usage"] => match call.get("start") {
            None => error(400, "invalid", "start is required"),
            Some(_) => Answer::of(200, "text/csv", USAGE),
        },
        ["orgs", ORG, kind @ ("secrets" | "members" | "owners")] => {
            let key = if kind == "secrets" { "secrets" } else { "users" };
            Answer::json(200, &json!({ key: artifact(state, kind) }))
        }
        ["buckets"] => buckets(call, state),
        ["buckets", id, "schema", "measurements"] => schemas(id, state),
        [kind] if list(kind).is_some() => several(kind, call, state),
        [kind, id] if list(kind).is_some() => one(kind, id, call, state),
        _ => missing(),
    }
}

fn artifact(state: &State, kind: &str) -> Json {
    lock(&state.artifacts).get(kind).cloned().unwrap_or_else(|| json!([]))
}

fn several(kind: &str, call: &Call, state: &State) -> Answer {
    if matches!(kind, "checks" | "notificationRules" | "notificationEndpoints" | "dbrps")
        && call.get("orgID").is_none()
    {
        return error(400, "invalid", "orgID is required");
    }
    let Some((key, page, most)) = list(kind) else { return error(404, "not found", kind) };
    let artifacts = artifact(state, kind).as_array().cloned().unwrap_or_default();
    let (mut artifacts, links) = paged(artifacts, kind, call, page, most);
    if kind == "dashboards" {
        artifacts.iter_mut().for_each(|dashboard| hide_queries(dashboard, call));
    }
    let links = json!({ "links": links, key: artifacts });
    Answer::json(200, &links)
}

/// This page, and the links to it and to the next one.
fn paged(
    mut all: Vec<Json>,
    kind: &str,
    call: &Call,
    page: usize,
    most: usize,
) -> (Vec<Json>, Json) {
    let links = json!({ "self": format!("/api/v2/{kind}") });
    if most == 0 {
        return (all, links);
    }
    let number = |name| call.get(name).and_then(|text| text.parse::<usize>().ok());
    let limit = number("limit").unwrap_or(page).clamp(1, most);
    if let Some(after) = call.get("after") {
        let place = all.iter().position(|one| one["id"] == after);
        drop(all.drain(..place.map_or(all.len(), |place| place + 1)));
    }
    drop(all.drain(..number("offset").unwrap_or(0).min(all.len())));
    let more = all.len() > limit;
    all.truncate(limit);
    let mut links = links;
    if let Some(last) = all.last().filter(|_| more) {
        let after = last["id"].as_str().unwrap_or_default();
        links["next"] = json!(format!("/api/v2/{kind}?after={after}&limit={limit}"));
    }
    (all, links)
}

fn one(kind: &str, id: &str, call: &Call, state: &State) -> Answer {
    let artifacts = artifact(state, kind);
    let found = artifacts.as_array().and_then(|all| all.iter().find(|one| one["id"] == id));
    let Some(mut found) = found.cloned() else { return error(404, "not found", "not found") };
    // TOML unless JSON is asked for.
    if kind == "telegrafs" && !call.accept.contains("application/json") {
        let toml = found["config"].as_str().unwrap_or_default();
        let binary = call.accept.contains("application/octet-stream");
        let content_type =
            if binary { "application/octet-stream" } else { "application/toml; charset=utf-8" };
        return Answer::of(200, content_type, toml);
    }
    if kind == "dashboards" {
        hide_queries(&mut found, call);
    }
    Answer::json(200, &found)
}

/// Cells have no queries unless they are asked for, which a list does not know.
fn hide_queries(dashboard: &mut Json, call: &Call) {
    let asked = call.get("include") == Some("properties") && call.path != "/api/v2/dashboards";
    for cell in dashboard["cells"].as_array_mut().into_iter().flatten().filter(|_| !asked) {
        cell.as_object_mut().map(|cell| cell.remove("properties"));
    }
}

fn buckets(call: &Call, state: &State) -> Answer {
    let databases = lock(&state.databases);
    let mut all: Vec<_> = databases.iter().collect();
    all.sort_by_key(|(_, database)| database.id);
    let user = all.into_iter().map(|(name, database)| {
        let seconds = database.retention.map_or(0, |age| age.as_secs());
        (bucket_id(database), name.as_str(), "user", seconds)
    });
    let system = [
        ("0b0cffffffff0001".to_owned(), "_monitoring", "system", 7 * 86_400),
        ("0b0cffffffff0002".to_owned(), "_tasks", "system", 3 * 86_400),
    ];
    let explicit = artifact(state, "measurements");
    let explicit = explicit.as_array().is_some_and(|schemas| !schemas.is_empty());
    let all = user.chain(system).filter(|bucket| call.get("name").is_none_or(|n| n == bucket.1));
    let all = all.map(|(id, name, kind, seconds)| {
        json!({
            "id": id, "orgID": ORG, "name": name, "type": kind, "labels": [],
            "schemaType": if explicit && kind == "user" { "explicit" } else { "implicit" },
            "storageType": "iox",
            "retentionRules": [{ "type": "expire", "everySeconds": seconds }],
            "createdAt": "2025-01-01T00:00:00Z",
        })
    });
    let (buckets, links) = paged(all.collect(), "buckets", call, 20, 100);
    Answer::json(200, &json!({ "links": links, "buckets": buckets }))
}

/// Of explicit buckets: all user buckets are that when there are some schemas.
fn schemas(id: &str, state: &State) -> Answer {
    let known = lock(&state.databases).values().any(|database| bucket_id(database) == id);
    if !known {
        return error(404, "not found", "bucket not found");
    }
    Answer::json(200, &json!({ "measurementSchemas": artifact(state, "measurements") }))
}

fn limits(state: &State) -> Answer {
    let options = state.options();
    // In 5 minutes, even if the window of a test is shorter. 0 is no limit.
    let read = options.quota.map_or(0, |quota| quota.bytes / 300_000);
    let ten_minutes = 600_000_000_000u64;
    let limits = json!({
        "orgID": ORG,
        "rate": {
            "readKBs": read, "writeKBs": 17, "queryTime": ten_minutes, "cardinality": 0,
            "concurrentReadRequests": 0, "concurrentWriteRequests": 0,
        },
        "timeout": { "queryUnconditionalTimeoutSeconds": 90, "queryidleWriteTimeoutSeconds": 0 },
        "bucket": { "maxBuckets": 2, "maxRetentionDuration": 2_592_000_000_000_000u64 },
        "ioxQuery": {
            "partitions": options.partitions.unwrap_or(0),
            "parquetFiles": options.parquet_files.unwrap_or(0),
        },
    });
    let links = json!({ "self": format!("/api/v2/orgs/{ORG}/limits") });
    Answer::json(200, &json!({ "links": links, "limits": limits }))
}

const USAGE: &str = "#group,false,false,true,true,false,false\r\n\
    #datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,long,string\r\n\
    #default,_result,,,,,\r\n\
    ,result,table,_start,_stop,_value,_field\r\n\
    ,,0,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,12345,req_bytes\r\n";

/// All as a template, as JSON; the stand-in has no YAML.
fn template(call: &Call, state: &State) -> Answer {
    let body: Json = serde_json::from_slice(&call.body).unwrap_or_default();
    if body["orgIDs"][0]["orgID"] != ORG {
        return error(
            400,
            "invalid",
            "at least 1 resource, 1 org id, or stack id must be provided",
        );
    }
    let kinds = [("telegrafs", "Telegraf"), ("labels", "Label"), ("tasks", "Task")];
    let mut objects = Vec::new();
    for (kind, name) in kinds {
        let artifacts = artifact(state, kind);
        for (number, artifact) in artifacts.as_array().into_iter().flatten().enumerate() {
            objects.push(json!({
                "apiVersion": "influxdata.com/v2alpha1", "kind": name,
                "metadata": { "name": format!("{kind}-{number}") },
                "spec": { "name": artifact["name"] },
            }));
        }
    }
    Answer::json(200, &Json::Array(objects))
}
