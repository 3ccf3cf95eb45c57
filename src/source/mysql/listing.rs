//! The catalog as tables to export: how each can be read, where its rows are, and what the user should know.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::catalog::{self, Catalog, Entry};
use super::ranges::MANY_ROWS;
use super::select::{quoted, table_name};
use super::session::{Lease, Session};
use super::snapshot::Proof;
use super::status::Fault;
use super::time::{DateTime, Precision};
use super::{Inner, read};
use crate::config::matches;
use crate::error::{Error, Result};
use crate::source::cancel::Cancel;
use crate::source::{Cuts, Excluded, Listing, Reading, Table, TableId};
use crate::window::Window;

/// Engines that keep what a snapshot sees.
const TRANSACTIONAL: [&str; 3] = ["InnoDB", "RocksDB", "TokuDB"];

pub(super) fn list(this: &Inner, lease: &mut Lease, cancel: &Cancel) -> Result<Listing> {
    // The snapshots first: a table that is created meanwhile is then listed and empty, not unknown.
    lease.work(cancel, |_| Ok(()))?;
    let now = this.pool.tick();
    let mut client = this.pool.address.connect(cancel)?;
    let retyped = this.learned().retyped.clone();
    let mut ask = || {
        let mut catalog = catalog::databases(&mut client, &this.select)?;
        catalog::tables(&mut client, &this.name, &mut catalog, &retyped)?;
        Ok((catalog, catalog::sees_everything(&mut client)?))
    };
    let asked: std::result::Result<_, Fault> = ask();
    let (catalog, sees_everything) =
        asked.map_err(|fault| Error::from(fault).context("listing the tables"))?;
    client.quit();
    this.listed.store(now, Ordering::Relaxed);
    if let Some(missing) = catalog.missing.first() {
        return Err(Error::stop(format!(
            "there is no database `{missing}` that this user may see"
        ))
        .hint(format!("it sees {}", catalog.others.join(", "))));
    }
    let mut listing = Listing::default();
    let excluded =
        |what, why: &str| Excluded { source: this.name.clone(), what, why: why.to_owned() };
    let others = catalog.others.iter().map(|name| format!("database {name}"));
    listing.excluded.extend(others.map(|what| excluded(what, "not asked for")));
    warn_of_sight(this, sees_everything, &mut listing.warnings);
    warn_of_proof(this.pool.proof(), &mut listing.warnings);
    warn_of_engines(&catalog, &mut listing.warnings);
    for pattern in this.time_columns.keys() {
        if !catalog.tables.keys().any(|(database, table)| fits(pattern, database, table)) {
            listing.warnings.push(format!("`time_columns`: no table is named `{pattern}`"));
        }
    }
    for ((database, table), entry) in catalog.tables {
        let id = TableId { source: this.name.clone(), database, schema: String::new(), table };
        if !this.select.takes_table(&id.table) {
            listing.excluded.push(excluded(format!("table {id}"), "not asked for"));
        } else if entry.engine.is_none() && !entry.comment.is_empty() {
            listing.unreadable.push((id, entry.comment));
        } else if !entry.forbidden.is_empty() {
            let why = format!("the user has no right to read {}", entry.forbidden.join(", "));
            listing.unreadable.push((id, why));
        } else if entry.by_columns && !lease.work(cancel, |session| is_readable(session, &id))? {
            let why = "the user may read only some of its columns";
            listing.unreadable.push((id, why.to_owned()));
        } else {
            let table = lease.work(cancel, |session| {
                this.current(session, |session| {
                    list_one(this, session, &id, &entry, &mut listing.warnings)
                })
            });
            listing.tables.push(table.map_err(|error| error.context(format!("listing {id}")))?);
        }
    }
    Ok(listing)
}

fn is_readable(session: &mut Session, id: &TableId) -> std::result::Result<bool, Fault> {
    match session.client.query(&format!("SELECT * FROM {} LIMIT 0; {}", table_name(id), read::FREE))
    {
        Ok(_) => Ok(true),
        Err(Fault::Server(_)) => Ok(false),
        Err(broken) => Err(broken),
    }
}

fn list_one(
    this: &Inner,
    session: &mut Session,
    id: &TableId,
    entry: &Entry,
    warnings: &mut Vec<String>,
) -> std::result::Result<Table, Fault> {
    let mut table = Table {
        id: id.clone(),
        columns: entry.columns.clone(),
        occupied: Vec::new(),
        time_column: time_column(&this.time_columns, id, entry, warnings),
        cuts: Cuts::None,
        reading: Reading::Whole,
        state: None,
    };
    if entry.is_versioned {
        warnings.push(format!(
            "{id} keeps its history: rows of the past are exported like those of now"
        ));
        this.learned().versioned.insert(id.clone());
        /// ER_BAD_FIELD_ERROR: they have names of their own, and are listed.
        const NO_SUCH_COLUMN: u16 = 1054;
        let hidden = format!("SELECT ROW_START FROM {} LIMIT 0; {}", table_name(id), read::FREE);
        let own = |column: &crate::source::Column| column.key.eq_ignore_ascii_case("row_start");
        if !table.columns.iter().any(own) {
            match session.client.query(&hidden) {
                Ok(_) => table.columns.extend(catalog::history()),
                Err(fault) if fault.code() == Some(NO_SUCH_COLUMN) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    // What has no time may be anywhere in it.
    let mut bounds = Some(Window::ALL);
    if table.time_column.is_none() {
        table.occupied.push(Window::ALL);
    }
    if let Some(column) = &table.time_column {
        bounds = None;
        table.reading = match entry.nullable.contains(column) {
            true => Reading::WindowsAndNullTime,
            false => Reading::Windows,
        };
        if let Some(found) = find_bounds(session, id, column, entry.is_versioned)? {
            bounds = Some(found.bounds);
            table.occupied.push(found.occupied);
        }
    }
    table.state = Some(match &table.time_column {
        Some(name) => format!("in windows of `{}`", name.escape_debug()),
        None => "whole".to_owned(),
    });
    let mut learned = this.learned();
    learned.bounds.insert(id.clone(), bounds);
    learned.rows.insert(id.clone(), entry.rows);
    learned.created.insert(id.clone(), entry.created.clone());
    learned.keys.remove(id);
    if entry.rows >= MANY_ROWS
        && is_engine(entry, "InnoDB")
        && let Some(key) = entry.primary.as_ref().filter(|key| is_integer(entry, key))
    {
        learned.keys.insert(id.clone(), key.clone());
    }
    Ok(table)
}

fn is_engine(entry: &Entry, name: &str) -> bool {
    entry.engine.as_ref().is_some_and(|engine| engine.eq_ignore_ascii_case(name))
}

fn is_integer(entry: &Entry, name: &str) -> bool {
    let column = entry.columns.iter().find(|column| column.key == name);
    column.is_some_and(|column| column.data_type.is_integer())
}

/// Whether a pattern of the configuration means a table.
fn fits(pattern: &str, database: &str, table: &str) -> bool {
    matches(pattern, table) || matches(pattern, &format!("{database}.{table}"))
}

/// The column by which a table can be read in windows cheaply: the one that the configuration names, if an
/// index begins with it; else one that the rows are sorted by. By any other index InnoDB would have to look
/// for each row in another place.
fn time_column(
    configured: &BTreeMap<String, String>,
    id: &TableId,
    entry: &Entry,
    warnings: &mut Vec<String>,
) -> Option<String> {
    let is_time = |name: &String| {
        let column = entry.columns.iter().find(|column| column.key == *name);
        column.is_some_and(|column| Precision::of(&column.source_type).is_some())
    };
    let named = configured.iter().filter(|(pattern, _)| fits(pattern, &id.database, &id.table));
    // Of several the one that says most.
    if let Some((_, name)) = named.max_by_key(|(pattern, _)| pattern.replace('*', "").len()) {
        if name.is_empty() {
            return None; // whole, whatever index there is
        }
        if is_time(name) && entry.leading.contains(name) {
            return Some(name.clone());
        }
        warnings.push(format!(
            "{id} is read whole: it has no DATE, DATETIME or TIMESTAMP `{name}` that an index begins with"
        ));
        return None;
    }
    entry.primary.clone().filter(is_time)
}

struct Bounds {
    bounds: Window,
    /// Without what lies beyond 64 bits of nanoseconds.
    occupied: Window,
}

/// From the first to just after the last value; the ends of all time where values lie beyond.
fn find_bounds(
    session: &mut Session,
    id: &TableId,
    column: &str,
    is_versioned: bool,
) -> std::result::Result<Option<Bounds>, Fault> {
    /// Just within 64 bits of nanoseconds.
    const FIRST: &str = "TIMESTAMP'1678-01-01 00:00:00'";
    const LAST: &str = "TIMESTAMP'2262-01-01 00:00:00'";
    let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    let (column, name) = (quoted(column), format!("{}{history}", table_name(id)));
    let mut ask = |sql: String| session.client.query(&format!("{sql}; {}", read::FREE));
    let rows = ask(format!("SELECT MIN({column}), MAX({column}) FROM {name}"))?;
    let Some([Some(min), Some(max)]) = rows.first().map(Vec::as_slice) else { return Ok(None) };
    let instant = |text: &str| {
        let nanos = DateTime::parse(text)?.nanos()?;
        i64::try_from(nanos).ok().filter(|nanos| *nanos < i64::MAX)
    };
    let (mut first, mut last) = (instant(min), instant(max));
    let bounds =
        Window { from: first.unwrap_or(i64::MIN), to: last.map_or(i64::MAX, |last| last + 1) };
    for (end, of, within) in
        [(&mut first, "MIN", format!(">= {FIRST}")), (&mut last, "MAX", format!("< {LAST}"))]
    {
        if end.is_none() {
            let rows = ask(format!("SELECT {of}({column}) FROM {name} WHERE {column} {within}"))?;
            *end = rows.first().and_then(|row| instant(row.first()?.as_deref()?));
        }
    }
    // Where there is nothing within, any instant will do.
    let occupied = first.zip(last).and_then(|(first, last)| Window::new(first, last + 1));
    Ok(Some(Bounds { bounds, occupied: occupied.unwrap_or(Window { from: 0, to: 1 }) }))
}

fn warn_of_sight(this: &Inner, sees_everything: bool, warnings: &mut Vec<String>) {
    if sees_everything {
        return;
    }
    let user = this.pool.address.user();
    let root = match user {
        "aptible" => " (on Aptible `root` has the same password, and sees them)",
        _ => "",
    };
    warnings.push(format!(
        "`{user}` has no SELECT on *.*: databases and tables that it may not see are not exported, and nothing \
         shows that they are there{root}"
    ));
}

fn warn_of_proof(proof: Option<Proof>, warnings: &mut Vec<String>) {
    let why = match proof {
        None | Some(Proof::One) => return,
        Some(Proof::Written) => "the server is being written to: stop the writers for a moment",
        Some(Proof::Servers) => "the address leads to several servers",
        Some(Proof::None) => {
            "the server does not show where its log is: grant the user REPLICATION CLIENT (BINLOG MONITOR)"
        }
    };
    warnings.push(format!(
        "each table is of one moment, but not all are of the same ({why}); catalog/chunks.parquet says which are"
    ));
}

fn warn_of_engines(catalog: &Catalog, warnings: &mut Vec<String>) {
    let loose = catalog.tables.iter().filter_map(|((database, table), entry)| {
        let engine = entry.engine.as_ref()?;
        let safe = TRANSACTIONAL.iter().any(|safe| is_engine(entry, safe));
        (!safe).then(|| format!("{database}.{table} ({engine})"))
    });
    let loose: Vec<String> = loose.collect();
    if !loose.is_empty() {
        warnings.push(format!(
            "not covered by the snapshot, but read as they are at that time: {}",
            loose.join(", ")
        ));
    }
}
