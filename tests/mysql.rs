//! `moveout export` from a real MariaDB: every value, windows, what breaks meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use moveout::config::Flags;
use moveout::error::Exit;
use moveout::model::Chunk;
use moveout::source::Source;
use moveout::source::channel::BatchSender;
use moveout::source::registry::open;
use moveout::window::Slice;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use support::mariadb::{MariaDb, Options};
use support::meanwhile::export_while;
use support::run as run_of;
use support::tunnel::Tunnel;
use support::{Archive, Run, command, files, moveout, peak_memory, repository};
use tempfile::TempDir;

fn folder() -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let archive = folder.path().join("archive").to_str().unwrap().to_owned();
    (folder, archive)
}

fn data(name: &str) -> String {
    fs::read_to_string(repository("tests/data").join(name)).unwrap()
}

fn export(server: &MariaDb, database: &str, archive: &str, more: &[&str]) -> Run {
    let url = server.url(database);
    let mut command = command(["export", "--source", &url, "--archive", archive, "--json"]);
    command.args(more).env("MYSQL_PWD", server.password());
    run_of(command)
}

/// A column of the archive: its type, and each value as text.
type Cells = BTreeMap<String, (DataType, Vec<Option<String>>)>;

/// What the archive has of a table.
fn archived(archive: &str, database: &str, table: &str) -> Cells {
    let archive = Archive::open(archive);
    let mut cells = Cells::new();
    for file in archive.data_files_of(database, table) {
        let file = fs::File::open(archive.root.join(file)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in reader.map(Result::unwrap) {
            for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                let kind = field.data_type().clone();
                let (_, values) = cells.entry(field.name().clone()).or_insert((kind, Vec::new()));
                values
                    .extend((0..array.len()).map(|at| array.is_valid(at).then(|| text(array, at))));
            }
        }
    }
    cells
}

/// As the server says it when it is asked by `question`.
fn text(array: &ArrayRef, at: usize) -> String {
    match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(at).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(at).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(at).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(at).to_string(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(at).to_string(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(at).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(at).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(at).to_string(),
        DataType::Float32 => {
            format!("{:e}", f64::from(array.as_primitive::<Float32Type>().value(at)))
        }
        DataType::Float64 => format!("{:e}", array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(at),
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().value_as_date(at).unwrap().to_string()
        }
        DataType::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(at);
            let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
        }
        DataType::Utf8 => hex(array.as_string::<i32>().value(at).as_bytes()),
        DataType::Binary => hex(array.as_binary::<i32>().value(at)),
        other => panic!("{other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// What to ask the server for, so that it says all of a value.
fn question(column: &str, kind: &DataType) -> String {
    match kind {
        DataType::Float32 => format!("CAST({column} AS DOUBLE)"),
        DataType::Timestamp(..) => format!("DATE_FORMAT({column}, '%Y-%m-%d %H:%i:%s.%f')"),
        DataType::Utf8 => format!("HEX(CONVERT(CAST({column} AS CHAR) USING utf8mb4))"),
        DataType::Binary => format!("HEX(CAST({column} AS BINARY))"),
        // Without the zeros of ZEROFILL.
        DataType::Decimal128(..) => format!("{column} + 0"),
        kind if kind.is_integer() => format!("{column} + 0"),
        _ => format!("CAST({column} AS CHAR)"),
    }
}

/// Asserts that each value of a table, in the order of its `id`, is in the archive as the server has it.
#[track_caller]
fn assert_table(server: &MariaDb, archive: &str, database: &str, table: &str) {
    let found = archived(archive, database, table);
    let columns = format!(
        "SELECT COUNT(*) FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = BINARY '{table}'"
    );
    assert_eq!(server.sql("", &columns), found.len().to_string(), "{table}: {:?}", found.keys());
    for (name, (kind, values)) in found {
        let asked = question(&format!("`{}`", name.replace('`', "``")), &kind);
        let sql = format!(
            "SET time_zone = '+00:00', sql_mode = ''; SELECT {asked} FROM `{table}` ORDER BY id"
        );
        let rows = server.sql(database, &sql);
        let expected: Vec<_> = rows
            .split('\n')
            .map(|text| match (text, &kind) {
                ("NULL", _) => None,
                (text, DataType::Float32 | DataType::Float64) => {
                    Some(format!("{:e}", text.parse::<f64>().unwrap()))
                }
                (text, _) => Some(text.to_owned()),
            })
            .collect();
        assert_eq!(values.len(), expected.len(), "{table}.{name}: rows");
        for (row, (found, expected)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{table}.{name} ({kind}), row {row}");
        }
    }
}

/// Waits until what another does can be seen.
#[track_caller]
fn wait_for(mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seen() {
        assert!(Instant::now() < deadline, "nothing came");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a table is being read.
fn is_read(server: &MariaDb, table: &str) -> bool {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.processlist
         WHERE info LIKE '%`{table}`%' AND id <> connection_id()"
    );
    server.sql("", &sql) != "0"
}

/// The values of an integer column, sorted.
fn numbers(archive: &str, database: &str, table: &str, column: &str) -> Vec<i64> {
    let cells = archived(archive, database, table);
    let Some((_, values)) = cells.get(column) else { return Vec::new() };
    let mut numbers: Vec<i64> = values.iter().flatten().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

const BIG: &str = "CREATE TABLE a_big (id INT PRIMARY KEY, x DOUBLE, t VARCHAR(100));
    INSERT INTO a_big SELECT seq, seq / 7, REPEAT('x', seq % 100) FROM seq_0_to_799999;
    ANALYZE TABLE a_big";

#[test]
fn every_value_of_every_type_comes_back() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE odd");
    server.sql("odd", &data("odd_mariadb.sql"));
    let (_folder, archive) = folder();
    let run = export(&server, "odd", &archive, &[]).expect(0);
    assert_eq!(run.json()["status"], "complete");
    let tables = ["numbers", "times", "zero_dates", "texts", "others", "geometry", "columns"];
    for table in tables {
        assert_table(&server, &archive, "odd", &format!("odd_{table}"));
    }
    // Rows of the past are rows, too.
    assert_eq!(numbers(&archive, "odd", "odd_versions", "id"), [1, 1, 2]);
    assert_eq!(numbers(&archive, "odd", "odd_versions", "a"), [1, 2]);
    moveout(["verify", &archive]).expect(0);
}

#[test]
fn all_objects_are_exported_saved_or_named() {
    let server = MariaDb::start_with(Options { binlog: true, ..Options::default() });
    server.sql("", "CREATE DATABASE objects");
    server.sql("objects", &data("objects_mariadb.sql"));
    let (_folder, archive) = folder();
    let run = export(&server, "", &archive, &[]).expect(0).json();
    assert_eq!(numbers(&archive, "objects", "MixedCase", "Id"), [1]);
    assert_eq!(numbers(&archive, "objects", "mixedcase", "id"), [2]);
    assert_eq!(numbers(&archive, "objects", "no_key", "a"), [1, 1]);
    assert_eq!(numbers(&archive, "objects", "by_index", "id").len(), 1001);
    assert_eq!(numbers(&archive, "Second `Database\"", "of_second", "id"), [1]);
    let warnings = run["warnings"].to_string();
    assert!(warnings.contains("in_myisam (MyISAM)") && !warnings.contains("moment"), "{warnings}");
    let saved = |kind: &str| {
        let of = |status: &&Value| status["kind"] == kind;
        run["artifacts"].as_array().unwrap().iter().find(of).unwrap()["status"].clone()
    };
    for kind in ["tables", "sequences", "functions", "triggers", "events", "packages", "users"] {
        assert_eq!(saved(kind), "saved", "{kind}");
    }
    // One view has lost its table; its statement is there all the same.
    let text = |end: &str| {
        let path = files(archive.as_ref()).into_iter().find(|path| path.ends_with(end)).unwrap();
        fs::read_to_string(std::path::Path::new(&archive).join(path)).unwrap()
    };
    let users = text("users.sql");
    assert!(users.contains("`limited`") && !users.to_lowercase().contains("identified"), "{users}");
    // The script makes all of it again, elsewhere.
    let other = MariaDb::start();
    other.sql("", &format!("SET check_constraint_checks = 0; {}", text("ddl/objects.sql")));
    for kind in ["TABLES", "ROUTINES", "TRIGGERS", "EVENTS", "COLUMNS", "STATISTICS"] {
        let schema = if kind == "ROUTINES" { "ROUTINE" } else { kind.trim_end_matches('S') };
        let schema = match kind {
            "COLUMNS" | "STATISTICS" => "TABLE",
            _ => schema,
        };
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.{kind}
             WHERE {schema}_SCHEMA = 'objects' AND {schema}_NAME <> 'broken_view'"
        );
        assert_eq!(other.sql("", &sql), server.sql("", &sql), "{kind}");
    }
    assert_eq!(other.sql("objects", "SELECT twice(21)"), "42");

    // A user who may read little is told so, and nothing of what it may not read is silently missing.
    let (_folder, archive) = folder();
    let url = format!("mysql://limited@127.0.0.1:{}/objects", server.port());
    let mut limited = command(["export", "--source", &url, "--archive", &archive, "--json"]);
    limited.env("MYSQL_PWD", "limited secret");
    let run = run_of(limited).expect(1).json();
    assert!(run["failed"].to_string().contains("only some of its columns"), "{run}");
    assert!(run["warnings"].to_string().contains("no SELECT on *.*"), "{run}");
    assert_eq!(numbers(&archive, "objects", "by_index", "id").len(), 1001);
}

#[test]
fn windows_hold_each_row_once() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    server.sql(
        "d",
        "SET sql_mode = '', time_zone = '+00:00';
         CREATE TABLE by_key (at DATETIME(6), id INT, PRIMARY KEY (at, id));
         INSERT INTO by_key SELECT '2024-01-01' + INTERVAL seq * 977777777 MICROSECOND, seq FROM seq_1_to_5000;
         INSERT INTO by_key VALUES ('0000-00-00', 0), ('1000-01-01', -1), ('2021-00-15', -2),
             ('9999-12-31 23:59:59.999999', -3);
         CREATE TABLE by_index (id INT PRIMARY KEY, at TIMESTAMP(3) NULL, KEY (at));
         INSERT INTO by_index SELECT seq, '2024-01-01' + INTERVAL seq HOUR FROM seq_1_to_1000;
         INSERT INTO by_index VALUES (0, NULL), (-1, NULL), (-2, '0000-00-00'), (-3, '1970-01-01 00:00:01'),
             (-4, '2038-01-19 03:14:07.999');
         CREATE TABLE by_day (day DATE PRIMARY KEY, id INT);
         INSERT INTO by_day SELECT '2024-01-01' + INTERVAL seq DAY, seq FROM seq_0_to_400;
         CREATE TABLE no_index (id INT PRIMARY KEY, at DATETIME);
         INSERT INTO no_index VALUES (1, '2024-01-01');",
    );
    let (folder, archive) = folder();
    let config = folder.path().join("config.toml");
    let url = server.url("d");
    let columns = "{ \"d.by_index\" = \"at\", no_index = \"at\" }";
    let text = format!("[[source]]\nname = \"my\"\nurl = \"{url}\"\ntime_columns = {columns}\n");
    fs::write(&config, text).unwrap();
    let export = |range: &[&str], archive: &str, status| {
        let config = config.to_str().unwrap();
        let mut command = command(["export", "--config", config, "--archive", archive, "--json"]);
        command.args(range).args(["--window", "12h"]).env("MYSQL_PWD", server.password());
        run_of(command).expect(status).json()
    };
    let all = export(&[], &archive, 0);
    // Widths grow as fast as the server answers: two windows of three tables, what has no time, and the whole.
    assert!(all["chunks"].as_u64().unwrap() >= 8, "{all}");
    assert!(all["warnings"].to_string().contains("d.no_index: no index begins with `at`"), "{all}");
    let expected = |from: i64, to: i64| (from..=to).collect::<Vec<_>>();
    assert_eq!(numbers(&archive, "d", "by_key", "id"), expected(-3, 5000));
    assert_eq!(numbers(&archive, "d", "by_index", "id"), expected(-4, 1000));
    assert_eq!(numbers(&archive, "d", "by_day", "id"), expected(0, 400));
    assert_eq!(numbers(&archive, "d", "no_index", "id"), [1]);
    moveout(["verify", &archive]).expect(0);

    // A range; what lies outside of it is counted.
    let part = folder.path().join("part").to_str().unwrap().to_owned();
    let range = ["--from", "2024-01-02T00:00:00Z", "--to", "2024-01-03T00:00:00Z"];
    let summary = export(&range, &part, 0);
    assert_eq!(numbers(&part, "d", "by_day", "id"), [1]);
    assert_eq!(numbers(&part, "d", "by_index", "id"), [vec![-1, 0], expected(24, 47)].concat());
    let outside: u64 = summary["outside"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|outside| outside["table"]["table"] == "by_index")
        .map(|outside| outside["count"]["rows"].as_u64().unwrap())
        .sum();
    assert_eq!(outside, 1000 - 24 + 3);
}

/// The rows that a source has in each of these slices of the table `t`.
async fn rows_in<const N: usize>(source: &dyn Source, slices: [Slice; N]) -> [usize; N] {
    let mut tables = source.list().await.unwrap().tables.into_iter();
    let table = Arc::new(tables.find(|table| table.id.table == "t").unwrap());
    let mut found = [0; N];
    for (rows, slice) in found.iter_mut().zip(slices) {
        let (sender, mut batches) = BatchSender::channel(1);
        let chunk = Chunk { table: Arc::clone(&table), slice };
        let count = async {
            while let Some(batch) = batches.recv().await {
                *rows += batch.num_rows();
            }
        };
        tokio::join!(source.read(&chunk, sender), count).0.unwrap();
    }
    found
}

#[test]
fn rows_without_a_time_come_once_also_where_a_window_is_all_of_time() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    server.sql(
        "d",
        "SET sql_mode = '';
         CREATE TABLE t (id INT PRIMARY KEY, at DATETIME NULL, KEY (at));
         INSERT INTO t VALUES (1, '1000-01-01'), (2, '9999-12-31'), (3, NULL), (4, NULL);
         CREATE TABLE zero (id INT PRIMARY KEY, at DATETIME NOT NULL, KEY (at));
         INSERT INTO zero VALUES (1, '0000-00-00'), (2, '2024-01-01');
         CREATE TABLE empty (at DATETIME PRIMARY KEY)",
    );
    let (folder, archive) = folder();
    let config = folder.path().join("config.toml");
    let text = format!(
        "[[source]]\nname = \"my\"\nurl = \"{}\"\ntime_columns = {{ \"*\" = \"at\" }}\n",
        server.url("d")
    );
    fs::write(&config, text).unwrap();
    let mut command = command(["export", "--archive", &archive, "--config"]);
    command.arg(config).args(["--window", "100000d"]).env("MYSQL_PWD", server.password());
    run_of(command).expect(0);
    assert_eq!(numbers(&archive, "d", "t", "id"), [1, 2, 3, 4]);
    assert_eq!(numbers(&archive, "d", "zero", "id"), [1, 2]);
    let catalog = Archive::open(&archive).catalog();
    let tables: Vec<_> = catalog.iter().map(|table| table["table"].as_str().unwrap()).collect();
    assert_eq!(tables, ["empty", "t", "zero"]);

    // No width of windows makes one of all of time, which is the slice `all`; the source must know it all the same.
    let mut url = url::Url::parse(&server.url("d")).unwrap();
    url.set_password(Some(server.password())).unwrap();
    let text = format!(
        "[[source]]\nname = \"my\"\nurl = \"{url}\"\ntime_columns = {{ \"*\" = \"at\" }}\n"
    );
    let config = folder.path().join("with_password.toml");
    fs::write(&config, text).unwrap();
    let archive = Some(folder.path().join("unused").to_str().unwrap().to_owned());
    let job = moveout::config::load(Flags { config: Some(config), archive, ..Flags::default() });
    let job = job.unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let source = open(&job.sources[0], &job.limits).await.unwrap();
        assert_eq!(rows_in(&*source, [Slice::All, Slice::NullTime]).await, [2, 2]);
    });
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    server.sql(
        "d",
        "CREATE TABLE t (at DATETIME, id INT, x VARCHAR(200), PRIMARY KEY (at, id));
         INSERT INTO t SELECT '2024-01-01' + INTERVAL seq SECOND, seq, REPEAT('x', 200) FROM seq_1_to_200000;",
    );
    let (_folder, archive) = folder();
    let url = server.url("d");
    let args =
        ["export", "--source", &url, "--archive", &archive, "--window", "1h", "--concurrency", "1"];
    let mut command = command(args);
    command.env("MYSQL_PWD", server.password());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let written = || {
        let files = files(archive.as_ref());
        files.iter().filter(|path| path.ends_with(".parquet")).count()
    };
    wait_for(|| written() > 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let again = export(&server, "d", &archive, &[]).expect(0).json();
    assert!(again["chunks_before"].as_u64().unwrap() > 0, "{again}");
    assert_eq!(numbers(&archive, "d", "t", "id"), (1..=200_000).collect::<Vec<_>>());
    moveout(["verify", &archive]).expect(0);
}

#[test]
fn lost_connections_and_altered_tables_lose_no_row() {
    let server = Arc::new(MariaDb::start());
    server.sql("", "CREATE DATABASE d");
    server.sql("d", BIG);
    for concurrency in ["1", "3"] {
        let (_folder, archive) = folder();
        // The listing is a few KiB: this is in the middle of the rows.
        let tunnel = Tunnel::to(server.port());
        tunnel.cut(concurrency.parse().unwrap(), 1 << 20);
        let url = server.url("d").replace(&server.port().to_string(), &tunnel.port().to_string());
        let mut command = command(["export", "--source", &url, "--archive", &archive]);
        command.args(["--concurrency", concurrency]).env("MYSQL_PWD", server.password());
        run_of(command).expect(0);
        assert_eq!(tunnel.cuts_left(), 0);
        assert_eq!(numbers(&archive, "d", "a_big", "id"), (0..800_000).collect::<Vec<_>>());
    }
    server.sql(
        "d",
        "CREATE TABLE b_altered (id INT PRIMARY KEY); INSERT INTO b_altered VALUES (1), (2);
         CREATE TABLE c_dropped (id INT PRIMARY KEY); INSERT INTO c_dropped VALUES (1);",
    );
    let (_folder, archive) = folder();
    let mut url = url::Url::parse(&server.url("d")).unwrap();
    url.set_password(Some(server.password())).unwrap();
    let flags = Flags {
        sources: vec![url.to_string()],
        archive: Some(archive.clone()),
        ..Flags::default()
    };
    // The snapshot was taken for the first read.
    let of = Arc::clone(&server);
    let run = export_while(flags, |meanwhile| {
        meanwhile.before_read(1, move || {
            of.sql("d", "ALTER TABLE b_altered ADD COLUMN more INT DEFAULT 7, ALGORITHM = COPY; DROP TABLE c_dropped");
        });
    });
    let (summary, meanwhile) = tokio::runtime::Runtime::new().unwrap().block_on(run);
    assert!(meanwhile.read()[0].contains("a_big"), "{:?}", meanwhile.read());
    let failed = format!("{:?}", summary.failed);
    assert_eq!(summary.exit, Exit::Failed, "{failed}");
    assert!(failed.contains("c_dropped") && !failed.contains("b_altered"), "{failed}");
    assert_eq!(numbers(&archive, "d", "a_big", "id").len(), 800_000);
    assert_eq!(numbers(&archive, "d", "b_altered", "more"), [7, 7]);
}

#[test]
fn a_swapped_table_and_a_limit_of_rows_lose_none() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    server.sql("d", BIG);
    server.sql(
        "d",
        "CREATE TABLE swapped (id INT PRIMARY KEY); INSERT INTO swapped SELECT seq FROM seq_1_to_2000;
         DO SLEEP(1.1); -- tables are told apart by the second they were made in
         CREATE TABLE shadow (id INT PRIMARY KEY); INSERT INTO shadow VALUES (1);
         SET GLOBAL sql_select_limit = 1000",
    );
    let (_folder, archive) = folder();
    thread::scope(|scope| {
        let run = scope.spawn(|| export(&server, "d", &archive, &["--concurrency", "1"]));
        wait_for(|| is_read(&server, "a_big"));
        server.sql(
            "d",
            "INSERT INTO shadow SELECT seq FROM seq_2_to_2000; RENAME TABLE swapped TO z_old, shadow TO swapped",
        );
        // What was called so at the listing is not there any more.
        run.join().unwrap().expect(1);
    });
    let failed = export(&server, "d", &archive, &["--concurrency", "1"]).expect(0).json();
    assert_eq!(failed["failed"].as_array().unwrap().len(), 0);
    assert_eq!(numbers(&archive, "d", "swapped", "id"), (1..=2000).collect::<Vec<_>>());
    assert_eq!(numbers(&archive, "d", "a_big", "id").len(), 800_000);
}

#[test]
fn a_table_altered_under_its_own_read_is_read_anew() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    server.sql("d", BIG);
    let (_folder, archive) = folder();
    thread::scope(|scope| {
        let run = scope.spawn(|| export(&server, "d", &archive, &["--concurrency", "1"]));
        wait_for(|| is_read(&server, "a_big"));
        server.sql("d", "SET lock_wait_timeout = 30; ALTER TABLE a_big FORCE, ALGORITHM = COPY");
        run.join().unwrap().expect(0);
    });
    assert_eq!(numbers(&archive, "d", "a_big", "id"), (0..800_000).collect::<Vec<_>>());
}

#[test]
fn tables_of_unusual_shapes() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d");
    let columns: Vec<String> =
        (0..1000).map(|number| format!("c{number} INT DEFAULT {number}")).collect();
    let names: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
    let mut sql = format!("CREATE TABLE wide ({});", columns.join(","));
    sql +=
        &format!("INSERT INTO wide ({}) VALUES ({});", names.join(","), vec!["1"; 1000].join(","));
    sql += "INSERT INTO wide (c0) VALUES (NULL); CREATE TABLE empty (a INT, t TEXT);
        CREATE TABLE huge (b LONGBLOB, t LONGTEXT);
        INSERT INTO huge VALUES (REPEAT('b', 40000000), REPEAT('ü', 9000000)), ('', NULL);";
    for number in 0..300 {
        sql += &format!(
            "CREATE TABLE t{number} (id INT PRIMARY KEY); INSERT INTO t{number} VALUES ({number});"
        );
    }
    // Each shows only when it is read that its dates are none.
    for number in 0..30 {
        sql += &format!("SET sql_mode = ''; CREATE TABLE z{number} (a DATE, b DATETIME); ");
        sql += &format!("INSERT INTO z{number} VALUES ('0000-00-00', '2021-00-15');");
    }
    server.sql("d", &sql);
    let (_folder, archive) = folder();
    let run = export(&server, "d", &archive, &[]).expect(0).json();
    assert_eq!(run["chunks"], 333);
    assert_eq!(archived(&archive, "d", "z29")["a"].1, [Some(hex(b"0000-00-00"))]);
    assert_eq!(numbers(&archive, "d", "wide", "c999"), [1, 999]);
    assert_eq!(numbers(&archive, "d", "wide", "c0"), [1]);
    assert_eq!(numbers(&archive, "d", "t299", "id"), [299]);
    let (_, blobs) = &archived(&archive, "d", "huge")["b"];
    assert_eq!(blobs.iter().flatten().map(String::len).max(), Some(80_000_000));
    moveout(["verify", &archive]).expect(0);
}

#[test]
fn a_large_value_costs_three_times_its_size_at_most() {
    let settings = vec![("max-allowed-packet", "1G"), ("innodb-log-file-size", "512M")];
    let server = MariaDb::start_with(Options { settings, ..Options::default() });
    let kinds = ["LONGBLOB", "LONGTEXT CHARACTER SET utf8mb4", "LONGTEXT CHARACTER SET latin1"];
    for (number, kind) in kinds.into_iter().enumerate() {
        let (_folder, archive) = folder();
        let [small, large] = [1, 201].map(|mebibytes| {
            let database = format!("d{number}_{mebibytes}");
            server.sql("", &format!("CREATE DATABASE {database}"));
            server.sql(
                &database,
                &format!(
                    "SET group_concat_max_len = 2 << 20; CREATE TABLE t (id INT, v {kind});
                     INSERT INTO t SELECT seq, 'short' FROM seq_1_to_1000;
                     SELECT GROUP_CONCAT(MD5(seq) SEPARATOR '') FROM seq_1_to_32768 INTO @mebibyte;
                     INSERT INTO t VALUES (0, REPEAT(@mebibyte, {mebibytes}))"
                ),
            );
            let archive = format!("{archive}{mebibytes}");
            let mut export =
                command(["export", "--source", &server.url(&database), "--archive", &archive]);
            export.env("MYSQL_PWD", server.password());
            peak_memory(export)
        });
        assert!(
            (large - small) / 200.0 < 3.1,
            "{kind}: {small:.0} MiB with 1 MiB, {large:.0} MiB with 201 MiB"
        );
        let archived = Archive::open(format!("{archive}201"));
        assert_eq!(longest(&archived, &format!("d{number}_201"), "v"), 201 << 20, "{kind}");
    }
}

/// The length in bytes of the longest value that a column of the table `t` has.
fn longest(archive: &Archive, database: &str, column: &str) -> usize {
    let files = archive.data_files_of(database, "t").into_iter().flat_map(|file| {
        let file = fs::File::open(archive.root.join(file)).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap()
    });
    let lengths = files.map(Result::unwrap).flat_map(|batch| {
        let values = arrow::compute::cast(batch.column_by_name(column).unwrap(), &DataType::Binary);
        let values = values.unwrap();
        values.as_binary::<i32>().iter().flatten().map(<[u8]>::len).collect::<Vec<_>>()
    });
    lengths.max().unwrap()
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let server = MariaDb::start_with(Options {
        tls: Some("IP:127.0.0.1,DNS:localhost"),
        ..Options::default()
    });
    server.sql("", "CREATE DATABASE d");
    server.sql("d", "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)");
    let attempt = |suffix: &str, password: &str| {
        let (_folder, archive) = folder();
        let url = format!("{}{suffix}", server.url("d"));
        let mut command = command(["export", "--source", &url, "--archive", &archive]);
        command.env("MYSQL_PWD", password);
        run_of(command)
    };
    let good = server.password();
    attempt("", good).expect(0);
    attempt("?sslmode=require", good).expect(0);
    let authority = server.authority().unwrap().display();
    attempt(&format!("?sslmode=verify-full&ssl-ca={authority}"), good).expect(0);
    let plain = attempt("?sslmode=disable", good).expect(1).stderr;
    assert!(plain.contains("sslmode=require"), "{plain}");
    let wrong = attempt("", "geheim").expect(1).stderr;
    assert!(
        wrong.contains("1045") && wrong.contains("MYSQL_PWD") && !wrong.contains("geheim"),
        "{wrong}"
    );
    let nowhere = attempt("x", good).expect(1).stderr;
    assert!(nowhere.contains("no database `dx`"), "{nowhere}");
}

#[test]
fn the_catalog_tells_keys_and_types_as_the_server_does() {
    let server = MariaDb::start();
    server.sql(
        "",
        "CREATE DATABASE d; USE d;
         CREATE TABLE t (note VARCHAR(50) NOT NULL, id INT UNSIGNED, at DATETIME(6), PRIMARY KEY (at, id), KEY (note));
         INSERT INTO t VALUES ('b', 1, '2024-01-01'), ('a', 2, '2024-01-01 12:00:00');
         CREATE TABLE texts (t TEXT NOT NULL, n INT, PRIMARY KEY (t(10)));
         CREATE TABLE versions (id INT PRIMARY KEY) WITH SYSTEM VERSIONING;
         CREATE TABLE none (a INT)",
    );
    let (_folder, archive) = folder();
    export(&server, "d", &archive, &[]).expect(0);
    moveout(["verify", &archive]).expect(0);
    let told: Vec<String> = Archive::open(&archive)
        .catalog()
        .iter()
        .map(|table| {
            let column = |c: &Value| {
                format!("{} {} {}", c["name"], c["parquet_type"], c["nullable"]).replace('"', "")
            };
            let columns: Vec<String> =
                table["columns"].as_array().unwrap().iter().map(column).collect();
            format!("{} key {}: {}", table["table"], table["primary_key"], columns.join(", "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "none" key null: a INT32 true
    "t" key ["at","id"]: note BYTE_ARRAY STRING false, id INT32 INTEGER(32,false) false, at INT64 TIMESTAMP(MICROS,false) false
    "texts" key ["t"]: t BYTE_ARRAY STRING false, n INT32 true
    "versions" key null: id INT32 false, ROW_START INT64 TIMESTAMP(MICROS,true) null, ROW_END INT64 TIMESTAMP(MICROS,true) null
    "#);
    let files = Archive::open(&archive).data_files_of("d", "t");
    assert!(files[0].contains("/20240101T000000Z_20240101T120000.000001Z."), "{files:?}");
}
