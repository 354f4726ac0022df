//! What may happen next. The conditions are here; what comes of it is in `steps.rs`.

use crate::chain::Operation;
use crate::rules::{Bounds, Rules};
use crate::state::{Client, EPOCHS, Epoch, NODES, Node, OPERATIONS, Set, State, each, has};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A client sends a mutation to a node, which forwards it (perhaps to itself).
    Invoke(Operation, Node),
    /// The link broke and came back: the node sends the forward again.
    Resend(Operation),
    /// The forward reaches the owner of that view.
    Execute(Operation, Epoch),
    /// The next Apply reaches a node, which applies and acknowledges it.
    Apply(Node),
    /// The same, of a view in which the node does not work yet. Forbidden by `epoch_buffering`.
    ApplyEarly(Node),
    /// The owner of a view finds that everybody has acknowledged.
    Commit(Epoch),
    /// CommitUpTo, or the last Activated, reaches a node.
    Notice(Node),
    /// The node of the client answers it.
    Answer(Operation),
    /// A client reads on a node what no client has seen yet.
    Read(Node),
    /// A read finds its value; its lease is checked later.
    StartRead(Node),
    /// Now: and the value is shown.
    FinishRead(Node),
    /// The log of views gets its next entry: members and learners.
    Propose(Set, Set),
    /// A node hears of a newer view and stops working in its own.
    Learn(Node),
    /// The grants to nodes outside have run out; ViewFlush goes to all members of the new view.
    Flush(Node),
    /// The last ViewFlush is in: the node works in the new view.
    Activate(Node),
    /// The owner fills the learner.
    Fill(Epoch),
    /// The owner commits nothing without the learner from now on.
    Count(Epoch),
    /// A process dies.
    Crash(Node),
}

/// The protocol with some rules, up to some bounds.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
}

impl Protocol {
    /// Rendezvous hashing ranks the nodes for each key; the first that is a member owns it.
    pub(crate) fn owner(&self, state: &State, epoch: Epoch) -> Option<Node> {
        let members = state.view(epoch).members;
        self.bounds.owners.into_iter().find(|&node| has(members, node))
    }

    /// The owner, if it works in that view and knows of no newer one.
    pub(crate) fn working_owner(&self, state: &State, epoch: Epoch) -> Option<Node> {
        self.owner(state, epoch).filter(|&owner| {
            let process = state.node(owner);
            process.is_alive && process.working == epoch && self.may_go_on(state, owner)
        })
    }

    fn may_go_on(&self, state: &State, node: Node) -> bool {
        state.is_settled(node) || !self.rules.freeze
    }

    /// Whether a read on this node is answered now, with the value it has now.
    pub(crate) fn may_read(&self, state: &State, node: Node) -> bool {
        self.is_readable(state, node) && (self.has_lease(state, node) || !self.rules.lease_check)
    }

    fn is_readable(&self, state: &State, node: Node) -> bool {
        let process = state.node(node);
        state.is_member(node)
            && !(process.has_flushed && self.rules.read_stop)
            && (process.safe >= process.item.chain.len() || !self.rules.pending_wait)
    }

    fn has_lease(&self, state: &State, node: Node) -> bool {
        let members = state.view(state.node(node).working).members;
        let grants = each(members).filter(|&by| by != node && has(state.node(by).grants, node));
        2 * (grants.count() + 1) > members.count_ones() as usize
    }

    pub(crate) fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        self.clients(state, actions);
        self.streams(state, actions);
        for node in state.alive() {
            self.view_change(state, node, actions);
            if state.crashes > 0 {
                actions.push(Action::Crash(node));
            }
        }
        if state.newest <= self.bounds.views {
            self.proposals(state, actions);
        }
    }

    fn clients(&self, state: &State, actions: &mut Vec<Action>) {
        let idle = (1..=self.bounds.operations)
            .find(|&operation| state.clients[usize::from(operation) - 1] == Client::Idle);
        for node in state.alive().filter(|&node| state.is_in(node)) {
            if let Some(operation) = idle
                && state.is_settled(node)
                && has(self.bounds.clients, node)
            {
                actions.push(Action::Invoke(operation, node));
            }
            let chain = state.node(node).item.chain;
            if chain.len() > state.shown.len() && self.may_read(state, node) {
                actions.push(Action::Read(node));
            }
            if state.slow_reads > 0 && self.is_readable(state, node) {
                actions.push(Action::StartRead(node));
            }
        }
        if let Some(read) = state.slow_read
            && self.may_read(state, read.node)
            && (read.epoch == state.node(read.node).working || !self.rules.read_in_one_view)
        {
            actions.push(Action::FinishRead(read.node));
        }
        for (index, client) in state.clients.iter().enumerate().take(OPERATIONS) {
            let operation = index as Operation + 1;
            if let Client::Waiting(node, epoch) = *client {
                if state.resends > 0
                    && state.node(node).working == epoch
                    && state.is_settled(node)
                    && !has(state.forwards[index], epoch)
                {
                    actions.push(Action::Resend(operation));
                }
                if self.answer_from(state, operation).is_some() {
                    actions.push(Action::Answer(operation));
                }
            }
            for epoch in each(state.forwards[index]) {
                if self.working_owner(state, epoch).is_some_and(|owner| state.is_settled(owner)) {
                    actions.push(Action::Execute(operation, epoch));
                }
            }
        }
    }

    /// Who knows that an operation is committed and can tell its client: the client's own node,
    /// or (FwdDone) the owner of the view in which both work.
    pub(crate) fn answer_from(&self, state: &State, operation: Operation) -> Option<Node> {
        let Client::Waiting(node, epoch) = state.clients[usize::from(operation) - 1] else {
            return None;
        };
        if state.node(node).working != epoch || !self.may_go_on(state, node) {
            return None;
        }
        [Some(node), self.working_owner(state, epoch)].into_iter().flatten().find(|&by| {
            let process = state.node(by);
            let place = process.item.chain.position(operation);
            // An entry that is missing although nothing is pending counts as committed: that the
            // table knows it and the value does not is the fault to be found.
            let is_committed = place.unwrap_or(process.item.chain.len()) < process.safe
                || place.is_none() && process.safe >= process.item.chain.len();
            has(process.results, operation) && is_committed
        })
    }

    fn streams(&self, state: &State, actions: &mut Vec<Action>) {
        for epoch in 1..EPOCHS as Epoch {
            let Some(owner) = self.working_owner(state, epoch) else { continue };
            let view = state.view(epoch);
            if self.acknowledged_by_all(state, epoch) > view.committed {
                actions.push(Action::Commit(epoch));
            }
            let learner = each(view.learners).find(|&node| state.node(node).working == epoch);
            // Filling leads nowhere when no view is left that could admit the learner.
            let may_fill = state.is_settled(owner) && state.newest <= self.bounds.views;
            let Some(learner) = learner.filter(|_| may_fill) else { continue };
            let acked = view.acked[learner as usize];
            if acked == 0 {
                actions.push(Action::Fill(epoch));
            } else if !view.is_counted && (acked >= view.committed || !self.rules.count_caught_up) {
                actions.push(Action::Count(epoch));
            }
        }
        for node in state.alive() {
            let process = state.node(node);
            if self.may_go_on(state, node) && self.has_next(state, node, process.working) {
                actions.push(Action::Apply(node));
            }
            if self.news(state, node) > process.safe {
                actions.push(Action::Notice(node));
            }
            let is_early = !self.rules.epoch_buffering && process.has_flushed;
            if is_early && self.has_next(state, node, process.known) {
                actions.push(Action::ApplyEarly(node));
            }
        }
    }

    pub(crate) fn acknowledged_by_all(&self, state: &State, epoch: Epoch) -> u8 {
        let acked = state.view(epoch).acked;
        each(state.counted(epoch)).map(|node| acked[node as usize]).min().unwrap_or(0)
    }

    /// Whether an Apply of that view is on its way to the node. One that was sent may arrive
    /// even though its sender has died since, or may not: then this action is never taken.
    fn has_next(&self, state: &State, node: Node, epoch: Epoch) -> bool {
        let view = state.view(epoch);
        let Some(owner) = self.owner(state, epoch) else { return false };
        let acked = view.acked[node as usize];
        let is_due = if epoch > state.node(node).working {
            has(view.members, node)
        } else {
            has(view.members | view.learners, node) && acked > 0
        };
        let sent = view.stream.len() - view.base.min(view.stream.len());
        node != owner && is_due && has(view.activated, owner) && acked.max(1) <= sent
    }

    /// How much of its value a node may now learn to be committed.
    pub(crate) fn news(&self, state: &State, node: Node) -> u8 {
        let process = state.node(node);
        let view = state.view(process.working);
        if view.acked[node as usize] == 0 {
            return 0;
        }
        let told = match view.committed {
            0 if state.is_active(process.working) => view.base,
            0 => 0,
            committed => view.base + committed - 1,
        };
        told.min(process.item.chain.len())
    }

    fn view_change(&self, state: &State, node: Node, actions: &mut Vec<Action>) {
        let process = state.node(node);
        let newest = state.view(state.newest);
        if process.known < state.newest && (state.is_in(node) || has(newest.learners, node)) {
            actions.push(Action::Learn(node));
        }
        if process.known == process.working {
            return;
        }
        let next = state.view(process.known);
        if !next.flushes[node as usize].is_sent {
            actions.push(Action::Flush(node));
        }
        if each(next.members).all(|member| next.flushes[member as usize].is_sent) {
            actions.push(Action::Activate(node));
        }
    }

    /// Every view that the log may accept as the next. A view with a dead member is left out:
    /// the same member may die, or stay silent, right after it.
    fn proposals(&self, state: &State, actions: &mut Vec<Action>) {
        let last = state.view(state.newest);
        let ready = if last.is_counted { last.learners } else { 0 };
        let alive = state.alive().fold(0, |set, node| set | 1 << node);
        let candidates = (last.members | ready) & alive;
        for members in 1..1 << NODES {
            if members & !candidates != 0 || !self.may_follow(state, members) {
                continue;
            }
            let learners = last.learners & !members & alive;
            if members != last.members {
                actions.push(Action::Propose(members, learners));
            } else if learners == 0 && state.newest < self.bounds.views {
                for learner in each(alive & !members) {
                    actions.push(Action::Propose(members, 1 << learner));
                }
            }
        }
    }

    /// The half rule: for the last view that all its members have activated, and for those after
    /// it, in which some of its members may already hold leases.
    fn may_follow(&self, state: &State, members: Set) -> bool {
        let alive = state.alive().fold(0, |set, node| set | 1 << node);
        let counted = if self.rules.small_view_needs_proof { alive } else { 0 };
        self.keeps_half(state, members, Set::MAX)
            || self.bounds.allows_small_views && self.keeps_half(state, members, counted)
    }

    pub(crate) fn keeps_half(&self, state: &State, members: Set, counted: Set) -> bool {
        let keeps_half_of = |epoch: Epoch| {
            let old = state.view(epoch).members;
            let left = old & !members & counted;
            members & old != 0 && 2 * left.count_ones() <= old.count_ones()
        };
        let active = state.newest_active();
        let last = if self.rules.half_of_each { state.newest } else { active };
        !self.rules.half || (active..=last).all(keeps_half_of)
    }
}
