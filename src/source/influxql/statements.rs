//! PURE: InfluxQL as text: identifiers quoted, windows as integer nanoseconds.

use crate::source::TableId;
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
pub(super) fn table(id: &TableId) -> String {
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
    format!("SELECT *::field FROM {} WHERE {} GROUP BY *", table(id), condition(window))
}

/// The first and the last row of a table: two statements.
pub(super) fn bounds(id: &TableId) -> String {
    let table = table(id);
    let all = condition(Window::ALL);
    format!(
        "SELECT *::field FROM {table} WHERE {all} ORDER BY time ASC LIMIT 1;\
         SELECT *::field FROM {table} WHERE {all} ORDER BY time DESC LIMIT 1"
    )
}

/// How many values each field of each series has in a window.
pub(super) fn count(id: &TableId, window: Window) -> String {
    format!("SELECT count(*::field) FROM {} WHERE {} GROUP BY *", table(id), condition(window))
}

/// How many values of one type a field has in a window.
pub(super) fn count_type(id: &TableId, field: &str, kind: &str, window: Window) -> String {
    format!(
        "SELECT count({}::{kind}) FROM {} WHERE {}",
        quoted(field),
        table(id),
        condition(window)
    )
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
