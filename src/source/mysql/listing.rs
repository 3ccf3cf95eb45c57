//! Turns the catalog into tables to export: how each can be read, where its rows lie in time, and what to warn of.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::model::{
    Column, Division, Excluded, Identity, Listing, NOT_REQUESTED, Object, ReadMode, Size, Table,
    TableId,
};
use crate::source::mysql::catalog;
use crate::source::mysql::catalog::{Catalog, Entry};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::identity;
use crate::source::mysql::identity::Marks;
use crate::source::mysql::ranges::MANY_ROWS;
use crate::source::mysql::read;
use crate::source::mysql::rights;
use crate::source::mysql::rights::Sight;
use crate::source::mysql::select::{quoted, table_name};
use crate::source::mysql::server::{Inner, Readable};
use crate::source::mysql::session::{Lease, Session};
use crate::source::mysql::snapshot::Proof;
use crate::source::mysql::time::{DateTime, Precision};
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::time_column::{self, Candidate, choose};
use crate::source::relational::times::{RESOLUTION_NANOS, Times};
use crate::text::escaped;
use crate::window::{SECOND, Window};

/// The engines whose tables a snapshot covers.
const TRANSACTIONAL: [&str; 3] = ["InnoDB", "RocksDB", "TokuDB"];

pub(super) fn list(this: &Inner, lease: &mut Lease, cancel: &CancelToken) -> Result<Listing> {
    let before = marks_before(this, cancel)?;
    // The snapshots come before the catalog: a table that is created in between is then listed as empty, and not missed.
    lease.work(cancel, |_| Ok(()))?;
    let (catalog, marks, sight) = this
        .pool
        .outside(cancel, |client| {
            let mut catalog = catalog::databases(client, &this.select)?;
            catalog::tables(client, &this.name, &mut catalog, &this.type_overrides)?;
            let marks = Marks::of_catalog(client, &catalog.tables)?;
            let sight = rights::sight(client)?;
            if !sight.everything {
                rights::probe(client, &mut catalog)?;
            }
            Ok((catalog, marks, sight))
        })
        .map_err(|error| error.context("listing the tables"))?;
    this.numbered.store(marks.are_numbered(), Ordering::Relaxed);
    let mut listing = Listing::default();
    let excluded =
        |what, why: &str| Excluded { source: this.name.clone(), what, why: why.to_owned() };
    let others = catalog.others.iter();
    listing.excluded.extend(others.map(|(name, why)| excluded(format!("database {name}"), why)));
    warn_of_sight(this, &sight, &mut listing.warnings);
    warn_of_proof(this.pool.proof(), &mut listing.warnings);
    warn_of_engines(&catalog, &mut listing.warnings);
    let names = catalog.tables.keys().map(|(database, table)| TableId {
        source: this.name.clone(),
        database: database.clone(),
        schema: String::new(),
        table: table.clone(),
    });
    let names: Vec<TableId> = names.collect();
    listing.warnings.extend(time_column::unused(&this.time_columns, names.iter()));
    for ((database, table), entry) in catalog.tables {
        let id = TableId { source: this.name.clone(), database, schema: String::new(), table };
        if !this.select.takes_table(&id.table) {
            listing.excluded.push(excluded(format!("table {id}"), NOT_REQUESTED));
        } else if entry.engine.is_none() && !entry.comment.is_empty() {
            listing.unreadable.push((id, escaped(&entry.comment).to_string()));
        } else if !entry.forbidden.is_empty() {
            let columns = entry.forbidden.join(", ");
            let why = format!("the user has no right to read {}", escaped(&columns));
            listing.unreadable.push((id, why));
        } else if let Some(why) = entry.refused {
            listing.unreadable.push((id, why));
        } else {
            let warnings = &mut listing.warnings;
            let time = match time_column(&this.time_columns, &id, &entry, warnings) {
                Ok(time) => time,
                Err(error) => {
                    listing.unreadable.push((id, error.to_string()));
                    continue;
                }
            };
            let name = (id.database.clone(), id.table.clone());
            let object = identity::object(marks.of(&name).unwrap_or_default(), &entry.columns);
            let same = before.as_ref().map(|(marks, at)| (marks.of(&name), *at));
            let same = same.filter(|(mark, _)| mark.as_ref() == Some(&object.id)).map(|(_, at)| at);
            let since = this.since(&id, &object, same);
            let listed = lease.work(cancel, |session| {
                this.renew_before(session, since)?;
                this.current(session, |session| {
                    let object = (object.clone(), since);
                    list_one(session, &id, &entry, time.clone(), object, warnings)
                })
            });
            let listed = listed.map_err(|error| error.context(format!("listing {id}")));
            let (table, readable) = listed?;
            this.tables.insert(id, readable);
            listing.tables.push(table);
        }
    }
    Ok(listing)
}

/// The marks of the tables before the first snapshots are taken, and the instant at which they were read: a table that
/// still has its mark afterwards is the one that the snapshots see.
fn marks_before(this: &Inner, cancel: &CancelToken) -> Result<Option<(Marks, u64)>> {
    if !this.tables.is_empty() {
        return Ok(None);
    }
    let ask = |client: &mut Client| {
        let databases = catalog::databases(client, &this.select)?.databases;
        Marks::of_all(client, &databases)
    };
    let marks = this.pool.outside(cancel, ask);
    Ok(Some((marks.map_err(|error| error.context("listing the tables"))?, this.pool.tick())))
}

fn list_one(
    session: &mut Session,
    id: &TableId,
    entry: &Entry,
    time_column: Option<String>,
    (object, since): (Object, u64),
    warnings: &mut Vec<String>,
) -> Result<(Table, Readable), CommandError> {
    let division = Some(Division::by(time_column.as_deref()));
    let mut table = Table {
        time_column,
        resolution_nanos: RESOLUTION_NANOS,
        read_mode: ReadMode::Whole,
        identity: Identity { division, object: Some(object.clone()) },
        ..Table::new(id.clone(), entry.columns.clone())
    };
    if entry.is_versioned {
        warnings.push(format!(
            "{id} keeps its history: the old versions of its rows are exported like the current ones"
        ));
        /// ER_BAD_FIELD_ERROR: the columns of the history have other names, so that the catalog shows them.
        const NO_SUCH_COLUMN: u16 = 1054;
        let hidden = format!("SELECT ROW_START FROM {} LIMIT 0; {}", table_name(id), read::FREE);
        let own = |column: &crate::model::Column| column.key.eq_ignore_ascii_case("row_start");
        if !table.columns.iter().any(own) {
            match session.client.query(&hidden) {
                Ok(_) => table.columns.extend(catalog::history()),
                Err(fault) if fault.code() == Some(NO_SUCH_COLUMN) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    let mut bounds = Some(Window::ALL);
    let time = table.columns.iter().find(|column| Some(&column.key) == table.time_column.as_ref());
    let time = time.and_then(|column| Some((column, Precision::of(&column.source_type)?)));
    match time {
        None => table.data_ranges.push(Window::ALL),
        Some((column, precision)) => {
            let (column, may_be_null) = (&*column.key, column.nullable == Some(true));
            let times = find_times(session, id, (column, precision), entry.is_versioned)?;
            table.read_mode = times.read_mode(may_be_null);
            table.data_ranges = times.data_ranges();
            bounds = times.bounds();
        }
    }
    let has_ranges = entry.rows >= MANY_ROWS && is_engine(entry, "InnoDB");
    let key = entry.primary.first().filter(|key| has_ranges && is_integer(entry, key)).cloned();
    let size = Size { rows: Some(entry.rows), bytes: entry.bytes };
    let is_versioned = entry.is_versioned;
    Ok((table, Readable { bounds, size, is_versioned, key, object, since }))
}

fn is_engine(entry: &Entry, name: &str) -> bool {
    entry.engine.as_ref().is_some_and(|engine| engine.eq_ignore_ascii_case(name))
}

fn is_integer(entry: &Entry, name: &str) -> bool {
    let column = entry.columns.iter().find(|column| column.key == name);
    column.is_some_and(|column| column.data_type.is_integer())
}

/// The column by which a table can be read in windows: by default only one that the rows are sorted by, since with any
/// other index InnoDB would have to fetch each row from a different page.
fn time_column(
    configured: &BTreeMap<String, String>,
    id: &TableId,
    entry: &Entry,
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    let is_time = |column: &&Column| Precision::of(&column.source_type).is_some();
    let candidate = |column: &Column| Candidate {
        name: column.key.clone(),
        is_indexed: entry.leading.contains(&column.key),
        by_default: entry.is_sorted_by(&column.key),
    };
    let candidates: Vec<_> = entry.columns.iter().filter(is_time).map(candidate).collect();
    choose(configured, id, &candidates, warnings)
}

/// Where the times of a table lie. An invalid date counts as earlier than all others, since the server sorts it there.
fn find_times(
    session: &mut Session,
    id: &TableId,
    (column, precision): (&str, Precision),
    is_versioned: bool,
) -> Result<Times, CommandError> {
    /// The beginnings of the years 1678 and 2262, which 64 bits of nanoseconds just hold.
    const FIRST: i64 = -9_214_560_000 * SECOND;
    const LAST: i64 = 9_214_646_400 * SECOND;
    let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    let (column, name) = (quoted(column), format!("{}{history}", table_name(id)));
    let mut ask = |sql: String| session.client.query(&format!("{sql}; {}", read::FREE));
    let rows = ask(format!("SELECT MIN({column}), MAX({column}) FROM {name}"))?;
    let Some([Some(min), Some(max)]) = rows.first().map(Vec::as_slice) else {
        return Ok(Times::default());
    };
    let instant = |text: &str| {
        let nanos = DateTime::parse(text)?.nanos()?;
        i64::try_from(nanos).ok().filter(|nanos| *nanos < i64::MAX).map(i128::from)
    };
    let (first, last) = (instant(min), instant(max));
    let (before, after) = (first.is_none(), last.is_none());
    // Times that nanoseconds cannot hold are left out of the bounds. Where a bound cannot be parsed, the rows may lie
    // anywhere.
    let within = format!(
        "{column} >= {} AND {column} < {}",
        precision.literal(FIRST),
        precision.literal(LAST)
    );
    let mut find = |what: &str| -> Result<Option<i128>, CommandError> {
        let rows = ask(format!("SELECT {what} FROM {name} WHERE {within}"))?;
        Ok(rows.first().and_then(|row| instant(row.first()?.as_deref()?)))
    };
    let first = match first {
        None => find(&format!("MIN({column})"))?.unwrap_or(i128::from(i64::MIN)),
        Some(first) => first,
    };
    let last = match last {
        None => find(&format!("MAX({column})"))?.unwrap_or(i128::from(i64::MAX)),
        Some(last) => last,
    };
    Ok(Times { ends: Some((first, last)), before, after })
}

fn warn_of_sight(this: &Inner, sight: &Sight, warnings: &mut Vec<String>) {
    if sight.everything {
        return;
    }
    let user = this.pool.address.user();
    let root = match user {
        "aptible" => " (on Aptible, `root` has the same password and sees them)",
        _ => "",
    };
    let why = match sight.revoked.as_slice() {
        [] => "has no SELECT on *.*".to_owned(),
        revoked => {
            let revoked = revoked.join("; ");
            format!("has lost rights that it had on everything ({})", escaped(&revoked))
        }
    };
    warnings.push(format!(
        "`{user}` {why}: databases and tables that it may not see are not exported, and nothing shows that \
             they exist{root}"
    ));
}

fn warn_of_proof(proof: Option<Proof>, warnings: &mut Vec<String>) {
    let why = match proof {
        None | Some(Proof::One) => return,
        Some(Proof::Written) => {
            "the server is being written to: stop the writers for a moment, or let \
                                 `lock = true` in the configuration keep them out for one"
        }
        Some(Proof::Servers) => "the address leads to several servers",
        Some(Proof::Unseen) => "the user may not see what would prove it: grant it PROCESS",
    };
    warnings.push(format!(
        "it is not proven that all tables were read as of one moment ({why}): each chunk was, and `snapshot` in \
             catalog/chunks.parquet names it"
    ));
}

fn warn_of_engines(catalog: &Catalog, warnings: &mut Vec<String>) {
    let loose = catalog.tables.iter().filter_map(|((database, table), entry)| {
        let engine = entry.engine.as_ref()?;
        let safe = TRANSACTIONAL.iter().any(|safe| is_engine(entry, safe));
        (!safe).then(|| escaped(&format!("{database}.{table} ({engine})")).to_string())
    });
    let loose: Vec<String> = loose.collect();
    if !loose.is_empty() {
        warnings.push(format!(
            "the snapshot does not cover these tables, which are exported as they are when they are read: {}",
            loose.join(", ")
        ));
    }
}
