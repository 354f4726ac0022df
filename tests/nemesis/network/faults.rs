//! What may go wrong in a network, with memory and with a disk, and how it is brought about.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::super::connection::{Came, Connection};
use super::super::episode::{Episode, last, wait};
use super::super::history::Command;
use super::super::history::wire::Form;
use super::group::Group;
use super::held::Lateness;
use super::wires::{Plug, Way};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One node is cut off from all others.
    CutNode,
    /// As many as may be: two of five.
    CutMinority,
    /// What one node says does not reach the others, or the other way round, or one does not hear
    /// one other.
    CutOneWay,
    /// Two nodes do not reach each other; both reach the rest.
    CutLink,
    /// One node reaches one other only, and that one reaches all.
    CutAllButOne,
    /// All that goes between one node and the others is answered with a reset, as if its process
    /// were dead.
    Refuse,
    /// The same in one direction.
    RefuseOneWay,
    /// Silence, and then resets.
    CutThenRefuse,
    /// A node is killed and started again while all it hears of the others is resets.
    RestartRefused,
    /// Everything between the nodes is late.
    Delay,
    /// Packets overtake others.
    Reorder,
    /// Packets are lost, on all wires.
    Loss,
    /// One node has a slow wire.
    SlowLink,
    /// One node's wire is pulled out and put back, again and again.
    LinkFlap,
    /// One node loses its address and gets it back, again and again.
    AddressFlap,
    /// More is stored than memory takes, while one node is cut off.
    MemoryFull,
    /// A node cannot write its state, while views change.
    DiskFull,
}

pub(crate) const ALL: &[Kind] = &[
    Kind::CutNode,
    Kind::CutMinority,
    Kind::CutOneWay,
    Kind::CutLink,
    Kind::CutAllButOne,
    Kind::Refuse,
    Kind::RefuseOneWay,
    Kind::CutThenRefuse,
    Kind::RestartRefused,
    Kind::Delay,
    Kind::Reorder,
    Kind::Loss,
    Kind::SlowLink,
    Kind::LinkFlap,
    Kind::AddressFlap,
    Kind::MemoryFull,
    Kind::DiskFull,
];

impl Kind {
    /// Whether it is something else than another in a group of this size.
    pub(crate) fn is_for(self, nodes: usize) -> bool {
        !matches!(self, Self::CutMinority | Self::CutAllButOne) || minority(nodes) > 1
    }
}

fn minority(nodes: usize) -> usize {
    (nodes - 1) / 2
}

/// A fault, and the nodes that are none of those that go on together.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) kind: Kind,
    pub(crate) outside: Vec<usize>,
}

/// Values that fill memory: an item each of a few pages' width.
const FILLER_BYTES: usize = 8 << 10;
/// Whoever waits longer for one of them tries another node.
const FILLER_PATIENCE: Duration = Duration::from_millis(500);

/// How the faults of a round are brought about.
pub(crate) struct Nemesis<'a> {
    pub(crate) group: &'a mut Group,
    pub(crate) rng: &'a mut StdRng,
    /// No single fault lasts longer.
    pub(crate) longest: Duration,
    pub(crate) now_us: &'a dyn Fn() -> u64,
}

impl Nemesis<'_> {
    /// Brings a fault about, ends it, and waits until the group is whole.
    pub(crate) fn bring(&mut self, kind: Kind) -> Result<Episode<Hit>, String> {
        let when = |when: &str, why: String| format!("{when} {kind:?}: {why}");
        self.group.processes.wait_until_whole().map_err(|why| when("before", why))?;
        let from_us = (self.now_us)();
        let outside = self.shake(kind).map_err(|why| when("during", why))?;
        self.group.wires.heal()?;
        self.group.processes.wait_until_whole().map_err(|why| when("after", why))?;
        let to_us = (self.now_us)();
        Ok(Episode { kind: Hit { kind, outside }, from_us, to_us, lost_us: None })
    }

    /// Returns who was outside.
    fn shake(&mut self, kind: Kind) -> Result<Vec<usize>, String> {
        let order = self.order();
        let all = order.clone();
        let (a, others) = (order[0], &order[1..]);
        let one = Duration::from_millis(500);
        match kind {
            Kind::CutNode => self.cut_off(&[a], others)?,
            Kind::CutMinority => {
                let (few, many) = order.split_at(minority(order.len()));
                self.cut_off(few, many)?;
                return Ok(few.into());
            }
            Kind::CutOneWay => self.cut_one_way(a, others)?,
            Kind::CutLink => {
                self.group.wires.between(&[a], &others[..1], Way::Dropped)?;
                last(self.rng, one, self.longest);
                // Each of them reaches all others, and is served through them.
                return Ok(Vec::new());
            }
            Kind::CutAllButOne => {
                self.group.wires.between(&[a], &others[1..], Way::Dropped)?;
                last(self.rng, one, self.longest);
                return Ok(Vec::new());
            }
            Kind::Refuse => {
                self.group.wires.between(&[a], others, Way::Refused)?;
                last(self.rng, one, self.longest);
            }
            Kind::RefuseOneWay => {
                match self.rng.random_bool(0.5) {
                    true => self.group.wires.set(&[a], others, Way::Refused)?,
                    false => self.group.wires.set(others, &[a], Way::Refused)?,
                }
                last(self.rng, one, self.longest);
            }
            Kind::CutThenRefuse => {
                self.group.wires.between(&[a], others, Way::Dropped)?;
                wait(self.rng, 100..2500);
                self.group.wires.between(&[a], others, Way::Refused)?;
                last(self.rng, one, self.longest);
            }
            Kind::RestartRefused => {
                self.group.wires.between(&[a], others, Way::Refused)?;
                wait(self.rng, 0..1500);
                self.group.processes.kill(&[a]);
                wait(self.rng, 0..500);
                self.group.spawn(a)?;
                // Longer than a last survivor waits, and than a first start waits for others.
                last(self.rng, Duration::from_millis(2500), self.longest);
            }
            Kind::Delay => {
                let least = Duration::from_millis(self.rng.random_range(5..60));
                let most = least + Duration::from_millis(self.rng.random_range(1..60));
                self.hold(&all, Lateness::Steady(least, most))?;
                return Ok(Vec::new());
            }
            Kind::Reorder => {
                let most = Duration::from_millis(self.rng.random_range(5..50));
                self.hold(&all, Lateness::Shuffled(most))?;
                return Ok(Vec::new());
            }
            Kind::Loss => {
                let part = self.rng.random_range(10..100);
                self.group.wires.between(&all, &all, Way::Lossy(part))?;
                last(self.rng, one, self.longest);
                return Ok(Vec::new());
            }
            Kind::SlowLink => {
                self.group.wires.slow(a, self.rng.random_range(200..1500))?;
                last(self.rng, one, self.longest);
                self.group.wires.unslow(a)?;
                return Ok(Vec::new());
            }
            Kind::LinkFlap => {
                for _ in 0..self.rng.random_range(2..5) {
                    self.group.wires.plug(a, Plug::Out)?;
                    wait(self.rng, 50..1500);
                    self.group.wires.plug(a, Plug::In)?;
                    wait(self.rng, 50..1000);
                }
            }
            Kind::AddressFlap => {
                for _ in 0..self.rng.random_range(2..5) {
                    self.group.wires.name(a, Plug::Out)?;
                    wait(self.rng, 50..1500);
                    self.group.wires.name(a, Plug::In)?;
                    wait(self.rng, 50..1000);
                }
            }
            Kind::MemoryFull => self.fill_memory(a, others)?,
            Kind::DiskFull => return self.fill_disk(a, others),
        }
        Ok(vec![a])
    }

    fn cut_off(&mut self, few: &[usize], many: &[usize]) -> Result<(), String> {
        self.group.wires.between(few, many, Way::Dropped)?;
        last(self.rng, Duration::from_millis(500), self.longest);
        Ok(())
    }

    fn cut_one_way(&mut self, a: usize, others: &[usize]) -> Result<(), String> {
        match self.rng.random_range(0..3) {
            0 => self.group.wires.set(&[a], others, Way::Dropped)?,
            1 => self.group.wires.set(others, &[a], Way::Dropped)?,
            _ => self.group.wires.set(&[a], &others[..1], Way::Dropped)?,
        }
        last(self.rng, Duration::from_millis(500), self.longest);
        Ok(())
    }

    fn hold(&mut self, nodes: &[usize], lateness: Lateness) -> Result<(), String> {
        let seed = self.rng.random();
        self.group.wires.hold(nodes, lateness, seed)?;
        last(self.rng, Duration::from_millis(500), self.longest);
        Ok(())
    }

    /// Somebody stores more than there is room for, before, during and after a cut.
    fn fill_memory(&mut self, a: usize, others: &[usize]) -> Result<(), String> {
        let evicted = evictions(self.group)?;
        let addresses = self.group.processes.addresses().to_vec();
        let deadline = Instant::now() + self.longest + Duration::from_secs(2);
        let filled = thread::scope(|scope| {
            let fill = scope.spawn(|| {
                let mut number = 0;
                while Instant::now() < deadline {
                    let address = addresses[number % addresses.len()];
                    let Ok(mut connection) = Connection::open(address, FILLER_PATIENCE) else {
                        number += 1;
                        continue;
                    };
                    loop {
                        number += 1;
                        let value = vec![b'f'; FILLER_BYTES].into();
                        let key = format!("filler{number}");
                        let came = connection.ask(&Command::Set(value), &key, Form::Classic);
                        if !matches!(came, Ok(Came::Reply(_))) || Instant::now() > deadline {
                            break;
                        }
                    }
                }
            });
            sleep(Duration::from_secs(1));
            let cut = self.cut_off(&[a], others).and_then(|()| self.group.wires.heal());
            fill.join().expect("it does not panic");
            cut
        });
        filled?;
        match evictions(self.group)? > evicted {
            true => Ok(()),
            false => Err("nothing had to be evicted".into()),
        }
    }

    /// A full disk alone changes nothing until there is something to write: so views change. With
    /// three nodes, the other two have to be there, or nobody can agree on anything.
    fn fill_disk(&mut self, a: usize, others: &[usize]) -> Result<Vec<usize>, String> {
        let cut = if others.len() > 2 { others[0] } else { a };
        self.group.fill_disk(a)?;
        wait(self.rng, 0..500);
        let rest: Vec<usize> = (0..self.group.shape.nodes).filter(|&node| node != cut).collect();
        self.cut_off(&[cut], &rest)?;
        self.group.wires.heal()?;
        last(self.rng, Duration::from_millis(500), self.longest);
        self.group.empty_disk(a)?;
        Ok(vec![cut])
    }

    fn order(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.group.shape.nodes).collect();
        nodes.shuffle(self.rng);
        nodes
    }
}

/// Items that all nodes have given up for lack of memory.
fn evictions(group: &Group) -> Result<u64, String> {
    (0..group.shape.nodes).try_fold(0, |sum, node| {
        let lines = group.processes.stats(node, "stats\r\n")?;
        let count = lines.iter().find_map(|line| line.strip_prefix("evictions "));
        let count: Option<u64> = count.and_then(|count| count.parse().ok());
        Ok(sum + count.ok_or_else(|| format!("n{} does not tell its evictions", node + 1))?)
    })
}
