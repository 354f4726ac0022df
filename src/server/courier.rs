//! Carries a node's words out: messages into the queues of links, outcomes to waiting clients.
//!
//! Everything here is called under a shard's lock, so it only queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::clock;
use crate::node::Host;
use crate::record::Outcome;
use crate::replication::{Incarnation, LogWish, Message, Outside};
use crate::time::Millis;

/// How a client's task learns the outcome of its command.
pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// What waits to be sent, and to which life of the peer.
pub(crate) type Letter = (Incarnation, Message);

/// The queues to all configured peers.
#[derive(Debug)]
pub(crate) struct Links {
    peers: Vec<Link>,
    log: mpsc::UnboundedSender<LogWish>,
}

#[derive(Debug)]
struct Link {
    /// Of the life that the link is up with; 0 while it is down.
    incarnation: AtomicU64,
    queue: mpsc::UnboundedSender<Letter>,
}

impl Links {
    /// One link per queue, all down.
    pub(crate) fn new(
        queues: impl IntoIterator<Item = mpsc::UnboundedSender<Letter>>,
        log: mpsc::UnboundedSender<LogWish>,
    ) -> Self {
        let link = |queue| Link { incarnation: AtomicU64::new(0), queue };
        Self { peers: queues.into_iter().map(link).collect(), log }
    }

    /// From now on messages to this life go to that peer; `None`: the link is down.
    pub(crate) fn connect(&self, peer: usize, life: Option<Incarnation>) {
        let incarnation = life.map_or(0, |life| life.0);
        self.peers[peer].incarnation.store(incarnation, Ordering::Release);
    }
}

/// The outside of a node, as one task sees it.
#[derive(Debug)]
pub(crate) struct Courier {
    links: Arc<Links>,
    waiting: Option<oneshot::Receiver<Outcome>>,
}

impl Courier {
    /// A courier with nothing to wait for.
    pub(crate) fn new(links: Arc<Links>) -> Self {
        Self { links, waiting: None }
    }

    /// Where the outcome of the pending command will arrive.
    pub(crate) fn take_waiting(&mut self) -> Option<oneshot::Receiver<Outcome>> {
        self.waiting.take()
    }
}

impl Outside<Waiter> for Courier {
    fn send(&mut self, to: Incarnation, message: Message) {
        // A letter to a life that is over is dropped: the next view does without it.
        let is_up = |link: &&Link| link.incarnation.load(Ordering::Acquire) == to.0;
        if let Some(link) = self.links.peers.iter().find(is_up) {
            let _ = link.queue.send((to, message));
        }
    }

    fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        // A client that has gone does not need its answer.
        let _ = waiter.send(outcome);
    }

    fn still_waits(&self, waiter: &Waiter) -> bool {
        !waiter.is_closed()
    }

    fn ask_log(&mut self, wish: LogWish) {
        // Whoever reads the queue ends with the process.
        let _ = self.links.log.send(wish);
    }

    fn local_time(&self) -> Millis {
        clock::local()
    }
}

impl Host<Waiter> for Courier {
    fn waiter(&mut self) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.waiting = Some(receiver);
        sender
    }
}
