//! Items in memory: a hard limit, the least in use out first, an end for each, a CAS unique.
//!
//! The face is `get`, `apply` and `sweep`; `scan` and `set_floor` serve replication.
//! Single-threaded, and without a clock or randomness of its own: both are passed in. Knows
//! nothing of the protocol, of other nodes, or of who may change what: it applies what it is told,
//! unless that is older than what it has.

mod audit;
mod budget;
mod classes;
mod digest;
mod evicted;
mod expiry;
mod index;
mod item;
mod lru;
mod put;
mod room;
mod slab;
mod tally;
mod walk;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ahash::RandomState;

pub use budget::Budget;
pub use evicted::Evicted;
pub use item::{Item, Value};
pub use lru::{SEGMENTS, Segment, Segments};
pub use slab::SHARD_MAX;
pub use tally::{Counts, Sizes};

use digest::Digests;
use evicted::Evictions;
use expiry::Ends;
use index::{Guess, Index};
use item::{Draft, FETCHED, Header, seconds};
use lru::Lru;
use room::Sweep;
use slab::{ChunkId, Slab};
use tally::Tally;

use crate::key::Key;
use crate::record::{Change, Marks, Record};
use crate::time::{Deadline, Now};
use crate::version::Version;

/// How a store behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a full store drops its least recently used items; otherwise it refuses new ones.
    pub evict: bool,
    /// Secret of the index's hash, so that clients can't aim at one bucket.
    pub seed: u64,
    /// Who goes first.
    pub segments: Segments,
    /// By which classes it counts.
    pub sizes: Arc<Sizes>,
}

/// One shard's items.
#[derive(Debug)]
pub struct Store {
    evict: bool,
    budget: Arc<Budget>,
    hasher: RandomState,
    index: Index,
    slab: Slab,
    lru: Lru,
    ends: Ends,
    /// Chunks of the item that is being stored: in use, and in no item yet.
    building: Vec<ChunkId>,
    /// Older items count as absent: they were flushed.
    floor: Version,
    work: Work,
    /// Items ever stored.
    stores: u64,
    evictions: Evictions,
    /// Kept where other nodes hold the same.
    digests: Option<Digests>,
}

/// Where the index seems to have a key.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    hash: u64,
    guess: Option<Guess>,
}

/// What was found of a key: the place of its live item. Good until the store changes.
#[derive(Debug)]
pub struct Found {
    hash: u64,
    id: Option<ChunkId>,
}

impl Found {
    /// Whether there is such an item.
    pub fn is_some(&self) -> bool {
        self.id.is_some()
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in effect.
    Done,
    /// The store has a newer state of that key.
    Stale,
    /// It did not fit; the older item of that key is gone.
    NoMemory,
}

/// What it took to find memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Pages that were emptied to serve another class of chunks.
    pub pages_moved: u64,
    /// Items that were moved for it.
    pub rescued: u64,
    /// Looks at the old ends of the segments.
    pub juggles: u64,
}

impl Work {
    /// Adds that of another shard.
    pub fn add(&mut self, other: Self) {
        self.pages_moved += other.pages_moved;
        self.rescued += other.rescued;
        self.juggles += other.juggles;
    }
}

impl Store {
    /// An empty store that draws on `budget`.
    pub fn new(options: Options, budget: Arc<Budget>) -> Self {
        Self {
            evict: options.evict,
            hasher: RandomState::with_seeds(options.seed, 1, 2, 3),
            index: Index::new(),
            slab: Slab::new(Arc::clone(&budget)),
            lru: Lru::new(options.segments, Tally::new(options.sizes)),
            ends: Ends::new(),
            building: Vec::new(),
            floor: Version::default(),
            work: Work::default(),
            stores: 0,
            evictions: Evictions::default(),
            digests: None,
            budget,
        }
    }

    /// The live item of a key as it was before this use.
    #[inline(always)]
    pub fn get(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        self.get_at(None, key, now)
    }

    /// The same where `bring_item` may have been called before.
    #[inline(always)]
    pub fn get_at(&mut self, place: Option<&Place>, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        let id = match place {
            // What was not brought near before is now: the rest of an item comes while its key is compared.
            None => self.find(key, self.hash(key.bytes()), |slab, id| slab.bring(id)),
            Some(place) => match self.guessed(place, key) {
                None => self.find(key, place.hash, |_, _| {}),
                found => found,
            },
        };
        self.read(id?, now)
    }

    /// The item that was seen at that place, if it is the one and still there.
    #[inline(always)]
    fn guessed(&self, place: &Place, key: Key<'_>) -> Option<ChunkId> {
        let guess = place.guess.filter(|&guess| self.index.holds(guess))?;
        ChunkId::from_raw(guess.id).filter(|&id| self.slab.has_key(id, key))
    }

    #[inline(always)]
    fn read(&mut self, id: ChunkId, now: Now) -> Option<Item<'_>> {
        let header = self.slab.header_mut(id);
        if !is_live(header, self.floor, now) {
            self.miss(id);
            return None;
        }
        let (now_s, was_fetched, used_s) = (seconds(now), header.has(FETCHED), header.used_s());
        if let Some(segment) = self.lru.hit(header, now_s) {
            self.lru.relink(&mut self.slab, id, segment);
        }
        let mut item = self.slab.item(id, now);
        (item.was_fetched, item.idle_s) = (was_fetched, now_s.saturating_sub(used_s));
        // What is behind the first chunk comes while that is copied.
        item.value.bring_rest();
        Some(item)
    }

    /// Brings near what a search for a key will look at first.
    pub fn bring_entry(&self, key: Key<'_>) -> Place {
        let hash = self.hash(key.bytes());
        self.index.bring(hash);
        Place { hash, guess: None }
    }

    /// The same where the item is about to change.
    pub fn bring_entry_to_change(&self, key: Key<'_>) -> Place {
        if let Some(digests) = &self.digests {
            digests.bring(key);
        }
        self.bring_entry(key)
    }

    /// Brings near what it will look at then.
    pub fn bring_item(&self, place: &mut Place) {
        place.guess = self.index.guess(place.hash);
        if let Some(id) = place.guess.and_then(|guess| ChunkId::from_raw(guess.id)) {
            self.slab.bring(id);
        }
    }

    /// The live item of a key, without counting as a use.
    pub fn peek(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        let found = self.seek(key, now);
        self.item(&found, now)
    }

    /// Looks for the live item of a key, without counting as a use.
    pub fn seek(&mut self, key: Key<'_>, now: Now) -> Found {
        let hash = self.hash(key.bytes());
        let id = self.find(key, hash, |_, _| {});
        match id {
            Some(id) if !self.is_live(id, now) => {
                self.reclaim(id);
                Found { hash, id: None }
            }
            id => Found { hash, id },
        }
    }

    /// The version of what was found.
    pub fn version(&self, found: &Found) -> Option<Version> {
        found.id.map(|id| self.slab.header(id).version())
    }

    /// What was found.
    #[inline(always)]
    pub fn item(&self, found: &Found, now: Now) -> Option<Item<'_>> {
        found.id.map(|id| self.slab.item(id, now))
    }

    /// Brings a key to a new state, unless the store has a newer one.
    pub fn apply(&mut self, record: &Record<&[u8]>, now: Now) -> Applied {
        let Some(key) = Key::new(record.key) else {
            return Applied::Stale;
        };
        let hash = self.hash(key.bytes());
        let id = self.find(key, hash, |_, _| {});
        self.apply_at(Found { hash, id }, record, now)
    }

    /// The same for a key that was just looked for.
    pub fn apply_at(&mut self, found: Found, record: &Record<&[u8]>, now: Now) -> Applied {
        let Found { hash, id } = found;
        if id.is_some_and(|id| self.slab.header(id).version() >= record.version) {
            return Applied::Stale;
        }
        match record.change {
            Change::Meta { cas, deadline, marks } => match id {
                Some(id) if self.is_live(id, now) => {
                    self.touch(id, record.version, cas, deadline, marks, now);
                }
                Some(id) => self.reclaim(id),
                None => {}
            },
            Change::Delete => self.drop_item(id),
            Change::Put { cas, flags, deadline, marks, value } => {
                let (key, version) = (record.key, record.version);
                let draft = Draft { version, cas, flags, deadline, marks, key, value };
                if id.is_some_and(|id| self.takes_the_same(id, &draft)) {
                    self.rewrite(&draft, now);
                    return Applied::Done;
                }
                self.drop_item(id);
                return self.place(hash, &draft, now);
            }
        }
        Applied::Done
    }

    /// Changes everything but flags and value. It counts as a use: sessions are often read by a
    /// command that renews them.
    fn touch(
        &mut self,
        id: ChunkId,
        version: Version,
        cas: u64,
        deadline: Deadline,
        marks: Marks,
        now: Now,
    ) {
        self.leave_digest(id);
        self.lru.touch(&mut self.slab, id, seconds(now));
        self.slab.header_mut(id).change(version, cas, deadline, marks);
        self.ends.add(self.slab.page_of(id), deadline);
        self.join_digest(id);
    }

    /// Keeps the segments in order, and to a limit that was lowered; a bounded step of it.
    pub fn maintain(&mut self, now: Now) {
        /// As memcached's maintainer does in one go.
        const MOVES: usize = 500;
        self.shrink(now);
        self.lru.juggle(&mut self.slab, MOVES, now);
    }

    /// Frees what is over where something is; looks at about `count` items, and says whether that
    /// was enough.
    pub fn sweep(&mut self, count: usize, now: Now) -> bool {
        let mut looked = 0;
        while looked < count {
            match self.sweep_page(Sweep::Background, now) {
                Some(chunks) => looked += chunks + 1,
                None => return true,
            }
        }
        false
    }

    /// From now on every item older than `floor` counts as absent; `sweep` frees them.
    pub fn set_floor(&mut self, floor: Version) {
        if floor > self.floor {
            self.floor = floor;
            self.ends.all_may_be_over(self.slab.page_count());
        }
    }

    /// Bytes of pages that hold its items.
    pub fn held(&self) -> usize {
        self.slab.held()
    }

    /// Forgets everything.
    pub fn wipe(&mut self) {
        while let Some(id) = self.lru.oldest() {
            self.remove(id);
        }
        self.floor = Version::default();
    }

    /// What it holds and has dropped, in all.
    pub fn counts(&self) -> Counts {
        self.lru.tally.sum()
    }

    /// The same by class; the first is none.
    pub fn class_counts(&self) -> &[Counts] {
        self.lru.tally.by_class()
    }

    /// What it took to find memory.
    pub fn work(&self) -> Work {
        Work { juggles: self.lru.juggles, ..self.work }
    }

    /// Counts from zero again; what it holds now stays.
    pub fn reset_counts(&mut self) {
        self.lru.tally.reset();
        self.lru.juggles = 0;
        self.work = Work::default();
    }

    /// Seconds since the oldest item of a segment was used.
    pub fn oldest_idle_s(&self, segment: Segment, now: Now) -> Option<u32> {
        self.lru.oldest_idle_s(&self.slab, segment, now)
    }

    /// Buckets and bytes of the index.
    pub fn index_size(&self) -> (usize, usize) {
        (self.index.buckets(), self.index.bytes())
    }

    /// From now on all that is evicted has to be taken with `take_lost`, or no longer.
    pub fn share_evictions(&mut self, shared: bool) {
        self.evictions.set_shared(shared);
    }

    /// Whether items have gone for lack of memory since that was asked for.
    pub fn has_lost(&self) -> bool {
        self.evictions.has_lost()
    }

    /// The items that have gone for lack of memory since the last call, and their versions.
    pub fn take_lost(&mut self) -> Vec<(Box<[u8]>, Version)> {
        self.evictions.take_lost()
    }

    /// From now on remembers what it evicts, up to a bound, or no longer.
    pub fn remember_evicted(&mut self, wanted: bool) {
        self.evictions.set_wanted(wanted);
    }

    /// What was evicted since the last call, and how many more did not fit.
    pub fn take_evicted(&mut self) -> (Vec<Evicted>, u64) {
        self.evictions.take()
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        hash_of(&self.hasher, key)
    }

    /// `meets` is told of each item that is compared.
    fn find(&self, key: Key<'_>, hash: u64, meets: impl Fn(&Slab, ChunkId)) -> Option<ChunkId> {
        let is_it = |raw| {
            ChunkId::from_raw(raw).is_some_and(|id| {
                meets(&self.slab, id);
                self.slab.has_key(id, key)
            })
        };
        self.index.find(hash, is_it).and_then(ChunkId::from_raw)
    }

    /// A read came too late: counts why.
    fn miss(&mut self, id: ChunkId) {
        if self.slab.header(id).version() < self.floor {
            self.counts_of(id).get_flushed += 1;
        } else {
            self.counts_of(id).get_expired += 1;
        }
        self.reclaim(id);
    }

    #[inline(always)]
    fn is_live(&self, id: ChunkId, now: Now) -> bool {
        is_live(self.slab.header(id), self.floor, now)
    }

    fn reclaim(&mut self, id: ChunkId) {
        self.counts_of(id).reclaimed += 1;
        self.remove_ended(id);
    }

    fn counts_of(&mut self, id: ChunkId) -> &mut Counts {
        self.lru.tally.of(self.slab.header(id))
    }

    fn remove_ended(&mut self, id: ChunkId) {
        if !self.slab.header(id).has(FETCHED) {
            self.counts_of(id).expired_unfetched += 1;
        }
        self.remove(id);
    }

    fn drop_item(&mut self, id: Option<ChunkId>) {
        if let Some(id) = id {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: ChunkId) {
        self.leave_digest(id);
        let hash = self.hash(self.slab.key(id));
        self.index.remove(hash, id.raw());
        self.lru.remove(&mut self.slab, id);
        self.slab.free(id);
    }
}

#[inline(always)]
fn is_live(header: &Header, floor: Version, now: Now) -> bool {
    !header.deadline().is_past(now) && header.version() >= floor
}

/// A key is all that is hashed: without its length in front, as a slice would have it.
#[inline]
fn hash_of(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests;
