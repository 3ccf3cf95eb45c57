//! The definition of a database as SQL, made from its catalogs for servers that are newer than every pg_dump at hand. The
//! queries are in `definitions.sql` and `additions.sql`; this file runs them and sorts the statements that they return,
//! so that psql can load them.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Class, Result};
use crate::source::postgres::artifacts::script::{Script, one_line};
use crate::source::postgres::artifacts::secrets;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::{Connection, Row};

const DEFINITIONS: &str = include_str!("ddl/definitions.sql");
const ADDITIONS: &str = include_str!("ddl/additions.sql");

/// The settings for loading, as at the beginning of a dump by pg_dump.
const SETTINGS: &str = "SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SELECT pg_catalog.set_config('search_path', '', false);
";

const USER: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The objects that users can create and that none of the queries covers.
const LEFTOVERS: &str = "SELECT o.class, o.oid, i.type || ' ' || i.identity FROM ( \
    SELECT 'pg_type'::regclass::oid, t.oid FROM pg_type t WHERE t.typtype = 'b' \
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) \
    UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass \
    UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily \
    UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language \
    UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion \
    UNION ALL SELECT 'pg_transform'::regclass, oid FROM pg_transform \
    UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am \
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser \
    UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template \
    ) AS o (class, oid) CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i WHERE o.oid >= 16384 ORDER BY 3";

/// The class and the oid of an object.
type Object = (u32, u32);

/// The oid of `pg_class` itself.
const CLASS: u32 = 1259;

struct Statement {
    object: Object,
    table: u32,
    /// Its place in the order, unless a dependency demands another.
    rank: (usize, String),
    sql: String,
}

/// Runs the queries in a transaction that stays usable. What the server does not give is listed in `missing`.
pub(super) fn script(connection: &mut Connection, version: u32) -> Result<Script> {
    let mut missing = Vec::new();
    let depends = Depends::ask(connection)?;
    let mut definitions = Vec::new();
    for (number, section) in sections(DEFINITIONS).enumerate() {
        definitions.extend(section.ask(connection, version, number, &mut missing)?);
    }
    definitions.retain(|statement| !depends.is_of_extension(statement));
    let mut sql = format!("{SETTINGS}\n");
    let mut write = |statements: &[Statement]| {
        for statement in statements {
            sql.push_str(&statement.sql);
            sql.push_str("\n\n");
        }
    };
    write(&sorted(definitions, &depends));
    for (number, section) in sections(ADDITIONS).enumerate() {
        let mut additions = section.ask(connection, version, number, &mut missing)?;
        additions.retain(|statement| !depends.is_of_extension(statement));
        additions.sort_by(|a, b| a.rank.cmp(&b.rank));
        write(&additions);
    }
    match kept(connection, LEFTOVERS)? {
        Ok(rows) => {
            let rows = rows.iter().filter(|row| !depends.members.contains(&object(row, 0)));
            missing.extend(rows.map(|row| text(row, 2)));
        }
        Err(why) => missing.push(why),
    }
    for what in &missing {
        sql.push_str(&format!("-- NOT HERE: {}\n", one_line(what)));
    }
    Ok(Script { sql: connection.bytes(&sql), missing })
}

/// A query of one of the two files.
struct Section<'a> {
    title: &'a str,
    since: u32,
    query: &'a str,
}

fn sections(file: &str) -> impl Iterator<Item = Section<'_>> {
    file.split("\n--: ").skip(1).filter_map(|part| {
        let (title, query) = part.split_once('\n')?;
        let (title, since) = title.split_once(", since ").unwrap_or((title, "0"));
        Some(Section { title, since: since.parse().unwrap_or(0), query })
    })
}

impl Section<'_> {
    fn ask(
        &self,
        connection: &mut Connection,
        version: u32,
        number: usize,
        missing: &mut Vec<String>,
    ) -> Result<Vec<Statement>> {
        if version < self.since * 10_000 {
            return Ok(Vec::new());
        }
        let filter = match version {
            150_000.. => {
                "' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a \
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)) || ')', \
                 ' WHERE ' || pg_get_expr(r.prqual, r.prrelid)"
            }
            _ => "NULL, NULL",
        };
        let query = self
            .query
            .replace("{user}", USER)
            .replace("{option}", &secrets::option())
            .replace("{publication_filter}", filter);
        let rows = match kept(connection, &query)? {
            Ok(rows) => rows,
            Err(why) => {
                missing.push(format!("{}: {why}", self.title));
                return Ok(Vec::new());
            }
        };
        let statement = |row: &Row| Statement {
            object: object(row, 0),
            table: text(row, 2).parse().unwrap_or(0),
            rank: (number, text(row, 3)),
            sql: text(row, 4),
        };
        let statements: Vec<_> = rows.iter().map(statement).collect();
        // A definition is null if the object has been dropped meanwhile.
        let lost = statements.iter().filter(|statement| statement.sql.is_empty());
        missing.extend(lost.map(|lost| format!("{}: {}", self.title, lost.rank.1)));
        Ok(statements)
    }
}

/// The rows, or why there are none. The transaction stays usable in either case.
fn kept(connection: &mut Connection, sql: &str) -> Result<Result<Vec<Row>, String>> {
    connection.query("SAVEPOINT question")?;
    match connection.query(sql) {
        Ok(rows) => {
            connection.query("RELEASE question")?;
            Ok(Ok(rows))
        }
        Err(error) if error.class() == Class::Stop => Err(error),
        Err(error) => match connection.query("ROLLBACK TO question") {
            Ok(_) => Ok(Err(error.to_string())),
            // The connection itself is broken.
            Err(_) => Err(error),
        },
    }
}

fn object(row: &Row, at: usize) -> Object {
    let number = |at| text(row, at).parse().unwrap_or(0);
    (number(at), number(at + 1))
}

/// The dependencies between objects, from `pg_depend`.
#[derive(Default)]
struct Depends {
    needs: Vec<(Object, Object)>,
    /// The objects that are a part of another: the type of a table, the rule of a view, a function of an extension.
    part_of: HashMap<Object, Object>,
    members: HashSet<Object>,
}

impl Depends {
    fn ask(connection: &mut Connection) -> Result<Self> {
        let mut depends = Self::default();
        // Objects below 16384 belong to the system. The expression of a generated column is created with its table.
        let rows = connection.query(
            "SELECT classid, objid, refclassid, refobjid, deptype FROM pg_depend \
             WHERE objid >= 16384 AND refobjid >= 16384 \
             UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, 'pg_class'::regclass, d.adrelid, 'i' FROM pg_attrdef d \
             JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated <> ''",
        )?;
        for row in &rows {
            let (what, needs) = (object(row, 0), object(row, 2));
            match text(row, 4).as_str() {
                "i" => {
                    depends.part_of.insert(what, needs);
                }
                "e" => {
                    depends.part_of.insert(what, needs);
                    depends.members.insert(what);
                }
                _ => {}
            }
            depends.needs.push((what, needs));
        }
        Ok(depends)
    }

    fn is_of_extension(&self, statement: &Statement) -> bool {
        statement.sql.is_empty()
            || self.members.contains(&statement.object)
            || self.members.contains(&(CLASS, statement.table))
    }

    /// The position of the statement that creates an object, or else the one that it is a part of.
    fn maker(&self, made: &HashMap<Object, usize>, mut object: Object) -> Option<usize> {
        // A part may belong to a part (the type of an array of a table's rows), but only a few levels deep.
        for _ in 0..8 {
            if let Some(at) = made.get(&object) {
                return Some(*at);
            }
            object = *self.part_of.get(&object)?;
        }
        None
    }
}

/// Sorts each statement after those that it needs, and by rank otherwise. A cycle is broken by rank, too.
fn sorted(mut statements: Vec<Statement>, depends: &Depends) -> Vec<Statement> {
    statements.sort_by(|a, b| a.rank.cmp(&b.rank));
    let made: HashMap<_, _> =
        statements.iter().enumerate().map(|(at, statement)| (statement.object, at)).collect();
    let mut needs = vec![BTreeSet::new(); statements.len()];
    let mut needed_by = vec![Vec::new(); statements.len()];
    let mut add = |what: Option<usize>, needed: Option<usize>| {
        if let (Some(what), Some(needed)) = (what, needed)
            && what != needed
            && needs[what].insert(needed)
        {
            needed_by[needed].push(what);
        }
    };
    for (at, statement) in statements.iter().enumerate() {
        add(Some(at), depends.maker(&made, (CLASS, statement.table)));
    }
    for (what, needed) in &depends.needs {
        add(depends.maker(&made, *what), depends.maker(&made, *needed));
    }
    let mut left: BTreeSet<usize> = (0..statements.len()).collect();
    let mut ready: BTreeSet<usize> =
        left.iter().copied().filter(|at| needs[*at].is_empty()).collect();
    let mut order = Vec::with_capacity(statements.len());
    while let Some(at) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(&at);
        order.push(at);
        for next in &needed_by[at] {
            needs[*next].remove(&at);
            if needs[*next].is_empty() && left.contains(next) {
                ready.insert(*next);
            }
        }
    }
    let mut statements: Vec<_> = statements.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| statements[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_comes_after_those_that_it_needs() {
        let statement = |number: u32, rank: usize| Statement {
            object: (CLASS, number),
            table: 0,
            rank: (rank, number.to_string()),
            sql: number.to_string(),
        };
        let statements = vec![statement(1, 0), statement(2, 1), statement(3, 2), statement(4, 3)];
        // 1 needs a part of 4; 2 and 3 need each other.
        let mut depends = Depends::default();
        depends.part_of.insert((7, 7), (CLASS, 4));
        for (what, needs) in
            [((CLASS, 1), (7, 7)), ((CLASS, 2), (CLASS, 3)), ((CLASS, 3), (CLASS, 2))]
        {
            depends.needs.push((what, needs));
        }
        let order: Vec<_> = sorted(statements, &depends).into_iter().map(|one| one.sql).collect();
        assert_eq!(order, ["4", "1", "2", "3"]);
    }

    #[test]
    fn the_files_have_their_sections() {
        assert!(sections(DEFINITIONS).any(|section| section.title == "tables"));
        let late = sections(ADDITIONS).find(|section| section.since == 15).unwrap();
        assert_eq!(late.title, "schemas of publications");
    }
}
