//! PURE: statements, with every name quoted.

use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike};

use crate::model::Column;
use crate::source::postgres::types::{Cast, Kind};
use crate::source::relational::slice::TimeSql;
use crate::source::statistics::StatisticsSql;

/// A name in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table. `ONLY` leaves out the tables that inherit from it, which are exported themselves.
pub(crate) fn only(schema: &str, name: &str) -> String {
    format!("ONLY {}.{}", quoted(schema), quoted(name))
}

/// A column as it is written in the statement.
pub(super) fn column(name: &str, cast: Cast) -> String {
    let name = quoted(name);
    let bytes = |text: String| format!("convert_to({text}, getdatabaseencoding())");
    match cast {
        Cast::None => name,
        Cast::Text => format!("{name}::text"),
        Cast::Texts => format!("{name}::text[]"),
        Cast::Output => output(&name),
        Cast::TextBytes => bytes(format!("{name}::text")),
        Cast::OutputBytes => bytes(output(&name)),
    }
}

/// The text that the output function of its type writes, whatever casts users have created.
fn output(quoted: &str) -> String {
    // `IS NULL` would also be true for a composite value whose fields are all null.
    format!("CASE WHEN {quoted} IS DISTINCT FROM NULL THEN format('%s', {quoted}) END")
}

/// A statement that fails if a value of a column cannot be converted to UTF-8.
pub(super) fn translated(column: &str, table: &str) -> String {
    format!("SELECT count(convert_to({}, 'UTF8')) FROM {table}", output(&quoted(column)))
}

/// The column that the windows of a table are made of.
#[derive(Debug, Clone)]
pub(super) struct Time {
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl TimeSql for Time {
    fn name(&self) -> String {
        quoted(&self.name)
    }

    fn literal(&self, nanos: i64) -> String {
        literal(&self.kind, nanos)
    }
}

// A value of the column is at or after an instant exactly if it is at or after the next whole unit.
fn literal(kind: &Kind, nanos: i64) -> String {
    let micros = i128::from(nanos).div_euclid(1000) + i128::from(nanos.rem_euclid(1000) != 0);
    // Microseconds of a time in 64 bits of nanoseconds fit 64 bits.
    let micros = micros as i64;
    let time = |micros: i64| DateTime::from_timestamp_micros(micros).unwrap_or_default();
    match kind {
        Kind::Date => {
            let day = 86_400_000_000;
            let days = micros.div_euclid(day) + i64::from(micros.rem_euclid(day) != 0);
            format!("'{}'::date", time(days * day).format("%Y-%m-%d"))
        }
        Kind::Timestamp { utc: true } => {
            format!("'{}+00'::timestamptz", time(micros).format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        _ => format!("'{}'::timestamp", time(micros).format("%Y-%m-%d %H:%M:%S%.6f")),
    }
}

/// The statistics of a column, in PostgreSQL's SQL.
pub(super) struct Statistics;

impl StatisticsSql for Statistics {
    fn name(&self, column: &Column) -> String {
        quoted(&column.key)
    }

    fn literal(&self, column: &Column, recorded: &str) -> Option<String> {
        let micros = || Some(recorded.parse::<i128>().ok()?.div_euclid(1000));
        // Only in these years does the text of a time need neither a sign nor an era.
        let time = || {
            let time = DateTime::from_timestamp_micros(i64::try_from(micros()?).ok()?)?;
            (1..=9999).contains(&time.year()).then_some(time)
        };
        Some(match &column.data_type {
            DataType::Float32 | DataType::Float64 => format!("'{recorded}'::float8"),
            DataType::Decimal128(..) => format!("'{recorded}'::numeric"),
            DataType::Date32 => format!("'{}'::date", time()?.format("%Y-%m-%d")),
            DataType::Timestamp(_, None) => {
                format!("'{}'::timestamp", time()?.format("%Y-%m-%d %H:%M:%S%.6f"))
            }
            DataType::Timestamp(_, Some(_)) => {
                format!("'{}+00'::timestamptz", time()?.format("%Y-%m-%d %H:%M:%S%.6f"))
            }
            DataType::Time64(_) => format!("'{}'::time", time()?.format("%H:%M:%S%.6f")),
            DataType::UInt32 => format!("'{recorded}'::oid"),
            _ => format!("'{recorded}'::bigint"),
        })
    }

    fn sum(&self, column: &Column, _: &str) -> Option<String> {
        let name = quoted(&column.key);
        Some(match &column.data_type {
            DataType::Float32 | DataType::Float64 => format!("sum({name}::float8)"),
            DataType::UInt32 => format!("sum({name}::bigint)"),
            _ => format!("sum({name})"),
        })
    }

    fn trues(&self, column: &Column) -> String {
        format!("count(*) FILTER (WHERE {})", quoted(&column.key))
    }

    fn text(&self, expression: &str) -> String {
        format!("({expression})::text")
    }
}

/// The first and the last finite value of a column, and whether it has infinities.
pub(super) fn bounds(table: &str, column: &str) -> String {
    let column = quoted(column);
    let exists = |what: &str| format!("EXISTS (SELECT FROM {table} WHERE {column} {what})");
    format!(
        "SELECT (SELECT {column} FROM {table} WHERE {column} > '-infinity' AND {column} < 'infinity' \
         ORDER BY {column} LIMIT 1), \
         (SELECT {column} FROM {table} WHERE {column} > '-infinity' AND {column} < 'infinity' \
         ORDER BY {column} DESC LIMIT 1), {}, {}",
        exists("= '-infinity'"),
        exists("= 'infinity'")
    )
}

/// The statement of one stream of a slice.
pub(super) fn copy(columns: &[String], table: &str, conditions: &[String]) -> String {
    let condition = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    format!(
        "COPY (SELECT {} FROM {table}{condition}) TO STDOUT (FORMAT binary)",
        columns.join(", ")
    )
}

/// The blocks of a table from `from` up to, but not including, `to`, or to the end of the table.
pub(super) fn blocks(from: u64, to: Option<u64>) -> String {
    let end = to.map(|to| format!(" AND ctid < '({to},0)'::tid")).unwrap_or_default();
    format!("ctid >= '({from},0)'::tid{end}")
}

/// The statement that counts the rows which meet a condition.
pub(super) fn count(table: &str, condition: &str) -> String {
    format!("SELECT count(*) FROM {table} WHERE {condition}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::relational::slice::condition;
    use crate::window::{Slice, Window};
    use proptest::prelude::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(only("a b", "we\"ird"), "ONLY \"a b\".\"we\"\"ird\"");
        assert_eq!(column("X", Cast::Text), "\"X\"::text");
    }

    #[test]
    fn a_window_is_rounded_to_what_the_column_has() {
        let window = |from, to| Slice::Window(Window { from, to });
        let of = |kind: &Kind, slice| {
            condition(&Time { name: "t".to_owned(), kind: kind.clone() }, slice)
        };
        let zoned = Kind::Timestamp { utc: true };
        assert_eq!(
            of(&zoned, window(1, 1_000_000_000)),
            "\"t\" >= '1970-01-01 00:00:00.000001+00'::timestamptz AND \
             \"t\" < '1970-01-01 00:00:01.000000+00'::timestamptz"
        );
        assert_eq!(of(&Kind::Date, window(1, i64::MAX)), "\"t\" >= '1970-01-02'::date");
        assert_eq!(of(&zoned, Slice::NullTime), "\"t\" IS NULL");
    }

    proptest! {
        #[test]
        fn neighbours_share_no_instant_and_leave_none_out(cut in any::<i64>(), micros in any::<i64>()) {
            // The next whole microsecond at or after the cut is what both sides compare with.
            let limit = literal(&Kind::Timestamp { utc: false }, cut);
            let parsed = chrono::NaiveDateTime::parse_from_str(&limit[1..27], "%Y-%m-%d %H:%M:%S%.6f");
            let limit = parsed.unwrap().and_utc().timestamp_micros();
            let micros = micros / 1000;
            prop_assert_eq!(micros >= limit, i128::from(micros) * 1000 >= i128::from(cut));
        }
    }
}
