//! The control connections that peers dial: whoever proves to belong here is let in, and heard.

use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::task::spawn_local;
use tokio::time::{Duration, sleep};

use super::Control;
use crate::replication::message::{Message, Purpose};
use crate::replication::{Hello, Incarnation};
use crate::server::channel::Channel;
use crate::server::courier::Courier;
use crate::server::data::Visitor;
use crate::server::frames::{End, Incoming};
use crate::server::handshake::{self, Heard};
use crate::server::net::Net;
use crate::server::no_link::REDIAL_MS;
use crate::stats::Refusal;

impl<N: Net> Control<N> {
    pub(in crate::server) async fn accept(self: Rc<Self>, listener: N::Listener) {
        loop {
            match self.greeting.net.accept(&listener).await {
                Ok((stream, address)) => {
                    let number = self.door.number();
                    let visitor = Rc::clone(&self).ask(number, stream, address);
                    let task = spawn_local(visitor).abort_handle();
                    if let Some(address) = self.door.enter(number, address, task) {
                        self.refuse(address, Refusal::Crowded, "others are waiting too");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer");
                    sleep(Duration::from_millis(REDIAL_MS)).await;
                }
            }
        }
    }

    /// Asks somebody who has dialed who it is.
    async fn ask(self: Rc<Self>, number: u64, stream: N::Stream, address: SocketAddr) {
        let heard = handshake::hear(stream, &self.greeting).await;
        self.door.leave(number);
        match heard {
            Ok(heard) => self.welcome(heard, address).await,
            Err(error) => match error.refusal() {
                Some(why) => self.refuse(address, why, &error),
                None => tracing::debug!(%address, %error, "connection lost"),
            },
        }
    }

    fn refuse(&self, address: SocketAddr, why: Refusal, reason: impl Display) {
        let now = self.links.local();
        let counts = self.node.refusals();
        if let Some(untold) = self.door.refuse(address.ip(), why, counts, now) {
            tracing::warn!(%address, %reason, untold, "peer refused");
        }
    }

    /// Somebody belongs here, and has proven it.
    async fn welcome(self: Rc<Self>, mut heard: Heard<N::Stream>, address: SocketAddr) {
        if let Some(position) = heard.hello.purpose.position() {
            if self.is_witness {
                let _ = handshake::refuse(&mut heard, "a witness holds no data").await;
                return;
            }
            self.links.meet(heard.peer, heard.hello.incarnation);
            match N::leave(heard.channel.stream()) {
                Ok(()) => drop(self.visitors.send(Visitor { heard, position })),
                Err(error) => tracing::warn!(%address, %error, "connection lost"),
            }
            return;
        }
        let said = handshake::welcome(&mut heard, &self.greeting, Purpose::Control).await;
        if let Err(error) = said {
            tracing::debug!(%address, %error, "incoming control link ended");
            return;
        }
        let Heard { peer, hello, channel, .. } = heard;
        let reader = spawn_local(Rc::clone(&self).listen(peer, hello, channel));
        if let Some(older) = self.peer(peer).reader.replace(Some(reader.abort_handle())) {
            older.abort();
        }
    }

    /// Listens until the connection ends, is silent for too long, or says something wrong.
    async fn listen(self: Rc<Self>, peer: usize, hello: Hello, stream: Channel<N::Stream>) {
        let (life, mut courier) = (hello.incarnation, self.courier());
        let connection = self.connections.get() + 1;
        self.connections.set(connection);
        let state = self.peer(peer);
        state.ended.set(None);
        state.accepted.set(Some((connection, life)));
        self.meet(peer, &hello, &mut courier);
        self.update(peer);
        let mut incoming = Incoming::new(stream, self.greeting.frame_max());
        let end = loop {
            let end = match incoming.read().await {
                Ok(_) => self.hear(peer, life, &mut incoming, &mut courier).err(),
                Err(end) => Some(end),
            };
            if let Some(end) = end {
                break end;
            }
        };
        match end {
            End::Bad(_) | End::Wrong(_) => {
                tracing::error!(peer = self.name(peer), reason = %end, "control link dropped");
            }
            _ => tracing::debug!(peer = self.name(peer), %end, "incoming control link ended"),
        }
        if state.accepted.get().is_some_and(|(present, _)| present == connection) {
            state.accepted.set(None);
            state.ended.set(matches!(end, End::Closed).then_some(life));
            self.update(peer);
            // If its process is over, its port says so now.
            self.links.wake_control(peer);
        }
    }

    fn hear(
        &self,
        peer: usize,
        life: Incarnation,
        incoming: &mut Incoming<Channel<N::Stream>>,
        courier: &mut Courier,
    ) -> Result<(), End> {
        while let Some(message) = incoming.next()? {
            match message {
                Message::Log(_) if self.links.is_beside(peer) => {}
                Message::Log(frame) => self.log.tell(|log| log.receive(self.name(peer), frame)),
                Message::Beat(_) | Message::View(_) if self.is_witness => {}
                Message::Beat(_) | Message::View(_) => {
                    let now = self.links.now(&self.node);
                    let heard = self.node.receive(life, message, now, courier);
                    heard.map_err(|violation| End::Wrong(violation.0))?;
                }
                _ => return Err(End::Wrong("a message that has no place on a control link")),
            }
        }
        Ok(())
    }
}
