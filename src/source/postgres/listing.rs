//! Turns the catalog into tables to export: how each can be read, where its rows lie in time, and what to warn of. Blocks.

use crate::error::{Class, Result};
use crate::model::{
    Division, Identity, LEFT_OUT, Listing, NOT_REQUESTED, ReadMode, Table, TableId,
};
use crate::source::names::Names;
use crate::source::postgres::catalog::{Attribute, Indexed, Relation};
use crate::source::postgres::connection::Connection;
use crate::source::postgres::errors::LOCKED;
use crate::source::postgres::read::{RANGE_BYTES, bounds_of};
use crate::source::postgres::server::{Inner, Readable};
use crate::source::postgres::snapshot::{RELEASE, Session};
use crate::source::postgres::types::{Cast, Types};
use crate::source::postgres::{catalog, dump, identity, sql};
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::time_column;
use crate::source::relational::time_column::{Candidate, choose};
use crate::source::relational::times::RESOLUTION_NANOS;
use crate::window::Window;

/// An index serves windows cheaply if the table is roughly sorted by it: if their correlation is at least this.
const CORRELATED: f64 = 0.5;

/// Since this version, the server can read a range of blocks without reading the others.
const BLOCK_RANGES: u32 = 140_000;
impl Inner {
    pub(super) fn list(&self, cancel: &CancelToken) -> Result<Listing> {
        let mut listing = Listing::default();
        for database in self.databases(&mut listing)? {
            let pool = self.pool(&database);
            let session = match pool.take() {
                Ok(session) => session,
                // The user may not use this database.
                Err(error)
                    if error.class() == Class::Fail
                        || error.class() == Class::Stop && self.select.databases.is_empty() =>
                {
                    listing.unreadable.push((self.id(&database, "*", "*"), error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let list = |session: &mut Session| self.list_database(&database, session, &mut listing);
            pool.work(session, cancel, list)
                .map_err(|error| error.context(format!("listing the tables of {database}")))?;
        }
        let listed = listing.tables.iter().map(|table| &table.id);
        let tables = listed.chain(listing.unreadable.iter().map(|(id, _)| id));
        let unused = time_column::unused(&self.server.time_columns, tables);
        listing.warnings.extend(unused);
        if self.server.dump {
            dump::list(self, &mut listing)?;
        }
        Ok(listing)
    }

    fn list_database(
        &self,
        database: &str,
        session: &mut Session,
        listing: &mut Listing,
    ) -> Result<()> {
        let connection = &mut session.connection;
        let types = catalog::types(connection)?;
        let (version, block_bytes) = catalog::version(connection)?;
        let ranges = (version >= BLOCK_RANGES).then(|| (RANGE_BYTES / block_bytes.max(1)).max(1));
        let mut relations = catalog::relations(connection)?;
        relations.extend(catalog::large_objects(connection)?);
        for relation in relations {
            let id = self.id(database, &relation.schema, &relation.name);
            if !self.select.takes_schema(&id.schema) || !self.select.takes_table(&id.table) {
                listing.excluded.push(self.excluded(format!("table {id}"), NOT_REQUESTED));
                continue;
            }
            if self.select.excludes(&id.database, &id.schema, &id.table) {
                // This is checked before anything of the table is read, which may not be possible.
                listing.excluded.push(self.excluded(format!("table {id}"), LEFT_OUT));
                continue;
            }
            let unreadable = match &relation {
                Relation { kind: 'f', .. } => {
                    Some("it is a foreign table, whose rows are on another server")
                }
                Relation { may_read: false, .. } => Some("the user has no right to read it"),
                _ => None,
            };
            if let Some(why) = unreadable {
                listing.unreadable.push((id, why.to_owned()));
                continue;
            }
            if !relation.is_populated {
                let why = "it is a materialized view without data";
                listing.excluded.push(self.excluded(format!("table {id}"), why));
                continue;
            }
            if relation.columns.is_empty() {
                listing.excluded.push(self.excluded(format!("table {id}"), "it has no columns"));
                continue;
            }
            let warnings = &mut listing.warnings;
            match self.table(id.clone(), &relation, &types, ranges, connection, warnings) {
                Ok(table) => listing.tables.push(table),
                // One table must not prevent all others from being listed.
                Err(error) if error.class() == Class::Fail || connection.was_refused_by(LOCKED) => {
                    connection.query(RELEASE)?;
                    let hint =
                        error.hint_text().map(|hint| format!(": {hint}")).unwrap_or_default();
                    listing.unreadable.push((id, format!("{error}{hint}")));
                }
                Err(error) => return Err(error.context(id)),
            }
        }
        Ok(())
    }

    fn table(
        &self,
        id: TableId,
        relation: &Relation,
        types: &Types,
        ranges: Option<u64>,
        connection: &mut Connection,
        warnings: &mut Vec<String>,
    ) -> Result<Table> {
        let (mut names, mut columns) = (Names::default(), Vec::new());
        let (mut asked, mut kinds, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for attribute in &relation.columns {
            let type_override = self.type_overrides.of(&id, &attribute.name);
            let (kind, cast) = types.resolve(attribute.type_oid, attribute.modifier, type_override);
            asked.push(sql::column(&attribute.name, cast));
            columns.push(relation.column(attribute, &kind, &mut names));
            kinds.push(kind);
            texts.push(types.text(attribute.type_oid));
        }
        let from = sql::only(&relation.schema, &relation.name);
        let time = self.time_column(&id, relation, types, warnings)?;
        let (read_mode, bounds, data_ranges) = match &time {
            None => (ReadMode::Whole, Some(Window::ALL), vec![Window::ALL]),
            Some((time, may_be_null)) => {
                let times = bounds_of(connection, &from, time);
                let times =
                    times.map_err(|error| error.context("asking for the bounds of its times"))?;
                (times.read_mode(*may_be_null), times.bounds(), times.data_ranges())
            }
        };
        let time = time.map(|(time, _)| time);
        let object = identity::listed(relation);
        let readable = Readable {
            listed: columns.clone(),
            oid: relation.oid,
            from,
            columns: asked,
            kinds,
            texts,
            bounds,
            size: relation.size(),
            object: object.clone(),
            blocks: ranges.filter(|_| time.is_none()).map(|step| (relation.blocks, step)),
            time,
        };
        let time_column = readable.time.as_ref().map(|time| time.name.clone());
        let division = Some(Division::by(time_column.as_deref()));
        self.tables.insert(id.clone(), readable);
        Ok(Table {
            data_ranges,
            time_column,
            resolution_nanos: RESOLUTION_NANOS,
            read_mode,
            identity: Identity { division, object: Some(object) },
            ..Table::new(id, columns)
        })
    }

    /// The column that windows are made of, and whether it may be null.
    fn time_column(
        &self,
        id: &TableId,
        relation: &Relation,
        types: &Types,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(sql::Time, bool)>> {
        let kind_of = |attribute: &Attribute| {
            let (kind, cast) = types.resolve(attribute.type_oid, attribute.modifier, None);
            Some(kind).filter(|kind| cast == Cast::None && kind.is_time())
        };
        let times = relation.columns.iter().filter_map(|found| Some((found, kind_of(found)?)));
        let times: Vec<_> = times.collect();
        let candidates = times.iter().map(|(attribute, _)| {
            let mut indexed =
                relation.indexed.iter().filter(|indexed| indexed.column == attribute.number);
            let correlates = |indexed: &Indexed| {
                indexed.correlation.is_none_or(|correlation| correlation.abs() >= CORRELATED)
            };
            Candidate {
                name: attribute.name.clone(),
                is_indexed: indexed.clone().next().is_some(),
                by_default: indexed.any(correlates),
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let chosen = choose(&self.server.time_columns, id, &candidates, warnings)?;
        let found = chosen.and_then(|name| times.into_iter().find(|(time, _)| time.name == name));
        Ok(found.map(|(attribute, kind)| {
            (sql::Time { name: attribute.name.clone(), kind }, !attribute.not_null)
        }))
    }
}
