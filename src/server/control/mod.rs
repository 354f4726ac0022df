//! The control connections: beats, views and the log, on a thread where nothing else can hold them
//! up. What is said while there is no connection is lost.
//!
//! A witness has nothing but these, and on them nothing but the log: no beat comes from it or goes
//! to it, so that to the group it is nobody.
//!
//! Each side dials, and speaks on the connection that it dialed. Whether a peer is up is not
//! decided here: the group tells it from beats. Here is only seen whether its process is there.

mod accepted;
mod dialed;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Duration, MissedTickBehavior, interval};

pub(super) use dialed::until_wanted;

use super::courier::{Courier, Links, Parcel, Waiter};
use super::ctl;
use super::data::Visitor;
use super::door::Door;
use super::guard::Guard;
use super::handshake::Greeting;
use super::net::{Net, Tcp};
use super::orders::Orders;
use super::succession::Estate;
use super::views::Log;
use super::{PeerOptions, StartError, new_runtime};
use crate::membership::Status;
use crate::node::Node;
use crate::replication::{Hello, Incarnation, LogWish, Member};

/// The kernel's queue of peers that wait to be accepted. Whoever finds it full is not heard and says
/// so again a second later, when a handshake is over: a burst of strangers has to fit in, even if
/// this thread is not run for a moment.
pub(super) const BACKLOG: u32 = 1024;
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
}
