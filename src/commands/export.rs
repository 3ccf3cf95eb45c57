//! The verb `export`: opens the archive, starts a heartbeat, prepares a run and carries it out.

use tokio::sync::watch;

use crate::archive::Archive;
use crate::archive::runs::{Heartbeat, new_run_id};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::export::prepare::prepare;
use crate::export::summary::Summary;
use crate::progress::Progress;
use crate::retry::{GRACE, Interrupt, Retry};
use crate::source::aptible::expand;

/// Exports, or continues where an earlier run stopped. `interrupted` turns true when the user wants to stop.
pub async fn export(
    job: &Job,
    progress: &Progress,
    interrupted: watch::Receiver<bool>,
) -> Result<Summary> {
    let place = job.archive.as_ref().ok_or_else(|| {
        Error::usage("no archive is given")
            .hint("give --archive PATH or s3://BUCKET/PREFIX, or `archive` in the configuration")
    })?;
    let interrupt = Interrupt::new(interrupted);
    let retry = Retry::new(&job.limits, progress, interrupt.clone());
    let expanded = expand(job, progress, &retry).await?;
    let job = expanded.job.as_ref();
    let archive = interrupt.or(Archive::create(place)).await?;
    let archive = archive.folding_each(job.limits.fold_commits);
    // The heartbeat comes before every request, so that no other run takes this one for dead.
    let run = new_run_id();
    let shard = job.shard.map(|shard| shard.to_string());
    let error = match archive.beat(Heartbeat { shard, ..Heartbeat::new(&run) }).await {
        Ok(beating) => {
            match interrupt.or(prepare(job, &archive, &beating, progress, retry)).await {
                Ok(mut run) => {
                    run.beating = Some(beating);
                    return run.run().await;
                }
                Err(error) => {
                    beating.stop().await;
                    error
                }
            }
        }
        Err(error) => error,
    };
    let undone = async {
        archive.forget_heartbeat(&run).await?;
        archive.unmake(&run).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(GRACE, undone).await {
        tracing::warn!("removing what was begun: {error}");
    }
    Err(error)
}
