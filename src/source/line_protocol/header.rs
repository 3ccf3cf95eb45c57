//! What an export states in comments and statements: the database and the retention policy of its points, and how these
//! were created. Statements with passwords are left out.

use std::path::Path;

use crate::source::line_protocol::options::Options;

/// What the file has stated so far.
pub(super) struct Header {
    /// From the options or the file's name, for points before the file names any.
    defaults: Context,
    /// The database and the retention policy of the points that follow.
    pub(super) context: Context,
    /// Whether a statement may come next.
    statements: bool,
    pub(super) ddl: Vec<String>,
}

/// A database and a retention policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Context {
    pub(super) database: String,
    pub(super) policy: String,
}

impl Header {
    pub(super) fn new(file: &Path, options: &Options) -> Self {
        let policy = options.retention_policy.clone();
        let defaults = Context {
            database: options.database.clone().unwrap_or_else(|| stem(file)),
            policy: policy.unwrap_or_else(|| "autogen".to_owned()),
        };
        Self { context: defaults.clone(), defaults, statements: true, ddl: Vec::new() }
    }

    /// Reads a comment, given without its `#`. Returns whether it had a meaning.
    pub(super) fn comment(&mut self, text: &str) -> bool {
        let or = |name: &str, default: &String| match name.trim() {
            "" => default.clone(),
            name => name.to_owned(),
        };
        let text = text.trim();
        if let Some(name) = text.strip_prefix("CONTEXT-DATABASE:") {
            self.context.database = or(name, &self.defaults.database);
        } else if let Some(name) = text.strip_prefix("CONTEXT-RETENTION-POLICY:") {
            self.context.policy = or(name, &self.defaults.policy);
        } else if text == "DDL" || text == "DML" {
            self.statements = text == "DDL";
        } else {
            return false;
        }
        true
    }

    /// Reads a line if it is a statement and not a point. Returns whether it is one.
    pub(super) fn statement(&mut self, line: &str) -> bool {
        const VERBS: [&str; 6] = ["CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "SET"];
        let mut words = line.split_ascii_whitespace();
        let verb =
            words.next().is_some_and(|word| VERBS.iter().any(|v| v.eq_ignore_ascii_case(word)));
        // A point has `=` in its second word.
        let statement = self.statements && verb && words.next().is_some_and(|w| !w.contains('='));
        if statement {
            let secret = line.to_ascii_uppercase().contains("PASSWORD");
            self.ddl.push(if secret {
                "-- a statement with a password was left out".to_owned()
            } else {
                line.trim().to_owned()
            });
        }
        statement
    }

    /// Notes that a point has come: no statement follows unless a comment announces it.
    #[inline]
    pub(super) fn point(&mut self) {
        self.statements = false;
    }

    /// Whether a line can be a statement, judged by its first letter.
    pub(super) fn may_be_statement(&self, line: &[u8]) -> bool {
        self.statements && line.first().is_some_and(|byte| b"CADGRScadgrs".contains(byte))
    }
}

/// The name of a file without the extensions of its format.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut stem = name.as_ref();
    while let Some((rest, "lp" | "gz" | "zst" | "txt")) = stem.rsplit_once('.') {
        stem = rest;
    }
    if stem.is_empty() { name.into_owned() } else { stem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(Path::new("/x/my.db.lp.gz"), &Options::default())
    }

    #[test]
    fn comments_switch_the_context() {
        let mut header = header();
        let context =
            |header: &Header| (header.context.database.clone(), header.context.policy.clone());
        assert_eq!(context(&header), ("my.db".into(), "autogen".into()));
        assert!(header.comment(" CONTEXT-DATABASE:a:b c"));
        assert!(header.comment(" CONTEXT-RETENTION-POLICY: two years\r"));
        assert_eq!(context(&header), ("a:b c".into(), "two years".into()));
        assert!(!header.comment(" writing tsm data"));
        assert!(header.comment("CONTEXT-DATABASE:"));
        assert_eq!(context(&header), ("my.db".into(), "two years".into()));
    }

    #[test]
    fn statements_are_kept_and_points_are_not_mistaken_for_them() {
        let mut header = header();
        assert!(header.statement("CREATE DATABASE \"x\" WITH NAME autogen"));
        assert!(header.statement("create user a with password 'secret'"));
        assert!(!header.statement("CREATE f=1 5"));
        assert!(!header.statement("cpu f=1 5"));
        assert!(header.comment(" DML"));
        assert!(!header.statement("CREATE DATABASE \"y\""));
        assert_eq!(header.ddl.len(), 2);
        assert!(!header.ddl.concat().contains("secret"));
    }

    #[test]
    fn the_name_of_a_file_loses_the_extensions_of_its_format() {
        for (file, name) in
            [("a.lp", "a"), ("/b/a.b.lp.zst", "a.b"), ("a", "a"), (".lp", ".lp"), ("a.txt.gz", "a")]
        {
            assert_eq!(stem(Path::new(file)), name);
        }
    }
}
