//! Large objects keep their numbers, and their pages keep their positions. Blocks.

use std::collections::HashSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt32Type};
use tokio::sync::mpsc;

use super::definitions::rows_of;
use super::names::{is_large_objects, literal};
use crate::error::{Error, Result};
use crate::model::{Column, TableId};
use crate::source::postgres::connection::Connection;
use crate::source::postgres::sql::quoted;
use crate::target::{Plan, Settled};

/// The bytes of a page.
const PAGE: i64 = 2048;
/// The number of calls in one statement.
const AT_ONCE: usize = 200;

/// Makes empty objects in the present transaction.
pub(super) fn create(connection: &mut Connection, plan: &Plan, of: &TableId) -> Result<()> {
    if !connection.query("SELECT FROM pg_largeobject_metadata LIMIT 1")?.is_empty() {
        return Ok(()); // an earlier run has made them, because a target with other objects is refused
    }
    let rows = rows_of(plan, &of.source, "large-objects.json", &of.database)?;
    let numbers: Vec<i64> = rows.iter().filter_map(|row| row["oid"].as_i64()).collect();
    for some in numbers.chunks(AT_ONCE) {
        let make = some.iter().map(|oid| format!("lo_create({oid}::oid)"));
        connection.query(&format!("SELECT {}", make.collect::<Vec<_>>().join(", ")))?;
    }
    Ok(())
}

/// Writes pages, and returns their number.
pub(super) fn write(
    connection: &mut Connection,
    columns: &[Column],
    rows: &mut mpsc::Receiver<RecordBatch>,
) -> Result<u64> {
    let name = |key: &str| {
        let column = columns.iter().find(|column| column.key == key);
        column.map(|column| column.name.as_str()).unwrap_or_default()
    };
    let mut written = 0;
    while let Some(batch) = rows.blocking_recv() {
        let column = |key: &str| {
            let found = batch.column_by_name(name(key));
            found.ok_or_else(|| Error::fail(format!("the large objects have no column {key}")))
        };
        let oids = column("loid")?.as_primitive::<UInt32Type>();
        let pages = column("pageno")?.as_primitive::<Int32Type>();
        let data = column("data")?.as_binary::<i32>();
        for start in (0..batch.num_rows()).step_by(AT_ONCE) {
            let put = |row: usize| {
                let hex: String =
                    data.value(row).iter().map(|byte| format!("{byte:02x}")).collect();
                let offset = i64::from(pages.value(row)) * PAGE;
                format!("lo_put({}::oid, {offset}, '\\x{hex}')", oids.value(row))
            };
            let end = batch.num_rows().min(start + AT_ONCE);
            let puts: Vec<String> = (start..end).map(put).collect();
            connection.query(&format!("SELECT {}", puts.join(", ")))?;
        }
        written += batch.num_rows() as u64;
    }
    Ok(written)
}

/// Gives each object its owner and its comment. Rights on the objects are noted and not granted.
pub(super) fn describe(
    connection: &mut Connection,
    plan: &Plan,
    (source, database): (&str, &str),
    roles: &HashSet<String>,
    settled: &mut Settled,
) -> Result<()> {
    let is_restored = plan.tables.iter().any(|table| {
        is_large_objects(&table.from)
            && (table.from.source.as_str(), table.from.database.as_str()) == (source, database)
    });
    if !is_restored {
        return Ok(());
    }
    for row in rows_of(plan, source, "large-objects.json", database)? {
        let Some(oid) = row["oid"].as_i64() else { continue };
        let mut sql = String::new();
        if let Some(owner) = row["owner"].as_str().filter(|owner| roles.contains(*owner)) {
            sql.push_str(&format!("ALTER LARGE OBJECT {oid} OWNER TO {};", quoted(owner)));
        }
        if let Some(comment) = row["comment"].as_str() {
            sql.push_str(&format!("COMMENT ON LARGE OBJECT {oid} IS {};", literal(comment)));
        }
        if row["acl"].as_array().is_some_and(|acl| acl.len() > 1) {
            settled.notes.push(format!(
                "the rights on the large object {oid} are in large-objects.json among the artifacts, and were not granted"
            ));
        }
        match connection.query(&sql) {
            Ok(_) => {}
            Err(error) if connection.was_refused() => {
                settled.differences.push(format!("the large object {oid}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
