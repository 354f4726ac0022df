//! The small parent that holds the client sockets, so that they outlive the server: it hands copies
//! to a child that serves, and starts another one when that dies, is told to, or is to be replaced.
//!
//! A new program is started beside the server where that is wanted, and has its place when it says so;
//! otherwise the one ends, and the other begins.
//!
//! Knows nothing of what is served: no byte of a client passes through here. One thread, which
//! sleeps until a signal comes or something is due.

mod upgrade;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};
use rustix::process::{Signal as ProcessSignal, set_parent_process_death_signal};

/// What is supervised.
#[derive(Debug)]
pub(crate) struct Options {
    /// How this process was called: its program, then its arguments. The child is called the same.
    pub(crate) arguments: Vec<OsString>,
    /// They listen already; the last two are for clients on their way from one child to the next.
    pub(crate) sockets: Vec<OwnedFd>,
    /// A new program has to serve by then, or the former one begins again.
    pub(crate) upgrade_timeout: Duration,
    /// A new program is started beside the server, and that takes so many bytes once more.
    pub(crate) beside: Option<u64>,
    /// Exit codes of a server that can't start as it is told to: trying again helps nobody.
    pub(crate) hopeless: &'static [u8],
    /// The exit code of a server that wants to be started anew.
    pub(crate) again: u8,
}

/// Why supervision ended, other than in order.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The child has ended with this code, and has said why.
    Child(u8),
    /// The system refuses.
    System(&'static str, io::Error),
}

/// Names the parent to the child, so that it does not supervise in its turn.
const PARENT: &str = "SESSIOND_SUPERVISOR";
/// Tells the child that another one serves, whose place it is to take.
const BESIDE: &str = "SESSIOND_BESIDE";
/// As systemd hands over sockets: so many, from this number on.
const COUNT: &str = "LISTEN_FDS";
const FIRST: RawFd = 3;
/// What is said to this process alone: the child must not take it for its own.
const OF_PARENT: [&str; 4] = ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", BESIDE];

/// A child that has lived for so long did not die of its start.
const SETTLED: Duration = Duration::from_secs(10);
/// Before the second attempt in a row, and doubled with each one after it; the first one is made
/// at once.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether this process is the child of a supervisor. If so, it hears signals again, and is told to
/// end when its parent dies: nobody would be left to start it again.
pub(crate) fn is_child() -> bool {
    let parent = getppid();
    let named = env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    if named != Some(parent.as_raw()) {
        return false;
    }
    if let Err(error) = SigSet::all().thread_unblock() {
        tracing::warn!(%error, "signals will not be heard");
    }
    if let Err(error) = set_parent_process_death_signal(Some(ProcessSignal::TERM)) {
        tracing::warn!(%error, "the end of the supervisor will not be noticed");
    }
    true
}

/// Whether another child serves, beside which this one was started.
pub(crate) fn is_beside() -> bool {
    env::var_os(BESIDE).is_some()
}

/// Holds the sockets and keeps a child until it is told to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let signals = block_signals().map_err(failed("handle signals"))?;
    let mut supervisor = Supervisor {
        program: program(&options.arguments)?,
        options,
        server: None,
        successor: None,
        retiring: None,
        trial: None,
        start_at: Some(Instant::now()),
        deaths: 0,
        former: None,
        probation_ends: None,
        kill_at: None,
        has_served: false,
        is_stopping: false,
        is_replacing: false,
        is_upgrading: false,
        is_back: false,
    };
    supervisor.keep(&signals)
}

fn failed(what: &'static str) -> impl Fn(nix::errno::Errno) -> Failure {
    move |error| Failure::System(what, error.into())
}

/// They wait until they are read. A child starts with them blocked, and undoes it in `is_child`.
fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    [
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The program as it was called, wherever this process goes: what is there later may be newer.
fn program(arguments: &[OsString]) -> Result<PathBuf, Failure> {
    let called = arguments.first().map(PathBuf::from).unwrap_or_default();
    let found = if called.components().count() > 1 {
        std::path::absolute(&called)
    } else {
        // As the shell has found it; where that fails, it is what runs here.
        let folders = env::var_os("PATH").unwrap_or_default();
        let there = env::split_paths(&folders).map(|folder| folder.join(&called));
        let mut there = there.filter(|path| path.is_absolute() && path.is_file());
        there.next().map_or_else(env::current_exe, Ok)
    };
    found.map_err(|error| Failure::System("find the own program", error))
}

struct Supervisor {
    options: Options,
    program: PathBuf,
    server: Option<Server>,
    /// A new program that is to take the server's place, and has not got it yet.
    successor: Option<Server>,
    /// A server whose place another one has, and when it has to have ended.
    retiring: Option<(Server, Instant)>,
    /// A program that looks at the command line before it may replace the server's.
    trial: Option<(Child, Instant)>,
    /// When to start a server, if none runs.
    start_at: Option<Instant>,
    /// In a row, soon after the start.
    deaths: u32,
    /// The program that served before an upgrade, which may prove to have been better.
    former: Option<File>,
    /// When a new program has to serve.
    probation_ends: Option<Instant>,
    /// When a program that was told to give way has to have ended.
    kill_at: Option<Instant>,
    /// Some server has once served, so that the command line is right.
    has_served: bool,
    is_stopping: bool,
    /// The server was told to end so that the program that is there now can begin.
    is_replacing: bool,
    /// And that program is another one than the server's.
    is_upgrading: bool,
    /// The program that is there has failed: the former one is started.
    is_back: bool,
}

struct Server {
    child: Child,
    since: Instant,
    /// It says there, with one letter, that it serves; and is told there of a program that failed.
    news: Option<UnixStream>,
}

impl Supervisor {
    fn keep(&mut self, signals: &SignalFd) -> Result<(), Failure> {
        loop {
            if self.start_at.is_some_and(|due| due <= Instant::now()) {
                self.start()?;
            }
            match self.sleep(signals) {
                Ok(()) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(failed("wait for signals")(error)),
            }
            while let Some(signal) = signals.read_signal().map_err(failed("read signals"))? {
                self.obey(signal.ssi_signo);
            }
            self.end_slow_trial();
            self.look_at_trial();
            self.hear_server();
            self.hear_successor();
            self.end_probation();
            self.look_at_others();
            if let Some(ended) = self.look_at_server() {
                return ended;
            }
            if self.is_stopping && self.server.is_none() {
                return Ok(());
            }
        }
    }

    /// Until a signal comes, a server that is waited for serves, or something is due.
    fn sleep(&self, signals: &SignalFd) -> nix::Result<()> {
        let mut sources = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let servers = [&self.server, &self.successor].into_iter().flatten();
        let news = servers.filter_map(|server| server.news.as_ref());
        sources.extend(news.map(|news| PollFd::new(news.as_fd(), PollFlags::POLLIN)));
        poll(&mut sources, self.patience()).map(drop)
    }

    /// Until something is due.
    fn patience(&self) -> PollTimeout {
        let trial_ends = self.trial.as_ref().map(|(_, since)| *since + upgrade::CHECK_MAX);
        let retires = self.retiring.as_ref().map(|(_, due)| *due);
        let due = [self.start_at, trial_ends, self.probation_ends, self.kill_at, retires]
            .into_iter()
            .flatten()
            .min();
        due.map_or(PollTimeout::NONE, |due| {
            // Rounded up, so that it is due indeed.
            let rest = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(called) = self.options.arguments.first() {
            command.arg0(called);
        }
        command.args(self.options.arguments.iter().skip(1));
        for name in OF_PARENT {
            command.env_remove(name);
        }
        command.env_remove(COUNT);
        command.env(PARENT, std::process::id().to_string());
        command
    }

    /// Starts the server.
    fn start(&mut self) -> Result<(), Failure> {
        self.start_at = None;
        let command = self.command(&self.chosen());
        match self.spawn(command)? {
            Ok(server) => {
                self.server = Some(server);
                if self.is_back {
                    self.tell_of_failure();
                }
            }
            Err(error) if !self.has_served => {
                return Err(Failure::System("start the server", error));
            }
            Err(error) => {
                tracing::error!(program = %self.program.display(), %error, "cannot start the server");
                if !self.falls_back() {
                    self.try_again();
                }
            }
        }
        Ok(())
    }

    /// Starts a server with copies of all sockets. The inner error: it can't be run.
    fn spawn(&self, mut command: Command) -> Result<io::Result<Server>, Failure> {
        let copies = self.options.sockets.iter().map(OwnedFd::try_clone);
        let copies = copies.collect::<io::Result<Vec<_>>>().and_then(|copies| {
            let (news, told) = UnixStream::pair()?;
            news.set_nonblocking(true)?;
            Ok((copies, news, told))
        });
        let (mut copies, news, told) =
            copies.map_err(|error| Failure::System("copy the sockets", error))?;
        copies.push(told.into());
        command.env(COUNT, copies.len().to_string());
        let mapping = |(child_fd, parent_fd): (RawFd, OwnedFd)| FdMapping { parent_fd, child_fd };
        let mappings = (FIRST..).zip(copies).map(mapping).collect();
        if command.fd_mappings(mappings).is_err() {
            unreachable!("every socket has a number of its own");
        }
        Ok(command.spawn().map(|child| {
            tracing::info!(pid = child.id(), "server started");
            Server { child, since: Instant::now(), news: Some(news) }
        }))
    }

    fn obey(&mut self, signal: u32) {
        let signal = i32::try_from(signal).ok().and_then(|signal| Signal::try_from(signal).ok());
        match signal {
            Some(signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGUSR1)) => {
                tracing::info!(%signal, "stopping the server");
                self.is_stopping = true;
                self.start_at = None;
                // Nobody comes after this one: it has to take in whoever waits, or they would wait
                // for nothing.
                self.options.sockets.clear();
                self.stop_successor();
                self.forward(signal);
            }
            Some(Signal::SIGHUP) => {
                self.forward(Signal::SIGHUP);
                self.successor.iter().for_each(|server| server.signal(Signal::SIGHUP));
            }
            Some(Signal::SIGUSR2) => self.try_program(),
            _ => {}
        }
    }

    fn forward(&self, signal: Signal) {
        self.server.iter().for_each(|server| server.signal(signal));
    }

    /// The program to start: what is there, unless that has failed.
    fn chosen(&self) -> PathBuf {
        let former = self.former.as_ref().filter(|_| self.is_back);
        former.map_or_else(
            || self.program.clone(),
            |file| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into(),
        )
    }

    /// Notices that the server serves.
    fn hear_server(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        if !server.has_told() {
            return;
        }
        self.has_served = true;
        if self.successor.is_none() && self.probation_ends.is_some() {
            tracing::info!(pid = server.child.id(), "upgraded: the new program serves");
            self.has_upgraded();
        }
    }

    // The end of a server.

    /// Notices whether it has ended, and what follows. `Some` when there is nothing left to do.
    fn look_at_server(&mut self) -> Option<Result<(), Failure>> {
        let server = self.server.as_mut()?;
        let status = exit_of(&mut server.child)?;
        let lived = server.since.elapsed();
        (self.server, self.kill_at) = (None, None);
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if lived >= SETTLED {
            self.deaths = 0;
        }
        if self.is_stopping {
            self.retiring.iter().for_each(|(former, _)| former.signal(Signal::SIGKILL));
            return Some(
                code.filter(|&code| code != 0 && code != self.options.again)
                    .map_or(Ok(()), |code| Err(Failure::Child(code))),
            );
        }
        let was_told = std::mem::take(&mut self.is_replacing) || code == Some(self.options.again);
        match code {
            _ if code != Some(0) && self.successor.is_some() => {
                // It has all that the server has left, as soon as it notices.
                tracing::error!(cause = %cause(status), "the server has ended: the new program goes on");
                self.server = self.successor.take();
            }
            _ if was_told => {
                if std::mem::take(&mut self.is_upgrading) {
                    self.is_back = false;
                    self.probation_ends = Some(Instant::now() + self.options.upgrade_timeout);
                }
                self.start_at = Some(Instant::now());
            }
            _ if self.falls_back() => {}
            // A client may have said `shutdown`.
            Some(0) => {
                self.stop_successor();
                return Some(Ok(()));
            }
            Some(code) if !self.has_served && self.options.hopeless.contains(&code) => {
                return Some(Err(Failure::Child(code)));
            }
            _ => {
                let (cause, lived_ms) = (cause(status), lived.as_millis() as u64);
                tracing::error!(%cause, lived_ms, "the server has died: starting it again");
                self.try_again();
            }
        }
        None
    }

    /// At once the first time; a server that dies of its start is given ever more time.
    fn try_again(&mut self) {
        self.start_at = Some(Instant::now() + pause_after(self.deaths));
        self.deaths += 1;
    }
}

impl Server {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        if let Err(error) = kill(pid, signal) {
            tracing::warn!(%signal, %error, "the server does not get the signal");
        }
    }

    /// Whether it has just said that it serves, or has its place.
    fn has_told(&mut self) -> bool {
        let mut letter = [0; 1];
        match self.news.as_ref().map(|mut news| news.read(&mut letter)) {
            Some(Ok(1)) => true,
            // It will not say anything any more; its end is noticed by its signal.
            Some(Ok(_)) => {
                self.news = None;
                false
            }
            Some(Err(_)) | None => false,
        }
    }
}

/// How long to wait when so many servers have died soon after their start before this one.
fn pause_after(deaths: u32) -> Duration {
    let doubled = |pauses: u32| PAUSE_FIRST * (1 << pauses.min(16));
    deaths.checked_sub(1).map_or(Duration::ZERO, doubled).min(PAUSE_MAX)
}

/// How the child has ended, if it has.
fn exit_of(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().unwrap_or_else(|error| {
        tracing::warn!(%error, "a child cannot be looked at");
        None
    })
}

fn cause(status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => signal.to_string(),
        _ => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_keeps_dying_is_given_more_and_more_time_up_to_a_bound() {
        let pauses: Vec<u128> = (0..9).map(|deaths| pause_after(deaths).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn a_program_is_found_again_from_anywhere() {
        let relative = program(&["target/sessiond".into()]).unwrap_or_default();
        assert!(relative.is_absolute() && relative.ends_with("target/sessiond"), "{relative:?}");
        let own = env::current_exe().unwrap_or_default();
        assert_eq!(program(&["no-such-program-anywhere".into()]).unwrap_or_default(), own);
        let shell = program(&["sh".into()]).unwrap_or_default();
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
    }
}
