//! A PostgreSQL as a target. The archive's own definitions are run, cut into what rows need and what waits for them; rows go
//! in by COPY, one transaction a chunk, with its record in a table of ours in the same database.

mod definitions;
mod large_objects;
mod layout;
mod names;
mod record;
mod script;
mod server;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::definitions::{kinds, scripts};
use self::names::{is_large_objects, place};
use self::record::Of;
use self::server::{Found, Inner};
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{Column, Role, TableId};
use crate::source::relational::cancel::blocking;
use crate::target::{ChunkOut, Known, Needs, Placed, Plan, Reject, Settled, Target, Written};
use crate::text::several;

/// A PostgreSQL that rows go into.
struct PostgresTarget {
    inner: Arc<Inner>,
}

/// Prepares a server as a target. It connects when it is first asked for something.
pub(super) fn open(spec: &SourceSpec, server: &Database, limits: &Limits) -> Arc<dyn Target> {
    let into = spec.select.databases.first().cloned();
    Arc::new(PostgresTarget {
        inner: Arc::new(Inner {
            server: server.clone(),
            into,
            idle_timeout: limits.idle_timeout,
            idle: Mutex::default(),
            types: Mutex::default(),
        }),
    })
}

/// The tables of a plan by the database that they go into.
fn by_database(plan: &Plan) -> BTreeMap<&str, Vec<&Arc<Placed>>> {
    let mut databases = BTreeMap::<&str, Vec<_>>::new();
    for table in &plan.tables {
        databases.entry(&table.to.database).or_default().push(table);
    }
    databases
}

/// A plan that a thread of its own can have.
fn shared(plan: &Plan) -> Plan {
    Plan {
        tables: plan.tables.clone(),
        artifacts: plan.artifacts.clone(),
        renames: plan.renames.clone(),
    }
}

/// What is to be made of one database of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Making {
    /// The archive's definitions.
    Definitions,
    /// Tables out of the columns of the archive alone.
    Columns,
    /// Nothing: the tables are there.
    Nothing,
}

/// Decides it. An error where some of the tables are there and others are not.
fn making(
    plan: &Plan,
    (source, database): (&str, &str),
    has_script: bool,
    found: &Found,
) -> Result<Making> {
    let tables = plan.tables.iter().filter(|table| {
        (table.from.source.as_str(), table.from.database.as_str()) == (source, database)
            && !is_large_objects(&table.to)
    });
    let tables: Vec<_> = tables.collect();
    let (there, missing): (Vec<&Arc<Placed>>, Vec<_>) =
        tables.iter().copied().partition(|table| found.has(&table.to));
    if missing.is_empty() && !tables.is_empty() {
        return Ok(Making::Nothing);
    }
    if let (Some(there), Some(missing)) = (there.first(), missing.first()) {
        return Err(Error::stop(format!(
            "the target has {} and lacks {}; nothing was changed",
            there.to, missing.to
        ))
        .hint(
            "restore into a database without any of these tables, or make all of them first, or choose those that are \
             there by --table",
        ));
    }
    if !has_script {
        return Ok(Making::Columns);
    }
    match tables.iter().find(|table| table.to.schema != table.from.schema) {
        Some(table) => Err(Error::usage(format!(
            "the definitions in the archive name the schema {}, and moveout does not change names within definitions",
            table.from.schema.escape_debug()
        ))
        .hint(
            "restore into a database of its own (`--map OLD=NEW` of databases) and rename the schema there by ALTER \
             SCHEMA … RENAME TO …; or make the tables in the new schema first",
        )),
        None => Ok(Making::Definitions),
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn describe(&self) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        blocking(move |_| inner.describe()).await
    }

    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId> {
        // MySQL has no schemas.
        let is_ours =
            !renamed.schema.is_empty() && columns.iter().all(|column| column.role == Role::Column);
        is_ours.then_some(renamed)
    }

    async fn needs(&self, plan: &Plan) -> Result<Needs> {
        let (inner, plan) = (Arc::clone(&self.inner), shared(plan));
        blocking(move |_| needs(&inner, &plan)).await
    }

    async fn known(&self, plan: &Plan) -> Result<Option<Known>> {
        let (inner, plan) = (Arc::clone(&self.inner), shared(plan));
        blocking(move |_| known(&inner, &plan)).await.map(Some)
    }

    async fn create(&self, plan: &Plan) -> Result<()> {
        let (inner, plan) = (Arc::clone(&self.inner), shared(plan));
        blocking(move |_| create(&inner, &plan)).await
    }

    async fn write(
        &self,
        chunk: &ChunkOut,
        rows: mpsc::Receiver<RecordBatch>,
        reading: JoinHandle<Result<()>>,
        _rejects: mpsc::UnboundedSender<Reject>,
    ) -> Result<Written> {
        let (inner, chunk) = (Arc::clone(&self.inner), chunk.clone());
        let (say, may_commit) = oneshot::channel();
        let writing = blocking(move |cancel| inner.write(&chunk, rows, may_commit, cancel));
        let reading = async {
            let read = reading.await.unwrap_or_else(|error| Err(Error::stop(error)));
            let _ = say.send(read.is_ok()); // whoever writes may have failed
            read
        };
        let (written, read) = tokio::join!(writing, reading);
        read?;
        written
    }

    async fn settle(&self, plan: &Plan) -> Result<Settled> {
        let (inner, plan) = (Arc::clone(&self.inner), shared(plan));
        blocking(move |_| settle(&inner, &plan)).await
    }

    async fn count(&self, table: &Placed) -> Result<Option<u64>> {
        let (inner, to) = (Arc::clone(&self.inner), table.to.clone());
        let count = move |cancel: &_| {
            inner.with(&to.database, cancel, |connection| {
                server::count(connection, &format!("ONLY {}", place(&to)))
            })
        };
        blocking(count).await.map(Some)
    }

    async fn finish(&self, plan: &Plan) -> Result<Vec<String>> {
        let (inner, plan) = (Arc::clone(&self.inner), shared(plan));
        blocking(move |_| finish(&inner, &plan)).await
    }
}

fn needs(inner: &Inner, plan: &Plan) -> Result<Needs> {
    let mut needs = Needs::default();
    let mut first = inner.first()?;
    let (databases, roles) = (server::databases(&mut first)?, server::roles(&mut first)?);
    let extensions = server::extensions(&mut first)?;
    let mut missing_roles = BTreeSet::new();
    for (database, tables) in by_database(plan) {
        let is_there = databases.contains(database);
        if !is_there {
            needs.create.push(format!("the database {}", database.escape_debug()));
        }
        let (found, done) = if is_there {
            let mut connection = inner.open(database)?;
            let found = server::look(&mut connection, &tables)?;
            let done = match found.has_record {
                true => record::all(&mut connection, Of::Script)?,
                false => HashMap::new(),
            };
            (found, done)
        } else {
            (Found::default(), HashMap::new())
        };
        for (source, from, script) in scripts(plan, database) {
            let known = kinds(plan, &source, &from)?;
            for table in tables.iter().filter(|table| table.from.database == from) {
                let name = (table.from.schema.clone(), table.from.table.clone());
                let is_view = known.get(&name).is_some_and(|(kind, _)| kind == "materialized view");
                if is_view && script.is_some() || found.is_view(&table.to) {
                    needs.derived.insert(table.to.clone());
                }
            }
            if script.as_ref().is_some_and(|script| done.contains_key(&script.name)) {
                continue; // an earlier run has made them
            }
            match making(plan, (&source, &from), script.is_some(), &found)? {
                Making::Nothing if found.has_record => {}
                Making::Nothing => needs.notes.push(format!(
                    "the tables of {} are in the target already: they stay as they are defined there, and their \
                     triggers see every row",
                    from.escape_debug()
                )),
                Making::Columns => {
                    needs.create.push(format!("the tables of {}, by their columns", from.escape_debug()));
                    needs.notes.push(format!(
                        "the archive has no definitions of {}: keys, indexes and all else that its tables had are not made",
                        from.escape_debug()
                    ));
                }
                Making::Definitions => {
                    needs.create.push(format!(
                        "what the definitions of {} in the archive say",
                        from.escape_debug()
                    ));
                    let wanted = script.as_ref().map(definitions::Script::needed).unwrap_or_default();
                    let absent = wanted.0.into_iter().filter(|role| !roles.contains(*role));
                    missing_roles.extend(absent.map(str::to_owned));
                    let absent: Vec<_> =
                        wanted.1.into_iter().filter(|name| !extensions.contains(*name)).collect();
                    if !absent.is_empty() {
                        needs.notes.push(format!(
                            "the target does not offer the extensions {}, which the definitions of {} create: what \
                             needs them cannot be made",
                            absent.join(", ").escape_debug(),
                            from.escape_debug()
                        ));
                    }
                    if server::has_settings(plan, &source, &from) {
                        needs.notes.push(format!(
                            "the settings, the rights and the comment of the database {} itself are in databases.sql among \
                             the artifacts, and are not made",
                            from.escape_debug()
                        ));
                    }
                    let others = known.values().filter(|(kind, _)| kind == "table").count();
                    let chosen = tables.iter().filter(|table| table.from.database == from).count();
                    if others > chosen {
                        needs.notes.push(format!(
                            "the definitions of {} make {} that no row is restored of: they stay empty",
                            from.escape_debug(),
                            several((others - chosen) as u64, "other table")
                        ));
                    }
                }
            }
        }
    }
    if !missing_roles.is_empty() {
        let names: Vec<_> = missing_roles.into_iter().collect();
        needs.notes.push(format!(
            "the target lacks the roles {}: what they owned belongs to {} there, and what they were granted is left \
             out; roles.sql among the artifacts makes them, before",
            names.join(", ").escape_debug(),
            inner.server.user.escape_debug()
        ));
    }
    Ok(needs)
}

fn known(inner: &Inner, plan: &Plan) -> Result<Known> {
    let databases = server::databases(&mut inner.first()?)?;
    let mut known = Known::default();
    for (database, tables) in by_database(plan) {
        if !databases.contains(database) {
            continue;
        }
        let mut connection = inner.open(database)?;
        let found = server::look(&mut connection, &tables)?;
        known.occupied.extend(found.occupied);
        if !found.has_record {
            continue;
        }
        known.is_done |= !record::all(&mut connection, Of::Done)?.is_empty();
        let begun = record::all(&mut connection, Of::Table)?;
        let begun = tables.iter().filter(|table| begun.contains_key(&place(&table.to)));
        known.begun.extend(begun.map(|table| table.to.clone()));
        let chunks = record::all(&mut connection, Of::Chunk)?;
        known.chunks.extend(chunks.into_iter().map(|(name, rows)| (name, record::written(rows))));
    }
    Ok(known)
}

fn create(inner: &Inner, plan: &Plan) -> Result<()> {
    let mut first = inner.first()?;
    let databases = server::databases(&mut first)?;
    for (database, tables) in by_database(plan) {
        if !databases.contains(database) {
            let of = tables.first().map(|table| &table.from);
            server::create_database(&mut first, plan, of, database)?;
        }
        let roles = server::roles(&mut first)?;
        define(inner, plan, database, &tables, &roles).map_err(|error| {
            error.context(format!("making the definitions of {}", database.escape_debug()))
        })?;
    }
    Ok(())
}

/// Makes in one transaction all that the rows of a database need, and records it.
fn define(
    inner: &Inner,
    plan: &Plan,
    database: &str,
    tables: &[&Arc<Placed>],
    roles: &HashSet<String>,
) -> Result<()> {
    let mut connection = inner.open(database)?;
    let connection = &mut connection;
    let found = server::look(connection, tables)?;
    connection.query("BEGIN")?;
    record::create(connection)?;
    let done = record::all(connection, Of::Script)?;
    let mut failed = Vec::new();
    for (source, from, script) in scripts(plan, database) {
        if script.as_ref().is_some_and(|script| done.contains_key(&script.name)) {
            continue;
        }
        match (making(plan, (&source, &from), script.is_some(), &found)?, script) {
            (Making::Definitions, Some(script)) => {
                let waiting = script.before(connection, roles)?;
                connection.query(&record::add(Of::Script, &script.name, 0))?;
                for (at, why) in waiting {
                    connection.query(&record::add(Of::Waits, &script.name_of(at), 0))?;
                    failed.push(format!("{}: {why}", script.shown(at)));
                }
            }
            (Making::Columns, _) => server::create_tables(connection, tables)?,
            _ => {}
        }
    }
    let now = server::look(connection, tables)?;
    let missing: Vec<_> = tables
        .iter()
        .filter(|table| !now.has(&table.to) && !is_large_objects(&table.to))
        .map(|table| table.to.to_string())
        .collect();
    if let Some(first) = missing.first() {
        let why = failed.first().map(|why| format!("; the first that failed: {why}"));
        return Err(Error::stop(format!(
            "the definitions did not make {} ({first}); nothing was changed{}",
            several(missing.len() as u64, "table"),
            why.unwrap_or_default()
        ))
        .hint("make by hand what is missing, all tables of the database, and run the same command again"));
    }
    for table in tables {
        let begun = record::add(Of::Table, &place(&table.to), 0);
        connection.query(&format!("{begun} ON CONFLICT DO NOTHING"))?;
        if is_large_objects(&table.to) {
            large_objects::create(connection, plan, &table.from)?;
        }
    }
    connection.query("COMMIT").map(|_| ())
}

fn settle(inner: &Inner, plan: &Plan) -> Result<Settled> {
    let mut settled = Settled::default();
    let roles = server::roles(&mut inner.first()?)?;
    for (database, _) in by_database(plan) {
        for (source, from, script) in scripts(plan, database) {
            let mut connection = inner.open(database)?;
            let connection = &mut connection;
            let done = record::all(connection, Of::Script)?;
            let made = script.filter(|script| done.contains_key(&script.name));
            if let Some(script) = &made {
                script.after(connection, &roles, &mut settled)?;
            }
            let sequences = definitions::set_sequences(connection, plan, &source, &from)?;
            // Tables that somebody else has made may have other sequences.
            match made {
                Some(_) => settled.differences.extend(sequences),
                None => settled.notes.extend(sequences),
            }
            server::refresh(connection, plan, (&source, &from), &mut settled)?;
            large_objects::describe(connection, plan, (&source, &from), &roles, &mut settled)?;
        }
    }
    Ok(settled)
}

fn finish(inner: &Inner, plan: &Plan) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    inner.close_idle();
    let roles = server::roles(&mut inner.first()?)?;
    // Once a record is gone, the others must say that nothing is left to be done.
    let mut left = Vec::new();
    for (database, _) in by_database(plan) {
        let mut connection = inner.open(database)?;
        if record::exists(&mut connection)? {
            let done = record::add(Of::Done, "", 0);
            connection.query(&format!("{done} ON CONFLICT DO NOTHING"))?;
            left.push((database, connection));
        }
    }
    for (database, mut connection) in left {
        let connection = &mut connection;
        // Without it the planner knows nothing of the new tables; that it may not is no fault of the rows.
        if let Err(error) = connection.query("ANALYZE") {
            notes.push(format!("ANALYZE of {}: {error}", database.escape_debug()));
        }
        let done = record::all(connection, Of::Script)?;
        connection.query(&format!("BEGIN; {}", record::remove()))?;
        for (.., script) in scripts(plan, database) {
            if let Some(script) = script.filter(|script| done.contains_key(&script.name)) {
                notes.extend(script.last(connection, &roles)?);
            }
        }
        connection.query("COMMIT")?;
    }
    Ok(notes)
}
