//! The process between moveout and a program. It has its own session, so that Ctrl-C does not reach it and no program can
//! ask the terminal for a password. It reads the program's standard error, so that a program can write its last words even
//! when moveout is gone.

use std::ffi::OsString;
use std::io;
use std::io::{BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, setsid, wait};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::source::child::frames::{Exit, Frame, Stream, each_line};
use crate::source::child::processes;

/// How long the last lines of a program that has ended may take.
const LAST_LINES: Duration = Duration::from_secs(2);

enum Event {
    /// The program ended.
    Ended(Exit),
    /// No child process is left.
    Alone,
    /// Everything shall end.
    Stop,
}

/// What is known about the program.
#[derive(Default)]
struct State {
    exit: Option<Exit>,
    is_alone: bool,
}

impl State {
    fn note(&mut self, event: Event) {
        match event {
            Event::Ended(exit) => self.exit = Some(exit),
            Event::Alone => self.is_alone = true,
            Event::Stop => {}
        }
    }
}

/// Starts the program, and returns when it and everything that it started are gone.
pub(super) fn run(is_raw: bool, mut argv: impl Iterator<Item = OsString>) {
    let _ = setsid(); // it fails only for a process that has its own session already
    adopt();
    // This comes before the program starts: it would inherit that signals are ignored, as they are for processes in the
    // background of a script, but not that they are handled.
    let signals = Signals::new();
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
    command.stdout(if is_raw { Stdio::inherit() } else { Stdio::piped() });
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return tell(&Frame::Refused(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())));
        }
    };
    let program = Pid::from_child(&child);
    tell(&Frame::Started(program.as_raw_pid()));
    let (reading, has_read) = mpsc::channel();
    pass_on(Stream::Stdout, child.stdout.take(), reading.clone());
    pass_on(Stream::Stderr, child.stderr.take(), reading);

    let (events, happened) = mpsc::channel();
    watch_moveout(events.clone());
    if let Some(signals) = signals {
        signals.watch(events.clone());
    }
    thread::spawn(move || reap(program, &events));
    let mut state = State::default();
    happened.recv().into_iter().for_each(|event| state.note(event));
    processes::end(program, Some(getpid()), || {
        happened.try_iter().for_each(|event| state.note(event));
        state.is_alone && processes::is_empty(program)
    });
    // The pipes end when the last process that has them does.
    let _ = has_read.recv_timeout(LAST_LINES);
    tell(&Frame::Ended(state.exit.unwrap_or(Exit::Lost)));
}

/// Makes everything that the program starts a descendant of this process, even if the program ends first or detaches it.
fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid())); // before Linux 3.4 only the group is known
}

/// Passes the lines of a pipe on to moveout, and continues to read when moveout is gone. At the end of the pipe, `reading`
/// is closed.
fn pass_on(from: Stream, pipe: Option<impl Read + Send + 'static>, reading: Sender<()>) {
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            each_line(BufReader::new(pipe), |line| tell(&Frame::Line(from, line)));
            drop(reading);
        });
    }
}

/// Waits until moveout closes this process's standard input, or the system does because moveout is gone.
fn watch_moveout(events: Sender<Event>) {
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink()); // an error is an end as well
        let _ = events.send(Event::Stop);
    });
}

/// The signals that end this process. A service manager sends them to each process of a service.
struct Signals {
    runtime: Runtime,
    signals: Vec<Signal>,
}

impl Signals {
    fn new() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
        let entered = runtime.enter();
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
        drop(entered);
        (!signals.is_empty()).then_some(Self { runtime, signals })
    }

    fn watch(mut self, events: Sender<Event>) {
        thread::spawn(move || {
            let each = self.signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            self.runtime.block_on(futures::future::select_all(each));
            let _ = events.send(Event::Stop);
        });
    }
}

/// Waits for the program and for all processes that this one has adopted, until none is left.
fn reap(program: Pid, events: &Sender<Event>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                let _ = events.send(Event::Ended(exit(status)));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    let _ = events.send(Event::Alone);
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}

/// Sends a report to moveout, which may be gone.
fn tell(frame: &Frame<'_>) {
    let _ = io::stderr().lock().write_all(&frame.line());
}
