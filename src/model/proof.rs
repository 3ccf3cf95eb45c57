//! What a source says of rows that an archive holds, computed by the source itself.

use serde::{Deserialize, Serialize};

/// How much a comparison says, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The source counted the values of each field.
    Counts,
    /// The source computed count, minimum, maximum and sum of each column that has them.
    Statistics,
    /// All rows were read again.
    Rows,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What was compared.
    pub level: Level,
    /// What is not as recorded.
    pub differences: Vec<String>,
}

/// The answer to the question whether the source may be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The archive equals the source.
    #[serde(rename = "safe")]
    Safe,
    /// Something is different, missing, or could not be compared.
    #[serde(rename = "not yet")]
    NotYet,
}

/// Something that stands in the way of cancelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Open {
    /// Which source.
    pub source: String,
    /// Which table and slice, or what else.
    pub what: String,
    /// Why it is open.
    pub why: String,
    /// What to do about it.
    pub todo: String,
    /// What kind it is, by which the process ends. A record of before has none, and is taken for the gravest.
    #[serde(default)]
    pub kind: OpenKind,
}

/// What kind of open point it is, the gravest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenKind {
    /// The source and the archive differ.
    #[default]
    Different,
    /// It could not be compared now.
    Unfinished,
    /// It can never be compared as things are.
    Failed,
}
