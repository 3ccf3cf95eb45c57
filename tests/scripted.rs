//! Runs within this process, of a source that fails where a test wants it: what comes out is determined, and no
//! test waits for a clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use moveout::commands::doctor::{CheckStatus, doctor};
use moveout::commands::export::export;
use moveout::commands::plan::preview;
use moveout::config::{Job, Location};
use moveout::error::{Class, Error, Exit};
use moveout::export::summary::{ExportStatus, Summary};
use moveout::model::{ArtifactOutcome, Artifacts, Listing, TableId};
use moveout::progress::Progress;
use support::memory::{Handle, Memory, Wrong};
use support::scripted::{job, numbers};
use support::{Archive, Play, Question, Scripted};
use tempfile::TempDir;
use tokio::sync::watch;

const HOUR: i64 = 3_600_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
/// Of the table `one`; `two` has a row without a time besides its one with.
const ROWS: i64 = 150;

struct Setting {
    source: Arc<Scripted>,
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        let rows: Vec<_> = (0..ROWS).map(|i| (Some(NEW_YEAR + i * HOUR), i)).collect();
        let source = Scripted::new([
            numbers("one", &rows),
            numbers("two", &[(Some(NEW_YEAR), 7), (None, 8)]),
        ]);
        Self { source, folder: TempDir::with_prefix("archive-").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn job(&self) -> Job {
        let mut job = job(&self.source, self.path().to_str().unwrap());
        // One for all: how the next ones grow depends on time, and so would the number of questions.
        job.limits.window = Some(10_000 * HOUR);
        job.limits.concurrency = 1;
        job
    }

    async fn export(&self, job: &Job) -> Result<Summary, Error> {
        let (_stop, stopped) = watch::channel(false);
        export(job, &Progress::silent(), stopped).await
    }

    /// Sealed, with each row once and nothing else.
    #[track_caller]
    fn assert_complete(&self) {
        let archive = Archive::open(self.path());
        assert!(archive.is_sealed());
        let values = |table: &str| {
            let rows = archive.rows(table);
            let mut values: Vec<i64> =
                rows.iter().map(|row| row["v"].trim_end_matches('i').parse().unwrap()).collect();
            values.sort_unstable();
            values
        };
        assert_eq!(values("one"), (0..ROWS).collect::<Vec<_>>());
        assert_eq!(values("two"), [7, 8]);
        let listed = archive.text("manifest-sha256.txt");
        let data = archive.files().into_iter().filter(|path| path.starts_with("data/"));
        data.for_each(|path| assert!(listed.contains(&path), "{path} is in no manifest"));
        assert!(!self.path().join(".moveout").exists());
    }
}

/// How many questions a run without any trouble asks.
async fn questions() -> usize {
    let setting = Setting::new();
    let summary = setting.export(&setting.job()).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, ROWS as u64 + 2));
    setting.assert_complete();
    let asked = setting.source.asked();
    assert!(asked.len() > 6, "{asked:?}");
    assert!(asked.last().unwrap() == "artifacts", "{asked:?}");
    asked.len()
}

/// Plays it at the n-th question alone.
fn once(
    n: usize,
    play: impl Fn() -> Play + Send + 'static,
) -> impl FnMut(&Question) -> Option<Play> {
    let mut asked = 0;
    move |_| {
        asked += 1;
        (asked == n).then(&play)
    }
}

fn broken() -> Error {
    Error::of(Class::Retry, "the connection broke")
}

/// A query that is too wide for a server may take for ever. Its window is read in narrower ones, and nothing of the first
/// attempt stays.
#[tokio::test]
async fn a_query_that_does_not_keep_up_is_abandoned_and_its_window_is_read_in_narrower_ones() {
    let setting = Setting::new();
    setting.source.can_abandon.store(true, Ordering::Relaxed);
    setting.source.play(|question| match question {
        Question::Read(chunk)
            if chunk.slice.window().is_some_and(|all| all.width() > 100 * HOUR) =>
        {
            Some(Play::Hang)
        }
        _ => None,
    });
    let mut job = setting.job();
    job.limits.window = Some(160 * HOUR);
    let summary = setting.export(&job).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, ROWS as u64 + 2));
    setting.assert_complete();
    let asked = setting.source.asked();
    let reads: Vec<_> = asked.iter().filter(|asked| asked.starts_with("read d.s.one")).collect();
    assert!(reads.len() > 2, "one in vain, and its parts: {reads:#?}");
}

/// A server that needs seconds for any query gets them once it has shown that.
#[tokio::test]
async fn a_server_that_is_slow_with_every_query_is_given_its_time() {
    let setting = Setting::new();
    setting.source.can_abandon.store(true, Ordering::Relaxed);
    setting.source.play(|question| {
        let is_read = matches!(question, Question::Read(chunk) if chunk.slice.window().is_some());
        is_read.then(|| Play::Wait(Duration::from_secs(3)))
    });
    let summary = setting.export(&setting.job()).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, ROWS as u64 + 2));
    setting.assert_complete();
    let asked = setting.source.asked();
    let reads = asked.iter().filter(|asked| asked.starts_with("read d.s.one")).count();
    assert!(reads <= 9, "one in vain, and a day at a time: {asked:#?}");
}

/// What costs money is waited for: a query that is given up and asked again would be paid for twice.
#[tokio::test]
async fn a_slow_query_of_a_source_that_bills_is_not_abandoned() {
    let setting = Setting::new();
    setting.source.can_abandon.store(true, Ordering::Relaxed);
    setting.source.is_billed.store(true, Ordering::Relaxed);
    setting.source.play(|question| {
        let is_read = matches!(question, Question::Read(chunk) if chunk.slice.window().is_some());
        is_read.then(|| Play::Wait(Duration::from_secs(3)))
    });
    let summary = setting.export(&setting.job()).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, ROWS as u64 + 2));
    setting.assert_complete();
    let asked = setting.source.asked();
    let reads = asked.iter().filter(|asked| asked.starts_with("read d.s.one")).count();
    assert_eq!(reads, 1, "{asked:#?}");
}

/// A window that has far more rows than those before it is as well, although its rows come quickly.
#[tokio::test]
async fn a_window_with_far_more_rows_than_expected_is_divided() {
    // For three days, since a window begins before the one before it has been read back.
    const SPARSE: i64 = 30_000;
    const DENSE: i64 = 600_000;
    let step = 72 * HOUR / SPARSE;
    let sparse = (0..SPARSE).map(|i| (Some(NEW_YEAR + i * step), i));
    let later = NEW_YEAR + 72 * HOUR;
    let dense = (0..DENSE).map(|i| (Some(later + i * HOUR / DENSE), SPARSE + i));
    let rows: Vec<_> = sparse.chain(dense).collect();
    let setting = Setting {
        source: Scripted::new([numbers("one", &rows)]),
        folder: TempDir::with_prefix("archive-").unwrap(),
    };
    setting.source.can_abandon.store(true, Ordering::Relaxed);
    let mut stalls = 0;
    setting.source.play(move |question| match question {
        // Otherwise it would have ended before anybody looks.
        Question::Read(chunk) if chunk.slice.window().is_some_and(|all| all.from == later) => {
            stalls += 1;
            (stalls == 1).then_some(Play::HangAfter(510_000))
        }
        _ => None,
    });
    let mut job = setting.job();
    job.limits.window = Some(24 * HOUR);
    let summary = setting.export(&job).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, (SPARSE + DENSE) as u64));
    let archive = Archive::open(setting.path());
    assert!(archive.is_sealed());
    assert_eq!(archive.rows("one").len() as i64, SPARSE + DENSE);
    let asked = setting.source.asked();
    assert!(asked.iter().filter(|asked| asked.starts_with("read ")).count() > 2, "{asked:#?}");
}

#[tokio::test]
async fn whatever_question_fails_once_nothing_is_lost() {
    for n in 1..=questions().await {
        for rows in [0, 1, 120] {
            let setting = Setting::new();
            setting.source.play(once(n, move || Play::FailAfter(rows, broken())));
            let summary = setting.export(&setting.job()).await.unwrap();
            assert_eq!(summary.exit, Exit::Done, "question {n}: {summary:?}");
            assert_eq!(summary.rows, ROWS as u64 + 2);
            setting.assert_complete();
        }
    }
}

#[tokio::test]
async fn whatever_question_ends_a_run_the_next_one_goes_on() {
    for n in 1..=questions().await {
        let setting = Setting::new();
        setting.source.play(once(n, || Play::FailAfter(1, Error::stop("no such user"))));
        let (exit, said) = match setting.export(&setting.job()).await {
            Ok(summary) => (summary.exit, summary.error.unwrap_or_default()),
            Err(error) => (error.exit(), error.to_string()),
        };
        assert_eq!(exit, Exit::Failed, "question {n}");
        assert!(said.ends_with("no such user"), "question {n}: {said}");
        let done: Vec<_> = reads(&setting);
        let summary = setting.export(&setting.job()).await.unwrap();
        assert_eq!(summary.exit, Exit::Done, "question {n}: {summary:?}");
        setting.assert_complete();
        // All but the last, which was the one that failed, was not read again.
        let again = reads(&setting);
        let whole = done.len().saturating_sub(1);
        assert!(!done[..whole].iter().any(|read| again.contains(read)), "{done:?} {again:?}");
    }
}

#[tokio::test]
async fn a_first_run_that_comes_to_nothing_leaves_nothing() {
    for n in 1..=questions().await {
        let setting = Setting::new();
        let place = setting.folder.path().join("deep/inside");
        let mut job = setting.job();
        job.archive = Some(place.to_str().unwrap().into());
        setting.source.play(once(n, || Play::FailAfter(1, Error::stop("no such user"))));
        let chunks = setting.export(&job).await.map_or(0, |summary| summary.chunks);
        // What was committed stays.
        assert_eq!(place.exists(), chunks > 0, "question {n}");
        assert_eq!(setting.folder.path().join("deep").exists(), chunks > 0, "question {n}");

        let store = Memory::new();
        setting.source.play(once(n, || Play::FailAfter(1, Error::stop("no such user"))));
        let exported = setting.export(&setting.job_in(&store)).await;
        let chunks = exported.map_or(0, |summary| summary.chunks);
        assert_eq!(store.files().await.is_empty(), chunks == 0, "question {n}");
    }
}

#[tokio::test]
async fn what_was_there_before_a_first_run_that_came_to_nothing_stays() {
    let setting = Setting::new();
    // A folder that somebody has made for it.
    std::fs::create_dir(setting.path()).unwrap();
    setting.source.play(once(2, || Play::Fail(Error::stop("no such user"))));
    setting.export(&setting.job()).await.unwrap_err();
    assert_eq!(Archive::open(setting.path()).files(), [""; 0]);
    assert_eq!(std::fs::read_dir(setting.path()).unwrap().count(), 0);
    // What comes while it is at work.
    let mine = setting.path().join("mine.txt");
    let path = mine.clone();
    setting.source.play(once(2, move || {
        std::fs::write(&path, "mine").unwrap();
        Play::Fail(Error::stop("no such user"))
    }));
    setting.export(&setting.job()).await.unwrap_err();
    assert_eq!(Archive::open(setting.path()).files(), [".moveout/archive.json", "mine.txt"]);
    std::fs::remove_file(mine).unwrap();
    setting.source.play(|_| None);
    setting.export(&setting.job()).await.unwrap();
    setting.assert_complete();
    // An archive that is there is none of its own making.
    let before = Archive::open(setting.path()).files();
    setting.source.play(once(2, || Play::Fail(Error::stop("no such user"))));
    setting.export(&setting.job()).await.unwrap_err();
    assert_eq!(Archive::open(setting.path()).files(), before);
}

#[tokio::test]
async fn a_run_that_comes_meanwhile_keeps_what_another_would_remove() {
    let setting = Setting::new();
    let doomed = Scripted::new([numbers("one", &[(Some(NEW_YEAR), 1)])]);
    let mut asked = 0;
    doomed.play(move |_| {
        asked += 1;
        match asked {
            2 => Some(Play::Wait(Duration::from_millis(200))),
            3 => Some(Play::Fail(Error::stop("no such user"))),
            _ => None,
        }
    });
    let (first, job) = (job(&doomed, setting.path().to_str().unwrap()), setting.job());
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        setting.export(&job).await
    };
    let (first, later) = tokio::join!(setting.export(&first), later);
    assert_eq!(first.unwrap_err().to_string(), "no such user");
    assert_eq!(later.unwrap().exit, Exit::Done);
    setting.assert_complete();
}

/// The reads since the last call.
fn reads(setting: &Setting) -> Vec<String> {
    let asked = setting.source.take_asked().into_iter();
    asked.filter(|question| question.starts_with("read")).collect()
}

#[tokio::test]
async fn an_interrupt_is_heard_at_every_question_and_only_then_is_a_run_interrupted() {
    for n in 1..=questions().await {
        let setting = Setting::new();
        let (stop, stopped) = watch::channel(false);
        // The question is never answered: it must be dropped.
        let mut asked = 0;
        setting.source.play(move |_| {
            asked += 1;
            (asked == n).then(|| {
                stop.send(true).unwrap();
                Play::Hang
            })
        });
        let job = setting.job();
        let progress = Progress::silent();
        let run = export(&job, &progress, stopped);
        let ended = tokio::time::timeout(Duration::from_secs(10), run).await;
        let exit = match ended.unwrap_or_else(|_| panic!("question {n} was waited for")) {
            Ok(summary) => {
                assert_eq!((summary.status, summary.error), (ExportStatus::Interrupted, None));
                summary.exit
            }
            Err(error) => error.exit(),
        };
        assert_eq!(exit, Exit::Interrupted, "question {n}");
        assert!(!setting.path().join("tagmanifest-sha256.txt").exists());
        setting.source.play(|_| None);
        assert_eq!(setting.export(&job).await.unwrap().exit, Exit::Done);
        setting.assert_complete();
    }
}

#[tokio::test]
async fn a_run_whose_caller_has_gone_is_not_interrupted() {
    let setting = Setting::new();
    setting.source.play(once(7, || Play::Fail(broken())));
    let (stop, stopped) = watch::channel(false);
    drop(stop);
    let summary = export(&setting.job(), &Progress::silent(), stopped).await.unwrap();
    assert_eq!(summary.exit, Exit::Done);
    setting.assert_complete();
}

/// From the n-th question on, so many fail, whatever they are.
fn away(from: usize, times: usize) -> impl FnMut(&Question) -> Option<Play> {
    let mut asked = 0;
    move |_| {
        asked += 1;
        (from..from.saturating_add(times)).contains(&asked).then(|| Play::FailAfter(3, broken()))
    }
}

// The first question is the first contact.
#[tokio::test]
async fn a_source_that_is_away_for_long_is_waited_for() {
    for n in 2..=questions().await {
        let setting = Setting::new();
        let mut job = setting.job();
        job.limits.attempts = 2;
        setting.source.play(away(n, 12));
        let summary = setting.export(&job).await.unwrap();
        assert_eq!(summary.exit, Exit::Done, "question {n}: {summary:?}");
        assert!(summary.failed.is_empty());
        setting.assert_complete();
    }
}

#[tokio::test]
async fn a_source_that_stays_away_ends_the_run_when_the_patience_is_over() {
    for n in 2..=questions().await {
        let setting = Setting::new();
        let mut job = setting.job();
        job.limits.patience = Duration::from_millis(20);
        job.limits.attempts = 2;
        setting.source.play(away(n, usize::MAX));
        let (exit, said) = match setting.export(&job).await {
            Ok(summary) => {
                assert!(summary.failed.is_empty(), "{summary:?}");
                (summary.exit, summary.error.unwrap())
            }
            Err(error) => (error.exit(), error.to_string()),
        };
        assert_eq!(exit, Exit::Incomplete, "question {n}");
        assert_eq!(said, "scripted has not answered for 0 s: the connection broke");
        setting.source.play(|_| None);
        assert_eq!(setting.export(&setting.job()).await.unwrap().exit, Exit::Done);
        setting.assert_complete();
    }
}

// The source answers everything else, so that there is nothing to wait for.
#[tokio::test]
async fn a_chunk_that_fails_by_itself_fails_by_name_and_the_others_are_read() {
    let setting = Setting::new();
    let fails = |question: &Question| match question {
        Question::Read(chunk) => {
            chunk.table.id.table == "two" && chunk.slice.to_string() == "null-time"
        }
        _ => false,
    };
    setting.source.play(move |question| fails(question).then(|| Play::Fail(broken())));
    let summary = setting.export(&setting.job()).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Incomplete, ROWS as u64 + 1));
    assert_eq!(summary.failed.len(), 1);
    assert!(summary.failed[0].chunk.contains("two"), "{summary:?}");
    setting.source.play(|_| None);
    assert_eq!(setting.export(&setting.job()).await.unwrap().rows, 1);
    setting.assert_complete();
}

#[tokio::test]
async fn the_first_contact_fails_soon_and_does_not_say_run_again() {
    let setting = Setting::new();
    setting.source.play(|_| Some(Play::Fail(broken())));
    let error = setting.export(&setting.job()).await.unwrap_err();
    assert_eq!((error.exit(), error.hint_text()), (Exit::Failed, None));
    assert_eq!(reads(&setting), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_by_doctor_plan_and_export_alike() {
    let setting = Setting::new();
    let id = TableId {
        source: "scripted".into(),
        database: "d".into(),
        schema: "s".into(),
        table: "secret".into(),
    };
    let unreadable = vec![(id.clone(), "permission denied".to_owned())];
    setting.source.list_also(Listing { unreadable, ..Listing::default() });
    let job = setting.job();
    let never = || watch::channel(false).1;

    let diagnosis = doctor(&job, &Progress::silent(), never()).await.unwrap();
    let failed: Vec<_> =
        diagnosis.checks.iter().filter(|check| check.status == CheckStatus::Failed).collect();
    assert_eq!(diagnosis.exit, Exit::Failed);
    assert_eq!(failed.len(), 1, "{diagnosis:?}");
    assert_eq!(failed[0].found, "d.s.secret cannot be read: permission denied");
    assert!(failed[0].hint.is_some());

    let plan = preview(&job, &Progress::silent(), never()).await.unwrap();
    assert_eq!((plan.exit, plan.failed.len()), (Exit::Failed, 1));
    let summary = setting.export(&job).await.unwrap();
    assert_eq!((summary.exit, summary.failed.len()), (Exit::Failed, 1));
    assert_eq!(
        (&plan.failed[0].chunk, &plan.failed[0].error, &plan.hint),
        (&summary.failed[0].chunk, &summary.failed[0].error, &summary.hint)
    );

    // Left out, it fails nothing.
    let mut job = setting.job();
    job.sources[0].select.exclude = vec!["secret".to_owned()];
    let diagnosis = doctor(&job, &Progress::silent(), never()).await.unwrap();
    assert_eq!(diagnosis.exit, Exit::Done);
    let read = diagnosis.checks.iter().find(|check| check.what == "read").unwrap();
    assert!(read.found.contains("all 2 tables") && read.found.contains("not checked"), "{read:?}");
    assert_eq!(preview(&job, &Progress::silent(), never()).await.unwrap().exit, Exit::Done);
    assert_eq!(setting.export(&job).await.unwrap().exit, Exit::Done);
}

#[tokio::test]
async fn a_definition_that_could_not_be_saved_is_not_complete_until_it_is() {
    let setting = Setting::new();
    let views = |outcome: ArtifactOutcome| {
        let mut artifacts = Artifacts::of("scripted");
        artifacts.ended("views", outcome);
        artifacts
    };
    setting.source.keep(views(ArtifactOutcome::Failed("permission denied".to_owned())));
    // It stays so, however often it is tried, and the rows are safe.
    for _ in 0..2 {
        let summary = setting.export(&setting.job()).await.unwrap();
        assert_eq!(summary.exit, Exit::Failed);
        assert_eq!(summary.status, ExportStatus::CompleteExceptForDefinitions);
        assert_eq!(summary.failed[0].chunk, "views of scripted");
        setting.assert_complete();
    }
    setting.source.keep(views(ArtifactOutcome::Saved(String::new())));
    let summary = setting.export(&setting.job()).await.unwrap();
    assert_eq!((summary.exit, summary.status), (Exit::Done, ExportStatus::Complete));
    setting.assert_complete();
}

/// The rows of a sealed archive in memory, by the reader that shares no code with the program.
async fn assert_complete_in(store: &Arc<Memory>) {
    let setting = Setting::new();
    for (key, bytes) in store.files().await {
        let path = setting.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    setting.assert_complete();
}

fn place(store: &Arc<Memory>) -> Location {
    Location::given("memory", Arc::new(Handle(Arc::clone(store))))
}

impl Setting {
    /// The same job into a store in memory, which is not patient with it.
    fn job_in(&self, store: &Arc<Memory>) -> Job {
        let mut job = job(&self.source, place(store));
        job.limits.window = Some(10_000 * HOUR);
        job.limits.concurrency = 1;
        job.limits.attempts = 2;
        job.limits.patience = Duration::from_millis(5);
        job
    }
}

/// How many requests a run makes of its store.
async fn requests() -> usize {
    let (setting, store) = (Setting::new(), Memory::new());
    store.play(|_, _| None);
    let summary = setting.export(&setting.job_in(&store)).await.unwrap();
    assert_eq!(summary.exit, Exit::Done);
    assert_complete_in(&store).await;
    store.asked().len()
}

// As a kill leaves it: from some request on, nothing happens any more.
#[tokio::test]
async fn whatever_request_to_the_store_is_the_last_the_next_run_goes_on() {
    for n in 0..requests().await {
        let (setting, store) = (Setting::new(), Memory::new());
        store.play(move |asked, _| (asked >= n).then_some(Wrong::Failed));
        let ended = setting.export(&setting.job_in(&store)).await;
        // What is away is not the fault of a chunk.
        let failed = ended.as_ref().map_or(&[][..], |summary| &summary.failed);
        assert!(failed.is_empty(), "request {n}: {failed:?}");
        let exit = ended.map_or_else(|error| error.exit(), |summary| summary.exit);
        let sealed = store.files().await.contains_key("tagmanifest-sha256.txt");
        assert!(
            exit != Exit::Interrupted && (exit != Exit::Done || sealed),
            "request {n}: {exit:?}"
        );
        store.play(|_, _| None);
        // A dead run is told by its process, which is here that of the next one, too.
        for key in store.files().await.keys().filter(|key| key.starts_with(".moveout/runs/")) {
            store.set(key, None).await;
        }
        let summary = setting.export(&setting.job_in(&store)).await.unwrap();
        assert_eq!(summary.exit, Exit::Done, "request {n}: {summary:?}");
        assert_complete_in(&store).await;
    }
}

#[tokio::test]
async fn whatever_request_to_the_store_is_interrupted_the_next_run_goes_on() {
    for n in 0..requests().await {
        let (setting, store) = (Setting::new(), Memory::new());
        let (stop, stopped) = watch::channel(false);
        store.play(move |asked, _| {
            if asked == n {
                stop.send(true).unwrap();
            }
            None
        });
        let job = setting.job_in(&store);
        let ended = export(&job, &Progress::silent(), stopped).await;
        let exit = ended.map_or_else(|error| error.exit(), |summary| summary.exit);
        let sealed = store.files().await.contains_key("tagmanifest-sha256.txt");
        assert!(
            exit == Exit::Interrupted || (exit == Exit::Done && sealed),
            "request {n}: {exit:?}"
        );
        store.play(|_, _| None);
        let summary = setting.export(&setting.job_in(&store)).await.unwrap();
        assert_eq!(summary.exit, Exit::Done, "request {n}: {summary:?}");
        assert_complete_in(&store).await;
    }
}

#[tokio::test]
async fn an_archive_that_is_away_for_long_while_chunks_are_written_is_waited_for() {
    for concurrency in [1, 4] {
        let (setting, store) = (Setting::new(), Memory::new());
        let mut job = setting.job_in(&store);
        (job.limits.concurrency, job.limits.patience) = (concurrency, Duration::from_secs(60));
        let mut failures = 0;
        store.play(move |_, request| {
            let away =
                (request.key.starts_with("data/") || request.key == "bagit.txt") && failures < 30;
            failures += usize::from(away);
            away.then_some(Wrong::Failed)
        });
        let summary = setting.export(&job).await.unwrap();
        assert_eq!(summary.exit, Exit::Done, "{summary:?}");
        assert_complete_in(&store).await;
    }
}
