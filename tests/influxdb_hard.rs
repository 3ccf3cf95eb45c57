//! An InfluxDB 1.x that makes it hard: somebody writes to it while it is exported, no query can say some of its
//! names, its answers have no end. What it has is in the archive, exactly, or the run says what is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value as Json;
use support::influxd::READER;
use support::{
    Archive, Influxd, Model, Options, Point, Proxy, Run, Value, assert_rows, command, run,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01, a Monday, when a shard begins.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
/// No float has all of its digits.
const ODD: i64 = (1 << 53) + 1;

fn is_read(query: &str) -> bool {
    query.starts_with("SELECT ") && query.ends_with("GROUP BY *")
}

fn reads_of(table: &'static str) -> impl Fn(&str) -> bool + Send + Clone {
    move |query| is_read(query) && query.contains(&format!(".\"{table}\" "))
}

/// A server with a user who may not see shards, a proxy before it, and a place for an archive.
struct Setting {
    server: Arc<Influxd>,
    proxy: Proxy,
    folder: TempDir,
    model: Model,
}

impl Setting {
    fn new() -> Self {
        let server = Influxd::start_with(Options { auth: true, ..Options::default() });
        server.query("CREATE DATABASE d");
        server.grant_reader("d");
        let proxy = Proxy::before(&server);
        let folder = TempDir::with_prefix("writers-").unwrap();
        Self { server: Arc::new(server), proxy, folder, model: Model::default() }
    }

    fn write(&mut self, point: Point) {
        self.server.write("d", "", &point.line());
        self.model.push(point);
    }

    /// Writes it before the server sees the first query that matches, and never again.
    fn write_before(&mut self, matches: impl Fn(&str) -> bool + Send + 'static, point: Point) {
        let (server, line) = (Arc::clone(&self.server), point.line());
        self.proxy.before_each(matches, 1, move || server.write("d", "", &line));
        self.model.push(point);
    }

    /// The next export makes an archive of its own.
    fn forget_archive(&self) {
        fs::remove_dir_all(self.folder.path().join("a")).unwrap();
    }

    fn archive(&self) -> Archive {
        Archive::open(self.folder.path().join("a"))
    }

    fn export(&self, (user, password): (&str, &str), more: &[&str]) -> Run {
        let path = self.folder.path().join("a");
        let source = self.proxy.url();
        let args = ["export", "--json", "--concurrency", "1", "--source", &source, "--archive"];
        let mut command = command(args);
        command.arg(path).args(more);
        command.env("INFLUX_USERNAME", user).env("INFLUX_PASSWORD", password);
        run(command)
    }

    #[track_caller]
    fn assert_complete(&self) {
        let archive = self.archive();
        for name in self.model.measurements() {
            assert_rows(&archive.rows(&name), &self.model.rows(&name));
        }
        support::moveout(["verify", self.folder.path().join("a").to_str().unwrap()]).expect(0);
    }
}

fn warnings(summary: &Json) -> String {
    summary["warnings"].to_string()
}

// In each of these pairs the server shows the first, with the second cast to it or left out, where both
// stand in one window; and it never says so.
#[test]
fn a_type_that_another_one_hides_is_found_before_the_seal() {
    for (old, new) in [
        (Value::Float(0.5), Value::String("kept".to_owned())),
        (Value::Float(0.5), Value::Integer(ODD)),
        (Value::Integer(ODD), Value::Boolean(true)),
        (Value::String("old".to_owned()), Value::Boolean(false)),
    ] {
        let mut setting = Setting::new();
        for day in 0..30 {
            setting.write(Point::new("m", NEW_YEAR + day * DAY).field("v", old.clone()));
        }
        setting.write(Point::new("m", NEW_YEAR + 80 * DAY).field("v", old));
        setting.write(Point::new("a", NEW_YEAR - DAY).field("v", Value::Integer(1)));
        // A shard of its own, in the middle of a window that is read afterwards.
        let late = Point::new("m", NEW_YEAR + 50 * DAY).tag("t", "x").field("v", new);
        setting.write(Point::new("m", NEW_YEAR).tag("t", "y").field("w", Value::Boolean(true)));
        setting.write_before(reads_of("a"), late);
        setting.export(support::influxd::ADMIN, &["--window", "100d"]).expect(0);
        setting.assert_complete();
    }
}

// Names are named there, so that one which came since the listing is not asked for.
#[test]
fn a_field_that_comes_while_a_table_of_several_types_is_read_is_found_before_the_seal() {
    let mut setting = Setting::new();
    for day in 0..20 {
        let value = if day < 10 { Value::Integer(day) } else { Value::String("s".to_owned()) };
        setting.write(Point::new("m", NEW_YEAR + 7 * day * DAY).field("v", value));
    }
    for (day, name) in [(3, "x"), (45, "y z")] {
        let late = Point::new("m", NEW_YEAR + day * DAY).field(name, Value::Float(1.5));
        setting.write_before(reads_of("m"), late);
    }
    setting.export(READER, &["--window", "30d"]).expect(0);
    setting.assert_complete();
    // The windows in which no new field has a value are not read again.
    let reads: Vec<_> =
        setting.proxy.queries().into_iter().filter(|query| is_read(query)).collect();
    assert!(reads.len() < 26, "{reads:#?}");
}

// A killed run has listed and read, and has not looked again.
#[test]
fn what_a_run_missed_that_did_not_end_is_found_by_the_next_one() {
    let mut setting = Setting::new();
    for day in [0, 1, 80] {
        setting.write(Point::new("m", NEW_YEAR + day * DAY).field("v", Value::Float(0.5)));
    }
    setting.write(Point::new("z", NEW_YEAR + 90 * DAY).field("v", Value::Integer(1)));
    let late = Point::new("m", NEW_YEAR + 50 * DAY).field("v", Value::String("kept".to_owned()));
    setting.write_before(reads_of("m"), late);
    let gone = support::Fault::Status { code: 401, headers: Vec::new(), body: String::new() };
    setting.proxy.fault(reads_of("z"), 1, gone);
    setting.export(support::influxd::ADMIN, &["--window", "100d"]).expect(1);
    assert!(!setting.archive().is_sealed());
    setting.export(support::influxd::ADMIN, &["--window", "100d"]).expect(0);
    setting.assert_complete();
}

#[test]
fn a_table_that_never_settles_is_named() {
    let mut setting = Setting::new();
    for (day, value) in [(0, Value::Integer(1)), (7, Value::Float(0.5))] {
        setting.write(Point::new("m", NEW_YEAR + day * DAY).field("v", value));
    }
    let (server, number) = (Arc::clone(&setting.server), AtomicI64::new(0));
    setting.proxy.before_each(is_read, usize::MAX, move || {
        let number = number.fetch_add(1, Ordering::SeqCst);
        server.write("d", "", &format!("m new{number}=1 {}", NEW_YEAR + number));
    });
    let run = setting.export(READER, &[]).expect(3);
    let summary = run.json();
    let error = summary["error"].as_str().unwrap();
    assert!(error.contains("d.autogen.m") && error.contains("changing"), "{error}");
    assert!(summary["hint"].as_str().unwrap().contains("writers"), "{summary}");
    assert!(!setting.archive().is_sealed());
}

#[test]
fn tables_that_come_and_go_during_a_run_are_named() {
    let mut setting = Setting::new();
    for name in ["a", "b", "c"] {
        setting.write(Point::new(name, NEW_YEAR).field("v", Value::Integer(1)));
    }
    let server = Arc::clone(&setting.server);
    setting.proxy.before_each(reads_of("a"), 1, move || {
        server.write("d", "", &format!("new v=1 {NEW_YEAR}"));
        server.query_in("d", "DROP MEASUREMENT b");
    });
    let summary = setting.export(support::influxd::ADMIN, &[]);
    let summary = summary.expect(0).json();
    let warnings = warnings(&summary);
    assert!(warnings.contains("d.autogen.new") && warnings.contains("d.autogen.b"), "{warnings}");
    assert!(!warnings.contains("d.autogen.c"), "{warnings}");
    // The next run takes what is new, and says nothing of it any more.
    let summary = setting.export(support::influxd::ADMIN, &[]).expect(0).json();
    assert_eq!(summary["warnings"], serde_json::json!([]));
    assert_eq!(setting.archive().rows("new").len(), 1);
}

#[test]
fn a_run_is_interrupted_while_it_lists_again() {
    let mut setting = Setting::new();
    setting.write(Point::new("m", NEW_YEAR).field("v", Value::Integer(1)));
    let hang = support::Fault::Stall { after: 0, pause: std::time::Duration::from_secs(60) };
    // The first listing asks this once for the policy.
    let asked = AtomicI64::new(0);
    let again = move |query: &str| {
        query.starts_with("SHOW TAG KEYS") && asked.fetch_add(1, Ordering::SeqCst) > 0
    };
    setting.proxy.fault(again, 1, hang);
    let path = setting.folder.path().join("a");
    let mut command = command(["export", "--source", &setting.proxy.url(), "--archive"]);
    let (user, password) = support::influxd::ADMIN;
    command.arg(path).env("INFLUX_USERNAME", user).env("INFLUX_PASSWORD", password);
    let mut child = command.spawn().unwrap();
    while setting.proxy.queries().iter().filter(|q| q.starts_with("SHOW TAG KEYS")).count() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended without listing again");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    support::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!setting.archive().is_sealed());
}

#[test]
fn names_that_no_query_can_quote_are_read_all_the_same() {
    let mut setting = Setting::new();
    for (day, name) in ["cr\rx", "nul\0x", "_name", "/re/.*", "x", "tab\tx"].iter().enumerate() {
        let time = NEW_YEAR + day as i64 * DAY;
        let point = Point::new(name, time).tag("t\r", "a\0b").field("v\0w", Value::Float(0.5));
        setting.write(point);
        setting.write(Point::new(name, time + 40 * DAY).field("n\r", Value::Integer(ODD)));
    }
    setting.export(READER, &["--window", "7d"]).expect(0);
    setting.assert_complete();
    setting.forget_archive();
    let counted = setting.export(READER, &["--from", "2024-01-01T00:00:01Z", "--to", "2024-01-02"]);
    assert_eq!(counted.expect(0).json()["outside"][0]["count"]["exact"], true);
}

/// What the summary says of tables that failed.
fn failures(summary: &Json) -> Vec<String> {
    let failed = summary["failed"].as_array().unwrap().iter();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    failed.map(|f| format!("{}: {}", text(&f["chunk"]), text(&f["error"]))).collect()
}

// Each of them is there, and a query returns nothing, or only a part.
#[test]
fn tables_that_no_query_reads_fail_by_name_and_alone() {
    let mut setting = Setting::new();
    setting.write(Point::new("good", NEW_YEAR).field("v", Value::Float(0.5)));
    let write = |lines: &[u8]| setting.server.write_raw("d", lines);
    write(b"h\\\\\\,x,t=1 v=1 1");
    write(b"caf\xe9 v=1 1");
    write(b"_series v=1 1");
    // The fields of a table of several types are asked for by their names.
    write(format!("both v=1,c\rr=1 1\nboth v=\"s\",c\rr=1 {NEW_YEAR}").as_bytes());
    let summary = setting.export(READER, &[]).expect(1).json();
    let failed = failures(&summary);
    for (table, why) in [
        ("d.autogen.h\\,x", "no field"),
        ("d.autogen.caf\u{fffd}", "no query finds a row"),
        ("d.autogen._series", "no query finds a row"),
        ("d.autogen.both", "c\\rr"),
    ] {
        let found = failed.iter().find(|failed| failed.starts_with(table));
        let found = found.unwrap_or_else(|| panic!("{table} is not in {failed:#?}"));
        assert!(found.contains(why) && found.contains("influx_inspect export"), "{found}");
    }
    assert_eq!(failed.len(), 4, "{failed:#?}");
    assert_eq!(setting.archive().rows("good").len(), 1);
    assert!(!setting.archive().is_sealed());
    // Left out by name, they are no failure any more.
    setting.forget_archive();
    let config = setting.folder.path().join("c.toml");
    let url = setting.proxy.url();
    let text = format!(
        "[[source]]\nname = \"s\"\nurl = \"{url}\"\nexclude = [\"h*\", \"caf*\", \"_series\", \"both\"]\n"
    );
    fs::write(&config, text).unwrap();
    let path = setting.folder.path().join("a");
    let mut command = command(["export", "--config", config.to_str().unwrap(), "--archive"]);
    command.arg(path).env("INFLUX_USERNAME", READER.0).env("INFLUX_PASSWORD", READER.1);
    run(command).expect(0);
    setting.assert_complete();
}

#[test]
fn an_answer_that_never_ends_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("influxdb+http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || endless(client.unwrap()));
        }
    });
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    let run = support::moveout(["export", "--source", &url, "--archive", path.to_str().unwrap()]);
    let run = run.expect(1);
    assert!(run.stderr.contains("listing the databases"), "{}", run.stderr);
    assert!(run.stderr.contains("more than 256 MiB"), "{}", run.stderr);
}

/// Answers as a 1.x server that is asked what it is, and everything else with white space for ever.
fn endless(mut client: std::net::TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let read = client.read(&mut head)?;
    if head[..read].starts_with(b"GET /ping") {
        let answer =
            "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.10\r\nConnection: close\r\n\r\n";
        return client.write_all(answer.as_bytes());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
    let spaces = vec![b' '; 1 << 20];
    loop {
        client.write_all(&spaces)?;
    }
}
