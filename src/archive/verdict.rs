//! `catalog/verdict.json`: the last verdict on the archive. It says when and how the sources were asked and what is
//! open, and it holds only for the very archive that was compared.

use serde::{Deserialize, Serialize};

use crate::archive::bag::{self, Hashes};
use crate::archive::keys::{REPORT, VERDICT};
use crate::hash::sha256;
use crate::model::{Level, Open, SourceInfo, TableId, Verdict};
use crate::window::{Slice, Window};

/// The value of [`VerdictRecord::archive`] for an archive with this tag manifest.
pub fn archive_hash(tags: &Hashes) -> String {
    let lines = tags.iter().filter(|(key, _)| ![VERDICT, REPORT].contains(&key.as_str()));
    let lines = lines.map(|(key, hash)| (key.clone(), hash.clone())).collect();
    sha256(bag::manifest(&lines).as_bytes())
}

/// The result of a comparison of an archive with its sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Version of the archive format.
    pub format: u32,
    /// Version of moveout.
    pub moveout: String,
    /// The SHA-256, in hexadecimal, of the lines of the tag manifest, those of `catalog/verdict.json` and `report.html`
    /// left out. The verdict is valid as long as the archive has this one.
    pub archive: String,
    /// The verdict.
    pub verdict: Verdict,
    /// When the first source was asked, RFC 3339.
    pub started: String,
    /// When the last source had answered, RFC 3339.
    pub ended: String,
    /// The requested depth: `statistics` (the default), `deep`, or `sample N%`.
    pub depth: String,
    /// The sources as they described themselves, without any secret.
    pub sources: Vec<SourceInfo>,
    /// The open points.
    pub open: Vec<Open>,
    /// What was compared, by table and level.
    pub compared: Vec<Compared>,
    /// The chunks of which the source has other rows now. The next export reads them again.
    pub stale: Vec<Stale>,
    /// What the user left out.
    pub excluded: Vec<String>,
    /// Notes on what was not compared and is not an open point.
    pub notes: Vec<String>,
}

/// What was compared of one table at one level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The table.
    pub table: TableId,
    /// How.
    pub level: Level,
    /// How many chunks were compared, including the different ones.
    pub chunks: u64,
    /// How many of them are different.
    pub different: u64,
    /// The windows of the chunks that are equal, merged.
    pub equal: Vec<Window>,
}

/// A chunk of which the source has other rows now.
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
