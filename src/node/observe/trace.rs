//! A mutation that somebody looks at: what it was about, kept until its outcome is known.

use super::{Encoded, Observers, Read};
use crate::key::Key;
use crate::protocol::Events;
use crate::record::{Mutation, Outcome, StoreMode};
use crate::time::Now;

/// See the module. Made only when somebody looks, so it may allocate.
#[derive(Debug)]
pub(in crate::node) struct Trace {
    key: Box<[u8]>,
    kind: Kind,
    /// When the command came.
    now: Now,
    /// Of the client.
    descriptor: i32,
}

/// The command behind a mutation, where the mutation does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Wording {
    /// A word.
    Classic,
    /// Two letters and flags.
    Meta,
    /// A value that was refused for its size: what it was to replace is deleted.
    Oversize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Store {
        command: &'static str,
        ttl_s: u64,
        size: usize,
    },
    Oversize,
    Delete {
        command: &'static str,
        size: usize,
    },
    /// A delete after which the item is still there, to be renewed.
    Invalidate,
    Fetch,
}

impl Trace {
    /// What a mutation can be seen as.
    pub(in crate::node) const EVENTS: Events =
        Events::MUTATIONS.and(Events::DELETIONS).and(Events::FETCHERS).and(Events::DETAIL);

    /// `None` when nobody looks, or at something that is not shown. `before`: the size of the value
    /// that is there now.
    pub(in crate::node) fn of(
        observers: &Observers,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        wording: Wording,
        before: impl FnOnce() -> Option<usize>,
        descriptor: i32,
        now: Now,
    ) -> Option<Box<Self>> {
        if !observers.wants(Self::EVENTS) {
            return None;
        }
        let kind = kind(mutation, wording, before, now)?;
        Some(Box::new(Self { key: key.bytes().into(), kind, now, descriptor }))
    }

    /// Shows and counts what became of it.
    pub(in crate::node) fn finish(self, observers: &Observers, outcome: &Outcome) {
        let Self { key, kind, now, descriptor } = self;
        match kind {
            Kind::Store { command, ttl_s, size } => {
                observers.count(&key, |counts| counts.sets += 1);
                let (status, class) = match outcome {
                    Outcome::Stored { .. } => ("stored", observers.class_of(&key, size)),
                    other => (status(other), 0),
                };
                observers.log(
                    Events::MUTATIONS,
                    now,
                    format_args!(
                        "type=item_store key={} status={status} cmd={command} ttl={ttl_s} clsid={class} cfd={descriptor} size={size}",
                        Encoded(&key)
                    ),
                );
            }
            Kind::Oversize => {
                observers.count(&key, |counts| counts.sets += 1);
                observers.log(
                    Events::MUTATIONS,
                    now,
                    format_args!(
                        "type=item_store key={} status=too_large cmd=set ttl=0 clsid=0 cfd={descriptor} size=0",
                        Encoded(&key)
                    ),
                );
            }
            Kind::Invalidate => observers.count(&key, |counts| counts.deletes += 1),
            Kind::Delete { command, size } => {
                observers.count(&key, |counts| counts.deletes += 1);
                if *outcome == Outcome::Deleted {
                    observers.log(
                        Events::DELETIONS,
                        now,
                        format_args!(
                            "type=deleted key={} cmd={command} clsid={} size={size}",
                            Encoded(&key),
                            observers.class_of(&key, size)
                        ),
                    );
                }
            }
            Kind::Fetch => {
                if let Some(key) = Key::new(&key) {
                    observers.read(Read { key, found: found(outcome), descriptor }, now);
                }
            }
        }
    }
}

fn kind(
    mutation: &Mutation<&[u8]>,
    wording: Wording,
    before: impl FnOnce() -> Option<usize>,
    now: Now,
) -> Option<Kind> {
    match mutation {
        _ if wording == Wording::Oversize => Some(Kind::Oversize),
        Mutation::Store { mode, deadline, terms, value, .. } => Some(Kind::Store {
            command: if terms.compare.is_some() { "cas" } else { command(*mode) },
            ttl_s: deadline.remaining_s(now).unwrap_or_default(),
            size: value.len(),
        }),
        Mutation::Delete { terms, .. } if terms.is_stale => Some(Kind::Invalidate),
        Mutation::Delete { .. } => Some(Kind::Delete {
            command: if wording == Wording::Meta { "md" } else { "delete" },
            size: before().unwrap_or_default(),
        }),
        Mutation::Fetch { .. } | Mutation::Read => Some(Kind::Fetch),
        Mutation::Count { .. } | Mutation::Touch { .. } => None,
    }
}

fn command(mode: StoreMode) -> &'static str {
    match mode {
        StoreMode::Set => "set",
        StoreMode::Add => "add",
        StoreMode::Replace => "replace",
        StoreMode::Append => "append",
        StoreMode::Prepend => "prepend",
    }
}

fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exists => "exists",
        Outcome::NotFound => "not_found",
        Outcome::NoMemory => "no_memory",
        _ => "not_stored",
    }
}

fn found(outcome: &Outcome) -> Option<usize> {
    match outcome {
        Outcome::Item(item) => Some(item.value.len()),
        _ => None,
    }
}
