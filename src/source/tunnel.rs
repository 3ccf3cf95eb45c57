//! A tunnel: a child process that forwards a local port to a source. Each new connection to the source first asks for the
//! port, and gets it only while the tunnel is ready and is the one that listens there. A tunnel that has ended, or through
//! which nothing arrives, is opened again for the next connection that asks; [`crate::retry`] decides how often that is
//! tried.

mod program;

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use self::program::{Plain, Program};
use crate::error::{Class, Error, Result};
use crate::source::child::{Child, Exit, Holder, Line, Output, name_of};
use crate::text::{escaped, printable};

/// How long a tunnel may take until it is ready. Some first ask a service for a certificate, over a slow line.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long a tunnel that has reported that it is ready may take until it listens.
const LISTENS: Duration = Duration::from_secs(10);
/// How long a tunnel that has stopped listening may take to end by itself.
const ENDS: Duration = Duration::from_millis(500);
/// The pause between two checks of a tunnel that is being opened or is ending.
const LOOK: Duration = Duration::from_millis(20);
/// For how long the tunnel is trusted to listen without another check. Most HTTP requests need no new connection.
const SEEN: Duration = Duration::from_secs(1);
/// After this many consecutive connections without a single byte, the tunnel is considered to hang.
const SILENT: u32 = 2;
/// How many ports are tried if other processes take them before the tunnel does.
const PORTS: usize = 4;
/// How many of a tunnel's last lines are kept for an error.
const LAST_LINES: usize = 5;

/// How a tunnel is opened, and where it leads.
pub struct Settings {
    /// The command. In each part, `{port}` stands for the local port, and `{host}` and `{remote_port}` for the server.
    pub command: Vec<String>,
    /// The variables that it needs besides moveout's own environment. They are the only place for its secrets.
    pub env: Vec<(String, String)>,
    /// The host of the server as the source names it.
    pub host: String,
    /// The port of the server.
    pub port: u16,
    /// How long it may take until it is ready.
    pub patience: Duration,
    /// Interprets the output of the command.
    pub program: Arc<dyn Program>,
}

/// A tunnel to a server. It is opened when it is first asked for, and ended when it is dropped.
pub struct Tunnel {
    settings: Settings,
    state: Mutex<State>,
    /// Signals that an attempt to open it has ended.
    tried: Condvar,
    /// The number of consecutive connections through which not a single byte has arrived.
    silent: AtomicU32,
    was_ready: AtomicBool,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Whether a thread is opening it.
    is_opening: bool,
    /// The number of attempts to open it.
    attempts: u64,
    /// Why the last attempt failed.
    failed: Option<Error>,
    /// The port of the last tunnel.
    last_port: Option<u16>,
}

/// A tunnel that is ready.
struct Open {
    child: Child,
    passage: Passage,
    output: Arc<ProgramOutput>,
    seen: Instant,
}

/// The way into a tunnel that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    port: u16,
    /// The number of the attempt that opened it.
    number: u64,
}

impl Passage {
    /// Where to connect to.
    pub fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port of this address.
    pub fn port(self) -> u16 {
        self.port
    }
}

/// What the output of a tunnel has shown so far.
#[derive(Default)]
struct ProgramOutput {
    is_ready: AtomicBool,
    last: Mutex<VecDeque<String>>,
}

impl ProgramOutput {
    /// The last lines, as one.
    fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        printable(&last.iter().map(String::as_str).collect::<Vec<_>>().join("; "))
    }
}

/// Why a tunnel could not be opened at a port.
enum Trouble {
    /// Another process has the port. Holds the last output of the command.
    Taken(String),
    Failed(Error),
}

impl Tunnel {
    /// A tunnel that is not open yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            tried: Condvar::new(),
            silent: AtomicU32::new(0),
            was_ready: AtomicBool::new(false),
        }
    }

    /// Waits until the tunnel is ready, and opens it first if necessary. Threads that ask at the same time share an attempt.
    /// Blocks.
    pub fn ask(&self) -> Result<Passage> {
        let mut state = self.lock();
        while state.is_opening {
            let tried = |state: &mut State| state.is_opening;
            state = self.tried.wait_while(state, tried).unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
        }
        if let Some(open) = &mut state.open {
            match self.trouble(open) {
                None => return Ok(open.passage),
                Some(why) => tracing::warn!("{self} {why}; it is opened again"),
            }
        }
        state.is_opening = true;
        state.attempts += 1;
        let (number, before, port) = (state.attempts, state.open.take(), state.last_port.take());
        drop(state);
        let _opening = Opening(self);
        if let Some(before) = before {
            before.child.stop(); // this frees its port
        }
        let opened = self.open(number, port);
        let mut state = self.lock();
        state.failed = opened.as_ref().err().cloned();
        let open = opened?;
        let passage = open.passage;
        tracing::info!("{self} is ready at port {}", passage.port);
        (state.open, state.last_port) = (Some(open), Some(passage.port));
        self.silent.store(0, Ordering::Relaxed);
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(passage)
    }

    /// Like `ask`, for a thread that may not block.
    pub async fn ready(self: &Arc<Self>) -> Result<Passage> {
        if let Some(passage) = self.now() {
            return Ok(passage);
        }
        let this = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || this.ask()).await;
        asked.unwrap_or_else(|error| Err(Error::stop(format!("a worker thread failed: {error}"))))
    }

    /// The way in if the tunnel is ready at this moment.
    pub fn now(&self) -> Option<Passage> {
        let state = self.state.try_lock().ok()?;
        let open = state.open.as_ref()?;
        let is_well = open.child.exit().is_none()
            && open.seen.elapsed() < SEEN
            && self.silent.load(Ordering::Relaxed) < SILENT;
        is_well.then_some(open.passage)
    }

    /// Whether it has ever been ready. If not, its command most often has a mistake.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Notes that something has arrived through the tunnel.
    pub fn heard(&self) {
        if self.silent.load(Ordering::Relaxed) > 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a connection through this passage has ended, or was given up, before a single byte arrived.
    pub fn was_silent(&self, passage: Passage) {
        let state = self.lock();
        if state.open.as_ref().is_some_and(|open| open.passage == passage) {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is wrong with a tunnel that was ready.
    fn trouble(&self, open: &mut Open) -> Option<String> {
        if let Some(exit) = open.child.exit() {
            return Some(format!("has ended{}", how(exit, &open.output)));
        }
        if self.silent.load(Ordering::Relaxed) >= SILENT {
            return Some("accepts connections, but nothing arrives through them".to_owned());
        }
        match open.child.holder(open.passage.port) {
            Holder::Ours | Holder::Unknown => {
                open.seen = Instant::now();
                None
            }
            // Most often the tunnel is ending, and says why.
            lost => Some(match (wait_for_exit(&open.child), lost) {
                (Some(exit), _) => format!("has ended{}", how(exit, &open.output)),
                (None, Holder::Nobody) => "does not listen any more".to_owned(),
                (None, _) => "has lost its port to another process".to_owned(),
            }),
        }
    }

    /// Opens it, at the same port as before if possible.
    fn open(&self, number: u64, before: Option<u16>) -> Result<Open> {
        let (mut wish, mut last) = (before, String::new());
        for _ in 0..PORTS {
            let port = free_port(wish.take())
                .map_err(|error| Error::of(Class::Retry, format!("{self}: no port: {error}")))?;
            match self.open_at(Passage { port, number }) {
                Ok(open) => return Ok(open),
                Err(Trouble::Taken(output)) => {
                    tracing::info!("{self}: another process has port {port}");
                    last = if output.is_empty() {
                        output
                    } else {
                        format!("; its last output was: {output}")
                    };
                }
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        let what =
            format!("{self} cannot be opened: another process listens on its port each time{last}");
        Err(Error::of(Class::Retry, what).hint(
            "the command itself must listen on {port}, and not a service that it asks or an ssh master that runs \
             already (for ssh: -S none)",
        ))
    }

    fn open_at(&self, passage: Passage) -> Result<Open, Trouble> {
        let output = Arc::<ProgramOutput>::default();
        let child = self.start(passage.port, &output).map_err(Trouble::Failed)?;
        let program = &self.settings.program;
        let began = Instant::now();
        let mut ready = None;
        loop {
            if let Some(exit) = child.exit() {
                // The command may have ended because another process has the port, which it says in its own words.
                return Err(match child.holder(passage.port) {
                    Holder::Nobody => Trouble::Failed(self.ended_early(exit, &output)),
                    _ => Trouble::Taken(output.last()),
                });
            }
            if output.is_ready.load(Ordering::Acquire) || !program.says_when_ready() {
                match child.holder(passage.port) {
                    Holder::Ours | Holder::Unknown => {
                        return Ok(Open { child, passage, output, seen: Instant::now() });
                    }
                    Holder::Stranger => {
                        let output = output.last();
                        child.stop();
                        return Err(Trouble::Taken(output));
                    }
                    Holder::Nobody => {
                        let ready: &mut Instant = ready.get_or_insert_with(Instant::now);
                        if program.says_when_ready() && ready.elapsed() > LISTENS {
                            let error = self.deaf(passage.port, &output);
                            child.stop();
                            return Err(Trouble::Failed(error));
                        }
                    }
                }
            }
            if began.elapsed() > self.settings.patience {
                let error = self.late(&output); // made before the last words of the command
                child.stop();
                return Err(Trouble::Failed(error));
            }
            thread::sleep(LOOK);
        }
    }

    fn start(&self, port: u16, output: &Arc<ProgramOutput>) -> Result<Child> {
        let Settings { command, env, host, port: remote_port, program, .. } = &self.settings;
        // ssh requires brackets around an address that has colons.
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let filled = |part: &String| {
            part.replace("{remote_port}", &remote_port.to_string())
                .replace("{port}", &port.to_string())
                .replace("{host}", &host)
        };
        let mut parts = command.iter().map(filled);
        let mut command = Command::new(parts.next().unwrap_or_default());
        command.args(parts).envs(env.iter().map(|(name, value)| (name, value)));
        let (told, program, output) = (self.to_string(), Arc::clone(program), Arc::clone(output));
        let hear = move |line: Line| {
            if let Some(shown) = program.shown(&line) {
                tracing::debug!("{told}: {shown}");
                let mut last = output.last.lock().unwrap_or_else(PoisonError::into_inner);
                if !shown.trim().is_empty() {
                    last.push_back(shown);
                }
                while last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
            if program.is_ready(&line) {
                output.is_ready.store(true, Ordering::Release);
            }
        };
        Child::start(&command, Output::Lines, hear).map_err(|error| {
            let name = name_of(command.get_program());
            let what = format!("{self} cannot be opened: `{name}` cannot be run: {error}");
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                    Error::stop(what).hint("is it installed, and on PATH?")
                }
                _ => Error::of(Class::Retry, what),
            }
        })
    }

    fn ended_early(&self, exit: Exit, output: &ProgramOutput) -> Error {
        let what = format!("{self} ended before it was ready{}", how(exit, output));
        self.settings.program.explained(Error::of(Class::Retry, what))
    }

    fn late(&self, output: &ProgramOutput) -> Error {
        let seconds = self.settings.patience.as_secs();
        let what = match output.last() {
            last if last.is_empty() => format!("{self} was not ready after {seconds} s"),
            last => format!("{self} was not ready after {seconds} s; its last output was: {last}"),
        };
        self.settings.program.explained(Error::of(Class::Retry, what))
    }

    fn deaf(&self, port: u16, output: &ProgramOutput) -> Error {
        let what = format!(
            "{self} says that it is ready ({}), but nothing listens on port {port}",
            output.last()
        );
        Error::of(Class::Retry, what).hint("its command must listen on {port} of 127.0.0.1")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a child that may be about to end.
fn wait_for_exit(child: &Child) -> Option<Exit> {
    let began = Instant::now();
    while child.exit().is_none() && began.elapsed() < ENDS {
        thread::sleep(LOOK);
    }
    child.exit()
}

/// How a tunnel ended, with its last output.
fn how(exit: Exit, output: &ProgramOutput) -> String {
    match output.last() {
        last if last.is_empty() => format!(" ({exit})"),
        last => format!(" ({exit}): {last}"),
    }
}

/// Tells the waiting threads that an attempt is over, however it ended.
struct Opening<'a>(&'a Tunnel);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().is_opening = false;
        self.0.tried.notify_all();
    }
}

/// A port that is free at this moment: the wished one if possible, or any.
fn free_port(wish: Option<u16>) -> std::io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match wish.map(bind) {
        Some(Ok(listener)) => listener,
        _ => bind(0)?,
    };
    Ok(listener.local_addr()?.port())
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { host, port, .. } = &self.settings;
        write!(f, "the tunnel to {}:{port}", escaped(host))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({self})")
    }
}

/// A tunnel is equal only to itself.
impl PartialEq for Tunnel {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tunnel {}
