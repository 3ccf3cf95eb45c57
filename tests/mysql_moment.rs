//! "One moment" from MySQL and MariaDB under transfers from table to table: where it is claimed, what all
//! tables hold together is what it always was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::thread;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::mariadb::{Flavour, MariaDb, Options};
use support::{Archive, Run, command, run};
use tempfile::TempDir;

/// As many as there are sessions, so that each is read by another; what one in three loses two win.
const TABLES: usize = 15;

/// Transfers from every third table to the others, until `finished` has a row.
fn bank(server: &MariaDb) {
    let mut sql = "CREATE DATABASE bank; USE bank; CREATE TABLE finished (a INT); ".to_owned();
    for table in 0..TABLES {
        sql += &format!("CREATE TABLE t{table} (v INT); INSERT INTO t{table} VALUES (1000); ");
    }
    // In each order of reading some are read before and some after.
    let update = |table: usize| {
        let sign = if table.is_multiple_of(3) { "- 2" } else { "+ 1" };
        format!("UPDATE t{table} SET v = v {sign};")
    };
    let updates: String = (0..TABLES).map(update).collect();
    sql += &format!(
        "\nDELIMITER ;;\n
         CREATE PROCEDURE transfer() WHILE NOT EXISTS (SELECT * FROM finished) DO
             START TRANSACTION; {updates} COMMIT; DO SLEEP(0.08 + RAND() * 0.05);
         END WHILE;;\nDELIMITER ;\n"
    );
    server.sql("", &sql);
}

fn export(server: &MariaDb, folder: &TempDir, archive: &str, lock: bool, more: &[&str]) -> Run {
    let config = folder.path().join("config.toml");
    let url = server.url("bank");
    let lock = if lock { "lock = true" } else { "" };
    let text = format!("[[source]]\nname = \"bank\"\nurl = \"{url}\"\n{lock}\n");
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let mut command = command(["export", "--config", config, "--archive", archive, "--json"]);
    command.args(["--concurrency", &TABLES.to_string()]).args(more);
    command.env("MYSQL_PWD", server.password());
    run(command).expect(0)
}

/// The names of the moments that an archive is of.
fn moments(archive: &Archive) -> BTreeSet<String> {
    let file = File::open(archive.root.join("catalog/chunks.parquet")).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut moments = BTreeSet::new();
    for batch in batches.map(Result::unwrap) {
        let names = batch.column_by_name("snapshot").unwrap().as_string::<i32>();
        moments.extend(names.iter().flatten().map(str::to_owned));
    }
    moments
}

fn total(archive: &Archive) -> i64 {
    let mut total = 0;
    for data in archive.data_files() {
        let file = File::open(archive.root.join(&data.path)).unwrap();
        let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in batches.map(Result::unwrap) {
            let Some(values) = batch.column_by_name("v") else { continue };
            match values.as_primitive_opt::<Int32Type>() {
                Some(values) => total += values.iter().flatten().map(i64::from).sum::<i64>(),
                None => total += values.as_primitive::<Int64Type>().iter().flatten().sum::<i64>(),
            }
        }
    }
    total
}

/// Exports again and again while others write. Returns how many exports claimed one moment, and how many
/// of these hold another sum.
fn claims(server: &MariaDb, lock: bool, exports: usize) -> (usize, usize) {
    let (mut claimed, mut wrong) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| server.sql("bank", "CALL transfer()"));
        let folder = TempDir::new().unwrap();
        for number in 0..exports {
            let path = folder.path().join(number.to_string());
            let run = export(server, &folder, path.to_str().unwrap(), lock, &[]);
            let archive = Archive::open(path);
            let moments = moments(&archive);
            let warnings = run.json()["warnings"].to_string();
            assert_eq!(warnings.contains("moment"), moments.len() > 1, "{warnings}: {moments:?}");
            if moments.len() == 1 {
                claimed += 1;
                wrong += usize::from(total(&archive) != 1000 * TABLES as i64);
            }
        }
        server.sql("bank", "INSERT INTO finished VALUES (1)");
    });
    (claimed, wrong)
}

/// A transaction is in the log a while before others see it.
#[test]
fn mysql_shows_a_transaction_in_its_log_before_it_is_visible() {
    let settings = vec![
        ("binlog-group-commit-sync-delay", "100000"),
        ("gtid-mode", "OFF"),
        ("enforce-gtid-consistency", "OFF"),
    ];
    let options = Options { binlog: true, settings, ..Options::default() };
    let Some(server) = MariaDb::start_flavour(Flavour::MySql, options) else { return };
    bank(&server);
    let (claimed, wrong) = claims(&server, false, 12);
    assert!(wrong == 0 && claimed > 0, "{wrong} of {claimed} are wrong");
    assert_eq!(claims(&server, true, 3), (3, 0));
}

/// Runs that read the same are of one moment, also where the server keeps no statistics of its performance, as is usual for
/// MariaDB.
#[test]
fn runs_between_which_nobody_wrote_are_of_one_moment() {
    // MySQL begins transactions of its own where it is asked for the sizes of tables.
    let flavours = [Flavour::System, Flavour::Newer].into_iter();
    let flavours = flavours.filter(|flavour| flavour.is_here());
    for (flavour, value) in flavours.flat_map(|flavour| [(flavour, "OFF"), (flavour, "ON")]) {
        // The server itself would write statistics.
        let settings = vec![("performance-schema", value), ("innodb-stats-auto-recalc", "OFF")];
        let options = Options { settings, ..Options::default() };
        let Some(server) = MariaDb::start_flavour(flavour, options) else { continue };
        bank(&server);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("archive");
        let runs: [&[&str]; 4] =
            [&["--shard", "0/3"], &["--shard", "1/3"], &["--shard", "2/3"], &[]];
        let ended = runs.map(|more| export(&server, &folder, path.to_str().unwrap(), false, more));
        let chunks = ended.iter().filter(|run| run.json()["chunks"] != 0).count();
        assert!(chunks >= 2, "{}: one run has read everything", flavour.name());
        let archive = Archive::open(path);
        let warnings = ended[3].json()["warnings"].to_string();
        let (what, moments) = (format!("{} {value}", flavour.name()), moments(&archive));
        assert_eq!(moments.len(), 1, "{what}: {moments:?}");
        assert!(!warnings.contains("somebody wrote"), "{what}: {warnings}");
        // Whoever writes between two runs is noticed.
        server.sql("bank", "UPDATE t0 SET v = v + 1");
        let later = export(&server, &folder, archive.root.to_str().unwrap(), false, &[]);
        let again = self::moments(&archive);
        assert!(
            again.is_disjoint(&moments),
            "{what}: {again:?} after {moments:?}: {}",
            later.stdout
        );
    }
}
