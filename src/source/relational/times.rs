//! PURE: where the rows of a table lie in time, as windows.

use crate::model::ReadMode;
use crate::window::{MICROSECOND, Window};

/// The smallest distance of two times in any column of these servers. It is not a day for a `date`: if the column becomes
/// a `timestamp` later, new rows could lie within a day that is already covered.
pub(in crate::source) const RESOLUTION_NANOS: i64 = MICROSECOND;

/// What a source states about the times of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::source) struct Times {
    /// The first and the last time in nanoseconds, which may exceed 64 bits.
    pub(in crate::source) ends: Option<(i128, i128)>,
    /// Whether there are values before all instants: an infinity or an invalid date.
    pub(in crate::source) before: bool,
    /// Whether there are values after all instants.
    pub(in crate::source) after: bool,
}

impl Times {
    /// The window of all times; `None` if no row has one.
    pub(in crate::source) fn bounds(&self) -> Option<Window> {
        let windows = self.data_ranges();
        Window::new(windows.first()?.from, windows.last()?.to)
    }

    /// The windows that hold rows. Times beyond 64 bits of nanoseconds belong to the first or the last instant.
    pub(in crate::source) fn data_ranges(&self) -> Vec<Window> {
        let nanos = |time: i128| time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let first = Window { from: i64::MIN, to: i64::MIN + 1 };
        let last = Window { from: i64::MAX - 1, to: i64::MAX };
        let finite = self.ends.and_then(|(from, to)| {
            Window::new(nanos(from), nanos(to + i128::from(RESOLUTION_NANOS)))
        });
        // The range is empty if both ends lie beyond the same end of the representable times.
        let outside = self.ends.filter(|_| finite.is_none()).map(|(from, _)| from);
        let mut windows = Vec::new();
        windows.extend((self.before || outside.is_some_and(|from| from < 0)).then_some(first));
        windows.extend(finite);
        windows.extend((self.after || outside.is_some_and(|from| from > 0)).then_some(last));
        windows
    }

    /// How a table is divided. A table without any time has no window that could be committed, so the commit of its slice
    /// `null-time` shows that the table exists.
    pub(in crate::source) fn read_mode(&self, may_be_null: bool) -> ReadMode {
        if may_be_null || self.bounds().is_none() {
            ReadMode::WindowsAndNullTime
        } else {
            ReadMode::Windows
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_64_bits_cannot_hold_are_in_the_outermost_windows() {
        let first = Window { from: i64::MIN, to: i64::MIN + 1 };
        let last = Window { from: i64::MAX - 1, to: i64::MAX };
        let beyond = i128::from(i64::MAX) * 2;
        let times = |ends| Times { ends, ..Times::default() };
        assert_eq!(times(None).bounds(), None);
        assert_eq!(times(Some((3, 5))).data_ranges(), [Window { from: 3, to: 1005 }]);
        assert_eq!(times(Some((-beyond, -beyond))).data_ranges(), [first]);
        assert_eq!(times(Some((beyond, beyond))).data_ranges(), [last]);
        assert_eq!(times(Some((-beyond, beyond))).bounds(), Some(Window::ALL));
        let all = Times { ends: Some((3, 5)), before: true, after: true };
        assert_eq!(all.data_ranges(), [first, Window { from: 3, to: 1005 }, last]);
        assert_eq!(all.bounds(), Some(Window::ALL));
    }

    #[test]
    fn a_table_without_times_still_has_a_slice() {
        let some = Times { ends: Some((3, 5)), ..Times::default() };
        assert_eq!(some.read_mode(false), ReadMode::Windows);
        assert_eq!(some.read_mode(true), ReadMode::WindowsAndNullTime);
        assert_eq!(Times::default().read_mode(false), ReadMode::WindowsAndNullTime);
    }
}
