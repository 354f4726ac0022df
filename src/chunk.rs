//! Copies of bytes that are needed for a moment, many of them in one allocation.
//!
//! A chunk is used again once nobody needs anything of it. So one copy that stays keeps all of its
//! chunk: this is for what is in flight, and not for what is stored.

use std::mem;

use bytes::{Bytes, BytesMut};

/// What one allocation holds.
const CHUNK_BYTES: usize = 16 << 10;
/// What is larger gets an allocation of its own, so that a chunk holds several copies.
const SMALL_MAX: usize = 4 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Chunk {
    room: BytesMut,
    /// Where bytes come together one by one: a vector takes those faster.
    draft: Vec<u8>,
}

impl Chunk {
    /// A copy.
    pub fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > SMALL_MAX {
            return Bytes::copy_from_slice(bytes);
        }
        if self.room.capacity() < bytes.len() {
            self.room.reserve(CHUNK_BYTES);
        }
        self.room.extend_from_slice(bytes);
        self.room.split().freeze()
    }

    /// What that writes.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut draft = mem::take(&mut self.draft);
        write(&mut draft);
        if draft.len() > SMALL_MAX {
            return draft.into();
        }
        let copy = self.copy(&draft);
        draft.clear();
        self.draft = draft;
        copy
    }
}

/// The same bytes, without a copy where they are a part of those that somebody owns.
pub fn part_of(owned: &Bytes, part: &[u8]) -> Option<Bytes> {
    let (all, part_range) = (owned.as_ptr_range(), part.as_ptr_range());
    let is_part = all.start <= part_range.start && part_range.end <= all.end;
    (is_part && !part.is_empty()).then(|| owned.slice_ref(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_was_copied_whatever_their_length() {
        let mut chunk = Chunk::default();
        let lengths = [0, 1, 250, 4000, SMALL_MAX, SMALL_MAX + 1, 100_000];
        let texts: Vec<Vec<u8>> =
            (0..200u8).map(|n| vec![n; lengths[usize::from(n) % lengths.len()]]).collect();
        let copies: Vec<Bytes> = texts.iter().map(|text| chunk.copy(text)).collect();
        let written: Vec<Bytes> =
            texts.iter().map(|text| chunk.write(|out| out.extend_from_slice(text))).collect();
        assert!(copies.iter().zip(&texts).all(|(copy, text)| copy == text));
        assert!(written.iter().zip(&texts).all(|(written, text)| written == text));
    }

    #[test]
    fn a_chunk_is_used_again_when_nobody_needs_it() {
        let mut chunk = Chunk::default();
        let first = chunk.copy(b"x").as_ptr();
        let places = (0..10_000).map(|_| chunk.copy(&[7; 1000]).as_ptr());
        assert!(places.into_iter().all(|at| at.addr().abs_diff(first.addr()) < CHUNK_BYTES));
    }

    #[test]
    fn a_part_is_shared_and_what_is_none_is_not() {
        let owned = Bytes::from(b"some bytes".to_vec());
        let part = part_of(&owned, &owned[5..]).unwrap();
        assert_eq!((part.as_ptr(), &part[..]), (owned[5..].as_ptr(), &b"bytes"[..]));
        assert_eq!(part_of(&owned, b"bytes"), None);
        assert_eq!(part_of(&owned, &owned[3..3]), None);
    }
}
