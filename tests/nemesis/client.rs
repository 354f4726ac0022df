//! Clients: random commands on a few keys, one at a time, and a note of each.
//!
//! A key is retired after some commands, so that no history of a key grows long; readers go on
//! looking at the last retired ones. A broken connection is an unknown outcome.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::connection::{Came, Connection};
use super::history::wire::Form;
use super::history::{Answer, Command, Operation, Reply};

/// Keys that are in use at a time; the last is a counter.
const SLOTS: usize = 5;
/// Commands after which a key is retired.
const RETIRED_AFTER: u64 = 150;
/// Retired keys of a slot that readers still look at.
const LOOKED_BACK: u64 = 3;
/// Retired so long ago that no command on them is under way any more.
const SETTLED_BACK: std::ops::Range<u64> = 2..6;
/// Between two commands of a client.
const PAUSE_US: std::ops::Range<u64> = 500..8_000;
/// Most clients wait so long for an answer,
const PATIENCE: Duration = Duration::from_secs(4);
/// and some only so long: what they have asked for may come to pass after they have gone.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// Microseconds since the beginning, the same for all threads.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// What all clients share.
pub(crate) struct Playground {
    pub(crate) clock: Clock,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Commands by slot, from which the name of its present key follows.
    used: [AtomicU64; SLOTS],
    is_over: AtomicBool,
}

impl Playground {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let (clock, used, is_over) = (Clock::start(), Default::default(), AtomicBool::new(false));
        Self { clock, addresses: addresses.into(), used, is_over }
    }

    /// Open until what is returned is dropped, whatever happens; then clients end after the
    /// command that they are at.
    pub(crate) fn open(&self) -> Open<'_> {
        Open(self)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// As long as this is there, clients work.
pub(crate) struct Open<'a>(&'a Playground);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn key_name(slot: usize, generation: u64) -> String {
    let kind = if slot == SLOTS - 1 { "count" } else { "item" };
    format!("{kind}{slot}.{generation}")
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Every command.
    All,
    /// Reads keys that others change.
    Reads,
    /// Reads keys that were changed before, and are no more: as most sessions are read.
    SettledReads,
}

/// What a client is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) number: u32,
    /// The only node it talks to.
    pub(crate) pinned: Option<usize>,
    pub(crate) work: Work,
}

/// A completed command, for the stalls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) at: u64,
    /// Whoever answered.
    pub(crate) node: usize,
    pub(crate) is_read: bool,
}

/// All that a client has to tell.
pub(crate) struct Notes {
    /// Whose they are.
    pub(crate) habit: Habit,
    pub(crate) operations: Vec<Operation>,
    pub(crate) completions: Vec<Completion>,
    pub(crate) unknown: u64,
    /// Error lines, and how often.
    pub(crate) refusals: BTreeMap<String, u64>,
}

/// One client; runs in a thread of its own.
pub(crate) struct Client<'a> {
    playground: &'a Playground,
    habit: Habit,
    rng: StdRng,
    /// To which node, and what is said to it.
    connection: Option<(usize, Connection)>,
    /// The last unique seen, by key.
    seen: HashMap<String, u64>,
    written: u64,
    notes: Notes,
}

impl<'a> Client<'a> {
    pub(crate) fn new(playground: &'a Playground, habit: Habit, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ (u64::from(habit.number) << 32));
        let (operations, completions, refusals) = Default::default();
        let notes = Notes { habit, operations, completions, unknown: 0, refusals };
        let seen = HashMap::new();
        Self { playground, habit, rng, connection: None, seen, written: 0, notes }
    }

    /// Works until the playground closes.
    pub(crate) fn run(mut self) -> Notes {
        while !self.playground.is_over() {
            if self.connection.is_none() || self.rng.random_ratio(1, 300) {
                self.connect();
            }
            if let Some((node, connection)) = self.connection.take() {
                self.step(node, connection);
            }
            let pause_us = self.rng.random_range(PAUSE_US);
            std::thread::sleep(Duration::from_micros(pause_us));
        }
        self.notes
    }

    fn connect(&mut self) {
        let addresses = &self.playground.addresses;
        let node = self.habit.pinned.unwrap_or_else(|| self.rng.random_range(0..addresses.len()));
        let patience = if self.rng.random_ratio(1, 4) { IMPATIENCE } else { PATIENCE };
        let opened = Connection::open(addresses[node], patience);
        self.connection = opened.ok().map(|connection| (node, connection));
    }

    /// One command; keeps the connection if it is still good.
    fn step(&mut self, node: usize, mut connection: Connection) {
        let (key, command) = self.choose();
        let form = [Form::Classic, Form::Unique, Form::Meta][self.rng.random_range(0..3)];
        let invoked = self.playground.clock.now_us();
        let came = connection.ask(&command, &key, form);
        let at = self.playground.clock.now_us();
        let answer = match came {
            Ok(Came::Reply(reply)) => {
                let is_read = command == Command::Get;
                self.notes.completions.push(Completion { at, node, is_read });
                self.connection = Some((node, connection));
                Some(Answer { at, reply })
            }
            Ok(Came::Refusal(text)) => {
                *self.notes.refusals.entry(text).or_default() += 1;
                None
            }
            Err(_) => None,
        };
        self.notes.unknown += u64::from(answer.is_none());
        if let Some(unique) = answer.as_ref().and_then(|answer| answer.reply.unique()) {
            self.seen.insert(key.clone(), unique);
        }
        let client = self.habit.number;
        self.notes.operations.push(Operation { client, key, command, invoked, answer });
    }

    fn choose(&mut self) -> (String, Command) {
        let slot = self.rng.random_range(0..SLOTS);
        let used = &self.playground.used[slot];
        if self.habit.work != Work::All {
            let generation = used.load(Ordering::Relaxed) / RETIRED_AFTER;
            return (self.choose_to_read(slot, generation), Command::Get);
        }
        let generation = used.fetch_add(1, Ordering::Relaxed) / RETIRED_AFTER;
        let key = key_name(slot, generation);
        let command = match slot == SLOTS - 1 {
            true => self.count(),
            false => self.change(&key),
        };
        (key, command)
    }

    fn choose_to_read(&mut self, slot: usize, generation: u64) -> String {
        if self.habit.work == Work::Reads {
            let back = self.rng.random_range(0..=LOOKED_BACK * 2).saturating_sub(LOOKED_BACK);
            return key_name(slot, generation.saturating_sub(back));
        }
        let back = self.rng.random_range(SETTLED_BACK);
        match generation.checked_sub(back) {
            Some(generation) => key_name(slot, generation),
            None => format!("nothing{slot}"),
        }
    }

    fn count(&mut self) -> Command {
        match self.rng.random_range(0..100) {
            0..20 => Command::Add("0".into()),
            20..70 => Command::Incr(self.rng.random_range(1..4)),
            70..74 => Command::Touch,
            74..78 => Command::GetAndTouch,
            _ => Command::Get,
        }
    }

    fn change(&mut self, key: &str) -> Command {
        self.written += 1;
        let value = format!("c{}-{} ", self.habit.number, self.written).into();
        match self.rng.random_range(0..1000) {
            0..200 => Command::Set(value),
            200..240 => Command::Set("97".into()),
            240..290 => Command::Add(value),
            290..330 => Command::Replace(value),
            330..370 => Command::Append(value),
            370..400 => Command::Prepend(value),
            400..500 => Command::Cas { unique: self.seen.get(key).copied().unwrap_or(1), value },
            500..540 => Command::Incr(self.rng.random_range(1..4)),
            540..570 => Command::Decr(self.rng.random_range(1..4)),
            570..670 => Command::Delete,
            670..690 => Command::Touch,
            690..710 => Command::GetAndTouch,
            710 => Command::Flush,
            _ => Command::Get,
        }
    }
}

/// What every node says of every key, at rest; asked until all say the same.
pub(crate) fn read_all(
    playground: &Playground,
    keys: &[&str],
    node: usize,
) -> Result<Vec<Operation>, String> {
    let failed = |error| format!("n{} does not answer at rest: {error}", node + 1);
    let mut connection = Connection::open(playground.addresses[node], PATIENCE).map_err(failed)?;
    let mut operations = Vec::with_capacity(keys.len());
    for &key in keys {
        let invoked = playground.clock.now_us();
        let reply = match connection.ask(&Command::Get, key, Form::Unique).map_err(failed)? {
            Came::Reply(reply @ (Reply::Hit { .. } | Reply::Miss)) => reply,
            Came::Reply(reply) => return Err(format!("gets was answered {reply}")),
            Came::Refusal(text) => return Err(format!("gets was answered {text}")),
        };
        let answer = Some(Answer { at: playground.clock.now_us(), reply });
        let client = 100 + node as u32;
        operations.push(Operation {
            client,
            key: key.into(),
            command: Command::Get,
            invoked,
            answer,
        });
    }
    Ok(operations)
}
