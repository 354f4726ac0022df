//! The loop: one event at a time, in the order of simulated time.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::node::{Node, Options, Session, Step};
use sessiond::record::{Change, Outcome, Record};
use sessiond::replication::message::LaneMessage;
use sessiond::replication::{
    Dialect, Features, Incarnation, LogWish, Member, Message, NODES_MAX, NodesChange, Place,
    Roster, Rules, Timing, View,
};
use sessiond::settings::Settings;
use sessiond::time::Now;

use super::client::{Client, Doing};
use super::faults::Fault;
use super::history::wire::{self, Heard};
use super::history::{Answer, History, Operation, Reply, invariants};
use super::log::Logs;
use super::network::{Network, over_the_wire};
use super::operators::SPARE;
use super::process::{Post, Process, Ticket};
use super::summary::Summary;

const CLIENTS: usize = 4;
pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;
/// Faults end here, and every node is up again; clients stop a while later.
const HEAL_AT: u64 = 7 * SECOND;
const REST_AT: u64 = 9 * SECOND;
/// By then everything has to be quiet.
const END_AT: u64 = 25 * SECOND;
const WALL_S: i64 = 1_800_000_000;
pub(crate) const TICK: u64 = 25 * MS;

pub(crate) enum Event {
    Boot(usize),
    Fault(Fault),
    /// A new life of some node is started beside the present one.
    Upgrade,
    /// It has had its time.
    UpgradeEnds(Incarnation),
    /// Its predecessor is over: it takes what was the node's.
    TakeOver(Incarnation),
    /// A process sees that another one has ended, which was beside its predecessor.
    EndedBeside {
        at: Incarnation,
        life: Incarnation,
    },
    Heal,
    HealAll,
    /// An operator changes the nodes.
    Change,
    /// One of them, for another.
    Replace {
        old: usize,
        new: usize,
    },
    /// And stops one that is of the group no more.
    Retire(usize),
    /// And looks whether the group can still agree on anything.
    Rescue,
    Resume(Incarnation),
    Meet {
        at: Incarnation,
        peer: Incarnation,
    },
    /// A process sees that another one's has ended.
    Ended {
        at: Incarnation,
        slot: usize,
    },
    /// A session has something to deliver.
    Session(Incarnation, Incarnation),
    Datagram(Incarnation, Incarnation, Message),
    Wish(Incarnation, LogWish),
    Agreed(Incarnation, View),
    Tick(Incarnation),
    Act(usize),
    Input(usize),
    GiveUp(Ticket),
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Anything.
    Random,
    /// The same, while nodes are replaced by new lives of theirs, side by side.
    Upgrades,
    /// Single hosts are cut off.
    Cuts,
    /// One thing that is rare: a majority of the members on the side without a majority of votes.
    Split,
    /// Messages about lanes are late, and clients wait for a short time only.
    Lags,
    /// One of two is replaced, and stopped before its vote is gone: nothing can be agreed on then.
    Hasty,
}

impl Plan {
    /// How long a client waits at most, as the nodes know.
    fn request_ms(self) -> u64 {
        match self {
            Self::Lags => 150,
            _ => Timing::default().request_ms,
        }
    }
}

/// By how much cluster time may be different on two nodes that are well.
const CLOCK_ERROR: u64 = 40 * MS;

/// Everything there is.
pub(crate) struct World {
    pub(crate) rng: StdRng,
    rules: Rules,
    /// In milliseconds: no client waits longer for a command.
    request_ms: u64,
    is_told: bool,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    pub(crate) hosts: usize,
    /// The first so many begin the group.
    pub(crate) seeds: usize,
    /// Hosts that an operator has added, or is about to.
    pub(crate) expected: Vec<bool>,
    /// Hosts that were removed while they ran.
    pub(crate) retired: Vec<bool>,
    pub(crate) alive: BTreeMap<Incarnation, Process>,
    /// Processes that were told to end.
    pub(crate) leaving: BTreeSet<Incarnation>,
    /// Former lives of each host.
    pub(crate) former: Vec<Vec<Incarnation>>,
    /// Hosts without power: nobody refuses connections there.
    pub(crate) silent: Vec<bool>,
    pub(crate) network: Network,
    pub(crate) logs: Logs,
    clients: Vec<Client>,
    commands: u64,
    /// When each was given, by its number.
    invoked: Vec<u64>,
    /// A change that came about when nobody could wait for it any more.
    too_late: Option<String>,
    gone: Rc<RefCell<BTreeSet<Ticket>>>,
    pub(crate) history: History,
    epochs: BTreeSet<u32>,
    /// Bytes of memory of each node, where that is short.
    memory: Option<usize>,
    /// Bytes a second for those that join, where that is limited.
    sync_rate: Option<u64>,
    /// Nodes know more or less of the protocol.
    is_mixed: bool,
    /// Operators stop what they have removed at once.
    pub(crate) is_hasty: bool,
    pub(crate) summary: Summary,
}

impl World {
    /// Hosts that are about to boot, and clients that wait for them.
    pub(crate) fn new(seed: u64, plan: Plan, rules: Rules, is_told: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let seeds = match (plan, rng.random_range(0..10)) {
            (Plan::Split, _) | (Plan::Random | Plan::Upgrades, 8) => 5,
            (Plan::Random | Plan::Upgrades, 9..) => 7,
            (Plan::Random | Plan::Upgrades, 7) | (Plan::Hasty, _) => 2,
            (Plan::Cuts | Plan::Lags | Plan::Random | Plan::Upgrades, _) => 3,
        };
        let is_any = matches!(plan, Plan::Random | Plan::Upgrades);
        // Of seven there is none that could be added.
        let changes = is_any && rng.random_ratio(1, 3) && seeds < NODES_MAX;
        let changes = changes || plan == Plan::Hasty;
        let hosts = seeds + if changes { SPARE } else { 0 };
        let home = |client: usize| (client < 2).then_some(client % seeds);
        let mut world = Self {
            rng,
            rules,
            request_ms: plan.request_ms(),
            is_told,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            hosts,
            seeds,
            expected: vec![false; hosts],
            retired: vec![false; hosts],
            alive: BTreeMap::new(),
            leaving: BTreeSet::new(),
            former: vec![Vec::new(); hosts],
            silent: vec![false; hosts],
            network: Network::default(),
            logs: Logs::new(seeds, hosts),
            clients: (0..CLIENTS).map(|client| Client::new(home(client))).collect(),
            commands: 0,
            invoked: vec![0],
            too_late: None,
            gone: Rc::default(),
            history: History::default(),
            epochs: BTreeSet::new(),
            memory: None,
            sync_rate: None,
            is_mixed: false,
            is_hasty: plan == Plan::Hasty,
            summary: Summary {
                of_five: u64::from(seeds == 5),
                of_seven: u64::from(seeds == NODES_MAX),
                ..Summary::default()
            },
        };
        for slot in 0..seeds {
            let late = if world.rng.random_ratio(1, 10) { 2500 } else { 100 };
            let at = world.rng.random_range(0..late * MS);
            world.at(at, Event::Boot(slot));
        }
        if is_any && world.rng.random_ratio(1, 6) {
            world.memory = Some(world.rng.random_range(150..400) << 10);
        }
        if world.rng.random_ratio(1, 4) {
            world.sync_rate = Some(world.rng.random_range(100_000..1_000_000));
        }
        world.is_mixed = is_any && world.rng.random_ratio(1, 4);
        match plan {
            Plan::Random => world.plan_faults(),
            Plan::Upgrades => {
                world.plan_faults();
                world.plan_upgrades();
            }
            Plan::Split => world.plan_split(),
            Plan::Cuts => world.plan_cuts(),
            Plan::Lags => world.plan_lags(),
            Plan::Hasty => world.at(2 * SECOND, Event::Replace { old: 1, new: 2 }),
        }
        if changes {
            world.at(HEAL_AT, Event::Rescue);
        }
        if changes && is_any {
            world.plan_changes();
        }
        world.at(HEAL_AT, Event::HealAll);
        for client in 0..CLIENTS {
            world.at(client as u64 * MS, Event::Act(client));
        }
        world
    }

    /// Runs to the end; what went wrong, if anything did.
    pub(crate) fn run(mut self) -> Result<Summary, String> {
        while let Some(Reverse((at, id))) = self.queue.pop() {
            if at > END_AT {
                break;
            }
            self.now = at;
            if let Some(event) = self.events.remove(&id) {
                self.handle(event)?;
            }
            if let Some(what) = self.too_late.take() {
                return Err(what);
            }
        }
        self.check_rest()?;
        self.check_history()?;
        Ok(self.summary)
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        if let Some(life) = target(&event)
            && let Some(process) = self.alive.get_mut(&life)
            && process.paused_until > self.now
        {
            process.deferred.push_back(event);
            return Ok(());
        }
        match event {
            Event::Boot(slot) => self.boot(slot),
            Event::Fault(fault) => self.fault(fault),
            Event::Upgrade => self.upgrade(),
            Event::UpgradeEnds(life) => self.end_upgrade(life),
            Event::TakeOver(life) => self.take_over(life)?,
            Event::EndedBeside { at, life } => {
                self.input(at, |node, now, post| node.ended(life, now, post))?;
            }
            Event::Heal => self.heal(),
            Event::HealAll => self.heal_all(),
            Event::Change => self.change()?,
            Event::Replace { old, new } => {
                let replaced = NodesChange::Replace(name(old), name(new), place(new).address);
                self.ask_for(replaced, Some(new))?;
            }
            Event::Retire(slot) => self.stop_removed(slot),
            Event::Rescue => self.rescue()?,
            Event::Resume(life) => self.resume_process(life),
            Event::Meet { at, peer } => self.meet(at, peer)?,
            Event::Ended { at, slot } => {
                if let Some(process) = self.alive.get_mut(&at) {
                    process.has_ended.insert(slot);
                }
                self.dial(at, slot)?;
            }
            Event::Session(from, to) => self.deliver_next(from, to)?,
            Event::Datagram(from, to, message) => {
                if self.is_open(from, to) {
                    self.deliver(from, to, message)?;
                }
            }
            Event::Wish(life, wish) => self.carry_out_wish(life, wish),
            Event::Agreed(life, view) => {
                self.input(life, |node, now, post| node.agreed(view, now, post))?;
            }
            Event::Tick(life) => self.tick(life)?,
            Event::Act(client) => self.act(client)?,
            Event::Input(client) => self.feed(client)?,
            Event::GiveUp(ticket) => self.give_up(ticket),
        }
        Ok(())
    }

    fn boot(&mut self, slot: usize) {
        let is_there = self.life_of(slot).is_some() || self.successor_of(slot).is_some();
        if is_there || !self.belongs(slot) {
            return;
        }
        self.retired[slot] = false;
        self.summary.restarts += u64::from(!self.former[slot].is_empty());
        let succeeds = self.former[slot].clone();
        let life = self.begin(slot, succeeds, None);
        self.former[slot].push(life);
        self.silent[slot] = false;
    }

    /// Starts a process.
    pub(crate) fn begin(
        &mut self,
        slot: usize,
        succeeds: Vec<Incarnation>,
        beside: Option<Incarnation>,
    ) -> Incarnation {
        let life = Incarnation(self.rng.random_range(1..u64::MAX));
        let me = Member { name: name(slot), incarnation: life };
        let nodes = (0..self.seeds).chain([slot]).map(|host| (name(host), place(host))).collect();
        let speaks = Dialect { features: self.some_features(), ..Dialect::default() };
        let options = Options {
            succeeds: succeeds.clone(),
            beside,
            timing: Timing { request_ms: self.request_ms, ..Timing::default() },
            speaks,
            sync_rate: self.sync_rate,
            rules: self.rules,
            settings: Settings {
                workers: 1,
                memory: self.memory.unwrap_or(Settings::default().memory),
                ..Settings::default()
            },
            ..Options::new(me, nodes, self.rng.random_range(0..u64::MAX))
        };
        let clock_us = self.rng.random_range(0..1000 * SECOND);
        let rate_ppm = self.rng.random_range(992_000..1_008_000);
        let mut process = Process {
            slot,
            node: Node::new(options.clone(), Now::default()),
            clock_us,
            rate_ppm,
            paused_until: 0,
            deferred: VecDeque::new(),
            was_serving: false,
            epoch: 0,
            beside,
            succeeds,
            has_ended: BTreeSet::new(),
        };
        let (local, wall_s) = (process.local(self.now), self.wall_s());
        process.node = Node::new(options, Now { local, wall_s, ..Now::default() });
        self.tell(|| format!("n{slot} boots as {life:?}"));
        self.alive.insert(life, process);
        self.connect_all(life);
        let phase = self.rng.random_range(0..TICK);
        self.after(phase, Event::Tick(life));
        life
    }

    /// In some groups, some nodes know less than others; each start may bring another program.
    fn some_features(&mut self) -> Features {
        let is_old = self.is_mixed && self.rng.random_ratio(1, 3);
        if is_old { Features::NONE } else { Features::ALL }
    }

    /// Connections to all others, as far as there is a way.
    pub(crate) fn connect_all(&mut self, life: Incarnation) {
        let others: Vec<_> = self.alive.keys().copied().filter(|&other| other != life).collect();
        for other in others {
            for (at, peer) in [(life, other), (other, life)] {
                let wait = self.rng.random_range(MS..120 * MS);
                self.after(wait, Event::Meet { at, peer });
            }
        }
    }

    fn meet(&mut self, at: Incarnation, peer: Incarnation) -> Result<(), String> {
        let Some(there) = self.alive.get(&peer) else {
            return Ok(());
        };
        let options = there.node.options();
        let there_nodes = (roster(&there.node), there.node.options().me.name.clone());
        let (member, succeeds, slot) = (options.me.clone(), there.succeeds.clone(), there.slot);
        let (speaks, beside) = (options.speaks, there.beside);
        let Some(here) = self.alive.get_mut(&at) else {
            return Ok(());
        };
        if !self.network.joins(here.slot, slot) || !welcome_each_other(&here.node, &there_nodes) {
            return Ok(());
        }
        if beside.is_none() {
            here.has_ended.remove(&slot);
        }
        self.input(at, |node, now, post| node.meet(&member, &succeeds, &speaks, beside, now, post))
    }

    /// Somebody tries to reach a host; where a process has died, its host refuses.
    fn dial(&mut self, at: Incarnation, slot: usize) -> Result<(), String> {
        let Some(process) = self.alive.get(&at) else {
            return Ok(());
        };
        let is_dead = self.life_of(slot).is_none() && !self.former[slot].is_empty();
        if !is_dead || self.silent[slot] || !self.network.joins(process.slot, slot) {
            return Ok(());
        }
        let has_ended = process.has_ended.contains(&slot);
        let name = name(slot);
        if !roster(&process.node).nodes.contains_key(&name) {
            return Ok(());
        }
        self.input(at, |node, now, post| node.refused(&name, has_ended, now, post))
    }

    fn tick(&mut self, life: Incarnation) -> Result<(), String> {
        let Some(process) = self.alive.get(&life) else {
            return Ok(());
        };
        let (slot, has_log) = (process.slot, process.beside.is_none());
        self.after(TICK, Event::Tick(life));
        let is_seated = has_log && self.logs.is_seated(slot);
        self.input(life, |node, now, post| {
            node.set_seated(is_seated, now, post);
            node.tick(now, post);
        })?;
        self.go_on_leaving(life)?;
        self.go_on_upgrading(life);
        if self.rng.random_ratio(1, 4) {
            for other in (0..self.hosts).filter(|&other| other != slot) {
                self.dial(life, other)?;
            }
            if self.hosts > self.seeds {
                // Whoever was refused because a view was not known yet dials again.
                self.connect_all(life);
            }
            let reaches = self.reached_from(slot);
            if has_log && let Some(view) = self.logs.learn(slot, |other| reaches[other]) {
                self.input(life, |node, now, post| node.agreed(view, now, post))?;
            }
        }
        Ok(())
    }

    /// The hosts whose log can be reached from this one.
    pub(crate) fn reached_from(&self, slot: usize) -> Vec<bool> {
        let works = |host: usize| {
            let life = self.life_of(host);
            life.and_then(|life| self.alive.get(&life))
                .is_some_and(|process| process.paused_until <= self.now)
        };
        (0..self.hosts).map(|host| works(host) && self.network.joins(slot, host)).collect()
    }

    fn carry_out_wish(&mut self, life: Incarnation, wish: LogWish) {
        let Some(slot) = self.alive.get(&life).map(|process| process.slot) else {
            return;
        };
        if self.alive[&life].beside.is_some() {
            // The log is its predecessor's.
            return;
        }
        match wish {
            LogWish::Dead(_) | LogWish::Roster(_) => {}
            // Wishes of one node are carried out in their order.
            LogWish::FoundLine(view) if view.epoch <= self.alive[&life].node.view().epoch => {}
            LogWish::FoundLine(view) => {
                self.summary.last_men += 1;
                self.tell(|| format!("n{slot} goes on alone"));
                self.logs.found(slot, (*view).clone());
                self.after(100, Event::Agreed(life, *view));
            }
            LogWish::Propose(view) => {
                let reaches = self.reached_from(slot);
                let next = (*view).clone();
                if self.logs.propose(slot, next, self.rules.half, |host| reaches[host]) {
                    self.note_view(&view);
                    self.retire();
                    // As far as the log reaches: it goes the way that everything goes.
                    let hears = |process: &Process| {
                        self.network.joins(slot, process.slot) && process.beside.is_none()
                    };
                    let alive = self.alive.iter().filter(|(_, process)| hears(process));
                    let lives: Vec<_> = alive.map(|(&life, _)| life).collect();
                    for to in lives {
                        if !self.rng.random_ratio(1, 5) {
                            let late = self.rng.random_range(100..30 * MS);
                            self.after(late, Event::Agreed(to, (*view).clone()));
                        }
                    }
                }
            }
        }
    }

    fn note_view(&mut self, view: &View) {
        let names = |list: &[Member]| {
            list.iter().map(|member| member.name.as_ref()).collect::<Vec<_>>().join(" ")
        };
        let (epoch, cause) = (view.epoch.0, &view.cause);
        let (members, learners) = (names(&view.members), names(&view.learners));
        self.tell(|| format!("view {epoch}: {members} + {learners} ({cause})"));
        if !self.epochs.insert(view.epoch.0) {
            return;
        }
        self.summary.views += 1;
        self.summary.views_of_less += u64::from(view.features != Features::ALL);
        let counter = match &*view.cause {
            "death" => &mut self.summary.deaths,
            "silence" | "stuck" => &mut self.summary.silences,
            "admission" => &mut self.summary.admissions,
            "cold start" => &mut self.summary.cold_starts,
            "flush_all" => &mut self.summary.flush_alls,
            "upgrade" => &mut self.summary.upgrades,
            "add-node" => &mut self.summary.nodes_added,
            "remove-node" => &mut self.summary.nodes_removed,
            "replace-node" => &mut self.summary.nodes_replaced,
            _ => return,
        };
        *counter += 1;
    }

    fn is_open(&self, from: Incarnation, to: Incarnation) -> bool {
        match (self.alive.get(&from), self.alive.get(&to)) {
            (Some(from), Some(to)) => self.network.is_open(from.slot, to.slot),
            // What the dead have said still arrives.
            (None, Some(_)) => true,
            _ => false,
        }
    }

    fn deliver_next(&mut self, from: Incarnation, to: Incarnation) -> Result<(), String> {
        // Acknowledgements go the other way: a session stands still when either way is cut.
        if self.alive.contains_key(&from) && !(self.is_open(from, to) && self.is_open(to, from)) {
            return Ok(());
        }
        match self.network.receive((from, to)) {
            Some(message) => self.deliver(from, to, message),
            None => Ok(()),
        }
    }

    fn deliver(
        &mut self,
        from: Incarnation,
        to: Incarnation,
        message: Message,
    ) -> Result<(), String> {
        self.count_message(&message);
        if self.is_told && std::env::var("MSG").is_ok() && !matches!(message, Message::Beat(_)) {
            let slot = |life| self.alive.get(&life).map_or(99, |process: &Process| process.slot);
            let (a, b) = (slot(from), slot(to));
            self.tell(|| format!("n{a}->n{b} {message:?}").chars().take(400).collect::<String>());
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
            LaneMessage::Fwd(fwd) => {
                self.summary.forwards += 1;
                self.summary.endless_forwards += u64::from(fwd.until.is_none());
                let is_read = matches!(fwd.mutation, sessiond::record::Mutation::Read);
                self.summary.relayed_reads += u64::from(is_read);
            }
            LaneMessage::PassDone(..) => self.summary.passed_on += 1,
            LaneMessage::Apply(apply) => {
                self.summary.applies += 1;
                self.summary.evictions += u64::from(apply.answered.is_none());
            }
            LaneMessage::Lost(lost) => self.summary.lost_by_members += lost.len() as u64,
            LaneMessage::SnapChunk(records) => self.summary.snapshot_items += records.len() as u64,
            LaneMessage::ViewFlush(flush) => {
                self.summary.flushes_with_records += u64::from(!flush.records.is_empty());
                self.summary.rolled_forward += flush.records.len() as u64;
            }
            _ => {}
        }
    }

    fn post(&mut self, life: Incarnation, ticket: Ticket) -> Post {
        let may_stall = self.now < HEAL_AT && self.rng.random_ratio(1, 1500);
        let stall_ms = if may_stall { self.rng.random_range(10..2500) } else { 0 };
        Post {
            ticket,
            local: self.alive[&life].local(self.now),
            stall_ms,
            has_stalled: Cell::new(false),
            gone: Rc::clone(&self.gone),
            sent: Vec::new(),
            answers: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// Feeds one node, then carries out what it said.
    pub(crate) fn input(
        &mut self,
        life: Incarnation,
        feed: impl FnOnce(&Node<Ticket>, Now, &mut Post),
    ) -> Result<(), String> {
        if !self.alive.contains_key(&life) {
            return Ok(());
        }
        let mut post = self.post(life, (0, 0));
        let process = &self.alive[&life];
        let now = process.now(self.now, self.wall_s());
        feed(&process.node, now, &mut post);
        self.carry_out(life, post);
        Ok(())
    }

    /// Sends what a node has said, later by the time that it stood still in between.
    fn carry_out(&mut self, life: Incarnation, post: Post) {
        let mut late = 0;
        if post.has_stalled.get() {
            late = post.stall_ms * MS;
            self.summary.stalls += 1;
        }
        let Some(process) = self.alive.get_mut(&life) else {
            return;
        };
        if late > 0 {
            process.paused_until = process.paused_until.max(self.now + late);
            let until = process.paused_until;
            self.after(late, Event::Resume(life));
            self.tell(|| format!("{life:?} stalls until {until}"));
        }
        let process = &self.alive[&life];
        let (slot, is_serving) = (process.slot, process.node.is_serving());
        let epoch = process.node.view().epoch.0;
        if process.was_serving != is_serving || process.epoch != epoch {
            let state = if is_serving { "serves" } else { "does not serve" };
            self.tell(|| format!("n{slot} {state}, epoch {epoch}"));
        }
        if let Some(process) = self.alive.get_mut(&life) {
            (process.was_serving, process.epoch) = (is_serving, epoch);
        }
        for (to, message) in post.sent {
            if !self.alive.contains_key(&to) {
                continue;
            }
            let message = over_the_wire(&message);
            let is_session = matches!(message, Message::Lane(..));
            let at = self.network.arrival((life, to), is_session, self.now + late, &mut self.rng);
            if is_session {
                self.note_lateness(&message);
                let held_up = self.network.held_up_until(slot, self.alive[&to].slot);
                let at = at.max(held_up);
                self.network.send((life, to), message);
                self.at(at, Event::Session(life, to));
            } else if self.is_open(life, to) {
                self.at(at, Event::Datagram(life, to, message));
            }
        }
        for wish in post.wishes {
            let soon = self.rng.random_range(300..20 * MS);
            if !self.rng.random_ratio(1, 10) {
                self.after(late + soon, Event::Wish(life, wish));
            }
        }
        for (ticket, outcome) in post.answers {
            self.answered(life, ticket, outcome, late);
        }
    }

    /// An owner tells what it has just decided: somebody may still be waiting for it.
    fn note_lateness(&mut self, message: &Message) {
        let Message::Lane(_, _, LaneMessage::Apply(apply)) = message else {
            return;
        };
        let Change::Put { value, .. } = &apply.record.change else {
            return;
        };
        let text = std::str::from_utf8(value).unwrap_or_default();
        let number = text.strip_prefix('v').and_then(|number| number.parse::<usize>().ok());
        let Some(&invoked) = number.and_then(|number| self.invoked.get(number)) else {
            return;
        };
        let age = self.now - invoked;
        if age > self.request_ms * MS + CLOCK_ERROR {
            self.too_late = Some(format!("{text} was carried out {} ms late", age / MS));
        }
    }

    fn heal(&mut self) {
        self.tell(|| "all ways are open".into());
        self.network.heal();
        let lives: Vec<_> = self.alive.keys().copied().collect();
        for life in lives {
            self.connect_all(life);
        }
        for ((from, to), waiting) in self.network.waiting() {
            for n in 0..waiting {
                self.after(MS + n as u64, Event::Session(from, to));
            }
        }
    }

    fn heal_all(&mut self) {
        self.heal();
        for slot in 0..self.hosts {
            if self.life_of(slot).is_none() && self.belongs(slot) {
                self.after(MS, Event::Boot(slot));
            }
        }
    }

    fn resume_process(&mut self, life: Incarnation) {
        let Some(process) = self.alive.get_mut(&life) else {
            return;
        };
        if process.paused_until > self.now {
            return;
        }
        let slot = process.slot;
        let deferred = std::mem::take(&mut process.deferred);
        self.tell(|| format!("n{slot} moves again"));
        for event in deferred {
            self.after(0, event);
        }
    }

    fn act(&mut self, client: usize) -> Result<(), String> {
        if self.now >= REST_AT || self.clients[client].doing.is_some() {
            return Ok(());
        }
        if self.clients[client].connected.is_none() {
            let slot =
                self.clients[client].home.unwrap_or_else(|| self.rng.random_range(0..self.hosts));
            if let Some(life) = self.open_to_clients(slot) {
                self.clients[client].connected = Some((life, Session::new(0, 1 << 20)));
            }
            let pause = self.rng.random_range(200..20 * MS);
            self.after(pause, Event::Act(client));
            return Ok(());
        }
        self.ask(client);
        Ok(())
    }

    fn ask(&mut self, client: usize) {
        self.commands += 1;
        self.summary.commands += 1;
        let number = self.commands;
        self.invoked.push(self.now);
        let is_short = self.memory.is_some();
        let (key, command, form) = self.clients[client].wish(number, is_short, &mut self.rng);
        let input = wire::request(&command, &key, form);
        let operation =
            Operation { client: client as u32, key, command, invoked: self.now, answer: None };
        self.clients[client].doing = Some(Doing { operation, number, input, output: Vec::new() });
        let travel = self.rng.random_range(20..200);
        self.after(travel, Event::Input(client));
        let patience = self.rng.random_range(500 * MS..12 * SECOND);
        let patience = patience.min(self.request_ms * MS);
        self.after(patience, Event::GiveUp((client, number)));
    }

    /// Lets the client's session go on with what it has not taken yet.
    fn feed(&mut self, client: usize) -> Result<(), String> {
        let Some((life, mut session)) = self.clients[client].connected.take() else {
            return Ok(());
        };
        let Some(mut doing) = self.clients[client].doing.take() else {
            return Ok(());
        };
        if self.alive[&life].paused_until > self.now {
            let until = self.alive[&life].paused_until;
            self.at(until, Event::Input(client));
            self.clients[client].connected = Some((life, session));
            self.clients[client].doing = Some(doing);
            return Ok(());
        }
        let mut post = self.post(life, (client, doing.number));
        let process = &self.alive[&life];
        let now = process.now(self.now, self.wall_s());
        let mut step = Step::Yield;
        while matches!(step, Step::Yield | Step::Write) {
            let (done, next) =
                session.advance(&process.node, &doing.input, now, &mut doing.output, &mut post);
            doing.input.drain(..done);
            step = next;
        }
        let late = if post.has_stalled.get() { post.stall_ms * MS } else { 0 };
        self.clients[client].connected = Some((life, session));
        self.clients[client].doing = Some(doing);
        self.carry_out(life, post);
        if !matches!(step, Step::Wait) {
            self.done(client, late)?;
        }
        Ok(())
    }

    /// A node has an answer for a client that waits.
    fn answered(&mut self, life: Incarnation, ticket: Ticket, outcome: Outcome, late: u64) {
        let (client, number) = ticket;
        let is_current = self.clients[client].doing.as_ref().is_some_and(|it| it.number == number);
        let Some((at, mut session)) = self.clients[client].connected.take() else {
            return;
        };
        let is_here = is_current && at == life;
        if is_here && let Some(doing) = &mut self.clients[client].doing {
            session.resume(&self.alive[&life].node, outcome, &mut doing.output);
        }
        self.clients[client].connected = Some((at, session));
        if is_here {
            self.after(late + 10, Event::Input(client));
        }
    }

    /// The session has done what it could: is a reply there?
    fn done(&mut self, client: usize, late: u64) -> Result<(), String> {
        let Some(doing) = &self.clients[client].doing else {
            return Ok(());
        };
        match wire::reply(&doing.output) {
            Heard::Part => Ok(()),
            Heard::Other(line) if line.contains("out of memory") && self.memory.is_some() => {
                self.record(client, None, late);
                Ok(())
            }
            Heard::Other(line) => Err(format!("{:?} was answered {line:?}", doing.operation)),
            Heard::Reply(reply, used) if used == doing.output.len() => {
                let reply = wire::as_answer_to(&doing.operation.command, reply);
                self.record(client, Some(reply), late);
                Ok(())
            }
            Heard::Reply(..) => Err(format!("too long a reply: {:?}", doing.output)),
        }
    }

    /// A command is over, or nobody will ever know what became of it.
    fn record(&mut self, client: usize, reply: Option<Reply>, late: u64) {
        let Some(mut doing) = self.clients[client].doing.take() else {
            return;
        };
        let at = self.now + late + 20;
        self.summary.held += u64::from(at - doing.operation.invoked > SECOND && reply.is_some());
        self.summary.unknown_outcomes += u64::from(reply.is_none());
        if let Some(reply) = &reply {
            self.clients[client].note(&doing.operation.key, reply.unique());
        }
        self.gone.borrow_mut().insert((client, doing.number));
        doing.operation.answer = reply.map(|reply| Answer { at, reply });
        let operation = &doing.operation;
        self.tell(|| format!("client {client}: {operation:?}"));
        self.history.push(doing.operation);
        let pause = self.rng.random_range(200..8 * MS);
        self.after(late + pause, Event::Act(client));
    }

    /// A client that has waited long enough closes its connection.
    fn give_up(&mut self, (client, number): Ticket) {
        if self.clients[client].doing.as_ref().is_some_and(|doing| doing.number == number) {
            self.clients[client].connected = None;
            self.record(client, None, 0);
        }
    }

    /// A process is gone; what its clients were doing may or may not have happened.
    pub(crate) fn break_connections(&mut self, life: Incarnation) {
        for client in 0..CLIENTS {
            let is_there = |(at, _): &(Incarnation, Session)| *at == life;
            if self.clients[client].connected.as_ref().is_some_and(is_there) {
                self.clients[client].connected = None;
                self.record(client, None, 0);
                self.after(MS, Event::Act(client));
            }
        }
    }

    /// Everything is quiet: nobody waits, all copies are equal.
    fn check_rest(&mut self) -> Result<(), String> {
        let nodes = self.nodes();
        if nodes.keys().any(|node| !self.alive.values().any(|it| *name(it.slot) == **node)) {
            return Err("not all nodes are up at the end".into());
        }
        let wall_s = self.wall_s();
        let mut copies = Vec::new();
        for process in self.alive.values() {
            self.summary.note_end(&process.node);
            if !nodes.contains_key(&name(process.slot)) {
                if process.node.is_serving() {
                    return Err(format!("n{} serves though it was removed", process.slot));
                }
                continue;
            }
            if !process.node.is_serving() {
                let view = process.node.view();
                return Err(format!("n{} does not serve in the end: {view:?}", process.slot));
            }
            copies.push((process.slot, process.node.contents(process.now(self.now, wall_s))));
        }
        for pair in copies.windows(2) {
            if pair[0].1 != pair[1].1 {
                if self.is_told {
                    let (one, other) = (&pair[0].1, &pair[1].1);
                    let lacks = |from: &[Record<Bytes>], of: &[Record<Bytes>]| {
                        let others = of.iter().filter(|record| !from.contains(record));
                        others.cloned().collect::<Vec<_>>()
                    };
                    eprintln!(
                        "only the second: {:?}\nonly the first: {:?}",
                        lacks(one, other),
                        lacks(other, one)
                    );
                }
                return Err(format!("n{} and n{} differ at rest", pair[0].0, pair[1].0));
            }
        }
        Ok(())
    }

    fn check_history(&mut self) -> Result<(), String> {
        if self.memory.is_some() {
            self.history.allow_evictions();
        }
        let checked = self.history.check().map_err(|violation| format!("{violation}"))?;
        self.summary.checked_operations += checked.operations as u64;
        self.summary.checked_keys += (checked.keys - checked.undecided) as u64;
        if self.memory.is_some() {
            return Ok(());
        }
        invariants::check(&self.history).map(drop)
    }

    /// The process that has the host's port, and its place in the log.
    pub(crate) fn life_of(&self, slot: usize) -> Option<Incarnation> {
        let is_it = |process: &Process| process.slot == slot && process.beside.is_none();
        self.alive.iter().find(|(_, process)| is_it(process)).map(|(&life, _)| life)
    }

    /// The one beside it, or that is about to take what was that one's.
    pub(crate) fn successor_of(&self, slot: usize) -> Option<Incarnation> {
        let is_it = |process: &Process| process.slot == slot && process.beside.is_some();
        self.alive.iter().find(|(_, process)| is_it(process)).map(|(&life, _)| life)
    }

    fn wall_s(&self) -> i64 {
        WALL_S + (self.now / SECOND) as i64
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((time, self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:9.3} ms  {}", self.now as f64 / 1000.0, what());
        }
    }
}

/// The nodes that a node knows.
fn roster(node: &Node<Ticket>) -> Roster {
    let view = node.view();
    match view.nodes.is_empty() {
        true => Roster { nodes: node.options().nodes.clone(), ..Roster::default() },
        false => Roster::from(&view),
    }
}

/// As in a handshake: whoever knows the later view says whether both belong to the group.
fn welcome_each_other(here: &Node<Ticket>, theirs: &(Roster, Box<str>)) -> bool {
    let ours = roster(here);
    let (theirs, its_name) = theirs;
    let newer = if theirs.as_of > ours.as_of { theirs } else { &ours };
    let both = [&here.options().me.name, its_name];
    both.iter().all(|name| newer.nodes.contains_key(*name))
}

/// What a host is called.
pub(crate) fn name(host: usize) -> Box<str> {
    format!("n{host}").into()
}

/// Where nobody dials: links here know hosts by number.
pub(crate) fn place(host: usize) -> Place {
    let address = ([127, 0, 0, 1], host as u16 + 1).into();
    Place { address, votes: true, is_given: false }
}

/// The process that an event happens to.
fn target(event: &Event) -> Option<Incarnation> {
    match event {
        Event::Meet { at, .. } | Event::Ended { at, .. } => Some(*at),
        Event::Session(_, to) | Event::Datagram(_, to, _) => Some(*to),
        Event::Wish(life, _) | Event::Agreed(life, _) | Event::Tick(life) => Some(*life),
        Event::TakeOver(life) => Some(*life),
        Event::EndedBeside { at, .. } => Some(*at),
        _ => None,
    }
}
