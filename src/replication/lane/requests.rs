//! Forwarded requests: those of this node that wait, and the outcomes of everybody's.
//!
//! An owner may die after deciding and before reporting. Every member therefore remembers each
//! outcome until its origin says that it knows, so that no request is decided twice.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::record::{Mutation, Outcome};
use crate::replication::Incarnation;
use crate::replication::message::{Answered, RequestId};

/// A change that another node decides.
#[derive(Debug)]
pub(super) struct Request<W> {
    pub(super) key: Bytes,
    pub(super) mutation: Mutation<Bytes>,
    pub(super) waiter: W,
}

/// This node's requests without an answer, in the order they came.
#[derive(Debug)]
pub(super) struct Requests<W> {
    last: u64,
    waiting: BTreeMap<u64, Request<W>>,
}

impl<W> Default for Requests<W> {
    fn default() -> Self {
        Self { last: 0, waiting: BTreeMap::new() }
    }
}

impl<W> Requests<W> {
    pub(super) fn add(&mut self, request: Request<W>) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, request);
        self.last
    }

    pub(super) fn get(&self, counter: u64) -> Option<&Request<W>> {
        self.waiting.get(&counter)
    }

    pub(super) fn remove(&mut self, counter: u64) -> Option<Request<W>> {
        self.waiting.remove(&counter)
    }

    /// Every request up to this one has its answer.
    pub(super) fn done_up_to(&self) -> u64 {
        self.waiting.first_key_value().map_or(self.last, |(&first, _)| first - 1)
    }

    pub(super) fn counters(&self) -> Vec<u64> {
        self.waiting.keys().copied().collect()
    }

    /// Lets go of everybody who waits; what became of their requests is unknown.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }
}

/// Outcomes of forwarded requests, by origin.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<Incarnation, BTreeMap<u64, Outcome>>);

impl Results {
    pub(super) fn record(&mut self, answered: &Answered) {
        let RequestId { origin, counter } = answered.request;
        self.prune(origin, answered.done_up_to);
        if counter > answered.done_up_to {
            self.0.entry(origin).or_default().insert(counter, answered.outcome.clone());
        }
    }

    /// The origin knows these: nobody will ask for them again.
    pub(super) fn prune(&mut self, origin: Incarnation, done_up_to: u64) {
        if let Some(outcomes) = self.0.get_mut(&origin) {
            *outcomes = outcomes.split_off(&(done_up_to + 1));
        }
    }

    pub(super) fn get(&self, request: RequestId) -> Option<Outcome> {
        self.0.get(&request.origin)?.get(&request.counter).cloned()
    }

    /// Forgets origins that are gone: the dead ask nothing.
    pub(super) fn keep(&mut self, lives: impl Fn(Incarnation) -> bool) {
        self.0.retain(|&origin, _| lives(origin));
    }

    pub(super) fn all(&self) -> Vec<Answered> {
        let answered = |origin, counter: u64, outcome: &Outcome| Answered {
            request: RequestId { origin, counter },
            done_up_to: 0,
            outcome: outcome.clone(),
        };
        let each = self.0.iter().flat_map(|(&origin, outcomes)| {
            outcomes.iter().map(move |(&counter, outcome)| answered(origin, counter, outcome))
        });
        each.collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
