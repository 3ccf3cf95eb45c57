//! Runs the program as a user would, with nothing in its environment that could change what it does.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A run that hangs is ended, and is a failure.
const PATIENCE: Duration = Duration::from_secs(180);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit status; -1 for a run that a signal ended.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Panics with all that it printed unless it ended so.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Its standard output as the one JSON object that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{error}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
        })
    }
}

/// The program with these arguments and a clean environment, to be changed further.
pub(crate) fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moveout"));
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let prefixes = ["INFLUX", "AWS_", "PG", "MYSQL", "MOVEOUT", "RUST_"];
        if prefixes.iter().any(|prefix| upper.starts_with(prefix)) || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// The most memory in MiB that a run had, which must end well.
#[track_caller]
pub(crate) fn peak_memory(mut command: Command) -> f64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0f64;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(mut command: Command) -> Run {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!("{command:?} hung\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    };
    Run { status: status.code().unwrap_or(-1), stdout, stderr }
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn moveout<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    run(command(args))
}

/// Runs the program with `--json`, and returns its exit status and the object it printed.
#[track_caller]
pub(crate) fn json<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (i32, Value) {
    let mut command = command(args);
    command.arg("--json");
    let run = run(command);
    (run.status, run.json())
}

/// Starts the program, to be killed or interrupted; what it prints is lost.
pub(crate) fn spawn<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Child {
    command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What Ctrl-C does.
pub(crate) fn interrupt(child: &Child) {
    assert!(signal(child, "INT"), "process {} is gone", child.id());
}

/// Sends a signal, as in `"INT"`; false where the process is gone.
pub(crate) fn signal(child: &Child, name: &str) -> bool {
    let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).output();
    kill.unwrap().status.success()
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
