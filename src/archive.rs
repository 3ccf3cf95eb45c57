//! The archive, by its parts: `keys` (the names of everything), `commit`, `index` (every commit, read once), `runs`
//! (heartbeats and plans), `open` (open it, commit a chunk), `seal`, `sweep` (whose a file is), `catalog`, `dumps`, `bag` and
//! `verdict` (what a sealed archive says of itself), `tags` (what is made after the seal).

pub mod bag;
pub mod catalog;
pub mod chunks;
pub mod commit;
pub mod dumps;
mod index;
pub mod keys;
mod open;
pub mod run_json;
pub mod runs;
mod seal;
mod sweep;
mod tags;
pub mod verdict;

pub use self::index::{ArchiveIndex, without_overlaps};
pub use self::keys::{
    CHUNKS, DUMPS, MANIFEST, REPORT, RUN, TABLES, TAG_FILES, TAG_MANIFEST, TAG_SIGNATURE, VERDICT,
    is_after_seal,
};
pub use self::open::Archive;
pub use self::seal::{Seal, is_artifact};
pub use self::sweep::{Found, is_marker, is_written_by_runs};
pub use self::tags::{LastVerdict, Sign};
