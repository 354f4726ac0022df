//! Items in numbered slots, linked from the most to the least recently used.
//!
//! A slot is a number into a vector, never a pointer. Knows nothing of keys' hashes or of time.

use crate::time::Deadline;
use crate::version::Version;

/// The number of a slot.
pub(super) type SlotId = u32;

const NONE: SlotId = SlotId::MAX;

/// One item. Key and value lie in one allocation, the key first.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) version: Version,
    pub(super) cas: u64,
    pub(super) deadline: Deadline,
    pub(super) flags: u32,
    pub(super) key_len: u8,
    pub(super) fetched: bool,
    /// Of the last use, in seconds of local time.
    pub(super) used_s: u32,
    pub(super) data: Box<[u8]>,
}

impl Slot {
    pub(super) fn key(&self) -> &[u8] {
        &self.data[..usize::from(self.key_len)]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.data[usize::from(self.key_len)..]
    }
}

#[derive(Debug)]
struct Node {
    newer: SlotId,
    older: SlotId,
    slot: Option<Slot>,
}

/// All slots of one store.
#[derive(Debug)]
pub(super) struct Slots {
    nodes: Vec<Node>,
    free: SlotId,
    newest: SlotId,
    oldest: SlotId,
    len: usize,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, newest: NONE, oldest: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many slot numbers have been in use so far.
    pub(super) fn end(&self) -> SlotId {
        self.nodes.len() as SlotId
    }

    /// Bytes that the next insert allocates for slots; 0 when one is free.
    pub(super) fn growth(&self) -> usize {
        let full = self.free == NONE && self.nodes.len() == self.nodes.capacity();
        if full { self.step() * size_of::<Node>() } else { 0 }
    }

    /// An eighth at a time: doubling would leave up to half of a large table unused.
    fn step(&self) -> usize {
        self.nodes.len() / 8 + 64
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.nodes.get(id as usize)?.slot.as_ref()
    }

    /// The slot that the index points at.
    pub(super) fn at(&self, id: SlotId) -> &Slot {
        self.get(id).expect("the index points only at used slots")
    }

    pub(super) fn at_mut(&mut self, id: SlotId) -> &mut Slot {
        self.nodes[id as usize].slot.as_mut().expect("the index points only at used slots")
    }

    pub(super) fn oldest(&self) -> Option<SlotId> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn insert(&mut self, slot: Slot) -> SlotId {
        let id = if self.free == NONE {
            if self.nodes.len() == self.nodes.capacity() {
                self.nodes.reserve_exact(self.step());
            }
            self.nodes.push(Node { newer: NONE, older: NONE, slot: None });
            self.nodes.len() as SlotId - 1
        } else {
            let id = self.free;
            self.free = self.nodes[id as usize].older;
            id
        };
        self.nodes[id as usize].slot = Some(slot);
        self.len += 1;
        self.link_newest(id);
        id
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Slot {
        self.unlink(id);
        let node = &mut self.nodes[id as usize];
        node.older = self.free;
        self.free = id;
        self.len -= 1;
        node.slot.take().expect("only a used slot is removed")
    }

    /// Makes it the most recently used.
    pub(super) fn bump(&mut self, id: SlotId) {
        if self.newest != id {
            self.unlink(id);
            self.link_newest(id);
        }
    }

    fn link_newest(&mut self, id: SlotId) {
        let second = self.newest;
        self.nodes[id as usize].newer = NONE;
        self.nodes[id as usize].older = second;
        match self.nodes.get_mut(second as usize) {
            Some(second) => second.newer = id,
            None => self.oldest = id,
        }
        self.newest = id;
    }

    fn unlink(&mut self, id: SlotId) {
        let Node { newer, older, .. } = self.nodes[id as usize];
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}
