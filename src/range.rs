//! PURE: the range that was requested of a table, and the parts of the table outside of it.

use serde::{Deserialize, Serialize};

use crate::model::{ReadMode, Table};
use crate::window::{Bound, Window};

/// The requested range in the user's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeText {
    /// `--from`.
    pub from: String,
    /// `--to`.
    pub to: String,
}

/// The range that is requested of one table, given its true bounds; `None` if it is empty.
pub fn requested(
    table: &Table,
    bounds: Option<Window>,
    from: Bound,
    to: Bound,
    now: i64,
) -> Option<Window> {
    match table.read_mode {
        ReadMode::Whole | ReadMode::Dump => return Some(Window::ALL),
        ReadMode::OnePass if (from, to) == (Bound::Min, Bound::Max) => {
            return bounds.map(|_| Window::ALL);
        }
        _ => {}
    }
    let one_pass = table.read_mode.is_one_pass();
    let from = match from {
        Bound::At(time) => time,
        _ => bounds?.from,
    };
    let to = match to {
        // The future must not count as covered, so that a later run finds it missing.
        Bound::At(time) if !one_pass => time.min(bounds.map_or(now, |bounds| bounds.to.max(now))),
        Bound::At(time) => time,
        _ => bounds?.to,
    };
    Window::new(from, to)
}

/// The parts of a table's bounds before and after the requested range.
pub fn outside(bounds: Window, requested: Option<Window>) -> Vec<Window> {
    let Some(requested) = requested else { return vec![bounds] };
    let before = Window::new(bounds.from, bounds.to.min(requested.from));
    let after = Window::new(bounds.from.max(requested.to), bounds.to);
    before.into_iter().chain(after).collect()
}

/// The window from the earlier start to the later end.
pub fn union(one: Option<Window>, other: Option<Window>) -> Option<Window> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Window { from: one.from.min(other.from), to: one.to.max(other.to) })
        }
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SplitPoints, TableId};
    use crate::window::DAY;

    fn table(data_ranges: Vec<Window>, split_points: SplitPoints) -> Table {
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: "r".into(),
            table: "t".into(),
        };
        Table { data_ranges, split_points, ..Table::new(id, vec![]) }
    }

    fn window(from: i64, to: i64) -> Window {
        Window { from, to }
    }

    #[test]
    fn the_future_is_not_covered() {
        let table = table(vec![Window::ALL], SplitPoints::None);
        let to = Bound::At(100 * DAY);
        let at = |bounds| requested(&table, bounds, Bound::At(0), to, 50 * DAY);
        assert_eq!(at(Some(window(1, 7 * DAY))), Some(window(0, 50 * DAY)));
        assert_eq!(at(Some(window(1, 70 * DAY))), Some(window(0, 70 * DAY)));
        assert_eq!(at(Some(window(1, 700 * DAY))), Some(window(0, 100 * DAY)));
    }
}
