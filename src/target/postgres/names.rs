//! PURE: quotes names and texts for statements.

use crate::model::TableId;
use crate::source::postgres::sql::quoted;

/// The quoted name of a table.
pub(super) fn place(table: &TableId) -> String {
    place_of(&table.schema, &table.table)
}

/// The quoted name of a relation.
pub(super) fn place_of(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// A quoted text.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a table is the system's table of large objects.
pub(super) fn is_large_objects(table: &TableId) -> bool {
    table.schema == "pg_catalog" && table.table == "pg_largeobject"
}
