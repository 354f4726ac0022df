//! The three times of a node, as values: nothing here reads a clock.
//!
//! Local time orders timeouts, cluster time carries item deadlines, and the wall clock serves one
//! purpose only: to turn a client's absolute exptime into a remaining time, once.

use serde::{Deserialize, Serialize};

/// memcached reads an exptime above 30 days as an absolute Unix time.
const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// Milliseconds on one of the clocks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// This time and `ms` more.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long ago `earlier` was; 0 when it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One instant, read once per batch of input and passed down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// CLOCK_BOOTTIME: goes on through a suspend, never jumps.
    pub local: Millis,
    /// What the group agrees on; item deadlines are written in it.
    pub cluster: Millis,
    /// Seconds since 1970, as this host believes.
    pub wall_s: i64,
}

/// When an item ends, in cluster time. Zero: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Deadline(u64);

impl Deadline {
    /// The item stays until it is deleted or evicted.
    pub const NEVER: Self = Self(0);
    /// Over since the beginning: what a negative exptime asks for.
    const PAST: Self = Self(1);

    /// From the exptime of a client, in seconds: 0 is never, negative is at once, up to 30 days
    /// is relative, above that an absolute Unix time (memcached's protocol.txt).
    pub fn from_exptime(exptime: i32, now: Now) -> Self {
        let remaining_s = match i64::from(exptime) {
            0 => return Self::NEVER,
            relative if relative <= RELATIVE_MAX_S => relative,
            absolute => absolute - now.wall_s,
        };
        if remaining_s <= 0 {
            return Self::PAST;
        }
        Self(now.cluster.plus(remaining_s as u64 * 1000).0)
    }

    /// The instant, in cluster time; `None` for never.
    pub fn end(self) -> Option<Millis> {
        (self != Self::NEVER).then_some(Millis(self.0))
    }

    /// For whoever stores it.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// What `raw` has given.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Whether the item counts as absent.
    pub fn is_past(self, now: Now) -> bool {
        self.0 != 0 && self.0 <= now.cluster.0
    }

    /// Seconds left, rounded up; `None` for an item that never ends.
    pub fn remaining_s(self, now: Now) -> Option<u64> {
        (self.0 != 0).then(|| self.0.saturating_sub(now.cluster.0).div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now =
        Now { local: Millis(5_000), cluster: Millis(1_700_000_000_000), wall_s: 1_700_000_000 };

    #[test]
    fn exptime_is_never_relative_absolute_or_at_once() {
        let remaining = |exptime| Deadline::from_exptime(exptime, NOW).remaining_s(NOW);
        assert_eq!(remaining(0), None);
        assert_eq!(remaining(60), Some(60));
        assert_eq!(remaining(2_592_000), Some(2_592_000));
        assert_eq!(remaining(1_700_000_090), Some(90));
        assert!(Deadline::from_exptime(-1, NOW).is_past(NOW));
        assert!(Deadline::from_exptime(2_592_001, NOW).is_past(NOW), "1970 is over");
    }

    #[test]
    fn a_wrong_wall_clock_moves_no_relative_deadline() {
        let lying = Now { wall_s: 0, ..NOW };
        assert_eq!(Deadline::from_exptime(60, lying), Deadline::from_exptime(60, NOW));
    }

    #[test]
    fn an_item_ends_at_its_deadline_not_after_it() {
        let deadline = Deadline::from_exptime(1, NOW);
        let at = |ms| Now { cluster: NOW.cluster.plus(ms), ..NOW };
        assert!(!deadline.is_past(at(999)));
        assert!(deadline.is_past(at(1000)));
    }
}
