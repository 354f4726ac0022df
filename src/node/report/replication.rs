//! `stats replication`: who is in, and how this node stands among the others.

use crate::node::Node;
use crate::protocol::reply;
use crate::replication::{Backlog, GroupStatus, Member};
use crate::stats::Refusal;
use crate::time::Now;

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let status = node.group_status(now);
    let view = &status.view;
    reply::stat(out, "sessiond_version", env!("CARGO_PKG_VERSION"));
    reply::stat(out, "node_name", &node.options.me.name);
    reply::stat(out, "state", state(node, &status));
    reply::stat(out, "epoch", view.epoch.0);
    reply::stat(out, "generation", view.generation.0);
    reply::stat(out, "line", view.line.number);
    reply::stat(out, "members", names(&view.members));
    reply::stat(out, "learners", names(&view.learners));
    reply::stat(out, "absent", names(&view.absent));
    reply::stat(out, "lease_left_ms", status.lease_left_ms.unwrap_or_default());
    reply::stat(out, "cluster_time_ms", now.cluster.0);
    let backlog = backlog(node);
    reply::stat(out, "pending_keys", backlog.pending);
    reply::stat(out, "waiting_commands", backlog.waiting);
    reply::stat(out, "asked_others", backlog.asked);
    reply::stat(out, "relayed_reads", backlog.relayed_reads);
    reply::stat(out, "grant_waits", status.grant_waits);
    reply::stat(out, "view_changes", status.changes.values().sum::<u64>());
    for (cause, count) in &status.changes {
        reply::stat(out, &format!("view_changes:{}", cause.replace(' ', "_")), count);
    }
    for why in Refusal::ALL {
        let count = node.refusals().of(why).get();
        reply::stat(out, &format!("peers_refused:{}", why.name()), count);
    }
    for peer in &status.peers {
        let name = &peer.name;
        if peer.is_witness {
            reply::stat(out, &format!("peer:{name}:witness"), 1);
            continue;
        }
        reply::stat(out, &format!("peer:{name}:up"), u8::from(peer.is_up));
        if let Some(rtt_ms) = peer.rtt_ms {
            reply::stat(out, &format!("peer:{name}:rtt_ms"), rtt_ms);
        }
        reply::stat(out, &format!("peer:{name}:epoch"), peer.epoch.0);
    }
}

/// `member`: answers for itself. `fenced`: can't prove that it is current, and asks the others.
/// `isolated`: the same, but answers reads from its own copy, as `--isolated-reads stale` allows.
/// `joining`: is being filled, and asks the others. `waiting`: is in no view.
fn state<W>(node: &Node<W>, status: &GroupStatus) -> &'static str {
    let me = node.options.me.incarnation;
    match () {
        () if node.is_serving() && status.lease_left_ms.is_some() => "member",
        () if status.is_isolated => "isolated",
        () if status.view.has_member(me) => "fenced",
        () if status.view.has_learner(me) => "joining",
        () => "waiting",
    }
}

fn names(list: &[Member]) -> String {
    list.iter().map(|member| &*member.name).collect::<Vec<_>>().join(",")
}

fn backlog<W>(node: &Node<W>) -> Backlog {
    let mut sum = Backlog::default();
    for shard in &node.shards {
        let one = shard.lock().backlog();
        sum.pending += one.pending;
        sum.waiting += one.waiting;
        sum.asked += one.asked;
        sum.relayed_reads += one.relayed_reads;
    }
    sum
}
