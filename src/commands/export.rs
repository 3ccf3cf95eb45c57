//! The verb `export`: it opens the archive, shows a sign of life, prepares a run and carries it out.

use tokio::sync::watch;

use crate::archive::Archive;
use crate::archive::runs::{Heartbeat, new_run_id};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::export::prepare::prepare;
use crate::export::summary::Summary;
use crate::progress::Progress;
use crate::retry::{GRACE, Interrupt, Retry};

/// Runs, or goes on where another run stopped. `interrupted` turns true when the user wants to stop.
pub async fn export(
    job: &Job,
    progress: &Progress,
    interrupted: watch::Receiver<bool>,
) -> Result<Summary> {
    let place = job.archive.as_ref().ok_or_else(|| {
        Error::usage("there is no archive to write to")
            .hint("give --archive PATH or s3://BUCKET/PREFIX, or `archive` in the configuration")
    })?;
    let interrupt = Interrupt::new(interrupted);
    let retry = Retry::new(&job.limits, progress, interrupt.clone());
    let archive = interrupt.or(Archive::create(place)).await?;
    // Before anything is asked or read: another run must not take this one for one that is over.
    let beating = archive.beat(Heartbeat::new(&new_run_id())).await?;
    match interrupt.or(prepare(job, &archive, &beating, progress, retry)).await {
        Ok(mut run) => {
            run.beating = Some(beating);
            run.run().await
        }
        Err(error) => {
            let run = beating.run().to_owned();
            beating.stop().await;
            let forgotten = tokio::time::timeout(GRACE, archive.forget_heartbeat(&run)).await;
            if let Ok(Err(error)) = forgotten {
                tracing::warn!("removing the heartbeat: {error}");
            }
            Err(error)
        }
    }
}
