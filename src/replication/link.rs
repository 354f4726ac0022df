//! Sessions between two lives: what one sends, the other gets exactly once and in order, whatever
//! connections break in between.
//!
//! Messages are numbered from 1. The sender keeps each until it is acknowledged; on a new
//! connection the receiver says how far it has come, and the sender goes on from there. Knows
//! neither connections nor time, nor what is in the messages.

use std::collections::VecDeque;

use super::message::{Packet, Received};

/// What a message takes beside its bytes, about.
const MESSAGE_BYTES: usize = 96;

/// The sender's half of a session.
///
/// A session ends early only when more waits than may. Its messages are lost then, and both sides
/// know: the sender by `Broken`, the receiver by the new number. Nothing that matters is lost
/// silently: requests are sent again after a while, and a record that is missing leaves a gap in
/// the dense positions of its stream, which the receiver refuses. It acknowledges nothing from
/// there on, counts as stuck, and is left out by the next view, to be filled anew.
#[derive(Debug)]
pub struct Outbox {
    session: u64,
    /// Everything up to here has come over, and is not kept any more.
    acked: u64,
    /// Up to here it was given to the present connection.
    sent: u64,
    waiting: VecDeque<Packet>,
    bytes: usize,
    bytes_max: usize,
}

/// What waits in an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages that are not known to have come over.
    pub messages: usize,
    /// The memory that they keep, about.
    pub bytes: usize,
    /// So much may be kept.
    pub bytes_max: usize,
}

/// So many messages were lost; a new session has begun, which needs a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Those that are not known to have come over.
    pub messages: usize,
}

impl Outbox {
    /// An empty one. `session` has to be higher than any former one between the same two lives.
    pub fn new(session: u64, bytes_max: usize) -> Self {
        Self { session, acked: 0, sent: 0, waiting: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// What to say of it on a new connection.
    pub fn position(&self) -> Received {
        Received { session: self.session, up_to: self.acked }
    }

    /// How much is kept until it has come over.
    pub fn load(&self) -> Load {
        Load { messages: self.waiting.len(), bytes: self.bytes, bytes_max: self.bytes_max }
    }

    /// Adds a message. Too much: all that waits is lost, this one included.
    pub fn push(&mut self, packet: Packet) -> Result<(), Broken> {
        self.bytes += weight(&packet);
        self.waiting.push_back(packet);
        if self.bytes > self.bytes_max { Err(self.start_over()) } else { Ok(()) }
    }

    /// A new connection goes on after what the receiver has. The outer `None`: it speaks of
    /// another session, so that the connection is of no use.
    pub fn resume(&mut self, received: Received) -> Option<Result<(), Broken>> {
        if received.session != self.session {
            return None;
        }
        let last = self.acked + self.waiting.len() as u64;
        if !(self.acked..=last).contains(&received.up_to) {
            // A receiver that has forgotten, or makes things up.
            return Some(Err(self.start_over()));
        }
        self.forget(received.up_to);
        self.sent = self.acked;
        Some(Ok(()))
    }

    /// The next message for the present connection.
    pub fn next_unsent(&mut self) -> Option<&Packet> {
        let packet = self.waiting.get((self.sent - self.acked) as usize)?;
        self.sent += 1;
        Some(packet)
    }

    /// The receiver has so much; what it says of another session is nothing.
    ///
    /// A former connection may have brought it more than it knew when it answered the present one's
    /// hello. That goes over again all the same: it counts what comes from what it said there.
    pub fn received(&mut self, received: Received) {
        if received.session == self.session {
            self.forget(received.up_to.min(self.sent));
        }
    }

    fn forget(&mut self, up_to: u64) {
        while self.acked < up_to {
            self.acked += 1;
            if let Some(packet) = self.waiting.pop_front() {
                self.bytes -= weight(&packet);
            }
        }
    }

    fn start_over(&mut self) -> Broken {
        let messages = self.waiting.len();
        *self = Self::new(self.session + 1, self.bytes_max);
        Broken { messages }
    }
}

/// The receiver's half.
#[derive(Debug, Default)]
pub struct Inbox {
    session: u64,
    received: u64,
    /// So much the sender was told of.
    told: u64,
}

/// What becomes of a connection that brings a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It goes on after this.
    After(Received),
    /// The same, and messages of the session before were lost.
    Anew(Received),
    /// It is late: there was a newer session already.
    Stale,
}

/// A message is missing: the connection is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl Inbox {
    /// The sender has a new connection, and this session.
    pub fn open(&mut self, session: u64) -> Opened {
        if session < self.session {
            return Opened::Stale;
        }
        // Of a session that nothing had come of, only its sender knows what was lost.
        let is_anew = session > self.session && self.received > 0;
        if session > self.session {
            *self = Self { session, ..Self::default() };
        }
        if is_anew { Opened::Anew(self.position()) } else { Opened::After(self.position()) }
    }

    /// Whether the message of this number is new; else it has come before, on another connection.
    pub fn take(&mut self, session: u64, number: u64) -> Result<bool, Gap> {
        if session != self.session || number > self.received + 1 {
            return Err(Gap);
        }
        let is_new = number == self.received + 1;
        self.received += u64::from(is_new);
        Ok(is_new)
    }

    /// How far it has come.
    pub fn position(&self) -> Received {
        Received { session: self.session, up_to: self.received }
    }

    /// How far it has come, which the caller is about to say; `None` when that is no news.
    pub fn tell(&mut self) -> Option<Received> {
        let is_news = self.told < self.received;
        self.told = self.received;
        is_news.then(|| self.position())
    }
}

/// The memory that it keeps, about.
fn weight(packet: &Packet) -> usize {
    MESSAGE_BYTES + packet.0.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message that can be told apart from the others.
    fn message(n: u64) -> Packet {
        Packet(n.to_le_bytes().to_vec().into())
    }

    fn number_of(packet: &Packet) -> u64 {
        u64::from_le_bytes(packet.0[..].try_into().unwrap())
    }

    /// One connection: what is on its way, and how the receiver counts.
    struct Connection {
        session: u64,
        counted: u64,
        wire: VecDeque<Packet>,
    }

    fn connect(outbox: &mut Outbox, inbox: &mut Inbox) -> Connection {
        let session = outbox.position().session;
        let Opened::After(position) = inbox.open(session) else { panic!("a new session") };
        assert_eq!(outbox.resume(position), Some(Ok(())));
        Connection { session, counted: position.up_to, wire: VecDeque::new() }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Send(u8),
        Arrive(u8),
        /// An ack is written; it may get lost.
        Ack(bool),
        /// The receiver has not noticed yet: what is on the way may still come, after the new
        /// connection's hello.
        Reconnect(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u8..5).prop_map(Step::Push),
            (1u8..5).prop_map(Step::Send),
            (1u8..5).prop_map(Step::Arrive),
            any::<bool>().prop_map(Step::Ack),
            (0u8..5).prop_map(Step::Reconnect),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn arrive(connection: &mut Connection, inbox: &mut Inbox, seen: &mut Vec<u64>, count: u8) {
        for message in (0..count).map_while(|_| connection.wire.pop_front()) {
            connection.counted += 1;
            if inbox.take(connection.session, connection.counted) == Ok(true) {
                seen.push(number_of(&message));
            }
        }
    }

    proptest! {
        #[test]
        fn each_message_arrives_once_and_in_order(steps in steps()) {
            let (mut outbox, mut inbox) = (Outbox::new(1, 1 << 20), Inbox::default());
            let mut connection = connect(&mut outbox, &mut inbox);
            let (mut pushed, mut seen) = (0, Vec::new());
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        pushed += 1;
                        prop_assert_eq!(outbox.push(message(pushed)), Ok(()));
                    },
                    Step::Send(count) => for _ in 0..count {
                        connection.wire.extend(outbox.next_unsent().cloned());
                    },
                    Step::Arrive(count) => arrive(&mut connection, &mut inbox, &mut seen, count),
                    Step::Ack(arrives) => {
                        if let Some(ack) = inbox.tell().filter(|_| arrives) {
                            outbox.received(ack);
                        }
                    }
                    Step::Reconnect(late) => {
                        let mut old = connection;
                        connection = connect(&mut outbox, &mut inbox);
                        arrive(&mut old, &mut inbox, &mut seen, late);
                    }
                }
            }
            connection = connect(&mut outbox, &mut inbox);
            while let Some(message) = outbox.next_unsent() {
                connection.wire.push_back(message.clone());
            }
            arrive(&mut connection, &mut inbox, &mut seen, u8::MAX);
            arrive(&mut connection, &mut inbox, &mut seen, u8::MAX);
            arrive(&mut connection, &mut inbox, &mut seen, u8::MAX);
            arrive(&mut connection, &mut inbox, &mut seen, u8::MAX);
            prop_assert_eq!(seen, (1..=pushed).collect::<Vec<_>>());
            outbox.received(inbox.position());
            prop_assert!(outbox.waiting.is_empty() && outbox.bytes == 0);
        }
    }

    #[test]
    fn too_much_that_waits_begins_a_new_session_and_both_sides_know() {
        let bytes = 3 * weight(&message(1));
        let (mut outbox, mut inbox) = (Outbox::new(5, bytes), Inbox::default());
        let mut connection = connect(&mut outbox, &mut inbox);
        for n in 1..=3 {
            assert_eq!(outbox.push(message(n)), Ok(()));
        }
        connection.wire.extend(outbox.next_unsent().cloned());
        arrive(&mut connection, &mut inbox, &mut Vec::new(), 1);
        let load = Load { messages: 3, bytes, bytes_max: bytes };
        assert_eq!(outbox.load(), load);
        assert_eq!(outbox.push(message(4)), Err(Broken { messages: 4 }));
        assert_eq!(outbox.next_unsent(), None);
        outbox.push(message(5)).unwrap();
        let position = Received { session: 6, up_to: 0 };
        assert_eq!(inbox.open(outbox.position().session), Opened::Anew(position));
        assert_eq!(outbox.resume(position), Some(Ok(())));
        assert_eq!(outbox.next_unsent(), Some(&message(5)));
        // A connection of the old session that was long on its way.
        assert_eq!(inbox.open(5), Opened::Stale);
        assert_eq!(inbox.take(5, 1), Err(Gap));
    }

    #[test]
    fn a_receiver_that_has_forgotten_gets_a_new_session() {
        let mut outbox = Outbox::new(1, 1 << 20);
        (1..=3).for_each(|n| outbox.push(message(n)).unwrap());
        while outbox.next_unsent().is_some() {}
        outbox.received(Received { session: 1, up_to: 2 });
        let forgotten = Received { session: 1, up_to: 0 };
        assert_eq!(outbox.resume(forgotten), Some(Err(Broken { messages: 1 })));
        assert_eq!(outbox.position(), Received { session: 2, up_to: 0 });
        assert_eq!(outbox.resume(forgotten), None);
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_nothing() {
        let mut outbox = Outbox::new(1, 1 << 20);
        outbox.push(message(1)).unwrap();
        outbox.received(Received { session: 1, up_to: 2 });
        outbox.received(Received { session: 2, up_to: 1 });
        assert_eq!(outbox.next_unsent(), Some(&message(1)));
    }
}
