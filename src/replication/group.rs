//! Which view is next: links come and go, learners catch up, somebody wants a flush.
//!
//! First form: the member with the lowest name whose links are up decides alone, and the newest
//! epoch wins everywhere. That is right while nodes crash and restart; it does not protect
//! against a partition (see `docs/replication.md`). Knows nothing of items or streams.

use std::collections::{BTreeMap, BTreeSet};

use super::Outside;
use super::lane::Event;
use super::message::{Announcement, FlushAll, Message, Synced};
use super::view::{Incarnation, Member, View};
use crate::key::LANES;
use crate::record::Outcome;
use crate::time::{Millis, Now};
use crate::version::{Epoch, Version};

/// Epochs are dealt out by rank, so that two deciders never give the same one.
const RANKS: u32 = 8;

/// How long two members may fail to reach each other before one of them is left out.
const TORN_WAIT_MS: u64 = 500;

/// Between two views that flush. Each takes epochs, of which there are not endlessly many.
const FLUSH_INTERVAL_MS: u64 = 100;

/// Who this node is, and whom it may meet.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// This life of this node.
    pub me: Member,
    /// The names of the other configured nodes.
    pub peers: Vec<Box<str>>,
    /// How long a starting node waits for the others before it goes on without them.
    pub boot_wait_ms: u64,
    /// The epoch of a group that starts from nothing.
    pub first_epoch: Epoch,
}

/// What the node has to do on behalf of its group.
#[derive(Debug, PartialEq)]
pub enum Todo {
    /// Give this view to every lane.
    Install(View),
    /// Take over this cluster time: the node is new.
    TakeTime(Millis),
}

/// See the module.
#[derive(Debug)]
pub struct Group<W> {
    options: GroupOptions,
    rank: u32,
    links: BTreeMap<Incarnation, Linked>,
    view: View,
    /// The highest epoch heard of, also from other groups.
    epoch_seen: Epoch,
    /// The view whose data this node holds: the newest in which one of its lanes has worked, or
    /// in which it is being filled.
    basis: Epoch,
    /// Another view with the same predecessor is about; this one has to be raised above it.
    contested: bool,
    /// Since when this node is a member; lanes that work in an older view don't count.
    member_since: Option<Epoch>,
    active: [Epoch; LANES],
    settled: [Epoch; LANES],
    /// Lanes of this node that count a learner, as bits, in the present epoch.
    counted: BTreeMap<Incarnation, u32>,
    /// Which member has filled which learner, in the present epoch.
    synced: BTreeSet<(Incarnation, Incarnation)>,
    /// Since when two members that are linked here say that they can't reach each other.
    torn_since: Option<Millis>,
    /// Since when no member could be reached.
    alone_since: Option<Millis>,
    flushes: Vec<Flush<W>>,
    flushes_asked: u64,
    flush_queue: Vec<(Incarnation, FlushAll)>,
    last_flush: Option<Millis>,
}

#[derive(Debug)]
struct Linked {
    name: Box<str>,
    /// Of the newest view it is known to be a member of; 0 when it is none.
    member_in: Epoch,
    /// Whom it is linked with, once it has said so.
    links: Option<BTreeSet<Incarnation>>,
}

/// A flush_all of a client of this node.
#[derive(Debug)]
struct Flush<W> {
    request: FlushAll,
    /// The view that answers it.
    done_in: Option<Epoch>,
    waiter: W,
}

impl<W> Group<W> {
    /// A node that knows nobody yet.
    pub fn new(options: GroupOptions) -> Self {
        let mut names: Vec<&str> = options.peers.iter().map(AsRef::as_ref).collect();
        names.push(&options.me.name);
        names.sort_unstable();
        let rank = names.iter().position(|&name| *name == *options.me.name).unwrap_or_default();
        Self {
            rank: rank as u32,
            links: BTreeMap::new(),
            view: View::default(),
            epoch_seen: options.first_epoch,
            basis: Epoch(0),
            contested: false,
            member_since: None,
            active: [Epoch(0); LANES],
            settled: [Epoch(0); LANES],
            counted: BTreeMap::new(),
            synced: BTreeSet::new(),
            torn_since: None,
            alone_since: None,
            flushes: Vec::new(),
            flushes_asked: 0,
            flush_queue: Vec::new(),
            last_flush: None,
            options,
        }
    }

    /// The newest view this node knows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether this node may answer clients: a member, with all lanes at work.
    pub fn is_serving(&self) -> bool {
        self.member_since.is_some_and(|since| self.active.iter().all(|&epoch| epoch >= since))
    }

    /// The epoch to tell a peer in Hello: of the view this node is a member of, or 0.
    pub fn member_epoch(&self) -> Epoch {
        if self.is_member() { self.view.epoch } else { Epoch(0) }
    }

    /// A link works in both directions.
    pub fn link_up<O: Outside<W>>(
        &mut self,
        peer: &Member,
        member_in: Epoch,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        // A new life proves the old one over.
        self.links.retain(|_, linked| linked.name != peer.name);
        let linked = Linked { name: peer.name.clone(), member_in, links: None };
        self.links.insert(peer.incarnation, linked);
        self.tell_links(out);
        self.epoch_seen = self.epoch_seen.max(member_in);
        if self.view.epoch > Epoch(0) {
            self.announce(peer.incarnation, now, out);
        }
        self.review(now, out)
    }

    /// A link is gone.
    pub fn link_down<O: Outside<W>>(
        &mut self,
        peer: Incarnation,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        self.links.remove(&peer);
        self.tell_links(out);
        self.flush_queue.retain(|(origin, _)| *origin != peer);
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
            Message::View(Announcement { view, cluster }) => {
                return self.hear(from, view, cluster, now, out);
            }
            Message::Links(links) => {
                if let Some(linked) = self.links.get_mut(&from) {
                    linked.links = Some(links.into_iter().collect());
                }
            }
            Message::Synced(Synced { epoch, learner }) if epoch == self.view.epoch => {
                self.synced.insert((from, learner));
            }
            Message::FlushAll(request) => self.flush_queue.push((from, request)),
            _ => {}
        }
        self.review(now, out)
    }

    /// Time passes.
    pub fn tick<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
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
                self.basis = self.basis.max(epoch);
            }
            Event::Settled(epoch) => {
                self.settled[lane] = epoch;
                self.answer_flushes(out);
            }
            Event::Counted(epoch, learner) if epoch == self.view.epoch => {
                let lanes = self.counted.entry(learner).or_default();
                *lanes |= 1 << lane;
                if lanes.count_ones() as usize == LANES {
                    self.report_synced(learner, out);
                }
            }
            Event::Counted(..) => {}
        }
        self.review(now, out)
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
        let request = FlushAll { id: self.flushes_asked, epoch: self.view.epoch, at };
        self.ask_flush(request.clone(), out);
        self.flushes.push(Flush { request, done_in: None, waiter });
        self.review(now, out)
    }

    fn ask_flush<O: Outside<W>>(&mut self, request: FlushAll, out: &mut O) {
        match self.decider() {
            Some(decider) if decider == self.me() => self.flush_queue.push((decider, request)),
            Some(decider) => out.send(decider, Message::FlushAll(request)),
            // Asked again with the next view.
            None => {}
        }
    }

    fn answer_flushes<O: Outside<W>>(&mut self, out: &mut O) {
        let settled = self.settled.iter().copied().min().unwrap_or_default();
        let is_done = |flush: &mut Flush<W>| flush.done_in.is_some_and(|epoch| epoch <= settled);
        for flush in self.flushes.extract_if(.., is_done) {
            out.answer(flush.waiter, Outcome::Flushed);
        }
    }

    fn report_synced<O: Outside<W>>(&mut self, learner: Incarnation, out: &mut O) {
        match self.decider() {
            Some(decider) if decider == self.me() => {
                self.synced.insert((decider, learner));
            }
            Some(decider) => {
                let synced = Synced { epoch: self.view.epoch, learner };
                out.send(decider, Message::Synced(synced));
            }
            None => {}
        }
    }

    /// A peer tells the newest view it knows.
    fn hear<O: Outside<W>>(
        &mut self,
        from: Incarnation,
        view: View,
        cluster: Millis,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        if let Some(linked) = self.links.get_mut(&from)
            && view.has_member(from)
        {
            linked.member_in = linked.member_in.max(view.epoch);
        }
        if view.epoch < self.view.epoch {
            self.announce(from, now, out);
        }
        if view.epoch <= self.view.epoch || view.epoch > Epoch::MAX {
            return Vec::new();
        }
        if !self.may_follow(&view) {
            // Two deciders went on from the same view, and this node has worked in the other one.
            self.epoch_seen = self.epoch_seen.max(view.epoch);
            self.contested = true;
            return self.review(now, out);
        }
        let mut todo = Vec::new();
        if !self.is_member() {
            todo.push(Todo::TakeTime(cluster));
        }
        todo.extend(self.adopt(view, out));
        // Passed on: the decider may have died before it had told everybody, and whoever decides
        // next has to know.
        let others = self.links.keys().copied().filter(|&peer| peer != from);
        others.for_each(|peer| self.announce(peer, now, out));
        todo.extend(self.review(now, out));
        todo
    }

    /// Whether this node may go on in that view. As a member only with data that the view builds
    /// on; as a learner it is filled anew.
    ///
    /// A decider that dies while it tells its view leaves two views with one predecessor. In at
    /// most one of them anything can have been committed, as all members have to take part; and
    /// whoever has worked in that one keeps the others from leaving it behind.
    fn may_follow(&self, view: &View) -> bool {
        if !view.has_member(self.me()) {
            // Left out by the members of its own view, or met by another group. A node that came
            // up alone must not make a larger group give up what it holds.
            return !self.is_member()
                || view.lineage.contains(&self.view.epoch)
                || view.weight() > self.view.weight();
        }
        self.basis == Epoch(0)
            || (view.is_founding() && !self.is_member())
            || view.lineage.contains(&self.basis)
    }

    fn adopt<O: Outside<W>>(&mut self, view: View, out: &mut O) -> Vec<Todo> {
        self.epoch_seen = self.epoch_seen.max(view.epoch);
        self.contested = false;
        self.counted.clear();
        self.synced.clear();
        if !view.has_member(self.me()) {
            self.member_since = None;
            self.basis = view.epoch;
            // Whoever waits for a flush here can't be told: the connection is closed.
            self.flushes.clear();
        } else if self.member_since.is_none() || view.generation != self.view.generation {
            self.member_since = Some(view.epoch);
        }
        self.view = view.clone();
        let me = self.me();
        for flush in &mut self.flushes {
            // A view that was passed over has flushed nothing.
            flush.done_in.take_if(|epoch| !view.lineage.contains(epoch));
            if view.answers.contains(&(me, flush.request.id)) {
                flush.done_in = Some(view.epoch);
            }
        }
        self.flush_queue.retain(|(_, request)| request.epoch >= view.epoch);
        let unanswered = self.flushes.iter().filter(|flush| flush.done_in.is_none());
        let again = unanswered.map(|flush| FlushAll { epoch: view.epoch, ..flush.request.clone() });
        for request in again.collect::<Vec<_>>() {
            self.ask_flush(request, out);
        }
        vec![Todo::Install(view)]
    }

    /// The one place where this node decides something about the group.
    fn review<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
        let mut todo = Vec::new();
        while let Some(next) = self.next_view(now) {
            todo.extend(self.adopt(next, out));
            let peers: Vec<_> = self.links.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.announce(peer, now, out));
        }
        todo
    }

    fn next_view(&mut self, now: Now) -> Option<View> {
        if !self.is_member() {
            return self.founding(now);
        }
        if self.decider() != Some(self.me()) {
            return None;
        }
        let present = self.present(now);
        let differs =
            present.members != self.view.members || present.learners != self.view.learners;
        if differs || self.contested {
            return Some(present);
        }
        self.admission().or_else(|| self.flushing(now))
    }

    /// The present view without those whose links are down, and with whoever is new as a learner.
    fn present(&mut self, now: Now) -> View {
        let mut next = self.view.successor(self.next_epoch());
        let kept = self.kept(now);
        let meets_all = |node: Incarnation, if_unknown: bool| {
            kept.iter().all(|&member| self.are_linked(node, member).unwrap_or(if_unknown))
        };
        next.members.retain(|member| kept.contains(&member.incarnation));
        next.learners.retain(|learner| meets_all(learner.incarnation, true));
        let newcomers = self.links.iter().filter(|&(&incarnation, linked)| {
            !self.view.has(incarnation)
                && linked.member_in <= self.view.epoch
                && meets_all(incarnation, false)
        });
        next.learners.extend(
            newcomers
                .map(|(&incarnation, linked)| Member { name: linked.name.clone(), incarnation }),
        );
        next.learners.sort();
        next
    }

    /// The members that go on: those linked here, and, if some of them can't reach each other for
    /// a while, the largest set by name of which all can.
    ///
    /// For a while, because the others may notice a crash before this node does: whoever reports a
    /// torn link first must not be taken for the one that died.
    fn kept(&mut self, now: Now) -> Vec<Incarnation> {
        let (mut linked, mut meeting) = (vec![self.me()], vec![self.me()]);
        for member in self.view.others(self.me()) {
            if self.links.contains_key(&member) {
                linked.push(member);
                let meets = |&other: &Incarnation| self.are_linked(member, other) != Some(false);
                if meeting.iter().all(meets) {
                    meeting.push(member);
                }
            }
        }
        if linked == meeting {
            // What was said over the torn link is lost: a fresh view begins all streams anew.
            self.contested |= self.torn_since.take().is_some();
            return linked;
        }
        let since = *self.torn_since.get_or_insert(now.local);
        if now.local.since(since) < TORN_WAIT_MS { linked } else { meeting }
    }

    /// Whether both say that they are linked; `None` while one of them has not said anything.
    fn are_linked(&self, one: Incarnation, other: Incarnation) -> Option<bool> {
        let says = |from: Incarnation, to: Incarnation| {
            if from == self.me() {
                return Some(self.links.contains_key(&to));
            }
            match self.links.get(&from) {
                Some(_) if to == self.me() => Some(true),
                Some(linked) => linked.links.as_ref().map(|links| links.contains(&to)),
                None => Some(false),
            }
        };
        match (says(one, other), says(other, one)) {
            (Some(one), Some(other)) => Some(one && other),
            (Some(false), None) | (None, Some(false)) => Some(false),
            _ => None,
        }
    }

    /// A learner that every member has filled in this very epoch becomes a member.
    fn admission(&self) -> Option<View> {
        let is_filled = |learner: &&Member| {
            let mut members = self.view.members.iter();
            members.all(|member| self.synced.contains(&(member.incarnation, learner.incarnation)))
        };
        let learner = self.view.learners.iter().find(is_filled)?.clone();
        let mut next = self.view.successor(self.next_epoch());
        next.learners.retain(|other| *other != learner);
        next.members.push(learner);
        next.members.sort();
        Some(next)
    }

    fn flushing(&mut self, now: Now) -> Option<View> {
        if self.last_flush.is_some_and(|last| now.local.since(last) < FLUSH_INTERVAL_MS) {
            return None;
        }
        let due = self.view.flush_at.is_some_and(|at| at <= now.cluster);
        let epoch = self.view.epoch;
        self.flush_queue.retain(|(_, request)| request.epoch == epoch);
        let at_once = due || self.flush_queue.iter().any(|(_, request)| request.at.is_none());
        let mut next = self.view.successor(self.next_epoch());
        if at_once {
            // One view answers all that wait. A later flush_all replaces one that was still to
            // come, as in memcached.
            next.floor = Version::floor_of(next.epoch);
            next.flush_at = None;
            let now_wanted = |(_, request): &mut (_, FlushAll)| request.at.is_none();
            let answered = self.flush_queue.extract_if(.., now_wanted);
            next.answers = answered.map(|(origin, request)| (origin, request.id)).collect();
        } else {
            let (origin, request) = self.flush_queue.pop()?;
            next.flush_at = request.at;
            next.answers = vec![(origin, request.id)];
        }
        self.last_flush = Some(now.local);
        Some(next)
    }

    /// A new group of those that wait: when no member is in sight, and nobody is missing any more
    /// or has been waited for long enough.
    fn founding(&mut self, now: Now) -> Option<View> {
        if self.links.values().any(|linked| linked.member_in > Epoch(0)) {
            self.alone_since = None;
            return None;
        }
        let since = *self.alone_since.get_or_insert(now.local);
        let mut members = vec![self.options.me.clone()];
        for (&incarnation, linked) in &self.links {
            let meets =
                |member: &Member| self.are_linked(incarnation, member.incarnation).unwrap_or(false);
            if linked.links.is_some() && members.iter().all(meets) {
                members.push(Member { name: linked.name.clone(), incarnation });
            }
        }
        let all_here = members.len() == self.options.peers.len() + 1;
        let waited = now.local.since(since) >= self.options.boot_wait_ms;
        let lowest = self.links.values().all(|linked| linked.name > self.options.me.name);
        if !lowest || !(all_here || waited) {
            return None;
        }
        let epoch = self.next_epoch();
        members.sort();
        Some(View { epoch, generation: epoch, members, ..View::default() })
    }

    /// The smallest epoch of this node's rank above all it has heard of.
    fn next_epoch(&self) -> Epoch {
        let above = self.epoch_seen.max(self.view.epoch).0 + 1;
        Epoch(above + (self.rank + RANKS - above % RANKS) % RANKS)
    }

    /// Whether this node is the whole group, and nobody is about to join.
    pub fn is_alone(&self) -> bool {
        self.is_member() && self.view.members.len() == 1 && self.view.learners.is_empty()
    }

    /// The lowest-named member whose link is up.
    fn decider(&self) -> Option<Incarnation> {
        let me = self.me();
        let mut members = self.view.members.iter().map(|member| member.incarnation);
        members.find(|member| *member == me || self.links.contains_key(member))
    }

    fn tell_links<O: Outside<W>>(&self, out: &mut O) {
        let links: Vec<_> = self.links.keys().copied().collect();
        for &peer in &links {
            out.send(peer, Message::Links(links.clone()));
        }
    }

    fn announce<O: Outside<W>>(&self, to: Incarnation, now: Now, out: &mut O) {
        let announcement = Announcement { view: self.view.clone(), cluster: now.cluster };
        out.send(to, Message::View(announcement));
    }

    fn is_member(&self) -> bool {
        self.view.has_member(self.me())
    }

    fn me(&self) -> Incarnation {
        self.options.me.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody listens; the tests look at the view.
    struct Unheard;

    impl Outside<()> for Unheard {
        fn send(&mut self, _: Incarnation, _: Message) {}

        fn answer(&mut self, (): (), _: Outcome) {}

        fn still_waits(&self, (): &()) -> bool {
            true
        }
    }

    fn node(n: u64) -> Member {
        Member { name: format!("n{n}").into(), incarnation: Incarnation(n) }
    }

    fn at(ms: u64) -> Now {
        Now { local: Millis(ms), cluster: Millis(1_000_000 + ms), wall_s: 0 }
    }

    /// n1, linked with the others of three, who are all linked with each other.
    fn first_of(others: &[u64]) -> Group<()> {
        let mut group = Group::new(GroupOptions {
            me: node(1),
            peers: vec!["n2".into(), "n3".into()],
            boot_wait_ms: 1000,
            first_epoch: Epoch(100),
        });
        group.tick(at(0), &mut Unheard);
        for &other in others {
            group.link_up(&node(other), Epoch(0), at(0), &mut Unheard);
        }
        for &other in others {
            let links = others.iter().copied().filter(|&n| n != other).chain([1]);
            says_links(&mut group, other, &links.collect::<Vec<_>>(), at(0));
        }
        group.tick(at(1000), &mut Unheard);
        assert_eq!(group.view().members.len(), others.len() + 1);
        group
    }

    fn says_links(group: &mut Group<()>, from: u64, links: &[u64], now: Now) {
        let links = links.iter().map(|&n| Incarnation(n)).collect();
        group.receive(Incarnation(from), Message::Links(links), now, &mut Unheard);
    }

    fn says_view(group: &mut Group<()>, from: u64, view: View) {
        let announcement = Announcement { view, cluster: Millis(0) };
        group.receive(Incarnation(from), Message::View(announcement), at(1000), &mut Unheard);
    }

    fn alone(n: u64, epoch: u32) -> View {
        let (epoch, members) = (Epoch(epoch), vec![node(n)]);
        View { epoch, generation: epoch, members, ..View::default() }
    }

    #[test]
    fn a_node_that_came_up_alone_does_not_make_a_larger_group_give_up() {
        let mut group = first_of(&[2]);
        group.link_up(&node(3), Epoch(5000), at(1000), &mut Unheard);
        says_view(&mut group, 3, alone(3, 5000));
        assert!(group.view().has_member(Incarnation(1)) && group.view().has_member(Incarnation(2)));
        assert!(group.view().epoch > Epoch(5000), "raised, so that the lone node follows");
    }

    #[test]
    fn a_lone_node_follows_a_larger_group() {
        let mut group = first_of(&[]);
        group.link_up(&node(2), Epoch(5000), at(1000), &mut Unheard);
        let members = vec![node(2), node(3)];
        says_view(&mut group, 2, View { members, ..alone(2, 5000) });
        assert_eq!(group.view().epoch, Epoch(5000));
        assert!(!group.is_serving());
    }

    #[test]
    fn a_flush_asked_in_an_older_view_is_not_carried_out() {
        let mut group = first_of(&[2]);
        let (epoch, floor) = (group.view().epoch, group.view().floor);
        let late = FlushAll { id: 1, epoch: Epoch(epoch.0 - 1), at: None };
        group.receive(Incarnation(2), Message::FlushAll(late), at(2000), &mut Unheard);
        assert_eq!(group.view().floor, floor);
        let timely = FlushAll { id: 2, epoch, at: None };
        group.receive(Incarnation(2), Message::FlushAll(timely), at(2000), &mut Unheard);
        assert!(group.view().floor > floor);
    }

    #[test]
    fn a_torn_link_is_believed_after_a_while_and_costs_a_view_when_it_heals() {
        let mut group = first_of(&[2, 3]);
        let before = group.view().epoch;
        says_links(&mut group, 2, &[1], at(2000));
        group.tick(at(2000 + TORN_WAIT_MS - 1), &mut Unheard);
        assert_eq!(group.view().epoch, before, "the one that reports may be the one that lives");
        says_links(&mut group, 2, &[1, 3], at(2600));
        assert!(group.view().epoch > before, "what was lost on the link is begun anew");
        says_links(&mut group, 2, &[1], at(3000));
        group.tick(at(3000 + TORN_WAIT_MS), &mut Unheard);
        assert!(!group.view().has_member(Incarnation(3)));
    }

    #[test]
    fn epochs_of_two_deciders_are_never_equal() {
        let mut group = first_of(&[2]);
        let mut rank = || {
            group.epoch_seen = Epoch(group.epoch_seen.0 + 1);
            group.next_epoch().0 % RANKS
        };
        assert!((0..20).all(|_| rank() == 0), "n1 has rank 0");
    }
}
