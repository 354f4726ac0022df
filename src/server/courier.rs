//! Carries a node's words out: messages into the queues of links, outcomes to waiting clients.
//!
//! Everything here is called under a shard's lock, so it only queues. The bounds are kept behind
//! the queues, by the tasks that empty them at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot};

use super::clock::Clock;
use crate::node::{Host, Node};
use crate::record::Outcome;
use crate::replication::{Incarnation, LogWish, Message, Outside};
use crate::time::{Millis, Now};

/// How a client's task learns the outcome of its command.
pub type Waiter = oneshot::Sender<Outcome>;

/// What waits to be sent, and to which life of the peer.
pub(crate) type Letter = (Incarnation, Message);

/// The queues to all configured peers, and to the log of views; and the time.
#[derive(Debug)]
pub(crate) struct Links {
    peers: Vec<Link>,
    log: UnboundedSender<LogWish>,
    clock: Clock,
}

#[derive(Debug)]
struct Link {
    name: Box<str>,
    /// The newest life that was met; 0 before.
    life: AtomicU64,
    /// That life only votes: there is no data to send it.
    is_witness: AtomicBool,
    control: Way,
    data: Way,
}

/// One kind of connection to a peer.
#[derive(Debug)]
struct Way {
    queue: UnboundedSender<Letter>,
    /// Its dialer should look whether it has still to do with the right life.
    wake: Notify,
}

/// The other ends of all queues; by peer.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) control: Vec<UnboundedReceiver<Letter>>,
    pub(crate) data: Vec<UnboundedReceiver<Letter>>,
    pub(crate) wishes: UnboundedReceiver<LogWish>,
}

impl Links {
    /// Queues to the peers of these names, none of which was met.
    pub(crate) fn new(names: &[Box<str>], clock: Clock) -> (Self, Ends) {
        let (log, wishes) = mpsc::unbounded_channel();
        let (mut control, mut data) = (Vec::new(), Vec::new());
        let way = |ends: &mut Vec<UnboundedReceiver<Letter>>| {
            let (queue, end) = mpsc::unbounded_channel();
            ends.push(end);
            Way { queue, wake: Notify::new() }
        };
        let mut peers = Vec::new();
        for name in names {
            let (control, data) = (way(&mut control), way(&mut data));
            peers.push(Link {
                name: name.clone(),
                life: AtomicU64::new(0),
                is_witness: AtomicBool::new(false),
                control,
                data,
            });
        }
        (Self { peers, log, clock }, Ends { control, data, wishes })
    }

    /// The time on this node.
    pub(crate) fn local(&self) -> Millis {
        (self.clock.local)()
    }

    /// The present instant, as the node sees it.
    pub(crate) fn now<W>(&self, node: &Node<W>) -> Now {
        node.now(self.local(), (self.clock.wall_s)())
    }

    /// A connection shows that this is the present life of that peer.
    pub(crate) fn meet(&self, peer: usize, life: Incarnation) {
        let Link { life: known, control, data, .. } = &self.peers[peer];
        if known.swap(life.0, Ordering::AcqRel) != life.0 {
            control.wake.notify_one();
            data.wake.notify_one();
        }
    }

    /// Its present life only votes, or holds data.
    pub(crate) fn set_witness(&self, peer: usize, is_witness: bool) {
        self.peers[peer].is_witness.store(is_witness, Ordering::Release);
    }

    /// Whether its present life only votes, as far as known.
    pub(crate) fn is_witness(&self, peer: usize) -> bool {
        self.peers[peer].is_witness.load(Ordering::Acquire)
    }

    /// Whether that is its present life, as far as known.
    pub(crate) fn is_life(&self, peer: usize, life: Incarnation) -> bool {
        self.peers[peer].life.load(Ordering::Acquire) == life.0
    }

    /// Until the control connection to that peer should be looked after.
    pub(crate) async fn control_woken(&self, peer: usize) {
        self.peers[peer].control.wake.notified().await;
    }

    /// The same for the connection of its data.
    pub(crate) async fn data_woken(&self, peer: usize) {
        self.peers[peer].data.wake.notified().await;
    }

    /// Somebody has to look after the control connection to that peer.
    pub(crate) fn wake_control(&self, peer: usize) {
        self.peers[peer].control.wake.notify_one();
    }

    /// For the present life of the peer of that name; lost while there is none.
    pub(crate) fn send_to(&self, name: &str, message: Message) {
        if let Some(link) = self.peers.iter().find(|link| *link.name == *name) {
            let life = Incarnation(link.life.load(Ordering::Acquire));
            let _ = link.control.queue.send((life, message));
        }
    }

    fn send(&self, to: Incarnation, message: Message) {
        // A letter to a life that was never met, or is over, is dropped: no view needs it.
        let is_it = |link: &&Link| link.life.load(Ordering::Acquire) == to.0;
        if let Some(link) = self.peers.iter().find(is_it) {
            let way = match message {
                Message::Lane(..) => &link.data,
                _ => &link.control,
            };
            let _ = way.queue.send((to, message));
        }
    }
}

/// The outside of a node, as one task sees it.
#[derive(Debug)]
pub struct Courier {
    links: Arc<Links>,
    waiting: Option<oneshot::Receiver<Outcome>>,
}

impl Courier {
    /// A courier with nothing to wait for.
    pub(crate) fn new(links: Arc<Links>) -> Self {
        Self { links, waiting: None }
    }

    /// Where the outcome of the pending command will arrive.
    pub fn take_waiting(&mut self) -> Option<oneshot::Receiver<Outcome>> {
        self.waiting.take()
    }
}

impl Outside<Waiter> for Courier {
    fn send(&mut self, to: Incarnation, message: Message) {
        self.links.send(to, message);
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
        self.links.local()
    }
}

impl Host<Waiter> for Courier {
    fn waiter(&mut self) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.waiting = Some(receiver);
        sender
    }
}
