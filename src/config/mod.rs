//! The command line: what memcached accepts, what a group needs, and one line for each mistake.
//!
//! Nobody imports this but `main`.

mod addresses;
mod ctl;
mod extended;
mod flags;
mod group;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use sessiond::node;
use sessiond::protocol::reply;
use sessiond::replication::{Incarnation, Member};
use sessiond::server::{self, Listen, PeerOptions};
use sessiond::settings::{Protocol, Settings, Tuning};

use crate::process;
use flags::Flags;

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print this and exit.
    Print(String),
    /// Say this to the node that runs with that state directory, and wait so long for the server that
    /// comes after it, if one does.
    Tell { state_dir: PathBuf, line: String, patience: Option<Duration> },
    /// Run a server.
    Run(Box<Launch>),
}

/// A server and how to start it.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What it serves.
    pub(crate) server: server::Options,
    /// How its process is to live.
    pub(crate) process: process::Options,
    /// How much goes into the log.
    pub(crate) verbosity: Verbosity,
    /// Whether a parent holds the client sockets.
    pub(crate) supervise: bool,
    /// How long a new program has to begin to serve.
    pub(crate) upgrade_timeout: Duration,
    /// Whether it is started while the present one serves.
    pub(crate) upgrades_beside: bool,
    /// What is taken, but not as it may be expected.
    pub(crate) warnings: Vec<String>,
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

/// memcached takes more and warns; nobody has so many cores to serve sessions from.
const THREADS_MAX: usize = 128;
/// memcached's bounds of `-I`.
const ITEM_MIN: usize = 1 << 10;
const ITEM_MAX: usize = 1 << 30;

const LICENSE: &str = "\
sessiond is licensed under the Apache License, Version 2.0:
http://www.apache.org/licenses/LICENSE-2.0
It contains no code of memcached.
";

/// Reads the command line. The error is one line that says what is wrong and how to mend it.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    random: [u64; 2],
) -> Result<Command, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|word| word == "ctl") {
        return ctl::parse(&arguments[1..]);
    }
    let as_memcached = arguments
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| name == "memcached");
    match Flags::try_parse_from(arguments) {
        Ok(flags) if flags.version => Ok(Command::Print(versions())),
        Ok(flags) if flags.license => Ok(Command::Print(LICENSE.into())),
        Ok(flags) => {
            let is_trial = flags.check;
            let launch = flags.launch(as_memcached, random)?;
            Ok(if is_trial {
                Command::Print(String::new())
            } else {
                Command::Run(Box::new(launch))
            })
        }
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
    fn launch(self, as_memcached: bool, random: [u64; 2]) -> Result<Launch, String> {
        self.refuse()?;
        let mut warnings = Vec::new();
        let settings = self.settings(&mut warnings)?;
        let listen = self.listens(as_memcached, &settings, &mut warnings)?;
        let group = group::group(&self)?.unwrap_or_default();
        let me = self.node_name.clone().unwrap_or_else(|| "single".into());
        let process = self.process(&settings);
        let me = Member { name: me.into(), incarnation: Incarnation(random[0].max(1)) };
        let node = node::Options {
            timing: group.timing,
            last_man_standing: group.last_man_standing,
            isolated_reads: group.isolated_reads,
            speaks: group.speaks,
            sync_rate: group.sync_rate,
            settings,
            ..node::Options::new(me, group.nodes, random[1])
        };
        let server = server::Options {
            node,
            listen,
            port_file: None,
            admin: self.admin(&mut warnings)?,
            peers: group.options,
            write_timeout_ms: self.write_timeout,
            hold_timeout_ms: self.hold_timeout,
            drain_timeout_ms: self.drain_timeout,
            supervisor: None,
            takes_over: self.take_over,
            is_beside: false,
        };
        let upgrades_beside = self.upgrades_beside(server.peers.as_ref())?;
        let verbosity = match self.verbose {
            0 => Verbosity::Events,
            1 => Verbosity::Details,
            _ => Verbosity::Everything,
        };
        Ok(Launch {
            server,
            process,
            verbosity,
            warnings,
            supervise: self.supervise,
            upgrade_timeout: Duration::from_millis(self.upgrade_timeout),
            upgrades_beside,
        })
    }

    /// Where nobody could fill the new one, or it could not tell that the present one is over, one has
    /// to end before the other begins.
    fn upgrades_beside(&self, peers: Option<&PeerOptions>) -> Result<bool, String> {
        let can = peers.is_some_and(|peers| peers.state_dir.is_some() && !peers.is_witness);
        match self.upgrade.as_str() {
            "beside" => Ok(can),
            "restart" => Ok(false),
            other => Err(format!("--upgrade {other}: expected beside or restart")),
        }
    }

    /// What memcached can do and this server can't: taking it would be a lie.
    fn refuse(&self) -> Result<(), String> {
        let refusal = if self.udp_port != 0 {
            "-U: UDP is not served; leave it out, or give 0"
        } else if self.sasl {
            "-S: SASL needs the binary protocol, which is not served; -Y logs in by text"
        } else if self.tls {
            "-Z: clients cannot use TLS yet; leave it out"
        } else if self.memory_file.is_some() {
            "-e: items are not kept in a file; a node that starts is filled by its group"
        } else if self.napi_ids.is_some() {
            "-N: connections are not spread by network queue; leave it out"
        } else if self.take_over && self.state_dir.is_none() {
            "--take-over: needs --state-dir, where the process that runs is found"
        } else if self.take_over && self.supervise {
            "--take-over: with --supervise use sessiond ctl upgrade"
        } else if self.take_over && self.witness {
            "--take-over: a witness has no clients; stop the one that runs, and start this one"
        } else {
            return Ok(());
        };
        Err(refusal.into())
    }

    fn settings(&self, warnings: &mut Vec<String>) -> Result<Settings, String> {
        if !(1..=THREADS_MAX).contains(&self.threads) {
            return Err(format!("-t {}: expected 1 to {THREADS_MAX} threads", self.threads));
        }
        if self.connections == 0 {
            return Err("-c 0: expected at least 1 connection".into());
        }
        if self.max_reqs_per_event == 0 {
            return Err("-R 0: expected at least 1 request".into());
        }
        let item_max = item_max(&self.max_item_size)?;
        let mut settings = Settings {
            memory: memory(self.memory_limit, item_max)?,
            item_max,
            evict: !self.disable_evictions,
            connections_max: self.connections,
            workers: self.threads,
            port: self.port,
            listen: (!self.listen.is_empty()).then(|| self.listen.join(",").into()),
            socket: self.unix_socket.as_deref().map(absolute),
            socket_mode: socket_mode(&self.unix_mask)?,
            requests_per_turn: self.max_reqs_per_event,
            backlog: self.backlog,
            verbosity: self.verbose,
            shutdown_enabled: self.enable_shutdown,
            flush_enabled: !self.disable_flush_all,
            dump_enabled: !self.disable_dumping,
            watch_enabled: !self.disable_watch,
            auth_file: self.auth_file.as_deref().map(absolute),
            protocol: self.protocol(warnings)?,
            tuning: self.tuning()?,
            ..Settings::default()
        };
        if let Some(delimiter) = &self.delimiter {
            let first = delimiter.chars().next().ok_or("-D: expected a character, e.g. -D :")?;
            (settings.prefix_delimiter, settings.detail_enabled) = (first, true);
        }
        for list in &self.extended {
            warnings.extend(extended::apply(list, &mut settings)?);
        }
        Ok(settings)
    }

    fn protocol(&self, warnings: &mut Vec<String>) -> Result<Protocol, String> {
        match self.protocol.as_str() {
            // A login is a text command, so nothing else makes sense behind it.
            "auto" if self.auth_file.is_some() => Ok(Protocol::Ascii),
            "auto" => Ok(Protocol::Auto),
            "ascii" => Ok(Protocol::Ascii),
            "binary" if self.auth_file.is_some() => {
                Err("-B binary: -Y logs in by text; use -B ascii".into())
            }
            "binary" => {
                warnings.push("-B binary: only the text protocol is served".into());
                Ok(Protocol::Binary)
            }
            other => Err(format!("-B {other}: expected ascii, auto or binary")),
        }
    }

    fn tuning(&self) -> Result<Tuning, String> {
        if self.slab_growth_factor <= 1.0 {
            return Err(format!("-f {}: expected more than 1", self.slab_growth_factor));
        }
        if self.slab_min_size == 0 {
            return Err("-n 0: expected at least 1 byte".into());
        }
        Ok(Tuning {
            growth_factor: self.slab_growth_factor,
            chunk_size: self.slab_min_size,
            cas_enabled: !self.disable_cas,
            ..Tuning::default()
        })
    }

    /// A drop-in must be reachable where memcached was; under our own name we are careful.
    fn listens(
        &self,
        as_memcached: bool,
        settings: &Settings,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Listen>, String> {
        if let Some(path) = settings.socket.as_ref().filter(|_| !self.witness) {
            return Ok(vec![Listen::Unix { path: path.clone(), mode: settings.socket_mode }]);
        }
        if self.port == 0 || self.witness {
            return Ok(Vec::new());
        }
        if !self.listen.is_empty() {
            return addresses::listens(&self.listen, self.port);
        }
        let port = addresses::port_number(self.port);
        if !as_memcached {
            return Ok(vec![addresses::loopback(port)]);
        }
        if self.auth_file.is_none() {
            warnings.push("no -l: anybody who reaches this machine can read and change all".into());
        }
        Ok(vec![addresses::everywhere(port)])
    }

    /// Figures are nobody's business outside of this machine, unless somebody says so.
    fn admin(&self, warnings: &mut Vec<String>) -> Result<Option<SocketAddr>, String> {
        let Some(text) = &self.admin_listen else {
            return Ok(None);
        };
        let address = match text.parse::<u16>() {
            Ok(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            Err(_) => group::socket_address("--admin-listen", text)?,
        };
        if !address.ip().is_loopback() {
            warnings.push(format!(
                "--admin-listen {address}: whoever reaches it can read this node's figures; keep it in a network of your own"
            ));
        }
        Ok(Some(address))
    }

    fn process(&self, settings: &Settings) -> process::Options {
        process::Options {
            daemon: self.daemon,
            // memcached's daemon talks on if it was told to talk.
            keep_stderr: self.verbose > 0,
            // In `/` nobody would find, or be allowed to write, a core file.
            keep_directory: self.enable_coredumps,
            pid_file: self.pidfile.as_deref().map(absolute),
            user: self.user.clone(),
            core_dumps: self.enable_coredumps,
            is_child: false,
            lock_memory: self.lock_memory,
            connections_max: settings.connections_max,
        }
    }
}

/// A daemon changes to `/`, and reads some files again later.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

fn item_max(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| (ITEM_MIN..=ITEM_MAX).contains(bytes))
        .ok_or_else(|| format!("-I {text}: expected a size from 1k to 1024m"))
}

fn memory(megabytes: usize, item_max: usize) -> Result<usize, String> {
    let bytes = megabytes
        .checked_mul(1 << 20)
        .ok_or_else(|| format!("-m {megabytes}: more megabytes than there can be"))?;
    if bytes > node::MEMORY_MAX {
        let most = node::MEMORY_MAX >> 20;
        return Err(format!("-m {megabytes}: expected at most {most} megabytes"));
    }
    if bytes / 2 < item_max {
        let least = (2 * item_max).div_ceil(1 << 20);
        return Err(format!(
            "-m {megabytes}: expected at least {least} megabytes, twice the largest item (-I)"
        ));
    }
    Ok(bytes)
}

fn socket_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("-a {text}: expected an octal mask, e.g. 700"))
}

#[cfg(test)]
mod tests;
