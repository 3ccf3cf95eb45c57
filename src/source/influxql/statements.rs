//! PURE: InfluxQL as text: identifiers quoted, windows as integer nanoseconds.

use crate::source::{Role, Table, TableId};
use crate::window::{Slice, Window};

/// Smallest and largest time that InfluxDB has (`influxql.MinTime`, `MaxTime`).
const MIN_TIME: i64 = i64::MIN + 2;
const MAX_TIME: i64 = i64::MAX - 1;

/// An identifier in double quotes.
pub(super) fn quoted(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// A table as `"db"."rp"."measurement"`.
fn from(id: &TableId) -> String {
    format!("{}.{}.{}", quoted(&id.database), quoted(&id.schema), quoted(&id.table))
}

// The server adds one to or subtracts one from a bound in 64 bits, so none may lie beyond its own.
fn condition(window: Window) -> String {
    let from = window.from.max(MIN_TIME);
    let last = window.to.saturating_sub(1).min(MAX_TIME);
    format!("time >= {from} AND time <= {last}")
}

/// All rows of a slice. `GROUP BY *` names the tags once a series and keeps a tag apart from a field
/// of the same name; no order is asked for, since each series comes in order anyway.
pub(super) fn read(id: &TableId, slice: Slice) -> String {
    let window = slice.window().unwrap_or(Window::ALL);
    format!("SELECT *::field FROM {} WHERE {} GROUP BY *", from(id), condition(window))
}

/// The first and the last row of a table: two statements.
pub(super) fn bounds(table: &Table) -> String {
    let fields = fields(table, |field| field);
    let from = from(&table.id);
    let all = condition(Window::ALL);
    format!(
        "SELECT {fields} FROM {from} WHERE {all} ORDER BY time ASC LIMIT 1;\
         SELECT {fields} FROM {from} WHERE {all} ORDER BY time DESC LIMIT 1"
    )
}

/// How many values each field of each series has in a window.
pub(super) fn count(table: &Table, window: Window) -> String {
    let fields = fields(table, |field| format!("count({field})"));
    format!("SELECT {fields} FROM {} WHERE {} GROUP BY *", from(&table.id), condition(window))
}

// Over shards of several types `*::field` shows one type of each field and drops the rows of the
// others without a word; named by type they are all there (numbers cast into each other).
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

/// How many values of one type a field has in a window.
pub(super) fn count_type(id: &TableId, field: &str, kind: &str, window: Window) -> String {
    format!("SELECT count({}::{kind}) FROM {} WHERE {}", quoted(field), from(id), condition(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_the_server_reads_them_back() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
    }

    #[test]
    fn no_bound_leaves_the_servers_own_range() {
        assert_eq!(
            condition(Window::ALL),
            "time >= -9223372036854775806 AND time <= 9223372036854775806"
        );
        assert_eq!(condition(Window { from: 5, to: 9 }), "time >= 5 AND time <= 8");
    }
}
