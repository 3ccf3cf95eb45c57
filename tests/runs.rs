//! Runs that are killed, interrupted, or not alone: what was committed stays and is not read again,
//! what was not is removed, and at the end there is one archive without a gap or a row twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::{
    Archive, Fault, Influxd, Model, Point, Proxy, Run, Value, assert_rows, command, interrupt,
    moveout,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
const MEASUREMENTS: usize = 40;

/// Many small tables, behind a proxy that lets every data query take a moment.
struct Setting {
    model: Model,
    server: Influxd,
    proxy: Proxy,
    folder: TempDir,
}

impl Setting {
    fn new(pause: Duration) -> Self {
        let mut model = Model::default();
        for number in 0..MEASUREMENTS {
            for i in 0..30 {
                let time = NEW_YEAR + i * DAY / 3 + number as i64;
                let point =
                    Point::new(&format!("m{number}"), time).tag("host", &format!("h{}", i % 3));
                let point = point.field("v", Value::Integer(i));
                model.push(point.field("text", Value::String(format!("{number} and {i}"))));
            }
        }
        let server = Influxd::start();
        server.query("CREATE DATABASE d");
        server.write("d", "", &model.lines());
        let proxy = Proxy::before(&server);
        proxy.fault(is_data, usize::MAX, Fault::Stall { after: 0, pause });
        Self { model, server, proxy, folder: TempDir::with_prefix("archive-").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn archive(&self) -> Archive {
        Archive::open(self.path())
    }

    fn args(&self) -> Vec<String> {
        let (url, path) = (self.proxy.url(), self.path().to_str().unwrap().to_owned());
        let args = [
            "export",
            "--source",
            &url,
            "--archive",
            &path,
            "--concurrency",
            "2",
            "--window",
            "4d",
        ];
        args.map(str::to_owned).into()
    }

    fn start(&self) -> Child {
        command(self.args()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Complete, sealed, exact, verified, and with no file that does not belong to it.
    #[track_caller]
    fn assert_complete(&self) {
        let archive = self.archive();
        assert!(archive.is_sealed());
        let mut found = std::collections::BTreeMap::<_, Vec<_>>::new();
        for file in archive.data_files() {
            found.entry(file.metadata["moveout.table"].clone()).or_default().extend(file.rows);
        }
        assert_eq!(found.len(), self.model.measurements().len());
        for (table, mut rows) in found {
            rows.sort();
            assert_rows(&rows, &self.model.rows(&table));
        }
        let listed = |manifest: &str| -> BTreeSet<String> {
            let text = archive.text(manifest);
            text.lines().map(|line| line.split_once("  ").unwrap().1.to_owned()).collect()
        };
        let mut expected = listed("manifest-sha256.txt");
        expected.extend(listed("tagmanifest-sha256.txt"));
        expected.insert("tagmanifest-sha256.txt".to_owned());
        assert_eq!(archive.files().into_iter().collect::<BTreeSet<_>>(), expected);
        assert!(!self.path().join(".moveout").exists());
        moveout(["verify".into(), self.path()]).expect(0);
    }

    /// Nothing half written; every data file has a commit, which is whole.
    #[track_caller]
    fn assert_tidy(&self) {
        let archive = self.archive();
        assert!(!archive.is_sealed());
        let named =
            commits(&archive).into_iter().flat_map(|commit| commit.files).collect::<BTreeSet<_>>();
        for path in archive.files() {
            assert!(!path.contains('#'), "{path} was left");
            assert!(!path.starts_with("data/") || named.contains(&path), "no commit names {path}");
            assert!(!path.starts_with(".moveout/runs/"), "{path} was left");
        }
        moveout(["verify".into(), self.path()]).expect(3);
    }
}

fn is_data(query: &str) -> bool {
    query.starts_with("SELECT *::field FROM ") && query.ends_with("GROUP BY *")
}

/// A commit as it lies in an unfinished archive.
struct Committed {
    table: String,
    from: i128,
    to: i128,
    files: Vec<String>,
}

fn commits(archive: &Archive) -> Vec<Committed> {
    let paths = archive.files().into_iter();
    let paths =
        paths.filter(|path| path.starts_with(".moveout/commits/") && path.ends_with(".json"));
    let nanos = |text: &str| {
        let time =
            chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S%.fZ").unwrap().and_utc();
        i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos())
    };
    paths
        .map(|path| {
            let json: Json = serde_json::from_str(&archive.text(&path)).unwrap();
            let (from, to) = json["slice"].as_str().unwrap().split_once('_').unwrap();
            let files = json["files"].as_array().unwrap().iter();
            Committed {
                table: json["table"].as_str().unwrap().to_owned(),
                from: nanos(from),
                to: nanos(to),
                files: files.map(|file| file["key"].as_str().unwrap().to_owned()).collect(),
            }
        })
        .collect()
}

/// Data queries of these that ask for what was committed.
fn asked_again(queries: &[String], commits: &[Committed]) -> Vec<String> {
    let bound = |query: &str, mark: &str| -> i128 {
        let text = query.rsplit_once(mark).unwrap().1;
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let again = queries.iter().filter(|query| is_data(query)).filter(|query| {
        let (first, last) = (bound(query, "time >= "), bound(query, "time <= "));
        commits.iter().any(|commit| {
            let of_table = query.contains(&format!(".\"{}\" WHERE", commit.table));
            of_table && first < commit.to && commit.from <= last
        })
    });
    again.cloned().collect()
}

fn wait_until(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !true_now() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a process that was started with pipes printed, and how it ended.
fn ended(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

// What becomes of a run that ends at any request whatever is tested within one process.
#[test]
fn a_run_that_is_killed_again_and_again_ends_exact_and_reads_nothing_twice() {
    let setting = Setting::new(Duration::from_millis(15));
    for _ in 0..3 {
        let commits_before = commits(&setting.archive());
        let asked_before = setting.proxy.queries().len();
        let mut child = setting.start();
        wait_until("commits", || commits(&setting.archive()).len() > commits_before.len() + 5);
        child.kill().unwrap();
        child.wait().unwrap();
        let asked = &setting.proxy.queries()[asked_before..];
        assert_eq!(asked_again(asked, &commits_before), [""; 0]);
        // What is there is whole, whenever that was.
        moveout(["verify".into(), setting.path()]).expect(3);
    }
    let (commits_before, asked_before) =
        (commits(&setting.archive()), setting.proxy.queries().len());
    let run = moveout(setting.args()).expect(0);
    assert!(!run.stderr.contains("another run"), "{}", run.stderr);
    assert_eq!(asked_again(&setting.proxy.queries()[asked_before..], &commits_before), [""; 0]);
    setting.assert_complete();
}

// What the dead run had committed belongs to the archive; what it did not get is told.
#[test]
fn a_narrower_run_after_a_kill_keeps_what_was_committed() {
    let setting = Setting::new(Duration::from_millis(15));
    let mut child = setting.start();
    wait_until("commits", || commits(&setting.archive()).len() > 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = commits(&setting.archive());
    let config = setting.folder.path().join("moveout.toml");
    // The name that the source has without one of its own.
    let url = setting.proxy.url();
    let name = url.rsplit('/').next().unwrap();
    let source = format!("[[source]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    fs::write(&config, source + "tables = [\"m39\"]\n").unwrap();
    let (config, path) = (config.to_str().unwrap(), setting.path());
    let run = moveout(["export", "--config", config, "--archive", path.to_str().unwrap()]);
    let run = run.expect(0);
    assert!(run.stdout.contains("did not finish"), "{}", run.stdout);
    let archive = setting.archive();
    // Its commits name it, so its record stays, too.
    let record: Json = serde_json::from_str(&archive.text("catalog/run.json")).unwrap();
    let dead = &record["earlier"][0];
    assert_eq!((&dead["ended"], &dead["range"]["from"]), (&"".into(), &"min".into()), "{record}");
    let listed = archive.text("manifest-sha256.txt");
    let kept = before.iter().flat_map(|commit| &commit.files);
    assert!(kept.into_iter().all(|file| listed.contains(file.as_str())), "{listed}");
    assert_rows(&archive.rows("m39"), &setting.model.rows("m39"));
    moveout(["verify".into(), setting.path()]).expect(0);
    moveout(setting.args()).expect(0);
    setting.assert_complete();
}

#[test]
fn a_kill_while_a_large_file_is_written_leaves_nothing_of_it() {
    let setting = Setting::new(Duration::ZERO);
    let mut model = Model::default();
    let mut random = fastrand::Rng::with_seed(4);
    for i in 0..100_000 {
        let text: String = (0..200).map(|_| random.alphanumeric()).collect();
        model.push(Point::new("large", NEW_YEAR + i).field("s", Value::String(text)));
    }
    setting.server.write("d", "", &model.lines());
    setting.proxy.heal();
    // The last bytes of the large table never come; with little memory its first row group is
    // written before they are due.
    let large = |query: &str| is_data(query) && query.contains("\"large\"");
    let pause = Duration::from_secs(60);
    setting.proxy.fault(large, usize::MAX, Fault::Stall { after: 19_000_000, pause });
    let little = [setting.args(), ["--memory", "32MiB"].map(str::to_owned).into()].concat();
    let mut child = command(little).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let staged = || {
        let files = setting.archive().files().into_iter();
        files.filter(|path| path.contains("/large/") && path.contains('#')).count()
    };
    wait_until("a file that is half written", || staged() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(staged() > 0 && !setting.archive().is_sealed());
    setting.proxy.heal();
    moveout(setting.args()).expect(0);
    let setting = Setting {
        model: Model { points: [setting.model.points, model.points].concat() },
        ..setting
    };
    setting.assert_complete();
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let setting = Setting::new(Duration::from_millis(60));
    let child = setting.start();
    wait_until("a commit", || commits(&setting.archive()).len() > 3);
    interrupt(&child);
    let began = Instant::now();
    let run = ended(child);
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(run.stderr.contains("interrupt once more to stop at once"), "{}", run.stderr);
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("run the same command again"),
        "{}",
        run.stdout
    );
    let before = commits(&setting.archive());
    assert!(before.len() > 3);
    setting.assert_tidy();
    let status = moveout(["status".into(), setting.path()]).expect(0);
    assert!(status.stdout.contains("not sealed"), "{}", status.stdout);

    let asked = setting.proxy.queries().len();
    moveout(setting.args()).expect(0);
    assert_eq!(asked_again(&setting.proxy.queries()[asked..], &before), [""; 0]);
    setting.assert_complete();
    let status = moveout(["status".into(), setting.path()]).expect(0);
    assert!(
        status.stdout.contains("sealed") && !status.stdout.contains("missing"),
        "{}",
        status.stdout
    );
}

// In the middle of a large file, of a pause that a server asked for, and of the first questions.
#[test]
fn an_interrupt_is_heard_wherever_the_run_is() {
    let setting = Setting::new(Duration::ZERO);
    let pause = Duration::from_secs(60);
    for (first, fault) in [
        (is_data as fn(&str) -> bool, Fault::Stall { after: 20, pause }),
        (is_data, Fault::busy(429, 60)),
        (is_data, Fault::Close),
        (|query| query == "SHOW DATABASES", Fault::Stall { after: 0, pause }),
        (|query| query.starts_with("SHOW FIELD"), Fault::busy(503, 60)),
    ] {
        setting.proxy.heal();
        setting.proxy.fault(first, usize::MAX, fault.clone());
        let fired = setting.proxy.fired();
        let child = setting.start();
        wait_until("the fault", || setting.proxy.fired() > fired);
        thread::sleep(Duration::from_millis(100));
        interrupt(&child);
        let began = Instant::now();
        let run = ended(child);
        assert_eq!(run.status, 130, "{fault:?}: {}{}", run.stdout, run.stderr);
        assert!(began.elapsed() < Duration::from_secs(6), "{fault:?}: {:?}", began.elapsed());
        assert!(format!("{}{}", run.stdout, run.stderr).contains("run the same command again"));
        assert!(setting.archive().files().iter().all(|path| !path.contains('#')));
    }
    setting.proxy.heal();
    moveout(setting.args()).expect(0);
    setting.assert_complete();
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let setting = Setting::new(Duration::from_millis(60));
    let mut child = setting.start();
    wait_until("a commit", || commits(&setting.archive()).len() > 1);
    interrupt(&child);
    thread::sleep(Duration::from_millis(2));
    if child.try_wait().unwrap().is_none() {
        interrupt(&child);
    }
    let began = Instant::now();
    let run = ended(child);
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    moveout(setting.args()).expect(0);
    setting.assert_complete();
}

#[test]
fn two_runs_at_once_do_no_harm() {
    let setting = Setting::new(Duration::from_millis(15));
    let seed = 5;
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..6 {
        let _ = fs::remove_dir_all(setting.path());
        let first = setting.start();
        let announced = round % 2 == 0;
        if announced {
            let runs = setting.path().join(".moveout/runs");
            wait_until("a heartbeat", || fs::read_dir(&runs).is_ok_and(|runs| runs.count() > 0));
            thread::sleep(Duration::from_millis(random.u64(0..300)));
        } else {
            thread::sleep(Duration::from_millis([0, 30, 90][round / 2]));
        }
        let second = setting.start();
        let second = thread::spawn(|| ended(second));
        let first = ended(first);
        let second = second.join().unwrap();
        // Windows of theirs that overlap in part may leave one of them with less than it thought.
        for run in [&first, &second] {
            assert!(
                matches!(run.status, 0 | 3),
                "round {round}:\n{}{}\nand\n{}{}",
                first.stdout,
                first.stderr,
                second.stdout,
                second.stderr
            );
            // Both count what the archive has of them.
            let line = run.stdout.lines().find(|line| line.starts_with("  this run")).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            assert!(words[4] == "in" && number(5) <= number(7), "round {round}: {line}");
        }
        if !setting.archive().is_sealed() {
            assert!(first.status == 3 && second.status == 3, "round {round}");
            moveout(setting.args()).expect(0);
        }
        let said = second.stderr.contains("another run is at work on this archive");
        assert!(said || !announced, "round {round}: {}", second.stderr);
        setting.assert_complete();
    }
}

#[test]
fn a_run_beside_one_that_is_killed_ends_well() {
    let setting = Setting::new(Duration::from_millis(15));
    for round in 0..4 {
        let _ = fs::remove_dir_all(setting.path());
        let (mut first, second) = (setting.start(), setting.start());
        wait_until("commits", || commits(&setting.archive()).len() > 3 * round);
        first.kill().unwrap();
        first.wait().unwrap();
        let run = ended(second);
        assert_eq!(run.status, 0, "round {round}: {}{}", run.stdout, run.stderr);
        // What the dead one left half written goes at the latest with the next run.
        moveout(setting.args()).expect(0);
        setting.assert_complete();
    }
}

/// Peak memory of an export in MiB, and its rows.
fn peak_memory(server: &Influxd, database: &str) -> (f64, u64) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    let source = format!("{}/{database}", server.url());
    let args = [
        "export",
        "--json",
        "--source",
        &source,
        "--archive",
        path.to_str().unwrap(),
        "--window",
        "1000d",
    ];
    let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak: f64 = 0.0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        thread::sleep(Duration::from_millis(5));
    }
    let run = ended(child).expect(0);
    let json = run.json();
    assert_eq!(json["chunks"], 1, "{json}");
    (peak, json["rows"].as_u64().unwrap())
}

#[test]
fn memory_does_not_grow_with_a_window() {
    let server = Influxd::start();
    for (database, rows) in [("few", 60_000), ("many", 600_000)] {
        server.query(&format!(
            "CREATE DATABASE {database} WITH DURATION INF SHARD DURATION 1000d NAME r"
        ));
        let mut random = fastrand::Rng::with_seed(rows);
        for part in (0..rows).step_by(30_000) {
            let lines: String = (part..part + 30_000)
                .map(|i| {
                    let time = NEW_YEAR + i as i64 * 1_000_000_000;
                    let (a, b, c) = (random.f64(), random.i32(..), random.u64(..));
                    format!("m,host=h{} a={a},b={b}i,c=\"text {c:x} and more\" {time}\n", i % 10)
                })
                .collect();
            server.write(database, "r", &lines);
        }
    }
    let (few, rows) = peak_memory(&server, "few");
    assert_eq!(rows, 60_000);
    let (many, rows) = peak_memory(&server, "many");
    assert_eq!(rows, 600_000);
    eprintln!("{few:.0} MiB for 60,000 rows, {many:.0} MiB for 600,000");
    assert!(few > 5.0 && many < 300.0 && many - few < 30.0, "{few:.0} and {many:.0} MiB");
}
