//! The archive: `keys` (the names of all files), `commit`, `segment` and `fold` (many commits in one file), `index` (every
//! commit) with `cache` and `reads` (each is read once), `runs` (heartbeats and plans), `shards` (how shards divide their
//! work), `open` (opening the archive and committing chunks), `seal`, `sweep` (to which run a file belongs), `catalog`,
//! `dumps`, `bag` and `verdict` (the records of a sealed archive), `pages` (the memory that a Parquet file takes), and
//! `tags` (files that are made after the seal).

pub mod bag;
mod cache;
pub mod catalog;
pub mod chunks;
pub mod commit;
pub mod dumps;
mod fold;
mod index;
pub mod keys;
mod open;
pub(crate) mod pages;
mod reads;
pub mod run_json;
pub mod runs;
mod seal;
pub mod segment;
mod shards;
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
pub use self::shards::is_division;
pub use self::sweep::{Found, is_marker, is_written_by_runs};
pub use self::tags::{LastVerdict, Sign};
