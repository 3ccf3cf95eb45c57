//! A run over a sealed archive: what was read whole may have changed since, and is read again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::path::PathBuf;

use serde_json::Value;
use support::{Archive, Influxd, MariaDb, Postgres, command, json, moveout, run, server};
use tempfile::TempDir;

/// A source and its archive.
struct Setting {
    folder: TempDir,
    url: String,
    password: &'static str,
}

impl Setting {
    fn new(url: String) -> Self {
        let folder = TempDir::with_prefix("archive-").unwrap();
        Self { folder, url, password: server::PASSWORD }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn run(&self, verb: &str, more: &[&str]) -> support::Run {
        let path = self.path();
        let mut command =
            command([verb, "--source", &self.url, "--archive", path.to_str().unwrap()]);
        command.args(more).env("PGPASSWORD", self.password).env("MYSQL_PWD", self.password);
        run(command)
    }

    #[track_caller]
    fn export(&self, more: &[&str]) -> Value {
        self.run("export", &[&["--json"], more].concat()).expect(0).json()
    }

    /// Every value of a table, in the order of its files.
    fn values(&self, table: &str, column: &str) -> Vec<String> {
        let rows = Archive::open(self.path()).rows(table);
        let value = |row: &support::Row| format!("{:?}", row.get(column));
        let mut values: Vec<String> = rows.iter().map(value).collect();
        values.sort();
        values
    }

    #[track_caller]
    fn assert_verified(&self) {
        moveout(["verify", self.path().to_str().unwrap()]).expect(0);
    }

    fn rows(&self, table: &str) -> u64 {
        let tables = Archive::open(self.path()).catalog();
        let of_table = tables.iter().find(|entry| entry["table"] == table).unwrap();
        of_table["rows"].as_u64().unwrap()
    }
}

/// One is read whole, one in windows and by its rows without a time, one stays as it is.
const TABLES: &str =
    "CREATE TABLE plain (id int, v int); INSERT INTO plain VALUES (1, 10), (2, 20);
    CREATE TABLE timed (at timestamp NULL, v int); CREATE INDEX timed_at ON timed (at);
    INSERT INTO timed VALUES ('2024-01-01', 1), ('2024-01-02', 2), (NULL, 3);
    CREATE TABLE still (v int); INSERT INTO still VALUES (7);";

fn read_again(summary: &Value) -> (u64, u64) {
    let of = |key: &str| summary["read_again"][key].as_u64().unwrap();
    (of("tables"), of("changed"))
}

#[test]
fn a_postgresql_table_that_was_read_whole_is_read_again() {
    let server = Postgres::start();
    server.sql("postgres", TABLES);
    let setting = Setting::new(server.url("postgres"));
    assert_eq!(read_again(&setting.export(&[])), (0, 0));
    let before = Archive::open(setting.path()).files();

    server.sql(
        "postgres",
        "UPDATE plain SET v = 21 WHERE id = 2; INSERT INTO plain VALUES (3, 30);
         ALTER TABLE plain ADD w int DEFAULT 5; INSERT INTO timed VALUES (NULL, 4)",
    );
    let plan = setting.run("plan", &[]).expect(0).stdout;
    assert_eq!(plan.matches("again").count(), 3, "{plan}");
    let text = setting.run("plan", &["--keep"]).expect(0).stdout;
    assert_eq!(text.matches("nothing left to do").count(), 3, "{text}");

    let kept = setting.export(&["--keep"]);
    assert_eq!(Archive::open(setting.path()).files(), before, "nothing was left to do");
    let kept = kept["kept"].as_array().unwrap();
    assert!(kept.len() == 3 && kept.iter().all(|kept| kept["as_of"].is_string()), "{kept:?}");

    let summary = setting.export(&[]);
    assert_eq!(read_again(&summary), (3, 2), "{summary}");
    assert_eq!(summary["not_compared"]["tables"], 1, "{summary}");
    assert!(summary["not_compared"]["windows"].as_u64().unwrap() >= 1);
    setting.assert_verified();
    assert_eq!((setting.rows("plain"), setting.rows("timed"), setting.rows("still")), (3, 4, 1));
    assert_eq!(setting.values("plain", "v").len(), 3);
    assert!(setting.values("plain", "v").iter().any(|value| value.contains("21")));
    assert!(setting.values("plain", "w").iter().all(|value| value.contains('5')));

    let text = setting.run("export", &[]).expect(0).stdout;
    assert!(text.contains("3 tables read again, 0 of them changed"), "{text}");
    assert!(text.contains("exported before and not compared"), "{text}");
    setting.assert_verified();
    // Rows without a time that have got one are not there twice.
    server.sql("postgres", "UPDATE timed SET at = '2025-01-01' WHERE at IS NULL");
    setting.export(&[]);
    assert_eq!(setting.rows("timed"), 4);
    setting.assert_verified();
}

#[test]
fn what_a_run_that_did_not_end_has_read_is_not_read_again() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        &format!(
            "{TABLES} CREATE ROLE r LOGIN PASSWORD 'r'; GRANT SELECT ON plain, timed, still TO r;
             CREATE TABLE hidden (v int)"
        ),
    );
    let url = server.url("postgres").replace(&format!("{}@", server::USER), "r@");
    let setting = Setting { password: "r", ..Setting::new(url) };
    for change in ["SELECT 1", "UPDATE plain SET v = v + 1"] {
        server.sql("postgres", change);
        // Not sealed, since something cannot be read.
        let first = setting.run("export", &["--json"]).expect(1).json();
        assert!(first["chunks"].as_u64().unwrap() >= 3, "{first}");
        let again = setting.run("export", &["--json"]).expect(1).json();
        assert_eq!(again["chunks"], 0, "{again}");
        assert_eq!(again["rows_total"], 6, "{again}");
        server.sql("postgres", "DROP TABLE hidden");
        let last = setting.export(&[]);
        assert_eq!(last["chunks"], 0, "{last}");
        setting.assert_verified();
        server.sql("postgres", "CREATE TABLE hidden (v int)");
    }
    assert!(setting.values("plain", "v").iter().all(|value| value.contains('1')));
}

#[test]
fn rows_that_nobody_else_has_any_more_stay() {
    let server = Postgres::start();
    server.sql("postgres", TABLES);
    let setting = Setting::new(server.url("postgres"));
    setting.export(&[]);
    server.sql("postgres", "TRUNCATE plain");
    let summary = setting.export(&[]);
    let warnings = summary["warnings"].to_string();
    assert!(
        warnings.contains("postgres.public.plain is empty now: the archive keeps its 2 rows"),
        "{warnings}"
    );
    assert_eq!(setting.rows("plain"), 2);
    setting.assert_verified();
}

#[test]
fn a_mariadb_table_that_was_replaced_is_read_again() {
    let server = MariaDb::start();
    server
        .sql("", &format!("CREATE DATABASE d; USE d; {}", TABLES.replace("timestamp", "datetime")));
    let setting = Setting::new(server.url("d"));
    setting.export(&[]);
    server.sql(
        "d",
        "CREATE TABLE other (id int, v int, x int); INSERT INTO other VALUES (1, 11, 0), (2, 22, 0), (3, 33, 0);
         RENAME TABLE plain TO old, other TO plain; DROP TABLE old; UPDATE timed SET v = 30 WHERE v = 3",
    );
    let summary = setting.export(&[]);
    assert_eq!(read_again(&summary), (3, 2), "{summary}");
    assert_eq!((setting.rows("plain"), setting.rows("timed")), (3, 3));
    assert!(setting.values("timed", "v").iter().any(|value| value.contains("30")));
    setting.assert_verified();
}

#[test]
fn windows_that_are_not_compared_are_named() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", "m v=1 1704067200000000000\nm v=2 1714067200000000000\n");
    let setting = Setting::new(server.url());
    let first = setting.export(&[]);
    assert_eq!(first["not_compared"]["windows"], 0);
    let files = Archive::open(setting.path()).files();
    let again = setting.export(&[]);
    assert_eq!(again["not_compared"]["windows"], first["chunks"], "{again}");
    assert_eq!((&again["not_compared"]["tables"], &again["chunks"]), (&1.into(), &0.into()));
    assert_eq!(Archive::open(setting.path()).files(), files);
    // A file is known by its hash.
    let path = setting.folder.path().join("b");
    let source = format!("lp:{}", support::repository("tests/data/weather.lp").display());
    for _ in 0..2 {
        let (_, summary) =
            json(["export", "--source", &source, "--archive", path.to_str().unwrap()]);
        assert_eq!(
            (summary["not_compared"]["windows"].as_u64(), read_again(&summary)),
            (Some(0), (0, 0))
        );
    }
}
