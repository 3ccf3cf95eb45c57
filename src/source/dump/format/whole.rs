//! PURE: what is found of a dump that was read to its end.

/// What is wrong with a dump, in words that follow "the dump".
pub type Fault = String;

/// What a dump that is whole holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Tables or collections, as the format has them, sorted.
    pub contents: Vec<String>,
    /// What was checked, for a person who reads it.
    pub checked: &'static str,
}
