//! PURE: the SQL statements for an InfluxDB 3. Every name is quoted, since unquoted ones are folded to lower case and two
//! tables may differ only in case.

use arrow::datatypes::DataType;
use chrono::DateTime;

use crate::model::Column;
use crate::source::statistics::StatisticsSql;
use crate::window::{Slice, Window};

/// Selects the names and types of all columns of all tables. All schemas except `iox` belong to the server itself.
pub(in crate::source) const COLUMNS: &str = "SELECT table_name, column_name, data_type FROM information_schema.columns \
     WHERE table_schema = 'iox'";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A measurement may have the name of a system table, so the schema is always named.
fn table(name: &str) -> String {
    format!("iox.{}", quoted(name))
}

/// An instant as a literal, exact to the nanosecond.
fn literal(time: i64) -> String {
    let time = DateTime::from_timestamp_nanos(time);
    format!("TIMESTAMP '{}'", time.format("%Y-%m-%dT%H:%M:%S%.9fZ"))
}

/// 1677-09-21T00:12:44Z, the first time that can be a literal, though a row may have an earlier one. The servers compute the
/// whole seconds of a literal first, and those of earlier times are below the least number of nanoseconds.
const FIRST_LITERAL: i64 = -9_223_372_036_000_000_000;

/// Whether `within` can name both ends of a window. If not, the query also returns rows outside of it.
pub(in crate::source) fn is_exact(window: Window) -> bool {
    let can_be_named = |time: i64| time >= FIRST_LITERAL;
    (window.from == Window::ALL.from || can_be_named(window.from)) && can_be_named(window.to)
}

/// The condition for a half-open window: a row on the border belongs to the window that begins there. The ends of all time
/// are no bounds, because a row may have the very last nanosecond. A bound before the first literal cannot be exact: a
/// lower one is left out, and an upper one is replaced by that literal.
fn within(window: Window) -> String {
    let from = format!("time >= {}", literal(window.from));
    let to = format!("time < {}", literal(window.to.max(FIRST_LITERAL)));
    match (window.from < FIRST_LITERAL, window.to == Window::ALL.to) {
        (true, true) => String::new(),
        (true, false) => format!(" WHERE {to}"),
        (false, true) => format!(" WHERE {from}"),
        (false, false) => format!(" WHERE {from} AND {to}"),
    }
}

/// Selects all rows of a slice. `*` is used so that a column that is newer than the listing is noticed. There is no
/// `ORDER BY`, since the server would sort first and send nothing before the end of that.
pub(in crate::source) fn read(name: &str, slice: Slice) -> String {
    let within = slice.window().map(within).unwrap_or_default();
    format!("SELECT * FROM {}{within}", table(name))
}

/// Selects the first and the last time in a window.
pub(in crate::source) fn bounds(name: &str, window: Window) -> String {
    let (table, within) = (table(name), within(window));
    format!("SELECT min(time) AS first, max(time) AS last FROM {table}{within}")
}

/// Selects the first and the last time of the rows with a value of a column.
pub(in crate::source) fn bounds_of(name: &str, column: &str) -> String {
    let (table, column) = (table(name), quoted(column));
    format!("SELECT min(time) AS first, max(time) AS last FROM {table} WHERE {column} IS NOT NULL")
}

/// Counts the rows in a window.
pub(in crate::source) fn count(name: &str, window: Window) -> String {
    format!("SELECT count(*) AS rows FROM {}{}", table(name), within(window))
}

/// Selects the statistics of a window.
pub(in crate::source) fn statistics(name: &str, window: Window, select: &str) -> String {
    format!("SELECT {select} FROM {}{}", table(name), within(window))
}

/// The statistics of a column, in the SQL of InfluxDB 3.
pub(in crate::source) struct Statistics;

impl StatisticsSql for Statistics {
    fn name(&self, column: &Column) -> String {
        quoted(&column.key)
    }

    fn literal(&self, column: &Column, recorded: &str) -> Option<String> {
        match &column.data_type {
            DataType::Timestamp(..) => {
                let time = recorded.parse().ok().filter(|time| *time >= FIRST_LITERAL)?;
                Some(literal(time))
            }
            DataType::Float64 => Some(format!("CAST('{recorded}' AS DOUBLE)")),
            DataType::Int64 => Some(format!("CAST('{recorded}' AS BIGINT)")),
            DataType::UInt64 => Some(format!("CAST('{recorded}' AS BIGINT UNSIGNED)")),
            _ => None,
        }
    }

    // The sum of integers has the same type as they have, and wraps around if it does not fit.
    fn sum(&self, column: &Column, recorded: &str) -> Option<String> {
        let fits = match &column.data_type {
            DataType::Int64 => recorded.parse::<i64>().is_ok(),
            DataType::UInt64 => recorded.parse::<u64>().is_ok(),
            _ => true,
        };
        fits.then(|| self.text(&format!("sum({})", quoted(&column.key))))
    }

    fn trues(&self, column: &Column) -> String {
        format!("count(CASE WHEN {} THEN 1 END)", quoted(&column.key))
    }

    fn text(&self, expression: &str) -> String {
        format!("CAST({expression} AS VARCHAR)")
    }
}

/// Asks for the plan of reading a window. This reads nothing, and shows whether there can be any rows.
pub(in crate::source) fn explain(name: &str, window: Window) -> String {
    format!("EXPLAIN SELECT time FROM {}{}", table(name), within(window))
}

/// The operators of a plan that only pass on or filter rows of others.
const PASSING: [&str; 10] = [
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "DeduplicateExec",
    "FilterExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortPreservingMergeExec",
    "UnionExec",
];

/// Whether a physical plan, which has a line for each operator, reads nothing at all. An unknown operator is assumed to
/// read, because a table with rows must never look empty.
pub(in crate::source) fn is_empty_plan(plan: &str) -> bool {
    let mut empty = false;
    for line in plan.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let end = line.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len());
        match &line[..end] {
            "EmptyExec" => empty = true,
            operator if PASSING.contains(&operator) => {}
            _ => return false,
        }
    }
    empty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_instants_are_exact() {
        let window = Window { from: -1, to: 1_700_000_000_123_456_789 };
        assert_eq!(
            read("we\"ird Table", Slice::Window(window)),
            "SELECT * FROM iox.\"we\"\"ird Table\" WHERE time >= TIMESTAMP '1969-12-31T23:59:59.999999999Z' \
             AND time < TIMESTAMP '2023-11-14T22:13:20.123456789Z'"
        );
        let rest = Window { from: 0, ..Window::ALL };
        let expected =
            "SELECT * FROM iox.\"t\" WHERE time >= TIMESTAMP '1970-01-01T00:00:00.000000000Z'";
        assert_eq!(read("t", Slice::Window(rest)), expected);
        assert_eq!(count("t", Window::ALL), "SELECT count(*) AS rows FROM iox.\"t\"");
    }

    #[test]
    fn no_literal_has_a_time_that_the_servers_refuse() {
        for (window, exact, condition) in [
            (Window { from: i64::MIN + 2, to: Window::ALL.to }, false, ""),
            (
                Window { from: FIRST_LITERAL - 1, to: 0 },
                false,
                " WHERE time < TIMESTAMP '1970-01-01T00:00:00.000000000Z'",
            ),
            (
                Window { from: i64::MIN, to: i64::MIN + 9 },
                false,
                " WHERE time < TIMESTAMP '1677-09-21T00:12:44.000000000Z'",
            ),
            (
                Window { from: FIRST_LITERAL, to: Window::ALL.to },
                true,
                " WHERE time >= TIMESTAMP '1677-09-21T00:12:44.000000000Z'",
            ),
            (Window::ALL, true, ""),
        ] {
            assert_eq!(within(window), condition);
            assert_eq!(is_exact(window), exact, "{window}");
        }
    }

    #[test]
    fn only_a_plan_that_reads_nothing_is_empty() {
        assert!(is_empty_plan("EmptyExec"));
        assert!(is_empty_plan("ProjectionExec: expr=[time@0]\n  EmptyExec"));
        assert!(!is_empty_plan("UnionExec\n  EmptyExec\n  RecordBatchesExec: chunks=1"));
        assert!(!is_empty_plan("UnionExec\n  EmptyExec\n  SomethingNewExec: files=1"));
        assert!(!is_empty_plan("SomethingNewExec"));
        assert!(!is_empty_plan(""));
    }
}
