//! A source as it is listed again while a run is at work, and the chunks that wait for it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Chunk, Listing};
use crate::retry::Retry;
use crate::source::Source;
use crate::window::Window;

/// What a source has now; with the bounds of its tables, where there is reason to ask for them.
pub(super) type Listed = (Listing, Option<Vec<Option<Window>>>);

/// Lists a source again.
pub(super) async fn list_again(source: Arc<dyn Source>, retry: Retry) -> Result<Listed> {
    let of = source.name();
    let listing = retry.with_retry(of, || source.list()).await?;
    // Listing may have given a source with snapshots a newer one; of other sources the bounds are costly to ask.
    let bounds = if listing.tables.iter().any(|table| table.time_column.is_some()) {
        Some(retry.with_retry(of, || source.bounds(&listing.tables)).await?)
    } else {
        None
    };
    Ok((listing, bounds))
}

/// A chunk that waits for its source to be listed again.
#[derive(Debug)]
pub(super) struct Relisting {
    /// The number of its table in the queue.
    pub(super) at: usize,
    pub(super) chunk: Chunk,
    /// Why the listing is not the right one any more.
    pub(super) error: Error,
}
