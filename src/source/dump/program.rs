//! A program that prints a dump: started without a shell, its standard output handed on piece by piece, its complaints
//! kept for the message, its exit status its own. It is ended when nobody wants its output any more.

use std::io::{self, ErrorKind, Read};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{Limits, Secret};
use crate::error::{Class, Error, Result};
use crate::source::channel::{DumpSender, dump_channel};
use crate::source::child::{self, Child, Exit, name_of};
use crate::source::tunnel::{Passage, Tunnel};
use crate::text::printable;

/// Bytes of output that are handed on at once.
const PIECE_BYTES: usize = 256 << 10;
/// The end of what a program complains is kept; it says why.
const COMPLAINT_BYTES: usize = 2 << 10;
/// The longest answer that is read.
const ANSWER_BYTES: usize = 64 << 10;
/// Asking a program for its version.
const SHORT: Duration = Duration::from_secs(20);
/// How often it is looked whether a program is silent.
const TICK: Duration = Duration::from_secs(1);

/// For how long a program may print nothing: some wait for a server that first writes all of it to its own disk.
pub(in crate::source) fn silence(limits: &Limits) -> Duration {
    limits.patience * 4
}

/// How a program is run.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Terms<'a> {
    /// For how long it may print nothing.
    pub(in crate::source) silence: Duration,
    /// What must not be seen in what it complains of.
    pub(in crate::source) secret: Option<&'a Secret>,
    /// Words of complaints that no further attempt helps against.
    pub(in crate::source) permanent: &'a [&'a str],
}

/// Runs a program to its end and hands on what it prints. Returns what it complained of. An error where its exit status
/// is not 0, or where it prints nothing for too long.
pub(in crate::source) async fn run(
    command: Command,
    output: &DumpSender,
    terms: Terms<'_>,
) -> Result<String> {
    let name = name_of(command.get_program());
    let (exit, complaint) = stream(command, output, terms).await?;
    if exit.is_success() {
        return Ok(complaint);
    }
    let why = if complaint.is_empty() { "it does not say why" } else { &complaint };
    let message = format!("{name} failed ({exit}): {why}");
    if terms.permanent.iter().any(|words| complaint.contains(words)) {
        Err(Error::fail(message))
    } else {
        Err(Error::of(Class::Retry, message))
    }
}

/// The way through the tunnel of a server, if it has one.
pub(in crate::source) async fn passage(tunnel: Option<&Arc<Tunnel>>) -> Result<Option<Passage>> {
    match tunnel {
        Some(tunnel) => tunnel.ready().await.map(Some),
        None => Ok(None),
    }
}

/// Runs a program that answers in a few lines, such as `--version`.
pub(in crate::source) async fn answer(command: Command, terms: Terms<'_>) -> Result<String> {
    let (output, mut pieces) = dump_channel();
    let collect = async {
        let mut text = Vec::new();
        while let Some(piece) = pieces.recv().await {
            if text.len() < ANSWER_BYTES {
                text.extend_from_slice(&piece);
            }
        }
        text
    };
    let run = async {
        let ended = run(command, &output, terms).await;
        drop(output);
        ended
    };
    let (ended, text) = tokio::join!(run, collect);
    let complaint = ended?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Ok(if text.is_empty() { complaint } else { text })
}

/// What a program says of its version, in one line.
pub(in crate::source) async fn version(program: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let terms = Terms { silence: SHORT, secret: None, permanent: &[] };
    let said = answer(command, terms).await?;
    Ok(printable(said.lines().next().unwrap_or_default().trim()))
}

async fn stream(command: Command, output: &DumpSender, terms: Terms<'_>) -> Result<(Exit, String)> {
    let name = name_of(command.get_program());
    let complaint = Arc::new(Mutex::new(String::new()));
    let start = {
        let complaint = Arc::clone(&complaint);
        move || {
            Child::start(&command, child::Output::Raw, move |line| {
                let mut complaint = lock(&complaint);
                complaint.push_str(line.text.trim_end());
                complaint.push('\n');
                let over = complaint.len().saturating_sub(COMPLAINT_BYTES);
                let over = (over..=complaint.len()).find(|at| complaint.is_char_boundary(*at));
                complaint.drain(..over.unwrap_or_default());
            })
        }
    };
    let ended = |error| Error::stop(format!("a thread ended: {error}"));
    let child = tokio::task::spawn_blocking(start).await.map_err(ended)?;
    // It is told to end when this is dropped, also where nobody waits for its output any more.
    let child = child.map_err(|error| not_started(&name, &error))?;
    let Some(stdout) = child.stdout() else {
        return Err(Error::stop(format!("{name}: its output was taken already")));
    };
    // Since when it is waited for; a slow archive is no silence.
    let waiting = Arc::new(Mutex::new(None));
    let reading = {
        let (waiting, output) = (Arc::clone(&waiting), output.clone());
        tokio::task::spawn_blocking(move || hand_on(stdout, &output, &waiting))
    };
    tokio::pin!(reading);
    let mut tick = tokio::time::interval(TICK);
    let read = loop {
        tokio::select! {
            read = &mut reading => break read.map_err(ended)?,
            _ = tick.tick() => {
                let since = *lock(&waiting);
                if since.is_some_and(|since: Instant| since.elapsed() > terms.silence) {
                    return Err(silent(&name, terms.silence));
                }
            }
        }
    };
    read.map_err(|error| Error::of(Class::Retry, format!("reading what {name} prints: {error}")))?;
    let Ok(exit) = tokio::time::timeout(terms.silence, child.ended()).await else {
        return Err(silent(&name, terms.silence));
    };
    let said = lock(&complaint).clone();
    let shown = match terms.secret.map(Secret::expose) {
        Some(secret) if !secret.is_empty() => {
            // In an address it is written in another way.
            let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
            said.replace(secret, "***").replace(&encoded, "***")
        }
        _ => said,
    };
    Ok((exit, printable(shown.trim())))
}

/// Hands on what comes until its end, or until nobody takes it any more.
fn hand_on(
    mut from: impl Read,
    output: &DumpSender,
    waiting: &Mutex<Option<Instant>>,
) -> io::Result<()> {
    loop {
        *lock(waiting) = Some(Instant::now());
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = from.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        *lock(waiting) = None;
        read?;
        if piece.is_empty() || output.blocking_send(Bytes::from(piece)).is_err() {
            return Ok(());
        }
    }
}

fn not_started(name: &str, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::fail(format!("there is no {name} on PATH"))
            .hint(format!("install {name}, or remove the dump from the configuration")),
        _ => Error::fail(format!("{name} cannot be started: {error}")),
    }
}

fn silent(name: &str, silence: Duration) -> Error {
    let seconds = silence.as_secs();
    Error::of(Class::Retry, format!("{name} has printed nothing for {seconds} s, and was ended"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
