//! The connections for data: messages about lanes, each of which arrives exactly once and in
//! order, whatever becomes of the connection (`replication/link.rs`).
//!
//! Each side dials, and speaks on the connection that it dialed; how much of the other's session
//! has come over goes along. The node does not learn of peers here: who is met, and who is dead, is
//! seen on one thread only, that of the control links. This thread also tells the shards of the
//! time.

mod accepted;
mod dialed;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use self::dialed::Dialer;
use super::courier::{Courier, Links, Parcel, Waiter};
use super::guard::Guard;
use super::handshake::{Greeting, Heard};
use super::net::{Net, Tcp};
use super::{PeerOptions, StartError, clock, new_runtime};
use crate::node::Node;
use crate::replication::Incarnation;
use crate::replication::link::{Broken, Inbox, Outbox};
use crate::replication::message::Received;
use crate::time::Millis;

/// How often the shards are told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// How often they take a step for a node that joins, while one does.
const SYNC_TICK: Duration = Duration::from_millis(5);
/// The members learn of commits from the records that follow; where none does, within this.
const NEWS: Duration = Duration::from_millis(5);
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
                spawn_local(Dialer::new(&data, peer, queue).run());
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
}
