//! Looks at messages of a peer before they are worked off, so that the memory of their items is on
//! its way when their turn comes.

use super::Node;
use crate::key::Key;
use crate::replication::message::{LaneMessage, Message};

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
            *place = item_of(message).map(|(lane, key)| {
                (lane, self.shards[lane].lock().store().bring_entry_to_change(key))
            });
        }
        for (lane, place) in places.iter_mut().flatten() {
            self.shards[*lane].lock().store().bring_item(place);
        }
    }
}

/// The item that it is about: its lane, as the sender says, and its key.
fn item_of(message: &Message) -> Option<(usize, Key<'_>)> {
    let (lane, key) = match message {
        Message::Lane(lane, _, LaneMessage::Fwd(fwd)) => (lane, &fwd.key),
        Message::Lane(lane, _, LaneMessage::Apply(apply)) => (lane, &apply.record.key),
        _ => return None,
    };
    Some((usize::from(*lane), Key::new(key)?))
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
        let lane = Key::new(key).map_or(0, |key| key.hash().lane() as u8);
        let key = Bytes::copy_from_slice(key);
        let fwd = Fwd { counter: 1, done_up_to: 0, until: None, key, mutation: Mutation::Read };
        Message::Lane(lane, Epoch(1), LaneMessage::Fwd(fwd))
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
