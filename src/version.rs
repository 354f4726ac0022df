//! The version of an item: who may overwrite whom.
//!
//! `0 | epoch:23 | seq:40`. Strictly increasing per key, because every view raises the epoch and
//! the one owner of a key counts `seq` up. Bit 63 stays clear for clients that parse signed.

use serde::{Deserialize, Serialize};

const SEQ_BITS: u32 = 40;
const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;
const EPOCH_MAX: u32 = (1 << 23) - 1;

/// The number of a view. 0 means: no view yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The highest that fits a version.
    pub const MAX: Self = Self(EPOCH_MAX);
}

/// The version of one state of one key. 0 means: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version(u64);

impl Version {
    /// The lowest version of an epoch: everything older was written before that view.
    pub fn floor_of(epoch: Epoch) -> Self {
        assert!(epoch.0 <= EPOCH_MAX, "epoch {} has more than 23 bits", epoch.0);
        Self(u64::from(epoch.0) << SEQ_BITS)
    }

    /// As the number that clients see as the CAS unique.
    pub fn get(self) -> u64 {
        self.0
    }

    /// What `get` has given.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The next higher one.
    pub fn above(self) -> Self {
        Self(self.0 + 1)
    }

    /// The epoch it was given in.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> SEQ_BITS) as u32)
    }
}

/// Hands out versions for one lane of one owner.
#[derive(Debug)]
pub struct Versions {
    last: Version,
}

impl Versions {
    /// Starts an epoch at a random place, so that a CAS unique from before a restart of the
    /// whole group does not match by chance. Half of the 40 bits stay free to count.
    pub fn new(epoch: Epoch, random: u64) -> Self {
        let start = random & (SEQ_MAX >> 1);
        Self { last: Version(Version::floor_of(epoch).0 | start) }
    }

    /// A version above every one handed out here and above `current`, the key's present one.
    pub fn next(&mut self, current: Option<Version>) -> Version {
        self.last = Version(self.last.max(current.unwrap_or_default()).0 + 1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_outranks_every_version_of_the_old_one() {
        let mut old = Versions::new(Epoch(7), u64::MAX);
        let mut new = Versions::new(Epoch(8), 0);
        assert!(old.next(None) < new.next(None));
    }

    #[test]
    fn a_version_outranks_the_item_it_replaces() {
        let mut versions = Versions::new(Epoch(1), 0);
        let current = Version(Version::floor_of(Epoch(1)).0 + 1000);
        assert!(versions.next(Some(current)) > current);
        assert!(versions.next(None) > current);
    }

    #[test]
    fn versions_fit_a_signed_number() {
        assert!(Version::floor_of(Epoch(EPOCH_MAX)).0 | SEQ_MAX <= i64::MAX as u64);
    }
}
