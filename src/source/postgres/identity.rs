//! Which table a name stands for: when it was listed, and now.
//!
//! `COPY` resolves names in the present catalog but reads the rows of the snapshot. After a `RENAME`, the values of one
//! column therefore arrive under the name of another, which neither the file of the table nor its name reveals.

use crate::error::{Error, Result};
use crate::model::{Object, ObjectColumn};
use crate::source::postgres::catalog;
use crate::source::postgres::catalog::Relation;
use crate::source::postgres::connection::Connection;

/// It includes the file, which changes when a table is truncated or rewritten, since the server then lacks the old rows.
/// <https://www.postgresql.org/docs/current/mvcc-caveats.html>
fn id(oid: u32, file: u32, schema: &str, name: &str) -> String {
    format!("{oid} in file {file}: {schema}.{name}")
}

/// The table as it was listed.
pub(super) fn listed(relation: &Relation) -> Object {
    let column = |attribute: &catalog::Attribute| ObjectColumn {
        number: i32::from(attribute.number),
        name: attribute.name.clone(),
        kind: format!("{} {}", attribute.type_oid, attribute.modifier),
    };
    Object {
        id: id(relation.oid, relation.file, &relation.schema, &relation.name),
        columns: relation.columns.iter().map(column).collect(),
    }
}

/// The table as a connection outside of any snapshot sees it; `None` if it no longer exists.
pub(super) fn now(connection: &mut Connection, oid: u32) -> Result<Option<Object>> {
    let rows = connection.query_as_stored(&format!(
        "SELECT c.relfilenode, n.nspname, c.relname, a.attnum, a.attname, a.atttypid, a.atttypmod \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_attribute a \
         ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.oid = {oid} ORDER BY a.attnum"
    ))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let text = catalog::text;
    let nonsense = || Error::stop("the catalog does not show numbers where they belong");
    let file = text(first, 0).parse().map_err(|_| nonsense())?;
    let columns = rows.iter().filter(|row| row.get(3).is_some_and(Option::is_some)).map(|row| {
        Ok(ObjectColumn {
            number: text(row, 3).parse().map_err(|_| nonsense())?,
            name: text(row, 4),
            kind: format!("{} {}", text(row, 5), text(row, 6)),
        })
    });
    let id = id(oid, file, &text(first, 1), &text(first, 2));
    Ok(Some(Object { id, columns: columns.collect::<Result<_>>()? }))
}
