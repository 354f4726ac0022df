//! Items that had to go for lack of memory, and reads that keep others from going.
//!
//! An owner that drops an item tells everybody to do without it, in its stream like any change. A
//! member that had to drop one that is not its own asks the owner to make that official; until the
//! owner's word has come, the key is read there.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::record::Change as KeyChange;
use crate::version::Version;

/// Keys told to an owner in one message, and remembered until then.
const BUMPS_MAX: usize = 1000;

/// What this node lacks although the view has it, and what its clients use.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// By the key's hash: the key, and the version that went.
    keys: BTreeMap<u64, (Bytes, Version)>,
    /// Those that the next view was told of, and does without.
    told: BTreeMap<u64, (Bytes, Version)>,
    /// Read here, and owned elsewhere.
    bumps: Vec<Bytes>,
}

impl Lost {
    /// Nearly always there is nothing, and every read asks.
    #[inline(always)]
    pub(super) fn has(&self, key: Key<'_>) -> bool {
        !(self.keys.is_empty() && self.told.is_empty()) && self.has_one(key.hash().get())
    }

    #[cold]
    fn has_one(&self, hash: u64) -> bool {
        self.keys.contains_key(&hash) || self.told.contains_key(&hash)
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.told.clear();
    }

    /// The next view is told of everything.
    pub(super) fn tell_all(&mut self) {
        self.told.append(&mut self.keys);
    }

    /// The owner has spoken of a key. Returns what still lacks: a record without a value brings
    /// back nothing.
    fn superseded(&mut self, record: &Record<Bytes>) -> Option<(Bytes, Version)> {
        let hash = Key::new(&record.key)?.hash().get();
        let (key, version) = self.keys.get_mut(&hash)?;
        if *version >= record.version {
            return None;
        }
        if matches!(record.change, KeyChange::Meta { .. }) {
            *version = record.version;
            return Some((key.clone(), *version));
        }
        self.keys.remove(&hash);
        None
    }

    /// As changes that make it official, one version above what went.
    pub(super) fn as_evictions(&self) -> impl Iterator<Item = Record<Bytes>> {
        self.keys.values().chain(self.told.values()).map(|(key, version)| Record {
            key: key.clone(),
            version: version.above(),
            change: KeyChange::Delete,
        })
    }
}

impl<W> Lane<W> {
    /// A client of this node has used an item that nobody here had used for long.
    pub fn bump(&mut self, key: Key<'_>) {
        if self.lost.bumps.len() < BUMPS_MAX {
            self.lost.bumps.push(Bytes::copy_from_slice(key.bytes()));
        }
    }

    /// Tells the owners what is in use here, so that they keep it.
    pub(super) fn tell_bumps<O: Outside<W>>(&mut self, out: &mut O) {
        let mut by_owner: BTreeMap<Incarnation, Vec<Bytes>> = BTreeMap::new();
        for key in std::mem::take(&mut self.lost.bumps) {
            let owner = Key::new(&key).and_then(|key| self.owners.owner(key.hash()));
            if let Some(owner) = owner.filter(|&owner| owner != self.options.me) {
                by_owner.entry(owner).or_default().push(key);
            }
        }
        for (owner, keys) in by_owner {
            self.tell(owner, LaneMessage::Bump(keys), out);
        }
    }

    /// A record of its owner may bring back what went here.
    pub(super) fn bring_back<O: Outside<W>>(
        &mut self,
        owner: Incarnation,
        record: &Record<Bytes>,
        out: &mut O,
    ) {
        if let Some(lacking) = self.lost.superseded(record) {
            self.tell(owner, LaneMessage::Lost(vec![lacking]), out);
        }
    }

    /// Deals with everything that has gone since the last call.
    pub fn settle_lost<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        if items.has_lost() {
            let lost = items.take_lost();
            self.do_without(lost, items, out);
        }
    }

    /// In a new view, which was told of what had gone by then; later losses are its owners' business.
    pub(super) fn resettle_lost<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        self.lost.told.clear();
        let mut lost: Vec<_> = std::mem::take(&mut self.lost.keys).into_values().collect();
        lost.extend(items.take_lost());
        self.do_without(lost, items, out);
    }

    fn do_without<I: Items, O: Outside<W>>(
        &mut self,
        lost: Vec<(Bytes, Version)>,
        items: &mut I,
        out: &mut O,
    ) {
        if lost.is_empty() || self.role == Role::Outsider {
            return;
        }
        let mut by_owner: BTreeMap<Incarnation, Vec<(Bytes, Version)>> = BTreeMap::new();
        for (key, version) in lost {
            let Some(hash) = Key::new(&key).map(Key::hash) else {
                continue;
            };
            let owner = self.owners.owner(hash);
            if owner == Some(self.options.me) && self.change.is_none() {
                // What came over with the view may have brought it back here alone.
                let record = self.eviction(key, version);
                items.apply(&record);
                self.append(record, None, out);
            } else {
                self.backlog.local_evictions += 1;
                self.lost.keys.insert(hash.get(), (key.clone(), version));
                if let Some(owner) = owner {
                    by_owner.entry(owner).or_default().push((key, version));
                }
            }
        }
        if self.change.is_none() {
            for (owner, keys) in by_owner {
                self.tell(owner, LaneMessage::Lost(keys), out);
            }
        }
    }

    /// A member lacks items of ours. Where they are still the newest, nobody keeps them.
    pub(super) fn give_up<I: Items, O: Outside<W>>(
        &mut self,
        keys: Vec<(Bytes, Version)>,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if !keys.iter().all(|(_, version)| is_given(*version, self.view.epoch)) {
            return Err(Violation("a version that nobody has given"));
        }
        for (bytes, version) in keys {
            let Some(key) = Key::new(&bytes) else {
                continue;
            };
            let is_ours = self.owners.owner(key.hash()) == Some(self.options.me);
            let newer = items.current(key).is_some_and(|record| record.version > version);
            if is_ours && !newer {
                let record = self.eviction(bytes, version);
                items.apply(&record);
                self.append(record, None, out);
            }
        }
        Ok(())
    }

    /// Everybody does without this item from here on.
    fn eviction(&mut self, key: Bytes, version: Version) -> Record<Bytes> {
        let version = self.versions.next(Some(version));
        Record { key, version, change: KeyChange::Delete }
    }
}
