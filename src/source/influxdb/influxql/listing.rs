//! Lists databases, retention policies and measurements, and names those that no query can read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use serde_json::Value;

use crate::coverage::Coverage;
use crate::error::{Class, Error, Result};
use crate::model::{Column, Excluded, Listing, NOT_REQUESTED, Role, SplitPoints, Table, TableId};
use crate::source::influxdb::errors::is_of_server;
use crate::source::influxdb::influxql::{InfluxQl, statements};
use crate::source::influxdb::metadata::{Series, Statement};
use crate::source::influxdb::points::{FieldType, Keys};
use crate::source::influxdb::{cloud, databases};
use crate::window::{DAY, SECOND, Window, parse_time};

/// The character that a list shows in place of bytes that are not UTF-8.
const NOT_UTF8: char = '\u{FFFD}';
/// What the user can do about a table that no query can read.
const WAY_OUT: &str = "write it to a file by `influx_inspect export` at the server and read that by lp:FILE, or \
                       leave it out by `exclude`";

/// The retention policies of a database: the name, the width of a shard in nanoseconds, and whether it is the default one.
type Policies = Vec<(String, Option<i64>, bool)>;

/// Where the shards of each (database, retention policy) begin and end.
type Shards = HashMap<(String, String), Vec<Window>>;

impl InfluxQl {
    /// The tables of all selected databases and retention policies.
    pub(super) async fn list_tables(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let databases = self.databases(&mut listing.excluded).await?;
        let shards = self.shards().await?;
        let durations = match self.has_buckets {
            // The list of hidden buckets says so if buckets cannot be listed.
            true => cloud::durations(&self.server).await?.unwrap_or_default(),
            false => cloud::Durations::new(),
        };
        let mut unsure = HashSet::new();
        let mut shown = HashSet::new();
        for database in databases {
            let mut taken = Vec::new();
            for mut policy in self.policies(&database).await? {
                if let Some((_, shard)) = durations.get(&(database.clone(), policy.0.clone())) {
                    policy.1 = go_duration(shard);
                }
                shown.insert((database.clone(), policy.0.clone()));
                if self.select.takes_schema(&policy.0) {
                    self.add_tables(&database, &policy, shards.as_ref(), &mut listing).await?;
                    taken.push(policy.0);
                } else {
                    let what = format!("retention policy {database}.{}", policy.0);
                    listing.excluded.push(self.excluded(what, NOT_REQUESTED));
                }
            }
            self.add_hidden(&database, &taken, &mut listing).await?;
        }
        if self.has_buckets {
            self.add_hidden_buckets(&shown, &mut listing).await?;
        }
        for table in
            listing.tables.iter().filter(|table| !matches!(table.split_points, SplitPoints::None))
        {
            let place = (table.id.database.clone(), table.id.schema.clone());
            // The shards of a policy overlap if its shard duration was altered.
            let why = match &shards {
                None => "these credentials may not see shards",
                Some(shards) if overlap(shards.get(&place)) => "shards overlap",
                Some(_) => continue,
            };
            unsure.insert(table.id.clone());
            if has_floats_and_integers(table) {
                listing.warnings.push(format!(
                    "{}: a field is a float in some shards and an integer in others, and {why}: its values are exact, \
                     but integers may be in the column of floats",
                    table.id,
                ));
            }
        }
        *self.unsure.lock().unwrap_or_else(PoisonError::into_inner) = unsure;
        Ok(listing)
    }

    /// The databases to export.
    pub(super) async fn databases(&self, excluded: &mut Vec<Excluded>) -> Result<Vec<String>> {
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
            let defaults: Vec<bool> =
                series.column("default").map(|v| v.as_bool() == Some(true)).collect();
            for (at, name) in names.enumerate() {
                let is_default = defaults.get(at).copied().unwrap_or_default();
                policies.push((name.to_owned(), widths.get(at).copied().flatten(), is_default));
            }
        }
        Ok(policies)
    }

    /// Where shards lie; `None` if the credentials may not ask, or if the server has no such statement.
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

    /// Whether the server heeds the parameter `rp`. One that does reports that there is no policy of this name.
    async fn heeds_policy(&self, database: &str) -> Result<bool> {
        let statement = format!("SHOW FIELD KEYS ON {}", statements::quoted(database));
        match self.server.query_in(&statement, database, "moveout asks for no such policy").await {
            Ok(_) => Ok(false),
            Err(error) if error.to_string().contains("not found") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Adds the tables of one retention policy. `SHOW FIELD KEYS` covers only the default policy unless another is named.
    /// A measurement without a field in a policy has no point there.
    async fn add_tables(
        &self,
        database: &str,
        (policy, shard_width, is_default): &(String, Option<i64>, bool),
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
        // With the parameter `rp` the server scans once. With `FROM "rp"./.*/` it scans once for each measurement of the
        // database, which takes hours for ten thousand of them.
        let statement = if self.heeds_policy(database).await.map_err(doing)? {
            format!("SHOW FIELD KEYS ON {on}")
        } else {
            format!("SHOW FIELD KEYS ON {on} FROM {}./.*/", statements::quoted(policy))
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
        if self.has_buckets && !is_default {
            // By measurement with 2.7.11, `SHOW TAG KEYS` covers only the default policy, whatever is named.
            for name in &with_fields {
                let fields: HashSet<&str> = fields_of(&answer, name);
                let tags = self.tags_of(database, policy, name, &fields).await.map_err(doing)?;
                tags.into_iter().for_each(|key| keys.tag(name, key));
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
            // The end of a shard is shown in whole seconds, rounded down.
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
                listing.excluded.push(self.excluded(format!("table {id}"), NOT_REQUESTED));
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
            let data_ranges = data_ranges.clone();
            let table = Table { data_ranges, split_points: cuts, ..Table::new(id, columns) };
            match self.why_unreadable(&table).await? {
                Some(why) => listing.unreadable.push((table.id, why)),
                None => listing.tables.push(table),
            }
        }
        Ok(())
    }

    /// Why a listed table cannot be read, or not without losing something.
    async fn why_unreadable(&self, table: &Table) -> Result<Option<String>> {
        let is_doubtful = |name: &str| !statements::is_quotable(name) || name.contains(NOT_UTF8);
        let named = |column: &&Column| column.role == Role::Field && is_doubtful(&column.key);
        // Fields are selected by their names only if one of them has several types.
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
            Ok(_) => Ok(Some(format!("it is listed, but no query finds a row of it; {WAY_OUT}"))),
            Err(error) if error.class() == Class::Stop => Err(error),
            Err(error) => Ok(Some(format!("{error}; {WAY_OUT}"))),
        }
    }

    /// Adds measurements of which the server lists series but no field to the unreadable tables. If a backslash precedes a
    /// comma or a space in the name, the server keeps series and fields under different names, and no query finds a row.
    async fn add_hidden(
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
                        let why =
                            "the server lists series of it but no field, so no query finds a row";
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
}

/// The keys of the fields that an answer to `SHOW FIELD KEYS` has of a measurement.
fn fields_of<'a>(answer: &'a [Statement], measurement: &str) -> HashSet<&'a str> {
    let series = answer.iter().flat_map(|statement| &statement.series);
    let ours = series.filter(|series| series.name == measurement);
    ours.flat_map(|series| series.column("fieldKey")).filter_map(Value::as_str).collect()
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

/// Reads a duration as Go prints it: `168h0m0s`.
pub(crate) fn go_duration(text: &str) -> Option<i64> {
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
