//! Who can reach whom, and what is on its way.
//!
//! What concerns lanes travels in sessions: in order, once, as late as it may be, while both lives
//! last. Everything else is lost when the way is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;
use rand::rngs::StdRng;
use sessiond::replication::message::{self, Frame};
use sessiond::replication::{Incarnation, Message};

/// The largest frame a node accepts here; as the server computes it for 1 MiB items.
const FRAME_MAX: usize = 2 << 20;

type Pair = (Incarnation, Incarnation);

#[derive(Default)]
pub(crate) struct Network {
    /// Ways that are cut, from host to host.
    cuts: BTreeSet<(usize, usize)>,
    /// Until when what is said about lanes lies on its way, from host to host.
    held_up: BTreeMap<(usize, usize), u64>,
    sessions: BTreeMap<Pair, VecDeque<Message>>,
    /// When the last bytes on each way arrive.
    last: BTreeMap<(Pair, bool), u64>,
}

impl Network {
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn hold_up(&mut self, from: usize, to: usize, until: u64) {
        self.held_up.insert((from, to), until);
    }

    /// The earliest time at which something about lanes arrives.
    pub(crate) fn held_up_until(&self, from: usize, to: usize) -> u64 {
        self.held_up.get(&(from, to)).copied().unwrap_or_default()
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// Whether a connection between two hosts works.
    pub(crate) fn joins(&self, one: usize, other: usize) -> bool {
        self.is_open(one, other) && self.is_open(other, one)
    }

    /// When something sent now arrives: later than all before it on the same connection.
    pub(crate) fn arrival(
        &mut self,
        pair: Pair,
        is_session: bool,
        now: u64,
        rng: &mut StdRng,
    ) -> u64 {
        let delay = match rng.random_range(0..1000) {
            0..800 => rng.random_range(50..400),
            800..990 => rng.random_range(400..3_000),
            _ => rng.random_range(3_000..60_000),
        };
        let last = self.last.entry((pair, is_session)).or_default();
        *last = (now + delay).max(*last + 1);
        *last
    }

    /// Puts a message into its session.
    pub(crate) fn send(&mut self, pair: Pair, message: Message) {
        self.sessions.entry(pair).or_default().push_back(message);
    }

    /// The next message of a session.
    pub(crate) fn receive(&mut self, pair: Pair) -> Option<Message> {
        self.sessions.get_mut(&pair)?.pop_front()
    }

    /// How many messages wait in each session.
    pub(crate) fn waiting(&self) -> Vec<(Pair, usize)> {
        self.sessions.iter().map(|(&pair, queue)| (pair, queue.len())).collect()
    }

    /// A life is over: what it has sent last is lost, and nobody hears what is sent to it.
    pub(crate) fn end(&mut self, life: Incarnation, rng: &mut StdRng) {
        self.sessions.retain(|&(_, to), _| to != life);
        for ((from, _), queue) in &mut self.sessions {
            if *from == life {
                queue.truncate(rng.random_range(0..=queue.len()));
            }
        }
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
