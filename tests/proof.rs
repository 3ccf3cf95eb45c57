//! How a proof asks: many windows by one request, and by fewer when the server refuses or the connection breaks. Whatever
//! happens on the way, the window that differs is named, and what could not be compared is never called safe.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Fault, Influxd, Kind, Options, Proxy, Relational, Run, command, moveout};
use tempfile::TempDir;

const START: i64 = 1_704_067_200_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

/// A measurement of 100 hours from 2024 on, exported in 25 windows of four hours at least.
struct Influx {
    server: Influxd,
    proxy: Proxy,
    folder: TempDir,
}

impl Influx {
    fn new(options: Options) -> Self {
        let server = Influxd::start_with(options);
        server.query("CREATE DATABASE plant");
        let lines: Vec<String> = (0..100)
            .map(|i| format!("pump,site=s{} flow={i}.5,count={i}i {}", i % 3, START + i * HOUR))
            .collect();
        server.write("plant", "", &lines.join("\n"));
        let proxy = Proxy::before(&server);
        let this = Self { server, proxy, folder: TempDir::new().unwrap() };
        let source = format!("{}/plant", this.proxy.url());
        let root = this.root();
        // Windows become wider as long as the server is fast, but none reaches beyond what is asked for.
        for hour in (4..=100).step_by(4) {
            let to = time(hour).format("%Y-%m-%dT%H:%M:%SZ").to_string();
            let args = ["export", "--source", &source, "--archive", &root, "--to", &to];
            moveout(args).expect(0);
        }
        this
    }

    fn root(&self) -> String {
        self.folder.path().join("archive").to_str().unwrap().to_owned()
    }

    fn verify(&self, status: i32) -> Value {
        let root = self.root();
        moveout(["verify", &root, "--against-source", "--json"]).expect(status).json()
    }

    /// How often values were counted since, of all windows of a request together.
    fn counted(&self, since: usize) -> usize {
        let queries = self.proxy.queries();
        queries[since..].iter().filter(|query| query.contains("count(*::field)")).count()
    }
}

fn time(hour: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_nanos(START + hour * HOUR)
}

fn open(report: &Value) -> BTreeSet<&str> {
    let open = report["open"].as_array().unwrap().iter();
    open.map(|open| open["what"].as_str().unwrap()).collect()
}

#[test]
fn the_windows_of_an_influxdb_are_counted_by_a_few_requests() {
    let influx = Influx::new(Options::default());
    let before = influx.proxy.queries().len();
    let report = influx.verify(0);
    let compared = report["compared"]["counts"].as_u64().unwrap();
    assert!(compared >= 25, "{report}");
    let counted = influx.counted(before);
    assert!(counted < 5, "{counted} requests for {compared} windows");

    // One point more or less, at any place: its window alone is named.
    for (hour, nanos) in [(0, 0), (1, 1), (37, HOUR - 1), (50, 0), (99, 0)] {
        let late = START + hour * HOUR + nanos;
        influx.server.write("plant", "", &format!("pump,site=late flow=1 {late}"));
        let report = influx.verify(4);
        let open = open(&report);
        let name = time(hour / 4 * 4).format("%Y%m%dT%H").to_string();
        assert_eq!(open.len(), 1, "{report}");
        let named = open.first().unwrap();
        assert!(named.starts_with(&format!("plant.autogen.pump {name}")), "{name}: {named}");
        influx.server.query_in("plant", "DELETE FROM pump WHERE site = 'late'");
    }
    influx.verify(0);
}

#[test]
fn a_server_that_refuses_many_windows_is_asked_for_each() {
    let influx = Influx::new(Options {
        settings: vec![("INFLUXDB_COORDINATOR_MAX_SELECT_BUCKETS", "10")],
        ..Options::default()
    });
    let report = influx.verify(0);
    assert!(report["compared"]["counts"].as_u64().unwrap() >= 25, "{report}");
    influx.server.write("plant", "", &format!("pump flow=1 {}", START + 7 * HOUR + 1));
    let report = influx.verify(4);
    assert_eq!(open(&report).len(), 1, "{report}");
    assert!(report["open"].to_string().contains("pump 20240101T04"), "{report}");
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_proof_changes_no_verdict() {
    let influx = Influx::new(Options::default());
    influx.server.write("plant", "", &format!("pump flow=1 {}", START + 7 * HOUR + 1));
    let faults = [
        Fault::Close,
        Fault::Reset { after: 40 },
        Fault::Cut { after: 40 },
        Fault::Truncate { after: 40 },
        Fault::KeepObjects(0),
        Fault::busy(503, 0),
        Fault::AppendError("timeout".to_owned()),
    ];
    for fault in faults {
        let before = influx.proxy.fired();
        influx.proxy.fault(|query| query.contains("GROUP BY time("), 1, fault.clone());
        let report = influx.verify(4);
        assert_eq!(open(&report).len(), 1, "{fault:?}: {report}");
        assert!(report["open"].to_string().contains("pump 20240101T04"), "{fault:?}: {report}");
        assert!(influx.proxy.fired() > before, "{fault:?}");
        influx.proxy.heal();
    }
    // A server that does not count any more at all.
    influx.proxy.fault(|query| query.contains("count("), usize::MAX, Fault::Close);
    let config = influx.folder.path().join("config.toml");
    let url = format!("{}/plant", influx.proxy.url());
    let name = influx.proxy.address();
    let text =
        format!("patience = \"1s\"\nattempts = 1\n[[source]]\nname = \"{name}\"\nurl = {url:?}\n");
    std::fs::write(&config, text).unwrap();
    let (root, config) = (influx.root(), config.to_str().unwrap());
    let run = moveout(["verify", &root, "--against-source", "--json", "--config", config]);
    assert!(matches!(run.status, 1 | 3), "{}{}", run.stdout, run.stderr);
    assert!(!run.stdout.contains("\"safe\""), "{}", run.stdout);
}

fn authorized(server: &Relational, args: &[&str]) -> Run {
    let mut command = command(args);
    server.authorize(&mut command);
    support::program::run(command)
}

/// A log that has moved is told and changes no verdict: others may have written elsewhere.
#[test]
fn the_log_of_a_server_tells_whether_anybody_has_written() {
    let mut told = 0;
    for kind in Kind::all() {
        let is_mysql = matches!(kind, Kind::MySql(_));
        let settings: &[(&str, &str)] = if is_mysql { &[("log_bin", "binlog")] } else { &[] };
        let Some(server) = kind.start_with(settings) else { continue };
        server.sql("", "CREATE DATABASE shop");
        server.sql("", "CREATE DATABASE other");
        server.sql("shop", "CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2), (3)");
        server.sql("other", "CREATE TABLE u (id int)");
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("archive");
        let (root, url) = (root.to_str().unwrap(), server.url("shop"));
        authorized(&server, &["export", "--source", &url, "--archive", root]).expect(0);
        let run = std::fs::read_to_string(folder.path().join("archive/catalog/run.json")).unwrap();
        let run: Value = serde_json::from_str(&run).unwrap();
        let marker = &run["markers"][0];
        assert_eq!(marker["source"], run["sources"][0]["name"], "{}: {run}", kind.name());
        assert!(marker["start"].as_str().is_some_and(|start| !start.is_empty()), "{run}");
        assert!(marker["end"].is_string(), "{run}");

        let verify = |status: i32| {
            let args = ["verify", root, "--against-source", "--source", &url, "--json"];
            let report = authorized(&server, &args).expect(status).json();
            report["notes"].to_string()
        };
        let notes = verify(0);
        // PostgreSQL may write into its log by itself.
        assert!(notes.contains("has not moved since") || !is_mysql, "{}: {notes}", kind.name());
        server.sql("other", "INSERT INTO u VALUES (1)");
        let notes = verify(0);
        assert!(notes.contains("has moved from"), "{}: {notes}", kind.name());
        assert!(notes.contains("all rows that were compared are equal"), "{notes}");
        let args = ["verify", root, "--against-source", "--source", &url];
        let text = authorized(&server, &args).expect(0).stdout;
        assert!(text.contains("since the export; all rows") && text.contains("SAFE"), "{text}");
        server.sql("shop", "INSERT INTO t VALUES (4)");
        let notes = verify(4);
        assert!(notes.contains("has moved from") && !notes.contains("are equal"), "{notes}");
        told += 1;
    }
    assert!(told > 1, "{told} products");
}
