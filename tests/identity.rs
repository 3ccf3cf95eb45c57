//! Which source an address leads to: one server has several addresses, and one address may lead to another
//! server tomorrow. Nothing is exported twice, and nothing is taken for exported that is another's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use support::tunnel::Tunnel;
use support::{Archive, Influxd, MariaDb, Postgres, Run, command, moveout, run, server};
use tempfile::TempDir;

/// A folder for an archive, and the program with all passwords.
struct Setting {
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        Self { folder: TempDir::with_prefix("archive-").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn run(&self, verb: &str, args: &[&str]) -> Run {
        let mut command = command([verb, "--archive", self.path().to_str().unwrap()]);
        command.args(args).env("PGPASSWORD", server::PASSWORD).env("MYSQL_PWD", server::PASSWORD);
        run(command)
    }

    fn export(&self, args: &[&str]) -> Run {
        self.run("export", args)
    }

    /// The sources that have tables in the catalog, and its rows.
    fn sources(&self) -> (BTreeSet<String>, u64) {
        let tables = Archive::open(self.path()).catalog();
        let rows = tables.iter().map(|table| table["rows"].as_u64().unwrap()).sum();
        let name = |table: &serde_json::Value| table["source"].as_str().unwrap().to_owned();
        (tables.iter().map(name).collect(), rows)
    }

    #[track_caller]
    fn assert_holds(&self, sources: &[&str], rows: u64) {
        let expected = sources.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(self.sources(), (expected, rows));
        moveout(["verify", self.path().to_str().unwrap()]).expect(0);
    }

    fn files(&self) -> Vec<String> {
        Archive::open(self.path()).files()
    }
}

/// A table with an index on its time: it is read in windows.
const EVENTS: &str = "CREATE TABLE events (at timestamp NOT NULL PRIMARY KEY, v int);
    INSERT INTO events VALUES ('2024-01-01', 1), ('2024-01-02', 2), ('2024-01-03', 3);";

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[test]
fn a_postgresql_server_keeps_its_name_behind_any_address() {
    let server = Postgres::start();
    server.sql("postgres", &format!("CREATE DATABASE other; {EVENTS}"));
    server.sql("other", EVENTS);
    let (setting, name) = (Setting::new(), address(server.port()));
    setting.export(&["--source", &server.url("postgres")]).expect(0);
    setting.assert_holds(&[&name], 3);
    let before = Archive::open(setting.path()).files();

    // A tunnel, which has another port each time, and another name of the host.
    let tunnel = Tunnel::to(server.port());
    let by_tunnel = server::url("postgres", tunnel.port(), "postgres");
    let by_name = server.url("postgres").replace("127.0.0.1", "localhost");
    for url in [&by_tunnel, &by_name] {
        let plan = setting.run("plan", &["--source", url]).expect(0);
        assert!(plan.stdout.contains("nothing left to do"), "{}", plan.stdout);
        let export = setting.export(&["--source", url]).expect(0);
        assert!(
            export.stdout.contains(&format!("the archive calls `{name}`")),
            "{}",
            export.stdout
        );
        assert_eq!(setting.files(), before);
    }
    // Another database of it is of the same source, through whatever address.
    setting.export(&["--source", &server::url("postgres", tunnel.port(), "other")]).expect(0);
    setting.assert_holds(&[&name], 6);
    let status = moveout(["status", setting.path().to_str().unwrap()]).expect(0).stdout;
    assert_eq!(status.matches(&format!("{name}: PostgreSQL")).count(), 1, "{status}");

    // In one run both addresses are one server, too.
    let both = setting.export(&["--source", &by_tunnel, "--source", &by_name]).expect(2);
    assert!(both.stderr.contains("are the same server"), "{}", both.stderr);
}

#[test]
fn a_run_that_did_not_end_is_known_by_its_plan() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        &format!(
            "{EVENTS} CREATE TABLE hidden (v int); CREATE ROLE r LOGIN PASSWORD 'r';
        GRANT SELECT ON events TO r"
        ),
    );
    let (setting, tunnel) = (Setting::new(), Tunnel::to(server.port()));
    let as_reader = |port: u16| {
        let url = format!("postgres://r@127.0.0.1:{port}/postgres");
        let mut command = command(["export", "--archive", setting.path().to_str().unwrap()]);
        command.args(["--source", &url]).env("PGPASSWORD", "r");
        run(command)
    };
    as_reader(server.port()).expect(1);
    assert!(!Archive::open(setting.path()).is_sealed());
    server.sql("postgres", "DROP TABLE hidden");
    as_reader(tunnel.port()).expect(0);
    setting.assert_holds(&[&address(server.port())], 3);
}

#[test]
fn another_postgresql_server_behind_the_same_address_is_refused() {
    let (server, other) = (Postgres::start(), Postgres::start());
    server.sql("postgres", EVENTS);
    other.sql("postgres", &format!("{EVENTS} UPDATE events SET v = v + 1"));
    let (setting, name) = (Setting::new(), address(other.port()));
    // As if the first had been reached by the port that the second has now.
    setting.export(&["--source", &server.url("postgres"), "--name", &name]).expect(0);
    let before = setting.files();
    for args in
        [&["--source", &other.url("postgres")][..], &["--source", &other.url(""), "--name", &name]]
    {
        for verb in ["plan", "export"] {
            let refused = setting.run(verb, args).expect(1);
            assert!(
                refused.stderr.contains("is not the one that the archive calls")
                    && refused.stderr.contains("--name"),
                "{}",
                refused.stderr
            );
        }
        assert_eq!(setting.files(), before);
    }
    setting.export(&["--source", &other.url("postgres"), "--name", "other"]).expect(0);
    setting.assert_holds(&[&name, "other"], 6);
}

#[test]
fn a_postgresql_database_that_was_created_again_is_another() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE d");
    server.sql("d", EVENTS);
    let setting = Setting::new();
    setting.export(&["--source", &server.url("d")]).expect(0);
    server.sql("postgres", "DROP DATABASE d; CREATE DATABASE d");
    server.sql("d", &format!("{EVENTS} UPDATE events SET v = v + 1"));
    let refused = setting.export(&["--source", &server.url("d")]).expect(1);
    assert!(refused.stderr.contains("dropped and created again"), "{}", refused.stderr);
    setting.export(&["--source", &server.url("d"), "--name", "again"]).expect(0);
    setting.assert_holds(&[&address(server.port()), "again"], 6);
}

/// The right to ask for the identity is missing: the tables tell.
#[test]
fn a_postgresql_server_that_does_not_say_who_it_is_is_known_by_its_tables() {
    let (server, other) = (Postgres::start(), Postgres::start());
    for server in [&server, &other] {
        server.sql(
            "postgres",
            &format!(
                "{EVENTS} CREATE ROLE r LOGIN PASSWORD 'r'; GRANT SELECT ON events TO r;
                 REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
            ),
        );
    }
    other.sql("postgres", "UPDATE events SET at = at + interval '1 hour'");
    let (setting, tunnel) = (Setting::new(), Tunnel::to(server.port()));
    let export = |port: u16, more: &[&str]| {
        let url = format!("postgres://r@127.0.0.1:{port}/postgres");
        let mut command = command(["export", "--archive", setting.path().to_str().unwrap()]);
        command.args(["--source", &url]).args(more).env("PGPASSWORD", "r");
        run(command)
    };
    let name = address(server.port());
    export(server.port(), &[]).expect(0);
    export(server.port(), &[]).expect(0);
    let doubtful = export(tunnel.port(), &[]).expect(1);
    assert!(doubtful.stderr.contains(&format!("--name {name}")), "{}", doubtful.stderr);
    export(tunnel.port(), &["--name", &name]).expect(0);
    setting.assert_holds(&[&name], 3);
    // This one has other rows, so it is another.
    export(other.port(), &[]).expect(0);
    setting.assert_holds(&[&name, &address(other.port())], 6);
}

#[test]
fn a_mariadb_server_keeps_its_name_behind_any_address_and_another_is_refused() {
    let (server, other) = (MariaDb::start(), MariaDb::start());
    for server in [&server, &other] {
        server.sql(
            "",
            &format!("CREATE DATABASE d; USE d; {}", EVENTS.replace("timestamp", "datetime")),
        );
    }
    let (setting, name) = (Setting::new(), address(server.port()));
    setting.export(&["--source", &server.url("d")]).expect(0);
    let before = setting.files();
    let tunnel = Tunnel::to(server.port());
    let export = setting.export(&["--source", &server::url("mysql", tunnel.port(), "d")]).expect(0);
    assert!(export.stdout.contains(&format!("the archive calls `{name}`")), "{}", export.stdout);
    assert_eq!(setting.files(), before);
    let refused = setting.export(&["--source", &other.url("d"), "--name", &name]).expect(1);
    assert!(refused.stderr.contains("is not the one"), "{}", refused.stderr);
    setting.export(&["--source", &other.url("d")]).expect(0);
    setting.assert_holds(&[&name, &address(other.port())], 6);
}

const DAY: i64 = 86_400_000_000_000;
const BEGIN: i64 = 1_704_067_200_000_000_000;

fn points(days: std::ops::Range<i64>, shift: i64) -> String {
    days.map(|day| format!("m v={day}i {}\n", BEGIN + day * DAY + shift)).collect()
}

/// It says nothing of who it is.
#[test]
fn an_influxdb_behind_another_address_is_not_exported_twice() {
    let (server, other) = (Influxd::start(), Influxd::start());
    for server in [&server, &other] {
        server.query("CREATE DATABASE d");
    }
    server.write("d", "", &points(0..3, 0));
    other.write("d", "", &points(0..3, 5));
    let (setting, name) = (Setting::new(), server.address().to_string());
    setting.export(&["--source", &server.url()]).expect(0);
    let before = setting.files();
    let tunnel = Tunnel::to(server.address().port());
    let url = format!("influxdb+http://127.0.0.1:{}", tunnel.port());
    let doubtful = setting.export(&["--source", &url]).expect(1);
    assert!(doubtful.stderr.contains(&format!("--name {name}")), "{}", doubtful.stderr);
    assert_eq!(setting.files(), before);
    setting.export(&["--source", &url, "--name", &name]).expect(0);
    assert_eq!(setting.files(), before);
    // The first rows have expired: that it has the others as they were tells.
    server.query_in("d", "DELETE FROM m WHERE time < '2024-01-02'");
    setting.export(&["--source", &url]).expect(1);
    // This one has other rows.
    setting.export(&["--source", &other.url()]).expect(0);
    setting.assert_holds(&[&name, &other.address().to_string()], 6);
}

#[test]
fn an_influxdb_that_was_wiped_is_not_complete() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", &(points(0..3, 0) + "n v=1 1704067200000000000\n"));
    let setting = Setting::new();
    setting.export(&["--source", &server.url()]).expect(0);
    let before = setting.files();

    // One of two tables: the other says that it is the same server.
    server.query_in("d", "DROP MEASUREMENT n");
    let export = setting.export(&["--source", &server.url()]).expect(0);
    assert!(export.stdout.contains("d.autogen.n is not there any more"), "{}", export.stdout);
    server.query_in("d", "DELETE FROM m WHERE time < '2024-01-02'");
    let export = setting.export(&["--source", &server.url()]).expect(0);
    assert!(export.stdout.contains("d.autogen.m has lost its first rows"), "{}", export.stdout);
    server.write("d", "", &points(0..1, 0));
    server.write("d", "", "m w=1 1704067200000000000\n");
    let export = setting.export(&["--source", &server.url()]).expect(0);
    assert!(export.stdout.contains("d.autogen.m has the new columns `w`"), "{}", export.stdout);

    server.query("DROP DATABASE d");
    server.query("CREATE DATABASE d");
    for lines in [String::new(), points(0..5, 7)] {
        if !lines.is_empty() {
            server.write("d", "", &lines);
        }
        let refused = setting.export(&["--source", &server.url()]).expect(1);
        let name = server.address().to_string();
        assert!(refused.stderr.contains(&format!("--name {name}")), "{}", refused.stderr);
        assert_eq!(setting.files(), before);
    }
    // Whoever names it says that it is the same, and is told what is not.
    let named = ["--source", &server.url(), "--name", &server.address().to_string()];
    let export = setting.export(&named).expect(0);
    assert!(export.stdout.contains("d.autogen.n is not there any more"), "{}", export.stdout);
}

#[test]
fn addresses_that_differ_in_the_database_alone_are_one_source() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE a; CREATE DATABASE b; CREATE DATABASE c");
    for database in ["a", "b", "c"] {
        server.sql(database, EVENTS);
    }
    let setting = Setting::new();
    setting.export(&["--source", &server.url("a"), "--source", &server.url("b")]).expect(0);
    setting.assert_holds(&[&address(server.port())], 6);
}
