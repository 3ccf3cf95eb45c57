//! Databases on Aptible through a stand-in for its CLI, before real servers: all of an environment in one run, while each
//! tunnel is lost once; nothing is left behind, and no secret is anywhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::influxd::ADMIN;
use support::server::{self, Certificate, PASSWORD};
use support::{
    Archive, Influxd, MariaDb, Postgres, Redis, Run, command, mariadb, postgres, repository, run,
};
use tempfile::TempDir;

const TOKEN: &str = "t0ken-of-aptible";
/// Rows of each relation; with text beside them, so that tunnels can be cut in their midst.
const ROWS: usize = 20_000;

/// A Redis with some keys.
fn redis() -> Redis {
    let redis = Redis::start("");
    let set = |key| format!("SET key-{key} {}\n", format!("{key:08}").repeat(20));
    redis.ask(&(0..4000).map(set).collect::<String>());
    redis
}

/// What somebody has on Aptible, and the machine that he leaves it from.
struct Account {
    folder: TempDir,
    postgres: Postgres,
    mariadb: MariaDb,
    influxd: Influxd,
    redis: Redis,
    state: Value,
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Account {
    fn new() -> Self {
        let folder = TempDir::with_prefix("aptible-").unwrap();
        for name in ["bin", "state", "tmp", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        symlink(repository("tests/support/aptible.py"), folder.path().join("bin/aptible")).unwrap();
        let certificates = server::folder("certificates-");
        let Certificate { certificate, key, .. } =
            server::certificate(&certificates, "DNS:*.aptible.in");
        fs::copy(certificate, folder.path().join("state/server.crt")).unwrap();
        fs::copy(key, folder.path().join("state/server.key")).unwrap();

        let names = Some("IP:127.0.0.1");
        let postgres = Postgres::start_with(postgres::Options { tls: names, ..Default::default() });
        let fill = format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat(md5(i::text), 3) FROM \
             generate_series(1, {ROWS}) i;"
        );
        postgres.sql("postgres", "CREATE DATABASE db");
        postgres.sql("db", &fill);
        let mariadb = MariaDb::start_with(mariadb::Options { tls: names, ..Default::default() });
        mariadb.sql(
            "mysql",
            &format!(
                "CREATE DATABASE db; CREATE TABLE db.goods (id int PRIMARY KEY, v text); INSERT INTO db.goods SELECT seq, \
                 repeat(md5(seq), 3) FROM seq_1_to_{ROWS}; CREATE DATABASE other; CREATE TABLE other.u (v int); INSERT \
                 INTO other.u VALUES (7); CREATE OR REPLACE USER root@'%' IDENTIFIED BY '{password}' REQUIRE SSL; GRANT \
                 ALL ON *.* TO root@'%'; CREATE OR REPLACE USER aptible@'%' IDENTIFIED BY '{password}' REQUIRE SSL; GRANT \
                 ALL ON db.* TO aptible@'%';",
                password = PASSWORD.replace('\'', "''")
            ),
        );
        let influxd = Influxd::start_with(support::Options { auth: true, ..Default::default() });
        influxd.query("CREATE DATABASE db");
        let lines = (0..ROWS).fold(String::new(), |lines, row| {
            let time = 1_704_067_200_000_000_000 + row as i64 * 60_000_000_000;
            lines + &format!("cpu,host=h{} v={}i,w=\"{:x}\" {time}\n", row % 7, row, row * 7919)
        });
        influxd.write("db", "", &lines);
        let redis = redis();
        let mut account = Self { folder, postgres, mariadb, influxd, redis, state: Value::Null };
        account.state = account.stands();
        account.save();
        account
    }

    fn stands(&self) -> Value {
        let password = encoded(PASSWORD);
        let url = |scheme: &str, rest: &str| {
            format!("{scheme}://aptible:{password}@10.252.1.125:49158{rest}")
        };
        let way = |kind: &str, url: &str, default: bool, port: u16, tls: bool| json!({"type": kind, "connection_url": url, "default": default, "port": port, "tls": tls});
        let database = |handle: &str, kind: &str, version: &str, credentials: Vec<Value>| {
            json!({
                "environment": "production", "handle": handle, "type": kind, "version": version,
                "status": "provisioned", "disk_size": 10, "credentials": credentials
            })
        };
        let influx = self.influxd.address().port();
        let influx_url = format!("https://{}:{}@10.252.1.125:1", ADMIN.0, encoded(ADMIN.1));
        let redis_url =
            |scheme: &str| format!("{scheme}://:{}@10.252.1.125:2", encoded(self.redis.password()));
        json!({
            "folder": self.folder.path().join("state"),
            "token": TOKEN,
            "domain": "aptible.in",
            "delay_seconds": 0.2,
            "environments": [{"handle": "production"}, {"handle": "staging"}],
            "databases": [
                database("main", "postgresql", "15", vec![
                    // The server knows its administrator as `admin`, and Aptible's as `aptible`.
                    way("postgresql", &url("postgresql", "/db").replace("aptible:", "admin:"), true, self.postgres.port(), false)
                ]),
                database("shop", "mysql", "8.0", vec![
                    way("mysql", &url("mysql", "/db"), true, self.mariadb.port(), false),
                    way("mysql-nossl", &url("mysql", "/db"), false, self.mariadb.port(), false)
                ]),
                database("metrics", "influxdb", "1.11", vec![
                    way("influxdb", &influx_url, true, influx, true),
                    way("query", &format!("{influx_url}/query?db=db"), false, influx, true)
                ]),
                database("cache", "redis", "7.2", vec![
                    way("redis", &redis_url("redis"), true, self.redis.port(), false),
                    way("redis+ssl", &redis_url("rediss"), false, self.redis.port(), true)
                ])
            ],
            "backups": {
                "main": [
                    {"id": 12, "description": "12: …", "created_at": "2026-03-02T00:00:00Z", "region": "us-east-1", "size": 1.5, "manual": false},
                    {"id": 11, "description": "11: …", "created_at": "2026-03-01T00:00:00Z", "region": "us-east-1", "size": 1.5, "manual": false}
                ]
            },
            "orphaned": []
        })
    }

    fn save(&self) {
        fs::write(self.folder.path().join("stand-in.json"), self.state.to_string()).unwrap();
    }

    fn database(&mut self, handle: &str) -> &mut Value {
        let databases = self.state["databases"].as_array_mut().unwrap();
        databases.iter_mut().find(|database| database["handle"] == handle).unwrap()
    }

    fn add(&mut self, handle: &str, kind: &str, environment: &str) {
        let databases = self.state["databases"].as_array_mut().unwrap();
        databases.push(json!({
            "environment": environment, "handle": handle, "type": kind, "version": "1", "status": "provisioned",
            "credentials": [{"type": kind, "connection_url": "https://aptible:unused-secret@10.0.0.1:1", "default": true, "port": 1}]
        }));
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn state_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()));
        command.env("APTIBLE_STAND_IN", self.folder.path().join("stand-in.json"));
        command.env("APTIBLE_ACCESS_TOKEN", TOKEN).env("HOME", self.folder.path().join("home"));
        command.env("TMPDIR", self.folder.path().join("tmp"));
        command
    }

    fn run(&self, verb: &str, more: &[&str]) -> Run {
        let root = self.root();
        let mut args = vec![verb, "--archive", root.to_str().unwrap()];
        args.extend(more);
        run(self.command(&args))
    }

    /// The processes of tunnels that still run.
    fn tunnels(&self) -> Vec<String> {
        let began = fs::read_dir(self.folder.path().join("state")).unwrap().flatten();
        let pids = began.filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("ssh-").map(str::to_owned)
        });
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("--as-ssh")
        })
        .collect()
    }

    /// No process, temporary file or key is left.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let left = || -> Vec<String> {
            let files = fs::read_dir(self.folder.path().join("tmp")).unwrap().flatten();
            let files = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
            self.tunnels().into_iter().chain(files).collect()
        };
        while !left().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(left().is_empty(), "left behind: {:?}", left());
    }

    fn secrets() -> [String; 5] {
        [
            PASSWORD.to_owned(),
            encoded(PASSWORD),
            ADMIN.1.to_owned(),
            encoded(ADMIN.1),
            TOKEN.to_owned(),
        ]
    }

    #[track_caller]
    fn assert_no_secret(&self, run: &Run) {
        let mut texts = vec![run.stdout.clone(), run.stderr.clone()];
        let mut folders = vec![self.root(), self.folder.path().join("home")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => {
                        texts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
                    }
                }
            }
        }
        for text in &texts {
            for secret in Self::secrets() {
                assert!(!text.contains(&secret), "a secret in: {text:.2000}");
            }
        }
    }

    /// Exact and verified.
    #[track_caller]
    fn assert_complete(&self) {
        let archive = Archive::open(self.root());
        assert!(archive.is_sealed());
        run(self.command(&["verify", self.root().to_str().unwrap()])).expect(0);
        archive.validate_as_bag();
        for table in ["db.public.t", "db.goods"] {
            let rows = archive.rows(table);
            assert_eq!(rows.len(), ROWS, "{table}");
            let ids: BTreeSet<&String> = rows.iter().map(|row| &row["id"]).collect();
            assert_eq!(ids.len(), ROWS, "{table}");
        }
        assert_eq!(archive.rows("other.u").len(), 1);
        assert_eq!(archive.rows("db.autogen.cpu").len(), ROWS);
        let dumps: Value = serde_json::from_str(&archive.text("catalog/dumps.json")).unwrap();
        let dump = &dumps.as_array().unwrap()[0];
        assert_eq!(
            (&dump["source"], &dump["complete"]),
            (&"production.cache".into(), &true.into())
        );
        let names: BTreeSet<String> =
            archive.catalog().iter().map(|t| t["source"].as_str().unwrap().to_owned()).collect();
        let expected = ["production.main", "production.metrics", "production.shop"];
        assert_eq!(names, expected.map(str::to_owned).into());
    }
}

/// Looks for secrets among the arguments of all processes, until it is stopped.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !shared.load(Ordering::SeqCst) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if Account::secrets().iter().any(|secret| line.contains(secret)) {
                        seen.push(line);
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { stop, thread }
    }

    #[track_caller]
    fn assert_none(self) {
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.thread.join().unwrap();
        assert!(seen.is_empty(), "secrets among arguments: {seen:?}");
    }
}

#[test]
fn all_of_an_environment_while_each_tunnel_is_lost_once() {
    let mut account = Account::new();
    for (handle, bytes) in
        [("main", 500_000), ("shop", 500_000), ("metrics", 30_000), ("cache", 100_000)]
    {
        account.database(handle)["cut_after"] = bytes.into();
    }
    account.save();
    let watch = Watch::start();
    let config = account.folder.path().join("moveout.toml");
    fs::write(&config, "idle_timeout = \"20s\"\n[[source]]\nurl = \"aptible:production\"\n")
        .unwrap();
    let log = account.folder.path().join("home/log");
    let more = ["--config", config.to_str().unwrap(), "-vv", "--log-file", log.to_str().unwrap()];
    let export = account.run("export", &more).expect(0);
    watch.assert_none();
    for handle in ["main", "shop", "metrics", "cache"] {
        let cut = account.state_file(&format!("cut-production.{handle}"));
        assert!(cut.exists(), "the tunnel of {handle} was never lost\n{}", export.stdout);
    }
    account.assert_nothing_is_left();
    account.assert_no_secret(&export);
    account.assert_complete();
    let run_json = Archive::open(account.root()).text("catalog/run.json");
    assert!(run_json.contains("aptible:production/main"), "{run_json}");
}

#[test]
fn a_run_that_is_killed_leaves_nothing_behind_and_the_next_one_completes_it() {
    let account = Account::new();
    let root = account.root();
    let mut killed = account.command(&[
        "export",
        "--source",
        "aptible:production",
        "--archive",
        root.to_str().unwrap(),
        "--concurrency",
        "1",
    ]);
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let commits = root.join(".moveout/commits");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !commits.exists() && killed.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!Archive::open(&root).is_sealed(), "it was killed too late");
    account.assert_nothing_is_left();
    let export = account.run("export", &["--source", "aptible:production"]).expect(0);
    account.assert_nothing_is_left();
    account.assert_no_secret(&export);
    account.assert_complete();
}

#[test]
fn a_tunnel_that_ends_at_its_limit_or_does_not_come_up_at_once_is_opened_again() {
    let mut account = Account::new();
    account.database("main")["fail_first"] = 2.into();
    account.database("shop")["limit_seconds"] = 3.into();
    account.save();
    let export = account.run("export", &["--source", "aptible:production"]).expect(0);
    account.assert_no_secret(&export);
    account.assert_nothing_is_left();
    account.assert_complete();
}

#[test]
fn what_is_to_be_exported_by_hand_fails_by_name_until_it_is_left_out() {
    let mut account = Account::new();
    for (handle, kind) in [
        ("jobs", "rabbitmq"),
        ("search", "elasticsearch"),
        ("docs", "couchdb"),
        ("files", "sftp"),
        ("new", "surrealdb"),
    ] {
        account.add(handle, kind, "production");
    }
    account.add("aws:rds::legacy", "", "production");
    account.add("starting", "postgresql", "production");
    account.database("starting")["status"] = "pending".into();
    account.state["orphaned"] = json!([{
        "id": 77, "description": "77: …", "created_at": "2025-01-01T00:00:00Z", "region": "us-east-1", "size": 3.0,
        "manual": false, "database": {"id": 5, "handle": "old", "type": "postgresql", "deleted_at": "2025-02-01T00:00:00Z",
        "environment": {"id": 1, "handle": "production", "created_at": "2023-01-01T00:00:00Z"}}
    }]);
    account.save();
    let by_hand = ["aws:rds::legacy", "docs", "files", "jobs", "new", "search", "starting"];
    let names = |failed: &Value| -> Vec<String> {
        let failed = failed.as_array().unwrap().iter();
        let mut names: Vec<String> =
            failed.map(|failed| failed["source"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let expected = by_hand.map(|handle| format!("production.{handle}"));

    let plan = account.run("plan", &["--source", "aptible:production", "--json"]).expect(1).json();
    assert_eq!(names(&plan["failed"]), expected);
    let inventory = &plan["aptible"];
    assert_eq!(inventory["databases"].as_array().unwrap().len(), 11);
    let main = &inventory["databases"][0];
    assert_eq!((&main["source"], &main["how"]), (&"production.main".into(), &"Parquet".into()));
    assert_eq!(
        main["backups"],
        json!({"count": 2, "oldest": "2026-03-01T00:00:00Z", "newest": "2026-03-02T00:00:00Z"})
    );
    let orphan = &inventory["orphaned"][0];
    assert_eq!(
        (&orphan["handle"], &orphan["restore"]),
        (&"old".into(), &"aptible backup:restore 77".into())
    );
    let plan = account.run("plan", &["--source", "aptible:production"]).expect(1);
    for text in [
        "cache: redis 7.2",
        "native dump (RDB)",
        "aptible backup:restore 77",
        "billed",
        "disk of 10 GB",
    ] {
        assert!(plan.stdout.contains(text), "{text} is not in\n{}", plan.stdout);
    }
    let asked = fs::read_to_string(account.state_file("asked")).unwrap();
    assert!(!asked.contains("restore") && !asked.contains("deprovision"), "{asked}");

    let export = account.run("export", &["--source", "aptible:production", "--json"]).expect(1);
    let summary = export.json();
    assert_eq!(names(&summary["failed"]), expected);
    let complete = summary["sources"].as_array().unwrap().iter();
    assert_eq!(complete.filter(|source| source["status"] == "complete").count(), 4);
    let todo = |handle: &str| {
        let sources = summary["sources"].as_array().unwrap();
        let of = sources.iter().find(|s| s["source"] == format!("production.{handle}")).unwrap();
        of["todo"].as_str().unwrap().to_owned()
    };
    assert!(
        todo("jobs").contains("aptible db:tunnel jobs --environment production --type management")
    );
    assert!(todo("jobs").contains("It has no messages"));
    assert!(todo("search").contains("elasticdump"));
    assert!(!Archive::open(account.root()).is_sealed());
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("1 backup of deprovisioned databases (old)"), "{warnings}");

    let config = account.folder.path().join("moveout.toml");
    let exclude = "exclude = [\"jobs\", \"production.search\", \"docs\", \"files\", \"new\", \"aws:*\", \"start*\"]";
    fs::write(&config, format!("[[source]]\nurl = \"aptible:production\"\n{exclude}\n")).unwrap();
    let export = account.run("export", &["--config", config.to_str().unwrap()]).expect(0);
    assert!(
        export.stdout.contains("of production.jobs: left out by `exclude`"),
        "{}",
        export.stdout
    );
    // The backups of a database that is gone stand in the way until somebody leaves them out.
    let verify = |exclude: &str| {
        fs::write(&config, format!("[[source]]\nurl = \"aptible:production\"\n{exclude}\n"))
            .unwrap();
        let root = account.root();
        let args = ["verify", root.to_str().unwrap(), "--against-source", "--json", "--config"];
        let args: Vec<&str> = args.into_iter().chain([config.to_str().unwrap()]).collect();
        let report = run(account.command(&args)).json();
        (report["open"].to_string(), report["excluded"].to_string())
    };
    let (open, _) = verify(exclude);
    assert!(
        open.contains("production.old") && open.contains("aptible backup:restore 77"),
        "{open}"
    );
    let (open, excluded) = verify(&exclude.replace(']', ", \"old\"]"));
    assert!(!open.contains("production.old"), "{open}");
    assert!(excluded.contains("1 backup of production.old"), "{excluded}");
    account.assert_no_secret(&export);
    account.assert_complete();
    let run_json = Archive::open(account.root()).text("catalog/run.json");
    assert!(run_json.contains("production.search"), "what is left out is recorded");
}

#[test]
fn one_database_and_all_environments() {
    let mut account = Account::new();
    account.add("queue", "rabbitmq", "staging");
    account.save();
    let one =
        account.run("export", &["--source", "aptible:production/metrics", "--json"]).expect(0);
    let one = one.json();
    assert_eq!(
        (&one["sources"][0]["source"], &one["rows"]),
        (&"production.metrics".into(), &ROWS.into())
    );
    let root = account.root();
    // By what the archive says of its source.
    let proof = account.command(&["verify", root.to_str().unwrap(), "--against-source"]);
    let proof = run(proof).expect(0);
    account.assert_no_secret(&proof);
    let doctor = account.run("doctor", &["--source", "aptible:"]).expect(1);
    for name in [
        "production.main",
        "production.shop",
        "production.metrics",
        "production.cache",
        "staging.queue",
    ] {
        assert!(doctor.stdout.contains(&format!("{name}\n")), "{name}: {}", doctor.stdout);
    }
    assert_eq!(doctor.stdout.matches("ok       reach").count(), 4, "{}", doctor.stdout);
    account.assert_nothing_is_left();
}

#[test]
fn each_failure_of_the_cli_says_what_to_do() {
    let mut account = Account::new();
    let source = |source: &str| ["--source".to_owned(), source.to_owned()];
    let export = |account: &Account, of: &str, change: &dyn Fn(&mut Command)| {
        let root = account.root();
        let mut args =
            vec!["export".to_owned(), "--archive".to_owned(), root.display().to_string()];
        args.extend(source(of));
        let mut command = account.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        change(&mut command);
        let run = run(command).expect(1);
        assert!(!account.root().exists(), "nothing was begun");
        run.stderr
    };
    let nothing = |_: &mut Command| {};
    let said = export(&account, "aptible:production", &|command| {
        command.env_remove("APTIBLE_ACCESS_TOKEN");
    });
    assert!(
        said.contains("Could not read token") && said.contains("run `aptible login`"),
        "{said}"
    );
    let said = export(&account, "aptible:production", &|command| {
        command.env("APTIBLE_ACCESS_TOKEN", "old");
    });
    assert!(said.contains("12 hours with a second factor"), "{said}");
    let said = export(&account, "aptible:nowhere", &nothing);
    assert!(said.contains("there is no such environment"), "{said}");
    let said = export(&account, "aptible:production/mian", &nothing);
    assert!(said.contains("there is no database `mian`") && said.contains("`main`"), "{said}");
    let said = export(&account, "aptible:production", &|command| {
        command.env("PATH", Path::new("/nonexistent"));
    });
    assert!(
        said.contains("`aptible` cannot be run") && said.contains("install Aptible's CLI"),
        "{said}"
    );
    account.database("main")["credentials"][0]["default"] = false.into();
    account.save();
    let said = export(&account, "aptible:production/main", &nothing);
    assert!(said.contains("No default credential") && said.contains("Aptible's support"), "{said}");
    account.assert_nothing_is_left();
}

impl Account {
    /// The processes of the CLI that hold a tunnel.
    fn clis(&self) -> Vec<String> {
        let program = self.folder.path().join("bin/aptible").display().to_string();
        let is_cli = |pid: &String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&program) && line.contains("db:tunnel")
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
        pids.filter(|name| name.parse::<u32>().is_ok()).filter(is_cli).collect()
    }

    fn spawn(&self) -> std::process::Child {
        let root = self.root();
        let args =
            ["export", "--source", "aptible:production", "--archive", root.to_str().unwrap()];
        self.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until so many tunnels are there.
    #[track_caller]
    fn wait_for_tunnels(&self, run: &mut std::process::Child, most: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.tunnels().len() < most {
            assert!(run.try_wait().unwrap().is_none() && Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_user_who_stops_leaves_nothing_behind() {
    for signal in ["INT", "TERM"] {
        let account = Account::new();
        let mut run = account.spawn();
        account.wait_for_tunnels(&mut run, 2);
        assert!(support::program::signal(&run, signal));
        assert_eq!(run.wait().unwrap().code(), Some(130));
        account.assert_nothing_is_left();
    }
}

/// SIGTERM ends the CLI without a word to its ssh, which goes on forwarding.
#[test]
fn what_a_cli_leaves_behind_that_is_terminated_ends_with_the_run() {
    let account = Account::new();
    let mut run = account.spawn();
    account.wait_for_tunnels(&mut run, 4);
    let clis = account.clis();
    assert!(!clis.is_empty());
    for pid in &clis {
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-s", "TERM", pid]).status().unwrap();
    }
    assert!(run.wait().unwrap().success());
    account.assert_nothing_is_left();
    account.assert_complete();
}
