//! Stores under random load until the time is up: every byte has to be accounted for.
//!
//! `make soak`; SOAK_SECONDS=n sets how long, SOAK_SEED=n which load, SOAK_THREADS=n how many
//! threads: with one, a seed does the same again step by step. Each round is a process of its own,
//! whose shards share one budget; it compares what it reads with what it wrote. Knows nothing of
//! the protocol.

#![allow(clippy::print_stdout, reason = "what it has done is what this program is for")]

use std::env;
use std::fs;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::key::Key;
use sessiond::record::{Change, Marks, Record};
use sessiond::store::{Applied, Budget, Item, Options, Segments, Store};
use sessiond::time::{Deadline, Millis, Now};
use sessiond::version::{Epoch, Version, Versions};

const MIB: usize = 1 << 20;
const ROUND_S: u64 = 30;
/// Nothing works meanwhile, and it takes up to a second.
const AUDIT_EVERY: Duration = Duration::from_secs(6);
/// What a process may have beside its limit and what this program remembers of its keys.
const OVERHEAD: usize = 8 * MIB;
/// Tells a process which round it is.
const ROUND_SEED: &str = "SOAK_ROUND_SEED";
/// Between two places where a value may begin.
const NOISE_STARTS: u64 = 4093;

/// How the stores of a round are made.
#[derive(Debug)]
struct Plan {
    seed: u64,
    limit: usize,
    shards: usize,
    keys: usize,
    value_max: usize,
    evict: bool,
    segmented: bool,
    /// Lower it and raise it again.
    moves_limit: bool,
}

impl Plan {
    fn new(seed: u64, item_max: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limit = (MIB << rng.random_range(2..8)) + rng.random_range(0..MIB);
        let shards = 1 << rng.random_range(0..5);
        let value_max = [300, 4 << 10, 12 << 10, 100 << 10, item_max][rng.random_range(0..5)];
        // Sizes are spread evenly over their logarithms: this is about their mean.
        let mean = value_max / value_max.ilog2() as usize + 100;
        let keys = (limit * rng.random_range(1..5) / mean / shards).max(100);
        let (evict, segmented) = (rng.random_ratio(3, 4), rng.random_ratio(3, 4));
        let moves_limit = rng.random_ratio(1, 2);
        Self { seed, limit, shards, keys, value_max, evict, segmented, moves_limit }
    }

    /// The most that the process may have in RAM. Pages that do not fit a lowered limit are freed, but
    /// the allocator has an arena for each thread and gives little of them back to the system: a page
    /// that another thread needs later is new.
    fn resident_max(&self, start: usize) -> usize {
        let limit = if self.moves_limit { 5 * self.limit / 2 } else { self.limit };
        start + limit + limit / 32 + self.keys * self.shards * size_of::<State>() + OVERHEAD
    }
}

/// The newest state of a key.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    version: Version,
    /// Tells the value as well; 0 where there is no item.
    cas: u64,
    deadline: Deadline,
}

struct Shard {
    number: usize,
    store: Store,
    versions: Versions,
    states: Vec<State>,
    floor: Version,
    /// Of a walk.
    cursor: u64,
}

/// What has happened.
#[derive(Debug, Default)]
struct Events {
    steps: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    flushes: AtomicU64,
    limits: AtomicU64,
    audits: AtomicU64,
}

struct Soak {
    plan: Plan,
    budget: Arc<Budget>,
    shards: Vec<Mutex<Shard>>,
    noise: Vec<u8>,
    clock_ms: AtomicU64,
    /// Held for reading by those who work, for writing by who audits.
    at_work: RwLock<()>,
    is_over: AtomicBool,
    events: Events,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn key_of(shard: usize, number: usize) -> Vec<u8> {
    let mut key = format!("{shard}-{number}-").into_bytes();
    // Keys of many lengths, each always the same.
    let len = key.len().max(number * 7919 % 250 + 1);
    key.resize(len, b'k');
    key
}

impl Soak {
    fn new(plan: Plan) -> Self {
        let budget = Arc::new(Budget::new(plan.limit));
        let shard = |number| {
            let options = Options {
                evict: plan.evict,
                seed: plan.seed,
                segments: Segments { is_on: plan.segmented, ..Segments::default() },
                ..Options::default()
            };
            Mutex::new(Shard {
                number,
                store: Store::new(options, Arc::clone(&budget)),
                versions: Versions::new(Epoch(1), 0),
                states: vec![State::default(); plan.keys],
                floor: Version::default(),
                cursor: 0,
            })
        };
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let noise_bytes = plan.value_max + NOISE_STARTS as usize;
        Self {
            shards: (0..plan.shards).map(shard).collect(),
            noise: (0..noise_bytes).map(|_| rng.random()).collect(),
            clock_ms: AtomicU64::new(1_000_000),
            at_work: RwLock::new(()),
            is_over: AtomicBool::new(false),
            events: Events::default(),
            budget,
            plan,
        }
    }

    fn now(&self) -> Now {
        let ms = Millis(self.clock_ms.load(Ordering::Relaxed));
        Now { local: ms, cluster: ms, wall_s: 0 }
    }

    fn work(&self, thread: u64) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed ^ (thread + 1) << 32);
        while !self.is_over.load(Ordering::Relaxed) {
            let _working = self.at_work.read();
            for _ in 0..100 {
                self.step(&mut rng);
            }
        }
    }

    fn step(&self, rng: &mut StdRng) {
        count(&self.events.steps);
        let shard = rng.random_range(0..self.shards.len());
        // As real keys, some are used much more than others.
        let bound = rng.random_range(1..self.plan.keys + 1);
        let number = rng.random_range(0..bound);
        let key = key_of(shard, number);
        match rng.random_range(0..200_000) {
            0 => self.shards[shard].lock().flush(&self.events),
            1..=3 if self.plan.moves_limit => self.move_limit(rng),
            1..=999 => self.tick(shard, rng),
            1000..80_000 => self.shards[shard].lock().read(self, &key, number),
            80_000..160_000 => self.put(shard, &key, number, rng),
            160_000..175_000 => self.shards[shard].lock().delete(&key, number, self.now()),
            175_000..185_000 => {
                let deadline = self.deadline(rng);
                self.shards[shard].lock().touch(&key, number, deadline, self.now());
            }
            185_000..190_000 => self.shards[shard].lock().write_late(&key, number, self.now()),
            _ => self.shards[shard].lock().walk(self),
        }
    }

    /// As a node does twenty times a second; a sweep of one shard is enough here.
    fn tick(&self, shard: usize, rng: &mut StdRng) {
        self.clock_ms.fetch_add(rng.random_range(0..200), Ordering::Relaxed);
        let mut shard = self.shards[shard].lock();
        shard.store.maintain(self.now());
        shard.store.sweep(512, self.now());
    }

    fn move_limit(&self, rng: &mut StdRng) {
        count(&self.events.limits);
        let limit = self.plan.limit;
        let part = rng.random_range(limit / 4..limit);
        self.budget.set_limit(if rng.random_ratio(1, 2) { limit } else { part });
    }

    fn deadline(&self, rng: &mut StdRng) -> Deadline {
        let ttl_s = if rng.random_ratio(1, 2) { 0 } else { rng.random_range(1..600) };
        Deadline::from_exptime(ttl_s, self.now())
    }

    fn put(&self, shard: usize, key: &[u8], number: usize, rng: &mut StdRng) {
        let bits = rng.random_range(0..=self.plan.value_max.ilog2());
        let len = rng.random_range((1 << bits) / 2..(2 << bits).min(self.plan.value_max + 1));
        self.make_room(shard, len);
        let deadline = self.deadline(rng);
        self.shards[shard].lock().put(self, key, number, len, deadline);
    }

    /// As a node does: a shard that holds too little to evict from has others give pages up.
    fn make_room(&self, shard: usize, len: usize) {
        let bytes = len + len / 8 + 4 * self.budget.page_size();
        let is_rich = || self.shards[shard].lock().store.held() >= bytes;
        while self.plan.evict && self.budget.free() < bytes && !is_rich() {
            let held = |other: &usize| self.shards[*other].lock().store.held();
            let others = (0..self.shards.len()).filter(|&other| other != shard);
            let wanted = self.budget.free() + self.budget.page_size();
            let is_given = others
                .max_by_key(held)
                .is_some_and(|other| self.shards[other].lock().store.give_back(wanted, self.now()));
            if !is_given {
                return;
            }
        }
    }

    fn value(&self, cas: u64, len: usize) -> &[u8] {
        let start = (cas % NOISE_STARTS) as usize;
        &self.noise[start..start + len]
    }

    fn check(&self, state: State, item: &Item<'_>) {
        assert_eq!(
            (item.version, item.cas, item.deadline),
            (state.version, state.cas, state.deadline)
        );
        let expected = self.value(state.cas, item.flags as usize);
        assert_eq!(item.value.len(), expected.len(), "the length of a value");
        let mut at = 0;
        for piece in item.value.pieces() {
            assert!(piece == &expected[at..at + piece.len()], "a value has changed at {at}");
            at += piece.len();
        }
        assert_eq!(at, expected.len(), "the pieces of a value");
    }

    /// Checks all shards while nobody works; returns the bytes that the process has.
    fn audit(&self) -> usize {
        let _alone = self.at_work.write();
        count(&self.events.audits);
        let mut charged = 0;
        for shard in &self.shards {
            let shard = shard.lock();
            shard.store.audit().unwrap_or_else(|breach| panic!("shard {}: {breach}", shard.number));
            charged += shard.store.charged();
        }
        assert_eq!(self.budget.used(), charged, "the budget and what the shards have charged");
        assert!(charged <= self.plan.limit, "{charged} bytes charged");
        resident_bytes()
    }

    /// Deletes or flushes everything, and checks that nothing is left.
    fn end(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.number % 2 == 0 {
                for number in 0..self.plan.keys {
                    let key = key_of(shard.number, number);
                    shard.delete(&key, number, self.now());
                }
            } else {
                shard.flush(&self.events);
                while !shard.store.sweep(512, self.now()) {}
            }
            let (_, index) = shard.store.index_size();
            assert_eq!(shard.store.counts().items(), 0, "items left in shard {}", shard.number);
            assert_eq!(shard.store.held(), 0, "bytes of pages left in shard {}", shard.number);
            assert_eq!(shard.store.charged(), index, "only the index is left");
        }
        self.audit();
    }
}

impl Shard {
    fn read(&mut self, soak: &Soak, key: &[u8], number: usize) {
        let (state, now) = (self.states[number], soak.now());
        let is_live = state.cas != 0 && state.version >= self.floor && !state.deadline.is_past(now);
        match self.store.get(Key::new(key).expect("a key"), now) {
            Some(item) => {
                assert!(is_live, "it came back");
                soak.check(state, &item);
                count(&soak.events.hits);
            }
            None => {
                assert!(!is_live || soak.plan.evict, "it is lost, though nothing may be evicted");
                count(&soak.events.misses);
            }
        }
    }

    fn put(&mut self, soak: &Soak, key: &[u8], number: usize, len: usize, deadline: Deadline) {
        let version = self.versions.next(None);
        let cas = version.get();
        let value = soak.value(cas, len);
        let (flags, marks) = (len as u32, Marks::default());
        let change = Change::Put { cas, flags, deadline, marks, value };
        let applied = self.store.apply(&Record { key, version, change }, soak.now());
        assert_ne!(applied, Applied::Stale, "the newest version");
        let is_stored = applied == Applied::Done;
        self.states[number] = State { version, cas: if is_stored { cas } else { 0 }, deadline };
        if !is_stored {
            count(&soak.events.refused);
        }
    }

    fn delete(&mut self, key: &[u8], number: usize, now: Now) {
        let version = self.versions.next(None);
        self.store.apply(&Record { key, version, change: Change::Delete }, now);
        self.states[number] = State::default();
    }

    fn touch(&mut self, key: &[u8], number: usize, deadline: Deadline, now: Now) {
        let version = self.versions.next(None);
        let item = self.store.peek(Key::new(key).expect("a key"), now);
        let Some(cas) = item.map(|item| item.cas) else {
            return;
        };
        let change = Change::Meta { cas, deadline, marks: Marks::default() };
        self.store.apply(&Record { key, version, change }, now);
        let state = &mut self.states[number];
        (state.version, state.deadline) = (version, deadline);
    }

    /// What comes after something newer changes nothing.
    fn write_late(&mut self, key: &[u8], number: usize, now: Now) {
        let version = self.states[number].version;
        if self.store.peek(Key::new(key).expect("a key"), now).is_some() {
            let applied = self.store.apply(&Record { key, version, change: Change::Delete }, now);
            assert_eq!(applied, Applied::Stale);
        }
    }

    /// Goes on with a walk over all items, which change meanwhile.
    fn walk(&mut self, soak: &Soak) {
        let (states, floor, now) = (&self.states, self.floor, soak.now());
        let next = self.store.walk(self.cursor, 30, now, |key, item| {
            let text = String::from_utf8_lossy(key.bytes()).into_owned();
            let number = text.split('-').nth(1).and_then(|number| number.parse::<usize>().ok());
            assert!(item.version >= floor && !item.deadline.is_past(now), "it is over");
            soak.check(states[number.expect("a key of ours")], &item);
        });
        self.cursor = next.unwrap_or(0);
    }

    fn flush(&mut self, events: &Events) {
        count(&events.flushes);
        self.floor = self.versions.next(None);
        self.store.set_floor(self.floor);
    }
}

/// The memory that this process has in RAM.
fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<usize>().ok());
    kib.expect("VmRSS in kB") << 10
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn run(plan: Plan, threads: u64, length: Duration) {
    println!("{plan:?}");
    let allowed = plan.resident_max(resident_bytes());
    let soak = Soak::new(plan);
    let (end, mut resident) = (Instant::now() + length, 0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let soak = &soak;
            scope.spawn(move || soak.work(thread));
        }
        while Instant::now() < end {
            thread::sleep(AUDIT_EVERY.min(end.saturating_duration_since(Instant::now())));
            resident = soak.audit().max(resident);
        }
        soak.is_over.store(true, Ordering::Relaxed);
    });
    let (mut evictions, mut moved) = (0, 0);
    for shard in &soak.shards {
        let shard = shard.lock();
        evictions += shard.store.counts().evictions;
        moved += shard.store.work().pages_moved;
    }
    soak.end();
    println!("  {:?}", soak.events);
    println!(
        "  {evictions} evictions, {moved} pages moved; {:.1} MiB resident, {:.1} allowed",
        resident as f64 / MIB as f64,
        allowed as f64 / MIB as f64
    );
    assert!(resident <= allowed, "{resident} bytes resident");
}

/// Runs this program again for one round.
fn run_apart(seed: u64, seconds: u64) -> bool {
    let program = env::current_exe().expect("this program");
    let round = Command::new(program)
        .arg("--bench")
        .env(ROUND_SEED, seed.to_string())
        .env("SOAK_SECONDS", seconds.to_string())
        .status();
    round.expect("this program runs").success()
}

fn main() -> ExitCode {
    if !env::args().any(|argument| argument == "--bench") {
        println!("the soak runs only under `cargo bench --bench soak`");
        return ExitCode::SUCCESS;
    }
    let seconds = number("SOAK_SECONDS").unwrap_or(600);
    let threads = number("SOAK_THREADS").unwrap_or(4);
    if let Some(seed) = number(ROUND_SEED) {
        run(Plan::new(seed, MIB - 300), threads, Duration::from_secs(seconds));
        return ExitCode::SUCCESS;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let chance = since.map_or(1, |time| time.as_secs() & 0xffff_ffff);
    let first = number("SOAK_SEED").unwrap_or(chance);
    println!("SOAK_SEED={first} SOAK_THREADS={threads} SOAK_SECONDS={seconds}");
    let rounds = seconds.div_ceil(ROUND_S);
    for round in 0..rounds {
        let seed = first + round;
        if !run_apart(seed, ROUND_S.min(seconds - round * ROUND_S)) {
            eprintln!("broken; again: make soak SOAK_SEED={seed} SOAK_SECONDS={ROUND_S}");
            return ExitCode::FAILURE;
        }
    }
    println!("every byte is accounted for");
    ExitCode::SUCCESS
}
