//! PURE: which parts of a table's time are committed, and what is left to do.
//! Resuming is not a mode: every run starts with *asked range − coverage*.

use crate::window::Window;

/// A set of instants as sorted windows that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    windows: Vec<Window>,
}

impl Coverage {
    /// Adds a window; what was there already stays.
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

    /// Whether any instant of the window is in the set.
    pub fn overlaps(&self, window: &Window) -> bool {
        let next = self.windows.partition_point(|w| w.to <= window.from);
        self.windows.get(next).is_some_and(|w| w.overlaps(window))
    }

    /// What the set lacks of `asked`, oldest first.
    pub fn missing(&self, asked: Window) -> Vec<Window> {
        let mut gaps = Vec::new();
        let mut from = asked.from;
        for done in self.windows.iter().filter(|w| w.overlaps(&asked)) {
            gaps.extend(Window::new(from, done.from));
            from = done.to;
        }
        gaps.extend(Window::new(from, asked.to));
        gaps
    }

    /// The windows of the set, oldest first.
    pub fn windows(&self) -> &[Window] {
        &self.windows
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

    proptest! {
        #[test]
        fn every_instant_is_either_covered_or_missing(done in windows(), from in 0i64..120, width in 1i64..60) {
            let coverage: Coverage = done.iter().copied().collect();
            let asked = Window { from, to: from + width };
            let missing = coverage.missing(asked);
            for time in asked.from..asked.to {
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
