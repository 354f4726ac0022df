//! One lane: the ordered streams of one sixteenth of the keys, within views.
//!
//! As the owner of a key it decides, appends to its stream and answers when every member has
//! applied. As a member it applies the other owners' streams and acknowledges. It lives under
//! its shard's lock and knows nothing of other lanes.

mod change;
mod detour;
mod early;
mod figures;
mod learn;
mod lifetime;
mod lost;
mod pending;
mod requests;
mod slots;
mod stream;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use self::change::{Carried, Change};
use self::detour::Detours;
use self::early::Early;
pub use self::figures::{Backlog, SyncFigures};
use self::learn::{Joining, Learning};
use self::lifetime::Pulse;
use self::lost::Lost;
use self::pending::Pending;
use self::requests::{Known, Request, Requests, Results};
use self::slots::Slots;
use self::stream::{Answer, Entry, Incoming, Outgoing};
use self::sync::Filling;
use super::dialect::Features;
use super::lease::Lease;
use super::message::{
    Answered, Apply, Fwd, FwdDone, LaneMessage, Message, RequestId, ViewFlush, is_given, is_sane,
};
use super::view::{Incarnation, Owners, View};
use super::{Items, Outside, Pace, Rules};
use crate::chunk::Chunk;
use crate::key::{Key, KeyHash};
use crate::record::{Mutation, Outcome, Record};
use crate::time::Millis;
use crate::version::{Epoch, Version, Versions};

/// What a lane is told at its start.
#[derive(Clone, Debug)]
pub struct LaneOptions {
    /// Its number.
    pub id: u8,
    /// This life of this node.
    pub me: Incarnation,
    /// Makes its versions hard to guess.
    pub seed: u64,
    /// Until when reads may be answered from here.
    pub lease: Arc<Lease>,
    /// Whoever has not acknowledged anything for so long is stuck.
    pub suspect_ms: u64,
    /// Whoever does not tell what it has for so long keeps a new view from beginning.
    pub patience_ms: u64,
    /// So long a client may wait for its command.
    pub request_ms: u64,
    /// How fast learners are filled.
    pub pace: Arc<Pace>,
    /// What this node knows of the protocol, beyond its version.
    pub features: Features,
    /// What must hold.
    pub rules: Rules,
}

/// What the group has to know about a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This lane works in this view.
    Active(Epoch),
    /// So do the lanes of all members: what came over from the old view is committed.
    Settled(Epoch),
    /// This lane has filled that learner and counts its acks.
    Counted(Epoch, Incarnation),
    /// That node does not acknowledge what it is sent.
    Stuck(Epoch, Incarnation),
}

/// A peer broke the rules of a stream; its link has to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// See the module.
#[derive(Debug)]
pub struct Lane<W> {
    options: LaneOptions,
    versions: Versions,
    view: View,
    owners: Owners,
    role: Role,
    change: Option<Change>,
    /// What is here was told to the next view, so that the next view may go on without asking.
    is_told: bool,
    stream: Outgoing,
    incoming: BTreeMap<Incarnation, Incoming>,
    pending: Pending,
    carried: Carried,
    requests: Requests<W>,
    /// What clients have sent, until it is decided.
    chunk: Chunk,
    pulse: Pulse,
    detours: Detours,
    results: Results,
    /// What was decided here in this view without changing anything. Sent again, it must not be
    /// decided again: its client may have had its answer by then.
    unchanged: BTreeMap<RequestId, Outcome>,
    /// Answers that no commit proves and no lease proved when their time came.
    unproven: Vec<Answer>,
    /// Messages of epochs that are not active here yet.
    early: Early,
    lost: Lost,
    /// By learner, what it gets from here.
    fillings: BTreeMap<Incarnation, Filling>,
    /// As a learner, by owner: what it knows to be right here.
    learning: BTreeMap<Incarnation, Learning>,
    joining: Option<Joining>,
    figures: SyncFigures,
    events: Vec<Event>,
    backlog: Backlog,
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

/// A request without an answer is given to its owner again after this long: it may have been lost
/// with a link. Whoever has decided it remembers.
const RESEND_MS: u64 = 1000;

impl<W> Lane<W> {
    /// A lane outside of any view.
    pub fn new(options: LaneOptions) -> Self {
        Self {
            options,
            versions: Versions::new(Epoch(0), 0),
            view: View::default(),
            owners: Owners::default(),
            role: Role::Outsider,
            change: None,
            is_told: false,
            stream: Outgoing::default(),
            incoming: BTreeMap::new(),
            pending: Pending::default(),
            carried: Carried::default(),
            requests: Requests::default(),
            chunk: Chunk::default(),
            pulse: Pulse::default(),
            detours: Detours::default(),
            results: Results::default(),
            unchanged: BTreeMap::new(),
            unproven: Vec::new(),
            early: Early::default(),
            events: Vec::new(),
            lost: Lost::default(),
            fillings: BTreeMap::new(),
            learning: BTreeMap::new(),
            joining: None,
            figures: SyncFigures::default(),
            backlog: Backlog::default(),
        }
    }

    /// Whether this node is the whole group, so that a decision is final at once.
    pub fn is_alone(&self) -> bool {
        self.role == Role::Member && self.change.is_none() && self.stream.has_no_receivers()
    }

    /// Whether the value of this key here is the one to show, provided that `proves_read` says so
    /// once it has been read. A copy that is being filled, or was left out, lacks what others have;
    /// a change that is not everywhere yet may still be lost.
    #[inline(always)]
    pub fn may_read(&self, key: Key<'_>) -> bool {
        let is_pending = self.options.rules.pending_wait && self.pending.has(key);
        self.role == Role::Member && !self.is_told && !is_pending && !self.lost.has(key)
    }

    /// Whether this copy is that of a member, and no remains of one.
    pub fn is_whole(&self) -> bool {
        self.role == Role::Member
    }

    /// Whether this node decides changes of that key, so that its own use of it counts.
    pub fn owns(&self, key: Key<'_>) -> bool {
        self.is_alone() || self.owners.owner(key.hash()) == Some(self.options.me)
    }

    /// Whether what was read before `now` was current: nobody can have changed anything without
    /// this node. Or whether it is to be shown although that may be: operators can allow it.
    pub fn proves_read(&self, now: impl FnOnce() -> Millis) -> bool {
        self.is_alone()
            || !self.options.rules.lease
            || self.options.lease.holds(self.view.epoch, now())
            || self.options.lease.is_isolated()
    }

    /// Versions for decisions of a lane that is alone.
    pub fn versions(&mut self) -> &mut Versions {
        &mut self.versions
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// How much it has to do.
    pub fn backlog(&self) -> Backlog {
        let (pending, waiting) = (self.pending.len() as u64, self.requests.len() as u64);
        let (held, early_bytes) = (self.requests.held(), self.early.bytes());
        Backlog { pending, waiting, held, early_bytes, ..self.backlog }
    }

    /// How many records of this lane's stream each receiver has not acknowledged.
    pub fn lags(&self) -> impl Iterator<Item = (Incarnation, u64)> {
        self.stream.lags()
    }

    /// What filling learners, and being filled, has come to.
    pub fn figures(&self) -> SyncFigures {
        self.figures
    }

    /// A client of this node wants a change, or a read that this node can't prove; `waiter` is
    /// answered when it is done everywhere.
    pub fn mutate<I: Items, O: Outside<W>>(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        waiter: W,
        items: &mut I,
        out: &mut O,
    ) {
        let counter = self.requests.add(Request {
            key: self.chunk.copy(key.bytes()),
            mutation: mutation.map(|value| self.chunk.copy(value)),
            waiter,
            until: items.now().local.plus(self.options.request_ms),
            sent: None,
        });
        let is_held = !self.can_ask();
        self.backlog.ever_held += u64::from(is_held);
        self.dispatch(counter, items, out);
    }

    /// Whether there is a view in which requests are decided, and this node may ask in it.
    fn can_ask(&self) -> bool {
        self.change.is_none() && self.view.remembers(self.options.me)
    }

    /// Gives a request of this node to whoever has to decide it; during a change of the view it
    /// waits for the next one.
    fn dispatch<I: Items, O: Outside<W>>(&mut self, counter: u64, items: &mut I, out: &mut O) {
        if !self.can_ask() {
            return;
        }
        let Some(request) = self.requests.get(counter) else {
            return;
        };
        if !self.may_ask_now(request, items.now()) {
            return;
        }
        let until = self.until(request, items.now());
        let (key, mutation, is_new) =
            (request.key.clone(), request.mutation.clone(), request.sent.is_none());
        let owner = Key::new(&key).and_then(|key| self.owners.owner(key.hash()));
        let Some(owner) = owner.filter(|&owner| owner != self.options.me || self.decides()) else {
            return;
        };
        self.requests.sent(counter, out.local_time());
        let done_up_to = self.requests.done_up_to();
        let fwd = Fwd { counter, done_up_to, until, key, mutation };
        if owner != self.options.me {
            // Asked again after a while, it is still one.
            self.backlog.asked += u64::from(is_new);
            self.backlog.relayed_reads += u64::from(is_new && fwd.mutation == Mutation::Read);
            self.ask(owner, fwd, out);
        } else if let Err(Violation(rule)) = self.decide_for(self.options.me, fwd, items, out) {
            unreachable!("a request of this very node: {rule}");
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
        let waits = epoch > self.newest_epoch() || (self.change.is_some() && !is_flush);
        if waits && (self.options.rules.epoch_buffer || self.role != Role::Member) {
            self.early.keep(from, epoch, message);
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
            LaneMessage::Fwd(fwd) => {
                self.came_straight(from);
                self.decide_for(from, fwd, items, out)
            }
            LaneMessage::PassFwd(origin, fwd) => self.passed(from, origin, fwd, items, out),
            LaneMessage::PassDone(origin, done) => {
                self.passed_back(origin, done, out);
                Ok(())
            }
            LaneMessage::FwdDone(done) => {
                self.learn_commit(from, done.counter);
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
                let Self { incoming, pending, .. } = self;
                incoming.entry(from).or_default().commit(position, pending);
                Ok(())
            }
            LaneMessage::ViewFlush(flush) => self.flushed(from, flush, items, out),
            LaneMessage::Activated => {
                self.carried.activated.insert(from);
                self.settle(out);
                Ok(())
            }
            LaneMessage::Lost(keys) => self.give_up(keys, items, out),
            LaneMessage::Bump(keys) => {
                keys.iter().filter_map(|key| Key::new(key)).for_each(|key| items.bump(key));
                Ok(())
            }
            LaneMessage::SnapDigests(digests) => self.compare(from, &digests, items, out),
            LaneMessage::SnapWant(slots) => self.wanted(from, slots, items, out),
            LaneMessage::SnapChunk(records) => self.fill(from, &records, items, out),
            LaneMessage::SnapEnd(answered) => self.finish_filling(from, &answered, out),
            LaneMessage::SnapAck => self.chunk_acked(from, items, out),
        }
    }

    /// Time passes.
    pub fn tick<I: Items, O: Outside<W>>(&mut self, now: Millis, items: &mut I, out: &mut O) {
        self.pulse.beat(self.options.suspect_ms, now);
        self.settle_lost(items, out);
        self.announce_commits(out);
        if self.change.is_none() {
            self.tell_bumps(out);
        }
        let epoch = self.newest_epoch();
        let stuck = match &mut self.change {
            Some(change) => change.missing(self.options.patience_ms, now),
            None => self.stream.standing(self.options.suspect_ms, now),
        };
        self.events.extend(stuck.into_iter().map(|peer| Event::Stuck(epoch, peer)));
        if self.change.is_none() {
            // Otherwise it would answer a request that has been given to the next view's owner.
            for answer in std::mem::take(&mut self.unproven) {
                self.give(answer, out);
            }
        }
        for counter in self.requests.older_than(self.resend_ms(), now) {
            if self.requests.get(counter).is_some_and(|request| !out.still_waits(&request.waiter)) {
                self.requests.remove(counter);
            } else {
                self.look_for_a_way(counter, now);
                self.dispatch(counter, items, out);
            }
        }
    }

    /// Lets the members know what is committed, so that they may show it, where no `Apply` has said so
    /// since. Until then they ask its owner for a value, so this is for soon, and not for at once.
    pub fn announce_commits<O: Outside<W>>(&mut self, out: &mut O) {
        if let Some(position) = self.stream.unannounced() {
            self.tell_receivers(LaneMessage::CommitUpTo(position), out);
        }
    }

    /// A view may have this node as a member although its copy is worth nothing, because it never
    /// worked in the view that admitted it. Such a node has no say; a view without it follows.
    fn decides(&self) -> bool {
        self.role == Role::Member
    }

    /// The owner's path: decide, append, and answer when all have it.
    fn decide_for<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        fwd: Fwd,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let key = Key::new(&fwd.key).ok_or(Violation("a forwarded key of no legal length"))?;
        if self.owners.owner(key.hash()) != Some(self.options.me) {
            return Err(Violation("a forward for a key that is not owned here"));
        }
        if !self.decides() {
            return Ok(());
        }
        self.check_dialect(&fwd)?;
        let request = RequestId { origin: from, counter: fwd.counter };
        self.prune(from, fwd.done_up_to);
        match self.results.get(request) {
            Known::Over => return Ok(()),
            Known::Decided(outcome) if self.options.rules.dedupe => {
                let outcome = change::with_value(outcome, &fwd.key, items);
                self.answer_when_sure(Answer { request, outcome, is_read: false }, out);
                return Ok(());
            }
            Known::Decided(_) | Known::Open => {}
        }
        let known = self.unchanged.get(&request).filter(|_| self.options.rules.dedupe);
        if let Some(outcome) = known.cloned() {
            self.answer_when_sure(Answer { request, outcome, is_read: true }, out);
            return Ok(());
        }
        if self.is_over(&fwd, items.now()) {
            return Ok(());
        }
        let decision = items.decide(key, &fwd.mutation, &mut self.versions);
        let is_read = decision.record.is_none();
        let answer = Answer { request, outcome: decision.outcome, is_read };
        match decision.record {
            Some(record) => self.append(record, Some((answer, fwd.done_up_to)), out),
            None => {
                if !matches!(fwd.mutation, Mutation::Read) {
                    self.unchanged.insert(request, answer.outcome.clone());
                }
                self.answer_when_sure(answer, out);
            }
        }
        self.settle_lost(items, out);
        Ok(())
    }

    /// The origin has its answers up to there.
    fn prune(&mut self, origin: Incarnation, done_up_to: u64) {
        self.results.prune(origin, done_up_to);
        let first = RequestId { origin, counter: 0 };
        while let Some((&request, _)) = self.unchanged.range(first..).next()
            && request.origin == origin
            && request.counter <= done_up_to
        {
            self.unchanged.remove(&request);
        }
    }

    /// A change goes to everybody, and if somebody has asked for it, its outcome with it.
    fn append<O: Outside<W>>(
        &mut self,
        record: Record<Bytes>,
        answer: Option<(Answer, u64)>,
        out: &mut O,
    ) {
        let answered = answer.as_ref().map(|(answer, done_up_to)| Answered {
            request: answer.request,
            done_up_to: *done_up_to,
            outcome: answer.outcome.without_value(),
        });
        if let Some(answered) = &answered {
            self.results.record(answered);
        }
        let position = self.stream.append(
            Entry { key: record.key.clone(), version: record.version, answered: answered.clone() },
            answer.map(|(answer, _)| answer),
            &mut self.pending,
        );
        let committed = self.stream.announce();
        let apply = Apply { position, committed, record, answered };
        self.tell_receivers(LaneMessage::Apply(apply), out);
        self.commit(out);
    }

    /// An owner reports what is committed: clients of this node may see what they have done.
    fn learn_commit(&mut self, owner: Incarnation, counter: u64) {
        let request = RequestId { origin: self.options.me, counter };
        if let Some(incoming) = self.incoming.get_mut(&owner) {
            incoming.commit_request(request, &mut self.pending);
        }
    }

    fn finish<O: Outside<W>>(&mut self, done: FwdDone, out: &mut O) {
        // The owner reports after all members have applied, this one included. A second report,
        // after a request was sent again, finds nobody waiting.
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
        if !is_sane(&apply.record, self.newest_epoch()) {
            return Err(Violation("a record without a legal key or version"));
        }
        let Self { incoming, pending, .. } = self;
        let incoming = incoming.entry(from).or_default();
        let entry = Entry {
            key: apply.record.key.clone(),
            version: apply.record.version,
            answered: apply.answered,
        };
        if let Some(answered) = &entry.answered {
            self.results.record(answered);
        }
        incoming.applied(apply.position, entry, pending)?;
        incoming.commit(apply.committed, pending);
        let record = self.as_applicable(from, apply.record);
        self.bring_back(from, &record, out);
        items.apply(&record);
        self.settle_lost(items, out);
        self.tell(from, LaneMessage::AppliedUpTo(apply.position), out);
        Ok(())
    }

    /// An answer without a record may rest on changes that not everybody has yet: they come first.
    fn answer_when_sure<O: Outside<W>>(&mut self, answer: Answer, out: &mut O) {
        if self.carried.is_settled() {
            self.stream.answer_later(answer);
            self.commit(out);
        } else {
            self.carried.answers.push(answer);
        }
    }

    /// Answers whatever has become committed.
    fn commit<O: Outside<W>>(&mut self, out: &mut O) {
        self.stream.advance(&mut self.pending);
        while let Some(answer) = self.stream.next_answer() {
            self.give(answer, out);
        }
    }

    /// A change is proven by its commit; everything else is a read, and needs a lease as one.
    fn give<O: Outside<W>>(&mut self, answer: Answer, out: &mut O) {
        if answer.is_read && !self.proves_read(|| out.local_time()) {
            return self.unproven.push(answer);
        }
        let RequestId { origin, counter } = answer.request;
        let done = FwdDone { counter, outcome: answer.outcome };
        if origin == self.options.me {
            self.finish(done, out);
        } else {
            self.report(origin, done, out);
        }
    }

    fn tell<O: Outside<W>>(&self, to: Incarnation, message: LaneMessage, out: &mut O) {
        out.send(to, Message::Lane(self.options.id, self.newest_epoch(), message));
    }

    fn tell_receivers<O: Outside<W>>(&self, message: LaneMessage, out: &mut O) {
        let message = Message::Lane(self.options.id, self.newest_epoch(), message);
        out.send_all(self.stream.receivers(), message);
    }

    /// The epoch that this lane works in or is changing to.
    fn newest_epoch(&self) -> Epoch {
        self.change.as_ref().map_or(self.view.epoch, |change| change.view.epoch)
    }
}

#[cfg(test)]
mod tests;
