//! InfluxQL of the stand-in, by `/query`: the few statements that somebody asks who reads everything out,
//! turned into SQL. Answers as those of Core 3.6, or with [`Options::partial`] as those of later servers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType, UInt64Type};
use chrono::DateTime;
use futures::TryStreamExt;
use serde_json::{Map, Value as Json, json};

use super::api::{Answer, Call};
use super::sql::{self, Refusal};
use super::{Break, Fault, Product, Query, State, bucket_id, lock, quota_text};

/// A `SELECT` of all fields, or of their counts.
#[derive(Debug, Default)]
struct Select {
    counts: bool,
    table: String,
    /// In SQL.
    condition: String,
    by_tags: bool,
    order: Option<(&'static str, usize)>,
}

/// `None` closes the connection.
pub(super) async fn answer(call: &Call, state: &Arc<State>) -> Option<Answer> {
    let form: HashMap<String, String> =
        url::form_urlencoded::parse(&call.body).into_owned().collect();
    let parameter = |name: &str| form.get(name).map(String::as_str).or_else(|| call.get(name));
    let Some(text) = parameter("q") else {
        return Some(Answer::text(400, "missing query parameter 'q'"));
    };
    let database = database(state, parameter("db").unwrap_or_default(), parameter("rp"));
    let query = Query { database: database.clone().unwrap_or_default(), sql: text.to_owned() };
    lock(&state.queries).push(query);
    let fault = state.fault(text);
    match &fault {
        Some(Fault::Http { status, headers, body }) => {
            let (headers, body) = (headers.clone(), body.clone().into_bytes());
            return Some(Answer { headers, ..Answer::of(*status, "", body) });
        }
        Some(Fault::BreakAtOnce(_)) => return None,
        Some(Fault::SlowPlan(pause)) => tokio::time::sleep(*pause).await,
        Some(Fault::Write(lines)) => {
            state.write(database.as_deref().unwrap_or_default(), lines, true);
        }
        _ => {}
    }
    if let Err(seconds) = state.admit() {
        let body = json!({ "code": "too many requests", "message": quota_text() });
        return Some(Answer::json(429, &body).with("retry-after", seconds));
    }
    // Later servers, and those in the cloud, know it.
    if state.options().partial.is_none() && call.accept.contains("msgpack") {
        return Some(Answer::text(500, &format!("invalid mime type ({})", call.accept)));
    }
    let upper = text.trim().to_ascii_uppercase();
    let lists = ["SHOW DATABASES", "SHOW RETENTION POLICIES"];
    if state.product == Product::Core && lists.iter().any(|list| upper.starts_with(list)) {
        return None;
    }
    let name = parameter("db").unwrap_or_default();
    let Some(database) = database else {
        return Some(refused(state, &format!("database not found: {name}"), 404));
    };
    if upper.starts_with("SHOW") {
        return Some(match show(state, &database, &upper) {
            Some(series) => finish(state, vec![object(series, false)], None),
            None => refused(state, "error in InfluxQL statement: parsing error", 500),
        });
    }
    let Some(select) = parse(text) else {
        return Some(refused(state, "error in InfluxQL statement: parsing error", 500));
    };
    let series = match run(state, &database, text, &select).await {
        Ok(series) => series,
        Err(text) => return Some(refused(state, &text, 500)),
    };
    let partial = state.options().partial == Some(true);
    let objects = match parameter("chunked") {
        Some("true") => {
            let rows = parameter("chunk_size").and_then(|size| size.parse().ok()).unwrap_or(10_000);
            let chunks: Vec<_> = series.into_iter().flat_map(|one| split(one, rows)).collect();
            let last = chunks.len().saturating_sub(1);
            let chunks = chunks.into_iter().enumerate();
            chunks.map(|(at, chunk)| object(vec![chunk], partial && at < last)).collect()
        }
        _ => vec![object(series.into_iter().rev().collect(), false)],
    };
    // Later servers say nothing at all when there are no rows.
    let objects = match objects.is_empty() && !partial {
        true => vec![object(Vec::new(), false)],
        false => objects,
    };
    let how = match fault {
        Some(Fault::Break { batches, how }) => Some((batches, how)),
        _ => None,
    };
    Some(finish(state, objects, how))
}

/// On Serverless by the mappings, elsewhere by name.
fn database(state: &State, name: &str, policy: Option<&str>) -> Option<String> {
    let databases = lock(&state.databases);
    if state.product != Product::Serverless {
        return databases.contains_key(name).then(|| name.to_owned());
    }
    let mappings = lock(&state.artifacts).get("dbrps").cloned().unwrap_or_default();
    let mapping = mappings.as_array()?.iter().find(|mapping| {
        let by_policy = |policy: &str| mapping["retention_policy"] == *policy;
        mapping["database"] == name && policy.map_or(mapping["default"] == true, by_policy)
    })?;
    let mut all = databases.iter();
    all.find(|(_, database)| mapping["bucketID"] == bucket_id(database)).map(|all| all.0.clone())
}

/// Core 3.6 says it with a status, the others with 200.
fn refused(state: &State, text: &str, status: u16) -> Answer {
    if state.product != Product::Core || state.options().partial.is_some() {
        let body = json!({ "results": [{ "statement_id": 0, "error": text }] });
        return Answer::json(200, &body);
    }
    match status {
        404 => Answer::json(404, &json!({ "error": format!("query error: {text}") })),
        status => Answer::text(status, text),
    }
}

fn object(series: Vec<Json>, partial: bool) -> String {
    let mut result = json!({ "statement_id": 0 });
    if !series.is_empty() {
        result["series"] = series.into();
    }
    if partial {
        result["partial"] = true.into();
    }
    format!("{}\r\n", json!({ "results": [result] }))
}

/// The body, which may break after so many objects.
fn finish(state: &State, objects: Vec<String>, how: Option<(usize, Break)>) -> Answer {
    let body = objects.concat();
    state.count(body.len());
    let cut = how.map(|(count, how)| {
        let kept = objects.iter().take(count).map(String::len).sum();
        (kept, how)
    });
    Answer { cut, ..Answer::of(200, "application/json", body) }
}

/// Catalogs, which know nothing of time.
fn show(state: &State, database: &str, text: &str) -> Option<Vec<Json>> {
    let databases = lock(&state.databases);
    let tables = &databases.get(database)?.tables;
    let series = |name: &str, columns: Json, values: Vec<Json>| {
        (!values.is_empty()).then(|| json!({ "name": name, "columns": columns, "values": values }))
    };
    let of_tables = |columns: Json, of: fn(&arrow::datatypes::Field) -> Option<Json>| {
        let all = tables.iter().filter_map(|(name, table)| {
            let schema = table.schema();
            let values = schema.fields().iter().filter_map(|field| of(field)).collect();
            series(name, columns.clone(), values)
        });
        Some(all.collect())
    };
    match text {
        "SHOW MEASUREMENTS" => {
            let names = tables.keys().map(|name| json!([name])).collect();
            Some(series("measurements", json!(["name"]), names).into_iter().collect())
        }
        "SHOW FIELD KEYS" => of_tables(json!(["fieldKey", "fieldType"]), |field| {
            Some(json!([field.name(), field_type(field.data_type())?]))
        }),
        "SHOW TAG KEYS" => of_tables(json!(["tagKey"]), |field| {
            is_tag(field.data_type()).then(|| json!([field.name()]))
        }),
        _ => None,
    }
}

fn is_tag(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(..))
}

fn field_type(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Float64 => "float",
        DataType::Int64 => "integer",
        DataType::UInt64 => "unsigned",
        DataType::Utf8 => "string",
        DataType::Boolean => "boolean",
        _ => return None,
    })
}

fn parse(text: &str) -> Option<Select> {
    let mut select = Select::default();
    let mut rest = match text.strip_prefix("SELECT count(*) FROM ") {
        Some(rest) => {
            select.counts = true;
            rest
        }
        None => text.strip_prefix("SELECT *::field FROM ")?,
    };
    let mut name = rest.strip_prefix('"')?.char_indices();
    loop {
        match name.next()? {
            (_, '\\') => select.table.push(match name.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            (at, '"') => {
                rest = &rest[at + 2..];
                break;
            }
            (_, other) => select.table.push(other),
        }
    }
    let mut words = rest.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            "WHERE" | "AND" => {
                let ("time", op, time) = (words.next()?, words.next()?, words.next()?) else {
                    return None;
                };
                let time = DateTime::from_timestamp_nanos(time.parse().ok()?);
                let time = time.format("%Y-%m-%dT%H:%M:%S%.9fZ");
                let word = if word == "WHERE" { " WHERE" } else { " AND" };
                select.condition += &format!("{word} time {op} TIMESTAMP '{time}'");
            }
            "GROUP" => {
                select.by_tags = (words.next()?, words.next()?) == ("BY", "*");
            }
            "ORDER" => {
                let ("BY", "time", order) = (words.next()?, words.next()?, words.next()?) else {
                    return None;
                };
                let order = if order == "DESC" { "DESC" } else { "ASC" };
                let limit = (words.next()? == "LIMIT").then(|| words.next())??;
                select.order = Some((order, limit.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(select)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The series of a `SELECT`, or the text of its refusal.
async fn run(
    state: &Arc<State>,
    database: &str,
    text: &str,
    select: &Select,
) -> Result<Vec<Json>, String> {
    let schema = {
        let databases = lock(&state.databases);
        let tables = databases.get(database).map(|database| &database.tables);
        match tables.and_then(|tables| tables.get(&select.table)) {
            Some(table) => table.schema(),
            None => return Ok(Vec::new()),
        }
    };
    let names = |of: fn(&DataType) -> bool| -> Vec<String> {
        let fields = schema.fields().iter().filter(|field| of(field.data_type()));
        fields.map(|field| field.name().clone()).collect()
    };
    let (tags, fields) = (names(is_tag), names(|kind| field_type(kind).is_some()));
    let from = format!("FROM iox.{}{}", quoted(&select.table), select.condition);
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>();
    let sql = if select.counts {
        let counts = fields.iter().map(|field| {
            format!("count({}) AS {}", quoted(field), quoted(&format!("count_{field}")))
        });
        format!("SELECT {} {from}", counts.collect::<Vec<_>>().join(", "))
    } else {
        let columns = [vec!["time".to_owned()], list(&fields), list(&tags)].concat().join(", ");
        let order = match select.order {
            Some((order, limit)) => format!("time {order} LIMIT {limit}"),
            None => [list(&tags), vec!["time".to_owned()]].concat().join(", "),
        };
        format!("SELECT {columns} {from} ORDER BY {order}")
    };
    let mut planned =
        sql::plan_any(state, &state.options(), database, &sql).await.map_err(|refusal| {
            let said = match refusal {
                Refusal::NoDatabase => format!("database not found: {database}"),
                Refusal::Limit(text) => text.replace("Error while", "error while"),
                Refusal::Plan(error) => format!("error while planning query: {error}"),
            };
            format!("query error: {said}")
        })?;
    planned.scan.sql = text.to_owned();
    tokio::time::sleep((state.options().cost)(&planned.scan)).await;
    let schema = Arc::clone(&planned.schema);
    let batches: Vec<RecordBatch> =
        planned.batches.try_collect().await.map_err(|error| error.to_string())?;
    let batches: Vec<_> = batches
        .into_iter()
        .map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).unwrap())
        .collect();
    let rows = concat_batches(&schema, &batches).map_err(|error| error.to_string())?;
    let whole = state.options().partial.is_some();
    Ok(match select.counts {
        true => counted(&select.table, &rows),
        false => series(&select.table, &rows, fields.len(), select.by_tags, whole),
    })
}

/// Nothing where there is no value.
fn counted(table: &str, rows: &RecordBatch) -> Vec<Json> {
    let counts = rows.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0));
    let counts: Vec<i64> = counts.collect();
    if counts.iter().all(|count| *count == 0) {
        return Vec::new();
    }
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let columns: Vec<&str> = std::iter::once("time").chain(names).collect();
    let values: Vec<i64> = std::iter::once(0).chain(counts).collect();
    vec![json!({ "name": table, "columns": columns, "values": [values] })]
}

/// The tags and the rows of a series.
type Rows = (Option<Map<String, Json>>, Vec<Json>);

/// Rows of the time, the fields and the tags, sorted by the tags, in series of the same tags.
fn series(table: &str, rows: &RecordBatch, fields: usize, by_tags: bool, whole: bool) -> Vec<Json> {
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>();
    let tags = rows.columns()[1 + fields..].iter();
    let tags: Vec<_> = tags.map(|column| cast(column, &DataType::Utf8).unwrap()).collect();
    let mut all: Vec<Rows> = Vec::new();
    for row in 0..rows.num_rows() {
        let of_row = tags.iter().zip(&names[1 + fields..]).map(|(values, name)| {
            let values = values.as_string::<i32>();
            let value = if values.is_valid(row) { values.value(row) } else { "" };
            ((*name).to_owned(), Json::from(value))
        });
        let of_row = (by_tags && !tags.is_empty()).then(|| of_row.collect());
        let fields = rows.columns()[1..=fields].iter().map(|column| value(column, row, whole));
        let values = std::iter::once(times.value(row).into()).chain(fields).collect();
        match all.last_mut().filter(|(tags, _)| *tags == of_row) {
            Some((_, rows)) => rows.push(values),
            None => all.push((of_row, vec![values])),
        }
    }
    let columns = json!(names[..=fields]);
    let all = all.into_iter().map(|(tags, values)| {
        let mut one = json!({ "name": table, "columns": columns, "values": values });
        if let Some(tags) = tags {
            one["tags"] = tags.into();
        }
        one
    });
    all.collect()
}

/// `whole`: as later servers write floats without a fraction, of which -0 is one.
fn value(column: &dyn Array, row: usize, whole: bool) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            match whole && value.fract() == 0.0 && value.abs() < i64::MAX as f64 {
                true => json!(value as i64),
                false => json!(value),
            }
        }
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        _ => json!(column.as_string::<i32>().value(row)),
    }
}

/// The same series, so many rows at a time.
fn split(one: Json, rows: usize) -> Vec<Json> {
    let values = one["values"].as_array().cloned().unwrap_or_default();
    let parts = values.chunks(rows.max(1)).map(|part| {
        let mut chunk = one.clone();
        chunk["values"] = part.into();
        chunk
    });
    parts.collect()
}
