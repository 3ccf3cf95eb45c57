//! Chooses which part of an archive is restored, and where it goes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::archive::{Archive, ArchiveIndex, is_artifact};
use crate::config::{Limits, matches};
use crate::error::{Error, Result};
use crate::model::{Column, Role, TableId};
use crate::target::{Placed, Plan, Renames, Target};
use crate::window::{Slice, Window};

/// Definitions of more bytes are not read: no target needs them.
const LARGEST_ARTIFACT: u64 = 64 << 20;

/// What is restored, and how.
#[derive(Debug)]
pub struct Options {
    /// Only rows within this time are restored.
    pub within: Option<Window>,
    /// Tables by name or pattern; all of them if it is empty.
    pub tables: Vec<String>,
    /// What gets another name in the target, as `OLD=NEW`.
    pub maps: Vec<String>,
    /// Whether to say what would be done, and do nothing.
    pub dry_run: bool,
    /// Whether to compare the statistics of each chunk, too, instead of only counting the rows of each table.
    pub verify: bool,
    /// The file for rows that the target cannot hold; without it, a file in the working folder.
    pub rejects: Option<PathBuf>,
    /// How much is done at the same time.
    pub limits: Limits,
}

/// A chunk that is to be written.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) table: Arc<Placed>,
    pub(super) commit: Arc<Commit>,
    /// The part of it that is wanted, unless that is the whole.
    pub(super) within: Option<Window>,
    /// Its name in the journal.
    pub(super) name: String,
}

/// What shall be done.
pub(super) struct Chosen {
    pub(super) plan: Plan,
    /// Every chunk that has rows, the oldest first, so that a server writes to few shards at a time.
    pub(super) chunks: Vec<Work>,
    pub(super) skipped: Vec<String>,
}

/// Chooses the tables and chunks, and gives each table its place.
pub(super) async fn choose(
    archive: &Archive,
    state: &ArchiveIndex,
    options: &Options,
    into: &[String],
    target: &dyn Target,
) -> Result<Chosen> {
    let mut by_table = BTreeMap::<TableId, Vec<&Arc<Commit>>>::new();
    for commit in state.commits.iter().filter(|commit| commit.dump.is_none()) {
        let id = commit.id();
        if takes(&options.tables, &id) {
            by_table.entry(id).or_default().push(commit);
        }
    }
    let mut databases: Vec<&str> = by_table.keys().map(|id| id.database.as_str()).collect();
    databases.dedup();
    let into = match into {
        [] => None,
        [only] => Some(only.clone()),
        _ => return Err(Error::usage("a target has one database, or none")),
    };
    let renames = Renames::parse(into, &options.maps, &databases)?;
    let (mut plan, mut skipped) = (Plan { renames, ..Plan::default() }, Vec::new());
    let (mut chunks, mut places) = (Vec::new(), HashMap::<TableId, TableId>::new());
    for (from, commits) in by_table {
        let columns = columns(&commits);
        let (database, schema) = plan.renames.of(&from.database, &from.schema);
        let renamed = TableId { database, schema, ..from.clone() };
        let Some(to) = target.place(renamed, &columns) else {
            skipped.push(format!("{from}: the target is of another kind"));
            continue;
        };
        let place = TableId { source: String::new(), ..to.clone() };
        if let Some(other) = places.insert(place, from.clone()) {
            return Err(Error::usage(format!("{other} and {from} would both become {to}"))
                .hint("give one of them another place by `--map`, or choose one by `--table`"));
        }
        let commits = commits.into_iter().filter(|commit| commit.rows > 0);
        let wanted: Vec<_> = commits
            .filter_map(|commit| Some((commit, part(commit.slice, options.within)?)))
            .collect();
        let has_time = columns.iter().any(|column| column.role == Role::Time);
        if let Some((commit, _)) = wanted.iter().find(|(_, within)| within.is_some() && !has_time) {
            return Err(Error::usage(format!(
                "`--from` and `--to` cut {from} {}, and only whole slices of this table can be restored",
                commit.slice
            ))
            .hint("give bounds that the slices of the archive have (catalog/chunks.parquet), or leave the table out by `--table`"));
        }
        let windows = || wanted.iter().filter_map(|(commit, _)| commit.slice.window());
        let (oldest, newest) = (windows().map(|w| w.from).min(), windows().map(|w| w.to).max());
        let full_field = full_field(&columns, &wanted);
        let rows = wanted.iter().map(|(commit, _)| commit.rows).sum();
        let table = Arc::new(Placed { from, to, columns, rows, oldest, newest, full_field });
        for (commit, within) in wanted {
            let files: Vec<&str> = commit.files.iter().map(|file| file.sha256.as_str()).collect();
            let name = format!("{:?} {} {within:?} {}", table.to, commit.slice, files.join(" "));
            let name = crate::hash::sha256(name.as_bytes());
            let (table, commit) = (Arc::clone(&table), Arc::clone(commit));
            chunks.push(Work { table, commit, within, name });
        }
        plan.tables.push(table);
    }
    let begin = |work: &Work| work.commit.slice.window().map(|window| window.from);
    chunks.sort_by(|a, b| (begin(a), &a.table.to).cmp(&(begin(b), &b.table.to)));
    plan.artifacts = artifacts(archive).await?;
    Ok(Chosen { plan, chunks, skipped })
}

/// Whether a table is chosen by its name, alone or with the names of what it lies in.
fn takes(patterns: &[String], id: &TableId) -> bool {
    let names = [
        id.table.clone(),
        format!("{}.{}", id.schema, id.table),
        format!("{}.{}.{}", id.database, id.schema, id.table),
        format!("{}.{}", id.database, id.table),
    ];
    let fits = |pattern: &String| names.iter().any(|name| matches(pattern, name));
    patterns.is_empty() || patterns.iter().any(fits)
}

/// The part of a slice that is wanted: `None` for nothing of it, `Some(None)` for the whole.
fn part(slice: Slice, within: Option<Window>) -> Option<Option<Window>> {
    let Some(within) = within else { return Some(None) };
    match slice {
        Slice::Window(window) => match window.intersect(&within)? {
            whole if whole == window => Some(None),
            part => Some(Some(part)),
        },
        Slice::All => Some(Some(within)),
        Slice::NullTime => None,
    }
}

/// The columns of all chunks in the order in which they appear.
fn columns(commits: &[&Arc<Commit>]) -> Vec<Column> {
    let mut columns = Vec::<Column>::new();
    let mut seen = std::collections::HashSet::new();
    for column in commits.iter().flat_map(|commit| &commit.columns) {
        if seen.insert(column.name.as_str()) {
            let data_type = arrow::datatypes::DataType::Null; // the files say it
            let kind = &column.source_type;
            columns.push(Column::new(&column.name, &column.key, column.role, kind, data_type));
        }
    }
    columns
}

/// The key of a field of one type that has a value in every row of these chunks.
fn full_field<T>(columns: &[Column], chunks: &[(&Arc<Commit>, T)]) -> Option<String> {
    let of_key = |key: &str| columns.iter().filter(|other| other.key == key).count();
    let mut fields = columns.iter().filter(|column| column.role == Role::Field);
    let full = fields.find(|field| {
        let is_full = |commit: &Commit| {
            let mut known = commit.columns.iter();
            known.any(|column| column.name == field.name && column.count == commit.rows)
        };
        of_key(&field.key) == 1 && chunks.iter().all(|(commit, _)| is_full(commit))
    });
    full.map(|field| field.key.clone())
}

/// What the archive has besides rows, by source and name.
async fn artifacts(archive: &Archive) -> Result<BTreeMap<(String, String), bytes::Bytes>> {
    let mut artifacts = BTreeMap::new();
    for (key, bytes) in archive.store().list("data").await? {
        let mut parts = key.splitn(4, '/').skip(1);
        let (Some(source), Some("_artifacts"), Some(name)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if is_artifact(&key)
            && bytes <= LARGEST_ARTIFACT
            && let Some(content) = archive.store().get(&key).await?
        {
            artifacts.insert((source.to_owned(), name.to_owned()), content);
        }
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_range_is_restored() {
        let window = |from, to| Window::new(from, to).unwrap();
        let (day, range) = (Slice::from(window(0, 10)), window(5, 20));
        assert_eq!(part(day, None), Some(None));
        assert_eq!(part(day, Some(range)), Some(Some(window(5, 10))));
        assert_eq!(part(Slice::from(window(6, 10)), Some(range)), Some(None));
        assert_eq!(part(Slice::from(window(20, 30)), Some(range)), None);
        assert_eq!(part(Slice::All, Some(range)), Some(Some(range)));
        assert_eq!(part(Slice::NullTime, Some(range)), None, "they have no time");
        assert_eq!(part(Slice::NullTime, None), Some(None));
    }

    #[test]
    fn a_pattern_names_a_table_alone_or_with_what_it_lies_in() {
        let id = TableId {
            source: "s".to_owned(),
            database: "plant".to_owned(),
            schema: "autogen".to_owned(),
            table: "cpu".to_owned(),
        };
        for (pattern, expected) in [
            ("cpu", true),
            ("c*", true),
            ("autogen.cpu", true),
            ("plant.autogen.*", true),
            ("plant.cpu", true),
            ("disk", false),
            ("other.autogen.cpu", false),
        ] {
            assert_eq!(takes(&[pattern.to_owned()], &id), expected, "{pattern}");
        }
        assert!(takes(&[], &id));
    }
}
