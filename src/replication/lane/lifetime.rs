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

/// A shorter stop is none, however soon others are suspected: a busy thread makes such, and no client
/// gives up so soon.
const STOP_MIN_MS: u64 = 400;

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
        self.last.is_some_and(|last| now.since(last) > suspect_ms.max(STOP_MIN_MS))
    }

    /// Whether it knows which of its clients are there.
    fn is_steady(&self, suspect_ms: u64, now: Millis) -> bool {
        now >= self.caught_up && !self.is_late(suspect_ms, now)
    }
}

impl<W> Lane<W> {
    /// Whether a request of this node may be given to anybody.
    pub(super) fn may_ask_now(&self, request: &Request<W>, now: Now) -> bool {
        let has_time = request.until > now.local;
        let knows_clients = self.pulse.is_steady(self.options.suspect_ms, now.local);
        !self.options.rules.lifetime || (has_time && (request.is_read() || knows_clients))
    }

    /// Until when it may be carried out, in cluster time, where all can be told. Reckoned anew each
    /// time: this node may have been wrong about cluster time when the request came, never about how
    /// long ago that was.
    pub(super) fn until(&self, request: &Request<W>, now: Now) -> Option<Millis> {
        let in_view = self.view.features.and(self.options.features);
        let left_ms = request.until.since(now.local);
        in_view.has(Features::LIFETIMES).then(|| now.cluster.plus(left_ms))
    }

    /// A node says nothing that not all of its view know.
    pub(super) fn check_dialect(&self, fwd: &Fwd) -> Result<(), Violation> {
        if fwd.until.is_some() && !self.options.features.has(Features::LIFETIMES) {
            return Err(Violation("a lifetime, of which this node knows nothing"));
        }
        Ok(())
    }

    /// Whether nobody waits for this request any more. Its origin needs no answer: it has given up
    /// as well.
    pub(super) fn is_over(&mut self, fwd: &Fwd, now: Now) -> bool {
        let is_past = fwd.until.is_some_and(|until| now.cluster >= until);
        let is_over = self.options.rules.lifetime && is_past;
        self.backlog.expired += u64::from(is_over);
        is_over
    }
}
