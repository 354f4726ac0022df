//! What nodes say to each other all the time: that they live, what they promise, what they know.

use super::*;

/// A beat tells so many at most; the others follow when these are done.
const FLUSHES_TOLD: usize = 16;

impl<W> Group<W> {
    pub(super) fn hear<O: Outside<W>>(
        &mut self,
        from: Incarnation,
        beat: Beat,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        let (its_view, sent, echo) = (beat.view, beat.sent, beat.echo);
        if !self.peers.hear(from, beat, &self.options.timing, now.local) {
            return Vec::new();
        }
        self.renew_lease();
        self.note_left_out(from, its_view, now);
        let is_behind = its_view < (self.view.line, self.view.epoch);
        if is_behind {
            self.announce(from, out);
        }
        // A first beat has heard nothing yet: it is answered at once, so that both know.
        if echo.is_none() && sent > Millis(0) {
            self.beat_to(from, now, out);
        }
        let mut todo: Vec<Todo> = self.follow_time(from, now).into_iter().collect();
        todo.extend(self.review(now, out));
        todo
    }

    /// Whoever is left out and says that it knows this view answers reads by no older one: when all
    /// such have said so, nobody has to wait for the end of what they were promised.
    fn note_left_out(&mut self, from: Incarnation, its_view: (Line, Epoch), now: Now) {
        let knows = its_view.0 == self.view.line && its_view.1 >= self.view.epoch;
        if knows && self.left_out.remove(&from) && self.left_out.is_empty() {
            self.flush_due = self.flush_due.map(|due| due.min(now.local));
        }
    }

    pub(super) fn beat_to_all<O: Outside<W>>(&mut self, now: Now, out: &mut O) {
        let living: Vec<_> = self.peers.living().map(|(life, _)| life).collect();
        for life in living {
            self.beat_to(life, now, out);
        }
    }

    pub(super) fn beat_to<O: Outside<W>>(&mut self, to: Incarnation, now: Now, out: &mut O) {
        let me = self.me();
        if to == me {
            return;
        }
        let grants = self.view.has_member(me) && self.view.has_member(to) && self.is_up(to, now);
        if grants {
            self.peers.grant(to, now.local.plus(self.options.timing.grant_ms));
        }
        let echo = self.peers.echo(to, now.local);
        let all_lanes = |(_, lanes): &(&Incarnation, &u32)| lanes.count_ones() as usize == LANES;
        let beat = Beat {
            sent: now.local,
            echo: echo.map(|(sent, _)| sent),
            echo_age_ms: echo.map_or(0, |(_, age)| age),
            cluster: now.cluster,
            view: (self.view.line, self.view.epoch),
            active: self.oldest_active(),
            grants,
            up: self.up(now),
            filled: self.counted.iter().filter(all_lanes).map(|(&learner, _)| learner).collect(),
            flushes: self.open_flushes(),
            is_seated: self.is_seated,
            leaving: self.is_leaving,
        };
        out.send(to, Message::Beat(beat));
    }

    pub(super) fn up(&self, now: Now) -> Vec<Incarnation> {
        let living = self.peers.living().map(|(life, _)| life);
        living.filter(|&life| life != self.me() && self.is_up(life, now)).collect()
    }

    pub(super) fn open_flushes(&self) -> Vec<FlushAll> {
        let carried_out = self.view.flushed.get(&self.me()).copied().unwrap_or_default();
        let open = self.flushes.iter().map(|flush| &flush.request);
        open.filter(|request| request.id > carried_out).take(FLUSHES_TOLD).cloned().collect()
    }

    /// A life beside another one learns of views from the others alone, and needs each of them: a lane
    /// that has missed the view which makes it a member can't work in the next one.
    pub(super) fn tell_those_without_log<O: Outside<W>>(&self, out: &mut O) {
        let all = self.view.members.iter().chain(&self.view.learners);
        let lives = all.map(|member| member.incarnation).filter(|&life| life != self.me());
        for life in lives.filter(|&life| self.peers.beside(life).is_some()) {
            self.announce(life, out);
        }
    }

    pub(super) fn announce<O: Outside<W>>(&self, to: Incarnation, out: &mut O) {
        out.send(to, Message::View(Box::new(self.view.clone())));
    }
}
