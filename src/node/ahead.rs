//! Looks at the keys of a get, or of the next messages of a peer, some steps ahead, so that memory is
//! on its way when its turn comes.
//!
//! Each key is taken off the line, and hashed, once. A shard's lock is taken three times for it,
//! which costs far less than one wait for memory. Prefetches are hints: they go on behind a lock,
//! where loads would have to end first.

use std::array;

use super::Node;
use crate::key::Key;
use crate::protocol::{KeyTooLong, Keys};
use crate::replication::message::{LaneMessage, Message};
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

/// So many messages of a peer are looked at before the first of them is worked off: their items fit
/// the nearest cache.
pub const LOOK_AHEAD: usize = 16;

impl<W> Node<W> {
    /// Messages that are about to come to `receive`, at most `LOOK_AHEAD` of them.
    pub fn look_ahead(&self, messages: &[Message]) {
        if messages.len() < 2 {
            // Of a single one nothing is known in time.
            return;
        }
        let mut places = [const { None }; LOOK_AHEAD];
        for (message, place) in messages.iter().zip(&mut places) {
            *place = key_of(message).map(|key| {
                let lane = key.hash().lane();
                (lane, self.shards[lane].lock().store().bring_entry_to_change(key))
            });
        }
        for (lane, place) in places.iter_mut().flatten() {
            self.shards[*lane].lock().store().bring_item(place);
        }
    }
}

/// The key whose item it is about.
fn key_of(message: &Message) -> Option<Key<'_>> {
    let Message::Lane(_, _, message) = message else {
        return None;
    };
    match message {
        LaneMessage::Fwd(fwd) => Key::new(&fwd.key),
        LaneMessage::Apply(apply) => Key::new(&apply.record.key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::node::tests::Single;
    use crate::record::Mutation;
    use crate::replication::message::Fwd;
    use crate::version::Epoch;

    fn read(key: &[u8]) -> Message {
        let key = Bytes::copy_from_slice(key);
        let fwd = Fwd { counter: 1, done_up_to: 0, until: None, key, mutation: Mutation::Read };
        Message::Lane(0, Epoch(1), LaneMessage::Fwd(fwd))
    }

    #[test]
    fn a_look_ahead_takes_whatever_a_peer_says_and_changes_nothing() {
        let single = Single::new(true);
        assert_eq!(single.says("set here 0 0 1\r\nx\r\n"), "STORED\r\n");
        let keys: [&[u8]; 5] = [b"here", b"absent", b"", &[b'k'; 251], b"here"];
        let messages: Vec<_> = keys.into_iter().cycle().take(2 * LOOK_AHEAD).map(read).collect();
        for count in [0, 1, 2, LOOK_AHEAD, messages.len()] {
            single.node.look_ahead(&messages[..count]);
        }
        assert_eq!(single.says("mn\r\nme here\r\n").matches("fetch=no").count(), 1);
    }
}
