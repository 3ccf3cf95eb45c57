//! PURE: which part of a source is exported, by names and patterns.

/// Which part of a source to export. Empty lists mean everything.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// Names of databases.
    pub databases: Vec<String>,
    /// Names of schemas or retention policies; `*` stands for any text.
    pub schemas: Vec<String>,
    /// Names of tables; `*` stands for any text.
    pub tables: Vec<String>,
    /// Tables to leave out: `TABLE`, `SCHEMA.TABLE` or `DATABASE.SCHEMA.TABLE`; `*` stands for any text.
    pub exclude: Vec<String>,
}

impl Select {
    /// Adds databases. An empty list means all databases.
    pub(super) fn add_databases(&mut self, more: Vec<String>) {
        if self.databases.is_empty() || more.is_empty() {
            self.databases.clear()
        } else {
            self.databases.extend(more)
        }
        let mut seen = std::collections::BTreeSet::new();
        self.databases.retain(|name| seen.insert(name.clone()));
    }

    /// Whether a table is to be left out.
    pub fn excludes(&self, database: &str, schema: &str, table: &str) -> bool {
        let names =
            [table.to_owned(), format!("{schema}.{table}"), format!("{database}.{schema}.{table}")];
        let excluded = |pattern: &String| names.iter().any(|name| matches(pattern, name));
        self.exclude.iter().any(excluded)
    }

    /// Whether a database is wanted.
    pub fn takes_database(&self, name: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|wanted| wanted == name)
    }

    /// Whether a schema or a retention policy is wanted.
    pub fn takes_schema(&self, name: &str) -> bool {
        matches_any(&self.schemas, name)
    }

    /// Whether a table is wanted.
    pub fn takes_table(&self, name: &str) -> bool {
        matches_any(&self.tables, name)
    }
}

fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a name fits a pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("cpu", "cpu", true),
            ("cpu", "cpu2", false),
            ("c*u*", "cpu_load", true),
            ("*", "", true),
            ("*é", "aé", true),
            ("a*b", "ab", true),
            ("a*b", "ba", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
