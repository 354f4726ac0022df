//! The search for an order: Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with
//! Lowe's memory of what was tried ("Testing for Linearizability", 2017).
//!
//! Three things make it quick. A command that changes nothing and fits now is taken at once: what
//! comes after it stays possible. Of commands without an answer that are alike, the first one goes
//! first. And such a command is taken only if the next one would not do the same without it.

use std::collections::{HashMap, HashSet};

use super::Operation;
use super::item::Item;

/// Steps before the search gives up. A second or so; histories that are meant to be checked
/// take some hundred steps per key.
const STEPS_MAX: usize = 1_000_000;

/// Whether there is an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Linearizable,
    Impossible,
    GaveUp,
}

/// A verdict, and what it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    pub(super) steps: usize,
}

/// Searches an order of these operations of one key.
pub(super) fn search(operations: &[&Operation]) -> Found {
    let mut search = Search::new(operations);
    let is_linearizable = search.go_on(&Item::default(), None);
    let verdict = match is_linearizable {
        true => Verdict::Linearizable,
        false if search.tried.len() >= STEPS_MAX => Verdict::GaveUp,
        false => Verdict::Impossible,
    };
    Found { verdict, steps: search.tried.len() }
}

struct Search<'a> {
    /// Those with an answer, by their invocation, then those without.
    operations: Vec<&'a Operation>,
    answered: usize,
    /// By CAS unique, the operations whose reply shows it.
    shown: HashMap<u64, Vec<usize>>,
    taken: Vec<u64>,
    /// The first operation with an answer that is not taken.
    first: usize,
    tried: HashSet<(Box<[u64]>, Item, Option<Item>)>,
}

impl<'a> Search<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let is_answered = |operation: &&&Operation| operation.answer.is_some();
        let mut sorted: Vec<&Operation> = operations.iter().filter(is_answered).copied().collect();
        sorted.sort_by_key(|operation| (operation.invoked, operation.returned()));
        let answered = sorted.len();
        let mut open: Vec<&Operation> = operations
            .iter()
            .filter(|operation| operation.answer.is_none() && !operation.is_still())
            .copied()
            .collect();
        open.sort_by_key(|operation| operation.invoked);
        sorted.extend(open);
        let mut shown: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, operation) in sorted.iter().enumerate() {
            if let Some(unique) = operation.reply().and_then(|reply| reply.unique()) {
                shown.entry(unique).or_default().push(index);
            }
        }
        let taken = vec![0; sorted.len().div_ceil(64)];
        Self { operations: sorted, answered, shown, taken, first: 0, tried: HashSet::new() }
    }

    /// Whether all the rest can follow upon this state. As deep as there are operations.
    ///
    /// `without` is the state before, if what was taken last had no answer and need not have been.
    fn go_on(&mut self, item: &Item, without: Option<&Item>) -> bool {
        let taken_at_once = self.take_what_is_still(item);
        if self.first == self.answered {
            return true;
        }
        // What is still and fits now did not fit before: so it was needed.
        let without = without.filter(|_| taken_at_once.is_empty());
        let here = || (self.taken.clone().into(), item.clone(), without.cloned());
        let is_new = self.tried.len() < STEPS_MAX && self.tried.insert(here());
        if is_new {
            for candidate in self.candidates() {
                let Some(after) = self.after(item, candidate) else { continue };
                let same = without.and_then(|without| self.after(without, candidate));
                if same.as_ref() == Some(&after) {
                    continue;
                }
                let is_open = candidate >= self.answered;
                self.take(candidate);
                if self.go_on(&after, is_open.then_some(item)) {
                    return true;
                }
                self.give_back(candidate);
            }
        }
        for &index in taken_at_once.iter().rev() {
            self.give_back(index);
        }
        false
    }

    /// Takes what changes nothing and fits, as long as there is any.
    fn take_what_is_still(&mut self, item: &Item) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            let fits = |&index: &usize| {
                self.operations[index].is_still() && self.after(item, index).as_ref() == Some(item)
            };
            let found: Vec<usize> = self.answered_candidates().into_iter().filter(fits).collect();
            if found.is_empty() {
                return taken;
            }
            for &index in &found {
                self.take(index);
            }
            taken.extend(found);
        }
    }

    /// What may come next: whatever was begun before the first end of what is still missing.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = self.answered_candidates();
        candidates.sort_by_key(|&index| self.operations[index].returned());
        let end = candidates.first().map_or(u64::MAX, |&index| self.operations[index].returned());
        let mut open: Vec<usize> = Vec::new();
        for index in self.answered..self.operations.len() {
            let operation = self.operations[index];
            if operation.invoked > end {
                break;
            }
            let is_like = |&other: &usize| self.operations[other].command == operation.command;
            if !self.is_taken(index) && !open.iter().any(is_like) {
                open.push(index);
            }
        }
        candidates.extend(open);
        candidates
    }

    fn answered_candidates(&self) -> Vec<usize> {
        let (mut candidates, mut end) = (Vec::new(), u64::MAX);
        for index in self.first..self.answered {
            let operation = self.operations[index];
            if operation.invoked > end {
                break;
            }
            if !self.is_taken(index) {
                end = end.min(operation.returned());
                candidates.push(index);
            }
        }
        candidates
    }

    fn after(&self, item: &Item, index: usize) -> Option<Item> {
        let operation = self.operations[index];
        item.after(&operation.command, operation.reply(), |unique| {
            let shown = self.shown.get(&unique);
            shown.is_some_and(|shown| shown.iter().any(|&index| self.is_taken(index)))
        })
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn take(&mut self, index: usize) {
        self.taken[index / 64] |= 1 << (index % 64);
        while self.first < self.answered && self.is_taken(self.first) {
            self.first += 1;
        }
    }

    fn give_back(&mut self, index: usize) {
        self.taken[index / 64] &= !(1 << (index % 64));
        self.first = self.first.min(index);
    }
}
