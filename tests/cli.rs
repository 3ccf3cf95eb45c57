//! What people and scripts see: help, summaries, errors, exit statuses, JSON, and no secret anywhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use insta::{Settings, assert_snapshot};
use support::{Fault, Influxd, Options, Proxy, Run, command, files, moveout, repository, run};
use tempfile::TempDir;

fn weather() -> String {
    format!("lp:{}", repository("tests/data/weather.lp").display())
}

/// An archive of the sample.
struct Sample {
    folder: TempDir,
}

impl Sample {
    fn new() -> Self {
        let sample = Self { folder: tempfile::tempdir().unwrap() };
        sample.run("export", &[]).expect(0);
        sample
    }

    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn run(&self, verb: &str, more: &[&str]) -> Run {
        let (root, source) = (self.root(), weather());
        let root = root.to_str().unwrap();
        let mut args = match verb {
            "export" | "plan" => vec![verb, "--source", &source, "--archive", root],
            _ => vec![verb, root],
        };
        args.extend(more);
        moveout(args)
    }

    fn settings(&self) -> Settings {
        settings(self.folder.path())
    }
}

/// Leaves out of a snapshot what is another every time.
fn settings(folder: &Path) -> Settings {
    let mut settings = Settings::clone_current();
    let mut replace = |pattern: &str, by: &str| settings.add_filter(pattern, by);
    replace(&regex(folder.to_str().unwrap()), "[FOLDER]");
    replace(&regex(repository("").to_str().unwrap()), "[REPOSITORY]/");
    replace(r"\b\d+(\.\d+)? (B|KiB|MiB)\b", "[SIZE]");
    replace(r"\b\d+\.\d s\b", "[TIME]");
    replace(r"\b\d+ seconds? with", "[TIME] with");
    replace(r"127\.0\.0\.1:\d+", "[ADDRESS]");
    replace(r"\b[0-9a-z]{21} since \S+", "[RUN] since [TIME]");
    settings
}

fn regex(literal: &str) -> String {
    let escape = |c: char| match c.is_ascii_alphanumeric() || c == '/' {
        true => c.to_string(),
        false => format!("\\{c}"),
    };
    literal.chars().map(escape).collect()
}

#[test]
fn help_says_what_there_is() {
    let help = |args: &[&str]| {
        let mut command = command(args);
        command.env_remove("COLUMNS");
        run(command).expect(0).stdout
    };
    assert_snapshot!("help", help(&["--help"]));
    assert_snapshot!("help_export", help(&["export", "--help"]));
    assert_snapshot!("help_export_short", help(&["export", "-h"]));
    assert_snapshot!("help_plan", help(&["plan", "--help"]));
    assert_snapshot!("help_doctor", help(&["doctor", "--help"]));
    assert_snapshot!("help_status", help(&["status", "--help"]));
    assert_snapshot!("help_verify", help(&["verify", "--help"]));
    assert_snapshot!("help_report", help(&["report", "--help"]));
    assert_snapshot!("help_restore", help(&["restore", "--help"]));
    assert_snapshot!("help_completions", help(&["completions", "--help"]));
    assert_snapshot!("help_man", help(&["man", "--help"]));
    let short = format!("moveout {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(help(&["-V"]), format!("{short}\n"));
    // A build may add its commit and date.
    let version = help(&["--version"]);
    let features = "features: influxdb postgres mysql redis mongodb aptible lp s3)\n";
    assert!(version.starts_with(&format!("{short} (")) && version.ends_with(features), "{version}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(help(&["completions", shell]).contains("archive"), "{shell}");
    }
    for (when, colours) in [("always", true), ("never", false), ("auto", false)] {
        assert_eq!(help(&["--color", when, "--help"]).contains('\x1b'), colours, "{when}");
        let run = moveout(["export", &format!("--color={when}"), "--frobnicate"]).expect(2);
        assert_eq!(run.stderr.contains('\x1b'), colours, "{when}");
    }
}

#[test]
fn a_configuration_and_an_archive_are_found_without_being_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let text = |archive: &str| {
        format!("archive = \"{archive}\"\n[[source]]\nname = \"w\"\nurl = \"{}\"\n", weather())
    };
    fs::write(folder.path().join("moveout.toml"), text("here")).unwrap();
    fs::write(folder.path().join("named.toml"), text("named")).unwrap();
    let there = other.path().join("there");
    fs::write(other.path().join("env.toml"), text("of-env")).unwrap();
    let named = folder.path().join("named.toml");
    let run_with = |args: &[&str], env: &[(&str, &Path)]| {
        let mut command = command(args);
        command.current_dir(folder.path()).envs(env.iter().copied());
        run(command)
    };
    let archive_of = |args: &[&str], env: &[(&str, &Path)]| {
        run_with(args, env).expect(0).json()["archive"].as_str().unwrap().to_owned()
    };
    let config = other.path().join("env.toml");
    let of_env = other.path().join("of-env");
    let [config, of_env] = [("MOVEOUT_CONFIG", config.as_path()), ("", of_env.as_path())];
    let archive = ("MOVEOUT_ARCHIVE", there.as_path());
    let there = there.to_str().unwrap();
    // A flag, then the environment, then the file that lies there.
    assert_eq!(archive_of(&["export", "--json"], &[]), "here");
    assert_eq!(archive_of(&["export", "--json"], &[config]), of_env.1.to_str().unwrap());
    assert_eq!(archive_of(&["export", "--json"], &[config, archive]), there);
    let args = ["export", "--json", "--config", named.to_str().unwrap()];
    assert_eq!(archive_of(&args, &[config]), folder.path().join("named").to_str().unwrap());
    assert_eq!(archive_of(&["export", "--json", "--archive", "flag"], &[archive]), "flag");
    for verb in ["verify", "status"] {
        assert_eq!(archive_of(&[verb, "--json"], &[]), "here");
        assert_eq!(archive_of(&[verb, "--json"], &[archive]), there);
        assert_eq!(archive_of(&[verb, "--json", "named"], &[archive]), "named");
    }
    // One that is named has to be there.
    let missing = ("MOVEOUT_CONFIG", Path::new("no-such-file.toml"));
    let run = run_with(&["export"], &[missing]).expect(2);
    assert!(run.stderr.contains("no-such-file.toml"), "{}", run.stderr);
}

#[test]
fn a_dry_run_is_a_plan() {
    let sample = Sample::empty();
    let dry = sample.run("export", &["--dry-run", "--json"]).expect(0).json();
    assert_eq!((&dry["command"], &dry["rows_estimate"]), (&"plan".into(), &5779.into()));
    assert!(!sample.root().exists());
}

#[test]
fn no_verb_is_wrong_usage_and_shows_the_help() {
    let run = moveout::<&str>([]).expect(2);
    assert!(run.stdout.is_empty() && run.stderr.contains("Usage: moveout"), "{}", run.stderr);
}

#[test]
fn people_are_told_what_was_done() {
    let sample = Sample::empty();
    sample.settings().bind(|| {
        assert_snapshot!("plan", sample.run("plan", &[]).expect(0).stdout);
        assert!(!sample.root().exists(), "plan writes nothing");
        assert_snapshot!("export", sample.run("export", &[]).expect(0).stdout);
        assert_snapshot!("export_again", sample.run("export", &[]).expect(0).stdout);
        assert_snapshot!("plan_of_nothing", sample.run("plan", &[]).expect(0).stdout);
        assert_snapshot!("status", sample.run("status", &[]).expect(0).stdout);
        assert_snapshot!("verify", sample.run("verify", &[]).expect(0).stdout);
        assert_snapshot!("verify_quick", sample.run("verify", &["--quick"]).expect(0).stdout);
        fs::remove_file(sample.root().join("README.txt")).unwrap();
        assert_snapshot!("verify_damaged", sample.run("verify", &[]).expect(4).stdout);
        fs::remove_file(sample.root().join("bagit.txt")).unwrap();
        assert_snapshot!("verify_more_damaged", sample.run("verify", &[]).expect(4).stdout);
    });
}

#[test]
fn people_are_told_what_lies_outside() {
    let sample = Sample::empty();
    let range = ["--from", "2012-01-01", "--to", "2013-01-01"];
    sample.settings().bind(|| {
        assert_snapshot!("plan_range", sample.run("plan", &range).expect(0).stdout);
        assert_snapshot!("export_range", sample.run("export", &range).expect(0).stdout);
        assert_snapshot!("status_range", sample.run("status", &[]).expect(0).stdout);
    });
}

#[test]
fn each_run_keeps_its_record_and_counts_what_the_archive_lacks() {
    let sample = Sample::empty();
    let mut total = 0;
    for (at, range) in
        [("2012-01-01", "2013-01-01"), ("2014-01-01", "2015-01-01")].iter().enumerate()
    {
        let range = ["--from", range.0, "--to", range.1, "--json"];
        let summary = sample.run("export", &range).expect(0).json();
        let outside = summary["outside"].as_array().unwrap();
        let outside: u64 = outside.iter().map(|one| one["count"]["rows"].as_u64().unwrap()).sum();
        total = summary["rows_total"].as_u64().unwrap();
        assert_eq!(outside, 5779 - total, "run {at}: {summary}");
        let run: serde_json::Value =
            serde_json::from_slice(&fs::read(sample.root().join("catalog/run.json")).unwrap())
                .unwrap();
        assert_eq!(run["range"]["from"], range[1]);
        let earlier = run["earlier"].as_array().unwrap();
        assert!(
            earlier.len() == at && earlier.iter().all(|run| run["range"]["from"] == "2012-01-01")
        );
    }
    assert!(total > 700);
    let covers = "sealed; covers 2012-01-01T00:00:00Z to 2015-01-01T00:00:00Z";
    let narrow = sample.run("export", &["--from", "2012-01-01", "--to", "2012-02-01"]).expect(0);
    assert!(narrow.stdout.contains(covers), "{}", narrow.stdout);
    let status = sample.run("status", &[]).expect(0);
    assert!(status.stdout.contains(covers), "{}", status.stdout);
    let all = sample.run("export", &[]).expect(0);
    assert!(all.stdout.contains("complete and sealed"), "{}", all.stdout);
    let status = sample.run("status", &[]).expect(0);
    assert!(!status.stdout.contains("covers"), "{}", status.stdout);
}

#[test]
fn a_quiet_run_without_a_terminal_has_nothing_on_standard_error() {
    let sample = Sample::empty();
    for verb in ["plan", "export", "status", "verify"] {
        for quiet in [&[][..], &["--quiet"]] {
            assert_eq!(sample.run(verb, quiet).expect(0).stderr, "", "{verb}");
        }
    }
}

#[test]
fn wrong_usage_is_named_and_helped_with() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let archive = archive.to_str().unwrap();
    let broken = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let source = "[[source]]\nname = \"s\"\nurl = ";
    let unknown = broken("unknown.toml", "archiv = \"x\"\n");
    let token = broken("token.toml", &format!("{source}\"influxdb+http://h\"\ntoken = \"abc\"\n"));
    let inner = broken("inner.toml", &format!("{source}\"lp:x\"\nretension_policies = []\n"));
    let no_url = broken("no-url.toml", "archive = \"x\"\n[[source]]\nname = \"s\"\n");
    let single = broken("single.toml", "[source]\nname = \"s\"\n");
    let number = broken("number.toml", "archive = 5\n");
    let text = broken("text.toml", "concurrency = \"4\"\n");
    let list = broken("list.toml", &format!("{source}\"lp:x\"\ntables = \"cpu\"\n"));
    let map = broken("map.toml", &format!("{source}\"postgres://h\"\ntime_columns = []\n"));
    let preset = broken("preset.toml", "[s3]\npreset = \"ceph\"\n");
    let secret = "token = { environment = \"X\" }\n";
    let secret = broken("secret.toml", &format!("{source}\"influxdb+http://h\"\n{secret}"));
    let syntax = broken("syntax.toml", "archive = x\n");
    let named =
        broken("named.toml", &format!("{source}\"lp:x\"\n").replace("\"s\"", "\"metrics\""));
    let unset = "token = { env = \"NO_SUCH_TOKEN\" }\n";
    let unset = broken("unset.toml", &format!("{source}\"influxdb+http://h\"\n{unset}"));
    let twice = broken("twice.toml", &format!("{source}\"lp:x\"\n{source}\"lp:y\"\n"));
    let unit = broken("unit.toml", &format!("{source}\"lp:x\"\nprecision = \"h\"\n"));
    let size =
        broken("size.toml", "file_size = \"1 elephant\"\n[[source]]\nname=\"s\"\nurl=\"lp:x\"");
    let file = repository("tests/data/weather.lp").display().to_string();
    let cases: &[(&str, &[&str])] = &[
        ("no source", &[]),
        ("no name", &["--source", "metrics"]),
        ("unknown scheme", &["--source", "cassandra://localhost/db"]),
        ("unknown sslmode", &["--source", "postgres://localhost/db?sslmode=maybe"]),
        ("unknown parameter", &["--source", "mysql://localhost/db?timeout=5"]),
        ("mistyped parameter", &["--source", "postgres://localhost/db?ssl_mode=require"]),
        ("mistyped scheme", &["--source", "postgress://localhost/db"]),
        ("http", &["--source", "http://localhost:8086/db"]),
        ("https", &["--source", "https://me@localhost:8086"]),
        ("influxdb", &["--source", "influxdb://localhost/db"]),
        ("jdbc", &["--source", "jdbc:postgresql://localhost/db"]),
        ("mistyped name", &["--source", "metrisc", "--config", &named]),
        ("a file", &["--source", &file]),
        ("after", &["--source", "lp:x", "--from", "2024-01-02 12:00", "--to", "2024-01-01"]),
        ("unknown key of a source", &["--config", &inner]),
        ("missing key", &["--config", &no_url]),
        ("one source in single brackets", &["--config", &single]),
        ("number for text", &["--config", &number]),
        ("text for number", &["--config", &text]),
        ("text for list", &["--config", &list]),
        ("list for names", &["--config", &map]),
        ("unknown preset", &["--config", &preset]),
        ("key of a secret", &["--config", &secret]),
        ("syntax", &["--config", &syntax]),
        ("no such version", &["--source", "influxdb4+https://localhost/db"]),
        ("unknown product", &["--source", "graphite+https://localhost/db"]),
        ("no host", &["--source", "influxdb+https:///db"]),
        ("no http", &["--source", "influxdb+ftp://localhost/db"]),
        ("bad port", &["--source", "influxdb+https://localhost:99999/db"]),
        ("query", &["--source", "influxdb+https://localhost/db?x=y"]),
        ("no file", &["--source", "lp:"]),
        ("nonsense time", &["--source", "lp:x", "--from", "yesterday"]),
        ("nonsense time to", &["--source", "lp:x", "--to", "2024-13-01"]),
        ("time too far", &["--source", "lp:x", "--to", "2300-01-01"]),
        ("empty range", &["--source", "lp:x", "--from", "2024-01-02", "--to", "2024-01-02"]),
        ("backwards", &["--source", "lp:x", "--from", "max", "--to", "min"]),
        ("width", &["--source", "lp:x", "--window", "1 day"]),
        ("memory", &["--source", "lp:x", "--memory", "lots"]),
        ("bandwidth", &["--source", "lp:x", "--bandwidth", "fast"]),
        ("too little memory", &["--source", "lp:x", "--memory", "1MiB"]),
        ("concurrency", &["--source", "lp:x", "--concurrency", "0"]),
        ("no such configuration", &["--config", "no-such-file.toml"]),
        ("unknown key", &["--config", &unknown]),
        ("secret in the file", &["--config", &token]),
        ("variable is not set", &["--config", &unset]),
        ("two of a name", &["--config", &twice]),
        ("precision", &["--config", &unit]),
        ("size", &["--config", &size]),
        ("same source twice", &["--source", "lp:x", "--source", "lp:x"]),
        ("object store", &["--source", "lp:x", "--archive", "s3://bucket/prefix"]),
    ];
    let mut all = String::new();
    for (what, args) in cases {
        let mut full = vec!["export"];
        if !args.contains(&"--archive") {
            full.extend(["--archive", archive]);
        }
        let run = moveout(full.iter().chain(*args));
        all += &format!("--- {what}\n{}", run.stderr);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{what}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{what}: {}", run.stderr);
    }
    let run = moveout(["export", "--source", &weather()]).expect(2);
    all += &format!("--- no archive\n{}", run.stderr);
    settings(folder.path()).bind(|| assert_snapshot!("wrong_usage", all));
    assert!(!Path::new(archive).exists());
    for args in
        [&["frobnicate"][..], &["export", "--frobnicate"], &["verify"], &["verify", "a", "b"]]
    {
        moveout(args).expect(2);
    }
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("holiday.jpg"), "x").unwrap();
    let missing = folder.path().join("missing");
    let mut all = String::new();
    for (what, path) in [("empty", &empty), ("another", &other), ("missing", &missing)] {
        for verb in ["verify", "status", "report"] {
            let run = moveout([verb, path.to_str().unwrap()]).expect(1);
            assert_eq!(run.stdout, "");
            all += &format!("--- {verb}: {what}\n{}", run.stderr);
        }
    }
    let args = ["export", "--source", &weather(), "--archive", other.to_str().unwrap()];
    all += &format!("--- export: another\n{}", moveout(args).expect(1).stderr);
    settings(folder.path()).bind(|| assert_snapshot!("no_archive", all));
    assert!(!missing.exists());
    assert_eq!(files(folder.path()), ["other/holiday.jpg"]);
}

#[test]
fn with_json_standard_output_is_one_object() {
    let sample = Sample::empty();
    for (verb, command) in
        [("plan", "plan"), ("export", "export"), ("status", "status"), ("verify", "verify")]
    {
        let run = sample.run(verb, &["--json"]).expect(0);
        let json = run.json();
        assert!(json.is_object() && json["command"] == command, "{json}");
        assert_eq!(run.stdout.matches('\n').count(), 1);
        assert!(run.stdout.ends_with('\n') && run.stderr.is_empty(), "{}", run.stderr);
    }
    let export = sample.run("export", &["--json"]).expect(0).json();
    assert_eq!((&export["status"], &export["rows"]), (&"complete".into(), &0.into()));
    assert_eq!(export["rows_total"], 5779);
    let verify = sample.run("verify", &["--json"]).expect(0).json();
    assert_eq!((&verify["status"], &verify["rows"]), (&"ok".into(), &5779.into()));
    // Before the verb it means the same, and errors are objects, too.
    let run = moveout(["--json", "verify", "/no/such/folder"]).expect(1);
    let json = run.json();
    assert_eq!((&json["status"], &json["exit"]), (&"error".into(), &1.into()));
    assert!(json["error"].as_str().unwrap().contains("/no/such/folder"));
    let json = moveout(["export", "--json"]).expect(2).json();
    assert_eq!((&json["status"], &json["exit"]), (&"error".into(), &2.into()));
    assert!(json["hint"].is_string());
}

#[test]
fn progress_for_programs_is_an_object_a_line() {
    let sample = Sample::empty();
    let run = sample.run("export", &["--progress", "json", "-v"]).expect(0);
    let lines: Vec<serde_json::Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let progress: Vec<_> = lines.iter().filter(|line| line["event"] == "progress").collect();
    let last = progress.last().unwrap();
    assert_eq!((&last["phase"], &last["rows"]), (&"ended".into(), &5779.into()));
    assert!(progress.iter().any(|line| line["phase"] == "sealing the archive"), "{progress:?}");
    assert!(lines.iter().any(|line| line["event"] == "log"), "{}", run.stderr);
    let run = moveout(["export", "--progress", "json"]).expect(2);
    let lines = run.stderr.lines().map(serde_json::from_str::<serde_json::Value>);
    assert!(lines.map(|line| line.unwrap()).any(|line| line["event"] == "error"));
    for how in ["none", "bar", "plain", "auto"] {
        assert_eq!(sample.run("verify", &["--progress", how]).expect(0).stderr, "", "{how}");
    }
}

#[test]
fn the_log_can_go_to_a_file() {
    let sample = Sample::empty();
    let log = sample.folder.path().join("moveout.log");
    let file = ["--log-file", log.to_str().unwrap()];
    assert_eq!(sample.run("export", &file).expect(0).stderr, "");
    let first = fs::read_to_string(&log).unwrap();
    assert!(first.contains("reading weather.autogen.daily_weather"), "{first}");
    sample.run("verify", &file).expect(0);
    assert!(fs::read_to_string(&log).unwrap().starts_with(&first), "it is added to");
    let run = sample.run("verify", &["--log-file", "/no/such/folder/log"]).expect(2);
    assert!(run.stderr.contains("opening the log /no/such/folder/log"), "{}", run.stderr);
}

#[test]
fn no_escape_codes_where_there_is_no_terminal() {
    for no_color in [true, false] {
        let sample = Sample::empty();
        let (root, source) = (sample.root(), weather());
        let root = root.to_str().unwrap();
        let mut argss = vec![vec!["--help"], vec!["frobnicate"], vec!["export", "--frobnicate"]];
        argss.push(vec!["export", "--source", &source, "--archive", root, "-vv"]);
        argss.extend([vec!["status", root], vec!["verify", root], vec!["verify", "/none"]]);
        for args in argss {
            let mut command = command(&args);
            if !no_color {
                command.env_remove("NO_COLOR");
            }
            let run = run(command);
            assert!(!run.stdout.contains('\x1b'), "{args:?}: {:?}", run.stdout);
            assert!(!run.stderr.contains('\x1b'), "{args:?}: {:?}", run.stderr);
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sample = Sample::new();
    let root = sample.root();
    let root = root.to_str().unwrap();
    // Many faults, so that more is printed than a pipe holds.
    for number in 0..3000 {
        fs::write(sample.root().join(format!("stray-{number:064}")), "").unwrap();
    }
    for (args, status) in [
        (vec!["verify", root], 4),
        (vec!["verify", root, "--json"], 4),
        (vec!["status", root], 0),
        (vec!["--help"], 0),
    ] {
        let mut command = command(&args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.len() > 1);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}");
    }
    // Nobody listens at all.
    let mut command = command(["export", "--source", &weather(), "--archive"]);
    command.arg(sample.folder.path().join("other"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    moveout(["verify", sample.folder.path().join("other").to_str().unwrap()]).expect(0);
}

/// Expects that a secret is in no output and in no file.
#[track_caller]
fn assert_hidden(secrets: &[&str], run: &Run, folder: &Path) {
    for secret in secrets {
        assert!(!run.stdout.contains(secret), "{secret} in {}", run.stdout);
        assert!(!run.stderr.contains(secret), "{secret} in {}", run.stderr);
        for file in files(folder) {
            let bytes = fs::read(folder.join(&file)).unwrap();
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} in {file}");
        }
    }
}

#[test]
fn a_password_in_a_url_works_with_a_warning_and_shows_nowhere() {
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    let (user, password) = support::influxd::ADMIN;
    server.query("CREATE DATABASE d");
    server.write("d", "", "m a=1i 1");
    let encoded = "adm1n%2Fp%40ss%3Aw%25rd";
    let secrets = [password, encoded, "adm1n"];
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let archive = archive.to_str().unwrap();
    let url = format!("influxdb+http://{user}:{encoded}@{}/d", server.address());
    for verb in ["plan", "export"] {
        for more in [&[][..], &["--json"], &["-vv"]] {
            let run = moveout([&[verb, "--source", &url, "--archive", archive], more].concat());
            let run = run.expect(0);
            assert!(run.stdout.contains("password in the URL"), "{}", run.stdout);
            assert_eq!(run.stderr.contains("SHOW"), more == ["-vv"], "{}", run.stderr);
            assert_hidden(&secrets, &run, folder.path());
        }
    }
    for verb in ["status", "verify"] {
        assert_hidden(&secrets, &moveout([verb, archive, "-vv"]).expect(0), folder.path());
    }
    // A wrong password, a server that is not there, a database that is not there.
    let wrong = url.replace("adm1n", "wr0ng");
    let gone = format!("influxdb+http://{user}:{encoded}@127.0.0.1:1/d");
    let none = url.replace("/d", "/none");
    for (url, status) in [(&wrong, 1), (&gone, 1), (&none, 1)] {
        for more in [&[][..], &["--json"], &["-vv"]] {
            let other = folder.path().join("other");
            let args = ["export", "--source", url, "--archive", other.to_str().unwrap()];
            let run = moveout(args.iter().chain(more)).expect(status);
            assert_hidden(&[&secrets[..], &["wr0ng"]].concat(), &run, folder.path());
        }
    }
    // From the environment there is no warning.
    let source = format!("{}/d", server.url());
    let mut command = command(["export", "--source", &source, "--archive", archive, "-vv"]);
    command.env("INFLUX_USERNAME", user).env("INFLUX_PASSWORD", password);
    let run = run(command).expect(0);
    assert!(!run.stdout.contains("warning"), "{}", run.stdout);
    assert_hidden(&secrets, &run, folder.path());
}

#[test]
fn a_password_in_a_mistyped_url_shows_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    for url in [
        "me:geheim@localhost",
        "localhost:8086/me:geheim@",
        "influxdb://me:geheim@localhost/db",
        "influxdb+http:me:geheim@localhost/db",
        "influxdb+http:/me:geheim@localhost/db",
        "influxdb+http:///me:geheim@localhost/db",
        "influxdb+http//me:geheim@localhost/db",
        "influxdb+https://me:geheim@localhost:99999/db",
        "influxdb+https://me:gehe/geheim@localhost/db",
        "influxdb+https://me:geheim@/db",
        "influxdb+https://me:@geheim@localhost:x/db",
        "influxdb+https://me:geheim@localhost/db?q",
        "influxdb+https://me:geheim@localhost/%ff",
        "postgres:/me:geheim@localhost:x/db",
        "postgres://me:geheim@localhost:99999/db",
        "postgresql://me:geheim@localhost/db?password=geheim",
        "mysql://me:geheim@localhost/%ff",
        "mysql://me:geheim@localhost/db#geheim",
        "s3+influxdb://me:geheim@localhost/db",
    ] {
        for more in [&[][..], &["--json"], &["-vv"]] {
            let args = ["export", "--source", url, "--archive", archive.to_str().unwrap()];
            let run = moveout(args.iter().chain(more)).expect(2);
            assert_hidden(&["geheim"], &run, folder.path());
        }
    }
}

#[test]
fn a_secret_in_a_configuration_that_is_refused_shows_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let config = folder.path().join("config.toml");
    for lines in [
        "url = \"influxdb+ftp://me:geheim@localhost/db\"",
        "url = \"influxdb+http://localhost\"\ntoken = \"geheim\"",
        "url = \"influxdb+http://localhost\"\ntoken = geheim",
        "url = \"influxdb+http://localhost\"\ntoken = [\"geheim\"]",
        "url = \"influxdb+http://localhost\"\ntoken = { value = \"geheim\" }",
        "url = \"influxdb+http://localhost\"\ntoken = { env = { x = \"geheim\" } }",
        "url = \"influxdb+http://localhost\"\nusername = \"u\"\npassword = \"geheim\"",
        "url = \"influxdb+http://localhost\"\npasswort = \"geheim\"",
        "url = \"influxdb+http://localhost\" # geheim\ntoken = 'geheim",
        "url = \"influxdb+http://me:geheim@localhost\" x",
    ] {
        fs::write(&config, format!("[[source]]\nname = \"s\"\n{lines}\n")).unwrap();
        let args = ["export", "--archive", archive.to_str().unwrap(), "--config"];
        let run = moveout(args.iter().copied().chain([config.to_str().unwrap()])).expect(2);
        fs::remove_file(&config).unwrap();
        assert_hidden(&["geheim"], &run, folder.path());
    }
}

#[test]
fn the_example_of_a_configuration_works_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.example.toml", "tests/data/weather.lp"] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(repository(file), to).unwrap();
    }
    let run_in = |cwd: &Path, args: &[&str]| {
        let mut command = command(args);
        command.current_dir(cwd);
        run(command)
    };
    let args = ["export", "--config", "config.example.toml"];
    let run = run_in(folder.path(), &args).expect(0);
    assert!(!run.stdout.contains("warning"), "{}", run.stdout);
    run_in(folder.path(), &["verify", "archive-weather"]).expect(0);
    // Paths are meant from where the file is.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.example.toml");
    let run = run_in(elsewhere.path(), &["export", "--json", "--config", config.to_str().unwrap()]);
    assert_eq!(run.expect(0).json()["rows_total"], 5779);
    assert!(files(elsewhere.path()).is_empty());
    let archive = support::Archive::open(folder.path().join("archive-weather"));
    assert_eq!(archive.rows("daily_weather").len(), 1461);
    assert_eq!(archive.rows("hourly_normals").len(), 2 * 2159);
    // By the name of its source, too.
    let args = ["export", "--config", "config.example.toml", "--source", "weather", "--json"];
    assert_eq!(run_in(folder.path(), &args).expect(0).json()["rows_total"], 5779);
}

/// The keys of a struct of the configuration, as its source has them.
fn keys(name: &str) -> BTreeSet<String> {
    let source = fs::read_to_string(repository("src/config/file.rs")).unwrap();
    let from = source.find(&format!(" struct {name} {{\n")).unwrap();
    let body = source[from..].lines().skip(1).take_while(|line| *line != "}");
    let fields = body.filter_map(|line| line.split_once(':')).map(|(field, _)| field.trim());
    let fields = fields.map(|field| field.trim_start_matches("pub(super) "));
    let fields = fields.map(|field| if field == "sources" { "source" } else { field });
    fields.map(str::to_owned).collect()
}

// So that no key is forgotten, and none is explained that does not exist.
#[test]
fn the_example_of_a_configuration_has_every_key_and_no_other() {
    let text = fs::read_to_string(repository("config.example.toml")).unwrap();
    let mut found = BTreeMap::<&str, BTreeSet<String>>::new();
    let mut table = "File";
    for line in text.lines() {
        let line = line.trim_start_matches("# ").trim_start_matches('#').trim();
        let (struct_name, key) = match line {
            "[[source]]" => ("FileSource", "source"),
            "[s3]" => ("FileS3", "s3"),
            "[source.tunnel]" => ("FileTunnel", "tunnel"),
            _ => {
                if let Some((key, _)) = line.split_once(" = ")
                    && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                {
                    found.entry(table).or_default().insert(key.to_owned());
                }
                continue;
            }
        };
        table = struct_name;
        let owner = if key == "tunnel" { "FileSource" } else { "File" };
        found.entry(owner).or_default().insert(key.to_owned());
    }
    for (name, found) in found {
        assert_eq!(found, keys(name));
    }
}

// What is shown as a comment must be what the program would read.
#[test]
fn the_examples_of_the_configuration_parse_when_they_are_no_comments() {
    let text = fs::read_to_string(repository("config.example.toml")).unwrap();
    let uncommented = text.lines().map(|line| {
        let rest = line.trim_start_matches("# ");
        let is_key = rest.split_once(" = ").is_some_and(|(key, value)| {
            !key.contains(' ')
                && (value == "true"
                    || value.starts_with(['"', '{', '['])
                    || value.parse::<f64>().is_ok())
        });
        if ["[[source]]", "[s3]", "[source.tunnel]"].contains(&rest) || is_key { rest } else { "" }
    });
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = uncommented.collect::<Vec<_>>().join("\n");
    fs::write(&config, &text).unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    fs::write(folder.path().join("secrets/metrics-password"), "secret\n").unwrap();
    fs::create_dir_all(folder.path().join("tests/data")).unwrap();
    fs::copy(repository("tests/data/weather.lp"), folder.path().join("tests/data/weather.lp"))
        .unwrap();
    let mut command =
        command(["plan", "--source", "weather", "--config", config.to_str().unwrap()]);
    let secrets =
        ["METRICS_TOKEN", "OSS_SECRET", "OSS_TOKEN", "SHOP_PASSWORD"].map(|name| (name, "secret"));
    command.envs(secrets);
    run(command).expect(0);
    let mut all = support::command(["plan", "--config", config.to_str().unwrap()]);
    all.envs(secrets);
    let stderr = run(all).stderr;
    assert!(stderr.contains("influx.example.com") && !stderr.contains("config.toml"), "{stderr}");
    for key in keys("File").iter().chain(&keys("FileSource")).chain(&keys("FileS3")) {
        assert!(text.contains(key.as_str()), "{key} is not in\n{text}");
    }
}

#[test]
fn an_unfinished_archive_shows_what_is_missing() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", "a v=1i 86400000000000\na v=2i 86400000000001\nb v=3i 86400000000000\n");
    let proxy = Proxy::before(&server);
    let of_b = |query: &str| query.contains("GROUP BY *") && query.contains("\"b\"");
    let answer = Fault::Status { code: 500, headers: Vec::new(), body: "{\"error\":\"x\"}".into() };
    proxy.fault(of_b, usize::MAX, answer);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, root) = (path("config.toml"), path("archive"));
    let url = format!("{}/d", proxy.url());
    let text = format!("attempts = 1\n[[source]]\nname = \"server\"\nurl = \"{url}\"\n");
    fs::write(&config, text).unwrap();
    let args = ["export", "--config", &config, "--archive", &root, "--from", "1970-01-01", "--to"];
    let args = [&args[..], &["1970-02-01"]].concat();
    settings(folder.path()).bind(|| {
        assert_snapshot!("export_incomplete", moveout(&args).expect(3).stdout);
        assert_snapshot!("status_incomplete", moveout(["status", &root]).expect(0).stdout);
        assert_snapshot!("verify_unsealed", moveout(["verify", &root]).expect(3).stdout);
    });
    let status = moveout(["status", &root, "--json"]).expect(0).json();
    assert_eq!(status["sealed"], false);
    let tables = status["tables"].as_array().unwrap();
    let table = |name: &str| tables.iter().find(|t| t["table"]["table"] == name).unwrap();
    assert_eq!((&table("a")["rows"], &table("a")["missing"]), (&2.into(), &serde_json::json!([])));
    let missing = serde_json::json!(
        [{"from": "1970-01-01T00:00:00Z", "to": "1970-02-01T00:00:00Z"}]
    );
    assert_eq!((&table("b")["rows"], &table("b")["missing"]), (&0.into(), &missing));
    assert_eq!(moveout(["verify", &root, "--json"]).expect(3).json()["status"], "unsealed");
    proxy.heal();
    moveout(&args).expect(0);
    let status = moveout(["status", &root, "--json"]).expect(0).json();
    assert_eq!((&status["sealed"], &status["rows"]), (&true.into(), &3.into()));
    moveout(["verify", &root]).expect(0);
}
