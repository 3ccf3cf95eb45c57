//! The tables of a database with their columns, types and indexes, from its catalogs. A few statements ask for all of
//! them, since there may be thousands of tables.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{Column, Role, Size};
use crate::source::names::Names;
use crate::source::postgres::connection::{Connection, Row};
use crate::source::postgres::types::{Kind, Type, Types};

/// A table, a materialized view or a foreign table.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_class.relkind`: `r`, `m` or `f`.
    pub(super) kind: char,
    /// The estimate of the last ANALYZE; negative if there was none.
    pub(super) rows_estimate: i64,
    pub(super) may_read: bool,
    pub(super) is_populated: bool,
    /// The number of its file at the time of the snapshot.
    pub(super) file: u32,
    /// The number of its blocks; 0 if they cannot be read by number.
    pub(super) blocks: u64,
    /// The size of its rows, including values that are stored out of line.
    pub(super) size_bytes: u64,
    pub(super) columns: Vec<Attribute>,
    /// The columns of its primary key, in the order of the key.
    pub(super) primary_key: Vec<i16>,
    /// The columns that lead an index, and how closely the order of the table follows each.
    pub(super) indexed: Vec<Indexed>,
}

impl Relation {
    /// Its estimated size; the number of rows is unknown before the first ANALYZE.
    pub(super) fn size(&self) -> Size {
        let bytes = (self.size_bytes > 0).then_some(self.size_bytes);
        Size { rows: u64::try_from(self.rows_estimate).ok(), bytes }
    }

    /// One of its columns, whose values are of this kind in the archive.
    pub(super) fn column(&self, attribute: &Attribute, kind: &Kind, names: &mut Names) -> Column {
        let Attribute { number, name, type_name, .. } = attribute;
        let place = self.primary_key.iter().position(|part| part == number);
        Column {
            logical: kind.logical(),
            nullable: Some(!attribute.not_null),
            key_part: place.and_then(|place| u16::try_from(place + 1).ok()),
            ..Column::new(names.take(name), name, Role::Column, type_name, kind.data_type())
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) modifier: i32,
    /// The type as the server writes it, such as `numeric(10,2)`.
    pub(super) type_name: String,
    pub(super) not_null: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Indexed {
    pub(super) column: i16,
    /// Between -1 and 1; `None` before the first ANALYZE.
    pub(super) correlation: Option<f64>,
}

// Names that begin with pg_ belong to the system.
const USER_RELATIONS: &str = "c.relkind IN ('r', 'm', 'f') AND n.nspname <> 'information_schema' \
    AND n.nspname !~ '^pg_'";

/// All types of the database.
pub(crate) fn types(connection: &mut Connection) -> Result<Types> {
    let rows = connection.query(
        "SELECT t.oid, t.typname, n.nspname = 'pg_catalog', t.typbasetype, t.typtypmod, t.typelem, \
         t.typelem <> 0 AND t.typcategory = 'A' AND t.typlen = -1 \
         AND t.typname NOT IN ('int2vector', 'oidvector'), \
         EXISTS (SELECT FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = 'text'::regtype \
         AND k.oid >= 16384), \
         EXISTS (SELECT FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = 'text[]'::regtype \
         AND k.oid >= 16384) \
         FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace",
    )?;
    let mut types = HashMap::new();
    for row in &rows {
        let found = Type {
            name: text(row, 1),
            built_in: truth(row, 2),
            base: number(row, 3)?,
            base_modifier: number(row, 4)?,
            element: number(row, 5)?,
            is_array: truth(row, 6),
            has_cast: truth(row, 7),
            has_list_cast: truth(row, 8),
        };
        types.insert(number(row, 0)?, found);
    }
    Ok(Types(types))
}

/// All relations that hold rows and do not belong to the system, sorted by name. A partitioned table holds none: its
/// partitions do. Asking for the size of a table that somebody has locked exclusively would wait, so its last known size
/// is taken.
pub(super) fn relations(connection: &mut Connection) -> Result<Vec<Relation>> {
    let rows = connection.query(&format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltuples::bigint, \
         has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), c.relispopulated, \
         c.relfilenode, CASE WHEN m.amname <> 'heap' THEN 0 WHEN k.is_kept THEN c.relpages \
         ELSE pg_relation_size(c.oid) / current_setting('block_size')::bigint END, \
         CASE WHEN k.is_kept THEN c.relpages * current_setting('block_size')::bigint \
         ELSE pg_table_size(c.oid) END \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam \
         CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid \
         AND l.mode = 'AccessExclusiveLock') AS is_kept OFFSET 0) k \
         WHERE {USER_RELATIONS} ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
    ))?;
    let mut relations = Vec::with_capacity(rows.len());
    let mut places = HashMap::new();
    for row in &rows {
        let oid = number(row, 0)?;
        places.insert(oid, relations.len());
        relations.push(Relation {
            oid,
            schema: text(row, 1),
            name: text(row, 2),
            kind: text(row, 3).chars().next().unwrap_or('r'),
            rows_estimate: number(row, 4)?,
            may_read: truth(row, 5),
            is_populated: truth(row, 6),
            file: number(row, 7)?,
            // These are null if the table has been dropped meanwhile.
            blocks: number(row, 8).unwrap_or_default(),
            size_bytes: number(row, 9).unwrap_or_default(),
            columns: Vec::new(),
            primary_key: Vec::new(),
            indexed: Vec::new(),
        });
    }
    let rows = connection.query(&format!(
        "SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, \
         format_type(a.atttypid, a.atttypmod), a.attnotnull \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND {USER_RELATIONS} ORDER BY a.attrelid, a.attnum"
    ))?;
    for row in &rows {
        let Some(relation) = places.get(&number(row, 0)?).and_then(|at| relations.get_mut(*at))
        else {
            continue;
        };
        relation.columns.push(Attribute {
            number: number(row, 1)?,
            name: text(row, 2),
            type_oid: number(row, 3)?,
            modifier: number(row, 4)?,
            type_name: text(row, 5),
            not_null: truth(row, 6),
        });
    }
    let rows = connection.query(&format!(
        "SELECT k.conrelid, part.number FROM pg_constraint k \
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         CROSS JOIN unnest(k.conkey) WITH ORDINALITY part (number, place) \
         WHERE k.contype = 'p' AND {USER_RELATIONS} ORDER BY k.conrelid, part.place"
    ))?;
    for row in &rows {
        if let Some(relation) = places.get(&number(row, 0)?).and_then(|at| relations.get_mut(*at)) {
            relation.primary_key.push(number(row, 1)?);
        }
    }
    // A partial index does not serve every window. An index on an expression has column 0, which joins no attribute.
    let rows = connection.query(&format!(
        "SELECT i.indrelid, i.indkey[0], s.correlation \
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam \
         JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
         LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname \
         AND s.attname = a.attname AND NOT s.inherited \
         WHERE i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'brin') \
         AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype) \
         AND {USER_RELATIONS}"
    ))?;
    for row in &rows {
        if let Some(relation) = places.get(&number(row, 0)?).and_then(|at| relations.get_mut(*at)) {
            let correlation = row.get(2).cloned().flatten().and_then(|text| text.parse().ok());
            relation.indexed.push(Indexed { column: number(row, 1)?, correlation });
        }
    }
    Ok(relations)
}

/// The system's table of large objects; `None` if there are no large objects.
pub(super) fn large_objects(connection: &mut Connection) -> Result<Option<Relation>> {
    let rows = connection.query(
        "SELECT 'pg_largeobject'::regclass::oid, has_table_privilege('pg_largeobject', 'SELECT'), \
         c.reltuples::bigint, pg_relation_size(c.oid) / current_setting('block_size')::bigint, \
         c.relfilenode FROM pg_class c WHERE c.oid = 'pg_largeobject'::regclass \
         AND EXISTS (SELECT FROM pg_largeobject_metadata)",
    )?;
    let Some(row) = rows.first() else { return Ok(None) };
    let column = |number: i16, name: &str, type_oid: u32, type_name: &str| Attribute {
        number,
        name: name.to_owned(),
        type_oid,
        modifier: -1,
        type_name: type_name.to_owned(),
        not_null: true,
    };
    Ok(Some(Relation {
        oid: number(row, 0)?,
        schema: "pg_catalog".to_owned(),
        name: "pg_largeobject".to_owned(),
        kind: 'r',
        rows_estimate: number(row, 2)?,
        may_read: truth(row, 1),
        is_populated: true,
        file: number(row, 4)?,
        blocks: number(row, 3)?,
        size_bytes: 0,
        columns: vec![
            column(1, "loid", 26, "oid"),
            column(2, "pageno", 23, "integer"),
            column(3, "data", 17, "bytea"),
        ],
        primary_key: vec![1, 2],
        indexed: Vec::new(),
    }))
}

/// The server's version as a number (150002), and the bytes of a block.
pub(super) fn version(connection: &mut Connection) -> Result<(u32, u64)> {
    let rows = connection
        .query("SELECT current_setting('server_version_num'), current_setting('block_size')")?;
    let row = rows.first().cloned().unwrap_or_default();
    Ok((number(&row, 0)?, number(&row, 1)?))
}

/// A database of the server.
pub(super) struct Named {
    pub(super) name: String,
    /// Why it cannot be read, if that is known without trying.
    pub(super) closed: Option<String>,
}

/// All databases except the server's own templates. Other templates may belong to a user.
pub(super) fn databases(connection: &mut Connection) -> Result<Vec<Named>> {
    let rows = connection.query(
        "SELECT datname, CASE WHEN datconnlimit = -2 \
         THEN 'it is invalid, since a DROP DATABASE was interrupted: drop it, or leave it out' \
         WHEN NOT datallowconn THEN 'it allows no connections' \
         WHEN NOT has_database_privilege(oid, 'CONNECT') THEN 'this user may not connect to it' END \
         FROM pg_database WHERE datname NOT IN ('template0', 'template1') ORDER BY datname COLLATE \"C\"",
    )?;
    let named = |row: &Row| Named { name: text(row, 0), closed: row.get(1).cloned().flatten() };
    Ok(rows.iter().map(named).collect())
}

pub(crate) fn text(row: &Row, at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

fn truth(row: &Row, at: usize) -> bool {
    row.get(at).and_then(Option::as_deref) == Some("t")
}

fn number<T: std::str::FromStr>(row: &Row, at: usize) -> Result<T> {
    text(row, at).parse().map_err(|_| {
        Error::stop(format!("the catalog has `{}` where a number belongs", text(row, at)))
    })
}
