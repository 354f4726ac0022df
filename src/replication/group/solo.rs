//! This node on its own: it goes on without the others because an operator says that they are
//! dead, or shows its own copy, old as it may be, while it reaches nobody.

use super::*;
use crate::replication::view::{LINE_GAP, Line};

/// What an operator has asked for, or allowed.
#[derive(Debug, Default)]
pub(super) struct Solo {
    /// When it goes on alone. By then whatever others have promised each other has run out.
    due: Option<Millis>,
    /// It answers reads without a lease.
    pub(super) is_isolated: bool,
}

impl<W> Group<W> {
    /// An operator says that all others are dead, though nothing here proves it; `is_led` tells
    /// whether views can be agreed on. Returns after how many milliseconds this node goes on alone;
    /// or why not.
    pub fn force_solo(&mut self, is_led: bool, now: Now) -> Result<u64, String> {
        if self.is_removed() {
            return Err("this node was removed from the group".into());
        }
        if let Some(name) = self.living_member(now) {
            return Err(format!("{name} is alive and a member"));
        }
        // Otherwise those that have left, or were removed, took a vote with them that is needed.
        if self.view.lives() == [self.me()] && is_led {
            return Err("this node is alone already".into());
        }
        let wait_ms = self.options.timing.grant_ms;
        self.solo.due.get_or_insert(now.local.plus(wait_ms));
        Ok(wait_ms)
    }

    /// The view with which an operator lets this node go on, once it is time.
    pub(super) fn solo(&mut self, now: Now) -> Option<View> {
        self.solo.due.take_if(|due| *due <= now.local)?;
        if self.living_member(now).is_some() {
            return None;
        }
        if self.is_member() {
            let mut next = self.alone("force-solo");
            let others = self.view.members.iter().filter(|member| member.incarnation != self.me());
            next.absent.extend(others.cloned());
            return Some(next);
        }
        // Nobody is left who has anything: it begins with nothing.
        let View { epoch, line, nodes, members, follows, cause, .. } = self.alone("force-solo");
        let generation = epoch;
        Some(View { epoch, follows, line, generation, nodes, members, cause, ..View::default() })
    }

    /// Only this node, in a new line of views.
    pub(super) fn alone(&self, cause: &str) -> View {
        let mut next = self.view.successor(false, cause);
        next.epoch = Epoch((self.view.epoch.0 + LINE_GAP).max(self.options.first_epoch.0));
        next.nodes = self.nodes().clone();
        next.line =
            Line { number: self.view.line.number.saturating_add(1), random: self.options.seed };
        next.members = vec![self.options.me.clone()];
        next.learners.clear();
        next.unsettled.clear();
        next
    }

    pub(super) fn living_member(&self, now: Now) -> Option<&str> {
        let mut others = self.view.members.iter().filter(|member| member.incarnation != self.me());
        others.find(|member| self.is_up(member.incarnation, now)).map(|member| &*member.name)
    }

    /// Where operators allow it, a member that has lost the others answers reads all the same.
    pub(super) fn note_isolation(&mut self, now: Now) -> Option<Todo> {
        let is_isolated = self.options.isolated_reads
            && self.is_member()
            && self.is_serving()
            && !self.lease.holds(self.view.epoch, now.local)
            && self.living_member(now).is_none();
        if std::mem::replace(&mut self.solo.is_isolated, is_isolated) == is_isolated {
            return None;
        }
        self.lease.set_isolated(is_isolated);
        Some(Todo::Isolated(is_isolated))
    }
}
