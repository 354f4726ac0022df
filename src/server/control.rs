//! The control connections: beats, views and the log, on a thread where nothing else can hold them
//! up. What is said while there is no connection is lost.
//!
//! A witness has nothing but these, and on them nothing but the log: no beat comes from it or goes
//! to it, so that to the group it is nobody.
//!
//! Each side dials, and speaks on the connection that it dialed. Whether a peer is up is not
//! decided here: the group tells it from beats. Here is only seen whether its process is there.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use super::channel::Channel;
use super::courier::{Courier, Letter, Links, Parcel, Waiter};
use super::ctl;
use super::data::Visitor;
use super::door::Door;
use super::frames::{self, BATCH_BYTES, End, Incoming};
use super::guard::Guard;
use super::handshake::{self, Greeting, Heard};
use super::net::{Net, Tcp};
use super::no_link::{NoLink, REDIAL_MS, Reasons};
use super::orders::Orders;
use super::succession::Estate;
use super::views::Log;
use super::{PeerOptions, StartError, new_runtime};
use crate::membership::Status;
use crate::node::Node;
use crate::replication::message::{self, Message, Purpose};
use crate::replication::{Hello, Incarnation, LogWish, Member};
use crate::stats::Refusal;
use crate::time::Millis;

/// The kernel's queue of peers that wait to be accepted.
pub(super) const BACKLOG: u32 = 64;
/// After the end of a connection a peer is dialed at once, and then soon again, less and less: the
/// port of a process that is just dying resets before it refuses.
const REDIAL_MIN_MS: u64 = 3;
/// The group is told of the time twice for each beat, and at least this often.
const TICK_MAX_MS: u64 = 25;

/// What the thread needs.
pub(super) struct Setup<N: Net> {
    pub(super) net: N,
    pub(super) guard: Arc<Guard>,
    pub(super) peers: PeerOptions,
    pub(super) node: Arc<Node<Waiter>>,
    pub(super) links: Arc<Links>,
    /// The data of peers, for the thread of the links.
    pub(super) queues: UnboundedSender<(usize, UnboundedReceiver<Parcel>)>,
    pub(super) wishes: UnboundedReceiver<LogWish>,
    /// Connections of data, for the thread of the links.
    pub(super) visitors: UnboundedSender<Visitor<N::Stream>>,
    /// What operators want of the process.
    pub(super) orders: Arc<Orders>,
}

/// Starts the thread; returns when this node's part in the log of views works, and where that
/// stands from then on. Where that is another life's part still, `estate` brings it.
pub(super) fn start(
    socket: TcpSocket,
    setup: Setup<Tcp>,
    estate: Option<oneshot::Receiver<Estate>>,
) -> Result<watch::Receiver<Status>, StartError> {
    let runtime = new_runtime()?;
    let (report, started) = oneshot::channel();
    let body = move || {
        LocalSet::new().block_on(&runtime, async move {
            let address = setup.peers.listen;
            let begun = match socket.listen(BACKLOG) {
                Ok(listener) => begin(listener, setup).await,
                Err(error) => Err(StartError::Bind(address, error)),
            };
            match begun {
                Ok(control) => {
                    let _ = report.send(Ok(control.log.watch()));
                    if let Some(estate) = estate {
                        control.come_into(estate).await;
                    }
                    std::future::pending::<()>().await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    thread::Builder::new()
        .name("control".into())
        .spawn(body)
        .map_err(|error| StartError::System("start the thread of the control links", error))?;
    started.blocking_recv().unwrap_or_else(|_| {
        let ended = std::io::Error::other("it has ended");
        Err(StartError::System("start the thread of the control links", ended))
    })
}

/// Starts all tasks of the control links, on the present `LocalSet`.
pub(super) async fn begin<N: Net>(
    listener: N::Listener,
    setup: Setup<N>,
) -> Result<Rc<Control<N>>, StartError> {
    let Setup { net, guard, peers, node, links, queues, wishes, visitors, orders } = setup;
    let log = Log::new(Arc::clone(&node), Arc::clone(&links));
    let is_witness = peers.is_witness;
    let control = Rc::new(Control {
        greeting: Greeting::new(net, guard, &peers, Arc::clone(&node), Arc::clone(&links)),
        states: RefCell::default(),
        peers,
        queues,
        visitors,
        connections: Cell::new(0),
        door: Door::default(),
        is_witness,
        log,
        node,
        links,
        orders,
    });
    if !control.links.am_beside() {
        control.log.begin(&control.peers).await.map_err(StartError::Membership)?;
        control.hear_operators();
    }
    let passing = Rc::clone(&control);
    let turn_to = Rc::clone(&control);
    let turn_to = move |roster| turn_to.turn_to(roster);
    spawn_local(async move { passing.log.pass_on(wishes, turn_to).await });
    if !is_witness {
        spawn_local(Rc::clone(&control).tell_time());
        spawn_local(Rc::clone(&control).tell_seat());
    }
    spawn_local(Rc::clone(&control).accept(listener));
    control.reach_all();
    spawn_local(Rc::clone(&control).compare_peers());
    Ok(control)
}

/// What the tasks of the thread share.
pub(super) struct Control<N: Net> {
    pub(super) node: Arc<Node<Waiter>>,
    pub(super) links: Arc<Links>,
    greeting: Greeting<N>,
    /// This node only votes: the node, which has the items and the group, is told nothing.
    pub(super) is_witness: bool,
    pub(super) log: Log,
    pub(super) orders: Arc<Orders>,
    pub(super) peers: PeerOptions,
    states: RefCell<Vec<Rc<Peer>>>,
    pub(super) queues: UnboundedSender<(usize, UnboundedReceiver<Parcel>)>,
    visitors: UnboundedSender<Visitor<N::Stream>>,
    /// Tells accepted connections apart.
    connections: Cell<u64>,
    door: Door,
}

/// Both directions to one peer.
#[derive(Default)]
struct Peer {
    dialed: Cell<Option<Incarnation>>,
    accepted: Cell<Option<(u64, Incarnation)>>,
    reader: RefCell<Option<AbortHandle>>,
    /// The life whose connection was closed last, and as those of a process are that ends: no
    /// firewall does that, nor the crash of a host.
    ended: Cell<Option<Incarnation>>,
    is_up: Cell<bool>,
}

impl<N: Net> Control<N> {
    pub(super) fn courier(&self) -> Courier {
        Courier::new(Arc::clone(&self.links))
    }

    pub(super) fn name(&self, peer: usize) -> &str {
        self.links.name(peer)
    }

    fn peer(&self, peer: usize) -> Rc<Peer> {
        let mut states = self.states.borrow_mut();
        while states.len() <= peer {
            states.push(Rc::default());
        }
        Rc::clone(&states[peer])
    }

    /// From now on `sessiond ctl` speaks with this process.
    pub(super) fn hear_operators(self: &Rc<Self>) {
        let Some(folder) = self.peers.state_dir.as_deref() else { return };
        match ctl::open(folder) {
            Ok(listener) => {
                let listening = Rc::clone(self);
                let obey = async move |line: String| listening.obey(&line).await;
                spawn_local(ctl::serve(listener, obey, Arc::clone(&self.orders)));
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "sessiond ctl will not work");
            }
        }
    }

    async fn tell_time(self: Rc<Self>) {
        let beat_ms = self.node.options().timing.beat_ms;
        let mut tick = interval(Duration::from_millis((beat_ms / 2).clamp(1, TICK_MAX_MS)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut courier = self.courier();
        loop {
            tick.tick().await;
            self.node.tick_group(self.links.now(&self.node), &mut courier);
        }
    }

    /// Whether frames go both ways.
    pub(super) fn is_up(&self, peer: usize) -> bool {
        self.peer(peer).is_up.get()
    }

    /// It is of the group no more.
    pub(super) fn let_go(&self, peer: usize) {
        self.links.let_go(peer);
        let state = self.peer(peer);
        if let Some(reader) = state.reader.take() {
            reader.abort();
        }
        state.accepted.set(None);
        state.ended.set(None);
        self.update(peer);
    }

    /// Has the log know whether frames go both ways.
    fn update(&self, peer: usize) {
        let state = self.peer(peer);
        let Peer { dialed, accepted, is_up, .. } = &*state;
        let both = matches!(
            (dialed.get(), accepted.get()),
            (Some(dialed), Some((_, accepted))) if dialed == accepted
        );
        if is_up.replace(both) == both {
            return;
        }
        let (name, is_beside) = (self.name(peer), self.links.is_beside(peer));
        let beside = is_beside.then_some(true);
        if both {
            tracing::info!(peer = name, beside, "link up");
        } else {
            tracing::warn!(peer = name, beside, "link down");
        }
        match (is_beside, both) {
            // The log is of no concern to it.
            (true, _) => {}
            (false, true) => self.log.tell(|log| log.peer_up(name)),
            (false, false) => self.log.tell(|log| log.peer_down(name)),
        }
    }

    fn meet(&self, peer: usize, hello: &Hello, courier: &mut Courier) {
        self.links.set_witness(peer, hello.is_witness);
        self.links.set_speaks(peer, hello.speaks);
        self.links.meet(peer, hello.incarnation);
        self.note_standing(peer, hello);
        if self.is_witness {
            return;
        }
        let now = self.links.now(&self.node);
        if hello.is_witness {
            return self.node.meet_witness(&hello.name, &hello.succeeds, now, courier);
        }
        let member = Member { name: hello.name.clone(), incarnation: hello.incarnation };
        let beside = hello.purpose.beside().map(|beside| beside.predecessor);
        self.node.meet(&member, &hello.succeeds, &hello.speaks, beside, now, courier);
    }

    // The connection that this node dials.

    /// Keeps a connection to the peer, for ever.
    pub(super) async fn reach(self: Rc<Self>, peer: usize, mut queue: UnboundedReceiver<Letter>) {
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

    // The connection that the peer dials.

    pub(super) async fn accept(self: Rc<Self>, listener: N::Listener) {
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

/// Where a peer is, as soon as it is of the group.
pub(super) async fn until_wanted(address: &mut watch::Receiver<Option<SocketAddr>>) -> SocketAddr {
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
