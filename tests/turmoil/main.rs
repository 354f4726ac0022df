//! What goes between nodes, over a simulated TCP (turmoil): connections that are slow, cut off,
//! cut off one way, or held up, and a clock that is moved.
//!
//! `sessions`: the numbered messages of `replication/link.rs`, of which each must arrive once and
//! in order. `agreement`: the log of views of `membership/`, whose frames may get lost with their
//! connections. `nodes`: whole nodes, with the server's own control and data links; only threads and
//! clients' sockets are missing, which `tests/nemesis` has.
//!
//! `SEEDS=n cargo test --test turmoil` for more seeds.

#![allow(clippy::unwrap_used)]

mod agreement;
mod host;
mod nodes;
mod sessions;
mod wire;

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// How many seeds: so many every day, more when the environment says so.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    1..1 + std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

/// A group of hosts whose clock goes on as the test says.
fn new_sim<'a>(seed: u64) -> turmoil::Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(5))
        .simulation_duration(Duration::from_secs(600))
        .tcp_capacity(4096)
        .build()
}

/// Time passes.
fn pass(sim: &mut turmoil::Sim<'_>, time: Duration) {
    let until = sim.elapsed() + time;
    while sim.elapsed() < until {
        sim.step().expect("no host fails");
    }
}

/// Something happens to what is between two hosts, for a while.
fn disturb(sim: &mut turmoil::Sim<'_>, a: &str, b: &str, rng: &mut StdRng) {
    match rng.random_range(0..4) {
        0 => sim.partition(a, b),
        1 => sim.partition_oneway(a, b),
        2 => sim.partition_oneway(b, a),
        // Nothing is lost, and all of it comes at once afterwards.
        _ => sim.hold(a, b),
    }
    pass(sim, Duration::from_millis(rng.random_range(1..3000)));
    sim.release(a, b);
    sim.repair(a, b);
}
