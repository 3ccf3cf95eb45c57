//! Checks the records of a sealed archive, by comparing the manifests, the catalog and the names of the files with each
//! other. No data file is opened here.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use crate::archive::bag::{self, Hashes};
use crate::archive::catalog::{self, TableEntry};
use crate::archive::chunks;
use crate::archive::commit::Commit;
use crate::archive::dumps;
use crate::archive::run_json::{ArtifactFile, Format, RunEntry};
use crate::archive::runs::{Heartbeat, RunPlan};
use crate::archive::segment::is_folded;
use crate::archive::verdict::archive_hash;
use crate::archive::{
    Archive, CHUNKS, DUMPS, MANIFEST, RUN, TABLES, TAG_FILES, TAG_MANIFEST, is_after_seal,
    is_artifact, is_division, is_marker, is_written_by_runs, keys, without_overlaps,
};
use crate::commands::verify::{Check, Concern, Records};
use crate::coverage::Coverage;
use crate::error::Result;
use crate::model::{Division, TableId};
use crate::store::reading::hash_object;

/// How often the tag manifest is read again if it changes meanwhile.
const LOOKS: usize = 3;

impl Check {
    pub(super) async fn sealed(&mut self, archive: &Archive) -> Result<Records> {
        self.tag_files().await?;
        let hashes = self.manifest(MANIFEST).await?.unwrap_or_default();
        self.payload(&hashes);
        self.strangers(archive).await?;
        let commits = self.catalog(&hashes).await?;
        let rows = commits.iter().filter(|commit| commit.dump.is_none());
        let tables = rows.map(Commit::id).collect::<BTreeSet<_>>().len();
        Ok(Records { tables, commits, hashes })
    }

    /// Checks that every tag file is listed and matches the tag manifest.
    async fn tag_files(&mut self) -> Result<()> {
        let Some(mut tags) = self.manifest(TAG_MANIFEST).await? else { return Ok(()) };
        let dumps = self.present.contains_key(DUMPS).then_some(DUMPS);
        let expected = TAG_FILES.into_iter().chain(dumps);
        for key in expected.filter(|key| !tags.contains_key(*key)) {
            self.file_fault(key, format!("{TAG_MANIFEST} does not list it"));
        }
        let mut wrong = self.wrong_tags(&tags).await?;
        for _ in 0..LOOKS {
            // A verdict or a report may be added meanwhile, which changes nothing else.
            let Some(bytes) = self.store.get(TAG_MANIFEST).await?.filter(|_| !wrong.is_empty())
            else {
                break;
            };
            match bag::read_manifest(TAG_MANIFEST, &bytes) {
                Ok(now) if now != tags && archive_hash(&now) == archive_hash(&tags) => tags = now,
                _ => break,
            }
            wrong = self.wrong_tags(&tags).await?;
        }
        wrong.into_iter().for_each(|(key, fault)| self.file_fault(&key, fault));
        if self.read("bagit.txt").await?.is_some_and(|text| text != bag::BAGIT_TXT) {
            self.file_fault("bagit.txt", "it does not declare a BagIt 1.0 bag");
        }
        Ok(())
    }

    /// Files that do not match the tag manifest.
    async fn wrong_tags(&self, tags: &Hashes) -> Result<Vec<(String, String)>> {
        let mut wrong = Vec::new();
        for (key, hash) in tags {
            let found = if self.present.contains_key(key) || is_after_seal(key) {
                hash_object(&self.store, key).await?
            } else {
                None
            };
            let fault = match found {
                None => "it is missing".to_owned(),
                Some((found, _)) if found != *hash => {
                    format!("its bytes are not those that {TAG_MANIFEST} records")
                }
                Some(_) => continue,
            };
            wrong.push((key.clone(), fault));
        }
        Ok(wrong)
    }

    async fn manifest(&mut self, key: &str) -> Result<Option<Hashes>> {
        let Some(bytes) = self.read(key).await? else {
            self.file_fault(key, "it is missing");
            return Ok(None);
        };
        match std::str::from_utf8(&bytes).map_err(|e| e.to_string()).and_then(bag::parse_manifest) {
            Ok(hashes) => Ok(Some(hashes)),
            Err(error) => {
                self.file_fault(key, error);
                Ok(None)
            }
        }
    }

    /// Checks that exactly the files that the manifest lists are there.
    fn payload(&mut self, hashes: &Hashes) {
        for key in hashes.keys() {
            match (self.present.contains_key(key), key.starts_with("data/")) {
                (_, false) => {
                    self.file_fault(key, format!("{MANIFEST} lists it, but it is no payload"));
                }
                (false, true) => self.file_fault(key, "it is missing"),
                (true, true) => {}
            }
        }
        let payload = self.present.keys().filter(|key| key.starts_with("data/"));
        let unlisted: Vec<String> =
            payload.filter(|key| !hashes.contains_key(*key)).cloned().collect();
        for key in unlisted {
            self.fault(Concern::Records, &key, format!("{MANIFEST} does not list it"));
        }
    }

    /// Checks the other files in the folder, each of which belongs to a living run, to a killed run, or to nobody.
    async fn strangers(&mut self, archive: &Archive) -> Result<()> {
        let known = |key: &str| {
            key.starts_with("data/")
                || key == TAG_MANIFEST
                || is_after_seal(key)
                || TAG_FILES.contains(&key)
                || key == DUMPS
        };
        let strangers: Vec<String> =
            self.present.keys().filter(|key| !known(key)).cloned().collect();
        // A run may have ended since the archive was listed.
        let staged = if self.has_staged { self.store.staged().await? } else { Vec::new() };
        if strangers.is_empty() && staged.is_empty() {
            return Ok(());
        }
        let at_work = match archive.state().await {
            Ok(state) => state.living("").next().is_some(),
            Err(_) => false, // the catalog is broken, which is reported elsewhere
        };
        for key in strangers {
            match self.is_of_a_run(&key).await? {
                Some(amends) if at_work || amends => {}
                // A run was killed before it had removed the seal, so the archive is still complete.
                Some(_) => self.unfinished = true,
                None => self.file_fault(&key, "it does not belong to the archive"),
            }
        }
        for staged in &staged {
            // A file that was being added after the seal is not part of the archive.
            let is_amendment = is_after_seal(&staged.key) || staged.key == TAG_MANIFEST;
            let fault = match is_written_by_runs(&staged.key) {
                true if at_work || is_amendment => continue,
                true => "half of it was left by a run that was killed; the next run removes it",
                false => "it does not belong to the archive",
            };
            self.fault(Concern::Records, staged.name(), fault);
        }
        Ok(())
    }

    /// Whether a file is one that a run writes before it removes the seal, and whether that run only adds files that are
    /// made after the seal.
    async fn is_of_a_run(&self, key: &str) -> Result<Option<bool>> {
        let Some(bytes) = self.read(key).await? else { return Ok(None) };
        let of_run = |folder: &str| key.strip_prefix(folder)?.strip_suffix(".json");
        let run = of_run(".moveout/runs/");
        let plan = of_run(".moveout/plans/");
        if let Some(run) = run {
            let beat = serde_json::from_slice::<Heartbeat>(&bytes).ok();
            return Ok(beat.filter(|beat| beat.run == run).map(|beat| beat.amends));
        }
        let is_plan = plan.is_some_and(|run| {
            serde_json::from_slice::<RunPlan>(&bytes).is_ok_and(|found| found.run == run)
        });
        let is_of_run =
            is_plan || is_marker(key, &bytes) || is_folded(key, &bytes) || is_division(key, &bytes);
        Ok(is_of_run.then_some(false))
    }

    /// Compares the catalog with the manifest, in both directions, and its parts with each other.
    async fn catalog(&mut self, hashes: &Hashes) -> Result<Vec<Commit>> {
        // A damaged catalog was reported already, and its content cannot be trusted.
        if self.faults.iter().any(|fault| fault.place == CHUNKS) {
            return Ok(Vec::new());
        }
        let mut commits = match self.read(CHUNKS).await? {
            None => Vec::new(), // reported as missing above
            Some(bytes) => match chunks::read_chunks(bytes) {
                Ok(commits) => commits,
                Err(error) => {
                    self.file_fault(CHUNKS, format!("it cannot be read: {error}"));
                    return Ok(Vec::new());
                }
            },
        };
        commits.extend(self.dumps().await?);
        let mut named = BTreeSet::new();
        for file in commits.iter().flat_map(|commit| &commit.files) {
            if !named.insert(file.key.clone()) {
                self.fault(Concern::Records, &file.key, "two chunks of the catalog claim it");
            }
            let fault = match hashes.get(&file.key) {
                None => format!("the catalog has it, {MANIFEST} has not"),
                Some(hash) if *hash != file.sha256 => {
                    format!("the catalog and {MANIFEST} record different hashes")
                }
                Some(_) => continue,
            };
            self.fault(Concern::Records, &file.key, fault);
        }
        for key in hashes.keys().filter(|key| !named.contains(*key)) {
            if !is_artifact(key) {
                let fault = format!("{MANIFEST} has it, the catalog has not");
                self.fault(Concern::Records, key, fault);
            }
        }
        self.names(&commits);
        self.divisions(&commits);
        self.tables(&commits).await?;
        commits.sort_by(|a, b| a.order().cmp(&b.order()));
        let (commits, overlapping) = without_overlaps(commits);
        for commit in &overlapping {
            let place = format!("{}/{}", commit.path, commit.slice);
            self.fault(Concern::Records, &place, "the catalog covers this time twice");
        }
        self.run(&commits, hashes).await?;
        self.oxum(hashes).await?;
        Ok(commits)
    }

    /// The dumps of the catalog.
    async fn dumps(&mut self) -> Result<Vec<Commit>> {
        // Damage was reported already.
        if self.faults.iter().any(|fault| fault.place == DUMPS) {
            return Ok(Vec::new());
        }
        let Some(bytes) = self.read(DUMPS).await? else { return Ok(Vec::new()) };
        match dumps::read_dumps(&bytes) {
            Ok(commits) => Ok(commits),
            Err(error) => {
                self.file_fault(DUMPS, format!("it cannot be read: {error}"));
                Ok(Vec::new())
            }
        }
    }

    /// Checks that each table has a folder of its own that is made of its name, that the name of each file is made of the
    /// folder, the slice, the run and its number, and that a chunk has as many rows as its files.
    fn names(&mut self, commits: &[Commit]) {
        let mut path_of = BTreeMap::<TableId, &str>::new();
        let mut table_of = BTreeMap::<String, TableId>::new();
        for commit in commits {
            let id = commit.id();
            let place = format!("{CHUNKS}: {} {}", id, commit.slice);
            if !keys::may_be_path(&id, &commit.path) {
                let fault = format!("`{}` is not a folder of this table", commit.path);
                self.fault(Concern::Records, &place, fault);
            }
            let other = table_of.entry(commit.path.to_lowercase()).or_insert_with(|| id.clone());
            if *other != id {
                let fault = format!("`{}` is the folder of {other}, too", commit.path);
                self.fault(Concern::Records, &place, fault);
            }
            let path = path_of.entry(id).or_insert(&commit.path);
            if *path != commit.path {
                let fault = format!("it lies in `{}`, other chunks in `{path}`", commit.path);
                self.fault(Concern::Records, &place, fault);
            }
            for (at, file) in commit.files.iter().enumerate() {
                if commit.dump.is_some() {
                    let key = keys::dump_key(&commit.path, &commit.run);
                    if file.key != key {
                        let fault = format!("its dump should have `{key}` in its place");
                        self.fault(Concern::Records, &file.key, fault);
                    }
                    continue;
                }
                let (path, slice, run) = (&commit.path, commit.slice, &commit.run);
                let key = keys::file_key(path, slice, run, at + 1);
                if file.key != key && file.key != keys::long_file_key(path, slice, run, at + 1) {
                    let fault = format!("its chunk should have `{key}` in its place");
                    self.fault(Concern::Records, &file.key, fault);
                }
            }
            let rows: u64 = commit.files.iter().map(|file| file.rows).sum();
            if rows != commit.rows {
                let fault = format!("{} rows, its files have {rows} together", commit.rows);
                self.fault(Concern::Records, &place, fault);
            }
        }
    }

    /// Checks that all chunks of a table are divided in the same way, and that all tables of a file come from one version of it.
    fn divisions(&mut self, commits: &[Commit]) {
        let division = |commit: &Commit| {
            let text = commit.state.as_deref()?;
            Some(text.parse::<Division>().unwrap_or_else(|never| match never {}))
        };
        let mut of_table = BTreeMap::<TableId, Division>::new();
        let mut of_file = BTreeMap::<&str, Division>::new();
        for commit in commits {
            let Some(found) = division(commit) else { continue };
            let other = of_table.entry(commit.id()).or_insert_with(|| found.clone());
            if *other != found {
                let place = format!("{CHUNKS}: {} {}", commit.id(), commit.slice);
                let fault = format!("it is a part of the table {found}, other chunks {other}");
                self.fault(Concern::Records, &place, fault);
            }
            if let Division::File(_) = found {
                let other = of_file.entry(&commit.source).or_insert_with(|| found.clone());
                if *other != found {
                    let place = format!("{CHUNKS}: {}", commit.id());
                    let fault =
                        format!("it is of another version of the file than other tables: {found}");
                    self.fault(Concern::Records, &place, fault);
                }
            }
        }
    }

    /// Checks that `tables.json` is the sum of the chunks.
    async fn tables(&mut self, commits: &[Commit]) -> Result<()> {
        let Some(tables) = self.json::<Vec<TableEntry>>(TABLES).await? else { return Ok(()) };
        let is_version_1 = self.json::<Format>(RUN).await?.is_some_and(|run| run.format == 1);
        let mut expected: BTreeMap<TableId, TableEntry> = catalog::tables(commits)
            .into_iter()
            .map(|table| if is_version_1 { table.of_version_1() } else { table })
            .map(|table| (table.id(), table))
            .collect();
        let mut seen = BTreeSet::new();
        for table in &tables {
            let place = format!("{TABLES}: {}", table.path);
            let id = table.id();
            let fault = match expected.remove(&id) {
                Some(sum) if sum == *table => None,
                None if seen.contains(&id) => Some("it has this table twice".to_owned()),
                _ => Some(format!("it is not the sum of its chunks in {CHUNKS}")),
            };
            if let Some(fault) = fault {
                self.fault(Concern::Sums, &place, fault);
            }
            seen.insert(id);
        }
        for table in expected.values() {
            let place = format!("{TABLES}: {}", table.path);
            self.fault(Concern::Sums, &place, format!("{CHUNKS} has this table, it has not"));
        }
        Ok(())
    }

    /// Checks that everything that was requested is covered, and that every saved artifact is listed.
    async fn run(&mut self, commits: &[Commit], hashes: &Hashes) -> Result<()> {
        let Some(run) = self.json::<RunEntry>(RUN).await? else { return Ok(()) };
        let mut covered = BTreeMap::<_, Coverage>::new();
        for commit in commits {
            let coverage = covered.entry(commit.id()).or_default();
            coverage.insert_slice(commit.slice);
        }
        for requested in &run.requested {
            let coverage = covered.remove(&requested.table).unwrap_or_default();
            for gap in requested.windows.iter().flat_map(|window| coverage.missing(*window)) {
                let fault = if requested.table.is_dump() {
                    format!("it was requested, and {DUMPS} has it not")
                } else {
                    format!("{gap} was requested and is not covered")
                };
                self.fault(Concern::Records, &requested.table.to_string(), fault);
            }
        }
        for table in covered.keys() {
            let catalog = if table.is_dump() { DUMPS } else { CHUNKS };
            let fault = format!("{catalog} has it, {RUN} does not know of it");
            self.fault(Concern::Records, &table.to_string(), fault);
        }
        if let Some(listed) = &run.artifact_files {
            self.artifacts(listed, hashes);
        }
        Ok(())
    }

    /// Checks that the saved artifacts are those that the manifest lists.
    fn artifacts(&mut self, listed: &[ArtifactFile], hashes: &Hashes) {
        let mut named = BTreeSet::new();
        for ArtifactFile { path, bytes, sha256 } in listed {
            if !named.insert(path) {
                self.fault(Concern::Records, path, format!("{RUN} lists it twice"));
            }
            let size = self.present.get(path);
            let fault = match hashes.get(path) {
                _ if !is_artifact(path) => format!("{RUN} lists it, but it is no artifact"),
                None => format!("{RUN} lists it, {MANIFEST} does not"),
                Some(hash) if hash != sha256 => {
                    format!("{RUN} and {MANIFEST} record different hashes")
                }
                Some(_) => match size {
                    Some(size) if size != bytes => {
                        format!("it has {size} bytes, {RUN} says {bytes}")
                    }
                    _ => continue,
                },
            };
            self.file_fault(path, fault);
        }
        for key in hashes.keys().filter(|key| is_artifact(key) && !named.contains(key)) {
            self.fault(Concern::Records, key, format!("{MANIFEST} has it, {RUN} does not list it"));
        }
    }

    async fn oxum(&mut self, hashes: &Hashes) -> Result<()> {
        let Some(info) = self.read("bag-info.txt").await? else { return Ok(()) };
        let bytes: u64 = hashes.keys().filter_map(|key| self.present.get(key)).sum();
        let expected = format!("Payload-Oxum: {bytes}.{}", hashes.len());
        if !String::from_utf8_lossy(&info).lines().any(|line| line == expected) {
            self.fault(Concern::Sums, "bag-info.txt", format!("it should say {expected}"));
        }
        Ok(())
    }

    async fn json<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.read(key).await? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.file_fault(key, format!("it cannot be read: {error}"));
                Ok(None)
            }
        }
    }
}
