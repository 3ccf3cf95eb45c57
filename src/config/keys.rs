//! PURE: the keys of the configuration file and what each of them holds, so that an error names the key and its line.
//! No value is shown, because it may be a secret.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The kind of value that a key holds.
enum ValueKind {
    Text,
    Texts,
    /// A table of strings.
    Named,
    Count,
    Number,
    Flag,
    OneOf(&'static [&'static str]),
    /// A reference. Anything else is refused where it is read, since it may be the secret itself.
    Secret,
    /// True or false, or a table.
    FlagOr(Keys),
    Table(Keys),
    Tables(Keys),
}

struct Keys {
    /// The table with these keys, for messages.
    of: &'static str,
    known: &'static [(&'static str, ValueKind)],
    needed: &'static [&'static str],
    /// A key that is needed unless another key holds a table.
    unless: Option<(&'static str, &'static str)>,
}

const SECRET: Keys = Keys {
    of: "a reference to a secret",
    known: &[("env", ValueKind::Text), ("file", ValueKind::Text)],
    needed: &[],
    unless: None,
};

const DUMP: Keys = Keys {
    of: "`dump`",
    known: &[("command", ValueKind::Texts), ("ends_with", ValueKind::Text)],
    needed: &["command", "ends_with"],
    unless: None,
};

const S3: Keys = Keys {
    of: "`s3`",
    known: &[
        ("preset", ValueKind::OneOf(&["aws", "r2", "minio", "garage", "gcs", "oss"])),
        ("endpoint", ValueKind::Text),
        ("region", ValueKind::Text),
        ("access_key_id", ValueKind::Text),
        ("secret_access_key", ValueKind::Secret),
        ("session_token", ValueKind::Secret),
    ],
    needed: &[],
    unless: None,
};

const TUNNEL: Keys = Keys {
    of: "`tunnel`",
    known: &[
        ("command", ValueKind::Texts),
        ("ready", ValueKind::Text),
        ("ready_timeout", ValueKind::Text),
    ],
    needed: &["command"],
    unless: None,
};

const SOURCE: Keys = Keys {
    of: "a source",
    known: &[
        ("name", ValueKind::Text),
        ("url", ValueKind::Text),
        ("username", ValueKind::Text),
        ("password", ValueKind::Secret),
        ("token", ValueKind::Secret),
        ("databases", ValueKind::Texts),
        ("retention_policies", ValueKind::Texts),
        ("tables", ValueKind::Texts),
        ("schemas", ValueKind::Texts),
        ("exclude", ValueKind::Texts),
        ("time_columns", ValueKind::Named),
        ("lock", ValueKind::Flag),
        ("tunnel", ValueKind::Table(TUNNEL)),
        ("dump", ValueKind::FlagOr(DUMP)),
        ("precision", ValueKind::Text),
        ("quota", ValueKind::Text),
        ("quota_window", ValueKind::Text),
        ("price_per_query", ValueKind::Number),
        ("price_per_gigabyte", ValueKind::Number),
    ],
    needed: &["name"],
    unless: Some(("url", "dump")),
};

const FILE: Keys = Keys {
    of: "the configuration",
    known: &[
        ("archive", ValueKind::Text),
        ("s3", ValueKind::Table(S3)),
        ("from", ValueKind::Text),
        ("to", ValueKind::Text),
        ("window", ValueKind::Text),
        ("concurrency", ValueKind::Count),
        ("memory", ValueKind::Text),
        ("bandwidth", ValueKind::Text),
        ("file_size", ValueKind::Text),
        ("idle_timeout", ValueKind::Text),
        ("attempts", ValueKind::Count),
        ("patience", ValueKind::Text),
        ("source", ValueKind::Tables(SOURCE)),
    ],
    needed: &[],
    unless: None,
};

/// An error in a configuration file.
pub(super) struct Wrong {
    /// The position of the error, in bytes.
    pub(super) at: usize,
    /// The description of the error.
    pub(super) what: String,
    /// The advice for the user.
    pub(super) hint: Option<String>,
}

/// Checks every key and the kind of its value.
pub(super) fn check(table: &Spanned<DeTable<'_>>) -> Result<(), Wrong> {
    check_table(&FILE, table.get_ref(), table.span().start)
}

fn check_table(keys: &Keys, table: &DeTable<'_>, at: usize) -> Result<(), Wrong> {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let at = key.span().start;
        let Some((_, kind)) = keys.known.iter().find(|(known, _)| *known == name) else {
            let known = || keys.known.iter().map(|(known, _)| *known);
            let all = known().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
            let meant = closest(name, known()).map(|meant| format!("did you mean `{meant}`? "));
            return Err(Wrong {
                at,
                what: format!("{} has no key `{}`", keys.of, name.escape_debug()),
                hint: Some(format!("{}The keys are {all}", meant.unwrap_or_default())),
            });
        };
        check_value(name, kind, value.get_ref(), at)?;
    }
    // Databases on Aptible have names of their own.
    let url = table.get("url").and_then(|url| url.get_ref().as_str());
    let is_named = url.is_some_and(|url| url.starts_with("aptible:"));
    let is_missing =
        |needed: &&str| !(table.contains_key(*needed) || is_named && *needed == "name");
    let holds_table = |other| table.get(other).is_some_and(|value| value.get_ref().is_table());
    let unless = keys.unless.filter(|(_, other)| !holds_table(*other)).map(|(needed, _)| needed);
    let mut needed = keys.needed.iter().copied().chain(unless);
    match needed.find(is_missing) {
        Some(needed) => {
            Err(Wrong { at, what: format!("{} needs the key `{needed}`", keys.of), hint: None })
        }
        None => Ok(()),
    }
}

fn check_value(name: &str, kind: &ValueKind, value: &DeValue<'_>, at: usize) -> Result<(), Wrong> {
    let wrong =
        |what: &str| Err(Wrong { at, what: format!("`{name}` must be {what}"), hint: None });
    match (kind, value) {
        (ValueKind::Text, DeValue::String(_))
        | (ValueKind::Number, DeValue::Integer(_) | DeValue::Float(_))
        | (ValueKind::Flag | ValueKind::FlagOr(_), DeValue::Boolean(_)) => Ok(()),
        (ValueKind::Count, DeValue::Integer(number)) if number.as_str().parse::<u32>().is_ok() => {
            Ok(())
        }
        (ValueKind::OneOf(known), DeValue::String(text)) if known.contains(&text.as_ref()) => {
            Ok(())
        }
        (ValueKind::Texts, DeValue::Array(texts))
            if texts.iter().all(|text| text.get_ref().is_str()) =>
        {
            Ok(())
        }
        (ValueKind::Named, DeValue::Table(texts))
            if texts.iter().all(|(_, text)| text.get_ref().is_str()) =>
        {
            Ok(())
        }
        (ValueKind::Secret, DeValue::Table(table)) => check_table(&SECRET, table, at),
        (ValueKind::Secret, _) => Ok(()),
        (ValueKind::Table(keys) | ValueKind::FlagOr(keys), DeValue::Table(table)) => {
            check_table(keys, table, at)
        }
        (ValueKind::Tables(keys), DeValue::Array(tables)) => {
            tables.iter().try_for_each(|one| match one.get_ref() {
                DeValue::Table(table) => check_table(keys, table, one.span().start),
                _ => wrong("tables, each under a line [[source]] with two brackets"),
            })
        }
        (ValueKind::Text, _) => wrong("a string in quotes"),
        (ValueKind::Number, _) => wrong("a number"),
        (ValueKind::Flag, _) => wrong("true or false"),
        (ValueKind::FlagOr(_), _) => {
            wrong("true, or { command = [\"PROGRAM\", …], ends_with = \"TEXT\" }")
        }
        (ValueKind::Count, _) => wrong("a whole number"),
        (ValueKind::OneOf(known), _) => wrong(&format!("one of \"{}\"", known.join("\", \""))),
        (ValueKind::Texts, _) => wrong("a list of strings, such as [\"one\", \"two\"]"),
        (ValueKind::Named, _) => wrong("a table of strings, such as { \"one\" = \"two\" }"),
        (ValueKind::Table(keys), _) => {
            let keys: Vec<_> = keys.known.iter().map(|(key, _)| format!("`{key}`")).collect();
            wrong(&format!("a table with the keys {}", keys.join(", ")))
        }
        (ValueKind::Tables(_), _) => {
            wrong("tables, each under a line [[source]] with two brackets")
        }
    }
}

/// The known word that the user most likely meant.
pub(super) fn closest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = known.into_iter().map(|known| (strsim::jaro_winkler(wrong, known), known));
    let near = near.filter(|(similarity, _)| *similarity > 0.8);
    near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}
