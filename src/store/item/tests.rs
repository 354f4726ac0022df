//! What is written over chunks and what is read from them.

use proptest::prelude::*;

use super::super::tests::{at, store_of};
use super::super::{Applied, Change};
use crate::key::Key;
use crate::record::{Marks, Record};
use crate::time::Deadline;
use crate::version::{Epoch, Versions};

/// Lengths about the bounds of one chunk and of a page, and any.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0..600usize, 3900..4200usize, 8000..8400usize, 16_000..16_800usize, 0..200_000usize]
}

proptest! {
    #[test]
    fn an_item_is_read_as_it_was_written(
        limit in prop_oneof![Just(2 << 20), Just(16 << 20), Just(1 << 30)],
        key in prop::collection::vec(33..127u8, 1..=250),
        len in lengths(),
        flags in prop_oneof![Just(0), any::<u32>()],
        marks in any::<[bool; 3]>(),
        end in 2_000_000..1u64 << 48,
    ) {
        let mut store = store_of(limit, true);
        let version = Versions::new(Epoch(1), 0).next(None);
        let bytes: Vec<u8> = (0..len).map(|n| (n * n / 255) as u8).collect();
        let [is_stale, is_won, has_binary_key] = marks;
        let marks = Marks { is_stale, is_won, has_binary_key };
        let deadline = Deadline::from_raw(end);
        let change = Change::Put { cas: u64::MAX, flags, deadline, marks, value: &bytes[..] };
        let record = Record { key: &key[..], version, change };
        prop_assert_eq!(store.apply(&record, at(0)), Applied::Done);
        let item = store.get(Key::new(&key).unwrap(), at(0)).unwrap();
        prop_assert_eq!((item.cas, item.flags, item.version), (u64::MAX, flags, version));
        prop_assert_eq!((item.deadline, item.marks), (deadline, marks));
        prop_assert_eq!((item.value.len(), item.value.is_empty()), (len, len == 0));
        let pieces: Vec<&[u8]> = item.value.pieces().collect();
        prop_assert_eq!(pieces[0], item.value.start());
        prop_assert!(pieces.concat() == bytes, "other bytes");
        let mut out = b"before".to_vec();
        item.value.append_to(&mut out);
        prop_assert!(out.starts_with(b"before") && out[6..] == bytes);
        prop_assert_eq!(store.audit(), Ok(()));
    }
}
