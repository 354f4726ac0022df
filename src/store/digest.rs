//! What a store holds, in a few words for each slot, so that two nodes can find out where they
//! differ without sending their items.
//!
//! Kept up to date with each change, so that it is exact at any moment and nobody has to walk for
//! it. It covers what is in memory: what is over and not swept yet is in it. Knows nothing of owners.

use prefetch_index::prefetch_index;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use super::Store;
use super::item::Header;
use super::slab::ChunkId;
use crate::key::{Key, SLOTS};
use crate::record::Digest;

/// The digests of all slots of one lane.
#[derive(Debug, PartialEq)]
pub(super) struct Digests(Box<[Digest]>);

impl Digests {
    /// Those of an empty store.
    pub(super) fn new() -> Self {
        Self(vec![Digest::default(); SLOTS].into_boxed_slice())
    }

    /// Brings near what a change of that key's item will change.
    pub(super) fn bring(&self, key: Key<'_>) {
        prefetch_index(&self.0[..], key.hash().slot());
    }

    fn add(&mut self, key: &[u8], header: &Header) {
        if let Some((slot, hash)) = of_item(key, header) {
            let digest = &mut self.0[slot];
            digest.items += 1;
            digest.sum = digest.sum.wrapping_add(hash);
        }
    }

    fn remove(&mut self, key: &[u8], header: &Header) {
        if let Some((slot, hash)) = of_item(key, header) {
            let digest = &mut self.0[slot];
            digest.items -= 1;
            digest.sum = digest.sum.wrapping_sub(hash);
        }
    }
}

impl Store {
    /// From now on it knows the digest of each slot.
    pub fn keep_digests(&mut self) {
        self.digests = Some(self.count_digests());
    }

    /// The digest of a slot; that of nothing where none are kept.
    pub fn digest(&self, slot: usize) -> Digest {
        self.digests.as_ref().map_or_else(Digest::default, |digests| digests.0[slot])
    }

    /// An item is here, or as it is from now on.
    #[inline]
    pub(super) fn join_digest(&mut self, id: ChunkId) {
        if let Some(digests) = &mut self.digests {
            digests.add(self.slab.key(id), self.slab.header(id));
        }
    }

    /// An item is about to go, or to change.
    #[inline]
    pub(super) fn leave_digest(&mut self, id: ChunkId) {
        if let Some(digests) = &mut self.digests {
            digests.remove(self.slab.key(id), self.slab.header(id));
        }
    }

    /// From the items themselves.
    pub(super) fn count_digests(&self) -> Digests {
        let mut digests = Digests::new();
        let entries = (0..self.index.buckets()).flat_map(|number| self.index.entries(number));
        for id in entries.filter_map(ChunkId::from_raw) {
            digests.add(self.slab.key(id), self.slab.header(id));
        }
        digests
    }
}

/// A version stands for one state of its key, value included; the rest is for a mistake elsewhere.
fn of_item(key: &[u8], header: &Header) -> Option<(usize, u64)> {
    let key = Key::new(key)?.hash();
    let words = [
        key.get(),
        header.version().get(),
        header.cas(),
        header.deadline().raw(),
        header.value_len() as u64,
    ];
    Some((key.slot(), xxh3_64(words.map(u64::to_le_bytes).as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Change;
    use crate::store::tests::{at, delete, put, store_of};
    use crate::version::{Epoch, Versions};

    fn slot_of(key: &str) -> usize {
        Key::new(key.as_bytes()).unwrap().hash().slot()
    }

    #[test]
    fn two_stores_that_hold_the_same_have_the_same_digests() {
        let mut versions = Versions::new(Epoch(1), 0);
        let [a, b, c, d] = [(); 4].map(|()| versions.next(None));
        let (mut one, mut other) = (store_of(1 << 20, true), store_of(1 << 20, true));
        for record in [put("x", b"1", a), put("y", b"2", b), put("x", b"3", d)] {
            one.apply(&record, at(0));
        }
        for record in [put("x", b"3", d), put("y", b"2", b), put("z", b"4", a), delete("z", c)] {
            other.apply(&record, at(0));
        }
        assert_eq!(one.digests, other.digests);
        assert_eq!((one.digest(slot_of("x")).items, one.digest(slot_of("z")).items), (1, 0));
    }

    #[test]
    fn a_touch_shows_and_so_does_an_item_that_was_swept() {
        let mut versions = Versions::new(Epoch(1), 0);
        let mut store = store_of(1 << 20, true);
        let version = versions.next(None);
        store.apply(&put("x", b"1", version), at(0));
        let before = store.digest(slot_of("x"));
        let mut touch = put("x", b"", versions.next(None));
        let deadline = crate::time::Deadline::from_exptime(1, at(0));
        let marks = crate::record::Marks::default();
        touch.change = Change::Meta { cas: version.get(), deadline, marks };
        store.apply(&touch, at(0));
        let touched = store.digest(slot_of("x"));
        assert!(touched.items == 1 && touched != before);
        assert_eq!(store.digest(slot_of("x")), touched, "over, and still there");
        store.sweep(100, at(2000));
        assert!(store.digest(slot_of("x")).is_empty());
    }

    #[test]
    fn they_can_be_kept_from_any_moment_on() {
        let mut versions = Versions::new(Epoch(1), 0);
        let mut store = store_of(1 << 20, true);
        store.apply(&put("x", b"1", versions.next(None)), at(0));
        let kept = store.digests.take();
        assert!(store.digest(slot_of("x")).is_empty());
        store.keep_digests();
        assert_eq!(store.digests, kept);
    }

    #[test]
    fn what_is_dropped_is_gone_piece_by_piece() {
        let mut versions = Versions::new(Epoch(1), 0);
        let mut store = store_of(1 << 20, true);
        let keys: Vec<String> = (0..500).map(|n| format!("key{n}")).collect();
        for key in &keys {
            store.apply(&put(key, b"v", versions.next(None)), at(0));
        }
        let (mut cursor, mut pieces, mut dropped) = (Some(0), 0, 0);
        while let Some(from) = cursor {
            let is_odd = |key: Key<'_>, _| key.bytes().last().is_some_and(|byte| byte % 2 == 1);
            let (count, next) = store.drop_from(from, 50, is_odd);
            (cursor, pieces, dropped) = (next, pieces + 1, dropped + count);
        }
        assert_eq!(dropped, 250);
        assert!(pieces >= 5, "{pieces}");
        let mut left = 0;
        assert_eq!(
            store.scan(0, u32::MAX, at(0), |_, _| {
                left += 1;
                true
            }),
            None
        );
        assert_eq!(left, 250);
        assert_eq!(store.audit(), Ok(()));
    }
}
