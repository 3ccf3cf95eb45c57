//! Decides how the columns of a chunk are written into a table of the target: which of them COPY names, and in which
//! format. One COPY has one format, so a single column without a binary form makes all of them text.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;

use super::names::{literal, place};
use super::values::{Form, Values, form};

use crate::error::{Error, Result};
use crate::model::{Column, TableId};
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::sql::quoted;
use crate::source::postgres::types::Types;

/// A column of the target.
pub(super) struct Attribute {
    name: String,
    oid: u32,
    modifier: i32,
    is_generated: bool,
    is_enum: bool,
    is_bytea: bool,
    /// Whether it may hold nulls although its domain forbids them. A subquery can store such nulls, and COPY cannot.
    evades: bool,
    /// The type without its precision or length, which the table itself checks.
    type_name: String,
    /// The separator of the elements of an array.
    sign: char,
}

/// The columns of a table, or none if there is no such table.
pub(super) fn attributes(connection: &mut Connection, table: &TableId) -> Result<Vec<Attribute>> {
    let rows = connection.query(&format!(
        "SELECT a.attname, a.atttypid, a.atttypmod, a.attgenerated <> '', t.typtype = 'e', \
         coalesce(nullif(t.typbasetype, 0), t.oid) = 'bytea'::regtype, e.typdelim, \
         (t.typnotnull OR b.typnotnull) AND NOT a.attnotnull, format_type(a.atttypid, NULL) \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype \
         LEFT JOIN pg_type e ON e.oid = coalesce(nullif(b.typelem, 0), t.typelem) \
         WHERE n.nspname = {} AND c.relname = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        literal(&table.schema),
        literal(&table.table)
    ))?;
    let attribute = |row: &Vec<Option<String>>| Attribute {
        name: text(row, 0),
        oid: text(row, 1).parse().unwrap_or_default(),
        modifier: text(row, 2).parse().unwrap_or(-1),
        is_generated: text(row, 3) == "t",
        is_enum: text(row, 4) == "t",
        is_bytea: text(row, 5) == "t",
        evades: text(row, 7) == "t",
        type_name: text(row, 8),
        sign: text(row, 6).chars().next().unwrap_or(','),
    };
    Ok(rows.iter().map(attribute).collect())
}

/// A column that is sent.
struct Field {
    /// Its name in the batches.
    name: String,
    form: Option<Form>,
    sign: char,
    /// Whether its bytes are text in the encoding of the server.
    is_stored: bool,
}

/// How rows are written.
pub(super) struct Layout {
    /// The statement that takes them.
    pub(super) statement: String,
    /// If rows are sent to a temporary table first: the statement that makes it, and the one that moves the rows on.
    pub(super) stage: Option<(String, String)>,
    fields: Vec<Field>,
    is_binary: bool,
}

/// The temporary table for rows with nulls that a domain forbids.
const STAGE: &str = "pg_temp.moveout_stage";

/// The statements that make the temporary table, whose columns are text, and move the rows on. The value of a subquery
/// without a row is null, and the server does not check such a null against the domain.
fn stage(table: &TableId, chosen: &[&Attribute]) -> Option<(String, String)> {
    if !chosen.iter().any(|attribute| attribute.evades) {
        return None;
    }
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for attribute in chosen {
        let name = quoted(&attribute.name);
        columns.push(format!("{name} text"));
        let value = format!("s.{name}::{}", attribute.type_name);
        values.push(match attribute.evades {
            true => format!("(SELECT {value} WHERE s.{name} IS NOT NULL)"),
            false => value,
        });
    }
    let names: Vec<_> = chosen.iter().map(|attribute| quoted(&attribute.name)).collect();
    let create =
        format!("CREATE TEMPORARY TABLE moveout_stage ({}) ON COMMIT DROP", columns.join(", "));
    let moves = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {STAGE} s",
        place(table),
        names.join(", "),
        values.join(", ")
    );
    Some((create, moves))
}

/// The beginning of binary data: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".
pub(super) const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl Layout {
    pub(super) fn new(
        table: &TableId,
        columns: &[Column],
        attributes: &[Attribute],
        types: &Types,
        keeps_bytes: bool,
    ) -> Result<Self> {
        let (mut fields, mut names, mut is_binary) = (Vec::new(), Vec::new(), true);
        let mut chosen = Vec::new();
        for column in columns {
            let Some(there) = attributes.iter().find(|there| there.name == column.key) else {
                return Err(Error::fail(format!(
                    "the table of the target has no column {}",
                    column.key.escape_debug()
                ))
                .hint("drop the table of the target, or give it the columns that it had"));
            };
            if there.is_generated {
                continue; // the target computes it
            }
            let is_stored = column.data_type == DataType::Binary && !there.is_bytea;
            if is_stored && !keeps_bytes {
                return Err(Error::fail(format!(
                    "the column {} has text that cannot be converted to UTF-8, so that the archive has its bytes; \
                     a target takes it only if its encoding is SQL_ASCII",
                    column.key.escape_debug()
                ))
                .hint(
                    "create the database of the target with ENCODING 'SQL_ASCII', or load this table by hand \
                     (docs/loading-back.md)",
                ));
            }
            let form = form(types, there.oid, there.modifier, there.is_enum, &column.data_type);
            is_binary &= form.is_some() && !is_stored;
            names.push(quoted(&column.key));
            chosen.push(there);
            fields.push(Field { name: column.name.clone(), form, sign: there.sign, is_stored });
        }
        let stage = stage(table, &chosen);
        is_binary &= stage.is_none();
        let place = if stage.is_some() { STAGE.to_owned() } else { place(table) };
        let options = if is_binary { " WITH (FORMAT binary)" } else { "" };
        let list = names.join(", ");
        let statement = format!("COPY {place} ({list}) FROM STDIN{options}");
        Ok(Self { statement, stage, fields, is_binary })
    }

    /// Appends what comes before the rows.
    pub(super) fn head(&self, out: &mut Vec<u8>) {
        if self.is_binary {
            out.extend(HEAD);
        }
    }

    /// Appends what comes after the rows.
    pub(super) fn tail(&self, out: &mut Vec<u8>) {
        if self.is_binary {
            out.extend((-1i16).to_be_bytes());
        }
    }

    /// Appends the rows of a batch.
    pub(super) fn rows(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mut columns = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let array = batch.column_by_name(&field.name);
            let values = array.and_then(|array| Values::of(array.as_ref()));
            columns.push(values.ok_or_else(|| {
                let kind = array.map(|array| array.data_type().to_string()).unwrap_or_default();
                Error::fail(format!(
                    "the column {} is of the type {kind}, which cannot be written",
                    field.name.escape_debug()
                ))
            })?);
        }
        if self.is_binary {
            let count = (self.fields.len() as i16).to_be_bytes();
            for row in 0..batch.num_rows() {
                out.extend_from_slice(&count);
                for (field, values) in self.fields.iter().zip(&columns) {
                    // Every field has a form, or the format would not be binary.
                    values.binary(row, field.form.as_ref().unwrap_or(&Form::Plain), out);
                }
            }
            return Ok(());
        }
        let mut value = Vec::new();
        for row in 0..batch.num_rows() {
            for (at, (field, values)) in self.fields.iter().zip(&columns).enumerate() {
                if at > 0 {
                    out.push(b'\t');
                }
                value.clear();
                if values.text(row, field.sign, &mut value).is_none() {
                    out.extend(b"\\N");
                    continue;
                }
                let stored = if field.is_stored { values.stored(row) } else { None };
                escaped(stored.unwrap_or(&value), out);
            }
            out.push(b'\n');
        }
        Ok(())
    }
}

/// Appends a value with the escapes of the text format.
fn escaped(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\\' => out.extend(b"\\\\"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            byte => out.push(*byte),
        }
    }
}
