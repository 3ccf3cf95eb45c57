//! PURE: chooses the column that the windows of a table are made of.

use std::collections::BTreeMap;

use crate::config::matches;
use crate::error::{Error, Result};
use crate::model::TableId;

/// A column whose type is a date or a timestamp.
#[derive(Debug, Clone)]
pub(in crate::source) struct Candidate {
    pub(in crate::source) name: String,
    /// Whether it is the first column of an index.
    pub(in crate::source) is_indexed: bool,
    /// Whether it is taken if the configuration names none, because its windows are cheap to read.
    pub(in crate::source) by_default: bool,
}

/// Whether a pattern of `time_columns` matches a table. As everywhere in the configuration, it is compared with TABLE,
/// SCHEMA.TABLE and DATABASE.SCHEMA.TABLE; without schemas, with TABLE and DATABASE.TABLE.
fn means(pattern: &str, id: &TableId) -> bool {
    let TableId { database, schema, table, .. } = id;
    let longer = match schema.as_str() {
        "" => vec![format!("{database}.{table}")],
        _ => vec![format!("{schema}.{table}"), format!("{database}.{schema}.{table}")],
    };
    matches(pattern, table) || longer.iter().any(|name| matches(pattern, name))
}

/// The time column of a table: the one that the configuration names, or else the only one that is taken by default. With
/// none, the table is read whole. A configured column that is not the first of an index causes a warning.
pub(in crate::source) fn choose(
    configured: &BTreeMap<String, String>,
    id: &TableId,
    candidates: &[Candidate],
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    // The most specific of several patterns counts.
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
                    "{id}: no index begins with `{}`, so the server scans the whole table for each window",
                    name.escape_debug()
                ));
            }
            Ok(Some(name.clone()))
        }
        // A pattern may match tables that have no such column.
        None if pattern.contains('*') => Ok(None),
        None => Err(Error::fail(format!(
            "`time_columns`: the table has no column `{}` that is a date or a timestamp",
            name.escape_debug()
        ))
        .hint("name another column, or \"\" to read the table whole")),
    }
}

/// Warnings about names in `time_columns` that match no table, probably typing mistakes. A pattern with `*` may match none.
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
    fn a_pattern_matches_each_name_of_a_table() {
        for pattern in ["orders", "public.orders", "d.public.orders", "pub*.ord*", "*"] {
            assert!(means(pattern, &id("public", "orders")), "{pattern}");
        }
        assert!(!means("other.orders", &id("public", "orders")));
        assert!(means("d.orders", &id("", "orders")) && means("orders", &id("", "orders")));
        assert!(!means("e.orders", &id("", "orders")));
    }

    #[test]
    fn the_configuration_takes_precedence_over_the_default() {
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
    fn a_costly_or_unknown_column_is_reported() {
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
