//! All there is at one instant: the log of views, each view's streams, the nodes, the clients.

use crate::chain::Chain;
use crate::rules::Bounds;

/// Three members, and one that may join. A restarted process is another node: its memory is gone.
pub(crate) const NODES: usize = 4;
/// The first view is number 1; 0 is none.
pub(crate) const EPOCHS: usize = 5;
pub(crate) const OPERATIONS: usize = 4;

pub(crate) type Node = u8;
pub(crate) type Epoch = u8;
/// A set of nodes, or of operations: one bit each.
pub(crate) type Set = u8;

pub(crate) fn has(set: Set, element: u8) -> bool {
    set >> element & 1 == 1
}

pub(crate) fn each(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |&element| has(set, element))
}

/// An item: its value, and its version, which is the epoch and the place in that epoch's stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Item {
    pub(crate) version: (Epoch, u8),
    pub(crate) chain: Chain,
}

/// What a member sends to all members of a new view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct ViewFlush {
    pub(crate) is_sent: bool,
    /// The item is not known to be committed: it is rolled forward.
    pub(crate) carries: bool,
    pub(crate) item: Item,
    /// The value's first so many operations are known to be committed. The others' results go along.
    pub(crate) safe: u8,
}

/// A view, and everything that is sent in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct View {
    pub(crate) members: Set,
    pub(crate) learners: Set,
    /// It keeps less than half of an older one, so its members wait for a whole grant time.
    pub(crate) is_small: bool,
    /// Who has said Activated.
    pub(crate) activated: Set,
    pub(crate) flushes: [ViewFlush; NODES],
    /// The length of the owner's value when it began to work in this view.
    pub(crate) base: u8,
    /// The owner's value. What lies beyond `base` are the Applies, in their order.
    pub(crate) stream: Chain,
    /// What each node has acknowledged to the owner: 0 nothing, 1 the base (it has activated, or
    /// as a learner is filled), then one more for each Apply.
    pub(crate) acked: [u8; NODES],
    /// What the owner has found committed, counted likewise.
    pub(crate) committed: u8,
    /// The owner commits nothing without the learner.
    pub(crate) is_counted: bool,
}

/// A process. `working` is the view it works in, `known` the newest it has heard of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Process {
    pub(crate) is_alive: bool,
    pub(crate) working: Epoch,
    pub(crate) known: Epoch,
    /// It has sent a ViewFlush since it began to work in its view.
    pub(crate) has_flushed: bool,
    pub(crate) item: Item,
    /// The item's first so many operations are known here to be committed.
    pub(crate) safe: u8,
    /// The table of results: operations whose outcome is known.
    pub(crate) results: Set,
    /// Its grants that have not run out, by receiver.
    pub(crate) grants: Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Client {
    #[default]
    Idle,
    /// Waits for an answer from this node, which has forwarded the request in this view.
    Waiting(Node, Epoch),
    Answered,
    /// Its node died, or did not know: the outcome stays open.
    Unknown,
}

/// A read that has found its value and has not checked the lease yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SlowRead {
    pub(crate) node: Node,
    pub(crate) epoch: Epoch,
    pub(crate) found: Chain,
    /// It was fresh when it was found: no client had been shown more.
    pub(crate) is_fresh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct State {
    pub(crate) newest: Epoch,
    pub(crate) views: [View; EPOCHS],
    pub(crate) nodes: [Process; NODES],
    pub(crate) clients: [Client; OPERATIONS],
    /// The forwards under way, by operation: a set of epochs.
    pub(crate) forwards: [Set; OPERATIONS],
    /// The longest value that a client has been shown, by a read or by an answer.
    pub(crate) shown: Chain,
    /// A client was shown what contradicts `shown`.
    pub(crate) is_broken: bool,
    pub(crate) slow_read: Option<SlowRead>,
    pub(crate) crashes: u8,
    pub(crate) resends: u8,
    pub(crate) slow_reads: u8,
}

impl State {
    pub(crate) fn first(bounds: &Bounds) -> Self {
        let mut state = Self {
            newest: 1,
            crashes: bounds.crashes,
            resends: bounds.resends,
            slow_reads: bounds.slow_reads,
            ..Self::default()
        };
        let view = &mut state.views[1];
        (view.members, view.learners) = (bounds.members, bounds.learners);
        (view.activated, view.committed) = (bounds.members, 1);
        for node in each(bounds.members | bounds.learners | bounds.outsiders) {
            let is_member = has(bounds.members, node);
            if is_member {
                state.views[1].acked[node as usize] = 1;
            }
            state.nodes[node as usize] = Process {
                is_alive: true,
                working: 1,
                known: 1,
                grants: if is_member { bounds.members & !(1 << node) } else { 0 },
                ..Process::default()
            };
        }
        state
    }

    pub(crate) fn node(&self, node: Node) -> &Process {
        &self.nodes[node as usize]
    }

    pub(crate) fn view(&self, epoch: Epoch) -> &View {
        &self.views[epoch as usize]
    }

    pub(crate) fn view_mut(&mut self, epoch: Epoch) -> &mut View {
        &mut self.views[epoch as usize]
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = Node> {
        (0..NODES as u8).filter(|&node| self.node(node).is_alive)
    }

    /// A member of the view in which it works.
    pub(crate) fn is_member(&self, node: Node) -> bool {
        let process = self.node(node);
        process.is_alive && has(self.view(process.working).members, node)
    }

    /// A member or a learner of the view in which it works. A learner relays what clients want.
    pub(crate) fn is_in(&self, node: Node) -> bool {
        let process = self.node(node);
        let view = self.view(process.working);
        process.is_alive && has(view.members | view.learners, node)
    }

    /// Knows of no newer view than the one in which it works.
    pub(crate) fn is_settled(&self, node: Node) -> bool {
        self.node(node).known == self.node(node).working
    }

    /// Members and those learners without whom nothing is committed.
    pub(crate) fn counted(&self, epoch: Epoch) -> Set {
        let view = self.view(epoch);
        view.members | if view.is_counted { view.learners } else { 0 }
    }

    /// The newest view that all its members have activated.
    pub(crate) fn newest_active(&self) -> Epoch {
        (1..=self.newest).rev().find(|&epoch| self.is_active(epoch)).unwrap_or(1)
    }

    pub(crate) fn is_active(&self, epoch: Epoch) -> bool {
        let view = self.view(epoch);
        view.members != 0 && view.activated & view.members == view.members
    }
}
