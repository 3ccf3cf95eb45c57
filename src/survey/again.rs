//! PURE: finds the slices that are in the archive but may have changed in the source. Nothing proves cheaply that a table
//! without windows is unchanged: a server's counters are reset, unlogged tables are emptied by a crash, and a log can be
//! switched off. Only the hash of a file proves it. So every run over a sealed archive reads all other tables without
//! windows again, and takes each native dump again.

use crate::archive::commit::Commit;
use crate::model::{ReadMode, Table};
use crate::survey::same::Known;
use crate::window::Slice;

/// What an archive has of a table that a run may have to read again.
#[derive(Debug, Default)]
pub struct Again<'a> {
    /// The sealed commits of tables or dumps that were read whole.
    pub stale: Vec<&'a Commit>,
    /// The number of sealed windows, which are not compared with the source.
    pub windows: u64,
}

impl<'a> Known<'a> {
    /// The sealed slices of a table, divided by whether they are read again. The slices of an unfinished run are not among
    /// them, because this run continues that one.
    pub fn again(&self, table: &Table) -> Again<'a> {
        let mut again = Again::default();
        if table.read_mode == ReadMode::OnePass {
            return again;
        }
        for commit in self.commits(&table.id).iter().filter(|commit| self.is_sealed(commit)) {
            match commit.slice {
                Slice::NullTime => again.stale.push(commit),
                Slice::All if matches!(table.read_mode, ReadMode::Whole | ReadMode::Dump) => {
                    again.stale.push(commit)
                }
                Slice::All | Slice::Window(_) => again.windows += 1,
            }
        }
        again
    }
}
