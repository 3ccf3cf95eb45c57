//! Which table a name stands for, when it was listed and now. InnoDB gives no error to the reader of an older snapshot
//! after a `RENAME`: it shows the other table as it was at that time, with its columns under their present names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::{Error, Result};
use crate::model::{Column, Object, ObjectColumn, TableId};
use crate::source::mysql::catalog;
use crate::source::mysql::catalog::{Entry, Name};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::literal;
use crate::source::relational::type_overrides::TypeOverrides;

/// InnoDB goes through all of its tables to find the number of one. If there are more than this, it is not asked after
/// each read, since the work would grow with the square of their number.
const MANY_TABLES: usize = 1000;

/// What distinguishes tables of the same name, besides their columns: the second in which each was created and, if the
/// user may see it (PROCESS), InnoDB's own number for it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    created: HashMap<Name, String>,
    /// `None` if the user may not see them, or if asking for them costs too much.
    numbers: Option<HashMap<String, BTreeSet<String>>>,
}

impl Marks {
    /// The marks of the tables that meet a condition on `TABLE_SCHEMA` and `TABLE_NAME`.
    fn ask(client: &mut Client, condition: &str, numbered: bool) -> Result<Self, CommandError> {
        let mut marks = Self::default();
        let sql = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE {condition}"
        );
        for row in client.query(&sql)? {
            if let [Some(database), Some(table), created] = row.as_slice() {
                let name = (database.clone(), table.clone());
                marks.created.insert(name, created.clone().unwrap_or_default());
            }
        }
        if numbered {
            marks.numbers = numbers(client)?;
        }
        Ok(marks)
    }

    /// The marks of all tables of these databases.
    pub(super) fn of_all(client: &mut Client, databases: &[String]) -> Result<Self, CommandError> {
        if databases.is_empty() {
            return Ok(Self::default());
        }
        let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
        let marks = Self::ask(client, &format!("TABLE_SCHEMA IN ({})", names.join(",")), true)?;
        Ok(marks.bounded())
    }

    /// The marks of the tables of a catalog, which already has their times of creation.
    pub(super) fn of_catalog(
        client: &mut Client,
        tables: &BTreeMap<Name, Entry>,
    ) -> Result<Self, CommandError> {
        let created = |(name, entry): (&Name, &Entry)| {
            (name.clone(), entry.created.clone().unwrap_or_default())
        };
        let created = tables.iter().map(created).collect();
        Ok(Self { created, numbers: numbers(client)? }.bounded())
    }

    fn bounded(mut self) -> Self {
        self.numbers = self.numbers.filter(|numbers| numbers.len() <= MANY_TABLES);
        self
    }

    /// Whether the marks contain InnoDB's numbers.
    pub(super) fn are_numbered(&self) -> bool {
        self.numbers.is_some()
    }

    /// The mark of one table; `None` if it does not exist.
    pub(super) fn of(&self, name: &Name) -> Option<String> {
        let created = self.created.get(name)?;
        let numbers = self.numbers.as_ref().zip(in_files(name));
        let numbers = numbers.and_then(|(numbers, name)| numbers.get(&name));
        let numbers: Vec<&str> = numbers.into_iter().flatten().map(String::as_str).collect();
        Some(format!("made {created}, InnoDB's {}", numbers.join(" ")))
    }
}

/// InnoDB's numbers for its tables, by the names of their files; a table with partitions has several. `None` if the user
/// may not see them.
fn numbers(client: &mut Client) -> Result<Option<HashMap<String, BTreeSet<String>>>, CommandError> {
    // MySQL 8 and newer; MySQL 5.7 and MariaDB.
    for view in ["INNODB_TABLES", "INNODB_SYS_TABLES"] {
        let rows =
            match client.query(&format!("SELECT NAME, TABLE_ID FROM information_schema.{view}")) {
                Ok(rows) => rows,
                Err(CommandError::Server(_)) => continue,
                Err(broken) => return Err(broken),
            };
        let mut numbers = HashMap::<String, BTreeSet<String>>::new();
        for row in rows {
            if let [Some(name), Some(number)] = row.as_slice() {
                let table = name.split('#').next().unwrap_or(name); // partitions have more
                numbers.entry(table.to_owned()).or_default().insert(number.clone());
            }
        }
        return Ok(Some(numbers));
    }
    Ok(None)
}

/// `DATABASE/TABLE` as InnoDB writes it; `None` for names with letters beyond ASCII, which the server encodes in a way
/// of its own.
fn in_files((database, table): &Name) -> Option<String> {
    let encode = |name: &str| {
        let chars = name.chars().map(|c| match c {
            '_' => Some(c.to_string()),
            c if c.is_ascii_alphanumeric() => Some(c.to_string()),
            c if c.is_ascii() => Some(format!("@{:04x}", c as u32)),
            _ => None,
        });
        chars.collect::<Option<String>>()
    };
    Some(format!("{}/{}", encode(database)?, encode(table)?))
}

/// A table, identified by its mark and the columns that the catalog shows.
pub(super) fn object(mark: String, columns: &[Column]) -> Object {
    let column = |(at, column): (usize, &Column)| ObjectColumn {
        number: i32::try_from(at).unwrap_or(i32::MAX) + 1,
        name: column.key.clone(),
        kind: column.source_type.clone(),
    };
    Object { id: mark, columns: columns.iter().enumerate().map(column).collect() }
}

/// The table that has a name now, as a connection outside of any snapshot sees it.
pub(super) fn now(client: &mut Client, id: &TableId, numbered: bool) -> Result<Option<Object>> {
    let (database, table) = (literal(&id.database), literal(&id.table));
    let condition = format!("TABLE_SCHEMA = {database} AND TABLE_NAME = {table}");
    let marks = Marks::ask(client, &condition, numbered).map_err(Error::from)?;
    let Some(mark) = marks.of(&(id.database.clone(), id.table.clone())) else { return Ok(None) };
    let columns = catalog::columns(client, id, &TypeOverrides::default()).map_err(Error::from)?;
    Ok(Some(object(mark, &columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_innodb_has_them() {
        let name = |database: &str, table: &str| in_files(&(database.to_owned(), table.to_owned()));
        assert_eq!(name("d", "T_1").as_deref(), Some("d/T_1"));
        assert_eq!(name("we ird", "t#p.1").as_deref(), Some("we@0020ird/t@0023p@002e1"));
        assert_eq!(name("d", "é"), None);
    }
}
