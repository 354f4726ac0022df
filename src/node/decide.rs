//! What a mutation does to an item: the rules of memcached's commands, in one place.
//!
//! Runs on the key's owner, under its shard's lock. The other nodes get the resulting record, not
//! the command, so they need none of these rules.

use bytes::Bytes;

use crate::key::Key;
use crate::record::{
    Change, Direction, Fetched, Marks, Mutation, Outcome, Record, Sight, StoreMode, Terms,
};
use crate::store::{Applied, Found, Item, Store};
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

/// What every rule looks at.
struct Case<'a, 'b> {
    store: &'b Store,
    found: &'b Found,
    /// What the CAS unique will be, unless the client sets another.
    version: Version,
    /// Where values are put together that no client has sent as a whole.
    scratch: &'a mut Vec<u8>,
    item_max: usize,
    now: Now,
}

/// Decides a mutation and applies it. Built into its two callers, of which the one that is alone has
/// no use for the record.
#[inline(always)]
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
    let found = store.seek(key, now);
    let current = store.version(&found);
    let version = versions.next(current);
    let case = Case { store: &*store, found: &found, version, scratch, item_max, now };
    let verdict = match mutation {
        Mutation::Store { mode, flags, deadline, terms, value } => {
            case.store(*mode, Put { flags: *flags, deadline: *deadline, value }, terms)
        }
        Mutation::Delete { terms, empty } => case.delete(*terms, *empty),
        Mutation::Count { direction, delta, initial, terms } => {
            case.count(*direction, *delta, *initial, *terms)
        }
        Mutation::Touch { deadline } => case.touch(*deadline),
        Mutation::Fetch { terms, recache } => case.fetch(*terms, *recache),
        Mutation::Read => case.read(),
    };
    match verdict {
        Verdict::No(outcome) => Decided { outcome, record: None },
        Verdict::Yes(change, outcome) => {
            let record = Record { key: key.bytes(), version, change };
            carry_out(store, found, record, outcome, current, now)
        }
    }
}

#[inline(always)]
fn carry_out<'a>(
    store: &mut Store,
    found: Found,
    mut record: Record<&'a [u8]>,
    outcome: Outcome,
    current: Option<Version>,
    now: Now,
) -> Decided<'a> {
    if store.apply_at(found, &record, now) != Applied::NoMemory {
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

impl<'a, 'b> Case<'a, 'b> {
    /// Only for rules that depend on it: a plain set does not.
    fn item(&self) -> Option<Item<'b>> {
        self.store.item(self.found, self.now)
    }

    #[inline(always)]
    fn store(self, mode: StoreMode, mut put: Put<'a>, terms: &Terms) -> Verdict<'a> {
        let mut marks = Marks { has_binary_key: terms.has_binary_key, ..Marks::default() };
        match (mode, terms.compare) {
            (StoreMode::Add, _) if self.found.is_some() => return Verdict::No(Outcome::NotStored),
            (StoreMode::Append | StoreMode::Prepend, _) => return self.join(mode, put, terms),
            (StoreMode::Set | StoreMode::Replace, Some(unique)) => {
                let Some(item) = self.item() else {
                    return Verdict::No(Outcome::NotFound);
                };
                if item.cas != unique {
                    if !terms.is_stale || unique > item.cas {
                        return Verdict::No(Outcome::Exists);
                    }
                    // Better than nothing, says the client: it is no newer for that, and whoever has
                    // been told to renew it still is.
                    (marks.is_stale, marks.is_won) = (true, item.marks.is_won);
                    put.deadline = item.deadline;
                }
            }
            (StoreMode::Replace, None) if !self.found.is_some() => {
                return Verdict::No(Outcome::NotStored);
            }
            _ => {}
        }
        self.put(put, marks, terms)
    }

    fn put(self, put: Put<'a>, marks: Marks, terms: &Terms) -> Verdict<'a> {
        let Put { flags, deadline, value } = put;
        let cas = terms.cas.unwrap_or(self.version.get());
        let outcome = Outcome::Stored { cas, size: value.len() as u32 };
        if !deadline.is_past(self.now) {
            return Verdict::Yes(Change::Put { cas, flags, deadline, marks, value }, outcome);
        }
        // Stored and already over: the old value must not survive.
        match self.found.is_some() {
            true => Verdict::Yes(Change::Delete, outcome),
            false => Verdict::No(outcome),
        }
    }

    /// append and prepend keep flags and end of what is there.
    fn join(self, mode: StoreMode, put: Put<'a>, terms: &Terms) -> Verdict<'a> {
        let Some(item) = self.item() else {
            let marks = Marks { has_binary_key: terms.has_binary_key, ..Marks::default() };
            return match terms.vivify {
                Some(deadline) => self.put(Put { deadline, ..put }, marks, terms),
                None => Verdict::No(Outcome::NotStored),
            };
        };
        if differs(&item, terms.compare) {
            return Verdict::No(Outcome::Exists);
        }
        if put.value.len() + item.value.len() > self.item_max {
            return Verdict::No(Outcome::NotStored);
        }
        if mode == StoreMode::Prepend {
            self.scratch.extend_from_slice(put.value);
        }
        item.value.append_to(self.scratch);
        if mode == StoreMode::Append {
            self.scratch.extend_from_slice(put.value);
        }
        let cas = terms.cas.unwrap_or(self.version.get());
        let outcome = Outcome::Stored { cas, size: self.scratch.len() as u32 };
        Verdict::Yes(rewritten(&item, cas, item.deadline, self.scratch), outcome)
    }

    fn delete(self, terms: Terms, empty: Option<u32>) -> Verdict<'a> {
        let Some(item) = self.item() else {
            return Verdict::No(Outcome::NotFound);
        };
        if terms.compare.is_some_and(|unique| unique != item.cas) {
            return Verdict::No(Outcome::Exists);
        }
        let mut marks = item.marks;
        if terms.is_stale {
            // The next who asks is told to renew it.
            (marks.is_stale, marks.is_won) = (true, false);
        }
        let deadline = terms.touch.unwrap_or(item.deadline);
        let change = match (empty, terms.is_stale) {
            _ if (empty.is_some() || terms.is_stale) && deadline.is_past(self.now) => {
                Change::Delete
            }
            (Some(flags), is_stale) => {
                let kept = if is_stale { self.version.get() } else { item.cas };
                let cas = terms.cas.unwrap_or(kept);
                let deadline = terms.touch.unwrap_or(Deadline::NEVER);
                marks = Marks { is_stale, ..Marks::default() };
                Change::Put { cas, flags, deadline, marks, value: &[][..] }
            }
            (None, true) => {
                let cas = terms.cas.unwrap_or(self.version.get());
                Change::Meta { cas, deadline, marks }
            }
            (None, false) => Change::Delete,
        };
        Verdict::Yes(change, Outcome::Deleted)
    }

    fn count(self, direction: Direction, delta: u64, initial: u64, terms: Terms) -> Verdict<'a> {
        let cas = terms.cas.unwrap_or(self.version.get());
        let Some(item) = self.item() else {
            return self.begin_count(initial, cas, terms);
        };
        let Some(before) = number(item.value.start()) else {
            return Verdict::No(Outcome::NotNumeric);
        };
        if differs(&item, terms.compare) {
            return Verdict::No(Outcome::Exists);
        }
        let value = match direction {
            Direction::Up => before.wrapping_add(delta),
            Direction::Down => before.saturating_sub(delta),
        };
        self.scratch.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        if self.scratch.len() < item.value.len() {
            // memcached keeps the length and fills up with spaces.
            self.scratch.resize(item.value.len(), b' ');
        }
        let deadline = terms.touch.unwrap_or(item.deadline);
        let outcome = Outcome::Number { value, cas, deadline };
        if deadline.is_past(self.now) {
            return Verdict::Yes(Change::Delete, outcome);
        }
        Verdict::Yes(rewritten(&item, cas, deadline, self.scratch), outcome)
    }

    fn begin_count(self, initial: u64, cas: u64, terms: Terms) -> Verdict<'a> {
        let Some(vivify) = terms.vivify else {
            return Verdict::No(Outcome::NotFound);
        };
        let deadline = terms.touch.unwrap_or(vivify);
        let outcome = Outcome::Number { value: initial, cas, deadline };
        if deadline.is_past(self.now) {
            return Verdict::No(outcome);
        }
        self.scratch.extend_from_slice(itoa::Buffer::new().format(initial).as_bytes());
        let marks = Marks { has_binary_key: terms.has_binary_key, ..Marks::default() };
        let change = Change::Put { cas, flags: 0, deadline, marks, value: self.scratch.as_slice() };
        Verdict::Yes(change, outcome)
    }

    fn touch(self, deadline: Deadline) -> Verdict<'a> {
        match self.item() {
            None => Verdict::No(Outcome::NotFound),
            Some(_) if deadline.is_past(self.now) => Verdict::Yes(Change::Delete, Outcome::Touched),
            Some(Item { cas, marks, .. }) => {
                Verdict::Yes(Change::Meta { cas, deadline, marks }, Outcome::Touched)
            }
        }
    }

    fn fetch(self, terms: Terms, recache: Deadline) -> Verdict<'a> {
        let Some(item) = self.item() else {
            return self.vivify(terms);
        };
        let mut sight = item.sight();
        sight.wins = wins(&sight, recache);
        let (cas, mut marks) = (item.cas, item.marks);
        marks.is_won |= sight.wins;
        sight.deadline = terms.touch.unwrap_or(item.deadline);
        let is_same = marks == item.marks && sight.deadline == item.deadline;
        let deadline = sight.deadline;
        let outcome = fetched(sight, item.value.to_vec().into());
        if deadline.is_past(self.now) {
            Verdict::Yes(Change::Delete, outcome)
        } else if is_same {
            Verdict::No(outcome)
        } else {
            Verdict::Yes(Change::Meta { cas, deadline, marks }, outcome)
        }
    }

    fn read(self) -> Verdict<'a> {
        let found = |item: Item<'_>| fetched(item.sight(), item.value.to_vec().into());
        Verdict::No(self.item().map_or(Outcome::NotFound, found))
    }

    /// An empty item that this client is told to fill.
    fn vivify(self, terms: Terms) -> Verdict<'a> {
        let Some(vivify) = terms.vivify else {
            return Verdict::No(Outcome::NotFound);
        };
        let deadline = terms.touch.unwrap_or(vivify);
        let cas = terms.cas.unwrap_or(self.version.get());
        let shown = Marks { has_binary_key: terms.has_binary_key, ..Marks::default() };
        let sight = Sight { cas, deadline, marks: shown, wins: true, ..Sight::default() };
        let outcome = fetched(sight, Bytes::new());
        if deadline.is_past(self.now) {
            return Verdict::No(outcome);
        }
        let marks = Marks { is_won: true, ..shown };
        Verdict::Yes(Change::Put { cas, flags: 0, deadline, marks, value: b"" }, outcome)
    }
}

/// Whether this client is the one that is told to renew the item.
pub(super) fn wins(sight: &Sight, recache: Deadline) -> bool {
    let ends_soon = sight.deadline != Deadline::NEVER && sight.deadline < recache;
    !sight.marks.is_won && (ends_soon || sight.marks.is_stale)
}

/// memcached takes a compared unique of 0 for none where it counts or joins.
fn differs(item: &Item<'_>, compare: Option<u64>) -> bool {
    compare.is_some_and(|unique| unique != 0 && unique != item.cas)
}

fn rewritten<'a>(
    item: &Item<'_>,
    cas: u64,
    deadline: Deadline,
    value: &'a [u8],
) -> Change<&'a [u8]> {
    Change::Put { cas, flags: item.flags, deadline, marks: item.marks, value }
}

fn fetched(sight: Sight, value: Bytes) -> Outcome {
    Outcome::Item(Box::new(Fetched { sight, value }))
}

/// Spaces, a plus sign, digits, then nothing or a space and anything: what C's strtoull and
/// memcached's check accept.
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends_well = value.get(digits).is_none_or(u8::is_ascii_whitespace);
    let text = std::str::from_utf8(&value[..digits]).ok()?;
    text.parse().ok().filter(|_| ends_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_maybe_padding() {
        assert_eq!(number(b"12"), Some(12));
        assert_eq!(number(b"9  "), Some(9));
        assert_eq!(number(b" +9"), Some(9));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"x", b"1x", b"-1", b"18446744073709551616", b" "] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}
