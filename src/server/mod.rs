//! The only sockets, tasks and clocks: everything between the operating system and a `Node`.
//!
//! Each worker thread runs a single-threaded runtime and accepts for itself; links to peers live
//! on threads of their own, so that they never wait behind clients, nor beats behind data.

mod accept;
mod admin;
mod anew;
mod auth;
mod buffers;
mod certificates;
mod channel;
mod client;
mod clock;
mod control;
mod courier;
mod ctl;
mod data;
mod door;
mod drain;
mod frames;
mod guard;
mod handover;
mod handshake;
mod heir;
mod inherit;
mod listener;
mod lives;
mod net;
mod no_link;
mod notify;
mod operators;
mod orders;
mod peering;
mod roster;
mod secret;
mod shared;
mod signals;
mod start_error;
mod succession;
mod takeover;
mod views;
mod workers;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio::runtime;
use tokio::sync::oneshot;

pub use anew::ask_and_wait;
pub use certificates::{CertificateFiles, can_be_certified};
pub use clock::Clock;
pub use courier::{Courier, Waiter};
use courier::{Links, Standing};
pub use ctl::ask;
use guard::Guard;
pub use guard::{BadFile, PeerSecurity};
use handover::{Handover, Passed};
use heir::{Heir, Staff};
pub use listener::Listen;
use listener::{Bound, Sharing};
use lives::StateDir;
pub use lives::StateError;
pub use net::{Net, Stream};
use orders::Orders;
pub use peering::{Peering, live};
use shared::Shared;
use signals::Signals;
pub use start_error::StartError;
use takeover::Taken;

use crate::node::{self, Credentials, Node};
use crate::replication::Roster;
use crate::replication::message::Beside;
use crate::time::Now;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the node is told.
    pub node: node::Options,
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// Where to write which ports they are.
    pub port_file: Option<PathBuf>,
    /// Where operators' programs ask for figures over HTTP; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// The group; `None` for a single node.
    pub peers: Option<PeerOptions>,
    /// How long a write waits for the other nodes before its connection is closed.
    pub write_timeout_ms: u64,
    /// How long a command waits while this node can't answer.
    pub hold_timeout_ms: u64,
    /// How long clients have to close their connections when the server is told to end.
    pub drain_timeout_ms: u64,
    /// The process that starts this one again when it ends.
    pub supervisor: Option<i32>,
    /// Whether it takes the place of the process that has its state directory, if one does.
    pub takes_over: bool,
    /// It was started beside another process of this node, to take its place.
    pub is_beside: bool,
}

/// How nodes meet.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The name of the group.
    pub cluster: Box<str>,
    /// Where the others connect.
    pub listen: SocketAddr,
    /// Links are not encrypted, and nobody has said that they may leave this machine all the same.
    pub keeps_to_loopback: bool,
    /// Where this node keeps what it must not forget about its group.
    pub state_dir: Option<PathBuf>,
    /// This node only votes: it has no data and no clients.
    pub is_witness: bool,
    /// How they prove who they are.
    pub security: PeerSecurity,
}

/// How a server that ran has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// For good, as far as it knows.
    Over,
    /// An operator wants it to be started anew.
    Again,
}

/// A server that has its addresses and does not serve yet: no thread runs, so the process may
/// still fork.
pub struct Server {
    options: Options,
    bound: Vec<Bound>,
    handover: Option<Handover>,
    /// Of the process that this one has taken over from.
    clients: Vec<Passed>,
    peer_socket: Option<TcpSocket>,
    admin: Option<admin::Bound>,
    credentials: Option<Credentials>,
    state: Option<StateDir>,
    beside: Option<lives::Beside>,
    guard: Option<Arc<Guard>>,
}

impl Server {
    /// Takes all addresses, so that whatever is wrong with them shows at once.
    pub fn bind(mut options: Options) -> Result<Self, StartError> {
        let settings = &options.node.settings;
        // First: what was handed over is known by its numbers alone. But what another process gives is
        // asked for when nothing else can be wrong.
        let bound = (!options.takes_over).then(|| listener::bind_all(&options)).transpose()?;
        let credentials = settings.auth_file.as_deref().map(auth::read).transpose()?;
        let peers = options.peers.as_ref();
        let load_guard =
            |peers: &PeerOptions| Guard::new(&peers.security, &options.node.me.name).map(Arc::new);
        let guard = peers.map(load_guard).transpose().map_err(StartError::Peers)?;
        let taken = if options.takes_over { takeover::take(&options)? } else { None };
        let is_taken = taken.is_some();
        let Taken { bound: held, clients } = taken.unwrap_or_default();
        let (bound, handover) = match bound {
            Some(bound) => bound,
            None if is_taken => (held, None),
            None => listener::bind_all(&options)?,
        };
        let own = peers.filter(|_| !options.is_beside);
        let of_other = peers.filter(|_| options.is_beside);
        let beside = of_other.and_then(|peers| open_beside(peers, &options.node)).transpose()?;
        // Of these two processes cannot have the same: the former one has just ended, or its port and
        // directory are its own until it is over.
        let bind_peer = |peers: &PeerOptions| {
            let port = if beside.is_some() { 0 } else { peers.listen.port() };
            let address = SocketAddr::new(peers.listen.ip(), port);
            takeover::when_free(is_taken, || listener::bind(address, Sharing::No))
        };
        let peer_socket = peers.map(bind_peer).transpose()?;
        let bind_admin = |address| takeover::when_free(is_taken, || admin::Bound::new(address));
        let admin = options.admin.filter(|_| beside.is_none()).map(bind_admin).transpose()?;
        let open_state = |peers: &PeerOptions| {
            takeover::when_free(is_taken, || open_state(peers, &options.node).transpose())
        };
        let state = own.map(open_state).transpose()?.flatten();
        if let Some(state) = &state {
            options.node.succeeds = state.former.clone();
        }
        options.node.beside = beside.as_ref().map(|beside| beside.predecessor);
        Ok(Self {
            options,
            bound,
            handover,
            clients,
            peer_socket,
            admin,
            credentials,
            state,
            beside,
            guard,
        })
    }

    /// The sockets for clients alone, which listen from now on, and a way for clients from one
    /// process to the next: for one that holds them, and hands them to the one that serves.
    pub fn hold_sockets(options: &Options) -> Result<Vec<OwnedFd>, StartError> {
        let (bound, _) = listener::bind_all(options)?;
        let mut held = Vec::new();
        for one in bound {
            held.extend(one.hold(options.node.settings.backlog)?);
        }
        let (to, from) = UnixStream::pair()
            .map_err(|error| StartError::System("make a way for clients", error))?;
        held.extend([to.into(), from.into()]);
        Ok(held)
    }

    /// Serves until a signal, or a client that may, ends it.
    pub fn run(self) -> Result<Ended, StartError> {
        // The lock on the state directory lasts as long as the process.
        let (_state, options) = (self.state, &self.options);
        let runtime = new_runtime()?;
        let context = runtime.enter();
        let mut signals = Signals::new()?;
        drop(context);
        let node = Arc::new(new_node(&options.node, Clock::SYSTEM));
        node.set_credentials(self.credentials);
        node.note_own_certificate(self.guard.as_deref().and_then(Guard::not_after_s));
        let seeds = Roster { nodes: options.node.nodes.clone(), ..Roster::default() };
        let standing = standing(&options.node, self.peer_socket.as_ref())?;
        let (links, wishes) = Links::new(seeds, standing, Clock::SYSTEM);
        let links = Arc::new(links);
        let (drain, mut passed) = drain::State::new(options.node.settings.workers);
        let orders = Arc::new(Orders::new(options.supervisor));
        let shared =
            Shared::new(options, Arc::clone(&node), Arc::clone(&links), drain, Arc::clone(&orders));
        let shared = Arc::new(shared);
        let is_witness = options.peers.as_ref().is_some_and(|peers| peers.is_witness);
        let (mut heir, estate) = match (self.beside, &options.peers) {
            (Some(beside), Some(peers)) => {
                let (estate, left) = oneshot::channel();
                (Some(Heir::new(beside, &options.node.me, peers.listen, estate)), Some(left))
            }
            _ => (None, None),
        };
        let (log, group) = match (options.peers.clone(), self.guard.clone(), self.peer_socket) {
            (Some(peers), Some(guard), Some(socket)) => {
                let orders = Arc::clone(&orders);
                let inside = (node, links, wishes);
                let (log, group) = peering::start(peers, (guard, socket), inside, orders, estate)?;
                (Some(log), group)
            }
            _ => {
                // It serves from the first command on.
                let mut courier = Courier::new(Arc::clone(&links));
                node.tick_group(clock::now(&node), &mut courier);
                data::start_alone(node, links)?;
                (None, None)
            }
        };
        let sources = admin::Sources {
            node: Arc::clone(&shared.node),
            log,
            is_witness,
            links: Arc::clone(&shared.links),
        };
        let address = options.admin.filter(|_| self.admin.is_none());
        let sources = match self.admin {
            Some(admin) => admin.start(sources).map(|()| None)?,
            None => Some(sources),
        };
        // A witness has neither data nor clients.
        let start_workers = || workers::start(options.node.settings.workers, group, &shared);
        let workers = (!is_witness).then(start_workers).transpose()?;
        let limit_ms = options.drain_timeout_ms;
        if let Some(heir) = &mut heir {
            let is_over = runtime.block_on(async {
                tokio::select! {
                    () = shared.until_stop(&mut signals, self.guard.as_deref(), (None, &mut passed), limit_ms) => Ok(true),
                    due = heir.until_due(&shared) => due.map(|()| false),
                }
            })?;
            if is_over {
                return Ok(Ended::Over);
            }
        }
        // At once, in a group too: a closed port is an error to clients, which a wait is not.
        let mut handles = Vec::new();
        if let Some(workers) = workers {
            let clients = self.handover.as_ref().map_or(self.clients, received);
            handles = workers::open(workers, options, (self.bound, clients), &shared)?;
        }
        let taken = self.handover.as_ref().and_then(|it| it.try_clone().ok());
        let staff = Staff::new(handles, Arc::clone(&shared), taken);
        let supervisor = self.handover.as_ref().and_then(|it| it.supervisor.try_clone().ok());
        let to = self.handover.map(|handover| handover.to_successor);
        let takes_over = take_over(heir, staff, address.zip(sources));
        runtime.block_on(async {
            tokio::select! {
                () = shared.until_stop(&mut signals, self.guard.as_deref(), (to, &mut passed), limit_ms) => Ok(()),
                () = notify::keep_telling(&shared.node, is_witness, supervisor, &orders) => Ok(()),
                Err(error) = takes_over => Err(error),
            }
        })?;
        Ok(if orders.is_restart_wanted() { Ended::Again } else { Ended::Over })
    }
}

fn open_state(peers: &PeerOptions, node: &node::Options) -> Option<Result<StateDir, StartError>> {
    let path = peers.state_dir.as_deref()?;
    let state = StateDir::open(path, &peers.cluster, &node.me.name, node.me.incarnation);
    Some(state.map_err(StartError::State))
}

fn open_beside(
    peers: &PeerOptions,
    node: &node::Options,
) -> Option<Result<lives::Beside, StartError>> {
    let path = peers.state_dir.as_deref()?;
    let beside = lives::Beside::open(path, &peers.cluster, &node.me.name, node.me.incarnation);
    Some(beside.map_err(StartError::State))
}

/// How this life stands to others of its node, if it listens there for peers.
fn standing(node: &node::Options, socket: Option<&TcpSocket>) -> Result<Standing, StartError> {
    let refused = |error| StartError::System("tell the port for peers", error);
    let port = socket.map(TcpSocket::local_addr).transpose().map_err(refused)?;
    let beside = node.beside.zip(port);
    Ok(Standing {
        beside: beside.map(|(predecessor, at)| Beside { predecessor, port: at.port() }),
        succeeds: node.succeeds.clone(),
    })
}

/// Has whoever was started beside another process take over from it, and tell its figures then. Ends
/// only when that can't be.
async fn take_over(
    heir: Option<Heir>,
    mut staff: Staff,
    admin: Option<(SocketAddr, admin::Sources)>,
) -> Result<(), StartError> {
    // The lock on the state directory lasts as long as this.
    let _state = match heir {
        Some(heir) => Some(heir.take_over(&mut staff).await?),
        None => None,
    };
    if let Some((address, sources)) = admin {
        heir::admin_when_free(address).await?.start(sources)?;
    }
    std::future::pending().await
}

fn new_node(options: &node::Options, clock: Clock) -> Node<Waiter> {
    let (local, wall_s) = ((clock.local)(), (clock.wall_s)());
    Node::new(options.clone(), Now { local, wall_s, ..Now::default() })
}

/// The clients of the process before this one.
fn received(handover: &Handover) -> Vec<Passed> {
    match handover.receive() {
        Ok(clients) => {
            if !clients.is_empty() {
                tracing::info!(clients = clients.len(), "taken over");
            }
            clients
        }
        Err(error) => {
            tracing::error!(%error, "clients of the process before cannot be taken over");
            Vec::new()
        }
    }
}

fn new_runtime() -> Result<runtime::Runtime, StartError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("start a runtime", error))
}
