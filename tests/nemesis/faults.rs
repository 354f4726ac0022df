//! What may go wrong, and how it is brought about: one fault after the other, from a seed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::connection::{Came, Connection};
use super::episode::{Episode, last, wait};
use super::group::{Group, NODES, WORKERS};
use super::history::wire::Form;
use super::history::{Command, Reply};
use super::proxy::Way;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `kill -9` of one node.
    KillOne,
    /// Of two at once.
    KillTwo,
    /// Of one, and of another before the first is back.
    KillInTurn,
    /// Of all: what was stored is lost, and that is all.
    KillAll,
    /// One node again and again, whether or not it is back.
    RestartLoop,
    /// SIGTERM of one node, then a start.
    Terminate,
    /// SIGSTOP and SIGCONT, before anybody suspects anything.
    Hiccup,
    /// The same for longer.
    Pause,
    /// The same for two nodes, one of which goes on before the other.
    PauseTwo,
    /// One of a node's workers stands still, with whatever lock it has, while its beats go on.
    PauseWorker,
    /// What nodes say to each other is late.
    Late,
    /// One node takes what others send only slowly.
    Stall,
    /// Connections between two nodes break, and come about again.
    Reset,
    /// One node is cut off from both others.
    CutNode,
    /// What one node says does not reach the others, or the other way round.
    CutOneWay,
    /// Two nodes do not reach each other; both reach the third.
    CutLink,
    /// Nobody reaches anybody.
    CutAll,
}

/// All of them, each of which the promises survive.
pub(crate) const ALL: &[Kind] = &[
    Kind::KillOne,
    Kind::KillTwo,
    Kind::KillInTurn,
    Kind::KillAll,
    Kind::RestartLoop,
    Kind::Terminate,
    Kind::Hiccup,
    Kind::Pause,
    Kind::PauseTwo,
    Kind::PauseWorker,
    Kind::Late,
    Kind::Stall,
    Kind::Reset,
    Kind::CutNode,
    Kind::CutOneWay,
    Kind::CutLink,
    Kind::CutAll,
];

/// A last survivor serves by then. Deaths are proven within milliseconds; the rest is for a busy
/// machine.
const ALONE_WAIT: Duration = Duration::from_secs(10);

/// The order in which these kinds come, each once.
pub(crate) fn shuffled(kinds: &[Kind], rng: &mut StdRng) -> Vec<Kind> {
    let mut kinds = kinds.to_vec();
    kinds.shuffle(rng);
    kinds
}

/// How the faults of a run are brought about.
pub(crate) struct Nemesis<'a> {
    pub(crate) group: &'a mut Group,
    pub(crate) rng: &'a mut StdRng,
    /// No single fault lasts longer.
    pub(crate) longest: Duration,
    pub(crate) now_us: &'a dyn Fn() -> u64,
}

impl Nemesis<'_> {
    /// Brings a fault about, ends it, and waits until the group is whole.
    pub(crate) fn bring(&mut self, kind: Kind) -> Result<Episode<Kind>, String> {
        // The fault before may have had one more node left out when it was over already. The death
        // of both others would then be that of all members, and take everything with it.
        self.group.processes.wait_until_whole().map_err(|why| format!("before {kind:?}: {why}"))?;
        let from_us = (self.now_us)();
        let lost_us = self.shake(kind)?;
        self.group.network.heal();
        self.group.processes.wait_until_whole().map_err(|why| format!("after {kind:?}: {why}"))?;
        Ok(Episode { kind, from_us, to_us: (self.now_us)(), lost_us })
    }

    fn shake(&mut self, kind: Kind) -> Result<Option<(u64, u64)>, String> {
        let [a, b, c] = self.order();
        match kind {
            Kind::KillOne => {
                self.group.kill(a);
                wait(self.rng, 0..1500);
                self.group.spawn(a)?;
            }
            Kind::KillTwo => {
                self.group.kill_all(&[a, b]);
                wait(self.rng, 0..1500);
                self.serves_alone(c)?;
                self.bring_back(a, b)?;
            }
            Kind::KillInTurn => {
                self.group.kill(a);
                wait(self.rng, 0..600);
                self.group.kill(b);
                wait(self.rng, 0..1000);
                self.serves_alone(c)?;
                self.bring_back(b, a)?;
            }
            Kind::KillAll => return self.kill_all().map(Some),
            Kind::RestartLoop => self.restart_in_a_loop(a)?,
            Kind::Terminate => {
                self.group.terminate(a)?;
                wait(self.rng, 0..1000);
                self.group.spawn(a)?;
            }
            Kind::Hiccup => {
                self.group.processes.stop(a);
                wait(self.rng, 100..800);
                self.group.processes.go_on(a);
            }
            Kind::Pause => {
                self.group.processes.stop(a);
                last(self.rng, Duration::from_millis(1500), self.longest);
                self.group.processes.go_on(a);
            }
            Kind::PauseTwo => {
                self.group.processes.stop(a);
                self.group.processes.stop(b);
                last(self.rng, Duration::from_millis(1000), self.longest);
                self.group.processes.go_on(a);
                wait(self.rng, 0..1000);
                self.group.processes.go_on(b);
            }
            Kind::PauseWorker => {
                let worker = self.group.stop_worker(a, self.rng.random_range(0..WORKERS))?;
                last(self.rng, Duration::from_millis(500), self.longest);
                drop(worker);
            }
            Kind::Late => {
                let delay_ms = self.rng.random_range(5..200);
                self.between(a, &[b, c], Way::Late(Duration::from_millis(delay_ms)));
                last(self.rng, Duration::from_millis(500), self.longest);
            }
            Kind::Stall => {
                self.group.network.set(b, a, Way::Trickle);
                self.group.network.set(c, a, Way::Trickle);
                last(self.rng, Duration::from_millis(500), self.longest);
            }
            Kind::Reset => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.group.network.reset(a, b);
                    wait(self.rng, 0..500);
                }
            }
            Kind::CutNode => {
                self.between(a, &[b, c], Way::Cut);
                last(self.rng, Duration::from_millis(500), self.longest);
            }
            Kind::CutOneWay => self.cut_one_way(a, b, c),
            Kind::CutLink => {
                self.between(a, &[b], Way::Cut);
                last(self.rng, Duration::from_millis(500), self.longest);
            }
            Kind::CutAll => {
                self.between(a, &[b, c], Way::Cut);
                self.between(b, &[c], Way::Cut);
                last(self.rng, Duration::from_millis(500), self.longest);
            }
        }
        Ok(None)
    }

    /// The last one, with both others proven dead, takes writes and answers reads.
    fn serves_alone(&self, node: usize) -> Result<(), String> {
        let value = format!("{}", (self.now_us)());
        let asked = [(Command::Set(value.clone().into()), None), (Command::Get, Some(value))];
        for (command, wanted) in asked {
            let failed = |why: String| format!("n{} is left and does not serve: {why}", node + 1);
            let came = Connection::open(self.group.processes.addresses()[node], ALONE_WAIT)
                .and_then(|mut connection| connection.ask(&command, "left", Form::Classic))
                .map_err(|error| failed(error.to_string()))?;
            match (came, wanted) {
                (Came::Reply(Reply::Done { .. }), None) => {}
                (Came::Reply(Reply::Hit { value, .. }), Some(wanted))
                    if value[..] == *wanted.as_bytes() => {}
                (Came::Reply(reply), _) => return Err(failed(format!("it says {reply}"))),
                (Came::Refusal(text), _) => return Err(failed(text)),
            }
        }
        Ok(())
    }

    fn bring_back(&mut self, a: usize, b: usize) -> Result<(), String> {
        self.group.spawn(a)?;
        wait(self.rng, 0..500);
        self.group.spawn(b)
    }

    fn kill_all(&mut self) -> Result<(u64, u64), String> {
        let from_us = (self.now_us)();
        self.group.kill_all(&[0, 1, 2]);
        let to_us = (self.now_us)();
        for node in self.order() {
            wait(self.rng, 0..100);
            self.group.spawn(node)?;
        }
        Ok((from_us, to_us))
    }

    fn restart_in_a_loop(&mut self, node: usize) -> Result<(), String> {
        for _ in 0..self.rng.random_range(3..6) {
            self.group.kill(node);
            wait(self.rng, 0..100);
            self.group.spawn(node)?;
            wait(self.rng, 20..700);
        }
        Ok(())
    }

    /// From one to both, from both to one, or from one to another.
    fn cut_one_way(&mut self, a: usize, b: usize, c: usize) {
        let pairs = match self.rng.random_range(0..3) {
            0 => vec![(a, b), (a, c)],
            1 => vec![(b, a), (c, a)],
            _ => vec![(a, b)],
        };
        for (from, to) in pairs {
            self.group.network.set(from, to, Way::Cut);
        }
        last(self.rng, Duration::from_millis(500), self.longest);
    }

    fn between(&self, a: usize, others: &[usize], way: Way) {
        for &b in others {
            self.group.network.set(a, b, way);
            self.group.network.set(b, a, way);
        }
    }

    fn order(&mut self) -> [usize; NODES] {
        let mut nodes = [0, 1, 2];
        nodes.shuffle(self.rng);
        nodes
    }
}
