//! PURE: decides which source of the archive a source of this run is. Its address does not show that: a tunnel has another
//! port each time, and another server may have an earlier port. The server's own identity decides; without one, the tables
//! are compared.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::archive::ArchiveIndex;
use crate::archive::commit::Commit;
use crate::archive::runs::RunPlan;
use crate::config::SourceSpec;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::model::{ReadMode, Role, ServerIdentity, SourceInfo, Table, TableId};
use crate::source::registry::takes_database;
use crate::survey::division::same_division;
use crate::window::{Window, rfc3339};

/// How many tables a message names; the others are only counted.
const NAMED: usize = 10;

/// What an archive knows about its sources.
#[derive(Debug, Default)]
pub struct Known<'a> {
    identities: BTreeMap<&'a str, Option<ServerIdentity>>,
    state: Option<&'a ArchiveIndex>,
    tables: HashMap<TableId, Vec<&'a Commit>>,
}

/// The name under which a source is exported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// What the user should know about it.
    pub(super) note: Option<String>,
    pub(super) warning: Option<String>,
}

impl<'a> Known<'a> {
    /// Collects it from the records of the runs that sealed the archive, the plans of those that did not, and the commits.
    pub fn of(state: &'a ArchiveIndex, plans: &'a [RunPlan]) -> Self {
        let runs = state.run.iter().flat_map(|run| run.runs());
        let infos = runs.flat_map(|run| &run.sources);
        let mut identities = BTreeMap::<&str, Option<ServerIdentity>>::new();
        for info in infos.chain(plans.iter().flat_map(|plan| &plan.sources)) {
            let known = identities.entry(&info.name).or_default();
            match (known, &info.identity) {
                (Some(known), Some(found)) => {
                    for (database, id) in &found.databases {
                        // Everything else must fit to the database that was exported first.
                        known.databases.entry(database.clone()).or_insert_with(|| id.clone());
                    }
                }
                (known, found) => *known = found.clone().or(known.take()),
            }
        }
        for commit in &state.commits {
            identities.entry(&commit.source).or_default();
        }
        Self { identities, state: Some(state), tables: state.by_table() }
    }

    /// The commits of a table.
    pub fn commits(&self, table: &TableId) -> &[&'a Commit] {
        self.tables.get(table).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a commit is sealed.
    pub(super) fn is_sealed(&self, commit: &Commit) -> bool {
        self.state.is_none_or(|state| !state.is_outside(commit))
    }

    /// The committed slices of a table.
    pub fn coverage(&self, table: &TableId) -> Coverage {
        self.commits(table).iter().map(|commit| commit.slice).collect()
    }

    /// The names of the sources that have the identity of this server.
    fn names_of(&self, identity: &ServerIdentity) -> Vec<&'a str> {
        let same = |known: &Option<ServerIdentity>| {
            known.as_ref().is_some_and(|known| known.server == identity.server)
        };
        self.identities.iter().filter(|(_, known)| same(known)).map(|(name, _)| *name).collect()
    }

    fn has_rows_of(&self, source: &str, database: &str) -> bool {
        self.tables.keys().any(|id| id.source == source && id.database == database)
    }

    /// The name of a source by its server's identity. Another server under a known name is refused.
    pub(super) fn name_of(&self, spec: &SourceSpec, info: &SourceInfo) -> Result<Named> {
        let mut named = Named { name: spec.name.clone(), note: None, warning: None };
        let Some(identity) = &info.identity else { return Ok(named) };
        let same = self.names_of(identity);
        let other = same.iter().find(|name| **name != spec.name);
        if !same.contains(&spec.name.as_str())
            && let Some(other) = other
        {
            if !spec.named && same.len() > 1 {
                return Err(Error::stop(format!(
                    "the server at {} is in the archive under several names: {}",
                    info.address,
                    quoted(same.iter().copied())
                ))
                .hint(
                    "choose the one to continue with `--name`, or with `name` in the configuration",
                ));
            }
            if spec.named {
                named.warning = Some(format!(
                    "the server of `{}` has the identity of `{other}`, which the archive has already: unless it is a \
                     copy, its rows are exported twice; the name `{other}` continues what is there",
                    spec.name
                ));
            } else {
                named.note = Some(format!(
                    "{} is the server that the archive calls `{other}`: its export continues under that name",
                    info.address
                ));
                named.name = (*other).to_owned();
            }
        }
        if let Some(Some(before)) = self.identities.get(named.name.as_str()) {
            self.refuse_other(&named.name, before, identity, info)?;
        }
        Ok(named)
    }

    fn refuse_other(
        &self,
        name: &str,
        before: &ServerIdentity,
        now: &ServerIdentity,
        info: &SourceInfo,
    ) -> Result<()> {
        let hint = format!(
            "to export it as well, give it a name other than `{name}`, with `--name` or with `name` in the configuration"
        );
        if before.server != now.server {
            return Err(Error::stop(format!(
                "the server at {} is not the one that the archive calls `{name}`: that one is {}, this one is {}",
                info.address, before.server, now.server
            ))
            .hint(hint));
        }
        let made_again = now.databases.iter().find(|(database, id)| {
            before.databases.get(*database).is_some_and(|before| before != *id)
                && self.has_rows_of(name, database)
        });
        match made_again {
            None => Ok(()),
            Some((database, _)) => Err(Error::stop(format!(
                "the database `{}` of `{name}` is not the one that was exported: it was dropped and created again",
                database.escape_debug()
            ))
            .hint(hint)),
        }
    }

    /// Compares the tables of a source with those of the source that the archive calls `other`.
    pub(super) fn compare(
        &self,
        other: &str,
        spec: &SourceSpec,
        tables: &[(Table, Option<Window>)],
        unreadable: &[(TableId, String)],
    ) -> Comparison {
        let here: HashMap<_, _> =
            tables.iter().map(|(table, bounds)| (key(&table.id), (table, *bounds))).collect();
        let hidden: HashSet<_> = unreadable.iter().map(|(id, _)| key(id)).collect();
        let select = &spec.select;
        let mut comparison = Comparison::default();
        let mut known: Vec<_> = self.tables.iter().filter(|(id, _)| id.source == other).collect();
        known.sort_by_key(|(id, _)| *id);
        for (id, commits) in known {
            let selected = takes_database(spec, &id.database)
                && select.takes_schema(&id.schema)
                && select.takes_table(&id.table)
                && !select.excludes(&id.database, &id.schema, &id.table);
            let hidden = hidden.contains(&key(id)) || hidden.contains(&(&*id.database, "*", "*"));
            let rows: u64 = commits.iter().map(|commit| commit.rows).sum();
            if !selected || hidden || rows == 0 {
                continue;
            }
            let sign = match here.get(&key(id)) {
                None => Sign::Missing,
                Some((table, bounds)) => sign(table, *bounds, commits),
            };
            if let Some((table, bounds)) = here.get(&key(id)) {
                comparison.columns.extend(columns_changed(table, *bounds, commits));
            }
            comparison.signs.push((id.clone(), sign));
        }
        comparison
    }

    /// The names of all sources that the archive holds.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.identities.keys().copied()
    }

    /// Whether the archive knows the identity of a source.
    pub(super) fn has_identity(&self, name: &str) -> bool {
        self.identities.get(name).is_some_and(Option::is_some)
    }
}

fn key(id: &TableId) -> (&str, &str, &str) {
    (&id.database, &id.schema, &id.table)
}

/// What a table shows about whether it is the one that was exported.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It begins with the same row, or its file has the same hash.
    Same,
    /// It shows nothing.
    None,
    /// One of the two has something that the other lacks, as the text says.
    Changed(String),
    /// The source does not have it.
    Missing,
}

/// The tables of a source, compared with those of the archive.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) signs: Vec<(TableId, Sign)>,
    /// Messages about tables with other columns.
    columns: Vec<String>,
}

impl Comparison {
    /// Whether any table shows that it is the same source.
    pub(super) fn is_same(&self) -> bool {
        self.signs.iter().any(|(_, sign)| *sign == Sign::Same)
    }

    /// Whether all tables show that it is another source.
    pub(super) fn is_other(&self) -> bool {
        let other = |sign: &Sign| matches!(sign, Sign::Changed(_) | Sign::Missing);
        !self.signs.is_empty() && self.signs.iter().all(|(_, sign)| other(sign))
    }

    /// Whether it has tables with the same names.
    pub(super) fn has_common(&self) -> bool {
        self.signs.iter().any(|(_, sign)| *sign != Sign::Missing)
    }

    /// What the archive has and the source does not have any more, for people.
    pub(super) fn changes(&self) -> Vec<String> {
        let missing = self.signs.iter().filter(|(_, sign)| *sign == Sign::Missing);
        let mut changes: Vec<String> = missing
            .map(|(id, _)| format!("{id} is not there any more"))
            .chain(self.signs.iter().filter_map(|(id, sign)| match sign {
                Sign::Changed(what) => Some(format!("{id} {what}")),
                _ => None,
            }))
            .chain(self.columns.iter().cloned())
            .collect();
        let more = changes.len().saturating_sub(NAMED);
        changes.truncate(NAMED);
        if more > 0 {
            changes.push(format!("{more} other tables have changed likewise"));
        }
        changes
    }
}

/// The time of the first row in the archive, by the statistics of the commits; `None` if they do not tell. They do not tell
/// a time that nanoseconds cannot hold, nor any time of a chunk in which the column became text.
fn first_row(table: &Table, commits: &[&Commit]) -> Option<i64> {
    let of_time = |commit: &&Commit| {
        let column = commit.columns.iter().find(|column| match &table.time_column {
            Some(key) => column.key == *key,
            None => column.role == Role::Time,
        });
        column?.min.as_deref()?.parse::<i64>().ok()
    };
    let first = commits.iter().filter_map(of_time).min()?;
    let is_unknown = |commit: &&Commit| commit.rows > 0 && of_time(commit).is_none();
    let mut unknown = commits.iter().filter(|commit| is_unknown(commit));
    let begins = |commit: &&Commit| commit.slice.window().is_some_and(|window| window.from < first);
    (!unknown.any(begins)).then_some(first)
}

fn sign(table: &Table, bounds: Option<Window>, commits: &[&Commit]) -> Sign {
    match table.read_mode {
        // A table that was read in one pass is recognized by its hash.
        ReadMode::OnePass => {
            if commits.iter().all(|c| same_division(table, c.state.as_deref()).is_ok()) {
                Sign::Same
            } else {
                Sign::Changed("is from another file".to_owned())
            }
        }
        ReadMode::Whole | ReadMode::Dump => Sign::None,
        ReadMode::Windows | ReadMode::WindowsAndNullTime => {
            let Some(first) = first_row(table, commits) else { return Sign::None };
            let coverage: Coverage = commits.iter().filter_map(|c| c.slice.window()).collect();
            match bounds {
                None => Sign::Changed(format!(
                    "has no rows with a time any more; in the archive they begin at {}",
                    rfc3339(first)
                )),
                Some(now) if now.from == first => Sign::Same,
                Some(now) if now.from > first => Sign::Changed(format!(
                    "has lost its first rows: in the archive they begin at {}, in the source at {}",
                    rfc3339(first),
                    rfc3339(now.from)
                )),
                Some(now) if covers(&coverage, now.from) => Sign::Changed(format!(
                    "has rows from {} on, in a window that was exported before they existed",
                    rfc3339(now.from)
                )),
                Some(_) => Sign::None,
            }
        }
    }
}

fn covers(coverage: &Coverage, time: i64) -> bool {
    coverage.windows().iter().any(|window| window.contains(time))
}

/// A message if the exported rows have other columns than the table has now.
fn columns_changed(table: &Table, bounds: Option<Window>, commits: &[&Commit]) -> Option<String> {
    let in_windows = matches!(table.read_mode, ReadMode::Windows | ReadMode::WindowsAndNullTime);
    if !in_windows {
        return None; // the table is read again, or recognized by its hash
    }
    let coverage: Coverage = commits.iter().filter_map(|commit| commit.slice.window()).collect();
    let is_whole = bounds.is_none_or(|bounds| coverage.missing(bounds).is_empty());
    let before: BTreeSet<_> = commits
        .iter()
        .flat_map(|commit| &commit.columns)
        .map(|column| (column.key.as_str(), column.source_type.as_str()))
        .collect();
    let now: BTreeSet<_> = table
        .columns
        .iter()
        .map(|column| (column.key.as_str(), column.source_type.as_str()))
        .collect();
    let gone = quoted(before.difference(&now).map(|(key, _)| *key));
    // In InfluxDB, a new field belongs to the rows that have it, while a new column of a relation is in all rows.
    let may_be_of_old_rows = is_whole || table.time_column.is_some();
    let new = if may_be_of_old_rows {
        quoted(now.difference(&before).map(|(key, _)| *key))
    } else {
        String::new()
    };
    let id = &table.id;
    match (gone.as_str(), new.as_str()) {
        ("", "") => None,
        (gone, "") => Some(format!("{id} has lost or altered the columns {gone}")),
        ("", new) => Some(format!(
            "{id} has the new columns {new}, which the windows that were exported before do not have"
        )),
        (gone, new) => Some(format!(
            "{id} has lost or altered the columns {gone} and has the new columns {new}, which the windows that were \
             exported before do not have"
        )),
    }
}

fn quoted<'b>(names: impl Iterator<Item = &'b str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{}`", name.escape_debug())).collect();
    names.join(", ")
}
