//! `catalog/verdict.json`: the last verdict on the archive. It says when and how the sources were asked and what is
//! open, and it holds only for the very archive that was compared.

use serde::{Deserialize, Serialize};

use crate::archive::bag::{self, Hashes};
use crate::archive::keys::{REPORT, VERDICT};
use crate::hash::sha256;
use crate::model::{Level, Open, SourceInfo, TableId, Verdict};
use crate::window::{Slice, Window};

/// What [`VerdictRecord::archive`] is of an archive with this tag manifest.
pub fn archive_hash(tags: &Hashes) -> String {
    let lines = tags.iter().filter(|(key, _)| ![VERDICT, REPORT].contains(&key.as_str()));
    let lines = lines.map(|(key, hash)| (key.clone(), hash.clone())).collect();
    sha256(bag::manifest(&lines).as_bytes())
}

/// What a comparison of an archive with its sources came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Version of the archive format.
    pub format: u32,
    /// Version of moveout.
    pub moveout: String,
    /// The SHA-256, in hexadecimal, of the lines of the tag manifest, those of `catalog/verdict.json` and `report.html`
    /// left out. The verdict is valid as long as the archive has this one.
    pub archive: String,
    /// The answer.
    pub verdict: Verdict,
    /// When the sources were asked first, RFC 3339.
    pub started: String,
    /// When the last of them had answered, RFC 3339.
    pub ended: String,
    /// What was asked for: `statistics` (by default), `deep`, or `sample N%`.
    pub depth: String,
    /// The sources as they described themselves, without any secret.
    pub sources: Vec<SourceInfo>,
    /// What stands in the way.
    pub open: Vec<Open>,
    /// What was compared, by table and level.
    pub compared: Vec<Compared>,
    /// The chunks that the source has otherwise now. The next export reads them again.
    pub stale: Vec<Stale>,
    /// What the user left out.
    pub excluded: Vec<String>,
    /// What was not compared and does not stand in the way.
    pub notes: Vec<String>,
}

/// What was compared of one table at one level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The table.
    pub table: TableId,
    /// How.
    pub level: Level,
    /// How many chunks were compared, the different ones included.
    pub chunks: u64,
    /// How many of them are different.
    pub different: u64,
    /// The time of the chunks that are equal, merged.
    pub equal: Vec<Window>,
}

/// A chunk that the source has otherwise now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// The table.
    pub table: TableId,
    /// The slice.
    pub slice: Slice,
    /// The run that committed it.
    pub run: String,
    /// What is different.
    pub why: String,
}
