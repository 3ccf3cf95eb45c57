//! A PostgreSQL as a target. The archive's own definitions are run: what the rows need before them, and the rest after
//! them. Rows are written by COPY. Each chunk is one transaction, which also writes the chunk's record into a table of
//! moveout in the same database.

mod definitions;
mod large_objects;
mod layout;
mod names;
mod record;
pub(crate) mod script;
mod server;
mod values;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::definitions::{kinds, scripts};
use self::names::{is_large_objects, place};
use self::record::Of;
use self::server::{Found, Inner};
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{Column, TableId};
use crate::source::postgres::connection::Connection;
use crate::source::relational::cancel::{CancelToken, blocking};
use crate::target::relational::{self, Making, by_database};
use crate::target::{ChunkOut, Known, Needs, Placed, Plan, Reject, Settled, Target, Written};
use crate::text::several;

/// A PostgreSQL into which rows are written.
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
            idle: relational::Idle::default(),
            types: Mutex::default(),
        }),
    })
}

/// Decides what is to be made of one database of the archive. It is an error if moveout can only make its tables under
/// another name than the definitions give them.
fn making(plan: &Plan, from: (&str, &str), has_script: bool, found: &Found) -> Result<Making> {
    let tables = plan.tables.iter();
    let tables: Vec<_> = tables
        .filter(|table| relational::origin(table) == from && !is_large_objects(&table.to))
        .collect();
    let making = Making::of(&tables, has_script, |table| found.has(table))?;
    let renamed = tables.iter().find(|table| table.to.schema != table.from.schema);
    match (making, renamed) {
        (Making::Definitions, Some(table)) => Err(Error::usage(format!(
            "the definitions in the archive name the schema {}, and moveout does not change names within definitions",
            table.from.schema.escape_debug()
        ))
        .hint(
            "restore into a database of its own (`--map OLD=NEW` of databases) and rename the schema there by ALTER \
             SCHEMA … RENAME TO …; or make the tables in the new schema first",
        )),
        _ => Ok(making),
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn describe(&self) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        blocking(move |cancel| inner.describe(cancel)).await
    }

    fn place(&self, renamed: TableId, columns: &[Column]) -> Option<TableId> {
        // A table of MySQL has no schema.
        let is_ours = !renamed.schema.is_empty() && relational::are_of_a_table(columns);
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
        let write = move |all_read, cancel: &_| inner.write(&chunk, rows, all_read, cancel);
        relational::write(reading, write).await
    }

    async fn settle(&self, plan: &Plan) -> Result<Settled> {
        relational::run(&self.inner, plan, settle).await
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

    async fn analyze(&self, plan: &Plan) -> Result<Vec<String>> {
        relational::run(&self.inner, plan, analyze).await
    }

    async fn finish(&self, plan: &Plan) -> Result<Vec<String>> {
        relational::run(&self.inner, plan, finish).await
    }
}

fn needs(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Needs> {
    let mut needs = Needs::default();
    let (databases, roles, extensions) = inner.with_any(cancel, |first| {
        Ok((server::databases(first)?, server::roles(first)?, server::extensions(first)?))
    })?;
    let mut missing_roles = BTreeSet::new();
    for (database, tables) in by_database(plan) {
        let is_there = databases.contains(database);
        if !is_there {
            needs.create.push(format!("the database {}", database.escape_debug()));
        }
        let (found, done) = match is_there {
            true => inner.with(database, cancel, |connection| {
                let found = server::look(connection, &tables)?;
                let done = match found.has_record {
                    true => record::all(connection, Of::Script)?,
                    false => Default::default(),
                };
                Ok((found, done))
            })?,
            false => Default::default(),
        };
        for (source, from, script) in scripts(plan, database) {
            let known = kinds(plan, source, from)?;
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
            match making(plan, (source, from), script.is_some(), &found)? {
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
                    if server::has_settings(plan, source, from) {
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
            "the target lacks the roles {}: what they owned will belong to {}, and what they were granted is left \
             out; to keep it, load roles.sql of the artifacts first",
            names.join(", ").escape_debug(),
            inner.server.user.escape_debug()
        ));
    }
    Ok(needs)
}

fn known(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Known> {
    let databases = inner.with_any(cancel, server::databases)?;
    let mut known = Known::default();
    for (database, tables) in by_database(plan) {
        if !databases.contains(database) {
            continue;
        }
        inner.with(database, cancel, |connection| {
            let found = server::look(connection, &tables)?;
            known.occupied.extend(found.occupied);
            if !found.has_record {
                return Ok(());
            }
            known.is_done |= !record::all(connection, Of::Done)?.is_empty();
            let begun = record::all(connection, Of::Table)?;
            let begun = tables.iter().filter(|table| begun.contains_key(&place(&table.to)));
            known.begun.extend(begun.map(|table| table.to.clone()));
            let chunks = record::all(connection, Of::Chunk)?.into_iter();
            known.chunks.extend(chunks.map(|(name, rows)| (name, relational::written(rows))));
            Ok(())
        })?;
    }
    Ok(known)
}

fn create(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<()> {
    let databases = inner.with_any(cancel, server::databases)?;
    for (database, tables) in by_database(plan) {
        if !databases.contains(database) {
            let of = tables.first().map(|table| &table.from);
            let create = |first: &mut _| server::create_database(first, plan, of, database);
            inner.with_any(cancel, create)?;
        }
        let define = |connection: &mut _| define(connection, plan, database, &tables);
        inner.with_new(database, cancel, define).map_err(|error| {
            error.context(format!("making the definitions of {}", database.escape_debug()))
        })?;
    }
    Ok(())
}

/// Makes in one transaction all that the rows of a database need, and records that it was made.
fn define(
    connection: &mut Connection,
    plan: &Plan,
    database: &str,
    tables: &[&Arc<Placed>],
) -> Result<()> {
    let roles = &server::roles(connection)?;
    let found = server::look(connection, tables)?;
    connection.query("BEGIN")?;
    record::create(connection)?;
    let done = record::all(connection, Of::Script)?;
    let mut failed = Vec::new();
    for (source, from, script) in scripts(plan, database) {
        if script.as_ref().is_some_and(|script| done.contains_key(&script.name)) {
            continue;
        }
        match (making(plan, (source, from), script.is_some(), &found)?, script) {
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

fn settle(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Settled> {
    // Connections may have been idle for as long as the last chunk took, and nothing here is tried again.
    inner.idle.close();
    let mut settled = Settled::default();
    for (database, _) in by_database(plan) {
        inner.with_new(database, cancel, |connection| {
            let roles = server::roles(connection)?;
            let done = record::all(connection, Of::Script)?;
            for (source, from, script) in scripts(plan, database) {
                let made = script.filter(|script| done.contains_key(&script.name));
                if let Some(script) = &made {
                    script.after(connection, &roles, &mut settled)?;
                }
                let sequences = definitions::set_sequences(connection, plan, source, from)?;
                // Tables that somebody else has made may have other sequences.
                match made {
                    Some(_) => settled.differences.extend(sequences),
                    None => settled.notes.extend(sequences),
                }
                server::refresh(connection, plan, (source, from), &mut settled)?;
                large_objects::describe(connection, plan, (source, from), &roles, &mut settled)?;
            }
            Ok(())
        })?;
    }
    Ok(settled)
}

/// Runs ANALYZE, so that the planner knows the new tables. If that fails, the rows are still right, so it is only
/// noted.
fn analyze(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (database, _) in by_database(plan) {
        if let Err(error) = inner.with_new(database, cancel, server::analyze) {
            notes.push(format!("ANALYZE of {}: {error}", database.escape_debug()));
        }
    }
    Ok(notes)
}

fn finish(inner: &Inner, plan: &Plan, cancel: &CancelToken) -> Result<Vec<String>> {
    inner.idle.close();
    let mut notes = Vec::new();
    // When the first record is removed, the others must already say that nothing is left to do.
    let mut left = Vec::new();
    for (database, _) in by_database(plan) {
        let mut connection = inner.open(database)?;
        if relational::once(&mut connection, cancel, record::end)? {
            left.push((database, connection));
        }
    }
    for (database, mut connection) in left {
        relational::once(&mut connection, cancel, |connection| {
            let roles = server::roles(connection)?;
            let done = record::all(connection, Of::Script)?;
            connection.query(&format!("BEGIN; {}", record::remove()))?;
            for (.., script) in scripts(plan, database) {
                if let Some(script) = script.filter(|script| done.contains_key(&script.name)) {
                    notes.extend(script.last(connection, &roles)?);
                }
            }
            connection.query("COMMIT")
        })?;
    }
    Ok(notes)
}
