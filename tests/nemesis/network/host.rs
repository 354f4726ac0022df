//! Hosts of the test's own: a namespace for the network and one for mounts, and a thread inside that
//! does what has to be done there.
//!
//! Nothing of them has a name outside. However the test ends, its threads end with it, what they
//! started is killed, and the kernel takes away the rest.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// Debian's packages for what is called here.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("mount", "mount"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Where a name on the host stands for a process that may do anything there.
pub(crate) struct Host {
    jobs: Sender<Job>,
    thread: Pid,
}

impl Host {
    pub(crate) fn start() -> Result<Self, String> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        // It ends with the last sender of jobs. What it has started is killed then.
        thread::spawn(move || {
            let entered = enter().map(|()| gettid());
            let is_there = entered.is_ok();
            // Whoever asked waits for it.
            let _ = tell.send(entered);
            if is_there {
                queue.into_iter().for_each(|job| job());
            }
        });
        let thread = told.recv().map_err(|_| "the thread of a host has panicked")??;
        Ok(Self { jobs, thread })
    }

    /// By this `ip` knows its network namespace.
    pub(crate) fn thread(&self) -> Pid {
        self.thread
    }

    /// Done there, and waited for.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || drop(tell.send(job()));
        self.jobs.send(Box::new(job)).expect("the thread of a host lives as long as the host");
        told.recv().expect("no job panics")
    }

    /// A program and its arguments, run there.
    pub(crate) fn order(&self, line: impl Into<String>) -> Result<(), String> {
        let line = line.into();
        self.run(move || order(&line))
    }

    /// The same with something to read.
    pub(crate) fn order_with(
        &self,
        line: &'static str,
        input: impl Into<String>,
    ) -> Result<(), String> {
        let input = input.into();
        self.run(move || order_with(line, &input))
    }
}

/// This thread, and what it starts from now on, has a network of its own, and mounts that nobody
/// else sees.
pub(crate) fn enter() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("namespaces are not permitted here: {error}"))?;
    order("mount --make-rprivate /")
}

/// A program and its arguments, by words.
pub(crate) fn order(line: &str) -> Result<(), String> {
    order_with(line, "")
}

fn order_with(line: &str, input: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("an order has a program");
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let package = PACKAGES.iter().find(|(name, _)| *name == program);
        let package = package.map_or("none that is known", |(_, package)| package);
        format!("{program}: {error}; Debian's package is {package}")
    })?;
    let failed = |error: std::io::Error| format!("{line}: {error}");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).map_err(failed)?;
    let Output { status, stderr, .. } = child.wait_with_output().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{line}: {status}: {}", String::from_utf8_lossy(&stderr).trim()))
}
