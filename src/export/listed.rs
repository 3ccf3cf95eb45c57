//! Lists a source again while a run is at work, and the chunks that wait for that.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Chunk, Listing};
use crate::retry::Retry;
use crate::source::Source;
use crate::window::Window;

/// What a source has now, with the bounds of its tables if there is a reason to ask for them.
pub(super) type Listed = (Listing, Option<Vec<Option<Window>>>);

/// Lists a source again.
pub(super) async fn list_again(source: Arc<dyn Source>, retry: Retry) -> Result<Listed> {
    let of = source.name();
    let listing = retry.with_retry(of, || source.list()).await?;
    // A source with snapshots may have a newer one after the listing. For other sources, the bounds are costly to find.
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
    /// Why the listing is no longer valid.
    pub(super) error: Error,
}
