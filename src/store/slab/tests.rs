//! Pages and chunks against a list of what was handed out.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    /// The chunk at this place among those that are out.
    Give(usize),
    /// Many at once, so that pages become empty.
    GiveAll(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![Just(2048usize), 1..300usize, 1..4096usize].prop_map(Step::Take),
        3 => any::<usize>().prop_map(Step::Give),
        1 => (0..100usize).prop_map(Step::GiveAll),
    ]
}

/// A chunk that is out, and the byte that it was filled with behind its links.
#[derive(Clone, Copy, Debug)]
struct Out {
    id: ChunkId,
    size: usize,
    mark: u8,
}

impl Out {
    fn is_intact(&self, slab: &Slab) -> bool {
        slab.chunk(self.id)[8..].iter().all(|&byte| byte == self.mark)
    }

    /// Where it lies, in units.
    fn range(&self) -> std::ops::Range<usize> {
        self.id.raw() as usize..self.id.raw() as usize + self.size / UNIT
    }
}

struct Model {
    budget: Arc<Budget>,
    slab: Slab,
    out: Vec<Out>,
}

impl Model {
    fn new(limit: usize) -> Self {
        let budget = Arc::new(Budget::new(limit));
        Self { slab: Slab::new(Arc::clone(&budget)), budget, out: Vec::new() }
    }

    fn take(&mut self, bytes: usize, mark: u8) {
        let Some(class) = self.slab.classes().holding(bytes) else {
            return;
        };
        let Some(id) = self.slab.take(class) else {
            let page_size = self.budget.page_size();
            assert!(self.budget.free() < page_size, "refused, though there is room for a page");
            return;
        };
        let size = self.slab.size_of(id);
        assert!(size >= bytes, "{size} bytes for {bytes}");
        self.slab.chunk_mut(id)[8..].fill(mark);
        self.out.push(Out { id, size, mark });
    }

    fn give(&mut self, place: usize) {
        if !self.out.is_empty() {
            let out = self.out.swap_remove(place % self.out.len());
            assert!(out.is_intact(&self.slab), "{out:?} was written over");
            self.slab.give(out.id);
        }
    }

    /// Nothing overlaps, and a page is held exactly as long as something in it is out.
    fn check(&self) {
        let mut ranges: Vec<_> = self.out.iter().map(Out::range).collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "chunks overlap");
        let mut pages: Vec<_> = self.out.iter().map(|out| self.slab.page_of(out.id)).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(self.slab.held(), pages.len() * self.budget.page_size());
        assert_eq!(self.budget.used(), self.slab.held());
        assert!(self.budget.used() <= self.budget.limit());
        assert_eq!(self.slab.audit_classes(), Ok(()));
    }
}

proptest! {
    #[test]
    fn chunks_never_overlap_and_empty_pages_go_back(
        limit in 64..400usize,
        steps in prop::collection::vec(step(), 1..500),
    ) {
        let mut model = Model::new(limit << 10);
        for (turn, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(bytes) => model.take(bytes, turn as u8),
                Step::Give(place) => model.give(place),
                Step::GiveAll(count) => (0..count).for_each(|place| model.give(place)),
            }
            model.check();
        }
        prop_assert!(model.out.iter().all(|out| out.is_intact(&model.slab)));
        while !model.out.is_empty() {
            model.give(0);
        }
        prop_assert_eq!((model.slab.held(), model.budget.used()), (0, 0));
    }
}
