//! PURE: how many values each field has, compared with what an archive records. A point without a value is none, and InfluxQL
//! counts values alone.

use std::collections::HashMap;

use crate::column_stats::Recorded;
use crate::model::{Level, Proof, Role, Table};

/// Compares counts by the name of the field; `None` where a field has several types, of which a count names only one.
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
