//! Faults of a PostgreSQL or MariaDB that is restored into: no room, rights that are taken away, tables that are
//! changed meanwhile. Each ends with an error that says so, and the same command goes on once the cause is gone. And
//! the memory of a restore is bounded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use support::mariadb::MariaDb;
use support::server::{self, PASSWORD, USER};
use support::small_disk::SmallDisk;
use support::tunnel::{Stop, Tunnel};
use support::{Postgres, Relational, Restoring, peak_memory, run};

/// Starts a server of each product.
const PRODUCTS: [fn() -> Relational; 2] =
    [|| Relational::Postgres(Postgres::start()), || Relational::MySql(MariaDb::start())];

/// Whether it is a PostgreSQL.
fn is_postgres(server: &Relational) -> bool {
    matches!(server, Relational::Postgres(_))
}

/// Makes the database `shop` with a table of a row a minute, and a small one without a time. Returns an archive of it.
fn shop(source: &Relational, rows: usize) -> Restoring {
    let tables = if is_postgres(source) {
        format!(
            "CREATE TABLE t (at timestamptz NOT NULL, id int, note text); CREATE INDEX ON t (at);
             INSERT INTO t SELECT '2024-01-01'::timestamptz + n * interval '1 minute', n, repeat('x', n % 100)
                 FROM generate_series(1, {rows}) n;"
        )
    } else {
        format!(
            "CREATE TABLE t (at DATETIME NOT NULL, id INT, note VARCHAR(100), PRIMARY KEY (at, id));
             INSERT INTO t SELECT '2024-01-01' + INTERVAL seq MINUTE, seq, REPEAT('x', seq % 100)
                 FROM seq_1_to_{rows};"
        )
    };
    source.sql("", "CREATE DATABASE shop");
    let small = "CREATE TABLE u (id int, v int); INSERT INTO u VALUES (1, 70000), (2, 2)";
    source.sql("shop", &format!("{tables} {small}"));
    let setting = Restoring::new();
    setting.export(&source.url("shop"), &["--window", "1d"]);
    setting
}

/// Statements that make the tables of the shop without rows, the small one with these columns beside its key.
fn tables(is_postgres: bool, columns: &str) -> String {
    let at = if is_postgres { "timestamptz" } else { "DATETIME" };
    format!(
        "CREATE TABLE t (at {at} NOT NULL, id int, note varchar(100)); CREATE TABLE u (id int, {columns})"
    )
}

#[track_caller]
fn assert_same(source: &Relational, target: &Relational) {
    for table in ["t", "u"] {
        let sql = format!("SELECT * FROM {table} ORDER BY id");
        assert!(target.sql("shop", &sql) == source.sql("shop", &sql), "{table}");
    }
}

#[test]
fn where_there_is_no_room_the_error_says_so_and_the_same_command_goes_on_once_there_is() {
    for start in PRODUCTS {
        let (source, mut target) = (start(), start());
        let setting = shop(&source, 200_000);
        let folder = server::folder("disk-");
        let disk = if is_postgres(&target) {
            let Some(disk) = SmallDisk::mount(folder.path(), 12) else { return };
            let place = folder.path().display();
            target.sql("", &format!("CREATE TABLESPACE small LOCATION '{place}'"));
            target.sql("", "CREATE DATABASE shop TABLESPACE small");
            disk
        } else {
            target.sql("", "CREATE DATABASE shop");
            let place = Path::new(&target.sql("", "SELECT @@datadir")).join("shop");
            let Some(disk) = SmallDisk::mount(&place, 4) else { return };
            disk
        };
        let restore = setting.command(&target.url("shop"), &[]);
        let running = thread::spawn(move || run(restore));
        // A MariaDB without room may end by itself. Then the restore waits until it is there again.
        let mut failures = 0;
        while !running.is_finished() && failures < 5 {
            thread::sleep(Duration::from_millis(200));
            failures = target.try_sql("", "SELECT 1").map_or(failures + 1, |_| 0);
        }
        disk.grow(100);
        if failures == 5 {
            target.restart();
            running.join().unwrap().expect(0);
        } else {
            let failed = running.join().unwrap().expect(3);
            for words in ["the target has no room", "run the same command again"] {
                assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
            }
            setting.restore(&target.url("shop"), &[]).expect(0);
        }
        assert_same(&source, &target);
    }
}

#[test]
fn rights_that_are_taken_away_while_it_runs_are_an_error_and_it_goes_on_with_them() {
    for start in PRODUCTS {
        let (source, target) = (start(), start());
        let setting = shop(&source, 40_000);
        let is_postgres = is_postgres(&target);
        let password = PASSWORD.replace('\'', "''");
        let (user, revoke, grant) = if is_postgres {
            (
                format!("CREATE ROLE writer LOGIN PASSWORD '{password}'"),
                "REVOKE INSERT ON t FROM writer",
                "GRANT INSERT ON t TO writer",
            )
        } else {
            (
                format!(
                    "CREATE USER writer@'127.0.0.1' IDENTIFIED BY '{password}';
                     GRANT ALL ON shop.* TO writer@'127.0.0.1'"
                ),
                "REVOKE INSERT ON shop.* FROM writer@'127.0.0.1'",
                "GRANT INSERT ON shop.* TO writer@'127.0.0.1'",
            )
        };
        target.sql("", &user);
        let make = || {
            target.sql("", "DROP DATABASE IF EXISTS shop");
            target.sql("", "CREATE DATABASE shop");
            target.sql("shop", &tables(is_postgres, "v int"));
            if is_postgres {
                target.sql("shop", "ALTER DATABASE shop OWNER TO writer");
                target.sql("shop", "ALTER TABLE t OWNER TO writer; ALTER TABLE u OWNER TO writer");
            }
        };
        let tunnel = Tunnel::to(target.port());
        let url =
            target.url("shop").replace(&target.port().to_string(), &tunnel.port().to_string());
        let url = url.replace(&format!("{USER}@"), "writer@");
        // Once to its end, to learn where the middle is.
        make();
        tunnel.count_answers();
        setting.restore(&url, &["--concurrency", "1"]).expect(0);
        let answers = tunnel.answers();
        make();
        tunnel.stop_at(answers / 2, Stop::Hold);
        let restore = setting.command(&url, &["--concurrency", "1"]);
        let running = thread::spawn(move || run(restore));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !tunnel.has_stopped() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        target.sql("shop", revoke);
        tunnel.release();
        let failed = running.join().unwrap().expect(1);
        let denied =
            if is_postgres { "permission denied for table t" } else { "INSERT command denied" };
        for words in [denied, "give the user the right", "run the same command again"] {
            assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
        }
        let count = target.sql("shop", "SELECT count(*) FROM t");
        assert!((1..40_000).contains(&count.parse().unwrap()), "{count}");
        target.sql("shop", grant);
        setting.restore(&url, &[]).expect(0);
        assert_same(&source, &target);
    }
}

#[test]
fn a_table_that_is_changed_between_two_runs_is_refused_by_its_column_until_it_fits() {
    for start in PRODUCTS {
        let (source, target) = (start(), start());
        let setting = shop(&source, 5000);
        let is_postgres = is_postgres(&target);
        target.sql("", "CREATE DATABASE shop");
        target.sql("shop", &tables(is_postgres, "v int, more int NOT NULL"));
        let failed = setting.restore(&target.url("shop"), &[]).expect(1);
        let words = if is_postgres {
            "null value in column \"more\""
        } else {
            "Field 'more' doesn't have a default value"
        };
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
        let type_of = |name: &str| match is_postgres {
            true => format!("ALTER TABLE u ALTER v TYPE {name}"),
            false => format!("ALTER TABLE u MODIFY v {name}"),
        };
        target.sql("shop", &format!("ALTER TABLE u DROP more; {}", type_of("smallint")));
        let failed = setting.restore(&target.url("shop"), &[]).expect(1);
        let words = if is_postgres {
            "out of range for type smallint"
        } else {
            "Out of range value for column 'v'"
        };
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
        assert_eq!(target.sql("shop", "SELECT count(*) FROM u"), "0");
        target.sql("shop", &type_of("varchar(10)"));
        setting.restore(&target.url("shop"), &[]).expect(0);
        assert_same(&source, &target);
    }
}

#[test]
fn memory_is_bounded_whatever_the_size_of_an_archive() {
    for start in PRODUCTS {
        let peak = |rows: usize| {
            let (source, target) = (start(), start());
            let setting = shop(&source, rows);
            peak_memory(setting.command(&target.url(""), &["--memory", "64MiB"]))
        };
        let (small, large) = (peak(20_000), peak(160_000));
        assert!(
            large < small * 1.5 + 16.0,
            "{small} MiB for a small archive, {large} MiB for a large one"
        );
    }
}
