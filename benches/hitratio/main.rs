//! `make hitratio`: how often sessiond finds what is looked for, beside stock memcached with the same `-m`.
//!
//! Both replay the same uses at the same pace, since what lives and what is old is told in seconds.
//! Reports, and judges nothing.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod server;
mod shift;
mod trace;

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{PROGRAMS, Program, Server};
use crate::trace::{SHAPES, Shape, TTL_S, Trace, Unbounded, Use};

const LIMIT_MIB: usize = 128;
/// Requests sent at once.
const BATCH: usize = 50;
/// Uses in a second: half of what either server could do on a busy machine.
const PACE: u32 = 15_000;
/// Until the memory is full and the segments have settled nothing is counted.
const WARM_UP: Duration = Duration::from_secs(15);
const MODES: [(&str, &[&str]); 2] = [("yes", &[]), ("no", &["-o", "no_lru_maintainer"])];

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    reads: u64,
    hits: u64,
    /// A cache without bounds would have found so many.
    possible: u64,
}

/// One server's run of one trace.
struct Replay {
    server: Server,
    trace: Trace,
    unbounded: Unbounded,
    noise: Vec<u8>,
    found: Found,
}

impl Replay {
    fn new(program: Program, options: &[&str], shape: Shape, seed: u64) -> Self {
        Self {
            server: program.start(LIMIT_MIB, options),
            trace: Trace::new(shape, seed),
            unbounded: Unbounded::default(),
            noise: vec![b'x'; 12 << 10],
            found: Found::default(),
        }
    }

    fn run(&mut self, length: Duration) {
        let (start, step) = (Instant::now(), Duration::from_secs(1) * BATCH as u32 / PACE);
        let mut at = Duration::ZERO;
        while at < length {
            // Whoever is late catches up: a pause of the machine is the same for all.
            thread::sleep(at.saturating_sub(start.elapsed()));
            self.batch(at, at >= WARM_UP);
            at += step;
        }
    }

    fn batch(&mut self, at: Duration, counts: bool) {
        let uses: Vec<Use> = (0..BATCH).map(|_| self.trace.next()).collect();
        let mut commands = String::new();
        for item in &uses {
            let key = item.key();
            commands += &match item {
                Use::Logout(_) => format!("md {key}\r\n"),
                Use::Scan(_) => format!("mg {key} s\r\n"),
                // A read that renews; it tells the size instead of the value.
                Use::Read(_) | Use::Save(_) => format!("mg {key} s T{TTL_S}\r\n"),
            };
        }
        let mut hits = Vec::with_capacity(BATCH);
        self.server.exchange(commands.as_bytes(), BATCH, |line| hits.push(line.starts_with("HD")));
        let mut to_store = Vec::new();
        for (item, &is_hit) in uses.iter().zip(&hits) {
            match *item {
                Use::Logout(id) => self.unbounded.ends(id),
                Use::Scan(_) => to_store.push(*item),
                Use::Read(id) | Use::Save(id) => {
                    let is_possible = self.unbounded.uses(id, at);
                    if counts {
                        self.found.reads += 1;
                        self.found.hits += u64::from(is_hit);
                        self.found.possible += u64::from(is_possible);
                    }
                    if !is_hit || matches!(item, Use::Save(_)) {
                        to_store.push(*item);
                    }
                }
            }
        }
        self.store(&to_store);
    }

    fn store(&mut self, uses: &[Use]) {
        let mut commands = Vec::new();
        for item in uses {
            let len = item.len();
            commands.extend(format!("set {} 0 {TTL_S} {len}\r\n", item.key()).bytes());
            commands.extend_from_slice(&self.noise[..len]);
            commands.extend_from_slice(b"\r\n");
        }
        self.server.exchange(&commands, uses.len(), |line| assert_eq!(line, "STORED"));
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    if !env::args().any(|argument| argument == "--bench") {
        println!("hitratio measures only under `cargo bench --bench hitratio`");
        return;
    }
    let seed = number("HITRATIO_SEED", 1);
    let length = WARM_UP + Duration::from_secs(number("HITRATIO_SECONDS", 15));
    println!("-m {LIMIT_MIB}, seed {seed}, {PACE} uses a second, {} s each", length.as_secs());
    println!("| trace | segmented | server | reads | found | without bounds | items | evictions |");
    println!("|---|---|---|---:|---:|---:|---:|---:|");
    for shape in SHAPES {
        for (segmented, options) in MODES {
            for program in PROGRAMS {
                let mut replay = Replay::new(program, options, shape, seed);
                replay.run(length);
                let Found { reads, hits, possible } = replay.found;
                let percent = |count: u64| count as f64 * 100.0 / reads as f64;
                println!(
                    "| {} | {segmented} | {} | {reads} | {:.2} % | {:.2} % | {} | {} |",
                    shape.name,
                    program.name(),
                    percent(hits),
                    percent(possible),
                    replay.server.statistic("curr_items"),
                    replay.server.statistic("evictions"),
                );
            }
        }
    }
    shift::compare();
}
