//! Reads a chunk of the archive back into record batches. Each file is hashed first, so that only rows that were committed
//! are sent.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::array::{BooleanArray, TimestampNanosecondArray};
use arrow::compute::{filter_record_batch, kernels::cmp};
use arrow::datatypes::TimestampNanosecondType;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::archive::commit::Commit;
use crate::commands::verify::file;
use crate::error::{Error, Result};
use crate::model::{Column, Role};
use crate::store::Store;
use crate::window::Window;

/// Batches between the thread that decodes and the target.
const BATCHES: usize = 2;

/// The columns of a chunk, and its batches, which a thread decodes. The handle says whether all of them were read.
pub(super) async fn rows(
    store: &Store,
    commit: &Arc<Commit>,
    share: usize,
    within: Option<Window>,
) -> Result<(Vec<Column>, mpsc::Receiver<RecordBatch>, JoinHandle<Result<()>>)> {
    for file in &commit.files {
        let size = store.look(&file.key).await?.map(|entry| entry.size_bytes);
        if let Some(why) = file::size_fault(file, size) {
            return Err(different(&file.key, &why));
        }
    }
    let (sender, batches) = mpsc::channel(BATCHES);
    let (first, columns) = oneshot::channel();
    let (store, commit) = (store.clone(), Arc::clone(commit));
    let reading = tokio::task::spawn_blocking(move || {
        let mut first = Some(first);
        let read = file::read_chunk(&store, &commit, share, &mut |columns, batch| {
            if let Some(first) = first.take() {
                let _ = first.send(columns.to_vec());
            }
            let batch = cut(columns, batch, within)?;
            if batch.num_rows() > 0 {
                // Whoever receives may have failed, and says why.
                let _ = sender.blocking_send(batch);
            }
            Ok(())
        })?;
        read.map_err(|(key, why)| different(&key, &why))
    });
    match columns.await {
        Ok(columns) => Ok((columns, batches, reading)),
        Err(_) => match reading.await.map_err(|error| Error::stop(error.to_string()))? {
            Err(error) => Err(error),
            Ok(()) => Err(Error::stop("a chunk with rows has no file")),
        },
    }
}

fn different(key: &str, why: &str) -> Error {
    Error::different(format!("{key}: {why}; nothing of this file was restored")).hint(
        "if it is the memory, give more by --memory; otherwise `moveout verify ARCHIVE` says what else is changed: take \
         the file from a copy of the archive",
    )
}

/// The rows of a batch whose time lies in a window.
fn cut(columns: &[Column], batch: &RecordBatch, within: Option<Window>) -> Result<RecordBatch> {
    let Some(within) = within else { return Ok(batch.clone()) };
    let Some(time) = columns.iter().position(|column| column.role == Role::Time) else {
        return Err(Error::usage("`--from` and `--to` are for tables with a time"));
    };
    let times = batch.column(time).as_primitive::<TimestampNanosecondType>();
    let bound = |time| TimestampNanosecondArray::new_scalar(time);
    // The time zone does not matter, because nanoseconds are compared.
    let times = times.clone().with_timezone_opt::<&str>(None);
    let inside = || -> std::result::Result<BooleanArray, arrow::error::ArrowError> {
        let after = cmp::gt_eq(&times, &bound(within.from))?;
        arrow::compute::and(&after, &cmp::lt(&times, &bound(within.to))?)
    };
    inside()
        .and_then(|inside| filter_record_batch(batch, &inside))
        .map_err(|error| Error::stop(error.to_string()))
}
