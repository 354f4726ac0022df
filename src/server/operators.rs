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
                let is_led = self.log.status().leader.is_some();
                let wait_ms = self.node.force_solo(is_led, now)?;
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
        let log = self.log.status();
        if !is_agreed_by_log(&log, &before) {
            let why = "the vote of a node that was removed is still being taken away";
            return Err(format!("{why}{}", what_if_gone(&log)));
        }
        // It would not be told when its vote is not needed any more.
        if change.gone() == Some(self.me()) && before.len() > 1 {
            return Err(format!("ask another node than {} itself for that", self.me()));
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
        let now = self.links.now(&self.node);
        let after = self.node.change_nodes(change, &log.voters, is_up, now)?;
        tracing::info!(?change, "an operator changes the nodes of the group");
        while self.node.view().nodes != after {
            if !self.node.is_changing_nodes() {
                let nodes = names(&self.node.view().nodes);
                return Err(format!("not agreed on; the nodes of the group are {nodes}"));
            }
            sleep(LOOK).await;
        }
        self.outcome(change, &after).await
    }

    /// What has come about; or, though the nodes are changed, what is not done yet.
    async fn outcome(&self, change: &NodesChange, after: &Nodes) -> Result<String, String> {
        let nodes = names(after);
        let came = |name: &str| {
            format!(
                "{name} is a node of the group: it joins when it is started with --node-name \
                 {name} and --peers that name {nodes}\n"
            )
        };
        let Some(gone) = change.gone() else {
            let (NodesChange::Add(name, _) | NodesChange::Replace(_, name, _)) = change else {
                return Ok(String::new());
            };
            return Ok(came(name));
        };
        let since = self.links.local();
        while !is_agreed_by_log(&self.log.status(), after) {
            if self.links.local().since(since) >= VOTE_MAX_MS {
                let log = self.log.status();
                return Err(format!(
                    "{gone} is no node of the group any more ({nodes}), but its vote still counts: \
                     if it lives, leave it running until log_voters of sessiond ctl status are \
                     without it{}",
                    what_if_gone(&log)
                ));
            }
            sleep(LOOK).await;
        }
        let mut told = format!("{gone} is no node of the group any more: {nodes}\n");
        if let NodesChange::Replace(_, name, _) = change {
            told += &came(name);
        }
        Ok(told)
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

/// Whether nobody votes who should not, as far as known here.
fn is_agreed_by_log(log: &Status, nodes: &Nodes) -> bool {
    let votes = |name: &str| nodes.get(name).is_some_and(|place| place.votes);
    !log.is_changing && log.voters.iter().all(|name| votes(name))
}

/// What an operator can do who has stopped a node before its vote was taken away.
fn what_if_gone(log: &Status) -> &'static str {
    match log.leader {
        Some(_) => "",
        None => {
            "; if it has ended and nobody leads any more, sessiond ctl force-solo lets a node that \
             has the data go on without it"
        }
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
