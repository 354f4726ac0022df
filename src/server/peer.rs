//! Links to the other nodes: each side dials, and speaks on the connection that it dialed.
//!
//! One task, the switchboard, feeds the node, so that what one peer says is heard in order. A link
//! is up while both directions work with the same life of the peer; when one ends, both do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Duration, MissedTickBehavior, interval, sleep, timeout};

use super::courier::{Courier, Letter, Links, Waiter};
use super::handshake::{self, Greeting};
use super::{Options, StartError, clock, new_runtime};
use crate::node::Node;
use crate::replication::message::{self, BadFrame, Frame, Message};
use crate::replication::{Hello, Incarnation, LogWish, Member};

/// How often the node is told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// A link says something at least this often.
const BEAT: Duration = Duration::from_millis(50);
/// The kernel's queue of peers that wait to be accepted.
const BACKLOG: u32 = 64;
/// Between two attempts to reach a peer.
const REDIAL: Duration = Duration::from_millis(100);
/// Batches of messages that may wait for the switchboard, per process.
const EVENTS_MAX: usize = 256;
/// Messages of one peer that may wait for its link to be up here too.
const EARLY_MAX: usize = 1000;
/// Bytes of queued messages that go into one write.
const BATCH_BYTES: usize = 128 << 10;

/// What happened on a connection of peer `usize`.
enum Event {
    DialedUp(usize, Hello),
    DialedDown(usize, Incarnation),
    AcceptedUp(usize, Hello, Reader),
    Heard(usize, Incarnation, Vec<Message>),
    AcceptedDown(usize, ConnectionId),
}

/// Tells apart two connections from the same life of a peer.
type ConnectionId = u64;

/// The task that reads an accepted connection.
struct Reader {
    connection: ConnectionId,
    task: AbortHandle,
}

type Events = mpsc::Sender<Event>;

/// The queues of all links, both ends.
pub(super) struct Queues {
    pub(super) links: Links,
    pub(super) receivers: Vec<UnboundedReceiver<Letter>>,
    pub(super) wishes: UnboundedReceiver<LogWish>,
}

/// Queues for every configured peer.
pub(super) fn queues(options: &Options) -> Queues {
    let peers = options.node.peers.iter();
    let (senders, receivers): (Vec<_>, Vec<_>) = peers.map(|_| mpsc::unbounded_channel()).unzip();
    let (log, wishes) = mpsc::unbounded_channel();
    Queues { links: Links::new(senders, log), receivers, wishes }
}

/// Starts the thread of the links; `serving` follows the node from then on.
pub(super) fn start(
    options: &Options,
    socket: Option<TcpSocket>,
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    queues: Vec<UnboundedReceiver<Letter>>,
    serving: watch::Sender<bool>,
) -> Result<(), StartError> {
    let runtime = new_runtime()?;
    let peers = options.peers.clone();
    let body = move || {
        runtime.block_on(async move {
            let (events, inbox) = mpsc::channel(EVENTS_MAX);
            let switchboard = Switchboard::new(Arc::clone(&node), links, serving);
            if let (Some(peers), Some(socket)) = (peers, socket) {
                let greeting = Arc::new(Greeting::new(&peers, Arc::clone(&node)));
                let listener = match socket.listen(BACKLOG) {
                    Ok(listener) => listener,
                    Err(error) => {
                        tracing::error!(address = %peers.listen, %error, "cannot listen for peers");
                        return;
                    }
                };
                tokio::spawn(accept(
                    listener,
                    Arc::clone(&greeting),
                    events.clone(),
                    peers.suspect_ms,
                ));
                for (peer, queue) in queues.into_iter().enumerate() {
                    let address = peers.addresses[peer];
                    let redial = switchboard.peers[peer].redial.subscribe();
                    let greeting = Arc::clone(&greeting);
                    let dialer = Dialer { peer, address, queue, greeting, redial };
                    tokio::spawn(dialer.run(events.clone()));
                }
            }
            switchboard.run(inbox, events).await;
        });
    };
    thread::Builder::new()
        .name("links".into())
        .spawn(body)
        .map(drop)
        .map_err(|error| StartError::System("start the thread of the links", error))
}

/// The one task that tells the node what happens on its links.
struct Switchboard {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    courier: Courier,
    serving: watch::Sender<bool>,
    peers: Vec<Peer>,
}

/// Both directions of one link.
#[derive(Default)]
struct Peer {
    dialed: Option<Hello>,
    accepted: Option<(Hello, Reader)>,
    up: Option<Incarnation>,
    /// Counts how often the outgoing connection was to be given up.
    redial: watch::Sender<u64>,
    /// Heard while only the peer knew that the link is up.
    early: Vec<Message>,
}

impl Switchboard {
    fn new(node: Arc<Node<Waiter>>, links: Arc<Links>, serving: watch::Sender<bool>) -> Self {
        let peers = node.options().peers.iter().map(|_| Peer::default()).collect();
        let courier = Courier::new(Arc::clone(&links));
        Self { node, links, courier, serving, peers }
    }

    /// `_events` keeps the inbox open where there is nobody to dial.
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>, _events: Events) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(event) = inbox.recv() => self.hear(event),
                _ = tick.tick() => {
                    self.node.tick(clock::now(&self.node), &mut self.courier);
                    clock::note_cpu_time(&self.node);
                }
            }
            let is_serving = self.node.is_serving();
            self.serving
                .send_if_modified(|serving| std::mem::replace(serving, is_serving) != is_serving);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::DialedUp(peer, hello) => {
                self.peers[peer].dialed = Some(hello);
                self.update(peer);
            }
            Event::DialedDown(peer, life) => {
                let slot = &mut self.peers[peer];
                slot.dialed.take_if(|hello| hello.incarnation == life);
                self.update(peer);
            }
            Event::AcceptedUp(peer, hello, reader) => {
                let slot = &mut self.peers[peer];
                let is_other = |dialed: &Hello| dialed.incarnation != hello.incarnation;
                if slot.dialed.as_ref().is_some_and(is_other) {
                    // Its machine lost power: nobody has closed our connection to the former life.
                    slot.redial.send_modify(|count| *count += 1);
                }
                if let Some((_, older)) = slot.accepted.replace((hello, reader)) {
                    older.task.abort();
                    self.take_down(peer);
                }
                self.update(peer);
            }
            Event::AcceptedDown(peer, connection) => {
                let slot = &mut self.peers[peer];
                let is_it = |(_, reader): &mut (Hello, Reader)| reader.connection == connection;
                if slot.accepted.take_if(is_it).is_some() {
                    slot.early.clear();
                    if slot.up.is_some() {
                        // Both directions end together, so that both begin with nothing on the way.
                        slot.redial.send_modify(|count| *count += 1);
                    }
                }
                self.update(peer);
            }
            Event::Heard(peer, life, messages) => self.pass_on(peer, life, messages),
        }
    }

    fn pass_on(&mut self, peer: usize, life: Incarnation, messages: Vec<Message>) {
        for message in messages {
            if self.peers[peer].up != Some(life) {
                self.keep(peer, life, message);
                continue;
            }
            let now = clock::now(&self.node);
            if let Err(violation) = self.node.receive(life, message, now, &mut self.courier) {
                return self.drop_link(peer, violation.0);
            }
        }
    }

    /// The side that dialed last learns a moment later that the link is up.
    fn keep(&mut self, peer: usize, life: Incarnation, message: Message) {
        let slot = &mut self.peers[peer];
        if slot.accepted.as_ref().is_none_or(|(hello, _)| hello.incarnation != life) {
            return;
        }
        if matches!(message, Message::Beat(_)) {
            return;
        }
        slot.early.push(message);
        if slot.early.len() > EARLY_MAX {
            self.drop_link(peer, "too much said before the link was up");
        }
    }

    fn drop_link(&mut self, peer: usize, rule: &'static str) {
        tracing::error!(peer = %self.node.options().peers[peer], rule, "link dropped");
        if let Some((_, reader)) = self.peers[peer].accepted.take() {
            reader.task.abort();
        }
        self.update(peer);
    }

    /// Compares what both directions say with what the node knows.
    fn update(&mut self, peer: usize) {
        let Peer { dialed, accepted, up, .. } = &self.peers[peer];
        let up = *up;
        let both = match (dialed, accepted) {
            (Some(dialed), Some((accepted, _))) if dialed.incarnation == accepted.incarnation => {
                Some((dialed.incarnation, dialed.succeeds.clone()))
            }
            _ => None,
        };
        if both.as_ref().map(|(life, _)| *life) == up {
            return;
        }
        let Some((life, succeeds)) = both else {
            return self.take_down(peer);
        };
        if up.is_some() {
            self.take_down(peer);
        }
        let name = self.node.options().peers[peer].clone();
        tracing::info!(peer = %name, "link up");
        self.peers[peer].up = Some(life);
        self.links.connect(peer, Some(life));
        let member = Member { name, incarnation: life };
        self.node.meet(&member, &succeeds, clock::now(&self.node), &mut self.courier);
        let early = std::mem::take(&mut self.peers[peer].early);
        self.pass_on(peer, life, early);
    }

    fn take_down(&mut self, peer: usize) {
        self.peers[peer].early.clear();
        if self.peers[peer].up.take().is_some() {
            tracing::warn!(peer = %self.node.options().peers[peer], "link down");
            self.links.connect(peer, None);
        }
    }
}

/// Keeps one outgoing connection alive and sends what is queued for it.
struct Dialer {
    peer: usize,
    address: SocketAddr,
    queue: UnboundedReceiver<Letter>,
    greeting: Arc<Greeting>,
    redial: watch::Receiver<u64>,
}

impl Dialer {
    async fn run(mut self, events: Events) {
        let mut refused = String::new();
        loop {
            match handshake::dial(self.address, self.peer, &self.greeting).await {
                Ok((stream, hello)) => {
                    refused.clear();
                    let life = hello.incarnation;
                    if events.send(Event::DialedUp(self.peer, hello)).await.is_err() {
                        return;
                    }
                    let (mut redial, address) = (self.redial.clone(), self.address);
                    // Only what is said of this very connection counts.
                    redial.mark_unchanged();
                    let error = tokio::select! {
                        ended = self.talk(stream, life) => ended.err(),
                        _ = redial.changed() => None,
                    };
                    tracing::debug!(%address, ?error, "outgoing link ended");
                    if events.send(Event::DialedDown(self.peer, life)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Once per reason: a peer that is away would fill the log.
                    let reason = error.to_string();
                    if reason != refused {
                        tracing::info!(address = %self.address, %reason, "cannot reach peer");
                        refused = reason;
                    }
                }
            }
            sleep(REDIAL).await;
        }
    }

    /// Sends until the connection ends. The peer says nothing here, so reading only finds the end.
    async fn talk(&mut self, mut stream: TcpStream, life: Incarnation) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut nothing = [0; 1];
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            batch.clear();
            tokio::select! {
                letter = self.queue.recv() => match letter {
                    Some(letter) => self.collect(letter, life, &mut batch),
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    continue;
                }
                read = stream.read(&mut nothing) => {
                    let ended = io::Error::new(io::ErrorKind::ConnectionAborted, "closed by peer");
                    return read.and(Err(ended));
                }
            }
            stream.write_all(&batch).await?;
        }
    }

    /// Everything that is queued goes into one write, up to a bound.
    fn collect(&mut self, first: Letter, life: Incarnation, batch: &mut Vec<u8>) {
        let mut next = Some(first);
        while let Some((to, message)) = next {
            // Letters to a former life were queued before its end was known.
            if to == life {
                message::encode(&message, batch);
            }
            if batch.len() >= BATCH_BYTES {
                return;
            }
            next = self.queue.try_recv().ok();
        }
    }
}

async fn accept(listener: TcpListener, greeting: Arc<Greeting>, events: Events, suspect_ms: u64) {
    let mut connection = 0;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                connection += 1;
                let incoming = Incoming {
                    stream,
                    address,
                    connection,
                    suspect: Duration::from_millis(suspect_ms),
                    greeting: Arc::clone(&greeting),
                    events: events.clone(),
                };
                tokio::spawn(incoming.welcome());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                sleep(REDIAL).await;
            }
        }
    }
}

/// One accepted connection.
struct Incoming {
    stream: TcpStream,
    address: SocketAddr,
    connection: ConnectionId,
    suspect: Duration,
    greeting: Arc<Greeting>,
    events: Events,
}

impl Incoming {
    async fn welcome(mut self) {
        let (peer, hello) = match handshake::answer(&mut self.stream, &self.greeting).await {
            Ok(answered) => answered,
            Err(error) => {
                tracing::warn!(address = %self.address, reason = %error, "peer refused");
                return;
            }
        };
        let (life, connection, events) = (hello.incarnation, self.connection, self.events.clone());
        // The switchboard hears of the connection before it hears what is said on it.
        let (start, started) = oneshot::channel();
        let task = tokio::spawn(async move {
            if started.await.is_ok() {
                let reason = self.listen(peer, life).await;
                tracing::debug!(address = %self.address, %reason, "incoming link ended");
                let _ = self.events.send(Event::AcceptedDown(peer, connection)).await;
            }
        });
        let reader = Reader { connection, task: task.abort_handle() };
        if events.send(Event::AcceptedUp(peer, hello, reader)).await.is_ok() {
            let _ = start.send(());
        }
    }

    /// Reads until the connection ends, is silent for too long, or says something wrong.
    async fn listen(&mut self, peer: usize, life: Incarnation) -> String {
        let frame_max = self.greeting.frame_max();
        let mut input = Vec::with_capacity(BATCH_BYTES);
        loop {
            match timeout(self.suspect, self.stream.read_buf(&mut input)).await {
                Err(_) => return format!("silent for {} ms", self.suspect.as_millis()),
                Ok(Ok(0)) => return "closed by peer".into(),
                Ok(Err(error)) => return error.to_string(),
                Ok(Ok(_)) => {}
            }
            let messages = match messages_in(&mut input, frame_max) {
                Ok(messages) => messages,
                Err(bad) => {
                    tracing::error!(address = %self.address, %bad, "link dropped: bad frame");
                    return bad.to_string();
                }
            };
            let heard = Event::Heard(peer, life, messages);
            if self.events.send(heard).await.is_err() {
                return "stopped".into();
            }
        }
    }
}

/// Takes all complete messages off the input.
fn messages_in(input: &mut Vec<u8>, frame_max: usize) -> Result<Vec<Message>, BadFrame> {
    let (mut messages, mut used) = (Vec::new(), 0);
    loop {
        match message::decode(&input[used..], frame_max)? {
            Frame::Message(length, message) => {
                messages.push(message);
                used += length;
            }
            Frame::Skip(length) => used += length,
            Frame::Incomplete => break,
        }
    }
    input.drain(..used);
    Ok(messages)
}
