//! `stats replication`: who is in, and how this node stands among the others.

use std::collections::BTreeMap;

use crate::node::Node;
use crate::protocol::reply;
use crate::replication::link::Load;
use crate::replication::{
    Backlog, Dialect, Features, GroupStatus, Incarnation, Member, Nodes, PeerStatus, SyncFigures,
};
use crate::stats::{Refusal, Totals, WaitTotals};
use crate::time::Now;

/// What a node can be, and why clients should not be sent there then.
pub(in crate::node) const STATES: [(&str, &str); 6] = [
    (MEMBER, ""),
    ("fenced", "cannot prove that it is current"),
    ("isolated", "reaches no other node, and its copy may be old"),
    ("joining", "is being filled by the others"),
    ("removed", "an operator has removed it from its group"),
    ("waiting", "is in no view of its group"),
];
/// It answers for itself. In all other states it asks the others, but for an isolated one, which
/// answers reads from its own copy, as `--isolated-reads stale` allows.
const MEMBER: &str = "member";

/// Everything about a node among the others, at one moment.
pub(in crate::node) struct Standing<'a> {
    pub(in crate::node) name: &'a str,
    pub(in crate::node) state: &'static str,
    pub(in crate::node) status: GroupStatus,
    pub(in crate::node) backlog: Backlog,
    pub(in crate::node) totals: Totals,
    /// Strangers on the port for peers, by reason.
    pub(in crate::node) refused: Vec<(&'static str, u64)>,
    /// When this node's certificate ends, as a Unix time.
    pub(in crate::node) own_not_after_s: Option<i64>,
    /// When those end that peers have shown; a witness's too.
    pub(in crate::node) peers_not_after_s: Vec<(Box<str>, i64)>,
    /// What filling others, or being filled, has come to.
    pub(in crate::node) sync: SyncFigures,
    /// What each has not acknowledged of this node's changes.
    lags: BTreeMap<Incarnation, u64>,
    queues: BTreeMap<Incarnation, Load>,
}

/// A peer that holds data.
pub(in crate::node) struct Peer<'a> {
    pub(in crate::node) status: &'a PeerStatus,
    /// Records that it has not acknowledged.
    pub(in crate::node) lag: u64,
    pub(in crate::node) queue: Load,
}

impl<'a> Standing<'a> {
    pub(in crate::node) fn of<W>(node: &'a Node<W>, now: Now) -> Self {
        let status = node.group_status(now);
        let (mut backlog, mut lags) = (Backlog::default(), BTreeMap::new());
        for shard in &node.shards {
            let shard = shard.lock();
            backlog.add(&shard.backlog());
            for (receiver, lag) in shard.lags() {
                *lags.entry(receiver).or_default() += lag;
            }
        }
        let certificates = node.certificates.lock().clone();
        let mut shown: Vec<_> = certificates.peers.into_iter().collect();
        shown.retain(|(name, _)| status.peers.iter().any(|peer| peer.name == *name));
        Self {
            name: &node.options.me.name,
            state: state(node, &status),
            own_not_after_s: certificates.own,
            peers_not_after_s: shown,
            status,
            backlog,
            totals: super::totals(node),
            refused: refused(node),
            sync: node.sync_figures(),
            lags,
            queues: node.queues.lock().clone(),
        }
    }

    /// Whether clients should be sent here; or in one line why not.
    pub(in crate::node) fn readiness(&self) -> Result<(), String> {
        let why = STATES.iter().find(|(state, _)| *state == self.state).map(|(_, why)| *why);
        match why {
            Some("") => Ok(()),
            why => Err(format!("{}: {}", self.state, why.unwrap_or("it is no member"))),
        }
    }

    /// The other nodes, but for those that only vote.
    pub(in crate::node) fn data_peers(&self) -> impl Iterator<Item = Peer<'_>> {
        self.status.peers.iter().filter(|status| !status.is_witness).map(|status| {
            let lag = status.life.and_then(|life| self.lags.get(&life)).copied();
            let queue = status.life.and_then(|life| self.queues.get(&life)).copied();
            Peer { status, lag: lag.unwrap_or_default(), queue: queue.unwrap_or_default() }
        })
    }
}

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let standing = Standing::of(node, now);
    let status = &standing.status;
    let view = &status.view;
    reply::stat(out, "sessiond_version", env!("CARGO_PKG_VERSION"));
    reply::stat(out, "node_name", standing.name);
    reply::stat(out, "state", standing.state);
    reply::stat(out, "features", node.options.speaks.features);
    reply::stat(out, "features_in_use", view.features);
    reply::stat(out, "epoch", view.epoch.0);
    reply::stat(out, "generation", view.generation.0);
    reply::stat(out, "line", view.line.number);
    reply::stat(out, "nodes", places(&view.nodes));
    reply::stat(out, "members", names(&view.members));
    reply::stat(out, "learners", names(&view.learners));
    reply::stat(out, "absent", names(&view.absent));
    reply::stat(out, "lease_left_ms", status.lease_left_ms.unwrap_or_default());
    reply::stat(out, "fences", status.fences);
    reply::stat(out, "cluster_time_ms", now.cluster.0);
    commands(&standing, out);
    waits("commit_wait_us", &standing.totals.commit_waits, out);
    waits("read_wait_us", &standing.totals.read_waits, out);
    for (name, count) in standing.sync.named() {
        reply::stat(out, &format!("sync_{name}"), count);
    }
    reply::stat(out, "grant_waits", status.grant_waits);
    reply::stat(out, "view_changes", status.changes.values().sum::<u64>());
    for (cause, count) in &status.changes {
        reply::stat(out, &format!("view_changes:{}", cause.replace(' ', "_")), count);
    }
    refusals(&standing.refused, out);
    own_certificate(standing.own_not_after_s, out);
    for (name, not_after_s) in &standing.peers_not_after_s {
        reply::stat(out, &format!("peer:{name}:certificate_not_after_s"), not_after_s);
    }
    for witness in status.peers.iter().filter(|peer| peer.is_witness) {
        reply::stat(out, &format!("peer:{}:witness", witness.name), 1);
    }
    standing.data_peers().for_each(|peer| write_peer(&peer, out));
}

/// It is in no view, and has no data.
pub(super) fn write_witness<W>(
    node: &Node<W>,
    dialects: &BTreeMap<Box<str>, Dialect>,
    out: &mut Vec<u8>,
) {
    reply::stat(out, "sessiond_version", env!("CARGO_PKG_VERSION"));
    reply::stat(out, "node_name", &node.options.me.name);
    reply::stat(out, "state", "witness");
    reply::stat(out, "features", node.options.speaks.features);
    refusals(&refused(node), out);
    own_certificate(node.certificates.lock().own, out);
    for (name, spoken) in spoken(node, dialects) {
        dialect(name, spoken, out);
    }
}

/// By name, the version that this node and a peer speak, and what that one knows beyond it.
pub(in crate::node) fn spoken<'a, W>(
    node: &Node<W>,
    dialects: &'a BTreeMap<Box<str>, Dialect>,
) -> Vec<(&'a str, (u16, Features))> {
    let ours = node.options.speaks;
    let with = |its: &Dialect| Some((ours.version_with(its)?, its.features));
    dialects.iter().filter_map(|(name, its)| Some((&**name, with(its)?))).collect()
}

fn dialect(name: &str, (version, features): (u16, Features), out: &mut Vec<u8>) {
    reply::stat(out, &format!("peer:{name}:protocol"), version);
    reply::stat(out, &format!("peer:{name}:features"), features);
}

fn own_certificate(not_after_s: Option<i64>, out: &mut Vec<u8>) {
    if let Some(not_after_s) = not_after_s {
        reply::stat(out, "certificate_not_after_s", not_after_s);
    }
}

/// Strangers, by the reason.
pub(in crate::node) fn refused<W>(node: &Node<W>) -> Vec<(&'static str, u64)> {
    Refusal::ALL.map(|why| (why.name(), node.refusals().of(why).get())).to_vec()
}

fn refusals(refused: &[(&'static str, u64)], out: &mut Vec<u8>) {
    for (why, count) in refused {
        reply::stat(out, &format!("peers_refused:{why}"), count);
    }
}

fn commands(standing: &Standing<'_>, out: &mut Vec<u8>) {
    let (backlog, totals) = (&standing.backlog, &standing.totals);
    reply::stat(out, "pending_keys", backlog.pending);
    reply::stat(out, "waiting_commands", backlog.waiting);
    reply::stat(out, "held_commands", backlog.held);
    reply::stat(out, "ever_held", backlog.ever_held);
    reply::stat(out, "asked_others", backlog.asked);
    reply::stat(out, "relayed_reads", backlog.relayed_reads);
    reply::stat(out, "early_bytes", backlog.early_bytes);
    reply::stat(out, "local_evictions", backlog.local_evictions);
    reply::stat(out, "expired_commands", backlog.expired);
    reply::stat(out, "write_timeouts", totals.write_timeouts);
    reply::stat(out, "hold_timeouts", totals.hold_timeouts);
}

fn waits(name: &str, waits: &WaitTotals, out: &mut Vec<u8>) {
    reply::stat(out, &format!("{name}_count"), waits.count());
    reply::stat(out, &format!("{name}_p50"), waits.quantile_us(500));
    reply::stat(out, &format!("{name}_p99"), waits.quantile_us(990));
    reply::stat(out, &format!("{name}_max"), waits.max_us);
}

fn write_peer(Peer { status, lag, queue }: &Peer<'_>, out: &mut Vec<u8>) {
    let mut line = |what: &str, value: u64| {
        reply::stat(out, &format!("peer:{}:{what}", status.name), value);
    };
    line("up", u64::from(status.is_up));
    if let Some(rtt_ms) = status.rtt_ms {
        line("rtt_ms", rtt_ms);
    }
    line("epoch", u64::from(status.epoch.0));
    line("lag_records", *lag);
    line("lag_messages", queue.messages as u64);
    line("lag_bytes", queue.bytes as u64);
    line("window_bytes", queue.bytes_max as u64);
    if let Some(lanes) = status.lanes_filled {
        line("lanes_filled", u64::from(lanes));
    }
    if let Some(spoken) = status.protocol {
        dialect(&status.name, spoken, out);
    }
}

/// The name of one of `STATES`.
fn state<W>(node: &Node<W>, status: &GroupStatus) -> &'static str {
    let me = node.options.me.incarnation;
    match () {
        () if node.is_serving() && status.lease_left_ms.is_some() => MEMBER,
        () if status.is_isolated => "isolated",
        () if status.view.has_member(me) => "fenced",
        () if status.view.has_learner(me) => "joining",
        () if status.is_removed => "removed",
        () => "waiting",
    }
}

fn names(list: &[Member]) -> String {
    list.iter().map(|member| &*member.name).collect::<Vec<_>>().join(",")
}

fn places(nodes: &Nodes) -> String {
    let places = nodes.iter().map(|(name, place)| format!("{name}={}", place.address));
    places.collect::<Vec<_>>().join(",")
}
