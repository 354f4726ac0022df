//! Parsing and executing requests without sockets: what a session costs beside its system calls.
//!
//! `cargo bench --bench request`. Compare runs on one machine only.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

#[path = "../tests/alone/mod.rs"]
mod alone;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sessiond::node::{Node, Session, Step};
use sessiond::settings::Settings;
use sessiond::time::Now;

use alone::Alone;

const KEYS: usize = 100_000;

/// A node of its own, and a session on it.
struct Bench {
    node: Node<()>,
    session: Session,
    now: Now,
    out: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let (node, now) = alone::node(1, Settings { memory: 1 << 30, ..Settings::default() });
        Self { node, session: Session::new(0, 1 << 20), now, out: Vec::new() }
    }

    /// Feeds whole commands; returns the length of the replies.
    fn feed(&mut self, input: &[u8]) -> usize {
        self.out.clear();
        let Self { node, session, now, out, .. } = self;
        let (mut used, mut written) = (0, 0);
        while used < input.len() {
            let (taken, step) =
                session.advance(node, &input[used..], *now, out, &mut Alone::default());
            used += taken;
            written += out.len();
            match step {
                // A batch of large values leaves in several writes.
                Step::Write => out.clear(),
                Step::Yield => written -= out.len(),
                _ => assert!(matches!(step, Step::Read(_)), "the input was not whole"),
            }
        }
        written
    }
}

fn key(n: usize) -> String {
    format!("session:{:024}", n % KEYS)
}

fn set(n: usize, length: usize) -> Vec<u8> {
    let mut command = format!("set {} 1 3600 {length}\r\n", key(n)).into_bytes();
    command.resize(command.len() + length, b'x');
    command.extend_from_slice(b"\r\n");
    command
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for length in [1024, 4096] {
        let mut bench = Bench::new();
        for n in 0..KEYS {
            assert_eq!(bench.feed(&set(n, length)), b"STORED\r\n".len());
        }
        let gets: Vec<_> = (0..KEYS).map(|n| format!("get {}\r\n", key(n * 7919))).collect();
        let sets: Vec<_> = (0..1000).map(|n| set(n * 7919, length)).collect();
        let mut turn = 0;
        let mut next = move || {
            turn += 1;
            turn
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("get-{length}"), |timer| {
            timer.iter(|| black_box(bench.feed(gets[next() % gets.len()].as_bytes())));
        });
        group.bench_function(format!("set-{length}"), |timer| {
            timer.iter(|| black_box(bench.feed(&sets[next() % sets.len()])));
        });
        let keys: Vec<_> = (0..KEYS).map(|n| key(n * 7919)).collect();
        let lines: Vec<_> =
            keys.chunks(24).map(|chunk| format!("get {}\r\n", chunk.join(" "))).collect();
        group.throughput(Throughput::Elements(24));
        group.bench_function(format!("multiget-24-{length}"), |timer| {
            timer.iter(|| black_box(bench.feed(lines[next() % lines.len()].as_bytes())));
        });
        let many: Vec<_> = gets.chunks(32).map(|chunk| chunk.concat()).collect();
        group.throughput(Throughput::Elements(32));
        group.bench_function(format!("pipelined-get-{length}x32"), |timer| {
            timer.iter(|| black_box(bench.feed(many[next() % many.len()].as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
