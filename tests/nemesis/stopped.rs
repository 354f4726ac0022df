//! One thread of a process stands still while the others go on: what a blocked disk, a lost
//! processor or a bug does to a worker. Signals stop whole processes; a tracer stops a thread.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A thread that stands still until this is dropped. Belongs to the thread that has stopped it:
/// the kernel lets nobody else have it go on.
pub(crate) struct StoppedThread(Pid);

/// Looks for a moment at which a thread is in code of its own; on a quiet machine there may be none.
const TRIES: usize = 300;
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

impl StoppedThread {
    /// Stops the thread of this name: if that can be had, outside of system calls, as it holds locks
    /// only there.
    pub(crate) fn stop(process: u32, name: &str) -> Result<Self, String> {
        let thread = find(process, name)?;
        for _ in 0..TRIES {
            let stopped = Self::stop_at_once(thread, name)?;
            if !stopped.is_in_system_call(process)? {
                return Ok(stopped);
            }
            drop(stopped);
            sleep(BETWEEN_TRIES);
        }
        Self::stop_at_once(thread, name)
    }

    fn stop_at_once(thread: Pid, name: &str) -> Result<Self, String> {
        let failed = |what: &str, error: nix::Error| format!("cannot {what} {name}: {error}");
        ptrace::seize(thread, Options::empty()).map_err(|error| failed("trace", error))?;
        let stopped = Self(thread);
        ptrace::interrupt(thread).map_err(|error| failed("stop", error))?;
        waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(|error| failed("wait for", error))?;
        Ok(stopped)
    }

    /// proc(5): the number of the call comes first, and is -1 outside of calls.
    fn is_in_system_call(&self, process: u32) -> Result<bool, String> {
        let file = format!("/proc/{process}/task/{}/syscall", self.0);
        let call = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        Ok(!call.starts_with("-1 "))
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // Fails when its process is gone, which `wait_until_whole` notices.
        let _ = ptrace::detach(self.0, None);
    }
}

fn find(process: u32, name: &str) -> Result<Pid, String> {
    let threads = PathBuf::from(format!("/proc/{process}/task"));
    let failed = |error: std::io::Error| format!("{}: {error}", threads.display());
    for entry in std::fs::read_dir(&threads).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A thread may end while this looks.
        let is_named = std::fs::read_to_string(entry.path().join("comm"))
            .is_ok_and(|found| found.trim_end() == name);
        let number = entry.file_name().to_str().and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|_| is_named) {
            return Ok(Pid::from_raw(number));
        }
    }
    Err(format!("process {process} has no thread {name}"))
}
