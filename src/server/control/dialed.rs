//! The control connections that this node dials: one to each peer, over and over. It speaks on them,
//! and sees whether the process at the other end is over.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::Control;
use crate::replication::Incarnation;
use crate::replication::message::{self, Purpose};
use crate::server::channel::Channel;
use crate::server::courier::{Courier, Letter};
use crate::server::frames::{self, BATCH_BYTES, End};
use crate::server::handshake;
use crate::server::net::Net;
use crate::server::no_link::{NoLink, REDIAL_MS, Reasons};
use crate::time::Millis;

/// After the end of a connection a peer is dialed at once, and then soon again, less and less: the
/// port of a process that is just dying resets before it refuses.
const REDIAL_MIN_MS: u64 = 3;

impl<N: Net> Control<N> {
    /// Keeps a connection to the peer, for ever.
    pub(in crate::server) async fn reach(
        self: Rc<Self>,
        peer: usize,
        mut queue: UnboundedReceiver<Letter>,
    ) {
        let mut courier = self.courier();
        let mut told = Reasons::default();
        let mut redial_ms = REDIAL_MIN_MS;
        let mut wanted = self.links.address(peer);
        loop {
            let address = until_wanted(&mut wanted).await;
            let (since, mut pause_ms) = (self.links.local(), redial_ms);
            let was_beside = self.links.am_beside();
            match handshake::dial(address, peer, &self.greeting, Purpose::Control).await {
                Ok((stream, hello)) => {
                    told.clear();
                    redial_ms = REDIAL_MIN_MS;
                    // Nobody has heard what was said before, and it is said again.
                    while queue.try_recv().is_ok() {}
                    self.peer(peer).dialed.set(Some(hello.incarnation));
                    self.meet(peer, &hello, &mut courier);
                    self.update(peer);
                    let present = (hello.incarnation, was_beside);
                    let end = self.talk(peer, stream, present, &mut queue).await;
                    tracing::debug!(peer = self.name(peer), %end, "outgoing control link ended");
                    self.peer(peer).dialed.set(None);
                    self.update(peer);
                }
                Err(error) => {
                    pause_ms = error.pause_ms(redial_ms);
                    if matches!(error, NoLink::Nobody) {
                        self.refused(peer, &mut courier);
                    }
                    if let NoLink::NotAPeer(why, _) = &error {
                        self.node.refusals().of(*why).add(1);
                    }
                    if let Some(reason) = told.news(&error) {
                        tracing::info!(peer = self.name(peer), %address, reason, "cannot reach peer");
                    }
                }
            }
            self.pause(peer, since, pause_ms).await;
            redial_ms = (redial_ms * 2).min(REDIAL_MS);
        }
    }

    /// Nobody listens there. Only of the life that ended, so that a younger one, which has dialed
    /// before it listened, is not taken for dead with it.
    fn refused(&self, peer: usize, courier: &mut Courier) {
        let ended = self.peer(peer).ended.get().filter(|life| self.links.is_life(peer, *life));
        if self.links.address(peer).borrow().is_none() {
            // While it was dialed, it has become known that it is elsewhere, or not of the group.
        } else if self.links.is_beside(peer) {
            self.refused_beside(peer, ended, courier);
        } else if !self.is_witness {
            let now = self.links.now(&self.node);
            self.node.refused(self.name(peer), ended.is_some(), now, courier);
        } else if ended.is_some() {
            self.log.tell(|log| log.peer_dead(self.name(peer)));
        }
    }

    /// Whatever did not work for long is not tried again at once, unless there is news.
    async fn pause(&self, peer: usize, since: Millis, pause_ms: u64) {
        let pause_ms = pause_ms.saturating_sub(self.links.local().since(since));
        if pause_ms > 0 {
            tokio::select! {
                () = sleep(Duration::from_millis(pause_ms)) => {}
                () = self.links.control_woken(peer) => {}
            }
        }
    }

    /// Sends until the connection ends. The peer says nothing here, so reading only finds the end.
    async fn talk(
        &self,
        peer: usize,
        mut stream: Channel<N::Stream>,
        (life, was_beside): (Incarnation, bool),
        queue: &mut UnboundedReceiver<Letter>,
    ) -> End {
        let mut batch = Vec::new();
        let mut nothing = [0; 1];
        loop {
            batch.clear();
            tokio::select! {
                letter = queue.recv() => match letter {
                    Some(letter) => collect(letter, life, queue, &mut batch),
                    None => return End::Closed,
                },
                () = self.links.control_woken(peer) => {
                    if !self.links.is_life(peer, life) {
                        return End::Wrong("a newer life of the peer has come");
                    }
                    if self.links.am_beside() != was_beside {
                        return End::Wrong("this node has to say anew who it is");
                    }
                }
                read = stream.read(&mut nothing) => return match read {
                    Ok(0) => End::Closed,
                    Ok(_) => End::Wrong("it speaks where it should listen"),
                    Err(error) => End::Failed(error),
                },
            }
            if let Err(end) = frames::send(&mut stream, &batch).await {
                return end;
            }
        }
    }
}

/// Where a peer is, as soon as it is of the group.
pub(in crate::server) async fn until_wanted(
    address: &mut watch::Receiver<Option<SocketAddr>>,
) -> SocketAddr {
    match address.wait_for(Option::is_some).await.map(|address| *address) {
        Ok(Some(address)) => address,
        // The other end is for as long as the process.
        _ => std::future::pending().await,
    }
}

/// Everything that is queued for this life goes into one write, up to a bound.
fn collect(
    first: Letter,
    life: Incarnation,
    queue: &mut UnboundedReceiver<Letter>,
    batch: &mut Vec<u8>,
) {
    let mut next = Some(first);
    while let Some((to, message)) = next {
        if to == life {
            message::encode(&message, batch);
        }
        if batch.len() >= BATCH_BYTES {
            return;
        }
        next = queue.try_recv().ok();
    }
}
