//! The nodes of the group: those of the newest view, or of the command line before there is one;
//! and how an operator changes them.

use super::*;
use crate::replication::nodes::{self, NodesChange};

/// A change that is not agreed on by then is given up.
const CHANGE_MAX_MS: u64 = 10_000;

/// A change that an operator has asked this node for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// It counts for these nodes only.
    before: Nodes,
    after: Nodes,
    cause: &'static str,
    since: Millis,
}

impl<W> Group<W> {
    /// All nodes of the group.
    pub fn nodes(&self) -> &Nodes {
        if self.view.nodes.is_empty() { &self.options.nodes } else { &self.view.nodes }
    }

    /// Whether an operator has removed this node.
    pub(super) fn is_removed(&self) -> bool {
        !self.view.nodes.is_empty() && !self.view.has_node(&self.options.me.name)
    }

    /// An operator wants other nodes; `voters` are those whom the log counts at present, none where
    /// that is not known here, and `is_up` tells which nodes can be reached. Returns those that
    /// there will be once a view says so; or why not.
    pub fn change_nodes(
        &mut self,
        change: &NodesChange,
        voters: &[Box<str>],
        is_up: impl Fn(&str) -> bool,
        now: Now,
    ) -> Result<Nodes, String> {
        let me = &*self.options.me.name;
        if self.is_changing_nodes() {
            return Err("another change is under way".into());
        }
        if !self.is_member() {
            return Err("this node is no member at present: ask one that is".into());
        }
        let after = change.of(&self.view.nodes)?;
        let is_up = |name: &str| name == me || is_up(name);
        // A node that was not there when the log began anew has no vote, whatever the view says.
        let mut voters: Vec<&str> = match voters {
            [] => nodes::voters(&self.view.nodes).map(|name| &**name).collect(),
            counted => counted.iter().map(|name| &**name).collect(),
        };
        if !nodes::has_majority(&voters, is_up) {
            return Err(self.no_majority(&voters, now));
        }
        // Whoever comes has no vote before it is there.
        voters.retain(|name| after.get(*name).is_some_and(|place| place.votes));
        if !nodes::has_majority(&voters, is_up) {
            return Err(
                "those that stay would be without a majority: too few of them can be reached"
                    .into(),
            );
        }
        let stays = |member: &Member| after.contains_key(&member.name);
        if !self.view.members.iter().any(stays) {
            return Err("no node that has the data would be left".into());
        }
        if let NodesChange::Replace(old, new, _) = change
            && old == new
            && (old.as_ref() == me || is_up(old))
        {
            return Err(format!("{old} is alive: stop it first, or replace it by another name"));
        }
        let (before, cause) = (self.view.nodes.clone(), change.cause());
        self.wanted = Some(Wanted { before, after: after.clone(), cause, since: now.local });
        Ok(after)
    }

    fn no_majority(&self, voters: &[&str], now: Now) -> String {
        let names = voters.join(",");
        let why = format!("no majority of those that vote ({names}) can be reached from here");
        match self.living_member(now) {
            Some(_) => why,
            None => format!(
                "{why}: if the others are gone for good, sessiond ctl force-solo lets this node go \
                 on without their votes"
            ),
        }
    }

    /// Whether a change that was asked for here is neither agreed on nor given up.
    pub fn is_changing_nodes(&self) -> bool {
        self.wanted.is_some()
    }

    /// What has come about, or never will, is not wanted any more.
    pub(super) fn drop_wanted(&mut self, now: Now) {
        let view = &self.view;
        self.wanted.take_if(|wanted| {
            wanted.before != view.nodes || now.local.since(wanted.since) >= CHANGE_MAX_MS
        });
    }

    /// The view with which the nodes become what an operator wants.
    pub(super) fn with_nodes_wanted(&self) -> Option<View> {
        let Wanted { after, cause, .. } = self.wanted.as_ref()?;
        let mut next = self.view.successor(true, cause);
        next.nodes = after.clone();
        let is_gone = |member: &mut Member| !after.contains_key(&member.name);
        let gone = next.members.extract_if(.., is_gone);
        let gone: Vec<Member> = gone.chain(next.learners.extract_if(.., is_gone)).collect();
        let (dead, missing): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|member| self.peers.is_dead(member.incarnation));
        next.dead.extend(dead.iter().map(|member| member.incarnation));
        next.absent.extend(missing);
        (next.keeps_half_of(&self.view) && !next.members.is_empty()).then_some(next)
    }
}
