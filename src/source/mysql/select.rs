//! PURE: the statements that read a table, as text.

use arrow::datatypes::DataType;

use crate::model::{Column, Table, TableId};
use crate::source::mysql::time::Precision;
use crate::source::relational::slice::{self, TimeSql};
use crate::source::statistics::StatisticsSql;
use crate::window::Slice;

/// A name within a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal within a statement; a backslash escapes, since `sql_mode` is empty.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A table within a statement.
pub(crate) fn table_name(id: &TableId) -> String {
    format!("{}.{}", quoted(&id.database), quoted(&id.table))
}

/// Some or all rows of a table.
pub(super) struct Part<'a> {
    pub(super) table: &'a Table,
    /// The table as it is written after FROM.
    from: String,
    /// The condition on its rows; `None` for all of them.
    condition: Option<String>,
}

impl<'a> Part<'a> {
    /// A slice of a table, with the old versions of its rows if it keeps them.
    pub(super) fn new(table: &'a Table, slice: Slice, is_versioned: bool) -> Self {
        let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
        let from = format!("{}{history}", table_name(&table.id));
        Self { table, from, condition: condition(table, slice) }
    }

    /// The rows of this part that also meet `more`.
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

    /// Selects all columns by their names, since `*` leaves out invisible ones.
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

/// The statistics of a column, in MySQL's SQL.
pub(super) struct Statistics;

impl StatisticsSql for Statistics {
    fn name(&self, column: &Column) -> String {
        quoted(&column.key)
    }

    fn literal(&self, column: &Column, recorded: &str) -> Option<String> {
        match &column.data_type {
            // A number with an exponent is a double; without one it would be a decimal.
            DataType::Float32 | DataType::Float64 => {
                let exponent = if recorded.contains('e') { "" } else { "e0" };
                recorded.parse::<f64>().ok()?.is_finite().then(|| format!("{recorded}{exponent}"))
            }
            DataType::Date32 | DataType::Timestamp(..) => {
                let precision = Precision::of(&column.source_type)?;
                Some(precision.literal(recorded.parse::<i128>().ok()?))
            }
            // The server orders 70 to 99 before 00 to 69.
            _ if column.source_type.starts_with("year(2)") => None,
            _ => Some(recorded.to_owned()),
        }
    }

    fn sum(&self, column: &Column, _: &str) -> Option<String> {
        // The sum of a FLOAT(M, D) itself would be rounded to D digits.
        let is_float = matches!(column.data_type, DataType::Float32 | DataType::Float64);
        let exact = if is_float { " + 0e0" } else { "" };
        Some(format!("SUM({}{exact})", quoted(&column.key)))
    }

    fn trues(&self, column: &Column) -> String {
        format!("SUM({})", quoted(&column.key))
    }

    fn text(&self, expression: &str) -> String {
        expression.to_owned()
    }

    fn computes_once(&self) -> bool {
        false
    }
}

/// The column that the windows of a table are made of.
struct Time<'a> {
    name: &'a str,
    precision: Precision,
}

impl TimeSql for Time<'_> {
    fn name(&self) -> String {
        quoted(self.name)
    }

    fn literal(&self, nanos: i64) -> String {
        self.precision.literal(nanos)
    }

    // `IS NULL` is also true for the date 0000-00-00 in a column that is NOT NULL.
    // <https://dev.mysql.com/doc/refman/8.4/en/comparison-operators.html#operator_is-null>
    fn is_null(&self) -> String {
        format!("{} <=> NULL", quoted(self.name))
    }
}

fn condition(table: &Table, slice: Slice) -> Option<String> {
    let name = table.time_column.as_ref()?;
    let column = table.columns.iter().find(|column| column.key == *name)?;
    let precision = Precision::of(&column.source_type)?;
    Some(slice::condition(&Time { name, precision }, slice))
}
