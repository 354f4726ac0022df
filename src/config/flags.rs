//! The flags themselves: memcached's under memcached's names, and those of a group.
//!
//! Says what may be written; what it means is for the other files of this folder.

use clap::{ArgAction, Parser};

/// Told in `-h` below the flags.
const SUB_OPTIONS: &str = "\
Options of -o:
  idle_timeout=NUM     close connections that are silent for this many seconds
                       [default: 0, never]
  maxconns_fast        answer connections above -c with an error [default]
  no_maxconns_fast     let connections above -c wait instead
  hot_lru_pct=NUM      part of the items that may be new [default: 20]
  warm_lru_pct=NUM     part of the items that may be in use [default: 40]
  hot_max_factor=NUM, warm_max_factor=NUM
                       their greatest age, relative to that of the cold ones
                       [default: 0.2 and 2.0]
  temporary_ttl=NUM    keep items apart that live no longer than this many
                       seconds [default: off]
  no_lru_maintainer    one list of all items, by their last use
  memcached's other knobs for its hash table, slabs and LRU are taken, shown in
  `stats settings`, and change nothing here.";

/// memcached's `-h` starts with its version, and scripts read it.
const HEAD: &str = concat!("memcached 1.6.45, as spoken by sessiond ", env!("CARGO_PKG_VERSION"));

/// A memcached-protocol server that keeps web sessions alive when machines die.
#[derive(Debug, Parser)]
#[command(
    name = "sessiond",
    disable_version_flag = true,
    args_override_self = true,
    infer_long_args = true,
    allow_negative_numbers = true,
    next_help_heading = "Clients",
    before_help = HEAD,
    after_help = SUB_OPTIONS,
)]
pub(super) struct Flags {
    /// TCP port for clients; 0 for none, -1 for any free one.
    #[arg(short = 'p', long, value_name = "NUM", default_value_t = 11211,
          value_parser = clap::value_parser!(i32).range(-1..=65535))]
    pub(super) port: i32,
    /// Addresses to listen on: ADDR or ADDR:PORT, separated by commas [default: 127.0.0.1].
    #[arg(short = 'l', long, value_name = "ADDR", action = ArgAction::Append)]
    pub(super) listen: Vec<String>,
    /// UNIX socket to listen on instead of TCP.
    #[arg(short = 's', long, value_name = "FILE")]
    pub(super) unix_socket: Option<String>,
    /// Who may use the UNIX socket, in octal.
    #[arg(short = 'a', long, value_name = "MASK", default_value = "700")]
    pub(super) unix_mask: String,
    /// UDP port; only 0, as UDP is not served.
    #[arg(short = 'U', long, value_name = "NUM", default_value_t = 0)]
    pub(super) udp_port: i32,
    /// Simultaneous client connections.
    #[arg(short = 'c', long = "conn-limit", value_name = "NUM", default_value_t = 1024)]
    pub(super) connections: usize,
    /// Connections that may wait to be accepted.
    #[arg(short = 'b', long = "listen-backlog", value_name = "NUM", default_value_t = 1024)]
    pub(super) backlog: u32,
    /// Commands of one connection before the next one's turn.
    #[arg(short = 'R', long, value_name = "NUM", default_value_t = 20)]
    pub(super) max_reqs_per_event: u32,
    /// Worker threads.
    #[arg(short = 't', long, value_name = "NUM", default_value_t = 4)]
    pub(super) threads: usize,
    /// Protocol: ascii or auto; binary is taken, but not served.
    #[arg(short = 'B', long, value_name = "NAME", default_value = "auto")]
    pub(super) protocol: String,
    /// Further options, separated by commas; see below.
    #[arg(short = 'o', long, value_name = "OPTIONS", action = ArgAction::Append)]
    pub(super) extended: Vec<String>,

    /// Memory for items, in megabytes.
    #[arg(short = 'm', long, value_name = "NUM", default_value_t = 64, help_heading = "Items")]
    pub(super) memory_limit: usize,
    /// Refuse new items when memory is full, instead of dropping the least recently used.
    #[arg(short = 'M', long, help_heading = "Items")]
    pub(super) disable_evictions: bool,
    /// Largest item: 1k to 1024m, and at most half of -m.
    #[arg(short = 'I', long, value_name = "SIZE", default_value = "1m", help_heading = "Items")]
    pub(super) max_item_size: String,
    /// What separates a key's prefix from its rest; turns on `stats detail`.
    #[arg(short = 'D', value_name = "CHAR", help_heading = "Items")]
    pub(super) delimiter: Option<String>,

    /// Clients must log in with a `user:password` line of this file; SIGHUP reads it again.
    #[arg(short = 'Y', long, value_name = "FILE", help_heading = "Access")]
    pub(super) auth_file: Option<String>,
    /// Allow the `shutdown` command.
    #[arg(short = 'A', long, help_heading = "Access")]
    pub(super) enable_shutdown: bool,
    /// Refuse `flush_all`.
    #[arg(short = 'F', long, help_heading = "Access")]
    pub(super) disable_flush_all: bool,
    /// Refuse to list keys: `stats cachedump`, `lru_crawler metadump`.
    #[arg(short = 'X', long, help_heading = "Access")]
    pub(super) disable_dumping: bool,
    /// Refuse `watch`.
    #[arg(short = 'W', long, help_heading = "Access")]
    pub(super) disable_watch: bool,

    /// Run in the background.
    #[arg(short = 'd', long, help_heading = "Process")]
    pub(super) daemon: bool,
    /// Write the process id to this file.
    #[arg(short = 'P', long, value_name = "FILE", help_heading = "Process")]
    pub(super) pidfile: Option<String>,
    /// Become this user, when started as root.
    #[arg(short = 'u', long, value_name = "USER", help_heading = "Process")]
    pub(super) user: Option<String>,
    /// Raise the limit of core files.
    #[arg(short = 'r', long, help_heading = "Process")]
    pub(super) enable_coredumps: bool,
    /// Keep all memory out of swap.
    #[arg(short = 'k', long, help_heading = "Process")]
    pub(super) lock_memory: bool,
    /// More in the log; twice for still more.
    #[arg(short = 'v', long, action = ArgAction::Count, help_heading = "Process")]
    pub(super) verbose: u8,
    /// Print the version and exit.
    #[arg(short = 'V', long, help_heading = "Process")]
    pub(super) version: bool,
    /// Print the license and exit.
    #[arg(short = 'i', long, help_heading = "Process")]
    pub(super) license: bool,

    /// Where to answer HTTP for monitoring: /metrics, /healthz, /readyz; a port alone is on
    /// 127.0.0.1. Anybody who can connect may read the figures: never a key or a value.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Process")]
    pub(super) admin_listen: Option<String>,

    /// Name of the group; the same on all its nodes.
    #[arg(long, value_name = "NAME", help_heading = "Group")]
    pub(super) cluster: Option<String>,
    /// Name of this node within its group.
    #[arg(long, value_name = "NAME", help_heading = "Group")]
    pub(super) node_name: Option<String>,
    /// Where the other nodes connect.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Group")]
    pub(super) peer_listen: Option<String>,
    /// Every node of the group; this one may be among them. Counts when the group begins; `sessiond
    /// ctl` changes it later.
    #[arg(long, value_name = "NAME=HOST:PORT,...", help_heading = "Group")]
    pub(super) peers: Option<String>,
    /// This node's certificate, for its node name, and those up to the authority's (PEM). With it
    /// links are encrypted, and peers show theirs; SIGHUP reads all three files again.
    #[arg(long, value_name = "FILE", help_heading = "Group")]
    pub(super) peer_cert: Option<String>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", help_heading = "Group")]
    pub(super) peer_key: Option<String>,
    /// The authorities that sign the group's certificates, and nothing else.
    #[arg(long, value_name = "FILE", help_heading = "Group")]
    pub(super) peer_ca: Option<String>,
    /// A secret that all nodes share, where there are no certificates; a second line may hold the
    /// one before it.
    #[arg(long, value_name = "FILE", help_heading = "Group")]
    pub(super) peer_secret_file: Option<String>,
    /// Allow unencrypted links to peers that are not on this machine; needs --peer-secret-file.
    #[arg(long, help_heading = "Group")]
    pub(super) peer_plain: bool,
    /// Where this node remembers its group and its former lives; without it, a node that is
    /// started again is a stranger to the others.
    #[arg(long, value_name = "DIR", help_heading = "Group")]
    pub(super) state_dir: Option<String>,
    /// Only this node votes: for groups of two, where it may go on alone.
    #[arg(long, value_name = "NAME", help_heading = "Group")]
    pub(super) tie_breaker: Option<String>,
    /// This node only votes: it holds no data and serves no clients. A third one for groups of
    /// two, so that either goes on when the other is silent.
    #[arg(long, help_heading = "Group")]
    pub(super) witness: bool,
    /// What the last node does when all others are certainly dead: go on once their ports have
    /// `refused` connections for a second, or stop answering (`off`).
    #[arg(long, value_name = "WHAT", default_value = "refused", help_heading = "Group")]
    pub(super) last_man_standing: String,
    /// What a node that reaches no other says to reads: nothing (`deny`), or what its own copy
    /// holds, which may be old (`stale`): a session may be back that was deleted elsewhere.
    #[arg(long, value_name = "WHAT", default_value = "deny", help_heading = "Group")]
    pub(super) isolated_reads: String,
    /// A node that is silent for so long is left out.
    #[arg(long, value_name = "MS", default_value_t = 400, help_heading = "Group")]
    pub(super) suspect: u64,
    /// Which optional parts of the peer protocol this node uses: all, none, or names of them.
    #[arg(long, value_name = "LIST", default_value = "all", hide = true)]
    pub(super) peer_features: String,
    /// How fast this node fills one that joins: 64k to 64g bytes a second, or unlimited.
    #[arg(long, value_name = "BYTES", default_value = "64m", help_heading = "Group")]
    pub(super) sync_rate: String,
    /// How long a write waits for the other nodes before its connection is closed.
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "Group")]
    pub(super) write_timeout: u64,
    /// How long a command waits while this node can't answer.
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "Group")]
    pub(super) hold_timeout: u64,

    /// Hold the client sockets in a small parent process, which starts the server again when it
    /// dies, and the new one at SIGUSR2: nobody is ever refused.
    #[arg(long, help_heading = "Process")]
    pub(super) supervise: bool,
    /// Take the client sockets and all clients over from the process that runs with the same
    /// --state-dir, which ends; without one, just start. For where there is neither a supervisor
    /// nor systemd.
    #[arg(long, help_heading = "Process")]
    pub(super) take_over: bool,
    /// At SIGTERM, how long clients have to close their connections; they are served meanwhile.
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "Process")]
    pub(super) drain_timeout: u64,
    /// How a member of a group is upgraded: the new program is filled beside the present one, and then
    /// takes its place (`beside`; that needs -m twice meanwhile, and --state-dir), or one ends before the
    /// other begins (`restart`).
    #[arg(long, value_name = "HOW", default_value = "beside", help_heading = "Process")]
    pub(super) upgrade: String,
    /// How long a new program has to begin to serve; then the former one goes on, or begins again.
    #[arg(long, value_name = "MS", default_value_t = 60_000, help_heading = "Process")]
    pub(super) upgrade_timeout: u64,
    /// Only say what is wrong with the command line, if anything is.
    #[arg(long, help_heading = "Process")]
    pub(super) check: bool,

    /// Growth of memcached's slab classes.
    #[arg(short = 'f', long, value_name = "NUM", default_value_t = 1.25, help_heading = TAKEN)]
    pub(super) slab_growth_factor: f64,
    /// Smallest of memcached's chunks.
    #[arg(short = 'n', long, value_name = "BYTES", default_value_t = 48, help_heading = TAKEN)]
    pub(super) slab_min_size: u32,
    /// Large memory pages.
    #[arg(short = 'L', long, help_heading = TAKEN)]
    pub(super) enable_largepages: bool,
    /// Without CAS; `gets` and `cas` work all the same.
    #[arg(short = 'C', long, help_heading = TAKEN)]
    pub(super) disable_cas: bool,

    #[arg(short = 'S', long = "enable-sasl", hide = true)]
    pub(super) sasl: bool,
    #[arg(short = 'Z', long = "enable-ssl", hide = true)]
    pub(super) tls: bool,
    #[arg(short = 'e', long = "memory-file", hide = true)]
    pub(super) memory_file: Option<String>,
    #[arg(short = 'N', long = "napi-ids", hide = true)]
    pub(super) napi_ids: Option<String>,
}

const TAKEN: &str = "Taken for memcached's sake, without effect";
