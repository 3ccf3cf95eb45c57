//! The verb `verify`: bytes against manifests, files against the catalog, the catalog against
//! itself, and each the other way round. Believes none of them alone; changes nothing.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::archive::bag::{self, Hashes};
use crate::archive::catalog::{self, RunEntry, TableEntry};
use crate::archive::commit::{Commit, FileRecord};
use crate::archive::{
    Archive, CHUNKS, MANIFEST, RUN, TABLES, TAG_MANIFEST, hash_object, without_overlaps,
};
use crate::config::Place;
use crate::coverage::Coverage;
use crate::error::{Exit, Result};
use crate::progress::Progress;
use crate::store::Store;

/// Every tag file of a sealed archive.
const TAG_FILES: [&str; 7] =
    [TABLES, CHUNKS, RUN, "README.txt", "bagit.txt", "bag-info.txt", MANIFEST];
/// Files checked at once.
const AT_ONCE: usize = 2;

/// What was found, for people and for `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Always `verify`.
    pub command: &'static str,
    /// `ok`, `different` or `unsealed`.
    pub status: &'static str,
    /// Where the archive is.
    pub archive: String,
    /// Whether only sizes and manifests were looked at.
    pub quick: bool,
    /// Whether the archive is sealed.
    pub sealed: bool,
    /// Tables in the catalog.
    pub tables: usize,
    /// Chunks in the catalog.
    pub chunks: usize,
    /// Data files and artifacts checked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows decoded (with `--quick`: counted in the catalog).
    pub rows: u64,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// Key of the file, or name of the table.
    pub place: String,
    /// What is wrong with it.
    pub fault: String,
}

/// Verifies an archive.
pub async fn verify(place: &Place, quick: bool, progress: &Progress) -> Result<Report> {
    let archive = Archive::open(place).await?;
    let mut check = Check {
        store: archive.store().clone(),
        quick,
        progress: progress.clone(),
        present: archive.store().list("").await?.into_iter().collect(),
        faults: BTreeSet::new(),
        files: 0,
        bytes: 0,
        rows: 0,
    };
    let sealed = check.present.contains_key(TAG_MANIFEST);
    let (tables, commits) = match sealed {
        true => check.sealed(&archive).await?,
        false => check.unsealed(&archive).await?,
    };
    check.files(commits).await?;
    progress.end();
    let (status, exit) = match (check.faults.is_empty(), sealed) {
        (false, _) => ("different", Exit::Different),
        (true, false) => ("unsealed", Exit::Incomplete),
        (true, true) => ("ok", Exit::Done),
    };
    Ok(Report {
        command: "verify",
        status,
        archive: place.url.clone(),
        quick,
        sealed,
        tables: tables.0,
        chunks: tables.1,
        files: check.files,
        bytes: check.bytes,
        rows: check.rows,
        faults: check.faults.into_iter().collect(),
        exit,
    })
}

struct Check {
    store: Store,
    quick: bool,
    progress: Progress,
    /// What is there, with its size.
    present: BTreeMap<String, u64>,
    faults: BTreeSet<Fault>,
    files: u64,
    bytes: u64,
    rows: u64,
}

/// What remains to be checked file by file: commits, and payload hashes by the manifest.
struct Todo {
    commits: Vec<Commit>,
    hashes: Hashes,
}

impl Check {
    fn fault(&mut self, place: &str, fault: impl Into<String>) {
        self.faults.insert(Fault { place: place.to_owned(), fault: fault.into() });
    }

    /// An archive without a seal: what was committed must be there and whole.
    async fn unsealed(&mut self, archive: &Archive) -> Result<((usize, usize), Todo)> {
        let state = match archive.state().await {
            Ok(state) => state,
            Err(error) if error.exit() == Exit::Different => {
                self.fault(CHUNKS, error.to_string());
                return Ok(((0, 0), Todo { commits: Vec::new(), hashes: Hashes::new() }));
            }
            Err(error) => return Err(error),
        };
        let tables = state.by_table().len();
        let chunks = state.commits.len();
        Ok(((tables, chunks), Todo { commits: state.commits, hashes: Hashes::new() }))
    }

    async fn sealed(&mut self, archive: &Archive) -> Result<((usize, usize), Todo)> {
        self.tag_files().await?;
        let hashes = self.manifest(MANIFEST).await?.unwrap_or_default();
        self.payload(&hashes);
        self.strangers(archive).await?;
        let commits = self.catalog(&hashes).await?;
        let tables = catalog::tables(&commits).len();
        let chunks = commits.len();
        Ok(((tables, chunks), Todo { commits, hashes }))
    }

    /// Every tag file is listed, and is what the tag manifest says.
    async fn tag_files(&mut self) -> Result<()> {
        let Some(tags) = self.manifest(TAG_MANIFEST).await? else { return Ok(()) };
        for key in TAG_FILES {
            if !tags.contains_key(key) {
                self.fault(key, format!("{TAG_MANIFEST} does not list it"));
            }
        }
        for (key, hash) in &tags {
            match hash_object(&self.store, key).await? {
                None => self.fault(key, "it is missing"),
                Some((found, _)) if found != *hash => {
                    self.fault(key, format!("its bytes are not those that {TAG_MANIFEST} records"));
                }
                Some(_) => {}
            }
        }
        if self.store.get("bagit.txt").await?.is_some_and(|text| text != bag::BAGIT_TXT) {
            self.fault("bagit.txt", "it does not declare a BagIt 1.0 bag");
        }
        Ok(())
    }

    async fn manifest(&mut self, key: &str) -> Result<Option<Hashes>> {
        let Some(bytes) = self.store.get(key).await? else {
            self.fault(key, "it is missing");
            return Ok(None);
        };
        match std::str::from_utf8(&bytes).map_err(|e| e.to_string()).and_then(bag::parse_manifest) {
            Ok(hashes) => Ok(Some(hashes)),
            Err(error) => {
                self.fault(key, error);
                Ok(None)
            }
        }
    }

    /// What the manifest lists is there, and nothing else is.
    fn payload(&mut self, hashes: &Hashes) {
        let listed: BTreeSet<&String> = hashes.keys().collect();
        let there: Vec<String> =
            self.present.keys().filter(|key| key.starts_with("data/")).cloned().collect();
        for key in &listed {
            match (self.present.contains_key(*key), key.starts_with("data/")) {
                (_, false) => self.fault(key, format!("{MANIFEST} lists it, but it is no payload")),
                (false, true) => self.fault(key, "it is missing"),
                (true, true) => {}
            }
        }
        for key in there.iter().filter(|key| !listed.contains(key)) {
            self.fault(key, format!("{MANIFEST} does not list it"));
        }
    }

    /// Whatever else lies in the folder belongs to a living run or to nobody.
    async fn strangers(&mut self, archive: &Archive) -> Result<()> {
        let known = |key: &str| {
            key.starts_with("data/")
                || key == TAG_MANIFEST
                || key == "report.html"
                || TAG_FILES.contains(&key)
        };
        let strangers: Vec<String> =
            self.present.keys().filter(|key| !known(key)).cloned().collect();
        let staged = self.store.staged().await?;
        if strangers.is_empty() && staged.is_empty() {
            return Ok(());
        }
        let at_work = match archive.state().await {
            Ok(state) => state.living("").next().is_some(),
            Err(_) => false, // the catalog is broken, and named as such elsewhere
        };
        for key in strangers.iter().filter(|key| !(at_work && key.starts_with(".moveout/"))) {
            self.fault(key, "it does not belong to the archive");
        }
        for staged in staged.iter().filter(|_| !at_work) {
            self.fault(
                &staged.key,
                "half of it was left by a run that was killed; the next run removes it",
            );
        }
        Ok(())
    }

    /// The catalog against the manifest, in both directions, and against itself.
    async fn catalog(&mut self, hashes: &Hashes) -> Result<Vec<Commit>> {
        // What is damaged is named already, and says nothing that could be believed.
        if self.faults.iter().any(|fault| fault.place == CHUNKS) {
            return Ok(Vec::new());
        }
        let mut commits = match self.store.get(CHUNKS).await? {
            None => Vec::new(), // named as missing above
            Some(bytes) => match catalog::read_chunks(bytes) {
                Ok(commits) => commits,
                Err(error) => {
                    self.fault(CHUNKS, format!("it cannot be read: {error}"));
                    return Ok(Vec::new());
                }
            },
        };
        let mut named = BTreeSet::new();
        for file in commits.iter().flat_map(|commit| &commit.files) {
            if !named.insert(file.key.clone()) {
                self.fault(&file.key, "two chunks of the catalog claim it");
            }
            match hashes.get(&file.key) {
                None => self.fault(&file.key, format!("the catalog has it, {MANIFEST} has not")),
                Some(hash) if *hash != file.sha256 => {
                    self.fault(
                        &file.key,
                        format!("the catalog and {MANIFEST} record different hashes"),
                    );
                }
                Some(_) => {}
            }
        }
        for key in hashes.keys().filter(|key| !named.contains(*key)) {
            if !matches!(key.split('/').nth(2), Some("_artifacts" | "_dumps")) {
                self.fault(key, format!("{MANIFEST} has it, the catalog has not"));
            }
        }
        self.tables(&commits).await?;
        commits.sort_by(|a, b| a.order().cmp(&b.order()));
        let (commits, overlapping) = without_overlaps(commits);
        for commit in &overlapping {
            let place = format!("{}/{}", commit.path, commit.slice);
            self.fault(&place, "the catalog covers this time twice");
        }
        self.asked(&commits).await?;
        self.oxum(hashes).await?;
        Ok(commits)
    }

    async fn tables(&mut self, commits: &[Commit]) -> Result<()> {
        let Some(tables) = self.json::<Vec<TableEntry>>(TABLES).await? else { return Ok(()) };
        let expected = catalog::tables(commits);
        for table in tables.iter().filter(|table| !expected.contains(table)) {
            let place = format!("{TABLES}: {}", table.path);
            self.fault(&place, format!("it is not the sum of its chunks in {CHUNKS}"));
        }
        for table in expected.iter().filter(|table| !tables.contains(table)) {
            let place = format!("{TABLES}: {}", table.path);
            self.fault(&place, format!("{CHUNKS} has another sum for it"));
        }
        if tables.len() > expected.len() && tables.iter().all(|table| expected.contains(table)) {
            self.fault(TABLES, "it has a table twice");
        }
        Ok(())
    }

    /// Everything that was asked for is covered.
    async fn asked(&mut self, commits: &[Commit]) -> Result<()> {
        let Some(run) = self.json::<RunEntry>(RUN).await? else { return Ok(()) };
        let mut covered = BTreeMap::<_, Coverage>::new();
        for commit in commits {
            let coverage = covered.entry(commit.id()).or_default();
            coverage.insert_slice(commit.slice);
        }
        for asked in &run.asked {
            let coverage = covered.remove(&asked.table).unwrap_or_default();
            for gap in asked.windows.iter().flat_map(|window| coverage.missing(*window)) {
                self.fault(
                    &asked.table.to_string(),
                    format!("{gap} was asked for and is not covered"),
                );
            }
        }
        for table in covered.keys() {
            self.fault(&table.to_string(), format!("{CHUNKS} has it, {RUN} does not know of it"));
        }
        Ok(())
    }

    async fn oxum(&mut self, hashes: &Hashes) -> Result<()> {
        let Some(info) = self.store.get("bag-info.txt").await? else { return Ok(()) };
        let bytes: u64 = hashes.keys().filter_map(|key| self.present.get(key)).sum();
        let expected = format!("Payload-Oxum: {bytes}.{}", hashes.len());
        if !String::from_utf8_lossy(&info).lines().any(|line| line == expected) {
            self.fault("bag-info.txt", format!("it should say {expected}"));
        }
        Ok(())
    }

    async fn json<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.fault(key, format!("it cannot be read: {error}"));
                Ok(None)
            }
        }
    }

    /// Data files, a few at once, then artifacts.
    async fn files(&mut self, todo: Todo) -> Result<()> {
        let others: Vec<(String, String)> = {
            let named: BTreeSet<&String> =
                todo.commits.iter().flat_map(|c| &c.files).map(|file| &file.key).collect();
            todo.hashes
                .iter()
                .filter(|(key, _)| !named.contains(key))
                .map(|(k, h)| (k.clone(), h.clone()))
                .collect()
        };
        self.progress.left(todo.commits.len() as u64);
        let mut left = todo.commits.len() as u64;
        let mut commits = todo.commits.into_iter().map(Arc::new);
        let mut flight = JoinSet::new();
        let mut names = BTreeMap::new();
        loop {
            while flight.len() < AT_ONCE {
                let Some(commit) = commits.next() else { break };
                self.files += commit.files.len() as u64;
                self.rows += commit.rows;
                self.bytes += commit.files.iter().map(|file| file.bytes).sum::<u64>();
                let task = check_commit(
                    self.store.clone(),
                    Arc::clone(&commit),
                    self.quick,
                    self.sizes(&commit),
                );
                names.insert(flight.spawn(task).id(), commit);
            }
            let Some(checked) = flight.join_next_with_id().await else { break };
            left -= 1;
            match checked {
                Ok((id, faults)) => {
                    if let Some(commit) = names.remove(&id) {
                        self.progress.add_rows(commit.rows);
                        self.progress.add_bytes(commit.files.iter().map(|file| file.bytes).sum());
                    }
                    for (place, fault) in faults? {
                        self.fault(&place, fault);
                    }
                }
                // A file made to break its reader must not end the check of the others.
                Err(error) => {
                    let commit = names.remove(&error.id());
                    let place =
                        commit.map(|c| format!("{}/{}", c.path, c.slice)).unwrap_or_default();
                    self.fault(&place, "its files cannot be decoded");
                }
            }
            self.progress.chunk_done();
            self.progress.left(left);
        }
        for (key, hash) in others {
            let Some((found, bytes)) = hash_object(&self.store, &key).await? else { continue };
            self.files += 1;
            self.bytes += bytes;
            if found != hash {
                self.fault(&key, format!("its bytes are not those that {MANIFEST} records"));
            }
        }
        Ok(())
    }

    fn sizes(&self, commit: &Commit) -> Vec<Option<u64>> {
        commit.files.iter().map(|file| self.present.get(&file.key).copied()).collect()
    }
}

async fn check_commit(
    store: Store,
    commit: Arc<Commit>,
    quick: bool,
    sizes: Vec<Option<u64>>,
) -> Result<Vec<file::Fault>> {
    let mut faults = Vec::new();
    for (file, size) in commit.files.iter().zip(sizes) {
        if let Some(fault) = check_bytes(&store, file, size, quick).await? {
            faults.push((file.key.clone(), fault));
        }
    }
    // What is not the file that was written need not be decoded to be named.
    match faults.is_empty() && !quick {
        true => file::check_chunk(&store, &commit).await,
        false => Ok(faults),
    }
}

async fn check_bytes(
    store: &Store,
    file: &FileRecord,
    size: Option<u64>,
    quick: bool,
) -> Result<Option<String>> {
    Ok(match size {
        None => Some("it is missing".to_owned()),
        Some(size) if size != file.bytes => {
            Some(format!("it has {size} bytes, the catalog says {}", file.bytes))
        }
        Some(_) if quick => None,
        Some(_) => match hash_object(store, &file.key).await? {
            Some((hash, _)) if hash == file.sha256 => None,
            _ => Some("its bytes are not those that the catalog records".to_owned()),
        },
    })
}
