//! Everything of a node in a group but its clients: on two threads, or on one `LocalSet` with
//! whatever network and clock a test brings.

use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;

use super::courier::{Courier, Links, Standing, Waiter};
use super::guard::Guard;
use super::net::{Net, Tcp};
use super::orders::Orders;
use super::succession::Estate;
use super::{Clock, PeerOptions, StartError, control, data, new_node};
use crate::membership;
use crate::node::{self, Node};
use crate::replication::{LogWish, Roster};
use crate::time::Now;

/// A node that runs on a `LocalSet`, until that is dropped.
pub struct Peering {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    status: Box<dyn Fn() -> String>,
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

    /// What `sessiond ctl status` says.
    pub fn status(&self) -> String {
        (self.status)()
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
    let seeds = Roster { nodes: node.nodes.clone(), ..Roster::default() };
    let standing = Standing { beside: None, succeeds: node.succeeds.clone() };
    let (links, wishes) = Links::new(seeds, standing, clock);
    let (node, links) = (Arc::new(new_node(&node, clock)), Arc::new(links));
    let guard = Guard::new(&peers.security, &node.options().me.name);
    let guard = Arc::new(guard.map_err(StartError::Peers)?);
    let is_witness = peers.is_witness;
    let orders = Arc::new(Orders::new(None));
    let parts = parts(net, guard, peers, (Arc::clone(&node), Arc::clone(&links), wishes), orders);
    let (setup, group) = parts;
    let control = control::begin(listener, setup).await?;
    if !is_witness {
        spawn_local(data::run(Arc::clone(&node), group));
    }
    let status = {
        let (node, links) = (Arc::clone(&node), Arc::clone(&links));
        Box::new(move || control.status(links.now(&node)))
    };
    Ok(Peering { node, links, status })
}

/// A node, the queues to its peers, and what it wishes of the log.
pub(super) type Inside = (Arc<Node<Waiter>>, Arc<Links>, UnboundedReceiver<LogWish>);

/// Starts the thread that speaks with other nodes of views. Returns where their log stands, and the
/// links of data, which are still to be run; a witness has none.
pub(super) fn start(
    peers: PeerOptions,
    (guard, socket): (Arc<Guard>, TcpSocket),
    inside: Inside,
    orders: Arc<Orders>,
    estate: Option<oneshot::Receiver<Estate>>,
) -> Result<(watch::Receiver<membership::Status>, Option<data::Group<Tcp>>), StartError> {
    let is_witness = peers.is_witness;
    let (setup, group) = parts(Tcp, guard, peers, inside, orders);
    // First, so that whoever is dialed from here finds this node's port open.
    let log = control::start(socket, setup, estate)?;
    Ok((log, (!is_witness).then_some(group)))
}

fn parts<N: Net>(
    net: N,
    guard: Arc<Guard>,
    peers: PeerOptions,
    (node, links, wishes): Inside,
    orders: Arc<Orders>,
) -> (control::Setup<N>, data::Group<N>) {
    let (sender, visitors) = data::visitors();
    let (queues, of_peers) = unbounded_channel();
    let group = data::Group {
        net: net.clone(),
        guard: Arc::clone(&guard),
        peers: peers.clone(),
        links: Arc::clone(&links),
        queues: of_peers,
        visitors,
    };
    let setup =
        control::Setup { net, guard, peers, node, links, queues, wishes, visitors: sender, orders };
    (setup, group)
}
