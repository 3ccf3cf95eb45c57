//! Compares a chunk with what a target has by reading its rows back, in windows that are as narrow as the server needs: an
//! InfluxDB 3 Core refuses a query that needs more than 432 files, which are three days.

use std::collections::HashMap;
use std::sync::Arc;

use crate::column_stats::{ColumnStats, Recorded, Stats};
use crate::error::{Class, Error, Result};
use crate::model::{Chunk, Level, Proof, Table};
use crate::retry::Retry;
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::window::{MIN_WIDTH, Slice, Window};

/// The number of batches that may wait between the source and the computation of the statistics.
const BATCHES: usize = 8;

/// Reads a window of a table in parts, and compares its statistics with what the archive recorded.
pub(super) async fn prove_by_reading(
    source: &dyn Source,
    table: &Table,
    window: Window,
    recorded: Recorded<'_>,
    retry: &Retry,
) -> Result<Proof> {
    let table = Arc::new(table.clone());
    let (mut todo, mut found) = (vec![window], HashMap::<String, Parts>::new());
    while let Some(part) = todo.pop() {
        let ask = || async {
            match read(source, &table, part).await {
                Err(error) if error.class() == Class::Split => match part.halves(MIN_WIDTH) {
                    Some(halves) => Ok(Err(halves)),
                    None => Err(error),
                },
                answer => answer.map(Ok),
            }
        };
        match retry.with_retry(source.name(), ask).await? {
            Ok(columns) => columns.into_iter().for_each(|column| {
                found.entry(column.name.clone()).or_default().add(&column);
            }),
            Err((left, right)) => todo.extend([right, left]),
        }
    }
    let differences = recorded.columns.iter().filter_map(|known| {
        let empty = Parts::default();
        let now = found.get(&known.name).unwrap_or(&empty);
        now.difference(known).map(|why| format!("{}: {why}", known.name.escape_debug()))
    });
    Ok(Proof { level: Level::Statistics, differences: differences.collect() })
}

/// The statistics of a column in all parts of a window. The sum of floats depends on their order, so that it is left out.
#[derive(Debug, Default)]
struct Parts {
    count: u64,
    min: Option<Number>,
    max: Option<Number>,
    sum: Option<i128>,
}

/// A smallest or largest value with its text, as the statistics have it.
type Number = (f64, i128, String);

/// Texts of statistics are numbers. Integers are compared as such, because a float does not hold all of them.
fn number(text: &str) -> Number {
    let float = text.parse().unwrap_or(f64::NAN);
    (float, text.parse().unwrap_or(0), text.to_owned())
}

fn is_less(a: &Number, b: &Number) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()
}

impl Parts {
    fn add(&mut self, part: &ColumnStats) {
        self.count += part.count;
        let (min, max) = (part.min.as_deref().map(number), part.max.as_deref().map(number));
        if let Some(min) = min.filter(|new| self.min.as_ref().is_none_or(|old| is_less(new, old))) {
            self.min = Some(min);
        }
        if let Some(max) = max.filter(|new| self.max.as_ref().is_none_or(|old| is_less(old, new))) {
            self.max = Some(max);
        }
        if let Some(sum) = part.sum.as_deref().and_then(|sum| sum.parse::<i128>().ok()) {
            *self.sum.get_or_insert_default() += sum;
        }
    }

    /// How it differs from what the archive recorded.
    fn difference(&self, known: &ColumnStats) -> Option<String> {
        let text = |number: &Option<Number>| number.as_ref().map(|(.., text)| text.to_string());
        let sum = known.sum.as_deref().and_then(|sum| sum.parse::<i128>().ok());
        let is_same = self.count == known.count
            && text(&self.min).as_deref() == known.min.as_deref()
            && text(&self.max).as_deref() == known.max.as_deref()
            && (sum.is_none() || sum == self.sum);
        let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        (!is_same).then(|| {
            format!(
                "{} values, min {}, max {} there, and {}, {}, {} in the archive",
                self.count,
                shown(text(&self.min)),
                shown(text(&self.max)),
                known.count,
                shown(known.min.as_deref().map(str::to_owned)),
                shown(known.max.as_deref().map(str::to_owned))
            )
        })
    }
}

async fn read(source: &dyn Source, table: &Arc<Table>, window: Window) -> Result<Vec<ColumnStats>> {
    let (sender, mut batches) = BatchSender::channel(BATCHES);
    let columns = table.columns.clone();
    let gathering = tokio::task::spawn_blocking(move || {
        let mut stats = Stats::new(&columns);
        while let Some(batch) = batches.blocking_recv() {
            stats.add(&batch);
        }
        stats.finish()
    });
    let chunk = Chunk { table: Arc::clone(table), slice: Slice::from(window) };
    let read = source.read(&chunk, sender).await;
    let gathered = gathering.await.map_err(|error| Error::stop(error.to_string()));
    // The statistics count only if the stream ended without an error.
    read.and(gathered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn column(count: u64, min: &str, max: &str, sum: Option<&str>) -> ColumnStats {
        ColumnStats {
            column: std::sync::Arc::new(crate::column_stats::ColumnInfo {
                name: "v".to_owned(),
                key: "v".to_owned(),
                role: Role::Field,
                source_type: String::new(),
                parquet_type: None,
                nullable: None,
                key_part: None,
            }),
            count,
            min: Some(min.into()),
            max: Some(max.into()),
            sum: sum.map(Into::into),
        }
    }

    #[test]
    fn parts_together_are_what_was_recorded_of_the_whole() {
        let mut parts = Parts::default();
        parts.add(&column(2, "-0.0", "9.5", Some("9.5")));
        parts.add(&column(3, "-1e300", "1.5", Some("1e300")));
        assert_eq!(parts.difference(&column(5, "-1e300", "9.5", Some("7.25"))), None);
        for (count, min, max) in [(4, "-1e300", "9.5"), (5, "-0.0", "9.5"), (5, "-1e300", "9.6")] {
            assert!(
                parts.difference(&column(count, min, max, None)).is_some(),
                "{count} {min} {max}"
            );
        }

        let mut parts = Parts::default();
        let (a, b) = ("9223372036854775806", "9223372036854775807");
        parts.add(&column(1, b, b, Some(b)));
        parts.add(&column(1, a, a, Some(a)));
        let sum = "18446744073709551613";
        assert_eq!(parts.difference(&column(2, a, b, Some(sum))), None);
        assert!(parts.difference(&column(2, b, b, Some(sum))).is_some(), "integers are exact");
        assert!(parts.difference(&column(2, a, b, Some("1"))).is_some());
    }
}
