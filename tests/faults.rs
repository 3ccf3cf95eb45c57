//! What networks, gateways, servers, disks and users do wrong: a run either does it all, exactly, or
//! says that it did not and leaves something that the next run completes. Never a seal over a gap.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Archive, Fault, Influxd, Model, Point, Proxy, Run, Shape, Value, assert_rows, command, files,
    moveout, run,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// A server with some points, a proxy of its own before it, and a place for an archive.
struct Setting<'a> {
    model: &'a Model,
    proxy: Proxy,
    folder: TempDir,
}

impl<'a> Setting<'a> {
    /// Silence for half a second is a fault here.
    fn new(server: &Influxd, model: &'a Model) -> Self {
        let setting = Self {
            model,
            proxy: Proxy::before(server),
            folder: TempDir::with_prefix("archive-").unwrap(),
        };
        setting.configure("idle_timeout = \"500ms\"\n");
        setting
    }

    fn configure(&self, text: &str) {
        let text = format!("window = \"12h\"\n{text}");
        fs::write(self.folder.path().join("config.toml"), text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn archive(&self) -> Archive {
        Archive::open(self.path())
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let url = self.proxy.url();
        let path = self.path().to_str().unwrap().to_owned();
        let config = self.folder.path().join("config.toml").to_str().unwrap().to_owned();
        let args = ["export", "--config", &config, "--source", &url, "--archive", &path];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn export(&self, more: &[&str]) -> Run {
        moveout(self.args(more))
    }

    /// Complete, sealed, exact, verified, nothing else there.
    #[track_caller]
    fn assert_complete(&self) {
        let archive = self.archive();
        assert!(archive.is_sealed());
        for name in self.model.measurements() {
            assert_rows(&archive.rows(&name), &self.model.rows(&name));
        }
        moveout(["verify".into(), self.path()]).expect(0);
    }

    /// Not sealed, nothing half written, nothing more than what was committed, all of that whole.
    #[track_caller]
    fn assert_unfinished(&self) {
        let archive = self.archive();
        assert!(!archive.is_sealed());
        let committed: Vec<_> =
            archive.files().into_iter().filter(|path| path.ends_with(".parquet")).collect();
        // Loose, and in segments, which are lines of commits.
        let text = |path: String| match &*path {
            loose if loose.starts_with(".moveout/commits/") => Some(archive.text(&path)),
            segment if segment.starts_with(".moveout/segments/") => {
                let packed = std::fs::read(self.path().join(segment)).unwrap();
                Some(String::from_utf8(zstd::stream::decode_all(&*packed).unwrap()).unwrap())
            }
            _ => None,
        };
        let commits: String = archive.files().into_iter().filter_map(text).collect();
        for path in &committed {
            assert!(commits.contains(path), "no commit names {path}");
        }
        assert!(archive.files().iter().all(|path| !path.contains('#')), "{:?}", archive.files());
        if !commits.is_empty() {
            moveout(["verify".into(), self.path()]).expect(3);
        }
    }
}

fn is_data(query: &str) -> bool {
    query.starts_with("SELECT *::field FROM ") && query.ends_with("GROUP BY *")
}

/// Width of the window that a data query asks for.
fn width(query: &str) -> i128 {
    let after = |mark: &str| -> i128 {
        let text = query.rsplit_once(mark).unwrap().1;
        text.split(' ').next().unwrap().parse().unwrap()
    };
    after("time <= ") - after("time >= ") + 1
}

fn small_model() -> Model {
    Model::generate(77, &Shape { points: 80, ..Shape::default() })
}

fn server_with(model: &Model) -> Influxd {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", &model.lines());
    server
}

fn status(code: u16, body: &str) -> Fault {
    Fault::Status { code, headers: Vec::new(), body: body.to_owned() }
}

/// Everything that may pass.
fn passing_faults() -> Vec<Fault> {
    let mut faults = vec![
        Fault::Close,
        Fault::Stall { after: 0, pause: Duration::from_millis(1500) },
        Fault::Stall { after: 700, pause: Duration::from_millis(1500) },
        status(500, r#"{"error":"engine is closed"}"#),
        status(502, "<html><body>Bad Gateway</body></html>"),
        status(503, ""),
        status(504, "<html>Gateway Timeout</html>"),
        status(408, ""),
        status(429, ""),
        status(200, "<html>Please log in</html>"),
        Fault::busy(503, 1),
        Fault::busy(429, 1),
        Fault::AppendError("query timeout reached".to_owned()),
        Fault::AppendError("engine is closed".to_owned()),
        Fault::ErrorAfter { objects: 1, text: "query interrupted".to_owned() },
        Fault::ErrorAfter {
            objects: 0,
            text: "max-concurrent-queries limit exceeded(1, 1)".to_owned(),
        },
    ];
    for after in [0, 1, 100, 2000, u64::MAX] {
        faults.extend([Fault::Reset { after }, Fault::Cut { after }]);
    }
    faults.extend([0, 1, 37, 100, 900].map(|after| Fault::Truncate { after }));
    faults.extend([0, 1, 2].map(Fault::KeepObjects));
    faults
}

/// Those that narrower windows do not help against, slowly, until all have passed.
fn lasting_faults() -> Vec<Fault> {
    let helps = |fault: &Fault| matches!(fault, Fault::Stall { after: 1.., .. });
    passing_faults().into_iter().filter(|fault| !helps(fault)).collect()
}

/// Does the same for each case, some at once: most of the time they wait.
fn each<T: Sync>(cases: &[T], test: impl Fn(usize, &T) + Sync) {
    let next = Mutex::new(cases.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                loop {
                    let case = next.lock().unwrap().next();
                    let Some((number, case)) = case else { return };
                    test(number, case);
                }
            });
        }
    });
}

#[test]
fn a_fault_that_happens_once_changes_nothing() {
    let model = small_model();
    let server = server_with(&model);
    each(&passing_faults(), |_, fault| {
        let setting = Setting::new(&server, &model);
        setting.proxy.fault(is_data, 1, fault.clone());
        let run = setting.export(&[]);
        assert_eq!(run.status, 0, "{fault:?}\n{}{}", run.stdout, run.stderr);
        assert_eq!(setting.proxy.fired(), 1, "{fault:?}");
        setting.assert_complete();
    });
}

#[test]
fn faults_that_happen_again_and_again_change_nothing() {
    let model = small_model();
    let server = server_with(&model);
    each(&passing_faults(), |number, fault| {
        let setting = Setting::new(&server, &model);
        setting.proxy.fault(is_data, 3, fault.clone());
        let run = setting.export(&["--concurrency", ["1", "4"][number % 2]]);
        assert_eq!(run.status, 0, "{fault:?}\n{}{}", run.stdout, run.stderr);
        assert!(setting.proxy.fired() >= 2, "{fault:?}");
        setting.assert_complete();
    });
}

// The questions before and after the data are as important: a list that was cut would leave tables
// out without a word.
#[test]
fn faults_of_other_questions_leave_nothing_out() {
    let model = small_model();
    let server = server_with(&model);
    let faults = [
        Fault::Close,
        Fault::Reset { after: 50 },
        Fault::Cut { after: 100 },
        Fault::Truncate { after: 0 },
        Fault::Truncate { after: 90 },
        Fault::KeepObjects(0),
        Fault::KeepObjects(1),
        Fault::busy(503, 1),
        status(502, "Bad Gateway"),
        Fault::AppendError("engine is closed".to_owned()),
        Fault::ErrorAfter { objects: 0, text: "query timeout reached".to_owned() },
    ];
    let starts =
        ["SHOW DATABASES", "SHOW RETENTION", "SHOW FIELD KEYS", "SHOW SHARDS", "SELECT *::field"];
    let cases: Vec<_> =
        faults.iter().flat_map(|fault| starts.map(|start| (fault, start))).collect();
    each(&cases, |_, (fault, start)| {
        let setting = Setting::new(&server, &model);
        let start = start.to_string();
        let chosen = start.clone();
        setting.proxy.fault(
            move |query| query.starts_with(&chosen) && !is_data(query),
            1,
            (*fault).clone(),
        );
        let run = setting.export(&[]);
        assert_eq!(run.status, 0, "{fault:?} {start}\n{}{}", run.stdout, run.stderr);
        setting.assert_complete();
    });
}

#[test]
fn a_fault_that_stays_ends_the_run_and_the_next_one_goes_on() {
    let model = small_model();
    let server = server_with(&model);
    let mut cases: Vec<(Fault, i32)> = vec![
        (status(401, r#"{"error":"authorization failed"}"#), 1),
        (status(403, r#"{"error":"forbidden"}"#), 1),
        (status(404, "not found"), 1),
        (Fault::AppendError("database not found: d".to_owned()), 1),
        (Fault::AppendError("error authorizing query: x".to_owned()), 1),
    ];
    let waits = |fault: &Fault| {
        matches!(fault, Fault::Status { code: 429, .. })
            || matches!(fault, Fault::Status { code: 503, headers, .. } if !headers.is_empty())
    };
    cases
        .extend(lasting_faults().into_iter().filter(|fault| !waits(fault)).map(|fault| (fault, 3)));
    each(&cases, |number, (fault, exit)| {
        let setting = Setting::new(&server, &model);
        setting.configure("idle_timeout = \"300ms\"\nattempts = 1\n");
        // In half of the cases some of the data comes first.
        let good = Mutex::new(if number % 2 == 0 { 0 } else { 3 });
        let later = move |query: &str| {
            let mut good = good.lock().unwrap();
            let matches = is_data(query) && *good == 0;
            *good -= usize::from(is_data(query) && *good > 0);
            matches
        };
        setting.proxy.fault(later, usize::MAX, fault.clone());
        let run = setting.export(&["--concurrency", "2"]);
        // An answer that has fewer objects than are cut off is no fault.
        if run.status == 0 && matches!(fault, Fault::KeepObjects(_) | Fault::Truncate { .. }) {
            return setting.assert_complete();
        }
        assert_eq!(run.status, *exit, "{fault:?}\n{}{}", run.stdout, run.stderr);
        setting.assert_unfinished();
        setting.proxy.heal();
        let run = setting.export(&[]);
        assert_eq!(run.status, 0, "{fault:?}\n{}{}", run.stdout, run.stderr);
        setting.assert_complete();
    });
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed() {
    let model = small_model();
    let server = server_with(&model);
    for code in [429, 503] {
        let setting = Setting::new(&server, &model);
        // One failure would be the end.
        setting.configure("attempts = 1\n");
        setting.proxy.fault(is_data, 3, Fault::busy(code, 1));
        let began = Instant::now();
        setting.export(&["--concurrency", "1"]).expect(0);
        assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(setting.proxy.fired(), 3);
        setting.assert_complete();
    }
    // It holds for everybody at once, for as long as it said.
    let setting = Setting::new(&server, &model);
    setting.configure("attempts = 1\n");
    setting.proxy.fault(is_data, 1, Fault::busy(429, 3));
    let began = Instant::now();
    setting.export(&["--concurrency", "4"]).expect(0);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    setting.assert_complete();
}

#[test]
fn a_window_that_is_too_much_is_split_until_it_passes() {
    let model = Model::generate(78, &Shape { points: 200, step: DAY / 20, ..Shape::default() });
    let server = server_with(&model);
    let hour = i128::from(DAY) / 24;
    for (limit, fault) in [
        (6 * hour, Fault::AppendError("query timeout reached".to_owned())),
        (hour, status(504, "")),
        (
            hour / 2,
            Fault::ErrorAfter {
                objects: 1,
                text: "max-select-point limit exceeed: (10/1)".to_owned(),
            },
        ),
        (6 * hour, Fault::Cut { after: 300 }),
    ] {
        let setting = Setting::new(&server, &model);
        setting.proxy.fault(move |query| is_data(query) && width(query) > limit, usize::MAX, fault);
        setting.export(&["--window", "8d"]).expect(0);
        assert!(setting.proxy.fired() > 2);
        setting.assert_complete();
        // What was learned is used: not every window was tried at its full width. A window counts once, because one whose
        // connection broke is asked for three times before it is split.
        let windows: HashSet<String> =
            setting.proxy.queries().into_iter().filter(|query| is_data(query)).collect();
        let too_wide = windows.iter().filter(|query| width(query) > limit).count();
        assert!(too_wide * 3 < windows.len(), "{too_wide} of {}", windows.len());
    }
}

// A gateway whose server is gone for a moment says 504 at once, to windows of any width.
#[test]
fn a_minute_of_time_outs_does_not_leave_narrow_windows_for_the_rest() {
    let model = Model::generate(80, &Shape { points: 300, ..Shape::default() });
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.proxy.fault(is_data, 24, status(504, ""));
    setting.export(&[]).expect(0);
    assert_eq!(setting.proxy.fired(), 24);
    setting.assert_complete();
    let asked = setting.proxy.queries().into_iter().filter(|query| is_data(query)).count();
    assert!(asked < 300, "{asked} queries");
}

#[test]
fn one_window_that_never_passes_does_not_stop_the_others() {
    let model = small_model();
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.configure("attempts = 2\n");
    // The second in which a point of `cpu` lies, as long as it is not alone.
    let time: i64 = model.rows("cpu")[100]["time"].parse().unwrap();
    let inside = move |query: &str| {
        let bound = |mark: &str| -> i64 {
            let text = query.rsplit_once(mark).unwrap().1;
            text.split(' ').next().unwrap().parse().unwrap()
        };
        is_data(query)
            && query.contains("\"cpu\"")
            && bound("time >= ") <= time
            && time <= bound("time <= ")
    };
    setting.proxy.fault(inside, usize::MAX, Fault::AppendError("query timeout reached".to_owned()));
    let run = setting.export(&[]).expect(3);
    assert!(run.stdout.contains("query timeout reached"), "{}", run.stdout);
    setting.assert_unfinished();
    let there: usize =
        setting.model.measurements().iter().map(|name| setting.archive().rows(name).len()).sum();
    let all: usize = setting.model.measurements().iter().map(|name| model.rows(name).len()).sum();
    assert!(there >= all - 3 && there < all, "{there} of {all} rows");
    setting.proxy.heal();
    setting.export(&[]).expect(0);
    setting.assert_complete();
}

#[test]
fn a_server_that_restarts_during_the_run_is_waited_for() {
    let model = Model::generate(79, &Shape { points: 300, ..Shape::default() });
    let mut server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.configure("");
    setting.proxy.fault(
        is_data,
        usize::MAX,
        Fault::Stall { after: 0, pause: Duration::from_millis(300) },
    );
    thread::scope(|scope| {
        let export = scope.spawn(|| setting.export(&["--concurrency", "2"]));
        while setting.proxy.fired() < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        server.kill();
        thread::sleep(Duration::from_millis(700));
        server.restart();
        export.join().unwrap().expect(0);
    });
    setting.assert_complete();
}

/// Every file and folder below a root, with bytes and times.
fn snapshot(root: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let paths = files(root).into_iter();
    paths
        .map(|path| {
            let changed = fs::metadata(root.join(&path)).unwrap().modified().unwrap();
            (path.clone(), (fs::read(root.join(path)).unwrap(), changed))
        })
        .collect()
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_not_touched() {
    let model = small_model();
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    let others: [&[(&str, &str)]; 4] = [
        &[("notes.txt", "mine")],
        &[("data/x/y.parquet", "PAR1")],
        &[
            ("bagit.txt", "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"),
            ("bag-info.txt", "Bag-Software-Agent: bagit.py v1.8.1\n"),
            ("manifest-sha256.txt", ""),
            ("data/a", "b"),
        ],
        &[(".hidden", "")],
    ];
    for other in others {
        let _ = fs::remove_dir_all(setting.path());
        for (path, content) in other {
            let path = setting.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let before = snapshot(&setting.path());
        let run = setting.export(&[]).expect(1);
        assert!(run.stderr.contains("not an archive of moveout"), "{}", run.stderr);
        assert!(snapshot(&setting.path()) == before);
        assert_eq!(fs::read_dir(setting.path()).unwrap().count(), {
            let mut tops: Vec<_> =
                other.iter().map(|(path, _)| path.split('/').next().unwrap()).collect();
            tops.dedup();
            tops.len()
        });
    }
    assert!(setting.proxy.requests().is_empty(), "refused before anything was asked");
}

#[test]
fn a_data_file_that_was_taken_away_is_read_again_and_the_catalog_is_not_guessed() {
    let model = small_model();
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.export(&["--to", "2024-01-02"]).expect(0);
    let data = setting.archive().data_files();
    fs::remove_file(setting.path().join(&data[0].path)).unwrap();
    let aside = setting.folder.path().join("aside");
    let chunks = setting.path().join("catalog/chunks.parquet");
    fs::rename(&chunks, &aside).unwrap();
    let run = setting.export(&[]).expect(4);
    assert!(run.stderr.contains("catalog/chunks.parquet"), "{}", run.stderr);
    assert_ne!(moveout(["verify".into(), setting.path()]).status, 0);
    fs::rename(&aside, &chunks).unwrap();
    // The other files of the first run are still there.
    let there = setting.archive().files();
    assert!(data[1..].iter().all(|file| there.contains(&file.path)), "{there:?}");
    let run = setting.export(&[]).expect(0);
    assert!(
        run.stdout.contains("was read again because some of its files were missing"),
        "{}",
        run.stdout
    );
    setting.assert_complete();
}

#[test]
fn a_file_that_was_added_stays_and_is_named() {
    let model = small_model();
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.export(&["--to", "2024-01-02"]).expect(0);
    let stranger = setting.path().join("data/stranger.parquet");
    fs::write(&stranger, "PAR1").unwrap();
    let before = snapshot(&setting.path());
    let run = setting.export(&[]);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(run.status == 4 && said.contains("data/stranger.parquet"), "{said}");
    assert!(
        snapshot(&setting.path()) == before,
        "nothing is changed before the file is moved away"
    );
    fs::remove_file(stranger).unwrap();
    setting.export(&[]).expect(0);
    setting.assert_complete();
}

// Of an artifact only the manifest knows the hash, and a run that extends the archive makes that anew.
#[test]
fn an_archive_with_a_damaged_artifact_is_not_sealed_again() {
    let model = small_model();
    let server = server_with(&model);
    let setting = Setting::new(&server, &model);
    setting.export(&["--to", "2024-01-02"]).expect(0);
    let mut artifacts =
        setting.archive().files().into_iter().filter(|path| path.contains("/_artifacts/"));
    let artifact = artifacts.next().unwrap();
    let path = setting.path().join(&artifact);
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 1], &[]] {
        fs::write(&path, damaged).unwrap();
        let before = snapshot(&setting.path());
        let run = setting.export(&[]).expect(4);
        assert!(format!("{}{}", run.stdout, run.stderr).contains(&artifact), "{}", run.stderr);
        assert_eq!(snapshot(&setting.path()), before);
    }
    fs::write(&path, whole).unwrap();
    setting.export(&[]).expect(0);
    setting.assert_complete();
}

#[test]
fn a_place_that_cannot_be_written_is_said() {
    let model = small_model();
    let server = server_with(&model);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "content").unwrap();
    // Also for root, who may write to every folder of a disk.
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/moveout/archive")] {
        let args = ["export", "--source", &server.url(), "--archive", path.to_str().unwrap()];
        let run = moveout(args).expect(1);
        assert!(run.stderr.contains(path.to_str().unwrap()), "{}", run.stderr);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "content");
    let run = moveout(["export", "--source", &server.url(), "--archive", "ftp://host/x"]).expect(2);
    assert!(run.stderr.contains("ftp"), "{}", run.stderr);
}

/// The program where no file may get longer than so many blocks of 512 bytes: a disk that is full,
/// for everybody and everywhere, also where nobody may mount one.
fn confined(args: &[String], blocks: u32) -> Command {
    let program = command(args);
    let mut confined = Command::new("sh");
    // Ignored, the signal becomes an error of the write, as it is on a full disk.
    confined.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    confined.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => confined.env(name, value),
            None => confined.env_remove(name),
        };
    }
    confined
}

#[test]
fn a_full_disk_leaves_what_was_committed_and_is_gone_on_from() {
    let mut model = small_model();
    // Text that cannot be compressed, so that files are large.
    let mut random = fastrand::Rng::with_seed(1);
    for i in 0..3000 {
        let text: String = (0..60).map(|_| random.alphanumeric()).collect();
        model.push(Point::new("text", NEW_YEAR + i * DAY / 1000).field("s", Value::String(text)));
    }
    let server = server_with(&model);
    // Some files fit, or none, or all but the catalog.
    for blocks in [0, 2, 8, 20, 60, 100] {
        let setting = Setting::new(&server, &model);
        let failed = run(confined(&setting.args(&[]), blocks));
        if failed.status == 0 {
            panic!("nothing was too large for {blocks} blocks");
        }
        let text = format!("{}{}", failed.stdout, failed.stderr);
        assert_eq!(failed.status, 3, "{blocks} blocks: {text}");
        assert!(text.contains("make room"), "{blocks} blocks: {text}");
        assert!(text.contains("File too large") || text.contains("os error 27"), "{text}");
        if blocks > 8 {
            setting.assert_unfinished();
        }
        assert!(!setting.archive().is_sealed());
        setting.export(&[]).expect(0);
        setting.assert_complete();
    }
}

#[test]
fn nonsense_in_the_configuration_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("c.toml");
    let source = "[[source]]\nname = \"s\"\nurl = \"influxdb+http://localhost:1/d\"\n";
    for (text, word) in [
        ("windows = \"1d\"\n", "windows"),
        ("concurrency = \"four\"\n", "concurrency"),
        ("concurrency = 0\n", "concurrency"),
        ("concurrency = -1\n", "concurrency"),
        ("window = 7\n", "window"),
        ("window = \"soon\"\n", "window"),
        ("window = \"0s\"\n", "window"),
        ("idle_timeout = \"1 fortnight\"\n", "idle_timeout"),
        ("memory = \"lots\"\n", "memory"),
        ("memory = \"1KiB\"\n", "memory"),
        ("file_size = \"-1\"\n", "file_size"),
        ("attempts = 0\n", "attempts"),
        ("from = \"yesterday\"\n", "from"),
        ("to = \"2024-13-01\"\n", "to"),
        ("from = \"2024-01-02\"\nto = \"2024-01-01\"\n", "is after"),
        ("SOURCE tokn = \"x\"\n", "tokn"),
        ("SOURCE token = \"plain\"\n", "token"),
        ("SOURCE token = { env = \"NOT_SET_ANYWHERE\" }\n", "NOT_SET_ANYWHERE"),
        ("SOURCE token = { file = \"missing\" }\n", "missing"),
        ("SOURCE token = { env = \"A\", file = \"B\" }\n", "token"),
        ("SOURCE username = \"u\"\n", "INFLUX_PASSWORD"),
        ("SOURCE password = { env = \"NOT_SET_ANYWHERE\" }\n", "password"),
        ("SOURCE precision = \"ns\"\n", "precision"),
        ("SOURCE databases = [\"x\"]\n", "databases"),
        ("SOURCE databases = \"x\"\n", "databases"),
        ("[[source]]\nname = \"s\"\nurl = \"gopher://x\"\n", "gopher"),
        ("[[source]]\nname = \"s\"\n", "url"),
        ("[[source]\n", "c.toml"),
        ("SOURCE SOURCE", "two sources"),
        ("window = \"1d\"\n", "source"),
    ] {
        let with_source =
            match text.contains("SOURCE ") || text.contains("[[source") || word == "source" {
                true => text
                    .replace("SOURCE SOURCE", &format!("{source}{source}"))
                    .replace("SOURCE ", source),
                false => format!("{text}{source}"),
            };
        fs::write(&path, &with_source).unwrap();
        let archive = folder.path().join("a");
        let args =
            ["export", "--config", path.to_str().unwrap(), "--archive", archive.to_str().unwrap()];
        let run = moveout(args);
        assert_eq!(run.status, 2, "{with_source}\n{}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(word), "{with_source}\n{}", run.stderr);
        assert!(!run.stderr.contains("\"plain\"") || word == "token", "{}", run.stderr);
        assert!(!archive.exists(), "{with_source}");
    }
    for args in [
        &["export", "--source", "influxdb+http://localhost:1/d"][..],
        &["export", "--config", "/nowhere/c.toml"],
        &["export", "--window", "abc", "--source", "lp:x", "--archive", "y"],
        &["export", "--no-such-flag"],
        &["exprot"],
    ] {
        moveout(args).expect(2);
    }
}
