//! How long a request may be carried out: while its client may wait for it, and not a moment longer.
//!
//! A set that takes effect later may bring back a session that was logged out meanwhile. A request
//! may come late because it lay in a link, or because a node stood still; the first is told by the
//! time that it carries, the second by the node that stood still.

use super::*;
use crate::time::Now;

/// A node that stood still does not know which of its clients have gone. By then it has read all
/// that they said, the end included, and has given up whoever had ended.
const CATCH_UP_MS: u64 = 500;

/// Whether this node has been moving.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Option<Millis>,
    /// It has stood still, and knows its clients again from then on.
    caught_up: Millis,
}

impl Pulse {
    /// It moves.
    pub(super) fn beat(&mut self, suspect_ms: u64, now: Millis) {
        if self.is_late(suspect_ms, now) {
            self.caught_up = now.plus(CATCH_UP_MS);
        }
        self.last = Some(now);
    }

    fn is_late(&self, suspect_ms: u64, now: Millis) -> bool {
        self.last.is_some_and(|last| now.since(last) > suspect_ms)
    }

    /// Whether it knows which of its clients are there.
    fn is_steady(&self, suspect_ms: u64, now: Millis) -> bool {
        now >= self.caught_up && !self.is_late(suspect_ms, now)
    }
}

impl<W> Lane<W> {
    /// Until when a request of this node may be carried out, in cluster time; `None`: it may not be
    /// given to anybody now. Reckoned anew each time: this node may have been wrong about cluster
    /// time when the request came, never about how long ago that was.
    pub(super) fn may_be_carried_out_until(
        &self,
        request: &Request<W>,
        now: Now,
    ) -> Option<Millis> {
        let left_ms = request.until.since(now.local);
        let is_safe = request.is_read() || self.pulse.is_steady(self.options.suspect_ms, now.local);
        let may_ask = !self.options.rules.lifetime || (left_ms > 0 && is_safe);
        may_ask.then(|| now.cluster.plus(left_ms))
    }

    /// Whether nobody waits for this request any more. Its origin needs no answer: it has given up
    /// as well.
    pub(super) fn is_over(&mut self, fwd: &Fwd, now: Now) -> bool {
        let is_over =
            self.options.rules.lifetime && fwd.until.is_some_and(|until| now.cluster >= until);
        self.backlog.expired += u64::from(is_over);
        is_over
    }
}
