//! What people are told of a group.

use super::*;

/// What `stats replication` tells.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    /// The newest view.
    pub view: View,
    /// Whether an operator has removed this node.
    pub is_removed: bool,
    /// Milliseconds; `None` without a lease.
    pub lease_left_ms: Option<u64>,
    /// Whether reads are answered without one.
    pub is_isolated: bool,
    /// Views since the start, by cause.
    pub changes: BTreeMap<Box<str>, u64>,
    /// How often promises to others had to run out before a view could begin.
    pub grant_waits: u64,
    /// How often this node could prove reads and then could not any more.
    pub fences: u64,
    /// The other nodes, as they are configured.
    pub peers: Vec<PeerStatus>,
}

/// What is known of another node.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its name.
    pub name: Box<str>,
    /// The life of it that is up, or else the one that the view remembers.
    pub life: Option<Incarnation>,
    /// Whether it only votes; then nothing else is known of it here.
    pub is_witness: bool,
    /// Whether it is heard and hears this node.
    pub is_up: bool,
    /// Milliseconds for a beat there and back.
    pub rtt_ms: Option<u64>,
    /// The version that this node and it speak with each other, and what it knows beyond that.
    pub protocol: Option<(u16, Features)>,
    /// The epoch of the newest view it knows.
    pub epoch: Epoch,
    /// Of a learner: the lanes that this node has filled.
    pub lanes_filled: Option<u32>,
}

impl<W> Group<W> {
    /// For people.
    pub fn status(&self, now: Now) -> GroupStatus {
        let until = self.lease.until(self.view.epoch);
        let others = self.nodes().keys().filter(|name| **name != self.options.me.name);
        let peers = others.map(|name| {
            let lives = self.peers.living().filter(|(_, of)| **of == **name);
            let lives: Vec<_> = lives.map(|(life, _)| life).collect();
            // Of two, the one whose place the other is to take.
            let is_up = |life: &Incarnation| self.is_up(*life, now);
            let member = lives.iter().copied().find(|&life| self.view.has_member(life));
            let up = member.filter(is_up).or_else(|| lives.iter().copied().find(is_up));
            // Of one that is silent, or was left out, it matters too what it lacks.
            let life = up.or_else(|| lives.iter().copied().find(|&it| self.view.remembers(it)));
            let speaks = life.and_then(|life| self.peers.speaks(life));
            PeerStatus {
                name: name.clone(),
                life,
                is_witness: self.witnesses.contains(name),
                is_up: up.is_some(),
                rtt_ms: up.and_then(|life| self.peers.rtt_ms(life)),
                protocol: speaks
                    .and_then(|its| Some((self.options.speaks.version_with(its)?, its.features))),
                epoch: up
                    .and_then(|life| self.peers.beat(life))
                    .map_or(Epoch(0), |beat| beat.view.1),
                lanes_filled: life
                    .filter(|&life| self.view.has_learner(life))
                    .map(|life| self.counted.get(&life).copied().unwrap_or_default().count_ones()),
            }
        });
        GroupStatus {
            view: self.view.clone(),
            is_removed: self.is_removed(),
            lease_left_ms: (now.local < until).then(|| until.since(now.local)),
            is_isolated: self.solo.is_isolated,
            changes: self.changes.clone(),
            grant_waits: self.grant_waits,
            fences: self.fences.count,
            peers: peers.collect(),
        }
    }

    /// Counts how often this node stops being able to prove reads. What begins and ends between two
    /// things that it hears of nobody has noticed.
    pub(super) fn note_fence(&mut self, now: Now) {
        // Until the lanes are there, they work in the view before, under its lease.
        let epoch = if self.works() { self.view.epoch } else { self.former.epoch };
        let proves = self.is_serving() && self.lease.holds(epoch, now.local);
        let Fences { proved, count } = &mut self.fences;
        *count += u64::from(*proved && !proves);
        *proved = proves;
    }
}

/// See `Group::note_fence`.
#[derive(Debug, Default)]
pub(super) struct Fences {
    proved: bool,
    count: u64,
}
