//! `moveout export` from a real MariaDB: every value, windows, what breaks meanwhile.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use support::mariadb::{MariaDb, Options};
use support::{Archive, Run, command, interrupt, moveout, repository, run, spawn};
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
    run(command)
}

/// The one JSON object of a run.
fn summary(run: &Run) -> Value {
    run.json()
}

/// Each value of a table as text, null or not, by the names of its columns.
type Cells = BTreeMap<String, Vec<Option<String>>>;

/// What the archive has of a table, in the order of the column `order`.
fn archived(archive: &str, database: &str, table: &str) -> Cells {
    let archive = Archive::open(archive);
    let mut cells = Cells::new();
    for file in archive.data_files_of(database, table) {
        let file = fs::File::open(archive.root.join(file)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in reader.map(Result::unwrap) {
            for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                let values = cells.entry(field.name().clone()).or_default();
                values
                    .extend((0..array.len()).map(|at| array.is_valid(at).then(|| text(array, at))));
            }
        }
    }
    cells
}

/// As the server casts it to text; bytes and floats in hexadecimal.
fn text(array: &ArrayRef, at: usize) -> String {
    let micros = |micros: i64| {
        let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
        let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
        // chrono writes years beyond four digits with a sign, and these have no more.
        text
    };
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
            let days = array.as_primitive::<Date32Type>().value_as_date(at).unwrap();
            days.format("%Y-%m-%d").to_string()
        }
        DataType::Timestamp(..) => {
            micros(array.as_primitive::<TimestampMicrosecondType>().value(at))
        }
        DataType::Utf8 => hex(array.as_string::<i32>().value(at).as_bytes()),
        DataType::Binary => hex(array.as_binary::<i32>().value(at)),
        other => panic!("{other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The same, asked of the server: by its own casts, in the order of `order`.
fn asked(
    server: &MariaDb,
    database: &str,
    table: &str,
    cells: &Cells,
    from: &str,
    order: &str,
) -> Cells {
    let types = server.sql(
        "",
        &format!(
            "SELECT HEX(COLUMN_NAME), DATA_TYPE FROM information_schema.COLUMNS
             WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = BINARY '{table}'"
        ),
    );
    let mut found = Cells::new();
    for line in types.lines() {
        let (name, kind) = line.split_once('\t').unwrap();
        let name: Vec<u8> = (0..name.len() / 2)
            .map(|at| u8::from_str_radix(&name[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let name = String::from_utf8(name).unwrap();
        assert!(cells.contains_key(&name), "{table} has no {name} in the archive");
        let quoted = format!("`{}`", name.replace('`', "``"));
        let sql = match kind {
            "float" => format!("CAST({quoted} AS DOUBLE)"),
            "double" => quoted.clone(),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => {
                format!("{quoted} + 0")
            }
            "datetime" | "timestamp" | "date" | "decimal" => format!("CAST({quoted} AS CHAR)"),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob"
            | "geometry" | "point" | "linestring" | "polygon" | "multipoint"
            | "geometrycollection" => {
                format!("HEX({quoted})")
            }
            "bit" => format!("HEX(CAST({quoted} AS BINARY))"),
            _ => format!("HEX(CONVERT(CAST({quoted} AS CHAR) USING utf8mb4))"),
        };
        let rows = server.sql(
            database,
            &format!(
                "SET time_zone = '+00:00', sql_mode = ''; SELECT {sql} FROM {from} ORDER BY {order}"
            ),
        );
        let value = |text: &str| match (text, kind) {
            ("NULL", _) => None,
            (text, "float" | "double") => Some(format!("{:e}", text.parse::<f64>().unwrap())),
            (text, _) => Some(text.to_owned()),
        };
        found.insert(name, rows.split('\n').map(value).collect());
    }
    found
}

/// Asserts that each value of a table is in the archive as the server casts it.
#[track_caller]
fn assert_table(server: &MariaDb, archive: &str, database: &str, table: &str) {
    let quoted = format!("`{}`", table.replace('`', "``"));
    let mut found = archived(archive, database, table);
    let expected = asked(server, database, table, &found, &quoted, "id");
    assert_eq!(found.len(), expected.len(), "{table}: {:?}", found.keys());
    for (name, expected) in expected {
        let found = found.remove(&name).unwrap();
        assert_eq!(found.len(), expected.len(), "{table}.{name}: rows");
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // What is a date in the archive has the digits of microseconds, or is text.
            let same = match (found, expected) {
                (Some(found), Some(expected)) => {
                    found == expected
                        || *found == hex(expected.as_bytes())
                        || found.trim_end_matches('0').trim_end_matches('.')
                            == expected.trim_end_matches('0').trim_end_matches('.')
                            && found.contains(':')
                        || found.trim_start_matches('0') == expected.trim_start_matches('0')
                            && !found.contains(':')
                }
                (found, expected) => found == expected,
            };
            assert!(same, "{table}.{name}, row {row}: {found:?}, the server has {expected:?}");
        }
    }
}

#[test]
fn every_value_of_every_type_comes_back() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE odd");
    server.sql("odd", &data("odd_mariadb.sql"));
    let (_folder, archive) = folder();
    let run = export(&server, "odd", &archive, &[]).expect(0);
    assert_eq!(summary(&run)["status"], "complete");
    for table in [
        "odd_numbers",
        "odd_times",
        "odd_zero_dates",
        "odd_texts",
        "odd_others",
        "odd_geometry",
        "odd_columns",
    ] {
        assert_table(&server, &archive, "odd", table);
    }
    // Rows of the past are rows, too.
    let versions = archived(&archive, "odd", "odd_versions");
    let mut pairs: Vec<_> = versions["id"].iter().zip(&versions["a"]).collect();
    pairs.sort();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(pairs, [(&some("1"), &some("1")), (&some("1"), &some("2")), (&some("2"), &None)]);
    moveout(["verify", &archive]).expect(0);
}
