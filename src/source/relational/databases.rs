//! PURE: which databases of a server are exported, and why the others are not.

use crate::config::Select;
use crate::error::{Error, Result};
use crate::model::NOT_REQUESTED;

/// A database that a server shows.
#[derive(Debug, Clone)]
pub(in crate::source) struct Found {
    pub(in crate::source) name: String,
    /// Why it is left out unless the configuration names it; `None` for a database of the user.
    pub(in crate::source) foreign: Option<&'static str>,
}

/// Which databases of a server are exported, and which are not.
#[derive(Debug, Default)]
pub(in crate::source) struct Chosen {
    /// The databases to export.
    pub(in crate::source) taken: Vec<String>,
    /// The databases that are left out, and why.
    pub(in crate::source) excluded: Vec<(String, &'static str)>,
}

/// Takes the databases that the configuration names, or all that belong to users if it names none. A named database that
/// does not exist is an error, since otherwise a typing mistake would make an empty archive.
pub(in crate::source) fn choose(there: Vec<Found>, select: &Select) -> Result<Chosen> {
    let named = &select.databases;
    let is_there = |name: &&String| there.iter().any(|found| found.name == **name);
    if let Some(lost) = named.iter().find(|name| !is_there(name)) {
        let own = there.iter().filter(|found| found.foreign.is_none());
        let own: Vec<String> = own.map(|found| found.name.escape_debug().to_string()).collect();
        let missing = Error::stop(format!(
            "there is no database `{}` that this user may see",
            lost.escape_debug()
        ));
        return Err(missing.hint(format!("the user sees {}", own.join(", "))));
    }
    let mut chosen = Chosen::default();
    for Found { name, foreign } in there {
        match (named.is_empty(), foreign) {
            (true, Some(why)) => chosen.excluded.push((name, why)),
            (true, None) => chosen.taken.push(name),
            (false, _) if named.contains(&name) => chosen.taken.push(name),
            (false, Some(why)) => chosen.excluded.push((name, why)),
            (false, None) => chosen.excluded.push((name, NOT_REQUESTED)),
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: &[&str]) -> Result<Chosen> {
        let found = |name: &str, foreign| Found { name: name.to_owned(), foreign };
        let there =
            vec![found("a", None), found("b", None), found("sys", Some("the server's own"))];
        let databases = named.iter().map(|name| (*name).to_owned()).collect();
        choose(there, &Select { databases, ..Select::default() })
    }

    #[test]
    fn all_databases_of_users_are_taken_or_those_that_are_named() {
        let all = chosen(&[]).unwrap();
        assert_eq!(all.taken, ["a", "b"]);
        assert_eq!(all.excluded, [("sys".to_owned(), "the server's own")]);
        let one = chosen(&["b"]).unwrap();
        assert_eq!(one.taken, ["b"]);
        assert_eq!(one.excluded.len(), 2);
        assert_eq!(chosen(&["sys"]).unwrap().taken, ["sys"]);
    }

    #[test]
    fn the_error_about_a_missing_database_names_those_that_exist() {
        let error = chosen(&["a", "c"]).unwrap_err();
        assert!(error.to_string().contains("`c`"), "{error}");
        assert_eq!(error.hint_text(), Some("the user sees a, b"));
    }
}
