//! What listing and reading share: the settings of the source, its sessions, and what listing learned about the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::Select;
use crate::model::{LogPosition, Object, Size, TableId};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
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

/// The end of the binary log: by transactions if the server numbers them, otherwise by file and byte, if the user may see
/// that. `None` if it keeps no such log.
pub(super) fn log_position(client: &mut Client) -> Result<Option<LogPosition>, CommandError> {
    let variable = if client.is_mariadb { "gtid_current_pos" } else { "gtid_executed" };
    let words = [format!("SELECT @@GLOBAL.{variable}")];
    let files = ["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"].map(str::to_owned);
    for (at, sql) in words.iter().chain(&files).enumerate() {
        let row = match client.query(sql) {
            Ok(rows) => rows.into_iter().next().unwrap_or_default(),
            Err(CommandError::Server(_)) => continue, // not its words, or nothing for this user
            Err(broken) => return Err(broken),
        };
        // After the file and the byte there are filters.
        let cells: Vec<String> =
            row.into_iter().take(if at == 0 { 1 } else { 2 }).flatten().collect();
        let position = cells.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        if !position.is_empty() {
            return Ok(Some(LogPosition { log: "binary log".to_owned(), position }));
        }
    }
    Ok(None)
}

/// ER_TABLE_DEF_CHANGED: the table was altered after the snapshot was taken.
pub(super) const ALTERED: u16 = 1412;

impl Inner {
    /// Works within the session's snapshot, or in a new one if a table has been altered since that was taken.
    pub(super) fn current<T>(
        &self,
        session: &mut Session,
        mut work: impl FnMut(&mut Session) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        match work(session) {
            Err(fault) if fault.code() == Some(ALTERED) => {
                session.renew(self.pool.tick())?;
                work(session)
            }
            outcome => outcome,
        }
    }

    /// Renews a session whose snapshot was taken before an instant.
    pub(super) fn renew_before(
        &self,
        session: &mut Session,
        instant: u64,
    ) -> Result<(), CommandError> {
        if session.taken < instant { session.renew(self.pool.tick()) } else { Ok(()) }
    }

    /// Since when a name has stood for a table. `before` is an earlier instant at which it already did.
    pub(super) fn since(&self, id: &TableId, object: &Object, before: Option<u64>) -> u64 {
        let known = self.tables.get(id).ok().filter(|known| known.object == *object);
        let since = known.map(|known| known.since).or(before);
        since.unwrap_or_else(|| self.pool.tick())
    }
}
