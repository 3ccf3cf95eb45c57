//! Damages an archive in every way that comes to mind, and expects `verify` to see and to name it:
//! first what accidents do, then what was made to fit by somebody who rewrote the manifests, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::array::{new_null_array, types::ArrowPrimitiveType};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use arrow::datatypes::{TimestampNanosecondType, UInt32Type};
use bytes::Bytes;
use moveout::archive::commit::Commit;
use moveout::archive::{catalog, chunks, keys};
use moveout::commands::verify::{Fault, Options, verify};
use moveout::error::Exit;
use moveout::model::Artifacts;
use moveout::progress::Progress;
use moveout::window::Slice;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use support::scripted::{job, numbers};
use support::{Run, Scripted, files, moveout, repository};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::watch;

const MANIFEST: &str = "manifest-sha256.txt";
const TAG_MANIFEST: &str = "tagmanifest-sha256.txt";
const TABLES: &str = "catalog/tables.json";
const CHUNKS: &str = "catalog/chunks.parquet";
const RUN: &str = "catalog/run.json";
const BAG_INFO: &str = "bag-info.txt";
const DAY: i64 = 86_400_000_000_000;

/// The content of an archive: key to bytes.
type Files = BTreeMap<String, Vec<u8>>;

/// The sample, in one chunk a table.
static SAMPLE: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &[])
});

/// The sample, in several chunks a table, some of them empty.
static SEVERAL: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &["--from", "2012-01-01", "--to", "2013-01-01"]);
    export(folder.path(), &["--from", "2012-01-01", "--to", "2014-01-01"]);
    let files = export(folder.path(), &[]);
    assert!(commits(&files).iter().any(|commit| commit.files.is_empty()));
    assert!(commits(&files).iter().filter(|commit| commit.table == "daily_weather").count() > 2);
    files
});

/// A chunk in several files.
static LARGE: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut lines = String::new();
    for time in 0..300_000 {
        writeln!(lines, "m,host=a v={},n={time}i {time}000000000", random.f64()).unwrap();
    }
    fs::write(folder.path().join("large.lp"), lines).unwrap();
    let config = "memory = \"32MiB\"\nconcurrency = 16\nfile_size = \"1MiB\"\n\
                  [[source]]\nname = \"large\"\nurl = \"lp:large.lp\"\n";
    let (config_path, root) = (folder.path().join("config.toml"), folder.path().join("archive"));
    fs::write(&config_path, config).unwrap();
    let config = config_path.to_str().unwrap();
    moveout(["export", "--config", config, "--archive", root.to_str().unwrap()]).expect(0);
    let files = read(&root);
    assert!(data_files(&files).len() > 1, "{:?}", files.keys());
    files
});

fn export(folder: &Path, more: &[&str]) -> Files {
    let root = folder.join("archive");
    let source = format!("lp:{}", repository("tests/data/weather.lp").display());
    let args = ["export", "--source", &source, "--archive", root.to_str().unwrap()];
    moveout(args.iter().chain(more)).expect(0);
    read(&root)
}

fn read(root: &Path) -> Files {
    files(root).into_iter().map(|key| (key.clone(), fs::read(root.join(key)).unwrap())).collect()
}

/// An archive on disk, to be damaged.
struct Damaged {
    whole: Files,
    folder: TempDir,
}

impl Damaged {
    fn new(whole: &Files) -> Self {
        let damaged = Self { whole: whole.clone(), folder: tempfile::tempdir().unwrap() };
        whole.iter().for_each(|(key, bytes)| damaged.put(key, bytes));
        damaged
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.root().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, key: &str) {
        fs::remove_file(self.root().join(key)).unwrap();
    }

    /// As it was.
    fn restore(&self, key: &str) {
        match self.whole.get(key) {
            Some(bytes) => self.put(key, bytes),
            None => self.remove(key),
        }
    }

    /// Verifies it; whatever is found, nothing may change.
    fn verify(&self, options: &[&str]) -> Run {
        let root = self.root();
        let before = read(&root);
        let args = ["verify", root.to_str().unwrap()];
        let run = moveout(args.iter().chain(options));
        assert!(read(&root) == before, "verify changed the archive");
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run
    }

    /// Verifies it within this process, which is quicker.
    #[track_caller]
    fn assert_found_here(&self, name: &str, what: &str) {
        let url = self.root().display().to_string();
        let before = read(&self.root());
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let report = runtime
            .block_on(verify(&url.as_str().into(), Options::default(), &Progress::silent()))
            .unwrap();
        assert!(read(&self.root()) == before, "verify changed the archive");
        let names = |fault: &Fault| fault.place.contains(name) || fault.fault.contains(name);
        let named = report.faults.iter().any(names);
        assert!(report.exit == Exit::Different && named, "{what} of {name}: {report:?}");
    }

    /// Expects that it is found to be different, and that the output names all of these.
    #[track_caller]
    fn assert_found(&self, options: &[&str], names: &[&str], what: &str) {
        let run = self.verify(options);
        let unnamed = names.iter().find(|name| !run.stdout.contains(*name));
        assert!(
            run.status == 4 && unnamed.is_none(),
            "{what}: status {}, unnamed {unnamed:?}\n{}{}",
            run.status,
            run.stdout,
            run.stderr
        );
    }

    /// Puts these bytes in the place of a file's, expects that this is found, and undoes it.
    #[track_caller]
    fn assert_replaced_is_found(&self, key: &str, bytes: &[u8], what: &str) {
        assert_ne!(self.whole[key], bytes, "{what} does not change {key}");
        self.put(key, bytes);
        self.assert_found(&[], &[key], &format!("{what} of {key}"));
        self.restore(key);
    }
}

fn flipped(bytes: &[u8], at: usize, bit: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}

fn data_files(files: &Files) -> Vec<String> {
    files.keys().filter(|key| key.ends_with(".parquet") && *key != CHUNKS).cloned().collect()
}

fn tag_files(files: &Files) -> Vec<String> {
    files.keys().filter(|key| !key.starts_with("data/")).cloned().collect()
}

#[test]
fn an_intact_archive_has_no_fault_wherever_it_lies() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        let archive = Damaged::new(whole);
        for options in [&[][..], &["--quick"], &["--json"]] {
            archive.verify(options).expect(0);
        }
        let mut inside = support::command(["verify", "."]);
        inside.current_dir(archive.root());
        support::run(inside).expect(0);
        moveout(["verify", &format!("{}/", archive.root().display())]).expect(0);
        // Folders without files are nothing that a manifest could name.
        fs::create_dir_all(archive.root().join("data/empty")).unwrap();
        archive.verify(&[]).expect(0);
    }
}

#[test]
fn a_flipped_bit_is_found_in_each_byte_of_a_small_file() {
    let archive = Damaged::new(&SAMPLE);
    let small = SAMPLE.iter().filter(|(_, bytes)| bytes.len() < 600);
    let mut count = 0;
    for (key, bytes) in small {
        for at in 0..bytes.len() {
            let bit = fastrand::u32(0..8);
            archive.put(key, &flipped(bytes, at, bit));
            archive.assert_found_here(key, &format!("flip of bit {bit} at {at}"));
        }
        archive.restore(key);
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn a_flipped_bit_is_found_at_many_places_of_a_large_file() {
    for (whole, samples) in [(&SAMPLE, 20), (&SEVERAL, 5), (&LARGE, 3)] {
        let archive = Damaged::new(whole);
        for (key, bytes) in whole.iter().filter(|(_, bytes)| bytes.len() >= 600) {
            let last = bytes.len() - 1;
            let random = (0..samples).map(|_| fastrand::usize(..=last));
            for at in [0, 1, last / 2, last - 1, last].into_iter().chain(random) {
                let bytes = flipped(bytes, at, fastrand::u32(0..8));
                archive.assert_replaced_is_found(key, &bytes, &format!("flipped bit at {at}"));
            }
        }
    }
}

// A digit that becomes a greater one must not look like the format of a later version.
#[test]
fn a_flipped_bit_in_the_version_of_the_format_is_damage() {
    let archive = Damaged::new(&SAMPLE);
    let text = String::from_utf8(SAMPLE[RUN].clone()).unwrap();
    let format = |number| format!("\"format\": {number}");
    let at = text.find(&format(keys::FORMAT)).unwrap() + "\"format\": ".len();
    for bit in 0..8 {
        let bytes = flipped(&SAMPLE[RUN], at, bit);
        archive.assert_replaced_is_found(RUN, &bytes, &format!("flipped bit {bit} of the format"));
    }
    // But a later version that recorded its own format is one.
    let later = text.replace(&format(keys::FORMAT), &format(keys::FORMAT + 1));
    let files = with_tags(with(&SAMPLE, RUN, later));
    let run = Damaged::new(&files).verify(&[]).expect(1);
    assert!(run.stderr.contains("newer moveout"), "{}", run.stderr);
}

// Bytes that the decoder of Parquet is known to panic at are among these.
#[test]
fn a_damaged_catalog_is_found_at_any_byte() {
    let archive = Damaged::new(&SAMPLE);
    let bytes = &SAMPLE[CHUNKS];
    let start = fastrand::usize(0..7);
    for at in (start..bytes.len()).step_by(7) {
        let bit = fastrand::u32(0..8);
        archive.put(CHUNKS, &flipped(bytes, at, bit));
        archive.assert_found_here(CHUNKS, &format!("flip of bit {bit} at {at}"));
    }
}

#[test]
fn a_file_that_is_cut_or_longer_or_empty_is_found() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        let archive = Damaged::new(whole);
        for (key, bytes) in whole.iter() {
            let length = bytes.len();
            for (what, bytes) in [
                ("cut by a byte", bytes[..length - 1].to_vec()),
                ("cut to a half", bytes[..length / 2].to_vec()),
                ("cut to nothing", Vec::new()),
                ("appended line feed", [bytes, b"\n".as_slice()].concat()),
                ("appended byte", [bytes, b"x".as_slice()].concat()),
                ("repetition", [bytes.as_slice(), bytes].concat()),
                ("zeros in place", vec![0; length]),
            ] {
                archive.assert_replaced_is_found(key, &bytes, what);
            }
        }
    }
}

#[test]
fn a_file_that_is_gone_or_has_another_name_is_found() {
    for whole in [&SAMPLE, &SEVERAL] {
        let archive = Damaged::new(whole);
        for key in whole.keys().filter(|key| *key != TAG_MANIFEST) {
            archive.remove(key);
            archive.assert_found(&[], &[key], &format!("removal of {key}"));
            for name in [format!("{key}.old"), format!("{key}2"), key.replace(".", "_")] {
                archive.put(&name, &whole[key]);
                let what = format!("renaming of {key} to {name}");
                archive.assert_found(&[], &[key, &name], &what);
                archive.remove(&name);
            }
            archive.restore(key);
        }
        for folder in ["data", "catalog"] {
            fs::remove_dir_all(archive.root().join(folder)).unwrap();
            let keys = whole.keys().filter(|key| key.starts_with(folder));
            let keys: Vec<&str> = keys.map(String::as_str).collect();
            archive.assert_found(&[], &keys, &format!("removal of {folder}"));
            keys.iter().for_each(|key| archive.restore(key));
        }
        archive.verify(&[]).expect(0);
    }
}

#[test]
fn without_its_tag_manifest_an_archive_is_not_sealed() {
    let archive = Damaged::new(&SEVERAL);
    archive.remove(TAG_MANIFEST);
    for options in [&[][..], &["--quick"]] {
        let run = archive.verify(options).expect(3);
        assert!(run.stdout.contains("not sealed"), "{}", run.stdout);
    }
    archive.put("old", &SEVERAL[TAG_MANIFEST]);
    archive.verify(&[]).expect(3);
    archive.remove("old");
    archive.remove(MANIFEST);
    archive.verify(&[]).expect(3);
    // What is committed must be whole all the same.
    for key in data_files(&SEVERAL) {
        let bytes = flipped(&SEVERAL[&key], SEVERAL[&key].len() / 2, 0);
        archive.assert_replaced_is_found(&key, &bytes, "flipped bit");
        archive.remove(&key);
        archive.assert_found(&["--quick"], &[&key], "removal");
        archive.restore(&key);
    }
    for key in [CHUNKS, RUN] {
        archive.assert_replaced_is_found(key, b"{", "nonsense");
    }
}

#[test]
fn a_file_that_does_not_belong_is_found() {
    let archive = Damaged::new(&SAMPLE);
    let data = data_files(&SAMPLE);
    let folder = data[0].rsplit_once('/').unwrap().0;
    let plausible = data[0].replace("all.", "20240101T000000Z_20240102T000000Z.");
    for (key, bytes) in [
        (plausible.as_str(), SAMPLE[&data[0]].as_slice()),
        (&format!("{folder}/all.0000000000a.parquet"), &SAMPLE[&data[0]]),
        (&format!("{folder}/.hidden"), b"x"),
        (&format!("{folder}/below/x.parquet"), b"x"),
        ("data/stray", b""),
        ("data/x/_artifacts/stray.txt", b"x"),
        ("data/weather.lp/_artifacts/stray.txt", b"x"),
        ("data/weather.lp/_dumps/stray.dump", b"x"),
        ("stray.txt", b"x"),
        ("manifest-md5.txt", b""),
        ("fetch.txt", b""),
        ("catalog/tables.json.bak", b"x"),
        ("catalog/below/x", b"x"),
        (".moveout/stray", b"x"),
        (".moveout/commits/x.json", b"{}"),
        (".moveout/runs/x.json", b"{}"),
        (".moveout/plans/x.json", b"{}"),
        (".moveout/archive.json", b"{}"),
        ("name with space", b"x"),
        ("data/name with space", b"x"),
        ("data/\u{e9} [1] 100%", b"x"),
        ("data/50%20off", b"x"),
        ("data/hash#12", b"x"),
        ("data/two#parts#12", b"x"),
        ("data/~tilde`*?", b"x"),
        ("data/back\\slash", b"x"),
        (".DS_Store", b"x"),
        ("data/.nfs0001", b"x"),
    ] {
        for options in [&[][..], &["--quick"]] {
            archive.put(key, bytes);
            let name = key.rsplit('/').next().unwrap();
            // What stands for a byte in a path may be shown in its place.
            let ascii = name.split(|c: char| !c.is_ascii_alphanumeric()).max_by_key(|n| n.len());
            archive.assert_found(options, &[ascii.unwrap()], &format!("stray {key}"));
            archive.remove(key);
        }
        fs::remove_dir_all(archive.root().join(".moveout")).ok();
    }
    archive.verify(&[]).expect(0);
}

// The first step of taking off the seal is a mark; killed there, all rows are as they were.
#[test]
fn a_seal_that_was_to_be_taken_off_is_unfinished_and_no_difference() {
    let archive = Damaged::new(&SAMPLE);
    archive.put(".moveout/archive.json", b"{\"format\":1}\n");
    let run = archive.verify(&[]).expect(3);
    assert!(run.stdout.contains("not sealed") && run.stdout.contains("export"), "{}", run.stdout);
}

// An archive is a tree of plain files: what lies behind a link is not in it, and who opens a pipe waits.
#[test]
fn what_is_no_plain_file_is_found_and_not_opened() {
    let data = data_files(&SAMPLE)[0].clone();
    for key in [data.as_str(), MANIFEST, TAG_MANIFEST, TABLES, CHUNKS, RUN, BAG_INFO, "README.txt"]
    {
        let archive = Damaged::new(&SAMPLE);
        let path = archive.root().join(key);
        let elsewhere = archive.folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        let found = |what: &str| {
            for options in [&[][..], &["--quick"]] {
                let run =
                    moveout(["verify", archive.root().to_str().unwrap()].iter().chain(options));
                let said = format!("{}{}", run.stdout, run.stderr);
                // Without a tag manifest that could be read there is no seal.
                let named = said.contains(key) && said.contains(what);
                assert!(run.status == 4 && named, "{key}: {}: {said}", run.status);
            }
        };
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        found("a link");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        found("a link");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        found("a pipe");
        fs::remove_file(&path).unwrap();
        if key != TAG_MANIFEST {
            fs::create_dir(&path).unwrap();
            found("is ");
        }
    }
}

#[test]
fn links_to_folders_are_found_and_not_followed() {
    let archive = Damaged::new(&SAMPLE);
    for key in ["data/loop", "catalog/loop", "loop", ".moveout"] {
        let path = archive.root().join(key);
        std::os::unix::fs::symlink(".", &path).unwrap();
        let run = moveout(["verify", archive.root().to_str().unwrap()]).expect(4);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains(key) && said.contains("a link"), "{said}");
        fs::remove_file(&path).unwrap();
    }
    // The folder of a table, moved away and linked: its files are there for whoever follows links.
    let folder = archive.root().join(data_files(&SAMPLE)[0].rsplit_once('/').unwrap().0);
    let elsewhere = archive.folder.path().join("elsewhere");
    fs::rename(&folder, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
    let run = moveout(["verify", archive.root().to_str().unwrap()]).expect(4);
    assert!(run.stdout.contains(&data_files(&SAMPLE)[0]), "{}", run.stdout);
}

// Who has lost a file wants to know that first, and not what no longer adds up.
#[test]
fn faults_of_the_data_come_before_what_follows_and_only_what_was_read_is_counted() {
    let archive = Damaged::new(&SEVERAL);
    let key = data_files(&SEVERAL).pop().unwrap();
    archive.remove(&key);
    let run = archive.verify(&[]).expect(4);
    let first = run.stdout.lines().next().unwrap();
    assert_eq!(first, format!("{key}: it is missing"), "{}", run.stdout);
    let listed = SEVERAL.keys().filter(|key| key.starts_with("data/")).count();
    let counted = format!("{} of {listed} files", listed - 1);
    assert!(run.stdout.contains(&counted), "{}", run.stdout);
    assert!(run.stdout.contains("hint: ") && run.stdout.contains("export"), "{}", run.stdout);
    let all = archive.verify(&["--json"]).expect(4).json();
    let whole = Damaged::new(&SEVERAL).verify(&["--json"]).expect(0).json();
    assert!(all["rows"].as_u64() < whole["rows"].as_u64(), "{all}");
}

// Not even the listing can show such a name.
#[test]
fn a_file_whose_name_is_no_text_is_found() {
    let archive = Damaged::new(&SAMPLE);
    for name in [b"bad\xffname".as_slice(), b"bad\nname", b"bad\x01name"] {
        let path = archive.root().join("data").join(OsStr::from_bytes(name));
        fs::write(&path, "x").unwrap();
        let run = moveout(["verify", archive.root().to_str().unwrap()]).expect(4);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("data/bad"), "{said}");
        fs::remove_file(path).unwrap();
    }
    archive.verify(&[]).expect(0);
}

#[test]
fn files_in_the_place_of_others_are_found() {
    let swaps = |whole: &Files, of: fn(&Files) -> Vec<String>| {
        let archive = Damaged::new(whole);
        let keys = of(whole);
        for (at, one) in keys.iter().enumerate() {
            for other in &keys[at + 1..] {
                archive.put(one, &whole[other]);
                archive.put(other, &whole[one]);
                // Where the tag manifest itself is another file, nothing is known of the other.
                let tags = [one, other].iter().any(|key| *key == TAG_MANIFEST);
                let both = [one.as_str(), other.as_str()];
                let names = if tags { &[TAG_MANIFEST][..] } else { &both };
                archive.assert_found(&[], names, &format!("{one} and {other} swapped"));
                archive.restore(one);
                archive.restore(other);
            }
        }
    };
    swaps(&SAMPLE, tag_files);
    swaps(&SAMPLE, data_files);
    swaps(&SEVERAL, data_files);
    swaps(&LARGE, data_files);
}

#[test]
fn a_valid_file_with_fewer_rows_is_found() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        let archive = Damaged::new(whole);
        for key in data_files(whole) {
            let fewer = edit(&whole[&key], |batch| batch.slice(0, batch.num_rows() - 1));
            archive.put(&key, &fewer);
            archive.assert_found(&[], &[&key], "one row less");
            archive.assert_found(&["--quick"], &[&key], "one row less");
            archive.restore(&key);
        }
    }
}

#[test]
fn quick_finds_what_needs_no_reading_of_data() {
    let archive = Damaged::new(&SEVERAL);
    for (key, bytes) in SEVERAL.iter().filter(|(key, _)| *key != TAG_MANIFEST) {
        archive.remove(key);
        archive.assert_found(&["--quick"], &[key], &format!("removal of {key}"));
        if !key.contains("_artifacts") {
            archive.put(key, &bytes[..bytes.len() - 1]);
            archive.assert_found(&["--quick"], &[key], &format!("cut of {key}"));
        }
        if !key.starts_with("data/") {
            archive.put(key, &flipped(bytes, bytes.len() / 2, 1));
            archive.assert_found(&["--quick"], &[key], &format!("flipped bit in {key}"));
        }
        archive.restore(key);
    }
    // It says what it has not done.
    let key = &data_files(&SEVERAL)[0];
    archive.put(key, &flipped(&SEVERAL[key], 1000, 1));
    let run = archive.verify(&["--quick"]).expect(0);
    assert!(run.stdout.contains("no data file read"), "{}", run.stdout);
}

#[test]
fn what_is_in_json_has_all_faults() {
    let archive = Damaged::new(&SEVERAL);
    let keys = data_files(&SEVERAL);
    keys.iter().for_each(|key| archive.remove(key));
    let run = archive.verify(&["--json"]).expect(4);
    let report = run.json();
    assert_eq!(report["status"], "different");
    let faults = report["faults"].as_array().unwrap();
    for key in keys {
        assert!(faults.iter().any(|fault| fault["place"] == *key), "{key}: {faults:?}");
    }
}

// ---- What was made to fit ----

fn with(files: &Files, key: &str, bytes: impl Into<Vec<u8>>) -> Files {
    let mut files = files.clone();
    files.insert(key.to_owned(), bytes.into());
    files
}

fn without(files: &Files, key: &str) -> Files {
    let mut files = files.clone();
    files.remove(key).unwrap();
    files
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn manifest(files: &Files, of: impl Fn(&str) -> bool) -> Vec<u8> {
    let listed = files.iter().filter(|(key, _)| of(key));
    let lines = listed.map(|(key, bytes)| format!("{}  {key}\n", sha256(bytes)));
    lines.collect::<String>().into_bytes()
}

/// The tag manifest made to fit.
fn with_tags(files: Files) -> Files {
    let tags = manifest(&files, |key| !key.starts_with("data/") && key != TAG_MANIFEST);
    with(&files, TAG_MANIFEST, tags)
}

/// All manifests made to fit, and what the bag says of its size.
fn with_manifests(mut files: Files) -> Files {
    let payload = manifest(&files, |key| key.starts_with("data/"));
    files.insert(MANIFEST.to_owned(), payload);
    let data = || files.iter().filter(|(key, _)| key.starts_with("data/"));
    let bytes: usize = data().map(|(_, bytes)| bytes.len()).sum();
    let oxum = format!("Payload-Oxum: {bytes}.{}", data().count());
    let info = String::from_utf8(files[BAG_INFO].clone()).unwrap();
    let others = info.lines().filter(|line| !line.starts_with("Payload-Oxum"));
    let info: String = others.chain([oxum.as_str()]).map(|line| format!("{line}\n")).collect();
    files.insert(BAG_INFO.to_owned(), info.into_bytes());
    with_tags(files)
}

fn commits(files: &Files) -> Vec<Commit> {
    chunks::read_chunks(Bytes::from(files[CHUNKS].clone())).unwrap()
}

/// The chunks changed, and nothing else made to fit.
fn with_chunks(files: &Files, change: impl FnOnce(&mut Vec<Commit>)) -> Files {
    let mut commits = commits(files);
    change(&mut commits);
    with(files, CHUNKS, chunks::write_chunks(&commits).unwrap())
}

/// The list of tables made to fit the chunks.
fn with_tables(files: &Files) -> Files {
    with(files, TABLES, serde_json::to_vec_pretty(&catalog::tables(&commits(files))).unwrap())
}

/// Another file in the place of one, and its size and hash made to fit everywhere.
fn with_data(files: &Files, key: &str, bytes: Vec<u8>) -> Files {
    with_data_and(files, key, bytes, |_| ())
}

fn with_data_and(
    files: &Files,
    key: &str,
    bytes: Vec<u8>,
    change: impl FnOnce(&mut Commit),
) -> Files {
    let files = with_chunks(files, |commits| {
        let of_file = |commit: &&mut Commit| commit.files.iter().any(|file| file.key == key);
        let commit = commits.iter_mut().find(of_file).unwrap();
        let file = commit.files.iter_mut().find(|file| file.key == key).unwrap();
        (file.bytes, file.sha256) = (bytes.len() as u64, sha256(&bytes));
        change(commit);
    });
    with_manifests(with_tables(&with(&files, key, bytes)))
}

/// A Parquet file with the same columns and metadata, and other rows.
fn edit(bytes: &[u8], change: impl FnOnce(RecordBatch) -> RecordBatch) -> Vec<u8> {
    edit_all(bytes, change, |_, _| ())
}

fn edit_all(
    bytes: &[u8],
    change: impl FnOnce(RecordBatch) -> RecordBatch,
    metadata: impl Fn(&str, &mut String),
) -> Vec<u8> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap();
    let schema = builder.schema().clone();
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned();
    let mut pairs = pairs.unwrap();
    pairs.retain(|pair| pair.key != "ARROW:schema");
    pairs.iter_mut().for_each(|pair| metadata(&pair.key, pair.value.as_mut().unwrap()));
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let batch = change(concat_batches(&schema, &batches).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(pairs))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn with_column(batch: &RecordBatch, at: usize, column: ArrayRef) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

fn changed<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    at: usize,
    change: impl Fn(T::Native) -> T::Native,
) -> ArrayRef {
    let array = array.as_primitive::<T>();
    let values = array.iter().enumerate();
    let values = values.map(|(place, v)| if place == at { v.map(&change) } else { v });
    let changed: PrimitiveArray<T> = values.collect();
    Arc::new(changed.with_data_type(array.data_type().clone()))
}

/// One value of a column changed, as far as statistics can tell: of texts they know the count.
fn change_value(batch: &RecordBatch, column: usize, at: usize) -> ArrayRef {
    let array = batch.column(column);
    match array.data_type() {
        DataType::Float64 => changed::<Float64Type>(array, at, |v| v + 0.1),
        DataType::Int64 => changed::<Int64Type>(array, at, |v| v ^ 1),
        DataType::Timestamp(..) => changed::<TimestampNanosecondType>(array, at, |v| v - 1),
        DataType::Boolean => {
            let values = array.as_boolean().iter().enumerate();
            let values = values.map(|(place, v)| if place == at { v.map(|v| !v) } else { v });
            Arc::new(values.collect::<BooleanArray>())
        }
        _ => {
            let rows = array.len() as u32;
            let indices = (0..rows).map(|row| (row as usize != at).then_some(row));
            take(array, &indices.collect::<PrimitiveArray<UInt32Type>>(), None).unwrap()
        }
    }
}

#[track_caller]
fn assert_found(files: &Files, names: &[&str], what: &str) {
    Damaged::new(files).assert_found(&[], names, what);
}

/// Found without reading data, too.
#[track_caller]
fn assert_found_quickly(files: &Files, names: &[&str], what: &str) {
    assert_found(files, names, what);
    Damaged::new(files).assert_found(&["--quick"], names, what);
}

// Else the tests below would prove nothing.
#[test]
fn what_the_helpers_make_to_fit_fits() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        let same = with_manifests(with_tables(&with_chunks(whole, |_| ())));
        Damaged::new(&same).verify(&[]).expect(0);
        for key in data_files(whole) {
            let files = with_data(whole, &key, edit(&whole[&key], |batch| batch));
            Damaged::new(&files).verify(&[]).expect(0);
        }
    }
}

#[test]
fn a_file_missing_from_data_and_manifests_is_found_against_the_catalog() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        for key in data_files(whole) {
            let files = with_manifests(without(whole, &key));
            assert_found_quickly(&files, &[&key], "removal of a file");
        }
    }
}

#[test]
fn a_chunk_missing_from_the_catalog_is_found() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        for (at, commit) in commits(whole).into_iter().enumerate() {
            let table = commit.table.as_str();
            let keys = || commit.files.iter().map(|file| file.key.as_str());
            let mut names: Vec<&str> = keys().collect();
            names.extend([table, TABLES]);
            let files = with_chunks(whole, |commits| drop(commits.remove(at)));
            assert_found_quickly(&with_tags(files.clone()), &names, "removal of a chunk");
            // With its files, and with the sums of its table: its time is a gap.
            let mut files = files;
            keys().for_each(|key| drop(files.remove(key)));
            let files = with_manifests(files);
            assert_found_quickly(&files, &[table, TABLES], "removal of a chunk and its files");
            let files = with_tags(with_tables(&files));
            assert_found_quickly(&files, &[table, "not covered"], "removal of all but the time");
        }
    }
}

#[test]
fn a_table_missing_everywhere_but_in_the_run_is_found() {
    let mut files = with_chunks(&SEVERAL, |commits| commits.retain(|c| c.table == "daily_weather"));
    files.retain(|key, _| !key.contains("hourly_normals"));
    let files = with_manifests(with_tables(&files));
    assert_found_quickly(&files, &["hourly_normals"], "removal of a table");
}

/// With artifacts: one of the first run, which stays, and one of the second.
static ARTIFACTS: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (run, path) in ["one", "two"].iter().enumerate() {
        let rows: Vec<_> = (0..=run as i64).map(|day| (Some(day * DAY), day)).collect();
        let source = Scripted::new([numbers("t", &rows)]);
        let mut artifacts = Artifacts::of("s");
        artifacts.file("", path, "sql", format!("CREATE TABLE {path};"));
        source.keep(artifacts);
        let job = job(&source, folder.path().to_str().unwrap());
        let (_stop, stopped) = watch::channel(false);
        let summary = runtime
            .block_on(moveout::commands::export::export(&job, &Progress::silent(), stopped))
            .unwrap();
        assert_eq!(summary.exit, Exit::Done);
    }
    read(folder.path())
});

#[test]
fn artifacts_are_those_that_the_run_lists_however_much_is_made_to_fit() {
    let listed = |change: &dyn Fn(&mut Json)| {
        let mut run: Json = serde_json::from_slice(&ARTIFACTS[RUN]).unwrap();
        change(&mut run);
        with(&ARTIFACTS, RUN, serde_json::to_vec(&run).unwrap())
    };
    let keys = ["one", "two"].map(|name| format!("data/scripted/_artifacts/{name}.sql"));
    let run: Json = serde_json::from_slice(&ARTIFACTS[RUN]).unwrap();
    for (key, file) in keys.iter().zip(run["artifact_files"].as_array().unwrap()) {
        let bytes = &ARTIFACTS[key];
        assert_eq!(*file, json!({"path": key, "bytes": bytes.len(), "sha256": sha256(bytes)}));
    }
    assert_eq!(run["earlier"][0].get("artifact_files"), None);
    Damaged::new(&with_manifests(ARTIFACTS.clone())).verify(&[]).expect(0);
    for (at, key) in keys.iter().enumerate() {
        let files = with_manifests(without(&ARTIFACTS, key));
        assert_found_quickly(&files, &[key, RUN], "an artifact that is gone");
        let files = with_manifests(with(&ARTIFACTS, key, "DROP TABLE;"));
        assert_found_quickly(&files, &[key, RUN], "another artifact");
        let files = listed(&|run| run["artifact_files"][at]["bytes"] = json!(3));
        assert_found_quickly(&with_manifests(files), &[key, RUN], "another size");
        let unlisted =
            listed(&|run| drop(run["artifact_files"].as_array_mut().unwrap().remove(at)));
        assert_found_quickly(&with_manifests(unlisted), &[key, RUN], "an unlisted artifact");
    }
    let more = with_manifests(with(&ARTIFACTS, "data/other/_artifacts/x.sql", "x"));
    assert_found_quickly(&more, &["data/other/_artifacts/x.sql", RUN], "an artifact more");
    // Earlier versions wrote no list.
    let none = listed(&|run| drop(run.as_object_mut().unwrap().remove("artifact_files")));
    Damaged::new(&with_manifests(none)).verify(&[]).expect(0);
}

#[test]
fn rows_missing_from_a_file_are_found_however_much_is_made_to_fit() {
    for whole in [&SAMPLE, &SEVERAL, &LARGE] {
        for key in data_files(whole) {
            let fewer = edit(&whole[&key], |batch| batch.slice(1, batch.num_rows() - 1));
            let files = with_manifests(with(whole, &key, fewer.clone()));
            assert_found_quickly(&files, &[&key], "removal of a row, manifests fitted");
            let files = with_data(whole, &key, fewer.clone());
            assert_found(&files, &[&key], "removal of a row, hashes of the catalog fitted");
            let files = with_data_and(whole, &key, fewer, |commit| {
                commit.rows -= 1;
                let file = commit.files.iter_mut().find(|file| file.key == key).unwrap();
                file.rows -= 1;
            });
            // Statistics are of a chunk: its first file stands for all.
            let chunk = key.rsplit_once('.').unwrap().0.split(".p").next().unwrap();
            assert_found(&files, &[chunk, "the catalog says"], "removal of a row, counts fitted");
        }
    }
}

#[test]
fn rows_added_to_a_file_are_found_however_much_is_made_to_fit() {
    for key in data_files(&SAMPLE) {
        let twice = |batch: RecordBatch| {
            concat_batches(&batch.schema(), &[batch.clone(), batch.slice(0, 1)]).unwrap()
        };
        let more = edit(&SAMPLE[&key], twice);
        let files = with_data(&SAMPLE, &key, more.clone());
        assert_found(&files, &[&key], "repetition of a row");
        let files = with_data_and(&SAMPLE, &key, more, |commit| {
            commit.rows += 1;
            commit.files[0].rows += 1;
        });
        assert_found(&files, &[&key, "the catalog says"], "repetition of a row, counts fitted");
    }
}

#[test]
fn one_changed_value_is_found_by_the_statistics() {
    for whole in [&SAMPLE, &SEVERAL] {
        for key in data_files(whole) {
            let columns = commits(whole);
            let of_file = |commit: &&Commit| commit.files.iter().any(|file| file.key == key);
            let columns = &columns.iter().find(of_file).unwrap().columns;
            for (at, column) in columns.iter().enumerate() {
                let bytes = edit(&whole[&key], |batch| {
                    let array = batch.column(at);
                    // Of times they know the first and the last.
                    let nth = if at == 0 { 0 } else { 7 };
                    let mut rows = (0..array.len()).filter(|row| array.is_valid(*row));
                    let row = rows.nth(nth).unwrap();
                    with_column(&batch, at, change_value(&batch, at, row))
                });
                let files = with_data(whole, &key, bytes);
                let name = format!("column `{}`", column.name);
                assert_found(&files, &[&key, &name], &format!("a change in {}", column.name));
            }
        }
    }
}

/// Row groups so large that their columns are decoded by several threads.
#[test]
fn one_changed_value_of_a_large_file_is_found() {
    let key = &data_files(&LARGE)[1];
    // Of times between the first and the last nothing is known.
    for (at, column) in commits(&LARGE)[0].columns.iter().enumerate().skip(1) {
        let bytes = edit(&LARGE[key], |batch| {
            with_column(&batch, at, change_value(&batch, at, batch.num_rows() / 2))
        });
        let name = format!("column `{}`", column.name);
        assert_found(&with_data(&LARGE, key, bytes), &[&name], &column.name);
    }
}

#[test]
fn a_page_of_a_large_file_that_cannot_be_decoded_is_found_beside_good_files() {
    let keys = data_files(&LARGE);
    let rows = |report: &serde_json::Value| report["rows"].as_u64().unwrap();
    let of_files = |which: &dyn Fn(&str) -> bool| -> u64 {
        let commits = commits(&LARGE);
        let files = commits.iter().flat_map(|commit| &commit.files);
        files.filter(|file| which(&file.key)).map(|file| file.rows).sum()
    };
    let key = &keys[1];
    let mut bytes = LARGE[key].clone();
    bytes[4..40].fill(0xff); // the head of its first page
    let archive = Damaged::new(&with_data(&LARGE, key, bytes));
    let run = archive.verify(&["--json"]).expect(4);
    let report = run.json();
    assert!(report["faults"].to_string().contains(key), "{report}");
    assert_eq!(rows(&report), of_files(&|other| other != key), "{report}");
    assert_eq!(report["files"], report["files_listed"], "their bytes are as recorded: {report}");
}

#[test]
fn a_column_that_is_empty_or_gone_or_renamed_is_found() {
    let key = &data_files(&SAMPLE)[0];
    let project = |batch: RecordBatch| {
        let all: Vec<usize> = (0..batch.num_columns() - 1).collect();
        batch.project(&all).unwrap()
    };
    let empty = |batch: RecordBatch| {
        let at = batch.num_columns() - 1;
        let nulls = new_null_array(batch.column(at).data_type(), batch.num_rows());
        with_column(&batch, at, nulls)
    };
    let renamed = |batch: RecordBatch| {
        let schema = batch.schema();
        let fields = schema.fields().iter().enumerate().map(|(at, field)| match at {
            3 => Arc::new(Field::clone(field).with_name("other")),
            _ => Arc::clone(field),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, batch.columns().to_vec()).unwrap()
    };
    let swapped = |batch: RecordBatch| {
        let schema = batch.schema();
        let floats = schema.fields().iter().enumerate();
        let floats = floats.filter(|(_, field)| *field.data_type() == DataType::Float64);
        let floats: Vec<usize> = floats.map(|(at, _)| at).collect();
        let one = with_column(&batch, floats[0], batch.column(floats[1]).clone());
        with_column(&one, floats[1], batch.column(floats[0]).clone())
    };
    for (what, bytes) in [
        ("a column less", edit(&SAMPLE[key], project)),
        ("an empty column", edit(&SAMPLE[key], empty)),
        ("a renamed column", edit(&SAMPLE[key], renamed)),
        ("two columns swapped", edit(&SAMPLE[key], swapped)),
    ] {
        assert_found(&with_data(&SAMPLE, key, bytes), &[key], what);
    }
}

#[test]
fn a_file_of_another_chunk_is_found_by_its_metadata() {
    let keys = data_files(&SEVERAL);
    for (one, other) in keys.iter().zip(&keys[1..]) {
        let files = with_data(&SEVERAL, one, SEVERAL[other].clone());
        let files = with_data(&files, other, SEVERAL[one].clone());
        assert_found(&files, &[one, other], "two files swapped");
    }
    let key = &keys[0];
    for wanted in ["source", "database", "schema", "table", "slice", "run"] {
        let change = |key: &str, value: &mut String| {
            if key == format!("moveout.{wanted}") {
                value.push('x');
            }
        };
        let bytes = edit_all(&SEVERAL[key], |batch| batch, change);
        let files = with_data(&SEVERAL, key, bytes);
        assert_found(&files, &[key, wanted], &format!("other metadata: {wanted}"));
    }
}

/// A file of one column, whose content is small only as long as it is compressed.
fn expanding(bytes: &[u8], length: usize) -> Vec<u8> {
    edit(bytes, |batch| {
        let weather = batch.schema().index_of("weather").unwrap();
        let values = (0..batch.num_rows()).map(|row| match row {
            0 => Some("a".repeat(length)),
            _ => Some("a".to_owned()),
        });
        let column: arrow::array::StringArray = values.collect();
        let kind = batch.schema().field(weather).data_type().clone();
        with_column(&batch, weather, arrow::compute::cast(&column, &kind).unwrap())
    })
}

#[test]
fn nonsense_in_the_place_of_parquet_is_found_even_where_everything_fits() {
    let key = &data_files(&SAMPLE)[0];
    let length = SAMPLE[key].len();
    let mut random = fastrand::Rng::with_seed(1);
    let mut noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    let mut kinds = vec![Vec::new(), b"PAR1".to_vec(), b"PAR1PAR1".to_vec(), noise.clone()];
    noise[..4].copy_from_slice(b"PAR1");
    noise[length - 4..].copy_from_slice(b"PAR1");
    kinds.push(noise);
    for bytes in kinds {
        let archive = Damaged::new(&with_data(&SAMPLE, key, bytes));
        // A decoder may panic at this, as long as the program goes on and says so.
        let run = moveout(["verify", archive.root().to_str().unwrap()]).expect(4);
        let table = key.rsplit_once('/').unwrap().0;
        assert!(run.stdout.contains(table), "{}", run.stdout);
    }
}

// Not every bit means something (versions, hints, padding), but none may end the program.
#[test]
fn flipped_bits_that_were_made_to_fit_never_end_the_program() {
    let check = |files: Files, what: String| {
        let archive = Damaged::new(&files);
        let root = archive.root();
        let run = moveout(["verify", root.to_str().unwrap()]);
        assert!([0, 4].contains(&run.status), "{what}: {}\n{}", run.status, run.stderr);
        run.status
    };
    let mut found = 0;
    for _ in 0..60 {
        let key = &data_files(&SAMPLE)[fastrand::usize(0..2)];
        let (at, bit) = (fastrand::usize(..SAMPLE[key].len()), fastrand::u32(0..8));
        let files = with_data(&SAMPLE, key, flipped(&SAMPLE[key], at, bit));
        found += usize::from(check(files, format!("bit {bit} of byte {at} of {key}")) == 4);
    }
    assert!(found > 10, "{found} of 60");
    for _ in 0..60 {
        let (at, bit) = (fastrand::usize(..SAMPLE[CHUNKS].len()), fastrand::u32(0..8));
        let files = with_tags(with(&SAMPLE, CHUNKS, flipped(&SAMPLE[CHUNKS], at, bit)));
        check(files, format!("bit {bit} of byte {at} of {CHUNKS}"));
    }
}

#[test]
fn chunks_that_overlap_are_found() {
    let earlier_by_a_day = |commit: &mut Commit| {
        let Slice::Window(window) = &mut commit.slice else { panic!("{}", commit.slice) };
        window.from -= DAY;
    };
    let files = with_chunks(&SEVERAL, |commits| {
        let starts = |commit: &&mut Commit| commit.slice.to_string().starts_with("2013");
        earlier_by_a_day(commits.iter_mut().find(starts).unwrap());
    });
    let files = with_tags(with_tables(&files));
    assert_found_quickly(&files, &["daily_weather/2012", "twice"], "overlap");

    // The same chunk once more, with its file and without one.
    for with_file in [true, false] {
        let files = with_chunks(&SEVERAL, |commits| {
            let again = commits.iter().find(|commit| !commit.files.is_empty()).unwrap();
            let mut again = again.clone();
            if !with_file {
                again.files.clear();
            }
            commits.push(again);
        });
        let files = with_tags(with_tables(&files));
        assert_found_quickly(&files, &["daily_weather", "twice"], "repetition of a chunk");
    }
}

#[test]
fn a_chunk_whose_time_is_another_is_found() {
    // Some time is then covered by none; or the rows are not of the time.
    for (from, to) in [(DAY, 0), (0, -DAY), (DAY, DAY)] {
        let files = with_chunks(&SEVERAL, |commits| {
            let inner = |commit: &&mut Commit| {
                !commit.files.is_empty() && commit.slice.to_string().starts_with("2012")
            };
            let commit = commits.iter_mut().find(inner).unwrap();
            let Slice::Window(window) = &mut commit.slice else { panic!("{}", commit.slice) };
            window.from += from;
            window.to += to;
        });
        let files = with_tags(with_tables(&files));
        assert_found_quickly(&files, &["daily_weather"], "another window");
    }
}

#[test]
fn other_numbers_in_the_list_of_tables_are_found() {
    let change = |change: &dyn Fn(&mut Vec<Json>)| {
        let mut tables: Vec<Json> = serde_json::from_slice(&SEVERAL[TABLES]).unwrap();
        change(&mut tables);
        with_tags(with(&SEVERAL, TABLES, serde_json::to_vec(&tables).unwrap()))
    };
    Damaged::new(&change(&|_| ())).verify(&[]).expect(0);
    for (key, value) in [
        ("rows", json!(1460)),
        ("bytes", json!(0)),
        ("files", json!(9)),
        ("table", json!("x")),
        ("path", json!("data/x")),
        ("covered", json!([])),
        ("columns", json!([])),
    ] {
        let files = change(&|tables| tables[0][key] = value.clone());
        assert_found_quickly(&files, &[TABLES], key);
    }
    assert_found_quickly(&change(&|tables| drop(tables.pop())), &[TABLES], "a table less");
    assert_found_quickly(&change(&|tables| tables.push(tables[0].clone())), &[TABLES], "twice");
    let files = with_tags(with(&SEVERAL, TABLES, "nonsense"));
    assert_found_quickly(&files, &[TABLES], "nonsense");
}

#[test]
fn another_requested_range_in_the_run_is_found() {
    let change = |change: &dyn Fn(&mut Json)| {
        let files = &*RANGE;
        let mut run: Json = serde_json::from_slice(&files[RUN]).unwrap();
        change(&mut run);
        with_tags(with(files, RUN, serde_json::to_vec(&run).unwrap()))
    };
    Damaged::new(&change(&|_| ())).verify(&[]).expect(0);
    let wider =
        |run: &mut Json| run["requested"][0]["windows"][0]["to"] = json!("2014-01-01T00:00:00Z");
    assert_found_quickly(&change(&wider), &["daily_weather", "not covered"], "a wider range");
    let earlier =
        |run: &mut Json| run["requested"][0]["windows"][0]["from"] = json!("2011-01-01T00:00:00Z");
    assert_found_quickly(&change(&earlier), &["daily_weather", "not covered"], "an earlier begin");
    let gone = |run: &mut Json| drop(run["requested"].as_array_mut().unwrap().remove(0));
    assert_found_quickly(&change(&gone), &["daily_weather", RUN], "a table that was not asked for");
    let more = |run: &mut Json| {
        let mut other = run["requested"][0].clone();
        other["table"]["table"] = json!("unheard_of");
        run["requested"].as_array_mut().unwrap().push(other);
    };
    assert_found_quickly(&change(&more), &["unheard_of", "not covered"], "a table more");
    let none = |run: &mut Json| drop(run.as_object_mut().unwrap().remove("requested"));
    assert_found_quickly(&change(&none), &["daily_weather", RUN], "nothing asked for");
    let files = with_tags(with(&RANGE, RUN, "nonsense"));
    assert_found_quickly(&files, &[RUN], "nonsense");
}

/// Of 2012 alone.
static RANGE: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &["--from", "2012-01-01", "--to", "2013-01-01"])
});

#[test]
fn other_tag_files_that_were_made_to_fit_are_found() {
    let text = |key: &str| String::from_utf8(SAMPLE[key].clone()).unwrap();
    let found = |key: &str, new: String| {
        assert_found_quickly(&with_tags(with(&SAMPLE, key, new)), &[key], key);
    };
    found("bagit.txt", text("bagit.txt").replace("1.0", "0.97"));
    found(BAG_INFO, text(BAG_INFO).replace("Oxum: ", "Oxum: 1"));
    let manifest = text(MANIFEST);
    found(MANIFEST, manifest.replace('\n', "\r\n"));
    found(MANIFEST, manifest.to_uppercase());
    found(MANIFEST, format!("{manifest}{}  {TABLES}\n", sha256(&SAMPLE[TABLES])));
    found(MANIFEST, format!("{manifest}{}  data/../README.txt\n", sha256(b"")));
    let lines: Vec<&str> = manifest.lines().rev().collect();
    found(MANIFEST, lines.join("\n") + "\n");
    // A tag file that the tag manifest does not list.
    for key in tag_files(&SAMPLE).iter().filter(|key| *key != TAG_MANIFEST) {
        let tags = text(TAG_MANIFEST);
        let kept = tags.lines().filter(|line| !line.ends_with(&format!("  {key}")));
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        assert_found_quickly(&with(&SAMPLE, TAG_MANIFEST, kept), &[key], "an unlisted tag file");
        let gone = with_tags(without(&SAMPLE, key));
        assert_found_quickly(&gone, &[key], "a removed tag file");
    }
}

// Every hash fits, and so do all sums: but the archive contradicts itself.
#[test]
fn files_in_the_folders_of_other_tables_are_found_however_much_is_made_to_fit() {
    let keys = data_files(&SAMPLE);
    let folder = |key: &str| key.rsplit_once('/').unwrap().0.to_owned();
    let (one, two) = (folder(&keys[0]), folder(&keys[1]));
    assert_ne!(one, two);
    let other = |key: &str| match key.strip_prefix(&one) {
        Some(rest) => format!("{two}{rest}"),
        None => key.replace(&two, &one),
    };
    // Two tables in each other's folders, with or without the path of the table.
    for path_too in [false, true] {
        let files = with_chunks(&SAMPLE, |commits| {
            for commit in commits {
                commit.files.iter_mut().for_each(|file| file.key = other(&file.key));
                if path_too {
                    let path = other(&commit.path);
                    Arc::make_mut(&mut commit.common).path = path;
                }
            }
        });
        let mut moved: Files = files.clone();
        keys.iter().for_each(|key| drop(moved.insert(other(key), SAMPLE[key].clone())));
        let files = with_manifests(with_tables(&moved));
        assert_found_quickly(&files, &[&one], "a file in the folder of another table");
    }
}

#[test]
fn a_data_file_with_another_name_is_found_however_much_is_made_to_fit() {
    let key = data_files(&SAMPLE)[0].clone();
    for name in [
        key.replace(".parquet", ".parq"),
        key.replace(".parquet", ".p2.parquet"),
        key.replace("all.", "null-time."),
        format!("{}/x.parquet", key.rsplit_once('/').unwrap().0),
    ] {
        let files = with_chunks(&SAMPLE, |commits| {
            let files = commits.iter_mut().flat_map(|commit| &mut commit.files);
            files.filter(|file| file.key == key).for_each(|file| file.key = name.clone());
        });
        let files = with(&without(&files, &key), &name, SAMPLE[&key].clone());
        assert_found_quickly(&with_manifests(with_tables(&files)), &[&name], "another name");
    }
}

#[test]
fn a_table_whose_folder_is_elsewhere_is_found_however_much_is_made_to_fit() {
    let elsewhere = |path: &str| path.replacen("data/", "data/elsewhere-", 1);
    let mut files = with_chunks(&SAMPLE, |commits| {
        for commit in commits {
            let path = elsewhere(&commit.path);
            Arc::make_mut(&mut commit.common).path = path;
            commit.files.iter_mut().for_each(|file| file.key = elsewhere(&file.key));
        }
    });
    for key in data_files(&SAMPLE) {
        let bytes = files.remove(&key).unwrap();
        files.insert(elsewhere(&key), bytes);
    }
    let names = ["is not a folder of this table"];
    assert_found_quickly(&with_manifests(with_tables(&files)), &names, "another folder");
}

#[test]
fn bounds_that_are_not_those_of_the_slice_are_found_however_much_is_made_to_fit() {
    for column in ["from_nanos", "to_nanos", "from", "to"] {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(Bytes::from(SEVERAL[CHUNKS].clone())).unwrap();
        let schema = builder.schema().clone();
        let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
        let batch = concat_batches(&schema, &batches).unwrap();
        let at = schema.index_of(column).unwrap();
        let array = batch.column(at);
        let row = (0..batch.num_rows()).find(|row| array.is_valid(*row)).unwrap();
        let other = match array.data_type() {
            DataType::Int64 => changed::<Int64Type>(array, row, |v| v + 1),
            _ => changed::<TimestampNanosecondType>(array, row, |v| v + 1),
        };
        let batch = with_column(&batch, at, other);
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        let files = with(&SEVERAL, CHUNKS, writer.into_inner().unwrap());
        assert_found_quickly(&with_manifests(files), &[CHUNKS, column], "another bound");
    }
}

#[test]
fn tables_of_two_versions_of_one_file_are_found_however_much_is_made_to_fit() {
    let files = with_chunks(&SAMPLE, |commits| {
        assert!(commits[0].state.as_ref().is_some_and(|state| state.starts_with("sha256:")));
        Arc::make_mut(&mut commits[0].common).state = Some(format!("sha256:{}", "0".repeat(64)));
    });
    let names = ["another version of the file"];
    assert_found_quickly(&with_manifests(with_tables(&files)), &names, "another version");
    let files = with_chunks(&SEVERAL, |commits| {
        Arc::make_mut(&mut commits[1].common).state = Some("whole".to_owned());
    });
    let names = ["it is a part of the table whole"];
    assert_found_quickly(&with_manifests(with_tables(&files)), &names, "another division");
}

// A megabyte of Parquet can hold millions of equal rows, which nobody may unpack.
#[test]
fn a_catalog_that_repeats_a_chunk_is_refused_at_the_second() {
    let files = with_chunks(&SAMPLE, |commits| {
        let first = commits[0].clone();
        commits.extend(vec![first; 3000]);
        commits.sort_by_key(Commit::id);
    });
    let files = with_manifests(with(&SAMPLE, CHUNKS, files[CHUNKS].clone()));
    let archive = Damaged::new(&files);
    archive.assert_found(&[], &[CHUNKS, "twice"], "a catalog of repetitions");
    let run = moveout(["status", archive.root().to_str().unwrap()]).expect(4);
    assert!(run.stderr.contains("twice"), "{}", run.stderr);
}

// A few kilobytes that claim to be hundreds of megabytes once they are decompressed.
#[test]
fn a_value_that_does_not_fit_into_the_memory_is_said_and_not_decoded() {
    let key = data_files(&SAMPLE)[0].clone();
    let bytes = expanding(&SAMPLE[&key], 200 << 20);
    assert!(bytes.len() < 4 << 20, "{}", bytes.len());
    let archive = Damaged::new(&with_data(&SAMPLE, &key, bytes));
    let run = archive.verify(&["--memory", "64MiB"]).expect(3);
    assert!(run.stdout.contains(&key) && run.stdout.contains("--memory"), "{}", run.stdout);
    archive.verify(&["--memory", "2GiB"]).expect(0);
}
