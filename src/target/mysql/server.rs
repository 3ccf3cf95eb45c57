//! The connections to a target, and what is asked of it. Blocks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::record::{self, Record};
use super::script::Account;
use crate::error::{Error, Result};
use crate::model::TableId;
use crate::source::mysql::client::{Client, TextRow};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted, table_name};
use crate::source::mysql::session::Address;
use crate::source::relational::cancel::CancelToken;
use crate::target::Placed;
use crate::target::relational::{self, Idle};

/// The engines with transactions.
const TRANSACTIONAL: [&str; 3] = ["InnoDB", "ROCKSDB", "TokuDB"];

/// The engines whose tables show rows of other tables or servers. Rows that are written into them are stored there.
const ELSEWHERE: [&str; 5] = ["MRG_MyISAM", "FEDERATED", "CONNECT", "SPIDER", "S3"];

/// The settings of a session in addition to those of an export. Foreign keys are checked at the end. Values that a
/// CHECK would refuse were also in the source.
const SETTINGS: &str = "SET SESSION foreign_key_checks = 0, sql_auto_is_null = 0, sql_safe_updates = 0, autocommit = 1";

/// Settings that some servers do not have, or that some users may not change.
const IF_POSSIBLE: [&str; 4] = [
    "check_constraint_checks = 0",
    "sql_require_primary_key = 0",
    "sql_generate_invisible_primary_key = 0",
    "lc_messages = 'en_US'",
];

/// The server, and the connections that are not in use.
pub(super) struct Inner {
    pub(super) address: Address,
    /// The database that everything goes into, if the user names one.
    pub(super) into: Option<String>,
    pub(super) idle: Idle<Client>,
    /// Whether the server refuses `LOAD DATA LOCAL`.
    pub(super) takes_no_files: AtomicBool,
    /// The missing accounts whose objects now belong to the user of the restore.
    pub(super) replaced: Mutex<BTreeSet<Account>>,
}

impl Inner {
    /// Opens a connection with these settings.
    pub(super) fn open(&self, cancel: &CancelToken) -> Result<Client> {
        let mut client = self.address.connect(cancel)?;
        let mut set_up = || {
            client.query(SETTINGS)?;
            for setting in IF_POSSIBLE {
                match client.query(&format!("SET SESSION {setting}")) {
                    Ok(_) | Err(CommandError::Server(_)) => {}
                    Err(broken) => return Err(broken),
                }
            }
            Ok(())
        };
        set_up().map_err(|fault| Error::from(fault).context("setting up a connection"))?;
        Ok(client)
    }

    /// Works with a connection, which is kept for the next piece of work unless this one failed.
    pub(super) fn with<T>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Client) -> Result<T, CommandError>,
    ) -> Result<T> {
        self.idle.with("", cancel, || self.open(cancel), |client| work(client).map_err(told))
    }

    pub(super) fn describe(&self, cancel: &CancelToken) -> Result<String> {
        let host = self.address.host();
        self.with(cancel, |client| {
            let product = if client.is_mariadb { "MariaDB" } else { "MySQL" };
            let tls = if client.is_tls() { "" } else { ", without TLS" };
            Ok(format!("{product} {}{tls}, {host}", client.version))
        })
    }
}

/// The server's errors for a lack of room: on the disk, while a file is written, or in a table.
const FULL: [u16; 3] = [1021, 1026, 1114];

/// The server's errors for a lack of rights: to a table, to a column, or to an administrator's command.
const DENIED: [u16; 3] = [1142, 1143, 1227];

/// The error that tells what an error of the server means for a target.
fn told(fault: CommandError) -> Error {
    match fault {
        CommandError::Server(error) if FULL.contains(&error.code) => relational::is_full(error),
        CommandError::Server(error) if DENIED.contains(&error.code) => relational::is_denied(error),
        other => other.into(),
    }
}

/// What a database of the target has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether it exists.
    pub(super) exists: bool,
    /// Each table, with its engine.
    tables: HashMap<String, String>,
    /// The record of a restore, if there is one.
    pub(super) record: Option<Record>,
}

impl Found {
    /// Whether the database has a table.
    pub(super) fn has(&self, table: &TableId) -> bool {
        self.tables.contains_key(&table.table)
    }

    /// The engine of a table that exists.
    pub(super) fn engine(&self, table: &TableId) -> Option<&str> {
        self.tables.get(&table.table).map(String::as_str)
    }

    /// Whether a table has no transactions.
    pub(super) fn is_loose(&self, table: &TableId) -> bool {
        self.engine(table).is_some_and(|engine| is_loose(engine) && !is_elsewhere(engine))
    }
}

/// Whether the rows of an engine's tables are stored elsewhere.
pub(super) fn is_elsewhere(engine: &str) -> bool {
    ELSEWHERE.iter().any(|known| known.eq_ignore_ascii_case(engine))
}

/// Whether an engine has no transactions.
pub(super) fn is_loose(engine: &str) -> bool {
    !TRANSACTIONAL.iter().any(|known| known.eq_ignore_ascii_case(engine))
}

/// Finds out what a database has.
pub(super) fn look(client: &mut Client, database: &str) -> Result<Found, CommandError> {
    let mut found = Found { exists: databases(client)?.contains(database), ..Found::default() };
    if !found.exists {
        return Ok(found);
    }
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} \
         AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')",
        literal(database)
    );
    for row in client.query(&sql)? {
        // The server may have compared the names without regard to case.
        if let Ok([Some(schema), Some(name), engine]) = <[_; 3]>::try_from(row)
            && schema == database
        {
            found.tables.insert(name, engine.unwrap_or_default());
        }
    }
    if found.tables.remove(record::TABLE).is_some() {
        found.record = Some(record::read(client, database)?);
    }
    Ok(found)
}

/// Which of these tables of a database exist and have rows.
pub(super) fn occupied(
    client: &mut Client,
    found: &Found,
    tables: &[&Arc<Placed>],
) -> Result<BTreeSet<TableId>, CommandError> {
    let may_have_rows =
        |table: &&Arc<Placed>| found.engine(&table.to).is_some_and(|engine| !is_elsewhere(engine));
    let tables: Vec<_> = tables.iter().copied().filter(may_have_rows).collect();
    let numbers = |rows: Vec<TextRow>| rows.into_iter().flatten().flatten().collect();
    relational::occupied(&tables, table_name, |sql| client.query(sql).map(numbers))
}

/// All databases that the user may see.
pub(super) fn databases(client: &mut Client) -> Result<HashSet<String>, CommandError> {
    Ok(client.query("SHOW DATABASES")?.into_iter().flatten().flatten().collect())
}

/// All accounts; `None` if the user may not see them.
pub(super) fn accounts(client: &mut Client) -> Result<Option<BTreeSet<Account>>, CommandError> {
    let rows = match client.query("SELECT User, Host FROM mysql.user") {
        Ok(rows) => rows,
        Err(CommandError::Server(_)) => return Ok(None),
        Err(broken) => return Err(broken),
    };
    let account = |row| match <[Option<String>; 2]>::try_from(row) {
        Ok([user, host]) => {
            Some(Account { user: user.unwrap_or_default(), host: host.unwrap_or_default() })
        }
        Err(_) => None,
    };
    Ok(Some(rows.into_iter().filter_map(account).collect()))
}

/// The number of rows of a table, including those of its history; `None` if they are stored elsewhere.
pub(super) fn count(client: &mut Client, table: &TableId) -> Result<Option<u64>, CommandError> {
    let kind = format!(
        "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = BINARY {} AND TABLE_NAME = BINARY {}",
        literal(&table.database),
        literal(&table.table)
    );
    let kind = client.query(&kind)?.into_iter().next().unwrap_or_default();
    let is = |at: usize, fits: &dyn Fn(&str) -> bool| {
        kind.get(at).is_some_and(|value| value.as_deref().is_some_and(fits))
    };
    if is(1, &is_elsewhere) {
        return Ok(None);
    }
    let is_versioned = is(0, &|kind| kind == "SYSTEM VERSIONED");
    let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    let sql = format!("SELECT COUNT(*) FROM {}{history}", table_name(table));
    let count = client.value_of_scan(&sql)?.and_then(|count| count.parse().ok());
    count.map(Some).ok_or_else(|| CommandError::nonsense("a count of rows"))
}

/// Counts the rows of these databases whose foreign keys refer to no row, because the server has not checked them.
/// Returns a line for each constraint that has some.
pub(super) fn orphans(
    client: &mut Client,
    databases: &BTreeSet<String>,
) -> Result<Vec<String>, CommandError> {
    let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT TABLE_SCHEMA, CONSTRAINT_NAME, TABLE_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, \
         REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE REFERENCED_TABLE_NAME IS NOT NULL AND TABLE_SCHEMA IN ({}) \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
        names.join(",")
    );
    let mut keys = Vec::<[String; 7]>::new();
    for row in client.query(&sql)? {
        let row: Vec<String> = row.into_iter().flatten().collect();
        keys.extend(<[String; 7]>::try_from(row).ok().filter(|row| databases.contains(&row[0])));
    }
    let mut found = Vec::new();
    for key in keys.chunk_by(|a, b| a[..3] == b[..3]) {
        let Some([database, constraint, table, _, parent_database, parent, _]) = key.first() else {
            continue;
        };
        let (child, parent) = (
            format!("{}.{}", quoted(database), quoted(table)),
            format!("{}.{}", quoted(parent_database), quoted(parent)),
        );
        let on = key.iter().map(|row| format!("c.{} = p.{}", quoted(&row[3]), quoted(&row[6])));
        let on: Vec<String> = on.collect();
        let given = key.iter().map(|row| format!("c.{} IS NOT NULL", quoted(&row[3])));
        let given: Vec<String> = given.collect();
        let sql = format!(
            "SELECT COUNT(*) FROM {child} c WHERE {} AND NOT EXISTS (SELECT 1 FROM {parent} p WHERE {})",
            given.join(" AND "),
            on.join(" AND ")
        );
        let what = format!("the foreign key {} of {child}", quoted(constraint));
        match client.value_of_scan(&sql) {
            Ok(count) if count.as_deref() == Some("0") => {}
            Ok(count) => found.push(format!(
                "{what}: {} rows refer to a row that {parent} does not have; the server does not check this by itself",
                count.unwrap_or_default()
            )),
            Err(CommandError::Server(error)) => found.push(format!("{what} could not be checked: {error}")),
            Err(broken) => return Err(broken),
        }
    }
    Ok(found)
}
