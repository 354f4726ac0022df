//! The processes of a group: killed, stopped, continued, asked how they are. Who starts them, and
//! on which network, is not known here.
//!
//! Whatever happens to the test, its processes end with it.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::connection::Connection;

/// A group is whole again by then, even on a busy machine: who was left out often has to wait for
/// up to a minute.
const WHOLE_WAIT: Duration = Duration::from_secs(120);
/// How long a node is given to end by itself.
const END_WAIT: Duration = Duration::from_secs(15);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// The processes of a group; they are killed when it is dropped.
pub(crate) struct Processes {
    folder: PathBuf,
    clients: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    /// Somebody will want to read the logs.
    is_kept: bool,
}

impl Processes {
    /// None yet; each has a folder of its own, where it has to be started.
    pub(crate) fn new(test: &str, clients: Vec<SocketAddr>) -> Result<Self, String> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{test}-{}-{number}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let children = clients.iter().map(|_| None).collect();
        let processes = Self { folder, clients, children, is_kept: false };
        for node in 0..processes.count() {
            let home = processes.home(node);
            std::fs::create_dir_all(&home).map_err(|e| format!("{}: {e}", home.display()))?;
        }
        Ok(processes)
    }

    /// Nodes of the group.
    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    /// Where clients connect to each node.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// The folder of the whole group.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder in which a node is started.
    pub(crate) fn home(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{}", node + 1))
    }

    /// Where a node that is about to be started logs.
    pub(crate) fn open_log(&self, node: usize) -> Result<File, String> {
        assert!(self.children[node].is_none(), "n{} runs already", node + 1);
        let log = OpenOptions::new().create(true).append(true).open(self.log(node));
        log.map_err(|error| format!("the log of n{}: {error}", node + 1))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.home(node).join("log")
    }

    /// A node was started.
    pub(crate) fn put(&mut self, node: usize, child: Child) {
        self.children[node] = Some(child);
    }

    /// Its process, as long as nobody has ended it.
    pub(crate) fn process(&self, node: usize) -> Result<u32, String> {
        let child = self.children[node].as_ref().ok_or_else(|| format!("n{} is dead", node + 1))?;
        Ok(child.id())
    }

    /// `kill -9` of all of these at once; returns when they are gone.
    pub(crate) fn kill(&mut self, nodes: &[usize]) {
        for &node in nodes {
            self.signal(node, Signal::KILL);
        }
        for &node in nodes {
            if let Some(mut child) = self.children[node].take() {
                // It has got a signal that it cannot refuse.
                let _ = child.wait();
            }
        }
    }

    /// SIGTERM; returns when the process has ended, by itself if all is well.
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

    fn signal(&self, node: usize, signal: Signal) {
        if let Some(child) = &self.children[node] {
            // It may have ended by itself; then `wait_until_whole` says so.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Waits until every node says that all are members, in the same view.
    pub(crate) fn wait_until_whole(&mut self) -> Result<(), String> {
        let waited = wait_until("all are members", WHOLE_WAIT, || self.is_whole());
        waited.map_err(|why| format!("{why}\n{}", self.last_words()))
    }

    fn is_whole(&mut self) -> Result<(), String> {
        for (node, child) in self.children.iter_mut().enumerate() {
            let ended = child.as_mut().map(Child::try_wait);
            if !matches!(ended, Some(Ok(None))) {
                return Err(format!("n{} does not run: {ended:?}", node + 1));
            }
        }
        let views: Vec<Vec<String>> =
            (0..self.count()).map(|node| self.view(node)).collect::<Result<_, _>>()?;
        let names: Vec<String> = (1..=self.count()).map(|node| format!("n{node}")).collect();
        let members = format!("members {}", names.join(","));
        let is_member = |view: &Vec<String>| {
            ["state member", &members, "learners "]
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
        let lines = self.stats(node, "stats replication\r\n")?;
        let shown = ["state ", "epoch ", "members ", "learners "];
        Ok(lines.into_iter().filter(|line| shown.iter().any(|s| line.starts_with(s))).collect())
    }

    /// The lines of some `stats`, each a name and a value.
    pub(crate) fn stats(&self, node: usize, request: &str) -> Result<Vec<String>, String> {
        let lines = Connection::open(self.clients[node], Duration::from_secs(1))
            .and_then(|mut connection| connection.lines(request))
            .map_err(|error| format!("n{} does not answer: {error}", node + 1))?;
        Ok(lines.iter().filter_map(|line| line.strip_prefix("STAT ")).map(Into::into).collect())
    }

    /// The ends of the logs.
    pub(crate) fn last_words(&self) -> String {
        let end = |node: usize| {
            let log = std::fs::read_to_string(self.log(node)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(12)..].join("\n  ");
            format!("the log of n{} ends:\n  {last}", node + 1)
        };
        (0..self.count()).map(end).collect::<Vec<_>>().join("\n")
    }

    /// Where the logs are; they stay there.
    pub(crate) fn keep(&mut self) -> &Path {
        self.is_kept = true;
        &self.folder
    }
}

impl Drop for Processes {
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
