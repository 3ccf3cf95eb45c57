//! The way back into MariaDB and MySQL: what was exported is there again, rows and definitions, whatever happened on the
//! way; what cannot be there is an error that says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::mariadb::{Flavour, MariaDb, Options};
use support::tunnel::Tunnel;
use support::{MySql, Restoring, Run, moveout, repository, run};

fn data(name: &str) -> String {
    fs::read_to_string(repository("tests/data").join(name)).unwrap()
}

/// A server with every odd value, but for a member of an ENUM that MariaDB itself shows as `?`.
fn odd() -> MariaDb {
    let source = MariaDb::start();
    source.sql("", "CREATE DATABASE odd");
    source.sql("odd", &data("odd_mariadb.sql"));
    source.sql("odd", "UPDATE odd_others SET e = 'ok' WHERE id = 4");
    source
}

/// An archive of all databases of a server.
fn archive_of(source: &MariaDb) -> Restoring {
    let setting = Restoring::new();
    setting.export(&source.url(""), &[]);
    setting
}

#[track_caller]
fn restore(setting: &Restoring, target: &MariaDb, more: &[&str], status: i32) -> Run {
    setting.restore(&target.url(""), more).expect(status)
}

/// What the server's own dump program says of a database: every definition and every row.
fn dump(server: &MariaDb, database: &str) -> String {
    let mut dump = Command::new("mariadb-dump");
    dump.args([
        "--no-defaults",
        "--protocol=TCP",
        "--host=127.0.0.1",
        "--hex-blob",
        "--skip-dump-date",
    ]);
    dump.args(["--skip-comments", "--routines", "--events", "--triggers", "--order-by-primary"]);
    dump.args([
        "--default-character-set=utf8mb4",
        "--skip-opt",
        "--create-options",
        "--quote-names",
    ]);
    dump.arg(format!("--port={}", server.port())).arg(format!("--user={}", user(server)));
    dump.arg(database).env("MYSQL_PWD", server.password());
    let out = dump.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    text
}

fn user(server: &MariaDb) -> String {
    server.sql("", "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)")
}

#[track_caller]
fn assert_same(source: &MariaDb, target: &MariaDb, database: &str) {
    let (expected, found) = (dump(source, database), dump(target, database));
    for (number, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(cut(found), cut(expected), "{database}, line {number}");
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{database}");
}

/// As much of a line as a person may read.
fn cut(line: &str) -> String {
    match line.len() {
        ..4000 => line.to_owned(),
        length => format!("{:.2000}… {length} {}", line, xxhash(line)),
    }
}

fn xxhash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn databases(server: &MariaDb) -> String {
    server.sql("", "SHOW DATABASES")
}

const FLOATS: &str =
    "SELECT id, CAST(f AS DOUBLE), CAST(f_u AS DOUBLE), CAST(f_7_3 AS DOUBLE), CAST(f_30 AS DOUBLE)
    FROM odd_numbers ORDER BY id";

#[test]
fn every_value_of_every_type_is_there_again() {
    let source = odd();
    source.sql(
        "odd",
        "CREATE TABLE many_floats (id INT PRIMARY KEY, f FLOAT, d DOUBLE);
         INSERT INTO many_floats SELECT seq, RAND(seq) * POW(10, CAST(seq % 76 AS SIGNED) - 38),
             RAND(seq) * POW(10, CAST(seq % 600 AS SIGNED) - 300)
             FROM seq_1_to_20000;
         CREATE TABLE zero_id (id INT AUTO_INCREMENT PRIMARY KEY);
         SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; INSERT INTO zero_id VALUES (0), (7);",
    );
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let summary = restore(&setting, &target, &[], 0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_same(&source, &target, "odd");
    assert_eq!(target.sql("odd", FLOATS), source.sql("odd", FLOATS));
    for sql in [
        "SELECT id, CAST(f AS DOUBLE), d FROM many_floats ORDER BY id",
        "SELECT *, ROW_START, ROW_END FROM odd_versions FOR SYSTEM_TIME ALL ORDER BY id, a",
        "SELECT id, HEX(latin1) FROM odd_texts ORDER BY id",
        "SELECT id, y2 + 0, y + 0, y2 FROM odd_times ORDER BY id",
        "SHOW TABLES",
    ] {
        assert_eq!(target.sql("odd", sql), source.sql("odd", sql), "{sql}");
    }
    assert_eq!(
        target.sql("odd", "INSERT INTO zero_id VALUES (); SELECT MAX(id) FROM zero_id"),
        "8"
    );
    let again = restore(&setting, &target, &[], 1);
    assert!(again.stderr.contains("the target has rows in"), "{}", again.stderr);
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);
    assert!(!databases(&target).contains("moveout"));
}

#[test]
fn a_newer_mariadb_takes_back_what_was_exported_from_it() {
    let start = || MariaDb::start_flavour(Flavour::Newer, Options::default());
    let (Some(source), Some(target)) = (start(), start()) else { return };
    source.sql("", "CREATE DATABASE odd; CREATE DATABASE objects");
    source.sql("odd", &data("odd_mariadb.sql"));
    source.sql("odd", "UPDATE odd_others SET e = 'ok' WHERE id = 4");
    source.sql("objects", &data("objects_mariadb.sql"));
    let setting = archive_of(&source);
    let summary = restore(&setting, &target, &[], 0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    source.sql("objects", "DROP VIEW broken_view"); // it has lost its table
    for database in ["odd", "objects", "Second `Database\""] {
        assert_same(&source, &target, database);
    }
    assert_eq!(target.sql("odd", FLOATS), source.sql("odd", FLOATS));
}

#[test]
fn a_value_that_the_definitions_do_not_have_is_refused() {
    let source = odd();
    source.sql("odd", "UPDATE odd_others SET e = '🙂' WHERE id = 4");
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let failed = restore(&setting, &target, &["--table", "odd_others"], 1);
    let told = "Data truncated for column 'e' at row 4";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
    assert_eq!(target.sql("odd", "SELECT COUNT(*) FROM odd_others"), "0");
}

#[test]
fn all_objects_are_there_again() {
    let source = MariaDb::start();
    source.sql("", "CREATE DATABASE objects");
    source.sql("objects", &data("objects_mariadb.sql"));
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let summary = restore(&setting, &target, &[], 0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    // A view that has lost its table cannot be made.
    source.sql("objects", "DROP VIEW broken_view");
    for database in ["objects", "Second `Database\"", "nothing_in_it"] {
        if database != "nothing_in_it" {
            assert_same(&source, &target, database);
        }
    }
    assert_eq!(target.sql("objects", "SELECT twice(21)"), "42");
    // What the source had in its cache is left out, so that no number comes twice.
    assert_eq!(target.sql("objects", "SELECT NEXTVAL(counter)"), "2041");
    // The trigger changes rows from now on, and has not changed the ones of the archive.
    assert_eq!(target.sql("objects", "SELECT COUNT(*) FROM no_key WHERE b LIKE '%;'"), "0");
    target.sql("objects", "INSERT INTO no_key VALUES (5, 'x')");
    assert_eq!(target.sql("objects", "SELECT b FROM no_key WHERE a = 5"), "x;");
}

/// A source with tables that take a while, one of them of an engine that undoes nothing.
fn busy() -> MariaDb {
    let source = MariaDb::start();
    source.sql(
        "",
        "CREATE DATABASE shop; USE shop;
         CREATE TABLE by_time (at DATETIME NOT NULL, id INT, note VARCHAR(100), PRIMARY KEY (at, id));
         INSERT INTO by_time SELECT '2024-01-01' + INTERVAL seq MINUTE, seq, REPEAT('x', seq % 100)
             FROM seq_1_to_60000;
         CREATE TABLE no_key (id INT, note VARCHAR(100));
         INSERT INTO no_key SELECT seq, 'the same' FROM seq_1_to_60000;
         CREATE TABLE loose (id INT, note VARCHAR(100)) ENGINE = MyISAM;
         INSERT INTO loose SELECT seq, 'the same' FROM seq_1_to_60000;
         CREATE VIEW sums AS SELECT COUNT(*) AS n FROM no_key;
         CREATE TRIGGER more BEFORE INSERT ON no_key FOR EACH ROW SET NEW.id = NEW.id + 1;
         CREATE EVENT never ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM no_key;",
    );
    source
}

#[test]
fn a_restore_that_is_killed_goes_on_and_no_row_is_there_twice() {
    let source = busy();
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let after = [60, 90, 120, 150, 200, 250, 300, 350, 400, 500, 600, 800];
    setting.restore_with_kills(&target.url(""), &after);
    assert_same(&source, &target, "shop");
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    let source = busy();
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let tunnel = Tunnel::to(target.port());
    let url = target.url("").replace(&target.port().to_string(), &tunnel.port().to_string());
    let more = ["--table", "by_time", "--table", "no_key", "--concurrency", "1"];
    let mut restoring =
        setting.command(&url, &more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut cuts = 0;
    while restoring.try_wait().unwrap().is_none() && Instant::now() < until {
        let loads =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'LOAD DATA%'";
        if cuts < 3 && target.sql("", loads) != "0" {
            target.kill_connections();
            cuts += 1;
        }
    }
    let out = restoring.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    for table in ["by_time", "no_key"] {
        let sql = format!("CHECKSUM TABLE {table}");
        assert_eq!(target.sql("shop", &sql), source.sql("shop", &sql));
    }
}

#[test]
fn where_files_are_not_taken_rows_go_by_insert() {
    let source = odd();
    let setting = archive_of(&source);
    let settings = vec![("local-infile", "0"), ("max-allowed-packet", "4M")];
    let target = MariaDb::start_with(Options { settings, ..Options::default() });
    let summary = restore(&setting, &target, &[], 0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_same(&source, &target, "odd");
    assert_eq!(target.sql("odd", FLOATS), source.sql("odd", FLOATS));
}

#[test]
fn what_the_server_would_change_is_refused_and_nothing_of_the_chunk_stays() {
    let source = MariaDb::start();
    source.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT, v VARCHAR(10)); INSERT INTO d.t VALUES (1, 'a'), (2, 'longer')");
    let setting = archive_of(&source);
    for settings in [Vec::new(), vec![("local-infile", "0")]] {
        let target = MariaDb::start_with(Options { settings, ..Options::default() });
        target.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT, v VARCHAR(3))");
        let failed = restore(&setting, &target, &[], 1);
        assert!(
            failed.stderr.contains("Data truncated") && failed.stderr.contains("d.t"),
            "{}",
            failed.stderr
        );
        assert_eq!(target.sql("d", "SELECT COUNT(*) FROM t"), "0");
        // Once it fits, the same command goes on.
        target.sql("d", "ALTER TABLE t MODIFY v VARCHAR(10)");
        restore(&setting, &target, &[], 0);
        assert_eq!(target.sql("d", "SELECT COUNT(*) FROM t"), "2");
    }
    // A key that the source did not have.
    let target = MariaDb::start();
    target.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (id INT CHECK (id > 0), v VARCHAR(10), UNIQUE (v))",
    );
    source.sql("", "INSERT INTO d.t VALUES (3, 'A')");
    let setting = archive_of(&source);
    let failed = restore(&setting, &target, &[], 1);
    assert!(failed.stderr.contains("Duplicate entry"), "{}", failed.stderr);
    assert_eq!(target.sql("d", "SELECT COUNT(*) FROM t"), "0");
}

#[test]
fn rows_that_a_table_shows_of_others_are_not_written_into_it() {
    let source = MariaDb::start();
    source.sql(
        "",
        "CREATE DATABASE d; USE d; CREATE TABLE one (a INT) ENGINE = MyISAM; INSERT INTO one VALUES (1), (2);
         CREATE TABLE two (a INT) ENGINE = MyISAM; INSERT INTO two VALUES (3);
         CREATE TABLE both_of_them (a INT) ENGINE = MERGE UNION = (one, two) INSERT_METHOD = LAST",
    );
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let summary = restore(&setting, &target, &[], 0).json();
    assert!(summary["notes"].to_string().contains("are those of others"), "{summary}");
    for table in ["one", "two", "both_of_them"] {
        let sql = format!("SELECT a FROM {table} ORDER BY a");
        assert_eq!(target.sql("d", &sql), source.sql("d", &sql), "{table}");
    }
}

#[test]
fn databases_get_other_names_and_a_dry_run_changes_nothing() {
    let source = busy();
    source.sql(
        "shop",
        "CREATE FUNCTION bound() RETURNS INT RETURN (SELECT COUNT(*) FROM shop.no_key)",
    );
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let before = databases(&target);
    let planned = restore(&setting, &target, &["--dry-run", "--map", "shop=works"], 0).json();
    assert_eq!(planned["status"], "planned");
    assert_eq!(planned["created"][0], "the database works", "{planned}");
    assert_eq!(planned["rows"], 180_000);
    assert!(
        planned["notes"].to_string().contains("the function `bound` names the database shop"),
        "{planned}"
    );
    assert_eq!(databases(&target), before);

    restore(&setting, &target, &["--map", "shop=works"], 0);
    assert!(!databases(&target).contains("shop"));
    assert_eq!(target.sql("works", "SELECT n FROM sums"), "60000");
    source.sql("shop", "DROP FUNCTION bound");
    let expected = dump(&source, "shop");
    assert_eq!(dump(&target, "works"), expected);

    // Everything goes into the database of the URL, which must be there.
    let refused = setting.restore(&target.url("elsewhere"), &[]).expect(1);
    assert!(refused.stderr.contains("no database elsewhere"), "{}", refused.stderr);
    target.sql("", "CREATE DATABASE elsewhere");
    setting.restore(&target.url("elsewhere"), &["--table", "by_time"]).expect(0);
    assert_eq!(target.sql("elsewhere", "SELECT COUNT(*) FROM by_time"), "60000");
}

#[test]
fn an_account_that_is_not_there_is_named_and_replaced() {
    let source = MariaDb::start();
    source.sql(
        "",
        "CREATE USER owner@'10.%'; CREATE DATABASE d; USE d; CREATE TABLE t (a INT); INSERT INTO t VALUES (1);
         CREATE DEFINER = owner@'10.%' FUNCTION f() RETURNS INT RETURN 1;
         CREATE DEFINER = owner@'10.%' VIEW v AS SELECT * FROM t",
    );
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let planned = restore(&setting, &target, &["--dry-run"], 0).json();
    assert!(planned["notes"].to_string().contains("the target lacks the accounts"), "{planned}");
    let summary = restore(&setting, &target, &[], 0).json();
    let notes = summary["notes"].to_string();
    assert!(notes.contains("what belonged to 'owner'@'10.%' belongs to admin now"), "{notes}");
    assert_eq!(target.sql("d", "SELECT f(), a FROM v"), "1\t1");
    let definers = "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE DEFINER LIKE 'owner%'";
    assert_eq!(target.sql("", definers), "0");
}

#[test]
fn rows_whose_foreign_keys_lead_nowhere_are_told() {
    let source = MariaDb::start();
    source.sql(
        "",
        "CREATE DATABASE d; USE d; CREATE TABLE parent (id INT PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE child (a INT, CONSTRAINT up FOREIGN KEY (a) REFERENCES parent (id));
         SET foreign_key_checks = 0; INSERT INTO child VALUES (1), (2), (NULL)",
    );
    let setting = archive_of(&source);
    let target = MariaDb::start();
    let summary = restore(&setting, &target, &[], 0).json();
    assert!(summary["notes"].to_string().contains("1 rows refer to a row that"), "{summary}");
    assert_same(&source, &target, "d");
}

#[test]
fn every_archive_of_an_earlier_version_is_restored() {
    for version in ["v1", "v2"] {
        let archive = repository(&format!("tests/data/archives/{version}/mysql"));
        let target = MariaDb::start();
        let archive = archive.to_str().unwrap();
        let summary = run(Restoring::new().command_of(archive, &target.url(""), &[]));
        let summary = summary.expect(0).json();
        assert_eq!(summary["status"], "complete", "{version}: {summary}");
        assert_eq!(target.sql("shop", "SELECT COUNT(*), SUM(price) FROM orders"), "3\t1.49");
        assert_eq!(
            target.sql("shop", "SELECT since FROM colours WHERE name = 'blue'"),
            "2001-02-03"
        );
    }
}

const MYSQL: &str = "CREATE DATABASE d; USE d; SET sql_mode = '', time_zone = '+00:00';
    CREATE TABLE t (id INT PRIMARY KEY, j JSON, b BLOB, bits BIT(10), f FLOAT, y YEAR, at TIMESTAMP(6) NULL,
        day DATE, g GEOMETRY, virt INT AS (id * 2) VIRTUAL, kept INT AS (id + 1) STORED, e ENUM('a', 'ü'),
        t TIME(6), l VARCHAR(10) CHARACTER SET latin1, dec_65 DECIMAL(65, 30));
    INSERT INTO t (id, j, b, bits, f, y, at, day, g, e, t, l, dec_65) VALUES
        (1, '{\"a\": [1, \"ü\\\\n\"]}', x'00FF0A095C', b'1010101010', 0.1, 0, '2024-01-01 00:00:00.000001',
         '0000-00-00', ST_GeomFromText('POINT(1 2)', 4326), 'ü', '-838:59:59.999999', 'é€', 1e-30),
        (0, 'null', '', b'0', 16777217, 2155, NULL, '2024-02-29', NULL, 'a', '00:00:00', '', -1),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE parent (id INT PRIMARY KEY); CREATE TABLE child (a INT, FOREIGN KEY (a) REFERENCES parent (id));
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1), (NULL);
    CREATE VIEW v AS SELECT id, virt FROM t;
    CREATE TRIGGER change_it BEFORE INSERT ON child FOR EACH ROW SET NEW.a = NULL;
    CREATE FUNCTION twice(a INT) RETURNS INT DETERMINISTIC RETURN a * 2;
    CREATE EVENT never ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM child;";

#[test]
fn a_mysql_is_there_again_with_and_without_files() {
    let Some(source) = MySql::start() else { return };
    source.sql("", MYSQL);
    let setting = archive_of(&source);
    for local in ["0", "1"] {
        let settings = vec![("local-infile", local)];
        let Some(target) = MySql::start_with(Options { settings, ..Options::default() }) else {
            return;
        };
        let summary = restore(&setting, &target, &[], 0).json();
        assert_eq!(summary["status"], "complete", "{summary}");
        for sql in [
            "SELECT id, j, HEX(b), bits + 0, CAST(f AS DOUBLE), y, at, day, HEX(g), virt, kept, e, t, l, dec_65
                 FROM t ORDER BY id",
            "SELECT * FROM child ORDER BY a",
            "SHOW CREATE TABLE t",
            "SHOW CREATE TABLE child",
            "SHOW CREATE VIEW v",
            "SHOW CREATE TRIGGER change_it",
            "SHOW CREATE FUNCTION twice",
            "SHOW CREATE EVENT never",
            "SHOW TABLES",
        ] {
            // When a trigger was made, and with which collation a view, is not in the archive.
            let known = |text: String| text.split("\tutf8mb4\t").next().unwrap_or_default().to_owned();
            assert_eq!(known(target.sql("d", sql)), known(source.sql("d", sql)), "{sql}");
        }
    }
}

#[test]
fn an_archive_of_the_restored_server_is_the_same() {
    let source = odd();
    let setting = archive_of(&source);
    let target = MariaDb::start();
    setting.restore(&target.url("odd_again"), &[]).expect(1);
    target.sql("", "CREATE DATABASE odd_again");
    setting.restore(&target.url("odd_again"), &[]).expect(0);
    target.sql("", "CREATE DATABASE odd");
    setting.restore(&target.url("odd"), &[]).expect(0);
    target.sql("", "DROP DATABASE odd_again");
    let again = archive_of(&target);
    assert_eq!(tables(&again.archive()), tables(&setting.archive()));
    moveout(["verify", &again.archive()]).expect(0);
}

/// What the catalog says of each table: its columns with their types, and its rows.
fn tables(archive: &str) -> Vec<Json> {
    let text = fs::read_to_string(Path::new(archive).join("catalog/tables.json")).unwrap();
    let tables: Vec<Json> = serde_json::from_str(&text).unwrap();
    let named = |table: &Json| {
        serde_json::json!([table["database"], table["table"], table["rows"], table["columns"]])
    };
    tables.iter().map(named).collect()
}
