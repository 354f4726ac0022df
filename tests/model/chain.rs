//! The value of the one key: the list of the operations that made it.
//!
//! Every operation appends its own number to what it finds. So each is a read-modify-write, and a
//! lost, doubled or reordered one is visible in every later value.

use std::fmt;

/// The number of an operation, from 1. It is its request id, too.
pub(crate) type Operation = u8;

/// A list of up to five operations, three bits each, the first in the lowest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Chain(u16);

impl Chain {
    const BITS: u16 = 3;

    pub(crate) fn len(self) -> u8 {
        let used = 16 - self.0.leading_zeros() as u16;
        used.div_ceil(Self::BITS) as u8
    }

    pub(crate) fn at(self, index: u8) -> Operation {
        (self.0 >> (Self::BITS * u16::from(index)) & 0b111) as u8
    }

    pub(crate) fn with(self, operation: Operation) -> Self {
        Self(self.0 | u16::from(operation) << (Self::BITS * u16::from(self.len())))
    }

    pub(crate) fn prefix(self, len: u8) -> Self {
        Self(self.0 & ((1u32 << (Self::BITS * u16::from(len))) - 1) as u16)
    }

    pub(crate) fn starts_with(self, other: Self) -> bool {
        self.prefix(other.len()) == other
    }

    pub(crate) fn operations(self) -> impl Iterator<Item = Operation> {
        (0..self.len()).map(move |index| self.at(index))
    }

    pub(crate) fn position(self, operation: Operation) -> Option<u8> {
        (0..self.len()).find(|&index| self.at(index) == operation)
    }

    /// Whether an operation was executed twice.
    pub(crate) fn repeats(self) -> bool {
        (0..self.len()).any(|index| self.position(self.at(index)) != Some(index))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.operations()).finish()
    }
}
