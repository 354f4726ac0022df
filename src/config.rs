//! Flags to options: what memcached accepts, what a group needs, and one line for each mistake.
//!
//! Nobody imports this but `main`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use clap::{ArgAction, Parser};
use sessiond::node;
use sessiond::protocol::reply;
use sessiond::replication::{Incarnation, Member};
use sessiond::server;

/// A memcached-protocol server that keeps web sessions alive when machines die.
#[derive(Debug, Parser)]
#[command(name = "sessiond", disable_version_flag = true, args_override_self = true)]
pub(crate) struct Flags {
    /// TCP port for clients.
    #[arg(short = 'p', long, value_name = "NUM", default_value_t = 11211)]
    port: u16,
    /// Addresses to listen on, separated by commas [default: 127.0.0.1].
    #[arg(short = 'l', long, value_name = "ADDR")]
    listen: Option<String>,
    /// Memory for items, in megabytes.
    #[arg(short = 'm', long = "memory-limit", value_name = "NUM", default_value_t = 64)]
    memory_mb: usize,
    /// Simultaneous client connections.
    #[arg(short = 'c', long = "conn-limit", value_name = "NUM", default_value_t = 1024)]
    connections: usize,
    /// Worker threads.
    #[arg(short = 't', long, value_name = "NUM", default_value_t = 4)]
    threads: usize,
    /// Refuse new items when memory is full, instead of dropping the least recently used.
    #[arg(short = 'M', long = "disable-evictions")]
    no_evict: bool,
    /// More in the log; twice for still more.
    #[arg(short = 'v', long = "verbose", action = ArgAction::Count)]
    verbose: u8,
    /// Print the version and exit.
    #[arg(short = 'V', long)]
    version: bool,

    /// Name of the group; the same on all its nodes.
    #[arg(long, value_name = "NAME", help_heading = "Group")]
    cluster: Option<String>,
    /// Name of this node within its group.
    #[arg(long, value_name = "NAME", help_heading = "Group")]
    node_name: Option<String>,
    /// Where the other nodes connect.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Group")]
    peer_listen: Option<String>,
    /// Every node of the group; this one may be among them.
    #[arg(long, value_name = "NAME=HOST:PORT,...", help_heading = "Group")]
    peers: Option<String>,
    /// Allow unencrypted links to peers that are not on this machine.
    #[arg(long, help_heading = "Group")]
    peer_plain: bool,
    /// How long a write waits for the other nodes before its connection is closed.
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "Group")]
    write_timeout: u64,
    /// How long a command waits while this node can't answer.
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "Group")]
    hold_timeout: u64,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print this and exit.
    Print(String),
    /// Run a server, logging this much.
    Run(Box<server::Options>, Verbosity),
}

/// How much goes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// What an operator should see.
    Events,
    /// `-v`.
    Details,
    /// `-vv` and above.
    Everything,
}

/// The other nodes.
struct Group {
    names: Vec<Box<str>>,
    options: server::PeerOptions,
}

/// At most this many nodes hold full copies of each other.
const NODES_MAX: usize = 7;
/// memcached's `-I` default, in bytes.
const ITEM_MAX: usize = 1 << 20;
/// The kernel's queue of connections that wait to be accepted; memcached's default.
const BACKLOG: u32 = 1024;
/// How long a starting group waits for a node that is late.
const BOOT_WAIT_MS: u64 = 2000;
/// A link is down when nothing has come in for this long.
const SUSPECT_MS: u64 = 2000;
/// memcached refuses more.
const THREADS_MAX: usize = 128;

/// Reads the command line. The error is one line that says what is wrong and how to mend it.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    random: [u64; 2],
) -> Result<Command, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let as_memcached = arguments
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| name == "memcached");
    match Flags::try_parse_from(arguments) {
        Ok(flags) if flags.version => Ok(Command::Print(versions())),
        Ok(flags) => flags.command(as_memcached, random),
        Err(error) if !error.use_stderr() => Ok(Command::Print(error.to_string())),
        Err(error) => Err(one_line(&error.to_string())),
    }
}

fn versions() -> String {
    format!("memcached {}\nsessiond {}\n", reply::VERSION, env!("CARGO_PKG_VERSION"))
}

/// clap explains at length; its first line says what is wrong.
fn one_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    format!("{what} (see sessiond --help)")
}

impl Flags {
    fn command(self, as_memcached: bool, random: [u64; 2]) -> Result<Command, String> {
        let verbosity = match self.verbose {
            0 => Verbosity::Events,
            1 => Verbosity::Details,
            _ => Verbosity::Everything,
        };
        if !(1..=THREADS_MAX).contains(&self.threads) {
            return Err(format!("-t {}: expected 1 to {THREADS_MAX} threads", self.threads));
        }
        if self.connections == 0 {
            return Err("-c 0: expected at least 1 connection".into());
        }
        let memory = self
            .memory_mb
            .checked_mul(1 << 20)
            .filter(|&bytes| bytes >= 2 * ITEM_MAX)
            .ok_or_else(|| format!("-m {}: expected at least 2 megabytes", self.memory_mb))?;
        let group = self.group()?;
        let (names, peers) = match group {
            Some(Group { names, options }) => (names, Some(options)),
            None => (Vec::new(), None),
        };
        let me = self.node_name.clone().unwrap_or_else(|| "single".into());
        let node = node::Options {
            me: Member { name: me.into(), incarnation: Incarnation(random[0].max(1)) },
            peers: names,
            memory,
            item_max: ITEM_MAX,
            evict: !self.no_evict,
            boot_wait_ms: BOOT_WAIT_MS,
            workers: self.threads,
            seed: random[1],
            connections_max: self.connections,
            switches: node::Switches::default(),
        };
        let options = server::Options {
            node,
            listen: self.addresses(as_memcached)?,
            backlog: BACKLOG,
            peers,
            write_timeout_ms: self.write_timeout,
            hold_timeout_ms: self.hold_timeout,
        };
        Ok(Command::Run(Box::new(options), verbosity))
    }

    /// A drop-in must be reachable where memcached was; under our own name we are careful.
    fn addresses(&self, as_memcached: bool) -> Result<Vec<SocketAddr>, String> {
        let default = if as_memcached { "0.0.0.0,::" } else { "127.0.0.1" };
        let list = self.listen.as_deref().unwrap_or(default);
        list.split(',').map(|address| self.address(address.trim())).collect()
    }

    fn address(&self, text: &str) -> Result<SocketAddr, String> {
        let wrong = || format!("-l {text}: expected an address, e.g. 127.0.0.1 or [::1]:11211");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address);
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, self.port));
        }
        let mut resolved = (text, self.port).to_socket_addrs().map_err(|_| wrong())?;
        resolved.next().ok_or_else(wrong)
    }

    fn group(&self) -> Result<Option<Group>, String> {
        let Some(list) = &self.peers else {
            return match (&self.cluster, &self.peer_listen) {
                (None, None) => Ok(None),
                _ => Err("--cluster and --peer-listen need --peers NAME=HOST:PORT,...".into()),
            };
        };
        let cluster = self.cluster.as_deref().ok_or("--peers needs --cluster NAME")?;
        let me = self.node_name.as_deref().ok_or("--peers needs --node-name NAME")?;
        let listen = self.peer_listen.as_deref().ok_or("--peers needs --peer-listen HOST:PORT")?;
        let listen = socket_address("--peer-listen", listen)?;
        let mut peers: Vec<(Box<str>, SocketAddr)> = Vec::new();
        for entry in list.split(',').filter(|entry| !entry.is_empty()) {
            let (name, address) = entry.split_once('=').ok_or_else(|| {
                format!("--peers {entry:?}: expected NAME=HOST:PORT, e.g. web1=10.0.0.7:11212")
            })?;
            if peers.iter().any(|(other, _)| **other == *name) {
                return Err(format!("--peers names {name:?} twice"));
            }
            peers.push((name.into(), socket_address("--peers", address)?));
        }
        if peers.len() > NODES_MAX {
            return Err(format!("--peers: a group has at most {NODES_MAX} nodes"));
        }
        let all_here = peers.iter().all(|(_, address)| address.ip().is_loopback());
        if !(self.peer_plain || all_here && listen.ip().is_loopback()) {
            return Err(
                "peer links are not encrypted: keep --peers and --peer-listen on 127.0.0.0/8, or accept it with --peer-plain"
                    .into(),
            );
        }
        peers.retain(|(name, _)| **name != *me);
        peers.sort();
        let (names, addresses) = peers.into_iter().unzip();
        let options = server::PeerOptions {
            cluster: cluster.into(),
            listen,
            addresses,
            suspect_ms: SUSPECT_MS,
        };
        Ok(Some(Group { names, options }))
    }
}

fn socket_address(flag: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{flag} {text:?}: expected HOST:PORT, e.g. 10.0.0.7:11212");
    let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
    resolved.next().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<server::Options, String> {
        match parse(line.split_whitespace().map(OsString::from), [1, 2])? {
            Command::Run(options, _) => Ok(*options),
            Command::Print(text) => Err(text),
        }
    }

    const GROUP: &str = "--cluster c --node-name a --peer-listen 127.0.0.1:7001";

    #[test]
    fn the_name_it_is_called_by_decides_where_it_listens() {
        let own = run("/usr/bin/sessiond").unwrap();
        assert!(own.listen.iter().all(|address| address.ip().is_loopback()));
        let drop_in = run("/usr/bin/memcached -p 1234").unwrap();
        assert!(drop_in.listen.iter().all(|address| address.ip().is_unspecified()));
        assert_eq!(drop_in.listen[0].port(), 1234);
    }

    #[test]
    fn memcacheds_flags_keep_their_meaning() {
        let options = run("sessiond -l 127.0.0.2 -p 1 -m 256 -c 9 -t 2 -M -vv").unwrap();
        assert_eq!(options.listen, ["127.0.0.2:1".parse().unwrap()]);
        assert_eq!(options.node.memory, 256 << 20);
        assert_eq!((options.node.connections_max, options.node.workers), (9, 2));
        assert!(!options.node.evict);
    }

    #[test]
    fn a_group_leaves_out_the_node_itself() {
        let peers = "--peers b=127.0.0.1:2,a=127.0.0.1:1,c=127.0.0.1:3";
        let options = run(&format!("sessiond {GROUP} {peers}")).unwrap();
        assert_eq!(options.node.peers, ["b".into(), "c".into()]);
        assert_eq!(options.peers.unwrap().addresses.len(), 2);
    }

    #[test]
    fn each_mistake_is_one_line_that_says_how_to_mend_it() {
        for (line, says) in [
            ("sessiond -p x".to_owned(), "invalid value 'x'"),
            ("sessiond --what".to_owned(), "unexpected argument '--what'"),
            ("sessiond -t 0".to_owned(), "1 to 128"),
            ("sessiond -m 1".to_owned(), "at least 2"),
            ("sessiond -l nowhere.invalid".to_owned(), "expected an address"),
            ("sessiond --peers a=127.0.0.1:1".to_owned(), "--cluster"),
            (format!("sessiond {GROUP} --peers 10.0.0.7"), "NAME=HOST:PORT"),
            (format!("sessiond {GROUP} --peers a=127.0.0.1:1,a=127.0.0.1:2"), "twice"),
            (format!("sessiond {GROUP} --peers b=10.9.9.9:1"), "--peer-plain"),
        ] {
            let error = run(&line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn the_version_starts_with_memcacheds() {
        let text = run("sessiond -V").unwrap_err();
        assert!(text.starts_with("memcached 1.6.45\nsessiond "));
    }
}
