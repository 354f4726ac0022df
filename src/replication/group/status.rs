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
    /// The other nodes, as they are configured.
    pub peers: Vec<PeerStatus>,
}

/// What is known of another node.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its name.
    pub name: Box<str>,
    /// Whether it only votes; then nothing else is known of it here.
    pub is_witness: bool,
    /// Whether it is heard and hears this node.
    pub is_up: bool,
    /// Milliseconds for a beat there and back.
    pub rtt_ms: Option<u64>,
    /// The epoch of the newest view it knows.
    pub epoch: Epoch,
}

impl<W> Group<W> {
    /// For people.
    pub fn status(&self, now: Now) -> GroupStatus {
        let until = self.lease.until(self.view.epoch);
        let others = self.nodes().keys().filter(|name| **name != self.options.me.name);
        let peers = others.map(|name| {
            let lives = self.peers.living().filter(|(_, of)| **of == **name);
            let life = lives.map(|(life, _)| life).find(|&life| self.is_up(life, now));
            PeerStatus {
                name: name.clone(),
                is_witness: self.witnesses.contains(name),
                is_up: life.is_some(),
                rtt_ms: life.and_then(|life| self.peers.rtt_ms(life)),
                epoch: life
                    .and_then(|life| self.peers.beat(life))
                    .map_or(Epoch(0), |beat| beat.view.1),
            }
        });
        GroupStatus {
            view: self.view.clone(),
            is_removed: self.is_removed(),
            lease_left_ms: (now.local < until).then(|| until.since(now.local)),
            is_isolated: self.solo.is_isolated,
            changes: self.changes.clone(),
            grant_waits: self.grant_waits,
            peers: peers.collect(),
        }
    }
}
