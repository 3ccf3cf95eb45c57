//! Removes and writes the seal, which only one run at a time may do. The order is: catalog, manifest, removal of the
//! commits that the catalog contains or has replaced, tag manifest. Each file is read back before the next step.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::archive::bag;
use crate::archive::bag::Hashes;
use crate::archive::catalog;
use crate::archive::catalog::to_json;
use crate::archive::chunks;
use crate::archive::commit::Commit;
use crate::archive::commit::{commit_key, two_versions};
use crate::archive::dumps;
use crate::archive::index::ArchiveIndex;
use crate::archive::keys::{
    self, CHUNKS, COMMITS, DIVISIONS, DUMPS, FORMAT, MANIFEST, MARKER, RECORDS, REPORT, RETRACTED,
    RUN, SEGMENTED, SEGMENTS, TABLES, TAG_MANIFEST, TAG_SIGNATURE, VERDICT, is_after_seal,
    marker_of,
};
use crate::archive::open::Archive;
use crate::archive::reads::record_key;
use crate::archive::run_json::{ArtifactFile, RunEntry};
use crate::archive::runs;
use crate::archive::runs::{Beating, living};
use crate::archive::sweep::{Owner, stranger};
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::model::Artifact;
use crate::model::{Division, TableId};
use crate::store::Inventory;
use crate::store::reading::hash_object;

/// The content of a seal besides the commits.
#[derive(Debug)]
pub struct Seal<'a> {
    /// The run that seals.
    pub run: RunEntry,
    /// The artifacts.
    pub artifacts: &'a [(String, Artifact)],
}

/// How often a removal is repeated if the store keeps the file.
const REMOVALS: usize = 3;

impl Archive {
    /// Waits until only this run may remove or write the seal. Each run announces that before it looks for others, so of
    /// two runs at least one sees the other. The younger one then steps back, and the older one waits for that.
    pub async fn alone(&self, me: &Beating) -> Result<()> {
        me.say_sealing(true).await?;
        loop {
            let runs = self.runs().await?;
            let others = || living(&runs, me.run()).filter(|run| run.sealing);
            if others().next().is_none() {
                return Ok(());
            }
            if others().any(|run| run.run.as_str() < me.run()) {
                me.say_sealing(false).await?;
                loop {
                    self.store.wait().await;
                    if !living(&self.runs().await?, me.run()).any(|run| run.sealing) {
                        break;
                    }
                }
                me.say_sealing(true).await?;
                continue;
            }
            self.store.wait().await;
        }
    }

    /// Removes the seal, in reverse order, before anything is added. Its hashes are recorded until the next seal is
    /// complete, so that the catalog is protected meanwhile as well.
    pub async fn unseal(&self, me: &Beating) -> Result<()> {
        self.alone(me).await?;
        self.take_off().await?;
        me.say_sealing(false).await
    }

    async fn take_off(&self) -> Result<()> {
        let state = self.state().await?;
        let manifest = match self.store.get(MANIFEST).await? {
            Some(bytes) => bag::read_manifest(MANIFEST, &bytes)?,
            None => Hashes::new(),
        };
        // The commits record the hashes of data files. Those of artifacts are only in the manifest.
        let artifacts = manifest.into_iter().filter(|(key, _)| is_artifact(key));
        let mut record: Hashes = artifacts.collect();
        for (key, hash) in &record {
            let found = hash_object(&self.store, key).await?;
            if found.is_none_or(|(found, _)| found != *hash) {
                return Err(Error::different(format!("{key} is not what {MANIFEST} records"))
                    .hint("restore the file, or export into a new archive"));
            }
        }
        let catalog = |(key, _): &(&String, &String)| key.starts_with("catalog/");
        if state.sealed {
            record.extend(state.tags.iter().filter(catalog).map(|(k, h)| (k.clone(), h.clone())));
        }
        let format = if state.segments.is_empty() { FORMAT } else { SEGMENTED };
        self.store.put_checked(MARKER, marker_of(format)).await?;
        if !record.is_empty() {
            self.record(&record).await?;
        }
        for key in [TAG_SIGNATURE, TAG_MANIFEST, MANIFEST] {
            if self.store.look(key).await?.is_some() {
                self.delete_checked(key).await?;
            }
        }
        Ok(())
    }

    async fn record(&self, hashes: &Hashes) -> Result<String> {
        let text = bag::manifest(hashes);
        let key = record_key(text.as_bytes());
        self.store.put_checked(&key, text).await?;
        Ok(key)
    }

    /// Closes the bag. The caller has made sure that no older run is at work and that nothing is left to do. `false` if it
    /// must check again, because another run has committed meanwhile.
    pub async fn seal(&self, me: &Beating, seal: Seal<'_>) -> Result<bool> {
        self.alone(me).await?;
        let sealed = self.put_on(me.run(), seal).await?;
        if !sealed {
            me.say_sealing(false).await?;
        }
        Ok(sealed)
    }

    async fn put_on(&self, me: &str, seal: Seal<'_>) -> Result<bool> {
        let before = self.state().await?;
        if !before.uncovered().is_empty() {
            return Ok(false);
        }
        one_version(&before.commits)?;
        self.take_off().await?;
        let mut known = Known::new(self.state().await?.as_ref());
        // This run writes no more files, so of its own, too, only those that were committed count.
        self.sweep(me, false).await?;
        let mut taken = HashSet::new();
        let keyed = seal.artifacts.iter().map(|(source, artifact)| {
            (keys::artifact_key(source, artifact, &mut taken), artifact.content.clone())
        });
        let artifacts: BTreeMap<String, Bytes> = keyed.collect();
        let written: Hashes =
            artifacts.iter().map(|(key, bytes)| (key.clone(), sha256(bytes))).collect();
        if !written.is_empty() {
            self.record(&written).await?;
        }
        for (key, bytes) in artifacts {
            self.store.put_checked(&key, bytes).await?;
        }
        known.written = written;

        // The catalog contains what other runs have committed until now. Later commits are found below and are not lost.
        let files = self.store.objects("data").await?;
        let state = self.state_without(me, false).await?;
        if !same_commits(&before, &state)
            || !state.uncovered().is_empty()
            || state.runs.iter().any(|run| run.alive && run.run.as_str() < me)
        {
            return Ok(false);
        }
        let sizes = files.into_iter().map(|entry| (entry.key, entry.size_bytes)).collect();
        let payload = self.payload(&state, sizes, &known).await?;
        let bytes: u64 = payload.values().map(|(_, size)| size).sum();
        let mut run = seal.run;
        if let Some(last) = &state.run {
            run.succeed(RunEntry::clone(last));
        }
        let artifacts = payload.iter().filter(|(key, _)| is_artifact(key));
        let artifacts = artifacts.map(|(key, (hash, size))| ArtifactFile {
            path: key.clone(),
            bytes: *size,
            sha256: hash.clone(),
        });
        run.artifact_files = Some(artifacts.collect());
        let payload: Hashes = payload.into_iter().map(|(key, (hash, _))| (key, hash)).collect();
        let date = run.ended.get(..10).unwrap_or_default().to_owned();
        let run_json = to_json(&run)?;
        drop(run); // it is large if there are many tables
        let mut tags: Vec<(&str, Bytes)> = vec![
            (TABLES, catalog::write_tables(&state.commits)?.into()),
            (CHUNKS, chunks::write_chunks(&state.commits)?.into()),
            (RUN, run_json.into()),
            ("README.txt", bag::README_TXT.into()),
            ("bagit.txt", bag::BAGIT_TXT.into()),
            ("bag-info.txt", bag::bag_info(&date, bytes, payload.len()).into()),
            (MANIFEST, bag::manifest(&payload).into()),
        ];
        let dumps = dumps::write_dumps(&state.commits)?;
        // Before the run and the manifest.
        dumps.into_iter().for_each(|dumps| tags.insert(2, (DUMPS, dumps.into())));
        let hashes: Hashes =
            tags.iter().map(|(key, bytes)| ((*key).to_owned(), sha256(bytes))).collect();
        let is_recorded = |key: &str| is_artifact(key) || key.starts_with("catalog/");
        let record = payload.iter().chain(&hashes).filter(|(key, _)| is_recorded(key));
        let record: Hashes = record.map(|(k, h)| (k.clone(), h.clone())).collect();
        let record = self.record(&record).await?;
        // Without the run and the manifest, the others mean nothing yet, so that they may be written in any order.
        let (last, first): (Vec<_>, Vec<_>) =
            tags.into_iter().partition(|(key, _)| [RUN, MANIFEST].contains(key));
        let first = first.into_iter().map(|(key, bytes)| self.store.put_checked(key, bytes));
        join_all(first).await.into_iter().try_for_each(|put| put.map(drop))?;
        for (key, bytes) in last {
            self.store.put_checked(key, bytes).await?;
        }

        // All commits that count are in the catalog now. The files that it replaces are removed before the last file is
        // written, so that a sealed archive holds nothing that its manifests do not name.
        let after = self.state_without(me, false).await?;
        if !same_commits(&after, &state) || !after.uncovered().is_empty() {
            return Ok(false);
        }
        for (key, _) in self.store.list(RECORDS.trim_end_matches('/')).await? {
            if key != record {
                self.delete_checked(&key).await?;
            }
        }
        let lost: BTreeSet<String> = after
            .superseded
            .iter()
            .chain(&before.superseded)
            .flat_map(|commit| commit.files.iter().map(|file| file.key.clone()))
            .filter(|key| !payload.contains_key(key))
            .collect();
        if !self.clean(me, &payload, &hashes, &after, &lost).await? {
            return Ok(false);
        }
        self.store.put_checked(TAG_MANIFEST, bag::manifest(&hashes)).await?;
        match self.store.look(MANIFEST).await? {
            Some(_) => Ok(true),
            None => Err(Error::incomplete("another run has removed the seal again")
                .hint("run the same command again to continue; what was committed stays")),
        }
    }

    /// Removes the commits outside of the catalog that are in it or were replaced by it, and checks that exactly the files
    /// that the manifests name are there. `done` is the archive of which the catalog is. `false` if another run has
    /// committed meanwhile.
    async fn clean(
        &self,
        me: &str,
        payload: &Hashes,
        tags: &Hashes,
        done: &ArchiveIndex,
        lost: &BTreeSet<String>,
    ) -> Result<bool> {
        let mut left = None;
        for _ in 0..REMOVALS {
            // Plans are removed last, because a plan shows that the files of a dead run belong to it.
            let there = self.state().await?;
            let loose = there.loose.iter().filter(|(_, commit)| done.has(commit));
            self.store.delete_all(loose.map(|(key, _)| key.clone()).collect()).await?;
            self.remove_segments(done).await?;
            self.store.delete_all(lost.iter().cloned().collect()).await?;
            self.store
                .delete_all([VERDICT, REPORT, TAG_SIGNATURE].map(str::to_owned).into())
                .await?;
            self.clear_work(me).await?;
            let Inventory { objects: all, staged, .. } = self.store.inventory("").await?;
            let state = self.state_without(me, false).await?;
            if state.uncatalogued
                && state.outside.iter().any(|commit| !done.has(commit))
                && state.living(me).next().is_none()
            {
                return Ok(false);
            }
            let there: HashSet<&str> = all.iter().map(|entry| entry.key.as_str()).collect();
            for key in payload.keys().filter(|key| !there.contains(key.as_str())) {
                if self.store.look(key).await?.is_none() {
                    return Err(gone(key));
                }
            }
            left = None;
            for entry in &all {
                let key = &entry.key;
                if payload.contains_key(key) || tags.contains_key(key) || key == TAG_MANIFEST {
                    continue;
                }
                match self.judge(&state, key, me, done, lost) {
                    Judged::Stays => {}
                    Judged::Goes => left = Some(key.clone()),
                    Judged::Stranger => return Err(stranger(key)),
                }
            }
            for staged in &staged {
                if keys::parts_of_file(&staged.key).is_none()
                    && !staged.key.starts_with(".moveout/")
                {
                    return Err(stranger(staged.name()));
                }
            }
            if left.is_none() {
                return Ok(true);
            }
        }
        let left = left.unwrap_or_default();
        Err(Error::incomplete(format!("{left} cannot be removed: the store keeps it"))
            .hint("look at the disk or the bucket, then run the same command again"))
    }

    fn judge(
        &self,
        state: &ArchiveIndex,
        key: &str,
        me: &str,
        done: &ArchiveIndex,
        lost: &BTreeSet<String>,
    ) -> Judged {
        let living = |run: &str| state.runs.iter().any(|beat| beat.run == run && beat.alive);
        if let Some(run) = runs::of_key(key) {
            let mine = run == me && key.starts_with(runs::HEARTBEATS);
            return if mine || living(run) { Judged::Stays } else { Judged::Goes };
        }
        if key.starts_with(COMMITS) {
            // A commit that is not in the catalog belongs to a run that is at work, which seals again.
            let catalogued = match state.loose.get(key) {
                Some(commit) => done.has(commit),
                // A listing has left it out.
                None => state.commits.iter().chain(&state.superseded).any(|c| commit_key(c) == key),
            };
            return if catalogued && !state.uncatalogued { Judged::Goes } else { Judged::Stays };
        }
        // So does a segment, and without any the rest of them means nothing.
        let is_last = state.segments.is_empty();
        if key.starts_with(SEGMENTS) || key.starts_with(RETRACTED) {
            let is_of_nobody = state.living(me).next().is_none();
            let is_spent = || state.spent_segments(done).any(|spent| spent == key);
            let goes = match key.starts_with(SEGMENTS) {
                true if state.segments.contains_key(key) => is_spent(),
                true => is_of_nobody,
                false => is_last,
            };
            return if goes { Judged::Goes } else { Judged::Stays };
        }
        if key == MARKER && !is_last {
            return Judged::Stays;
        }
        if key.starts_with(DIVISIONS) {
            let is_used = state.living(me).next().is_some();
            return if is_used { Judged::Stays } else { Judged::Goes };
        }
        // Files that were made after the last seal do not describe the archive as it is now.
        let is_old = key == MARKER || key.starts_with(RECORDS) || is_after_seal(key);
        if is_old || lost.contains(key) {
            return Judged::Goes;
        }
        if key.starts_with(".moveout/doctor-") {
            return Judged::Stays;
        }
        match keys::parts_of_file(key) {
            Some((_, _, run)) if living(run) => Judged::Stays,
            _ => Judged::Stranger,
        }
    }

    /// The hash and the size of every payload file. The hashes of data files come from their commits, before which the
    /// files were read back, and those of artifacts from the run that wrote them.
    async fn payload(
        &self,
        state: &ArchiveIndex,
        mut sizes: BTreeMap<String, u64>,
        known: &Known,
    ) -> Result<BTreeMap<String, (String, u64)>> {
        let files = state.commits.iter().flat_map(|commit| &commit.files);
        let committed: HashMap<&str, _> = files.map(|file| (file.key.as_str(), file)).collect();
        // A listing may omit files that exist.
        let listed = state.run.iter().flat_map(|run| run.artifact_files.iter().flatten());
        let artifacts = known.written.keys().chain(listed.map(|file| &file.path));
        for key in committed.keys().copied().chain(artifacts.map(String::as_str)) {
            if !sizes.contains_key(key) {
                let Some(entry) = self.store.look(key).await? else {
                    return Err(gone(key));
                };
                sizes.insert(entry.key, entry.size_bytes);
            }
        }
        let owners =
            state.commits.iter().flat_map(|c| c.files.iter().map(move |f| (f.key.as_str(), c)));
        let owners = owners.collect();
        let mut payload = BTreeMap::new();
        for (key, size) in sizes {
            let hash = match committed.get(key.as_str()) {
                Some(file) if file.bytes == size => file.sha256.clone(),
                Some(file) => {
                    return Err(Error::different(format!(
                        "{key} has {size} bytes, its commit says {}; the archive is not sealed",
                        file.bytes
                    ))
                    .hint("run the same command again: it reads the affected chunks again"));
                }
                None if is_artifact(&key) => {
                    let found = hash_object(&self.store, &key).await?;
                    match found.map(|(hash, _)| hash).filter(|hash| known.is(&key, hash)) {
                        Some(hash) => hash,
                        None => return Err(stranger(&key)),
                    }
                }
                // A living run commits and seals its own files. The files of dead runs were removed, or are removed now.
                None if self.owner(state, &owners, &key) != Owner::Stranger => continue,
                None => return Err(stranger(&key)),
            };
            payload.insert(key, (hash, size));
        }
        Ok(payload)
    }
}

enum Judged {
    Stays,
    Goes,
    Stranger,
}

/// The known hashes of artifacts: those that this run has written, and those that were recorded before.
struct Known {
    written: Hashes,
    recorded: Vec<Arc<Hashes>>,
    /// Whether an older version has removed the seal without keeping a record.
    no_record: bool,
}

impl Known {
    fn new(state: &ArchiveIndex) -> Self {
        let recorded = state.records.clone();
        Self { written: Hashes::new(), no_record: recorded.is_empty(), recorded }
    }

    fn is(&self, key: &str, hash: &String) -> bool {
        match self.written.get(key) {
            Some(written) => written == hash,
            None => self.no_record || self.recorded.iter().any(|r| r.get(key) == Some(hash)),
        }
    }
}

/// Whether a key is that of a payload file that is neither rows nor a dump.
pub fn is_artifact(key: &str) -> bool {
    key.split('/').nth(2) == Some("_artifacts")
}

fn gone(key: &str) -> Error {
    let (what, hint) = if is_artifact(key) {
        (
            "it was saved",
            "run the same command again; if it is gone then, too, restore the file from a copy",
        )
    } else {
        ("its chunk was committed", "run the same command again: it reads again what is gone")
    };
    Error::different(format!("{key} is gone although {what}; the archive is not sealed")).hint(hint)
}

fn same_commits(one: &ArchiveIndex, other: &ArchiveIndex) -> bool {
    let same = |(a, b): (&Arc<Commit>, &Arc<Commit>)| Arc::ptr_eq(a, b) || a.names() == b.names();
    one.commits.len() == other.commits.len() && one.commits.iter().zip(&other.commits).all(same)
}

/// Checks that a table is divided in the same way in all of its chunks, and that all tables of a file come from one version of it.
fn one_version(commits: &[Arc<Commit>]) -> Result<()> {
    let mut of_table = HashMap::<TableId, Division>::new();
    let mut of_file = HashMap::<&str, Division>::new();
    for commit in commits {
        let Some(version) = commit.division() else { continue };
        let is_file = matches!(version, Division::File(_));
        let table = of_table.entry(commit.id()).or_insert_with(|| version.clone());
        let file = of_file.entry(&commit.source).or_insert_with(|| version.clone());
        if *table != version || (is_file && *file != version) {
            return Err(two_versions(commit));
        }
    }
    Ok(())
}
