//! What operators do meanwhile: they add nodes, remove and replace them.

use rand::RngExt;
use sessiond::replication::{Nodes, NodesChange};

use super::world::{Event, MS, SECOND, World, name, place};

/// Hosts that are there in case they are needed.
pub(crate) const SPARE: usize = 2;
/// Groups are not made smaller than this.
const NODES_MIN: usize = 2;
/// How often an operator looks whether what was asked for has come about.
const LOOK: u64 = 100 * MS;
/// An operator who sees that nobody can agree on anything any more has tried the rest by then.
const RESCUE_AFTER: u64 = SECOND;

impl World {
    /// Some changes, all of them while things go wrong.
    pub(crate) fn plan_changes(&mut self) {
        for _ in 0..self.rng.random_range(1..5) {
            let at = self.rng.random_range(SECOND..6 * SECOND);
            self.at(at, Event::Change);
        }
    }

    /// The nodes of the group, as the newest view has them.
    pub(crate) fn nodes(&self) -> Nodes {
        let agreed = self.logs.newest().map(|view| view.nodes.clone());
        agreed.unwrap_or_else(|| (0..self.seeds).map(|host| (name(host), place(host))).collect())
    }

    /// Whether that host is of the group, or about to be.
    pub(crate) fn belongs(&self, slot: usize) -> bool {
        self.expected[slot] || self.nodes().contains_key(&name(slot))
    }

    pub(crate) fn change(&mut self) -> Result<(), String> {
        let nodes = self.nodes();
        let spare: Vec<usize> =
            (0..self.hosts).filter(|&slot| !nodes.contains_key(&name(slot))).collect();
        let inside: Vec<usize> =
            (0..self.hosts).filter(|&slot| nodes.contains_key(&name(slot))).collect();
        let old = inside[self.rng.random_range(0..inside.len())];
        // A host that was removed and still runs is not taken again.
        let free = spare.iter().copied().find(|&slot| self.life_of(slot).is_none());
        let change = match (free, self.rng.random_range(0..4)) {
            (Some(new), 0 | 1) => NodesChange::Add(name(new), place(new).address),
            (Some(new), 2) => NodesChange::Replace(name(old), name(new), place(new).address),
            (None, 2) => {
                let elsewhere = place(old + 100).address;
                NodesChange::Replace(name(old), name(old), elsewhere)
            }
            _ if inside.len() > NODES_MIN => NodesChange::Remove(name(old)),
            _ => return Ok(()),
        };
        self.ask_for(change, free)
    }

    /// Some node that serves is asked; `free` is the host of one that is new.
    pub(crate) fn ask_for(
        &mut self,
        change: NodesChange,
        free: Option<usize>,
    ) -> Result<(), String> {
        let nodes = self.nodes();
        let new = match &change {
            NodesChange::Add(..) => free,
            NodesChange::Replace(gone, new, _) if gone != new => free,
            _ => None,
        };
        // Never the one that goes: it would not be told when its vote is gone.
        let gone = change.gone();
        let Some(asked) = self.serving(|slot| Some(&*name(slot)) != gone) else { return Ok(()) };
        let (slot, reaches) = (self.alive[&asked].slot, self.reaches_of(asked));
        let is_up = |of: &str| (0..reaches.len()).any(|host| *name(host) == *of && reaches[host]);
        let mut answer = Err(String::new());
        let voters = self.logs.voters_known_to(slot);
        if voters.iter().all(|voter| nodes.contains_key(voter)) {
            self.input(asked, |node, now, _| {
                answer = node.change_nodes(&change, &voters, is_up, now);
            })?;
        } else {
            answer = Err("the votes of the last change are still being changed".into());
        }
        self.tell(|| format!("n{slot} is asked to {change:?}: {answer:?}"));
        if answer.is_err() {
            self.summary.changes_refused += 1;
            return Ok(());
        }
        if let Some(new) = new {
            // It may be started before or after it is known.
            self.expected[new] = true;
            let soon = self.rng.random_range(MS..SECOND);
            self.after(soon, Event::Boot(new));
        }
        Ok(())
    }

    fn serving(
        &mut self,
        may_be: impl Fn(usize) -> bool,
    ) -> Option<sessiond::replication::Incarnation> {
        let serving = self.alive.iter().filter(|(_, process)| {
            process.node.is_serving() && process.paused_until <= self.now && may_be(process.slot)
        });
        let serving: Vec<_> = serving.map(|(&life, _)| life).collect();
        (!serving.is_empty()).then(|| serving[self.rng.random_range(0..serving.len())])
    }

    fn reaches_of(&self, life: sessiond::replication::Incarnation) -> Vec<bool> {
        self.reached_from(self.alive[&life].slot)
    }

    /// One that is of the group no more is stopped: when its vote is gone, as the order that removed it
    /// only comes back then. Not everybody waits for that.
    pub(crate) fn stop_removed(&mut self, slot: usize) {
        // It may have died, and be wanted again by now.
        let Some(life) = self.life_of(slot).filter(|_| !self.belongs(slot)) else { return };
        if self.logs.has_vote(slot) && !self.is_hasty && self.rng.random_ratio(4, 5) {
            return self.after(LOOK, Event::Retire(slot));
        }
        self.tell(|| format!("n{slot} is stopped"));
        self.kill(life, false);
    }

    /// Where too many that vote will never come back, an operator lets the one that has the data go
    /// on without them.
    pub(crate) fn rescue(&mut self) -> Result<(), String> {
        self.after(RESCUE_AFTER, Event::Rescue);
        let comes = |slot| self.life_of(slot).is_some() || self.belongs(slot);
        if self.logs.has_majority_of(comes) {
            return Ok(());
        }
        let Some(life) = self.serving(|_| true) else { return Ok(()) };
        let slot = self.alive[&life].slot;
        let mut answer = Err(String::new());
        self.input(life, |node, now, _| answer = node.force_solo(false, now))?;
        self.tell(|| format!("n{slot} is told to go on without the others: {answer:?}"));
        self.summary.forced_solo += u64::from(answer.is_ok());
        Ok(())
    }

    /// Whoever is of the group no more is stopped some time later, or forgotten.
    pub(crate) fn retire(&mut self) {
        for slot in 0..self.hosts {
            let is_in = self.nodes().contains_key(&name(slot));
            if is_in {
                self.expected[slot] = false;
            } else if !self.expected[slot]
                && self.life_of(slot).is_some()
                && !std::mem::replace(&mut self.retired[slot], true)
            {
                self.summary.removed_alive += 1;
                if self.is_hasty {
                    self.after(0, Event::Retire(slot));
                } else if self.rng.random_ratio(2, 3) {
                    let later = self.rng.random_range(MS..3 * SECOND);
                    self.after(later, Event::Retire(slot));
                }
            }
        }
    }
}
