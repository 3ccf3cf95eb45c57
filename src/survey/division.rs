//! PURE: checks whether a table is still divided into slices as it is in the archive.

use crate::error::{Error, Result};
use crate::model::{Division, Table};

/// Checks that the slices of a table mean the same as in its commits. `committed` is the division in one of them.
pub fn same_division(table: &Table, committed: Option<&str>) -> Result<()> {
    let then =
        committed.map(|text| text.parse::<Division>().unwrap_or_else(|never| match never {}));
    let (Some(now), Some(then)) = (&table.identity.division, then) else { return Ok(()) };
    if *now == then {
        return Ok(());
    }
    Err(match now {
        Division::File(_) => Error::stop(format!(
            "the file behind {} has changed since it was exported into this archive",
            table.id
        ))
        .hint("export it into a new archive"),
        // An index was created or dropped, so windows have another meaning.
        _ => Error::stop(format!(
            "{} was exported {} and would now be read {}: rows could be exported twice, or not at all",
            table.id,
            in_words(&then),
            in_words(now)
        ))
        .hint(
            "name the earlier column in `time_columns` of the configuration (\"\" reads a table whole), or export into a \
             new archive",
        ),
    })
}

fn in_words(division: &Division) -> String {
    match division {
        Division::Windows(column) => format!("in windows of `{column}`"),
        other => other.to_string(),
    }
}
