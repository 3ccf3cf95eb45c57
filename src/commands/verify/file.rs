//! SYNC: checks the files of a chunk: hashes their bytes, decodes their rows to the last page, and compares them with the
//! commit: rows, columns, statistics, and names in the metadata.

use arrow::array::RecordBatch;

use crate::archive::commit::{Commit, FileRecord};
use crate::column_stats::Stats;
use crate::commands::verify::decode::{Broken, Content, Decoder};
use crate::compact::Text;
use crate::encode::Cores;
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::hash::sha256;
use crate::model::{Column, Role};
use crate::store::Store;

/// A file up to this size is read once, and is hashed and decoded in memory. A larger one is read twice, which costs little
/// because its parts are still in the page cache.
const SMALL_BYTES: u64 = 8 << 20;

/// The result for the files of a chunk.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) unchecked: Vec<Fault>,
}

/// The faults, each with the key of its file.
pub(super) type Fault = (String, String);

/// The resources for decoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means<'a> {
    /// Bytes of memory.
    pub(super) share: usize,
    /// The cores that all threads share, of which this one has taken `held`.
    pub(super) cores: &'a Cores,
    pub(super) held: usize,
}

/// The fault of a file whose size in the store is not the recorded one.
pub(in crate::commands) fn size_fault(file: &FileRecord, size: Option<u64>) -> Option<String> {
    match size {
        None => Some("it is missing".to_owned()),
        Some(size) if size != file.bytes => {
            Some(format!("it has {size} bytes, the catalog says {}", file.bytes))
        }
        Some(_) => None,
    }
}

/// Reads all files of a chunk, which have these sizes in the store. Without `means`, their bytes are hashed but not decoded.
/// `Err` means that the store cannot be read.
pub(super) fn check_chunk(
    store: &Store,
    commit: &Commit,
    sizes: &[Option<u64>],
    means: Option<Means<'_>>,
) -> Result<Checked> {
    let (mut checked, mut stats, mut damaged) = (Checked::default(), None, false);
    for (file, size) in commit.files.iter().zip(sizes) {
        let content = match size_fault(file, *size) {
            Some(fault) => Err(fault),
            None => hashed(store, file, means.is_some())?,
        };
        let content = match content {
            Ok(content) => content,
            Err(fault) => {
                checked.faults.push((file.key.clone(), fault));
                damaged = true;
                continue;
            }
        };
        checked.files += 1;
        checked.bytes += file.bytes;
        // A file with other bytes is reported without being decoded.
        let Some(means) = means.filter(|_| !damaged) else { continue };
        let decoded = Decoder::open(content, commit, file, means.share).and_then(|decoder| {
            let stats = stats.get_or_insert_with(|| Stats::new(&decoder.columns));
            decoder.gather(stats, means.cores, means.held)
        });
        match decoded {
            Ok(rows) => checked.rows += rows,
            Err(Broken::Fault(fault)) => checked.faults.push((file.key.clone(), fault)),
            Err(Broken::TooLarge(why)) => checked.unchecked.push((file.key.clone(), why)),
            Err(Broken::Unread(error)) => return Err(error),
        }
    }
    if means.is_none() {
        checked.rows = commit.rows;
    } else if checked.faults.is_empty() && checked.unchecked.is_empty() {
        compare(commit, stats, &mut checked);
    }
    Ok(checked)
}

/// The bytes of a file, if they are those that the catalog records. They stay in memory only if they are to be decoded.
fn hashed(
    store: &Store,
    file: &FileRecord,
    is_decoded: bool,
) -> Result<std::result::Result<Content, String>> {
    let other = || Ok(Err("its bytes are not those that the catalog records".to_owned()));
    let Some(reading) = store.reading(&file.key)? else { return other() };
    let (hash, content) = if is_decoded && file.bytes <= SMALL_BYTES {
        let bytes = reading.range(0..file.bytes)?;
        (sha256(&bytes), Content::Whole(bytes))
    } else {
        match reading.hash()? {
            Some((hash, _)) => (hash, Content::Parts(reading)),
            None => return other(),
        }
    };
    if hash == file.sha256 { Ok(Ok(content)) } else { other() }
}

/// Compares the decoded rows of all files together with the commit.
fn compare(commit: &Commit, stats: Option<Stats>, checked: &mut Checked) {
    let (rows, faults) = (checked.rows, &mut checked.faults);
    let place = || match commit.files.first() {
        Some(file) => file.key.clone(),
        None => format!("{} {}", commit.path, commit.slice),
    };
    if rows != commit.rows {
        faults
            .push((place(), format!("{rows} rows, its chunk has {} in the catalog", commit.rows)));
    }
    if let Some(stats) = stats {
        for (found, recorded) in stats.finish().into_iter().zip(&commit.columns) {
            // The properties of the columns were compared for each file.
            if found.clone().values_alone() != recorded.clone().values_alone() {
                faults.push((
                    place(),
                    format!(
                        "column `{}` has {} values, min {}, max {}, sum {}; the catalog says {}, {}, {}, {}",
                        found.name,
                        found.count,
                        shown(&found.min),
                        shown(&found.max),
                        shown(&found.sum),
                        recorded.count,
                        shown(&recorded.min),
                        shown(&recorded.max),
                        shown(&recorded.sum),
                    ),
                ));
            }
        }
    }
    if let Some(outside) = time_outside(commit) {
        faults.push((place(), outside));
    }
}

fn shown(value: &Option<Text>) -> &str {
    value.as_deref().unwrap_or("none")
}

fn time_outside(commit: &Commit) -> Option<String> {
    let time = commit.columns.iter().find(|column| column.role == Role::Time)?;
    let window = commit.slice.window()?;
    // InfluxDB 3 accepts the very last nanosecond, after which no window can end.
    let last = |time: i64| time == i64::MAX && window.to == i64::MAX;
    let within = |time: i64| window.contains(time) || last(time);
    let inside =
        |text: &Option<Text>| text.as_ref().is_none_or(|text| text.parse().is_ok_and(within));
    (!inside(&time.min) || !inside(&time.max))
        .then(|| "it has rows outside of its window".to_owned())
}

/// The fingerprint of the rows in the files of a chunk, or the reason why one of them cannot be decoded.
pub(super) fn fingerprint(
    store: &Store,
    commit: &Commit,
    share: usize,
) -> Result<std::result::Result<Fingerprint, Fault>> {
    let mut all = Fingerprint::default();
    for file in &commit.files {
        let content = match store.reading(&file.key)? {
            Some(reading) => Content::Parts(reading),
            None => return Ok(Err((file.key.clone(), "it is missing".to_owned()))),
        };
        match Decoder::open(content, commit, file, share).and_then(Decoder::fingerprint) {
            Ok(fingerprint) => all.merge(fingerprint),
            Err(Broken::Fault(why) | Broken::TooLarge(why)) => {
                return Ok(Err((file.key.clone(), why)));
            }
            Err(Broken::Unread(error)) => return Err(error),
        }
    }
    Ok(Ok(all))
}

/// Passes on the rows of a chunk, batch by batch with their columns. No row is passed on from a file whose bytes are not
/// those that the catalog records.
pub(in crate::commands) fn read_chunk(
    store: &Store,
    commit: &Commit,
    share: usize,
    give: &mut dyn FnMut(&[Column], &RecordBatch) -> Result<()>,
) -> Result<std::result::Result<(), Fault>> {
    for file in &commit.files {
        let content = match hashed(store, file, true)? {
            Ok(content) => content,
            Err(fault) => return Ok(Err((file.key.clone(), fault))),
        };
        let read = Decoder::open(content, commit, file, share).and_then(|decoder| {
            decoder.read(&mut |columns, batch| give(columns, batch).map_err(Broken::Unread))
        });
        match read {
            Ok(_) => {}
            Err(Broken::Fault(why) | Broken::TooLarge(why)) => {
                return Ok(Err((file.key.clone(), why)));
            }
            Err(Broken::Unread(error)) => return Err(error),
        }
    }
    Ok(Ok(()))
}
