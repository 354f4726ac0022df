//! The small parent that holds the client sockets, so that they outlive the server: it hands copies
//! to a child that serves, and starts another one when that dies, is told to, or is to be replaced.
//!
//! Knows nothing of what is served: no byte of a client passes through here. One thread, which
//! sleeps until a signal comes or something is due.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
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
/// As systemd hands over sockets: so many, from this number on.
const COUNT: &str = "LISTEN_FDS";
const FIRST: RawFd = 3;
/// What systemd says to this process alone: the child must not take it for another's.
const OF_PARENT: [&str; 3] = ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];
/// The word that has a program only look at its command line.
const CHECK: &str = "--check";

/// What a server is told when another program was tried, and it was no good.
const NOT_UPGRADED: &[u8] = b"-";

/// A child that has lived for so long did not die of its start.
const SETTLED: Duration = Duration::from_secs(10);
/// Before the second attempt in a row, and doubled with each one after it; the first one is made
/// at once.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A new program that does not get to serve has passed its clients on by then.
const GIVE_WAY_MAX: Duration = Duration::from_secs(5);
/// A new program has said what it thinks of the command line by then.
const CHECK_MAX: Duration = Duration::from_secs(10);

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

/// Holds the sockets and keeps a child until it is told to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let signals = block_signals().map_err(failed("handle signals"))?;
    let mut supervisor = Supervisor {
        program: program(&options.arguments)?,
        options,
        server: None,
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
            self.end_probation();
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
        if let Some(news) = self.server.as_ref().and_then(|server| server.news.as_ref()) {
            sources.push(PollFd::new(news.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut sources, self.patience()).map(drop)
    }

    /// Until something is due.
    fn patience(&self) -> PollTimeout {
        let trial_ends = self.trial.as_ref().map(|(_, since)| *since + CHECK_MAX);
        let due = [self.start_at, trial_ends, self.probation_ends, self.kill_at]
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

    /// Starts a server with copies of all sockets.
    fn start(&mut self) -> Result<(), Failure> {
        self.start_at = None;
        let mut command = self.command(&self.chosen());
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
        match command.spawn() {
            Ok(child) => {
                tracing::info!(pid = child.id(), "server started");
                let since = Instant::now();
                self.server = Some(Server { child, since, news: Some(news) });
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
                self.forward(signal);
            }
            Some(Signal::SIGHUP) => self.forward(Signal::SIGHUP),
            Some(Signal::SIGUSR2) => self.try_program(),
            _ => {}
        }
    }

    fn forward(&self, signal: Signal) {
        let Some(server) = &self.server else {
            return;
        };
        let pid = Pid::from_raw(server.child.id().cast_signed());
        if let Err(error) = kill(pid, signal) {
            tracing::warn!(%signal, %error, "the server does not get the signal");
        }
    }

    // A new program.

    /// Has the program that is there now look at the command line; nothing else happens yet.
    fn try_program(&mut self) {
        if self.is_stopping || self.is_replacing || self.trial.is_some() {
            tracing::warn!("not upgraded: the server is being replaced or stopped already");
            return;
        }
        match File::open(&self.program).and_then(|_| self.command(&self.program).arg(CHECK).spawn())
        {
            Ok(child) => self.trial = Some((child, Instant::now())),
            Err(error) => {
                let program = self.program.display();
                tracing::error!(%program, %error, "not upgraded: the new program cannot be run; the server goes on");
                self.tell_of_failure();
            }
        }
    }

    /// Whoever waits for the upgrade asks the server how it stands.
    fn tell_of_failure(&self) {
        let news = self.server.as_ref().and_then(|server| server.news.as_ref());
        if let Some(Err(error)) = news.map(|mut news| news.write_all(NOT_UPGRADED)) {
            tracing::debug!(%error, "the server is not told that it is not upgraded");
        }
    }

    fn end_slow_trial(&mut self) {
        if let Some((child, since)) = &mut self.trial
            && since.elapsed() >= CHECK_MAX
            && let Err(error) = child.kill()
        {
            tracing::warn!(%error, "the new program cannot be ended");
        }
    }

    fn look_at_trial(&mut self) {
        let Some((child, _)) = &mut self.trial else {
            return;
        };
        let Some(status) = exit_of(child) else {
            return;
        };
        self.trial = None;
        if !status.success() {
            let program = self.program.display();
            tracing::error!(%program, %status, "not upgraded: the new program does not take this command line; the server goes on");
            return self.tell_of_failure();
        }
        if !self.is_stopping
            && let Some(server) = &self.server
        {
            tracing::info!("the server ends, and the new program begins");
            // What it was started from may have been replaced or removed since.
            self.former = File::open(format!("/proc/{}/exe", server.child.id())).ok();
            self.probation_ends = None;
            self.is_upgrading = true;
            self.replace();
        } else {
            // It is what is started next.
            self.is_back = false;
        }
    }

    /// Has the server pass its clients on and end.
    fn replace(&mut self) {
        self.is_replacing = true;
        self.forward(Signal::SIGUSR2);
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
        let mut letter = [0; 1];
        match server.news.as_ref().map(|mut news| news.read(&mut letter)) {
            Some(Ok(1)) => {}
            // It will not say anything any more; its end is noticed by its signal.
            Some(Ok(_)) => return server.news = None,
            Some(Err(_)) | None => return,
        }
        self.has_served = true;
        if self.probation_ends.take().is_some() {
            tracing::info!(pid = server.child.id(), "upgraded: the new program serves");
            self.former = None;
        }
    }

    fn end_probation(&mut self) {
        let now = Instant::now();
        if self.probation_ends.is_some_and(|ends| ends <= now) && self.falls_back() {
            self.start_at = None;
            self.replace();
            self.kill_at = Some(now + GIVE_WAY_MAX);
        }
        if self.kill_at.take_if(|due| *due <= now).is_some() {
            self.forward(Signal::SIGKILL);
        }
    }

    /// Goes back to the former program, if the present one is new and has not served yet.
    fn falls_back(&mut self) -> bool {
        if self.probation_ends.take().is_none() || self.former.is_none() {
            return false;
        }
        tracing::error!(
            "not upgraded: the new program does not get to serve; the former one begins again"
        );
        (self.is_back, self.start_at) = (true, Some(Instant::now()));
        true
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
            return Some(
                code.filter(|&code| code != 0 && code != self.options.again)
                    .map_or(Ok(()), |code| Err(Failure::Child(code))),
            );
        }
        let was_told = std::mem::take(&mut self.is_replacing) || code == Some(self.options.again);
        match code {
            _ if was_told => {
                if std::mem::take(&mut self.is_upgrading) {
                    self.is_back = false;
                    self.probation_ends = Some(Instant::now() + self.options.upgrade_timeout);
                }
                self.start_at = Some(Instant::now());
            }
            _ if self.falls_back() => {}
            // A client may have said `shutdown`.
            Some(0) => return Some(Ok(())),
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
