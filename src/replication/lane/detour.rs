//! Ways around a torn link. A node that is no member has its requests decided by their owners, and
//! may not reach one of them: that is why it was left out, when two members could not reach each
//! other. Another member then passes the request on, and its answer back.
//!
//! A request keeps its number on every way, so that whatever comes twice is decided once.

use std::collections::BTreeMap;

use super::*;

/// The ways of one view.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// By owner, who is to pass this node's requests on. Nobody, where the owner answers.
    around: BTreeMap<Incarnation, Around>,
    /// As an owner, by origin: who has passed its last request on.
    back: BTreeMap<Incarnation, Incarnation>,
}

#[derive(Debug)]
struct Around {
    through: Option<Incarnation>,
    /// Since when this way is tried.
    since: Millis,
}

impl<W> Lane<W> {
    /// For how long an answer is waited for until a request is given to its owner again. A member
    /// is in a view of nodes that reach each other; anybody else looks for a way that leads there.
    pub(super) fn resend_ms(&self) -> u64 {
        match self.role {
            Role::Member => RESEND_MS,
            Role::Learner | Role::Outsider => RESEND_MS.min(self.options.suspect_ms),
        }
    }

    /// A request was given to its owner, and there is no answer: is there another way?
    pub(super) fn look_for_a_way(&mut self, counter: u64, now: Millis) {
        let Some(request) = self.requests.get(counter).filter(|_| self.role != Role::Member) else {
            return;
        };
        let owner = Key::new(&request.key).and_then(|key| self.owners.owner(key.hash()));
        let (Some(sent), Some(owner)) = (request.sent, owner) else {
            return;
        };
        let around = self.detours.around.entry(owner);
        let around = around.or_insert(Around { through: None, since: Millis(0) });
        // Otherwise it went another way, and says nothing of this one.
        if sent < around.since {
            return;
        }
        let me = self.options.me;
        let mut others = self.view.others(me).filter(|&other| other != owner);
        around.through = match around.through {
            None => others.next(),
            Some(through) => others.skip_while(|&other| other != through).nth(1),
        };
        around.since = now;
    }

    /// Gives a request of this node to its owner.
    pub(super) fn ask<O: Outside<W>>(&self, owner: Incarnation, fwd: Fwd, out: &mut O) {
        match self.detours.around.get(&owner).and_then(|around| around.through) {
            Some(through) => self.tell(through, LaneMessage::PassFwd(self.options.me, fwd), out),
            None => self.tell(owner, LaneMessage::Fwd(fwd), out),
        }
    }

    /// A request that took a way around: to be decided here, or to be passed on, once.
    pub(super) fn passed<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        origin: Incarnation,
        fwd: Fwd,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let key = Key::new(&fwd.key).ok_or(Violation("a forwarded key of no legal length"))?;
        let owner = self.owners.owner(key.hash());
        // Outcomes of a stranger's requests are not remembered.
        if !self.decides() || !self.view.remembers(origin) {
            return Ok(());
        }
        if owner == Some(self.options.me) {
            self.detours.back.insert(origin, from);
            return self.decide_for(origin, fwd, items, out);
        }
        if let Some(owner) = owner.filter(|_| from == origin) {
            self.tell(owner, LaneMessage::PassFwd(origin, fwd), out);
        }
        Ok(())
    }

    /// The origin reaches this owner by itself.
    pub(super) fn came_straight(&mut self, origin: Incarnation) {
        self.detours.back.remove(&origin);
    }

    /// Tells the origin what became of its request, the way that it came.
    pub(super) fn report<O: Outside<W>>(&self, origin: Incarnation, done: FwdDone, out: &mut O) {
        match self.detours.back.get(&origin) {
            Some(&through) => self.tell(through, LaneMessage::PassDone(origin, done), out),
            None => self.tell(origin, LaneMessage::FwdDone(done), out),
        }
    }

    /// An answer that took a way around.
    pub(super) fn passed_back<O: Outside<W>>(
        &mut self,
        origin: Incarnation,
        done: FwdDone,
        out: &mut O,
    ) {
        if origin == self.options.me {
            self.finish(done, out);
        } else {
            self.tell(origin, LaneMessage::PassDone(origin, done), out);
        }
    }
}
