//! The loop: one event at a time, in the order of simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::node::{Host, Node, Options, Session, Step};
use sessiond::record::Outcome;
use sessiond::replication::message::LaneMessage;
use sessiond::replication::{Incarnation, Member, Message, Outside};
use sessiond::settings::Settings;
use sessiond::time::{Millis, Now};

use super::client::{COUNTER, Client, Doing, KEYS_EACH, Wish, key_name, number_in, value_of};
use super::model::{Flushes, Key};
use super::network::{Network, over_the_wire};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
/// Clients stop here, and every node is up again.
const REST_AT: u64 = 3 * SECOND;
/// By then everything has to be quiet.
const END_AT: u64 = 12 * SECOND;
const WALL_S: i64 = 1_800_000_000;

/// How often each mechanism ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    commands: u64,
    reads_checked: u64,
    copies_checked: u64,
    forwards: u64,
    crashes: u64,
    joins: u64,
    snapshot_items: u64,
    flushed_views: u64,
    rolled_forward: u64,
    unknown_outcomes: u64,
    flush_alls: u64,
}

impl Summary {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.reads_checked += other.reads_checked;
        self.copies_checked += other.copies_checked;
        self.forwards += other.forwards;
        self.crashes += other.crashes;
        self.joins += other.joins;
        self.snapshot_items += other.snapshot_items;
        self.flushed_views += other.flushed_views;
        self.rolled_forward += other.rolled_forward;
        self.unknown_outcomes += other.unknown_outcomes;
        self.flush_alls += other.flush_alls;
    }

    /// Whether everything ran at least once.
    pub(crate) fn is_complete(&self) -> bool {
        [
            self.commands,
            self.reads_checked,
            self.copies_checked,
            self.forwards,
            self.crashes,
            self.joins,
            self.snapshot_items,
            self.flushed_views,
            self.rolled_forward,
            self.unknown_outcomes,
            self.flush_alls,
        ]
        .iter()
        .all(|&count| count > 0)
    }
}

/// A command of a client, so that a late answer finds it gone.
type Ticket = (usize, u64);

/// What a node says during one input.
#[derive(Default)]
struct Post {
    ticket: Ticket,
    sent: Vec<(Incarnation, Message)>,
    answers: Vec<(Ticket, Outcome)>,
}

impl Outside<Ticket> for Post {
    fn send(&mut self, to: Incarnation, message: Message) {
        self.sent.push((to, message));
    }

    fn answer(&mut self, waiter: Ticket, outcome: Outcome) {
        self.answers.push((waiter, outcome));
    }

    fn still_waits(&self, _: &Ticket) -> bool {
        true
    }
}

impl Host<Ticket> for Post {
    fn waiter(&mut self) -> Ticket {
        self.ticket
    }
}

enum Event {
    Boot(usize),
    Crash,
    Connect(Incarnation, Incarnation),
    LinkUp { at: Incarnation, peer: Incarnation },
    LinkDown { at: Incarnation, peer: Incarnation },
    Deliver { from: Incarnation, to: Incarnation, message: Message },
    Tick(Incarnation),
    Act(usize),
}

/// A node's life.
struct Process {
    slot: usize,
    node: Node<Ticket>,
    /// Each host was booted at another time.
    clock_us: u64,
    was_serving: bool,
}

/// Everything there is.
pub(crate) struct World {
    rng: StdRng,
    is_told: bool,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    alive: BTreeMap<Incarnation, Process>,
    network: Network,
    /// From when on nothing arrives on a connection: its sender crashed.
    cut: BTreeMap<(Incarnation, Incarnation), u64>,
    clients: Vec<Client>,
    commands: u64,
    keys: Vec<Key>,
    flushes: Flushes,
    counted: u64,
    count_unknown: u64,
    /// flush_all removes the counter too: its value is not judged from then on.
    counter_flushed: bool,
    summary: Summary,
}

impl World {
    /// Three hosts that are about to boot, and clients that wait for them.
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            is_told,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            alive: BTreeMap::new(),
            network: Network::default(),
            cut: BTreeMap::new(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            commands: 0,
            keys: vec![Key::default(); CLIENTS * KEYS_EACH],
            flushes: Flushes::default(),
            counted: 0,
            count_unknown: 0,
            counter_flushed: false,
            summary: Summary::default(),
        };
        for slot in 0..NODES {
            let late = if world.rng.random_ratio(1, 10) { 2500 } else { 300 };
            let at = world.rng.random_range(0..late * MS);
            world.at(at, Event::Boot(slot));
        }
        for client in 0..CLIENTS {
            world.at(10 * MS, Event::Act(client));
        }
        for _ in 0..world.rng.random_range(1..5) {
            let at = world.rng.random_range(400 * MS..REST_AT);
            world.at(at, Event::Crash);
        }
        world
    }

    /// Runs to the end; the error says which promise was broken.
    pub(crate) fn run(mut self) -> Result<Summary, String> {
        while let Some(Reverse((time, id))) = self.queue.pop() {
            if time > END_AT {
                break;
            }
            self.now = time;
            if let Some(event) = self.events.remove(&id) {
                self.handle(event)?;
            }
        }
        self.check_rest()?;
        Ok(self.summary)
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Boot(slot) => self.boot(slot),
            Event::Crash => self.crash(),
            Event::Connect(one, other) => self.connect(one, other),
            Event::LinkUp { at, peer } => self.link_up(at, peer)?,
            Event::LinkDown { at, peer } => {
                self.input(at, |node, now, post| node.link_down(peer, now, post))?;
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, message)?,
            Event::Tick(life) => {
                self.input(life, Node::tick)?;
                if self.alive.contains_key(&life) {
                    self.after(50 * MS, Event::Tick(life));
                }
            }
            Event::Act(client) => self.act(client)?,
        }
        Ok(())
    }

    fn boot(&mut self, slot: usize) {
        let life = Incarnation(self.rng.random_range(1..u64::MAX));
        let name = |slot: usize| -> Box<str> { format!("n{slot}").into() };
        let options = Options {
            me: Member { name: name(slot), incarnation: life },
            peers: (0..NODES).filter(|&other| other != slot).map(name).collect(),
            succeeds: Vec::new(),
            timing: sessiond::replication::Timing::default(),
            last_man_standing: true,
            rules: sessiond::replication::Rules::default(),
            seed: self.rng.random_range(0..u64::MAX),
            settings: Settings { workers: 1, ..Settings::default() },
        };
        let clock_us = self.rng.random_range(0..1000 * SECOND);
        let local = Millis((clock_us + self.now) / MS);
        let now = Now { local, wall_s: self.wall_s(), ..Now::default() };
        let process = Process { slot, node: Node::new(options, now), clock_us, was_serving: false };
        self.tell(|| format!("n{slot} boots as {life:?}"));
        let others: Vec<_> = self.alive.keys().copied().collect();
        self.alive.insert(life, process);
        for other in others {
            let wait = self.rng.random_range(MS..150 * MS);
            self.after(wait, Event::Connect(life, other));
        }
        let phase = self.rng.random_range(0..50 * MS);
        self.after(phase, Event::Tick(life));
    }

    /// Kills a node, but never the last one that holds everything.
    fn crash(&mut self) {
        let serving = self.alive.values().filter(|process| process.node.is_serving()).count();
        let victims: Vec<_> = self
            .alive
            .iter()
            .filter(|(_, process)| serving > 1 || !process.node.is_serving())
            .map(|(&life, _)| life)
            .collect();
        if serving == 0 || victims.is_empty() {
            return;
        }
        let victim = victims[self.rng.random_range(0..victims.len())];
        let Some(process) = self.alive.remove(&victim) else {
            return;
        };
        self.tell(|| format!("n{} crashes", process.slot));
        self.summary.crashes += 1;
        let others: Vec<_> = self.alive.keys().copied().collect();
        for other in others {
            // Some of what it had sent still arrives.
            let cut = self.now + self.rng.random_range(0..5 * MS);
            self.cut.insert((victim, other), cut);
            let noticed = cut + self.rng.random_range(0..20 * MS);
            self.at(noticed, Event::LinkDown { at: other, peer: victim });
        }
        for client in 0..CLIENTS {
            if self.clients[client]
                .connected
                .as_ref()
                .is_some_and(|(slot, _)| *slot == process.slot)
            {
                self.disconnect(client);
            }
        }
        let away = self.rng.random_range(5 * MS..900 * MS);
        self.after(away, Event::Boot(process.slot));
    }

    fn connect(&mut self, one: Incarnation, other: Incarnation) {
        if !self.alive.contains_key(&one) || !self.alive.contains_key(&other) {
            return;
        }
        for (at, peer) in [(one, other), (other, one)] {
            let up = self.now + self.rng.random_range(0..2 * MS);
            self.at(up, Event::LinkUp { at, peer });
            // Nothing is heard before the link is up on this side.
            let held = self.network.arrival(peer, at, up, &mut self.rng);
            debug_assert!(held > up);
        }
    }

    fn link_up(&mut self, at: Incarnation, peer: Incarnation) -> Result<(), String> {
        // A peer that crashed in the meantime has cut the link already.
        let Some(process) = self.alive.get(&peer) else {
            return Ok(());
        };
        let (member, epoch) = (process.node.options().me.clone(), process.node.member_epoch());
        self.input(at, |node, now, post| node.link_up(&member, epoch, now, post))
    }

    fn deliver(
        &mut self,
        from: Incarnation,
        to: Incarnation,
        message: Message,
    ) -> Result<(), String> {
        if self.cut.get(&(from, to)).is_some_and(|&cut| self.now >= cut) {
            return Ok(());
        }
        self.count_message(&message);
        if self.is_told && std::env::var("MSG").is_ok() {
            let slot = |life| self.alive.get(&life).map(|p: &Process| p.slot);
            let (a, b) = (slot(from), slot(to));
            self.tell(|| format!("{a:?}->{b:?} {message:?}").chars().take(400).collect::<String>());
        }
        let mut violation = None;
        self.input(to, |node, now, post| {
            violation = node.receive(from, message, now, post).err();
        })?;
        match violation {
            Some(violation) => Err(format!("a link was dropped: {}", violation.0)),
            None => Ok(()),
        }
    }

    fn count_message(&mut self, message: &Message) {
        let Message::Lane(_, _, message) = message else {
            return;
        };
        match message {
            LaneMessage::Fwd(_) => self.summary.forwards += 1,
            LaneMessage::SnapChunk(records) => self.summary.snapshot_items += records.len() as u64,
            LaneMessage::ViewFlush(flush) => {
                self.summary.flushed_views += 1;
                self.summary.rolled_forward += flush.records.len() as u64;
            }
            _ => {}
        }
    }

    /// Feeds one node, then carries out what it said.
    fn input(
        &mut self,
        life: Incarnation,
        feed: impl FnOnce(&Node<Ticket>, Now, &mut Post),
    ) -> Result<(), String> {
        let wall_s = self.wall_s();
        let Some(process) = self.alive.get_mut(&life) else {
            return Ok(());
        };
        let mut post = Post::default();
        let now = process.node.now(Millis((process.clock_us + self.now) / MS), wall_s);
        feed(&process.node, now, &mut post);
        let is_serving = process.node.is_serving();
        let came_in = is_serving && !process.was_serving;
        process.was_serving = is_serving;
        let slot = process.slot;
        if came_in {
            self.summary.joins += 1;
            self.tell(|| format!("n{slot} serves"));
        }
        self.carry_out(life, post)
    }

    fn carry_out(&mut self, life: Incarnation, post: Post) -> Result<(), String> {
        for (to, message) in post.sent {
            if self.alive.contains_key(&to) {
                let arrival = self.network.arrival(life, to, self.now, &mut self.rng);
                let message = over_the_wire(&message);
                self.at(arrival, Event::Deliver { from: life, to, message });
            }
        }
        for ((client, _), outcome) in post.answers {
            self.resume(life, client, outcome)?;
        }
        Ok(())
    }

    fn act(&mut self, client: usize) -> Result<(), String> {
        if self.now >= REST_AT {
            return Ok(());
        }
        let pause = self.rng.random_range(200..4 * MS);
        if self.clients[client].doing.is_some() {
            // Still waiting; the answer goes on from here.
            return Ok(());
        }
        if self.clients[client].connected.is_none() {
            let serving: Vec<_> =
                self.alive.values().filter(|process| process.node.is_serving()).collect();
            if !serving.is_empty() {
                let process = serving[self.rng.random_range(0..serving.len())];
                let session = Session::new(0, 1 << 20);
                self.clients[client].connected = Some((process.slot, session));
            }
            self.after(pause, Event::Act(client));
            return Ok(());
        }
        self.begin(client)
    }

    fn begin(&mut self, client: usize) -> Result<(), String> {
        let wish = self.clients[client].wish(CLIENTS, &mut self.rng);
        let (doing, text) = self.command(wish);
        self.clients[client].doing = Some(doing);
        self.commands += 1;
        self.summary.commands += 1;
        let Some((slot, mut session)) = self.clients[client].connected.take() else {
            return Ok(());
        };
        let Some(life) = self.life_of(slot) else {
            return Ok(());
        };
        let (mut out, mut step) = (Vec::new(), Step::Close);
        let ticket = (client, self.commands);
        let mut answers = Vec::new();
        self.input(life, |node, now, post| {
            post.ticket = ticket;
            (_, step) = session.advance(node, text.as_bytes(), now, &mut out, post);
            answers = std::mem::take(&mut post.answers);
        })?;
        self.clients[client].connected = Some((slot, session));
        if step == Step::Hold {
            return Err(format!("client {client} was held by a node that serves"));
        }
        if step != Step::Wait {
            self.done(client, &out)?;
        }
        for ((client, _), outcome) in answers {
            self.resume(life, client, outcome)?;
        }
        Ok(())
    }

    fn command(&mut self, wish: Wish) -> (Doing, String) {
        match wish {
            Wish::Set(key) => {
                let number = self.keys[key].begin(false, self.now);
                let value = value_of(number, &mut self.rng);
                let (name, length) = (key_name(key), value.len());
                let text = if self.rng.random_ratio(1, 4) {
                    format!("ms {name} {length} F1 T0 O{number} c\r\n{value}\r\n")
                } else {
                    format!("set {name} 1 0 {length}\r\n{value}\r\n")
                };
                (Doing::Write { key, number }, text)
            }
            Wish::Delete(key) => {
                let number = self.keys[key].begin(true, self.now);
                let verb = if self.rng.random_ratio(1, 4) { "md" } else { "delete" };
                (Doing::Write { key, number }, format!("{verb} {}\r\n", key_name(key)))
            }
            Wish::Append(key) => {
                let text = format!("append {} 0 0 2\r\n:y\r\n", key_name(key));
                (Doing::Noise { accepted: &["STORED\r\n", "NOT_STORED\r\n"] }, text)
            }
            Wish::Touch(key) => {
                let text = format!("touch {} 0\r\n", key_name(key));
                (Doing::Noise { accepted: &["TOUCHED\r\n", "NOT_FOUND\r\n"] }, text)
            }
            Wish::GetAndTouch(key) => {
                let certain = self.keys[key].certain();
                (Doing::Read { key, certain }, format!("gat 0 {}\r\n", key_name(key)))
            }
            Wish::Read(key) => {
                let certain = self.keys[key].certain();
                (Doing::Read { key, certain }, format!("get {}\r\n", key_name(key)))
            }
            Wish::MakeCounter => {
                let text = format!("add {COUNTER} 0 0 1\r\n0\r\n");
                (Doing::Noise { accepted: &["STORED\r\n", "NOT_STORED\r\n"] }, text)
            }
            Wish::Count => (Doing::Count, format!("incr {COUNTER} 1\r\n")),
            Wish::Flush => {
                self.counter_flushed = true;
                self.summary.flush_alls += 1;
                let before = self.flushes.begin(&mut self.keys);
                (Doing::Flush { before }, "flush_all\r\n".into())
            }
        }
    }

    fn resume(&mut self, life: Incarnation, client: usize, outcome: Outcome) -> Result<(), String> {
        let Some((slot, mut session)) = self.clients[client].connected.take() else {
            return Ok(());
        };
        let is_current = self.life_of(slot) == Some(life) && self.clients[client].doing.is_some();
        let mut out = Vec::new();
        if is_current && let Some(process) = self.alive.get(&life) {
            session.resume(&process.node, outcome, &mut out);
        }
        self.clients[client].connected = Some((slot, session));
        if is_current { self.done(client, &out) } else { Ok(()) }
    }

    /// A reply is in: judge it.
    fn done(&mut self, client: usize, out: &[u8]) -> Result<(), String> {
        let reply = String::from_utf8_lossy(out).into_owned();
        let Some(doing) = self.clients[client].doing.take() else {
            return Ok(());
        };
        self.tell(|| format!("client {client}: {doing:?} -> {:?}", &reply[..reply.len().min(60)]));
        match doing {
            Doing::Write { key, number } => {
                let fine = ["STORED\r\n", "DELETED\r\n", "NOT_FOUND\r\n", "HD\r\n", "NF\r\n"];
                if !fine.contains(&reply.as_str()) && !reply.starts_with("HD O") {
                    return Err(format!("a write was answered {reply:?}"));
                }
                self.keys[key].ack(number, &self.flushes);
                self.check_copies(key)?;
            }
            Doing::Noise { accepted } => {
                if !accepted.contains(&reply.as_str()) {
                    return Err(format!("a change was answered {reply:?}"));
                }
            }
            Doing::Read { key, certain } => {
                self.summary.reads_checked += 1;
                let seen = number_in(&reply)?;
                self.keys[key].judge(seen, certain).map_err(|why| {
                    format!("stale read of {} by client {client}: {why}", key_name(key))
                })?;
            }
            Doing::Count => {
                if is_number(out) {
                    self.counted += 1;
                } else if reply != "NOT_FOUND\r\n" {
                    return Err(format!("incr was answered {reply:?}"));
                }
            }
            Doing::Flush { before } => {
                if reply != "OK\r\n" {
                    return Err(format!("flush_all was answered {reply:?}"));
                }
                self.flushes.ack(&before, &mut self.keys, self.now);
            }
        }
        let pause = self.rng.random_range(200..4 * MS);
        self.after(pause, Event::Act(client));
        Ok(())
    }

    /// What was acknowledged is on every node that serves, at this very moment.
    fn check_copies(&mut self, key: usize) -> Result<(), String> {
        let wall_s = self.wall_s();
        let certain = self.keys[key].certain();
        for process in self.alive.values().filter(|process| process.node.is_serving()) {
            let now = process.node.now(Millis((process.clock_us + self.now) / MS), wall_s);
            let (mut out, mut post) = (Vec::new(), Post::default());
            let text = format!("get {}\r\n", key_name(key));
            Session::new(0, 1 << 20).advance(
                &process.node,
                text.as_bytes(),
                now,
                &mut out,
                &mut post,
            );
            let seen = number_in(&String::from_utf8_lossy(&out))?;
            self.summary.copies_checked += 1;
            self.keys[key].judge(seen, certain).map_err(|why| {
                format!("acknowledged, but n{} has another {}: {why}", process.slot, key_name(key))
            })?;
        }
        Ok(())
    }

    /// Everything is quiet: nobody waits, all copies are equal and right.
    fn check_rest(&mut self) -> Result<(), String> {
        if self.alive.len() != NODES {
            return Err("not all nodes are up at the end".into());
        }
        if let Some(client) = self.clients.iter().find(|client| client.doing.is_some()) {
            return Err(format!(
                "client {} never got an answer: {:?}",
                client.number, client.doing
            ));
        }
        let wall_s = self.wall_s();
        let mut copies = Vec::new();
        for process in self.alive.values() {
            if !process.node.is_serving() {
                return Err(format!("n{} does not serve: {:?}", process.slot, process.node.view()));
            }
            let now = process.node.now(Millis((process.clock_us + self.now) / MS), wall_s);
            copies.push((process.slot, process.node.contents(now)));
        }
        for pair in copies.windows(2) {
            if pair[0].1 != pair[1].1 {
                return Err(format!("n{} and n{} differ at rest", pair[0].0, pair[1].0));
            }
        }
        for key in 0..self.keys.len() {
            self.check_copies(key)?;
        }
        self.check_counter(&copies[0].1)
    }

    fn check_counter(
        &self,
        records: &[sessiond::record::Record<bytes::Bytes>],
    ) -> Result<(), String> {
        if self.counter_flushed {
            return Ok(());
        }
        let found = records.iter().find(|record| record.key == COUNTER);
        let value = match found.map(|record| &record.change) {
            Some(sessiond::record::Change::Put { value, .. }) => {
                String::from_utf8_lossy(value).trim().parse().unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        if (self.counted..=self.counted + self.count_unknown).contains(&value) {
            return Ok(());
        }
        let (counted, unknown) = (self.counted, self.count_unknown);
        Err(format!("counter is {value}, acknowledged {counted}, unknown {unknown}"))
    }

    /// The client's node is gone; what it was doing may or may not have happened.
    fn disconnect(&mut self, client: usize) {
        self.clients[client].connected = None;
        if let Some(doing) = self.clients[client].doing.take() {
            self.summary.unknown_outcomes += 1;
            match doing {
                Doing::Write { key, number } => self.keys[key].lose(number),
                Doing::Count => self.count_unknown += 1,
                Doing::Read { .. } | Doing::Noise { .. } | Doing::Flush { .. } => {}
            }
            self.after(MS, Event::Act(client));
        }
    }

    fn life_of(&self, slot: usize) -> Option<Incarnation> {
        self.alive.iter().find(|(_, process)| process.slot == slot).map(|(&life, _)| life)
    }

    fn wall_s(&self) -> i64 {
        WALL_S + (self.now / SECOND) as i64
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((time, self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:9.3} ms  {}", self.now as f64 / 1000.0, what());
        }
    }
}

fn is_number(out: &[u8]) -> bool {
    out.first().is_some_and(u8::is_ascii_digit)
}
