//! Who is in: the view, which of its members owns a key, and which view may follow which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dialect::Features;
use super::nodes::{NODES_MAX, Nodes, is_one_step};
use crate::key::{KeyHash, NameHash};
use crate::time::Millis;
use crate::version::{Epoch, Version};

/// A random number per process start: memory does not survive a restart, so neither does identity.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// One life of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// As configured.
    pub name: Box<str>,
    /// Of this life.
    pub incarnation: Incarnation,
}

/// A line of views: whoever survives all others may found a new one, which outranks the old.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Line {
    /// Counts foundings.
    pub number: u32,
    /// Tells apart two that count the same.
    pub random: u64,
}

/// Who is in, from when on, and what was flushed. Views are numbered by their epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Higher than that of every earlier view.
    pub epoch: Epoch,
    /// The epoch of the view that it follows; 0 where there is none.
    pub follows: Epoch,
    /// Which line of views it belongs to.
    pub line: Line,
    /// The epoch in which the group began with nothing; data of another generation is worth
    /// nothing.
    pub generation: Epoch,
    /// All nodes of the group, those included that are not there.
    pub nodes: Nodes,
    /// Those that hold everything, by name.
    pub members: Vec<Member>,
    /// Those that are being filled.
    pub learners: Vec<Member>,
    /// Former members that may still be alive: what they asked for is remembered.
    pub absent: Vec<Member>,
    /// Former members that are proven dead: nobody waits for what they were promised.
    pub dead: Vec<Incarnation>,
    /// The members of earlier views, from the last on that is known to have worked.
    pub unsettled: Vec<Vec<Incarnation>>,
    /// Items older than this were flushed.
    pub floor: Version,
    /// When a delayed flush_all is due, in cluster time.
    pub flush_at: Option<Millis>,
    /// The newest flush_all of each node that has been carried out.
    pub flushed: BTreeMap<Incarnation, u64>,
    /// Why there is a new view, for people.
    pub cause: Box<str>,
    /// What all members and learners know of the protocol, beyond its version.
    pub features: Features,
}

/// The causes that this version gives.
pub const CAUSES: [&str; 16] = [
    "add-node",
    "admission",
    "cold start",
    "death",
    "flush_all",
    "force-solo",
    "founding",
    "join",
    "last man standing",
    "learner left",
    "leave",
    "remove-node",
    "replace-node",
    "silence",
    "stuck",
    "upgrade",
];

/// Epochs that a new line leaves free: views of the old one that nobody here has heard of.
pub(super) const LINE_GAP: u32 = 1 << 10;
/// Earlier views that may count, each smaller than the one before; there are never that many.
const UNSETTLED_MAX: usize = 8;

impl View {
    /// The view to follow this one; the caller changes what is different.
    ///
    /// `is_settled`: all members are known to work in this one.
    pub(super) fn successor(&self, is_settled: bool, cause: &str) -> Self {
        let (mut unsettled, mut dead) = (Vec::new(), Vec::new());
        if !is_settled {
            unsettled = self.unsettled.clone();
            dead = self.dead.clone();
        }
        // One that works too: its members hold leases until the next one works.
        unsettled.push(self.lives());
        unsettled.truncate(UNSETTLED_MAX);
        Self {
            epoch: Epoch(self.epoch.0 + 1),
            follows: self.epoch,
            dead,
            unsettled,
            cause: cause.into(),
            ..self.clone()
        }
    }

    /// Whether it is newer than another one.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        (self.line, self.epoch) > (other.line, other.epoch)
    }

    /// Whether it starts a group from nothing.
    pub fn is_founding(&self) -> bool {
        self.generation == self.epoch
    }

    /// Whether this life is a member.
    pub fn has_member(&self, incarnation: Incarnation) -> bool {
        self.members.iter().any(|member| member.incarnation == incarnation)
    }

    /// Whether this life is a learner.
    pub fn has_learner(&self, incarnation: Incarnation) -> bool {
        self.learners.iter().any(|learner| learner.incarnation == incarnation)
    }

    /// Whether this life has any part in it.
    pub fn has(&self, incarnation: Incarnation) -> bool {
        self.has_member(incarnation) || self.has_learner(incarnation)
    }

    /// Whether outcomes of this life's requests are remembered.
    pub fn remembers(&self, incarnation: Incarnation) -> bool {
        let is_it = |member: &Member| member.incarnation == incarnation;
        self.has(incarnation) || self.absent.iter().any(is_it)
    }

    /// The members except this one.
    pub fn others(&self, me: Incarnation) -> impl Iterator<Item = Incarnation> {
        self.members.iter().map(|member| member.incarnation).filter(move |&other| other != me)
    }

    /// The life of that name that is a member.
    pub(super) fn member_of(&self, name: &str) -> Option<Incarnation> {
        let of_name = self.members.iter().find(|member| *member.name == *name);
        of_name.map(|member| member.incarnation)
    }

    /// Whether a node of that name is part of the group.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// Whether everybody in it is a configured node, none twice a member, and somebody votes.
    fn is_of_its_nodes(&self) -> bool {
        let mut all = self.members.iter().chain(&self.learners);
        (1..=NODES_MAX).contains(&self.nodes.len())
            && self.nodes.values().any(|place| place.votes)
            && self.members.is_sorted_by(|one, next| one.name < next.name)
            && all.all(|member| self.has_node(&member.name))
    }

    pub(super) fn lives(&self) -> Vec<Incarnation> {
        self.members.iter().map(|member| member.incarnation).collect()
    }

    /// Whether at most half of each former set of members is gone, the dead not counted as gone.
    ///
    /// Every majority of a former set then contains somebody who goes on and knows what it has
    /// promised to those that do not.
    pub(super) fn keeps_half_of(&self, present: &Self) -> bool {
        self.keeps_half_but(&self.dead, present)
    }

    /// Whether more than that is gone, the dead counted as gone. What they had promised to others
    /// still holds, and nobody is left who knows until when.
    pub(super) fn is_small_after(&self, present: &Self) -> bool {
        !self.keeps_half_but(&[], present)
    }

    fn keeps_half_but(&self, excused: &[Incarnation], present: &Self) -> bool {
        let former = self.unsettled.iter().cloned().chain([present.lives()]);
        former.into_iter().all(|lives| {
            let is_gone = |life: &&Incarnation| !self.has_member(**life);
            let gone = lives.iter().filter(is_gone).filter(|life| !excused.contains(life));
            2 * gone.count() <= lives.len()
        })
    }
}

/// Whether the log may go from one view to the next: the same on all nodes.
///
/// Views form a chain: a proposal that was made upon another view than the present one is void.
/// New members are former learners, so they have all data; except where a group begins anew. One
/// node is added, removed or replaced at a time; for members that go with it the same holds as for
/// others that go.
pub fn may_follow(present: Option<&View>, next: &View) -> bool {
    if next.members.is_empty() || next.epoch > Epoch::MAX || !next.is_of_its_nodes() {
        return false;
    }
    let Some(present) = present else {
        return next.follows == Epoch(0);
    };
    let newcomers = next.members.iter().map(|member| member.incarnation);
    let are_filled = newcomers.into_iter().all(|life| present.has(life));
    next.follows == present.epoch
        && next.epoch > present.epoch
        && next.line == present.line
        && is_one_step(&present.nodes, &next.nodes)
        && (next.is_founding() || (are_filled && next.keeps_half_of(present)))
}

/// The members with their names hashed, to find owners quickly.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners(Vec<(NameHash, Incarnation)>);

impl Owners {
    pub(super) fn of(view: &View) -> Self {
        let members = view.members.iter();
        Self(members.map(|member| (NameHash::of(&member.name), member.incarnation)).collect())
    }

    /// The member with the highest rendezvous weight; `None` without members.
    pub(super) fn owner(&self, key: KeyHash) -> Option<Incarnation> {
        let weighed = self.0.iter().map(|&(name, incarnation)| (key.weight(name), incarnation));
        weighed.max().map(|(_, incarnation)| incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn view_of(names: &[&str]) -> View {
        let member = |(n, name): (usize, &&str)| Member {
            name: (*name).into(),
            incarnation: Incarnation(n as u64 + 1),
        };
        View { members: names.iter().enumerate().map(member).collect(), ..View::default() }
    }

    #[test]
    fn a_view_that_never_worked_makes_no_smaller_one_legal() {
        let three = view_of(&["a", "b", "c"]);
        let shrunk = |former: &View, is_settled| {
            let mut next = former.successor(is_settled, "silence");
            next.members.pop();
            next
        };
        let two = shrunk(&three, true);
        assert!(two.keeps_half_of(&three));
        assert!(!shrunk(&two, false).keeps_half_of(&two), "b and c may grant each other leases");
        assert!(shrunk(&two, true).keeps_half_of(&two));
    }

    #[test]
    fn no_node_is_twice_a_member() {
        let address = ([127, 0, 0, 1], 1).into();
        let place = crate::replication::Place { address, votes: true, is_given: false };
        let nodes: Nodes = ["a", "b"].map(|name| (name.into(), place)).into();
        let follows = |names: &[&str]| {
            let nodes = nodes.clone();
            may_follow(None, &View { epoch: Epoch(1), nodes, ..view_of(names) })
        };
        assert!(follows(&["a", "b"]));
        assert!(!follows(&["a", "a"]));
    }

    #[test]
    fn a_member_that_leaves_gives_up_only_its_own_keys() {
        let three = Owners::of(&view_of(&["a", "b", "c"]));
        let two = Owners::of(&view_of(&["a", "b"]));
        let mut owned = [0; 3];
        for n in 0..3000u32 {
            let name = n.to_string();
            let hash = Key::new(name.as_bytes()).unwrap().hash();
            let owner = three.owner(hash).unwrap();
            owned[owner.0 as usize - 1] += 1;
            if owner != Incarnation(3) {
                assert_eq!(two.owner(hash), Some(owner));
            }
        }
        assert!(owned.iter().all(|&count| (900..1100).contains(&count)), "{owned:?}");
    }
}
