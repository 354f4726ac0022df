//! Three real processes on loopback.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::processes::Processes;
use super::proxy::Network;
use super::stopped::StoppedThread;

/// Nodes of a group.
pub(crate) const NODES: usize = 3;
/// Worker threads of each.
pub(crate) const WORKERS: usize = 2;

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// As in production.
    Direct,
    /// Through proxies, one for each pair and direction of dialing, which can be told to fail.
    Proxied,
}

/// A running group.
pub(crate) struct Group {
    pub(crate) network: Network,
    pub(crate) processes: Processes,
    listens: Vec<SocketAddr>,
}

impl Group {
    /// Starts three nodes and waits until each is a member.
    pub(crate) fn start(links: Links) -> Result<Self, String> {
        let clients: Vec<SocketAddr> = (0..NODES).map(|_| free_address()).collect();
        let listens: Vec<SocketAddr> = (0..NODES).map(|_| free_address()).collect();
        let network = match links {
            Links::Direct => Network::direct(&listens),
            Links::Proxied => Network::proxied(&listens)?,
        };
        let processes = Processes::new("nemesis", clients)?;
        let mut group = Self { network, processes, listens };
        for node in 0..NODES {
            group.spawn(node)?;
        }
        group.processes.wait_until_whole()?;
        Ok(group)
    }

    /// Starts a node that does not run, under its old name and addresses.
    pub(crate) fn spawn(&mut self, node: usize) -> Result<(), String> {
        let log = self.processes.open_log(node)?;
        self.network.listen(node);
        let child = self.command(node, log).spawn().map_err(|error| error.to_string())?;
        self.processes.put(node, child);
        Ok(())
    }

    fn command(&self, node: usize, log: File) -> Command {
        let peer = |to: usize| match to == node {
            true => format!("n{}={}", to + 1, self.listens[to]),
            false => format!("n{}={}", to + 1, self.network.address(node, to)),
        };
        let peers: Vec<String> = (0..NODES).map(peer).collect();
        let address = self.processes.addresses()[node];
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        command.args(["-l", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-m", "64", "-t", &WORKERS.to_string(), "-v", "--cluster", "nemesis"]);
        // Clients stay connected, and are served by relay meanwhile.
        command.args(["--drain-timeout", "2000"]);
        command.args(["--node-name", &format!("n{}", node + 1), "--peers", &peers.join(",")]);
        command.args(["--peer-listen", &self.listens[node].to_string(), "--state-dir", "state"]);
        command.current_dir(self.processes.home(node));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) fn kill(&mut self, node: usize) {
        self.kill_all(&[node]);
    }

    /// The same for several at once.
    pub(crate) fn kill_all(&mut self, nodes: &[usize]) {
        self.processes.kill(nodes);
        for &node in nodes {
            self.network.refuse(node);
        }
    }

    /// SIGTERM; returns when the process has ended by itself.
    pub(crate) fn terminate(&mut self, node: usize) -> Result<(), String> {
        let ended = self.processes.terminate(node);
        self.network.refuse(node);
        ended
    }

    /// One worker thread stands still until what is returned is dropped.
    pub(crate) fn stop_worker(&self, node: usize, worker: usize) -> Result<StoppedThread, String> {
        StoppedThread::stop(self.processes.process(node)?, &format!("worker-{worker}"))
    }
}

static ADDRESSES: AtomicU32 = AtomicU32::new(0);

/// A loopback address of its own for each listener: connections that go out start from 127.0.0.1,
/// so none of them can take the port between the look and the start, or while a node is dead.
pub(crate) fn free_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().wrapping_mul(0x9e37_79b1).to_be_bytes();
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let ip =
        Ipv4Addr::new(127, high | 1, middle ^ (number >> 8) as u8, low.wrapping_add(number as u8));
    let listener = TcpListener::bind((IpAddr::V4(ip), 0)).expect("a free port on loopback");
    listener.local_addr().expect("a bound listener has an address")
}
