//! Looks at the keys of a get some steps ahead, so that memory is on its way when its turn comes.
//!
//! Each key is taken off the line, and hashed, once. A shard's lock is taken three times for it,
//! which costs far less than one wait for memory. Prefetches are hints: they go on behind a lock,
//! where loads would have to end first.

use std::array;

use super::Node;
use crate::key::Key;
use crate::protocol::{KeyTooLong, Keys};
use crate::store::Place;

/// Steps between a look at the index and one at the item, and between that and the read.
const STEPS: usize = 4;
const SPACE: usize = 2 * STEPS;

/// See the module.
pub(super) struct Ahead<'a> {
    /// What nobody has looked at yet.
    keys: Keys<'a>,
    /// The others that have not been read yet, each at its number modulo the length.
    sought: [Option<Sought<'a>>; SPACE],
    taken: usize,
    brought: usize,
    read: usize,
    has_failed: bool,
}

/// A key that is to be read.
pub(super) struct Sought<'a> {
    pub(super) key: Key<'a>,
    pub(super) lane: usize,
    /// `None`: nobody has looked for it yet.
    pub(super) place: Option<Place>,
    /// The line from this key on.
    here: Keys<'a>,
}

impl<'a> Sought<'a> {
    /// The line behind this key.
    pub(super) fn behind(&self) -> Keys<'a> {
        let mut keys = self.here;
        keys.next();
        keys
    }
}

impl<'a> Ahead<'a> {
    pub(super) fn of(mut keys: Keys<'a>) -> Self {
        let here = keys;
        let mut ahead = Self {
            keys: here,
            // Not `[None; SPACE]`, which would be copied from somewhere.
            sought: array::from_fn(|_| None),
            taken: 0,
            brought: 0,
            read: 0,
            has_failed: false,
        };
        if let Some(Ok(key)) = keys.next()
            && keys.is_empty()
        {
            // Of a single key nothing is known in time.
            let lane = key.hash().lane();
            ahead.sought[0] = Some(Sought { key, lane, place: None, here });
            (ahead.taken, ahead.brought, ahead.keys) = (1, 1, Keys::default());
        }
        ahead
    }

    /// The next key to read.
    #[inline(always)]
    pub(super) fn next<W>(&mut self, node: &Node<W>) -> Option<Result<&Sought<'a>, KeyTooLong>> {
        while self.taken < self.read + SPACE && self.bring_entry(node) {}
        while self.brought < self.taken.min(self.read + STEPS) {
            self.bring_item(node);
        }
        if self.read == self.taken {
            return self.has_failed.then_some(Err(KeyTooLong));
        }
        let sought = self.sought[self.read % SPACE].as_ref();
        self.read += 1;
        sought.map(Ok)
    }

    /// False when there is no other key.
    #[inline(always)]
    fn bring_entry<W>(&mut self, node: &Node<W>) -> bool {
        let here = self.keys;
        let key = match self.keys.next() {
            Some(Ok(key)) => key,
            Some(Err(KeyTooLong)) => {
                (self.has_failed, self.keys) = (true, Keys::default());
                return false;
            }
            None => return false,
        };
        let lane = key.hash().lane();
        let place = Some(node.shards[lane].lock().store().bring_entry(key));
        self.sought[self.taken % SPACE] = Some(Sought { key, lane, place, here });
        self.taken += 1;
        true
    }

    fn bring_item<W>(&mut self, node: &Node<W>) {
        let sought = &mut self.sought[self.brought % SPACE];
        if let Some(Sought { lane, place: Some(place), .. }) = sought {
            node.shards[*lane].lock().store().bring_item(place);
        }
        self.brought += 1;
    }
}
