//! PURE: how many rows and bytes lie where in time.

use serde::Serialize;

use crate::archive::commit::Commit;
use crate::report::axis::{Axis, Tick, WIDTH};
use crate::report::coverage::time_of;
use crate::report::words::{bytes, count};
use crate::text::several;

/// The height of the highest bar.
const HEIGHT: f64 = 120.0;

/// Rows and bytes in each cell of the axis.
#[derive(Debug, Serialize)]
pub(super) struct Amounts {
    /// How long a cell is.
    unit: String,
    ticks: Vec<Tick>,
    /// The pictures: of rows, and of bytes.
    charts: [Chart; 2],
    /// The same as text: begin, rows, bytes.
    table: Vec<(String, String, String)>,
    /// Rows that have no time.
    untimed: Option<String>,
}

/// Bars side by side.
#[derive(Debug, Serialize)]
struct Chart {
    /// `Rows`, `Bytes`.
    what: &'static str,
    /// In words: the most, and where.
    words: String,
    /// What the highest bar is.
    most: String,
    bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
struct Bar {
    x: u64,
    y: f64,
    width: u64,
    height: f64,
    words: String,
}

impl Amounts {
    /// Of all commits of rows; the rows of one are spread evenly over its time.
    pub(super) fn of<'a>(axis: &Axis, commits: impl Iterator<Item = &'a Commit>) -> Self {
        let mut rows = vec![0f64; axis.cells()];
        let mut sizes = vec![0f64; axis.cells()];
        let mut untimed = 0;
        for commit in commits.filter(|commit| commit.rows > 0) {
            let Some(time) = time_of(commit) else {
                untimed += commit.rows;
                continue;
            };
            let size: u64 = commit.files.iter().map(|file| file.bytes).sum();
            for cell in axis.cells_of(time) {
                let share = axis.share(time, cell);
                rows[cell] += share * commit.rows as f64;
                sizes[cell] += share * size as f64;
            }
        }
        let (rows, sizes) = (whole(&rows), whole(&sizes));
        let cells = rows.iter().zip(&sizes).enumerate();
        let table = cells.map(|(at, (rows, size))| (axis.begin(at), count(*rows), bytes(*size)));
        Self {
            unit: axis.unit().to_owned(),
            ticks: axis.ticks(),
            table: table.collect(),
            charts: [
                Chart::of("Rows", axis, &rows, |rows| several(rows, "row")),
                Chart::of("Bytes", axis, &sizes, bytes),
            ],
            untimed: (untimed > 0).then(|| several(untimed, "row")),
        }
    }
}

/// Whole numbers with the same sum: what one cell has too little, the next has more.
fn whole(parts: &[f64]) -> Vec<u64> {
    let (mut sum, mut counted) = (0f64, 0u64);
    let whole = parts.iter().map(|part| {
        sum += part;
        let new = (sum.round() as u64).saturating_sub(counted);
        counted += new;
        new
    });
    whole.collect()
}

impl Chart {
    fn of(what: &'static str, axis: &Axis, values: &[u64], text: impl Fn(u64) -> String) -> Self {
        let most = values.iter().copied().max().unwrap_or_default();
        let bars =
            values.iter().enumerate().filter(|(_, value)| **value > 0).map(|(cell, value)| {
                // What is there can be seen, however little it is.
                let height = (HEIGHT * *value as f64 / most.max(1) as f64).max(1.5);
                let (x, end) = (axis.x(cell), axis.x(cell + 1));
                let tenth = |value: f64| (value * 10.0).round() / 10.0;
                Bar {
                    x,
                    y: tenth(HEIGHT - height),
                    width: (end - x).max(2) - u64::from(end - x > 4),
                    height: tenth(height),
                    words: format!("from {}: {}", axis.begin(cell), text(*value)),
                }
            });
        let at = values.iter().position(|value| *value == most).unwrap_or_default();
        let words = format!(
            "{} bars, each of {}, from {} to {}. The highest is {}, from {} on.",
            count(axis.cells() as u64),
            axis.unit(),
            axis.begin(0),
            axis.begin(axis.cells()),
            text(most),
            axis.begin(at)
        );
        Self { what, words, most: text(most), bars: bars.collect() }
    }
}

/// How wide a picture is, for the page.
pub(super) const PICTURE: (u64, u64) = (WIDTH, HEIGHT as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_rounding() {
        assert_eq!(whole(&[0.25; 4]), [0, 1, 0, 0]);
        assert_eq!(whole(&[1.0 / 3.0; 9]).iter().sum::<u64>(), 3);
        assert!(whole(&[]).is_empty());
    }
}
