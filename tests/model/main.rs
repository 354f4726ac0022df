//! A model of the replication protocol, every execution of which is looked at, up to some bounds.
//!
//! It is the protocol that the group is meant to have (leases, views by majority, learners that
//! are counted), written down as state and steps: `state.rs` is what there is, `actions.rs` when
//! something may happen, `steps.rs` what comes of it, `properties.rs` what must hold. `rules.rs`
//! names each safety rule; `missing_rules.rs` takes them away one by one and must find a broken
//! promise. `cargo test --test model -- --nocapture` tells the executions.
//!
//! What is left out, and why nothing is lost by it:
//!
//! - **One key.** Keys have streams of their own; what they share is the view.
//! - **Time.** A grant is there or not. It is renewed as long as its giver may renew it, and is
//!   gone at the moment when its giver may stop waiting for it: never later at the holder than at
//!   the giver. A lease that is lost earlier only forbids reads.
//! - **How views are agreed on.** A log with one successor for each view, which at any time may
//!   get any entry that the rules admit, whether or not somebody is really silent. Every node
//!   hears of it at any time later, or never.
//! - **Acknowledgements, Activated, CommitUpTo, FwdDone.** What a node has applied, its owner may
//!   find out at any time later: the way of the message is that delay. A lost message is an
//!   action that is never taken, so nothing is lost on purpose.
//! - **Reads** happen at one instant, except in the bounds with slow reads. Only those change
//!   anything that show what nobody has seen.
//! - **How a learner is filled.** In one step it has what the owner has, whatever it had. That its old
//!   memory is compared and kept where it is equal is a shorter way to the same.
//! - **Forgetting results.** The table of results only grows; a request that it cannot decide
//!   (which would be answered "unknown") does not occur.
//! - **Values.** Every operation appends its number, so each is a read-modify-write.

mod actions;
mod chain;
mod missing_rules;
mod properties;
mod rules;
mod search;
mod state;
mod steps;

use rules::Bounds;
use search::{holds, is_full};

/// Two nodes and one that is being filled.
const JOIN: Bounds = Bounds { members: 0b011, learners: 0b100, views: 2, ..Bounds::THREE };

#[test]
fn one_view_change() {
    holds("one view change", Bounds { operations: 2, ..Bounds::THREE });
    holds("a forward sent twice", Bounds { crashes: 1, resends: 1, ..Bounds::THREE });
}

#[test]
fn two_view_changes_and_a_crash() {
    holds("two view changes", Bounds { views: 2, crashes: 1, resends: 1, ..Bounds::THREE });
}

/// The joining node takes each place in the order of owners.
#[test]
fn a_join_and_another_view_change() {
    for learner in 0..3 {
        let (members, learners) = (0b111 & !(1 << learner), 1 << learner);
        holds(&format!("node {learner} joins"), Bounds { members, learners, ..JOIN });
    }
    holds("node 2 joins, a crash", Bounds { crashes: 1, ..JOIN });
}

#[test]
fn left_out_and_back_with_its_memory() {
    holds("left out and back", Bounds { views: 3, ..Bounds::TWO });
}

#[test]
fn a_read_that_takes_its_time() {
    holds("slow read", Bounds { views: 3, slow_reads: 1, ..Bounds::TWO });
}

#[test]
fn one_of_three_goes_on_alone() {
    let bounds = Bounds { views: 2, crashes: 2, allows_small_views: true, ..Bounds::THREE };
    holds("alone", bounds);
}

/// What takes minutes: `make model`; `ONLY=name` for one of them.
#[test]
fn larger_bounds() {
    if !is_full() {
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let two = Bounds { operations: 2, views: 2, ..Bounds::THREE };
    let three = Bounds { operations: 3, clients: 0b010, ..two };
    let joining = Bounds { clients: 0b010, ..JOIN };
    let back = Bounds { views: 3, ..Bounds::THREE };
    let dead = Bounds { crashes: 1, outsiders: 0b1000, views: 3, ..Bounds::TWO };
    for (name, bounds) in [
        ("left out of three and back", back),
        ("dead and back without memory", dead),
        ("three operations, one view change", Bounds { crashes: 1, views: 1, ..three }),
        ("two operations", two),
        ("two operations and a join", Bounds { operations: 2, ..joining }),
        ("two operations and a crash", Bounds { crashes: 1, ..two }),
        ("three operations", three),
        ("three operations and a join", Bounds { operations: 3, views: 1, ..joining }),
    ] {
        if only.is_empty() || name == only {
            holds(name, bounds);
        }
    }
}
