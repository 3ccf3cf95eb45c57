//! What a source says of rows that an archive holds, computed by the source itself.

/// How much a comparison says, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
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
