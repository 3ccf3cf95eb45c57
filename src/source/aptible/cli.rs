//! Asks Aptible's CLI, which answers with JSON. Its standard output may contain passwords, so nothing of it is shown, not
//! even if the answer cannot be understood.

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

/// The name of the CLI.
pub(super) const PROGRAM: &str = "aptible";
/// How often the same question is asked. For permanent failures, the words of the CLI decide.
const ATTEMPTS: u32 = 3;
/// How long an answer may take. Before each, the CLI waits up to 45 s for a service to which it reports.
const PATIENCE: Duration = Duration::from_secs(180);
/// The longest answer that is read. No account has enough databases to fill it.
const LONGEST: u64 = 64 << 20;
/// How many of its last lines are kept for an error.
const LAST_LINES: usize = 3;

/// Asks the CLI, and asks again if that may help.
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
    let last_lines = Arc::<Mutex<VecDeque<String>>>::default();
    let kept = Arc::clone(&last_lines);
    let started = blocking(move || {
        Child::start(&command, Output::Raw, move |line| {
            let Some(shown) = shown(&line) else { return };
            tracing::debug!("{PROGRAM}: {shown}");
            let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(shown);
            while lines.len() > LAST_LINES {
                lines.pop_front();
            }
        })
        .map_err(|error| {
            Error::stop(format!("`{PROGRAM}` cannot be run: {error}"))
                .hint("install Aptible's CLI, and make sure that it is on PATH")
        })
    });
    let child = started.await?;
    let output = child.stdout();
    let reading = blocking(move || read(output));
    let Ok(answer) = tokio::time::timeout(PATIENCE, reading).await else {
        child.end();
        let seconds = PATIENCE.as_secs();
        return Err(Error::of(Class::Retry, format!("`{what}` did not answer within {seconds} s")));
    };
    let exit = child.ended().await;
    if !exit.is_success() {
        let lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        return Err(explained(Error::of(
            Class::Retry,
            format!("`{what}` failed ({exit}): {}", lines.join("; ")),
        )));
    }
    // The error itself is not shown, since serde quotes what it has read.
    serde_json::from_slice(&answer?).map_err(|_| {
        Error::stop(format!("the answer of `{what}` cannot be understood"))
            .hint("update Aptible's CLI, and moveout")
    })
}

fn read(output: Option<ChildStdout>) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    if let Some(output) = output {
        output.take(LONGEST).read_to_end(&mut answer).map_err(|error| {
            Error::of(Class::Retry, format!("reading the answer of `{PROGRAM}`: {error}"))
        })?;
    }
    Ok(answer)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::stop(format!("a worker thread failed: {error}"))))
}
