//! The longest single insertion while stores grow to ten million items: nothing may stall for all.
//!
//! `make growth`; takes about 2 GB. The same insertions are made several times: what takes long
//! only once was the machine (a page fault, another process), what takes long each time is ours.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use sessiond::record::{Change, Marks, Record};
use sessiond::store::{Applied, Budget, Options, Store};
use sessiond::time::{Deadline, Millis, Now};
use sessiond::version::{Epoch, Versions};

const ITEMS: usize = 10_000_000;
const STEP: usize = 1_000_000;
const PASSES: usize = 3;
const LIMIT: usize = 2 << 30;
/// A request that waits longer than this would be noticed.
const STALL_NS: u32 = 1_000_000;

/// Nanoseconds of each insertion.
fn insert(shards: usize, budget: &Arc<Budget>) -> (Vec<u32>, Vec<Store>) {
    let options = Options { evict: true, seed: 1, ..Options::default() };
    let store = |_| Store::new(options.clone(), Arc::clone(budget));
    let mut stores: Vec<_> = (0..shards).map(store).collect();
    let mut versions = Versions::new(Epoch(1), 0);
    let now = Now { local: Millis(1), cluster: Millis(1), wall_s: 1_800_000_000 };
    let deadline = Deadline::from_exptime(3600, now);
    // Allocated and touched before the clock runs.
    let mut took = vec![1; ITEMS];
    for (item, took) in took.iter_mut().enumerate() {
        let key = format!("session:{item:08}");
        let version = versions.next(None);
        let (marks, value) = (Marks::default(), &[b'x'; 20][..]);
        let change = Change::Put { cas: version.get(), flags: 0, deadline, marks, value };
        let record = Record { key: key.as_bytes(), version, change };
        let start = Instant::now();
        let applied = stores[item % shards].apply(&record, now);
        *took = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
        assert_eq!(applied, Applied::Done);
    }
    (took, stores)
}

fn microseconds(ns: u32) -> f64 {
    f64::from(ns) / 1000.0
}

/// The longest, and what one of ten thousand takes longer than.
fn tail(took: &[u32]) -> (u32, u32) {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let last = sorted.len() - 1;
    (sorted[last], sorted[last - sorted.len() / 10_000])
}

fn print_tail(name: &str, took: &[u32]) {
    let (longest, p9999) = tail(took);
    println!("  {name:<26} {:>10.1} {:>10.1}", microseconds(longest), microseconds(p9999));
}

/// Returns the longest insertion that no pass made faster.
fn measure(shards: usize) -> u32 {
    let budget = Arc::new(Budget::new(LIMIT));
    println!("{ITEMS} items into {shards} store(s), in us");
    println!("  {:<26} {:>10} {:>10}", "", "longest", "p99.99");
    let mut least = vec![u32::MAX; ITEMS];
    for pass in 1..=PASSES {
        let (took, mut stores) = insert(shards, &budget);
        let kind = if pass == 1 { "fresh memory" } else { "used memory" };
        print_tail(&format!("pass {pass}, {kind}"), &took);
        least.iter_mut().zip(&took).for_each(|(least, &took)| *least = took.min(*least));
        // Gives its pages back, to be used by the next pass.
        stores.iter_mut().for_each(Store::wipe);
    }
    print_tail("the fastest pass of each", &least);
    for (step, took) in least.chunks(STEP).enumerate() {
        print_tail(&format!("  up to {}M", (step + 1) * STEP / 1_000_000), took);
    }
    tail(&least).0
}

fn main() -> ExitCode {
    if !env::args().any(|argument| argument == "--bench") {
        println!("growth measures only under `cargo bench --bench growth`");
        return ExitCode::SUCCESS;
    }
    let longest = [1, 16].map(measure);
    if longest.iter().any(|&longest| longest >= STALL_NS) {
        eprintln!("growth: an insertion took longer than {:.0} us", microseconds(STALL_NS));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
