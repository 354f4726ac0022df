//! Which pages hold something that is over.
//!
//! Each page knows the earliest end of the items that begin in it, or an earlier instant than that:
//! what is deleted or lives longer after all is noticed when the page is looked at. So an end
//! costs a word per page instead of links in each item, and nothing is looked at before its time.

use crate::time::{Deadline, Now};

const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Ends {
    /// In milliseconds of cluster time, by page.
    by_page: Vec<u64>,
    /// No later than the earliest of them.
    earliest: u64,
    /// Where the search goes on.
    next: usize,
}

impl Ends {
    pub(super) fn new() -> Self {
        Self { by_page: Vec::new(), earliest: NEVER, next: 0 }
    }

    /// An item in this page ends then.
    pub(super) fn add(&mut self, page: usize, deadline: Deadline) {
        let Some(end) = deadline.end() else {
            return;
        };
        if self.by_page.len() <= page {
            self.by_page.resize(page + 1, NEVER);
        }
        self.by_page[page] = self.by_page[page].min(end.0);
        self.earliest = self.earliest.min(end.0);
    }

    /// No later than the earliest end in a page, in milliseconds of cluster time.
    pub(super) fn of_page(&self, page: usize) -> u64 {
        self.by_page.get(page).copied().unwrap_or(NEVER)
    }

    /// Nobody knows any more what is in a page: all have to be looked at.
    pub(super) fn all_may_be_over(&mut self, pages: usize) {
        self.by_page.clear();
        self.by_page.resize(pages, 0);
        self.earliest = 0;
    }

    /// A page in which something may be over. The caller looks at it, and adds what stays.
    pub(super) fn take_due(&mut self, now: Now) -> Option<usize> {
        if self.earliest > now.cluster.0 {
            return None;
        }
        let (before, behind) = self.by_page.split_at(self.next.min(self.by_page.len()));
        let is_due = |&end: &u64| end <= now.cluster.0;
        let found = match behind.iter().position(is_due) {
            Some(place) => Some(before.len() + place),
            None => before.iter().position(is_due),
        };
        match found {
            Some(page) => {
                self.by_page[page] = NEVER;
                self.next = page + 1;
            }
            None => self.earliest = self.by_page.iter().copied().min().unwrap_or(NEVER),
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;

    fn at(ms: u64) -> Now {
        Now { cluster: Millis(ms), ..Now::default() }
    }

    #[test]
    fn a_page_is_due_with_its_first_item_and_only_once() {
        let mut ends = Ends::new();
        for (page, end) in [(0, 50), (1, 20), (1, 30), (2, 0)] {
            ends.add(page, Deadline::from_raw(end));
        }
        assert_eq!(ends.take_due(at(19)), None);
        assert_eq!(ends.take_due(at(20)), Some(1));
        assert_eq!(ends.take_due(at(20)), None);
        ends.add(1, Deadline::from_raw(30));
        assert_eq!(ends.take_due(at(60)), Some(0), "the search goes round");
        assert_eq!(ends.take_due(at(60)), Some(1));
        assert_eq!(ends.take_due(at(60)), None);
    }

    #[test]
    fn after_a_flush_every_page_is_due() {
        let mut ends = Ends::new();
        ends.add(0, Deadline::from_raw(50));
        ends.all_may_be_over(3);
        let mut due: Vec<_> = std::iter::from_fn(|| ends.take_due(at(0))).collect();
        due.sort_unstable();
        assert_eq!(due, [0, 1, 2]);
    }
}
