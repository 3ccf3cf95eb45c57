//! What an archive holds: somebody may have changed it.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::archive::bag;
use crate::archive::catalog::TableEntry;
use crate::archive::chunks::{read_chunks, write_chunks};
use crate::archive::commit::{Commit, Common, FileRecord};
use crate::archive::dumps::{read_dumps, write_dumps};
use crate::archive::keys;
use crate::archive::run_json::{Format, RunEntry};
use crate::archive::runs::{Heartbeat, RunPlan};
use crate::archive::verdict::VerdictRecord;
use crate::column_stats::{ColumnInfo, ColumnStats};
use crate::commands::verify::decode::{Content, Decoder};
use crate::fuzzing::input::{assert_sound, choice, text};
use crate::model::{Role, TableId};
use crate::shards::{Division, Shard};
use crate::window::{Bound, Slice, Window, parse_duration, parse_time, rfc3339};

/// A commit that can be read is read again from what is written of it.
pub(super) fn commit(bytes: &[u8]) {
    let Ok(commit) = Commit::from_json("k", bytes) else { return };
    let _ = (commit.size_bytes(), commit.division(), keys::commit_key(&commit.path, commit.slice));
    let again = commit.to_json().and_then(|json| Commit::from_json("k", &json));
    assert_eq!(again.ok(), Some(commit));
}

pub(super) fn chunks(bytes: &[u8]) {
    let Ok(commits) = read_chunks(Bytes::copy_from_slice(bytes)) else { return };
    // A reader is content with texts that are no times; nobody writes them.
    if let Ok(written) = write_chunks(&commits) {
        let again = read_chunks(written.into()).expect("it was just written");
        assert_eq!(again.len(), commits.len());
    }
}

pub(super) fn catalog(bytes: &[u8]) {
    let (choice, json) = choice(bytes);
    match choice % 8 {
        0 => drop(serde_json::from_slice::<Format>(json)),
        1 => again::<RunEntry>(json),
        2 => again::<Vec<TableEntry>>(json),
        3 => again::<VerdictRecord>(json),
        4 => again::<Heartbeat>(json),
        5 => again::<RunPlan>(json),
        6 => division(json),
        _ => {
            let Ok(dumps) = read_dumps(json) else { return };
            let Ok(Some(written)) = write_dumps(&dumps) else { return };
            assert_eq!(read_dumps(&written), Ok(dumps));
        }
    }
}

/// What can be read is the same after it was written and read again.
fn again<T: DeserializeOwned + Serialize>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&read).expect("it was read");
    let again = serde_json::from_slice::<T>(&written).expect("it was just written");
    assert_eq!(serde_json::to_vec(&again).expect("it was read"), written);
}

/// How an export is divided among machines, each of which reads it from the archive.
fn division(json: &[u8]) {
    let Ok(division) = serde_json::from_slice::<Division>(json) else { return };
    let shards = (0..division.shards()).take(64);
    let [source, database, schema, table] = ["s", "d", "p", "t"].map(str::to_owned);
    let id = TableId { source, database, schema, table };
    let with_null_time = shards.filter(|shard| division.part(&id, *shard).has_null_time());
    assert!(with_null_time.count() <= 1, "two shards have the same rows");
}

pub(super) fn manifest(bytes: &[u8]) {
    if let Ok(hashes) = bag::read_manifest("m", bytes) {
        assert_eq!(bag::manifest(&hashes).as_bytes(), bytes);
    }
}

/// Names of files and of tables, slices, and times.
pub(super) fn names(bytes: &[u8]) {
    let text = text(bytes);
    if let Some((path, slice, run)) = keys::parts_of_file(&text) {
        let key = keys::file_key(path, slice, run, 1);
        // In `PATH/all.RUN` with a path of its own in the run, there are several ways to read it.
        let _ = keys::parts_of_file(&key);
    }
    if let Ok(slice) = text.parse::<Slice>() {
        assert_eq!(slice.to_string().parse().ok(), Some(slice));
        assert_eq!(slice.long_name().parse().ok(), Some(slice));
    }
    if let Ok(window) = serde_json::from_slice::<Window>(bytes) {
        let _ = (window.for_people(), window.halves(1));
    }
    if let Some(time) = parse_time(&text) {
        assert_eq!(parse_time(&rfc3339(time)), Some(time));
    }
    let _ = (
        text.parse::<Shard>(),
        parse_duration(&text),
        Bound::parse(&text, i64::MIN),
        Bound::parse(&text, i64::MAX),
    );
    let segment = keys::segment(&text);
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(segment.bytes().all(is_safe) && !segment.starts_with('.') && segment.len() <= 120);
}

/// A data file, which its commit describes.
pub(super) fn parquet_file(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let file =
        FileRecord { key: "f".into(), bytes: bytes.len() as u64, sha256: "".into(), rows: 3 };
    let [source, database, schema, table] = ["s", "d", "p", "t"].map(str::to_owned);
    let column = |name: &str, role, source_type: &str| ColumnStats {
        column: Arc::new(ColumnInfo {
            name: name.into(),
            key: name.into(),
            role,
            source_type: source_type.into(),
            parquet_type: None,
            nullable: None,
            key_part: None,
        }),
        count: 0,
        min: None,
        max: None,
        sum: None,
    };
    let commit = Commit {
        common: Common {
            source,
            database,
            schema,
            table,
            path: "data/s/d/p/t".into(),
            run: "r".into(),
            verified: String::new(),
            state: None,
        }
        .shared(),
        slice: Slice::All,
        rows: 3,
        files: Vec::new(),
        columns: vec![
            column("time", Role::Time, "timestamp"),
            column("host", Role::Tag, "tag"),
            column("v", Role::Field, "float"),
        ],
        started: String::new(),
        elapsed_ms: 0,
        committed: String::new(),
        snapshot: None,
        replaces: Vec::new(),
        dump: None,
    };
    // The product takes a panic of the decoder for damage; see `verify/work`.
    let _ = std::panic::catch_unwind(|| {
        let decoder = Decoder::open(Content::Whole(bytes), &commit, &file, 16 << 20);
        decoder.and_then(|decoder| {
            decoder.read(&mut |_, batch| {
                assert_sound(batch);
                Ok(())
            })
        })
    });
}
