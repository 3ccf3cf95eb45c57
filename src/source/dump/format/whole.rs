//! PURE: what was found in a dump that was read to its end.

/// What is wrong with a dump, as a predicate that follows "the dump".
pub type Defect = String;

/// What a complete dump contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// The tables or collections, sorted, if the format names them.
    pub contents: Vec<String>,
    /// What was checked, for people.
    pub checked: &'static str,
}
