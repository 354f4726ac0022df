//! The connections for data: messages about lanes, each of which arrives exactly once and in
//! order, whatever becomes of the connection (`replication/link.rs`).
//!
//! Each side dials, and speaks on the connection that it dialed; how much of the other's session
//! has come over goes along. The node does not learn of peers here: who is met, and who is dead, is
//! seen on one thread only, that of the control links. This thread also tells the shards of the
//! time.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use super::channel::Channel;
use super::control::until_wanted;
use super::courier::{Courier, Links, Parcel, Waiter};
use super::frames::{self, BATCH_BYTES, End, Incoming};
use super::guard::Guard;
use super::handshake::{self, Greeting, Heard};
use super::net::{Net, Tcp};
use super::no_link::{NoLink, REDIAL_MS, Reasons};
use super::{PeerOptions, StartError, clock, new_runtime};
use crate::node::{LOOK_AHEAD, Node};
use crate::replication::link::{Broken, Inbox, Opened, Outbox};
use crate::replication::message::{self, Message, Purpose, Received};
use crate::replication::{Hello, Incarnation};
use crate::time::{Millis, Now};

/// How often the shards are told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// How often they take a step for a node that joins, while one does.
const SYNC_TICK: Duration = Duration::from_millis(5);
/// The members learn of commits from the records that follow; where none does, within this.
const NEWS: Duration = Duration::from_millis(5);
/// So often others have their turn before what has come together is sent.
const GATHER_TURNS: usize = 8;
/// What has come over is told at least this often, if there was nothing to tell it with...
const TELL: Duration = Duration::from_millis(50);
/// ... and this often when nothing has, so that the peer knows that the connection lives.
const KEEP_ALIVE_MS: u64 = 500;
/// It is told at once when the peer keeps about so much for no other reason.
const UNTOLD_BYTES: usize = 1 << 20;
/// What may wait for one peer. Clients wait for their writes, so this is many times what can come
/// together while a peer is silent and not left out yet.
const WAITING_BYTES: usize = 64 << 20;
/// But room for some of the largest items, however large they may be.
const WAITING_ITEMS: usize = 16;

/// A connection that was accepted on the thread of the control links.
pub(super) struct Visitor<S> {
    pub(super) heard: Heard<S>,
    pub(super) position: Received,
}

/// What the thread needs beside the node.
pub(super) struct Group<N: Net> {
    pub(super) net: N,
    pub(super) guard: Arc<Guard>,
    pub(super) peers: PeerOptions,
    pub(super) links: Arc<Links>,
    /// What waits for each peer: as there are more of them, more come.
    pub(super) queues: UnboundedReceiver<(usize, UnboundedReceiver<Parcel>)>,
    pub(super) visitors: UnboundedReceiver<Visitor<N::Stream>>,
}

/// Where accepted connections are passed on.
pub(super) fn visitors<S>() -> (UnboundedSender<Visitor<S>>, UnboundedReceiver<Visitor<S>>) {
    unbounded_channel()
}

/// Starts the thread.
pub(super) fn start(node: Arc<Node<Waiter>>, group: Group<Tcp>) -> Result<(), StartError> {
    let runtime = new_runtime()?;
    let body = move || LocalSet::new().block_on(&runtime, run(node, group));
    thread::Builder::new()
        .name("links".into())
        .spawn(body)
        .map(drop)
        .map_err(|error| StartError::System("start the thread of the links", error))
}

/// Starts the thread of a node without peers: only time passes there.
pub(super) fn start_alone(node: Arc<Node<Waiter>>, links: Arc<Links>) -> Result<(), StartError> {
    let runtime = new_runtime()?;
    let body = move || {
        runtime.block_on(async move {
            let mut courier = Courier::new(links);
            let mut tick = ticks(TICK);
            loop {
                tick.tick().await;
                node.tick(clock::now(&node), &mut courier);
                clock::note_cpu_time(&node);
            }
        });
    };
    thread::Builder::new()
        .name("time".into())
        .spawn(body)
        .map(drop)
        .map_err(|error| StartError::System("start the thread of the time", error))
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// All tasks of the data links, on the present `LocalSet`, for ever.
pub(super) async fn run<N: Net>(node: Arc<Node<Waiter>>, group: Group<N>) {
    let Group { net, guard, peers, links, mut queues, mut visitors } = group;
    let data = Rc::new(Data {
        greeting: Greeting::new(net, guard, &peers, Arc::clone(&node), Arc::clone(&links)),
        peers: RefCell::default(),
        stirred: Notify::new(),
        has_news: Cell::new(false),
        node,
        links,
    });
    let mut courier = data.courier();
    let (mut tick, mut sync_tick) = (ticks(TICK), ticks(SYNC_TICK));
    let mut news = pin!(sleep(NEWS));
    loop {
        tokio::select! {
            Some((peer, queue)) = queues.recv() => {
                let address = data.links.address(peer);
                let (data, state) = (Rc::clone(&data), data.peer(peer));
                let dialer = Dialer { data, peer, state, address, queue, spoke: 0 };
                spawn_local(dialer.run());
            }
            Some(visitor) = visitors.recv() => data.admit(visitor),
            _ = tick.tick() => {
                data.node.tick_shards(data.links.now(&data.node), &mut courier);
                clock::note_cpu_time(&data.node);
                data.note_queues();
            }
            () = data.stirred.notified(), if !data.has_news.get() => {
                data.has_news.set(true);
                news.set(sleep(NEWS));
            }
            () = &mut news, if data.has_news.get() => {
                data.has_news.set(false);
                data.node.announce_commits(&mut courier);
            }
            _ = sync_tick.tick(), if data.node.is_syncing() => {
                data.node.sync(data.links.now(&data.node), &mut courier);
            }
        }
    }
}

/// What the tasks of the thread share.
struct Data<N: Net> {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    greeting: Greeting<N>,
    peers: RefCell<Vec<Rc<Peer>>>,
    /// Something was heard, so that something may be committed.
    stirred: Notify,
    /// That is known, and is told in a moment.
    has_news: Cell<bool>,
}

/// The sessions with one life of a peer, both ways.
struct Peer {
    life: Cell<Option<Incarnation>>,
    outbox: RefCell<Outbox>,
    inbox: RefCell<Inbox>,
    reader: RefCell<Option<AbortHandle>>,
    /// Much has come over that the peer was not told of.
    tell: Notify,
}

impl Peer {
    fn new(node: &Node<Waiter>, now: Millis) -> Self {
        Self {
            life: Cell::new(None),
            outbox: RefCell::new(new_outbox(node, now)),
            inbox: RefCell::default(),
            reader: RefCell::default(),
            tell: Notify::new(),
        }
    }
}

/// The time makes its number higher than that of any former session.
fn new_outbox(node: &Node<Waiter>, now: Millis) -> Outbox {
    let items = WAITING_ITEMS.saturating_mul(node.options().settings.item_max);
    Outbox::new(now.0.max(1), items.max(WAITING_BYTES))
}

impl<N: Net> Data<N> {
    fn courier(&self) -> Courier {
        Courier::new(Arc::clone(&self.links))
    }

    fn name(&self, peer: usize) -> &str {
        self.links.name(peer)
    }

    fn peer(&self, peer: usize) -> Rc<Peer> {
        let mut peers = self.peers.borrow_mut();
        while peers.len() <= peer {
            peers.push(Rc::new(Peer::new(&self.node, self.links.local())));
        }
        Rc::clone(&peers[peer])
    }

    /// From now on the sessions are those with this life; what waited for a former one is void.
    fn turn_to(&self, peer: usize, life: Incarnation) {
        let state = self.peer(peer);
        match state.life.replace(Some(life)) {
            Some(former) if former != life => {
                self.void(&state);
                if let Some(reader) = state.reader.take() {
                    reader.abort();
                }
            }
            _ => {}
        }
        self.note_queues();
    }

    /// Nobody is there any more: what waits for it would only take memory.
    fn forget(&self, peer: usize) {
        let state = self.peer(peer);
        if state.life.take().is_some() {
            self.void(&state);
            self.note_queues();
        }
    }

    /// Both sessions begin anew.
    fn void(&self, state: &Peer) {
        state.outbox.replace(new_outbox(&self.node, self.links.local()));
        state.inbox.take();
    }

    /// A message for that life of the peer is kept until it has come over.
    fn keep(&self, peer: usize, state: &Peer, (life, packet): Parcel) {
        if state.life.get() != Some(life) {
            if !self.links.is_life(peer, life) {
                return;
            }
            self.turn_to(peer, life);
        }
        if let Err(broken) = state.outbox.borrow_mut().push(packet) {
            self.report(peer, state, broken);
        }
    }

    /// For those who ask how far a peer is behind.
    fn note_queues(&self) {
        let load = |peer: &Peer| Some((peer.life.get()?, peer.outbox.borrow().load()));
        self.node.note_queues(self.peers.borrow().iter().filter_map(|peer| load(peer)).collect());
    }

    fn report(&self, peer: usize, state: &Peer, Broken { messages }: Broken) {
        tracing::error!(peer = self.name(peer), messages, "messages to a peer are lost");
        if let Some(life) = state.life.get() {
            self.node.lost_messages(life, self.links.now(&self.node));
        }
    }

    /// A peer wants to speak.
    fn admit(self: &Rc<Self>, visitor: Visitor<N::Stream>) {
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

/// Keeps one outgoing connection alive and sends what waits for the peer.
struct Dialer<N: Net> {
    data: Rc<Data<N>>,
    peer: usize,
    state: Rc<Peer>,
    address: watch::Receiver<Option<SocketAddr>>,
    queue: UnboundedReceiver<Parcel>,
    /// When something was last sent.
    spoke: u64,
}

impl<N: Net> Dialer<N> {
    async fn run(mut self) {
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
