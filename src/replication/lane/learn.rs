//! The learner's half of being filled: what it has is compared with what each owner has, slot by
//! slot, and where that differs it goes, whatever its version. The view is right.
//!
//! Until an owner's slot is known to be equal, what lies there may be anything of the past. Nobody
//! reads it, as a learner answers nothing; and no change may build on it.

use super::*;
use crate::key::SLOTS;
use crate::record::Change as KeyChange;
use crate::record::Digest;

/// What a learner knows of the items of one owner.
#[derive(Debug)]
pub(super) enum Learning {
    /// It drops what it has in those slots, which differ.
    Dropping { wanted: Vec<u16>, slots: Slots, cursor: u64 },
    /// What it has is right, and the owner is sending what is missing.
    Sure,
}

/// A life as a learner, over however many views.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    since: Millis,
    before: SyncFigures,
}

impl<W> Lane<W> {
    /// A view that this node is not a member of: as a learner it is compared with all owners anew.
    pub(super) fn start_learning(&mut self, view: &View, now: Millis) {
        self.learning.clear();
        if !view.has_learner(self.options.me) {
            self.joining = None;
            return;
        }
        if self.joining.is_none() {
            self.joining = Some(Joining { since: now, before: self.figures });
        }
        if !self.options.rules.refill && self.role == Role::Learner {
            // The rule is off: what the owners of the old view have sent is taken for right.
            let members = view.members.iter().map(|member| member.incarnation);
            self.learning.extend(members.map(|owner| (owner, Learning::Sure)));
        }
    }

    /// If that view makes a member of this learner: since when it was one, and what it took.
    pub fn joined(&self, view: &View) -> Option<(Millis, SyncFigures)> {
        let Joining { since, before } = self.joining?;
        let is_admitted = view.has_member(self.options.me) && self.is_filled_for(view);
        is_admitted.then(|| (since, self.figures.since(before)))
    }

    /// Whether this learner has all that a view needs that has it as a member. Views between the two
    /// that it never heard of had it as a member as well, as it can't have been filled in one of them;
    /// so nobody works in any of them without it, and what it has is what it was admitted with.
    pub(super) fn is_filled_for(&self, view: &View) -> bool {
        self.role == Role::Learner && self.view.line == view.line
    }

    /// An owner has told what it has: one digest for each of its slots.
    pub(super) fn compare<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        digests: &[Digest],
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let owned = self.slots_of(from);
        let is_first = self.role == Role::Learner && !self.learning.contains_key(&from);
        if !is_first || owned.len() != digests.len() {
            return Err(Violation("digests that make no sense here"));
        }
        self.figures.rounds += 1;
        let (mut wanted, mut has_any) = (Vec::new(), false);
        for (slot, digest) in owned.into_iter().zip(digests) {
            let own = items.digest(usize::from(slot));
            self.figures.slots_compared += u64::from(!(own.is_empty() && digest.is_empty()));
            if own == *digest {
                self.figures.slots_equal += u64::from(!own.is_empty());
            } else {
                has_any |= !own.is_empty();
                wanted.push(slot);
            }
        }
        if !has_any {
            self.ask_for(from, wanted, out);
            return Ok(());
        }
        let slots = wanted.iter().copied().map(usize::from).collect();
        self.learning.insert(from, Learning::Dropping { wanted, slots, cursor: 0 });
        self.drop_piece(from, items, out);
        Ok(())
    }

    /// The slots of this lane that belong to a member, in order.
    pub(super) fn slots_of(&self, owner: Incarnation) -> Vec<u16> {
        let lane = usize::from(self.options.id);
        let is_its = |slot: &usize| self.owners.owner(KeyHash::of_slot(lane, *slot)) == Some(owner);
        (0..SLOTS).filter(is_its).map(|slot| slot as u16).collect()
    }

    /// Drops some of what differs; when all is gone, asks the owner for what belongs there.
    pub(super) fn drop_piece<I: Items, O: Outside<W>>(
        &mut self,
        owner: Incarnation,
        items: &mut I,
        out: &mut O,
    ) {
        let Some(Learning::Dropping { wanted, slots, cursor }) = self.learning.get_mut(&owner)
        else {
            return;
        };
        // What has come in this view is right, and would not come again.
        let floor = Version::floor_of(self.view.epoch);
        let is_old = |key: KeyHash, version: Version| version < floor && slots.has(key.slot());
        let (dropped, next) = items.drop_some(*cursor, &is_old);
        self.figures.items_dropped += dropped;
        match next {
            Some(next) => *cursor = next,
            None => {
                let wanted = std::mem::take(wanted);
                self.ask_for(owner, wanted, out);
            }
        }
    }

    fn ask_for<O: Outside<W>>(&mut self, owner: Incarnation, wanted: Vec<u16>, out: &mut O) {
        self.learning.insert(owner, Learning::Sure);
        self.tell(owner, LaneMessage::SnapWant(wanted), out);
    }

    /// Owners whose slots are being dropped here.
    pub(super) fn dropping(&self) -> Vec<Incarnation> {
        let is_dropping =
            |(_, learning): &(_, &Learning)| matches!(learning, Learning::Dropping { .. });
        self.learning.iter().filter(is_dropping).map(|(&owner, _)| owner).collect()
    }

    /// A record as a learner may apply it. One without a value builds on the value that is here, and
    /// that may be of the past: the key is dropped instead, so that its slot differs and is sent.
    pub(super) fn as_applicable(
        &mut self,
        owner: Incarnation,
        record: Record<Bytes>,
    ) -> Record<Bytes> {
        let is_unsure = |key: KeyHash| match self.learning.get(&owner) {
            None => true,
            Some(Learning::Dropping { slots, .. }) => slots.has(key.slot()),
            Some(Learning::Sure) => false,
        };
        let builds = matches!(record.change, KeyChange::Meta { .. });
        if self.role != Role::Learner
            || !builds
            || !Key::new(&record.key).is_some_and(|key| is_unsure(key.hash()))
        {
            return record;
        }
        self.figures.items_unsure += 1;
        Record { change: KeyChange::Delete, ..record }
    }

    /// A learner takes items.
    pub(super) fn fill<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        records: &[Record<Bytes>],
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let is_sure = matches!(self.learning.get(&from), Some(Learning::Sure));
        let are_sane = records.iter().all(|record| is_sane(record, self.view.epoch));
        if self.role != Role::Learner || !is_sure || !are_sane {
            return Err(Violation("a snapshot chunk that makes no sense here"));
        }
        for record in records {
            self.figures.items_received += 1;
            self.figures.bytes_received += record.size() as u64;
            items.apply(record);
        }
        self.settle_lost(items, out);
        self.tell(from, LaneMessage::SnapAck, out);
        Ok(())
    }

    /// A learner has everything of this owner, with what is known of requests.
    pub(super) fn finish_filling<O: Outside<W>>(
        &mut self,
        from: Incarnation,
        answered: &[Answered],
        out: &mut O,
    ) -> Result<(), Violation> {
        let is_sure = matches!(self.learning.get(&from), Some(Learning::Sure));
        if self.role != Role::Learner || !is_sure {
            return Err(Violation("the end of a snapshot that has not begun"));
        }
        answered.iter().for_each(|answered| self.results.record(answered));
        self.tell(from, LaneMessage::SnapAck, out);
        Ok(())
    }
}
