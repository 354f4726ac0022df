//! One life of one node, its clock, and what it says during one input.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use sessiond::node::{Host, Node};
use sessiond::record::Outcome;
use sessiond::replication::{Incarnation, LogWish, Message, Outside};
use sessiond::time::{Millis, Now};

use super::world::{Event, MS};

/// A command of a client, so that a late answer finds it gone.
pub(crate) type Ticket = (usize, u64);

pub(crate) struct Process {
    pub(crate) slot: usize,
    pub(crate) node: Node<Ticket>,
    /// Each host was booted at another time, and its clock has a rate of its own.
    pub(crate) clock_us: u64,
    pub(crate) rate_ppm: u64,
    /// It does nothing until then; what happens to it waits.
    pub(crate) paused_until: u64,
    pub(crate) deferred: VecDeque<Event>,
    pub(crate) was_serving: bool,
    pub(crate) epoch: u32,
    /// The life beside which it was started, until it has taken over.
    pub(crate) beside: Option<Incarnation>,
    /// Former lives of its node that it knows to be over.
    pub(crate) succeeds: Vec<Incarnation>,
    /// Hosts whose process was seen to end.
    pub(crate) has_ended: BTreeSet<usize>,
}

impl Process {
    pub(crate) fn local(&self, now: u64) -> Millis {
        Millis((self.clock_us + now / 1_000_000 * self.rate_ppm + now % 1_000_000) / MS)
    }

    pub(crate) fn now(&self, now: u64, wall_s: i64) -> Now {
        self.node.now(self.local(now), wall_s)
    }
}

/// What a node says during one input.
pub(crate) struct Post {
    pub(crate) ticket: Ticket,
    pub(crate) local: Millis,
    /// How long the thread stands still before it looks at the clock.
    pub(crate) stall_ms: u64,
    /// Whether that has happened.
    pub(crate) has_stalled: Cell<bool>,
    pub(crate) gone: Rc<RefCell<BTreeSet<Ticket>>>,
    pub(crate) sent: Vec<(Incarnation, Message)>,
    pub(crate) answers: Vec<(Ticket, Outcome)>,
    pub(crate) wishes: Vec<LogWish>,
}

impl Outside<Ticket> for Post {
    fn send(&mut self, to: Incarnation, message: Message) {
        self.sent.push((to, message));
    }

    fn answer(&mut self, waiter: Ticket, outcome: Outcome) {
        self.answers.push((waiter, outcome));
    }

    fn still_waits(&self, waiter: &Ticket) -> bool {
        !self.gone.borrow().contains(waiter)
    }

    fn ask_log(&mut self, wish: LogWish) {
        self.wishes.push(wish);
    }

    fn local_time(&self) -> Millis {
        self.has_stalled.set(self.stall_ms > 0);
        self.local.plus(self.stall_ms)
    }
}

impl Host<Ticket> for Post {
    fn waiter(&mut self) -> Ticket {
        self.ticket
    }
}
