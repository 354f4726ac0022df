//! A whole node on a simulated host: its control and data links, its part in the log of views, its
//! items. Only its threads and its clients' sockets are missing: clients are tasks beside it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sessiond::node::{Options, Session, Step};
use sessiond::record::Record;
use sessiond::replication::{Incarnation, Member, Place, Timing};
use sessiond::server::{Clock, Net, PeerOptions, PeerSecurity, Peering, live};
use sessiond::settings::Settings;
use sessiond::time::Millis;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::interval;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use crate::wire::PORT;
use crate::{new_sim, pass};

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
/// Whatever can happen happens by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// So far the clocks of this host are from zero, as those of real ones are.
const BOOTED_MS: u64 = 1_000_000;
/// How often the test sees how a node stands.
const LOOK: Duration = Duration::from_millis(10);

/// One command, and where its reply goes.
type Asked = (Vec<u8>, Arc<Mutex<Option<String>>>);

/// What the test sees of all nodes, and wants of them.
#[derive(Default)]
struct Board {
    queues: BTreeMap<&'static str, UnboundedSender<Asked>>,
    /// What `sessiond ctl status` says.
    stats: BTreeMap<&'static str, BTreeMap<String, String>>,
    contents: BTreeMap<&'static str, Vec<Record<Bytes>>>,
    lives: u64,
    is_down: BTreeMap<&'static str, bool>,
    /// Attempts to reach another host, and those that did.
    dials: u64,
    connections: u64,
}

/// Three nodes on their hosts.
pub(crate) struct Hosts<'a> {
    pub(crate) sim: Sim<'a>,
    board: Arc<Mutex<Board>>,
    seed: u64,
}

/// A command that was given to a node.
pub(crate) struct Ticket {
    pub(crate) command: String,
    reply: Arc<Mutex<Option<String>>>,
}

impl Ticket {
    pub(crate) fn reply(&self) -> Option<String> {
        self.reply.lock().unwrap().clone()
    }
}

impl Hosts<'_> {
    /// Three members of one group.
    pub(crate) fn started(seed: u64, timing: Timing) -> Self {
        let (mut sim, board) = (new_sim(seed), Arc::<Mutex<Board>>::default());
        for name in NAMES {
            let board = Arc::clone(&board);
            sim.host(name, move || run(name, Arc::clone(&board), seed, timing));
        }
        let mut hosts = Self { sim, board, seed };
        hosts.until_members(&NAMES);
        hosts.until_voters();
        hosts
    }

    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = self.sim.elapsed();
        while !holds(self) {
            let seed = self.seed;
            let stats = || format!("{:#?}", self.board.lock().unwrap().stats);
            let is_late = self.sim.elapsed() > since + PATIENCE;
            assert!(!is_late, "seed {seed}: never {what}: {}", stats());
            pass(&mut self.sim, LOOK);
        }
    }

    /// All of these serve, and all have these as members.
    pub(crate) fn until_members(&mut self, names: &[&'static str]) {
        let list = names.join(",");
        self.until(&format!("members {list}"), |hosts| {
            names.iter().all(|name| {
                hosts.stat(name, "members") == list && hosts.stat(name, "state") == "member"
            })
        });
    }

    /// All vote: before that, the group may have to wait for one that is away.
    pub(crate) fn until_voters(&mut self) {
        let list = NAMES.join(",");
        self.until("a vote for everybody", |hosts| {
            NAMES.iter().all(|name| {
                let is_settled = hosts.stat(name, "log_changing") == "0";
                is_settled && hosts.stat(name, "log_voters") == list
            })
        });
    }

    pub(crate) fn stat(&self, name: &str, stat: &str) -> String {
        let board = self.board.lock().unwrap();
        board.stats.get(name).and_then(|stats| stats.get(stat)).cloned().unwrap_or_default()
    }

    /// Attempts to reach others so far, and those that did.
    pub(crate) fn dials(&self) -> (u64, u64) {
        let board = self.board.lock().unwrap();
        (board.dials, board.connections)
    }

    pub(crate) fn begin(&self, name: &str, command: &str) -> Ticket {
        let reply = Arc::default();
        let asked = (command.as_bytes().to_vec(), Arc::clone(&reply));
        self.board.lock().unwrap().queues[name].send(asked).expect("the node runs");
        Ticket { command: command.into(), reply }
    }

    /// The reply, however long it takes.
    pub(crate) fn ask(&mut self, name: &str, command: &str) -> String {
        let ticket = self.begin(name, command);
        self.until(&format!("an answer to {command:?}"), |_| ticket.reply().is_some());
        ticket.reply().unwrap_or_default()
    }

    pub(crate) fn crash(&mut self, name: &'static str) {
        self.board.lock().unwrap().is_down.insert(name, true);
        self.sim.crash(name);
    }

    pub(crate) fn bounce(&mut self, name: &'static str) {
        let mut board = self.board.lock().unwrap();
        board.is_down.insert(name, false);
        board.stats.remove(name);
        drop(board);
        self.sim.bounce(name);
    }

    /// All hold the same items in the same versions.
    pub(crate) fn until_equal(&mut self) {
        self.until("equal", |hosts| {
            let board = hosts.board.lock().unwrap();
            let first = &board.contents[NAMES[0]];
            NAMES.iter().all(|name| board.contents[name] == *first)
        });
    }
}

async fn run(
    name: &'static str,
    board: Arc<Mutex<Board>>,
    seed: u64,
    timing: Timing,
) -> turmoil::Result {
    let (sender, mut asked) = unbounded_channel::<Asked>();
    let life = {
        let mut board = board.lock().unwrap();
        board.queues.insert(name, sender);
        board.lives += 1;
        board.lives
    };
    let (node, peers) = options(name, seed, life, timing);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let net = SimNet { board: Arc::clone(&board) };
    let clock = Clock { local: sim_time, wall_s: sim_wall };
    let node = Rc::new(live(node, peers, (net, listener), clock).await?);
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            Some((command, reply)) = asked.recv() => {
                drop(spawn_local(client(Rc::clone(&node), command, reply)));
            }
            _ = look.tick() => board.lock().unwrap().note(name, &node),
        }
    }
}

fn options(name: &'static str, seed: u64, life: u64, timing: Timing) -> (Options, PeerOptions) {
    let random = seed * 1_000_000 + life;
    let me = Member { name: name.into(), incarnation: Incarnation(random) };
    let nodes = NAMES.map(|name| (name.into(), place(name))).into();
    let node = Options {
        timing,
        settings: Settings { workers: 1, ..Settings::default() },
        ..Options::new(me, nodes, random.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    };
    let peers = PeerOptions {
        cluster: "simulated".into(),
        listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
        keeps_to_loopback: false,
        state_dir: None,
        is_witness: false,
        security: if seed.is_multiple_of(2) { PeerSecurity::Open } else { secret() },
    };
    (node, peers)
}

fn place(name: &str) -> Place {
    let address = SocketAddr::new(turmoil::lookup(name), PORT);
    Place { address, votes: true, is_given: false }
}

fn secret() -> PeerSecurity {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/turmoil/secret.txt");
    PeerSecurity::Secret(path.into())
}

fn sim_time() -> Millis {
    let passed = turmoil::sim_elapsed().unwrap_or_default();
    Millis(BOOTED_MS + passed.as_millis() as u64)
}

fn sim_wall() -> i64 {
    turmoil::since_epoch().unwrap_or_default().as_secs() as i64
}

/// Says one command, and waits for what comes back.
async fn client(node: Rc<Peering>, command: Vec<u8>, reply: Arc<Mutex<Option<String>>>) {
    let (mut courier, mut out) = (node.courier(), Vec::new());
    let mut session = Session::new(0, node.node().options().settings.item_max);
    let mut input = &command[..];
    loop {
        let (done, step) = session.advance(node.node(), input, node.now(), &mut out, &mut courier);
        input = &input[done..];
        match step {
            Step::Wait => {
                let outcome = courier.take_waiting().expect("something to wait for").await;
                // Unknown: a real client's connection would be closed.
                let Ok(outcome) = outcome else { return };
                session.resume(node.node(), outcome, &mut out);
            }
            Step::Read(_) => break,
            other => panic!("{other:?} after {command:?}"),
        }
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    *reply.lock().unwrap() = Some(text);
}

impl Board {
    fn note(&mut self, name: &'static str, node: &Peering) {
        let status = node.status();
        let stat = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.to_owned()))
        };
        self.stats.insert(name, status.lines().filter_map(stat).collect());
        self.contents.insert(name, node.node().contents(node.now()));
    }
}

/// The simulated TCP, as a node sees it.
#[derive(Clone)]
struct SimNet {
    board: Arc<Mutex<Board>>,
}

impl Net for SimNet {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream> {
        self.board.lock().unwrap().dials += 1;
        // A process has died here, and not its host, of which turmoil knows nothing more.
        if self.is_down(address) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                self.board.lock().unwrap().connections += 1;
                Ok(stream)
            }
            // turmoil says so of hosts that are cut off; from those nothing would come back.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::future::pending().await
            }
            Err(error) => Err(error),
        }
    }

    async fn accept(&self, listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }
}

impl SimNet {
    fn is_down(&self, address: SocketAddr) -> bool {
        let name = turmoil::reverse_lookup(address.ip()).unwrap_or_default();
        self.board.lock().unwrap().is_down.get(&*name).copied().unwrap_or_default()
    }
}
