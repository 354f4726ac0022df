//! Carries a node's words out: messages into the queues of links, outcomes to waiting clients.
//!
//! Everything here is called under a shard's lock, so it writes down and queues, and never waits. The
//! bounds are kept behind the queues, by the tasks that empty them at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot, watch};

use super::clock::Clock;
use crate::chunk::Chunk;
use crate::node::{Host, Node};
use crate::record::Outcome;
use crate::replication::message::{Beside, Packet};
use crate::replication::{Dialect, Incarnation, LogWish, Message, Outside, Roster};
use crate::time::{Millis, Now};

/// How a client's task learns the outcome of its command.
pub type Waiter = oneshot::Sender<Outcome>;

/// What waits to be sent, and to which life of the peer.
pub(crate) type Letter = (Incarnation, Message);
/// The same for the connections of data.
pub(crate) type Parcel = (Incarnation, Packet);

/// The queues to all peers that there ever were, and to the log of views.
///
/// Every thread looks into it all the time, and peers come seldom: so each is the tail of the one
/// before, and none ever goes. A peer that is no more of the group has no address.
///
/// Of each name there are two: one to the life that holds the node's port and vote, one to a life
/// beside it. When that takes over, they change their parts: a session stays on its link.
#[derive(Debug)]
pub(crate) struct Links {
    first: OnceLock<Box<Link>>,
    log: UnboundedSender<LogWish>,
    roster: watch::Sender<Roster>,
    standing: watch::Sender<Standing>,
    clock: Clock,
}

/// How this life of its node stands to others of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// The one that it was started beside of, until that is over.
    pub(crate) beside: Option<Beside>,
    /// Those that are certainly over.
    pub(crate) succeeds: Vec<Incarnation>,
}

#[derive(Debug)]
struct Link {
    name: Box<str>,
    /// It is for a life beside another one of that name.
    is_beside: AtomicBool,
    /// The newest life that was met; 0 before.
    life: AtomicU64,
    /// That life only votes: there is no data to send it.
    is_witness: AtomicBool,
    /// What that life speaks.
    speaks: watch::Sender<Option<Dialect>>,
    /// Where it is to be reached, as long as it is of the group.
    address: watch::Sender<Option<SocketAddr>>,
    control: Way<Letter>,
    data: Way<Parcel>,
    next: OnceLock<Box<Self>>,
}

impl Link {
    fn is_beside(&self) -> bool {
        self.is_beside.load(Ordering::Acquire)
    }

    fn is_life(&self, life: Incarnation) -> bool {
        self.life.load(Ordering::Acquire) == life.0
    }
}

/// One kind of connection to a peer.
#[derive(Debug)]
struct Way<T> {
    queue: UnboundedSender<T>,
    /// Its dialer should look whether it has still to do with the right life.
    wake: Notify,
}

impl<T> Way<T> {
    fn new() -> (Self, UnboundedReceiver<T>) {
        let (queue, end) = mpsc::unbounded_channel();
        (Self { queue, wake: Notify::new() }, end)
    }
}

/// The other ends of a peer's queues.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) control: UnboundedReceiver<Letter>,
    pub(crate) data: UnboundedReceiver<Parcel>,
}

impl Links {
    /// Nobody is known yet but by name.
    pub(crate) fn new(
        roster: Roster,
        standing: Standing,
        clock: Clock,
    ) -> (Self, UnboundedReceiver<LogWish>) {
        let (log, wishes) = mpsc::unbounded_channel();
        let (roster, standing) = (watch::Sender::new(roster), watch::Sender::new(standing));
        (Self { first: OnceLock::new(), log, roster, standing, clock }, wishes)
    }

    /// Queues to both kinds of lives of a peer of that name, which was never met. To be called by one
    /// thread only, which has seen that there is none.
    pub(crate) fn add(&self, name: &str) -> [(usize, Ends); 2] {
        [false, true].map(|is_beside| self.add_one(name, is_beside))
    }

    fn add_one(&self, name: &str, is_beside: bool) -> (usize, Ends) {
        let ((control, of_control), (data, of_data)) = (Way::new(), Way::new());
        let link = Link {
            name: name.into(),
            is_beside: AtomicBool::new(is_beside),
            life: AtomicU64::new(0),
            is_witness: AtomicBool::new(false),
            speaks: watch::Sender::new(None),
            address: watch::Sender::new(None),
            control,
            data,
            next: OnceLock::new(),
        };
        let place = self.all().last().map_or(&self.first, |last| &last.next);
        let peer = self.all().count();
        let is_new = place.set(Box::new(link)).is_ok();
        assert!(is_new, "only one thread adds peers");
        (peer, Ends { control: of_control, data: of_data })
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        iter::successors(self.first.get(), |link| link.next.get()).map(|link| &**link)
    }

    fn link(&self, peer: usize) -> &Link {
        self.all().nth(peer).expect("a peer has its number from here, and none ever goes")
    }

    /// The link to the peer of that name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.find_as(name, false)
    }

    /// The link to the peer of that name, or to a life beside it.
    pub(crate) fn find_as(&self, name: &str, is_beside: bool) -> Option<usize> {
        let is_it = |link: &Link| *link.name == *name && link.is_beside() == is_beside;
        self.all().position(is_it)
    }

    /// The link to that very life of a peer.
    pub(crate) fn find_life(&self, name: &str, life: Incarnation) -> Option<usize> {
        let is_it = |link: &Link| *link.name == *name && link.is_life(life);
        self.all().position(is_it)
    }

    /// Whether it is for a life beside another one of its name.
    pub(crate) fn is_beside(&self, peer: usize) -> bool {
        self.link(peer).is_beside()
    }

    /// That life has taken the place of the one that it was beside of: this is the peer of its name now,
    /// and the other link, which nobody uses any more, waits for the next one.
    pub(crate) fn promote(&self, peer: usize) {
        let former = self.find(self.name(peer));
        self.link(peer).is_beside.store(false, Ordering::Release);
        if let Some(former) = former {
            self.link(former).is_beside.store(true, Ordering::Release);
        }
    }

    /// How this life stands to others of its node.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether the node's port and vote are another life's.
    pub(crate) fn am_beside(&self) -> bool {
        self.standing.borrow().beside.is_some()
    }

    /// From now on they are this life's. Whoever keeps a connection says so on a new one.
    pub(crate) fn take_over(&self, succeeds: Vec<Incarnation>) {
        self.standing.send_replace(Standing { beside: None, succeeds });
        (0..self.all().count()).for_each(|peer| self.wake(peer));
    }

    /// All of them, with their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.all().enumerate().map(|(peer, link)| (peer, &*link.name))
    }

    /// Its name.
    pub(crate) fn name(&self, peer: usize) -> &str {
        &self.link(peer).name
    }

    /// Where it is to be reached, and whenever that changes.
    pub(crate) fn address(&self, peer: usize) -> watch::Receiver<Option<SocketAddr>> {
        self.link(peer).address.subscribe()
    }

    /// From now on it is to be reached there.
    pub(crate) fn set_address(&self, peer: usize, address: SocketAddr) {
        self.link(peer).address.send_if_modified(|known| known.replace(address) != Some(address));
        self.wake(peer);
    }

    /// It is not of the group any more: nobody dials it, and nothing is sent to it.
    pub(crate) fn let_go(&self, peer: usize) {
        let link = self.link(peer);
        link.life.store(0, Ordering::Release);
        link.address.send_replace(None);
        self.wake(peer);
    }

    fn wake(&self, peer: usize) {
        let Link { control, data, .. } = self.link(peer);
        control.wake.notify_one();
        data.wake.notify_one();
    }

    /// The nodes of the group, as far as known.
    pub(crate) fn roster(&self) -> watch::Ref<'_, Roster> {
        self.roster.borrow()
    }

    /// The same, as it changes.
    pub(crate) fn watch_roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// The group consists of these.
    pub(crate) fn set_roster(&self, roster: Roster) {
        self.roster.send_replace(roster);
    }

    /// The same as `Outside::ask_log`.
    pub(crate) fn wish(&self, wish: LogWish) {
        // Whoever reads the queue ends with the process.
        let _ = self.log.send(wish);
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
        if self.link(peer).life.swap(life.0, Ordering::AcqRel) != life.0 {
            self.wake(peer);
        }
    }

    /// What its present life speaks.
    pub(crate) fn set_speaks(&self, peer: usize, speaks: Dialect) {
        self.link(peer).speaks.send_replace(Some(speaks));
    }

    /// What those speak that are of the group and were met, by name.
    pub(crate) fn dialects(&self) -> BTreeMap<Box<str>, Dialect> {
        let is_of_group = |link: &&Link| !link.is_beside() && link.address.borrow().is_some();
        let met = self.all().filter(is_of_group);
        met.filter_map(|link| Some((link.name.clone(), (*link.speaks.borrow())?))).collect()
    }

    /// Its present life only votes, or holds data.
    pub(crate) fn set_witness(&self, peer: usize, is_witness: bool) {
        self.link(peer).is_witness.store(is_witness, Ordering::Release);
    }

    /// Whether its present life only votes, as far as known.
    pub(crate) fn is_witness(&self, peer: usize) -> bool {
        self.link(peer).is_witness.load(Ordering::Acquire)
    }

    /// Whether that is its present life, as far as known.
    pub(crate) fn is_life(&self, peer: usize, life: Incarnation) -> bool {
        self.link(peer).is_life(life)
    }

    /// Until the control connection to that peer should be looked after.
    pub(crate) async fn control_woken(&self, peer: usize) {
        self.link(peer).control.wake.notified().await;
    }

    /// The same for the connection of its data.
    pub(crate) async fn data_woken(&self, peer: usize) {
        self.link(peer).data.wake.notified().await;
    }

    /// Somebody has to look after the control connection to that peer.
    pub(crate) fn wake_control(&self, peer: usize) {
        self.link(peer).control.wake.notify_one();
    }

    /// For the present life of the peer of that name; lost while there is none.
    pub(crate) fn send_to(&self, name: &str, message: Message) {
        if let Some(link) = self.all().find(|link| *link.name == *name && !link.is_beside()) {
            let life = Incarnation(link.life.load(Ordering::Acquire));
            let _ = link.control.queue.send((life, message));
        }
    }

    /// The one whose present life that is. A letter to a life that was never met, or is over, is
    /// dropped: no view needs it.
    fn link_to(&self, life: Incarnation) -> Option<&Link> {
        self.all().find(|link| link.is_life(life))
    }

    fn send(&self, to: Incarnation, message: Message) {
        let Some(link) = self.link_to(to) else {
            return;
        };
        if let Message::Lane(..) = message {
            let _ = link.data.queue.send((to, packet_of(&message)));
        } else {
            let _ = link.control.queue.send((to, message));
        }
    }

    /// Written down once, however many it goes to.
    fn send_all(&self, to: impl Iterator<Item = Incarnation>, message: &Message) {
        let mut packet = None;
        for life in to {
            if let Some(link) = self.link_to(life) {
                let packet = packet.get_or_insert_with(|| packet_of(message)).clone();
                let _ = link.data.queue.send((life, packet));
            }
        }
    }
}

thread_local! {
    static CHUNK: RefCell<Chunk> = RefCell::default();
}

fn packet_of(message: &Message) -> Packet {
    CHUNK.with_borrow_mut(|chunk| Packet::of(message, chunk))
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

    fn send_all(&mut self, to: impl Iterator<Item = Incarnation>, message: Message) {
        self.links.send_all(to, &message);
    }

    fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        // A client that has gone does not need its answer.
        let _ = waiter.send(outcome);
    }

    fn still_waits(&self, waiter: &Waiter) -> bool {
        !waiter.is_closed()
    }

    fn ask_log(&mut self, wish: LogWish) {
        self.links.wish(wish);
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
