//! Until when this node may answer reads from its own copy.
//!
//! The group writes it, whoever answers reads it: after the value, because a pause between the two
//! would make the proof older than what it proves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::time::Millis;
use crate::version::Epoch;

/// See the module.
#[derive(Debug, Default)]
pub struct Lease {
    /// One word per view that lanes may work in: the present one and the one before.
    words: [AtomicU64; 2],
    /// Operators want reads answered now although nothing proves them.
    is_isolated: AtomicBool,
}

/// The upper bits of a word are the epoch, so that it never vouches for another view.
const EPOCH_SHIFT: u32 = 41;
const UNTIL_MAX: u64 = (1 << EPOCH_SHIFT) - 1;

impl Lease {
    /// In this view reads may be answered until then; `None`: not at all.
    pub(super) fn set(&self, epoch: Epoch, until: Option<Millis>) {
        let until = until.map_or(0, |until| until.0.min(UNTIL_MAX));
        let word = u64::from(epoch.0) << EPOCH_SHIFT | until;
        self.words[epoch.0 as usize % 2].store(word, Ordering::Release);
    }

    /// Nothing is proven any more, in whatever view.
    pub(super) fn revoke(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Release));
    }

    /// Until when, 0 for not at all.
    pub(super) fn until(&self, epoch: Epoch) -> Millis {
        let word = self.words[epoch.0 as usize % 2].load(Ordering::Acquire);
        let is_of_epoch = word >> EPOCH_SHIFT == u64::from(epoch.0);
        Millis(if is_of_epoch { word & UNTIL_MAX } else { 0 })
    }

    /// Whether a value that was read before `now` was current then.
    pub(super) fn holds(&self, epoch: Epoch, now: Millis) -> bool {
        now < self.until(epoch)
    }

    /// From now on reads are answered without proof, or no more.
    pub(super) fn set_isolated(&self, is_isolated: bool) {
        self.is_isolated.store(is_isolated, Ordering::Release);
    }

    /// Whether to answer a read all the same that `holds` does not vouch for.
    pub(super) fn is_isolated(&self) -> bool {
        self.is_isolated.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_vouches_for_its_own_view_only() {
        let lease = Lease::default();
        assert!(!lease.holds(Epoch(4), Millis(0)), "nothing was promised yet");
        lease.set(Epoch(4), Some(Millis(100)));
        assert!(lease.holds(Epoch(4), Millis(99)));
        assert!(!lease.holds(Epoch(4), Millis(100)));
        assert!(!lease.holds(Epoch(5), Millis(1)) && !lease.holds(Epoch(6), Millis(1)));
        lease.set(Epoch(5), Some(Millis(200)));
        assert!(lease.holds(Epoch(4), Millis(99)), "lanes may still work in the view before");
        lease.set(Epoch(4), None);
        assert!(!lease.holds(Epoch(4), Millis(1)));
        lease.revoke();
        assert!(!lease.holds(Epoch(5), Millis(1)));
    }
}
