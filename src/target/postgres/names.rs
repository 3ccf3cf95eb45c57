//! PURE: how names and texts stand in a statement.

use crate::model::TableId;
use crate::source::postgres::sql::quoted;

/// The name of a table in a statement.
pub(super) fn place(table: &TableId) -> String {
    place_of(&table.schema, &table.table)
}

/// The name of a relation in a statement.
pub(super) fn place_of(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// A text in a statement.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a table is the system's own, of large objects.
pub(super) fn is_large_objects(table: &TableId) -> bool {
    table.schema == "pg_catalog" && table.table == "pg_largeobject"
}
