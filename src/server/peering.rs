//! Everything of a node in a group but its clients: on two threads, or on one `LocalSet` with
//! whatever network and clock a test brings.

use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio::task::spawn_local;

use super::courier::{Courier, Ends, Links, Waiter};
use super::guard::Guard;
use super::net::{Net, Tcp};
use super::{Clock, PeerOptions, StartError, control, data, new_node};
use crate::node::{self, Node};
use crate::time::Now;

/// What `sessiond ctl` says, and what is answered.
type Operators = Box<dyn Fn(&str) -> Result<String, String>>;

/// A node that runs on a `LocalSet`, until that is dropped.
pub struct Peering {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    operators: Operators,
}

impl Peering {
    /// The node itself.
    pub fn node(&self) -> &Node<Waiter> {
        &self.node
    }

    /// Carries what one client wants of other nodes.
    pub fn courier(&self) -> Courier {
        Courier::new(Arc::clone(&self.links))
    }

    /// What `sessiond ctl` says to it, and what it answers.
    pub fn obey(&self, line: &str) -> Result<String, String> {
        (self.operators)(line)
    }

    /// The present instant on it.
    pub fn now(&self) -> Now {
        self.links.now(&self.node)
    }
}

/// Runs a node over this network, by this clock, on the present `LocalSet`.
pub async fn live<N: Net>(
    node: node::Options,
    peers: PeerOptions,
    (net, listener): (N, N::Listener),
    clock: Clock,
) -> Result<Peering, StartError> {
    let (links, ends) = Links::new(&node.peers, clock);
    let (node, links) = (Arc::new(new_node(&node, clock)), Arc::new(links));
    let guard = Guard::new(&peers.security, &node.options().me.name);
    let guard = Arc::new(guard.map_err(StartError::Peers)?);
    let is_witness = peers.is_witness;
    let (setup, group) = parts(net, guard, peers, &node, &links, ends);
    let control = control::begin(listener, setup).await?;
    if !is_witness {
        spawn_local(data::run(Arc::clone(&node), group));
    }
    Ok(Peering { node, links, operators: Box::new(move |line| control.obey(line)) })
}

/// The two threads that speak with other nodes.
pub(super) fn start(
    peers: PeerOptions,
    guard: Arc<Guard>,
    socket: TcpSocket,
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    ends: Ends,
) -> Result<(), StartError> {
    let is_witness = peers.is_witness;
    let (setup, group) = parts(Tcp, guard, peers, &node, &links, ends);
    // First, so that whoever is dialed from here finds this node's port open.
    control::start(socket, setup)?;
    if is_witness { Ok(()) } else { data::start(node, group) }
}

fn parts<N: Net>(
    net: N,
    guard: Arc<Guard>,
    peers: PeerOptions,
    node: &Arc<Node<Waiter>>,
    links: &Arc<Links>,
    ends: Ends,
) -> (control::Setup<N>, data::Group<N>) {
    let (sender, visitors) = data::visitors();
    let group = data::Group {
        net: net.clone(),
        guard: Arc::clone(&guard),
        peers: peers.clone(),
        links: Arc::clone(links),
        queues: ends.data,
        visitors,
    };
    let setup = control::Setup {
        net,
        guard,
        peers,
        node: Arc::clone(node),
        links: Arc::clone(links),
        queues: ends.control,
        wishes: ends.wishes,
        visitors: sender,
    };
    (setup, group)
}
