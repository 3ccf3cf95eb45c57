//! PURE: which parts of a table are committed, and what remains to be done.
//! Resuming is not a mode: every run starts with *requested range − coverage*.

use crate::window::{Slice, Window, align_down};

/// A set of instants as sorted windows that neither touch nor overlap, which may also contain the rows without a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    windows: Vec<Window>,
    null_time: bool,
}

/// Windows for a message: a single one itself, several by their number and their ends.
pub fn named(windows: &[Window]) -> String {
    match windows {
        [first, .., last] => {
            let all = Window { from: first.from, to: last.to };
            format!("{} windows within {all}", windows.len())
        }
        windows => windows.iter().map(Window::to_string).collect(),
    }
}

impl Coverage {
    /// Adds a window. Everything that was in the set stays.
    pub fn insert(&mut self, window: Window) {
        let first = self.windows.partition_point(|w| w.to < window.from);
        let last = self.windows.partition_point(|w| w.from <= window.to);
        let mut merged = window;
        for old in &self.windows[first..last] {
            merged.from = merged.from.min(old.from);
            merged.to = merged.to.max(old.to);
        }
        self.windows.splice(first..last, [merged]);
    }

    /// Adds a slice.
    pub fn insert_slice(&mut self, slice: Slice) {
        match slice.window() {
            Some(window) => self.insert(window),
            None => self.null_time = true,
        }
    }

    /// Whether the slice shares an instant, or the rows without a time, with the set.
    pub fn overlaps_slice(&self, slice: Slice) -> bool {
        slice.window().map_or(self.null_time, |window| self.overlaps(&window))
    }

    /// Whether the rows without a time are in the set.
    pub fn has_null_time(&self) -> bool {
        self.null_time
    }

    /// Whether any instant of the window is in the set.
    pub fn overlaps(&self, window: &Window) -> bool {
        let next = self.windows.partition_point(|w| w.to <= window.from);
        self.windows.get(next).is_some_and(|w| w.overlaps(window))
    }

    /// The parts of `requested` that are not in the set, oldest first.
    pub fn missing(&self, requested: Window) -> Vec<Window> {
        let mut gaps = Vec::new();
        let mut from = requested.from;
        for done in self.windows.iter().filter(|w| w.overlaps(&requested)) {
            gaps.extend(Window::new(from, done.from));
            from = done.to;
        }
        gaps.extend(Window::new(from, requested.to));
        gaps
    }

    /// The parts of a window that are in the set, oldest first.
    pub fn within(&self, window: Window) -> impl Iterator<Item = Window> {
        let first = self.windows.partition_point(|w| w.to <= window.from);
        let inside = self.windows[first..].iter().take_while(move |w| w.from < window.to);
        inside.filter_map(move |w| w.intersect(&window))
    }

    /// The requested window without its end, if the set reaches so close to that end that no instant at the resolution
    /// of the source lies between the two.
    pub fn without_empty_end(&self, asked: Window, resolution_nanos: i64) -> Window {
        match self.missing(asked).last() {
            Some(gap) if gap.to == asked.to && gap.from > asked.from => {
                let last = align_down(gap.to.saturating_sub(1), resolution_nanos.max(1));
                if last < gap.from { Window { to: gap.from, ..asked } } else { asked }
            }
            _ => asked,
        }
    }

    /// The windows of the set, oldest first.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }
}

impl FromIterator<Slice> for Coverage {
    fn from_iter<I: IntoIterator<Item = Slice>>(slices: I) -> Self {
        let mut null_time = false;
        let windows = slices.into_iter().filter_map(|slice| {
            null_time |= slice == Slice::NullTime;
            slice.window()
        });
        let mut coverage: Self = windows.collect();
        coverage.null_time = null_time;
        coverage
    }
}

impl FromIterator<Window> for Coverage {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let mut sorted: Vec<Window> = windows.into_iter().collect();
        sorted.sort_unstable();
        let mut coverage = Self::default();
        for window in sorted {
            match coverage.windows.last_mut() {
                Some(last) if window.from <= last.to => last.to = last.to.max(window.to),
                _ => coverage.windows.push(window),
            }
        }
        coverage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn windows() -> impl Strategy<Value = Vec<Window>> {
        prop::collection::vec((0i64..100, 1i64..20), 0..12).prop_map(|pairs| {
            pairs.into_iter().map(|(from, width)| Window { from, to: from + width }).collect()
        })
    }

    #[test]
    fn an_end_that_can_hold_no_row_is_not_requested() {
        let coverage: Coverage = [Window { from: 0, to: 5_001 }].into_iter().collect();
        let end =
            |to, resolution| coverage.without_empty_end(Window { from: 0, to }, resolution).to;
        assert_eq!((end(6_000, 1_000), end(6_001, 1_000)), (5_001, 6_001));
        assert_eq!((end(6_000, 1), end(4_000, 1_000)), (6_000, 4_000));
        let nothing = Coverage::default();
        assert_eq!(nothing.without_empty_end(Window { from: 1, to: 2 }, 1_000).to, 2);
    }

    proptest! {
        #[test]
        fn every_instant_is_either_covered_or_missing(done in windows(), from in 0i64..120, width in 1i64..60) {
            let coverage: Coverage = done.iter().copied().collect();
            let requested = Window { from, to: from + width };
            let missing = coverage.missing(requested);
            for time in requested.from..requested.to {
                let covered = done.iter().any(|w| w.contains(time));
                let left = missing.iter().filter(|w| w.contains(time)).count();
                prop_assert_eq!(left, usize::from(!covered));
            }
            prop_assert!(missing.iter().all(|w| !coverage.overlaps(w)));
        }

        #[test]
        fn the_order_of_commits_does_not_matter(done in windows()) {
            let mut one_by_one = Coverage::default();
            for window in &done {
                one_by_one.insert(*window);
            }
            prop_assert_eq!(one_by_one, done.into_iter().collect());
        }
    }
}
