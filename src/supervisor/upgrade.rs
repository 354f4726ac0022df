//! A new program: whether it is fit, beside the server or after it, and what becomes of one that does
//! not get to serve.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::*;

/// The word that has a program only look at its command line.
const CHECK: &str = "--check";
/// What a server is told when another program was tried, and it was no good.
const NOT_UPGRADED: &[u8] = b"-";
/// Whoever has to give way has passed its clients on by then.
const GIVE_WAY_MAX: Duration = Duration::from_secs(5);
/// A new program has said what it thinks of the command line by then.
pub(super) const CHECK_MAX: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Has the program that is there now look at the command line; nothing else happens yet.
    pub(super) fn try_program(&mut self) {
        let is_beside = self.successor.is_some() || self.retiring.is_some();
        if self.is_stopping || self.is_replacing || is_beside || self.trial.is_some() {
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
    pub(super) fn tell_of_failure(&self) {
        let news = self.server.as_ref().and_then(|server| server.news.as_ref());
        if let Some(Err(error)) = news.map(|mut news| news.write_all(NOT_UPGRADED)) {
            tracing::debug!(%error, "the server is not told that it is not upgraded");
        }
    }

    pub(super) fn end_slow_trial(&mut self) {
        if let Some((child, since)) = &mut self.trial
            && since.elapsed() >= CHECK_MAX
            && let Err(error) = child.kill()
        {
            tracing::warn!(%error, "the new program cannot be ended");
        }
    }

    pub(super) fn look_at_trial(&mut self) {
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
            // What it was started from may have been replaced or removed since.
            self.former = File::open(format!("/proc/{}/exe", server.child.id())).ok();
            self.probation_ends = None;
            if self.has_memory_for_two() {
                self.begin_beside();
            } else {
                tracing::info!("the server ends, and the new program begins");
                self.is_upgrading = true;
                self.replace();
            }
        } else {
            // It is what is started next.
            self.is_back = false;
        }
    }

    /// Whether a new program is to be started beside the server, and can be.
    fn has_memory_for_two(&self) -> bool {
        let Some(needed) = self.options.beside else {
            return false;
        };
        let is_there = available_memory().is_none_or(|available| available >= needed);
        if !is_there {
            tracing::warn!(
                needed_mib = needed >> 20,
                "there is no memory for a second server beside this one: until the new one is filled, \
                 the group has one copy less"
            );
        }
        is_there
    }

    /// Starts the new program while the server goes on.
    fn begin_beside(&mut self) {
        let mut command = self.command(&self.program);
        command.env(BESIDE, "1");
        match self.spawn(command) {
            Ok(Ok(successor)) => {
                tracing::info!("the new program begins beside the server");
                self.successor = Some(successor);
                self.probation_ends = Some(Instant::now() + self.options.upgrade_timeout);
            }
            Ok(Err(error)) | Err(Failure::System(_, error)) => {
                tracing::error!(%error, "not upgraded: the new program cannot be run; the server goes on");
                self.tell_of_failure();
            }
            Err(Failure::Child(_)) => {}
        }
    }

    /// Notices that the successor has got the server's place, which ends then.
    pub(super) fn hear_successor(&mut self) {
        if !self.successor.as_mut().is_some_and(Server::has_told) {
            return;
        }
        let Some(successor) = self.successor.take() else {
            return;
        };
        tracing::info!(pid = successor.child.id(), "upgraded: the new program serves");
        self.has_upgraded();
        if let Some(former) = self.server.replace(successor) {
            former.signal(Signal::SIGUSR2);
            self.retiring = Some((former, Instant::now() + GIVE_WAY_MAX));
        }
    }

    /// The present program is the one to start from now on.
    fn stays(&mut self) {
        (self.probation_ends, self.is_back) = (None, true);
    }

    pub(super) fn has_upgraded(&mut self) {
        (self.probation_ends, self.former, self.is_back) = (None, None, false);
    }

    /// Notices the end of those that are not the server, or sees to it.
    pub(super) fn look_at_others(&mut self) {
        if let Some(successor) = &mut self.successor
            && let Some(status) = exit_of(&mut successor.child)
        {
            self.successor = None;
            self.stays();
            let cause = cause(status);
            tracing::error!(%cause, "not upgraded: the new program has ended; the server goes on");
            self.tell_of_failure();
        }
        if let Some((former, due)) = &mut self.retiring {
            if exit_of(&mut former.child).is_some() {
                self.retiring = None;
            } else if *due <= Instant::now() {
                *due += GIVE_WAY_MAX;
                former.signal(Signal::SIGKILL);
            }
        }
    }

    /// The server goes on without it.
    pub(super) fn stop_successor(&mut self) {
        let Some(mut successor) = self.successor.take() else {
            return;
        };
        self.stays();
        if let Err(error) = successor.child.kill().and_then(|()| successor.child.wait()) {
            tracing::warn!(%error, "the new program cannot be ended");
        }
    }

    /// Has the server pass its clients on and end.
    fn replace(&mut self) {
        self.is_replacing = true;
        self.forward(Signal::SIGUSR2);
    }

    pub(super) fn end_probation(&mut self) {
        let now = Instant::now();
        let is_over = self.probation_ends.is_some_and(|ends| ends <= now);
        if is_over && self.successor.is_some() {
            tracing::error!(
                "not upgraded: the new program does not get to serve; the server goes on"
            );
            self.stop_successor();
            self.tell_of_failure();
        } else if is_over && self.falls_back() {
            self.start_at = None;
            self.replace();
            self.kill_at = Some(now + GIVE_WAY_MAX);
        }
        if self.kill_at.take_if(|due| *due <= now).is_some() {
            self.forward(Signal::SIGKILL);
        }
    }

    /// Goes back to the former program, if the present one is new and has not served yet.
    pub(super) fn falls_back(&mut self) -> bool {
        if self.probation_ends.take().is_none() || self.former.is_none() {
            return false;
        }
        tracing::error!(
            "not upgraded: the new program does not get to serve; the former one begins again"
        );
        (self.is_back, self.start_at) = (true, Some(Instant::now()));
        true
    }
}

/// What the system could give without taking from others, in bytes; `None` where it does not say.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
