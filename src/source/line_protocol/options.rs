//! What the user states about a file because the file does not.

use std::sync::Arc;

use crate::model::TableId;

/// Decides whether a table is exported.
pub type Selects = Arc<dyn Fn(&TableId) -> bool + Send + Sync>;

/// What a file does not state itself.
#[derive(Clone)]
pub struct Options {
    /// The database of points before which the file names none; by default the name of the file.
    pub database: Option<String>,
    /// The retention policy likewise; by default `autogen`.
    pub retention_policy: Option<String>,
    /// The unit of timestamps in nanoseconds: 1 for `ns`, 1,000,000,000 for `s`.
    pub precision_nanos: i64,
    /// Bounds all buffers together; points that do not fit wait in a temporary file.
    pub memory_bytes: usize,
    /// Which tables to export; the lines of the others are only counted.
    pub selects: Selects,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            database: None,
            retention_policy: None,
            precision_nanos: 1,
            memory_bytes: 256 << 20,
            selects: Arc::new(|_| true),
        }
    }
}
