//! MySQL and MariaDB.

use std::sync::Arc;

use super::Source;
use crate::config::{Database, Limits, SourceSpec};
use crate::error::{Error, Result};

/// Opens one.
pub(super) fn open(
    spec: &SourceSpec,
    _database: &Database,
    _limits: &Limits,
) -> Result<Arc<dyn Source>> {
    Err(Error::stop(format!("{}: MySQL cannot be read yet", spec.name)))
}
