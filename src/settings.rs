//! What the command line has set, under memcached's defaults: one struct that the command line
//! fills, the server obeys and `stats settings` shows.

use std::path::PathBuf;

/// See the module. The defaults are memcached's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `-m`, in bytes.
    pub memory: usize,
    /// `-I`, in bytes.
    pub item_max: usize,
    /// Not `-M`: whether a full store drops items; otherwise it refuses them.
    pub evict: bool,
    /// `-c`.
    pub connections_max: usize,
    /// `-o maxconns_fast`: refuse connections above the limit; otherwise they wait.
    pub maxconns_fast: bool,
    /// `-t`.
    pub workers: usize,
    /// `-p`; -1: any free port, 0: none.
    pub port: i32,
    /// `-l`, as it was written.
    pub listen: Option<Box<str>>,
    /// `-s`.
    pub socket: Option<PathBuf>,
    /// `-a`: who may use the socket, as chmod has it.
    pub socket_mode: u32,
    /// `-R`: commands of one connection before others have their turn.
    pub requests_per_turn: u32,
    /// `-b`: the kernel's queue of connections that wait to be accepted.
    pub backlog: u32,
    /// `-o idle_timeout`, in seconds; 0: connections may be idle forever.
    pub idle_timeout_s: u32,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// `-A`.
    pub shutdown_enabled: bool,
    /// Not `-F`.
    pub flush_enabled: bool,
    /// Not `-X`.
    pub dump_enabled: bool,
    /// Not `-W`.
    pub watch_enabled: bool,
    /// `-Y`: clients must log in with one of the names in this file.
    pub auth_file: Option<PathBuf>,
    /// `-D`: what separates a key's prefix from its rest.
    pub prefix_delimiter: char,
    /// `-D` was given: prefixes are counted from the start.
    pub detail_enabled: bool,
    /// `-B`.
    pub protocol: Protocol,
    /// What is only shown.
    pub tuning: Tuning,
}

/// What `-B` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ascii.
    Ascii,
    /// auto.
    Auto,
    /// binary: accepted, not served.
    Binary,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            item_max: 1 << 20,
            evict: true,
            connections_max: 1024,
            maxconns_fast: true,
            workers: 4,
            port: 11211,
            listen: None,
            socket: None,
            socket_mode: 0o700,
            requests_per_turn: 20,
            backlog: 1024,
            idle_timeout_s: 0,
            verbosity: 0,
            shutdown_enabled: false,
            flush_enabled: true,
            dump_enabled: true,
            watch_enabled: true,
            auth_file: None,
            prefix_delimiter: ':',
            detail_enabled: false,
            protocol: Protocol::Auto,
            tuning: Tuning::default(),
        }
    }
}

/// Knobs of memcached's engine. The segments of the LRU and the classes that are shown follow them;
/// for the others ours has nothing to turn: the values are taken, so that a command line need not
/// change, and shown, so that a tool finds what it looks for.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// `-f`.
    pub growth_factor: f64,
    /// `-n`, in bytes.
    pub chunk_size: u32,
    /// Not `-C`.
    pub cas_enabled: bool,
    /// `-o hashpower`.
    pub hashpower: u32,
    /// `-o hash_algorithm`.
    pub hash_algorithm: Box<str>,
    /// `-o tail_repair_time`, in seconds.
    pub tail_repair_s: u32,
    /// `-o slab_reassign`.
    pub slab_reassign: bool,
    /// `-o slab_automove`.
    pub slab_automove: u32,
    /// `-o slab_automove_ratio`.
    pub slab_automove_ratio: f64,
    /// `-o slab_automove_window`.
    pub slab_automove_window: u32,
    /// `-o slab_automove_freeratio`.
    pub slab_automove_freeratio: f64,
    /// `-o slab_chunk_max`, in bytes.
    pub slab_chunk_max: u32,
    /// `-o lru_crawler`.
    pub lru_crawler: bool,
    /// `-o lru_crawler_sleep`, in microseconds.
    pub lru_crawler_sleep: u32,
    /// `-o lru_crawler_tocrawl`.
    pub lru_crawler_tocrawl: u32,
    /// `-o lru_maintainer`.
    pub lru_maintainer: bool,
    /// Not `-o no_modern`.
    pub lru_segmented: bool,
    /// `-o hot_lru_pct`.
    pub hot_lru_pct: u32,
    /// `-o warm_lru_pct`.
    pub warm_lru_pct: u32,
    /// `-o hot_max_factor`.
    pub hot_max_factor: f64,
    /// `-o warm_max_factor`.
    pub warm_max_factor: f64,
    /// `-o temporary_ttl` was given.
    pub temporary_lru: bool,
    /// `-o temporary_ttl`, in seconds.
    pub temporary_ttl_s: u32,
    /// `-o watcher_logbuf_size`, in bytes.
    pub watcher_buffer: u32,
    /// `-o worker_logbuf_size`, in bytes.
    pub worker_buffer: u32,
    /// `-o read_buf_mem_limit`, in bytes.
    pub read_buffers_max: u64,
    /// `-o track_sizes`.
    pub track_sizes: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            growth_factor: 1.25,
            chunk_size: 48,
            cas_enabled: true,
            hashpower: 0,
            hash_algorithm: "murmur3".into(),
            tail_repair_s: 0,
            slab_reassign: true,
            slab_automove: 1,
            slab_automove_ratio: 0.8,
            slab_automove_window: 30,
            slab_automove_freeratio: 0.01,
            slab_chunk_max: 512 << 10,
            lru_crawler: true,
            lru_crawler_sleep: 100,
            lru_crawler_tocrawl: 0,
            lru_maintainer: true,
            lru_segmented: true,
            hot_lru_pct: 20,
            warm_lru_pct: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            temporary_lru: false,
            temporary_ttl_s: 61,
            watcher_buffer: 256 << 10,
            worker_buffer: 64 << 10,
            read_buffers_max: 0,
            track_sizes: false,
        }
    }
}
