//! InfluxDB over `/query`: OSS and Enterprise 1.x, and 2.x and Cloud TSM by their InfluxQL endpoint.
//! Lists databases, retention policies and measurements; reads windows as chunked MessagePack.

pub(super) mod answer;
mod artifacts;
pub(super) mod json;
mod msgpack;
pub(super) mod statements;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::config::Select;
use crate::coverage::Coverage;
use crate::error::{Class, Error, Result};
use crate::model::{
    Artifacts, Chunk, Column, Excluded, Identity, Listing, ReadMode, ReadSummary, Role, RowCount,
    SourceInfo, SplitPoints, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::source::influxdb::databases;
use crate::source::influxdb::errors::{is_of_server, server_error};
use crate::source::influxdb::http::{Format, Server};
use crate::source::influxdb::metadata::{Series, Statement};
use crate::source::influxdb::points::{FieldType, Keys};
use crate::window::{DAY, SECOND, Slice, Window, parse_time};
use answer::{BodyReader, RowWriter};

/// Tables whose bounds are asked for in one request.
const TABLES_A_REQUEST: usize = 50;
/// Up to so many values, rows outside of the requested range are read to be counted exactly.
const READ_TO_COUNT: u64 = 200_000;

/// What stands in a list in place of bytes that are not UTF-8.
const NOT_UTF8: char = '\u{FFFD}';
/// What is left to do for a table that no query reads.
const WAY_OUT: &str = "write it to a file by `influx_inspect export` at the server and read that by lp:FILE, or \
                       leave it out by `exclude`";

/// Pieces of a body between the socket and the decoder at most.
const BODY_PARTS: usize = 2;

/// An InfluxDB that speaks InfluxQL.
#[derive(Debug)]
pub struct InfluxQl {
    name: String,
    server: Server,
    select: Select,
    /// Tables with a field of several types whose windows may lie in several shards at once.
    unsure: Mutex<HashSet<TableId>>,
}

/// The retention policies of a database: name and width of a shard in nanoseconds.
type Policies = Vec<(String, Option<i64>)>;

/// Where the shards of each (database, retention policy) begin and end.
type Shards = HashMap<(String, String), Vec<Window>>;

impl InfluxQl {
    /// A server. Nothing is asked yet.
    pub(super) fn new(name: String, server: Server, select: Select) -> Self {
        Self { name, server, select, unsure: Mutex::default() }
    }

    async fn databases(&self, excluded: &mut Vec<Excluded>) -> Result<Vec<String>> {
        let answer = self.server.query("SHOW DATABASES").await;
        let listed = answer.map(|answer| {
            texts(&answer, "name")
                .map(|name| {
                    let is_system = name == databases::INTERNAL;
                    (name, is_system)
                })
                .collect()
        });
        let place = (self.name.as_str(), self.server.address());
        databases::choose((place.0, &place.1), &self.select, listed, excluded)
    }

    fn excluded(&self, what: String, why: &str) -> Excluded {
        Excluded { source: self.name.clone(), what, why: why.to_owned() }
    }

    async fn policies(&self, database: &str) -> Result<Policies> {
        let statement = format!("SHOW RETENTION POLICIES ON {}", statements::quoted(database));
        let answer = self.server.query(&statement).await;
        let answer = answer
            .map_err(|e| e.context(format!("listing the retention policies of {database}")))?;
        let mut policies = Policies::new();
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let names = series.column("name").filter_map(Value::as_str);
            let widths: Vec<_> =
                series.column("shardGroupDuration").map(|v| go_duration(v.as_str()?)).collect();
            for (at, name) in names.enumerate() {
                policies.push((name.to_owned(), widths.get(at).copied().flatten()));
            }
        }
        Ok(policies)
    }

    /// Where shards lie; `None` where only an admin may ask, or where there is no such statement.
    async fn shards(&self) -> Result<Option<Shards>> {
        let answer = match self.server.query("SHOW SHARDS").await {
            Ok(answer) => answer,
            Err(error) if matches!(error.class(), Class::Stop | Class::Fail) => {
                tracing::debug!("SHOW SHARDS: {error}");
                return Ok(None);
            }
            Err(error) if error.class() == Class::RetryThenSplit && is_of_server(&error) => {
                return Ok(None);
            }
            Err(error) => return Err(error.context("listing the shards")),
        };
        let mut shards = Shards::new();
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let text = |column| series.column(column).map(|v| v.as_str().unwrap_or_default());
            let places = text("database").zip(text("retention_policy"));
            let times = text("start_time").zip(text("end_time"));
            for ((database, policy), (start, end)) in places.zip(times) {
                let window = shard_window(start, end);
                let place = (database.to_owned(), policy.to_owned());
                shards.entry(place).or_default().extend(window);
            }
        }
        Ok(Some(shards))
    }

    /// Whether the server heeds the parameter `rp`: one that does has no policy of this name.
    async fn heeds_policy(&self, database: &str) -> Result<bool> {
        let statement = format!("SHOW FIELD KEYS ON {}", statements::quoted(database));
        match self.server.query_in(&statement, database, "moveout asks for no such policy").await {
            Ok(_) => Ok(false),
            Err(error) if error.to_string().contains("not found") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The tables of one retention policy. `SHOW FIELD KEYS` covers the default policy only, unless
    /// the others are named; what has no field there has no point there.
    async fn tables(
        &self,
        database: &str,
        (policy, shard_width): &(String, Option<i64>),
        shards: Option<&Shards>,
        listing: &mut Listing,
    ) -> Result<()> {
        let on = statements::quoted(database);
        let answer =
            self.server.query_in(&format!("SHOW TAG KEYS ON {on}"), database, policy).await;
        let doing = |error: Error| {
            error.context(format!("listing the measurements of {database}.{policy}"))
        };
        let tag_keys = answer.map_err(doing)?;
        // The parameter `rp` makes one scan of it; `FROM "rp"./.*/` makes one for each measurement
        // of the database, which takes hours for ten thousand of them.
        let statement = match self.heeds_policy(database).await.map_err(doing)? {
            true => format!("SHOW FIELD KEYS ON {on}"),
            false => format!("SHOW FIELD KEYS ON {on} FROM {}./.*/", statements::quoted(policy)),
        };
        let answer = self.server.query_in(&statement, database, policy).await.map_err(doing)?;
        let mut keys = Keys::default();
        let mut with_fields = HashSet::new();
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let pairs = series.column("fieldKey").zip(series.column("fieldType"));
            for (key, word) in pairs {
                let word = word.as_str().unwrap_or_default();
                let key = key.as_str().unwrap_or_default().to_owned();
                keys.field(&series.name, key, FieldType::parse(word), word);
                with_fields.insert(series.name.as_str());
            }
        }
        let tags = tag_keys.iter().flat_map(|statement| &statement.series);
        for series in tags.filter(|series| with_fields.contains(series.name.as_str())) {
            for key in series.column("tagKey").filter_map(Value::as_str) {
                keys.tag(&series.name, key.to_owned());
            }
        }
        let shards = shards.map(|shards| {
            shards.get(&(database.to_owned(), policy.clone())).cloned().unwrap_or_default()
        });
        let data_ranges = match &shards {
            // The end of a shard is shown in whole seconds, cut.
            Some(shards) => {
                let padded =
                    shards.iter().map(|w| Window { to: w.to.saturating_add(SECOND), ..*w });
                padded.collect::<Coverage>().windows().to_vec()
            }
            None => vec![Window::ALL],
        };
        for (name, columns) in keys.into_tables() {
            let id = TableId {
                source: self.name.clone(),
                database: database.to_owned(),
                schema: policy.clone(),
                table: name,
            };
            if !self.select.takes_table(&id.table) {
                listing.excluded.push(self.excluded(format!("table {id}"), "not asked for"));
                continue;
            }
            let columns = match columns {
                Ok(columns) => columns,
                Err(why) => {
                    listing.unreadable.push((id, why));
                    continue;
                }
            };
            let cuts = match (several_types(&columns), &shards) {
                (false, _) => SplitPoints::None,
                (true, Some(shards)) => {
                    let ends: BTreeSet<i64> = shards.iter().flat_map(|w| [w.from, w.to]).collect();
                    SplitPoints::At(ends.into_iter().collect())
                }
                (true, None) => SplitPoints::Every(shard_width.unwrap_or(DAY)),
            };
            let table = Table {
                id,
                columns,
                data_ranges: data_ranges.clone(),
                split_points: cuts,
                time_column: None,
                read_mode: ReadMode::Windows,
                identity: Identity::default(),
            };
            match self.obstacle(&table).await? {
                Some(why) => listing.unreadable.push((table.id, why)),
                None => listing.tables.push(table),
            }
        }
        Ok(())
    }

    /// Why a table cannot be read that is listed, or could not be without losing something.
    async fn obstacle(&self, table: &Table) -> Result<Option<String>> {
        let is_doubtful = |name: &str| !statements::is_quotable(name) || name.contains(NOT_UTF8);
        let named = |column: &&Column| column.role == Role::Field && is_doubtful(&column.key);
        // Only where a field has several types are fields asked for by their names.
        if !matches!(table.split_points, SplitPoints::None)
            && let Some(field) = table.columns.iter().find(named)
        {
            let field = field.key.escape_debug();
            return Ok(Some(format!("no query can name its field `{field}`; {WAY_OUT}")));
        }
        if statements::is_plain(&table.id.table) && !is_doubtful(&table.id.table) {
            return Ok(None);
        }
        match self.server.query(&statements::any_row(&table.id)).await {
            Ok(answer) if answer.iter().any(|statement| !statement.series.is_empty()) => Ok(None),
            Ok(_) => Ok(Some(format!("it is listed, and no query finds a row of it; {WAY_OUT}"))),
            Err(error) if error.class() == Class::Stop => Err(error),
            Err(error) => Ok(Some(format!("{error}; {WAY_OUT}"))),
        }
    }

    /// Measurements of which the server lists series and no field: it keeps the two under names that differ
    /// where a backslash stands before a comma or a space, and no query finds their rows.
    async fn hidden(
        &self,
        database: &str,
        policies: &[String],
        listing: &mut Listing,
    ) -> Result<()> {
        let statement = format!("SHOW MEASUREMENTS ON {}", statements::quoted(database));
        let answer = match self.server.query_in(&statement, database, "").await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!("{statement}: {error}");
                return Ok(());
            }
        };
        let known: HashSet<&str> = listing
            .ids()
            .filter(|id| id.database == database)
            .map(|id| id.table.as_str())
            .collect();
        let hidden: Vec<String> =
            texts(&answer, "name").filter(|name| !known.contains(name.as_str())).collect();
        for table in hidden.into_iter().filter(|name| self.select.takes_table(name)) {
            for policy in policies {
                let id = TableId {
                    source: self.name.clone(),
                    database: database.to_owned(),
                    schema: policy.clone(),
                    table: table.clone(),
                };
                match self.server.query(&statements::any_series(&id)).await {
                    Ok(answer) if texts(&answer, "key").next().is_some() => {
                        let why = "the server lists series of it and no field, so that no query finds a row";
                        listing.unreadable.push((id, format!("{why}; {WAY_OUT}")));
                    }
                    Ok(_) => {}
                    Err(error) if error.class() == Class::Stop => return Err(error),
                    Err(error) => tracing::debug!("{id}: {error}"),
                }
            }
        }
        Ok(())
    }

    fn is_unsure(&self, id: &TableId) -> bool {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    async fn count_between_cuts(&self, table: &Table, window: Window) -> Result<RowCount> {
        let answer = self.server.query(&statements::count(table, window)).await?;
        let (mut at_least, mut at_most) = (0, 0);
        for series in answer.iter().flat_map(|statement| &statement.series) {
            let counts = |row: &Vec<Value>| -> Vec<u64> {
                row.iter().skip(1).filter_map(Value::as_u64).collect()
            };
            for counts in series.values.iter().map(counts) {
                at_least += counts.iter().copied().max().unwrap_or(0);
                at_most += counts.iter().sum::<u64>();
            }
        }
        // Fields of one point share a row, so values alone do not tell rows; few of them can be read.
        if at_least == at_most || at_most > READ_TO_COUNT {
            return Ok(RowCount { rows: at_least, exact: at_least == at_most });
        }
        let (sender, mut batches) = BatchSender::channel(1);
        let chunk = Chunk { table: Arc::new(table.clone()), slice: Slice::from(window) };
        let counted = async {
            let mut rows = 0;
            while let Some(batch) = batches.recv().await {
                rows += batch.num_rows() as u64;
            }
            rows
        };
        let (read, rows) = tokio::join!(self.read(&chunk, sender), counted);
        Ok(match read {
            Ok(_) => RowCount { rows, exact: true },
            Err(_) => RowCount { rows: at_least, exact: false },
        })
    }

    async fn bounds_of(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        self.ends(tables.iter().map(statements::bounds).collect()).await
    }

    /// From the first to the last row of pairs of statements.
    async fn ends(&self, pairs: Vec<String>) -> Result<Vec<Option<Window>>> {
        let answer = self.server.query_all(&pairs.join(";"), 2 * pairs.len()).await?;
        let time = |at: usize| {
            let series = answer.get(at).map(|s| s.series.as_slice()).unwrap_or_default();
            series.iter().flat_map(|s| s.column("time")).find_map(Value::as_i64)
        };
        let bounds = (0..pairs.len()).map(|at| {
            let (first, last) = (time(2 * at)?, time(2 * at + 1)?);
            Window::new(first, last.saturating_add(1))
        });
        Ok(bounds.collect())
    }
}

#[async_trait]
impl Source for InfluxQl {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let ping = self.server.ping().await?;
        Ok(SourceInfo {
            name: self.name.clone(),
            address: self.server.address(),
            version: format!("InfluxDB {} {}", ping.version, ping.build).trim_end().to_owned(),
            identity: None,
        })
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        self.server.clock_ahead().await
    }

    async fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let databases = self.databases(&mut listing.excluded).await?;
        let shards = self.shards().await?;
        let mut unsure = HashSet::new();
        for database in databases {
            let mut taken = Vec::new();
            for policy in self.policies(&database).await? {
                match self.select.takes_schema(&policy.0) {
                    true => {
                        self.tables(&database, &policy, shards.as_ref(), &mut listing).await?;
                        taken.push(policy.0);
                    }
                    false => {
                        let what = format!("retention policy {database}.{}", policy.0);
                        listing.excluded.push(self.excluded(what, "not asked for"));
                    }
                }
            }
            self.hidden(&database, &taken, &mut listing).await?;
        }
        for table in
            listing.tables.iter().filter(|table| !matches!(table.split_points, SplitPoints::None))
        {
            let place = (table.id.database.clone(), table.id.schema.clone());
            // Shards of one policy overlap after its shard duration was altered.
            let why = match &shards {
                None => "these credentials may not see shards",
                Some(shards) if overlap(shards.get(&place)) => "shards overlap",
                Some(_) => continue,
            };
            unsure.insert(table.id.clone());
            if has_floats_and_integers(table) {
                listing.warnings.push(format!(
                    "{}: a field is float in some shards and integer in others, and {why}: values are exact, \
                     but integers may stand in the column of floats",
                    table.id,
                ));
            }
        }
        *self.unsure.lock().unwrap_or_else(PoisonError::into_inner) = unsure;
        Ok(listing)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let mut bounds = Vec::with_capacity(tables.len());
        for tables in tables.chunks(TABLES_A_REQUEST) {
            match self.bounds_of(tables).await {
                Ok(found) => bounds.extend(found),
                Err(error) if error.class() == Class::Stop => return Err(error),
                // Too much at once, perhaps; one by one then, and for a table too large even for
                // that its shards say enough.
                Err(_) => {
                    for table in tables {
                        let found = self.bounds_of(std::slice::from_ref(table)).await;
                        let shards = Window::new(
                            table.data_ranges.first().map_or(0, |w| w.from),
                            table.data_ranges.last().map_or(0, |w| w.to),
                        );
                        match (found, shards) {
                            (Ok(found), _) => bounds.extend(found),
                            (Err(error), Some(shards))
                                if error.class() != Class::Stop && shards != Window::ALL =>
                            {
                                bounds.push(Some(shards));
                            }
                            (Err(error), _) => {
                                return Err(
                                    error.context(format!("asking {} for its bounds", table.id))
                                );
                            }
                        }
                    }
                }
            }
        }
        Ok(bounds)
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        let mut total = RowCount { rows: 0, exact: true };
        let mut from = window.from;
        while let Some(rest) = Window::new(from, window.to) {
            from = table.split_points.next(from).unwrap_or(window.to).min(window.to);
            let count = self.count_between_cuts(table, Window { to: from, ..rest }).await?;
            total.rows += count.rows;
            total.exact &= count.exact;
        }
        Ok(total)
    }

    /// A field of one more type may have been shown as another one, or not at all. What is new is looked for:
    /// a read that names its fields has not asked for it.
    async fn missed(&self, read: &Table, now: &Table) -> Result<Vec<Window>> {
        let is_known = |column: &&Column| {
            let same = |known: &Column| {
                (known.role, &known.key, &known.source_type)
                    == (column.role, &column.key, &column.source_type)
            };
            read.columns.iter().any(same)
        };
        let new: Vec<&Column> = now.columns.iter().filter(|column| !is_known(column)).collect();
        let has = |column: &&Column| {
            read.columns.iter().any(|known| known.role == Role::Field && known.key == column.key)
        };
        if new.iter().any(|column| column.role == Role::Field && has(column)) {
            return Ok(vec![Window::ALL]);
        }
        let mut missed = Vec::new();
        if !matches!(now.split_points, SplitPoints::None)
            && (&read.split_points, &read.data_ranges) != (&now.split_points, &now.data_ranges)
        {
            if self.is_unsure(&now.id) {
                return Ok(vec![Window::ALL]);
            }
            // Where there was no shard, a window may have gone on into the next one.
            let before: Coverage = read.data_ranges.iter().copied().collect();
            missed.extend(now.data_ranges.iter().flat_map(|window| before.missing(*window)));
        }
        for columns in new.chunks(TABLES_A_REQUEST) {
            let pairs = columns.iter().map(|column| statements::bounds_of(now, column)).collect();
            match self.ends(pairs).await {
                Ok(found) => missed.extend(found.into_iter().flatten()),
                Err(error) if error.class() == Class::Stop => return Err(error),
                Err(error) => {
                    tracing::info!("{}: {error}; all of it is read again", now.id);
                    return Ok(vec![Window::ALL]);
                }
            }
        }
        Ok(missed)
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let several = self.is_unsure(&chunk.table.id);
        if several && let Some(field) = unsigned_and_other(&chunk.table) {
            return Err(Error::fail(format!(
                "the field `{}` is unsigned in some shards and another number in others, and which is \
                 which cannot be told here",
                field.escape_debug()
            ))
            .hint("export this measurement to line protocol at the server, and read that by lp:FILE"));
        }
        let (format, response) =
            self.server.open(&statements::read(&chunk.table, chunk.slice, several)).await?;
        let (sender, parts) = mpsc::channel(BODY_PARTS);
        let (table, address) = (Arc::clone(&chunk.table), self.server.address());
        let decoded = tokio::task::spawn_blocking(move || {
            let error = |text: &str| server_error(&address, text);
            match format {
                Format::MessagePack => decode_msgpack(parts, &table, batches, several, error),
                Format::Json => {
                    let mut rows = RowWriter::new(&table, batches, several);
                    json::decode(BodyReader::new(parts), &mut rows, error)?;
                    rows.finish()
                }
            }
        });
        let ((), decoded) = tokio::join!(self.server.pump(response, sender, |_| ()), decoded);
        decoded
            .unwrap_or_else(|error| Err(Error::stop(format!("the decoder ended: {error}"))))
            .map(|()| ReadSummary::default())
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        let mut excluded = Vec::new();
        let databases = self.databases(&mut excluded).await?;
        artifacts::collect(&self.name, &self.server, &databases).await
    }
}

/// Decodes a chunked MessagePack answer into batches, on a thread that may block; the streaming path
/// from the socket on. `several` says that the answer is
/// of a typed read; `server_error` makes an error of the text of one that stands in the answer.
pub fn decode_msgpack(
    body: mpsc::Receiver<Result<Bytes>>,
    table: &Arc<Table>,
    batches: BatchSender,
    several: bool,
    server_error: impl Fn(&str) -> Error,
) -> Result<()> {
    msgpack::decode(BodyReader::new(body), RowWriter::new(table, batches, several), server_error)
}

fn texts<'a>(answer: &'a [Statement], column: &'a str) -> impl Iterator<Item = String> + 'a {
    let series = answer.iter().flat_map(|statement| &statement.series);
    series.flat_map(move |s: &Series| s.column(column)).filter_map(Value::as_str).map(str::to_owned)
}

fn overlap(shards: Option<&Vec<Window>>) -> bool {
    let mut shards = shards.cloned().unwrap_or_default();
    shards.sort_unstable();
    shards.windows(2).any(|pair| pair[1].from < pair[0].to)
}

// The server turns unsigned integers above the signed ones into something else.
fn unsigned_and_other(table: &Table) -> Option<&String> {
    let is = |column: &Column, kinds: &[&str]| kinds.contains(&column.source_type.as_str());
    let mut unsigned = table.columns.iter().filter(|column| is(column, &["unsigned"]));
    let other =
        |key: &String| table.columns.iter().any(|c| c.key == *key && is(c, &["float", "integer"]));
    unsigned.find(|column| other(&column.key)).map(|column| &column.key)
}

fn several_types(columns: &[Column]) -> bool {
    let mut fields = HashSet::new();
    columns.iter().any(|column| column.role == Role::Field && !fields.insert(&column.key))
}

fn has_floats_and_integers(table: &Table) -> bool {
    let keys = |kind: &str| -> BTreeSet<&str> {
        let columns = table.columns.iter().filter(|column| column.source_type == kind);
        columns.map(|column| column.key.as_str()).collect()
    };
    !keys("float").is_disjoint(&keys("integer")) || !keys("float").is_disjoint(&keys("unsigned"))
}

// The first and the last shard reach beyond 64 bits of nanoseconds.
fn shard_window(start: &str, end: &str) -> Option<Window> {
    let from = parse_time(start).unwrap_or(i64::MIN);
    let to = match parse_time(end) {
        Some(to) if !end.starts_with("2262-04-11T23:47:16") => to,
        _ => i64::MAX,
    };
    Window::new(from, to)
}

/// A duration as Go prints it: `168h0m0s`.
fn go_duration(text: &str) -> Option<i64> {
    let mut nanos: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let unit = match &rest[digits..unit_end] {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            _ => return None,
        };
        nanos = nanos.checked_add(rest[..digits].parse::<i64>().ok()?.checked_mul(unit)?)?;
        rest = &rest[unit_end..];
    }
    (nanos > 0).then_some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_at_the_ends_of_time_are_whole() {
        let last = shard_window("2262-04-07T00:00:00Z", "2262-04-11T23:47:16Z").unwrap();
        assert_eq!(last.to, i64::MAX, "the end is shown without its last 0.85 s");
        let first = shard_window("1677-09-20T00:00:00Z", "1677-09-27T00:00:00Z").unwrap();
        assert_eq!(first.from, i64::MIN);
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(go_duration("168h0m0s"), Some(7 * 24 * 3600 * SECOND));
        assert_eq!(go_duration("1h30m0s"), Some(5400 * SECOND));
        assert_eq!(go_duration("0s"), None);
        assert_eq!(go_duration("soon"), None);
    }

    #[test]
    fn weeks_are_cut_on_mondays_as_the_server_does() {
        let cut = SplitPoints::Every(7 * 24 * 3600 * SECOND).next(0).unwrap();
        assert_eq!(crate::window::rfc3339(cut), "1970-01-05T00:00:00Z");
    }
}
