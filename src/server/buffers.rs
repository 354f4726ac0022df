//! Buffers belong to the thread, not to the connection: an idle connection holds none.

use std::cell::RefCell;

/// What a fresh buffer holds, in bytes.
const FRESH: usize = 16 << 10;
/// Larger ones, grown by a large value, go back to the allocator.
const KEPT_MAX: usize = 64 << 10;
/// More than this many pairs at rest are not worth keeping.
const COUNT_MAX: usize = 64;

thread_local! {
    static AT_REST: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
}

/// What a connection that works holds. In pairs, as one never goes without the other for long: half
/// the steps, and a buffer that has grown for replies is used for replies again.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// What has been read and not been executed.
    pub(super) input: Vec<u8>,
    /// Replies that have not been written.
    pub(super) output: Vec<u8>,
}

impl Buffers {
    /// Whether there is no buffer; the default has none.
    pub(super) fn is_none(&self) -> bool {
        self.input.capacity() == 0
    }

    /// Lets go what a large value has made of the output.
    pub(super) fn trim_output(&mut self) {
        trim(&mut self.output);
    }
}

/// Empty buffers.
pub(super) fn take() -> Buffers {
    let kept = AT_REST.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| Buffers {
        input: Vec::with_capacity(FRESH),
        output: Vec::with_capacity(FRESH),
    })
}

/// Gives buffers back; what is in them is forgotten.
pub(super) fn give(mut buffers: Buffers) {
    if buffers.is_none() {
        return;
    }
    buffers.input.clear();
    buffers.output.clear();
    trim(&mut buffers.input);
    trim(&mut buffers.output);
    AT_REST.with_borrow_mut(|at_rest| {
        if at_rest.len() < COUNT_MAX {
            at_rest.push(buffers);
        }
    });
}

#[inline]
fn trim(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_MAX && buffer.is_empty() {
        *buffer = Vec::with_capacity(FRESH);
    }
}
