//! The end of a server that its clients do not notice: the group does without this node first, then
//! it relays what they say until they close their connections.
//!
//! Or until they are idle, where another process takes them over (`handover.rs`).
//!
//! New clients are let in as long as older ones are there, because a successor may not be able to
//! begin before this process has ended. In the last part of the time nobody is let in any more:
//! where the sockets are held by somebody else too, new clients wait in their queue.

use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::io::fcntl_dupfd_cloexec;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, sleep};

use super::courier::Courier;
use super::handover::{self, Passed};
use super::{Shared, clock};
use crate::stats::Gauge;

/// How often it is looked whether everybody has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// For the last part of the time, nobody new is let in; a tenth of it, at most this.
const LAST_MAX_MS: u64 = 5000;
/// A client whose command is not done by then does not go over.
const PASS_MAX_MS: u64 = 2000;
/// Clients that are idle at the very end are let go; those that are not get this long.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// How far the end has come; looked at where a connection begins or waits.
#[derive(Debug)]
pub(super) struct State {
    is_draining: AtomicBool,
    /// What becomes of clients that are idle.
    idle: AtomicU8,
    passed: UnboundedSender<Passed>,
    /// Clients that came while others were waited for.
    late: Gauge,
    /// By worker: whoever accepts there, and whoever serves a connection there.
    doors: Vec<Door>,
}

/// Idle clients are served on, passed on, or let go.
const SERVED: u8 = 0;
const PASSED_ON: u8 = 1;
const LET_GO: u8 = 2;

/// Another process that goes on with the clients.
#[derive(Debug)]
pub(super) struct Successor<'a> {
    /// Where its clients are sent.
    pub(super) to: UnixStream,
    /// Those that are on their way.
    pub(super) passed: &'a mut UnboundedReceiver<Passed>,
}

#[derive(Debug, Default)]
struct Door {
    closes: Notify,
    empties: Notify,
}

impl State {
    pub(super) fn new(workers: usize) -> (Self, UnboundedReceiver<Passed>) {
        let (passed, receiver) = unbounded_channel();
        let state = Self {
            is_draining: AtomicBool::new(false),
            idle: AtomicU8::new(SERVED),
            passed,
            late: Gauge::default(),
            doors: (0..workers).map(|_| Door::default()).collect(),
        };
        (state, receiver)
    }

    /// Whether this is the end of a connection that says nothing, perhaps in the midst of a command.
    pub(super) fn ends(&self, is_between_commands: bool) -> bool {
        match self.idle.load(Ordering::Relaxed) {
            SERVED => false,
            PASSED_ON => is_between_commands,
            _ => true,
        }
    }

    /// Whether clients that only listen are let go, as nothing could end what they have begun.
    pub(super) fn ends_listeners(&self) -> bool {
        self.idle.load(Ordering::Relaxed) != SERVED
    }

    /// Whether clients go on with another process.
    pub(super) fn is_passing_on(&self) -> bool {
        self.idle.load(Ordering::Relaxed) == PASSED_ON
    }

    /// A client goes on with another process; here its connection is over.
    pub(super) fn pass_on(&self, stream: &impl AsFd, is_logged_in: bool) {
        match fcntl_dupfd_cloexec(stream, 0) {
            // Whoever receives it ends with the process.
            Ok(socket) => drop(self.passed.send(Passed { socket, is_logged_in })),
            Err(error) => tracing::warn!(%error, "a client is not passed on"),
        }
    }

    /// From now on this becomes of clients that are idle; all are looked at.
    fn set_idle(&self, idle: u8) {
        self.idle.store(idle, Ordering::Relaxed);
        self.doors.iter().for_each(|door| door.empties.notify_waiters());
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
    /// Serves until all clients have gone by themselves, or to the successor; at most for so long.
    pub(super) async fn drain_clients(&self, successor: Option<&mut Successor<'_>>, limit_ms: u64) {
        let since = clock::local();
        let last_ms = (limit_ms / 10).min(LAST_MAX_MS);
        self.drain.is_draining.store(true, Ordering::Relaxed);
        let mut courier = Courier::new(self.links.clone());
        self.node.leave(clock::now(&self.node), &mut courier);
        let is_over = |age_ms: u64| clock::local().since(since) >= age_ms;
        let is_enough = || self.has_left() && (successor.is_some() || self.early_clients() == 0);
        while !is_enough() && !is_over(limit_ms - last_ms) {
            sleep(LOOK_AGAIN).await;
        }
        let (has_left, clients) = (self.has_left(), self.clients());
        tracing::info!(has_left, clients, "nobody new is let in");
        self.drain.doors.iter().for_each(|door| door.closes.notify_waiters());
        match successor {
            Some(successor) => {
                // Nobody new is served meanwhile.
                let last_at_ms = clock::local().since(since) + PASS_MAX_MS.min(limit_ms);
                self.pass_clients_on(successor, || is_over(last_at_ms)).await;
            }
            None => {
                while self.clients() > 0 && !is_over(limit_ms) {
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
        if self.clients() > 0 {
            self.let_go().await;
        }
    }

    /// Passes each client on as soon as its command is done.
    async fn pass_clients_on(&self, successor: &mut Successor<'_>, is_over: impl Fn() -> bool) {
        self.drain.set_idle(PASSED_ON);
        loop {
            // Together, as far as they come together: each sending takes room.
            sleep(LOOK_AGAIN).await;
            let is_last = self.clients() == 0 || is_over();
            let mut some = Vec::new();
            while let Ok(client) = successor.passed.try_recv() {
                some.push(client);
            }
            if let Err(error) = handover::send(&successor.to, &some) {
                let clients = some.len();
                tracing::error!(%error, clients, "clients cannot be passed on: they are let go");
            }
            if is_last {
                return;
            }
        }
    }

    fn clients(&self) -> u64 {
        self.node.gauges().connections.get()
    }

    fn has_left(&self) -> bool {
        self.node.has_left(clock::now(&self.node))
    }

    /// Clients that were here before the end began.
    fn early_clients(&self) -> u64 {
        self.clients().saturating_sub(self.drain.late.get())
    }

    /// Closes what is idle: with an orderly end, as nothing that was said is left unread.
    async fn let_go(&self) {
        tracing::warn!(clients = self.clients(), "clients stayed too long: they are let go");
        self.drain.set_idle(LET_GO);
        let gone = async {
            while self.clients() > 0 {
                sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, gone).await.is_err() {
            tracing::warn!(clients = self.clients(), "ended in the middle of commands");
        }
    }
}
