//! What metadata costs at scale: to open an unfinished archive, to show its status, to seal it and to open it again, in a
//! store in memory whose requests take 30 ms:
//!
//! ```text
//! cargo bench --bench metadata
//! ```
//!
//! Each line is a process of its own, so that its peak of memory is its own; the store's part of that is left out.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on shall panic")]
#![allow(clippy::print_stdout, reason = "the table is what the bench is for")]

#[path = "../tests/support/synthetic.rs"]
mod synthetic;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moveout::archive::runs::{Heartbeat, new_run_id};
use moveout::archive::{Archive, Seal};
use moveout::commands::status::status;
use synthetic::{Slow, fill, sealing};

const LATENCY: Duration = Duration::from_millis(30);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, one, tables, chunks, folded] = &args[..]
        && one == "one"
    {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(one_archive(
            tables.parse().unwrap(),
            chunks.parse().unwrap(),
            folded == "true",
        ));
    }
    println!(
        "| tables | chunks | commits | step | LIST | GET | HEAD | PUT | DELETE | s | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut sizes = vec![(100, 10, false), (100, 100, false), (100, 10, true), (100, 100, true)];
    sizes.extend([(100, 1000, true), (100, 10_000, true)]);
    sizes.extend([(1000, 1, true), (10_000, 1, true), (100_000, 1, true)]);
    let most = std::env::var("MOST").map_or(usize::MAX, |most| most.parse().unwrap());
    for (tables, chunks, folded) in sizes.into_iter().filter(|(t, c, _)| t * c <= most) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["one", &tables.to_string(), &chunks.to_string(), &folded.to_string()]);
        assert!(command.status().unwrap().success());
    }
}

async fn one_archive(tables: usize, chunks: usize, folded: bool) {
    let store = Slow::new();
    fill(&store, tables, chunks, folded).await;
    *store.latency.lock().unwrap() = LATENCY;
    let place = store.place();
    let line = |step: &str, began: Instant, before: usize| {
        let counts = store.take_counts();
        let of = |kind| counts.get(kind).copied().unwrap_or_default();
        println!(
            "| {tables} | {} | {} | {step} | {} | {} | {} | {} | {} | {:.1} | {} |",
            tables * chunks,
            if folded { "folded" } else { "loose" },
            of("LIST"),
            of("GET"),
            of("HEAD"),
            of("PUT"),
            of("DELETE"),
            began.elapsed().as_secs_f64(),
            memory().1.saturating_sub(before) >> 20,
        );
    };
    store.take_counts();
    memory();
    let (before, began) = (memory().0, Instant::now());
    let shown = status(&place).await.unwrap();
    assert_eq!(shown.chunks, tables * chunks);
    drop(shown);
    line("`status`", began, before);

    memory();
    let (before, began) = (memory().0, Instant::now());
    let archive = Archive::create(&place).await.unwrap();
    let run = new_run_id();
    let beating = archive.beat(Heartbeat::new(&run)).await.unwrap();
    let state = archive.state().await.unwrap();
    assert_eq!(state.commits.len(), tables * chunks);
    drop(state);
    line("resume", began, before);

    let began = Instant::now();
    memory();
    let seal = Seal { run: sealing(&run), artifacts: &[] };
    assert!(archive.seal(&beating, seal).await.unwrap());
    line("seal", began, before);
    drop((archive, beating));

    memory();
    let (before, began) = (memory().0, Instant::now());
    let archive = Archive::open(&place).await.unwrap();
    assert_eq!(archive.state().await.unwrap().commits.len(), tables * chunks);
    line("open when sealed", began, before);
    let _ = Arc::strong_count(&store);
}

/// The memory that this process has now, and had at most since it was last asked, in bytes.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    };
    let found = (of("VmRSS:"), of("VmHWM:"));
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    found
}
