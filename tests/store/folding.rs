//! Commits that are folded into segments: in any order, with any request that goes wrong, by several runs at once, they
//! count once, and what was retracted does not come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures::FutureExt;

use moveout::archive::Archive;
use moveout::archive::commit::{Commit, FileRecord};
use moveout::archive::keys::file_key;
use moveout::archive::runs::{Beating, Heartbeat, new_run_id};
use moveout::commands::status::status;
use moveout::error::{Exit, Result};
use moveout::hash::sha256;
use moveout::window::{Slice, Window, now, rfc3339};
use tokio::sync::Notify;

use super::orders::no_order_costs_a_row_of;
use super::single::{each_may_go_wrong, killed_at_each_step};
use super::support::Scripted;
use super::support::memory::{Ask, Memory, Request, Wrong};
use super::support::scripted::numbers;
use super::{
    Begin, DAY, NEW_YEAR, begun, ended, place, rows, rows_of, run, uncatalogued, verified,
    vouched_for,
};

const SEGMENTS: &str = ".moveout/segments/";

/// Tables with a row each, so that each is a chunk.
fn tables(number: usize) -> Arc<Scripted> {
    Scripted::new((0..number).map(|n| numbers(&format!("t{n}"), &[(Some(NEW_YEAR + n as i64), 1)])))
}

fn folding(store: Arc<Memory>, commits: usize) -> Arc<Memory> {
    store.fold_commits.store(commits, Ordering::SeqCst);
    store
}

/// What a run leaves that folds so many commits at once and is stopped before its seal.
async fn unsealed(source: &Arc<Scripted>, fold: usize) -> Arc<Memory> {
    let store = folding(Memory::new(), fold);
    stopped(source, &store).await;
    store
}

async fn stopped(source: &Arc<Scripted>, store: &Arc<Memory>) {
    store.play(|_, asked| {
        (asked.ask == Ask::Put && asked.key == "catalog/tables.json").then_some(Wrong::Failed)
    });
    assert_ne!(run(source, store).await.unwrap().exit, Exit::Done);
    store.play(|_, _| None);
}

async fn keys(store: &Memory, folder: &str) -> Vec<String> {
    store.files().await.into_keys().filter(|key| key.starts_with(folder)).collect()
}

#[tokio::test]
async fn a_resume_reads_segments_and_the_seal_leaves_nothing_of_them() {
    let source = tables(11);
    let store = unsealed(&source, 4).await;
    let (loose, segments) =
        (keys(&store, ".moveout/commits/").await, keys(&store, ".moveout/segments/").await);
    // The rest was folded when the run had failed.
    assert_eq!((loose.len(), segments.len()), (0, 3), "{loose:?} {segments:?}");
    let mark = store.files().await[".moveout/archive.json"].clone();
    assert_eq!(mark, "{\"format\":3}\n", "versions that know no segments refuse it");
    store.play(|_, _| None);
    let seen = status(&place(&store)).await.unwrap();
    assert!(!seen.sealed && seen.chunks == 11 && seen.rows == 11);
    assert!(store.asked().iter().all(|asked| !asked.key.starts_with(".moveout/commits/")));
    assert_eq!(verified(&store).await, Exit::Incomplete);
    source.take_asked();
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    assert!(source.asked().iter().all(|question| !question.starts_with("read")));
    assert_eq!(keys(&store, ".moveout/").await, [""; 0]);
    let files = store.files().await;
    let record: serde_json::Value = serde_json::from_slice(&files["catalog/run.json"]).unwrap();
    assert_eq!(record["format"], 2, "every version may read what is sealed");
    assert_eq!(verified(&store).await, Exit::Done);
    assert_eq!(rows(&store).await, rows_of(&source));
}

#[tokio::test]
async fn what_dead_runs_left_loose_is_folded_by_the_next() {
    let few = tables(5);
    let store = unsealed(&few, 1000).await;
    assert_eq!(keys(&store, ".moveout/commits/").await.len(), 5);
    let store = folding(store, 3);
    stopped(&tables(6), &store).await;
    let segments = keys(&store, ".moveout/segments/").await;
    assert_eq!(keys(&store, ".moveout/commits/").await.len(), 0, "{segments:?}");
    assert_eq!(uncatalogued(&store.files().await).len(), 6);
    assert_eq!(run(&tables(6), &store).await.unwrap().exit, Exit::Done);
    assert_eq!(verified(&store).await, Exit::Done);
}

/// The run that wrote the segment may be about to remove it, and only seem to be dead.
#[tokio::test]
async fn a_loose_commit_is_not_removed_because_another_run_has_folded_it() {
    let store = unsealed(&tables(4), 1000).await;
    let loose = store.files().await;
    let store = folding(store, 2);
    stopped(&tables(5), &store).await;
    let others = keys(&store, ".moveout/segments/").await;
    for (key, bytes) in loose.into_iter().filter(|(key, _)| key.starts_with(".moveout/commits/")) {
        store.set(&key, Some(bytes)).await;
    }
    stopped(&tables(6), &store).await;
    assert!(keys(&store, ".moveout/segments/").await.len() > others.len());
    for key in others {
        store.set(&key, None).await;
    }
    let left: BTreeSet<String> =
        uncatalogued(&store.files().await).into_iter().map(|commit| commit.table.clone()).collect();
    assert!((0..4).all(|n| left.contains(&format!("t{n}"))), "{left:?}");
    assert_eq!(run(&tables(6), &store).await.unwrap().exit, Exit::Done);
    assert_eq!(verified(&store).await, Exit::Done);
    assert_eq!(rows(&store).await, rows_of(&tables(6)));
}

/// Another run retracts a commit after the one that folds has listed it, and the one that folds is killed as soon as its
/// segment is written, or cannot look whether anything has changed.
#[tokio::test]
async fn what_was_retracted_while_it_was_folded_does_not_come_back() {
    for is_known in [true, false] {
        let store = Memory::new();
        let (listed, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gate = {
            let (listed, go) = (Arc::clone(&listed), Arc::clone(&go));
            move |request: &Request| {
                let waits = request.ask == Ask::Put && request.key.starts_with(SEGMENTS);
                let (listed, go) = (Arc::clone(&listed), Arc::clone(&go));
                async move {
                    if waits {
                        listed.notify_one();
                        go.notified().await;
                    }
                    Box::new(()) as Box<dyn Send>
                }
                .boxed()
            }
        };
        let of_folding = store.gated(Arc::new(gate));
        let mut is_written = false;
        let killed = move |_, request: &Request| {
            let is_over = is_written;
            is_written |= request.ask == Ask::Put && request.key.starts_with(SEGMENTS);
            is_over.then_some(Wrong::Failed)
        };
        let folds = Hand::new(&of_folding, 8).await.unwrap();
        let (first, second) =
            (folds.commit(&store, 0).await.unwrap(), folds.commit(&store, 1).await.unwrap());
        if !is_known {
            folds.archive.forget_heartbeat(folds.beating.run()).await.unwrap();
        }
        of_folding.play(killed);
        let archive = folds.archive.clone();
        let folding = tokio::spawn(async move { archive.fold_rest().await });
        listed.notified().await;
        let retracts = Hand::new(&store, 1000).await.unwrap();
        retracts.archive.retract(&first).await.unwrap();
        go.notify_one();
        folding.await.unwrap();
        assert_eq!(
            keys(&store, SEGMENTS).await.len(),
            1,
            "it was killed before it could remove it"
        );
        let fresh = Archive::open(&place(&store)).await.unwrap();
        assert_eq!(counted(&fresh).await, Counted::from([(1, second)]), "known: {is_known}");
    }
}

/// A run has listed its commits to fold them when another one seals them.
#[tokio::test]
async fn a_run_that_folds_while_another_seals_leaves_a_sealed_archive() {
    let source = tables(4);
    let store = unsealed(&source, 1000).await;
    let sealed = store.copy().await;
    assert_eq!(run(&source, &sealed).await.unwrap().exit, Exit::Done);
    let sealed = Arc::new(Mutex::new(Some(sealed.files().await)));
    let gate = {
        let store = Arc::clone(&store);
        move |request: &Request| {
            let folds = request.ask == Ask::Put && request.key.starts_with(SEGMENTS);
            let sealed = sealed.lock().unwrap().take_if(|_| folds);
            let store = Arc::clone(&store);
            async move {
                // What the other run leaves.
                if let Some(sealed) = sealed {
                    for key in store.files().await.into_keys() {
                        store.set(&key, None).await;
                    }
                    for (key, bytes) in sealed {
                        store.set(&key, Some(bytes)).await;
                    }
                }
                Box::new(()) as Box<dyn Send>
            }
            .boxed()
        }
    };
    let folds = Hand::new(&store.gated(Arc::new(gate)), 8).await.unwrap();
    folds.archive.fold_rest().await;
    assert_eq!(keys(&store, SEGMENTS).await, Vec::<String>::new());
    folds.archive.forget_heartbeat(folds.beating.run()).await.unwrap();
    assert_eq!(verified(&store).await, Exit::Done);
    assert_eq!(keys(&store, ".moveout/").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_segment_stops_every_command_by_name_and_is_exported_again_without_it() {
    let source = tables(4);
    let store = unsealed(&source, 2).await;
    let before = vouched_for(&store).await;
    let key = keys(&store, ".moveout/segments/").await.remove(0);
    let whole = store.files().await[&key].clone();
    for at in [whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        for damaged in [bytes, whole[..at].to_vec(), Vec::new()] {
            store.set(&key, Some(damaged.into())).await;
            let (exit, said) = ended(run(&source, &store).await);
            assert!(exit == Exit::Different && said.contains(&key), "{said}");
            let error = status(&place(&store)).await.unwrap_err();
            assert!(error.hint_text().unwrap().contains("exported again"), "{error}");
            assert_eq!(verified(&store).await, Exit::Different);
            let after = store.files().await;
            assert!(before.keys().all(|key| after.contains_key(key)), "nothing was removed");
        }
    }
    store.set(&key, None).await;
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    assert_eq!(verified(&store).await, Exit::Done);
    assert_eq!(rows(&store).await, rows_of(&source));
}

fn is_of_fold(asked: &Request) -> bool {
    let is_loose = asked.key.starts_with(".moveout/commits");
    asked.key.starts_with(".moveout/segments")
        || asked.key == ".moveout/archive.json"
        || (is_loose && matches!(asked.ask, Ask::List | Ask::Delete))
}

#[tokio::test]
async fn folding_survives_any_request_that_goes_wrong() {
    let source = tables(4);
    for store in [folding(Memory::new(), 2), unsealed(&source, 2).await] {
        let runs = each_may_go_wrong(&source, &store, is_of_fold, |_| None).await;
        assert!(runs > 20, "{runs}");
    }
}

#[tokio::test]
async fn a_run_that_folds_and_is_killed_at_any_step_loses_nothing() {
    let source = tables(4);
    killed_at_each_step(&source, &folding(Memory::new(), 2)).await;
    killed_at_each_step(&source, &unsealed(&source, 2).await).await;
    let some = unsealed(&tables(3), 1000).await;
    killed_at_each_step(&source, &folding(some, 2)).await;
}

#[tokio::test]
async fn a_listing_that_leaves_out_segments_costs_none_of_their_files() {
    let source = tables(5);
    for hidden in [".moveout", ".moveout/commits", ".moveout/segments", "both"] {
        let store = unsealed(&source, 2).await;
        let before = vouched_for(&store).await;
        store.play(move |_, asked| {
            let is_hidden = match hidden {
                "both" => [".moveout", ".moveout/segments"].contains(&asked.key.as_str()),
                one => asked.key == one,
            };
            (asked.ask == Ask::List && is_hidden).then_some(Wrong::Dropped)
        });
        let _ = run(&source, &store).await;
        let after = store.files().await;
        let lost = before.keys().find(|key| !after.contains_key(*key));
        assert_eq!(lost, None, "{hidden}");
        store.play(|_, _| None);
        let next = run(&source, &store).await.unwrap();
        assert_eq!(next.exit, Exit::Done, "{hidden}: {:?}", next.error);
        assert_eq!(verified(&store).await, Exit::Done);
        assert_eq!(rows(&store).await, rows_of(&source));
    }
}

#[tokio::test]
async fn two_runs_that_fold_in_any_order_do_no_harm() {
    let sources = || [tables(2), tables(2)];
    no_order_costs_a_row_of(Begin::Empty, folding(Memory::new(), 1), sources()).await;
    let loose = folding(begun(Begin::Unsealed, &tables(2)).await, 1);
    no_order_costs_a_row_of(Begin::Unsealed, loose, [tables(3), tables(3)]).await;
}

/// A run of the archive, and what it does.
struct Hand {
    archive: Archive,
    beating: Beating,
}

impl Hand {
    async fn new(store: &Arc<Memory>, fold: usize) -> Result<Self> {
        let archive = Archive::create(&place(store)).await?.folding_each(fold);
        let beating = archive.beat(Heartbeat::new(&new_run_id())).await?;
        Ok(Self { archive, beating })
    }

    /// Commits a window that begins on this day, with a file.
    async fn commit(&self, store: &Memory, day: i64) -> Result<Commit> {
        let window = Window { from: NEW_YEAR + day * DAY, to: NEW_YEAR + (day + 1) * DAY };
        let (slice, run, path) = (Slice::Window(window), self.beating.run(), "data/s/d/t");
        let (key, bytes) = (file_key(path, slice, run, 1), format!("{day} {}", now()));
        store.set(&key, Some(bytes.clone().into())).await;
        let sha256 = sha256(bytes.as_bytes());
        let mut commit = Commit {
            common: moveout::archive::commit::Common {
                source: "s".into(),
                database: "d".into(),
                schema: String::new(),
                table: "t".into(),
                path: path.into(),
                run: run.into(),
                verified: "not at all".into(),
                state: None,
            }
            .shared(),
            slice,
            rows: 1,
            files: vec![FileRecord { key, bytes: bytes.len() as u64, sha256, rows: 1 }],
            columns: Vec::new(),
            started: rfc3339(now()),
            elapsed_ms: 1,
            committed: rfc3339(now()),
            snapshot: None,
            replaces: Vec::new(),
            dump: None,
        };
        assert!(self.archive.commit(&mut commit).await?);
        Ok(commit)
    }
}

/// Commits that count, by the day.
type Counted = BTreeMap<i64, Commit>;

async fn counted(archive: &Archive) -> Counted {
    let state = archive.state().await.unwrap();
    let day = |commit: &Commit| (commit.slice.window().unwrap().from - NEW_YEAR) / DAY;
    assert!(state.superseded.is_empty(), "{:?}", state.superseded);
    state.commits.iter().map(|commit| (day(commit), Commit::clone(commit))).collect()
}

/// Runs that commit, retract what they or dead ones have committed, and fold as they go, are killed at any request and
/// followed by others. After each step exactly that counts which was committed and not retracted; a step that was cut
/// is done or not done. No sweep takes a file of what counts.
#[tokio::test]
async fn in_any_order_of_steps_and_kills_exactly_what_was_committed_counts() {
    let (mut folded, mut retracted, mut killed) = (0, 0, 0);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let fold = random.usize(1..5);
        let store = folding(Memory::new(), fold);
        let mut hand = Hand::new(&store, fold).await.unwrap();
        let mut model = Counted::new();
        for step in 0..24 {
            let what = format!("seed {seed}, step {step}");
            let mut others = model.clone();
            let is_cut = random.u8(..6) == 0;
            let from = if is_cut { random.usize(..24) } else { usize::MAX };
            store.play(move |at, _| (at >= from).then_some(Wrong::Failed));
            let day = random.i64(0..12);
            let done = match others.remove(&day) {
                None => match hand.commit(&store, day).await {
                    Ok(commit) => {
                        others.insert(day, commit);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                Some(commit) => {
                    retracted += 1;
                    hand.archive.retract(&commit).await
                }
            };
            store.play(|_, _| None);
            if done.is_ok() {
                model = others.clone();
            }
            if is_cut || random.u8(..8) == 0 {
                // It is killed, or ends, and the next one goes on.
                killed += 1;
                drop(hand);
                hand = Hand::new(&store, fold).await.unwrap();
                let found = counted(&hand.archive).await;
                let is_done = match (found.get(&day), model.get(&day), others.get(&day)) {
                    // What was cut is a commit of which nothing is known but the day.
                    (Some(_), None, None) => done.is_err(),
                    (found, before, after) => found == before || found == after,
                };
                assert!(is_done, "{what}: {:?}", found.get(&day));
                let rest = |counted: &Counted| {
                    counted
                        .iter()
                        .filter(|(other, _)| **other != day)
                        .map(|(_, c)| c.clone())
                        .collect::<Vec<_>>()
                };
                assert_eq!(rest(&found), rest(&model), "{what}");
                model = found;
                hand.archive.sweep(hand.beating.run(), true).await.unwrap();
            }
            folded += usize::from(!keys(&store, ".moveout/segments/").await.is_empty());
            assert_eq!(counted(&hand.archive).await, model, "{what}");
            let fresh = Archive::open(&place(&store)).await.unwrap();
            assert_eq!(counted(&fresh).await, model, "{what}, seen by another");
            let files: BTreeSet<String> = keys(&store, "data/").await.into_iter().collect();
            let named = model.values().flat_map(|commit| &commit.files);
            let gone = named.map(|file| &file.key).find(|key| !files.contains(*key));
            // A retraction that was cut after the commit was taken back has no file to lose.
            assert_eq!(gone, None, "{what}");
        }
    }
    assert!(folded > 500 && retracted > 200 && killed > 200, "{folded} {retracted} {killed}");
}
