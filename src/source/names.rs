//! PURE: unique names for the columns of a table in the archive.

use std::collections::HashSet;

/// The names that are taken so far, in lower case, since some readers do not distinguish `A` from `a`.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Takes the wanted name, with a number if it is taken already.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let free = std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(|name| !self.0.contains(&name.to_lowercase()))
            .unwrap_or_default(); // there are always more numbers than taken names
        self.0.insert(free.to_lowercase());
        free
    }
}
