//! PURE: the statements that read a table, as text.

use super::time::Precision;
use crate::source::{Column, Table, TableId};
use crate::window::{Slice, Window};

/// A name within a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text within a statement; backslashes escape, since `sql_mode` is empty.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A table within a statement.
pub(super) fn table_name(id: &TableId) -> String {
    format!("{}.{}", quoted(&id.database), quoted(&id.table))
}

/// The rows of a slice; `None` for all of them.
pub(super) fn condition(table: &Table, slice: Slice) -> Option<String> {
    let name = table.time_column.as_ref()?;
    let column = quoted(name);
    match slice {
        Slice::All => None,
        Slice::NullTime => Some(format!("{column} IS NULL")),
        Slice::Window(window) => {
            let of = |column: &&Column| column.key == *name;
            let precision = table.columns.iter().find(of).and_then(|c| Precision::of(&c.source_type));
            Some(within(&column, precision?, window))
        }
    }
}

/// The ends of all that 64 bits of nanoseconds hold are open: what lies beyond them belongs to the outermost
/// windows.
fn within(column: &str, precision: Precision, window: Window) -> String {
    let from = (window.from > i64::MIN)
        .then(|| format!("{column} >= {}", precision.literal(window.from)));
    let to = (window.to < i64::MAX).then(|| format!("{column} < {}", precision.literal(window.to)));
    let both: Vec<String> = from.into_iter().chain(to).collect();
    match both.is_empty() {
        true => format!("{column} IS NOT NULL"),
        false => both.join(" AND "),
    }
}

/// All columns by their names, since `*` leaves out those that are invisible.
pub(super) fn rows(table: &Table, condition: Option<&str>, wrap: impl Fn(usize, String) -> String) -> String {
    let columns = table.columns.iter().enumerate().map(|(at, column)| wrap(at, quoted(&column.key)));
    let columns: Vec<String> = columns.collect();
    format!("SELECT {} FROM {}{}", columns.join(","), table_name(&table.id), suffix(condition))
}

/// `WHERE …`, or nothing.
pub(super) fn suffix(condition: Option<&str>) -> String {
    condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default()
}
