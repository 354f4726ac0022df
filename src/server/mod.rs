//! The only sockets, tasks and clocks: everything between the operating system and a `Node`.
//!
//! Each worker thread runs a single-threaded runtime and accepts for itself; links to peers live
//! on threads of their own, so that they never wait behind clients, nor beats behind data.

mod accept;
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
mod frames;
mod guard;
mod handshake;
mod listener;
mod lives;
mod net;
mod peering;
mod secret;
mod signals;
mod views;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::runtime;
use tokio::sync::Notify;

pub use certificates::{CertificateFiles, can_be_certified};
pub use clock::Clock;
use courier::Links;
pub use courier::{Courier, Waiter};
pub use ctl::ask;
use guard::Guard;
pub use guard::{BadFile, PeerSecurity};
pub use listener::Listen;
use listener::{Bound, Listener, Sharing};
use lives::StateDir;
pub use lives::StateError;
pub use net::{Net, Stream};
pub use peering::{Peering, live};
use signals::Signals;

use crate::membership;
use crate::node::{self, Credentials, Node};
use crate::protocol::Stop;
use crate::stats::Gauge;
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
    /// The group; `None` for a single node.
    pub peers: Option<PeerOptions>,
    /// How long a write waits for the other nodes before its connection is closed.
    pub write_timeout_ms: u64,
    /// How long a command waits while this node can't answer.
    pub hold_timeout_ms: u64,
}

/// How nodes meet.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The name of the group.
    pub cluster: Box<str>,
    /// Where the others connect.
    pub listen: SocketAddr,
    /// The others, by name, in the order of `node::Options::peers`.
    pub addresses: Vec<SocketAddr>,
    /// The names of those that vote on views.
    pub voters: Vec<Box<str>>,
    /// Where this node keeps what it must not forget about its group.
    pub state_dir: Option<PathBuf>,
    /// This node only votes: it has no data and no clients.
    pub is_witness: bool,
    /// How they prove who they are.
    pub security: PeerSecurity,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be bound.
    Bind(SocketAddr, io::Error),
    /// A socket in the file system can't be made.
    BindUnix(PathBuf, io::Error),
    /// The file of names and passwords can't be used.
    Auth(PathBuf, String),
    /// What peers have to prove can't be read.
    Peers(BadFile),
    /// The state directory can't be used.
    State(StateError),
    /// This node can't take part in the log of views.
    Membership(membership::StartError),
    /// The operating system refuses what every server needs.
    System(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: the address is in use; stop the other server or choose another with -l, -p or --peer-listen"
            ),
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::BindUnix(path, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "-s {}: another server answers there, or it is no socket", path.display())
            }
            Self::BindUnix(path, error) => write!(f, "-s {}: {error}", path.display()),
            Self::Auth(path, why) => write!(f, "-Y {}: {why}", path.display()),
            Self::Peers(error) => write!(f, "{error}"),
            Self::State(error) => write!(f, "{error}"),
            Self::Membership(error) => write!(f, "{error}"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What all tasks share.
#[derive(Debug)]
struct Shared {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    stopping: AtomicBool,
    stop_wanted: Notify,
    /// Clients whose writes are on their way.
    waiting: Gauge,
    write_timeout_ms: u64,
    hold_timeout_ms: u64,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A client has said `shutdown`.
    fn stop(&self, stop: Stop) {
        tracing::info!(?stop, "stopping: a client said shutdown");
        self.stop_wanted.notify_one();
    }

    /// Until it is told to stop, and has let writes that are on their way arrive.
    async fn until_stop(&self, signals: &mut Signals, guard: Option<&Guard>) {
        tokio::select! {
            () = signals.until_stop(&self.node, guard) => {}
            () = self.stop_wanted.notified() => {}
        }
        self.stopping.store(true, Ordering::Relaxed);
        let quiet = async {
            // Where nothing can be confirmed, nothing is waited for.
            while self.waiting.get() > 0 && self.node.is_serving() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(STOP_WAIT, quiet).await.is_err() {
            let writes = self.waiting.get();
            tracing::warn!(writes, "stopped before all writes were confirmed");
        }
    }
}

/// At a stop, writes that are on their way get this long to be confirmed.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// A server that has its addresses and does not serve yet: no thread runs, so the process may
/// still fork.
pub struct Server {
    options: Options,
    bound: Vec<Bound>,
    peer_socket: Option<TcpSocket>,
    credentials: Option<Credentials>,
    state: Option<StateDir>,
    guard: Option<Arc<Guard>>,
}

impl Server {
    /// Takes all addresses, so that whatever is wrong with them shows at once.
    pub fn bind(mut options: Options) -> Result<Self, StartError> {
        let settings = &options.node.settings;
        let credentials = settings.auth_file.as_deref().map(auth::read).transpose()?;
        let mut bound = Vec::new();
        for listen in &options.listen {
            bound.extend(Bound::new(listen, settings.workers)?);
        }
        let peers = options.peers.as_ref();
        let load_guard =
            |peers: &PeerOptions| Guard::new(&peers.security, &options.node.me.name).map(Arc::new);
        let guard = peers.map(load_guard).transpose().map_err(StartError::Peers)?;
        let bind_peer = |peers: &PeerOptions| listener::bind(peers.listen, Sharing::No);
        let peer_socket = peers.map(bind_peer).transpose()?;
        let state = peers.and_then(|peers| open_state(peers, &options.node)).transpose()?;
        if let Some(state) = &state {
            options.node.succeeds = state.former.clone();
        }
        Ok(Self { options, bound, peer_socket, credentials, state, guard })
    }

    /// Serves until a signal, or a client that may, ends it.
    pub fn run(self) -> Result<(), StartError> {
        // The lock on the state directory lasts as long as the process.
        let Self { options, bound, peer_socket, credentials, state: _state, guard } = self;
        let runtime = new_runtime()?;
        let context = runtime.enter();
        let mut signals = Signals::new()?;
        drop(context);
        let node = Arc::new(new_node(&options.node, Clock::SYSTEM));
        node.set_credentials(credentials);
        let (links, ends) = Links::new(&options.node.peers, Clock::SYSTEM);
        let links = Arc::new(links);
        let shared = Arc::new(Shared {
            node: Arc::clone(&node),
            links: Arc::clone(&links),
            stopping: AtomicBool::new(false),
            stop_wanted: Notify::new(),
            waiting: Gauge::default(),
            write_timeout_ms: options.write_timeout_ms,
            hold_timeout_ms: options.hold_timeout_ms,
        });
        let is_witness = options.peers.as_ref().is_some_and(|peers| peers.is_witness);
        match (options.peers.clone(), guard.clone(), peer_socket) {
            (Some(peers), Some(guard), Some(socket)) => {
                peering::start(peers, guard, socket, node, links, ends)?
            }
            _ => {
                // It serves from the first command on.
                let mut courier = Courier::new(Arc::clone(&links));
                node.tick_group(clock::now(&node), &mut courier);
                data::start_alone(node, links)?;
            }
        }
        // At once, in a group too: a closed port is an error to clients, which a wait is not.
        if !is_witness {
            start_workers(&options, bound, &shared)?;
        }
        runtime.block_on(shared.until_stop(&mut signals, guard.as_deref()));
        Ok(())
    }
}

fn open_state(peers: &PeerOptions, node: &node::Options) -> Option<Result<StateDir, StartError>> {
    let path = peers.state_dir.as_deref()?;
    let state = StateDir::open(path, &peers.cluster, &node.me.name, node.me.incarnation);
    Some(state.map_err(StartError::State))
}

fn new_node(options: &node::Options, clock: Clock) -> Node<Waiter> {
    let (local, wall_s) = ((clock.local)(), (clock.wall_s)());
    Node::new(options.clone(), Now { local, wall_s, ..Now::default() })
}

/// Listens for clients, and serves them.
fn start_workers(
    options: &Options,
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
) -> Result<(), StartError> {
    let settings = &options.node.settings;
    let runtimes =
        (0..settings.workers).map(|_| new_runtime()).collect::<Result<Vec<_>, StartError>>()?;
    let mut listeners: Vec<Vec<Listener>> = runtimes.iter().map(|_| Vec::new()).collect();
    let ports: String = bound.iter().filter_map(Bound::port_line).collect();
    for one in bound {
        let address = one.to_string();
        let of_workers = one.listen(settings.backlog, &runtimes)?;
        listeners.iter_mut().zip(of_workers).for_each(|(list, listener)| list.push(listener));
        tracing::info!(%address, "accepting clients");
    }
    if let Some(path) = &options.port_file {
        write_ports(path, &ports);
    }
    for (worker, (runtime, listeners)) in runtimes.into_iter().zip(listeners).enumerate() {
        let shared = Arc::clone(shared);
        let body = move || {
            runtime.block_on(async move {
                for listener in listeners {
                    listens(&shared.node, worker, &listener);
                    tokio::spawn(accept::accept(listener, worker, Arc::clone(&shared)));
                }
                std::future::pending::<()>().await;
            });
        };
        thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(body)
            .map_err(|error| StartError::System("start a worker thread", error))?;
    }
    Ok(())
}

/// Shows a listening socket among the connections.
fn listens(node: &Node<Waiter>, worker: usize, listener: &Listener) {
    if let Ok((descriptor, local)) = listener.socket() {
        node.listens(worker, descriptor, local, clock::now(node));
    }
}

/// Moved into place, so that nobody finds half of it. As with memcached, only worth a warning.
fn write_ports(path: &Path, ports: &str) {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".lck");
    let written = fs::write(&draft, ports).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write the file of the ports");
    }
}

fn new_runtime() -> Result<runtime::Runtime, StartError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("start a runtime", error))
}
