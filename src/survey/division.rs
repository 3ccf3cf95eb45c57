//! PURE: whether a table is still divided into slices as the archive has it.

use crate::error::{Error, Result};
use crate::model::{Division, Table};

/// Checks that a table means the same by its slices as the commits do. `committed` is what one of them says.
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
        // An index came or went. What one way calls a window the other does not.
        _ => Error::stop(format!(
            "{} was exported {} and would now be read {}: rows could come twice, or not at all",
            table.id,
            in_words(&then),
            in_words(now)
        ))
        .hint(
            "name the column of before in `time_columns` of the configuration (\"\" reads a table whole), or export \
             into a new archive",
        ),
    })
}

fn in_words(division: &Division) -> String {
    match division {
        Division::Windows(column) => format!("in windows of `{column}`"),
        other => other.to_string(),
    }
}
