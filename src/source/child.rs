//! Runs other programs, which never outlive moveout. moveout starts itself once more as a supervisor, which starts the
//! program and passes its output on. When moveout closes the supervisor's standard input (on purpose, or because it has
//! panicked or was killed), the supervisor ends the program with everything that it started.
//!
//! A program is described by a [`Command`]. Secrets must be passed only in its environment, since everybody can see
//! arguments.

pub(crate) mod frames;
mod processes;
mod supervisor;

use std::ffi::OsStr;
use std::io;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::{env, fmt, thread};

use rustix::process::Pid;
use tokio::sync::watch;

pub use self::frames::{Exit, Stream};
use self::frames::{Frame, each_line};
pub use self::processes::Holder;
use crate::text::escaped;

/// The first argument of a supervisor, which is not a verb of the command line.
const VERB: &str = "__child";
/// The second argument: whether the program's standard output goes to moveout unchanged, or as lines.
const RAW: &str = "raw";
const LINES: &str = "lines";

/// The executable of the supervisor.
static SUPERVISOR: OnceLock<PathBuf> = OnceLock::new();

/// If this process was started as a supervisor, does its work and returns its exit code. Otherwise this process can start
/// children from now on. `main` calls this first.
pub fn supervise() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == VERB) {
        let is_raw = args.next().is_some_and(|output| output == RAW);
        supervisor::run(is_raw, args);
        return Some(ExitCode::SUCCESS);
    }
    // On Linux this path leads to the same program even if its file was replaced. It also gives supervisors another
    // process name, so that only moveout itself is called `moveout`.
    let own = PathBuf::from("/proc/self/exe");
    let own = if own.exists() { Some(own) } else { env::current_exe().ok() };
    if let Some(own) = own {
        supervised_by(own);
    }
    None
}

/// Names the moveout executable to use as supervisor, for a program that only uses the library.
pub fn supervised_by(moveout: impl Into<PathBuf>) {
    // The first call decides; all name the same program.
    let _ = SUPERVISOR.set(moveout.into());
}

/// What happens to a program's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// [`Child::stdout`] has it unchanged, without a copy on the way.
    Raw,
    /// It is read as lines.
    Lines,
}

/// A line that a program wrote, without its end. A very long one arrives in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The stream that it was written to.
    pub from: Stream,
    /// The text, unchanged: it may contain secrets, and sequences that a terminal obeys.
    pub text: String,
}

/// The line as it may reach a terminal, if it holds no secret.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escaped(self.text.trim_end()))
    }
}

/// A running program. When this is dropped, the program is told to end with everything that it started: by SIGINT, and
/// after a few seconds by SIGKILL. Only [`Child::stop`] waits for that.
pub struct Child {
    supervisor: Pid,
    /// Closing it ends the program.
    control: Mutex<Option<ChildStdin>>,
    stdout: Mutex<Option<ChildStdout>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Starts a program with an empty standard input. Each line that it writes goes to `on_line`, on a separate thread;
    /// while that is busy, the program waits. An error means that the program could not be started. Of the command, only
    /// the program, the arguments, the variables and the folder are used; `env_clear` and everything else are ignored.
    ///
    /// Blocks for a few milliseconds.
    pub fn start(
        command: &Command,
        output: Output,
        on_line: impl FnMut(Line) + Send + 'static,
    ) -> io::Result<Self> {
        let program = SUPERVISOR
            .get()
            .ok_or_else(|| io::Error::other("no moveout is named as supervisor"))?;
        let mut supervisor = Command::new(program);
        supervisor.arg(VERB).arg(if output == Output::Raw { RAW } else { LINES });
        supervisor.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => supervisor.env(name, value),
                None => supervisor.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            supervisor.current_dir(folder);
        }
        let stdout = if output == Output::Raw { Stdio::piped() } else { Stdio::null() };
        supervisor.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut supervisor = supervisor.spawn()?;
        let (control, stdout) = (supervisor.stdin.take(), supervisor.stdout.take());
        let frames = supervisor.stderr.take().ok_or_else(|| io::Error::other("no report"))?;
        let pid = Pid::from_child(&supervisor);
        let (ended, exit) = watch::channel(None);
        let (started, has_started) = mpsc::sync_channel(1);
        thread::Builder::new().name("child".to_owned()).spawn(move || {
            let (group, exit) = follow(frames, &started, on_line);
            drop(started);
            let _ = supervisor.wait(); // an error can only mean that it is gone
            if exit.is_none()
                && let Some(group) = group
            {
                // The supervisor was killed, so nobody else ends what it started.
                processes::end(group, None, || processes::is_empty(group));
            }
            let _ = ended.send(Some(exit.unwrap_or(Exit::Lost)));
        })?;
        match has_started.recv() {
            Ok(Ok(())) => Ok(Self {
                supervisor: pid,
                control: Mutex::new(control),
                stdout: Mutex::new(stdout),
                exit,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the supervisor ended at once")),
        }
    }

    /// The standard output of a program that was started with [`Output::Raw`]; `None` after the first call. It ends when
    /// the program and everything that it started are gone.
    pub fn stdout(&self) -> Option<ChildStdout> {
        lock(&self.stdout).take()
    }

    /// How the program ended; `None` while it, or something that it started, still runs.
    pub fn exit(&self) -> Option<Exit> {
        let is_followed = self.exit.has_changed().is_ok();
        let exit = *self.exit.borrow();
        exit.or_else(|| (!is_followed).then_some(Exit::Lost))
    }

    /// Waits until the program and everything that it started are gone.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).unwrap_or(Exit::Lost)
    }

    /// Like `ended`, for a thread that may block.
    pub fn wait(&self) -> Exit {
        futures::executor::block_on(self.ended())
    }

    /// Tells the program to end, and does not wait for it.
    pub fn end(&self) {
        lock(&self.control).take();
    }

    /// Ends the program, and waits at most a few seconds until everything that it started is gone. Blocks.
    pub fn stop(&self) -> Exit {
        self.end();
        self.wait()
    }

    /// Who listens on a local port, as far as the system shows that.
    pub fn holder(&self, port: u16) -> Holder {
        processes::holder(port, self.supervisor)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// Reads the reports of a supervisor to their end. Returns the program's process group, and how the program ended.
fn follow(
    frames: impl io::Read,
    started: &SyncSender<io::Result<()>>,
    mut on_line: impl FnMut(Line),
) -> (Option<Pid>, Option<Exit>) {
    let (mut group, mut exit) = (None, None);
    each_line(BufReader::new(frames), |line| {
        match Frame::parse(line) {
            Frame::Started(pid) => {
                group = Pid::from_raw(pid);
                let _ = started.try_send(Ok(())); // the channel has room for the first
            }
            Frame::Refused(code) => {
                let _ = started.try_send(Err(io::Error::from_raw_os_error(code)));
            }
            Frame::Line(from, text) => {
                on_line(Line { from, text: String::from_utf8_lossy(text).into_owned() });
            }
            Frame::Ended(how) => exit = Some(how),
        };
    });
    (group, exit)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a program as it is shown: without its folder.
pub fn name_of(program: &OsStr) -> String {
    let path = std::path::Path::new(program);
    let name = path.file_name().unwrap_or(program).to_string_lossy();
    escaped(&name).to_string()
}
