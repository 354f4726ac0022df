//! What operators say to a running node, and what it does.

use std::net::SocketAddr;

use tokio::time::{Duration, sleep};

use super::control::Control;
use super::net::Net;
use super::takeover;
use crate::membership::Status;
use crate::replication::{Nodes, NodesChange, names};
use crate::time::Now;

/// How often it is looked whether what an operator wants has come about.
const LOOK: Duration = Duration::from_millis(20);
/// A vote is taken away by then, if it can be.
const VOTE_MAX_MS: u64 = 10_000;

impl<N: Net> Control<N> {
    /// One line of an operator; returns what to answer, or why not.
    pub(super) async fn obey(&self, line: &str) -> Result<String, String> {
        let now = self.links.now(&self.node);
        match line {
            "status" => Ok(self.status(now)),
            "force-solo" if self.is_witness => Err("a witness has nothing to go on with".into()),
            "force-solo" => {
                let wait_ms = self.node.force_solo(now)?;
                tracing::warn!(wait_ms, "force-solo: an operator says that all others are dead");
                Ok(format!("this node goes on alone in {wait_ms} ms\n"))
            }
            "restart" | "upgrade" | takeover::ORDER if !self.is_witness && self.node.is_last(now) => Err(
                "no other node has the items, and all would be lost; to stop all the same, use \
                 SIGTERM"
                    .into(),
            ),
            "restart" => self.orders.restart(),
            "upgrade" => self.orders.upgrade(),
            takeover::ORDER => self.orders.may_give_way(),
            other => match change(other) {
                Some(change) => self.change_nodes(&change?).await,
                None => Err(format!("{other:?} is not known to this version")),
            },
        }
    }

    async fn change_nodes(&self, change: &NodesChange) -> Result<String, String> {
        if self.is_witness {
            return Err("a witness can't change the nodes: ask a node that has data".into());
        }
        let before = self.node.view().nodes;
        if !self.is_agreed_by_log(&before) {
            return Err("the votes of the last change are still being changed".into());
        }
        if self.peers.keeps_to_loopback
            && let NodesChange::Add(_, address) | NodesChange::Replace(_, _, address) = change
            && !address.ip().is_loopback()
        {
            return Err(format!(
                "{address}: peer links are not encrypted: give an address on 127.0.0.0/8, or \
                 start all nodes with --peer-cert, or with --peer-plain and --peer-secret-file"
            ));
        }
        let is_up = |name: &str| self.links.find(name).is_some_and(|peer| self.is_up(peer));
        let after = self.node.change_nodes(change, is_up, self.links.now(&self.node))?;
        tracing::info!(?change, "an operator changes the nodes of the group");
        while self.node.view().nodes != after {
            if !self.node.is_changing_nodes() {
                let nodes = names(&self.node.view().nodes);
                return Err(format!("not agreed on; the nodes of the group are {nodes}"));
            }
            sleep(LOOK).await;
        }
        Ok(self.outcome(change, &after).await)
    }

    /// Whether nobody votes who should not, as far as known here.
    fn is_agreed_by_log(&self, nodes: &Nodes) -> bool {
        let log = self.log.status();
        let votes = |name: &str| nodes.get(name).is_some_and(|place| place.votes);
        !log.is_changing && log.voters.iter().all(|name| votes(name))
    }

    async fn outcome(&self, change: &NodesChange, after: &Nodes) -> String {
        let nodes = names(after);
        let came = |name: &str| {
            format!(
                "{name} is a node of the group: it joins when it is started with --node-name \
                 {name} and --peers that name {nodes}\n"
            )
        };
        let Some(gone) = change.gone() else {
            let (NodesChange::Add(name, _) | NodesChange::Replace(_, name, _)) = change else {
                return String::new();
            };
            return came(name);
        };
        let since = self.links.local();
        let am_gone = *gone == *self.node.options().me.name;
        while !am_gone
            && !self.is_agreed_by_log(after)
            && self.links.local().since(since) < VOTE_MAX_MS
        {
            sleep(LOOK).await;
        }
        let mut told = format!("{gone} is no node of the group any more: {nodes}\n");
        if !am_gone && !self.is_agreed_by_log(after) {
            told.push_str("its vote is still being taken away: see sessiond ctl status\n");
        }
        if let NodesChange::Replace(_, name, _) = change {
            told += &came(name);
        }
        told
    }

    pub(super) fn status(&self, now: Now) -> String {
        let mut stats = Vec::new();
        if self.is_witness {
            self.node.report_witness(&self.links.dialects(), &mut stats);
        } else {
            self.node.report_replication(now, &mut stats);
        }
        let text = String::from_utf8_lossy(&stats).replace("STAT ", "").replace('\r', "");
        let log = self.log.status();
        let lines = [
            ("role", format!("{:?}", log.role).to_lowercase()),
            ("leader", log.leader.as_deref().unwrap_or("-").to_owned()),
            ("voters", log.voters.join(",")),
            ("changing", u8::from(log.is_changing).to_string()),
            ("generation", log.founding.map_or(0, |founding| founding.number).to_string()),
            ("term", log.term.to_string()),
            ("seated", u8::from(log.is_seated).to_string()),
        ];
        let lines = lines.map(|(name, value)| format!("log_{name} {value}\n"));
        text + &self.process_lines()
            + &lines.concat()
            + &format!("whole {}\n", self.whole(now, &log))
    }

    /// Which process this is, for whoever waits for the next one.
    fn process_lines(&self) -> String {
        let upgrade = if self.orders.has_upgrade_failed() { "upgrade failed\n" } else { "" };
        let (pid, life) = (std::process::id(), self.node.options().me.incarnation.0);
        format!("pid {pid}\nlife {life:016x}\n{upgrade}")
    }

    /// `yes` when everybody is in and votes, as far as known here: then one of them may go.
    fn whole(&self, now: Now, log: &Status) -> &'static str {
        let status = self.node.group_status(now);
        let nodes = &status.view.nodes;
        let am_voter = nodes.get(&self.node.options().me.name).is_some_and(|place| place.votes);
        let wanted = nodes.iter().filter(|(_, place)| place.votes).map(|(name, _)| name);
        let are_all = self.is_witness || log.voters.iter().eq(wanted);
        let is_agreed = log.is_seated && !log.is_changing && log.leader.is_some() && are_all;
        // Who only votes is in no view, and knows of none.
        let data = nodes.len() - status.peers.iter().filter(|peer| peer.is_witness).count();
        let is_in = self.node.is_serving() && status.lease_left_ms.is_some();
        let all_in = self.is_witness || is_in && status.view.members.len() == data;
        if all_in && (is_agreed || !am_voter && !self.is_witness) { "yes" } else { "no" }
    }
}

/// What changes the nodes; its words are parted by tabs, so that names may have anything else in
/// them. `None`: that is no such line.
fn change(line: &str) -> Option<Result<NodesChange, String>> {
    let words: Vec<&str> = line.split('\t').collect();
    let address = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is no address with a port"))
    };
    match words[..] {
        ["add-node", name, at] => Some(address(at).map(|at| NodesChange::Add(name.into(), at))),
        ["remove-node", name] => Some(Ok(NodesChange::Remove(name.into()))),
        ["replace-node", old, name, at] => {
            Some(address(at).map(|at| NodesChange::Replace(old.into(), name.into(), at)))
        }
        _ => None,
    }
}
