//! Runs a program that prints a dump, without a shell. Its standard output is passed on piece by piece, and the end of its
//! standard error is kept for the error message. It is ended when nobody wants its output any more.

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

/// The most bytes of output that are passed on at once.
const PIECE_BYTES: usize = 256 << 10;
/// How much of the end of a program's standard error is kept. The end has the reason of a failure.
const COMPLAINT_BYTES: usize = 2 << 10;
/// The longest answer that is kept.
const ANSWER_BYTES: usize = 64 << 10;
/// How long a program may take to print its version.
const SHORT: Duration = Duration::from_secs(20);
/// How often a program is checked for silence.
const TICK: Duration = Duration::from_secs(1);

/// How long a program may print nothing. Some wait for a server that first writes the whole dump to its own disk.
pub(in crate::source) fn silence(limits: &Limits) -> Duration {
    limits.patience * 4
}

/// How a program is run.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Terms<'a> {
    /// How long it may print nothing.
    pub(in crate::source) silence: Duration,
    /// A secret that must be masked in its standard error.
    pub(in crate::source) secret: Option<&'a Secret>,
    /// Texts of errors that another attempt would only repeat.
    pub(in crate::source) permanent: &'a [&'a str],
}

/// Runs a program to its end and passes its output on. Returns the end of its standard error. It is an error if the exit
/// status is not 0, or if the program prints nothing for too long.
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
    let why = if complaint.is_empty() { "it gave no reason" } else { &complaint };
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

/// The first line that a program prints about its version.
pub(in crate::source) async fn version(program: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let terms = Terms { silence: SHORT, secret: None, permanent: &[] };
    let text = answer(command, terms).await?;
    Ok(printable(text.lines().next().unwrap_or_default().trim()))
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
    let failed = |error| Error::stop(format!("a worker thread failed: {error}"));
    let child = tokio::task::spawn_blocking(start).await.map_err(failed)?;
    // When this is dropped, the program is told to end, even if nobody waits for its output any more.
    let child = child.map_err(|error| not_started(&name, &error))?;
    let Some(stdout) = child.stdout() else {
        return Err(Error::stop(format!("the output of {name} was taken already")));
    };
    // Since when the program is waited for. While the archive is slow, nobody waits for the program.
    let waiting = Arc::new(Mutex::new(None));
    let reading = {
        let (waiting, output) = (Arc::clone(&waiting), output.clone());
        tokio::task::spawn_blocking(move || hand_on(stdout, &output, &waiting))
    };
    tokio::pin!(reading);
    let mut tick = tokio::time::interval(TICK);
    let read = loop {
        tokio::select! {
            read = &mut reading => break read.map_err(failed)?,
            _ = tick.tick() => {
                let since = *lock(&waiting);
                if since.is_some_and(|since: Instant| since.elapsed() > terms.silence) {
                    return Err(silent(&name, terms.silence));
                }
            }
        }
    };
    read.map_err(|error| {
        Error::of(Class::Retry, format!("reading the output of {name}: {error}"))
    })?;
    let Ok(exit) = tokio::time::timeout(terms.silence, child.ended()).await else {
        return Err(silent(&name, terms.silence));
    };
    let complaint = lock(&complaint).clone();
    let shown = match terms.secret.map(Secret::expose) {
        Some(secret) if !secret.is_empty() => {
            // Within an address, the secret is percent-encoded.
            let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
            complaint.replace(secret, "***").replace(&encoded, "***")
        }
        _ => complaint,
    };
    Ok((exit, printable(shown.trim())))
}

/// Passes the output on until its end, or until nobody takes it any more.
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
    Error::of(Class::Retry, format!("{name} printed nothing for {seconds} s, so it was ended"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
