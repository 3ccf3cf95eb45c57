//! The form in which rows are compared: every value as text that shows its type, floats with their
//! bits, nulls left out. The archive's reader and the model both end here, and share nothing else.

use std::collections::BTreeMap;

/// A row: name of the column to value.
pub(crate) type Row = BTreeMap<String, String>;

/// A column: its name in the archive, and what it is in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) role: String,
    /// Arrow's type; all dictionaries of strings are `dictionary`.
    pub(crate) data_type: String,
}

pub(crate) fn float(value: f64) -> String {
    format!("{value:?} ({:016x})", value.to_bits())
}

pub(crate) fn text(value: &str) -> String {
    format!("{value:?}")
}

/// Says where two sorted lists of rows differ, instead of printing both.
#[track_caller]
pub(crate) fn assert_rows(found: &[Row], expected: &[Row]) {
    let differ = |(a, b): &(&Row, &Row)| a != b;
    let first = found.iter().zip(expected).position(|pair| differ(&pair));
    let first = first.unwrap_or(found.len().min(expected.len()));
    assert!(
        found == expected,
        "{} rows found, {} expected; the first that differs is number {first}\n   found: {:?}\nexpected: {:?}",
        found.len(),
        expected.len(),
        found.get(first),
        expected.get(first),
    );
}
