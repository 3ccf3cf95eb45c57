//! Compares a chunk with the rows that its source has now, by statistics that the source computes, or row by row.

use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::column_stats::Recorded;
use crate::commands::verify::file;
use crate::error::{Class, Error, Result};
use crate::fingerprint::Fingerprint;
use crate::model::{Chunk, Level, Proof, Table};
use crate::retry::Retry;
use crate::source::Source;
use crate::source::channel::BatchSender;
use crate::store::Store;
use crate::text::several;
use crate::window::{MIN_WIDTH, Slice};

/// The number of batches that may wait between the source and the computation of the fingerprint.
const BATCHES: usize = 8;

/// How many differences of a chunk are reported.
const SHOWN: usize = 4;

/// The first differences, since one missing row makes a difference in each column.
pub(super) fn in_short(differences: &[String]) -> String {
    let shown = &differences[..differences.len().min(SHOWN)];
    let more = match differences.len() - shown.len() {
        0 => String::new(),
        more => format!("; and {}", several(more as u64, "more difference")),
    };
    format!("{}{more}", shown.join("; "))
}

/// One chunk, to be compared.
pub(super) struct One<'a> {
    /// The table with the columns as the chunk has them.
    pub(super) table: Arc<Table>,
    pub(super) source: &'a Arc<dyn Source>,
    pub(super) commit: &'a Commit,
    pub(super) retry: &'a Retry,
}

impl One<'_> {
    /// Lets the source compute the statistics that the commit records. If it cannot, the rows are read again.
    pub(super) async fn by_statistics(&self, store: &Store, share: usize) -> Result<Proof> {
        let recorded = Recorded { rows: self.commit.rows, columns: &self.commit.columns };
        match self.ask(|| self.source.prove(&self.table, self.commit.slice, recorded)).await? {
            Ok(Some(proof)) => Ok(proof),
            // A window that is too large to be computed at once can be read in parts.
            Ok(None) => self.by_rows(store, share).await,
            Err(error) if error.class() == Class::Split => self.by_rows(store, share).await,
            Err(changed) => Ok(Self::changed(&changed, Level::Statistics)),
        }
    }

    /// Reads the rows again, and compares their fingerprint with that of the files.
    pub(super) async fn by_rows(&self, store: &Store, share: usize) -> Result<Proof> {
        let (store, commit) = (store.clone(), self.commit.clone());
        let decoding =
            tokio::task::spawn_blocking(move || file::fingerprint(&store, &commit, share));
        let decoded = decoding.await.map_err(|error| Error::incomplete(error.to_string()))?;
        let archived = match decoded? {
            Ok(fingerprint) => fingerprint,
            Err((key, why)) => return Err(Error::incomplete(format!("{key}: {why}"))),
        };
        let now = match self.now().await {
            Err(error) if error.class() == Class::SchemaChanged => {
                return Ok(Self::changed(&error, Level::Rows));
            }
            now => now?,
        };
        let differences = if now == archived {
            Vec::new()
        } else if now.rows == archived.rows {
            vec![format!("{} rows, as in the archive, but other values", now.rows)]
        } else {
            vec![format!("rows: {} now, {} in the archive", now.rows, archived.rows)]
        };
        Ok(Proof { level: Level::Rows, differences })
    }

    /// The proof for a table that has other columns or values than when it was exported.
    fn changed(error: &Error, level: Level) -> Proof {
        Proof { level, differences: vec![format!("the table has changed: {error}")] }
    }

    /// The fingerprint of the rows that the source has now. A window that is too large for the source is halved.
    async fn now(&self) -> Result<Fingerprint> {
        let mut todo = vec![self.commit.slice];
        let mut all = Fingerprint::default();
        while let Some(slice) = todo.pop() {
            match self.ask(|| read_again(self.source.as_ref(), &self.table, slice)).await? {
                Ok(fingerprint) => all.merge(fingerprint),
                Err(error) => {
                    let halves = match slice {
                        Slice::Window(window) if error.class() == Class::Split => {
                            window.halves(MIN_WIDTH)
                        }
                        _ => None,
                    };
                    let Some((left, right)) = halves else { return Err(error) };
                    todo.extend([right, left].map(Slice::from));
                }
            }
        }
        Ok(all)
    }

    /// Asks until there is an answer, or an error that asking once more does not mend: the inner one is for the caller to
    /// act on.
    async fn ask<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<Result<T>> {
        let asked = self.retry.with_retry(self.source.name(), || async {
            match ask().await {
                Err(error) if matches!(error.class(), Class::Split | Class::SchemaChanged) => {
                    Ok(Err(error))
                }
                answer => answer.map(Ok),
            }
        });
        asked.await
    }
}

async fn read_again(source: &dyn Source, table: &Arc<Table>, slice: Slice) -> Result<Fingerprint> {
    let (sender, mut batches) = BatchSender::channel(BATCHES);
    let columns = table.columns.clone();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut fingerprint = Fingerprint::default();
        while let Some(batch) = batches.blocking_recv() {
            fingerprint.add(&columns, &batch).map_err(|error| Error::fail(error.to_string()))?;
        }
        Ok(fingerprint)
    });
    let chunk = Chunk { table: Arc::clone(table), slice };
    let read = source.read(&chunk, sender).await;
    let hashed = hashing.await.unwrap_or_else(|error| Err(Error::stop(error.to_string())));
    // The fingerprint counts only if the stream ended without an error.
    read.and(hashed)
}
