//! What the operator says by signal: end in order, stop, or read passwords and certificates again.

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
    give_way: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, StartError> {
        let on = |kind| signal(kind).map_err(|error| StartError::System("handle signals", error));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            graceful: on(SignalKind::user_defined1())?,
            hangup: on(SignalKind::hangup())?,
            give_way: on(SignalKind::user_defined2())?,
        })
    }

    /// Obeys until one says that this is the end.
    pub(super) async fn until_told(&mut self, node: &Node<Waiter>, guard: Option<&Guard>) -> Told {
        let (signal, told) = loop {
            tokio::select! {
                _ = self.interrupt.recv() => break ("SIGINT", Told::Stop),
                _ = self.terminate.recv() => break ("SIGTERM", Told::Drain),
                _ = self.graceful.recv() => break ("SIGUSR1", Told::Drain),
                _ = self.give_way.recv() => break ("SIGUSR2", Told::GiveWay),
                _ = self.hangup.recv() => reload(node, guard),
            }
        };
        tracing::info!(signal, "stopping");
        told
    }

    /// Until somebody does not want to wait for the end any more. SIGTERM is heard only once: a
    /// supervisor and whoever started it may both say it.
    pub(super) async fn until_interrupted(&mut self, node: &Node<Waiter>, guard: Option<&Guard>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => reload(node, guard),
            }
        }
        tracing::info!(signal = "SIGINT", "stopping at once");
    }
}

fn reload(node: &Node<Waiter>, guard: Option<&Guard>) {
    auth::reload(node);
    if let Some(guard) = guard {
        guard.reload();
        node.note_own_certificate(guard.not_after_s());
    }
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// At once; only writes that are on their way are waited for.
    Stop,
    /// When the clients have closed their connections.
    Drain,
    /// To another process, which takes the clients over.
    GiveWay,
}
