//! Pages of one size, each cut into chunks of one class.
//!
//! A chunk is a number, never a pointer. Of what lies in a chunk only the two highest bits of its
//! first word are known here: they tell a free chunk, the head of an item, and what follows a head.

use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::Budget;
use super::audit::rule;
use super::classes::{Class, Classes, UNIT};

/// Where a chunk begins, in units of 8 bytes, counted through all pages of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkId(u32);

/// No chunk. A number of 31 bits, so that two of them and a mark fit one word.
pub(super) const NONE: u32 = (1 << 31) - 1;

/// All that a shard can hold, in bytes: what 31 bits can number.
pub const SHARD_MAX: usize = NONE as usize * UNIT;

impl ChunkId {
    /// The chunk of a number that `raw` has given.
    pub(super) fn from_raw(raw: u32) -> Option<Self> {
        (raw != NONE).then_some(Self(raw))
    }

    /// As a number of 31 bits.
    pub(super) fn raw(self) -> u32 {
        self.0
    }
}

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Free,
    /// It begins an item.
    Head,
    /// It continues one.
    More,
}

/// Set in the first word of all chunks but heads: an item's version leaves it clear.
const NOT_A_HEAD: u64 = 1 << 63;
/// And this in free ones.
const FREE: u64 = 1 << 62;

/// What is known of a page beside its bytes.
#[derive(Debug)]
struct Page {
    class: Class,
    chunk_size: u32,
    /// Chunks from here on were never in use.
    fresh: u32,
    used: u32,
    /// The first of the free chunks that were in use, linked through their first words.
    free: u32,
    /// Its place among its class's pages with room.
    listed: u32,
}

/// The pages of one class.
#[derive(Debug, Default)]
struct ClassPages {
    pages: u32,
    /// Pages that have a free chunk.
    with_room: Vec<u32>,
    /// Free chunks in them.
    free: usize,
}

/// Chunks of so many larger classes will do, each about a 32nd larger than the one before.
const LARGER: Class = 3;
/// With so many pages a class is better off with another of its own, of which half stays empty on
/// average, than with chunks that are too large.
const FEW_PAGES: u32 = 8;

/// One shard's pages.
#[derive(Debug)]
pub(super) struct Slab {
    classes: Classes,
    budget: Arc<Budget>,
    /// log2 of the units in a page.
    shift: u32,
    /// The units of a page, less one.
    mask: u32,
    /// The bytes of each page: apart from the rest, as every access needs them and nothing else.
    /// Empty while a page is vacant.
    bytes: Vec<Box<[u8]>>,
    pages: Vec<Page>,
    vacant: Vec<u32>,
    by_class: Vec<ClassPages>,
}

impl Slab {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        let classes = Classes::new(budget.page_size());
        let by_class = (0..classes.len()).map(|_| ClassPages::default()).collect();
        let shift = (budget.page_size() / UNIT).ilog2();
        let (bytes, pages, vacant) = (Vec::new(), Vec::new(), Vec::new());
        Self { classes, budget, shift, mask: (1 << shift) - 1, bytes, pages, vacant, by_class }
    }

    pub(super) fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Page numbers are below this.
    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Bytes of pages in use.
    pub(super) fn held(&self) -> usize {
        (self.pages.len() - self.vacant.len()) * self.budget.page_size()
    }

    /// The page that a chunk lies in.
    pub(super) fn page_of(&self, id: ChunkId) -> usize {
        (id.0 >> self.shift) as usize
    }

    /// A chunk and all behind it in its page.
    pub(super) fn tail(&self, id: ChunkId) -> &[u8] {
        &self.bytes[self.page_of(id)][self.offset(id)..]
    }

    pub(super) fn tail_mut(&mut self, id: ChunkId) -> &mut [u8] {
        let (page, offset) = (self.page_of(id), self.offset(id));
        &mut self.bytes[page][offset..]
    }

    /// Brings the beginning of a chunk near, before anybody waits for it: its header tells how long
    /// it is, but whoever waits for that waits twice.
    pub(super) fn bring(&self, id: ChunkId) {
        const LINE: usize = 64;
        /// More than this the processor fetches by itself, as it sees the order.
        const LINES: usize = 20;
        let (page, start) = (self.page_of(id), self.offset(id));
        let len = (self.pages[page].chunk_size as usize).min(LINES * LINE);
        let bytes = &self.bytes[page][..];
        (start..start + len).step_by(LINE).for_each(|at| prefetch_index(bytes, at));
    }

    /// All bytes of a chunk.
    pub(super) fn chunk(&self, id: ChunkId) -> &[u8] {
        &self.tail(id)[..self.size_of(id)]
    }

    pub(super) fn chunk_mut(&mut self, id: ChunkId) -> &mut [u8] {
        let size = self.size_of(id);
        &mut self.tail_mut(id)[..size]
    }

    /// Bytes of a chunk.
    pub(super) fn size_of(&self, id: ChunkId) -> usize {
        self.pages[self.page_of(id)].chunk_size as usize
    }

    pub(super) fn is_head(&self, id: ChunkId) -> bool {
        kind(word(self.tail(id))) == Kind::Head
    }

    /// Copies a whole chunk to one of the same class on another page.
    pub(super) fn copy_chunk(&mut self, from: ChunkId, to: ChunkId) {
        let (source, target) = (self.offset(from), self.offset(to));
        let (numbers, size) = ([self.page_of(from), self.page_of(to)], self.size_of(from));
        let [one, other] =
            self.bytes.get_disjoint_mut(numbers).expect("a chunk moves to another page");
        other[target..target + size].copy_from_slice(&one[source..source + size]);
    }

    fn offset(&self, id: ChunkId) -> usize {
        (id.0 & self.mask) as usize * UNIT
    }

    /// The first word of a chunk that continues an item: what stands before and behind it.
    pub(super) fn link(&self, id: ChunkId) -> (u32, u32) {
        let word = word(self.tail(id));
        ((word >> 31) as u32 & NONE, word as u32 & NONE)
    }

    pub(super) fn set_link(&mut self, id: ChunkId, before: u32, behind: u32) {
        let word = NOT_A_HEAD | u64::from(before) << 31 | u64::from(behind);
        set_word(self.tail_mut(id), word);
    }

    /// A chunk of this class or of one that is little larger, linked to nothing. `None` when none is
    /// free and there is no memory for a page.
    pub(super) fn take(&mut self, class: Class) -> Option<ChunkId> {
        let number = match self.page_with_room(class) {
            Some(number) => number,
            // A class that has hardly begun would leave most of a page empty.
            None if self.by_class[usize::from(class)].pages < FEW_PAGES => {
                self.larger_with_room(class).or_else(|| self.add_page(class))?
            }
            None => self.add_page(class).or_else(|| self.larger_with_room(class))?,
        };
        Some(self.take_from(number))
    }

    /// A chunk of exactly this class.
    pub(super) fn take_alike(&mut self, class: Class) -> Option<ChunkId> {
        let number = self.page_with_room(class)?;
        Some(self.take_from(number))
    }

    fn page_with_room(&self, class: Class) -> Option<u32> {
        self.by_class[usize::from(class)].with_room.last().copied()
    }

    fn larger_with_room(&self, class: Class) -> Option<u32> {
        let end = (class + 1 + LARGER).min(self.classes.len() as Class);
        (class + 1..end).find_map(|class| self.page_with_room(class))
    }

    fn take_from(&mut self, number: u32) -> ChunkId {
        let page = &mut self.pages[number as usize];
        let size = page.chunk_size as usize;
        let chunk = if page.free != NONE {
            let chunk = page.free;
            page.free = word(&self.bytes[number as usize][chunk as usize * size..]) as u32 & NONE;
            chunk
        } else {
            page.fresh += 1;
            page.fresh - 1
        };
        page.used += 1;
        let class = &mut self.by_class[usize::from(page.class)];
        class.free -= 1;
        if page.used as usize == self.budget.page_size() / size {
            page.listed = NONE;
            class.with_room.pop();
        }
        let id = ChunkId(number << self.shift | (chunk as usize * size / UNIT) as u32);
        self.set_link(id, NONE, NONE);
        id
    }

    /// Frees a chunk, and its page when that was the last one in it.
    pub(super) fn give(&mut self, id: ChunkId) {
        let (number, offset) = (self.page_of(id), self.offset(id));
        let page = &mut self.pages[number];
        let chunk = (offset / page.chunk_size as usize) as u32;
        let behind = std::mem::replace(&mut page.free, chunk);
        page.used -= 1;
        let is_empty = page.used == 0;
        set_word(&mut self.bytes[number][offset..], NOT_A_HEAD | FREE | u64::from(behind));
        let class = &mut self.by_class[usize::from(page.class)];
        class.free += 1;
        if page.listed == NONE {
            page.listed = class.with_room.len() as u32;
            class.with_room.push(number as u32);
        }
        if is_empty {
            self.drop_page(number);
        }
    }

    fn add_page(&mut self, class: Class) -> Option<u32> {
        let numbers = SHARD_MAX / self.budget.page_size();
        if self.vacant.is_empty() && self.pages.len() == numbers {
            return None;
        }
        let bytes = self.budget.take_page()?;
        let chunk_size = self.classes.size(class);
        let chunks = self.chunks_in(class);
        let of_class = &mut self.by_class[usize::from(class)];
        let page = Page {
            class,
            chunk_size: chunk_size as u32,
            fresh: 0,
            used: 0,
            free: NONE,
            listed: of_class.with_room.len() as u32,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                (self.pages[number as usize], self.bytes[number as usize]) = (page, bytes);
                number
            }
            None => {
                self.pages.push(page);
                self.bytes.push(bytes);
                self.pages.len() as u32 - 1
            }
        };
        of_class.with_room.push(number);
        of_class.free += chunks;
        of_class.pages += 1;
        Some(number)
    }

    /// The page must hold nothing, and be among those with room.
    fn drop_page(&mut self, number: usize) {
        self.unlist(number);
        let class = self.pages[number].class;
        let chunks = self.chunks_in(class);
        let of_class = &mut self.by_class[usize::from(class)];
        of_class.free -= chunks;
        of_class.pages -= 1;
        self.pages[number].fresh = 0;
        self.budget.return_page(std::mem::take(&mut self.bytes[number]));
        self.vacant.push(number as u32);
    }

    fn unlist(&mut self, number: usize) {
        let page = &mut self.pages[number];
        let place = std::mem::replace(&mut page.listed, NONE) as usize;
        let with_room = &mut self.by_class[usize::from(page.class)].with_room;
        with_room.swap_remove(place);
        if let Some(&moved) = with_room.get(place) {
            self.pages[moved as usize].listed = place as u32;
        }
    }

    /// The page that is emptied with the least work, all of whose chunks have room elsewhere in
    /// their class; not one that holds a chunk of `busy`. Once what is in it has been moved or given
    /// back, it is gone.
    pub(super) fn page_to_empty(&mut self, busy: &[ChunkId]) -> Option<usize> {
        let spared = |number: u32| busy.iter().any(|&id| self.page_of(id) == number as usize);
        let classes = self.by_class.iter().enumerate();
        let roomy = classes.filter(|(class, pages)| pages.free >= self.chunks_in(*class as Class));
        let emptiest = roomy.filter_map(|(_, class)| {
            let pages = class.with_room.iter().filter(|&&number| !spared(number));
            let number = *pages.min_by_key(|&&number| self.pages[number as usize].used)?;
            let page = &self.pages[number as usize];
            Some((page.used * page.chunk_size, number))
        });
        emptiest.min().map(|(_, number)| number as usize)
    }

    /// Makes a page the last of its class that chunks are taken from.
    pub(super) fn set_aside(&mut self, number: usize) {
        let page = &self.pages[number];
        let with_room = &mut self.by_class[usize::from(page.class)].with_room;
        let place = page.listed as usize;
        with_room.swap(0, place);
        let other = with_room[place];
        self.pages[other as usize].listed = place as u32;
        self.pages[number].listed = 0;
    }

    /// The chunk at a place in a page, if it was ever in use.
    pub(super) fn chunk_at(&self, number: usize, chunk: usize) -> Option<(ChunkId, Kind)> {
        let page = &self.pages[number];
        let from = chunk * page.chunk_size as usize;
        (chunk < page.fresh as usize).then(|| {
            let id = ChunkId((number as u32) << self.shift | (from / UNIT) as u32);
            (id, kind(word(&self.bytes[number][from..])))
        })
    }

    /// Whether a page knows how many of its chunks are used and free.
    pub(super) fn audit_page(&self, number: usize, used: usize, free: usize) -> Result<(), String> {
        let page = &self.pages[number];
        if self.bytes[number].is_empty() {
            let is_known = page.fresh == 0 && self.vacant.contains(&(number as u32));
            return rule(is_known, || format!("page {number} is lost"));
        }
        let (mut listed_free, mut next) = (0, page.free);
        while next != NONE {
            listed_free += 1;
            let from = next as usize * page.chunk_size as usize;
            next = word(&self.bytes[number][from..]) as u32 & NONE;
        }
        rule(page.used as usize == used && listed_free == free, || {
            format!("page {number}: {used} used, {free} free, not {}, {listed_free}", page.used)
        })?;
        let with_room = &self.by_class[usize::from(page.class)].with_room;
        let place = with_room.iter().position(|&other| other as usize == number);
        let expected = (used < self.chunks_in(page.class)).then_some(page.listed as usize);
        rule(place == expected, || format!("page {number} is listed at {place:?}"))
    }

    /// Whether the classes know how many chunks are free.
    pub(super) fn audit_classes(&self) -> Result<(), String> {
        self.by_class.iter().enumerate().try_for_each(|(class, pages)| {
            let chunks = self.chunks_in(class as Class);
            let free: usize = pages
                .with_room
                .iter()
                .map(|&number| chunks - self.pages[number as usize].used as usize)
                .sum();
            rule(free == pages.free, || format!("class {class}: {free} free, not {}", pages.free))
        })
    }

    /// Chunks in a page of this class.
    fn chunks_in(&self, class: Class) -> usize {
        self.budget.page_size() / self.classes.size(class)
    }

    pub(super) fn class_of(&self, id: ChunkId) -> Class {
        self.pages[self.page_of(id)].class
    }
}

fn kind(word: u64) -> Kind {
    match word & (NOT_A_HEAD | FREE) {
        0 | FREE => Kind::Head,
        NOT_A_HEAD => Kind::More,
        _ => Kind::Free,
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("a chunk has more than a word"))
}

fn set_word(bytes: &mut [u8], word: u64) {
    *bytes.first_chunk_mut().expect("a chunk has more than a word") = word.to_le_bytes();
}

#[cfg(test)]
mod tests;
