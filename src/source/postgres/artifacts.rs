//! What a server has besides rows: definitions of everything, values of sequences, extensions, roles without their
//! passwords, settings, and an inventory. No secret is written, neither of user mappings nor of subscriptions.

mod ddl;
mod dump;
mod inventory;
mod script;
pub(super) mod secrets;

use self::script::{Script, is_final, one_line};
use crate::error::{Error, Result};
use crate::model::{ArtifactOutcome, Artifacts, Listing};
use crate::source::postgres::catalog;
use crate::source::postgres::pg_dump;
use crate::source::postgres::server::Inner;

/// Asks for each kind of artifact. What the server does not give is reported and does not end the collection. If the
/// server cannot be used at all, that is an error.
pub(super) fn collect(inner: &Inner) -> Result<Artifacts> {
    let mut kept = Artifacts::of(&inner.name);
    let mut listing = Listing::default();
    let databases = inner.databases(&mut listing)?;
    for (id, why) in &listing.unreadable {
        kept.ended(
            &format!("ddl of {}", one_line(&id.database)),
            ArtifactOutcome::NotAvailable(why.clone()),
        );
    }
    for database in &databases {
        let status = match define(inner, database) {
            Ok((script, how)) => {
                kept.file("ddl", database, "sql", script.sql);
                if script.missing.is_empty() {
                    ArtifactOutcome::Saved(how)
                } else {
                    ArtifactOutcome::Failed(format!(
                        "not complete: {}; {how}",
                        script.missing.join("; ")
                    ))
                }
            }
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => ArtifactOutcome::Failed(error.to_string()),
        };
        kept.ended(&format!("ddl of {}", one_line(database)), status);
    }
    inventory::collect(inner, &databases, &mut kept)?;
    Ok(kept)
}

/// The definition of a database, and how it was made. After a failure it is tried once more.
fn define(inner: &Inner, database: &str) -> Result<(Script, String)> {
    define_once(inner, database)
        .or_else(|error| if is_final(&error) { Err(error) } else { define_once(inner, database) })
}

fn define_once(inner: &Inner, database: &str) -> Result<(Script, String)> {
    let pool = inner.pool(database);
    let mut session = pool.take()?;
    let connection = &mut session.connection;
    // A snapshot cannot be exported within a savepoint. A session without its savepoint must not go back to the pool.
    connection.query("RELEASE SAVEPOINT moveout")?;
    let rows = connection
        .query("SELECT current_setting('server_version_num'), current_setting('server_version')")?;
    let (version, name) = match rows.first() {
        Some(row) => (catalog::text(row, 0).parse().unwrap_or(0), catalog::text(row, 1)),
        None => return Err(Error::fail("the server does not show its version")),
    };
    let dumped = match pg_dump::version(version) {
        Ok(program) => {
            let script = dump::script(&inner.server, database, connection)?;
            script.map(|script| (script, format!("by {program}")))
        }
        Err(why) => Err(why),
    };
    let (script, how) = match dumped {
        Ok(dumped) => dumped,
        Err(why) => (ddl::script(connection, version)?, format!("by the catalogs, as {why}")),
    };
    drop(session);
    let head = format!(
        "-- Database {} of PostgreSQL {}, without rows.\n-- Made by moveout {}, {}.\n\
         -- To load it: roles.sql first, then this into an empty database: psql -v ON_ERROR_STOP=1 -d NAME -f FILE\n\
         -- Not in it: values of sequences (sequences.json), options of user mappings and others that are secret\n\
         -- (\"(left out)\"), subscriptions (subscriptions.json), tablespaces (tables.json).\n\n",
        one_line(database),
        one_line(&name),
        env!("CARGO_PKG_VERSION"),
        one_line(&how),
    );
    let sql = [head.into_bytes(), script.sql].concat();
    Ok((Script { sql, missing: script.missing }, how))
}
