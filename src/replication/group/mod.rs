//! Which view is next, who is alive, and until when this node may trust its own copy.
//!
//! Views come out of a log that a majority agrees on (`membership/`); here is decided what to
//! propose to it, and what follows from what was agreed. Knows nothing of items or streams.

mod beats;
mod change;
mod cluster_time;
mod leave;
mod next;
mod peers;
mod solo;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::change::Wanted;
use self::next::Proposals;
use self::peers::Peers;
use self::solo::Solo;
use self::status::Fences;
pub use self::status::{GroupStatus, PeerStatus};
use super::dialect::{Dialect, Features};
use super::lane::Event;
use super::lease::Lease;
use super::message::{Beat, FlushAll, Message};
use super::nodes::{Nodes, Roster};
use super::view::{Incarnation, Line, Member, View};
use super::{LogWish, Outside, Rules};
use crate::key::LANES;
use crate::record::Outcome;
use crate::time::{Millis, Now};
use crate::version::Epoch;

/// Who this node is, and whom it may meet.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// This life of this node.
    pub me: Member,
    /// Former lives of this node that are certainly over.
    pub succeeds: Vec<Incarnation>,
    /// The life of this node beside which this one was started, to take its place.
    pub beside: Option<Incarnation>,
    /// The nodes of a group that begins, this one included; empty for a node of its own.
    pub nodes: Nodes,
    /// How long things take.
    pub timing: Timing,
    /// The epoch of a group that starts from nothing.
    pub first_epoch: Epoch,
    /// Whether the last that is left may go on when all others are proven dead.
    pub last_man_standing: bool,
    /// Whether a member that reaches no other goes on answering reads, from an old copy perhaps.
    pub isolated_reads: bool,
    /// What of the peer protocol this node speaks.
    pub speaks: Dialect,
    /// Randomness for what must not be guessed.
    pub seed: u64,
    /// What must hold.
    pub rules: Rules,
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two beats.
    pub beat_ms: u64,
    /// A peer is suspected when it has been silent for so long.
    pub suspect_ms: u64,
    /// For so long a beat promises to take part in no view without the receiver.
    pub grant_ms: u64,
    /// How long a starting group waits for all its nodes.
    pub boot_wait_ms: u64,
    /// For so long all others have to refuse connections before the last one goes on alone.
    pub refusal_ms: u64,
    /// For so long a client may wait for a command: later than that, nobody carries it out.
    pub request_ms: u64,
}

impl Timing {
    /// How long a new view may take to begin: suspicion, promises that run out, and then some.
    pub fn patience_ms(&self) -> u64 {
        self.suspect_ms + self.grant_ms + 1000
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beat_ms: 50,
            suspect_ms: 400,
            grant_ms: 800,
            boot_wait_ms: 2000,
            refusal_ms: 1000,
            request_ms: 30_000,
        }
    }
}

/// What the node has to do on behalf of its group.
#[derive(Debug, PartialEq)]
pub enum Todo {
    /// Every lane stops, or starts over, for this view.
    Install(Box<View>),
    /// Nobody left out trusts its copy any more: every lane tells what it has.
    Flush(Epoch),
    /// Ask this of the log.
    Log(LogWish),
    /// Take over this cluster time: the node is new.
    TakeTime(Millis),
    /// Move the cluster time by so many milliseconds.
    SlewTime(i64),
    /// Tell people that reads are answered without a lease from now on, or no more.
    Isolated(bool),
}

/// See the module.
#[derive(Debug)]
pub struct Group<W> {
    options: GroupOptions,
    lease: Arc<Lease>,
    peers: Peers,
    /// Names that only vote. Everybody else may become a member.
    witnesses: BTreeSet<Box<str>>,
    view: View,
    /// The view before, in which lanes may still work.
    former: View,
    /// When lanes may tell what they have.
    flush_due: Option<Millis>,
    /// Those who were promised something that this view breaks, and have not said that they know it.
    left_out: BTreeSet<Incarnation>,
    /// Whether the log counts this life among its voters.
    is_seated: bool,
    /// This node is about to end, and wants a view without it.
    is_leaving: bool,
    /// Since when this node is a member; lanes that work in an older view don't count.
    member_since: Option<Epoch>,
    active: [Epoch; LANES],
    settled: [Epoch; LANES],
    /// Lanes of this node that count a learner, as bits, in the present epoch.
    counted: BTreeMap<Incarnation, u32>,
    proposals: Proposals,
    wanted: Option<Wanted>,
    solo: Solo,
    flushes: Vec<Flush<W>>,
    flushes_asked: u64,
    beaten: Option<Millis>,
    changes: BTreeMap<Box<str>, u64>,
    grant_waits: u64,
    fences: Fences,
}

/// A flush_all of a client of this node.
#[derive(Debug)]
struct Flush<W> {
    request: FlushAll,
    waiter: W,
}

impl<W> Group<W> {
    /// A node that knows nobody yet.
    pub fn new(options: GroupOptions, lease: Arc<Lease>) -> Self {
        let mut peers = Peers::default();
        let me = &options.me;
        // Former lives of this very node: it knows best that they are over.
        peers.meet(me, &options.succeeds, &options.speaks, options.beside);
        Self {
            lease,
            peers,
            witnesses: BTreeSet::new(),
            view: View::default(),
            former: View::default(),
            flush_due: None,
            left_out: BTreeSet::new(),
            is_seated: false,
            is_leaving: false,
            member_since: None,
            active: [Epoch(0); LANES],
            settled: [Epoch(0); LANES],
            counted: BTreeMap::new(),
            proposals: Proposals::default(),
            wanted: None,
            solo: Solo::default(),
            flushes: Vec::new(),
            flushes_asked: 0,
            beaten: None,
            changes: BTreeMap::new(),
            grant_waits: 0,
            fences: Fences::default(),
            options,
        }
    }

    /// The newest view this node knows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether this node holds everything and all its lanes work.
    pub fn is_serving(&self) -> bool {
        self.member_since.is_some_and(|since| self.active.iter().all(|&epoch| epoch >= since))
    }

    /// Whether this node is the whole group in all its lanes, and nobody is about to join.
    pub fn is_alone(&self) -> bool {
        let has_no_others = self.view.members.len() == 1 && self.view.learners.is_empty();
        self.is_member() && has_no_others && self.oldest_active() >= self.view.epoch
    }

    /// A connection shows that this life exists, and that these former ones are over; `beside`: that
    /// it was started to take the place of that one, which is not.
    pub fn meet<O: Outside<W>>(
        &mut self,
        peer: &Member,
        succeeds: &[Incarnation],
        speaks: &Dialect,
        beside: Option<Incarnation>,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        self.witnesses.remove(&peer.name);
        self.peers.meet(peer, succeeds, speaks, beside);
        self.beat_to(peer.incarnation, now, out);
        self.review(now, out)
    }

    /// The peer of that name only votes: no view has it, and nobody waits for it.
    pub fn meet_witness<O: Outside<W>>(
        &mut self,
        name: &str,
        succeeds: &[Incarnation],
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        self.witnesses.insert(name.into());
        self.peers.met_witness(name, succeeds);
        self.review(now, out)
    }

    /// Nobody listens at that node's address; `has_ended`: after its process had closed its
    /// connection.
    pub fn refused<O: Outside<W>>(
        &mut self,
        name: &str,
        has_ended: bool,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        let could_read = self.lease.holds(self.view.epoch, now.local);
        self.peers.refused(name, has_ended, now.local);
        self.proposals.note_end(could_read);
        let mut todo = self.review(now, out);
        if has_ended {
            todo.push(Todo::Log(LogWish::Dead(name.into())));
        }
        todo
    }

    /// That life is certainly over, which was beside another: the address of its name says nothing of
    /// it.
    pub fn ended<O: Outside<W>>(&mut self, life: Incarnation, now: Now, out: &mut O) -> Vec<Todo> {
        let could_read = self.lease.holds(self.view.epoch, now.local);
        self.peers.end(life);
        self.proposals.note_end(could_read);
        self.review(now, out)
    }

    /// The life beside which this one was started is over, as are these: what is of this node's name
    /// is this life's now.
    pub fn take_over<O: Outside<W>>(
        &mut self,
        succeeds: &[Incarnation],
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        self.peers.meet(&self.options.me, succeeds, &self.options.speaks, None);
        self.review(now, out)
    }

    /// A peer speaks about the group.
    pub fn receive<O: Outside<W>>(
        &mut self,
        from: Incarnation,
        message: Message,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        match message {
            Message::Beat(beat) => self.hear(from, beat, now, out),
            Message::View(view) => self.agreed(*view, now, out),
            _ => Vec::new(),
        }
    }

    /// The log, or somebody who knows it, says that this view is agreed.
    pub fn agreed<O: Outside<W>>(&mut self, view: View, now: Now, out: &mut O) -> Vec<Todo> {
        if !view.supersedes(&self.view) || view.epoch > Epoch::MAX {
            return Vec::new();
        }
        let mut todo = self.adopt(view, now);
        self.dismiss(out);
        self.tell_those_without_log(out);
        self.beat_to_all(now, out);
        todo.extend(self.review(now, out));
        todo
    }

    /// Time passes.
    pub fn tick<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
        let is_due =
            self.beaten.is_none_or(|beaten| now.local.since(beaten) >= self.options.timing.beat_ms);
        if is_due {
            self.beaten = Some(now.local);
            self.beat_to_all(now, out);
        }
        self.review(now, out)
    }

    /// Something happened in a lane of this node.
    pub fn lane_event<O: Outside<W>>(
        &mut self,
        lane: usize,
        event: Event,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        match event {
            Event::Active(epoch) => {
                self.active[lane] = epoch;
                if self.oldest_active() == self.view.epoch {
                    // Whoever waits for this node should not wait for its next beat.
                    self.beat_to_all(now, out);
                }
            }
            Event::Settled(epoch) => self.settled[lane] = epoch,
            Event::Counted(epoch, learner) if epoch == self.view.epoch => {
                let lanes = self.counted.entry(learner).or_default();
                *lanes |= 1 << lane;
                if lanes.count_ones() as usize == LANES {
                    self.beat_to_all(now, out);
                }
            }
            Event::Counted(..) => {}
            Event::Stuck(epoch, peer) if epoch == self.view.epoch => {
                self.peers.note_stuck(peer, now.local);
            }
            Event::Stuck(..) => {}
        }
        self.review(now, out)
    }

    /// Messages to that life are lost, so that it refuses what follows them. A member would be found
    /// stuck; of a learner nobody expects acknowledgements. The next view does without it, and so it
    /// begins anew.
    pub fn lost_messages(&mut self, life: Incarnation, now: Now) {
        self.peers.note_stuck(life, now.local);
    }

    /// The log counts this life among its voters from now on, or no more.
    pub fn set_seated<O: Outside<W>>(&mut self, is_seated: bool, now: Now, out: &mut O) {
        if std::mem::replace(&mut self.is_seated, is_seated) != is_seated {
            self.beat_to_all(now, out);
        }
    }

    /// A client of this node wants everything flushed, at once or at `at`.
    pub fn flush_all<O: Outside<W>>(
        &mut self,
        at: Option<Millis>,
        waiter: W,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        self.flushes_asked += 1;
        let request = FlushAll { id: self.flushes_asked, at };
        self.flushes.push(Flush { request, waiter });
        self.beat_to_all(now, out);
        self.review(now, out)
    }

    fn adopt(&mut self, view: View, now: Now) -> Vec<Todo> {
        let me = self.me();
        self.left_out = self.promised_and_left_out(&view, now);
        let wait = self.grant_wait(&view, now);
        let was_member = self.is_member();
        self.counted.clear();
        self.proposals.adopted(&self.view, &view, now.local);
        if !view.has_member(me) {
            self.member_since = None;
        } else if self.member_since.is_none() || view.generation != self.view.generation {
            self.member_since = Some(view.epoch);
        }
        *self.changes.entry(view.cause.clone()).or_default() += 1;
        self.former = std::mem::replace(&mut self.view, view);
        let (view, dead) = (&self.view, &self.view.dead);
        self.peers.forget(|life| !view.remembers(life) && !dead.contains(&life));
        self.renew_lease();
        self.flush_due = Some(wait);
        self.grant_waits += u64::from(wait > now.local);
        let mut todo = vec![Todo::Install(Box::new(self.view.clone()))];
        if !was_member && self.is_member() {
            todo.extend(self.join_time(now));
        }
        if self.view.nodes != self.former.nodes {
            todo.push(Todo::Log(LogWish::Roster(Roster::from(&self.view))));
        }
        todo
    }

    /// Until when somebody who is left out may answer reads on the strength of this node's promise.
    fn grant_wait(&self, next: &View, now: Now) -> Millis {
        if !self.options.rules.grant_wait {
            return now.local;
        }
        let mut dead = next.dead.clone();
        dead.push(self.me());
        let promised = self.peers.granted_to_others(&next.lives(), &dead).unwrap_or_default();
        let has_no_past = next.is_founding() || self.view.epoch == Epoch(0);
        let nobody_reads = self.left_out.is_empty();
        if has_no_past || nobody_reads || !next.is_small_after(&self.view) {
            return promised.max(now.local);
        }
        // Those left out may have promises of each other, and of the dead: these end too.
        now.local.plus(self.options.timing.grant_ms)
    }

    /// Who may answer reads on the strength of promises that end with this view.
    fn promised_and_left_out(&self, next: &View, now: Now) -> BTreeSet<Incarnation> {
        let former = self.view.unsettled.iter().flatten().copied().chain(self.view.lives());
        let all = former.chain(self.peers.promised_after(now.local));
        let may_read = |life: &Incarnation| {
            *life != self.me() && !next.has_member(*life) && !next.dead.contains(life)
        };
        all.filter(may_read).collect()
    }

    fn renew_lease(&self) {
        let me = self.me();
        if !self.is_member() {
            // At once, and before anybody is told that this view is known here.
            return self.lease.revoke();
        }
        for view in [&self.former, &self.view] {
            if view.epoch > Epoch(0) {
                let until = view
                    .has_member(me)
                    .then(|| self.peers.lease_until(&view.lives(), me))
                    .flatten();
                self.lease.set(view.epoch, until);
            }
        }
    }

    /// Everything that may follow from what has happened.
    fn review<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
        self.answer_flushes(out);
        self.note_fence(now);
        self.hear_goodbyes(now);
        let mut todo = Vec::new();
        // Said until it is done: another thread may be about to install this very view.
        let is_due = self.flush_due.is_some_and(|due| due <= now.local);
        if is_due && self.is_member() && self.oldest_active() < self.view.epoch {
            todo.push(Todo::Flush(self.view.epoch));
        }
        todo.extend(self.propose(now, out));
        todo.extend(self.note_isolation(now));
        todo
    }

    /// A flush is done when all members work in the view that flushed, or in a later one.
    fn answer_flushes<O: Outside<W>>(&mut self, out: &mut O) {
        let carried_out = self.view.flushed.get(&self.me()).copied().unwrap_or_default();
        if self.flushes.first().is_none_or(|flush| flush.request.id > carried_out)
            || !self.is_settled()
        {
            return;
        }
        for flush in self.flushes.extract_if(.., |flush| flush.request.id <= carried_out) {
            out.answer(flush.waiter, Outcome::Flushed);
        }
    }

    /// Whether all members are known to work in the present view.
    fn is_settled(&self) -> bool {
        let epoch = self.view.epoch;
        let says = |life: Incarnation| {
            self.peers.beat(life).is_some_and(|beat| beat.active >= epoch && beat.view.1 >= epoch)
        };
        let heard_all = self.view.others(self.me()).all(says);
        let lanes_know = self.settled.iter().all(|&settled| settled >= epoch);
        epoch > Epoch(0) && ((self.is_member() && lanes_know) || (heard_all && self.works()))
    }

    fn works(&self) -> bool {
        !self.is_member() || self.oldest_active() >= self.view.epoch
    }

    fn oldest_active(&self) -> Epoch {
        self.active.iter().copied().min().unwrap_or_default()
    }

    fn is_up(&self, life: Incarnation, now: Now) -> bool {
        self.peers.is_up(life, &self.options.timing, now.local)
    }

    /// Who proposes views: the lowest-named member that can be heard from here; rather one that
    /// stays, and has a place in the log.
    fn decider(&self, now: Now) -> Option<Incarnation> {
        let me = self.me();
        let members = self.view.members.iter().map(|member| member.incarnation);
        let mut present = members.filter(|&member| member == me || self.is_up(member, now));
        let decides =
            |member: Incarnation| !self.leaves(member) && self.peers.beside(member).is_none();
        present.clone().find(|&member| decides(member)).or_else(|| present.next())
    }

    fn is_member(&self) -> bool {
        self.view.has_member(self.me())
    }

    fn me(&self) -> Incarnation {
        self.options.me.incarnation
    }
}

#[cfg(test)]
mod tests;
