//! How the node stands among the others, as `stats replication` tells it.

use std::collections::BTreeMap;

use crate::exposition::{Exposition, seconds};
use crate::node::report::{Peer, STATES, Standing};
use crate::replication::{CAUSES, Features};
use crate::time::Now;

pub(super) fn write(standing: &Standing<'_>, now: Now, out: &mut Exposition) {
    place(standing, out);
    view(standing, now, out);
    commands(standing, out);
    waits(standing, out);
    sync(standing, out);
    strangers(&standing.refused, out);
    own_certificate(standing.own_not_after_s, out);
    let help = "Unix time at which the certificate ends that the peer has shown last.";
    let mut ends = out.gauge("sessiond_peer_certificate_not_after_timestamp_seconds", help);
    for (peer, not_after_s) in &standing.peers_not_after_s {
        ends.labelled(&[("peer", peer)], *not_after_s);
    }
    for peer in [up, far, behind, dialects] {
        peer(standing, out);
    }
}

/// Of a node that only votes.
pub(super) fn write_witness(
    name: &str,
    refused: &[(&'static str, u64)],
    not_after_s: Option<i64>,
    out: &mut Exposition,
) {
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("node", name)];
    out.gauge("sessiond_info", "Which node this is, and its version.").labelled(&labels, 1);
    out.gauge("sessiond_state", "1 for what the node is now.").labelled(&[("state", "witness")], 1);
    strangers(refused, out);
    own_certificate(not_after_s, out);
}

fn own_certificate(not_after_s: Option<i64>, out: &mut Exposition) {
    let help =
        "Unix time at which this node's certificate ends, or one between it and the authority.";
    let mut ends = out.gauge("sessiond_certificate_not_after_timestamp_seconds", help);
    if let Some(not_after_s) = not_after_s {
        ends.value(not_after_s);
    }
}

fn place(standing: &Standing<'_>, out: &mut Exposition) {
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("node", standing.name)];
    out.gauge("sessiond_info", "Which node this is, and its version.").labelled(&labels, 1);
    let mut states = out.gauge("sessiond_state", "1 for what the node is now.");
    for (state, _) in STATES {
        states.labelled(&[("state", state)], u8::from(state == standing.state));
    }
    out.gauge("sessiond_ready", "Whether clients should be sent here, as /readyz says.")
        .value(u8::from(standing.readiness().is_ok()));
    let left_s = standing.status.lease_left_ms.unwrap_or_default() as f64 / 1e3;
    out.gauge("sessiond_lease_seconds", "For so long it may answer reads itself; alone for years.")
        .value(left_s);
    out.counter("sessiond_fences_total", "Times that it could not prove reads any more.")
        .value(standing.status.fences);
}

fn view(standing: &Standing<'_>, now: Now, out: &mut Exposition) {
    let view = &standing.status.view;
    out.gauge("sessiond_epoch", "Number of the view.").value(view.epoch.0);
    out.gauge("sessiond_generation", "Number of the first view with this data.")
        .value(view.generation.0);
    out.gauge("sessiond_line", "Number of the log of views; a last survivor begins a new one.")
        .value(view.line.number);
    let mut nodes = out.gauge("sessiond_view_nodes", "Nodes of the view, by what they are.");
    nodes.labelled(&[("role", "member")], view.members.len());
    nodes.labelled(&[("role", "learner")], view.learners.len());
    nodes.labelled(&[("role", "absent")], view.absent.len());
    let holders = standing.status.peers.iter().filter(|peer| !peer.is_witness).count() + 1;
    out.gauge("sessiond_configured_nodes", "Nodes that should be members: --peers, no witness.")
        .value(holders);
    let mut changes = out.counter("sessiond_view_changes_total", "Views that began, by cause.");
    // Those that did not happen yet too: from nothing to 1 is no rise to Prometheus.
    let mut counts: BTreeMap<&str, u64> = CAUSES.into_iter().map(|cause| (cause, 0)).collect();
    counts.extend(standing.status.changes.iter().map(|(cause, &count)| (&**cause, count)));
    for (cause, count) in counts {
        changes.labelled(&[("cause", &cause.replace(' ', "_"))], count);
    }
    out.counter("sessiond_grant_waits_total", "Views that waited for promises to run out.")
        .value(standing.status.grant_waits);
    out.gauge("sessiond_cluster_time_seconds", "Unix time that the group agrees on.")
        .value(now.cluster.0 as f64 / 1e3);
}

fn commands(standing: &Standing<'_>, out: &mut Exposition) {
    let (backlog, totals) = (&standing.backlog, &standing.totals);
    out.gauge("sessiond_pending_keys", "Keys with a change that is not everywhere yet.")
        .value(backlog.pending);
    out.gauge("sessiond_waiting_commands", "Commands of clients that wait for other nodes.")
        .value(backlog.waiting);
    out.gauge("sessiond_held_commands", "Of these, the ones that nobody can be asked about.")
        .value(backlog.held);
    out.counter(
        "sessiond_commands_held_total",
        "Commands that found nobody to ask when they came.",
    )
    .value(backlog.ever_held);
    let mut relayed =
        out.counter("sessiond_relayed_commands_total", "Commands that other nodes had to decide.");
    relayed.labelled(&[("kind", "read")], backlog.relayed_reads);
    relayed.labelled(&[("kind", "write")], backlog.asked - backlog.relayed_reads);
    out.gauge("sessiond_early_bytes", "Kept of messages whose view is not there yet.")
        .value(backlog.early_bytes);
    out.counter(
        "sessiond_local_evictions_total",
        "Items of others dropped here for lack of memory.",
    )
    .value(backlog.local_evictions);
    out.counter(
        "sessiond_expired_commands_total",
        "Commands of other nodes that came too late to be carried out.",
    )
    .value(backlog.expired);
    out.counter("sessiond_write_timeouts_total", "Commands not confirmed within --write-timeout.")
        .value(totals.write_timeouts);
    out.counter("sessiond_hold_timeouts_total", "Commands not answered within --hold-timeout.")
        .value(totals.hold_timeouts);
}

fn waits(standing: &Standing<'_>, out: &mut Exposition) {
    let (commits, reads) = (&standing.totals.commit_waits, &standing.totals.read_waits);
    let help = "How long changes of this node's clients took to be everywhere.";
    out.histogram("sessiond_commit_wait_seconds", help, commits);
    out.gauge("sessiond_commit_wait_max_seconds", "The longest of these.")
        .value(seconds(commits.max_us));
    let help = "How long reads took that this node could not answer itself.";
    out.histogram("sessiond_read_wait_seconds", help, reads);
    out.gauge("sessiond_read_wait_max_seconds", "The longest of these.")
        .value(seconds(reads.max_us));
}

/// What filling nodes that join has come to, as one of them and as an owner.
fn sync(standing: &Standing<'_>, out: &mut Exposition) {
    let figures = &standing.sync;
    let help = "Times that what an owner holds was compared with what is here, as a learner.";
    out.counter("sessiond_sync_rounds_total", help).value(figures.rounds);
    let help = "Slots compared, and of these equal, as a learner; and sent, as an owner.";
    let mut slots = out.counter("sessiond_sync_slots_total", help);
    slots.labelled(&[("slots", "compared")], figures.slots_compared);
    slots.labelled(&[("slots", "equal")], figures.slots_equal);
    slots.labelled(&[("slots", "sent")], figures.slots_sent);
    let help = "Items sent as an owner; received, dropped, and dropped in doubt, as a learner.";
    let mut items = out.counter("sessiond_sync_items_total", help);
    items.labelled(&[("items", "sent")], figures.items_sent);
    items.labelled(&[("items", "received")], figures.items_received);
    items.labelled(&[("items", "dropped")], figures.items_dropped);
    items.labelled(&[("items", "unsure")], figures.items_unsure);
    let mut bytes = out.counter("sessiond_sync_bytes_total", "Keys and values of these items.");
    bytes.labelled(&[("direction", "sent")], figures.bytes_sent);
    bytes.labelled(&[("direction", "received")], figures.bytes_received);
}

fn strangers(refused: &[(&'static str, u64)], out: &mut Exposition) {
    let help = "Connections on the port for peers that were not let in, by reason.";
    let mut samples = out.counter("sessiond_peers_refused_total", help);
    for (why, count) in refused {
        samples.labelled(&[("reason", why)], count);
    }
}

fn up(standing: &Standing<'_>, out: &mut Exposition) {
    let mut samples = out.gauge("sessiond_peer_up", "Whether beats go both ways.");
    for peer in standing.data_peers() {
        samples.labelled(&[("peer", &peer.status.name)], u8::from(peer.status.is_up));
    }
    let mut samples = out.gauge("sessiond_peer_witness", "Whether the node only votes.");
    for peer in &standing.status.peers {
        samples.labelled(&[("peer", &peer.name)], u8::from(peer.is_witness));
    }
    let mut samples = out.gauge("sessiond_peer_epoch", "Number of the newest view it knows.");
    for peer in standing.data_peers() {
        samples.labelled(&[("peer", &peer.status.name)], peer.status.epoch.0);
    }
}

/// What of the protocol is spoken, with whom, and by all.
fn dialects<'a>(standing: &'a Standing<'_>, out: &mut Exposition) {
    let with = |peer: Peer<'a>| Some((&*peer.status.name, peer.status.protocol?));
    spoken(&standing.data_peers().filter_map(with).collect::<Vec<_>>(), out);
    let help = "Whether the group uses that part, as all in its view know it.";
    let mut samples = out.gauge("sessiond_feature_in_use", help);
    for (feature, name) in Features::NAMES {
        let is_used = standing.status.view.features.has(feature);
        samples.labelled(&[("feature", name)], u8::from(is_used));
    }
}

/// By peer, the version that is spoken with it, and what it knows beyond that.
pub(super) fn spoken(peers: &[(&str, (u16, Features))], out: &mut Exposition) {
    let help = "Version of the peer protocol that this node and it speak.";
    let mut samples = out.gauge("sessiond_peer_protocol", help);
    for (peer, (version, _)) in peers {
        samples.labelled(&[("peer", peer)], version);
    }
    let help = "Whether it knows that part of the peer protocol.";
    let mut samples = out.gauge("sessiond_peer_feature", help);
    for (peer, (_, its)) in peers {
        for (feature, name) in Features::NAMES {
            samples.labelled(&[("peer", peer), ("feature", name)], u8::from(its.has(feature)));
        }
    }
}

fn far(standing: &Standing<'_>, out: &mut Exposition) {
    let help = "Time of a beat there and back, in whole milliseconds.";
    let mut samples = out.gauge("sessiond_peer_round_trip_seconds", help);
    for peer in standing.data_peers() {
        if let Some(rtt_ms) = peer.status.rtt_ms {
            samples.labelled(&[("peer", &peer.status.name)], rtt_ms as f64 / 1e3);
        }
    }
    let help = "Lanes, of 16, that this node has filled of a learner.";
    let mut samples = out.gauge("sessiond_learner_lanes_filled", help);
    for peer in standing.data_peers() {
        if let Some(lanes) = peer.status.lanes_filled {
            samples.labelled(&[("peer", &peer.status.name)], lanes);
        }
    }
}

fn behind(standing: &Standing<'_>, out: &mut Exposition) {
    let mut each = |name, help, figure: fn(&Peer<'_>) -> u64| {
        let mut samples = out.gauge(name, help);
        for peer in standing.data_peers() {
            samples.labelled(&[("peer", &peer.status.name)], figure(&peer));
        }
    };
    each("sessiond_peer_lag_records", "Changes that it has not acknowledged.", |peer| peer.lag);
    each("sessiond_peer_lag_messages", "Messages that it is not known to have.", |peer| {
        peer.queue.messages as u64
    });
    each("sessiond_peer_lag_bytes", "The memory that these keep here.", |peer| {
        peer.queue.bytes as u64
    });
    each("sessiond_peer_window_bytes", "So much may be kept; beyond it all is lost.", |peer| {
        peer.queue.bytes_max as u64
    });
}
