//! Text that cannot be had in UTF-8, since the database's encoding has bytes that stand for no character: its
//! column becomes the bytes that are stored. Blocks.

use super::errors::UNTRANSLATABLE;
use super::snapshot::{Pool, RELEASE, Session};
use super::types::Kind;
use super::{Readable, sql};
use crate::error::{Error, Result};
use crate::source::Table;
use crate::source::relational::cancel::Cancel;
use crate::source::relational::lessons::{Lesson, Lessons};

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
    lessons: &Lessons,
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
                    learned.push((column, Lesson::Bytes, "text that has no characters in UTF-8"));
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
        false => Err(lessons.learn(&table.id, learned)),
    }
}
