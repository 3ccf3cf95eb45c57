//! Has the tables of an archive read by the types that it holds them by.

use std::collections::HashSet;
use std::ptr;
use std::sync::Arc;

use crate::archive::ArchiveIndex;
use crate::column_stats::ColumnInfo;
use crate::survey::{Survey, Surveyed};

impl Survey {
    /// Takes over the columns that earlier runs have as text or bytes because a value did not fit their own type. Otherwise
    /// files of one table would differ by which run wrote them. A column that was altered since has its new type.
    pub fn take_types(&mut self, state: &ArchiveIndex) {
        let by_table = state.by_table();
        for Surveyed { table, source, .. } in &mut self.tables {
            let commits = by_table.get(&table.id).map(Vec::as_slice).unwrap_or_default();
            // The chunks of a table share what they say of a column.
            let mut seen = HashSet::new();
            let is_unaltered = |known: &&ColumnInfo| {
                let mut columns = table.columns.iter();
                columns.any(|now| now.key == known.key && now.source_type == known.source_type)
            };
            let columns = commits.iter().flat_map(|commit| &commit.columns);
            let different = columns
                .map(|column| &*column.column)
                .filter(|known| seen.insert(ptr::from_ref(*known)));
            let mut known = different.filter(is_unaltered);
            let source = &self.sources[*source].source;
            if let Some(typed) = source.take_types(table, &mut known) {
                *table = Arc::new(typed);
            }
        }
    }
}
