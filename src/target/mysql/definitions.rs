//! Runs the definitions of an archive: the tables before the rows, and the rest after them. Each statement runs once,
//! because DDL cannot be undone. Blocks.

use std::collections::BTreeSet;

use super::record::{self, Of, Record};
use super::script::{Account, Kind, Statement, statements};
use super::server::{Inner, accounts};
use crate::archive::keys::segment;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted};
use crate::target::relational;
use crate::target::{Placed, Plan, Settled};
use crate::text::escaped;

/// The definitions of one database of the archive.
pub(super) struct Script {
    /// Its name in the record.
    pub(super) name: String,
    /// The database that it was written for.
    from: String,
    statements: Vec<Statement>,
}

/// A database of the archive whose tables go into a database of the target, with its definitions if the archive has
/// them.
pub(super) struct Origin<'a> {
    source: &'a str,
    pub(super) database: &'a str,
    pub(super) script: Option<Script>,
}

impl Origin<'_> {
    /// Whether a table comes from it.
    pub(super) fn has(&self, table: &Placed) -> bool {
        relational::origin(table) == (self.source, self.database)
    }
}

/// The databases of the archive whose tables go into a database of the target.
pub(super) fn origins<'a>(plan: &'a Plan, database: &str) -> Vec<Origin<'a>> {
    let origin = |(source, database): (&'a str, &'a str)| {
        let file = (segment(source), format!("ddl/{}.sql", segment(database)));
        let script = plan.artifacts.get(&file).map(|sql| Script {
            name: sha256(&[source.as_bytes(), &[0], database.as_bytes(), &[0], &sql[..]].concat()),
            from: database.to_owned(),
            statements: statements(&String::from_utf8_lossy(sql)),
        });
        Origin { source, database, script }
    };
    relational::origins(plan, database).into_iter().map(origin).collect()
}

/// The server's errors for an object that already exists.
const EXISTS: [u16; 5] = [1007, 1050, 1304, 1359, 1537];

/// The server's errors for a user who may not make an object of another account.
const NOT_YOURS: [u16; 2] = [1227, 1449];

impl Script {
    /// The tables that it makes, each with its engine.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&str, &str)> {
        let tables = self.statements.iter().filter_map(|statement| statement.table.as_ref());
        tables.map(|(name, engine)| (name.as_str(), engine.as_str()))
    }

    /// The statements that name the database for which they were written, if it gets another name now.
    fn bound<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a Statement> {
        let is_bound = move |statement: &&Statement| {
            self.from != database && statement.kind != Kind::Database && statement.names(&self.from)
        };
        self.statements.iter().filter(is_bound)
    }

    /// What the user should know before it runs. It is an error if a table cannot be made under another name.
    pub(super) fn notes(
        &self,
        database: &str,
        there: Option<&BTreeSet<Account>>,
    ) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for statement in self.bound(database) {
            let what = format!(
                "{} names the database {}, and moveout does not change names within definitions",
                escaped(&statement.what),
                escaped(&self.from)
            );
            if statement.kind == Kind::Table {
                return Err(Error::usage(what)
                    .hint("restore this database under its own name, or make its tables first"));
            }
            notes.push(format!("{what}: it is not made; make it by hand"));
        }
        let definers: BTreeSet<&Account> =
            self.statements.iter().filter_map(Statement::definer).collect();
        let missing = definers
            .into_iter()
            .filter(|definer| there.is_none_or(|there| !there.contains(definer)));
        let missing: Vec<String> = missing.map(shown).collect();
        if !missing.is_empty() {
            let why = match there {
                Some(_) => "the target lacks the accounts",
                None => "moveout may not see whether the target has the accounts",
            };
            notes.push(format!(
                "{why} {}: what they are the DEFINER of belongs to the user of this restore where they are missing; \
                 to keep it, load users.sql of the artifacts first",
                missing.join(", ")
            ));
        }
        Ok(notes)
    }

    /// The statement that makes the database under this name.
    pub(super) fn database_as(&self, name: &str) -> Option<String> {
        let is_it = |statement: &&Statement| statement.kind == Kind::Database;
        Some(self.statements.iter().find(is_it)?.database_as(name))
    }

    /// Whether a part of it has run before.
    pub(super) fn has_begun(&self, record: &Record) -> bool {
        let begun = |at| record.begun.contains(&self.name_of(at));
        (0..self.statements.len()).any(begun)
    }

    fn name_of(&self, at: usize) -> String {
        sha256(format!("{} {at}", self.name).as_bytes())
    }

    /// Runs the statements of one kind that have not run. What the server refuses is tried once more, because it may
    /// need a later statement, and is then returned with the server's message.
    pub(super) fn run(
        &self,
        inner: &Inner,
        client: &mut Client,
        database: &str,
        kind: Kind,
    ) -> Result<Vec<String>, CommandError> {
        let record = record::read(client, database)?;
        let there = accounts(client)?;
        client.query(&format!("USE {}", quoted(database)))?;
        // The stand-in of a view is not made without the view either.
        let bound: BTreeSet<&str> =
            self.bound(database).map(|statement| statement.what.as_str()).collect();
        let is_wanted = |(at, statement): &(usize, &Statement)| {
            statement.kind == kind
                && !record.ran.contains(&self.name_of(*at))
                && !bound.contains(statement.what.as_str())
        };
        let mut left: Vec<_> = self.statements.iter().enumerate().filter(is_wanted).collect();
        let mut refused = Vec::new();
        for _ in 0..2 {
            refused.clear();
            for (at, statement) in std::mem::take(&mut left) {
                let name = self.name_of(at);
                let was_begun = record.begun.contains(&name);
                let add = |of| record::add(database, of, "", &name, 0);
                if !was_begun {
                    client.query(&add(Of::Begun).replacen("INSERT", "INSERT IGNORE", 1))?;
                }
                match self.run_one(inner, client, statement, there.as_ref()) {
                    Ok(()) => {}
                    // A run that was killed has made the object.
                    Err(CommandError::Server(error))
                        if was_begun && EXISTS.contains(&error.code) => {}
                    Err(CommandError::Server(error)) => {
                        refused.push(format!("{}: {error}", escaped(&statement.what)));
                        left.push((at, statement));
                        // It was not made, so an object of this name would be somebody else's.
                        client.query(&record::remove(database, Of::Begun, "", &name))?;
                        continue;
                    }
                    Err(broken) => return Err(broken),
                }
                client.query(&add(Of::Ran))?;
            }
        }
        Ok(refused)
    }

    fn run_one(
        &self,
        inner: &Inner,
        client: &mut Client,
        statement: &Statement,
        there: Option<&BTreeSet<Account>>,
    ) -> Result<(), CommandError> {
        let Statement { mode, zone, .. } = statement;
        client.query(&format!("SET SESSION sql_mode = {mode}, time_zone = {zone}"))?;
        let replaced = |account: &Account| {
            let mut all = inner.replaced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.insert(account.clone());
        };
        let outcome = match statement.definer() {
            Some(account) if there.is_some_and(|there| !there.contains(account)) => {
                replaced(account);
                client.query(&statement.without_definer())
            }
            definer => match (client.query(&statement.sql), definer) {
                (Err(CommandError::Server(error)), Some(account))
                    if NOT_YOURS.contains(&error.code) =>
                {
                    replaced(account);
                    client.query(&statement.without_definer())
                }
                (outcome, _) => outcome,
            },
        };
        client.query("SET SESSION sql_mode = '', time_zone = '+00:00'")?;
        outcome.map(drop)
    }
}

/// The text of an account for people.
pub(super) fn shown(account: &Account) -> String {
    let Account { user, host } = account;
    let name = match host.as_str() {
        "" => literal(user),
        _ => format!("{}@{}", literal(user), literal(host)),
    };
    escaped(&name).to_string()
}

/// Makes what waits for the rows.
pub(super) fn settle(
    inner: &Inner,
    client: &mut Client,
    database: &str,
    script: &Script,
    settled: &mut Settled,
) -> Result<(), CommandError> {
    let refused = script.run(inner, client, database, Kind::Program)?;
    settled.differences.extend(refused.into_iter().map(|what| format!("not made: {what}")));
    Ok(())
}
