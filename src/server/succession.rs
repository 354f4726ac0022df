//! Two lives of one node beside each other, as links and the log see it: the new one is reached at a
//! port of its own, and has no place in the log, until the former one is over. Then it has all that
//! was that one's: the port, the place, the word of operators.
//!
//! When that is the case, and what happens to clients, is `heir.rs`'s.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Duration, sleep};

use super::StartError;
use super::control::{BACKLOG, Control};
use super::courier::Courier;
use super::net::{Net, Tcp};
use crate::membership;
use crate::replication::{Hello, Incarnation};

/// A process that has just ended still holds this or that for some milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LET_GO_MAX_MS: u64 = 2000;

/// What a life leaves to the one beside it, which has the lock of the state directory by then.
pub(super) struct Estate {
    /// The node's port.
    pub(super) port: TcpSocket,
    /// The lives that are over.
    pub(super) former: Vec<Incarnation>,
    /// Where to say that all is taken over, or why not.
    pub(super) done: oneshot::Sender<Result<(), StartError>>,
}

impl Control<Tcp> {
    /// Waits for the end of the other life, and takes over.
    pub(super) async fn come_into(self: &Rc<Self>, estate: oneshot::Receiver<Estate>) {
        let Ok(Estate { port, former, done }) = estate.await else { return };
        let address = self.peers.listen;
        let taken = match port.listen(BACKLOG) {
            Ok(listener) => self.take_over(listener, former).await,
            Err(error) => Err(StartError::Bind(address, error)),
        };
        // Whoever waits for it ends with the process.
        let _ = done.send(taken);
    }
}

impl<N: Net> Control<N> {
    /// The other life of this node is over: what was its own is this one's. First the port, so that
    /// whoever hears of it finds it open.
    async fn take_over(
        self: &Rc<Self>,
        listener: N::Listener,
        former: Vec<Incarnation>,
    ) -> Result<(), StartError> {
        spawn_local(Rc::clone(self).accept(listener));
        if let Some(predecessor) = self.links.find(self.me()) {
            self.let_go(predecessor);
        }
        self.begin_log().await?;
        self.hear_operators();
        self.links.take_over(former.clone());
        self.node.take_over(&former, self.links.now(&self.node), &mut self.courier());
        Ok(())
    }

    async fn begin_log(&self) -> Result<(), StartError> {
        let since = self.links.local();
        loop {
            match self.log.begin(&self.peers).await {
                Err(membership::StartError::InUse(_))
                    if self.links.local().since(since) < LET_GO_MAX_MS =>
                {
                    sleep(LOOK_AGAIN).await;
                }
                begun => {
                    begun.map_err(StartError::Membership)?;
                    break;
                }
            }
        }
        let up = self
            .links
            .names()
            .filter(|(peer, _)| self.is_up(*peer) && !self.links.is_beside(*peer));
        up.for_each(|(_, name)| self.log.tell(|log| log.peer_up(name)));
        Ok(())
    }

    // Other nodes with two lives.

    /// A life says whether it is beside another one, or has taken over.
    pub(super) fn note_standing(&self, peer: usize, hello: &Hello) {
        if !self.links.is_beside(peer) {
            return;
        }
        let address = self.address_of(&hello.name);
        match (hello.purpose.beside(), address) {
            (Some(beside), Some(address)) => {
                self.links.set_address(peer, SocketAddr::new(address.ip(), beside.port));
            }
            (Some(_), None) => {}
            (None, _) => self.promote(peer),
        }
    }

    /// The life beside another one has taken over: its link is that to its node now.
    fn promote(&self, peer: usize) {
        let name = self.name(peer);
        tracing::info!(peer = name, "a new life of it has taken over");
        if let Some(former) = self.links.find(name) {
            self.let_go(former);
        }
        self.links.promote(peer);
        self.go_where_it_is(peer);
        if self.is_up(peer) {
            self.log.tell(|log| log.peer_up(name));
        }
    }

    /// Nobody listens where a life is that is beside another. If its connection has `ended` in order,
    /// it is over; if not, it can't be reached from here, and does not join.
    pub(super) fn refused_beside(
        &self,
        peer: usize,
        ended: Option<Incarnation>,
        courier: &mut Courier,
    ) {
        self.links.let_go(peer);
        if let Some(life) = ended.filter(|_| !self.is_witness) {
            self.node.ended(life, self.links.now(&self.node), courier);
        }
    }
}
