//! A key that has been checked, and the hash of it that every node computes alike.
//!
//! The hash is part of the peer protocol: lanes and owners follow from it, so it never
//! changes within a protocol version. The store's index hashes with its own secret instead.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Streams between nodes are split into this many lanes; a protocol constant.
pub const LANES: usize = 16;

/// Each lane's keys are split into this many slots, each of which has one owner; a protocol constant.
pub const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 12;

/// The longest key that memcached accepts, in bytes.
pub const KEY_MAX: usize = 250;

/// Seed of the protocol's key hash: the ASCII bytes `sessiond`, little-endian.
const KEY_SEED: u64 = u64::from_le_bytes(*b"sessiond");

/// 1 to 250 bytes. Only a parser or a decoder makes one, so its length is never checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// `None` when the length is outside 1..=250.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (1..=KEY_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes themselves.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The hash that all nodes agree on.
    pub fn hash(self) -> KeyHash {
        KeyHash(xxh3_64_with_seed(self.0, KEY_SEED))
    }
}

/// The highest bits of a key's hash number its lane, the next ones its slot.
const SLOT_SHIFT: u32 = u64::BITS - LANES.ilog2() - SLOT_BITS;

/// The protocol's hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    /// As a number, to tell keys apart by.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The lane whose stream orders this key, in 0..LANES.
    pub fn lane(self) -> usize {
        (self.0 >> 60) as usize
    }

    /// The part of its lane that the key belongs to, in 0..SLOTS.
    pub fn slot(self) -> usize {
        (self.0 >> SLOT_SHIFT) as usize % SLOTS
    }

    /// Any key of that slot would do: all of them have one owner.
    pub fn of_slot(lane: usize, slot: usize) -> Self {
        Self(((lane * SLOTS + slot) as u64) << SLOT_SHIFT)
    }

    /// The rendezvous weight of a node for this key's slot: the highest weight owns it.
    ///
    /// By slot and not by key, so that two nodes can compare what an owner owns slot by slot.
    /// Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996).
    pub fn weight(self, node: NameHash) -> u64 {
        let mut pair = [0; 16];
        pair[..8].copy_from_slice(&(self.0 >> SLOT_SHIFT).to_le_bytes());
        pair[8..].copy_from_slice(&node.0.to_le_bytes());
        xxh3_64_with_seed(&pair, KEY_SEED)
    }
}

/// The protocol's hash of a node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHash(u64);

impl NameHash {
    /// Hashes a configured name.
    pub fn of(name: &str) -> Self {
        Self(xxh3_64_with_seed(name.as_bytes(), KEY_SEED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_250_bytes() {
        assert!(Key::new(b"").is_none());
        assert!(Key::new(&[b'k'; 250]).is_some());
        assert!(Key::new(&[b'k'; 251]).is_none());
    }

    /// Changing any of these breaks a group of mixed versions.
    #[test]
    fn the_protocol_hash_never_changes() {
        let hash = Key::new(b"session").unwrap().hash();
        assert_eq!(hash, KeyHash(0x0e8e_aa75_6cbc_08fd));
        assert_eq!((hash.lane(), hash.slot()), (0, 0xe8e));
        assert_eq!(KeyHash::of_slot(0, 0xe8e).slot(), 0xe8e);
        assert_eq!(hash.weight(NameHash::of("web1")), 0xd9ea_ae58_a792_df36);
    }

    #[test]
    fn lanes_are_evenly_used() {
        let mut counts = [0u32; LANES];
        for n in 0..16_000u32 {
            let name = n.to_string();
            counts[Key::new(name.as_bytes()).unwrap().hash().lane()] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
