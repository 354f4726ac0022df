//! How an item lies in its chunks.
//!
//! The first chunk, the *head*, holds a header, the flags if there are any, the number of the next
//! chunk if there is one, the key, and as much of the value as fits. Each further chunk begins with
//! a word of links. A key is never split.

use std::iter;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::classes::{Class, Classes, SPLIT_MIN};
use super::lru::Segment;
use super::slab::{ChunkId, NONE, Slab};
use crate::key::Key;
use crate::record::{Marks, Sight};
use crate::time::{Deadline, Now};
use crate::version::Version;

/// An item as it is stored.
#[derive(Clone, Copy, Debug)]
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
    pub value: Value<'a>,
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

/// A value in its store: one piece or several.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    slab: &'a Slab,
    first: &'a [u8],
    next: Option<ChunkId>,
    len: usize,
}

impl<'a> Value<'a> {
    /// Bytes of the whole.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes, in order.
    pub fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        // The links of the next chunk are read before the bytes of this one are used: that brings
        // it near in the meantime.
        let behind = |id: ChunkId| (id, ChunkId::from_raw(self.slab.link(id).1));
        let (mut next, mut left) = (self.next.map(behind), self.len - self.first.len());
        let rest = iter::from_fn(move || {
            let (id, further) = next?;
            next = further.map(behind);
            let bytes = &self.slab.chunk(id)[MORE..];
            let piece = &bytes[..bytes.len().min(left)];
            left -= piece.len();
            Some(piece)
        });
        iter::once(self.first).chain(rest)
    }

    /// Its first bytes: all of them unless it is longer than some hundred.
    pub fn start(self) -> &'a [u8] {
        self.first
    }

    /// Brings near what is behind its first piece.
    pub(super) fn bring_rest(&self) {
        if let Some(next) = self.next {
            self.slab.bring(next);
        }
    }

    /// A copy behind what is in `out`.
    #[inline(always)]
    pub fn append_to(self, out: &mut Vec<u8>) {
        match self.next {
            None => out.extend_from_slice(self.first),
            Some(_) => self.append_pieces(out),
        }
    }

    fn append_pieces(self, out: &mut Vec<u8>) {
        out.reserve(self.len);
        self.pieces().for_each(|piece| out.extend_from_slice(piece));
    }

    /// A copy.
    pub fn to_vec(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }
}

/// All that is known of an item besides key, flags and value.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    /// The highest bit is clear; it tells a head from other chunks.
    version: U64,
    cas: U64,
    /// In milliseconds of cluster time, 48 bits: nine thousand years.
    ends: U32,
    ends_high: U16,
    key_len: u8,
    bits: u8,
    /// Of the last use, in seconds of local time.
    used_s: U32,
    /// The segment in the highest two bits.
    value_len: U32,
    newer: U32,
    older: U32,
}

/// It was read.
pub(super) const FETCHED: u8 = 1;
/// It was read more than once, or stored again, since it came where it is.
pub(super) const ACTIVE: u8 = 2;
const STALE: u8 = 4;
const WON: u8 = 8;
const BINARY_KEY: u8 = 16;
const HAS_FLAGS: u8 = 32;
const HAS_NEXT: u8 = 64;
const MARKS: u8 = STALE | WON | BINARY_KEY;

const HEADER: usize = size_of::<Header>();
const FLAGS: usize = size_of::<u32>();
const NEXT: usize = size_of::<u32>();
/// Links of a chunk that is not the first.
const MORE: usize = size_of::<u64>();
const SEGMENT_SHIFT: u32 = 30;
const LEN_MASK: u32 = (1 << SEGMENT_SHIFT) - 1;
const ENDS_MAX: u64 = (1 << 48) - 1;

impl Header {
    pub(super) fn version(&self) -> Version {
        Version::from_raw(self.version.get())
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::from_raw(u64::from(self.ends.get()) | u64::from(self.ends_high.get()) << 32)
    }

    fn set_deadline(&mut self, deadline: Deadline) {
        let ends = deadline.raw().min(ENDS_MAX);
        self.ends.set(ends as u32);
        self.ends_high.set((ends >> 32) as u16);
    }

    fn marks(&self) -> Marks {
        Marks {
            is_stale: self.has(STALE),
            is_won: self.has(WON),
            has_binary_key: self.has(BINARY_KEY),
        }
    }

    /// What a touch changes.
    pub(super) fn change(&mut self, version: Version, cas: u64, deadline: Deadline, marks: Marks) {
        self.version.set(version.get());
        self.cas.set(cas);
        self.set_deadline(deadline);
        self.bits = self.bits & !MARKS | mark_bits(marks);
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    pub(super) fn mark(&mut self, bit: u8) {
        self.bits |= bit;
    }

    pub(super) fn unmark(&mut self, bit: u8) {
        self.bits &= !bit;
    }

    /// Sets when it was used; returns when it was used before.
    pub(super) fn use_at(&mut self, now_s: u32) -> u32 {
        let before = self.used_s.get();
        self.used_s.set(now_s);
        before
    }

    pub(super) fn used_s(&self) -> u32 {
        self.used_s.get()
    }

    pub(super) fn idle_s(&self, now: Now) -> u32 {
        seconds(now).saturating_sub(self.used_s.get())
    }

    pub(super) fn cas(&self) -> u64 {
        self.cas.get()
    }

    pub(super) fn value_len(&self) -> usize {
        (self.value_len.get() & LEN_MASK) as usize
    }

    pub(super) fn key_len(&self) -> usize {
        usize::from(self.key_len)
    }

    pub(super) fn segment(&self) -> Segment {
        Segment::from_index(self.value_len.get() >> SEGMENT_SHIFT)
    }

    pub(super) fn set_segment(&mut self, segment: Segment) {
        let len = self.value_len.get() & LEN_MASK;
        self.value_len.set((segment as u32) << SEGMENT_SHIFT | len);
    }

    /// Stands in its list where another did.
    pub(super) fn take_place(&mut self, other: &Self) {
        self.set_segment(other.segment());
        (self.newer, self.older) = (other.newer, other.older);
    }

    pub(super) fn newer(&self) -> u32 {
        self.newer.get()
    }

    pub(super) fn older(&self) -> u32 {
        self.older.get()
    }

    pub(super) fn set_newer(&mut self, raw: u32) {
        self.newer.set(raw);
    }

    pub(super) fn set_older(&mut self, raw: u32) {
        self.older.set(raw);
    }

    fn flags_len(&self) -> usize {
        if self.has(HAS_FLAGS) { FLAGS } else { 0 }
    }

    fn next_len(&self) -> usize {
        if self.has(HAS_NEXT) { NEXT } else { 0 }
    }

    fn key_at(&self) -> usize {
        HEADER + self.flags_len() + self.next_len()
    }

    fn value_at(&self) -> usize {
        self.key_at() + self.key_len()
    }
}

fn mark_bits(marks: Marks) -> u8 {
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    bit(marks.is_stale, STALE) | bit(marks.is_won, WON) | bit(marks.has_binary_key, BINARY_KEY)
}

/// Local time, as headers have it.
pub(super) fn seconds(now: Now) -> u32 {
    (now.local.0 / 1000) as u32
}

/// An item that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub(super) version: Version,
    pub(super) cas: u64,
    pub(super) flags: u32,
    pub(super) deadline: Deadline,
    pub(super) marks: Marks,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Draft<'_> {
    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// The chunks it takes.
    pub(super) fn layout(&self, classes: &Classes) -> Layout {
        let flags = if self.flags == 0 { 0 } else { FLAGS };
        Layout::new(classes, HEADER + flags + self.key.len(), self.value.len())
    }
}

/// Which chunks an item takes, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    left: usize,
    /// Of that, what the next chunk must hold: up to the end of the key in the first one.
    least: usize,
    /// How closely the last of several chunks fits.
    grain: usize,
    is_split: bool,
    is_begun: bool,
}

impl Layout {
    fn new(classes: &Classes, head: usize, value: usize) -> Self {
        let all = head + value;
        let grain = (all / 64).next_power_of_two().max(16);
        let single = classes.holding(all);
        // Another chunk is another wait for memory: a little waste is better.
        let fits = |class: Class| all <= SPLIT_MIN || classes.size(class) - all <= all / 16;
        let is_split = !single.is_some_and(fits);
        let next = if is_split { NEXT } else { 0 };
        Self { left: all + next, least: head + next, grain, is_split, is_begun: false }
    }

    /// The class of the next chunk.
    pub(super) fn next(&mut self, classes: &Classes) -> Option<Class> {
        if self.is_begun && self.left == 0 {
            return None;
        }
        let links = if self.is_begun { MORE } else { 0 };
        let bytes = self.left + links;
        let class = if self.is_split {
            classes.piece(bytes, self.least, self.grain, MORE)
        } else {
            classes.holding(bytes).unwrap_or_default()
        };
        (self.is_begun, self.least) = (true, 0);
        self.left = bytes.saturating_sub(classes.size(class));
        Some(class)
    }
}

impl Slab {
    pub(super) fn header(&self, id: ChunkId) -> &Header {
        let (header, _) = Header::ref_from_prefix(self.tail(id)).expect("a head has a header");
        header
    }

    pub(super) fn header_mut(&mut self, id: ChunkId) -> &mut Header {
        let (header, _) = Header::mut_from_prefix(self.tail_mut(id)).expect("a head has a header");
        header
    }

    #[inline(always)]
    pub(super) fn has_key(&self, id: ChunkId, key: Key<'_>) -> bool {
        let bytes = self.tail(id);
        let (header, _) = Header::ref_from_prefix(bytes).expect("a head has a header");
        let key = key.bytes();
        header.key_len() == key.len() && bytes[header.key_at()..].starts_with(key)
    }

    pub(super) fn key(&self, id: ChunkId) -> &[u8] {
        let bytes = self.tail(id);
        let (header, _) = Header::ref_from_prefix(bytes).expect("a head has a header");
        &bytes[header.key_at()..header.value_at()]
    }

    #[inline(always)]
    pub(super) fn item(&self, id: ChunkId, now: Now) -> Item<'_> {
        let bytes = self.tail(id);
        let (header, _) = Header::ref_from_prefix(bytes).expect("a head has a header");
        let (len, value_at) = (header.value_len(), header.value_at());
        let next = next_of(header, bytes);
        let end = value_at + len;
        let first = &bytes[value_at..if next.is_none() { end } else { self.size_of(id).min(end) }];
        Item {
            version: header.version(),
            cas: header.cas.get(),
            flags: if header.has(HAS_FLAGS) { read_u32(bytes, HEADER) } else { 0 },
            deadline: header.deadline(),
            marks: header.marks(),
            was_fetched: header.has(FETCHED),
            idle_s: header.idle_s(now),
            value: Value { slab: self, first, next, len },
        }
    }

    /// Writes an item over the chunks of its layout.
    pub(super) fn write(&mut self, chunks: &[ChunkId], draft: &Draft<'_>, now: Now) {
        let head = chunks[0];
        let second = chunks.get(1).map_or(NONE, |id| id.raw());
        let mut header = Header {
            version: draft.version.get().into(),
            cas: draft.cas.into(),
            ends: U32::ZERO,
            ends_high: U16::ZERO,
            key_len: draft.key.len() as u8,
            bits: mark_bits(draft.marks),
            used_s: seconds(now).into(),
            value_len: (draft.value.len() as u32 & LEN_MASK).into(),
            newer: NONE.into(),
            older: NONE.into(),
        };
        header.set_deadline(draft.deadline);
        if draft.flags != 0 {
            header.mark(HAS_FLAGS);
        }
        if second != NONE {
            header.mark(HAS_NEXT);
        }
        let (key_at, value_at) = (header.key_at(), header.value_at());
        let chunk = self.chunk_mut(head);
        chunk[..HEADER].copy_from_slice(header.as_bytes());
        if draft.flags != 0 {
            write_u32(chunk, HEADER, draft.flags);
        }
        if second != NONE {
            write_u32(chunk, key_at - NEXT, second);
        }
        chunk[key_at..value_at].copy_from_slice(draft.key);
        let mut left = fill(&mut chunk[value_at..], draft.value);
        for (place, &id) in chunks.iter().enumerate().skip(1) {
            let behind = chunks.get(place + 1).map_or(NONE, |id| id.raw());
            self.set_link(id, chunks[place - 1].raw(), behind);
            left = fill(&mut self.chunk_mut(id)[MORE..], left);
        }
        assert!(left.is_empty(), "the layout of an item is too small for it");
    }

    /// The chunk behind a head.
    pub(super) fn next(&self, head: ChunkId) -> Option<ChunkId> {
        next_of(self.header(head), self.tail(head))
    }

    /// The chunk behind any chunk of an item.
    pub(super) fn after(&self, id: ChunkId) -> Option<ChunkId> {
        if self.is_head(id) { self.next(id) } else { ChunkId::from_raw(self.link(id).1) }
    }

    fn set_next(&mut self, head: ChunkId, next: ChunkId) {
        let at = self.header(head).key_at() - NEXT;
        write_u32(self.tail_mut(head), at, next.raw());
    }

    /// Frees all chunks of an item.
    pub(super) fn free(&mut self, head: ChunkId) {
        let mut next = Some(head);
        while let Some(id) = next {
            next = self.after(id);
            self.give(id);
        }
    }

    /// Copies a chunk to another of its size, and links its item's other chunks to that one.
    pub(super) fn move_chunk(&mut self, from: ChunkId, to: ChunkId) {
        self.copy_chunk(from, to);
        let behind = if self.is_head(to) {
            self.next(to)
        } else {
            let (before, behind) = self.link(to);
            self.relink_before(before, from, to);
            ChunkId::from_raw(behind)
        };
        if let Some(behind) = behind {
            let (_, further) = self.link(behind);
            self.set_link(behind, to.raw(), further);
        }
    }

    fn relink_before(&mut self, before: u32, from: ChunkId, to: ChunkId) {
        let before = ChunkId::from_raw(before).expect("only a head has nothing before it");
        if self.is_head(before) {
            debug_assert_eq!(self.next(before), Some(from));
            self.set_next(before, to);
        } else {
            let (first, _) = self.link(before);
            self.set_link(before, first, to.raw());
        }
    }
}

fn next_of(header: &Header, bytes: &[u8]) -> Option<ChunkId> {
    if !header.has(HAS_NEXT) {
        return None;
    }
    ChunkId::from_raw(read_u32(bytes, header.key_at() - NEXT))
}

/// Copies what fits; returns the rest.
fn fill<'a>(space: &mut [u8], value: &'a [u8]) -> &'a [u8] {
    let (now, later) = value.split_at(value.len().min(space.len()));
    space[..now.len()].copy_from_slice(now);
    later
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("it was written"))
}

fn write_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests;
