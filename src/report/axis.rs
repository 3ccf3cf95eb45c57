//! PURE: the axis of time that all pictures of a report share: some dozens of cells of one round width.

use std::ops::Range;

use serde::Serialize;

use crate::window::{DAY, SECOND, Window, rfc3339};

/// Cells at most.
const MOST: i128 = 60;
/// Units that a picture is wide and high; a cell is a part of it.
pub(super) const WIDTH: u64 = 600;

const UNITS: [(i64, &str); 20] = [
    (SECOND, "second"),
    (10 * SECOND, "10 seconds"),
    (60 * SECOND, "minute"),
    (300 * SECOND, "5 minutes"),
    (900 * SECOND, "15 minutes"),
    (3_600 * SECOND, "hour"),
    (3 * 3_600 * SECOND, "3 hours"),
    (6 * 3_600 * SECOND, "6 hours"),
    (12 * 3_600 * SECOND, "12 hours"),
    (DAY, "day"),
    (2 * DAY, "2 days"),
    (7 * DAY, "week"),
    (14 * DAY, "2 weeks"),
    (28 * DAY, "4 weeks"),
    (56 * DAY, "8 weeks"),
    (112 * DAY, "16 weeks"),
    (224 * DAY, "32 weeks"),
    (448 * DAY, "64 weeks"),
    (896 * DAY, "128 weeks"),
    (1_792 * DAY, "256 weeks"),
];

/// Time in cells of one width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axis {
    from: i128,
    width: i128,
    cells: usize,
    unit: String,
}

/// A label below a picture.
#[derive(Debug, Serialize)]
pub(super) struct Tick {
    /// Where, from the left.
    pub x: u64,
    /// The day, with the time where cells are shorter.
    pub label: String,
}

impl Axis {
    /// Over all of the windows but for ends that are none.
    pub(super) fn over(windows: impl Iterator<Item = Window>) -> Option<Self> {
        let mut ends: Option<(i64, i64)> = None;
        for Window { from, to } in windows.filter(is_bounded) {
            let (first, last) = ends.unwrap_or((from, to));
            ends = Some((first.min(from), last.max(to)));
        }
        let (first, last) = ends.map(|(first, last)| (i128::from(first), i128::from(last)))?;
        let fits = |width: i128| (last - 1).div_euclid(width) - first.div_euclid(width) < MOST;
        let unit = UNITS.iter().find(|(width, _)| fits(i128::from(*width)));
        let (width, unit) = match unit {
            Some((width, unit)) => (i128::from(*width), (*unit).to_owned()),
            None => {
                let days = ((last - first) / MOST).div_euclid(i128::from(DAY)) + 1;
                (days * i128::from(DAY), format!("{days} days"))
            }
        };
        let from = first.div_euclid(width) * width;
        let cells = (last - 1 - from).div_euclid(width) + 1;
        Some(Self { from, width, cells: usize::try_from(cells).ok()?.min(2 * MOST as usize), unit })
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// `day`, `8 weeks`: how long a cell is.
    pub(super) fn unit(&self) -> &str {
        &self.unit
    }

    /// The cells that share an instant with the window.
    pub(super) fn cells_of(&self, window: Window) -> Range<usize> {
        let cell = |time: i128| {
            let cell = (time - self.from).div_euclid(self.width);
            cell.clamp(-1, self.cells as i128)
        };
        let first = cell(i128::from(window.from)).max(0);
        let last = cell(i128::from(window.to) - 1).min(self.cells as i128 - 1);
        first as usize..(last + 1).max(first) as usize
    }

    /// The part of the window that lies in a cell, from 0 to 1.
    pub(super) fn share(&self, window: Window, cell: usize) -> f64 {
        let from = self.from + self.width * cell as i128;
        let (begin, end) = (i128::from(window.from), i128::from(window.to));
        let shared = end.min(from + self.width) - begin.max(from);
        (shared.max(0) as f64 / (end - begin) as f64).clamp(0.0, 1.0)
    }

    /// Where a cell begins in a picture.
    pub(super) fn x(&self, cell: usize) -> u64 {
        WIDTH * cell as u64 / self.cells.max(1) as u64
    }

    /// When a cell begins, as people write it.
    pub(super) fn begin(&self, cell: usize) -> String {
        let time = self.from + self.width * cell as i128;
        let time = time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let text = rfc3339(time);
        let day = text.split('T').next().unwrap_or_default().to_owned();
        if self.width % i128::from(DAY) == 0 {
            return day;
        }
        let clock = text.split('T').nth(1).unwrap_or_default();
        let clock =
            if self.width < i128::from(60 * SECOND) { clock.get(..8) } else { clock.get(..5) };
        format!("{day} {}", clock.unwrap_or_default())
    }

    /// The begin, the middle and the end.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let mut cells = vec![0, self.cells / 2, self.cells];
        cells.dedup();
        cells.into_iter().map(|cell| Tick { x: self.x(cell), label: self.begin(cell) }).collect()
    }
}

/// Whether a window has two ends.
pub(super) fn is_bounded(window: &Window) -> bool {
    window.from != i64::MIN && window.to != i64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_some_dozens_of_cells_of_a_round_width() {
        let of = |from: i64, to: i64| Axis::over([Window { from, to }].into_iter()).unwrap();
        for (to, unit, cells) in [
            (1, "second", 1),
            (59 * SECOND, "second", 59),
            (DAY, "hour", 24),
            (40 * DAY, "day", 40),
            (366 * DAY, "week", 53),
            (100 * 366 * DAY, "128 weeks", 41),
        ] {
            let axis = of(0, to);
            assert_eq!((axis.unit(), axis.cells()), (unit, cells), "{to}");
        }
        let all = of(i64::MIN + 1, i64::MAX - 1);
        assert!(all.cells() <= 61 && all.cells() > 30, "{}", all.cells());
        assert_eq!(all.cells_of(Window::ALL), 0..all.cells());
        assert!(Axis::over([Window::ALL].into_iter()).is_none());
    }

    #[test]
    fn a_window_lies_in_the_cells_that_it_shares_time_with() {
        let axis = Axis::over([Window { from: 0, to: 10 * DAY }].into_iter()).unwrap();
        // Ten days in cells of six hours.
        assert_eq!(axis.cells(), 40);
        assert_eq!(axis.cells_of(Window { from: 0, to: DAY }), 0..4);
        assert_eq!(axis.cells_of(Window { from: DAY, to: DAY + 1 }), 4..5);
        assert_eq!(axis.cells_of(Window { from: -5, to: -1 }), 0..0);
        assert_eq!(axis.cells_of(Window { from: 11 * DAY, to: 12 * DAY }).len(), 0);
        let shares: f64 =
            (0..40).map(|cell| axis.share(Window { from: 7, to: 3 * DAY }, cell)).sum();
        assert!((shares - 1.0).abs() < 1e-9);
        assert_eq!(axis.begin(1), "1970-01-01 06:00");
    }
}
