//! Which keys exist, how long their values are and what is in them.
//!
//! A value is a function of its item's number, so every reply is known before it comes
//! and a set changes nothing that a later get would see.

/// Keys in a workload. Far more than a CPU cache holds, few enough to preload in a second.
pub(crate) const ITEMS: usize = 100_000;
/// The longest value of any workload.
pub(crate) const LARGE: usize = 260_000;
/// Items of this number and above are sessions; those below hold `LARGE` bytes where a workload wants large values.
pub(crate) const LARGE_ITEMS: usize = 64;

const KEY_BYTES: usize = 32;
/// Values start at one of 256 places in the noise: neighbours differ, and the noise stays in the L2 cache.
const NOISE_STARTS: usize = 256;
const NOISE_STEP: usize = 61;

/// A key of the usual length.
pub(crate) type Key = [u8; KEY_BYTES];

/// The key of an item: its number for uniqueness, a hash for looks.
pub(crate) fn key_of(item: usize) -> Key {
    let mut key = *b"session:0000000000000000........";
    let hash = Random::new(item as u64).next();
    write_hex(&mut key[8..24], hash);
    write_hex(&mut key[24..], item as u64);
    key
}

fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// The items of one workload.
pub(crate) struct Dataset {
    /// Made beforehand: making one costs as much as writing a request.
    keys: Vec<Key>,
    noise: Vec<u8>,
    length_of: fn(usize) -> usize,
}

impl Dataset {
    pub(crate) fn new(length_of: fn(usize) -> usize) -> Self {
        Self::of(ITEMS, length_of)
    }

    /// A dataset of another size than the usual one.
    pub(crate) fn of(items: usize, length_of: fn(usize) -> usize) -> Self {
        let mut random = Random::new(1);
        let noise_bytes = LARGE + NOISE_STARTS * NOISE_STEP;
        Self {
            keys: (0..items).map(key_of).collect(),
            noise: (0..noise_bytes).map(|_| random.next() as u8).collect(),
            length_of,
        }
    }

    /// How many items there are before the servers hear of new ones.
    pub(crate) fn items(&self) -> usize {
        self.keys.len()
    }

    /// Works for items beyond the last one too, as `value` does: new ones.
    pub(crate) fn key(&self, item: usize) -> Key {
        self.keys.get(item).copied().unwrap_or_else(|| key_of(item))
    }

    pub(crate) fn value(&self, item: usize) -> &[u8] {
        let start = item % NOISE_STARTS * NOISE_STEP;
        &self.noise[start..start + (self.length_of)(item)]
    }
}

/// 2 to 12 KiB, evenly spread: what sessions with a few messages and a form in them look like.
pub(crate) fn session_length(item: usize) -> usize {
    const SHORTEST: u64 = 2 * 1024;
    const SPREAD: u64 = 10 * 1024 + 1;
    (SHORTEST + Random::new(item as u64).next() % SPREAD) as usize
}

/// SplitMix64: seeded, so that every run sends the same requests.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `range`, which is far smaller than 2^32.
    pub(crate) fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        let length = (range.end - range.start) as u64;
        range.start + (((self.next() >> 32) * length) >> 32) as usize
    }
}
