//! Tag files that are added after the seal: the verdict, the report and the signature of the tag manifest. The archive is
//! sealed and valid after each step, so that a run may end at any of them.

use bytes::Bytes;

use crate::archive::bag::{self, Hashes};
use crate::archive::index::ArchiveIndex;
use crate::archive::keys::{
    FORMAT, MANIFEST, REPORT, TAG_MANIFEST, TAG_SIGNATURE, VERDICT, is_after_seal,
};
use crate::archive::open::Archive;
use crate::archive::runs::{Beating, Heartbeat, heartbeat_key, new_run_id};
use crate::archive::verdict::{Stale, VerdictRecord, archive_hash};
use crate::error::{Error, Result};
use crate::hash::sha256;

/// Signs the bytes of a tag manifest.
pub type Sign<'a> = &'a (dyn Fn(&[u8]) -> Result<Bytes> + Sync);

/// The last verdict on an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastVerdict {
    /// The record; `None` if there is none, or it cannot be read.
    pub record: Option<VerdictRecord>,
    /// Why it does not hold for the archive as it is now; `None` if it is valid or there is none.
    pub invalid: Option<String>,
    /// Whether its hash is the recorded one.
    is_recorded: bool,
}

impl LastVerdict {
    /// The record, if it holds for the archive as it is now.
    pub fn valid(self) -> Option<VerdictRecord> {
        self.record.filter(|_| self.invalid.is_none())
    }
}

impl Archive {
    /// Adds tag files to a sealed archive, under a heartbeat of its own. See [`Archive::put_tags`].
    pub async fn amend(
        &self,
        expected: &Hashes,
        files: Vec<(&str, Bytes)>,
        sign: Option<Sign<'_>>,
    ) -> Result<()> {
        let run = new_run_id();
        let beating = self.beat(Heartbeat::of_amendment(&run)).await?;
        let put = self.put_tags(&beating, expected, files, sign).await;
        beating.stop().await;
        let forgotten = self.forget_heartbeat(&run).await;
        put.and(forgotten)
    }

    /// Puts tag files into a sealed archive, or replaces them: [`VERDICT`] and [`REPORT`]. With a new verdict and no new
    /// report the old report goes, since it tells of another verdict; and so does a signature, where there is no new one.
    ///
    /// `expected` is the tag manifest as it was when the work on these files began. An archive that has another one now,
    /// but for the lines of these files, was changed meanwhile: that is an error, and nothing is written.
    pub async fn put_tags(
        &self,
        me: &Beating,
        expected: &Hashes,
        files: Vec<(&str, Bytes)>,
        sign: Option<Sign<'_>>,
    ) -> Result<()> {
        let is_put = |key: &str| files.iter().any(|(put, _)| *put == key);
        let goes = |key: &str| is_put(key) || key == REPORT && is_put(VERDICT);
        self.alone(me).await?;
        let state = self.state().await?;
        let others = |tags: &Hashes| -> Hashes {
            let others = tags.iter().filter(|(key, _)| !goes(key));
            others.map(|(key, hash)| (key.clone(), hash.clone())).collect()
        };
        let kept = others(&state.tags);
        if !state.sealed || kept != others(expected) {
            return Err(changed_meanwhile());
        }
        let mut tags = kept.clone();
        tags.extend(files.iter().map(|(key, bytes)| ((*key).to_owned(), sha256(bytes))));
        let manifest = Bytes::from(bag::manifest(&tags));
        // Signing may fail, so it comes before any change.
        let signature = sign.map(|sign| sign(&manifest)).transpose()?;

        // These are the remains of runs that were killed while they did the same, since no other run does it now.
        for staged in self.store.staged().await? {
            if is_after_seal(&staged.key) || staged.key == TAG_MANIFEST {
                self.store.discard(&staged).await;
            }
        }
        for dead in state.runs.iter().filter(|run| run.amends && !run.alive) {
            self.store.delete(&heartbeat_key(&dead.run)).await?;
        }
        // The signature is that of the tag manifest that is replaced.
        self.delete_checked(TAG_SIGNATURE).await?;
        if kept.len() < state.tags.len() {
            self.store.put_checked(TAG_MANIFEST, bag::manifest(&kept)).await?;
        }
        for key in [VERDICT, REPORT] {
            if !is_put(key) && !kept.contains_key(key) {
                self.delete_checked(key).await?;
            }
        }
        for (key, bytes) in files {
            self.store.put_checked(key, bytes).await?;
        }
        self.store.put_checked(TAG_MANIFEST, manifest).await?;
        // Only a run that takes this one for dead, because its heartbeats were lost, can have removed the seal meanwhile.
        let listed = self.store.get(MANIFEST).await?.map(|bytes| sha256(&bytes));
        if listed.is_none() || listed.as_ref() != tags.get(MANIFEST) {
            self.delete_checked(TAG_MANIFEST).await?;
            return Err(changed_meanwhile());
        }
        if let Some(signature) = signature {
            self.store.put_checked(TAG_SIGNATURE, signature).await?;
        }
        Ok(())
    }

    /// The last verdict on the archive, and whether it holds for the archive as it is. A broken record counts as missing.
    pub async fn verdict(&self) -> Result<LastVerdict> {
        let state = self.state().await?;
        self.verdict_of(&state).await
    }

    /// The same for an archive whose index was just read.
    pub async fn verdict_of(&self, state: &ArchiveIndex) -> Result<LastVerdict> {
        let listed = recorded(state);
        if listed.is_empty() {
            return Ok(LastVerdict::default()); // a file that a killed run left has no meaning
        }
        let Some(bytes) = self.store.get(VERDICT).await? else { return Ok(LastVerdict::default()) };
        let unreadable = |why| Ok(LastVerdict { invalid: Some(why), ..LastVerdict::default() });
        let record = match serde_json::from_slice::<VerdictRecord>(&bytes) {
            Ok(record) if record.format <= FORMAT => record,
            Ok(VerdictRecord { format, .. }) => {
                return unreadable(format!(
                    "{VERDICT} has format {format}, this version knows {FORMAT}"
                ));
            }
            Err(error) => return unreadable(format!("{VERDICT} cannot be read: {error}")),
        };
        let is_recorded = listed.contains(&&sha256(&bytes));
        let invalid = if !is_recorded {
            Some("it is not the one that was recorded")
        } else if !state.sealed || state.uncatalogued {
            Some("an export was begun after it")
        } else if record.archive != archive_hash(&state.tags) {
            Some("the archive was changed after it")
        } else {
            None
        };
        Ok(LastVerdict { record: Some(record), invalid: invalid.map(str::to_owned), is_recorded })
    }

    /// The chunks that the last verdict found different, where it is of the archive as it is, or as it was when a run
    /// took the seal off that has not ended. Those that were replaced since are among them: a run tells them apart.
    pub async fn stale(&self, state: &ArchiveIndex) -> Result<Vec<Stale>> {
        let last = self.verdict_of(state).await?;
        let holds = match &last.invalid {
            None => true,
            Some(_) => !state.sealed && last.is_recorded,
        };
        Ok(last.record.filter(|_| holds).map(|record| record.stale).unwrap_or_default())
    }
}

/// The recorded hashes of the last verdict. After the seal was removed, those that it recorded count.
fn recorded(state: &ArchiveIndex) -> Vec<&String> {
    let records = state.records.iter().filter(|_| !state.sealed).map(|record| &**record);
    let tags = state.sealed.then_some(&*state.tags);
    tags.into_iter().chain(records).filter_map(|hashes| hashes.get(VERDICT)).collect()
}

fn changed_meanwhile() -> Error {
    Error::incomplete("the archive was changed meanwhile by another run")
        .hint("run the same command again when no other run is at work")
}
