//! General `stats`: memcached's names in memcached's order, as exporters expect them.
//!
//! What has no counterpart here is 0: internals of its hash table, locks and read buffers.

use std::sync::atomic::Ordering;

use super::Node;
use crate::protocol::reply;
use crate::stats::Totals;
use crate::store::Counts;
use crate::time::Now;

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let totals = super::totals(node);
    let held = super::held(node);
    process(node, now, out);
    connections(node, &totals, out);
    commands(node, &totals, &held, out);
    traffic(node, &totals, out);
    hash(node, out);
    movers(node, out);
    logs(node, out);
    items(node, &held, out);
}

fn lines(out: &mut Vec<u8>, lines: &[(&str, u64)]) {
    for (name, value) in lines {
        reply::stat(out, name, value);
    }
}

fn process<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    reply::stat(out, "pid", std::process::id());
    reply::stat(out, "uptime", now.local.since(node.started.local) / 1000);
    reply::stat(out, "time", now.wall_s);
    reply::stat(out, "version", reply::VERSION);
    // One word, as clients split the line at its spaces.
    reply::stat(out, "libevent", "none");
    reply::stat(out, "pointer_size", usize::BITS);
    reply::stat(out, "rusage_user", seconds(node.gauges.cpu_user_us.get()));
    reply::stat(out, "rusage_system", seconds(node.gauges.cpu_system_us.get()));
}

fn connections<W>(node: &Node<W>, totals: &Totals, out: &mut Vec<u8>) {
    let connections = node.gauges.connections.get();
    lines(
        out,
        &[
            ("max_connections", node.options.settings.connections_max as u64),
            ("curr_connections", connections),
            ("total_connections", totals.total_connections),
            ("rejected_connections", totals.rejected_connections),
            ("connection_structures", connections),
            ("response_obj_oom", 0),
            ("response_obj_count", 0),
            ("response_obj_bytes", 0),
            ("read_buf_count", 0),
            ("read_buf_bytes", 0),
            ("read_buf_bytes_free", 0),
            ("read_buf_oom", 0),
            ("reserved_fds", 0),
        ],
    );
}

fn commands<W>(node: &Node<W>, totals: &Totals, held: &Counts, out: &mut Vec<u8>) {
    lines(
        out,
        &[
            ("cmd_get", totals.cmd_get),
            ("cmd_set", totals.cmd_set),
            ("cmd_flush", totals.cmd_flush),
            ("cmd_touch", totals.cmd_touch),
            ("cmd_meta", totals.cmd_meta),
            ("get_hits", totals.get_hits),
            ("get_misses", totals.get_misses),
            ("get_expired", held.get_expired),
            ("get_flushed", held.get_flushed),
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
            ("auth_cmds", totals.auth_cmds),
            ("auth_errors", totals.auth_errors),
        ],
    );
    if node.options.settings.idle_timeout_s > 0 {
        lines(out, &[("idle_kicks", totals.idle_kicks)]);
    }
}

fn traffic<W>(node: &Node<W>, totals: &Totals, out: &mut Vec<u8>) {
    lines(
        out,
        &[
            ("bytes_read", totals.bytes_read),
            ("bytes_written", totals.bytes_written),
            ("limit_maxbytes", node.budget.limit() as u64),
            ("accepting_conns", u64::from(node.gauges.listeners_paused.get() == 0)),
            ("listen_disabled_num", totals.listen_disabled_num),
            ("time_in_listen_disabled_us", totals.time_in_listen_disabled_us),
            ("threads", node.options.settings.workers as u64),
            ("conn_yields", totals.conn_yields),
        ],
    );
}

fn hash<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let (mut buckets, mut bytes) = (0, 0);
    for shard in &node.shards {
        let size = shard.lock().store().index_size();
        (buckets, bytes) = (buckets + size.0, bytes + size.1);
    }
    lines(
        out,
        &[
            ("hash_power_level", u64::from(buckets.checked_ilog2().unwrap_or_default())),
            ("hash_bytes", bytes as u64),
            ("hash_is_expanding", 0),
        ],
    );
}

/// memcached leaves out what is switched off.
fn movers<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let work = super::work(node);
    if node.options.settings.tuning.slab_reassign {
        lines(
            out,
            &[
                ("slab_reassign_rescues", work.rescued),
                ("slab_reassign_chunk_rescues", 0),
                ("slab_reassign_inline_reclaim", 0),
                ("slab_reassign_busy_items", 0),
                ("slab_reassign_busy_deletes", 0),
                ("slab_reassign_busy_nomem", 0),
                ("slab_reassign_last_busy_status", 0),
                ("slab_reassign_running", 0),
                ("slabs_moved", work.pages_moved),
            ],
        );
    }
    if node.crawler.is_on.load(Ordering::Relaxed) {
        // A crawl is over before its client is answered.
        let starts = node.crawler.starts.load(Ordering::Relaxed);
        lines(out, &[("lru_crawler_running", 0), ("lru_crawler_starts", starts)]);
    }
    if node.options.settings.tuning.lru_maintainer {
        lines(out, &[("lru_maintainer_juggles", work.juggles)]);
    }
}

fn logs<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let logged = node.observers.logged();
    lines(
        out,
        &[
            ("malloc_fails", 0),
            ("log_worker_dropped", logged.lost),
            ("log_worker_written", logged.written),
            ("log_watcher_skipped", logged.skipped),
            ("log_watcher_sent", logged.sent),
            ("log_watchers", logged.watchers),
            ("unexpected_napi_ids", 0),
            ("round_robin_fallback", 0),
        ],
    );
}

fn items<W>(node: &Node<W>, held: &Counts, out: &mut Vec<u8>) {
    let has_maintainer = node.options.settings.tuning.lru_maintainer;
    let spare_pages = (node.budget.spare() / node.budget.page_size()) as u64;
    lines(
        out,
        &[
            ("bytes", super::item_bytes(held)),
            ("curr_items", held.items()),
            ("total_items", held.total_items),
            ("slab_global_page_pool", spare_pages),
            ("expired_unfetched", held.expired_unfetched),
            ("evicted_unfetched", held.evicted_unfetched),
        ],
    );
    if has_maintainer {
        lines(out, &[("evicted_active", held.evicted_active)]);
    }
    lines(
        out,
        &[
            ("evictions", held.evictions),
            ("reclaimed", held.reclaimed),
            ("crawler_reclaimed", held.swept),
            ("crawler_items_checked", held.sweep_checked),
            ("lrutail_reflocked", 0),
        ],
    );
    if has_maintainer {
        lines(
            out,
            &[
                ("moves_to_cold", held.moves_to_cold),
                ("moves_to_warm", held.moves_to_warm),
                ("moves_within_lru", held.moves_within_lru),
                ("direct_reclaims", held.direct_reclaims),
                ("lru_bumps_dropped", 0),
            ],
        );
    }
}
