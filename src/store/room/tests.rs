//! What goes for what: only as much as has to, and what is over first.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::tests::{at, put, store_of, value};
use super::super::{Applied, Change, Store};
use super::*;
use crate::key::Key;
use crate::record::Record;
use crate::version::{Epoch, Versions};

/// A store and what was put into it.
struct Filled {
    store: Store,
    versions: Versions,
    /// Values and ends, in seconds, by key.
    model: BTreeMap<String, (Vec<u8>, u64)>,
}

impl Filled {
    fn new(limit: usize, evict: bool) -> Self {
        let (store, versions) = (store_of(limit, evict), Versions::new(Epoch(1), 0));
        Self { store, versions, model: BTreeMap::new() }
    }

    /// An item of `len` bytes that ends after so many seconds; 0: never.
    fn put(&mut self, key: &str, len: usize, ttl_s: u64, second: u64) -> Applied {
        let (now, version) = (at(second * 1000), self.versions.next(None));
        let bytes: Vec<u8> = (0..len).map(|n| (version.get() + n as u64 * 31) as u8).collect();
        let mut record = put(key, &bytes, version);
        if let Change::Put { deadline, .. } = &mut record.change {
            *deadline = Deadline::from_exptime(ttl_s as i32, now);
        }
        let applied = self.store.apply(&record, now);
        self.model.remove(key);
        if applied == Applied::Done {
            let end = if ttl_s == 0 { u64::MAX } else { second + ttl_s };
            self.model.insert(key.into(), (bytes, end));
        }
        applied
    }

    fn delete(&mut self, key: &str) {
        let version = self.versions.next(None);
        let record = Record { key: key.as_bytes(), version, change: Change::Delete };
        self.store.apply(&record, at(0));
        self.model.remove(key);
    }

    fn has(&mut self, key: &str) -> bool {
        self.store.peek(Key::new(key.as_bytes()).unwrap(), at(0)).is_some()
    }

    /// Items that the model has and the store lacks, where nothing is over.
    fn lost(&mut self) -> Vec<String> {
        let model = std::mem::take(&mut self.model);
        let is_lost = |(key, (bytes, _)): (&String, &(Vec<u8>, u64))| {
            // Not a use: asking must not change who goes first.
            let item = self.store.peek(Key::new(key.as_bytes()).unwrap(), at(0));
            let found = item.map(|item| item.value.to_vec());
            assert!(found.is_none() || found.as_ref() == Some(bytes), "{key} has changed");
            found.is_none().then(|| key.clone())
        };
        let lost = model.iter().filter_map(is_lost).collect();
        self.model = model;
        lost
    }
}

/// Fills a store with sessions of 2 KiB, reads them in any order, and lets sessions of 10 KiB follow.
#[test]
fn a_store_full_of_one_size_takes_another_at_once() {
    const LIMIT: usize = 4 << 20;
    const LARGE: usize = 100;
    let mut filled = Filled::new(LIMIT, true);
    let small = |n: usize| format!("small{n}");
    let mut count = 0;
    while filled.store.counts().evictions == 0 {
        filled.put(&small(count), 2 << 10, 0, 0);
        count += 1;
    }
    for turn in 0..2 * count {
        let key = small(turn * 7919 % count);
        value(&mut filled.store, &key, at(0));
        if turn % 100 == 0 {
            filled.store.maintain(at(0));
        }
    }
    let before = filled.lost().len();
    for n in 0..LARGE {
        assert_eq!(filled.put(&format!("large{n}"), 10 << 10, 0, 0), Applied::Done);
        assert_eq!(filled.store.audit(), Ok(()));
    }
    let lost = filled.lost();
    assert!(lost.iter().all(|key| key.starts_with("small")), "nothing new went for something new");
    let bytes = (lost.len() - before) * (2 << 10);
    // A tenth for the ends of chunks, and what was free in no page that could be emptied.
    let bound = LARGE * (10 << 10) * 11 / 10 + 16 * filled.store.budget.page_size();
    assert!(bytes <= bound, "{bytes} bytes of 2 KiB went for {}", LARGE * (10 << 10));
}

#[test]
fn emptying_pages_moves_items_and_loses_none() {
    let mut filled = Filled::new(8 << 20, true);
    for n in 0..2000 {
        filled.put(&format!("k{n}"), n * 37 % 5000, 0, 0);
    }
    (0..2000).filter(|n| n % 5 != 0).for_each(|n| filled.delete(&format!("k{n}")));
    let before = filled.store.held();
    while filled.store.empty_page() {
        assert_eq!(filled.store.audit(), Ok(()));
    }
    assert!(filled.store.held() < before / 2, "{} of {before}", filled.store.held());
    assert_eq!(filled.lost(), Vec::<String>::new());
}

/// What goes to make room for the index may leave room in the index.
#[test]
fn the_index_owes_only_what_it_has() {
    for limit in [64 << 10, 200 << 10, 1 << 20] {
        let mut filled = Filled::new(limit, true);
        for n in 0..40_000 {
            // Items become fewer and more again, a few times over.
            let len = if n / 4000 % 2 == 0 { 0 } else { n % 400 };
            filled.put(&format!("k{n}"), len, 0, 0);
            assert_eq!(filled.store.budget.used(), filled.store.charged(), "item {n} of {limit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn without_eviction_only_the_refused_item_is_lost(
        sizes in prop::collection::vec((0..60u32, prop_oneof![0..3000usize, 0..60_000usize]), 1..200)
    ) {
        let mut filled = Filled::new(200 << 10, false);
        for (k, len) in sizes {
            let key = format!("k{k}");
            let applied = filled.put(&key, len, 0, 0);
            prop_assert_eq!(filled.has(&key), applied == Applied::Done);
            prop_assert_eq!(filled.lost(), Vec::<String>::new());
            prop_assert_eq!(filled.store.audit(), Ok(()));
        }
        prop_assert_eq!(filled.store.counts().evictions, 0);
    }

    #[test]
    fn nothing_live_goes_while_something_is_over(
        steps in prop::collection::vec((0..5000usize, 0..30u64, 0..3u64), 100..400)
    ) {
        let (mut filled, mut second) = (Filled::new(256 << 10, true), 0);
        for (n, (len, ttl_s, pause_s)) in steps.into_iter().enumerate() {
            second += pause_s;
            let before = filled.store.counts().evictions;
            prop_assert_eq!(filled.put(&format!("k{n}"), len, ttl_s, second), Applied::Done);
            if filled.store.counts().evictions > before {
                let mut live = 0;
                filled.store.scan(0, u32::MAX, at(second * 1000), |_, _| { live += 1; true });
                prop_assert_eq!(filled.store.counts().items(), live);
            }
        }
    }

    #[test]
    fn sweeps_free_all_that_is_over_and_nothing_else(
        items in prop::collection::vec((0..3000usize, 0..60u64), 1..300),
        step_s in 1..20u64,
    ) {
        let mut filled = Filled::new(4 << 20, true);
        for (n, (len, ttl_s)) in items.into_iter().enumerate() {
            filled.put(&format!("k{n}"), len, ttl_s, 0);
        }
        for second in (0..80).step_by(step_s as usize) {
            let mut turns = 0;
            while !filled.store.sweep(20, at(second * 1000)) {
                turns += 1;
                prop_assert!(turns < 10_000, "a sweep that does not end");
            }
            let live = filled.model.values().filter(|(_, end)| *end > second).count() as u64;
            prop_assert_eq!(filled.store.counts().items(), live);
            prop_assert_eq!(filled.store.audit(), Ok(()));
        }
        prop_assert_eq!(filled.store.counts().evictions, 0);
    }
}
