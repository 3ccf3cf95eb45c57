//! A MySQL or MariaDB as a target. The archive's own definitions are run: the tables before the rows, and the rest
//! after them. Rows are written by `LOAD DATA LOCAL INFILE`. Each chunk is one transaction, which also writes the
//! chunk's record into a table of moveout in the same database.

mod definitions;
mod record;
pub(crate) mod script;
mod server;
mod values;
mod write;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::definitions::{Origin, origins, shown};
use self::record::Of;
use self::script::Kind;
use self::server::{Found, Inner, look};
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{Column, TableId};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{quoted, table_name};
use crate::source::mysql::session::Address;
use crate::source::relational::cancel::{CancelToken, blocking};
use crate::target::relational::{self, Making, by_database};
use crate::target::{ChunkOut, Known, Needs, Placed, Plan, Reject, Settled, Target, Written};
use crate::text::several;

/// A MySQL or MariaDB into which rows are written.
struct MySqlTarget {
    inner: Arc<Inner>,
}

/// Prepares a server as a target. It connects when it is first asked for something.
pub(super) fn open(spec: &SourceSpec, server: &Database, limits: &Limits) -> Arc<dyn Target> {
    let address = Address { database: server.clone(), idle: limits.idle_timeout };
    Arc::new(MySqlTarget {
        inner: Arc::new(Inner {
            address,
            into: spec.select.databases.first().cloned(),
            idle: relational::Idle::default(),
            takes_no_files: AtomicBool::new(false),
            replaced: Mutex::default(),
        }),
    })
}

/// Decides what is to be made of one database of the archive. It is an error if some of its tables are there and others
/// are not, unless moveout has begun to make them.
fn making(plan: &Plan, origin: &Origin, found: &Found) -> Result<Making> {
    if let (Some(script), Some(record)) = (&origin.script, &found.record) {
        if record.scripts.contains(&script.name) {
            return Ok(Making::Nothing);
        }
        if script.has_begun(record) {
            return Ok(Making::Definitions);
        }
    }
    let tables = plan.tables.iter();
    let tables: Vec<_> = tables.filter(|table| origin.has(table)).collect();
    Making::of(&tables, origin.script.is_some(), |table| found.has(table))
}

#[async_trait]
impl Target for MySqlTarget {
    async fn describe(&self) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        blocking(move |cancel| inner.describe(cancel)).await
    }

    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId> {
        // A table of PostgreSQL has a schema.
        let is_ours = renamed.schema.is_empty() && relational::are_of_a_table(columns);
        is_ours.then_some(renamed)
    }

    async fn needs(&self, plan: &Plan) -> Result<Needs> {
        relational::run(&self.inner, plan, needs).await
    }

    async fn known(&self, plan: &Plan) -> Result<Option<Known>> {
        relational::run(&self.inner, plan, known).await.map(Some)
    }

    async fn create(&self, plan: &Plan) -> Result<()> {
        relational::run(&self.inner, plan, create).await
    }

    async fn write(
        &self,
        chunk: &ChunkOut,
        rows: mpsc::Receiver<RecordBatch>,
        reading: JoinHandle<Result<()>>,
        _rejects: mpsc::UnboundedSender<Reject>,
    ) -> Result<Written> {
        let (inner, chunk) = (Arc::clone(&self.inner), chunk.clone());
        let write =
            move |all_read, cancel: &_| write::write(&inner, &chunk, rows, all_read, cancel);
        relational::write(reading, write).await
    }

    async fn settle(&self, plan: &Plan) -> Result<Settled> {
        relational::run(&self.inner, plan, settle).await
    }

    async fn count(&self, table: &Placed) -> Result<Option<u64>> {
        let (inner, to) = (Arc::clone(&self.inner), table.to.clone());
        blocking(move |cancel| inner.with(cancel, |client| server::count(client, &to))).await
    }

    async fn finish(&self, plan: &Plan) -> Result<Vec<String>> {
        relational::run(&self.inner, plan, finish).await
    }
}

/// A database of the target, the tables of the plan that go into it, and what it has.
type FoundIn<'a> = (&'a str, Vec<&'a Arc<Placed>>, Found);

/// Looks what each database of the target has.
fn found<'a>(client: &mut Client, plan: &'a Plan) -> Result<Vec<FoundIn<'a>>, CommandError> {
    let look = |(database, tables)| Ok((database, tables, look(client, database)?));
    by_database(plan).into_iter().map(look).collect()
}

fn needs(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Needs> {
    if let Some(table) = plan.tables.iter().find(|table| table.to.table == record::TABLE) {
        return Err(Error::usage(format!(
            "{} has the name of the table in which moveout records what it has restored",
            table.from
        ))
        .hint("leave it out by --table"));
    }
    let (found, accounts) =
        inner.with(cancel, |client| Ok((found(client, plan)?, server::accounts(client)?)))?;
    let mut needs = Needs::default();
    for (database, tables, found) in found {
        if !found.exists {
            if inner.into.is_some() {
                return Err(Error::stop(format!(
                    "the target has no database {}; nothing was changed",
                    database.escape_debug()
                ))
                .hint("create it, or leave it out of the URL: then databases are made under their own names"));
            }
            needs.create.push(format!("the database {}", database.escape_debug()));
        }
        for origin in origins(plan, database) {
            for table in tables.iter().filter(|table| origin.has(table)) {
                let script = origin.script.iter().flat_map(|script| script.tables());
                let mut defined = script.filter(|(name, _)| *name == table.from.table);
                let engine = found.engine(&table.to).or_else(|| Some(defined.next()?.1));
                if let Some(engine) = engine.filter(|engine| server::is_elsewhere(engine)) {
                    needs.notes.push(format!(
                        "{}: the rows of a table of {engine} are those of others, so none are written into it",
                        table.to
                    ));
                    needs.derived.insert(table.to.clone());
                }
            }
            let from = origin.database.escape_debug();
            match (making(plan, &origin, &found)?, &origin.script) {
                (Making::Nothing, _) if found.record.is_some() => {}
                (Making::Nothing, _) => needs.notes.push(format!(
                    "the tables of {from} are in the target already: they stay as they are defined there, and their \
                     triggers see every row"
                )),
                (Making::Definitions, Some(script)) => {
                    needs.create.push(format!("what the definitions of {from} in the archive say"));
                    needs.notes.extend(script.notes(database, accounts.as_ref())?);
                    let is_chosen = |(name, _): &(&str, &str)| {
                        let mut chosen = tables.iter().filter(|table| origin.has(table));
                        chosen.any(|table| table.from.table == *name)
                    };
                    let others = script.tables().filter(|name| !is_chosen(name)).count() as u64;
                    if others > 0 {
                        needs.notes.push(format!(
                            "the definitions of {from} make {} that no row is restored of",
                            several(others, "other table")
                        ));
                    }
                }
                (Making::Definitions | Making::Columns, _) => {
                    needs.create.push(format!("the tables of {from}, by their columns"));
                    needs.notes.push(format!(
                        "the archive has no definitions of {from}: keys, indexes and all else that its tables had are \
                         not made"
                    ));
                }
            }
        }
        let loose = tables.iter().filter(|table| found.is_loose(&table.to));
        let loose: Vec<String> = loose.map(|table| table.to.to_string()).collect();
        if !loose.is_empty() {
            needs.notes.push(format!(
                "the engines of {} undo nothing: a table of theirs that is interrupted begins anew",
                loose.join(", ")
            ));
        }
    }
    Ok(needs)
}

fn known(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Known> {
    inner.with(cancel, |client| {
        let mut known = Known::default();
        for (_, tables, found) in found(client, plan)? {
            known.occupied.extend(server::occupied(client, &found, &tables)?);
            let Some(record) = found.record else { continue };
            let begun = tables.iter().filter(|table| record.tables.contains(&table.to.table));
            known.begun.extend(begun.map(|table| table.to.clone()));
            let chunks = record.chunks.into_iter();
            let chunks = chunks.filter(|(_, (place, _))| !record.loose.contains(place));
            known.chunks.extend(chunks.map(|(name, (_, rows))| (name, relational::written(rows))));
        }
        Ok(known)
    })
}

fn create(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<()> {
    let mut client = inner.open(cancel)?;
    let client = &mut client;
    for (database, tables, found) in found(client, plan)? {
        let origins = origins(plan, database);
        if !found.exists {
            let own =
                origins.iter().find_map(|origin| origin.script.as_ref()?.database_as(database));
            let sql = own.unwrap_or_else(|| format!("CREATE DATABASE {}", quoted(database)));
            client.query(&sql).map_err(|fault| {
                Error::from(fault)
                    .for_good()
                    .context(format!("making the database {}", database.escape_debug()))
                    .hint("make it by hand, with a character set that this server has, and run the same command again")
            })?;
        }
        record::create(client, database)?;
        for place in found.record.iter().flat_map(|record| &record.loose) {
            client.query(&format!("TRUNCATE TABLE {}.{}", quoted(database), quoted(place)))?;
            client.query(&record::forget(database, place))?;
        }
        for origin in &origins {
            let from = origin.database.escape_debug();
            match (making(plan, origin, &found)?, &origin.script) {
                (Making::Nothing, _) => {}
                (Making::Definitions, Some(script)) => {
                    let refused = script.run(inner, client, database, Kind::Table)?;
                    if !refused.is_empty() {
                        return Err(Error::stop(format!(
                            "making the tables of {from}: {}",
                            refused.join("; ")
                        ))
                        .hint(
                            "make the tables by hand in a database without any other, as the target takes them, and \
                             restore into that",
                        ));
                    }
                    client.query(&record::add(database, Of::Script, "", &script.name, 0))?;
                }
                (Making::Definitions | Making::Columns, _) => {
                    let of_it = tables.iter().filter(|table| origin.has(table));
                    of_it.clone().try_for_each(|table| by_columns(client, table))?;
                }
            }
        }
        for table in tables {
            let add = record::add(database, Of::Table, &table.to.table, "", 0);
            client.query(&add.replacen("INSERT", "INSERT IGNORE", 1))?;
        }
    }
    Ok(())
}

/// Makes a table from the columns that the archive has.
fn by_columns(client: &mut Client, table: &Placed) -> Result<(), Error> {
    let columns = table.columns.iter().filter(|column| !column.source_type.contains("history"));
    let columns =
        columns.map(|column| format!("{} {} NULL", quoted(&column.key), column.source_type));
    let columns: Vec<String> = columns.collect();
    let sql = format!(
        "CREATE TABLE {} ({}) CHARACTER SET utf8mb4",
        table_name(&table.to),
        columns.join(", ")
    );
    client.query(&sql).map(drop).map_err(|fault| {
        Error::from(fault)
            .for_good()
            .context(format!("making the table {}", table.to))
            .hint("make the tables by hand and run the same command again")
    })
}

fn settle(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Settled> {
    let mut client = inner.open(cancel)?;
    let client = &mut client;
    let mut settled = Settled::default();
    let databases = by_database(plan);
    for database in databases.keys() {
        let record = record::read(client, database)?;
        for script in origins(plan, database).into_iter().filter_map(|origin| origin.script) {
            // If somebody else has made the tables, the archive's definitions are not run.
            if record.scripts.contains(&script.name) {
                definitions::settle(inner, client, database, &script, &mut settled)?;
            }
        }
    }
    let databases: BTreeSet<String> = databases.into_keys().map(str::to_owned).collect();
    settled.notes.extend(server::orphans(client, &databases)?);
    Ok(settled)
}

fn finish(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Vec<String>> {
    let mut client = inner.open(cancel)?;
    let client = &mut client;
    let databases = by_database(plan);
    for database in databases.keys() {
        let record = record::read(client, database)?;
        for script in origins(plan, database).into_iter().filter_map(|origin| origin.script) {
            if !record.scripts.contains(&script.name) {
                continue;
            }
            let refused = script.run(inner, client, database, Kind::Event)?;
            if !refused.is_empty() {
                return Err(Error::stop(format!(
                    "all rows are there, but the events are not: {}",
                    refused.join("; ")
                ))
                .hint("give the user the right to make them, and run the same command again"));
            }
        }
    }
    // This is one statement, because a later run would take its own rows for somebody else's if only some records were
    // gone.
    let records: Vec<String> = databases.keys().map(|database| record::table(database)).collect();
    client.query(&format!("DROP TABLE {}", records.join(", ")))?;
    let replaced = inner.replaced.lock().unwrap_or_else(PoisonError::into_inner);
    let replaced: Vec<String> = replaced.iter().map(shown).collect();
    if replaced.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "what belonged to {} belongs to {} now, since these accounts are not there, or not the user's to name",
        replaced.join(", "),
        inner.address.user().escape_debug()
    )])
}
