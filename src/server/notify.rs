//! Tells systemd how the server stands, where it was started by that: ready, stopping, alive, and a
//! line for `systemctl status`; and the supervisor, where there is one, that it serves. Where there is
//! neither, this does nothing.

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use sd_notify::NotifyState;
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::clock;
use super::courier::Waiter;
use super::orders::Orders;
use crate::node::Node;

/// How often it is looked whether there is news.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// In microseconds, how long systemd waits for a sign of life; and whose.
const WATCHDOG_US: &str = "WATCHDOG_USEC";
const WATCHDOG_OF: &str = "WATCHDOG_PID";
/// A sign of life comes this often within that time.
const SIGNS: u64 = 3;
/// What this process and the supervisor say to each other.
const SERVES: u8 = b'+';
const NOT_UPGRADED: u8 = b'-';

/// The end has begun.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: clients are served to their end"),
    ]);
}

/// Another process goes on: systemd must not take this for the end of the service.
pub(super) fn giving_way() {
    tell(&[NotifyState::Status("restarting")]);
}

/// Tells of everything that changes, for ever. Ready is who answers clients: a member, or a node
/// alone; a witness has none.
pub(super) async fn keep_telling(
    node: &Node<Waiter>,
    is_witness: bool,
    mut supervisor: Option<UnixStream>,
    orders: &Orders,
) {
    let made = supervisor.as_ref().map(|it| it.set_nonblocking(true));
    if let Some(Err(error)) = made {
        tracing::warn!(%error, "the supervisor is not heard");
        supervisor = None;
    }
    if env::var_os("NOTIFY_SOCKET").is_none() && supervisor.is_none() {
        return std::future::pending().await;
    }
    let sign_every_ms = watchdog_ms().map(|ms| (ms / SIGNS).max(1));
    let mut ticks = interval(LOOK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut is_ready, mut signed) = (String::new(), false, clock::local());
    loop {
        ticks.tick().await;
        let is_serving = is_witness || node.is_serving();
        if is_serving && !std::mem::replace(&mut is_ready, true) {
            tell(&[NotifyState::Ready]);
            if let Some(Err(error)) = supervisor.as_ref().map(|mut it| it.write_all(&[SERVES])) {
                tracing::debug!(%error, "the supervisor is not told");
            }
        }
        let mut letter = [0];
        if let Some(Ok(1)) = supervisor.as_ref().map(|mut it| it.read(&mut letter))
            && letter == [NOT_UPGRADED]
        {
            orders.note_failed_upgrade();
        }
        let status = status(node, is_witness, is_serving);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if sign_every_ms.is_some_and(|ms| clock::local().since(signed) >= ms) {
            signed = clock::local();
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn status(node: &Node<Waiter>, is_witness: bool, is_serving: bool) -> String {
    if node.options().nodes.is_empty() {
        return "serving, alone".into();
    }
    if is_witness {
        return "voting".into();
    }
    let view = node.view();
    let members = view.members.iter().map(|member| &*member.name).collect::<Vec<_>>().join(" ");
    match (is_serving, members.is_empty()) {
        (true, _) => format!("member of {members}"),
        (false, true) => "waiting for the other nodes".into(),
        (false, false) => format!("not a member: asking {members}"),
    }
}

/// The time within which this very process has to give a sign.
fn watchdog_ms() -> Option<u64> {
    let is_other = |pid: String| pid != std::process::id().to_string();
    if env::var(WATCHDOG_OF).is_ok_and(is_other) {
        return None;
    }
    let us: u64 = env::var(WATCHDOG_US).ok()?.parse().ok()?;
    (us > 0).then_some(us / 1000)
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::debug!(%error, "systemd is not told");
    }
}
