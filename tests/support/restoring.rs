//! An archive, and the folder in which its restores run and keep what they have written.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::program::{Run, command, run};
use super::server::PASSWORD;

/// The folder, whose `archive` is restored.
#[derive(Debug)]
pub(crate) struct Restoring {
    folder: TempDir,
}

impl Restoring {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::with_prefix("restore-").unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn archive(&self) -> String {
        self.path("archive").to_str().unwrap().to_owned()
    }

    /// Exports a server into the archive.
    #[track_caller]
    pub(crate) fn export(&self, url: &str, more: &[&str]) {
        let archive = self.archive();
        let args = ["export", "--source", url, "--archive", archive.as_str()];
        run(self.here(command(args.iter().chain(more)))).expect(0);
    }

    /// A command in this folder with the passwords of the test servers.
    pub(crate) fn here(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env("XDG_STATE_HOME", self.folder.path());
        command.env("PGPASSWORD", PASSWORD).env("MYSQL_PWD", PASSWORD);
        command
    }

    /// Restores an archive into a target.
    pub(crate) fn command_of(&self, archive: &str, url: &str, more: &[&str]) -> Command {
        let args = ["restore", "--json", archive, "--target", url];
        self.here(command(args.iter().chain(more)))
    }

    pub(crate) fn command(&self, url: &str, more: &[&str]) -> Command {
        self.command_of(&self.archive(), url, more)
    }

    pub(crate) fn restore(&self, url: &str, more: &[&str]) -> Run {
        run(self.command(url, more))
    }

    /// Restores again and again, and kills each run after one of these milliseconds, until one ends before. Then
    /// restores to the end. A run that was killed after the end, when nothing was left to go on with, makes the last
    /// one refuse.
    #[track_caller]
    pub(crate) fn restore_with_kills(&self, url: &str, after: &[u64]) {
        let more = ["--concurrency", "2"];
        let mut killed = 0;
        for wait in after {
            let mut restore = self.command(url, &more);
            let said = self.path("said");
            restore.stdout(Stdio::null()).stderr(File::create(&said).unwrap());
            let mut child = restore.spawn().unwrap();
            let until = Instant::now() + Duration::from_millis(*wait);
            while Instant::now() < until && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(&said).unwrap();
                // What the server still did for the run that was killed may have come between: a table without
                // transactions begins anew then.
                if status.code() == Some(3) {
                    assert!(said.contains("undoes nothing: run the same command again"), "{said}");
                    continue;
                }
                assert!(matches!(status.code(), Some(0 | 1)), "{status}, {killed} kills: {said}");
                break;
            }
            killed += 1;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(killed > 2, "it is over too soon to be killed");
        let mut last = self.restore(url, &more);
        if last.status == 3 {
            last = self.restore(url, &more);
        }
        assert!([0, 1].contains(&last.status), "{}{}", last.stdout, last.stderr);
    }
}
