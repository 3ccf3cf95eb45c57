//! The first contact with a source. A failure here is most often caused by a mistake in the address, so it is reported at
//! once with its likely cause. Later failures are left to `retry`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Limits, SourceKind, SourceSpec};
use crate::error::{Class, Error, Result};
use crate::model::SourceInfo;
use crate::retry::Retry;
use crate::source::Source;
use crate::source::probe::{Cause, Endpoint, probe};
use crate::source::registry::open;

/// After this time without an answer, the server may be one that waits for its client to speak another protocol.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// Opens a source and asks it what it is. An error that is not permanent means that the source may come back.
pub async fn contact(
    spec: &SourceSpec,
    limits: &Limits,
    retry: &Retry,
) -> Result<(Arc<dyn Source>, SourceInfo)> {
    for failures in 1.. {
        let began = Instant::now();
        let error = match retry.interrupt().or(ask(spec, limits)).await {
            Ok(answer) => {
                retry.answered(&spec.name, began);
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.class() {
            Class::Stop | Class::Fail => return Err(error),
            Class::Wait(pause) => {
                retry.quota(&spec.name, pause, failures, &error);
                retry.wait_for_quota(&spec.name).await?;
            }
            // The tunnel's program has said why, and waiting does not help against a mistake in its command.
            _ if spec.kind.tunnel().is_some_and(|tunnel| !tunnel.was_ready()) => return Err(error),
            _ => {
                match likely_cause(spec).await {
                    Some(Cause { text, answers: true }) => return Err(error.for_good().hint(text)),
                    Some(Cause { text, answers: false }) => return Err(error.hint(text)),
                    None if failures >= retry.attempts() => return Err(error),
                    None => {}
                }
                retry.wait_after(failures, &error.to_string()).await?;
            }
        }
    }
    Err(Error::interrupted())
}

async fn ask(spec: &SourceSpec, limits: &Limits) -> Result<(Arc<dyn Source>, SourceInfo)> {
    let asked = async {
        let source = open(spec, limits).await?;
        let mut info = source.describe().await?;
        if let SourceKind::Behind(behind) = &spec.kind {
            behind.address().clone_into(&mut info.address);
        }
        Ok((source, info))
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => return answer,
        () = tokio::time::sleep(PROBE_AFTER) => {}
    }
    tokio::select! {
        answer = &mut asked => answer,
        cause = wrong_server(spec) => {
            let error = Error::stop(format!("{}: the server does not answer", spec.name));
            Err(error.hint(cause))
        }
    }
}

/// Returns only if another server than the expected one answers at the address.
async fn wrong_server(spec: &SourceSpec) -> String {
    match likely_cause(spec).await {
        Some(cause) => cause.text,
        None => std::future::pending().await,
    }
}

/// The likely cause of a failed contact; `None` if the expected server answers.
async fn likely_cause(spec: &SourceSpec) -> Option<Cause> {
    let endpoint = Endpoint::of(&spec.kind)?;
    tokio::task::spawn_blocking(move || probe(&endpoint)).await.ok()?
}
