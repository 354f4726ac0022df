//! How fast this node fills learners: so many bytes a second, over all lanes and learners.
//!
//! A bucket of tokens in another shape: it remembers until when what was sent is paid for. Idle
//! time is not saved up, so that a round begins as gently as it goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Millis;

/// So much may be sent ahead of its time. Who asks again does so every few milliseconds.
const AHEAD_US: u64 = 10_000;

/// See the module. Shared by the lanes of a node.
#[derive(Debug, Default)]
pub struct Pace {
    /// `None`: only the window limits it.
    bytes_per_s: Option<u64>,
    /// On the local clock.
    paid_until_us: AtomicU64,
}

impl Pace {
    /// So many bytes a second, or as many as the windows let through.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, paid_until_us: AtomicU64::new(0) }
    }

    /// Whether something may be sent now.
    pub(super) fn is_open(&self, now: Millis) -> bool {
        self.paid_until_us.load(Ordering::Relaxed) <= now.0.saturating_mul(1000) + AHEAD_US
    }

    /// So much was sent.
    pub(super) fn spend(&self, bytes: usize, now: Millis) {
        let Some(rate) = self.bytes_per_s else {
            return;
        };
        let takes_us = (bytes as u64).saturating_mul(1_000_000) / rate.max(1);
        let now_us = now.0.saturating_mul(1000);
        let pay = |until: u64| until.max(now_us).saturating_add(takes_us);
        // Never refused: each call adds.
        let _ = self
            .paid_until_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| Some(pay(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes sent within `ms`, asking every 5 ms for chunks of 10 kB.
    fn sent_in(pace: &Pace, from: u64, ms: u64) -> usize {
        let mut sent = 0;
        for now in (from..from + ms).step_by(5).map(Millis) {
            while pace.is_open(now) && sent < 100_000_000 {
                pace.spend(10_000, now);
                sent += 10_000;
            }
        }
        sent
    }

    #[test]
    fn it_lets_through_as_much_as_it_says() {
        let pace = Pace::new(Some(1_000_000));
        let sent = sent_in(&pace, 1000, 10_000);
        assert!((9_990_000..10_030_000).contains(&sent), "{sent}");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let pace = Pace::new(Some(1_000_000));
        sent_in(&pace, 1000, 100);
        let sent = sent_in(&pace, 60_000, 100);
        assert!(sent <= 130_000, "{sent}");
    }

    #[test]
    fn without_a_rate_nothing_is_held_back() {
        let pace = Pace::new(None);
        assert_eq!(sent_in(&pace, 1000, 5), 100_000_000);
    }
}
