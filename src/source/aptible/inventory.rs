//! What exists on Aptible, for `plan`: the databases, and the backups that no export reads.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use serde::Serialize;

use crate::progress::Progress;
use crate::retry::Retry;
use crate::source::aptible::account::{Backup, Listed};
use crate::source::aptible::cli;
use crate::text::several;

/// How many databases' backups are asked for at the same time. Each starts the CLI once.
const AT_ONCE: usize = 4;
/// How many databases a warning names.
const NAMED: usize = 5;

/// What exists on Aptible.
#[derive(Debug, Default, Serialize)]
pub struct Inventory {
    /// The databases that are not excluded.
    pub databases: Vec<Entry>,
    /// The backups of databases that were deprovisioned.
    pub orphaned: Vec<Orphan>,
    /// Why it is not known whether there are more.
    #[serde(skip)]
    pub unknown: Vec<String>,
}

impl Inventory {
    /// Whether it has nothing.
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
    /// Its status: `provisioned` if it has a running server.
    pub status: Option<String>,
    /// The size of its disk in gigabytes, of which its rows need a part.
    pub disk_gigabytes: Option<u64>,
    /// How it is exported.
    pub how: String,
    /// Its backups, which are deleted when it is deprovisioned; `null` if they could not be asked for.
    pub backups: Option<Backups>,
    #[serde(skip)]
    pub(super) has_backups: bool,
}

/// The backups of a database.
#[derive(Debug, Default, Serialize)]
pub struct Backups {
    /// How many.
    pub count: u64,
    /// When the oldest one was made.
    pub oldest: Option<String>,
    /// When the newest one was made.
    pub newest: Option<String>,
}

/// A backup of a database that was deprovisioned.
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
    /// Its size in gigabytes, as Aptible states it.
    pub gigabytes: Option<f64>,
    /// The command that restores it, to a new database, which is billed.
    pub restore: String,
}

impl Entry {
    pub(crate) fn of(listed: &Listed) -> Self {
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
            has_backups: listed.kind.is_some(), // Aptible makes no backups of databases in RDS
        }
    }
}

impl Orphan {
    pub(crate) fn of(backup: Backup) -> Self {
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

/// The warning about backups that are the only copy of a database.
pub(super) fn told(orphans: &[Orphan]) -> String {
    let databases: BTreeSet<&str> = orphans.iter().map(|orphan| orphan.handle.as_str()).collect();
    let named: Vec<String> =
        databases.iter().take(NAMED).map(|handle| handle.escape_debug().to_string()).collect();
    let more = if databases.len() > NAMED { ", …" } else { "" };
    format!(
        "not in the archive: {} of deprovisioned databases ({}{more}); one can be exported only after it was restored to \
         a new database, which is billed; `moveout plan` lists them",
        several(orphans.len() as u64, "backup"),
        named.join(", ")
    )
}

/// Counts the backups of each database. Returns the failures.
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
                // Times in RFC 3339 sort correctly within one time zone.
                let times = || backups.iter().map(|backup| &backup.created_at);
                entry.backups = Some(Backups {
                    count: backups.len() as u64,
                    oldest: times().min().cloned(),
                    newest: times().max().cloned(),
                });
            }
            Err(error) => {
                failed.push(format!("{}: its backups could not be listed: {error}", entry.source))
            }
        }
    }
    failed.sort_unstable();
    failed
}
