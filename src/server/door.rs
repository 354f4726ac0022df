//! The port for peers, before anybody has proven anything: how many may be asked at once, and what
//! is said of those that are refused.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::task::AbortHandle;

use crate::stats::{Refusal, Refusals};
use crate::time::Millis;

/// Strangers that are being asked who they are. Peers need milliseconds for it, so when it is
/// crowded, whoever has taken longest goes: of those from the address that has sent most, as a
/// busy machine may need longer, and a crowd is mostly of one place.
const ASKED_MAX: usize = 64;
/// Of one address and reason, the log hears this often.
const QUIET_MS: u64 = 10_000;
/// Addresses and reasons that are told apart for that.
const TOLD_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Door {
    asked: RefCell<VecDeque<Visit>>,
    visits: Cell<u64>,
    told: RefCell<HashMap<(IpAddr, Refusal), Told>>,
}

struct Visit {
    number: u64,
    address: SocketAddr,
    task: AbortHandle,
}

struct Told {
    at: Millis,
    untold: u64,
}

impl Door {
    /// The number of the next one to be asked.
    pub(super) fn number(&self) -> u64 {
        self.visits.set(self.visits.get() + 1);
        self.visits.get()
    }

    /// That one is being asked by this task. Returns who has to go for it.
    pub(super) fn enter(
        &self,
        number: u64,
        address: SocketAddr,
        task: AbortHandle,
    ) -> Option<SocketAddr> {
        let mut asked = self.asked.borrow_mut();
        asked.push_back(Visit { number, address, task });
        if asked.len() <= ASKED_MAX {
            return None;
        }
        let place = one_of_the_crowd(&asked);
        let gone = asked.remove(place)?;
        gone.task.abort();
        Some(gone.address)
    }

    /// That one has said who it is, or was refused.
    pub(super) fn leave(&self, number: u64) {
        self.asked.borrow_mut().retain(|visit| visit.number != number);
    }

    /// Counts a refusal. Returns how many like it were not told of, if this one is to be told.
    pub(super) fn refuse(
        &self,
        address: IpAddr,
        why: Refusal,
        counts: &Refusals,
        now: Millis,
    ) -> Option<u64> {
        counts.of(why).add(1);
        let mut told = self.told.borrow_mut();
        let is_known = told.contains_key(&(address, why));
        if !is_known && told.len() >= TOLD_MAX {
            told.retain(|_, told| now.since(told.at) < QUIET_MS);
        }
        // From so many addresses that they are not told apart.
        let is_full = !is_known && told.len() >= TOLD_MAX;
        let place = if is_full { Ipv6Addr::UNSPECIFIED.into() } else { address };
        let Some(known) = told.get_mut(&(place, why)) else {
            told.insert((place, why), Told { at: now, untold: 0 });
            return Some(0);
        };
        if now.since(known.at) < QUIET_MS {
            known.untold += 1;
            return None;
        }
        known.at = now;
        Some(std::mem::take(&mut known.untold))
    }
}

/// The place of the one that has taken longest, of those from the address that has sent most.
fn one_of_the_crowd(asked: &VecDeque<Visit>) -> usize {
    let mut sent = BTreeMap::<IpAddr, usize>::new();
    for visit in asked {
        *sent.entry(visit.address.ip()).or_default() += 1;
    }
    let most = sent.values().max();
    asked.iter().position(|visit| sent.get(&visit.address.ip()) == most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn all_are_counted_and_few_are_told() {
        let (door, counts) = (Door::default(), Refusals::default());
        let refuse = |why, now| door.refuse(HERE, why, &counts, Millis(now));
        assert_eq!(refuse(Refusal::Slow, 0), Some(0));
        assert_eq!(refuse(Refusal::Slow, 1), None);
        assert_eq!(refuse(Refusal::Secret, 2), Some(0));
        assert_eq!(refuse(Refusal::Slow, 3), None);
        assert_eq!(refuse(Refusal::Slow, QUIET_MS), Some(2));
        assert_eq!(refuse(Refusal::Slow, QUIET_MS + 1), None);
        assert_eq!(counts.of(Refusal::Slow).get(), 5);
        assert_eq!(counts.of(Refusal::Secret).get(), 1);
    }

    #[test]
    fn many_addresses_fill_neither_the_log_nor_the_memory() {
        let (door, counts) = (Door::default(), Refusals::default());
        let from = |number: u16| IpAddr::from([0, 0, 0, 0, 0, 0, 1, number]);
        let told = (0..10_000).filter(|number| {
            door.refuse(from(*number), Refusal::Garbage, &counts, Millis(5)).is_some()
        });
        assert_eq!(told.count(), TOLD_MAX + 1);
        assert_eq!(door.told.borrow().len(), TOLD_MAX + 1);
        assert_eq!(counts.of(Refusal::Garbage).get(), 10_000);
        assert_eq!(door.refuse(from(1), Refusal::Slow, &counts, Millis(QUIET_MS + 5)), Some(0));
        assert_eq!(door.told.borrow().len(), 1, "what was long ago is forgotten");
    }

    #[tokio::test]
    async fn when_it_is_crowded_the_oldest_goes() {
        let door = Door::default();
        let from = |port| SocketAddr::from((HERE, port));
        let enter = |port| {
            let task = tokio::spawn(std::future::pending::<()>());
            (door.enter(door.number(), from(port), task.abort_handle()), task)
        };
        let (gone, first) = enter(1);
        assert_eq!(gone, None);
        let (_, second) = enter(2);
        door.leave(2);
        let others: Vec<_> = (0..ASKED_MAX as u16).map(|port| enter(1000 + port)).collect();
        assert!(first.await.is_err_and(|error| error.is_cancelled()));
        assert!(!second.is_finished(), "it has said who it is");
        let gone: Vec<_> = others.iter().filter_map(|(gone, _)| *gone).collect();
        assert_eq!(gone, [from(1)]);
    }

    #[tokio::test]
    async fn a_crowd_from_elsewhere_pushes_nobody_out() {
        let door = Door::default();
        let enter = |host: u16, port| {
            let task = tokio::spawn(std::future::pending::<()>());
            let from = IpAddr::from([0, 0, 0, 0, 0, 0, 1, host]);
            door.enter(door.number(), (from, port).into(), task.abort_handle()).map(|it| it.port())
        };
        // A slow peer, and one of the crowd that has been there before it.
        assert_eq!((enter(2, 1), enter(1, 2)), (None, None));
        let gone: Vec<u16> = (0..1000).filter_map(|port| enter(2, 1000 + port)).collect();
        assert_eq!(gone.len(), 1002 - ASKED_MAX);
        assert_eq!(gone[..3], [1, 1000, 1001], "in their order, and not the peer");
        assert!(!gone.contains(&2));
    }
}
