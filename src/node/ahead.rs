//! Looks at the keys of a get some steps ahead, so that memory is on its way when its turn comes.
//!
//! A shard's lock is taken three times for a key then, which costs far less than one wait for
//! memory. Prefetches are hints: they go on behind a lock, where loads would have to end first.

use super::Node;
use crate::protocol::Keys;

/// See the module.
pub(super) struct Ahead<'a> {
    entries: Keys<'a>,
    items: Keys<'a>,
}

impl<'a> Ahead<'a> {
    /// Steps between a look at the index and one at the item, and between that and the read.
    const STEPS: usize = 4;

    pub(super) fn of<W>(node: &Node<W>, keys: &Keys<'a>) -> Self {
        let mut ahead = Self { entries: keys.clone(), items: keys.clone() };
        // Of a single key nothing is known in time.
        if keys.clone().nth(1).is_none() {
            (ahead.entries, ahead.items) = (Keys::default(), Keys::default());
        }
        (0..2 * Self::STEPS).for_each(|_| ahead.bring_entry(node));
        (0..Self::STEPS).for_each(|_| ahead.bring_item(node));
        ahead
    }

    /// One key further.
    pub(super) fn step<W>(&mut self, node: &Node<W>) {
        self.bring_entry(node);
        self.bring_item(node);
    }

    fn bring_entry<W>(&mut self, node: &Node<W>) {
        if let Some(Ok(key)) = self.entries.next() {
            node.shards[key.hash().lane()].lock().store().bring_entry(key);
        }
    }

    fn bring_item<W>(&mut self, node: &Node<W>) {
        if let Some(Ok(key)) = self.items.next() {
            node.shards[key.hash().lane()].lock().store().bring_item(key);
        }
    }
}
