//! Whether what a file holds can be true: the consensus crate believes all of it, and panics over
//! what it would never have written.
//!
//! What is held here is what the crate asserts when it starts, and what it takes for granted of a
//! log: one id for each index, with leaders that never go back; no gap; a value for what is purged.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use super::VALUE_MAX;
use super::image::Image;
use super::types::{Binding, Entry, LeaderId, LogId, Seats, SnapshotMeta, Vote};

/// Nothing that counts gets there; beyond it, counting on would come to an end.
const COUNT_MAX: u64 = u64::MAX / 2;

/// What is wrong, for people.
type Wrong = &'static str;

/// Whether an image of the node of this name can be gone on with.
pub(super) fn check(image: &Image, me: &str) -> Result<(), Wrong> {
    if image.binding.founding.number > u32::MAX / 2 {
        return Err("its founding has an impossible number");
    }
    check_log(image)?;
    check_snapshot(image)?;
    check_order(image)?;
    let seats = image.snapshot.iter().map(|(meta, _)| meta.last_membership.membership());
    let seats = seats.chain(image.log.values().filter_map(seats_of));
    for seats in seats {
        check_seats(seats, &image.binding, me)?;
    }
    Ok(())
}

fn seats_of(entry: &Entry) -> Option<&openraft::Membership<u64, Box<str>>> {
    match &entry.payload {
        EntryPayload::Membership(seats) => Some(seats),
        _ => None,
    }
}

/// Entry by entry, from where it is purged.
fn check_log(image: &Image) -> Result<(), Wrong> {
    let mut next = image.purged.map_or(0, |purged| purged.index.saturating_add(1));
    for (index, entry) in &image.log {
        if *index != next || entry.log_id.index != next {
            return Err("its log has a gap");
        }
        match &entry.payload {
            EntryPayload::Normal(value) if value.len() > VALUE_MAX => {
                return Err("a value in its log is too long");
            }
            EntryPayload::Membership(_) => {}
            _ if next == 0 => return Err("its log does not begin with those who vote"),
            _ => {}
        }
        next = next.saturating_add(1);
    }
    if image.committed.is_some_and(|committed| committed.index >= next) {
        return Err("more is agreed than its log holds");
    }
    Ok(())
}

/// Without it nobody knows what the purged entries have made of the value.
fn check_snapshot(image: &Image) -> Result<(), Wrong> {
    let Some((meta, value)) = &image.snapshot else {
        return image.purged.map_or(Ok(()), |_| Err("its log is purged, and there is no snapshot"));
    };
    let (Some(last), Some(seated)) = (meta.last_log_id, *meta.last_membership.log_id()) else {
        return Err("its snapshot is of nothing");
    };
    if image.purged.is_some_and(|purged| purged.index > last.index) {
        return Err("its log is purged beyond its snapshot");
    }
    if seated.index > last.index {
        return Err("its snapshot tells of later votes");
    }
    if !knows_of(image, meta, seated) {
        return Err("its snapshot and its log tell of different votes");
    }
    if value.as_ref().is_some_and(|value| value.len() > VALUE_MAX) {
        return Err("the value in its snapshot is too long");
    }
    Ok(())
}

/// Whether the entry that gave the snapshot its seats, where it is still there, says the same.
fn knows_of(image: &Image, meta: &SnapshotMeta, seated: LogId) -> bool {
    let entry = image.log.get(&seated.index);
    entry.is_none_or(|entry| seats_of(entry) == Some(meta.last_membership.membership()))
}

/// All that it knows by an id: one for each index, none of a leader before the one below it, and
/// none of a leader that this node had not voted for, or let lead, by then.
fn check_order(image: &Image) -> Result<(), Wrong> {
    let snapshot = image.snapshot.as_ref();
    let of_seats = snapshot.and_then(|(meta, _)| *Seats::log_id(&meta.last_membership));
    let known = [image.purged, image.committed, image.covered(), of_seats].into_iter().flatten();
    let mut leaders: BTreeMap<u64, LeaderId> =
        image.log.values().map(|entry| (entry.log_id.index, entry.log_id.leader_id)).collect();
    for LogId { index, leader_id } in known {
        if *leaders.entry(index).or_insert(leader_id) != leader_id {
            return Err("it knows two entries for one place in its log");
        }
    }
    if !leaders.values().is_sorted() {
        return Err("the leaders in its log go back");
    }
    let vote = image.vote.unwrap_or_default();
    let last = leaders.last_key_value();
    if last.is_some_and(|(_, leader)| *leader > vote.leader_id) {
        return Err("its vote is older than its log");
    }
    check_counts(&vote, last.map_or(0, |(index, _)| *index))
}

fn check_counts(vote: &Vote, last: u64) -> Result<(), Wrong> {
    if last > COUNT_MAX || vote.leader_id.term > COUNT_MAX {
        return Err("it counts to an impossible number");
    }
    if vote.committed && vote.leader_id.term == 0 {
        return Err("somebody leads whom nobody has elected");
    }
    Ok(())
}

fn check_seats(
    seats: &openraft::Membership<u64, Box<str>>,
    binding: &Binding,
    me: &str,
) -> Result<(), Wrong> {
    let groups = seats.get_joint_config();
    if groups.is_empty() || groups.iter().any(|group| group.is_empty()) {
        return Err("nobody votes in its log");
    }
    if seats.voter_ids().any(|id| seats.get_node(&id).is_none()) {
        return Err("somebody votes in its log who has no name");
    }
    if seats.get_node(&binding.id).is_some_and(|name| **name != *me) {
        return Err("the seat of this node is that of another one in its log");
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/panics/mod.rs"]
mod panics;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::panics::panics_of;
    use super::*;
    use crate::membership::seat::{Ground, Seat, generation};
    use crate::membership::types::Founding;
    use crate::membership::{Outside, Timing};

    const ME: u64 = 1;

    struct Nobody;

    impl Outside for Nobody {
        fn send(&self, _: &str, _: Bytes) {}
        fn agreed(&self, _: Bytes) {}
        fn leader(&self, _: Option<Box<str>>) {}
    }

    /// Takes part with this image for a while: leads if it can, and wants something agreed.
    fn go_on(image: &Image) -> Result<(), String> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (questions, mut asked) = mpsc::unbounded_channel();
            let (outside, timing) = (Arc::new(Nobody), Timing::default());
            let ground = Ground { folder: None, rule: |_, _| true, outside, questions, timing };
            let seat =
                Seat::take(&ground, image.clone()).await.map_err(|error| error.to_string())?;
            let patience = Duration::from_secs(1);
            let nobody = async { while asked.recv().await.is_some() {} };
            let _ = tokio::time::timeout(patience, nobody).await;
            let _ = (seat.seats(), seat.leader(), seat.is_left_out(), seat.is_seated());
            if seat.is_leader() {
                for _ in 0..40 {
                    seat.propose(Bytes::from_static(b"new")).await;
                }
                tokio::time::sleep(patience).await;
            }
            let state = seat.metrics.borrow().running_state.clone();
            let left = seat.leave().await;
            state.map_err(|fatal| fatal.to_string())?;
            check(&left, "a").map_err(|why| format!("it wrote what it would refuse: {why}"))
        })
    }

    fn id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, node), index)
    }

    fn seats(voters: &[u64]) -> openraft::Membership<u64, Box<str>> {
        let names = voters.iter().map(|id| (*id, if *id == ME { "a" } else { "b" }.into()));
        let names: BTreeMap<u64, Box<str>> = names.collect();
        openraft::Membership::new(vec![voters.iter().copied().collect()], names)
    }

    /// A log as it comes to be: leader after leader, purged, applied, on its way.
    fn lived(
        terms: &[u64],
        alone: bool,
        purged: usize,
        applied: usize,
        committed: usize,
        vote: Vote,
    ) -> Image {
        let voters: &[u64] = if alone { &[ME] } else { &[ME, 2, 3] };
        let founding = Founding { number: 1, random: 7 };
        let mut image = Image::new(Binding { founding, founder: "a".into(), id: ME });
        let mut term = 0;
        for (index, step) in terms.iter().enumerate() {
            term += if index == 0 { 0 } else { *step };
            let payload = match index {
                0 => EntryPayload::Membership(seats(voters)),
                _ if *step == 1 => EntryPayload::Blank,
                _ => EntryPayload::Normal(Bytes::from_static(b"value")),
            };
            let log_id = if index == 0 { id(0, 0, 0) } else { id(term, 2, index as u64) };
            image.log.insert(index as u64, Entry { log_id, payload });
        }
        let at = |image: &Image, index: usize| image.log.get(&(index as u64)).map(|e| e.log_id);
        let last = terms.len().saturating_sub(1);
        let applied = applied.min(last);
        if terms.len() > 1 && applied > 0 {
            let last_log_id = at(&image, applied);
            let last_membership = Seats::new(Some(id(0, 0, 0)), seats(voters));
            let snapshot_id = "made".into();
            let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
            image.snapshot = Some((meta, Some(Bytes::from_static(b"value"))));
            if let Some(upto) = at(&image, purged.min(applied)).filter(|_| purged > 0) {
                image.purge(upto);
            }
        }
        image.committed = image.log.get(&(committed as u64)).map(|entry| entry.log_id);
        image.vote = Some(Vote { leader_id: LeaderId::new(term + vote.leader_id.term, 2), ..vote });
        if vote.leader_id.node_id == ME {
            image.vote = Some(Vote { leader_id: LeaderId::new(term + 1, ME), ..vote });
        }
        image
    }

    fn a_life() -> impl Strategy<Value = Image> {
        let terms = prop::collection::vec(0u64..3, 0..30);
        let vote = (0u64..3, 0u64..4, any::<bool>());
        (terms, any::<bool>(), 0usize..30, 0usize..30, 0usize..30, vote).prop_map(
            |(terms, alone, purged, applied, committed, (term, node, is_committed))| {
                // Nobody leads who was not elected.
                let voted = Vote::new(term, node);
                let is_committed = is_committed && terms.iter().skip(1).any(|step| *step > 0);
                let vote = Vote { committed: is_committed, ..voted };
                lived(&terms, alone, purged, applied, committed, vote)
            },
        )
    }

    fn any_id() -> impl Strategy<Value = LogId> {
        let number = prop_oneof![0u64..20, Just(u64::MAX), Just(COUNT_MAX / 2)];
        (number.clone(), 0u64..4, number).prop_map(|(term, node, index)| id(term, node, index))
    }

    /// What a file may say instead, whoever wrote it.
    #[derive(Clone, Debug)]
    enum Lie {
        Vote(Option<Vote>),
        Committed(Option<LogId>),
        Purged(Option<LogId>),
        Lost(u64),
        Entry(u64, LogId, Vec<u64>),
        Snapshot(Option<(Option<LogId>, Option<LogId>, Vec<u64>)>),
        Binding(u64, u32),
    }

    fn a_lie() -> impl Strategy<Value = Lie> {
        let some_id = || prop::option::of(any_id());
        let vote = (any_id(), any::<bool>())
            .prop_map(|(id, committed)| Vote { leader_id: id.leader_id, committed });
        let voters = || prop::collection::vec(0u64..4, 0..4);
        prop_oneof![
            prop::option::of(vote).prop_map(Lie::Vote),
            some_id().prop_map(Lie::Committed),
            some_id().prop_map(Lie::Purged),
            (0u64..30).prop_map(Lie::Lost),
            (0u64..31, any_id(), voters()).prop_map(|(at, id, voters)| Lie::Entry(at, id, voters)),
            prop::option::of((some_id(), some_id(), voters())).prop_map(Lie::Snapshot),
            (0u64..4, prop_oneof![0u32..3, Just(u32::MAX)])
                .prop_map(|(id, number)| Lie::Binding(id, number)),
        ]
    }

    fn tell(image: &mut Image, lie: Lie) {
        match lie {
            Lie::Vote(vote) => image.vote = vote,
            Lie::Committed(committed) => image.committed = committed,
            Lie::Purged(purged) => image.purged = purged,
            Lie::Lost(index) => drop(image.log.remove(&index)),
            Lie::Entry(at, log_id, voters) => {
                let payload = EntryPayload::Membership(seats(&voters));
                image.log.insert(at, Entry { log_id, payload });
            }
            Lie::Snapshot(None) => image.snapshot = None,
            Lie::Snapshot(Some((last_log_id, seated, voters))) => {
                let last_membership = Seats::new(seated, seats(&voters));
                let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id: "x".into() };
                image.snapshot = Some((meta, None));
            }
            Lie::Binding(id, number) => {
                image.binding.id = id;
                image.binding.founding.number = number;
            }
        }
    }

    proptest! {
        #[test]
        fn what_a_node_lives_through_is_gone_on_with(image in a_life()) {
            prop_assert_eq!(check(&image, "a"), Ok(()));
            let mut went = Ok(());
            prop_assert_eq!(panics_of(|| went = go_on(&image)), 0);
            prop_assert_eq!(went, Ok(()));
        }

        #[test]
        fn what_cannot_be_true_is_refused_or_does_no_harm(
            mut image in a_life(),
            lies in prop::collection::vec(a_lie(), 1..4),
        ) {
            lies.into_iter().for_each(|lie| tell(&mut image, lie));
            if check(&image, "a").is_ok() {
                let mut went = Ok(());
                prop_assert_eq!(panics_of(|| went = go_on(&image)), 0);
                prop_assert_eq!(went, Ok(()));
            }
        }
    }

    #[test]
    fn each_contradiction_is_told() {
        let sound = lived(&[0, 1, 0, 0, 1, 0], false, 2, 4, 5, Vote::new_committed(1, 2));
        assert_eq!(check(&sound, "a"), Ok(()));
        let wrong = |change: &dyn Fn(&mut Image)| {
            let mut image = sound.clone();
            change(&mut image);
            check(&image, "a").expect_err("it is wrong")
        };
        let gap = wrong(&|image| drop(image.log.remove(&4)));
        assert_eq!(gap, "its log has a gap");
        let beyond = wrong(&|image| image.purged = Some(id(2, 2, 9)));
        assert_eq!(beyond, "its log has a gap");
        let purged = wrong(&|image| {
            image.log.clear();
            image.purged = Some(id(2, 2, 9));
        });
        assert_eq!(purged, "its log is purged beyond its snapshot");
        let agreed = wrong(&|image| image.committed = Some(id(2, 2, 6)));
        assert_eq!(agreed, "more is agreed than its log holds");
        let other = wrong(&|image| image.committed = Some(id(2, 3, 5)));
        assert_eq!(other, "it knows two entries for one place in its log");
        let lost = wrong(&|image| image.snapshot = None);
        assert_eq!(lost, "its log is purged, and there is no snapshot");
        let vote = wrong(&|image| image.vote = Some(Vote::new(1, 2)));
        assert_eq!(vote, "its vote is older than its log");
        let back = wrong(&|image| {
            let log_id = id(9, 2, 4);
            image.log.insert(4, Entry { log_id, payload: EntryPayload::Blank });
            image.snapshot.as_mut().unwrap().0.last_log_id = Some(log_id);
        });
        assert_eq!(back, "the leaders in its log go back");
        let seat = wrong(&|image| image.binding.id = 2);
        assert_eq!(seat, "the seat of this node is that of another one in its log");
    }

    #[test]
    fn a_generation_founded_alone_is_sound() {
        let binding =
            Binding { founding: Founding { number: 2, random: 9 }, founder: "a".into(), id: ME };
        let image = generation(binding, Bytes::from_static(b"value"));
        assert_eq!(check(&image, "a"), Ok(()));
        assert_eq!(panics_of(|| assert_eq!(go_on(&image), Ok(()))), 0);
    }

    #[test]
    fn what_no_snapshot_has_yet_is_not_purged() {
        let mut image = lived(&[0, 1, 0, 0], false, 0, 1, 3, Vote::new_committed(1, 2));
        image.purge(id(1, 2, 3));
        assert_eq!((image.purged, image.log.len()), (None, 4));
        let (meta, value) = image.snapshot.clone().unwrap();
        let newer = SnapshotMeta { last_log_id: Some(id(1, 2, 3)), ..meta.clone() };
        image.keep_snapshot(newer, value.clone());
        image.purge(id(1, 2, 3));
        assert_eq!((image.purged, image.log.len()), (Some(id(1, 2, 3)), 0));
        image.keep_snapshot(meta, value);
        assert_eq!(image.covered(), Some(id(1, 2, 3)), "an older one that was overtaken");
        assert_eq!(check(&image, "a"), Ok(()));
    }
}
