//! One request that goes wrong, in every way; a run that is killed at any of them.

use std::sync::{Arc, Mutex};

use moveout::error::Exit;

use super::support::Scripted;
use super::support::memory::{Ask, Memory, Request, Wrong};
use super::support::scripted::numbers;
use super::{Begin, DAY, NEW_YEAR, begin, begun, ended, rows, rows_of, run, verified, vouched_for};

/// Any one of these requests of a run goes wrong, in every way: the run says so, or the archive is exact and
/// verified; and what was vouched for before stays, so that the next run makes it good. What `always` says goes
/// wrong besides.
pub(super) async fn each_may_go_wrong(
    source: &Arc<Scripted>,
    whole: &Arc<Memory>,
    which: fn(&Request) -> bool,
    always: fn(&Request) -> Option<Wrong>,
) -> usize {
    let (mut runs, mut failed) = (0, 0);
    let before = vouched_for(whole).await;
    for wrong in Wrong::ALL {
        for nth in 0.. {
            let store = whole.copy().await;
            let what = Arc::new(Mutex::new(None));
            let (told, mut seen) = (Arc::clone(&what), 0);
            store.play(move |_, asked| {
                if which(asked) {
                    seen += 1;
                    if seen == nth + 1 {
                        *told.lock().unwrap() = Some(asked.to_string());
                        return Some(wrong);
                    }
                }
                always(asked)
            });
            let exit = ended(run(source, &store).await).0;
            let Some(what) = what.lock().unwrap().clone() else { break };
            let what = format!("request {nth} ({what}) {wrong:?}: {exit:?}");
            let after = store.files().await;
            let lost = before.keys().find(|key| after.get(*key) != before.get(*key));
            assert_eq!(lost, None, "{what}");
            runs += 1;
            if exit == Exit::Done {
                assert_eq!(verified(&store).await, Exit::Done, "{what}");
                assert_eq!(rows(&store).await, rows_of(source), "{what}");
                continue;
            }
            failed += 1;
            // What was committed by this run stays as well, and the next one ends well.
            let committed = vouched_for(&store).await;
            store.play(|_, _| None);
            let next = run(source, &store).await;
            let next = next.unwrap_or_else(|error| panic!("{what}, then {error}"));
            assert_eq!(next.exit, Exit::Done, "{what}, then {:?}", next.error);
            let after = store.files().await;
            let lost = committed.keys().find(|key| after.get(*key) != committed.get(*key));
            assert_eq!(lost, None, "{what}, then");
            assert_eq!(verified(&store).await, Exit::Done, "{what}, then");
            assert_eq!(rows(&store).await, rows_of(source), "{what}, then");
        }
    }
    eprintln!("{runs} runs, of which {failed} said that something went wrong");
    runs
}

async fn no_single_request_costs_a_row_or_is_passed_over(begin_with: Begin) {
    let (source, whole) = begin(begin_with).await;
    let runs = each_may_go_wrong(&source, &whole, |_| true, |_| None).await;
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

/// A day of rows each that do not become smaller, so that their file has several parts.
fn large(days: i64) -> Arc<Scripted> {
    let mut random = fastrand::Rng::with_seed(1);
    let rows = (0..days * 20_000).map(|i| (Some(NEW_YEAR + i * DAY / 20_000), random.i64(..)));
    Scripted::new([numbers("one", &rows.collect::<Vec<_>>())])
}

/// A first export, an extension, and a run that reads again what is gone.
#[tokio::test]
async fn an_upload_in_parts_survives_any_request_that_goes_wrong() {
    let empty = Memory::new();
    let sealed = begun(Begin::Sealed, &large(1)).await;
    let damaged = sealed.copy().await;
    let key = damaged.files().await.into_keys().find(|key| key.starts_with("data/")).unwrap();
    damaged.set(&key, None).await;
    for (whole, source) in [(empty, large(1)), (sealed, large(2)), (damaged, large(1))] {
        let of_parts =
            |asked: &Request| matches!(asked.ask, Ask::Create | Ask::Part | Ask::Complete);
        let runs = each_may_go_wrong(&source, &whole, of_parts, |_| None).await;
        assert!(runs >= 5 * Wrong::ALL.len(), "{runs}");
        // It is taken back where it fails.
        for fails in [
            |asked: &Request| (asked.ask == Ask::Part).then_some(Wrong::Failed),
            |asked: &Request| (asked.ask == Ask::Complete).then_some(Wrong::Failed),
            |asked: &Request| (asked.ask == Ask::Complete).then_some(Wrong::Late),
        ] {
            let runs = each_may_go_wrong(&source, &whole, |asked| asked.ask == Ask::Abort, fails);
            assert!(runs.await >= Wrong::ALL.len());
        }
    }
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

/// From some request on nothing is done any more, whatever the archive is at first: what was vouched for stays, and the
/// next run goes on.
pub(super) async fn killed_at_each_step(source: &Arc<Scripted>, whole: &Arc<Memory>) {
    for number in 0.. {
        let store = whole.copy().await;
        let (before, what) = (vouched_for(&store).await, format!("killed at request {number}"));
        store.play(move |at, _| (at >= number).then_some(Wrong::Failed));
        let _ = run(source, &store).await;
        let is_last = store.asked().len() <= number;
        store.play(|_, _| None);
        let committed = vouched_for(&store).await;
        assert!(before.iter().all(|(key, bytes)| committed.get(key) == Some(bytes)), "{what}");
        let next = run(source, &store).await.unwrap();
        assert_eq!(next.exit, Exit::Done, "{what}, then {:?}", next.error);
        let after = store.files().await;
        assert!(committed.iter().all(|(key, bytes)| after.get(key) == Some(bytes)), "{what}, then");
        assert!(!after.keys().any(|key| key.starts_with(".moveout/")), "{what}, then");
        assert_eq!(verified(&store).await, Exit::Done, "{what}, then");
        assert_eq!(rows(&store).await, rows_of(source), "{what}, then");
        if is_last {
            return;
        }
    }
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
