//! A real source, with something that happens to its server at a moment that a test names: before the n-th
//! read of a run. No test needs to be quick or slow for that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use moveout::commands::export::export;
use moveout::config::{Flags, Job, SourceKind};
use moveout::error::Result;
use moveout::export::summary::Summary;
use moveout::model::{
    Artifacts, Chunk, Listing, Metering, ReadSummary, RowCount, ServerIdentity, Size, SourceInfo,
    Table, TableId,
};
use moveout::progress::Progress;
use moveout::source::Source;
use moveout::source::channel::BatchSender;
use moveout::source::registry::open;
use moveout::window::Window;
use tokio::sync::watch;

type Event = Box<dyn FnOnce() + Send>;

/// The source, and what happens.
pub(crate) struct Meanwhile {
    source: Arc<dyn Source>,
    reads: AtomicUsize,
    events: Mutex<HashMap<usize, Event>>,
    read: Mutex<Vec<String>>,
}

impl Meanwhile {
    /// Before the read of this number, counted from 0, this happens.
    pub(crate) fn before_read(&self, number: usize, event: impl FnOnce() + Send + 'static) {
        self.events.lock().unwrap().insert(number, Box::new(event));
    }

    /// What was read, in order.
    pub(crate) fn read(&self) -> Vec<String> {
        self.read.lock().unwrap().clone()
    }
}

/// Exports one source, one chunk after the other.
pub(crate) async fn export_while(
    mut flags: Flags,
    plan: impl FnOnce(&Meanwhile),
) -> (Summary, Arc<Meanwhile>) {
    flags.concurrency = Some(1);
    let mut job: Job = moveout::config::load(flags).unwrap();
    let source = open(&job.sources[0], &job.limits).await.unwrap();
    let meanwhile = Arc::new(Meanwhile {
        source,
        reads: AtomicUsize::new(0),
        events: Mutex::default(),
        read: Mutex::default(),
    });
    plan(&meanwhile);
    job.sources[0].kind = SourceKind::Given(Arc::clone(&meanwhile) as Arc<dyn Source>);
    let (_stop, stopped) = watch::channel(false);
    (export(&job, &Progress::silent(), stopped).await.unwrap(), meanwhile)
}

#[async_trait]
impl Source for Meanwhile {
    fn name(&self) -> &str {
        self.source.name()
    }

    async fn describe(&self) -> Result<SourceInfo> {
        self.source.describe().await
    }

    async fn identity(&self) -> Result<Option<ServerIdentity>> {
        self.source.identity().await
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        self.source.clock_ahead().await
    }

    async fn list(&self) -> Result<Listing> {
        self.source.list().await
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        self.source.bounds(tables).await
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        self.source.count(table, window).await
    }

    fn size(&self, table: &TableId) -> Size {
        self.source.size(table)
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        self.read.lock().unwrap().push(chunk.to_string());
        let event = self.events.lock().unwrap().remove(&self.reads.fetch_add(1, Ordering::SeqCst));
        if let Some(event) = event {
            event();
        }
        self.source.read(chunk, batches).await
    }

    fn chunk_rows(&self, table: &TableId) -> Option<u64> {
        self.source.chunk_rows(table)
    }

    fn metering(&self) -> Option<Metering> {
        self.source.metering()
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        self.source.artifacts().await
    }
}
