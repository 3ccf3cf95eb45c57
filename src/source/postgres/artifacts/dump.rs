//! The definition of a database, made by pg_dump, from which this file removes the secrets.

use std::time::Duration;

use crate::config::Database;
use crate::error::Result;
use crate::source::postgres::artifacts::script::Script;
use crate::source::postgres::artifacts::secrets;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::pg_dump;

/// Long enough for the definitions of thousands of tables over a slow line.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Dumps the definitions that a session sees. No statement of its transaction may have failed.
pub(super) fn script(
    server: &Database,
    database: &str,
    connection: &mut Connection,
) -> Result<Result<Script, String>> {
    let snapshot = connection.query("SELECT pg_export_snapshot()")?;
    let snapshot = snapshot.first().map(|row| text(row, 0)).unwrap_or_default();
    let hidden = connection.query(&secrets::options())?;
    let passage = server.tunnel.as_ref().map(|tunnel| tunnel.ask()).transpose()?;
    let mut command = pg_dump::command(server, database, passage);
    command.arg("--schema-only").arg(format!("--snapshot={snapshot}"));
    let dump = match pg_dump::run(command, LONG) {
        Ok(dump) => dump,
        Err(trouble) => return Ok(Err(trouble.to_string())),
    };
    let mut sql = dump;
    for row in &hidden {
        let (written, visible) = (text(row, 0), text(row, 1));
        if written.contains(char::REPLACEMENT_CHARACTER) {
            return Ok(Err(
                "an option of a foreign server is not UTF-8, so it cannot be masked".into()
            ));
        }
        sql = replaced(&sql, written.as_bytes(), visible.as_bytes());
    }
    Ok(Ok(Script { sql, missing: Vec::new() }))
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut start = 0;
    for at in memchr::memmem::find_iter(bytes, from) {
        result.extend_from_slice(&bytes[start..at]);
        result.extend_from_slice(to);
        start = at + from.len();
    }
    result.extend_from_slice(&bytes[start..]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_are_replaced() {
        assert_eq!(replaced(b"a 'x', a 'x'", b"'x'", b"-"), b"a -, a -");
        assert_eq!(replaced(b"", b"'x'", b"-"), b"");
    }
}
