//! Three real processes on loopback: started, killed, stopped, continued, asked how they are.
//!
//! Whatever happens to the test, its processes end with it.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::connection::Connection;
use super::proxy::Network;
use super::stopped::StoppedThread;

/// Nodes of a group.
pub(crate) const NODES: usize = 3;
/// Worker threads of each.
pub(crate) const WORKERS: usize = 2;
/// A group is whole again by then, even on a busy machine: who was left out often has to wait for
/// up to a minute.
const WHOLE_WAIT: Duration = Duration::from_secs(120);
/// How long a node is given to end by itself.
const END_WAIT: Duration = Duration::from_secs(15);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// As in production.
    Direct,
    /// Through proxies, one for each pair and direction of dialing, which can be told to fail.
    Proxied,
}

/// A running group; its processes are killed when it is dropped.
pub(crate) struct Group {
    pub(crate) network: Network,
    folder: PathBuf,
    clients: Vec<SocketAddr>,
    listens: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    /// Somebody will want to read the logs.
    is_kept: bool,
}

impl Group {
    /// Starts three nodes and waits until each is a member.
    pub(crate) fn start(links: Links) -> Result<Self, String> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("nemesis-{}-{number}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let clients: Vec<SocketAddr> = (0..NODES).map(|_| free_address()).collect();
        let listens: Vec<SocketAddr> = (0..NODES).map(|_| free_address()).collect();
        let network = match links {
            Links::Direct => Network::direct(&listens),
            Links::Proxied => Network::proxied(&listens)?,
        };
        let children = (0..NODES).map(|_| None).collect();
        let mut group = Self { network, folder, clients, listens, children, is_kept: false };
        for node in 0..NODES {
            std::fs::create_dir_all(group.home(node)).map_err(|error| error.to_string())?;
            group.spawn(node)?;
        }
        group.wait_until_whole()?;
        Ok(group)
    }

    /// Where clients connect to each node.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// Starts a node that does not run, under its old name and addresses.
    pub(crate) fn spawn(&mut self, node: usize) -> Result<(), String> {
        assert!(self.children[node].is_none(), "n{} runs already", node + 1);
        self.network.listen(node);
        let log = OpenOptions::new().create(true).append(true).open(self.log(node));
        let log = log.map_err(|error| format!("the log of n{}: {error}", node + 1))?;
        self.children[node] = Some(self.command(node, log).spawn().map_err(|e| e.to_string())?);
        Ok(())
    }

    fn command(&self, node: usize, log: File) -> Command {
        let peer = |to: usize| match to == node {
            true => format!("n{}={}", to + 1, self.listens[to]),
            false => format!("n{}={}", to + 1, self.network.address(node, to)),
        };
        let peers: Vec<String> = (0..NODES).map(peer).collect();
        let address = self.clients[node];
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        command.args(["-l", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-m", "64", "-t", &WORKERS.to_string(), "-v", "--cluster", "nemesis"]);
        // Clients stay connected, and are served by relay meanwhile.
        command.args(["--drain-timeout", "2000"]);
        command.args(["--node-name", &format!("n{}", node + 1), "--peers", &peers.join(",")]);
        command.args(["--peer-listen", &self.listens[node].to_string(), "--state-dir", "state"]);
        command.current_dir(self.home(node));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) fn kill(&mut self, node: usize) {
        self.kill_all(&[node]);
    }

    /// The same for several at once.
    pub(crate) fn kill_all(&mut self, nodes: &[usize]) {
        for &node in nodes {
            self.signal(node, Signal::KILL);
        }
        for &node in nodes {
            if let Some(mut child) = self.children[node].take() {
                // It has got a signal that it cannot refuse.
                let _ = child.wait();
            }
            self.network.refuse(node);
        }
    }

    /// SIGTERM; returns when the process has ended by itself.
    pub(crate) fn terminate(&mut self, node: usize) -> Result<(), String> {
        self.signal(node, Signal::TERM);
        let Some(mut child) = self.children[node].take() else { return Ok(()) };
        let ended = wait_until("a node ends after SIGTERM", END_WAIT, || {
            child.try_wait().map_err(|error| error.to_string())?.ok_or("it runs".into())
        });
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.network.refuse(node);
        let status = ended?;
        if status.success() { Ok(()) } else { Err(format!("n{} ended with {status}", node + 1)) }
    }

    /// SIGSTOP: it runs no more, and nobody is told.
    pub(crate) fn stop(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    /// One worker thread stands still until what is returned is dropped.
    pub(crate) fn stop_worker(&self, node: usize, worker: usize) -> Result<StoppedThread, String> {
        let child = self.children[node].as_ref().ok_or_else(|| format!("n{} is dead", node + 1))?;
        StoppedThread::stop(child.id(), &format!("worker-{worker}"))
    }

    fn signal(&self, node: usize, signal: Signal) {
        if let Some(child) = &self.children[node] {
            // It may have ended by itself; then `wait_until_whole` says so.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Waits until every node says that all three are members, in the same view.
    pub(crate) fn wait_until_whole(&mut self) -> Result<(), String> {
        let waited = wait_until("all three are members", WHOLE_WAIT, || self.is_whole());
        waited.map_err(|why| format!("{why}\n{}", self.last_words()))
    }

    fn is_whole(&mut self) -> Result<(), String> {
        for node in 0..NODES {
            let child = self.children[node].as_mut();
            let ended = child.map(Child::try_wait);
            if !matches!(ended, Some(Ok(None))) {
                return Err(format!("n{} does not run: {ended:?}", node + 1));
            }
        }
        let views: Vec<Vec<String>> =
            (0..NODES).map(|node| self.view(node)).collect::<Result<_, _>>()?;
        let is_member = |view: &Vec<String>| {
            ["state member", "members n1,n2,n3", "learners "]
                .iter()
                .all(|wanted| view.iter().any(|line| line == wanted))
        };
        let epoch =
            |view: &Vec<String>| view.iter().find(|line| line.starts_with("epoch")).cloned();
        let is_one_view = views.iter().all(|view| epoch(view) == epoch(&views[0]));
        if views.iter().all(is_member) && is_one_view { Ok(()) } else { Err(format!("{views:?}")) }
    }

    /// What a node says of its group, line by line.
    fn view(&self, node: usize) -> Result<Vec<String>, String> {
        let lines = Connection::open(self.clients[node], Duration::from_secs(1))
            .and_then(|mut connection| connection.lines("stats replication\r\n"))
            .map_err(|error| format!("n{} does not answer: {error}", node + 1))?;
        let shown = ["state ", "epoch ", "members ", "learners "];
        let lines = lines.iter().filter_map(|line| line.strip_prefix("STAT "));
        Ok(lines.filter(|line| shown.iter().any(|s| line.starts_with(s))).map(Into::into).collect())
    }

    /// The ends of the logs.
    pub(crate) fn last_words(&self) -> String {
        let end = |node: usize| {
            let log = std::fs::read_to_string(self.log(node)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(12)..].join("\n  ");
            format!("the log of n{} ends:\n  {last}", node + 1)
        };
        (0..NODES).map(end).collect::<Vec<_>>().join("\n")
    }

    fn home(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{}", node + 1))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.home(node).join("log")
    }

    /// Where the logs are; they stay there.
    pub(crate) fn keep(&mut self) -> &Path {
        self.is_kept = true;
        &self.folder
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.is_kept && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Asks again until there is an answer; the error tells why there was none.
pub(crate) fn wait_until<T>(
    what: &str,
    wait: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + wait;
    loop {
        match condition() {
            Ok(met) => return Ok(met),
            Err(why) if Instant::now() > deadline => {
                return Err(format!("not within {wait:?}: {what}: {why}"));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A loopback address of its own for each listener: connections that go out start from 127.0.0.1,
/// so none of them can take the port between the look and the start, or while a node is dead.
pub(crate) fn free_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().wrapping_mul(0x9e37_79b1).to_be_bytes();
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let ip =
        Ipv4Addr::new(127, high | 1, middle ^ (number >> 8) as u8, low.wrapping_add(number as u8));
    let listener = TcpListener::bind((IpAddr::V4(ip), 0)).expect("a free port on loopback");
    listener.local_addr().expect("a bound listener has an address")
}
