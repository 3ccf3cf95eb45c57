//! The verb `restore` writes an archive back into a server, chunk by chunk, and counts what is there at the end. The hash of
//! each file is checked before a row of it is sent. What a target cannot hold is named row by row.

mod choose;
mod compare;
mod narrow;
mod read;
mod rejects;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};

pub use self::choose::Options;
use self::choose::{Chosen, Work, choose};
use self::rejects::Rejects;
use crate::archive::Archive;
use crate::config::{Location, SourceSpec};
use crate::error::{Error, Exit, Result};
use crate::model::TableId;
use crate::progress::Progress;
use crate::retry::{Interrupt, Retry};
use crate::target::journal::Journal;
use crate::target::{ChunkOut, Known, Plan, Target, Written, registry};
use crate::text::several;

/// The result, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// Always `restore`.
    pub command: &'static str,
    /// How it ended.
    pub status: RestoreStatus,
    /// Where the archive is.
    pub archive: String,
    /// What the target says of itself.
    pub target: String,
    /// What was made, or would be made.
    pub created: Vec<String>,
    /// Each table.
    pub tables: Vec<RestoredTable>,
    /// Rows that the target has taken, those of earlier runs of the same restore included.
    pub rows: u64,
    /// Rows that it cannot hold.
    pub rejected: u64,
    /// The file that names those.
    pub rejects: Option<PathBuf>,
    /// What is not as the archive has it.
    pub differences: Vec<String>,
    /// Tables that this target cannot take.
    pub skipped: Vec<String>,
    /// What the user should know or do.
    pub notes: Vec<String>,
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
}

/// How a restore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreStatus {
    /// The target has what the archive has.
    Complete,
    /// The target has all but the rejected rows, or something is different.
    Different,
    /// Nothing was written.
    Planned,
}

/// What was restored of a table.
#[derive(Debug, Clone, Serialize)]
pub struct RestoredTable {
    /// Its name in the archive.
    pub from: TableId,
    /// Its name in the target.
    pub to: TableId,
    /// Chunks of it.
    pub chunks: u64,
    /// Rows that are to be there.
    pub rows: u64,
    /// Rows that the target has not taken.
    pub rejected: u64,
}

/// Restores an archive into a target.
pub async fn restore(
    place: &Location,
    target: &SourceSpec,
    options: Options,
    progress: &Progress,
    interrupt: Interrupt,
) -> Result<Restored> {
    let retry = Retry::new(&options.limits, progress, interrupt.clone());
    interrupt.or(run(place, target, options, progress, &retry)).await
}

async fn run(
    place: &Location,
    spec: &SourceSpec,
    options: Options,
    progress: &Progress,
    retry: &Retry,
) -> Result<Restored> {
    progress.doing("reading the catalog");
    let archive = Archive::open(place).await?;
    let state = archive.state().await?;
    let target = registry::open(spec, &options.limits, retry).await?;
    let description = target.describe().await?;
    let Chosen { plan, chunks, skipped } =
        choose(&archive, &state, &options, &spec.select.databases, target.as_ref()).await?;
    let mut notes = Vec::new();
    if !state.sealed {
        notes
            .push("the archive is not sealed: what was not exported cannot be restored".to_owned());
    }
    if plan.tables.is_empty() {
        return Err(Error::usage(format!("there is nothing in {} for {description}", place.url))
            .hint("`moveout status ARCHIVE` lists its tables; --table, --from and --to choose among them"));
    }
    progress.doing("asking the target what it has");
    let needs = target.needs(&plan).await?;
    notes.extend(needs.notes);
    let mut journal = Journal::open(&format!("{} {}", spec.name, described(&plan, &chunks)))?;
    // Rows that the target makes out of others are not sent, but counted at the end.
    let (made_there, chunks): (Vec<Work>, Vec<Work>) =
        chunks.into_iter().partition(|work| needs.derived.contains(&work.table.to));
    let known = target.known(&plan).await?;
    let is_exact = known.is_some();
    let is_done = known.as_ref().is_some_and(|known| known.is_done);
    if is_done {
        // The tables no longer have a record of what was restored.
    } else if let Some(known) = known {
        refuse_other_restore(&known, &chunks)?;
        journal.believe(&known);
        refuse_foreign(&known.occupied, &journal)?;
    } else {
        let occupied = compare::occupied(spec, &options.limits, &plan, retry).await?;
        refuse_foreign(&occupied, &journal)?;
        forget_lost(&mut journal, &occupied, &chunks);
    }
    let mut restored = Restored {
        command: "restore",
        status: RestoreStatus::Planned,
        archive: place.url.clone(),
        target: description,
        created: needs.create,
        tables: Vec::new(),
        rows: 0,
        rejected: 0,
        rejects: None,
        differences: Vec::new(),
        skipped,
        notes,
        exit: Exit::Done,
    };
    if options.dry_run || is_done {
        restored.tables = tables(&chunks, |work| Written { rows: work.commit.rows, rejected: 0 });
        restored.rows = restored.tables.iter().map(|table| table.rows).sum();
        if is_done && !options.dry_run {
            restored.notes.extend(target.finish(&plan).await?);
            restored.status = RestoreStatus::Complete;
        }
        return Ok(restored);
    }
    let begun: Vec<TableId> = plan.tables.iter().map(|table| table.to.clone()).collect();
    let begun = begun.into_iter().filter(|table| !journal.has_begun(table)).collect();
    let rejects = Rejects::new(&mut journal, options.rejects.clone())?;
    journal.begin(begun)?;
    target.create(&plan).await?;
    let work = Writing {
        archive: &archive,
        target: &target,
        options: &options,
        progress,
        retry: is_exact.then_some(retry),
        name: &spec.name,
        writers: Semaphore::new(options.limits.concurrency),
    };
    let journal = Mutex::new(journal);
    let written = work.chunks(&chunks, &journal, &rejects).await?;
    restored.tables = tables(&chunks, |work| written[&work.name].clone());
    restored.rows = restored.tables.iter().map(|table| table.rows).sum();
    restored.rejected = restored.tables.iter().map(|table| table.rejected).sum();

    progress.doing("making what comes after the rows");
    let settled = target.settle(&plan).await?;
    restored.notes.extend(settled.notes);
    progress.doing("counting what is there");
    let counting = compare::counted(target.as_ref(), &chunks, &written);
    let ((differences, counted), notes) = tokio::try_join!(counting, target.analyze(&plan))?;
    restored.differences = differences;
    restored.notes.extend(notes);
    let is_left = |work: &&Work| options.verify || !counted.contains(&work.table.to);
    let left: Vec<&Work> = chunks.iter().filter(is_left).collect();
    let compared = compare::compare(spec, &options, &left, &written, retry, progress).await?;
    restored.differences.extend(compared);
    restored.differences.extend(settled.differences);
    restored.notes.extend(compare::made_there(target.as_ref(), &made_there).await?);
    if restored.differences.is_empty() {
        progress.doing("finishing");
        restored.notes.extend(target.finish(&plan).await?);
        journal.into_inner().unwrap_or_else(PoisonError::into_inner).end()?;
    } else {
        restored
            .notes
            .push("what comes last was not done, because something is different".to_owned());
    }
    progress.end();
    restored.rejects = rejects.path_if_any(restored.rejected > 0);
    let is_exact = restored.differences.is_empty() && restored.rejected == 0;
    (restored.status, restored.exit) = match is_exact {
        true => (RestoreStatus::Complete, Exit::Done),
        false => (RestoreStatus::Different, Exit::Different),
    };
    if is_exact && !state.sealed {
        restored.exit = Exit::Incomplete;
    }
    Ok(restored)
}

/// What tells one restore into a target from another: the places of its tables, and its chunks. Rows that the restore of
/// another archive has left there are foreign.
fn described(plan: &Plan, chunks: &[Work]) -> String {
    let places = plan.tables.iter();
    let places: BTreeSet<String> =
        places.map(|table| format!("{:?} {:?}", table.to.database, table.to.schema)).collect();
    let names: BTreeSet<&str> = chunks.iter().map(|work| work.name.as_str()).collect();
    places.iter().map(String::as_str).chain(names).collect::<Vec<_>>().join(", ")
}

/// Refuses to mix rows with those of somebody else, because nobody could tell them apart afterwards.
fn refuse_foreign(occupied: &BTreeSet<TableId>, journal: &Journal) -> Result<()> {
    let foreign: Vec<_> =
        occupied.iter().filter(|table| !journal.has_begun(table)).map(TableId::to_string).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let shown = foreign.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = foreign.len().saturating_sub(5);
    let more = if more > 0 {
        format!(" and {}", several(more as u64, "other table"))
    } else {
        String::new()
    };
    Err(Error::stop(format!("the target has rows in {shown}{more}; nothing was changed"))
        .hint("restore into an empty place: `--map OLD=NEW` gives a database another name"))
}

/// Refuses to go on if the tables also have rows of the restore of something else.
fn refuse_other_restore(known: &Known, chunks: &[Work]) -> Result<()> {
    let ours: BTreeSet<&str> = chunks.iter().map(|work| work.name.as_str()).collect();
    if known.chunks.keys().all(|name| ours.contains(name.as_str())) {
        return Ok(());
    }
    Err(Error::stop(
        "the target has a part of another restore, which was of another archive or had other options; nothing was changed",
    )
    .hint(
        "run that one to its end, or remove what it has written and its record, which is called moveout_restore there",
    ))
}

/// Forgets what the journal says of tables that have no rows any more, because somebody has made the target anew.
fn forget_lost(journal: &mut Journal, occupied: &BTreeSet<TableId>, chunks: &[Work]) {
    let lost = chunks.iter().filter(|work| !occupied.contains(&work.table.to));
    let names: Vec<String> = lost.map(|work| work.name.clone()).collect();
    journal.forget(&names);
}

fn tables(chunks: &[Work], written: impl Fn(&Work) -> Written) -> Vec<RestoredTable> {
    let mut tables = BTreeMap::<TableId, RestoredTable>::new();
    for work in chunks {
        let (from, to) = (work.table.from.clone(), work.table.to.clone());
        let table = tables.entry(to.clone());
        let table =
            table.or_insert_with(|| RestoredTable { from, to, chunks: 0, rows: 0, rejected: 0 });
        let Written { rows, rejected } = written(work);
        table.chunks += 1;
        table.rows += rows;
        table.rejected += rejected;
    }
    tables.into_values().collect()
}

struct Writing<'a> {
    archive: &'a Archive,
    target: &'a Arc<dyn Target>,
    options: &'a Options,
    progress: &'a Progress,
    /// What repeats a chunk, if the target undoes what a failed attempt has written.
    retry: Option<&'a Retry>,
    /// The name of the target.
    name: &'a str,
    /// Permits to write a chunk. One chunk more than these is on its way: it is read before it may be written.
    writers: Semaphore,
}

impl Writing<'_> {
    /// Writes all chunks that the journal does not have, the oldest first. Returns what became of each, by its name.
    async fn chunks(
        &self,
        chunks: &[Work],
        journal: &Mutex<Journal>,
        rejects: &Rejects,
    ) -> Result<BTreeMap<String, Written>> {
        let mut written = BTreeMap::new();
        let mut todo = Vec::new();
        for work in chunks {
            let known = journal.lock().unwrap_or_else(PoisonError::into_inner);
            match known.written(&work.name) {
                Some(known) => _ = written.insert(work.name.clone(), known.clone()),
                None => todo.push(work),
            }
        }
        let mut left = todo.len() as u64;
        self.progress.left(left, Some(todo.iter().map(|work| work.commit.rows).sum()));
        let done = futures::stream::iter(todo)
            .map(|work| self.chunk_once(work, rejects, journal))
            .buffer_unordered(self.options.limits.concurrency + 1);
        let mut done = std::pin::pin!(done);
        while let Some(one) = done.next().await {
            let (name, one) = one?;
            written.insert(name, one);
            left = left.saturating_sub(1);
            self.progress.chunk_done();
            self.progress.left(left, None);
        }
        Ok(written)
    }

    /// Writes a chunk and records that in the journal. Returns its name, too.
    async fn chunk_once(
        &self,
        work: &Work,
        rejects: &Rejects,
        journal: &Mutex<Journal>,
    ) -> Result<(String, Written)> {
        let written = match self.retry {
            Some(retry) => retry.with_retry(self.name, || self.chunk(work, rejects)).await,
            None => self.chunk(work, rejects).await,
        };
        let written = written.map_err(|error| {
            error.context(format!("restoring {} {}", work.table.from, work.commit.slice))
        })?;
        rejects.sync()?; // before the journal says that the chunk is done
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.add_chunk(&work.name, &written)?;
        Ok((work.name.clone(), written))
    }

    async fn chunk(&self, work: &Work, rejects: &Rejects) -> Result<Written> {
        let _reading = self.progress.reading(&work.table.from.to_string(), &work.table.from.source);
        let store = self.archive.store();
        let share = self.options.limits.memory_bytes / self.options.limits.concurrency.max(1) / 2;
        // The permits are given in the order in which they are asked for, so that the oldest chunk is written first.
        let reading = read::rows(store, &work.commit, share, work.within);
        let (read, writing) = tokio::join!(reading, self.writers.acquire());
        let ((columns, rows, reading), _permit) = (read?, writing.map_err(Error::stop)?);
        let (table, slice) = (Arc::clone(&work.table), work.commit.slice);
        let chunk = ChunkOut { name: work.name.clone(), table, slice, columns };
        let (sender, mut refused) = mpsc::unbounded_channel();
        let writing = self.target.write(&chunk, rows, reading, sender);
        let noting = async {
            while let Some(reject) = refused.recv().await {
                rejects.add(&work.table.from, slice, &reject)?;
            }
            Ok::<_, Error>(())
        };
        let (written, noted) = tokio::join!(writing, noting);
        noted?;
        let written = written?;
        self.progress.add_rows(written.rows + written.rejected);
        self.progress.add_bytes(work.commit.files.iter().map(|file| file.bytes).sum());
        Ok(written)
    }
}
