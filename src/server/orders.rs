//! What an operator wants of the process, rather than of the node: to begin anew, or to give way to
//! a new program. Somebody else has to start that; who that is, is known here.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;

use super::listener::Listener;
use super::takeover;

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
    /// Where clients are let in, as long as they are.
    listeners: OnceLock<Vec<Weak<Listener>>>,
    /// Another process that goes on; none once this one ends for another reason.
    heir: OnceLock<Option<UnixStream>>,
}

impl Orders {
    /// `supervisor`: the process that starts this one again.
    pub(super) fn new(supervisor: Option<i32>) -> Self {
        Self {
            supervisor: supervisor.and_then(Pid::from_raw),
            is_restart_wanted: AtomicBool::new(false),
            has_upgrade_failed: AtomicBool::new(false),
            wanted: Notify::new(),
            listeners: OnceLock::new(),
            heir: OnceLock::new(),
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

    /// Clients are let in there.
    pub(super) fn note_listeners(&self, listeners: Vec<Weak<Listener>>) {
        // Once: they are opened once.
        let _ = self.listeners.set(listeners);
    }

    /// Whether another process may be given what this one has.
    pub(super) fn may_give_way(&self) -> Result<String, String> {
        match self.supervisor {
            Some(_) => Err("its supervisor would start it again: use sessiond ctl upgrade".into()),
            None if self.heir.get().is_some() => Err("it is ending already".into()),
            None => Ok(String::new()),
        }
    }

    /// Gives the client sockets to another process, and has this one end. If that can't be, nothing
    /// has happened.
    pub(super) fn give_way_to(&self, heir: UnixStream) -> Result<(), (UnixStream, String)> {
        let listeners = self.listeners.get().map(Vec::as_slice).unwrap_or_default();
        if let Err(error) = takeover::give(listeners, &heir) {
            return Err((heir, format!("the client sockets cannot be given away: {error}")));
        }
        match self.heir.set(Some(heir)) {
            Ok(()) => {
                tracing::info!("another process takes over");
                self.wanted.notify_one();
                Ok(())
            }
            // The end has come in between. What is not given back cannot be here.
            Err(heir) => {
                takeover::keep(listeners);
                heir.map_or(Ok(()), |heir| Err((heir, "it is ending already".into())))
            }
        }
    }

    /// The process that goes on with the clients; from now on there will be no other.
    pub(super) fn heir(&self) -> Option<&UnixStream> {
        self.heir.get_or_init(|| None).as_ref()
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
