//! Ties the log of views to the node: what is wished for, what was agreed, what peers say of it.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;

use super::PeerOptions;
use super::courier::{Courier, Links, Waiter};
use crate::membership::{self, Membership, StartError};
use crate::node::{self, Node};
use crate::replication::message::{Message, decode_view, encode_view};
use crate::replication::{LogWish, Roster, may_follow};
use crate::time::Millis;

/// The outside of the log.
struct LogOutside {
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    led: Arc<Notify>,
    is_witness: bool,
}

impl membership::Outside for LogOutside {
    fn send(&self, to: &str, frame: Bytes) {
        self.links.send_to(to, Message::Log(frame));
    }

    fn agreed(&self, value: Bytes) {
        match decode_view(&value) {
            Some(view) if self.is_witness => {
                tracing::info!(epoch = view.epoch.0, cause = %view.cause, "view");
                // The node, which is told nothing, would say so.
                self.links.wish(LogWish::Roster(Roster::from(&view)));
            }
            Some(view) => {
                let mut courier = Courier::new(Arc::clone(&self.links));
                self.node.agreed(view, self.links.now(&self.node), &mut courier);
            }
            None => tracing::error!(bytes = value.len(), "what was agreed on is no view"),
        }
    }

    fn leader(&self, name: Option<Box<str>>) {
        match name {
            Some(name) => {
                tracing::info!(%name, "leader of the log of views");
                self.led.notify_one();
            }
            None => tracing::info!("nobody leads the log of views"),
        }
    }
}

/// This node's part in the log: none before `begin`, as long as another life of the node has it.
pub(super) struct Log {
    membership: OnceCell<Membership>,
    status: watch::Sender<membership::Status>,
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    /// Somebody leads now.
    led: Arc<Notify>,
}

/// A view that was proposed while nobody led is proposed again to the first leader within this: the
/// node itself would take a moment longer.
const FRESH_MS: u64 = 500;

impl Log {
    pub(super) fn new(node: Arc<Node<Waiter>>, links: Arc<Links>) -> Self {
        let status = watch::Sender::new(membership::Status::default());
        Self { membership: OnceCell::new(), status, node, links, led: Arc::new(Notify::new()) }
    }

    /// Takes part from now on, on the present `LocalSet`.
    pub(super) async fn begin(&self, peers: &PeerOptions) -> Result<(), StartError> {
        let node::Options { me, seed, .. } = self.node.options();
        let options = membership::Options {
            me: me.name.clone(),
            cluster: peers.cluster.clone(),
            voters: self.links.roster().voters(),
            state_dir: peers.state_dir.clone(),
            timing: membership::Timing::default(),
            // Not the seed itself, which makes versions that clients see.
            seed: seed.rotate_left(32) ^ me.incarnation.0,
        };
        let outside = LogOutside {
            node: Arc::clone(&self.node),
            links: Arc::clone(&self.links),
            led: Arc::clone(&self.led),
            is_witness: peers.is_witness,
        };
        let membership = Membership::start(options, follows, Arc::new(outside)).await?;
        spawn_local(pass_status_on(membership.watch(), self.status.clone()));
        let is_first = self.membership.set(membership).is_ok();
        assert!(is_first, "a life takes part once");
        Ok(())
    }

    /// Where it stands.
    pub(super) fn status(&self) -> membership::Status {
        self.membership.get().map(Membership::status).unwrap_or_default()
    }

    /// The same, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<membership::Status> {
        self.status.subscribe()
    }

    /// Passes on what the node wishes, as long as it lives.
    /// `turn_to` is told of the nodes of the group.
    pub(super) async fn pass_on(
        &self,
        mut wishes: UnboundedReceiver<LogWish>,
        turn_to: impl Fn(Roster),
    ) {
        let mut last: Option<(Bytes, Millis)> = None;
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    None => return,
                    Some(LogWish::Propose(view)) => {
                        tracing::debug!(epoch = view.epoch.0, cause = %view.cause, "proposing");
                        let value = encode_view(&view);
                        self.tell(|log| log.propose(value.clone()));
                        last = Some((value, self.links.local()));
                    }
                    Some(LogWish::FoundLine(view)) => {
                        self.tell(|log| log.found_generation(encode_view(&view)));
                    }
                    Some(LogWish::Roster(roster)) => turn_to(roster),
                    Some(LogWish::Dead(name)) => self.tell(|log| log.peer_dead(&name)),
                },
                () = self.led.notified() => {
                    // If it was agreed on all the same, it follows nothing any more.
                    let now = self.links.local();
                    let is_fresh = |(_, at): &(Bytes, Millis)| now.since(*at) < FRESH_MS;
                    if let Some((value, _)) = last.take().filter(is_fresh) {
                        self.tell(|log| log.propose(value));
                    }
                }
            }
        }
    }

    /// What is said before it takes part is lost; what is still wanted then is said again.
    pub(super) fn tell(&self, what: impl FnOnce(&Membership)) {
        if let Some(membership) = self.membership.get() {
            what(membership);
        }
    }
}

async fn pass_status_on(
    mut from: watch::Receiver<membership::Status>,
    to: watch::Sender<membership::Status>,
) {
    loop {
        to.send_replace(from.borrow_and_update().clone());
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// The rule of the log. A value that this version can't read is followed by nothing: whoever can
/// read it has to go on.
fn follows(present: Option<&[u8]>, proposed: &[u8]) -> bool {
    let Some(proposed) = decode_view(proposed) else {
        return false;
    };
    match present.map(decode_view) {
        None => may_follow(None, &proposed),
        Some(Some(present)) => may_follow(Some(&present), &proposed),
        Some(None) => false,
    }
}
