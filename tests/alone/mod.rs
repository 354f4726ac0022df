//! A node without others: for tests and benchmarks that speak with it as a connection would.
//!
//! Used by several targets, each with `#[path = "../alone/mod.rs"] mod alone;`.
#![allow(dead_code, reason = "each target uses what it needs")]

use sessiond::node::{Host, Node, Options};
use sessiond::record::Outcome;
use sessiond::replication::{Incarnation, LogWish, Member, Message, Nodes, Outside};
use sessiond::settings::Settings;
use sessiond::time::{Millis, Now};

pub(crate) const WALL_S: i64 = 1_800_000_000;

/// It has nobody to write to; what is answered later, as a flush may be, is kept.
#[derive(Default)]
pub(crate) struct Alone {
    pub(crate) answers: Vec<Outcome>,
}

impl Outside<()> for Alone {
    fn send(&mut self, _: Incarnation, _: Message) {
        panic!("a single node has nobody to speak to");
    }

    fn answer(&mut self, (): (), outcome: Outcome) {
        self.answers.push(outcome);
    }

    fn still_waits(&self, (): &()) -> bool {
        true
    }

    fn ask_log(&mut self, _: LogWish) {}

    fn local_time(&self) -> Millis {
        Millis(0)
    }
}

impl Host<()> for Alone {
    fn waiter(&mut self) {}
}

/// It serves from now on.
pub(crate) fn node(seed: u64, settings: Settings) -> (Node<()>, Now) {
    let me = Member { name: "single".into(), incarnation: Incarnation(1) };
    let settings = Settings { workers: 1, ..settings };
    let options = Options { settings, ..Options::new(me, Nodes::new(), seed) };
    let start = Now { local: Millis(1), wall_s: WALL_S, ..Now::default() };
    let node = Node::new(options, start);
    let now = node.now(start.local, WALL_S);
    node.tick(now, &mut Alone::default());
    assert!(node.is_serving(), "a node without peers serves at once");
    (node, now)
}
