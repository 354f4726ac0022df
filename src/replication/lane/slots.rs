//! A set of slots of one lane.

use crate::key::SLOTS;

const WORD: usize = u64::BITS as usize;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Slots(Box<[u64]>);

impl Default for Slots {
    fn default() -> Self {
        Self(vec![0; SLOTS / WORD].into_boxed_slice())
    }
}

impl Slots {
    pub(super) fn has(&self, slot: usize) -> bool {
        self.0.get(slot / WORD).is_some_and(|word| word & 1 << (slot % WORD) != 0)
    }
}

impl FromIterator<usize> for Slots {
    /// Slots that do not exist are left out.
    fn from_iter<T: IntoIterator<Item = usize>>(slots: T) -> Self {
        let mut set = Self::default();
        for slot in slots {
            if let Some(word) = set.0.get_mut(slot / WORD) {
                *word |= 1 << (slot % WORD);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_it_was_made_of() {
        let slots: Slots = [0, 63, 64, 4095, 4096].into_iter().collect();
        let all: Vec<usize> = (0..SLOTS).filter(|&slot| slots.has(slot)).collect();
        assert_eq!(all, [0, 63, 64, 4095]);
        assert!(!slots.has(SLOTS));
    }
}
