//! What only InfluxDB 3 Core and Enterprise offer over HTTP: the list of their databases, and SQL.

use serde_json::{Value, json};

use crate::error::{Class, Error, Result};
use crate::model::{ArtifactOutcome, Artifacts};
use crate::source::influxdb::http::Server;

/// The names of all databases that are not deleted, each with whether it belongs to the server itself.
pub(crate) async fn databases(server: &Server) -> Result<Vec<(String, bool)>> {
    // The parameter `format` is required.
    let answer =
        server.get("api/v3/configure/database", &[("format", "json")], "application/json").await?;
    let text = answer.into_success(server)?;
    let rows: Vec<Value> = serde_json::from_str(&text).map_err(|error| {
        Error::of(
            Class::Retry,
            format!("{}: the list of databases is not JSON: {error}", server.address()),
        )
    })?;
    let living = rows.iter().filter(|row| row["deleted"].as_bool() != Some(true));
    let names = living.filter_map(|row| row["iox::database"].as_str().or(row["name"].as_str()));
    Ok(names.map(|name| (name.to_owned(), name == "_internal")).collect())
}

/// The rows of an SQL query with a small answer, and the bytes of the answer. The answer is one array, so a truncated one
/// is not valid JSON. Nulls are left out of a row.
pub(crate) async fn query_sql(
    server: &Server,
    database: &str,
    sql: &str,
) -> Result<(Vec<Value>, u64)> {
    let body = json!({ "db": database, "q": sql, "format": "json" });
    let text = server.post_json("api/v3/query_sql", &body).await?.into_success(server)?;
    let rows = serde_json::from_str(&text).map_err(|error| {
        let text = format!("{}: the answer is not JSON: {error}", server.address());
        Error::of(Class::Retry, text)
    })?;
    Ok((rows, text.len() as u64))
}

/// The artifacts of Core and Enterprise, which have little besides rows.
pub(in crate::source) async fn artifacts(server: &Server, source: &str) -> Result<Artifacts> {
    let mut artifacts = Artifacts::of(source);
    let names = databases(server).await.map_err(|error| match error.class() {
        Class::Stop => ArtifactOutcome::NotAvailable(error.to_string()),
        _ => ArtifactOutcome::Failed(error.to_string()),
    });
    let names = names.map(|names| names.into_iter().map(|(name, _)| json!({ "name": name })));
    artifacts.list("databases", names.map(Iterator::collect), String::new());
    Ok(artifacts)
}
