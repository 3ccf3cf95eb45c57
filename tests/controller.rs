//! What the controller of widths and streams costs, on simulated servers with a clock of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "support/simulation.rs"]
mod simulation;

use simulation::{Choice, servers};

/// On each server the controller, which knows nothing, takes at most this times what the best fixed pair of width and
/// streams takes, which nobody knows before.
const MOST: f64 = 1.2;
/// Each seed is another noise.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;

#[test]
fn on_each_server_the_controller_is_nearly_as_fast_as_the_best_fixed_pair() {
    let mut missed = Vec::new();
    for server in servers() {
        for most in [4, 8] {
            let (best, fixed) = server.best(most, SEEDS);
            for seed in SEEDS {
                let found = server.run(Choice::Controller { most }, seed);
                let ratio = found.seconds / fixed;
                if ratio > MOST || fixed < 60.0 {
                    missed.push(format!(
                        "{}, seed {seed}: {found:?}, {ratio:.2} of {fixed:.0} s by {best:?}",
                        server.name
                    ));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
