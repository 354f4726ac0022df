//! What a store holds, in a few words for each slot, so that two nodes can find out where they
//! differ without sending their items.
//!
//! Kept up to date with each change, so that it is exact at any moment and nobody has to walk for
//! it. It covers what is in memory: what is over and not swept yet is in it. Knows nothing of owners.

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
