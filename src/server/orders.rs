//! What an operator wants of the process, rather than of the node: to begin anew, or to give way to
//! a new program. Somebody else has to start that; who that is, is known here.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;

/// Set by systemd for whatever it has started.
const SYSTEMD: &str = "INVOCATION_ID";

/// See the module.
#[derive(Debug)]
pub(super) struct Orders {
    supervisor: Option<Pid>,
    is_restart_wanted: AtomicBool,
    /// The supervisor has tried another program, and it was no good.
    has_upgrade_failed: AtomicBool,
    wanted: Notify,
}

impl Orders {
    /// `supervisor`: the process that starts this one again.
    pub(super) fn new(supervisor: Option<i32>) -> Self {
        Self {
            supervisor: supervisor.and_then(Pid::from_raw),
            is_restart_wanted: AtomicBool::new(false),
            has_upgrade_failed: AtomicBool::new(false),
            wanted: Notify::new(),
        }
    }

    /// Until the process is to end, and to be started anew.
    pub(super) async fn until_restart(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn is_restart_wanted(&self) -> bool {
        self.is_restart_wanted.load(Ordering::Relaxed)
    }

    /// The supervisor says so.
    pub(super) fn note_failed_upgrade(&self) {
        self.has_upgrade_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_upgrade_failed(&self) -> bool {
        self.has_upgrade_failed.load(Ordering::Relaxed)
    }

    pub(super) fn restart(&self) -> Result<String, String> {
        if self.supervisor.is_none() && std::env::var_os(SYSTEMD).is_none() {
            return Err(
                "nobody would start it again: run it with --supervise, or by systemd".into()
            );
        }
        tracing::info!("restart: an operator wants it");
        self.is_restart_wanted.store(true, Ordering::Relaxed);
        self.wanted.notify_one();
        Ok("the server ends when its clients have gone, and is started anew\n".into())
    }

    pub(super) fn upgrade(&self) -> Result<String, String> {
        let supervisor = self.supervisor.ok_or(
            "there is no supervisor: run it with --supervise; or replace the program, and restart",
        )?;
        self.has_upgrade_failed.store(false, Ordering::Relaxed);
        kill_process(supervisor, Signal::USR2).map_err(|error| {
            format!("the supervisor (pid {}): {error}", supervisor.as_raw_nonzero())
        })?;
        Ok("the supervisor looks at the new program; its log says what comes of it\n".into())
    }
}
