//! PURE: which column the windows of a table are made of.

use std::collections::BTreeMap;

use crate::config::matches;
use crate::error::{Error, Result};
use crate::model::TableId;

/// A column whose type is a date or a timestamp.
#[derive(Debug, Clone)]
pub(in crate::source) struct Candidate {
    pub(in crate::source) name: String,
    /// Whether an index begins with it.
    pub(in crate::source) is_indexed: bool,
    /// Whether it is taken where the configuration names none, because windows of it are cheap to read.
    pub(in crate::source) by_default: bool,
}

/// Whether a pattern of `time_columns` matches a table. As everywhere in the configuration it stands for TABLE,
/// SCHEMA.TABLE or DATABASE.SCHEMA.TABLE; where there are no schemas, for TABLE or DATABASE.TABLE.
fn means(pattern: &str, id: &TableId) -> bool {
    let TableId { database, schema, table, .. } = id;
    let longer = match schema.as_str() {
        "" => vec![format!("{database}.{table}")],
        _ => vec![format!("{schema}.{table}"), format!("{database}.{schema}.{table}")],
    };
    matches(pattern, table) || longer.iter().any(|name| matches(pattern, name))
}

/// The column of a table: the one that the configuration names, else the only one that is taken by default, else none:
/// the table is read whole. A configured column that no index begins with is a warning.
pub(in crate::source) fn choose(
    configured: &BTreeMap<String, String>,
    id: &TableId,
    candidates: &[Candidate],
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    // Of several patterns the most specific one counts.
    let named = configured.iter().filter(|(pattern, _)| means(pattern, id));
    let named = named.max_by_key(|(pattern, _)| pattern.replace('*', "").len());
    let Some((pattern, name)) = named else {
        let mut by_default = candidates.iter().filter(|candidate| candidate.by_default);
        return Ok(match (by_default.next(), by_default.next()) {
            (Some(only), None) => Some(only.name.clone()),
            _ => None,
        });
    };
    if name.is_empty() {
        return Ok(None); // read whole, whatever indexes there are
    }
    match candidates.iter().find(|candidate| candidate.name == *name) {
        Some(found) => {
            if !found.is_indexed {
                warnings.push(format!(
                    "{id}: no index begins with `{}`, so that the server looks at the whole table for each window",
                    name.escape_debug()
                ));
            }
            Ok(Some(name.clone()))
        }
        // A pattern may stand for tables that have no such column.
        None if pattern.contains('*') => Ok(None),
        None => Err(Error::fail(format!(
            "`time_columns`: it has no column `{}` that is a date or a timestamp",
            name.escape_debug()
        ))
        .hint("name another column, or \"\" to read the table whole")),
    }
}

/// Names in `time_columns` that match no table, most likely by a typing mistake. A pattern with `*` may match none.
pub(in crate::source) fn unused<'a>(
    configured: &BTreeMap<String, String>,
    tables: impl Iterator<Item = &'a TableId> + Clone,
) -> Vec<String> {
    let is_unused =
        |name: &&String| !name.contains('*') && !tables.clone().any(|id| means(name, id));
    let say = |pattern: &String| format!("`time_columns`: no table is named `{pattern}`");
    configured.keys().filter(is_unused).map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(schema: &str, table: &str) -> TableId {
        TableId {
            source: "s".into(),
            database: "d".into(),
            schema: schema.into(),
            table: table.into(),
        }
    }

    fn candidate(name: &str, is_indexed: bool, by_default: bool) -> Candidate {
        Candidate { name: name.into(), is_indexed, by_default }
    }

    fn chosen(configured: &[(&str, &str)], candidates: &[Candidate]) -> Result<Option<String>> {
        let configured =
            configured.iter().map(|(key, name)| ((*key).into(), (*name).into())).collect();
        choose(&configured, &id("public", "orders"), candidates, &mut Vec::new())
    }

    #[test]
    fn a_pattern_means_a_table_by_each_of_its_names() {
        for pattern in ["orders", "public.orders", "d.public.orders", "pub*.ord*", "*"] {
            assert!(means(pattern, &id("public", "orders")), "{pattern}");
        }
        assert!(!means("other.orders", &id("public", "orders")));
        assert!(means("d.orders", &id("", "orders")) && means("orders", &id("", "orders")));
        assert!(!means("e.orders", &id("", "orders")));
    }

    #[test]
    fn the_configuration_comes_before_what_is_taken_by_default() {
        let there = [candidate("made", true, true), candidate("sent", false, false)];
        assert_eq!(chosen(&[], &there).unwrap().as_deref(), Some("made"));
        assert_eq!(chosen(&[("orders", "sent")], &there).unwrap().as_deref(), Some("sent"));
        assert_eq!(chosen(&[("*", "made"), ("orders", "")], &there).unwrap(), None);
        assert_eq!(chosen(&[("ord*", "gone")], &there).unwrap(), None);
        assert!(chosen(&[("public.orders", "gone")], &there).is_err());
        let two = [candidate("made", true, true), candidate("sent", true, true)];
        assert_eq!(chosen(&[], &two).unwrap(), None, "nobody can tell which");
    }

    #[test]
    fn what_costs_much_or_means_nothing_is_said() {
        let configured =
            BTreeMap::from([("orders".into(), "sent".into()), ("x".into(), "y".into())]);
        let mut warnings = Vec::new();
        let there = [candidate("sent", false, false)];
        choose(&configured, &id("", "orders"), &there, &mut warnings).unwrap();
        assert!(warnings[0].contains("no index begins with `sent`"), "{warnings:?}");
        let unused = unused(&configured, [id("", "orders")].iter());
        assert_eq!(unused, ["`time_columns`: no table is named `x`"]);
        let everywhere = BTreeMap::from([("*".into(), "sent".into()), ("x*".into(), "".into())]);
        assert!(super::unused(&everywhere, [].iter()).is_empty());
    }
}
