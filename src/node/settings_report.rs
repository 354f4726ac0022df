//! `stats settings`: what the server was started with, under memcached's names and in its order.

use std::fmt::Display;

use crate::protocol::reply;
use crate::settings::{Protocol, Settings, Tuning};

/// Writes every line but END.
pub(super) fn settings(settings: &Settings, out: &mut Vec<u8>) {
    let mut lines = Lines(out);
    lines.server(settings);
    lines.clients(settings);
    lines.slabs(&settings.tuning);
    lines.lru(settings);
    lines.buffers(settings);
    lines.flash(&settings.tuning);
    lines.show("sessiond_version", env!("CARGO_PKG_VERSION"));
}

/// What memcached prints for a name that it does not have.
const NOTHING: &str = "NULL";
/// The same, where it forgot to ask whether it has one.
const NOTHING_PRINTED: &str = "(null)";

struct Lines<'a>(&'a mut Vec<u8>);

impl Lines<'_> {
    fn show(&mut self, name: &str, value: impl Display) {
        reply::stat(self.0, name, value);
    }

    fn yes_or_no(&mut self, name: &str, yes: bool) {
        self.show(name, if yes { "yes" } else { "no" });
    }

    fn fraction(&mut self, name: &str, value: f64) {
        self.show(name, format_args!("{value:.2}"));
    }

    fn server(&mut self, settings: &Settings) {
        self.show("maxbytes", settings.memory);
        self.show("maxconns", settings.connections_max);
        self.show("tcpport", settings.port);
        self.show("udpport", 0);
        self.show("inter", settings.listen.as_deref().unwrap_or(NOTHING));
        self.show("verbosity", settings.verbosity);
        self.show("oldest", 0);
        self.show("evictions", if settings.evict { "on" } else { "off" });
        match &settings.socket {
            Some(path) => self.show("domain_socket", path.display()),
            None => self.show("domain_socket", NOTHING),
        }
        self.show("umask", format_args!("{:o}", settings.socket_mode));
        self.yes_or_no("shutdown_command", settings.shutdown_enabled);
        self.fraction("growth_factor", settings.tuning.growth_factor);
        self.show("chunk_size", settings.tuning.chunk_size);
        self.show("num_threads", settings.workers);
        self.show("num_threads_per_udp", settings.workers);
    }

    fn clients(&mut self, settings: &Settings) {
        self.show("stat_key_prefix", settings.prefix_delimiter);
        self.yes_or_no("detail_enabled", settings.detail_enabled);
        self.show("reqs_per_event", settings.requests_per_turn);
        self.yes_or_no("cas_enabled", settings.tuning.cas_enabled);
        self.show("tcp_backlog", settings.backlog);
        let protocol = match settings.protocol {
            Protocol::Ascii => "ascii",
            Protocol::Auto => "auto-negotiate",
            Protocol::Binary => "binary",
        };
        self.show("binding_protocol", protocol);
        self.yes_or_no("auth_enabled_sasl", false);
        match &settings.auth_file {
            Some(path) => self.show("auth_enabled_ascii", path.display()),
            None => self.yes_or_no("auth_enabled_ascii", false),
        }
        self.show("item_size_max", settings.item_max);
        self.yes_or_no("maxconns_fast", settings.maxconns_fast);
    }

    fn slabs(&mut self, tuning: &Tuning) {
        self.show("hashpower_init", tuning.hashpower);
        self.yes_or_no("slab_reassign", tuning.slab_reassign);
        self.show("slab_automove", tuning.slab_automove);
        self.fraction("slab_automove_ratio", tuning.slab_automove_ratio);
        self.show("slab_automove_window", tuning.slab_automove_window);
        self.show("slab_chunk_max", tuning.slab_chunk_max);
    }

    fn lru(&mut self, settings: &Settings) {
        let tuning = &settings.tuning;
        self.yes_or_no("lru_crawler", tuning.lru_crawler);
        self.show("lru_crawler_sleep", tuning.lru_crawler_sleep);
        self.show("lru_crawler_tocrawl", tuning.lru_crawler_tocrawl);
        self.show("tail_repair_time", tuning.tail_repair_s);
        self.yes_or_no("flush_enabled", settings.flush_enabled);
        self.yes_or_no("dump_enabled", settings.dump_enabled);
        self.show("hash_algorithm", &tuning.hash_algorithm);
        self.yes_or_no("lru_maintainer_thread", tuning.lru_maintainer);
        self.yes_or_no("lru_segmented", tuning.lru_segmented);
        self.show("hot_lru_pct", tuning.hot_lru_pct);
        self.show("warm_lru_pct", tuning.warm_lru_pct);
        self.fraction("hot_max_factor", tuning.hot_max_factor);
        self.fraction("warm_max_factor", tuning.warm_max_factor);
        self.yes_or_no("temp_lru", tuning.temporary_lru);
        self.show("temporary_ttl", tuning.temporary_ttl_s);
    }

    fn buffers(&mut self, settings: &Settings) {
        let tuning = &settings.tuning;
        self.show("idle_timeout", settings.idle_timeout_s);
        self.show("watcher_logbuf_size", tuning.watcher_buffer);
        self.show("worker_logbuf_size", tuning.worker_buffer);
        self.show("read_buf_mem_limit", tuning.read_buffers_max);
        self.yes_or_no("track_sizes", tuning.track_sizes);
        self.yes_or_no("inline_ascii_response", false);
    }

    /// memcached's defaults: it shows these lines without flash storage, too.
    fn flash(&mut self, tuning: &Tuning) {
        self.show("ext_item_size", 512);
        self.show("ext_item_age", u32::MAX);
        self.show("ext_low_ttl", 0);
        self.show("ext_recache_rate", 2000);
        self.show("ext_wbuf_size", 4 << 20);
        self.show("ext_compact_under", 0);
        self.show("ext_drop_under", 0);
        self.show("ext_max_sleep", 1_000_000);
        self.show("ext_max_frag", "0.80");
        self.show("slab_automove_freeratio", format_args!("{:.3}", tuning.slab_automove_freeratio));
        self.yes_or_no("ext_drop_unread", false);
        self.show("num_napi_ids", NOTHING_PRINTED);
        self.show("memory_file", NOTHING_PRINTED);
        self.show("client_flags_size", size_of::<u32>());
    }
}
