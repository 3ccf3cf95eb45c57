//! A native dump of each exported database by pg_dump, as SQL. Its end can be recognized, each COPY in it has an end of
//! its own, and any later psql can load it. The custom format has nothing at its end by which a truncated dump could be
//! recognized, and if it is written to a pipe, several sessions cannot load it in parallel either.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{DumpFormat, DumpPlan, Dumped, Listing, Size};
use crate::source::channel::DumpSender;
use crate::source::dump::{Terms, program};
use crate::source::postgres::artifacts::secrets;
use crate::source::postgres::catalog::text;
use crate::source::postgres::pg_dump;
use crate::source::postgres::server::Inner;

/// Texts of pg_dump's errors that another attempt would only repeat.
const PERMANENT: &[&str] = &["permission denied", "server version mismatch", "row-level security"];

/// Lists the dumps. Blocks.
pub(super) fn list(inner: &Inner, listing: &mut Listing) -> Result<()> {
    let mut connection = inner.first_connection()?;
    let version = connection.query("SELECT current_setting('server_version_num')")?;
    let version = version.first().and_then(|row| text(row, 0).parse().ok()).unwrap_or(0);
    let program = pg_dump::version(version).map_err(|why| {
        Error::fail(why).hint(format!(
            "install the client programs of PostgreSQL {} or later, or remove `dump` from the configuration",
            version / 10_000
        ))
    });
    let sizes = connection.query("SELECT datname, pg_database_size(oid) FROM pg_database");
    let sizes = sizes.unwrap_or_default(); // it fails if there is a database that the user may not see
    for database in inner.databases(&mut Listing::default())? {
        let bytes = sizes.iter().find(|row| text(row, 0) == database);
        let bytes = bytes.and_then(|row| text(row, 1).parse().ok());
        let plan = program.clone().map(|program| {
            (DumpPlan { program, format: DumpFormat::PgDump }, Size { rows: None, bytes })
        });
        inner.dumps.add(listing, &inner.name, &database, plan);
        if holds_secrets(inner, &database) {
            listing.warnings.push(format!(
                "the dump of {} contains options of user mappings or foreign servers, which may be passwords",
                database.escape_debug()
            ));
        }
    }
    Ok(())
}

/// Whether the user can see secrets in the database, which pg_dump would write.
fn holds_secrets(inner: &Inner, database: &str) -> bool {
    let session = inner.pool(database).take();
    let hidden = session.and_then(|mut session| session.connection.query(&secrets::options()));
    hidden.is_ok_and(|hidden| !hidden.is_empty())
}

/// Dumps a database.
pub(super) async fn run(inner: &Arc<Inner>, database: &str, output: DumpSender) -> Result<Dumped> {
    let passage = program::passage(inner.server.tunnel.as_ref()).await?;
    let command = pg_dump::command(&inner.server, database, passage);
    let (secret, silence) = (inner.server.password.as_ref(), program::silence(&inner.limits));
    let terms = Terms { silence, secret, permanent: PERMANENT };
    program::run(command, &output, terms).await?;
    Ok(Dumped::default())
}
