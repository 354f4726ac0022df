//! From a key's hash to its item: a hash table that grows one bucket at a time.
//!
//! Linear hashing (Litwin, "Linear Hashing: A New Tool for File and Table Addressing", 1980): no
//! insertion ever moves more than one bucket's entries, so nothing stalls however large the table
//! is. A bucket is one line of cache; a byte of each hash tells most other keys from the one that
//! is looked for without a look at their items. A walk visits each bucket there was when it began
//! together with those that were split off it since: so it meets every entry once that is there all
//! the time.

use prefetch_index::prefetch_index;

/// Entries in a bucket.
const WIDTH: usize = 12;
/// Entries per bucket on average, above which the table grows.
const LOAD: usize = 9;
/// Buckets are allocated by so many at a time.
const BLOCK: usize = 128;
const BLOCK_BYTES: usize = BLOCK * size_of::<Bucket>();

const NO_BUCKET: u32 = u32::MAX;
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    ids: [u32; WIDTH],
    tags: [u8; WIDTH],
    /// The bucket that takes what does not fit this one.
    more: u32,
}

const EMPTY_BUCKET: Bucket = Bucket { ids: [EMPTY; WIDTH], tags: [0; WIDTH], more: NO_BUCKET };

/// Buckets in blocks, so that growing copies nothing.
#[derive(Debug, Default)]
struct Buckets {
    blocks: Vec<Box<[Bucket; BLOCK]>>,
    len: usize,
}

impl Buckets {
    fn at(&self, number: usize) -> &Bucket {
        &self.blocks[number / BLOCK][number % BLOCK]
    }

    fn at_mut(&mut self, number: usize) -> &mut Bucket {
        &mut self.blocks[number / BLOCK][number % BLOCK]
    }

    fn is_full(&self) -> bool {
        self.len == self.blocks.len() * BLOCK
    }

    fn grow(&mut self) {
        // Not `Box::new`, which would build it on the stack first.
        let block = vec![EMPTY_BUCKET; BLOCK].try_into();
        self.blocks.push(block.expect("it has the length of a block"));
    }

    fn push(&mut self) -> usize {
        assert!(!self.is_full(), "an index grows before an insertion");
        self.len += 1;
        self.len - 1
    }
}

/// Which bucket comes after the one in hand, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Main(usize),
    More(usize),
}

/// See the module. Ids are numbers of the caller's, below `u32::MAX`.
#[derive(Debug)]
pub(super) struct Index {
    main: Buckets,
    /// For what does not fit; those in `vacant` hold nothing.
    more: Buckets,
    vacant: Vec<u32>,
    /// The bits of a hash that number a bucket which has not been split yet.
    low_bits: usize,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            main: Buckets::default(),
            more: Buckets::default(),
            vacant: Vec::new(),
            low_bits: 0,
            len: 0,
        }
    }

    /// Buckets, not counting those for what does not fit.
    pub(super) fn buckets(&self) -> usize {
        self.main.len
    }

    /// Bytes of all buckets.
    pub(super) fn bytes(&self) -> usize {
        (self.main.blocks.len() + self.more.blocks.len()) * BLOCK_BYTES
    }

    /// Bytes that have to be allocated before the next insertion.
    pub(super) fn growth(&self) -> usize {
        let blocks = usize::from(self.wants_main()) + usize::from(self.wants_more());
        blocks * BLOCK_BYTES
    }

    /// Allocates them.
    pub(super) fn grow(&mut self) {
        if self.wants_main() {
            self.main.grow();
        }
        if self.wants_more() {
            self.more.grow();
        }
    }

    fn wants_main(&self) -> bool {
        self.wants_bucket() && self.main.is_full()
    }

    /// A bucket may overflow whenever an entry comes; one that is split needs no more than it had.
    fn wants_more(&self) -> bool {
        self.vacant.is_empty() && self.more.is_full()
    }

    /// The entry with this hash that is the one.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut bucket = self.main.at(self.number(hash));
        loop {
            let mut alike = bucket.alike(hash);
            while alike != 0 {
                let id = bucket.ids[slot_of(alike)];
                if id != EMPTY && is_it(id) {
                    return Some(id);
                }
                alike &= alike - 1;
            }
            if bucket.more == NO_BUCKET {
                return None;
            }
            bucket = self.more.at(bucket.more as usize);
        }
    }

    /// Brings near what a search will look at first.
    pub(super) fn bring(&self, hash: u64) {
        if self.len > 0 {
            let number = self.number(hash);
            prefetch_index(&self.main.blocks[number / BLOCK][..], number % BLOCK);
        }
    }

    /// The first entry that may be the one, by its tag alone.
    pub(super) fn guess(&self, hash: u64) -> Option<Guess> {
        if self.len == 0 {
            return None;
        }
        let bucket = self.number(hash);
        let entries = self.main.at(bucket);
        let alike = entries.alike(hash);
        if alike == 0 {
            return None;
        }
        let slot = slot_of(alike);
        let id = entries.ids[slot];
        (id != EMPTY).then_some(Guess { bucket: bucket as u32, slot: slot as u32, id })
    }

    /// Whether that entry is still there, and so an item.
    pub(super) fn holds(&self, guess: Guess) -> bool {
        self.main.at(guess.bucket as usize).ids[guess.slot as usize] == guess.id
    }

    /// Takes an entry in, for which it must have grown; `hash_of` gives the hash of any entry.
    pub(super) fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.wants_bucket() {
            self.split(hash_of);
        }
        self.put(self.number(hash), hash, id);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let number = self.number(hash);
        let (place, slot) = self.locate(number, id).expect("an item is in the index");
        // The hole is filled from the end of the bucket's chain, which so stays short.
        let (end, before) = self.end_of(number);
        let last = self.bucket(end).last().expect("a chain does not end with an empty bucket");
        let (moved_id, moved_tag) = {
            let bucket = self.bucket_mut(end);
            (std::mem::replace(&mut bucket.ids[last], EMPTY), bucket.tags[last])
        };
        if (place, slot) != (end, last) {
            let bucket = self.bucket_mut(place);
            (bucket.ids[slot], bucket.tags[slot]) = (moved_id, moved_tag);
        }
        self.drop_if_empty(end, before);
        self.len -= 1;
    }

    /// An entry has a new number.
    pub(super) fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let number = self.number(hash);
        let (place, slot) = self.locate(number, from).expect("an item is in the index");
        self.bucket_mut(place).ids[slot] = to;
    }

    /// All entries of a bucket.
    pub(super) fn entries(&self, number: usize) -> impl Iterator<Item = u32> + '_ {
        let mut next = (number < self.main.len).then(|| self.main.at(number));
        std::iter::from_fn(move || {
            let bucket = next?;
            next = (bucket.more != NO_BUCKET).then(|| self.more.at(bucket.more as usize));
            Some(bucket.ids.iter().copied().filter(|&id| id != EMPTY))
        })
        .flatten()
    }

    /// A bucket of a table that had `of` buckets, with all that were split off it since.
    pub(super) fn family(&self, number: usize, of: usize) -> Vec<usize> {
        let mut family = vec![number];
        let mut place = 0;
        while let Some(&parent) = family.get(place) {
            place += 1;
            // Bucket b is split off the one that lacks its highest bit.
            let bits = (0..usize::BITS).map(|bit| 1 << bit).skip_while(|&bit| bit <= parent);
            let children = bits.map(|bit| parent + bit).take_while(|&child| child < self.main.len);
            family.extend(children.filter(|&child| child >= of));
        }
        family
    }

    fn wants_bucket(&self) -> bool {
        self.len >= self.main.len * LOAD
    }

    fn number(&self, hash: u64) -> usize {
        let number = hash as usize & self.low_bits;
        let with_one_bit_more = hash as usize & (self.low_bits << 1 | 1);
        if with_one_bit_more < self.main.len { with_one_bit_more } else { number }
    }

    /// Adds a bucket and moves into it what belongs there from the one that it shares bits with.
    fn split(&mut self, hash_of: impl Fn(u32) -> u64) {
        let new = self.main.push();
        if new == 0 {
            return;
        }
        if new > self.low_bits << 1 | 1 {
            self.low_bits = self.low_bits << 1 | 1;
        }
        let old = new - (self.low_bits + 1);
        // Taken out as a whole and put back: at most a few lines of cache.
        let mut chain = std::mem::replace(self.main.at_mut(old), EMPTY_BUCKET);
        loop {
            for id in chain.ids.into_iter().filter(|&id| id != EMPTY) {
                let hash = hash_of(id);
                self.put(self.number(hash), hash, id);
            }
            if chain.more == NO_BUCKET {
                return;
            }
            let emptied = chain.more;
            chain = std::mem::replace(self.more.at_mut(emptied as usize), EMPTY_BUCKET);
            self.vacant.push(emptied);
        }
    }

    fn put(&mut self, number: usize, hash: u64, id: u32) {
        let mut place = Place::Main(number);
        loop {
            let bucket = self.bucket_mut(place);
            if let Some(slot) = bucket.ids.iter().position(|&id| id == EMPTY) {
                (bucket.ids[slot], bucket.tags[slot]) = (id, tag(hash));
                return;
            }
            let more = match bucket.more {
                NO_BUCKET => {
                    let more = self.vacant.pop().unwrap_or_else(|| self.more.push() as u32);
                    self.bucket_mut(place).more = more;
                    more
                }
                more => more,
            };
            place = Place::More(more as usize);
        }
    }

    fn locate(&self, number: usize, id: u32) -> Option<(Place, usize)> {
        let mut place = Place::Main(number);
        loop {
            let bucket = self.bucket(place);
            if let Some(slot) = bucket.ids.iter().position(|&other| other == id) {
                return Some((place, slot));
            }
            place = bucket.next()?;
        }
    }

    /// The last bucket of a chain and the one before it.
    fn end_of(&self, number: usize) -> (Place, Option<Place>) {
        let (mut place, mut before) = (Place::Main(number), None);
        while let Some(next) = self.bucket(place).next() {
            (place, before) = (next, Some(place));
        }
        (place, before)
    }

    fn drop_if_empty(&mut self, end: Place, before: Option<Place>) {
        if let (Place::More(number), Some(before)) = (end, before)
            && self.bucket(end).last().is_none()
        {
            self.bucket_mut(before).more = NO_BUCKET;
            self.vacant.push(number as u32);
        }
    }

    fn bucket(&self, place: Place) -> &Bucket {
        match place {
            Place::Main(number) => self.main.at(number),
            Place::More(number) => self.more.at(number),
        }
    }

    fn bucket_mut(&mut self, place: Place) -> &mut Bucket {
        match place {
            Place::Main(number) => self.main.at_mut(number),
            Place::More(number) => self.more.at_mut(number),
        }
    }
}

/// Where an entry was seen; the table may have changed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    bucket: u32,
    slot: u32,
    pub(super) id: u32,
}

impl Bucket {
    /// A bit for each slot whose tag is that of the hash: the highest of a byte. Above the first there
    /// may be others (Mycroft's search for a zero byte).
    #[inline]
    fn alike(&self, hash: u64) -> u128 {
        const ONES: u128 = u128::from_ne_bytes([1; 16]) >> (8 * (16 - WIDTH));
        let mut tags = [0; 16];
        tags[..WIDTH].copy_from_slice(&self.tags);
        let zero_for_alike = u128::from_le_bytes(tags) ^ (u128::from_le_bytes([tag(hash); 16]));
        zero_for_alike.wrapping_sub(ONES) & !zero_for_alike & (ONES << 7)
    }

    fn next(&self) -> Option<Place> {
        (self.more != NO_BUCKET).then_some(Place::More(self.more as usize))
    }

    /// Its last entry; entries stand without a gap.
    fn last(&self) -> Option<usize> {
        self.ids.iter().rposition(|&id| id != EMPTY)
    }
}

/// The first of those that are alike.
fn slot_of(alike: u128) -> usize {
    alike.trailing_zeros() as usize / 8
}

/// The highest bits: the lowest ones are alike within a bucket.
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Spreads numbers as a hash does (the finalizer of MurmurHash3).
    fn hash_of(id: u32) -> u64 {
        let mut hash = u64::from(id).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    fn insert(index: &mut Index, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        index.grow();
        index.insert(hash, id, hash_of);
    }

    #[test]
    fn it_finds_what_was_put_in_while_it_grows() {
        let mut index = Index::new();
        for id in 0..50_000 {
            insert(&mut index, hash_of(id), id, hash_of);
        }
        for id in 0..50_000 {
            assert_eq!(index.find(hash_of(id), |other| other == id), Some(id));
        }
        assert_eq!(index.find(hash_of(50_000), |other| other == 50_000), None);
        assert!(index.bytes() < 50_000 * 11, "{} bytes", index.bytes());
    }

    #[test]
    fn a_walk_meets_all_that_stays_once_while_the_table_grows() {
        let mut index = Index::new();
        (0..1000).for_each(|id| insert(&mut index, hash_of(id), id, hash_of));
        let (mut seen, mut more, of) = (Vec::new(), 1000, index.buckets());
        for number in 0..of {
            for bucket in index.family(number, of) {
                seen.extend(index.entries(bucket).filter(|&id| id < 1000));
            }
            (more..more + 150).for_each(|id| insert(&mut index, hash_of(id), id, hash_of));
            more += 150;
        }
        assert!(index.buckets() > 8 * of, "the table has doubled three times");
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_emptied_table_keeps_no_chain() {
        let mut index = Index::new();
        (0..5000).for_each(|id| insert(&mut index, hash_of(id), id, hash_of));
        (0..5000).for_each(|id| index.remove(hash_of(id), id));
        assert_eq!(index.len, 0);
        assert_eq!(index.vacant.len(), index.more.len);
    }

    proptest! {
        /// Hashes of four bits: long chains, and tags that are all alike.
        #[test]
        fn it_does_as_a_map_does(steps in prop::collection::vec((0..3u8, 0..200u32), 1..600)) {
            let poor = |id: u32| hash_of(id) & 15;
            let (mut index, mut model) = (Index::new(), HashMap::new());
            let mut next = 1000;
            for (step, key) in steps {
                let found = model.get(&key).copied();
                // Here an entry is its own hash, so that it can be split by it.
                match (step, found) {
                    (0, None) => {
                        insert(&mut index, poor(key), key, |id| poor(id % 1000));
                        model.insert(key, key);
                    }
                    (1, Some(id)) => {
                        index.remove(poor(key), id);
                        model.remove(&key);
                    }
                    (2, Some(id)) => {
                        next += 1000;
                        index.replace(poor(key), id, next + key);
                        model.insert(key, next + key);
                    }
                    _ => {}
                }
                for (&key, &id) in &model {
                    prop_assert_eq!(index.find(poor(key), |other| other == id), Some(id));
                }
            }
            let mut all: Vec<u32> =
                (0..index.buckets()).flat_map(|number| index.entries(number)).collect();
            let mut expected: Vec<u32> = model.into_values().collect();
            all.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }
}
