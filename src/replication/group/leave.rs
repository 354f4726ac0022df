//! A member that goes in order: the others do without it from one view to the next, and wait for
//! no promise of theirs to run out.
//!
//! It asks for a view without itself with every beat. Once it knows that view it answers no read
//! and has no say any more, whatever its lanes are doing; its next beat, which names that view, is
//! its goodbye. What its clients still want, it asks the members for.

use super::*;

impl<W> Group<W> {
    /// This node is about to end.
    pub fn leave<O: Outside<W>>(&mut self, now: Now, out: &mut O) -> Vec<Todo> {
        self.is_leaving = true;
        self.beat_to_all(now, out);
        self.review(now, out)
    }

    /// Whether the group does without this node, or there is nobody who could.
    pub fn has_left(&self, now: Now) -> bool {
        let others = self.view.members.iter().chain(&self.view.learners);
        let mut others = others.map(|member| member.incarnation).filter(|&life| life != self.me());
        !self.is_member() || !others.any(|life| self.is_up(life, now) && !self.leaves(life))
    }

    /// Whether that node wants to be left out.
    pub(super) fn leaves(&self, life: Incarnation) -> bool {
        if life == self.me() {
            return self.is_leaving;
        }
        self.peers.beat(life).is_some_and(|beat| beat.leaving)
    }

    /// The member to leave out now: one after the other, and only while all others are there. The
    /// last that is left stays, for it has the items.
    pub(super) fn leaver(&self, kept: &[Incarnation]) -> Option<Incarnation> {
        let somebody_stays = kept.iter().any(|&member| !self.leaves(member));
        if !somebody_stays || kept.len() < self.view.members.len() || !self.is_settled() {
            return None;
        }
        kept.iter().copied().filter(|&member| self.leaves(member)).max()
    }

    /// Whoever wanted to be left out, or has a successor, learns at once that it is: its goodbye is
    /// waited for.
    pub(super) fn dismiss<O: Outside<W>>(&self, out: &mut O) {
        let former = self.former.members.iter();
        let gone = former.filter(|member| {
            member.incarnation != self.me() && !self.view.has_member(member.incarnation)
        });
        let knows = |member: &&Member| {
            self.leaves(member.incarnation) || self.view.member_of(&member.name).is_some()
        };
        for member in gone.filter(knows) {
            self.announce(member.incarnation, out);
        }
    }

    /// Whoever ends in order may have said that it knows this view before this node did, and may be
    /// gone a moment later: it relies on nothing, and is not waited for.
    pub(super) fn hear_goodbyes(&mut self, now: Now) {
        if self.left_out.is_empty() || self.flush_due.is_none_or(|due| due <= now.local) {
            return;
        }
        let Self { peers, view, left_out, flush_due, .. } = self;
        let knows = |beat: &Beat| beat.view == (view.line, view.epoch);
        left_out.retain(|&life| !peers.is_dead(life) && !peers.beat(life).is_some_and(knows));
        if left_out.is_empty() {
            *flush_due = Some(now.local);
        }
    }
}
