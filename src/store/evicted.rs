//! What was evicted, for as long as somebody wants to know.
//!
//! Off unless told otherwise: an eviction then costs one comparison more.

use super::Item;
use crate::time::Deadline;

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
    is_wanted: bool,
    remembered: Vec<Evicted>,
    forgotten: u64,
}

impl Evictions {
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        if self.is_wanted != wanted {
            *self = Self { is_wanted: wanted, ..Self::default() };
        }
    }

    pub(super) fn add(&mut self, key: &[u8], item: Item<'_>) {
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
