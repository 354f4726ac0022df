//! Runs the checker and says what it found.

#![allow(clippy::print_stdout, reason = "state counts and executions are what it is for")]

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};

use crate::actions::{Action, Protocol};
use crate::rules::{Bounds, Rules};
use crate::state::State;

/// `make model` sets it: the bounds are then as large as five minutes and 4 GiB allow.
pub(crate) fn is_full() -> bool {
    std::env::var_os("MODEL_FULL").is_some()
}

fn threads() -> usize {
    if !is_full() {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// In all executions within the bounds no promise is broken, and what should be possible is.
pub(crate) fn holds(name: &str, bounds: Bounds) {
    holds_with(name, Rules::ALL, bounds);
}

pub(crate) fn holds_with(name: &str, rules: Rules, bounds: Bounds) {
    let started = Instant::now();
    let checker = Protocol { rules, bounds }
        .checker()
        .threads(threads())
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, {depth} steps deep, {:.1?}", started.elapsed());
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        if property.expectation == Expectation::Sometimes {
            assert!(found.is_some(), "{name}: never {}", property.name);
        } else if let Some(path) = found {
            panic!("{name}: not {}\n{}", property.name, told(checker.model(), &property, path));
        }
    }
}

/// Without a rule, some execution within the bounds breaks a promise.
pub(crate) fn breaks(name: &str, rules: Rules, bounds: Bounds) {
    let started = Instant::now();
    let checker = Protocol { rules, bounds }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!("{name}: {} states, {:.1?}", checker.unique_state_count(), started.elapsed());
    let broken = checker.model().properties().into_iter().find_map(|property| {
        let is_promise = property.expectation == Expectation::Always;
        let path = checker.discovery(property.name).filter(|_| is_promise)?;
        Some((property, path))
    });
    let Some((property, path)) = broken else {
        panic!("{name}: every promise holds within these bounds, so nothing shows what it is for");
    };
    println!("  not: {}\n{}", property.name, told(checker.model(), &property, path));
}

/// The actions up to the first state in which the promise is broken.
fn told(protocol: &Protocol, property: &Property<Protocol>, path: Path<State, Action>) -> String {
    let mut lines = Vec::new();
    for (state, action) in path.into_vec() {
        if !(property.condition)(protocol, &state) {
            break;
        }
        lines.extend(action.map(|action| format!("    {action:?}")));
    }
    lines.join("\n")
}
