//! Who is in: the view, and which of its members owns a key.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

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

/// Who is in, from when on, and what was flushed. Views are numbered by their epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Higher than that of every earlier view.
    pub epoch: Epoch,
    /// The epochs of the views it follows from, the latest first, as far as kept.
    pub lineage: Vec<Epoch>,
    /// The epoch in which the group was founded; data of another generation is worth nothing.
    pub generation: Epoch,
    /// Those that hold everything, by name.
    pub members: Vec<Member>,
    /// Those that are being filled.
    pub learners: Vec<Member>,
    /// Items older than this were flushed.
    pub floor: Version,
    /// When a delayed flush_all is due, in cluster time.
    pub flush_at: Option<Millis>,
    /// The flush_all requests that this view answers.
    pub answers: Vec<(Incarnation, u64)>,
}

/// Views that a view remembers it follows from: nobody misses more without being filled anew.
const LINEAGE_MAX: usize = 16;

impl View {
    /// The view to follow this one; the caller changes what is different.
    pub(super) fn successor(&self, epoch: Epoch) -> Self {
        let lineage = [self.epoch].into_iter().chain(self.lineage.iter().copied());
        Self {
            epoch,
            lineage: lineage.take(LINEAGE_MAX).collect(),
            answers: Vec::new(),
            ..self.clone()
        }
    }

    /// Of two views without a common line the heavier goes on: more members, then the older group.
    pub(super) fn weight(&self) -> (usize, Reverse<Epoch>, Epoch) {
        (self.members.len(), Reverse(self.generation), self.epoch)
    }

    /// Whether it starts a group from nothing.
    pub(super) fn is_founding(&self) -> bool {
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

    /// The members except this one.
    pub fn others(&self, me: Incarnation) -> impl Iterator<Item = Incarnation> {
        self.members.iter().map(|member| member.incarnation).filter(move |&other| other != me)
    }
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
