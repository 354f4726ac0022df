//! A server full of sessions of one size, and then all new ones are larger: are they taken, and
//! what goes for them?

use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::server::{PROGRAMS, Program, Server};

const LIMIT_MIB: usize = 64;
const SMALL: usize = 2 << 10;
const LARGE: usize = 10 << 10;
/// More small ones than fit.
const SMALL_COUNT: usize = 40_000;
/// A third of the memory.
const LARGE_COUNT: usize = 2_000;
/// The large ones come over five seconds.
const PER_TURN: usize = 20;
const TURN: Duration = Duration::from_millis(50);

fn small(n: usize) -> String {
    format!("small:{n:024}")
}

fn large(n: usize) -> String {
    format!("large:{n:024}")
}

/// Stores a value; returns the replies other than STORED.
fn store(server: &mut Server, keys: impl Iterator<Item = String>, len: usize) -> usize {
    let (mut commands, mut count, mut refused) = (Vec::new(), 0, 0);
    for key in keys {
        commands.extend(format!("set {key} 0 3600 {len}\r\n").bytes());
        commands.resize(commands.len() + len, b'x');
        commands.extend_from_slice(b"\r\n");
        count += 1;
    }
    server.exchange(&commands, count, |line| refused += usize::from(line != "STORED"));
    refused
}

/// How many of these keys are there; asking does not count as a use.
fn present(server: &mut Server, keys: impl Iterator<Item = String>) -> usize {
    let mut present = 0;
    let all: Vec<_> = keys.collect();
    for keys in all.chunks(100) {
        let commands: String = keys.iter().map(|key| format!("me {key}\r\n")).collect();
        server.exchange(commands.as_bytes(), keys.len(), |line| {
            present += usize::from(line.starts_with("ME "));
        });
    }
    present
}

/// Reads small ones in any order, so that neighbours in memory are not alike in age.
fn read(server: &mut Server, rng: &mut StdRng) {
    const COUNT: usize = 100;
    let mut commands = String::new();
    for _ in 0..COUNT {
        commands += &format!("mg {} s\r\n", small(rng.random_range(0..SMALL_COUNT)));
    }
    server.exchange(commands.as_bytes(), COUNT, |_| ());
}

fn measure(program: Program) {
    let mut server = program.start(LIMIT_MIB, &[]);
    let mut rng = StdRng::seed_from_u64(1);
    for first in (0..SMALL_COUNT).step_by(100) {
        store(&mut server, (first..first + 100).map(small), SMALL);
    }
    for _ in 0..1000 {
        read(&mut server, &mut rng);
    }
    thread::sleep(Duration::from_secs(2));
    let before = present(&mut server, (0..SMALL_COUNT).map(small));
    let mut refused = 0;
    for first in (0..LARGE_COUNT).step_by(PER_TURN) {
        refused += store(&mut server, (first..first + PER_TURN).map(large), LARGE);
        thread::sleep(TURN);
    }
    let lost = before - present(&mut server, (0..SMALL_COUNT).map(small));
    let kept = present(&mut server, (0..LARGE_COUNT).map(large));
    println!(
        "| {} | {before} | {LARGE_COUNT} | {refused} | {kept} | {lost} | {:.2} |",
        program.name(),
        lost as f64 / LARGE_COUNT as f64
    );
}

pub(crate) fn compare() {
    println!();
    println!("-m {LIMIT_MIB}, full of values of {SMALL} bytes; then values of {LARGE} bytes");
    println!("| server | 2 KiB before | 10 KiB sent | refused | kept | 2 KiB lost | per 10 KiB |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    PROGRAMS.iter().for_each(|&program| measure(program));
}
