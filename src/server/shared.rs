//! What all tasks of a server share, and when it stops.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use super::courier::{Links, Waiter};
use super::drain::{self, Successor};
use super::guard::Guard;
use super::handover::Passed;
use super::orders::Orders;
use super::signals::{Signals, Told};
use super::{Options, notify};
use crate::node::Node;
use crate::protocol::Stop;
use crate::stats::Gauge;

/// At a stop, writes that are on their way get this long to be confirmed.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// What all tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Arc<Node<Waiter>>,
    pub(super) links: Arc<Links>,
    stopping: AtomicBool,
    stop_wanted: Notify,
    pub(super) drain: drain::State,
    pub(super) orders: Arc<Orders>,
    /// Clients whose writes are on their way.
    pub(super) waiting: Gauge,
    pub(super) write_timeout_ms: u64,
    pub(super) hold_timeout_ms: u64,
}

impl Shared {
    pub(super) fn new(
        options: &Options,
        node: Arc<Node<Waiter>>,
        links: Arc<Links>,
        drain: drain::State,
        orders: Arc<Orders>,
    ) -> Self {
        Self {
            node,
            links,
            stopping: AtomicBool::new(false),
            stop_wanted: Notify::new(),
            drain,
            orders,
            waiting: Gauge::default(),
            write_timeout_ms: options.write_timeout_ms,
            hold_timeout_ms: options.hold_timeout_ms,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A client has said `shutdown`.
    pub(super) fn stop(&self, stop: Stop) {
        tracing::info!(?stop, "stopping: a client said shutdown");
        self.stop_wanted.notify_one();
    }

    /// Until it is told to stop, has served its clients to their end where it should, and has let
    /// writes that are on their way arrive.
    pub(super) async fn until_stop(
        &self,
        signals: &mut Signals,
        guard: Option<&Guard>,
        (to, passed): (Option<UnixStream>, &mut UnboundedReceiver<Passed>),
        limit_ms: u64,
    ) {
        let told = tokio::select! {
            told = signals.until_told(&self.node, guard) => told,
            () = self.orders.until_restart() => Told::GiveWay,
            () = self.stop_wanted.notified() => Told::Stop,
        };
        let to = to.or_else(|| self.orders.heir().and_then(|heir| heir.try_clone().ok()));
        let mut successor = to.map(|to| Successor { to, passed });
        if told == Told::GiveWay && successor.is_some() {
            notify::giving_way();
        } else {
            notify::stopping();
        }
        if told != Told::Stop {
            // Without a successor to take them, clients are served to their end.
            let successor = successor.as_mut().filter(|_| told == Told::GiveWay);
            tokio::select! {
                () = self.drain_clients(successor, limit_ms) => {}
                () = signals.until_interrupted(&self.node, guard) => {}
                () = self.stop_wanted.notified() => {}
            }
        }
        self.stopping.store(true, Ordering::Relaxed);
        let quiet = async {
            // Where nothing can be confirmed, nothing is waited for.
            while self.waiting.get() > 0 && self.node.is_serving() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(STOP_WAIT, quiet).await.is_err() {
            let writes = self.waiting.get();
            tracing::warn!(writes, "stopped before all writes were confirmed");
        }
    }
}
