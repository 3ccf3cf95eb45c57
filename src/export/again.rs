//! Decides which slices of earlier runs are read again, and whether they have changed. The earlier commits stay until the
//! seal, so that a run that stops halfway loses nothing.

use std::collections::{HashMap, HashSet};

use crate::archive::commit::Commit;
use crate::archive::run_json::Kept;
use crate::column_stats::ColumnStats;
use crate::export::summary::NotCompared;
use crate::survey::{Known, Survey};
use crate::window::Slice;

/// The slices that a run reads again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// The earlier commit, by the index of its table in the survey.
    pub(super) before: HashMap<(usize, Slice), Commit>,
    pub(super) tables: HashSet<usize>,
    pub(super) changed: HashSet<usize>,
}

/// The slices that a run does not read again.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) kept: Vec<Kept>,
    pub(super) not_compared: NotCompared,
}

/// Divides the archive into what is read again and what stays as it is. With `keep`, nothing is read again.
pub(super) fn divide(survey: &Survey, known: &Known<'_>, keep: bool) -> (Again, Left) {
    let (mut again, mut left) = (Again::default(), Left::default());
    for (at, surveyed) in survey.tables.iter().enumerate() {
        let found = known.again(&surveyed.table);
        left.not_compared.windows += found.windows;
        left.not_compared.tables += u64::from(found.windows > 0);
        for commit in found.stale {
            if keep {
                left.kept.push(Kept {
                    table: commit.id(),
                    slice: commit.slice,
                    as_of: commit.started.clone(),
                });
            } else {
                again.before.insert((at, commit.slice), commit.clone());
            }
        }
    }
    (again, left)
}

/// Whether two commits of a slice agree on the number of rows, the columns and the statistics.
pub(super) fn is_alike(before: &Commit, now: &Commit) -> bool {
    let same = |one: &ColumnStats, other: &ColumnStats| {
        let stripped =
            |stats: &ColumnStats| ColumnStats { sum: None, ..stats.clone().values_alone() };
        stripped(one) == stripped(other) && same_sum(one.sum.as_deref(), other.sum.as_deref())
    };
    before.rows == now.rows
        && before.columns.len() == now.columns.len()
        && before.columns.iter().zip(&now.columns).all(|(one, other)| same(one, other))
}

/// Floats are added in the order in which the rows arrive, which differs if there are several streams.
fn same_sum(one: Option<&str>, other: Option<&str>) -> bool {
    if one == other {
        return true;
    }
    let float = |text: Option<&str>| {
        let text = text.filter(|text| text.contains(['.', 'e', 'E', 'n', 'N']))?;
        text.parse::<f64>().ok()
    };
    float(one)
        .zip(float(other))
        .is_some_and(|(one, other)| (one - other).abs() <= 1e-9 * one.abs().max(other.abs()))
}
