//! The two ends of a stream: what an owner has sent, and what a member has applied.
//!
//! Positions are dense from 1 within (epoch, owner, lane). Acks are cumulative.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Violation;
use super::pending::Pending;
use crate::record::Outcome;
use crate::replication::Incarnation;
use crate::replication::message::{Answered, RequestId};
use crate::time::Millis;
use crate::version::Version;

/// A change that may not be everywhere yet.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) version: Version,
    pub(super) answered: Option<Answered>,
}

/// An answer that waits for its commit.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) request: RequestId,
    pub(super) outcome: Outcome,
    /// It changes nothing, so that no commit proves it.
    pub(super) is_read: bool,
}

/// The stream that this node sends as an owner.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    appended: u64,
    committed: u64,
    announced: u64,
    /// Those above `committed`.
    entries: VecDeque<Entry>,
    /// By the position that has to be committed first.
    answers: VecDeque<(u64, Answer)>,
    receivers: Vec<Receiver>,
}

/// A node that the stream goes to.
#[derive(Debug)]
struct Receiver {
    incarnation: Incarnation,
    acked: u64,
    part: Part,
    /// Where its acks stand still, and since when.
    stands: Option<(u64, Millis)>,
}

/// What a receiver's acks are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing is committed without it.
    Counted,
    /// A learner that may lack something.
    Filling,
}

impl Outgoing {
    /// An empty stream to these members and learners.
    pub(super) fn to(
        members: impl Iterator<Item = Incarnation>,
        learners: impl Iterator<Item = Incarnation>,
    ) -> Self {
        let receiver = |incarnation, part| Receiver { incarnation, acked: 0, part, stands: None };
        let member = |incarnation| receiver(incarnation, Part::Counted);
        let learner = |incarnation| receiver(incarnation, Part::Filling);
        Self {
            receivers: members.map(member).chain(learners.map(learner)).collect(),
            ..Self::default()
        }
    }

    pub(super) fn has_no_receivers(&self) -> bool {
        self.receivers.is_empty()
    }

    pub(super) fn receivers(&self) -> impl Iterator<Item = Incarnation> {
        self.receivers.iter().map(|receiver| receiver.incarnation)
    }

    /// How many records each receiver has not acknowledged.
    pub(super) fn lags(&self) -> impl Iterator<Item = (Incarnation, u64)> {
        self.receivers.iter().map(|receiver| (receiver.incarnation, self.appended - receiver.acked))
    }

    /// Adds an entry and the answer that waits for it; returns its position.
    pub(super) fn append(
        &mut self,
        entry: Entry,
        answer: Option<Answer>,
        pending: &mut Pending,
    ) -> u64 {
        self.appended += 1;
        pending.add(&entry.key);
        self.entries.push_back(entry);
        self.answers.extend(answer.map(|answer| (self.appended, answer)));
        self.appended
    }

    /// Holds an answer until everything appended so far is committed.
    pub(super) fn answer_later(&mut self, answer: Answer) {
        self.answers.push_back((self.appended, answer));
    }

    pub(super) fn acked(&mut self, from: Incarnation, position: u64) -> Result<(), Violation> {
        if position > self.appended {
            return Err(Violation("an ack for what was never sent"));
        }
        let receiver = self.receiver(from)?;
        receiver.acked = receiver.acked.max(position);
        Ok(())
    }

    /// Moves the commit as far as all that count have acked.
    pub(super) fn advance(&mut self, pending: &mut Pending) {
        let counted = self.receivers.iter().filter(|receiver| receiver.part == Part::Counted);
        let everywhere = counted.map(|receiver| receiver.acked).min().unwrap_or(self.appended);
        while self.committed < everywhere {
            self.committed += 1;
            if let Some(entry) = self.entries.pop_front() {
                pending.remove(&entry.key);
            }
        }
    }

    /// Those that have not acknowledged anything for so long although there is something.
    pub(super) fn standing(&mut self, for_ms: u64, now: Millis) -> Vec<Incarnation> {
        let mut standing = Vec::new();
        for receiver in self.receivers.iter_mut().filter(|it| it.part == Part::Counted) {
            let acked = receiver.acked;
            match receiver.stands {
                _ if acked == self.appended => receiver.stands = None,
                Some((position, since)) if position == acked => {
                    if now.since(since) >= for_ms {
                        standing.push(receiver.incarnation);
                    }
                }
                _ => receiver.stands = Some((acked, now)),
            }
        }
        standing
    }

    /// Takes a learner for filled, without a look.
    pub(super) fn count_unseen(&mut self, learner: Incarnation) {
        if let Ok(receiver) = self.receiver(learner) {
            receiver.part = Part::Counted;
        }
    }

    /// The next answer whose time has come.
    pub(super) fn next_answer(&mut self) -> Option<Answer> {
        let (position, _) = self.answers.front()?;
        if *position > self.committed {
            return None;
        }
        self.answers.pop_front().map(|(_, answer)| answer)
    }

    /// The committed position, which the caller is about to send along.
    pub(super) fn announce(&mut self) -> u64 {
        self.announced = self.committed;
        self.committed
    }

    /// The committed position, if it was not sent yet.
    pub(super) fn unannounced(&mut self) -> Option<u64> {
        (self.announced < self.committed).then(|| self.announce())
    }

    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether nothing is committed without this learner.
    pub(super) fn counts(&self, learner: Incarnation) -> bool {
        let is_it = |receiver: &&Receiver| receiver.incarnation == learner;
        self.receivers.iter().find(is_it).is_some_and(|receiver| receiver.part == Part::Counted)
    }

    /// Counts a learner that has all items from now on, if it has applied all that is committed.
    ///
    /// Whatever is committed later then needs its ack, so it lacks nothing that is committed.
    pub(super) fn count(&mut self, learner: Incarnation) -> bool {
        let committed = self.committed;
        match self.receiver(learner) {
            Ok(receiver) if receiver.part == Part::Filling && receiver.acked >= committed => {
                receiver.part = Part::Counted;
                true
            }
            _ => false,
        }
    }

    fn receiver(&mut self, incarnation: Incarnation) -> Result<&mut Receiver, Violation> {
        self.receivers
            .iter_mut()
            .find(|receiver| receiver.incarnation == incarnation)
            .ok_or(Violation("an ack from a node that the stream does not go to"))
    }
}

/// The stream of one owner as this node has applied it.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    applied: u64,
    committed: u64,
    /// Those above `committed`.
    entries: VecDeque<Entry>,
}

impl Incoming {
    pub(super) fn applied(
        &mut self,
        position: u64,
        entry: Entry,
        pending: &mut Pending,
    ) -> Result<(), Violation> {
        if position != self.applied + 1 {
            return Err(Violation("a gap in a stream"));
        }
        self.applied = position;
        pending.add(&entry.key);
        self.entries.push_back(entry);
        Ok(())
    }

    pub(super) fn commit(&mut self, position: u64, pending: &mut Pending) {
        while self.committed < position.min(self.applied) {
            self.committed += 1;
            if let Some(entry) = self.entries.pop_front() {
                pending.remove(&entry.key);
            }
        }
    }

    /// The record that this request led to is committed, and so are those before it.
    pub(super) fn commit_request(&mut self, request: RequestId, pending: &mut Pending) {
        let is_of = |entry: &Entry| entry.answered.as_ref().is_some_and(|it| it.request == request);
        if let Some(place) = self.entries.iter().position(is_of) {
            self.commit(self.committed + place as u64 + 1, pending);
        }
    }

    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}
