//! What is written, decided and sent: mutations, their outcomes, and records.
//!
//! A *mutation* is a client's wish, an *outcome* is what its owner decided, and a *record* is the
//! resulting state of one key, as it is applied by every node. An item lives in a store, a record
//! travels. Generic over the bytes: borrowed from a client's buffer, or owned on a link.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::time::Deadline;
use crate::version::Version;

/// A new state of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<B> {
    /// 1 to 250 bytes.
    pub key: B,
    /// Higher than every earlier version of the key.
    pub version: Version,
    /// What becomes of the key.
    pub change: Change<B>,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change<B> {
    /// The whole item.
    Put {
        /// The CAS unique that clients see.
        cas: u64,
        /// The client's flags, opaque to us.
        flags: u32,
        /// When it ends.
        deadline: Deadline,
        /// The value.
        value: B,
    },
    /// Only the deadline moves; value and CAS unique stay.
    Touch {
        /// The new end.
        deadline: Deadline,
    },
    /// The key is absent from here on.
    Delete,
}

/// How a storage command treats what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreMode {
    /// Always.
    Set,
    /// Only when absent.
    Add,
    /// Only when present.
    Replace,
    /// Behind the present value; flags and deadline stay.
    Append,
    /// Before the present value; flags and deadline stay.
    Prepend,
    /// Only when the CAS unique is still this one.
    Cas(u64),
}

/// Which way an arithmetic command counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Wraps at 2^64.
    Up,
    /// Stops at 0.
    Down,
}

/// A wish to change one key; its owner decides the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation<B> {
    /// set, add, replace, append, prepend, cas.
    Store {
        /// Which of them.
        mode: StoreMode,
        /// The client's flags.
        flags: u32,
        /// When the item ends.
        deadline: Deadline,
        /// The value.
        value: B,
    },
    /// delete.
    Delete,
    /// incr and decr.
    Count {
        /// Which of them.
        direction: Direction,
        /// By how much.
        delta: u64,
    },
    /// touch.
    Touch {
        /// The new end.
        deadline: Deadline,
    },
    /// gat and gats: touch, and answer with the item.
    GetAndTouch {
        /// The new end.
        deadline: Deadline,
    },
}

/// What the owner decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The value is stored.
    Stored,
    /// add found the key, or replace, append, prepend did not.
    NotStored,
    /// The CAS unique has changed.
    Exists,
    /// There is no such item.
    NotFound,
    /// The item is gone.
    Deleted,
    /// The deadline has moved.
    Touched,
    /// The new number.
    Number(u64),
    /// The item that was touched.
    Value {
        /// The client's flags.
        flags: u32,
        /// The CAS unique.
        cas: u64,
        /// The value.
        value: Bytes,
    },
    /// flush_all is done on every node.
    Flushed,
    /// The value to count is not a number.
    NotNumeric,
    /// The item can never fit; an older one is gone.
    TooLarge,
    /// No memory, and evicting was not allowed or not enough; an older one is gone.
    NoMemory,
}

impl<B> Record<B> {
    /// The same record over other bytes: borrowed from owned, or owned from borrowed.
    pub fn map<'a, C>(&'a self, convert: impl Fn(&'a B) -> C) -> Record<C> {
        let change = match &self.change {
            Change::Put { cas, flags, deadline, value } => {
                Change::Put { cas: *cas, flags: *flags, deadline: *deadline, value: convert(value) }
            }
            Change::Touch { deadline } => Change::Touch { deadline: *deadline },
            Change::Delete => Change::Delete,
        };
        Record { key: convert(&self.key), version: self.version, change }
    }
}

impl Record<Bytes> {
    /// Bytes of key and value, for windows and bounds.
    pub fn size(&self) -> usize {
        let value = match &self.change {
            Change::Put { value, .. } => value.len(),
            Change::Touch { .. } | Change::Delete => 0,
        };
        self.key.len() + value
    }
}

impl<B> Mutation<B> {
    /// The same wish over other bytes: borrowed from owned, or owned from borrowed.
    pub fn map<'a, C>(&'a self, convert: impl Fn(&'a B) -> C) -> Mutation<C> {
        match self {
            Self::Store { mode, flags, deadline, value } => Mutation::Store {
                mode: *mode,
                flags: *flags,
                deadline: *deadline,
                value: convert(value),
            },
            Self::Delete => Mutation::Delete,
            Self::Count { direction, delta } => {
                Mutation::Count { direction: *direction, delta: *delta }
            }
            Self::Touch { deadline } => Mutation::Touch { deadline: *deadline },
            Self::GetAndTouch { deadline } => Mutation::GetAndTouch { deadline: *deadline },
        }
    }
}
