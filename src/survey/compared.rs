//! Compares the tables of a source with those of the archive, for sources without an identity that could decide.

use crate::config::{Job, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::{Table, TableId};
use crate::retry::Retry;
use crate::source::Source;
use crate::survey::same::{Comparison, Known, Sign};
use crate::window::Window;

/// In how many tables a window is counted to find one that is unchanged.
const COUNTED: usize = 3;

/// A source whose tables have been listed, and what the archive has of it.
pub(super) struct Compared<'a> {
    pub(super) job: &'a Job,
    pub(super) retry: &'a Retry,
    pub(super) known: &'a Known<'a>,
    pub(super) spec: &'a SourceSpec,
    pub(super) source: &'a dyn Source,
    /// Whether the source has an identity.
    pub(super) has_identity: bool,
    pub(super) tables: &'a [(Table, Option<Window>)],
}

impl Compared<'_> {
    /// Warnings about what has changed since it was exported. It is an error if the source may be another one than its name
    /// says, or if the archive may have it under another name.
    pub(super) async fn warnings(&self, unreadable: &[(TableId, String)]) -> Result<Vec<String>> {
        let name = self.source.name();
        // If both have an identity, the identities have been compared already.
        let known_both = |name| self.has_identity && self.known.has_identity(name);
        if self.known.names().any(|known| known == name) {
            let own = self.known.compare(name, self.spec, self.tables, unreadable);
            if !known_both(name)
                && !self.spec.named
                && own.is_other()
                && !self.counts_agree(name, &own).await?
            {
                return Err(Error::stop(format!(
                    "nothing that the archive has of `{name}` is unchanged: another server may have its address now, or \
                     its rows may be gone: {}",
                    own.changes().join("; ")
                ))
                .hint(format!(
                    "if it is the same source, confirm it with `--name {name}`; if it is another, give another `--name`"
                )));
            }
            return Ok(own
                .changes()
                .into_iter()
                .map(|change| format!("{change}; what was exported of it stays in the archive"))
                .collect());
        }
        for other in self.known.names() {
            let taken = self.job.sources.iter().any(|source| source.name == other);
            if self.spec.named || known_both(other) || taken {
                continue;
            }
            let comparison = self.known.compare(other, self.spec, self.tables, unreadable);
            if comparison.has_common()
                && (!comparison.is_other() || self.counts_agree(other, &comparison).await?)
            {
                let why = if comparison.is_same() {
                    "which begin with the same row"
                } else {
                    "and nothing distinguishes them"
                };
                return Err(Error::stop(format!(
                    "`{name}` may be the source that the archive calls `{other}`: it has tables of the same names, \
                     {why}"
                ))
                .hint(format!(
                    "if it is the same source, give `--name {other}` (or `name` in the configuration); if it is another, \
                     give `--name {name}`"
                )));
            }
        }
        Ok(Vec::new())
    }

    /// Whether a window of some table has as many rows as in the archive. If old rows expire, the first rows prove
    /// nothing.
    async fn counts_agree(&self, other: &str, comparison: &Comparison) -> Result<bool> {
        let changed = comparison.signs.iter().filter(|(_, sign)| matches!(sign, Sign::Changed(_)));
        for (id, _) in changed.take(COUNTED) {
            let here = TableId { source: self.source.name().to_owned(), ..id.clone() };
            let Some((table, _)) = self.tables.iter().find(|(table, _)| table.id == here) else {
                continue;
            };
            let there = TableId { source: other.to_owned(), ..id.clone() };
            let windows = self.known.commits(&there).iter().filter(|commit| commit.rows > 0);
            let windows = windows.filter_map(|commit| Some((commit.slice.window()?, commit.rows)));
            let Some((window, rows)) = windows.max_by_key(|(window, _)| window.to) else {
                continue;
            };
            match self
                .retry
                .with_retry(self.source.name(), || self.source.count(table, window))
                .await
            {
                Ok(count) if count.exact && count.rows == rows => return Ok(true),
                Err(error) if error.class() == Class::Stop => return Err(error),
                _ => {} // a window that cannot be counted proves nothing
            }
        }
        Ok(false)
    }
}
