//! The segments against lists of keys that follow the same rules.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::item::Draft;
use super::super::tests::{delete, put, store_of};
use super::super::{Options, Store};
use super::*;
use crate::key::Key;
use crate::record::Marks;
use crate::time::Millis;
use crate::version::{Epoch, Version, Versions};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Get(u8),
    Delete(u8),
    Wait(u64),
    Maintain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40u8, 0..500usize).prop_map(|(k, len)| Step::Put(k, len)),
        8 => (0..40u8).prop_map(Step::Get),
        1 => (0..40u8).prop_map(Step::Delete),
        1 => (0..90u64).prop_map(Step::Wait),
        1 => Just(Step::Maintain),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    key: u8,
    bytes: u64,
    used_s: u64,
    fetched: bool,
    active: bool,
}

/// Newest first.
#[derive(Debug, Default)]
struct Naive {
    segmented: bool,
    stores: u64,
    lists: [VecDeque<Entry>; SEGMENTS],
    now_s: u64,
}

impl Naive {
    fn take(&mut self, key: u8) -> Option<(usize, Entry)> {
        self.lists.iter_mut().enumerate().find_map(|(number, list)| {
            let place = list.iter().position(|entry| entry.key == key)?;
            list.remove(place).map(|entry| (number, entry))
        })
    }

    fn find(&mut self, key: u8) -> Option<(usize, &mut Entry)> {
        let lists = self.lists.iter_mut().enumerate();
        lists
            .flat_map(|(number, list)| list.iter_mut().map(move |entry| (number, entry)))
            .find(|(_, entry)| entry.key == key)
    }

    /// `lies_alike`: in the chunks that it has already.
    fn put(&mut self, key: u8, bytes: u64, lies_alike: bool) {
        let (now_s, segmented) = (self.now_s, self.segmented);
        if let Some((segment, entry)) = self.find(key)
            && segmented
            && lies_alike
        {
            entry.active |= segment != Segment::Hot as usize || entry.fetched;
            (entry.bytes, entry.used_s, entry.fetched) = (bytes, now_s, false);
            return;
        }
        self.take(key);
        let segment = if self.segmented { Segment::Hot } else { Segment::Cold };
        let used_s = self.now_s;
        let entry = Entry { key, bytes, used_s, fetched: false, active: false };
        self.lists[segment as usize].push_front(entry);
        if self.stores.is_multiple_of(4) {
            self.juggle(8);
        }
        self.stores += 1;
    }

    fn get(&mut self, key: u8) {
        let (now_s, segmented) = (self.now_s, self.segmented);
        let Some((segment, entry)) = self.find(key) else {
            return;
        };
        let was_fetched = std::mem::replace(&mut entry.fetched, true);
        if !segmented {
            if now_s - entry.used_s >= 60 {
                entry.used_s = now_s;
                self.renew(key, Segment::Cold);
            }
            return;
        }
        if was_fetched {
            entry.used_s = now_s;
            entry.active = segment != Segment::Cold as usize;
        }
        if was_fetched && segment == Segment::Cold as usize {
            self.renew(key, Segment::Warm);
        }
    }

    fn renew(&mut self, key: u8, segment: Segment) {
        let (_, entry) = self.take(key).unwrap();
        self.lists[segment as usize].push_front(entry);
    }

    fn bytes(&self, segment: Segment) -> u64 {
        self.lists[segment as usize].iter().map(|entry| entry.bytes).sum()
    }

    fn juggle(&mut self, most: usize) {
        if !self.segmented {
            return;
        }
        let segments = [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temporary];
        let all: u64 = segments.iter().map(|&segment| self.bytes(segment)).sum();
        for _ in 0..most {
            let cold = &mut self.lists[Segment::Cold as usize];
            if cold.back().is_some_and(|entry| entry.active)
                && let Some(mut entry) = cold.pop_back()
            {
                entry.active = false;
                self.lists[Segment::Warm as usize].push_front(entry);
            }
        }
        let cold_age_s = match self.lists[Segment::Cold as usize].back() {
            Some(entry) if entry.active => f64::INFINITY,
            oldest => oldest.map_or(0, |entry| self.now_s - entry.used_s) as f64,
        };
        for (segment, max_bytes, max_age_s) in [
            (Segment::Hot, all * 20 / 100, cold_age_s * 0.2),
            (Segment::Warm, all * 40 / 100, cold_age_s * 2.0),
        ] {
            for _ in 0..most {
                let bytes = self.bytes(segment);
                let Some(mut entry) = self.lists[segment as usize].pop_back() else {
                    break;
                };
                let age_s = (self.now_s - entry.used_s) as f64;
                if std::mem::take(&mut entry.active) {
                    self.lists[Segment::Warm as usize].push_front(entry);
                } else if bytes > max_bytes || age_s > max_age_s {
                    self.lists[Segment::Cold as usize].push_front(entry);
                } else {
                    self.lists[segment as usize].push_back(entry);
                    break;
                }
            }
        }
    }

    fn keys(&self, segment: Segment) -> Vec<u8> {
        self.lists[segment as usize].iter().map(|entry| entry.key).collect()
    }

    fn oldest(&self) -> Option<u8> {
        [Segment::Cold, Segment::Hot, Segment::Warm]
            .iter()
            .find_map(|&segment| self.lists[segment as usize].back())
            .map(|entry| entry.key)
    }
}

fn number(key: &[u8]) -> u8 {
    std::str::from_utf8(key).unwrap().parse().unwrap()
}

/// The keys of a segment, newest first.
fn keys(store: &Store, segment: Segment) -> Vec<u8> {
    let (newest, ..) = store.lru.ends_of(segment);
    std::iter::successors(newest, |&id| ChunkId::from_raw(store.slab.header(id).older()))
        .map(|id| number(store.slab.key(id)))
        .collect()
}

fn store(segmented: bool) -> Store {
    let segments = Segments { is_on: segmented, ..Segments::default() };
    let options = Options { evict: true, segments, ..Options::default() };
    Store::new(options, std::sync::Arc::clone(&store_of(4 << 20, true).budget))
}

#[test]
fn new_items_stay_hot_when_the_oldest_cold_one_is_read_once() {
    let mut store = store(true);
    let mut versions = Versions::new(Epoch(1), 0);
    let at = |s: u64| Now { local: Millis(s * 1000), cluster: Millis(s * 1000), wall_s: 0 };
    for k in 0..100u8 {
        let second = if k < 90 { 0 } else { 100 };
        store.apply(&put(&k.to_string(), &[0; 100], versions.next(None)), at(second));
    }
    let hot = keys(&store, Segment::Hot);
    let oldest = *keys(&store, Segment::Cold).last().unwrap();
    assert!(hot.contains(&95) && oldest == 0);
    store.get(Key::new(b"0").unwrap(), at(110));
    store.maintain(at(110));
    assert!(keys(&store, Segment::Hot).contains(&95), "10 s old, the oldest cold one 110 s");
}

/// Whether an item of that key would be written over the one that is there.
fn lies_alike(store: &mut Store, key: &str, value: &[u8], now: Now) -> bool {
    let found = store.seek(Key::new(key.as_bytes()).unwrap(), now);
    let key = key.as_bytes();
    let (version, deadline, marks) = (Version::default(), Deadline::NEVER, Marks::default());
    let draft = Draft { version, cas: 0, flags: 0, deadline, marks, key, value };
    let alike = found.id.is_some_and(|id| store.takes_the_same(id, &draft));
    store.building.clear();
    alike
}

#[test]
fn what_was_stored_again_while_it_was_cold_is_spared() {
    let mut store = store(true);
    let mut versions = Versions::new(Epoch(1), 0);
    let now = Now { local: Millis(0), cluster: Millis(0), wall_s: 0 };
    for k in 0..100u8 {
        store.apply(&put(&k.to_string(), &[0; 100], versions.next(None)), now);
    }
    assert_eq!(keys(&store, Segment::Cold).last(), Some(&0));
    store.apply(&put("0", &[1; 100], versions.next(None)), now);
    assert_eq!(keys(&store, Segment::Cold).last(), Some(&0), "it has kept its place");
    for k in 100..=255u8 {
        store.apply(&put(&k.to_string(), &[0; 100_000], versions.next(None)), now);
    }
    assert!(store.counts().evictions > 100, "{}", store.counts().evictions);
    assert_eq!(store.get(Key::new(b"0").unwrap(), now).map(|item| item.value.len()), Some(100));
    assert!(store.get(Key::new(b"1").unwrap(), now).is_none());
}

proptest! {
    #[test]
    fn the_segments_do_as_naive_lists_do(
        segmented: bool,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut store = store(segmented);
        let mut naive = Naive { segmented, ..Naive::default() };
        let mut versions = Versions::new(Epoch(1), 0);
        for step in steps {
            let ms = Millis(naive.now_s * 1000);
            let now = Now { local: ms, cluster: ms, wall_s: 0 };
            match step {
                Step::Put(k, len) => {
                    let (key, bytes) = (k.to_string(), vec![k; len]);
                    let alike = lies_alike(&mut store, &key, &bytes, now);
                    store.apply(&put(&key, &bytes, versions.next(None)), now);
                    naive.put(k, (key.len() + len) as u64, alike);
                }
                Step::Get(k) => {
                    let found = store.get(Key::new(k.to_string().as_bytes()).unwrap(), now);
                    prop_assert_eq!(found.is_some(), naive.find(k).is_some());
                    naive.get(k);
                }
                Step::Delete(k) => {
                    store.apply(&delete(&k.to_string(), versions.next(None)), now);
                    naive.take(k);
                }
                Step::Wait(seconds) => naive.now_s += seconds,
                Step::Maintain => {
                    store.maintain(now);
                    naive.juggle(500);
                }
            }
            for segment in [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temporary] {
                prop_assert_eq!(keys(&store, segment), naive.keys(segment), "{:?}", segment);
            }
            let oldest = store.lru.oldest().map(|id| number(store.slab.key(id)));
            prop_assert_eq!(oldest, naive.oldest());
        }
    }
}
