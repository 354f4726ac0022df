//! Every node holds every item: who orders a change, and when it counts as done.
//!
//! Two state machines without sockets, clocks or locks. `Group` (one per node) agrees with its
//! peers on the view, `Lane` (one per shard) moves records within a view. Both are driven by
//! inputs and speak through `Outside`; a lane reads and writes items through `Items`.
//! The rules and their reasons are in `docs/replication.md`.

mod dialect;
mod group;
mod lane;
mod lease;
pub mod link;
pub mod message;
mod nodes;
mod pace;
mod rules;
mod view;

pub use dialect::{Dialect, Features};
pub use group::{Group, GroupOptions, GroupStatus, PeerStatus, Timing, Todo};
pub use lane::{Backlog, Event, Lane, LaneOptions, SyncFigures, Violation};
pub use lease::Lease;
pub use message::{Hello, Message};
pub use nodes::{NAME_MAX, NODES_MAX, Nodes, NodesChange, Place, Roster, names};
pub use pace::Pace;
pub use rules::Rules;
pub use view::{CAUSES, Incarnation, Line, Member, View, may_follow};

use bytes::Bytes;

use crate::key::{Key, KeyHash};
use crate::record::{Digest, Mutation, Outcome, Record};
use crate::time::{Millis, Now};
use crate::version::{Version, Versions};

/// Where a state machine's words go. Called under a lock: it must neither block nor do I/O.
pub trait Outside<W> {
    /// Sends a message; one that can't be delivered any more is dropped.
    fn send(&mut self, to: Incarnation, message: Message);
    /// Sends a message about a lane to several.
    fn send_all(&mut self, to: impl Iterator<Item = Incarnation>, message: Message) {
        to.for_each(|to| self.send(to, message.clone()));
    }
    /// Answers a client that was told to wait.
    fn answer(&mut self, waiter: W, outcome: Outcome);
    /// Whether that client has not given up yet.
    fn still_waits(&self, waiter: &W) -> bool;
    /// Asks something of the log of views.
    fn ask_log(&mut self, wish: LogWish);
    /// The local time at this very moment: what proves a read has to be younger than the value.
    fn local_time(&self) -> Millis;
}

/// What the log of views is asked for. A wish may be lost: what is still wanted is asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogWish {
    /// Agree on this view, if it still follows the present one.
    Propose(Box<View>),
    /// Begin a new log with this view: nobody else is left.
    FoundLine(Box<View>),
    /// Not of the log: these are the nodes of the group from now on. Those that vote are to be its
    /// voters.
    Roster(Roster),
    /// That node is certainly dead; should it lead the log, somebody else has to.
    Dead(Box<str>),
}

/// The items of one lane, as replication sees them.
pub trait Items {
    /// Decides a mutation as the key's owner, and applies what it changes.
    fn decide(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<Bytes>,
        versions: &mut Versions,
    ) -> Decision;
    /// Applies what the key's owner decided, unless something newer is there.
    fn apply(&mut self, record: &Record<Bytes>);
    /// Whether something has gone for lack of memory since then.
    fn has_lost(&self) -> bool;
    /// What has gone for lack of memory since the last call, with the versions that went.
    fn take_lost(&mut self) -> Vec<(Bytes, Version)>;
    /// Somebody uses this item.
    fn bump(&mut self, key: Key<'_>);
    /// The present state of a key as a record of its whole item; `None` when it is absent.
    fn current(&mut self, key: Key<'_>) -> Option<Record<Bytes>>;
    /// What is in that slot, in short.
    fn digest(&self, slot: usize) -> Digest;
    /// The wanted items among some from `cursor` on, a bounded number and about `bytes` at most, and
    /// where to go on.
    fn scan(
        &mut self,
        cursor: u64,
        bytes: usize,
        wanted: &dyn Fn(KeyHash) -> bool,
    ) -> (Vec<Record<Bytes>>, Option<u64>);
    /// Drops the unwanted items among some from `cursor` on, a bounded number, as if they had never
    /// been there; how many, and where to go on.
    fn drop_some(
        &mut self,
        cursor: u64,
        is_unwanted: &dyn Fn(KeyHash, Version) -> bool,
    ) -> (u64, Option<u64>);
    /// Everything older is absent from now on.
    fn set_floor(&mut self, floor: Version);
    /// Forgets everything.
    fn wipe(&mut self);
    /// When the input came that is being worked on.
    fn now(&self) -> Now;
}

/// What an owner decided.
#[derive(Debug)]
pub struct Decision {
    /// For the client.
    pub outcome: Outcome,
    /// For the other nodes; `None` when nothing has changed.
    pub record: Option<Record<Bytes>>,
}
