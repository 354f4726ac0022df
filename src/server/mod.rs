//! The only sockets, tasks and clocks: everything between the operating system and a `Node`.
//!
//! Each worker thread runs a single-threaded runtime and accepts for itself; links to peers live
//! on a thread of their own, so that they never wait behind clients.

mod buffers;
mod client;
mod clock;
mod courier;
mod handshake;
mod listener;
mod peer;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use courier::{Links, Waiter};
use listener::Bound;

use crate::node::{self, Endpoint, Node};
use crate::protocol::reply;
use crate::stats::Gauge;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the node is told.
    pub node: node::Options,
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// The kernel's queue of connections that wait to be accepted.
    pub backlog: u32,
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
    /// A link is down when nothing has come in for this long.
    pub suspect_ms: u64,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be bound.
    Bind(SocketAddr, io::Error),
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
    serving: watch::Receiver<bool>,
    stopping: AtomicBool,
    /// Clients whose writes are on their way.
    waiting: Gauge,
    write_timeout_ms: u64,
    hold_timeout_ms: u64,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// At a stop, writes that are on their way get this long to be confirmed.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Runs a server until SIGINT or SIGTERM.
pub fn run(options: Options) -> Result<(), StartError> {
    let workers = options.node.workers;
    let bound: Vec<Bound> = options
        .listen
        .iter()
        .map(|&address| Bound::new(address, workers))
        .collect::<Result<_, _>>()?;
    raise_file_limit(options.node.connections_max);
    let runtime = new_runtime()?;
    runtime.block_on(run_in(options, bound))
}

async fn run_in(options: Options, bound: Vec<Bound>) -> Result<(), StartError> {
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let mut terminate = on_signal(SignalKind::terminate())?;
    let (node, links) = (Arc::new(new_node(&options)), peer::queues(&options));
    let (queues, links) = (links.receivers, Arc::new(links.links));
    let (serving_sender, serving) = watch::channel(false);
    let shared = Arc::new(Shared {
        node: Arc::clone(&node),
        links: Arc::clone(&links),
        serving: serving.clone(),
        stopping: AtomicBool::new(false),
        waiting: Gauge::default(),
        write_timeout_ms: options.write_timeout_ms,
        hold_timeout_ms: options.hold_timeout_ms,
    });
    peer::start(&options, node, links, queues, serving_sender)?;
    let work = async {
        let mut serving = serving;
        // Without a complete copy a client could be told that its session does not exist.
        let _ = serving.wait_for(|serving| *serving).await;
        start_workers(&options, bound, &shared)?;
        std::future::pending::<Result<(), StartError>>().await
    };
    tokio::select! {
        failed = work => return failed,
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
    }
    shared.stopping.store(true, Ordering::Relaxed);
    let quiet = async {
        while shared.waiting.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(STOP_WAIT, quiet).await.is_err() {
        tracing::warn!(writes = shared.waiting.get(), "stopped before all writes were confirmed");
    }
    Ok(())
}

fn new_node(options: &Options) -> Node<Waiter> {
    let now = crate::time::Now {
        local: clock::local(),
        wall_s: clock::wall_s(),
        ..crate::time::Now::default()
    };
    Node::new(options.node.clone(), now)
}

fn start_workers(
    options: &Options,
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
) -> Result<(), StartError> {
    let mut sockets: Vec<Vec<_>> = (0..options.node.workers).map(|_| Vec::new()).collect();
    for Bound { address, sockets: of_address } in bound {
        for (worker, socket) in of_address.into_iter().enumerate() {
            sockets[worker].push((address, socket));
        }
        tracing::info!(%address, "accepting clients");
    }
    for (worker, sockets) in sockets.into_iter().enumerate() {
        let (shared, backlog) = (Arc::clone(shared), options.backlog);
        let runtime = new_runtime()?;
        let body = move || {
            runtime.block_on(async move {
                for (address, socket) in sockets {
                    match socket.listen(backlog) {
                        Ok(listener) => {
                            listens(&shared.node, worker, address, &listener);
                            tokio::spawn(accept(listener, worker, Arc::clone(&shared)));
                        }
                        Err(error) => tracing::error!(%address, %error, "cannot listen"),
                    }
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
fn listens(node: &Node<Waiter>, worker: usize, address: SocketAddr, listener: &TcpListener) {
    let local = Endpoint::Tcp(listener.local_addr().unwrap_or(address));
    node.listens(worker, listener.as_raw_fd(), local, clock::now(node));
}

/// Accepts for one worker until the process ends.
async fn accept(listener: TcpListener, worker: usize, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = &shared.node;
                let counters = node.counters(worker);
                if !node.gauges().connections.try_take(node.options().connections_max as u64) {
                    counters.rejected_connections.add(1);
                    // It fits the empty send buffer; should it not, closing says enough.
                    let _ = stream.try_write(reply::TOO_MANY_CONNECTIONS);
                    continue;
                }
                counters.total_connections.add(1);
                // Replies are written whole, so waiting for more could only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                tokio::spawn(client::serve(stream, worker, Arc::clone(&shared)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                // Usually out of file descriptors: trying again at once would spin.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn new_runtime() -> Result<runtime::Runtime, StartError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("start a runtime", error))
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, StartError> {
    signal(kind).map_err(|error| StartError::System("handle signals", error))
}

/// Files that a server needs besides its clients' connections.
const FILES_BESIDE: u64 = 256;

/// Raises the limit of open files towards what `-c` needs; with less, accepting fails late.
fn raise_file_limit(connections_max: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections_max as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let reachable = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit { current: Some(reachable), maximum: limit.maximum };
    if reachable < wanted || setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!(wanted, allowed = reachable, "the limit of open files is below -c");
    }
}
