//! Proves that the relational servers which other tests stand on work: they start, several at once, keep
//! their data over a restart, want their password, and take no plaintext where they have TLS.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::mariadb::Flavour;
use support::{Archive, Kind, MariaDb, MySql, Postgres, Relational, command, run};
use support::{mariadb, postgres, repository, server};

const NAMES: &str = "IP:127.0.0.1,DNS:localhost";

/// What a client that was changed so complains about.
#[track_caller]
fn complaint(mut client: Command, change: impl FnOnce(&mut Command)) -> String {
    change(&mut client);
    server::feed(client, "SELECT 1").unwrap_err()
}

/// Waits until what another thread does can be seen.
#[track_caller]
fn wait_for(mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !seen() {
        assert!(Instant::now() < deadline, "nothing came");
        thread::sleep(Duration::from_millis(10));
    }
}

fn script(name: &str) -> String {
    std::fs::read_to_string(repository("tests/data").join(name)).unwrap()
}

#[test]
fn postgres_answers_and_keeps_its_rows_over_a_restart() {
    let (mut server, other) = (Postgres::start(), Postgres::start());
    server.sql("postgres", "CREATE DATABASE \"a b/c%\"");
    server
        .sql("a b/c%", "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    let port = server.port();
    assert_eq!(server.url("a b/c%"), format!("postgres://admin@127.0.0.1:{port}/a%20b%2Fc%25"));
    assert_eq!(server.url(""), format!("postgres://admin@127.0.0.1:{port}"));
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.sql("a b/c%", "TABLE t"), "1|x\n2|");
    server.stop();
    assert!(server.try_sql("postgres", "SELECT 1").unwrap_err().contains("refused"));
    server.stop();
    server.restart();
    assert_eq!(server.sql("a b/c%", "SELECT count(*) FROM t"), "2");
    assert_eq!(other.sql("postgres", "SELECT 1"), "1");

    let panics = |what: &dyn Fn()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(panics(&|| drop(server.sql("nowhere", "SELECT 1"))));
    assert!(panics(&|| drop(server.sql("postgres", "SELECT 1/0; SELECT 1"))));
    let wrong = complaint(server.client("postgres"), |psql| {
        psql.env("PGPASSWORD", "wrong");
    });
    assert!(wrong.contains("password authentication failed"), "{wrong}");
}

#[test]
fn postgres_with_tls_takes_nothing_else() {
    let server = Postgres::start_with(postgres::Options {
        tls: Some(NAMES),
        settings: vec![("statement_timeout", "5s")],
        ..postgres::Options::default()
    });
    let query = "SELECT ssl, current_setting('statement_timeout') FROM pg_stat_ssl
                 WHERE pid = pg_backend_pid()";
    assert_eq!(server.sql("postgres", query), "t|5s");
    let verifying = |authority| {
        let mut psql = server.client("postgres");
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority);
        server::feed(psql, query)
    };
    assert_eq!(verifying(server.authority().unwrap()).unwrap(), "t|5s");
    let other = server::folder("other-");
    let stranger = server::certificate(&other, NAMES).authority;
    assert!(verifying(&stranger).unwrap_err().contains("certificate verify failed"));
    let plain = complaint(server.client("postgres"), |psql| {
        psql.env("PGSSLMODE", "disable");
    });
    assert!(plain.contains("no encryption"), "{plain}");
}

#[test]
fn sessions_of_postgres_can_be_killed() {
    let server = Postgres::start();
    assert_eq!(server.kill_connections(), 0);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.try_sql("postgres", "SELECT pg_sleep(600)"));
        wait_for(|| server.sql("postgres", sleeping) == "1");
        assert_eq!(server.kill_connections(), 1);
        assert!(slow.join().unwrap().unwrap_err().contains("terminating connection"));
    });
}

#[test]
fn postgres_takes_the_scripts_of_the_test_data() {
    let server = Postgres::start();
    for name in ["odd", "objects"] {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        server.sql(name, &script(&format!("{name}_postgres.sql")));
    }
    assert_eq!(server.sql("objects", "SELECT count(*) FROM events"), "7");
    assert_eq!(server.sql("odd", "SELECT d FROM odd_times WHERE d = 'infinity'"), "infinity");
}

#[test]
fn mariadb_answers_and_keeps_its_rows_over_a_restart() {
    let (mut server, other) = (MariaDb::start(), MariaDb::start());
    server.sql("", "CREATE DATABASE `a b/c%`");
    server
        .sql("a b/c%", "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    let port = server.port();
    assert_eq!(server.url("a b/c%"), format!("mysql://admin@127.0.0.1:{port}/a%20b%2Fc%25"));
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.sql("a b/c%", "SELECT * FROM t"), "1\tx\n2\tNULL");
    server.stop();
    assert!(server.try_sql("", "SELECT 1").unwrap_err().contains("Can't connect"));
    server.stop();
    server.restart();
    assert_eq!(server.sql("a b/c%", "SELECT count(*) FROM t"), "2");
    assert_eq!(other.sql("", "SELECT @@log_bin"), "0");

    let panics = |what: &dyn Fn()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(panics(&|| drop(server.sql("nowhere", "SELECT 1"))));
    assert!(panics(&|| drop(server.sql("", "SELECT nothing; SELECT 1"))));
    for (user, password) in [("admin", "wrong"), ("root", ""), ("", "")] {
        let wrong = complaint(server.client(""), |mariadb| {
            mariadb.arg(format!("--user={user}")).env("MYSQL_PWD", password);
        });
        assert!(wrong.contains("Access denied"), "{wrong}");
    }
}

#[test]
fn mariadb_with_tls_takes_nothing_else() {
    let server = MariaDb::start_with(mariadb::Options {
        tls: Some(NAMES),
        binlog: true,
        settings: vec![("net-write-timeout", "77")],
    });
    let query = "SHOW STATUS LIKE 'Ssl_version'; SELECT @@log_bin, @@net_write_timeout";
    let answer = server.sql("", query);
    assert!(answer.contains("TLSv1.") && answer.ends_with("1\t77"), "{answer}");
    let plain = complaint(server.client(""), |mariadb| {
        mariadb.arg("--skip-ssl");
    });
    // MariaDB 10.11 says no more than this.
    assert!(plain.contains("Access denied"), "{plain}");
    let other = server::folder("other-");
    let stranger = server::certificate(&other, NAMES).authority;
    let stranger = complaint(server.client(""), |mariadb| {
        mariadb.arg("--ssl-verify-server-cert").arg("--ssl-ca").arg(stranger);
    });
    assert!(stranger.contains("certificate"), "{stranger}");
}

#[test]
fn connections_to_mariadb_can_be_killed() {
    let server = MariaDb::start();
    assert_eq!(server.kill_connections(), 0);
    let sleeping = "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    thread::scope(|scope| {
        let slow = scope.spawn(|| server.try_sql("", "SELECT sleep(600)"));
        wait_for(|| server.sql("", sleeping) == "1");
        assert_eq!(server.kill_connections(), 1);
        assert!(slow.join().unwrap().is_err());
    });
}

/// Every version that is installed: it answers, keeps its rows over a restart, and is another one than its
/// like.
#[test]
fn every_installed_server_works() {
    for kind in Kind::all() {
        let mut server = kind.start().unwrap();
        server.sql("", "CREATE DATABASE d");
        server.sql("d", "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
        let version = server.sql("", "SELECT version()");
        let (postgres, maria) = (version.contains("PostgreSQL"), version.contains("MariaDB"));
        match kind {
            Kind::Postgres(number) => assert!(version.contains(&format!("PostgreSQL {number}."))),
            Kind::MySql(Flavour::MySql) => assert!(!postgres && !maria, "{version}"),
            Kind::MySql(_) => assert!(maria, "{version}"),
        }
        match &mut server {
            Relational::Postgres(server) => server.restart(),
            Relational::MySql(server) => server.restart(),
        }
        assert_eq!(server.sql("d", "SELECT count(*) FROM t"), "2", "{kind:?}");
        let archive = server::folder("archive-");
        let path = archive.path().join("a");
        let mut export = command(["export", "--source", &server.url("d"), "--archive"]);
        server.authorize(export.arg(&path));
        run(export).expect(0);
        assert_eq!(Archive::open(path).rows("t").len(), 2, "{kind:?}");
    }
    if let Some((one, two)) = MySql::start().zip(MySql::start()) {
        let identity = "SELECT @@server_uuid";
        assert_ne!(one.sql("", identity), two.sql("", identity));
    }
}

#[test]
fn mariadb_takes_the_scripts_of_the_test_data() {
    let server = MariaDb::start();
    for name in ["odd", "objects"] {
        server.sql("", &format!("CREATE DATABASE {name}"));
        server.sql(name, &script(&format!("{name}_mariadb.sql")));
    }
    assert_eq!(server.sql("objects", "SELECT count(*) FROM events"), "6");
    assert_eq!(server.sql("odd", "SELECT max(bigint_u) FROM odd_numbers"), "18446744073709551615");
}
