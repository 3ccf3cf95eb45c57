//! The way back into an InfluxDB 1.x: what was exported is there again, exactly, whatever happened on the way; and what
//! the target cannot hold is named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "restore/load.rs"]
mod load;
#[path = "restore/others.rs"]
mod others;
mod support;
#[path = "restore/two.rs"]
mod two;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::server::Server;
use support::small_disk::SmallDisk;
use support::{
    Archive, Fault, Influxd, Model, Point, Proxy, Run, S3, Shape, Value, assert_rows, command,
    moveout, peak_memory, repository, run,
};
use tempfile::TempDir;

/// 2024-01-01, a Monday, when a shard begins.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
const DAY: i64 = 86_400_000_000_000;

/// A source, its archive, and a place for what a restore keeps.
struct Setting {
    source: Influxd,
    folder: TempDir,
    model: Model,
}

impl Setting {
    /// A source with one database, whose default policy has what the model says.
    fn of(model: Model) -> Self {
        let source = Influxd::start();
        source.query("CREATE DATABASE plant");
        source.write("plant", "", &model.lines());
        let setting = Self { source, folder: TempDir::with_prefix("restore-").unwrap(), model };
        setting.export();
        setting
    }

    fn small() -> Self {
        Self::of(Model::generate(7, &Shape::default()))
    }

    fn archive(&self) -> String {
        self.folder.path().join("archive").to_str().unwrap().to_owned()
    }

    fn export(&self) {
        moveout(["export", "--source", &self.source.url(), "--archive", &self.archive()]).expect(0);
    }

    fn command(&self, target: &str, more: &[&str]) -> std::process::Command {
        let archive = self.archive();
        let args = ["restore", "--json", archive.as_str(), "--target", target];
        let mut command = command(args.iter().chain(more));
        command.current_dir(self.folder.path()).env("XDG_STATE_HOME", self.folder.path());
        command
    }

    fn restore(&self, target: &str, more: &[&str]) -> Run {
        run(self.command(target, more))
    }

    /// An export of the target has what the model says, under `prefix` (`DATABASE.POLICY.`).
    #[track_caller]
    fn assert_exports_as(&self, target: &Influxd, prefix: &str) {
        let again = TempDir::with_prefix("again-").unwrap();
        let path = again.path().join("a");
        let path = path.to_str().unwrap();
        moveout(["export", "--source", &target.url(), "--archive", path]).expect(0);
        let archive = Archive::open(path);
        for name in self.model.measurements() {
            let table = format!("{prefix}{name}");
            assert_rows(&archive.rows(&table), &self.model.rows(&name));
            assert_eq!(archive.columns(&table), self.model.columns(&name), "{table}");
        }
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.folder.path().join("moveout")).map_or(0, Iterator::count)
    }
}

/// All points of a policy as the server itself gives them, series by series.
fn points(server: &Influxd, database: &str, policy: &str) -> Json {
    server.query(&format!(r#"SELECT * FROM "{database}"."{policy}"./.*/ GROUP BY *"#))
}

fn policies(server: &Influxd, database: &str) -> Json {
    server.query(&format!(r#"SHOW RETENTION POLICIES ON "{database}""#))
}

fn databases(server: &Influxd) -> BTreeSet<String> {
    let answer = server.query("SHOW DATABASES");
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_exported_is_there_again_with_its_policies() {
    let shape = Shape { mixed: true, edges: true, ..Shape::default() };
    let setting = Setting::of(Model::generate(1, &shape));
    let source = &setting.source;
    source.query(
        r#"CREATE RETENTION POLICY "two \"weeks\"" ON plant DURATION 520w REPLICATION 1 SHARD DURATION 1d"#,
    );
    source.write("plant", "two \"weeks\"", &Model::generate(2, &Shape::default()).lines());
    source.query("CREATE DATABASE other WITH DURATION INF SHARD DURATION 2d NAME own");
    source.write("other", "", "m,a=b v=1i 1704067200000000000\n");
    fs::remove_dir_all(setting.archive()).unwrap();
    setting.export();

    let target = Influxd::start();
    let summary = setting.restore(&target.url(), &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_eq!(summary["rejected"], 0);
    for database in ["plant", "other"] {
        assert_eq!(policies(&target, database), policies(source, database));
    }
    for (database, policy) in
        [("plant", "autogen"), ("plant", r#"two \"weeks\""#), ("other", "own")]
    {
        assert_eq!(points(&target, database, policy), points(source, database, policy));
    }
    setting.assert_exports_as(&target, "plant.autogen.");
    assert_eq!(setting.journals(), 0, "nothing is left of a restore that is done");

    let again = setting.restore(&target.url(), &[]).expect(1);
    assert!(again.stderr.contains("the target has rows in"), "{}", again.stderr);
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);
    assert_eq!(points(&target, "plant", "autogen"), points(source, "plant", "autogen"));
}

#[test]
fn a_restore_that_is_killed_goes_on_and_no_row_is_lost_or_changed() {
    let setting = Setting::of(Model::generate(3, &Shape { points: 2_000, ..Shape::default() }));
    let target = Influxd::start();
    let mut killed = 0;
    for wait in [20, 60, 120, 200, 300, 450, 600] {
        let mut child = setting
            .command(&target.url(), &["--concurrency", "1"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(wait);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success() || status.code() == Some(1), "{status}");
                break;
            }
            None => {
                killed += 1;
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
    assert!(killed > 1, "it is over too soon to be killed");
    let last = setting.restore(&target.url(), &[]);
    assert!([0, 1].contains(&last.status), "{}{}", last.stdout, last.stderr);
    assert_eq!(points(&target, "plant", "autogen"), points(&setting.source, "plant", "autogen"));
    setting.assert_exports_as(&target, "plant.autogen.");
}

#[test]
fn a_server_that_is_busy_or_hangs_up_gets_each_line_in_the_end() {
    let setting = Setting::small();
    let target = Influxd::start();
    let proxy = Proxy::before(&target);
    let is_write = |request: &str| request.starts_with("POST /write");
    proxy.fault(is_write, 2, Fault::busy(503, 1));
    proxy.fault(is_write, 2, Fault::Close);
    let summary = setting.restore(&proxy.url(), &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_eq!(proxy.fired(), 4);
    assert_eq!(points(&target, "plant", "autogen"), points(&setting.source, "plant", "autogen"));
}

#[test]
fn rows_that_the_target_cannot_hold_are_named_one_by_one() {
    // The type of the field changes from week to week, and the target has both weeks in one shard.
    let mut model = Model::default();
    for day in 0..4 {
        let point =
            |value| Point::new("m", NEW_YEAR + day * 7 * DAY).tag("a", "b").field("v", value);
        let value =
            if day == 2 { Value::String("two".to_owned()) } else { Value::Float(day as f64) };
        model.push(point(value));
    }
    let setting = Setting::of(model);
    let target = Influxd::start();
    target.query("CREATE DATABASE plant WITH DURATION INF SHARD DURATION 1040w");
    target.write("plant", "", "somebody else=1i 1704067200000000000\n");
    let run = setting.restore(&target.url(), &[]).expect(4);
    let summary = run.json();
    assert_eq!((&summary["rows"], &summary["rejected"]), (&3.into(), &1.into()), "{summary}");
    let file = fs::read_to_string(summary["rejects"].as_str().unwrap()).unwrap();
    let lines: Vec<Json> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{file}");
    assert_eq!(lines[0]["table"]["table"], "m");
    assert!(lines[0]["row"].as_str().unwrap().contains("two"), "{file}");
    assert!(lines[0]["why"].as_str().unwrap().contains("field type conflict"), "{file}");
    let text = target.query("SELECT v FROM plant.autogen.m").to_string();
    assert!(!text.contains("two") && !text.contains("1705276800000000000"), "{text}");
}

#[test]
fn a_dry_run_says_what_would_be_made_and_changes_nothing() {
    let setting = Setting::small();
    let target = Influxd::start();
    let before = databases(&target);
    let summary = setting.restore(&target.url(), &["--dry-run"]).expect(0).json();
    assert_eq!(summary["status"], "planned");
    assert_eq!(summary["created"], serde_json::json!(["the database plant"]));
    assert_eq!(summary["tables"].as_array().unwrap().len(), 2);
    assert_eq!(databases(&target), before);
    assert_eq!(setting.journals(), 0);
}

#[test]
fn databases_and_policies_get_other_names_and_a_part_is_restored() {
    let setting = Setting::small();
    let target = Influxd::start();
    let end = "2024-01-03T00:00:00Z";
    let more = ["--map", "plant/autogen=works/short", "--table", "cpu", "--to", end];
    let summary = setting.restore(&target.url(), &more).expect(0).json();
    let rows = setting.model.rows_between("cpu", i64::MIN, NEW_YEAR + 2 * DAY);
    assert_eq!(summary["rows"], rows.len(), "{summary}");
    assert_eq!(summary["tables"][0]["to"]["schema"], "short");
    let count = target.query(r#"SELECT count(*) FROM "works"."short"."cpu""#).to_string();
    let expected = format!(r#"SELECT count(*) FROM "plant"."autogen"."cpu" WHERE time < '{end}'"#);
    let expected = setting.source.query(&expected).to_string();
    assert_eq!(count, expected);
    assert!(!databases(&target).contains("plant"));

    // Everything goes into the database of the URL.
    let url = format!("{}/elsewhere", target.url());
    setting.restore(&url, &[]).expect(0);
    assert_eq!(
        points(&target, "elsewhere", "autogen"),
        points(&setting.source, "plant", "autogen")
    );
}

#[test]
fn a_wrong_name_is_refused_before_anything_is_asked() {
    let setting = Setting::small();
    for (more, expected) in [
        (vec!["--map", "nobody=x"], "the archive has no database `nobody`"),
        (vec!["--map", "plant"], "is not OLD=NEW"),
        (vec!["--table", "nothing"], "there is nothing in"),
    ] {
        let target = Influxd::start();
        let run = setting.restore(&target.url(), &more).expect(2);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
        assert_eq!(databases(&target).len(), 0);
    }
}

#[test]
fn no_row_of_a_file_is_restored_that_is_not_the_one_that_was_committed() {
    let setting = Setting::small();
    let file = data_files(Path::new(&setting.archive())).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let target = Influxd::start();
    let run = setting.restore(&target.url(), &["--concurrency", "1"]).expect(4);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        run.stderr.contains(name) && run.stderr.contains("nothing of this file"),
        "{}",
        run.stderr
    );
}

#[test]
fn another_archive_is_not_mixed_with_one_whose_restore_did_not_end() {
    let setting = Setting::small();
    let whole = fs::read(data_files(Path::new(&setting.archive())).pop().unwrap()).unwrap();
    let last = data_files(Path::new(&setting.archive())).pop().unwrap();
    fs::write(&last, &whole[..whole.len() - 1]).unwrap();
    let target = Influxd::start();
    setting.restore(&target.url(), &["--concurrency", "1"]).expect(4);
    let before = points(&target, "plant", "autogen");
    assert!(before["results"][0]["series"].is_array(), "a part is there: {before}");

    let other = Setting::of(Model::generate(8, &Shape::default()));
    fs::remove_dir_all(setting.archive()).unwrap();
    fs::rename(other.archive(), setting.archive()).unwrap();
    let run = setting.restore(&target.url(), &[]).expect(1);
    assert!(run.stderr.contains("the target has rows in"), "{}", run.stderr);
    assert_eq!(points(&target, "plant", "autogen"), before);
}

#[test]
fn every_archive_of_an_earlier_version_is_restored() {
    for version in ["v1", "v2"] {
        for kind in ["influxdb", "line-protocol"] {
            let folder = TempDir::new().unwrap();
            let archive = repository(&format!("tests/data/archives/{version}/{kind}"));
            let target = Influxd::start();
            let restore = command([
                "restore",
                "--json",
                archive.to_str().unwrap(),
                "--target",
                &target.url(),
            ]);
            let mut restore = restore;
            restore.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path());
            let summary = run(restore).expect(0).json();
            assert!(summary["rows"].as_u64().unwrap() > 0, "{version} {kind}: {summary}");
        }
    }
}

#[test]
fn an_archive_in_a_bucket_of_a_file_goes_into_a_server() {
    let model = Model::generate(9, &Shape { edges: true, ..Shape::default() });
    let folder = TempDir::with_prefix("restore-").unwrap();
    let file = folder.path().join("plant.lp");
    fs::write(&file, model.lines()).unwrap();
    let s3 = S3::start();
    let place = "s3://bucket/some/place";
    let on_bucket = |args: &[&str]| {
        let mut command = command(args);
        command.envs(s3.env()).current_dir(folder.path()).env("XDG_STATE_HOME", folder.path());
        run(command)
    };
    let source = format!("lp:{}", file.display());
    on_bucket(&["export", "--source", &source, "--archive", place]).expect(0);
    let target = Influxd::start();
    let url = format!("{}/plant", target.url());
    let summary = on_bucket(&["restore", "--json", place, "--target", &url]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    let setting = Setting { source: Influxd::start(), folder, model };
    setting.assert_exports_as(&target, "plant.autogen.");
}

#[test]
fn memory_is_bounded_whatever_the_size_of_an_archive() {
    let peak = |points: usize| {
        let shape = Shape { points, step: 1_000_003, ..Shape::default() };
        let setting = Setting::of(Model::generate(11, &shape));
        let target = Influxd::start();
        let mut command = setting.command(&target.url(), &[]);
        command.args(["--memory", "64MiB"]);
        peak_memory(command)
    };
    let (small, large) = (peak(3_000), peak(24_000));
    assert!(
        large < small * 1.5 + 16.0,
        "{small} MiB for a small archive, {large} MiB for a large one"
    );
}

#[test]
fn an_unreachable_target_is_an_error_that_says_so() {
    let setting = Setting::small();
    let config = setting.folder.path().join("c.toml");
    fs::write(&config, "patience = \"1s\"\n").unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let run = setting.restore("influxdb1+http://127.0.0.1:1", &more).expect(3);
    assert!(
        run.stderr.contains("127.0.0.1:1") && run.stderr.contains("cannot connect"),
        "{}",
        run.stderr
    );
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(data_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && !path.ends_with("catalog/chunks.parquet")
        {
            files.push(path);
        }
    }
    files.sort();
    files
}
