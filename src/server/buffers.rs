//! Buffers belong to the thread, not to the connection: an idle connection holds none.

use std::cell::RefCell;

/// What a fresh buffer holds, in bytes.
const FRESH: usize = 16 << 10;
/// Larger ones, grown by a large value, go back to the allocator.
const KEPT_MAX: usize = 64 << 10;
/// More than this many at rest are not worth keeping.
const COUNT_MAX: usize = 64;

thread_local! {
    static AT_REST: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(super) fn take() -> Vec<u8> {
    let kept = AT_REST.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| Vec::with_capacity(FRESH))
}

/// Gives a buffer back; what is in it is forgotten.
pub(super) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEPT_MAX {
        return;
    }
    buffer.clear();
    AT_REST.with_borrow_mut(|at_rest| {
        if at_rest.len() < COUNT_MAX {
            at_rest.push(buffer);
        }
    });
}
