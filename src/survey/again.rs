//! PURE: what an archive has that may not be what the source has now. A table without windows says nothing of
//! whether it has changed: neither the counters of a server nor the name of its snapshot prove that nobody
//! wrote (counters are reset, unlogged tables are emptied by a crash, a log can be switched off). The hash of
//! a file does. So whatever else was read whole is read again by each run over what was sealed.

use crate::archive::commit::Commit;
use crate::model::{ReadMode, Table};
use crate::survey::same::Known;
use crate::window::Slice;

/// What an archive has of a table that a run may have to read again.
#[derive(Debug, Default)]
pub struct Again<'a> {
    /// What was read whole and has been sealed since.
    pub stale: Vec<&'a Commit>,
    /// Windows that have been sealed, and that nobody compares with the source.
    pub windows: u64,
}

impl<'a> Known<'a> {
    /// What of a table was sealed, by whether it is read again. What a run that did not end has read is not
    /// among it: that is going on.
    pub fn again(&self, table: &Table) -> Again<'a> {
        let mut again = Again::default();
        if table.read_mode == ReadMode::OnePass {
            return again;
        }
        for commit in self.commits(&table.id).iter().filter(|commit| self.is_sealed(commit)) {
            match commit.slice {
                Slice::NullTime => again.stale.push(commit),
                Slice::All if table.read_mode == ReadMode::Whole => again.stale.push(commit),
                Slice::All | Slice::Window(_) => again.windows += 1,
            }
        }
        again
    }
}
