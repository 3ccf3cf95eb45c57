//! PURE: the identity of a table, as a value that is compared: how the table is divided into slices, which must not
//! change between the runs into one archive, and which table of the source it is, which must not change within a run.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::error::{Class, Error, Result};

/// What must not change about a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// How the table is divided; `None` if every window always means the same rows.
    pub division: Option<Division>,
    /// Which table of the source it is; `None` if its name can never mean another table.
    pub object: Option<Object>,
}

/// What the slices of a table mean. In an archive it is a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Division {
    /// Slices of the file with this hash.
    File(String),
    /// Windows of this column, whose control characters are escaped.
    Windows(String),
    /// The table is read whole.
    Whole,
    /// A division that another version has written.
    Unknown(String),
}

impl Division {
    /// Windows of a column, or the whole table without one.
    pub fn by(time_column: Option<&str>) -> Self {
        match time_column {
            Some(name) => Self::Windows(name.escape_debug().to_string()),
            None => Self::Whole,
        }
    }
}

/// The form in an archive.
impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(hash) => write!(f, "sha256:{hash}"),
            Self::Windows(column) => write!(f, "windows:{column}"),
            Self::Whole => f.write_str("whole"),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

impl FromStr for Division {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        // The first archives recorded it as a phrase.
        let phrase = || text.strip_prefix("in windows of `")?.strip_suffix('`');
        let windows = text.strip_prefix("windows:").or_else(phrase);
        Ok(match (text.strip_prefix("sha256:"), windows, text) {
            (Some(hash), ..) => Self::File(hash.to_owned()),
            (_, Some(column), _) => Self::Windows(column.to_owned()),
            (.., "whole") => Self::Whole,
            _ => Self::Unknown(text.to_owned()),
        })
    }
}

/// The identity of a table within its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// The numbers and times that the source gave the table when it was created or rewritten.
    pub id: String,
    /// Its columns, in their order.
    pub columns: Vec<ObjectColumn>,
}

/// A column of an [`Object`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectColumn {
    /// Its number in the source, which no other column of the table ever gets.
    pub number: i32,
    /// Its name.
    pub name: String,
    /// The identity of its type in the source.
    pub kind: String,
}

impl Object {
    /// Checks that the listed table is still the same. `now` is the table that has its name now. The error makes the run
    /// list the tables again and read this one anew.
    pub fn is_still(&self, now: Option<&Self>) -> Result<()> {
        let changed = |what: String| Err(Error::of(Class::SchemaChanged, what));
        let Some(now) = now else {
            return changed("no table has its name any more".to_owned());
        };
        if self.id != now.id {
            return changed(
                "another table has its name now, or it was truncated or rewritten".into(),
            );
        }
        let pairs = self.columns.iter().zip(&now.columns);
        let count = self.columns.len();
        match pairs.filter(|(before, now)| before != now).map(|(before, _)| before).next() {
            Some(column) => changed(format!(
                "its column `{}` was altered, renamed or dropped",
                column.name.escape_debug()
            )),
            None if count != now.columns.len() => changed(format!(
                "it has {} columns now, and {count} were listed",
                now.columns.len()
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_division_is_read_from_every_archive() {
        let read = |text: &str| text.parse::<Division>().unwrap();
        let windows = Division::by(Some("at"));
        assert_eq!(read("in windows of `at`"), windows);
        assert_eq!(read("sha256:0"), Division::File("0".to_owned()));
        for division in [windows, Division::by(None), Division::File("ab".into())] {
            assert_eq!(read(&division.to_string()), division);
        }
        assert_eq!(read("by moonlight").to_string(), "by moonlight");
    }

    fn object(columns: &[(i32, &str, &str)]) -> Object {
        let column = |(number, name, kind): &(i32, &str, &str)| ObjectColumn {
            number: *number,
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
        };
        Object { id: "1".to_owned(), columns: columns.iter().map(column).collect() }
    }

    #[test]
    fn another_table_or_other_columns_are_noticed() {
        let listed = object(&[(1, "v", "int"), (2, "w", "int")]);
        assert!(listed.is_still(Some(&listed)).is_ok());
        let others = [
            object(&[(1, "w", "int"), (2, "v", "int")]),
            object(&[(1, "v", "int"), (3, "w", "int")]),
            object(&[(1, "v", "int"), (2, "w", "text")]),
            object(&[(1, "v", "int")]),
            object(&[(1, "v", "int"), (2, "w", "int"), (3, "x", "int")]),
            Object { id: "2".to_owned(), ..listed.clone() },
        ];
        for other in others {
            let error = listed.is_still(Some(&other)).unwrap_err();
            assert_eq!(error.class(), Class::SchemaChanged, "{other:?}");
        }
        assert!(listed.is_still(None).is_err());
    }
}
