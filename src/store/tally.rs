//! What is counted, by the slab classes that memcached would have.
//!
//! The store's own chunks are finer and of no use to an operator; tools and habits know
//! memcached's. So every item is counted in the class where a memcached with the same `-n`, `-f`,
//! `-I` and `-o slab_chunk_max` would have put it.

use std::sync::Arc;

use super::item::Header;
use super::lru::SEGMENTS;

/// memcached's classes (its slabs.c, `slabs_init`).
#[derive(Debug)]
pub struct Sizes {
    /// Bytes of a chunk, by class; class 0 is no class.
    chunks: Vec<usize>,
    /// What an item takes beside key and value.
    overhead: usize,
    /// The class of small items, by units of 8 bytes.
    by_units: Vec<u8>,
}

/// memcached's own limit.
const CLASSES_MAX: usize = 63;
/// Its item header without a CAS unique.
const ITEM_HEADER: usize = 48;
const ALIGN: usize = 8;
/// Larger items are searched for.
const SMALL_MAX: usize = 16 << 10;

impl Sizes {
    /// The classes for these options: the least space for key and value, the growth factor, and
    /// the largest chunk; `overhead` is what an item takes beside key and value.
    pub fn new(least: usize, factor: f64, chunk_max: usize, overhead: usize) -> Self {
        let mut chunks = vec![0];
        let mut size = ITEM_HEADER + least;
        while chunks.len() < CLASSES_MAX && (size as f64) < chunk_max as f64 / factor {
            let aligned = size.next_multiple_of(ALIGN);
            chunks.push(aligned);
            size = (aligned as f64 * factor) as usize;
        }
        chunks.push(chunk_max);
        let mut sizes = Self { chunks, overhead, by_units: Vec::new() };
        let units = 0..=(SMALL_MAX / ALIGN);
        sizes.by_units = units.map(|units| sizes.search(units * ALIGN) as u8).collect();
        sizes
    }

    /// The highest class.
    pub fn largest(&self) -> usize {
        self.chunks.len() - 1
    }

    /// Bytes of a chunk of a class, from 1 to the highest.
    pub fn chunk_size(&self, class: usize) -> usize {
        self.chunks[class]
    }

    /// The class of an item, by the bytes of its key and value.
    #[inline]
    pub fn class_of(&self, bytes: usize) -> usize {
        let bytes = bytes + self.overhead;
        match self.by_units.get(bytes.div_ceil(ALIGN)) {
            Some(&class) => usize::from(class),
            None => self.search(bytes),
        }
    }

    /// What is larger than a chunk is split over several of the largest.
    fn search(&self, bytes: usize) -> usize {
        self.chunks.partition_point(|&chunk| chunk < bytes).clamp(1, self.largest())
    }
}

impl Default for Sizes {
    /// memcached's defaults.
    fn default() -> Self {
        Self::new(48, 1.25, 512 << 10, 59)
    }
}

/// What there is and has been of a class, or of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// It has held an item.
    pub is_known: bool,
    /// Items held now, in each segment.
    pub segments: [u64; SEGMENTS],
    /// Bytes of keys and values held now.
    pub bytes: u64,
    /// Items ever stored.
    pub total_items: u64,
    /// Live items dropped for lack of memory.
    pub evictions: u64,
    /// Of those, never read.
    pub evicted_unfetched: u64,
    /// Of those, read again not long ago.
    pub evicted_active: u64,
    /// Of those, with an end of their own.
    pub evicted_with_end: u64,
    /// How long the last of them had not been used, in seconds.
    pub evicted_idle_s: u64,
    /// Items that found no memory.
    pub out_of_memory: u64,
    /// Items that were over when something came across them.
    pub reclaimed: u64,
    /// Of those, on the way to evicting something.
    pub direct_reclaims: u64,
    /// Items that were over when the sweep came by.
    pub swept: u64,
    /// Items that the sweep has looked at.
    pub sweep_checked: u64,
    /// Of all that were over, never read.
    pub expired_unfetched: u64,
    /// Reads that found an item, in each segment.
    pub hits: [u64; SEGMENTS],
    /// Reads that found an item at its end.
    pub get_expired: u64,
    /// Reads that found a flushed item.
    pub get_flushed: u64,
    /// Items moved to the cold segment.
    pub moves_to_cold: u64,
    /// Items moved to the warm segment.
    pub moves_to_warm: u64,
    /// Items moved from the old end of warm to its new end.
    pub moves_within_lru: u64,
}

impl Counts {
    /// Items held now.
    pub fn items(&self) -> u64 {
        self.segments.iter().sum()
    }

    /// Adds those of another shard or class.
    pub fn add(&mut self, other: &Self) {
        self.is_known |= other.is_known;
        let lists = [(&mut self.segments, &other.segments), (&mut self.hits, &other.hits)];
        for (mine, others) in lists {
            mine.iter_mut().zip(others).for_each(|(mine, other)| *mine += other);
        }
        self.bytes += other.bytes;
        self.total_items += other.total_items;
        self.evictions += other.evictions;
        self.evicted_unfetched += other.evicted_unfetched;
        self.evicted_active += other.evicted_active;
        self.evicted_with_end += other.evicted_with_end;
        self.evicted_idle_s = self.evicted_idle_s.max(other.evicted_idle_s);
        self.out_of_memory += other.out_of_memory;
        self.reclaimed += other.reclaimed;
        self.direct_reclaims += other.direct_reclaims;
        self.swept += other.swept;
        self.sweep_checked += other.sweep_checked;
        self.expired_unfetched += other.expired_unfetched;
        self.get_expired += other.get_expired;
        self.get_flushed += other.get_flushed;
        self.moves_to_cold += other.moves_to_cold;
        self.moves_to_warm += other.moves_to_warm;
        self.moves_within_lru += other.moves_within_lru;
    }

    /// Counts from zero again; what is held now stays.
    fn reset(&mut self) {
        let Self { is_known, segments, bytes, .. } = *self;
        *self = Self { is_known, segments, bytes, ..Self::default() };
    }
}

/// The counts of one shard.
#[derive(Debug)]
pub(super) struct Tally {
    sizes: Arc<Sizes>,
    by_class: Vec<Counts>,
}

impl Tally {
    pub(super) fn new(sizes: Arc<Sizes>) -> Self {
        let by_class = vec![Counts::default(); sizes.largest() + 1];
        Self { sizes, by_class }
    }

    /// The counts that an item belongs to.
    pub(super) fn of(&mut self, header: &Header) -> &mut Counts {
        self.of_bytes(header.key_len() + header.value_len())
    }

    /// The same, by the bytes of its key and value.
    pub(super) fn of_bytes(&mut self, bytes: usize) -> &mut Counts {
        &mut self.by_class[self.sizes.class_of(bytes)]
    }

    /// By class; the first is none.
    pub(super) fn by_class(&self) -> &[Counts] {
        &self.by_class
    }

    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.by_class.iter().for_each(|counts| sum.add(counts));
        sum
    }

    pub(super) fn reset(&mut self) {
        self.by_class.iter_mut().for_each(Counts::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_of_memcached() {
        let sizes = Sizes::default();
        let first: Vec<_> = (1..=8).map(|class| sizes.chunk_size(class)).collect();
        assert_eq!(first, [96, 120, 152, 192, 240, 304, 384, 480]);
        assert_eq!((sizes.largest(), sizes.chunk_size(39)), (39, 512 << 10));
        assert_eq!((sizes.chunk_size(30), sizes.chunk_size(31)), (66_232, 82_792));
    }

    #[test]
    fn an_item_is_in_the_class_where_memcached_puts_it() {
        let sizes = Sizes::default();
        assert_eq!(sizes.class_of(3 + 2), 1);
        assert_eq!(sizes.class_of(96 - 59), 1);
        assert_eq!(sizes.class_of(96 - 58), 2);
        assert_eq!(sizes.class_of(4 + 66_560), 31);
        assert_eq!(sizes.class_of(700 << 10), 39, "in several chunks");
    }
}
