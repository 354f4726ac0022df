//! The store through its face.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::time::Millis;
use crate::version::{Epoch, Versions};

pub(super) fn store_of(bytes: usize, evict: bool) -> Store {
    let options = Options { evict, seed: 7, ..Options::default() };
    let mut store = Store::new(options, Arc::new(Budget::new(bytes)));
    store.keep_digests();
    store
}

pub(super) fn at(ms: u64) -> Now {
    Now { cluster: Millis(1_000_000 + ms), ..Now::default() }
}

pub(super) fn put<'a>(key: &'a str, value: &'a [u8], version: Version) -> Record<&'a [u8]> {
    let change = Change::Put {
        cas: version.get(),
        flags: 0,
        deadline: Deadline::NEVER,
        marks: Marks::default(),
        value,
    };
    Record { key: key.as_bytes(), version, change }
}

pub(super) fn delete(key: &str, version: Version) -> Record<&[u8]> {
    Record { key: key.as_bytes(), version, change: Change::Delete }
}

pub(super) fn value(store: &mut Store, key: &str, now: Now) -> Option<Vec<u8>> {
    store.get(Key::new(key.as_bytes()).unwrap(), now).map(|item| item.value.to_vec())
}

/// Stores `k0` and so on.
fn fill(store: &mut Store, versions: &mut Versions, count: usize, value: &[u8]) {
    for n in 0..count {
        store.apply(&put(&format!("k{n}"), value, versions.next(None)), at(0));
    }
}

#[test]
fn an_older_write_arriving_late_changes_nothing() {
    let mut versions = Versions::new(Epoch(1), 0);
    let (old, new) = (versions.next(None), versions.next(None));
    let mut store = store_of(1 << 20, true);
    assert_eq!(store.apply(&put("k", b"new", new), at(0)), Applied::Done);
    assert_eq!(store.apply(&put("k", b"old", old), at(0)), Applied::Stale);
    assert_eq!(store.apply(&delete("k", old), at(0)), Applied::Stale);
    assert_eq!(value(&mut store, "k", at(0)), Some(b"new".to_vec()));
}

#[test]
fn a_touch_moves_the_end_and_keeps_the_cas_unique() {
    let mut versions = Versions::new(Epoch(1), 0);
    let first = versions.next(None);
    let mut store = store_of(1 << 20, true);
    store.apply(&put("k", b"v", first), at(0));
    let now = Now { wall_s: 0, ..at(0) };
    let touch = Record {
        key: &b"k"[..],
        version: versions.next(None),
        change: Change::Meta {
            cas: first.get(),
            deadline: Deadline::from_exptime(10, now),
            marks: Marks::default(),
        },
    };
    store.apply(&touch, now);
    let item = store.get(Key::new(b"k").unwrap(), at(9_999)).unwrap();
    assert_eq!(item.cas, first.get());
    assert!(item.version > first);
    assert_eq!(value(&mut store, "k", at(10_000)), None);
}

#[test]
fn a_full_store_drops_the_least_recently_used() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(64 << 10, true);
    let value_of_1k = [b'x'; 1024];
    fill(&mut store, &mut versions, 40, &value_of_1k);
    assert_eq!(store.counts().evictions, 0);
    for _ in 0..2 {
        assert!(value(&mut store, "k0", at(0)).is_some(), "read again, it stays");
    }
    for n in 40..70 {
        store.apply(&put(&format!("k{n}"), &value_of_1k, versions.next(None)), at(0));
    }
    assert!(store.counts().evictions > 0);
    assert!(value(&mut store, "k0", at(0)).is_some());
    assert!(value(&mut store, "k1", at(0)).is_none());
    assert!(value(&mut store, "k69", at(0)).is_some());
}

#[test]
fn what_is_renewed_is_in_use() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(64 << 10, true);
    store.apply(&put("kept", &[b'x'; 1024], versions.next(None)), at(0));
    for n in 0..200 {
        let marks = Marks::default();
        let change = Change::Meta { cas: 1, deadline: Deadline::NEVER, marks };
        let touch = Record { key: &b"kept"[..], version: versions.next(None), change };
        assert_eq!(store.apply(&touch, at(0)), Applied::Done);
        store.apply(&put(&format!("k{n}"), &[b'x'; 1024], versions.next(None)), at(0));
    }
    assert!(store.counts().evictions > 100);
    assert!(store.peek(Key::new(b"kept").unwrap(), at(0)).is_some());
}

#[test]
fn without_eviction_a_full_store_refuses_and_loses_nothing_else() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(64 << 10, false);
    let mut stored = 0;
    while store.apply(&put(&format!("k{stored}"), &[b'x'; 1024], versions.next(None)), at(0))
        == Applied::Done
    {
        stored += 1;
    }
    assert!(stored > 5);
    assert!((0..stored).all(|n| value(&mut store, &format!("k{n}"), at(0)).is_some()));
}

#[test]
fn flushed_items_are_absent_at_once_and_swept_later() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(1 << 20, true);
    fill(&mut store, &mut versions, 10, b"v");
    store.set_floor(Version::floor_of(Epoch(2)));
    assert_eq!(value(&mut store, "k1", at(0)), None);
    store.sweep(100, at(0));
    assert_eq!(store.counts().items(), 0);
    store.apply(&put("k1", b"v", Versions::new(Epoch(2), 0).next(None)), at(0));
    assert!(value(&mut store, "k1", at(0)).is_some());
}

#[test]
fn a_wiped_store_owes_nothing_for_items() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(1 << 20, true);
    fill(&mut store, &mut versions, 100, &[0; 500]);
    let full = store.budget.used();
    store.wipe();
    assert!(store.budget.used() < full - 100 * 500);
    assert_eq!(store.counts().bytes, 0);
}

/// A byte as a key, of 1 byte or as long as a key can be.
fn key_of(k: u8) -> Vec<u8> {
    vec![k; if k < 128 { 1 } else { 250 }]
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize, u64),
    Delete(u8),
    Get(u8),
    Wait(u64),
    Sweep,
}

/// Mostly small, and some over many chunks.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..300usize, 4 => 300..3000usize, 1 => 3000..20_000usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<u8>(), sizes(), 0..20u64).prop_map(|(k, len, ttl)| Step::Put(k, len, ttl)),
        any::<u8>().prop_map(Step::Delete),
        any::<u8>().prop_map(Step::Get),
        (0..3u64).prop_map(Step::Wait),
        Just(Step::Sweep),
    ]
}

proptest! {
    /// Against a map that never forgets: what the store has is right, what it lacks was
    /// expired or evicted, and the budget holds.
    #[test]
    fn it_never_invents_and_never_exceeds(steps in prop::collection::vec(step(), 1..400)) {
        const LIMIT: usize = 160 << 10;
        let mut store = store_of(LIMIT, true);
        let mut versions = Versions::new(Epoch(1), 0);
        let mut model: BTreeMap<u8, (Vec<u8>, u64)> = BTreeMap::new();
        let mut second = 0;
        for step in steps {
            let now = at(second * 1000);
            match step {
                Step::Put(k, len, ttl) => {
                    let bytes = vec![k; len];
                    let key = key_of(k);
                    let record = Record {
                        key: &key[..],
                        version: versions.next(None),
                        change: Change::Put {
                            cas: 1,
                            flags: 0,
                            deadline: Deadline::from_exptime(ttl as i32, now),
                            marks: Marks::default(),
                            value: &bytes[..],
                        },
                    };
                    let applied = store.apply(&record, now);
                    prop_assert_eq!(applied, Applied::Done);
                    model.insert(k, (bytes, if ttl == 0 { u64::MAX } else { second + ttl }));
                }
                Step::Delete(k) => {
                    let key = key_of(k);
                    let record =
                        Record { key: &key[..], version: versions.next(None), change: Change::Delete };
                    store.apply(&record, now);
                    model.remove(&k);
                }
                Step::Get(k) => {
                    let found = store.get(Key::new(&key_of(k)).unwrap(), now).map(|item| item.value.to_vec());
                    let expected = model.get(&k).filter(|(_, end)| *end > second);
                    match (found, expected) {
                        (Some(found), expected) => {
                            prop_assert_eq!(Some(&found), expected.map(|(bytes, _)| bytes));
                        }
                        (None, Some(_)) => prop_assert!(store.counts().evictions > 0),
                        (None, None) => {}
                    }
                }
                Step::Wait(seconds) => second += seconds,
                Step::Sweep => {
                    store.maintain(now);
                    store.sweep(50, now);
                }
            }
            prop_assert!(store.budget.used() <= LIMIT);
            prop_assert_eq!(store.budget.used(), store.charged());
            prop_assert_eq!(store.audit(), Ok(()));
        }
    }
}

#[test]
fn a_read_that_finds_nothing_says_why() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(1 << 20, true);
    let mut ending = put("k", b"v", versions.next(None));
    if let Change::Put { deadline, .. } = &mut ending.change {
        *deadline = Deadline::from_exptime(10, at(0));
    }
    store.apply(&ending, at(0));
    assert_eq!(value(&mut store, "k", at(10_000)), None);
    store.apply(&put("k", b"v", versions.next(None)), at(0));
    store.set_floor(versions.next(None));
    assert_eq!(value(&mut store, "k", at(0)), None);
    assert_eq!(value(&mut store, "k", at(0)), None, "by now it is only absent");
    let counts = store.counts();
    assert_eq!((counts.get_expired, counts.get_flushed), (1, 1));
}

#[test]
fn evicted_items_are_remembered_only_when_somebody_asks() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(64 << 10, true);
    let mut fill = |store: &mut Store| fill(store, &mut versions, 200, &[b'x'; 1024]);
    fill(&mut store);
    assert_eq!(store.take_evicted(), (Vec::new(), 0));
    store.remember_evicted(true);
    fill(&mut store);
    fill(&mut store);
    let (evicted, forgotten) = store.take_evicted();
    assert_eq!(evicted.len(), 256, "bounded");
    assert_eq!(forgotten, 400 - 256);
    assert_eq!(evicted[0].size, 1024);
}

#[test]
fn walking_and_sweeping_in_pieces_meets_every_item() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(1 << 20, true);
    fill(&mut store, &mut versions, 100, b"v");
    let (mut seen, mut cursor) = (0, Some(0));
    while let Some(from) = cursor {
        cursor = store.walk(from, 7, at(0), |_, _| seen += 1);
    }
    assert_eq!(seen, 100);
    store.set_floor(versions.next(None));
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        cursor = store.sweep_from(from, 7, at(0));
    }
    let counts = store.counts();
    assert_eq!((counts.items(), counts.swept, counts.sweep_checked), (0, 100, 100));
}

#[test]
fn a_lowered_limit_is_kept_to_by_evicting() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(256 << 10, true);
    fill(&mut store, &mut versions, 100, &[b'x'; 1024]);
    store.budget.set_limit(64 << 10);
    store.maintain(at(0));
    assert!(store.budget.used() <= 64 << 10);
    assert_eq!(store.apply(&put("new", &[b'x'; 1024], versions.next(None)), at(0)), Applied::Done);
    assert!(store.budget.used() <= 64 << 10);
    assert_eq!(store.audit(), Ok(()));
}

#[test]
fn what_is_evicted_is_told_with_its_version_where_others_have_it_too() {
    let mut versions = Versions::new(Epoch(1), 0);
    let mut store = store_of(64 << 10, true);
    let mut fill = |store: &mut Store| fill(store, &mut versions, 200, &[b'x'; 1024]);
    fill(&mut store);
    assert!(store.take_lost().is_empty(), "a node of its own needs no list");
    store.share_evictions(true);
    fill(&mut store);
    let lost = store.take_lost();
    assert!(lost.len() >= 200, "{}", lost.len());
    assert!(
        lost.iter().all(|(key, version)| key.starts_with(b"k") && *version > Version::default())
    );
}
