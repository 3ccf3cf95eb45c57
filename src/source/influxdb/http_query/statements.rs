//! PURE: the InfluxQL that an InfluxDB 3 is asked by `/query`. Measurements stand alone: the database is a
//! parameter, which is what a mapping of Serverless is looked up by.

use crate::source::influxdb::influxql::statements::quoted;
use crate::window::{Slice, Window};

/// The first time that a point can have. Nothing lies before it, and the servers may refuse it as a bound.
const FIRST_POINT: i64 = i64::MIN + 2;

/// Half-open, and without the ends of all time: a row may lie at the very last nanosecond.
fn within(window: Window) -> String {
    let from = format!("time >= {}", window.from);
    let to = format!("time < {}", window.to);
    match (window.from <= FIRST_POINT, window.to == Window::ALL.to) {
        (true, true) => String::new(),
        (true, false) => format!(" WHERE {to}"),
        (false, true) => format!(" WHERE {from}"),
        (false, false) => format!(" WHERE {from} AND {to}"),
    }
}

/// All rows of a slice. Wildcards, so that a column which came after the listing shows; `GROUP BY *` tells
/// tags from fields.
pub(super) fn read(table: &str, slice: Slice) -> String {
    let within = slice.window().map(within).unwrap_or_default();
    format!("SELECT *::field FROM {}{within} GROUP BY *", quoted(table))
}

/// How many values each field has in a slice: columns `count_FIELD`.
pub(super) fn count(table: &str, slice: Slice) -> String {
    let within = slice.window().map(within).unwrap_or_default();
    format!("SELECT count(*) FROM {}{within}", quoted(table))
}

/// The row at one end of a window: `ASC` is the first.
pub(super) fn end(table: &str, window: Window, order: &str) -> String {
    let table = quoted(table);
    format!("SELECT *::field FROM {table}{} ORDER BY time {order} LIMIT 1", within(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_the_ends_of_time_are_no_bounds() {
        let window = Window { from: -1, to: 5 };
        assert_eq!(
            read("we\"ird", Slice::Window(window)),
            "SELECT *::field FROM \"we\\\"ird\" WHERE time >= -1 AND time < 5 GROUP BY *"
        );
        assert_eq!(count("t", Slice::All), "SELECT count(*) FROM \"t\"");
        let first = Window { from: i64::MIN + 2, to: 9 };
        assert_eq!(count("t", Slice::Window(first)), "SELECT count(*) FROM \"t\" WHERE time < 9");
        let rest = Window { from: 7, ..Window::ALL };
        assert_eq!(
            end("t", rest, "DESC"),
            "SELECT *::field FROM \"t\" WHERE time >= 7 ORDER BY time DESC LIMIT 1"
        );
    }
}
