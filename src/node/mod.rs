//! The whole server without its sockets: requests, peer messages and the time go in; replies and
//! peer messages come out.
//!
//! Holds the shards and the only locks. A lock is held for one command or one message, never
//! across I/O, and never two at once.

mod admin;
mod ahead;
mod among;
mod commands;
mod connections;
mod credentials;
mod decide;
mod dump;
mod joining;
mod meta;
mod metrics;
mod observe;
mod report;
mod session;
mod settings_report;
mod shard;
mod upcoming;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, RwLock};

pub use connections::{Ending, Endpoint, Socket};
pub use credentials::Credentials;
pub use session::{Session, Step};
pub use upcoming::LOOK_AHEAD;

use connections::Connections;
use observe::Observers;
use shard::Shard;

use crate::key::{Key, LANES};
use crate::protocol::{Events, ITEM_OVERHEAD};
use crate::record::{Mutation, Outcome, Record};
use crate::replication::link::Load;
use crate::replication::message::LaneMessage;
use crate::replication::{
    Dialect, Group, GroupOptions, Incarnation, LaneOptions, Lease, Member, Message, NODES_MAX,
    Nodes, Outside, Pace, Rules, Timing, Violation,
};
use crate::settings::{Settings, Tuning};
use crate::stats::{Counters, Gauges, Refusals};
use crate::store::{self, Budget, Segments, Sizes, Store};
use crate::time::{Millis, Now};
use crate::version::Epoch;

/// Where a client's connection can be found again.
pub trait Host<W>: Outside<W> {
    /// A handle for the command that is being executed; it will be answered through it.
    fn waiter(&mut self) -> W;
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name and its life.
    pub me: Member,
    /// Former lives of this node that are certainly over.
    pub succeeds: Vec<Incarnation>,
    /// The life of this node beside which this one was started, to take its place.
    pub beside: Option<Incarnation>,
    /// The nodes of a group that begins, this one included; empty for a single node.
    pub nodes: Nodes,
    /// How long things take between nodes.
    pub timing: Timing,
    /// Whether the last that is left may go on when all others are proven dead.
    pub last_man_standing: bool,
    /// Whether a member that reaches no other goes on answering reads, from an old copy perhaps.
    pub isolated_reads: bool,
    /// What of the peer protocol it speaks.
    pub speaks: Dialect,
    /// Bytes of items a second that go to nodes that join; `None` for as many as possible.
    pub sync_rate: Option<u64>,
    /// What must hold between nodes.
    pub rules: Rules,
    /// Randomness of this life.
    pub seed: u64,
    /// What the command line says of clients and memory.
    pub settings: Settings,
}

impl Options {
    /// As where nothing else is said.
    pub fn new(me: Member, nodes: Nodes, seed: u64) -> Self {
        Self {
            me,
            succeeds: Vec::new(),
            beside: None,
            nodes,
            timing: Timing::default(),
            last_man_standing: true,
            isolated_reads: false,
            speaks: Dialect::default(),
            sync_rate: None,
            rules: Rules::default(),
            seed,
            settings: Settings::default(),
        }
    }
}

/// The sweep of items that are over, as `lru_crawler` steers it.
#[derive(Debug)]
struct Crawler {
    is_on: AtomicBool,
    starts: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Node<W> {
    options: Options,
    budget: Arc<Budget>,
    /// memcached's slab classes, by which items are shown.
    sizes: Arc<Sizes>,
    shards: Vec<CachePadded<Mutex<Shard<W>>>>,
    group: Mutex<Group<W>>,
    serving: AtomicBool,
    /// There are learners in the view.
    syncing: AtomicBool,
    /// The lane that goes on with filling, or being filled; counted up.
    next_to_sync: AtomicUsize,
    /// Cluster time minus local time.
    offset_ms: AtomicU64,
    started: Now,
    counters: Vec<CachePadded<Counters>>,
    gauges: Gauges,
    refusals: Refusals,
    /// What waits for each life of a peer; told every now and then.
    queues: Mutex<BTreeMap<Incarnation, Load>>,
    /// When certificates between nodes end.
    certificates: Mutex<Certificates>,
    /// Who may log in, where that is needed.
    credentials: RwLock<Option<Credentials>>,
    /// Read by every command, so that nothing which is written often may share its line.
    observers: CachePadded<Observers>,
    connections: Connections,
    crawler: Crawler,
}

/// When certificates end, as Unix times.
#[derive(Clone, Debug, Default)]
struct Certificates {
    own: Option<i64>,
    /// As they were when the peers were last met.
    peers: BTreeMap<Box<str>, i64>,
}

/// Chunks that a sweep looks at under one lock, and how often it does so in one go: 16 shards look
/// at a million chunks in a second, if so many may be over.
const SWEEP_CHUNKS: usize = 512;
const SWEEP_PIECES: usize = 8;

/// The most that `-m` may be, in bytes: what the numbers of chunks reach, with room for shards that
/// hold more than others.
pub const MEMORY_MAX: usize = LANES * store::SHARD_MAX / 2;

impl<W> Node<W> {
    /// A node that has not met anybody yet. `now.cluster` does not matter: without others, cluster
    /// time starts at the wall clock.
    pub fn new(options: Options, now: Now) -> Self {
        let budget = Arc::new(Budget::new(options.settings.memory));
        let sizes = Arc::new(sizes(&options.settings.tuning));
        let lease = Arc::new(Lease::default());
        let pace = Arc::new(Pace::new(options.sync_rate));
        let shard = |lane: usize| {
            let seed = options.seed.rotate_left(lane as u32) ^ lane as u64;
            let store_options = store_options(&options.settings, &sizes, seed);
            let mut store = Store::new(store_options, Arc::clone(&budget));
            if !options.nodes.is_empty() {
                store.share_evictions(true);
                store.keep_digests();
            }
            let lane = LaneOptions {
                id: lane as u8,
                me: options.me.incarnation,
                seed,
                lease: Arc::clone(&lease),
                suspect_ms: options.timing.suspect_ms,
                patience_ms: options.timing.patience_ms(),
                request_ms: options.timing.request_ms,
                pace: Arc::clone(&pace),
                features: options.speaks.features,
                rules: options.rules,
            };
            CachePadded::new(Mutex::new(Shard::new(lane, store, options.settings.item_max)))
        };
        let shards = (0..LANES).map(shard).collect();
        let group_options = GroupOptions {
            me: options.me.clone(),
            succeeds: options.succeeds.clone(),
            beside: options.beside,
            nodes: options.nodes.clone(),
            timing: options.timing,
            first_epoch: first_epoch(now.wall_s),
            last_man_standing: options.last_man_standing,
            isolated_reads: options.isolated_reads,
            speaks: options.speaks,
            seed: options.seed,
            rules: options.rules,
        };
        let group = Group::new(group_options, lease);
        let observers = Observers::new(options.settings.prefix_delimiter, Arc::clone(&sizes));
        observers.set_detail(options.settings.detail_enabled);
        let wall_ms = now.wall_s.max(0) as u64 * 1000;
        Self {
            shards,
            group: Mutex::new(group),
            serving: AtomicBool::new(false),
            syncing: AtomicBool::new(false),
            next_to_sync: AtomicUsize::new(0),
            offset_ms: AtomicU64::new(wall_ms.wrapping_sub(now.local.0)),
            started: now,
            counters: (0..options.settings.workers).map(|_| CachePadded::default()).collect(),
            gauges: Gauges::default(),
            refusals: Refusals::default(),
            queues: Mutex::default(),
            certificates: Mutex::default(),
            credentials: RwLock::new(None),
            observers: CachePadded::new(observers),
            connections: Connections::new(options.settings.workers),
            crawler: Crawler {
                is_on: AtomicBool::new(options.settings.tuning.lru_crawler),
                starts: AtomicU64::new(0),
            },
            budget,
            sizes,
            options,
        }
    }

    /// The instant of a reading of the two clocks.
    pub fn now(&self, local: Millis, wall_s: i64) -> Now {
        let cluster = Millis(local.0.wrapping_add(self.offset_ms.load(Ordering::Relaxed)));
        Now { local, cluster, wall_s }
    }

    /// Whether clients may be answered. A node that is being filled, or was left out, may not.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A client has connected to this worker. With `-Y` it has to log in first.
    pub fn open(&self, worker: usize, socket: Socket, now: Now) -> Session {
        self.log_connection("conn_new", &socket, None, now);
        let Settings { item_max, auth_file, .. } = &self.options.settings;
        let session = Session::of(self.connections.add(worker, socket, now), *item_max);
        if auth_file.is_some() { session.behind_login() } else { session }
    }

    /// Sets who may log in from now on; who is in stays in.
    pub fn set_credentials(&self, credentials: Option<Credentials>) {
        *self.credentials.write() = credentials;
    }

    fn allows(&self, user: &[u8], password: &[u8]) -> bool {
        let credentials = self.credentials.read();
        credentials.as_ref().is_some_and(|credentials| credentials.allow(user, password))
    }

    /// The connection of a session is over.
    pub fn close(&self, session: &Session, ending: Ending, now: Now) {
        session.unwatch(self);
        if let Some(connection) = session.connection() {
            self.connections.remove(connection);
            let ending = session.ending(ending);
            self.log_connection("conn_close", &connection.socket, Some(ending), now);
        }
    }

    /// A worker listens here.
    pub fn listens(&self, worker: usize, descriptor: i32, local: Endpoint, now: Now) {
        let socket = Socket { descriptor, remote: local.clone(), local };
        self.connections.add_listener(worker, socket, now);
    }

    fn log_connection(&self, kind: &str, socket: &Socket, ending: Option<Ending>, now: Now) {
        // Most connections live for one request: nothing is put into words that nobody reads.
        if !self.observers.wants(Events::CONNECTIONS) {
            return;
        }
        let reason = ending.map_or_else(String::new, |ending| format!(" reason={}", ending.name()));
        let (address, port, transport) = match &socket.remote {
            Endpoint::Tcp(address) => (address.ip().to_string(), address.port(), "tcp"),
            Endpoint::Unix(_) => ("unix".to_owned(), 0, "local"),
        };
        self.observers.log(
            Events::CONNECTIONS,
            now,
            format_args!(
                "type={kind} rip={address} rport={port} transport={transport}{reason} cfd={}",
                socket.descriptor
            ),
        );
    }

    /// Counts of one worker.
    pub fn counters(&self, worker: usize) -> &Counters {
        &self.counters[worker]
    }

    /// What goes up and down.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// When this node's certificate ends, as a Unix time.
    pub fn note_own_certificate(&self, not_after_s: Option<i64>) {
        self.certificates.lock().own = not_after_s;
    }

    /// When the certificate ends that a node of the group has shown.
    pub fn note_peer_certificate(&self, name: &str, not_after_s: i64) {
        let mut certificates = self.certificates.lock();
        // Those of nodes that were removed are forgotten when there are too many.
        if certificates.peers.len() >= 2 * NODES_MAX {
            certificates.peers.clear();
        }
        certificates.peers.insert(name.into(), not_after_s);
    }

    /// Peers that were not let in.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// So much waits for the peers at the moment.
    pub fn note_queues(&self, queues: BTreeMap<Incarnation, Load>) {
        *self.queues.lock() = queues;
    }

    /// Every live item, by key: for comparing the copies of a group.
    pub fn contents(&self, now: Now) -> Vec<Record<Bytes>> {
        let shards = self.shards.iter().flat_map(|shard| shard.lock().contents(now));
        let mut records: Vec<_> = shards.collect();
        records.sort_by(|one, other| one.key.cmp(&other.key));
        records
    }

    /// A peer has sent a message. After a violation its link has to go down.
    pub fn receive<O: Outside<W>>(
        &self,
        from: Incarnation,
        message: Message,
        now: Now,
        out: &mut O,
    ) -> Result<(), Violation> {
        match message {
            Message::Lane(lane, epoch, message) => {
                let lane = usize::from(lane);
                if let LaneMessage::Apply(apply) = &message {
                    self.make_room(lane, apply.record.size(), now, out);
                }
                let (result, events) = {
                    let mut shard = self.shards[lane].lock();
                    let result = shard.receive(from, epoch, message, now, out);
                    (result, shard.take_events())
                };
                self.tell_group(lane, events, now, out);
                result
            }
            message => {
                let todo = self.group.lock().receive(from, message, now, out);
                self.work_off(todo, now, out);
                Ok(())
            }
        }
    }

    /// Time passes, for everything. To be called some twenty times a second, as its parts
    /// are where they run on threads of their own.
    pub fn tick<O: Outside<W>>(&self, now: Now, out: &mut O) {
        self.tick_shards(now, out);
        self.sync(now, out);
        self.tick_group(now, out);
    }

    /// Time passes for the group: beats, suspicion, views.
    pub fn tick_group<O: Outside<W>>(&self, now: Now, out: &mut O) {
        let todo = self.group.lock().tick(now, out);
        self.work_off(todo, now, out);
    }

    /// Time passes for the shards: what is over, what was asked and not answered.
    pub fn tick_shards<O: Outside<W>>(&self, now: Now, out: &mut O) {
        let pieces = if self.crawler.is_on.load(Ordering::Relaxed) { SWEEP_PIECES } else { 0 };
        let is_watched = self.observers.wants(Events::EVICTIONS);
        for (lane, shard) in self.shards.iter().enumerate() {
            let events = {
                let mut shard = shard.lock();
                shard.tick(now, out);
                shard.take_events()
            };
            self.tell_group(lane, events, now, out);
            // Until nothing is over.
            let _ = (0..pieces).any(|_| shard.lock().store().sweep(SWEEP_CHUNKS, now));
            if is_watched {
                self.log_evicted(lane, now);
            }
        }
    }

    /// Tells the other members what is committed, as far as that is news to them.
    pub fn announce_commits<O: Outside<W>>(&self, out: &mut O) {
        self.shards.iter().for_each(|shard| shard.lock().announce_commits(out));
    }

    /// The slab class that an item is shown in.
    fn class_of(&self, key: Key<'_>, value_len: usize) -> u32 {
        self.sizes.class_of(key.bytes().len() + value_len) as u32
    }

    /// Changes one key. `None`: the answer comes through the host's waiter.
    fn mutate<H: Host<W>>(
        &self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        now: Now,
        host: &mut H,
    ) -> Option<Outcome> {
        let lane = key.hash().lane();
        if let Mutation::Store { value, .. } = mutation {
            self.make_room(lane, value.len(), now, host);
        }
        let outcome = self.shards[lane].lock().mutate(key, mutation, now, host);
        if self.observers.wants(Events::EVICTIONS) {
            self.log_evicted(lane, now);
        }
        outcome
    }

    /// A shard evicts for itself; only where it holds too little for that, the others have to.
    fn make_room<O: Outside<W>>(&self, lane: usize, value_len: usize, now: Now, out: &mut O) {
        let bytes = value_len + value_len / 8 + 4 * self.budget.page_size();
        if !self.options.settings.evict
            || self.budget.free() >= bytes
            || self.shards[lane].lock().store().held() >= bytes
        {
            return;
        }
        while self.budget.free() < bytes && self.take_page(lane, now, out) {}
    }

    /// A page of the shard that has the most goes back to the pool, though not of this one.
    fn take_page<O: Outside<W>>(&self, lane: usize, now: Now, out: &mut O) -> bool {
        let held = |other: &usize| self.shards[*other].lock().store().held();
        let richest = (0..LANES).filter(|&other| other != lane).max_by_key(held);
        let wanted = self.budget.free() + self.budget.page_size();
        richest.is_some_and(|other| self.shards[other].lock().give_back(wanted, now, out))
    }

    fn flush_all<H: Host<W>>(&self, at: Option<Millis>, now: Now, host: &mut H) {
        let waiter = host.waiter();
        if at.is_none() && self.group.lock().is_alone() {
            self.shards.iter().for_each(|shard| shard.lock().flush_alone());
            return host.answer(waiter, Outcome::Flushed);
        }
        let todo = self.group.lock().flush_all(at, waiter, now, host);
        self.work_off(todo, now, host);
    }
}

fn store_options(settings: &Settings, sizes: &Arc<Sizes>, seed: u64) -> store::Options {
    let tuning = &settings.tuning;
    let segments = Segments {
        is_on: tuning.lru_segmented,
        hot_pct: tuning.hot_lru_pct,
        warm_pct: tuning.warm_lru_pct,
        hot_max_factor: tuning.hot_max_factor,
        warm_max_factor: tuning.warm_max_factor,
        temporary_ttl_s: tuning.temporary_lru.then_some(tuning.temporary_ttl_s),
    };
    store::Options { evict: settings.evict, seed, segments, sizes: Arc::clone(sizes) }
}

fn sizes(tuning: &Tuning) -> Sizes {
    let (least, chunk_max) = (tuning.chunk_size as usize, tuning.slab_chunk_max as usize);
    Sizes::new(least, tuning.growth_factor, chunk_max, ITEM_OVERHEAD)
}

/// Units of ten minutes since 2025-01-01: a group that starts from nothing begins above the
/// epochs of its past lives, without having to remember them.
fn first_epoch(wall_s: i64) -> Epoch {
    const YEAR_2025_S: i64 = 1_735_689_600;
    const EPOCHS: i64 = 1 << 22;
    Epoch(((wall_s - YEAR_2025_S) / 600).clamp(1, EPOCHS) as u32)
}

#[cfg(test)]
mod tests;
