//! Whole groups in one thread, from one seed: real nodes, a simulated network and clock.
//!
//! `cargo test --test sim` runs seeds 1 to `SEEDS` (300 by default); `SEED=n` replays one and
//! tells what happens. A run either keeps every promise or prints its seed.

mod client;
mod model;
mod network;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Summary, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed; a broken promise or a panic of a node names it.
fn run(seed: u64, is_told: bool) -> Summary {
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, is_told).run()));
    match outcome {
        Ok(Ok(summary)) => summary,
        Ok(Err(broken)) => {
            panic!("seed {seed}: {broken}\nreplay it with: make sim SEED={seed}")
        }
        Err(_) => panic!("seed {seed}: a node panicked\nreplay it with: make sim SEED={seed}"),
    }
}

#[test]
fn promises_hold_while_nodes_crash_and_come_back() {
    if let Some(seed) = number("SEED") {
        println!("{:#?}", run(seed, true));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(300);
    let mut total = Summary::default();
    for seed in 1..=seeds {
        total.add(&run(seed, false));
    }
    println!("{seeds} seeds: {total:#?}");
    // A mechanism that never ran was not tested.
    assert!(total.is_complete(), "something never happened: {total:#?}");
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(7, false), run(7, false));
}
