//! `aptible:`, `aptible:ENVIRONMENT` and `aptible:ENVIRONMENT/HANDLE`. Reads the environment.

use std::env;

use crate::config::file::{FileDump, FileSource};
use crate::config::job::{SourceKind, SourceSpec};
use crate::config::select::Select;
use crate::config::server::{AptibleAddress, Secret};
use crate::error::{Error, Result};

/// What there is on Aptible. A name has no effect: each database has one of its own.
pub(super) fn aptible(
    text: &str,
    file: Option<&FileSource>,
    select: Select,
) -> Result<Option<SourceSpec>> {
    let Some(address) = text.strip_prefix("aptible:") else { return Ok(None) };
    let bad = |why: &str| {
        Error::usage(format!("`{text}` is not a source: {why}"))
            .hint("write aptible:ENVIRONMENT/HANDLE, aptible:ENVIRONMENT, or aptible: for all environments")
    };
    let (environment, handle) = match address.split_once('/') {
        _ if address.is_empty() => (None, None),
        None => (Some(address), None),
        Some((environment, handle)) => (Some(environment), Some(handle)),
    };
    for name in environment.iter().chain(&handle) {
        // The CLI would take it for a flag.
        if name.is_empty() || name.starts_with('-') || name.contains(['/', '@']) {
            return Err(bad("a name in it is missing, or cannot be one"));
        }
    }
    if let Some(file) = file {
        refuse_others(file)?;
    }
    let token = env::var("INFLUX_TOKEN").ok().filter(|token| !token.is_empty());
    let asked = AptibleAddress {
        environment: environment.map(str::to_owned),
        handle: handle.map(str::to_owned),
        time_columns: file.map(|file| file.time_columns.clone()).unwrap_or_default(),
        lock: file.and_then(|file| file.lock).unwrap_or_default(),
        dump: file.is_some_and(|file| matches!(file.dump, Some(FileDump::Beside(true)))),
        influx_token: token.map(Secret::new),
    };
    let kind = SourceKind::Aptible(asked);
    Ok(Some(SourceSpec { name: text.to_owned(), named: true, kind, select }))
}

/// What cannot be meant of databases of many kinds.
fn refuse_others(file: &FileSource) -> Result<()> {
    let given = [
        ("username", file.username.is_some()),
        ("password", file.password.is_some()),
        ("token", file.token.is_some()),
        ("databases", !file.databases.is_empty()),
        ("retention_policies", !file.retention_policies.is_empty()),
        ("tables", !file.tables.is_empty()),
        ("schemas", !file.schemas.is_empty()),
        ("tunnel", file.tunnel.is_some()),
        ("precision", file.precision.is_some()),
        ("quota", file.quota.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((key, _)) => Err(Error::usage(format!("`{key}` is not for a source of this kind"))
            .hint("of `aptible:` the key `exclude` says what is left out: HANDLE, ENVIRONMENT.HANDLE, or tables")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_taken_and_nonsense_refused() {
        let of = |text: &str| aptible(text, None, Select::default());
        let asked = |text: &str| match of(text).unwrap().unwrap().kind {
            SourceKind::Aptible(asked) => (asked.environment, asked.handle),
            other => panic!("{other:?}"),
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(asked("aptible:"), (None, None));
        assert_eq!(asked("aptible:prod"), (some("prod"), None));
        assert_eq!(asked("aptible:prod/main"), (some("prod"), some("main")));
        assert_eq!(asked("aptible:prod/aws:rds::x"), (some("prod"), some("aws:rds::x")));
        assert!(of("postgres://h").unwrap().is_none());
        for nonsense in [
            "aptible:/x",
            "aptible:x/",
            "aptible:--help",
            "aptible:a/-b",
            "aptible:a/b/c",
            "aptible://a",
        ] {
            assert!(of(nonsense).is_err(), "{nonsense}");
        }
    }
}
