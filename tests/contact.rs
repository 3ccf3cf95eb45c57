//! The first contact with a source: what is wrong with an address is said at once, with what lives there instead;
//! and what becomes of connections that somebody kills later.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use support::{Influxd, MariaDb, Postgres, Run, command, run};
use tempfile::TempDir;

fn export(source: &str, archive: &Path) -> Run {
    let mut command = command(["export", "--source", source, "--archive"]);
    command.arg(archive).env("PGPASSWORD", "geheim").env("MYSQL_PWD", "geheim");
    run(command)
}

/// Fails at once for good, and says so.
#[track_caller]
fn assert_told(source: &str, cause: &str) {
    let folder = TempDir::new().unwrap();
    let began = Instant::now();
    let run = export(source, &folder.path().join("a"));
    let told = format!("{source}: {}{}", run.stdout, run.stderr);
    assert_eq!(run.status, 1, "{told}");
    assert!(run.stderr.contains(cause), "`{cause}` is not in {told}");
    assert!(!told.contains("run the same command again") && !told.contains("geheim"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}: {told}", began.elapsed());
}

#[test]
fn another_product_at_the_port_is_named() {
    let (influxd, postgres, mariadb) = (Influxd::start(), Postgres::start(), MariaDb::start());
    let http = influxd.address().port();
    let (pg, my) = (postgres.port(), mariadb.port());
    thread::scope(|scope| {
        for (source, cause) in [
            (format!("postgres://u@127.0.0.1:{http}/d"), "an HTTP server answers on port"),
            (format!("postgres://u@127.0.0.1:{http}/d?sslmode=disable"), "an HTTP server answers"),
            (format!("mysql://u@127.0.0.1:{http}/d"), "an HTTP server answers on port"),
            (format!("postgres://u@127.0.0.1:{my}/d"), "a MySQL or MariaDB server answers"),
            (format!("mysql://u@127.0.0.1:{pg}/d"), "a PostgreSQL server answers on port"),
            (format!("influxdb+http://127.0.0.1:{pg}/d"), "a PostgreSQL server answers on port"),
            (format!("influxdb+http://127.0.0.1:{my}/d"), "a MySQL or MariaDB server answers"),
            (format!("influxdb+https://127.0.0.1:{http}/d"), "write influxdb+http://"),
        ] {
            scope.spawn(move || assert_told(&source, cause));
        }
    });
}

#[test]
fn where_nobody_lives_it_is_said() {
    // A port that was free a moment ago, and one whose owner hangs up.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = deaf.local_addr().unwrap().port();
    thread::spawn(move || deaf.incoming().for_each(drop));
    let ssh = TcpListener::bind("127.0.0.1:0").unwrap();
    let greets = ssh.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in ssh.incoming() {
            let _ = stream.unwrap().write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    thread::scope(|scope| {
        for scheme in ["postgres://u@", "mysql://u@", "influxdb+http://", "influxdb+https://"] {
            for (place, cause) in [
                (format!("127.0.0.1:{free}"), "nothing listens on port"),
                (format!("no-such-host.invalid:{free}"), "no address is known for the host"),
                (format!("127.0.0.1:{hangs_up}"), "accepts connections and closes them at once"),
                (format!("127.0.0.1:{greets}"), "an SSH server answers on port"),
            ] {
                scope.spawn(move || assert_told(&format!("{scheme}{place}/d"), cause));
            }
        }
    });
}

// Nobody has interrupted anything: a run waits for connections, or ends as incomplete.
#[test]
fn killed_backends_are_no_interrupt() {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE d");
    server.sql(
        "d",
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS s FROM generate_series(1, 120000) AS i;
         CREATE TABLE w (at timestamptz NOT NULL, i int);
         INSERT INTO w SELECT '2024-01-01'::timestamptz + i * interval '1 minute', i FROM generate_series(1, 40000) i;
         CREATE INDEX ON w (at); ANALYZE",
    );
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("c.toml");
    let url = server.url("d");
    // So that it is tried more often than once in the time that this test has.
    std::fs::write(&config, "attempts = 3\npatience = \"1s\"\nwindow = \"12h\"\n").unwrap();
    let args = ["export", "--config", config.to_str().unwrap(), "--source", &url, "--archive"];
    for round in 0..3 {
        let archive = folder.path().join(format!("a{round}"));
        let start = || {
            let mut command = command(args);
            command.arg(&archive).env("PGPASSWORD", server.password());
            command
        };
        thread::scope(|scope| {
            let export = scope.spawn(|| run(start()));
            let mut killed = 0;
            let until = Instant::now() + Duration::from_secs(3);
            while !export.is_finished() && Instant::now() < until {
                killed += server.kill_connections();
                thread::sleep(Duration::from_millis(5 + 40 * round));
            }
            let run = export.join().unwrap();
            let told = format!("{}{}", run.stdout, run.stderr);
            assert!(killed > 0 && !told.contains("interrupted"), "{killed} killed: {told}");
            // 1 where it was killed at the first contact.
            assert!(matches!(run.status, 0 | 1 | 3), "{}: {told}", run.status);
        });
        let run = run(start()).expect(0);
        assert!(run.stdout.contains("complete and sealed"), "{}", run.stdout);
        let rows = |table| support::Archive::open(&archive).rows(table).len();
        assert_eq!((rows("t"), rows("w")), (120_000, 40_000));
    }
}
