//! The end of a server that its clients do not notice: the group does without this node first, then
//! it relays what they say until they close their connections.
//!
//! New clients are let in as long as older ones are there, because a successor may not be able to
//! begin before this process has ended. In the last part of the time nobody is let in any more:
//! where the sockets are held by somebody else too, new clients wait in their queue.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Duration, sleep};

use super::courier::Courier;
use super::{Shared, clock};
use crate::stats::Gauge;

/// How often it is looked whether everybody has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// For the last part of the time, nobody new is let in; a tenth of it, at most this.
const LAST_MAX_MS: u64 = 5000;
/// Clients that are idle at the very end are let go; those that are not get this long.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// How far the end has come; looked at where a connection begins or waits.
#[derive(Debug)]
pub(super) struct State {
    is_draining: AtomicBool,
    is_closing: AtomicBool,
    /// Clients that came while others were waited for.
    late: Gauge,
    /// By worker: whoever accepts there, and whoever serves a connection there.
    doors: Vec<Door>,
}

#[derive(Debug, Default)]
struct Door {
    closes: Notify,
    empties: Notify,
}

impl State {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            late: Gauge::default(),
            doors: (0..workers).map(|_| Door::default()).collect(),
        }
    }

    /// Whether a connection that says nothing is to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Until nobody is to be let in any more.
    pub(super) fn closing_of(&self, worker: usize) -> Notified<'_> {
        self.doors[worker].closes.notified()
    }

    /// Serves a connection, which is looked at once more when it is time to close it.
    pub(super) async fn serving<T>(&self, worker: usize, serve: impl Future<Output = T>) -> T {
        let is_late = self.is_draining.load(Ordering::Relaxed) && self.late.try_take(u64::MAX);
        let mut woken = pin!(self.doors[worker].empties.notified());
        let (mut serve, mut is_known) = (pin!(serve), false);
        let served = poll_fn(|context| {
            if !is_known {
                // Once is enough: a task is always woken in the same way.
                is_known = true;
                let _ = woken.as_mut().poll(context);
            }
            serve.as_mut().poll(context)
        })
        .await;
        if is_late {
            self.late.give_back();
        }
        served
    }
}

impl Shared {
    /// Serves until all clients have gone by themselves, at most for so long.
    pub(super) async fn drain_clients(&self, limit_ms: u64) {
        let since = clock::local();
        let last_ms = (limit_ms / 10).min(LAST_MAX_MS);
        self.drain.is_draining.store(true, Ordering::Relaxed);
        let mut courier = Courier::new(self.links.clone());
        self.node.leave(clock::now(&self.node), &mut courier);
        let is_over = |age_ms: u64| clock::local().since(since) >= age_ms;
        while !(self.has_left() && self.early_clients() == 0) && !is_over(limit_ms - last_ms) {
            sleep(LOOK_AGAIN).await;
        }
        let (has_left, clients) = (self.has_left(), self.node.gauges().connections.get());
        tracing::info!(has_left, clients, "nobody new is let in");
        self.drain.doors.iter().for_each(|door| door.closes.notify_waiters());
        while self.node.gauges().connections.get() > 0 && !is_over(limit_ms) {
            sleep(LOOK_AGAIN).await;
        }
        if self.node.gauges().connections.get() > 0 {
            self.let_go().await;
        }
    }

    fn has_left(&self) -> bool {
        self.node.has_left(clock::now(&self.node))
    }

    /// Clients that were here before the end began.
    fn early_clients(&self) -> u64 {
        self.node.gauges().connections.get().saturating_sub(self.drain.late.get())
    }

    /// Closes what is idle: with an orderly end, as nothing that was said is left unread.
    async fn let_go(&self) {
        let clients = self.node.gauges().connections.get();
        tracing::warn!(clients, "clients stayed too long: their connections are closed");
        self.drain.is_closing.store(true, Ordering::Relaxed);
        self.drain.doors.iter().for_each(|door| door.empties.notify_waiters());
        let gone = async {
            while self.node.gauges().connections.get() > 0 {
                sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, gone).await.is_err() {
            let clients = self.node.gauges().connections.get();
            tracing::warn!(clients, "ended in the middle of commands");
        }
    }
}
