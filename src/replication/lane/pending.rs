//! Keys with a change that is not known to be everywhere: nobody may see their values yet.

use std::collections::BTreeMap;

use crate::key::Key;

/// Counts of changes by key. Two keys with one hash are one here, which costs a wait at most.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<u64, u32>);

impl Pending {
    pub(super) fn add(&mut self, key: &[u8]) {
        if let Some(key) = Key::new(key) {
            *self.0.entry(key.hash().get()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let Some(hash) = Key::new(key).map(|key| key.hash().get()) else {
            return;
        };
        if let Some(count) = self.0.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&hash);
            }
        }
    }

    pub(super) fn has(&self, key: Key<'_>) -> bool {
        !self.0.is_empty() && self.0.contains_key(&key.hash().get())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
