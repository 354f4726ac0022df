//! What to propose to the log: the only place where this node decides something about the group.

use std::collections::BTreeMap;

use super::*;
use crate::version::Version;

/// Between two views that flush. Each takes an epoch, of which there are not endlessly many.
const FLUSH_INTERVAL_MS: u64 = 100;
/// An offer that was lost is made again after this long.
const REPEAT_MS: u64 = 100;
/// How long two members may say that they can't reach each other before one is left out: the
/// others may notice a crash before the decider does, and whoever reports first must not be taken
/// for the one that died.
const TORN_WAIT_MS: u64 = 200;
/// A life that was left out may come back after 1 s, 2 s, 4 s, and so on, up to this.
const BACK_OFF_MAX_MS: u64 = 60_000;
/// Whoever has stayed for so long starts anew with that.
const BACK_OFF_FORGET_MS: u64 = 300_000;
/// Former members that are remembered although nobody has seen them.
const ABSENT_MAX: usize = 8;
/// A learner that has everything waits this long for its vote. Its data is worth more than that.
const SEAT_WAIT_MS: u64 = 10_000;

/// What this node has proposed and why.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    last: Option<(View, Millis)>,
    torn_since: Option<Millis>,
    last_flush: Option<Millis>,
    alone_since: Option<Millis>,
    /// Since when a learner has everything and no vote.
    unseated_since: Option<Millis>,
    /// Whether this node could read when it last lost somebody to death.
    could_read: bool,
    /// How often a life was left out, and when last.
    left_out: BTreeMap<Incarnation, (u32, Millis)>,
}

impl Proposals {
    /// The view has changed.
    pub(super) fn adopted(&mut self, former: &View, next: &View, now: Millis) {
        self.last = None;
        self.torn_since = None;
        self.unseated_since = None;
        let absent = next.absent.iter().map(|member| member.incarnation);
        for life in absent.filter(|&life| former.has_member(life)).collect::<Vec<_>>() {
            self.leave_out(life, now);
        }
    }

    /// Somebody's process has ended, and at that moment this node could read, or not.
    pub(super) fn note_end(&mut self, could_read: bool) {
        self.could_read |= could_read;
    }

    fn may_return(&self, life: Incarnation, now: Millis) -> bool {
        self.left_out.get(&life).is_none_or(|&(times, last)| {
            let pause = 500u64 << times.min(7);
            now.since(last) >= pause.min(BACK_OFF_MAX_MS)
        })
    }

    fn leave_out(&mut self, life: Incarnation, now: Millis) {
        let (times, last) = self.left_out.entry(life).or_insert((0, now));
        *times = if now.since(*last) > BACK_OFF_FORGET_MS { 1 } else { *times + 1 };
        *last = now;
    }
}

impl<W> Group<W> {
    pub(super) fn propose<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
        self.drop_wanted(now);
        if let Some(view) = self.last_man(now).filter(|view| self.may_offer(view, now)) {
            return vec![Todo::Log(LogWish::FoundLine(Box::new(self.with_features(view))))];
        }
        if let Some(view) = self.solo(now) {
            return vec![Todo::Log(LogWish::FoundLine(Box::new(self.with_features(view))))];
        }
        let Some(next) = self.next_view(now) else {
            return Vec::new();
        };
        let next = self.with_features(next);
        if self.options.nodes.is_empty() {
            // There is nobody to agree with.
            return self.agreed(next, now, out);
        }
        if !self.may_offer(&next, now) {
            return Vec::new();
        }
        vec![Todo::Log(LogWish::Propose(Box::new(next)))]
    }

    /// With the features that all know who have a part in it. Of somebody who was never met here it is
    /// not known what it knows.
    fn with_features(&self, mut view: View) -> View {
        let lives = view.members.iter().chain(&view.learners).map(|member| member.incarnation);
        let known = lives.map(|life| match self.peers.speaks(life) {
            _ if life == self.me() => self.options.speaks.features,
            Some(speaks) => speaks.features,
            None => Features::NONE,
        });
        view.features = known.fold(Features::ALL, Features::and);
        view
    }

    /// Whether this was not offered a moment ago.
    fn may_offer(&mut self, next: &View, now: Now) -> bool {
        let is_repeated = |(last, at): &(View, Millis)| {
            last.members == next.members
                && last.learners == next.learners
                && last.floor == next.floor
                && last.nodes == next.nodes
                && now.local.since(*at) < REPEAT_MS
        };
        if self.proposals.last.as_ref().is_some_and(is_repeated) {
            return false;
        }
        self.proposals.last = Some((next.clone(), now.local));
        true
    }

    fn next_view(&mut self, now: Now) -> Option<View> {
        if !self.is_member() {
            return self.beginning(now);
        }
        let decides = self.decider(now) == Some(self.me());
        if decides {
            let present = self.present(now);
            if present.members != self.view.members || present.learners != self.view.learners {
                let keeps = !self.options.rules.half || present.keeps_half_of(&self.view);
                return keeps.then_some(present);
            }
        }
        if !self.is_settled() {
            return None;
        }
        // Whoever was asked proposes it; should two offer something at once, the log takes one.
        let wanted = self.with_nodes_wanted();
        if wanted.is_some() || !decides {
            return wanted;
        }
        self.admission(now).or_else(|| self.flushing(now))
    }

    /// The present view without those that are down, and with whoever is new as a learner.
    fn present(&mut self, now: Now) -> View {
        let mut kept = self.kept(now);
        let is_settled = self.is_settled();
        let leaver = self.leaver(&kept);
        kept.retain(|&member| leaver != Some(member));
        let mut next = self.view.successor(is_settled, "");
        let gone: Vec<Member> =
            next.members.extract_if(.., |member| !kept.contains(&member.incarnation)).collect();
        let (dead, missing): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|member| self.peers.is_dead(member.incarnation));
        next.cause = self.cause(&dead, &missing, now).into();
        next.dead.extend(dead.iter().map(|member| member.incarnation));
        next.absent.extend(missing);
        let meets_all = |node: Incarnation, if_unknown: bool| {
            kept.iter().all(|&member| self.are_linked(node, member, now).unwrap_or(if_unknown))
        };
        let left = next.learners.extract_if(.., |learner| {
            let life = learner.incarnation;
            !meets_all(life, true) || self.leaves(life)
        });
        next.absent.extend(left);
        next.absent.retain(|member| !self.peers.is_dead(member.incarnation));
        if is_settled {
            let newcomers = self.peers.living().filter(|&(life, name)| {
                !next.has(life)
                    && life != self.me()
                    && self.nodes().contains_key(name)
                    && !self.leaves(life)
                    && self.has_place_for(life, name)
                    && self.proposals.may_return(life, now.local)
                    && meets_all(life, false)
            });
            let member = |(incarnation, name): (_, &str)| Member { name: name.into(), incarnation };
            let mut newcomers: Vec<Member> = newcomers.map(member).collect();
            // Of those beside others one after the other: they do not reach each other.
            let is_beside = |one: &Member| self.peers.beside(one.incarnation).is_some();
            let mut is_taken = next.members.iter().chain(&next.learners).any(is_beside);
            newcomers.retain(|one| !is_beside(one) || !std::mem::replace(&mut is_taken, true));
            next.absent.retain(|member| !newcomers.contains(member));
            if next.cause.is_empty() && !newcomers.is_empty() {
                next.cause = "join".into();
            }
            next.learners.extend(newcomers);
        }
        if next.cause.is_empty() {
            next.cause = "learner left".into();
        }
        let surplus = next.absent.len().saturating_sub(ABSENT_MAX);
        next.absent.drain(..surplus);
        next.learners.sort();
        next
    }

    /// Whether no other life of that name is a member, but for the one that it is to succeed.
    fn has_place_for(&self, life: Incarnation, name: &str) -> bool {
        let present = self.view.member_of(name);
        present.is_none() || present == self.peers.beside(life)
    }

    fn cause(&self, dead: &[Member], missing: &[Member], now: Now) -> &'static str {
        let is_stuck = |member: &Member| self.peers.is_stuck(member.incarnation, now.local);
        match (dead.is_empty(), missing.is_empty()) {
            (false, _) => "death",
            (true, false) if missing.iter().any(is_stuck) => "stuck",
            (true, false) if missing.iter().all(|member| self.leaves(member.incarnation)) => {
                "leave"
            }
            (true, false) => "silence",
            (true, true) => "",
        }
    }

    /// The members that go on: those that are up, and, if some of them can't reach each other for a
    /// while, as many as possible of which all can.
    fn kept(&mut self, now: Now) -> Vec<Incarnation> {
        let me = self.me();
        let linked: Vec<_> = [me]
            .into_iter()
            .chain(self.view.others(me).filter(|&it| self.is_up(it, now)))
            .collect();
        let meeting = self.largest_meeting(&linked, now);
        if linked == meeting {
            self.proposals.torn_since = None;
            return linked;
        }
        let since = *self.proposals.torn_since.get_or_insert(now.local);
        if now.local.since(since) < TORN_WAIT_MS { linked } else { meeting }
    }

    /// The largest part of these of which all can reach each other, this node, which is the first,
    /// included. Of two that are as large, the one with the lower names: where two can't reach each
    /// other, that leaves the higher one out. Whoever can't reach several is left out alone.
    fn largest_meeting(&self, linked: &[Incarnation], now: Now) -> Vec<Incarnation> {
        // Whoever falls silent is missed by some before this node does, and is no end of a torn link.
        let speaks = |life| {
            life == self.me()
                || self.peers.spoke_within(life, self.options.timing.suspect_ms / 2, now.local)
        };
        let is_torn = |&(one, other): &(usize, usize)| {
            let (one, other) = (linked[one], linked[other]);
            self.are_linked(one, other, now) == Some(false) && speaks(one) && speaks(other)
        };
        let pairs = (0..linked.len())
            .flat_map(|one| (one + 1..linked.len()).map(move |other| (one, other)));
        let torn: Vec<(usize, usize)> = pairs.filter(is_torn).collect();
        if torn.is_empty() {
            return linked.to_vec();
        }
        // The lower a name, the higher its bit. With at most 7 nodes these are at most 128 parts.
        let last = linked.len() - 1;
        let has = |part: u32, member: usize| part & 1 << (last - member) != 0;
        let meets =
            |&part: &u32| has(part, 0) && !torn.iter().any(|&(a, b)| has(part, a) && has(part, b));
        let part = (0..1u32 << linked.len()).filter(meets).max_by_key(|&p| (p.count_ones(), p));
        let part = part.expect("this node alone meets itself");
        (0..linked.len()).filter(|&member| has(part, member)).map(|member| linked[member]).collect()
    }

    /// Whether both say that they hear each other; `None` while one of them has not said anything.
    fn are_linked(&self, one: Incarnation, other: Incarnation, now: Now) -> Option<bool> {
        let me = self.me();
        let says = |from: Incarnation, to: Incarnation| {
            if from == me {
                return Some(self.is_up(to, now));
            }
            self.peers.beat(from).map(|beat| beat.up.contains(&to))
        };
        if one == other {
            return Some(true);
        }
        match (says(one, other), says(other, one)) {
            (Some(one), Some(other)) => Some(one && other),
            (Some(false), None) | (None, Some(false)) => Some(false),
            _ => None,
        }
    }

    /// A learner that every member has filled in this very epoch becomes a member, as soon as the log
    /// counts its vote: otherwise views could need more of the other votes than members need.
    ///
    /// A life that was started beside one that is a member takes its place in the same view. The
    /// vote follows when that one has ended.
    fn admission(&mut self, now: Now) -> Option<View> {
        let me = self.me();
        let has_filled = |member: Incarnation, learner: Incarnation| {
            if member == me {
                let lanes = self.counted.get(&learner).copied().unwrap_or_default();
                return lanes.count_ones() as usize == LANES;
            }
            self.peers.beat(member).is_some_and(|beat| {
                beat.view == (self.view.line, self.view.epoch) && beat.filled.contains(&learner)
            })
        };
        let is_filled = |learner: &&Member| {
            let mut members = self.view.members.iter();
            members.all(|member| has_filled(member.incarnation, learner.incarnation))
        };
        let filled: Vec<&Member> = self.view.learners.iter().filter(is_filled).collect();
        if filled.is_empty() {
            self.proposals.unseated_since = None;
            return None;
        }
        let since = *self.proposals.unseated_since.get_or_insert(now.local);
        let is_late = now.local.since(since) >= SEAT_WAIT_MS;
        let is_ready = |learner: &&Member| {
            self.has_place_for(learner.incarnation, &learner.name)
                && (is_late || self.is_seated(learner))
        };
        filled.into_iter().filter(is_ready).find_map(|learner| self.view_with(learner))
    }

    /// The next view, in which that learner is a member, instead of the one of its name. `None` where that
    /// is the only member: nobody would be left who knows what it had promised. Others go before it then.
    fn view_with(&self, learner: &Member) -> Option<View> {
        let is_successor = self.view.member_of(&learner.name).is_some();
        let cause = if is_successor { "upgrade" } else { "admission" };
        let mut next = self.view.successor(true, cause);
        next.learners.retain(|other| other != learner);
        let is_namesake = |other: &mut Member| other.name == learner.name;
        let former = next.members.extract_if(.., is_namesake);
        let former = former.chain(next.learners.extract_if(.., is_namesake));
        next.absent.extend(former.collect::<Vec<_>>());
        next.members.push(learner.clone());
        next.members.sort();
        next.keeps_half_of(&self.view).then_some(next)
    }

    /// Whether the log counts the vote of that learner, if it is to have one; or of its predecessor,
    /// whose place there it takes.
    fn is_seated(&self, learner: &Member) -> bool {
        let votes = self.nodes().get(&learner.name).is_some_and(|place| place.votes);
        let is_seated = |life: Incarnation| match life == self.me() {
            true => self.is_seated,
            false => self.peers.beat(life).is_some_and(|beat| beat.is_seated),
        };
        let former = self.peers.beside(learner.incarnation);
        !votes || is_seated(learner.incarnation) || former.is_some_and(is_seated)
    }

    fn flushing(&mut self, now: Now) -> Option<View> {
        let last = self.proposals.last_flush;
        if last.is_some_and(|last| now.local.since(last) < FLUSH_INTERVAL_MS) {
            return None;
        }
        let mut next = self.view.successor(true, "flush_all");
        if next.epoch > Epoch::MAX {
            return None;
        }
        let wishes = self.flushes_wished();
        let mut is_wanted = false;
        for (origin, request) in wishes {
            match request.at {
                None => {
                    is_wanted = true;
                    next.flush_at = None;
                }
                Some(at) => next.flush_at = Some(at),
            }
            let newest = next.flushed.entry(origin).or_default();
            *newest = request.id.max(*newest);
        }
        if next.flush_at.is_some_and(|at| at <= now.cluster) {
            (is_wanted, next.flush_at) = (true, None);
        }
        if is_wanted {
            next.floor = Version::floor_of(next.epoch);
        } else if next.flush_at == self.view.flush_at && next.flushed == self.view.flushed {
            return None;
        }
        next.flushed.retain(|life, _| self.view.remembers(*life));
        self.proposals.last_flush = Some(now.local);
        Some(next)
    }

    /// All requests to flush that were not carried out yet, those of each node in their order.
    fn flushes_wished(&self) -> Vec<(Incarnation, FlushAll)> {
        let mut wishes: Vec<_> =
            self.open_flushes().into_iter().map(|request| (self.me(), request)).collect();
        for (life, _) in self.peers.living() {
            if let Some(beat) = self.peers.beat(life).filter(|_| self.view.remembers(life)) {
                let done = self.view.flushed.get(&life).copied().unwrap_or_default();
                let open = beat.flushes.iter().filter(|request| request.id > done);
                wishes.extend(open.map(|request| (life, request.clone())));
            }
        }
        wishes
    }

    /// A group begins, or begins anew: nobody is left who has its data.
    fn beginning(&mut self, now: Now) -> Option<View> {
        let is_beside = self.peers.beside(self.me()).is_some();
        if self.is_removed() || is_beside || !self.is_data_lost(now) {
            self.proposals.alone_since = None;
            return None;
        }
        let since = *self.proposals.alone_since.get_or_insert(now.local);
        let mut members = vec![self.options.me.clone()];
        for (life, name) in self.peers.living() {
            let meets =
                |member: &Member| self.are_linked(life, member.incarnation, now).unwrap_or(false);
            let is_node = self.options.nodes.is_empty() || self.nodes().contains_key(name);
            let is_beside = self.peers.beside(life).is_some();
            if life != self.me() && is_node && !is_beside && members.iter().all(meets) {
                members.push(Member { name: name.into(), incarnation: life });
            }
        }
        let all_here = members.len() + self.witnesses.len() >= self.nodes().len();
        let waited = now.local.since(since) >= self.options.timing.boot_wait_ms;
        let is_beside = |life: &Incarnation| self.peers.beside(*life).is_some();
        let lowest = self.up(now).into_iter().filter(|life| !is_beside(life)).all(|life| {
            let name = self.peers.living().find(|(other, _)| *other == life).map(|(_, name)| name);
            name.is_none_or(|name| *name > *self.options.me.name)
        });
        if !lowest || !(all_here || waited) {
            return None;
        }
        let epoch = Epoch((self.view.epoch.0 + 1).max(self.options.first_epoch.0));
        members.sort();
        Some(View {
            epoch,
            follows: self.view.epoch,
            line: self.view.line,
            generation: epoch,
            nodes: self.nodes().clone(),
            members,
            cause: if self.view.epoch == Epoch(0) { "founding" } else { "cold start" }.into(),
            ..View::default()
        })
    }

    /// Whether nobody can have what the last view had: there was none, or all its members are over.
    fn is_data_lost(&self, now: Now) -> bool {
        let refusal_ms = self.options.timing.refusal_ms;
        self.view.members.iter().all(|member| {
            self.peers.is_dead(member.incarnation)
                || self.peers.has_refused(&member.name, refusal_ms, now.local).is_some()
        })
    }

    /// Everybody else is proven dead: this node goes on, in a new line of views.
    fn last_man(&mut self, now: Now) -> Option<View> {
        let GroupOptions { me, last_man_standing, timing, .. } = &self.options;
        if !last_man_standing || !self.is_member() || self.view.members.len() == 1 {
            return None;
        }
        let has_died =
            |name: &str| self.peers.has_refused(name, timing.refusal_ms, now.local) == Some(true);
        let others_dead = self.view.others(self.me()).all(|life| self.peers.is_dead(life));
        // A witness has no data that could be newer; with one that lives there is a majority.
        let others = self.nodes().keys().filter(|name| **name != me.name);
        let mut candidates = others.filter(|name| !self.witnesses.contains(*name));
        let all_died = candidates.all(|name| has_died(name));
        if !others_dead || !all_died || !self.proposals.could_read {
            return None;
        }
        let mut next = self.alone("last man standing");
        next.dead = self.view.others(self.me()).collect();
        Some(next)
    }
}
