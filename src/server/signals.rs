//! What the operator says by signal: stop, or read passwords and certificates again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::courier::Waiter;
use super::guard::Guard;
use super::{StartError, auth};
use crate::node::Node;

/// The signals that are listened to.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    graceful: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, StartError> {
        let on = |kind| signal(kind).map_err(|error| StartError::System("handle signals", error));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            graceful: on(SignalKind::user_defined1())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Obeys until one says stop. Every stop here is memcached's graceful one:
    /// writes that are on their way are waited for.
    pub(super) async fn until_stop(&mut self, node: &Node<Waiter>, guard: Option<&Guard>) {
        let signal = loop {
            tokio::select! {
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.terminate.recv() => break "SIGTERM",
                _ = self.graceful.recv() => break "SIGUSR1",
                _ = self.hangup.recv() => {
                    auth::reload(node);
                    if let Some(guard) = guard {
                        guard.reload();
                    }
                }
            }
        };
        tracing::info!(signal, "stopping");
    }
}
