//! Tables that are altered or replaced while a run is at work, between two of their windows: what comes out is
//! the table that is there at the end, whole, and nothing of what had its name before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use moveout::config::Flags;
use moveout::error::Exit;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::mariadb::Flavour;
use support::meanwhile::export_while;
use support::{Archive, Kind, Relational, moveout, server};
use tempfile::TempDir;

/// What is done to the table `t` after two of its windows were committed.
struct Case {
    name: &'static str,
    change: &'static str,
    /// Its columns then.
    columns: &'static str,
}

/// `t` and `t_new` are alike but for their values, and made at the same time.
fn tables(server: &Relational, database: &str) {
    server.sql("", &format!("CREATE DATABASE {database}"));
    let (time, rows) = match server {
        Relational::Postgres(_) => ("timestamp", "SELECT i FROM generate_series(0, 399) AS i"),
        Relational::MySql(_) => (
            "datetime",
            "WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 399) SELECT i FROM n",
        ),
    };
    let day = match server {
        Relational::Postgres(_) => "timestamp '2024-01-01' + i * interval '1 day'",
        Relational::MySql(_) => "TIMESTAMP '2024-01-01 00:00:00' + INTERVAL i DAY",
    };
    let table = |name: &str, sign: &str| {
        format!(
            "CREATE TABLE {name} (at {time} NOT NULL PRIMARY KEY, v int, w int);
             INSERT INTO {name} SELECT {day}, {sign}i, {sign}1000 - i FROM ({rows}) AS n;"
        )
    };
    server.sql(database, &format!("{} {}", table("t", ""), table("t_new", "-")));
}

/// The rows of the archive as text, by these columns.
fn archived(archive: &Archive, database: &str, columns: &str) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for file in archive.data_files_of(database, "t") {
        let file = std::fs::File::open(archive.root.join(file)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in reader.map(Result::unwrap) {
            let named = columns.split(", ").map(|name| {
                let column = batch.column_by_name(name);
                column.unwrap_or_else(|| panic!("no {name} in {:?}", batch.schema()))
            });
            let formatters: Vec<_> = named
                .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
                .collect();
            rows.extend((0..batch.num_rows()).map(|at| {
                let cells: Vec<_> =
                    formatters.iter().map(|column| column.value(at).to_string()).collect();
                cells.join("|")
            }));
        }
    }
    rows.sort_unstable();
    rows
}

fn asked(server: &Relational, database: &str, columns: &str) -> Vec<String> {
    let rows = server.sql(database, &format!("SELECT {columns} FROM t"));
    let mut rows: Vec<String> = rows.lines().map(|row| row.replace('\t', "|")).collect();
    rows.sort_unstable();
    rows
}

fn check(kind: Kind, cases: &[Case]) {
    let Some(server) = kind.start().map(Arc::new) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (number, case) in cases.iter().enumerate() {
        let what = format!("{}: {}", kind.name(), case.name);
        let database = format!("d{number}");
        tables(&server, &database);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("archive").to_str().unwrap().to_owned();
        let mut url = url::Url::parse(&server.url(&database)).unwrap();
        url.set_password(Some(server::PASSWORD)).unwrap();
        // MySQL takes TLS; the others here do not.
        let flags = Flags {
            sources: vec![url.to_string()],
            archive: Some(path.clone()),
            window: Some("1d".to_owned()),
            ..Flags::default()
        };
        let (on, change, of) = (Arc::clone(&server), case.change, database.clone());
        let (summary, meanwhile) = runtime.block_on(export_while(flags, |meanwhile| {
            meanwhile.before_read(2, move || drop(on.sql(&of, change)));
        }));
        let read = meanwhile.read();
        assert_eq!(summary.exit, Exit::Done, "{what}: {:?} {:?}", summary.failed, summary.error);
        let found = archived(&Archive::open(&path), &database, case.columns);
        assert_eq!(found, asked(&server, &database, case.columns), "{what}: {read:#?}");
        moveout(["verify", &path]).expect(0);
    }
}

const POSTGRES: [Case; 5] = [
    Case {
        name: "a column's name is given to a new one",
        change: "ALTER TABLE t RENAME v TO old_v; ALTER TABLE t ADD v int DEFAULT 0",
        columns: "old_v, v, w",
    },
    Case {
        name: "a column is dropped and made again",
        change: "ALTER TABLE t DROP v; ALTER TABLE t ADD v int DEFAULT 7",
        columns: "w, v",
    },
    Case {
        name: "two columns swap their names",
        change: "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w",
        columns: "v, w",
    },
    Case {
        name: "another table gets the name",
        change: "BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT; CREATE TABLE t_new (i int)",
        columns: "v, w",
    },
    Case {
        name: "the column of the windows gets another name",
        change: "ALTER TABLE t RENAME at TO happened",
        columns: "v, w",
    },
];

#[test]
fn postgres() {
    check(Kind::Postgres(15), &POSTGRES);
}

#[test]
fn newest_postgres() {
    check(Kind::Postgres(18), &POSTGRES);
}

const MYSQL: [Case; 4] = [
    Case {
        name: "two columns swap their names",
        change: "ALTER TABLE t RENAME COLUMN v TO w, RENAME COLUMN w TO v",
        columns: "v, w",
    },
    Case {
        name: "another table gets the name",
        change: "RENAME TABLE t TO t_old, t_new TO t; CREATE TABLE t_new (i int)",
        columns: "v, w",
    },
    Case {
        name: "a column's name is given to a new one",
        change: "ALTER TABLE t RENAME COLUMN v TO old_v; ALTER TABLE t ADD v int DEFAULT 0",
        columns: "old_v, v, w",
    },
    Case {
        name: "the column of the windows gets another name",
        change: "ALTER TABLE t RENAME COLUMN at TO happened",
        columns: "v, w",
    },
];

#[test]
fn mariadb() {
    check(Kind::MySql(Flavour::System), &MYSQL);
}

#[test]
fn mysql() {
    check(Kind::MySql(Flavour::MySql), &MYSQL);
}
