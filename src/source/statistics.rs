//! PURE: the statement with which a server computes the statistics that an archive records for a slice, and the comparison
//! of the two.

use arrow::datatypes::DataType;

use crate::column_stats::{ColumnStats, Recorded};
use crate::compact::Text;
use crate::model::{Column, Level, Proof, Table};

/// The most expressions of a statement. PostgreSQL accepts 1,664 (`MaxTupleAttributeNumber`), MySQL 4,096.
const MOST_EXPRESSIONS: usize = 1_600;

/// The part of a dialect of SQL that statistics need.
pub(in crate::source) trait StatisticsSql {
    /// The name of a column.
    fn name(&self, column: &Column) -> String;

    /// A recorded minimum or maximum as a literal of the column's type; `None` if there is no such literal.
    fn literal(&self, column: &Column, recorded: &str) -> Option<String>;

    /// The sum of a column of numbers, as text with all digits; `None` if the server cannot compute the recorded sum.
    fn sum(&self, column: &Column, recorded: &str) -> Option<String>;

    /// The number of values that are true.
    fn trues(&self, column: &Column) -> String;

    /// Any expression as text.
    fn text(&self, expression: &str) -> String;

    /// Whether the server computes an aggregate that stands twice in a statement only once.
    fn computes_once(&self) -> bool {
        true
    }
}

/// What one or two cells of the answer are compared with.
enum Expected {
    /// A number, which must be equal digit by digit.
    Number(String),
    /// A sum of `count` floats, none of which is larger than `largest`.
    FloatSum { sum: f64, count: u64, largest: f64 },
    /// The recorded minimum or maximum of a column, which the server has compared itself; the next cell shows its own.
    IsEnd(String),
}

/// A comparison of one cell.
struct Check {
    what: String,
    expected: Expected,
}

/// What to select, and what is expected of it.
pub(in crate::source) struct Statistics {
    checks: Vec<Check>,
    select: Vec<String>,
    /// The aggregates of a subquery, if the server would otherwise compute some of them twice.
    within: Option<Vec<String>>,
    /// The differences that the columns alone show.
    differences: Vec<String>,
}

impl Statistics {
    pub(in crate::source) fn new(
        sql: &impl StatisticsSql,
        table: &Table,
        recorded: Recorded<'_>,
    ) -> Self {
        let within = (!sql.computes_once()).then(Vec::new);
        let mut this =
            Self { checks: Vec::new(), select: Vec::new(), within, differences: Vec::new() };
        this.number("rows".to_owned(), "count(*)".to_owned(), recorded.rows.to_string());
        let of = |column: &Column| recorded.columns.iter().find(|known| known.key == column.key);
        for column in &table.columns {
            this.column(sql, column, of(column));
        }
        for lost in recorded.columns.iter().filter(|known| {
            known.count > 0 && !table.columns.iter().any(|column| column.key == known.key)
        }) {
            let name = lost.key.escape_debug();
            this.differences.push(format!("the column `{name}` does not exist any more"));
        }
        this
    }

    /// The statement, which `from` makes of its expressions; `None` if there are more than servers accept.
    pub(in crate::source) fn statement(&self, from: impl FnOnce(&str) -> String) -> Option<String> {
        if self.select.len() > MOST_EXPRESSIONS {
            return None;
        }
        let select = self.select.join(", ");
        Some(match &self.within {
            None => from(&select),
            Some(within) => format!("SELECT {select} FROM ({}) AS s", from(&within.join(", "))),
        })
    }

    /// An aggregate, to be used in expressions.
    fn aggregate(&mut self, expression: String) -> String {
        let Some(within) = &mut self.within else { return expression };
        let name = format!("c{}", within.len());
        within.push(format!("{expression} AS {name}"));
        name
    }

    fn number(&mut self, what: String, expression: String, expected: String) {
        let computed = self.aggregate(expression);
        self.select.push(computed);
        self.checks.push(Check { what, expected: Expected::Number(expected) });
    }

    fn column(&mut self, sql: &impl StatisticsSql, column: &Column, known: Option<&ColumnStats>) {
        let (name, shown) = (sql.name(column), column.key.escape_debug().to_string());
        // A column that the archive does not know had no values when it was read.
        let count = known.map_or(0, |known| known.count);
        self.number(format!("values of `{shown}`"), format!("count({name})"), count.to_string());
        let Some(known) = known.filter(|known| known.count > 0) else { return };
        for (end, recorded) in [("min", &known.min), ("max", &known.max)] {
            let Some(recorded) = recorded else { continue };
            let Some(literal) = sql.literal(column, recorded) else { continue };
            let computed = self.aggregate(format!("{end}({name})"));
            self.select.push(sql.text(&format!("{computed} = {literal}")));
            self.select.push(sql.text(&computed));
            let what = if end == "min" { "minimum" } else { "maximum" };
            let what = format!("{what} of `{shown}`");
            self.checks.push(Check { what, expected: Expected::IsEnd(recorded.to_string()) });
        }
        let Some(sum) = &known.sum else { return };
        match &column.data_type {
            DataType::Boolean => {
                self.number(
                    format!("true values of `{shown}`"),
                    sql.trues(column),
                    sum.to_string(),
                );
            }
            DataType::Float32 | DataType::Float64 => {
                let number = |text: &Option<Text>| {
                    text.as_ref().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
                };
                let largest = f64::abs(number(&known.min)).max(f64::abs(number(&known.max)));
                let asked = sql.sum(column, sum);
                let (Some(asked), Ok(sum)) = (asked, sum.parse::<f64>()) else { return };
                // An overflow is an error on some servers, and such a sum proves nothing.
                if !sum.is_finite() || !(largest * known.count as f64).is_finite() {
                    return;
                }
                let computed = self.aggregate(asked);
                self.select.push(computed);
                let expected = Expected::FloatSum { sum, count: known.count, largest };
                self.checks.push(Check { what: format!("sum of `{shown}`"), expected });
            }
            _ => {
                if let Some(asked) = sql.sum(column, sum) {
                    self.number(format!("sum of `{shown}`"), asked, sum.to_string());
                }
            }
        }
    }

    /// Compares the only row of the answer; `None` if it has another number of cells than was selected.
    pub(in crate::source) fn compare(self, cells: &[Option<String>]) -> Option<Proof> {
        if cells.len() != self.select.len() {
            return None;
        }
        let mut differences = self.differences;
        let mut cells = cells.iter();
        for Check { what, expected } in self.checks {
            let found = cells.next()?;
            let shown = found.as_deref().unwrap_or("none");
            match expected {
                Expected::Number(number) => {
                    if !is_same_number(shown, &number) {
                        differences.push(format!("{what}: {shown} now, {number} in the archive"));
                    }
                }
                Expected::IsEnd(recorded) => {
                    let now = cells.next()?.as_deref().unwrap_or("none");
                    if !matches!(shown, "1" | "t" | "true") {
                        differences.push(format!(
                            "{what}: {} now, {recorded} in the archive",
                            now.escape_debug()
                        ));
                    }
                }
                Expected::FloatSum { sum, count, largest } => {
                    let now: f64 = shown.parse().unwrap_or(f64::NAN);
                    if !is_same_sum(now, sum, count, largest) {
                        differences.push(format!("{what}: {now:?} now, {sum:?} in the archive"));
                    }
                }
            }
        }
        Some(Proof { level: Level::Statistics, differences })
    }
}

/// Whether two numbers are equal. Servers write zeros after the point if the number is a decimal.
fn is_same_number(found: &str, recorded: &str) -> bool {
    let plain = |text: &str| match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        _ => text.to_owned(),
    };
    plain(found) == plain(recorded)
}

/// Whether both can be sums of the same floats, added in different orders. Each addition rounds by at most half a unit in
/// the last place of a partial sum, which is at most `count × largest`.
pub(in crate::source) fn is_same_sum(one: f64, other: f64, count: u64, largest: f64) -> bool {
    let count = count as f64;
    (one - other).abs() <= 2.0 * count * (count * largest) * (f64::EPSILON / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ReadMode, Role, TableId};

    struct Plain;

    /// Computes everything as often as it is asked for.
    struct Plainer;

    impl StatisticsSql for Plain {
        fn name(&self, column: &Column) -> String {
            column.key.clone()
        }

        fn literal(&self, _: &Column, recorded: &str) -> Option<String> {
            Some(recorded.to_owned())
        }

        fn sum(&self, column: &Column, _: &str) -> Option<String> {
            Some(format!("sum({})", column.key))
        }

        fn trues(&self, column: &Column) -> String {
            format!("trues({})", column.key)
        }

        fn text(&self, expression: &str) -> String {
            expression.to_owned()
        }
    }

    impl StatisticsSql for Plainer {
        fn name(&self, column: &Column) -> String {
            Plain.name(column)
        }

        fn literal(&self, column: &Column, recorded: &str) -> Option<String> {
            Plain.literal(column, recorded)
        }

        fn sum(&self, column: &Column, recorded: &str) -> Option<String> {
            Plain.sum(column, recorded)
        }

        fn trues(&self, column: &Column) -> String {
            Plain.trues(column)
        }

        fn text(&self, expression: &str) -> String {
            Plain.text(expression)
        }

        fn computes_once(&self) -> bool {
            false
        }
    }

    fn table(columns: &[(&str, DataType)]) -> Table {
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: String::new(),
            table: "t".into(),
        };
        let columns = columns.iter().map(|(name, data_type)| {
            Column::new(*name, *name, Role::Column, "", data_type.clone())
        });
        Table { read_mode: ReadMode::Whole, ..Table::new(id, columns.collect()) }
    }

    fn stats(name: &str, count: u64, ends: Option<(&str, &str)>, sum: Option<&str>) -> ColumnStats {
        ColumnStats {
            column: std::sync::Arc::new(crate::column_stats::ColumnInfo {
                name: name.into(),
                key: name.into(),
                role: Role::Column,
                source_type: String::new(),
                parquet_type: None,
                nullable: None,
                key_part: None,
            }),
            count,
            min: ends.map(|(min, _)| min.into()),
            max: ends.map(|(_, max)| max.into()),
            sum: sum.map(Into::into),
        }
    }

    fn compared(cells: &[&str]) -> Vec<String> {
        let table =
            table(&[("a", DataType::Int64), ("b", DataType::Float64), ("new", DataType::Utf8)]);
        let recorded = [
            stats("a", 2, Some(("1", "2")), Some("3")),
            stats("b", 2, Some(("0.1", "0.2")), Some("0.30000000000000004")),
            stats("gone", 0, None, None),
        ];
        let asked = Statistics::new(&Plain, &table, Recorded { rows: 2, columns: &recorded });
        assert_eq!(
            asked.statement(str::to_owned).unwrap(),
            "count(*), count(a), min(a) = 1, min(a), max(a) = 2, max(a), sum(a), \
             count(b), min(b) = 0.1, min(b), max(b) = 0.2, max(b), sum(b), count(new)"
        );
        let cells: Vec<Option<String>> =
            cells.iter().map(|cell| Some((*cell).to_owned())).collect();
        asked.compare(&cells).unwrap().differences
    }

    #[test]
    fn equal_statistics_are_no_difference() {
        let same = ["2", "2", "t", "1", "1", "2", "3.000", "2", "t", "0.1", "t", "0.2", "0.3", "0"];
        assert!(compared(&same).is_empty());
    }

    #[test]
    fn no_aggregate_stands_twice_where_it_would_be_computed_twice() {
        let recorded = [stats("a", 2, Some(("1", "2")), Some("3"))];
        let recorded = Recorded { rows: 2, columns: &recorded };
        let asked = Statistics::new(&Plainer, &table(&[("a", DataType::Int64)]), recorded);
        assert_eq!(
            asked.statement(|select| format!("SELECT {select} FROM t")).unwrap(),
            "SELECT c0, c1, c2 = 1, c2, c3 = 2, c3, c4 FROM (SELECT count(*) AS c0, count(a) AS c1, min(a) AS c2, \
             max(a) AS c3, sum(a) AS c4 FROM t) AS s"
        );
        let cells = ["2", "2", "1", "1", "1", "2", "3"].map(|cell| Some(cell.to_owned()));
        assert!(asked.compare(&cells).unwrap().differences.is_empty());
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let other = ["3", "2", "f", "0", "t", "2", "4", "2", "t", "0.1", "t", "0.2", "0.31", "1"];
        assert_eq!(
            compared(&other),
            [
                "rows: 3 now, 2 in the archive",
                "minimum of `a`: 0 now, 1 in the archive",
                "sum of `a`: 4 now, 3 in the archive",
                "sum of `b`: 0.31 now, 0.30000000000000004 in the archive",
                "values of `new`: 1 now, 0 in the archive",
            ]
        );
    }

    #[test]
    fn a_missing_column_is_a_difference_if_it_had_values() {
        let recorded = [stats("gone", 1, None, None)];
        let asked = Statistics::new(&Plain, &table(&[]), Recorded { rows: 1, columns: &recorded });
        let proof = asked.compare(&[Some("1".to_owned())]).unwrap();
        assert_eq!(proof.differences, ["the column `gone` does not exist any more"]);
    }

    #[test]
    fn a_sum_may_differ_only_by_rounding() {
        let values: Vec<f64> = (0..10_000).map(|i| 1.0 / f64::from(i + 1)).collect();
        let forth: f64 = values.iter().sum();
        let back: f64 = values.iter().rev().sum();
        assert!(forth != back && is_same_sum(forth, back, 10_000, 1.0));
        assert!(!is_same_sum(forth, forth + 1e-6, 10_000, 1.0));
    }
}
