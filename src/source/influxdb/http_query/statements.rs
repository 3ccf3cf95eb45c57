//! PURE: the InfluxQL statements for an InfluxDB 3 behind `/query`. They do not qualify measurements: the database is a
//! parameter of the request, by which Serverless looks up a mapping.

use crate::source::influxdb::influxql::statements::quoted;
use crate::window::{Slice, Window};

/// The first time that a point can have. An earlier bound would exclude nothing, and servers may refuse it.
const FIRST_POINT: i64 = i64::MIN + 2;

/// The condition for a half-open window. The ends of all time are no bounds, as a row may have the very last nanosecond.
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

/// Selects all rows of a slice. A wildcard, so that a column that is newer than the listing is noticed; `GROUP BY *`
/// distinguishes tags from fields.
pub(super) fn read(table: &str, slice: Slice) -> String {
    let within = slice.window().map(within).unwrap_or_default();
    format!("SELECT *::field FROM {}{within} GROUP BY *", quoted(table))
}

/// Counts the values of each field in a slice, as columns `count_FIELD`.
pub(super) fn count(table: &str, slice: Slice) -> String {
    let within = slice.window().map(within).unwrap_or_default();
    format!("SELECT count(*) FROM {}{within}", quoted(table))
}

/// Selects the first (`ASC`) or the last (`DESC`) row of a window.
pub(super) fn end(table: &str, window: Window, order: &str) -> String {
    let table = quoted(table);
    format!("SELECT *::field FROM {table}{} ORDER BY time {order} LIMIT 1", within(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_the_ends_of_time_are_not_bounds() {
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
