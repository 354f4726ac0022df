//! Who goes first: items in four segments, each linked from its newest to its oldest.
//!
//! As memcached's segmented LRU (its doc/new_lru.txt): what comes is *hot*; what falls out of hot
//! or warm without having been read again goes to *cold*, where eviction takes from the old end;
//! what is read a second time is kept in *warm*, so that a scan over everything flushes nothing
//! that is in use. Items with a short life may be kept apart, in *temporary*. Unlike memcached's,
//! a list holds items of all sizes: whatever is least in use goes, however large it is. And what is
//! stored again where it lies keeps its place and is marked: at the old end that is known soon
//! enough, and whoever moves an item waits for its neighbours.

use super::item::{ACTIVE, FETCHED, Header};
use super::slab::{ChunkId, NONE, Slab};
use super::tally::Tally;
use crate::time::{Deadline, Now};

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// New.
    Hot = 0,
    /// In use.
    Warm = 1,
    /// Not in use: the next to go.
    Cold = 2,
    /// Over soon.
    Temporary = 3,
}

/// How many there are.
pub const SEGMENTS: usize = 4;

impl Segment {
    pub(super) fn from_index(index: u32) -> Self {
        [Self::Hot, Self::Warm, Self::Cold, Self::Temporary][index as usize & 3]
    }
}

/// How the segments are kept; memcached's `-o` of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Otherwise all is one list, in the order of the last use.
    pub is_on: bool,
    /// Part of the bytes that may be hot, in percent.
    pub hot_pct: u32,
    /// Part of the bytes that may be warm, in percent.
    pub warm_pct: u32,
    /// What is hot is at most so many times as old as the oldest cold.
    pub hot_max_factor: f64,
    /// What is warm is at most so many times as old as the oldest cold.
    pub warm_max_factor: f64,
    /// Items that live no longer than this are temporary, in seconds.
    pub temporary_ttl_s: Option<u32>,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            is_on: true,
            hot_pct: 20,
            warm_pct: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            temporary_ttl_s: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
    items: u64,
    bytes: u64,
}

/// One shard's lists; the links lie in the items.
#[derive(Debug)]
pub(super) struct Lru {
    options: Segments,
    lists: [List; SEGMENTS],
    pub(super) tally: Tally,
    /// Looks at the old ends.
    pub(super) juggles: u64,
}

/// An item of an unsegmented list moves to its new end at most this often, in seconds, as in
/// memcached: a read that moves nothing touches no other item.
const BUMP_AGAIN_S: u32 = 60;

impl Lru {
    pub(super) fn new(options: Segments, tally: Tally) -> Self {
        let empty = List { newest: NONE, oldest: NONE, items: 0, bytes: 0 };
        Self { options, lists: [empty; SEGMENTS], tally, juggles: 0 }
    }

    /// Takes in an item that has just been written.
    pub(super) fn add(&mut self, slab: &mut Slab, id: ChunkId, deadline: Deadline, now: Now) {
        let segment = match self.options.is_on {
            false => Segment::Cold,
            true if self.is_temporary(deadline, now) => Segment::Temporary,
            true => Segment::Hot,
        };
        self.count_in(slab.header(id), segment);
        self.push(slab, id, segment);
    }

    #[inline]
    fn is_temporary(&self, deadline: Deadline, now: Now) -> bool {
        self.options.temporary_ttl_s.is_some_and(|bound_s| {
            deadline.remaining_s(now).is_some_and(|lives_s| lives_s <= u64::from(bound_s))
        })
    }

    /// Whether an item that is stored again, with this end, keeps its place.
    pub(super) fn keeps_place(&self, header: &Header, deadline: Deadline, now: Now) -> bool {
        let was_temporary = header.segment() == Segment::Temporary;
        self.options.is_on && self.is_temporary(deadline, now) == was_temporary
    }

    /// An item was written over another, in whose place it now is. That is a use, as the second read
    /// is one; of a hot item that nobody has read it is not, or each login would be in use.
    pub(super) fn take_place(&mut self, slab: &mut Slab, id: ChunkId, before: &Header) {
        let (segment, header) = (before.segment(), slab.header_mut(id));
        header.take_place(before);
        if segment != Segment::Hot || before.has(FETCHED | ACTIVE) {
            header.mark(ACTIVE);
        }
        if bytes(header) == bytes(before) {
            self.tally.of(header).total_items += 1;
            return;
        }
        self.count_out(before);
        self.count_in(slab.header(id), segment);
        let list = &mut self.lists[segment as usize];
        list.bytes = list.bytes - bytes(before) + bytes(slab.header(id));
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, id: ChunkId) {
        let header = self.unlink(slab, id);
        self.count_out(&header);
    }

    fn count_in(&mut self, header: &Header, segment: Segment) {
        let counts = self.tally.of(header);
        counts.segments[segment as usize] += 1;
        counts.bytes += bytes(header);
        counts.total_items += 1;
        counts.is_known = true;
    }

    fn count_out(&mut self, header: &Header) {
        let counts = self.tally.of(header);
        counts.segments[header.segment() as usize] -= 1;
        counts.bytes -= bytes(header);
    }

    pub(super) fn relink(&mut self, slab: &mut Slab, id: ChunkId, segment: Segment) {
        let header = self.unlink(slab, id);
        let counts = self.tally.of(&header);
        counts.segments[header.segment() as usize] -= 1;
        counts.segments[segment as usize] += 1;
        match (header.segment(), segment) {
            (Segment::Warm, Segment::Warm) => counts.moves_within_lru += 1,
            (_, Segment::Warm) => counts.moves_to_warm += 1,
            (Segment::Hot | Segment::Warm, _) => counts.moves_to_cold += 1,
            _ => {}
        }
        self.push(slab, id, segment);
    }

    /// Takes an item out of its list; returns its header.
    fn unlink(&mut self, slab: &mut Slab, id: ChunkId) -> Header {
        let header = *slab.header(id);
        let list = &mut self.lists[header.segment() as usize];
        list.items -= 1;
        list.bytes -= bytes(&header);
        match ChunkId::from_raw(header.newer()) {
            Some(newer) => slab.header_mut(newer).set_older(header.older()),
            None => list.newest = header.older(),
        }
        match ChunkId::from_raw(header.older()) {
            Some(older) => slab.header_mut(older).set_newer(header.newer()),
            None => list.oldest = header.newer(),
        }
        header
    }

    /// Makes an item the newest of a list.
    fn push(&mut self, slab: &mut Slab, id: ChunkId, segment: Segment) {
        let list = &mut self.lists[segment as usize];
        let second = std::mem::replace(&mut list.newest, id.raw());
        let header = slab.header_mut(id);
        header.set_segment(segment);
        header.set_newer(NONE);
        header.set_older(second);
        list.items += 1;
        list.bytes += bytes(header);
        match ChunkId::from_raw(second) {
            Some(second) => slab.header_mut(second).set_newer(id.raw()),
            None => list.oldest = id.raw(),
        }
    }

    /// A read; returns the segment that the item has to be linked to, if that changes.
    #[inline(always)]
    pub(super) fn hit(&mut self, header: &mut Header, now_s: u32) -> Option<Segment> {
        self.tally.of(header).hits[header.segment() as usize] += 1;
        self.note_use(header, now_s)
    }

    /// Any other use.
    pub(super) fn touch(&mut self, slab: &mut Slab, id: ChunkId, now_s: u32) {
        if let Some(segment) = self.note_use(slab.header_mut(id), now_s) {
            self.relink(slab, id, segment);
        }
    }

    /// Marks an item; returns the segment whose newest it becomes, if that changes.
    #[inline(always)]
    fn note_use(&mut self, header: &mut Header, now_s: u32) -> Option<Segment> {
        let was_fetched = header.has(FETCHED);
        header.mark(FETCHED);
        if !self.options.is_on {
            let is_due = now_s.saturating_sub(header.used_s()) >= BUMP_AGAIN_S;
            return is_due.then(|| {
                header.use_at(now_s);
                Segment::Cold
            });
        }
        if !was_fetched {
            // As in memcached, the first read makes an item no younger: what is hot or warm is held
            // against the age of the oldest cold item, and must not leave because that was read once.
            return None;
        }
        header.use_at(now_s);
        if header.segment() == Segment::Cold {
            header.unmark(ACTIVE);
            return Some(Segment::Warm);
        }
        header.mark(ACTIVE);
        None
    }

    /// Looks at the old ends of the segments, and moves at most `most` items of each where they belong.
    pub(super) fn juggle(&mut self, slab: &mut Slab, most: usize, now: Now) {
        if !self.options.is_on {
            return;
        }
        self.juggles += 1;
        let all: u64 = self.lists.iter().map(|list| list.bytes).sum();
        let coldest = self.coldest(slab, most);
        let bounds = [
            (Segment::Hot, self.options.hot_pct, self.options.hot_max_factor),
            (Segment::Warm, self.options.warm_pct, self.options.warm_max_factor),
        ];
        for (segment, pct, factor) in bounds {
            let max_bytes = all * u64::from(pct) / 100;
            for _ in 0..most {
                // What was just used is never too old: nobody needs to look at a cold item for that.
                let is_too_old = |slab: &Slab, age_s: u32| {
                    let idle_s = |id| match slab.header(id) {
                        // More are in use than may be moved at once: nobody knows how old cold is.
                        header if header.has(ACTIVE) => f64::INFINITY,
                        header => f64::from(header.idle_s(now)),
                    };
                    age_s > 0 && f64::from(age_s) > coldest.map_or(0.0, idle_s) * factor
                };
                if !self.move_oldest(slab, segment, max_bytes, is_too_old, now) {
                    break;
                }
            }
        }
    }

    /// False when the oldest of a segment may stay where it is.
    fn move_oldest(
        &mut self,
        slab: &mut Slab,
        segment: Segment,
        max_bytes: u64,
        is_too_old: impl Fn(&Slab, u32) -> bool,
        now: Now,
    ) -> bool {
        let list = self.lists[segment as usize];
        let Some(id) = ChunkId::from_raw(list.oldest) else {
            return false;
        };
        let header = slab.header_mut(id);
        let age_s = header.idle_s(now);
        if header.has(ACTIVE) {
            header.unmark(ACTIVE);
            self.relink(slab, id, Segment::Warm);
        } else if list.bytes > max_bytes || is_too_old(slab, age_s) {
            self.relink(slab, id, Segment::Cold);
        } else {
            return false;
        }
        true
    }

    /// Sees to it that what goes first is not in use, unless too much is; a bounded step of it.
    pub(super) fn spare(&mut self, slab: &mut Slab, now: Now) {
        const SPARED: usize = 8;
        let oldest = ChunkId::from_raw(self.lists[Segment::Cold as usize].oldest);
        if oldest.is_some_and(|id| slab.header(id).has(ACTIVE)) {
            self.juggle(slab, SPARED, now);
        }
    }

    /// The oldest cold item, once those before it that are in use have gone to warm.
    fn coldest(&mut self, slab: &mut Slab, most: usize) -> Option<ChunkId> {
        let oldest = |lru: &Self| ChunkId::from_raw(lru.lists[Segment::Cold as usize].oldest);
        for _ in 0..most {
            let id = oldest(self)?;
            let header = slab.header_mut(id);
            if !header.has(ACTIVE) {
                return Some(id);
            }
            header.unmark(ACTIVE);
            self.relink(slab, id, Segment::Warm);
        }
        oldest(self)
    }

    /// The item that goes first.
    pub(super) fn oldest(&self) -> Option<ChunkId> {
        [Segment::Cold, Segment::Hot, Segment::Warm, Segment::Temporary]
            .iter()
            .find_map(|segment| ChunkId::from_raw(self.lists[*segment as usize].oldest))
    }

    /// An item lies here now; its links have been copied.
    pub(super) fn moved(&mut self, slab: &mut Slab, to: ChunkId) {
        let header = *slab.header(to);
        let list = &mut self.lists[header.segment() as usize];
        match ChunkId::from_raw(header.newer()) {
            Some(newer) => slab.header_mut(newer).set_older(to.raw()),
            None => list.newest = to.raw(),
        }
        match ChunkId::from_raw(header.older()) {
            Some(older) => slab.header_mut(older).set_newer(to.raw()),
            None => list.oldest = to.raw(),
        }
    }

    /// Seconds since the oldest of a segment was used.
    pub(super) fn oldest_idle_s(&self, slab: &Slab, segment: Segment, now: Now) -> Option<u32> {
        let oldest = ChunkId::from_raw(self.lists[segment as usize].oldest)?;
        Some(slab.header(oldest).idle_s(now))
    }

    /// The newest and the oldest item of a segment, how many there are, and their bytes.
    pub(super) fn ends_of(&self, segment: Segment) -> (Option<ChunkId>, Option<ChunkId>, u64, u64) {
        let List { newest, oldest, items, bytes } = self.lists[segment as usize];
        (ChunkId::from_raw(newest), ChunkId::from_raw(oldest), items, bytes)
    }
}

fn bytes(header: &Header) -> u64 {
    (header.key_len() + header.value_len()) as u64
}

#[cfg(test)]
mod tests;
