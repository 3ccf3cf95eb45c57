//! PURE: compares the number of values of each field with what an archive records. InfluxQL counts only values, and
//! every point has at least one.

use std::collections::HashMap;

use serde_json::Value;

use crate::column_stats::Recorded;
use crate::model::{Level, Proof, Role, Table};
use crate::source::influxdb::metadata::Series;

/// How many values each field has, from the columns `count_FIELD` of an answer. A field that is missing there has none.
pub(in crate::source) fn field_counts<'a>(
    answer: impl IntoIterator<Item = &'a Series>,
) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for series in answer {
        for name in &series.columns {
            let Some(field) = name.strip_prefix("count_") else { continue };
            let count = series.column(name).filter_map(Value::as_u64).sum();
            counts.insert(field.to_owned(), count);
        }
    }
    counts
}

/// The same for each row of an answer, by its time.
pub(in crate::source) fn counts_by_time<'a>(
    answer: impl IntoIterator<Item = &'a Series>,
) -> HashMap<i64, HashMap<String, u64>> {
    let mut counts = HashMap::<i64, HashMap<String, u64>>::new();
    for series in answer {
        for row in &series.values {
            let time = row.first().and_then(Value::as_i64).unwrap_or(i64::MIN);
            let of_time = counts.entry(time).or_default();
            for (name, value) in series.columns.iter().zip(row) {
                let field = name.strip_prefix("count_").zip(value.as_u64());
                if let Some((field, count)) = field {
                    *of_time.entry(field.to_owned()).or_default() += count;
                }
            }
        }
    }
    counts
}

/// Compares counts by the names of fields; `None` if a field has several types, of which a count covers only one.
pub(in crate::source) fn compare_counts(
    table: &Table,
    recorded: Recorded<'_>,
    mut counts: HashMap<String, u64>,
) -> Option<Proof> {
    let mut differences = Vec::new();
    let fields = |key: &str| {
        let is_it = |role: Role, other: &str| role == Role::Field && other == key;
        let now = table.columns.iter().filter(|column| is_it(column.role, &column.key)).count();
        let known = recorded.columns.iter().filter(|column| is_it(column.role, &column.key));
        now.max(known.count())
    };
    for known in recorded.columns.iter().filter(|column| column.role == Role::Field) {
        if fields(&known.key) > 1 {
            return None;
        }
        let now = counts.remove(&known.key).unwrap_or(0);
        if now != known.count {
            let name = known.key.escape_debug();
            differences
                .push(format!("values of `{name}`: {now} now, {} in the archive", known.count));
        }
    }
    let mut new: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    new.sort_unstable();
    for (field, count) in new {
        if fields(&field) > 1 {
            return None;
        }
        let name = field.escape_debug();
        differences.push(format!("values of `{name}`: {count} now, 0 in the archive"));
    }
    Some(Proof { level: Level::Counts, differences })
}
