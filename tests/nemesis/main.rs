//! Three real processes, clients that note all they see, and faults from a seed.
//!
//! `cargo test --test nemesis` brings each fault once, for short, and kills some nodes.
//! `make nemesis` does more:
//!
//! ```text
//! ROUNDS=n    so many groups, each with faults of its own
//! SECONDS=n   each of them for at least so long
//! SEED=n      the faults and commands of one seed; when they meet is up to the machine
//! FAULTS=a,b  only these, by name, as in FAULTS=CutLink,Pause
//! LONGEST=n   no fault lasts longer than so many seconds; 30, or 1.5 in the short form
//! READS=alone  each read is judged alone, to see whether a failure is about reads only
//! KEEP=1      logs and histories stay below target/tmp, whatever they show
//! KILLS=n     the campaign of kills instead
//! ```
//!
//! It knows the server from outside only: the command line, memcached's protocol, signals, and
//! what goes over the wires between nodes.

#[path = "../history/mod.rs"]
mod history;

mod client;
mod connection;
mod deletes;
mod faults;
mod group;
mod judge;
mod kills;
mod proxy;
mod stopped;

use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use client::{Client, Habit, Notes, Playground, read_all};
use faults::{ALL, Episode, Kind, Nemesis, shuffled};
use group::{Group, Links, NODES, wait_until};
use history::{History, Operation, Reads};
use judge::Report;

/// Clients that do everything; the first three are each pinned to one node.
const CLIENTS: u32 = 6;
/// No single fault lasts longer in the short form,
const LONGEST_SHORT: Duration = Duration::from_millis(1500);
/// and in the long one.
const LONGEST: Duration = Duration::from_secs(30);
/// Copies are equal by then, with what was still on its way.
const REST_WAIT: Duration = Duration::from_secs(15);

/// One group at a time, or the stalls of one would be those of another.
static MACHINE: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Plan {
    rounds: u64,
    least: Duration,
    seed: u64,
    kinds: Vec<Kind>,
    longest: Duration,
    reads: Reads,
}

impl Plan {
    fn from_environment() -> Self {
        let (rounds, seconds) = (number("ROUNDS"), number("SECONDS"));
        let is_long = rounds.is_some() || seconds.is_some();
        let longest = if is_long { LONGEST } else { LONGEST_SHORT };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let fresh = now.map_or(1, |since| since.as_secs());
        Self {
            rounds: rounds.unwrap_or(1),
            least: Duration::from_secs(seconds.unwrap_or(0)),
            seed: number("SEED").unwrap_or(if is_long { fresh } else { 1 }),
            kinds: kinds(),
            longest: number("LONGEST").map_or(longest, Duration::from_secs),
            reads: match std::env::var("READS").as_deref() {
                Ok("alone") => Reads::EachAlone,
                _ => Reads::Linearizable,
            },
        }
    }
}

fn kinds() -> Vec<Kind> {
    match std::env::var("FAULTS").as_deref() {
        Err(_) | Ok("all") => ALL.to_vec(),
        Ok(names) => {
            let is_named = |kind: &Kind| names.split(',').any(|name| name == format!("{kind:?}"));
            let kinds: Vec<Kind> = ALL.iter().copied().filter(is_named).collect();
            assert!(!kinds.is_empty(), "FAULTS={names}: none of {ALL:?}");
            kinds
        }
    }
}

#[test]
fn promises_hold_under_faults() {
    let _machine = MACHINE.lock();
    let plan = Plan::from_environment();
    let mut report = Report::default();
    for round in 0..plan.rounds {
        let seed = plan.seed + round;
        if let Err(why) = run(seed, &plan, &mut report) {
            let kinds: Vec<String> = plan.kinds.iter().map(|kind| format!("{kind:?}")).collect();
            panic!(
                "seed {seed}: {why}\n\n{}\ntry it again with: make nemesis SEED={seed} FAULTS={}",
                report.table(),
                kinds.join(",")
            );
        }
    }
    println!("seeds from {}\n{}", plan.seed, report.table());
    // What never ran was not tested.
    report.is_complete(&plan.kinds).expect("everything was tested");
}

#[test]
fn promises_hold_for_what_was_deleted_before_a_stop() {
    let _machine = MACHINE.lock();
    let plan = Plan::from_environment();
    match deletes::stops(plan.longest, plan.seed) {
        Ok(told) => println!("{told}"),
        Err(why) => panic!("seed {}: {why}", plan.seed),
    }
}

#[test]
fn a_killed_node_takes_nothing_that_was_confirmed_with_it() {
    let _machine = MACHINE.lock();
    let kills = number("KILLS").unwrap_or(5);
    let seed = number("SEED").unwrap_or(1);
    match kills::campaign(kills, seed) {
        Ok(table) => println!("{table}"),
        Err(why) => panic!("seed {seed}: {why}"),
    }
}

/// One group, from its start to its rest.
#[allow(clippy::print_stdout, reason = "says where logs are that were asked for")]
fn run(seed: u64, plan: &Plan, report: &mut Report) -> Result<(), String> {
    let mut group = Group::start(Links::Proxied)?;
    let playground = Playground::new(group.addresses());
    let mut episodes = Vec::new();
    let (shaken, notes) = thread::scope(|scope| {
        let open = playground.open();
        let clients: Vec<_> = habits()
            .map(|habit| Client::new(&playground, habit, seed))
            .map(|client| scope.spawn(move || client.run()))
            .collect();
        let shaken = shake(&mut group, &playground, seed, plan, &mut episodes);
        drop(open);
        let notes = clients.into_iter().map(|client| client.join().expect("a client ends well"));
        (shaken, notes.collect::<Vec<Notes>>())
    });
    report.note(&episodes, &notes);
    let mut history = History::default();
    for (from, to) in episodes.iter().filter_map(|episode| episode.lost_us) {
        history.lost(from, to);
    }
    for operation in notes.into_iter().flat_map(|notes| notes.operations) {
        history.push(operation);
    }
    let rested = match shaken {
        Ok(()) => rest(&playground, &mut history),
        Err(why) => Err(why),
    };
    // Even if the group is not whole: what clients have seen may tell why.
    let judged = report.judge(&history, plan.reads, &episodes);
    let bad: Vec<String> = [judged.err(), rested.err()].into_iter().flatten().collect();
    if bad.is_empty() && number("KEEP").is_none() {
        return Ok(());
    }
    let folder = group.keep();
    let kept = format!("logs and history are in {}", folder.display());
    // Without it there is still the reason.
    let _ = std::fs::write(folder.join("history.txt"), told(&history, &episodes));
    if bad.is_empty() {
        println!("{kept}");
        return Ok(());
    }
    Err(format!("{}\n{kept}", bad.join("\n")))
}

/// Some with and some without a node of their own, and on each node one that only reads: so a
/// stall of writes is not one of reads.
fn habits() -> impl Iterator<Item = Habit> {
    (0..CLIENTS + NODES as u32).map(|number| {
        let only_reads = number >= CLIENTS;
        let pinned = (number < NODES as u32 || only_reads).then_some(number as usize % NODES);
        Habit { number, pinned, only_reads }
    })
}

/// All kinds of faults, one after the other, and again until the time is over.
fn shake(
    group: &mut Group,
    playground: &Playground,
    seed: u64,
    plan: &Plan,
    episodes: &mut Vec<Episode>,
) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let now_us = || playground.clock.now_us();
    loop {
        for kind in shuffled(&plan.kinds, &mut rng) {
            // In between, clients work undisturbed.
            sleep(Duration::from_millis(rng.random_range(200..1000)));
            let mut nemesis =
                Nemesis { group, rng: &mut rng, longest: plan.longest, now_us: &now_us };
            episodes.push(nemesis.bring(kind)?);
        }
        if started.elapsed() >= plan.least {
            sleep(Duration::from_millis(300));
            return Ok(());
        }
    }
}

/// At rest all nodes hold the same, and that is read into the history.
fn rest(playground: &Playground, history: &mut History) -> Result<(), String> {
    let keys: Vec<String> = history.by_key().keys().map(|&key| key.into()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut last = Vec::new();
    let rested = wait_until("all nodes hold the same", REST_WAIT, || {
        let copies: Vec<Vec<Operation>> =
            (0..NODES).map(|node| read_all(playground, &keys, node)).collect::<Result<_, _>>()?;
        let differ = (0..keys.len())
            .find(|&key| copies.iter().any(|copy| copy[key].reply() != copies[0][key].reply()));
        let told = differ.map(|key| {
            let lines: Vec<String> = copies.iter().map(|copy| copy[key].to_string()).collect();
            format!("they differ:\n  {}", lines.join("\n  "))
        });
        last = copies;
        told.map_or(Ok(()), Err)
    });
    for operation in last.into_iter().flatten() {
        history.push(operation);
    }
    rested
}

/// The whole history, for a file.
fn told(history: &History, episodes: &[Episode]) -> String {
    let mut lines: Vec<(u64, String)> = episodes
        .iter()
        .map(|episode| (episode.from_us, format!("--- {episode:?}")))
        .chain(
            history.operations.iter().map(|operation| (operation.invoked, operation.to_string())),
        )
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line + "\n").collect()
}
