//! One lane: the ordered streams of one sixteenth of the keys, within views.
//!
//! As the owner of a key it decides, appends to its stream and answers when every member has
//! applied. As a member it applies the other owners' streams and acknowledges. It lives under
//! its shard's lock and knows nothing of other lanes.

mod change;
mod requests;
mod stream;
mod sync;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::change::{Carried, Change};
use self::requests::{Request, Requests, Results};
use self::stream::{Answer, Entry, Incoming, Origin, Outgoing};
use super::message::{
    Answered, Apply, Fwd, FwdDone, LaneMessage, Message, RequestId, ViewFlush, is_sane,
};
use super::view::{Incarnation, Owners, View};
use super::{Items, Outside};
use crate::key::{Key, KeyHash};
use crate::record::Mutation;
use crate::version::{Epoch, Versions};

/// What the group has to know about a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This lane works in this view.
    Active(Epoch),
    /// So do the lanes of all members: what came over from the old view is committed.
    Settled(Epoch),
    /// This lane has filled that learner and counts its acks.
    Counted(Epoch, Incarnation),
}

/// A peer broke the rules of a stream; its link has to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// See the module.
#[derive(Debug)]
pub struct Lane<W> {
    id: u8,
    me: Incarnation,
    seed: u64,
    versions: Versions,
    view: View,
    owners: Owners,
    role: Role,
    change: Option<Change>,
    stream: Outgoing<W>,
    incoming: BTreeMap<Incarnation, Incoming>,
    carried: Carried<W>,
    requests: Requests<W>,
    results: Results,
    /// Messages of epochs that are not active here yet.
    early: Vec<(Incarnation, Epoch, LaneMessage)>,
    events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// In no view.
    Outsider,
    /// Being filled.
    Learner,
    /// Holds everything.
    Member,
}

impl<W> Lane<W> {
    /// A lane outside of any view. `seed` makes its versions hard to guess.
    pub fn new(id: u8, me: Incarnation, seed: u64) -> Self {
        Self {
            id,
            me,
            seed,
            versions: Versions::new(Epoch(0), 0),
            view: View::default(),
            owners: Owners::default(),
            role: Role::Outsider,
            change: None,
            stream: Outgoing::default(),
            incoming: BTreeMap::new(),
            carried: Carried::default(),
            requests: Requests::default(),
            results: Results::default(),
            early: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether this node is the whole group, so that a decision is final at once.
    pub fn is_alone(&self) -> bool {
        self.role == Role::Member && self.change.is_none() && self.stream.has_no_receivers()
    }

    /// Whether reads may be answered from here. A copy that is being filled, or was left out, lacks
    /// what others have.
    pub fn is_member(&self) -> bool {
        self.role == Role::Member
    }

    /// Versions for decisions of a lane that is alone.
    pub fn versions(&mut self) -> &mut Versions {
        &mut self.versions
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A client of this node wants a change; `waiter` is answered when it is done everywhere.
    pub fn mutate<I: Items, O: Outside<W>>(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        waiter: W,
        items: &mut I,
        out: &mut O,
    ) {
        let stopped = self.change.is_some() || self.role != Role::Member;
        if !stopped && self.owners.owner(key.hash()) == Some(self.me) {
            return self.decide(key, mutation, Origin::Here(waiter), None, items, out);
        }
        let counter = self.requests.add(Request {
            key: Bytes::copy_from_slice(key.bytes()),
            mutation: mutation.map(|value| Bytes::copy_from_slice(value)),
            waiter,
        });
        // Otherwise it leaves with the next view.
        if !stopped {
            self.forward(counter, out);
        }
    }

    /// A peer speaks about this lane.
    pub fn receive<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        epoch: Epoch,
        message: LaneMessage,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let is_flush = matches!(message, LaneMessage::ViewFlush(_));
        if epoch < self.newest_epoch() {
            return Ok(());
        }
        if epoch > self.newest_epoch() || (self.change.is_some() && !is_flush) {
            self.early.push((from, epoch, message));
            return Ok(());
        }
        self.receive_current(from, message, items, out)
    }

    fn receive_current<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        message: LaneMessage,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        match message {
            LaneMessage::Fwd(fwd) => self.decide_for(from, fwd, items, out),
            LaneMessage::FwdDone(done) => {
                self.finish(done, out);
                Ok(())
            }
            LaneMessage::Apply(apply) => self.apply(from, apply, items, out),
            LaneMessage::AppliedUpTo(position) => {
                self.stream.acked(from, position)?;
                self.commit(out);
                self.count_if_caught_up(from);
                Ok(())
            }
            LaneMessage::CommitUpTo(position) => {
                self.incoming.entry(from).or_default().commit(position);
                Ok(())
            }
            LaneMessage::ViewFlush(flush) => self.flushed(from, flush, items, out),
            LaneMessage::Activated => {
                self.carried.activated.insert(from);
                self.settle(out);
                Ok(())
            }
            LaneMessage::SnapChunk(records) => self.fill(from, &records, items, out),
            LaneMessage::SnapEnd(answered) => {
                answered.iter().for_each(|answered| self.results.record(answered));
                self.tell(from, LaneMessage::SnapAck, out);
                Ok(())
            }
            LaneMessage::SnapAck => {
                self.stream.chunk_acked(from)?;
                self.pump(from, items, out);
                self.count_if_caught_up(from);
                Ok(())
            }
        }
    }

    /// Lets the members know what is committed, so that they may forget it.
    pub fn tick<O: Outside<W>>(&mut self, out: &mut O) {
        if let Some(position) = self.stream.unannounced() {
            let receivers: Vec<_> = self.stream.receivers().collect();
            for receiver in receivers {
                self.tell(receiver, LaneMessage::CommitUpTo(position), out);
            }
        }
    }

    /// The owner's path: decide, append, and answer when all have it.
    fn decide<I: Items, O: Outside<W>>(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        origin: Origin<W>,
        request: Option<(RequestId, u64)>,
        items: &mut I,
        out: &mut O,
    ) {
        let decision = items.decide(key, mutation, &mut self.versions);
        let answer = Answer { origin, outcome: decision.outcome };
        let Some(record) = decision.record else {
            return self.answer_when_sure(answer, out);
        };
        let answered = request.map(|(request, done_up_to)| Answered {
            request,
            done_up_to,
            outcome: answer.outcome.without_value(),
        });
        if let Some(answered) = &answered {
            self.results.record(answered);
        }
        let position = self.stream.append(
            Entry { key: record.key.clone(), version: record.version, answered: answered.clone() },
            answer,
        );
        let committed = self.stream.announce();
        let apply = Apply { position, committed, record, answered };
        let receivers: Vec<_> = self.stream.receivers().collect();
        for receiver in receivers {
            self.tell(receiver, LaneMessage::Apply(apply.clone()), out);
        }
        self.commit(out);
    }

    fn decide_for<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        fwd: Fwd,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let key = Key::new(&fwd.key).ok_or(Violation("a forwarded key of no legal length"))?;
        if self.owners.owner(key.hash()) != Some(self.me) {
            return Err(Violation("a forward for a key that is not owned here"));
        }
        let request = RequestId { origin: from, counter: fwd.counter };
        self.results.prune(from, fwd.done_up_to);
        let origin = Origin::There(from, fwd.counter);
        if let Some(outcome) = self.results.get(request) {
            self.answer_when_sure(Answer { origin, outcome }, out);
            return Ok(());
        }
        let mutation = fwd.mutation.map(|value| value.as_ref());
        self.decide(key, &mutation, origin, Some((request, fwd.done_up_to)), items, out);
        Ok(())
    }

    fn forward<O: Outside<W>>(&self, counter: u64, out: &mut O) {
        let Some(request) = self.requests.get(counter) else {
            return;
        };
        let Some(owner) = Key::new(&request.key).and_then(|key| self.owners.owner(key.hash()))
        else {
            return;
        };
        let fwd = Fwd {
            counter,
            done_up_to: self.requests.done_up_to(),
            key: request.key.clone(),
            mutation: request.mutation.clone(),
        };
        self.tell(owner, LaneMessage::Fwd(fwd), out);
    }

    fn finish<O: Outside<W>>(&mut self, done: FwdDone, out: &mut O) {
        // The owner reports after all members have applied, this one included. A second report,
        // after a view change, finds nobody waiting.
        if let Some(request) = self.requests.remove(done.counter) {
            out.answer(request.waiter, done.outcome);
        }
    }

    fn apply<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        apply: Apply,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if !is_sane(&apply.record) {
            return Err(Violation("a record without a legal key or version"));
        }
        let incoming = self.incoming.entry(from).or_default();
        let entry = Entry {
            key: apply.record.key.clone(),
            version: apply.record.version,
            answered: apply.answered,
        };
        if let Some(answered) = &entry.answered {
            self.results.record(answered);
        }
        incoming.applied(apply.position, entry)?;
        incoming.commit(apply.committed);
        items.apply(&apply.record);
        self.tell(from, LaneMessage::AppliedUpTo(apply.position), out);
        Ok(())
    }

    /// An answer without a record may rest on changes that not everybody has yet: they come first.
    fn answer_when_sure<O: Outside<W>>(&mut self, answer: Answer<W>, out: &mut O) {
        if self.carried.is_settled() {
            self.stream.answer_later(answer);
            self.commit(out);
        } else {
            self.carried.answers.push(answer);
        }
    }

    /// Answers whatever has become committed.
    fn commit<O: Outside<W>>(&mut self, out: &mut O) {
        self.stream.advance();
        while let Some(answer) = self.stream.next_answer() {
            self.give(answer, out);
        }
    }

    fn give<O: Outside<W>>(&self, answer: Answer<W>, out: &mut O) {
        match answer.origin {
            Origin::Here(waiter) => out.answer(waiter, answer.outcome),
            Origin::There(origin, counter) => {
                let done = FwdDone { counter, outcome: answer.outcome };
                self.tell(origin, LaneMessage::FwdDone(done), out);
            }
        }
    }

    fn tell<O: Outside<W>>(&self, to: Incarnation, message: LaneMessage, out: &mut O) {
        out.send(to, Message::Lane(self.id, self.newest_epoch(), message));
    }

    /// The epoch that this lane works in or is changing to.
    fn newest_epoch(&self) -> Epoch {
        self.change.as_ref().map_or(self.view.epoch, |change| change.view.epoch)
    }
}

#[cfg(test)]
mod tests;
