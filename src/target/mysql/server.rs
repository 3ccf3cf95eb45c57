//! The connections to a target, and what is asked of it. Blocks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{self, Record};
use super::script::Account;
use crate::error::{Class, Error, Result};
use crate::model::TableId;
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted, table_name};
use crate::source::mysql::session::Address;
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::outside::Connected;
use crate::target::Placed;

/// The engines that undo what a transaction has written.
const TRANSACTIONAL: [&str; 3] = ["InnoDB", "ROCKSDB", "TokuDB"];

/// The engines whose tables show rows of other tables, or of other servers. To write into one would write there.
const ELSEWHERE: [&str; 5] = ["MRG_MyISAM", "FEDERATED", "CONNECT", "SPIDER", "S3"];

/// What a session has besides the settings of an export. Foreign keys are looked at in the end; values that a CHECK would
/// refuse were in the source, too.
const SETTINGS: &str = "SET SESSION foreign_key_checks = 0, sql_auto_is_null = 0, sql_safe_updates = 0, autocommit = 1";

/// Settings that not all servers have, or that not all users may change.
const IF_POSSIBLE: [&str; 4] = [
    "check_constraint_checks = 0",
    "sql_require_primary_key = 0",
    "sql_generate_invisible_primary_key = 0",
    "lc_messages = 'en_US'",
];

/// The server, and the connections that are not in use.
pub(super) struct Inner {
    pub(super) address: Address,
    /// The database that everything goes into, where the user names it.
    pub(super) into: Option<String>,
    pub(super) idle: Mutex<Vec<Client>>,
    /// Whether the server takes no `LOAD DATA LOCAL`.
    pub(super) takes_no_files: AtomicBool,
    /// The accounts that statements were taken from, since they are not there.
    pub(super) replaced: Mutex<BTreeSet<Account>>,
}

impl Inner {
    /// A connection with our settings.
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

    /// Works with a connection, which is kept for the next one unless the work failed.
    pub(super) fn with<T>(
        &self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Client) -> Result<T, CommandError>,
    ) -> Result<T> {
        let lock = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().pop();
        let mut client = kept.map_or_else(|| self.open(cancel), Ok)?;
        let worked = cancel.watching(client.closer()?, || work(&mut client));
        match worked.map_err(Error::from) {
            Ok(done) => {
                lock().push(client);
                Ok(done)
            }
            // What is not as it was a moment ago will not be so by itself.
            Err(error) if error.class() == Class::SchemaChanged => Err(error.for_good()),
            Err(error) => Err(error),
        }
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

/// What a database of the target has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether it is there.
    pub(super) exists: bool,
    /// Each table, with its engine.
    tables: HashMap<String, String>,
    /// What a restore has recorded there.
    pub(super) record: Option<Record>,
}

impl Found {
    /// Whether a table is there.
    pub(super) fn has(&self, table: &TableId) -> bool {
        self.tables.contains_key(&table.table)
    }

    /// The engine of a table that is there.
    pub(super) fn engine(&self, table: &TableId) -> Option<&str> {
        self.tables.get(&table.table).map(String::as_str)
    }

    /// Whether a table cannot undo what was written.
    pub(super) fn is_loose(&self, table: &TableId) -> bool {
        self.engine(table).is_some_and(|engine| is_loose(engine) && !is_elsewhere(engine))
    }
}

/// Whether an engine shows rows that are elsewhere.
pub(super) fn is_elsewhere(engine: &str) -> bool {
    ELSEWHERE.iter().any(|known| known.eq_ignore_ascii_case(engine))
}

/// Whether an engine cannot undo what was written.
pub(super) fn is_loose(engine: &str) -> bool {
    !TRANSACTIONAL.iter().any(|known| known.eq_ignore_ascii_case(engine))
}

/// Looks what a database has.
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
        // The comparison may fold case.
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

/// How many tables are asked at once for their first row.
const AT_ONCE: usize = 50;

/// Those of some tables of one database that are there and have rows.
pub(super) fn occupied(
    client: &mut Client,
    found: &Found,
    tables: &[&Arc<Placed>],
) -> Result<BTreeSet<TableId>, CommandError> {
    let has_rows =
        |table: &&&Arc<Placed>| found.engine(&table.to).is_some_and(|engine| !is_elsewhere(engine));
    let there: Vec<_> = tables.iter().filter(has_rows).collect();
    let mut occupied = BTreeSet::new();
    for some in there.chunks(AT_ONCE) {
        let ask = |(number, table): (usize, &&&Arc<Placed>)| {
            format!(
                "SELECT {number} FROM DUAL WHERE EXISTS (SELECT 1 FROM {})",
                table_name(&table.to)
            )
        };
        let asked: Vec<String> = some.iter().enumerate().map(ask).collect();
        for row in client.query(&asked.join(" UNION ALL "))?.into_iter().flatten().flatten() {
            let table = row.parse::<usize>().ok().and_then(|number| some.get(number));
            occupied.extend(table.map(|table| table.to.clone()));
        }
    }
    Ok(occupied)
}

/// All databases that the user may see.
pub(super) fn databases(client: &mut Client) -> Result<HashSet<String>, CommandError> {
    Ok(client.query("SHOW DATABASES")?.into_iter().flatten().flatten().collect())
}

/// All accounts; `None` where the user may not see them.
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

/// The rows of a table, those of its history included; `None` where they are elsewhere.
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

/// Rows of these databases whose foreign keys lead nowhere, a line a constraint: nothing has checked them.
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
                "{what}: {} rows name one that {parent} does not have; the server does not check this by itself",
                count.unwrap_or_default()
            )),
            Err(CommandError::Server(error)) => found.push(format!("{what} could not be checked: {error}")),
            Err(broken) => return Err(broken),
        }
    }
    Ok(found)
}
