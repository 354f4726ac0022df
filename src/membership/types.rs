//! The words of the consensus crate, as they are used here, and our own beside them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// What the consensus crate is told about the register: entries are whole new values.
    pub(super) Types:
        D = Bytes,
        R = (),
        NodeId = u64,
        // A seat's name; where it lives is the outside's business.
        Node = Box<str>,
        SnapshotData = Option<Bytes>,
);

pub(super) type Raft = openraft::Raft<Types>;
pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type LeaderId = openraft::LeaderId<u64>;
pub(super) type Seats = openraft::StoredMembership<u64, Box<str>>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, Box<str>>;
pub(super) type Snapshot = openraft::Snapshot<Types>;
pub(super) type StorageError = openraft::StorageError<u64>;

/// Which log: each founding starts one of its own. A higher number is a later generation; among
/// equal ones the random part decides, so that all nodes prefer the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Founding {
    /// Counts the times that the group had to be founded.
    pub number: u32,
    /// Tells two foundings of the same number apart.
    pub random: u64,
}

/// A node's place in one founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) founding: Founding,
    /// Who founds, while nothing has been agreed yet.
    pub(super) founder: Box<str>,
    /// This node in that log. Never used again once the log is gone: a voter that has forgotten
    /// its vote must not vote twice.
    pub(super) id: u64,
}
