//! `verify --against-source`: one row more, less or other at the source is found, whichever it is, by the level that the
//! documentation names; and whatever could not be compared is never called safe.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use serde_json::Value;
use support::{Archive, Influxd, Kind, Relational, Run, command, moveout};
use tempfile::TempDir;

/// By what a change is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// By statistics, and by reading the rows.
    ByStatistics,
    /// By reading the rows alone.
    ByRows,
}

/// A change of the source and the statements that take it back.
struct Change {
    name: &'static str,
    change: &'static str,
    back: &'static str,
    found: Found,
    /// What an open point names.
    names: &'static str,
}

const fn change(
    name: &'static str,
    change: &'static str,
    back: &'static str,
    found: Found,
    names: &'static str,
) -> Change {
    Change { name, change, back, found, names }
}

/// Ten rows, a day apart from 2024-01-01 on, and one without a time; `w` has no time at all.
const TABLES: &str = "
    CREATE TABLE t (id int, at TIMESTAMP_TYPE NULL, n bigint, u smallint, f FLOAT_TYPE, d decimal(10,2), day date, s varchar(20));
    CREATE INDEX t_at ON t (at);
    INSERT INTO t VALUES
        (0, '2024-01-01 00:00:00', 1, 10, 0.1, 1.10, '2024-01-01', 'a'), (1, '2024-01-02 00:00:00', 2, 11, 0.2, 2.20, '2024-01-02', 'b'),
        (2, '2024-01-03 00:00:00', 3, 12, 0.3, 3.30, NULL, 'c'), (3, '2024-01-04 00:00:00', 4, 13, 0.4, -4.40, '2024-01-04', 'd'),
        (4, '2024-01-05 12:00:00', 5, 14, 1e300, 5.50, '2024-01-05', ''), (5, '2024-01-05 12:00:00.000001', 6, NULL, 0.6, 6.60, '2024-01-06', NULL),
        (6, '2024-01-07 00:00:00', -9223372036854775808, 16, -0.7, 7.70, '9999-12-31', 'g'), (7, '2024-01-08 00:00:00', 8, 17, 0.8, 8.80, '2024-01-08', 'h'),
        (8, '2024-01-09 00:00:00', 9, 18, 0.9, 9.90, '2024-01-09', 'i'), (9, '2024-01-10 00:00:00', 10, 19, 1.0, 0.00, '2024-01-10', 'j'),
        (10, NULL, 11, 20, 1.1, 1.00, '2024-01-11', 'k');
    CREATE TABLE w (id int, s varchar(20));
    INSERT INTO w VALUES (1, 'one'), (2, 'two'), (2, 'two');
    CREATE TABLE strict (id int, at TIMESTAMP_TYPE NOT NULL);
    CREATE INDEX strict_at ON strict (at);
    INSERT INTO strict VALUES (1, '2024-01-01 00:00:00');
    CREATE TABLE nothing (id int, at TIMESTAMP_TYPE NOT NULL);
    CREATE INDEX nothing_at ON nothing (at);
    CREATE TABLE gone (id int);
    INSERT INTO gone VALUES (1)";

use Found::{ByRows, ByStatistics};

const CHANGES: [Change; 18] = [
    change(
        "a table that had no row gets one",
        "INSERT INTO nothing VALUES (1, '2024-01-01 00:00:00')",
        "DELETE FROM nothing",
        ByStatistics,
        "nothing",
    ),
    change(
        "the first row is gone",
        "DELETE FROM t WHERE id = 0",
        "INSERT INTO t VALUES (0, '2024-01-01 00:00:00', 1, 10, 0.1, 1.10, '2024-01-01', 'a')",
        ByStatistics,
        ".t ",
    ),
    change(
        "the last row is gone",
        "DELETE FROM t WHERE id = 9",
        "INSERT INTO t VALUES (9, '2024-01-10 00:00:00', 10, 19, 1.0, 0.00, '2024-01-10', 'j')",
        ByStatistics,
        ".t ",
    ),
    change(
        "the row without a time is gone",
        "DELETE FROM t WHERE id = 10",
        "INSERT INTO t VALUES (10, NULL, 11, 20, 1.1, 1.00, '2024-01-11', 'k')",
        ByStatistics,
        "null-time",
    ),
    change(
        "a row moves by a microsecond",
        "UPDATE t SET at = '2024-01-05 12:00:00.000002' WHERE id = 5",
        "UPDATE t SET at = '2024-01-05 12:00:00.000001' WHERE id = 5",
        ByStatistics,
        ".t ",
    ),
    change(
        "a row comes in an old window",
        "INSERT INTO t (id, at) VALUES (11, '2024-01-02 13:00:00')",
        "DELETE FROM t WHERE id = 11",
        ByStatistics,
        ".t ",
    ),
    change(
        "a row comes before all others",
        "INSERT INTO t (id, at) VALUES (11, '2020-01-01 00:00:00')",
        "DELETE FROM t WHERE id = 11",
        ByStatistics,
        ".t ",
    ),
    change(
        "a row comes after all others",
        "INSERT INTO t (id, at) VALUES (11, '2024-02-01 00:00:00')",
        "DELETE FROM t WHERE id = 11",
        ByStatistics,
        ".t ",
    ),
    change(
        "an integer is another",
        "UPDATE t SET n = 7 WHERE id = 5",
        "UPDATE t SET n = 6 WHERE id = 5",
        ByStatistics,
        "sum of `n`",
    ),
    change(
        "a float is another",
        "UPDATE t SET f = 0.61 WHERE id = 5",
        "UPDATE t SET f = 0.6 WHERE id = 5",
        ByRows,
        ".t ",
    ),
    change(
        "the only float of a window is another",
        "UPDATE t SET f = 0.11 WHERE id = 0",
        "UPDATE t SET f = 0.1 WHERE id = 0",
        ByStatistics,
        "`f`",
    ),
    change(
        "a decimal is another",
        "UPDATE t SET d = 7.71 WHERE id = 6",
        "UPDATE t SET d = 7.70 WHERE id = 6",
        ByStatistics,
        "`d`",
    ),
    change(
        "a date is another",
        "UPDATE t SET day = '9999-12-30' WHERE id = 6",
        "UPDATE t SET day = '9999-12-31' WHERE id = 6",
        ByStatistics,
        "`day`",
    ),
    change(
        "a null becomes a value",
        "UPDATE t SET s = '' WHERE id = 5",
        "UPDATE t SET s = NULL WHERE id = 5",
        ByStatistics,
        "values of `s`",
    ),
    change(
        "a text is another",
        "UPDATE t SET s = 'x' WHERE id = 0",
        "UPDATE t SET s = 'a' WHERE id = 0",
        ByRows,
        ".t ",
    ),
    change(
        "two rows exchange a value",
        "UPDATE w SET s = CASE id WHEN 1 THEN 'two' ELSE 'one' END",
        "UPDATE w SET s = CASE id WHEN 1 THEN 'one' ELSE 'two' END",
        ByRows,
        ".w ",
    ),
    change(
        "one of two equal rows becomes another",
        "INSERT INTO w VALUES (3, 'two'); DELETE FROM w WHERE id = 1",
        "DELETE FROM w WHERE id = 3; INSERT INTO w VALUES (1, 'one')",
        ByStatistics,
        ".w ",
    ),
    change(
        "a table comes",
        "CREATE TABLE late (id int); INSERT INTO late VALUES (1)",
        "DROP TABLE late",
        ByStatistics,
        "late",
    ),
];

fn verify(server: &Relational, config: &str, args: &[&str]) -> Run {
    let mut command = command(["verify", "--config", config, "--against-source", "--json"]);
    command.args(args);
    server.authorize(&mut command);
    support::program::run(command)
}

#[track_caller]
fn assert_verdict(run: &Run, status: i32, names: &str, what: &str) {
    assert_eq!(run.status, status, "{what}: {}{}", run.stdout, run.stderr);
    let report = run.json();
    assert_eq!(report["verdict"] == "safe", status == 0, "{what}: {report}");
    let open = report["open"].to_string();
    assert!(open.contains(names), "{what}: {names} is not in {open}");
}

/// The tables and an archive of them.
struct Shop<'a> {
    server: &'a Relational,
    folder: TempDir,
}

impl<'a> Shop<'a> {
    fn new(server: &'a Relational) -> Self {
        let (time, float) = match server {
            Relational::Postgres(_) => ("timestamp", "double precision"),
            Relational::MySql(_) => ("datetime(6)", "double"),
        };
        server.sql("", "CREATE DATABASE shop");
        let tables = TABLES.replace("TIMESTAMP_TYPE", time).replace("FLOAT_TYPE", float);
        server.sql("shop", &tables);
        let this = Self { server, folder: TempDir::new().unwrap() };
        let text = format!(
            "archive = \"archive\"\nwindow = \"3d\"\n[[source]]\nname = \"shop\"\nurl = {:?}\n\
             time_columns = {{ t = \"at\", strict = \"at\", nothing = \"at\" }}\n",
            server.url("shop")
        );
        fs::write(this.config(), text).unwrap();
        this.export(&[]).expect(0);
        this
    }

    fn config(&self) -> String {
        self.folder.path().join("config.toml").to_str().unwrap().to_owned()
    }

    fn export(&self, args: &[&str]) -> Run {
        let mut export = command(["export", "--json", "--config", &self.config()]);
        export.args(args);
        self.server.authorize(&mut export);
        support::program::run(export)
    }

    fn verify(&self, args: &[&str]) -> Run {
        verify(self.server, &self.config(), args)
    }

    fn json(&self, file: &str) -> Value {
        let bytes = fs::read(self.folder.path().join("archive").join(file)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Rows that the catalog has of a table.
    fn rows(&self, table: &str) -> u64 {
        let tables = self.json("catalog/tables.json");
        let tables = tables.as_array().unwrap();
        let found = tables.iter().find(|entry| entry["table"] == table).unwrap();
        found["rows"].as_u64().unwrap()
    }

    /// The proof finds a change, the next export takes it in, and the next proof is content.
    #[track_caller]
    fn heals(&self, change: &str, depth: &[&str], names: &str) -> Value {
        self.server.sql("shop", change);
        let found = self.verify(depth);
        assert_verdict(&found, 4, names, change);
        let open = found.json()["open"].to_string();
        assert!(open.contains("run the same `moveout export` again"), "{change}: {open}");
        let exported = self.export(&[]).expect(0).json();
        assert_verdict(&self.verify(&["--deep"]), 0, "[]", change);
        // And that is the end of it.
        let again = self.export(&[]).expect(0).json();
        assert_eq!(again["read_again"]["stale"], 0, "{change}: {again}");
        exported
    }
}

fn every_change_is_found_in(server: &Relational) {
    let shop = Shop::new(server);
    let config = shop.config();
    let config = config.as_str();
    for Change { name, change, back, found, names } in CHANGES {
        server.sql("shop", change);
        let place = if found == ByRows { names } else { "" };
        let (status, names) = if found == ByStatistics { (4, names) } else { (0, "[]") };
        assert_verdict(&verify(server, config, &[]), status, names, name);
        assert_verdict(&verify(server, config, &["--deep"]), 4, place, name);
        // What was found once is looked at again in the same way.
        assert_verdict(&verify(server, config, &[]), 4, place, name);
        server.sql("shop", back);
        assert_verdict(&verify(server, config, &[]), 0, "[]", "all is as before");
    }
    assert_verdict(&verify(server, config, &["--deep"]), 0, "[]", "all is as before");
    // Its time could not be null when the table was exported.
    server.sql(
        "shop",
        match server {
            Relational::Postgres(_) => "ALTER TABLE strict ALTER COLUMN at DROP NOT NULL",
            Relational::MySql(_) => "ALTER TABLE strict MODIFY at datetime(6) NULL",
        },
    );
    assert_verdict(&verify(server, config, &[]), 0, "[]", "no row without a time came");
    server.sql("shop", "INSERT INTO strict VALUES (2, NULL)");
    assert_verdict(
        &verify(server, config, &[]),
        4,
        "strict null-time",
        "a row without a time came",
    );
    server.sql("shop", "DELETE FROM strict WHERE id = 2");
    server.sql("shop", "DROP TABLE gone");
    assert_verdict(&verify(server, config, &[]), 4, "does not list it any more", "a table goes");
}

fn what_changed_is_exported_again_from(server: &Relational) {
    let shop = Shop::new(server);
    let exported = shop.heals("DELETE FROM t WHERE id = 3", &[], ".t 20240104");
    assert_eq!(exported["read_again"]["stale"], 1, "{exported}");
    assert_eq!(shop.rows("t"), 10);
    // A row comes in an old window; a text is another, which only its rows tell.
    shop.heals("INSERT INTO t (id, at) VALUES (11, '2024-01-02 13:00:00')", &[], ".t 20240101");
    shop.heals("UPDATE t SET s = 'x' WHERE id = 0", &["--deep"], ".t 20240101");
    assert_eq!(shop.rows("t"), 11);
    // The row without a time, and a table without any time.
    shop.heals("DELETE FROM t WHERE id = 10", &[], "null-time");
    shop.heals("UPDATE w SET s = 'three' WHERE id = 1", &["--deep"], ".w all");
    assert_eq!((shop.rows("t"), shop.rows("w")), (10, 3));
    // All rows of a window, of a table that is read whole, of a table with windows.
    shop.heals("DELETE FROM t WHERE at < '2024-01-04'", &[], ".t 20240101");
    shop.heals("DELETE FROM w", &[], ".w all");
    assert_eq!(shop.rows("w"), 0, "the proof said that these rows would go");
    let chunks = shop.heals("DELETE FROM t", &[], ".t");
    assert!(chunks["read_again"]["stale"].as_u64().unwrap() > 1, "{chunks}");
    assert_eq!(shop.rows("t"), 0);
    shop.heals("INSERT INTO t (id, at) VALUES (12, '2024-01-02 13:00:00')", &[], ".t");
    assert_eq!(shop.rows("t"), 1);

    // A table goes: its rows stay, and the export records it once.
    let exported = shop.heals("DROP TABLE gone", &[], "does not list it any more");
    assert_eq!(exported["gone"][0]["table"]["table"], "gone", "{exported}");
    assert_eq!(shop.rows("gone"), 1);
    let before = shop.json("catalog/run.json");
    assert_eq!(before["gone"].as_array().unwrap().len(), 1, "{before}");
    let notes = shop.verify(&[]).json()["notes"].to_string();
    assert!(notes.contains("as an export recorded"), "{notes}");
    shop.export(&[]).expect(0);
    assert_eq!(shop.json("catalog/run.json")["gone"], before["gone"], "it is recorded once");
    // It comes back, with another row.
    server.sql("shop", "CREATE TABLE gone (id int)");
    server.sql("shop", "INSERT INTO gone VALUES (2), (3)");
    assert_verdict(&shop.verify(&[]), 4, ".gone", "it is not what it was");
    shop.export(&[]).expect(0);
    assert_eq!(shop.json("catalog/run.json").get("gone"), None);
    assert_verdict(&shop.verify(&["--deep"]), 0, "[]", "it is there again");

    // A table that is left out is not gone, and one that nobody asked for is open.
    let config = fs::read_to_string(shop.config()).unwrap();
    fs::write(shop.config(), format!("{config}exclude = [\"w\"]\n")).unwrap();
    shop.export(&[]).expect(0);
    assert_eq!(shop.json("catalog/run.json").get("gone"), None, "it is left out");
    let run = shop.verify(&[]);
    assert_verdict(&run, 0, "[]", "it is left out");
    assert!(run.json()["notes"].to_string().contains("left out by a rule"), "{}", run.stdout);
    fs::write(shop.config(), format!("{config}tables = [\"t\"]\n")).unwrap();
    assert_verdict(&shop.verify(&[]), 3, "does not include them", "some were not asked for");
    shop.export(&[]).expect(0);
    assert_eq!(shop.json("catalog/run.json").get("gone"), None, "they were not asked for");
}

/// What a column became in one run is no difference where another run has it in its own type.
fn what_became_text_in_some_runs_is_proved_from(server: &Relational) {
    let (odd, time, analyze) = match server {
        Relational::Postgres(_) => ("infinity", "timestamptz", "ANALYZE"),
        Relational::MySql(_) => ("0000-00-00", "datetime(6)", "ANALYZE TABLE t, u"),
    };
    let day = |number: usize| format!("2024-{:02}-{:02}", 1 + number / 28, 1 + number % 28);
    let rows = (0..112).map(|number| {
        let other = if number == 90 { odd.to_owned() } else { day(number) };
        format!("({number}, '{} 00:00:00', '{other}', 1, repeat('s', 1800))", day(number))
    });
    let rows: Vec<String> = rows.collect();
    server.sql("", "CREATE DATABASE became");
    let tables = format!(
        "CREATE TABLE t (id int, at {time} NOT NULL, day date, n int, s varchar(2000));
         CREATE INDEX t_at ON t (at);
         INSERT INTO t VALUES {}, (112, '{odd}', '2024-01-01', 1, 'odd');
         CREATE TABLE u (id int, at {time} NOT NULL, day date, n int, s varchar(2000));
         CREATE INDEX u_at ON u (at);
         INSERT INTO u SELECT * FROM t WHERE id < 112;
         {analyze}",
        rows.join(", ")
    );
    server.sql("became", &tables);
    let shards = [vec!["--shard", "1/2"], vec!["--shard", "0/2"], vec![]];
    // A run without any such value, one with such a day, one with such a time.
    let ranges = [
        vec!["--from", "2024-02-01", "--to", "2024-03-01"],
        vec!["--from", "2024-02-01", "--to", "2024-04-10"],
        vec![],
    ];
    // Which shard has the odd values depends on how the server's own estimates divide the tables.
    for (runs, least) in [(ranges, 5), (shards, 3)] {
        let shop = Shop { server, folder: TempDir::new().unwrap() };
        let text = format!(
            "archive = \"archive\"\nwindow = \"3d\"\n[[source]]\nname = \"shop\"\nurl = {:?}\n\
             time_columns = {{ t = \"at\", u = \"at\" }}\n",
            server.url("became")
        );
        fs::write(shop.config(), text).unwrap();
        for more in &runs {
            let warnings = shop.export(more).expect(0).json()["warnings"].to_string();
            assert!(!warnings.contains("before they existed"), "{more:?}: {warnings}");
        }
        let archive = Archive::open(shop.folder.path().join("archive"));
        let types = |table: &str| {
            let files = archive.files_of(table);
            files.iter().map(|file| format!("{:?}", file.columns())).collect::<BTreeSet<_>>()
        };
        assert!(types("t").len() + types("u").len() >= least, "{runs:?}");

        // Nobody wrote: that is proved at once, and there is nothing to do.
        assert_verdict(&shop.verify(&["--deep"]), 0, "[]", "nothing changed");
        assert_verdict(&shop.verify(&[]), 0, "[]", "nothing changed");
        let again = shop.export(&[]).expect(0).json();
        assert_eq!((&again["chunks"], &again["read_again"]["stale"]), (&0.into(), &0.into()));
        let warnings = again["warnings"].to_string();
        assert!(!warnings.contains("before they existed"), "{warnings}");

        // One value that is another is found in each chunk, whatever types it has.
        let ids = [0, 30, 60, 91, 111].into_iter().flat_map(|id| [("t", id), ("u", id)]);
        for (table, id) in ids.chain([("t", 112)]) {
            let change = format!("UPDATE {table} SET s = 'other' WHERE id = {id}");
            server.sql("became", &change);
            let found = shop.verify(&["--deep"]);
            assert_verdict(&found, 4, "but other values", &change);
            assert_eq!(found.json()["open"].as_array().unwrap().len(), 1, "{}", found.stdout);
            let before = if id == 112 { "'odd'" } else { "repeat('s', 1800)" };
            server.sql("became", &format!("UPDATE {table} SET s = {before} WHERE id = {id}"));
        }
        // So is one of the column that is text in some of them alone, and the next run takes it in.
        let change = "UPDATE u SET day = '1999-01-01' WHERE id IN (0, 91)";
        server.sql("became", change);
        let found = shop.verify(&["--deep"]);
        assert_verdict(&found, 4, ".u ", change);
        assert_eq!(found.json()["open"].as_array().unwrap().len(), 2, "{}", found.stdout);
        assert_eq!(shop.export(&[]).expect(0).json()["read_again"]["stale"], 2);
        assert_verdict(&shop.verify(&["--deep"]), 0, "[]", change);
        assert_eq!(shop.export(&[]).expect(0).json()["chunks"], 0);
        for id in [0, 91] {
            let back = format!("UPDATE u SET day = '{}' WHERE id = {id}", day(id));
            server.sql("became", &back);
        }
    }
}

#[test]
fn what_became_text_in_some_runs_of_postgresql_is_proved() {
    what_became_text_in_some_runs_is_proved_from(&Kind::all()[0].start().unwrap());
}

#[test]
fn what_became_text_in_some_runs_of_mariadb_is_proved() {
    let kind = Kind::all().into_iter().find(|kind| kind.name() == "MariaDB").unwrap();
    what_became_text_in_some_runs_is_proved_from(&kind.start().unwrap());
}

#[test]
fn what_changed_in_postgresql_is_exported_again() {
    what_changed_is_exported_again_from(&Kind::all()[0].start().unwrap());
}

#[test]
fn what_changed_in_mariadb_is_exported_again() {
    let kind = Kind::all().into_iter().find(|kind| kind.name() == "MariaDB").unwrap();
    what_changed_is_exported_again_from(&kind.start().unwrap());
}

#[test]
fn every_change_is_found_in_postgresql() {
    every_change_is_found_in(&Kind::all()[0].start().unwrap());
}

#[test]
fn every_change_is_found_in_mariadb() {
    let kind = Kind::all().into_iter().find(|kind| kind.name() == "MariaDB").unwrap();
    every_change_is_found_in(&kind.start().unwrap());
}

/// An archive of an InfluxDB 1.x with two retention policies.
struct Influx {
    server: Influxd,
    folder: TempDir,
}

impl Influx {
    fn new() -> Self {
        let server = Influxd::start();
        server.query("CREATE DATABASE plant");
        server.query("CREATE RETENTION POLICY old ON plant DURATION INF REPLICATION 1");
        for (policy, measurement) in [("autogen", "pump"), ("old", "valve")] {
            let lines: Vec<String> = (0..100)
                .map(|i| {
                    let time = 1_704_067_200_000_000_000_i64 + i * 3_600_000_000_000;
                    format!("{measurement},site=s{} flow={}.5,count={i}i {time}", i % 3, i * 7 % 50)
                })
                .collect();
            server.write("plant", policy, &lines.join("\n"));
        }
        let this = Self { server, folder: TempDir::new().unwrap() };
        this.export().expect(0);
        this
    }

    fn export(&self) -> Run {
        let source = format!("influxdb+{}/plant", self.server.http());
        moveout(["export", "--source", &source, "--archive", &self.root(), "--window", "1d"])
    }

    fn export_json(&self) -> Run {
        let source = format!("influxdb+{}/plant", self.server.http());
        let archive = self.root();
        moveout(["export", "--json", "--source", &source, "--archive", &archive, "--window", "1d"])
    }

    fn root(&self) -> String {
        self.folder.path().join("archive").to_str().unwrap().to_owned()
    }

    /// The sources are those that the archive records.
    fn verify(&self, args: &[&str]) -> Run {
        let root = self.root();
        let verb = ["verify", &root, "--against-source", "--json"];
        moveout(verb.iter().chain(args))
    }
}

#[test]
fn an_influxdb_is_asked_as_the_archive_records_it() {
    let influx = Influx::new();
    let safe = influx.verify(&[]);
    assert_verdict(&safe, 0, "[]", "nothing changed");
    let asked = safe.json();
    assert_eq!(asked["compared"]["counts"], asked["chunks"], "{}", safe.stdout);
    assert!(asked["chunks"].as_u64().unwrap() > 2, "{}", safe.stdout);
    assert_verdict(&influx.verify(&["--deep"]), 0, "[]", "nothing changed");

    // A value alone: counts do not show it, and the text says what was compared.
    influx.server.write("plant", "old", "valve,site=s1 flow=1000.5 1704070800000000000");
    assert_verdict(&influx.verify(&[]), 0, "[]", "a value changed");
    let text = moveout(["verify", &influx.root(), "--against-source"]).expect(0).stdout;
    assert!(text.contains("by the number of values of each field"), "{text}");
    assert!(text.contains("SAFE TO CANCEL, as far as that tells"), "{text}");
    let deep = influx.verify(&["--deep"]);
    assert_verdict(&deep, 4, "plant.old.valve 20240101T", "a value changed");
    influx.server.write("plant", "old", "valve,site=s1 flow=7.5 1704070800000000000");
    assert_verdict(&influx.verify(&["--deep"]), 0, "[]", "it is as it was");

    // A point at the boundary of two windows, late.
    influx.server.write("plant", "autogen", "pump,site=late flow=1 1704153600000000000");
    assert_verdict(&influx.verify(&[]), 4, "plant.autogen.pump 20240102T000000Z", "a late point");
    influx.server.query_in("plant", "DELETE FROM pump WHERE site = 'late'");
    influx.server.query_in("plant", "DELETE FROM pump WHERE time = 1704067200000000000");
    assert_verdict(
        &influx.verify(&[]),
        4,
        "plant.autogen.pump 20240101T",
        "the first point is gone",
    );
    let text = moveout(["verify", &influx.root(), "--against-source"]).stdout;
    assert!(text.contains("NOT YET: ") && !text.contains("SAFE"), "{text}");
}

#[test]
fn a_line_protocol_file_is_read_again() {
    let folder = TempDir::new().unwrap();
    let (file, root) = (folder.path().join("a.lp"), folder.path().join("archive"));
    let (root, source) = (root.to_str().unwrap(), format!("lp:{}", file.display()));
    fs::write(&file, "m,t=x v=1,w=\"a\" 1000\nm v=2 2000\n").unwrap();
    moveout(["export", "--source", &source, "--archive", root]).expect(0);
    let verify = || moveout(["verify", root, "--against-source", "--json"]);
    let safe = verify().expect(0).json();
    assert_eq!(safe["compared"], serde_json::json!({"rows": 1}), "{safe}");
    fs::write(&file, "m,t=x v=1,w=\"b\" 1000\nm v=2 2000\n").unwrap();
    assert_verdict(&verify(), 4, "other values", "a text changed");
    fs::remove_file(&file).unwrap();
    let gone = verify();
    assert_ne!(gone.status, 0, "{}", gone.stdout);
    assert!(gone.stderr.contains("a.lp"), "{}", gone.stderr);
}

#[test]
fn what_could_not_be_compared_is_not_safe() {
    // Of two sources one does not answer any more.
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["a", "b"] {
        fs::write(path(&format!("{name}.lp")), format!("{name} v=1 1000\n")).unwrap();
    }
    let config = path("config.toml");
    let source = |name: &str| format!("[[source]]\nname = \"{name}\"\nurl = \"lp:{name}.lp\"\n");
    fs::write(&config, format!("archive = \"archive\"\n{}{}", source("a"), source("b"))).unwrap();
    moveout(["export", "--config", &config]).expect(0);
    let verify = |args: &[&str]| {
        let verb = ["verify", "--config", &config, "--against-source", "--json"];
        moveout(verb.iter().chain(args))
    };
    assert_verdict(&verify(&[]), 0, "[]", "both are there");
    assert_verdict(&verify(&["--source", "a"]), 3, "it was not asked", "one is not asked");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!(
        "archive = \"archive\"\npatience = \"1s\"\nattempts = 1\n{}[[source]]\nname = \"b\"\nurl = \"influxdb+http://{}/b\"\n",
        source("a"),
        closed.local_addr().unwrap()
    );
    drop(closed);
    fs::write(&config, away).unwrap();
    let run = verify(&[]);
    assert!(matches!(run.status, 1 | 3), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.json()["verdict"], "not yet", "{}", run.stdout);

    // A file of the archive that was changed.
    let data = support::files(&folder.path().join("archive/data")).into_iter().next().unwrap();
    let data = folder.path().join("archive/data").join(data);
    let mut bytes = fs::read(&data).unwrap();
    bytes[10] ^= 1;
    fs::write(&data, bytes).unwrap();
    let run = verify(&[]);
    assert_verdict(&run, 4, "see to the faults first", "a changed file");
}

#[test]
fn an_archive_without_a_seal_is_not_compared() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("archive");
    let (root, file) = (root.to_str().unwrap(), folder.path().join("a.lp"));
    fs::write(&file, "m v=1 1000\n").unwrap();
    let source = format!("lp:{}", file.display());
    moveout(["export", "--source", &source, "--archive", root]).expect(0);
    fs::remove_file(folder.path().join("archive/tagmanifest-sha256.txt")).unwrap();
    let run = moveout(["verify", root, "--against-source", "--json"]);
    let report: Value = run.json();
    assert_eq!((run.status, &report["verdict"]), (3, &Value::from("not yet")), "{report}");
    assert!(report["open"].to_string().contains("it is not sealed"), "{report}");
}

fn last_verdict_status(root: &str) -> Value {
    moveout(["status", root, "--json"]).expect(0).json()["verdict"].clone()
}

/// The last verdict, as `status` and the file have it.
fn last_verdict(root: &str) -> (Value, Option<Value>) {
    let status = last_verdict_status(root);
    let file = fs::read(format!("{root}/catalog/verdict.json")).ok();
    (status, file.map(|bytes| serde_json::from_slice(&bytes).unwrap()))
}

#[test]
fn the_verdict_is_recorded_and_holds_until_the_archive_changes() {
    let influx = Influx::new();
    let root = influx.root();
    assert_eq!(last_verdict(&root), (Value::Null, None), "nobody has asked");
    assert_verdict(&influx.verify(&[]), 0, "[]", "nothing changed");
    let (status, record) = last_verdict(&root);
    assert_eq!(
        (&status["verdict"], &status["valid"], &status["open"]),
        (&"safe".into(), &true.into(), &0.into()),
        "{status}"
    );
    let record = record.unwrap();
    assert_eq!((&record["verdict"], &record["depth"]), (&"safe".into(), &"statistics".into()));
    for time in ["started", "ended"] {
        let text = record[time].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
    }
    let tables = record["compared"].as_array().unwrap();
    assert_eq!(tables.len(), 2, "{record}");
    let compared = &tables[0];
    assert_eq!((&compared["level"], &compared["different"]), (&"counts".into(), &0.into()));
    assert_eq!(compared["equal"].as_array().unwrap().len(), 1, "{compared}");
    let text = moveout(["status", &root]).expect(0).stdout;
    assert!(text.contains("verdict    SAFE TO CANCEL, as of 2"), "{text}");
    moveout(["verify", &root]).expect(0);

    // The next export has nothing to do, and the verdict stays what it was.
    influx.export().expect(0);
    assert_eq!(last_verdict(&root), (status, Some(record)));
    // Another depth.
    assert_verdict(&influx.verify(&["--sample", "50%"]), 0, "[]", "nothing changed");
    assert_eq!(last_verdict(&root).0["depth"], "sample 50%");
    assert_verdict(&influx.verify(&["--deep"]), 0, "[]", "nothing changed");
    assert_eq!(last_verdict(&root).0["depth"], "deep");
    assert!(fs::metadata(format!("{root}/.moveout")).is_err(), "its heartbeat is gone");

    // Somebody puts a signature beside it, and the archive is valid with it; the export takes all of it away.
    fs::write(format!("{root}/tagmanifest-sha256.txt.minisig"), "of somebody").unwrap();
    moveout(["verify", &root]).expect(0);
    influx.server.write("plant", "autogen", "pump,site=s9 flow=1 1904067200000000000");
    assert_verdict(&influx.verify(&["--deep"]), 4, "plant.autogen.pump", "a row came");
    let (status, record) = last_verdict(&root);
    assert_eq!((&status["verdict"], &status["valid"]), (&"not yet".into(), &true.into()));
    assert_eq!(record.unwrap()["stale"], serde_json::json!([]), "a new row makes no chunk stale");
    influx.export().expect(0);
    assert_eq!(last_verdict(&root), (Value::Null, None));
    assert!(fs::metadata(format!("{root}/tagmanifest-sha256.txt.minisig")).is_err());
    moveout(["verify", &root]).expect(0);
}

#[test]
fn what_changed_in_an_influxdb_is_exported_again() {
    let influx = Influx::new();
    let root = influx.root();
    let heals = |names: &str, what: &str| {
        assert_verdict(&influx.verify(&["--deep"]), 4, names, what);
        let exported = influx.export_json().expect(0).json();
        assert_verdict(&influx.verify(&["--deep"]), 0, "[]", what);
        exported
    };
    influx.server.query_in("plant", "DELETE FROM pump WHERE time = 1704070800000000000");
    let exported = heals("pump 20240101T", "a point went");
    assert_eq!(
        (&exported["read_again"]["stale"], &exported["rows_total"]),
        (&1.into(), &199.into())
    );
    influx.server.write("plant", "old", "valve,site=s1 flow=1000.5 1704070800000000000");
    heals("valve 20240101T", "a value is another");
    influx.server.write("plant", "autogen", "pump,site=late flow=1 1704153600000000000");
    heals("pump 20240102T", "a point came late");
    influx.server.query_in("plant", "DROP MEASUREMENT pump");
    let exported = heals("pump", "a measurement went");
    assert_eq!(exported["gone"].as_array().unwrap().len(), 1, "{exported}");
    influx.server.write("plant", "autogen", "pump,site=new flow=1 1704153600000000000");
    assert_verdict(&influx.verify(&[]), 4, "pump", "it is there again, and has another row");
    let exported = influx.export_json().expect(0).json();
    assert_eq!(exported["gone"], serde_json::json!([]), "{exported}");
    assert_verdict(&influx.verify(&["--deep"]), 0, "[]", "the rows are those that it has now");
    // The server would go on listing the measurement, without any field.
    influx.server.query_in("plant", "DROP MEASUREMENT valve");
    influx.server.query_in("plant", "DROP RETENTION POLICY old ON plant");
    let exported = heals("valve", "a retention policy went");
    assert_eq!(exported["gone"][0]["table"]["schema"], "old", "{exported}");
    moveout(["verify", &root]).expect(0);
}

#[test]
fn a_stale_chunk_is_read_again_although_the_first_run_was_killed() {
    let influx = Influx::new();
    influx.server.query_in("plant", "DELETE FROM pump WHERE time = 1704070800000000000");
    assert_verdict(&influx.verify(&[]), 4, "pump 20240101T", "a point went");
    // As a run leaves it that is killed when it has taken off the seal.
    let folder = influx.folder.path().join("archive");
    let tags = fs::read(folder.join("tagmanifest-sha256.txt")).unwrap();
    let tags = String::from_utf8(tags).unwrap();
    let record: String = tags
        .lines()
        .filter(|l| l.contains("  catalog/"))
        .fold(String::new(), |record, line| record + line + "\n");
    let hash = moveout::hash::sha256(record.as_bytes());
    fs::create_dir_all(folder.join(".moveout/seals")).unwrap();
    fs::write(folder.join(format!(".moveout/seals/{hash}.txt")), record).unwrap();
    fs::remove_file(folder.join("tagmanifest-sha256.txt")).unwrap();
    fs::remove_file(folder.join("manifest-sha256.txt")).unwrap();
    let status = last_verdict(&influx.root()).0;
    assert_eq!((&status["valid"], &status["stale"]), (&false.into(), &1.into()), "{status}");
    let exported = influx.export_json().expect(0).json();
    assert_eq!(exported["read_again"]["stale"], 1, "{exported}");
    assert_verdict(&influx.verify(&["--deep"]), 0, "[]", "it was read again");
    assert!(!folder.join(".moveout").exists());
}

#[test]
fn a_verdict_of_nonsense_is_none() {
    let influx = Influx::new();
    assert_verdict(&influx.verify(&[]), 0, "[]", "nothing changed");
    let root = influx.root();
    for nonsense in ["", "{", "null", "[1]", "\u{0}", "{\"format\":2,\"stale\":3}"] {
        let file = format!("{root}/catalog/verdict.json");
        fs::write(&file, nonsense).unwrap();
        // It is listed, and not what is listed.
        moveout(["verify", &root]).expect(4);
        let status = moveout(["status", &root]).expect(0).stdout;
        assert!(status.contains("none that can be read; no longer valid"), "{status}");
        // Where nothing lists it, it says nothing, and the next proof puts its own in its place.
        let tags = fs::read_to_string(format!("{root}/tagmanifest-sha256.txt")).unwrap();
        let lines: Vec<&str> = tags.lines().filter(|line| !line.contains("verdict")).collect();
        fs::write(format!("{root}/tagmanifest-sha256.txt"), lines.join("\n") + "\n").unwrap();
        moveout(["verify", &root]).expect(0);
        assert_eq!(last_verdict_status(&root), Value::Null);
        assert_verdict(&influx.verify(&[]), 0, "[]", "nothing changed");
        assert_eq!(last_verdict(&root).0["valid"], true);
    }
}

#[test]
fn what_was_not_there_or_not_asked_for_is_known_of_an_influxdb() {
    let server = Influxd::start();
    server.query("CREATE DATABASE plant");
    server.query("CREATE RETENTION POLICY raw ON plant DURATION INF REPLICATION 1");
    server.write("plant", "autogen", "pump v=1 1704067200000000000");
    server.write("plant", "raw", "pump v=2 1704067200000000000");
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (all, one) = (path("all"), path("one"));
    let url = format!("influxdb+{}", server.http());
    moveout(["export", "--source", &url, "--archive", &all]).expect(0);
    fs::write(
        path("config.toml"),
        format!(
            "archive = \"one\"\n[[source]]\nname = \"plant\"\nurl = \"{url}/plant\"\nretention_policies = [\"autogen\"]\n"
        ),
    )
    .unwrap();
    moveout(["export", "--config", &path("config.toml")]).expect(0);
    // Without the configuration: the archive knows what was asked for.
    let verify = |root: &str| moveout(["verify", root, "--against-source", "--json"]);
    assert_verdict(&verify(&all), 0, "[]", "nothing changed");
    let of_one = verify(&one);
    assert_verdict(&of_one, 0, "[]", "nothing changed");
    let excluded = of_one.json()["excluded"].to_string();
    assert!(excluded.contains("retention policy plant.raw"), "{excluded}");
    // A database comes, first without any row.
    server.query("CREATE DATABASE other");
    assert_verdict(&verify(&all), 0, "[]", "it is empty");
    server.write("other", "autogen", "late v=1 1704067200000000000");
    assert_verdict(&verify(&all), 4, "other.autogen.late", "a database came");
    let of_one = verify(&one);
    assert_verdict(&of_one, 0, "[]", "another database was not asked for");
    let excluded = of_one.json()["excluded"].to_string();
    assert!(excluded.contains("database other"), "{excluded}");
    // A policy comes.
    server.query("CREATE RETENTION POLICY more ON plant DURATION INF REPLICATION 1");
    server.write("plant", "more", "pump v=1 1704067200000000000");
    moveout(["export", "--source", &url, "--archive", &all]).expect(0);
    assert_verdict(&verify(&all), 0, "[]", "all of it was exported");
    assert_verdict(&verify(&one), 0, "[]", "other policies were not asked for");
    // A database goes, with all of its tables.
    server.query("DROP DATABASE other");
    assert_verdict(&verify(&all), 4, "other.autogen.late", "a database went");
    moveout(["export", "--source", &url, "--archive", &all]).expect(0);
    assert_verdict(&verify(&all), 0, "[]", "it is recorded");
    // Asked for less than was exported, it is not gone.
    let less = [&url, "/plant"].concat();
    let run = moveout(["verify", &all, "--against-source", "--json", "--source", &less, "--deep"]);
    assert_verdict(&run, 3, "does not include them", "another database was not asked for");
}

#[test]
fn a_database_that_comes_to_a_postgresql_is_seen() {
    let server = Kind::all()[0].start().unwrap();
    server.sql("", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("archive").to_str().unwrap().to_owned();
    let url = server.url("");
    let user = url.split_once("://").unwrap().1.split_once('@').unwrap().0.to_owned();
    let run = |args: &[&str]| {
        let mut command = command(args);
        server.authorize(&mut command);
        command.env("PGUSER", &user); // the archive does not say who
        support::program::run(command)
    };
    run(&["export", "--source", url.trim_end_matches('/'), "--archive", &root]).expect(0);
    let verify = || run(&["verify", &root, "--against-source", "--json"]);
    assert_verdict(&verify(), 0, "[]", "nothing changed");
    server.sql("", "CREATE DATABASE late");
    assert_verdict(&verify(), 0, "[]", "it has no table");
    server.sql("late", "CREATE TABLE u (id int); INSERT INTO u VALUES (1)");
    assert_verdict(&verify(), 4, "late.public.u", "a database came");
}
