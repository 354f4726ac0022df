//! Connections between processes: in order, with delays, cut off by a crash.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use sessiond::replication::message::{self, Frame};
use sessiond::replication::{Incarnation, Message};

/// The largest frame a node accepts here; as the server computes it for 1 MiB items.
const FRAME_MAX: usize = 2 << 20;

/// When the last bytes on each directed connection arrive.
#[derive(Default)]
pub(crate) struct Network {
    last: BTreeMap<(Incarnation, Incarnation), u64>,
}

impl Network {
    /// When something sent now arrives: later than all before it on the same connection.
    pub(crate) fn arrival(
        &mut self,
        from: Incarnation,
        to: Incarnation,
        now: u64,
        rng: &mut StdRng,
    ) -> u64 {
        let delay = match rng.random_range(0..100) {
            0..70 => rng.random_range(50..400),
            70..98 => rng.random_range(400..3_000),
            _ => rng.random_range(3_000..60_000),
        };
        let last = self.last.entry((from, to)).or_default();
        *last = (now + delay).max(*last + 1);
        *last
    }
}

/// Through the wire format and back, as on a real link.
pub(crate) fn over_the_wire(message: &Message) -> Message {
    let mut wire = Vec::new();
    message::encode(message, &mut wire);
    match message::decode(&wire, FRAME_MAX) {
        Ok(Frame::Message(used, decoded)) if used == wire.len() && decoded == *message => decoded,
        other => panic!("{message:?} became {other:?}"),
    }
}
