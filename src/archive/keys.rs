//! PURE: turns the names of tables and files into keys that every file system, object store, BagIt validator and
//! `sha256sum` accepts without quoting. Distinct tables get distinct paths, even if case is ignored.

use std::collections::{HashMap, HashSet};

use crate::hash::sha256;
use crate::model::{Artifact, TableId};
use crate::window::Slice;

/// Version of the archive format. A reader knows all earlier ones and refuses a newer one.
pub const FORMAT: u32 = 2;
/// The hashes of all payload files.
pub const MANIFEST: &str = "manifest-sha256.txt";
/// The hashes of all other files. It is written last and seals the archive.
pub const TAG_MANIFEST: &str = "tagmanifest-sha256.txt";
/// The tables.
pub const TABLES: &str = "catalog/tables.json";
/// The chunks.
pub const CHUNKS: &str = "catalog/chunks.parquet";
/// The run.
pub const RUN: &str = "catalog/run.json";
/// The native dumps, if there are any.
pub const DUMPS: &str = "catalog/dumps.json";
/// The last verdict, if there is one.
pub const VERDICT: &str = "catalog/verdict.json";
/// The report, if one was made.
pub const REPORT: &str = "report.html";
/// The signature of the tag manifest, if one was made. No manifest lists it.
pub const TAG_SIGNATURE: &str = "tagmanifest-sha256.txt.minisig";
/// Every tag file of a sealed archive except the tag manifest, [`DUMPS`] and the files that are made after the seal.
pub const TAG_FILES: [&str; 7] =
    [TABLES, CHUNKS, RUN, "README.txt", "bagit.txt", "bag-info.txt", MANIFEST];

/// Whether a file is made after the seal. If the tag manifest does not list such a file, a killed run has left it, and it
/// has no meaning.
pub fn is_after_seal(key: &str) -> bool {
    [VERDICT, REPORT, TAG_SIGNATURE].contains(&key)
}

/// The version that the mark of an unfinished archive gets with its first segment, so that versions that know no segments
/// refuse it. The archive that is sealed from it is one of [`FORMAT`].
pub(super) const SEGMENTED: u32 = 3;

pub(super) const MARKER: &str = ".moveout/archive.json";

pub(super) const COMMITS: &str = ".moveout/commits/";
/// The folder of the records of seals that were begun, about the catalog and the artifacts.
pub(super) const RECORDS: &str = ".moveout/seals/";

/// The folder of the records of how an export is divided among its shards.
pub(super) const DIVISIONS: &str = ".moveout/shards/";
/// The folder of the segments, which hold commits that were folded.
pub(super) const SEGMENTS: &str = ".moveout/segments/";
/// The folder of the records of commits that were retracted after they had been folded.
pub(super) const RETRACTED: &str = ".moveout/retracted/";

/// The content of the file that marks an archive of this version.
pub(super) fn marker_of(format: u32) -> String {
    format!("{{\"format\":{format}}}\n")
}

/// Longest name of a folder; file systems allow 255 bytes.
const LONGEST: usize = 120;

/// One name as one path segment. Letters, digits, `.`, `-` and `_` stay as they are. Every other byte becomes `_xHH`, and
/// so do a leading dot and an underscore that could be mistaken for an escape. A name that is too long is cut and ends
/// with a hash of the whole name.
pub fn segment(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut text = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'_' => at > 0 && bytes.get(at + 1) != Some(&b'x'),
            b'.' => at > 0,
            b'-' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if plain { text.push(char::from(*byte)) } else { text.push_str(&format!("_x{byte:02X}")) }
    }
    if text.is_empty() {
        return "_x".to_owned(); // an escape without digits, which no other name produces
    }
    if text.len() > LONGEST {
        text.truncate(LONGEST - 17);
        text = format!("{text}-{}", hash(name));
    }
    text
}

fn hash(name: &str) -> String {
    let mut hash = sha256(name.as_bytes());
    hash.truncate(16);
    hash
}

/// The folder of a table, `data/SOURCE/DATABASE/[SCHEMA/]TABLE`, or the start of the key of a dump.
fn plain_path(id: &TableId) -> String {
    if id.is_dump() {
        return format!("data/{}/_dumps/{}", segment(&id.source), segment(&id.table));
    }
    let mut path = format!("data/{}/{}", segment(&id.source), segment(&id.database));
    if !id.schema.is_empty() {
        path = format!("{path}/{}", segment(&id.schema));
    }
    format!("{path}/{}", segment(&id.table))
}

/// Assigns a folder of its own to each table. A path never changes once it is assigned, so the paths that the archive
/// already has are remembered first.
#[derive(Debug, Default)]
pub struct Paths {
    by_table: HashMap<TableId, String>,
    by_path: HashMap<String, TableId>,
}

impl Paths {
    /// Remembers a path that the archive already has.
    pub fn remember(&mut self, id: &TableId, path: &str) {
        self.by_path.insert(path.to_lowercase(), id.clone());
        self.by_table.insert(id.clone(), path.to_owned());
    }

    /// The path of a table. It ends with a hash if another table already has the same path, perhaps in other case.
    pub fn path(&mut self, id: &TableId) -> String {
        if let Some(path) = self.by_table.get(id) {
            return path.clone();
        }
        let mut path = plain_path(id);
        if self.by_path.contains_key(&path.to_lowercase()) {
            path = with_hash(&path, id);
        }
        self.remember(id, &path);
        path
    }
}

/// Whether [`Paths`] may have assigned a folder to a table: it is made of the names, perhaps with the hash that tells it
/// from the folder of another table.
pub fn may_be_path(id: &TableId, path: &str) -> bool {
    let plain = plain_path(id);
    path == plain || path == with_hash(&plain, id)
}

fn with_hash(path: &str, id: &TableId) -> String {
    let whole = [&id.source, &id.database, &id.schema, &id.table].map(|name| segment(name));
    format!("{path}-{}", hash(&whole.join("/")))
}

/// Key of a data file: `PATH/SLICE.RUN.parquet`, or `….pN.parquet` from the second file of a chunk on.
pub fn file_key(path: &str, slice: Slice, run: &str, number: usize) -> String {
    named(path, &slice.to_string(), run, number)
}

/// Key of a dump: `PATH.RUN.zst`.
pub fn dump_key(path: &str, run: &str) -> String {
    format!("{path}.{run}.zst")
}

/// The same in version 1 of the format.
pub fn long_file_key(path: &str, slice: Slice, run: &str, number: usize) -> String {
    named(path, &slice.long_name(), run, number)
}

fn named(path: &str, slice: &str, run: &str, number: usize) -> String {
    match number {
        1 => format!("{path}/{slice}.{run}.parquet"),
        _ => format!("{path}/{slice}.{run}.p{number}.parquet"),
    }
}

/// The folder, the slice and the run of a data file or a dump, from its key; `None` for a file that moveout did not
/// name.
pub fn parts_of_file(key: &str) -> Option<(&str, Slice, &str)> {
    if let Some(dump) = key.strip_suffix(".zst").filter(|_| key.split('/').nth(2) == Some("_dumps"))
    {
        let (path, run) = dump.rsplit_once('.')?;
        return path.starts_with("data/").then_some((path, Slice::All, run));
    }
    let (path, name) = key.rsplit_once('/')?;
    let name = name.strip_suffix(".parquet").filter(|_| path.starts_with("data/"))?;
    let name = match name.rsplit_once(".p") {
        Some((rest, number)) if number.parse::<u32>().is_ok() => rest,
        _ => name,
    };
    let (slice, run) = name.rsplit_once('.')?;
    Some((path, slice.parse().ok()?, run))
}

/// Key of the commit of a chunk. It is the same for every run, so that only one of them can create it.
pub fn commit_key(path: &str, slice: Slice) -> String {
    format!(".moveout/commits/{}/{}.json", path.trim_start_matches("data/"), slice.long_name())
}

/// Key of a commit that replaces another one, which may still exist under the key of the chunk.
pub fn replacing_commit_key(path: &str, slice: Slice, run: &str) -> String {
    let (path, slice) = (path.trim_start_matches("data/"), slice.long_name());
    format!(".moveout/commits/{path}/{slice}.{run}.json")
}

/// Key of a segment.
pub(super) fn segment_key(run: &str, number: u32) -> String {
    format!("{SEGMENTS}{run}.{number:05}.jsonl.zst")
}

/// The run that wrote a segment, and its number; `None` for another file.
pub(super) fn parts_of_segment(key: &str) -> Option<(&str, u32)> {
    let name = key.strip_prefix(SEGMENTS)?.strip_suffix(".jsonl.zst")?;
    let (run, number) = name.split_once('.')?;
    let number = number.parse().ok()?;
    (segment_key(run, number) == key).then_some((run, number))
}

/// Key of the record that a commit was retracted. The time makes it that of no other commit of the run for the same slice.
pub(super) fn retracted_key(path: &str, slice: Slice, run: &str, committed: &str) -> String {
    let (path, slice) = (path.trim_start_matches("data/"), slice.long_name());
    format!("{RETRACTED}{path}/{slice}.{run}.{}.json", hash(committed))
}

/// The key of an artifact, which is unique even if case is ignored. `taken` holds the assigned keys in lower case.
pub(super) fn artifact_key(
    source: &str,
    artifact: &Artifact,
    taken: &mut HashSet<String>,
) -> String {
    let Artifact { folder, name, extension, .. } = artifact;
    let slash = if folder.is_empty() { "" } else { "/" };
    let stem = format!("data/{}/_artifacts/{folder}{slash}{}", segment(source), segment(name));
    let numbered = (2..).map(|number| format!("{stem}_{number}.{extension}"));
    let free = std::iter::once(format!("{stem}.{extension}"))
        .chain(numbered)
        .find(|key| !taken.contains(&key.to_lowercase()))
        .unwrap_or_default(); // there are more numbers than taken names
    taken.insert(free.to_lowercase());
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(database: &str, table: &str) -> TableId {
        TableId {
            source: "s".into(),
            database: database.into(),
            schema: "autogen".into(),
            table: table.into(),
        }
    }

    #[test]
    fn names_are_safe_and_readable() {
        for (name, expected) in [
            ("cpu", "cpu"),
            ("cpu.load-1_m", "cpu.load-1_m"),
            ("_internal", "_x5Finternal"),
            ("a_x41", "a_x5Fx41"),
            (".", "_x2E"),
            ("..", "_x2E."),
            ("db/rp", "db_x2Frp"),
            ("é", "_xC3_xA9"),
            ("", "_x"),
        ] {
            assert_eq!(segment(name), expected, "{name}");
        }
        assert_eq!(segment(&"a".repeat(300)).len(), LONGEST);
        assert_ne!(segment(&"a".repeat(300)), segment(&"a".repeat(301)));
    }

    #[test]
    fn tables_that_differ_only_in_case_get_distinct_paths() {
        let mut paths = Paths::default();
        let (one, two) = (paths.path(&id("db", "CPU")), paths.path(&id("db", "cpu")));
        assert_eq!(one, "data/s/db/autogen/CPU");
        assert_ne!(one.to_lowercase(), two.to_lowercase());
        assert_ne!(paths.path(&id("DB", "cpu")).to_lowercase(), two.to_lowercase());
        let mut later = Paths::default();
        later.remember(&id("db", "cpu"), &two);
        assert_eq!(later.path(&id("db", "cpu")), two, "a path once given stays");
    }

    #[test]
    fn the_run_is_read_from_the_name_of_a_file() {
        let slice = "19691231T235959.999999999Z_20240102T000000Z".parse().unwrap();
        for number in [1, 2, 17] {
            assert_eq!(
                parts_of_file(&file_key("data/s/d/t.p2", slice, "r1", number)),
                Some(("data/s/d/t.p2", slice, "r1"))
            );
        }
        assert_eq!(
            parts_of_file("data/s/d/t/all.r1.parquet"),
            Some(("data/s/d/t", Slice::All, "r1"))
        );
        let path = plain_path(&TableId::dump("s", "shop.2"));
        assert_eq!(dump_key(&path, "r1"), "data/s/_dumps/shop.2.r1.zst");
        assert_eq!(parts_of_file(&dump_key(&path, "r1")), Some((path.as_str(), Slice::All, "r1")));
        assert_eq!(parts_of_file("data/s/_dumps/mine"), None);
        assert_eq!(parts_of_file("data/s/d/t/mine.zst"), None);
        assert_eq!(parts_of_file("data/s/d/t/mine.parquet"), None);
        assert_eq!(parts_of_file("data/s/d/t/notes.r1.txt"), None);
    }

    proptest! {
        #[test]
        fn distinct_names_have_distinct_segments(a in ".{0,6}", b in ".{0,6}") {
            prop_assert_eq!(segment(&a) == segment(&b), a == b);
        }

        #[test]
        fn names_that_look_like_escapes_stay_apart(a in "[_x4Fa.]{0,6}", b in "[_x4Fa.]{0,6}") {
            prop_assert_eq!(segment(&a) == segment(&b), a == b);
        }
    }

    #[test]
    fn artifacts_have_safe_names_of_their_own() {
        let mut taken = HashSet::new();
        let mut key = |name: &str| {
            let (name, content) = (name.to_owned(), "".into());
            let artifact = Artifact { folder: "tasks", name, extension: "flux", content };
            artifact_key("a b", &artifact, &mut taken)
        };
        assert_eq!(key("../x-1"), "data/a_x20b/_artifacts/tasks/_x2E._x2Fx-1.flux");
        assert_eq!(key("Load"), "data/a_x20b/_artifacts/tasks/Load.flux");
        assert_eq!(key("load"), "data/a_x20b/_artifacts/tasks/load_2.flux");
        assert_eq!(key("LOAD"), "data/a_x20b/_artifacts/tasks/LOAD_3.flux");
        assert!(key(&"n".repeat(300)).ends_with(".flux"));
    }
}
