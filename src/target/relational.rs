//! What the relational targets have in common: which tables go where, whether definitions are to be made, the
//! connections that are kept, and the end of a chunk. It knows no server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{Class, Error, Result};
use crate::model::{Column, Role, TableId};
use crate::source::relational::cancel::{CancelToken, blocking};
use crate::source::relational::outside::Connected;
use crate::target::{Placed, Plan, Written};

/// How many tables a statement asks for their first row.
const AT_ONCE: usize = 50;

/// Whether columns are those of a table, and not those of points.
pub(super) fn are_of_a_table(columns: &[Column]) -> bool {
    columns.iter().all(|column| column.role == Role::Column)
}

/// The tables of a plan by the database that they go into.
pub(super) fn by_database(plan: &Plan) -> BTreeMap<&str, Vec<&Arc<Placed>>> {
    let mut databases = BTreeMap::<&str, Vec<_>>::new();
    for table in &plan.tables {
        databases.entry(&table.to.database).or_default().push(table);
    }
    databases
}

/// The databases of the archive whose tables go into a database of the target, each with its source.
pub(super) fn origins<'a>(plan: &'a Plan, database: &str) -> BTreeSet<(&'a str, &'a str)> {
    let tables = plan.tables.iter().filter(|table| table.to.database == database);
    tables.map(|table| origin(table)).collect()
}

/// The source and the database of the archive that a table comes from.
pub(super) fn origin(table: &Placed) -> (&str, &str) {
    (&table.from.source, &table.from.database)
}

/// What is to be made of one database of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    /// The archive's definitions are run.
    Definitions,
    /// Tables are made of the columns that the archive has.
    Columns,
    /// Nothing is made, because the tables are there.
    Nothing,
}

impl Making {
    /// Decides what is to be made for these tables. It is an error if some of them are there and others are not.
    pub(super) fn of(
        tables: &[&Arc<Placed>],
        has_script: bool,
        is_there: impl Fn(&TableId) -> bool,
    ) -> Result<Self> {
        let (there, missing): (Vec<&Arc<Placed>>, Vec<_>) =
            tables.iter().copied().partition(|table| is_there(&table.to));
        match (there.first(), missing.first()) {
            (Some(there), Some(missing)) => Err(Error::stop(format!(
                "the target has {} and lacks {}; nothing was changed",
                there.to, missing.to
            ))
            .hint(
                "restore into a database without any of these tables, or make all of them first, or choose those that \
                 are there by --table",
            )),
            (Some(_), None) => Ok(Self::Nothing),
            (None, _) if has_script => Ok(Self::Definitions),
            (None, _) => Ok(Self::Columns),
        }
    }
}

/// Asks which of some tables have rows. `from` is what a statement calls a table, `ask` runs a statement and returns
/// the numbers in its rows.
pub(super) fn occupied<E>(
    tables: &[&Arc<Placed>],
    from: impl Fn(&TableId) -> String,
    mut ask: impl FnMut(&str) -> Result<Vec<String>, E>,
) -> Result<BTreeSet<TableId>, E> {
    let mut occupied = BTreeSet::new();
    for some in tables.chunks(AT_ONCE) {
        let asked = some.iter().enumerate().map(|(number, table)| {
            let from = from(&table.to);
            format!("SELECT {number} FROM (SELECT 1 AS one) o WHERE EXISTS (SELECT 1 FROM {from})")
        });
        let asked: Vec<String> = asked.collect();
        for number in ask(&asked.join(" UNION ALL "))? {
            let table = number.parse::<usize>().ok().and_then(|number| some.get(number));
            occupied.extend(table.map(|table| table.to.clone()));
        }
    }
    Ok(occupied)
}

/// The error of a target that has no room left. It ends the run at once: to try again would take what room others need.
pub(super) fn is_full(error: impl Display) -> Error {
    Error::incomplete(error)
        .hint("the target has no room: make some, and run the same command again to go on")
}

/// The error of a user who may not do what a restore does.
pub(super) fn is_denied(error: impl Display) -> Error {
    Error::fail(error)
        .hint("give the user the right to do this, and run the same command again to go on")
}

/// The connections that are not in use, by what they are connected to.
pub(super) struct Idle<C>(Mutex<HashMap<String, Vec<C>>>);

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Connected> Idle<C> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with a connection, which is kept for the next one unless the work failed.
    pub(super) fn with<T, E: Into<Error>>(
        &self,
        name: &str,
        cancel: &CancelToken,
        open: impl FnOnce() -> Result<C>,
        work: impl FnOnce(&mut C) -> Result<T, E>,
    ) -> Result<T> {
        let kept = self.lock().get_mut(name).and_then(Vec::pop);
        let mut connection = kept.map_or_else(open, Ok)?;
        match once(&mut connection, cancel, work) {
            Ok(done) => {
                self.lock().entry(name.to_owned()).or_default().push(connection);
                Ok(done)
            }
            // What has changed since a moment ago does not change back by itself.
            Err(error) if error.class() == Class::SchemaChanged => Err(error.for_good()),
            Err(error) => Err(error),
        }
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        self.lock().clear();
    }
}

/// Works with a connection, which is closed if nobody waits for the work any more.
pub(super) fn once<C: Connected, T, E: Into<Error>>(
    connection: &mut C,
    cancel: &CancelToken,
    work: impl FnOnce(&mut C) -> Result<T, E>,
) -> Result<T> {
    cancel.watching(connection.closer()?, || work(connection)).map_err(Into::into)
}

/// The end of the rows of a chunk: whether all of them were read, once that is known.
pub(super) struct AllRead(oneshot::Receiver<bool>);

impl AllRead {
    /// Waits for it. The rows must not be committed if this fails.
    pub(super) fn wait(self) -> Result<()> {
        match self.0.blocking_recv() {
            Ok(true) => Ok(()),
            _ => Err(Error::stop("not all rows could be read")),
        }
    }
}

/// Works for a plan on a thread that may block.
pub(super) async fn run<I: Send + Sync + 'static, T: Send + 'static>(
    inner: &Arc<I>,
    plan: &Plan,
    work: fn(&I, &Plan, &CancelToken) -> Result<T>,
) -> Result<T> {
    let (inner, plan) = (Arc::clone(inner), plan.clone());
    blocking(move |cancel| work(&inner, &plan, cancel)).await
}

/// Writes a chunk on a thread of its own while it is read. An error of the reading comes before one of the writing,
/// which it may have caused.
pub(super) async fn write(
    reading: JoinHandle<Result<()>>,
    write: impl FnOnce(AllRead, &CancelToken) -> Result<Written> + Send + 'static,
) -> Result<Written> {
    let (say, all_read) = oneshot::channel();
    let writing = blocking(move |cancel| write(AllRead(all_read), cancel));
    let reading = async {
        let read = reading.await.unwrap_or_else(|error| Err(Error::stop(error)));
        let _ = say.send(read.is_ok()); // the thread that writes may have failed
        read
    };
    let (written, read) = tokio::join!(writing, reading);
    read?;
    written
}

/// The result of a chunk: none of its rows is rejected, since it is there whole or not at all.
pub(super) fn written(rows: u64) -> Written {
    Written { rows, rejected: 0 }
}
