//! The databases, tables and columns of information_schema, by a few queries for everything and never one for each table.

use std::collections::{BTreeMap, HashSet};

use arrow::datatypes::{DataType, TimeUnit};

use crate::config::Select;
use crate::model::{Column, Logical, Role, TableId};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::literal;
use crate::source::mysql::types::{Declared, data_type};
use crate::source::relational::databases::{Chosen, Found, choose};
use crate::source::relational::type_overrides::{TypeOverride, TypeOverrides};

/// The databases that belong to the server itself.
const SYSTEM: [&str; 4] = ["information_schema", "performance_schema", "mysql", "sys"];

/// Database and table.
pub(super) type Name = (String, String);

/// A table as the catalog has it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) columns: Vec<Column>,
    /// The columns that the user may not read.
    pub(super) forbidden: Vec<String>,
    /// The server's error where not all of the table could be read.
    pub(super) refused: Option<String>,
    /// `None` for a table that the server cannot open.
    pub(super) engine: Option<String>,
    pub(super) comment: String,
    /// Like `bytes`, an estimate of the server.
    pub(super) rows: u64,
    pub(super) bytes: Option<u64>,
    pub(super) created: Option<String>,
    /// Whether it keeps the old versions of its rows (MariaDB's system versioning).
    pub(super) is_versioned: bool,
    /// The columns of the primary key, in its order.
    pub(super) primary: Vec<String>,
    /// The columns that are the first of some index.
    pub(super) leading: HashSet<String>,
}

/// The server's catalog.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) tables: BTreeMap<Name, Entry>,
    /// Databases that are left out, and why.
    pub(super) others: Vec<(String, &'static str)>,
    /// The databases to export.
    pub(super) databases: Vec<String>,
}

/// The databases to export, and the others.
pub(super) fn databases(client: &mut Client, select: &Select) -> Result<Catalog, CommandError> {
    let all: Vec<String> =
        client.query("SHOW DATABASES")?.into_iter().flatten().flatten().collect();
    // A server that folds case may know a name in another case than the configuration.
    let folds = client.value("SELECT @@lower_case_table_names")?.is_some_and(|how| how != "0");
    let mut select = select.clone();
    for name in select.databases.iter_mut().filter(|_| folds) {
        let folded = name.to_lowercase();
        if let Some(found) = all.iter().find(|found| found.to_lowercase() == folded) {
            name.clone_from(found);
        }
    }
    // The names of information_schema and performance_schema, which are no real databases, ignore case; those of the
    // other two do not.
    let system = |name: &str| {
        let is_schema = |system: &&&str| system.ends_with("_schema");
        SYSTEM.contains(&name)
            || SYSTEM.iter().filter(is_schema).any(|system| system.eq_ignore_ascii_case(name))
    };
    let found = all
        .into_iter()
        .map(|name| Found { foreign: system(&name).then_some("the server's own"), name });
    let Chosen { taken, excluded } = choose(found.collect(), &select)?;
    let others = excluded.into_iter().filter(|(name, _)| !system(name)).collect();
    Ok(Catalog { databases: taken, others, ..Catalog::default() })
}

/// Adds the tables of the databases to export, with their columns and indexes.
pub(super) fn tables(
    client: &mut Client,
    source: &str,
    catalog: &mut Catalog,
    type_overrides: &TypeOverrides,
) -> Result<(), CommandError> {
    if catalog.databases.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = catalog.databases.iter().map(|name| literal(name)).collect();
    let of_databases = format!("TABLE_SCHEMA IN ({})", names.join(","));
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, TABLE_COMMENT, CREATE_TIME, DATA_LENGTH
         FROM information_schema.TABLES
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {of_databases}"
    );
    each(client, &sql, |[database, table, kind, engine, rows, comment, created, bytes]| {
        let entry = Entry {
            engine: engine.map(str::to_owned),
            created: created.map(str::to_owned),
            comment: comment.unwrap_or_default().to_owned(),
            rows: rows.and_then(|rows| rows.parse().ok()).unwrap_or(0),
            bytes: bytes.and_then(|bytes| bytes.parse().ok()),
            is_versioned: kind == Some("SYSTEM VERSIONED"),
            ..Entry::default()
        };
        // The condition ignores case, and the names of two databases may differ by case alone.
        if let Some(name) = database.zip(table).map(owned)
            && catalog.databases.contains(&name.0)
        {
            catalog.tables.insert(name, entry);
        }
    })?;
    let sql = columns_of(&of_databases);
    each(client, &sql, |[database, table, rest @ ..]: [Option<&str>; 10]| {
        let Some(name) = database.zip(table).map(owned) else { return };
        if let Some(entry) = catalog.tables.get_mut(&name) {
            let id = TableId {
                source: source.to_owned(),
                database: name.0,
                schema: String::new(),
                table: name.1,
            };
            add_column(entry, &id, rest, type_overrides);
        }
    })?;
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME,
                SEQ_IN_INDEX = 1 AND SUB_PART IS NULL AND INDEX_TYPE = 'BTREE'
         FROM information_schema.STATISTICS
         WHERE (SEQ_IN_INDEX = 1 OR INDEX_NAME = 'PRIMARY') AND {of_databases}
         ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    each(client, &sql, |[database, table, index, column, leads]| {
        let entry = database.zip(table).and_then(|name| catalog.tables.get_mut(&owned(name)));
        let Some((entry, column)) = entry.zip(column) else { return };
        if leads == Some("1") {
            entry.leading.insert(column.to_owned());
        }
        if index == Some("PRIMARY") {
            entry.primary.push(column.to_owned());
        }
    })?;
    catalog.tables.values_mut().for_each(Entry::mark_key);
    Ok(())
}

impl Entry {
    /// Whether the rows are sorted by a column, so that a window of it is cheap to read.
    pub(super) fn is_sorted_by(&self, column: &str) -> bool {
        self.leading.contains(column) && self.primary.first().is_some_and(|first| first == column)
    }

    /// Gives the columns their positions in the primary key. In a table that keeps its history, the key is unique only
    /// among the current rows, so it is left out.
    fn mark_key(&mut self) {
        if self.is_versioned {
            return;
        }
        for (name, place) in self.primary.iter().zip(1..) {
            let mut columns = self.columns.iter_mut();
            if let Some(column) = columns.find(|column| column.key == *name) {
                column.key_part = Some(place);
            }
        }
    }
}

/// The columns of one table as they are now.
pub(super) fn columns(
    client: &mut Client,
    id: &TableId,
    type_overrides: &TypeOverrides,
) -> Result<Vec<Column>, CommandError> {
    let (database, table) = (literal(&id.database), literal(&id.table));
    let sql = columns_of(&format!("TABLE_SCHEMA = {database} AND TABLE_NAME = {table}"));
    let mut entry = Entry::default();
    each(client, &sql, |[database, table, rest @ ..]: [Option<&str>; 10]| {
        if (database, table) == (Some(&id.database), Some(&id.table)) {
            add_column(&mut entry, id, rest, type_overrides);
        }
    })?;
    Ok(entry.columns)
}

fn columns_of(condition: &str) -> String {
    format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE,
                CHARACTER_SET_NAME, IS_NULLABLE, PRIVILEGES
         FROM information_schema.COLUMNS WHERE {condition}
         ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    )
}

fn add_column(
    entry: &mut Entry,
    id: &TableId,
    row: [Option<&str>; 8],
    type_overrides: &TypeOverrides,
) {
    let [Some(name), kind, full, precision, scale, charset, nullable, rights] = row else { return };
    let full = full.unwrap_or_default();
    let declared = Declared {
        name: kind.unwrap_or_default(),
        full,
        precision: precision.and_then(|digits| digits.parse().ok()),
        scale: scale.and_then(|digits| digits.parse().ok()),
        has_charset: charset.is_some(),
    };
    let type_override = type_overrides.of(id, name).map(TypeOverride::data_type);
    let data_type = type_override.unwrap_or_else(|| data_type(&declared));
    let is_json = declared.name == "json" && data_type == DataType::Utf8;
    entry.columns.push(Column {
        logical: is_json.then_some(Logical::Json),
        nullable: nullable.map(|nullable| nullable == "YES"),
        ..Column::new(name, name, Role::Column, full, data_type)
    });
    if !rights.unwrap_or_default().split(',').any(|right| right == "select") {
        entry.forbidden.push(name.to_owned());
    }
}

/// The two columns that say from when until when a row of a table with a history was current. The catalog does not show
/// them unless they were given names of their own.
pub(super) fn history() -> [Column; 2] {
    ["ROW_START", "ROW_END"].map(|name| {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Column::new(name, name, Role::Column, HISTORY, time)
    })
}

const HISTORY: &str = "timestamp(6) of the row's history";

fn owned((database, table): (&str, &str)) -> Name {
    (database.to_owned(), table.to_owned())
}

/// Passes each row, which has `N` columns, to `each`.
fn each<const N: usize>(
    client: &mut Client,
    sql: &str,
    mut each: impl FnMut([Option<&str>; N]),
) -> Result<(), CommandError> {
    client.query_each(sql, |row| {
        let texts = row.iter().map(|value| value.map(String::from_utf8_lossy));
        let texts: Vec<_> = texts.collect();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| text.as_deref()).collect();
        if let Ok(row) = texts.try_into() {
            each(row);
        }
    })
}
