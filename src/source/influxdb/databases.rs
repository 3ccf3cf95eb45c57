//! PURE: chooses the databases to export from those that an InfluxDB lists.

use crate::config::Select;
use crate::error::{Class, Error, Result};
use crate::model::{Excluded, NOT_REQUESTED};

/// The database with the server's own records, which 1.x and 3 have.
pub(in crate::source) const INTERNAL: &str = "_internal";

/// Whether a database is exported. One that belongs to the server itself is exported only if it is named.
pub(in crate::source) fn is_selected(select: &Select, name: &str, is_system: bool) -> bool {
    select.takes_database(name) && !(is_system && select.databases.is_empty())
}

/// Chooses from the databases that a server lists, each with whether it belongs to the server itself. A database that is
/// named but not listed is an error.
pub(in crate::source) fn choose(
    (source, address): (&str, &str),
    select: &Select,
    listed: Result<Vec<(String, bool)>>,
    excluded: &mut Vec<Excluded>,
) -> Result<Vec<String>> {
    let listed = match listed {
        Ok(listed) => listed,
        // Credentials without the right to list databases may still read those that are named.
        Err(error) if error.class() == Class::Stop && !select.databases.is_empty() => {
            tracing::debug!("listing the databases: {error}");
            return Ok(select.databases.clone());
        }
        Err(error) => return Err(error.context("listing the databases")),
    };
    let is_listed = |name: &&String| listed.iter().any(|(other, _)| other == *name);
    if let Some(lost) = select.databases.iter().find(|name| !is_listed(name)) {
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let hint = if names.is_empty() {
            "the server shows no database".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        };
        return Err(Error::stop(format!(
            "{address}: there is no database `{lost}`, or these credentials may not see it"
        ))
        .hint(hint));
    }
    let mut chosen = Vec::new();
    for (database, is_system) in listed {
        if is_selected(select, &database, is_system) {
            chosen.push(database);
            continue;
        }
        let why = if is_system {
            "it has the server's own records; name the database to export it"
        } else {
            NOT_REQUESTED
        };
        let what = format!("database {database}");
        excluded.push(Excluded { source: source.to_owned(), what, why: why.to_owned() });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(databases: &[&str]) -> Select {
        let databases = databases.iter().map(|name| (*name).to_owned()).collect();
        Select { databases, ..Select::default() }
    }

    fn chosen(select: &Select, listed: Result<Vec<(String, bool)>>) -> Result<Vec<String>> {
        choose(("s", "http://h"), select, listed, &mut Vec::new())
    }

    #[test]
    fn the_servers_own_database_is_exported_only_when_it_is_named() {
        let listed = || Ok(vec![("a".to_owned(), false), (INTERNAL.to_owned(), true)]);
        assert_eq!(chosen(&select(&[]), listed()).unwrap(), ["a"]);
        assert_eq!(chosen(&select(&[INTERNAL]), listed()).unwrap(), [INTERNAL]);
    }

    #[test]
    fn a_named_database_need_not_be_listed_unless_the_server_lists_others() {
        let refused = || Err(Error::stop("no right"));
        assert_eq!(chosen(&select(&["a"]), refused()).unwrap(), ["a"]);
        assert!(chosen(&select(&[]), refused()).is_err());
        let error = chosen(&select(&["a"]), Ok(vec![("b".to_owned(), false)])).unwrap_err();
        assert_eq!(error.hint_text(), Some("it has b"));
        assert!(chosen(&select(&["a"]), Err(Error::of(Class::Retry, "broken"))).is_err());
    }
}
