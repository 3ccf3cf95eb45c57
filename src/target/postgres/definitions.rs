//! Runs the definitions of an archive. Those that the rows need run in one transaction before the rows; the others run
//! after the rows, each in a transaction with its record. A statement that cannot run yet is tried again later, because
//! both kinds of scripts that an archive may have were written to be loaded as a whole. Blocks.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::names::{literal, place_of};
use super::record::{self, Of};
use super::script::{Statement, When, statements};
use crate::archive::keys::segment;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::names::text_of;
use crate::target::relational::origins;
use crate::target::{Plan, Settled};
use crate::text::printable;

/// The definitions of one database of the archive.
pub(super) struct Script {
    /// Its name in the record.
    pub(super) name: String,
    statements: Vec<Statement>,
}

/// An artifact of a source.
pub(super) fn artifact<'a>(plan: &'a Plan, source: &str, name: &str) -> Option<&'a [u8]> {
    plan.artifacts.get(&(segment(source), name.to_owned())).map(|content| &content[..])
}

/// The databases of the archive whose tables go into a database of the target, each with its definitions where the
/// archive has them.
pub(super) fn scripts<'a>(
    plan: &'a Plan,
    database: &str,
) -> Vec<(&'a str, &'a str, Option<Script>)> {
    let script = |(source, database): (&'a str, &'a str)| {
        let file = format!("ddl/{}.sql", segment(database));
        let found = artifact(plan, source, &file)
            .map(|sql| Script { name: sha256(sql), statements: statements(&text_of(sql)) });
        (source, database, found)
    };
    origins(plan, database).into_iter().map(script).collect()
}

impl Script {
    /// The roles and extensions that it names.
    pub(super) fn needed(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let roles = self.statements.iter().flat_map(Statement::roles).collect();
        (roles, self.statements.iter().filter_map(Statement::extension).collect())
    }

    /// The statements that name no missing role, each with its number.
    fn of<'a>(
        &'a self,
        roles: &'a HashSet<String>,
    ) -> impl Iterator<Item = (usize, &'a Statement)> {
        let statements = self.statements.iter().enumerate();
        statements.filter(|(_, one)| one.roles().iter().all(|role| roles.contains(*role)))
    }

    /// Runs in the present transaction what the rows need. Returns what cannot run yet, with the server's message.
    pub(super) fn before(
        &self,
        connection: &mut Connection,
        roles: &HashSet<String>,
    ) -> Result<Vec<(usize, String)>> {
        let mut waiting = Vec::new();
        connection.query("SAVEPOINT moveout")?;
        for (at, statement) in self.of(roles) {
            if !matches!(statement.when(), When::Setting | When::Before) {
                continue;
            }
            let sql = &statement.sql;
            match connection.query(&format!("{sql}; RELEASE moveout; SAVEPOINT moveout")) {
                Ok(_) => {}
                Err(error) if !connection.was_refused() || is_full(connection) => {
                    return Err(error);
                }
                Err(error) => {
                    let is_there = connection.was_refused_by(SCHEMA_EXISTS);
                    connection.query("ROLLBACK TO moveout")?;
                    if !is_there && statement.when() != When::Setting {
                        waiting.push((at, error.to_string()));
                    }
                }
            }
        }
        connection.query("RELEASE moveout")?;
        Ok(waiting)
    }

    /// Runs what comes after the rows, unless it has already run. Each statement runs in its own transaction with its
    /// record.
    pub(super) fn after(
        &self,
        connection: &mut Connection,
        roles: &HashSet<String>,
        settled: &mut Settled,
    ) -> Result<()> {
        let waits = record::all(connection, Of::Waits)?;
        let ran = record::all(connection, Of::Ran)?;
        let mut failed = Vec::new();
        for (at, statement) in self.of(roles) {
            let name = self.name_of(at);
            match statement.when() {
                When::Setting => self.set(connection, statement, settled)?,
                When::After => {}
                When::Before if waits.contains_key(&name) => {}
                _ => continue,
            }
            if statement.when() != When::Setting
                && !ran.contains_key(&name)
                && let Err(error) = self.run(connection, at, &statement.sql)
            {
                keep_refused(connection, error)?;
                failed.push((at, statement));
            }
        }
        // Some of them need a statement that comes later in the script.
        for (at, statement) in failed {
            let Err(error) = self.run(connection, at, &statement.sql) else { continue };
            let is_violated = connection.was_refused_by(FOREIGN_KEY) && statement.is_foreign_key();
            let why = keep_refused(connection, error)?;
            let what = first_line(&statement.sql);
            if is_violated {
                let unchecked = format!("{} NOT VALID", statement.sql);
                if self.run(connection, at, &unchecked).is_ok() {
                    settled.notes.push(format!(
                        "the rows do not satisfy a foreign key, which was made without checking them (NOT VALID): {what}: {why}"
                    ));
                    continue;
                }
                connection.query("ROLLBACK")?;
            }
            let line = format!("not made: {what}: {why}");
            match statement.is_comment_on_extension() {
                true => settled.notes.push(line),
                false => settled.differences.push(line),
            }
        }
        Ok(())
    }

    /// Runs in the present transaction what comes when everything else is done. Returns what could not run.
    pub(super) fn last(
        &self,
        connection: &mut Connection,
        roles: &HashSet<String>,
    ) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        connection.query("SAVEPOINT moveout")?;
        for (_, statement) in self.of(roles).filter(|(_, one)| one.when() == When::Last) {
            let sql = &statement.sql;
            if let Err(error) =
                connection.query(&format!("{sql}; RELEASE moveout; SAVEPOINT moveout"))
            {
                if !connection.was_refused() {
                    return Err(error);
                }
                connection.query("ROLLBACK TO moveout")?;
                notes.push(format!("not made: {}: {error}", first_line(sql)));
            }
        }
        connection.query("RELEASE moveout")?;
        Ok(notes)
    }

    fn set(
        &self,
        connection: &mut Connection,
        statement: &Statement,
        settled: &mut Settled,
    ) -> Result<()> {
        if let Err(error) = connection.query(&statement.sql) {
            if !connection.was_refused() {
                return Err(error);
            }
            // An older server does not know the time-outs of a newer one.
            if !statement.is_time_out() {
                settled
                    .differences
                    .push(format!("not set: {}: {error}", first_line(&statement.sql)));
            }
        }
        Ok(())
    }

    /// The name of a statement in the record.
    pub(super) fn name_of(&self, at: usize) -> String {
        format!("{} {at}", self.name)
    }

    fn run(&self, connection: &mut Connection, at: usize, sql: &str) -> Result<()> {
        let ran = record::add(Of::Ran, &self.name_of(at), 0);
        connection.query(&format!("BEGIN; {sql}; {ran}; COMMIT")).map(|_| ())
    }

    /// The beginning of a statement, for people.
    pub(super) fn shown(&self, at: usize) -> String {
        self.statements.get(at).map(|statement| first_line(&statement.sql)).unwrap_or_default()
    }
}

/// The server already has a schema of this name.
const SCHEMA_EXISTS: &str = "42P06";
/// A row refers to a row that does not exist.
const FOREIGN_KEY: &str = "23503";
/// The server has no room for more locks in a transaction.
const OUT_OF_MEMORY: &str = "53200";

fn is_full(connection: &Connection) -> bool {
    connection.was_refused_by(OUT_OF_MEMORY)
}

/// Ends the transaction of a statement that the server has refused, and returns the server's message. Any other error
/// is returned as an error.
fn keep_refused(connection: &mut Connection, error: Error) -> Result<String> {
    if !connection.was_refused() || connection.lacks_room() {
        return Err(error);
    }
    connection.query("ROLLBACK")?;
    Ok(error.to_string())
}

fn first_line(sql: &str) -> String {
    let words: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words.chars().take(120).collect();
    printable(&shown)
}

/// Gives the sequences the values that the artifacts record. Returns what is different afterwards.
pub(super) fn set_sequences(
    connection: &mut Connection,
    plan: &Plan,
    source: &str,
    database: &str,
) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for sequence in rows_of(plan, source, "sequences.json", database)? {
        let (_, schema) =
            plan.renames.of(database, sequence["schema"].as_str().unwrap_or_default());
        let name = sequence["name"].as_str().unwrap_or_default();
        let quoted = place_of(&schema, name);
        let Some(value) = sequence["last_value"].as_i64() else {
            differences.push(format!(
                "the archive has no value of the sequence {quoted}, because the user of the export could not read it"
            ));
            continue;
        };
        let is_called = sequence["is_called"].as_bool().unwrap_or(true);
        let there = format!("SELECT to_regclass({})", literal(&quoted));
        if connection.query(&there)?.first().is_none_or(|row| text(row, 0).is_empty()) {
            differences.push(format!("the target has no sequence {quoted}"));
            continue;
        }
        let set = format!(
            "SELECT setval({}, {value}, {is_called}); SELECT last_value = {value} AND is_called = {is_called} FROM {quoted}",
            literal(&quoted)
        );
        match connection.query(&set) {
            Ok(rows) if rows.last().is_some_and(|row| text(row, 0) == "t") => {}
            Ok(_) => {
                differences.push(format!("the sequence {quoted} has another value than {value}"))
            }
            Err(error) if connection.was_refused() => {
                differences.push(format!("the sequence {quoted} was not set to {value}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(differences)
}

/// The objects of a database in one of the artifacts that are lists.
pub(super) fn rows_of(
    plan: &Plan,
    source: &str,
    name: &str,
    database: &str,
) -> Result<Vec<serde_json::Value>> {
    let Some(list) = artifact(plan, source, name) else { return Ok(Vec::new()) };
    let rows: Vec<serde_json::Value> = serde_json::from_slice(list)
        .map_err(|error| Error::stop(format!("{name} among the artifacts of {source}: {error}")))?;
    Ok(rows.into_iter().filter(|row| row["database"] == database).collect())
}

/// The relations of a database that the artifacts list: their kind, and whether they are populated.
pub(super) fn kinds(
    plan: &Plan,
    source: &str,
    database: &str,
) -> Result<HashMap<(String, String), (String, bool)>> {
    let text =
        |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = rows_of(plan, source, "tables.json", database)?;
    let named = rows.iter().map(|row| {
        let is_populated = row["is_populated"].as_bool().unwrap_or(true);
        ((text(row, "schema"), text(row, "name")), (text(row, "kind"), is_populated))
    });
    Ok(named.collect())
}
