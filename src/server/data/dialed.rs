//! The data connections that this node dials: one to each peer, over and over. What waits for the peer
//! is sent on it, and how much of the peer's session has come over.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::{Data, Peer, ticks};
use crate::replication::message::{self, Message, Purpose};
use crate::replication::{Hello, Incarnation};
use crate::server::channel::Channel;
use crate::server::control::until_wanted;
use crate::server::courier::Parcel;
use crate::server::frames::{self, BATCH_BYTES, End};
use crate::server::handshake;
use crate::server::net::Net;
use crate::server::no_link::{NoLink, REDIAL_MS, Reasons};

/// So often others have their turn before what has come together is sent.
const GATHER_TURNS: usize = 8;
/// What has come over is told at least this often, if there was nothing to tell it with...
const TELL: Duration = Duration::from_millis(50);
/// ... and this often when nothing has, so that the peer knows that the connection lives.
const KEEP_ALIVE_MS: u64 = 500;

/// Keeps one outgoing connection alive and sends what waits for the peer.
pub(super) struct Dialer<N: Net> {
    data: Rc<Data<N>>,
    peer: usize,
    state: Rc<Peer>,
    address: watch::Receiver<Option<SocketAddr>>,
    queue: UnboundedReceiver<Parcel>,
    /// When something was last sent.
    spoke: u64,
}

impl<N: Net> Dialer<N> {
    pub(super) fn new(data: &Rc<Data<N>>, peer: usize, queue: UnboundedReceiver<Parcel>) -> Self {
        let (state, address) = (data.peer(peer), data.links.address(peer));
        Self { data: Rc::clone(data), peer, state, address, queue, spoke: 0 }
    }

    pub(super) async fn run(mut self) {
        let data = Rc::clone(&self.data);
        let mut told = Reasons::default();
        loop {
            let address = self.until_wanted().await;
            let (since, mut pause_ms) = (data.links.local(), REDIAL_MS);
            let position = self.state.outbox.borrow().position();
            let purpose = Purpose::Data(position);
            let dial = handshake::dial(address, self.peer, &data.greeting, purpose);
            match self.meanwhile(dial).await {
                Ok((stream, hello)) => {
                    told.clear();
                    let life = hello.incarnation;
                    data.links.meet(self.peer, life);
                    data.turn_to(self.peer, life);
                    let end = match self.resume(&hello) {
                        Ok(session) => self.talk(stream, life, session).await,
                        Err(end) => end,
                    };
                    tracing::debug!(peer = data.name(self.peer), %end, "outgoing link ended");
                }
                // The control link says so already.
                Err(NoLink::Nobody) => {}
                Err(error) => {
                    pause_ms = error.pause_ms(REDIAL_MS);
                    if let Some(reason) = told.news(&error) {
                        tracing::info!(peer = data.name(self.peer), reason, "no link of data");
                    }
                }
            }
            let pause_ms = pause_ms.saturating_sub(data.links.local().since(since));
            if pause_ms > 0 {
                let peer = self.peer;
                let pause = async {
                    tokio::select! {
                        () = sleep(Duration::from_millis(pause_ms)) => {}
                        () = data.links.data_woken(peer) => {}
                    }
                };
                self.meanwhile(pause).await;
            }
            // It has nothing to hear here; a life of it that has would be met.
            while data.links.is_witness(self.peer) {
                let peer = self.peer;
                self.meanwhile(data.links.data_woken(peer)).await;
            }
        }
    }

    /// Where the peer is, as soon as it is of the group.
    async fn until_wanted(&mut self) -> SocketAddr {
        let mut address = self.address.clone();
        let is_gone = address.borrow().is_none();
        if is_gone && self.data.links.is_beside(self.peer) {
            // The other link of that name is in use.
            self.data.forget(self.peer);
        }
        self.meanwhile(until_wanted(&mut address)).await
    }

    /// Takes parcels in as long as that lasts, so that the bound on what waits is kept.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                Some(parcel) = self.queue.recv() => self.data.keep(self.peer, &self.state, parcel),
            }
        }
    }

    /// Goes on after what the peer has, if it speaks of the present session.
    fn resume(&self, hello: &Hello) -> Result<u64, End> {
        let Some(received) = hello.purpose.position() else {
            return Err(End::Wrong("it answers to something else"));
        };
        match self.state.outbox.borrow_mut().resume(received) {
            Some(Ok(())) => Ok(received.session),
            Some(Err(broken)) => {
                self.data.report(self.peer, &self.state, broken);
                Err(End::Wrong("it has forgotten the session"))
            }
            None => Err(End::Wrong("a new session has begun")),
        }
    }

    /// Sends until the connection ends. The peer says nothing here, so reading only finds the end.
    async fn talk(
        &mut self,
        mut stream: Channel<N::Stream>,
        life: Incarnation,
        session: u64,
    ) -> End {
        let data = Rc::clone(&self.data);
        let state = Rc::clone(&self.state);
        let (mut batch, mut nothing) = (Vec::new(), [0; 1]);
        let (mut tell, mut is_time) = (ticks(TELL), false);
        loop {
            self.gather().await;
            // Not before: what was gathered may have been for another life or session.
            if state.life.get() != Some(life) || !data.links.is_life(self.peer, life) {
                return End::Wrong("a newer life of the peer has come");
            }
            if state.outbox.borrow().position().session != session {
                return End::Wrong("a new session has begun");
            }
            batch.clear();
            self.collect(&mut batch);
            if is_time {
                self.tell(&mut batch);
            }
            is_time = false;
            if !batch.is_empty() {
                if let Err(end) = self.meanwhile(frames::send(&mut stream, &batch)).await {
                    return end;
                }
                self.spoke = data.links.local().0;
                continue;
            }
            tokio::select! {
                Some(parcel) = self.queue.recv() => data.keep(self.peer, &state, parcel),
                _ = tell.tick() => is_time = true,
                () = state.tell.notified() => is_time = true,
                () = data.links.data_woken(self.peer) => {}
                read = stream.read(&mut nothing) => return match read {
                    Ok(0) => End::Closed,
                    Ok(_) => End::Wrong("it speaks where it should listen"),
                    Err(error) => End::Failed(error),
                },
            }
        }
    }

    /// Takes what waits. Where that is more than one thing there is much to do, and a write costs as
    /// much as many commands: then whoever is heard by now has a turn before it, so that what comes
    /// of that goes along.
    async fn gather(&mut self) {
        let mut parcels = self.take_parcels();
        for _ in 0..GATHER_TURNS {
            if parcels < 2 {
                return;
            }
            tokio::task::yield_now().await;
            match self.take_parcels() {
                0 => return,
                more => parcels += more,
            }
        }
    }

    fn take_parcels(&mut self) -> usize {
        let mut count = 0;
        while let Ok(parcel) = self.queue.try_recv() {
            self.data.keep(self.peer, &self.state, parcel);
            count += 1;
        }
        count
    }

    /// Everything that waits goes into one write, up to a bound.
    fn collect(&mut self, batch: &mut Vec<u8>) {
        let state = &self.state;
        let mut outbox = state.outbox.borrow_mut();
        while batch.len() < BATCH_BYTES
            && let Some(packet) = outbox.next_unsent()
        {
            batch.extend_from_slice(&packet.0);
        }
        // News of what has come over never goes alone, but for those told at their time.
        if !batch.is_empty()
            && let Some(received) = state.inbox.borrow_mut().tell()
        {
            message::encode(&Message::Received(received), batch);
        }
    }

    /// How much has come over, if that is news or nothing was said for long.
    fn tell(&self, batch: &mut Vec<u8>) {
        let mut inbox = self.state.inbox.borrow_mut();
        let is_quiet = self.data.links.local().0.saturating_sub(self.spoke) >= KEEP_ALIVE_MS;
        let received = inbox.tell().or_else(|| is_quiet.then(|| inbox.position()));
        if let Some(received) = received {
            message::encode(&Message::Received(received), batch);
        }
    }
}
