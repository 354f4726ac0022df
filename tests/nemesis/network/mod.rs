//! The same on a network: each node is on a host of its own, with wires that can be cut, flap, lose,
//! delay and reorder packets, or refuse them. All of it is made by the test, of namespaces, and gone
//! with it; nothing of the machine's own network is touched.
//!
//! `cargo test --test nemesis network` brings two faults to three nodes, or says why it cannot.
//! `make nemesis-net` brings all, to three nodes and to five:
//!
//! ```text
//! NODES=n     groups of so many only
//! ROUNDS=n, SEED=n, FAULTS=a,b, LONGEST=n, KEEP=1   as in `make nemesis`
//! ```
//!
//! A step of the wall clock is none of these: a namespace has the machine's. But no two nodes'
//! clocks that count from the start of a machine say the same here.

mod faults;
mod figures;
mod group;
mod held;
mod host;
mod wires;

use std::thread::sleep;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::client::Playground;
use super::episode::{Episode, wait};
use super::history::History;
use super::judge::Report;
use super::processes::Processes;
use super::round::{self, Rules, Seen, Shaken};
pub(crate) use faults::{ALL, Kind};
use faults::{Hit, Nemesis};
use figures::Figures;
use group::{Group, Proof, Shape};

/// So many faults hit one group: the links of one that was left out often are not believed in for
/// up to a minute.
const FAULTS_EACH: usize = 3;
const MEMORY_MIB: usize = 64;
/// Full within a second.
const LITTLE_MEMORY_MIB: usize = 4;

/// What is brought about, and on how many nodes.
pub(crate) struct Plan {
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) sizes: Vec<usize>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) longest: Duration,
    pub(crate) rules: Rules,
}

/// Whether hosts can be had here; the error says what is missing.
pub(crate) fn is_permitted() -> Result<(), String> {
    let look = || {
        host::enter()?;
        let orders = [
            "ip link add look type veth peer name other",
            "nft list tables",
            "tc qdisc show",
            "iptables -w -L",
            "setpriv --pdeathsig KILL unshare --time --boottime 1 --monotonic 1 true",
        ];
        orders.into_iter().try_for_each(host::order)
    };
    // The thread, and with it all that it has entered, ends here.
    std::thread::spawn(look).join().expect("looking does not panic")
}

/// All that is planned; the table, or what is wrong.
pub(crate) fn run(plan: &Plan) -> Result<String, String> {
    let (mut report, mut figures) = (Report::default(), Figures::default());
    let mut wanted = Vec::new();
    for round in 0..plan.rounds {
        let seed = plan.seed + round;
        for &nodes in &plan.sizes {
            let kinds: Vec<Kind> =
                plan.kinds.iter().copied().filter(|kind| kind.is_for(nodes)).collect();
            wanted.extend(kinds.iter().map(|&kind| (kind, nodes)));
            for (number, kinds) in groups(kinds, seed).into_iter().enumerate() {
                let brought = bring(seed, nodes, number, &kinds, plan, &mut report, &mut figures);
                brought.map_err(|why| {
                    let table = figures.table();
                    format!(
                        "seed {seed}, {nodes} nodes, {kinds:?}: {why}\n\n{table}{}\ntry it again \
                         with: make nemesis-net SEED={seed} NODES={nodes} FAULTS={}",
                        report.summary(),
                        kinds.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(",")
                    )
                })?;
            }
        }
    }
    figures.hold_all(&wanted)?;
    report.is_complete().map_err(|why| format!("{why}\n{}", report.summary()))?;
    Ok(format!("seeds from {}\n{}{}", plan.seed, figures.table(), report.summary()))
}

/// Which faults hit the same group. Where memory is short, any item may be gone: this is for a group
/// of its own.
fn groups(mut kinds: Vec<Kind>, seed: u64) -> Vec<Vec<Kind>> {
    kinds.shuffle(&mut StdRng::seed_from_u64(seed));
    let (short, rest): (Vec<Kind>, Vec<Kind>) =
        kinds.into_iter().partition(|&kind| kind == Kind::MemoryFull);
    rest.chunks(FAULTS_EACH).chain(short.chunks(1)).map(Into::into).collect()
}

/// One group, in a thread that becomes a host and ends with it.
#[allow(clippy::print_stdout, reason = "a long run tells how far it is")]
fn bring(
    seed: u64,
    nodes: usize,
    number: usize,
    kinds: &[Kind],
    plan: &Plan,
    report: &mut Report,
    figures: &mut Figures,
) -> Result<(), String> {
    let proof = match (seed as usize + number).is_multiple_of(2) {
        true => Proof::Certificates,
        false => Proof::Secret,
    };
    let is_short = kinds.contains(&Kind::MemoryFull);
    let memory_mib = if is_short { LITTLE_MEMORY_MIB } else { MEMORY_MIB };
    let shape = Shape { nodes, proof, memory_mib };
    println!("seed {seed}, {nodes} nodes, {proof:?}, {memory_mib} MiB: {kinds:?}");
    let round = || {
        let group = Group::start(shape)?;
        let rng = StdRng::seed_from_u64(seed ^ ((number as u64) << 32) ^ ((nodes as u64) << 48));
        let mut shaken = Round { group, rng, kinds, longest: plan.longest };
        round::run(&mut shaken, seed, &plan.rules, report, |Seen { episodes, notes }| {
            figures.note(nodes, episodes, notes);
        })
    };
    std::thread::scope(|scope| scope.spawn(round).join().expect("a round does not panic"))
        .map_err(|why| format!("{shape:?}: {why}"))
}

/// One group, and what is brought upon it.
struct Round<'a> {
    group: Group,
    rng: StdRng,
    kinds: &'a [Kind],
    longest: Duration,
}

impl Shaken for Round<'_> {
    type Kind = Hit;

    fn processes(&mut self) -> &mut Processes {
        &mut self.group.processes
    }

    fn shake(
        &mut self,
        playground: &Playground,
        episodes: &mut Vec<Episode<Hit>>,
    ) -> Result<(), String> {
        let now_us = || playground.clock.now_us();
        for &kind in self.kinds {
            wait(&mut self.rng, 300..1000);
            let (group, rng, longest) = (&mut self.group, &mut self.rng, self.longest);
            episodes.push(Nemesis { group, rng, longest, now_us: &now_us }.bring(kind)?);
        }
        sleep(Duration::from_millis(300));
        Ok(())
    }

    fn amend(&self, history: &mut History) {
        if self.kinds.contains(&Kind::MemoryFull) {
            history.allow_evictions();
        }
    }
}
