//! What was evicted, for as long as somebody wants to know: other nodes, or whoever watches.
//!
//! Off unless told otherwise: an eviction then costs two comparisons more.

use super::Item;
use crate::time::Deadline;
use crate::version::Version;

/// An item that had to go for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its key.
    pub key: Box<[u8]>,
    /// Whether it was ever read.
    pub was_fetched: bool,
    /// When it would have ended.
    pub deadline: Deadline,
    /// Seconds since it was last used.
    pub idle_s: u32,
    /// Bytes of its value.
    pub size: usize,
}

/// At most this many are remembered between two looks; more are only counted.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// For the other nodes, which have to do without them too.
    lost: Option<Vec<(Box<[u8]>, Version)>>,
    is_wanted: bool,
    remembered: Vec<Evicted>,
    forgotten: u64,
}

impl Evictions {
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        if self.is_wanted != wanted {
            let lost = self.lost.take();
            *self = Self { is_wanted: wanted, lost, ..Self::default() };
        }
    }

    pub(super) fn set_shared(&mut self, shared: bool) {
        if self.lost.is_some() != shared {
            self.lost = shared.then(Vec::new);
        }
    }

    pub(super) fn has_lost(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| !lost.is_empty())
    }

    pub(super) fn take_lost(&mut self) -> Vec<(Box<[u8]>, Version)> {
        self.lost.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn add(&mut self, key: &[u8], item: Item<'_>) {
        if let Some(lost) = &mut self.lost {
            lost.push((key.into(), item.version));
        }
        if !self.is_wanted {
            return;
        }
        if self.remembered.len() == REMEMBERED_MAX {
            self.forgotten += 1;
            return;
        }
        self.remembered.push(Evicted {
            key: key.into(),
            was_fetched: item.was_fetched,
            deadline: item.deadline,
            idle_s: item.idle_s,
            size: item.value.len(),
        });
    }

    pub(super) fn take(&mut self) -> (Vec<Evicted>, u64) {
        (std::mem::take(&mut self.remembered), std::mem::take(&mut self.forgotten))
    }
}
