//! Golden archives: what any version of the format has written, this one reads, verifies and extends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Archive, moveout, repository};
use tempfile::TempDir;

/// A copy of a golden archive.
struct Golden {
    name: String,
    _folder: TempDir,
    root: PathBuf,
}

impl Golden {
    fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }

    fn archive(&self) -> Archive {
        Archive::open(&self.root)
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.archive().files().into_iter();
        files.map(|path| (path.clone(), fs::read(self.root.join(&path)).unwrap())).collect()
    }

    /// The rows of each table that it has, by what its files hold.
    fn rows(&self) -> BTreeMap<(String, String), usize> {
        let mut rows = BTreeMap::new();
        for file in self.archive().data_files() {
            let of = |key: &str| file.metadata[key].clone();
            *rows.entry((of("moveout.source"), of("moveout.table"))).or_default() +=
                file.rows.len();
        }
        rows
    }

    #[track_caller]
    fn verify(&self, status: i32) -> Value {
        let verified = moveout(["verify", "--json", self.root()]);
        assert_eq!(verified.status, status, "{}: {}", self.name, verified.stdout);
        verified.json()
    }

    /// Adds the points of the line-protocol file that lies beside the archives.
    #[track_caller]
    fn extend(&self) -> Value {
        let file = repository("tests/data/archives/lines.lp");
        let source = format!("lp:{}", file.display());
        let args = ["export", "--json", "--source", &source, "--name", "lines"];
        let extended = moveout(args.into_iter().chain(["--archive", self.root()]));
        assert_eq!(extended.status, 0, "{}: {}{}", self.name, extended.stdout, extended.stderr);
        extended.json()
    }
}

/// Copies of all golden archives, as `v1/line-protocol`.
fn golden() -> Vec<Golden> {
    let root = repository("tests/data/archives");
    let mut all = Vec::new();
    for version in folders(&root) {
        for archive in folders(&version) {
            let folder = tempfile::tempdir().unwrap();
            let name = archive.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let copy = folder.path().join("archive");
            for path in support::files(&archive) {
                let to = copy.join(&path);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(archive.join(&path), to).unwrap();
            }
            all.push(Golden { name, root: copy, _folder: folder });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 5, "there are golden archives");
    all
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Points in the file, and those of it that the archive of line protocol has.
const POINTS: u64 = 8;
const POINTS_BEFORE: u64 = 6;

#[test]
fn archives_of_every_version_are_read_and_verified() {
    for golden in golden() {
        let before = golden.content();
        let page = golden.root.with_extension("html");
        let report = moveout(["report", golden.root(), "--output", page.to_str().unwrap()]);
        assert_eq!(
            report.status, 3,
            "{}: nobody has asked its sources: {}",
            golden.name, report.stderr
        );
        assert!(fs::read_to_string(&page).unwrap().contains("NOT YET"), "{}", golden.name);
        let status = moveout(["status", "--json", golden.root()]);
        let verified = match golden.archive().is_sealed() {
            true => {
                assert_eq!(status.status, 0, "{}: {}", golden.name, status.stdout);
                golden.verify(0)
            }
            false => golden.verify(3),
        };
        let rows: usize = golden.rows().values().sum();
        assert_eq!(verified["rows"], rows, "{}", golden.name);
        assert_eq!(verified["faults"], serde_json::json!([]), "{}", golden.name);
        assert_eq!(golden.content(), before, "{}: nothing is written", golden.name);
    }
}

#[test]
fn archives_of_every_version_are_extended() {
    for golden in golden() {
        let (before, files) = (golden.rows(), golden.content());
        let extended = golden.extend();
        let added =
            if golden.name.ends_with("/line-protocol") { POINTS - POINTS_BEFORE } else { POINTS };
        assert_eq!(extended["rows"], added, "{}", golden.name);
        golden.verify(0);
        // What was there is there as it was, and is in the new catalog.
        let after = golden.rows();
        for ((source, table), rows) in before.iter().filter(|((source, _), _)| source != "lines") {
            assert_eq!(after[&(source.clone(), table.clone())], *rows, "{}: {table}", golden.name);
        }
        let now = golden.content();
        for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".parquet")) {
            let kept = path.starts_with("data/").then(|| now.get(path));
            assert!(kept.is_none_or(|now| now == Some(bytes)), "{}: {path}", golden.name);
        }
        let rows: u64 =
            golden.archive().catalog().iter().map(|table| table["rows"].as_u64().unwrap()).sum();
        assert_eq!(rows, after.values().sum::<usize>() as u64, "{}", golden.name);
        // It is one of this version now, in which there is nothing left to do.
        golden.extend();
        assert_eq!(golden.content(), now, "{}", golden.name);
    }
}

#[test]
fn an_archive_of_before_that_has_all_stays_what_it_is() {
    for golden in golden().into_iter().filter(|golden| golden.name.ends_with("/line-protocol")) {
        let before = golden.content();
        let file = repository("tests/data/archives/lines.lp");
        let source = format!("lp:{}", file.display());
        let range = ["--from", "2024-01-01", "--to", "2024-01-03"];
        let args = ["export", "--source", &source, "--name", "lines", "--archive", golden.root()];
        moveout(args.into_iter().chain(range)).expect(0);
        assert_eq!(golden.content(), before, "{}", golden.name);
    }
}
