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

/// Rows of a table.
pub(super) struct Part<'a> {
    pub(super) table: &'a Table,
    /// The table as it stands after FROM.
    from: String,
    /// Which of its rows; `None` for all of them.
    condition: Option<String>,
}

impl<'a> Part<'a> {
    /// A slice of a table; of one with a history, the rows of the past as well.
    pub(super) fn new(table: &'a Table, slice: Slice, is_versioned: bool) -> Self {
        let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
        let from = format!("{}{history}", table_name(&table.id));
        Self { table, from, condition: condition(table, slice) }
    }

    /// A part of this part.
    pub(super) fn and(&self, more: &str) -> Self {
        let condition = match &self.condition {
            None => more.to_owned(),
            Some(condition) => format!("{condition} AND {more}"),
        };
        Self { table: self.table, from: self.from.clone(), condition: Some(condition) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.condition.is_none()
    }

    /// All columns by their names, since `*` leaves out those that are invisible.
    pub(super) fn columns(&self, wrap: impl Fn(usize, String) -> String) -> String {
        let columns = self.table.columns.iter().enumerate();
        let columns = columns.map(|(at, column)| wrap(at, quoted(&column.key)));
        self.select(&columns.collect::<Vec<_>>().join(","))
    }

    pub(super) fn select(&self, what: &str) -> String {
        let condition = self.condition.as_ref().map(|condition| format!(" WHERE {condition}"));
        format!("SELECT {what} FROM {}{}", self.from, condition.unwrap_or_default())
    }
}

fn condition(table: &Table, slice: Slice) -> Option<String> {
    let name = table.time_column.as_ref()?;
    let column = quoted(name);
    match slice {
        Slice::All => None,
        Slice::NullTime => Some(format!("{column} IS NULL")),
        Slice::Window(window) => {
            let of = |column: &&Column| column.key == *name;
            let precision =
                table.columns.iter().find(of).and_then(|c| Precision::of(&c.source_type));
            Some(within(&column, precision?, window))
        }
    }
}

/// The ends of all that 64 bits of nanoseconds hold are open: what lies beyond them belongs to the outermost
/// windows.
fn within(column: &str, precision: Precision, window: Window) -> String {
    let from =
        (window.from > i64::MIN).then(|| format!("{column} >= {}", precision.literal(window.from)));
    let to = (window.to < i64::MAX).then(|| format!("{column} < {}", precision.literal(window.to)));
    let both: Vec<String> = from.into_iter().chain(to).collect();
    match both.is_empty() {
        true => format!("{column} IS NOT NULL"),
        false => both.join(" AND "),
    }
}
