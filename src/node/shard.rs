//! One sixteenth of the keys: a store and the lane that replicates it, under one lock.

use bytes::Bytes;

use super::Host;
use super::ahead::Sought;
use super::decide::{self, Decided};
use crate::chunk::{self, Chunk};
use crate::key::{Key, KeyHash};
use crate::record::{Change, Digest, Mutation, Outcome, Record};
use crate::replication::message::LaneMessage;
use crate::replication::{
    Backlog, Decision, Event, Incarnation, Items, Lane, LaneOptions, Outside, SyncFigures, View,
    Violation,
};
use crate::store::{Applied, Item, Store};
use crate::time::{Millis, Now};
use crate::version::{Epoch, Version, Versions};

/// Items that are looked at in one step on behalf of a learner. Each is a miss in all caches, so that
/// these take some tens of microseconds under the lock.
const PIECE_ITEMS: u32 = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct Shard<W> {
    store: Store,
    lane: Lane<W>,
    /// Where values are put together that no client has sent as a whole.
    scratch: Vec<u8>,
    chunk: Chunk,
    /// Records that did not fit.
    homeless: Vec<(Bytes, Version)>,
    item_max: usize,
}

impl<W> Shard<W> {
    pub(super) fn new(lane: LaneOptions, store: Store, item_max: usize) -> Self {
        Self {
            store,
            lane: Lane::new(lane),
            scratch: Vec::new(),
            chunk: Chunk::default(),
            homeless: Vec::new(),
            item_max,
        }
    }

    /// Whether this copy of the key is the one to show, if `proves_read` says so afterwards.
    #[inline(always)]
    pub(super) fn may_read(&self, key: Key<'_>) -> bool {
        self.lane.may_read(key)
    }

    /// Whether what was read before `now` was current.
    pub(super) fn proves_read(&self, now: impl FnOnce() -> Millis) -> bool {
        self.lane.proves_read(now)
    }

    /// Keys with changes that are not everywhere yet, and clients that wait.
    pub(super) fn backlog(&self) -> Backlog {
        self.lane.backlog()
    }

    /// How many records each receiver of its stream has not acknowledged.
    pub(super) fn lags(&self) -> impl Iterator<Item = (Incarnation, u64)> {
        self.lane.lags()
    }

    /// Everything of a lane that is alone is gone; no view is needed to agree on it.
    pub(super) fn flush_alone(&mut self) {
        let floor = self.lane.versions().next(None);
        self.store.set_floor(floor);
    }

    pub(super) fn get(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        let item = self.store.get(key, now)?;
        tell_owner(&mut self.lane, key, item.idle_s);
        Some(item)
    }

    /// The same for a key that may have been looked for already.
    #[inline(always)]
    pub(super) fn read(&mut self, sought: &Sought<'_>, now: Now) -> Option<Item<'_>> {
        let item = self.store.get_at(sought.place.as_ref(), sought.key, now)?;
        tell_owner(&mut self.lane, sought.key, item.idle_s);
        Some(item)
    }

    /// Frees memory for other shards; those who share what goes are told.
    pub(super) fn give_back<O: Outside<W>>(
        &mut self,
        wanted: usize,
        now: Now,
        out: &mut O,
    ) -> bool {
        let has_given = self.store.give_back(wanted, now);
        let (lane, mut items) = self.split(now);
        lane.settle_lost(&mut items, out);
        has_given
    }

    pub(super) fn peek(&mut self, key: Key<'_>, now: Now) -> Option<Item<'_>> {
        if !self.lane.is_whole() {
            // What is left of an old copy is shown to nobody.
            return None;
        }
        self.store.peek(key, now)
    }

    /// `None`: the answer comes through the host's waiter.
    pub(super) fn mutate<H: Host<W>>(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        now: Now,
        host: &mut H,
    ) -> Option<Outcome> {
        if self.lane.is_alone() {
            let decided = decide::decide(
                &mut self.store,
                &mut self.scratch,
                key,
                mutation,
                self.lane.versions(),
                self.item_max,
                now,
            );
            return Some(decided.outcome);
        }
        let waiter = host.waiter();
        let (lane, mut items) = self.split(now);
        lane.mutate(key, mutation, waiter, &mut items, host);
        None
    }

    pub(super) fn receive<O: Outside<W>>(
        &mut self,
        from: Incarnation,
        epoch: Epoch,
        message: LaneMessage,
        now: Now,
        out: &mut O,
    ) -> Result<(), Violation> {
        let (lane, mut items) = self.split(now);
        lane.receive(from, epoch, message, &mut items, out)
    }

    pub(super) fn install<O: Outside<W>>(&mut self, view: &View, now: Now, out: &mut O) {
        let (lane, mut items) = self.split(now);
        if let Err(Violation(rule)) = lane.install(view, &mut items, out) {
            // An early message was wrong. Its sender's link shows it again with the next one.
            tracing::warn!(rule, "peer message dropped");
        }
    }

    pub(super) fn flush<O: Outside<W>>(&mut self, epoch: Epoch, now: Now, out: &mut O) {
        let (lane, mut items) = self.split(now);
        if let Err(Violation(rule)) = lane.flush(epoch, &mut items, out) {
            tracing::warn!(rule, "peer message dropped");
        }
    }

    pub(super) fn tick<O: Outside<W>>(&mut self, now: Now, out: &mut O) {
        self.store.maintain(now);
        let (lane, mut items) = self.split(now);
        lane.tick(now.local, &mut items, out);
    }

    pub(super) fn announce_commits<O: Outside<W>>(&mut self, out: &mut O) {
        self.lane.announce_commits(out);
    }

    /// A step of filling learners, or of being filled.
    pub(super) fn sync<O: Outside<W>>(&mut self, now: Now, out: &mut O) {
        let (lane, mut items) = self.split(now);
        lane.sync(&mut items, out);
    }

    /// See `Lane::figures`.
    pub(super) fn sync_figures(&self) -> SyncFigures {
        self.lane.figures()
    }

    /// See `Lane::joined`.
    pub(super) fn joined(&self, view: &View) -> Option<(Millis, SyncFigures)> {
        self.lane.joined(view)
    }

    /// Whether what it holds may be shown to anybody.
    pub(super) fn is_whole(&self) -> bool {
        self.lane.is_whole()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        self.lane.take_events()
    }

    /// For what needs no rules of memcached: reports, walks, sweeps.
    pub(super) fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Everything it holds, for comparing nodes.
    pub(super) fn contents(&self, now: Now) -> Vec<Record<Bytes>> {
        let mut records = Vec::new();
        self.store.scan(0, u32::MAX, now, |key, item| {
            records.push(record_of(key, item));
            true
        });
        records
    }

    fn split(&mut self, now: Now) -> (&mut Lane<W>, ShardItems<'_>) {
        let items = ShardItems {
            store: &mut self.store,
            scratch: &mut self.scratch,
            chunk: &mut self.chunk,
            homeless: &mut self.homeless,
            item_max: self.item_max,
            now,
        };
        (&mut self.lane, items)
    }
}

/// An item that is used at last is in use for its owner too, who says which items have to go.
/// Once a minute is enough for that, as it is for memcached's own order.
#[inline]
fn tell_owner<W>(lane: &mut Lane<W>, key: Key<'_>, idle_s: u32) {
    const UNUSED_S: u32 = 60;
    if idle_s >= UNUSED_S && !lane.owns(key) {
        lane.bump(key);
    }
}

/// A shard's store as its lane sees it.
struct ShardItems<'a> {
    store: &'a mut Store,
    scratch: &'a mut Vec<u8>,
    chunk: &'a mut Chunk,
    homeless: &'a mut Vec<(Bytes, Version)>,
    item_max: usize,
    now: Now,
}

impl Items for ShardItems<'_> {
    fn decide(
        &mut self,
        key: Key<'_>,
        mutation: &Mutation<Bytes>,
        versions: &mut Versions,
    ) -> Decision {
        let (store, scratch, chunk) = (&mut *self.store, &mut *self.scratch, &mut *self.chunk);
        let borrowed = mutation.map(|value| value.as_ref());
        let Decided { outcome, record } =
            decide::decide(store, scratch, key, &borrowed, versions, self.item_max, self.now);
        // Nearly always the value is the one that the client has sent.
        let mut keep = |bytes: &&[u8]| match mutation {
            Mutation::Store { value, .. } => {
                chunk::part_of(value, bytes).unwrap_or_else(|| chunk.copy(bytes))
            }
            _ => chunk.copy(bytes),
        };
        let record = record.map(|record| record.map(&mut keep));
        Decision { outcome, record }
    }

    fn apply(&mut self, record: &Record<Bytes>) {
        if self.store.apply(&record.map(|bytes| bytes.as_ref()), self.now) == Applied::NoMemory {
            tracing::warn!(bytes = record.size(), "no memory for an item of another node");
            self.homeless.push((record.key.clone(), record.version));
        }
    }

    fn has_lost(&self) -> bool {
        !self.homeless.is_empty() || self.store.has_lost()
    }

    fn take_lost(&mut self) -> Vec<(Bytes, Version)> {
        let evicted = self.store.take_lost().into_iter();
        let mut lost: Vec<_> = evicted.map(|(key, version)| (Bytes::from(key), version)).collect();
        lost.append(self.homeless);
        lost
    }

    fn bump(&mut self, key: Key<'_>) {
        self.store.get(key, self.now);
    }

    fn current(&mut self, key: Key<'_>) -> Option<Record<Bytes>> {
        self.store.peek(key, self.now).map(|item| record_of(key, item))
    }

    fn scan(
        &mut self,
        cursor: u64,
        bytes: usize,
        wanted: &dyn Fn(KeyHash) -> bool,
    ) -> (Vec<Record<Bytes>>, Option<u64>) {
        let (mut records, mut taken) = (Vec::new(), 0);
        let next = self.store.scan(cursor, PIECE_ITEMS, self.now, |key, item| {
            if wanted(key.hash()) {
                let record = record_of(key, item);
                taken += record.size();
                records.push(record);
            }
            taken < bytes
        });
        (records, next)
    }

    fn digest(&self, slot: usize) -> Digest {
        self.store.digest(slot)
    }

    fn drop_some(
        &mut self,
        cursor: u64,
        is_unwanted: &dyn Fn(KeyHash, Version) -> bool,
    ) -> (u64, Option<u64>) {
        let is_unwanted = |key: Key<'_>, version| is_unwanted(key.hash(), version);
        self.store.drop_from(cursor, PIECE_ITEMS, is_unwanted)
    }

    fn set_floor(&mut self, floor: Version) {
        self.store.set_floor(floor);
    }

    fn wipe(&mut self) {
        self.store.wipe();
    }

    fn now(&self) -> Now {
        self.now
    }
}

fn record_of(key: Key<'_>, item: Item<'_>) -> Record<Bytes> {
    let Item { version, cas, flags, deadline, marks, value, .. } = item;
    let value = Bytes::from(value.to_vec());
    let change = Change::Put { cas, flags, deadline, marks, value };
    Record { key: Bytes::copy_from_slice(key.bytes()), version, change }
}
