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

#[path = "../e2e/certs.rs"]
mod certs;
mod client;
mod connection;
mod deletes;
mod effects;
mod episode;
mod faults;
mod group;
mod judge;
mod kills;
mod network;
mod processes;
mod proxy;
mod round;
mod stalls;
mod stopped;

use std::fmt::Debug;
use std::io::Write;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;

use client::{Playground, Work};
use effects::Effects;
use episode::{Episode, wait};
use faults::{ALL, Kind, Nemesis, shuffled};
use group::{Group, Links};
use history::{History, Reads};
use judge::Report;
use processes::Processes;
use round::{Rules, Seen, Shaken};

/// No single fault lasts longer in the short form,
const LONGEST_SHORT: Duration = Duration::from_millis(1500);
/// and in the long one.
const LONGEST: Duration = Duration::from_secs(30);
/// The same for faults of a network.
const LONGEST_ON_NETWORK: Duration = Duration::from_secs(8);
/// What `cargo test` brings to a network: silence, and refusals by a firewall.
const NETWORK_SHORT: &[network::Kind] = &[network::Kind::CutNode, network::Kind::Refuse];

/// One group at a time, or the stalls of one would be those of another.
static MACHINE: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Plan<K> {
    rounds: u64,
    least: Duration,
    seed: u64,
    kinds: Vec<K>,
    longest: Duration,
    reads: Reads,
}

impl<K: Copy + Debug> Plan<K> {
    fn from_environment(all: &[K]) -> Self {
        let (rounds, seconds) = (number("ROUNDS"), number("SECONDS"));
        let is_long = rounds.is_some() || seconds.is_some();
        let longest = if is_long { LONGEST } else { LONGEST_SHORT };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let fresh = now.map_or(1, |since| since.as_secs());
        Self {
            rounds: rounds.unwrap_or(1),
            least: Duration::from_secs(seconds.unwrap_or(0)),
            seed: number("SEED").unwrap_or(if is_long { fresh } else { 1 }),
            kinds: named(all),
            longest: number("LONGEST").map_or(longest, Duration::from_secs),
            reads: match std::env::var("READS").as_deref() {
                Ok("alone") => Reads::EachAlone,
                _ => Reads::Linearizable,
            },
        }
    }

    fn rules(&self) -> Rules {
        Rules { reads: self.reads, beside: &[Work::Reads], is_kept: number("KEEP").is_some() }
    }
}

/// Those of all that FAULTS names.
fn named<K: Copy + Debug>(all: &[K]) -> Vec<K> {
    match std::env::var("FAULTS").as_deref() {
        Err(_) | Ok("all") => all.to_vec(),
        Ok(names) => {
            let is_named = |kind: &K| names.split(',').any(|name| name == format!("{kind:?}"));
            let kinds: Vec<K> = all.iter().copied().filter(is_named).collect();
            assert!(!kinds.is_empty(), "FAULTS={names}: none of {all:?}");
            kinds
        }
    }
}

#[test]
fn promises_hold_under_faults() {
    let _machine = MACHINE.lock();
    let plan = Plan::from_environment(ALL);
    let (mut report, mut effects) = (Report::default(), Effects::default());
    for round in 0..plan.rounds {
        let seed = plan.seed + round;
        if let Err(why) = run(seed, &plan, &mut report, &mut effects) {
            let kinds: Vec<String> = plan.kinds.iter().map(|kind| format!("{kind:?}")).collect();
            panic!(
                "seed {seed}: {why}\n\n{}{}\ntry it again with: make nemesis SEED={seed} FAULTS={}",
                effects.table(),
                report.summary(),
                kinds.join(",")
            );
        }
    }
    println!("seeds from {}\n{}{}", plan.seed, effects.table(), report.summary());
    // What never ran was not tested.
    effects.hold_all(&plan.kinds).expect("every fault came");
    report.is_complete().expect("everything was tested");
}

#[test]
fn promises_hold_for_what_was_deleted_before_a_stop() {
    let _machine = MACHINE.lock();
    let plan = Plan::from_environment(ALL);
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

#[test]
fn a_network_breaks_no_promise() {
    let _machine = MACHINE.lock();
    if let Err(why) = network::is_permitted() {
        // Seen without --nocapture too.
        let skipped = writeln!(std::io::stderr(), "SKIPPED: faults of a network: {why}");
        return skipped.expect("stderr can be written to");
    }
    let is_long = number("ROUNDS").is_some();
    let plan = Plan::from_environment(if is_long { network::ALL } else { NETWORK_SHORT });
    let longest = if is_long { LONGEST_ON_NETWORK } else { LONGEST_SHORT };
    let plan = network::Plan {
        rules: Rules { beside: &[Work::Reads, Work::SettledReads], ..plan.rules() },
        rounds: plan.rounds,
        seed: plan.seed,
        sizes: match number("NODES") {
            Some(nodes) => vec![nodes as usize],
            None if is_long => vec![3, 5],
            None => vec![3],
        },
        kinds: plan.kinds,
        longest: number("LONGEST").map_or(longest, Duration::from_secs),
    };
    match network::run(&plan) {
        Ok(told) => println!("{told}"),
        Err(why) => panic!("{why}"),
    }
}

fn run(
    seed: u64,
    plan: &Plan<Kind>,
    report: &mut Report,
    effects: &mut Effects,
) -> Result<(), String> {
    let mut shaken = Round { group: Group::start(Links::Proxied)?, seed, plan };
    round::run(&mut shaken, seed, &plan.rules(), report, |Seen { episodes, notes }| {
        effects.note(episodes, notes);
    })
}

/// One group, and what is brought upon it.
struct Round<'a> {
    group: Group,
    seed: u64,
    plan: &'a Plan<Kind>,
}

impl Shaken for Round<'_> {
    type Kind = Kind;

    fn processes(&mut self) -> &mut Processes {
        &mut self.group.processes
    }

    /// All kinds of faults, one after the other, and again until the time is over.
    fn shake(
        &mut self,
        playground: &Playground,
        episodes: &mut Vec<Episode<Kind>>,
    ) -> Result<(), String> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let started = Instant::now();
        let now_us = || playground.clock.now_us();
        loop {
            for kind in shuffled(&self.plan.kinds, &mut rng) {
                wait(&mut rng, 200..1000);
                let (group, longest) = (&mut self.group, self.plan.longest);
                let mut nemesis = Nemesis { group, rng: &mut rng, longest, now_us: &now_us };
                episodes.push(nemesis.bring(kind)?);
            }
            if started.elapsed() >= self.plan.least {
                sleep(Duration::from_millis(300));
                return Ok(());
            }
        }
    }

    fn amend(&self, _: &mut History) {}
}
