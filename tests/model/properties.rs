//! What must always hold, and what must be possible.

use stateright::{Model, Property};

use crate::actions::{Action, Protocol};
use crate::state::{Client, State, each, has};

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.enabled(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.take(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a read shows all that was shown before", reads_are_fresh),
            Property::always("answers contradict nothing that was shown", |_, state: &State| {
                !state.is_broken
            }),
            Property::always("an operation counts once", |_, state: &State| !state.shown.repeats()),
            Property::always("what was shown is on every active member", shown_is_everywhere),
            Property::sometimes("a read after a view change", |protocol: &Self, state| {
                read_since(protocol, state, 2)
            }),
        ];
        if self.bounds.views >= 2 {
            properties.push(Property::sometimes("a read after two", |protocol: &Self, state| {
                read_since(protocol, state, 3)
            }));
        }
        properties.push(Property::sometimes("an entry is rolled forward", is_rolled_forward));
        properties.push(Property::sometimes(
            "everything is answered",
            |protocol: &Self, state: &State| {
                let operations = &state.clients[..usize::from(protocol.bounds.operations)];
                operations.iter().all(|client| *client == Client::Answered)
            },
        ));
        if self.bounds.resends > 0 {
            properties.push(Property::sometimes("a request comes twice", is_duplicate));
        }
        if self.bounds.learners | self.bounds.outsiders != 0 {
            properties.push(Property::sometimes("a joined node answers reads", has_joined));
        }
        properties
    }
}

fn reads_are_fresh(protocol: &Protocol, state: &State) -> bool {
    state.alive().all(|node| {
        state.node(node).item.chain.starts_with(state.shown) || !protocol.may_read(state, node)
    })
}

/// On every member that works in the newest view in which anybody ever worked.
fn shown_is_everywhere(_: &Protocol, state: &State) -> bool {
    let newest = (1..=state.newest).rev().find(|&epoch| state.view(epoch).activated != 0);
    state
        .alive()
        .filter(|&node| state.is_member(node) && Some(state.node(node).working) == newest)
        .all(|node| state.node(node).item.chain.starts_with(state.shown))
}

fn read_since(protocol: &Protocol, state: &State, epoch: u8) -> bool {
    state.alive().any(|node| state.node(node).working >= epoch && protocol.may_read(state, node))
}

fn is_rolled_forward(_: &Protocol, state: &State) -> bool {
    state.alive().any(|node| {
        let process = state.node(node);
        state.is_member(node)
            && process.item.version.0 < process.working
            && process.safe < process.item.chain.len()
    })
}

fn is_duplicate(protocol: &Protocol, state: &State) -> bool {
    (1..=protocol.bounds.operations).any(|operation| {
        each(state.forwards[usize::from(operation) - 1]).any(|epoch| {
            let owner = protocol.working_owner(state, epoch);
            owner.is_some_and(|owner| has(state.node(owner).results, operation))
        })
    })
}

fn has_joined(protocol: &Protocol, state: &State) -> bool {
    state.alive().any(|node| !has(protocol.bounds.members, node) && protocol.may_read(state, node))
}
