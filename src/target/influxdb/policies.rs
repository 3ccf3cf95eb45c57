//! PURE: the retention policies of 1.x as a restore makes them, and the buckets of 2.x, which are the same.
//!
//! A policy keeps all points while it is restored, whatever their age, and has long shards, because a request that touches
//! many shards causes a write for each of them. If a field has several types, the shards stay as long as those of the
//! source, because a server keeps one type of a field for each shard. At the end the policy becomes what it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use crate::model::{Column, Role};
use crate::source::influxdb::influxql::statements::quoted;
use crate::target::{Placed, Plan};
use crate::text::several;

/// The duration of shards while rows are written, if nothing speaks against it: 52 weeks.
const LONG: Duration = Duration::from_secs(52 * 7 * 86_400);
/// What a server gives a policy that keeps all points.
const USUAL: Duration = Duration::from_secs(7 * 86_400);

/// The width of the shards, in nanoseconds, by database and retention policy.
pub(super) type Shards = HashMap<(String, String), i64>;

/// A retention policy of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) database: String,
    pub(super) name: String,
    /// For how long it keeps points; `None` stands for ever.
    pub(super) keeps: Option<Duration>,
    /// The duration of its shards at the end; `None` if the archive does not say it.
    pub(super) shard: Option<Duration>,
    /// The duration of its shards while rows are written.
    pub(super) shard_at_first: Duration,
    /// How many copies of its data a cluster keeps.
    pub(super) copies: u64,
    /// Whether it holds the points that name no policy.
    pub(super) is_default: bool,
}

/// All policies of the databases that rows go into, by database and name. These are the ones that the archive records, and
/// one for each table whose policy it does not record.
pub(super) fn wanted(plan: &Plan) -> BTreeMap<(String, String), Policy> {
    let databases: HashSet<&str> =
        plan.tables.iter().map(|table| table.to.database.as_str()).collect();
    let mut policies = BTreeMap::new();
    let recorded = plan.artifacts.iter().filter(|((_, name), _)| name == "retention-policies.json");
    for (_, content) in recorded {
        let rows = serde_json::from_slice::<Vec<Value>>(content).unwrap_or_default();
        for row in rows {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let (database, name) = plan.renames.of(&text("database"), &text("name"));
            if !databases.contains(database.as_str()) || name.is_empty() {
                continue;
            }
            let policy = Policy {
                keeps: go_duration(&text("duration")),
                shard: go_duration(&text("shardGroupDuration")),
                shard_at_first: LONG,
                copies: row["replicaN"].as_u64().unwrap_or(1).max(1),
                is_default: row["default"].as_bool().unwrap_or_default(),
                database: database.clone(),
                name: name.clone(),
            };
            policies.insert((database, name), policy);
        }
    }
    for table in &plan.tables {
        let place = (table.to.database.clone(), table.to.schema.clone());
        let policy = policies.entry(place.clone()).or_insert_with(|| Policy {
            is_default: place.1 == "autogen",
            database: place.0,
            name: place.1,
            keeps: None,
            shard: None,
            shard_at_first: LONG,
            copies: 1,
        });
        if has_mixed_types(&table.columns) {
            policy.shard_at_first = policy.shard.unwrap_or(USUAL);
        }
    }
    for policy in policies.values_mut() {
        let is_longer = policy.shard.is_some_and(|shard| shard > policy.shard_at_first);
        if is_longer {
            policy.shard_at_first = policy.shard.unwrap_or(LONG);
        }
    }
    policies
}

/// Whether a field of a table has several types.
pub(super) fn has_mixed_types(columns: &[Column]) -> bool {
    let fields = columns.iter().filter(|column| column.role == Role::Field);
    let mut keys = HashSet::new();
    fields.into_iter().any(|column| !keys.insert(column.key.as_str()))
}

impl Policy {
    /// The tables of a plan that lie in it.
    pub(super) fn tables<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a Placed> + 'a {
        let is_here = |table: &&Placed| {
            (&table.to.database, &table.to.schema) == (&self.database, &self.name)
        };
        plan.tables.iter().map(|table| &**table).filter(is_here)
    }

    /// The statement that makes the database, with this policy as its default one.
    pub(super) fn create_database(&self) -> String {
        format!(
            "CREATE DATABASE {} WITH DURATION INF REPLICATION {} SHARD DURATION {} NAME {}",
            quoted(&self.database),
            self.copies,
            seconds(self.shard_at_first),
            quoted(&self.name)
        )
    }

    /// The statement that makes it, as it is while rows are written.
    pub(super) fn create(&self) -> String {
        format!(
            "CREATE RETENTION POLICY {} ON {} DURATION INF REPLICATION {} SHARD DURATION {}{}",
            quoted(&self.name),
            quoted(&self.database),
            self.copies,
            seconds(self.shard_at_first),
            self.default()
        )
    }

    /// The statement that changes an existing one to the same.
    pub(super) fn prepare(&self) -> String {
        format!("ALTER{}", self.create().trim_start_matches("CREATE"))
    }

    /// The statement that changes it to what it was in the source.
    pub(super) fn restore(&self) -> String {
        let keeps = self.keeps.map_or_else(|| "INF".to_owned(), seconds);
        format!(
            "ALTER RETENTION POLICY {} ON {} DURATION {keeps} REPLICATION {} SHARD DURATION {}{}",
            quoted(&self.name),
            quoted(&self.database),
            self.copies,
            seconds(self.shard.unwrap_or(self.shard_at_first)),
            self.default()
        )
    }

    /// Whether it has to be changed after the rows.
    pub(super) fn changes(&self) -> bool {
        self.keeps.is_some() || self.shard.is_some_and(|shard| shard != self.shard_at_first)
    }

    fn default(&self) -> &'static str {
        if self.is_default { " DEFAULT" } else { "" }
    }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// Reads a duration as a server prints it: `168h0m0s`. `None` stands for `0s`, which means for ever.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let nanos = crate::source::influxdb::influxql::listing::go_duration(text)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A duration in nanoseconds.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// From so many shards on, the settings of a server matter.
const MANY_SHARDS: u64 = 200;

/// What to set at a server, by these names, if rows go into many shards. `shards` has the width of those that are there.
pub(super) fn advice(plan: &Plan, shards: &Shards, settings: [&str; 2]) -> Option<String> {
    let count = |policy: Policy| {
        let oldest = policy.tables(plan).filter_map(|table| table.oldest).min()?;
        let newest = policy.tables(plan).filter_map(|table| table.newest).max()?;
        let place = (policy.database.clone(), policy.name.clone());
        let width = shards.get(&place).copied().unwrap_or(nanoseconds(policy.shard_at_first));
        let rows: u64 = policy.tables(plan).map(|table| table.rows).sum();
        let shards = newest.saturating_sub(oldest) / width.max(1) + 1;
        Some(shards.unsigned_abs().min(rows))
    };
    let count: u64 = wanted(plan).into_values().filter_map(count).sum();
    let [cold, compactions] = settings;
    (count >= MANY_SHARDS).then(|| {
        format!(
            "the rows go into about {}, and the server keeps memory for each one until it is cold: during the restore, \
             set `{cold}` to 10s and `{compactions}` to 1 at the server",
            several(count, "shard")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::DataType;

    use super::*;
    use crate::model::TableId;
    use crate::target::Placed;

    fn table(policy: &str, fields: &[&str]) -> Arc<Placed> {
        let id = TableId {
            source: "s".to_owned(),
            database: "plant".to_owned(),
            schema: policy.to_owned(),
            table: "t".to_owned(),
        };
        let column = |key: &&str| Column::new(*key, *key, Role::Field, "", DataType::Int64);
        let columns = fields.iter().map(column).collect();
        let (oldest, newest) = (Some(0), Some(300 * 86_400 * 1_000_000_000));
        let (from, to, rows) = (id.clone(), id, 1_000);
        Arc::new(Placed { from, to, columns, rows, oldest, newest, full_field: None })
    }

    fn plan(tables: Vec<Arc<Placed>>) -> Plan {
        let policies = r#"[
            {"database":"plant","default":true,"duration":"0s","name":"autogen","replicaN":1,"shardGroupDuration":"168h0m0s"},
            {"database":"plant","default":false,"duration":"720h0m0s","name":"a \"b\"","replicaN":2,"shardGroupDuration":"24h0m0s"},
            {"database":"other","default":true,"duration":"0s","name":"autogen","replicaN":1,"shardGroupDuration":"168h0m0s"}
        ]"#;
        let key = ("s".to_owned(), "retention-policies.json".to_owned());
        Plan { tables, artifacts: [(key, policies.into())].into(), ..Plan::default() }
    }

    #[test]
    fn a_policy_keeps_all_points_in_long_shards_until_they_are_there() {
        let policies = wanted(&plan(vec![table("autogen", &["a"])]));
        let statements: Vec<String> =
            policies.values().flat_map(|p| [p.create(), p.restore()]).collect();
        assert_eq!(
            statements,
            [
                r#"CREATE RETENTION POLICY "a \"b\"" ON "plant" DURATION INF REPLICATION 2 SHARD DURATION 31449600s"#,
                r#"ALTER RETENTION POLICY "a \"b\"" ON "plant" DURATION 2592000s REPLICATION 2 SHARD DURATION 86400s"#,
                r#"CREATE RETENTION POLICY "autogen" ON "plant" DURATION INF REPLICATION 1 SHARD DURATION 31449600s DEFAULT"#,
                r#"ALTER RETENTION POLICY "autogen" ON "plant" DURATION INF REPLICATION 1 SHARD DURATION 604800s DEFAULT"#,
            ]
        );
    }

    #[test]
    fn shards_stay_as_they_were_where_a_field_has_several_types() {
        let policies =
            wanted(&plan(vec![table("a \"b\"", &["x", "x"]), table("new", &["y", "y"])]));
        let shards: Vec<_> =
            policies.values().map(|p| (p.name.as_str(), p.shard_at_first)).collect();
        let day = Duration::from_secs(86_400);
        assert_eq!(shards, [("a \"b\"", day), ("autogen", LONG), ("new", USUAL)]);
    }

    #[test]
    fn settings_are_advised_where_there_are_many_shards() {
        let settings = ["cold", "compactions"];
        let few = plan(vec![table("autogen", &["a"])]);
        assert_eq!(advice(&few, &HashMap::new(), settings), None);
        let many = plan(vec![table("a \"b\"", &["x", "x"])]);
        let text = advice(&many, &HashMap::new(), settings).unwrap();
        assert!(text.contains("about 301 shards") && text.contains("`compactions` to 1"), "{text}");
        let there = [(("plant".to_owned(), "autogen".to_owned()), nanoseconds(USUAL) / 7)].into();
        assert!(advice(&few, &there, settings).is_some(), "the target's own shards are narrow");
    }
}
