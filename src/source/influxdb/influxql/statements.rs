//! PURE: InfluxQL statements, with quoted identifiers and windows in integer nanoseconds.

use std::collections::BTreeMap;

use crate::model::{Column, Role, Table, TableId};
use crate::source::influxdb::points::FieldType;
use crate::window::{Slice, Window};

/// The smallest and the largest time of InfluxDB (`influxql.MinTime`, `MaxTime`).
const MIN_TIME: i64 = i64::MIN + 2;
const MAX_TIME: i64 = i64::MAX - 1;

/// An identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// The names of measurements that mean the server's own lists (`influxql.IsSystemName`).
const SYSTEM: [&str; 7] =
    ["_fieldKeys", "_measurements", "_name", "_series", "_tagKey", "_tagKeys", "_tags"];

/// Whether the server reads a name in double quotes back as that name. It ends a statement at a NUL, and treats a carriage
/// return as the end of a line.
pub(super) fn is_quotable(name: &str) -> bool {
    !name.contains(['\0', '\r'])
}

/// Whether a quoted name means the measurement of this name.
pub(super) fn is_plain(measurement: &str) -> bool {
    is_quotable(measurement) && !measurement.is_empty() && !SYSTEM.contains(&measurement)
}

/// A measurement, by a regular expression if no quoted name means it.
fn measurement(name: &str) -> String {
    if is_plain(name) {
        return quoted(name);
    }
    let each = name.chars().map(|c| {
        if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) }
    });
    format!("/^{}$/", each.collect::<String>())
}

/// A table as `"db"."rp"."measurement"`.
fn from(id: &TableId) -> String {
    format!("{}.{}.{}", quoted(&id.database), quoted(&id.schema), measurement(&id.table))
}

/// Selects any row of a table.
pub(super) fn any_row(id: &TableId) -> String {
    format!("SELECT *::field FROM {} LIMIT 1", from(id))
}

/// Shows any series of a measurement in a retention policy.
pub(super) fn any_series(id: &TableId) -> String {
    let (on, policy) = (quoted(&id.database), quoted(&id.schema));
    format!("SHOW SERIES ON {on} FROM {policy}.{} LIMIT 1", measurement(&id.table))
}

// The server adds one to a bound or subtracts one from it in 64 bits, so no bound may lie outside of its own range.
fn condition(window: Window) -> String {
    let from = window.from.max(MIN_TIME);
    let last = window.to.saturating_sub(1).min(MAX_TIME);
    format!("time >= {from} AND time <= {last}")
}

/// A column that a typed read selects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected<'a> {
    pub(super) key: &'a str,
    pub(super) what: Selection,
}

/// The part of a field that a column of a typed read shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// The values of the first type, in InfluxQL's order, that any shard of the window has. Numbers of other types are
    /// cast to it, and anything else is null.
    Field,
    /// The same numbers as integers, since an integer that was cast to a float may have lost digits.
    Whole,
    /// The values of a type to which no other is cast.
    Only(FieldType),
}

/// The columns to select from a table whose windows may span several shards. If their types differ, `*::field` shows only
/// one type of each field and silently drops the rows of the others; fields that are named by type show all of them.
/// `Whole` precedes its `Field`.
pub(super) fn typed(table: &Table) -> Vec<Selected<'_>> {
    let mut fields = BTreeMap::<&str, Vec<FieldType>>::new();
    for column in table.columns.iter().filter(|column| column.role == Role::Field) {
        let types = fields.entry(&column.key).or_default();
        types.extend(FieldType::parse(&column.source_type));
    }
    let mut selected = Vec::new();
    for (key, types) in fields {
        if types.contains(&FieldType::Float) && types.contains(&FieldType::Integer) {
            selected.push(Selected { key, what: Selection::Whole });
        }
        selected.push(Selected { key, what: Selection::Field });
        for kind in [FieldType::String, FieldType::Boolean] {
            if types.len() > 1 && types.contains(&kind) {
                selected.push(Selected { key, what: Selection::Only(kind) });
            }
        }
    }
    selected
}

impl Selected<'_> {
    fn text(&self) -> String {
        let kind = match self.what {
            Selection::Field => "field",
            Selection::Whole => FieldType::Integer.as_str(),
            Selection::Only(kind) => kind.as_str(),
        };
        format!("{}::{kind}", quoted(self.key))
    }
}

/// Selects all rows of a slice. `GROUP BY *` gives the tags once for each series, and keeps a tag apart from a field of the
/// same name. No order is requested, since each series arrives in order anyway. With `several`, the columns are those of
/// `typed`.
pub(super) fn read(table: &Table, slice: Slice, several: bool) -> String {
    let window = slice.window().unwrap_or(Window::ALL);
    let fields = if several {
        typed(table).iter().map(Selected::text).collect::<Vec<_>>().join(", ")
    } else {
        "*::field".to_owned()
    };
    format!("SELECT {fields} FROM {} WHERE {} GROUP BY *", from(&table.id), condition(window))
}

/// Two statements that select the first and the last row of a table.
pub(super) fn bounds(table: &Table) -> String {
    let fields = fields(table, |field| field);
    let from = from(&table.id);
    let all = condition(Window::ALL);
    format!(
        "SELECT {fields} FROM {from} WHERE {all} ORDER BY time ASC LIMIT 1;\
         SELECT {fields} FROM {from} WHERE {all} ORDER BY time DESC LIMIT 1"
    )
}

/// Two statements that select the first and the last row with a value of a column.
pub(super) fn bounds_of(table: &Table, column: &Column) -> String {
    let (from, all, key) = (from(&table.id), condition(Window::ALL), quoted(&column.key));
    let rows = match column.role {
        Role::Tag => format!("SELECT *::field FROM {from} WHERE {all} AND {key}::tag != ''"),
        _ => format!("SELECT {key}::field FROM {from} WHERE {all}"),
    };
    format!("{rows} ORDER BY time ASC LIMIT 1;{rows} ORDER BY time DESC LIMIT 1")
}

/// Counts the values of each field of each series in a window.
pub(super) fn count(table: &Table, window: Window) -> String {
    let fields = fields(table, |field| format!("count({field})"));
    format!("SELECT {fields} FROM {} WHERE {} GROUP BY *", from(&table.id), condition(window))
}

/// Counts the values of each field in a window, over all series.
pub(super) fn counts(table: &Table, window: Window) -> String {
    format!("SELECT count(*::field) FROM {} WHERE {}", from(&table.id), condition(window))
}

/// Counts the values of one field in all of time.
pub(crate) fn count_values(id: &TableId, field: &str) -> String {
    format!("SELECT count({}::field) FROM {}", quoted(field), from(id))
}

/// Does what `counts` does for each part of a window, which begins with a part of this width.
pub(super) fn counts_by_time(table: &Table, window: Window, width: i64) -> String {
    let offset = window.from.rem_euclid(width);
    format!("{} GROUP BY time({width}ns, {offset}ns) fill(none)", counts(table, window))
}

// Like `typed`, but without `Whole`, since only the existence of a value matters.
fn fields(table: &Table, each: impl Fn(String) -> String) -> String {
    let mut fields = vec![each("*::field".to_owned())];
    for column in table.columns.iter().filter(|column| column.role == Role::Field) {
        let types = table.columns.iter().filter(|c| c.role == Role::Field && c.key == column.key);
        if types.count() > 1 {
            fields.push(each(format!("{}::{}", quoted(&column.key), column.source_type)));
        }
    }
    fields.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_the_server_reads_them_back() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(measurement("a.b"), r#""a.b""#);
        assert_eq!(measurement("a/\r\u{e9}"), r"/^a\x{2F}\x{D}\x{E9}$/");
        assert_eq!(measurement("_series"), r"/^\x{5F}series$/");
    }

    #[test]
    fn no_bound_lies_outside_of_the_servers_range() {
        assert_eq!(
            condition(Window::ALL),
            "time >= -9223372036854775806 AND time <= 9223372036854775806"
        );
        assert_eq!(condition(Window { from: 5, to: 9 }), "time >= 5 AND time <= 8");
    }
}
