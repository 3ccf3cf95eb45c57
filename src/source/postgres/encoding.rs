//! Finds the columns whose text the server cannot convert to UTF-8, since some bytes are not a character of the database's
//! encoding. Such a column becomes bytes, as they are stored. Blocks.

use crate::error::Result;
use crate::model::Table;
use crate::source::postgres::errors::UNTRANSLATABLE;
use crate::source::postgres::server::Readable;
use crate::source::postgres::snapshot::{RELEASE, Session};
use crate::source::postgres::sql;
use crate::source::postgres::types::Kind;
use crate::source::relational::type_overrides::TypeOverride;

fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Text | Kind::Padded | Kind::Json | Kind::Jsonb => true,
        Kind::List(element) => is_text(element),
        _ => false,
    }
}

/// The columns of a table that cannot be converted. The server does not say which column failed, so each one is tried,
/// over the whole table.
pub(super) fn untranslatable(
    session: &mut Session,
    table: &Table,
    readable: &Readable,
) -> Result<Vec<(usize, TypeOverride)>> {
    let connection = &mut session.connection;
    let mut found = Vec::new();
    for (at, (column, kind)) in table.columns.iter().zip(&readable.kinds).enumerate() {
        if !is_text(kind) {
            continue;
        }
        match connection.query(&sql::translated(&column.key, &readable.from)) {
            Ok(_) => {}
            Err(_) if connection.was_refused_by(UNTRANSLATABLE) => {
                found.push((at, TypeOverride::Bytes("text that cannot be converted to UTF-8")));
            }
            Err(error) => return Err(error),
        }
        connection.query(RELEASE)?;
    }
    Ok(found)
}
