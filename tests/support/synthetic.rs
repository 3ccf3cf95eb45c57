//! Unfinished archives of any number of chunks and tables, made without an export, in a store whose requests take a
//! while and are counted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use moveout::archive::commit::{Commit, Common, FileRecord, commit_key};
use moveout::archive::keys::file_key;
use moveout::archive::run_json::RunEntry;
use moveout::archive::runs::{RunPlan, plan_key};
use moveout::archive::segment::pack;
use moveout::column_stats::{ColumnInfo, ColumnStats};
use moveout::config::Location;
use moveout::hash::sha256;
use moveout::model::Role;
use moveout::window::{Slice, Window};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// So many keys are in a page of a listing.
const PAGE: usize = 1000;
/// So many commits are in a segment, as a run writes them.
const SEGMENT: usize = 1000;
const DAY: i64 = 86_400_000_000_000;
const RUN: &str = "00000000aaaaaaaaaaaaa";

/// A store in memory that answers each request after a while; a listing after so much for each page.
#[derive(Debug)]
pub(crate) struct Slow {
    objects: InMemory,
    /// How long each request takes.
    pub(crate) latency: Mutex<Duration>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow memory")
    }
}

impl Slow {
    pub(crate) fn new() -> Arc<Self> {
        let (latency, counts) = (Mutex::default(), Mutex::default());
        Arc::new(Self { objects: InMemory::new(), latency, counts })
    }

    pub(crate) fn place(self: &Arc<Self>) -> Location {
        Location::given("memory", Arc::clone(self) as Arc<dyn ObjectStore>)
    }

    /// The requests since the last call, by their kind.
    pub(crate) fn take_counts(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }

    async fn wait(&self, what: &'static str, times: usize) {
        *self.counts.lock().unwrap().entry(what).or_default() += times;
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency * times as u32).await;
        }
    }

    async fn set(&self, key: &str, bytes: impl Into<Bytes>) {
        self.objects.put(&Path::from(key), PutPayload::from(bytes.into())).await.unwrap();
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, key: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.wait("PUT", 1).await;
        self.objects.put_opts(key, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.wait("PUT", 1).await;
        self.objects.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait(if options.head { "HEAD" } else { "GET" }, 1).await;
        self.objects.get_opts(key, options).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.wait("GET", ranges.len()).await;
        self.objects.get_ranges(key, ranges).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // Nobody deletes several objects by one request.
        let latency = *self.latency.lock().unwrap();
        *self.counts.lock().unwrap().entry("DELETE").or_default() += 1;
        let keys = keys.then(move |key| async move {
            tokio::time::sleep(latency).await;
            key
        });
        self.objects.delete_stream(keys.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let latency = *self.latency.lock().unwrap();
        let listed = self.objects.list(prefix);
        let all = futures::executor::block_on(listed.try_collect::<Vec<_>>()).unwrap();
        let pages = all.len().div_ceil(PAGE).max(1);
        *self.counts.lock().unwrap().entry("LIST").or_default() += pages;
        let wait = async move {
            tokio::time::sleep(latency * pages as u32).await;
            stream::iter(all.into_iter().map(Ok))
        };
        wait.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait("LIST", 1).await;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wait("PUT", 1).await;
        self.objects.copy_opts(from, to, options).await
    }
}

/// A commit of a table with 7 columns and its file of 4 bytes.
fn commit(table: usize, day: usize) -> Commit {
    let window = Window { from: day as i64 * DAY, to: (day as i64 + 1) * DAY };
    let (slice, path) = (Slice::Window(window), format!("data/source/metrics/autogen/t{table:06}"));
    let column = |n: usize| {
        let (name, role) = match n {
            0 => ("time".to_owned(), Role::Time),
            1 => ("host".to_owned(), Role::Tag),
            n => (format!("field_{n}"), Role::Field),
        };
        let info = ColumnInfo {
            key: name.clone(),
            name,
            role,
            source_type: "float".to_owned(),
            parquet_type: Some("DOUBLE".to_owned().into()),
            nullable: None,
            key_part: None,
        };
        let value = |part: f64| Some(format!("{:?}", (day * 31 + n) as f64 / 7.0 + part).into());
        ColumnStats {
            column: Arc::new(info),
            count: 8640,
            min: value(0.1),
            max: value(0.7),
            sum: value(12345.0),
        }
    };
    let file = FileRecord {
        key: file_key(&path, slice, RUN, 1),
        bytes: 4,
        sha256: sha256(format!("{table} {day}").as_bytes()),
        rows: 8640,
    };
    Commit {
        common: Common {
            source: "source".into(),
            database: "metrics".into(),
            schema: "autogen".into(),
            table: format!("t{table:06}"),
            path,
            run: RUN.into(),
            verified: "stored bytes read back and hashed, rows counted by the footer".into(),
            state: None,
        }
        .shared(),
        slice,
        rows: 8640,
        files: vec![file],
        columns: (0..7).map(column).collect(),
        started: "2024-01-01T00:00:00.123456789Z".into(),
        elapsed_ms: 1234,
        committed: format!("2024-01-02T00:00:00.{:09}Z", day % 1_000_000_000),
        snapshot: None,
        replaces: Vec::new(),
        dump: None,
    }
}

/// Fills a store with what a run leaves that was killed before its seal: the tables have so many chunks each, whose
/// commits were folded, or lie in files of their own.
pub(crate) async fn fill(store: &Slow, tables: usize, chunks: usize, folded: bool) {
    store.set(".moveout/archive.json", "{\"format\":3}\n").await;
    let plan = serde_json::to_vec(&plan(RUN)).unwrap();
    store.set(&plan_key(RUN), plan).await;
    let mut lines = Vec::new();
    let mut number = 0;
    for n in 0..tables * chunks {
        let commit = commit(n % tables, n / tables);
        store.set(&commit.files[0].key, "PAR1").await;
        let json = commit.to_json().unwrap();
        if !folded {
            store.set(&commit_key(&commit), json).await;
            continue;
        }
        lines.push(json);
        if lines.len() == SEGMENT || n + 1 == tables * chunks {
            let key = format!(".moveout/segments/{RUN}.{number:05}.jsonl.zst");
            store.set(&key, pack(&std::mem::take(&mut lines)).unwrap()).await;
            number += 1;
        }
    }
}

fn plan(run: &str) -> RunPlan {
    let (started, range) = ("2024-01-01T00:00:00Z".into(), None);
    RunPlan { run: run.into(), started, range, sources: vec![], tables: vec![], lost: vec![] }
}

/// The record of a run that seals.
pub(crate) fn sealing(run: &str) -> RunEntry {
    RunEntry { ended: "2024-02-01T00:00:00Z".into(), ..RunEntry::from(plan(run)) }
}
