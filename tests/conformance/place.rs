//! A database of a source that is held to a behaviour, and the archives that are made of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;
use tempfile::TempDir;

use crate::subject::{Address, NewTable, Record, Subject, Time, other, text};
use crate::support::tunnel::Tunnel;
use crate::support::{Archive, Run, command, moveout, program, run, server};

/// A run ends so soon after Ctrl-C, whatever the source does.
const INTERRUPT: Duration = Duration::from_secs(20);

pub(crate) struct Place<'a> {
    pub(crate) subject: &'a dyn Subject,
    pub(crate) database: String,
    tunnel: Option<Tunnel>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(subject: &'a dyn Subject, database: &str) -> Self {
        subject.create(database);
        let tunnel = subject.port().map(Tunnel::to);
        Self { subject, database: database.to_owned(), tunnel }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        self.tunnel.as_ref().unwrap()
    }

    pub(crate) fn load(&self, name: &str, records: &[Record]) {
        self.subject.load(&self.database, NewTable { name, text: "text", records });
    }

    /// An archive to be made of it.
    pub(crate) fn archive(&self) -> Attempt<'_> {
        let port = self.tunnel.as_ref().map(Tunnel::port);
        self.archive_of(self.subject.address(&self.database, port))
    }

    pub(crate) fn archive_of(&self, address: Address) -> Attempt<'_> {
        let folder = TempDir::with_prefix("conformance-").unwrap();
        let path = folder.path().join("archive");
        let text = format!(
            "archive = {path:?}\n[[source]]\nname = \"s\"\nurl = {:?}\n{}\n",
            address.url, address.more
        );
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Attempt { place: self, folder, path, address, checked: Cell::new(false) }
    }
}

/// An archive that is being made.
pub(crate) struct Attempt<'a> {
    place: &'a Place<'a>,
    folder: TempDir,
    pub(crate) path: PathBuf,
    address: Address,
    checked: Cell<bool>,
}

impl Attempt<'_> {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(["export", "--config"]);
        command.arg(self.folder.path().join("config.toml")).args(args);
        command.envs(self.address.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn verify(&self, args: &[&str]) -> Run {
        let mut command = command(["verify"]);
        command.arg("--config").arg(self.folder.path().join("config.toml")).args(args);
        command.envs(self.address.variables.iter().map(|(name, value)| (name, value)));
        checked(run(command))
    }

    pub(crate) fn export(&self, args: &[&str]) -> Run {
        checked(run(self.command(args)))
    }

    /// Runs it, and does something once the tunnel has done what it was told to, or the run is over.
    pub(crate) fn export_and(&self, args: &[&str], then: impl FnOnce()) -> Run {
        let command = self.command(args);
        let running = thread::spawn(move || run(command));
        let tunnel = self.place.tunnel();
        while !tunnel.has_stopped() && !running.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        then();
        tunnel.release();
        checked(running.join().unwrap())
    }

    /// Runs it, and interrupts it once the tunnel holds an answer back, which stays so until it has ended.
    pub(crate) fn export_and_interrupt(&self, args: &[&str]) -> Run {
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let tunnel = self.place.tunnel();
        while !tunnel.has_stopped() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        let over = child.try_wait().unwrap().is_some();
        if !over {
            program::interrupt(&child);
        }
        let deadline = Instant::now() + INTERRUPT;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        tunnel.release();
        let output = child.wait_with_output().unwrap();
        let utf8 = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let status = output.status.code().unwrap_or(-1);
        checked(Run { status, stdout: utf8(output.stdout), stderr: utf8(output.stderr) })
    }

    /// Runs it until it is complete, which takes few runs.
    #[track_caller]
    pub(crate) fn complete(&self, args: &[&str]) -> Run {
        for _ in 0..3 {
            let run = self.export(args);
            if run.status == 0 {
                return run;
            }
        }
        self.export(args).expect(0)
    }

    /// What the archive has of a table, which is whole and stands up to being verified.
    #[track_caller]
    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        if !self.checked.replace(true) {
            checked(moveout(["verify", self.path.to_str().unwrap()])).expect(0);
        }
        let archive = Archive::open(&self.path);
        assert!(archive.is_sealed());
        archive.rows(table).into_iter().map(Row::of).collect()
    }

    /// Lets the next question for rows verify the archive again.
    pub(crate) fn changed(&self) {
        self.checked.set(false);
    }

    /// The archive has each of these rows once, and nothing else.
    #[track_caller]
    pub(crate) fn assert_holds(&self, table: &str, records: &[Record]) {
        self.assert_holds_named(table, "text", records);
    }

    #[track_caller]
    pub(crate) fn assert_holds_named(&self, table: &str, column: &str, records: &[Record]) {
        let rows = self.rows(table);
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let mut wanted: Vec<i64> = records.iter().map(|record| record.id).collect();
        wanted.sort_unstable();
        let mut found = ids.clone();
        found.sort_unstable();
        assert_eq!(found, wanted, "{table}");
        let by_id: BTreeMap<i64, &Record> =
            records.iter().map(|record| (record.id, record)).collect();
        for row in &rows {
            let record = by_id[&row.id];
            assert_eq!(row.get(column), Some(text(row.id)), "{table}: {row:?}");
            assert_eq!(row.get("other"), Some(other(row.id)), "{table}: {row:?}");
            match record.time {
                Time::At(time) => assert_eq!(row.time, Some(i128::from(time)), "{table}: {row:?}"),
                Time::Null => assert!(row.time_text.is_none(), "{table}: {row:?}"),
                Time::Extreme(_) => assert!(row.time_text.is_some(), "{table}: {row:?}"),
            }
        }
        let tables = Archive::open(&self.path).catalog();
        let entry = tables.iter().find(|entry| entry["table"] == table);
        let entry = entry.unwrap_or_else(|| panic!("{table:?} is not in the catalog"));
        assert_eq!(entry["rows"], records.len(), "{table}");
    }
}

/// A row as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: i64,
    /// In nanoseconds, where it is a time of the calendar.
    pub(crate) time: Option<i128>,
    time_text: Option<String>,
    /// All columns but the time.
    pub(crate) values: BTreeMap<String, String>,
}

impl Row {
    fn of(mut values: BTreeMap<String, String>) -> Self {
        let time_text = ["at", "time"].iter().find_map(|name| values.remove(*name));
        // What InfluxDB needs to tell rows of one time apart.
        values.remove("series");
        let id = values["id"].rsplit(' ').next().unwrap().trim_end_matches('i').parse().unwrap();
        let time = time_text.as_deref().and_then(nanoseconds);
        Self { id, time, time_text, values }
    }

    /// A text.
    pub(crate) fn get(&self, column: &str) -> Option<String> {
        let shown = self.values.get(column)?;
        Some(shown.trim_matches('"').to_owned())
    }
}

/// `1704067200000000000`, or Arrow's `Timestamp(µs, "UTC") 2024-01-01T00:00:00.5Z`, or, in a column that
/// became text, the server's own `"2024-01-01 00:00:00.5+00"`.
fn nanoseconds(text: &str) -> Option<i128> {
    if let Ok(nanoseconds) = text.parse() {
        return Some(nanoseconds);
    }
    let text = text.trim_matches('"');
    let text = match text.starts_with("Timestamp") {
        true => text.rsplit(' ').next()?.trim_end_matches('Z'),
        false => text.trim_end_matches("+00"),
    };
    let time =
        NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    let time = time.and_utc();
    Some(i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos()))
}

/// Nothing of a run reaches a terminal that could take it over, or that nobody may see.
#[track_caller]
pub(crate) fn checked(run: Run) -> Run {
    for output in [&run.stdout, &run.stderr] {
        let raw = output.chars().find(|c| c.is_control() && *c != '\n');
        assert!(raw.is_none(), "{raw:?} is written raw: {output:?}");
        assert!(!output.contains(server::PASSWORD), "{output}");
        assert!(!output.contains("panicked"), "{output}");
    }
    run
}
