//! The nodes of a group as operators configure them, and which change of them is allowed.
//!
//! The set is part of the view: one chain orders who is configured and who is in, and whoever
//! learns of a view learns of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::view::{Line, View};
use crate::version::Epoch;

/// At most this many nodes hold full copies of each other.
pub const NODES_MAX: usize = 7;
/// Names go into the first message between nodes, which is short.
pub const NAME_MAX: usize = 64;

/// Where a node is, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// Whether it votes on views.
    pub votes: bool,
    /// An operator has given the address to the group: that of a node's own command line counts no
    /// more. Otherwise each node may know another way.
    pub is_given: bool,
}

/// All nodes of a group, by name.
pub type Nodes = BTreeMap<Box<str>, Place>;

/// The nodes of a group, and of when that is: what is of a later view is right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The line and the epoch of the view; 0 while it is only what the command line says.
    pub as_of: (Line, Epoch),
    /// The nodes.
    pub nodes: Nodes,
}

impl Roster {
    /// Whether a group has agreed on it.
    pub fn is_agreed(&self) -> bool {
        self.as_of != <(Line, Epoch)>::default()
    }

    /// Those that vote.
    pub fn voters(&self) -> Vec<Box<str>> {
        voters(&self.nodes).cloned().collect()
    }

    /// Whether the nodes, and those that vote, are called the same, wherever they are.
    pub fn names_same(&self, other: &Self) -> bool {
        let what = |nodes: &Nodes| -> Vec<(Box<str>, bool)> {
            nodes.iter().map(|(name, place)| (name.clone(), place.votes)).collect()
        };
        what(&self.nodes) == what(&other.nodes)
    }
}

impl From<&View> for Roster {
    fn from(view: &View) -> Self {
        Self { as_of: (view.line, view.epoch), nodes: view.nodes.clone() }
    }
}

/// Their names, for people.
pub fn names(nodes: &Nodes) -> String {
    nodes.keys().map(|name| &**name).collect::<Vec<_>>().join(",")
}

/// What an operator wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodesChange {
    /// One more.
    Add(Box<str>, SocketAddr),
    /// One less.
    Remove(Box<str>),
    /// One for another; or, under the same name, at another address.
    Replace(Box<str>, Box<str>, SocketAddr),
}

impl NodesChange {
    /// Why there is a new view, for people.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Add(..) => "add-node",
            Self::Remove(..) => "remove-node",
            Self::Replace(..) => "replace-node",
        }
    }

    /// The name that is of no node any more, if there is one.
    pub fn gone(&self) -> Option<&str> {
        match self {
            Self::Add(..) => None,
            Self::Remove(name) => Some(name),
            Self::Replace(old, new, _) => (old != new).then_some(old),
        }
    }

    /// The nodes after it; or why it can't be.
    pub(super) fn of(&self, present: &Nodes) -> Result<Nodes, String> {
        let mut nodes = present.clone();
        match self {
            Self::Add(name, address) => {
                let votes = present.values().all(|place| place.votes);
                insert(&mut nodes, name, Place { address: *address, votes, is_given: true })?;
            }
            Self::Remove(name) => {
                take(&mut nodes, name)?;
                if nodes.is_empty() {
                    return Err(format!("{name} is the last node of the group"));
                }
            }
            Self::Replace(old, new, address) => {
                let Place { votes, .. } = take(&mut nodes, old)?;
                insert(&mut nodes, new, Place { address: *address, votes, is_given: true })?;
            }
        }
        if voters(&nodes).next().is_none() {
            return Err("only the tie-breaker votes: it can be replaced, not removed".into());
        }
        Ok(nodes)
    }
}

fn take(nodes: &mut Nodes, name: &str) -> Result<Place, String> {
    let known = names(nodes);
    nodes.remove(name).ok_or_else(|| format!("no node is called {name:?}: there are {known}"))
}

fn insert(nodes: &mut Nodes, name: &str, place: Place) -> Result<(), String> {
    if !(1..=NAME_MAX).contains(&name.len()) {
        return Err(format!("{name:?}: a name has 1 to {NAME_MAX} bytes"));
    }
    if nodes.contains_key(name) {
        return Err(format!("a node is called {name:?} already"));
    }
    if let Some((other, _)) = nodes.iter().find(|(_, other)| other.address == place.address) {
        return Err(format!("{} is the address of {other:?}", place.address));
    }
    if nodes.len() >= NODES_MAX {
        return Err(format!("a group has at most {NODES_MAX} nodes"));
    }
    nodes.insert(name.into(), place);
    Ok(())
}

pub(super) fn voters(nodes: &Nodes) -> impl Iterator<Item = &Box<str>> {
    nodes.iter().filter(|(_, place)| place.votes).map(|(name, _)| name)
}

/// Whether those that are up are a majority of these voters.
pub(super) fn has_majority(voters: &[&str], is_up: impl Fn(&str) -> bool) -> bool {
    2 * voters.iter().filter(|name| is_up(name)).count() > voters.len()
}

/// Whether at most one node differs: one more, one less, or one for another.
pub(super) fn is_one_step(from: &Nodes, to: &Nodes) -> bool {
    let lacking = |of: &Nodes, other: &Nodes| {
        of.iter().filter(|(name, place)| other.get(*name) != Some(place)).count()
    };
    lacking(from, to) <= 1 && lacking(to, from) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn place(port: u16) -> Place {
        Place { address: address(port), votes: true, is_given: false }
    }

    fn nodes(names: &str) -> Nodes {
        let names = names.split_whitespace().zip(1..);
        names.map(|(name, port)| (name.into(), place(port))).collect()
    }

    fn add(name: &str, port: u16) -> NodesChange {
        NodesChange::Add(name.into(), address(port))
    }

    fn remove(name: &str) -> NodesChange {
        NodesChange::Remove(name.into())
    }

    fn replace(old: &str, new: &str, port: u16) -> NodesChange {
        NodesChange::Replace(old.into(), new.into(), address(port))
    }

    #[test]
    fn one_more_one_less_and_one_for_another_are_one_step() {
        let three = nodes("a b c");
        for change in [add("d", 9), remove("b"), replace("b", "d", 9), replace("b", "b", 9)] {
            let next = change.of(&three).unwrap();
            assert!(is_one_step(&three, &next), "{change:?}");
        }
        assert!(is_one_step(&three, &three));
        assert!(!is_one_step(&three, &nodes("a")), "two less");
        assert!(!is_one_step(&three, &nodes("a b c d e")), "two more");
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_reason() {
        let three = nodes("a b c");
        let why = |change: NodesChange, nodes: &Nodes| change.of(nodes).unwrap_err();
        assert!(why(add("b", 9), &three).contains("already"));
        assert!(why(add("d", 2), &three).contains("the address of \"b\""));
        assert!(why(add("", 9), &three).contains("1 to 64 bytes"));
        assert!(why(remove("x"), &three).contains("there are a,b,c"));
        assert!(why(replace("a", "b", 9), &three).contains("already"));
        assert!(why(remove("a"), &nodes("a")).contains("last"));
        assert!(why(add("h", 9), &nodes("a b c d e f g")).contains("at most 7"));
    }

    #[test]
    fn beside_a_tie_breaker_nobody_else_votes() {
        let mut two = nodes("a b");
        two.insert("b".into(), Place { votes: false, ..place(2) });
        let three = add("c", 9).of(&two).unwrap();
        assert!(!three["c"].votes);
        assert!(remove("a").of(&two).unwrap_err().contains("tie-breaker"));
        assert!(replace("a", "c", 9).of(&two).unwrap()["c"].votes);
    }

    #[test]
    fn a_majority_is_one_of_those_that_vote() {
        let mut nodes = nodes("a b c d");
        let are_most = |nodes: &Nodes, up: &str| {
            let voters: Vec<&str> = voters(nodes).map(|name| &**name).collect();
            has_majority(&voters, |name| up.contains(name))
        };
        assert!(!are_most(&nodes, "a b"));
        nodes.insert("d".into(), Place { votes: false, ..place(4) });
        assert!(are_most(&nodes, "a b"));
        assert!(!are_most(&Nodes::new(), "a b"));
    }
}
