//! Nodes are replaced by new lives of theirs, side by side: what a supervisor does, while things go
//! wrong.

use rand::RngExt;
use sessiond::replication::Incarnation;

use super::faults::Fault;
use super::process::Process;
use super::world::{Event, MS, SECOND, World};

impl World {
    /// Some upgrades, and what can go wrong with them alone.
    pub(crate) fn plan_upgrades(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(1500 * MS..5 * SECOND);
            self.at(at, Event::Upgrade);
            if self.rng.random_ratio(1, 4) {
                let soon = self.rng.random_range(MS..1500 * MS);
                self.at(at + soon, Event::Fault(Fault::CrashSuccessor));
            }
        }
    }

    /// Starts a new life of a node beside the present one.
    pub(crate) fn upgrade(&mut self) {
        let is_ready = |slot: &usize| {
            let life = self.life_of(*slot).filter(|life| !self.leaving.contains(life));
            life.is_some() && self.successor_of(*slot).is_none() && self.belongs(*slot)
        };
        let ready: Vec<usize> = (0..self.hosts).filter(is_ready).collect();
        if ready.is_empty() {
            return;
        }
        let slot = ready[self.rng.random_range(0..ready.len())];
        let predecessor = self.life_of(slot);
        self.tell(|| format!("n{slot} is upgraded"));
        // It has not the lock, which alone proves former lives over. But it is in their file: whoever
        // gets the lock when both are over knows of it.
        let life = self.begin(slot, Vec::new(), predecessor);
        self.former[slot].push(life);
        let most = if self.rng.random_ratio(1, 3) { SECOND } else { 4 * SECOND };
        let patience = self.rng.random_range(200 * MS..most);
        self.after(patience, Event::UpgradeEnds(life));
    }

    /// A new life that is a member has its predecessor end, whether it serves already or not: only
    /// then has it a place in the log, where it may be needed to go on.
    pub(crate) fn go_on_upgrading(&mut self, life: Incarnation) {
        let is_member = |process: &&Process| process.node.view().has_member(life);
        let Some(process) = self.alive.get(&life).filter(is_member) else {
            return;
        };
        let predecessor = process.beside.filter(|former| self.alive.contains_key(former));
        if let Some(predecessor) = predecessor {
            self.leaving.insert(predecessor);
        }
    }

    /// A new life that is no member by then is stopped, and its predecessor goes on.
    pub(crate) fn end_upgrade(&mut self, life: Incarnation) {
        let Some(Process { beside: Some(former), node, slot, .. }) = self.alive.get(&life) else {
            return;
        };
        let is_decided = node.view().has_member(life) || self.leaving.contains(former);
        if is_decided || !self.alive.contains_key(former) || !self.may_lose(life) {
            return;
        }
        let slot = *slot;
        self.tell(|| format!("n{slot} is not upgraded"));
        self.summary.upgrades_given_up += 1;
        self.kill(life, false);
    }

    /// The file, the port and the vote of a predecessor that is over.
    pub(crate) fn take_over(&mut self, life: Incarnation) -> Result<(), String> {
        let Some(slot) = self.alive.get(&life).map(|process| process.slot) else {
            return Ok(());
        };
        let others = self.former[slot].iter().copied().filter(|&other| other != life);
        let succeeds: Vec<Incarnation> = others.collect();
        self.silent[slot] = false;
        if let Some(process) = self.alive.get_mut(&life) {
            process.beside = None;
            process.succeeds = succeeds.clone();
        }
        self.tell(|| format!("n{slot}: {life:?} takes over"));
        self.input(life, |node, now, post| node.take_over(&succeeds, now, post))?;
        // It says anew who it is.
        self.connect_all(life);
        Ok(())
    }

    /// A process of a host is over: the one beside it comes into what was its own; of one that was
    /// about to, another is started instead.
    pub(crate) fn note_heir(&mut self, ended: &Process) {
        let slot = ended.slot;
        let next = match (ended.beside, self.successor_of(slot)) {
            (None, Some(successor)) => Event::TakeOver(successor),
            (Some(_), _) if self.life_of(slot).is_none() => Event::Boot(slot),
            _ => return,
        };
        let soon = self.rng.random_range(MS..50 * MS);
        self.after(soon, next);
    }

    pub(crate) fn crash_successor(&mut self) {
        let successors = (0..self.hosts).filter_map(|slot| self.successor_of(slot));
        let successors: Vec<Incarnation> = successors.filter(|&life| self.may_lose(life)).collect();
        if successors.is_empty() {
            return;
        }
        let victim = successors[self.rng.random_range(0..successors.len())];
        self.tell(|| format!("{victim:?} dies beside its predecessor"));
        self.summary.successors_died += 1;
        self.kill(victim, false);
    }

    /// Whether somebody else has all data.
    fn may_lose(&self, life: Incarnation) -> bool {
        self.holders().iter().any(|&holder| holder != life)
    }

    /// One of the processes of a host.
    pub(crate) fn some_life_of(&mut self, slot: usize) -> Option<Incarnation> {
        let (life, successor) = (self.life_of(slot), self.successor_of(slot));
        if successor.is_some() && self.rng.random_bool(0.5) { successor } else { life }
    }

    /// Who lets clients in: of two processes both, once the new one serves.
    pub(crate) fn open_to_clients(&mut self, slot: usize) -> Option<Incarnation> {
        let life = self.life_of(slot);
        let successor = self.successor_of(slot);
        let successor = successor.filter(|life| self.alive[life].node.is_serving());
        match successor {
            Some(_) if life.is_none() || self.rng.random_bool(0.5) => successor,
            _ => life,
        }
    }
}
