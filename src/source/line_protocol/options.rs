//! What the user says of a file that it does not say itself.

use std::sync::Arc;

use crate::model::TableId;

/// Says of a table whether it is to be exported.
pub type Selects = Arc<dyn Fn(&TableId) -> bool + Send + Sync>;

/// What a file does not say itself.
#[derive(Clone)]
pub struct Options {
    /// Database of points before which the file names none; if missing, the name of the file.
    pub database: Option<String>,
    /// Retention policy likewise; if missing, `autogen`.
    pub retention_policy: Option<String>,
    /// How many nanoseconds a timestamp counts in: 1 for `ns`, 1,000,000,000 for `s`.
    pub precision_nanos: i64,
    /// Bound of all buffers together; what does not fit waits in a temporary file.
    pub memory_bytes: usize,
    /// Which tables to export; of others the lines are counted.
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
