//! Three voters agree on a value over connections that break: the same values everywhere, in the
//! same order, by a majority only.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::membership::{Membership, Options, Outside, Role, Status, Timing};
use sessiond::replication::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{interval, timeout};
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use crate::wire::{KEEP_ALIVE, PORT, keep_dialing, split};
use crate::{disturb, new_sim, pass, seeds};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Whatever can happen happens by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value is its number, and that of the one that it follows.
fn value(before: u64, number: u64) -> Bytes {
    [before.to_le_bytes(), number.to_le_bytes()].concat().into()
}

fn read_value(value: &[u8]) -> (u64, u64) {
    let half = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap());
    (half(0), half(8))
}

fn follows(present: Option<&[u8]>, proposed: &[u8]) -> bool {
    present.map_or(0, |present| read_value(present).1) == read_value(proposed).0
}

/// What the test sees of all nodes, and wants of them.
#[derive(Default)]
struct Board {
    /// By node: what its present life was told.
    told: BTreeMap<&'static str, Vec<u64>>,
    /// What followed each value, wherever somebody was told.
    next: BTreeMap<u64, u64>,
    status: BTreeMap<&'static str, Status>,
    links_up: u64,
    lives: u64,
    /// Numbers proposed so far; each is proposed once.
    proposed: u64,
}

type Shared = Arc<Mutex<Board>>;

struct Post {
    me: &'static str,
    board: Shared,
    queues: BTreeMap<&'static str, UnboundedSender<Bytes>>,
}

impl Outside for Post {
    fn send(&self, to: &str, frame: Bytes) {
        let _ = self.queues[to].send(frame);
    }

    fn agreed(&self, value: Bytes) {
        let (before, number) = read_value(&value);
        let mut board = self.board.lock().unwrap();
        let known = *board.next.entry(before).or_insert(number);
        assert_eq!(known, number, "two follow {before}, at {}", self.me);
        board.told.entry(self.me).or_default().push(number);
    }

    fn leader(&self, _: Option<Box<str>>) {}
}

/// Both directions to one peer.
#[derive(Default)]
struct Link {
    is_dialed: bool,
    /// Connections that the peer has dialed.
    accepted: Option<(&'static str, u64)>,
    is_up: bool,
}

struct Node {
    membership: Membership,
    board: Shared,
    links: std::cell::RefCell<BTreeMap<&'static str, Link>>,
}

impl Node {
    fn update(&self, peer: &'static str, change: impl FnOnce(&mut Link)) {
        let mut links = self.links.borrow_mut();
        let link = links.entry(peer).or_default();
        change(link);
        let is_up = link.is_dialed && link.accepted.is_some();
        if std::mem::replace(&mut link.is_up, is_up) == is_up {
            return;
        }
        if is_up {
            self.board.lock().unwrap().links_up += 1;
            self.membership.peer_up(peer);
        } else {
            self.membership.peer_down(peer);
        }
    }

    async fn talk(
        &self,
        peer: &'static str,
        me: &'static str,
        stream: TcpStream,
        queue: &mut UnboundedReceiver<Bytes>,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = split(stream);
        writer.write(&Message::Refuse(me.into())).await?;
        // Nobody has heard what was said before.
        while queue.try_recv().is_ok() {}
        self.update(peer, |link| link.is_dialed = true);
        loop {
            let wait = timeout(KEEP_ALIVE, queue.recv());
            tokio::select! {
                frame = wait => {
                    let frame = frame.ok().flatten().unwrap_or_default();
                    writer.write(&Message::Log(frame)).await?;
                }
                read = reader.read() => drop(read?),
            }
        }
    }

    /// The name comes first, then frames; an empty one only says that the peer is there.
    async fn hear(self: Rc<Self>, number: u64, stream: TcpStream) -> std::io::Result<()> {
        let (mut reader, mut writer) = split(stream);
        let Message::Refuse(name) = reader.read().await? else { panic!("no name") };
        let peer = *NAMES.iter().find(|known| ***known == *name).expect("a known name");
        self.update(peer, |link| link.accepted = Some((peer, number)));
        let end = loop {
            match reader.read().await {
                Ok(Message::Log(frame)) => {
                    if !frame.is_empty() {
                        self.membership.receive(peer, frame);
                    }
                    // So that the dialer, too, hears whether anything comes over.
                    if let Err(end) = writer.write(&Message::Log(Bytes::new())).await {
                        break end;
                    }
                }
                Ok(odd) => panic!("{odd:?} was never sent"),
                Err(end) => break end,
            }
        };
        self.update(peer, |link| {
            link.accepted = link.accepted.filter(|(_, present)| *present != number);
        });
        Err(end)
    }
}

async fn live(me: &'static str, board: Shared, seed: u64) -> turmoil::Result {
    let life = {
        let mut board = board.lock().unwrap();
        board.told.insert(me, Vec::new());
        board.lives += 1;
        board.lives
    };
    let (mut queues, mut ends) = (BTreeMap::new(), Vec::new());
    for peer in NAMES.into_iter().filter(|name| *name != me) {
        let (sender, receiver) = unbounded_channel();
        queues.insert(peer, sender);
        ends.push((peer, receiver));
    }
    let options = Options {
        me: me.into(),
        cluster: "test".into(),
        voters: NAMES.map(Into::into).into(),
        state_dir: None,
        timing: Timing::default(),
        seed: seed * 1_000_000 + life,
    };
    let post = Post { me, board: Arc::clone(&board), queues };
    let membership = Membership::start(options, follows, Arc::new(post)).await?;
    let links = Default::default();
    let node = Rc::new(Node { membership, board: Arc::clone(&board), links });
    for (peer, mut queue) in ends {
        let node = Rc::clone(&node);
        spawn_local(async move {
            keep_dialing(peer, async |stream| {
                let end = node.talk(peer, me, stream, &mut queue).await;
                node.update(peer, |link| link.is_dialed = false);
                end
            })
            .await;
        });
    }
    let accepting = Rc::clone(&node);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    spawn_local(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            drop(spawn_local(Rc::clone(&accepting).hear(number, stream)));
        }
    });
    // Everybody proposes all the time what could follow what it knows.
    let mut tick = interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let mut board = board.lock().unwrap();
        board.status.insert(me, node.membership.status());
        let before = board.told[me].last().copied().unwrap_or(0);
        board.proposed += 1;
        node.membership.propose(value(before, board.proposed));
    }
}

fn started<'a>(seed: u64) -> (Sim<'a>, Shared) {
    let (mut sim, board) = (new_sim(seed), Shared::default());
    for name in NAMES {
        let board = Arc::clone(&board);
        sim.host(name, move || live(name, Arc::clone(&board), seed));
    }
    until(&mut sim, &board, "a seat for everybody", all_vote);
    (sim, board)
}

fn all_vote(board: &Board) -> bool {
    board.status.len() == NAMES.len()
        && board.status.values().all(|status| {
            let is_voter = matches!(status.role, Role::Follower | Role::Leader);
            is_voter && status.voters.len() == NAMES.len()
        })
}

fn until(sim: &mut Sim<'_>, board: &Shared, what: &str, holds: impl Fn(&Board) -> bool) {
    let since = sim.elapsed();
    while !holds(&board.lock().unwrap()) {
        let status = || format!("{:#?}", board.lock().unwrap().status);
        assert!(sim.elapsed() < since + PATIENCE, "never {what}: {}", status());
        pass(sim, Duration::from_millis(10));
    }
}

/// All of these learn of something that nobody knows yet.
fn until_news(sim: &mut Sim<'_>, board: &Shared, names: &[&'static str]) {
    let last = board.lock().unwrap().next.len();
    until(sim, board, "news", |board| board.next.len() > last);
    let newest = *board.lock().unwrap().next.values().next_back().unwrap();
    until(sim, board, "news for all", |board| {
        // Whoever was away may be told of a later one alone; their numbers grow.
        names.iter().all(|name| board.told[name].last() >= Some(&newest))
    });
}

fn leader(sim: &mut Sim<'_>, board: &Shared) -> &'static str {
    let lead = |board: &Board| {
        let leads = |name: &&str| board.status[name].role == Role::Leader;
        NAMES.into_iter().find(leads)
    };
    until(sim, board, "led", |board| lead(board).is_some());
    let board = board.lock().unwrap();
    lead(&board).expect("somebody leads")
}

fn others(name: &str) -> Vec<&'static str> {
    NAMES.into_iter().filter(|other| *other != name).collect()
}

#[test]
fn a_leader_that_is_cut_off_agrees_on_nothing_and_catches_up() {
    for seed in seeds(5) {
        let (mut sim, board) = started(seed);
        let cut = leader(&mut sim, &board);
        for other in others(cut) {
            sim.partition(cut, other);
        }
        pass(&mut sim, Duration::from_secs(1));
        let known = board.lock().unwrap().told[cut].len();
        until_news(&mut sim, &board, &others(cut));
        pass(&mut sim, Duration::from_secs(3));
        assert_eq!(board.lock().unwrap().told[cut].len(), known, "seed {seed}");
        for other in others(cut) {
            sim.repair(cut, other);
        }
        until_news(&mut sim, &board, &NAMES);
    }
}

#[test]
fn a_leader_that_is_heard_but_does_not_hear_is_replaced_or_goes_on() {
    for seed in seeds(5) {
        let (mut sim, board) = started(seed);
        let deaf = leader(&mut sim, &board);
        for other in others(deaf) {
            sim.partition_oneway(other, deaf);
        }
        until_news(&mut sim, &board, &others(deaf));
        for other in others(deaf) {
            sim.repair_oneway(other, deaf);
        }
        until_news(&mut sim, &board, &NAMES);
    }
}

#[test]
fn two_that_reach_only_the_third_go_on_with_it() {
    for seed in seeds(5) {
        let (mut sim, board) = started(seed);
        sim.partition("a", "b");
        pass(&mut sim, Duration::from_secs(3));
        until_news(&mut sim, &board, &["c"]);
        sim.repair("a", "b");
        until_news(&mut sim, &board, &NAMES);
    }
}

#[test]
fn a_node_that_crashes_comes_back_as_a_new_voter() {
    for seed in seeds(5) {
        let (mut sim, board) = started(seed);
        let crashed = leader(&mut sim, &board);
        sim.crash(crashed);
        until_news(&mut sim, &board, &others(crashed));
        board.lock().unwrap().status.remove(crashed);
        sim.bounce(crashed);
        until(&mut sim, &board, "a seat for everybody", all_vote);
        until_news(&mut sim, &board, &NAMES);
    }
}

#[test]
fn no_two_values_follow_one_whatever_becomes_of_the_connections() {
    let mut links_up = 0;
    for seed in seeds(5) {
        let (mut sim, board) = started(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..15 {
            let a = rng.random_range(0..NAMES.len());
            let b = (a + rng.random_range(1..NAMES.len())) % NAMES.len();
            disturb(&mut sim, NAMES[a], NAMES[b], &mut rng);
            pass(&mut sim, Duration::from_millis(rng.random_range(1..500)));
        }
        until_news(&mut sim, &board, &NAMES);
        until(&mut sim, &board, "a seat for everybody", all_vote);
        links_up += board.lock().unwrap().links_up;
    }
    assert!(links_up > 20 * seeds(5).count() as u64, "{links_up} links: none ever broke");
}
