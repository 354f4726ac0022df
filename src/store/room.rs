//! Where memory comes from when there is none: first what is over, then what lies scattered, then
//! what is least in use.

use super::classes::Class;
use super::item::ACTIVE;
use super::slab::{ChunkId, Kind};
use super::{Counts, Store};
use crate::time::{Deadline, Now};

/// So many chunks are looked at for what is over before something live has to go: pages whose items
/// were all given more time are due in vain, and nobody may wait for thousands of them.
const LOOKS: usize = 10_000;

impl Store {
    /// A chunk, whatever has to go for it; `None` when nothing may.
    pub(super) fn chunk(&mut self, class: Class, now: Now) -> Option<ChunkId> {
        let mut looks_left = LOOKS;
        loop {
            let chunk = self.slab.take(class);
            if chunk.is_some() || !self.free_something(&mut looks_left, now) {
                return chunk;
            }
        }
    }

    /// Takes `bytes` from the budget for something that is not a page.
    pub(super) fn charge(&mut self, bytes: usize, now: Now) -> bool {
        let mut looks_left = LOOKS;
        while !self.budget.try_charge(bytes) {
            if !self.free_something(&mut looks_left, now) {
                return false;
            }
        }
        true
    }

    /// Frees least recently used items until `bytes` of the budget are free; false when none is
    /// left.
    pub fn give_back(&mut self, bytes: usize, now: Now) -> bool {
        let mut looks_left = LOOKS;
        while self.budget.free() < bytes {
            if !self.free_something(&mut looks_left, now) {
                return false;
            }
        }
        true
    }

    /// Keeps to a limit that was lowered; a bounded step of it.
    pub(super) fn shrink(&mut self, now: Now) {
        const STEPS: usize = 1000;
        let mut looks_left = LOOKS;
        for _ in 0..STEPS {
            if self.budget.excess() == 0 || !self.free_something(&mut looks_left, now) {
                return;
            }
        }
    }

    /// One step towards more memory; false when there is none left to take.
    fn free_something(&mut self, looks_left: &mut usize, now: Now) -> bool {
        if *looks_left > 0
            && let Some(looked) = self.sweep_page(Sweep::Direct, now)
        {
            *looks_left = looks_left.saturating_sub(looked + 1);
            return true;
        }
        self.empty_page() || (self.evict && self.evict_oldest(now))
    }

    /// Looks at one page that is due and frees what is over in it; returns how much it looked at.
    pub(super) fn sweep_page(&mut self, sweep: Sweep, now: Now) -> Option<usize> {
        let page = self.ends.take_due(now)?;
        let (mut chunk, mut earliest) = (0, Deadline::NEVER);
        // A page that is gone with its last item has no more chunks.
        while let Some((id, kind)) = self.slab.chunk_at(page, chunk) {
            chunk += 1;
            if kind != Kind::Head || self.building.contains(&id) {
                continue;
            }
            let deadline = self.slab.header(id).deadline();
            let is_over = !self.is_live(id, now);
            sweep.count(is_over, self.counts_of(id));
            if is_over {
                self.remove_ended(id);
            } else if earliest == Deadline::NEVER
                || (deadline != Deadline::NEVER && deadline < earliest)
            {
                earliest = deadline;
            }
        }
        self.ends.add(page, earliest);
        Some(chunk)
    }

    /// Moves what is in the emptiest page to where there is room for it, so that the page can
    /// serve another class or another shard.
    fn empty_page(&mut self) -> bool {
        let Some(page) = self.slab.page_to_empty(&self.building) else {
            return false;
        };
        self.slab.set_aside(page);
        self.work.pages_moved += 1;
        let mut chunk = 0;
        while let Some((id, kind)) = self.slab.chunk_at(page, chunk) {
            chunk += 1;
            match kind {
                Kind::Free => {}
                Kind::Head => self.move_head(id),
                Kind::More => {
                    let to = self.elsewhere(id);
                    self.slab.move_chunk(id, to);
                    self.slab.give(id);
                }
            }
        }
        true
    }

    fn move_head(&mut self, id: ChunkId) {
        let hash = self.hash(self.slab.key(id));
        let to = self.elsewhere(id);
        self.slab.move_chunk(id, to);
        self.index.replace(hash, id.raw(), to.raw());
        self.lru.moved(&mut self.slab, to);
        self.ends.add(self.slab.page_of(to), self.slab.header(to).deadline());
        self.slab.give(id);
        self.work.rescued += 1;
    }

    /// A chunk like this one on another page: the page that is being emptied is the last choice,
    /// and was chosen because its class has room enough without it.
    fn elsewhere(&mut self, id: ChunkId) -> ChunkId {
        let class = self.slab.class_of(id);
        self.slab.take_alike(class).expect("the other pages of the class have room")
    }

    fn evict_oldest(&mut self, now: Now) -> bool {
        self.lru.spare(&mut self.slab, now);
        let Some(id) = self.lru.oldest() else {
            return false;
        };
        if self.is_live(id, now) {
            self.note_eviction(id, now);
            self.remove(id);
        } else {
            self.reclaim(id);
        }
        true
    }

    fn note_eviction(&mut self, id: ChunkId, now: Now) {
        let item = self.slab.item(id, now);
        let counts = self.lru.tally.of(self.slab.header(id));
        counts.evictions += 1;
        counts.evicted_unfetched += u64::from(!item.was_fetched);
        counts.evicted_active += u64::from(self.slab.header(id).has(ACTIVE));
        counts.evicted_with_end += u64::from(item.deadline != Deadline::NEVER);
        counts.evicted_idle_s = u64::from(item.idle_s);
        self.evictions.add(self.slab.key(id), item);
    }
}

/// On whose account a page is swept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sweep {
    /// Somebody needs the memory now.
    Direct,
    /// Nobody does.
    Background,
}

impl Sweep {
    fn count(self, is_over: bool, counts: &mut Counts) {
        match self {
            Self::Background => {
                counts.sweep_checked += 1;
                counts.swept += u64::from(is_over);
            }
            Self::Direct => {
                counts.reclaimed += u64::from(is_over);
                counts.direct_reclaims += u64::from(is_over);
            }
        }
    }
}

#[cfg(test)]
mod tests;
