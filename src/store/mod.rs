//! Items in memory: a hard limit, least recently used out first, an end for each, a CAS unique.
//!
//! The face is `get`, `apply`, `touch` and `sweep`; `scan` and `set_floor` serve replication.
//! Single-threaded, and without a clock or randomness of its own: both are passed in. Knows
//! nothing of the protocol, of other nodes, or of who may change what: it applies what it is told,
//! unless that is older than what it has.

mod budget;
mod evicted;
mod slots;

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

pub use budget::Budget;
pub use evicted::Evicted;
use evicted::Evictions;
use slots::{Slot, SlotId, Slots};

use crate::key::Key;
use crate::record::{Change, Marks, Record, Sight};
use crate::time::{Deadline, Now};
use crate::version::Version;

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether a full store drops its least recently used items; otherwise it refuses new ones.
    pub evict: bool,
    /// Secret of the index's hash, so that clients can't aim at one bucket.
    pub seed: u64,
}

/// One shard's items.
#[derive(Debug)]
pub struct Store {
    evict: bool,
    budget: Arc<Budget>,
    hasher: RandomState,
    index: HashTable<SlotId>,
    slots: Slots,
    /// Older items count as absent: they were flushed.
    floor: Version,
    swept_to: SlotId,
    counts: Counts,
    evictions: Evictions,
    /// Not among the counts, which clients may reset.
    has_evicted: bool,
}

/// An item as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Of its last change.
    pub version: Version,
    /// The CAS unique that clients see.
    pub cas: u64,
    /// Opaque to us.
    pub flags: u32,
    /// When it ends.
    pub deadline: Deadline,
    /// What the meta commands remember of it.
    pub marks: Marks,
    /// Whether it was read before.
    pub was_fetched: bool,
    /// Seconds since it was last used.
    pub idle_s: u32,
    /// The value.
    pub value: &'a [u8],
}

impl Item<'_> {
    /// All but the value, as a client may see it.
    pub fn sight(&self) -> Sight {
        Sight {
            cas: self.cas,
            flags: self.flags,
            deadline: self.deadline,
            marks: self.marks,
            wins: false,
            was_fetched: self.was_fetched,
            idle_s: self.idle_s,
        }
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

/// What a store holds and has dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Items held now.
    pub items: u64,
    /// Bytes of keys and values held now.
    pub bytes: u64,
    /// Items ever stored.
    pub total_items: u64,
    /// Live items dropped for lack of memory.
    pub evictions: u64,
    /// Of those, never read.
    pub evicted_unfetched: u64,
    /// Of those, with an end of their own.
    pub evicted_with_end: u64,
    /// How long the last of them had not been used, in seconds.
    pub evicted_idle_s: u64,
    /// Items that were over when something came across them.
    pub reclaimed: u64,
    /// Items that were over when the sweep came by.
    pub swept: u64,
    /// Items that the sweep has looked at.
    pub sweep_checked: u64,
    /// Of all that were over, never read.
    pub expired_unfetched: u64,
    /// Reads that found an item at its end.
    pub get_expired: u64,
    /// Reads that found a flushed item.
    pub get_flushed: u64,
}

/// What glibc's malloc adds to an allocation, and what it rounds up to.
const MALLOC_HEADER: usize = 8;
const MALLOC_ALIGN: usize = 16;

impl Store {
    /// An empty store that draws on `budget`.
    pub fn new(options: Options, budget: Arc<Budget>) -> Self {
        Self {
            evict: options.evict,
            budget,
            hasher: RandomState::with_seeds(options.seed, 1, 2, 3),
            index: HashTable::new(),
            slots: Slots::new(),
            floor: Version::default(),
            swept_to: 0,
            counts: Counts::default(),
            evictions: Evictions::default(),
            has_evicted: false,
        }
    }

    /// The live item of a key as it was before this use; it becomes the most recently used.
    pub fn get(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        let id = self.find_wanted(key, now)?;
        self.slots.bump(id);
        let now_s = seconds(now);
        let slot = self.slots.at_mut(id);
        let was_fetched = std::mem::replace(&mut slot.fetched, true);
        let used_s = std::mem::replace(&mut slot.used_s, now_s);
        let idle_s = now_s.saturating_sub(used_s);
        Some(Item { was_fetched, idle_s, ..item(self.slots.at(id), now) })
    }

    /// The live item of a key, without counting as a use.
    pub fn peek(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        let id = self.find_live(key, now)?;
        Some(item(self.slots.at(id), now))
    }

    /// Brings a key to a new state, unless the store has a newer one.
    pub fn apply(&mut self, record: &Record<&[u8]>, now: Now) -> Applied {
        let Some(key) = Key::new(record.key) else {
            return Applied::Stale;
        };
        let id = self.find(key);
        if id.is_some_and(|id| self.slots.at(id).version >= record.version) {
            return Applied::Stale;
        }
        match record.change {
            Change::Meta { cas, deadline, marks } => {
                self.touch(key, record.version, cas, deadline, marks, now);
            }
            Change::Delete => self.drop_slot(id),
            Change::Put { cas, flags, deadline, marks, value } => {
                self.drop_slot(id);
                let slot = Slot {
                    hash: self.hasher.hash_one(key.bytes()),
                    version: record.version,
                    cas,
                    deadline,
                    flags,
                    key_len: key.bytes().len() as u8,
                    fetched: false,
                    marks,
                    used_s: seconds(now),
                    data: Box::default(),
                };
                return self.place(slot, key, value, now);
            }
        }
        Applied::Done
    }

    /// Changes everything but flags and value.
    pub fn touch(
        &mut self,
        key: Key<'_>,
        version: Version,
        cas: u64,
        deadline: Deadline,
        marks: Marks,
        now: Now,
    ) {
        if let Some(id) = self.find_live(key, now) {
            let slot = self.slots.at_mut(id);
            slot.version = version;
            slot.cas = cas;
            slot.deadline = deadline;
            slot.marks = marks;
        }
    }

    /// Looks at the next `count` slots and frees what is over; the cost is bounded by `count`.
    pub fn sweep(&mut self, count: usize, now: Now) {
        let end = self.slots.end();
        for _ in 0..count.min(end as usize) {
            let id = if self.swept_to < end { self.swept_to } else { 0 };
            self.swept_to = id + 1;
            self.sweep_one(id, now);
        }
    }

    /// Frees what is over among `count` slots from `cursor` on; returns where to go on.
    pub fn sweep_from(&mut self, cursor: u32, count: u32, now: Now) -> Option<u32> {
        let end = cursor.saturating_add(count).min(self.slots.end());
        (cursor..end).for_each(|id| self.sweep_one(id, now));
        (end < self.slots.end()).then_some(end)
    }

    fn sweep_one(&mut self, id: SlotId, now: Now) {
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        self.counts.sweep_checked += 1;
        if !self.is_live(slot, now) {
            self.counts.swept += 1;
            self.remove_ended(id);
        }
    }

    /// Visits the live items among `count` slots from `cursor` on; returns where to go on.
    ///
    /// Unlike `scan` it is bounded even where nothing lives.
    pub fn walk(
        &self,
        cursor: u32,
        count: u32,
        now: Now,
        mut visit: impl FnMut(Key<'_>, Item<'_>),
    ) -> Option<u32> {
        let end = cursor.saturating_add(count).min(self.slots.end());
        for slot in (cursor..end).filter_map(|id| self.slots.get(id)) {
            if let Some(key) = Key::new(slot.key())
                && self.is_live(slot, now)
            {
                visit(key, item(slot, now));
            }
        }
        (end < self.slots.end()).then_some(end)
    }

    /// Visits live items from `cursor` on until `visit` returns false.
    ///
    /// Returns where to go on, or `None` after the last. An item that is changed between two
    /// calls may be missed: whoever scans also sees the changes.
    pub fn scan(
        &self,
        cursor: u32,
        now: Now,
        mut visit: impl FnMut(Key<'_>, Item<'_>) -> bool,
    ) -> Option<u32> {
        for id in cursor..self.slots.end() {
            let Some(slot) = self.slots.get(id) else {
                continue;
            };
            let Some(key) = Key::new(slot.key()) else {
                continue;
            };
            if self.is_live(slot, now) && !visit(key, item(slot, now)) {
                return Some(id + 1);
            }
        }
        None
    }

    /// From now on every item older than `floor` counts as absent; `sweep` frees them.
    pub fn set_floor(&mut self, floor: Version) {
        self.floor = self.floor.max(floor);
    }

    /// Frees least recently used items until `bytes` of the budget are free; false when none is left.
    pub fn make_room(&mut self, bytes: usize, now: Now) -> bool {
        while self.budget.free() < bytes {
            if !self.evict_oldest(now) {
                return false;
            }
        }
        true
    }

    /// Forgets everything.
    pub fn wipe(&mut self) {
        while let Some(id) = self.slots.oldest() {
            self.remove(id);
        }
        self.floor = Version::default();
    }

    /// What it holds and has dropped.
    pub fn counts(&self) -> Counts {
        Counts { items: self.slots.len() as u64, ..self.counts }
    }

    /// Whether it has ever dropped a live item: other nodes may still have what it lacks.
    pub fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    /// Counts from zero again; what it holds now stays.
    pub fn reset_counts(&mut self) {
        self.counts = Counts { bytes: self.counts.bytes, ..Counts::default() };
    }

    /// Seconds since the least recently used item was used.
    pub fn oldest_idle_s(&self, now: Now) -> Option<u32> {
        let oldest = self.slots.oldest()?;
        Some(item(self.slots.at(oldest), now).idle_s)
    }

    /// Buckets and bytes of the index.
    pub fn index_size(&self) -> (usize, usize) {
        (self.index.capacity(), self.index.allocation_size())
    }

    /// From now on remembers what it evicts, up to a bound, or no longer.
    pub fn remember_evicted(&mut self, wanted: bool) {
        self.evictions.set_wanted(wanted);
    }

    /// What was evicted since the last call, and how many more did not fit.
    pub fn take_evicted(&mut self) -> (Vec<Evicted>, u64) {
        self.evictions.take()
    }

    /// The most that an item takes from the budget, for a value of this size.
    pub fn cost_of(key: Key<'_>, value_len: usize) -> usize {
        allocation(key.bytes().len() + value_len)
    }

    fn find(&self, key: Key<'_>) -> Option<SlotId> {
        let hash = self.hasher.hash_one(key.bytes());
        self.index
            .find(hash, |&id| {
                let slot = self.slots.at(id);
                slot.hash == hash && slot.key() == key.bytes()
            })
            .copied()
    }

    fn find_live(&mut self, key: Key<'_>, now: Now) -> Option<SlotId> {
        let id = self.find(key)?;
        if self.is_live(self.slots.at(id), now) {
            return Some(id);
        }
        self.reclaim(id);
        None
    }

    /// As `find_live`, and counts why a read finds nothing.
    fn find_wanted(&mut self, key: Key<'_>, now: Now) -> Option<SlotId> {
        let id = self.find(key)?;
        let slot = self.slots.at(id);
        if self.is_live(slot, now) {
            return Some(id);
        }
        if slot.version < self.floor {
            self.counts.get_flushed += 1;
        } else {
            self.counts.get_expired += 1;
        }
        self.reclaim(id);
        None
    }

    fn is_live(&self, slot: &Slot, now: Now) -> bool {
        !slot.deadline.is_past(now) && slot.version >= self.floor
    }

    fn place(&mut self, mut slot: Slot, key: Key<'_>, value: &[u8], now: Now) -> Applied {
        let len = key.bytes().len() + value.len();
        if !self.charge_slot(now) || !self.charge(allocation(len), now) {
            return Applied::NoMemory;
        }
        let mut data = Vec::with_capacity(len);
        data.extend_from_slice(key.bytes());
        data.extend_from_slice(value);
        slot.data = data.into_boxed_slice();
        self.counts.bytes += len as u64;
        self.counts.total_items += 1;
        let hash = slot.hash;
        let id = self.slots.insert(slot);
        let before = self.index.allocation_size();
        self.index.insert_unique(hash, id, |&id| self.slots.at(id).hash);
        debug_assert!(self.index.allocation_size() <= before.max(self.index_growth_bound(before)));
        Applied::Done
    }

    /// Pays for the slot and the index entry of one more item, evicting where growing costs too much.
    fn charge_slot(&mut self, now: Now) -> bool {
        loop {
            let before = self.index.allocation_size();
            let slots = self.slots.growth();
            let index_full = self.index.len() == self.index.capacity();
            let index = if index_full { self.index_growth_bound(before) - before } else { 0 };
            if self.budget.try_charge(slots + index) {
                if index_full {
                    self.index.reserve(1, |&id| self.slots.at(id).hash);
                    let grown = self.index.allocation_size().saturating_sub(before);
                    self.budget.release(index.saturating_sub(grown));
                }
                return true;
            }
            if !self.may_evict(now) {
                return false;
            }
        }
    }

    /// hashbrown doubles; its smallest table has 4 entries and a group of control bytes.
    fn index_growth_bound(&self, before: usize) -> usize {
        before * 2 + 128
    }

    fn charge(&mut self, bytes: usize, now: Now) -> bool {
        while !self.budget.try_charge(bytes) {
            if !self.may_evict(now) {
                return false;
            }
        }
        true
    }

    fn may_evict(&mut self, now: Now) -> bool {
        let over = self.slots.oldest().is_some_and(|id| !self.is_live(self.slots.at(id), now));
        (self.evict || over) && self.evict_oldest(now)
    }

    fn evict_oldest(&mut self, now: Now) -> bool {
        let Some(id) = self.slots.oldest() else {
            return false;
        };
        if self.is_live(self.slots.at(id), now) {
            self.note_eviction(id, now);
            self.remove(id);
        } else {
            self.reclaim(id);
        }
        true
    }

    fn note_eviction(&mut self, id: SlotId, now: Now) {
        let slot = self.slots.at(id);
        let item = item(slot, now);
        self.has_evicted = true;
        self.counts.evictions += 1;
        self.counts.evicted_unfetched += u64::from(!item.was_fetched);
        self.counts.evicted_with_end += u64::from(item.deadline != Deadline::NEVER);
        self.counts.evicted_idle_s = u64::from(item.idle_s);
        self.evictions.add(slot.key(), item);
    }

    fn reclaim(&mut self, id: SlotId) {
        self.counts.reclaimed += 1;
        self.remove_ended(id);
    }

    fn remove_ended(&mut self, id: SlotId) {
        self.counts.expired_unfetched += u64::from(!self.slots.at(id).fetched);
        self.remove(id);
    }

    fn drop_slot(&mut self, id: Option<SlotId>) {
        if let Some(id) = id {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: SlotId) {
        let slot = self.slots.remove(id);
        self.counts.bytes -= slot.data.len() as u64;
        self.budget.release(allocation(slot.data.len()));
        if let Ok(entry) = self.index.find_entry(slot.hash, |&other| other == id) {
            entry.remove();
        }
    }
}

fn item(slot: &Slot, now: Now) -> Item<'_> {
    Item {
        version: slot.version,
        cas: slot.cas,
        flags: slot.flags,
        deadline: slot.deadline,
        marks: slot.marks,
        was_fetched: slot.fetched,
        idle_s: seconds(now).saturating_sub(slot.used_s),
        value: slot.value(),
    }
}

fn seconds(now: Now) -> u32 {
    (now.local.0 / 1000) as u32
}

/// What malloc takes for `len` bytes.
fn allocation(len: usize) -> usize {
    (len + MALLOC_HEADER).next_multiple_of(MALLOC_ALIGN).max(2 * MALLOC_ALIGN)
}

#[cfg(test)]
mod tests;
