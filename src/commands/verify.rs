//! The verb `verify`: compares bytes with manifests, files with the catalog, the parts of the catalog with each other,
//! and each of these in both directions. It trusts none of them alone, and changes only the record of the last verdict.
//!
//! `records` compares the manifests and the catalog, `work` has the threads that read everything else: `file` the files of a
//! chunk, which `decode` decodes, and `dump` a dump to its end. `against` asks the sources again.

mod against;
pub(crate) mod decode;
mod dump;
pub(in crate::commands) mod file;
mod records;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

pub use self::against::{Against, Depth};
pub use self::work::Options;
use crate::archive::bag::{self, Hashes};
use crate::archive::commit::Commit;
use crate::archive::{Archive, CHUNKS, MANIFEST, TAG_MANIFEST, is_artifact};

use self::against::{against_source, remember};
use self::work::Work;
use crate::config::{self, Flags, Location};
use crate::error::{Error, Exit, Result};
use crate::progress::Progress;
use crate::retry::{Interrupt, Retry};
use crate::signature::SigningKey;
use crate::source::aptible::expand;
use crate::store::reading::hash_object;
use crate::store::{Inventory, Store};

/// The result, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `verify`.
    pub command: &'static str,
    /// The verdict.
    pub status: ReportStatus,
    /// Where the archive is.
    pub archive: String,
    /// Whether only sizes and manifests were compared.
    pub quick: bool,
    /// Whether every byte was hashed and nothing decoded.
    pub hash_only: bool,
    /// Whether the archive is sealed.
    pub sealed: bool,
    /// Tables in the catalog.
    pub tables: usize,
    /// Chunks in the catalog.
    pub chunks: usize,
    /// Native dumps in the catalog.
    pub dumps: usize,
    /// Data files and artifacts that were read to the end, or with `--quick`, whose size was compared.
    pub files: u64,
    /// Data files and artifacts that the archive should hold.
    pub files_listed: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Rows that were decoded, or with `--quick` and `--hash-only`, that the catalog counts.
    pub rows: u64,
    /// The comparison with the sources, if they were asked.
    #[serde(flatten)]
    pub against: Option<Against>,
    /// All faults. Those of the data come first, and those that follow from others last.
    pub faults: Vec<Fault>,
    /// Files that could not be decoded within `--memory`.
    pub unchecked: Vec<Fault>,
    /// What the reader can do about it.
    pub hint: Option<&'static str>,
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
}

/// The verdict on an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ReportStatus {
    /// No fault was found.
    #[serde(rename = "ok")]
    Ok,
    /// A fault was found.
    #[serde(rename = "different")]
    Different,
    /// No fault was found, but the archive is not sealed.
    #[serde(rename = "unsealed")]
    Unsealed,
    /// No fault was found, but not everything could be decoded.
    #[serde(rename = "unfinished")]
    Unfinished,
}

/// What a fault concerns, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Concern {
    /// The rows: a payload file is missing, has changed, or is not a plain file.
    Data,
    /// The records about the rows: manifests and catalog.
    Records,
    /// Sums over records, which are wrong whenever a record is wrong.
    Sums,
}

/// A fault, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// What it concerns.
    pub concern: Concern,
    /// Key of the file, or name of the table.
    pub place: String,
    /// What is wrong with it.
    pub fault: String,
}

/// Verifies an archive.
pub async fn verify(place: &Location, options: Options, progress: &Progress) -> Result<Report> {
    let archive = Archive::open(place).await?;
    let Inventory { objects, staged, irregular } = archive.store().inventory("").await?;
    let sizes = objects.into_iter().map(|object| (object.key, object.size_bytes));
    let mut check = Check {
        store: archive.store().clone(),
        options,
        progress: progress.clone(),
        present: Arc::new(sizes.collect()),
        has_staged: !staged.is_empty(),
        irregular,
        faults: BTreeSet::new(),
        unchecked: BTreeSet::new(),
        unfinished: false,
        files: 0,
        bytes: 0,
        rows: 0,
    };
    check.name_irregular();
    let has_seal = check.present.contains_key(TAG_MANIFEST);
    let records =
        if has_seal { check.sealed(&archive).await? } else { check.unsealed(&archive).await? };
    let is_dump = |commit: &&Commit| commit.dump.is_some();
    let dumps = records.commits.iter().filter(is_dump).count();
    let (tables, chunks) = (records.tables, records.commits.len() - dumps);
    let files_listed = check.files(records).await?;
    progress.end();
    let sealed = has_seal && !check.unfinished;
    let (status, exit) = match (check.faults.is_empty(), sealed, check.unchecked.is_empty()) {
        (false, ..) => (ReportStatus::Different, Exit::Different),
        (true, false, _) => (ReportStatus::Unsealed, Exit::Incomplete),
        (true, true, false) => (ReportStatus::Unfinished, Exit::Incomplete),
        (true, true, true) => (ReportStatus::Ok, Exit::Done),
    };
    Ok(Report {
        command: "verify",
        status,
        archive: place.url.clone(),
        quick: options.quick,
        hash_only: options.hash_only,
        sealed,
        tables,
        chunks,
        dumps,
        files: check.files,
        files_listed,
        bytes: check.bytes,
        rows: check.rows,
        against: None,
        hint: check.hint(sealed),
        faults: check.faults.into_iter().collect(),
        unchecked: check.unchecked.into_iter().collect(),
        exit,
    })
}

/// Verifies an archive, and then asks its sources whether they still have its rows. `flags` name the sources. Without
/// them, the sources are those that the archive records.
pub async fn verify_against_source(
    place: &Location,
    options: Options,
    depth: Depth,
    flags: Flags,
    key: Option<&SigningKey>,
    progress: &Progress,
    interrupt: Interrupt,
) -> Result<Report> {
    // The verdict is about the archive as it is now. It is void if another run changes the archive meanwhile.
    let seen = Archive::open(place).await?.store().get(TAG_MANIFEST).await?;
    let mut report = interrupt.or(verify(place, options, progress)).await?;
    if !matches!(report.status, ReportStatus::Ok | ReportStatus::Unfinished) {
        let faults = report.faults.len();
        report.against = Some(Against::of_archive(&report.archive, faults, report.exit));
        return Ok(report);
    }
    let archive = Archive::open(place).await?;
    let state = archive.state().await?;
    let Some(run) = &state.run else {
        return Err(Error::different("catalog/run.json is missing"));
    };
    let mut job = config::load(Flags { recorded: against::recorded_sources(run), ..flags })?;
    (job.from, job.to) = against::recorded_range(run)?;
    job.warnings.iter().for_each(|warning| progress.note(&format!("warning: {warning}")));
    let retry = Retry::new(&job.limits, progress, interrupt.clone());
    let memory = options.memory_bytes;
    let expanded = expand(&job, progress, &retry).await?;
    let asked = against_source(&expanded.job, &archive, depth, memory, progress, &retry);
    let (mut against, record) = interrupt.or(asked).await?;
    against.orphaned(&job, &expanded.inventory);
    if !report.unchecked.is_empty() {
        against.unchecked(&report.archive, report.unchecked.len());
    }
    let how = match (options.quick, options.hash_only) {
        (true, _) => Some("by the sizes of its files alone (--quick)"),
        (_, true) => Some("by the hashes of its files alone (--hash-only)"),
        _ => None,
    };
    against.notes.extend(how.map(|how| format!("the archive itself was checked {how}")));
    let seen = seen.as_deref().map(|bytes| bag::read_manifest(TAG_MANIFEST, bytes)).transpose()?;
    // It is over in a moment, and half of it is no harm.
    let seen = seen.unwrap_or_default();
    interrupt.or_soon(remember(&mut against, record, &archive, &seen, key)).await?;
    if report.exit == Exit::Done {
        report.exit = against.exit;
    }
    report.against = Some(against);
    Ok(report)
}

struct Check {
    store: Store,
    options: Options,
    progress: Progress,
    /// The files of the archive, with their sizes.
    present: Arc<BTreeMap<String, u64>>,
    /// Whether something in it was half-written when it was listed.
    has_staged: bool,
    /// Entries that are not plain files.
    irregular: Vec<(String, &'static str)>,
    faults: BTreeSet<Fault>,
    unchecked: BTreeSet<Fault>,
    /// Whether a run has begun to extend a sealed archive, and was killed before it had removed the seal.
    unfinished: bool,
    files: u64,
    bytes: u64,
    rows: u64,
}

/// The records of the manifests and the catalog, with which the files are compared.
#[derive(Default)]
struct Records {
    tables: usize,
    commits: Vec<Commit>,
    hashes: Hashes,
}

impl Check {
    fn fault(&mut self, concern: Concern, place: &str, fault: impl Into<String>) {
        self.faults.insert(Fault { concern, place: place.to_owned(), fault: fault.into() });
    }

    /// Adds the fault of a file, which concerns the rows if the file is payload.
    fn file_fault(&mut self, key: &str, fault: impl Into<String>) {
        let concern = if key.starts_with("data/") { Concern::Data } else { Concern::Records };
        self.fault(concern, key, fault);
    }

    /// Adds a fault for everything that is not a plain file. The target of a link is not in the archive, and reading a
    /// pipe would never end, so none of them is opened.
    fn name_irregular(&mut self) {
        for (key, what) in self.irregular.clone() {
            self.file_fault(&key, format!("it is {what}"));
        }
    }

    /// The content of a file; `None` if it is missing or is not a plain file, which is reported elsewhere.
    async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        if self.present.contains_key(key) { self.store.get(key).await } else { Ok(None) }
    }

    fn hint(&self, sealed: bool) -> Option<&'static str> {
        // No run can tell whether the artifacts that it would save are those that were lost.
        let damaged = |fault: &Fault| fault.concern == Concern::Data && !is_artifact(&fault.place);
        match () {
            () if self.faults.iter().any(damaged) => Some(
                "as long as the source exists, move the changed files away and run the same `moveout export` again: \
                 it reads again what is missing",
            ),
            () if !self.faults.is_empty() => {
                Some("restore these files from a copy, or export into a new archive")
            }
            () if !sealed => {
                Some("run the same `moveout export` again: it goes on and seals the archive")
            }
            () if !self.unchecked.is_empty() => Some("give it more, such as --memory 4GiB"),
            () => None,
        }
    }

    /// Checks an archive without a seal, whose committed files must be there and intact.
    async fn unsealed(&mut self, archive: &Archive) -> Result<Records> {
        match archive.state().await {
            Ok(state) => {
                let tables = state.by_table().keys().filter(|id| !id.is_dump()).count();
                let commits = state.commits.iter().map(|commit| Commit::clone(commit)).collect();
                Ok(Records { tables, commits, hashes: Hashes::new() })
            }
            Err(error) if error.exit() == Exit::Different => {
                self.fault(Concern::Records, CHUNKS, error.to_string());
                Ok(Records::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the files of each chunk, on all cores, and then the artifacts. Returns how many files
    /// there should be.
    async fn files(&mut self, records: Records) -> Result<u64> {
        let Records { commits, hashes, .. } = records;
        let named: BTreeSet<&String> =
            commits.iter().flat_map(|commit| &commit.files).map(|file| &file.key).collect();
        let others: Vec<(String, String)> = hashes
            .iter()
            .filter(|(key, _)| !named.contains(key))
            .map(|(key, hash)| (key.clone(), hash.clone()))
            .collect();
        let listed = (named.len() + others.len()) as u64;
        let mut left = commits.len() as u64;
        self.progress.left(left, None);
        let (store, options) = (self.store.clone(), self.options);
        let work = Work { store, options, present: Arc::clone(&self.present) };
        let mut checked = work.start(commits);
        while let Some(checked) = checked.recv().await {
            left -= 1;
            self.take(checked?);
            self.progress.chunk_done();
            self.progress.left(left, None);
        }
        for (key, hash) in &others {
            if !self.present.contains_key(key) {
                continue; // it is named as missing
            }
            let Some((found, bytes)) = hash_object(&self.store, key).await? else { continue };
            self.files += 1;
            self.bytes += bytes;
            if found != *hash {
                self.file_fault(key, format!("its bytes are not those that {MANIFEST} records"));
            }
        }
        Ok(listed)
    }

    fn take(&mut self, checked: file::Checked) {
        self.files += checked.files;
        self.rows += checked.rows;
        self.bytes += checked.bytes;
        self.progress.add_rows(checked.rows);
        self.progress.add_bytes(checked.bytes);
        for (place, fault) in checked.faults {
            self.fault(Concern::Data, &place, fault);
        }
        for (place, fault) in checked.unchecked {
            self.unchecked.insert(Fault { concern: Concern::Data, place, fault });
        }
    }
}
