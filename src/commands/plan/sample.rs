//! Samples a table: how fast its rows arrive, and how large they are in memory and as Parquet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use crate::encode::{Cores, EncodeOptions, Encoder, Output};
use crate::model::{Chunk, Table};
use crate::source::Source;
use crate::source::channel::{BatchSender, size_bytes};
use crate::window::{DAY, Slice, Window};

/// For how long rows are read to measure the speed.
const TIME: Duration = Duration::from_secs(2);
/// Rows of a sample of a source that meters the bytes that are read.
const BILLED_ROWS: usize = 50_000;
/// Bytes of rows that are encoded to measure their size as Parquet.
const ENCODED_BYTES: usize = 16 << 20;
/// With fewer rows than this, the header and the footer of the file would distort the size.
const ENCODED_ROWS: usize = 10_000;

/// The result of a sample.
pub(super) struct Sample {
    /// Rows per second.
    pub(super) rows_per_second: f64,
    /// Bytes of a row in memory, which is about its size on the wire.
    pub(super) memory_bytes_per_row: f64,
    /// Bytes of a row as Parquet; `None` if there were too few rows.
    pub(super) parquet_bytes_per_row: Option<f64>,
}

/// Reads rows of a window for a short time. `None` if no row arrived.
pub(super) async fn read(
    source: &dyn Source,
    table: &Arc<Table>,
    window: Window,
) -> Option<Sample> {
    let (sender, mut batches) = BatchSender::channel(1);
    // If bytes are metered, few rows must do, so that little of the quota is used.
    let billed = source.metering().is_some();
    let window = if billed {
        Window { from: window.from.max(window.to.saturating_sub(DAY)), ..window }
    } else {
        window
    };
    let most_rows = if billed { BILLED_ROWS } else { usize::MAX };
    let chunk = Chunk { table: Arc::clone(table), slice: Slice::from(window) };
    let (began, mut rows, mut bytes, mut last) = (Instant::now(), 0, 0, Duration::ZERO);
    let mut kept = Vec::new();
    let counted = async {
        while let Some(batch) = batches.recv().await {
            rows += batch.num_rows();
            bytes += batch.columns().iter().map(size_bytes).sum::<usize>();
            last = began.elapsed();
            if bytes <= ENCODED_BYTES {
                kept.push(batch);
            }
            if rows >= most_rows {
                break;
            }
        }
        batches.close();
    };
    // An error of the read does not matter: either everything was read in time, or enough to know the speed.
    let _ =
        tokio::time::timeout(TIME, async { tokio::join!(source.read(&chunk, sender), counted) })
            .await;
    let per = |sum: f64, of: f64| (rows > 0).then(|| sum / of);
    let encoded = tokio::task::spawn_blocking({
        let table = Arc::clone(table);
        move || encoded_bytes_per_row(&table, kept)
    });
    Some(Sample {
        rows_per_second: per(rows as f64, last.as_secs_f64().max(1e-3))?,
        memory_bytes_per_row: per(bytes as f64, rows as f64)?,
        parquet_bytes_per_row: encoded.await.ok().flatten(),
    })
}

/// Bytes of a row, encoded as an export would.
fn encoded_bytes_per_row(table: &Table, batches: Vec<RecordBatch>) -> Option<f64> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows < ENCODED_ROWS {
        return None;
    }
    let options = EncodeOptions {
        row_group_bytes: 2 * ENCODED_BYTES,
        part_bytes: ENCODED_BYTES,
        file_bytes: u64::MAX,
        cores: Cores::default(),
    };
    // The channel has room for everything, because a file is never twice as large as its rows.
    let (output, mut parts) = mpsc::channel(64);
    let mut encoder = Encoder::new(table, Vec::new(), options, output).ok()?;
    batches.into_iter().try_for_each(|batch| encoder.write(batch)).ok()?;
    encoder.finish().ok()?;
    let mut bytes = 0;
    while let Ok(part) = parts.try_recv() {
        if let Output::FileEnd(file) = part {
            bytes += file.size_bytes;
        }
    }
    Some(bytes as f64 / rows as f64)
}
