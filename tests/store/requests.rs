//! How much a run asks of its store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moveout::commands::status::status;
use moveout::error::Exit;

use super::support::Scripted;
use super::support::memory::{Ask, Memory, Wrong};
use super::support::scripted::numbers;
use super::{NEW_YEAR, place, run};

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
    store.fold_commits.store(usize::MAX, Ordering::SeqCst);
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
    // A small data file is read back once, and so is a commit.
    let first = BTreeMap::from([(Ask::Get, 200), (Ask::Put, 200), (Ask::Delete, 100)]);
    let resumed = BTreeMap::from([(Ask::Get, 100), (Ask::Delete, 100)]);
    assert_eq!(grown, [first, BTreeMap::new(), resumed, BTreeMap::new()]);
    for (what, counts) in ["first", "idle", "resumed", "status"].iter().zip(&few) {
        let lists = counts.get(&Ask::List).copied().unwrap_or_default();
        // Each look lists the segments once more, after it has read the loose commits.
        assert!(lists <= 60, "{what}: {lists} listings");
    }
}
