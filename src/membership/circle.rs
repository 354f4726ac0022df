//! Who is there, and what they have said: from it follows who may found, who joins whom, and who
//! should have a seat. Pure.
//!
//! Why no group is founded twice. A founding begins with a seat for each configured voter, those
//! not there included, so whatever it agrees on has been written down by a majority of all. A
//! node writes down entries of one founding only, and gives that log up only for another one in
//! which something is known to be agreed. So a second one never gets its majority. Saying yes to
//! a founder (`may_bind`) decides nothing; it only has to lead to an end.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{Binding, Founding};
use super::wire::Greeting;

/// A configured node, as seen from here.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) is_up: bool,
    pub(super) is_dead: bool,
    /// Its last word on this link.
    pub(super) greeting: Option<Greeting>,
}

/// Everybody.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    pub(super) me: Box<str>,
    pub(super) voters: BTreeSet<Box<str>>,
    pub(super) peers: BTreeMap<Box<str>, Peer>,
}

/// Where this node stands in its log.
#[derive(Clone, Debug)]
pub(super) struct Stand {
    pub(super) binding: Binding,
    /// The log is not empty.
    pub(super) started: bool,
    pub(super) committed: bool,
    /// There is a leader, or was a moment ago.
    pub(super) led: bool,
}

/// Seats as they are: id and name.
pub(super) type Seats = BTreeMap<u64, Box<str>>;

/// The next change of the seats.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be filled first.
    pub(super) learners: Seats,
    pub(super) voters: BTreeSet<u64>,
}

impl Circle {
    /// Whether this node votes.
    pub(super) fn am_voter(&self) -> bool {
        self.voters.contains(&self.me)
    }

    pub(super) fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    fn up(&self) -> impl Iterator<Item = (&Box<str>, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.is_up)
    }

    fn greetings(&self) -> impl Iterator<Item = (&Box<str>, &Greeting)> {
        self.up().filter_map(|(name, peer)| Some((name, peer.greeting.as_ref()?)))
    }

    /// The voters that are there and have said where they stand, this node included.
    pub(super) fn present(&self) -> BTreeSet<&str> {
        let others = self.greetings().map(|(name, _)| &**name);
        others.chain([&*self.me]).filter(|name| self.voters.contains(*name)).collect()
    }

    /// Whether this node is the one to found, of those that are there.
    pub(super) fn am_lowest(&self) -> bool {
        self.present().first() == Some(&&*self.me)
    }

    /// The log to join instead of the own one, and who told of it.
    pub(super) fn better(&self, own: Option<&Stand>) -> Option<(Founding, Box<str>)> {
        let agreed = self.greetings().filter(|(_, greeting)| greeting.committed);
        let others = agreed.filter_map(|(name, greeting)| {
            let (founding, _) = greeting.place?;
            let is_led = greeting.leader.is_some();
            own.is_none_or(|own| is_better(own, founding, is_led)).then_some((founding, name))
        });
        others.max().map(|(founding, name)| (founding, name.clone()))
    }

    /// Whether somebody is there for whom this founding is still on.
    pub(super) fn is_on(&self, binding: &Binding) -> bool {
        let of_it = |greeting: &Greeting| {
            greeting.place.is_some_and(|(founding, _)| founding == binding.founding)
        };
        let founder = self.peers.get(&binding.founder);
        let founds = founder
            .is_some_and(|founder| founder.is_up && founder.greeting.as_ref().is_none_or(of_it));
        founds || self.greetings().any(|(_, greeting)| greeting.started && of_it(greeting))
    }

    /// Whether to be part of what this founder founds.
    pub(super) fn may_bind(&self, founder: &str, own: Option<&Stand>) -> bool {
        if !self.am_voter() || !self.voters.contains(founder) || self.better(None).is_some() {
            return false;
        }
        match own {
            None => true,
            Some(own) if own.started => false,
            // Two at once: the lower name goes on.
            Some(own) if own.binding.founder == self.me => founder < &*self.me,
            Some(own) => *own.binding.founder == *founder || !self.is_on(&own.binding),
        }
    }

    /// The leader, for those who have no log to tell them.
    pub(super) fn heard_leader(&self) -> Option<Box<str>> {
        let led = self.greetings().filter(|(_, greeting)| greeting.leader.is_some());
        let newest = led.max_by_key(|(_, greeting)| (greeting.place, greeting.term));
        let leader = newest.and_then(|(_, greeting)| greeting.leader.clone());
        leader.filter(|name| self.peers.get(name).is_none_or(|peer| !peer.is_dead))
    }

    /// How many living seats come before this node when a leader is replaced.
    pub(super) fn rank(&self, seats: &Seats, dead: &str) -> usize {
        let lives =
            |name: &str| name != dead && self.peers.get(name).is_some_and(|peer| peer.is_up);
        seats.values().filter(|name| ***name < *self.me && lives(name)).count()
    }

    /// What the leader has to change so that each voter has the seat it now goes by.
    pub(super) fn plan(&self, own: &Binding, voters: &Seats, all: &Seats) -> Option<Plan> {
        let seat_of = |name: &str| {
            if *name == *self.me {
                return Some(own.id);
            }
            let peer = self.peers.get(name).filter(|peer| peer.is_up);
            let place = peer.and_then(|peer| peer.greeting.as_ref()?.place);
            let shown = place.filter(|(founding, _)| *founding == own.founding).map(|(_, id)| id);
            // Who is away keeps its seat.
            shown
                .or_else(|| voters.iter().find(|(_, seated)| ***seated == *name).map(|(id, _)| *id))
        };
        let wanted: Seats =
            self.voters.iter().filter_map(|name| Some((seat_of(name)?, name.clone()))).collect();
        if wanted.is_empty() || (wanted.keys().eq(voters.keys()) && wanted.len() == all.len()) {
            return None;
        }
        let voters = wanted.keys().copied().collect();
        let learners = wanted.into_iter().filter(|(id, _)| !all.contains_key(id)).collect();
        Some(Plan { learners, voters })
    }
}

/// Whether to give up one's own log for that one, in which something is agreed.
fn is_better(own: &Stand, other: Founding, is_led: bool) -> bool {
    let mine = own.binding.founding;
    match (own.committed, other == mine) {
        (_, true) => false,
        (false, false) => true,
        // Without a leader, nobody there could take this node in.
        (true, false) if other > mine => is_led,
        // Founded twice, by those that had lost their files: one that works is worth more.
        (true, false) => other.number == mine.number && is_led && !own.led,
    }
}
