//! Lanes of several nodes, wired by hand: what one says the test delivers, or loses.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::record::{
    Change as KeyChange, Digest, Direction, Marks, Outcome, Record, StoreMode, Terms,
};
use crate::replication::{Decision, Line, LogWish, Member};
use crate::time::{Deadline, Now};
use crate::version::Version;

const KEY: &[u8] = b"session";
const STORED: Outcome = Outcome::Stored { cas: 0, size: 0 };
const DELETE: Mutation<&[u8]> = Mutation::Delete {
    terms: Terms {
        compare: None,
        cas: None,
        vivify: None,
        touch: None,
        is_stale: false,
        has_binary_key: false,
    },
    empty: None,
};

fn number(value: u64) -> Outcome {
    Outcome::Number { value, cas: 0, deadline: Deadline::NEVER }
}

/// Items without a store: enough of memcached to count and to set. What was lost; what is flushed,
/// and not swept; what time it is.
#[derive(Default)]
struct Map(BTreeMap<Bytes, (Version, Bytes)>, Vec<(Bytes, Version)>, Version, Now);

impl Items for Map {
    fn decide(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<Bytes>,
        versions: &mut Versions,
    ) -> Decision {
        let key = Bytes::copy_from_slice(key.bytes());
        let current = self.0.get(&key);
        let version = versions.next(current.map(|(version, _)| *version));
        let (value, outcome) = match mutation {
            Mutation::Store { value, .. } => (value.clone(), STORED),
            Mutation::Count { delta, .. } => {
                let text = current.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
                let sum = text.map_or(0, |text| text.parse().unwrap()) + delta;
                (sum.to_string().into(), number(sum))
            }
            _ => {
                let outcome = if current.is_some() { Outcome::Deleted } else { Outcome::NotFound };
                let change = KeyChange::Delete;
                let record =
                    current.is_some().then(|| Record { key: key.clone(), version, change });
                self.0.remove(&key);
                return Decision { outcome, record };
            }
        };
        self.0.insert(key.clone(), (version, value.clone()));
        let change = KeyChange::Put {
            cas: version.get(),
            flags: 0,
            deadline: Deadline::NEVER,
            marks: Marks::default(),
            value,
        };
        Decision { outcome, record: Some(Record { key, version, change }) }
    }

    fn apply(&mut self, record: &Record<Bytes>) {
        if self.0.get(&record.key).is_some_and(|(version, _)| *version >= record.version) {
            return;
        }
        match &record.change {
            KeyChange::Put { value, .. } => {
                self.0.insert(record.key.clone(), (record.version, value.clone()));
            }
            KeyChange::Meta { .. } => {
                if let Some(item) = self.0.get_mut(&record.key) {
                    item.0 = record.version;
                }
            }
            KeyChange::Delete => {
                self.0.remove(&record.key);
            }
        }
    }

    fn current(&mut self, key: Key<'_>) -> Option<Record<Bytes>> {
        let (version, value) = self.0.get(key.bytes())?.clone();
        if version < self.2 {
            return None;
        }
        let change = KeyChange::Put {
            cas: version.get(),
            flags: 0,
            deadline: Deadline::NEVER,
            marks: Marks::default(),
            value,
        };
        Some(Record { key: Bytes::copy_from_slice(key.bytes()), version, change })
    }

    fn scan(
        &mut self,
        cursor: u64,
        _: usize,
        wanted: &dyn Fn(KeyHash) -> bool,
    ) -> (Vec<Record<Bytes>>, Option<u64>) {
        let (keys, next) = self.piece(cursor);
        let wanted = keys.iter().filter_map(|key| Key::new(key)).filter(|key| wanted(key.hash()));
        (wanted.filter_map(|key| self.current(key)).collect(), next)
    }

    /// As a store's, but for the hash.
    fn digest(&self, slot: usize) -> Digest {
        let mut digest = Digest::default();
        for (key, (version, value)) in &self.0 {
            let hash = Key::new(key).unwrap().hash();
            if hash.slot() == slot {
                let words = [hash.get(), version.get(), value.len() as u64];
                digest.items += 1;
                digest.sum = words.iter().fold(digest.sum, |sum, word| {
                    sum.wrapping_add(word.wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31))
                });
            }
        }
        digest
    }

    fn drop_some(
        &mut self,
        cursor: u64,
        is_unwanted: &dyn Fn(KeyHash, Version) -> bool,
    ) -> (u64, Option<u64>) {
        let (mut keys, next) = self.piece(cursor);
        keys.retain(|key| is_unwanted(Key::new(key).unwrap().hash(), self.0[key].0));
        keys.iter().for_each(|key| drop(self.0.remove(key)));
        (keys.len() as u64, next)
    }

    fn has_lost(&self) -> bool {
        !self.1.is_empty()
    }

    fn take_lost(&mut self) -> Vec<(Bytes, Version)> {
        std::mem::take(&mut self.1)
    }

    fn bump(&mut self, _: Key<'_>) {}

    fn set_floor(&mut self, floor: Version) {
        self.2 = floor;
    }

    fn wipe(&mut self) {
        self.0.clear();
    }

    fn now(&self) -> Now {
        self.3
    }
}

impl Map {
    /// A few keys in the order of their hashes, and where to go on.
    fn piece(&self, cursor: u64) -> (Vec<Bytes>, Option<u64>) {
        const KEYS: usize = 8;
        let hash = |key: &Bytes| Key::new(key).unwrap().hash().get();
        let mut keys: Vec<_> = self.0.keys().map(|key| (hash(key), key.clone())).collect();
        keys.retain(|(hash, _)| *hash >= cursor);
        keys.sort_unstable();
        let next = keys.get(KEYS).map(|(hash, _)| *hash);
        (keys.into_iter().take(KEYS).map(|(_, key)| key).collect(), next)
    }
}

type Letter = (Incarnation, Epoch, LaneMessage);

#[derive(Default)]
struct Post {
    sent: Vec<(Incarnation, Message)>,
    answers: Vec<(u32, Outcome)>,
    waited_ms: u64,
}

impl Outside<u32> for Post {
    fn send(&mut self, to: Incarnation, message: Message) {
        self.sent.push((to, message));
    }

    fn answer(&mut self, waiter: u32, outcome: Outcome) {
        self.answers.push((waiter, outcome));
    }

    fn still_waits(&self, _: &u32) -> bool {
        true
    }

    fn ask_log(&mut self, _: LogWish) {}

    fn local_time(&self) -> Millis {
        Millis(10 + self.waited_ms)
    }
}

/// Some nodes, and what is on its way between them.
#[derive(Default)]
struct Wire {
    lanes: BTreeMap<Incarnation, (Lane<u32>, Map)>,
    on_the_way: BTreeMap<(Incarnation, Incarnation), VecDeque<(Epoch, LaneMessage)>>,
    answers: Vec<(u32, Outcome)>,
    /// Between these nothing comes through.
    torn: Option<(Incarnation, Incarnation)>,
    torn_too: Option<(Incarnation, Incarnation)>,
    waited_ms: u64,
}

fn life(n: u64) -> Incarnation {
    Incarnation(n)
}

fn view(epoch: u32, members: &[u64], learners: &[u64]) -> View {
    let list = |lives: &[u64]| {
        lives
            .iter()
            .map(|&n| Member { name: format!("n{n}").into(), incarnation: life(n) })
            .collect()
    };
    View {
        epoch: Epoch(epoch),
        follows: Epoch(epoch - 1),
        generation: Epoch(1),
        members: list(members),
        learners: list(learners),
        features: Features::ALL,
        ..View::default()
    }
}

impl Wire {
    fn new(nodes: &[u64]) -> Self {
        let mut wire = Self::default();
        for &n in nodes {
            wire.add(n);
        }
        wire
    }

    /// A lane that is outside of any view. Its lease holds in every view.
    fn add(&mut self, n: u64) {
        let lease = Arc::new(Lease::default());
        let rules = Rules { lease: false, ..Rules::default() };
        let options = LaneOptions {
            id: 0,
            me: life(n),
            seed: n,
            lease,
            suspect_ms: 400,
            patience_ms: 2000,
            request_ms: 30_000,
            pace: Arc::default(),
            features: Features::ALL,
            rules,
        };
        self.lanes.insert(life(n), (Lane::new(options), Map::default()));
    }

    fn with(&mut self, n: u64, act: impl FnOnce(&mut Lane<u32>, &mut Map, &mut Post)) {
        let mut post = Post { waited_ms: self.waited_ms, ..Post::default() };
        let (lane, items) = self.lanes.get_mut(&life(n)).unwrap();
        act(lane, items, &mut post);
        self.answers.extend(post.answers);
        for (to, message) in post.sent {
            let Message::Lane(_, epoch, message) = message else { panic!("{message:?}") };
            self.on_the_way.entry((life(n), to)).or_default().push_back((epoch, message));
        }
    }

    fn install(&mut self, view: &View) {
        let nodes: Vec<u64> = self.lanes.keys().map(|life| life.0).collect();
        for n in nodes {
            self.enter(n, view);
        }
    }

    /// One node hears of a view, and nobody has to be waited for.
    fn enter(&mut self, n: u64, view: &View) {
        self.with(n, |lane, items, post| {
            lane.install(view, items, post).unwrap();
            lane.flush(view.epoch, items, post).unwrap();
        });
    }

    fn may_read(&self, n: u64) -> bool {
        self.lanes[&life(n)].0.may_read(Key::new(KEY).unwrap())
    }

    fn mutate(&mut self, n: u64, waiter: u32, mutation: Mutation<&[u8]>) {
        let key = Key::new(KEY).unwrap();
        self.with(n, |lane, items, post| lane.mutate(key, &mutation, waiter, items, post));
    }

    /// Delivers the oldest message between two nodes.
    fn deliver(&mut self, from: u64, to: u64) -> bool {
        let queue = self.on_the_way.entry((life(from), life(to))).or_default();
        let Some((epoch, message)) = queue.pop_front() else {
            return false;
        };
        if self.lanes.contains_key(&life(to)) {
            self.with(to, |lane, items, post| {
                lane.receive(life(from), epoch, message, items, post).unwrap();
            });
        }
        true
    }

    /// Delivers everything until nobody speaks any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            while let Some((from, to)) = self.next_pair() {
                self.deliver(from.0, to.0);
            }
            self.sync();
            let nodes: Vec<u64> = self.lanes.keys().map(|life| life.0).collect();
            nodes
                .into_iter()
                .for_each(|n| self.with(n, |lane, _, post| lane.announce_commits(post)));
        }
    }

    fn next_pair(&self) -> Option<(Incarnation, Incarnation)> {
        let is_torn = |&(from, to): &(Incarnation, Incarnation)| {
            [self.torn, self.torn_too]
                .into_iter()
                .flatten()
                .any(|(a, b)| (from, to) == (a, b) || (from, to) == (b, a))
        };
        let mut waiting = self.on_the_way.iter().filter(|(_, queue)| !queue.is_empty());
        waiting.find(|(pair, _)| !is_torn(pair)).map(|(&pair, _)| pair)
    }

    /// Time for those who fill others, or are filled.
    fn sync(&mut self) {
        let nodes: Vec<u64> = self.lanes.keys().map(|life| life.0).collect();
        for n in nodes {
            self.with(n, |lane, items, post| lane.sync(items, post));
        }
    }

    fn kill(&mut self, n: u64) {
        self.lanes.remove(&life(n));
        self.on_the_way.retain(|(from, _), _| *from != life(n));
    }

    fn value(&self, n: u64) -> Option<&[u8]> {
        self.lanes[&life(n)].1.0.get(KEY).map(|(_, value)| value.as_ref())
    }
}

/// The owner of the test's key among these nodes.
fn owner(nodes: &[u64]) -> u64 {
    let owners = Owners::of(&view(1, nodes, &[]));
    owners.owner(Key::new(KEY).unwrap().hash()).unwrap().0
}

fn set(value: &[u8]) -> Mutation<&[u8]> {
    let (mode, terms) = (StoreMode::Set, Terms::default());
    Mutation::Store { mode, flags: 0, deadline: Deadline::NEVER, terms, value }
}

fn incr() -> Mutation<&'static [u8]> {
    Mutation::Count { direction: Direction::Up, delta: 1, initial: 0, terms: Terms::default() }
}

fn others(of: u64) -> [u64; 2] {
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|&n| n != of).collect();
    [others[0], others[1]]
}

#[test]
fn a_write_is_answered_when_all_members_have_applied_it() {
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    let owner = owner(&[1, 2, 3]);
    let [near, far] = others(owner);
    wire.mutate(owner, 7, set(b"v"));
    wire.deliver(owner, near);
    wire.deliver(near, owner);
    assert!(wire.answers.is_empty(), "one of three does not have it");
    wire.deliver(owner, far);
    wire.deliver(far, owner);
    assert_eq!(wire.answers, [(7, STORED)]);
    assert!([1, 2, 3].iter().all(|&n| wire.value(n) == Some(b"v")));
}

#[test]
fn a_forwarded_write_is_answered_where_it_came_in() {
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    let [origin, _] = others(owner(&[1, 2, 3]));
    wire.mutate(origin, 8, set(b"v"));
    wire.settle();
    assert_eq!(wire.answers, [(8, STORED)]);
}

#[test]
fn an_answer_without_a_record_waits_for_what_it_rests_on() {
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    let owner = owner(&[1, 2, 3]);
    wire.mutate(owner, 1, set(b"v"));
    wire.mutate(owner, 2, DELETE);
    wire.mutate(owner, 3, DELETE);
    assert!(wire.answers.is_empty());
    wire.settle();
    let expected = [(1, STORED), (2, Outcome::Deleted), (3, Outcome::NotFound)];
    assert_eq!(wire.answers, expected);
}

#[test]
fn an_incr_whose_owner_dies_before_it_reports_counts_once() {
    let owner = owner(&[1, 2, 3]);
    let [origin, other] = others(owner);
    // However far the owner got: with the request, with one member, with both.
    for reached in [&[][..], &[origin], &[other], &[origin, other]] {
        let mut wire = Wire::new(&[1, 2, 3]);
        wire.install(&view(1, &[1, 2, 3], &[]));
        wire.settle();
        wire.mutate(origin, 1, incr());
        wire.deliver(origin, owner);
        for &member in reached {
            wire.deliver(owner, member);
        }
        wire.kill(owner);
        let mut rest = [origin, other];
        rest.sort_unstable();
        wire.install(&view(2, &rest, &[]));
        wire.settle();
        assert_eq!(wire.answers, [(1, number(1))], "reached {reached:?}");
        assert_eq!(wire.value(origin), Some(&b"1"[..]));
        assert_eq!(wire.value(other), Some(&b"1"[..]));
    }
}

#[test]
fn what_one_survivor_has_all_have() {
    let owner = owner(&[1, 2, 3]);
    let [near, far] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(owner, 1, set(b"old"));
    wire.settle();
    wire.mutate(owner, 2, set(b"new"));
    wire.deliver(owner, near);
    wire.kill(owner);
    let mut rest = [near, far];
    rest.sort_unstable();
    wire.install(&view(2, &rest, &[]));
    wire.settle();
    assert_eq!(wire.value(far), Some(&b"new"[..]));
}

#[test]
fn no_chunk_overtakes_a_delete() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    wire.mutate(owner, 1, set(b"v"));
    wire.settle();
    wire.add(9);
    wire.install(&view(2, &[1, 2], &[9]));
    // The chunk with the item is on its way when the item is deleted.
    while wire.deliver(owner, other) || wire.deliver(other, owner) {}
    wire.mutate(owner, 2, DELETE);
    wire.settle();
    assert_eq!(wire.value(9), None);
    let counted = Event::Counted(Epoch(2), life(9));
    assert!(wire.lanes.get_mut(&life(owner)).unwrap().0.take_events().contains(&counted));
}

#[test]
fn a_counted_learner_is_waited_for() {
    let mut wire = Wire::new(&[1, 9]);
    wire.install(&view(1, &[1], &[9]));
    wire.settle();
    wire.mutate(1, 5, set(b"v"));
    assert!(wire.answers.is_empty(), "it may become a member at any moment");
    wire.settle();
    assert_eq!(wire.answers, [(5, STORED)]);
}

#[test]
fn messages_of_another_epoch_are_dropped_or_kept_for_their_time() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    // The owner works in view 2 already, the other member does not know of it yet.
    let next = view(2, &[1, 2], &[]);
    wire.enter(owner, &next);
    wire.mutate(owner, 1, set(b"v"));
    wire.settle();
    assert_eq!(wire.value(other), None);
    wire.enter(other, &next);
    wire.settle();
    assert_eq!(wire.value(other), Some(&b"v"[..]));
    assert_eq!(wire.answers, [(1, STORED)]);
}

#[test]
fn what_comes_before_its_view_is_counted_and_none_of_it_is_lost() {
    let mut wire = Wire::new(&[1, 9]);
    wire.install(&view(1, &[1], &[]));
    wire.settle();
    let early = |wire: &Wire| wire.lanes[&life(9)].0.backlog().early_bytes;
    assert_eq!(early(&wire), 0);
    // The member sends to its learner, which has not heard of the view.
    let next = view(2, &[1], &[9]);
    wire.enter(1, &next);
    wire.settle();
    let before = early(&wire);
    let value = [b'x'; 1000];
    (0..10).for_each(|waiter| wire.mutate(1, waiter, set(&value)));
    wire.settle();
    let came = early(&wire) - before;
    assert!((10_000..14_000).contains(&came), "{came}");
    assert_eq!(wire.value(9), None);
    wire.enter(9, &next);
    assert_eq!(early(&wire), 0);
    wire.settle();
    assert_eq!(wire.value(9), Some(&value[..]));
    assert!(wire.lanes[&life(1)].0.stream.counts(life(9)), "it is filled");
}

#[test]
fn a_gap_and_a_false_ack_break_the_link() {
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    let change = KeyChange::Delete;
    let version = Versions::new(Epoch(1), 1).next(None);
    let record = Record { key: Bytes::from_static(KEY), version, change };
    let gap = Apply { position: 2, committed: 0, record, answered: None };
    let wrong: [Letter; 3] = [
        (life(1), Epoch(1), LaneMessage::Apply(gap)),
        (life(1), Epoch(1), LaneMessage::AppliedUpTo(1)),
        (life(7), Epoch(1), LaneMessage::AppliedUpTo(0)),
    ];
    for (from, epoch, message) in wrong {
        wire.with(2, |lane, items, post| {
            assert!(lane.receive(from, epoch, message, items, post).is_err());
        });
    }
}

#[test]
fn what_is_not_everywhere_yet_is_shown_to_nobody() {
    let owner = owner(&[1, 2, 3]);
    let [near, far] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(owner, 1, set(b"v"));
    wire.deliver(owner, near);
    assert!(!wire.may_read(owner) && !wire.may_read(near) && wire.may_read(far));
    wire.settle();
    assert!(wire.may_read(owner) && wire.may_read(near) && wire.may_read(far));
}

#[test]
fn a_client_sees_at_once_what_it_has_done_at_another_node() {
    let owner = owner(&[1, 2, 3]);
    let [asked, other] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(asked, 1, set(b"v"));
    // Nobody has told yet what is committed, but for the answer.
    while let Some((from, to)) = wire.next_pair() {
        wire.deliver(from.0, to.0);
    }
    assert!(wire.may_read(owner) && wire.may_read(asked) && !wire.may_read(other));
    wire.settle();
    assert!(wire.may_read(other));
}

#[test]
fn what_came_over_is_shown_when_all_go_on() {
    let owner = owner(&[1, 2, 3]);
    let [near, far] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(owner, 1, set(b"v"));
    wire.deliver(owner, near);
    wire.kill(owner);
    let mut rest = [near, far];
    rest.sort_unstable();
    let next = view(2, &rest, &[]);
    wire.enter(near, &next);
    assert!(!wire.may_read(near), "it has told what it has");
    wire.enter(far, &next);
    // far takes up what near has told, and waits until near goes on as well.
    while wire.deliver(near, far) {}
    assert_eq!(wire.value(far), Some(&b"v"[..]));
    assert!(!wire.may_read(far), "near does not know that far has it");
    wire.settle();
    assert!(wire.may_read(near) && wire.may_read(far));
}

#[test]
fn a_request_that_is_sent_again_is_not_decided_again() {
    let owner = owner(&[1, 2, 3]);
    let [origin, _] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(origin, 1, incr());
    let later = Millis(10 + RESEND_MS);
    wire.with(origin, |lane, items, post| lane.tick(later, items, post));
    wire.settle();
    assert_eq!(wire.answers, [(1, number(1))]);
    assert_eq!(wire.value(owner), Some(&b"1"[..]));
}

#[test]
fn a_learner_relays() {
    let mut wire = Wire::new(&[1, 9]);
    wire.install(&view(1, &[1], &[9]));
    wire.mutate(9, 3, incr());
    wire.settle();
    assert_eq!(wire.answers, [(3, number(1))]);
    wire.mutate(9, 4, incr());
    // The view changes while the request is on its way.
    wire.install(&view(2, &[1], &[9]));
    wire.settle();
    assert_eq!(wire.answers[1], (4, number(2)));
}

/// Three nodes of which the last was left out, and does not reach the owner of the test's key.
fn torn_apart() -> (Wire, [u64; 2]) {
    let mut wire = Wire::new(&[1, 2, 9]);
    wire.install(&view(1, &[1, 2, 9], &[]));
    wire.settle();
    let absent = vec![Member { name: "n9".into(), incarnation: life(9) }];
    let left = View { absent, ..view(2, &[1, 2], &[]) };
    wire.install(&left);
    wire.settle();
    let owner = owner(&[1, 2]);
    wire.torn = Some((life(owner), life(9)));
    (wire, [owner, 3 - owner])
}

/// Time passes, and one node takes note of it.
fn wait(wire: &mut Wire, n: u64, ms: u64) {
    wire.waited_ms += ms;
    wire.with(n, |lane, items, post| lane.tick(post.local_time(), items, post));
    wire.settle();
}

#[test]
fn a_node_that_does_not_reach_an_owner_asks_through_another_member() {
    let (mut wire, _) = torn_apart();
    wire.mutate(9, 1, incr());
    wire.settle();
    assert_eq!(wire.answers, []);
    wait(&mut wire, 9, 400);
    assert_eq!(wire.answers, [(1, number(1))]);
    // From now on at once.
    wire.mutate(9, 2, incr());
    wire.settle();
    assert_eq!(wire.answers[1..], [(2, number(2))]);
}

#[test]
fn what_comes_straight_and_by_a_detour_counts_once() {
    let (mut wire, [owner, other]) = torn_apart();
    wire.mutate(9, 1, incr());
    wait(&mut wire, 9, 400);
    wire.torn = None;
    wire.settle();
    assert_eq!(wire.answers, [(1, number(1))], "the link is back, and brings the first one");
    wire.mutate(9, 2, incr());
    wire.settle();
    assert_eq!(wire.answers[1..], [(2, number(2))]);
    assert_eq!((wire.value(owner), wire.value(other)), (Some(&b"2"[..]), Some(&b"2"[..])));
}

#[test]
fn a_detour_that_leads_nowhere_is_left() {
    let (mut wire, [owner, other]) = torn_apart();
    wire.mutate(9, 1, incr());
    wire.torn_too = Some((life(other), life(9)));
    wait(&mut wire, 9, 400);
    wire.torn = None;
    // What was on its way is lost with the link.
    wire.on_the_way.retain(|pair, _| *pair != (life(9), life(owner)));
    wait(&mut wire, 9, 400);
    assert_eq!(wire.answers, [(1, number(1))]);
}

#[test]
fn a_request_is_passed_on_once_and_for_those_who_are_remembered_only() {
    let (mut wire, [owner, other]) = torn_apart();
    let key = Bytes::from_static(KEY);
    let fwd = Fwd { counter: 1, done_up_to: 0, until: None, key, mutation: Mutation::Read };
    for (from, origin) in [(9, 8), (owner, 9)] {
        let message = LaneMessage::PassFwd(life(origin), fwd.clone());
        wire.with(other, |lane, items, post| {
            lane.receive(life(from), Epoch(2), message, items, post).unwrap();
            assert_eq!(post.sent, []);
        });
    }
}

/// Memory is short on one node: it drops the test's item.
fn lose(wire: &mut Wire, n: u64) {
    wire.with(n, |lane, items, post| {
        let (version, _) = items.0.remove(KEY).unwrap();
        items.1.push((Bytes::from_static(KEY), version));
        lane.settle_lost(items, post);
    });
}

#[test]
fn an_item_that_its_owner_drops_goes_everywhere() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    wire.mutate(1, 1, set(b"v"));
    wire.settle();
    lose(&mut wire, owner);
    assert!(!wire.may_read(owner), "the other still shows it");
    wire.settle();
    assert!(wire.may_read(owner) && wire.value(other).is_none());
}

#[test]
fn an_item_that_a_member_drops_is_read_at_its_owner_until_it_goes_everywhere() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    wire.mutate(1, 1, set(b"v"));
    wire.settle();
    lose(&mut wire, other);
    let evictions = |wire: &Wire, n| wire.lanes[&life(n)].0.backlog().local_evictions;
    assert_eq!((evictions(&wire, other), evictions(&wire, owner)), (1, 0));
    assert!(!wire.may_read(other) && wire.may_read(owner));
    wire.settle();
    assert!(wire.may_read(other) && wire.may_read(owner) && wire.value(owner).is_none());
}

#[test]
fn what_a_member_had_to_drop_is_gone_in_the_next_view() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    wire.mutate(1, 1, set(b"v"));
    wire.settle();
    lose(&mut wire, other);
    // Its owner has not heard of it when the view changes.
    wire.install(&view(2, &[1, 2], &[]));
    wire.settle();
    assert!(wire.value(owner).is_none() && wire.may_read(other));
}

/// Several keys of this lane.
fn some_keys(count: usize) -> Vec<Bytes> {
    let names = (0..).map(|n| Bytes::from(format!("key-{n}")));
    names.filter(|name| Key::new(name).unwrap().hash().lane() == 0).take(count).collect()
}

/// A pair of nodes with `count` more keys than the test's, and a third that was left out after it
/// had got all of them. Whoever owns the test's key is first.
fn left_out(count: usize) -> (Wire, [u64; 2]) {
    let mut wire = Wire::new(&[1, 2, 9]);
    wire.install(&view(1, &[1, 2, 9], &[]));
    wire.settle();
    let keys = some_keys(count);
    for key in keys.iter().map(|key| &key[..]).chain([KEY]) {
        let key = Key::new(key).unwrap();
        wire.with(1, |lane, items, post| lane.mutate(key, &set(b"v"), 1, items, post));
    }
    wire.settle();
    wire.install(&view(2, &[1, 2], &[]));
    wire.settle();
    let owner = owner(&[1, 2]);
    (wire, [owner, 3 - owner])
}

fn figures(wire: &Wire, n: u64) -> SyncFigures {
    wire.lanes[&life(n)].0.figures()
}

/// Everybody counts the learner, which holds what they hold.
fn is_filled(wire: &mut Wire, epoch: u32, owners: &[u64]) {
    let counted = Event::Counted(Epoch(epoch), life(9));
    for &owner in owners {
        let (lane, items) = wire.lanes.get_mut(&life(owner)).unwrap();
        assert!(lane.take_events().contains(&counted), "{owner} does not count it");
        let held = items.0.clone();
        assert_eq!(wire.lanes[&life(9)].1.0, held);
    }
}

#[test]
fn a_node_that_was_left_out_answers_nothing_and_is_sent_only_what_differs() {
    let (mut wire, owners) = left_out(100);
    assert!(wire.value(9).is_some() && !wire.may_read(9));
    wire.mutate(1, 2, set(b"other"));
    wire.settle();
    wire.install(&view(3, &[1, 2], &[9]));
    wire.settle();
    assert_eq!(wire.value(9), Some(&b"other"[..]));
    is_filled(&mut wire, 3, &owners);
    let figures = figures(&wire, 9);
    assert_eq!((figures.rounds, figures.items_dropped, figures.items_received), (2, 1, 1));
    assert!(figures.slots_equal >= 95, "{figures:?}");
    assert_eq!(figures.slots_compared, figures.slots_equal + 1);
}

#[test]
fn what_was_deleted_meanwhile_does_not_come_back() {
    let (mut wire, owners) = left_out(10);
    wire.mutate(2, 2, DELETE);
    wire.settle();
    wire.install(&view(3, &[1, 2], &[9]));
    wire.settle();
    assert_eq!(wire.value(9), None);
    is_filled(&mut wire, 3, &owners);
}

#[test]
fn what_the_view_never_had_goes_although_it_is_newer() {
    let keeper = owner(&[1, 2, 9]);
    let rest: Vec<u64> = [1, 2, 9].into_iter().filter(|&n| n != keeper).collect();
    let mut wire = Wire::new(&[1, 2, 9]);
    wire.install(&view(1, &[1, 2, 9], &[]));
    wire.settle();
    wire.mutate(keeper, 1, set(b"confirmed"));
    wire.settle();
    // The owner decides once more, and nobody hears of it.
    wire.mutate(keeper, 2, set(b"never heard of"));
    wire.on_the_way.clear();
    wire.install(&view(2, &rest, &[]));
    wire.settle();
    wire.install(&view(3, &rest, &[keeper]));
    wire.settle();
    assert_eq!(wire.value(keeper), Some(&b"confirmed"[..]));
}

#[test]
fn a_touch_does_not_renew_a_value_of_the_past() {
    let (mut wire, owners) = left_out(10);
    wire.mutate(2, 2, set(b"w"));
    wire.settle();
    wire.install(&view(3, &[1, 2], &[9]));
    // The learner knows of the view, and of nothing that the owner has. A touch goes before it: by
    // its version, CAS unique and length the old value would then look like the new one.
    let [owner, other] = owners;
    while wire.deliver(owner, other) || wire.deliver(other, owner) {}
    let queue = wire.on_the_way.get_mut(&(life(owner), life(9))).unwrap();
    let digests = queue.iter().position(|(_, it)| matches!(it, LaneMessage::SnapDigests(_)));
    let digests = queue.remove(digests.unwrap()).unwrap();
    wire.settle();
    let (version, cas) = {
        let (lane, items) = wire.lanes.get_mut(&life(owner)).unwrap();
        let item = items.0.get_mut(KEY).unwrap();
        let cas = item.0.get();
        item.0 = lane.versions().next(Some(item.0));
        (item.0, cas)
    };
    let change = KeyChange::Meta { cas, deadline: Deadline::NEVER, marks: Marks::default() };
    let record = Record { key: Bytes::from_static(KEY), version, change };
    wire.with(owner, |lane, _, post| lane.append(record, None, post));
    let now = wire.lanes[&life(owner)].1.0.clone();
    wire.settle();
    assert_eq!(wire.value(9), None, "nobody knows whether that value is the present one");
    let (epoch, LaneMessage::SnapDigests(mut digests)) = digests else { unreachable!() };
    // As they are told after the touch.
    let slots = wire.lanes[&life(owner)].0.slots_of(life(owner));
    for (slot, digest) in slots.into_iter().zip(&mut digests) {
        let map = Map(now.clone(), Vec::new(), Version::default(), Now::default());
        *digest = map.digest(usize::from(slot));
    }
    let digests = LaneMessage::SnapDigests(digests);
    wire.on_the_way.get_mut(&(life(owner), life(9))).unwrap().push_back((epoch, digests));
    wire.settle();
    assert_eq!(wire.value(9), Some(&b"w"[..]));
    assert_eq!(figures(&wire, 9).items_unsure, 1);
}

#[test]
fn a_round_that_a_new_view_interrupts_is_repeated_for_the_new_owners() {
    let (mut wire, owners) = left_out(100);
    let [owner, other] = owners;
    wire.mutate(1, 2, set(b"other"));
    wire.settle();
    wire.install(&view(3, &[1, 2], &[9]));
    // One of the owners has filled it when the other dies.
    while wire.deliver(owner, 9)
        || wire.deliver(9, owner)
        || wire.deliver(owner, other)
        || wire.deliver(other, owner)
    {}
    wire.kill(other);
    wire.install(&view(4, &[owner], &[9]));
    wire.settle();
    is_filled(&mut wire, 4, &[owner]);
    let figures = figures(&wire, 9);
    assert!(figures.items_received <= 1 && figures.slots_equal >= 95, "{figures:?}");
}

#[test]
fn a_new_line_of_views_begins_with_nothing_of_the_old_one() {
    let (mut wire, _) = left_out(10);
    let line = Line { number: 1, random: 5 };
    wire.enter(9, &View { line, ..view(2000, &[1, 2], &[9]) });
    assert_eq!(wire.value(9), None);
    let (mut wire, _) = left_out(10);
    wire.enter(9, &View { generation: Epoch(2000), ..view(2000, &[9], &[]) });
    assert_eq!(wire.value(9), None);
}

#[test]
fn a_learner_takes_and_asks_for_nothing_out_of_turn() {
    let mut wire = Wire::new(&[1, 9]);
    wire.install(&view(1, &[1], &[9]));
    wire.settle();
    let foreign = LaneMessage::SnapWant(vec![4096]);
    let wrong = [
        (9, 1, LaneMessage::SnapDigests(Vec::new())),
        (1, 9, LaneMessage::SnapDigests(Vec::new())),
        (1, 9, LaneMessage::SnapWant(vec![1])),
        (1, 9, foreign),
        (1, 9, LaneMessage::SnapAck),
        (1, 9, LaneMessage::SnapEnd(Vec::new())),
        (9, 2, LaneMessage::SnapChunk(Vec::new())),
    ];
    for (at, from, message) in wrong {
        wire.with(at, |lane, items, post| {
            let told = format!("{message:?}");
            let taken = lane.receive(life(from), Epoch(1), message, items, post);
            assert!(taken.is_err(), "{told} from {from}");
        });
    }
}

#[test]
fn a_member_that_never_worked_in_the_view_that_admitted_it_decides_nothing() {
    let joiner = owner(&[1, 2]);
    let other = 3 - joiner;
    let mut wire = Wire::new(&[1, 2]);
    // The one that begins alone has what the joiner lacks.
    wire.enter(other, &view(1, &[other], &[]));
    wire.enter(other, &view(2, &[other], &[joiner]));
    wire.enter(joiner, &view(2, &[other], &[joiner]));
    // It hears of view 4 alone, not of the one that admitted it.
    wire.enter(joiner, &view(4, &[1, 2], &[]));
    wire.mutate(joiner, 5, set(b"v"));
    wire.with(joiner, |lane, items, post| {
        let mutation = Mutation::Count {
            direction: Direction::Up,
            delta: 1,
            initial: 0,
            terms: Terms::default(),
        };
        let (until, key) = (None, Bytes::from_static(KEY));
        let fwd = Fwd { counter: 1, done_up_to: 0, until, key, mutation };
        lane.receive(life(9), Epoch(4), LaneMessage::Fwd(fwd), items, post).unwrap();
    });
    assert!(wire.answers.is_empty(), "nobody but itself has it");
    assert_eq!(wire.value(joiner), None);
}

#[test]
fn a_learner_that_has_missed_its_admission_works_in_the_view_after_it() {
    let (mut wire, owners) = left_out(10);
    wire.install(&view(3, &[1, 2], &[9]));
    wire.settle();
    is_filled(&mut wire, 3, &owners);
    for n in [1, 2] {
        wire.enter(n, &view(4, &[1, 2, 9], &[]));
    }
    // Nobody works in view 4 without it; nor would in any view after that.
    for n in [1, 2, 9] {
        wire.enter(n, &view(5, &[1, 2, 9], &[]));
    }
    wire.settle();
    wire.mutate(1, 9, set(b"new"));
    wire.settle();
    assert_eq!((wire.value(9), wire.value(2)), (Some(&b"new"[..]), Some(&b"new"[..])));
    assert!(wire.may_read(9));
}

#[test]
fn what_was_flushed_is_neither_sent_nor_shown() {
    for is_swept in [false, true] {
        let (mut wire, owners) = left_out(20);
        if is_swept {
            // On the owners already, and not yet on the learner.
            owners.iter().for_each(|&n| wire.lanes.get_mut(&life(n)).unwrap().1.0.clear());
        }
        let floor = Version::floor_of(Epoch(3));
        wire.install(&View { floor, ..view(3, &[1, 2], &[9]) });
        wire.settle();
        is_filled(&mut wire, 3, &owners);
        assert_eq!(figures(&wire, 9).items_received, 0);
        let (_, items) = wire.lanes.get_mut(&life(9)).unwrap();
        assert!(items.current(Key::new(KEY).unwrap()).is_none());
    }
}

#[test]
fn what_is_over_and_swept_on_one_node_only_costs_one_slot_and_no_more() {
    let (mut wire, owners) = left_out(20);
    // The learner has swept what its owners have not, who send nothing of it.
    let floor = Version::floor_of(Epoch(3));
    wire.lanes.get_mut(&life(9)).unwrap().1.0.clear();
    wire.install(&View { floor, ..view(3, &[1, 2], &[9]) });
    wire.settle();
    let counted = Event::Counted(Epoch(3), life(9));
    for owner in owners {
        assert!(wire.lanes.get_mut(&life(owner)).unwrap().0.take_events().contains(&counted));
    }
    let figures = figures(&wire, 9);
    assert_eq!((figures.rounds, figures.items_received), (2, 0));
}

#[test]
fn what_a_member_has_not_acknowledged_is_its_lag() {
    let owner = owner(&[1, 2, 3]);
    let [one, two] = others(owner);
    let mut wire = Wire::new(&[1, 2, 3]);
    wire.install(&view(1, &[1, 2, 3], &[]));
    wire.settle();
    wire.mutate(owner, 1, incr());
    wire.mutate(owner, 2, incr());
    let lags = |wire: &Wire| wire.lanes[&life(owner)].0.lags().collect::<BTreeMap<_, _>>();
    assert_eq!(lags(&wire), BTreeMap::from([(life(one), 2), (life(two), 2)]));
    wire.deliver(owner, one);
    wire.deliver(one, owner);
    assert_eq!(lags(&wire), BTreeMap::from([(life(one), 1), (life(two), 2)]));
    wire.settle();
    assert_eq!(lags(&wire), BTreeMap::from([(life(one), 0), (life(two), 0)]));
}

#[test]
fn a_command_that_nobody_can_be_asked_about_is_held() {
    let mut wire = Wire::new(&[1]);
    wire.mutate(1, 1, incr());
    let held = |wire: &Wire| {
        let Backlog { held, ever_held, waiting, .. } = wire.lanes[&life(1)].0.backlog();
        (held, ever_held, waiting)
    };
    assert_eq!(held(&wire), (1, 1, 1));
    wire.install(&view(1, &[1], &[]));
    wire.settle();
    assert_eq!(held(&wire), (0, 1, 0), "it was answered");
}

/// The clock of a node, and its idea of the cluster's.
fn set_clock(wire: &mut Wire, n: u64, ms: u64) {
    let (_, items) = wire.lanes.get_mut(&life(n)).unwrap();
    items.3 = Now { local: Millis(ms), cluster: Millis(1_000_000 + ms), ..Now::default() };
}

fn tick(wire: &mut Wire, n: u64, ms: u64) {
    set_clock(wire, n, ms);
    wire.with(n, |lane, items, post| lane.tick(Millis(ms), items, post));
}

#[test]
fn a_request_that_nobody_waits_for_any_more_is_not_carried_out() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    for n in [owner, other] {
        set_clock(&mut wire, n, 5000);
    }
    wire.mutate(other, 1, set(b"late"));
    set_clock(&mut wire, owner, 35_000);
    wire.settle();
    assert_eq!((wire.value(owner), wire.answers.len()), (None, 0));
    assert_eq!(wire.lanes[&life(owner)].0.backlog().expired, 1);

    wire.mutate(other, 2, set(b"in time"));
    set_clock(&mut wire, owner, 34_999);
    wire.settle();
    assert_eq!(wire.value(owner), Some(&b"in time"[..]));
    // Nor does its own node give it to anybody again, or carry it out itself.
    tick(&mut wire, other, 40_000);
    assert!(!wire.deliver(other, owner));
}

#[test]
fn what_was_decided_in_time_is_answered_however_late_it_is_asked_again() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    wire.mutate(other, 1, incr());
    let (epoch, again) = wire.on_the_way[&(life(other), life(owner))][0].clone();
    wire.deliver(other, owner);
    set_clock(&mut wire, owner, 90_000);
    wire.on_the_way.get_mut(&(life(other), life(owner))).unwrap().push_back((epoch, again));
    wire.settle();
    assert_eq!(wire.answers, [(1, number(1))]);
    assert_eq!(wire.value(owner), Some(&b"1"[..]));
}

#[test]
fn a_node_that_stood_still_gives_no_change_to_anybody_before_it_knows_who_still_waits() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    tick(&mut wire, other, 100);
    tick(&mut wire, other, 150);
    wire.settle();
    // It is known at once, whatever comes first.
    set_clock(&mut wire, other, 2000);
    wire.mutate(other, 1, set(b"said long ago"));
    tick(&mut wire, other, 2050);
    wire.mutate(other, 2, set(b"and this"));
    assert!(!wire.deliver(other, owner));
    wire.mutate(other, 3, Mutation::Read);
    assert!(wire.deliver(other, owner), "a read does no harm");
    wire.settle();
    (1..10).for_each(|n| tick(&mut wire, other, 2050 + 50 * n));
    assert!(!wire.deliver(other, owner));
    tick(&mut wire, other, 2550);
    wire.settle();
    assert_eq!(wire.value(owner), Some(&b"and this"[..]));
}

#[test]
fn nothing_is_said_that_not_all_of_the_view_know() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.lanes.get_mut(&life(owner)).unwrap().0.options.features = Features::NONE;
    let asks = |wire: &mut Wire, features, epoch| {
        wire.install(&View { features, ..view(epoch, &[1, 2], &[]) });
        wire.settle();
        wire.mutate(other, epoch, set(b"v"));
        let (_, message) = wire.on_the_way[&(life(other), life(owner))][0].clone();
        message
    };
    let endless = asks(&mut wire, Features::NONE, 1);
    assert!(matches!(endless, LaneMessage::Fwd(Fwd { until: None, .. })), "{endless:?}");
    wire.settle();
    assert_eq!(wire.answers, [(1, STORED)]);
    // Said all the same, it breaks the link: the owner would not have read it at all.
    let wrong = asks(&mut wire, Features::ALL, 2);
    wire.with(owner, |lane, items, post| {
        assert!(lane.receive(life(other), Epoch(2), wrong, items, post).is_err());
    });
}

#[test]
fn a_version_of_an_epoch_that_has_not_come_breaks_the_link() {
    let owner = owner(&[1, 2]);
    let other = 3 - owner;
    let mut wire = Wire::new(&[1, 2]);
    wire.install(&view(1, &[1, 2], &[]));
    wire.settle();
    let record = |version| Record {
        key: Bytes::from_static(KEY),
        version: Version::from_raw(version),
        change: KeyChange::Delete,
    };
    for version in [0, 2 << 40, u64::MAX] {
        let (record, key) = (record(version), Bytes::from_static(KEY));
        let lost = LaneMessage::Lost(vec![(key, record.version)]);
        let apply = Apply { position: 1, committed: 0, record, answered: None };
        for (at, from, message) in [(owner, other, lost), (other, owner, LaneMessage::Apply(apply))]
        {
            wire.with(at, |lane, items, post| {
                assert!(lane.receive(life(from), Epoch(1), message, items, post).is_err());
            });
        }
    }
}
