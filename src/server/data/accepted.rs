//! The data connections that peers dial: what they say is worked off, each message once.

use std::rc::Rc;

use tokio::task::spawn_local;

use super::{Data, Peer, Visitor};
use crate::node::LOOK_AHEAD;
use crate::replication::Incarnation;
use crate::replication::link::Opened;
use crate::replication::message::{Message, Purpose, Received};
use crate::server::channel::Channel;
use crate::server::courier::Courier;
use crate::server::frames::{End, Incoming};
use crate::server::handshake::{self, Heard};
use crate::server::net::Net;
use crate::time::Now;

/// How much has come over is told at once when the peer keeps about so much for no other reason.
const UNTOLD_BYTES: usize = 1 << 20;

impl<N: Net> Data<N> {
    /// A peer wants to speak.
    pub(super) fn admit(self: &Rc<Self>, visitor: Visitor<N::Stream>) {
        let Visitor { mut heard, position } = visitor;
        let peer = heard.peer;
        if let Err(error) = N::join(heard.channel.stream()) {
            tracing::warn!(peer = self.name(peer), %error, "connection lost");
            return;
        }
        self.turn_to(peer, heard.hello.incarnation);
        let reader = spawn_local(Rc::clone(self).listen(heard, position.session));
        let older = self.peer(peer).reader.replace(Some(reader.abort_handle()));
        if let Some(older) = older {
            older.abort();
        }
    }

    async fn listen(self: Rc<Self>, mut heard: Heard<N::Stream>, session: u64) {
        let (peer, life) = (heard.peer, heard.hello.incarnation);
        let name = self.name(peer);
        let position = match self.peer(peer).inbox.borrow_mut().open(session) {
            Opened::After(position) => position,
            Opened::Anew(position) => {
                tracing::error!(peer = name, "messages of a peer were lost");
                position
            }
            Opened::Stale => return,
        };
        let said = handshake::welcome(&mut heard, &self.greeting, Purpose::Data(position)).await;
        if let Err(error) = said {
            tracing::debug!(peer = name, %error, "incoming link ended");
            return;
        }
        let mut courier = self.courier();
        let incoming = Incoming::new(heard.channel, self.greeting.frame_max());
        let end = self.hear(peer, life, position, incoming, &mut courier).await;
        match end {
            End::Bad(_) | End::Wrong(_) => {
                tracing::error!(peer = name, reason = %end, "link dropped");
            }
            _ => tracing::debug!(peer = name, %end, "incoming link ended"),
        }
    }

    /// Passes on what is said, until the end.
    async fn hear(
        &self,
        peer: usize,
        life: Incarnation,
        mut at: Received,
        mut incoming: Incoming<Channel<N::Stream>>,
        courier: &mut Courier,
    ) -> End {
        let state = self.peer(peer);
        let (mut untold, mut messages) = (0, Vec::with_capacity(LOOK_AHEAD));
        loop {
            match incoming.read().await {
                Ok(bytes) => untold += bytes,
                Err(end) => return end,
            }
            if !self.links.is_life(peer, life) {
                return End::Closed;
            }
            if !self.has_news.get() {
                self.stirred.notify_one();
            }
            let now = self.links.now(&self.node);
            loop {
                let some = incoming.next_some(LOOK_AHEAD, &mut messages);
                self.node.look_ahead(&messages);
                let is_over = messages.is_empty();
                for message in messages.drain(..) {
                    if let Err(end) = self.pass_on(message, &state, life, &mut at, now, courier) {
                        return end;
                    }
                }
                match some {
                    Ok(()) if is_over => break,
                    Ok(()) => {}
                    Err(end) => return end,
                }
            }
            if untold >= UNTOLD_BYTES {
                untold = 0;
                state.tell.notify_one();
            }
        }
    }

    /// One message of a peer; `at` is how much of its session has come over.
    fn pass_on(
        &self,
        message: Message,
        state: &Peer,
        life: Incarnation,
        at: &mut Received,
        now: Now,
        courier: &mut Courier,
    ) -> Result<(), End> {
        match message {
            Message::Received(received) => state.outbox.borrow_mut().received(received),
            Message::Lane(..) => {
                at.up_to += 1;
                let taken = state.inbox.borrow_mut().take(at.session, at.up_to);
                if taken.map_err(|_| End::Wrong("a message is missing"))? {
                    let received = self.node.receive(life, message, now, courier);
                    received.map_err(|rule| End::Wrong(rule.0))?;
                }
            }
            _ => return Err(End::Wrong("a message that has no place on a link of data")),
        }
        Ok(())
    }
}
