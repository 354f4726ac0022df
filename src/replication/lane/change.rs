//! From one view to the next.
//!
//! A member stops, tells all members of the new view what it has applied and can't rule out that
//! they lack, and goes on when it has heard the same from all of them. The highest version of a
//! key wins. So an entry that one survivor has, all have; and one that was acknowledged is there,
//! because every member had applied it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::record::{Change as KeyChange, Outcome, Record};
use crate::version::Version;

/// A flush travels in parts of about this size.
const PART_BYTES: usize = 256 << 10;

/// A view that is being installed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) view: View,
    flushes: BTreeMap<Incarnation, ViewFlush>,
}

/// What came over from the old view; it counts as committed when all members work in the new one.
#[derive(Debug)]
pub(super) struct Carried<W> {
    pub(super) activated: BTreeSet<Incarnation>,
    pub(super) answers: Vec<Answer<W>>,
    keys: Vec<(Bytes, Version)>,
    answered: Vec<Answered>,
    settled: bool,
}

impl<W> Default for Carried<W> {
    fn default() -> Self {
        Self {
            activated: BTreeSet::new(),
            answers: Vec::new(),
            keys: Vec::new(),
            answered: Vec::new(),
            settled: false,
        }
    }
}

impl<W> Carried<W> {
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }
}

/// A remembered outcome has no value: the key's own copy does.
fn with_value<I: Items>(outcome: Outcome, key: &Bytes, items: &mut I) -> Outcome {
    let Outcome::Item(mut item) = outcome else {
        return outcome;
    };
    match Key::new(key).and_then(|key| items.current(key)).map(|record| record.change) {
        Some(KeyChange::Put { value, .. }) => {
            item.value = value;
            Outcome::Item(item)
        }
        _ => Outcome::NotFound,
    }
}

impl<W> Lane<W> {
    /// A newer view is agreed. An older one changes nothing.
    pub fn install<I: Items, O: Outside<W>>(
        &mut self,
        view: &View,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if view.epoch <= self.newest_epoch() {
            return Ok(());
        }
        if view.has_member(self.me) {
            if view.generation != self.view.generation {
                // Founded anew: whatever is here belongs to a group that is gone.
                self.start_over(View::default(), items);
            }
            self.begin_change(view.clone(), items, out)
        } else {
            self.start_over(view.clone(), items);
            self.replay(items, out)
        }
    }

    /// Out of the group, or a learner that is filled anew: what is here is worth nothing.
    fn start_over<I: Items>(&mut self, view: View, items: &mut I) {
        self.role = if view.has_learner(self.me) { Role::Learner } else { Role::Outsider };
        self.change = None;
        self.stream = Outgoing::default();
        self.incoming.clear();
        self.carried = Carried::default();
        self.requests.abandon();
        self.results.clear();
        self.owners = Owners::of(&view);
        items.wipe();
        items.set_floor(view.floor);
        self.view = view;
    }

    fn begin_change<I: Items, O: Outside<W>>(
        &mut self,
        view: View,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let mine = self.uncommitted(items);
        let others: Vec<_> = view.others(self.me).collect();
        self.change = Some(Change { view, flushes: BTreeMap::from([(self.me, mine.clone())]) });
        for part in mine.into_parts(PART_BYTES) {
            for &other in &others {
                self.tell(other, LaneMessage::ViewFlush(part.clone()), out);
            }
        }
        self.activate_when_complete(items, out)?;
        self.replay(items, out)
    }

    /// A member of the new view has told what it has.
    pub(super) fn flushed<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        flush: ViewFlush,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if !flush.records.iter().all(is_sane) {
            return Err(Violation("a record without a legal key or version"));
        }
        let Some(change) = &mut self.change else {
            return Ok(());
        };
        let heard = change.flushes.entry(from).or_default();
        heard.records.extend(flush.records);
        heard.answered.extend(flush.answered);
        heard.last = flush.last;
        let was_waiting = self.activate_when_complete(items, out)?;
        if was_waiting { self.replay(items, out) } else { Ok(()) }
    }

    /// The present state of every key that has changed and may not have changed everywhere.
    pub(super) fn uncommitted<I: Items>(&self, items: &mut I) -> ViewFlush {
        let received = self.incoming.values().flat_map(Incoming::uncommitted);
        let streamed: Vec<&Entry> = self.stream.uncommitted().chain(received).collect();
        let carried = self.carried.keys.iter().map(|(key, version)| (key, *version));
        let changed = streamed.iter().map(|entry| (&entry.key, entry.version)).chain(carried);
        let mut newest: BTreeMap<&Bytes, Version> = BTreeMap::new();
        for (key, version) in changed {
            let known = newest.entry(key).or_default();
            *known = version.max(*known);
        }
        let answered = streamed.iter().filter_map(|entry| entry.answered.as_ref());
        let answered = answered.chain(&self.carried.answered).cloned().collect();
        let state_of = |(key, version): (&Bytes, Version)| {
            let present = Key::new(key).and_then(|key| items.current(key));
            present.unwrap_or_else(|| Record {
                key: key.clone(),
                version,
                change: KeyChange::Delete,
            })
        };
        let records = newest.into_iter().map(state_of).collect();
        ViewFlush { records, answered, last: true }
    }

    fn activate_when_complete<I: Items, O: Outside<W>>(
        &mut self,
        items: &mut I,
        out: &mut O,
    ) -> Result<bool, Violation> {
        let heard_all = |change: &Change| {
            let mut members = change.view.members.iter();
            members.all(|member| {
                change.flushes.get(&member.incarnation).is_some_and(|flush| flush.last)
            })
        };
        if !self.change.as_ref().is_some_and(heard_all) {
            return Ok(false);
        }
        let Some(Change { view, flushes }) = self.change.take() else {
            return Ok(false);
        };
        self.merge(flushes.into_values(), items);
        self.enter(view, items, out);
        Ok(true)
    }

    /// The highest version of each key wins; of equal ones, the one that still has the item
    /// (the other has evicted it).
    fn merge<I: Items>(&mut self, flushes: impl Iterator<Item = ViewFlush>, items: &mut I) {
        let mut winners: BTreeMap<Bytes, Record<Bytes>> = BTreeMap::new();
        let mut merged = Vec::new();
        let rank = |record: &Record<Bytes>| (record.version, record.change != KeyChange::Delete);
        for flush in flushes {
            merged.extend(flush.answered);
            for record in flush.records {
                match winners.get(&record.key) {
                    Some(winner) if rank(winner) >= rank(&record) => {}
                    _ => {
                        winners.insert(record.key.clone(), record);
                    }
                }
            }
        }
        merged.iter().for_each(|answered| self.results.record(answered));
        winners.values().for_each(|record| items.apply(record));
        let keys = winners.into_values().map(|record| (record.key, record.version));
        self.carried.keys = keys.collect();
        self.carried.answered = merged;
    }

    fn enter<I: Items, O: Outside<W>>(&mut self, view: View, items: &mut I, out: &mut O) {
        let epoch = view.epoch;
        let learners = view.learners.iter().map(|learner| learner.incarnation);
        let stream = Outgoing::to(view.others(self.me), learners);
        let old_answers = std::mem::replace(&mut self.stream, stream).into_answers();
        // Those of other nodes ask again, or know: their own entries came with the flushes.
        let here = |answer: &Answer<W>| matches!(answer.origin, Origin::Here(_));
        self.carried.answers.extend(old_answers);
        self.carried.answers.retain(here);
        self.carried.activated = BTreeSet::from([self.me]);
        self.carried.settled = false;
        self.role = Role::Member;
        self.owners = Owners::of(&view);
        self.versions = Versions::new(epoch, self.seed.rotate_left(epoch.0 % 64));
        self.incoming.clear();
        self.results.keep(|origin| view.has_member(origin));
        items.set_floor(view.floor);
        self.view = view;
        self.events.push(Event::Active(epoch));
        let others: Vec<_> = self.view.others(self.me).collect();
        for other in others {
            self.tell(other, LaneMessage::Activated, out);
        }
        self.ask_again(items, out);
        self.start_filling(items, out);
        self.settle(out);
    }

    /// Completes requests whose entry survived, and sends the others to their new owners, in order.
    fn ask_again<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        for counter in self.requests.counters() {
            if let Some(outcome) = self.results.get(RequestId { origin: self.me, counter }) {
                if let Some(Request { key, waiter, .. }) = self.requests.remove(counter) {
                    let outcome = with_value(outcome, &key, items);
                    self.carried.answers.push(Answer { origin: Origin::Here(waiter), outcome });
                }
                continue;
            }
            if self.requests.get(counter).is_some_and(|request| !out.still_waits(&request.waiter)) {
                // Its client was told that the outcome is unknown. Carried out now, it could undo
                // what that client has done since: a late set would bring back a session.
                self.requests.remove(counter);
                continue;
            }
            let owner = self.requests.get(counter).and_then(|request| {
                Key::new(&request.key).and_then(|key| self.owners.owner(key.hash()))
            });
            if owner != Some(self.me) {
                self.forward(counter, out);
                continue;
            }
            if let Some(Request { key, mutation, waiter }) = self.requests.remove(counter)
                && let Some(key) = Key::new(&key)
            {
                let mutation = mutation.map(|value| value.as_ref());
                self.decide(key, &mutation, Origin::Here(waiter), None, items, out);
            }
        }
    }

    /// When all members work in the new view, what came over is committed.
    pub(super) fn settle<O: Outside<W>>(&mut self, out: &mut O) {
        let all = |member: &crate::replication::Member| {
            self.carried.activated.contains(&member.incarnation)
        };
        if self.role != Role::Member || self.carried.settled || !self.view.members.iter().all(all) {
            return;
        }
        self.carried.settled = true;
        self.carried.keys.clear();
        self.carried.answered.clear();
        for answer in std::mem::take(&mut self.carried.answers) {
            self.give(answer, out);
        }
        self.events.push(Event::Settled(self.view.epoch));
    }

    /// Takes up messages that came before their view.
    fn replay<I: Items, O: Outside<W>>(
        &mut self,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        for (from, epoch, message) in std::mem::take(&mut self.early) {
            self.receive(from, epoch, message, items, out)?;
        }
        Ok(())
    }
}
