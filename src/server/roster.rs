//! The nodes of the group as they change: whom this node reaches, and who votes.
//!
//! All on the thread of the control links, which alone adds peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use tokio::task::spawn_local;
use tokio::time::{Duration, sleep};

use super::control::Control;
use super::net::Net;
use crate::replication::{Roster, names};

/// A node that was removed is heard for so long: it has to learn of it, and its clients go on
/// through the others meanwhile.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a node that has started may take to learn of the newest view.
const LEARN: Duration = Duration::from_secs(1);

impl<N: Net> Control<N> {
    /// Begins to reach those of the command line, or of what has been learned since; and of the own
    /// node another life, where there is one.
    pub(super) fn reach_all(self: &Rc<Self>) {
        let roster = self.links.roster().clone();
        for name in roster.nodes.keys() {
            let peer = self.links.find(name).unwrap_or_else(|| self.add(name));
            if **name != *self.me() || self.links.am_beside() {
                self.go_where_it_is(peer);
            }
        }
    }

    pub(super) fn me(&self) -> &str {
        &self.node.options().me.name
    }

    fn add(self: &Rc<Self>, name: &str) -> usize {
        let [of_peer, of_successor] = self.links.add(name);
        let found = of_peer.0;
        for (peer, ends) in [of_peer, of_successor] {
            spawn_local(Rc::clone(self).reach(peer, ends.control));
            // A witness has no thread for data.
            let _ = self.queues.send((peer, ends.data));
        }
        found
    }

    /// From now on this peer is dialed at the address of its node.
    pub(super) fn go_where_it_is(&self, peer: usize) {
        if let Some(address) = self.address_of(self.name(peer)) {
            self.links.set_address(peer, address);
        }
    }

    /// Where that node is to be reached; the own one at its own port.
    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        let roster = self.links.roster();
        let place = roster.nodes.get(name)?;
        if *name == *self.me() {
            let listen = self.peers.listen;
            let here: IpAddr = match listen.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            return Some(SocketAddr::new(here, listen.port()));
        }
        let own_way = self.node.options().nodes.get(name).filter(|_| !place.is_given);
        Some(own_way.unwrap_or(place).address)
    }

    /// These are the nodes of the group, unless something later is known.
    pub(super) fn turn_to(self: &Rc<Self>, roster: Roster) {
        let known = self.links.roster().clone();
        if roster.as_of <= known.as_of {
            return;
        }
        self.links.set_roster(roster.clone());
        if roster.nodes == known.nodes {
            return;
        }
        self.log.tell(|log| log.set_voters(roster.voters()));
        if !roster.nodes.contains_key(self.me()) {
            let nodes = names(&roster.nodes);
            tracing::warn!(nodes, "an operator has removed this node from the group");
            // The others end the links, when all is said.
            return;
        }
        if known.is_agreed() {
            tracing::info!(nodes = names(&roster.nodes), "the group consists of others now");
        }
        self.reach_all();
        let gone = self.links.names().filter(|(_, name)| !roster.nodes.contains_key(*name));
        for (peer, _) in gone {
            spawn_local(Rc::clone(self).say_farewell(peer));
        }
    }

    async fn say_farewell(self: Rc<Self>, peer: usize) {
        sleep(FAREWELL).await;
        if !self.links.roster().nodes.contains_key(self.name(peer)) {
            self.let_go(peer);
        }
    }

    /// The command line counts for a group that begins; later it only misleads its readers.
    pub(super) async fn compare_peers(self: Rc<Self>) {
        let mut known = self.links.watch_roster();
        if known.wait_for(Roster::is_agreed).await.is_err() {
            return;
        }
        // The log's file tells what there was, one view after the other, and others tell the rest.
        sleep(LEARN).await;
        let seeds = Roster { nodes: self.node.options().nodes.clone(), ..Roster::default() };
        let roster = self.links.roster().clone();
        if !roster.names_same(&seeds) {
            let (peers, nodes) = (names(&seeds.nodes), names(&roster.nodes));
            tracing::warn!(peers, nodes, "--peers is out of date: the group has changed");
        }
    }

    /// Tells the node whether its vote counts, whenever that changes.
    pub(super) async fn tell_seat(self: Rc<Self>) {
        let mut status = self.log.watch();
        let mut courier = self.courier();
        loop {
            let is_seated = status.borrow_and_update().is_seated;
            self.node.set_seated(is_seated, self.links.now(&self.node), &mut courier);
            if status.changed().await.is_err() {
                return;
            }
        }
    }
}
