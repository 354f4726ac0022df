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
        /// What the meta commands remember of it.
        marks: Marks,
        /// The value.
        value: B,
    },
    /// Everything but value and flags.
    Meta {
        /// The CAS unique that clients see.
        cas: u64,
        /// The new end.
        deadline: Deadline,
        /// What the meta commands remember of it.
        marks: Marks,
    },
    /// The key is absent from here on.
    Delete,
}

/// What the meta commands remember of an item (memcached's protocol.txt, "stale" and "win").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Somebody has declared it out of date.
    pub is_stale: bool,
    /// Somebody has been told to renew it.
    pub is_won: bool,
    /// Its key was written in base64 and is shown so.
    pub has_binary_key: bool,
}

/// The items of one slot, in short: equal on two nodes if they hold the same there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many there are.
    pub items: u32,
    /// The sum of their hashes, each of key, version, CAS unique, deadline and length of the value.
    pub sum: u64,
}

impl Digest {
    /// Whether there is nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
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
}

/// Which way an arithmetic command counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Wraps at 2^64.
    Up,
    /// Stops at 0.
    Down,
}

/// What a command may ask for besides its main effect; the text commands leave it empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Go on only if the CAS unique is still this one.
    pub compare: Option<u64>,
    /// The new CAS unique, instead of one from the version.
    pub cas: Option<u64>,
    /// Where there is no item, make one that ends then.
    pub vivify: Option<Deadline>,
    /// The new end of the item.
    pub touch: Option<Deadline>,
    /// Mark as stale: with an older `compare` when storing, or instead of deleting.
    pub is_stale: bool,
    /// The key was written in base64.
    pub has_binary_key: bool,
}

/// A wish to change one key; its owner decides the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation<B> {
    /// set, add, replace, append, prepend, cas, ms.
    Store {
        /// Which of them.
        mode: StoreMode,
        /// The client's flags.
        flags: u32,
        /// When the item ends.
        deadline: Deadline,
        /// Under which terms.
        terms: Terms,
        /// The value.
        value: B,
    },
    /// delete, md.
    Delete {
        /// Under which terms.
        terms: Terms,
        /// Leave the item there, with these flags and without its value.
        empty: Option<u32>,
    },
    /// incr, decr, ma.
    Count {
        /// Which way.
        direction: Direction,
        /// By how much.
        delta: u64,
        /// What an item that is made begins with.
        initial: u64,
        /// Under which terms.
        terms: Terms,
    },
    /// touch.
    Touch {
        /// The new end.
        deadline: Deadline,
    },
    /// gat, gats, mg where it changes something: answer with the item.
    Fetch {
        /// Under which terms.
        terms: Terms,
        /// Whoever finds an item that ends before this is told to renew it.
        recache: Deadline,
    },
    /// get, gets, where the own copy proves nothing: answer with the item, and change nothing.
    Read,
}

/// What the owner decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The value is stored.
    Stored {
        /// Its CAS unique.
        cas: u64,
        /// Bytes of the whole value.
        size: u32,
    },
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
    Number {
        /// It.
        value: u64,
        /// The item's CAS unique.
        cas: u64,
        /// When the item ends.
        deadline: Deadline,
    },
    /// The item that was fetched.
    Item(Box<Fetched>),
    /// flush_all is done on every node.
    Flushed,
    /// The value to count is not a number.
    NotNumeric,
    /// No memory, and evicting was not allowed or not enough; an older one is gone.
    NoMemory,
}

impl Outcome {
    /// For remembering: an item's value can be read again.
    pub fn without_value(&self) -> Self {
        match self {
            Self::Item(item) => {
                Self::Item(Box::new(Fetched { sight: item.sight, value: Bytes::new() }))
            }
            other => other.clone(),
        }
    }
}

/// An item on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// All but the value.
    pub sight: Sight,
    /// The value.
    pub value: Bytes,
}

/// What a client may see of an item besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The CAS unique.
    pub cas: u64,
    /// The client's flags.
    pub flags: u32,
    /// When it ends.
    pub deadline: Deadline,
    /// Before this command.
    pub marks: Marks,
    /// This client is told to renew the item.
    pub wins: bool,
    /// It was read before.
    pub was_fetched: bool,
    /// Seconds since it was last used.
    pub idle_s: u32,
}

impl<B> Record<B> {
    /// The same record over other bytes: borrowed from owned, or owned from borrowed.
    pub fn map<'a, C>(&'a self, mut convert: impl FnMut(&'a B) -> C) -> Record<C> {
        let change = match &self.change {
            Change::Put { cas, flags, deadline, marks, value } => Change::Put {
                cas: *cas,
                flags: *flags,
                deadline: *deadline,
                marks: *marks,
                value: convert(value),
            },
            Change::Meta { cas, deadline, marks } => {
                Change::Meta { cas: *cas, deadline: *deadline, marks: *marks }
            }
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
            Change::Meta { .. } | Change::Delete => 0,
        };
        self.key.len() + value
    }
}

impl<B> Mutation<B> {
    /// The same wish over other bytes: borrowed from owned, or owned from borrowed.
    pub fn map<'a, C>(&'a self, mut convert: impl FnMut(&'a B) -> C) -> Mutation<C> {
        match self {
            Self::Store { mode, flags, deadline, terms, value } => Mutation::Store {
                mode: *mode,
                flags: *flags,
                deadline: *deadline,
                terms: *terms,
                value: convert(value),
            },
            Self::Delete { terms, empty } => Mutation::Delete { terms: *terms, empty: *empty },
            Self::Count { direction, delta, initial, terms } => Mutation::Count {
                direction: *direction,
                delta: *delta,
                initial: *initial,
                terms: *terms,
            },
            Self::Touch { deadline } => Mutation::Touch { deadline: *deadline },
            Self::Fetch { terms, recache } => Mutation::Fetch { terms: *terms, recache: *recache },
            Self::Read => Mutation::Read,
        }
    }
}
