//! A tunnel: a child process that forwards a local port to a source. Each new connection of the source asks for the port
//! first, and gets it only while the tunnel is ready and is known to be the one that listens there. A tunnel that has
//! ended, or that nothing comes out of, is opened again for whoever asks next; how often that is tried is for
//! [`crate::retry`] to say.

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

/// How long a tunnel may take until it is ready. Some ask a service for a certificate first, over a slow line.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long a tunnel that says it is ready may take until it listens.
const LISTENS: Duration = Duration::from_secs(10);
/// How long a tunnel that listens no more may take to end by itself.
const ENDS: Duration = Duration::from_millis(500);
/// Between two looks at a tunnel that is being opened, or is ending.
const LOOK: Duration = Duration::from_millis(20);
/// For how long a request over HTTP, which most often needs no new connection, does not ask again who listens.
const SEEN: Duration = Duration::from_secs(1);
/// So many connections one after the other that no byte comes out of show that a tunnel hangs.
const SILENT: u32 = 2;
/// How many ports are tried that other processes take before the tunnel does.
const PORTS: usize = 4;
/// What a tunnel said last, for its error.
const LAST_LINES: usize = 5;

/// How a tunnel is opened, and where it leads.
pub struct Settings {
    /// The command. In each part, `{port}` stands for the local port, `{host}` and `{remote_port}` for the server's.
    pub command: Vec<String>,
    /// What it needs in its environment besides moveout's own; the only place for its secrets.
    pub env: Vec<(String, String)>,
    /// The server as the source names it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How long it may take until it is ready.
    pub patience: Duration,
    /// What the command's output means.
    pub program: Arc<dyn Program>,
}

/// A tunnel to a server. It is opened when somebody asks for it for the first time, and ended when it is dropped.
pub struct Tunnel {
    settings: Settings,
    state: Mutex<State>,
    /// Somebody has opened it, or has failed to.
    tried: Condvar,
    /// Connections one after the other that no byte has come out of.
    silent: AtomicU32,
    was_ready: AtomicBool,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Somebody is opening it.
    is_opening: bool,
    /// How often that was tried.
    attempts: u64,
    /// Why the last attempt failed.
    failed: Option<Error>,
    /// The port of the tunnel that was there last.
    last_port: Option<u16>,
}

/// A tunnel that is ready.
struct Open {
    child: Child,
    passage: Passage,
    said: Arc<Said>,
    seen: Instant,
}

/// The way into a tunnel that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    port: u16,
    /// Of the attempt that opened it.
    number: u64,
}

impl Passage {
    /// Where to connect to.
    pub fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port of that.
    pub fn port(self) -> u16 {
        self.port
    }
}

/// What a tunnel has said so far.
#[derive(Default)]
struct Said {
    is_ready: AtomicBool,
    last: Mutex<VecDeque<String>>,
}

impl Said {
    /// In one line.
    fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        printable(&last.iter().map(String::as_str).collect::<Vec<_>>().join("; "))
    }
}

/// Why there is no tunnel at a port.
enum Trouble {
    /// Another process has the port; what the command said last.
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

    /// Waits until the tunnel is ready, and opens it first if need be. All who ask at the same time share one attempt.
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
            before.child.stop(); // its port is free after that
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

    /// The same, for a thread that may not block.
    pub async fn ready(self: &Arc<Self>) -> Result<Passage> {
        if let Some(passage) = self.now() {
            return Ok(passage);
        }
        let this = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || this.ask()).await;
        asked.unwrap_or_else(|error| Err(Error::stop(format!("a worker thread ended: {error}"))))
    }

    /// The way in, if the tunnel is ready at this moment.
    pub fn now(&self) -> Option<Passage> {
        let state = self.state.try_lock().ok()?;
        let open = state.open.as_ref()?;
        let is_well = open.child.exit().is_none()
            && open.seen.elapsed() < SEEN
            && self.silent.load(Ordering::Relaxed) < SILENT;
        is_well.then_some(open.passage)
    }

    /// Whether it has ever been ready. What has not is most often a slip in its command.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Something has come out of the tunnel.
    pub fn heard(&self) {
        if self.silent.load(Ordering::Relaxed) > 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// A connection through this passage has ended, or was given up, and not a byte had come out of it.
    pub fn was_silent(&self, passage: Passage) {
        let state = self.lock();
        if state.open.as_ref().is_some_and(|open| open.passage == passage) {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is wrong with a tunnel that was ready.
    fn trouble(&self, open: &mut Open) -> Option<String> {
        if let Some(exit) = open.child.exit() {
            return Some(format!("has ended{}", how(exit, &open.said)));
        }
        if self.silent.load(Ordering::Relaxed) >= SILENT {
            return Some("lets connections in, and nothing comes out of them".to_owned());
        }
        match open.child.holder(open.passage.port) {
            Holder::Ours | Holder::Unknown => {
                open.seen = Instant::now();
                None
            }
            // Most often it is ending, and says why.
            lost => Some(match (wait_for_exit(&open.child), lost) {
                (Some(exit), _) => format!("has ended{}", how(exit, &open.said)),
                (None, Holder::Nobody) => "does not listen any more".to_owned(),
                (None, _) => "has lost its port to another process".to_owned(),
            }),
        }
    }

    /// Opens it, at the same port as before if that can be had.
    fn open(&self, number: u64, before: Option<u16>) -> Result<Open> {
        let (mut wish, mut last) = (before, String::new());
        for _ in 0..PORTS {
            let port = free_port(wish.take())
                .map_err(|error| Error::of(Class::Retry, format!("{self}: no port: {error}")))?;
            match self.open_at(Passage { port, number }) {
                Ok(open) => return Ok(open),
                Err(Trouble::Taken(said)) => {
                    tracing::info!("{self}: another process has port {port}");
                    last = if said.is_empty() { said } else { format!("; it said last: {said}") };
                }
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        let what =
            format!("{self} cannot be opened: another process listens on its port each time{last}");
        Err(Error::of(Class::Retry, what).hint(
            "the command itself must listen on {port}: not a service that it asks, nor a master of ssh that runs \
             already (-S none)",
        ))
    }

    fn open_at(&self, passage: Passage) -> Result<Open, Trouble> {
        let said = Arc::<Said>::default();
        let child = self.start(passage.port, &said).map_err(Trouble::Failed)?;
        let program = &self.settings.program;
        let began = Instant::now();
        let mut ready = None;
        loop {
            if let Some(exit) = child.exit() {
                // It says so in words of its own when another process has the port.
                return Err(match child.holder(passage.port) {
                    Holder::Nobody => Trouble::Failed(self.ended_early(exit, &said)),
                    _ => Trouble::Taken(said.last()),
                });
            }
            if said.is_ready.load(Ordering::Acquire) || !program.says_when_ready() {
                match child.holder(passage.port) {
                    Holder::Ours | Holder::Unknown => {
                        return Ok(Open { child, passage, said, seen: Instant::now() });
                    }
                    Holder::Stranger => {
                        let said = said.last();
                        child.stop();
                        return Err(Trouble::Taken(said));
                    }
                    Holder::Nobody => {
                        let ready: &mut Instant = ready.get_or_insert_with(Instant::now);
                        if program.says_when_ready() && ready.elapsed() > LISTENS {
                            let error = self.deaf(passage.port, &said);
                            child.stop();
                            return Err(Trouble::Failed(error));
                        }
                    }
                }
            }
            if began.elapsed() > self.settings.patience {
                let error = self.late(&said); // before it says goodbye
                child.stop();
                return Err(Trouble::Failed(error));
            }
            thread::sleep(LOOK);
        }
    }

    fn start(&self, port: u16, said: &Arc<Said>) -> Result<Child> {
        let Settings { command, env, host, port: remote_port, program, .. } = &self.settings;
        // As ssh wants an address that has colons.
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let filled = |part: &String| {
            part.replace("{remote_port}", &remote_port.to_string())
                .replace("{port}", &port.to_string())
                .replace("{host}", &host)
        };
        let mut parts = command.iter().map(filled);
        let mut command = Command::new(parts.next().unwrap_or_default());
        command.args(parts).envs(env.iter().map(|(name, value)| (name, value)));
        let (told, program, said) = (self.to_string(), Arc::clone(program), Arc::clone(said));
        let hear = move |line: Line| {
            if let Some(shown) = program.shown(&line) {
                tracing::debug!("{told}: {shown}");
                let mut last = said.last.lock().unwrap_or_else(PoisonError::into_inner);
                if !shown.trim().is_empty() {
                    last.push_back(shown);
                }
                while last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
            if program.is_ready(&line) {
                said.is_ready.store(true, Ordering::Release);
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

    fn ended_early(&self, exit: Exit, said: &Said) -> Error {
        let what = format!("{self} ended before it was ready{}", how(exit, said));
        self.settings.program.explained(Error::of(Class::Retry, what))
    }

    fn late(&self, said: &Said) -> Error {
        let seconds = self.settings.patience.as_secs();
        let what = match said.last() {
            last if last.is_empty() => format!("{self} was not ready after {seconds} s"),
            last => format!("{self} was not ready after {seconds} s, and said last: {last}"),
        };
        self.settings.program.explained(Error::of(Class::Retry, what))
    }

    fn deaf(&self, port: u16, said: &Said) -> Error {
        let what = format!(
            "{self} says that it is ready ({}), but nothing listens on port {port}",
            said.last()
        );
        Error::of(Class::Retry, what).hint("its command must listen on {port} of 127.0.0.1")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a child ends that may be about to.
fn wait_for_exit(child: &Child) -> Option<Exit> {
    let began = Instant::now();
    while child.exit().is_none() && began.elapsed() < ENDS {
        thread::sleep(LOOK);
    }
    child.exit()
}

/// How a tunnel ended, with what it said last.
fn how(exit: Exit, said: &Said) -> String {
    match said.last() {
        last if last.is_empty() => format!(" ({exit})"),
        last => format!(" ({exit}): {last}"),
    }
}

/// Ends the attempt for those who wait for it, however it ended.
struct Opening<'a>(&'a Tunnel);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().is_opening = false;
        self.0.tried.notify_all();
    }
}

/// A port that is free at this moment: the one that is wished for, or any.
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

/// A tunnel is only the same as itself.
impl PartialEq for Tunnel {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tunnel {}
