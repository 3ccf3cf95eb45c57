//! PURE: the WHERE of a slice.

use crate::window::{Slice, Window};

/// A time column as a dialect of SQL writes it.
pub(in crate::source) trait TimeSql {
    /// Its name, quoted.
    fn name(&self) -> String;

    /// The first instant at or after `nanos` that the column can hold, as a literal. A value of the column is before
    /// this instant exactly if it is before `nanos`.
    fn literal(&self, nanos: i64) -> String;

    /// The condition that holds for the rows without a time and for no others.
    fn is_null(&self) -> String {
        format!("{} IS NULL", self.name())
    }
}

/// The condition that the rows of a slice meet, and no others.
///
/// The slices of a table share no row and leave none out. The rows without a time are a slice of their own and belong to
/// no other, not even to `all`. Times that 64 bits of nanoseconds cannot hold belong to the first or the last window.
pub(in crate::source) fn condition(time: &impl TimeSql, slice: Slice) -> String {
    let window = match slice {
        Slice::NullTime => return time.is_null(),
        Slice::All => Window::ALL,
        Slice::Window(window) => window,
    };
    let name = time.name();
    let from =
        (window.from != i64::MIN).then(|| format!("{name} >= {}", time.literal(window.from)));
    let to = (window.to != i64::MAX).then(|| format!("{name} < {}", time.literal(window.to)));
    let bounds: Vec<String> = from.into_iter().chain(to).collect();
    if bounds.is_empty() { format!("{name} IS NOT NULL") } else { bounds.join(" AND ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl TimeSql for Plain {
        fn name(&self) -> String {
            "t".to_owned()
        }

        fn literal(&self, nanos: i64) -> String {
            nanos.to_string()
        }
    }

    #[test]
    fn rows_without_a_time_are_in_one_slice_only() {
        let of = |slice| condition(&Plain, slice);
        let window = |from, to| Slice::Window(Window { from, to });
        assert_eq!(of(Slice::NullTime), "t IS NULL");
        assert_eq!(of(Slice::All), "t IS NOT NULL");
        assert_eq!(of(window(i64::MIN, i64::MAX)), "t IS NOT NULL");
        assert_eq!(of(window(1, i64::MAX)), "t >= 1");
        assert_eq!(of(window(i64::MIN, 2)), "t < 2");
        assert_eq!(of(window(1, 2)), "t >= 1 AND t < 2");
    }
}
