//! The databases and tables of InfluxDB 3. The set and the order of a table's tags are fixed by what makes it, so that a
//! restore makes each table before its rows.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::policies::has_mixed_types;
use super::send::Place;
use crate::error::Result;
use crate::model::Role;
use crate::retry::Retry;
use crate::source::influxdb::core;
use crate::source::influxdb::http::{Reply, Server};
use crate::target::{Placed, Plan};
use crate::text::several;

/// Core's own limits (`CORE_NUM_DBS_LIMIT`, `CORE_NUM_TABLES_LIMIT`).
const DATABASES: usize = 5;
const TABLES: usize = 2_000;

/// The answer names the lines that are refused; the others are taken.
pub(super) fn place(database: String) -> Place {
    let query = [
        ("db", database),
        ("precision", "nanosecond".to_owned()),
        ("accept_partial", "true".to_owned()),
    ];
    Place { path: "api/v3/write_lp", query: query.into() }
}

/// What would be made, a line each.
pub(super) async fn missing(
    server: &Server,
    retry: &Retry,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let there = databases(server, retry).await?;
    let wanted = by_database(plan);
    let shown = |name: &str| name.escape_debug().to_string();
    let new: Vec<&&str> = wanted.keys().filter(|name| !there.contains(**name)).collect();
    let mut lines: Vec<String> =
        new.iter().map(|name| format!("the database {}", shown(name))).collect();
    lines.extend(plan.tables.iter().map(|table| format!("the table {}", table.to)));
    if there.len() + new.len() > DATABASES || plan.tables.len() > TABLES {
        notes.push(format!(
            "InfluxDB 3 Core takes {DATABASES} databases and {TABLES} tables; the target would have {} and {} or more",
            several((there.len() + new.len()) as u64, "database"),
            several(plan.tables.len() as u64, "table"),
        ));
    }
    for table in plan.tables.iter().filter(|table| has_mixed_types(&table.columns)) {
        notes.push(format!(
            "{} has a field of several types; InfluxDB 3 keeps one type of a field, and rows of another are rejected",
            table.from
        ));
    }
    Ok(lines)
}

/// Makes the databases and tables that are not there.
pub(super) async fn create(server: &Server, retry: &Retry, plan: &Plan) -> Result<()> {
    let there = databases(server, retry).await?;
    for (database, tables) in by_database(plan) {
        if !there.contains(database) {
            let reply =
                post(server, retry, "api/v3/configure/database", &json!({ "db": database }))
                    .await?;
            if reply.status != 409 {
                reply.into_success(server).map_err(|error| {
                    error.context(format!("making the database {}", database.escape_debug()))
                })?;
            }
        }
        for table in tables {
            let tags = table.columns.iter().filter(|column| column.role == Role::Tag);
            let tags: Vec<&str> = tags.map(|column| column.key.as_str()).collect();
            let body =
                json!({ "db": database, "table": table.to.table, "tags": tags, "fields": [] });
            let reply = post(server, retry, "api/v3/configure/table", &body).await?;
            // The first line makes the table as well, if the server takes its name there alone.
            if !matches!(reply.status, 200..=299 | 400 | 409 | 422) {
                reply
                    .into_success(server)
                    .map_err(|error| error.context(format!("making the table {}", table.to)))?;
            }
        }
    }
    Ok(())
}

async fn databases(server: &Server, retry: &Retry) -> Result<HashSet<String>> {
    let list = || core::databases(server);
    let names = retry.with_retry(&server.address(), list).await?;
    Ok(names.into_iter().filter(|(_, is_system)| !is_system).map(|(name, _)| name).collect())
}

fn by_database(plan: &Plan) -> BTreeMap<&str, Vec<&Placed>> {
    let mut databases = BTreeMap::<&str, Vec<&Placed>>::new();
    for table in &plan.tables {
        databases.entry(&table.to.database).or_default().push(table);
    }
    databases
}

/// Posts a definition. Status 409 says that it is there already, since an earlier run has made it.
async fn post(server: &Server, retry: &Retry, path: &str, body: &Value) -> Result<Reply> {
    retry.with_retry(&server.address(), || server.post_json(path, body)).await
}
