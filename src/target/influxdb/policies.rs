//! PURE: retention policies as a restore makes them, of 1.x, and buckets, which are the same in 2.x.
//!
//! A policy keeps all points while it is restored, whatever their age, and has long shards: a batch that touches many
//! shards is written to each of them. Only where a field has several types the shards stay as long as those of the source,
//! since a server keeps one type of a field for each shard. At the end the policy becomes what it was.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use crate::model::{Column, Role};
use crate::source::influxdb::influxql::statements::quoted;
use crate::target::Plan;

/// The duration of shards while rows are written, where nothing speaks against it: 52 weeks.
const LONG: Duration = Duration::from_secs(52 * 7 * 86_400);
/// What a server gives a policy that keeps all points.
const USUAL: Duration = Duration::from_secs(7 * 86_400);

/// A retention policy of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) database: String,
    pub(super) name: String,
    /// For how long it keeps points; `None` for ever.
    pub(super) keeps: Option<Duration>,
    /// The duration of its shards at the end; `None` where the archive does not say it.
    pub(super) shard: Option<Duration>,
    /// The duration of its shards while rows are written.
    pub(super) shard_at_first: Duration,
    pub(super) copies: u64,
    pub(super) is_default: bool,
}

/// All policies of the databases that rows go into, by database and name: those that the archive records, and one for each
/// table whose policy it does not record.
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
    /// The statement that makes the database, with this as the policy of points that name none.
    pub(super) fn create_database(&self) -> String {
        format!(
            "CREATE DATABASE {} WITH DURATION INF REPLICATION {} SHARD DURATION {} NAME {}",
            quoted(&self.database),
            self.copies,
            seconds(self.shard_at_first),
            quoted(&self.name)
        )
    }

    /// The statement that makes it as it is while rows are written.
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

    /// The statement that makes one that is there so.
    pub(super) fn prepare(&self) -> String {
        format!("ALTER{}", self.create().trim_start_matches("CREATE"))
    }

    /// The statement that makes it what it was in the source.
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

    /// Whether it is to be changed once the rows are there.
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

/// A duration as a server prints it: `168h0m0s`; `None` for `0s`, which is for ever.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let nanos = crate::source::influxdb::influxql::listing::go_duration(text)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
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
        Arc::new(Placed { from: id.clone(), to: id, columns, oldest: None, full_field: None })
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
}
