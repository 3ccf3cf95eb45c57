//! What there is on Aptible, for `plan`: the databases, and the backups that no export reads.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use serde::Serialize;

use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::aptible::account::{Backup, Listed};
use crate::source::aptible::cli;
use crate::text::several;

/// Databases whose backups are asked for at once: each is a start of the CLI.
const AT_ONCE: usize = 4;
/// Databases that a warning names.
const NAMED: usize = 5;

/// What there is on Aptible.
#[derive(Debug, Default, Serialize)]
pub struct Inventory {
    /// The databases that are not left out.
    pub databases: Vec<Entry>,
    /// Backups of databases that are gone, each for itself.
    pub orphaned: Vec<Orphan>,
}

impl Inventory {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.orphaned.is_empty()
    }
}

/// A database.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// `ENVIRONMENT.HANDLE`, its name in the archive.
    pub source: String,
    /// Its environment.
    pub environment: String,
    /// Its handle there.
    pub handle: String,
    /// Its type, as Aptible calls it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether it has a server.
    pub status: Option<String>,
    /// Gigabytes of its disk, of which its rows take a part.
    pub disk_gigabytes: Option<u64>,
    /// How it is exported.
    pub how: String,
    /// Its backups, which go when it is deprovisioned; `null` where they could not be asked for.
    pub backups: Option<Backups>,
    #[serde(skip)]
    pub(super) has_backups: bool,
}

/// The backups of a database.
#[derive(Debug, Default, Serialize)]
pub struct Backups {
    /// How many.
    pub count: u64,
    /// When the first one was made.
    pub oldest: Option<String>,
    /// When the last one was made.
    pub newest: Option<String>,
}

/// A backup of a database that is gone.
#[derive(Debug, Serialize)]
pub struct Orphan {
    /// Its number, by which it can be restored.
    pub id: String,
    /// The environment that the database was in.
    pub environment: Option<String>,
    /// Its handle there.
    pub handle: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When the database was deprovisioned.
    pub deleted_at: Option<String>,
    /// When the backup was made.
    pub created_at: String,
    /// Gigabytes that Aptible says it takes.
    pub gigabytes: Option<f64>,
    /// What restores it: to a new database, which is billed.
    pub restore: String,
}

impl Entry {
    pub(super) fn of(listed: &Listed) -> Self {
        let engine = listed.engine();
        Self {
            source: listed.name(),
            environment: listed.environment.handle.clone(),
            handle: listed.handle.clone(),
            kind: listed.kind.clone(),
            version: listed.version.clone(),
            status: listed.status.clone(),
            disk_gigabytes: listed.disk_size,
            how: engine.how().to_owned(),
            backups: None,
            has_backups: listed.kind.is_some(), // Aptible makes none of what is in RDS
        }
    }
}

impl Orphan {
    pub(super) fn of(backup: Backup) -> Self {
        let id = match &backup.id {
            serde_json::Value::String(id) => id.clone(),
            id => id.to_string(),
        };
        let database = backup.database;
        Self {
            restore: format!("aptible backup:restore {id}"),
            id,
            environment: database
                .as_ref()
                .and_then(|database| Some(database.environment.as_ref()?.handle.clone())),
            handle: database.as_ref().map(|database| database.handle.clone()).unwrap_or_default(),
            kind: database.as_ref().and_then(|database| database.kind.clone()),
            deleted_at: database.and_then(|database| database.deleted_at),
            created_at: backup.created_at,
            gigabytes: backup.size,
        }
    }
}

/// The warning of backups that are all there is of a database.
pub(super) fn told(orphans: &[Orphan]) -> String {
    let databases: BTreeSet<&str> = orphans.iter().map(|orphan| orphan.handle.as_str()).collect();
    let named: Vec<String> =
        databases.iter().take(NAMED).map(|handle| handle.escape_debug().to_string()).collect();
    let more = if databases.len() > NAMED { ", …" } else { "" };
    format!(
        "not in the archive: {} of databases that were deprovisioned ({}{more}); only restoring one to a new database, \
         which is billed, lets it be exported; `moveout plan` lists them",
        several(orphans.len() as u64, "backup"),
        named.join(", ")
    )
}

/// Counts the backups of each database that is there. Returns what could not be asked.
pub async fn backups(inventory: &mut Inventory, progress: &Progress, retry: &Retry) -> Vec<String> {
    let there: Vec<_> = (inventory.databases.iter().enumerate())
        .filter(|(_, entry)| entry.has_backups)
        .map(|(at, entry)| (at, entry.handle.clone(), entry.environment.clone()))
        .collect();
    if !there.is_empty() {
        progress.doing("asking Aptible for the backups of the databases");
    }
    let asked = stream::iter(there)
        .map(|(at, handle, environment)| async move {
            let args = ["backup:list", &handle, "--environment", &environment, "--max-age", "99y"];
            (at, cli::ask::<Vec<Backup>>(&args, retry).await)
        })
        .buffer_unordered(AT_ONCE);
    let mut failed = Vec::new();
    for (at, answer) in asked.collect::<Vec<_>>().await {
        let entry = &mut inventory.databases[at];
        match answer {
            Ok(backups) => {
                // RFC 3339 in one zone sorts by time.
                let times = || backups.iter().map(|backup| &backup.created_at);
                entry.backups = Some(Backups {
                    count: backups.len() as u64,
                    oldest: times().min().cloned(),
                    newest: times().max().cloned(),
                });
            }
            Err(error) => {
                failed.push(format!("{}: its backups are not known: {error}", entry.source))
            }
        }
    }
    failed.sort_unstable();
    failed
}
