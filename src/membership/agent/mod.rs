//! The task that holds it all together: what peers and the consensus crate say goes through here.
//!
//! It owns the seat, greets the peers, founds the group, lets voters in and replaces a leader
//! that is proven dead. What should happen is asked of `circle.rs`; this does it.

mod founding;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant, timeout};

use founding::Founded;

use super::circle::{Circle, Peer, Plan};
use super::file::Folder;
use super::image::Image;
use super::network::Question;
use super::seat::{self, Ground, Seat};
use super::types::Raft;
use super::wire::{self, Answer, Call, Frame, Greeting, Request};
use super::{Command, Options, Outside, Role, Rule, StartError, Status, VALUE_MAX};

/// How often it looks whether something has to be done.
const TICK: Duration = Duration::from_millis(25);
/// A greeting may have been lost: it is said again after this many ticks.
const GREET_TICKS: u64 = 12;
/// After a failed write it tries again this often.
const REVIVE_TICKS: u64 = 40;
/// Questions of peers that are being answered. The disk is slow then; more would not help.
const ANSWERING_MAX: usize = 64;
/// Questions to peers without an answer yet. The crate has its own deadlines, far below this.
const ASKED_MAX: usize = 1024;
/// A learner that is not filled by then is tried again.
const ADMIT_MAX: Duration = Duration::from_secs(2);
/// Between the elections of two nodes that both know the leader dead, so that they do not take
/// the votes from each other. They have heard of the leader up to one of its beats apart, and each
/// vote is written to a disk before it counts.
const RANK_STEP: Duration = Duration::from_millis(75);
/// Votes are refused up to the leader's last word plus the lease; hosts' timers differ a little.
const LEASE_MARGIN: Duration = Duration::from_millis(5);

pub(super) struct Agent {
    ground: Ground,
    circle: Circle,
    seat: Option<Seat>,
    /// What it must not forget, while its disk refuses to take it.
    unseated: Option<Image>,
    questions: mpsc::UnboundedReceiver<Question>,
    asked: HashMap<u64, oneshot::Sender<Answer>>,
    calls: u64,
    answering: Arc<Semaphore>,
    random: StdRng,
    ticks: u64,
    founded: Option<Founded>,
    /// The number of the newest founding that peers were ever part of: those who vote may be gone
    /// when this node, which perhaps does not, has to found a later one.
    newest_heard: u32,
    /// Since when a majority of the voters has been there.
    gathered_at: Option<Instant>,
    /// Since when the log has not come into being, or has nobody who leads.
    leaderless_at: Option<Instant>,
    heard_at: Option<Instant>,
    elect_at: Option<Instant>,
    admitting: Option<JoinHandle<Result<(), String>>>,
    /// Why the votes could not be changed as they should: said once, and tried again each tick.
    hindrance: Option<String>,
    greeted: Greeting,
    status: watch::Sender<Status>,
    bad_frames: u64,
}

impl Agent {
    pub(super) async fn new(
        options: Options,
        rule: Rule,
        outside: Arc<dyn Outside>,
        status: watch::Sender<Status>,
    ) -> Result<Self, StartError> {
        let open = |path| Folder::open(path, &options.cluster, &options.me).map(Arc::new);
        let folder = options.state_dir.as_deref().map(open).transpose()?;
        let image = folder.as_ref().map(|folder| folder.load()).transpose()?.flatten();
        let (sender, questions) = mpsc::unbounded_channel();
        let ground = Ground { folder, rule, outside, questions: sender, timing: options.timing };
        let seat = match image {
            Some(image) => Some(Seat::take(&ground, image).await?),
            None => None,
        };
        let voters = options.voters.into_iter().collect();
        Ok(Self {
            ground,
            circle: Circle { me: options.me, voters, peers: BTreeMap::new() },
            seat,
            unseated: None,
            questions,
            asked: HashMap::new(),
            calls: 0,
            answering: Arc::new(Semaphore::new(ANSWERING_MAX)),
            random: StdRng::seed_from_u64(options.seed),
            ticks: 0,
            founded: None,
            newest_heard: 0,
            gathered_at: None,
            leaderless_at: None,
            heard_at: None,
            elect_at: None,
            admitting: None,
            hindrance: None,
            greeted: Greeting::default(),
            status,
            bad_frames: 0,
        })
    }

    /// Until the handle is gone, or told to stop.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut frames: mpsc::Receiver<(Box<str>, Bytes)>,
    ) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let stopped = loop {
            let elect_at = self.elect_at;
            let metrics = self.seat.as_ref().map(|seat| seat.metrics.clone());
            tokio::select! {
                // That a link is up must be known before its first frame.
                biased;
                command = commands.recv() => match command {
                    Some(Command::Stop(stopped)) => break Some(stopped),
                    Some(command) => self.obey(command).await,
                    None => break None,
                },
                _ = tick.tick() => self.tick().await,
                Some((from, frame)) = frames.recv() => self.receive(from, &frame).await,
                Some(question) = self.questions.recv() => self.ask(question),
                () = changed(metrics) => self.refresh(),
                () = until(elect_at) => self.elect().await,
            }
        };
        if let Some(seat) = self.seat.take() {
            seat.leave().await;
        }
        drop(self);
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Propose(value) => self.propose(value).await,
            Command::Up(name) => {
                let greeting = Frame::Greeting(self.greeting());
                self.peer(&name, |peer| *peer = Peer { is_up: true, ..Peer::default() });
                self.send(&name, &greeting);
            }
            Command::Down(name) => self.peer(&name, |peer| {
                peer.is_up = false;
                peer.greeting = None;
            }),
            Command::Dead(name) => {
                self.peer(&name, |peer| *peer = Peer { is_dead: true, ..Peer::default() });
                self.replace_leader(&name);
            }
            Command::Voters(voters) => self.circle.voters = voters.into_iter().collect(),
            Command::Generation(value) => self.found_generation(value).await,
            Command::Surrender => {
                tracing::warn!("this node gives up its membership and waits for the others");
                self.forget().await;
            }
            Command::Stop(_) => {}
        }
        self.refresh();
    }

    fn peer(&mut self, name: &str, change: impl FnOnce(&mut Peer)) {
        change(self.circle.peers.entry(name.into()).or_default());
    }

    fn send(&self, to: &str, frame: &Frame) {
        if let Some(bytes) = wire::encode(frame) {
            self.ground.outside.send(to, bytes);
        }
    }

    // What the others say.

    async fn receive(&mut self, from: Box<str>, bytes: &[u8]) {
        let frame = match wire::decode(bytes) {
            Ok(frame) => frame,
            Err(why) => {
                self.bad_frames += 1;
                return tracing::error!(peer = %from, why, "a membership frame is refused");
            }
        };
        match frame {
            Frame::Greeting(greeting) => {
                let heard = greeting.place.map_or(0, |(founding, _)| founding.number);
                self.newest_heard = self.newest_heard.max(heard);
                self.peer(&from, |peer| peer.greeting = Some(greeting));
                self.consider().await;
            }
            Frame::Bind(founding) => self.bind(&from, founding).await,
            Frame::Bound(founding, id) => self.bound(from, founding, id),
            Frame::Call(call) => self.answer(from, call),
            Frame::Reply { call, answer } => {
                if let Some(waiting) = self.asked.remove(&call) {
                    let _ = waiting.send(answer);
                }
            }
            Frame::Propose(value) => {
                if self.leads() && value.len() <= VALUE_MAX {
                    self.propose(value).await;
                }
            }
            Frame::PassOn(value) if self.leads() => self.propose(value).await,
            Frame::PassOn(value) => {
                // Once only, or it could go round among those who are wrong about each other.
                if let Some(leader) = self.reachable_leader() {
                    self.send(&leader, &Frame::Propose(value));
                }
            }
        }
    }

    /// A question of the crate here to a seat there.
    fn ask(&mut self, question: Question) {
        let Question { name, founding, to, request, answer } = question;
        let is_up = self.circle.peers.get(&name).is_some_and(|peer| peer.is_up);
        // Dropping `answer` says that nobody is there.
        if !is_up || self.asked.len() >= ASKED_MAX {
            return;
        }
        self.calls += 1;
        self.asked.insert(self.calls, answer);
        self.send(&name, &Frame::Call(Call { founding, to, call: self.calls, request }));
    }

    /// A question of a peer to the seat here.
    fn answer(&mut self, from: Box<str>, Call { founding, to, call, request }: Call) {
        let meant = |seat: &&Seat| seat.binding.founding == founding && seat.binding.id == to;
        let Some(seat) = self.seat.as_ref().filter(meant) else {
            return self.send(&from, &Frame::Reply { call, answer: Answer::Refused });
        };
        if matches!(request, Request::Append(_)) {
            self.heard_at = Some(Instant::now());
        }
        // Lost, when too much is going on: the peer asks again.
        let Ok(permit) = Arc::clone(&self.answering).try_acquire_owned() else { return };
        let (raft, outside) = (seat.raft.clone(), Arc::clone(&self.ground.outside));
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(answer) = seat::answer(raft, request).await
                && let Some(bytes) = wire::encode(&Frame::Reply { call, answer })
            {
                outside.send(&from, bytes);
            }
        });
    }

    async fn propose(&mut self, value: Bytes) {
        if value.len() > VALUE_MAX {
            return tracing::error!(bytes = value.len(), "a proposed value is too long");
        }
        if let Some(seat) = self.seat.as_ref().filter(|seat| seat.is_leader()) {
            return seat.propose(value).await;
        }
        if let Some(leader) = self.reachable_leader() {
            return self.send(&leader, &Frame::Propose(value));
        }
        // Somebody may lead whom this node does not reach, but others do.
        let knowing: Vec<&Box<str>> = self.circle.that_know_a_leader().collect();
        if knowing.is_empty() {
            tracing::debug!("a proposal is dropped: nobody leads");
        }
        for peer in knowing {
            self.send(peer, &Frame::PassOn(value.clone()));
        }
    }

    fn leads(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_leader)
    }

    fn reachable_leader(&self) -> Option<Box<str>> {
        let leader = self.leader()?;
        self.circle.peers.get(&leader)?.is_up.then_some(leader)
    }

    // Who leads.

    /// By name; who has no vote goes by what the others say.
    fn leader(&self) -> Option<Box<str>> {
        let votes = self.seat.as_ref().is_some_and(|seat| seat.role() != Role::Learner);
        let own = self.own_leader();
        if votes { own } else { own.or_else(|| self.circle.heard_leader()) }
    }

    /// Of the own log. The crate goes on believing in one that is dead, or has no majority, or
    /// that a learner has lost sight of.
    fn own_leader(&self) -> Option<Box<str>> {
        let seat = self.seat.as_ref()?;
        let leader = seat.leader()?;
        let silent = self.leaderless_at.map_or(Duration::ZERO, |since| since.elapsed());
        let peer = self.circle.peers.get(&leader);
        let is_lost = if seat.is_leader() {
            silent >= self.silence_max()
        } else if seat.role() == Role::Learner {
            !peer.is_some_and(|peer| peer.is_up)
        } else {
            peer.is_some_and(|peer| peer.is_dead)
        };
        (!is_lost).then_some(leader)
    }

    /// The consensus crate has no way to skip its lease, so the election waits for that.
    fn replace_leader(&mut self, dead: &str) {
        let Some(seat) = &self.seat else { return };
        let (voters, _) = seat.seats();
        if seat.leader().as_deref() != Some(dead) || !voters.contains_key(&seat.binding.id) {
            return;
        }
        let heard_at = self.heard_at.unwrap_or_else(Instant::now);
        let rank = self.circle.rank(&voters, dead) as u32;
        let lease = self.ground.timing.election_max + LEASE_MARGIN;
        self.elect_at = Some(heard_at + lease + RANK_STEP * rank);
    }

    async fn elect(&mut self) {
        self.elect_at = None;
        let Some(seat) = &self.seat else { return };
        // A living leader by now: somebody else was first.
        if self.own_leader().is_none()
            && let Err(error) = seat.raft.trigger().elect().await
        {
            tracing::warn!(%error, "cannot elect");
        }
    }

    // What there is to do.

    async fn tick(&mut self) {
        self.ticks += 1;
        self.asked.retain(|_, waiting| !waiting.is_closed());
        self.watch_quorum();
        self.revive().await;
        self.consider().await;
        self.admit().await;
        self.refresh();
        if self.ticks.is_multiple_of(GREET_TICKS) {
            self.greet();
        }
    }

    /// A leader has been replaced by then, if there is a majority for another.
    fn silence_max(&self) -> Duration {
        2 * self.ground.timing.election_max
    }

    /// A leader that nobody answers leads no more, though the crate goes on believing it.
    fn watch_quorum(&mut self) {
        let is_led = self.seat.as_ref().is_some_and(|seat| {
            let metrics = seat.metrics.borrow();
            let is_alone = metrics.membership_config.membership().voter_ids().count() <= 1;
            let silence_max_ms = self.silence_max().as_millis() as u64;
            let answered = metrics.millis_since_quorum_ack.is_some_and(|ms| ms <= silence_max_ms);
            match metrics.current_leader {
                None => false,
                Some(leader) => leader != seat.binding.id || is_alone || answered,
            }
        });
        let now = Instant::now();
        self.leaderless_at = if is_led { None } else { self.leaderless_at.or(Some(now)) };
    }

    /// The crate stops for good at a failed write; a later one may succeed.
    async fn revive(&mut self) {
        if !self.ticks.is_multiple_of(REVIVE_TICKS) {
            return;
        }
        let failed = |seat: &mut Seat| seat.metrics.borrow().running_state.is_err();
        if let Some(seat) = self.seat.take_if(failed) {
            tracing::error!("the membership has stopped; starting it anew");
            self.unseated = Some(seat.leave().await);
        }
        if let Some(image) = self.unseated.take() {
            self.sit(image).await;
        }
    }

    /// As the leader: gives each voter the seat that it now goes by.
    async fn admit(&mut self) {
        if self.admitting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if let Some(admitted) = self.admitting.take() {
            self.note_hindrance(admitted.await.unwrap_or_else(|error| Err(error.to_string())));
        }
        let Some(seat) = self.seat.as_ref().filter(|seat| seat.is_leader()) else { return };
        let (voters, all) = seat.seats();
        let unfinished = || Plan {
            learners: BTreeMap::new(),
            voters: voters.keys().copied().collect::<BTreeSet<u64>>(),
        };
        let plan = self.circle.plan(&seat.binding, &voters, &all);
        if let Some(plan) = plan.or_else(|| seat.is_joint().then(unfinished)) {
            self.admitting = Some(tokio::spawn(carry_out(seat.raft.clone(), plan)));
        }
    }

    fn note_hindrance(&mut self, outcome: Result<(), String>) {
        let hindrance = outcome.err();
        if let Some(why) = hindrance.as_ref().filter(|why| self.hindrance.as_ref() != Some(*why)) {
            tracing::warn!(%why, "cannot change the voters; trying again");
        }
        self.hindrance = hindrance;
    }

    // What is told.

    fn greeting(&self) -> Greeting {
        let Some(seat) = &self.seat else { return Greeting::default() };
        let stand = seat.stand();
        Greeting {
            place: Some((stand.binding.founding, stand.binding.id)),
            committed: stand.committed,
            started: stand.started,
            term: seat.term(),
            // What two without a log have heard from each other would never end.
            leader: self.own_leader(),
        }
    }

    fn greet(&self) {
        let greeting = Frame::Greeting(self.greeted.clone());
        for (name, _) in self.circle.peers.iter().filter(|(_, peer)| peer.is_up) {
            self.send(name, &greeting);
        }
    }

    /// Tells everybody what has changed.
    fn refresh(&mut self) {
        if let Some(seat) = &mut self.seat {
            seat.metrics.mark_unchanged();
        }
        let greeting = self.greeting();
        if greeting != self.greeted {
            self.greeted = greeting;
            self.greet();
        }
        let leader = self.leader();
        let status = self.status_now(leader.clone());
        if self.status.borrow().leader != leader {
            self.ground.outside.leader(leader);
        }
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            *known = status;
            is_new
        });
    }

    fn status_now(&self, leader: Option<Box<str>>) -> Status {
        let bad_frames = self.bad_frames;
        let Some(seat) = &self.seat else {
            return Status { leader, bad_frames, ..Status::default() };
        };
        let mut voters: Vec<Box<str>> = seat.seats().0.into_values().collect();
        voters.sort();
        let founding = Some(seat.binding.founding);
        Status {
            role: seat.role(),
            term: seat.term(),
            leader,
            voters,
            is_seated: seat.is_seated(),
            is_changing: seat.is_joint(),
            founding,
            bad_frames,
        }
    }
}

async fn changed(metrics: Option<watch::Receiver<impl Sized>>) {
    if let Some(mut metrics) = metrics
        && metrics.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn carry_out(raft: Raft, Plan { learners, voters }: Plan) -> Result<(), String> {
    for (id, name) in learners {
        match timeout(ADMIT_MAX, raft.add_learner(id, name.clone(), true)).await {
            Ok(Ok(_)) => tracing::info!(%name, "admitting a voter"),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("{name}, which is new, could not be filled")),
        }
    }
    match timeout(ADMIT_MAX, raft.change_membership(voters, false)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no majority for it".into()),
    }
}
