//! Many sources in one run: side by side, under one limit, and none of them stops the others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use insta::{Settings, assert_snapshot};
use moveout::commands::doctor::doctor;
use moveout::commands::export::export;
use moveout::commands::plan::preview;
use moveout::config::{Job, Location};
use moveout::error::{Class, Error, Exit};
use moveout::export::summary::{ExportStatus, SourceStatus, Summary};
use moveout::progress::Progress;
use serde_json::Value;
use support::memory::{Handle, Memory};
use support::scripted::{job_of, numbers};
use support::{
    Archive, Influxd, MariaDb, Play, Postgres, Question, Run, Scripted, command, moveout, run,
};
use tempfile::TempDir;
use tokio::sync::watch;

const HOUR: i64 = 3_600_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// A port that takes connections and says nothing, until it is told to lead to a server.
struct Silent {
    address: SocketAddr,
    answers: Arc<AtomicBool>,
}

impl Silent {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&answers);
        thread::spawn(move || {
            let mut held = Vec::new();
            for client in listener.incoming().flatten() {
                if !shared.load(Ordering::SeqCst) {
                    held.push(client);
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                for (mut from, mut to) in [(&client, &server), (&server, &client)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        Self { address, answers }
    }

    fn answer(&self) {
        self.answers.store(true, Ordering::SeqCst);
    }
}

/// Fifty sources: files and databases of real servers, one that hangs and one with a wrong password.
struct Fifty {
    folder: TempDir,
    postgres: Postgres,
    mariadb: MariaDb,
    influxd: Influxd,
    silent: Silent,
}

/// Of line protocol; besides, there are two databases of PostgreSQL, one of MariaDB and one of InfluxDB.
const FILES: usize = 44;
const ROWS: usize = 10;

impl Fifty {
    fn new() -> Self {
        let folder = TempDir::with_prefix("many-").unwrap();
        for number in 0..FILES {
            let lines = (0..ROWS).fold(String::new(), |mut lines, row| {
                writeln!(lines, "m{number} v={row}i {}", NEW_YEAR + row as i64 * HOUR).unwrap();
                lines
            });
            fs::write(folder.path().join(format!("{number:02}.lp")), lines).unwrap();
        }
        let (postgres, mariadb) = (Postgres::start(), MariaDb::start());
        let influxd = Influxd::start();
        for database in ["a", "b", "c"] {
            postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
            let table = "CREATE TABLE t (v int); INSERT INTO t SELECT generate_series(1, 10);";
            postgres.sql(database, table);
        }
        mariadb.sql("mysql", "CREATE DATABASE d; CREATE TABLE d.t (v int); INSERT INTO d.t VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10);");
        let points = |table: &str| -> String {
            (0..ROWS)
                .map(|row| format!("{table} v={row}i {}\n", NEW_YEAR + row as i64 * HOUR))
                .collect()
        };
        for database in ["early", "late"] {
            influxd.query(&format!("CREATE DATABASE {database}"));
        }
        influxd.write("early", "autogen", &points("cpu"));
        influxd.write("late", "autogen", &points("mem"));
        let silent = Silent::before(influxd.address());
        Self { folder, postgres, mariadb, influxd, silent }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn config(&self) -> PathBuf {
        let mut text =
            "concurrency = 4\nidle_timeout = \"1s\"\nattempts = 2\npatience = \"3s\"\n".to_owned();
        let mut source = |name: &str, url: &str, more: &str| {
            writeln!(text, "[[source]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}").unwrap();
        };
        // The ones that fail come first: nobody waits behind them.
        source("hangs", &format!("influxdb+http://{}/late", self.silent.address), "");
        let postgres = |database: &str| {
            format!("postgres://admin@127.0.0.1:{}/{database}", self.postgres.port())
        };
        source("locked", &postgres("c"), "password = { env = \"LOCKED\" }");
        source("postgres-a", &postgres("a"), "password = { env = \"PASSWORD\" }");
        source("postgres-b", &postgres("b"), "password = { env = \"PASSWORD\" }");
        let mysql = format!("mysql://admin@127.0.0.1:{}/d", self.mariadb.port());
        source("mariadb", &mysql, "password = { env = \"PASSWORD\" }");
        source("influxdb", &format!("{}/early", self.influxd.url()), "");
        for number in 0..FILES {
            source(&format!("file-{number:02}"), &format!("lp:{number:02}.lp"), "");
        }
        let path = self.folder.path().join("moveout.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, verb: &str, locked: &str, more: &[&str]) -> Run {
        let (config, root) = (self.config(), self.root());
        let mut command = command([verb, "--config", config.to_str().unwrap()]);
        command.args(["--archive", root.to_str().unwrap()]).args(more);
        command.env("LOCKED", locked).env("PASSWORD", self.postgres.password());
        run(command)
    }
}

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings::clone_current();
    settings.add_filter(folder.to_str().unwrap(), "[FOLDER]");
    settings.add_filter(r"\b\d+(\.\d+)? (B|KiB|MiB)\b", "[SIZE]");
    settings.add_filter(r"\b\d+\.\d s\b|\b\d+ s\b", "[TIME]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[ADDRESS]");
    settings
}

fn of<'a>(summary: &'a Value, source: &str) -> &'a Value {
    let sources = summary["sources"].as_array().unwrap();
    sources.iter().find(|entry| entry["source"] == source).unwrap()
}

#[test]
fn fifty_sources_of_which_one_hangs_and_one_has_a_wrong_password() {
    let fifty = Fifty::new();
    let wrong = "n0t the p4ssword";

    let doctor = fifty.run("doctor", wrong, &[]).expect(1);
    let plan = fifty.run("plan", wrong, &["--json"]).expect(1).json();
    let names = |failed: &Value| -> Vec<String> {
        let failed = failed.as_array().unwrap().iter();
        failed.map(|failed| failed["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&plan["failed"]), ["hangs", "locked"]);
    assert_eq!(plan["sources"].as_array().unwrap().len(), 48);
    for name in ["hangs", "locked"] {
        let reach = doctor.stdout.split(&format!("{name}\n")).nth(1).unwrap();
        assert!(reach.trim_start().starts_with("failed"), "{}", doctor.stdout);
    }
    assert_eq!(doctor.stdout.matches("ok       reach").count(), 48, "{}", doctor.stdout);

    let first = fifty.run("export", wrong, &["--json"]).expect(1);
    let summary = first.json();
    assert_eq!(summary["status"], "incomplete");
    assert_eq!(names(&summary["failed"]), ["hangs", "locked"]);
    assert_eq!(of(&summary, "hangs")["status"], "incomplete", "it may come back");
    assert_eq!(of(&summary, "locked")["status"], "failed");
    for name in ["hangs", "locked"] {
        let source = of(&summary, name);
        assert!(source["error"].as_str().is_some_and(|error| !error.is_empty()), "{source}");
        assert_eq!((&source["rows"], &source["tables"]), (&0.into(), &0.into()));
    }
    let complete = summary["sources"].as_array().unwrap().iter();
    let complete: Vec<_> = complete.filter(|source| source["status"] == "complete").collect();
    assert_eq!(complete.len(), 48);
    for source in complete {
        assert_eq!(source["rows_total"], ROWS, "{source}");
        assert_eq!(source["error"], Value::Null);
    }
    let archive = Archive::open(fifty.root());
    assert!(!archive.is_sealed());

    // What is there is not read again.
    let again = fifty.run("export", wrong, &[]).expect(1);
    settings(fifty.folder.path()).bind(|| assert_snapshot!("export", again.stdout));
    assert!(!again.stdout.contains(wrong) && !again.stderr.contains(wrong));
    let status = moveout(["status", fifty.root().to_str().unwrap()]).expect(0);
    assert!(
        status.stdout.contains("hangs, given up by the last run\n  failed     "),
        "{}",
        status.stdout
    );
    assert!(
        status.stdout.contains("locked, given up by the last run\n  failed     "),
        "{}",
        status.stdout
    );
    assert_eq!(status.stdout.matches(", complete\n").count(), 48, "{}", status.stdout);

    fifty.silent.answer();
    let last = fifty.run("export", fifty.postgres.password(), &["--json"]).expect(0).json();
    assert_eq!((&last["status"], &last["rows"]), (&"complete".into(), &(2 * ROWS).into()));
    assert_eq!(last["rows_total"], 50 * ROWS);
    assert!(archive.is_sealed());
    moveout(["verify", fifty.root().to_str().unwrap()]).expect(0);
    archive.validate_as_bag();
}

/// Tables of each of the two, of ten rows, which are one chunk each.
const TABLES: u64 = 12;

/// Two sources that do what a test wants, with concurrency 1.
struct Two {
    folder: TempDir,
    good: Arc<Scripted>,
    bad: Arc<Scripted>,
}

impl Two {
    fn new() -> Self {
        let rows: Vec<_> = (0..10).map(|i| (Some(NEW_YEAR + i * HOUR), i)).collect();
        let table = |number| numbers(&format!("t{number}"), &rows);
        let source = |name| Scripted::named(name, (0..TABLES).map(table));
        let folder = TempDir::with_prefix("two-").unwrap();
        Self { folder, good: source("good"), bad: source("bad") }
    }

    fn job(&self) -> Job {
        let archive = self.folder.path().join("a");
        let sources = [Arc::clone(&self.bad), Arc::clone(&self.good)];
        let mut job = job_of(&sources, archive.to_str().unwrap());
        job.limits.window = Some(10_000 * HOUR);
        job.limits.concurrency = 1;
        job.limits.attempts = 2;
        job.limits.patience = Duration::from_millis(300);
        job
    }

    async fn export(&self) -> Summary {
        let (_stop, stopped) = watch::channel(false);
        export(&self.job(), &Progress::silent(), stopped).await.unwrap()
    }

    fn is_sealed(&self) -> bool {
        Archive::open(self.folder.path().join("a")).is_sealed()
    }
}

/// All of `good` is there, `bad` ended so, and the next run completes it.
#[track_caller]
fn assert_went_on(two: &Two, summary: &Summary, status: SourceStatus, exit: Exit) {
    let of = |name: &str| summary.sources.iter().find(|source| source.source == name).unwrap();
    assert_eq!((of("good").status, of("good").rows_total), (SourceStatus::Complete, 10 * TABLES));
    assert_eq!(of("good").error, None);
    assert_eq!(of("bad").status, status);
    assert!(of("bad").error.is_some());
    assert_eq!((summary.status, summary.exit), (ExportStatus::Incomplete, exit));
    assert_eq!(summary.error, None, "it is the source's alone");
    assert!(!two.is_sealed());
}

async fn assert_completed(two: &Two) {
    two.bad.play(|_| None);
    two.good.take_asked();
    let summary = two.export().await;
    assert_eq!((summary.exit, summary.rows_total), (Exit::Done, 20 * TABLES));
    assert!(two.is_sealed());
    let reads = two.good.take_asked().into_iter().filter(|asked| asked.starts_with("read")).count();
    assert_eq!(reads, 0, "what is committed stays");
}

fn is_read(question: &Question) -> bool {
    matches!(question, Question::Read(_))
}

#[tokio::test]
async fn what_stops_one_source_stops_no_other() {
    for (error, status, exit) in [
        (Error::stop("no such user"), SourceStatus::Failed, Exit::Failed),
        (Error::incomplete("not now"), SourceStatus::Incomplete, Exit::Incomplete),
        (
            Error::of(Class::Retry, "the connection broke"),
            SourceStatus::Incomplete,
            Exit::Incomplete,
        ),
    ] {
        let two = Two::new();
        let (mut reads, of_read) = (0, error.clone());
        two.bad.play(move |question| {
            reads += u32::from(is_read(question));
            let is_away = reads > 3 && !matches!(question, Question::Count(..));
            is_away.then(|| Play::Fail(of_read.clone()))
        });
        let summary = two.export().await;
        assert_went_on(&two, &summary, status, exit);
        let bad = summary.sources.iter().find(|source| source.source == "bad").unwrap();
        assert!(bad.rows > 0, "what was committed of it before stays");
        assert_completed(&two).await;
    }
}

#[tokio::test]
async fn a_source_is_lost_at_any_question() {
    let mut asked = usize::MAX;
    let mut n = 1;
    while n <= asked {
        let two = Two::new();
        let mut count = 0;
        two.bad.play(move |_| {
            count += 1;
            (count >= n).then(|| Play::Fail(Error::stop("no such user")))
        });
        let summary = two.export().await;
        let asked_now = two.bad.asked().len();
        if asked_now < n {
            assert_eq!(summary.exit, Exit::Done, "nothing failed");
            asked = asked_now;
        } else {
            assert_went_on(&two, &summary, SourceStatus::Failed, Exit::Failed);
            assert_completed(&two).await;
        }
        n += 1;
    }
    assert!(asked > 10 && asked < 100, "{asked} questions");
}

#[tokio::test]
async fn a_source_that_waits_for_its_quota_holds_up_no_other() {
    let two = Two::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (of_bad, of_good) = (Arc::clone(&order), Arc::clone(&order));
    let mut first = true;
    two.bad.play(move |question| {
        if !is_read(question) {
            return None;
        }
        of_bad.lock().unwrap().push("bad");
        let pause = Class::Wait(Some(Duration::from_secs(2)));
        std::mem::take(&mut first).then(|| Play::Fail(Error::of(pause, "the quota is used up")))
    });
    two.good.play(move |question| {
        is_read(question).then(|| of_good.lock().unwrap().push("good"));
        None
    });
    assert_eq!(two.export().await.exit, Exit::Done);
    let order = order.lock().unwrap();
    let good = order.iter().filter(|name| **name == "good").count();
    let last_good = order.iter().rposition(|name| *name == "good").unwrap();
    let meanwhile = order[..last_good].iter().filter(|name| **name == "bad").count();
    assert!(good > 10 && meanwhile <= 1, "{order:?}");
}

/// Its reads take a long time and fail then, as those of a server that does not answer.
#[tokio::test]
async fn a_slow_source_gets_no_more_than_its_share() {
    let two = Two::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (of_bad, of_good) = (Arc::clone(&order), Arc::clone(&order));
    two.bad.play(move |question| {
        is_read(question).then(|| {
            of_bad.lock().unwrap().push("bad");
            Play::Wait(Duration::from_millis(50))
        })
    });
    two.good.play(move |question| {
        is_read(question).then(|| of_good.lock().unwrap().push("good"));
        None
    });
    assert_eq!(two.export().await.exit, Exit::Done);
    let order = order.lock().unwrap();
    let last_good = order.iter().rposition(|name| *name == "good").unwrap();
    let (good, bad) = order[..=last_good].iter().partition::<Vec<&str>, _>(|name| **name == "good");
    assert!(bad.len() <= good.len() + 2, "{order:?}");
}

#[tokio::test]
async fn where_no_source_answers_nothing_is_left_behind() {
    let two = Two::new();
    for source in [&two.good, &two.bad] {
        source.play(|_| Some(Play::Fail(Error::stop("no such user"))));
    }
    let summary = two.export().await;
    assert_eq!((summary.exit, summary.failed.len()), (Exit::Failed, 2));
    assert!(!two.folder.path().join("a").exists());
}

#[tokio::test]
async fn a_sealed_archive_stays_sealed_where_nothing_but_a_lost_source_is_left() {
    let two = Two::new();
    assert_eq!(two.export().await.exit, Exit::Done);
    let files = Archive::open(two.folder.path().join("a")).files();
    two.bad.play(|_| Some(Play::Fail(Error::stop("no such user"))));
    let summary = two.export().await;
    assert_eq!((summary.exit, summary.failed.len()), (Exit::Failed, 1));
    assert_eq!(Archive::open(two.folder.path().join("a")).files(), files);
}

#[tokio::test]
async fn the_users_wish_to_stop_ends_the_run_and_not_a_source() {
    let two = Two::new();
    let (stop, stopped) = watch::channel(false);
    two.bad.play(move |question| {
        is_read(question).then(|| {
            stop.send(true).unwrap();
            Play::Fail(Error::stop("no such user"))
        })
    });
    let summary = export(&two.job(), &Progress::silent(), stopped).await.unwrap();
    assert_eq!((summary.status, summary.exit), (ExportStatus::Interrupted, Exit::Interrupted));
    assert!(summary.failed.is_empty());
}

#[tokio::test]
async fn plan_and_doctor_name_what_fails_and_show_the_others() {
    let two = Two::new();
    two.bad.play(|_| Some(Play::Fail(Error::stop("no such user").hint("create it"))));
    let (_stop, stopped) = watch::channel(false);
    let plan = preview(&two.job(), &Progress::silent(), stopped.clone()).await.unwrap();
    assert_eq!(
        (plan.exit, plan.sources.len(), plan.tables.len()),
        (Exit::Failed, 1, TABLES as usize)
    );
    assert_eq!(plan.failed.len(), 1);
    assert_eq!((&*plan.failed[0].source, &*plan.failed[0].error), ("bad", "no such user"));
    let diagnosis = doctor(&two.job(), &Progress::silent(), stopped).await.unwrap();
    assert_eq!(diagnosis.exit, Exit::Failed);
    let of: Vec<&str> = diagnosis.checks.iter().map(|check| check.of.as_str()).collect();
    assert!(of.starts_with(&["bad", "good", "good"]), "in the order of the job: {of:?}");
}

/// Requests to the store and questions to the sources of a run, and of one that finds nothing to do.
async fn costs(number: usize) -> [usize; 4] {
    let rows = [(Some(NEW_YEAR), 1)];
    let source = |at: usize| Scripted::named(&format!("s{at}"), [numbers("t", &rows)]);
    let sources: Vec<Arc<Scripted>> = (0..number).map(source).collect();
    let store = Memory::new();
    let place = || Location::given("memory", Arc::new(Handle(Arc::clone(&store))));
    let mut costs = Vec::new();
    for _ in 0..2 {
        store.play(|_, _| None);
        let (_stop, stopped) = watch::channel(false);
        let job = job_of(&sources, place());
        let summary = export(&job, &Progress::silent(), stopped).await.unwrap();
        assert_eq!((summary.exit, summary.rows_total), (Exit::Done, number as u64));
        let asked: usize = sources.iter().map(|source| source.take_asked().len()).sum();
        costs.extend([store.asked().len(), asked]);
    }
    costs.try_into().unwrap()
}

#[tokio::test]
async fn costs_grow_linearly_with_the_sources() {
    let (few, many) = (costs(30).await, costs(120).await);
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= 4 * few + 40, "{few} for 30 sources, {many} for 120");
    }
}
