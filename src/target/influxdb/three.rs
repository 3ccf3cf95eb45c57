//! The databases and tables of InfluxDB 3. What makes a table fixes the set and the order of its tags, so that a restore
//! makes each table before its rows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::policies::has_mixed_types;
use super::send::Place;
use crate::error::{Error, Result};
use crate::model::Role;
use crate::retry::Retry;
use crate::source::influxdb::core;
use crate::source::influxdb::http::{Reply, Server};
use crate::target::{Placed, Plan};
use crate::text::several;
use crate::window::DAY;

/// The limits of Core, which no setting changes (`CORE_NUM_DBS_LIMIT`, `CORE_NUM_TABLES_LIMIT`,
/// `CORE_NUM_COLUMNS_PER_TABLE_LIMIT`). The time is a column, too.
const DATABASES: usize = 5;
const TABLES: usize = 2_000;
const COLUMNS: usize = 500;
/// Core keeps a file for each ten minutes of a table, and refuses a query that needs more than 432 of them.
const DAYS_OF_A_QUERY: i64 = 3;
/// How many names a message has.
const SHOWN: usize = 5;

/// Where lines go. The answer names the lines that are refused, and the server takes the others.
pub(super) fn place(database: String) -> Place {
    let query = [
        ("db", database),
        ("precision", "nanosecond".to_owned()),
        ("accept_partial", "true".to_owned()),
    ];
    Place { path: "api/v3/write_lp", query: query.into() }
}

/// What would be made, a line each. An error if the server cannot have all of it.
pub(super) async fn missing(
    server: &Server,
    retry: &Retry,
    plan: &Plan,
    is_core: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let there = databases(server, retry).await?;
    let wanted = by_database(plan);
    let new: Vec<&str> = wanted.keys().copied().filter(|name| !there.contains(*name)).collect();
    let known = tables(server, retry, &there).await?;
    let is_new = |table: &&Arc<Placed>| {
        !known.contains(&(table.to.database.clone(), table.to.table.clone()))
    };
    let new_tables: Vec<&Arc<Placed>> = plan.tables.iter().filter(is_new).collect();
    if is_core {
        fits(there.len(), &new, known.len(), &new_tables, plan)?;
        notes.extend(warnings(plan));
    }
    let mut lines: Vec<String> =
        new.iter().map(|name| format!("the database {}", name.escape_debug())).collect();
    lines.extend(new_tables.iter().map(|table| format!("the table {}", table.to)));
    for table in plan.tables.iter().filter(|table| has_mixed_types(&table.columns)) {
        notes.push(format!(
            "{} has a field of several types; InfluxDB 3 keeps one type of a field, and rows of another are rejected",
            table.from
        ));
    }
    Ok(lines)
}

/// An error if Core cannot have all databases, tables and columns, with the names of those that are too many.
fn fits(
    databases: usize,
    new: &[&str],
    tables: usize,
    new_tables: &[&Arc<Placed>],
    plan: &Plan,
) -> Result<()> {
    let refused = |most: &str, names: Vec<String>| {
        let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {}", several(more as u64, "other")),
        };
        Error::stop(format!(
            "InfluxDB 3 Core takes {most}, which are too few for {shown}{more}; nothing was changed"
        ))
    };
    let left = DATABASES.saturating_sub(databases);
    if new.len() > left {
        let names = new[left..].iter().map(|name| name.escape_debug().to_string()).collect();
        return Err(refused(&several(DATABASES as u64, "database"), names).hint(
            "each retention policy of 1.x becomes a database: choose tables by `--table`, or lead several into one \
             database by `--map DATABASE/POLICY=OTHER`",
        ));
    }
    let left = TABLES.saturating_sub(tables);
    if new_tables.len() > left {
        let names = new_tables[left..].iter().map(|table| table.to.to_string()).collect();
        return Err(
            refused(&several(TABLES as u64, "table"), names).hint("choose tables by `--table`")
        );
    }
    let width = |table: &Placed| {
        let keys = table.columns.iter().filter(|column| column.role != Role::Time);
        1 + keys.map(|column| column.key.as_str()).collect::<HashSet<_>>().len()
    };
    let wide: Vec<&Arc<Placed>> =
        plan.tables.iter().filter(|table| width(table) > COLUMNS).collect();
    if !wide.is_empty() {
        let names = wide.iter().map(|table| format!("{} ({})", table.to, width(table))).collect();
        return Err(refused(&format!("{COLUMNS} columns in a table"), names)
            .hint("choose other tables by `--table`, or restore these into InfluxDB 1.x or 2.x"));
    }
    Ok(())
}

/// What the user of Core should know of tables that have more time than a query of Core may read.
fn warnings(plan: &Plan) -> Option<String> {
    let is_long = |table: &&Arc<Placed>| {
        let range = table.oldest.zip(table.newest);
        range.is_some_and(|(from, to)| to.saturating_sub(from) > DAYS_OF_A_QUERY * DAY)
    };
    let long: Vec<&Arc<Placed>> = plan.tables.iter().filter(is_long).collect();
    let first = long.first()?;
    let others = match long.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", several(more as u64, "other table")),
    };
    Some(format!(
        "the rows of {}{others} span more than {DAYS_OF_A_QUERY} days: InfluxDB 3 Core takes them, but refuses a query \
         that needs more than 432 files of ten minutes each (its `--query-file-limit`), so that only narrow ranges of \
         time can be read; InfluxDB 3 Enterprise merges the files",
        first.to
    ))
}

/// The tables of all databases, each by the names of the database and the table.
async fn tables(
    server: &Server,
    retry: &Retry,
    databases: &HashSet<String>,
) -> Result<HashSet<(String, String)>> {
    const SQL: &str = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'";
    let mut tables = HashSet::new();
    for database in databases {
        let ask = || core::query_sql(server, database, SQL);
        let (rows, _) = retry.with_retry(&server.address(), ask).await?;
        let names = rows.iter().filter_map(|row| row["table_name"].as_str());
        tables.extend(names.map(|name| (database.clone(), name.to_owned())));
    }
    Ok(tables)
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
            // If the server takes its name only in a line, the first line makes the table.
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

/// Posts a definition. Status 409 says that an earlier run has made it.
async fn post(server: &Server, retry: &Retry, path: &str, body: &Value) -> Result<Reply> {
    retry.with_retry(&server.address(), || server.post_json(path, body)).await
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::model::{Column, TableId};

    fn table(database: &str, name: &str, fields: usize, days: i64) -> Arc<Placed> {
        let id = TableId {
            source: "s".to_owned(),
            database: database.to_owned(),
            schema: String::new(),
            table: name.to_owned(),
        };
        let field = |n| {
            let name = format!("f{n}");
            Column::new(&name, &name, Role::Field, "", DataType::Float64)
        };
        let time = Column::new("time", "time", Role::Time, "", DataType::Null);
        let columns = (0..fields).map(field).chain([time]).collect();
        let (oldest, newest) = (Some(0), Some(days * DAY));
        let (from, to, rows) = (id.clone(), id, 1_000);
        Arc::new(Placed { from, to, columns, rows, oldest, newest, full_field: None })
    }

    fn plan(tables: Vec<Arc<Placed>>) -> Plan {
        Plan { tables, ..Plan::default() }
    }

    fn check(plan: &Plan, databases: usize, tables: usize) -> Result<()> {
        let names: Vec<&str> = by_database(plan).keys().copied().collect();
        fits(databases, &names, tables, &plan.tables.iter().collect::<Vec<_>>(), plan)
    }

    #[test]
    fn what_does_not_fit_into_core_is_named() {
        let six = plan((0..6).map(|n| table(&format!("d{n}"), "t", 1, 1)).collect());
        let error = check(&six, 0, 0).unwrap_err().to_string();
        assert!(error.contains("5 databases") && error.contains("too few for d5;"), "{error}");
        let error = check(&six, 4, 0).unwrap_err().to_string();
        assert!(error.contains("d1, d2, d3, d4, d5;"), "the target has 4: {error}");

        let two = plan(vec![table("d", "a", 1, 1), table("d", "b", 1, 1)]);
        assert!(check(&two, 0, 1_998).is_ok());
        let error = check(&two, 0, 1_999).unwrap_err().to_string();
        assert!(error.contains("2,000 tables") && error.contains("too few for d.b;"), "{error}");

        assert!(check(&plan(vec![table("d", "t", 499, 1)]), 0, 0).is_ok(), "499 and the time");
        let error = check(&plan(vec![table("d", "t", 500, 1)]), 0, 0).unwrap_err().to_string();
        assert!(error.contains("d.t (501)"), "{error}");
    }

    #[test]
    fn more_than_three_days_cause_a_warning() {
        assert_eq!(warnings(&plan(vec![table("d", "t", 1, 3)])), None);
        let long =
            plan(vec![table("d", "t", 1, 4), table("d", "u", 1, 400), table("d", "v", 1, 1)]);
        let warning = warnings(&long).unwrap();
        assert!(
            warning.starts_with("the rows of d.t and 1 other table span more than 3 days"),
            "{warning}"
        );
    }
}
