//! Native dumps: the output of other programs, kept beside the rows of a server (PostgreSQL, MySQL) or as everything that a
//! source has (Redis, MongoDB, any program). `format` decides from the bytes alone whether a dump is complete.

pub mod format;
mod mongodb;
pub(in crate::source) mod program;
mod redis;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub(in crate::source) use self::program::Terms;
use crate::config::{DumpProgram, DumpServer, Limits, SourceSpec};
use crate::error::{Error, Result};
use crate::model::{
    Artifacts, Chunk, DumpFormat, DumpPlan, Dumped, Listing, ReadSummary, RowCount, Size,
    SourceInfo, Table, TableId,
};
use crate::source::Source;
use crate::source::channel::{BatchSender, DumpSender};
use crate::source::child::name_of;
use crate::window::Window;

/// The name of a dump of all databases of a server.
pub(in crate::source) const ALL: &str = "all";

/// What is known about the dumps that a source has listed, by their names.
#[derive(Debug, Default)]
pub(in crate::source) struct Listed(Mutex<BTreeMap<String, (DumpPlan, Size)>>);

impl Listed {
    /// Lists a dump, or the reason why it cannot be made.
    pub(in crate::source) fn add(
        &self,
        listing: &mut Listing,
        source: &str,
        name: &str,
        plan: Result<(DumpPlan, Size)>,
    ) {
        match plan {
            Ok(plan) => {
                listing.tables.push(Table::of_dump(source, name));
                self.lock().insert(name.to_owned(), plan);
            }
            Err(error) => {
                let why = match error.hint_text() {
                    Some(hint) => format!("{error}; {hint}"),
                    None => error.to_string(),
                };
                listing.unreadable.push((TableId::dump(source, name), why));
            }
        }
    }

    /// How a dump is made; `None` for a table.
    pub(in crate::source) fn plan(&self, table: &TableId) -> Option<DumpPlan> {
        self.get(table).map(|(plan, _)| plan)
    }

    /// The estimated size of the database of which the dump is; `None` for a table.
    pub(in crate::source) fn size(&self, table: &TableId) -> Option<Size> {
        self.get(table).map(|(_, size)| size)
    }

    fn get(&self, table: &TableId) -> Option<(DumpPlan, Size)> {
        if table.is_dump() { self.lock().get(&table.table).cloned() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (DumpPlan, Size)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source that consists only of a dump.
struct DumpSource {
    name: String,
    origin: Origin,
    silence: Duration,
    listed: Listed,
}

enum Origin {
    Redis(DumpServer),
    MongoDb(DumpServer),
    Program(DumpProgram),
}

/// Prepares a Redis as a source.
pub(super) fn open_redis(
    spec: &SourceSpec,
    server: &DumpServer,
    limits: &Limits,
) -> Arc<dyn Source> {
    open(spec, Origin::Redis(server.clone()), limits)
}

/// Prepares a MongoDB as a source.
pub(super) fn open_mongodb(
    spec: &SourceSpec,
    server: &DumpServer,
    limits: &Limits,
) -> Arc<dyn Source> {
    open(spec, Origin::MongoDb(server.clone()), limits)
}

/// Prepares the output of a program as a source.
pub(super) fn open_program(
    spec: &SourceSpec,
    program: &DumpProgram,
    limits: &Limits,
) -> Arc<dyn Source> {
    open(spec, Origin::Program(program.clone()), limits)
}

fn open(spec: &SourceSpec, origin: Origin, limits: &Limits) -> Arc<dyn Source> {
    let (name, silence, listed) = (spec.name.clone(), program::silence(limits), Listed::default());
    Arc::new(DumpSource { name, origin, silence, listed })
}

impl DumpSource {
    fn terms(&self) -> Terms<'_> {
        let (secret, permanent): (_, &[&str]) = match &self.origin {
            Origin::Redis(server) => (server.password.as_ref(), redis::PERMANENT),
            Origin::MongoDb(server) => (server.password.as_ref(), mongodb::PERMANENT),
            Origin::Program(_) => (None, &[]),
        };
        Terms { silence: self.silence, secret, permanent }
    }

    /// The name of its one dump.
    fn dump_name(&self) -> &str {
        match &self.origin {
            Origin::MongoDb(DumpServer { database: Some(database), .. }) => database,
            Origin::Redis(_) | Origin::MongoDb(_) => ALL,
            Origin::Program(_) => "output",
        }
    }

    async fn plan(&self, warnings: &mut Vec<String>) -> Result<(DumpPlan, Size)> {
        let unknown = Size::default();
        match &self.origin {
            Origin::Redis(server) => {
                let plan = redis::plan().await?;
                let mut found = redis::describe(server, self.terms()).await?;
                warnings.append(&mut found.warnings);
                Ok((plan, found.size))
            }
            Origin::MongoDb(_) => Ok((mongodb::plan().await?, unknown)),
            Origin::Program(DumpProgram { command, ends_with }) => {
                let format = DumpFormat::EndsWith(ends_with.clone());
                Ok((DumpPlan { program: program_name(command), format }, unknown))
            }
        }
    }
}

#[async_trait]
impl Source for DumpSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let (address, version) = match &self.origin {
            Origin::Redis(server) => {
                let found = redis::describe(server, self.terms()).await?;
                (format!("redis://{}:{}", server.host, server.port), found.version)
            }
            Origin::MongoDb(server) => {
                mongodb::reach(server).await?;
                (format!("mongodb://{}:{}", server.host, server.port), "MongoDB".to_owned())
            }
            // The arguments may contain anything, so only the name is shown.
            Origin::Program(program) => ("a program".to_owned(), program_name(&program.command)),
        };
        Ok(SourceInfo { name: self.name.clone(), address, version, identity: None })
    }

    async fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let plan = self.plan(&mut listing.warnings).await;
        self.listed.add(&mut listing, &self.name, self.dump_name(), plan);
        Ok(listing)
    }

    async fn list_again(&self) -> Result<Option<Listing>> {
        Ok(None)
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        Ok(vec![None; tables.len()])
    }

    async fn count(&self, _table: &Table, _window: Window) -> Result<RowCount> {
        Ok(RowCount { rows: 0, exact: true })
    }

    fn size(&self, table: &TableId) -> Size {
        self.listed.size(table).unwrap_or_default()
    }

    async fn read(&self, _chunk: &Chunk, _batches: BatchSender) -> Result<ReadSummary> {
        Err(Error::fail("this source has no rows"))
    }

    fn dump(&self, table: &TableId) -> Option<DumpPlan> {
        self.listed.plan(table)
    }

    async fn read_dump(&self, _dump: &TableId, output: DumpSender) -> Result<Dumped> {
        match &self.origin {
            Origin::Redis(server) => redis::dump(server, output, self.terms()).await,
            Origin::MongoDb(server) => mongodb::dump(server, &output, self.terms()).await,
            Origin::Program(DumpProgram { command, .. }) => {
                let [program, args @ ..] = command.as_slice() else {
                    return Err(Error::usage("`command` needs a program"));
                };
                let mut command = Command::new(program);
                command.args(args);
                program::run(command, &output, self.terms()).await?;
                Ok(Dumped::default())
            }
        }
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        Ok(Artifacts::of(&self.name))
    }
}

fn program_name(command: &[String]) -> String {
    command.first().map(|program| name_of(program.as_ref())).unwrap_or_default()
}
