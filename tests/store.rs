//! Runs over a store in this process: how much they ask of it, and what becomes of an archive whose store
//! misbehaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use moveout::archive::commit::Commit;
use moveout::config::Place;
use moveout::error::Exit;
use moveout::export::{Summary, export};
use moveout::progress::Progress;
use moveout::source::Division;
use moveout::status::status;
use moveout::verify::{Options, verify};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::memory::{Ask, Gate, Handle, Memory, Wrong};
use support::scripted::{job, numbers};
use support::{Question, Scripted, moveout};
use tokio::sync::{Notify, oneshot, watch};

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

fn place(store: &Arc<Memory>) -> Place {
    Place::given("memory", Arc::new(Handle(Arc::clone(store))))
}

async fn run(source: &Arc<Scripted>, store: &Arc<Memory>) -> moveout::error::Result<Summary> {
    let (_stop, stopped) = watch::channel(false);
    let mut job = job(source, place(store));
    // What goes wrong is to be seen at once.
    (job.limits.attempts, job.limits.patience, job.limits.concurrency) = (1, Duration::ZERO, 1);
    export(&job, &Progress::silent(), stopped).await
}

/// Exports into a folder; how that ended, and what was said.
async fn export_to(source: &Arc<Scripted>, root: &Path) -> (Exit, String) {
    let (_stop, stopped) = watch::channel(false);
    let (job, silent) = (job(source, root.to_str().unwrap()), Progress::silent());
    let run = export(&job, &silent, stopped);
    match tokio::time::timeout(Duration::from_secs(60), run).await.unwrap() {
        Ok(summary) => (summary.exit, summary.error.unwrap_or_default()),
        Err(error) => (error.exit(), error.to_string()),
    }
}

fn tables(number: usize) -> Arc<Scripted> {
    Scripted::new((0..number).map(|n| numbers(&format!("t{n}"), &[(Some(NEW_YEAR + n as i64), 1)])))
}

/// Requests of a first run, of one that finds nothing to do, of one after a kill, and of `status`.
async fn requests(number: usize) -> [BTreeMap<Ask, usize>; 4] {
    let (source, store) = (tables(number), Memory::new());
    store.play(|_, _| None);
    let summary = run(&source, &store).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, number as u64));
    let first = store.counts();
    store.play(|_, _| None);
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    let idle = store.counts();
    store.play(|_, _| None);
    let seen = status(&place(&store)).await.unwrap();
    assert!(seen.sealed && seen.chunks == number);
    let status = store.counts();
    // As a kill before the seal leaves it: nothing but commits.
    let store = Memory::new();
    store.play(|_, request| {
        let seal = request.ask == Ask::Put && request.key == "catalog/tables.json";
        seal.then_some(Wrong::Failed)
    });
    assert_ne!(run(&source, &store).await.unwrap().exit, Exit::Done);
    source.take_asked();
    store.play(|_, _| None);
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    assert!(source.asked().iter().all(|question| !question.starts_with("read")));
    [first, idle, store.counts(), status]
}

#[tokio::test]
async fn each_commit_is_read_once_and_requests_grow_by_a_few_a_table() {
    let (few, many) = (requests(50).await, requests(150).await);
    let grown: Vec<BTreeMap<Ask, usize>> = few
        .iter()
        .zip(&many)
        .map(|(few, many)| {
            let grown = many.iter().map(|(ask, many)| (*ask, many - few.get(ask).unwrap_or(&0)));
            grown.filter(|(_, more)| *more > 0).collect()
        })
        .collect();
    // A data file is read back as bytes, as the length of its footer, and as the footer; a commit once.
    let first = BTreeMap::from([(Ask::Get, 400), (Ask::Put, 200), (Ask::Delete, 100)]);
    let resumed = BTreeMap::from([(Ask::Get, 100), (Ask::Delete, 100)]);
    assert_eq!(grown, [first, BTreeMap::new(), resumed, BTreeMap::new()]);
    for (what, counts) in ["first", "idle", "resumed", "status"].iter().zip(&few) {
        let lists = counts.get(&Ask::List).copied().unwrap_or_default();
        assert!(lists <= 40, "{what}: {lists} listings");
    }
}

fn two_tables() -> Arc<Scripted> {
    let rows =
        |from: i64| (0..3).map(move |i| (Some(NEW_YEAR + (from + i) * DAY), i)).collect::<Vec<_>>();
    let source = Scripted::new([numbers("one", &rows(0)), numbers("two", &rows(1))]);
    let artifact = moveout::source::Artifact {
        path: "schema.sql".to_owned(),
        content: "CREATE TABLE one ();".into(),
    };
    source.keep(vec![artifact], Vec::new());
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
    for (key, bytes) in files.iter().filter(|(key, _)| key.starts_with(".moveout/commits/")) {
        let commit = Commit::from_json(key, bytes).unwrap();
        named.extend(commit.files.into_iter().map(|file| file.key));
    }
    files.into_iter().filter(|(key, _)| named.contains(key)).collect()
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
    let store = Memory::new();
    match begin {
        Begin::Empty => {}
        Begin::Unsealed => {
            store.play(|_, asked| {
                (asked.ask == Ask::Put && asked.key == "catalog/tables.json")
                    .then_some(Wrong::Failed)
            });
            assert_ne!(run(&two_tables(), &store).await.unwrap().exit, Exit::Done);
        }
        Begin::Sealed | Begin::Extended => {
            assert_eq!(run(&two_tables(), &store).await.unwrap().exit, Exit::Done);
        }
    }
    store.play(|_, _| None);
    let source = if matches!(begin, Begin::Extended) { extended() } else { two_tables() };
    (source, store)
}

/// Any one request of a run goes wrong, in every way: the run says so, or the archive is exact and verified;
/// and what was vouched for before stays, so that the next run makes it good.
async fn no_single_request_costs_a_row_or_is_passed_over(begin_with: Begin) {
    let (mut runs, mut failed) = (0, 0);
    {
        let (source, whole) = begin(begin_with).await;
        let before = vouched_for(&whole).await;
        for wrong in Wrong::ALL {
            for number in 0.. {
                let store = whole.copy().await;
                let what = Arc::new(Mutex::new(None));
                let told = Arc::clone(&what);
                store.play(move |at, asked| {
                    (at == number).then(|| *told.lock().unwrap() = Some(asked.to_string()))?;
                    Some(wrong)
                });
                let exit = match run(&source, &store).await {
                    Ok(summary) => summary.exit,
                    Err(error) => error.exit(),
                };
                let Some(what) = what.lock().unwrap().clone() else { break };
                let what = format!("{begin_with:?}, request {number} ({what}) {wrong:?}: {exit:?}");
                let after = store.files().await;
                let lost = before.keys().find(|key| after.get(*key) != before.get(*key));
                assert_eq!(lost, None, "{what}");
                runs += 1;
                if exit == Exit::Done {
                    assert_eq!(verified(&store).await, Exit::Done, "{what}");
                    assert_eq!(rows(&store).await, rows_of(&source), "{what}");
                    continue;
                }
                failed += 1;
                // What was committed by this run stays as well, and the next one ends well.
                let committed = vouched_for(&store).await;
                store.play(|_, _| None);
                let next = run(&source, &store).await;
                let next = next.unwrap_or_else(|error| panic!("{what}, then {error}"));
                assert_eq!(next.exit, Exit::Done, "{what}, then {:?}", next.error);
                let after = store.files().await;
                let lost = committed.keys().find(|key| after.get(*key) != committed.get(*key));
                assert_eq!(lost, None, "{what}, then");
                assert_eq!(verified(&store).await, Exit::Done, "{what}, then");
                assert_eq!(rows(&store).await, rows_of(&source), "{what}, then");
            }
        }
    }
    eprintln!("{runs} runs, of which {failed} said that something went wrong");
    assert!(runs > 100, "{runs}");
}

#[tokio::test]
async fn a_first_export_survives_any_request_that_goes_wrong() {
    no_single_request_costs_a_row_or_is_passed_over(Begin::Empty).await;
}

#[tokio::test]
async fn a_seal_survives_any_request_that_goes_wrong() {
    no_single_request_costs_a_row_or_is_passed_over(Begin::Unsealed).await;
}

#[tokio::test]
async fn a_run_with_nothing_to_do_survives_any_request_that_goes_wrong() {
    no_single_request_costs_a_row_or_is_passed_over(Begin::Sealed).await;
}

#[tokio::test]
async fn an_extension_survives_any_request_that_goes_wrong() {
    no_single_request_costs_a_row_or_is_passed_over(Begin::Extended).await;
}

fn rows_of(source: &Arc<Scripted>) -> BTreeMap<String, Vec<(i64, i64)>> {
    source.all_rows()
}

/// Two runs whose requests wait for their turn.
#[derive(Default)]
struct Turns {
    waiting: Mutex<[VecDeque<oneshot::Sender<()>>; 2]>,
    ended: Mutex<[Option<Exit>; 2]>,
    changed: Notify,
}

impl Turns {
    fn gate(self: &Arc<Self>, of: usize) -> Gate {
        let turns = Arc::clone(self);
        Arc::new(move |_| {
            let (turn, granted) = oneshot::channel();
            turns.waiting.lock().unwrap()[of].push_back(turn);
            turns.changed.notify_one();
            Box::pin(async move { drop(granted.await) })
        })
    }

    /// Waits until each run that has not ended asks for something; the runs that do.
    async fn asking(&self) -> Vec<usize> {
        loop {
            let ended = self.ended.lock().unwrap().map(|exit| exit.is_some());
            let asking = {
                let waiting = self.waiting.lock().unwrap();
                [0, 1].map(|run| !waiting[run].is_empty())
            };
            if (0..2).all(|run| ended[run] || asking[run]) {
                return (0..2).filter(|run| asking[*run]).collect();
            }
            self.changed.notified().await;
        }
    }

    fn grant(&self, run: usize) {
        let turn = self.waiting.lock().unwrap()[run].pop_front().unwrap();
        let _ = turn.send(()); // whoever asked may have given up
    }
}

/// Runs two exports at once; `choose` says which of those that ask is answered next.
async fn interleaved(
    source: &Arc<Scripted>,
    store: &Arc<Memory>,
    mut choose: impl FnMut(&[usize]) -> usize,
) -> [Exit; 2] {
    let turns = Arc::new(Turns::default());
    let one = async |number: usize| {
        let store = store.gated(turns.gate(number));
        let exit = match run(source, &store).await {
            Ok(summary) => summary.exit,
            Err(error) => error.exit(),
        };
        turns.ended.lock().unwrap()[number] = Some(exit);
        turns.changed.notify_one();
    };
    let answering = async {
        loop {
            let asking = turns.asking().await;
            if asking.is_empty() {
                return;
            }
            turns.grant(choose(&asking));
        }
    };
    futures::future::join3(one(0), one(1), answering).await;
    let ended = *turns.ended.lock().unwrap();
    ended.map(Option::unwrap)
}

/// One run is answered up to some request, then the other up to some request, then the one, and so on; in
/// the end both in turns, since one may wait for the other.
async fn no_interleaving_of_two_runs_costs_a_row(begin_with: Begin, interleavings: u64) {
    let (mut both, mut one) = (0, 0);
    let (source, whole) = begin(begin_with).await;
    let before = vouched_for(&whole).await;
    for seed in 0..interleavings {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut preemptions: Vec<usize> =
            (0..random.usize(1..5)).map(|_| random.usize(0..220)).collect();
        let mut first = random.usize(0..2);
        let store = whole.copy().await;
        let exits = interleaved(&source, &store, |asking| {
            let [run] = asking else {
                return match preemptions.last_mut() {
                    Some(0) => {
                        preemptions.pop();
                        first = 1 - first;
                        first
                    }
                    Some(left) => {
                        *left -= 1;
                        first
                    }
                    None => random.usize(0..2),
                };
            };
            *run
        })
        .await;
        let what = format!("{begin_with:?}, seed {seed}: {exits:?}");
        let after = store.files().await;
        let lost = before.keys().find(|key| after.get(*key) != before.get(*key));
        assert_eq!(lost, None, "{what}");
        assert!(exits.contains(&Exit::Done), "{what}");
        if exits == [Exit::Done; 2] {
            both += 1;
        } else {
            one += 1;
            let committed = vouched_for(&store).await;
            assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done, "{what}");
            let after = store.files().await;
            let superseded = committed.keys().filter(|key| !after.contains_key(*key)).count();
            // Of two runs that committed the same time one lost: its files go.
            assert!(superseded <= committed.len() / 2, "{what}");
        }
        assert_eq!(verified(&store).await, Exit::Done, "{what}");
        assert_eq!(rows(&store).await, rows_of(&source), "{what}");
    }
    eprintln!("{begin_with:?}: both done {both} times, one {one} times");
}

fn interleavings(usual: u64) -> u64 {
    std::env::var("MOVEOUT_INTERLEAVINGS").map_or(usual, |number| number.parse().unwrap())
}

#[tokio::test]
async fn two_runs_into_an_empty_archive_in_any_order_do_no_harm() {
    no_interleaving_of_two_runs_costs_a_row(Begin::Empty, interleavings(40)).await;
}

#[tokio::test]
async fn two_runs_that_extend_a_sealed_archive_in_any_order_do_no_harm() {
    no_interleaving_of_two_runs_costs_a_row(Begin::Extended, interleavings(40)).await;
}

#[tokio::test]
async fn two_runs_after_a_kill_in_any_order_do_no_harm() {
    no_interleaving_of_two_runs_costs_a_row(Begin::Unsealed, interleavings(40)).await;
}

/// An older `catalog/` put back, one bit of it flipped, a tag file gone: nothing is changed, and 4 is said.
#[tokio::test]
async fn a_catalog_that_is_not_the_sealed_one_stops_the_run_before_anything_is_changed() {
    let (source, store) = begin(Begin::Extended).await;
    let old = store.files().await;
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    let whole = store.files().await;
    let mut damaged = Vec::new();
    let mut older = whole.clone();
    older.extend(old.into_iter().filter(|(key, _)| key.starts_with("catalog/")));
    damaged.push(("an older catalog".to_owned(), older));
    for key in
        whole.keys().filter(|key| !key.starts_with("data/") && *key != "tagmanifest-sha256.txt")
    {
        let mut gone = whole.clone();
        gone.remove(key);
        damaged.push((format!("{key} is gone"), gone));
        for at in (0..whole[key].len()).step_by(1 + whole[key].len() / 12) {
            let mut flipped = whole.clone();
            let mut bytes = whole[key].to_vec();
            bytes[at] ^= 4;
            flipped.insert(key.clone(), bytes.into());
            damaged.push((format!("a bit of byte {at} of {key}"), flipped));
        }
    }
    for (what, files) in damaged {
        for source in [&source, &two_tables()] {
            let store = Memory::new();
            for (key, bytes) in &files {
                store.set(key, Some(bytes.clone())).await;
            }
            let exit = match run(source, &store).await {
                Ok(summary) => summary.exit,
                Err(error) => error.exit(),
            };
            let left = store.files().await;
            let lost = files.iter().find(|(key, bytes)| left.get(*key) != Some(bytes));
            // An archive whose manifest is gone is one whose seal is off: it is sealed anew.
            if what != "manifest-sha256.txt is gone" {
                assert_eq!((exit, lost), (Exit::Different, None), "{what}");
            }
            let data = whole.iter().filter(|(key, _)| key.starts_with("data/"));
            assert!(data.into_iter().all(|(key, bytes)| left.get(key) == Some(bytes)), "{what}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_has_another_size_is_read_again_and_told() {
    for change in [None, Some(Bytes::from_static(b"PAR1"))] {
        let (source, store) = begin(Begin::Sealed).await;
        let files = store.files().await;
        let key = files.keys().find(|key| key.contains("/one/")).unwrap();
        store.set(key, change).await;
        let summary = run(&source, &store).await.unwrap();
        assert_eq!((summary.exit, summary.chunks), (Exit::Done, 1));
        let told = summary.warnings.iter().any(|warning| {
            warning.contains("was read again") && warning.contains("had 1 rows, the source gave 1")
        });
        assert!(told, "{:?}", summary.warnings);
        assert_eq!(verified(&store).await, Exit::Done);
        assert_eq!(rows(&store).await, rows_of(&source));
        assert!(!store.files().await.contains_key(key));
        let idle = run(&source, &store).await.unwrap();
        assert_eq!((idle.exit, idle.chunks), (Exit::Done, 0));
    }
}

#[tokio::test]
async fn what_strangers_put_there_stays_and_is_named() {
    for (key, begin_with) in [
        ("data/scripted/d/s/one/all.r1.parquet", Begin::Sealed),
        ("data/scripted/d/s/one/all.r1.parquet", Begin::Extended),
        ("data/other/d/s/t/all.01abcdefghi.parquet", Begin::Extended),
        ("data/other/d/s/t/all.01abcdefghi.parquet", Begin::Unsealed),
        ("data/notes.txt", Begin::Sealed),
        ("data/notes.txt", Begin::Unsealed),
        ("notes.txt", Begin::Extended),
    ] {
        let (source, store) = begin(begin_with).await;
        let before = vouched_for(&store).await;
        store.set(key, Some("a stranger's".into())).await;
        let (exit, said) = match run(&source, &store).await {
            Ok(summary) => (summary.exit, summary.error.unwrap_or_default()),
            Err(error) => (error.exit(), error.to_string()),
        };
        assert_eq!(exit, Exit::Different, "{key} {begin_with:?}");
        assert!(said.contains(key), "{said}");
        let after = store.files().await;
        assert_eq!(after.get(key), Some(&Bytes::from("a stranger's")));
        assert!(before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
        store.set(key, None).await;
        let next = run(&source, &store).await.unwrap();
        assert_eq!(next.exit, Exit::Done, "{key} {begin_with:?}: {:?}", next.error);
        assert_eq!(verified(&store).await, Exit::Done);
    }
}

/// `object_store` gives such names to what it has not finished; a user may give them, too.
#[tokio::test]
async fn a_users_file_with_a_number_sign_stays_and_stops_the_seal_by_name() {
    for (name, late) in
        [("data/notes#1", false), ("data/notes#1", true), ("notes#1", false), ("notes#1", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        assert_eq!(export_to(&two_tables(), &root).await.0, Exit::Done);
        let (path, source) = (root.join(name), extended());
        let write = move || std::fs::write(&path, "a user's").unwrap();
        match late {
            false => write(),
            // After the run has looked what there is.
            true => source.play(move |asked| {
                if matches!(asked, Question::Read(_)) {
                    write();
                }
                None
            }),
        }
        let (exit, said) = export_to(&source, &root).await;
        assert_eq!(exit, Exit::Different, "{name}: {said}");
        assert!(said.contains(name), "{said}");
        assert_eq!(std::fs::read(root.join(name)).unwrap(), b"a user's");
        std::fs::remove_file(root.join(name)).unwrap();
        assert_eq!(export_to(&extended(), &root).await.0, Exit::Done);
    }
}

// The parser of URLs takes them for another prefix.
#[test]
fn a_prefix_that_goes_up_is_a_usage_error() {
    for place in ["s3://b/x/../y", "s3://b/x/%2e%2E/y", "s3://b/./y", "s3://b/.."] {
        let export = ["export", "--source", "lp:none.lp", "--archive", place];
        for command in [&["status", place][..], &["verify", place], &export] {
            let run = moveout(command).expect(2);
            assert!(run.stderr.contains("has no part `.` or `..`"), "{}", run.stderr);
        }
    }
}

/// Tables of a file, or of a table divided so, with three rows each from a day on.
fn version(division: &Division, tables: &[&str], from: i64) -> Arc<Scripted> {
    let rows: Vec<_> = (from..from + 3).map(|day| (Some(NEW_YEAR + day * DAY), day)).collect();
    Scripted::new(tables.iter().map(|name| {
        let (mut table, rows) = numbers(name, &rows);
        table.identity.division = Some(division.clone());
        (table, rows)
    }))
}

/// The run over `two` ends with an error where one over `one` commits after it has planned.
async fn two_versions_stay_apart(one: &Arc<Scripted>, two: &Arc<Scripted>) {
    let other = Memory::new();
    other.play(|_, asked| {
        (asked.ask == Ask::Put && asked.key == "catalog/tables.json").then_some(Wrong::Failed)
    });
    assert_ne!(run(one, &other).await.unwrap().exit, Exit::Done);
    let committed = other.files().await;
    let store = Memory::new();
    let (shared, files) = (Arc::clone(&store), committed.clone());
    two.play(move |question| {
        if matches!(question, Question::Read(_)) {
            for (key, bytes) in &files {
                shared.set(key, Some(bytes.clone())).now_or_never().unwrap();
            }
        }
        None
    });
    let (exit, said) = match run(two, &store).await {
        Ok(summary) => (summary.exit, summary.error.unwrap_or_default()),
        Err(error) => (error.exit(), error.to_string()),
    };
    assert_ne!(exit, Exit::Done);
    assert!(said.contains("in another version than it has now"), "{said}");
    let after = store.files().await;
    assert!(!after.contains_key("tagmanifest-sha256.txt"));
    let data = committed.iter().filter(|(key, _)| key.starts_with("data/"));
    assert!(data.into_iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
}

#[tokio::test]
async fn a_chunk_that_was_taken_by_a_run_over_another_version_is_an_error() {
    let [one, two] = ["1", "2"].map(|hash| Division::File(hash.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["a"], 0)).await;
}

#[tokio::test]
async fn tables_of_two_versions_of_a_file_are_not_sealed_together() {
    let [one, two] = ["1", "2"].map(|hash| Division::File(hash.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["b"], 0)).await;
}

#[tokio::test]
async fn windows_of_two_versions_of_a_table_are_not_sealed_together() {
    let [one, two] = ["x", "y"].map(|column| Division::Windows(column.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["a"], 9)).await;
}

/// From some request on nothing is done any more, while the seal is taken off and at every other step. All
/// that was sealed is whole then, and the next run goes on.
#[tokio::test]
async fn a_run_that_is_killed_at_any_step_leaves_an_archive_that_is_merely_unfinished() {
    let (source, whole) = begin(Begin::Extended).await;
    let (mut unfinished, mut ended) = (0, false);
    for number in 0.. {
        let store = whole.copy().await;
        store.play(move |at, _| (at >= number).then_some(Wrong::Failed));
        let _ = run(&source, &store).await;
        if store.asked().len() <= number {
            ended = true;
        }
        let files = store.files().await;
        for (key, bytes) in files.iter().filter(|(key, _)| key.starts_with(".moveout/runs/")) {
            let mut beat: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            beat["pid_started"] = 1.into(); // of a process that is no more
            store.set(key, Some(beat.to_string().into())).await;
        }
        let is_sealed = files.contains_key("tagmanifest-sha256.txt");
        let is_done = is_sealed && !files.keys().any(|key| key.starts_with(".moveout/"));
        let expected = if is_done { Exit::Done } else { Exit::Incomplete };
        unfinished += usize::from(!is_done);
        assert_eq!(verified(&store).await, expected, "killed at request {number}");
        store.play(|_, _| None);
        let next = run(&source, &store).await.unwrap();
        assert_eq!(next.exit, Exit::Done, "killed at request {number}, then {:?}", next.error);
        assert_eq!(verified(&store).await, Exit::Done, "killed at request {number}, then");
        assert_eq!(rows(&store).await, rows_of(&source), "killed at request {number}, then");
        if ended {
            break;
        }
    }
    assert!(unfinished > 50, "{unfinished}");
}

/// As long as it lasts, a listing shows nothing of a dead run but its files.
#[tokio::test]
async fn a_listing_that_leaves_out_commits_costs_none_of_their_files() {
    for hidden in [".moveout", ".moveout/commits"] {
        let (source, store) = begin(Begin::Unsealed).await;
        let before = vouched_for(&store).await;
        store.play(move |_, asked| {
            (asked.ask == Ask::List && asked.key == hidden).then_some(Wrong::Dropped)
        });
        let _ = run(&source, &store).await;
        let after = store.files().await;
        let lost = before.keys().find(|key| !after.contains_key(*key));
        assert_eq!(lost, None, "{hidden}");
        store.play(|_, _| None);
        assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
        assert_eq!(verified(&store).await, Exit::Done);
        assert_eq!(rows(&store).await, rows_of(&source));
    }
}

/// Its clock is far off; by the store's it has just beaten.
#[tokio::test]
async fn a_living_run_of_another_machine_keeps_its_files_whatever_its_clock_says() {
    let (source, store) = begin(Begin::Empty).await;
    let key = "data/scripted/d/s/one/all.zzzzzzzz000000.parquet";
    store.set(key, Some("not committed yet".into())).await;
    let heartbeat = r#"{"run":"zzzzzzzz000000","started":"1999-01-01T00:00:00Z","beat":"1999-01-01T00:00:00Z",
        "host":"elsewhere","pid":1,"pid_started":1}"#;
    store.set(".moveout/runs/zzzzzzzz000000.json", Some(heartbeat.into())).await;
    store.set(".moveout/archive.json", Some("{\"format\":1}\n".into())).await;
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    let after = store.files().await;
    assert!(after.contains_key(key) && after.contains_key(".moveout/runs/zzzzzzzz000000.json"));
}

#[tokio::test]
async fn links_and_pipes_in_a_folder_are_named_and_neither_followed_nor_waited_for() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("all.01abcdefghi.parquet"), "somebody's").unwrap();
    std::fs::create_dir(outside.path().join("empty")).unwrap();
    for place in
        ["data/link", "data/scripted/d/s/one/link", ".moveout", "data/pipe", "manifest-sha256.txt"]
    {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        assert_eq!(export_to(&two_tables(), &root).await.0, Exit::Done);
        let path = root.join(place);
        let _ = std::fs::remove_file(&path);
        match place.contains("pipe") || place.contains("manifest") {
            true => {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success())
            }
            false => std::os::unix::fs::symlink(outside.path(), &path).unwrap(),
        }
        let (exit, said) = export_to(&extended(), &root).await;
        assert_eq!(exit, Exit::Different, "{place}: {said}");
        assert!(said.contains(place), "{said}");
        assert!(outside.path().join("all.01abcdefghi.parquet").exists());
        assert!(outside.path().join("empty").exists());
    }
}
