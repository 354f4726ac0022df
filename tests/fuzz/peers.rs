//! Whatever nodes that were let in say, in whatever order, to a node in whatever state: it does not
//! panic, says nothing that is no message, and takes no more memory for items than it was given.

use std::cell::RefCell;

use sessiond::key::LANES;
use sessiond::node::{Host, Node, Options, Session};
use sessiond::record::Outcome;
use sessiond::replication::message::{self, Frame, LaneMessage, ViewFlush};
use sessiond::replication::{Dialect, Incarnation, LogWish, Member, Message, Outside, Place, View};
use sessiond::settings::Settings;
use sessiond::time::{Millis, Now};
use sessiond::version::Epoch;

/// What comes next; the byte behind it says more.
pub(crate) const TICK: u8 = 0;
pub(crate) const VIEW: u8 = 1;
pub(crate) const COMMAND: u8 = 2;
pub(crate) const MEET: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
/// The other members work in the present view.
pub(crate) const ENTER: u8 = 5;
/// And its two low bits say who: a frame follows.
pub(crate) const SAY: u8 = 8;
/// With it: one about a lane is of the present epoch.
pub(crate) const NOW: u8 = 4;

/// The lives that there are. The first is the node's own.
pub(crate) const LIVES: [u64; 4] = [1, 2, 3, 4];
pub(crate) const KEYS: [&str; 6] = ["a", "b", "session", "k1", "k2", "counter"];
const COMMANDS: [&str; 12] = [
    "set KEY 0 0 3\r\nabc\r\n",
    "get KEY\r\n",
    "delete KEY\r\n",
    "incr KEY 1\r\n",
    "set KEY 0 1 1\r\n5\r\n",
    "touch KEY 100\r\n",
    "gat 1 KEY\r\n",
    "append KEY 0 0 1\r\nx\r\n",
    "mg KEY v t0 N30\r\n",
    "md KEY I\r\n",
    "flush_all\r\n",
    "flush_all 1\r\n",
];
const MEMORY: usize = 2 << 20;
const ITEM_MAX: usize = 64 << 10;
const FRAME_MAX: usize = ITEM_MAX + (1 << 20);
const WALL_S: i64 = 1_800_000_000;

/// The rest of the world, which listens and forgets.
struct Elsewhere {
    local: Millis,
    tickets: u64,
    wire: RefCell<Vec<u8>>,
}

impl Outside<u64> for Elsewhere {
    fn send(&mut self, _: Incarnation, message: Message) {
        let mut wire = self.wire.borrow_mut();
        wire.clear();
        message::encode(&message, &mut wire);
        assert!(wire.len() <= FRAME_MAX, "a frame of {} bytes", wire.len());
        match message::decode(&wire, FRAME_MAX) {
            Ok(Frame::Message(_, heard)) => assert_eq!(heard, message),
            other => panic!("{message:?} is heard as {other:?}"),
        }
    }

    fn answer(&mut self, _: u64, _: Outcome) {}

    fn still_waits(&self, ticket: &u64) -> bool {
        !ticket.is_multiple_of(5)
    }

    fn ask_log(&mut self, _: LogWish) {}

    fn local_time(&self) -> Millis {
        self.local
    }
}

impl Host<u64> for Elsewhere {
    fn waiter(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}

fn name(life: u64) -> Box<str> {
    format!("n{life}").into()
}

pub(crate) fn member(life: u64) -> Member {
    Member { name: name(life), incarnation: Incarnation(life) }
}

fn node() -> Node<u64> {
    let place = |life: u64| Place {
        address: ([127, 0, 0, 1], life as u16).into(),
        votes: true,
        is_given: false,
    };
    let nodes = LIVES.map(|life| (name(life), place(life))).into();
    let settings =
        Settings { memory: MEMORY, item_max: ITEM_MAX, workers: 1, ..Settings::default() };
    let options = Options { settings, ..Options::new(member(LIVES[0]), nodes, 1) };
    Node::new(options, Now { local: Millis(1000), wall_s: WALL_S, ..Now::default() })
}

/// One node and what happens to it.
struct Table {
    node: Node<u64>,
    elsewhere: Elsewhere,
    view: View,
}

impl Table {
    fn now(&self) -> Now {
        self.node.now(self.elsewhere.local, WALL_S)
    }

    fn tick(&mut self, ms: u64) {
        self.elsewhere.local = self.elsewhere.local.plus(ms);
        self.node.tick(self.now(), &mut self.elsewhere);
    }

    /// The log agrees on a view of these: a bit each for members and for learners. The uppermost
    /// begin a line, and a generation.
    fn agree(&mut self, who: u8) {
        let among = |bits: u8| {
            let chosen = LIVES.iter().enumerate().filter(move |(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, &life)| member(life)).collect::<Vec<_>>()
        };
        let members = match among(who & 7) {
            none if none.is_empty() => among(1),
            members => members,
        };
        let mut learners = among(who >> 3 & 7);
        learners.retain(|learner| !members.contains(learner));
        let mut next = View {
            epoch: Epoch(self.view.epoch.0 + 1),
            follows: self.view.epoch,
            nodes: self.node.options().nodes.clone(),
            features: self.node.options().speaks.features,
            members,
            learners,
            absent: vec![member(LIVES[3])],
            ..self.view.clone()
        };
        if who & 0x40 != 0 {
            next.line.number += 1;
        }
        if who & 0x80 != 0 || self.view.epoch == Epoch(0) {
            next.generation = next.epoch;
        }
        self.view = next.clone();
        self.node.agreed(next, self.now(), &mut self.elsewhere);
    }

    fn hear(&mut self, from: Incarnation, message: Message) {
        // Whatever breaks the rules costs the link, which is another matter.
        let _ = self.node.receive(from, message, self.now(), &mut self.elsewhere);
    }

    fn others_enter(&mut self) {
        let epoch = self.view.epoch;
        for other in self.view.others(Incarnation(LIVES[0])).collect::<Vec<_>>() {
            for lane in 0..LANES as u8 {
                let flush = ViewFlush { last: true, ..ViewFlush::default() };
                self.hear(other, Message::Lane(lane, epoch, LaneMessage::ViewFlush(flush)));
                self.hear(other, Message::Lane(lane, epoch, LaneMessage::Activated));
            }
        }
    }

    fn command(&mut self, which: u8) {
        let command = COMMANDS[usize::from(which) % COMMANDS.len()];
        let key = KEYS[usize::from(which) / COMMANDS.len() % KEYS.len()];
        let (input, mut out) = (command.replace("KEY", key), Vec::new());
        let mut session = Session::new(0, ITEM_MAX);
        let now = self.now();
        session.advance(&self.node, input.as_bytes(), now, &mut out, &mut self.elsewhere);
    }

    /// Does what the first bytes say, and returns how many they were; `None` at the end.
    fn step(&mut self, data: &[u8]) -> Option<usize> {
        let (&what, rest) = data.split_first()?;
        if what >= SAY {
            let Ok(Frame::Message(used, message)) = message::decode(rest, FRAME_MAX) else {
                return None;
            };
            let from = Incarnation(LIVES[usize::from(what & 3)]);
            let message = match message {
                Message::Lane(lane, _, message) if what & NOW != 0 => {
                    Message::Lane(lane, self.view.epoch, message)
                }
                message => message,
            };
            self.hear(from, message);
            return Some(1 + used);
        }
        let &more = rest.first()?;
        let life = LIVES[usize::from(more & 3)];
        let now = self.now();
        match what {
            TICK => self.tick(u64::from(more) * 8),
            VIEW => self.agree(more),
            ENTER => self.others_enter(),
            COMMAND => self.command(more),
            MEET if life != LIVES[0] => {
                let speaks = Dialect::default();
                self.node.meet(&member(life), &[], &speaks, None, now, &mut self.elsewhere);
            }
            REFUSED if life != LIVES[0] => {
                self.node.refused(&name(life), more & 4 != 0, now, &mut self.elsewhere);
            }
            _ => {}
        }
        Some(2)
    }

    fn stat(&self, name: &str) -> usize {
        let (mut out, now) = (Vec::new(), self.now());
        let mut elsewhere = Elsewhere { local: now.local, tickets: 0, wire: RefCell::default() };
        Session::new(0, ITEM_MAX).advance(&self.node, b"stats\r\n", now, &mut out, &mut elsewhere);
        let text = String::from_utf8_lossy(&out).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.expect("a figure").parse().expect("a number")
    }
}

/// See the module.
pub(crate) fn peers(data: &[u8]) {
    let elsewhere = Elsewhere { local: Millis(1000), tickets: 0, wire: RefCell::default() };
    let mut table = Table { node: node(), elsewhere, view: View::default() };
    let mut rest = data;
    while let Some(used) = table.step(rest) {
        rest = &rest[used..];
        assert!(table.stat("bytes") <= MEMORY);
    }
    for _ in 0..4 {
        table.tick(300);
    }
    assert!(table.stat("bytes") <= MEMORY);
    let contents = table.node.contents(table.now());
    assert!(contents.iter().map(|record| record.size()).sum::<usize>() <= MEMORY);
}
