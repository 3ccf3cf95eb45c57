//! What the controller of widths and streams costs, on simulated servers with a clock of their own:
//!
//! ```text
//! cargo bench --bench controller
//! ```

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on shall panic")]
#![allow(clippy::print_stdout, reason = "the table is what the bench is for")]

#[path = "../tests/support/simulation.rs"]
mod simulation;

use simulation::{Choice, servers};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

fn main() {
    println!(
        "| server | at most | best fixed pair | s | controller, s | ratio | chunks | abandoned |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for server in servers() {
        for most in [4, 8] {
            let (best, fixed) = server.best(most, SEEDS);
            let Choice::Fixed { days, streams } = best else { continue };
            let found: Vec<_> =
                SEEDS.map(|seed| server.run(Choice::Controller { most }, seed)).collect();
            let mean = |of: fn(&simulation::Outcome) -> f64| {
                found.iter().map(of).sum::<f64>() / found.len() as f64
            };
            let seconds = mean(|outcome| outcome.seconds);
            println!(
                "| {} | {most} | {streams} × {days} d | {fixed:.0} | {seconds:.0} | {:.2} | {:.0} | {:.1} |",
                server.name,
                seconds / fixed,
                mean(|outcome| outcome.chunks as f64),
                mean(|outcome| outcome.abandoned as f64),
            );
        }
    }
}
