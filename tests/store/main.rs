//! Runs over a store in this process: how much they ask of it, and what becomes of an archive whose store
//! misbehaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod amended;
mod folding;
mod orders;
mod requests;
mod single;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use moveout::archive::commit::Commit;
use moveout::archive::segment::read_segment;
use moveout::commands::export::export;
use moveout::commands::verify::{Options, verify};
use moveout::config::Location;
use moveout::error::Exit;
use moveout::export::summary::Summary;
use moveout::model::Artifacts;
use moveout::progress::Progress;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::Scripted;
use support::memory::{Ask, Handle, Memory, Wrong};
use support::scripted::{job, numbers};
use tokio::sync::watch;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

fn place(store: &Arc<Memory>) -> Location {
    Location::given("memory", Arc::new(Handle(Arc::clone(store))))
}

async fn run(source: &Arc<Scripted>, store: &Arc<Memory>) -> moveout::error::Result<Summary> {
    let (_stop, stopped) = watch::channel(false);
    let mut job = job(source, place(store));
    // What goes wrong is to be seen at once.
    (job.limits.attempts, job.limits.patience, job.limits.concurrency) = (1, Duration::ZERO, 1);
    job.limits.fold_commits = store.fold_commits.load(Ordering::SeqCst);
    export(&job, &Progress::silent(), stopped).await
}

/// How a run ended, and what was said.
fn ended(run: moveout::error::Result<Summary>) -> (Exit, String) {
    match run {
        Ok(summary) => (summary.exit, summary.error.unwrap_or_default()),
        Err(error) => (error.exit(), error.to_string()),
    }
}

/// Exports into a folder; how that ended, and what was said.
async fn export_to(source: &Arc<Scripted>, root: &Path) -> (Exit, String) {
    let (_stop, stopped) = watch::channel(false);
    let (job, silent) = (job(source, root.to_str().unwrap()), Progress::silent());
    let run = export(&job, &silent, stopped);
    ended(tokio::time::timeout(Duration::from_secs(60), run).await.unwrap())
}

fn two_tables() -> Arc<Scripted> {
    let rows =
        |from: i64| (0..3).map(move |i| (Some(NEW_YEAR + (from + i) * DAY), i)).collect::<Vec<_>>();
    let source = Scripted::new([numbers("one", &rows(0)), numbers("two", &rows(1))]);
    let mut artifacts = Artifacts::of("s");
    artifacts.file("", "schema", "sql", "CREATE TABLE one ();");
    source.keep(artifacts);
    source
}

/// Two more rows.
fn extended() -> Arc<Scripted> {
    let source = two_tables();
    let rows: Vec<_> = (0..5).map(|i| (Some(NEW_YEAR + i * DAY), i)).collect();
    let (table, rows) = numbers("one", &rows);
    source.set(table, rows);
    source
}

/// All rows of the archive, by table, read without this program's reader of catalogs.
async fn rows(store: &Arc<Memory>) -> BTreeMap<String, Vec<(i64, i64)>> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampNanosecondType};
    let mut tables = BTreeMap::<String, Vec<(i64, i64)>>::new();
    for (key, bytes) in store.files().await.into_iter().filter(|(key, _)| key.ends_with(".parquet"))
    {
        let Some(path) = key.strip_prefix("data/") else { continue };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        for batch in reader.map(Result::unwrap) {
            let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
            let values = batch.column(1).as_primitive::<Int64Type>();
            let rows = times.values().iter().copied().zip(values.values().iter().copied());
            tables.entry(path.split('/').nth(3).unwrap().to_owned()).or_default().extend(rows);
        }
    }
    tables.values_mut().for_each(|rows| rows.sort_unstable());
    tables
}

async fn verified(store: &Arc<Memory>) -> Exit {
    store.play(|_, _| None);
    match verify(&place(store), Options::default(), &Progress::silent()).await {
        Ok(report) => report.exit,
        Err(error) => error.exit(),
    }
}

/// The payload that commits or a manifest vouch for: what must never be deleted.
async fn vouched_for(store: &Arc<Memory>) -> BTreeMap<String, Bytes> {
    let files = store.files().await;
    let mut named = BTreeSet::new();
    if let Some(manifest) = files.get("manifest-sha256.txt") {
        let text = std::str::from_utf8(manifest).unwrap();
        named.extend(text.lines().map(|line| line.split_once("  ").unwrap().1.to_owned()));
    }
    for commit in uncatalogued(&files) {
        named.extend(commit.files.into_iter().map(|file| file.key));
    }
    files.into_iter().filter(|(key, _)| named.contains(key)).collect()
}

/// The commits in files of their own and in segments, without those that were retracted.
fn uncatalogued(files: &BTreeMap<String, Bytes>) -> Vec<Commit> {
    let below = |folder: &'static str| files.iter().filter(move |(key, _)| key.starts_with(folder));
    let one = |(key, bytes): (&String, &Bytes)| Commit::from_json(key, bytes).unwrap();
    let folded = below(".moveout/segments/");
    let folded = folded.flat_map(|(key, bytes)| read_segment(key, bytes).unwrap());
    let mut commits: Vec<Commit> = below(".moveout/commits/").map(one).chain(folded).collect();
    let retracted: Vec<Commit> = below(".moveout/retracted/").map(one).collect();
    commits.retain(|commit| !retracted.contains(commit));
    commits
}

/// The archive that a run begins with.
#[derive(Debug, Clone, Copy)]
enum Begin {
    Empty,
    /// All is committed, and the catalog is not written.
    Unsealed,
    Sealed,
    /// Sealed, and the source has more.
    Extended,
}

async fn begin(begin: Begin) -> (Arc<Scripted>, Arc<Memory>) {
    let store = begun(begin, &two_tables()).await;
    let source = if matches!(begin, Begin::Extended) { extended() } else { two_tables() };
    (source, store)
}

/// What runs over this source have left.
async fn begun(begin: Begin, source: &Arc<Scripted>) -> Arc<Memory> {
    let store = Memory::new();
    match begin {
        Begin::Empty => {}
        Begin::Unsealed => {
            store.play(|_, asked| {
                (asked.ask == Ask::Put && asked.key == "catalog/tables.json")
                    .then_some(Wrong::Failed)
            });
            assert_ne!(run(source, &store).await.unwrap().exit, Exit::Done);
        }
        Begin::Sealed | Begin::Extended => {
            assert_eq!(run(source, &store).await.unwrap().exit, Exit::Done);
        }
    }
    store.play(|_, _| None);
    store
}

fn rows_of(source: &Arc<Scripted>) -> BTreeMap<String, Vec<(i64, i64)>> {
    source.all_rows()
}
