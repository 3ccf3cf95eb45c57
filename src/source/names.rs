//! PURE: names of columns in the archive, each of its own.

use std::collections::HashSet;

/// Column names given out so far, with case folded: some readers do not tell `A` from `a`.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The wanted name, or with a number if it is taken.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let free = std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(|name| !self.0.contains(&name.to_lowercase()))
            .unwrap_or_default(); // the numbers do not end before the names taken do
        self.0.insert(free.to_lowercase());
        free
    }
}
