//! How an item gets in: over its predecessor where it takes the same chunks, or else into chunks that
//! are found for it.

use super::item::Draft;
use super::slab::ChunkId;
use super::{Applied, Store, hash_of};
use crate::time::{Deadline, Now};

impl Store {
    /// Whether an item would take just the chunks that its predecessor has; if so, these are what
    /// is being built of.
    pub(super) fn takes_the_same(&mut self, head: ChunkId, draft: &Draft<'_>) -> bool {
        let mut layout = draft.layout(self.slab.classes());
        let mut next = Some(head);
        loop {
            match (layout.next(self.slab.classes()), next) {
                (None, None) => return true,
                (Some(class), Some(id)) if self.slab.class_of(id) == class => {
                    self.building.push(id);
                    next = if id == head { self.slab.next(id) } else { self.slab.after(id) };
                }
                _ => {
                    self.building.clear();
                    return false;
                }
            }
        }
    }

    /// Writes an item over its predecessor.
    pub(super) fn rewrite(&mut self, draft: &Draft<'_>, now: Now) {
        let head = self.building[0];
        let before = *self.slab.header(head);
        let keeps_place = self.lru.keeps_place(&before, draft.deadline, now);
        self.leave_digest(head);
        if !keeps_place {
            self.lru.remove(&mut self.slab, head);
        }
        self.slab.write(&self.building, draft, now);
        self.building.clear();
        if keeps_place {
            self.lru.take_place(&mut self.slab, head, &before);
            self.ends.add(self.slab.page_of(head), draft.deadline);
            self.join_digest(head);
        } else {
            self.list(head, draft.deadline, now);
        }
    }

    /// Stores an item whose key is absent.
    pub(super) fn place(&mut self, hash: u64, draft: &Draft<'_>, now: Now) -> Applied {
        if !self.grow_index(now) || !self.build(draft, now) {
            self.lru.tally.of_bytes(draft.bytes()).out_of_memory += 1;
            return Applied::NoMemory;
        }
        let head = self.building[0];
        self.slab.write(&self.building, draft, now);
        self.building.clear();
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.index.insert(hash, head.raw(), |raw| {
            let id = ChunkId::from_raw(raw).expect("the index holds items");
            hash_of(hasher, slab.key(id))
        });
        self.list(head, draft.deadline, now);
        Applied::Done
    }

    /// Puts an item that has been written where it is found when memory or time is up.
    fn list(&mut self, head: ChunkId, deadline: Deadline, now: Now) {
        /// For each one more in, and what it pushes along: hot to cold, or warm to cold. A few at
        /// once, as the look at the segments costs more than a move.
        const MOVES: usize = 2 * EACH as usize;
        const EACH: u64 = 4;
        self.lru.add(&mut self.slab, head, deadline, now);
        if self.stores.is_multiple_of(EACH) {
            self.lru.juggle(&mut self.slab, MOVES, now);
        }
        self.stores += 1;
        self.ends.add(self.slab.page_of(head), deadline);
        self.join_digest(head);
    }

    fn grow_index(&mut self, now: Now) -> bool {
        let bytes = self.index.growth();
        if bytes > 0 {
            if !self.charge(bytes, now) {
                return false;
            }
            let before = self.index.bytes();
            self.index.grow();
            // What went for them may have left room in the index as well.
            self.budget.release(bytes - (self.index.bytes() - before));
        }
        true
    }

    /// Finds all the chunks that an item takes, or none.
    fn build(&mut self, draft: &Draft<'_>, now: Now) -> bool {
        let mut layout = draft.layout(self.slab.classes());
        while let Some(class) = layout.next(self.slab.classes()) {
            match self.chunk(class, now) {
                Some(id) => self.building.push(id),
                None => {
                    self.building.drain(..).for_each(|id| self.slab.give(id));
                    return false;
                }
            }
        }
        true
    }
}
