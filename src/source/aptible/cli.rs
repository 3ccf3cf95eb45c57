//! The CLI of Aptible, where it answers with JSON. What it writes to standard output may hold passwords, so that nothing
//! of it is shown, not even of an answer that cannot be understood.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{ChildStdout, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::{Class, Error, Result};
use crate::retry::Retry;
use crate::source::aptible::failures::{explained, shown};
use crate::source::child::{Child, Output};

/// The program.
pub(super) const PROGRAM: &str = "aptible";
/// How often it is asked the same. It says itself what no further attempt helps against.
const ATTEMPTS: u32 = 3;
/// How long an answer may take. Before each, the CLI reports to a service that it waits for up to 45 s.
const PATIENCE: Duration = Duration::from_secs(180);
/// An account has fewer databases than would fill this.
const LONGEST: u64 = 64 << 20;
/// What it said last, for its error.
const LAST_LINES: usize = 3;

/// Asks the CLI, and again where that may help.
pub(super) async fn ask<T: DeserializeOwned>(args: &[&str], retry: &Retry) -> Result<T> {
    for attempt in 1.. {
        match retry.interrupt().or(once(args)).await {
            Err(error) if error.class() == Class::Retry && attempt < ATTEMPTS => {
                retry.wait_after(attempt, &error.to_string()).await?;
            }
            answer => return answer,
        }
    }
    Err(Error::interrupted())
}

async fn once<T: DeserializeOwned>(args: &[&str]) -> Result<T> {
    let what = format!("{PROGRAM} {}", args.join(" "));
    let mut command = Command::new(PROGRAM);
    command.args(args).env("APTIBLE_OUTPUT_FORMAT", "json");
    let said = Arc::<Mutex<VecDeque<String>>>::default();
    let hear = Arc::clone(&said);
    let started = blocking(move || {
        Child::start(&command, Output::Raw, move |line| {
            let Some(shown) = shown(&line) else { return };
            tracing::debug!("{PROGRAM}: {shown}");
            let mut said = hear.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_back(shown);
            while said.len() > LAST_LINES {
                said.pop_front();
            }
        })
        .map_err(|error| {
            Error::stop(format!("`{PROGRAM}` cannot be run: {error}"))
                .hint("install Aptible's CLI, and see that it is on PATH")
        })
    });
    let child = started.await?;
    let output = child.stdout();
    let reading = blocking(move || read(output));
    let Ok(answer) = tokio::time::timeout(PATIENCE, reading).await else {
        child.end();
        let seconds = PATIENCE.as_secs();
        return Err(Error::of(Class::Retry, format!("`{what}` has not answered for {seconds} s")));
    };
    let exit = child.ended().await;
    if !exit.is_success() {
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        return Err(explained(Error::of(
            Class::Retry,
            format!("`{what}` failed ({exit}): {}", said.join("; ")),
        )));
    }
    // An error of serde quotes what it has read.
    serde_json::from_slice(&answer?).map_err(|_| {
        Error::stop(format!("what `{what}` answers cannot be understood"))
            .hint("update Aptible's CLI, and moveout")
    })
}

fn read(output: Option<ChildStdout>) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    if let Some(output) = output {
        output.take(LONGEST).read_to_end(&mut answer).map_err(|error| {
            Error::of(Class::Retry, format!("reading what `{PROGRAM}` answers: {error}"))
        })?;
    }
    Ok(answer)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::stop(format!("a worker thread ended: {error}"))))
}
