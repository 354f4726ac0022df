//! Forwarded requests: those of this node that wait, and the outcomes of everybody's.
//!
//! An owner may die after deciding and before reporting. Every member therefore remembers each
//! outcome until its origin says that it knows, so that no request is decided twice.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::record::{Mutation, Outcome};
use crate::replication::Incarnation;
use crate::replication::message::{Answered, RequestId};
use crate::time::Millis;

/// A change that another node decides.
#[derive(Debug)]
pub(super) struct Request<W> {
    pub(super) key: Bytes,
    pub(super) mutation: Mutation<Bytes>,
    pub(super) waiter: W,
    /// Its client gives up then, by the local clock.
    pub(super) until: Millis,
    /// When it was last given to an owner.
    pub(super) sent: Option<Millis>,
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

    /// Lets go of those that may have been carried out without anybody remembering it.
    pub(super) fn abandon_sent(&mut self) {
        self.waiting.retain(|_, request| request.sent.is_none() || request.is_read());
    }

    /// Those that were given to nobody since then.
    pub(super) fn older_than(&self, ms: u64, now: Millis) -> Vec<u64> {
        let is_old = |request: &Request<W>| request.sent.is_none_or(|sent| now.since(sent) >= ms);
        let old = self.waiting.iter().filter(|(_, request)| is_old(request));
        old.map(|(&counter, _)| counter).collect()
    }

    pub(super) fn sent(&mut self, counter: u64, now: Millis) {
        if let Some(request) = self.waiting.get_mut(&counter) {
            request.sent = Some(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those that nobody was asked about.
    pub(super) fn held(&self) -> u64 {
        self.waiting.values().filter(|request| request.sent.is_none()).count() as u64
    }
}

impl<W> Request<W> {
    /// Whether carrying it out twice does no harm.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.mutation, Mutation::Read)
    }
}

/// Outcomes of requests, by origin.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<Incarnation, Origin>);

/// What one node has asked for.
#[derive(Debug, Default)]
struct Origin {
    /// It has answers to all requests up to this one.
    done_up_to: u64,
    /// By their counts. Few, and new ones come nearly in order.
    outcomes: VecDeque<(u64, Outcome)>,
}

impl Origin {
    fn prune(&mut self, done_up_to: u64) {
        self.done_up_to = self.done_up_to.max(done_up_to);
        while self.outcomes.front().is_some_and(|(counter, _)| *counter <= self.done_up_to) {
            self.outcomes.pop_front();
        }
    }

    fn record(&mut self, counter: u64, outcome: Outcome) {
        if counter <= self.done_up_to {
            return;
        }
        match self.place(counter) {
            Ok(place) => self.outcomes[place].1 = outcome,
            Err(place) => self.outcomes.insert(place, (counter, outcome)),
        }
    }

    fn place(&self, counter: u64) -> Result<usize, usize> {
        match self.outcomes.back() {
            Some((last, _)) if *last >= counter => {
                self.outcomes.binary_search_by_key(&counter, |(counter, _)| *counter)
            }
            _ => Err(self.outcomes.len()),
        }
    }
}

/// What is known of a request.
pub(super) enum Known {
    /// Nobody has decided it.
    Open,
    /// This came of it.
    Decided(Outcome),
    /// Its origin has had its answer for long.
    Over,
}

impl Results {
    pub(super) fn record(&mut self, answered: &Answered) {
        let RequestId { origin, counter } = answered.request;
        let of_origin = self.0.entry(origin).or_default();
        of_origin.prune(answered.done_up_to);
        of_origin.record(counter, answered.outcome.clone());
    }

    /// The origin knows these: nobody will ask for them again.
    pub(super) fn prune(&mut self, origin: Incarnation, done_up_to: u64) {
        self.0.entry(origin).or_default().prune(done_up_to);
    }

    pub(super) fn get(&self, request: RequestId) -> Known {
        let Some(of_origin) = self.0.get(&request.origin) else {
            return Known::Open;
        };
        if request.counter <= of_origin.done_up_to {
            return Known::Over;
        }
        match of_origin.place(request.counter) {
            Ok(place) => Known::Decided(of_origin.outcomes[place].1.clone()),
            Err(_) => Known::Open,
        }
    }

    /// Forgets origins that are gone: the dead ask nothing.
    pub(super) fn keep(&mut self, lives: impl Fn(Incarnation) -> bool) {
        self.0.retain(|&origin, _| lives(origin));
    }

    pub(super) fn all(&self) -> Vec<Answered> {
        let answered = |origin, done_up_to, (counter, outcome): &(u64, Outcome)| Answered {
            request: RequestId { origin, counter: *counter },
            done_up_to,
            outcome: outcome.clone(),
        };
        let each = self.0.iter().flat_map(|(&origin, of_origin)| {
            let outcomes = of_origin.outcomes.iter();
            outcomes.map(move |outcome| answered(origin, of_origin.done_up_to, outcome))
        });
        each.collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
