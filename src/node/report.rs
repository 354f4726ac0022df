//! `stats`: what the node has counted, under memcached's names.

use super::Node;
use crate::protocol::reply;
use crate::replication::{Member, View};
use crate::stats::Totals;
use crate::store::Counts;
use crate::time::Now;

/// Answers `stats` and its sub-commands. Whatever is no sub-command is an error, as in memcached.
pub(super) fn stats<W>(node: &Node<W>, argument: &[u8], now: Now, out: &mut Vec<u8>) {
    match argument {
        b"" => general(node, now, out),
        b"replication" => replication(node, now, out),
        b"reset" => {
            node.counters.iter().for_each(|counters| counters.reset());
            return out.extend_from_slice(reply::RESET);
        }
        _ => return out.extend_from_slice(reply::ERROR),
    }
    out.extend_from_slice(reply::END);
}

fn general<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let mut totals = Totals::default();
    node.counters.iter().for_each(|counters| totals.add(counters));
    let held = held(node);
    let uptime_s = now.local.since(node.started.local) / 1000;
    let options = &node.options;
    let connections = node.gauges.connections.get();
    let lines: [(&str, u64); 41] = [
        ("pid", u64::from(std::process::id())),
        ("uptime", uptime_s),
        ("time", now.wall_s.max(0) as u64),
        ("pointer_size", u64::from(usize::BITS)),
        ("max_connections", options.connections_max as u64),
        ("curr_connections", connections),
        ("total_connections", totals.total_connections),
        ("rejected_connections", totals.rejected_connections),
        ("connection_structures", connections),
        ("cmd_get", totals.cmd_get),
        ("cmd_set", totals.cmd_set),
        ("cmd_flush", totals.cmd_flush),
        ("cmd_touch", totals.cmd_touch),
        ("get_hits", totals.get_hits),
        ("get_misses", totals.get_misses),
        ("delete_misses", totals.delete_misses),
        ("delete_hits", totals.delete_hits),
        ("incr_misses", totals.incr_misses),
        ("incr_hits", totals.incr_hits),
        ("decr_misses", totals.decr_misses),
        ("decr_hits", totals.decr_hits),
        ("cas_misses", totals.cas_misses),
        ("cas_hits", totals.cas_hits),
        ("cas_badval", totals.cas_badval),
        ("touch_hits", totals.touch_hits),
        ("touch_misses", totals.touch_misses),
        ("store_too_large", totals.store_too_large),
        ("store_no_memory", totals.store_no_memory),
        ("bytes_read", totals.bytes_read),
        ("bytes_written", totals.bytes_written),
        ("limit_maxbytes", node.budget.limit() as u64),
        ("threads", options.workers as u64),
        ("conn_yields", totals.conn_yields),
        ("bytes", held.bytes),
        ("curr_items", held.items),
        ("total_items", held.total_items),
        ("evictions", held.evictions),
        ("evicted_unfetched", held.evicted_unfetched),
        ("reclaimed", held.reclaimed),
        ("expired_unfetched", held.expired_unfetched),
        ("total_malloced", node.budget.used() as u64),
    ];
    for (name, value) in lines {
        reply::stat(out, name, value);
        if name == "time" {
            reply::stat(out, "version", reply::VERSION);
        }
    }
}

fn held<W>(node: &Node<W>) -> Counts {
    let mut sum = Counts::default();
    for shard in &node.shards {
        let counts = shard.lock().counts();
        sum.items += counts.items;
        sum.bytes += counts.bytes;
        sum.total_items += counts.total_items;
        sum.evictions += counts.evictions;
        sum.evicted_unfetched += counts.evicted_unfetched;
        sum.reclaimed += counts.reclaimed;
        sum.expired_unfetched += counts.expired_unfetched;
    }
    sum
}

fn replication<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let View { epoch, generation, members, learners, .. } = node.view();
    let names = |list: &[Member]| {
        let names: Vec<&str> = list.iter().map(|member| &*member.name).collect();
        names.join(",")
    };
    reply::stat(out, "sessiond_version", env!("CARGO_PKG_VERSION"));
    reply::stat(out, "node_name", &node.options.me.name);
    reply::stat(out, "state", if node.is_serving() { "member" } else { "joining" });
    reply::stat(out, "epoch", epoch.0);
    reply::stat(out, "generation", generation.0);
    reply::stat(out, "members", names(&members));
    reply::stat(out, "learners", names(&learners));
    reply::stat(out, "cluster_time_ms", now.cluster.0);
}
