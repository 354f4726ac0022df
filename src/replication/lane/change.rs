//! From one view to the next.
//!
//! A member stops, tells all members of the new view what it has applied and can't rule out that
//! they lack, and goes on when it has heard the same from all of them. The highest version of a
//! key wins. So an entry that one survivor has, all have; and one that was acknowledged is there,
//! because every member had applied it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::record::Change as KeyChange;
use crate::replication::Member;
use crate::version::Version;

/// A flush travels in parts of about this size.
const PART_BYTES: usize = 256 << 10;

/// A view that is being installed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) view: View,
    /// Whether the others know what is here.
    told: bool,
    flushes: BTreeMap<Incarnation, ViewFlush>,
    /// Since when it waits for others.
    waits: Option<Millis>,
}

impl Change {
    /// Those that others have been waiting for all this time.
    pub(super) fn missing(&mut self, for_ms: u64, now: Millis) -> Vec<Incarnation> {
        let since = *self.waits.get_or_insert(now);
        if !self.told || now.since(since) < for_ms {
            return Vec::new();
        }
        let has_told = |life: &Incarnation| self.flushes.get(life).is_some_and(|it| it.last);
        let members = self.view.members.iter().map(|member| member.incarnation);
        members.filter(|life| !has_told(life)).collect()
    }
}

/// What came over from the old view; it counts as committed when all members work in the new one.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) activated: BTreeSet<Incarnation>,
    pub(super) answers: Vec<Answer>,
    keys: Vec<(Bytes, Version)>,
    answered: Vec<Answered>,
    settled: bool,
}

impl Carried {
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }
}

/// A remembered outcome has no value: the key's own copy does.
pub(super) fn with_value<I: Items>(outcome: Outcome, key: &Bytes, items: &mut I) -> Outcome {
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
    /// A newer view is agreed: nothing of the old one is decided, applied or acknowledged any more.
    /// An older one changes nothing.
    pub fn install<I: Items, O: Outside<W>>(
        &mut self,
        view: &View,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if view.epoch <= self.newest_epoch() {
            return Ok(());
        }
        if view.generation != self.view.generation {
            items.wipe();
            self.role = Role::Outsider;
        }
        let me = self.options.me;
        let is_full = self.role == Role::Member || view.is_founding() || self.change.is_some();
        if view.has_member(me) && (is_full || self.is_filled_for(view)) {
            let flushes = BTreeMap::new();
            let view = view.clone();
            self.change = Some(Change { view, flushes, told: false, waits: None });
            return Ok(());
        }
        self.start_over(view.clone(), items, out);
        self.replay(items, out)
    }

    /// Nobody who is left out relies on a promise of this node any more: it tells what it has.
    pub fn flush<I: Items, O: Outside<W>>(
        &mut self,
        epoch: Epoch,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if !self.change.as_ref().is_some_and(|change| change.view.epoch == epoch && !change.told) {
            return Ok(());
        }
        let mine = self.uncommitted(items);
        self.lost.tell_all();
        self.is_told = true;
        let Some(change) = &mut self.change else {
            return Ok(());
        };
        change.told = true;
        change.flushes.insert(self.options.me, mine.clone());
        let others: Vec<_> = change.view.others(self.options.me).collect();
        for part in mine.into_parts(PART_BYTES) {
            for &other in &others {
                self.tell(other, LaneMessage::ViewFlush(part.clone()), out);
            }
        }
        self.activate_when_complete(items, out)?;
        self.replay(items, out)
    }

    /// Out of the group, or a learner: nobody may rely on what is here. It stays all the same, to be
    /// compared with what the owners have, unless it is of another line of views, where versions
    /// may mean something else. What clients of this node wait for goes to the owners.
    fn start_over<I: Items, O: Outside<W>>(&mut self, view: View, items: &mut I, out: &mut O) {
        if view.line != self.view.line {
            items.wipe();
        }
        self.start_learning(&view, out.local_time());
        self.role = if view.has_learner(self.options.me) { Role::Learner } else { Role::Outsider };
        self.change = None;
        self.is_told = false;
        self.stream = Outgoing::default();
        self.incoming.clear();
        self.pending.clear();
        self.carried = Carried::default();
        self.unproven.clear();
        self.unchanged.clear();
        self.detours = Detours::default();
        self.lost.clear();
        self.results.clear();
        self.fillings.clear();
        self.owners = Owners::of(&view);
        items.set_floor(view.floor);
        if !view.remembers(self.options.me) {
            self.requests.abandon_sent();
        }
        self.view = view;
        for counter in self.requests.counters() {
            self.dispatch(counter, items, out);
        }
    }

    /// A member of the new view has told what it has.
    pub(super) fn flushed<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        flush: ViewFlush,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let epoch = self.newest_epoch();
        if !flush.records.iter().all(|record| is_sane(record, epoch)) {
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
        if !self.options.rules.roll_forward {
            return ViewFlush { last: true, ..ViewFlush::default() };
        }
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
        let evicted = self.lost.as_evictions().filter(|record| !newest.contains_key(&record.key));
        let evicted: Vec<_> = evicted.collect();
        let records = newest.into_iter().map(state_of).chain(evicted).collect();
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
        let Some(Change { view, flushes, .. }) = self.change.take() else {
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
        let stream = Outgoing::to(view.others(self.options.me), learners);
        let old_learners = std::mem::take(&mut self.view.learners);
        // Whoever waits asks again, or finds its outcome among those that came over.
        self.stream = stream;
        self.unproven.clear();
        self.unchanged.clear();
        self.detours = Detours::default();
        self.carried.answers.clear();
        self.pending.clear();
        self.carried.keys.iter().for_each(|(key, _)| self.pending.add(key));
        self.carried.activated = BTreeSet::from([self.options.me]);
        self.carried.settled = false;
        self.role = Role::Member;
        self.is_told = false;
        self.owners = Owners::of(&view);
        self.versions = Versions::new(epoch, self.options.seed.rotate_left(epoch.0 % 64));
        self.incoming.clear();
        self.fillings.clear();
        self.learning.clear();
        self.joining = None;
        self.results.keep(|origin| view.remembers(origin));
        items.set_floor(view.floor);
        self.view = view;
        self.events.push(Event::Active(epoch));
        let others: Vec<_> = self.view.others(self.options.me).collect();
        for other in others {
            self.tell(other, LaneMessage::Activated, out);
        }
        self.resettle_lost(items, out);
        if !self.options.rules.refill {
            self.count_former(&old_learners);
        }
        self.ask_again(items, out);
        self.start_filling(items, out);
        self.settle(out);
    }

    /// The rule that learners are filled anew is off: those of the old view are taken for filled.
    fn count_former(&mut self, old_learners: &[Member]) {
        for learner in old_learners.iter().map(|learner| learner.incarnation) {
            if self.view.has_learner(learner) {
                self.stream.count_unseen(learner);
                self.events.push(Event::Counted(self.view.epoch, learner));
            }
        }
    }

    /// Completes requests whose entry survived, and gives the others to their new owners, in order.
    fn ask_again<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        for counter in self.requests.counters() {
            let request = RequestId { origin: self.options.me, counter };
            let is_known = self.options.rules.dedupe;
            if let (true, Known::Decided(outcome)) = (is_known, self.results.get(request)) {
                let key = self.requests.get(counter).map(|request| request.key.clone());
                let outcome = with_value(outcome, &key.unwrap_or_default(), items);
                self.carried.answers.push(Answer { request, outcome, is_read: false });
            } else if self
                .requests
                .get(counter)
                .is_some_and(|request| !out.still_waits(&request.waiter))
            {
                // Its client was told that the outcome is unknown. Carried out now, it could undo
                // what that client has done since: a late set would bring back a session.
                self.requests.remove(counter);
            } else {
                self.dispatch(counter, items, out);
            }
        }
    }

    /// When all members work in the new view, what came over is committed.
    pub(super) fn settle<O: Outside<W>>(&mut self, out: &mut O) {
        let all = |member: &Member| self.carried.activated.contains(&member.incarnation);
        let is_everywhere = !self.options.rules.late_commit || self.view.members.iter().all(all);
        if self.role != Role::Member || self.carried.settled || !is_everywhere {
            return;
        }
        self.carried.settled = true;
        for (key, _) in std::mem::take(&mut self.carried.keys) {
            self.pending.remove(&key);
        }
        self.carried.answered.clear();
        for answer in std::mem::take(&mut self.carried.answers) {
            // It may rest on what was decided in this view already, too.
            self.stream.answer_later(answer);
        }
        self.commit(out);
        self.events.push(Event::Settled(self.view.epoch));
    }
}
