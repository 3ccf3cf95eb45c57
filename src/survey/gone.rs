//! PURE: finds tables that the archive has but their sources do not list any more. The absence from a list proves that
//! only if the table would be in the list: nobody excluded it, its source answered, and the list was to contain it.

use std::collections::{HashMap, HashSet};

use crate::config::{Job, Select};
use crate::model::TableId;
use crate::survey::Survey;

/// Why no listing has a table of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Its source would list it if it were there.
    Gone,
    /// The configuration or the address does not request it.
    NotAsked,
    /// A rule of the user or of the source excludes it.
    LeftOut,
}

impl Survey {
    /// Why tables are not listed, for the sources that answered. Dumps are not considered, since they are not tables.
    pub fn absent<'a>(
        &self,
        job: &Job,
        tables: impl Iterator<Item = &'a TableId>,
    ) -> Vec<(&'a TableId, Absent)> {
        let selects: HashMap<&str, &Select> = (self.sources.iter())
            .filter(|reached| !self.is_lost(&reached.info.name))
            .map(|reached| (reached.info.name.as_str(), &job.sources[reached.place].select))
            .collect();
        let mut left_out: Option<HashSet<(&str, &str)>> = None;
        let mut absent: Vec<_> = tables
            .filter(|id| !id.is_dump() && !self.listed.contains(*id))
            .filter_map(|id| {
                let select = selects.get(id.source.as_str())?;
                let is_asked = select.takes_database(&id.database)
                    && select.takes_schema(&id.schema)
                    && select.takes_table(&id.table);
                if !is_asked {
                    return Some((id, Absent::NotAsked));
                }
                let left_out = left_out.get_or_insert_with(|| {
                    self.excluded.iter().map(|e| (e.source.as_str(), e.what.as_str())).collect()
                });
                let what = format!("table {id}");
                let is_left_out = left_out.contains(&(id.source.as_str(), what.as_str()))
                    || select.excludes(&id.database, &id.schema, &id.table);
                Some((id, if is_left_out { Absent::LeftOut } else { Absent::Gone }))
            })
            .collect();
        absent.sort_unstable_by_key(|(id, _)| *id);
        absent
    }
}
