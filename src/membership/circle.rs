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
        let told = agreed.filter_map(|(name, greeting)| {
            Some((greeting.place?.0, greeting.leader.is_some(), name.clone()))
        });
        let told: Vec<(Founding, bool, Box<str>)> = told.collect();
        let highest = told.iter().map(|(founding, _, _)| *founding).max();
        let better = told.into_iter().filter(|(founding, is_led, _)| {
            own.is_none_or(|own| is_better(own, highest, *founding, *is_led))
        });
        better.max().map(|(founding, _, name)| (founding, name))
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
            Some(own) => *founder <= *own.binding.founder || !self.is_on(&own.binding),
        }
    }

    /// The leader, for those who have no log to tell them.
    pub(super) fn heard_leader(&self) -> Option<Box<str>> {
        let led = self.greetings().filter(|(_, greeting)| greeting.leader.is_some());
        let newest = led.max_by_key(|(_, greeting)| {
            (greeting.place.map(|(founding, _)| founding), greeting.term)
        });
        let leader = newest.and_then(|(_, greeting)| greeting.leader.clone());
        leader.filter(|name| self.peers.get(name).is_none_or(|peer| !peer.is_dead))
    }

    /// Those with a link to this node that follow somebody, or lead.
    pub(super) fn that_know_a_leader(&self) -> impl Iterator<Item = &Box<str>> {
        let led = self.greetings().filter(|(_, greeting)| {
            greeting.leader.as_ref().is_some_and(|leader| *leader != self.me)
        });
        led.map(|(name, _)| name)
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

/// Whether to give up one's own log for that one, in which something is agreed. `highest` is the
/// highest of all such.
fn is_better(own: &Stand, highest: Option<Founding>, other: Founding, is_led: bool) -> bool {
    let mine = own.binding.founding;
    match own.committed {
        _ if other == mine => false,
        // It waits to be let in; only if nobody is there who could, it goes elsewhere.
        false if other < mine => is_led && highest < Some(mine),
        false => true,
        // Without a leader, nobody there could take this node in.
        true if other > mine => is_led,
        // Founded twice, by those that had lost their files: one that works is worth more.
        true => other.number == mine.number && is_led && !own.led,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Founding = Founding { number: 1, random: 5 };
    const NEW: Founding = Founding { number: 2, random: 1 };

    fn circle(me: &str, up: &[(&str, Greeting)]) -> Circle {
        let peer = |(name, greeting): &(&str, Greeting)| {
            let peer = Peer { is_up: true, is_dead: false, greeting: Some(greeting.clone()) };
            ((*name).into(), peer)
        };
        let voters = ["a", "b", "c"].into_iter().map(Into::into).collect();
        Circle { me: me.into(), voters, peers: up.iter().map(peer).collect() }
    }

    fn unbound() -> Greeting {
        Greeting::default()
    }

    fn agreed(founding: Founding, leader: Option<&str>) -> Greeting {
        Greeting {
            place: Some((founding, 7)),
            committed: true,
            started: true,
            term: 1,
            leader: leader.map(Into::into),
        }
    }

    fn stand(founding: Founding, founder: &str) -> Stand {
        let binding = Binding { founding, founder: founder.into(), id: 1 };
        Stand { binding, started: false, committed: false, led: false }
    }

    fn better(circle: &Circle, own: &Stand) -> Option<Founding> {
        circle.better(Some(own)).map(|(founding, _)| founding)
    }

    #[test]
    fn the_lowest_that_is_there_founds() {
        assert!(circle("b", &[("c", unbound())]).am_lowest());
        assert!(!circle("b", &[("a", unbound()), ("c", unbound())]).am_lowest());
        assert!(circle("a", &[("aa", unbound())]).am_lowest(), "a stranger does not count");
    }

    #[test]
    fn of_two_founders_the_lower_one_is_told_yes() {
        let circle = circle("c", &[("a", unbound()), ("b", unbound())]);
        assert!(circle.may_bind("b", None));
        assert!(circle.may_bind("a", Some(&stand(OLD, "c"))));
        assert!(!circle.may_bind("d", None));
    }

    #[test]
    fn nothing_is_founded_beside_what_has_been_agreed() {
        let circle = circle("c", &[("a", unbound()), ("b", agreed(OLD, None))]);
        assert!(!circle.may_bind("a", None));
        assert_eq!(circle.better(None).map(|(founding, _)| founding), Some(OLD));
    }

    #[test]
    fn what_is_written_down_is_not_given_up_for_another_founder() {
        let started = Stand { started: true, ..stand(OLD, "b") };
        assert!(!circle("c", &[("a", unbound())]).may_bind("a", Some(&started)));
    }

    #[test]
    fn a_later_generation_is_joined_once_it_is_led() {
        let committed = Stand { committed: true, started: true, led: true, ..stand(OLD, "a") };
        assert_eq!(better(&circle("c", &[("a", agreed(NEW, None))]), &committed), None);
        assert_eq!(better(&circle("c", &[("a", agreed(NEW, Some("a")))]), &committed), Some(NEW));
    }

    #[test]
    fn who_waits_for_a_later_generation_does_not_go_back_and_forth() {
        let waiting = stand(NEW, "a");
        let (old, new) = (agreed(OLD, Some("b")), agreed(NEW, None));
        assert_eq!(better(&circle("c", &[("a", new), ("b", old.clone())]), &waiting), None);
        assert_eq!(better(&circle("c", &[("b", old)]), &waiting), Some(OLD));
    }

    #[test]
    fn a_voter_with_a_new_id_takes_the_seat_of_its_name() {
        let own = Binding { founding: OLD, founder: "a".into(), id: 1 };
        let seats = Seats::from([(1, "a".into()), (2, "b".into()), (3, "c".into())]);
        let circle = circle("a", &[("b", agreed(OLD, None)), ("c", agreed(NEW, None))]);
        let plan = circle.plan(&own, &seats, &seats).unwrap();
        assert_eq!(plan.voters, BTreeSet::from([1, 3, 7]), "c is of another log, and keeps 3");
        assert_eq!(plan.learners, Seats::from([(7, "b".into())]));
    }

    #[test]
    fn when_all_have_their_seats_nothing_changes() {
        let own = Binding { founding: OLD, founder: "a".into(), id: 1 };
        let seats = Seats::from([(1, "a".into()), (7, "b".into()), (3, "c".into())]);
        let circle = circle("a", &[("b", agreed(OLD, None))]);
        assert_eq!(circle.plan(&own, &seats, &seats), None);
    }
}
