//! What metadata costs grows no faster than the number of chunks: requests, and memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "support/synthetic.rs"]
mod synthetic;

use std::collections::BTreeMap;

use moveout::archive::runs::{Heartbeat, new_run_id};
use moveout::archive::{Archive, Seal};
use synthetic::{Slow, fill, sealing};

/// Requests of a resume and of a seal, and the bytes that a chunk takes in the index.
async fn cost(
    chunks: usize,
) -> (BTreeMap<&'static str, usize>, BTreeMap<&'static str, usize>, usize) {
    let store = Slow::new();
    fill(&store, 10, chunks / 10, true).await;
    store.take_counts();
    let archive = Archive::create(&store.place()).await.unwrap();
    let run = new_run_id();
    let beating = archive.beat(Heartbeat::new(&run)).await.unwrap();
    let state = archive.state().await.unwrap();
    assert_eq!(state.commits.len(), chunks);
    let bytes = state.commits.iter().map(|commit| commit.size_bytes()).sum::<usize>() / chunks;
    let resumed = store.take_counts();
    drop(state);
    assert!(archive.seal(&beating, Seal { run: sealing(&run), artifacts: &[] }).await.unwrap());
    (resumed, store.take_counts(), bytes)
}

#[tokio::test]
async fn what_a_chunk_costs_is_the_same_in_a_larger_archive() {
    let (few, many) = (cost(4000).await, cost(16_000).await);
    for (few, many) in [(&few.0, &many.0), (&few.1, &many.1)] {
        for (kind, more) in many {
            let before = few.get(kind).copied().unwrap_or_default();
            // A page of a listing, or a segment, for each thousand; several listings in a seal.
            assert!(*more <= before + 12 * 14, "{kind}: {before}, then {more}");
        }
    }
    // Of a table of 7 columns; what all of its chunks have in common is in memory once.
    let is_alike = many.2.abs_diff(few.2) < 20;
    assert!(is_alike && many.2 < 1500, "{} bytes a chunk, then {}", few.2, many.2);
}
