//! Text that cannot be had in UTF-8, since the database's encoding has bytes that stand for no character: its
//! column becomes the bytes that are stored. Blocks.

use crate::error::{Error, Result};
use crate::model::Table;
use crate::source::postgres::errors::UNTRANSLATABLE;
use crate::source::postgres::snapshot::{Pool, RELEASE, Session};
use crate::source::postgres::types::Kind;
use crate::source::postgres::{Readable, sql};
use crate::source::relational::cancel::Cancel;
use crate::source::relational::type_overrides::{TypeOverride, TypeOverrides};

fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Text | Kind::Padded | Kind::Jsonb => true,
        Kind::List(element) => is_text(element),
        _ => false,
    }
}

/// Learns which columns of a table cannot be translated: the server says that there are some, but not which, so
/// it is asked for one after the other, each over the whole table. The error has the table listed again.
pub(super) fn learn(
    pool: &Pool,
    cancel: &Cancel,
    type_overrides: &TypeOverrides,
    table: &Table,
    readable: &Readable,
    refused: Error,
) -> Result<()> {
    let mut learned = Vec::new();
    let mut ask = |session: &mut Session| {
        for (column, kind) in table.columns.iter().zip(&readable.kinds) {
            if !is_text(kind) {
                continue;
            }
            let connection = &mut session.connection;
            match connection.query(&sql::translated(&column.key, &readable.from)) {
                Ok(_) => {}
                Err(_) if connection.was_refused_by(UNTRANSLATABLE) => {
                    learned.push((
                        column,
                        TypeOverride::Bytes,
                        "text that has no characters in UTF-8",
                    ));
                }
                Err(error) => return Err(error),
            }
            connection.query(RELEASE)?;
        }
        Ok(())
    };
    pool.work(pool.take()?, cancel, &mut ask)?;
    match learned.is_empty() {
        true => Err(refused),
        false => Err(type_overrides.learn(&table.id, learned)),
    }
}
