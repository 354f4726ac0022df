//! What goes wrong, and when it is mended.

use rand::RngExt;
use sessiond::replication::Incarnation;

use super::world::{Event, MS, SECOND, World};

/// A fault that is about to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process dies; its host answers for it.
    Crash,
    /// The new life of a node dies, whose predecessor is still there.
    CrashSuccessor,
    /// A process is told to end, and goes in order.
    Leave,
    /// A host loses its power: nobody answers.
    PowerOff,
    /// Every process dies, and all memory is lost.
    AllDie,
    /// A process stands still.
    Pause,
    /// One host is cut off from all others.
    CutOff,
    /// One host is heard by nobody, or hears nobody.
    OneWay,
    /// Two hosts can't reach each other; the others can reach both.
    Tear,
    /// Hosts below this number can't reach the others.
    Split(usize),
    /// This host loses its power.
    PowerOffAt(usize),
    /// What one host says to another about lanes comes late; beats do not.
    Lag,
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let count = self.rng.random_range(1..5);
        let kinds = [
            (Fault::Crash, 30),
            (Fault::Leave, 20),
            (Fault::PowerOff, 8),
            (Fault::AllDie, 1),
            (Fault::Pause, 25),
            (Fault::CutOff, 20),
            (Fault::OneWay, 10),
            (Fault::Tear, 10),
        ];
        let sum: u32 = kinds.iter().map(|(_, weight)| weight).sum();
        for _ in 0..count {
            let mut pick = self.rng.random_range(0..sum);
            let kind = kinds.iter().find(|(_, weight)| {
                let is_it = pick < *weight;
                pick = pick.saturating_sub(*weight);
                is_it
            });
            let at = self.rng.random_range(800 * MS..5 * SECOND);
            if let Some((fault, _)) = kind {
                self.at(at, Event::Fault(*fault));
            }
        }
    }

    /// Of five, two lose their power; when they come back, the members are cut in two, and the
    /// smaller part has the majority of the votes, thanks to those that have come back.
    pub(crate) fn plan_split(&mut self) {
        let off = self.rng.random_range(1500 * MS..2 * SECOND);
        self.at(off, Event::Fault(Fault::PowerOffAt(0)));
        self.at(off, Event::Fault(Fault::PowerOffAt(1)));
        let back = off + self.rng.random_range(1500 * MS..2 * SECOND);
        self.at(back, Event::Fault(Fault::Split(3)));
        self.at(back + MS, Event::Boot(0));
        self.at(back + MS, Event::Boot(1));
        self.at(back + 2500 * MS, Event::Heal);
    }

    /// Single hosts are cut off from all others, so that their promises count.
    pub(crate) fn plan_cuts(&mut self) {
        for n in 0..3 {
            let at = (1 + 2 * n) * SECOND + self.rng.random_range(0..SECOND);
            let fault = if self.rng.random_bool(0.5) { Fault::CutOff } else { Fault::OneWay };
            self.at(at, Event::Fault(fault));
        }
    }

    /// What is said about lanes lies on its way for longer than a client waits, and not so long that
    /// anybody is suspected.
    pub(crate) fn plan_lags(&mut self) {
        for n in 0..12 {
            let at = SECOND + n * 400 * MS + self.rng.random_range(0..400 * MS);
            self.at(at, Event::Fault(Fault::Lag));
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        let slot = self.some_host();
        let other = (slot + self.rng.random_range(1..self.hosts)) % self.hosts;
        match fault {
            Fault::Crash => self.crash(slot, false),
            Fault::CrashSuccessor => self.crash_successor(),
            Fault::Leave => self.leave(slot),
            Fault::PowerOff => self.crash(slot, true),
            Fault::AllDie => self.all_die(),
            Fault::Pause => {
                let long = self.rng.random_range(50 * MS..3 * SECOND);
                self.pause(slot, long);
            }
            Fault::CutOff => {
                self.summary.cuts += 1;
                self.tell(|| format!("n{slot} is cut off"));
                for peer in (0..self.hosts).filter(|&peer| peer != slot) {
                    self.network.cut(slot, peer);
                    self.network.cut(peer, slot);
                }
                self.heal_later();
            }
            Fault::OneWay => {
                self.summary.one_way_cuts += 1;
                let is_mute = self.rng.random_bool(0.5);
                self.tell(|| format!("n{slot} is {}", if is_mute { "mute" } else { "deaf" }));
                for peer in (0..self.hosts).filter(|&peer| peer != slot) {
                    let (from, to) = if is_mute { (slot, peer) } else { (peer, slot) };
                    self.network.cut(from, to);
                }
                self.heal_later();
            }
            Fault::Tear => {
                self.summary.torn_links += 1;
                self.tell(|| format!("n{slot} and n{other} are torn apart"));
                self.network.cut(slot, other);
                self.network.cut(other, slot);
                self.heal_later();
            }
            Fault::Lag => {
                let long = self.rng.random_range(200 * MS..380 * MS);
                self.tell(|| format!("n{slot} to n{other}: late by up to {} ms", long / MS));
                self.network.hold_up(slot, other, self.now + long);
            }
            Fault::Split(at) => {
                self.tell(|| format!("hosts below {at} can't reach the others"));
                for (low, high) in
                    (0..at).flat_map(|low| (at..self.hosts).map(move |high| (low, high)))
                {
                    self.network.cut(low, high);
                    self.network.cut(high, low);
                }
            }
            Fault::PowerOffAt(slot) => {
                self.tell(|| format!("n{slot} loses its power"));
                if let Some(life) = self.life_of(slot) {
                    self.kill(life, true);
                }
            }
        }
    }

    /// One that is of the group.
    fn some_host(&mut self) -> usize {
        let hosts: Vec<usize> = (0..self.hosts).filter(|&slot| self.belongs(slot)).collect();
        hosts[self.rng.random_range(0..hosts.len())]
    }

    fn heal_later(&mut self) {
        let long = self.rng.random_range(50 * MS..4 * SECOND);
        self.after(long, Event::Heal);
    }

    /// Kills a process, unless it is the last that has everything.
    fn crash(&mut self, slot: usize, is_silent: bool) {
        let Some(victim) = self.life_of(slot) else {
            return;
        };
        // With its power a host loses all that runs there.
        let successor = self.successor_of(slot);
        let dies = |life: &Incarnation| *life == victim || (is_silent && Some(*life) == successor);
        let holders = self.holders();
        if holders.iter().all(dies) {
            return;
        }
        self.tell(|| format!("n{slot} dies{}", if is_silent { " in silence" } else { "" }));
        if is_silent {
            self.summary.silent_crashes += 1;
        } else {
            self.summary.crashes += 1;
        }
        self.summary.predecessors_died += u64::from(successor.is_some());
        self.kill(victim, is_silent);
        if let Some(successor) = successor.filter(|_| is_silent) {
            self.kill(successor, true);
        }
        let away = self.rng.random_range(5 * MS..3 * SECOND);
        self.after(away, Event::Boot(slot));
    }

    /// Tells a process to end, which it does once the others do without it.
    fn leave(&mut self, slot: usize) {
        let Some(life) = self.life_of(slot) else {
            return;
        };
        self.tell(|| format!("n{slot} leaves"));
        self.leaving.insert(life);
    }

    /// A process that leaves asks for it again and again, serves its clients for a while when it is
    /// out, and ends.
    pub(crate) fn go_on_leaving(&mut self, life: Incarnation) -> Result<(), String> {
        if !self.leaving.contains(&life) {
            return Ok(());
        }
        self.input(life, |node, now, post| node.leave(now, post))?;
        let Some(process) = self.alive.get(&life) else {
            return Ok(());
        };
        let now = process.now(self.now, 0);
        let is_out = !process.node.is_serving() && process.node.has_left(now);
        let others_hold = self.holders().iter().any(|&holder| holder != life);
        if !is_out || !others_hold || self.rng.random_ratio(9, 10) {
            return Ok(());
        }
        let slot = process.slot;
        self.tell(|| format!("n{slot} has left"));
        self.summary.leaves += 1;
        self.leaving.remove(&life);
        self.kill(life, false);
        let away = self.rng.random_range(5 * MS..SECOND);
        self.after(away, Event::Boot(slot));
        Ok(())
    }

    /// The lives that have all data: members of the newest view, and of what may come of it.
    pub(crate) fn holders(&self) -> Vec<Incarnation> {
        let Some(view) = self.logs.newest() else {
            return Vec::new();
        };
        let members = view.members.iter().map(|member| member.incarnation);
        members.filter(|life| self.alive.contains_key(life)).collect()
    }

    fn all_die(&mut self) {
        self.summary.all_dead += 1;
        self.tell(|| "all die".into());
        let lives: Vec<_> = self.alive.keys().copied().collect();
        for life in lives {
            self.kill(life, false);
        }
        self.history.lost(self.now, self.now + 1);
        for slot in 0..self.hosts {
            let away = self.rng.random_range(5 * MS..SECOND);
            self.after(away, Event::Boot(slot));
        }
    }

    pub(crate) fn kill(&mut self, victim: Incarnation, is_silent: bool) {
        let Some(process) = self.alive.remove(&victim) else {
            return;
        };
        self.summary.note_end(&process.node);
        self.network.end(victim, &mut self.rng);
        if process.beside.is_none() {
            self.silent[process.slot] = is_silent;
        }
        let others: Vec<(Incarnation, usize)> =
            self.alive.iter().map(|(&life, other)| (life, other.slot)).collect();
        for (life, other) in others {
            if !is_silent && self.network.is_open(process.slot, other) {
                let soon = self.rng.random_range(100..3 * MS);
                let event = match process.beside {
                    None => Event::Ended { at: life, slot: process.slot },
                    Some(_) => Event::EndedBeside { at: life, life: victim },
                };
                self.after(soon, event);
            }
        }
        self.break_connections(victim);
        self.note_heir(&process);
    }

    fn pause(&mut self, slot: usize, long: u64) {
        if let Some(life) = self.some_life_of(slot)
            && let Some(process) = self.alive.get_mut(&life)
        {
            process.paused_until = process.paused_until.max(self.now + long);
            let until = process.paused_until;
            self.summary.pauses += 1;
            self.tell(|| format!("n{slot} stands still for {} ms", long / MS));
            self.at(until, Event::Resume(life));
        }
    }
}
