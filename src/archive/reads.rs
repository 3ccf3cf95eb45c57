//! Reads the small files of an archive for its index, several at the same time, and each only if it has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::archive::bag;
use crate::archive::bag::Hashes;
use crate::archive::commit::Commit;
use crate::archive::keys::RECORDS;
use crate::archive::runs::{self, Heartbeat};
use crate::archive::segment::read_segment;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::store::{Entry, Store};

/// The number of segments that are read at once. They are large beside commits.
const SEGMENTS_AT_ONCE: usize = 8;

/// The content that was read, with the version of the file and the hash of its bytes.
#[derive(Debug, Clone)]
pub(super) struct Seen<T> {
    pub(super) version: String,
    pub(super) sha256: String,
    pub(super) value: T,
}

pub(super) fn version<T>(seen: &Option<Seen<T>>) -> Option<&str> {
    seen.as_ref().map(|seen| seen.version.as_str())
}

/// A file of the seal, which is read again only if it has changed.
pub(super) async fn reread<T: Clone>(
    store: &Store,
    key: &str,
    known: &Option<Seen<T>>,
    parse: impl FnOnce(Bytes) -> Result<T>,
) -> Result<Option<Seen<T>>> {
    let Some(entry) = store.look(key).await? else { return Ok(None) };
    if version(known) == Some(entry.version.as_str()) {
        return Ok(known.clone());
    }
    let Some((bytes, version)) = store.get_version(key).await? else { return Ok(None) };
    let sha256 = sha256(&bytes);
    Ok(Some(Seen { version, sha256, value: parse(bytes)? }))
}

pub(super) type Loose = Vec<(String, Seen<Arc<Commit>>)>;

pub(super) async fn read_commits(store: &Store, keys: Vec<String>) -> Result<Loose> {
    let read = stream::iter(keys).map(|key| async move {
        let Some((bytes, version)) = store.get_version(&key).await? else {
            return Ok::<_, Error>(None);
        };
        let value = Arc::new(Commit::from_json(&key, &bytes)?);
        Ok(Some((key, Seen { version, sha256: String::new(), value })))
    });
    let read: Vec<Option<_>> = read.buffer_unordered(store.requests()).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

/// The commits of a segment.
pub(super) type Segment = Arc<[Arc<Commit>]>;

/// Reads the segments that are not `known` in their present version.
pub(super) async fn read_segments(
    store: &Store,
    known: &BTreeMap<String, Seen<Segment>>,
    listed: &[&Entry],
) -> Result<BTreeMap<String, Seen<Segment>>> {
    let (mut segments, mut new) = (BTreeMap::new(), Vec::new());
    for Entry { key, version, .. } in listed {
        match known.get(key).filter(|known| known.version == *version) {
            Some(known) => _ = segments.insert(key.clone(), known.clone()),
            None => new.push(key.clone()),
        }
    }
    let read = stream::iter(new).map(|key| async move {
        // One that is gone was sealed, or taken back by the run that wrote it.
        let Some((bytes, version)) = store.get_version(&key).await? else {
            return Ok::<_, Error>(None);
        };
        let value = read_segment(&key, &bytes)?.into_iter().map(Arc::new).collect();
        Ok(Some((key, Seen { version, sha256: String::new(), value })))
    });
    let read: Vec<Option<_>> = read.buffer_unordered(SEGMENTS_AT_ONCE).try_collect().await?;
    segments.extend(read.into_iter().flatten());
    Ok(segments)
}

pub(super) async fn read_records(
    store: &Store,
    known: &BTreeMap<String, Arc<Hashes>>,
    listed: &[&Entry],
) -> Result<BTreeMap<String, Arc<Hashes>>> {
    let mut records = BTreeMap::new();
    for Entry { key, .. } in listed {
        let record = match known.get(key) {
            Some(record) => Some(Arc::clone(record)),
            None => match store.get(key).await? {
                // A record is named by its hash. An incomplete one was being written by a run that died.
                Some(bytes) if record_key(&bytes) == *key => {
                    Some(Arc::new(bag::read_manifest(key, &bytes)?))
                }
                _ => None,
            },
        };
        records.extend(record.map(|record| (key.clone(), record)));
    }
    Ok(records)
}

/// Heartbeats with their versions, by their keys.
pub(super) type Heartbeats = BTreeMap<String, (String, Heartbeat)>;

/// Reads the heartbeats of all runs that are not `known` in their present version. Beats are dated by the store, so "now"
/// is the last beat of this run, `me`. A process without a heartbeat only reads, and asks the store for the time.
pub(super) async fn read_heartbeats(
    store: &Store,
    known: &Heartbeats,
    beats: &[&Entry],
    me: Option<&str>,
) -> Result<Heartbeats> {
    let mine = me.map(runs::heartbeat_key);
    let wanted: Vec<_> = beats
        .iter()
        .map(|entry| {
            let known = known.get(&entry.key).filter(|(version, _)| *version == entry.version);
            (entry.key.clone(), entry.version.clone(), known.map(|known| known.1.clone()))
        })
        .collect();
    let read = stream::iter(wanted).map(|(key, version, known)| async move {
        let read = match known {
            Some(known) => Some(known),
            None => store.get(&key).await?.and_then(|b| serde_json::from_slice(&b).ok()),
        };
        let run = runs::of_key(&key).unwrap_or_default();
        // A heartbeat that cannot be read may still belong to a living run.
        let heartbeat: Heartbeat = read
            .filter(|read: &Heartbeat| read.run == run)
            .unwrap_or_else(|| Heartbeat::unknown(run));
        Ok::<_, Error>((key, (version, heartbeat)))
    });
    let mut found: Heartbeats = read.buffer_unordered(store.requests()).try_collect().await?;
    let now = match &mine {
        Some(mine) => beats.iter().find(|beat| beat.key == *mine).map(|beat| beat.modified),
        None if found.values().all(|(_, heartbeat)| heartbeat.is_here()) => None,
        None => store.now().await,
    };
    for entry in beats {
        if let Some((_, heartbeat)) = found.get_mut(&entry.key) {
            heartbeat.alive = heartbeat.is_alive(now.map(|now| now - entry.modified));
        }
    }
    Ok(found)
}

/// The key of the record of a seal that is begun.
pub(super) fn record_key(bytes: &[u8]) -> String {
    format!("{RECORDS}{}.txt", sha256(bytes))
}
