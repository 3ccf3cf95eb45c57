//! Databases on Aptible: its CLI lists them, and each becomes a source of its own behind its own tunnel. The output of the
//! CLI may contain passwords and reaches no log.

pub(crate) mod account;
pub(crate) mod by_hand;
mod cli;
mod database;
mod failures;
pub(crate) mod inventory;
pub(crate) mod printed;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use self::account::{Backup, Environment, Listed};
use self::by_hand::{by_hand, not_there};
use self::database::{AptibleDatabase, Unavailable};
pub use self::inventory::{Backups, Entry, Inventory, Orphan, backups};
use crate::config::{
    AptibleAddress, Behind, Job, SourceKind, SourceSpec, matches, refuse_same_names,
};
use crate::error::{Error, Result};
use crate::model::{Excluded, LEFT_OUT};
use crate::progress::Progress;
use crate::retry::Retry;

/// A job in which each database on Aptible is its own source.
#[derive(Debug)]
pub struct Expanded<'a> {
    /// The job.
    pub job: Cow<'a, Job>,
    /// What exists on Aptible.
    pub inventory: Inventory,
}

/// Asks Aptible which databases exist, if a job has sources there. If an environment cannot be asked, it becomes a source
/// that reports why, so that it does not stop the others.
pub async fn expand<'a>(job: &'a Job, progress: &Progress, retry: &Retry) -> Result<Expanded<'a>> {
    let mut inventory = Inventory::default();
    if !job.sources.iter().any(|spec| matches!(spec.kind, SourceKind::Aptible(_))) {
        return Ok(Expanded { job: Cow::Borrowed(job), inventory });
    }
    let mut job = job.clone();
    // An environment is asked only once, even if several of its databases are named.
    let mut seen = HashMap::<Option<String>, Arc<Vec<Listed>>>::new();
    for spec in std::mem::take(&mut job.sources) {
        let SourceKind::Aptible(asked) = &spec.kind else {
            job.sources.push(spec);
            continue;
        };
        progress.doing(&format!("asking Aptible for the databases of {}", spec.name));
        match databases(asked, &mut seen, retry).await {
            Ok(found) => {
                let taken = take(&mut job, &mut inventory, &spec, asked, &found);
                if taken == 0 {
                    let error = Error::stop("every database is excluded, or there is none")
                        .hint("`aptible db:list` shows which databases exist");
                    job.sources.push(unavailable(&spec, &spec.name, error));
                }
                orphaned(&mut job, &mut inventory, asked, progress, retry).await?;
            }
            Err(_) if retry.interrupt().came() => return Err(Error::interrupted()),
            Err(error) => job.sources.push(unavailable(&spec, &spec.name, error)),
        }
    }
    refuse_same_names(&job.sources)?;
    Ok(Expanded { job: Cow::Owned(job), inventory })
}

/// The databases that an address names.
async fn databases(
    asked: &AptibleAddress,
    seen: &mut HashMap<Option<String>, Arc<Vec<Listed>>>,
    retry: &Retry,
) -> Result<Arc<Vec<Listed>>> {
    let found = match seen.get(&asked.environment) {
        Some(found) => Arc::clone(found),
        None => {
            let found = Arc::new(all(asked, retry).await?);
            seen.insert(asked.environment.clone(), Arc::clone(&found));
            found
        }
    };
    if let Some(handle) = &asked.handle
        && !found.iter().any(|listed| listed.handle == *handle)
    {
        let there: Vec<String> =
            found.iter().map(|listed| format!("`{}`", listed.handle.escape_debug())).collect();
        return Err(Error::stop(format!("there is no database `{}`", handle.escape_debug()))
            .hint(format!("the environment has {}", there.join(", "))));
    }
    Ok(found)
}

/// The databases of an environment, or of all of them.
async fn all(asked: &AptibleAddress, retry: &Retry) -> Result<Vec<Listed>> {
    let mut args = vec!["db:list"];
    match &asked.environment {
        Some(environment) => args.extend(["--environment", environment]),
        None => {
            let environments: Vec<Environment> = cli::ask(&["environment:list"], retry).await?;
            if environments.is_empty() {
                return Err(Error::stop("the login at Aptible sees no environment")
                    .hint("log in as somebody who sees one: `aptible login`"));
            }
        }
    }
    let mut found: Vec<Listed> = cli::ask(&args, retry).await?;
    if let Some(environment) = &asked.environment {
        found.retain(|listed| listed.environment.handle == *environment);
    }
    Ok(found)
}

/// Makes each database a source and returns their number.
fn take(
    job: &mut Job,
    inventory: &mut Inventory,
    spec: &SourceSpec,
    asked: &AptibleAddress,
    found: &[Listed],
) -> usize {
    let mut taken = 0;
    let is_asked =
        |listed: &&Listed| asked.handle.as_ref().is_none_or(|handle| listed.handle == *handle);
    for listed in found.iter().filter(is_asked) {
        let name = listed.name();
        let fits = |pattern: &String| matches(pattern, &name) || matches(pattern, &listed.handle);
        if spec.select.exclude.iter().any(fits) {
            job.excluded.push(Excluded {
                source: name,
                what: format!("the whole database ({})", listed.product()),
                why: LEFT_OUT.to_owned(),
            });
            continue;
        }
        taken += 1;
        inventory.databases.push(Entry::of(listed));
        let error = by_hand(listed).or_else(|| not_there(listed));
        job.sources.push(match error {
            Some(error) => unavailable(spec, &name, error),
            None => {
                let kind = SourceKind::Behind(Arc::new(AptibleDatabase::new(listed, asked)));
                SourceSpec { name, named: true, kind, select: spec.select.clone() }
            }
        });
        if listed.engine() == (account::Engine::MySql { is_old: true }) {
            job.warnings.push(format!(
                "{}: this version of MySQL is read as `aptible-nossl`, who may see only the database `db`; if there \
                 are others, dump them by hand",
                listed.name()
            ));
        }
    }
    taken
}

/// Warns of backups of databases that are gone: they are the only copy, and no export reads them.
async fn orphaned(
    job: &mut Job,
    inventory: &mut Inventory,
    asked: &AptibleAddress,
    progress: &Progress,
    retry: &Retry,
) -> Result<()> {
    if asked.handle.is_some() {
        return Ok(());
    }
    let mut args = vec!["backup:orphaned"];
    if let Some(environment) = &asked.environment {
        args.extend(["--environment", environment]);
    }
    progress.doing("asking Aptible for backups of deprovisioned databases");
    let warning = match cli::ask::<Vec<Backup>>(&args, retry).await {
        Ok(backups) if backups.is_empty() => return Ok(()),
        Ok(backups) => {
            let orphans = backups.into_iter().map(Orphan::of);
            let before = inventory.orphaned.len();
            inventory.orphaned.extend(orphans);
            inventory::told(&inventory.orphaned[before..])
        }
        Err(_) if retry.interrupt().came() => return Err(Error::interrupted()),
        Err(error) => {
            inventory.unknown.push(error.to_string());
            format!(
                "it is not known whether there are backups of deprovisioned databases, which no export reads: {error}"
            )
        }
    };
    progress.note(&format!("warning: {warning}"));
    job.warnings.push(warning);
    Ok(())
}

fn unavailable(spec: &SourceSpec, name: &str, error: Error) -> SourceSpec {
    let behind: Arc<dyn Behind> = Arc::new(Unavailable { address: name.to_owned(), error });
    SourceSpec {
        name: name.to_owned(),
        named: true,
        kind: SourceKind::Behind(behind),
        select: spec.select.clone(),
    }
}
