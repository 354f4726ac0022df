//! What one memcached would tell its exporter, of the node as a whole.

use std::sync::atomic::Ordering;

use super::Node;
use crate::exposition::{Exposition, seconds};
use crate::node::report::{held, item_bytes, totals};
use crate::protocol::reply;
use crate::settings::Settings;
use crate::stats::Totals;
use crate::store::Counts;
use crate::time::Now;

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Exposition) {
    let (totals, held) = (totals(node), held(node));
    process(node, now, out);
    connections(node, &totals, out);
    commands(&totals, out);
    items(node, &totals, &held, out);
    settings(node, &node.options.settings, out);
    lru(node, &held, out);
}

fn process<W>(node: &Node<W>, now: Now, out: &mut Exposition) {
    let gauges = &node.gauges;
    out.gauge("memcached_up", "Whether the server answers.").value(1);
    let uptime_s = now.local.since(node.started.local) / 1000;
    out.gauge("memcached_uptime_seconds", "Time since the process started.").value(uptime_s);
    out.gauge("memcached_time_seconds", "Unix time according to this host.").value(now.wall_s);
    out.gauge("memcached_version", "The version of memcached whose protocol is spoken.")
        .labelled(&[("version", reply::VERSION)], 1);
    out.counter("memcached_process_user_cpu_seconds_total", "Time that the process computed.")
        .value(seconds(gauges.cpu_user_us.get()));
    out.counter(
        "memcached_process_system_cpu_seconds_total",
        "Time that the kernel worked for it.",
    )
    .value(seconds(gauges.cpu_system_us.get()));
}

fn connections<W>(node: &Node<W>, totals: &Totals, out: &mut Exposition) {
    let (gauges, limit) = (&node.gauges, node.options.settings.connections_max);
    out.gauge("memcached_current_connections", "Open client connections.")
        .value(gauges.connections.get());
    out.gauge("memcached_max_connections", "Client connections that there may be (-c).")
        .value(limit);
    out.counter("memcached_connections_total", "Client connections accepted.")
        .value(totals.total_connections);
    out.counter("memcached_connections_rejected_total", "Client connections refused at the limit.")
        .value(totals.rejected_connections);
    out.counter("memcached_connections_yielded_total", "Batches cut short to let others run (-R).")
        .value(totals.conn_yields);
    out.counter(
        "memcached_connections_listener_disabled_total",
        "Times that accepting paused at the limit.",
    )
    .value(totals.listen_disabled_num);
    out.gauge("memcached_accepting_connections", "Whether clients are accepted now.")
        .value(u8::from(gauges.listeners_paused.get() == 0));
    out.counter("memcached_read_bytes_total", "Bytes from clients.").value(totals.bytes_read);
    out.counter("memcached_written_bytes_total", "Bytes to clients.").value(totals.bytes_written);
}

/// With the exporter, a `set` is what is left of all storage commands without `cas`.
fn commands(totals: &Totals, out: &mut Exposition) {
    let mut samples =
        out.counter("memcached_commands_total", "Commands of this node's clients, by outcome.");
    let cas = totals.cas_hits + totals.cas_misses + totals.cas_badval;
    for (command, status, count) in [
        ("get", "hit", totals.get_hits),
        ("get", "miss", totals.get_misses),
        ("delete", "hit", totals.delete_hits),
        ("delete", "miss", totals.delete_misses),
        ("incr", "hit", totals.incr_hits),
        ("incr", "miss", totals.incr_misses),
        ("decr", "hit", totals.decr_hits),
        ("decr", "miss", totals.decr_misses),
        ("cas", "hit", totals.cas_hits),
        ("cas", "miss", totals.cas_misses),
        ("cas", "badval", totals.cas_badval),
        ("touch", "hit", totals.touch_hits),
        ("touch", "miss", totals.touch_misses),
        ("flush", "hit", totals.cmd_flush),
        // The counters are read one after the other, while they grow.
        ("set", "hit", totals.cmd_set.saturating_sub(cas)),
    ] {
        samples.labelled(&[("command", command), ("status", status)], count);
    }
}

fn items<W>(node: &Node<W>, totals: &Totals, held: &Counts, out: &mut Exposition) {
    let budget = &node.budget;
    out.gauge("memcached_current_items", "Items held.").value(held.items());
    out.counter("memcached_items_total", "Items ever stored.").value(held.total_items);
    out.gauge("memcached_current_bytes", "Bytes of items, as memcached counts them.")
        .value(item_bytes(held));
    out.gauge("memcached_limit_bytes", "Bytes that items may take (-m).").value(budget.limit());
    out.gauge("sessiond_memory_used_bytes", "Of -m, what pages and the index take now.")
        .value(budget.used());
    out.gauge("memcached_malloced_bytes", "Bytes taken for items, spare pages included.")
        .value(budget.used() + budget.spare());
    out.counter(
        "memcached_items_evicted_total",
        "Items dropped for lack of memory before their end.",
    )
    .value(held.evictions);
    out.counter(
        "memcached_items_reclaimed_total",
        "Items that were over when they were come across.",
    )
    .value(held.reclaimed);
    out.counter("memcached_item_too_large_total", "Values above the item limit (-I).")
        .value(totals.store_too_large);
    out.counter("memcached_item_no_memory_total", "Values that found no memory.")
        .value(totals.store_no_memory);
    out.counter("memcached_direct_reclaims_total", "Items removed while a value waited for room.")
        .value(held.direct_reclaims);
}

fn settings<W>(node: &Node<W>, settings: &Settings, out: &mut Exposition) {
    let tuning = &settings.tuning;
    let crawls = u8::from(node.crawler.is_on.load(Ordering::Relaxed));
    out.gauge("memcached_lru_crawler_enabled", "Whether items that are over are swept.")
        .value(crawls);
    out.gauge("memcached_lru_crawler_sleep", "A setting of memcached's, without effect here.")
        .value(tuning.lru_crawler_sleep);
    out.gauge("memcached_lru_crawler_to_crawl", "A setting of memcached's, without effect here.")
        .value(tuning.lru_crawler_tocrawl);
    out.gauge("memcached_lru_crawler_maintainer_thread", "Whether items are in three segments.")
        .value(u8::from(tuning.lru_maintainer));
    out.gauge("memcached_lru_crawler_hot_percent", "Part of the items that may be new.")
        .value(tuning.hot_lru_pct);
    out.gauge("memcached_lru_crawler_warm_percent", "Part of the items that may be in use.")
        .value(tuning.warm_lru_pct);
    out.gauge(
        "memcached_lru_crawler_hot_max_factor",
        "Age of new items against that of cold ones.",
    )
    .value(tuning.hot_max_factor);
    out.gauge(
        "memcached_lru_crawler_warm_max_factor",
        "Age of used items against that of cold ones.",
    )
    .value(tuning.warm_max_factor);
}

fn lru<W>(node: &Node<W>, held: &Counts, out: &mut Exposition) {
    out.counter("memcached_lru_crawler_starts_total", "Sweeps that somebody asked for.")
        .value(node.crawler.starts.load(Ordering::Relaxed));
    out.counter("memcached_lru_crawler_reclaimed_total", "Items that were over and were swept.")
        .value(held.swept);
    out.counter("memcached_lru_crawler_items_checked_total", "Items that the sweep looked at.")
        .value(held.sweep_checked);
    out.counter("memcached_lru_crawler_moves_to_cold_total", "Items moved to the cold segment.")
        .value(held.moves_to_cold);
    out.counter("memcached_lru_crawler_moves_to_warm_total", "Items moved to the warm segment.")
        .value(held.moves_to_warm);
    out.counter(
        "memcached_lru_crawler_moves_within_lru_total",
        "Items moved to the new end of warm.",
    )
    .value(held.moves_within_lru);
}
