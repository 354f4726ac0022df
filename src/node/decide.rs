//! What a mutation does to an item: the rules of memcached's commands, in one place.
//!
//! Runs on the key's owner, under its shard's lock. The other nodes get the resulting record, not
//! the command, so they need none of these rules.

use bytes::Bytes;

use crate::key::Key;
use crate::record::{Change, Direction, Mutation, Outcome, Record, StoreMode};
use crate::store::{Applied, Item, Store};
use crate::time::{Deadline, Now};
use crate::version::{Version, Versions};

/// The outcome, and the new state of the key if there is one; it has been applied.
pub(super) struct Decided<'a> {
    pub(super) outcome: Outcome,
    pub(super) record: Option<Record<&'a [u8]>>,
}

/// What the rules say, before it is applied.
enum Verdict<'a> {
    /// Nothing changes.
    No(Outcome),
    /// This changes, and then the outcome is that.
    Yes(Change<&'a [u8]>, Outcome),
}

/// Decides a mutation and applies it.
pub(super) fn decide<'a>(
    store: &mut Store,
    scratch: &'a mut Vec<u8>,
    key: Key<'a>,
    mutation: &Mutation<&'a [u8]>,
    versions: &mut Versions,
    item_max: usize,
    now: Now,
) -> Decided<'a> {
    scratch.clear();
    let item = store.peek(key, now);
    let current = item.map(|item| item.version);
    let verdict = match mutation {
        Mutation::Store { mode, flags, deadline, value } => {
            let put = Put { flags: *flags, deadline: *deadline, value };
            store_verdict(item, *mode, put, scratch, item_max, now)
        }
        Mutation::Delete => delete_verdict(item),
        Mutation::Count { direction, delta } => count_verdict(item, *direction, *delta, scratch),
        Mutation::Touch { deadline } => touch_verdict(item, *deadline, Outcome::Touched, now),
        Mutation::GetAndTouch { deadline } => {
            let found = item.map_or(Outcome::NotFound, value_of);
            touch_verdict(item, *deadline, found, now)
        }
    };
    match verdict {
        Verdict::No(outcome) => Decided { outcome, record: None },
        Verdict::Yes(change, outcome) => {
            let version = versions.next(current);
            carry_out(store, key, change, outcome, version, current, now)
        }
    }
}

fn carry_out<'a>(
    store: &mut Store,
    key: Key<'a>,
    mut change: Change<&'a [u8]>,
    outcome: Outcome,
    version: Version,
    current: Option<Version>,
    now: Now,
) -> Decided<'a> {
    if let Change::Put { cas, .. } = &mut change {
        *cas = version.get();
    }
    let mut record = Record { key: key.bytes(), version, change };
    if store.apply(&record, now) != Applied::NoMemory {
        return Decided { outcome, record: Some(record) };
    }
    // The store has dropped the older item: a session must not fall back to a former state.
    record.change = Change::Delete;
    Decided { outcome: Outcome::NoMemory, record: current.map(|_| record) }
}

struct Put<'a> {
    flags: u32,
    deadline: Deadline,
    value: &'a [u8],
}

impl<'a> Put<'a> {
    fn change(self) -> Change<&'a [u8]> {
        let Self { flags, deadline, value } = self;
        // The CAS unique follows from the version, which is not known yet.
        Change::Put { cas: 0, flags, deadline, value }
    }
}

fn store_verdict<'a>(
    item: Option<Item<'_>>,
    mode: StoreMode,
    put: Put<'a>,
    scratch: &'a mut Vec<u8>,
    item_max: usize,
    now: Now,
) -> Verdict<'a> {
    match (mode, item) {
        (StoreMode::Add, Some(_))
        | (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
            return Verdict::No(Outcome::NotStored);
        }
        (StoreMode::Cas(_), None) => return Verdict::No(Outcome::NotFound),
        (StoreMode::Cas(expected), Some(item)) if item.cas != expected => {
            return Verdict::No(Outcome::Exists);
        }
        (StoreMode::Append, Some(item)) => {
            return joined(item, item.value, put.value, scratch, item_max);
        }
        (StoreMode::Prepend, Some(item)) => {
            return joined(item, put.value, item.value, scratch, item_max);
        }
        _ => {}
    }
    if !put.deadline.is_past(now) {
        return Verdict::Yes(put.change(), Outcome::Stored);
    }
    // Stored and already over: the old value must not survive.
    match item {
        Some(_) => Verdict::Yes(Change::Delete, Outcome::Stored),
        None => Verdict::No(Outcome::Stored),
    }
}

fn joined<'a>(
    item: Item<'_>,
    first: &[u8],
    second: &[u8],
    scratch: &'a mut Vec<u8>,
    item_max: usize,
) -> Verdict<'a> {
    if first.len() + second.len() > item_max {
        return Verdict::No(Outcome::TooLarge);
    }
    scratch.extend_from_slice(first);
    scratch.extend_from_slice(second);
    let put = Put { flags: item.flags, deadline: item.deadline, value: scratch };
    Verdict::Yes(put.change(), Outcome::Stored)
}

fn delete_verdict(item: Option<Item<'_>>) -> Verdict<'static> {
    match item {
        Some(_) => Verdict::Yes(Change::Delete, Outcome::Deleted),
        None => Verdict::No(Outcome::NotFound),
    }
}

fn count_verdict<'a>(
    item: Option<Item<'_>>,
    direction: Direction,
    delta: u64,
    scratch: &'a mut Vec<u8>,
) -> Verdict<'a> {
    let Some(item) = item else {
        return Verdict::No(Outcome::NotFound);
    };
    let Some(before) = number(item.value) else {
        return Verdict::No(Outcome::NotNumeric);
    };
    let after = match direction {
        Direction::Up => before.wrapping_add(delta),
        Direction::Down => before.saturating_sub(delta),
    };
    scratch.extend_from_slice(itoa::Buffer::new().format(after).as_bytes());
    if scratch.len() < item.value.len() {
        // memcached keeps the length and fills up with spaces.
        scratch.resize(item.value.len(), b' ');
    }
    let put = Put { flags: item.flags, deadline: item.deadline, value: scratch };
    Verdict::Yes(put.change(), Outcome::Number(after))
}

/// Digits, then nothing or a space and anything: what C's strtoull and memcached's check accept.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends_well = value.get(digits).is_none_or(u8::is_ascii_whitespace);
    let text = std::str::from_utf8(&value[..digits]).ok()?;
    text.parse().ok().filter(|_| ends_well)
}

fn touch_verdict(
    item: Option<Item<'_>>,
    deadline: Deadline,
    outcome: Outcome,
    now: Now,
) -> Verdict<'static> {
    match item {
        None => Verdict::No(Outcome::NotFound),
        Some(_) if deadline.is_past(now) => Verdict::Yes(Change::Delete, outcome),
        Some(_) => Verdict::Yes(Change::Touch { deadline }, outcome),
    }
}

fn value_of(item: Item<'_>) -> Outcome {
    let Item { flags, cas, value, .. } = item;
    Outcome::Value { flags, cas, value: Bytes::copy_from_slice(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_maybe_padding() {
        assert_eq!(number(b"12"), Some(12));
        assert_eq!(number(b"9  "), Some(9));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"x", b"1x", b"-1", b"18446744073709551616", b" "] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}
