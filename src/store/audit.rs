//! Whether everything in a store is accounted for: each chunk, each link, each byte.
//!
//! For tests and soaks; it looks at all that is there, and has no bound.

use std::collections::HashSet;

use super::Store;
use super::lru::Segment;
use super::slab::{ChunkId, Kind};
use crate::time::Deadline;

/// What breaks the rule, in words.
type Audited = Result<(), String>;

impl Store {
    /// Checks everything; the error says what is wrong first.
    pub fn audit(&self) -> Audited {
        let items = self.audit_index()?;
        self.audit_lists(&items)?;
        let chunks = self.audit_chains(&items)?;
        self.slab.audit(&chunks)?;
        self.audit_ends(&items)?;
        self.audit_digests()?;
        rule(self.building.is_empty(), || "an item is half built".into())
    }

    /// Bytes that it has charged to its budget.
    pub fn charged(&self) -> usize {
        self.slab.held() + self.index.bytes()
    }

    fn audit_index(&self) -> Result<Vec<ChunkId>, String> {
        let entries = (0..self.index.buckets()).flat_map(|number| self.index.entries(number));
        let items: Vec<ChunkId> = entries.filter_map(ChunkId::from_raw).collect();
        for &id in &items {
            rule(self.slab.is_head(id), || format!("{id:?} is indexed and no head"))?;
            let hash = self.hash(self.slab.key(id));
            let found = self.index.find(hash, |raw| raw == id.raw());
            rule(found.is_some(), || format!("{id:?} is not where its hash says"))?;
        }
        Ok(items)
    }

    fn audit_lists(&self, items: &[ChunkId]) -> Audited {
        let mut listed = HashSet::new();
        for segment in [Segment::Hot, Segment::Warm, Segment::Cold, Segment::Temporary] {
            let (mut bytes, mut count) = (0, 0);
            let (newest, oldest, list_items, list_bytes) = self.lru.ends_of(segment);
            let (mut next, mut newer) = (newest, None);
            while let Some(id) = next {
                let header = self.slab.header(id);
                rule(header.segment() == segment, || format!("{id:?} is in another segment"))?;
                let back = ChunkId::from_raw(header.newer());
                rule(back == newer, || format!("{id:?} does not link back"))?;
                rule(listed.insert(id.raw()), || format!("{id:?} is listed twice"))?;
                bytes += (header.key_len() + header.value_len()) as u64;
                count += 1;
                (newer, next) = (next, ChunkId::from_raw(header.older()));
            }
            rule(newer == oldest, || format!("{segment:?} ends elsewhere"))?;
            rule((count, bytes) == (list_items, list_bytes), || {
                format!(
                    "{segment:?}: {count} items of {bytes} bytes, not {list_items}, {list_bytes}"
                )
            })?;
        }
        rule(listed.len() == items.len(), || {
            format!("{} items are listed, {} indexed", listed.len(), items.len())
        })
    }

    fn audit_chains(&self, items: &[ChunkId]) -> Result<HashSet<u32>, String> {
        let mut chunks = HashSet::new();
        for &head in items {
            rule(chunks.insert(head.raw()), || format!("{head:?} is used twice"))?;
            let (mut before, mut next) = (head, self.slab.next(head));
            while let Some(id) = next {
                rule(chunks.insert(id.raw()), || format!("{id:?} is used twice"))?;
                let (back, behind) = self.slab.link(id);
                rule(back == before.raw(), || format!("{id:?} does not link back"))?;
                (before, next) = (id, ChunkId::from_raw(behind));
            }
            let value = self.slab.item(head, crate::time::Now::default()).value;
            let len: usize = value.pieces().map(<[u8]>::len).sum();
            rule(len == value.len(), || format!("{head:?} has {len} bytes of {}", value.len()))?;
        }
        Ok(chunks)
    }

    fn audit_digests(&self) -> Audited {
        let is_true = self.digests.as_ref().is_none_or(|kept| *kept == self.count_digests());
        rule(is_true, || "a digest is not that of its items".into())
    }

    fn audit_ends(&self, items: &[ChunkId]) -> Audited {
        items.iter().try_for_each(|&id| {
            let deadline = self.slab.header(id).deadline();
            let is_known = deadline == Deadline::NEVER
                || self.ends.of_page(self.slab.page_of(id)) <= deadline.raw();
            rule(is_known, || format!("nobody knows when {id:?} ends"))
        })
    }
}

impl super::slab::Slab {
    /// Whether exactly these chunks are in use.
    fn audit(&self, chunks: &HashSet<u32>) -> Audited {
        let mut in_use = 0;
        for page in 0..self.page_count() {
            let (mut used, mut free, mut place) = (0, 0, 0);
            while let Some((id, kind)) = self.chunk_at(page, place) {
                place += 1;
                if kind == Kind::Free {
                    free += 1;
                } else {
                    rule(chunks.contains(&id.raw()), || format!("{id:?} belongs to nothing"))?;
                    used += 1;
                }
            }
            self.audit_page(page, used, free)?;
            in_use += used;
        }
        rule(in_use == chunks.len(), || format!("{in_use} chunks are used, not {}", chunks.len()))?;
        self.audit_classes()
    }
}

pub(super) fn rule(holds: bool, breach: impl FnOnce() -> String) -> Audited {
    if holds { Ok(()) } else { Err(breach()) }
}
