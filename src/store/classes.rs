//! The sizes of chunks, and which of them a stretch of bytes takes.
//!
//! Finer than memcached's: a chunk is about a 32nd larger than the next smaller one, as far as a page
//! can be cut so finely. What would still waste much is split over several chunks.

/// The number of a size class, smallest first.
pub(super) type Class = u8;

/// Chunks lie at multiples of this, in bytes.
pub(super) const UNIT: usize = 8;
/// Nothing that is stored takes less.
const SMALLEST: usize = 48;
/// Splitting so little costs more than it saves.
pub(super) const SPLIT_MIN: usize = 512;
/// Larger chunks would leave too much of a page unused, and move slower.
const LARGEST: usize = 4 << 10;

/// All classes of one page size.
#[derive(Debug)]
pub(super) struct Classes {
    sizes: Vec<u16>,
    /// The smallest class that holds so many units.
    by_units: Vec<Class>,
}

impl Classes {
    pub(super) fn new(page_size: usize) -> Self {
        let largest = (page_size / 4).min(LARGEST);
        let (mut sizes, mut size) = (Vec::new(), SMALLEST);
        while size < largest {
            // As large as it can be, so that nothing is left at the end of a page.
            let fitted = (page_size / (page_size / size)) / UNIT * UNIT;
            sizes.push(fitted as u16);
            size = (fitted + fitted / 32).next_multiple_of(UNIT).max(fitted + UNIT);
        }
        if sizes.last() != Some(&(largest as u16)) {
            sizes.push(largest as u16);
        }
        let mut by_units = Vec::with_capacity(largest / UNIT + 1);
        for units in 0..=largest / UNIT {
            let class = sizes.partition_point(|&size| usize::from(size) < units * UNIT);
            by_units.push(class as Class);
        }
        Self { sizes, by_units }
    }

    pub(super) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of a chunk.
    pub(super) fn size(&self, class: Class) -> usize {
        usize::from(self.sizes[usize::from(class)])
    }

    /// The smallest class that holds all of `bytes`, if one does.
    pub(super) fn holding(&self, bytes: usize) -> Option<Class> {
        self.by_units.get(bytes.div_ceil(UNIT)).copied()
    }

    /// The class for the next piece of `bytes`, of which `least` are not split: one that holds them
    /// all and wastes at most twice the `grain`, or else one that they fill, such that the rest,
    /// which takes `more` bytes besides, fits another well.
    pub(super) fn piece(&self, bytes: usize, least: usize, grain: usize, more: usize) -> Class {
        /// Further down the second piece is the larger one.
        const TRIED: Class = 20;
        let Some(class) = self.holding_rest(bytes, grain) else {
            return self.len() as Class - 1;
        };
        if class == 0 || self.size(class) - bytes <= 2 * grain {
            return class;
        }
        let with_rest = |first: &Class| {
            let rest = bytes.saturating_sub(self.size(*first)) + more;
            let second = self.holding_rest(rest, grain);
            self.size(*first) + second.map_or(usize::MAX / 2, |class| self.size(class))
        };
        (class.saturating_sub(TRIED)..class)
            .rev()
            .take_while(|&first| self.size(first) >= least)
            .min_by_key(with_rest)
            .unwrap_or(class)
    }

    /// A class for the end of an item of several chunks. Not the closest one: where all sizes
    /// occur, such ends would keep a page half empty for each class.
    fn holding_rest(&self, bytes: usize, grain: usize) -> Option<Class> {
        let roughly = bytes.next_multiple_of(grain);
        self.holding(roughly).or_else(|| self.holding(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [usize; 5] = [2 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20];

    #[test]
    fn sizes_rise_in_small_steps_and_fill_a_page() {
        for page in PAGES {
            let classes = Classes::new(page);
            for class in 1..classes.len() as Class {
                let (smaller, size) = (classes.size(class - 1), classes.size(class));
                assert!(size > smaller && size % UNIT == 0, "{page}: {smaller}, {size}");
                // Half of what another chunk would take, at the very most.
                assert!(
                    page % size < size / 2 || page % size < page / size * UNIT,
                    "{page}: {size}"
                );
            }
            assert!(classes.len() < 160, "{page}: {} classes", classes.len());
        }
    }

    #[test]
    fn a_class_holds_what_it_is_chosen_for() {
        for page in PAGES {
            let classes = Classes::new(page);
            let largest = classes.size(classes.len() as Class - 1);
            for bytes in 1..=largest {
                let class = classes.holding(bytes).unwrap();
                assert!(classes.size(class) >= bytes);
                assert!(class == 0 || classes.size(class - 1) < bytes);
            }
            assert_eq!(classes.holding(largest + 1), None);
        }
    }

    #[test]
    fn a_piece_wastes_little_or_is_full() {
        let classes = Classes::new(64 << 10);
        for bytes in 49..20_000 {
            let size = classes.size(classes.piece(bytes, 0, 32, 8));
            assert!(size <= bytes + 64, "{bytes} in {size}");
        }
    }
}
