//! Walks over all items, piece by piece, while others change them.
//!
//! By buckets of the index and not by pages: an item that is moved to another page in the meantime
//! is met all the same, and once.

use super::slab::ChunkId;
use super::{Item, Store};
use crate::key::Key;
use crate::time::Now;
use crate::version::Version;

impl Store {
    /// Frees what is over in about `count` items from `cursor` on; returns where to go on.
    pub fn sweep_from(&mut self, cursor: u64, count: u32, now: Now) -> Option<u64> {
        let mut met = Vec::new();
        let next = self.visit(cursor, count, |_, id| {
            met.push(id);
            1
        });
        for id in met {
            self.counts_of(id).sweep_checked += 1;
            if !self.is_live(id, now) {
                self.counts_of(id).swept += 1;
                self.remove_ended(id);
            }
        }
        next
    }

    /// Visits the live ones among about `count` items from `cursor` on; returns where to go on.
    ///
    /// Unlike `scan` it is bounded even where nothing lives.
    pub fn walk(
        &self,
        cursor: u64,
        count: u32,
        now: Now,
        mut show: impl FnMut(Key<'_>, Item<'_>),
    ) -> Option<u64> {
        self.visit(cursor, count, |store, id| {
            if let Some(key) = Key::new(store.slab.key(id))
                && store.is_live(id, now)
            {
                show(key, store.slab.item(id, now));
            }
            1
        })
    }

    /// Visits live items from `cursor` on; stops some items after `show` has returned false, or
    /// after about `count` items of any kind.
    ///
    /// Returns where to go on, or `None` after the last. An item that is there all the time is
    /// shown once, wherever its chunks are moved to; one that is changed between two calls may be
    /// missed: whoever scans also sees the changes.
    pub fn scan(
        &self,
        cursor: u64,
        count: u32,
        now: Now,
        mut show: impl FnMut(Key<'_>, Item<'_>) -> bool,
    ) -> Option<u64> {
        self.visit(cursor, count, |store, id| {
            let Some(key) = Key::new(store.slab.key(id)) else {
                return 1;
            };
            let goes_on = !store.is_live(id, now) || show(key, store.slab.item(id, now));
            if goes_on { 1 } else { count }
        })
    }

    /// Drops the unwanted among about `count` items from `cursor` on, as if they had never been
    /// here; returns how many, and where to go on.
    pub fn drop_from(
        &mut self,
        cursor: u64,
        count: u32,
        is_unwanted: impl Fn(Key<'_>, Version) -> bool,
    ) -> (u64, Option<u64>) {
        let mut unwanted = Vec::new();
        let next = self.visit(cursor, count, |store, id| {
            let version = store.slab.header(id).version();
            if Key::new(store.slab.key(id)).is_some_and(|key| is_unwanted(key, version)) {
                unwanted.push(id);
            }
            1
        });
        let dropped = unwanted.len() as u64;
        unwanted.into_iter().for_each(|id| self.remove(id));
        (dropped, next)
    }

    /// Visits whole buckets of the index, until what `look` returns adds up to `enough`. A cursor
    /// holds how many buckets there were at its start, and which is next.
    fn visit(
        &self,
        cursor: u64,
        enough: u32,
        mut look: impl FnMut(&Self, ChunkId) -> u32,
    ) -> Option<u64> {
        const SHIFT: u32 = 32;
        let of = if cursor == 0 { self.index.buckets() } else { (cursor >> SHIFT) as usize };
        let (mut number, mut looked) = (cursor as u32 as usize, 0);
        while number < of {
            if looked >= enough {
                return Some((of as u64) << SHIFT | number as u64);
            }
            for bucket in self.index.family(number, of) {
                let ids = || self.index.entries(bucket).filter_map(ChunkId::from_raw);
                // All of them come at once, and not one after the other.
                ids().for_each(|id| self.slab.bring(id));
                looked = ids().fold(looked, |looked, id| looked.saturating_add(look(self, id)));
            }
            number += 1;
        }
        None
    }
}
