//! The memory that all shards of a node share: one number that nothing is charged beyond, and the
//! pages that one shard has given back and another may take.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

/// Pages are powers of two between these sizes, in bytes.
const PAGE_MAX: usize = 1 << 20;
const PAGE_MIN: usize = 2 << 10;
/// No smaller than this where there is memory for at least `PAGES_FEW` of them.
const PAGE_SMALL: usize = 16 << 10;
const PAGES_FEW: usize = 256;
/// So many pages leave each of 16 shards enough for the classes it uses. With fewer and larger ones
/// items of 2 to 12 KiB lose up to a tenth of the memory to pages that are half empty.
const PAGES_WANTED: usize = 8 << 10;

/// `-m`, and how much of it is in use.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    page_size: usize,
    /// Allocated, but not charged: they are handed out before new ones are made.
    spare: ArrayQueue<Box<[u8]>>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let least = (limit / PAGES_FEW).clamp(PAGE_MIN, PAGE_SMALL);
        let page_size = (limit / PAGES_WANTED).clamp(least, PAGE_MAX).next_power_of_two();
        Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            page_size,
            // Allocated once: a page that is given back costs nothing. Beyond a limit that was raised
            // since, spare pages go back to the system.
            spare: ArrayQueue::new((limit / page_size).max(1)),
        }
    }

    /// Bytes of a page: a power of two.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Takes `bytes`, or nothing when they would exceed the limit. They are not for a page: spare
    /// ones make room for them.
    pub(super) fn try_charge(&self, bytes: usize) -> bool {
        let is_charged = self.charge(bytes);
        self.trim();
        is_charged
    }

    fn charge(&self, bytes: usize) -> bool {
        let limit = self.limit();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= limit)
            })
            .is_ok()
    }

    /// Gives `bytes` back.
    pub(super) fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "released {bytes} of only {before} bytes");
    }

    /// A page of any content, if there is memory for one.
    pub(super) fn take_page(&self) -> Option<Box<[u8]>> {
        if !self.charge(self.page_size) {
            return None;
        }
        Some(self.spare.pop().unwrap_or_else(|| vec![0; self.page_size].into_boxed_slice()))
    }

    /// Takes a page back. What does not fit a lowered limit goes back to the system.
    pub(super) fn return_page(&self, page: Box<[u8]>) {
        self.release(self.page_size);
        if self.used() + self.spare() + self.page_size <= self.limit() {
            drop(self.spare.push(page));
        }
    }

    /// Bytes that are allocated, but hold nothing.
    pub fn spare(&self) -> usize {
        self.spare.len() * self.page_size
    }

    /// Bytes not in use.
    pub fn free(&self) -> usize {
        self.limit().saturating_sub(self.used())
    }

    /// Bytes by which the use exceeds a limit that was lowered.
    pub(super) fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit())
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Moves the limit. Below what is in use, nothing more is charged until enough was released.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.trim();
    }

    /// Gives spare pages back to the system that do not fit beside what is in use.
    fn trim(&self) {
        while self.used() + self.spare() > self.limit() && self.spare.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_small_part_of_the_memory() {
        for (megabytes, page) in [(1, 4 << 10), (2, 8 << 10), (64, 16 << 10), (256, 32 << 10)] {
            assert_eq!(Budget::new(megabytes << 20).page_size(), page, "{megabytes}");
        }
        assert_eq!(Budget::new(1 << 30).page_size(), 128 << 10);
        assert_eq!(Budget::new(64 << 30).page_size(), 1 << 20);
    }

    #[test]
    fn a_returned_page_is_used_again_unless_the_limit_has_fallen() {
        let budget = Budget::new(1 << 20);
        let page = budget.take_page().unwrap();
        budget.return_page(page);
        assert_eq!((budget.used(), budget.spare()), (0, 4096));
        let page = budget.take_page().unwrap();
        assert_eq!((budget.used(), budget.spare()), (4096, 0));
        budget.set_limit(2048);
        assert_eq!(budget.excess(), 2048);
        budget.return_page(page);
        assert_eq!((budget.used(), budget.spare()), (0, 0));
        assert!(budget.take_page().is_none());
    }

    #[test]
    fn spare_pages_make_room_for_what_is_no_page() {
        let budget = Budget::new(1 << 20);
        let pages: Vec<_> = std::iter::from_fn(|| budget.take_page()).collect();
        pages.into_iter().for_each(|page| budget.return_page(page));
        assert_eq!((budget.used(), budget.spare()), (0, 1 << 20));
        assert!(budget.try_charge(5000));
        assert!(budget.used() + budget.spare() <= budget.limit(), "more is allocated than may be");
        assert!(!budget.try_charge(1 << 20));
    }
}
