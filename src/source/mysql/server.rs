//! What listing and reading share: the settings of the source, its sessions, and what listing learned about the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::Select;
use crate::model::{Object, Size, TableId};
use crate::source::mysql::errors::Fault;
use crate::source::mysql::session::{Pool, Session};
use crate::source::relational::tables::Tables;
use crate::source::relational::type_overrides::TypeOverrides;
use crate::window::Window;

/// What the threads that work for one source share.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) select: Select,
    pub(super) time_columns: BTreeMap<String, String>,
    pub(super) pool: Arc<Pool>,
    /// Whether InnoDB's numbers are used to tell tables apart.
    pub(super) numbered: AtomicBool,
    pub(super) tables: Tables<Readable>,
    pub(super) type_overrides: TypeOverrides,
}

/// What listing has learned about a table that reading needs.
pub(super) struct Readable {
    /// Where its rows lie in time; `None` if no row has a time.
    pub(super) bounds: Option<Window>,
    pub(super) size: Size,
    /// Whether it keeps the old versions of its rows (MariaDB's system versioning).
    pub(super) is_versioned: bool,
    /// The integer column by whose ranges it can be read, if it is large.
    pub(super) key: Option<String>,
    /// Which table it was when it was listed.
    pub(super) object: Object,
    /// Since when its name has stood for it, in the pool's time. An older snapshot may show another table.
    pub(super) since: u64,
}

/// ER_TABLE_DEF_CHANGED: the table was altered after the snapshot was taken.
pub(super) const ALTERED: u16 = 1412;

impl Inner {
    /// Works within the session's snapshot, or in a new one if a table has been altered since that was taken.
    pub(super) fn current<T>(
        &self,
        session: &mut Session,
        mut work: impl FnMut(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match work(session) {
            Err(fault) if fault.code() == Some(ALTERED) => {
                session.renew(self.pool.tick())?;
                work(session)
            }
            outcome => outcome,
        }
    }

    /// Renews a session whose snapshot was taken before an instant.
    pub(super) fn renew_before(&self, session: &mut Session, instant: u64) -> Result<(), Fault> {
        if session.taken < instant { session.renew(self.pool.tick()) } else { Ok(()) }
    }

    /// Since when a name has stood for a table. `before` is an earlier instant at which it already did.
    pub(super) fn since(&self, id: &TableId, object: &Object, before: Option<u64>) -> u64 {
        let known = self.tables.get(id).ok().filter(|known| known.object == *object);
        let since = known.map(|known| known.since).or(before);
        since.unwrap_or_else(|| self.pool.tick())
    }
}
