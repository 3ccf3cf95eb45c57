//! `aptible:`, `aptible:ENVIRONMENT` and `aptible:ENVIRONMENT/HANDLE`. Reads the environment.

use std::env;

use crate::config::file::{FileDump, FileSource};
use crate::config::job::{SourceKind, SourceSpec};
use crate::config::select::Select;
use crate::config::server::{AptibleAddress, Secret};
use crate::error::{Error, Result};

/// The databases on Aptible that an address means. A name in the file has no effect, since each database has its own.
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
        // The CLI would take a leading `-` for a flag.
        if name.is_empty() || name.starts_with('-') || name.contains(['/', '@']) {
            return Err(bad(
                "the name of the environment or of the database is missing or invalid",
            ));
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

/// Refuses the keys that have no single meaning for databases of many kinds.
fn refuse_others(file: &FileSource) -> Result<()> {
    file.refuse_keys_but(&["exclude", "time_columns", "lock"]).map_err(|error| {
        error.hint("to leave databases or tables of `aptible:` out, list them in `exclude`: HANDLE, ENVIRONMENT.HANDLE, or tables")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_and_of_all_environments_are_parsed_and_nonsense_is_refused() {
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
