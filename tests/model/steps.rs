//! What comes of an action.

use crate::actions::{Action, Protocol};
use crate::chain::{Chain, Operation};
use crate::state::{Client, EPOCHS, Epoch, Item, NODES, Node, Process, Set, SlowRead, State};
use crate::state::{ViewFlush, each, has};

impl Protocol {
    pub(crate) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Invoke(operation, node) => {
                let epoch = state.node(node).working;
                state.forward(operation, node, epoch);
            }
            Action::Resend(operation) => {
                state.resends -= 1;
                if let Client::Waiting(node, epoch) = state.clients[usize::from(operation) - 1] {
                    state.forward(operation, node, epoch);
                }
            }
            Action::Execute(operation, epoch) => self.execute(state, operation, epoch),
            Action::Apply(node) => state.apply(node, state.node(node).working),
            Action::ApplyEarly(node) => state.apply(node, state.node(node).known),
            Action::Commit(epoch) => self.commit(state, epoch),
            Action::Notice(node) => state.nodes[node as usize].safe = self.news(state, node),
            Action::Answer(operation) => self.answer(state, operation),
            Action::Read(node) => state.show(state.node(node).item.chain),
            Action::StartRead(node) => {
                let Process { item, working, .. } = *state.node(node);
                let is_fresh = item.chain.starts_with(state.shown);
                let read = SlowRead { node, epoch: working, found: item.chain, is_fresh };
                state.slow_reads -= 1;
                state.slow_read = Some(read);
            }
            Action::FinishRead(_) => {
                if let Some(read) = state.slow_read.take() {
                    state.is_broken |= !read.is_fresh;
                    state.show(read.found);
                }
            }
            Action::Propose(members, learners) => {
                let is_small = !self.keeps_half(state, members, Set::MAX);
                state.newest += 1;
                let view = state.view_mut(state.newest);
                (view.members, view.learners) = (members, learners);
                view.is_small = is_small;
            }
            Action::Learn(node) => self.learn(state, node),
            Action::Flush(node) => self.flush(state, node),
            Action::Activate(node) => self.activate(state, node),
            Action::Fill(epoch) => self.fill(state, epoch),
            Action::Count(epoch) => state.view_mut(epoch).is_counted = true,
            Action::Crash(node) => state.crash(node),
        }
        self.forget(state);
    }

    fn execute(&self, state: &mut State, operation: Operation, epoch: Epoch) {
        let Some(owner) = self.owner(state, epoch) else { return };
        state.forwards[usize::from(operation) - 1] &= !(1 << epoch);
        let process = &mut state.nodes[owner as usize];
        if has(process.results, operation) && self.rules.dedupe {
            return;
        }
        let chain = process.item.chain.with(operation);
        process.item = Item { version: (epoch, chain.len()), chain };
        process.results |= 1 << operation;
        let view = state.view_mut(epoch);
        view.stream = chain;
        view.acked[owner as usize] += 1;
    }

    fn commit(&self, state: &mut State, epoch: Epoch) {
        let Some(owner) = self.owner(state, epoch) else { return };
        let committed = self.acknowledged_by_all(state, epoch);
        let view = state.view_mut(epoch);
        view.committed = committed;
        state.nodes[owner as usize].safe = view.base + committed - 1;
    }

    fn answer(&self, state: &mut State, operation: Operation) {
        let Some(by) = self.answer_from(state, operation) else { return };
        let chain = state.node(by).item.chain;
        state.clients[usize::from(operation) - 1] = Client::Answered;
        match chain.position(operation) {
            Some(place) => state.show(chain.prefix(place + 1)),
            None => state.is_broken = true,
        }
    }

    /// Members hear of every view; a learner, and a node that was left out, of those that fill it.
    fn learn(&self, state: &mut State, node: Node) {
        let process = *state.node(node);
        let old = *state.view(process.working);
        let was_in = state.is_in(node);
        let known = if was_in { process.known + 1 } else { state.newest };
        let learnt = state.view_mut(known);
        let is_learner = has(learnt.learners, node);
        let was_filled = has(old.learners, node) && old.acked[node as usize] > 0;
        if is_learner && was_filled && !self.rules.learner_repeat {
            learnt.acked[node as usize] = 1;
        }
        let is_member = has(learnt.members, node);
        let process = &mut state.nodes[node as usize];
        process.known = known;
        if !is_member {
            // Left out, or a learner: it has nothing to hand over.
            (process.working, process.has_flushed, process.safe) = (known, false, 0);
        }
        if is_learner {
            self.resume(state, node, known);
        }
    }

    fn flush(&self, state: &mut State, node: Node) {
        let process = &mut state.nodes[node as usize];
        let epoch = process.known;
        process.has_flushed = true;
        let is_pending = process.safe < process.item.chain.len();
        let carries = is_pending && self.rules.roll_forward;
        let flush = if carries {
            ViewFlush { is_sent: true, carries, item: process.item, safe: process.safe }
        } else {
            ViewFlush { is_sent: true, ..ViewFlush::default() }
        };
        if self.rules.grant_wait {
            process.grants &= state.views[epoch as usize].members;
        }
        if state.view(epoch).is_small && self.rules.small_view_waits {
            self.wait_for_a_grant_time(state);
        }
        state.view_mut(epoch).flushes[node as usize] = flush;
    }

    /// In that time all grants run out that nobody renews: those of the dead, and those of nodes
    /// that know of a view without the receiver.
    fn wait_for_a_grant_time(&self, state: &mut State) {
        for node in 0..NODES as Node {
            let Process { is_alive, known, .. } = *state.node(node);
            let renewed = if is_alive { state.view(known).members } else { 0 };
            state.nodes[node as usize].grants &= renewed;
        }
    }

    fn activate(&self, state: &mut State, node: Node) {
        let epoch = state.node(node).known;
        let view = *state.view(epoch);
        let carried = || each(view.members).map(|n| view.flushes[n as usize]).filter(|f| f.carries);
        let process = &mut state.nodes[node as usize];
        for flush in carried() {
            if flush.item.version > process.item.version {
                process.item = flush.item;
            }
            for place in flush.safe..flush.item.chain.len() {
                process.results |= 1 << flush.item.chain.at(place);
            }
        }
        let len = process.item.chain.len();
        let safe = carried().map(|flush| flush.safe).min().unwrap_or(len);
        process.safe = if self.rules.late_commit { safe } else { len };
        (process.working, process.has_flushed) = (epoch, false);
        let item = process.item;
        let owner = self.owner(state, epoch);
        let view = state.view_mut(epoch);
        view.activated |= 1 << node;
        view.acked[node as usize] = view.acked[node as usize].max(1);
        if owner == Some(node) {
            (view.base, view.stream) = (len, item.chain);
            view.committed = u8::from(safe == len || !self.rules.late_commit);
        }
        state.grant(node, epoch);
        self.resume(state, node, epoch);
    }

    /// Requests that the table knows are answered when they are committed; the others go to the
    /// new owner.
    fn resume(&self, state: &mut State, node: Node, epoch: Epoch) {
        for operation in 1..=self.bounds.operations {
            let client = &mut state.clients[usize::from(operation) - 1];
            if matches!(*client, Client::Waiting(at, _) if at == node) {
                *client = Client::Waiting(node, epoch);
                if !has(state.node(node).results, operation) || !self.rules.dedupe {
                    state.forward(operation, node, epoch);
                }
            }
        }
    }

    /// "The view is right": whatever the learner has is replaced.
    fn fill(&self, state: &mut State, epoch: Epoch) {
        let Some(owner) = self.owner(state, epoch) else { return };
        let Process { item, results, .. } = *state.node(owner);
        let sent = item.chain.len() - state.view(epoch).base;
        for learner in each(state.view(epoch).learners) {
            state.view_mut(epoch).acked[learner as usize] = 1 + sent;
            let process = &mut state.nodes[learner as usize];
            process.item = item;
            let kept = if self.rules.table_replaces { 0 } else { process.results };
            process.results = kept | if self.rules.table_travels { results } else { 0 };
        }
    }

    /// Drops what can have no effect any more, so that equal futures are equal states.
    fn forget(&self, state: &mut State) {
        for node in 0..NODES as Node {
            // What was left out is filled anew before it matters again.
            if state.node(node).is_alive && !state.is_in(node) && self.rules.table_replaces {
                let grants = state.node(node).grants;
                state.nodes[node as usize] =
                    Process { is_alive: true, grants, ..Process::default() };
            }
        }
        for epoch in 1..EPOCHS as Epoch {
            let owner = self.owner(state, epoch);
            let is_deaf = owner.is_none_or(|owner| {
                let process = state.node(owner);
                !state.is_in(owner) || process.known > epoch
            });
            if is_deaf {
                state.forwards.iter_mut().for_each(|epochs| *epochs &= !(1 << epoch));
            }
            if epoch < state.newest && (0..NODES as Node).all(|node| state.is_past(node, epoch)) {
                let view = state.view_mut(epoch);
                let (members, activated) = (view.members, view.activated);
                *view = Default::default();
                (view.members, view.activated) = (members, activated);
            }
        }
        for epoch in 1..state.newest_active() {
            if (0..NODES as Node).all(|node| state.is_past(node, epoch)) {
                *state.view_mut(epoch) = Default::default();
            }
        }
    }
}

impl State {
    fn forward(&mut self, operation: Operation, node: Node, epoch: Epoch) {
        let index = usize::from(operation) - 1;
        self.clients[index] = Client::Waiting(node, epoch);
        self.forwards[index] |= 1 << epoch;
    }

    fn apply(&mut self, node: Node, epoch: Epoch) {
        let view = self.view_mut(epoch);
        let acked = &mut view.acked[node as usize];
        let len = view.base + (*acked).max(1);
        *acked = (*acked).max(1) + 1;
        let chain = view.stream.prefix(len);
        let process = &mut self.nodes[node as usize];
        process.item = Item { version: (epoch, len), chain };
        process.results |= 1 << chain.at(len - 1);
    }

    /// A client has seen this value. All that was shown must be on one line.
    fn show(&mut self, chain: Chain) {
        if chain.starts_with(self.shown) {
            self.shown = chain;
        } else if !self.shown.starts_with(chain) {
            self.is_broken = true;
        }
    }

    /// Members that work in one view grant each other, except to those whom a newer view that
    /// they know of leaves out. Grants are renewed until the granter waits for their end.
    fn grant(&mut self, node: Node, epoch: Epoch) {
        let works = |state: &Self, other: Node| {
            state.node(other).is_alive && state.node(other).working == epoch
        };
        let members = each(self.view(epoch).members).filter(|&other| works(self, other));
        let peers: Set = members.fold(0, |set, other| set | 1 << other) & !(1 << node);
        self.nodes[node as usize].grants |= peers;
        for peer in each(peers) {
            if has(self.view(self.node(peer).known).members, node) {
                self.nodes[peer as usize].grants |= 1 << node;
            }
        }
    }

    /// Grants that the dead one gave stay valid; grants to it excuse their givers.
    fn crash(&mut self, node: Node) {
        self.crashes -= 1;
        let grants = self.node(node).grants;
        self.nodes[node as usize] = Process { grants, ..Process::default() };
        for process in &mut self.nodes {
            process.grants &= !(1 << node);
        }
        self.slow_read = self.slow_read.filter(|read| read.node != node);
        for client in &mut self.clients {
            if matches!(*client, Client::Waiting(at, _) if at == node) {
                *client = Client::Unknown;
            }
        }
    }

    /// Neither works in that view nor ever will.
    fn is_past(&self, node: Node, epoch: Epoch) -> bool {
        let process = self.node(node);
        let is_beyond = process.working > epoch || process.working < epoch && process.known > epoch;
        !self.is_in(node) || is_beyond
    }
}
